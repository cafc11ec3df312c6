"""Models, inputs and calibration sets that are wrong: one message that says what, where and what to do, and the promised exit code."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import small_models
import torch
from bad_input import WEIGHTS, changed_unet, score, write
from conftest import World
from diffusers import UNet2DConditionModel
from program import BAD_INPUT, NON_FINITE, USAGE, files_below, ok, refused
from safetensors.numpy import load_file, save_file


@pytest.mark.parametrize("keep", [0, 4, 8, 100, 5000, -1])
def test_truncated_weights(keep: int, world: World, tmp_path: Path) -> None:
    model = world.copy_unet(tmp_path / "unet")
    whole = (model / WEIGHTS).read_bytes()
    (model / WEIGHTS).write_bytes(whole[:keep])
    refused(BAD_INPUT, *score(world, model, tmp_path), says=WEIGHTS)
    assert files_below(tmp_path) == {"unet", "unet/config.json", f"unet/{WEIGHTS}"}


def test_a_header_that_lies(world: World, tmp_path: Path) -> None:
    model = world.copy_unet(tmp_path / "unet")
    for length in (2**63, 2**40, 10**8 + 1):
        (model / WEIGHTS).write_bytes(length.to_bytes(8, "little") + b"{}" * 100)
        refused(BAD_INPUT, *score(world, model, tmp_path), says="truncated or not a safetensors file")


def test_all_that_does_not_fit_is_listed_at_once(world: World, tmp_path: Path) -> None:
    def change(tensors: dict[str, np.ndarray]) -> None:
        del tensors["conv_in.weight"], tensors["mid_block.resnets.0.conv1.bias"]
        tensors["conv_out.bias"] = np.zeros(7, np.float32)
        tensors["conv_out.weight"] = tensors["conv_out.weight"].astype(np.int32)
        tensors["extra.weight"] = np.zeros(3, np.float32)

    model = changed_unet(world, tmp_path, change)
    said = ["5 tensors do not fit", "missing (2): conv_in.weight [16, 4, 3, 3], mid_block.resnets.0.conv1.bias", "unexpected (1)"]
    said += ["extra.weight [3]", "conv_out.bias is [7], expected [4]", "conv_out.weight holds I32"]
    refused(BAD_INPUT, *score(world, model, tmp_path), says=said)


def test_weights_that_are_not_finite(world: World, tmp_path: Path) -> None:
    def change(tensors: dict[str, np.ndarray]) -> None:
        tensors["conv_in.weight"][0, 0, 0, 0] = np.nan
        tensors["conv_out.bias"][0] = np.inf

    model = changed_unet(world, tmp_path, change)
    says = ["2 tensors hold NaN or Inf", "conv_in.weight", "conv_out.bias"]
    refused(NON_FINITE, *score(world, model, tmp_path), says=says)
    refused(NON_FINITE, "forward", model, "--inputs", world.calibration, "-o", tmp_path / "o", says=says)


def test_a_unit_whose_absence_overflows_gets_no_score(world: World, tmp_path: Path) -> None:
    """The unit's residual branch takes away what its shortcut adds: without the branch nothing after it is finite."""

    def change(tensors: dict[str, np.ndarray]) -> None:
        huge = np.float32(2.0**127)
        for layer, bias in (("conv2", -huge), ("conv_shortcut", huge)):
            tensors[f"up_blocks.0.resnets.2.{layer}.weight"][:] = 0
            tensors[f"up_blocks.0.resnets.2.{layer}.bias"][:] = bias

    model = changed_unet(world, tmp_path, change)
    done = ok(*score(world, model, tmp_path))
    scores = json.loads((tmp_path / "scores.json").read_text())
    without = {unit["layer"]: unit["score"] for unit in scores["units"]}
    assert without["up_blocks.0.resnets.2"] is None
    assert sum(value is None for value in without.values()) == 1
    assert "up_blocks.0.resnets.2" in done.err and "not finite" in done.err
    row = next(i for i, unit in enumerate(scores["units"]) if unit["score"] is None)
    assert scores["units"][row]["why_null"] and scores["gram"][row][row] is None and scores["gram"][0][0] is not None
    ok("solve", model, "--scores", tmp_path / "scores.json", "--budget", "params=0.6", "-o", tmp_path / "spec.json")
    spec = json.loads((tmp_path / "spec.json").read_text())
    assert "up_blocks.0.resnets.2" not in {entry["layer"] for entry in spec["removed"]}
    for solver in ("gram", "greedy"):
        ok("solve", model, "--scores", tmp_path / "scores.json", "--budget", "params=0.6", "--solver", solver, "-o", tmp_path / solver)
    overflow = world.spec_json(["up_blocks.0.resnets.2"]) | {"base": spec["base"]}
    (tmp_path / "overflow.json").write_text(json.dumps(overflow))
    measured = ["--scores", tmp_path / "scores.json", "--calibration", world.calibration, "--specs", tmp_path / "overflow.json"]
    done = ok("audit", model, *measured, "--keep", "0.8", "--random-masks", "2", "-o", tmp_path / "audit.json")
    audit = json.loads((tmp_path / "audit.json").read_text())
    row = audit["rows"].pop()
    assert row["true"] is None and row["stderr"] is None and "not finite" in row["why_null"]
    assert all(mask["true"] >= 0 for mask in audit["rows"]) and "nan" not in done.out and "inf" not in done.out
    assert audit["agreement"]["additive"]["rows"] == len(audit["rows"])
    assert done.err.count("the output is not finite without the layers of") == 1 and "overflow.json`: no true loss" in done.err


