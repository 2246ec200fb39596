"""What is measured of a transfer, line by line: one line for each layout and number of points."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from attrs import frozen
from torch import Tensor

from ups_kit.interfaces import FieldSpec, Relaid, Relays

from ..config import EvaluateConfig
from ..floors import persistence
from ..rollouts import Runner
from ..scores import finite, nrmse_of
from ..truth import Truth, cut, read_truth, truth_of
from .asking import Planned
from .crossing import Crossing, asked_grid
from .through import interpolation_error, same_points

if TYPE_CHECKING:
    from ups_kit.assemble import Experiment

Scores = Mapping[str, float | None]  # nRMSE by the name of the forecast; None where there is none, or no finite one


@frozen(eq=False)
class Shown:
    """One trajectory at the last frame, on some points: for pictures."""

    positions: Tensor  # (N, D)
    truth: Tensor  # (N, C)
    forecast: Tensor  # (N, C)
    grid: tuple[int, ...] | None
    cells: Any  # triangles (M, 3), or None


@frozen(eq=False)
class Line:
    """One layout and number of points. `states_error` is the nRMSE of how states came to these points, 0 if exact."""

    layout: str
    asked: int
    points: int
    grid: tuple[int, ...] | None
    states_error: float
    own: Scores  # encoded from these points, compared at them
    reference: Scores  # encoded from these points, compared at the data's own
    queried: Scores  # encoded from the data's own points, compared at these
    shown: Shown

    def summary(self) -> dict[str, Any]:
        """What `transfer.json` holds of it."""
        return {
            "layout": self.layout,
            "asked": self.asked,
            "points": self.points,
            "grid": None if self.grid is None else list(self.grid),
            "states_error": finite(self.states_error),
            "own": dict(self.own),
            "reference": dict(self.reference),
            "queried": dict(self.queried),
        }


@frozen(eq=False)
class Transfer:
    """All lines, and the data's own points that they are compared at."""

    fields: FieldSpec
    split: str
    trajectories: int
    steps: int
    points: int  # of the data's own
    reference: Scores  # encoded from them and compared at them: the run's own evaluation
    lines: tuple[Line, ...]

    @property
    def constant(self) -> str:
        """What the forecast that nothing changes is called."""
        return "constant velocity" if self.fields.moves_with is not None else "persistence"

    def series(self, layout: str) -> list[Line]:
        """The lines of a layout, fewest points first."""
        return sorted((line for line in self.lines if line.layout == layout), key=lambda line: line.points)

    @property
    def layouts(self) -> list[str]:
        """The layouts that were asked for."""
        return list(dict.fromkeys(line.layout for line in self.lines))

    def rises(self, layout: str, name: str = "rollout", tolerance: float = 0.02) -> list[tuple[int, int]]:
        """Neighbouring numbers of points where the error at the reference grows by more than a tolerance."""
        lines = self.series(layout)
        errors = [line.reference.get(name) for line in lines]
        pairs = zip(lines, lines[1:], errors, errors[1:], strict=False)
        return [
            (few.points, many.points)
            for few, many, before, after in pairs
            if before is None or after is None or after > before * (1 + tolerance)
        ]


def measure(
    experiment: Experiment, config: EvaluateConfig, plans: Sequence[Planned], tell: Callable[[str], None]
) -> Transfer:
    """Every line of what is planned; `tell` is told before each."""
    dataset = experiment.dataset
    assert isinstance(dataset, Relays)
    reference = read_truth(dataset, config.split, config.steps, config.trajectories)
    tell(f"{reference.samples} trajectories on their own points")
    own = _scores(experiment, config, reference, reference)
    lines = []
    for planned in plans:
        tell(f"on {planned.asked.layout}, {planned.offer.points} points")
        asked = planned.asked
        relaid = dataset.relay(config.split, asked.layout, asked.points, config.trajectories)
        held = cut(relaid.trajectories, reference.values.shape[1])
        there = truth_of(dataset, held, planned.fields)
        lines.append(_line(experiment, config, planned, relaid, there, reference))
    counts = reference.values.shape[2] if reference.mask is None else int(reference.mask.sum(1).double().mean().round())
    return Transfer(reference.fields, config.split, reference.samples, reference.steps, counts, own, tuple(lines))


def _line(
    experiment: Experiment, config: EvaluateConfig, planned: Planned, relaid: Relaid, there: Truth, reference: Truth
) -> Line:
    at_reference = dict(_scores(experiment, config, there, reference))
    at_reference["interpolation"] = 0.0 if same_points(there, reference) else interpolation_error(there, reference)
    return Line(
        planned.asked.layout,
        planned.asked.points,
        planned.offer.points,
        planned.offer.grid,
        relaid.error,
        _scores(experiment, config, there, there),
        at_reference,
        _scores(experiment, config, reference, there),
        _shown(experiment, relaid, there),
    )


def _scores(experiment: Experiment, config: EvaluateConfig, given: Truth, asked: Truth) -> Scores:
    """nRMSE of every forecast from the points of one truth at those of another, a part of the trajectories at a time.

    From a truth's points to themselves by the same steps as the stage's own evaluation.
    """
    found: dict[str, list[Tensor]] = {}
    for rows in asked.parts(config.batch):
        start, end = given.part(rows), asked.part(rows)
        runner: Runner | Crossing = (
            Runner(experiment.model, end, experiment.device, config.batch)
            if given is asked and asked_grid(experiment.model, end, end) == end.fields.grid
            else Crossing(experiment.model, start, end, experiment.device, config.batch)
        )
        for name, forecast in _forecasts(runner, end):
            found.setdefault(name, []).append(nrmse_of(forecast, end))
    return {name: finite(torch.cat(parts).mean().item()) for name, parts in found.items()}


def _forecasts(runner: Runner | Crossing, truth: Truth) -> list[tuple[str, Tensor]]:
    rollout = runner.latent_rollout()
    if truth.fields.steady:
        return [("rollout", rollout)]
    codec, one_step = runner.stepwise()
    constant = persistence(truth).rollout
    return [("one_step", one_step), ("rollout", rollout), ("encode_decode", codec), ("persistence", constant)]


def _shown(experiment: Experiment, relaid: Relaid, there: Truth) -> Shown:
    """The trajectory in the middle of the split at the last frame, its real points."""
    row = there.samples // 2
    part = there.part([row])
    forecast = Crossing(experiment.model, part, part, experiment.device, 1).latent_rollout()[0, -1]
    real = slice(None) if part.mask is None else part.mask[0]
    frame = part.values.shape[1] - 1
    return Shown(
        part.places(slice(0, 1), frame)[0][real],
        part.values[0, -1][real],
        forecast[real],
        there.fields.grid,
        None if relaid.cells is None else relaid.cells[row],
    )


def verdict(transfer: Transfer) -> list[str]:
    """A sentence on each layout: whether the error at the data's own points falls as points double."""
    sentences = []
    for layout in transfer.layouts:
        lines, rises = transfer.series(layout), transfer.rises(layout)
        first, last = lines[0].reference.get("rollout"), lines[-1].reference.get("rollout")
        if len(lines) < 2 or first is None or last is None:
            continue
        change = f"from {first:.4g} at {lines[0].points} points to {last:.4g} at {lines[-1].points}"
        where = ", ".join(f"{few} to {many}" for few, many in rises)
        word = f"{layout}: the rollout's error at the data's own points goes {change}"
        sentences.append(f"{word}{'' if not rises else f'; it rises from {where}'}")
    return sentences
