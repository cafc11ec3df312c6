"""Memory and time of opening a full-size U-Net, beside the size of its file; with --forward, of a forward as well.

    python experiments/bench/load.py [sd15] [sdxl] [--folder DIR] [--dtype bf16] [--repeat 3] [--forward]

The models have the published architectures and random bf16 weights; they are made once in --folder (1.7 and 5.1 GB, and
kept). `inspect` reads no weight; `forward --dry-run` reads all of them, checks them for NaN and Inf, and stops before
the first step; `forward` takes them all, for one image of the model's own size (64x64, SDXL 128x128). The peak is the
resident set, mapped pages of the file included; what the program needs without any model (`doctor`) is shown beside it.
Rows that say `cold` come after the kernel was told to forget the file, and `read` is a plain sequential read of it: a
cold load that takes no longer than a cold read is bound by the disk. (A virtual disk may answer from a cache of its
host.)
"""

from __future__ import annotations

import argparse
import json
import os
import struct
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any, Callable

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = Path(os.environ.get("LAPTOPDIFF_BUILD", ROOT / "build")) / "laptopdiff"
LIMIT = 1.1  # peak over the weights' bytes

CROSS, PLAIN = "CrossAttn{}Block2D", "{}Block2D"
MODELS: dict[str, dict[str, Any]] = {
    "sd15": {
        "_class_name": "UNet2DConditionModel",
        "sample_size": 64,
        "cross_attention_dim": 768,
        "attention_head_dim": 8,
        "block_out_channels": [320, 640, 1280, 1280],
        "down_block_types": [CROSS.format("Down")] * 3 + [PLAIN.format("Down")],
        "up_block_types": [PLAIN.format("Up")] + [CROSS.format("Up")] * 3,
    },
    "sdxl": {
        "_class_name": "UNet2DConditionModel",
        "sample_size": 128,
        "cross_attention_dim": 2048,
        "attention_head_dim": [5, 10, 20],
        "block_out_channels": [320, 640, 1280],
        "down_block_types": [PLAIN.format("Down")] + [CROSS.format("Down")] * 2,
        "up_block_types": [CROSS.format("Up")] * 2 + [PLAIN.format("Up")],
        "transformer_layers_per_block": [1, 2, 10],
        "use_linear_projection": True,
        "addition_embed_type": "text_time",
        "addition_time_embed_dim": 256,
        "projection_class_embeddings_input_dim": 2816,
    },
}


def shapes(config: dict[str, Any]) -> dict[str, list[int]]:
    """Names and shapes of the architecture's tensors, from diffusers, without their memory."""
    import torch
    from diffusers import UNet2DConditionModel

    with torch.device("meta"):
        model = UNet2DConditionModel.from_config(config)
    return {name: list(tensor.shape) for name, tensor in model.state_dict().items()}


def write_model(folder: Path, config: dict[str, Any]) -> Path:
    """A folder with random bf16 weights, written tensor by tensor."""
    weights = folder / "diffusion_pytorch_model.safetensors"
    if weights.exists():
        return weights
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    offset = 0
    for name, shape in sorted(shapes(config).items()):
        size = 2 * int(np.prod(shape))
        header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [offset, offset + size]}
        offset += size
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    random = np.random.default_rng(0)
    partial = weights.with_suffix(".partial")
    with open(partial, "wb") as out:
        out.write(struct.pack("<Q", len(text)) + text)
        for name, entry in header.items():
            if name == "__metadata__":
                continue
            values = random.standard_normal(int(np.prod(entry["shape"])), dtype=np.float32) * 0.02
            out.write((values.view(np.uint32) >> 16).astype("<u2").tobytes())  # truncated to bf16
    partial.rename(weights)
    return weights


def forget(path: Path) -> None:
    """Takes a file out of the page cache."""
    with open(path, "rb") as file:
        os.fsync(file.fileno())  # pages not yet written would stay
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def read_whole(path: Path) -> tuple[float, float, int]:
    """Seconds of reading a file from begin to end, as `measure` gives them; the memory is one buffer's."""
    buffer = bytearray(8 << 20)
    began, cpu_began = time.perf_counter(), time.process_time()
    with open(path, "rb", buffering=0) as file:
        while file.readinto(buffer):
            pass
    return time.perf_counter() - began, time.process_time() - cpu_began, len(buffer)


