"""Data, pictures, studies and disks that are wrong: one message that says what, where and what to do, and the promised exit code."""

from __future__ import annotations

import contextlib
import json
import shutil
import subprocess
from pathlib import Path
from typing import Any, Iterator

import numpy as np
import pytest
from bad_input import score, write
from conftest import World
from program import BAD_INPUT, NON_FINITE, RESOURCES, USAGE, files_below, ok, refused
from safetensors.numpy import save_file

# Data, prompts, pictures, scoring models


@pytest.mark.slow
def test_data_folders(world: World, tmp_path: Path) -> None:
    run = lambda data: ["calibrate", world.pipeline, "--data", data, "--samples", "2", "-o", tmp_path / "o"]  # noqa: E731
    refused(BAD_INPUT, *run(tmp_path / "nowhere"), says="metadata.jsonl")
    data = tmp_path / "data"
    data.mkdir()
    (data / "metadata.jsonl").write_text("")
    refused(BAD_INPUT, *run(data), says="no rows")
    (data / "metadata.jsonl").write_text('{"text": "a"}\n{"text": 5}\n')
    refused(BAD_INPUT, *run(data), says="metadata.jsonl:")
    (data / "metadata.jsonl").write_text('{"text": "a", "file_name": "../../etc/passwd"}\n')
    refused(BAD_INPUT, *run(data), says="leaves the folder")
    (data / "metadata.jsonl").write_text('{"text": "a", "file_name": "no.png"}\n{"text": "b", "file_name": "bad.png"}\n')
    (data / "bad.png").write_bytes(b"garbage")
    refused(BAD_INPUT, *run(data), says=".png")
    save_file({"images": np.zeros((5, 16, 16, 1), np.uint8)}, data / "images.safetensors")
    refused(BAD_INPUT, *run(data), says="5 pictures and 2 rows")
    save_file({"images": np.zeros((2, 16, 16, 4), np.uint8)}, data / "images.safetensors")
    refused(BAD_INPUT, *run(data), says="`images` must be U8 [N, H, W, 1 or 3], is U8 [2, 16, 16, 4]")


def test_a_data_folder_of_png_files_in_distill(world: World, tmp_path: Path) -> None:
    (tmp_path / "metadata.jsonl").write_text('{"text": "a", "file_name": "lost.png"}\n')
    config = write(tmp_path / "d.json", world.distill_config(data={"folder": str(tmp_path)}))
    refused(BAD_INPUT, "distill", "--config", config, "-o", tmp_path / "run", says="lost.png")


