"""What crosses the border between the core and a plugin: the data, and one protocol per kind of component.

Shapes are written in a fixed order: (batch, points, channels), (batch, tokens, width), (batch, queries, space_dims).

| symbol | meaning |
| --- | --- |
| B | samples in a batch |
| N, Q | input points, query points |
| T, d | latent tokens, their width |
| D | space dimensions, 1 to 3 |
| C | channels of the target fields |
| P | conditions: the time step and the named parameters |
| K | future steps |

This module imports no torch when it runs, so that plugins can be listed and recipes checked in a fraction of a second.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol, TypedDict, runtime_checkable

from attrs import field, frozen
from attrs.validators import gt, optional

if TYPE_CHECKING:
    import numpy as np
    import torch
    from matplotlib.figure import Figure
    from numpy.typing import NDArray
    from torch import Tensor, nn

    from .assemble import Experiment
    from .data.normalisation import Normaliser
    from .data.splits import Splits
    from .data.tree import FileTree
    from .folder import StageFolder
    from .model import LatentModel
    from .trackers import Trackers

Layout = Literal["grid", "mesh", "particles"]

KINDS = (
    "dataset",
    "simulator",
    "encoder",
    "operator",
    "decoder",
    "loss",
    "sampler",
    "stage",
    "metric",
    "tracker",
    "optimizer",
    "schedule",
)


# ---------------------------------------------------------------------------------------------------------------------
# Descriptions: what the data are, and how large the latent space is
# ---------------------------------------------------------------------------------------------------------------------
@frozen
class Field:
    """One physical field: its name, its number of channels, and its unit."""

    name: str
    channels: int = 1
    unit: str = "1"


@frozen
class FieldSpec:
    """What the data are. It comes from the dataset, and everything downstream is sized from it.

    `targets` are the fields that evolve and are predicted; `statics` are given at every point and do not change.
    An encoder sees `history` frames of the targets, oldest first, and then the statics, as `input_channels` channels.
    With `history` 0 the data are steady: the targets follow from the statics and the conditions in one model step.
    `conditions` names the columns of a condition (B, P); the first is always "dt", the time between two model steps.
    `grid` is the number of points along each axis of a regular grid of cell centres or periodic nodes, else None;
    `offset` is where the first point lies in its cell, as a share of the spacing (0.5: cell centres, 0: nodes).
    `sampled` is at how many random points training reads the states (see `ReadsPoints`), None: at all of them.
    """

    targets: tuple[Field, ...]
    domain: tuple[tuple[float, float], ...]
    periodic: tuple[bool, ...]
    layout: Layout
    grid: tuple[int, ...] | None
    dt: float
    statics: tuple[Field, ...] = ()
    history: int = 1
    conditions: tuple[str, ...] = ("dt",)
    offset: float = 0.5
    sampled: int | None = None

    @property
    def space_dims(self) -> int:
        """Number of space dimensions D."""
        return len(self.domain)

    @property
    def target_channels(self) -> int:
        """Number of predicted channels C."""
        return sum(field.channels for field in self.targets)

    @property
    def input_channels(self) -> int:
        """Number of channels that an encoder sees."""
        return self.history * self.target_channels + sum(field.channels for field in self.statics)

    @property
    def steady(self) -> bool:
        """Whether the targets are no time series, but one answer to the statics."""
        return self.history == 0

    @property
    def points(self) -> int | None:
        """Number of points of the grid, or None where it differs between samples."""
        return math.prod(self.grid) if self.grid is not None else None

    @property
    def extent(self) -> tuple[float, ...]:
        """Length of the domain along each axis."""
        return tuple(high - low for low, high in self.domain)


@frozen
class LatentSpec:
    """How large the latent space is: the width d of a token, and the number of tokens where the recipe fixes it."""

    width: int = field(validator=gt(0), metadata={"help": "width of a latent token", "example": "64"})
    tokens: int | None = field(
        default=None,
        validator=optional(gt(0)),
        metadata={"help": "number of latent tokens, where the encoder does not set it"},
    )


# ---------------------------------------------------------------------------------------------------------------------
# Values: what flows through a model. Named tuples, so that torch's tree functions and compiler see through them.
# ---------------------------------------------------------------------------------------------------------------------
class PointSet(NamedTuple):
    """Fields at points: a grid, a mesh or particles."""

    positions: Tensor  # (B, N, D), in the domain's own unit of length
    values: Tensor  # (B, N, input channels), normalised
    mask: Tensor | None = None  # (B, N), true where a point is real and not padding
    grid: tuple[int, ...] | None = None  # the grid's shape; points are then in row-major order
    neighbours: Tensor | None = None  # (B, S, K) indices of points, or None


class Queries(NamedTuple):
    """Where a decoder is asked. With `grid` set, the positions are all points of that regular grid, in order."""

    positions: Tensor  # (B, Q, D)
    grid: tuple[int, ...] | None = None


class Latent(NamedTuple):
    """Latent tokens and where they stand."""

    tokens: Tensor  # (B, T, d)
    anchors: Tensor | None  # (T, D) or (B, T, D), or None for tokens without a place
    grid: tuple[int, ...] | None = None  # the shape of the lattice of anchors, row-major, if they form one


class Batch(NamedTuple):
    """Windows of trajectories, normalised: what goes in at time t, and the target fields at t, t+1 … t+K.

    Steady data have K = 1: states[:, 1] is the answer, and states[:, 0] is zero and means nothing.
    """

    inputs: PointSet  # at t
    states: Tensor  # (B, 1 + K, N, C); states[:, 0] is u_t, states[:, k] is u_{t+k}
    positions: Tensor  # (B, N, D), of the states
    grid: tuple[int, ...] | None  # of the states; None where only some points of a grid were read
    condition: Tensor  # (B, P), normalised, columns as FieldSpec.conditions
    ids: Tensor  # (B,), the trajectory of each sample
    times: Tensor  # (B,), t in physical units
    latents: tuple[Latent, ...] | None = None  # cached latents of t, t+1 … t+K, where there are any
    channels: tuple[int, ...] | None = None  # the target channels that these data have; None: all (see `Multitask`)


class Trajectories(NamedTuple):
    """Whole trajectories in physical units, for evaluation."""

    values: Tensor  # (S, frames, N, C)
    statics: Tensor  # (S, N, static channels)
    positions: Tensor  # (N, D)
    parameters: Tensor  # (S, P), physical, columns as FieldSpec.conditions
    times: Tensor  # (frames,)
    ids: Tensor  # (S,)


class Progress(NamedTuple):
    """How far a stage has come."""

    step: int  # optimiser steps done
    epoch: float  # passes over the training windows, fractional
    fraction: float  # share of the stage's budget that is spent, 0 to 1


# ---------------------------------------------------------------------------------------------------------------------
# Built parts: what `build` returns
# ---------------------------------------------------------------------------------------------------------------------
class Encoder(Protocol):
    """Points to tokens: `forward(points) -> Latent`. A torch module."""

    def __call__(self, points: PointSet) -> Latent: ...


class Operator(Protocol):
    """One latent step: `forward(latent, condition) -> Latent`. A torch module."""

    def __call__(self, latent: Latent, condition: Tensor) -> Latent: ...


class Decoder(Protocol):
    """Fields at any points: `forward(latent, queries) -> (B, Q, C)`, normalised. A torch module."""

    def __call__(self, latent: Latent, queries: Queries) -> Tensor: ...


class Example(NamedTuple):
    """Latents, and the fields that a decoder shall give for them."""

    latent: Latent
    queries: Queries
    values: Tensor  # (B, Q, C) at the queries, normalised
    channels: tuple[int, ...] | None = None  # the model's channel of each of them; None: all, in their order


@runtime_checkable
class Calibrates(Protocol):
    """A decoder that can be fitted to fresh latents in closed form, before it is trained."""

    def calibrate(self, examples: Sequence[Example]) -> None:
        """Bring the decoder close to all examples; a channel that is in none of them is left as it is."""
        ...


class Sampler(Protocol):
    """Draws query points. Returns indices (B, Q), distinct within a sample, or None for all points in their order.

    `positions` is (B, N, D), `grid` its shape where it is one. The draw is a pure function of its arguments and of
    the generator's state.
    """

    def __call__(
        self, positions: Tensor, grid: tuple[int, ...] | None, progress: Progress, generator: torch.Generator
    ) -> Tensor | None: ...


@frozen
class Needs:
    """What a loss asks of the stage's forward pass, so that work shared between losses is done once.

    `steps`: latent steps to take from E(u_t). `decodes`: the steps whose latents are decoded, 0 being E(u_t) itself.
    `encodes`: the future frames t+k that are encoded without gradient. `dense`: decode at every point, whatever the
    loss's sampler says. `share`: decode only for this share of the batch's samples, the first ones.
    """

    steps: int = 0
    decodes: tuple[int, ...] = ()
    encodes: tuple[int, ...] = ()
    dense: bool = False
    share: float = 1.0


class Decoded(NamedTuple):
    """A decoded latent beside the truth, at the same points."""

    values: Tensor  # (B, Q, C)
    truth: Tensor  # (B, Q, C)
    queries: Queries


class ForwardPass(Protocol):
    """One forward pass of a model over a batch, as a loss sees it. Everything is computed once and kept."""

    @property
    def batch(self) -> Batch: ...

    @property
    def progress(self) -> Progress: ...

    def latent(self, step: int) -> Latent:
        """A^step(E(u_t)), with gradient."""
        ...

    def encoded(self, step: int) -> Latent:
        """E(u_{t+step}), without gradient."""
        ...

    def decoded(self, step: int) -> Decoded:
        """The decoded latent of a step at the asking loss's own points."""
        ...

    def reencode(self, values: Tensor, step: int) -> Latent:
        """E of decoded values (B, N, C) at all points, put in the place of the newest frame u_{t+step}.

        With fewer samples than the batch has, the values are those of its first samples.
        """
        ...


