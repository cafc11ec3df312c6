"""One training loop for every model of the demo: schedule, EMA, log, checkpoints, and a CUDA graph of the step.

The models are so small that launching kernels costs more than running them, so on a GPU the whole step (draw a
batch, forward, backward, clip, AdamW, EMA) is captured once and replayed. A loss given to `Stage` must therefore
stay on the device: no `.item()`, no tensors made from Python numbers, random numbers only from its generator.
"""

from __future__ import annotations

import argparse
import copy
import json
import math
import os
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable, Mapping

import torch
from torch import Tensor, nn

from data import to_json

EMA_DECAY = 0.9999
GRADIENT_NORM = 1.0
EAGER_STEPS = 3  # cuDNN and the allocator must have settled before a capture
TIMED_STEPS = 20  # how many steps the length of a stage given in minutes is planned from
LOG_EVERY = 50
WALL_CLOCK_START = time.monotonic()


@dataclass(frozen=True)
class StageOptions:
    """How long and how fast one model is trained."""

    name: str
    learning_rate: float
    # Exactly one of the two; minutes are turned into steps once the step time is known.
    steps: int | None = None
    minutes: float | None = None
    warmup: int = 300
    weight_decay: float = 0.01
    evaluate_every: int = 1000
    checkpoint_every: int = 2000
    graph: bool = True
    compile: bool = False
    bf16: bool = False  # on a CPU; a GPU always computes in bf16
    # Minutes since the program started after which training stops early, keeping what it has.
    deadline: float | None = None


def add_training_flags(parser: argparse.ArgumentParser) -> None:
    """Adds the flags that both training programs share."""
    parser.add_argument("--data", type=Path, required=True, metavar="DIR", help="folder written by data.py")
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="DIR")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--batch", type=int, default=512)
    parser.add_argument("--limit", type=int, metavar="N", help="use only the first N pictures of each split")
    parser.add_argument("--checkpoint-every", type=int, default=2000, metavar="STEPS")
    parser.add_argument("--deadline", type=float, metavar="MINUTES", help="stop early after this long, and save")
    parser.add_argument("--compile", action="store_true", help="torch.compile the models (a minute or two at start)")
    parser.add_argument("--bf16", action="store_true", help="compute in bf16 on a CPU too, as on a GPU")
    parser.add_argument("--eager", action="append", default=[], metavar="STAGE", help="no CUDA graph in this stage")
    parser.add_argument("--probe", action="store_true", help="time 30 steps of every stage and write nothing")


def stage_options(args: argparse.Namespace, name: str, **values: Any) -> StageOptions:
    """Fills in what the shared flags say."""
    if args.probe:
        values["steps"] = EAGER_STEPS + TIMED_STEPS + 7
    if values["steps"] is not None:
        values["minutes"] = None
    return StageOptions(
        name=name,
        checkpoint_every=args.checkpoint_every,
        graph=name not in args.eager,
        compile=args.compile,
        bf16=args.bf16,
        deadline=args.deadline,
        **values,
    )


def prepare_device(name: str) -> torch.device:
    """Turns on the fast paths that change results by less than the training noise."""
    torch.set_float32_matmul_precision("high")
    torch.backends.cudnn.allow_tf32 = True
    torch.backends.cudnn.benchmark = True
    return torch.device(name)


def device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"


def autocast(device: torch.device, bf16: bool = False) -> torch.autocast:
    """bf16 on a GPU, or if asked. Weights stay float32 and are used once a step: caching their casts gains nothing."""
    return torch.autocast(device.type, torch.bfloat16, enabled=bf16 or device.type == "cuda", cache_enabled=False)


def parameter_count(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def save_atomically(value: Any, path: Path) -> None:
    temporary = path.with_name(path.name + ".tmp")
    torch.save(value, temporary)
    os.replace(temporary, path)


def restart_without_graph(stage: str, error: Exception) -> None:
    """Starts the program again with this stage uncaptured.

    A failed capture can leave the allocator and the generators half in capture mode, so a new process is the only
    fallback that surely computes the right thing. Finished stages are read back from their checkpoints.
    """
    print(f"{stage}: CUDA graph capture failed, starting again without it: {error}", file=sys.stderr, flush=True)
    os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:], "--eager", stage])


