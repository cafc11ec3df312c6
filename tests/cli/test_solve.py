"""What `solve` can be asked beyond a share of the parameters: times, true losses, curves, masks of intervals."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import World
from program import BAD_INPUT, USAGE, files_below, ok, refused
from safetensors.numpy import load_file, save_file


def solve(world: World, folder: Path, *flags: Any) -> dict[str, Any]:
    ok("solve", world.unet, "--scores", world.scores, *flags, "-o", folder / "o.json", "--overwrite")
    return json.loads((folder / "o.json").read_text())


def removed(spec: dict[str, Any]) -> set[str]:
    return {entry["layer"] for entry in spec["removed"]}


@pytest.fixture(scope="module")
def latency(world: World, tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("latency") / "latency.json"
    ok("bench", "layers", world.unet, "--repeat", "2", "--tokens", "12", "-o", file)
    return file


def test_times_of_layers_name_every_step_and_unit(latency: Path, world: World, tmp_path: Path) -> None:
    table = json.loads(latency.read_text())
    units = ok("inspect", world.unet, "--json").json["units"]
    assert table["format"] == "laptopdiff.latency/1"
    assert [row["layer"] for row in table["saved"]["units"]] == [unit["layer"] for unit in units]
    report = ok("doctor", "--json").json
    assert table["device_name"] == (report["processor"] if table["device"] == "cpu" else report["cuda"]["names"][0])
    assert table["dtype"] == "f32" and table["threads"] >= 1 and table["tokens"] == 12
    assert all(step["seconds"] >= step["least"] >= 0 for step in table["steps"]) and table["forward"] > 0
    refused(USAGE, "bench", "layers", world.unet, "-o", latency, says="exists")
    refused(USAGE, "bench", "layers", world.unet, says="--output is missing")
    # One time alone may be anything.
    assert "take 3 or more" in ok("bench", "layers", world.unet, "--repeat", "1", "-o", tmp_path / "once.json").err
    assert "take 3 or more" not in ok("bench", "layers", world.unet, "--repeat", "3", "-o", tmp_path / "thrice.json").err
    refused(USAGE, "bench", "layers", world.unet, "--spec", world.spec, "-o", tmp_path / "o", says="leave --spec out")
    refused(USAGE, "bench", "forward", world.unet, "-o", tmp_path / "o", says="leave --output out")


def test_a_budget_of_latency_is_met_by_the_table(latency: Path, world: World, tmp_path: Path) -> None:
    table = json.loads(latency.read_text())
    total = sum(step["seconds"] for step in table["steps"])
    done = ok("solve", world.unet, "--scores", world.scores, "--budget", "latency=0.7,params=0.8", "--latency", latency, "-o", tmp_path / "s")
    spec = json.loads((tmp_path / "s").read_text())
    kept = spec["made_by"]["kept"]["latency"]
    assert kept["base"] == pytest.approx(total) and kept["kept"] <= 0.7 * total * (1 + 1e-9)
    assert spec["totals"]["params"]["pruned"] <= 0.8 * spec["totals"]["params"]["base"]
    assert "latency     kept" in done.out and "params      kept" in done.out
    # Whose times they are.
    where = f"{table['device_name']} ({table['device']})"
    assert done.out.splitlines()[[line[:7] for line in done.out.splitlines()].index("latency")].endswith(f" on {where}")
    assert spec["made_by"]["latency_device"] == where
    # Files of before that was written are read.
    del table["device_name"]
    (tmp_path / "old.json").write_text(json.dumps(table))
    old = ok("solve", world.unet, "--scores", world.scores, "--budget", "latency=0.7", "--latency", tmp_path / "old.json", "-o", tmp_path / "o")
    assert f" on {table['device']}\n" in old.out
    seconds = {row["layer"]: row["seconds"] for row in table["saved"]["units"]}
    shells = sum(len(s) for s in table["saved"]["shells"])
    if not shells:
        assert kept["base"] - kept["kept"] == pytest.approx(sum(seconds[layer] for layer in removed(spec)))


def test_times_of_another_base_or_damaged_are_refused(latency: Path, world: World, tmp_path: Path) -> None:
    arguments = ["solve", world.unet, "--scores", world.scores, "--budget", "latency=0.7", "-o", tmp_path / "o"]
    table = json.loads(latency.read_text())
    table["steps"].pop()
    (tmp_path / "damaged.json").write_text(json.dumps(table))
    refused(BAD_INPUT, *arguments, "--latency", tmp_path / "damaged.json", says=["damaged.json", "`steps` must list"])
    table = json.loads(latency.read_text())
    for seconds, says in ((0, "so nothing was timed"), (1e308, "1e+308 seconds, expected 0 to")):
        hasty = table | {"steps": [step | {"seconds": seconds, "least": 0} for step in table["steps"]]}
        (tmp_path / "hasty.json").write_text(json.dumps(hasty))
        refused(BAD_INPUT, *arguments, "--latency", tmp_path / "hasty.json", says=["hasty.json", says])
    other = world.copy_unet(tmp_path / "unet")
    config = json.loads((other / "config.json").read_text()) | {"sample_size": 16}
    (other / "config.json").write_text(json.dumps(config))
    ok("bench", "layers", other, "--repeat", "1", "-o", tmp_path / "other.json")
    refused(BAD_INPUT, *arguments, "--latency", tmp_path / "other.json", says="times of another base")


def test_macs_are_counted_at_the_geometry_that_is_asked_for(world: World, tmp_path: Path) -> None:
    small = solve(world, tmp_path, "--budget", "macs=0.7")["made_by"]["kept"]["macs"]
    large = solve(world, tmp_path, "--budget", "macs=0.7", "--latent", "16", "--tokens", "12")["made_by"]["kept"]["macs"]
    assert large["base"] > 3 * small["base"] and large["kept"] <= 0.7 * large["base"] * (1 + 1e-9)


def true_loss(world: World, folder: Path, spec: Path) -> float:
    arguments = ["--scores", world.scores, "--calibration", world.calibration, "--keep", "0.9", "--random-masks", "0"]
    audit = ok("audit", world.unet, *arguments, "--specs", spec, "--json", "-o", folder / "audit.json", "--overwrite").json
    return audit["rows"][-1]["true"]


def test_verified_masks_are_the_best_of_what_was_measured(world: World, tmp_path: Path) -> None:
    measured = ["--budget", "params=0.6", "--calibration", world.calibration]
    spec = solve(world, tmp_path, *measured, "--solver", "verify", "--verify", "6")
    masks = spec["made_by"]["verified"]
    assert masks[0]["source"] == "solver" and spec["made_by"]["explored"] >= 2
    assert spec["made_by"]["true_loss"] == min(mask["true"] for mask in masks)
    assert spec["made_by"]["true_loss"] == pytest.approx(true_loss(world, tmp_path, tmp_path / "o.json"), rel=1e-3)
    assert 0 < spec["made_by"]["measured"]["forwards"] <= 6 + 2  # the base, on all samples and on a few
    scores = {unit["layer"]: unit["score"] for unit in json.loads(world.scores.read_text())["units"]}
    for solver in ("knapsack", "greedy"):
        better = solve(world, tmp_path, *measured, "--solver", solver, "--verify", "4")
        assert better["made_by"]["verified"][0]["source"] == "solver"
        # The solver's own objective, whatever mask the measuring chose.
        assert better["made_by"]["predicted_loss"] == pytest.approx(sum(scores[layer] for layer in removed(better)))
        plain = solve(world, tmp_path, "--budget", "params=0.6", "--solver", solver)
        (tmp_path / "plain.json").write_text(json.dumps(plain))
        assert better["made_by"]["true_loss"] <= true_loss(world, tmp_path, tmp_path / "plain.json") * (1 + 1e-3)


def test_exact_greedy_states_its_true_loss_and_work(world: World, tmp_path: Path) -> None:
    measured = ["--budget", "params=0.8", "--calibration", world.calibration, "--solver", "exact_greedy", "--samples", "2"]
    one = solve(world, tmp_path, *measured)["made_by"]
    three = solve(world, tmp_path, *measured, "--per-round", "3")["made_by"]
    assert one["measured"]["samples"] == 2 and three["measured"]["forwards"] < one["measured"]["forwards"]
    assert one["true_loss"] > 0 and one["bound"] is None


def test_measuring_needs_a_calibration_set_and_a_use_for_it(world: World, tmp_path: Path) -> None:
    arguments = ["solve", world.unet, "--scores", world.scores, "--budget", "params=0.8", "-o", tmp_path / "o"]
    refused(USAGE, *arguments, "--solver", "verify", says="--calibration")
    refused(USAGE, *arguments, "--verify", "3", says="--calibration")
    refused(USAGE, *arguments, "--calibration", world.calibration, says="measures nothing")
    refused(USAGE, *arguments, "--verify", "-1", says="--verify")
    refused(USAGE, *arguments, "--keep", "0.5", says="--curve")
    assert files_below(tmp_path) == set()


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (["--per-round", "2"], "`per_round` has no effect here: it is for --solver exact_greedy"),
        (["--solver", "exact_greedy", "--verify", "3"], "`verify` has no effect here"),
        (["--by", "loss"], "`by` has no effect here"),
        (["--by", "time"], "expected width"),
        (["--pipeline", "."], "`pipeline` has no effect here"),
        (["--intervals", "2", "--pipeline", "."], "--by snr alone"),
    ],
)
def test_flags_that_would_change_nothing_are_refused(flags: list[str], says: str, world: World, tmp_path: Path) -> None:
    arguments = ["solve", world.unet, "--scores", world.scores, "--budget", "params=0.8", "-o", tmp_path / "o"]
    refused(USAGE, *arguments, *flags, says=says)
    assert files_below(tmp_path) == set()


def test_flags_that_would_change_nothing_beside_a_preset_or_a_curve(world: World, tmp_path: Path) -> None:
    preset = ["solve", world.unet, "--preset", "bk-sdm-tiny", "-o", tmp_path / "o"]
    for flag, value in {"pipeline": world.pipeline, "samples": 2, "batch": 2, "latency": "l.json"}.items():
        refused(USAGE, *preset, f"--{flag}", str(value), says=f"`{flag}` cannot be given")
    curve = ["solve", world.unet, "--scores", world.scores, "--curve", tmp_path / "c"]
    refused(USAGE, *curve, "--intervals", "2", says="`intervals` has no effect here")
    assert files_below(tmp_path) == set()


def test_a_curve_and_a_spec_are_one_document(world: World, tmp_path: Path) -> None:
    arguments = ["solve", world.unet, "--scores", world.scores, "--budget", "params=0.8", "--curve", tmp_path / "c.json"]
    both = ok(*arguments, "-o", tmp_path / "s.json", "--json").json
    assert both == {"curve": json.loads((tmp_path / "c.json").read_text()), "spec": json.loads((tmp_path / "s.json").read_text())}
    alone = ok(*arguments, "--overwrite", "--json").json
    assert alone["format"] == "laptopdiff.curve/1"
    for same in ("c.json", "x/../c.json"):
        refused(USAGE, *arguments, "--overwrite", "-o", tmp_path / same, says="are the same file")


def test_true_losses_take_a_calibration_set_as_score_does(world: World, tmp_path: Path) -> None:
    tensors = load_file(world.calibration)
    save_file(tensors, tmp_path / "other.safetensors", metadata={"unet_layout_sha256": "0" * 64})
    measuring = (
        ["solve", world.unet, "--scores", world.scores, "--budget", "params=0.6", "--solver", "verify"],
        ["audit", world.unet, "--scores", world.scores],
    )
    for command in measuring:
        refused(BAD_INPUT, *command, "--calibration", tmp_path / "other.safetensors", "-o", tmp_path / "o", says="another U-Net")
        refused(USAGE, *command, "--calibration", world.calibration, "--samples", "99", "-o", tmp_path / "o", says="has 5")
    assert not (tmp_path / "o").exists()


def test_the_curve_holds_the_mask_of_every_share(world: World, tmp_path: Path) -> None:
    ok("solve", world.unet, "--scores", world.scores, "--curve", tmp_path / "curve.json")
    curve = json.loads((tmp_path / "curve.json").read_text())
    assert curve["format"] == "laptopdiff.curve/1" and curve["resource"] == "params" and curve["solver"] == "knapsack"
    point = next(p for p in curve["points"] if p["keep"] <= 0.6)
    spec = solve(world, tmp_path, "--budget", f"params={point['keep']:.17g}")
    assert spec["made_by"]["predicted_loss"] == pytest.approx(point["loss"]) and removed(spec) == set(point["removed"])
    shares = ["--budget", "macs=1", "--solver", "gram", "--keep", "0.9,0.7"]
    ok("solve", world.unet, "--scores", world.scores, *shares, "--curve", tmp_path / "gram.json")
    gram = json.loads((tmp_path / "gram.json").read_text())
    assert [p["keep"] <= share for p, share in zip(gram["points"], (0.9, 0.7), strict=True)] == [True, True]
    assert gram["objective"] == "x'Gx" and gram["resource"] == "macs"
    done = ok("solve", world.unet, "--scores", world.scores, "--keep", "0.9,0.001,0.7", "--curve", tmp_path / "less.json")
    assert len(json.loads((tmp_path / "less.json").read_text())["points"]) == 2 and "no point at 0.001" in done.err
    refused(USAGE, "solve", world.unet, "--scores", world.scores, "--curve", tmp_path / "curve.json", says="exists")
    refused(USAGE, "solve", world.unet, "--scores", world.scores, "--curve", tmp_path / "c", "--budget", "params=1,macs=1", says="one budget")


@pytest.fixture
def binned(world: World, tmp_path: Path) -> Path:
    """Scores in four bins of timesteps, of which the first two rank the layers the other way round."""
    scores = json.loads(world.scores.read_text())
    most = max(unit["score"] for unit in scores["units"])

    def bin_of(i: int) -> dict[str, Any]:
        values = [unit["score"] if i > 1 else 1.01 * most - unit["score"] for unit in scores["units"]]
        gram = [[values[r] if r == c else 0.0 for c in range(len(values))] for r in range(len(values))]
        units = [{"score": value, "stderr": 0.0} for value in values]
        return {"timesteps": [250 * i, 250 * (i + 1)], "samples": i + 1, "units": units, "shells": [], "gram": gram}

    scores["bins"] = [bin_of(i) for i in range(4)]
    scores["samples"] = sum(part["samples"] for part in scores["bins"])
    file = tmp_path / "binned.json"
    file.write_text(json.dumps(scores))
    return file


def test_a_mask_an_interval_covers_the_schedule(binned: Path, world: World, tmp_path: Path) -> None:
    arguments = ["solve", world.unet, "--scores", binned, "--budget", "params=0.6"]
    done = ok(*arguments, "--intervals", "2", "-o", tmp_path / "set.json")
    spec_set = json.loads((tmp_path / "set.json").read_text())
    assert spec_set["format"] == "laptopdiff.spec-set/1"
    assert [student["timesteps"] for student in spec_set["students"]] == [[0, 500], [500, 1000]]
    for student in spec_set["students"]:
        assert student["totals"]["params"]["pruned"] <= 0.6 * student["totals"]["params"]["base"]
    first, second = map(removed, spec_set["students"])
    overlap = spec_set["made_by"]["overlap"]
    assert overlap["jaccard"][0][1] == pytest.approx(len(first & second) / len(first | second)) and first != second
    assert all(kept == (layer not in first) + (layer not in second) for layer, kept in overlap["kept_by"].items())
    assert "timesteps [0, 500)" in done.out and "Jaccard" in done.out
    whole = json.loads((ok(*arguments, "--intervals", "1", "-o", tmp_path / "one.json"), (tmp_path / "one.json").read_text())[1])
    assert whole["students"][0]["timesteps"] == [0, 1000]


def test_intervals_of_equal_snr_come_from_the_pipelines_schedule(binned: Path, world: World, tmp_path: Path) -> None:
    arguments = ["solve", world.unet, "--scores", binned, "--budget", "params=0.6", "--intervals", "2", "--by", "snr"]
    refused(USAGE, *arguments, "-o", tmp_path / "o", says="give --pipeline DIR")
    ok(*arguments, "--pipeline", world.pipeline, "-o", tmp_path / "snr.json")
    # log-SNR of the schedule falls from 7 over 1.1 at 250 to -5.4: half of it is gone at 250.
    students = json.loads((tmp_path / "snr.json").read_text())["students"]
    assert [student["timesteps"] for student in students] == [[0, 250], [250, 1000]]


def test_intervals_that_cannot_be(binned: Path, world: World, tmp_path: Path) -> None:
    arguments = ["solve", world.unet, "--budget", "params=0.6", "-o", tmp_path / "o"]
    refused(USAGE, *arguments, "--scores", world.scores, "--intervals", "2", says="have no bins")
    refused(USAGE, *arguments, "--scores", binned, "--intervals", "5", says="expected 1 to 4")
    refused(USAGE, *arguments, "--scores", binned, "--intervals", "2", "--by", "time", says="expected width")
    early = load_file(world.calibration)
    early["timestep"] = np.minimum(early["timestep"], 400)
    save_file(early, tmp_path / "early.safetensors")
    measured = ["--calibration", tmp_path / "early.safetensors", "--verify", "3"]
    refused(BAD_INPUT, *arguments, "--scores", binned, "--intervals", "2", *measured, says="no sample at timesteps [500, 1000)")


@pytest.mark.slow
@pytest.mark.parametrize("solver", [["--verify", "3"], ["--solver", "exact_greedy", "--per-round", "4"]])
def test_masks_of_intervals_are_measured_on_their_own_samples(solver: list[str], binned: Path, world: World, tmp_path: Path) -> None:
    calibration = tmp_path / "cal.safetensors"
    ok("calibrate", world.pipeline, "--data", world.data, "--samples", "8", "--seed", "1", "-o", calibration)
    tensors = load_file(calibration)
    arguments = ["solve", world.unet, "--scores", binned, "--budget", "params=0.6", "--calibration", calibration]
    done = ok(*arguments, *solver, "--intervals", "2", "-o", tmp_path / "set.json")
    assert done.out.count("true loss ") == 2
    for i, student in enumerate(json.loads((tmp_path / "set.json").read_text())["students"]):
        first, last = student["timesteps"]
        rows = (tensors["timestep"] >= first) & (tensors["timestep"] < last)
        save_file({name: np.ascontiguousarray(tensor[rows]) for name, tensor in tensors.items()}, tmp_path / f"{i}.safetensors")
        (tmp_path / f"{i}.json").write_text(json.dumps(student))
        ok("audit", world.unet, "--scores", world.scores, "--calibration", tmp_path / f"{i}.safetensors", "--keep", "",
           "--random-masks", "0", "--specs", tmp_path / f"{i}.json", "-o", tmp_path / f"audit{i}.json")  # fmt: skip
        (row,) = json.loads((tmp_path / f"audit{i}.json").read_text())["rows"]
        assert student["made_by"]["true_loss"] == pytest.approx(row["true"], rel=1e-5)
        assert student["made_by"]["measured"]["samples"] == rows.sum()


@pytest.mark.slow
def test_true_losses_are_of_the_weights_with_lora(world: World, tmp_path: Path) -> None:
    name = "down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q"
    width = load_file(world.unet / "diffusion_pytorch_model.safetensors")[f"{name}.weight"].shape[0]
    random = np.random.default_rng(0)
    pair = {f"unet.{name}.lora_A.weight": random.standard_normal((2, width)), f"unet.{name}.lora_B.weight": random.standard_normal((width, 2))}
    lora = tmp_path / "lora.safetensors"
    save_file({key: value.astype(np.float32) for key, value in pair.items()}, lora)
    ok("export", world.unet, "--lora", lora, "-o", tmp_path / "merged")
    cal = ["--calibration", world.calibration]

    def losses(folder: Path, model: Path, *flags: str | Path) -> tuple[list[float], float]:
        folder.mkdir()
        ok("score", model, *cal, *flags, "-o", folder / "scores.json")
        scored = [model, "--scores", folder / "scores.json", *cal, *flags]
        ok("audit", *scored, "--keep", "0.7", "--random-masks", "2", "--solvers", "knapsack", "-o", folder / "audit.json")
        ok("solve", *scored, "--budget", "params=0.7", "--solver", "verify", "-o", folder / "spec.json")
        rows = json.loads((folder / "audit.json").read_text())["rows"]
        return [row["true"] for row in rows], json.loads((folder / "spec.json").read_text())["made_by"]["true_loss"]

    of_lora, of_merged = losses(tmp_path / "l", world.unet, "--lora", f"{lora}:1"), losses(tmp_path / "m", tmp_path / "merged")
    assert of_lora[0] == pytest.approx(of_merged[0], rel=1e-4) and of_lora[1] == pytest.approx(of_merged[1], rel=1e-4)
    assert of_lora[0] != pytest.approx(losses(tmp_path / "w", world.unet)[0], rel=1e-3)
    scored = ["--scores", tmp_path / "l" / "scores.json", *cal, "-o", tmp_path / "o"]
    says = "were they made with another --lora or --variant?"
    refused(BAD_INPUT, "audit", world.unet, *scored, says=says)
    refused(BAD_INPUT, "solve", world.unet, *scored, "--budget", "params=0.7", "--verify", "2", says=says)
    plain = ["solve", world.unet, "--scores", world.scores, "--budget", "params=0.7", "--lora", lora, "-o", tmp_path / "o"]
    refused(USAGE, *plain, says="`lora` has no effect here: it is merged where true losses are measured")


def test_an_audit_takes_several_scores_and_fits_a_correction(binned: Path, world: World, tmp_path: Path) -> None:
    flat = json.loads(world.scores.read_text()) | {"criterion": "flat"}
    flat.pop("gram")
    (tmp_path / "flat.json").write_text(json.dumps(flat))
    arguments = ["--calibration", world.calibration, "--keep", "0.7", "--random-masks", "3", "--fit", "3", "-o", tmp_path / "a.json"]
    both = f"{world.scores},{tmp_path / 'flat.json'}"
    done = ok("audit", world.unet, "--scores", both, *arguments, "--solvers", "knapsack,verify", "--verify", "3")
    audit = json.loads((tmp_path / "a.json").read_text())
    names = [row["name"] for row in audit["rows"]]
    assert names[:3] == ["output_loss knapsack 0.7", "output_loss verify 0.7", "flat knapsack 0.7"]
    assert len(audit["fit"]["rows"]) == 3 and set(audit["fit"]["corrections"]) == {"additive_fitted", "gram_fitted", "both_fitted"}
    assert all(row["gram_fitted"] > 0 for row in audit["rows"])
    assert set(audit["criteria"]) == {"output_loss", "flat"} and "within 25 %" in done.out
    refused(USAGE, "audit", world.unet, "--scores", both, *arguments, "--overwrite", "--solvers", "x", says="unknown solver `x`")
