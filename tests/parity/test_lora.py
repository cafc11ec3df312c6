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
import small_pipelines
import torch
from diffusers import UNet2DConditionModel
from PIL import Image
from program import laptopdiff, ok
from safetensors.torch import load_file, save_file
from small_pipelines import randomize
from test_unet import SD1, SMALL_SDXL, assert_close, make_inputs, reference


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


def text_names(style: str, encoder: str) -> tuple[str, str, str]:
    """A module of a text encoder in a file, and the endings of its two tensors."""
    layer = "text_model.encoder.layers.0.self_attn"
    kohya = "lora_te2" if encoder == "text_encoder_2" else "lora_te1"
    return {
        "peft": (f"{encoder}.{layer}.q_proj", ".lora_A.weight", ".lora_B.weight"),
        "older diffusers": (f"{encoder}.{layer}.to_q_lora", ".down.weight", ".up.weight"),
        "kohya": (f"{kohya}_{layer.replace('.', '_')}_q_proj", ".lora_down.weight", ".lora_up.weight"),
    }[style]


class Styled:
    """A pipeline, a LoRA file for its U-Net and its text encoders, and the pipeline with that merged by hand."""

    def __init__(self, plain: Path, style: str, unet_module: str, folder: Path) -> None:
        self.plain, self.file = plain, folder / "lora.safetensors"
        self.merged = Path(shutil.copytree(plain, folder / "merged"))
        generator = torch.Generator().manual_seed(5)
        lora: dict[str, torch.Tensor] = {}
        for part in ("unet", "text_encoder", "text_encoder_2"):
            if not (plain / part).exists():
                continue
            path = next((self.merged / part).glob("*.safetensors"))
            weights = load_file(path)
            ending = unet_module if part == "unet" else "layers.0.self_attn.q_proj"
            key = next(k for k in weights if k.endswith(f"{ending}.weight"))
            down = torch.randn((RANK, weights[key].shape[1]), generator=generator)
            up = torch.randn((weights[key].shape[0], RANK), generator=generator)
            if part == "unet":
                lora |= peft({unet_module: (down, up)})
            else:
                module, a, b = text_names(style, part)
                lora |= {module + a: down, module + b: up}
            weights[key] = weights[key] + up @ down
            save_file(weights, path, metadata={"format": "pt"})
        save_file(lora, self.file)

    def pictures(self, folder: Path, *flags: Any) -> np.ndarray:
        prompts = self.file.parent / "prompts.txt"
        prompts.write_text("a red shoe\na bag\n")
        ok("sample", folder, "--prompts", prompts, "--steps", "2", "-o", self.file.parent / "images", "--overwrite", *flags)
        return np.stack([np.asarray(Image.open(p), np.int16) for p in sorted((self.file.parent / "images").glob("*.png"))])


@pytest.mark.parametrize("style", ["peft", "older diffusers", "kohya"])
@pytest.mark.parametrize("family", ["sd", "sdxl"])
def test_pictures_are_those_of_a_pipeline_with_merged_weights(family: str, style: str, tmp_path: Path) -> None:
    """U-Net and text encoders, through `sample` and through the pipeline that `export` writes."""
    if family == "sd":
        small_models.write_pipeline(tmp_path / "plain")
    else:
        small_pipelines.sdxl(tmp_path / "plain")
    styled = Styled(tmp_path / "plain", style, ATTENTION + ".to_q", tmp_path)
    want = styled.pictures(styled.merged)
    assert np.abs(styled.pictures(styled.plain, "--lora", styled.file) - want).max() <= 1
    assert np.abs(styled.pictures(styled.plain) - want).max() > 8
    ok("export", styled.plain, "--lora", styled.file, "-o", tmp_path / "exported")
    assert np.abs(styled.pictures(tmp_path / "exported") - want).max() <= 1


def test_a_text_encoder_that_the_pipeline_lacks_is_warned_of(tmp_path: Path) -> None:
    plain = small_models.write_pipeline(tmp_path / "plain")
    tensors = peft({f"{ATTENTION}.to_q": (torch.ones(2, 16), torch.ones(16, 2))})
    tensors["lora_te2_text_model_encoder_layers_0_self_attn_q_proj.lora_down.weight"] = torch.ones(2, 4)
    done = ok("export", plain, "--lora", write(tmp_path, tensors), "-o", tmp_path / "out")
    assert "1 tensors are for a text_encoder_2" in done.err


XL_ORIGINAL = {
    "down_blocks.1.attentions.0.transformer_blocks.1.attn1.to_q": "input_blocks_4_1_transformer_blocks_1_attn1_to_q",
    "mid_block.attentions.0.transformer_blocks.2.ff.net.2": "middle_block_1_transformer_blocks_2_ff_net_2",
    "up_blocks.0.attentions.1.proj_out": "output_blocks_1_1_proj_out",
    "down_blocks.1.resnets.0.conv1": "input_blocks_4_0_in_layers_2",
    "up_blocks.0.upsamplers.0.conv": "output_blocks_2_2_conv",
}


def test_original_numbers_of_xl(tmp_path: Path) -> None:
    model = randomize(UNet2DConditionModel(**SMALL_SDXL))
    inputs = make_inputs(model)
    adapters = pairs(model, list(XL_ORIGINAL))
    _, got = run(model, inputs, tmp_path, "--lora", write(tmp_path, kohya(adapters, XL_ORIGINAL)))
    assert_close(got, reference(merged(model, adapters, ALPHA / RANK), inputs))


class Student:
    """An export of bk-sdm-tiny in diffusers' own numbering, in which up_blocks.0 is the base's up_blocks.1."""

    def __init__(self, base: UNet2DConditionModel, folder: Path) -> None:
        base.save_pretrained(folder / "base")
        self.spec, self.path = folder / "spec.json", folder / "student"
        ok("solve", folder / "base", "--preset", "bk-sdm-tiny", "-o", self.spec)
        ok("export", folder / "base", "--spec", self.spec, "-o", self.path)
        self.inputs = make_inputs(base)
        save_file(self.inputs, folder / "in.safetensors")

    def forward(self, model: Path, *flags: Any):
        out = self.path.parent / "out.safetensors"
        done = ok("forward", model, "--inputs", self.path.parent / "in.safetensors", "-o", out, "--overwrite", *flags)
        return done, load_file(out)["sample"]


def test_lora_that_was_trained_on_a_student_is_in_its_numbering(tmp_path: Path) -> None:
    student = Student(make(), tmp_path)
    model = UNet2DConditionModel.from_pretrained(student.path)
    linear = [n for n, m in model.named_modules() if isinstance(m, torch.nn.Linear) and ".attn" in n]
    adapters = pairs(model, linear)
    done, got = student.forward(student.path, "--lora", f"{write(tmp_path, peft(adapters))}:0.1")
    assert "student's own numbering" in done.err and "left out" not in done.err
    want = reference(merged(model, adapters, 0.1), student.inputs)
    assert float((want - reference(model, student.inputs)).abs().max()) > 0.01
    assert_close(got, want)


def test_lora_of_the_base_is_in_the_bases_numbering(tmp_path: Path) -> None:
    base = make()
    student = Student(base, tmp_path)
    linear = [n for n, m in base.named_modules() if isinstance(m, torch.nn.Linear) and ".attn" in n]
    flags = ["--lora", write(tmp_path, peft(pairs(base, linear)))]
    done, got = student.forward(student.path, *flags)
    assert "own numbering" not in done.err and "of removed layers are left out" in done.err
    assert_close(got, student.forward(tmp_path / "base", "--spec", student.spec, *flags)[1])
