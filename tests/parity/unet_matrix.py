"""Small U-Net configurations in which every two options of the model classes meet.

The rules forbid what diffusers cannot run, and what would hide an option: `downsample_padding` in a model without a
down-sampler covers nothing. `configurations` turns each row into the constructor's arguments and the extras its inputs
need.

    python tests/parity/unet_matrix.py     prints the configurations and how many pairs they cover
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from pairwise import Row, Rule, Space, all_pairs, count, pairs_of, rows

SEED = 20
POOLED, TIME_IDS, ADDED_DIM = 10, 6, 6  # text_time: pooled text + six sinusoids
PROJECTION_DIM = POOLED + TIME_IDS * ADDED_DIM
CONTEXT, CLASSES, CONDITION = 12, 7, 6


# ---------------------------------------------------------------- what a stage is, by family


def spread(first: str, middle: str, last: str, n: int) -> list[str]:
    """n block types: `last` only where there is more than one stage."""
    return [first, *[middle] * (n - 2), last][: max(n, 1)] if n > 1 else [first]


CROSS, PLAIN, ATTN, SHRINK = "CrossAttnDownBlock2D", "DownBlock2D", "AttnDownBlock2D", "ResnetDownsampleBlock2D"
CROSS_UP, PLAIN_UP, ATTN_UP, GROW = "CrossAttnUpBlock2D", "UpBlock2D", "AttnUpBlock2D", "ResnetUpsampleBlock2D"

# family -> (first, middle, last) block type; the first is the one that has a sampler in a net of two stages.
DOWN = {
    "sd": (CROSS, CROSS, PLAIN),
    "all cross": (CROSS, CROSS, CROSS),
    "sdxl": (PLAIN, CROSS, CROSS),
    "plain": (PLAIN, PLAIN, PLAIN),
    "attn": (ATTN, PLAIN, ATTN),
    "resnet": (SHRINK, CROSS, SHRINK),
    "old names": ("UNetResCrossAttnDownBlock2D", "UNetResDownBlock2D", "UNetResCrossAttnDownBlock2D"),
}
UP = {
    "sd": (PLAIN_UP, CROSS_UP, CROSS_UP),
    "all cross": (CROSS_UP, CROSS_UP, CROSS_UP),
    "sdxl": (CROSS_UP, CROSS_UP, PLAIN_UP),
    "plain": (PLAIN_UP, PLAIN_UP, PLAIN_UP),
    "attn": (ATTN_UP, CROSS_UP, ATTN_UP),
    "resnet": (GROW, CROSS_UP, GROW),
    "old names": ("UNetResUpBlock2D", "UNetResCrossAttnUpBlock2D", "UNetResCrossAttnUpBlock2D"),
}
# UNet2DModel knows no text.
DOWN_2D = {
    "plain": (PLAIN, PLAIN, PLAIN),
    "attn": (ATTN, ATTN, ATTN),
    "attn last": (PLAIN, ATTN, ATTN),
    "attn first": (ATTN, PLAIN, PLAIN),
    "resnet": (SHRINK, SHRINK, SHRINK),
    "old names": ("UNetResAttnDownBlock2D", "UNetResDownBlock2D", "UNetResDownBlock2D"),
}
UP_2D = {
    "plain": (PLAIN_UP, PLAIN_UP, PLAIN_UP),
    "attn": (ATTN_UP, ATTN_UP, ATTN_UP),
    "attn last": (PLAIN_UP, ATTN_UP, ATTN_UP),
    "attn first": (ATTN_UP, PLAIN_UP, PLAIN_UP),
    "resnet": (GROW, GROW, GROW),
    "old names": ("UNetResAttnUpBlock2D", "UNetResUpBlock2D", "UNetResUpBlock2D"),
}
# Widths of a net of three stages. `odd` makes an odd sinusoid, which diffusers pads with a zero.
WIDTHS = {"doubling": [8, 16, 32], "equal": [16, 16, 16], "uneven": [24, 8, 16], "odd": [9, 18, 27]}
ACTIVATIONS = ("silu", "swish", "gelu", "mish", "relu", "GELU")


def down_types(families: dict, family: str, n: int) -> list[str]:
    return spread(*families[family], n)


def has_cross(down: str, up: str, n: int) -> bool:
    return any("CrossAttn" in t for t in down_types(DOWN, down, n) + down_types(UP, up, n))


def samples_with(types: list[str], name: str) -> bool:
    """Whether a stage that has a sampler is of this type."""
    return any(name in t for t in types[:-1])


def acts(option: str, off: Any, where: Callable[..., bool], *factors: str) -> Rule:
    """`option` leaves its base level only where it changes the numbers."""
    return Rule((option, *factors), lambda level, *levels: level == off or where(*levels))


def samplers(n: int) -> bool:
    return n > 1


def middle(mid: str) -> bool:
    return mid != "null"


def transformer(n: int, down: str, up: str) -> bool:
    return has_cross(down, up, n)


def scaled(n: int, down: str, up: str) -> bool:
    return SHRINK in down_types(DOWN, down, n) or GROW in down_types(UP, up, n)


def divides(size: tuple[int, int], n: int) -> bool:
    return all(side % 2 ** (n - 1) == 0 for side in size)


def resizes(size: tuple[int, int], n: int, up: str) -> bool:
    """diffusers hands the skip's size to its up-samplers, but for those of AttnUp and ResnetUpsample stages."""
    types = down_types(UP, up, n)
    return divides(size, n) or not (samples_with(types, ATTN_UP) or samples_with(types, GROW))


