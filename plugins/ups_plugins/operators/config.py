"""The keys of the latent operators."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

from attrs import field, frozen
from attrs.validators import ge, gt, lt, optional

from ups_kit import FieldSpec, LatentSpec
from ups_kit.interfaces import LatentForm, Operator, heads_problems


@frozen(kw_only=True)
class FNOConfig:
    """A Fourier neural operator on the lattice of tokens; conditioned by a scale and a shift of every layer."""

    modes: int = field(
        default=16,
        validator=gt(0),
        metadata={"help": "Fourier modes kept along each axis, at most half the tokens there"},
    )
    layers: int = field(default=4, validator=gt(0), metadata={"help": "Fourier layers"})
    hidden: int | None = field(
        default=None, validator=optional(gt(0)), metadata={"help": "channels inside; the token width where not given"}
    )
    padding: float = field(
        default=0.125,
        validator=ge(0),
        metadata={"help": "zeros added to an axis that is not periodic, as a share of it"},
    )

    def check(self, fields: FieldSpec, latent: LatentSpec) -> Iterable[tuple[str, str]]:
        """A regular grid resolves the modes; for other points, that is seen when their encoder's lattice is."""
        if fields.grid is not None and 2 * self.modes > min(fields.grid):
            grid = " × ".join(map(str, fields.grid))
            yield "modes", f"expected at most {min(fields.grid) // 2}, half of the grid {grid}; got {self.modes}"

    @property
    def forms(self) -> tuple[LatentForm, ...]:
        """Tokens that can be transformed."""
        return ("lattice",)

    def build(self, fields: FieldSpec, latent: LatentSpec) -> Operator:
        from .fno import FNOOperator

        return FNOOperator(
            latent.width,
            len(fields.conditions),
            fields.periodic,
            hidden=self.hidden,
            modes=self.modes,
            layers=self.layers,
            padding=self.padding,
        )


@frozen(kw_only=True)
class TransformerConfig:
    """A transformer over the latent tokens, as in UPT; conditioned by AdaLN on the time step and the parameters."""

    depth: int = field(default=4, validator=gt(0), metadata={"help": "transformer blocks"})
    heads: int = field(default=2, validator=gt(0), metadata={"help": "attention heads; divides latent.width"})
    mlp_ratio: float = field(
        default=4.0, validator=gt(0), metadata={"help": "width of a block's network, in token widths"}
    )
    modulation: Literal["shared", "low_rank", "full"] = field(
        default="low_rank",
        metadata={"help": "one modulation for all blocks, one each through a bottleneck, or as in UPT's own build"},
    )
    rank: int = field(
        default=16, validator=gt(0), metadata={"help": "width of the code that a condition is brought to, if not full"}
    )
    neighbours: bool = field(
        default=True, metadata={"help": "mix direct neighbours before each attention, where tokens form a lattice"}
    )
    drop_path: float = field(
        default=0.0,
        validator=[ge(0), lt(1)],
        metadata={"help": "stochastic depth of the last block; earlier ones less"},
    )

    def check(self, fields: FieldSpec, latent: LatentSpec) -> Iterable[tuple[str, str]]:
        """Heads must divide the width into even parts."""
        yield from heads_problems(self.heads, latent.width)

    def build(self, fields: FieldSpec, latent: LatentSpec) -> Operator:
        from .transformer import TransformerOperator

        return TransformerOperator(
            fields,
            latent,
            depth=self.depth,
            heads=self.heads,
            mlp_ratio=self.mlp_ratio,
            modulation=self.modulation,
            rank=self.rank,
            neighbours=self.neighbours,
            drop_path=self.drop_path,
        )
