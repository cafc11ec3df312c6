"""Fixtures that the tests of exports share (a pytest plugin): made once in a process, never changed by a test."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import small_models
import torch
from diffusers import UNet2DConditionModel
from export_cases import MODELS
from safetensors.torch import save_file


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of random models and inputs for each."""
    folder = tmp_path_factory.mktemp("models")
    torch.manual_seed(0)
    for name, (kind, config) in MODELS.items():
        model = kind(**config)
        for parameter in model.parameters():
            if parameter.ndim == 1:  # norms of 1 and 0 would hide a swap
                parameter.data += 0.1 * torch.randn_like(parameter)
        model.save_pretrained(folder / name)
        inputs = {"sample": torch.randn(2, model.config.in_channels, 8, 8), "timestep": torch.tensor([7, 981])}
        if kind is UNet2DConditionModel:
            inputs["encoder_hidden_states"] = torch.randn(2, 5, 24)
        if model.config.get("addition_embed_type"):
            inputs |= {"text_embeds": torch.randn(2, 16), "time_ids": torch.tensor([[64.0, 64, 0, 0, 64, 64]] * 2)}
        save_file(inputs, folder / f"{name}.safetensors")
    return folder


@pytest.fixture(scope="session")
def pipeline(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_models.write_pipeline(tmp_path_factory.mktemp("pipeline") / "sd")


@pytest.fixture(scope="session")
def habitual(pipeline: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The pipeline with a U-Net of the settings that readers of single files take for granted."""
    folder = Path(shutil.copytree(pipeline, tmp_path_factory.mktemp("habitual") / "sd"))
    torch.manual_seed(1)
    widths = {"block_out_channels": (32, 32, 64, 64), "attention_head_dim": 8, "norm_num_groups": 32}
    shutil.rmtree(folder / "unet")
    UNet2DConditionModel(**small_models.UNET | widths).save_pretrained(folder / "unet")
    return folder
