"""Files that are wrong in every way: one message that says what, where and what to do, and the promised exit code."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any, Callable, Iterator

import numpy as np
import pytest
from conftest import World
from program import BAD_INPUT, NON_FINITE, RESOURCES, USAGE, files_below, ok, refused
from safetensors.numpy import load_file, save_file

WEIGHTS = "diffusion_pytorch_model.safetensors"


def changed_unet(world: World, folder: Path, change: Callable[[dict[str, np.ndarray]], Any]) -> Path:
    model = world.copy_unet(folder / "unet")
    tensors = load_file(model / WEIGHTS)
    change(tensors)
    save_file(tensors, model / WEIGHTS)
    return model


def changed_config(world: World, folder: Path, **more: Any) -> Path:
    model = world.copy_unet(folder / "unet")
    config = json.loads((model / "config.json").read_text()) | more
    (model / "config.json").write_text(json.dumps(config))
    return model


def write(path: Path, value: Any) -> Path:
    path.write_text(value if isinstance(value, str) else json.dumps(value))
    return path


def score(world: World, model: Path, folder: Path, *flags: str) -> list[str | Path]:
    return ["score", model, "--calibration", world.calibration, "-o", folder / "scores.json", *flags]


# Weights and models


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
    said = ["5 tensors do not fit", "missing: conv_in.weight [16, 4, 3, 3]", "missing: mid_block.resnets.0.conv1.bias"]
    said += ["conv_out.bias: is [7], expected [4]", "conv_out.weight: holds I32", "unexpected: extra.weight [3]"]
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
        huge = np.float32(2.0**100)
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
        ("norm_eps", 0),
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
    assert field in message or base.replace("_", " ") in message or "activation" in message or "block type" in message


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
    refused(BAD_INPUT, "inspect", world.calibration, says="not valid JSON")
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
        ({"sample": np.zeros((2, 4, 8, 8), np.int64)}, "`sample` must hold floats"),
        ({"encoder_hidden_states": np.zeros((2, 7, 24), f32)}, "made for another model?"),
        ({"encoder_hidden_states": np.zeros((3, 7, 16), f32)}, "`encoder_hidden_states`"),
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
    refused(NON_FINITE, "score", world.unet, "--calibration", tmp_path / "nan.safetensors", "-o", tmp_path / "s", says="samples 0 to 1")
    refused(USAGE, "score", world.unet, "--calibration", world.calibration, "--samples", "99", "-o", tmp_path / "s", says="has 5")


@pytest.mark.slow
@pytest.mark.parametrize("flags", [("--memory", "nan"), ("--memory", "0"), ("--memory", "-1GiB"), ("--memory", "1e300"), ("--memory", "4 parsecs"), ("--batch", "-1"), ("--samples", "-1")])
def test_senseless_amounts(flags: tuple[str, str], world: World, tmp_path: Path) -> None:
    refused(USAGE, *score(world, world.unet, tmp_path), *flags, says=flags[0])


def test_unknown_layers(world: World, tmp_path: Path) -> None:
    forward = ["forward", world.unet, "--inputs", world.calibration, "-o", tmp_path / "o"]
    refused(USAGE, *forward, "--without", "mid_block.resnets.7", says="did you mean `mid_block.resnets.")
    refused(USAGE, *forward, "--without", "mid_block.resnets.0,mid_block.resnets.0", says="listed twice")
    refused(USAGE, *forward, "--taps", "mid_blok", says="did you mean `mid_block`?")
    solve = ["solve", world.unet, "--scores", world.scores, "--budget", "params=0.8", "-o", tmp_path / "o"]
    refused(USAGE, *solve, "--must-keep", "mid_block.resnet.0", says="did you mean `mid_block.resnets.0`")
    layer = "mid_block.resnets.0"
    refused(USAGE, *solve, "--must-keep", layer, "--must-remove", layer, says=layer)


# Specs


@pytest.mark.slow
@pytest.mark.parametrize(
    ("removed", "says"),
    [
        (["mid_block.resnets.7"], "did you mean"),
        (["mid_block.resnets.0", "mid_block.resnets.0"], "listed twice"),
        ([("up_blocks.3", "drop"), "up_blocks.3.resnets.0"], "lies inside `up_blocks.3`, which is dropped"),
        ([("down_blocks.1.resnets.0", "drop"), "down_blocks.1.attentions.0"], "inside a dropped layer"),
        (["mid_block.attentions.0", "mid_block.attentions.0.transformer_blocks.0"], "listed twice"),
        ([("mid_block.resnets.0", "remove")], "expected bypass or drop"),
        ([("mid_block", "bypass")], "cannot be removed by bypass"),
        ([("mid_block.attentions.0.transformer_blocks.0", "drop")], "cannot be removed by drop"),
        ([("down_blocks.0.resnets.0", "drop")], "up_blocks."),  # one skip too few: the step that misses it is named
        ([("up_blocks.0.resnets.0", "drop")], "skip"),
        ([""], "cannot be removed"),
        (["x" * 100_000], "cannot be removed"),
    ],
)  # fmt: skip
def test_specs_that_do_not_fit_name_the_layer_or_step(removed: list[Any], says: str, world: World, tmp_path: Path) -> None:
    spec = write(tmp_path / "spec.json", world.spec_json(removed))
    message = refused(BAD_INPUT, "inspect", world.unet, "--spec", spec, says=[says, "spec.json"])
    assert len(message) < 3000


@pytest.mark.slow
@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"format": "laptopdiff.spec/2"}, 'expected "laptopdiff.spec/1"'),
        ({"format": None}, "`format` is missing"),
        ({"base": None}, "`base` is missing"),
        ({"base": {"class": "UNet2DConditionModel"}}, "`config` is missing"),
        ({"removed": "all"}, "`removed` must be a list"),
        ({"removed": [{"layr": "x"}]}, "`layer` is missing"),
        ({"removed": [{"layer": "mid_block.resnets.0", "hw": "drop"}]}, "unknown key `hw` (did you mean `how`?)"),
        ({"shell": "open"}, "expected drop or keep"),
        ({"timesteps": [5, 5]}, "`timesteps` must be [first, last)"),
        ({"timesteps": [0]}, "`timesteps` must be [first, last)"),
        ({"shel": "drop"}, "unknown key `shel` (did you mean `shell`?)"),
        ({"totals": {"params": {"base": 1, "pruned": 1}}}, "says base 1, pruned 1; this base and these removals give"),
    ],
)  # fmt: skip
def test_specs_with_wrong_fields(change: dict[str, Any], says: str, world: World, tmp_path: Path) -> None:
    spec = {key: value for key, value in (world.spec_json([]) | change).items() if value is not None}
    refused(BAD_INPUT, "inspect", world.unet, "--spec", write(tmp_path / "spec.json", spec), says=[says, "spec.json"])


def test_spec_and_scores_of_another_base(world: World, tmp_path: Path) -> None:
    other = changed_config(world, tmp_path, sample_size=16)
    refused(BAD_INPUT, "inspect", other, "--spec", world.spec, says=["another base", "`sample_size` is 8", "16"])
    solve = ["--scores", world.scores, "--budget", "params=0.8", "-o", tmp_path / "o"]
    refused(BAD_INPUT, "solve", other, *solve, says=["another base", "`sample_size` is 8", "16"])


def test_spec_and_scores_of_other_weights(world: World, tmp_path: Path) -> None:
    def change(tensors: dict[str, np.ndarray]) -> None:
        tensors["conv_out.bias"] += 1

    other = changed_unet(world, tmp_path, change)
    run = ["forward", other, "--inputs", world.calibration, "-o", tmp_path / "o"]
    refused(BAD_INPUT, *run, "--spec", world.spec, says="other weights")
    audit = ["--scores", world.scores, "--calibration", world.calibration, "-o", tmp_path / "o"]
    refused(BAD_INPUT, "audit", other, *audit, says="scores of other weights")
    config = write(tmp_path / "d.json", world.distill_config(teacher=str(other)))
    refused(BAD_INPUT, "distill", "--config", config, "-o", tmp_path / "run", says="other weights")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda s: s.update(format="laptopdiff.spec/1"), 'expected "laptopdiff.scores/1"'),
        (lambda s: s.update(extra=1), "unknown key `extra`"),
        (lambda s: s["units"].pop(), "must list the 38 units"),
        (lambda s: s["units"].reverse(), "expected `down_blocks.0.resnets.0` in execution order"),
        (lambda s: s["units"][0].update(params=1), "`params` is 1, this base gives"),
        (lambda s: s["units"][0].update(score="high"), "must be a number"),
        (lambda s: s["gram"].pop(), "`gram` must have 38 rows"),
        (lambda s: s["gram"][3].pop(), "gram[3] must have 38 entries"),
        (lambda s: s["gram"][3].__setitem__(0, "x"), "must be a number"),
        (lambda s: s.update(shells=[{"path": "mid_block"}]), "`units` is missing"),
    ],
)  # fmt: skip
def test_scores_that_were_edited(change: Callable[[Any], Any], says: str, world: World, tmp_path: Path) -> None:
    scores = json.loads(world.scores.read_text())
    change(scores)
    file = write(tmp_path / "scores.json", scores)
    refused(BAD_INPUT, "solve", world.unet, "--scores", file, "--budget", "params=0.8", "-o", tmp_path / "o", says=[says, "scores.json"])


@pytest.mark.parametrize(
    ("budget", "says"),
    [
        ("params=0", "the least share that can be kept is params="),
        ("params=0.01", "the least share that can be kept is params="),
        ("params=-1", "expected a share"),
        ("params=nan", "expected a share"),
        ("params=0.5x", "expected a share"),
        ("params=", "expected a share"),
        ("params", "expected params=0.5 or macs=0.5"),
        ("parms=0.5", "expected params=0.5 or macs=0.5"),
        ("params=0.5,params=0.6", "given twice"),
        ("params=@bk", "unknown preset `bk`"),
        ("", "--budget is missing"),
    ],
)  # fmt: skip
def test_budgets_that_cannot_be(budget: str, says: str, world: World, tmp_path: Path) -> None:
    refused(USAGE, "solve", world.unet, "--scores", world.scores, "--budget", budget, "-o", tmp_path / "o", says=says)
    assert files_below(tmp_path) == set()


@pytest.mark.slow
def test_wrong_names_and_amounts_of_other_verbs(world: World, tmp_path: Path) -> None:
    out = ["-o", tmp_path / "o"]
    solve = ["solve", world.unet, "--scores", world.scores, "--budget", "params=0.8", *out]
    refused(USAGE, *solve, "--solver", "grm", says="did you mean `gram`?")
    refused(USAGE, *score(world, world.unet, tmp_path), "--criterion", "clip", says="unknown criterion `clip`")
    audit = ["audit", world.unet, "--scores", world.scores, "--calibration", world.calibration, *out]
    for flags in (["--keep", ""], ["--keep", "0"], ["--keep", "1.5"], ["--random-masks", "-1"], ["--samples", "-1"], ["--seed", "-1"]):
        refused(USAGE, *audit, *flags)
    refused(USAGE, *audit, "--presets", "x", says="unknown preset `x`")
    calibrate = ["calibrate", world.pipeline, "--data", world.data, *out]
    for flags in (["--samples", "0"], ["--samples", "1000000000000"], ["--seed", "-1"]):
        refused(USAGE, *calibrate, *flags)
    refused(USAGE, *calibrate, "--samples", "1", "--first-timestep", "5", "--last-timestep", "5", says="[5, 5)")
    sample = ["sample", world.pipeline, "--prompts", world.prompts, *out]
    for flags in (["--steps", "0"], ["--steps", "100000"], ["--batch", "0"], ["--seed", "-1"], ["--count", "-1"], ["--latent", "-4"], ["--latent", "1000000000"]):
        refused(USAGE, *sample, *flags)
    refused(USAGE, *sample, "--scheduler", "dpm", says="did you mean `ddpm`")
    assert files_below(tmp_path) == set()


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
        ({"arms": {"a": {"slove": {}}}}, "unknown key `slove` (did you mean `solve`?)"),
        ({"arms": {"a": {"solve": 3}}}, "`solve` must be an object"),
        ({"arms": {"a": 3}}, "expected an object"),
        ({"audit": 3}, "`audit` must be an object"),
        ({"calibrate": []}, "`calibrate` must be an object"),
        ({"axes": []}, "`axes` must be an object"),
        ({"axes": {"s": {"set": ["distill.seed"]}}}, "`values` must be a list"),
        ({"axes": {"s": {"set": ["distill.seed"], "values": []}}}, "at least one value"),
        ({"axes": {"s": {"set": ["calibrate.seed"], "values": [1]}}}, "must start with solve., distill."),
        ({"axes": {"s": {"set": ["distill.steps.x"], "values": [1]}}}, "`distill.steps` is not an object"),
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


@pytest.mark.parametrize("verb", ["forward", "score", "solve", "sample", "distill"])
def test_an_output_that_cannot_be_written_is_refused_before_the_work(verb: str, world: World, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    config = write(tmp_path / "d.json", world.distill_config())
    arguments: dict[str, list[Any]] = {
        "forward": [world.unet, "--inputs", world.calibration],
        "score": [world.unet, "--calibration", world.calibration],
        "solve": [world.unet, "--scores", world.scores, "--budget", "params=0.8"],
        "sample": [world.pipeline, "--prompts", world.prompts],
        "distill": ["--config", config],
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
