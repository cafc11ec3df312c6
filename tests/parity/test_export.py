"""`export` against diffusers: every form loads there with exactly its own tensors and computes what we compute; and the
way back, `inspect STUDENT --base TEACHER`."""

from __future__ import annotations

import hashlib
import json
import random
import shutil
from pathlib import Path
from typing import Any

import diffusers
import pytest
import small_models
import test_unet
import torch
from diffusers import AutoModel, DiffusionPipeline, StableDiffusionPipeline, UNet2DConditionModel, UNet2DModel
from huggingface_hub import ModelCard
from program import BAD_INPUT, NON_FINITE, USAGE, ok, refused
from safetensors.torch import load_file, save_file

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


def assert_close(got: torch.Tensor, want: torch.Tensor) -> None:
    assert got.shape == want.shape
    assert float((got - want).abs().max()) <= TOLERANCE * float(want.max() - want.min())


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


@pytest.mark.parametrize("name", CASES)
def test_diffusers_loads_an_export_and_computes_the_same(name: str, models: Path, tmp_path: Path) -> None:
    kind, removed, shell, form, no_dense = CASES[name]
    model, inputs = models / kind, models / f"{kind}.safetensors"
    spec = write_spec(model, removed, shell, tmp_path / "spec.json")
    want = forward(model, inputs, tmp_path / "out.safetensors", "--spec", spec)

    said = export(model, spec, "diffusers", tmp_path / "native")
    assert said["form"] == form, said
    exported = load(tmp_path / "native", form)
    assert sum(p.numel() for p in exported.parameters()) == said["params"]["pruned"]
    assert_close(reference(exported, inputs), want)
    # Not bit for bit: in another file tensors lie at other alignments, and MKL's last bits depend on them.
    assert_close(forward(tmp_path / "native", inputs, tmp_path / "again.safetensors"), want)
    if form == "custom":
        exported.save_pretrained(tmp_path / "saved")  # without spec.json: its config must tell
        assert_close(forward(tmp_path / "saved", inputs, tmp_path / "again.safetensors"), want)

    if no_dense:
        refused(USAGE, "export", model, "--spec", spec, "--format", "dense-zero", "-o", tmp_path / "dense", says=no_dense)
        assert not (tmp_path / "dense").exists()
        return
    said = export(model, spec, "dense-zero", tmp_path / "dense")
    dense = load(tmp_path / "dense", "dense")
    assert sum(p.numel() for p in dense.parameters()) == said["params"]["base"]
    assert_close(reference(dense, inputs), want)
    assert_close(forward(tmp_path / "dense", inputs, tmp_path / "again.safetensors"), want)


def test_presets_become_configs_of_one_layer(models: Path, tmp_path: Path) -> None:
    ok("solve", models / "sd1", "--preset", "bk-sdm-tiny", "-o", tmp_path / "spec.json")
    export(models / "sd1", tmp_path / "spec.json", "diffusers", tmp_path / "out")
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert config["layers_per_block"] == 1
    assert config["block_out_channels"] == [32, 64, 64]
    assert config["down_block_types"] == ["CrossAttnDownBlock2D"] * 3
    assert config["up_block_types"] == ["CrossAttnUpBlock2D"] * 3
    assert config["mid_block_type"] is None


def test_an_export_of_an_export_needs_no_spec(models: Path, tmp_path: Path) -> None:
    spec = write_spec(models / "sd1", CASES["bk base"][1], "drop", tmp_path / "spec.json")
    export(models / "sd1", spec, "diffusers", tmp_path / "native")
    ok("export", tmp_path / "native", "--format", "dense-zero", "-o", tmp_path / "dense")
    export(models / "sd1", spec, "dense-zero", tmp_path / "want")
    name = "diffusion_pytorch_model.safetensors"
    assert (tmp_path / "dense" / name).read_bytes() == (tmp_path / "want" / name).read_bytes()
    other = write_spec(models / "sd1", ["mid_block.resnets.0"], "drop", tmp_path / "other.json")
    refused(USAGE, "export", tmp_path / "native", "--spec", other, "-o", tmp_path / "x", says="pruned already")


