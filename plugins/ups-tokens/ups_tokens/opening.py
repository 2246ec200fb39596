"""From a data set's keys to what its sequences are: by the header of the file, or by what is going to make it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from attrs import evolve, frozen

from ups_kit import DataError
from ups_kit.addresses import url_of
from ups_kit.data.making import check_made_by
from ups_kit.data.paths import to_be_made
from ups_kit.data.splits import largest, shortage
from ups_kit.errors import did_you_mean

from .codebooks import check_file
from .columns import Column, Contents, open_contents
from .description import TokenSpec
from .layout import LAYOUT, VERSION
from .vocabulary import Modality, Vocabulary

if TYPE_CHECKING:
    from .config import TypedTokensConfig

CODEBOOKS, VALUES = "codebooks/", "values/"
FEWEST = 2  # tokens of a sequence: one that is given, one that is a target


@frozen(eq=False)
class Header:
    """A file of the layout as its header says it, checked."""

    contents: Contents
    spec: TokenSpec  # of whole sequences, without codebooks

    @property
    def sequences(self) -> int:
        """Number of sequences S."""
        return len(self.tokens)

    @property
    def tokens(self) -> Column:
        return self.contents.columns["tokens"]

    def column(self, name: str) -> Column | None:
        """An array that there may be."""
        return self.contents.columns.get(name)


def describe(settings: TypedTokensConfig) -> TokenSpec:
    """What the sequences are, cut as the recipe says; without codebooks, of which only headers were read."""
    if to_be_made(settings.path, settings.simulate) is not None:
        spec: Any = None if settings.simulate is None else settings.simulate.describe()
        if not isinstance(spec, TokenSpec):
            raise DataError(
                f"{type(settings.simulate).__name__} makes no token sequences; expected a simulator that does, for "
                'example [dataset.simulate] with use = "galaxies"',
                "simulate",
            )
    else:
        spec = open_header(settings).spec
    _check_codebooks(settings, spec.vocabulary)
    return cut(spec, settings.length)


def cut(spec: TokenSpec, length: int | None) -> TokenSpec:
    """The same with sequences of at most so many tokens."""
    return spec if length is None or length >= spec.length else evolve(spec, length=length)


def open_header(settings: TypedTokensConfig) -> Header:
    """The file that a recipe names. Raises DataError."""
    url = url_of(settings.path)
    if url is not None:
        raise DataError(f"{url}: is an address; expected a file or store of this machine: copy it here first", "path")
    path = settings.path.absolute()
    contents = open_contents(path)
    if settings.simulate is not None:
        check_made_by(path, contents.attributes, settings.simulate)
    header = _header(contents)
    missing = [
        name
        for name in header.spec.vocabulary.names
        if name not in settings.codebooks and CODEBOOKS + name not in contents.columns
    ]
    if missing:
        raise DataError(
            f"{path}: holds no codebook of {', '.join(missing)}; expected codebooks/{missing[0]} in it, or "
            f"dataset.codebooks.{missing[0]} with a file",
            "codebooks",
        )
    return header


def split_problems(settings: TypedTokensConfig) -> Iterator[tuple[str, str]]:
    """What is wrong with the numbers of sequences that the splits take."""
    counts = {"test": settings.test, "validation": settings.validation, "train": settings.train}
    made = to_be_made(settings.path, settings.simulate)
    if made is None:
        header = open_header(settings)
        problem = shortage(counts, header.sequences, str(header.contents.path))
    else:
        planned = getattr(settings.simulate, "trajectories", None)
        problem = shortage(counts, planned, f"{made}, to be made") if isinstance(planned, int) else None
    if problem is not None:
        yield largest(counts), problem


def _check_codebooks(settings: TypedTokensConfig, vocabulary: Vocabulary) -> None:
    """Names that are those of modalities, and files that would be opened."""
    for name, path in settings.codebooks.items():
        if name not in vocabulary.names:
            raise DataError(
                f"dataset.codebooks.{name}: expected the name of a modality{did_you_mean(name, vocabulary.names)} "
                f"({', '.join(vocabulary.names)})",
                f"codebooks.{name}",
            )
        check_file(path, name, f"codebooks.{name}", settings.allow_pickle)


# ---------------------------------------------------------------------------------------------------------------------
# The header
# ---------------------------------------------------------------------------------------------------------------------
def _header(contents: Contents) -> Header:
    vocabulary = _vocabulary(contents)
    problems = list(_shape_problems(contents, vocabulary))
    if problems:
        raise DataError(f"{contents.path}: " + "; ".join(problems), "path")
    length = contents.columns["tokens"].shape[1]
    return Header(contents, TokenSpec(vocabulary, length, 1 + len(vocabulary.modalities)))


def _vocabulary(contents: Contents) -> Vocabulary:
    path, attributes = contents.path, contents.attributes
    layout = _scalar(attributes.get("layout"))
    if layout != LAYOUT:
        raise DataError(f"{path}: layout: expected '{LAYOUT}', got {str(layout)[:80]!r}", "path")
    version = _scalar(attributes.get("version"))
    if version != VERSION:
        got = repr(version)[:80]
        raise DataError(f"{path}: version: expected {VERSION}, got {got}; install a newer ups-tokens", "path")
    said = attributes.get("vocabulary")
    try:
        values = json.loads(said) if isinstance(said, str | bytes) else said
        if not isinstance(values, Mapping):
            raise ValueError("it is no table")
        return Vocabulary.from_dict(values)
    except (ValueError, TypeError, RecursionError) as error:
        raise DataError(
            f"{path}: the attribute vocabulary: {error}; expected JSON, {{special, modalities: [name, kind, …]}}",
            "path",
        ) from error


def _scalar(value: Any) -> Any:
    """A plain value of an attribute, in the words of Python; arrays as lists, which equal none."""
    return value.tolist() if isinstance(value, np.generic | np.ndarray) else value


def _shape_problems(contents: Contents, vocabulary: Vocabulary) -> Iterator[str]:
    columns = contents.columns
    tokens = columns.get("tokens")
    if tokens is None or len(tokens.shape) != 2 or tokens.dtype.kind not in "iu":
        listed = ", ".join(f"{name} {list(column.shape)}" for name, column in list(columns.items())[:8]) or "none"
        yield f"expected an array 'tokens' (sequences, length) of whole numbers (arrays here: {listed})"
        return
    sequences, length = tokens.shape
    if sequences < 1 or length < FEWEST:
        yield f"'tokens' has the shape [{sequences}, {length}]; expected sequences of at least {FEWEST} tokens"
    for name, shape, kinds in (("types", (sequences, length), "iu"), ("mask", (sequences, length), "biu")):
        yield from _problem(columns.get(name), name, shape, kinds)
    yield from _problem(columns.get("lengths"), "lengths", (sequences,), "iu")
    if "mask" in columns and "lengths" in columns:
        yield "has both 'lengths' and 'mask'; expected one of them"
    for modality in vocabulary.modalities:
        yield from _modality_problems(columns, modality)
    known = {prefix + name for prefix in (CODEBOOKS, VALUES) for name in vocabulary.names}
    for name in columns:
        if name.startswith((CODEBOOKS, VALUES)) and name not in known:
            yield f"'{name}' is of no modality ({', '.join(vocabulary.names)})"


def _modality_problems(columns: Mapping[str, Column], modality: Modality) -> Iterator[str]:
    codebook, values = columns.get(CODEBOOKS + modality.name), columns.get(VALUES + modality.name)
    yield from _problem(codebook, CODEBOOKS + modality.name, (modality.size, modality.dims), "f")
    if values is not None and not values.shape:
        yield f"'{VALUES}{modality.name}' is a single value; expected rows of {modality.dims} numbers"
    elif values is not None:
        yield from _problem(values, VALUES + modality.name, (len(values), modality.dims), "f")


def _problem(column: Column | None, name: str, shape: tuple[int, ...], kinds: str) -> Iterator[str]:
    if column is None:
        return
    if column.shape != shape:
        yield f"'{name}' has the shape {list(column.shape)}; expected {list(shape)}"
    elif column.dtype.kind not in kinds:
        words = "numbers" if kinds == "f" else "whole numbers"
        yield f"'{name}' holds values of the type {column.dtype}; expected {words}"
