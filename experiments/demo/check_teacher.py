"""Looks at a trained teacher the way a user would: loads the folders with diffusers and transformers, on the CPU.

Prints parameter counts, sizes, the denoising loss by quarter of the schedule, how often the classifier sees the
class that the prompt names, and CLIP and PickScore means of generated against real pictures. Every number is also
given for the real pictures of the same captions where that makes sense: it is the ceiling.

    python experiments/demo/check_teacher.py --data DIR --teacher DIR --judges DIR -o grid.png
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import StableDiffusionPipeline
from torch import Tensor
from transformers import CLIPModel, CLIPTextModel, CLIPTokenizer, ResNetForImageClassification

from data import CLASS_NAMES, load_split
from train_metrics import embed_images, embed_texts, logit_scale, normalize
from train_teacher import class_prompts, denoising_loss, latent_moments, sample, tokenize, write_grid
from training import parameter_count


def load_strictly(model_class: Any, folder: Path) -> Any:
    """Loads a transformers model, and complains where the names in the file are not the published ones."""
    model, info = model_class.from_pretrained(folder, dtype=torch.float32, output_loading_info=True)
    if info["missing_keys"] or info["unexpected_keys"]:
        raise SystemExit(f"{folder}: missing {info['missing_keys']}, unexpected {info['unexpected_keys']}")
    return model.eval()


def real_pictures(data: Path, prompts: list[str]) -> np.ndarray:
    """Returns one test picture for each caption, U8 [N, 32, 32, 3]; a caption asked for twice gets two pictures."""
    images, rows = load_split(data, "test")
    rows_of: dict[str, list[int]] = {}
    for i, row in enumerate(rows):
        rows_of.setdefault(row["text"], []).append(i)
    taken = [rows_of[text][prompts[:i].count(text) % len(rows_of[text])] for i, text in enumerate(prompts)]
    return images[taken].repeat(3, axis=-1)


def to_gray(images: np.ndarray) -> Tensor:
    """U8 [N, 32, 32, 3] to what the judges take: [N, 1, 32, 32] in [0, 1]."""
    return torch.from_numpy(images).float().mean(-1)[:, None] / 255


@torch.inference_mode()
def judge(judges: Path, images: np.ndarray, prompts: list[str], labels: list[int]) -> dict[str, Any]:
    pictures = to_gray(images)
    classifier = load_strictly(ResNetForImageClassification, judges / "classifier")
    right = (classifier(normalize(pictures)).logits.argmax(-1) == torch.tensor(labels)).float()
    by_class = {CLASS_NAMES[c]: right[torch.tensor(labels) == c].mean().item() for c in sorted(set(labels))}
    result: dict[str, Any] = {"prompt_accuracy": right.mean().item(), "prompt_accuracy_by_class": by_class}
    for name in ("clip", "pick"):
        model = load_strictly(CLIPModel, judges / name)
        ids = tokenize(CLIPTokenizer.from_pretrained(judges / name), prompts)
        cosine = (embed_images(model, pictures) * embed_texts(model, ids)).sum(-1).mean()
        result[f"{name}_score"] = (cosine if name == "clip" else logit_scale(model) * cosine).item()
    return result


@torch.no_grad()
def validation_loss(pipeline: StableDiffusionPipeline, data: Path, count: int) -> dict[str, Any]:
    images, rows = load_split(data, "val")
    latents = latent_moments(pipeline.vae, torch.from_numpy(images[:count]))[0] * pipeline.vae.config.scaling_factor
    ids = tokenize(pipeline.tokenizer, [row["text"] for row in rows[:count]])
    contexts = pipeline.text_encoder(ids).last_hidden_state
    return denoising_loss(pipeline.unet, latents, contexts, pipeline.scheduler, batch=64)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, metavar="DIR", help="folder written by data.py")
    parser.add_argument("--teacher", type=Path, required=True, metavar="DIR", help="written by train_teacher.py")
    parser.add_argument("--judges", type=Path, metavar="DIR", help="written by train_metrics.py; omit to skip them")
    parser.add_argument("--per-class", type=int, default=8, metavar="N", help="pictures a class (default %(default)s)")
    parser.add_argument("--steps", type=int, default=25, help="of DDIM (default %(default)s)")
    parser.add_argument("--guidance", type=float, default=3.0, help="(default %(default)s)")
    parser.add_argument("--val", type=int, default=256, metavar="N", help="validation rows (default %(default)s)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="PNG", help="grid: generated, then real")
    args = parser.parse_args()

    load_strictly(CLIPTextModel, args.teacher / "text_encoder")
    pipeline = StableDiffusionPipeline.from_pretrained(args.teacher, safety_checker=None, dtype=torch.float32)
    parts = {name: getattr(pipeline, name) for name in ("unet", "text_encoder", "vae")}
    report: dict[str, Any] = {
        "parameters": {name: parameter_count(module) for name, module in parts.items()},
        "mebibytes": {
            str(path.parent.name): round(path.stat().st_size / 2**20, 2)
            for folder in filter(None, (args.teacher, args.judges))
            for path in sorted(folder.rglob("*.safetensors"))
        },
        "validation": validation_loss(pipeline, args.data, args.val),
    }
    prompts = class_prompts(args.data, args.per_class)
    labels = [c for c in range(len(CLASS_NAMES)) for _ in range(args.per_class)]
    generated = sample(pipeline, prompts, args.steps, args.guidance, args.seed)
    real = real_pictures(args.data, prompts)
    if args.judges:
        report["generated"] = judge(args.judges, generated, prompts, labels)
        report["real"] = judge(args.judges, real, prompts, labels)
    write_grid(args.output, np.concatenate((generated, real)), args.per_class)
    print(json.dumps(report, indent=2))


if __name__ == "__main__":
    main()