def test_a_model_that_overflows_altogether(world: World, tmp_path: Path) -> None:
    def change(tensors: dict[str, np.ndarray]) -> None:
        tensors["conv_out.weight"][:] = 3e38

    model = changed_unet(world, tmp_path, change)
    refused(NON_FINITE, *score(world, model, tmp_path), says="own output is not finite")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("dual_cross_attention", True),
        ("encoder_hid_dim", 8),
        ("class_embed_type", "nonsense"),
        ("addition_embed_type", "image"),
        ("mid_block_type", "UNetMidBlock2DSimpleCrossAttn"),
        ("down_block_types", ["SimpleCrossAttnDownBlock2D"] * 4),
        ("resnet_time_scale_shift", "ada_group"),
        ("time_embedding_type", "fourier"),
        ("attention_type", "gated"),
        ("act_fn", "swiglu"),
        ("num_attention_heads", 3),
        ("block_out_channels", []),
        ("block_out_channels", [16, 16, 32]),
        ("block_out_channels", [16, 16, 32, -32]),
        ("block_out_channels", "wide"),
        ("block_out_channels", [15, 16, 32, 32]),
        ("layers_per_block", -1),
        ("layers_per_block", 1000000000),
        ("norm_num_groups", 0),
        ("norm_num_groups", 7),
        ("attention_head_dim", 0),
        ("attention_head_dim", 3),
        ("sample_size", -8),
        ("sample_size", [8, 8, 8]),
        ("sample_size", 9223372036854775807),
        ("norm_eps", -1e-5),
        ("in_channels", 0),
        ("transformer_layers_per_block", [1, 1]),
        ("cross_attention_dim", -3),
    ],
)  # fmt: skip
def test_a_config_that_cannot_run_is_refused_by_the_fields_name(field: str, value: Any, world: World, tmp_path: Path) -> None:
    config = json.loads((world.unet / "config.json").read_text()) | {field: value}
    file = write(tmp_path / "config.json", config)
    message = refused(BAD_INPUT, "inspect", file, says=str(file))
    base = field.removesuffix("_types").removesuffix("_type")
    assert field in message or base.replace("_", " ") in message or "activation" in message or "block type" in message or "channels" in message


def test_an_unknown_field_of_diffusers_is_warned_about(world: World, tmp_path: Path) -> None:
    file = write(tmp_path / "config.json", json.loads((world.unet / "config.json").read_text()) | {"brand_new": 1, "_mine": 2})
    done = ok("inspect", file, "--json")
    assert "unknown key `brand_new`" in done.err and "_mine" not in done.err
    assert done.json["params"] == ok("inspect", world.unet, "--json").json["params"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "not valid JSON"),
        ("{", "not valid JSON"),
        ('{"_class_name": "A", "_class_name": "B"}', "duplicate key `_class_name`"),
        ('{"a": 1e999}', "number overflow"),
        ('{"a": NaN}', "not valid JSON"),
        ("\x00{}", "not valid JSON"),
        ("[" * 200_000, "nested deeper than 128 levels"),
        ('{"a":' * 200_000 + "1" + "}" * 200_000, "nested deeper than 128 levels"),
        ("[]", "expected an object"),
        ("null", "expected an object"),
        ("{}", "`_class_name` is missing"),
        ('{"_class_name": "UNet1DModel"}', "expected UNet2DConditionModel or UNet2DModel"),
        ('{"_class_name": 5}', "must be a string"),
    ],
)  # fmt: skip
def test_a_broken_config_json(text: str, says: str, tmp_path: Path) -> None:
    refused(BAD_INPUT, "inspect", write(tmp_path / "config.json", text), says=[says, "config.json"])


