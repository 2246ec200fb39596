"""The token ids: special tokens first, then one contiguous block of ids for each modality."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Literal, get_args

import numpy as np
from attrs import Attribute, field, frozen
from numpy.typing import NDArray

from ups_kit.errors import did_you_mean

Kind = Literal["image", "spectrum", "scalar"]
SPECIAL = ("PAD", "BOS", "EOS", "MISSING")
MOST = 2**31  # tokens, and numbers of one
NAME = r"[A-Za-z0-9_][A-Za-z0-9_-]{0,39}"


def _whole(instance: object, attribute: Attribute[Any], value: Any) -> None:
    """What was read from JSON may be anything."""
    if type(value) is not int or not 0 < value < MOST:
        raise ValueError(f"{attribute.name}: expected a whole number from 1 on, below {MOST:,}, got {value!r:.40}")


def _name(instance: object, attribute: Attribute[Any], value: Any) -> None:
    if not (isinstance(value, str) and re.fullmatch(NAME, value)):
        raise ValueError(f"name: expected up to 40 letters, digits, _ and -, got {value!r:.80}")


def _kind(instance: object, attribute: Attribute[Any], value: Any) -> None:
    if value not in get_args(Kind):
        raise ValueError(f"kind: expected {', '.join(get_args(Kind))}, got {value!r:.80}")


@frozen
class Modality:
    """One kind of tokens: how many there are, and of how many numbers each stands for."""

    name: str = field(validator=_name)
    kind: Kind = field(validator=_kind)
    size: int = field(validator=_whole)  # V_m, tokens
    dims: int = field(default=1, validator=_whole)  # d_m, numbers that a token stands for

    def __attrs_post_init__(self) -> None:
        if self.kind == "scalar" and self.dims != 1:
            raise ValueError(f"modality '{self.name}': a scalar's token stands for 1 number, got {self.dims}")


def _distinct(instance: object, attribute: Attribute[Any], value: tuple[Any, ...]) -> None:
    """Names stand once."""
    names = [getattr(entry, "name", entry) for entry in value]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(f"{attribute.name}: {', '.join(twice)} stands more than once")


@frozen
class Vocabulary:
    """Which ids are whose: 0 … S-1 are the special tokens, and modality m has base_m … base_m + V_m - 1."""

    modalities: tuple[Modality, ...] = field(validator=_distinct)
    special: tuple[str, ...] = field(default=SPECIAL, validator=_distinct)

    def __attrs_post_init__(self) -> None:
        if not all(isinstance(name, str) for name in self.special):
            raise ValueError(f"special: expected names, got {self.special!r:.80}")
        missing = [name for name in SPECIAL if name not in self.special]
        if missing or not self.modalities:
            raise ValueError(
                f"a vocabulary has the special tokens {', '.join(SPECIAL)} and at least one modality; got "
                f"{', '.join(self.special) or 'none'} and {len(self.modalities)} modalities"
            )

    @property
    def size(self) -> int:
        """Number of ids V."""
        return len(self.special) + sum(modality.size for modality in self.modalities)

    @property
    def names(self) -> tuple[str, ...]:
        """The modalities' names, in their order."""
        return tuple(modality.name for modality in self.modalities)

    def __getitem__(self, name: str) -> Modality:
        return self.modalities[self.index(name)]

    def index(self, name: str) -> int:
        """The place of a modality; raises KeyError with the nearest name."""
        if name not in self.names:
            raise KeyError(f"there is no modality '{name}'{did_you_mean(name, self.names)} ({', '.join(self.names)})")
        return self.names.index(name)

    def base(self, name: str) -> int:
        """The first id of a modality."""
        before = self.modalities[: self.index(name)]
        return len(self.special) + sum(modality.size for modality in before)

    def block(self, name: str) -> slice:
        """The ids of a modality."""
        base = self.base(name)
        return slice(base, base + self[name].size)

    def id_of(self, special: str) -> int:
        """The id of a special token, by its name."""
        return self.special.index(special)

    def modality_of(self, ids: NDArray[Any]) -> NDArray[np.int64]:
        """For each id the place of its modality; -1 for special tokens, -2 for what is no id of this vocabulary."""
        edges = np.cumsum([len(self.special), *(modality.size for modality in self.modalities)])
        found: NDArray[np.int64] = np.searchsorted(edges, ids, side="right").astype(np.int64) - 1
        return np.where((ids < 0) | (ids >= self.size), -2, found)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return {
            "special": list(self.special),
            "modalities": [
                {"name": own.name, "kind": own.kind, "size": own.size, "dims": own.dims} for own in self.modalities
            ],
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Vocabulary:
        """What `to_dict` gave; raises ValueError for anything else."""
        try:
            modalities = [Modality(**dict(own)) for own in values["modalities"]]
            return cls(tuple(modalities), tuple(values["special"]))
        except (KeyError, TypeError) as error:
            raise ValueError(
                f"{type(error).__name__} {error}: expected {{special, modalities: [{{name, kind, size, dims}}]}}"
            ) from error
