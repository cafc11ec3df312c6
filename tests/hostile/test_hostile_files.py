"""Hostile files through the whole program: refused with the promised exit code and the file's name, in bounded time and memory."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import hostile_files as files
import numpy as np
import pytest
import small_models
from program import BAD_INPUT, NON_FINITE, OK, PROGRAM, USAGE, environment
from safetensors.numpy import load_file, save_file

pytestmark = pytest.mark.slow

PATIENCE_S = 30  # on a busy machine; the refusals take well under a second each
MEMORY_MIB = 1024  # above what an idle run takes: LibTorch itself is most of a run's memory
LONGEST_MESSAGE = 10_000
WEIGHTS = "diffusion_pytorch_model.safetensors"


@dataclass
class Ended:
    code: int
    err: str
    peak_mib: float


def run(*arguments: str | Path) -> Ended:
    """Runs to the end; `peak_mib` is of this run alone."""
    process = subprocess.Popen([PROGRAM, *arguments], env=environment(), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    hang = threading.Timer(PATIENCE_S, process.kill)
    hang.start()
    err = process.stderr.read().decode(errors="replace")
    process.stderr.close()
    _, status, usage = os.wait4(process.pid, 0)
    hang.cancel()
    process.returncode = os.waitstatus_to_exitcode(status)
    return Ended(process.returncode, err, usage.ru_maxrss / 1024)


@dataclass
class World:
    pipeline: Path
    inputs: Path
    idle_mib: float

    @property
    def unet(self) -> Path:
        return self.pipeline / "unet"

    def refused(self, code: int, *arguments: str | Path, says: list[str]) -> None:
        ended = run(*arguments)
        assert ended.code == code, f"exit code {ended.code}, expected {code}\n{ended.err[:2000]}"
        for text in says:
            assert text in ended.err, ended.err[:2000]
        assert len(ended.err) < LONGEST_MESSAGE
        assert ended.peak_mib < self.idle_mib + MEMORY_MIB


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    folder = tmp_path_factory.mktemp("hostile")
    pipeline = small_models.write_pipeline(folder / "pipeline")
    random = np.random.default_rng(0)
    inputs = {"sample": random.standard_normal((1, 4, 8, 8), np.float32), "timestep": np.array([1])}
    inputs["encoder_hidden_states"] = random.standard_normal((1, 7, 16), np.float32)
    save_file(inputs, folder / "in.safetensors")
    idle = run("inspect", pipeline / "unet")
    assert idle.code == OK, idle.err
    return World(pipeline, folder / "in.safetensors", idle.peak_mib)


def put(path: Path, content: str | bytes | Any) -> Path:
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def cases(table: dict[str, Any]) -> Any:
    return pytest.mark.parametrize("name", table)


def model(world: World, folder: Path) -> Path:
    """The U-Net's config alone."""
    folder.mkdir()
    shutil.copy(world.unet / "config.json", folder)
    return folder


def forward(world: World, unet: Path, inputs: Path, output: Path, *flags: str) -> list[str | Path]:
    return ["forward", unet, "--inputs", inputs, "-o", output, *flags]


@cases(files.WEIGHTS)
def test_weights(name: str, world: World, tmp_path: Path) -> None:
    content, says = files.WEIGHTS[name]
    unet = model(world, tmp_path / "unet")
    put(unet / WEIGHTS, content())
    world.refused(BAD_INPUT, *forward(world, unet, world.inputs, tmp_path / "o"), says=[says, "unet"])
    assert not (tmp_path / "o").exists()


def test_a_sparse_file_that_claims_a_hundred_gigabytes(world: World, tmp_path: Path) -> None:
    unet = model(world, tmp_path / "unet")
    put(unet / WEIGHTS, (10**8).to_bytes(8, "little"))
    os.truncate(unet / WEIGHTS, 100 << 30)
    world.refused(BAD_INPUT, *forward(world, unet, world.inputs, tmp_path / "o"), says=["does not start with `{`", WEIGHTS])


@cases(files.CONFIGS)
def test_configs(name: str, world: World, tmp_path: Path) -> None:
    make, says = files.CONFIGS[name]
    content = make()
    if isinstance(content, dict):
        content = json.loads((world.unet / "config.json").read_text()) | content
    world.refused(BAD_INPUT, "inspect", put(tmp_path / "config.json", content), says=[says, "config.json"])


def test_a_config_of_unknown_keys_runs_with_a_bounded_warning(world: World, tmp_path: Path) -> None:
    config = json.loads((world.unet / "config.json").read_text()) | {f"{'k' * 100}{i}": i for i in range(100_000)} | {"": 1}
    ended = run("inspect", put(tmp_path / "config.json", config))
    assert ended.code == OK
    assert "more unknown keys" in ended.err and len(ended.err) < LONGEST_MESSAGE


@cases(files.SHARDS)
def test_shard_indexes(name: str, world: World, tmp_path: Path) -> None:
    make, says = files.SHARDS[name]
    unet = model(world, tmp_path / "unet")
    make(unet)
    world.refused(BAD_INPUT, *forward(world, unet, world.inputs, tmp_path / "o"), says=[says, "unet"])


def test_paths_that_are_loops(world: World, tmp_path: Path) -> None:
    os.symlink("loop", tmp_path / "loop")
    unet = model(world, tmp_path / "unet")
    os.symlink(WEIGHTS, unet / WEIGHTS)
    world.refused(BAD_INPUT, "inspect", tmp_path / "loop", says=["loop"])
    world.refused(BAD_INPUT, *forward(world, unet, world.inputs, tmp_path / "o"), says=[WEIGHTS])


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_inputs_that_are_not_finite(value: float, world: World, tmp_path: Path) -> None:
    inputs = load_file(world.inputs)
    inputs["sample"][0, 1, 2, 3] = value
    save_file(inputs, tmp_path / "in.safetensors")
    world.refused(NON_FINITE, *forward(world, world.unet, tmp_path / "in.safetensors", tmp_path / "o"), says=["in.safetensors"])


