"""The keys of the latent operators."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any, ClassVar, Literal

from attrs import field, frozen
from attrs.validators import deep_iterable, ge, gt, lt, min_len, optional

from ups_kit import FieldSpec, LatentSpec
from ups_kit.interfaces import LatentForm, Operator, heads_problems


@frozen(kw_only=True)
class FNOConfig:
    """A Fourier neural operator on the lattice of tokens; conditioned by a scale and a shift of every layer."""

    tiny: ClassVar[Mapping[str, Any]] = {"modes": 2, "layers": 2}

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

    tiny: ClassVar[Mapping[str, Any]] = {"depth": 1}

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


@frozen(kw_only=True)
class PDETransformerConfig:
    """A U-shaped transformer on the lattice of tokens, after PDE-Transformer: attention in shifted windows.

    Coarser levels, of half the tokens along each axis, correct finer ones. Conditioned as `transformer`.
    """

    tiny: ClassVar[Mapping[str, Any]] = {"depths": (1, 1), "window": 4}

    depths: tuple[int, ...] = field(
        default=(1, 1, 2),
        validator=[min_len(1), deep_iterable(gt(0))],
        metadata={"help": "blocks of each level, finest first; on all but the last, as many once more on the way up"},
    )
    window: int = field(default=8, validator=gt(0), metadata={"help": "tokens along each axis that hear each other"})
    widening: Literal[1, 2] = field(
        default=1, metadata={"help": "width and heads of a level, in those of the one before"}
    )
    heads: int = field(
        default=2, validator=gt(0), metadata={"help": "attention heads of the finest level, of each group of channels"}
    )
    channel_groups: int = field(
        default=1,
        validator=gt(0),
        metadata={"help": "groups of channels that are attended each by itself, with the same projections"},
    )
    mlp_ratio: float = field(
        default=4.0, validator=gt(0), metadata={"help": "width of a block's network, in token widths"}
    )
    modulation: Literal["shared", "low_rank", "full"] = field(
        default="low_rank",
        metadata={
            "help": "one modulation for a level's blocks, one each through a bottleneck, or as in UPT's own build"
        },
    )
    rank: int = field(
        default=16, validator=gt(0), metadata={"help": "width of the code that a condition is brought to, if not full"}
    )
    neighbours: bool = field(default=True, metadata={"help": "mix direct neighbours before each attention"})

    def check(self, fields: FieldSpec, latent: LatentSpec) -> Iterable[tuple[str, str]]:
        """Groups and heads must divide the width; a grid has more points along its axes than there can be tokens."""
        width, groups = latent.width, self.channel_groups
        if width % 2:
            yield from heads_problems(self.heads, width)
        elif width % groups or (width // groups) % 2:
            fitting = [count for count in range(1, width + 1) if width % (2 * count) == 0]
            near = min(fitting, key=lambda count: abs(count - groups), default=1)
            yield (
                "channel_groups",
                f"{groups} groups do not cut latent.width = {width} into even parts; nearest: channel_groups = {near}",
            )
        else:
            name = "latent.width" if groups == 1 else f"latent.width / {groups} groups"
            yield from heads_problems(self.heads, width // groups, name)
        if fields.grid is not None and self.window > max(fields.grid):
            grid = " × ".join(map(str, fields.grid))
            yield "window", f"expected at most {max(fields.grid)} tokens, on the grid {grid}; got {self.window}"
        yield from _level_problems("depths", len(self.depths), fields)

    @property
    def forms(self) -> tuple[LatentForm, ...]:
        """Tokens that can be cut into windows and halved."""
        return ("lattice",)

    def build(self, fields: FieldSpec, latent: LatentSpec) -> Operator:
        from .pde_transformer import PDETransformerOperator

        return PDETransformerOperator(
            fields,
            latent,
            depths=self.depths,
            widening=self.widening,
            window=self.window,
            heads=self.heads,
            channel_groups=self.channel_groups,
            mlp_ratio=self.mlp_ratio,
            modulation=self.modulation,
            rank=self.rank,
            neighbours=self.neighbours,
        )


@frozen(kw_only=True)
class UNetConfig:
    """A convolutional U-Net on the lattice of tokens; conditioned by a scale and a shift of every residual block."""

    hidden: int | None = field(
        default=None,
        validator=optional(gt(0)),
        metadata={
            "help": "channels of the finest level, twice as many on each coarser one; the token width by default"
        },
    )
    levels: int = field(
        default=3, validator=gt(0), metadata={"help": "lattices, each of half the tokens along each axis"}
    )
    blocks: int = field(
        default=1, validator=gt(0), metadata={"help": "residual blocks of a level, on the way down and on the way up"}
    )

    def check(self, fields: FieldSpec, latent: LatentSpec) -> Iterable[tuple[str, str]]:
        """A grid can be halved so often, and its tokens not more often."""
        yield from _level_problems("levels", self.levels, fields)

    @property
    def forms(self) -> tuple[LatentForm, ...]:
        """Tokens that convolutions can go over."""
        return ("lattice",)

    def build(self, fields: FieldSpec, latent: LatentSpec) -> Operator:
        from .unet import UNetOperator

        return UNetOperator(
            latent.width,
            len(fields.conditions),
            fields.periodic,
            hidden=latent.width if self.hidden is None else self.hidden,
            levels=self.levels,
            blocks=self.blocks,
        )


@frozen(kw_only=True)
class PersistenceConfig:
    """Leaves the tokens as they are: the floor under all other operators. Without parameters; deaf to conditions."""

    def build(self, fields: FieldSpec, latent: LatentSpec) -> Operator:
        from .persistence import PersistenceOperator

        return PersistenceOperator()


def _level_problems(key: str, levels: int, fields: FieldSpec) -> Iterable[tuple[str, str]]:
    """More levels than a grid can be halved; of a lattice of tokens, that is seen when there is one."""
    if fields.grid is not None and levels > (most := 1 + math.ceil(math.log2(max(fields.grid)))):
        grid = " × ".join(map(str, fields.grid))
        yield key, f"expected at most {most} levels, which halve the grid {grid} to one point; got {levels}"