CONDITIONAL = Space(
    "UNet2DConditionModel",
    {
        "stages": (3, 2, 1),
        "widths": tuple(WIDTHS),
        "layers": ("two", "one", "tuple"),
        "down": tuple(DOWN),
        "up": tuple(UP),
        "mid": ("absent", "UNetMidBlock2DCrossAttn", "UNetMidBlock2D", "null"),
        "depth": ("one", "two", "stage list", "nested", "zero"),
        "use_linear_projection": (False, True),
        "heads": ("number", "list", "one"),
        "only_cross_attention": (False, True, "list"),
        "context": ("number", "list"),
        "class": (None, "table", "timestep", "identity", "projection", "simple_projection"),
        "class_embeddings_concat": (False, True),
        "addition": (None, "text_time"),
        "time_cond": (None, "given", "left out"),
        "resnet_time_scale_shift": ("default", "scale_shift"),
        "act_fn": ACTIVATIONS,
        "time_embedding_act_fn": (None, "mish", "relu"),
        "timestep_post_act": (None, "silu", "gelu"),
        "time_embedding_dim": (None, 20),
        "flip_sin_to_cos": (True, False),
        "freq_shift": (0, 1, 0.5),
        "downsample_padding": (1, 0),
        "size": ((8, 8), (8, 12), (7, 9), (6, 10)),
        "norm_eps": (1e-5, 1e-2, 1e-7),
        "groups": ("few", "many"),
        "center_input_sample": (False, True),
        "conv_in_kernel": (3, 1, 5),
        "conv_out_kernel": (3, 1, 5),
        "channels": ((4, 4), (9, 4), (3, 6)),
        "mid_block_scale_factor": (1, 2.5),
        "resnet_out_scale_factor": (1.0, 1.5),
        "resnet_skip_time_act": (False, True),
        "upcast_attention": (False, None, True),
        "timestep": ("int", "fractional"),
        "tokens": (5, 1),
    },
    (
        Rule(("class_embeddings_concat", "class", "addition"), lambda on, c, a: not on or (c is not None and a is None)),
        Rule(("size", "stages", "up"), resizes),
        acts("downsample_padding", 1, samplers, "stages"),
        acts("mid_block_scale_factor", 1, middle, "mid"),
        acts("resnet_out_scale_factor", 1.0, scaled, "stages", "down", "up"),
        acts("resnet_skip_time_act", False, scaled, "stages", "down", "up"),
        acts("use_linear_projection", False, transformer, "stages", "down", "up"),
        acts("depth", "one", transformer, "stages", "down", "up"),
        acts("only_cross_attention", False, transformer, "stages", "down", "up"),
        acts("heads", "number", transformer, "stages", "down", "up"),
        acts("tokens", 5, transformer, "stages", "down", "up"),
    ),
)


