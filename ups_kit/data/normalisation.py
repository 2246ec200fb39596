"""Mean and deviation of train data: to what every model is fed, and back before anything is measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from attrs import asdict, frozen
from numpy.typing import NDArray

from ..errors import DataError
from ..interfaces import Field, FieldSpec

if TYPE_CHECKING:
    from torch import Tensor

LOG_RATIO = 10.0  # a positive parameter that spans more than this is seen through its logarithm


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
    def stacked(cls, parts: Sequence[Moments]) -> Moments:
        """The moments of several groups of samples, one after the other along the first axis."""
        names = ("count", "mean", "squares", "low", "high")
        return cls(*(np.concatenate([getattr(part, name) for part in parts]) for name in names))

    def __getitem__(self, rows: Any) -> Moments:
        return Moments(self.count[rows], self.mean[rows], self.squares[rows], self.low[rows], self.high[rows])

    def merged(self) -> Moments:
        """The moments of all samples together, (channels,) each (Chan, Golub and LeVeque 1983)."""
        count = self.count.sum(0)
        mean = (self.count * self.mean).sum(0) / count
        squares = (self.squares + self.count * (self.mean - mean) ** 2).sum(0)
        return Moments(count, mean, squares, self.low.min(0), self.high.max(0))


@frozen
class Normaliser:
    """Linear maps of the channels of targets and statics, and of the columns of a condition.

    Targets and statics: (value - mean) / std. Conditions: the same, of the logarithm where `condition_log` says so; a
    column that was constant in the train data (std 0) becomes 0. Statistics are those of the train trajectories alone.
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
        cls, fields: FieldSpec, targets: Moments, conditions: NDArray[np.float64], statics: Moments | None = None
    ) -> Normaliser:
        """From merged moments of the train data, and the conditions (samples, P) of the train trajectories.

        Raises DataError where a field does not vary.
        """
        target_mean, target_std = _mean_and_std(fields.targets, targets)
        static_mean, static_std = ((), ()) if statics is None else _mean_and_std(fields.statics, statics)
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


def _mean_and_std(fields: Sequence[Field], moments: Moments) -> tuple[tuple[float, ...], tuple[float, ...]]:
    names = [
        field.name if field.channels == 1 else f"{field.name}[{channel}]"
        for field in fields
        for channel in range(field.channels)
    ]
    std = np.sqrt(moments.squares / moments.count)
    constant = [
        f"'{name}' is {low:g} everywhere"
        for name, low, high, deviation in zip(names, moments.low, moments.high, std, strict=True)
        if low == high or deviation == 0
    ]
    if constant:
        raise DataError(
            f"in the train trajectories the field {', '.join(constant)}: normalisation would divide by 0; "
            "expected a field that varies"
        )
    return tuple(moments.mean.tolist()), tuple(std.tolist())
