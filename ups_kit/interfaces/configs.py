"""Config classes: one frozen attrs class per component; its fields are the recipe's keys, its docstring the help.

A config module imports no torch; `build` imports the implementation. A config may also have
    check(self, fields: FieldSpec, latent: LatentSpec) -> Iterable[tuple[str, str]]
which yields (key, what is wrong) for everything that does not fit the data, before anything is built.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypedDict, runtime_checkable

import attrs

if TYPE_CHECKING:
    import torch
    from torch import nn

    from ..data.normalisation import Normaliser
    from ..data.tree import FileTree
    from ..recipe import Recipe
    from .data import GridFile, ParticleFile, Simulator
    from .descriptions import FieldSpec, LatentSpec
    from .parts import Constraint, Decoder, Encoder, Metric, Operator, Sampler, Schedule, Stage, Tracker


KINDS = (
    "dataset",
    "simulator",
    "encoder",
    "operator",
    "decoder",
    "model",
    "constraint",
    "loss",
    "sampler",
    "stage",
    "metric",
    "tracker",
    "optimizer",
    "schedule",
)

FIELDS = "fields"  # the family of all that is made for fields in space, and of what does not say its family


def family_of(config: object) -> str:
    """The family of models that a component is made for: what its class says as `family: ClassVar[str]`.

    `config` is an object or its class. A recipe's parts are of one family; trackers, optimisers and schedules serve
    any.
    """
    cls = config if isinstance(config, type) else type(config)
    keys = attrs.fields_dict(cls) if attrs.has(cls) else {}
    return FIELDS if "family" in keys else str(getattr(cls, "family", FIELDS))  # a key of that name says nothing


class Described(Protocol):
    """What the data of a family of its own are: what `ModelConfig.build` sizes a model from."""

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON: what `ModelConfig.read_description` reads."""
        ...

    def lines(self) -> Iterable[str]:
        """The same for people, a few lines: `upskit validate --data`."""
        ...


@runtime_checkable
class Checks(Protocol):
    """A config that can say, before anything is built, what does not fit the data."""

    def check(self, fields: FieldSpec, latent: LatentSpec) -> Iterable[tuple[str, str]]: ...


@runtime_checkable
class ChecksDescription(Protocol):
    """The same for a model of a family of its own, its data set and its stages."""

    def check_data(self, data: Any) -> Iterable[tuple[str, str]]:
        """(key, what is wrong) for everything that does not fit the data as `describe` gives them."""
        ...


@runtime_checkable
class OrderChecks(Protocol):
    """A stage's config that can say what is wrong with the stages before it. `fields` are the data, where known."""

    def check_order(
        self, earlier: Sequence[StageConfig], fields: FieldSpec | None = None
    ) -> Iterable[tuple[str, str]]: ...


@runtime_checkable
class TakesLatents(Protocol):
    """A training stage's config that can do with cached latents, where it keeps the encoder as it is."""

    @property
    def keeps_encoder(self) -> bool: ...


@runtime_checkable
class AddsPart(Protocol):
    """A training stage's config that adds a part to the model, which the model keeps under the stage's name."""

    def build_part(self, recipe: Recipe, fields: FieldSpec) -> nn.Module | None:
        """The part with fresh weights on the CPU; None where such data need none. `recipe` is the whole of it."""
        ...


@runtime_checkable
class GivesWeights(Protocol):
    """The config of a sampler whose points count unequally: one that builds a `WeighsPoints`.

    `remembers_places`: whether it draws by what it has seen where in the domain, which shifted samples would blur.
    """

    @property
    def gives_weights(self) -> bool: ...

    @property
    def remembers_places(self) -> bool: ...


@runtime_checkable
class TakesWeights(Protocol):
    """A loss, and its config, that counts points as `Decoded.weights` says.

    It is then a sum of weight · value over points, or linear in such sums: a square or a root of one would be biased.
    """

    @property
    def takes_weights(self) -> bool: ...


LatentForm = Literal["lattice", "scattered", "pooled"]  # tokens on a lattice, at places of their own, without a place


@runtime_checkable
class GivesLatents(Protocol):
    """An encoder's config that can say how its tokens stand."""

    def form(self, latent: LatentSpec) -> LatentForm: ...


@runtime_checkable
class TakesForms(Protocol):
    """The config of an operator or a decoder that does not take tokens however they stand."""

    @property
    def forms(self) -> tuple[LatentForm, ...]: ...


