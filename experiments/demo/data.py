"""The demo's data set: Fashion-MNIST pictures with captions that say something about the pixels.

Fashion-MNIST is (c) 2017 Zalando SE, Expat (MIT) licence; Debian packages it as `dataset-fashion-mnist`.
A caption names the class and up to three attributes measured on the picture, so that a model has to read the
whole text and not only the noun. Every other script of this folder takes its data from here.

    python experiments/demo/data.py -o DIR

writes, for each split, DIR/<split>/images.safetensors (`images`, U8 [N, 32, 32, 1]) and DIR/<split>/metadata.jsonl,
then DIR/prompts.txt and DIR/prompts.jsonl, and last DIR/dataset.json, whose presence means the folder is complete.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file, save_file

FORMAT = "laptopdiff.demo-data/1"
CLASS_NAMES = (
    "t-shirt",
    "trouser",
    "pullover",
    "dress",
    "coat",
    "sandal",
    "shirt",
    "sneaker",
    "bag",
    "ankle boot",
)
# Words for the low, middle and high third of each attribute; the middle third is not worth a word.
ATTRIBUTE_WORDS = {
    "brightness": ("dark", "", "bright"),
    "texture": ("plain", "", "patterned"),
    "size": ("small", "", "large"),
}
SOURCE_SIDE, SIDE = 28, 32
SPLITS = {"train": ("train", 0, 54_000), "val": ("train", 54_000, 60_000), "test": ("t10k", 0, 10_000)}
PROMPTS_PER_CLASS = 100
PROMPT_SEED = 2024
# The background is 0 up to a few stray counts, while black clothes go down to about 5.
FOREGROUND = 4


def read_idx(path: Path) -> np.ndarray:
    """Reads one gzipped IDX file of unsigned bytes."""
    raw = gzip.decompress(path.read_bytes())
    if raw[:3] != b"\0\0\x08":
        raise SystemExit(f"{path}: not an IDX file of unsigned bytes (starts with {raw[:4].hex()})")
    rank = raw[3]
    shape = np.frombuffer(raw, ">u4", rank, offset=4)
    return np.frombuffer(raw, np.uint8, offset=4 + 4 * rank).reshape(shape)


def measure(images: np.ndarray) -> dict[str, np.ndarray]:
    """Returns the three attributes of U8 pictures [N, 28, 28] as floats [N]."""
    pixels = images.astype(np.float32)
    inside = images > FOREGROUND
    area = np.maximum(inside.sum((1, 2)), 1)
    brightness = (pixels * inside).sum((1, 2)) / area

    # Contrast between neighbours one pixel away from the outline: the outline itself would dominate it.
    core = inside.copy()
    core[:, 1:] &= inside[:, :-1]
    core[:, :-1] &= inside[:, 1:]
    core[:, :, 1:] &= inside[:, :, :-1]
    core[:, :, :-1] &= inside[:, :, 1:]
    contrast, pairs = np.zeros(len(images)), np.zeros(len(images))
    for axis in (1, 2):
        both = np.delete(core, 0, axis) & np.delete(core, -1, axis)
        contrast += (np.abs(np.diff(pixels, axis=axis)) * both).sum((1, 2))
        pairs += both.sum((1, 2))
    # Not divided by the brightness: within a class that would make "patterned" another word for "dark".
    return {"brightness": brightness, "texture": contrast / np.maximum(pairs, 1), "size": area / SOURCE_SIDE**2}


def thirds(values: dict[str, np.ndarray], labels: np.ndarray) -> dict[str, list[list[float]]]:
    """Returns, per attribute and class, the two values that cut the class into thirds."""
    return {
        name: [np.quantile(v[labels == c], [1 / 3, 2 / 3]).tolist() for c in range(len(CLASS_NAMES))]
        for name, v in values.items()
    }


def levels(
    values: dict[str, np.ndarray], labels: np.ndarray, thresholds: dict[str, list[list[float]]]
) -> dict[str, np.ndarray]:
    """Returns each attribute as -1, 0 or 1: the third of its class that a picture falls in."""
    out = {}
    for name, v in values.items():
        low, high = np.asarray(thresholds[name])[labels].T
        out[name] = (v > high).astype(int) - (v <= low).astype(int)
    return out


def caption(label: int, attributes: dict[str, int]) -> str:
    """Returns e.g. "a photo of a dark patterned ankle boot, large"."""
    word = {name: words[attributes[name] + 1] for name, words in ATTRIBUTE_WORDS.items()}
    noun = " ".join(filter(None, (word["brightness"], word["texture"], CLASS_NAMES[label])))
    article = "an" if noun[0] in "aeiou" else "a"
    return f"a photo of {article} {noun}" + (f", {word['size']}" if word["size"] else "")


def load_split(folder: Path, split: str) -> tuple[np.ndarray, list[dict[str, Any]]]:
    """Returns a written split: pictures U8 [N, 32, 32, 1] and one metadata row a picture."""
    images = load_file(folder / split / "images.safetensors")["images"]
    rows = [json.loads(line) for line in (folder / split / "metadata.jsonl").read_text().splitlines()]
    if len(rows) != len(images):
        raise SystemExit(f"{folder / split}: {len(images)} pictures but {len(rows)} metadata rows; build it again")
    return images, rows


def replace_text(path: Path, text: str) -> None:
    """Writes a text file whole or not at all."""
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_text(text)
    os.replace(temporary, path)


def to_json(value: Any) -> str:
    """Returns JSON that two runs can be compared by: sorted keys, two-space indent, a last newline."""
    return json.dumps(value, indent=2, sort_keys=True) + "\n"


def write_split(folder: Path, images: np.ndarray, rows: list[dict[str, Any]]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    margin = (SIDE - SOURCE_SIDE) // 2
    padded = np.pad(images, ((0, 0), (margin, margin), (margin, margin)))[..., None]
    temporary = folder / "images.safetensors.tmp"
    save_file({"images": np.ascontiguousarray(padded)}, temporary)
    os.replace(temporary, folder / "images.safetensors")
    replace_text(folder / "metadata.jsonl", "".join(json.dumps(row) + "\n" for row in rows))


def write_prompts(folder: Path, rows: list[dict[str, Any]]) -> None:
    """Writes prompts of the test split, classes taking turns, so that any prefix is evenly spread too."""
    rng = np.random.default_rng(PROMPT_SEED)
    labels = np.array([row["label"] for row in rows])
    picked = np.stack(
        [rng.choice(np.flatnonzero(labels == c), PROMPTS_PER_CLASS, replace=False) for c in range(len(CLASS_NAMES))],
        axis=1,
    )
    prompts = [rows[i] for i in picked.ravel()]
    replace_text(folder / "prompts.txt", "".join(row["text"] + "\n" for row in prompts))
    replace_text(folder / "prompts.jsonl", "".join(json.dumps(row) + "\n" for row in prompts))


def build(source: Path, folder: Path) -> None:
    files = {
        f"{part}-{kind}": source / f"{part}-{kind}-idx{rank}-ubyte.gz"
        for part in ("train", "t10k")
        for kind, rank in (("images", 3), ("labels", 1))
    }
    if missing := [str(path) for path in files.values() if not path.exists()]:
        raise SystemExit(f"missing {', '.join(missing)}; install dataset-fashion-mnist or give --source")
    digests = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in files.values()}

    manifest_path = folder / "dataset.json"
    if manifest_path.exists():
        manifest = json.loads(manifest_path.read_text())
        if (manifest["format"], manifest["source_sha256"]) == (FORMAT, digests):
            print(f"{folder}: already complete")
            return
        raise SystemExit(f"{folder}: holds another data set ({manifest['format']}); choose another folder")

    arrays = {name: read_idx(path) for name, path in files.items()}
    thresholds: dict[str, list[list[float]]] = {}
    counts = {}
    for split, (part, begin, end) in SPLITS.items():
        images = arrays[f"{part}-images"][begin:end]
        labels = arrays[f"{part}-labels"][begin:end]
        values = measure(images)
        # SPLITS starts with train, so the thresholds never see a held-out picture.
        thresholds = thresholds or thirds(values, labels)
        by_name = levels(values, labels, thresholds)
        rows = []
        for i, label in enumerate(labels.tolist()):
            attributes = {name: int(level[i]) for name, level in by_name.items()}
            rows.append({"text": caption(label, attributes), "label": label, "attributes": attributes})
        write_split(folder / split, images, rows)
        counts[split] = len(rows)
        print(f"{split}: {len(rows)} pictures, {len({row['text'] for row in rows})} different captions")
    write_prompts(folder, rows)
    replace_text(
        manifest_path,
        to_json(
            {
                "format": FORMAT,
                "name": "fashion-mnist",
                "copyright": "2017, Zalando SE",
                "license": "MIT",
                "class_names": CLASS_NAMES,
                "counts": counts,
                "source_sha256": digests,
                "thresholds": thresholds,
            }
        ),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--source", type=Path, default=Path("/usr/share/datasets/fashion-mnist"), metavar="DIR")
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="DIR")
    args = parser.parse_args()
    build(args.source, args.output)


if __name__ == "__main__":
    main()
