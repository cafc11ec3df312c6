"""`laptopdiff sample` against diffusers' pipelines, pixel by pixel, from the same initial latents.

Max difference 1 of 255 in f32, over families x schedulers x predictions x options: every pair of values meets.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pairwise
import pytest
import small_pipelines
import torch
from PIL import Image
from program import BAD_INPUT, NON_FINITE, USAGE, laptopdiff, ok, refused, start
from safetensors.torch import load_file, save_file
from small_pipelines import CHANNELS, LATENT, PIXELS

ROOT = Path(__file__).resolve().parents[2]
BUILD = Path(os.environ.get("LAPTOPDIFF_BUILD", ROOT / "build"))
CALLS = 8  # at most, of a scheduler that adds noise

PROMPTS = ["red", "a large blue dog", "Ünï!"]
NEGATIVES = ("ugly", "", "low quality, worst quality")
SD_BETAS = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
SIZES = {"original_size": (40, 24), "crops_coords_top_left": (3, 5), "target_size": (32, 48)}

FAMILIES: dict[str, Callable[[Path], None]] = {
    "sd1": small_pipelines.sd1,
    "sd2": small_pipelines.sd2,
    "sdxl": small_pipelines.sdxl,
    "sdxl-encoded": small_pipelines.sdxl_encoding_the_empty_prompt,
}
SCHEDULERS: dict[str, tuple[type, dict[str, Any]]] = {
    "ddim": (small_pipelines.SCHEDULER_CLASSES["ddim"], {"clip_sample": False, "set_alpha_to_one": False}),
    "ddim-clip": (small_pipelines.SCHEDULER_CLASSES["ddim"], {"clip_sample_range": 2.0}),
    "ddpm": (small_pipelines.SCHEDULER_CLASSES["ddpm"], {"clip_sample": False, "variance_type": "fixed_large"}),
    "pndm": (small_pipelines.SCHEDULER_CLASSES["pndm"], {"skip_prk_steps": True}),
    "pndm-prk": (small_pipelines.SCHEDULER_CLASSES["pndm"], {}),
    "dpm++2m": (small_pipelines.SCHEDULER_CLASSES["dpm++2m"], {}),
    "dpm++2m-karras": (small_pipelines.SCHEDULER_CLASSES["dpm++2m"], {"use_karras_sigmas": True}),
    "euler": (small_pipelines.SCHEDULER_CLASSES["euler"], {}),
    "euler-karras": (small_pipelines.SCHEDULER_CLASSES["euler"], {"use_karras_sigmas": True}),
}
Case = dict[str, Any]
SPACE = pairwise.Space(
    "sample",
    {
        "scheduler": tuple(SCHEDULERS),
        "family": tuple(FAMILIES),
        "prediction_type": ("epsilon", "v_prediction", "sample"),
        "timestep_spacing": ("leading", "trailing", "linspace"),
        "steps_offset": (1, 0),
        "rescale_betas_zero_snr": (False, True),
        "guidance": (5.0, 1.0),
        "guidance_rescale": (0.0, 0.7),
        "clip_skip": (0, 1),
        "negative": (None, "", "blurry", NEGATIVES),
        "sizes": (False, True),
        "vae_tiling": (False, True),
        "eta": (0.0, 0.6),
        "steps": (4, 5, 6),
    },
    # What diffusers cannot draw, and options that would do nothing.
    (
        pairwise.Rule(("scheduler", "prediction_type"), lambda s, p: not (s.startswith("pndm") and p == "sample")),
        pairwise.Rule(("scheduler", "timestep_spacing"), lambda s, t: not s.startswith("pndm") or t == "leading"),
        pairwise.Rule(("scheduler", "rescale_betas_zero_snr"), lambda s, z: not (z and s.startswith("pndm"))),
        # At zero signal epsilon says nothing about the picture, and only trailing grids begin there.
        pairwise.Rule(("rescale_betas_zero_snr", "prediction_type"), lambda z, p: not (z and p == "epsilon")),
        pairwise.Rule(("rescale_betas_zero_snr", "timestep_spacing"), lambda z, t: not z or t == "trailing"),
        pairwise.Rule(("guidance_rescale", "guidance"), lambda r, g: r == 0 or g != 1.0),
        pairwise.Rule(("negative", "guidance"), lambda n, g: n is None or g != 1.0),
        pairwise.Rule(("sizes", "family"), lambda s, f: not s or f.startswith("sdxl")),
        pairwise.Rule(("eta", "scheduler"), lambda e, s: e == 0 or s.startswith("ddim")),
    ),
)
CASES: list[Case] = pairwise.rows(SPACE)


def test_every_two_options_meet() -> None:
    assert pairwise.pairs_of(SPACE, CASES) == pairwise.all_pairs(SPACE)


def name_of(case: Case) -> str:
    shown = [case["family"], case["scheduler"], case["prediction_type"], case["timestep_spacing"], f"{case['steps']}"]
    return "-".join(shown)


def unit_noise(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(11))


@dataclass
class Made:
    """A pipeline's folder, and the pipeline that diffusers reads from it."""

    folder: Path
    pipe: Any


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Callable[[Path], None]], Made]:
    """One a kind of pipeline, made when it is first asked for."""
    known: dict[Callable[[Path], None], Made] = {}

    def get(make: Callable[[Path], None]) -> Made:
        if make not in known:
            folder = tmp_path_factory.mktemp(make.__name__)
            make(folder)
            known[make] = Made(folder, diffusers.DiffusionPipeline.from_pretrained(folder))
        return known[make]

    return get


