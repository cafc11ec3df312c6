"""Our forward, scoring pass and distillation step beside diffusers', as ratios in one run on one machine.

    python experiments/bench/forward.py [--model DIR] [--batch 8] [--repeat 5]

The model is the demo's teacher unless another folder is given. The peer is diffusers' eager model with the same weights
on the same threads; its scoring is the naive loop (one forward a removed unit), its distillation step torch autograd
with fused AdamW and forward hooks on the same stages.
"""

from __future__ import annotations

import argparse
import copy
import json
import os
import statistics
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from diffusers import UNet2DConditionModel

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = Path(os.environ.get("LAPTOPDIFF_BUILD", ROOT / "build")) / "laptopdiff"


def median_seconds(work: Callable[[], None], repeat: int) -> float:
    work()
    seconds = []
    for _ in range(repeat):
        began = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - began)
    return statistics.median(seconds)


def ours(kind: str, model: Path, *flags: str) -> float:
    done = subprocess.run([PROGRAM, "bench", kind, model, "--json", "--quiet", *flags], capture_output=True, text=True, check=True)
    return json.loads(done.stdout)["median_s"]


def inputs(model: UNet2DConditionModel, batch: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    size, width = model.config.sample_size, model.config.cross_attention_dim
    return torch.randn(batch, 4, size, size), torch.full((batch,), 500), torch.randn(batch, 77, width)


def distillation_step(model: UNet2DConditionModel, batch: int) -> Callable[[], None]:
    teacher, student = model, copy.deepcopy(model)
    optimizer = torch.optim.AdamW(student.parameters(), lr=5e-5, fused=True)
    features: dict[str, list[torch.Tensor]] = {"teacher": [], "student": []}
    for name, net in (("teacher", teacher), ("student", student)):
        for stage in [*net.down_blocks, net.mid_block, *net.up_blocks]:
            stage.register_forward_hook(
                lambda _m, _i, out, name=name: features[name].append(out[0] if isinstance(out, tuple) else out)
            )

    def step() -> None:
        for taps in features.values():
            taps.clear()
        data = inputs(model, batch)
        with torch.no_grad():
            target = teacher(*data).sample
        own = student(*data).sample
        loss = F.mse_loss(own, data[0]) + F.mse_loss(own, target)
        loss = loss + sum(F.mse_loss(s, t) / t.square().mean() for s, t in zip(features["student"], features["teacher"]))
        loss.backward()
        torch.nn.utils.clip_grad_norm_(student.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()

    return step


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, default=ROOT / "experiments/demo/models/pipeline/unet")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("-o", "--output", type=Path, help="JSON with the numbers")
    args = parser.parse_args()
    model = UNet2DConditionModel.from_pretrained(args.model).eval()
    units = len(json.loads(subprocess.run([PROGRAM, "inspect", args.model, "--json"], capture_output=True, text=True, check=True).stdout)["units"])
    flags = ["--batch", str(args.batch), "--repeat", str(args.repeat)]
    data = inputs(model, args.batch)
    with torch.inference_mode():
        peer_forward = median_seconds(lambda: model(*data), args.repeat)
    rows = {
        "forward": (ours("forward", args.model, *flags), peer_forward),
        # The naive loop removes one unit at a time; its forwards cost what a full one does, less one unit.
        "score": (ours("score", args.model, *flags, "--samples", str(args.batch)), peer_forward * (units + 1)),
        "distill": (ours("distill", args.model, *flags), median_seconds(distillation_step(model, args.batch), args.repeat)),
    }
    print(f"{'':10} {'ours, s':>10} {'diffusers, s':>14} {'ratio':>7}   batch {args.batch}, {torch.get_num_threads()} threads")
    for name, (own, peer) in rows.items():
        print(f"{name:10} {own:10.4f} {peer:14.4f} {peer / own:7.2f}")
    if args.output:
        result = {name: {"ours_s": own, "diffusers_s": peer, "ratio": peer / own} for name, (own, peer) in rows.items()}
        args.output.write_text(json.dumps(result, indent=2, sort_keys=True) + "\n")


if __name__ == "__main__":
    main()
