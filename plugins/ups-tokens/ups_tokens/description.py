"""What a set of token sequences is: what a model of them is sized from."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from attrs import field, frozen
from attrs.validators import gt
from numpy.typing import NDArray

from .vocabulary import Vocabulary


@frozen
class TokenSpec:
    """The vocabulary, the length of the longest sequence, the number of token types, and what tokens stand for.

    Type 0 is that of BOS, EOS and PAD; type 1 + m is that of the positions of modality m, MISSING ones included.
    `codebooks` are those of the data at hand, by modality, (V_m, d_m) float32; there are none before the data are made,
    and none in a description that was read back: a model keeps them with its weights.
    """

    vocabulary: Vocabulary
    length: int = field(validator=gt(1))  # L
    types: int = field(validator=gt(0))
    codebooks: Mapping[str, NDArray[np.float32]] = field(factory=dict, eq=False, repr=False)

    def __attrs_post_init__(self) -> None:
        if self.types < 1 + len(self.vocabulary.modalities):
            raise ValueError(f"types = {self.types}: expected at least 1 and one for each modality")
        for name, values in self.codebooks.items():
            modality = self.vocabulary[name]
            expected = (modality.size, modality.dims)
            if values.shape != expected:
                raise ValueError(f"the codebook of '{name}' has the shape {values.shape}; expected {expected}")

    def type_of(self, modality: str) -> int:
        """The token type of a modality's positions."""
        return 1 + self.vocabulary.index(modality)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON: everything but the codebooks' values."""
        return {"vocabulary": self.vocabulary.to_dict(), "length": self.length, "types": self.types}

    def lines(self) -> Iterable[str]:
        """The same for people: `upskit validate --data`."""
        yield f"  sequences   of at most {self.length} tokens, {self.types} types"
        for each in self.vocabulary.modalities:
            values = "1 value" if each.dims == 1 else f"{each.dims} values"
            yield f"  {each.name:<11} {each.kind}, {each.size} tokens of {values}"

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> TokenSpec:
        """What `to_dict` gave, without codebooks; raises ValueError for anything else."""
        try:
            return cls(Vocabulary.from_dict(values["vocabulary"]), int(values["length"]), int(values["types"]))
        except (KeyError, TypeError) as error:
            raise ValueError(
                f"{type(error).__name__} {error}: expected what token sequences are, {{vocabulary, length, types}}"
            ) from error
