"""The test runner's sums: a kind that crashes, or runs nothing, must never look green."""

import importlib.util
import stat
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
spec = importlib.util.spec_from_file_location("run", ROOT / "tests" / "run.py")
run = importlib.util.module_from_spec(spec)
spec.loader.exec_module(run)

DOCTEST = "[doctest] test cases:  12 |  9 passed | 3 failed | 2 skipped\n[doctest] assertions: 40 | 37 passed | 3 failed |\n"


def test_doctest_counts_are_its_test_cases():
    assert run.doctest_counts(DOCTEST) == (9, 3)
    assert run.doctest_counts("Segmentation fault") is None


def test_doctest_counts_are_those_of_the_last_summary():
    assert run.doctest_counts("a test printed: test cases: 1 | 1 passed | 0 failed\n" + DOCTEST) == (9, 3)


def test_pytest_counts_leave_out_skipped_tests_and_count_errors_as_failures(tmp_path):
    report = tmp_path / "report.xml"
    report.write_text('<testsuites><testsuite tests="10" failures="2" errors="1" skipped="3"/></testsuites>')
    assert run.pytest_counts(report) == (4, 3)


def test_a_report_that_is_missing_or_broken_gives_no_counts(tmp_path):
    assert run.pytest_counts(tmp_path / "none.xml") is None
    (tmp_path / "broken.xml").write_text("<testsuites>")
    assert run.pytest_counts(tmp_path / "broken.xml") is None


def test_what_did_not_run_is_a_failure():
    assert run.settle("core", None, -11) == (0, 1)
    assert run.settle("core", (0, 0), 0) == (0, 1)
    assert run.settle("pytest", (0, 0), 5) == (0, 1)


def test_a_bad_exit_without_a_failed_test_is_a_failure():
    assert run.settle("core", (3, 0), 1) == (3, 1)
    assert run.settle("core", (3, 2), 1) == (3, 2)
    assert run.settle("core", (3, 0), 0) == (3, 0)


def sum_of(folder, *flags):
    command = [sys.executable, str(ROOT / "tests" / "run.py"), "--build", str(folder), "--kinds", "core,torch", *flags]
    done = subprocess.run(command, capture_output=True, text=True)
    return done.returncode, done.stdout.rstrip("\n").split("\n")[-1]


def put_program(path, text):
    path.write_text("#!/bin/sh\n" + text)
    path.chmod(path.stat().st_mode | stat.S_IXUSR)


def test_the_last_line_sums_all_kinds(tmp_path):
    put_program(tmp_path / "laptopdiff_core_tests", "echo 'test cases: 5 | 5 passed | 0 failed | 0 skipped'")
    put_program(tmp_path / "laptopdiff_torch_tests", "echo 'test cases: 7 | 6 passed | 1 failed | 0 skipped'; exit 1")
    assert sum_of(tmp_path) == (1, "11 passed, 1 failed")
    put_program(tmp_path / "laptopdiff_torch_tests", "echo 'test cases: 7 | 7 passed | 0 failed | 0 skipped'")
    assert sum_of(tmp_path) == (0, "12 passed, 0 failed")


def test_a_program_that_is_missing_or_dies_is_one_failure(tmp_path):
    put_program(tmp_path / "laptopdiff_core_tests", "echo 'test cases: 5 | 5 passed | 0 failed | 0 skipped'")
    assert sum_of(tmp_path) == (1, "5 passed, 1 failed")
    put_program(tmp_path / "laptopdiff_torch_tests", "kill -SEGV $$")
    assert sum_of(tmp_path) == (1, "5 passed, 1 failed")


def test_the_fast_part_leaves_out_the_slow_suite(tmp_path):
    for name in ("core", "torch"):
        put_program(tmp_path / f"laptopdiff_{name}_tests",
                    'case "$*" in *--test-suite-exclude=slow*) n=1;; *) n=2;; esac; echo "test cases: $n | $n passed | 0 failed"')
    assert sum_of(tmp_path) == (0, "4 passed, 0 failed")
    assert sum_of(tmp_path, "--fast") == (0, "2 passed, 0 failed")
