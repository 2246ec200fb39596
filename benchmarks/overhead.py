"""Where the time of a training goes that is not the model's.

    python benchmarks/overhead.py [--steps 200] [--optimizer muon]

Trains the default recipe's sizes (Burgers, 256 points, 64 tokens of width 64, batch 32) on made data for some steps and
prints the CPU time of each part of a step as a share of forward and backward. What happens once (imports, building the
optimiser) is left out; the thread that reads ahead is counted by itself. Validations and checkpoints come every 250 and
500 steps, as by default, and at the end.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from attrs import frozen

from ups_kit.data.making import make
from ups_kit.fit import loop
from ups_kit.fit.settings import Budget
from ups_kit.folder import RunFolder
from ups_kit.interfaces import LatentSpec, OptimizerConfig
from ups_kit.model import LatentModel
from ups_kit.recipe import Run
from ups_kit.trackers import MetricsFile, Trackers
from ups_plugins.decoders.config import PartitionConfig
from ups_plugins.grid.config import GridEncoderConfig, PDEBenchConfig
from ups_plugins.operators.config import TransformerConfig
from ups_plugins.optim import AdamWConfig, CosineScheduleConfig, MuonConfig
from ups_plugins.simulators.config import Burgers1DConfig
from ups_plugins.trackers import TensorBoardConfig
from ups_plugins.upt.config import ForwardConfig, InverseEncodingConfig, LatentForwardConfig
from ups_plugins.upt.training import stages
from ups_plugins.upt.training.config import OperatorStageConfig

OPTIMIZERS: dict[str, OptimizerConfig] = {"adamw": AdamWConfig(), "muon": MuonConfig()}


class Stopwatch:
    """CPU seconds of the main thread by name; `loop` and `threads` between `start` and `stop`."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    def start(self) -> None:
        """The loop begins."""
        self._began = time.thread_time(), time.process_time()

    def stop(self) -> None:
        """The loop is over."""
        self.seconds["loop"] = time.thread_time() - self._began[0]
        self.seconds["threads"] = time.process_time() - self._began[1] - self.seconds["loop"]

    def around(self, name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        """The same call, timed."""

        def timed(*arguments: Any, **options: Any) -> Any:
            started = time.thread_time()
            try:
                return call(*arguments, **options)
            finally:
                self.seconds[name] = self.seconds.get(name, 0.0) + time.thread_time() - started

        return timed


@frozen
class TimedOptimizer:
    """An optimiser whose updates are timed."""

    config: OptimizerConfig
    watch: Stopwatch

    def build(self, model: torch.nn.Module) -> torch.optim.Optimizer:
        optimizer = self.config.build(model)
        optimizer.step = self.watch.around("optimizer", optimizer.step)  # type: ignore[method-assign]
        return optimizer


def experiment(folder: Path) -> Any:
    """Made data and an untrained model of the default recipe's sizes."""
    path = folder / "burgers.hdf5"
    make(path, Burgers1DConfig(trajectories=40, device="cpu", refinement=1))
    dataset = PDEBenchConfig(path=path, validation=5, test=5).build(seed=0)
    fields, latent = dataset.fields, LatentSpec(width=64)
    model = LatentModel(
        GridEncoderConfig().build(fields, latent),
        TransformerConfig().build(fields, latent),
        PartitionConfig().build(fields, latent),
        fields,
    )
    recipe = SimpleNamespace(run=Run(name="overhead"), stages=())
    return SimpleNamespace(dataset=dataset, model=model, device=torch.device("cpu"), recipe=recipe)


def measure(folder: Path, steps: int, optimizer: OptimizerConfig) -> dict[str, float]:
    """CPU seconds per step by part."""
    watch = Stopwatch()
    config = OperatorStageConfig(
        budget=Budget(steps=steps),
        optimizer=TimedOptimizer(optimizer, watch),
        schedule=CosineScheduleConfig(warmup=10),
        ema=0.999,
        validation_trajectories=50,
        losses={
            "forward": ForwardConfig(error="relative"),
            "inverse_encoding": InverseEncodingConfig(error="relative"),
            "latent_forward": LatentForwardConfig(weight=0.1),
        },
    )
    run = RunFolder(folder / "run")
    run.path.mkdir()
    trackers = Trackers([MetricsFile(run.metrics), TensorBoardConfig().build(run.path)])
    trackers.scalars("warm-up", 0, {"loss": 0.0})
    _put_watches(watch)
    config.build().run(experiment(folder), run.stage("operator"), trackers)
    trackers.close()
    return {name: seconds / steps for name, seconds in watch.seconds.items()}


def _put_watches(watch: Stopwatch) -> None:
    """Time the engine's own functions, in this process only."""
    plain_resume, plain_best, plain_task = loop.resume, loop.load_best, stages.Task

    def resume(*arguments: Any) -> str:
        found = plain_resume(*arguments)
        watch.start()
        return found

    def load_best(*arguments: Any) -> None:
        watch.stop()
        plain_best(*arguments)

    def timed_task(**keys: Any) -> Any:
        return plain_task(**(keys | {"loss": watch.around("forward", keys["loss"])}))

    torch.Tensor.backward = watch.around("backward", torch.Tensor.backward)  # type: ignore[method-assign]
    loop.save = watch.around("checkpoints", loop.save)
    loop.validate = watch.around("validation", loop.validate)
    loop.resume, loop.load_best, stages.Task = resume, load_best, timed_task  # type: ignore[misc, assignment]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--optimizer", choices=OPTIMIZERS, default="muon")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        found = measure(Path(name), arguments.steps, OPTIMIZERS[arguments.optimizer])
    model = found["forward"] + found["backward"]
    timed = ("forward", "backward", "optimizer", "checkpoints", "validation")
    rest = found["loop"] - sum(found[part] for part in timed)
    print(f"{arguments.steps} steps, {arguments.optimizer}, one thread for the model, CPU time")
    print(f"{'part':52} {'ms/step':>9} {'of forward + backward':>23}")
    for label, seconds in (
        ("forward and backward", model),
        ("optimiser's update", found["optimizer"]),
        ("seeding, clipping, guard, EMA, logs", rest),
        ("reading ahead, in a thread of its own", found["threads"]),
        ("the last two together", rest + found["threads"]),
        ("validation (in this run's share)", found["validation"]),
        ("checkpoints (in this run's share)", found["checkpoints"]),
    ):
        print(f"{label:52} {1000 * seconds:9.2f} {100 * seconds / model:21.1f} %")


if __name__ == "__main__":
    main()
