"""Linear maps fitted to train data: to what every model is fed, and back before anything is measured."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from attrs import asdict, frozen
from numpy.typing import NDArray

from ..errors import DataError, did_you_mean
from ..interfaces import Field, FieldSpec

if TYPE_CHECKING:
    from torch import Tensor

LOG_RATIO = 10.0  # a positive parameter that spans more than this is seen through its logarithm
SCHEMES = ("standard", "range", "robust", "none")
BINS = 2**14  # of a histogram
FINE = 2**10  # bins that the central half spans at least, when it is read off a histogram
PASSES = 8  # over the values, at most: each resolves BINS / 4 times more than the one before


@frozen
class Moments:
    """Number, mean, sum of squared deviations and range of each channel, all (..., channels) float64.

    Of one sample, or of many along the leading axes: `merged()` makes them one.
    """

    count: NDArray[np.float64]
    mean: NDArray[np.float64]
    squares: NDArray[np.float64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]

    @classmethod
    def of(cls, values: NDArray[Any]) -> Moments:
        """Moments of each sample over all axes between the first and the last of (samples, ..., channels).

        A sample with a NaN or an infinity has a mean that is not finite.
        """
        flat = values.reshape(len(values), -1, values.shape[-1])
        with np.errstate(invalid="ignore", over="ignore"):
            mean = flat.mean(1, dtype=np.float64)
            squares = np.square(flat - mean[:, None], dtype=np.float64).sum(1)
        return cls(np.full(mean.shape, float(flat.shape[1])), mean, squares, flat.min(1), flat.max(1))

    @classmethod
    def empty(cls, samples: int, channels: int) -> Moments:
        """Moments of samples without values, to be filled by `put`."""
        shape = (samples, channels)
        low, high = np.full(shape, np.inf), np.full(shape, -np.inf)
        return cls(np.zeros(shape), np.zeros(shape), np.zeros(shape), low, high)

    @classmethod
    def stacked(cls, parts: Sequence[Moments]) -> Moments:
        """The moments of several groups of samples, one after the other along the first axis."""
        return cls(*(np.concatenate([getattr(part, name) for part in parts]) for name in NAMES))

    @classmethod
    def over(cls, parts: Sequence[Moments]) -> Moments:
        """The moments of the same samples, each made of several parts of its values."""
        return cls(*(np.stack([getattr(part, name) for part in parts]) for name in NAMES)).merged()

    def put(self, rows: NDArray[np.integer], found: Moments) -> None:
        """Write the moments of some samples into these."""
        for name in NAMES:
            getattr(self, name)[rows] = getattr(found, name)

    def copy(self) -> Moments:
        """Moments that `put` may change without changing these."""
        return Moments(*(getattr(self, name).copy() for name in NAMES))

    def __getitem__(self, rows: Any) -> Moments:
        return Moments(self.count[rows], self.mean[rows], self.squares[rows], self.low[rows], self.high[rows])

    def merged(self) -> Moments:
        """The moments of all samples together, (channels,) each (Chan, Golub and LeVeque 1983)."""
        count = self.count.sum(0)
        with np.errstate(invalid="ignore", over="ignore"):
            mean = (self.count * self.mean).sum(0) / count
            squares = (self.squares + self.count * (self.mean - mean) ** 2).sum(0)
        return Moments(count, mean, squares, self.low.min(0), self.high.max(0))


NAMES = ("count", "mean", "squares", "low", "high")


# ---------------------------------------------------------------------------------------------------------------------
# The central half
# ---------------------------------------------------------------------------------------------------------------------
@frozen
class Central:
    """The quartiles of each channel's values, and mean and deviation of those between them, (channels,) float64."""

    quartiles: NDArray[np.float64]  # (2, channels)
    mean: NDArray[np.float64]
    std: NDArray[np.float64]

    def __getitem__(self, channels: Any) -> Central:
        return Central(self.quartiles[:, channels], self.mean[channels], self.std[channels])


