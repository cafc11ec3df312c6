"""unet/ against diffusers, number by number: small random models run through `laptopdiff forward` and `inspect`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import UNet2DConditionModel, UNet2DModel
from program import laptopdiff
from published_unets import DDPM, SDXL
from safetensors.torch import load_file, save_file

TOLERANCE = 1e-5  # of the reference's range

SD1: dict[str, Any] = {
    "sample_size": 16,
    "block_out_channels": (32, 64, 64, 64),
    "cross_attention_dim": 24,
    "attention_head_dim": 4,
}
SMALL_SDXL: dict[str, Any] = {
    "sample_size": 16,
    "block_out_channels": (32, 64, 64),
    "cross_attention_dim": 24,
    "attention_head_dim": (2, 4, 4),
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
    "transformer_layers_per_block": (1, 2, 3),
    "use_linear_projection": True,
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 8,
    "projection_class_embeddings_input_dim": 16 + 6 * 8,
}
CROSS3 = ("CrossAttnDownBlock2D",) * 3 + ("DownBlock2D",)

# name -> (class, config, what the input needs beyond sample, timestep and text)
MODELS: dict[str, tuple[type, dict[str, Any]]] = {
    "sd1": (UNet2DConditionModel, SD1),
    "sd2 linear projection, heads a stage": (
        UNet2DConditionModel,
        SD1 | {"attention_head_dim": (2, 4, 4, 8), "use_linear_projection": True},
    ),
    "sdxl text_time, deep transformers": (
        UNet2DConditionModel,
        SMALL_SDXL,
    ),
    "bk-tiny shape": (
        UNet2DConditionModel,
        {
            "sample_size": 16,
            "block_out_channels": (32, 64, 64),
            "cross_attention_dim": 24,
            "attention_head_dim": 4,
            "layers_per_block": 1,
            "down_block_types": ("CrossAttnDownBlock2D",) * 3,
            "up_block_types": ("CrossAttnUpBlock2D",) * 3,
            "mid_block_type": None,
        },
    ),
    "one-resnet middle, tuple layers": (
        UNet2DConditionModel,
        SD1 | {"mid_block_type": "UNetMidBlock2D", "layers_per_block": (2, 1, 2, 1)},
    ),
    "nested depths": (
        UNet2DConditionModel,
        SD1
        | {
            "transformer_layers_per_block": [[1, 0], [2, 1], [0, 1], 1],
            "reverse_transformer_layers_per_block": [1, [1, 0, 1], [1, 2, 0], [1, 1, 1]],
        },
    ),
    "scale shift, gelu, eps, odd flips": (
        UNet2DConditionModel,
        SD1
        | {
            "resnet_time_scale_shift": "scale_shift",
            "act_fn": "gelu",
            "norm_eps": 1e-3,
            "flip_sin_to_cos": False,
            "freq_shift": 1,
            "downsample_padding": 0,
            "norm_num_groups": 16,
            "center_input_sample": True,
        },
    ),
    "class table": (UNet2DConditionModel, SD1 | {"num_class_embeds": 10}),
    "class timestep": (UNet2DConditionModel, SD1 | {"class_embed_type": "timestep"}),
    "class projection": (
        UNet2DConditionModel,
        SD1 | {"class_embed_type": "projection", "projection_class_embeddings_input_dim": 12},
    ),
    "class identity concat": (
        UNet2DConditionModel,
        SD1 | {"class_embed_type": "identity", "class_embeddings_concat": True},
    ),
    "timestep condition, only cross attention": (
        UNet2DConditionModel,
        SD1 | {"time_cond_proj_dim": 6, "only_cross_attention": (True, False, False, False), "timestep_post_act": "silu"},
    ),
    "resnet samplers": (
        UNet2DConditionModel,
        SD1
        | {
            "down_block_types": ("ResnetDownsampleBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
            "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "ResnetUpsampleBlock2D"),
            "resnet_out_scale_factor": 1.5,
            "resnet_skip_time_act": True,
            "mid_block_scale_factor": 2.0,
        },
    ),
    "ddpm": (
        UNet2DModel,
        {
            "sample_size": 16,
            "block_out_channels": (32, 64, 64),
            "attention_head_dim": None,
            "down_block_types": ("DownBlock2D", "AttnDownBlock2D", "DownBlock2D"),
            "up_block_types": ("UpBlock2D", "AttnUpBlock2D", "UpBlock2D"),
            "downsample_padding": 0,
            "flip_sin_to_cos": False,
            "freq_shift": 1,
            "norm_eps": 1e-6,
        },
    ),
    "ddpm heads, resnet samplers, class table, relu": (
        UNet2DModel,
        {
            "sample_size": 16,
            "block_out_channels": (32, 64, 64),
            "attention_head_dim": 8,
            "down_block_types": ("DownBlock2D", "AttnDownBlock2D", "AttnDownBlock2D"),
            "up_block_types": ("AttnUpBlock2D", "AttnUpBlock2D", "UpBlock2D"),
            "downsample_type": "resnet",
            "upsample_type": "resnet",
            "num_class_embeds": 7,
            "act_fn": "relu",
            "resnet_time_scale_shift": "scale_shift",
        },
    ),
}


def make(name: str) -> torch.nn.Module:
    torch.manual_seed(0)
    kind, config = MODELS[name]
    model = kind(**config).eval()
    # Random norms too: the defaults of 1 and 0 would hide a swapped gain and bias.
    for parameter in model.parameters():
        if parameter.ndim == 1:
            parameter.data += 0.1 * torch.randn_like(parameter)
    return model


def make_inputs(model: torch.nn.Module, batch: int = 2, height: int = 16, width: int = 16) -> dict[str, torch.Tensor]:
    config = model.config
    inputs = {
        "sample": torch.randn(batch, config.in_channels, height, width),
        "timestep": torch.tensor([7, 981][:batch] + [500] * (batch - 2)),
    }
    if isinstance(model, UNet2DConditionModel):
        inputs["encoder_hidden_states"] = torch.randn(batch, 9, config.cross_attention_dim)
        if config.addition_embed_type == "text_time":
            inputs["text_embeds"] = torch.randn(batch, 16)
            inputs["time_ids"] = torch.tensor([[64.0, 64, 0, 0, 64, 64]] * batch)
        if config.time_cond_proj_dim:
            inputs["timestep_cond"] = torch.randn(batch, config.time_cond_proj_dim)
        labels = {"timestep": torch.tensor([3.0, 5.5]), "projection": torch.randn(2, 12), "identity": torch.randn(2, 128)}
        if config.class_embed_type in labels:
            inputs["class_labels"] = labels[config.class_embed_type]
    if config.num_class_embeds:
        inputs["class_labels"] = torch.tensor([1, 4])
    return inputs


@torch.no_grad()
def reference(model: torch.nn.Module, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
    extra: dict[str, Any] = {k: inputs[k] for k in ("class_labels", "timestep_cond") if k in inputs}
    if "text_embeds" in inputs:
        extra["added_cond_kwargs"] = {"text_embeds": inputs["text_embeds"], "time_ids": inputs["time_ids"]}
    if "encoder_hidden_states" in inputs:
        extra["encoder_hidden_states"] = inputs["encoder_hidden_states"]
    return model(inputs["sample"], inputs["timestep"], **extra).sample


def forward(model: torch.nn.Module, inputs: dict[str, torch.Tensor], folder: Path, *flags: str | Path) -> dict[str, torch.Tensor]:
    model.save_pretrained(folder / "model")
    save_file({k: v.contiguous() for k, v in inputs.items()}, folder / "in.safetensors")
    done = laptopdiff(
        "forward", folder / "model", "--inputs", folder / "in.safetensors", "-o", folder / "out.safetensors", "--overwrite", *flags
    )
    assert done.code == 0, done.err
    return load_file(folder / "out.safetensors")


def assert_close(got: torch.Tensor, want: torch.Tensor, tolerance: float = TOLERANCE) -> None:
    assert got.shape == want.shape
    assert float((got - want).abs().max()) <= tolerance * float(want.max() - want.min())


@pytest.mark.parametrize("name", MODELS)
def test_forward_is_that_of_diffusers(name: str, tmp_path: Path) -> None:
    model = make(name)
    inputs = make_inputs(model)
    assert_close(forward(model, inputs, tmp_path)["sample"], reference(model, inputs))


@pytest.mark.parametrize("name", ["sd1", "ddpm"])
def test_taps_are_the_outputs_of_diffusers_modules(name: str, tmp_path: Path) -> None:
    model = make(name)
    inputs = make_inputs(model)
    seen: dict[str, torch.Tensor] = {}

    def keep(path: str):
        def hook(_module, _inputs, output):
            seen[path] = output[0] if isinstance(output, tuple) else getattr(output, "sample", output)

        return hook

    ours = forward(model, inputs, tmp_path, "--taps", "all")
    modules = dict(model.named_modules())
    for path in ours:
        if path != "sample":
            modules[path].register_forward_hook(keep(path))
    reference(model, inputs)
    assert len(ours) > 30
    for path, value in ours.items():
        # diffusers applies the output activation outside the norm's module.
        if path not in ("sample", "conv_norm_out"):
            assert_close(value, seen[path].detach())


@pytest.mark.parametrize("size", [(12, 20), (14, 10), (9, 7)])
def test_sizes_that_are_no_multiple_of_eight(size: tuple[int, int], tmp_path: Path) -> None:
    model = make("sd1")
    inputs = make_inputs(model, 2, *size)
    assert_close(forward(model, inputs, tmp_path)["sample"], reference(model, inputs))


def test_removal_is_zeroed_branches_in_diffusers(tmp_path: Path) -> None:
    """A bypassed layer computes what the full model computes with that layer's residual branch zeroed."""
    model = make("sdxl text_time, deep transformers")
    inputs = make_inputs(model)
    removed = [
        "down_blocks.0.resnets.1",
        "up_blocks.1.resnets.0",
        "down_blocks.2.attentions.0.transformer_blocks.1",
        "down_blocks.1.attentions.1.transformer_blocks.0",
        "down_blocks.1.attentions.1.transformer_blocks.1",
    ]
    ours = forward(model, inputs, tmp_path, "--without", ",".join(removed))["sample"]
    modules = dict(model.named_modules())
    for path in removed:
        zeroed = [modules[path].conv2] if "resnets" in path else []
        if "transformer_blocks" in path:
            block = modules[path]
            zeroed = [block.attn1.to_out[0], block.attn2.to_out[0], block.ff.net[2]]
        for layer in zeroed:
            layer.weight.data.zero_()
            layer.bias.data.zero_()
    # Both blocks of this transformer are gone, and so is its shell.
    modules["down_blocks.1.attentions.1"].proj_out.weight.data.zero_()
    modules["down_blocks.1.attentions.1"].proj_out.bias.data.zero_()
    assert_close(ours, reference(model, inputs))


