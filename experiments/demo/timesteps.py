"""Masks for stretches of the schedule: what a mask of its own is worth there, and how far predictions go.

    python experiments/demo/timesteps.py PIPELINE --data data/fashion-mnist/train --work DIR -o results.json

For each of --intervals stretches of equal width: a calibration set and scores of its own beside those of the whole
schedule; knapsack and Gram masks of both, and random masks, measured on other inputs of that stretch (`audit`).
Finished files in --work are kept, so a run that was stopped goes on where it was.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = Path(os.environ.get("LAPTOPDIFF_BUILD", ROOT / "build")) / "laptopdiff"
KEEP = (0.7, 0.5, 0.3)
SCHEDULE = 1000


def run(output: Path, *arguments: str | Path | int) -> Path:
    if not output.exists():
        subprocess.run([PROGRAM, *map(str, arguments), "-o", output, "--quiet"], check=True)
    return output


def calibrate(args: argparse.Namespace, first: int, last: int, samples: int, seed: int) -> Path:
    flags = ("--samples", samples, "--seed", seed, "--first-timestep", first, "--last-timestep", last)
    output = args.work / f"calibration_{first}_{last}_{seed}.safetensors"
    return run(output, "calibrate", args.pipeline, "--data", args.data, *flags)


def score(args: argparse.Namespace, first: int, last: int) -> Path:
    calibration = calibrate(args, first, last, args.samples, 0)
    return run(args.work / f"scores_{first}_{last}.json", "score", args.pipeline, "--calibration", calibration)


def masks_of(args: argparse.Namespace, scores: Path, calibration: Path, name: str) -> dict[str, Any]:
    flags = ("--keep", ",".join(map(str, KEEP)), "--solvers", "knapsack,gram", "--random-masks", 12)
    output = args.work / f"audit_{name}.json"
    run(output, "audit", args.pipeline, "--scores", scores, "--calibration", calibration, *flags)
    return json.loads(output.read_text())


def solved(audit: dict[str, Any]) -> dict[str, float]:
    return {row["name"]: row["true"] for row in audit["rows"] if row["kind"] == "solver"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pipeline", type=Path)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True, help="folder of what is made on the way")
    parser.add_argument("--intervals", type=int, default=4)
    parser.add_argument("--samples", type=int, default=128, help="inputs to score on, an interval")
    parser.add_argument("--test-samples", type=int, default=64, help="inputs to measure on, an interval")
    parser.add_argument("-o", "--output", type=Path, required=True)
    args = parser.parse_args()
    args.work.mkdir(parents=True, exist_ok=True)
    whole = score(args, 0, SCHEDULE)
    edges = [SCHEDULE * i // args.intervals for i in range(args.intervals + 1)]
    results = []
    for first, last in zip(edges, edges[1:]):
        test = calibrate(args, first, last, args.test_samples, 1)
        own = masks_of(args, score(args, first, last), test, f"own_{first}_{last}")
        of_whole = masks_of(args, whole, test, f"whole_{first}_{last}")
        result = {"timesteps": [first, last], "own": solved(own), "whole": solved(of_whole), "agreement": own["agreement"]}
        results.append(result)
        print(json.dumps(result), flush=True)
    command = f"experiments/demo/timesteps.py {args.pipeline} --intervals {args.intervals}"
    made_by = {"command": command, "samples": args.samples, "test_samples": args.test_samples}
    args.output.write_text(json.dumps({"intervals": results, "made_by": made_by}, indent=2, sort_keys=True) + "\n")


if __name__ == "__main__":
    main()
