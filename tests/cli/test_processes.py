"""Scoring by several processes: the same bytes as by one, and a state to go on from when one dies."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
from dataclasses import replace
from pathlib import Path

import pytest
from conftest import World
from program import BAD_INPUT, OK, PATIENCE_S, PROGRAM, RESOURCES, USAGE, environment, files_below, ok

pytestmark = pytest.mark.skipif(
    shutil.which("mpirun") is None or not ok("doctor", "--json").json["mpi"], reason="needs mpirun and a build with MPI"
)


def launch(count: int, *arguments: str | Path, cwd: Path) -> subprocess.Popen:
    allowed = {"OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}
    command = ["mpirun", "--oversubscribe", "-n", str(count), PROGRAM, *arguments]
    return subprocess.Popen(command, env=environment() | allowed, cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def mpirun(count: int, *arguments: str | Path, cwd: Path) -> tuple[int, str]:
    process = launch(count, *arguments, cwd=cwd)
    _, err = process.communicate(timeout=PATIENCE_S)
    return process.returncode, err


def command(world: World, *flags: str) -> list[str | Path]:
    return ["score", world.unet, "--calibration", world.calibration, "--batch", "2", "--memory", "100KiB", "-o", "s.json", *flags]


@pytest.mark.slow
def test_processes_change_no_byte(world: World, tmp_path: Path) -> None:
    ok("calibrate", world.pipeline, "--data", world.data, "--samples", "16", "-o", tmp_path / "cal.safetensors")
    world = replace(world, calibration=tmp_path / "cal.safetensors")
    flags = ["--bins", "2", "--until", "stable", "--keep", "0.6"]
    written = []
    for count in (1, 2, 3):
        folder = tmp_path / str(count)
        folder.mkdir()
        if count == 1:
            ok(*command(world, *flags), cwd=folder)
        else:
            code, err = mpirun(count, *command(world, *flags), cwd=folder)
            assert code == OK, err
        assert files_below(folder) == {"s.json"}
        written.append((folder / "s.json").read_bytes())
    assert written[1] == written[0] and written[2] == written[0]
    assert len(json.loads(written[0])["stability"]["checks"]) > 1


@pytest.mark.slow
def test_a_dead_process_leaves_work_to_go_on_from(world: World, tmp_path: Path) -> None:
    whole = tmp_path / "whole"
    whole.mkdir()
    ok(*command(world), cwd=whole)
    process = launch(2, *command(world), cwd=tmp_path)
    partial = tmp_path / "s.json.partial"
    patience = time.monotonic() + PATIENCE_S
    while len(list(partial.glob("samples-*"))) < 2:
        assert process.poll() is None and time.monotonic() < patience
        time.sleep(0.001)
    ranks = subprocess.run(["ps", "-o", "pid=", "--ppid", str(process.pid)], capture_output=True, text=True, check=True)
    os.kill(int(ranks.stdout.split()[-1]), signal.SIGKILL)
    _, err = process.communicate(timeout=PATIENCE_S)
    assert process.returncode != OK and "signal 9" in err
    assert not (tmp_path / "s.json").exists() and list(partial.glob("samples-*"))
    code, err = mpirun(3, *command(world), cwd=tmp_path)
    assert code == OK and "continued" in err
    assert (tmp_path / "s.json").read_bytes() == (whole / "s.json").read_bytes()
    assert not partial.exists()


def test_an_error_is_said_once_and_ends_all(world: World, tmp_path: Path) -> None:
    (tmp_path / "s.json").write_text("precious")
    code, err = mpirun(2, *command(world), cwd=tmp_path)
    assert code == USAGE and err.count("already exists") == 1
    code, err = mpirun(2, "inspect", world.unet, cwd=tmp_path)
    assert code == USAGE and err.count("only `score` shares its work") == 1
    (tmp_path / "s.json").unlink()
    wrong = tmp_path / "wrong"
    wrong.mkdir()
    (wrong / "config.json").write_text('{"_class_name": "Transformer"}')
    for flags, says in ((["--memory", "much"], "expected a size"), (["--bins", "-1"], "--bins -1"), (["--until", "stable", "--keep", "1e-6"], "budget `params`")):
        code, err = mpirun(2, *command(world, *flags), cwd=tmp_path)
        assert code == USAGE and err.count(says) == 1, err
    code, err = mpirun(2, "score", wrong, "--calibration", world.calibration, "-o", "s.json", cwd=tmp_path)
    assert code == BAD_INPUT and err.count("Transformer") == 1, err
    (tmp_path / "s.json.partial").write_text("in the way")
    code, err = mpirun(2, *command(world), cwd=tmp_path)
    assert code == RESOURCES and "cannot make folder" in err


def test_one_process_of_mpirun_is_one_process(world: World, tmp_path: Path) -> None:
    code, err = mpirun(1, *command(world, "--json"), cwd=tmp_path)
    assert code == OK, err
    assert json.loads((tmp_path / "s.json").read_text())["samples"] == 5


def test_one_process_inside_a_larger_step_is_one_process(world: World, tmp_path: Path) -> None:
    inner = environment() | {"OMPI_COMM_WORLD_SIZE": "1", "SLURM_STEP_NUM_TASKS": "4"}
    done = subprocess.run([PROGRAM, *command(world)], env=inner, cwd=tmp_path, capture_output=True, text=True, timeout=PATIENCE_S)
    assert done.returncode == OK, done.stderr


def test_processes_that_mpi_does_not_join_are_refused(world: World, tmp_path: Path) -> None:
    lost = environment() | {"SLURM_STEP_NUM_TASKS": "4"}
    done = subprocess.run([PROGRAM, *command(world)], env=lost, cwd=tmp_path, capture_output=True, text=True, timeout=PATIENCE_S)
    assert done.returncode == USAGE and "started 4 processes, but MPI joins 1" in done.stderr
    assert files_below(tmp_path) == set()