def test_the_bk_tiny_preset_is_bk_sdm_tiny(tmp_path: Path) -> None:
    """The spec's program on the teacher's weights is the handcrafted student with inherited weights."""
    teacher = make("sd1")
    inputs = make_inputs(teacher)
    teacher.save_pretrained(tmp_path / "model")
    done = laptopdiff("solve", tmp_path / "model", "--preset", "bk-sdm-tiny", "-o", tmp_path / "spec.json")
    assert done.code == 0, done.err
    ours = forward(teacher, inputs, tmp_path, "--spec", tmp_path / "spec.json")["sample"]

    student = UNet2DConditionModel(**MODELS["bk-tiny shape"][1]).eval()
    state = teacher.state_dict()
    renamed = {}
    for key in student.state_dict():
        source = key
        for stage in range(3):
            for kind in ("resnets", "attentions"):
                source = source.replace(f"up_blocks.{stage}.{kind}.1.", f"UP{stage + 1}.{kind}.2.")
            source = source.replace(f"up_blocks.{stage}.", f"UP{stage + 1}.")
        renamed[key] = state[source.replace("UP", "up_blocks.")]
    student.load_state_dict(renamed)
    assert_close(ours, reference(student, inputs))
    spec = json.loads((tmp_path / "spec.json").read_text())
    assert spec["totals"]["params"]["pruned"] == sum(p.numel() for p in student.parameters())


