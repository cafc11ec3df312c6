"""Times `solve` at the sizes of SD 1.5 and SDXL, on scores that nobody measured.

    python experiments/bench/solve.py [--keep 0.7,0.5,0.3] [--seeds 2]

Scores are drawn at random: a Gram matrix of vectors that share a part with their neighbours, as layers' output
differences do, and log-normal sizes. Prints, a line a run, the seconds of the whole program, of its start alone (the
libraries that it loads), and the gap that is left between loss and bound.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests" / "support"))
from published_unets import SDXL  # noqa: E402

PROGRAM = ROOT / "build" / "laptopdiff"
MODELS: dict[str, dict[str, Any]] = {
    "sd15": {"_class_name": "UNet2DConditionModel", "sample_size": 64, "cross_attention_dim": 768},
    "sdxl": {"_class_name": "UNet2DConditionModel"} | SDXL,
}
RANK = 64


def run(*arguments: Any) -> tuple[float, str]:
    began = time.perf_counter()
    done = subprocess.run([PROGRAM, *map(str, arguments)], capture_output=True, text=True)
    seconds = time.perf_counter() - began
    if done.returncode != 0:
        sys.exit(done.stderr)
    return seconds, done.stdout


def shells_of(layers: list[str]) -> dict[str, list[int]]:
    groups: dict[str, list[int]] = {}
    for i, layer in enumerate(layers):
        if ".transformer_blocks." in layer:
            groups.setdefault(layer.split(".transformer_blocks.")[0], []).append(i)
    return {path: members for path, members in groups.items() if len(members) > 1}


def made_up_scores(config: dict[str, Any], folder: Path, seed: int) -> Path:
    units = json.loads(run("inspect", folder / "config.json", "--json")[1])["units"]
    draws = np.random.default_rng(seed)
    shared = np.zeros(RANK)
    rows = []
    for unit in units:
        shared = 0.7 * shared + draws.normal(size=RANK)
        size = np.exp(0.7 * draws.normal()) * (unit["params"] / 1e7) ** 0.25
        rows.append(size * (0.5 * shared + draws.normal(size=RANK)) / np.sqrt(RANK))
    shells = shells_of([unit["layer"] for unit in units])
    for members in shells.values():
        rows.append(sum(rows[i] for i in members) + 0.3 * draws.normal(size=RANK) / np.sqrt(RANK))
    gram = np.array(rows) @ np.array(rows).T
    params = {path: shell_params(folder, path) for path in shells}
    scores = {
        "format": "laptopdiff.scores/1",
        "criterion": "made_up",
        "base": {"class": config["_class_name"], "config": config},
        "units": [{"layer": u["layer"], "kind": u["kind"], "score": gram[i, i]} for i, u in enumerate(units)],
        "shells": [
            {"path": path, "units": [units[i]["layer"] for i in members], "score": gram[len(units) + s, len(units) + s]}
            | params[path]
            for s, (path, members) in enumerate(shells.items())
        ],
        "gram": gram.tolist(),
    }
    path = folder / f"scores{seed}.json"
    path.write_text(json.dumps(scores))
    return path


def shell_params(folder: Path, path: str) -> dict[str, int]:
    config = json.loads((folder / "config.json").read_text())
    spec = {
        "format": "laptopdiff.spec/1",
        "base": {"class": config["_class_name"], "config": config},
        "removed": [{"layer": path}],
    }
    (folder / "shell.json").write_text(json.dumps(spec))
    full = json.loads(run("inspect", folder / "config.json", "--json")[1])
    left = json.loads(run("inspect", folder / "config.json", "--spec", folder / "shell.json", "--json")[1])
    return {key: full[key] - left[key] for key in ("params", "macs")}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--keep", default="0.7,0.5,0.3")
    parser.add_argument("--seeds", type=int, default=2)
    options = parser.parse_args()
    print(f"{'model':6} {'solver':9} {'budget':24} {'seed':>4} {'seconds':>8} {'start':>6} {'loss':>10} {'gap':>8}")
    with tempfile.TemporaryDirectory() as temporary:
        for name, config in MODELS.items():
            folder = Path(temporary) / name
            folder.mkdir()
            (folder / "config.json").write_text(json.dumps(config))
            for seed in range(options.seeds):
                scores = made_up_scores(config, folder, seed)
                budgets = [f"params={keep}" for keep in options.keep.split(",")] + ["params=0.6,macs=0.6"]
                for solver in ("knapsack", "gram"):
                    for budget in budgets:
                        spec = Path(temporary) / "spec.json"  # beside the model it would be taken for its own
                        start, _ = run("solve", "--help")
                        seconds, _ = run(
                            "solve", folder, "--scores", scores, "--budget", budget, "--solver", solver, "-o", spec, "--overwrite"
                        )
                        made_by = json.loads(spec.read_text())["made_by"]
                        loss, bound = made_by["predicted_loss"], made_by["bound"]
                        gap = f"{100 * (loss - bound) / loss:.2f} %" if bound is not None else "-"
                        print(f"{name:6} {solver:9} {budget:24} {seed:4} {seconds:8.2f} {start:6.2f} {loss:10.5g} {gap:>8}", flush=True)


if __name__ == "__main__":
    main()
