"""`export` of U-Nets against diffusers: every form loads there with exactly its own tensors and computes what we compute."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import torch
from diffusers import UNet2DConditionModel
from export_cases import CASES, assert_close, cases, export, forward, load, reference, second_layers, write_spec
from huggingface_hub import ModelCard
from program import BAD_INPUT, NON_FINITE, USAGE, ok, refused
from safetensors.torch import load_file, save_file

pytest_plugins = ("export_models",)


@cases("native", "custom")
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


def test_an_export_of_an_export_names_the_first_base(models: Path, tmp_path: Path) -> None:
    spec = write_spec(models / "sd1", CASES["bk base"][1], "drop", tmp_path / "spec.json")

    def base_of(folder: Path) -> str:
        return ModelCard.load(folder / "README.md").data.base_model

    for name, flags in (("sd1", []), ("some/base", ["--base-model", "some/base"])):
        export(models / "sd1", spec, "diffusers", tmp_path / "first", "--overwrite", *flags)
        ok("export", tmp_path / "first", "--format", "dense-zero", "--overwrite", "-o", tmp_path / "second")
        ok("export", tmp_path / "second", "--storage", "f16", "--overwrite", "-o", tmp_path / "third")
        assert [base_of(tmp_path / n) for n in ("first", "second", "third")] == [name] * 3
    # Another's card names what that model was made from, and the model itself is the base here.
    model = Path(shutil.copytree(models / "sd1", tmp_path / "tuned"))
    (model / "README.md").write_text('---\nbase_model: "not/this"\n---\n')
    export(model, spec, "diffusers", tmp_path / "fourth")
    assert base_of(tmp_path / "fourth") == "tuned"


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


def test_no_file_is_replaced_by_a_folder(models: Path, tmp_path: Path) -> None:
    spec = write_spec(models / "sd1", ["mid_block.resnets.0"], "drop", tmp_path / "spec.json")
    ok("export", models / "sd1", "--format", "dense-zero", "-o", tmp_path / "made")
    checkpoint = tmp_path / "checkpoint.safetensors"
    shutil.copy(tmp_path / "made" / "diffusion_pytorch_model.safetensors", checkpoint)
    (tmp_path / "notes.txt").write_text("mine\n")
    (tmp_path / "link").symlink_to(tmp_path / "notes.txt")
    before = {path: path.read_bytes() for path in (spec, checkpoint, tmp_path / "notes.txt", tmp_path / "link")}
    for path in before:
        refused(USAGE, "export", models / "sd1", "--spec", spec, "--overwrite", "-o", path, says="is a file")
    single = ["--format", "single-file", "--storage", "f16", "--overwrite", "-o", checkpoint]
    refused(USAGE, "export", checkpoint, *single, says="is a file")
    assert {path: path.read_bytes() for path in before} == before


def test_a_lora_inside_the_folder_that_is_replaced(models: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    spec = write_spec(models / "sd1", second_layers(4), "drop", tmp_path / "spec.json")
    export(models / "sd1", spec, "diffusers", out)
    save_file({"unet.x.lora_A.weight": torch.zeros(1)}, out / "lora.safetensors")
    command = ["export", models / "sd1", "--spec", spec, "--lora", out / "lora.safetensors", "--overwrite", "-o", out]
    refused(USAGE, *command, says="which it would replace")
    assert (out / "lora.safetensors").exists()


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
    assert torch.equal(forward(tmp_path / "out", models / "sd1.safetensors", tmp_path / "o.safetensors"), want)
    # Such large weights make this attention sharp: one rounding of each moves the output by up to 3e-6 of its range, and
    # the LoRA itself by 5e-3.
    assert_close(reference(load(tmp_path / "out", "custom"), models / "sd1.safetensors"), want, tolerance=5e-5)
    save_file({f"text_encoder.x.{k}": v for k, v in pair.items()}, tmp_path / "text.safetensors")
    flags = ["--spec", spec, "-o", tmp_path / "out2", "--lora", tmp_path / "text.safetensors"]
    refused(USAGE, "export", models / "sd1", *flags, says="text_encoder")
