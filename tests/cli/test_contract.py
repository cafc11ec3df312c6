"""What every verb promises: help, exit codes, where results and messages go, what files look like."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import World
from program import BAD_INPUT, NON_FINITE, OK, PROGRAM, RESOURCES, USAGE, files_below, laptopdiff, ok, refused
from safetensors.numpy import load_file, save_file

VERBS = ("inspect", "forward", "calibrate", "score", "solve", "audit", "distill", "sample", "evaluate", "sweep")
COMMON = ("--config", "--set", "--device", "--dtype", "--threads", "--json", "--quiet", "--dry-run", "--overwrite")

# A verb -> its own flags, as the table of the design has them.
FLAGS = {
    "inspect": ("--spec", "--diff"),
    "forward": ("--inputs", "--output", "-o", "--spec", "--without", "--taps"),
    "calibrate": ("--data", "--samples", "--seed", "--output"),
    "score": ("--calibration", "--criterion", "--output"),
    "solve": ("--scores", "--budget", "--solver", "--preset", "--output"),
    "audit": ("--scores", "--calibration", "--keep", "--output"),
    "distill": ("--output", "--pipeline", "--spec", "--steps"),
    "sample": ("--unet", "--prompts", "--count", "--scheduler", "--steps", "--guidance", "--latents", "--seed", "--output"),
    "evaluate": ("--images", "--reference", "--prompts", "--models", "--metrics", "--output"),
    "sweep": ("--output",),
}
POSITIONAL = {"calibrate": "pipeline", "sample": "pipeline", "distill": None, "evaluate": None, "sweep": "study"}


def runs(world: World, folder: Path) -> dict[str, list[str | Path]]:
    """Every verb that writes an output, complete; the output is the last argument."""
    config = folder / "distill.json"
    config.write_text(json.dumps(world.distill_config(steps=1)))
    return {
        "forward": [world.unet, "--inputs", world.calibration, "-o", folder / "out.safetensors"],
        "calibrate": [world.pipeline, "--data", world.data, "--samples", "2", "-o", folder / "cal.safetensors"],
        "score": [world.unet, "--calibration", world.calibration, "--samples", "1", "-o", folder / "scores.json"],
        "solve": [world.unet, "--scores", world.scores, "--budget", "params=0.8", "-o", folder / "spec.json"],
        "audit": [
            *(world.unet, "--scores", world.scores, "--calibration", world.calibration, "--keep", "0.8"),
            *("--random-masks", "2", "--samples", "2", "-o", folder / "audit.json"),
        ],
        "sample": [world.pipeline, "--prompts", world.prompts, "--steps", "1", "-o", folder / "images"],
        "distill": ["--config", config, "-o", folder / "run"],
    }


@pytest.mark.parametrize("verb", VERBS)
def test_help_names_every_flag(verb: str) -> None:
    done = ok(verb, "--help")
    assert done.err == ""
    for flag in (*FLAGS[verb], *COMMON):
        assert flag in done.out, f"{verb} --help does not mention {flag}"
    place = POSITIONAL.get(verb, "model")
    assert place is None or f"--{place} " in done.out
    assert "-h, --help" in done.out


def test_the_program_lists_its_verbs_and_exit_codes() -> None:
    done = ok("--help")
    for verb in VERBS:
        assert f"  {verb} " in done.out
    for code in ("2 usage", "3 bad input", "4 non-finite", "5 out of memory", "75 stopped", "130 interrupted"):
        assert code in done.out
    assert laptopdiff().code == USAGE
    assert ok("--version").out.count("\n") == 1


def test_the_config_keys_of_distill_are_in_its_help() -> None:
    text = ok("distill", "--help").out
    for key in ("learning_rate", "ema_decay", "balance", "checkpoint_every", "folder"):
        assert f"{key}:" in text


@pytest.mark.parametrize(
    ("arguments", "near"),
    [
        (["inspct"], "did you mean `inspect`?"),
        (["SCORE"], "unknown verb `SCORE`"),
        ([""], "unknown verb ``"),
        (["inspect", "--stps"], "did you mean `--steps`?"),
        (["score", "--calibratoin=x"], "did you mean `--calibration`?"),
        (["inspect", "--json=maybe"], "maybe"),
        (["inspect", "a", "b"], "unexpected argument `b`"),
        (["inspect"], "MODEL is missing"),
        (["inspect", ""], "MODEL is missing"),
        (["forward", "m", "--inputs", "i"], "--output is missing"),
        (["evaluate", "--images", "i", "--models", "m"], "--output is missing"),
        (["inspect", "--latent"], "missing an argument"),
        (["inspect", "m", "--latent", "0x10"], "`latent` must be an integer"),
        (["inspect", "m", "--latent", "-1"], "--latent -1: expected"),
        (["inspect", "m", "--latent", "1000000000"], "--latent 1000000000: expected"),
        (["inspect", "m", "--tokens", "0"], "--tokens 0: expected"),
        (["inspect", "m", "--threads", "-1"], "--threads -1: expected 0 to 1024"),
        (["inspect", "m", "--threads", "99999999999999999999"], "`threads` must be an integer"),
        (["inspect", "m", "--threads", b"\xff"], "`threads` must be an integer"),
        (["inspect", "m", "--threads", "[" * 60_000 + "]" * 60_000], "`threads` must be an integer"),
        (["inspect", "m", "--dtype", "f64"], "--dtype f64: expected f32, bf16 or f16"),
        (["inspect", "m", "--device", "gpu"], "--device gpu: expected auto, cpu, cuda or cuda:N"),
        (["inspect", "m", "--device", "cuda:99999999999999999999"], "--device cuda:99999999999999999999: expected"),
        (["inspect", "m", "--set", "nonsense"], "expected a.b=value"),
        (["inspect", "m", "--set", "=1"], "expected a.b=value"),
        (["inspect", "m", "--set", "latnt=1"], "unknown key `latnt` (did you mean `latent`?)"),
        (["inspect", "m", "--set", ".".join("a" * 60_000) + "=1"], "nested deeper than 128 levels"),
        (["inspect", "m", "--set", "a=" + "[" * 60_000 + "]" * 60_000], "nested deeper than 128 levels"),
    ],
)  # fmt: skip
def test_a_wrong_command_line_is_a_usage_error(arguments: list[str], near: str) -> None:
    assert near in refused(USAGE, *arguments)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('{"latnt": 4}', "unknown key `latnt` (did you mean `latent`?)"),
        ('{"threds": 4}', "unknown key `threds` (did you mean `threads`"),
        ('{"latent": "x"}', '`latent` must be an integer, is "x"'),
        ('{"latent": 4, "latent": 8}', "duplicate key `latent`"),
        ('{"latent": 4', "not valid JSON"),
        ("[1]", "expected an object"),
        ("", "not valid JSON"),
        ("[" * 200_000 + "]" * 200_000, "nested deeper than 128 levels"),
    ],
)  # fmt: skip
def test_a_wrong_config_file_is_a_bad_input_named(text: str, says: str, world: World, tmp_path: Path) -> None:
    file = tmp_path / "config.json"
    file.write_text(text)
    refused(BAD_INPUT, "inspect", world.unet, "--config", file, says=[says, str(file)])


def test_flags_win_over_set_and_set_over_the_file(world: World, tmp_path: Path) -> None:
    file = tmp_path / "config.json"
    file.write_text(json.dumps({"model": str(world.unet), "latent": 16, "tokens": 5, "json": True, "steps": True}))
    at = lambda *flags: ok("inspect", "--config", file, *flags).json["steps"][0]["size"]  # noqa: E731
    assert at() == [16, 16]
    assert at("--set", "latent=32") == [32, 32]
    assert at("--set", "latent=32", "--latent", "8") == [8, 8]


def test_a_switch_can_be_turned_off(world: World) -> None:
    for off in ("false", "0", "F"):
        assert not ok("inspect", world.unet, f"--json={off}").out.startswith("{")
    assert ok("inspect", world.unet, "--json=1").out.startswith("{")


def test_set_takes_lists(world: World, tmp_path: Path) -> None:
    out = tmp_path / "spec.json"
    kept = ["mid_block.resnets.0", "mid_block.resnets.1"]
    ok("solve", world.unet, "--scores", world.scores, "--budget", "params=0.8", "--set", f"must_keep={json.dumps(kept)}", "-o", out)
    removed = {entry["layer"] for entry in json.loads(out.read_text())["removed"]}
    assert removed and not removed & set(kept)


def test_inspect_json(world: World) -> None:
    map_ = ok("inspect", world.unet, "--json").json
    assert {"params", "macs", "units"} <= map_.keys()
    assert len(map_["units"]) == 38
    for unit in map_["units"]:
        assert {"layer", "kind", "params", "macs"} <= unit.keys()
        assert unit["kind"] in ("resnet", "transformer")
        assert unit["params"] > 0 and unit["macs"] > 0
    assert sum(unit["params"] for unit in map_["units"]) < map_["params"]
    # A pipeline's folder is short for its U-Net's, and the weights are not needed.
    assert ok("inspect", world.pipeline, "--json").json == map_
    assert ok("inspect", world.unet / "config.json", "--json").json == map_


def test_scores_json(world: World) -> None:
    scores = json.loads(world.scores.read_text())
    assert scores["format"] == "laptopdiff.scores/1"
    assert scores["criterion"] == "output_loss"
    assert scores["samples"] == 5
    for unit in scores["units"]:
        assert {"layer", "kind", "params", "macs", "score", "stderr"} <= unit.keys()
        assert unit["score"] > 0 and unit["stderr"] >= 0
    assert len(scores["gram"]) == len(scores["units"]) + len(scores["shells"])
    assert {"class", "config", "weights_sha256"} <= scores["base"].keys()
    assert scores["made_by"]["command"].startswith("laptopdiff score ")


def test_spec_json(world: World) -> None:
    spec = json.loads(world.spec.read_text())
    assert spec["format"] == "laptopdiff.spec/1"
    assert spec["shell"] == "drop"
    assert spec["timesteps"] == [0, 1000]
    assert {"class", "config", "weights_sha256"} <= spec["base"].keys()
    assert all(entry.keys() == {"layer", "how"} for entry in spec["removed"])
    for total in spec["totals"].values():
        assert 0 < total["pruned"] < total["base"]
    assert {"criterion", "solver", "scores", "command"} <= spec["made_by"].keys()


def test_audit_json(world: World, tmp_path: Path) -> None:
    arguments = runs(world, tmp_path)["audit"]
    done = ok("audit", *arguments)
    audit = json.loads(Path(arguments[-1]).read_text())
    assert audit["format"] == "laptopdiff.audit/1"
    assert "Spearman" in done.out and "nan" not in done.out
    assert len(audit["rows"]) >= 3
    for row in audit["rows"]:
        assert {"name", "kind", "keep", "removed", "criterion", "additive", "gram", "true", "stderr"} >= row.keys()
        assert {"name", "kind", "keep", "removed", "additive", "gram", "true", "stderr"} <= row.keys()
        assert row["true"] >= 0
    assert {"additive", "gram"} <= audit["agreement"].keys()


def test_json_files_can_be_diffed(world: World, tmp_path: Path) -> None:
    ok("audit", *runs(world, tmp_path)["audit"])
    for file in (world.scores, world.spec, tmp_path / "audit.json"):
        text = file.read_text()
        assert text == json.dumps(json.loads(text), indent=2, sort_keys=True, ensure_ascii=False) + "\n" or same_layout(text)


def same_layout(text: str) -> bool:
    """Sorted keys, two spaces, a last newline; numbers may be written in another way than Python's."""
    plain = json.dumps(json.loads(text, parse_float=lambda t: f"<{t}>"), indent=2, sort_keys=True, ensure_ascii=False)
    return plain.replace('"<', "").replace('>"', "") + "\n" == text