@pytest.fixture(scope="module")
def images(world: World, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sampled") / "images"
    ok("sample", world.pipeline, "--prompts", world.prompts, "--steps", "1", "-o", folder)
    return folder


def evaluate(world: World, images: Path, metrics: str, folder: Path) -> list[str | Path]:
    inputs = ["--prompts", world.prompts, "--labels", world.prompts, "--reference", world.data, "--models", world.models]
    return ["evaluate", "--images", images, *inputs, "--metrics", metrics, "--resamples", "10", "-o", folder / "m.json"]


def test_evaluate_writes_numbers_with_their_provenance(world: World, images: Path, tmp_path: Path) -> None:
    done = ok(*evaluate(world, images, "clip,pick,fid,kid,accuracy", tmp_path))
    result = json.loads((tmp_path / "m.json").read_text())
    assert result["metrics"].keys() == {"clip", "pick", "fid", "kid", "accuracy"}
    assert all(name in done.out for name in result["metrics"])
    assert {"images", "models", "seed", "made_by", "format"} <= result.keys()


@pytest.mark.parametrize(
    ("content", "says"),
    [(b"garbage", "not a whole PNG"), (b"", "not a whole PNG"), (None, "000000.png")],
)  # fmt: skip
def test_pictures_that_are_none(content: bytes | None, says: str, world: World, images: Path, tmp_path: Path) -> None:
    broken = tmp_path / "images"
    shutil.copytree(images, broken)
    if content is None:
        (broken / "000000.png").unlink()  # the numbers must start at 0 without a gap
    else:
        (broken / "000000.png").write_bytes(content)
    refused(BAD_INPUT, *evaluate(world, broken, "accuracy" if content is not None else "fid", tmp_path), says=says)
    assert not (tmp_path / "m.json").exists()


def test_a_png_cut_short(world: World, images: Path, tmp_path: Path) -> None:
    broken = tmp_path / "images"
    shutil.copytree(images, broken)
    whole = (broken / "000001.png").read_bytes()
    (broken / "000001.png").write_bytes(whole[: len(whole) // 2])
    refused(BAD_INPUT, *evaluate(world, broken, "fid", tmp_path), says="000001.png")


@pytest.mark.slow
def test_evaluate_inputs_that_do_not_fit(world: World, images: Path, tmp_path: Path) -> None:
    few = write(tmp_path / "few.txt", "one\ntwo\n")
    refused(BAD_INPUT, *evaluate(world, images, "clip", tmp_path), "--prompts", few, says=["2 prompts", "4 pictures"])
    refused(BAD_INPUT, *evaluate(world, images, "clip", tmp_path), "--models", tmp_path, says=["model folder", "clip"])
    refused(USAGE, *evaluate(world, images, "clp", tmp_path), says="did you mean `clip`?")
    refused(USAGE, *evaluate(world, images, "", tmp_path), says="no metrics")
    refused(USAGE, *evaluate(world, images, "clip", tmp_path), "--resamples", "0", says="resamples")
    refused(USAGE, *evaluate(world, images, "fid", tmp_path), "--reference-limit", "-1", says="reference limit")
    labels = write(tmp_path / "labels.txt", "shoe\nshirt\nhat\nbag\n")
    refused(BAD_INPUT, *evaluate(world, images, "accuracy", tmp_path), "--labels", labels, says=["hat", "line 3"])
    refused(BAD_INPUT, *evaluate(world, tmp_path / "nowhere", "fid", tmp_path), says="no such folder")
    bare = ["evaluate", "--images", images, "--models", world.models, "-o", tmp_path / "m.json"]
    refused(USAGE, *bare, "--metrics", "clip", says="needs --prompts")
    refused(USAGE, *bare, "--metrics", "fid", says="needs --reference")
    refused(USAGE, *bare, "--metrics", "accuracy", says="needs --labels")


def test_pipelines_that_are_not_whole(world: World, tmp_path: Path) -> None:
    run = lambda folder: ["sample", folder, "--prompts", world.prompts, "--steps", "1", "-o", tmp_path / "o"]  # noqa: E731
    refused(BAD_INPUT, *run(world.unet), says="not a pipeline folder")
    broken = tmp_path / "pipeline"
    shutil.copytree(world.pipeline, broken)
    shutil.rmtree(broken / "vae")
    shutil.rmtree(broken / "tokenizer")
    refused(BAD_INPUT, *run(broken), says=["vae/ is missing", "tokenizer/ is missing"])
    shutil.copytree(world.pipeline / "vae", broken / "vae")
    shutil.copytree(world.pipeline / "tokenizer", broken / "tokenizer")
    write(broken / "tokenizer" / "vocab.json", "{}")
    refused(BAD_INPUT, *run(broken))
    refused(BAD_INPUT, *run(world.pipeline), "--unet", tmp_path / "nowhere", says="no such file or folder")


# Studies and runs


@pytest.mark.slow
@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"pipelin": "x"}, "unknown key `pipelin`"),
        ({"train": ""}, "`train` is missing"),
        ({"arms": {}}, "at least one arm"),
        ({"arms": {"a": {"slove": {}}}}, "unknown key `slove` (did you mean `score` or `solve`?)"),
        ({"arms": {"a": {"solve": 3}}}, "`solve` must be an object"),
        ({"arms": {"a": 3}}, "expected an object"),
        ({"audit": 3}, "`audit` must be an object"),
        ({"calibrate": []}, "`calibrate` must be an object"),
        ({"axes": []}, "`axes` must be an object"),
        ({"axes": {"s": {"set": ["distill.seed"]}}}, "`values` must be a list"),
        ({"axes": {"s": {"set": ["distill.seed"], "values": []}}}, "at least one value"),
        ({"axes": {"s": {"set": ["calibrate.seed"], "values": [1]}}}, "must start with score., solve., distill."),
        ({"axes": {"s": {"set": ["distill.steps.x"], "values": [1]}}}, "`distill.steps` is not an object"),
        ({"axes": {"s": {"set": ["distill.seed"], "values": [1], "arms": ["studnt"]}}}, "did you mean `student`?"),
    ],
)  # fmt: skip
def test_studies_that_cannot_be(change: dict[str, Any], says: str, world: World, tmp_path: Path) -> None:
    study = write(tmp_path / "study.json", world.study(**change))
    refused(BAD_INPUT, "sweep", study, "-o", tmp_path / "out", says=says)
    assert files_below(tmp_path) == {"study.json"}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"steps": 0}, "`steps` is 0, expected at least 1"),
        ({"batch": -2}, "`batch` is -2"),
        ({"loss": {"balance": "plan"}}, "did you mean `plain`?"),
        ({"loss": {"taps": "all"}}, "`loss.taps`"),
        ({"loss": {"task": 0, "output": 0, "feature": 0}}, "all loss weights are 0"),
        ({"optimizer": {"ema_decay": 1}}, "`optimizer.ema_decay`"),
        ({"optimizer": {"schedule": "cosin"}}, "did you mean `cosine`?"),
        ({"data": {}}, "`data.folder` is missing"),
        ({"spec": ""}, "`spec` is missing"),
    ],
)  # fmt: skip
def test_distill_settings_that_cannot_be(change: dict[str, Any], says: str, world: World, tmp_path: Path) -> None:
    config = write(tmp_path / "d.json", world.distill_config(**change))
    refused(USAGE, "distill", "--config", config, "-o", tmp_path / "run", says=says)
    assert not (tmp_path / "run").exists()