class Loss(Protocol):
    """A scalar with gradient from one forward pass.

    `reaches` names the modules ("encoder", "operator", "decoder") that its gradient must reach, which the evaluation
    audits.
    `horizon` is the number of future frames K that it needs in a batch, at most.
    """

    reaches: tuple[str, ...]
    sampler: Sampler | None
    horizon: int

    def needs(self, progress: Progress) -> Needs | None:
        """What the loss asks for now; None while it does not apply, as before a curriculum begins."""
        ...

    def __call__(self, forward: ForwardPass) -> Tensor: ...


@runtime_checkable
class ComparesLatents(Protocol):
    """A loss that can say that it never looks at fields, so that with cached latents none are read for it."""

    @property
    def latents_only(self) -> bool: ...


class Dataset(Protocol):
    """Trajectories, split and normalised. Reading is by batch, and any number of readers may read at once."""

    @property
    def fields(self) -> FieldSpec: ...

    @property
    def normaliser(self) -> Normaliser: ...

    @property
    def splits(self) -> Splits: ...

    def windows(self, split: str, steps: int) -> int:
        """How many windows of `history` given and `steps` future frames a split holds."""
        ...

    def batch(self, split: str, windows: np.ndarray, steps: int) -> Batch:
        """The windows with these numbers, normalised, in CPU memory."""
        ...

    def trajectories(self, split: str, limit: int | None = None) -> Trajectories:
        """All trajectories of a split in physical units, at the model's time stride.

        With `limit` only so many of them, spread evenly over the split (`data.splits.evenly`).
        """
        ...


