"""LoRA files of all three styles, merged when a model is loaded: W' = W + scale alpha / r B A, worked out here in torch."""

from __future__ import annotations

import copy
import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import small_models
import torch
from diffusers import UNet2DConditionModel
from PIL import Image
from program import laptopdiff, ok
from safetensors.torch import load_file, save_file
from small_pipelines import randomize
from test_unet import SD1, assert_close, make_inputs, reference


RANK, ALPHA = 4, 2.0
ATTENTION = "down_blocks.0.attentions.0.transformer_blocks.0.attn1"
MODULES = [
    f"{ATTENTION}.to_q",
    f"{ATTENTION}.to_out.0",
    "down_blocks.1.attentions.1.transformer_blocks.0.ff.net.0.proj",
    "mid_block.attentions.0.proj_in",  # a 1x1 convolution with a linear LoRA
    "up_blocks.1.attentions.2.transformer_blocks.0.attn2.to_k",
]
CONVOLUTIONS = ["down_blocks.1.resnets.0.conv1", "down_blocks.0.downsamplers.0.conv", "up_blocks.0.upsamplers.0.conv"]
ORIGINAL = {
    f"{ATTENTION}.to_q": "input_blocks_1_1_transformer_blocks_0_attn1_to_q",
    f"{ATTENTION}.to_out.0": "input_blocks_1_1_transformer_blocks_0_attn1_to_out_0",
    "down_blocks.1.attentions.1.transformer_blocks.0.ff.net.0.proj": "input_blocks_5_1_transformer_blocks_0_ff_net_0_proj",
    "mid_block.attentions.0.proj_in": "middle_block_1_proj_in",
    "up_blocks.1.attentions.2.transformer_blocks.0.attn2.to_k": "output_blocks_5_1_transformer_blocks_0_attn2_to_k",
    "down_blocks.1.resnets.0.conv1": "input_blocks_4_0_in_layers_2",
    "down_blocks.0.downsamplers.0.conv": "input_blocks_3_0_op",
    "up_blocks.0.upsamplers.0.conv": "output_blocks_2_1_conv",
}
Pairs = dict[str, tuple[torch.Tensor, torch.Tensor]]


def make() -> UNet2DConditionModel:
    return randomize(UNet2DConditionModel(**SD1))


def pairs(model: UNet2DConditionModel, modules: list[str]) -> Pairs:
    generator = torch.Generator().manual_seed(3)
    made = {}
    for module in modules:
        weight = model.get_submodule(module).weight
        fan_in = weight.shape[1:] if module in CONVOLUTIONS else (weight.shape[1],)
        a = torch.randn((RANK, *fan_in), generator=generator) / weight[0].numel() ** 0.5
        b = torch.randn((weight.shape[0], RANK), generator=generator)
        made[module] = (a, b[:, :, None, None] if module in CONVOLUTIONS else b)
    return made


def merged(model: UNet2DConditionModel, adapters: Pairs, factor: float) -> UNet2DConditionModel:
    model = copy.deepcopy(model)
    for module, (a, b) in adapters.items():
        weight = model.get_submodule(module).weight
        weight.data += factor * (b.flatten(1) @ a.flatten(1)).reshape(weight.shape)
    return model


def peft(adapters: Pairs) -> dict[str, torch.Tensor]:
    out = {}
    for module, (a, b) in adapters.items():
        out |= {f"unet.{module}.lora_A.weight": a, f"unet.{module}.lora_B.weight": b}
    return out


def older(adapters: Pairs) -> dict[str, torch.Tensor]:
    out = {}
    for module, (a, b) in adapters.items():
        name = re.sub(r"\.(to_[qkv]|to_out)(\.0)?$", r".processor.\1_lora", module)
        stem = f"unet.{name}" if name != module else f"unet.{module}.lora"
        out |= {f"{stem}.down.weight": a, f"{stem}.up.weight": b}
    return out