def test_places_where_no_model_is(world: World, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    refused(BAD_INPUT, "inspect", tmp_path / "nope", says="no such file or folder")
    refused(BAD_INPUT, "inspect", tmp_path / "empty", says="config.json")
    refused(BAD_INPUT, "inspect", "/dev/null", says="not valid JSON")
    refused(BAD_INPUT, "inspect", world.calibration, says="no U-Net in original names")
    refused(BAD_INPUT, *score(world, world.unet / "config.json", tmp_path), says="weights are needed")
    (tmp_path / "empty" / "config.json").write_text((world.unet / "config.json").read_text())
    refused(BAD_INPUT, *score(world, tmp_path / "empty", tmp_path), says=f"no weights; expected {WEIGHTS}")
    (tmp_path / "empty" / WEIGHTS).mkdir()
    refused(BAD_INPUT, *score(world, tmp_path / "empty", tmp_path), says="not a regular file")


def test_a_pipe_does_not_hang(world: World, tmp_path: Path) -> None:
    model = world.copy_unet(tmp_path / "unet")
    (model / WEIGHTS).unlink()
    os.mkfifo(model / WEIGHTS)
    refused(BAD_INPUT, *score(world, model, tmp_path), says="not a regular file")


def test_a_pipe_for_json_does_not_hang(world: World, tmp_path: Path) -> None:
    model = world.copy_unet(tmp_path / "unet")
    (model / "config.json").unlink()
    os.mkfifo(model / "config.json")
    refused(BAD_INPUT, "inspect", model, says="config.json")


@pytest.mark.parametrize("verb", ["sample", "distill"])
def test_what_the_configs_can_refuse_is_refused_before_other_weights_are_read(verb: str, world: World, tmp_path: Path) -> None:
    pipeline = tmp_path / "pipeline"
    shutil.copytree(world.pipeline, pipeline)
    for part in ("vae", "text_encoder"):
        for weights in (pipeline / part).glob("*.safetensors"):
            weights.write_bytes(b"never read")
    unet = pipeline / "unet" / "config.json"
    unet.write_text(json.dumps(json.loads(unet.read_text()) | {"encoder_hid_dim_type": "ip_image_proj"}))
    config = write(tmp_path / "d.json", world.distill_config(pipeline=str(pipeline)))
    arguments = ["--config", config] if verb == "distill" else [pipeline, "--prompts", world.prompts]
    refused(BAD_INPUT, verb, *arguments, "-o", tmp_path / "out", says="`encoder_hid_dim_type`")


def test_pickled_weights_are_refused_with_the_way_out(world: World, tmp_path: Path) -> None:
    model = world.copy_unet(tmp_path / "unet")
    (model / WEIGHTS).rename(model / "diffusion_pytorch_model.bin")
    refused(BAD_INPUT, *score(world, model, tmp_path), says=["pickle", "diffusion_pytorch_model.bin", "convert"])


def shard(model: Path, place: str) -> Path:
    """Moves the weights to `place`, and names it in an index."""
    names = sorted(load_file(model / WEIGHTS))
    index = {"metadata": {}, "weight_map": {name: place for name in names}}
    return write(model / f"{WEIGHTS}.index.json", index)


@pytest.mark.slow
@pytest.mark.parametrize("place", ["../outside.safetensors", "/etc/passwd", "sub/../../outside.safetensors", "..", ".", "", "sub/x.safetensors"])
def test_a_shard_index_cannot_point_outside(place: str, world: World, tmp_path: Path) -> None:
    model = world.copy_unet(tmp_path / "unet")
    shard(model, place)
    (model / WEIGHTS).rename(tmp_path / "outside.safetensors")
    (model / "sub").mkdir()
    refused(BAD_INPUT, *score(world, model, tmp_path), says=".index.json")


def test_shards_work_and_missing_ones_are_named(world: World, tmp_path: Path) -> None:
    model = world.copy_unet(tmp_path / "unet")
    index = shard(model, "part.safetensors")
    (model / WEIGHTS).rename(model / "part.safetensors")
    ok(*score(world, model, tmp_path, "--samples", "1"))
    ours, theirs = (json.loads(p.read_text())["base"]["weights_sha256"] for p in (tmp_path / "scores.json", world.scores))
    assert ours == theirs
    map_ = json.loads(index.read_text())
    map_["weight_map"]["conv_in.weight"] = "lost.safetensors"
    write(index, map_)
    refused(BAD_INPUT, *score(world, model, tmp_path, "--overwrite"), says="lost.safetensors")
    map_["weight_map"]["conv_in.weight"] = 5
    write(index, map_)
    refused(BAD_INPUT, *score(world, model, tmp_path, "--overwrite"), says="must be a string")
    write(index, {"weight_map": []})
    refused(BAD_INPUT, *score(world, model, tmp_path, "--overwrite"), says="weight_map")


# Inputs and calibration sets


def inputs(**more: np.ndarray | None) -> dict[str, np.ndarray]:
    random = np.random.default_rng(0)
    tensors: dict[str, np.ndarray | None] = {
        "sample": random.standard_normal((2, 4, 8, 8)).astype(np.float32),
        "timestep": np.array([1, 900]),
        "encoder_hidden_states": random.standard_normal((2, 7, 16)).astype(np.float32),
    }
    tensors |= more
    return {name: tensor for name, tensor in tensors.items() if tensor is not None}


f32 = np.float32


@pytest.mark.slow
@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"sample": np.zeros((0, 4, 8, 8), f32), "timestep": np.zeros(0), "encoder_hidden_states": np.zeros((0, 7, 16), f32)}, "empty"),
        ({"sample": np.zeros((2, 4, 0, 8), f32)}, "height and width must not be 0"),
        ({"sample": np.zeros((2, 3, 8, 8), f32)}, "`sample` is [2, 3, 8, 8], expected [2, 4, -1, -1]"),
        ({"sample": np.zeros((2, 4, 8), f32)}, "`sample` is [2, 4, 8]"),
        ({"sample": np.zeros((2, 4, 8, 8), np.int64)}, "`sample` is I64, expected floats"),
        ({"encoder_hidden_states": np.zeros((2, 7, 16), np.int32)}, "`encoder_hidden_states` is I32, expected floats"),
        ({"timestep": np.array([True, False])}, "`timestep` is BOOL, expected integers or floats"),
        ({"encoder_hidden_states": np.zeros((2, 7, 24), f32)}, "made for another model?"),
        ({"encoder_hidden_states": np.zeros((3, 7, 16), f32)}, "`encoder_hidden_states`"),
        ({"encoder_hidden_states": np.zeros((2, 0, 16), f32)}, "`encoder_hidden_states` is [2, 0, 16]; none of its dimensions may be 0"),
        ({"encoder_hidden_states": None}, "`encoder_hidden_states` [B, T, 16] is missing"),
        ({"timestep": np.array([1, 2, 3])}, "`timestep` is [3], expected [2]"),
        ({"timestep": None}, "tensor `timestep` is missing"),
        ({"timesteps": np.array([1, 2])}, "unknown tensor `timesteps` (did you mean `timestep`"),
    ],
)  # fmt: skip
def test_calibration_sets_of_another_model_by_their_shapes(
    change: dict[str, Any], says: str, world: World, tmp_path: Path
) -> None:
    save_file(inputs(**change), tmp_path / "in.safetensors")
    for verb, flag in (("forward", "--inputs"), ("score", "--calibration")):
        refused(BAD_INPUT, verb, world.unet, flag, tmp_path / "in.safetensors", "-o", tmp_path / "o", says=[says, "in.safetensors"])
    assert files_below(tmp_path) == {"in.safetensors"}