@pytest.mark.parametrize("verb", ["forward", "calibrate", "score", "solve", "audit", "sample"])
def test_an_output_that_exists_is_refused(verb: str, world: World, tmp_path: Path) -> None:
    arguments = runs(world, tmp_path)[verb]
    output = Path(arguments[-1])
    if verb == "sample":
        output.mkdir()
    else:
        output.write_text("precious")
    refused(USAGE, verb, *arguments, says=["already exists", "--overwrite"])
    assert output.is_dir() or output.read_text() == "precious"
    ok(verb, *arguments, "--overwrite", "--quiet")
    assert output.is_dir() or output.read_bytes() != b"precious"


@pytest.mark.parametrize("verb", ["forward", "calibrate", "score", "solve", "audit", "sample", "distill"])
def test_a_dry_run_writes_nothing(verb: str, world: World, tmp_path: Path) -> None:
    arguments = runs(world, tmp_path)[verb]
    arguments[-1] = tmp_path / "new" / "folder" / "output"
    before = files_below(tmp_path)
    ok(verb, *arguments, "--dry-run")
    assert files_below(tmp_path) == before


def test_a_dry_sweep_lists_its_arms(world: World, tmp_path: Path) -> None:
    study = tmp_path / "study.json"
    study.write_text(json.dumps(world.study()))
    done = ok("sweep", study, "-o", tmp_path / "out", "--dry-run")
    assert done.out.splitlines() == ["teacher", "pruned", "student seed=0", "student seed=1"]
    assert files_below(tmp_path) == {"study.json"}