def kohya(adapters: Pairs, names: dict[str, str] | None = None) -> dict[str, torch.Tensor]:
    out = {}
    for module, (a, b) in adapters.items():
        stem = "lora_unet_" + (names[module] if names else module.replace(".", "_"))
        out |= {f"{stem}.lora_down.weight": a, f"{stem}.lora_up.weight": b, f"{stem}.alpha": torch.tensor(ALPHA)}
    return out


def write(folder: Path, tensors: dict[str, torch.Tensor], metadata: dict[str, str] | None = None) -> Path:
    save_file({k: v.contiguous() for k, v in tensors.items()}, folder / "lora.safetensors", metadata)
    return folder / "lora.safetensors"


def run(model: UNet2DConditionModel, inputs: dict[str, torch.Tensor], folder: Path, *flags: Any):
    model.save_pretrained(folder / "model")
    save_file(inputs, folder / "in.safetensors")
    out = folder / "out.safetensors"
    done = laptopdiff("forward", folder / "model", "--inputs", folder / "in.safetensors", "-o", out, "--overwrite", *map(str, flags))
    return done, load_file(out)["sample"] if done.code == 0 else None


STYLES = {
    "peft": (peft, 1.0),
    "older diffusers": (older, 1.0),
    "kohya": (kohya, ALPHA / RANK),
    "kohya, original numbers": (lambda adapters: kohya(adapters, ORIGINAL), ALPHA / RANK),
}


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("scale", ["", ":0.5"])
def test_merged_weights_are_those_of_the_formula(style: str, scale: str, tmp_path: Path) -> None:
    model = make()
    inputs = make_inputs(model)
    adapters = pairs(model, MODULES + CONVOLUTIONS)
    writer, factor = STYLES[style]
    file = write(tmp_path, writer(adapters))
    done, got = run(model, inputs, tmp_path, "--lora", f"{file}{scale}")
    assert done.code == 0, done.err
    want = reference(merged(model, adapters, factor * (0.5 if scale else 1)), inputs)
    assert float((want - reference(model, inputs)).abs().max()) > 0.01  # the adapters change something
    assert_close(got, want)


def test_alpha_of_pefts_settings_counts(tmp_path: Path) -> None:
    model = make()
    inputs = make_inputs(model)
    adapters = pairs(model, MODULES[:2])
    settings = {"unet.r": RANK, "unet.lora_alpha": 8, "unet.alpha_pattern": {"attn1.to_q": 2}}
    file = write(tmp_path, peft(adapters), {"lora_adapter_metadata": json.dumps(settings)})
    (query, out), (a, b) = adapters.keys(), (8 / RANK, 2 / RANK)
    want = merged(merged(model, {query: adapters[query]}, b), {out: adapters[out]}, a)
    assert_close(run(model, inputs, tmp_path, "--lora", file)[1], reference(want, inputs))


def test_several_files_add_up(tmp_path: Path) -> None:
    model = make()
    inputs = make_inputs(model)
    adapters = pairs(model, MODULES)
    file = write(tmp_path, peft(adapters))
    _, got = run(model, inputs, tmp_path, "--lora", f"{file}:0.25,{file}:0.5")
    assert_close(got, reference(merged(model, adapters, 0.75), inputs))


def test_tensors_of_removed_layers_are_left_out_with_their_number(tmp_path: Path) -> None:
    model = make()
    inputs = make_inputs(model)
    adapters = pairs(model, MODULES)
    block = "down_blocks.0.attentions.0.transformer_blocks.0"  # two of the adapters
    config = {k: v for k, v in model.config.items() if not k.startswith("_")}
    spec = {
        "format": "laptopdiff.spec/1",
        "base": {"class": "UNet2DConditionModel", "config": config},
        "removed": [{"layer": block, "how": "bypass"}],
    }
    (tmp_path / "spec.json").write_text(json.dumps(spec))
    file = write(tmp_path, kohya(adapters))
    done, got = run(model, inputs, tmp_path, "--lora", file, "--spec", tmp_path / "spec.json")
    assert done.code == 0, done.err
    assert "6 tensors of removed layers are left out" in done.err
    rest = {module: pair for module, pair in adapters.items() if not module.startswith(block)}
    done, want = run(merged(model, rest, ALPHA / RANK), inputs, tmp_path, "--spec", tmp_path / "spec.json")
    assert_close(got, want)