@runtime_checkable
class ReadsPoints(Protocol):
    """A dataset that can read train windows at some points of each sample only: as many as `fields.sampled`."""

    def batch_at_points(self, split: str, windows: np.ndarray, steps: int, seed: int) -> Batch:
        """As `batch`, with whole inputs, and states at points drawn by seed; its `grid` is None then."""
        ...


@runtime_checkable
class Multitask(Protocol):
    """A dataset of several tasks, whose fields are the union of theirs. Every batch is of one task.

    A task's dataset has its own fields, grid and normalisation; its conditions are normalised as the whole's are.
    """

    @property
    def tasks(self) -> Mapping[str, Dataset]: ...

    def seen_by(self, task: str, model: LatentModel) -> LatentModel:
        """The model as one of this task alone: it takes the task's channels and conditions, and gives its channels."""
        ...


@runtime_checkable
class ListsParameters(Protocol):
    """A dataset that knows the conditions of its trajectories without reading those."""

    def parameters(self, split: str) -> np.ndarray:
        """(S, P), physical, float64, columns as FieldSpec.conditions, in the order of the split's ids."""
        ...


@runtime_checkable
class Identified(Protocol):
    """A dataset that can say which files it reads: what is kept of its content is made anew when they change."""

    @property
    def fingerprint(self) -> str:
        """A hash of the files' sizes and dates, or of their content."""
        ...


@runtime_checkable
class DrawsWindows(Protocol):
    """A dataset that chooses the windows of a step itself; others get `data.stream.window_numbers`."""

    def draw(self, split: str, steps: int, batch: int, seed: int, step: int) -> np.ndarray:
        """Numbers of windows (batch,), a pure function of its arguments."""
        ...


class Simulator(Protocol):
    """Solves an equation for many trajectories, part by part, and knows the public layout that they are stored in.

    A part is a pure function of the config and of which trajectories it holds, so that a making that was stopped goes
    on with the parts that are there. Files, atomicity and progress are the caller's (`data.making`).
    """

    @property
    def trajectories(self) -> int: ...

    @property
    def part(self) -> int:
        """How many trajectories are solved together, and kept as one part."""
        ...

    @property
    def bytes(self) -> int:
        """The size of the finished file, roughly: there is a look at the free space before it is written."""
        ...

    def solve(self, start: int, stop: int, report: Callable[[float], None]) -> Mapping[str, np.ndarray]:
        """Trajectories start … stop - 1 as named arrays, their first axis counting trajectories; `report(share)`."""
        ...

    def write(self, path: Path, parts: Iterable[Mapping[str, np.ndarray]]) -> None:
        """Write the file at `path` from all parts in their order."""
        ...


