"""What can go wrong for a user, one class per exit code.

Every message is written for the person who reads it at midnight: which file, which key, what was expected, what was
found, and the nearest thing that would be right. The command line prints these without a traceback.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable

from attrs import frozen

LONGEST = 400  # characters of a stranger's message that are told
DEBUG = "UPSKIT_DEBUG"  # set to 1, `upskit` prints the traceback of what it tells


class UpsKitError(Exception):
    """Anything that a user can cause; `exit_code` is what `upskit` ends with."""

    exit_code = 1


@frozen
class Problem:
    """One thing that is wrong with a recipe.

    `path` is the key path (`encoder.patch_size`), `message` what is wrong with it, and `origin` where the value was
    written (`line 12`, `base.toml, line 3`, `--set 'run.seed=x'`), empty where nothing was written. `in_data`: the
    recipe is right, and what is wrong is the data that it names; `in_plugin`: it is a plugin that is broken.
    """

    path: str
    message: str
    origin: str = ""
    in_data: bool = False
    in_plugin: bool = False

    def __str__(self) -> str:
        where = f" ({self.origin})" if self.origin else ""
        return f"{self.path}{where}: {self.message}"


class RecipeError(UpsKitError):
    """A recipe that cannot be used; carries every problem that was found, not only the first.

    Where all of them are in the data that it names, it ends `upskit` as a DataError does, and where all are in plugins
    that are broken as a PluginError does.
    """

    exit_code = 2

    def __init__(self, source: str, problems: Iterable[Problem]) -> None:
        self.source = source
        self.problems = tuple(problems)
        if self.problems and all(problem.in_data for problem in self.problems):
            self.exit_code = DataError.exit_code
        if self.problems and all(problem.in_plugin for problem in self.problems):
            self.exit_code = PluginError.exit_code
        count = len(self.problems)
        lines = [
            f"{source}: {count} problem{'' if count == 1 else 's'}",
            *(f"  {problem}" for problem in self.problems),
        ]
        super().__init__("\n".join(lines))


class UsageError(UpsKitError):
    """A command that was called with arguments that do not fit."""

    exit_code = 2


class DataError(UpsKitError):
    """Data that are missing, damaged, or not what the recipe says they are.

    `key` is the key of the dataset's table that has to do with it (`path`, `simulate.points`), where it is one.
    """

    exit_code = 3

    def __init__(self, message: str, key: str = "") -> None:
        super().__init__(message)
        self.key = key


class PluginError(UpsKitError):
    """A plugin that is missing, broken, or breaks a contract.

    `mend` is what to do about it, where that is not said with what is wrong; `key` what of a training's state it is
    about (`model.encoder.history`), where it is.
    """

    exit_code = 4

    def __init__(self, message: str, mend: str = "", key: str = "") -> None:
        super().__init__(message)
        self.mend = mend
        self.key = key


class DivergedError(UpsKitError):
    """A loss or gradient that is no longer a finite number."""

    exit_code = 5


class StorageError(UpsKitError):
    """A disk, lock or checkpoint that does not do what a run needs."""

    exit_code = 6


class Preempted(UpsKitError):  # noqa: N818 - not an error: the run was asked to stop, and can be resumed
    """The run was asked to stop (SIGTERM, SIGINT), has saved its state, and can be resumed."""

    exit_code = 75


BELOW_FLOOR_EXIT_CODE = 7  # a finished run whose model does not beat what its recipe requires it to beat


def first_line(error: BaseException) -> str:
    """What an error says, in one line that is not too long; it may be a stranger's, and unable to say it."""
    try:
        text = str(error).strip().partition("\n")[0]
    except Exception:  # of its own __str__
        return "with a message that cannot be read"
    return (text if len(text) <= LONGEST else f"{text[:LONGEST]}…") or "without a message"


def nearest(name: str, known: Iterable[str]) -> str | None:
    """The known name most like `name`, or None where nothing is near."""
    matches = difflib.get_close_matches(name, list(known), n=1, cutoff=0.6)
    return matches[0] if matches else None


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """`; did you mean 'grid'?` where some known name is near, else nothing."""
    guess = nearest(name, known)
    return f"; did you mean '{guess}'?" if guess else ""