def test_an_axis_of_budgets_leaves_presets_alone(world: World, tmp_path: Path) -> None:
    study = tmp_path / "study.json"
    arms = {"laptop": {"solve": {}}, "handcrafted": {"solve": {"preset": "bk-sdm-tiny"}, "distill": {}}}
    axes = {"keep": {"set": ["solve.budget"], "values": ["params=0.8", "params=0.6"]}}
    study.write_text(json.dumps(world.study(arms=arms, axes=axes)))
    done = ok("sweep", study, "-o", tmp_path / "out", "--dry-run")
    assert done.out.splitlines() == ["handcrafted", "laptop keep=params=0.8", "laptop keep=params=0.6"]


@pytest.mark.slow
def test_a_decline_is_against_the_teacher_that_was_drawn_alike(world: World, tmp_path: Path) -> None:
    study = tmp_path / "study.json"
    arms = {"a pruned": {"solve": {}}, "teacher": {}}
    axes = {"guidance": {"set": ["sample.guidance"], "values": [1, 7]}}
    study.write_text(json.dumps(world.study(arms=arms, axes=axes)))
    rows = ok("sweep", study, "-o", tmp_path / "out", "--json").json["arms"]
    for guidance in (1, 7):
        pruned, teacher = (rows[f"{name} guidance={guidance}"]["clip"] for name in ("a pruned", "teacher"))
        decline = rows[f"a pruned guidance={guidance}"]["decline_percent"]["clip"]
        assert decline == pytest.approx(100 * (teacher - pruned) / abs(teacher))
    assert rows["teacher guidance=1"]["clip"] != rows["teacher guidance=7"]["clip"]


