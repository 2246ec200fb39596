"""The keys of the losses that know of physics, and of two that keep latents in shape."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any, ClassVar, Literal

import attrs
from attrs import frozen
from attrs.validators import ge, gt, in_, min_len, optional

from ups_kit import FieldSpec, LatentSpec, Weighted
from ups_kit.errors import did_you_mean
from ups_kit.interfaces import Loss

from .fields import channels_of, in_a_mixture, listed, named, no_such_step, not_a_vector, not_at_all_points, unknown
from .sides import SIDES, paired, sides_of

METHODS = ("auto", "spectral", "finite_difference", "least_squares")
STEP_HELP = "which prediction: k model steps from t, or 0 for what is encoded and decoded again"
LATENT_STEP_HELP = "which latent: 0 is E(u_t), k is k model steps later"
VECTOR_HELP = "a predicted field, whose channels are the components"
COMPONENTS_HELP = "instead of field: predicted fields that are the components, in the order of the axes"

NO_FLAG = """none; of meshes dataset.features = ["boundary"] gives one"""

Method = Literal["auto", "spectral", "finite_difference", "least_squares"]
Problems = Iterable[tuple[str, str]]


@frozen(kw_only=True)
class DivergenceConfig(Weighted):
    """Mean squared divergence of a predicted vector field, such as the velocity of an incompressible flow.

    In physical units, over the mean square of the true frame's gradients, so that 0.01 means that divergence is a tenth
    of what the field's gradients are; it needs no truth otherwise.
    """

    tiny: ClassVar[Mapping[str, Any]] = {"fields": ["u", "v"]}

    field: str | None = attrs.field(default=None, metadata={"help": VECTOR_HELP})
    fields: tuple[str, ...] = attrs.field(default=(), metadata={"help": COMPONENTS_HELP, "example": '["u", "v"]'})
    step: int = attrs.field(default=1, validator=ge(0), metadata={"help": STEP_HELP})
    method: Method = attrs.field(
        default="auto",
        validator=in_(METHODS),
        metadata={
            "help": "spectral (periodic grids), finite_difference (grids, second order), least_squares (any points); "
            "auto: the first of them that the data allow"
        },
    )
    neighbours: int | None = attrs.field(
        default=None,
        validator=optional(gt(0)),
        metadata={"help": "of each point, for least_squares; 6, 12 or 24 in one, two or three dimensions if not given"},
    )
    relative: bool = attrs.field(
        default=True,
        metadata={"help": "over the mean square of the true frame's gradients; false: the mean square itself"},
    )

    def __attrs_post_init__(self) -> None:
        _one_of_two(self)

    @property
    def names(self) -> tuple[str, ...]:
        """The fields that are the components."""
        return self.fields or ((self.field,) if self.field is not None else ())

    def chosen(self, fields: FieldSpec) -> Literal["spectral", "finite_difference", "least_squares"]:
        """The method on such data."""
        if self.method != "auto":
            return self.method
        if fields.grid is None:
            return "least_squares"
        return "spectral" if all(fields.periodic) else "finite_difference"

    def check(self, fields: FieldSpec, latent: LatentSpec) -> Problems:
        """A vector field, at all points, that the method can take derivatives of."""
        key = "fields" if self.fields else "field"
        if not self.names:
            yield "field", f"missing key; name the vector field (predicted: {listed(fields.targets)})"
        yield from unknown(fields, self.names, key)
        if self.names:
            yield from not_a_vector(fields, self.names, key)
        yield from in_a_mixture(fields, "a divergence adds components in their own units")
        yield from not_at_all_points(fields, "derivatives need a point's neighbours")
        yield from no_such_step(fields, self.step, decodes=True)
        yield from self._method_problems(fields)

    def _method_problems(self, fields: FieldSpec) -> Problems:
        method = self.chosen(fields)
        if method != "least_squares":
            if fields.grid is None:
                yield (
                    "method",
                    f"'{method}' needs a regular grid, and these data lie on a layout '{fields.layout}'; set method = "
                    "'least_squares', or leave it out",
                )
            elif method == "spectral" and not all(fields.periodic):
                bounded = [axis for axis, wraps in zip("xyz", fields.periodic, strict=False) if not wraps]
                are = "is" if len(bounded) == 1 else "are"
                yield (
                    "method",
                    f"'spectral' needs periodic axes, and {' and '.join(bounded)} {are} not; set "
                    "method = 'finite_difference'",
                )
            elif min(fields.grid) < 3:
                yield "method", f"differences need 3 points along each axis; the grid is {list(fields.grid)}"
        elif self.neighbours is not None and self.neighbours < fields.space_dims:
            yield "neighbours", f"expected at least {fields.space_dims}, as many as dimensions, got {self.neighbours}"
        if method != "least_squares" and self.neighbours is not None:
            yield "neighbours", f"is of 'least_squares' alone, and these data are differentiated by '{method}'"

    def build(self, fields: FieldSpec) -> Loss:
        from .losses import DivergenceLoss

        channels = channels_of(fields, self.names)
        return DivergenceLoss.of(fields, channels, self.step, self.chosen(fields), self.neighbours, self.relative)


@frozen(kw_only=True)
class ConservationConfig(Weighted):
    """Squared drift of an integral of the prediction: of a field (mass), of ρu (momentum), or of ρ|u|²/2 (energy).

    The integral is the mean over points, each counting alike. Drifts of fields are in units of the field's deviation;
    those of products over the root mean square of the true product.
    """

    of: Literal["mass", "momentum", "energy"] = attrs.field(
        default="mass",
        validator=in_(("mass", "momentum", "energy")),
        metadata={"help": "what is integrated: the field itself, ρ times each component, or ρ/2 times its square"},
    )
    field: str | None = attrs.field(
        default=None, metadata={"help": "a predicted field; for momentum a vector; the only one if not given"}
    )
    fields: tuple[str, ...] = attrs.field(default=(), metadata={"help": COMPONENTS_HELP, "example": '["u", "v"]'})
    density: str | None = attrs.field(
        default=None, metadata={"help": "the predicted field ρ of momentum and energy; 1 if not given"}
    )
    against: Literal["start", "truth"] = attrs.field(
        default="start",
        validator=in_(("start", "truth")),
        metadata={"help": "the true integral at t, which is conserved, or that of the step itself, which may change"},
    )
    step: int = attrs.field(default=1, validator=ge(0), metadata={"help": STEP_HELP})

    def __attrs_post_init__(self) -> None:
        _one_of_two(self)
        if self.of == "mass" and self.density is not None:
            keys = attrs.fields_dict(type(self))
            raise ValueError("is of momentum and energy alone; name the field of a mass as field", keys["density"])

    def names(self, fields: FieldSpec) -> tuple[str, ...]:
        """The fields that are integrated."""
        if self.fields or self.field is not None:
            return self.fields or (self.field or "",)
        rest = tuple(each.name for each in fields.targets if each.name != self.density)
        return rest if len(rest) == 1 else ()

    @property
    def linear(self) -> bool:
        """Whether the integral is one of the fields themselves."""
        return self.of != "energy" and self.density is None

    def check(self, fields: FieldSpec, latent: LatentSpec) -> Problems:
        """Fields that are there, at all points, and of a time series where the start is what counts."""
        names, key = self.names(fields), "fields" if self.fields else "field"
        if not names:
            yield "field", f"missing key; name what is conserved (predicted: {listed(fields.targets)})"
        yield from unknown(fields, names, key)
        if self.of == "momentum" and names:
            yield from not_a_vector(fields, names, key)
        if self.density is not None:
            yield from unknown(fields, [self.density], "density")
            for found in named(fields, [self.density]):
                if found.channels != 1:
                    yield "density", f"expected a field of one channel, and '{found.name}' has {found.channels}"
        if not self.linear:
            yield from in_a_mixture(fields, f"{self.of} is a product of fields in their own units", "of")
        yield from not_at_all_points(fields, "an integral needs all points")
        yield from no_such_step(fields, self.step, decodes=True)
        if fields.steady and self.against == "start":
            yield "against", "these data are steady, with no state at the start; set against = 'truth'"

    def build(self, fields: FieldSpec) -> Loss:
        from .losses import ConservationLoss

        density = None if self.density is None else channels_of(fields, [self.density])
        channels = channels_of(fields, self.names(fields))
        if self.density is not None and density is None:
            channels = None
        return ConservationLoss(channels, density, self.of, self.linear, self.against, self.step)


@frozen(kw_only=True)
class BoundaryConfig(Weighted):
    """Squared mismatch of the prediction at the boundary, in units of each field's deviation.

    `value`: to given values (Dirichlet). `truth`: to the true frame's own. `neumann`: of the derivative along the
    outward normal to given values, over the extent of the axis. `periodic`: between the two ends of an axis. On grids
    the walls' values are extrapolated from the three nearest points; elsewhere, or where something stands in a grid, a
    static field of zeros and ones says which points are on the boundary (`flag`).
    """

    kind: Literal["value", "truth", "neumann", "periodic"] = attrs.field(
        default="value",
        validator=in_(("value", "truth", "neumann", "periodic")),
        metadata={"help": "what holds there: given values, the true ones, given slopes, or that both ends agree"},
    )
    fields: tuple[str, ...] = attrs.field(default=(), metadata={"help": "predicted fields; all of them if not given"})
    values: Mapping[str, float | tuple[float, ...]] = attrs.field(
        factory=dict,
        metadata={
            "help": "by field, physical: one number, or one for each channel; 0 if not given. Of neumann the slopes",
            "example": "{ velocity = [1.0, 0.0] }",
        },
    )
    sides: tuple[str, ...] = attrs.field(
        default=(),
        metadata={
            "help": "of a grid: x0, x1 (left, right), y0, y1 (bottom, top), z0, z1 (back, front); all that are not "
            "periodic if not given, of kind periodic all that are",
            "example": '["left", "right"]',
        },
    )
    flag: str | None = attrs.field(
        default=None, metadata={"help": "instead of sides: a static field that is 1 at points on the boundary, else 0"}
    )
    flag_channel: int = attrs.field(
        default=0, validator=ge(0), metadata={"help": "which channel of that field, where it has several"}
    )
    step: int = attrs.field(default=1, validator=ge(0), metadata={"help": STEP_HELP})

    def __attrs_post_init__(self) -> None:
        keys = attrs.fields_dict(type(self))
        if self.flag is not None and self.sides:
            raise ValueError("stands for sides; leave one of the two out", keys["flag"])
        if self.flag is not None and self.kind in ("neumann", "periodic"):
            raise ValueError(f"marks points, and kind = '{self.kind}' is one of sides; leave flag out", keys["flag"])
        if self.values and self.kind in ("truth", "periodic"):
            raise ValueError(f"kind = '{self.kind}' takes no values; leave them out", keys["values"])

    def names(self, fields: FieldSpec) -> tuple[str, ...]:
        """The fields that are compared."""
        return self.fields or tuple(each.name for each in fields.targets)

    def check(self, fields: FieldSpec, latent: LatentSpec) -> Problems:
        """Fields, sides and flags that are there."""
        yield from unknown(fields, self.fields, "fields")
        yield from self._value_problems(fields)
        yield from no_such_step(fields, self.step, decodes=True)
        if self.kind == "value" or any(self._numbers(name) for name in self.values):
            yield from in_a_mixture(fields, "values are given in one unit")
        if self.flag is not None:
            yield from self._flag_problems(fields)
            return
        yield from not_at_all_points(fields, "sides are those of a whole grid")
        if fields.grid is None:
            yield (
                "flag",
                f"missing key: a layout '{fields.layout}' has no sides; name a static field that is 1 on the boundary "
                f"(static: {listed(fields.statics) or NO_FLAG})",
            )
            return
        yield from self._side_problems(fields)

    def _numbers(self, name: str) -> tuple[float, ...]:
        """The values of a field that are not 0."""
        value = self.values[name]
        return tuple(each for each in (value if isinstance(value, tuple) else (value,)) if each)

    def _value_problems(self, fields: FieldSpec) -> Problems:
        yield from unknown(fields, self.values, "values")
        for name, value in self.values.items():
            if not all(map(math.isfinite, value if isinstance(value, tuple) else (value,))):
                yield "values", f"expected finite numbers for '{name}', got {value}"
            for found in named(fields, [name]):
                if name not in self.names(fields):
                    yield "values", f"'{name}' is not one of fields = {list(self.fields)}"
                if isinstance(value, tuple) and len(value) != found.channels:
                    count = (
                        f"{found.channels} numbers for '{name}', or one" if found.channels > 1 else f"one for '{name}'"
                    )
                    yield "values", f"expected {count}, got {len(value)}"

    def _flag_problems(self, fields: FieldSpec) -> Problems:
        if fields.sampled is not None:
            yield (
                "flag",
                f"dataset.points = {fields.sampled} reads frames at other points than what is given, flags too",
            )
        found = next((each for each in fields.statics if each.name == self.flag), None)
        if found is None:
            known = [each.name for each in fields.statics]
            near = did_you_mean(self.flag or "", known)
            yield "flag", f"no static field is called '{self.flag}'{near} (static: {listed(fields.statics) or 'none'})"
        elif self.flag_channel >= found.channels:
            yield "flag_channel", f"'{self.flag}' has the channels 0 … {found.channels - 1}, got {self.flag_channel}"

    def _side_problems(self, fields: FieldSpec) -> Problems:
        known = SIDES[: 2 * fields.space_dims]
        names = [name for pair in known for name in pair]
        for name in self.sides:
            if name not in names:
                shown = ", ".join(f"{code} ({word})" for code, word in known)
                yield "sides", f"no side is called '{name}'{did_you_mean(name, names)} (sides: {shown})"
        if self.kind != "periodic":
            for axis in sorted({axis for axis, _ in sides_of(self.sides)}):
                if axis < fields.space_dims and fields.periodic[axis]:
                    yield "sides", f"the axis {'xyz'[axis]} is periodic and has no sides; leave them out"
        if not self.sides and all(fields.periodic) and self.kind != "periodic":
            yield (
                "kind",
                f"every axis is periodic, so that there is no boundary; got '{self.kind}', nearest: 'periodic'",
            )
        if not self.sides and not any(fields.periodic) and self.kind == "periodic":
            yield "kind", "no axis is periodic in these data; name the sides that shall agree, such as sides = ['x0']"
        if fields.grid is not None and min(fields.grid) < 3:
            yield "use", f"walls are extrapolated from 3 points along an axis; the grid is {list(fields.grid)}"

    def build(self, fields: FieldSpec) -> Loss:
        from .boundary import FlaggedLoss, SidesLoss

        names = tuple(each.name for each in named(fields, self.names(fields)))
        channels = (channels_of(fields, names) or None) if names else None
        values = tuple(
            number
            for each in named(fields, names)
            for number in _spread(self.values.get(each.name, 0.0), each.channels)
        )
        if self.flag is not None:
            place = _static_channel(fields, self.flag, self.flag_channel)
            return FlaggedLoss(channels, values, self.kind == "truth", place, self.step)
        return SidesLoss(channels, values, self.kind, self._sides(fields), fields, self.step)

    def _sides(self, fields: FieldSpec) -> tuple[tuple[int, int], ...]:
        """The sides that count, as (axis, end); of kind periodic one of each axis."""
        if self.kind == "periodic":
            return paired(self.sides, fields.periodic)
        own = sides_of(self.sides)
        return own or tuple((axis, end) for axis, wraps in enumerate(fields.periodic) if not wraps for end in (0, 1))


@frozen(kw_only=True)
class PositivityConfig(Weighted):
    """Mean square of what lies below zero of predicted fields such as densities, in units of their deviation."""

    fields: tuple[str, ...] = attrs.field(
        validator=min_len(1), metadata={"help": "predicted fields that are never negative", "example": '["density"]'}
    )
    minimum: float = attrs.field(default=0.0, metadata={"help": "in the fields' unit: what they never fall below"})
    step: int = attrs.field(default=1, validator=ge(0), metadata={"help": STEP_HELP})

    def check(self, fields: FieldSpec, latent: LatentSpec) -> Problems:
        """Fields that are there."""
        yield from unknown(fields, self.fields, "fields")
        yield from in_a_mixture(fields, "zero is no longer where it was")
        yield from no_such_step(fields, self.step, decodes=True)

    def build(self, fields: FieldSpec) -> Loss:
        from .losses import PositivityLoss

        return PositivityLoss(channels_of(fields, self.fields), self.minimum, self.step)


@frozen(kw_only=True)
class LatentNormConfig(Weighted):
    """Squared distance of the tokens' mean norm from a target: against latents that collapse or blow up."""

    target: float = attrs.field(default=1.0, validator=gt(0), metadata={"help": "what the mean norm shall be"})
    relative: bool = attrs.field(
        default=False, metadata={"help": "norms over the root of the width: 1 is then a token of unit variance"}
    )
    step: int = attrs.field(default=0, validator=ge(0), metadata={"help": LATENT_STEP_HELP})

    def check(self, fields: FieldSpec, latent: LatentSpec) -> Problems:
        """A step that the data have."""
        yield from no_such_step(fields, self.step, decodes=False)

    def build(self, fields: FieldSpec) -> Loss:
        from .losses import LatentNormLoss

        return LatentNormLoss(self.target, self.relative, self.step)