@runtime_checkable
class AuditsPhysics(Protocol):
    """A simulator that can tell how well trajectories keep to its equation: for `upskit data check`."""

    @property
    def tolerances(self) -> Mapping[str, float]:
        """By name of a number of `audit`, what it stays below in sound data."""
        ...

    def audit(
        self, values: np.ndarray, times: np.ndarray, parameters: Mapping[str, np.ndarray]
    ) -> Mapping[str, np.ndarray]:
        """Numbers of every trajectory, (S,) each, such as "residual" and "mass drift", relative and without unit.

        `values` is (S, frames, *grid, channels) in physical units, targets first and then statics; `parameters` holds
        a number of every trajectory, (S,), by name.
        """
        ...


class Stage(Protocol):
    """One stage of a run: reads what came before it, trains or measures, writes its own folder."""

    def run(self, experiment: Experiment, folder: StageFolder, trackers: Trackers) -> Mapping[str, Any]:
        """Do the work and return what the run's summary shall hold of it."""
        ...


class Metric(Protocol):
    """A number from predictions and truths in physical units, (S, frames, N, C) each."""

    def __call__(self, prediction: Tensor, truth: Tensor, fields: FieldSpec) -> Tensor:
        """The metric of every sample and frame, (S, frames), averaged over channels."""
        ...


class Tracker(Protocol):
    """Where numbers and pictures of a run go. It may fail: the run warns once and goes on without it."""

    def scalars(self, stage: str, step: int, values: Mapping[str, float]) -> None: ...

    def figure(self, stage: str, step: int, name: str, figure: Figure) -> None: ...

    def close(self) -> None: ...


class Schedule(Protocol):
    """Learning-rate factor over a stage."""

    def factor(self, progress: Progress) -> float:
        """What the base learning rate is multiplied with."""
        ...

    def observe(self, validation: float) -> None:
        """Take note of a validation score (lower is better)."""
        ...

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: dict[str, Any]) -> None: ...


# ---------------------------------------------------------------------------------------------------------------------
# Config classes: one frozen attrs class per component; its fields are the recipe's keys, its docstring the help.
# A config module imports no torch; `build` imports the implementation.
#
# A config may also have
#     check(self, fields: FieldSpec, latent: LatentSpec) -> Iterable[tuple[str, str]]
# which yields (key, what is wrong) for everything that does not fit the data, before anything is built.
# ---------------------------------------------------------------------------------------------------------------------
@runtime_checkable
class Checks(Protocol):
    """A config that can say, before anything is built, what does not fit the data."""

    def check(self, fields: FieldSpec, latent: LatentSpec) -> Iterable[tuple[str, str]]: ...


@runtime_checkable
class OrderChecks(Protocol):
    """A stage's config that can say what is wrong with the stages before it."""

    def check_order(self, earlier: Sequence[StageConfig]) -> Iterable[tuple[str, str]]: ...


@runtime_checkable
class TakesLatents(Protocol):
    """A training stage's config that can do with cached latents, where it keeps the encoder as it is."""

    @property
    def keeps_encoder(self) -> bool: ...


