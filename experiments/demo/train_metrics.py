"""Trains the demo's judges, apart from the pipeline they judge: CLIP, PickScore and a classifier.

clip/        CLIP on pictures and captions; rows with the same caption count as one another's positives.
pick/        the same network, fine-tuned from clip/ on pairs (prompt, better picture, worse picture) by PickScore's
             loss, the cross-entropy over the softmax of exp(logit_scale) * cosine. degrade.py makes the pairs.
classifier/  a small ResNet: its pooled 128 features stand in for Inception's, its labels tell prompt accuracy.

    python experiments/demo/train_metrics.py --data DIR -o DIR --minutes 2.5

While training, the state lies in DIR.state and a second run picks it up; DIR appears when everything is done.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import shutil
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import CLIPConfig, CLIPModel, CLIPTokenizer, ResNetConfig, ResNetForImageClassification

from data import ATTRIBUTE_WORDS, CLASS_NAMES, SIDE, load_split, to_json
from degrade import DEGRADATIONS, LEVELS, shift
from tokenizer import build_tokenizer
from training import Stage, add_training_flags, autocast, prepare_device, stage_options, train_output, write_summary

MEAN, STD = 0.5, 0.5
MAX_LOGIT_SCALE = math.log(100)
# Shares of --minutes.
SHARES = {"clip": 0.4, "pick": 0.25, "classifier": 0.35}
PAIR_KINDS = (*DEGRADATIONS, "attribute", "class")
EVALUATION_BATCH = 1000


class Split:
    """One split on the device: pictures, labels, and captions by their number in a shared table."""

    def __init__(self, args: argparse.Namespace, name: str, captions: dict[str, int], device: torch.device) -> None:
        images, rows = load_split(args.data, name)
        rows = rows[: args.limit]
        self.images = torch.from_numpy(images[: args.limit]).to(device)  # U8 [N, 32, 32, 1]
        self.labels = torch.tensor([row["label"] for row in rows], device=device)
        self.captions = torch.tensor([captions[row["text"]] for row in rows], device=device)
        # Rows of each class, repeated to one length, so that drawing a row of a class is one lookup.
        by_class = [torch.nonzero(self.labels == c).flatten() for c in range(len(CLASS_NAMES))]
        longest = max(map(len, by_class))
        self.rows_of_class = torch.stack([rows.repeat(-(-longest // len(rows)))[:longest] for rows in by_class])

    def __len__(self) -> int:
        return len(self.labels)

    def pictures(self, rows: Tensor) -> Tensor:
        """Returns [B, 1, 32, 32] in [0, 1]."""
        return self.images[rows].permute(0, 3, 1, 2).float() / 255


class Captions:
    """All different captions of the data set, numbered, with their token ids and what they say."""

    def __init__(self, data: Path, tokenizer: CLIPTokenizer, device: torch.device) -> None:
        rows = {row["text"]: row for split in ("train", "val", "test") for row in load_split(data, split)[1]}
        texts = sorted(rows)
        self.number = {text: i for i, text in enumerate(texts)}
        ids = tokenizer(texts, padding="max_length", max_length=77, truncation=True, return_tensors="pt").input_ids
        self.ids = ids.to(device)
        self.vocabulary = len(tokenizer)
        self.labels = torch.tensor([rows[text]["label"] for text in texts], device=device)
        self.attributes = {
            name: torch.tensor([rows[text]["attributes"][name] for text in texts], device=device)
            for name in ATTRIBUTE_WORDS
        }


def draw(count: int, batch: int, generator: torch.Generator) -> Tensor:
    return torch.randint(count, (batch,), generator=generator, device=generator.device)


def normalize(images: Tensor) -> Tensor:
    """[B, 1, 32, 32] in [0, 1] to the three equal channels that the encoders take."""
    return ((images - MEAN) / STD).expand(-1, 3, -1, -1)


def augment(images: Tensor, generator: torch.Generator) -> Tensor:
    moved = shift(images, 2, generator)
    return (moved + 0.03 * torch.randn(moved.shape, generator=generator, device=moved.device)).clamp(0, 1)


def make_clip(vocabulary: int) -> CLIPModel:
    common = {"num_attention_heads": 4, "hidden_act": "quick_gelu", "projection_dim": 64}
    text = common | {
        "vocab_size": vocabulary,
        "hidden_size": 96,
        "intermediate_size": 384,
        "num_hidden_layers": 2,
        "max_position_embeddings": 77,
        "bos_token_id": vocabulary - 2,
        "eos_token_id": vocabulary - 1,
        "pad_token_id": vocabulary - 1,
    }
    vision = common | {
        "hidden_size": 96,
        "intermediate_size": 384,
        "num_hidden_layers": 3,
        "image_size": SIDE,
        "patch_size": 4,
    }
    return CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=64))


def make_classifier() -> ResNetForImageClassification:
    names = dict(enumerate(CLASS_NAMES))
    return ResNetForImageClassification(
        ResNetConfig(
            num_channels=3,
            embedding_size=32,
            hidden_sizes=[32, 64, 128],
            depths=[2, 2, 2],
            layer_type="basic",
            hidden_act="relu",
            downsample_in_first_stage=False,
            id2label=names,
            label2id={name: i for i, name in names.items()},
        )
    )


def embed_images(model: CLIPModel, images: Tensor) -> Tensor:
    pooled = model.vision_model(pixel_values=normalize(images)).pooler_output
    return F.normalize(model.visual_projection(pooled).float(), dim=-1)


def embed_texts(model: CLIPModel, ids: Tensor) -> Tensor:
    pooled = model.text_model(input_ids=ids).pooler_output
    return F.normalize(model.text_projection(pooled).float(), dim=-1)


def logit_scale(model: CLIPModel) -> Tensor:
    return model.logit_scale.float().clamp(max=MAX_LOGIT_SCALE).exp()


def soft_cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    return -(targets * F.log_softmax(logits, dim=-1)).sum(-1).mean()


def train_clip(
    args: argparse.Namespace, train: Split, val: Split, captions: Captions, device: torch.device, state: Path
) -> tuple[CLIPModel, dict[str, Any]]:
    def loss(modules: nn.ModuleDict, generator: torch.Generator) -> Tensor:
        model = modules["clip"]
        rows = draw(len(train), args.batch, generator)
        said = train.captions[rows]
        images = embed_images(model, augment(train.pictures(rows), generator))
        texts = embed_texts(model, captions.ids[said])
        logits = logit_scale(model) * images @ texts.T
        same = (said[:, None] == said[None, :]).float()
        targets = same / same.sum(-1, keepdim=True)
        return 0.5 * (soft_cross_entropy(logits, targets) + soft_cross_entropy(logits.T, targets))

    def evaluate(modules: nn.ModuleDict) -> dict[str, Any]:
        return retrieval_accuracy(modules["clip"], val, captions, device)

    options = stage_options(args, "clip", learning_rate=1e-3, steps=args.steps, minutes=part(args, "clip"))
    stage = Stage(options, {"clip": make_clip(captions.vocabulary)}, loss, evaluate, device, args.seed, state)
    summary = stage.run()
    return stage.ema["clip"], summary


@torch.no_grad()
def retrieval_accuracy(model: CLIPModel, split: Split, captions: Captions, device: torch.device) -> dict[str, Any]:
    """Finds the nearest of all captions for each picture; how often does it say the right thing?"""
    with autocast(device):
        texts = embed_texts(model, captions.ids)
        rows = torch.arange(len(split), device=device).split(EVALUATION_BATCH)
        nearest = torch.cat([(embed_images(model, split.pictures(r)) @ texts.T).argmax(-1) for r in rows])
    tables = {"class": captions.labels, **captions.attributes}
    right = {name: (table[nearest] == table[split.captions]).float().mean().item() for name, table in tables.items()}
    return {"retrieval_accuracy": right}


def make_pairs(
    split: Split, rows: Tensor, kind: Tensor, levels: tuple[Tensor, Tensor], generator: torch.Generator
) -> tuple[Tensor, Tensor, Tensor]:
    """Returns better and worse pictures [B, 1, 32, 32] for the captions of `rows`, and which pairs are valid [B].

    `kind` indexes PAIR_KINDS. `levels` holds the severity for the better and the worse picture of the degradations,
    where 0 is the real picture. The mismatches take another real picture: of the same class with other attributes
    (not valid where chance gave the same caption), or of another class.
    """
    better = worse = clean = split.pictures(rows)
    for k, degrade in enumerate(DEGRADATIONS.values()):
        chosen = (kind == k)[:, None, None, None]
        better = torch.where(chosen, degrade(clean, levels[0], generator), better)
        worse = torch.where(chosen, degrade(clean, levels[1], generator), worse)
    labels = split.labels[rows]
    other_class = (labels + 1 + draw(len(CLASS_NAMES) - 1, len(rows), generator)) % len(CLASS_NAMES)
    wanted = torch.where(kind == PAIR_KINDS.index("class"), other_class, labels)
    others = split.rows_of_class[wanted, draw(split.rows_of_class.shape[1], len(rows), generator)]
    mismatch = kind >= len(DEGRADATIONS)
    worse = torch.where(mismatch[:, None, None, None], split.pictures(others), worse)
    return better, worse, ~mismatch | (split.captions[others] != split.captions[rows])


def draw_pairs(split: Split, batch: int, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Returns rows, kinds and what make_pairs returns for them; the worse picture is always the more degraded one."""
    rows, kind = draw(len(split), batch, generator), draw(len(PAIR_KINDS), batch, generator)
    worse = 1 + draw(LEVELS, batch, generator)
    better = (torch.rand((batch,), generator=generator, device=generator.device) * worse).long()
    # In bf16 the filters would leave a mark of their own on the pictures.
    with torch.autocast(generator.device.type, enabled=False):
        return rows, kind, *make_pairs(split, rows, kind, (better, worse), generator)


