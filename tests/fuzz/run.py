#!/usr/bin/env python3
"""Runs the fuzz targets of a build folder for a stated time each, and says what each covered and found.

Starts from the seeds in corpus/, keeps what it learns in BUILD/corpus and puts findings into BUILD/findings; repeat one
with `BUILD/NAME_fuzz FINDING`. Exit status 1 where a target found something.
"""

import argparse
import concurrent.futures
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
MEMORY_MB = 1024
SLOW_S = 10  # an input that takes longer is a hang


def target_names():
    return sorted(path.stem.removesuffix("_fuzz") for path in HERE.glob("*_fuzz.cpp"))


def command(build, name, seconds):
    learned, findings = build / "corpus" / name, build / "findings" / name
    for folder in (learned, findings):
        folder.mkdir(parents=True, exist_ok=True)
    flags = [
        f"-max_total_time={seconds}",
        f"-timeout={SLOW_S}",
        f"-rss_limit_mb={MEMORY_MB}",
        f"-artifact_prefix={findings}/",
        "-max_len=16384",
        "-print_final_stats=1",
        "-close_fd_mask=3",  # the parsers' warnings
    ]
    dictionary = HERE / "dictionaries" / f"{name}.dict"
    if dictionary.is_file():
        flags.append(f"-dict={dictionary}")
    return [str(build / f"{name}_fuzz"), *flags, str(learned), str(HERE / "corpus" / name)]


def environment():
    found = os.environ.copy()
    symbolizer = shutil.which("llvm-symbolizer-14") or shutil.which("llvm-symbolizer")
    if symbolizer:
        found.setdefault("ASAN_SYMBOLIZER_PATH", symbolizer)
        found.setdefault("UBSAN_SYMBOLIZER_PATH", symbolizer)
    found.setdefault("UBSAN_OPTIONS", "print_stacktrace=1")
    return found


# What libFuzzer's log says last of each.
FIGURES = {"runs": r"number_of_executed_units: *(\d+)", "rate": r"average_exec_per_sec: *(\d+)", "edges": r"cov: (\d+)"}
FIGURES |= {"features": r"ft: (\d+)", "memory": r"peak_rss_mb: *(\d+)"}


def is_slow(build, name, artifact):
    """Whether a time-out comes again. On a busy machine an input may only have waited for the processor."""
    try:
        again = subprocess.run([str(build / f"{name}_fuzz"), str(artifact)], capture_output=True, env=environment(), timeout=6 * SLOW_S)
    except subprocess.TimeoutExpired:
        return True
    return again.returncode != 0


def forgive_waits(build, name, before):
    """True where all that was found since `before` are time-outs that do not come again; those are removed."""
    found = set((build / "findings" / name).iterdir()) - before
    if not found or any(not path.name.startswith("timeout-") or is_slow(build, name, path) for path in found):
        return False
    for path in found:
        path.unlink()
    return True


def fuzz(build, name, seconds):
    """True where nothing was found."""
    log_file = build / "findings" / f"{name}.log"
    log_file.parent.mkdir(parents=True, exist_ok=True)
    ends = time.monotonic() + seconds
    runs = 0
    while True:
        left = max(1, round(ends - time.monotonic()))
        arguments = command(build, name, left)
        before = set((build / "findings" / name).iterdir())
        with log_file.open("wb") as log:
            status = subprocess.run(arguments, stdout=log, stderr=subprocess.STDOUT, env=environment()).returncode
        log = log_file.read_text(errors="replace")
        said = {key: (re.findall(pattern, log) or ["?"])[-1] for key, pattern in FIGURES.items()}
        runs += int(said["runs"]) if said["runs"].isdigit() else 0
        if status == 0 or not forgive_waits(build, name, before):
            break
        if time.monotonic() >= ends:
            status = 0
            break
    said["runs"] = runs
    verdict = "nothing found" if status == 0 else f"FINDING, see {log_file}"
    figures = "{runs:>9} runs {rate:>6}/s, {edges:>5} edges, {features:>6} features, {memory:>4} MB".format(**said)
    print(f"{name:12} {figures}: {verdict}", flush=True)
    return status == 0


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("targets", nargs="*", help="which targets (default: all)")
    parser.add_argument("--build", type=Path, required=True, help="a build folder of the preset `fuzz`")
    parser.add_argument("--seconds", type=int, default=60, help="of each target")
    parser.add_argument("--jobs", type=int, default=2, help="targets at a time")
    args = parser.parse_args()
    known = target_names()
    unknown = set(args.targets) - set(known)
    if unknown:
        parser.error(f"unknown targets: {', '.join(sorted(unknown))} (known: {', '.join(known)})")
    with concurrent.futures.ThreadPoolExecutor(args.jobs) as pool:
        clean = list(pool.map(lambda name: fuzz(args.build.resolve(), name, args.seconds), args.targets or known))
    return 0 if all(clean) else 1


if __name__ == "__main__":
    sys.exit(main())
