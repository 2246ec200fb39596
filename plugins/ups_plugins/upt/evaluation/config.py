"""Recipe keys of the stage `evaluate`, and the metrics that a recipe can add to it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar, Literal

from attrs import field, frozen
from attrs.validators import deep_iterable, ge, gt, in_, optional

from ups_kit.fit.order import forecasts_alone, trained_by
from ups_kit.interfaces import Checks, FieldSpec, LatentSpec, Metric, MetricConfig, Stage, StageConfig

SERIES_FLOORS = ("persistence", "spatial_mean", "linear_autoregression", "encode_decode", "interpolation")
STEADY_FLOORS = ("train_mean", "spatial_mean", "nearest_sample", "linear_regression", "interpolation")
MOVING_FLOORS = ("constant_velocity", "at_rest", "spatial_mean", "encode_decode")
FLOORS = tuple(dict.fromkeys((*SERIES_FLOORS, *STEADY_FLOORS, *MOVING_FLOORS)))
GRID_FLOORS = ("linear_autoregression", "nearest_sample", "linear_regression")  # of points that are always the same


def possible_floors(fields: FieldSpec) -> tuple[str, ...]:
    """The floors that such data have."""
    if fields.moves_with is not None:
        return MOVING_FLOORS
    own = STEADY_FLOORS if fields.steady else SERIES_FLOORS
    return tuple(name for name in own if fields.grid is not None or name not in GRID_FLOORS)


def reference_floor(fields: FieldSpec) -> str:
    """The floor that a model of such data is held against first."""
    if fields.moves_with is not None:
        return "constant_velocity"
    return "train_mean" if fields.steady else "persistence"


@frozen(kw_only=True)
class EvaluateConfig:
    """What the model is worth on held-out trajectories, in physical units, beside its floors.

    One step from every frame, the rollout in latent space and the rollout that decodes and encodes again at every step,
    or the answer where the data are steady; floors such as persistence or the mean of the train answers; where the
    error comes from; what happens when the parameters or the static fields are shuffled; and which loss reaches which
    part of the model. A data set of several tasks is evaluated task by task. Writes `report.html`; its numbers go to
    `summary.json` and its pictures to the trackers.
    """

    tiny: ClassVar[Mapping[str, Any]] = {"pictures": False, "members": 2, "ensemble_trajectories": 2}

    name: str = field(default="evaluate", metadata={"help": "name of the stage, and of its folder"})
    split: str = field(
        default="test",
        validator=in_(("train", "validation", "test")),
        metadata={"help": "trajectories that are evaluated: train, validation or test"},
    )
    steps: int | None = field(
        default=None,
        validator=optional(gt(0)),
        metadata={"help": "steps rolled out; as many as the trajectories have where not given", "unit": "steps"},
    )
    trajectories: int | None = field(
        default=None,
        validator=optional(gt(0)),
        metadata={"help": "trajectories that are evaluated, spread evenly over the split; all where not given"},
    )
    batch: int = field(
        default=50, validator=gt(0), metadata={"help": "trajectories that are computed at a time, at most"}
    )
    seed: int = field(default=0, validator=ge(0), metadata={"help": "seed of the parameter shuffle"})
    require_beating: tuple[str, ...] | None = field(
        default=None,
        validator=optional(deep_iterable(in_(FLOORS))),  # type: ignore[arg-type]  # mypy: from the default alone
        metadata={
            "help": "floors whose rollout nRMSE the model's must be below, or the run ends `below_floor`; where not "
            "given, persistence for time series, constant_velocity where points move, train_mean for steady data"
        },
    )
    judged: Literal["latent", "reencoded"] = field(
        default="latent", metadata={"help": "the rollout that must be: in latent space, or re-encoded at every step"}
    )
    members: int = field(
        default=19,
        validator=ge(2),
        metadata={
            "help": "forecasts that stages which draw are asked for, of each trajectory; the 90 % interval is that "
            "between the least and the greatest of 19"
        },
    )
    ensemble_trajectories: int = field(
        default=20,
        validator=gt(0),
        metadata={"help": "trajectories that drawn forecasts are compared on, spread evenly over those evaluated"},
    )
    choose_trajectories: int = field(
        default=20,
        validator=ge(0),
        metadata={
            "help": "validation trajectories that decide whether drawn forecasts help and become the bundle's default; "
            "0: they do not"
        },
    )
    pictures: bool = field(default=True, metadata={"help": "draw pictures for the report and the trackers"})
    metrics: tuple[MetricConfig, ...] = field(default=(), metadata={"help": "metrics beside the standard ones"})

    def check(self, fields: FieldSpec, latent: LatentSpec) -> Iterator[tuple[str, str]]:
        """A floor that these data do not have cannot be required; metrics have checks of their own."""
        for place, metric in enumerate(self.metrics):
            if isinstance(metric, Checks):
                for key, message in metric.check(fields, latent):
                    yield f"metrics.{place}.{key}", message
        possible = possible_floors(fields)
        for name in self.require_beating or ():
            if name not in possible:
                yield "require_beating", f"'{name}' {_why_not(name, fields)}; possible here: {', '.join(possible)}"
        if fields.steady and self.steps not in (None, 1):
            yield "steps", f"steady data have one answer and no rollout, so no {self.steps} steps; leave the key out"

    def required(self, fields: FieldSpec) -> tuple[str, ...]:
        """The floors that must be beaten on such data."""
        if self.require_beating is not None:
            return self.require_beating
        return (reference_floor(fields),)

    def check_order(self, earlier: Sequence[StageConfig], fields: FieldSpec | None = None) -> Iterator[tuple[str, str]]:
        """Numbers of an encoder that was never trained are of no use to anyone."""
        if "encoder" not in trained_by(earlier, fields) and not forecasts_alone(earlier):
            yield "", f"no earlier stage trains the encoder; put a stage that does, with a budget, before '{self.name}'"

    def build(self) -> Stage:
        from .stage import Evaluation

        return Evaluation(self)


@frozen(kw_only=True)
class RmseConfig:
    """Root mean square error over points, in the field's unit."""

    def build(self, fields: FieldSpec) -> Metric:
        from ups_kit import metrics

        return lambda prediction, truth, fields: metrics.rmse(prediction, truth, range(truth.shape[1]))


