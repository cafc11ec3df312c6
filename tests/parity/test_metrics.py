"""metrics/ against Pillow, transformers and SciPy, number by number, on small models with random weights.

The C++ side is the program laptopdiff_metrics_probe in $LAPTOPDIFF_BUILD (default: build/ of the repository).
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
from pathlib import Path
from typing import Any, Callable

import numpy as np
import PIL
import pytest
import scipy.linalg
import torch
from PIL import Image
from safetensors.numpy import load_file, save_file
from transformers import CLIPConfig, CLIPModel, CLIPTokenizer, ResNetConfig, ResNetForImageClassification
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
from transformers.models.convnext.image_processing_pil_convnext import ConvNextImageProcessorPil

ROOT = Path(__file__).resolve().parents[2]
BUILD = Path(os.environ.get("LAPTOPDIFF_BUILD", ROOT / "build"))
TOLERANCE = 1e-5  # of the reference's range
PILLOW = int(PIL.__version__.split(".")[0])
BICUBIC, BILINEAR = Image.Resampling.BICUBIC, Image.Resampling.BILINEAR


def find_probe() -> Path:
    found = sorted(p for p in BUILD.rglob("laptopdiff_metrics_probe") if p.is_file())
    assert found, f"no laptopdiff_metrics_probe under {BUILD}; build it, or set LAPTOPDIFF_BUILD"
    return found[0]


def probe_process(
    folder: Path, jobs: list[dict[str, Any]], inputs: dict[str, np.ndarray]
) -> subprocess.CompletedProcess[str]:
    save_file({k: np.ascontiguousarray(v) for k, v in inputs.items()}, folder / "in.safetensors")
    job = {"inputs": str(folder / "in.safetensors"), "output": str(folder / "out.safetensors"), "jobs": jobs}
    (folder / "job.json").write_text(json.dumps(job))
    return subprocess.run([find_probe(), folder / "job.json"], capture_output=True, text=True)


def probe(folder: Path, jobs: list[dict[str, Any]], inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    done = probe_process(folder, jobs, inputs)
    assert done.returncode == 0, done.stderr
    return load_file(folder / "out.safetensors")


def assert_close(got: np.ndarray, want: np.ndarray, tolerance: float = TOLERANCE) -> None:
    want = np.asarray(want)
    assert got.shape == want.shape
    scale = max(float(np.ptp(want)), float(np.abs(want).max()))
    assert np.abs(got - want).max() <= tolerance * scale


def picture(rng: np.random.Generator, height: int, width: int, channels: int = 3) -> np.ndarray:
    """Noise on a gradient: hard edges for the filter's overshoot, flat parts for its sum."""
    noise = rng.integers(0, 256, (height, width, channels))
    ramp = np.linspace(0, 255, width)[None, :, None]
    return np.where(rng.random((height, width, 1)) < 0.5, noise, ramp).astype(np.uint8)


def to_pil(image: np.ndarray) -> Image.Image:
    return Image.fromarray(image[..., 0] if image.shape[2] == 1 else image)


RESIZES = [
    # height, width, channels -> height, width
    ((17, 23, 3), (7, 5)),
    ((17, 23, 3), (31, 41)),
    ((64, 48, 3), (224, 168)),
    ((513, 511, 3), (224, 223)),
    ((255, 333, 1), (32, 41)),
    ((32, 32, 1), (224, 224)),
    ((1, 1, 3), (5, 9)),
    ((3, 1000, 3), (3, 1)),
    ((1000, 3, 1), (2, 3)),
    ((37, 53, 3), (37, 53)),
    ((37, 53, 3), (37, 19)),
    ((37, 53, 3), (90, 53)),
    ((2, 2, 3), (1, 1)),
]
RANDOM = np.random.default_rng(1)
RESIZES += [((*RANDOM.integers(1, 120, 2).tolist(), 3), tuple(RANDOM.integers(1, 120, 2).tolist())) for _ in range(60)]


def one_call(image: Image.Image, height: int, width: int, resample: Image.Resampling) -> Image.Image:
    return image.resize((width, height), resample)