def test_calibration_files_that_are_none(world: World, tmp_path: Path) -> None:
    cut = tmp_path / "cut.safetensors"
    cut.write_bytes(world.calibration.read_bytes()[:-7])
    for path, says in ((cut, "truncated"), (world.unet, "not a regular file"), (world.scores, "not a safetensors file"), ("/dev/null", "regular")):
        refused(BAD_INPUT, "score", world.unet, "--calibration", path, "-o", tmp_path / "s", says=says)
    nan = inputs()
    nan["sample"][1, 0, 0, 0] = np.nan
    save_file(nan, tmp_path / "nan.safetensors")
    refused(NON_FINITE, "score", world.unet, "--calibration", tmp_path / "nan.safetensors", "-o", tmp_path / "s", says="`sample` holds NaN or Inf")
    refused(USAGE, "score", world.unet, "--calibration", world.calibration, "--samples", "99", "-o", tmp_path / "s", says="has 5")


@pytest.mark.slow
@pytest.mark.parametrize("flags", [("--memory", "nan"), ("--memory", "0"), ("--memory", "-1GiB"), ("--memory", "1e300"), ("--memory", "4 parsecs"), ("--memory", "0.5"), ("--memory", "1.5"), ("--memory", "1.5B"), ("--batch", "-1"), ("--samples", "-1")])
def test_senseless_amounts(flags: tuple[str, str], world: World, tmp_path: Path) -> None:
    refused(USAGE, *score(world, world.unet, tmp_path), *flags, says=flags[0])


