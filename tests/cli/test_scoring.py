"""`score` beyond its default: criteria that sample, intervals of timesteps, stopping by itself, and what it refuses."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bad_input import WEIGHTS, changed_config, score
from conftest import World
from program import BAD_INPUT, NON_FINITE, USAGE, files_below, ok, refused
from safetensors.numpy import load_file, save_file


def read(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text())


def test_help_lists_the_criteria() -> None:
    text = ok("score", "--help").out
    assert "taylor and fisher: one at a time" in " ".join(text.split())
    for name in ("output_loss", "gram", "task_loss", "clip_score", "magnitude", "taylor", "fisher", "block_influence", "latent_shift", "random"):
        assert f"{name}: " in text


def test_it_stops_when_masks_are_stable(world: World, tmp_path: Path) -> None:
    # Sixteen samples that nearly agree.
    tensors = {name: np.repeat(tensor[:1], 16, axis=0) for name, tensor in load_file(world.calibration).items()}
    tensors["sample"] += 1e-3 * np.random.default_rng(4).standard_normal(tensors["sample"].shape).astype(np.float32)
    save_file(tensors, tmp_path / "cal.safetensors")
    command = ["score", world.unet, "--calibration", tmp_path / "cal.safetensors", "--batch", "2"]
    flags = ["--until", "stable", "--keep", "0.9,0.5"]
    for name in ("a", "b"):
        ok(*command, "-o", tmp_path / name, *flags)
    one, other = read(tmp_path / "a"), read(tmp_path / "b")
    assert one["stability"] == other["stability"] and one["units"] == other["units"]
    found = one["stability"]
    assert found["solver"] == "knapsack" and found["resamples"] == 200 and found["share"] == 0.95
    assert found["stable"] and found["samples"] == one["samples"] == 8
    for check in found["checks"]:
        assert check["unchanged"].keys() == {"0.9", "0.5"}
        assert all(0 <= share <= 1 for share in check["unchanged"].values())
    work = one["made_by"]["work"]
    assert work["forwards"] < work["naive_forwards"] < work["naive_forwards_available"] == 39 * 16
    # The same samples without stopping are the same scores.
    ok(*command, "-o", tmp_path / "c", "--samples", str(one["samples"]))
    assert read(tmp_path / "c")["units"] == one["units"]


def test_it_stops_early_where_samples_agree(world: World, tmp_path: Path) -> None:
    """Sixteen copies of one sample: the first check already finds every resample's mask the same."""
    tensors = {name: np.repeat(tensor[:1], 16, axis=0) for name, tensor in load_file(world.calibration).items()}
    save_file(tensors, tmp_path / "cal.safetensors")
    done = ok("score", world.unet, "--calibration", tmp_path / "cal.safetensors", "--batch", "4", "--until", "stable", "-o", tmp_path / "s")
    scores = read(tmp_path / "s")
    assert scores["stability"]["stable"] and scores["samples"] == 8
    assert "on all 16 samples" in done.err


@pytest.mark.slow
def test_stability_of_gram_masks(world: World, tmp_path: Path) -> None:
    flags = ["--until", "stable", "--keep", "0.7", "--solver", "gram"]
    ok("score", world.unet, "--calibration", world.calibration, "-o", tmp_path / "s", *flags)
    assert read(tmp_path / "s")["stability"]["solver"] == "gram"


def refused_unmeasured(code: int, world: World, folder: Path, *flags: str | Path, says: str) -> None:
    """Nothing was measured, and the unfinished work that is there was not looked at."""
    partial = folder / "scores.json.partial"
    partial.mkdir()
    (partial / "thesis.tex").write_text("in the way of a scoring")
    refused(code, *score(world, world.unet, folder, *flags), says=says)
    refused(code, *score(world, world.unet, folder, *flags, "--dry-run"), says=says)


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (["--solver", "gramm"], "did you mean `gram`"),
        (["--solver", "gram", "--criterion", "block_influence"], "no Gram matrix"),
        (["--keep", "0.7,0.000001"], "budget `params` needs"),
    ],
)
def test_what_stability_cannot_be_asked_for_is_refused_before_the_work(flags: list[str], says: str, world: World, tmp_path: Path) -> None:
    refused_unmeasured(USAGE, world, tmp_path, "--until", "stable", *flags, says=says)