def preference_logits(model: CLIPModel, ids: Tensor, better: Tensor, worse: Tensor) -> Tensor:
    """Returns PickScore's scores of the two pictures for the prompt, [B, 2]."""
    texts = embed_texts(model, ids)
    images = embed_images(model, torch.cat((better, worse))).unflatten(0, (2, -1))
    return logit_scale(model) * (images * texts).sum(-1).T


def train_pick(
    args: argparse.Namespace,
    clip: CLIPModel,
    train: Split,
    val: Split,
    captions: Captions,
    device: torch.device,
    state: Path,
) -> tuple[CLIPModel, dict[str, Any]]:
    def loss(modules: nn.ModuleDict, generator: torch.Generator) -> Tensor:
        rows, _, better, worse, valid = draw_pairs(train, args.batch, generator)
        logits = preference_logits(modules["pick"], captions.ids[train.captions[rows]], better, worse)
        losses = -F.log_softmax(logits, dim=-1)[:, 0]
        return (losses * valid).sum() / valid.sum()

    def evaluate(modules: nn.ModuleDict) -> dict[str, Any]:
        return pair_accuracy(modules["pick"], val, captions, device)

    options = stage_options(args, "pick", learning_rate=3e-4, steps=args.steps, minutes=part(args, "pick"))
    model = make_clip(captions.vocabulary).to(device)
    model.load_state_dict(clip.state_dict())
    stage = Stage(options, {"pick": model}, loss, evaluate, device, args.seed + 1, state)
    summary = stage.run()
    return stage.ema["pick"], summary


