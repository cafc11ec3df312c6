"""Specs, scores and budgets that are wrong: one message that says what, where and what to do, and the promised exit code."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Callable

import numpy as np
import pytest
from bad_input import changed_config, changed_unet, score, write
from conftest import World
from program import BAD_INPUT, USAGE, files_below, refused

# Specs


@pytest.mark.slow
@pytest.mark.parametrize(
    ("removed", "says"),
    [
        (["mid_block.resnets.7"], "did you mean"),
        (["mid_block.resnets.0", "mid_block.resnets.0"], "listed twice"),
        ([("up_blocks.3", "drop"), "up_blocks.3.resnets.0"], "lies inside `up_blocks.3`, which is dropped"),
        ([("down_blocks.1.resnets.0", "drop"), "down_blocks.1.attentions.0"], "inside a dropped layer"),
        (["mid_block.attentions.0", "mid_block.attentions.0.transformer_blocks.0"], "listed twice"),
        ([("mid_block.resnets.0", "remove")], "expected bypass or drop"),
        ([("mid_block", "bypass")], "cannot be removed by bypass"),
        ([("mid_block.attentions.0.transformer_blocks.0", "drop")], "cannot be removed by drop"),
        ([("down_blocks.0.resnets.0", "drop")], "up_blocks."),  # one skip too few: the step that misses it is named
        ([("up_blocks.0.resnets.0", "drop")], "skip"),
        ([""], "cannot be removed"),
        (["x" * 100_000], "cannot be removed"),
    ],
)  # fmt: skip
def test_specs_that_do_not_fit_name_the_layer_or_step(removed: list[Any], says: str, world: World, tmp_path: Path) -> None:
    spec = write(tmp_path / "spec.json", world.spec_json(removed))
    message = refused(BAD_INPUT, "inspect", world.unet, "--spec", spec, says=[says, "spec.json"])
    assert len(message) < 3000


@pytest.mark.slow
@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"format": "laptopdiff.spec/2"}, 'expected "laptopdiff.spec/1"'),
        ({"format": None}, "`format` is missing"),
        ({"base": None}, "`base` is missing"),
        ({"base": {"class": "UNet2DConditionModel"}}, "`config` is missing"),
        ({"removed": "all"}, "`removed` must be a list"),
        ({"removed": [{"layr": "x"}]}, "`layer` is missing"),
        ({"removed": [{"layer": "mid_block.resnets.0", "hw": "drop"}]}, "unknown key `hw` (did you mean `how`?)"),
        ({"shell": "open"}, "expected drop or keep"),
        ({"timesteps": [5, 5]}, "`timesteps` must be [first, last)"),
        ({"timesteps": [0]}, "`timesteps` must be [first, last)"),
        ({"shel": "drop"}, "unknown key `shel` (did you mean `shell`?)"),
        ({"totals": {"params": {"base": 1, "pruned": 1}}}, "says base 1, pruned 1; this base and these removals give"),
    ],
)  # fmt: skip
def test_specs_with_wrong_fields(change: dict[str, Any], says: str, world: World, tmp_path: Path) -> None:
    spec = {key: value for key, value in (world.spec_json([]) | change).items() if value is not None}
    refused(BAD_INPUT, "inspect", world.unet, "--spec", write(tmp_path / "spec.json", spec), says=[says, "spec.json"])


def test_spec_and_scores_of_another_base(world: World, tmp_path: Path) -> None:
    other = changed_config(world, tmp_path, sample_size=16)
    refused(BAD_INPUT, "inspect", other, "--spec", world.spec, says=["another base", "`sample_size` is 8", "16"])
    solve = ["--scores", world.scores, "--budget", "params=0.8", "-o", tmp_path / "o"]
    refused(BAD_INPUT, "solve", other, *solve, says=["another base", "`sample_size` is 8", "16"])


def test_spec_and_scores_of_other_weights(world: World, tmp_path: Path) -> None:
    def change(tensors: dict[str, np.ndarray]) -> None:
        tensors["conv_out.bias"] += 1

    other = changed_unet(world, tmp_path, change)
    run = ["forward", other, "--inputs", world.calibration, "-o", tmp_path / "o"]
    refused(BAD_INPUT, *run, "--spec", world.spec, says="other weights")
    audit = ["--scores", world.scores, "--calibration", world.calibration, "-o", tmp_path / "o"]
    refused(BAD_INPUT, "audit", other, *audit, says="scores of other weights")
    config = write(tmp_path / "d.json", world.distill_config(teacher=str(other)))
    refused(BAD_INPUT, "distill", "--config", config, "-o", tmp_path / "run", says="other weights")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda s: s.update(format="laptopdiff.spec/1"), 'expected "laptopdiff.scores/1"'),
        (lambda s: s.update(extra=1), "unknown key `extra`"),
        (lambda s: s["units"].pop(), "must list the 38 units"),
        (lambda s: s["units"].reverse(), "expected `down_blocks.0.resnets.0` in execution order"),
        (lambda s: s["units"][0].update(params=1), "`params` is 1, this base gives"),
        (lambda s: s["units"][0].update(score="high"), "must be a number"),
        (lambda s: s["gram"].pop(), "`gram` must have 38 rows"),
        (lambda s: s["gram"][3].pop(), "gram[3] must have 38 entries"),
        (lambda s: s["gram"][3].__setitem__(0, "x"), "must be a number"),
        (lambda s: s["gram"][3].__setitem__(3, None), "is null, but its `score` is"),
        (lambda s: s["gram"][3].__setitem__(3, -1), "expected 0 or more: it is a mean of squares"),
        (lambda s: [unit.update(score=1e308) for unit in s["units"]], "units[0] (down_blocks.0.resnets.0): `score` is 1e+308"),
        (lambda s: s.update(samples=-4), "`samples` is -4"),
        (lambda s: s.update(shells=[{"path": "mid_block"}]), "`units` is missing"),
    ],
)  # fmt: skip
def test_scores_that_were_edited(change: Callable[[Any], Any], says: str, world: World, tmp_path: Path) -> None:
    scores = json.loads(world.scores.read_text())
    change(scores)
    file = write(tmp_path / "scores.json", scores)
    refused(BAD_INPUT, "solve", world.unet, "--scores", file, "--budget", "params=0.8", "-o", tmp_path / "o", says=[says, "scores.json"])


@pytest.mark.parametrize(
    ("budget", "says"),
    [
        ("params=0", "the least share that can be kept is params="),
        ("params=0.01", "the least share that can be kept is params="),
        ("params=-1", "expected a share"),
        ("params=nan", "expected a share"),
        ("params=0.5x", "expected a share"),
        ("params=", "expected a share"),
        ("params", "expected RESOURCE=0.5"),
        ("parms=0.5", "one of params, macs, latency, activations"),
        ("params=0.5,params=0.6", "given twice"),
        ("params=@bk", "unknown preset `bk`"),
        ("macs=0", "the least share that can be kept is macs="),
        ("activations=0", "the least share that can be kept is activations="),
        ("activations=3ms", "units: KiB, MiB, GiB"),
        ("latency=0.5", "laptopdiff bench layers"),
        ("", "--budget is missing"),
    ],
)  # fmt: skip
def test_budgets_that_cannot_be(budget: str, says: str, world: World, tmp_path: Path) -> None:
    refused(USAGE, "solve", world.unet, "--scores", world.scores, "--budget", budget, "-o", tmp_path / "o", says=says)
    assert files_below(tmp_path) == set()


@pytest.mark.slow
def test_wrong_names_and_amounts_of_other_verbs(world: World, tmp_path: Path) -> None:
    out = ["-o", tmp_path / "o"]
    solve = ["solve", world.unet, "--scores", world.scores, "--budget", "params=0.8", *out]
    refused(USAGE, *solve, "--solver", "grm", says="did you mean `gram`?")
    refused(USAGE, *score(world, world.unet, tmp_path), "--criterion", "clip", says="unknown criterion `clip`")
    audit = ["audit", world.unet, "--scores", world.scores, "--calibration", world.calibration, *out]
    for flags in (["--keep", ""], ["--keep", "0"], ["--keep", "1.5"], ["--random-masks", "-1"], ["--samples", "-1"], ["--seed", "-1"]):
        refused(USAGE, *audit, *flags)
    refused(USAGE, *audit, "--presets", "x", says="unknown preset `x`")
    calibrate = ["calibrate", world.pipeline, "--data", world.data, *out]
    for flags in (["--samples", "0"], ["--samples", "1000000000000"], ["--seed", "-1"]):
        refused(USAGE, *calibrate, *flags)
    refused(USAGE, *calibrate, "--samples", "1", "--first-timestep", "5", "--last-timestep", "5", says="[5, 5)")
    sample = ["sample", world.pipeline, "--prompts", world.prompts, *out]
    for flags in (["--steps", "0"], ["--steps", "100000"], ["--batch", "0"], ["--seed", "-1"], ["--count", "-1"], ["--latent", "-4"], ["--latent", "1000000000"]):
        refused(USAGE, *sample, *flags)
    refused(USAGE, *sample, "--scheduler", "dpm", says="did you mean `ddpm`")
    assert files_below(tmp_path) == set()
