"""Trains the demo's second teacher: an unconditional diffusion model of pixels with the topology of DDPM CIFAR10-32.

The same pictures as the first teacher's, without captions, and a `UNet2DModel` instead of a `UNet2DConditionModel`:
attention only at 16x16 and in the middle, and stages of different widths, so that layers differ in size. The loss is
the first teacher's (`timestep_weights`). The result is a diffusers DDPMPipeline folder in fp16, of the EMA weights.

    python experiments/demo/train_ddpm.py --data DIR -o DIR --minutes 10

While training, the state lies in DIR.state and a second run picks it up; DIR appears when everything is done.
"""

from __future__ import annotations

import argparse
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import DDIMScheduler, DDPMPipeline, DDPMScheduler, UNet2DModel
from torch import Tensor, nn

from data import load_split
from train_teacher import (
    VALIDATION_ROWS,
    denoising_loss,
    draw,
    start_as_identity,
    timestep_weights,
    to_pixels,
    write_grid,
)
from training import Stage, add_training_flags, autocast, prepare_device, stage_options, train_output, write_summary

SAMPLE_COUNT, SAMPLE_COLUMNS, SAMPLE_STEPS = 64, 8, 25


def make_unet() -> UNet2DModel:
    """DDPM CIFAR10-32 in every block and layer; only widths and groups differ."""
    return UNet2DModel(
        sample_size=32,
        in_channels=3,
        out_channels=3,
        down_block_types=("DownBlock2D", "AttnDownBlock2D", "DownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "UpBlock2D", "AttnUpBlock2D", "UpBlock2D"),
        block_out_channels=(32, 64, 96, 96),
        layers_per_block=2,
        attention_head_dim=None,
        norm_num_groups=16,
        norm_eps=1e-6,
        downsample_padding=0,
        flip_sin_to_cos=False,
        freq_shift=1,
    )


def make_scheduler() -> DDPMScheduler:
    return DDPMScheduler(beta_start=1e-4, beta_end=0.02, beta_schedule="linear", variance_type="fixed_large")


def train_unet(
    args: argparse.Namespace, train: Tensor, val: Tensor, device: torch.device, state: Path
) -> tuple[nn.Module, dict[str, Any]]:
    """Trains on pictures U8 [N, 32, 32, 1]."""
    scheduler = make_scheduler()
    signal = scheduler.alphas_cumprod.to(device).sqrt()
    spread = (1 - scheduler.alphas_cumprod).to(device).sqrt()
    weights = timestep_weights(scheduler.alphas_cumprod.to(device))

    def loss(modules: nn.ModuleDict, generator: torch.Generator) -> Tensor:
        pixels = to_pixels(train[draw(len(train), args.batch, generator)])  # [B, 3, 32, 32]
        t = draw(len(signal), args.batch, generator)
        noise = torch.randn(pixels.shape, generator=generator, device=device)
        noisy = signal[t, None, None, None] * pixels + spread[t, None, None, None] * noise
        errors = (modules["unet"](noisy, t).sample.float() - noise).square().mean((1, 2, 3))
        return (weights[t] * errors).mean()

    def evaluate(modules: nn.ModuleDict) -> dict[str, Any]:
        with autocast(device, args.bf16):
            return denoising_loss(modules["unet"], to_pixels(val[:VALIDATION_ROWS]), None, scheduler)

    options = stage_options(args, "denoiser", learning_rate=args.learning_rate, steps=args.steps, minutes=args.minutes)
    stage = Stage(options, {"unet": start_as_identity(make_unet())}, loss, evaluate, device, args.seed, state)
    summary = stage.run()
    return stage.ema["unet"], summary


def sample(pipeline: DDPMPipeline, count: int, steps: int, seed: int) -> np.ndarray:
    """Returns pictures U8 [N, 32, 32, 3], drawn by DDIM: a few dozen steps instead of the thousand of DDPM."""
    fast = DDPMPipeline(pipeline.unet, DDIMScheduler.from_config(pipeline.scheduler.config))
    fast.set_progress_bar_config(disable=True)
    generators = [torch.Generator().manual_seed(seed + i) for i in range(count)]
    images = fast(batch_size=count, num_inference_steps=steps, generator=generators, output_type="np").images
    return (images * 255).round().astype(np.uint8)


def train(args: argparse.Namespace, state: Path) -> None:
    torch.manual_seed(args.seed)
    device = prepare_device(args.device)
    images = {
        split: torch.from_numpy(load_split(args.data, split)[0][: args.limit]).to(device) for split in ("train", "val")
    }
    unet, summary = train_unet(args, images["train"], images["val"], device, state)
    if args.probe:
        return

    pipeline = DDPMPipeline(unet, make_scheduler())
    partial = state / "pipeline"
    shutil.rmtree(partial, ignore_errors=True)
    pipeline.to(torch.float16).save_pretrained(partial, safe_serialization=True)
    # The grid shows what was saved: half-precision weights, run in float32 as any CPU would.
    images = sample(pipeline.to(torch.float32), SAMPLE_COUNT, SAMPLE_STEPS, args.seed)
    write_grid(partial / "samples.png", images, SAMPLE_COLUMNS)
    shutil.copy(state / "train_log.jsonl", partial / "train_log.jsonl")
    write_summary(partial / "train_summary.json", args, device, stages={"denoiser": summary})
    os.replace(partial, args.output)
    size = sum(path.stat().st_size for path in args.output.rglob("*.safetensors"))
    print(f"{args.output}: {size / 2**20:.1f} MiB of weights")
    shutil.rmtree(state)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_training_flags(parser)
    parser.add_argument("--learning-rate", type=float, default=1e-3, help="(default %(default)s)")
    length = parser.add_mutually_exclusive_group()
    length.add_argument("--steps", type=int, metavar="N")
    length.add_argument("--minutes", type=float, default=10, metavar="M", help="instead of steps (default %(default)s)")
    args = parser.parse_args()
    train_output(args, train, "model_index.json")


if __name__ == "__main__":
    main()
