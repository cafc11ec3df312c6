"""The fuzz runner's word on time-outs, with shell scripts in place of libFuzzer."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

RUNNER = Path(__file__).resolve().parents[1] / "fuzz" / "run.py"

# Finds a time-out in its first run; alone, the same input ends with status $ALONE.
FAKE = """#!/bin/bash
for word in "$@"; do case $word in -artifact_prefix=*) prefix=${word#*=} ;; esac; done
if [ -z "${prefix:-}" ]; then exit ALONE; fi
echo stat::number_of_executed_units: 7
if [ -e "${prefix}../ran" ]; then exit 0; fi
touch "${prefix}../ran" "${prefix}KIND-1"
exit 70
"""


@pytest.fixture
def runner():
    spec = importlib.util.spec_from_file_location("fuzz_run", RUNNER)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("kind", "alone", "clean"),
    [("timeout", 0, True), ("timeout", 1, False), ("crash", 0, False)],
    ids=["waited for the processor", "slow", "crash"],
)
def test_a_time_out_counts_where_it_comes_again(runner, tmp_path: Path, capsys, kind: str, alone: int, clean: bool) -> None:
    program = tmp_path / "fake_fuzz"
    program.write_text(FAKE.replace("ALONE", str(alone)).replace("KIND", kind))
    program.chmod(0o755)
    assert runner.fuzz(tmp_path, "fake", 30) is clean
    said = capsys.readouterr().out
    assert ("nothing found" in said) is clean and ("FINDING" in said) is not clean
    assert ("14 runs" in said) is clean  # of both runs
    assert (tmp_path / "findings" / "fake" / f"{kind}-1").exists() is not clean
