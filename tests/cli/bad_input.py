"""What the tests of bad input share: copies of the small world's U-Net with something changed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Callable

import numpy as np
from conftest import World
from safetensors.numpy import load_file, save_file

WEIGHTS = "diffusion_pytorch_model.safetensors"


def changed_unet(world: World, folder: Path, change: Callable[[dict[str, np.ndarray]], Any]) -> Path:
    model = world.copy_unet(folder / "unet")
    tensors = load_file(model / WEIGHTS)
    change(tensors)
    save_file(tensors, model / WEIGHTS)
    return model


def changed_config(world: World, folder: Path, **more: Any) -> Path:
    model = world.copy_unet(folder / "unet")
    config = json.loads((model / "config.json").read_text()) | more
    (model / "config.json").write_text(json.dumps(config))
    return model


def write(path: Path, value: Any) -> Path:
    path.write_text(value if isinstance(value, str) else json.dumps(value))
    return path


def score(world: World, model: Path, folder: Path, *flags: str) -> list[str | Path]:
    return ["score", model, "--calibration", world.calibration, "-o", folder / "scores.json", *flags]
