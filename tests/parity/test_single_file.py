"""Single-file checkpoints in original names: the same numbers as the diffusers models they were made from.

The files are made by a converter of this test's own, written from the published layout and independent of ours.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch
from diffusers import UNet2DConditionModel
from program import laptopdiff
from safetensors.torch import load_file, save_file
from small_pipelines import randomize
from test_diffusion import SD, SD1_SPECIAL, SD2_SPECIAL, TEXTS, probe, write_old_tokenizer
from test_unet import SMALL_SDXL, assert_close, make_inputs, reference
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

SD1: dict[str, Any] = {
    "sample_size": 16,
    "block_out_channels": (32, 64, 64, 64),
    "cross_attention_dim": 24,
    "attention_head_dim": 8,
}
SD2 = SD1 | {"block_out_channels": (64, 64, 128, 128), "attention_head_dim": (1, 1, 2, 2), "use_linear_projection": True}
XL: dict[str, Any] = SMALL_SDXL | {
    "block_out_channels": (64, 64, 128),
    "attention_head_dim": (1, 1, 2),
    "addition_time_embed_dim": 256,
    "projection_class_embeddings_input_dim": 16 + 6 * 256,
}
UNETS: dict[str, dict[str, Any]] = {
    "SD 1": SD1,
    "SD 2": SD2,
    "SD XL": XL,
    "BK-Small: gaps in the numbering": SD1 | {"layers_per_block": 1, "mid_block_type": None},
    "sd_tiny: attention in up_blocks.0": SD1
    | {
        "block_out_channels": (32, 64, 64),
        "layers_per_block": 1,
        "mid_block_type": None,
        "down_block_types": ("CrossAttnDownBlock2D",) * 3,
        "up_block_types": ("CrossAttnUpBlock2D",) * 3,
    },
    "KOALA": XL | {"layers_per_block": 1, "transformer_layers_per_block": (1, 2, 2)},
    "SSD-1B: one ResNet in the middle, other depths upwards": XL
    | {
        "transformer_layers_per_block": (1, 2, 2),
        "reverse_transformer_layers_per_block": ((2, 2, 4), (2, 1, 1), 1),
        "mid_block_type": "UNetMidBlock2D",
    },
}


# ---------------------------------------------------------------- the test's own converter

RESNET = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}
TOP = {
    "conv_in": "input_blocks.0.0",
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "add_embedding.linear_1": "label_emb.0.0",
    "add_embedding.linear_2": "label_emb.0.2",
    "conv_norm_out": "out.0",
    "conv_out": "out.2",
}


def original_unet(state: dict[str, torch.Tensor], xl: bool) -> dict[str, torch.Tensor]:
    def rename(name: str) -> str:
        for ours, theirs in TOP.items():
            if name.startswith(ours + "."):
                return theirs + name[len(ours) :]
        resnet = re.search(r"resnets\.\d+\.(\w+)", name)
        if resnet:
            name = name.replace(f".{resnet[1]}.", f".{RESNET[resnet[1]]}.")
        name = re.sub(r"^mid_block\.resnets\.0", "middle_block.0", name)
        name = re.sub(r"^mid_block\.attentions\.0", "middle_block.1", name)
        name = re.sub(r"^mid_block\.resnets\.1", "middle_block.2", name)
        slots = {"resnets": 0, "attentions": 1}
        name = re.sub(
            r"^down_blocks\.(\d+)\.(resnets|attentions)\.(\d+)",
            lambda m: f"input_blocks.{3 * int(m[1]) + int(m[3]) + 1}.{slots[m[2]]}",
            name,
        )
        name = re.sub(r"^down_blocks\.(\d+)\.downsamplers\.0\.conv", lambda m: f"input_blocks.{3 * (int(m[1]) + 1)}.0.op", name)
        name = re.sub(
            r"^up_blocks\.(\d+)\.(resnets|attentions)\.(\d+)",
            lambda m: f"output_blocks.{3 * int(m[1]) + int(m[3])}.{slots[m[2]]}",
            name,
        )
        return re.sub(
            r"^up_blocks\.(\d+)\.upsamplers\.0",
            lambda m: f"output_blocks.{3 * int(m[1]) + 2}.{2 if xl or m[1] != '0' else 1}",
            name,
        )

    return {"model.diffusion_model." + rename(k): v.contiguous() for k, v in state.items()}


def original_vae(state: dict[str, torch.Tensor], levels: int) -> dict[str, torch.Tensor]:
    out = {}
    for name, value in state.items():
        if "mid_block.attentions" in name and name.endswith("weight") and "group_norm" not in name:
            value = value[:, :, None, None]
        name = re.sub(r"up_blocks\.(\d+)", lambda m: f"up.{levels - 1 - int(m[1])}", name)
        for ours, theirs in {
            "down_blocks.": "down.",
            "mid_block.attentions.0": "mid.attn_1",
            "mid_block.resnets.0": "mid.block_1",
            "mid_block.resnets.1": "mid.block_2",
            ".resnets.": ".block.",
            "downsamplers.0": "downsample",
            "upsamplers.0": "upsample",
            "conv_shortcut": "nin_shortcut",
            "conv_norm_out": "norm_out",
            "group_norm": "norm",
            "to_out.0": "proj_out",
            "to_q": "q",
            "to_k": "k",
            "to_v": "v",
        }.items():
            name = name.replace(ours, theirs)
        out["first_stage_model." + name] = value.contiguous()
    return out


def hugging_face_text(model: torch.nn.Module, prefix: str) -> dict[str, torch.Tensor]:
    state = {k.removeprefix("text_model."): v for k, v in model.state_dict().items()}
    return {f"{prefix}text_model.{k}": v.contiguous() for k, v in state.items()}


def open_clip_text(model: torch.nn.Module, prefix: str) -> dict[str, torch.Tensor]:
    state = {k.removeprefix("text_model."): v for k, v in model.state_dict().items()}
    out: dict[str, torch.Tensor] = {
        "token_embedding.weight": state["embeddings.token_embedding.weight"],
        "positional_embedding": state["embeddings.position_embedding.weight"],
        "ln_final.weight": state["final_layer_norm.weight"],
        "ln_final.bias": state["final_layer_norm.bias"],
        "logit_scale": torch.tensor(4.6),
    }
    if "text_projection.weight" in state:
        out["text_projection"] = state["text_projection.weight"].T
    for i in range(model.config.num_hidden_layers):
        ours, theirs = f"encoder.layers.{i}.", f"transformer.resblocks.{i}."
        for kind in ("weight", "bias"):
            fused = [state[f"{ours}self_attn.{p}_proj.{kind}"] for p in "qkv"]
            out[f"{theirs}attn.in_proj_{kind}"] = torch.cat(fused)
            for a, b in {
                "self_attn.out_proj": "attn.out_proj",
                "layer_norm1": "ln_1",
                "layer_norm2": "ln_2",
                "mlp.fc1": "mlp.c_fc",
                "mlp.fc2": "mlp.c_proj",
            }.items():
                out[f"{theirs}{b}.{kind}"] = state[f"{ours}{a}.{kind}"]
    return {prefix + k: v.contiguous() for k, v in out.items()}


# ---------------------------------------------------------------- U-Net


def make(name: str) -> tuple[UNet2DConditionModel, dict[str, torch.Tensor]]:
    model = randomize(UNet2DConditionModel(**UNETS[name]))
    return model, original_unet(model.state_dict(), "add_embedding.linear_1.weight" in model.state_dict())


def run(file: Path, inputs: dict[str, torch.Tensor], *flags: str | Path) -> torch.Tensor:
    save_file({k: v.contiguous() for k, v in inputs.items()}, file.parent / "in.safetensors")
    out = file.parent / "out.safetensors"
    done = laptopdiff("forward", file, "--inputs", file.parent / "in.safetensors", "-o", out, "--overwrite", *flags)
    assert done.code == 0, done.err
    return load_file(out)["sample"]


@pytest.mark.parametrize("name", UNETS)
def test_forward_is_that_of_diffusers(name: str, tmp_path: Path) -> None:
    model, tensors = make(name)
    file = tmp_path / "model.safetensors"
    # What else such files hold must not matter.
    save_file(tensors | {"alphas_cumprod": torch.ones(3), "model_ema.decay": torch.ones(1)}, file)
    inputs = make_inputs(model)
    assert_close(run(file, inputs), reference(model, inputs))
    done = laptopdiff("inspect", file, "--json")
    assert json.loads(done.out)["params"] == model.num_parameters()


def test_a_unet_alone_needs_no_prefix(tmp_path: Path) -> None:
    model, tensors = make("SD 1")
    file = tmp_path / "model.safetensors"
    save_file({k.removeprefix("model.diffusion_model."): v for k, v in tensors.items()}, file)
    inputs = make_inputs(model)
    assert_close(run(file, inputs), reference(model, inputs))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float8_e4m3fn, torch.float8_e5m2])
def test_storage_types_hold_the_numbers_they_round_to(dtype: torch.dtype, tmp_path: Path) -> None:
    model, _ = make("SD 1")
    rounded = {k: v.to(dtype) for k, v in model.state_dict().items()}
    model.load_state_dict({k: v.float() for k, v in rounded.items()})
    file = tmp_path / "model.safetensors"
    save_file(original_unet(rounded, xl=False), file)
    inputs = make_inputs(model)
    assert_close(run(file, inputs), reference(model, inputs))


def failure(file: Path) -> str:
    done = laptopdiff("inspect", file)
    assert done.code == 3, done.out
    return done.err


def test_a_file_that_does_not_fit_says_all_that_is_wrong(tmp_path: Path) -> None:
    _, tensors = make("SD 1")
    file = tmp_path / "model.safetensors"
    first, second = "model.diffusion_model.input_blocks.1.0.in_layers.0.bias", "model.diffusion_model.middle_block.1.norm.bias"
    save_file({k: v for k, v in tensors.items() if k not in (first, second)}, file)
    said = failure(file)
    assert "down_blocks.0.resnets.0.norm1.bias" in said and "mid_block.attentions.0.norm.bias" in said
    save_file(tensors | {"model.diffusion_model.input_blocks.1.2.x": torch.ones(1)}, file)
    assert "input_blocks.1.2.x" in failure(file)


def test_other_files_are_refused_with_the_way_out(tmp_path: Path) -> None:
    model, _ = make("SD 1")
    file = tmp_path / "diffusion_pytorch_model.safetensors"
    save_file(model.state_dict(), file)
    assert "give the folder" in failure(file)
    pickled = tmp_path / "model.ckpt"
    torch.save({}, pickled)
    assert "pickled" in failure(pickled)


def test_a_unet_alone_stays_alone_in_an_export(tmp_path: Path) -> None:
    """Without the prefix of a whole checkpoint there are no other parts to carry over, the removed layers least of all."""
    _, tensors = make("SD 1")
    bare = {name.removeprefix("model.diffusion_model."): tensor for name, tensor in tensors.items()}
    save_file(bare, tmp_path / "bare.safetensors")
    preset = ["--preset", "bk-sdm-base", "-o", tmp_path / "spec.json"]
    assert laptopdiff("solve", tmp_path / "bare.safetensors", *preset).code == 0
    command = ["export", tmp_path / "bare.safetensors", "--spec", tmp_path / "spec.json", "--format", "single-file"]
    done = laptopdiff(*command, "-o", tmp_path / "out")
    assert done.code == 0, done.err
    written = load_file(tmp_path / "out" / "model.safetensors")
    assert {name.removeprefix("model.diffusion_model.") for name in written} == bare.keys()
    assert len(written) == len(bare)


# ---------------------------------------------------------------- variants


def test_a_variant_is_found_where_it_is_the_only_one(tmp_path: Path) -> None:
    model, _ = make("SD 1")
    folder = tmp_path / "unet"
    inputs = make_inputs(model)
    model.half().save_pretrained(folder, variant="fp16", max_shard_size="1MB")  # an index and shards
    assert len(list(folder.glob("*fp16-0000*"))) > 1
    halved = model.float()
    assert_close(run(folder, inputs), reference(halved, inputs))
    for other in ("bf16", "fp8"):
        save_file(model.state_dict(), folder / f"diffusion_pytorch_model.{other}.safetensors")
    said = laptopdiff("forward", folder, "--inputs", tmp_path / "in.safetensors", "-o", tmp_path / "o.safetensors").err
    assert "bf16, fp16, fp8" in said and "--variant" in said
    assert_close(run(folder, inputs, "--variant", "fp16"), reference(halved, inputs))
    done = laptopdiff("forward", folder, "--inputs", tmp_path / "in.safetensors", "-o", tmp_path / "o.safetensors", "--variant", "fp17")
    assert done.code == 3 and "fp16" in done.err


# ---------------------------------------------------------------- whole pipelines


def text_config(tokenizer: CLIPTokenizer, act: str, layers: int = 3) -> CLIPTextConfig:
    return CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=layers,
        num_attention_heads=1,
        max_position_embeddings=77,
        projection_dim=16,
        hidden_act=act,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )


def small_vae() -> diffusers.AutoencoderKL:
    widths = (32, 64, 64)  # multiples of the 32 groups that all these models have
    return randomize(
        diffusers.AutoencoderKL(
            block_out_channels=widths,
            down_block_types=("DownEncoderBlock2D",) * 3,
            up_block_types=("UpDecoderBlock2D",) * 3,
            layers_per_block=2,
            latent_channels=4,
        )
    )


def check_export(folder: Path, tensors: dict[str, torch.Tensor]) -> None:
    """The pipeline's folder as a single file is the file that was written here, name by name."""
    done = laptopdiff("export", folder / "p", "--format", "single-file", "-o", folder / "x")
    assert done.code == 0, done.err
    written = load_file(folder / "x" / "model.safetensors")
    # SD 2's last layer and projection are not in the folder: the layer comes as zeros, which do nothing. Nor is what
    # OpenCLIP keeps of its training.
    unused = {k for k in tensors if k.startswith("cond_stage_model.model.transformer.resblocks.3.")}
    absent = {k for k in tensors if k == "cond_stage_model.model.text_projection" or k.endswith("logit_scale")}
    assert set(tensors) - absent == set(written)
    for name, tensor in written.items():
        assert torch.equal(tensor, torch.zeros_like(tensor) if name in unused else tensors[name]), name