@pytest.fixture(scope="module")
def step_noise(tmp_path_factory: pytest.TempPathFactory) -> dict[int, torch.Tensor]:
    """What `sample --seed 0` adds at each call, by channel count: [calls, images, C, h, w]."""
    folder = tmp_path_factory.mktemp("noise")
    save_file({"none": torch.zeros(1)}, folder / "in.safetensors")
    jobs = [
        {"op": "noise", "name": str(c), "seed": 0, "calls": CALLS, "images": len(PROMPTS), "shape": [c, LATENT, LATENT]}
        for c in (3, CHANNELS)
    ]
    job = {"inputs": str(folder / "in.safetensors"), "output": str(folder / "out.safetensors"), "jobs": jobs}
    (folder / "job.json").write_text(json.dumps(job))
    program = BUILD / "laptopdiff_diffusion_probe"
    assert program.is_file(), f"no {program}; build it, or set LAPTOPDIFF_BUILD"
    subprocess.run([program, folder / "job.json"], check=True, capture_output=True)
    return {int(c): noise for c, noise in load_file(folder / "out.safetensors").items()}


def feed(monkeypatch: pytest.MonkeyPatch, noise: torch.Tensor) -> None:
    """The schedulers' own draws become `noise`, call by call."""
    calls = iter(noise)
    for module in ("scheduling_ddim", "scheduling_ddpm"):
        monkeypatch.setattr(f"diffusers.schedulers.{module}.randn_tensor", lambda *_, **__: next(calls))


def drawn(pipeline: Path, out: Path, latents: torch.Tensor, *flags: str) -> np.ndarray:
    """[N, H, W, C] of the pictures that `sample` draws, in two batches."""
    save_file({"latents": latents}, out.with_suffix(".latents"))
    ok("sample", pipeline, "--latents", out.with_suffix(".latents"), "--batch", "2", "--quiet", "-o", out, *flags)
    return np.stack([np.asarray(Image.open(path)) for path in sorted(out.glob("*.png"))])


def assert_same_pixels(got: np.ndarray, images: np.ndarray) -> None:
    want = (images * 255).round().astype(int)
    assert got.shape == want.shape
    assert ((want > 0) & (want < 255)).mean() > 0.5, "the reference is black and white: the comparison would be blind"
    assert np.abs(got.astype(int) - want).max() <= 1


