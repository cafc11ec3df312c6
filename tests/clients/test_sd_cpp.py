"""stable-diffusion.cpp draws from our exports what it draws from diffusers' own files with equal weights.

Full-size architectures with random weights, since that program knows no others; only `make test-clients` runs this.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import stable_diffusion_cpp
import torch
from diffusers import AutoencoderKL, PNDMScheduler, UNet2DConditionModel
from safetensors.torch import load_file, save_file
from transformers import CLIPTextConfig, CLIPTextModel

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]
BUILD = Path(os.environ.get("LAPTOPDIFF_BUILD", ROOT / "build"))
SD1: dict[str, Any] = {"sample_size": 64, "cross_attention_dim": 768}
TINY = SD1 | {
    "layers_per_block": 1,
    "block_out_channels": (320, 640, 1280),
    "down_block_types": ("CrossAttnDownBlock2D",) * 3,
    "up_block_types": ("CrossAttnUpBlock2D",) * 3,
    "mid_block_type": None,
}


def ok(*arguments: str | Path) -> None:
    done = subprocess.run([BUILD / "laptopdiff", *arguments], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@torch.no_grad()
def save_half(model: torch.nn.Module, folder: Path) -> None:
    # Contiguous: detection by tensor name and shape reads the file as it lies.
    for parameter in model.parameters():
        parameter.data = parameter.data.contiguous()
    model.half().save_pretrained(folder)


def with_published_names(file: Path) -> None:
    """transformers 5 saves a text encoder without the `text_model.` every published folder has, and this client asks for."""
    tensors = load_file(file)
    save_file({f"text_model.{name.removeprefix('text_model.')}": tensor for name, tensor in tensors.items()}, file)


def write_pipeline(folder: Path) -> Path:
    torch.manual_seed(0)
    save_half(UNet2DConditionModel(**SD1), folder / "unet")
    vae = AutoencoderKL(
        block_out_channels=(128, 256, 512, 512),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        layers_per_block=2,
        latent_channels=4,
    )
    save_half(vae, folder / "vae")
    text = CLIPTextConfig(hidden_size=768, intermediate_size=3072, num_hidden_layers=12, num_attention_heads=12, hidden_act="quick_gelu")
    save_half(CLIPTextModel(text), folder / "text_encoder")
    with_published_names(folder / "text_encoder" / "model.safetensors")
    PNDMScheduler(beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012).save_pretrained(folder / "scheduler")
    classes = {
        "unet": ["diffusers", "UNet2DConditionModel"],
        "vae": ["diffusers", "AutoencoderKL"],
        "text_encoder": ["transformers", "CLIPTextModel"],
        "scheduler": ["diffusers", "PNDMScheduler"],
    }
    (folder / "model_index.json").write_text(json.dumps({"_class_name": "StableDiffusionPipeline"} | classes))
    return folder


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_pipeline(tmp_path_factory.mktemp("sd") / "pipeline")


def draw(model: Path) -> np.ndarray:
    """In a process of its own: the library keeps its memory, and a model it cannot read may end the process."""
    script = (
        "import sys, numpy as np, stable_diffusion_cpp as s\n"
        "model = s.StableDiffusion(model_path=sys.argv[1], verbose=False)\n"
        "images = model.generate_image(prompt='a cat', width=64, height=64, sample_steps=2, seed=7, cfg_scale=1.0)\n"
        "np.save(sys.argv[2], np.asarray(images[0].convert('RGB')))\n"
    )
    image = model.parent / f"{model.name}.npy"
    done = subprocess.run([sys.executable, "-c", script, model, image], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    return np.load(image)


def assert_same_picture(ours: np.ndarray, theirs: np.ndarray) -> None:
    assert ours.shape == (64, 64, 3)
    assert ours.std() > 0
    assert np.array_equal(ours, theirs)


def test_a_dense_export_draws_as_diffusers_own_folder(pipeline: Path, tmp_path: Path) -> None:
    """The reference has the same layers zeroed by hand and is saved by diffusers."""
    removed = ["down_blocks.1.resnets.1", "up_blocks.2.resnets.0", "mid_block.attentions.0"]
    config = json.loads((pipeline / "unet" / "config.json").read_text())
    spec = {
        "format": "laptopdiff.spec/1",
        "base": {"class": "UNet2DConditionModel", "config": config},
        "removed": [{"layer": layer} for layer in removed],
    }
    (tmp_path / "spec.json").write_text(json.dumps(spec))
    ok("export", pipeline, "--spec", tmp_path / "spec.json", "--format", "dense-zero", "-o", tmp_path / "dense")
    ok("export", pipeline, "--spec", tmp_path / "spec.json", "--format", "single-file", "-o", tmp_path / "single")

    zeroed = UNet2DConditionModel.from_pretrained(pipeline / "unet", torch_dtype=torch.float16)
    for layer in ("down_blocks.1.resnets.1.conv2", "up_blocks.2.resnets.0.conv2", "mid_block.attentions.0.proj_out"):
        for parameter in zeroed.get_submodule(layer).parameters():
            parameter.data.zero_()
    (tmp_path / "reference").mkdir()
    for part in ("vae", "text_encoder", "scheduler", "model_index.json"):
        (tmp_path / "reference" / part).symlink_to(pipeline / part)
    zeroed.save_pretrained(tmp_path / "reference" / "unet")

    theirs = draw(tmp_path / "reference")
    assert_same_picture(draw(tmp_path / "dense"), theirs)
    assert_same_picture(draw(tmp_path / "single" / "model.safetensors"), theirs)


def test_a_tiny_student_in_one_file_draws_as_diffusers_own_folder(pipeline: Path, tmp_path: Path) -> None:
    ok("solve", pipeline / "unet", "--preset", "segmind-tiny", "-o", tmp_path / "spec.json")
    ok("export", pipeline, "--spec", tmp_path / "spec.json", "--format", "diffusers", "-o", tmp_path / "small")
    ok("export", pipeline, "--spec", tmp_path / "spec.json", "--format", "single-file", "-o", tmp_path / "single")
    student = UNet2DConditionModel(**TINY)
    student.load_state_dict(load_file(tmp_path / "small" / "unet" / "diffusion_pytorch_model.safetensors"))
    (tmp_path / "reference").mkdir()
    for part in ("vae", "text_encoder", "scheduler", "model_index.json"):
        (tmp_path / "reference" / part).symlink_to(pipeline / part)
    save_half(student, tmp_path / "reference" / "unet")
    assert_same_picture(draw(tmp_path / "single" / "model.safetensors"), draw(tmp_path / "reference"))
