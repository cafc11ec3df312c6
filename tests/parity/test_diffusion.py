"""diffusion/ against transformers and diffusers, number by number, on small models with random weights.

The C++ side is the program laptopdiff_diffusion_probe in $LAPTOPDIFF_BUILD (default: build/ of the repository).
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import unicodedata
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from small_pipelines import SCHEDULER_CLASSES, randomize
from transformers import (
    CLIPConfig,
    CLIPModel,
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
)

ROOT = Path(__file__).resolve().parents[2]
BUILD = Path(os.environ.get("LAPTOPDIFF_BUILD", ROOT / "build"))
TOLERANCE = 1e-5  # of the reference's range


def probe_process(folder: Path, jobs: list[dict[str, Any]], inputs: dict[str, torch.Tensor]) -> subprocess.CompletedProcess:
    program = BUILD / "laptopdiff_diffusion_probe"
    assert program.is_file(), f"no {program}; build it, or set LAPTOPDIFF_BUILD"
    save_file({k: v.contiguous() for k, v in inputs.items()}, folder / "in.safetensors")
    job = {"inputs": str(folder / "in.safetensors"), "output": str(folder / "out.safetensors"), "jobs": jobs}
    (folder / "job.json").write_text(json.dumps(job), encoding="utf-8")
    return subprocess.run([program, folder / "job.json"], capture_output=True, text=True)


def probe(folder: Path, jobs: list[dict[str, Any]], inputs: dict[str, torch.Tensor] | None = None):
    """(the jobs' JSON results, the output tensors)"""
    done = probe_process(folder, jobs, inputs or {"none": torch.zeros(1)})
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout), load_file(folder / "out.safetensors")


def assert_close(got: torch.Tensor, want: torch.Tensor, tolerance: float = TOLERANCE) -> None:
    assert got.shape == want.shape
    want = want.detach()
    scale = max(float(want.max() - want.min()), float(want.abs().max()))
    assert float((got - want).abs().max()) <= tolerance * scale


# ---------------------------------------------------------------- tokenizer

CORPUS = """a photo of a cat. the small red house, a golden vase with different flowers! hello world, it's what
they've said: we'll see, i'm here, you'd go, don't. 2024 is a year, and 3.14159 a number. café déjà-vu naïve über
straße москва привет 東京 日本語 ελληνικά עברית emoji 😀🎉 the the the and and of of in in on on at at""" * 3


PRINTABLE = [*range(33, 127), *range(161, 173), *range(174, 256)]
BYTE_SYMBOLS = {b: chr(b) for b in PRINTABLE} | {b: chr(256 + i) for i, b in enumerate(b for b in range(256) if b not in PRINTABLE)}


def learn_merges(count: int) -> list[tuple[str, str]]:
    """A small vocabulary by the usual greedy rule, on the corpus above."""
    words = []
    for word in CORPUS.lower().split():
        symbols = [BYTE_SYMBOLS[b] for b in word.encode()]
        words.append(symbols[:-1] + [symbols[-1] + "</w>"])
    merges = []
    for _ in range(count):
        pairs: dict[tuple[str, str], int] = {}
        for word in words:
            for pair in zip(word, word[1:]):
                pairs[pair] = pairs.get(pair, 0) + 1
        if not pairs:
            break
        best = max(sorted(pairs), key=lambda p: pairs[p])
        merges.append(best)
        for i, word in enumerate(words):
            j, out = 0, []
            while j < len(word):
                if tuple(word[j:j + 2]) == best:
                    out.append(word[j] + word[j + 1])
                    j += 2
                else:
                    out.append(word[j])
                    j += 1
            words[i] = out
    return merges


MERGES = learn_merges(400)
SYMBOLS = list(BYTE_SYMBOLS.values())
VOCABULARY = {t: i for i, t in enumerate(dict.fromkeys(
    [*SYMBOLS, *[s + "</w>" for s in SYMBOLS], *["".join(m) for m in MERGES], "<|startoftext|>", "<|endoftext|>"]))}