@pytest.mark.parametrize(("flag", "value", "most"), [("--latent", "1000000000", "2048"), ("--latent", "-1", "2048"), ("--tokens", "2000000000", "1048576"), ("--tokens", "0", "1048576")])
def test_sizes_beyond_reason(flag: str, value: str, most: str, world: World, tmp_path: Path) -> None:
    for verb in (["solve", world.unet, "--preset", "bk-sdm-base", "-o", tmp_path / "o"], ["bench", "forward", world.unet], ["inspect", world.unet]):
        refused(USAGE, *verb, flag, value, says=f"{flag} {value}: expected 1 to {most}")


def test_unknown_layers(world: World, tmp_path: Path) -> None:
    forward = ["forward", world.unet, "--inputs", world.calibration, "-o", tmp_path / "o"]
    refused(USAGE, *forward, "--without", "mid_block.resnets.7", says="did you mean `mid_block.resnets.")
    refused(USAGE, *forward, "--without", "mid_block.resnets.0,mid_block.resnets.0", says="listed twice")
    refused(USAGE, *forward, "--taps", "mid_blok", says="did you mean `mid_block`?")
    solve = ["solve", world.unet, "--scores", world.scores, "--budget", "params=0.8", "-o", tmp_path / "o"]
    refused(USAGE, *solve, "--must-keep", "mid_block.resnet.0", says="did you mean `mid_block.resnets.0`")
    refused(USAGE, *solve, "--must-keep", "mid_block", says="`mid_block` is no unit, but holds some; name those: mid_block.resnets.0,mid_block.")
    for empty in (",", "mid_block.resnets.0,", ",mid_block.resnets.0", "mid_block.resnets.0,,mid_block.resnets.1"):
        refused(USAGE, *solve, "--must-keep", empty, says="has an empty entry")
    layer = "mid_block.resnets.0"
    refused(USAGE, *solve, "--must-keep", layer, "--must-remove", layer, says=layer)


def test_networks_that_batches_cannot_condition(world: World, tmp_path: Path) -> None:
    for option in ({"num_class_embeds": 3}, {"time_cond_proj_dim": 8}):
        pipeline = Path(shutil.copytree(world.pipeline, tmp_path / next(iter(option))))
        torch.manual_seed(0)
        UNet2DConditionModel(**small_models.UNET | option).save_pretrained(pipeline / "unet")
        says = "class-conditional" if "num_class_embeds" in option else "time_cond_proj_dim"
        refused(USAGE, "calibrate", pipeline, "--data", world.data, "--samples", "2", "-o", tmp_path / "cal", says=says)
        config = world.distill_config(pipeline=str(pipeline), spec="")
        ok("solve", pipeline / "unet", "--preset", "bk-sdm-base", "-o", tmp_path / "spec.json", "--overwrite")
        file = write(tmp_path / "distill.json", config | {"spec": str(tmp_path / "spec.json")})
        refused(USAGE, "distill", "--config", file, "-o", tmp_path / "run", says=says)
        assert not (tmp_path / "cal").exists() and not (tmp_path / "run" / "student").exists()
