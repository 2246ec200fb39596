"""A trained model's forecast in physical units: what is given is checked, normalised, rolled forward, and decoded."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple, Protocol

import numpy as np
import torch
from attrs import frozen
from torch import Tensor

from ..batching import to_device
from ..data.discretisations import grid_axes, grid_points
from ..errors import DataError, did_you_mean
from ..fit.order import trained_by
from ..generating import Drawn, Noise, drawing_parts
from ..interfaces import Corrects, FieldSpec, PointSet, Queries
from ..motion import Forecaster, Kinematic, kinematic_points

if TYPE_CHECKING:
    from ..data.normalisation import Normaliser
    from ..model import LatentModel
    from ..recipe import Recipe

OPERATOR = "operator"  # the forecast that every model with a trained operator has
OUTSIDE = 1e-6  # of the domain's extent: what rounding may put a point beyond its end
ALIKE = 1e-4  # of its size: what a parameter differs by that is the same

Values = np.ndarray | Tensor


class Trained(Protocol):
    """What is known of a trained model: a `Bundle`."""

    @property
    def model(self) -> LatentModel: ...

    @property
    def recipe(self) -> Recipe: ...

    @property
    def fields(self) -> FieldSpec: ...

    @property
    def normaliser(self) -> Normaliser: ...

    @property
    def forecast(self) -> Mapping[str, object]: ...

    @property
    def trained(self) -> Sequence[str]: ...


class Forecast(NamedTuple):
    """Fields in physical units, and where they hold."""

    values: Tensor  # (samples, steps, Q, C)
    positions: Tensor  # (samples, Q, D); (samples, steps, Q, D) where the points move


@frozen
class Way:
    """How a forecast is made: by the operator alone, or drawn by the part that a stage has trained."""

    use: str = OPERATOR
    steps: int | None = None  # of the part's sampler; None where nothing is drawn
    part: Corrects | None = None

    @property
    def draws(self) -> bool:
        """Whether members of it differ."""
        return self.part is not None


def chosen(bundle: Trained, use: str | None = None, sampling_steps: int | None = None) -> Way:
    """The forecast of this name, or the bundle's own. Raises DataError for one that is not there, or not trained."""
    parts = drawing_parts(bundle.recipe, bundle.model)
    parts = {name: part for name, part in parts.items() if name in bundle.trained}
    own, known = dict(bundle.forecast), _known(bundle, parts)
    if use is None and own["use"] == OPERATOR and known and OPERATOR not in known:
        own = {"use": known[0], "steps": None}  # a prior of steady states, beside an operator that nothing has trained
    name = str(own["use"]) if use is None else use
    if name not in known:
        raise DataError(_unknown(bundle, name, known))
    if name == OPERATOR:
        if sampling_steps is not None:
            drawn = f"; those that do: forecast = {' or '.join(parts)}" if parts else ""
            raise DataError(f"sampling_steps: the forecast 'operator' draws nothing; leave it out{drawn}")
        return Way()
    if sampling_steps is not None and sampling_steps < 1:
        raise DataError(f"sampling_steps: expected 1 or more, got {sampling_steps}")
    told = own.get("steps") if name == own["use"] else None
    steps = sampling_steps or (int(str(told)) if told is not None else parts[name].default)
    return Way(name, steps, parts[name])


def _known(bundle: Trained, parts: Mapping[str, Corrects]) -> list[str]:
    """The forecasts that a bundle has. A model that no stage has trained at all is taken as it is."""
    stages = [stage for stage in bundle.recipe.stages if stage.name in bundle.trained]
    operator = not stages or OPERATOR in trained_by(stages)
    return [*([OPERATOR] if operator else []), *parts]


def _unknown(bundle: Trained, name: str, known: Sequence[str]) -> str:
    stages = [stage.name for stage in bundle.recipe.stages]
    there = f"forecasts: {', '.join(known) or 'none'}"
    if name == OPERATOR:
        return f"forecast: the operator of this model is not trained, and does not forecast ({there})"
    if name in bundle.model.added:
        return f"forecast: the part of stage '{name}' is not trained, and draws nothing ({there})"
    if name in stages:
        return f"forecast: the stage '{name}' adds no part that draws forecasts ({there})"
    return f"forecast: there is none called '{name}'{did_you_mean(name, known)} ({there})"


