"""Why a loss cannot be had of some data: what its `check` yields."""

from __future__ import annotations

from collections.abc import Iterator

from ups_kit import FieldSpec


def not_steady(fields: FieldSpec, reason: str, key: str = "use") -> Iterator[tuple[str, str]]:
    """Of steady data, whose encoder sees static fields alone, and whose only frame is the answer."""
    if fields.steady:
        yield key, f"these data are steady, one answer to static fields: {reason}"


def at_all_points(fields: FieldSpec, reason: str) -> Iterator[tuple[str, str]]:
    """Of batches that hold their states at some random points only, and not at those that the encoder is given."""
    if fields.sampled is not None:
        yield "use", f"dataset.points = {fields.sampled} reads frames at random points alone, and {reason}"


def whole(fields: FieldSpec, reason: str) -> Iterator[tuple[str, str]]:
    """Of batches that do not hold their states at all points, be it at those that the encoder is given."""
    yield from at_all_points(fields, reason)
    if fields.sampled is None and fields.sampled_inputs is not None:
        yield "use", f"dataset.input_points reads frames at random points alone, and {reason}"
