"""A family of its own, as small as one can be: sequences of numbers, and a model that counts on."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
from attrs import field, frozen
from attrs.validators import gt
from torch import Tensor, nn

from ups_kit import Components, DataError, hookimpl
from ups_kit.assemble import ModelExperiment
from ups_kit.batching import to_device
from ups_kit.data.splits import Splits, content_hash
from ups_kit.data.stream import window_numbers
from ups_kit.fit.fitting import Task
from ups_kit.fit.forward import LossBundle, derived_seed
from ups_kit.fit.loop import fit
from ups_kit.fit.settings import FitSettings
from ups_kit.folder import StageFolder
from ups_kit.interfaces import LossConfig, Progress, SimulatorConfig
from ups_kit.trackers import Trackers
from ups_kit.weighting import Weighted


@frozen
class Counted:
    """How long the sequences are."""

    length: int

    def to_dict(self) -> dict[str, Any]:
        return {"length": self.length}

    def lines(self) -> Iterable[str]:
        yield f"  sequences   of {self.length} numbers"


class Sequences(NamedTuple):
    values: Tensor  # (B, L + 1)

    @property
    def samples(self) -> int:
        return len(self.values)

    def part(self, part: slice) -> Sequences:
        return Sequences(self.values[part])


@frozen(kw_only=True)
class CountsConfig:
    """Sequences that go on by a constant."""

    family: ClassVar[str] = "counting"
    count: int = field(default=40, validator=gt(0), metadata={"help": "sequences"})
    length: int = field(default=4, validator=gt(0), metadata={"help": "numbers that are given"})
    simulate: SimulatorConfig | None = field(default=None, metadata={"help": "none, which is of no family"})

    def describe(self) -> Counted:
        if self.length > 100:
            raise DataError(f"no sequence has {self.length} numbers", "length")
        return Counted(self.length)

    def build(self, seed: int) -> Counts:
        return Counts(self, seed)


class Counts:
    def __init__(self, config: CountsConfig, seed: int) -> None:
        draw = np.random.default_rng(seed)
        start, step = draw.normal(size=(2, config.count, 1))
        self.values = torch.tensor(start + step * np.arange(config.length + 1), dtype=torch.float32)
        hashes = {number: content_hash(row.numpy()) for number, row in enumerate(self.values)}
        held = config.count // 4
        ids = {"train": tuple(range(held, config.count)), "validation": tuple(range(held))}
        self.splits = Splits(ids, hashes)
        self.description = Counted(config.length)

    def of(self, split: str, numbers: np.ndarray | None = None) -> Sequences:
        ids = np.array(self.splits[split])
        return Sequences(self.values[ids if numbers is None else ids[numbers]])


@frozen(kw_only=True)
class LineConfig:
    """The next number as a linear function of those before it."""

    family: ClassVar[str] = "counting"
    bias: bool = field(default=True, metadata={"help": "add a constant"})

    def read_description(self, values: Mapping[str, Any]) -> Counted:
        return Counted(int(values["length"]))

    def check_data(self, data: Counted) -> Iterable[tuple[str, str]]:
        if data.length < 2:
            yield "", f"a line takes two numbers, and sequences have {data.length}"

    def build(self, data: Counted) -> nn.Module:
        return nn.Linear(data.length, 1, bias=self.bias)


@frozen(kw_only=True)
class NextConfig(Weighted):
    """The mean squared error of the next number."""

    family: ClassVar[str] = "counting"

    def build(self, data: Counted) -> Any:
        return lambda model, batch: (model(batch.values[:, :-1])[:, 0] - batch.values[:, -1]).square().mean()


@frozen(kw_only=True)
class CountingConfig(FitSettings):
    """Trains on the next number."""

    family: ClassVar[str] = "counting"
    name: str = field(default="counting", metadata={"help": "its name"})
    losses: Mapping[str, LossConfig] = field(metadata={"help": "losses"})

    def build(self) -> Counting:
        return Counting(self)


@frozen
class Windows:
    dataset: Counts
    batch: int
    seed: int
    device: torch.device

    @property
    def windows(self) -> int:
        return len(self.dataset.splits["train"])

    def numbers(self, step: int) -> np.ndarray:
        return window_numbers(self.windows, self.batch, self.seed, step)

    @contextmanager
    def stream(self, first: int) -> Iterator[Iterator[Sequences]]:
        steps = iter(range(first, 10**9))
        yield (to_device(self.dataset.of("train", self.numbers(step)), self.device) for step in steps)


@frozen
class Counting:
    config: CountingConfig

    def run(self, experiment: ModelExperiment, folder: StageFolder, trackers: Trackers) -> Mapping[str, Any]:
        with self.task(experiment) as task:
            return fit(task, folder, trackers)

    @contextmanager
    def task(self, experiment: ModelExperiment) -> Iterator[Task]:
        model, data, run = experiment.model, experiment.dataset, experiment.recipe.run
        losses = {name: config.build(experiment.dataset.description) for name, config in self.config.losses.items()}

        def loss(batch: Sequences, progress: Progress, generator: torch.Generator) -> LossBundle:
            terms = {name: each(model, batch) for name, each in losses.items()}
            return LossBundle(sum(terms.values()), {name: value.detach() for name, value in terms.items()})

        def validate(evaluated: nn.Module) -> Mapping[str, float]:
            (value,) = (each(evaluated, data.of("validation")) for each in losses.values())
            return {"score": float(value)}

        seed = derived_seed(run.seed, self.config.name)
        yield Task(
            stage=self.config.name,
            model=model,
            settings=self.config,
            run=run,
            device=experiment.device,
            source=Windows(data, self.config.batch, seed, experiment.device),
            loss=loss,
            validate=validate,
        )


@frozen(kw_only=True)
class ScoringConfig:
    """The error of the next number, beside that of taking the last one."""

    family: ClassVar[str] = "counting"
    name: str = field(default="scoring", metadata={"help": "its name"})
    scale: float = field(default=1.0, validator=gt(0), metadata={"help": "unit of the error"})

    def build(self) -> Scoring:
        return Scoring(self)


@frozen
class Scoring:
    config: ScoringConfig

    @torch.no_grad()
    def run(self, experiment: ModelExperiment, folder: StageFolder, trackers: Trackers) -> Mapping[str, Any]:
        values = experiment.dataset.of("validation").values
        error = float((experiment.model(values[:, :-1])[:, 0] - values[:, -1]).square().mean())
        floor = float((values[:, -2] - values[:, -1]).square().mean())
        metrics = {"error": math.sqrt(error) / self.config.scale}
        return {"status": "ok", "metrics": metrics, "floors": {"last": {"error": math.sqrt(floor)}}}


@hookimpl
def ups_kit_components() -> Components:
    return {
        "dataset": {"counts": CountsConfig},
        "model": {"line": LineConfig},
        "loss": {"next": NextConfig},
        "stage": {"counting": CountingConfig, "scoring": ScoringConfig},
    }
