"""What a forecast starts from, read from a file: of the bundle's own layout, or plain arrays by name."""

from __future__ import annotations

import itertools
import tokenize
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from attrs import frozen
from numpy.typing import NDArray

from ..addresses import url_of
from ..data.excerpts import Excerpt, ReadsExcerpts
from ..data.pickles import why_pickled
from ..errors import DataError, did_you_mean, nearest
from ..interfaces import DatasetConfig, Field, FieldSpec, Prepares
from .forecast import Trained

PLAIN = (".npz", ".npy")  # arrays by name
NUMBERS = "fiu"  # kinds of types that are read
ALIKE = 1e-3  # of a time step, of a domain's extent: what differs by less is the same
DAMAGED = (  # what reading damaged arrays may raise: headers are Python, archives zipped, perhaps encrypted
    *(OSError, ValueError, EOFError, KeyError, SyntaxError, tokenize.TokenError),
    *(zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError, MemoryError, OverflowError),
)
OTHERS = ("frames", "positions", "statics", "times", "time")  # of plain arrays, beside fields and parameters


@frozen(eq=False)
class Start:
    """What a model is given, in physical units, as `Bundle.predict` takes it."""

    source: str
    frames: NDArray[np.float32] | None  # (history, N, C)
    positions: NDArray[np.float32] | None  # (N, D); None: those of the model's own grid
    statics: NDArray[np.float32] | None  # (N, static channels)
    parameters: Mapping[str, float]
    time: float  # of the newest given frame


def read_start(
    bundle: Trained, dataset: DatasetConfig, path: Path, sample: int | None = None, frame: int | None = None
) -> Start:
    """A file's sample, up to a frame. Raises DataError for what is not there, not of the layout, or does not fit."""
    if url_of(path) is None:
        _refuse_missing(path)
        pickled = why_pickled(path) if path.is_file() else None
        if pickled is not None:
            raise DataError(f"{path}: {pickled}")
    if path.suffix in PLAIN and not path.is_dir():
        for option, value in (("--sample", sample), ("--frame", frame)):
            if value is not None:
                raise DataError(
                    f"{path}: plain arrays hold one sample and the frames that are given; leave {option} out"
                )
        return _plain(bundle, path)
    if not isinstance(dataset, ReadsExcerpts):
        kind = type(dataset).__name__
        raise DataError(
            f"{path}: the dataset of this bundle ({kind}) reads no single files; give plain arrays, {PLAIN[0]}"
        )
    return _of_layout(bundle, dataset.excerpt(path, sample or 0, frame), path)


def _refuse_missing(path: Path) -> None:
    if path.exists():
        return
    folder = path.absolute().parent
    names = [entry.name for entry in folder.iterdir()] if folder.is_dir() else []
    near = nearest(path.name, names)
    guess = f"; did you mean '{path.with_name(near)}'?" if near else f" (looked in {folder})"
    raise DataError(f"{path}: is not there{guess}")


# ---------------------------------------------------------------------------------------------------------------------
# Files of the bundle's own layout
# ---------------------------------------------------------------------------------------------------------------------
def _of_layout(bundle: Trained, found: Excerpt, path: Path) -> Start:
    own, there = bundle.fields, found.fields
    for problem in _differences(own, there):
        raise DataError(f"{path}: {problem}")
    everywhere = own.grid is None or own.grid != there.grid
    if own.grid is not None and everywhere and not isinstance(bundle.model.encoder, Prepares):
        shapes = [" × ".join(map(str, each.grid or ())) or "other points" for each in (own, there)]
        raise DataError(f"{path}: its fields are on {shapes[1]}, and the model is given a grid of {shapes[0]} points")
    return Start(
        source=found.source,
        frames=None if own.steady else found.values,
        positions=found.positions if everywhere else None,
        statics=found.statics if own.statics else None,
        parameters={name: value for name, value in found.parameters.items() if name in own.conditions},
        time=float(found.times[-1]) if len(found.times) else 0.0,
    )


def _differences(own: FieldSpec, there: FieldSpec) -> Iterator[str]:
    """What a file's data are that those of the model are not."""
    for name, mine, theirs in (("fields", own.targets, there.targets), ("static fields", own.statics, there.statics)):
        if [(each.name, each.channels) for each in mine] != [(each.name, each.channels) for each in theirs]:
            yield f"has the {name} {_listed(theirs)}; expected {_listed(mine)}"
    if own.space_dims != there.space_dims:
        yield f"has {there.space_dims} space dimensions; expected {own.space_dims}"
    if own.steady != there.steady:
        kinds = {True: "steady fields", False: "series in time"}
        yield f"holds {kinds[there.steady]}; expected {kinds[own.steady]}"
    if own.periodic != there.periodic:
        yield f"is periodic in {_axes(there)}; expected {_axes(own)}"
    if own.history > 1 and abs(own.dt - there.dt) > ALIKE * own.dt:
        yield f"has frames {there.dt:g} apart, and {own.history} of them are given; expected {own.dt:g}"
    if there.grid is not None and own.grid is not None:
        ends = zip(own.domain, there.domain, own.extent, strict=True)
        if any(abs(a - b) > ALIKE * length for mine, theirs, length in ends for a, b in zip(mine, theirs, strict=True)):
            yield f"has the domain {_box(there)}; expected {_box(own)}"