@torch.no_grad()
def pair_accuracy(model: CLIPModel, split: Split, captions: Captions, device: torch.device) -> dict[str, Any]:
    """How often the better picture of a held-out pair scores higher, by kind of pair."""
    generator = torch.Generator(device).manual_seed(0)
    right, valid = torch.zeros(len(PAIR_KINDS), device=device), torch.zeros(len(PAIR_KINDS), device=device)
    for _ in range(10):
        rows, kind, better, worse, ok = draw_pairs(split, EVALUATION_BATCH, generator)
        with autocast(device):
            logits = preference_logits(model, captions.ids[split.captions[rows]], better, worse)
        right.index_add_(0, kind, (ok & (logits[:, 0] > logits[:, 1])).float())
        valid.index_add_(0, kind, ok.float())
    by_kind = dict(zip(PAIR_KINDS, (right / valid.clamp(min=1)).tolist()))
    return {"pair_accuracy": by_kind | {"all": (right.sum() / valid.sum()).item()}}


def train_classifier(
    args: argparse.Namespace, train: Split, val: Split, device: torch.device, state: Path
) -> tuple[ResNetForImageClassification, dict[str, Any]]:
    def loss(modules: nn.ModuleDict, generator: torch.Generator) -> Tensor:
        rows = draw(len(train), args.batch, generator)
        images = augment(train.pictures(rows), generator)
        # A mirrored shoe is a shoe too, and generated ones may face either way.
        flip = torch.rand((args.batch, 1, 1, 1), generator=generator, device=device) < 0.5
        images = torch.where(flip, images.flip(-1), images)
        logits = modules["classifier"](normalize(images)).logits.float()
        return F.cross_entropy(logits, train.labels[rows], label_smoothing=0.05)

    def evaluate(modules: nn.ModuleDict) -> dict[str, Any]:
        return label_accuracy(modules["classifier"], val, device)

    minutes = part(args, "classifier")
    options = stage_options(
        args, "classifier", learning_rate=3e-3, steps=args.steps, minutes=minutes, weight_decay=0.05
    )
    stage = Stage(options, {"classifier": make_classifier()}, loss, evaluate, device, args.seed + 2, state)
    summary = stage.run()
    return stage.ema["classifier"], summary