# Published full-size models: what their config.json adds to SD 1.5's or to the class's defaults, their parameters, and
# their GMACs with both attention products (77 tokens) where the reference table has them.
SD2 = {"attention_head_dim": [5, 10, 20, 20], "cross_attention_dim": 1024, "use_linear_projection": True}
BK_BASE = {"layers_per_block": 1}
BK_SMALL = BK_BASE | {"mid_block_type": None}
BK_TINY = BK_SMALL | {
    "block_out_channels": [320, 640, 1280],
    "down_block_types": ["CrossAttnDownBlock2D"] * 3,
    "up_block_types": ["CrossAttnUpBlock2D"] * 3,
}
KOALA = SDXL | {"layers_per_block": 1}
SSD = {"mid_block_type": "UNetMidBlock2D", "transformer_layers_per_block": [1, 2, 4], "reverse_transformer_layers_per_block": [[4, 4, 10], [2, 1, 1], 1]}
DDPM_256 = DDPM | {
    "sample_size": 256,
    "block_out_channels": [128, 128, 256, 256, 512, 512],
    "down_block_types": ["DownBlock2D"] * 4 + ["AttnDownBlock2D", "DownBlock2D"],
    "up_block_types": ["UpBlock2D", "AttnUpBlock2D"] + ["UpBlock2D"] * 4,
}
CELEBA_64 = DDPM | {
    "sample_size": 64,
    "block_out_channels": [128, 256, 256, 256, 512],
    "down_block_types": ["DownBlock2D", "DownBlock2D", "AttnDownBlock2D", "DownBlock2D", "DownBlock2D"],
    "up_block_types": ["UpBlock2D", "UpBlock2D", "AttnUpBlock2D", "UpBlock2D", "UpBlock2D"],
}
PUBLISHED: dict[str, tuple[dict[str, Any], int, float | None]] = {
    "SD 1.5": ({}, 859_520_964, 401.6),
    "SD 2.1 base": (SD2, 865_910_724, 402.1),
    "SD 2.1": (SD2 | {"sample_size": 96, "upcast_attention": True}, 865_910_724, 1074.6),
    "SDXL": (SDXL, 2_567_463_684, 3380.6),
    "BK-SDM-Base": (BK_BASE, 579_384_964, 261.5),
    "BK-SDM-Small": (BK_SMALL, 482_346_884, 255.4),
    "BK-SDM-Tiny": (BK_TINY, 323_384_964, 242.8),
    "BK-SDM-v2-Base": (BK_BASE | SD2, 583_480_964, None),
    "BK-SDM-v2-Small": (BK_SMALL | SD2, 485_787_524, None),
    "BK-SDM-v2-Tiny": (SD2 | BK_TINY | {"attention_head_dim": [5, 10, 20]}, 326_825_604, None),
    "SSD-1B": (SDXL | SSD, 1_331_334_404, 2103.9),
    "Vega": (SDXL | {"mid_block_type": "UNetMidBlock2D", "transformer_layers_per_block": [1, 1, 2]}, 745_225_604, None),
    "KOALA-1B": (KOALA | {"transformer_layers_per_block": [0, 2, 6]}, 1_161_184_324, 1715.9),
    "KOALA-700M": (KOALA | {"transformer_layers_per_block": [0, 2, 5], "mid_block_type": None}, 782_822_724, 1350.8),
    "DDPM CIFAR10-32": (DDPM, 35_746_307, None),
    "DDPM CelebA-64": (CELEBA_64, 78_700_803, None),
    "DDPM 256": (DDPM_256, 113_673_219, 248.5),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_models_have_their_published_sizes(name: str, tmp_path: Path) -> None:
    config, params, gmacs = PUBLISHED[name]
    sd15 = {"_class_name": "UNet2DConditionModel", "sample_size": 64, "cross_attention_dim": 768}
    (tmp_path / "config.json").write_text(json.dumps(config if "_class_name" in config else sd15 | config))
    done = laptopdiff("inspect", tmp_path / "config.json", "--json")
    assert done.code == 0, done.err
    sizes = json.loads(done.out)
    assert sizes["params"] == params
    if gmacs is not None:
        assert abs(sizes["macs"] / 1e9 / gmacs - 1) < 0.005


@pytest.mark.parametrize(("preset", "params"), [("bk-sdm-base", 579_384_964), ("bk-sdm-small", 482_346_884), ("bk-sdm-tiny", 323_384_964)])
def test_handcrafted_students_have_their_published_sizes(preset: str, params: int, tmp_path: Path) -> None:
    full = {"_class_name": "UNet2DConditionModel", "sample_size": 64, "cross_attention_dim": 768}
    (tmp_path / "config.json").write_text(json.dumps(full))
    assert laptopdiff("solve", tmp_path / "config.json", "--preset", preset, "-o", tmp_path / "spec.json").code == 0
    assert json.loads((tmp_path / "spec.json").read_text())["totals"]["params"]["pruned"] == params