def test_inspect_tells_what_two_specs_do_otherwise(world: World, tmp_path: Path) -> None:
    def spec(name: str, *removed: Any) -> Path:
        (tmp_path / name).write_text(json.dumps(world.spec_json(list(removed))))
        return tmp_path / name

    block, resnet = "mid_block.attentions.0.transformer_blocks.0", "down_blocks.0.resnets.1"
    one, whole = spec("ff", f"{block}.ff", resnet, "mid_block.resnets.1"), spec("whole", f"{block}.attn1", "mid_block.resnets.1")
    diff = ok("inspect", world.unet, "--spec", one, "--diff", whole, "--json").json
    assert diff["only_first"] == [resnet] and diff["only_second"] == [] and diff["common"] == 1
    assert [entry["layer"] for entry in diff["otherwise"]] == [block]
    fates = {unit["layer"]: unit["fate"] for unit in ok("inspect", world.unet, "--spec", one, "--json").json["units"]}
    assert (fates[block], fates[resnet], fates["mid_block.resnets.0"]) == ("partly removed", "bypassed", "kept")
    assert "both remove the same layers" in ok("inspect", world.unet, "--spec", one, "--diff", one).out


def test_forward_tells_where_numbers_stop_being_finite(world: World, tmp_path: Path) -> None:
    tensors = load_file(world.calibration)
    tensors["encoder_hidden_states"] = np.full_like(tensors["encoder_hidden_states"], 3e38)  # finite, but its products are not
    save_file(tensors, tmp_path / "in.safetensors")
    out = tmp_path / "out.safetensors"
    message = refused(NON_FINITE, "forward", world.unet, "--inputs", tmp_path / "in.safetensors", "--taps", "all", "-o", out)
    assert "first seen after down_blocks.0.attentions.0" in message
    assert np.isfinite(load_file(out)["down_blocks.0.resnets.0"]).all()


def test_results_go_to_stdout_and_the_rest_to_stderr(world: World, tmp_path: Path) -> None:
    arguments = runs(world, tmp_path)["score"]
    done = ok("score", *arguments, "--json")
    assert done.json == json.loads(Path(arguments[-1]).read_text())
    assert done.err
    quiet = ok("score", *arguments, "--json", "--overwrite", "--quiet")
    assert quiet.json["units"] == done.json["units"]
    assert quiet.err == ""


