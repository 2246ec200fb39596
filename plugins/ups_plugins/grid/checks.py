"""What can be wrong with a dataset's keys before anything is made or read: the splits against the trajectories."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from ups_kit import DataError
from ups_kit.data.splits import largest, shortage

from .config import PDEBenchConfig
from .files import TrajectoryFile, check_agreement, read_headers, to_be_made


def split_problems(config: PDEBenchConfig) -> Iterator[tuple[str, str]]:
    """What is wrong with the numbers of trajectories that the splits take, as `check` yields it."""
    counts: dict[str, int | None] = {"test": config.test, "validation": config.validation, "train": config.train}
    own = () if to_be_made(config) is not None else read_headers(config)
    if config.test_path is not None:
        try:
            others = read_headers(config, test=True)
            check_agreement((*own, *others))
        except DataError as error:
            yield error.key or "test_path", str(error)
            return
        yield from _shortage({"test": counts.pop("test")}, _held(others), _names(others))
    if own:
        yield from _shortage(counts, _held(own), _names(own))
        return
    planned = getattr(config.simulate, "trajectories", None)
    if isinstance(planned, int):  # of a simulator without this key, the file that it has made will tell
        source = f"{to_be_made(config)}, to be made with dataset.simulate.trajectories = {planned}"
        yield from _shortage(counts, planned, source)


def _shortage(counts: Mapping[str, int | None], available: int, source: str) -> Iterator[tuple[str, str]]:
    problem = shortage(counts, available, source)
    if problem is not None:
        yield largest(counts), problem


def _held(files: Sequence[TrajectoryFile]) -> int:
    return sum(file.trajectories for file in files)


def _names(files: Sequence[TrajectoryFile]) -> str:
    return ", ".join(str(file.path) for file in files)