def horizontal_then_vertical(image: Image.Image, height: int, width: int, resample: Image.Resampling) -> Image.Image:
    """What one call did before Pillow 13, in two calls that leave any Pillow no choice."""
    return image.resize((width, image.height), resample).resize((width, height), resample)


@pytest.mark.parametrize("pillow, resize", [(12, horizontal_then_vertical), (PILLOW, one_call)])
def test_resize_is_byte_equal_to_pillow(pillow: int, resize: Callable[..., Image.Image], tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    inputs, jobs, want = {}, [], {}
    for i, (shape, (height, width)) in enumerate(RESIZES):
        inputs[f"{i}"] = picture(rng, *shape)
        for resample in (BICUBIC, BILINEAR):
            name = f"{i}.{int(resample)}"
            job = {"name": name, "op": "resize", "image": f"{i}", "height": height, "width": width}
            jobs.append(job | {"resample": int(resample), "pillow": pillow})
            want[name] = np.asarray(resize(to_pil(inputs[f"{i}"]), height, width, resample)).reshape(height, width, -1)
    got = probe(tmp_path, jobs, inputs)
    for name, expected in want.items():
        np.testing.assert_array_equal(got[name], expected, err_msg=f"{name}: {RESIZES[int(name.split('.')[0])]}")


PROCESSORS = {
    "clip": CLIPImageProcessorPil(size={"shortest_edge": 24}, crop_size={"height": 24, "width": 24}),
    "clip-odd-crop": CLIPImageProcessorPil(size={"shortest_edge": 30}, crop_size={"height": 23, "width": 21}),
    "clip-large-crop": CLIPImageProcessorPil(size={"shortest_edge": 20}, crop_size={"height": 25, "width": 32}),
    "clip-square-bilinear": CLIPImageProcessorPil(
        size={"height": 24, "width": 20},
        resample=BILINEAR,
        do_center_crop=False,
        image_mean=[0.5] * 3,
        image_std=[0.25] * 3,
    ),
    "clip-rescale-only": CLIPImageProcessorPil(do_resize=False, do_center_crop=False, do_normalize=False),
    "convnext": ConvNextImageProcessorPil(size={"shortest_edge": 28}),
    "convnext-warp": ConvNextImageProcessorPil(size={"shortest_edge": 384}),
}
PICTURE_SIZES = [(33, 57), (57, 33), (64, 64), (101, 40), (10, 12)]


@pytest.mark.parametrize("kind", PROCESSORS)
def test_preprocessing_equals_the_transformers_processor_bit_for_bit(kind: str, tmp_path: Path) -> None:
    processor = PROCESSORS[kind]
    processor.save_pretrained(tmp_path / "model")
    rng = np.random.default_rng(2)
    inputs = {f"{h}x{w}": picture(rng, h, w) for h, w in PICTURE_SIZES}
    job = {"op": "prepare", "folder": str(tmp_path / "model"), "channels": 3, "pillow": PILLOW}
    got = probe(tmp_path, [job | {"name": name, "image": name} for name in inputs], inputs)
    for name, image in inputs.items():
        want = processor(images=[to_pil(image)], return_tensors="np")["pixel_values"][0]
        np.testing.assert_array_equal(got[name], want, err_msg=f"{kind} {name}")


def test_grey_and_colour_are_converted_as_pillow_converts_them(tmp_path: Path) -> None:
    processor = CLIPImageProcessorPil(size={"shortest_edge": 24}, crop_size={"height": 24, "width": 24})
    processor.save_pretrained(tmp_path / "colour")
    grey_steps = {"do_resize": False, "do_center_crop": False, "do_normalize": False, "rescale_factor": 1}
    (tmp_path / "grey").mkdir()
    (tmp_path / "grey" / "preprocessor_config.json").write_text(json.dumps(grey_steps))
    rng = np.random.default_rng(3)
    inputs = {"grey": picture(rng, 40, 31, 1), "colour": rng.integers(0, 256, (40, 31, 3)).astype(np.uint8)}
    jobs = [
        {"name": "to colour", "image": "grey", "folder": str(tmp_path / "colour"), "channels": 3},
        {"name": "to grey", "image": "colour", "folder": str(tmp_path / "grey"), "channels": 1},
    ]
    jobs = [job | {"op": "prepare", "pillow": PILLOW} for job in jobs]
    got = probe(tmp_path, jobs, inputs)
    want = processor(images=[to_pil(inputs["grey"]).convert("RGB")], return_tensors="np")["pixel_values"][0]
    np.testing.assert_array_equal(got["to colour"], want)
    luma = np.asarray(to_pil(inputs["colour"]).convert("L"))
    np.testing.assert_array_equal(got["to grey"][0], luma.astype(np.float32))


def write_tokenizer(folder: Path) -> int:
    """A CLIP tokenizer over bytes with a few merges, in the published layout; returns its size."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    rest = [b for b in range(256) if b not in printable]
    symbols = [chr(b) for b in printable] + [chr(256 + i) for i in range(len(rest))]
    merges = [("p", "h"), ("ph", "o"), ("t", "o</w>"), ("pho", "to</w>"), ("o", "f</w>"), ("c", "a"), ("ca", "t</w>")]
    tokens = symbols + [s + "</w>" for s in symbols] + [a + b for a, b in merges]
    tokens += ["<|startoftext|>", "<|endoftext|>"]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.json").write_text(json.dumps({token: i for i, token in enumerate(tokens)}))
    (folder / "merges.txt").write_text("#version: 0.2\n" + "".join(f"{a} {b}\n" for a, b in merges))
    special = {"bos_token": "<|startoftext|>", "eos_token": "<|endoftext|>", "unk_token": "<|endoftext|>"}
    special["pad_token"] = "<|endoftext|>"
    (folder / "special_tokens_map.json").write_text(json.dumps(special))
    config = special | {"tokenizer_class": "CLIPTokenizer", "model_max_length": 77}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return len(tokens)


def make_clip(folder: Path, act: str = "quick_gelu", patch: int = 8, seed: int = 0) -> CLIPModel:
    vocabulary = write_tokenizer(folder)
    torch.manual_seed(seed)
    common = {"num_attention_heads": 2, "hidden_act": act}
    text = common | {
        "vocab_size": vocabulary,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "bos_token_id": vocabulary - 2,
        "eos_token_id": vocabulary - 1,
        "pad_token_id": vocabulary - 1,
    }
    vision = common | {
        "hidden_size": 24,
        "intermediate_size": 40,
        "num_hidden_layers": 3,
        "image_size": 33,
        "patch_size": patch,
    }
    model = CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=16, logit_scale_init_value=3.1))
    with torch.no_grad():  # the stock initialisation is so small that wrong blocks would hardly show
        for name, parameter in model.named_parameters():
            if parameter.ndim >= 2:
                parameter.mul_(4)
            elif "norm" in name or name.endswith("bias"):
                parameter.add_(0.2 * torch.randn_like(parameter))
    model.eval().save_pretrained(folder)
    CLIPImageProcessorPil(size={"shortest_edge": 33}, crop_size={"height": 33, "width": 33}).save_pretrained(folder)
    return model


TEXTS = [
    "a photo of a cat",
    "",
    "A  Photo,of 2 cats!",
    "x" * 300,
    "the end",
]


def clip_reference(model: CLIPModel, folder: Path, images: np.ndarray, texts: list[str]) -> dict[str, np.ndarray]:
    processor, tokenizer = CLIPImageProcessorPil.from_pretrained(folder), CLIPTokenizer.from_pretrained(folder)
    pixels = processor(images=[to_pil(image).convert("RGB") for image in images], return_tensors="pt")
    ids = tokenizer(texts, padding="max_length", max_length=77, truncation=True, return_tensors="pt")
    with torch.no_grad():
        out = model(**pixels, **ids)
    return {
        "images": out.image_embeds.numpy(),
        "texts": out.text_embeds.numpy(),
        "clip": (out.image_embeds * out.text_embeds).sum(-1).numpy(),
        "pick": out.logits_per_image.diagonal().numpy(),
    }


@pytest.mark.parametrize("act, patch", [("quick_gelu", 8), ("gelu", 11)])
@pytest.mark.parametrize("shape", [(33, 33, 3), (40, 57, 3), (32, 32, 1)])
def test_clip_embeddings_and_scores_equal_transformers(
    act: str, patch: int, shape: tuple[int, int, int], tmp_path: Path
) -> None:
    folder = tmp_path / "clip"
    model = make_clip(folder, act, patch)
    rng = np.random.default_rng(4)
    images = np.stack([picture(rng, *shape) for _ in TEXTS])
    job = {"name": "m", "op": "clip", "folder": str(folder), "images": "i", "texts": TEXTS}
    got = probe(tmp_path, [job], {"i": images})
    for name, want in clip_reference(model, folder, images, TEXTS).items():
        assert_close(got[f"m.{name}"], want)


def test_clip_reads_half_precision_and_sharded_files(tmp_path: Path) -> None:
    model = make_clip(tmp_path / "clip").half()
    (tmp_path / "clip" / "model.safetensors").unlink()
    model.save_pretrained(tmp_path / "clip", max_shard_size="50KB")
    assert (tmp_path / "clip" / "model.safetensors.index.json").exists()
    images = np.stack([picture(np.random.default_rng(5), 33, 33) for _ in TEXTS])
    job = {"name": "m", "op": "clip", "folder": str(tmp_path / "clip"), "images": "i", "texts": TEXTS}
    got = probe(tmp_path, [job], {"i": images})
    for name, want in clip_reference(model.float(), tmp_path / "clip", images, TEXTS).items():
        assert_close(got[f"m.{name}"], want)


RESNETS = {
    "basic": dict(layer_type="basic", embedding_size=8, hidden_sizes=[8, 16, 24], depths=[2, 1, 2]),
    "basic-down": dict(
        layer_type="basic", embedding_size=8, hidden_sizes=[8, 16], depths=[1, 2], downsample_in_first_stage=True
    ),
    "bottleneck": dict(layer_type="bottleneck", embedding_size=8, hidden_sizes=[16, 32], depths=[2, 2]),
    "bottleneck-down": dict(
        layer_type="bottleneck", embedding_size=8, hidden_sizes=[16, 32], depths=[1, 2], downsample_in_bottleneck=True
    ),
    "grey": dict(layer_type="basic", embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], num_channels=1),
}
CLASS_NAMES = ["t-shirt", "dress", "bag"]


def make_classifier(folder: Path, seed: int = 0, **options: Any) -> ResNetForImageClassification:
    torch.manual_seed(seed)
    names = dict(enumerate(CLASS_NAMES))
    config = ResNetConfig(hidden_act="relu", id2label=names, label2id={n: i for i, n in names.items()}, **options)
    model = ResNetForImageClassification(config)
    with torch.no_grad():  # statistics and affine parts far from 0 and 1
        for name, tensor in model.state_dict().items():
            if "normalization" in name and tensor.is_floating_point():
                tensor.copy_(0.5 + torch.rand_like(tensor))
    model.eval().save_pretrained(folder)
    one_channel = options.get("num_channels", 3) == 1
    steps = {"do_resize": True, "size": {"height": 32, "width": 32}, "resample": 2, "rescale_factor": 1 / 255}
    steps |= {"image_mean": [0.5] * (1 if one_channel else 3), "image_std": [0.5] * (1 if one_channel else 3)}
    steps |= {"do_center_crop": False, "image_processor_type": "ViTImageProcessor"}
    (folder / "preprocessor_config.json").write_text(json.dumps(steps))
    return model


def classify(model: ResNetForImageClassification, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Logits and pooled features of pictures that are already 32x32."""
    pixels = (torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255 - 0.5) / 0.5
    if pixels.shape[1] == 1 and model.config.num_channels == 3:
        pixels = pixels.expand(-1, 3, -1, -1)
    with torch.no_grad():
        return model(pixels).logits.numpy(), model.resnet(pixels).pooler_output.flatten(1).numpy()


@pytest.mark.parametrize("kind", RESNETS)
def test_classifier_equals_transformers(kind: str, tmp_path: Path) -> None:
    model = make_classifier(tmp_path / "c", **RESNETS[kind])
    rng = np.random.default_rng(6)
    images = np.stack([picture(rng, 32, 32, RESNETS[kind].get("num_channels", 3)) for _ in range(5)])
    job = {"name": "c", "op": "classifier", "folder": str(tmp_path / "c"), "images": "i"}
    got = probe(tmp_path, [job], {"i": images})
    logits, features = classify(model, images)
    assert_close(got["c.logits"], logits)
    assert_close(got["c.features"], features)


def frechet(x: np.ndarray, y: np.ndarray) -> float:
    x, y = x.astype(np.float64), y.astype(np.float64)
    s1, s2 = np.cov(x, rowvar=False), np.cov(y, rowvar=False)
    root = scipy.linalg.sqrtm(s1 @ s2)
    return float(((x.mean(0) - y.mean(0)) ** 2).sum() + np.trace(s1 + s2 - 2 * root.real))


def feature_pairs() -> dict[str, tuple[np.ndarray, np.ndarray]]:
    rng = np.random.default_rng(7)
    mix = rng.normal(size=(40, 40))
    return {
        "full rank": (rng.normal(size=(300, 40)) @ mix, 0.3 + rng.normal(size=(211, 40))),
        "pooled relu": (np.abs(rng.normal(size=(100, 24))), np.abs(rng.normal(size=(90, 24)) + 0.2)),
        "large offset": (1e4 + rng.normal(size=(120, 8)), 1e4 + 2 * rng.normal(size=(130, 8))),
    }


def test_frechet_distance_equals_scipy(tmp_path: Path) -> None:
    pairs = feature_pairs()
    inputs = {f"{name} {side}": value for name, pair in pairs.items() for side, value in zip("xy", pair)}
    jobs = [{"name": name, "op": "frechet", "x": f"{name} x", "y": f"{name} y"} for name in pairs]
    got = probe(tmp_path, jobs, inputs)
    for name, (x, y) in pairs.items():
        assert got[name][0] == pytest.approx(frechet(x, y), rel=1e-8), name


def test_frechet_distance_of_singular_covariances_equals_the_svd_form(tmp_path: Path) -> None:
    """With fewer samples than features sqrtm is unstable; tr (S1 S2)^(1/2) is the nuclear norm of X Y' there."""
    rng = np.random.default_rng(8)
    x, y = rng.normal(size=(12, 30)), 0.5 + rng.normal(size=(10, 30))
    cx, cy = x - x.mean(0), y - y.mean(0)
    nuclear = np.linalg.svd(cx @ cy.T / np.sqrt(11 * 9), compute_uv=False).sum()
    want = ((x.mean(0) - y.mean(0)) ** 2).sum() + (cx**2).sum() / 11 + (cy**2).sum() / 9 - 2 * nuclear
    got = probe(tmp_path, [{"name": "d", "op": "frechet", "x": "x", "y": "y"}], {"x": x, "y": y})
    # Eigenvalues that are zero come out near 1e-16, and their roots near 1e-8.
    assert got["d"][0] == pytest.approx(want, rel=1e-6)


def kernel_distance(x: np.ndarray, y: np.ndarray) -> float:
    def k(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        return (a @ b.T / a.shape[1] + 1) ** 3

    m = len(x)
    off = sum(v.sum() - np.trace(v) for v in (k(x, x), k(y, y)))
    return off / (m * (m - 1)) - 2 * k(x, y).sum() / m**2


def test_kernel_distance_of_whole_sets_equals_the_formula(tmp_path: Path) -> None:
    rng = np.random.default_rng(9)
    x, y = rng.normal(size=(60, 16)), 0.4 + rng.normal(size=(60, 16))
    job = {"name": "k", "op": "kid", "x": "x", "y": "y", "subsets": 3, "subset_size": 60}
    got = probe(tmp_path, [job], {"x": x, "y": y})
    assert got["k"][0] == pytest.approx(kernel_distance(x, y), rel=1e-10)
    assert got["k"][1] <= 1e-12


def save_pictures(folder: Path, images: np.ndarray) -> None:
    folder.mkdir()
    for i, image in enumerate(images):
        to_pil(image).save(folder / f"{i:06}.png")


def test_evaluate_reports_all_metrics_with_their_provenance(tmp_path: Path) -> None:
    rng = np.random.default_rng(10)
    images = np.stack([picture(rng, 32, 32) for _ in range(40)])
    real = np.stack([picture(rng, 32, 32, 1) for _ in range(50)])
    prompts = [TEXTS[i % len(TEXTS)] for i in range(40)]
    labels = [i % 3 for i in range(40)]
    clip = make_clip(tmp_path / "models" / "clip")
    pick = make_clip(tmp_path / "models" / "pick", seed=1)
    classifier = make_classifier(tmp_path / "models" / "classifier", **RESNETS["basic"])
    save_pictures(tmp_path / "images", images)
    (tmp_path / "data").mkdir()
    save_file({"images": real}, tmp_path / "data" / "images.safetensors")
    (tmp_path / "prompts.txt").write_text("".join(p + "\n" for p in prompts))
    (tmp_path / "labels.txt").write_text("".join(f"{CLASS_NAMES[k] if k == 1 else k}\n" for k in labels))
    job = {"name": "e", "op": "evaluate", "output": str(tmp_path / "metrics.json"), "batch": 16}
    job |= {"images": str(tmp_path / "images"), "models": str(tmp_path / "models"), "reference": str(tmp_path / "data")}
    job |= {"prompts": str(tmp_path / "prompts.txt"), "labels": str(tmp_path / "labels.txt")}
    probe(tmp_path, [job | {"metrics": ["clip", "pick", "fid", "kid", "accuracy"]}], {"none": np.zeros(1)})
    result = json.loads((tmp_path / "metrics.json").read_text())
    values = result["metrics"]

    scores = clip_reference(clip, tmp_path / "models" / "clip", images, prompts)["clip"]
    assert values["clip"]["value"] == pytest.approx(scores.mean(), abs=1e-5)
    assert values["clip"]["standard_error"] == pytest.approx(scores.std(ddof=1) / np.sqrt(40), rel=1e-3)
    low, high = values["clip"]["interval"]
    assert low < values["clip"]["value"] < high
    picks = clip_reference(pick, tmp_path / "models" / "pick", images, prompts)["pick"]
    assert values["pick"]["value"] == pytest.approx(picks.mean(), rel=1e-4)

    logits, features = classify(classifier, images)
    _, real_features = classify(classifier, real)
    assert values["fid"]["value"] == pytest.approx(frechet(features, real_features), rel=1e-4)
    assert values["kid"]["subset_size"] == 40
    assert (values["fid"]["count"], values["fid"]["reference_count"], values["fid"]["width"]) == (40, 50, 24)
    assert values["accuracy"]["value"] == pytest.approx((logits.argmax(-1) == np.array(labels)).mean())
    assert sum(row["count"] for row in values["accuracy"]["classes"].values()) == 40

    def sha(*parts: str) -> str:
        return hashlib.sha256(tmp_path.joinpath(*parts).read_bytes()).hexdigest()

    weights = "model.safetensors"
    for name in ("clip", "pick", "classifier"):
        assert result["models"][name]["weights_sha256"] == {weights: sha("models", name, weights)}
    assert result["prompts"]["sha256"] == sha("prompts.txt")
    assert result["reference"]["digest"] == sha("data", "images.safetensors")
    names = sorted(p.name for p in (tmp_path / "images").iterdir())
    listing = "".join(f"{name}\n{sha('images', name)}\n" for name in names)
    assert result["images"]["digest"] == hashlib.sha256(listing.encode()).hexdigest()
    assert (result["images"]["count"], result["images"]["size"]) == (40, "32x32")


def test_a_missing_and_an_unexpected_tensor_are_both_named(tmp_path: Path) -> None:
    make_clip(tmp_path / "clip")
    weights = load_file(tmp_path / "clip" / "model.safetensors")
    weights["vision_model.extra.weight"] = weights.pop("vision_model.post_layernorm.bias")
    save_file(weights, tmp_path / "clip" / "model.safetensors")
    images = np.zeros((1, 33, 33, 3), np.uint8)
    job = {"name": "m", "op": "clip", "folder": str(tmp_path / "clip"), "images": "i", "texts": ["a"]}
    done = probe_process(tmp_path, [job], {"i": images})
    assert done.returncode == 3
    assert "vision_model.post_layernorm.bias" in done.stderr and "vision_model.extra.weight" in done.stderr
