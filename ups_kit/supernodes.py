"""The recipe keys that encoders through supernodes share. Imports no torch."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from attrs import field, frozen
from attrs.validators import ge, gt, in_, le, optional

from .interfaces import Encoder, FieldSpec, LatentForm, LatentSpec, heads_problems

if TYPE_CHECKING:
    from .neighbours import SupernodeGraph

DEFAULT_SUPERNODES = 256
MOST_ORDER = 12  # of the local fit: 91 polynomials in the plane, 455 in space
DEFAULT_REACH = 1.25  # of the spacing of supernodes: neighbourhoods of a lattice overlap, and every point is in some


@frozen(kw_only=True)
class SupernodeKeys:
    """What every encoder through supernodes can be told."""

    tiny: ClassVar[Mapping[str, Any]] = {"supernodes": 16, "degree": 8}

    supernodes: int | None = field(
        default=None,
        validator=optional(gt(0)),
        metadata={"help": "how many supernodes, on a lattice at most so many; 256 where `lattice` is not given either"},
    )
    lattice: tuple[int, ...] | None = field(
        default=None, metadata={"help": "supernodes along each axis, with choice = 'grid'", "example": "[32, 16]"}
    )
    choice: Literal["grid", "farthest", "random"] = field(
        default="grid",
        validator=in_(("grid", "farthest", "random")),
        metadata={
            "help": "where supernodes stand: on a lattice over the domain (grid), at points far from each other "
            "(farthest), at any points (random)"
        },
    )
    radius: float | None = field(
        default=None,
        validator=optional(gt(0)),
        metadata={
            "help": "a supernode hears the points within it; 1.25 × the supernodes' spacing where not given",
            "unit": "length",
        },
    )
    nearest: bool = field(
        default=False,
        metadata={"help": "hear the `degree` nearest points however far they are, instead of those within the radius"},
    )
    degree: int = field(default=32, validator=gt(0), metadata={"help": "points that a supernode hears, at most"})
    pick: Literal["spread", "nearest"] = field(
        default="spread",
        validator=in_(("spread", "nearest")),
        metadata={
            "help": "which of more than `degree` points within the radius: some from all over it, or the nearest"
        },
    )
    hidden: int | None = field(
        default=None, validator=optional(gt(0)), metadata={"help": "width of a message; latent.width where not given"}
    )
    layers: int = field(
        default=1,
        validator=[gt(0), le(16)],
        metadata={"help": "layers of the network that makes a message of each point"},
    )
    order: int = field(
        default=3,
        validator=[ge(0), le(MOST_ORDER)],
        metadata={
            "help": "total degree of the polynomials that are fitted to the values around a supernode; 0: their mean"
        },
    )
    depth: int = field(default=1, validator=ge(0), metadata={"help": "transformer blocks over the supernodes"})
    heads: int = field(default=2, validator=gt(0), metadata={"help": "attention heads; divides latent.width"})
    mlp_ratio: float = field(
        default=4.0, validator=gt(0), metadata={"help": "width of a block's network, in token widths"}
    )
    modulation: Literal["none", "shared", "low_rank", "full"] = field(
        default="none",
        validator=in_(("none", "shared", "low_rank", "full")),
        metadata={
            "help": "how the blocks are told time step and parameters (none: not at all; full: as in UPT's own build)"
        },
    )

    def check(self, fields: FieldSpec, latent: LatentSpec) -> Iterable[tuple[str, str]]:
        """Heads divide the width; supernodes, radius and degree fit the points and the domain."""
        from .neighbours.problems import graph_problems

        yield from heads_problems(self.heads, latent.width)
        count = self.supernodes if self.lattice is None else math.prod(self.lattice)
        if self.lattice is not None and self.supernodes not in (None, count):
            yield (
                "supernodes",
                f"{self.supernodes} supernodes, and lattice = {list(self.lattice)} has {count}; leave one of the two "
                "out",
            )
        elif latent.tokens is not None and latent.tokens > (count or DEFAULT_SUPERNODES):
            yield (
                "supernodes" if self.lattice is None else "lattice",
                f"latent.tokens = {latent.tokens} are more than the {count or DEFAULT_SUPERNODES} supernodes that they "
                f"are pooled from; nearest: latent.tokens = {count or DEFAULT_SUPERNODES}",
            )
        reachable = not self.nearest and min(self.lattice or (1,)) > 0
        yield from graph_problems(
            fields,
            supernodes=self._count,
            lattice=self.lattice,
            choice=self.choice,
            radius=self.reach(fields) if reachable else None,
            degree=self.degree,
        )

    def form(self, latent: LatentSpec) -> LatentForm:
        """How the tokens stand: pooled to a number, on a lattice, or on points."""
        if latent.tokens is not None:
            return "pooled"
        return "lattice" if self.choice == "grid" else "scattered"

    @property
    def _count(self) -> int | None:
        """The number of supernodes, where no lattice says it."""
        return DEFAULT_SUPERNODES if self.supernodes is None and self.lattice is None else self.supernodes

    def reach(self, fields: FieldSpec) -> float:
        """The radius, given or from the supernodes' spacing, in the domain's unit of length."""
        count = self._count or math.prod(self.lattice or (1,))
        spacing = (math.prod(fields.extent) / count) ** (1 / fields.space_dims)
        return self.radius if self.radius is not None else DEFAULT_REACH * spacing

    def graph(self, fields: FieldSpec) -> SupernodeGraph:
        """What looks up supernodes and their neighbours."""
        from .neighbours import SupernodeGraph

        return SupernodeGraph(
            domain=fields.domain,
            periodic=fields.periodic,
            choice=self.choice,
            supernodes=self._count,
            lattice=self.lattice,
            radius=None if self.nearest else self.reach(fields),
            degree=self.degree,
            pick=self.pick,
        )

    def build(self, fields: FieldSpec, latent: LatentSpec) -> Encoder:
        from .pooling import SupernodeEncoder

        return SupernodeEncoder(
            fields,
            latent,
            self.graph(fields),
            reach=self.reach(fields),
            hidden=latent.width if self.hidden is None else self.hidden,
            layers=self.layers,
            order=self.order,
            depth=self.depth,
            heads=self.heads,
            mlp_ratio=self.mlp_ratio,
            modulation=self.modulation,
        )
