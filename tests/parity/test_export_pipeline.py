"""`export` of whole pipelines and single files, as diffusers reads them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from diffusers import DiffusionPipeline, StableDiffusionPipeline, UNet2DConditionModel, UNet2DModel
from export_cases import Removed, SD_FULL, assert_close, checksums_hold, export, forward, load, recovered, reference, removals, second_layers, write_spec
from huggingface_hub import ModelCard
from program import BAD_INPUT, USAGE, ok, refused
from safetensors.torch import load_file, save_file

pytest_plugins = ("export_models",)


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
    # Saved again by diffusers it still loads, there and here.
    loaded.save_pretrained(tmp_path / "saved")
    again = DiffusionPipeline.from_pretrained(tmp_path / "saved", trust_remote_code=form == "custom", safety_checker=None)
    for unet in (again.unet, load(tmp_path / "saved" / "unet", form)):
        assert_close(reference(unet.eval(), tmp_path / "in.safetensors"), want)
    assert_close(forward(tmp_path / "saved", tmp_path / "in.safetensors", tmp_path / "o.safetensors"), want)
    (tmp_path / "prompts.txt").write_text("a shoe\n")
    ok("sample", out, "--prompts", tmp_path / "prompts.txt", "--steps", "1", "-o", tmp_path / "images")


def test_a_students_folder_takes_the_place_of_the_pipelines_unet(pipeline: Path, tmp_path: Path) -> None:
    spec = write_spec(pipeline / "unet", second_layers(4), "drop", tmp_path / "spec.json")
    export(pipeline / "unet", spec, "diffusers", tmp_path / "student")
    ok("export", pipeline, "--unet", tmp_path / "student", "-o", tmp_path / "out")
    loaded = DiffusionPipeline.from_pretrained(tmp_path / "out", safety_checker=None)
    assert loaded.unet.config.layers_per_block == 1


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
    names = set(load_file(single / "model.safetensors"))
    assert set(load_file(tmp_path / "again" / "model.safetensors")) == names
    # The folder of a single file is that file.
    ok("export", single, "--format", "single-file", "--storage", "f16", "-o", tmp_path / "half")
    assert set(load_file(tmp_path / "half" / "model.safetensors")) == names
    (tmp_path / "prompts.txt").write_text("a\n")
    draw = ["--prompts", tmp_path / "prompts.txt", "-o", tmp_path / "images"]
    refused(BAD_INPUT, "sample", single, *draw, says=[f"give {single / 'model.safetensors'}", "--pipeline-config"])


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


def test_a_single_file_of_parts_that_do_not_fit_their_configs_is_refused(habitual: Path, tmp_path: Path) -> None:
    text, vae = "text_encoder/model.safetensors", "vae/diffusion_pytorch_model.safetensors"

    def refuses(file: str, change: Callable[[dict[str, torch.Tensor]], None], *says: str) -> None:
        source = Path(shutil.copytree(habitual, tmp_path / "source"))
        tensors = load_file(source / file)
        change(tensors)
        save_file(tensors, source / file)
        command = ["export", source, "--format", "single-file", "-o", tmp_path / "out"]
        refused(BAD_INPUT, *command, says=[str(Path(file).parent), *says])
        assert not (tmp_path / "out").exists()
        shutil.rmtree(source)

    def swap(tensors: dict[str, torch.Tensor]) -> None:
        name = next(n for n in tensors if n.endswith("layers.0.mlp.fc1.bias"))
        tensors["stranger"] = tensors.pop(name)
        tensors.pop(next(n for n in tensors if n.endswith("final_layer_norm.weight")))

    def double(tensors: dict[str, torch.Tensor]) -> None:
        name = next(n for n in tensors if n.endswith("final_layer_norm.weight"))
        plain = name.removeprefix("text_model.")
        tensors |= {plain: tensors[name] + 1, "text_model." + plain: tensors[name] + 2}

    def cut(tensors: dict[str, torch.Tensor]) -> None:
        tensors["encoder.conv_in.bias"] = tensors["encoder.conv_in.bias"][:-1].clone()
        tensors.pop("decoder.conv_out.bias")

    refuses(text, swap, "layers.0.mlp.fc1.bias", "final_layer_norm.weight", "stranger")
    refuses(text, double, "which are one tensor")
    refuses(vae, cut, "encoder.conv_in.bias is", "decoder.conv_out.bias")


def test_broken_components_are_not_copied(pipeline: Path, tmp_path: Path) -> None:
    spec = write_spec(pipeline / "unet", second_layers(4), "drop", tmp_path / "spec.json")

    def refuses(source: Path, *says: str) -> None:
        refused(BAD_INPUT, "export", source, "--spec", spec, "-o", tmp_path / "out", says=list(says))
        shutil.rmtree(source)

    def copy() -> Path:
        return Path(shutil.copytree(pipeline, tmp_path / "source"))

    weights, config = "vae/diffusion_pytorch_model.safetensors", "vae/config.json"
    (copy() / weights).write_bytes((pipeline / weights).read_bytes()[:1000])
    refuses(tmp_path / "source", weights)
    (copy() / weights).unlink()
    refuses(tmp_path / "source", "vae: has a config.json but no weights")
    (copy() / config).write_text('{"a": 1, "a": 2}')
    refuses(tmp_path / "source", config, "`a`")
    (copy() / config).write_text("[]")
    refuses(tmp_path / "source", config, "must be an object")
    (copy() / "vae" / "root").symlink_to(tmp_path)
    refuses(tmp_path / "source", "vae/root", "is a link to a folder")
    index = json.loads((pipeline / "model_index.json").read_text())
    for name, entry, says in (
        ("vae", ["diffusers"], "`vae`: expected [library, class]"),
        ("vae", "AutoencoderKL", "`vae`: expected [library, class]"),
        ("vae", [None, "AutoencoderKL"], "`vae`: expected [library, class]"),
        ("other", [], "`other`: expected [library, class]"),
        ("README.md", ["diffusers", "X"], "no component may have it"),
        ("SHA256SUMS", ["diffusers", "X"], "no component may have it"),
    ):
        (copy() / "model_index.json").write_text(json.dumps(index | {name: entry}))
        refuses(tmp_path / "source", "model_index.json", says)
    assert not (tmp_path / "out").exists()
    # A download cache has every file as a link.
    for file in [p for p in copy().rglob("*") if p.is_file()]:
        blob = tmp_path / "blobs" / str(file.relative_to(tmp_path)).replace("/", "-")
        blob.parent.mkdir(exist_ok=True)
        file.rename(blob)
        file.symlink_to(blob)
    export(tmp_path / "source", spec, "diffusers", tmp_path / "out")
    assert (tmp_path / "out" / weights).read_bytes() == (pipeline / weights).read_bytes()


def test_a_unet_of_another_model_is_not_put_into_a_pipeline(models: Path, pipeline: Path, tmp_path: Path) -> None:
    refused(BAD_INPUT, "export", pipeline, "--unet", models / "sdxl", "-o", tmp_path / "out", says="cross_attention_dim")
    refused(BAD_INPUT, "export", pipeline, "--unet", models / "ddpm", "-o", tmp_path / "out", says="UNet2DModel")


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
