"""Killed at any moment and run again, the same command ends with the same bits."""

from __future__ import annotations

import fcntl
import json
import random
import shutil
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
from conftest import World
from program import BAD_INPUT, INTERRUPTED, OK, PATIENCE_S, PROGRAM, STOPPED, USAGE, environment, files_below, kill_after, kill_when, ok, refused, start
from safetensors.numpy import load_file, save_file

STEPS = 12
STUDY_STEPS = 8


def write_config(world: World, folder: Path, **more: Any) -> Path:
    file = folder / "distill.json"
    file.write_text(json.dumps(world.distill_config(steps=STEPS, **more)))
    return file


def log_steps(run: Path) -> int:
    log = run / "log.jsonl"
    return log.read_bytes().count(b"\n") if log.exists() else 0


def log_rows(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def finished(world: World, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that nobody killed."""
    folder = tmp_path_factory.mktemp("finished")
    ok("distill", "--config", write_config(world, folder), "-o", folder / "run")
    return folder / "run"


def assert_same_run(run: Path, reference: Path) -> None:
    for name in ("student/diffusion_pytorch_model.safetensors", "student/spec.json", "student/config.json", "log.jsonl"):
        assert (run / name).read_bytes() == (reference / name).read_bytes(), name
    ours, theirs = (json.loads((r / "result.json").read_text()) for r in (run, reference))
    for key in theirs.keys() - {"seconds", "made_by"}:
        assert ours[key] == theirs[key], key
    assert files_below(run) == files_below(reference)


def test_a_run_folder_holds_what_the_design_says(finished: Path) -> None:
    names = {"config.json", "log.jsonl", "checkpoint.safetensors", "result.json", "student"}
    student = {f"student/{name}" for name in ("config.json", "spec.json", "diffusion_pytorch_model.safetensors")}
    assert files_below(finished) == names | student
    rows = log_rows(finished)
    assert [row["step"] for row in rows] == list(range(1, STEPS + 1))
    for row in rows:
        assert {"loss", "task", "output", "feature", "gradient_norm", "learning_rate", "taps"} <= row.keys()
        assert all({"raw", "balanced"} == tap.keys() for tap in row["taps"].values())


@pytest.mark.slow
def test_distill_killed_at_ten_moments_ends_with_the_same_bytes(world: World, finished: Path, tmp_path: Path) -> None:
    config, run = write_config(world, tmp_path), tmp_path / "run"
    moments = sorted(random.Random(5).sample(range(STEPS), 10))
    killed = 0
    for moment in moments:
        code = kill_when(lambda: log_steps(run) >= moment, signal.SIGKILL, "distill", "--config", config, "-o", run)
        assert code in (OK, -signal.SIGKILL)
        killed += code == -signal.SIGKILL
    assert killed >= 5
    ok("distill", "--config", config, "-o", run)
    leftovers = [path for path in run.rglob("*.tmp*")]
    for path in leftovers:  # of a write that was cut short: hidden files, never the outputs themselves
        assert path.name.startswith(".")
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    assert_same_run(run, finished)


def test_a_signal_saves_and_the_same_command_goes_on(world: World, finished: Path, tmp_path: Path) -> None:
    # Checkpoints only at the end: what is there after the signal was written because of it.
    config, run = write_config(world, tmp_path, checkpoint_every=1000), tmp_path / "run"
    code = kill_when(lambda: log_steps(run) >= 2, signal.SIGTERM, "distill", "--config", config, "-o", run)
    assert code == STOPPED
    assert (run / "checkpoint.safetensors").exists() and not (run / "result.json").exists()
    ok("distill", "--config", config, "-o", run)
    assert (run / "log.jsonl").read_bytes() == (finished / "log.jsonl").read_bytes()
    student = "student/diffusion_pytorch_model.safetensors"
    assert (run / student).read_bytes() == (finished / student).read_bytes()


def test_killed_between_the_last_step_and_the_result(world: World, finished: Path, tmp_path: Path) -> None:
    config, run = write_config(world, tmp_path), tmp_path / "run"
    shutil.copytree(finished, run)
    (run / "result.json").unlink()
    shutil.rmtree(run / "student")
    assert "loss" in ok("distill", "--config", config, "-o", run).out
    assert_same_run(run, finished)


def test_a_cut_log_line_is_written_again(world: World, finished: Path, tmp_path: Path) -> None:
    config, run = write_config(world, tmp_path), tmp_path / "run"
    shutil.copytree(finished, run)
    (run / "result.json").unlink()
    with (run / "log.jsonl").open("a") as log:
        log.write('{"step": 13, "loss": 0.1}\n{"step": 14, "lo')
    ok("distill", "--config", config, "-o", run)
    assert_same_run(run, finished)


def test_a_finished_run_says_so_and_keeps_its_files(world: World, finished: Path) -> None:
    config = write_config(world, finished.parent)
    before = {path: path.stat().st_mtime_ns for path in finished.rglob("*")}
    done = ok("distill", "--config", config, "-o", finished)
    assert "complete already" in done.err
    assert {path: path.stat().st_mtime_ns for path in finished.rglob("*")} == before


def test_overwriting_with_a_config_that_cannot_run_keeps_the_old_run(world: World, finished: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(finished, run)
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    config = write_config(world, tmp_path, data={"folder": str(tmp_path / "no such data")})
    refused(BAD_INPUT, "distill", "--config", config, "-o", run, "--overwrite", says="no such data")
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize("verb", ["distill", "sweep"])
def test_a_run_is_not_mixed_into_anyone_elses_folder(verb: str, world: World, tmp_path: Path) -> None:
    folder = world.copy_unet(tmp_path / "unet")
    config = write_config(world, tmp_path)
    (tmp_path / "study.json").write_text(json.dumps(world.study()))
    command = ["distill", "--config", config] if verb == "distill" else ["sweep", tmp_path / "study.json"]
    before = {path: path.read_bytes() for path in folder.iterdir()}
    refused(USAGE, *command, "-o", folder, says=f"holds files that `{verb}` did not make")
    assert {path: path.read_bytes() for path in folder.iterdir()} == before


def test_another_noise_schedule_is_another_run(world: World, finished: Path, tmp_path: Path) -> None:
    run, pipeline = tmp_path / "run", tmp_path / "pipeline"
    shutil.copytree(finished, run)
    shutil.copytree(world.pipeline, pipeline)
    scheduler = pipeline / "scheduler" / "scheduler_config.json"
    scheduler.write_text(json.dumps(json.loads(scheduler.read_text()) | {"prediction_type": "v_prediction"}))
    config = write_config(world, tmp_path, pipeline=str(pipeline))
    refused(USAGE, "distill", "--config", config, "-o", run, says="another config")


def test_one_end_of_the_timesteps_may_be_given_alone(world: World, tmp_path: Path) -> None:
    config = write_config(world, tmp_path, first_timestep=1000)
    refused(USAGE, "distill", "--config", config, "-o", tmp_path / "run", says="no timesteps in [1000, 1000)")


@pytest.mark.slow
@pytest.mark.parametrize("done", [True, False])
def test_a_folder_of_another_config_is_refused_until_overwritten(
    done: bool, world: World, finished: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    shutil.copytree(finished, run)
    if not done:
        (run / "result.json").unlink()
    config = write_config(world, tmp_path, seed=9)
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    refused(USAGE, "distill", "--config", config, "-o", run, says=["another config", "--overwrite"])
    for path, content in before.items():
        assert path.read_bytes() == content, path
    ok("distill", "--config", config, "-o", run, "--overwrite")
    assert json.loads((run / "config.json").read_text())["seed"] == 9
    assert (run / "log.jsonl").read_bytes() != before[run / "log.jsonl"]


@pytest.mark.parametrize("verb", ["distill", "sweep"])
def test_two_runs_in_one_folder(verb: str, world: World, tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    config = write_config(world, tmp_path)
    (tmp_path / "study.json").write_text(json.dumps(world.study()))
    command = ["distill", "--config", config] if verb == "distill" else ["sweep", tmp_path / "study.json"]
    with (run / ".lock").open("w") as lock:  # as another process would hold it
        fcntl.flock(lock, fcntl.LOCK_EX)
        refused(USAGE, *command, "-o", run, says="is in use by another laptopdiff process")
    assert files_below(run) == set()


@pytest.mark.slow
def test_how_often_it_logs_and_saves_does_not_change_the_result(world: World, finished: Path, tmp_path: Path) -> None:
    config = write_config(world, tmp_path, log_every=5, checkpoint_every=7)
    ok("distill", "--config", config, "-o", tmp_path / "run")
    student = "student/diffusion_pytorch_model.safetensors"
    assert (tmp_path / "run" / student).read_bytes() == (finished / student).read_bytes()
    assert [row["step"] for row in log_rows(tmp_path / "run")] == [1, 5, 10, 12]


def test_score_stopped_and_run_again_gives_the_same_bytes(world: World, tmp_path: Path) -> None:
    command = ["score", world.unet, "--calibration", world.calibration, "--batch", "1", "-o"]
    stopped = tmp_path / "s.json"
    for seconds in (0.05, 0.3, 0.6):
        code = kill_after(seconds, signal.SIGTERM, *command, stopped)
        assert code in (OK, STOPPED, -signal.SIGTERM)
        assert stopped.exists() == (code == OK)
        if code == OK:
            stopped.unlink()
    kill_after(0.5, signal.SIGKILL, *command, stopped)
    ok(*command, stopped, "--overwrite")
    ok(*command, tmp_path / "t.json")
    ours, theirs = (json.loads(path.read_text()) for path in (stopped, tmp_path / "t.json"))
    for scores in (ours, theirs):
        del scores["made_by"]  # the command, which says --overwrite and where to
    assert ours == theirs
    assert {name for name in files_below(tmp_path) if not name.startswith(".")} == {"s.json", "t.json"}


def half_scored(world: World, folder: Path, *flags: str) -> Path:
    """A scoring that was killed when some of its pieces were finished; returns the folder that holds them."""
    partial = folder / "s.json.partial"
    command = ["score", world.unet, "--calibration", world.calibration, "--batch", "1", "-o", folder / "s.json", *flags]
    assert kill_when(lambda: len(pieces(partial)) >= 2, signal.SIGKILL, *command) == -signal.SIGKILL
    return partial


def pieces(partial: Path) -> list[Path]:
    return sorted(partial.glob("samples-*.safetensors"))


def same_scores(one: Path, other: Path) -> bool:
    ours, theirs = (json.loads(path.read_text()) for path in (one, other))
    for scores in (ours, theirs):
        del scores["made_by"]  # the command, which says where to
    return ours == theirs


def test_work_of_another_scoring_is_never_mixed_in(world: World, tmp_path: Path) -> None:
    partial = half_scored(world, tmp_path)
    before = {path: path.read_bytes() for path in pieces(partial)}
    command = ["score", world.unet, "--calibration", world.calibration, "--batch", "1", "-o", tmp_path / "s.json"]
    for flags, says in ((["--dtype", "bf16"], "`dtype` is \"f32\""), (["--criterion", "block_influence"], "`criterion`")):
        refused(USAGE, *command, *flags, says=["unfinished work of another run", says, "--overwrite"])
    assert {path: path.read_bytes() for path in pieces(partial)} == before
    done = ok(*command, "--dtype", "bf16", "--overwrite")
    assert "thrown away" in done.err
    ok(*command[:-1], tmp_path / "whole.json", "--dtype", "bf16")
    assert same_scores(tmp_path / "s.json", tmp_path / "whole.json")
    assert files_below(tmp_path) == {"s.json", "whole.json"}


@pytest.mark.parametrize("name", ["program", "plan"])
def test_work_of_another_build_or_plan_is_not_continued(name: str, world: World, tmp_path: Path) -> None:
    run = half_scored(world, tmp_path) / "run.json"
    written = json.loads(run.read_text())
    written["key"][name] = "another"
    run.write_text(json.dumps(written))
    command = ["score", world.unet, "--calibration", world.calibration, "--batch", "1", "-o", tmp_path / "s.json"]
    refused(USAGE, *command, says=["unfinished work of another run", f'its `{name}` is "another"'])


def test_work_with_other_pictures_is_not_continued(world: World, tmp_path: Path) -> None:
    pipeline, models = shutil.copytree(world.pipeline, tmp_path / "pipeline"), shutil.copytree(world.models, tmp_path / "models")
    command = ["score", pipeline, "--criterion", "clip_score", "--models", models, "--prompts", world.prompts, "--steps", "5"]
    command += ["-o", tmp_path / "s.json"]
    assert kill_when(lambda: len(pieces(tmp_path / "s.json.partial")) >= 2, signal.SIGKILL, *command) == -signal.SIGKILL
    parts = ("text_encoder/model", "vae/diffusion_pytorch_model")
    for file in (*(pipeline / f"{part}.safetensors" for part in parts), models / "clip" / "model.safetensors"):
        stored = file.read_bytes()
        tensors = load_file(file)
        save_file(tensors | {name: 2 * tensor for name, tensor in tensors.items() if tensor.ndim > 1}, file)
        refused(USAGE, *command, says=["unfinished work of another run", "its `sampling` is"])
        file.write_bytes(stored)
    assert "continued" in ok(*command).err


@pytest.mark.parametrize("damage", ["cut", "foreign", "empty"])
def test_a_damaged_piece_is_measured_again(damage: str, world: World, tmp_path: Path) -> None:
    partial = half_scored(world, tmp_path)
    piece = pieces(partial)[0]
    if damage == "foreign":
        shutil.copy(world.calibration, piece)
    else:
        piece.write_bytes(piece.read_bytes()[: 100 if damage == "cut" else 0])
    command = ["score", world.unet, "--calibration", world.calibration, "--batch", "1", "-o"]
    assert "measured again" in ok(*command, tmp_path / "s.json").err
    ok(*command, tmp_path / "whole.json")
    assert same_scores(tmp_path / "s.json", tmp_path / "whole.json")


def test_pieces_of_chunks_are_continued_too(world: World, tmp_path: Path) -> None:
    flags = ["--memory", "64KiB"]
    partial = half_scored(world, tmp_path, *flags)
    assert any("-part-" in path.name for path in pieces(partial))
    command = ["score", world.unet, "--calibration", world.calibration, "--batch", "1", *flags, "-o"]
    assert "continued" in ok(*command, tmp_path / "s.json").err
    ok(*command, tmp_path / "whole.json")
    assert same_scores(tmp_path / "s.json", tmp_path / "whole.json")


def test_a_result_that_appears_meanwhile_is_not_replaced(world: World, tmp_path: Path) -> None:
    output, partial = tmp_path / "s.json", tmp_path / "s.json.partial"
    command = ["score", world.unet, "--calibration", world.calibration, "--batch", "1", "-o", output]
    process = start(*command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    patience = time.monotonic() + PATIENCE_S
    while not pieces(partial):
        assert process.poll() is None and time.monotonic() < patience
        time.sleep(0.001)
    output.write_text("precious")
    _, err = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == USAGE, err
    for text in (b"s.json was written by someone else", b"kept in", b"s.json.partial", b"--overwrite"):
        assert text in err
    assert output.read_text() == "precious" and len(pieces(partial)) == 5
    # One of the two ways out that the message names.
    output.unlink()
    ok(*command)
    ok(*command[:-1], tmp_path / "whole.json")
    assert same_scores(output, tmp_path / "whole.json")


@pytest.mark.skipif(shutil.which("strace") is None, reason="needs strace")
@pytest.mark.parametrize("when", [1, 2, 3, 4])
def test_killed_at_each_file_that_is_removed(when: int, world: World, tmp_path: Path) -> None:
    command = [PROGRAM, "score", world.unet, "--calibration", world.calibration, "--samples", "2", "--batch", "1", "-o", tmp_path / "s.json"]
    inject = ["strace", "-f", "-qq", "-o", tmp_path / "trace", "-e", "trace=unlink,unlinkat,rmdir"]
    inject += ["-e", f"inject=unlink,unlinkat,rmdir:signal=KILL:when={when}"]
    killed = subprocess.run([*inject, *command], env=environment(), capture_output=True, timeout=PATIENCE_S)
    if b"ptrace" in killed.stderr:
        pytest.skip("strace may not trace here")
    ok(*command[1:], "--overwrite")
    assert files_below(tmp_path) - {"trace"} == {"s.json"}


def test_two_scorings_of_one_output(world: World, tmp_path: Path) -> None:
    partial = tmp_path / "s.json.partial"
    partial.mkdir()
    command = ["score", world.unet, "--calibration", world.calibration, "-o", tmp_path / "s.json"]
    with (partial / ".lock").open("w") as lock:  # as another process would hold it
        fcntl.flock(lock, fcntl.LOCK_EX)
        refused(USAGE, *command, says="is in use by another laptopdiff process")
    (partial / ".lock").unlink()
    (partial / "thesis.tex").write_text("precious")
    refused(USAGE, *command, says="did not make")
    assert (partial / "thesis.tex").read_text() == "precious"


def test_an_interrupted_sample_keeps_nothing(world: World, tmp_path: Path) -> None:
    command = ["sample", world.pipeline, "--prompts", world.prompts, "--batch", "1", "--steps", "100", "-o", tmp_path / "images"]
    started = lambda: any(tmp_path.rglob("*.png"))  # noqa: E731
    code = kill_when(started, signal.SIGTERM, *command)
    assert code == INTERRUPTED
    assert files_below(tmp_path) == set()


@pytest.mark.slow
def test_a_sweep_killed_several_times_gives_the_same_numbers(world: World, tmp_path: Path) -> None:
    study = tmp_path / "study.json"
    training = {"steps": STUDY_STEPS, "batch": 2, "checkpoint_every": 1, "log_every": 1, "data": {"images": 8}}
    study.write_text(json.dumps(world.study(distill=training)))
    ok("sweep", study, "-o", tmp_path / "whole")
    killed = tmp_path / "killed"
    steps = lambda: sum(len(log.read_text().splitlines()) for log in killed.glob("stages/distill-*/run/log.jsonl"))  # noqa: E731
    stages = lambda: len(list(killed.glob("stages/*/done.json")))  # noqa: E731
    for count in (0, 1, 3, 5):
        target = count
        assert kill_when(lambda: stages() >= target, signal.SIGKILL, "sweep", study, "-o", killed) in (OK, -signal.SIGKILL)
    for count in sorted(random.Random(0).sample(range(1, 2 * STUDY_STEPS), 10)):
        target = count
        assert kill_when(lambda: steps() >= target, signal.SIGKILL, "sweep", study, "-o", killed) in (OK, -signal.SIGKILL)
    done = ok("sweep", study, "-o", killed)
    ours, theirs = (json.loads((folder / "results.json").read_text()) for folder in (killed, tmp_path / "whole"))
    assert ours.keys() == theirs.keys()
    assert ours["study"] == theirs["study"]
    assert ours["arms"].keys() == {"teacher", "pruned", "student seed=0", "student seed=1"}
    for name, row in theirs["arms"].items():
        for key in row.keys() - {"files"}:
            assert ours["arms"][name][key] == row[key], (name, key)
        if "distill" in row["files"]:
            student = "student/diffusion_pytorch_model.safetensors"
            mine = killed / ours["arms"][name]["files"]["distill"] / student
            assert mine.read_bytes() == (tmp_path / "whole" / row["files"]["distill"] / student).read_bytes()
    assert not list(killed.glob("stages/latents-*"))
    assert "decline_percent" in theirs["arms"]["pruned"]
    assert "student seed=1" in done.out
    # Nothing runs a second time.
    before = {path: path.stat().st_mtime_ns for path in killed.glob("stages/**/*") if path.is_file()}
    assert "complete already" in ok("sweep", study, "-o", killed).err
    assert {path: path.stat().st_mtime_ns for path in before} == before
    refused(USAGE, "sweep", study, "-o", killed, "--overwrite", says="keep their finished stages")