def with_scheduler(folder: Path, pipeline: Path, scheduler: Any) -> Path:
    """A copy of the pipeline with another scheduler, its file as the scheduler itself writes it."""
    shutil.copytree(pipeline, folder)
    scheduler.save_pretrained(folder / "scheduler")
    index = json.loads((folder / "model_index.json").read_text())
    index["scheduler"] = ["diffusers", type(scheduler).__name__]
    (folder / "model_index.json").write_text(json.dumps(index))
    return folder


def rebuilt(pipe: Any, scheduler: Any) -> Any:
    """The pipeline as from_pretrained makes it around another scheduler: constructors change outdated settings."""
    scalars = ("force_zeros_for_empty_prompt", "requires_safety_checker", "add_watermarker")
    options = {key: pipe.config[key] for key in scalars if key in pipe.config}
    pipe = type(pipe)(**(pipe.components | {"scheduler": scheduler}), **options)
    pipe.set_progress_bar_config(disable=True)
    if hasattr(pipe, "text_encoder") and not hasattr(pipe.text_encoder, "text_model"):
        # transformers 5 took this level away, and the pipeline's clip skip still asks for it.
        object.__setattr__(pipe.text_encoder, "text_model", pipe.text_encoder)
    return pipe


def flags_of(case: Case, tmp_path: Path) -> list[str]:
    flags = [*prompt_flags(tmp_path), "--steps", str(case["steps"]), "--guidance", str(case["guidance"])]
    flags += ["--guidance-rescale", str(case["guidance_rescale"]), "--clip-skip", str(case["clip_skip"]), "--eta", str(case["eta"])]
    if isinstance(case["negative"], tuple):
        (tmp_path / "negatives.txt").write_text("\n".join(case["negative"]) + "\n")
        flags += ["--negative-prompts", str(tmp_path / "negatives.txt")]
    elif case["negative"] is not None:
        flags += ["--negative=" + case["negative"]]
    if case["sizes"]:
        for flag, size in zip(("--original-size", "--crop", "--target-size"), SIZES.values(), strict=True):
            flags += [flag, f"{size[0]},{size[1]}"]
    return flags + (["--vae-tiling"] if case["vae_tiling"] else [])


def prompt_flags(tmp_path: Path) -> list[str]:
    (tmp_path / "prompts.txt").write_text("\n".join(PROMPTS) + "\n")
    return ["--prompts", str(tmp_path / "prompts.txt")]


def reference(pipe: Any, case: Case, latents: torch.Tensor) -> np.ndarray:
    negative = case["negative"]
    pipe.vae.use_tiling = case["vae_tiling"]
    return pipe(
        PROMPTS,
        latents=latents.clone(),
        num_inference_steps=case["steps"],
        guidance_scale=case["guidance"],
        guidance_rescale=case["guidance_rescale"],
        clip_skip=case["clip_skip"] or None,
        negative_prompt=[negative] * len(PROMPTS) if isinstance(negative, str) else negative and list(negative),
        eta=case["eta"],
        output_type="np",
        **(SIZES if case["sizes"] else {}),
    ).images


