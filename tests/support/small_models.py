"""A whole small world for the command line: a Stable Diffusion pipeline, data, prompts and scoring models.

Everything has random weights and is as small as its topology allows, so that each verb takes a fraction of a second.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
from safetensors.numpy import save_file
from transformers import CLIPConfig, CLIPModel, CLIPTextConfig, CLIPTextModel, ResNetConfig, ResNetForImageClassification

START, END = "<|startoftext|>", "<|endoftext|>"
TOKENS = 12  # of a prompt
SIDE = 16  # of a picture; the VAE halves it
PICTURES = 24
WORDS = ("red", "blue", "small", "large", "round")
CLASSES = ("shoe", "shirt", "bag")

UNET: dict[str, Any] = {
    "sample_size": 8,
    "block_out_channels": (16, 16, 32, 32),
    "cross_attention_dim": 16,
    "attention_head_dim": 2,
    "norm_num_groups": 8,
}


def write_json(path: Path, value: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value))
    return path


def write_tokenizer(folder: Path) -> int:
    """CLIP's byte symbols and no merges: every text can be written, letter by letter. Returns the vocabulary's size."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    symbols = [chr(b) for b in printable] + [chr(256 + i) for i in range(256 - len(printable))]
    vocabulary = {s: i for i, s in enumerate([*symbols, *(s + "</w>" for s in symbols), START, END])}
    write_json(folder / "vocab.json", vocabulary)
    (folder / "merges.txt").write_text("#version: 0.2\n")
    special = {"bos_token": START, "eos_token": END, "unk_token": END, "pad_token": END}
    write_json(folder / "special_tokens_map.json", special)
    write_json(folder / "tokenizer_config.json", special | {"model_max_length": TOKENS, "tokenizer_class": "CLIPTokenizer"})
    return len(vocabulary)


def text_settings(vocabulary: int) -> dict[str, Any]:
    return {
        "vocab_size": vocabulary,
        "hidden_size": 16,
        "intermediate_size": 32,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "max_position_embeddings": TOKENS,
        "projection_dim": 8,
        "bos_token_id": vocabulary - 2,
        "eos_token_id": vocabulary - 1,
        "pad_token_id": vocabulary - 1,
    }


def write_pipeline(folder: Path) -> Path:
    torch.manual_seed(0)
    vocabulary = write_tokenizer(folder / "tokenizer")
    UNet2DConditionModel(**UNET).save_pretrained(folder / "unet")
    AutoencoderKL(
        block_out_channels=(8, 8),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        latent_channels=4,
        norm_num_groups=4,
        sample_size=SIDE,
    ).save_pretrained(folder / "vae")
    CLIPTextModel(CLIPTextConfig(**text_settings(vocabulary))).save_pretrained(folder / "text_encoder")
    DDIMScheduler(beta_schedule="scaled_linear", clip_sample=False, set_alpha_to_one=False, steps_offset=1).save_pretrained(
        folder / "scheduler"
    )
    index = {
        "_class_name": "StableDiffusionPipeline",
        "unet": ["diffusers", "UNet2DConditionModel"],
        "vae": ["diffusers", "AutoencoderKL"],
        "text_encoder": ["transformers", "CLIPTextModel"],
        "tokenizer": ["transformers", "CLIPTokenizer"],
        "scheduler": ["diffusers", "DDIMScheduler"],
    }
    write_json(folder / "model_index.json", index)
    return folder


def caption(i: int) -> str:
    return f"a {WORDS[i % len(WORDS)]} {CLASSES[i % len(CLASSES)]}"


def rows(count: int) -> str:
    return "".join(json.dumps({"text": caption(i), "label": i % len(CLASSES)}) + "\n" for i in range(count))


def write_data(folder: Path) -> Path:
    folder.mkdir()
    pictures = np.random.default_rng(1).integers(0, 256, (PICTURES, SIDE, SIDE, 1), dtype=np.uint8)
    save_file({"images": pictures}, folder / "images.safetensors")
    (folder / "metadata.jsonl").write_text(rows(PICTURES))
    return folder


def write_preprocessor(folder: Path) -> None:
    size = {"height": SIDE, "width": SIDE}
    settings = {
        "do_resize": True, "size": {"shortest_edge": SIDE}, "resample": 3,
        "do_center_crop": True, "crop_size": size,
        "do_rescale": True, "rescale_factor": 1 / 255,
        "do_normalize": True, "image_mean": [0.5] * 3, "image_std": [0.5] * 3,
        "do_convert_rgb": True, "image_processor_type": "CLIPImageProcessor",
    }  # fmt: skip
    write_json(folder / "preprocessor_config.json", settings)


def write_scoring_models(folder: Path) -> Path:
    for seed, name in enumerate(("clip", "pick")):
        torch.manual_seed(seed)
        vocabulary = write_tokenizer(folder / name)
        vision = {
            "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2,
            "image_size": SIDE, "patch_size": 8, "projection_dim": 8,
        }  # fmt: skip
        config = CLIPConfig(text_config=text_settings(vocabulary), vision_config=vision, projection_dim=8)
        CLIPModel(config).save_pretrained(folder / name)
        write_preprocessor(folder / name)
    config = ResNetConfig(
        embedding_size=8,
        hidden_sizes=[8, 16],
        depths=[1, 1],
        layer_type="basic",
        id2label=dict(enumerate(CLASSES)),
        label2id={name: i for i, name in enumerate(CLASSES)},
    )
    ResNetForImageClassification(config).save_pretrained(folder / "classifier")
    write_preprocessor(folder / "classifier")
    return folder
