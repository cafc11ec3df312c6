"""What a study may ask of `sweep`: arms that score anew, arms without pictures."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from conftest import World
from program import BAD_INPUT, ROOT, USAGE, ok, refused


def masks_study(world: World, **more: Any) -> dict[str, Any]:
    """Masks alone: two solvers, on scores of two memory limits, and a preset."""
    return {
        "name": "masks",
        "pipeline": str(world.pipeline),
        "train": str(world.data),
        "calibrate": {"samples": 4},
        "loss": {"calibrate": {"seed": 5}},
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
    # The study's own scores, and those of each limit; masks of equal scores and settings are one stage, too. The losses
    # are of inputs of their own.
    assert {verb: stages.count(verb) for verb in set(stages)} == {"calibrate": 2, "score": 3, "solve": 5, "audit": 1}
    assert all(row["files"].keys() == {"spec"} and "clip" not in row for row in rows.values())
    ok("report", tmp_path / "run", "-o", tmp_path / "report.html")


def test_a_study_of_masks_measures_each_arms_loss(world: World, tmp_path: Path) -> None:
    study = write(tmp_path / "study.json", masks_study(world))
    rows = ok("sweep", study, "-o", tmp_path / "run", "--json").json["arms"]
    ok("calibrate", world.pipeline, "--data", world.data, "--samples", "4", "--seed", "5", "-o", tmp_path / "cal.safetensors")
    for name, row in rows.items():
        spec, file = tmp_path / "run" / row["files"]["spec"], tmp_path / f"{name}.json"
        ok("audit", world.pipeline, "--scores", world.scores, "--calibration", tmp_path / "cal.safetensors", "--keep", "",
           "--random-masks", "0", "--specs", spec, "-o", file)  # fmt: skip
        (mask,) = json.loads(file.read_text())["rows"]
        assert row["loss"] == pytest.approx(mask["true"], rel=1e-5)
        assert row["loss_stderr"] == pytest.approx(mask["stderr"], rel=1e-4)
    # Somewhere else the finished stages are found again, and the losses with them.
    (tmp_path / "run").rename(tmp_path / "moved")
    again = ok("sweep", study, "-o", tmp_path / "moved", "--json")
    assert "complete already" in again.err
    assert {name: row["loss"] for name, row in again.json["arms"].items()} == {name: row["loss"] for name, row in rows.items()}


@pytest.mark.parametrize("name", ["study", "study_quick", "study_long", "study_rates", "study_masks", "study_masks_ddpm"])
def test_the_demos_studies_are_accepted_stage_by_stage(world: World, tmp_path: Path, name: str) -> None:
    study = json.loads((ROOT / "experiments" / "demo" / f"{name}.json").read_text())
    ok("sweep", ROOT / "experiments" / "demo" / f"{name}.json", "-o", tmp_path / "run", "--dry-run", cwd=ROOT)
    for verb in ("audit", "loss"):
        settings = {key: value for key, value in (study.get(verb) or {}).items() if key != "calibrate"}
        file = write(tmp_path / f"{verb}_settings.json", settings | {"samples": 0, "keep": [0.9], "presets": []})
        ok("audit", world.pipeline, "--scores", world.scores, "--calibration", world.calibration, "--config", file, "--dry-run",
           "-o", tmp_path / "audit.json")  # fmt: skip


def test_defaults_of_score_are_for_the_criteria_that_they_say_something_to(world: World, tmp_path: Path) -> None:
    axis = {"criterion": {"set": ["score.criterion"], "values": ["output_loss", "magnitude"]}}
    study = masks_study(world) | {"score": {"samples": 2, "batch": 2}, "arms": {"a": {"solve": {"budget": "params=0.7"}}}, "axes": axis}
    done = ok("sweep", write(tmp_path / "study.json", study), "-o", tmp_path / "run", "--json").json["arms"]
    settings = [json.loads(path.read_text()) for path in (tmp_path / "run" / "stages").glob("score-*/settings.json")]
    assert len(done) == 2 and len(settings) == 3  # the study's own scores, too
    for stage in settings:
        weights_alone = stage.get("criterion") == "magnitude"
        assert {"samples", "batch", "calibration"} & stage.keys() == (set() if weights_alone else {"samples", "batch", "calibration"})
    # What an arm says itself must have an effect.
    arm = {"a": {"solve": {"budget": "params=0.7"}, "score": {"criterion": "random", "samples": 2}}}
    own = write(tmp_path / "own.json", study | {"arms": arm, "axes": {}})
    refused(USAGE, "sweep", own, "-o", tmp_path / "own", says="`samples` changes nothing of the criterion `random`")


def test_pictures_need_the_models_that_judge_them(world: World, tmp_path: Path) -> None:
    study = masks_study(world, sample={"steps": 2})
    refused(BAD_INPUT, "sweep", write(tmp_path / "study.json", study), "-o", tmp_path / "run", says="`models` is missing")


def test_an_axis_must_set_what_is_an_arms_own(world: World, tmp_path: Path) -> None:
    study = masks_study(world, axes={"samples": {"set": ["calibrate.samples"], "values": [2, 4]}})
    refused(BAD_INPUT, "sweep", write(tmp_path / "study.json", study), "-o", tmp_path / "run", says=["calibrate.samples", "score., solve."])