def test_storage_is_kept_or_chosen(models: Path, tmp_path: Path) -> None:
    spec = write_spec(models / "sd1", ["mid_block.resnets.0"], "drop", tmp_path / "spec.json")
    half = UNet2DConditionModel.from_pretrained(models / "sd1").half()
    half.save_pretrained(tmp_path / "half")
    for flags, dtype in ([], torch.float16), (["--storage", "f32"], torch.float32), (["--storage", "bf16"], torch.bfloat16):
        out = tmp_path / str(dtype)
        ok("export", tmp_path / "half", "--spec", spec, "-o", out, *flags)
        written = load_file(out / "diffusion_pytorch_model.safetensors")
        assert {t.dtype for t in written.values()} == {dtype}
        assert torch.equal(written["conv_in.weight"], half.conv_in.weight.to(dtype))


def test_numbers_that_do_not_fit_the_storage_are_named(models: Path, tmp_path: Path) -> None:
    model = UNet2DConditionModel.from_pretrained(models / "sd1")
    model.conv_out.bias.data[0] = 1e6
    model.save_pretrained(tmp_path / "model")
    spec = write_spec(models / "sd1", ["mid_block.resnets.0"], "drop", tmp_path / "spec.json")
    flags = ["--spec", spec, "-o", tmp_path / "out", "--storage", "f16"]
    refused(NON_FINITE, "export", tmp_path / "model", *flags, says="conv_out.bias")
    assert not (tmp_path / "out").exists()


def test_a_dry_run_says_the_form_and_writes_nothing(models: Path, tmp_path: Path) -> None:
    spec = write_spec(models / "sd1", ["mid_block.resnets.0"], "drop", tmp_path / "spec.json")
    said = ok("export", models / "sd1", "--spec", spec, "-o", tmp_path / "out", "--dry-run").out
    assert "custom" in said and "mid_block" in said
    assert not (tmp_path / "out").exists()


def test_usage_errors(models: Path, tmp_path: Path) -> None:
    spec = write_spec(models / "sd1", ["mid_block.resnets.0"], "drop", tmp_path / "spec.json")
    (tmp_path / "there").mkdir()
    out = ["-o", tmp_path / "out"]
    refused(USAGE, "export", models / "sd1", *out, says="--spec is missing")
    refused(USAGE, "export", models / "sd1", "--spec", spec, "--format", "dense", *out, says="dense-zero")
    refused(USAGE, "export", models / "sd1", "--spec", spec, "--storage", "f64", *out, says="bf16")
    refused(USAGE, "export", models / "sd1", "--spec", spec, "-o", tmp_path / "there", says="--overwrite")
    refused(USAGE, "export", models / "sd1", "--unet", models / "sd1", "--spec", spec, *out, says="model_index.json")
    refused(BAD_INPUT, "export", models / "sdxl", "--spec", spec, *out, says="another base")
    ddpm = write_spec(models / "ddpm", ["mid_block.resnets.0"], "drop", tmp_path / "ddpm.json")
    refused(USAGE, "export", models / "ddpm", "--spec", ddpm, "--format", "single-file", *out, says="no such form")
    ok("export", models / "sd1", "--spec", spec, "-o", tmp_path / "there", "--overwrite")
    assert (tmp_path / "there" / "config.json").exists()


