"""unet/ against diffusers over all its options: every two of them meet in one of the configurations of unet_matrix.py."""

from __future__ import annotations

import copy
import itertools
import json
import os
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import diffusers
import pairwise
import pytest
import torch
import unet_matrix as matrix
from diffusers.models.activations import get_activation
from diffusers.models.attention_processor import Attention
from safetensors.torch import load_file, save_file

ROOT = Path(__file__).resolve().parents[2]
BUILD = Path(os.environ.get("LAPTOPDIFF_BUILD", ROOT / "build"))
TOLERANCE = 1e-5  # of the reference's range
BAD_INPUT = 3

SPACES = {space.name: space for space in (matrix.CONDITIONAL, matrix.UNCONDITIONAL)}
CASES = [case for space in SPACES.values() for case in matrix.configurations(space)]
TAPPED = re.compile(
    r"conv_in|conv_norm_out|mid_block|(down|up)_blocks\.\d+|"
    r".*\.(resnets|attentions|transformer_blocks|downsamplers|upsamplers)\.\d+"
)

Tensors = dict[str, torch.Tensor]


def name_of(case: matrix.Configuration) -> str:
    return case.name


def run(program: str, *arguments: str | Path) -> subprocess.CompletedProcess:
    path = BUILD / program
    assert path.is_file(), f"no {path}; build it, or set LAPTOPDIFF_BUILD"
    return subprocess.run([path, *arguments], capture_output=True, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"})


def probe(folder: Path, jobs: list[dict[str, Any]]) -> list[Any]:
    (folder / "job.json").write_text(json.dumps({"jobs": jobs}), encoding="utf-8")
    done = run("laptopdiff_unet_probe", folder / "job.json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def make_model(case: matrix.Configuration) -> torch.nn.Module:
    torch.manual_seed(0)
    model = getattr(diffusers, case.model_class)(**case.config).eval()
    # Random norms too: the defaults of 1 and 0 would hide a swapped gain and bias.
    for parameter in model.parameters():
        if parameter.ndim == 1:
            parameter.data += 0.1 * torch.randn_like(parameter)
    return model


def make_inputs(case: matrix.Configuration, model: torch.nn.Module) -> Tensors:
    torch.manual_seed(1)
    row, config, batch = case.row, model.config, 2
    times = {"int": torch.tensor([7, 981]), "fractional": torch.tensor([0.25, 980.6])}
    inputs = {"sample": torch.randn(batch, config.in_channels, *case.size), "timestep": times[row["timestep"]]}
    width = config.time_embedding_dim or 4 * config.block_out_channels[0]
    projected = torch.randn(batch, matrix.PROJECTION_DIM)
    labels = {
        "table": torch.tensor([0, matrix.CLASSES - 1]),
        "timestep": torch.tensor([3.0, 705.3]),  # which bf16 cannot hold
        "identity": torch.randn(batch, width),
        "projection": projected,
        "simple_projection": projected,
    }
    if row["class"]:
        inputs["class_labels"] = labels[row["class"]]
    if case.model_class == "UNet2DConditionModel":
        inputs["encoder_hidden_states"] = torch.randn(batch, row["tokens"], matrix.CONTEXT)
        if row["addition"]:
            inputs["text_embeds"] = torch.randn(batch, matrix.POOLED)
            inputs["time_ids"] = torch.tensor([[64.0, 96, 0, 3, 64, 96], [1023, 1000, 17, 0, 512, 768]])
        if row["time_cond"] == "given":
            inputs["timestep_cond"] = torch.randn(batch, matrix.CONDITION)
    return inputs


def diffusers_forward(model: torch.nn.Module, inputs: Tensors) -> torch.Tensor:
    plain = {k: v for k, v in inputs.items() if k not in ("sample", "timestep", "text_embeds", "time_ids")}
    if "text_embeds" in inputs:
        plain["added_cond_kwargs"] = {k: inputs[k] for k in ("text_embeds", "time_ids")}
    return model(inputs["sample"], inputs["timestep"], **plain).sample


class MacCounter:
    """Multiply-accumulates of a forward pass, from hooks on every convolution, linear layer and attention."""

    def __init__(self, model: torch.nn.Module) -> None:
        self.macs = 0
        for module in model.modules():
            if isinstance(module, (torch.nn.Conv2d, torch.nn.Linear)):
                module.register_forward_hook(self.add_weights)
            elif isinstance(module, Attention):
                module.register_forward_pre_hook(self.add_products, with_kwargs=True)

    def add_weights(self, module: torch.nn.Module, _inputs: Any, output: torch.Tensor) -> None:
        self.macs += output.numel() * module.weight[0].numel()

    def add_products(self, module: Attention, arguments: tuple, named: dict[str, Any]) -> None:
        queries = arguments[0]
        tokens = queries.shape[1] if queries.ndim == 3 else queries[0, 0].numel()
        text = named.get("encoder_hidden_states")
        self.macs += 2 * queries.shape[0] * tokens * (tokens if text is None else text.shape[1]) * module.inner_dim


@dataclass
class Reference:
    """A configuration as diffusers runs it, and the folder that holds its model and inputs."""

    case: matrix.Configuration
    folder: Path
    model: torch.nn.Module
    inputs: Tensors
    sample: torch.Tensor
    taps: Tensors
    macs: int  # of batch 1


def tap_modules(model: torch.nn.Module) -> Tensors:
    """Fills the dictionary it returns as the model runs."""
    taps: Tensors = {}

    def keep(path: str):
        def hook(_module: torch.nn.Module, _inputs: Any, output: Any) -> None:
            value = output[0] if isinstance(output, tuple) else getattr(output, "sample", output)
            taps[path] = value.detach()

        return hook

    for path, module in model.named_modules():
        if TAPPED.fullmatch(path):
            module.register_forward_hook(keep(path))
    return taps


@torch.no_grad()
def make_reference(case: matrix.Configuration, folder: Path) -> Reference:
    model = make_model(case)
    inputs = make_inputs(case, model)
    model.save_pretrained(folder / "model")
    save_file(inputs, folder / "in.safetensors")
    counter, taps = MacCounter(model), tap_modules(model)
    sample = diffusers_forward(model, inputs)
    # The module ends before its activation, which UNet2DModel does not take from act_fn.
    conditional = case.model_class == "UNet2DConditionModel"
    taps["conv_norm_out"] = get_activation(case.config["act_fn"] if conditional else "silu")(taps["conv_norm_out"])
    return Reference(case, folder, model, inputs, sample, taps, counter.macs // 2)


def forward(reference: Reference, *flags: str) -> Tensors:
    inputs, output = reference.folder / "in.safetensors", reference.folder / "out.safetensors"
    done = run("laptopdiff", "forward", reference.folder / "model", "--inputs", inputs, "-o", output, "--overwrite", *flags)
    assert done.returncode == 0, done.stderr
    assert not done.stderr, "diffusers writes no key that we do not know"
    return load_file(output)


def error_of(got: torch.Tensor, want: torch.Tensor) -> float:
    """The largest difference over the reference's range."""
    assert got.shape == want.shape
    return float((got - want).abs().max() / (want.max() - want.min()))


def representatives(n: int, usable=lambda case: True) -> list[matrix.Configuration]:
    """The n configurations that hold the most different options together, found greedily."""
    seen: set = set()
    chosen: list[matrix.Configuration] = []
    for _ in range(n):
        chosen.append(max(filter(usable, CASES), key=lambda c: len({(c.model_class, i) for i in c.row.items()} - seen)))
        seen |= {(chosen[-1].model_class, item) for item in chosen[-1].row.items()}
    return chosen


def with_fast_part(cases: list[matrix.Configuration], fast: list[matrix.Configuration]) -> list:
    """Parameters of which all but the fast ones are marked slow."""
    return [case if case in fast else pytest.param(case, marks=pytest.mark.slow) for case in cases]


@pytest.fixture(scope="module", params=with_fast_part(CASES, representatives(6)), ids=name_of)
def reference(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Reference:
    return make_reference(request.param, tmp_path_factory.mktemp("unet"))


@pytest.fixture(scope="module")
def counts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """Every configuration's parameters and MACs by its name; the probe is given no weights to look at."""
    folder, jobs = tmp_path_factory.mktemp("counts"), []
    for i, case in enumerate(CASES):
        config = folder / f"{i}.json"
        config.write_text(json.dumps({"_class_name": case.model_class} | case.config), encoding="utf-8")
        size = dict(zip(("height", "width"), case.size, strict=True))
        jobs.append({"op": "count", "config": str(config), "tokens": case.row.get("tokens", 77)} | size)
    return dict(zip(map(name_of, CASES), probe(folder, jobs), strict=True))


# ---------------------------------------------------------------- the matrix itself


@pytest.mark.parametrize(("name", "pairs"), [("UNet2DConditionModel", 6058), ("UNet2DModel", 2451)])
def test_every_two_options_meet_in_a_configuration(name: str, pairs: int) -> None:
    space = SPACES[name]
    chosen = [case.row for case in CASES if case.model_class == name]
    assert all(rule.allows(row) for row in chosen for rule in space.rules)
    assert pairwise.pairs_of(space, chosen) == pairwise.all_pairs(space)
    assert pairwise.count(pairwise.pairs_of(space, chosen)) == pairs
    assert len(CASES) >= 60


def test_the_generator_covers_what_brute_force_finds_possible() -> None:
    rules = (
        pairwise.Rule(("a", "b"), lambda a, b: a + b != 3),
        pairwise.Rule(("b", "c", "d"), lambda b, c, d: not (c and d) or b == 1),
    )
    space = pairwise.Space("toy", {"a": (0, 1, 2), "b": (0, 1, 2), "c": (False, True), "d": (False, True), "e": (0, 1)}, rules)
    allowed = [dict(zip(space.factors, levels, strict=True)) for levels in itertools.product(*space.factors.values())]
    allowed = [row for row in allowed if all(rule.allows(row) for rule in rules)]
    assert pairwise.all_pairs(space) == pairwise.pairs_of(space, allowed)
    assert pairwise.pairs_of(space, pairwise.rows(space)) == pairwise.pairs_of(space, allowed)
    assert len(pairwise.rows(space)) < len(allowed) / 2


# ---------------------------------------------------------------- numbers


def test_tensors_are_those_of_diffusers_by_name_and_shape(reference: Reference, counts: dict) -> None:
    count, state = counts[reference.case.name], reference.model.state_dict()
    assert count["tensors"] == {name: list(tensor.shape) for name, tensor in state.items()}
    assert count["params"] == sum(tensor.numel() for tensor in state.values())


def test_macs_are_those_counted_in_a_forward_of_diffusers(reference: Reference, counts: dict) -> None:
    counted = reference.macs
    if reference.case.row.get("time_cond") == "left out":  # ours counts the layer whether or not it is used
        counted += reference.model.time_embedding.cond_proj.weight.numel()
    assert counts[reference.case.name]["macs"] == counted


def test_output_and_every_stage_and_unit_are_those_of_diffusers(reference: Reference) -> None:
    ours = forward(reference, "--taps", "all")
    assert error_of(ours.pop("sample"), reference.sample) <= TOLERANCE
    assert ours.keys() == reference.taps.keys()
    errors = {path: error_of(value, reference.taps[path]) for path, value in ours.items()}
    assert {path: error for path, error in errors.items() if not error <= TOLERANCE} == {}


def runs_in_half(case: matrix.Configuration) -> bool:
    """diffusers' UNet2DModel hands its class embedding an f32 sinusoid, whatever the model's dtype."""
    return case.model_class == "UNet2DConditionModel" or case.row["class"] != "timestep"


@torch.no_grad()
def in_dtype(exact: Reference, dtype: torch.dtype) -> torch.Tensor:
    """What diffusers makes of model and inputs in this dtype."""
    kept = ("timestep", "time_ids") + (("class_labels",) if exact.case.row["class"] in ("table", "timestep") else ())
    rounded = {k: v if k in kept else v.to(dtype) for k, v in exact.inputs.items()}
    return diffusers_forward(copy.deepcopy(exact.model).to(dtype), rounded).float()


def assert_as_near_to_f32_as_diffusers(exact: Reference, dtype: torch.dtype, flag: str) -> None:
    theirs, ours = in_dtype(exact, dtype), forward(exact, "--dtype", flag)["sample"]

    def rms(a: torch.Tensor) -> float:
        return float((a - exact.sample).square().mean().sqrt())

    assert rms(ours) <= 1.2 * rms(theirs)
    assert error_of(ours, exact.sample) <= 2 * error_of(theirs, exact.sample)


def test_bf16_is_as_near_to_f32_as_diffusers_in_bf16(reference: Reference) -> None:
    if runs_in_half(reference.case):
        assert_as_near_to_f32_as_diffusers(reference, torch.bfloat16, "bf16")
        return
    with pytest.raises(RuntimeError, match="dtype"):
        in_dtype(reference, torch.bfloat16)
    assert error_of(forward(reference, "--dtype", "bf16")["sample"], reference.sample) <= 0.05


@pytest.mark.parametrize("case", with_fast_part(representatives(8, runs_in_half), representatives(2, runs_in_half)), ids=name_of)
def test_f16_is_as_near_to_f32_as_diffusers_in_f16(case: matrix.Configuration, tmp_path: Path) -> None:
    assert_as_near_to_f32_as_diffusers(make_reference(case, tmp_path), torch.float16, "f16")


@pytest.fixture(scope="module")
def gradients(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Reference, float, Tensors]]:
    """Six configurations: the reference, our loss and our gradients."""
    references, jobs = [], []
    for case in representatives(6):
        folder = tmp_path_factory.mktemp("gradients")
        made = make_reference(case, folder)
        made.inputs["noise"] = torch.randn(made.sample.shape)  # not randn_like: that may keep channels-last strides
        save_file(made.inputs, folder / "in.safetensors")
        names = {"model": "model", "inputs": "in.safetensors", "output": "gradients.safetensors"}
        jobs.append({"op": "gradients"} | {key: str(folder / name) for key, name in names.items()})
        references.append(made)
    results = probe(references[0].folder, jobs)
    return {
        made.case.name: (made, result["loss"], load_file(made.folder / "gradients.safetensors"))
        for made, result in zip(references, results, strict=True)
    }


@pytest.mark.slow
@pytest.mark.parametrize("case", representatives(6), ids=name_of)
def test_gradients_are_those_of_autograd_through_diffusers(case: matrix.Configuration, gradients: dict) -> None:
    made, our_loss, ours = gradients[case.name]
    inputs = {k: v.clone().requires_grad_(k in ("sample", "encoder_hidden_states")) for k, v in made.inputs.items()}
    noise = inputs.pop("noise")
    loss = torch.nn.functional.mse_loss(diffusers_forward(made.model, inputs), noise)
    loss.backward()
    theirs = {k: v.grad for k, v in (*made.model.named_parameters(), *inputs.items()) if v.grad is not None}
    assert our_loss == pytest.approx(float(loss), rel=1e-5)
    assert ours.keys() == theirs.keys()
    # Some gradients are zero but for rounding (a key's bias: softmax does not see it), so no range of their own.
    least = 1e-3 * max(float(g.abs().max()) for g in theirs.values())
    errors = {k: float((ours[k] - g).abs().max()) / max(float(g.abs().max()), least) for k, g in theirs.items()}
    assert {k: error for k, error in errors.items() if not error <= 1e-4} == {}


# ---------------------------------------------------------------- what is refused

SMALL = {"block_out_channels": [8, 16], "norm_num_groups": 4, "layers_per_block": 1}
SD = SMALL | {
    "cross_attention_dim": 12,
    "attention_head_dim": 4,
    "down_block_types": ["CrossAttnDownBlock2D", "DownBlock2D"],
    "up_block_types": ["UpBlock2D", "CrossAttnUpBlock2D"],
}
DDPM = SMALL | {
    "attention_head_dim": 4,
    "down_block_types": ["DownBlock2D", "AttnDownBlock2D"],
    "up_block_types": ["AttnUpBlock2D", "UpBlock2D"],
}
MODELS = {"UNet2DConditionModel": SD, "UNet2DModel": DDPM}
WIDE = {"block_out_channels": [32, 64]}
SKIP = {"down_block_types": ["SkipDownBlock2D", "AttnSkipDownBlock2D"], "up_block_types": ["AttnSkipUpBlock2D", "SkipUpBlock2D"]}

# (field that the error names, class, what differs from a small SD or DDPM model): diffusers makes these models, we do not.
UNSUPPORTED: list[tuple[str, str, dict[str, Any]]] = [
    ("dual_cross_attention", "UNet2DConditionModel", {"dual_cross_attention": True}),
    ("encoder_hid_dim", "UNet2DConditionModel", {"encoder_hid_dim": 6}),
    ("encoder_hid_dim", "UNet2DConditionModel", {"encoder_hid_dim": 6, "encoder_hid_dim_type": "text_image_proj"}),
    ("encoder_hid_dim", "UNet2DConditionModel", {"encoder_hid_dim": 6, "encoder_hid_dim_type": "image_proj"}),
    ("addition_embed_type", "UNet2DConditionModel", {"addition_embed_type": "text", "addition_embed_type_num_heads": 4}),
    ("addition_embed_type", "UNet2DConditionModel", {"addition_embed_type": "text_image"}),
    ("encoder_hid_dim", "UNet2DConditionModel", {"addition_embed_type": "image", "encoder_hid_dim": 6}),
    ("attention_type", "UNet2DConditionModel", {"attention_type": "gated"}),
    ("cross_attention_norm", "UNet2DConditionModel", {"cross_attention_norm": "layer_norm"}),
    ("time_embedding_type", "UNet2DConditionModel", {"time_embedding_type": "fourier"}),
    ("mid_block_type", "UNet2DConditionModel", {"mid_block_type": "UNetMidBlock2DSimpleCrossAttn"}),
    ("down_block_types", "UNet2DConditionModel", {"down_block_types": ["SimpleCrossAttnDownBlock2D", "DownBlock2D"]}),
    ("up_block_types", "UNet2DConditionModel", {"up_block_types": ["UpBlock2D", "SimpleCrossAttnUpBlock2D"]}),
    ("down_block_types", "UNet2DConditionModel", WIDE | {"down_block_types": ["KDownBlock2D", "DownBlock2D"]}),
    ("up_block_types", "UNet2DConditionModel", WIDE | {"up_block_types": ["UpBlock2D", "KUpBlock2D"]}),
    ("attention_head_dim", "UNet2DConditionModel", {"attention_head_dim": 3}),
    ("conv_in_kernel", "UNet2DConditionModel", {"conv_in_kernel": 4}),
    ("conv_out_kernel", "UNet2DConditionModel", {"conv_out_kernel": 2}),
    ("downsample_padding", "UNet2DConditionModel", {"downsample_padding": 2}),
    ("cross_attention_dim", "UNet2DConditionModel", {"cross_attention_dim": [12, 16]}),
    ("class_embeddings_concat", "UNet2DConditionModel", {"class_embeddings_concat": True}),
    ("down_block_types", "UNet2DModel", WIDE | SKIP),
    ("time_embedding_type", "UNet2DModel", {"time_embedding_type": "fourier"}),
    ("time_embedding_type", "UNet2DModel", {"time_embedding_type": "learned", "num_train_timesteps": 10}),
    ("class_embed_type", "UNet2DModel", {"class_embed_type": "projection"}),
    ("attention_head_dim", "UNet2DModel", {"attention_head_dim": 3}),
    ("downsample_type", "UNet2DModel", {"downsample_type": "fir"}),
    ("upsample_type", "UNet2DModel", {"upsample_type": "fir"}),
]
# diffusers itself cannot make these.
IMPOSSIBLE: list[tuple[str, str, dict[str, Any]]] = [
    ("num_attention_heads", "UNet2DConditionModel", {"num_attention_heads": 4}),
    ("attention_head_dim", "UNet2DConditionModel", {"attention_head_dim": None}),
    ("norm_num_groups", "UNet2DConditionModel", {"norm_num_groups": None}),
    ("norm_num_groups", "UNet2DConditionModel", {"norm_num_groups": 5}),
    ("cross_attention_dim", "UNet2DConditionModel", {"cross_attention_dim": None}),
    ("act_fn", "UNet2DConditionModel", {"act_fn": "tanh"}),
    ("class_embed_type", "UNet2DConditionModel", {"class_embed_type": "projection"}),
    ("resnet_time_scale_shift", "UNet2DConditionModel", {"resnet_time_scale_shift": "ada_group"}),
    ("layers_per_block", "UNet2DConditionModel", {"layers_per_block": [1, 1, 1]}),
    ("only_cross_attention", "UNet2DConditionModel", {"only_cross_attention": [True]}),
    ("reverse_transformer_layers_per_block", "UNet2DConditionModel", {"transformer_layers_per_block": [[1], [1]]}),
    ("mid_block_type", "UNet2DConditionModel", {"mid_block_type": "UNetMidBlock2DSomething"}),
    ("down_block_types", "UNet2DModel", {"down_block_types": ["CrossAttnDownBlock2D", "AttnDownBlock2D"]}),
    ("up_block_types", "UNet2DModel", {"up_block_types": ["UpBlock2D"]}),
    ("norm_num_groups", "UNet2DModel", {"norm_num_groups": None}),
    ("resnet_time_scale_shift", "UNet2DModel", {"resnet_time_scale_shift": "spatial"}),
    ("layers_per_block", "UNet2DModel", {"layers_per_block": [1, 1]}),
]


def makes(model_class: str, config: dict[str, Any]) -> bool:
    try:
        getattr(diffusers, model_class)(**config)
    except (ValueError, TypeError, AttributeError):
        return False
    return True


@pytest.mark.parametrize(("refused", "diffusers_makes"), [(UNSUPPORTED, True), (IMPOSSIBLE, False)], ids=["unsupported", "impossible"])
def test_a_config_that_cannot_run_is_refused_by_its_field_before_weights_are_read(
    refused: list, diffusers_makes: bool, tmp_path: Path
) -> None:
    assert [(f, c, m) for f, c, m in refused if makes(c, MODELS[c] | m) != diffusers_makes] == []
    jobs = []
    for i, (_, model_class, changed) in enumerate(refused):
        folder = tmp_path / str(i)
        folder.mkdir()
        (folder / "config.json").write_text(json.dumps({"_class_name": model_class} | MODELS[model_class] | changed))
        # Whoever opens this file complains about it and not about the config.
        (folder / "diffusion_pytorch_model.safetensors").write_bytes(b"no weights")
        jobs.append({"op": "load", "model": str(folder)})
    for (field, _, changed), error in zip(refused, probe(tmp_path, jobs), strict=True):
        assert error is not None, changed
        assert error["code"] == BAD_INPUT
        assert field in error["message"], f"{changed}: {error['message']}"


@pytest.mark.parametrize(
    ("config", "says"),
    [
        ({"_class_name": "FluxTransformer2DModel", "num_layers": 19}, "FluxTransformer2DModel"),
        ({"_class_name": "UNet2DConditionModel", "encoder_hid_dim_type": "ip_image_proj"}, "encoder_hid_dim_type"),
        ({"sample_size": 64}, "_class_name"),
    ],
)
def test_an_unknown_model_is_refused_by_the_program_before_weights_are_read(config: dict, says: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "diffusion_pytorch_model.safetensors").write_bytes(b"no weights")
    done = run("laptopdiff", "forward", tmp_path, "--inputs", tmp_path / "none.safetensors", "-o", tmp_path / "out.safetensors")
    assert done.returncode == BAD_INPUT
    assert says in done.stderr
    assert not (tmp_path / "out.safetensors").exists()


@pytest.mark.parametrize("up", [["AttnUpBlock2D", "CrossAttnUpBlock2D"], ["ResnetUpsampleBlock2D", "CrossAttnUpBlock2D"]])
def test_sizes_that_an_up_sampler_cannot_meet_are_refused_as_diffusers_fails(up: list[str], tmp_path: Path) -> None:
    config = SD | {"up_block_types": up, "sample_size": [7, 9]}
    model = diffusers.UNet2DConditionModel(**config).eval()
    with pytest.raises(RuntimeError, match="Sizes of tensors must match"):
        model(torch.randn(1, 4, 7, 9), torch.tensor([3]), torch.randn(1, 5, 12))
    (tmp_path / "config.json").write_text(json.dumps({"_class_name": "UNet2DConditionModel"} | config))
    (error,) = probe(tmp_path, [{"op": "load", "model": str(tmp_path)}])
    assert error["code"] == BAD_INPUT
    assert "up_blocks.1.resnets.0" in error["message"]


# ---------------------------------------------------------------- inputs that do not fit

CLASSY = SD | {"num_class_embeds": 7, "time_cond_proj_dim": 6}
XL = SD | {"addition_embed_type": "text_time", "addition_time_embed_dim": 6, "projection_class_embeddings_input_dim": 46}


@pytest.mark.parametrize(
    ("config", "changed", "says"),
    [
        (CLASSY, {"class_labels": torch.tensor([7])}, "0 to 6"),
        (CLASSY, {"class_labels": torch.tensor([-1])}, "0 to 6"),
        (CLASSY, {"class_labels": torch.tensor([1.0])}, "integers"),
        (CLASSY, {"class_labels": torch.tensor([[1]])}, "class_labels"),
        (CLASSY, {"class_labels": None}, "class_labels"),
        (CLASSY, {"timestep_cond": torch.zeros(1, 5)}, "timestep_cond"),
        (SD, {"timestep_cond": torch.zeros(1, 6)}, "time_cond_proj_dim"),
        (SD | {"class_embed_type": "identity"}, {"class_labels": torch.zeros(1, 31)}, "[1, 32]"),
        (SD | {"class_embed_type": "timestep"}, {"class_labels": torch.zeros(1, 2)}, "class_labels"),
        (XL, {"time_ids": torch.zeros(1, 8)}, "projection_class_embeddings_input_dim"),
        (XL, {"text_embeds": torch.zeros(1, 9)}, "text_embeds"),
        (DDPM, {"class_labels": torch.tensor([1])}, "no class embeddings"),
    ],
)
def test_conditions_that_do_not_fit_the_model_are_refused(config: dict, changed: dict, says: str, tmp_path: Path) -> None:
    model_class = "UNet2DModel" if config is DDPM else "UNet2DConditionModel"
    model = getattr(diffusers, model_class)(**config)
    model.save_pretrained(tmp_path / "model")
    inputs = {"sample": torch.zeros(1, model.config.in_channels, 8, 8), "timestep": torch.tensor([1])}
    if model_class == "UNet2DConditionModel":
        inputs["encoder_hidden_states"] = torch.zeros(1, 5, 12)
    if config is CLASSY:
        inputs["class_labels"] = torch.tensor([1])
    if config is XL:
        inputs |= {"text_embeds": torch.zeros(1, 10), "time_ids": torch.zeros(1, 6)}
    inputs = {k: v for k, v in (inputs | changed).items() if v is not None}
    save_file(inputs, tmp_path / "in.safetensors")
    done = run("laptopdiff", "forward", tmp_path / "model", "--inputs", tmp_path / "in.safetensors", "-o", tmp_path / "out.safetensors")
    assert done.returncode == BAD_INPUT, done.stderr
    assert says in done.stderr
