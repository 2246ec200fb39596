"""The contract of trackers: numbers and pictures go somewhere, and nothing stops a run."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ..trackers import Trackers
from .report import expect
from .subject import Clause, Subject

VALUES = {"loss": 0.5, "losses/forward": 0.25, "validation/score": 1e-9}


@contextmanager
def _tracker(subject: Subject, name: str) -> Iterator[Any]:
    folder = subject.folder / name
    folder.mkdir()
    tracker = subject.small.build(folder)
    try:
        yield tracker
    finally:
        tracker.close()


def numbers(subject: Subject) -> str | None:
    """It takes numbers of several stages, and steps that come again after `forget_after`."""
    with _tracker(subject, "numbers") as tracker:
        for step in range(3):
            tracker.scalars("codec", step, VALUES)
            tracker.scalars("operator", step, {"loss": float(step)})
        getattr(tracker, "forget_after", lambda stage, step: None)("operator", 0)
        tracker.scalars("operator", 1, {"loss": 1.0})
        tracker.scalars("evaluate", 0, {})
    return None


def pictures(subject: Subject) -> str | None:
    """It takes a matplotlib figure, and leaves it open and unchanged."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(1, 1))
    figure.subplots().plot([0, 1])
    with _tracker(subject, "pictures") as tracker:
        tracker.figure("evaluate", 0, "rollout", figure)
    expect(len(figure.axes) == 1, "the figure was cleared", "close no figure: other trackers get it too")
    return None


def closes(subject: Subject) -> str | None:
    """`close` may be called twice, and after nothing was written."""
    with _tracker(subject, "closed") as tracker:
        tracker.close()
    return None


def own_folder(subject: Subject) -> str | None:
    """What it writes lies in the folder that it was given."""
    before = set(Path.cwd().iterdir())
    with _tracker(subject, "own") as tracker:
        tracker.scalars("operator", 1, VALUES)
    new = sorted(path.name for path in set(Path.cwd().iterdir()) - before)
    expect(not new, f"it has written {new} in the working directory", "write below the `folder` that build is given")
    return None


def failures(subject: Subject) -> str | None:
    """A failure inside it is an Exception, which a run survives with one warning."""
    with _tracker(subject, "failing") as tracker, warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        every = Trackers([tracker])
        for step in range(2):
            every.scalars("operator", step, {"loss": object()})  # type: ignore[dict-item]  # that is the point
            every.figure("operator", step, "nothing", None)  # type: ignore[arg-type]
        ours = [each for each in told if "is switched off" in str(each.message)]
    expect(len(ours) <= 1, f"{len(ours)} warnings", "raise Exceptions, not SystemExit or KeyboardInterrupt")
    return "it takes even nonsense" if not ours else None


CLAUSES: Mapping[str, Clause] = {
    "own-folder": own_folder,  # first: what the others write must not be there yet
    "numbers": numbers,
    "pictures": pictures,
    "closes": closes,
    "failures": failures,
}