def write_old_tokenizer(folder: Path, special: dict[str, Any] | None = None, config: dict[str, Any] | None = None) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.json").write_text(json.dumps(VOCABULARY), encoding="utf-8")
    (folder / "merges.txt").write_text(
        "#version: 0.2\n" + "\n".join(" ".join(m) for m in MERGES) + "\n", encoding="utf-8")
    (folder / "tokenizer_config.json").write_text(json.dumps({"model_max_length": 77, "tokenizer_class": "CLIPTokenizer", **(config or {})}))
    if special is not None:
        (folder / "special_tokens_map.json").write_text(json.dumps(special))
    return folder


def random_texts(count: int, seed: int) -> list[str]:
    """Unicode of all kinds: letters of many scripts, marks, numbers, spaces, controls, and what the splitter looks for."""
    rng = random.Random(seed)
    bits = ["'s", "'t", "'re", "'VE", "'m", "'LL", "'d", "''", "<|startoftext|>", "<|endoftext|>", "<|ENDOFTEXT|>", "<|", "|>",
            " ", "  ", "\t", "\n", "\u00a0", "\u2003", "\u3000", "\u0085", "!", "!!", "...", "\u0130", "ΑΣ", "ß", "ẞ", "e\u0301", "\u212b",
            "①", "½", "Ⅻ", "٣", "\u200d", "\u0000", "ſ", "'ſ", "ǅ", "a\u0327\u0301", "각", "각"]
    assigned = [c for c in map(chr, range(0x20, 0x30000)) if unicodedata.category(c) not in ("Cn", "Cs", "Co")]
    texts = []
    for _ in range(count):
        parts = []
        for _ in range(rng.randint(0, 14)):
            choice = rng.random()
            if choice < 0.35:
                parts.append(rng.choice(bits))
            elif choice < 0.65:
                parts.append(chr(rng.randint(0x20, 0x7E)))
            elif choice < 0.8:
                parts.append(rng.choice(CORPUS.split()))
            else:
                parts.append(rng.choice(assigned))
        texts.append("".join(parts))
    return texts


PLAIN_TEXTS = [
    "", " ", "a photo of a cat", "A golden vase with different flowers", "hello, world! it's 2024", "Café déjà-vu",
    "\tMultiple   spaces\nand\n\nnewlines ", "<|startoftext|>a cat<|endoftext|>", "x<|EndOfText|>!", "wow!! it's 'quoted'",
    "word " * 200, "a" * 500, "1234567890", "😀🎉👩‍👩‍👧", "İstanbul", "ΟΔΥΣΣΕΥΣ", "\u0000", "ﬁne", "Å Å",
]

SD2_SPECIAL = {"bos_token": {"content": "<|startoftext|>", "lstrip": False, "normalized": True, "rstrip": False, "single_word": False},
               "eos_token": {"content": "<|endoftext|>", "lstrip": False, "normalized": True, "rstrip": False, "single_word": False},
               "pad_token": "!", "unk_token": {"content": "<|endoftext|>", "lstrip": False, "normalized": True, "rstrip": False, "single_word": False}}
SD1_SPECIAL = {**SD2_SPECIAL, "pad_token": "<|endoftext|>"}


@pytest.mark.parametrize("layout", ["plain", "sd1", "sd2", "json", "json_sd2", "added"])
def test_tokenizer_equals_transformers(tmp_path: Path, layout: str) -> None:
    folder = tmp_path / "tokenizer"
    special = {"sd1": SD1_SPECIAL, "sd2": SD2_SPECIAL, "json_sd2": SD2_SPECIAL}.get(layout)
    write_old_tokenizer(folder, special)
    if layout == "added":
        (folder / "added_tokens.json").write_text(json.dumps({"<my-cat>": len(VOCABULARY)}))
    tokenizer = CLIPTokenizer.from_pretrained(folder)
    if layout.startswith("json"):  # the folder that transformers 5 writes
        folder = tmp_path / "saved"
        tokenizer.save_pretrained(folder)
        assert not (folder / "merges.txt").exists()
        tokenizer = CLIPTokenizer.from_pretrained(folder)
    texts = PLAIN_TEXTS + random_texts(1500, seed=len(layout)) + ["a <my-cat> on a <MY-CAT>!"]
    (result,), _ = probe(tmp_path, [{"op": "tokenize", "folder": str(folder), "texts": texts}])
    for text, ids, encoded in zip(texts, result["ids"], result["encoded"]):
        assert ids == tokenizer(text, add_special_tokens=False).input_ids, repr(text)
        want = tokenizer(text, padding="max_length", truncation=True, max_length=77).input_ids
        assert encoded == want, repr(text)


