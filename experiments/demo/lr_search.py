"""Finds each trained arm's learning rate by one small search, on another seed than the study's.

    python experiments/demo/lr_search.py -o experiments/demo/lr_search.json [--steps 40] [--seed 100]

Every arm of study.json is trained for a short run at each rate; the rate whose student is nearest to the teacher at the
end (mean output loss over the last quarter of the log, the same quantity for every arm) wins. study.json holds the rates.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = Path(os.environ.get("LAPTOPDIFF_BUILD", ROOT / "build")) / "laptopdiff"
RATES = (1e-4, 3e-4, 1e-3, 3e-3)


def laptopdiff(*words: str | Path) -> None:
    subprocess.run([PROGRAM, *words, "--quiet"], check=True, cwd=ROOT, stdout=subprocess.DEVNULL)


def merged(base: dict[str, Any], change: dict[str, Any]) -> dict[str, Any]:
    result = dict(base)
    for key, value in change.items():
        result[key] = merged(result[key], value) if isinstance(value, dict) and key in result else value
    return result


def output_loss(run: Path) -> float:
    rows = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    tail = rows[-max(1, len(rows) // 4) :]
    return sum(row["output"] for row in tail) / len(tail)


def search(study: dict[str, Any], steps: int, seed: int, folder: Path) -> dict[str, Any]:
    pipeline, train = study["pipeline"], study["train"]
    laptopdiff("calibrate", pipeline, "--data", train, "--samples", "32", "--seed", str(seed), "-o", folder / "cal.safetensors")
    laptopdiff("score", pipeline, "--calibration", folder / "cal.safetensors", "-o", folder / "scores.json")
    found: dict[str, Any] = {}
    for name, arm in study["arms"].items():
        if "distill" not in arm:
            continue
        solve = ["--preset", arm["solve"]["preset"]] if "preset" in arm["solve"] else ["--scores", folder / "scores.json", "--budget", arm["solve"]["budget"]]
        laptopdiff("solve", pipeline, *solve, "-o", folder / f"{name}.json")
        losses = {}
        for rate in RATES:
            config = merged(study["distill"], arm["distill"]) | {"pipeline": pipeline, "spec": str(folder / f"{name}.json"), "steps": steps, "seed": seed}
            config = merged(config, {"data": {"folder": train, "images": steps * config["batch"]}, "optimizer": {"learning_rate": rate}, "log_every": 1})
            config["cache"] = str(folder / "cache.safetensors")
            path = folder / f"{name}-{rate}.config.json"
            path.write_text(json.dumps(config))
            laptopdiff("distill", "--config", path, "-o", folder / f"{name}-{rate}")
            losses[str(rate)] = output_loss(folder / f"{name}-{rate}")
            print(f"{name:20} {rate:8g} {losses[str(rate)]:.5f}", flush=True)
        found[name] = {"output_loss": losses, "learning_rate": float(min(losses, key=losses.__getitem__))}
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--study", type=Path, default=ROOT / "experiments/demo/study.json")
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--seed", type=int, default=100)
    parser.add_argument("-o", "--output", type=Path, required=True)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = search(json.loads(args.study.read_text()), args.steps, args.seed, Path(folder))
    result = {"arms": found, "rates": RATES, "seed": args.seed, "steps": args.steps}
    args.output.write_text(json.dumps(result, indent=2, sort_keys=True) + "\n")


if __name__ == "__main__":
    main()