LATENTS = unit_noise(len(PROMPTS), CHANNELS, LATENT, LATENT)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("case", CASES, ids=name_of)
def test_sample_draws_what_the_pipeline_draws(
    case: Case, tmp_path: Path, made: Any, step_noise: dict[int, torch.Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    kind, options = SCHEDULERS[case["scheduler"]]
    keys = ("prediction_type", "timestep_spacing", "steps_offset")
    settings = SD_BETAS | options | {key: case[key] for key in keys}
    if case["rescale_betas_zero_snr"]:
        settings["rescale_betas_zero_snr"] = True
    scheduler = kind(**settings)
    base = made(FAMILIES[case["family"]])
    pipeline = with_scheduler(tmp_path / "pipeline", base.folder, scheduler)
    feed(monkeypatch, step_noise[CHANNELS])
    want = reference(rebuilt(base.pipe, scheduler), case, LATENTS)
    assert_same_pixels(drawn(pipeline, tmp_path / "images", LATENTS, *flags_of(case, tmp_path)), want)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", sorted(small_pipelines.SCHEDULER_CLASSES))
def test_another_scheduler_takes_the_settings_of_the_folders_own(
    name: str, tmp_path: Path, made: Any, step_noise: dict[int, torch.Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    base = made(small_pipelines.sd1)
    published = diffusers.PNDMScheduler(skip_prk_steps=True, steps_offset=1, **SD_BETAS)
    pipeline = with_scheduler(tmp_path / "pipeline", base.folder, published)
    feed(monkeypatch, step_noise[CHANNELS])
    pipe = rebuilt(base.pipe, small_pipelines.SCHEDULER_CLASSES[name].from_pretrained(pipeline / "scheduler"))
    pipe.vae.use_tiling = False
    want = pipe(PROMPTS, latents=LATENTS.clone(), num_inference_steps=5, output_type="np").images
    flags = [*prompt_flags(tmp_path), "--steps", "5", "--scheduler", name]
    assert_same_pixels(drawn(pipeline, tmp_path / "images", LATENTS, *flags), want)


@pytest.mark.filterwarnings("ignore")
def test_a_guidance_distilled_network_is_told_the_guidance(tmp_path: Path, made: Any) -> None:
    base = made(small_pipelines.guidance_distilled)
    scheduler = diffusers.DDIMScheduler(clip_sample=False, steps_offset=1, **SD_BETAS)
    pipeline = with_scheduler(tmp_path / "pipeline", base.folder, scheduler)
    pipe = rebuilt(base.pipe, scheduler)
    want = pipe(PROMPTS, latents=LATENTS.clone(), num_inference_steps=4, guidance_scale=3.5, output_type="np").images
    flags = [*prompt_flags(tmp_path), "--steps", "4", "--guidance", "3.5"]
    assert_same_pixels(drawn(pipeline, tmp_path / "images", LATENTS, *flags), want)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("family", [small_pipelines.sd2, small_pipelines.sdxl])
def test_the_given_noise_sets_the_size(family: Callable[[Path], None], tmp_path: Path, made: Any) -> None:
    """Not square, as XL's sizes and the tiles of the VAE must follow."""
    base = made(family)
    scheduler = diffusers.DDIMScheduler(clip_sample=False, steps_offset=1, **SD_BETAS)
    pipeline = with_scheduler(tmp_path / "pipeline", base.folder, scheduler)
    latents = unit_noise(len(PROMPTS), CHANNELS, LATENT, LATENT + 4)
    pipe = rebuilt(base.pipe, scheduler)
    pipe.vae.use_tiling = False
    size = {"height": PIXELS, "width": PIXELS + 8}
    want = pipe(PROMPTS, latents=latents.clone(), num_inference_steps=3, output_type="np", **size).images
    guidance = ["--guidance", "5"] if family is small_pipelines.sdxl else []
    assert_same_pixels(drawn(pipeline, tmp_path / "images", latents, *prompt_flags(tmp_path), "--steps", "3", *guidance), want)


@pytest.mark.filterwarnings("ignore")
def test_a_unet_older_than_diffusers_0_9_is_drawn_at_64(tmp_path: Path, made: Any) -> None:
    folder = Path(shutil.copytree(made(small_pipelines.sd1).folder, tmp_path / "pipeline"))
    config = json.loads((folder / "unet" / "config.json").read_text()) | {"_diffusers_version": "0.6.0", "sample_size": 32}
    (folder / "unet" / "config.json").write_text(json.dumps(config))
    (tmp_path / "one.txt").write_text("a\n")
    done = laptopdiff("sample", folder, "--prompts", tmp_path / "one.txt", "--steps", "1", "-o", tmp_path / "out")
    assert done.code == 0 and "0.8 or older" in done.err, done.err
    assert Image.open(tmp_path / "out" / "000000.png").size == (128, 128)
    assert diffusers.DiffusionPipeline.from_pretrained(folder, safety_checker=None).unet.config.sample_size == 64


# ---------------------------------------------------------------- pixel models

PIXEL_NOISE = unit_noise(len(PROMPTS), 3, LATENT, LATENT)
PIXEL_CASES: dict[str, tuple[type, Any, float]] = {
    "ddpm": (diffusers.DDPMPipeline, diffusers.DDPMScheduler(clip_sample=False, beta_end=0.0005), 0.0),
    "ddpm-large": (diffusers.DDPMPipeline, diffusers.DDPMScheduler(variance_type="fixed_large"), 0.0),
    "ddpm-sample": (diffusers.DDPMPipeline, diffusers.DDPMScheduler(prediction_type="sample"), 0.0),
    "ddim": (diffusers.DDIMPipeline, diffusers.DDIMScheduler(clip_sample=False, beta_end=0.0005), 0.0),
    "ddim-eta": (diffusers.DDIMPipeline, diffusers.DDIMScheduler(), 0.7),
    "ddim-v": (diffusers.DDIMPipeline, diffusers.DDIMScheduler(prediction_type="v_prediction"), 0.3),
}


@pytest.mark.parametrize("name", sorted(PIXEL_CASES))
def test_sample_draws_what_the_unconditional_pipelines_draw(
    name: str, tmp_path: Path, made: Any, step_noise: dict[int, torch.Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    kind, scheduler, eta = PIXEL_CASES[name]
    base = made(small_pipelines.pixels)
    pipeline = with_scheduler(tmp_path / "pipeline", base.folder, scheduler)
    pipe = kind(unet=base.pipe.unet, scheduler=scheduler)
    pipe.set_progress_bar_config(disable=True)
    feed(monkeypatch, step_noise[3])
    for module in ("ddim.pipeline_ddim", "ddpm.pipeline_ddpm"):
        monkeypatch.setattr(f"diffusers.pipelines.{module}.randn_tensor", lambda *_, **__: PIXEL_NOISE.clone())
    options = {"eta": eta} if kind is diffusers.DDIMPipeline else {}
    want = pipe(batch_size=len(PIXEL_NOISE), num_inference_steps=6, output_type="np", **options).images
    flags = ["--count", str(len(PIXEL_NOISE)), "--steps", "6", "--eta", str(eta)]
    assert_same_pixels(drawn(pipeline, tmp_path / "images", PIXEL_NOISE, *flags), want)


def test_class_labels_condition_each_picture(tmp_path: Path) -> None:
    small_pipelines.pixels(tmp_path / "pipeline", num_class_embeds=4)
    (tmp_path / "labels.txt").write_text("3\n0\n2\n")
    pipe = diffusers.DiffusionPipeline.from_pretrained(tmp_path / "pipeline")
    scheduler = diffusers.DDIMScheduler.from_config(pipe.scheduler.config, clip_sample=False, beta_end=0.0005)
    pipeline = with_scheduler(tmp_path / "ddim", tmp_path / "pipeline", scheduler)
    scheduler.set_timesteps(4)
    x = PIXEL_NOISE
    with torch.no_grad():
        for t in scheduler.timesteps:
            x = scheduler.step(pipe.unet(x, t, class_labels=torch.tensor([3, 0, 2])).sample, t, x).prev_sample
    want = (x / 2 + 0.5).clamp(0, 1).permute(0, 2, 3, 1).numpy()
    flags = ["--labels", str(tmp_path / "labels.txt"), "--steps", "4"]
    assert_same_pixels(drawn(pipeline, tmp_path / "images", PIXEL_NOISE, *flags), want)


# ---------------------------------------------------------------- what does not fit


def test_networks_of_other_models_are_refused_before_they_run(tmp_path: Path, made: Any) -> None:
    sd1, sdxl = made(small_pipelines.sd1).folder, made(small_pipelines.sdxl).folder
    flags = [*prompt_flags(tmp_path), "--steps", "1", "-o", tmp_path / "out"]
    refused(BAD_INPUT, "sample", sd1, "--unet", sdxl / "unet", *flags, says="attends to text of width")
    narrow = Path(shutil.copytree(sdxl, tmp_path / "narrow"))
    small_pipelines.make_unet(
        cross_attention_dim=small_pipelines.CONTEXT + small_pipelines.CONTEXT_2, use_linear_projection=True
    ).save_pretrained(narrow / "unet")
    refused(BAD_INPUT, "sample", narrow, *flags, says="does not take the pooled text")


def test_sizes_that_a_pixel_model_cannot_run_at(tmp_path: Path, made: Any) -> None:
    folder = made(small_pipelines.pixels).folder
    refused(BAD_INPUT, "sample", folder, "--count", "1", "--steps", "1", "--latent", "9", "-o", tmp_path / "out", says="9x9")
    inputs = tmp_path / "in.safetensors"
    save_file({"sample": torch.zeros(1, 3, 7, 8), "timestep": torch.tensor([5])}, inputs)
    refused(BAD_INPUT, "forward", folder / "unet", "--inputs", inputs, "-o", tmp_path / "o", says="cannot run at 7x8")


def test_class_conditional_networks_need_their_labels(tmp_path: Path) -> None:
    small_pipelines.pixels(tmp_path / "table", num_class_embeds=4)
    refused(USAGE, "sample", tmp_path / "table", "--count", "2", "-o", tmp_path / "out", says="--labels is missing")
    small_pipelines.pixels(tmp_path / "identity", class_embed_type="identity")
    (tmp_path / "labels.txt").write_text("1\n")
    flags = ["--labels", tmp_path / "labels.txt", "-o", tmp_path / "out"]
    refused(BAD_INPUT, "sample", tmp_path / "identity", *flags, says="takes vectors for classes")


@pytest.mark.parametrize(("name", "entry"), [("vqvae", ["diffusers", "VQModel"]), ("vae", ["diffusers", "AutoencoderKL"])])
def test_components_that_would_be_ignored_are_refused(name: str, entry: list[str], tmp_path: Path, made: Any) -> None:
    folder = Path(shutil.copytree(made(small_pipelines.pixels).folder, tmp_path / "pipeline"))
    (folder / name).mkdir()
    index = json.loads((folder / "model_index.json").read_text()) | {name: entry}
    (folder / "model_index.json").write_text(json.dumps(index))
    refused(BAD_INPUT, "sample", folder, "--count", "1", "-o", tmp_path / "out", says=name)


@pytest.mark.parametrize("part", ["vae", "text_encoder"])
def test_nan_in_any_part_is_named(part: str, tmp_path: Path, made: Any) -> None:
    folder = Path(shutil.copytree(made(small_pipelines.sd1).folder, tmp_path / "pipeline"))
    path = next((folder / part).glob("*.safetensors"))
    state = load_file(path)
    name = sorted(state)[0]
    state[name].view(-1)[0] = torch.nan
    save_file(state, path)
    refused(NON_FINITE, "sample", folder, *prompt_flags(tmp_path), "--steps", "1", "-o", tmp_path / "out", says="NaN")


# ---------------------------------------------------------------- limits


def test_a_vae_that_overflows_in_half_precision_decodes_in_full(tmp_path: Path, made: Any) -> None:
    """SDXL's own VAE does; a norm follows, so the pictures are those of a tame one."""
    pipeline = shutil.copytree(made(small_pipelines.sdxl).folder, tmp_path / "pipeline")
    path = pipeline / "vae" / "diffusion_pytorch_model.safetensors"
    state = load_file(path)
    state |= {name: 1e5 * state[name] for name in state if name.startswith("decoder.mid_block.resnets.1.conv1.")}
    save_file(state, path)
    flags = [*prompt_flags(tmp_path), "--steps", "4"]
    full = drawn(pipeline, tmp_path / "f32", LATENTS, *flags).astype(int)
    half = drawn(pipeline, tmp_path / "f16", LATENTS, *flags, "--dtype", "f16").astype(int)
    assert full.std() > 5
    assert np.abs(full - half).mean() < 3


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (["--clip-skip", "4"], "--clip-skip 4: expected 0 to 3"),
        (["--clip-skip", "-1"], "--clip-skip -1: expected 0 to 3"),
        (["--guidance-rescale", "1.5"], "guidance rescale is 1.5, expected 0 to 1"),
        (["--negative", "x", "--negative-prompts", "PROMPTS"], "exclude each other"),
        (["--negative-prompts", "ONE"], "has 1 rows for 3 prompts"),
        (["--crop", "1,2,3"], "--crop: expected two numbers of pixels"),
        (["--original-size", "-1,2"], "--original-size: expected two numbers of pixels"),
        (["--labels", "PROMPTS"], "takes --prompts"),
    ],
)
def test_options_that_do_not_fit_a_pipeline_are_refused(flags: list[str], says: str, tmp_path: Path, made: Any) -> None:
    given = prompt_flags(tmp_path)
    (tmp_path / "one.txt").write_text("blurry\n")
    files = {"PROMPTS": given[1], "ONE": str(tmp_path / "one.txt")}
    flags = [files.get(flag, flag) for flag in flags]
    refused(USAGE, "sample", made(small_pipelines.sd1).folder, *given, "-o", tmp_path / "images", *flags, says=says)
    assert not (tmp_path / "images").exists()


@pytest.mark.parametrize(
    ("labels", "code", "says"),
    [("4\n", 3, "class 4 is not one of the U-Net's 4"), ("-1\n", 3, "class -1"), ("cat\n", 3, "expected the number of a class")],
)
def test_labels_that_are_no_classes_are_refused(labels: str, code: int, says: str, tmp_path: Path) -> None:
    small_pipelines.pixels(tmp_path / "pipeline", num_class_embeds=4)
    (tmp_path / "labels.txt").write_text(labels)
    refused(code, "sample", tmp_path / "pipeline", "--labels", tmp_path / "labels.txt", "-o", tmp_path / "images", says=says)


def test_pipelines_whose_network_takes_more_than_it_gives_are_refused(tmp_path: Path, made: Any) -> None:
    inpainting = shutil.copytree(made(small_pipelines.sd1).folder, tmp_path / "pipeline")
    small_pipelines.make_unet(in_channels=9).save_pretrained(inpainting / "unet")
    flags = [*prompt_flags(tmp_path), "-o", tmp_path / "images"]
    refused(BAD_INPUT, "sample", inpainting, *flags, says="takes 9 channels and gives 4; inpainting")


def test_a_signal_stops_between_two_steps(tmp_path: Path, made: Any) -> None:
    """One batch of 900 steps on a large latent would take many minutes."""
    flags = [*prompt_flags(tmp_path), "--count", "1", "--steps", "900", "--latent", "64", "-o", tmp_path / "images"]
    process = start("sample", made(small_pipelines.sd1).folder, *flags, stderr=subprocess.PIPE, text=True)
    try:
        while process.poll() is None and not any(p.is_dir() for p in tmp_path.iterdir()):
            time.sleep(0.01)
        time.sleep(0.5)
        process.send_signal(signal.SIGTERM)
        _, message = process.communicate(timeout=120)
    finally:
        process.kill()
    assert process.returncode == 130, message
    assert "interrupted" in message
    assert [p.name for p in tmp_path.iterdir() if p.is_dir()] == []