def test_tensors_of_text_encoders_are_no_error(tmp_path: Path) -> None:
    model = make()
    inputs = make_inputs(model)
    adapters = pairs(model, MODULES[:1])
    text = {
        "lora_te_text_model_encoder_layers_0_self_attn_q_proj.lora_down.weight": torch.ones(2, 4),
        "text_encoder.text_model.encoder.layers.0.mlp.fc1.lora_A.weight": torch.ones(2, 4),
    }
    done, got = run(model, inputs, tmp_path, "--lora", write(tmp_path, peft(adapters) | text))
    assert "2 tensors are not of the unet" in done.err
    assert_close(got, reference(merged(model, adapters, 1.0), inputs))


def test_everything_that_does_not_fit_is_listed(tmp_path: Path) -> None:
    model = make()
    tensors = peft(pairs(model, MODULES[:2]))
    tensors["unet.down_blocks.9.attentions.0.proj_in.lora_A.weight"] = torch.ones(2, 4)
    tensors["lora_unet_conv_in.dora_scale"] = torch.ones(1)
    tensors[f"unet.{MODULES[0]}.lora_A.weight"] = torch.ones(RANK, 7)
    del tensors[f"unet.{MODULES[1]}.lora_B.weight"]
    done, _ = run(model, make_inputs(model), tmp_path, "--lora", write(tmp_path, tensors))
    assert done.code == 3
    for part in ("4 LoRA tensors", "down_blocks.9", "dora_scale", "[4, 7]", "one half of the pair is missing"):
        assert part in done.err, done.err


def test_scores_with_lora_are_of_other_weights(tmp_path: Path) -> None:
    """A spec made from them does not pass for one of the bare model."""
    model = make()
    inputs = make_inputs(model)
    file = write(tmp_path, peft(pairs(model, MODULES)))
    run(model, inputs, tmp_path)
    save_file(inputs, tmp_path / "cal.safetensors")
    hashes = []
    for name, flags in (("bare", []), ("lora", ["--lora", str(file)])):
        scores = tmp_path / f"{name}.json"
        done = laptopdiff("score", tmp_path / "model", "--calibration", tmp_path / "cal.safetensors", "-o", scores, *flags)
        assert done.code == 0, done.err
        hashes.append(json.loads(scores.read_text())["base"]["weights_sha256"])
    assert hashes[0] != hashes[1]


def test_a_spec_of_the_bare_weights_takes_lora(tmp_path: Path) -> None:
    """What `solve` writes names the stored weights; a style on top of them is no other base."""
    model = make()
    inputs = make_inputs(model)
    adapters = pairs(model, MODULES)
    file = write(tmp_path, peft(adapters))
    run(model, inputs, tmp_path)
    save_file(inputs, tmp_path / "cal.safetensors")
    ok("score", tmp_path / "model", "--calibration", tmp_path / "cal.safetensors", "-o", tmp_path / "scores.json")
    ok("solve", tmp_path / "model", "--scores", tmp_path / "scores.json", "--budget", "params=0.8", "-o", tmp_path / "spec.json")
    assert json.loads((tmp_path / "spec.json").read_text())["base"]["weights_sha256"]
    done, got = run(model, inputs, tmp_path, "--spec", tmp_path / "spec.json", "--lora", file)
    assert done.code == 0, done.err
    bare = json.loads((tmp_path / "spec.json").read_text())
    del bare["base"]["weights_sha256"]
    (tmp_path / "any.json").write_text(json.dumps(bare))
    assert_close(got, run(merged(model, adapters, 1.0), inputs, tmp_path, "--spec", tmp_path / "any.json")[1])


