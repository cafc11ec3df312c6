"""A diffusers U-Net without some of its layers, as `laptopdiff export` writes it where no config of diffusers' own can.

config.json is the full model's, with `removed_layers`: pairs of a module's path in the full model and what became of it.
Paths do not shift when a neighbour goes, so tensors keep the names that they have in the full model. Load with
`AutoModel.from_pretrained(folder, trust_remote_code=True)`, or the pipeline with
`DiffusionPipeline.from_pretrained(folder, trust_remote_code=True)`.
"""

import shutil
import sys
from pathlib import Path

import torch
from diffusers import Transformer2DModel, UNet2DConditionModel, UNet2DModel
from torch import nn


# diffusers loads this file under a name that depends on where it lay, and a pipeline that is saved again writes the
# class's module into its index. By this name the index finds the file that is saved with the weights.
MODULE = "laptopdiff_pruned_unet"
sys.modules.setdefault(MODULE, sys.modules[__name__])


class Identity(nn.Module):
    """In place of a ResNet, an attention or a transformer block."""

    def forward(self, hidden_states, *args, **kwargs):
        return hidden_states


class IdentityTransformer(nn.Module):
    """In place of a whole Transformer2DModel, which returns a tuple."""

    def forward(self, hidden_states, *args, **kwargs):
        return (hidden_states,)


class Zero(nn.Module):
    """In place of an attention or feed-forward whose result is added to its input."""

    def forward(self, hidden_states, *args, **kwargs):
        return torch.zeros_like(hidden_states)


class Shortcut(nn.Module):
    """What is left of a ResNet or an attention that changes the channel count or divides its sum."""

    def __init__(self, layer):
        super().__init__()
        self.conv_shortcut = getattr(layer, "conv_shortcut", None)
        resnet = hasattr(layer, "output_scale_factor")
        self.output_scale_factor = layer.output_scale_factor if resnet else layer.rescale_output_factor

    def forward(self, hidden_states, *args, **kwargs):
        if self.conv_shortcut is not None:
            hidden_states = self.conv_shortcut(hidden_states)
        return hidden_states / self.output_scale_factor


NORM_OF = {"attn1": "norm1", "attn2": "norm2", "ff": "norm3"}


def remove_layer(model, path, how):
    """`skip`: the identity. `shortcut`: only its conv_shortcut. `zero`: one part of a transformer block. `drop`: gone with
    its skip connection."""
    parent_path, _, name = path.rpartition(".")
    parent = model.get_submodule(parent_path)
    if how == "skip":
        transformer = isinstance(model.get_submodule(path), Transformer2DModel)
        setattr(parent, name, IdentityTransformer() if transformer else Identity())
    elif how == "shortcut":
        setattr(parent, name, Shortcut(model.get_submodule(path)))
    elif how == "zero":
        setattr(parent, name, Zero())
        setattr(parent, NORM_OF[name], nn.Identity())
    elif how != "drop":
        raise ValueError(f"removed_layers: {path}: unknown way to remove: {how}")
    elif isinstance(parent, nn.ModuleList):
        delattr(parent, name)  # unlike `del parent[i]`, this leaves the other layers' names as they are
    else:
        setattr(parent, name, None)


class PrunedMixin:
    # The constructor stays diffusers' own: a config is filtered by its signature.
    @classmethod
    def from_config(cls, config=None, return_unused_kwargs=False, **kwargs):
        own = {key: config[key] for key in ("removed_layers", "auto_map") if key in config}
        plain = {key: value for key, value in config.items() if key not in own}
        model, unused = super().from_config(plain, return_unused_kwargs=True, **kwargs)
        for path, how in own.get("removed_layers", ()):
            remove_layer(model, path, how)
        if hasattr(model, "num_upsamplers"):
            model.num_upsamplers = sum(block.upsamplers is not None for block in model.up_blocks)
        model.register_to_config(**own)
        return (model, unused) if return_unused_kwargs else model

    def save_pretrained(self, save_directory, *args, **kwargs):
        """With this file beside the weights, without which they do not load."""
        super().save_pretrained(save_directory, *args, **kwargs)
        source, copy = Path(__file__).resolve(), Path(save_directory).resolve() / f"{MODULE}.py"
        if source != copy:
            shutil.copyfile(source, copy)


class PrunedUNet2DConditionModel(PrunedMixin, UNet2DConditionModel):
    __module__ = MODULE


class PrunedUNet2DModel(PrunedMixin, UNet2DModel):
    __module__ = MODULE
