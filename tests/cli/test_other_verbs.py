"""Verbs beside the line from model to numbers: report, doctor, completion, bench."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from conftest import World
from program import BAD_INPUT, PROGRAM, RESOURCES, USAGE, files_below, ok, refused


@pytest.fixture(scope="module")
def swept(world: World, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("swept")
    study = folder / "study.json"
    study.write_text(json.dumps(world.study(arms={"teacher": {}, "pruned <b>": {"solve": {}}}, axes={})))
    ok("sweep", study, "-o", folder / "run")
    return folder / "run"


def test_a_report_is_one_page_that_loads_nothing(swept: Path, tmp_path: Path) -> None:
    done = ok("report", swept, "-o", tmp_path / "page.html", "--json")
    page = (tmp_path / "page.html").read_text()
    assert done.json == {"report": str(tmp_path / "page.html"), "bytes": len(page.encode())}
    assert "pruned &lt;b&gt;" in page and "pruned <b>" not in page
    assert page.count("data:image/png") >= 2
    assert not re.findall(r"(?:src|href)=\"(?!data:|#)[^\"]*", page)
    assert files_below(tmp_path) == {"page.html"}


def test_reports_that_cannot_be(swept: Path, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    page.write_text("precious")
    refused(USAGE, "report", swept, "-o", page, says=["already exists", "--overwrite"])
    assert page.read_text() == "precious"
    refused(RESOURCES, "report", swept, "-o", page / "below", says="cannot")
    refused(BAD_INPUT, "report", tmp_path, "-o", tmp_path / "new.html", says="results.json")
    run = tmp_path / "run"
    shutil.copytree(swept, run)
    (run / "results.json").write_text('{"format": "laptopdiff.results/2"}')
    refused(BAD_INPUT, "report", run, "-o", tmp_path / "new.html", says="laptopdiff.results/1")


def test_curves_of_solve_are_drawn_with_a_sweep_and_alone(swept: Path, world: World, tmp_path: Path) -> None:
    files = [tmp_path / f"{solver}.json" for solver in ("knapsack", "greedy")]
    for file in files:
        ok("solve", world.unet, "--scores", world.scores, "--solver", file.stem, "--curve", file)
    curves = ["--curves", ",".join(map(str, files))]
    ok("report", *curves, "-o", tmp_path / "alone.html")
    ok("report", swept, *curves, "-o", tmp_path / "whole.html")
    for name in ("alone", "whole"):
        page = (tmp_path / f"{name}.html").read_text()
        assert page.count("<polyline") >= 2 and all(f"{file.stem} (sum of scores), {file.name}" in page for file in files)
    refused(USAGE, "report", "-o", tmp_path / "o.html", says="DIR is missing")
    refused(USAGE, "report", *curves, "--overwrite", "-o", files[0], says="is read as well")
    refused(BAD_INPUT, "report", "--curves", world.spec, "-o", tmp_path / "o.html", says="which `laptopdiff solve --curve` writes")


def test_doctor_says_what_is_there() -> None:
    report = ok("doctor", "--json").json
    assert {"version", "commit", "libtorch", "processor", "threads", "memory_gib", "cuda", "onednn", "unicode_prompts"} <= report.keys()
    assert report["cuda"]["devices"] > 0 or "advice" in report["cuda"]
    text = ok("doctor").out
    for line in ("laptopdiff", "LibTorch", "memory", "CUDA", "oneDNN", "Unicode"):
        assert line in text


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_knows_every_verb(shell: str, tmp_path: Path) -> None:
    script = ok("completion", shell).out
    verbs = re.findall(r"^  ([a-z]+) ", ok("--help").out, re.MULTILINE)
    assert len(verbs) > 10
    for verb in verbs:
        assert re.search(rf"\b{verb}\b", script), verb
    if shell != "bash":
        return
    # What bash completes after `laptopdiff solve --bu`.
    (tmp_path / "script").write_text(script)
    words = 'COMP_WORDS=(laptopdiff solve --bu); COMP_CWORD=2; _laptopdiff; echo "${COMPREPLY[@]}"'
    command = f'source {tmp_path / "script"}; PATH="{PROGRAM.parent}:$PATH"; {words}'
    assert subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=True).stdout == "--budget\n"


def test_completion_of_another_shell_is_refused() -> None:
    refused(USAGE, "completion", "tcsh", says="expected bash, zsh or fish")


@pytest.mark.parametrize("kind", ["forward", "score", "distill"])
def test_bench_times_real_work(kind: str, world: World) -> None:
    spec = ["--spec", world.spec] if kind == "distill" else []
    result = ok("bench", kind, world.unet, "--repeat", "2", "--json", *spec).json
    assert result["kind"] == kind
    assert 0 < result["min_s"] <= result["median_s"]


def test_bench_of_what_is_not_known(world: World) -> None:
    refused(USAGE, "bench", "forwrd", world.unet, says="did you mean `forward`?")
    refused(USAGE, "bench", "forward", world.unet, "--repeat", "0", says="--repeat")