def test_pefts_own_files_need_their_settings(tmp_path: Path) -> None:
    model = make()
    inputs = make_inputs(model)
    adapters = pairs(model, MODULES)
    file = write(tmp_path, {name.replace("unet.", "base_model.model.", 1): t for name, t in peft(adapters).items()})
    done, _ = run(model, inputs, tmp_path, "--lora", file)
    assert done.code == 3 and "adapter_config.json" in done.err
    (file.parent / "adapter_config.json").write_text(json.dumps({"r": RANK, "lora_alpha": 16, "use_dora": False}))
    assert_close(run(model, inputs, tmp_path, "--lora", file)[1], reference(merged(model, adapters, 16 / RANK), inputs))


def test_a_pickled_file_is_refused_with_the_way_out(tmp_path: Path) -> None:
    model = make()
    pickled = tmp_path / "lora.bin"
    torch.save({}, pickled)
    done, _ = run(model, make_inputs(model), tmp_path, "--lora", pickled)
    assert done.code == 3 and "is pickled" in done.err and "safetensors" in done.err


def text_names(style: str) -> tuple[str, str, str]:
    """A module of the text encoder in a file, and the endings of its two tensors."""
    layer = "text_model.encoder.layers.0.self_attn"
    return {
        "peft": (f"text_encoder.{layer}.q_proj", ".lora_A.weight", ".lora_B.weight"),
        "older diffusers": (f"text_encoder.{layer}.to_q_lora", ".down.weight", ".up.weight"),
        "kohya": (f"lora_te1_{layer.replace('.', '_')}_q_proj", ".lora_down.weight", ".lora_up.weight"),
    }[style]


@pytest.mark.parametrize("style", ["peft", "older diffusers", "kohya"])
def test_pictures_are_those_of_a_pipeline_with_merged_weights(style: str, tmp_path: Path) -> None:
    """U-Net and text encoder, through `sample`."""
    plain = Path(small_models.write_pipeline(tmp_path / "plain"))
    unet_file, text_file = plain / "unet" / "diffusion_pytorch_model.safetensors", plain / "text_encoder" / "model.safetensors"
    unet, text = load_file(unet_file), load_file(text_file)
    unet_key = f"{ATTENTION}.to_q.weight"
    text_key = next(k for k in text if k.endswith("layers.0.self_attn.q_proj.weight"))
    generator = torch.Generator().manual_seed(5)
    down, up = (torch.randn(shape, generator=generator) for shape in ((RANK, 16), (16, RANK)))
    module, a, b = text_names(style)
    file = tmp_path / "lora.safetensors"
    save_file(peft({f"{ATTENTION}.to_q": (down, up)}) | {module + a: down.clone(), module + b: up.clone()}, file)

    merged_pipeline = Path(shutil.copytree(plain, tmp_path / "merged"))
    for path, tensors, key in ((unet_file, unet, unet_key), (text_file, text, text_key)):
        tensors[key] = tensors[key] + up @ down
        save_file(tensors, merged_pipeline / path.relative_to(plain), metadata={"format": "pt"})

    (tmp_path / "prompts.txt").write_text("a red shoe\na bag\n")
    pictures = {}
    for name, folder, flags in (("plain", plain, []), ("lora", plain, ["--lora", str(file)]), ("merged", merged_pipeline, [])):
        out = tmp_path / f"images-{name}"
        done = laptopdiff("sample", folder, "--prompts", tmp_path / "prompts.txt", "--steps", "2", "-o", out, *flags)
        assert done.code == 0, done.err
        pictures[name] = np.stack([np.asarray(Image.open(p), np.int16) for p in sorted(out.glob("*.png"))])
    assert np.abs(pictures["lora"] - pictures["merged"]).max() <= 1
    assert np.abs(pictures["lora"] - pictures["plain"]).max() > 8
