"""What a study may ask of `sweep`: arms that score anew, arms without pictures."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from conftest import World
from program import BAD_INPUT, ok, refused


def masks_study(world: World, **more: Any) -> dict[str, Any]:
    """Masks alone: two solvers, on scores of two memory limits, and a preset."""
    return {
        "name": "masks",
        "pipeline": str(world.pipeline),
        "train": str(world.data),
        "calibrate": {"samples": 4},
        "sample": None,
        "arms": {"solver": {"solve": {"budget": "params=0.7"}}, "preset": {"solve": {"preset": "bk-sdm-base"}}},
        "axes": {
            "solver": {"set": ["solve.solver"], "values": ["knapsack", "greedy"]},
            "memory": {"set": ["score.memory"], "values": ["1GiB", "2GiB"]},
        },
    } | more


def write(path: Path, study: dict[str, Any]) -> Path:
    path.write_text(json.dumps(study))
    return path


def test_a_study_of_masks_scores_once_a_setting_and_draws_nothing(world: World, tmp_path: Path) -> None:
    rows = ok("sweep", write(tmp_path / "study.json", masks_study(world)), "-o", tmp_path / "run", "--json").json["arms"]
    # The preset has no scores and no solver: neither axis makes copies of it.
    assert sorted(rows) == ["preset"] + [f"solver memory={m} solver={s}" for m in ("1GiB", "2GiB") for s in ("greedy", "knapsack")]
    stages = [path.name.split("-")[0] for path in (tmp_path / "run" / "stages").iterdir()]
    # The study's own scores, and those of each limit; masks of equal scores and settings are one stage, too.
    assert {verb: stages.count(verb) for verb in set(stages)} == {"calibrate": 1, "score": 3, "solve": 5}
    assert all(row["files"].keys() == {"spec"} and "clip" not in row for row in rows.values())
    ok("report", tmp_path / "run", "-o", tmp_path / "report.html")


def test_pictures_need_the_models_that_judge_them(world: World, tmp_path: Path) -> None:
    study = masks_study(world, sample={"steps": 2})
    refused(BAD_INPUT, "sweep", write(tmp_path / "study.json", study), "-o", tmp_path / "run", says="`models` is missing")


def test_an_axis_must_set_what_is_an_arms_own(world: World, tmp_path: Path) -> None:
    study = masks_study(world, axes={"samples": {"set": ["calibrate.samples"], "values": [2, 4]}})
    refused(BAD_INPUT, "sweep", write(tmp_path / "study.json", study), "-o", tmp_path / "run", says=["calibrate.samples", "score., solve."])