def measure(*arguments: str | Path) -> tuple[float, float, int]:
    """Seconds by the clock, seconds of all cores, and peak resident bytes of one run."""
    with tempfile.TemporaryFile() as errors:
        began = time.perf_counter()
        process = subprocess.Popen([PROGRAM, *arguments], stdout=subprocess.DEVNULL, stderr=errors)
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - began
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode != 0:
            errors.seek(0)
            raise SystemExit(f"laptopdiff {arguments[0]} failed: {errors.read().decode()}")
    return seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024


def write_inputs(path: Path, config: dict[str, Any]) -> Path:
    from safetensors.numpy import save_file

    tensors = {
        "sample": np.random.default_rng(1).standard_normal((1, 4, *[config["sample_size"]] * 2)).astype(np.float32),
        "timestep": np.zeros(1, np.int64),
        "encoder_hidden_states": np.zeros((1, 77, config["cross_attention_dim"]), np.float32),
    }
    if "addition_embed_type" in config:
        tensors |= {"text_embeds": np.zeros((1, 1280), np.float32), "time_ids": np.zeros((1, 6), np.float32)}
    save_file(tensors, path)
    return path


def bench(name: str, folder: Path, dtype: str, repeat: int, whole: bool) -> list[dict[str, Any]]:
    config = MODELS[name]
    file = write_model(folder / name, config)
    inputs = write_inputs(folder / f"{name}_inputs.safetensors", config)
    output = folder / "output.safetensors"
    forward = ("forward", folder / name, "--inputs", inputs, "-o", output, "--overwrite", "--dtype", dtype, "--device", "cpu")
    load = (*forward, "--dry-run")
    runs: dict[str, Callable[[], tuple[float, float, int]]] = {
        "no model": lambda: measure("doctor"),
        "inspect": lambda: measure("inspect", folder / name, "--json"),
        "cold read": lambda: read_whole(file),
        "cold load": lambda: measure(*load),
        "load": lambda: measure(*load),
    }
    if whole:
        runs["forward"] = lambda: measure(*forward)
    weights = file.stat().st_size * (2 if dtype == "f32" else 1)  # in the compute type; the file is bf16
    rows = []
    for what, run in runs.items():
        measured = []
        for _ in range(repeat):
            if what.startswith("cold"):
                forget(file)
            measured.append(run())
        seconds, cpu_seconds, _ = min(measured)
        peak = max(m[2] for m in measured)
        row = {"model": name, "run": what, "seconds": seconds, "cpu_seconds": cpu_seconds, "peak_bytes": peak}
        rows.append(row | {"weight_bytes": weights, "peak_over_weights": peak / weights})
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", metavar="MODEL", help="sd15 (default), sdxl")
    parser.add_argument("--folder", type=Path, default=ROOT / "runs" / "bench", help="where the models are made and kept")
    parser.add_argument("--dtype", default="bf16", choices=("bf16", "f32"), help="compute type")
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--forward", action="store_true", help="a whole forward as well")
    parser.add_argument("-o", "--output", type=Path, help="JSON with the numbers")
    args = parser.parse_args()
    if unknown := set(args.models) - set(MODELS):
        parser.error(f"no such model: {', '.join(sorted(unknown))}; known: {', '.join(MODELS)}")
    rows = [row for name in args.models or ["sd15"] for row in bench(name, args.folder, args.dtype, args.repeat, args.forward)]
    print(f"{'model':6} {'run':9} {'seconds':>8} {'cpu, s':>8} {'peak, GB':>9} {'weights, GB':>12} {'ratio':>6}")
    for row in rows:
        print(
            f"{row['model']:6} {row['run']:9} {row['seconds']:8.2f} {row['cpu_seconds']:8.2f} {row['peak_bytes'] / 1e9:9.2f} "
            f"{row['weight_bytes'] / 1e9:12.2f} {row['peak_over_weights']:6.2f}"
        )
    over = [row for row in rows if row["run"] != "forward" and row["peak_over_weights"] > LIMIT]
    for row in over:
        print(f"{row['model']} {row['run']}: more than {LIMIT} times the weights")
    if args.output:
        args.output.write_text(json.dumps(rows, indent=2, sort_keys=True) + "\n")
    raise SystemExit(1 if over else 0)


if __name__ == "__main__":
    main()