@frozen(kw_only=True)
class NrmseConfig:
    """RMSE over the RMS of the truth, per sample, frame and channel (PDEBench)."""

    def build(self, fields: FieldSpec) -> Metric:
        from ups_kit import metrics

        return lambda prediction, truth, fields: metrics.nrmse(prediction, truth, range(truth.shape[1]))


@frozen(kw_only=True)
class VrmseConfig:
    """RMSE over the standard deviation of the truth in space, per sample, frame and channel (The Well)."""

    def build(self, fields: FieldSpec) -> Metric:
        from ups_kit import metrics

        return lambda prediction, truth, fields: metrics.vrmse(prediction, truth, range(truth.shape[1]))


@frozen(kw_only=True)
class MaxErrorConfig:
    """Largest absolute error over points, in the field's unit."""

    def build(self, fields: FieldSpec) -> Metric:
        from ups_kit import metrics

        return lambda prediction, truth, fields: metrics.max_error(prediction, truth, range(truth.shape[1]))


@frozen(kw_only=True)
class CrmseConfig:
    """Error of the conserved total per unit volume, in the field's unit."""

    def build(self, fields: FieldSpec) -> Metric:
        from ups_kit import metrics

        return lambda prediction, truth, fields: metrics.crmse(prediction, truth, range(truth.shape[1]))


@frozen(kw_only=True)
class BrmseConfig:
    """RMSE over the boundary points of a grid; on a periodic axis, the points on both sides of the seam."""

    def check(self, fields: FieldSpec, latent: LatentSpec) -> Iterator[tuple[str, str]]:
        """Boundary points are known on grids only."""
        yield from _grid_only(fields)

    def build(self, fields: FieldSpec) -> Metric:
        from ups_kit import metrics

        return lambda prediction, truth, fields: metrics.brmse(prediction, truth, range(truth.shape[1]), fields)


@frozen(kw_only=True)
class FrmseConfig:
    """Fourier error in the wave numbers from `first` to `last`, in the field's unit (PDEBench's formula)."""

    first: int = field(
        default=0, validator=ge(0), metadata={"help": "lowest wave number", "unit": "periods per domain"}
    )
    last: int | None = field(
        default=None,
        validator=optional(ge(0)),
        metadata={"help": "highest wave number; the grid's highest where not given", "unit": "periods per domain"},
    )

    def __attrs_post_init__(self) -> None:
        if self.last is not None and self.last < self.first:
            raise ValueError(f"last = {self.last} is below first = {self.first}")

    def check(self, fields: FieldSpec, latent: LatentSpec) -> Iterator[tuple[str, str]]:
        """Wave numbers are known on grids only."""
        yield from _grid_only(fields)

    def build(self, fields: FieldSpec) -> Metric:
        from ups_kit import metrics

        band = (self.first, self.last)
        return lambda prediction, truth, fields: metrics.band_error(
            prediction, truth, range(truth.shape[1]), fields, band
        )


def _why_not(name: str, fields: FieldSpec) -> str:
    if fields.moves_with is not None:
        return "is for points that stand still, and these move"
    if name in ("constant_velocity", "at_rest"):
        return "is for points that move, and these stand still"
    if name in GRID_FLOORS and fields.grid is None:
        return f"needs a regular grid, and the data are {fields.layout}"
    return "is for time series, and the data are steady" if fields.steady else "is for steady data, and these evolve"


def _grid_only(fields: FieldSpec) -> Iterator[tuple[str, str]]:
    if fields.grid is None:
        yield ("use", f"this metric needs a regular grid, and the data are {fields.layout}")