def guidance_distilled(world: World, folder: Path) -> Path:
    """The small pipeline with a U-Net that is told the guidance as an embedding."""
    pipeline = Path(shutil.copytree(world.pipeline, folder))
    config = json.loads((pipeline / "unet/config.json").read_text()) | {"time_cond_proj_dim": 8}
    (pipeline / "unet/config.json").write_text(json.dumps(config))
    tensors = load_file(pipeline / "unet" / WEIGHTS)
    weight = np.random.default_rng(2).standard_normal((16, 8)).astype(np.float32)
    save_file(tensors | {"time_embedding.cond_proj.weight": weight}, pipeline / "unet" / WEIGHTS)
    return pipeline


@pytest.mark.parametrize("distilled", [False, True])
def test_a_pictures_score_falls_by_what_it_falls(distilled: bool, world: World, tmp_path: Path) -> None:
    """clip_score is the difference of what `sample` and `evaluate` say."""
    if distilled:
        world = replace(world, pipeline=guidance_distilled(world, tmp_path / "pipeline"))
    drawn = ["--prompts", world.prompts, "--steps", "2", "--seed", "4"]
    ok("score", world.pipeline, "--criterion", "clip_score", *drawn, "--models", world.models, "-o", tmp_path / "s")
    scores = read(tmp_path / "s")
    assert scores["samples"] == 4 and "gram" not in scores
    clip = {}
    for name in ("", "mid_block.resnets.0", "up_blocks.1.resnets.2"):
        spec = tmp_path / f"{name}.json"
        spec.write_text(json.dumps(world.spec_json([name] if name else [])))
        ok("sample", world.pipeline, *drawn, "--spec", spec, "-o", tmp_path / f"images {name}")
        ok("evaluate", "--images", tmp_path / f"images {name}", "--prompts", world.prompts, "--models", world.models,
           "--metrics", "clip", "-o", tmp_path / f"m {name}")  # fmt: skip
        clip[name] = read(tmp_path / f"m {name}")["metrics"]["clip"]["value"]
    for unit in scores["units"]:
        if unit["layer"] in clip:
            assert unit["score"] == pytest.approx(clip[""] - clip[unit["layer"]], abs=1e-6)
    # Negative scores are no obstacle to solvers.
    for solver in ("knapsack", "greedy"):
        ok("solve", world.unet, "--scores", tmp_path / "s", "--budget", "params=0.6", "--solver", solver, "-o", tmp_path / solver)


def test_latent_shift(world: World, tmp_path: Path) -> None:
    drawn = ["--prompts", world.prompts, "--steps", "2"]
    for name, flags in {"one": ["--picture-batch", "4"], "two": ["--picture-batch", "3"]}.items():
        ok("score", world.pipeline, "--criterion", "latent_shift", *drawn, *flags, "-o", tmp_path / name)
    one, two = read(tmp_path / "one"), read(tmp_path / "two")
    for ours, theirs in zip(one["units"], two["units"], strict=True):
        assert ours["score"] == pytest.approx(theirs["score"], rel=1e-3)
    assert all(unit["score"] > 0 for unit in one["units"])


def test_sampling_criteria_say_what_they_need(world: World, tmp_path: Path) -> None:
    out = ["-o", tmp_path / "s"]
    clip = ["--criterion", "clip_score", "--prompts", world.prompts]
    refused(USAGE, "score", world.unet, *clip, "--models", world.models, *out, says="no pipeline folder")
    refused(USAGE, "score", world.pipeline, *clip, *out, says="--models is missing")
    refused(USAGE, "score", world.pipeline, "--criterion", "latent_shift", *out, says="--prompts is missing")
    one = ["--criterion", "latent_shift", "--prompts", world.prompts, "--count", "1"]
    refused(USAGE, "score", world.pipeline, *one, *out, says="needs at least 2")
    refused(USAGE, "score", world.pipeline, *clip, "--models", world.models, "--bins", "2", *out, says="no scores of single calibration samples")
    assert files_below(tmp_path) == set()


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (["--criterion", "output_los"], "did you mean `output_loss`"),
        (["--bins", "-1"], "--bins -1"),
        (["--bins", "1001"], "expected 1 to 1000"),
        (["--until", "bored"], "expected stable"),
        (["--solver", "gram"], "belongs to --until stable"),
        (["--until", "stable", "--solver", "gramm"], "did you mean `gram`"),
        (["--until", "stable", "--keep", "1.5"], "shares between 0 and 1"),
        (["--criterion", "random", "--until", "stable"], "no scores of single calibration samples"),
        (["--keep", "0.5"], "belongs to --until stable"),
        (["--criterion", "random", "--samples", "2"], "`calibration`, `samples` change nothing of the criterion `random`; leave them out"),
        (["--criterion", "magnitude"], "`calibration` changes nothing of the criterion `magnitude`; leave it out"),
        (["--criterion", "latent_shift", "--models", "m"], "`calibration`, `models` change nothing"),
        (["--criterion", "clip_score", "--batch", "2"], "`batch`, `calibration` change nothing"),
        (["--prompts", "p.txt"], "`prompts` changes nothing of the criterion `output_loss`"),
        (["--criterion", "fisher", "--picture-batch", "2"], "`picture_batch` changes nothing"),
    ],
)
def test_wrong_flags_are_refused(flags: list[str], says: str, world: World, tmp_path: Path) -> None:
    refused(USAGE, *score(world, world.unet, tmp_path, *flags), says=says)
    assert files_below(tmp_path) == set()


