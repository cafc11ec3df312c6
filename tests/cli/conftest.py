"""The small world that the tests of the command line share; made once, never changed by a test."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import small_models
from program import ok


@dataclass
class World:
    folder: Path
    pipeline: Path
    data: Path
    models: Path
    prompts: Path  # .jsonl with text and label
    calibration: Path
    scores: Path
    spec: Path

    @property
    def unet(self) -> Path:
        return self.pipeline / "unet"

    def spec_json(self, removed: list[Any], **more: Any) -> dict[str, Any]:
        """The least that a spec needs; `removed` holds layers, or (layer, how)."""
        config = json.loads((self.unet / "config.json").read_text())
        entries = [{"layer": r} if isinstance(r, str) else {"layer": r[0], "how": r[1]} for r in removed]
        base = {"class": "UNet2DConditionModel", "config": config}
        return {"format": "laptopdiff.spec/1", "base": base, "removed": entries} | more

    def distill_config(self, **more: Any) -> dict[str, Any]:
        return {
            "pipeline": str(self.pipeline),
            "spec": str(self.spec),
            "data": {"folder": str(self.data), "images": 8},
            "steps": 12,
            "batch": 2,
            "log_every": 1,
            "checkpoint_every": 1,
            "optimizer": {"learning_rate": 1e-3},
        } | more

    def study(self, **more: Any) -> dict[str, Any]:
        return {
            "name": "small",
            "pipeline": str(self.pipeline),
            "train": str(self.data),
            "reference": str(self.data),
            "prompts": str(self.prompts),
            "models": str(self.models),
            "calibrate": {"samples": 4},
            "solve": {"budget": "params=0.7"},
            "distill": {"steps": 3, "batch": 2, "checkpoint_every": 1, "data": {"images": 8}},
            "sample": {"steps": 2},
            "evaluate": {"metrics": ["clip", "fid", "accuracy"], "resamples": 20},
            "arms": {"teacher": {}, "pruned": {"solve": {}}, "student": {"distill": {}}},
            "axes": {"seed": {"set": ["distill.seed"], "values": [0, 1]}},
        } | more

    def copy_unet(self, folder: Path) -> Path:
        shutil.copytree(self.unet, folder)
        return folder


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    folder = tmp_path_factory.mktemp("world")
    pipeline = small_models.write_pipeline(folder / "pipeline")
    data = small_models.write_data(folder / "data")
    models = small_models.write_scoring_models(folder / "models")
    prompts = folder / "prompts.jsonl"
    prompts.write_text(small_models.rows(4))
    world = World(folder, pipeline, data, models, prompts, folder / "cal.safetensors", folder / "scores.json", folder / "spec.json")
    ok("calibrate", pipeline, "--data", data, "--samples", "5", "--seed", "3", "-o", world.calibration)
    ok("score", world.unet, "--calibration", world.calibration, "-o", world.scores)
    ok("solve", world.unet, "--scores", world.scores, "--budget", "params=0.6", "-o", world.spec)
    return world