# ---------------------------------------------------------------------------------------------------------------------
# What is given
# ---------------------------------------------------------------------------------------------------------------------
def inputs(bundle: Trained, frames: Values | None, positions: Values | None, statics: Values | None) -> PointSet:
    """What the model is given, normalised. Raises DataError for shapes and values that do not fit."""
    fields, normaliser = bundle.fields, bundle.normaliser
    if positions is None and fields.grid is None:
        raise DataError(f"positions: the model is of points of its own ({fields.layout}); give where they are")
    places = grid_places(fields) if positions is None else _places(positions, fields.space_dims, "positions", "points")
    count, channels = places.shape[1], sum(field.channels for field in fields.statics)
    parts = []
    if fields.history:
        if frames is None:
            raise DataError(f"frames: expected {fields.history} given frames, got None")
        shaped = _shaped(frames, (fields.history, count, fields.target_channels), "frames")
        parts.append(normaliser.targets(shaped).permute(0, 2, 1, 3).flatten(2))
    elif frames is not None:
        raise DataError("frames: the data of this model are steady, and no frame is given; leave them out")
    if channels:
        names = ", ".join(field.name for field in fields.statics)
        if statics is None:
            raise DataError(f"statics: the model is given static fields ({names}); expected (points, {channels})")
        parts.append(normaliser.statics(_shaped(statics, (count, channels), "statics")))
    elif statics is not None:
        raise DataError("statics: the model is given no static fields; leave them out")
    samples = max(len(part) for part in (places, *parts))
    if any(len(part) not in (1, samples) for part in (places, *parts)):
        found = ", ".join(str(len(part)) for part in (places, *parts))
        raise DataError(f"positions, frames, statics: expected one number of samples, or 1; got {found}")
    values = torch.cat([part.expand(samples, -1, -1) for part in parts], -1)
    return PointSet(places.expand(samples, -1, -1), values, grid=fields.grid if positions is None else None)


def condition_of(bundle: Trained, parameters: Mapping[str, float], samples: int) -> Tensor:
    """The parameters (samples, P), normalised; "dt" defaults to the trained step.

    Raises DataError for those that are missing or unknown, and for a value that the model takes no notice of, as it was
    trained with another one alone.
    """
    names, normaliser = bundle.fields.conditions, bundle.normaliser
    wrong = [f"there is no '{name}'{did_you_mean(name, names)}" for name in parameters if name not in names]
    wrong += [f"'{name}' is missing" for name in names[1:] if name not in parameters]
    if wrong:
        raise DataError(f"parameters: {', '.join(wrong)} (parameters: {', '.join(names[1:]) or 'none'}; dt)")
    told = {"dt": bundle.fields.dt, **parameters}
    for column, name in enumerate(names):
        value, mean = float(told[name]), normaliser.condition_mean[column]
        if not math.isfinite(value):
            raise DataError(f"parameters.{name}: expected a finite number, got {value}")
        alone = math.exp(mean) if normaliser.condition_log[column] else mean
        if normaliser.condition_std[column] == 0 and abs(value - alone) > ALIKE * abs(alone):
            raise DataError(
                f"parameters.{name}: the model was trained with {alone:g} alone and takes no notice of another; "
                f"expected {alone:g}, got {value:g}"
            )
    row = torch.tensor([[float(told[name]) for name in names]], dtype=torch.float64)
    return normaliser.condition(row).expand(samples, -1)


def queries_of(fields: FieldSpec, queries: Values, samples: int) -> Tensor:
    """Where a decoder is asked, (samples, Q, D). Raises DataError for what are no places of the domain.

    A place beyond an axis that is periodic stands for its image within.
    """
    places = _places(queries, fields.space_dims, "queries", "queries")
    if len(places) not in (1, samples):
        raise DataError(f"queries: expected those of 1 or {samples} samples, got {len(places)}")
    for axis, ((low, high), wraps) in enumerate(zip(fields.domain, fields.periodic, strict=True)):
        along, slack = places[..., axis], OUTSIDE * (high - low)
        outside = int(((along < low - slack) | (along > high + slack)).sum())
        if outside and not wraps:
            ends = f"{float(along.min()):g} … {float(along.max()):g}"
            raise DataError(
                f"queries: {outside} of {along.numel()} points lie outside the domain along {'xyz'[axis]}, which is "
                f"not periodic; expected {low:g} … {high:g}, got {ends}"
            )
    return places.expand(samples, -1, -1)


def grid_places(fields: FieldSpec, shape: Sequence[int] | None = None) -> Tensor:
    """The points of the data's grid, or of one of another shape that stands alike in the domain, (1, N, D)."""
    sizes = fields.grid if shape is None else shape
    assert sizes is not None
    return torch.from_numpy(grid_points(grid_axes(fields.domain, sizes, fields.offset))).float()[None]


