"""Trains the demo's teacher: a text-to-image latent diffusion pipeline with the topology of Stable Diffusion 1.x.

Stage `vae` trains the autoencoder. Stage `text` trains the text encoder to read captions: from the hidden state of
every token after the text it must tell the class and the attributes. As in Stable Diffusion it is then frozen. Stage
`denoiser` trains the U-Net on latents and hidden states by the noise-prediction loss, weighted towards high noise
(`timestep_weights`), with captions dropped now and then for classifier-free guidance. The result is a diffusers
StableDiffusionPipeline folder in fp16, made of the EMA weights, with published key names.

    python experiments/demo/train_teacher.py --data DIR -o DIR --minutes 6.5

While training, the state lies in DIR.state and a second run picks it up; DIR appears when everything is done.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL, DDIMScheduler, SchedulerMixin, StableDiffusionPipeline, UNet2DConditionModel
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from data import ATTRIBUTE_WORDS, CLASS_NAMES, load_split
from tokenizer import build_tokenizer
from training import Stage, add_training_flags, autocast, prepare_device, stage_options, train_output, write_summary

CONTEXT_WIDTH = 96
CAPTION_DROPOUT = 0.1
# Weight of the KL term against a reconstruction loss averaged over pixels, both per element.
KL_WEIGHT = 1e-5
TIMESTEP_BINS = 4
# The error of the picture that the noise prediction implies is 1 / alpha_cumprod times the error of the noise; with
# plain weights the class and the layout, settled at high noise, are learned last. The cap keeps the gradient calm.
WEIGHT_CAP = 10.0
TEXT_STEPS = 300
VALIDATION_ROWS = 2048
SAMPLES_PER_CLASS = 8

# Letters in shapes: B batch, C latent channels, T tokens.


def make_vae() -> AutoencoderKL:
    return AutoencoderKL(
        in_channels=3,
        out_channels=3,
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        block_out_channels=(16, 32),
        layers_per_block=1,
        latent_channels=4,
        norm_num_groups=8,
        sample_size=32,
    )


def make_unet() -> UNet2DConditionModel:
    """SD 1.x in every block and layer; only widths, heads and the latent size differ."""
    return UNet2DConditionModel(
        sample_size=16,
        in_channels=4,
        out_channels=4,
        down_block_types=("CrossAttnDownBlock2D",) * 3 + ("DownBlock2D",),
        up_block_types=("UpBlock2D",) + ("CrossAttnUpBlock2D",) * 3,
        block_out_channels=(64, 64, 64, 64),
        layers_per_block=2,
        attention_head_dim=4,  # the number of heads, as in SD 1.x
        cross_attention_dim=CONTEXT_WIDTH,
        norm_num_groups=32,
    )


def make_text_encoder(vocabulary: int) -> CLIPTextModel:
    return CLIPTextModel(
        CLIPTextConfig(
            vocab_size=vocabulary,
            hidden_size=CONTEXT_WIDTH,
            intermediate_size=4 * CONTEXT_WIDTH,
            num_hidden_layers=3,
            num_attention_heads=4,
            max_position_embeddings=77,
            hidden_act="quick_gelu",
            bos_token_id=vocabulary - 2,
            eos_token_id=vocabulary - 1,
            pad_token_id=vocabulary - 1,
        )
    )


def start_as_identity(module: nn.Module) -> nn.Module:
    """Zeroes the last layer of every residual branch, as the authors of these networks start them."""
    # Within a transformer, `to_out.0` ends no branch of its own: `proj_out` does.
    last = ("conv2", "proj_out") if isinstance(module, UNet2DConditionModel) else ("conv2", "to_out.0")
    for name, layer in module.named_modules():
        if name.endswith(last):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)
    return module


def make_scheduler() -> DDIMScheduler:
    return DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
    )


def to_pixels(images: Tensor) -> Tensor:
    """U8 [B, 32, 32, 1] to the three equal channels in [-1, 1] that the autoencoder takes."""
    return (images.permute(0, 3, 1, 2).float() / 127.5 - 1).expand(-1, 3, -1, -1)


def draw(count: int, batch: int, generator: torch.Generator) -> Tensor:
    return torch.randint(count, (batch,), generator=generator, device=generator.device)


def tokenize(tokenizer: CLIPTokenizer, captions: list[str]) -> Tensor:
    """Returns ids [N, 77], padded the way the pipeline pads prompts."""
    return tokenizer(captions, padding="max_length", max_length=77, truncation=True, return_tensors="pt").input_ids


def timestep_weights(alphas_cumprod: Tensor) -> Tensor:
    """Returns the loss weight of each timestep, with mean 1."""
    weights = (1 / alphas_cumprod).clamp(max=WEIGHT_CAP)
    return weights / weights.mean()


class Captions:
    """The different captions of some rows: a few hundred, where the rows are tens of thousands."""

    def __init__(self, tokenizer: CLIPTokenizer, rows: list[dict[str, Any]]) -> None:
        first = {row["text"]: row for row in rows}
        texts = sorted(first)
        position = {text: i for i, text in enumerate(texts)}
        self.ids = tokenize(tokenizer, texts)  # [K, 77]
        # What each caption says: the class, then the third of each attribute.
        self.answers = torch.tensor(
            [[r["label"], *(r["attributes"][a] + 1 for a in ATTRIBUTE_WORDS)] for r in map(first.get, texts)]
        )  # [K, 4]
        self.of_row = torch.tensor([position[row["text"]] for row in rows])


@torch.no_grad()
def latent_moments(vae: AutoencoderKL, images: Tensor, batch: int = 1024) -> Tensor:
    """Returns mean and standard deviation of each picture's posterior, [2, N, C, 16, 16], not scaled."""
    parts = []
    for chunk in images.split(batch):
        posterior = vae.encode(to_pixels(chunk)).latent_dist
        parts.append(torch.stack((posterior.mean, posterior.std)))
    return torch.cat(parts, dim=1)