def test_errors_are_told_even_when_quiet(world: World) -> None:
    assert "laptopdiff: " in refused(BAD_INPUT, "inspect", world.folder / "nowhere", "--quiet")


@pytest.mark.parametrize("arguments", [["--help"], ["inspect", "--help"], ["inspect", "MODEL"], ["inspect", "MODEL", "--json"]])
def test_a_full_or_closed_stdout_is_an_error(arguments: list[str], world: World) -> None:
    arguments = [str(world.unet) if argument == "MODEL" else argument for argument in arguments]
    with open("/dev/full", "wb") as full:
        refused(RESOURCES, *arguments, stdout=full, says="cannot write to stdout")


def test_odd_paths_work(world: World, tmp_path: Path) -> None:
    folder = tmp_path / "süß 名前 'quoted\" \\ folder"
    folder.mkdir()
    model = world.copy_unet(folder / "my unet")
    around = folder / ".." / folder.name / "my unet"
    ok("forward", around, "--inputs", world.calibration, "-o", folder / "out put.safetensors")
    assert load_file(folder / "out put.safetensors")["sample"].shape == (5, 4, 8, 8)
    relative = ok("inspect", "./my unet/../my unet/", "--json", cwd=folder)
    assert relative.json["params"] == ok("inspect", model, "--json").json["params"]
    # A name need not be UTF-8; its text in provenance is then a replacement.
    name = bytes(folder) + b"/\xff.safetensors"
    ok("calibrate", world.pipeline, "--data", world.data, "--samples", "1", "-o", name)
    ok("score", world.unet, "--calibration", name, "-o", folder / "scores.json")


def test_a_folder_without_write_permission_is_no_obstacle_to_reading(world: World) -> None:
    assert ok("inspect", world.unet, "--json", cwd="/proc").code == OK
    refused(RESOURCES, "forward", world.unet, "--inputs", world.calibration, "-o", "x.safetensors", cwd="/proc")


@pytest.mark.parametrize("output", ["folder", "folder/", "/dev/null", "/dev/full"])
def test_a_file_never_replaces_a_folder_or_a_device(output: str, world: World, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    arguments = ["forward", world.unet, "--inputs", world.calibration, "-o", output]
    assert "not a regular file" in refused(USAGE, *arguments, "--overwrite", "--dry-run", cwd=tmp_path)


def test_sample_replaces_only_folders_of_its_own(world: World, tmp_path: Path) -> None:
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "thesis.tex").write_text("precious")
    command = ["sample", world.pipeline, "--prompts", world.prompts, "--count", "1", "--steps", "1", "--overwrite"]
    refused(USAGE, *command, "-o", tmp_path / "home", says="did not make")
    assert (tmp_path / "home" / "thesis.tex").read_text() == "precious"
    for _ in range(2):
        ok(*command, "-o", tmp_path / "images")
    assert files_below(tmp_path) == {"home", "home/thesis.tex", "images", "images/000000.png", "images/samples.json"}


def test_the_program_is_one_file_that_runs_anywhere(tmp_path: Path) -> None:
    assert ok("--version", cwd=tmp_path).code == OK
    assert PROGRAM.is_file()


def test_solve_needs_scores_or_a_preset(world: World, tmp_path: Path) -> None:
    both: dict[str, Any] = {"says": "either --scores with --budget, or --preset"}
    refused(USAGE, "solve", world.unet, "-o", tmp_path / "s", **both)
    refused(USAGE, "solve", world.unet, "--scores", world.scores, "--preset", "bk-sdm-small", "-o", tmp_path / "s", **both)
    refused(USAGE, "solve", world.unet, "--preset", "bk-sdm-tny", "-o", tmp_path / "s", says="did you mean `bk-sdm-tiny`")
    refused(USAGE, "solve", world.unet, "--scores", world.scores, "-o", tmp_path / "s", says="--budget is missing")
    budget = ["--preset", "bk-sdm-tiny", "--budget", "params=0.3"]
    refused(USAGE, "solve", world.unet, *budget, "-o", tmp_path / "s", says="`budget` cannot be given with it")
    ok("solve", world.unet, "--preset", "bk-sdm-tiny", "-o", tmp_path / "s")
