"""No output takes the place of what the same run reads."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from conftest import World
from program import USAGE, files_below, ok, refused

WEIGHTS = "diffusion_pytorch_model.safetensors"


@pytest.fixture()
def own(world: World, tmp_path: Path) -> World:
    """A copy of the world whose files a slip of the program may destroy."""
    paths = (world.pipeline, world.data, world.models, world.prompts, world.calibration, world.scores, world.spec)
    copy = World(tmp_path, *(tmp_path / path.name for path in paths))
    shutil.copytree(world.folder, tmp_path, dirs_exist_ok=True)
    return copy


def contents(folder: Path) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in files_below(folder) if (folder / name).is_file()}


def commands(own: World) -> dict[str, list[str | Path]]:
    """Every verb that reads a model and writes a file, without its -o."""
    cal = ["--calibration", own.calibration]
    return {
        "forward": [own.unet, "--inputs", own.calibration],
        "calibrate": [own.pipeline, "--data", own.data, "--samples", "2"],
        "score": [own.unet, *cal, "--samples", "1"],
        "solve": [own.unet, "--scores", own.scores, "--budget", "params=0.8"],
        "audit": [own.unet, "--scores", own.scores, *cal, "--keep", "0.8", "--samples", "1"],
        "inspect": [own.unet, "--base", own.unet],
        "bench": ["layers", own.unet, "--repeat", "1"],
    }


@pytest.mark.parametrize("verb", ["forward", "calibrate", "score", "solve", "audit", "inspect", "bench"])
def test_a_result_never_replaces_the_model_that_is_read(verb: str, own: World) -> None:
    before = contents(own.folder)
    command = [verb, *commands(own)[verb], "--overwrite", "-o"]
    for name in (WEIGHTS, "config.json"):
        refused(USAGE, *command, own.unet / name, says=["lies in", "which is read; give another -o"])
    assert contents(own.folder) == before


@pytest.mark.parametrize(
    ("verb", "name"),
    [("forward", "calibration"), ("score", "calibration"), ("solve", "scores"), ("audit", "scores"), ("audit", "calibration")],
)
def test_a_result_never_replaces_a_file_that_is_read(verb: str, name: str, own: World) -> None:
    before = contents(own.folder)
    refused(USAGE, verb, *commands(own)[verb], "--overwrite", "-o", getattr(own, name), says="is read as well; give another -o")
    assert contents(own.folder) == before


def test_names_that_lead_to_what_is_read(own: World) -> None:
    blobs = own.folder / "blobs"
    blobs.mkdir()
    (own.unet / WEIGHTS).rename(blobs / "0a1b")
    (own.unet / WEIGHTS).symlink_to(blobs / "0a1b")  # as a download cache keeps them
    (own.folder / "link").symlink_to(own.unet)
    before = contents(own.folder)
    command = ["forward", own.unet, "--inputs", own.calibration, "--overwrite", "-o"]
    refused(USAGE, *command, own.unet / WEIGHTS, says="lies in")
    refused(USAGE, *command, own.folder / "link" / WEIGHTS, says="lies in")
    refused(USAGE, *command, own.unet / ".." / "unet" / WEIGHTS, says="lies in")
    refused(USAGE, "forward", own.folder / "link", *command[2:], own.unet / WEIGHTS, says="lies in")
    lora = own.folder / "lora.safetensors"
    lora.write_bytes(b"")
    refused(USAGE, *command[:-1], "--lora", f"{lora}:0.5", "-o", lora, says="is read as well")
    assert contents(own.folder) == before | {"lora.safetensors": b""}


def test_pictures_and_pages_leave_what_they_are_made_from(own: World) -> None:
    ok("sample", own.pipeline, "--prompts", own.prompts, "--count", "2", "--steps", "1", "-o", own.folder / "images")
    before = contents(own.folder)
    (own.folder / "images" / "spec.json").write_bytes(own.spec.read_bytes())
    command = ["sample", own.pipeline, "--prompts", own.prompts, "--steps", "1", "--overwrite"]
    refused(USAGE, *command, "--spec", own.folder / "images" / "spec.json", "-o", own.folder / "images", says="which it would replace")
    refused(USAGE, *command, "-o", own.pipeline / "unet", says="did not make")
    over = ["--overwrite", "-o", own.folder / "images" / "samples.json"]
    refused(USAGE, "evaluate", "--images", own.folder / "images", "--models", own.models, *over, says="lies in")
    refused(USAGE, "report", own.folder / "images", *over, says="lies in")
    # Something new may lie anywhere.
    judge = ["evaluate", "--images", own.folder / "images", "--models", own.models, "--dry-run", "-o"]
    ok(*judge, own.models / "metrics.json")
    ok(*judge, own.folder / "images" / "metrics.json")
    refused(USAGE, *judge, own.models / "clip" / "config.json", "--overwrite", says="lies in")
    (own.folder / "images" / "spec.json").unlink()
    assert contents(own.folder) == before


def test_a_run_is_not_started_over_where_its_inputs_lie(own: World) -> None:
    config = ["--set", f"pipeline={own.pipeline}", "--set", f"data.folder={own.data}", "--set", "steps=1"]
    run = own.folder / "run"
    (run / "student").mkdir(parents=True)
    spec = run / "student" / "spec.json"
    spec.write_bytes(own.spec.read_bytes())
    refused(USAGE, "distill", *config, "--set", f"spec={spec}", "--overwrite", "-o", run, says="which it would replace")
    assert spec.exists()
