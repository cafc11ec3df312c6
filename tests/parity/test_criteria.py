"""Criteria against plain loops over diffusers' own U-Net: autograd for gradients, one forward a removal for the rest."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Callable

import numpy as np
import pytest
import small_models
import torch
from diffusers import UNet2DConditionModel
from program import ok
from safetensors.numpy import save_file

SAMPLES = 3


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A U-Net whose second transformers have two blocks, so that there are shells, and inputs for it."""
    folder = tmp_path_factory.mktemp("criteria")
    torch.manual_seed(0)
    config = small_models.UNET | {"transformer_layers_per_block": (1, 2, 1, 1)}
    unet = UNet2DConditionModel(**config).eval()
    unet.save_pretrained(folder / "unet")
    random = np.random.default_rng(0)
    tensors = {
        "sample": random.standard_normal((SAMPLES, 4, 8, 8)),
        "timestep": np.array([10, 400, 990]),
        "encoder_hidden_states": random.standard_normal((SAMPLES, 5, 16)),
        "noise": random.standard_normal((SAMPLES, 4, 8, 8)),
    }
    tensors = {k: v.astype(np.int64 if k == "timestep" else np.float32) for k, v in tensors.items()}
    save_file(tensors, folder / "cal.safetensors")
    return {"folder": folder, "unet": unet, "inputs": {k: torch.from_numpy(v) for k, v in tensors.items()}}


def score(world: dict[str, Any], criterion: str, *flags: str) -> dict[str, Any]:
    out = world["folder"] / f"{criterion}.json"
    calibration = () if criterion in ("magnitude", "random") else ("--calibration", world["folder"] / "cal.safetensors")
    ok("score", world["folder"] / "unet", *calibration, "--criterion", criterion, "-o", out, "--overwrite", *flags)
    return json.loads(out.read_text())


def values(scores: dict[str, Any]) -> np.ndarray:
    return np.array([row["score"] for row in (*scores["units"], *scores["shells"])])


def run(world: dict[str, Any]) -> torch.Tensor:
    """[N, C, H, W], one sample at a time."""
    inputs = world["inputs"]
    return torch.cat([
        world["unet"](inputs["sample"][i : i + 1], inputs["timestep"][i], inputs["encoder_hidden_states"][i : i + 1]).sample
        for i in range(SAMPLES)
    ])  # fmt: skip


def names(scores: dict[str, Any]) -> list[str]:
    return [unit["layer"] for unit in scores["units"]] + [shell["path"] for shell in scores["shells"]]


def gone(world: dict[str, Any], scores: dict[str, Any], name: str) -> dict[str, torch.nn.Parameter]:
    """The parameters that leave with a row: all of the layer but a shortcut, and the shell with its only block."""
    prefix = name
    if ".transformer_blocks." in name:
        shell = name.split(".transformer_blocks.")[0]
        if len(world["unet"].get_submodule(shell).transformer_blocks) == 1:
            prefix = shell
    return {
        key: parameter
        for key, parameter in world["unet"].named_parameters()
        if key.startswith(prefix + ".") and ".conv_shortcut." not in key
    }


