"""What scoring and training feed a U-Net with, against diffusers: text, sizes and noised latents of a data folder."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import diffusers
import numpy as np
import pytest
import small_pipelines
import torch
from PIL import Image
from program import BAD_INPUT, ok, refused
from safetensors.numpy import save_file
from safetensors.torch import load_file
from small_pipelines import PIXELS

TOLERANCE = 1e-5
CAPTIONS = ["a red shirt", "two boots", "a red shirt", "ünï", "bag"]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    folder = tmp_path / "data"
    folder.mkdir()
    pictures = np.random.default_rng(1).integers(0, 256, (len(CAPTIONS), PIXELS, 2 * PIXELS, 3), dtype=np.uint8)
    save_file({"images": pictures}, folder / "images.safetensors")
    (folder / "metadata.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in CAPTIONS))
    return folder


def nearest(rows: torch.Tensor, table: torch.Tensor) -> list[int]:
    """Which row of `table` each of `rows` is, within the tolerance."""
    distances = torch.cdist(rows.flatten(1), table.flatten(1), p=float("inf"))
    assert distances.min(1).values.max() <= TOLERANCE * table.abs().max()
    return distances.argmin(1).tolist()


def latents_of(pipe: diffusers.DiffusionPipeline, folder: Path) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and standard deviation of each picture's scaled latent."""
    pictures = load_file(folder / "images.safetensors")["images"].permute(0, 3, 1, 2)
    with torch.no_grad():
        moments = pipe.vae.encode(pictures / 127.5 - 1).latent_dist
    return moments.mean * pipe.vae.config.scaling_factor, moments.std * pipe.vae.config.scaling_factor


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("family", [small_pipelines.sd1, small_pipelines.sdxl])
def test_calibration_inputs_are_what_diffusers_would_make(family: Callable[[Path], None], tmp_path: Path, data: Path) -> None:
    family(tmp_path / "pipeline")
    pipe = diffusers.DiffusionPipeline.from_pretrained(tmp_path / "pipeline")
    ok("calibrate", tmp_path / "pipeline", "--data", data, "--samples", str(len(CAPTIONS)), "-o", tmp_path / "cal.safetensors")
    got = load_file(tmp_path / "cal.safetensors")

    alphas = pipe.scheduler.alphas_cumprod[got["timestep"]].float().view(-1, 1, 1, 1)
    clean = (got["sample"] - (1 - alphas).sqrt() * got["noise"]) / alphas.sqrt()
    mean, std = latents_of(pipe, data)
    pictures = torch.cdist(clean.flatten(1), mean.flatten(1)).argmin(1)
    assert sorted(pictures.tolist()) == list(range(len(CAPTIONS)))
    deviation = (clean - mean[pictures]) / std[pictures]
    assert 0.8 < deviation.std() < 1.2
    assert abs(deviation.mean()) < 0.2

    with torch.no_grad():
        encoded = [pipe.encode_prompt(text, device="cpu", num_images_per_prompt=1, do_classifier_free_guidance=False) for text in CAPTIONS]
    contexts = torch.cat([e[0] for e in encoded])
    as_captions = [CAPTIONS[i] for i in pictures.tolist()]
    assert [CAPTIONS[i] for i in nearest(got["encoder_hidden_states"], contexts)] == as_captions
    if family is small_pipelines.sdxl:
        assert [CAPTIONS[i] for i in nearest(got["text_embeds"], torch.cat([e[2] for e in encoded]))] == as_captions
        size = [PIXELS, 2 * PIXELS]
        assert got["time_ids"].tolist() == [[*size, 0, 0, *size]] * len(CAPTIONS)
    else:
        assert got.keys() == {"sample", "timestep", "noise", "encoder_hidden_states"}


@pytest.mark.filterwarnings("ignore")
def test_an_xl_pipeline_is_scored_pruned_and_trained(tmp_path: Path, data: Path) -> None:
    small_pipelines.sdxl(tmp_path / "pipeline")
    unet = tmp_path / "pipeline" / "unet"
    ok("calibrate", tmp_path / "pipeline", "--data", data, "--samples", "4", "-o", tmp_path / "cal.safetensors")
    ok("score", unet, "--calibration", tmp_path / "cal.safetensors", "-o", tmp_path / "scores.json")
    ok("solve", unet, "--scores", tmp_path / "scores.json", "--budget", "params=0.7", "-o", tmp_path / "spec.json")
    config = {
        "pipeline": str(tmp_path / "pipeline"),
        "spec": str(tmp_path / "spec.json"),
        "data": {"folder": str(data)},
        "steps": 2,
        "batch": 2,
    }
    (tmp_path / "distill.json").write_text(json.dumps(config))
    ok("distill", "--config", tmp_path / "distill.json", "-o", tmp_path / "run")
    (tmp_path / "run" / "checkpoint.safetensors").unlink(missing_ok=True)
    # The second run reads the latents and texts that the first has cached: the same student.
    config["cache"] = str(tmp_path / "run" / "cache.safetensors")
    (tmp_path / "again.json").write_text(json.dumps(config))
    ok("distill", "--config", tmp_path / "again.json", "-o", tmp_path / "again")
    student = "student/diffusion_pytorch_model.safetensors"
    assert (tmp_path / "run" / student).read_bytes() == (tmp_path / "again" / student).read_bytes()


def test_pictures_of_several_sizes_are_refused(tmp_path: Path, data: Path) -> None:
    small_pipelines.sd1(tmp_path / "pipeline")
    (data / "images.safetensors").unlink()
    names = [f"{i}.png" for i in range(130)]  # more than are encoded at once
    for i, name in enumerate(names):
        Image.new("RGB", (16, 16 if i else 24)).save(data / name)
    (data / "metadata.jsonl").write_text("".join(json.dumps({"text": "a", "file_name": name}) + "\n" for name in names))
    run = ["calibrate", tmp_path / "pipeline", "--data", data, "--samples", "130", "-o", tmp_path / "o"]
    assert "one size" in refused(BAD_INPUT, *run)


def test_a_teacher_of_another_model_is_refused_before_training(tmp_path: Path, data: Path) -> None:
    small_pipelines.sd1(tmp_path / "pipeline")
    small_pipelines.sdxl(tmp_path / "xl")
    config = {
        "pipeline": str(tmp_path / "pipeline"),
        "teacher": str(tmp_path / "xl" / "unet"),
        "spec": str(tmp_path / "spec.json"),
        "data": {"folder": str(data)},
        "steps": 2,
        "batch": 2,
    }
    (tmp_path / "distill.json").write_text(json.dumps(config))
    layer = "mid_block.resnets.1"
    base = {"class": "UNet2DConditionModel", "config": json.loads((tmp_path / "xl" / "unet" / "config.json").read_text())}
    spec = {"format": "laptopdiff.spec/1", "base": base, "removed": [{"layer": layer}]}
    (tmp_path / "spec.json").write_text(json.dumps(spec))
    refused(BAD_INPUT, "distill", "--config", tmp_path / "distill.json", "-o", tmp_path / "run", says="attends to text of width 40")