def test_a_criterion_of_weights_alone_takes_no_calibration_set(world: World, tmp_path: Path) -> None:
    ok("score", world.unet, "--criterion", "magnitude", "-o", tmp_path / "s.json")
    scores = json.loads((tmp_path / "s.json").read_text())
    assert scores["samples"] == 0 and not scores.get("calibration_sha256")
    refused(USAGE, "score", world.unet, "--criterion", "magnitude", "--memory", "1GiB", "-o", tmp_path / "o", says="`memory` changes nothing of")


def test_targets_are_needed_and_checked(world: World, tmp_path: Path) -> None:
    tensors = load_file(world.calibration)
    noise = tensors.pop("noise")

    def run(code: int, says: str, **more: np.ndarray) -> None:
        save_file(tensors | more, tmp_path / "cal.safetensors")
        command = ["score", world.unet, "--calibration", tmp_path / "cal.safetensors", "--criterion", "task_loss"]
        refused(code, *command, "-o", tmp_path / "s", says=says)

    run(BAD_INPUT, "tensor `noise` is missing")
    run(BAD_INPUT, "`noise` is [5, 3, 8, 8]", noise=noise[:, :3].copy())
    run(NON_FINITE, "`noise` holds NaN or Inf", noise=np.full_like(noise, np.nan))


def test_a_networks_own_target_goes_before_the_noise(world: World, tmp_path: Path) -> None:
    """`calibrate` of a v-prediction pipeline writes what the network should predict."""
    pipeline = tmp_path / "pipeline"
    shutil.copytree(world.pipeline, pipeline)
    scheduler = pipeline / "scheduler" / "scheduler_config.json"
    scheduler.write_text(json.dumps(json.loads(scheduler.read_text()) | {"prediction_type": "v_prediction"}))
    cal = tmp_path / "cal.safetensors"
    ok("calibrate", pipeline, "--data", world.data, "--samples", "3", "-o", cal)
    tensors = load_file(cal)
    betas = np.linspace(0.0001**0.5, 0.02**0.5, 1000) ** 2  # scaled_linear of the scheduler's defaults
    signal = np.cumprod(1 - betas)[tensors["timestep"]].reshape(-1, 1, 1, 1)
    clean = (tensors["sample"] - np.sqrt(1 - signal) * tensors["noise"]) / np.sqrt(signal)
    velocity = np.sqrt(signal) * tensors["noise"] - np.sqrt(1 - signal) * clean
    np.testing.assert_allclose(tensors["target"], velocity, atol=1e-3 * np.abs(velocity).max())
    for name, criterion in (("t", "task_loss"), ("f", "fisher"), ("o", "output_loss")):
        ok("score", pipeline, "--calibration", cal, "--criterion", criterion, "-o", tmp_path / name)
    tensors["noise"] = tensors["target"]
    del tensors["target"]
    save_file(tensors, cal)
    ok("score", pipeline, "--calibration", cal, "--criterion", "task_loss", "-o", tmp_path / "same")
    assert read(tmp_path / "same")["units"] == read(tmp_path / "t")["units"]


def test_a_calibration_set_of_another_network_is_refused(world: World, tmp_path: Path) -> None:
    """The shapes of its inputs fit, but it says what it was made for."""
    other = changed_config(world, tmp_path, block_out_channels=[16, 32, 32, 32])
    refused(BAD_INPUT, *score(world, other, tmp_path), says=["made for another U-Net", "`calibrate`"])


def test_timesteps_outside_the_schedule_have_no_interval(world: World, tmp_path: Path) -> None:
    tensors = load_file(world.calibration)
    tensors["timestep"] = np.full_like(tensors["timestep"], 1000)
    save_file(tensors, tmp_path / "cal.safetensors")
    other = replace(world, calibration=tmp_path / "cal.safetensors")
    refused_unmeasured(BAD_INPUT, other, tmp_path, "--bins", "2", says="timestep 1000 of the calibration set is not inside [0, 1000)")