def test_unknown_keys_deep_in_a_distill_config(world: World, tmp_path: Path) -> None:
    config = write(tmp_path / "d.json", world.distill_config(optimizer={"learning_rat": 1}))
    says = ["unknown key `learning_rat` (did you mean `learning_rate`?)", "optimizer", "d.json"]
    refused(BAD_INPUT, "distill", "--config", config, "-o", tmp_path / "run", says=says)


def test_a_checkpoint_that_is_none(world: World, tmp_path: Path) -> None:
    config, run = write(tmp_path / "d.json", world.distill_config(steps=1)), tmp_path / "run"
    ok("distill", "--config", config, "-o", run)
    (run / "result.json").unlink()
    checkpoint = run / "checkpoint.safetensors"
    whole = checkpoint.read_bytes()
    for content in (b"", whole[: len(whole) // 2], world.calibration.read_bytes()):
        checkpoint.write_bytes(content)
        refused(BAD_INPUT, "distill", "--config", config, "-o", run, says="checkpoint.safetensors")
    checkpoint.write_bytes(whole)
    ok("distill", "--config", config, "-o", run)


def test_training_that_blows_up_says_where(world: World, tmp_path: Path) -> None:
    optimizer = {"learning_rate": 1e30, "clip_norm": 0}
    config = write(tmp_path / "d.json", world.distill_config(steps=20, optimizer=optimizer))
    refused(NON_FINITE, "distill", "--config", config, "-o", tmp_path / "run", says=["not finite at step", "learning_rate"])
    assert not (tmp_path / "run" / "result.json").exists() and not (tmp_path / "run" / "student").exists()


# Disks


@pytest.mark.parametrize("verb", ["forward", "calibrate", "score", "solve", "audit", "sample", "distill", "sweep"])
def test_an_output_that_cannot_be_written_is_refused_before_the_work(verb: str, world: World, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    config = write(tmp_path / "d.json", world.distill_config())
    arguments: dict[str, list[Any]] = {
        "forward": [world.unet, "--inputs", world.calibration],
        "score": [world.unet, "--calibration", world.calibration],
        "solve": [world.unet, "--scores", world.scores, "--budget", "params=0.8"],
        "sample": [world.pipeline, "--prompts", world.prompts],
        "distill": ["--config", config],
        "calibrate": [world.pipeline, "--data", world.data, "--samples", "2"],
        "audit": [world.unet, "--scores", world.scores, "--calibration", world.calibration, "--keep", "0.8"],
        "sweep": [write(tmp_path / "study.json", world.study())],
    }
    before = files_below(tmp_path)
    refused(RESOURCES, verb, *arguments[verb], "-o", tmp_path / "file" / "output", says="cannot")
    assert files_below(tmp_path) == before


@contextlib.contextmanager
def small_disk(folder: Path, size: str) -> Iterator[Path]:
    folder.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", folder], capture_output=True).returncode != 0:
        pytest.skip("mounting a small file system needs root")
    try:
        yield folder
    finally:
        subprocess.run(["umount", folder], check=True)


def test_a_full_disk_leaves_no_half_files(world: World, tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", "16k") as disk:
        refused(RESOURCES, "forward", world.unet, "--inputs", world.calibration, "--taps", "all", "-o", disk / "out.safetensors", says="No space left")
        assert files_below(disk) == set()
        refused(RESOURCES, *score(world, world.unet, disk), says="No space left")
        assert files_below(disk) == set()
        run = ["sample", world.pipeline, "--prompts", world.prompts, "--steps", "1", "-o", disk / "images"]
        refused(RESOURCES, *run)
        assert files_below(disk) == set()


@pytest.mark.slow
def test_a_disk_that_fills_up_keeps_the_last_checkpoint(world: World, tmp_path: Path) -> None:
    config = write(tmp_path / "d.json", world.distill_config(steps=4))
    ok("distill", "--config", config, "-o", tmp_path / "whole")
    first = write(tmp_path / "first.json", world.distill_config(steps=4, checkpoint_every=1))
    size = (tmp_path / "whole" / "checkpoint.safetensors").stat().st_size
    with small_disk(tmp_path / "disk", str(size + size // 2)) as disk:  # room for one checkpoint, not for two
        refused(RESOURCES, "distill", "--config", first, "-o", disk / "run", says="No space left")
        assert files_below(disk) >= {"run", "run/checkpoint.safetensors"}
        assert not [name for name in files_below(disk) if "tmp" in name]
        shutil.copytree(disk / "run", tmp_path / "moved")
    ok("distill", "--config", first, "-o", tmp_path / "moved")
    student = "student/diffusion_pytorch_model.safetensors"
    assert (tmp_path / "moved" / student).read_bytes() == (tmp_path / "whole" / student).read_bytes()


def test_a_disk_that_fills_up_keeps_the_finished_work_of_a_scoring(world: World, tmp_path: Path) -> None:
    flags = ["--batch", "1"]
    ok(*score(world, world.unet, tmp_path, *flags))
    with small_disk(tmp_path / "disk", "60k") as disk:  # room for some pieces, not for all
        refused(RESOURCES, *score(world, world.unet, disk, *flags), says="No space left")
        kept = [name for name in files_below(disk) if "samples-" in name]
        assert kept and not any("tmp" in name for name in kept)
        shutil.copytree(disk / "scores.json.partial", tmp_path / "moved" / "scores.json.partial")
    done = ok(*score(world, world.unet, tmp_path / "moved", *flags))
    assert "continued" in done.err
    ours, theirs = (json.loads((folder / "scores.json").read_text()) for folder in (tmp_path / "moved", tmp_path))
    assert ours["units"] == theirs["units"] and ours["gram"] == theirs["gram"]
