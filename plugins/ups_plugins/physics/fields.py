"""Fields by the names that a recipe gives them, and what of them a loss cannot do: what `check` yields. No torch."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

from ups_kit import Field, FieldSpec
from ups_kit.errors import did_you_mean

COLUMN = "task:"  # how the column of a mixture's task begins, as `ups_kit.tasks` has it
Problems = Iterator[tuple[str, str]]


def named(fields: FieldSpec, names: Iterable[str]) -> list[Field]:
    """The target fields with these names, those that there are."""
    by_name = {each.name: each for each in fields.targets}
    return [by_name[name] for name in names if name in by_name]


def channels_of(fields: FieldSpec, names: Sequence[str]) -> tuple[int, ...] | None:
    """The numbers of these fields' channels among the targets', in this order; None where a field is not there.

    It is not there where `fields` are those of one task of a mixture, and the name is another's.
    """
    first, starts = 0, {}
    for each in fields.targets:
        starts[each.name] = range(first, first + each.channels)
        first += each.channels
    if any(name not in starts for name in names):
        return None
    return tuple(channel for name in names for channel in starts[name])


def listed(every: Iterable[Field]) -> str:
    """`u (2 channels), p`."""
    return ", ".join(each.name + (f" ({each.channels} channels)" if each.channels > 1 else "") for each in every)


def unknown(fields: FieldSpec, names: Iterable[str], key: str) -> Problems:
    """Names that are of no predicted field, or there twice."""
    known, counts = [each.name for each in fields.targets], Counter(list(names))
    for name, count in counts.items():
        if count > 1:
            yield key, f"'{name}' is named {count} times; expected each field once"
        if name in known:
            continue
        given = [each.name for each in fields.statics]
        why = (
            f"'{name}' is given and not predicted"
            if name in given
            else f"no predicted field is called '{name}'{did_you_mean(name, known)}"
        )
        yield key, f"{why} (predicted: {listed(fields.targets)})"


def not_a_vector(fields: FieldSpec, names: Sequence[str], key: str) -> Problems:
    """Fields that together do not have one component along each axis."""
    found = named(fields, names)
    count = sum(each.channels for each in found)
    if len(found) < len(names) or count == fields.space_dims:
        return
    have = f"'{names[0]}' has {_counted(count)}" if len(names) == 1 else f"{', '.join(names)} have {_counted(count)}"
    yield (
        key,
        f"expected a vector of {_counted(fields.space_dims)}, one along each axis, got one of {count}: {have}; name a "
        f'vector field, or its components as fields = ["u", …] (predicted: {listed(fields.targets)})',
    )


def _counted(count: int) -> str:
    return f"{count} component{'' if count == 1 else 's'}"


def not_at_all_points(fields: FieldSpec, reason: str) -> Problems:
    """Batches that hold their states at some random points only."""
    for key, number in (("points", fields.sampled), ("input_points", fields.sampled_inputs)):
        if number is not None:
            yield "use", f"dataset.{key} reads frames at random points alone, and {reason}"
            return


def no_such_step(fields: FieldSpec, step: int, decodes: bool) -> Problems:
    """Steps that steady data do not have: their one answer is step 1, and E(a) holds no field to decode."""
    if not fields.steady:
        return
    if step > 1:
        yield "step", f"these data are steady, and their answer is one step away; got {step}, expected 1"
    elif step == 0 and decodes:
        yield "step", "these data are steady: what is encoded is not what is decoded; got 0, expected 1"


def in_a_mixture(fields: FieldSpec, reason: str, key: str = "use") -> Problems:
    """Losses in physical units: of a mixture's tasks each is normalised by itself, and moved into the unit cube."""
    if any(name.startswith(COLUMN) for name in fields.conditions):
        yield (
            key,
            f"a mixture's tasks are each normalised by their own statistics, on the unit cube, and {reason}; train on "
            "one of the tasks alone, or leave this loss out",
        )