def heads_problems(heads: int, width: int, name: str = "latent.width") -> Iterable[tuple[str, str]]:
    """What is wrong with a number of attention heads for tokens of this width, as `check` yields it.

    `name` is the key of the width.
    """
    if width % 2:  # no number of heads would do
        near = 2 * heads * max(1, round(width / (2 * heads)))
        yield "heads", f"{heads} heads do not cut {name} = {width} into even parts; nearest: {name} = {near}"
    elif width % heads or (width // heads) % 2:
        fitting = [count for count in range(1, width // 2 + 1) if width % count == 0 and (width // count) % 2 == 0]
        near = min(fitting, key=lambda count: abs(count - heads), default=1)
        yield "heads", f"{heads} heads do not cut {name} = {width} into even parts; nearest: heads = {near}"


class DatasetConfig(Protocol):
    """Data of fields in space. Of another family `describe` gives a `Described`, and `build` a `DescribedDataset`."""

    def describe(self) -> Any:
        """What the data are, a FieldSpec, from headers alone; raises DataError."""
        ...

    def build(self, seed: int) -> Any:
        """The `Dataset`, with whatever is drawn in its splits drawn by seed."""
        ...


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


@runtime_checkable
class OpensGrids(Protocol):
    """The config of a dataset of trajectories on regular grids: for `upskit data convert`, from and to its layout."""

    def open_grid(self, path: Path) -> GridFile:
        """One file, its headers read and checked. Raises DataError."""
        ...


@runtime_checkable
class OpensParticles(Protocol):
    """The config of a dataset of particles: for `upskit data convert`, from and to its layout."""

    def open_particles(self, path: Path) -> ParticleFile:
        """One file, folder or store, its headers read and checked. Raises DataError."""
        ...


class SimulatorConfig(Protocol):
    def describe(self) -> Any:
        """What the file will hold: a FieldSpec, of another family a `Described`."""
        ...

    def build(self) -> Simulator: ...


@runtime_checkable
class NamesEndings(Protocol):
    """A simulator's config that says how its files are named; others are grids in HDF5, or points in Zarr stores."""

    @property
    def endings(self) -> tuple[str, ...]:
        """The endings that a file of it may have, ".h5", the usual one first."""
        ...


class EncoderConfig(Protocol):
    def build(self, fields: FieldSpec, latent: LatentSpec) -> Encoder: ...


class OperatorConfig(Protocol):
    def build(self, fields: FieldSpec, latent: LatentSpec) -> Operator: ...


class DecoderConfig(Protocol):
    def build(self, fields: FieldSpec, latent: LatentSpec) -> Decoder: ...


class ModelConfig(Protocol):
    """A whole model in one component, in the place of encoder, operator and decoder.

    For families that are not models of fields in space. Its class says which: `family: ClassVar[str]`; the data set,
    the losses and the stages that go with it say the same.
    """

    def read_description(self, values: Mapping[str, Any]) -> Described:
        """What a data set's `describe` gave, from its `to_dict`: for saved models. Raises ValueError."""
        ...

    def build(self, data: Any) -> nn.Module:
        """The model with fresh weights on the CPU, for data as the data set of its family describes them."""
        ...


class ConstraintConfig(Protocol):
    """`constrains` names the target fields that it acts on: no two constraints of one class act on the same."""

    @property
    def name(self) -> str: ...

    @property
    def constrains(self) -> tuple[str, ...]: ...

    def build(self, fields: FieldSpec, normaliser: Normaliser) -> Constraint: ...


class LossConfig(Protocol):
    """Loss configs also carry their weighting: see `ups_kit.weighting.Weighted`."""

    def build(self, fields: Any) -> Any:
        """The `Loss` for fields of this `FieldSpec`; of another family what its stages call with their own outputs."""
        ...


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
    "model": ModelConfig,
    "constraint": ConstraintConfig,
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
    model: Mapping[str, type[ModelConfig]]
    constraint: Mapping[str, type[ConstraintConfig]]
    loss: Mapping[str, type[LossConfig]]
    sampler: Mapping[str, type[SamplerConfig]]
    stage: Mapping[str, type[StageConfig]]
    metric: Mapping[str, type[MetricConfig]]
    tracker: Mapping[str, type[TrackerConfig]]
    optimizer: Mapping[str, type[OptimizerConfig]]
    schedule: Mapping[str, type[ScheduleConfig]]
