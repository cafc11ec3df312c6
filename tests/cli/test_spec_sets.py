"""Spec sets in `sample`: one network an interval of timesteps, all on the pipeline's weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from conftest import World
from program import BAD_INPUT, USAGE, ok, refused

A, B = "down_blocks.0.resnets.1", "up_blocks.0.resnets.1"


def write(path: Path, content: Any) -> Path:
    path.write_text(json.dumps(content))
    return path


def spec_set(world: World, *students: tuple[list[str], int, int]) -> dict[str, Any]:
    specs = [world.spec_json(layers, timesteps=[first, last]) for layers, first, last in students]
    return {"format": "laptopdiff.spec-set/1", "students": specs}


def pictures(world: World, folder: Path, *flags: str | Path) -> list[bytes]:
    ok("sample", world.pipeline, "--prompts", world.prompts, "--scheduler", "ddim", "--steps", "4", *flags, "-o", folder)
    return [path.read_bytes() for path in sorted(folder.glob("*.png"))]


def test_a_set_runs_each_interval_with_its_own_network(world: World, tmp_path: Path) -> None:
    only_a = pictures(world, tmp_path / "a", "--spec", write(tmp_path / "a.json", world.spec_json([A])))
    same = write(tmp_path / "same.json", spec_set(world, ([A], 0, 500), ([A], 500, 1000)))
    assert pictures(world, tmp_path / "same", "--unet", same) == only_a
    # The order of the list means nothing.
    mixed = write(tmp_path / "mixed.json", spec_set(world, ([B], 500, 1000), ([A], 0, 500)))
    of_both = pictures(world, tmp_path / "mixed", "--spec", mixed)
    assert of_both not in (only_a, pictures(world, tmp_path / "b", "--spec", write(tmp_path / "b.json", world.spec_json([B]))))
    # Timesteps 1, 251, 501 and 751: a border on a step belongs to the interval that begins there.
    before, at = (write(tmp_path / f"{t}.json", spec_set(world, ([A], 0, t), ([B], t, 1000))) for t in (500, 501))
    after = write(tmp_path / "502.json", spec_set(world, ([A], 0, 502), ([B], 502, 1000)))
    assert pictures(world, tmp_path / "500", "--unet", before) == pictures(world, tmp_path / "501", "--unet", at) == of_both
    assert pictures(world, tmp_path / "502", "--unet", after) != of_both


@pytest.mark.parametrize(
    ("students", "says"),
    [
        ([([A], 0, 500), ([B], 500, 900)], ["cover the timesteps [0, 900)", "[0, 1000)"]),
        ([([A], 100, 500), ([B], 500, 1000)], "cover the timesteps [100, 1000)"),
        ([([A], 0, 400), ([B], 500, 1000)], "leave a gap or overlap"),
    ],
)
def test_sets_that_do_not_cover_the_schedule(world: World, tmp_path: Path, students: list[Any], says: Any) -> None:
    file = write(tmp_path / "set.json", spec_set(world, *students))
    refused(BAD_INPUT, "sample", world.pipeline, "--prompts", world.prompts, "--unet", file, "-o", tmp_path / "out", says=says)


def test_sets_where_one_network_is_meant(world: World, tmp_path: Path) -> None:
    file = write(tmp_path / "set.json", spec_set(world, ([A], 0, 500), ([B], 500, 1000)))
    prompts = ("--prompts", world.prompts, "-o", tmp_path / "out")
    refused(USAGE, "sample", world.pipeline, *prompts, "--unet", file, "--spec", world.spec, says="is a spec set, and --spec was given too")
    refused(USAGE, "inspect", world.unet, "--spec", file, says=["is a spec set", "give one spec"])


def test_a_set_of_another_base(world: World, tmp_path: Path) -> None:
    content = spec_set(world, ([A], 0, 500), ([B], 500, 1000))
    for student in content["students"]:
        student["base"]["config"]["norm_eps"] = 1e-3
    file = write(tmp_path / "set.json", content)
    refused(BAD_INPUT, "sample", world.pipeline, "--prompts", world.prompts, "--unet", file, "-o", tmp_path / "out", says="norm_eps")
