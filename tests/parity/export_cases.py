"""Exports for the tests of `export` and of the way back: what is removed from which small model, and how one is looked at."""

from __future__ import annotations

import hashlib
import json
import random
from pathlib import Path
from typing import Any

import diffusers
import pytest
import test_unet
import torch
from diffusers import AutoModel, UNet2DConditionModel, UNet2DModel
from program import ok
from safetensors.torch import load_file

TOLERANCE = 1e-5  # of the reference's range

SD1 = test_unet.SD1 | {"sample_size": 8}
SDXL = test_unet.SMALL_SDXL | {"sample_size": 8}
SCALED = SD1 | {
    "down_block_types": ("ResnetDownsampleBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
    "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "ResnetUpsampleBlock2D"),
    "resnet_out_scale_factor": 1.5,
    "mid_block_scale_factor": 2.0,
}
DDPM: dict[str, Any] = test_unet.MODELS["ddpm"][1] | {"sample_size": 8}
DDPM_RESNET = DDPM | {"attention_head_dim": 8, "downsample_type": "resnet", "upsample_type": "resnet"}
MODELS: dict[str, tuple[type, dict[str, Any]]] = {
    "sd1": (UNet2DConditionModel, SD1),
    "sdxl": (UNet2DConditionModel, SDXL),
    "scaled": (UNet2DConditionModel, SCALED),
    "ddpm": (UNet2DModel, DDPM),
    "ddpm-resnet": (UNet2DModel, DDPM_RESNET),
}

SD_FULL = {"_class_name": "UNet2DConditionModel", "sample_size": 64, "cross_attention_dim": 768}

Removed = list[str]  # "layer" is bypassed, "-layer" dropped


def drops(*layers: str) -> Removed:
    return ["-" + layer for layer in layers]


def second_layers(stages: int) -> Removed:
    """What BK-SDM takes: the second layer of every down stage, the middle one of every up stage."""
    return drops(*(f"{side}_blocks.{i}.resnets.1" for side in ("down", "up") for i in range(stages)))


def blocks(attention: str, *indices: int) -> Removed:
    return [f"{attention}.transformer_blocks.{k}" for k in indices]


DEEPEST_SD1 = drops("down_blocks.3", "up_blocks.0")
BK_TINY = [r for r in second_layers(4) if "down_blocks.3" not in r and "up_blocks.0" not in r] + DEEPEST_SD1 + ["-mid_block"]

# name -> (model, removed, shell, form of --format diffusers, why there is no dense form or "")
CASES: dict[str, tuple[str, Removed, str, str, str]] = {
    "bk base": ("sd1", second_layers(4), "drop", "native", ""),
    "bk small": ("sd1", second_layers(4) + ["-mid_block"], "drop", "native", ""),
    "bk tiny": ("sd1", BK_TINY, "drop", "native", "down_blocks.2.downsamplers.0"),
    "uneven stages": (
        "sd1",
        drops("down_blocks.1.resnets.1", "down_blocks.3.resnets.1", "up_blocks.0.resnets.1", "up_blocks.2.resnets.1"),
        "drop",
        "native",
        "",
    ),
    "first down layer, last up layer": (
        "sd1",
        drops("down_blocks.0.resnets.0", "up_blocks.3.resnets.2"),
        "drop",
        "native",
        "",
    ),
    "skips that change places": (
        "sd1",
        drops("down_blocks.0.resnets.1", "up_blocks.3.resnets.2"),
        "drop",
        "native",
        "takes another skip",
    ),
    "a stage without attention": ("sd1", ["down_blocks.1.attentions.0", "down_blocks.1.attentions.1"], "drop", "native", ""),
    "one shell of a stage": ("sd1", ["down_blocks.1.attentions.0"], "drop", "custom", ""),
    "empty shells kept": ("sd1", ["down_blocks.1.attentions.0", "up_blocks.3.attentions.2"], "keep", "native", ""),
    "identity resnets": ("sd1", ["down_blocks.0.resnets.0", "down_blocks.2.resnets.1", "mid_block.resnets.0"], "drop", "custom", ""),
    "shortcut resnets": ("sd1", ["down_blocks.1.resnets.0", "up_blocks.1.resnets.0", "up_blocks.3.resnets.2"], "drop", "custom", ""),
    "one-resnet middle": ("sd1", ["mid_block.resnets.1", "mid_block.attentions.0"], "drop", "native", ""),
    "middle emptied": ("sd1", ["mid_block.resnets.0", "mid_block.resnets.1", "mid_block.attentions.0"], "drop", "native", ""),
    "parts of blocks": (
        "sd1",
        [f"down_blocks.0.attentions.0.transformer_blocks.0.{p}" for p in ("attn1", "ff")]
        + ["up_blocks.2.attentions.1.transformer_blocks.0.attn2"],
        "drop",
        "custom",
        "",
    ),
    "drop and bypass": ("sd1", second_layers(4) + ["down_blocks.2.resnets.0", "up_blocks.1.attentions.0"], "drop", "custom", ""),
    "stage drop and bypass": ("sd1", BK_TINY + ["up_blocks.2.resnets.0"], "drop", "custom", "changes the resolution"),
    "transformer mask": (
        "sdxl",
        blocks("down_blocks.2.attentions.1", 0, 2) + blocks("up_blocks.0.attentions.1", 1) + blocks("up_blocks.1.attentions.0", 0),
        "drop",
        "native",
        "",
    ),
    "shallower middle alone": ("sdxl", blocks("mid_block.attentions.0", 1), "drop", "custom", ""),
    "koala": (
        "sdxl",
        second_layers(3)
        + [b for a in ("down_blocks.2.attentions.0", "up_blocks.0.attentions.0", "up_blocks.0.attentions.2", "mid_block.attentions.0") for b in blocks(a, 2)],
        "drop",
        "native",
        "",
    ),
    "ssd-1b": (
        "sdxl",
        ["mid_block.resnets.1", "mid_block.attentions.0"]
        + [b for a in ("down_blocks.2.attentions.0", "down_blocks.2.attentions.1", "up_blocks.0.attentions.0") for b in blocks(a, 1, 2)]
        + [b for a in ("up_blocks.1.attentions.1", "up_blocks.1.attentions.2") for b in blocks(a, 1)],
        "drop",
        "native",
        "",
    ),
    "scaled resnets": ("scaled", ["down_blocks.0.resnets.0", "mid_block.resnets.1", "up_blocks.3.resnets.1"], "drop", "custom", ""),
    "scaled middle dropped": ("scaled", ["-mid_block"], "drop", "native", "divides its output by 2"),
    "ddpm, no attention": ("ddpm", ["down_blocks.1.attentions.0", "down_blocks.1.attentions.1", "mid_block.attentions.0"], "drop", "native", ""),
    "ddpm, one attention": ("ddpm", ["up_blocks.1.attentions.1"], "drop", "custom", ""),
    "ddpm, layer and attention": ("ddpm", drops("down_blocks.1.resnets.1", "up_blocks.1.resnets.1"), "drop", "custom", ""),
    "ddpm, bk": ("ddpm", second_layers(3), "drop", "native", ""),
    "ddpm, shallower": ("ddpm", drops("down_blocks.2", "up_blocks.0", "mid_block"), "drop", "native", "resolution"),
    "ddpm, resnets": ("ddpm", ["down_blocks.0.resnets.0", "up_blocks.0.resnets.1", "mid_block.resnets.1"], "drop", "custom", ""),
    "ddpm, resnet samplers": ("ddpm-resnet", ["down_blocks.1.attentions.0", "down_blocks.1.attentions.1"], "drop", "custom", ""),
} | {
    f"random {model} {seed}": (model, ["?", str(seed)], shell, "custom", "")
    for model, seed, shell in (("sd1", 1, "drop"), ("sd1", 2, "keep"), ("sdxl", 3, "drop"), ("sdxl", 4, "keep"), ("ddpm", 5, "drop"))
}


# A case takes seconds; only these are in the fast part.
FAST = {"bk tiny", "identity resnets", "transformer mask", "ddpm, one attention"}


def cases(*forms: str) -> pytest.MarkDecorator:
    """A test for the name of each case whose --format diffusers takes one of these forms."""
    names = [name for name, case in CASES.items() if case[3] in forms]
    return pytest.mark.parametrize("name", [n if n in FAST else pytest.param(n, marks=pytest.mark.slow) for n in names])


def units(model: Path) -> list[dict[str, Any]]:
    return ok("inspect", model, "--json").json["units"]


def write_spec(model: Path, removed: Removed, shell: str, path: Path) -> Path:
    if removed[0] == "?":
        # What a knapsack would leave: any half of the units.
        layers = [u["layer"] for u in units(model)]
        removed = random.Random(int(removed[1])).sample(layers, len(layers) // 2)
    config = json.loads((model / "config.json").read_text())
    entries = [{"layer": r.lstrip("-"), "how": "drop" if r.startswith("-") else "bypass"} for r in removed]
    base = {"class": config["_class_name"], "config": config}
    path.write_text(json.dumps({"format": "laptopdiff.spec/1", "base": base, "removed": entries, "shell": shell}))
    return path


def forward(model: Path, inputs: Path, output: Path, *flags: str | Path) -> torch.Tensor:
    ok("forward", model, "--inputs", inputs, "-o", output, "--overwrite", *flags)
    return load_file(output)["sample"]


@torch.no_grad()
def reference(model: torch.nn.Module, inputs: Path) -> torch.Tensor:
    tensors = load_file(inputs)
    extra: dict[str, Any] = {k: tensors[k] for k in ("encoder_hidden_states",) if k in tensors}
    if "text_embeds" in tensors:
        extra["added_cond_kwargs"] = {k: tensors[k] for k in ("text_embeds", "time_ids")}
    return model(tensors["sample"], tensors["timestep"], **extra).sample


def assert_close(got: torch.Tensor, want: torch.Tensor, tolerance: float = TOLERANCE) -> None:
    assert got.shape == want.shape
    assert float((got - want).abs().max()) <= tolerance * float(want.max() - want.min())


def load(folder: Path, form: str) -> torch.nn.Module:
    """As a user does; nothing may be missing, left over or misshapen."""
    # AutoModel itself cannot report what it loaded.
    class_name = json.loads((folder / "config.json").read_text())["_class_name"]
    custom = form == "custom"
    kind = type(AutoModel.from_pretrained(str(folder), trust_remote_code=True)) if custom else getattr(diffusers, class_name)
    assert kind.__name__ == class_name
    model, info = kind.from_pretrained(folder, output_loading_info=True)
    assert not any(info.values()), info
    assert set(model.state_dict()) == set(load_file(folder / "diffusion_pytorch_model.safetensors"))
    return model.eval()


def export(model: Path, spec: Path, name: str, output: Path, *flags: str | Path) -> dict[str, Any]:
    return ok("export", model, "--spec", spec, "--format", name, "-o", output, "--json", *flags).json


def checksums_hold(folder: Path) -> bool:
    lines = dict(reversed(line.split("  ", 1)) for line in (folder / "SHA256SUMS").read_text().splitlines())
    files = {str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file()} - {"SHA256SUMS"}
    return files == set(lines) and all(
        hashlib.sha256((folder / name).read_bytes()).hexdigest() == digest for name, digest in lines.items()
    )


def recovered(student: Path, base: Path) -> dict[str, Any]:
    return ok("inspect", student, "--base", base, "--json").json["spec"]


def removals(spec: dict[str, Any]) -> set[tuple[str, str]]:
    return {(r["layer"], r["how"]) for r in spec["removed"]}