@frozen(kw_only=True)
class LatentDiversityConfig(Weighted):
    """Mean squared cosine of the angles between a sample's tokens: against tokens that all say the same."""

    step: int = attrs.field(default=0, validator=ge(0), metadata={"help": LATENT_STEP_HELP})

    def check(self, fields: FieldSpec, latent: LatentSpec) -> Problems:
        """Several tokens, and a step that the data have."""
        yield from no_such_step(fields, self.step, decodes=False)
        if latent.tokens == 1:
            yield "use", "latent.tokens = 1 gives one token, which has nothing to differ from; leave this loss out"

    def build(self, fields: FieldSpec) -> Loss:
        from .losses import LatentDiversityLoss

        return LatentDiversityLoss(self.step)


def _one_of_two(config: DivergenceConfig | ConservationConfig) -> None:
    if config.field is not None and config.fields:
        message = "stands for field; leave one of the two out"
        raise ValueError(message, attrs.fields_dict(type(config))["fields"])


def _spread(value: float | tuple[float, ...], channels: int) -> tuple[float, ...]:
    """One number for each channel."""
    return value if isinstance(value, tuple) else (value,) * channels


def _static_channel(fields: FieldSpec, name: str, channel: int) -> int | None:
    """The number of a static field's channel among all that an encoder is given, from behind; None if not there."""
    after = 0
    for each in reversed(fields.statics):
        if each.name == name:
            return channel - each.channels - after
        after += each.channels
    return None
