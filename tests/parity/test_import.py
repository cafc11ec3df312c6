"""The way back: `inspect STUDENT --base TEACHER`, and exports that others have saved or changed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from diffusers import UNet2DConditionModel
from export_cases import CASES, SDXL, SD_FULL, assert_close, blocks, cases, export, forward, recovered, removals, second_layers, write_spec
from program import BAD_INPUT, USAGE, ok, refused

pytest_plugins = ("export_models",)

XL_FULL = SDXL | {
    "_class_name": "UNet2DConditionModel",
    "sample_size": 128,
    "block_out_channels": (320, 640, 1280),
    "cross_attention_dim": 2048,
    "attention_head_dim": (5, 10, 20),
    "transformer_layers_per_block": (1, 2, 10),
    "addition_time_embed_dim": 256,
    "projection_class_embeddings_input_dim": 2816,
}
TINY_FULL = {
    "layers_per_block": 1,
    "block_out_channels": (320, 640, 1280),
    "down_block_types": ("CrossAttnDownBlock2D",) * 3,
    "up_block_types": ("CrossAttnUpBlock2D",) * 3,
    "mid_block_type": None,
}
ONE_RESNET = {"mid_block_type": "UNetMidBlock2D"}


def test_a_dense_export_that_was_trained_on_is_no_pruned_model(models: Path, tmp_path: Path) -> None:
    spec = write_spec(models / "sd1", ["mid_block.resnets.0"], "drop", tmp_path / "spec.json")
    export(models / "sd1", spec, "dense-zero", tmp_path / "dense")
    # diffusers writes all its keys; it is still the same model.
    UNet2DConditionModel.from_pretrained(tmp_path / "dense").save_pretrained(tmp_path / "dense")
    ok("inspect", tmp_path / "dense")
    want = forward(models / "sd1", models / "sd1.safetensors", tmp_path / "o.safetensors", "--spec", spec)
    assert_close(forward(tmp_path / "dense", models / "sd1.safetensors", tmp_path / "o.safetensors"), want)
    trained = UNet2DConditionModel.from_pretrained(tmp_path / "dense")
    trained.mid_block.resnets[0].conv2.bias.data[3] = 0.5
    trained.save_pretrained(tmp_path / "dense")
    flags = ["--inputs", models / "sd1.safetensors", "-o", tmp_path / "o2.safetensors"]
    refused(BAD_INPUT, "forward", tmp_path / "dense", *flags, says="mid_block.resnets.0.conv2.bias")


def test_a_native_export_saved_anew_by_diffusers_is_still_ours(models: Path, tmp_path: Path) -> None:
    spec = write_spec(models / "sd1", second_layers(4), "drop", tmp_path / "spec.json")
    export(models / "sd1", spec, "diffusers", tmp_path / "out")
    UNet2DConditionModel.from_pretrained(tmp_path / "out").save_pretrained(tmp_path / "out")
    want = forward(models / "sd1", models / "sd1.safetensors", tmp_path / "o.safetensors", "--spec", spec)
    assert_close(forward(tmp_path / "out", models / "sd1.safetensors", tmp_path / "o.safetensors"), want)


def test_a_list_of_removed_layers_that_no_export_writes_is_refused(models: Path, tmp_path: Path) -> None:
    spec = write_spec(models / "sd1", ["mid_block.resnets.0"], "drop", tmp_path / "spec.json")
    export(models / "sd1", spec, "diffusers", tmp_path / "out")
    (tmp_path / "out" / "spec.json").unlink()
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    for pairs, says in (
        ([["mid_block.resnets.7", "skip"]], "mid_block.resnets.7"),
        ([["mid_block.resnets.0", "shortcut"]], "not what an export writes"),
        ([["down_blocks.0.downsamplers", "drop"]], "not what an export writes"),
        ([["mid_block.resnets.0"]], "list of [layer, how]"),
        ("all", "list of [layer, how]"),
    ):
        (tmp_path / "out" / "config.json").write_text(json.dumps(config | {"removed_layers": pairs}))
        refused(BAD_INPUT, "inspect", tmp_path / "out", says=says)


@cases("native")
def test_the_spec_comes_back_from_config_and_weights(name: str, models: Path, tmp_path: Path) -> None:
    """The recovered spec on the base's weights is the student, whatever it is called."""
    kind, removed, shell, _, _ = CASES[name]
    model, inputs = models / kind, models / f"{kind}.safetensors"
    spec = write_spec(model, removed, shell, tmp_path / "spec.json")
    export(model, spec, "diffusers", tmp_path / "student")
    assert removals(recovered(tmp_path / "student", model)) == removals(json.loads(spec.read_text()))  # of its spec.json
    (tmp_path / "student" / "spec.json").unlink()  # as if made by hand: config and weights must tell
    want = forward(tmp_path / "student", inputs, tmp_path / "want.safetensors")
    ok("inspect", tmp_path / "student", "--base", model, "-o", tmp_path / "again.json")
    assert_close(forward(model, inputs, tmp_path / "got.safetensors", "--spec", tmp_path / "again.json"), want)