def heads_problems(heads: int, width: int) -> Iterable[tuple[str, str]]:
    """What is wrong with a number of attention heads for tokens of this width, as `check` yields it."""
    if width % heads or (width // heads) % 2:
        fitting = [count for count in range(1, width // 2 + 1) if width % count == 0 and (width // count) % 2 == 0]
        near = min(fitting, key=lambda count: abs(count - heads), default=1)
        yield "heads", f"{heads} heads do not cut latent.width = {width} into even parts; nearest: heads = {near}"


class DatasetConfig(Protocol):
    def describe(self) -> FieldSpec:
        """What the data are, from headers alone; raises DataError."""
        ...

    def build(self, seed: int) -> Dataset: ...


@runtime_checkable
class DescribesTasks(Protocol):
    """The config of a dataset of several tasks: what is checked against the data is checked against each of them."""

    def describe_tasks(self) -> Mapping[str, FieldSpec]:
        """Each task as the model sees it: the fields of the whole, on the task's own grid. Raises DataError."""
        ...


@runtime_checkable
class Recognises(Protocol):
    """A dataset's config class that knows its layout when it sees it: for `upskit data inspect`."""

    @classmethod
    def recognise(cls, tree: FileTree) -> Mapping[str, Any] | None:
        """The keys of the recipe table that reads such a file (without `use` and `path`), or None if it is not one."""
        ...


class GridHeader(Protocol):
    """What a file of trajectories on a regular grid holds beside its values."""

    @property
    def trajectories(self) -> int: ...

    @property
    def times(self) -> NDArray[np.float64]:
        """(frames,), one entry where the data are steady."""
        ...

    @property
    def axes(self) -> tuple[NDArray[np.float64], ...]:
        """Coordinates along each axis, in the order of the fields' axes."""
        ...

    @property
    def targets(self) -> tuple[Field, ...]: ...

    @property
    def statics(self) -> tuple[Field, ...]: ...

    @property
    def parameters(self) -> Mapping[str, NDArray[np.float64]]:
        """(trajectories,) each."""
        ...

    @property
    def attributes(self) -> Mapping[str, NDArray[np.float64]]:
        """(trajectories,) each: numbers that are parameters where a recipe names them."""
        ...

    @property
    def steady(self) -> bool: ...

    @property
    def periodic(self) -> tuple[bool, ...] | None: ...


class GridFile(Protocol):
    """One file of trajectories on a regular grid, as it is stored: no stride, no normalisation, float32."""

    @property
    def header(self) -> GridHeader: ...

    def rows(self, name: str, samples: slice, frames: slice) -> NDArray[np.float32]:
        """A target field of slices of trajectories and frames, (S, F, *grid, channels)."""
        ...

    def static(self, name: str, samples: slice) -> NDArray[np.float32]:
        """A static field, (S, *grid, channels)."""
        ...


@runtime_checkable
class OpensGrids(Protocol):
    """The config of a dataset of trajectories on regular grids: for `upskit data convert`, from and to its layout."""

    def open_grid(self, path: Path) -> GridFile:
        """One file, its headers read and checked. Raises DataError."""
        ...


class SimulatorConfig(Protocol):
    def describe(self) -> FieldSpec:
        """What the file will hold."""
        ...

    def build(self) -> Simulator: ...


class EncoderConfig(Protocol):
    def build(self, fields: FieldSpec, latent: LatentSpec) -> Encoder: ...


class OperatorConfig(Protocol):
    def build(self, fields: FieldSpec, latent: LatentSpec) -> Operator: ...


class DecoderConfig(Protocol):
    def build(self, fields: FieldSpec, latent: LatentSpec) -> Decoder: ...


class LossConfig(Protocol):
    """Loss configs also carry their weighting: see `ups_kit.weighting.Weighted`."""

    def build(self, fields: FieldSpec) -> Loss: ...


class SamplerConfig(Protocol):
    def build(self, fields: FieldSpec) -> Sampler: ...


class StageConfig(Protocol):
    @property
    def name(self) -> str: ...

    def build(self) -> Stage: ...


class MetricConfig(Protocol):
    def build(self, fields: FieldSpec) -> Metric: ...


class TrackerConfig(Protocol):
    def build(self, folder: Path) -> Tracker: ...


class OptimizerConfig(Protocol):
    def build(self, model: nn.Module) -> torch.optim.Optimizer: ...


class ScheduleConfig(Protocol):
    def build(self) -> Schedule: ...


CONFIG_PROTOCOLS: Mapping[str, type] = {
    "dataset": DatasetConfig,
    "simulator": SimulatorConfig,
    "encoder": EncoderConfig,
    "operator": OperatorConfig,
    "decoder": DecoderConfig,
    "loss": LossConfig,
    "sampler": SamplerConfig,
    "stage": StageConfig,
    "metric": MetricConfig,
    "tracker": TrackerConfig,
    "optimizer": OptimizerConfig,
    "schedule": ScheduleConfig,
}


class Components(TypedDict, total=False):
    """What a plugin offers: for each kind, its config classes by recipe name."""

    dataset: Mapping[str, type[DatasetConfig]]
    simulator: Mapping[str, type[SimulatorConfig]]
    encoder: Mapping[str, type[EncoderConfig]]
    operator: Mapping[str, type[OperatorConfig]]
    decoder: Mapping[str, type[DecoderConfig]]
    loss: Mapping[str, type[LossConfig]]
    sampler: Mapping[str, type[SamplerConfig]]
    stage: Mapping[str, type[StageConfig]]
    metric: Mapping[str, type[MetricConfig]]
    tracker: Mapping[str, type[TrackerConfig]]
    optimizer: Mapping[str, type[OptimizerConfig]]
    schedule: Mapping[str, type[ScheduleConfig]]
