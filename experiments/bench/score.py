"""One scoring pass over all units, ours beside the naive loop in diffusers: same weights, inputs, units and machine.

    python experiments/bench/score.py [--model DIR|config.json] [--dtype bf16] [--samples 1] [--rounds 3] [--threads N] [-o FILE]

The model is the architecture of Stable Diffusion 1.5 with random weights unless one is given. The peer runs eager, in the
same type, channels-last, without gradients: one forward with everything and one with each unit bypassed (and, of a
transformer with several blocks, with all of them). Ours and the peer's forwards alternate, a round each; the ratio is
that of the shortest, by the clock and by processor time (of all threads; what other programs take does not count).
Scores of the two are compared, so that a fast wrong answer is seen. FLOP/s stand beside those of a 2048^3 product.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = Path(os.environ.get("LAPTOPDIFF_BUILD", ROOT / "build")) / "laptopdiff"
SD15 = {"_class_name": "UNet2DConditionModel", "sample_size": 64, "cross_attention_dim": 768, "attention_head_dim": 8}
DTYPES = {"f32": "float32", "bf16": "bfloat16"}


def program(*arguments: str | Path) -> str:
    return subprocess.run([PROGRAM, *arguments], capture_output=True, text=True, check=True).stdout


# --- the peer, in a process of its own, so that its memory can be told from ours -------------------------------------


@contextmanager
def bypassed(model, layer: str, whole_shell: bool) -> Iterator[None]:
    """The layer's residual branch left out, as its absence is scored."""
    module = model.get_submodule(layer)
    if layer.rpartition(".")[0].endswith("resnets"):
        forward = lambda x, *_: (module.conv_shortcut(x) if module.conv_shortcut else x) / module.output_scale_factor
    elif whole_shell:
        module = model.get_submodule(layer.partition(".transformer_blocks")[0])
        forward = lambda x, *_args, **_named: (x,)
    else:
        forward = lambda x, *_args, **_named: x
    module.forward = forward
    try:
        yield
    finally:
        del module.forward


def removals_of(config: Path) -> tuple[list[str], list[tuple[str, bool]]]:
    """The units, and what a scoring bypasses in turn: a layer, and whether its whole transformer goes with it."""
    units = [unit["layer"] for unit in json.loads(program("inspect", config, "--json"))["units"]]
    shells: dict[str, list[str]] = {}
    for unit in units:
        if ".transformer_blocks." in unit:
            shells.setdefault(unit.partition(".transformer_blocks")[0], []).append(unit)
    removals = [(unit, shells.get(unit.partition(".transformer_blocks")[0], []) == [unit]) for unit in units]
    return units, removals + [(blocks[0], True) for blocks in shells.values() if len(blocks) > 1]


def timed(work: Callable[[], None]) -> dict[str, float]:
    clock, cpu = time.perf_counter(), time.process_time()
    work()
    return {"s": time.perf_counter() - clock, "cpu_s": time.process_time() - cpu}


def peak_mib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def serve(folder: Path, dtype_name: str, samples: int, threads: int) -> None:
    """Answers the words `forward`, `score` and `end` on stdin with a line of JSON each."""
    import diffusers
    import torch
    from safetensors.torch import save_file

    torch.set_num_threads(threads)
    torch.manual_seed(0)
    dtype = getattr(torch, DTYPES[dtype_name])
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    kind = getattr(diffusers, config["_class_name"])
    if list(folder.glob("*.safetensors*")):
        model = kind.from_pretrained(folder, torch_dtype=dtype)
    else:
        torch.set_default_dtype(dtype)  # made in the type: the peak of an f32 copy is not the peer's
        model = kind.from_config(config)
        torch.set_default_dtype(torch.float32)
        model.save_pretrained(folder)
    model = model.to(dtype).to(memory_format=torch.channels_last).eval()
    size = model.config.sample_size
    rows = {"sample": torch.randn(samples, model.config.in_channels, size, size), "timestep": torch.randint(1000, (samples,))}
    if kind is diffusers.UNet2DConditionModel:
        rows["encoder_hidden_states"] = torch.randn(samples, 77, model.config.cross_attention_dim)
    if model.config.get("addition_embed_type") == "text_time":
        pooled = model.config.projection_class_embeddings_input_dim - 6 * model.config.addition_time_embed_dim
        rows |= {"text_embeds": torch.randn(samples, pooled), "time_ids": torch.full((samples, 6), 1024.0)}
    save_file(rows, folder / "calibration.safetensors")

    def forward(row: int):
        one = {name: value[row : row + 1] for name, value in rows.items()}
        one = {name: value.to(dtype) if value.is_floating_point() and name != "time_ids" else value for name, value in one.items()}
        added = {name: one.pop(name) for name in ("text_embeds", "time_ids") if name in one}
        sample = one.pop("sample").contiguous(memory_format=torch.channels_last)
        return model(sample, one.pop("timestep"), **one, **({"added_cond_kwargs": added} if added else {})).sample.float()

    units, removals = removals_of(folder / "config.json")
    losses: list[float] = []

    def score() -> None:
        totals = [0.0] * len(removals)
        for row in range(samples):
            whole = forward(row)
            for index, (layer, whole_shell) in enumerate(removals):
                with bypassed(model, layer, whole_shell):
                    totals[index] += (forward(row) - whole).double().square().mean().item()
        losses[:] = [total / samples for total in totals[: len(units)]]

    a, b = torch.randn(2048, 2048).to(dtype), torch.randn(2048, 2048).to(dtype)
    peak_flops = 2 * 2048**3 / min(timed(lambda: a @ b)["s"] for _ in range(5))
    print(json.dumps({"forwards": len(removals) + 1, "matmul_flops": peak_flops}), flush=True)
    with torch.inference_mode():
        for word in sys.stdin:
            if word.strip() == "end":
                break
            took = timed(score if word.strip() == "score" else lambda: forward(0))
            print(json.dumps(took | {"peak_mib": peak_mib(), "losses": dict(zip(units, losses))}), flush=True)