@pytest.mark.parametrize(
    ("removed", "says"),
    [
        ([{"layer": "mid_block.resnets.0"}] * 200_000, "removed: 200000 entries"),
        ([{"layer": "mid_block.resnets.0"} | {f"k{i}": 1 for i in range(200_000)}], "more"),
        ([{"layer": "mid_block.resnets." + "9" * 1_000_000}], "cannot be removed"),
    ],
    ids=["two_hundred_thousand_entries", "unknown_keys", "layer_of_a_megabyte"],
)
def test_specs(removed: list[Any], says: str, world: World, tmp_path: Path) -> None:
    base = {"class": "UNet2DConditionModel", "config": json.loads((world.unet / "config.json").read_text())}
    spec = put(tmp_path / "spec.json", {"format": "laptopdiff.spec/1", "base": base, "removed": removed})
    world.refused(BAD_INPUT, "inspect", world.unet, "--spec", spec, says=[says, "spec.json"])


@cases(files.PICTURES)
def test_pictures(name: str, world: World, tmp_path: Path) -> None:
    content, says = files.PICTURES[name]
    put(tmp_path / "p.png", content())
    put(tmp_path / "metadata.jsonl", '{"text": "a", "file_name": "p.png"}\n')
    world.refused(BAD_INPUT, *calibrate(world.pipeline, tmp_path, tmp_path / "o"), says=[says, "p.png"])


def calibrate(pipeline: Path, data: Path, output: Path) -> list[str | Path]:
    return ["calibrate", pipeline, "--data", data, "--samples", "1", "-o", output]


def with_tokenizer(world: World, folder: Path, tokenizer: files.Files) -> Path:
    """The pipeline with other tokenizer files; the rest are links."""
    (folder / "tokenizer").mkdir(parents=True)
    for part in world.pipeline.iterdir():
        if part.name != "tokenizer":
            os.symlink(part, folder / part.name)
    for name, content in tokenizer.items():
        put(folder / "tokenizer" / name, content)
    return folder


def sample(pipeline: Path, prompts: Path, output: Path) -> list[str | Path]:
    return ["sample", pipeline, "--prompts", prompts, "--steps", "1", "-o", output]


@cases(files.TOKENIZERS)
def test_tokenizers(name: str, world: World, tmp_path: Path) -> None:
    make, says = files.TOKENIZERS[name]
    pipeline = with_tokenizer(world, tmp_path / "pipeline", make())
    prompts = put(tmp_path / "prompts.txt", "a b ab\n")
    world.refused(BAD_INPUT, *sample(pipeline, prompts, tmp_path / "o"), says=[says, "tokenizer"])


def test_merges_in_a_circle_end(world: World, tmp_path: Path) -> None:
    pipeline = with_tokenizer(world, tmp_path / "pipeline", files.cyclic_merges())
    ended = run(*sample(pipeline, put(tmp_path / "prompts.txt", "ab" * 50_000 + "\n"), tmp_path / "o"))
    assert ended.code == OK, ended.err


def test_a_prompt_that_is_not_utf8(world: World, tmp_path: Path) -> None:
    prompts = put(tmp_path / "prompts.txt", b"a cat\n\xff\xfe\n")
    world.refused(BAD_INPUT, *sample(world.pipeline, prompts, tmp_path / "o"), says=["not UTF-8"])


@pytest.mark.parametrize("through", ["its_name", "a_link"])
def test_an_output_that_is_the_mapped_input_is_refused(through: str, world: World, tmp_path: Path) -> None:
    inputs, output = tmp_path / "in.safetensors", tmp_path / ("in.safetensors" if through == "its_name" else "other")
    shutil.copy(world.inputs, inputs)
    if through == "a_link":
        os.symlink(inputs, output)
    world.refused(USAGE, *forward(world, world.unet, inputs, output, "--overwrite"), says=["is read as well"])
    assert inputs.read_bytes() == world.inputs.read_bytes()


def test_a_second_name_of_the_mapped_input_is_replaced_not_written_over(world: World, tmp_path: Path) -> None:
    """The run reads its input from the mapped file to the end, so the result is that of another output path."""
    inputs, output = tmp_path / "in.safetensors", tmp_path / "other"
    shutil.copy(world.inputs, inputs)
    os.link(inputs, output)
    assert run(*forward(world, world.unet, inputs, tmp_path / "plain")).code == OK
    ended = run(*forward(world, world.unet, inputs, output, "--overwrite"))
    assert ended.code == OK, ended.err
    assert output.read_bytes() == (tmp_path / "plain").read_bytes()
    assert inputs.read_bytes() == world.inputs.read_bytes()


def test_an_export_does_not_take_the_place_of_its_model(world: World, tmp_path: Path) -> None:
    out = tmp_path / "out"
    spec = {"class": "UNet2DConditionModel", "config": json.loads((world.unet / "config.json").read_text())}
    removed = [{"layer": "mid_block.attentions.0.transformer_blocks.0", "how": "bypass"}]
    put(tmp_path / "spec.json", {"format": "laptopdiff.spec/1", "base": spec, "removed": removed})
    ended = run("export", world.unet, "--spec", tmp_path / "spec.json", "-o", out)
    assert ended.code == OK, ended.err
    before = (out / WEIGHTS).read_bytes()
    world.refused(USAGE, "export", out, "-o", out, "--overwrite", says=["is read as well"])
    assert (out / WEIGHTS).read_bytes() == before