def check_pipeline(folder: Path, pipeline: Any, tensors: dict[str, torch.Tensor]) -> None:
    """Contexts of the texts, and a picture, as diffusers' own components make them."""
    vae = pipeline.vae
    tensors |= original_vae(vae.state_dict(), len(vae.config.block_out_channels))
    pipeline.save_pretrained(folder / "p")
    check_export(folder, tensors)
    file = folder / "p" / "model.safetensors"  # beside tokenizer/ and scheduler/
    save_file(tensors, file)
    start = torch.randn((2, 4, 6, 8), generator=torch.Generator().manual_seed(5))
    jobs = [dict(op="prompts", folder=str(file), texts=TEXTS, name="p")]
    is_xl = hasattr(pipeline, "text_encoder_2")
    if not is_xl:
        jobs.append(dict(op="guided", folder=str(file), texts=TEXTS[:2], name="g", start="start", batch=2, steps=2, guidance=1.0))
    results, out = probe(folder, jobs, {"start": start})
    assert results[0]["xl"] == is_xl
    with torch.no_grad():
        encoded = pipeline.encode_prompt(TEXTS, device="cpu", num_images_per_prompt=1, do_classifier_free_guidance=True)
        assert_close(out["p.context"], encoded[0])
        if is_xl:
            assert_close(out["p.pooled"], encoded[2])
            return
        decoded = vae.decode(out["g.samples"] / vae.config.scaling_factor).sample
    images = (decoded / 2 + 0.5).clamp(0, 1).mul(255).round().permute(0, 2, 3, 1)
    assert float((out["g.images"].float() - images).abs().max()) <= 1


