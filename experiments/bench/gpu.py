"""Forward and scoring on a GPU, ours beside diffusers, eager and torch.compile'd: same type, weights and machine.

    python experiments/bench/gpu.py [--model sd15|sdxl] [--dtype bf16] [--batches 1,8] [--no-compile] [-o FILE]

Random weights of the published shape. The peer runs channels-last, without gradients and with cuDNN's search for its
fastest algorithm; compiled it runs in mode `reduce-overhead`, which is CUDA graphs too. Ours runs as every command does,
with algorithms that give the same bits again. A scoring pass of the eager peer is the naive loop, run in full. The
compiled peer would compile every variant anew; its loop is taken to last its forward's time in proportion to MACs, with
no time for compiling, which is less than it can take. FLOP/s stand beside those of an 8192^3 product on random numbers.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import diffusers
import torch
from load import MODELS
from safetensors.torch import save_file
from score import bypassed, program, removals_of

DTYPES = {"f32": torch.float32, "bf16": torch.bfloat16, "f16": torch.float16}
MEMORY = "24GiB"


def seconds(work: Callable[[], object], repeat: int = 10) -> float:
    """Of one call, the middle one of `repeat`, by the clock from an idle GPU to an idle GPU."""
    for _ in range(3):
        work()
    took = []
    for _ in range(repeat):
        torch.cuda.synchronize()
        began = time.perf_counter()
        work()
        torch.cuda.synchronize()
        took.append(time.perf_counter() - began)
    return statistics.median(took)


def matmul_flops(dtype: torch.dtype) -> float:
    a, b = torch.randn(8192, 8192, device="cuda").to(dtype), torch.randn(8192, 8192, device="cuda").to(dtype)
    return 2 * 8192**3 / seconds(lambda: a @ b)


def random_rows(config: dict, samples: int) -> dict[str, torch.Tensor]:
    size = config["sample_size"]
    rows = {"sample": torch.randn(samples, 4, size, size), "timestep": torch.randint(1000, (samples,)),
            "encoder_hidden_states": torch.randn(samples, 77, config["cross_attention_dim"])}  # fmt: skip
    if config.get("addition_embed_type") == "text_time":
        rows |= {"text_embeds": torch.randn(samples, 1280), "time_ids": torch.full((samples, 6), 1024.0)}
    return rows


def forward_of(model, rows: dict[str, torch.Tensor], dtype: torch.dtype) -> Callable[[], torch.Tensor]:
    own = {name: value.cuda() if name in ("timestep", "time_ids") else value.cuda().to(dtype) for name, value in rows.items()}
    added = {name: own[name] for name in ("text_embeds", "time_ids") if name in own}
    sample = own["sample"].contiguous(memory_format=torch.channels_last)
    return lambda: model(sample, own["timestep"], own["encoder_hidden_states"], **({"added_cond_kwargs": added} if added else {})).sample


def ours(kind: str, model: Path, dtype: str, *flags: str) -> dict:
    return json.loads(program("bench", kind, model, "--dtype", dtype, "--device", "cuda", "--json", "--quiet", *flags))


def naive_scores(model, forward: Callable[[], torch.Tensor], removals: list[tuple[str, bool]]) -> list[float]:
    whole, losses = forward().float(), []
    for layer, whole_shell in removals:
        with bypassed(model, layer, whole_shell):
            losses.append((forward().float() - whole).double().square().mean().item())
    return losses


def compare(name: str, dtype_name: str, batches: list[int], compiles: bool, folder: Path) -> dict:
    config, dtype = MODELS[name], DTYPES[dtype_name]
    torch.backends.cudnn.benchmark = True
    torch.backends.cudnn.allow_tf32 = False  # f32 means f32 on both sides
    peak = matmul_flops(dtype)
    result = {"model": name, "dtype": dtype_name, "gpu": torch.cuda.get_device_name(), "matmul_flops": peak, "torch": torch.__version__, "rows": []}
    with torch.device("cuda"):
        torch.manual_seed(0)
        model = diffusers.UNet2DConditionModel.from_config(config)
    model = model.to(dtype).to(memory_format=torch.channels_last).eval()
    model.save_pretrained(folder)
    units, removals = removals_of(folder / "config.json")
    eager, naive_s, compiled_s = {}, {}, {}
    rows = {batch: random_rows(config, batch) for batch in batches}
    losses: list[float] = []
    with torch.inference_mode():
        for batch in batches:
            forward = forward_of(model, rows[batch], dtype)
            torch.cuda.reset_peak_memory_stats()
            eager[batch] = (seconds(forward), torch.cuda.max_memory_allocated() / 2**20)
            naive_scores(model, forward, removals[:1])
            torch.cuda.synchronize()
            began = time.perf_counter()
            losses = naive_scores(model, forward, removals)
            naive_s[batch] = (time.perf_counter() - began, torch.cuda.max_memory_allocated() / 2**20)
        if compiles:
            began = time.perf_counter()
            compiled = torch.compile(model, mode="reduce-overhead", dynamic=False)
            for batch in batches:
                compiled_s[batch] = seconds(forward_of(compiled, rows[batch], dtype))
            result["compiling_s"] = time.perf_counter() - began
            del compiled
    save_file(rows[batches[-1]], folder / "calibration.safetensors")
    del model
    torch._dynamo.reset()
    torch.cuda.empty_cache()
    for batch in batches:
        own = ours("forward", folder, dtype_name, "--batch", str(batch), "--repeat", "10")
        scored = ours("score", folder, dtype_name, "--samples", str(batch), "--batch", str(batch), "--repeat", "2", "--memory", MEMORY)
        result["rows"].append({
            "batch": batch,
            "forward": {"ours_s": own["median_s"], "eager_s": eager[batch][0], "compiled_s": compiled_s.get(batch), "ours_of_matmul": own["flops"] / own["median_s"] / peak,
                        "ours_mib": own["peak_gpu_mb"], "eager_mib": eager[batch][1]},
            "score": {"ours_s": scored["median_s"], "eager_s": naive_s[batch][0], "compiled_at_least_s": compiled_s[batch] * scored["naive_flops"] / own["flops"] if compiles else None,
                      "ours_of_matmul": scored["flops"] / scored["median_s"] / peak, "ours_mib": scored["peak_gpu_mb"], "eager_mib": naive_s[batch][1]},
        })  # fmt: skip
    file = folder / "scores.json"
    program("score", folder, "--calibration", folder / "calibration.safetensors", "-o", file, "--dtype", dtype_name, "--device", "cuda", "--memory", MEMORY, "--quiet")
    scores = json.loads(file.read_text(encoding="utf-8"))["units"]
    result["largest_score_difference"] = max(abs(unit["score"] - loss) / loss for unit, loss in zip(scores, losses))
    assert [unit["layer"] for unit in scores] == units
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=MODELS, default="sd15")
    parser.add_argument("--dtype", choices=DTYPES, default="bf16")
    parser.add_argument("--batches", default="1,8")
    parser.add_argument("--no-compile", action="store_true")
    parser.add_argument("-o", "--output", type=Path, help="JSON with the numbers")
    args = parser.parse_args()
    if not torch.cuda.is_available():
        print("gpu.py: no GPU here; nothing was timed")
        return
    with tempfile.TemporaryDirectory() as scratch:
        result = compare(args.model, args.dtype, [int(b) for b in args.batches.split(",")], not args.no_compile, Path(scratch))
    print(f"{result['gpu']}, {args.model} {args.dtype}, a matrix product has {result['matmul_flops'] / 1e12:.0f} TFLOP/s")
    print(f"{'':8} {'batch':>5} {'ours, ms':>9} {'eager, ms':>10} {'compiled, ms':>13} {'ratios':>12} {'of matmul':>10} {'ours, MiB':>10} {'eager, MiB':>11}")
    for row in result["rows"]:
        for kind in ("forward", "score"):
            r = row[kind]
            compiled = r.get("compiled_s", r.get("compiled_at_least_s"))
            ratios = f"{r['eager_s'] / r['ours_s']:.2f}" + (f" {compiled / r['ours_s']:.2f}" if compiled else "")
            print(f"{kind:8} {row['batch']:5} {1e3 * r['ours_s']:9.2f} {1e3 * r['eager_s']:10.2f} {1e3 * compiled if compiled else float('nan'):13.2f} {ratios:>12} "
                  f"{r['ours_of_matmul']:10.2f} {r['ours_mib']:10.0f} {r['eager_mib']:11.0f}")  # fmt: skip
    print(f"scores differ by at most {result['largest_score_difference']:.1e} of their size")
    if args.output:
        args.output.write_text(json.dumps(result, indent=2, sort_keys=True) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
