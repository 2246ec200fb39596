"""The keys of the constraints: laws that decoded fields keep exactly."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, ClassVar

import attrs
from attrs import frozen
from attrs.validators import min_len

from ups_kit import FieldSpec, LatentSpec

from .fields import channels_of, listed, not_a_vector, unknown

if TYPE_CHECKING:
    from ups_kit.data.normalisation import Normaliser
    from ups_kit.interfaces import Constraint

Problems = Iterable[tuple[str, str]]
NAME_HELP = "what it is called; constraints of one `use` need names of their own"


@frozen(kw_only=True)
class TotalConfig:
    """The mean of predicted fields over the domain stays that of the newest given frame, or is a given value.

    A number is added to the whole field: the same at every point, other for each sample and channel. Total mass is
    then kept to the rounding of the numbers that a frame is made of. On regular grids.
    """

    name: str = attrs.field(default="total", metadata={"help": NAME_HELP})
    fields: tuple[str, ...] = attrs.field(
        validator=min_len(1), metadata={"help": "predicted fields whose mean is kept", "example": '["u"]'}
    )
    value: float | None = attrs.field(
        default=None,
        metadata={"help": "the mean instead, in the fields' own unit; that of the given frame where there is none"},
    )

    @property
    def constrains(self) -> tuple[str, ...]:
        """The fields that it acts on."""
        return self.fields

    def check(self, fields: FieldSpec, latent: LatentSpec) -> Problems:
        """Fields that are there, and a mean of them that is known."""
        yield from unknown(fields, self.fields, "fields")
        if fields.grid is None:
            yield (
                "use",
                f"needs a regular grid, and these data lie on a layout '{fields.layout}': a mean over its points is no "
                'integral; use the loss "conservation", which asks for less',
            )
        elif self.value is None and fields.steady:
            yield "value", "missing key: steady data have no given frame whose mean could be kept; set value = 0.0"
        elif self.value is None and fields.sampled_inputs is not None:
            yield (
                "value",
                "missing key: dataset.input_points reads given frames at random points alone, whose mean is not the "
                "frame's; set value, or leave dataset.input_points out",
            )

    def build(self, fields: FieldSpec, normaliser: Normaliser) -> Constraint:
        from .constraints import Total

        return Total.of(fields, channels_of(fields, self.fields) or (), self.value, normaliser)


@frozen(kw_only=True)
class DivergenceFreeConfig:
    """A predicted vector field has no divergence, such as the velocity of an incompressible flow. On periodic grids.

    Of all fields without divergence it becomes the one that is nearest (Helmholtz' projection), in physical units, by
    derivatives of the Fourier series through the grid's points. Its mean is kept.
    """

    tiny: ClassVar[Mapping[str, Any]] = {"field": "u"}

    name: str = attrs.field(default="divergence_free", metadata={"help": NAME_HELP})
    field: str | None = attrs.field(
        default=None, metadata={"help": "a predicted field, whose channels are the components", "example": '"velocity"'}
    )
    fields: tuple[str, ...] = attrs.field(
        default=(),
        metadata={"help": "instead of field: predicted fields that are the components, in the order of the axes"},
    )

    def __attrs_post_init__(self) -> None:
        if self.field is not None and self.fields:
            raise ValueError("stands for field; leave one of the two out", attrs.fields_dict(type(self))["fields"])

    @property
    def constrains(self) -> tuple[str, ...]:
        """The fields that it acts on."""
        return self.fields or ((self.field,) if self.field is not None else ())

    def check(self, fields: FieldSpec, latent: LatentSpec) -> Problems:
        """A vector field on a periodic grid."""
        names, key = self.constrains, "fields" if self.fields else "field"
        if not names:
            yield "field", f"missing key; name the vector field (predicted: {listed(fields.targets)})"
        yield from unknown(fields, names, key)
        if fields.space_dims == 1:
            yield "use", "needs two or three dimensions, and these data have one: all that is left is a constant"
        elif names:
            yield from not_a_vector(fields, names, key)
        bounded = [axis for axis, wraps in zip("xyz", fields.periodic, strict=False) if not wraps]
        if fields.grid is None:
            yield (
                "use",
                f"needs a periodic grid, and these data lie on a layout '{fields.layout}'; use the loss "
                '"divergence", which asks for less',
            )
        elif bounded:
            yield (
                "use",
                f"needs periodic axes, and {' and '.join(bounded)} {'is' if len(bounded) == 1 else 'are'} not; use the "
                'loss "divergence", which asks for less',
            )

    def build(self, fields: FieldSpec, normaliser: Normaliser) -> Constraint:
        from .constraints import DivergenceFree

        return DivergenceFree(fields, channels_of(fields, self.constrains) or (), normaliser)