def test_no_input_is_replaced_and_no_copy_holds_itself(models: Path, pipeline: Path, tmp_path: Path) -> None:
    spec = write_spec(models / "sd1", ["mid_block.resnets.0"], "drop", tmp_path / "spec.json")
    model = Path(shutil.copytree(models / "sd1", tmp_path / "runs" / "model"))
    before = (model / "config.json").read_bytes()
    flags = ["--spec", spec, "--overwrite", "-o"]
    refused(USAGE, "export", model, *flags, tmp_path / "runs", says="did not make")
    refused(USAGE, "export", model, *flags, model, says="did not make")
    ok("export", model, *flags, tmp_path / "runs" / "out")
    ok("export", model, *flags, tmp_path / "runs" / "out")  # its own
    shutil.copytree(tmp_path / "runs" / "out", tmp_path / "runs" / "out" / "inner")
    refused(USAGE, "export", tmp_path / "runs" / "out" / "inner", *flags[2:], tmp_path / "runs" / "out", says="would replace")
    assert (model / "config.json").read_bytes() == before
    of_pipeline = write_spec(pipeline / "unet", ["mid_block.resnets.0"], "drop", tmp_path / "p.json")
    refused(USAGE, "export", pipeline, "--spec", of_pipeline, "-o", pipeline / "vae" / "out", says="lies in")


# ---------------------------------------------------------------- whole pipelines


