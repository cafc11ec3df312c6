"""What must hold between the verbs, computed again from their files in numpy."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import World
from PIL import Image
from program import BAD_INPUT, USAGE, ok, refused
from safetensors.numpy import load_file, save_file

TIGHT = 1e-5


def forward(world: World, folder: Path, *flags: str | Path) -> np.ndarray:
    ok("forward", world.unet, "--inputs", world.calibration, "-o", folder / "out.safetensors", "--overwrite", *flags)
    return load_file(folder / "out.safetensors")["sample"]


def gram_of(scores: dict[str, Any]) -> np.ndarray:
    return np.array(scores["gram"], dtype=np.float64)


def close(a: Any, b: Any, tolerance: float = TIGHT) -> bool:
    return bool(np.allclose(np.asarray(a, float), np.asarray(b, float), rtol=tolerance, atol=0))


def test_scores_are_the_mean_squared_change_of_the_output(world: World, tmp_path: Path) -> None:
    scores = json.loads(world.scores.read_text())
    chosen = [0, 1, 13, 16, 20, 37]  # resnets and transformers of the way down, the middle and the way up
    plain = forward(world, tmp_path)
    differences = []
    for i in chosen:
        unit = scores["units"][i]
        differences.append((forward(world, tmp_path, "--without", unit["layer"]) - plain).astype(np.float64))
        # f32 outputs of near-equal forwards: the difference has lost digits where the score is small.
        rounding = 4 * np.finfo(np.float32).eps * float(np.abs(plain).max()) / np.sqrt(unit["score"])
        assert close((differences[-1] ** 2).mean(), unit["score"], max(TIGHT, rounding)), unit["layer"]
        per_sample = (differences[-1] ** 2).mean(axis=(1, 2, 3))
        assert close(per_sample.std(ddof=1) / np.sqrt(len(per_sample)), unit["stderr"], 1e-3)
    gram = gram_of(scores)[np.ix_(chosen, chosen)]
    ours = np.array([[(a * b).mean() for b in differences] for a in differences])
    scale = np.sqrt(np.outer(np.diag(gram), np.diag(gram)))
    assert np.abs((ours - gram) / scale).max() < 1e-3


def test_the_gram_matrix_is_one(world: World) -> None:
    scores = json.loads(world.scores.read_text())
    gram = gram_of(scores)
    values = [row["score"] for row in (*scores["units"], *scores["shells"])]
    assert close(np.diag(gram), values)
    assert np.abs(gram - gram.T).max() <= 1e-12 * np.abs(gram).max()
    assert np.linalg.eigvalsh(gram).min() >= -1e-10 * np.trace(gram)


@pytest.mark.slow
@pytest.mark.parametrize("flags", [("--memory", "1KiB"), ("--memory", "64GiB"), ("--batch", "1"), ("--batch", "1000000000"), ("--batch", "9223372036854775807"), ("--threads", "2")])
def test_memory_batch_and_threads_change_nothing(flags: tuple[str, str], world: World, tmp_path: Path) -> None:
    ok("score", world.unet, "--calibration", world.calibration, "-o", tmp_path / "s.json", *flags)
    ours, theirs = json.loads((tmp_path / "s.json").read_text()), json.loads(world.scores.read_text())
    # Bits differ between batch shapes; what a small score says of it grows as the score shrinks.
    a, b = (np.array([u["score"] for u in s["units"]]) for s in (ours, theirs))
    assert np.abs(a / b - 1).max() < 1e-3
    big = b > 1e-2 * b.max()
    assert close(a[big], b[big])
    scale = np.sqrt(np.outer(b, b))
    assert np.abs((gram_of(ours)[:38, :38] - gram_of(theirs)[:38, :38]) / scale).max() < 1e-3


def test_the_same_command_gives_the_same_bytes(world: World, tmp_path: Path) -> None:
    command = ["score", world.unet, "--calibration", world.calibration, "-o", "s.json"]
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        ok(*command, cwd=tmp_path / name)
    assert (tmp_path / "a/s.json").read_bytes() == (tmp_path / "b/s.json").read_bytes()


def test_a_spec_read_back_is_the_spec(world: World) -> None:
    spec = json.loads(world.spec.read_text())
    seen = ok("inspect", world.unet, "--spec", world.spec, "--json").json
    assert seen["params"] == spec["totals"]["params"]["pruned"]
    assert seen["macs"] == spec["totals"]["macs"]["pruned"]
    assert seen["base"] == {key: total["base"] for key, total in spec["totals"].items()}
    assert {u["layer"] for u in seen["units"] if u["removed"]} == {r["layer"] for r in spec["removed"]}


def test_a_spec_may_be_written_by_hand_in_any_order(world: World, tmp_path: Path) -> None:
    removed = [entry["layer"] for entry in json.loads(world.spec.read_text())["removed"]]
    outputs = []
    for i, order in enumerate((removed, removed[::-1])):
        file = tmp_path / f"{i}.json"
        file.write_text(json.dumps(world.spec_json(order)))
        outputs.append(forward(world, tmp_path, "--spec", file))
    outputs.append(forward(world, tmp_path, "--spec", world.spec))
    outputs.append(forward(world, tmp_path, "--without", ",".join(removed)))
    for output in outputs[1:]:
        np.testing.assert_array_equal(output, outputs[0])
    done = ok("inspect", world.unet, "--spec", world.spec, "--diff", tmp_path / "1.json")
    assert "both remove the same layers" in done.out


def test_a_transformers_path_is_short_for_all_its_blocks(world: World, tmp_path: Path) -> None:
    short, long = tmp_path / "short.json", tmp_path / "long.json"
    short.write_text(json.dumps(world.spec_json(["mid_block.attentions.0"])))
    long.write_text(json.dumps(world.spec_json(["mid_block.attentions.0.transformer_blocks.0"])))
    assert ok("inspect", world.unet, "--spec", short, "--json").json == ok("inspect", world.unet, "--spec", long, "--json").json


def test_nothing_removed_is_the_base(world: World, tmp_path: Path) -> None:
    file = tmp_path / "none.json"
    file.write_text(json.dumps(world.spec_json([])))
    np.testing.assert_array_equal(forward(world, tmp_path, "--spec", file), forward(world, tmp_path))


@pytest.mark.parametrize("budget", ["params=0.9", "params=0.6", "params=0.3", "macs=0.8", "params=0.9,macs=0.7", "params=500000"])
def test_solvers_meet_the_budget_and_gram_is_best_at_its_own_loss(budget: str, world: World, tmp_path: Path) -> None:
    scores = json.loads(world.scores.read_text())
    gram = gram_of(scores)[:38, :38]
    names = [unit["layer"] for unit in scores["units"]]
    linear, quadratic = {}, {}
    for solver in ("knapsack", "gram", "greedy"):
        out = tmp_path / f"{solver}.json"
        ok("solve", world.unet, "--scores", world.scores, "--budget", budget, "--solver", solver, "-o", out)
        spec = json.loads(out.read_text())
        for part in budget.split(","):
            name, share = part.split("=")
            limit = float(share) * spec["totals"][name]["base"] if float(share) <= 1 else float(share)
            assert spec["totals"][name]["pruned"] <= limit
        removed = {entry["layer"] for entry in spec["removed"]}
        x = np.array([name in removed for name in names], dtype=float)
        linear[solver], quadratic[solver] = float(np.diag(gram) @ x), float(x @ gram @ x)
    assert linear["knapsack"] <= min(linear.values()) * (1 + 1e-9)
    assert quadratic["gram"] <= min(quadratic.values()) * (1 + 1e-9)


def test_fixed_layers_stay_fixed(world: World, tmp_path: Path) -> None:
    keep, remove = "mid_block.resnets.1", "down_blocks.0.resnets.0"
    flags = ["--must-keep", keep, "--must-remove", remove]
    ok("solve", world.unet, "--scores", world.scores, "--budget", "params=0.7", *flags, "-o", tmp_path / "s.json")
    removed = {entry["layer"] for entry in json.loads((tmp_path / "s.json").read_text())["removed"]}
    assert remove in removed and keep not in removed


def test_taps_are_hidden_states_on_the_way(world: World, tmp_path: Path) -> None:
    plain = forward(world, tmp_path)
    np.testing.assert_array_equal(forward(world, tmp_path, "--taps", "mid_block,down_blocks.0.resnets.0"), plain)
    tensors = load_file(tmp_path / "out.safetensors")
    assert tensors.keys() == {"sample", "mid_block", "down_blocks.0.resnets.0"}
    assert tensors["mid_block"].shape == (5, 32, 1, 1)


def pictures(folder: Path) -> np.ndarray:
    files = sorted(folder.glob("*.png"))
    assert [file.name for file in files] == [f"{i:06d}.png" for i in range(len(files))]
    return np.stack([np.asarray(Image.open(file), dtype=int) for file in files])


def test_a_picture_is_its_seeds_at_any_batch(world: World, tmp_path: Path) -> None:
    command = ["sample", world.pipeline, "--prompts", world.prompts, "--steps", "3", "--seed", "7"]
    for batch in ("1", "3", "16"):
        ok(*command, "--batch", batch, "-o", tmp_path / batch)
    ok(*command, "--batch", "3", "-o", tmp_path / "again")
    reference = pictures(tmp_path / "1")
    assert reference.shape == (4, 16, 16, 3)
    for batch in ("3", "16"):
        assert np.abs(pictures(tmp_path / batch) - reference).max() <= 1
    for file in (tmp_path / "3").glob("*.png"):
        assert file.read_bytes() == (tmp_path / "again" / file.name).read_bytes()
    ok(*command[:-1], "8", "-o", tmp_path / "other")
    assert np.abs(pictures(tmp_path / "other") - reference).max() > 10
    ok(*command, "--count", "2", "-o", tmp_path / "two")
    assert np.abs(pictures(tmp_path / "two") - reference[:2]).max() <= 1


def test_latents_stand_in_for_the_seeds_noise(world: World, tmp_path: Path) -> None:
    noise = np.random.default_rng(0).standard_normal((4, 4, 8, 8)).astype(np.float32)
    save_file({"latents": noise}, tmp_path / "l.safetensors")
    save_file({"latents": noise[:, :3]}, tmp_path / "narrow.safetensors")
    save_file({"latents": noise[:2]}, tmp_path / "few.safetensors")
    command = ["sample", world.pipeline, "--prompts", world.prompts, "--steps", "2", "--latents"]
    for seed in ("0", "1"):
        ok(*command, tmp_path / "l.safetensors", "--seed", seed, "-o", tmp_path / seed)
    np.testing.assert_array_equal(pictures(tmp_path / "0"), pictures(tmp_path / "1"))
    for name in ("narrow", "few"):
        refused(BAD_INPUT, *command, tmp_path / f"{name}.safetensors", "-o", tmp_path / name, says="latents")


def test_a_spec_and_its_student_draw_the_same(world: World, tmp_path: Path) -> None:
    """What `distill` exports before any update would be, and `--spec` on the teacher, is one and the same network."""
    config = tmp_path / "d.json"
    config.write_text(json.dumps(world.distill_config(steps=1, optimizer={"learning_rate": 0.0, "weight_decay": 0.0})))
    ok("distill", "--config", config, "-o", tmp_path / "run")
    command = ["sample", world.pipeline, "--prompts", world.prompts, "--steps", "2"]
    ok(*command, "--spec", world.spec, "-o", tmp_path / "spec")
    ok(*command, "--unet", tmp_path / "run" / "student", "-o", tmp_path / "student")
    np.testing.assert_array_equal(pictures(tmp_path / "spec"), pictures(tmp_path / "student"))
    refused(USAGE, "sample", world.pipeline, "--prompts", world.prompts, "--count", "5", "-o", tmp_path / "x", says="has 4 rows")


def test_calibration_rows_are_those_of_their_seed(world: World, tmp_path: Path) -> None:
    for name, flags in {"a": ["--seed", "3"], "b": ["--seed", "3"], "c": ["--seed", "4"]}.items():
        ok("calibrate", world.pipeline, "--data", world.data, "--samples", "5", *flags, "-o", tmp_path / name)
    a, b, c = (load_file(tmp_path / name) for name in "abc")
    assert a.keys() == {"sample", "timestep", "encoder_hidden_states", "noise"}
    for key in a:
        np.testing.assert_array_equal(a[key], b[key])
    assert not np.array_equal(a["noise"], c["noise"])
    assert a["sample"].dtype == np.float32 and a["timestep"].min() >= 0 and a["timestep"].max() < 1000