def central_half(
    values: Callable[[], Iterable[NDArray[Any]]], low: NDArray[np.float64], high: NDArray[np.float64]
) -> Central:
    """The central 50 % of each channel's values, without keeping them: what UPT normalises by (arXiv:2402.12365).

    `values()` gives all of them in blocks (…, channels) whenever it is called; `low` and `high` are their ranges. A
    histogram of each channel is taken, and taken again between its quartiles until these stand far enough apart in it:
    two passes for most data, more where outliers are far. Right to a thousandth of the distance of the quartiles.
    """
    first, last = np.asarray(low, np.float64), np.asarray(high, np.float64)
    for left in reversed(range(PASSES)):
        below, counts, total = _histograms(values(), first, last)
        edges = _quartile_places(below, counts, total)
        bins = np.floor(edges).clip(0, BINS - 1)
        width = (last - first) / BINS
        smallest = np.finfo(np.float32).eps * np.maximum(np.abs(first), np.abs(last)) / 4
        fine = (bins[1] - bins[0] >= FINE) | (width <= smallest)
        if fine.all() or not left:
            break
        first, last = (
            np.where(fine, first, first + bins[0] * width),
            np.where(fine, last, first + (bins[1] + 1) * width),
        )
    centres = np.arange(BINS) + 0.5
    held = counts * ((centres > bins[0][:, None]) & (centres < bins[1][:, None] + 1))
    share = held.sum(1)
    middle = (held * centres).sum(1) / share
    spread = np.sqrt((held * (centres - middle[:, None]) ** 2).sum(1) / share)
    return Central(first + edges * width, first + middle * width, np.where(bins[0] == bins[1], 0.0, spread * width))