def resampled(families: dict, name: str) -> Callable[..., bool]:
    return lambda n, family: samples_with(down_types(families, family, n), name)


def attends(n: int, down: str, up: str, mid: str, add_attention: bool) -> bool:
    stages = down_types(DOWN_2D, down, n) + down_types(UP_2D, up, n)
    return (middle(mid) and add_attention) or any("Attn" in t for t in stages)


UNCONDITIONAL = Space(
    "UNet2DModel",
    {
        "stages": (3, 2, 1),
        "widths": tuple(WIDTHS),
        "layers": (2, 1, 3),
        "down": tuple(DOWN_2D),
        "up": tuple(UP_2D),
        "downsample_type": ("conv", "resnet"),
        "upsample_type": ("conv", "resnet"),
        "mid": ("absent", "UNetMidBlock2D", "null"),
        "add_attention": (True, False),
        "attn_norm_num_groups": (None, "given"),
        "heads": ("number", "null"),
        "class": (None, "table", "timestep", "identity"),
        "resnet_time_scale_shift": ("default", "scale_shift"),
        "act_fn": ACTIVATIONS,
        "time_embedding_dim": (None, 20),
        "flip_sin_to_cos": (True, False),
        "freq_shift": (0, 1, 0.5),
        "downsample_padding": (1, 0),
        "size": ((8, 8), (8, 12), (7, 9)),
        "norm_eps": (1e-5, 1e-2, 1e-7),
        "groups": ("few", "many"),
        "center_input_sample": (False, True),
        "channels": ((3, 3), (1, 2)),
        "mid_block_scale_factor": (1, 2.5),
        "timestep": ("int", "fractional"),
    },
    (
        Rule(("size", "stages"), divides),  # UNet2DModel always doubles
        acts("downsample_padding", 1, samplers, "stages"),
        acts("mid_block_scale_factor", 1, middle, "mid"),
        acts("add_attention", True, middle, "mid"),
        acts("attn_norm_num_groups", None, lambda mid, add: middle(mid) and add, "mid", "add_attention"),
        acts("heads", "number", attends, "stages", "down", "up", "mid", "add_attention"),
        acts("downsample_type", "conv", resampled(DOWN_2D, ATTN), "stages", "down"),
        acts("upsample_type", "conv", resampled(UP_2D, ATTN_UP), "stages", "up"),
    ),
)


# ---------------------------------------------------------------- from a row to a model


@dataclass(frozen=True)
class Configuration:
    name: str
    model_class: str
    config: dict[str, Any]
    row: Row

    @property
    def size(self) -> tuple[int, int]:
        return self.row["size"]


def mirrored_depths(kind: str, layers: list[int]) -> dict[str, Any]:
    n = len(layers)
    if kind == "nested":  # a number a layer, down and up (which has one more layer, in up order)
        down = [[(i + j) % 3 for j in range(count)] for i, count in enumerate(layers)]
        up = [[(i + j + 1) % 3 for j in range(count + 1)] for i, count in enumerate(reversed(layers))]
        return {"transformer_layers_per_block": down, "reverse_transformer_layers_per_block": up}
    by_stage = {"one": 1, "two": 2, "zero": 0, "stage list": [2, 1, 3][:n]}
    return {"transformer_layers_per_block": by_stage[kind]}


