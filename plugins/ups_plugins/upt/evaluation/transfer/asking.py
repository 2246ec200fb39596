"""Which points can be had, and what the model's encoder says of them, before any state is read."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import torch
from attrs import evolve, frozen

from ups_kit.data.discretisations import cloud_points, grid_axes, grid_points
from ups_kit.errors import DataError, UpsKitError, UsageError
from ups_kit.interfaces import Checks, Elsewhere, FieldSpec, Layout, Multitask, Offer, PointSet, Relays

from ..config import EvaluateConfig

if TYPE_CHECKING:
    from ups_kit.assemble import Experiment

SEARCHED = 4096  # sizes of a grid that are tried for the nearest one that an encoder takes
MOST = 1 << 24


@frozen
class Planned:
    """What was asked for, what there is of it, and how such data lie."""

    asked: Elsewhere
    offer: Offer
    fields: FieldSpec


def plan(experiment: Experiment, config: EvaluateConfig, asked: Sequence[Elsewhere]) -> list[Planned]:
    """Everything that was asked for, fewest points first. Raises UsageError with all that cannot be had."""
    dataset = experiment.dataset
    if isinstance(dataset, Multitask):
        raise UsageError("a data set of several tasks is evaluated on the points of its tasks alone; leave --on out")
    if not isinstance(dataset, Relays):
        name = experiment.catalog.locate(experiment.recipe.dataset).name
        raise UsageError(f"the dataset '{name}' has its states on its own points alone; leave --on out")
    found: list[Planned] = []
    problems: list[str] = []
    for each in asked:
        head = f"--on {each.layout} --points {each.points}"
        try:
            planned = _planned(dataset, config, each)
        except DataError as error:
            problems.append(f"{head}: {error}")
            continue
        problem = _problem(experiment, planned)
        if problem is None:
            found.append(planned)
        else:
            problems.append(f"{head}: {problem}{_nearest(experiment, dataset, config, planned)}")
    if problems:
        raise UsageError("\n".join(problems))
    return sorted(found, key=lambda planned: (planned.asked.layout, planned.offer.points))


def _planned(dataset: Relays, config: EvaluateConfig, asked: Elsewhere) -> Planned:
    offer = dataset.offer(config.split, asked.layout, asked.points, config.trajectories)
    return Planned(asked, offer, lying(dataset.fields, asked.layout, offer))  # type: ignore[attr-defined]  # a dataset


def lying(fields: FieldSpec, layout: Layout, offer: Offer) -> FieldSpec:
    """The fields as they lie on such points."""
    counts = None if offer.grid is not None else (offer.points, offer.points)
    offset = fields.offset if offer.grid is None else offer.offset
    return evolve(
        fields, layout=layout, grid=offer.grid, offset=offset, counts=counts, sampled=None, sampled_inputs=None
    )


def _problem(experiment: Experiment, planned: Planned) -> str | None:
    """Why the model cannot be given such points, or None: what its encoder checks, and a trial without values."""
    encoder, latent = experiment.recipe.encoder, experiment.recipe.latent
    if isinstance(encoder, Checks):
        for key, message in encoder.check(planned.fields, evolve(latent, tokens=None)):
            return f"encoder.{key}: {message.partition('; nearest')[0]}"  # of the key; here points are asked for
    return _trial(experiment, planned)


@torch.inference_mode()
def _trial(experiment: Experiment, planned: Planned) -> str | None:
    """One step of the model from fields that are zero, on so many points anywhere in the domain."""
    fields, device = planned.fields, experiment.device
    places = (
        cloud_points(fields.domain, planned.offer.points)
        if fields.grid is None
        else grid_points(grid_axes(fields.domain, fields.grid, fields.offset))
    )
    positions = torch.as_tensor(places, dtype=torch.float32, device=device)[None]
    points = PointSet(positions, positions.new_zeros(1, len(places), fields.input_channels), grid=fields.grid)
    condition = positions.new_zeros(1, len(fields.conditions))
    experiment.model.eval()
    try:
        experiment.model.step(experiment.model.encode(points, condition), condition)
    except UpsKitError as error:
        return str(error).replace("\n", "; ")
    return None


# ---------------------------------------------------------------------------------------------------------------------
# What would be right
# ---------------------------------------------------------------------------------------------------------------------
def _nearest(experiment: Experiment, dataset: Relays, config: EvaluateConfig, planned: Planned) -> str:
    """The nearest number of points that the encoder takes, as the end of a sentence; nothing where none is near."""
    encoder, latent = experiment.recipe.encoder, evolve(experiment.recipe.latent, tokens=None)
    if not isinstance(encoder, Checks):
        return ""
    for points in _candidates(planned):
        try:
            other = _planned(dataset, config, evolve(planned.asked, points=points))
        except DataError:
            continue
        if not list(encoder.check(other.fields, latent)):
            return f"; nearest: --points {other.offer.points}"
    return ""


def _candidates(planned: Planned) -> Iterator[int]:
    """Numbers of points to try, the nearest first."""
    grid, asked = planned.offer.grid, planned.asked.points
    if grid is None:
        yield from (asked * 2**double for double in range(1, 25) if asked * 2**double <= MOST)
        return
    size, dims = grid[0], len(grid)
    for away in range(1, min(SEARCHED, 4 * size)):
        for other in (size - away, size + away):
            if other >= 2:
                yield round(math.prod(grid) * (other / size) ** dims)