def _histograms(
    blocks: Iterable[NDArray[Any]], first: NDArray[np.float64], last: NDArray[np.float64]
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """How many values lie below `first`, in each of the bins up to `last`, and how many there are, for each channel."""
    channels = len(first)
    below, total = np.zeros(channels, np.int64), np.zeros(channels, np.int64)
    counts = np.zeros((channels, BINS), np.int64)
    scale = BINS / np.where(last > first, last - first, 1.0)
    for block in blocks:
        flat = block.reshape(-1, channels)
        total += len(flat)
        for channel in range(channels):
            column = flat[:, channel].astype(np.float64)
            below[channel] += int((column < first[channel]).sum())
            inside = column[(column >= first[channel]) & (column <= last[channel])]
            places = ((inside - first[channel]) * scale[channel]).astype(np.int64).clip(0, BINS - 1)
            counts[channel] += np.bincount(places, minlength=BINS)
    return below, counts, total


def _quartile_places(
    below: NDArray[np.int64], counts: NDArray[np.int64], total: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Where the first and the third quartile lie, (2, channels), in bins from the first one."""
    places = np.empty((2, len(below)))
    for channel in range(len(below)):
        reached = np.concatenate([[0], counts[channel].cumsum()]) + below[channel]
        for row, share in enumerate((0.25, 0.75)):
            rank = share * (total[channel] - 1) + 0.5
            number = int(np.clip(np.searchsorted(reached, rank, side="left") - 1, 0, BINS - 1))
            held = max(int(counts[channel][number]), 1)
            places[row, channel] = number + float(np.clip((rank - reached[number]) / held, 0, 1 - 1e-9))
    return places


# ---------------------------------------------------------------------------------------------------------------------
# The maps
# ---------------------------------------------------------------------------------------------------------------------
Normalisation = str | Mapping[str, str]  # one of SCHEMES, or one for each field


def scheme_of(normalisation: Normalisation, name: str) -> str:
    """How a field is normalised: "standard" where nothing is said of it."""
    return normalisation if isinstance(normalisation, str) else normalisation.get(name, "standard")


@frozen
class Normaliser:
    """Linear maps of the channels of targets and statics, and of the columns of a condition.

    Targets and statics: (value - mean) / std, where "mean" and "std" are those of the values, or the middle and half of
    their range, or those of their central half, or 0 and 1, as the recipe says. Conditions: (value - mean) / std, of
    the logarithm where `condition_log` says so; a column that was constant in the train data (std 0) becomes 0.
    Statistics are those of the train trajectories alone.
    """

    target_mean: tuple[float, ...]
    target_std: tuple[float, ...]
    condition_mean: tuple[float, ...]
    condition_std: tuple[float, ...]
    condition_log: tuple[bool, ...]
    static_mean: tuple[float, ...] = ()
    static_std: tuple[float, ...] = ()

    @classmethod
    def fitted(
        cls,
        fields: FieldSpec,
        targets: Moments,
        conditions: NDArray[np.float64],
        statics: Moments | None = None,
        normalisation: Normalisation = "standard",
        central: Mapping[str, Central] | None = None,
    ) -> Normaliser:
        """From merged moments of the train data, and the conditions (samples, P) of the train trajectories.

        `central` holds the central half of each field that is normalised by it ("robust"), by name. Raises DataError
        where a field does not vary.
        """
        maps = [
            _maps(group, moments, normalisation, central or {})
            for group, moments in ((fields.targets, targets), (fields.statics, statics))
        ]
        (target_mean, target_std), (static_mean, static_std) = maps
        low, high = conditions.min(0), conditions.max(0)
        log = (low > 0) & (high > LOG_RATIO * low)
        scaled = np.where(log, np.log(np.where(log, conditions, 1.0)), conditions)
        return cls(
            target_mean=target_mean,
            target_std=target_std,
            condition_mean=tuple(scaled.mean(0).tolist()),
            condition_std=tuple(np.where(low == high, 0.0, scaled.std(0)).tolist()),
            condition_log=tuple(log.tolist()),
            static_mean=static_mean,
            static_std=static_std,
        )

    def targets(self, values: Tensor) -> Tensor:
        """Target fields (..., C) from physical units to what a model sees."""
        return (values - values.new_tensor(self.target_mean)) / values.new_tensor(self.target_std)

    def physical(self, values: Tensor) -> Tensor:
        """Target fields (..., C) from what a model gives to physical units."""
        return values * values.new_tensor(self.target_std) + values.new_tensor(self.target_mean)

    def statics(self, values: Tensor) -> Tensor:
        """Static fields (..., static channels) from physical units to what a model sees."""
        if not self.static_mean:
            return values
        return (values - values.new_tensor(self.static_mean)) / values.new_tensor(self.static_std)

    def condition(self, parameters: Tensor) -> Tensor:
        """Conditions (..., P), columns as FieldSpec.conditions, from physical units to what a model sees; float32."""
        log = parameters.new_tensor(self.condition_log).bool()
        exact = parameters.double()
        scaled = exact.clamp_min(1e-300).log().where(log, exact)
        std = exact.new_tensor(self.condition_std)
        inverse = (1 / std).where(std > 0, std)
        return ((scaled - scaled.new_tensor(self.condition_mean)) * inverse).float()

    def to_dict(self) -> dict[str, Any]:
        """All numbers, as JSON can hold them."""
        return {name: list(values) for name, values in asdict(self).items()}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Normaliser:
        """What `to_dict` gave."""
        return cls(**{name: tuple(entries) for name, entries in values.items()})


def _maps(
    fields: Sequence[Field], moments: Moments | None, normalisation: Normalisation, central: Mapping[str, Central]
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """What is taken off each channel of some fields, and what the rest is divided by."""
    means: list[float] = []
    stds: list[float] = []
    if moments is None:
        return (), ()
    first = 0
    for field in fields:
        own = moments[slice(first, first + field.channels)]
        mean, std = _map(field, own, scheme_of(normalisation, field.name), central)
        means += mean.tolist()
        stds += std.tolist()
        first += field.channels
    return tuple(means), tuple(stds)


def _map(
    field: Field, moments: Moments, scheme: str, central: Mapping[str, Central]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    low, high = np.asarray(moments.low, np.float64), np.asarray(moments.high, np.float64)
    if scheme == "none":
        return np.zeros(field.channels), np.ones(field.channels)
    if scheme == "range":
        mean, std = (low + high) / 2, (high - low) / 2
    elif scheme == "robust":
        mean, std = central[field.name].mean, central[field.name].std
    else:
        mean, std = moments.mean, np.sqrt(moments.squares / moments.count)
    for channel in np.flatnonzero((std == 0) | (low == high)):
        name = field.name if field.channels == 1 else f"{field.name}[{channel}]"
        if low[channel] == high[channel]:
            what, expected = f"the field '{name}' is {low[channel]:g} everywhere", "a field that varies"
        else:
            step = (high[channel] - low[channel]) * 1e-9  # the bin's middle is not the value to the last digit
            what = f"half of the values of the field '{name}' are {np.round(mean[channel] / step) * step:g}"
            expected = f"dataset.normalisation.{field.name} = 'standard' or 'range'"
        raise DataError(
            f"in the train trajectories {what}: normalisation would divide by 0; expected {expected}, or "
            f"dataset.normalisation.{field.name} = 'none'",
            "normalisation",
        )
    return mean, std


def channels_of(group: Sequence[Field], name: str) -> NDArray[np.int64]:
    """The numbers of a field's channels among those of its group. Raises KeyError where there is no such field."""
    first = 0
    for each in group:
        if each.name == name:
            return np.arange(first, first + each.channels)
        first += each.channels
    raise KeyError(name)


def unknown_fields(told: str | Mapping[str, str], fields: FieldSpec) -> Iterator[tuple[str, str]]:
    """Names of the key `normalisation` that are of no field, as `check` yields them."""
    known = [each.name for each in (*fields.targets, *fields.statics)]
    for name in () if isinstance(told, str) else told:
        if name not in known:
            yield (
                "normalisation",
                f"no field is called '{name}'{did_you_mean(name, known)} (fields: {', '.join(known)})",
            )