@pytest.fixture(scope="session")
def pipeline(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_models.write_pipeline(tmp_path_factory.mktemp("pipeline") / "sd")


def checksums_hold(folder: Path) -> bool:
    lines = dict(reversed(line.split("  ", 1)) for line in (folder / "SHA256SUMS").read_text().splitlines())
    files = {str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file()} - {"SHA256SUMS"}
    return files == set(lines) and all(
        hashlib.sha256((folder / name).read_bytes()).hexdigest() == digest for name, digest in lines.items()
    )


@pytest.mark.parametrize(
    ("removed", "form", "class_name"),
    [
        (second_layers(4), "native", "UNet2DConditionModel"),
        (["down_blocks.0.resnets.1", "up_blocks.1.resnets.0"], "custom", "PrunedUNet2DConditionModel"),
    ],
)
def test_a_pipeline_comes_out_whole(removed: Removed, form: str, class_name: str, pipeline: Path, tmp_path: Path) -> None:
    spec = write_spec(pipeline / "unet", removed, "drop", tmp_path / "spec.json")
    out = tmp_path / "out"
    assert export(pipeline, spec, "diffusers", out, "--base-model", "some/base")["form"] == form
    index = json.loads((out / "model_index.json").read_text())
    assert index["unet"][1] == class_name
    for part in ("vae", "text_encoder", "tokenizer", "scheduler"):
        for file in (pipeline / part).iterdir():
            assert (out / part / file.name).read_bytes() == file.read_bytes()
    card = ModelCard.load(out / "README.md")
    assert card.data.base_model == "some/base" and card.data.library_name == "diffusers"
    assert all(r.lstrip("-") in card.text for r in removed)
    assert checksums_hold(out)
    assert json.loads((out / "spec.json").read_text()) == json.loads((out / "unet" / "spec.json").read_text())

    loaded = DiffusionPipeline.from_pretrained(out, trust_remote_code=form == "custom", safety_checker=None)
    assert type(loaded.unet).__name__ == class_name
    inputs = {"sample": torch.randn(1, 4, 8, 8), "timestep": torch.tensor([500]), "encoder_hidden_states": torch.randn(1, 5, 16)}
    save_file(inputs, tmp_path / "in.safetensors")
    want = forward(pipeline / "unet", tmp_path / "in.safetensors", tmp_path / "o.safetensors", "--spec", spec)
    assert_close(reference(loaded.unet.eval(), tmp_path / "in.safetensors"), want)
    assert_close(forward(out, tmp_path / "in.safetensors", tmp_path / "o.safetensors"), want)
    (tmp_path / "prompts.txt").write_text("a shoe\n")
    ok("sample", out, "--prompts", tmp_path / "prompts.txt", "--steps", "1", "-o", tmp_path / "images")


def test_a_students_folder_takes_the_place_of_the_pipelines_unet(pipeline: Path, tmp_path: Path) -> None:
    spec = write_spec(pipeline / "unet", second_layers(4), "drop", tmp_path / "spec.json")
    export(pipeline / "unet", spec, "diffusers", tmp_path / "student")
    ok("export", pipeline, "--unet", tmp_path / "student", "-o", tmp_path / "out")
    loaded = DiffusionPipeline.from_pretrained(tmp_path / "out", safety_checker=None)
    assert loaded.unet.config.layers_per_block == 1


@pytest.fixture(scope="session")
def habitual(pipeline: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The pipeline with a U-Net of the settings that readers of single files take for granted."""
    folder = Path(shutil.copytree(pipeline, tmp_path_factory.mktemp("habitual") / "sd"))
    torch.manual_seed(1)
    widths = {"block_out_channels": (32, 32, 64, 64), "attention_head_dim": 8, "norm_num_groups": 32}
    shutil.rmtree(folder / "unet")
    UNet2DConditionModel(**small_models.UNET | widths).save_pretrained(folder / "unet")
    return folder


SINGLE = ["down_blocks.0.resnets.1", "mid_block.attentions.0"]


def test_a_single_file_is_the_pipeline_in_original_names(habitual: Path, tmp_path: Path) -> None:
    """Read back by diffusers' own converter, which knows nothing of us, and by us."""
    spec = write_spec(habitual / "unet", SINGLE, "drop", tmp_path / "spec.json")
    single = tmp_path / "single"
    assert export(habitual, spec, "single-file", single)["form"] == "dense"
    export(habitual, spec, "dense-zero", tmp_path / "dense")
    assert checksums_hold(single)
    loaded = StableDiffusionPipeline.from_single_file(
        single / "model.safetensors", config=str(tmp_path / "dense"), local_files_only=True, safety_checker=None
    )
    for part in ("unet", "vae", "text_encoder"):
        folder = tmp_path / "dense" / part
        stored = load_file(next(folder.glob("*.safetensors")))
        for name, tensor in getattr(loaded, part).state_dict().items():
            assert torch.equal(tensor, stored[name]), name
    assert removals(recovered(single, habitual / "unet")) == removals(json.loads(spec.read_text()))
    inputs = tmp_path / "in.safetensors"
    save_file({"sample": torch.randn(1, 4, 8, 8), "timestep": torch.tensor([500]), "encoder_hidden_states": torch.randn(1, 5, 16)}, inputs)
    want = forward(habitual / "unet", inputs, tmp_path / "o.safetensors", "--spec", spec)
    for model in (single, single / "model.safetensors"):
        assert_close(forward(model, inputs, tmp_path / "o.safetensors"), want)
    # And from one single file to another: what is not the U-Net's comes along.
    shutil.copy(single / "model.safetensors", tmp_path / "full.safetensors")
    ok("export", tmp_path / "full.safetensors", "--format", "single-file", "-o", tmp_path / "again")
    assert set(load_file(tmp_path / "again" / "model.safetensors")) == set(load_file(single / "model.safetensors"))


@pytest.mark.parametrize(
    ("change", "says"),
    [({"attention_head_dim": 4}, "number of heads"), ({"norm_num_groups": 16}, "norm_num_groups"), ({"act_fn": "gelu"}, "act_fn")],
)
def test_a_single_file_that_would_lie_is_refused(change: dict, says: str, habitual: Path, tmp_path: Path) -> None:
    (tmp_path / "unet").mkdir()
    config = json.loads((habitual / "unet" / "config.json").read_text()) | change
    (tmp_path / "unet" / "config.json").write_text(json.dumps(config))
    spec = write_spec(tmp_path / "unet", SINGLE, "drop", tmp_path / "spec.json")
    flags = ["--spec", spec, "--format", "single-file", "-o", tmp_path / "out", "--dry-run"]
    refused(USAGE, "export", tmp_path / "unet", *flags, says=says)


@pytest.mark.parametrize(("widths", "form"), [((320, 640, 1280, 1280), "native"), ((32, 64, 64, 64), "no such form")])
def test_students_that_stable_diffusion_cpp_knows_stay_small(widths: tuple[int, ...], form: str, tmp_path: Path) -> None:
    """Its graph has fixed widths; a student of another width has only the dense form, and this one has none."""
    (tmp_path / "sd").mkdir()
    (tmp_path / "sd" / "config.json").write_text(json.dumps(SD_FULL | {"block_out_channels": widths}))
    ok("solve", tmp_path / "sd", "--preset", "segmind-tiny", "-o", tmp_path / "spec.json")
    flags = ["--spec", tmp_path / "spec.json", "--format", "single-file", "-o", tmp_path / "out", "--dry-run"]
    if form == "native":
        assert ok("export", tmp_path / "sd", *flags, "--json").json["form"] == form
    else:
        refused(USAGE, "export", tmp_path / "sd", *flags, says=form)


def test_variants_become_plain_names(pipeline: Path, tmp_path: Path) -> None:
    """What a pipeline has only as fp16 loads from the export without saying so."""
    source = tmp_path / "fp16"
    DiffusionPipeline.from_pretrained(pipeline, safety_checker=None).to(torch.float16).save_pretrained(source, variant="fp16")
    spec = write_spec(source / "unet", second_layers(4), "drop", tmp_path / "spec.json")
    export(source, spec, "diffusers", tmp_path / "out")
    loaded = DiffusionPipeline.from_pretrained(tmp_path / "out", safety_checker=None)
    assert loaded.vae.dtype == torch.float32  # as without a variant
    assert not list((tmp_path / "out").rglob("*.fp16.*"))


def test_a_student_need_not_have_the_variant_of_its_pipeline(pipeline: Path, tmp_path: Path) -> None:
    source = tmp_path / "fp16"
    DiffusionPipeline.from_pretrained(pipeline, safety_checker=None).to(torch.float16).save_pretrained(source, variant="fp16")
    spec = write_spec(pipeline / "unet", second_layers(4), "drop", tmp_path / "spec.json")
    export(pipeline / "unet", spec, "diffusers", tmp_path / "student")
    ok("export", source, "--unet", tmp_path / "student", "--variant", "fp16", "-o", tmp_path / "out")
    (tmp_path / "prompts.txt").write_text("a\n")
    draw = ["--prompts", tmp_path / "prompts.txt", "--steps", "1"]
    ok("sample", source, "--unet", tmp_path / "student", "--variant", "fp16", *draw, "-o", tmp_path / "images")
    assert (tmp_path / "images" / "000000.png").exists()


def test_a_lora_inside_the_folder_that_is_replaced(models: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    spec = write_spec(models / "sd1", second_layers(4), "drop", tmp_path / "spec.json")
    export(models / "sd1", spec, "diffusers", out)
    save_file({"unet.x.lora_A.weight": torch.zeros(1)}, out / "lora.safetensors")
    command = ["export", models / "sd1", "--spec", spec, "--lora", out / "lora.safetensors", "--overwrite", "-o", out]
    refused(USAGE, *command, says="which it would replace")
    assert (out / "lora.safetensors").exists()


def test_odd_pipelines(pipeline: Path, tmp_path: Path) -> None:
    spec = write_spec(pipeline / "unet", second_layers(4), "drop", tmp_path / "spec.json")
    source = Path(shutil.copytree(pipeline, tmp_path / "source"))
    index = json.loads((source / "model_index.json").read_text())
    index |= {"safety_checker": [None, None], "requires_safety_checker": True, "_ignore_files": ["a", "b"]}
    (source / "model_index.json").write_text(json.dumps(index))
    (source / "vae").chmod(0o555)
    export(source, spec, "diffusers", tmp_path / "out")
    assert (tmp_path / "out" / "vae" / "config.json").exists()
    (source / "vae").chmod(0o755)

    (source / "vae" / "lost").symlink_to("nowhere")
    refused(BAD_INPUT, "export", source, "--spec", spec, "-o", tmp_path / "out2", says="vae/lost")
    (source / "vae" / "lost").unlink()
    for name, says in (("", "not a folder's name"), ("../x", "not a folder's name"), ("unknown", "no such folder")):
        (source / "model_index.json").write_text(json.dumps(index | {name: ["diffusers", "X"]}))
        refused(BAD_INPUT, "export", source, "--spec", spec, "-o", tmp_path / "out2", says=says)
    assert not (tmp_path / "out2").exists()


def test_a_unet_of_another_model_is_not_put_into_a_pipeline(models: Path, pipeline: Path, tmp_path: Path) -> None:
    refused(BAD_INPUT, "export", pipeline, "--unet", models / "sdxl", "-o", tmp_path / "out", says="cross_attention_dim")
    refused(BAD_INPUT, "export", pipeline, "--unet", models / "ddpm", "-o", tmp_path / "out", says="UNet2DModel")


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


def test_lora_is_merged_into_the_text_encoder_of_a_single_file(habitual: Path, tmp_path: Path) -> None:
    module = "text_model.encoder.layers.0.self_attn.q_proj"
    torch.manual_seed(2)
    down, up = torch.randn(2, 16), torch.randn(16, 2)
    save_file(
        {f"text_encoder.{module}.lora_A.weight": down, f"text_encoder.{module}.lora_B.weight": up}, tmp_path / "lora.safetensors"
    )
    for name, flags in (("plain", []), ("lora", ["--lora", tmp_path / "lora.safetensors"])):
        ok("export", habitual, "--format", "single-file", "-o", tmp_path / name, *flags)
    plain, lora = (load_file(tmp_path / name / "model.safetensors") for name in ("plain", "lora"))
    changed = {k for k in plain if not torch.equal(plain[k], lora[k])}
    assert changed == {f"cond_stage_model.transformer.{module}.weight"}
    (key,) = changed
    torch.testing.assert_close(lora[key], plain[key] + up @ down)


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


def test_lora_is_merged_into_an_export(models: Path, tmp_path: Path) -> None:
    spec = write_spec(models / "sd1", ["mid_block.resnets.0"], "drop", tmp_path / "spec.json")
    name = "unet.down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q"
    width = load_file(models / "sd1" / "diffusion_pytorch_model.safetensors")[name.removeprefix("unet.") + ".weight"].shape[0]
    torch.manual_seed(2)
    pair = {f"{name}.lora_A.weight": 0.2 * torch.randn(2, width), f"{name}.lora_B.weight": 0.2 * torch.randn(width, 2)}
    save_file(pair, tmp_path / "lora.safetensors")
    export(models / "sd1", spec, "diffusers", tmp_path / "out", "--lora", tmp_path / "lora.safetensors")
    flags = ["--spec", spec, "--lora", tmp_path / "lora.safetensors"]
    want = forward(models / "sd1", models / "sd1.safetensors", tmp_path / "o.safetensors", *flags)
    assert_close(reference(load(tmp_path / "out", "custom"), models / "sd1.safetensors"), want)
    save_file({f"text_encoder.x.{k}": v for k, v in pair.items()}, tmp_path / "text.safetensors")
    flags = ["--spec", spec, "-o", tmp_path / "out2", "--lora", tmp_path / "text.safetensors"]
    refused(USAGE, "export", models / "sd1", *flags, says="text_encoder")


# ---------------------------------------------------------------- import


def recovered(student: Path, base: Path) -> dict[str, Any]:
    return ok("inspect", student, "--base", base, "--json").json["spec"]


def removals(spec: dict[str, Any]) -> set[tuple[str, str]]:
    return {(r["layer"], r["how"]) for r in spec["removed"]}


NATIVE = [name for name, case in CASES.items() if case[3] == "native"]


@pytest.mark.parametrize("name", NATIVE)
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


SD_FULL = {"_class_name": "UNet2DConditionModel", "sample_size": 64, "cross_attention_dim": 768}
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