# ---------------------------------------------------------------- text encoder

SMALL_TEXT = dict(vocab_size=200, hidden_size=32, intermediate_size=64, num_hidden_layers=3, num_attention_heads=4,
                  max_position_embeddings=77, projection_dim=24, bos_token_id=198, eos_token_id=199, pad_token_id=199)


def framed_ids(end: int, pad: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(0, 190, (3, 77), generator=generator)
    ids[:, 0] = 198
    for row, length in enumerate((76, 20, 1)):
        ids[row, length] = end
        ids[row, length + 1:] = pad
    return ids


def check_text(tmp_path: Path, folder: Path, model: torch.nn.Module, ids: torch.Tensor, projected: bool) -> None:
    _, out = probe(tmp_path, [{"op": "text", "folder": str(folder), "ids": "ids", "name": "t"}], {"ids": ids})
    tower = model.text_model if isinstance(model, CLIPModel) else model
    with torch.no_grad():
        want = tower(ids, output_hidden_states=True)
    assert_close(out["t.last"], want.last_hidden_state)
    for i, hidden in enumerate(want.hidden_states):
        assert_close(out[f"t.hidden.{i}"], hidden)
    if projected:
        embeds = want.text_embeds if hasattr(want, "text_embeds") else model.text_projection(want.pooler_output)
        assert_close(out["t.embeds"], embeds)
    else:
        assert_close(out["t.pooled"], want.pooler_output)
        assert "t.embeds" not in out


@pytest.mark.parametrize("act", ["quick_gelu", "gelu"])
@pytest.mark.parametrize("kind", [CLIPTextModel, CLIPTextModelWithProjection])
def test_text_encoder_equals_transformers(tmp_path: Path, act: str, kind: type) -> None:
    model = randomize(kind(CLIPTextConfig(**SMALL_TEXT, hidden_act=act)))
    model.save_pretrained(tmp_path / "m")
    check_text(tmp_path, tmp_path / "m", model, framed_ids(199, 199), kind is CLIPTextModelWithProjection)


def test_text_encoder_with_the_legacy_end_id_pools_at_the_highest_id(tmp_path: Path) -> None:
    model = randomize(CLIPTextModel(CLIPTextConfig(**{**SMALL_TEXT, "eos_token_id": 2})))
    model.save_pretrained(tmp_path / "m")
    check_text(tmp_path, tmp_path / "m", model, framed_ids(199, 0), False)


@pytest.mark.parametrize("prefixed", [False, True])
def test_text_encoder_reads_both_key_layouts_and_half_precision(tmp_path: Path, prefixed: bool) -> None:
    model = randomize(CLIPTextModel(CLIPTextConfig(**SMALL_TEXT))).half()
    model.save_pretrained(tmp_path / "m")
    path = tmp_path / "m" / "model.safetensors"
    state = {("text_model." if prefixed else "") + k.removeprefix("text_model."): v.clone() for k, v in load_file(path).items()}
    if prefixed:
        state["text_model.embeddings.position_ids"] = torch.arange(77)[None]
    path.unlink()
    save_file(state, tmp_path / "m" / "model.fp16.safetensors")
    check_text(tmp_path, tmp_path / "m", model.float(), framed_ids(199, 199), False)


def test_text_tower_of_a_whole_clip_model(tmp_path: Path) -> None:
    config = CLIPConfig(text_config=SMALL_TEXT, projection_dim=24,
                        vision_config=dict(hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2,
                                           image_size=16, patch_size=8))
    model = randomize(CLIPModel(config))
    model.save_pretrained(tmp_path / "m")
    check_text(tmp_path, tmp_path / "m", model, framed_ids(199, 199), True)


def test_text_encoder_reads_shards(tmp_path: Path) -> None:
    model = randomize(CLIPTextModel(CLIPTextConfig(**SMALL_TEXT)))
    model.save_pretrained(tmp_path / "m", max_shard_size="20KB")
    assert (tmp_path / "m" / "model.safetensors.index.json").exists()
    check_text(tmp_path, tmp_path / "m", model, framed_ids(199, 199), False)


# ---------------------------------------------------------------- VAE

VAES = {
    "sd": dict(block_out_channels=(16, 32, 32), layers_per_block=2, norm_num_groups=8, latent_channels=4),
    "one": dict(block_out_channels=(16,), layers_per_block=1, norm_num_groups=4, latent_channels=3, in_channels=1, out_channels=1),
    "bare": dict(block_out_channels=(16, 24), layers_per_block=1, norm_num_groups=8, latent_channels=4, use_quant_conv=False,
                 use_post_quant_conv=False, mid_block_add_attention=False, scaling_factor=0.13025),
}


def make_vae(name: str) -> diffusers.AutoencoderKL:
    options = dict(VAES[name])
    count = len(options["block_out_channels"])
    return randomize(diffusers.AutoencoderKL(down_block_types=("DownEncoderBlock2D",) * count,
                                             up_block_types=("UpDecoderBlock2D",) * count, **options))


def check_vae(tmp_path: Path, folder: Path, vae: diffusers.AutoencoderKL) -> None:
    generator = torch.Generator().manual_seed(1)
    config = vae.config
    images = torch.rand((2, config.in_channels, 24, 32), generator=generator) * 2 - 1
    side = 2 ** (len(config.block_out_channels) - 1)
    latents = torch.randn((2, config.latent_channels, 24 // side, 32 // side), generator=generator)
    (result,), out = probe(tmp_path, [{"op": "vae", "folder": str(folder), "name": "v", "images": "images", "latents": "latents"}],
                           {"images": images, "latents": latents})
    with torch.no_grad():
        posterior = vae.encode(images).latent_dist
        decoded = vae.decode(latents).sample
    assert_close(out["v.mean"], posterior.mean)
    assert_close(out["v.logvar"], posterior.logvar)
    assert_close(out["v.decoded"], decoded)
    assert result["scaling_factor"] == config.scaling_factor


@pytest.mark.parametrize("name", sorted(VAES))
def test_vae_equals_diffusers(tmp_path: Path, name: str) -> None:
    vae = make_vae(name)
    vae.save_pretrained(tmp_path / "m")
    check_vae(tmp_path, tmp_path / "m", vae)


@pytest.mark.parametrize(("height", "width"), [(16, 16), (32, 24), (48, 20), (16, 40), (12, 70)])
def test_vae_tiling_equals_diffusers(tmp_path: Path, height: int, width: int) -> None:
    vae = randomize(diffusers.AutoencoderKL(down_block_types=("DownEncoderBlock2D",) * 2, up_block_types=("UpDecoderBlock2D",) * 2,
                                            block_out_channels=(8, 16), norm_num_groups=4, sample_size=16))
    vae.save_pretrained(tmp_path / "m")
    generator = torch.Generator().manual_seed(8)
    images = torch.rand((2, 3, height, width), generator=generator) * 2 - 1
    latents = torch.randn((2, 4, height // 2, width // 2), generator=generator)
    job = {"op": "vae", "folder": str(tmp_path / "m"), "name": "v", "images": "images", "latents": "latents", "tiling": True}
    _, out = probe(tmp_path, [job], {"images": images, "latents": latents})
    with torch.no_grad():
        whole = vae.decode(latents).sample
        vae.enable_tiling()
        posterior = vae.encode(images).latent_dist
        decoded = vae.decode(latents).sample
    assert torch.equal(whole, decoded) == (max(height, width) <= 16)
    assert_close(out["v.mean"], posterior.mean)
    assert_close(out["v.logvar"], posterior.logvar)
    assert_close(out["v.decoded"], decoded)


@pytest.mark.parametrize("as_convolution", [False, True])
def test_vae_reads_the_old_attention_names(tmp_path: Path, as_convolution: bool) -> None:
    vae = make_vae("sd")
    vae.save_pretrained(tmp_path / "m")
    path = tmp_path / "m" / "diffusion_pytorch_model.safetensors"
    state = {}
    for name, tensor in load_file(path).items():
        for new, old in (("to_q", "query"), ("to_k", "key"), ("to_v", "value"), ("to_out.0", "proj_attn")):
            if f".{new}." in name:
                name = name.replace(new, old)
                if as_convolution and name.endswith("weight"):
                    tensor = tensor[:, :, None, None]
                break
        state[name] = tensor.clone()
    path.unlink()
    save_file(state, path)
    check_vae(tmp_path, tmp_path / "m", vae)


# ---------------------------------------------------------------- schedulers

SD = dict(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear")
SHAPE = (2, 3, 4, 4)
NOISES = 60


def toy_network(x: torch.Tensor, t: torch.Tensor, bent: bool) -> torch.Tensor:
    line = 0.3 * x + torch.as_tensor(float(t), dtype=torch.float32) * 1e-5
    return torch.tanh(line) if bent else line


def run_diffusers(scheduler, steps: int, start: torch.Tensor, noise: torch.Tensor, monkeypatch, bent: bool, eta: float):
    scheduler.set_timesteps(steps)
    if hasattr(scheduler, "set_begin_index"):
        scheduler.set_begin_index(0)  # where a grid starts with a duplicate, the stock look-up starts one step late
    call = [0]

    def given_noise(*arguments, **options):
        return noise[call[0]]

    monkeypatch.setattr("diffusers.schedulers.scheduling_ddpm.randn_tensor", given_noise)
    monkeypatch.setattr("diffusers.schedulers.scheduling_ddim.randn_tensor", given_noise)
    x = start * scheduler.init_noise_sigma
    path = []
    for i, t in enumerate(scheduler.timesteps):
        call[0] = i
        options = {"eta": eta} if isinstance(scheduler, diffusers.DDIMScheduler) else {}
        x = scheduler.step(toy_network(scheduler.scale_model_input(x, t), t, bent), t, x, **options).prev_sample
        path.append(x)
    return torch.stack(path)


def scheduler_cases() -> list[dict[str, Any]]:
    cases: list[dict[str, Any]] = []

    def add(kind: str, steps: int, eta: float = 0.0, tanh: bool = False, **options: Any) -> None:
        cases.append(dict(kind=kind, steps=steps, eta=eta, tanh=tanh, options=options))

    for kind in SCHEDULER_CLASSES:
        add(kind, 10)  # all defaults of the class
        add(kind, 7, tanh=True, **SD)
        for spacing in ("leading", "trailing", "linspace"):
            for steps in (10, 13, 25):
                if (kind, spacing) == ("pndm", "linspace") and steps == 10:
                    continue  # the Runge-Kutta start would leave the schedule: diffusers fails there too
                if kind == "pndm":
                    add(kind, steps, timestep_spacing=spacing, skip_prk_steps=True, **SD)
                else:
                    add(kind, steps, timestep_spacing=spacing, **SD)
            add(kind, 20, timestep_spacing=spacing, prediction_type="v_prediction",
                **({"skip_prk_steps": True} if kind == "pndm" else {}), **SD)
        if kind != "pndm":
            add(kind, 9, prediction_type="sample", **SD)
            add(kind, 12, prediction_type="v_prediction", rescale_betas_zero_snr=True, timestep_spacing="trailing", **SD)
        add(kind, 8, beta_schedule="squaredcos_cap_v2")
        add(kind, 11, steps_offset=1, timestep_spacing="leading", **SD)
        add(kind, 6, trained_betas=[0.001 + 0.0001 * i for i in range(100)], num_train_timesteps=100)
        add(kind, 1, timestep_spacing="trailing", **({"skip_prk_steps": True} if kind == "pndm" else {}))
    for eta in (0.3, 1.0):
        add("ddim", 12, eta=eta, **SD)
        add("ddim", 12, eta=eta, tanh=True, clip_sample=False, set_alpha_to_one=False, **SD)
    add("ddim", 15, clip_sample_range=0.5)
    add("ddim", 50, set_alpha_to_one=False, clip_sample=False, steps_offset=1, **SD)
    for variance in ("fixed_small", "fixed_small_log", "fixed_large"):
        add("ddpm", 14, variance_type=variance, clip_sample=False)
        add("ddpm", 14, variance_type=variance, tanh=True)
    add("ddpm", 10, beta_schedule="sigmoid")
    add("pndm", 25, skip_prk_steps=True, set_alpha_to_one=False, steps_offset=1, **SD)
    add("pndm", 50, skip_prk_steps=True, set_alpha_to_one=True, steps_offset=1, **SD)
    add("pndm", 12, set_alpha_to_one=True)
    add("pndm", 20, prediction_type="v_prediction", tanh=True)
    add("pndm", 2, skip_prk_steps=True)
    add("pndm", 4)
    for karras in ({"use_karras_sigmas": True}, {"use_exponential_sigmas": True}):
        add("dpm++2m", 20, **karras, **SD)
        add("dpm++2m", 8, beta_schedule="squaredcos_cap_v2", **karras)
        add("euler", 20, **karras, **SD)
        add("euler", 8, timestep_spacing="leading", **karras, **SD)
    for final in ("zero", "sigma_min"):
        for steps in (8, 20):
            add("dpm++2m", steps, final_sigmas_type=final, **SD)
            add("dpm++2m", steps, final_sigmas_type=final, lower_order_final=False, solver_type="heun", **SD)
        add("euler", 8, final_sigmas_type=final, **SD)
    add("dpm++2m", 16, euler_at_final=True, final_sigmas_type="sigma_min", **SD)
    add("dpm++2m", 9, solver_order=1, **SD)
    add("dpm++2m", 9, algorithm_type="deis", solver_type="logrho", final_sigmas_type="sigma_min", **SD)
    for spacing in ("leading", "trailing", "linspace"):
        add("dpm++2m", 9, beta_schedule="squaredcos_cap_v2", lambda_min_clipped=-5.1, timestep_spacing=spacing)
    add("euler", 9, interpolation_type="log_linear", **SD)
    add("euler", 9, use_karras_sigmas=True, sigma_min=0.1, sigma_max=10.0, **SD)
    return cases


def test_schedulers_equal_diffusers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cases = scheduler_cases()
    generator = torch.Generator().manual_seed(2)
    start = torch.randn(SHAPE, generator=generator)
    noise = torch.randn((NOISES, *SHAPE), generator=generator)
    jobs, wants, grids, sigmas = [], [], [], []
    for i, case in enumerate(cases):
        scheduler = SCHEDULER_CLASSES[case["kind"]](**case["options"])
        scheduler.save_pretrained(tmp_path / f"s{i}")
        wants.append(run_diffusers(scheduler, case["steps"], start, noise, monkeypatch, case["tanh"], case["eta"]))
        grids.append([float(t) for t in scheduler.timesteps])
        sigmas.append(float(scheduler.init_noise_sigma))
        job = dict(op="sampler", name=str(i), start="start", steps=case["steps"], eta=case["eta"], tanh=case["tanh"])
        jobs.append({**job, "config_file": str(tmp_path / f"s{i}" / "scheduler_config.json")})
        # The options alone: what they leave out must have the default of the class.
        jobs.append({**job, "name": f"{i}d", "kind": case["kind"], "config": case["options"]})
    results, out = probe(tmp_path, jobs, {"start": start, "step_noise": noise})
    for i, case in enumerate(cases):
        for name, result in ((str(i), results[2 * i]), (f"{i}d", results[2 * i + 1])):
            assert result["timesteps"] == pytest.approx(grids[i], rel=1e-6), case
            assert result["init_noise_sigma"] == pytest.approx(sigmas[i], rel=1e-7), case
            got, want = out[name], wants[i]
            assert torch.isfinite(want).all(), case
            assert got.shape == want.shape, case
            worst = float((got - want).abs().max() / want.abs().max())
            assert worst <= 1e-6, (case, worst)


@pytest.mark.parametrize("kind", sorted(SCHEDULER_CLASSES))
def test_one_config_runs_as_every_kind_as_from_config_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    published = dict(_class_name="PNDMScheduler", _diffusers_version="0.6.0", skip_prk_steps=True, set_alpha_to_one=False,
                     steps_offset=1, clip_sample=False, num_train_timesteps=1000, trained_betas=None, **SD)
    (tmp_path / "scheduler_config.json").write_text(json.dumps(published))
    scheduler = SCHEDULER_CLASSES[kind].from_pretrained(tmp_path)
    generator = torch.Generator().manual_seed(3)
    inputs = {"start": torch.randn(SHAPE, generator=generator), "step_noise": torch.randn((NOISES, *SHAPE), generator=generator)}
    want = run_diffusers(scheduler, 20, inputs["start"], inputs["step_noise"], monkeypatch, False, 0.0)
    (result,), out = probe(tmp_path, [dict(op="sampler", name="s", start="start", steps=20, kind=kind,
                                           config_file=str(tmp_path / "scheduler_config.json"))], inputs)
    assert result["timesteps"] == [float(t) for t in scheduler.timesteps]
    assert_close(out["s"], want, 1e-6)


def test_unknown_scheduler_options_are_warned_about_and_unsupported_ones_refused(tmp_path: Path) -> None:
    start = {"start": torch.zeros(SHAPE)}

    def run(**options: Any) -> subprocess.CompletedProcess:
        config = {"_class_name": "DDIMScheduler", "_note": 1, **options}
        return probe_process(tmp_path, [dict(op="sampler", name="s", start="start", steps=2, config=config)], start)

    plain, unknown, refused = run(), run(clip_smaple=False), run(thresholding=True)
    assert (plain.returncode, plain.stderr) == (0, "")
    assert unknown.returncode == 0
    assert "unknown key `clip_smaple` is ignored (did you mean `clip_sample`" in unknown.stderr
    assert refused.returncode == 3
    assert "`thresholding` is not supported" in refused.stderr


def test_noise_and_velocity_equal_diffusers(tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(4)
    inputs = {"x0": torch.randn((5, 4, 3, 3), generator=generator), "noise": torch.randn((5, 4, 3, 3), generator=generator),
              "timesteps": torch.tensor([0, 1, 500, 998, 999])}
    configs = [{}, SD, dict(beta_schedule="squaredcos_cap_v2"), dict(rescale_betas_zero_snr=True, **SD), dict(beta_schedule="sigmoid")]
    jobs = [dict(op="schedule", name=str(i), config=c) for i, c in enumerate(configs)]
    _, out = probe(tmp_path, jobs, inputs)
    for i, config in enumerate(configs):
        scheduler = diffusers.DDPMScheduler(**config)
        assert_close(out[f"{i}.alphas_cumprod"], scheduler.alphas_cumprod, 1e-7)
        assert_close(out[f"{i}.noisy"], scheduler.add_noise(inputs["x0"], inputs["noise"], inputs["timesteps"]), 1e-6)
        assert_close(out[f"{i}.velocity"], scheduler.get_velocity(inputs["x0"], inputs["noise"], inputs["timesteps"]), 1e-6)


# ---------------------------------------------------------------- whole pipelines

def small_unet(**options: Any) -> diffusers.UNet2DConditionModel:
    return diffusers.UNet2DConditionModel(
        sample_size=8, in_channels=4, out_channels=4, layers_per_block=1, block_out_channels=(8, 16), norm_num_groups=4,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"), up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        attention_head_dim=4, **options)


def text_config(tokenizer: CLIPTokenizer, width: int = 32) -> CLIPTextConfig:
    return CLIPTextConfig(**{**SMALL_TEXT, "vocab_size": len(tokenizer), "hidden_size": width, "bos_token_id": tokenizer.bos_token_id,
                             "eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id})


def stable_diffusion(tmp_path: Path) -> diffusers.StableDiffusionPipeline:
    tokenizer = CLIPTokenizer.from_pretrained(write_old_tokenizer(tmp_path / "old", SD1_SPECIAL))
    return diffusers.StableDiffusionPipeline(
        vae=make_vae("sd"), text_encoder=randomize(CLIPTextModel(text_config(tokenizer))), tokenizer=tokenizer,
        unet=small_unet(cross_attention_dim=32), scheduler=diffusers.DPMSolverMultistepScheduler(**SD), safety_checker=None,
        feature_extractor=None, requires_safety_checker=False)


TEXTS = ["a photo of a cat", "", "Café déjà-vu!", "word " * 100, "hello, world! it's 2024"]


def test_stable_diffusion_prompts_and_guided_sampling_equal_diffusers(tmp_path: Path) -> None:
    pipeline = stable_diffusion(tmp_path)
    pipeline.save_pretrained(tmp_path / "p")
    generator = torch.Generator().manual_seed(5)
    start = torch.randn((5, 4, 6, 8), generator=generator)
    jobs = [dict(op="prompts", folder=str(tmp_path / "p"), texts=TEXTS, name="p")]
    for batch in (1, 2, 5):
        jobs.append(dict(op="guided", folder=str(tmp_path / "p"), texts=TEXTS, name=f"g{batch}", start="start", batch=batch, steps=6,
                         guidance=7.5))
    jobs.append(dict(jobs[-1], name="g", guidance=1.0))
    results, out = probe(tmp_path, jobs, {"start": start})
    assert results[0] == {"class": "StableDiffusionPipeline", "unet_class": "UNet2DConditionModel", "xl": False}
    with torch.no_grad():
        context, negative = pipeline.encode_prompt(TEXTS, "cpu", 1, True)
    assert_close(out["p.context"], context)
    assert_close(out["p.unconditional"], negative[:1])
    for name, guidance in (("g1", 7.5), ("g2", 7.5), ("g5", 7.5), ("g", 1.0)):
        scheduler = pipeline.scheduler
        scheduler.set_timesteps(6)
        x = start * scheduler.init_noise_sigma
        for t in scheduler.timesteps:
            line = 0.3 * scheduler.scale_model_input(x, t) + float(t) * 1e-5
            cond, uncond = (line + c.mean((1, 2)).view(-1, 1, 1, 1) for c in (context, negative))
            x = scheduler.step(uncond + guidance * (cond - uncond) if guidance > 1 else cond, t, x).prev_sample
        assert_close(out[f"{name}.samples"], x)
        with torch.no_grad():
            decoded = pipeline.vae.decode(x / pipeline.vae.config.scaling_factor).sample
        images = pipeline.image_processor.postprocess(decoded, output_type="np")
        got = out[f"{name}.images"].numpy().astype(int)
        assert np.abs(got - (images * 255).round().astype(int)).max() <= 1


@pytest.mark.parametrize("zeros", [True, False])
def test_stable_diffusion_xl_prompts_equal_diffusers(tmp_path: Path, zeros: bool) -> None:
    first = CLIPTokenizer.from_pretrained(write_old_tokenizer(tmp_path / "old1", SD1_SPECIAL))
    second = CLIPTokenizer.from_pretrained(write_old_tokenizer(tmp_path / "old2", SD2_SPECIAL))
    pipeline = diffusers.StableDiffusionXLPipeline(
        vae=make_vae("sd"), text_encoder=randomize(CLIPTextModel(text_config(first))), tokenizer=first,
        text_encoder_2=randomize(CLIPTextModelWithProjection(text_config(second, 48)), 1), tokenizer_2=second,
        unet=small_unet(cross_attention_dim=80, addition_embed_type="text_time", addition_time_embed_dim=8,
                        projection_class_embeddings_input_dim=24 + 48),
        scheduler=diffusers.EulerDiscreteScheduler(**SD), force_zeros_for_empty_prompt=zeros, add_watermarker=False)
    pipeline.save_pretrained(tmp_path / "p")
    (result,), out = probe(tmp_path, [dict(op="prompts", folder=str(tmp_path / "p"), texts=TEXTS, name="p")])
    assert result["xl"]
    with torch.no_grad():
        context, negative, pooled, negative_pooled = pipeline.encode_prompt(TEXTS, device="cpu")
    assert_close(out["p.context"], context)
    assert_close(out["p.pooled"], pooled)
    assert float((out["p.unconditional"] - negative[:1]).abs().max()) <= 1e-4 * (0 if zeros else 1)
    assert float((out["p.unconditional_pooled"] - negative_pooled[:1]).abs().max()) <= 1e-4 * (0 if zeros else 1)


# ---------------------------------------------------------------- images

@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "LA", "P", "1", "I;16"])
def test_png_equals_pillow(tmp_path: Path, mode: str) -> None:
    rng = np.random.default_rng(6)
    image = Image.fromarray(rng.integers(0, 256, (13, 17, 3), dtype=np.uint8))
    if mode == "I;16":
        image = Image.fromarray(rng.integers(0, 65536, (13, 17), dtype=np.uint16))
    elif mode == "RGBA":
        image = Image.fromarray(rng.integers(0, 256, (13, 17, 4), dtype=np.uint8))
    elif mode != "RGB":
        image = image.convert(mode)
    image.save(tmp_path / "in.png")
    _, out = probe(tmp_path, [dict(op="png", name="i", read=str(tmp_path / "in.png"), write=str(tmp_path / "out.png"))])
    got = out["i"].numpy()
    if mode == "I;16":
        assert (got == np.asarray(image)[..., None] >> 8).all()
    else:
        grey = mode in ("L", "LA", "1")
        want = np.asarray(image.convert("L" if grey else "RGB")).reshape(13, 17, -1)
        assert (got == want).all()
    again = np.asarray(Image.open(tmp_path / "out.png")).reshape(got.shape)
    assert (again == got).all()
