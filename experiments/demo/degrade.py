"""Ways to make a picture worse by known amounts, for the preference pairs of the demo's PickScore.

People's judgements are not at hand for 32-pixel clothes, so a pair is built such that anybody would agree: the same
picture with more of one flaw, or another picture that the prompt does not describe. The flaws are those that
pruned and under-trained diffusion models show: softness, noise, lost detail, missing parts, two things at once.

Every function takes pictures [B, 1, 32, 32] in [0, 1] and a level [B] in 0..LEVELS (0 leaves the picture as it is),
works on any device without a host synchronisation, and returns new pictures.
"""

from __future__ import annotations

from typing import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

LEVELS = 4
BLUR_SIGMA = (0.6, 1.0, 1.6, 2.4)
NOISE_STD = (0.08, 0.16, 0.28, 0.45)
LOW_PASS_SIDE = (24, 18, 13, 9)
ERASED_SIDE = (5, 8, 11, 15)
GHOST_SHARE = (0.15, 0.3, 0.42, 0.55)


def pick_level(values: tuple[float, ...], level: Tensor) -> Tensor:
    """Returns 0 for level 0 and `values[level - 1]` else, [B, 1, 1, 1]."""
    # A sum of comparisons with Python numbers: a lookup table would have to be copied to the device.
    out = sum(value * (level == i + 1) for i, value in enumerate(values))
    return out[:, None, None, None]


def choose(versions: list[Tensor], level: Tensor) -> Tensor:
    return torch.stack(versions)[level, torch.arange(len(level), device=level.device)]


def blur(images: Tensor, level: Tensor, generator: torch.Generator) -> Tensor:
    radius = 6
    offsets = torch.arange(-radius, radius + 1, device=images.device)
    versions = [images]
    for sigma in BLUR_SIGMA:
        kernel = torch.exp(-0.5 * (offsets / sigma).square())
        kernel = kernel / kernel.sum()
        rows = F.conv2d(images, kernel.view(1, 1, -1, 1), padding=(radius, 0))
        versions.append(F.conv2d(rows, kernel.view(1, 1, 1, -1), padding=(0, radius)))
    return choose(versions, level)


def noise(images: Tensor, level: Tensor, generator: torch.Generator) -> Tensor:
    drawn = torch.randn(images.shape, generator=generator, device=images.device)
    return (images + pick_level(NOISE_STD, level) * drawn).clamp(0, 1)


def low_pass(images: Tensor, level: Tensor, generator: torch.Generator) -> Tensor:
    """Keeps what fits in fewer pixels, with the ringing of a weak decoder."""
    versions = [images]
    for side in LOW_PASS_SIDE:
        small = F.interpolate(images, size=(side, side), mode="bilinear", antialias=True)
        versions.append(F.interpolate(small, size=images.shape[-2:], mode="bicubic").clamp(0, 1))
    return choose(versions, level)


def erase(images: Tensor, level: Tensor, generator: torch.Generator) -> Tensor:
    """Blacks out a square inside the middle of the picture, where the clothes are."""
    side = pick_level(ERASED_SIDE, level)
    places = torch.rand((2, len(images), 1, 1, 1), generator=generator, device=images.device)
    margin = 5
    top, left = margin + places * (images.shape[-1] - 2 * margin - side)
    axis = torch.arange(images.shape[-1], device=images.device)
    rows, columns = axis[:, None], axis[None, :]
    hole = (rows >= top) & (rows < top + side) & (columns >= left) & (columns < left + side)
    return images.masked_fill(hole, 0)


def ghost(images: Tensor, level: Tensor, generator: torch.Generator) -> Tensor:
    """Mixes in the next picture of the batch."""
    share = pick_level(GHOST_SHARE, level)
    return (1 - share) * images + share * images.roll(1, dims=0)


DEGRADATIONS: dict[str, Callable[[Tensor, Tensor, torch.Generator], Tensor]] = {
    "blur": blur,
    "noise": noise,
    "low_pass": low_pass,
    "erase": erase,
    "ghost": ghost,
}


def shift(images: Tensor, reach: int, generator: torch.Generator) -> Tensor:
    """Moves each picture [B, 1, H, W] by up to `reach` pixels either way; the empty border is repeated."""
    batch, _, height, width = images.shape
    moves = torch.randint(-reach, reach + 1, (2, batch, 1), generator=generator, device=images.device)
    rows = (torch.arange(height, device=images.device) + moves[0]).clamp(0, height - 1)
    columns = (torch.arange(width, device=images.device) + moves[1]).clamp(0, width - 1)
    batch_index = torch.arange(batch, device=images.device)[:, None, None]
    return images[batch_index, 0, rows[:, :, None], columns[:, None, :]].unsqueeze(1)