@torch.no_grad()
def denoising_loss(
    unet: nn.Module, latents: Tensor, contexts: Tensor | None, scheduler: SchedulerMixin, batch: int = 256
) -> dict[str, Any]:
    """Returns the noise-prediction error on scaled latents, not weighted, overall and by quarter of the schedule.

    Timesteps are spread evenly over the rows and the noise is fixed, so that two models see the same inputs. A U-Net
    that takes no text has no contexts.
    """
    count, steps = len(latents), scheduler.config.num_train_timesteps
    generator = torch.Generator().manual_seed(0)
    timesteps = (torch.arange(count) * steps // count)[torch.randperm(count, generator=generator)].to(latents.device)
    noise = torch.randn(latents.shape, generator=generator).to(latents.device)
    noisy = scheduler.add_noise(latents, noise, timesteps)
    errors = []
    for rows in torch.arange(count, device=latents.device).split(batch):
        context = () if contexts is None else (contexts[rows],)
        predicted = unet(noisy[rows], timesteps[rows], *context).sample
        errors.append((predicted.float() - noise[rows]).square().mean((1, 2, 3)))
    error, which = torch.cat(errors), timesteps * TIMESTEP_BINS // steps
    return {
        "val_loss": error.mean().item(),
        "val_loss_by_timestep": [error[which == b].mean().item() for b in range(TIMESTEP_BINS)],
    }


def train_vae(
    args: argparse.Namespace, train: Tensor, val: Tensor, device: torch.device, state: Path
) -> tuple[AutoencoderKL, dict[str, Any]]:
    def loss(modules: nn.ModuleDict, generator: torch.Generator) -> Tensor:
        pixels = to_pixels(train[draw(len(train), args.batch, generator)])
        posterior = modules["vae"].encode(pixels).latent_dist
        mean, logvar = posterior.mean.float(), posterior.logvar.float()
        noise = torch.randn(mean.shape, generator=generator, device=device)
        decoded = modules["vae"].decode(mean + (0.5 * logvar).exp() * noise).sample.float()
        kl = 0.5 * (mean.square() + logvar.exp() - 1 - logvar).mean()
        return F.l1_loss(decoded, pixels) + F.mse_loss(decoded, pixels) + KL_WEIGHT * kl

    @torch.no_grad()
    def evaluate(modules: nn.ModuleDict) -> dict[str, Any]:
        squared, absolute = [], []
        for chunk in val[:VALIDATION_ROWS].split(512):
            pixels = to_pixels(chunk)
            error = modules["vae"].decode(modules["vae"].encode(pixels).latent_dist.mode()).sample - pixels
            squared.append(error.square().mean((1, 2, 3)))
            absolute.append(error.abs().mean((1, 2, 3)))
        psnr = 10 * torch.log10(4 / torch.cat(squared).mean())
        return {"val_l1": torch.cat(absolute).mean().item(), "val_psnr": psnr.item()}

    options = stage_options(args, "vae", learning_rate=2e-3, steps=args.vae_steps, minutes=args.vae_minutes)
    stage = Stage(options, {"vae": start_as_identity(make_vae())}, loss, evaluate, device, args.seed, state)
    summary = stage.run()
    return stage.ema["vae"], summary


def train_text_encoder(
    args: argparse.Namespace, vocabulary: int, captions: Captions, device: torch.device, state: Path
) -> tuple[nn.Module, dict[str, Any]]:
    ids, answers = captions.ids.to(device), captions.answers.to(device)
    sizes = [len(CLASS_NAMES)] + [3] * len(ATTRIBUTE_WORDS)
    # The first end-of-text token has read the whole caption, and so have all the tokens that pad it.
    has_read = ids == vocabulary - 1
    sample_count = min(args.batch, 32)

    def read(modules: nn.ModuleDict, which: Tensor) -> tuple[Tensor, ...]:
        hidden = modules["text_encoder"](ids[which]).last_hidden_state.float()
        return modules["heads"](hidden).split(sizes, dim=-1)

    def loss(modules: nn.ModuleDict, generator: torch.Generator) -> Tensor:
        which = draw(len(ids), sample_count, generator)
        weights = has_read[which].float()
        weights = weights / weights.sum()
        total = torch.zeros((), device=device)
        for logits, answer in zip(read(modules, which), answers[which].T, strict=True):
            losses = F.cross_entropy(logits.transpose(1, 2), answer[:, None].expand(weights.shape), reduction="none")
            total = total + (losses * weights).sum()
        return total

    @torch.no_grad()
    def evaluate(modules: nn.ModuleDict) -> dict[str, Any]:
        everything = torch.arange(len(ids), device=device)
        right = torch.stack(
            [
                (logits.argmax(-1) == answer[:, None]) | ~has_read
                for logits, answer in zip(read(modules, everything), answers.T, strict=True)
            ]
        )
        return {"read_right": right.all(0).all(1).float().mean().item()}

    options = stage_options(args, "text", learning_rate=1e-3, steps=TEXT_STEPS, minutes=None)
    modules = {"text_encoder": make_text_encoder(vocabulary), "heads": nn.Linear(CONTEXT_WIDTH, sum(sizes))}
    stage = Stage(options, modules, loss, evaluate, device, args.seed + 2, state)
    summary = stage.run()
    return stage.ema["text_encoder"], summary


def train_denoiser(
    args: argparse.Namespace,
    moments: Tensor,
    contexts: Tensor,
    which: Tensor,
    val: tuple[Tensor, Tensor],
    device: torch.device,
    state: Path,
) -> tuple[nn.Module, dict[str, Any]]:
    """Trains on scaled latent moments [2, N, C, 16, 16] and, for row i, the hidden states contexts[which[i]].

    Contexts [K + 1, T, D] end with those of the empty caption.
    """
    scheduler = make_scheduler()
    signal = scheduler.alphas_cumprod.to(device).sqrt()
    spread = (1 - scheduler.alphas_cumprod).to(device).sqrt()
    weights = timestep_weights(scheduler.alphas_cumprod.to(device))
    empty = torch.full((), len(contexts) - 1, device=device)

    def loss(modules: nn.ModuleDict, generator: torch.Generator) -> Tensor:
        rows = draw(moments.shape[1], args.batch, generator)
        mean, std = moments[:, rows]
        latents = mean + std * torch.randn(mean.shape, generator=generator, device=device)
        t = draw(len(signal), args.batch, generator)
        noise = torch.randn(latents.shape, generator=generator, device=device)
        noisy = signal[t, None, None, None] * latents + spread[t, None, None, None] * noise
        dropped = torch.rand(args.batch, generator=generator, device=device) < CAPTION_DROPOUT
        context = contexts[torch.where(dropped, empty, which[rows])]  # [B, T, D]
        errors = (modules["unet"](noisy, t, context).sample.float() - noise).square().mean((1, 2, 3))
        return (weights[t] * errors).mean()

    def evaluate(modules: nn.ModuleDict) -> dict[str, Any]:
        with autocast(device, args.bf16):
            return denoising_loss(modules["unet"], *val, scheduler)

    options = stage_options(args, "denoiser", learning_rate=args.learning_rate, steps=args.steps, minutes=args.minutes)
    unet = start_as_identity(make_unet())
    stage = Stage(options, {"unet": unet}, loss, evaluate, device, args.seed + 1, state)
    summary = stage.run()
    return stage.ema["unet"], summary


def save_pipeline(folder: Path, pipeline: StableDiffusionPipeline, tokenizer: Path) -> None:
    pipeline.save_pretrained(folder, safe_serialization=True)
    # transformers 5 writes tokenizer.json alone; published folders hold the files that build_tokenizer wrote.
    shutil.rmtree(folder / "tokenizer")
    shutil.copytree(tokenizer, folder / "tokenizer")
    # transformers 5 also leaves out the prefix that every published text encoder has.
    weights = folder / "text_encoder" / "model.safetensors"
    tensors = {f"text_model.{name.removeprefix('text_model.')}": value for name, value in load_file(weights).items()}
    save_file(tensors, weights, metadata={"format": "pt"})


def sample(pipeline: StableDiffusionPipeline, prompts: list[str], steps: int, guidance: float, seed: int) -> np.ndarray:
    """Returns pictures U8 [N, 32, 32, 3], one seed a prompt, whatever the batch."""
    pipeline.set_progress_bar_config(disable=True)
    generators = [torch.Generator().manual_seed(seed + i) for i in range(len(prompts))]
    images = pipeline(
        prompts, num_inference_steps=steps, guidance_scale=guidance, generator=generators, output_type="np"
    ).images
    return (images * 255).round().astype(np.uint8)


def write_grid(path: Path, images: np.ndarray, columns: int, zoom: int = 2) -> None:
    """Lays pictures [N, H, W, 3] out in rows of `columns`."""
    rows = [np.concatenate(images[i : i + columns], axis=1) for i in range(0, len(images), columns)]
    grid = Image.fromarray(np.concatenate(rows, axis=0))
    grid.resize((grid.width * zoom, grid.height * zoom), Image.Resampling.NEAREST).save(path, format="PNG")


def class_prompts(data: Path, per_class: int) -> list[str]:
    """Returns the first captions of each class, class by class, from the prompts of the test split."""
    rows = [json.loads(line) for line in (data / "prompts.jsonl").read_text().splitlines()]
    return [r["text"] for c in range(len(CLASS_NAMES)) for r in [r for r in rows if r["label"] == c][:per_class]]


def train(args: argparse.Namespace, state: Path) -> None:
    torch.manual_seed(args.seed)
    device = prepare_device(args.device)
    images, rows = {}, {}
    for split in ("train", "val"):
        array, all_rows = load_split(args.data, split)
        images[split], rows[split] = torch.from_numpy(array[: args.limit]).to(device), all_rows[: args.limit]

    vae, vae_summary = train_vae(args, images["train"], images["val"], device, state)
    moments = latent_moments(vae, images["train"])
    noise = torch.randn(moments[0].shape, generator=torch.Generator(device).manual_seed(args.seed), device=device)
    scaling = 1 / (moments[0] + moments[1] * noise).std().item()
    vae.register_to_config(scaling_factor=scaling)
    print(f"vae: scaling factor {scaling:.4f}, posterior std {moments[1].mean() * scaling:.4f}", flush=True)

    build_tokenizer(args.data, state / "tokenizer")
    tokenizer = CLIPTokenizer.from_pretrained(state / "tokenizer")
    captions = {split: Captions(tokenizer, rows[split]) for split in rows}
    text_encoder, text_summary = train_text_encoder(args, len(tokenizer), captions["train"], device, state)
    with torch.no_grad():
        empty = tokenize(tokenizer, [""])
        contexts = text_encoder(torch.cat((captions["train"].ids, empty)).to(device)).last_hidden_state
        val_contexts = text_encoder(captions["val"].ids.to(device)).last_hidden_state
    val = (
        latent_moments(vae, images["val"][:VALIDATION_ROWS])[0] * scaling,
        val_contexts[captions["val"].of_row[:VALIDATION_ROWS].to(device)],
    )
    which = captions["train"].of_row.to(device)
    unet, denoiser_summary = train_denoiser(args, moments * scaling, contexts, which, val, device, state)
    if args.probe:
        return

    pipeline = StableDiffusionPipeline(
        vae=vae,
        text_encoder=text_encoder,
        tokenizer=tokenizer,
        unet=unet,
        scheduler=make_scheduler(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    partial = state / "pipeline"
    shutil.rmtree(partial, ignore_errors=True)
    save_pipeline(partial, pipeline.to(torch.float16), state / "tokenizer")
    # The grid shows what was saved: half-precision weights, run in float32 as any CPU would.
    images = sample(pipeline.to(torch.float32), class_prompts(args.data, SAMPLES_PER_CLASS), 25, 3.0, args.seed)
    write_grid(partial / "samples.png", images, SAMPLES_PER_CLASS)
    shutil.copy(state / "train_log.jsonl", partial / "train_log.jsonl")
    write_summary(
        partial / "train_summary.json",
        args,
        device,
        config={
            "caption_dropout": CAPTION_DROPOUT,
            "kl_weight": KL_WEIGHT,
            "timestep_weight_cap": WEIGHT_CAP,
            "text_encoder": text_encoder.config.to_diff_dict(),
            **{
                name: {key: value for key, value in dict(part.config).items() if not key.startswith("_")}
                for name, part in (("scheduler", pipeline.scheduler), ("unet", unet), ("vae", vae))
            },
        },
        stages={"vae": vae_summary, "text": text_summary, "denoiser": denoiser_summary},
    )
    os.replace(partial, args.output)
    size = sum(path.stat().st_size for path in args.output.rglob("*.safetensors"))
    print(f"{args.output}: {size / 2**20:.1f} MiB of weights")
    shutil.rmtree(state)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_training_flags(parser)
    parser.add_argument("--learning-rate", type=float, default=8e-4, help="of the denoiser (default %(default)s)")
    length = parser.add_mutually_exclusive_group()
    length.add_argument("--steps", type=int, metavar="N", help="steps of the denoiser")
    length.add_argument("--minutes", type=float, default=6.5, metavar="M", help="or its time (default %(default)s)")
    length = parser.add_mutually_exclusive_group()
    length.add_argument("--vae-steps", type=int, metavar="N", help="steps of the autoencoder")
    length.add_argument("--vae-minutes", type=float, default=1.0, metavar="M", help="or its time (default %(default)s)")
    args = parser.parse_args()
    train_output(args, train, "model_index.json")


if __name__ == "__main__":
    main()
