"""Recipe keys of the model."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from attrs import field, frozen
from attrs.validators import ge, gt, lt

from ..description import TokenSpec

if TYPE_CHECKING:
    from torch import nn


@frozen(kw_only=True)
class TokenTransformerConfig:
    """A causal transformer on sequences of typed tokens: (tokens, types, mask) to logits (B, L, V).

    A token enters as the sum of three learned embeddings: of its id, of its type, and of its place in the sequence.
    Blocks are pre-norm, with GELU. The codebooks of the data are kept among its weights.
    """

    family: ClassVar[str] = "tokens"

    width: int = field(default=768, validator=gt(0), metadata={"help": "numbers of a token's state"})
    layers: int = field(default=12, validator=gt(0), metadata={"help": "transformer blocks"})
    heads: int = field(default=12, validator=gt(0), metadata={"help": "heads of attention; divides width"})
    feed_forward: int = field(default=3072, validator=gt(0), metadata={"help": "width of a block's network"})
    length: int = field(
        default=2048, validator=gt(1), metadata={"help": "tokens of the longest sequence", "unit": "tokens"}
    )
    types: int = field(default=20, validator=gt(0), metadata={"help": "token types that have an embedding"})
    dropout: float = field(
        default=0.0,
        validator=[ge(0.0), lt(1.0)],
        metadata={"help": "share that is dropped of embeddings and of what each block adds"},
    )
    tied: bool = field(default=False, metadata={"help": "take the embeddings of ids for the logits, too"})
    checkpointing: bool = field(
        default=False,
        metadata={"help": "keep each block's input alone and compute the rest once more: less memory, more time"},
    )

    def __attrs_post_init__(self) -> None:
        if self.width % self.heads:
            fitting = [count for count in range(1, self.width + 1) if self.width % count == 0]
            near = min(fitting, key=lambda count: abs(count - self.heads))
            raise ValueError(
                f"{self.heads} heads do not cut width = {self.width} into even parts; nearest: heads = {near}"
            )

    def check_data(self, data: TokenSpec) -> Iterable[tuple[str, str]]:
        """Sequences and their types must have embeddings."""
        if data.length > self.length:
            yield (
                "length",
                f"sequences of the data are up to {data.length} long; expected at least that, got {self.length}",
            )
        if data.types > self.types:
            yield "types", f"the data have {data.types} token types; expected at least that, got {self.types}"

    def read_description(self, values: Mapping[str, Any]) -> TokenSpec:
        """What token sequences are, from its `to_dict`. Raises ValueError."""
        return TokenSpec.from_dict(values)

    def build(self, data: TokenSpec) -> nn.Module:
        from .transformer import TokenTransformer

        return TokenTransformer(self, data)
