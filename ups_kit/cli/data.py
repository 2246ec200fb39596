"""The verbs on data files, and `upskit data inspect`."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..console import printable
from .data_checks import check, plain_numbers, stats, told_as_json, validate
from .data_encoding import encode
from .data_making import convert, make
from .without import NO_PLUGIN

if TYPE_CHECKING:
    from ..data.inspection import Inspection, Values
    from ..data.layouts import Layout
    from ..data.tree import ArrayInfo

GIB = 2**30
SHOWN_ATTRIBUTE = 100  # characters
SHOWN_ATTRIBUTES = 12  # of a group or array

FILE = click.argument("file", type=click.Path(path_type=Path, readable=False), metavar="FILE")
JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
SECONDS = click.option(
    "--seconds", type=click.FloatRange(min=0.1), default=20.0, show_default=True, help="Time for a look at the file."
)
MEMORY = click.option(
    "--memory", type=click.FloatRange(min=0.1), default=4.0, show_default=True, help="Memory for it, in GiB."
)


@click.group()
def data() -> None:
    """Look at data files, check them, convert them, make them."""


data.add_command(validate)
data.add_command(stats)
data.add_command(check)
data.add_command(convert)
data.add_command(make)
data.add_command(encode)


# ---------------------------------------------------------------------------------------------------------------------
# inspect
# ---------------------------------------------------------------------------------------------------------------------
@data.command()
@FILE
@JSON
@SECONDS
@MEMORY
@told_as_json("file")
@NO_PLUGIN
def inspect(file: Path, as_json: bool, seconds: float, memory: float) -> int:
    """Show what is in a FILE (HDF5, Zarr store, .npz, .npy), and the recipe table that would use it.

    The file is read in a process of its own, with limits on time and memory: nothing it holds can hang or crash this
    one, and values that it keeps in other files are not followed. Of large arrays a part is looked at. Exit code 3
    where something is wrong.
    """
    from ..addresses import check_local
    from ..data.inspection import inspect_file, tree_to_json
    from ..data.layouts import guess_layouts

    check_local(file)
    limit = int(memory * GIB)
    found = inspect_file(file, seconds, limit)
    layouts = guess_layouts(file, seconds, limit)
    if as_json:
        record = {
            "file": str(file),
            "bytes": found.size,
            **tree_to_json(found.tree),
            "values": {name: _plain_values(values) for name, values in found.values.items()},
            "problems": list(found.problems),
            "notes": list(found.notes),
            "layouts": [_plain_layout(layout) for layout in layouts],
        }
        click.echo(json.dumps(plain_numbers(record), indent=1))
    else:
        click.echo(printable("\n".join([*_inspection(file, found), *_layouts(layouts)])))
    return 3 if found.problems else 0


def _plain_values(values: Values) -> dict[str, Any]:
    import attrs

    return {**attrs.asdict(values), "sampled": values.sampled}


def _plain_layout(layout: Layout) -> dict[str, Any]:
    return {
        "use": layout.use,
        "table": dict(layout.table),
        "fields": dict(layout.fields),
        "problems": list(layout.problems),
        "toml": layout.toml,
    }


def _inspection(file: Path, found: Inspection) -> Iterator[str]:
    from ..data.inspection import alike

    kinds = {"hdf5": "HDF5 file", "zarr": "Zarr store", "npz": "NumPy archive", "npy": "NumPy file"}
    kinds["folder"] = "folder of HDF5 files"
    yield f"{file}: {kinds[found.tree.format]}, {size_words(found.size)}, {len(found.tree.arrays)} arrays"
    for label, attributes in _groups(found.tree.attributes):
        yield f"\n{label}"
        yield from _attributes(attributes)
    for label, names in alike(found.tree.arrays).items():
        yield ""
        yield from _array(label, names, found)
    for note in found.notes:
        yield f"\nnote: {note}"
    for problem in found.problems:
        yield f"\nproblem: {problem}"


def _groups(groups: Mapping[str, Mapping[str, Any]]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """The groups that have attributes; of samples whose attributes have one set of names, the first one."""
    told: dict[Any, list[str]] = {}
    for name, attributes in groups.items():
        if attributes:
            sample = re.fullmatch(r"sample_\d+", name) is not None
            told.setdefault(tuple(attributes) if sample else name, []).append(name)
    for names in told.values():
        more = f" (and {len(names) - 1} more of such samples)" if len(names) > 1 else ""
        yield f"{names[0] or '/'}{more}", groups[names[0]]


def _array(label: str, names: Sequence[str], found: Inspection) -> Iterator[str]:
    from ..data.inspection import shape_of_all

    info = found.tree.arrays[names[0]]
    yield f"{label}  {shape_of_all([found.tree.arrays[name] for name in names])}  {info.dtype}".rstrip()
    storage = [f"{size_words_of(info)}" if info.dtype else ""]
    storage += [f"chunks {list(info.chunks)}"] if info.chunks else []
    storage += [f"shards {list(info.shards)}"] if info.shards else []
    storage += [", ".join(info.filters)] if info.filters else []
    if info.elsewhere:
        yield f"  values lie elsewhere: {info.elsewhere}; not followed"
    elif any(storage):
        yield "  " + ", ".join(filter(None, storage))
    seen = [found.values[name] for name in names if name in found.values]
    if seen:
        yield f"  {_range(seen)}"
    yield from _attributes(info.attributes)


def _range(seen: Sequence[Values]) -> str:
    """Range and bad values of arrays that are alike."""
    looked, total = sum(v.looked for v in seen), sum(v.total for v in seen)
    low = min((v.low for v in seen if v.low is not None), default=None)
    high = max((v.high for v in seen if v.high is not None), default=None)
    words = "no finite value" if low is None or high is None else f"from {low:g} to {high:g}"
    nan, infinite = sum(v.nan for v in seen), sum(v.infinite for v in seen)
    bad = f", {nan:,} NaN, {infinite:,} infinite" if nan or infinite else ", all finite"
    share = f" in a sample of {looked:,} of {total:,} values" if looked < total else f" ({total:,} values)"
    first = next((v.first_bad for v in seen if v.first_bad is not None), None)
    return f"{words}{bad}{share}{f', the first at {list(first)}' if first is not None else ''}"


def _attributes(attributes: Mapping[str, Any]) -> Iterator[str]:
    for key, value in list(attributes.items())[:SHOWN_ATTRIBUTES]:
        text = value if isinstance(value, str) else json.dumps(value)
        yield f"  @{key} = {text if len(text) <= SHOWN_ATTRIBUTE else text[:SHOWN_ATTRIBUTE] + ' …'}"
    if len(attributes) > SHOWN_ATTRIBUTES:
        yield f"  … and {len(attributes) - SHOWN_ATTRIBUTES} attributes more"


def _layouts(layouts: Sequence[Layout]) -> Iterator[str]:
    if not layouts:
        yield (
            "\nlayout: none that an installed dataset knows; arrays of any order of axes become one by "
            "`upskit data convert FILE --out NEW.zarr --axes b,t,x,c`"
        )
    for layout in layouts:
        yield f"\nlayout: {layout.use}"
        yield from (f"  {line}" for line in field_lines(layout.fields))
        yield from (f"  problem: {problem}" for problem in layout.problems)
        yield "the table that reads it:\n"
        yield from layout.toml.splitlines()


def field_lines(fields: Mapping[str, Any]) -> Iterator[str]:
    """What the data are, a line for each thing."""
    if not fields:
        return
    if "lines" in fields:
        yield from fields["lines"]
        return
    yield f"fields      {', '.join(fields['targets'])}"
    if fields["statics"]:
        yield f"inputs      {', '.join(fields['statics'])}"
    shape = " x ".join(map(str, fields["grid"])) if fields["grid"] else "points that differ by sample"
    if fields.get("points"):
        shape = " … ".join(f"{count:,}" for count in dict.fromkeys(fields["points"])) + " points"
    box = " x ".join(f"[{low:g}, {high:g}]" for low, high in fields["domain"])
    yield f"layout      {fields['layout']} {shape} on {box}"
    yield "time        none, steady" if fields["steady"] else f"time step   {fields['time_step']:g}"
    yield f"conditions  {', '.join(fields['conditions'])}"


def size_words(size: float) -> str:
    """`3.2 MiB`."""
    for unit in ("bytes", "KiB", "MiB", "GiB", "TiB"):
        if size < 1024 or unit == "TiB":
            return f"{size:,.0f} {unit}" if unit == "bytes" else f"{size:,.1f} {unit}"
        size /= 1024
    raise AssertionError


def size_words_of(info: ArrayInfo) -> str:
    """The bytes of an array's values, unpacked."""
    digits = re.search(r"\d+$", info.dtype)
    if digits is None or info.dtype[:1] not in "<>|=":
        return ""
    size = int(digits[0])
    for length in info.shape:
        size *= length
    return size_words(size)