# --- the comparison ---------------------------------------------------------------------------------------------------


class Peer:
    def __init__(self, *arguments: str | Path) -> None:
        command = [sys.executable, __file__, "--serve", *map(str, arguments)]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.about = self.read()

    def read(self) -> dict:
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit("score.py: the peer ended without an answer")
        return json.loads(line)

    def ask(self, word: str) -> dict:
        self.process.stdin.write(word + "\n")
        self.process.stdin.flush()
        return self.read()

    def end(self) -> None:
        self.process.stdin.write("end\n")
        self.process.stdin.close()
        self.process.wait()


def ours(kind: str, model: Path, dtype: str, threads: int, *flags: str) -> dict:
    common = ["--dtype", dtype, "--threads", str(threads), "--device", "cpu", "--json", "--quiet"]
    return json.loads(program("bench", kind, model, *common, *flags))


def shortest(runs: list[dict], key: str) -> float:
    return min(run[key] for run in runs)


def row(own: dict, peer: dict) -> dict:
    return {"ours": own, "diffusers": peer, "ratio": peer["s"] / own["s"], "cpu_ratio": peer["cpu_s"] / own["cpu_s"]}


def compare(folder: Path, args: argparse.Namespace) -> dict:
    peer = Peer(folder, args.dtype, args.samples, args.threads)
    peer.ask("forward")  # the first is not timed on either side
    theirs, own = [], []
    for _ in range(args.rounds):
        theirs.append(peer.ask("forward"))
        own.append(ours("forward", folder, args.dtype, args.threads, "--repeat", "1"))
    forward = row(
        {"s": shortest(own, "min_s"), "cpu_s": shortest(own, "min_cpu_s"), "peak_mib": max(r["peak_rss_mb"] for r in own)},
        {"s": shortest(theirs, "s"), "cpu_s": shortest(theirs, "cpu_s"), "peak_mib": max(r["peak_mib"] for r in theirs)},
    )
    forward["flops_of_matmul"] = own[0]["flops"] / forward["ours"]["s"] / peer.about["matmul_flops"]
    result = {"forward": forward, "matmul_flops": peer.about["matmul_flops"], "naive_forwards": peer.about["forwards"]}
    if not args.forward_only:
        naive = peer.ask("score")
        scored = ours("score", folder, args.dtype, args.threads, "--repeat", "1", "--samples", str(args.samples))
        result["score"] = row(
            {"s": scored["min_s"], "cpu_s": scored["min_cpu_s"], "peak_mib": scored["peak_rss_mb"]},
            {key: naive[key] for key in ("s", "cpu_s", "peak_mib")},
        )
        result["score"]["flops_of_matmul"] = scored["flops"] / scored["min_s"] / peer.about["matmul_flops"]
        file = folder / "scores.json"
        program("score", folder, "--calibration", folder / "calibration.safetensors", "-o", file, "--dtype", args.dtype,
                "--threads", str(args.threads), "--device", "cpu", "--quiet")  # fmt: skip
        units = json.loads(file.read_text(encoding="utf-8"))["units"]
        result["largest_score_difference"] = max(
            abs(unit["score"] - naive["losses"][unit["layer"]]) / naive["losses"][unit["layer"]] for unit in units
        )
    peer.end()
    return result | {"dtype": args.dtype, "samples": args.samples, "threads": args.threads, "rounds": args.rounds}


def main() -> None:
    if sys.argv[1:2] == ["--serve"]:
        return serve(Path(sys.argv[2]), sys.argv[3], int(sys.argv[4]), int(sys.argv[5]))
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, help="U-Net folder with weights, or a config.json for random ones")
    parser.add_argument("--dtype", choices=DTYPES, default="bf16")
    parser.add_argument("--samples", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--forward-only", action="store_true", help="leave the scoring passes out")
    parser.add_argument("-o", "--output", type=Path, help="JSON with the numbers")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        if args.model is None:
            (folder / "config.json").write_text(json.dumps(SD15), encoding="utf-8")
        elif args.model.is_dir():
            for file in args.model.iterdir():
                (folder / file.name).symlink_to(file.resolve())
        else:
            (folder / "config.json").write_text(args.model.read_text(encoding="utf-8"), encoding="utf-8")
        result = compare(folder, args)
    print(f"{'':8} {'ours, s':>9} {'diffusers, s':>13} {'ratio':>6} {'CPU ratio':>10} {'ours, MiB':>10} {'diffusers, MiB':>15} {'of matmul':>10}")
    for name in ("forward", "score"):
        if name in result:
            r = result[name]
            print(f"{name:8} {r['ours']['s']:9.3f} {r['diffusers']['s']:13.3f} {r['ratio']:6.2f} {r['cpu_ratio']:10.2f} "
                  f"{r['ours']['peak_mib']:10.0f} {r['diffusers']['peak_mib']:15.0f} {r['flops_of_matmul']:10.2f}")  # fmt: skip
    if "largest_score_difference" in result:
        print(f"scores differ by at most {result['largest_score_difference']:.1e} of their size")
    if args.output:
        args.output.write_text(json.dumps(result, indent=2, sort_keys=True) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
