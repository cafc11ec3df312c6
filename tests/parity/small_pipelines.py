"""Pipelines of every family that `sample` draws with, with random weights and as small as their topology allows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import diffusers
import torch
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

START, END, BANG = "<|startoftext|>", "<|endoftext|>", "!"
TOKENS = 12  # of a prompt
LATENT = 8  # side of a latent
PIXELS = 2 * LATENT
CHANNELS = 4
CONTEXT, CONTEXT_2, POOLED = 16, 24, 8  # widths

CROSS = ("CrossAttnDownBlock2D", "DownBlock2D"), ("UpBlock2D", "CrossAttnUpBlock2D")

# By the name that `--scheduler` has.
SCHEDULER_CLASSES = {
    "ddim": diffusers.DDIMScheduler,
    "ddpm": diffusers.DDPMScheduler,
    "pndm": diffusers.PNDMScheduler,
    "dpm++2m": diffusers.DPMSolverMultistepScheduler,
    "euler": diffusers.EulerDiscreteScheduler,
}


def randomize(model: torch.nn.Module, seed: int = 0) -> torch.nn.Module:
    """Weights of a size at which every branch shows in the output, biases and norms included."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            if parameter.dim() >= 2:
                parameter.copy_(noise / parameter[0].numel() ** 0.5)
            else:
                parameter.copy_(0.1 * noise + (1.0 if "norm" in name and name.endswith("weight") else 0.0))
    return model.eval()


def make_tokenizer(folder: Path, pad: str) -> CLIPTokenizer:
    """CLIP's byte symbols and no merges: every text can be written, letter by letter."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    symbols = [chr(b) for b in printable] + [chr(256 + i) for i in range(256 - len(printable))]
    vocabulary = {s: i for i, s in enumerate([*symbols, *(s + "</w>" for s in symbols), START, END])}
    return CLIPTokenizer(
        vocab=vocabulary, merges=[], bos_token=START, eos_token=END, unk_token=END, pad_token=pad, model_max_length=TOKENS
    )


def make_text_encoder(tokenizer: CLIPTokenizer, kind: type, width: int, act: str, seed: int) -> torch.nn.Module:
    config = CLIPTextConfig(
        vocab_size=len(tokenizer), hidden_size=width, intermediate_size=32, num_hidden_layers=3, num_attention_heads=2,
        max_position_embeddings=TOKENS, projection_dim=POOLED, hidden_act=act, bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id,
    )  # fmt: skip
    return randomize(kind(config), seed)


def make_unet(**options: Any) -> diffusers.UNet2DConditionModel:
    settings: dict[str, Any] = {
        "sample_size": LATENT, "in_channels": CHANNELS, "out_channels": CHANNELS, "layers_per_block": 1,
        "block_out_channels": (8, 16), "norm_num_groups": 4, "down_block_types": CROSS[0], "up_block_types": CROSS[1],
        "attention_head_dim": 4, "cross_attention_dim": CONTEXT,
    }  # fmt: skip
    return randomize(diffusers.UNet2DConditionModel(**(settings | options)), 3)


def make_vae(**options: Any) -> diffusers.AutoencoderKL:
    """`sample_size` is half the pictures' side, so that tiling has something to do."""
    vae = diffusers.AutoencoderKL(
        block_out_channels=(8, 16), down_block_types=("DownEncoderBlock2D",) * 2, up_block_types=("UpDecoderBlock2D",) * 2,
        latent_channels=CHANNELS, norm_num_groups=4, sample_size=PIXELS // 2, **options,
    )  # fmt: skip
    randomize(vae, 4)
    with torch.no_grad():
        vae.decoder.conv_out.weight *= 0.4  # pictures that are neither black nor white
    return vae


def stable_diffusion(folder: Path, pad: str, act: str, **unet: Any) -> None:
    tokenizer = make_tokenizer(folder, pad)
    pipeline = diffusers.StableDiffusionPipeline(
        vae=make_vae(),
        text_encoder=make_text_encoder(tokenizer, CLIPTextModel, CONTEXT, act, 1),
        tokenizer=tokenizer,
        unet=make_unet(**unet),
        scheduler=diffusers.DDIMScheduler(clip_sample=False, steps_offset=1),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline.save_pretrained(folder)


def sd1(folder: Path) -> None:
    """Pads with the end token, quick GELU."""
    stable_diffusion(folder, END, "quick_gelu")


def sd2(folder: Path) -> None:
    """Pads with id 0, GELU, linear projections."""
    stable_diffusion(folder, BANG, "gelu", use_linear_projection=True, attention_head_dim=(2, 4))


def guidance_distilled(folder: Path) -> None:
    """A network that is told the guidance."""
    stable_diffusion(folder, END, "quick_gelu", time_cond_proj_dim=9)


def sdxl(folder: Path, zeros: bool = True) -> None:
    first, second = make_tokenizer(folder, END), make_tokenizer(folder, BANG)
    pipeline = diffusers.StableDiffusionXLPipeline(
        vae=make_vae(scaling_factor=0.13025),
        text_encoder=make_text_encoder(first, CLIPTextModel, CONTEXT, "quick_gelu", 1),
        tokenizer=first,
        text_encoder_2=make_text_encoder(second, CLIPTextModelWithProjection, CONTEXT_2, "gelu", 2),
        tokenizer_2=second,
        unet=make_unet(
            cross_attention_dim=CONTEXT + CONTEXT_2,
            use_linear_projection=True,
            addition_embed_type="text_time",
            addition_time_embed_dim=6,
            projection_class_embeddings_input_dim=6 * 6 + POOLED,
        ),
        scheduler=diffusers.EulerDiscreteScheduler(),
        force_zeros_for_empty_prompt=zeros,
        add_watermarker=False,
    )
    pipeline.save_pretrained(folder)


def sdxl_encoding_the_empty_prompt(folder: Path) -> None:
    sdxl(folder, zeros=False)


def pixels(folder: Path, **unet: Any) -> None:
    model = diffusers.UNet2DModel(
        sample_size=LATENT, layers_per_block=1, block_out_channels=(8, 16), norm_num_groups=4,
        down_block_types=("DownBlock2D", "AttnDownBlock2D"), up_block_types=("AttnUpBlock2D", "UpBlock2D"),
        attention_head_dim=4, **unet,
    )  # fmt: skip
    diffusers.DDPMPipeline(unet=randomize(model, 5), scheduler=diffusers.DDPMScheduler()).save_pretrained(folder)