@torch.no_grad()
def label_accuracy(model: ResNetForImageClassification, split: Split, device: torch.device) -> dict[str, Any]:
    with autocast(device):
        rows = torch.arange(len(split), device=device).split(EVALUATION_BATCH)
        found = torch.cat([model(normalize(split.pictures(r))).logits.argmax(-1) for r in rows])
    return {"accuracy": (found == split.labels).float().mean().item()}


def part(args: argparse.Namespace, stage: str) -> float:
    return args.minutes * SHARES[stage]


def save_model(folder: Path, model: nn.Module, tokenizer: Path | None) -> None:
    """Writes a model in fp16 with all that transformers wants to load and use it."""
    folder.mkdir(parents=True, exist_ok=True)
    model = model.half().cpu()
    model.config.architectures, model.config.dtype = [type(model).__name__], "float16"
    model.config.save_pretrained(folder)
    save_file(
        {name: value.contiguous() for name, value in model.state_dict().items()},
        folder / "model.safetensors",
        metadata={"format": "pt"},
    )
    preprocessor = {
        "crop_size": {"height": SIDE, "width": SIDE},
        "do_center_crop": True,
        "do_convert_rgb": True,
        "do_normalize": True,
        "do_rescale": True,
        "do_resize": True,
        "image_mean": [MEAN] * 3,
        "image_processor_type": "CLIPImageProcessor",
        "image_std": [STD] * 3,
        "resample": 3,
        "rescale_factor": 1 / 255,
        "size": {"shortest_edge": SIDE},
    }
    (folder / "preprocessor_config.json").write_text(to_json(preprocessor))
    if tokenizer is not None:
        shutil.copytree(tokenizer, folder, dirs_exist_ok=True)


def write_stage_log(folder: Path, log: Path, stage: str) -> None:
    rows = [line for line in log.read_text().splitlines() if json.loads(line)["stage"] == stage]
    (folder / "train_log.jsonl").write_text("\n".join(rows) + "\n")


def train(args: argparse.Namespace, state: Path) -> None:
    torch.manual_seed(args.seed)
    device = prepare_device(args.device)
    build_tokenizer(args.data, state / "tokenizer")
    captions = Captions(args.data, CLIPTokenizer.from_pretrained(state / "tokenizer"), device)
    splits = {name: Split(args, name, captions.number, device) for name in ("train", "val", "test")}
    held_out = splits["train"], splits["val"]

    clip, clip_summary = train_clip(args, *held_out, captions, device, state)
    pick, pick_summary = train_pick(args, clip, *held_out, captions, device, state)
    classifier, classifier_summary = train_classifier(args, *held_out, device, state)
    if args.probe:
        return

    tests = {
        "clip": retrieval_accuracy(clip, splits["test"], captions, device),
        "pick": pair_accuracy(pick, splits["test"], captions, device),
        "classifier": label_accuracy(classifier, splits["test"], device),
    }
    print(json.dumps({"test": tests}))
    partial = state / "models"
    shutil.rmtree(partial, ignore_errors=True)
    for name, model, summary in (
        ("clip", clip, clip_summary),
        ("pick", pick, pick_summary),
        ("classifier", classifier, classifier_summary),
    ):
        folder = partial / name
        save_model(folder, model, None if name == "classifier" else state / "tokenizer")
        write_stage_log(folder, state / "train_log.jsonl", name)
        write_summary(folder / "train_summary.json", args, device, stage=summary, test=tests[name])
        print(f"{name}: {(folder / 'model.safetensors').stat().st_size / 2**20:.1f} MiB")
    os.replace(partial, args.output)
    shutil.rmtree(state)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_training_flags(parser)
    length = parser.add_mutually_exclusive_group()
    length.add_argument("--steps", type=int, metavar="N", help="steps of every stage")
    length.add_argument("--minutes", type=float, default=2.5, metavar="M", help="or the time of all (%(default)s)")
    args = parser.parse_args()
    train_output(args, train, "classifier")


if __name__ == "__main__":
    main()
