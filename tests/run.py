#!/usr/bin/env python3
"""Runs all kinds of tests and prints their sum as the last line: `N passed, N failed`.

Kinds: the doctest programs of a build folder, and pytest. A kind that crashes, or that runs no test, counts as a
failure, so that a broken set-up cannot look green. Exit status 0 only when nothing failed.
"""

import argparse
import os
import re
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def doctest_counts(output):
    """(passed, failed) test cases of doctest's closing line, or None where there is none."""
    found = re.findall(r"test cases:\s*\d+\s*\|\s*(\d+) passed\s*\|\s*(\d+) failed", output)
    return (int(found[-1][0]), int(found[-1][1])) if found else None


def pytest_counts(report):
    """(passed, failed) tests of a JUnit report, or None where there is none. Skipped tests count as neither."""
    try:
        suites = list(xml.etree.ElementTree.parse(report).getroot().iter("testsuite"))
    except (OSError, xml.etree.ElementTree.ParseError):
        return None
    total, failed, skipped = (sum(int(suite.get(name, 0)) for suite in suites) for name in ("tests", "failures", "skipped"))
    errors = sum(int(suite.get("errors", 0)) for suite in suites)
    return total - failed - errors - skipped, failed + errors


def settle(name, counts, status):
    """What a kind adds to the sum: nothing run, or a bad exit without a failed test, is one failure."""
    passed, failed = counts or (0, 0)
    if passed + failed == 0:
        print(f"{name}: no test ran (exit status {status})", flush=True)
        return 0, 1
    if status != 0 and failed == 0:
        print(f"{name}: exit status {status} with no failed test", flush=True)
        return passed, 1
    return passed, failed


def run_doctest(program, fast):
    command = [str(program), "--no-intro=true", "--no-colors=true"]
    if fast:
        command.append("--test-suite-exclude=slow")
    try:
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace", cwd=ROOT)
    except OSError as error:
        print(f"{program}: {error}")
        return settle(program.name, None, 127)
    print(done.stdout, end="", flush=True)
    return settle(program.name, doctest_counts(done.stdout), done.returncode)


def run_pytest(fast):
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        # Most of a test of the command line is starting the program, on one core.
        workers = str(min(os.cpu_count() or 1, 8))
        command = [sys.executable, "-m", "pytest", "-q", "--no-header", "-n", workers, f"--junitxml={report}"]
        if fast:
            command += ["-m", "not slow"]
        status = subprocess.run(command, cwd=ROOT).returncode
        return settle("pytest", pytest_counts(report), status)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--build", type=Path, default=ROOT / "build", help="folder of the doctest programs")
    parser.add_argument("--fast", action="store_true", help="leave out the tests marked slow")
    parser.add_argument("--kinds", default="core,torch,pytest", help="which kinds to run (default: all)")
    args = parser.parse_args()
    kinds = args.kinds.split(",")
    unknown = set(kinds) - {"core", "torch", "pytest"}
    if unknown:
        parser.error(f"unknown kinds: {', '.join(sorted(unknown))}")

    passed = failed = 0
    for kind in kinds:
        start = time.monotonic()
        print(f"== {kind}", flush=True)
        counts = run_pytest(args.fast) if kind == "pytest" else run_doctest(args.build.resolve() / f"laptopdiff_{kind}_tests", args.fast)
        print(f"== {kind}: {counts[0]} passed, {counts[1]} failed in {time.monotonic() - start:.1f} s", flush=True)
        passed += counts[0]
        failed += counts[1]
    print(f"{passed} passed, {failed} failed", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