def shared_arguments(row: Row, widths: list[int]) -> dict[str, Any]:
    odd = row["widths"] == "odd"
    same = ("resnet_time_scale_shift", "act_fn", "time_embedding_dim", "flip_sin_to_cos", "freq_shift", "norm_eps")
    arguments = {key: row[key] for key in (*same, "downsample_padding", "center_input_sample", "mid_block_scale_factor")}
    arguments |= {
        "sample_size": list(row["size"]),
        "block_out_channels": widths,
        "in_channels": row["channels"][0],
        "out_channels": row["channels"][1],
        "norm_num_groups": {"few": 3 if odd else 4, "many": 9 if odd else 8}[row["groups"]],
    }
    if row["mid"] != "absent":
        arguments["mid_block_type"] = None if row["mid"] == "null" else row["mid"]
    if row["class"] == "table":
        arguments["num_class_embeds"] = CLASSES
    elif row["class"]:
        arguments["class_embed_type"] = row["class"]
    return arguments


def conditional_arguments(row: Row) -> dict[str, Any]:
    n = row["stages"]
    odd = row["widths"] == "odd"
    layers = {"two": [2] * n, "one": [1] * n, "tuple": [2, 1, 3][:n]}[row["layers"]]
    same = ("use_linear_projection", "class_embeddings_concat", "time_embedding_act_fn", "timestep_post_act", "conv_in_kernel")
    more = ("conv_out_kernel", "resnet_out_scale_factor", "resnet_skip_time_act", "upcast_attention")
    arguments = shared_arguments(row, WIDTHS[row["widths"]][:n]) | {key: row[key] for key in (*same, *more)}
    arguments |= mirrored_depths(row["depth"], layers) | {
        "down_block_types": down_types(DOWN, row["down"], n),
        "up_block_types": down_types(UP, row["up"], n),
        "layers_per_block": layers if row["layers"] == "tuple" else layers[0],
        "attention_head_dim": {"one": 1, "number": 3 if odd else 4, "list": ([3, 9, 1] if odd else [2, 4, 1])[:n]}[row["heads"]],
        "only_cross_attention": [True, False, True][:n] if row["only_cross_attention"] == "list" else row["only_cross_attention"],
        "cross_attention_dim": [CONTEXT] * n if row["context"] == "list" else CONTEXT,
    }
    if row["time_cond"]:
        arguments["time_cond_proj_dim"] = CONDITION
    if row["addition"]:
        arguments |= {"addition_embed_type": row["addition"], "addition_time_embed_dim": ADDED_DIM}
    if row["addition"] or row["class"] in ("projection", "simple_projection"):
        arguments["projection_class_embeddings_input_dim"] = PROJECTION_DIM
    return arguments


def unconditional_arguments(row: Row) -> dict[str, Any]:
    n = row["stages"]
    odd = row["widths"] == "odd"
    arguments = shared_arguments(row, WIDTHS[row["widths"]][:n])
    return arguments | {
        "down_block_types": down_types(DOWN_2D, row["down"], n),
        "up_block_types": down_types(UP_2D, row["up"], n),
        "layers_per_block": row["layers"],
        "downsample_type": row["downsample_type"],
        "upsample_type": row["upsample_type"],
        "add_attention": row["add_attention"],
        "attn_norm_num_groups": (3 if odd else 2) if row["attn_norm_num_groups"] else None,
        "attention_head_dim": None if row["heads"] == "null" else 3 if odd else 4,
    }


def configurations(space: Space, seed: int = SEED) -> list[Configuration]:
    conditional = space.name == "UNet2DConditionModel"
    build, stem = (conditional_arguments, "conditional") if conditional else (unconditional_arguments, "unconditional")
    return [Configuration(f"{stem} {i}", space.name, build(row), row) for i, row in enumerate(rows(space, seed))]


if __name__ == "__main__":
    for space in (CONDITIONAL, UNCONDITIONAL):
        made = configurations(space)
        covered, possible = count(pairs_of(space, [c.row for c in made])), count(all_pairs(space))
        for c in made:
            print(json.dumps({"name": c.name, "config": c.config}))
        print(f"# {space.name}: {len(made)} configurations, {covered} of {possible} pairs")