@pytest.mark.parametrize("family", ["SD 1", "SD 2"])
def test_text_and_vae_are_those_of_diffusers(family: str, tmp_path: Path) -> None:
    special, act = (SD1_SPECIAL, "quick_gelu") if family == "SD 1" else (SD2_SPECIAL, "gelu")
    tokenizer = CLIPTokenizer.from_pretrained(write_old_tokenizer(tmp_path / "t", special))
    text = randomize(CLIPTextModel(text_config(tokenizer, act)))
    unet, tensors = make(family)
    if family == "SD 1":
        tensors |= hugging_face_text(text, "cond_stage_model.transformer.")
    else:  # the file has one layer more, which diffusers' encoder leaves out
        full = randomize(CLIPTextModel(text_config(tokenizer, act, layers=4)), 7)
        full.load_state_dict(text.state_dict(), strict=False)
        tensors |= open_clip_text(full, "cond_stage_model.model.") | {"cond_stage_model.model.text_projection": torch.ones(64, 64)}
    pipeline = diffusers.StableDiffusionPipeline(
        vae=small_vae(),
        text_encoder=text,
        tokenizer=tokenizer,
        unet=unet,
        scheduler=diffusers.DDIMScheduler(**SD, clip_sample=False, steps_offset=1),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    check_pipeline(tmp_path, pipeline, tensors)


def test_both_text_encoders_of_sdxl_are_those_of_diffusers(tmp_path: Path) -> None:
    first = CLIPTokenizer.from_pretrained(write_old_tokenizer(tmp_path / "t1", SD1_SPECIAL))
    second = CLIPTokenizer.from_pretrained(write_old_tokenizer(tmp_path / "t2", SD2_SPECIAL))
    text = randomize(CLIPTextModel(text_config(first, "quick_gelu")))
    text_2 = randomize(CLIPTextModelWithProjection(text_config(second, "gelu")), 1)
    unet, tensors = make("SD XL")
    tensors |= hugging_face_text(text, "conditioner.embedders.0.transformer.") | open_clip_text(text_2, "conditioner.embedders.1.model.")
    pipeline = diffusers.StableDiffusionXLPipeline(
        vae=small_vae(),
        text_encoder=text,
        tokenizer=first,
        text_encoder_2=text_2,
        tokenizer_2=second,
        unet=unet,
        scheduler=diffusers.EulerDiscreteScheduler(**SD),
        add_watermarker=False,
    )
    check_pipeline(tmp_path, pipeline, tensors)


def test_a_single_file_pipeline_says_what_it_lacks(tmp_path: Path) -> None:
    _, tensors = make("SD 1")
    file = tmp_path / "model.safetensors"
    save_file(tensors | {"cond_stage_model.transformer.text_model.final_layer_norm.bias": torch.ones(64)}, file)
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("a cat\n")
    done = laptopdiff("sample", file, "--prompts", prompts, "-o", tmp_path / "out")
    assert done.code == 3
    assert "no tokenizer/ and no scheduler/" in done.err and "--pipeline-config" in done.err