class Stage:
    """Trains some modules by a loss; owns the optimiser, the EMA copy, the random stream and the checkpoint.

    `loss` gets the modules and a generator on the device and returns a scalar. `evaluate` gets the EMA copy and
    returns numbers for the log.
    """

    def __init__(
        self,
        options: StageOptions,
        modules: Mapping[str, nn.Module],
        loss: Callable[[nn.ModuleDict, torch.Generator], Tensor],
        evaluate: Callable[[nn.ModuleDict], dict[str, Any]],
        device: torch.device,
        seed: int,
        state: Path,
    ) -> None:
        self.options = options
        self.modules = nn.ModuleDict(modules).to(device).train()
        self.ema = copy.deepcopy(self.modules).eval().requires_grad_(False)
        self._loss, self._evaluate, self._device = loss, evaluate, device
        self._generator = torch.Generator(device).manual_seed(seed)
        self._checkpoint, self._log_path = state / f"{options.name}.pt", state / "train_log.jsonl"
        state.mkdir(parents=True, exist_ok=True)

        self._parameters = list(self.modules.parameters())
        # Batch-norm statistics are averaged along with the weights they belong to.
        self._live = _floating_state(self.modules)
        self._average = _floating_state(self.ema)
        self._rate = torch.zeros((), device=device)  # 1 - EMA decay
        self._learning_rate = torch.zeros((), device=device)
        self._loss_sum = torch.zeros((), device=device)
        self._optimizer = torch.optim.AdamW(
            [
                {"params": [p for p in self._parameters if p.ndim > 1], "weight_decay": options.weight_decay},
                {"params": [p for p in self._parameters if p.ndim <= 1], "weight_decay": 0.0},
            ],
            lr=self._learning_rate,
            betas=(0.9, 0.99),
            fused=True,
            capturable=device.type == "cuda",
        )
        self._graph: torch.cuda.CUDAGraph | None = None
        self._side_stream = torch.cuda.Stream(device) if device.type == "cuda" else None
        self._step, self._logged_step, self._total, self._seconds = 0, 0, options.steps, 0.0
        self._last_loss, self._evaluation = math.nan, {}
        self._mode = "eager"

    def run(self) -> dict[str, Any]:
        """Trains to the end, or picks up where a checkpoint left off, and returns a summary."""
        summary = self._resume()
        if summary is not None:
            print(f"{self.options.name}: already trained")
            return summary
        if self.options.compile:
            for module in self.modules.values():
                module.compile()
        begin, first = time.monotonic() - self._seconds, self._step
        timed_from, stopped_early = math.nan, False
        while self._total is None or self._step < self._total:
            self._advance(capture=self._step == first + EAGER_STEPS)
            done = self._step - first
            if done == EAGER_STEPS + 1:
                timed_from = self._now()
            if done == EAGER_STEPS + 1 + TIMED_STEPS:
                self._plan((self._now() - timed_from) / TIMED_STEPS, time.monotonic() - begin)
            last = self._step == self._total
            stopped_early = not last and self._past_deadline()
            if self._step % LOG_EVERY == 0 or last or stopped_early:
                self._seconds = self._now() - begin
                self._log(evaluate=last or stopped_early)
            if stopped_early:
                break
            if self._step % self.options.checkpoint_every == 0 and not last:
                self._save(None)
        summary = {
            "device": device_name(self._device),
            "loss": self._last_loss,
            "mode": self._mode,
            "options": vars(self.options),
            "parameters": {name: parameter_count(module) for name, module in self.modules.items()},
            "seconds": round(self._seconds, 1),
            "steps": self._step,
            "stopped_early": stopped_early,
            "evaluation": self._evaluation,
        }
        self._save(summary)
        return summary

    def _now(self) -> float:
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        return time.monotonic()

    def _past_deadline(self) -> bool:
        limit = self.options.deadline
        return limit is not None and time.monotonic() - WALL_CLOCK_START > 60 * limit

    def _plan(self, step_seconds: float, elapsed: float) -> None:
        """Fixes the number of steps, so that the learning rate decays to its end in the minutes given."""
        if self._total is None:
            assert self.options.minutes is not None
            # A few percent are for evaluations and checkpoints.
            self._total = self._step + max(1, int((0.97 * 60 * self.options.minutes - elapsed) / step_seconds))
        milliseconds = 1e3 * step_seconds
        print(f"{self.options.name}: {milliseconds:.2f} ms a step ({self._mode}), {self._total} steps", flush=True)

    def _rate_now(self) -> float:
        progress = self._step / self._total if self._total else 0.0
        # A short run must not spend itself on warming up.
        warmup = min(self.options.warmup, max(1, self._total // 10)) if self._total else self.options.warmup
        warm = min(1.0, (self._step + 1) / warmup)
        return self.options.learning_rate * warm * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * progress)))

    def _advance(self, capture: bool) -> None:
        self._learning_rate.fill_(self._rate_now())
        self._rate.fill_(1 - min(EMA_DECAY, (1 + self._step) / (10 + self._step)))
        if capture and self.options.graph and self._device.type == "cuda":
            self._capture()
        if self._graph is not None:
            self._graph.replay()
        elif self._device.type == "cuda":
            self._update_on_side_stream()
        else:
            self._update()
        self._step += 1

    def _update_on_side_stream(self) -> None:
        # Autograd must not have seen the default stream before a capture.
        current, side = torch.cuda.current_stream(self._device), self._side_stream
        side.wait_stream(current)
        with torch.cuda.stream(side):
            self._update()
        current.wait_stream(side)

    def _capture(self) -> None:
        # Capturing records the kernels and runs none, so a failure leaves weights and moments as they were.
        self._optimizer.zero_grad(set_to_none=True)
        torch.cuda.synchronize(self._device)
        graph = torch.cuda.CUDAGraph()
        try:
            graph.register_generator_state(self._generator)
            with torch.cuda.graph(graph):
                self._update()
        except Exception as error:  # whatever the reason, the step may not be capturable
            restart_without_graph(self.options.name, error)
        self._graph, self._mode = graph, "cuda graph"

    def _update(self) -> None:
        self._optimizer.zero_grad(set_to_none=True)
        with autocast(self._device, self.options.bf16):
            loss = self._loss(self.modules, self._generator)
        loss.backward()
        nn.utils.clip_grad_norm_(self._parameters, GRADIENT_NORM)
        self._optimizer.step()
        with torch.no_grad():
            change = torch._foreach_sub(self._live, self._average)
            torch._foreach_mul_(change, self._rate)
            torch._foreach_add_(self._average, change)
            self._loss_sum.add_(loss.detach())

    def _log(self, evaluate: bool) -> None:
        self._last_loss = self._loss_sum.item() / (self._step - self._logged_step)
        self._loss_sum.zero_()
        self._logged_step = self._step
        if not math.isfinite(self._last_loss):
            raise SystemExit(f"{self.options.name}: loss is {self._last_loss} at step {self._step}; lower the rate")
        row = {
            "stage": self.options.name,
            "step": self._step,
            "loss": self._last_loss,
            "learning_rate": self._learning_rate.item(),
            "seconds": round(self._seconds, 2),
        }
        if evaluate or self._step % self.options.evaluate_every == 0:
            self._evaluation = self._evaluate(self.ema)
            row |= self._evaluation
            print(json.dumps(row), flush=True)
        with self._log_path.open("a") as log:
            log.write(json.dumps(row) + "\n")

    def _save(self, summary: dict[str, Any] | None) -> None:
        state = {
            "seed_state": self._generator.get_state(),
            "modules": self.modules.state_dict(),
            "ema": self.ema.state_dict(),
            "optimizer": self._optimizer.state_dict(),
            "loss_sum": self._loss_sum,
            "step": self._step,
            "logged_step": self._logged_step,
            "total": self._total,
            "seconds": self._seconds,
            "summary": summary,
        }
        save_atomically(state, self._checkpoint)

    def _resume(self) -> dict[str, Any] | None:
        """Restores the checkpoint if there is one; returns the summary if the stage was finished."""
        if not self._checkpoint.exists():
            self._forget_log_after(0)
            return None
        state = torch.load(self._checkpoint, map_location=self._device, weights_only=True)
        self.modules.load_state_dict(state["modules"])
        self.ema.load_state_dict(state["ema"])
        self._optimizer.load_state_dict(state["optimizer"])
        for group in self._optimizer.param_groups:  # loading put a copy there that nothing would update
            group["lr"] = self._learning_rate
        self._generator.set_state(state["seed_state"].cpu())
        self._loss_sum.copy_(state["loss_sum"])
        self._step, self._logged_step = state["step"], state["logged_step"]
        self._total, self._seconds = state["total"], state["seconds"]
        self._forget_log_after(self._step)
        if state["summary"] is None:
            print(f"{self.options.name}: resumed at step {self._step} of {self._total}", flush=True)
        return state["summary"]

    def _forget_log_after(self, step: int) -> None:
        if not self._log_path.exists():
            return
        rows = [json.loads(line) for line in self._log_path.read_text().splitlines()]
        kept = [row for row in rows if row["stage"] != self.options.name or row["step"] <= step]
        self._log_path.write_text("".join(json.dumps(row) + "\n" for row in kept))


def _floating_state(module: nn.Module) -> list[Tensor]:
    buffers = [b for b in module.buffers() if b.is_floating_point()]
    return [p.detach() for p in module.parameters()] + buffers


def train_output(args: argparse.Namespace, train: Callable[[argparse.Namespace, Path], None], last: str) -> None:
    """Trains the output folder unless it holds `last`, which is written last; `train` gets where its state lies, which a
    probe throws away."""
    if args.probe:
        with tempfile.TemporaryDirectory() as state:
            train(args, Path(state))
    elif (args.output / last).exists():
        print(f"{args.output}: already complete")
    else:
        train(args, args.output.with_name(args.output.name + ".state"))


def write_summary(path: Path, args: argparse.Namespace, device: torch.device, **values: Any) -> None:
    """Writes what is needed to train the same model again."""
    common = {
        # Where the folders lay says nothing about the model.
        "command": " ".join(Path(word).name if os.path.isabs(word) else word for word in sys.argv),
        "device": device_name(device),
        "flags": {name: value for name, value in vars(args).items() if not isinstance(value, Path)},
        "seed": args.seed,
        "torch": torch.__version__,
    }
    path.write_text(to_json(common | values))
