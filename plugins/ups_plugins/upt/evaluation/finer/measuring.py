"""What is measured at finer points: the decoder asked there, beside everything that interpolation does instead."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import torch
from attrs import frozen
from torch import Tensor

from ups_kit.errors import DataError
from ups_kit.interfaces import FieldSpec, Offer, Relays
from ups_kit.metrics import shell_energies

from ..config import EvaluateConfig
from ..floors import persistence
from ..rollouts import Runner
from ..transfer.asking import lying
from ..transfer.crossing import Crossing
from ..truth import Truth, cut, read_truth, truth_of
from .detail import Score, Table, score, tabulate
from .lifting import Lift, splines, trigonometric

if TYPE_CHECKING:
    from ups_kit.assemble import Experiment

Forecasts = dict[str, Tensor]  # by kind ("one_step", "rollout", "encode_decode"), (S, frames, N, C)

SAME = 1e-5  # of a spacing: what coordinates of the same point may differ by


@frozen(eq=False)
class Shown:
    """One trajectory at the last frame: for pictures. Values are (N, C)."""

    truth: Tensor
    decoded: Tensor
    interpolated: Tensor  # the model's own coarse forecast, through splines
    splines: Tensor  # the coarse truth, through splines


@frozen(eq=False)
class Line:
    """One factor. `scores` are by the way to the fine points, and by kind of forecast."""

    factor: int
    points: int
    fields: FieldSpec  # as they lie there
    scores: Mapping[str, Mapping[str, Score]]
    spectra: Mapping[str, Tensor]  # energy by shell of the last frame, (shells,), sums over trajectories and channels
    shown: Shown

    def summary(self) -> dict[str, Any]:
        """What `finer.json` holds of it."""
        return {
            "factor": self.factor,
            "points": self.points,
            "grid": list(self.fields.grid or ()),
            **{way: {kind: found.summary() for kind, found in own.items()} for way, own in self.scores.items()},
        }


@frozen(eq=False)
class Finer:
    """All factors, the first of which is 1: the points that the model is given."""

    fields: FieldSpec
    split: str
    trajectories: int
    steps: int
    lines: tuple[Line, ...]
    given: Tensor  # (N, C): of the trajectory that is shown, the truth at the given points at the last frame


def measure(
    experiment: Experiment, config: EvaluateConfig, offers: Mapping[int, Offer], tell: Callable[[str], None]
) -> Finer:
    """Every factor of what is planned; `tell` is told before each. Raises DataError where points do not coincide."""
    coarse = read_truth(experiment.dataset, config.split, config.steps, config.trajectories)
    tell(f"{coarse.samples} trajectories on the {coarse.values.shape[2]} points that are given")
    forecasts = _coarse_forecasts(experiment, config, coarse)
    lines = [_line(experiment, config, 1, coarse, coarse, forecasts)]
    for factor, offer in offers.items():
        tell(f"at {factor} times as many along each axis, {offer.points} points")
        fine = finer_truth(experiment, config, coarse, factor, offer)
        lines.append(_line(experiment, config, factor, coarse, fine, forecasts))
    row = coarse.samples // 2
    return Finer(coarse.fields, config.split, coarse.samples, coarse.steps, tuple(lines), coarse.values[row, -1])


def finer_truth(experiment: Experiment, config: EvaluateConfig, coarse: Truth, factor: int, offer: Offer) -> Truth:
    """The same trajectories at finer points of the same files. Raises DataError where they are not the same states."""
    dataset = experiment.dataset
    assert isinstance(dataset, Relays)
    relaid = dataset.relay(config.split, "grid", offer.points, config.trajectories)
    held = cut(relaid.trajectories, coarse.values.shape[1])
    fine = truth_of(dataset, held, lying(coarse.fields, "grid", offer))
    if relaid.error:
        raise DataError(f"{offer.points} points: the files do not hold these states, they would be interpolated")
    _check_same(coarse, fine, factor)
    return fine


def _check_same(coarse: Truth, fine: Truth, factor: int) -> None:
    """Every so many-th fine point is a coarse one, with the same values to the last bit."""
    grid, own = fine.fields.grid or (), coarse.fields.grid or ()
    every = (slice(None, None, factor),) * len(grid)
    values = torch.unflatten(fine.values, 2, grid)[(slice(None), slice(None), *every)].flatten(2, 1 + len(grid))
    places = torch.unflatten(fine.positions, 0, grid)[every].flatten(0, -2)
    spacing = min(length / size for length, size in zip(fine.fields.extent, grid, strict=True))
    what = None
    if not torch.equal(fine.ids, coarse.ids):
        what = "are of other trajectories than"
    elif places.shape != coarse.positions.shape or (places - coarse.positions).abs().max() > SAME * spacing:
        what = "lie elsewhere than"
    elif not torch.equal(values, coarse.values):
        what = "hold other values than"
    if what is not None:
        fine_shape, shape = (" × ".join(map(str, sizes)) for sizes in (grid, own))
        raise DataError(
            f"one in {factor} along each axis of {fine_shape} points {what} the {shape} that the model is given; if "
            "the files have changed since, put them back as they were"
        )


# ---------------------------------------------------------------------------------------------------------------------
# One factor
# ---------------------------------------------------------------------------------------------------------------------
def _line(
    experiment: Experiment, config: EvaluateConfig, factor: int, coarse: Truth, fine: Truth, forecasts: Forecasts
) -> Line:
    spline = splines(coarse.fields, fine.fields)
    tables: dict[tuple[str, str], list[Table]] = {}
    sums: dict[str, Tensor] = {}
    shown = None
    for rows in fine.parts(config.batch):
        here, there = coarse.part(rows), fine.part(rows)
        own = {kind: values[rows] for kind, values in forecasts.items()}
        ways = dict(_ways(experiment, config, here, there, own, spline))
        for way, kinds in ways.items():
            for kind, values in kinds.items():
                tables.setdefault((way, kind), []).append(tabulate(values, there, coarse.fields.grid or ()))
        pictured = _pictured(ways, there)
        for name, values in pictured.items():
            energy = shell_energies(values[:, None], fine.fields).sum((0, 1, 2))
            sums[name] = sums[name] + energy if name in sums else energy
        middle = fine.samples // 2 - rows.start
        if 0 <= middle < there.samples:
            shown = Shown(*(values[middle].clone() for values in pictured.values()))
    assert shown is not None
    scores: dict[str, dict[str, Score]] = {}
    for (way, kind), parts in tables.items():
        scores.setdefault(way, {})[kind] = score(parts)
    return Line(factor, fine.values.shape[2], fine.fields, scores, sums, shown)


def _pictured(ways: Mapping[str, Forecasts], truth: Truth) -> Forecasts:
    """What pictures show, at the last frame, in the order of `Shown`; at the given points much of it is the same."""
    decoded = ways["decoded"]["rollout"]
    found = {
        "truth": truth.values,
        "decoded": decoded,
        "interpolated": ways.get("interpolated", ways["decoded"])["rollout"],
        "splines": ways["splines"]["encode_decode"] if "splines" in ways else truth.values,
    }
    return {name: values[:, -1] for name, values in found.items()}


def _ways(
    experiment: Experiment, config: EvaluateConfig, here: Truth, there: Truth, own: Forecasts, spline: Lift
) -> Iterator[tuple[str, Forecasts]]:
    """Every way to values at the fine points, and its forecasts; at the given points there is nothing to fill in."""
    series = not there.fields.steady
    if here.fields.grid == there.fields.grid:
        yield "decoded", own
        if series:
            yield "persistence", _persisting(here)
        return
    yield "decoded", _forecasts(Crossing(experiment.model, here, there, experiment.device, config.batch), there)
    yield "interpolated", {kind: spline(values) for kind, values in own.items()}
    if series:
        yield "persistence", {kind: spline(values) for kind, values in _persisting(here).items()}
    yield "splines", {"encode_decode": spline(here.values)}
    waves = trigonometric(here.fields, there.fields)
    if waves is not None:
        yield "trigonometric", {"encode_decode": waves(here.values)}


def _persisting(here: Truth) -> Forecasts:
    floor = persistence(here)
    return {"one_step": floor.one_step, "rollout": floor.rollout}


def _coarse_forecasts(experiment: Experiment, config: EvaluateConfig, coarse: Truth) -> Forecasts:
    """The model's forecasts at the points that it is given, as the stage's own evaluation makes them."""
    parts: dict[str, list[Tensor]] = {}
    for rows in coarse.parts(config.batch):
        own = coarse.part(rows)
        for kind, values in _forecasts(Runner(experiment.model, own, experiment.device, config.batch), own).items():
            parts.setdefault(kind, []).append(values)
    return {kind: torch.cat(values) for kind, values in parts.items()}


def _forecasts(runner: Runner | Crossing, truth: Truth) -> Forecasts:
    rollout = runner.latent_rollout()
    if truth.fields.steady:
        return {"rollout": rollout}
    codec, one_step = runner.stepwise()
    return {"one_step": one_step, "rollout": rollout, "encode_decode": codec}