def _listed(fields: tuple[Field, ...]) -> str:
    return ", ".join(each.name if each.channels == 1 else f"{each.name} [{each.channels}]" for each in fields) or "none"


def _axes(fields: FieldSpec) -> str:
    return ", ".join(letter for letter, wraps in zip("xyz", fields.periodic) if wraps) or "no axis"


def _box(fields: FieldSpec) -> str:
    return " × ".join(f"{low:g} … {high:g}" for low, high in fields.domain)


# ---------------------------------------------------------------------------------------------------------------------
# Plain arrays
# ---------------------------------------------------------------------------------------------------------------------
def _plain(bundle: Trained, path: Path) -> Start:
    fields, arrays = bundle.fields, plain_arrays(path)
    if path.suffix == ".npy":
        arrays = {"statics" if fields.steady else "frames": arrays[""]}
    names = [each.name for each in (*fields.targets, *fields.statics)]
    known = [*names, *OTHERS, *fields.conditions]
    for name in arrays:
        if name not in known:
            raise DataError(f"{path}: no array is called '{name}' here{did_you_mean(name, known)} ({', '.join(known)})")
    positions = arrays.get("positions")
    count = fields.points if positions is None else len(positions)
    if count is None:
        raise DataError(f"{path}: 'positions' is missing: the model is of points of its own ({fields.layout})")
    grid = fields.grid if positions is None else None
    times = arrays.get("times", arrays.get("time", np.zeros(1)))
    return Start(
        source=str(path),
        frames=_joined(path, arrays, "frames", fields.targets, fields.history, count, grid),
        positions=None if positions is None else positions.astype(np.float32),
        statics=None
        if (given := _joined(path, arrays, "statics", fields.statics, 1, count, grid)) is None
        else given[0],
        parameters={name: _number(path, name, arrays[name]) for name in fields.conditions if name in arrays},
        time=float(times.flat[-1]) if times.size else 0.0,
    )


def plain_arrays(path: Path) -> dict[str, NDArray[Any]]:
    """The arrays of numbers in a .npz file by name, or of a .npy file under "". Raises DataError."""
    try:
        with path.open("rb") as file:
            loaded = np.load(file, allow_pickle=False)
            arrays = {"": loaded} if isinstance(loaded, np.ndarray) else {name: loaded[name] for name in loaded.files}
    except DAMAGED as error:
        reason = str((error.strerror if isinstance(error, OSError) else None) or error)
        if "allow_pickle" in reason:  # numpy advises to load it all the same
            reason = "its content is none, or pickled objects"
        raise DataError(
            f"{path}: cannot be read as {path.suffix}: {reason}; expected what numpy.save(z) writes"
        ) from error
    for name, values in arrays.items():
        if values.dtype.kind not in NUMBERS:
            what = f"array '{name}'" if name else "the array"
            raise DataError(f"{path}: {what} holds values of type {values.dtype}; expected numbers")
    return arrays


def _joined(
    path: Path,
    arrays: Mapping[str, NDArray[Any]],
    whole: str,
    fields: tuple[Field, ...],
    frames: int,
    count: int,
    grid: tuple[int, ...] | None,
) -> NDArray[np.float32] | None:
    """Fields by name, or all of them as one array, (frames, points, channels); None where there are none."""
    if not fields or not frames:
        extra = [name for name in (whole, *(each.name for each in fields)) if name in arrays]
        if extra:
            raise DataError(f"{path}: the model is given no {whole}; leave '{extra[0]}' out")
        return None
    if whole in arrays:
        channels = sum(each.channels for each in fields)
        return _shaped(path, whole, arrays[whole], frames, count, grid, channels)
    missing = [each.name for each in fields if each.name not in arrays]
    if missing:
        raise DataError(
            f"{path}: '{missing[0]}' is missing; expected arrays {_listed(fields)}, or all in one, '{whole}'"
        )
    parts = [_shaped(path, each.name, arrays[each.name], frames, count, grid, each.channels) for each in fields]
    return np.concatenate(parts, -1)


def _shaped(
    path: Path,
    name: str,
    values: NDArray[Any],
    frames: int,
    count: int,
    grid: tuple[int, ...] | None,
    channels: int,
) -> NDArray[np.float32]:
    """Values as (frames, points, channels); frames and channels may be left out where there is one of them."""
    leads: list[tuple[int, ...]] = [(frames,), *([()] if frames == 1 else [])]
    points: list[tuple[int, ...]] = [*([grid] if grid is not None else []), (count,)]
    ends: list[tuple[int, ...]] = [(channels,), *([()] if channels == 1 else [])]
    shapes = [(*lead, *places, *end) for lead, places, end in itertools.product(leads, points, ends)]
    if values.shape not in shapes:
        told = dict.fromkeys(str(list(shape)) for shape in (shapes[0], shapes[-1]))
        raise DataError(
            f"{path}: array '{name}' has the shape {list(values.shape)}; expected {' or '.join(told)}: frames, points, "
            "channels"
        )
    return values.reshape(frames, count, channels).astype(np.float32)


def _number(path: Path, name: str, values: NDArray[Any]) -> float:
    if values.size != 1:
        raise DataError(f"{path}: parameter '{name}' has the shape {list(values.shape)}; expected one number")
    return float(values.reshape(()))