class Removed:
    """Diffusers' own module with a layer bypassed by hooks."""

    def __init__(self, world: dict[str, Any], name: str) -> None:
        unet = world["unet"]
        module = unet.get_submodule(name)
        if ".transformer_blocks." in name:
            shell = unet.get_submodule(name.split(".transformer_blocks.")[0])
            module = shell if len(shell.transformer_blocks) == 1 else module
        self.module, self.forward = module, module.forward

    def __enter__(self) -> None:
        module = self.module

        def bypass(hidden: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
            if hasattr(module, "conv_shortcut"):
                hidden = hidden if module.conv_shortcut is None else module.conv_shortcut(hidden)
                return hidden / module.output_scale_factor
            return (hidden,) if hasattr(module, "transformer_blocks") else hidden

        module.forward = bypass

    def __exit__(self, *_: Any) -> None:
        self.module.forward = self.forward


def close(ours: np.ndarray, theirs: Any, tolerance: float, floor: float = 0.0) -> None:
    theirs = np.asarray(theirs, dtype=float)
    np.testing.assert_allclose(ours, theirs, rtol=tolerance, atol=floor * np.abs(theirs).max())


@pytest.fixture(scope="module")
def outputs(world: dict[str, Any]) -> tuple[torch.Tensor, list[torch.Tensor], list[str]]:
    scores = score(world, "random")
    with torch.no_grad():
        whole = run(world)
        without = []
        for name in names(scores):
            with Removed(world, name):
                without.append(run(world))
    return whole, without, names(scores)


@pytest.mark.parametrize("criterion", ["output_loss", "gram"])
def test_output_loss(criterion: str, world: dict[str, Any], outputs: Any) -> None:
    whole, without, _ = outputs
    scores = score(world, criterion)
    assert scores["criterion"] == criterion and scores["shells"]
    differences = torch.stack([(w - whole).double().flatten() for w in without])
    close(values(scores), (differences**2).mean(1), 1e-3, 1e-5)
    gram = (differences @ differences.T / differences.shape[1]).numpy()
    assert np.abs(np.array(scores["gram"]) - gram).max() <= 1e-4 * np.abs(gram).max()


def test_task_loss(world: dict[str, Any], outputs: Any) -> None:
    whole, without, _ = outputs
    noise = world["inputs"]["noise"]
    loss = lambda output: ((output - noise).double() ** 2).mean().item()  # noqa: E731
    close(values(score(world, "task_loss")), [loss(w) - loss(whole) for w in without], 1e-3, 1e-5)


def gradients(world: dict[str, Any]) -> list[dict[str, torch.Tensor]]:
    """Of each sample's loss."""
    found = []
    inputs = world["inputs"]
    for i in range(SAMPLES):
        world["unet"].zero_grad()
        output = world["unet"](inputs["sample"][i : i + 1], inputs["timestep"][i], inputs["encoder_hidden_states"][i : i + 1]).sample
        ((output - inputs["noise"][i : i + 1]) ** 2).mean().backward()
        found.append({key: p.grad.double().clone() for key, p in world["unet"].named_parameters()})
    return found


@pytest.mark.parametrize(
    ("criterion", "of_parameter"),
    [("taylor", lambda g, w: (g * w).abs().sum()), ("fisher", lambda g, w: ((g * w) ** 2).sum() / 2)],
)
def test_gradient_criteria(criterion: str, of_parameter: Callable[..., torch.Tensor], world: dict[str, Any]) -> None:
    scores = score(world, criterion)
    samples = gradients(world)
    expected = []
    for name in names(scores):
        each = [sum(of_parameter(g[k], p.detach().double()).item() for k, p in gone(world, scores, name).items()) for g in samples]
        expected.append(each)
    ours = values(scores)
    close(ours, np.mean(expected, axis=1), 1e-3)
    errors = np.std(expected, axis=1, ddof=1) / np.sqrt(SAMPLES)
    close(np.array([row["stderr"] for row in (*scores["units"], *scores["shells"])]), errors, 1e-2)


def test_magnitude(world: dict[str, Any]) -> None:
    scores = score(world, "magnitude")
    expected = [sum(p.detach().double().abs().sum().item() for p in gone(world, scores, name).values()) for name in names(scores)]
    close(values(scores), expected, 1e-5)
    assert scores["samples"] == 0


def test_block_influence(world: dict[str, Any]) -> None:
    scores = score(world, "block_influence")
    first = lambda x: x[0] if isinstance(x, tuple) else getattr(x, "sample", x)  # noqa: E731
    cosines: dict[str, list[float]] = {name: [] for name in names(scores)}

    def watch(name: str) -> Any:
        removed = Removed(world, name)

        def keep(module: Any, args: Any, kwargs: Any, output: Any) -> None:
            with removed:
                without = first(module.forward(args[0] if args else kwargs["hidden_states"]))
            channels = 1 if without.dim() == 4 else 2
            cosines[name].append(torch.cosine_similarity(first(output), without, dim=channels).mean().item())

        return removed.module.register_forward_hook(keep, with_kwargs=True)

    handles = [watch(name) for name in cosines]
    with torch.no_grad():
        run(world)
    for handle in handles:
        handle.remove()
    for name, ours in zip(names(scores), values(scores)):
        assert len(cosines[name]) == SAMPLES
        assert ours == pytest.approx(1 - np.mean(cosines[name]), rel=1e-3, abs=1e-5), name


def test_random_is_its_seed(world: dict[str, Any]) -> None:
    one, same, other = (values(score(world, "random", "--seed", seed)) for seed in ("1", "1", "2"))
    np.testing.assert_array_equal(one, same)
    assert not np.array_equal(one, other)
    scores = score(world, "random")
    by_layer = {unit["layer"]: unit["score"] for unit in scores["units"]}
    for shell in scores["shells"]:
        assert shell["score"] == pytest.approx(sum(by_layer[layer] for layer in shell["units"]))
    assert all(0 <= value < 1 for value in by_layer.values())


def test_bins_weighted_by_samples_sum_to_the_whole(world: dict[str, Any]) -> None:
    for criterion in ("output_loss", "task_loss", "block_influence"):
        scores = score(world, criterion, "--bins", "4")
        bins = scores["bins"]
        assert [b["timesteps"] for b in bins] == [[0, 250], [250, 500], [500, 750], [750, 1000]]
        assert [b["samples"] for b in bins] == [1, 1, 0, 1]
        empty = bins[2]["units"][0]
        assert empty["score"] is None and "no calibration sample" in empty["why_null"] and "gram" not in bins[2]
        full = [b for b in bins if b["samples"] > 0]
        total = sum(b["samples"] * values(b) for b in full) / SAMPLES
        close(total, values(scores), 1e-9)
        if criterion == "output_loss":
            gram = sum(b["samples"] * np.array(b["gram"]) for b in full) / SAMPLES
            assert np.abs(gram - np.array(scores["gram"])).max() <= 1e-12 * np.abs(gram).max()
