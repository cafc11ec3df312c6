"""Runs the program as a user does, and what every run must keep to."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = Path(os.environ.get("LAPTOPDIFF_BUILD", ROOT / "build")).resolve() / "laptopdiff"
PATIENCE_S = 300  # a hang, not a slow machine

OK, USAGE, BAD_INPUT, NON_FINITE, RESOURCES, STOPPED, INTERRUPTED = 0, 2, 3, 4, 5, 75, 130
CONTRACT = {OK, USAGE, BAD_INPUT, NON_FINITE, RESOURCES, STOPPED, INTERRUPTED}


@dataclass
class Done:
    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


def environment() -> dict[str, str]:
    # One thread: equal bits between runs, and no fight over the cores.
    return os.environ | {"OMP_NUM_THREADS": "1"}


def start(*arguments: str | bytes | Path, **options: Any) -> subprocess.Popen:
    assert PROGRAM.is_file(), f"no {PROGRAM}; build it, or set LAPTOPDIFF_BUILD"
    return subprocess.Popen([PROGRAM, *arguments], env=environment(), **options)


def laptopdiff(*arguments: str | bytes | Path, **options: Any) -> Done:
    """Runs to the end and checks that the exit code is one of the contract's: a crash fails whatever the test is of."""
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "stdin": subprocess.DEVNULL} | options
    process = start(*arguments, **streams)
    out, err = process.communicate(timeout=PATIENCE_S)
    done = Done(process.returncode, (out or b"").decode(errors="replace"), (err or b"").decode(errors="replace"))
    assert done.code in CONTRACT, f"exit code {done.code}\n{done.err}"
    return done


def ok(*arguments: str | bytes | Path, **options: Any) -> Done:
    done = laptopdiff(*arguments, **options)
    assert done.code == OK, done.err
    return done


def refused(code: int, *arguments: str | bytes | Path, says: str | list[str] = (), **options: Any) -> str:
    """The run must end with `code` and one message that holds every text of `says`. Returns the message."""
    done = laptopdiff(*arguments, **options)
    assert done.code == code, f"exit code {done.code}, expected {code}\n{done.err}"
    assert "laptopdiff: " in done.err
    for text in [says] if isinstance(says, str) else says:
        assert text in done.err, done.err
    return done.err


def kill_after(seconds: float, number: signal.Signals, *arguments: str | Path) -> int:
    """Starts the program, sends the signal after `seconds`, and returns the exit code (negative: killed by it)."""
    process = start(*arguments, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        process.wait(timeout=seconds)
    except subprocess.TimeoutExpired:
        process.send_signal(number)
    return process.wait(timeout=PATIENCE_S)


def kill_when(ready: Any, number: signal.Signals, *arguments: str | Path) -> int:
    """Sends the signal as soon as `ready()` is true."""
    process = start(*arguments, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    patience = time.monotonic() + PATIENCE_S
    while process.poll() is None and not ready():
        assert time.monotonic() < patience
        time.sleep(0.001)
    process.send_signal(number)
    return process.wait(timeout=PATIENCE_S)


def files_below(folder: Path) -> set[str]:
    """Names of all files, but for locks, which may stay."""
    return {str(p.relative_to(folder)) for p in folder.rglob("*") if p.name != ".lock"}
