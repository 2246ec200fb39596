"""Config classes each of which breaks a clause that holds for every kind."""

from __future__ import annotations

from typing import Any

from attrs import define, field, frozen

from ups_kit import Components, FieldSpec, LatentSpec, hookimpl
from ups_kit.testing.tiny import TinyOperatorConfig


@frozen(kw_only=True)
class NoExample:
    """A key that must be written, without an example that could be."""

    sizes: tuple[int, ...] = field(metadata={"help": "sizes of something"})

    def build(self, model: Any) -> Any: ...


@frozen(kw_only=True)
class Doubling:
    """A key that is doubled whenever it is read."""

    steps: int = field(default=1, converter=lambda value: 2 * value, metadata={"help": "steps of something"})

    def build(self, fields: FieldSpec, latent: LatentSpec) -> Any:
        return TinyOperatorConfig().build(fields, latent)


@define(kw_only=True)
class Soft:
    """A class that is not frozen."""

    width: int = field(default=1, metadata={"help": "width of something"})

    def build(self, fields: FieldSpec, latent: LatentSpec) -> Any:
        return TinyOperatorConfig().build(fields, latent)


@frozen(kw_only=True)
class Silent:
    """A key that nobody explains."""

    width: int = 1

    def build(self, fields: FieldSpec, latent: LatentSpec) -> Any:
        return TinyOperatorConfig().build(fields, latent)


@frozen(kw_only=True)
class Nameless:
    width: int = field(default=1, metadata={"help": "width of something"})

    def build(self, fields: FieldSpec, latent: LatentSpec) -> Any:
        return TinyOperatorConfig().build(fields, latent)


@hookimpl
def ups_kit_components() -> Components:
    return {
        "optimizer": {"no_example": NoExample},
        "operator": {"doubling": Doubling, "soft": Soft, "silent": Silent, "nameless": Nameless},
    }