@pytest.mark.parametrize(
    ("base", "student", "params", "preset"),
    [
        (SD_FULL, {"layers_per_block": 1}, 579_384_964, "segmind-small"),
        (SD_FULL, {"layers_per_block": 1, "mid_block_type": None}, 482_346_884, "bk-sdm-small"),
        (SD_FULL, TINY_FULL, 323_384_964, "segmind-tiny"),
        (XL_FULL, {"layers_per_block": 1, "transformer_layers_per_block": (0, 2, 6)}, 1_161_184_324, None),
        (XL_FULL, {"layers_per_block": 1, "transformer_layers_per_block": (0, 2, 5), "mid_block_type": None}, 782_822_724, None),
        (
            XL_FULL,
            ONE_RESNET
            | {
                "transformer_layers_per_block": (1, 2, 4),
                "reverse_transformer_layers_per_block": ((4, 4, 10), (2, 1, 1), 1),
            },
            1_331_334_404,
            None,
        ),
        (XL_FULL, ONE_RESNET | {"transformer_layers_per_block": (1, 1, 2)}, 745_225_604, None),
    ],
    ids=["sd_small", "bk_small", "sd_tiny", "koala-1b", "koala-700m", "ssd-1b", "vega"],
)
def test_published_students_are_recognised(base: dict, student: dict, params: int, preset: str | None, tmp_path: Path) -> None:
    for name, config in ("base", base), ("student", base | student):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text(json.dumps(config))
    spec = recovered(tmp_path / "student", tmp_path / "base")
    assert spec["totals"]["params"]["pruned"] == params
    if preset:
        ok("solve", tmp_path / "base", "--preset", preset, "-o", tmp_path / "preset.json")
        assert removals(spec) == removals(json.loads((tmp_path / "preset.json").read_text()))


def test_weights_tell_which_layers_a_student_kept(models: Path, tmp_path: Path) -> None:
    """The habit is to keep the leading blocks; this student kept the last, slightly retrained."""
    model = UNet2DConditionModel.from_pretrained(models / "sdxl")
    config = dict(model.config) | {"transformer_layers_per_block": (1, 1, 3)}
    student = UNet2DConditionModel.from_config(config)
    state = {}
    for key in student.state_dict():
        of_stage = key.startswith(("down_blocks.1.", "up_blocks.1."))
        source = key.replace("transformer_blocks.0", "transformer_blocks.1") if of_stage else key
        tensor = model.state_dict()[source]
        state[key] = tensor + 0.01 * tensor.std(unbiased=False) * torch.randn_like(tensor)
    student.load_state_dict(state)
    student.save_pretrained(tmp_path / "student")
    spec = recovered(tmp_path / "student", models / "sdxl")
    attentions = [f"down_blocks.1.attentions.{i}" for i in range(2)] + [f"up_blocks.1.attentions.{i}" for i in range(3)]
    assert removals(spec) == {(f"{a}.transformer_blocks.0", "bypass") for a in attentions}


def test_what_is_no_student_is_refused_with_the_reason(models: Path, tmp_path: Path) -> None:
    config = json.loads((models / "sd1" / "config.json").read_text())
    for change, says in (
        ({"act_fn": "gelu"}, "act_fn"),
        ({"layers_per_block": 3}, "ResNets"),
        ({"block_out_channels": [32, 64, 96, 96]}, "channels"),
    ):
        (tmp_path / "config.json").write_text(json.dumps(config | change))
        refused(BAD_INPUT, "inspect", tmp_path / "config.json", "--base", models / "sd1", says=says)
    refused(BAD_INPUT, "inspect", models / "ddpm", "--base", models / "sd1", says="not a student of this base")
    refused(USAGE, "inspect", models / "sd1", "-o", tmp_path / "s.json", says="--base")
