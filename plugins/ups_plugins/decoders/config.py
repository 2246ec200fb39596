"""The keys of the decoders."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, ClassVar, Literal

from attrs import field, frozen
from attrs.validators import ge, gt, optional

from ups_kit import FieldSpec, LatentSpec
from ups_kit.interfaces import Decoder, LatentForm, heads_problems


@frozen(kw_only=True)
class PartitionConfig:
    """A partition of unity: each token holds a small local expansion, hat functions blend neighbours.

    The cheapest decoder: a few dozen multiply-adds per query, one small matrix product per patch on a whole grid.
    """

    tiny: ClassVar[Mapping[str, Any]] = {"modes": 4}

    modes: int = field(default=16, validator=gt(0), metadata={"help": "cosines of a token's expansion along each axis"})
    hidden: int = field(
        default=2,
        validator=ge(0),
        metadata={"help": "width of the network before the expansion, in token widths; 0: none"},
    )

    @property
    def forms(self) -> tuple[LatentForm, ...]:
        """Tokens that stand somewhere."""
        return ("lattice", "scattered")

    def build(self, fields: FieldSpec, latent: LatentSpec) -> Decoder:
        from .partition import PartitionDecoder

        return PartitionDecoder(fields, latent, modes=self.modes, hidden=self.hidden)


@frozen(kw_only=True)
class LocalConfig:
    """Attention from each query to its nearest anchored tokens, with relative positions."""

    neighbours: int = field(default=4, validator=gt(0), metadata={"help": "anchors that a query attends to"})
    heads: int = field(default=2, validator=gt(0), metadata={"help": "attention heads; divides latent.width"})
    frequencies: int = field(
        default=8, validator=gt(0), metadata={"help": "sines and cosines of the relative position"}
    )
    hidden: int = field(default=2, validator=gt(0), metadata={"help": "width of the final network, in token widths"})

    def check(self, fields: FieldSpec, latent: LatentSpec) -> Iterable[tuple[str, str]]:
        """Heads must divide the width."""
        yield from heads_problems(self.heads, latent.width)

    @property
    def forms(self) -> tuple[LatentForm, ...]:
        """Tokens that stand somewhere."""
        return ("lattice", "scattered")

    def build(self, fields: FieldSpec, latent: LatentSpec) -> Decoder:
        from .local import LocalDecoder

        return LocalDecoder(
            fields,
            latent,
            neighbours=self.neighbours,
            heads=self.heads,
            frequencies=self.frequencies,
            hidden=self.hidden,
        )


@frozen(kw_only=True)
class PerceiverConfig:
    """UPT's decoder: every query attends to all tokens, which attend to each other first in UPT's own sizes."""

    depth: int = field(default=1, validator=gt(0), metadata={"help": "cross-attention layers"})
    heads: int = field(default=2, validator=gt(0), metadata={"help": "attention heads; divides latent.width"})
    frequencies: int = field(
        default=32, validator=gt(0), metadata={"help": "sines and cosines of a query's position along each axis"}
    )
    mlp_ratio: float = field(
        default=4.0, validator=gt(0), metadata={"help": "width of a layer's network, in token widths"}
    )
    blocks: int = field(
        default=0,
        validator=ge(0),
        metadata={"help": "blocks of self-attention on the tokens, before queries hear them"},
    )
    query_width: int | None = field(
        default=None,
        validator=optional(gt(0)),
        metadata={"help": "width inside the decoder, of queries and of tokens; latent.width where not given"},
    )
    modulation: Literal["none", "shared", "low_rank", "full"] = field(
        default="none",
        metadata={"help": "whether the condition reaches blocks and layers: not, or as in an operator"},
    )
    rank: int = field(
        default=16, validator=gt(0), metadata={"help": "width of the code that a condition is brought to, if not full"}
    )

    def check(self, fields: FieldSpec, latent: LatentSpec) -> Iterable[tuple[str, str]]:
        """Heads must divide the width."""
        if self.query_width is None:
            yield from heads_problems(self.heads, latent.width)
        else:
            yield from heads_problems(self.heads, self.query_width, "query_width")

    def build(self, fields: FieldSpec, latent: LatentSpec) -> Decoder:
        from .perceiver import PerceiverDecoder

        return PerceiverDecoder(
            fields,
            latent,
            depth=self.depth,
            heads=self.heads,
            frequencies=self.frequencies,
            mlp_ratio=self.mlp_ratio,
            blocks=self.blocks,
            query_width=self.query_width,
            modulation=self.modulation,
            rank=self.rank,
        )