def _places(positions: Values, dims: int, name: str, noun: str) -> Tensor:
    """Positions as (samples, points, D); raises DataError."""
    given = _tensor(positions)
    own = given[:, None] if given.dim() == 1 and dims == 1 else given
    if own.dim() not in (2, 3) or own.shape[-1] != dims or not own.numel():
        wanted = f"({noun}, {dims}) or (samples, {noun}, {dims})"
        raise DataError(f"{name}: expected {wanted}; got {tuple(given.shape)}")
    _refuse_gaps(own, name)
    return own if own.dim() == 3 else own[None]


def _shaped(values: Values, shape: tuple[int, ...], name: str) -> Tensor:
    """Values as (samples, *shape), of one sample where they are of that shape; raises DataError."""
    given = _tensor(values)
    axes = "history, points, channels" if len(shape) == 3 else "points, channels"
    try:
        shaped = given.reshape(-1, *shape)
    except RuntimeError as error:
        wanted = f"(samples, {', '.join(map(str, shape))})"
        raise DataError(f"{name}: expected {wanted}: samples, {axes}; got {tuple(given.shape)}") from error
    _refuse_gaps(shaped, name)
    return shaped


def _tensor(values: Values) -> Tensor:
    """In float32, in memory of its own where numpy's may not be written to."""
    return values.float() if isinstance(values, Tensor) else torch.from_numpy(np.array(values, np.float32))


def _refuse_gaps(values: Tensor, name: str) -> None:
    bad = ~torch.isfinite(values)
    if bool(bad.any()):
        first = bad.nonzero()[0].tolist()
        raise DataError(
            f"{name}: {int(bad.sum())} of {bad.numel()} values are NaN or infinite, the first at {first}; expected "
            "numbers everywhere"
        )


# ---------------------------------------------------------------------------------------------------------------------
# What comes of it
# ---------------------------------------------------------------------------------------------------------------------
@torch.no_grad()
def members(
    bundle: Trained,
    way: Way,
    points: PointSet,
    condition: Tensor,
    steps: int,
    queries: Queries | None = None,
    *,
    count: int = 1,
    seed: int = 0,
) -> Iterator[Forecast]:
    """Forecasts one after the other, `count` of them, in CPU memory. At the input's own points without `queries`.

    A member is a pure function of its number, the seed and what is given. Raises DataError for what does not fit.
    """
    if steps < 1:
        raise DataError(f"steps: expected 1 or more, got {steps}")
    if bundle.fields.steady and steps > 1:
        raise DataError(f"steps: the data of this model are steady, and have one answer; expected 1, got {steps}")
    if count < 1:
        raise DataError(f"members: expected 1 or more, got {count}")
    if count > 1 and not way.draws:
        raise DataError(
            f"members: the forecast '{way.use}' draws nothing, its members are one; expected 1, got {count}"
        )
    device = next((each.device for each in bundle.model.parameters()), torch.device("cpu"))
    points, condition = to_device(points, device), condition.to(device)
    queries = None if queries is None else to_device(queries, device)
    for member in range(count):
        noise = Noise(seed, member, tuple(range(len(condition))))
        model = bundle.model if way.part is None else Drawn(bundle.model, way.part, way.steps or 1, noise)
        yield _rolled(bundle, model, points, condition, steps, queries)


def _rolled(
    bundle: Trained, model: LatentModel, points: PointSet, condition: Tensor, steps: int, queries: Queries | None
) -> Forecast:
    physical, latent = bundle.normaliser.physical, model.encode(points, condition)
    if queries is not None:
        frames = []
        for _ in range(steps):
            latent = model.step(latent, condition)
            frames.append(physical(model.decode(latent, queries).float().cpu()))
        return Forecast(torch.stack(frames, 1), queries.positions.cpu())
    found = list(
        Forecaster(model, bundle.normaliser).latent(latent, points, condition, steps, _kinematic(bundle, points))
    )
    values = torch.stack([physical(frame.values.float().cpu()) for frame in found], 1)
    if bundle.fields.moves_with is None:
        return Forecast(values, points.positions.cpu())
    return Forecast(values, torch.stack([frame.positions.cpu() for frame in found], 1))


def _kinematic(bundle: Trained, points: PointSet) -> Kinematic | None:
    """Points that move as given: they go on as in the last given frame."""
    fields = bundle.fields
    if fields.moves_with is None:
        return None
    statics = points.values[..., fields.history * fields.target_channels :]
    mask = kinematic_points(statics, fields, bundle.normaliser)
    return None if mask is None else Kinematic(mask, None)
