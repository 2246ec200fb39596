"""What a data file was when it was opened: told apart from one that was replaced or cut while it is read."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from stat import S_ISDIR

from attrs import frozen

from ..errors import DataError


@frozen
class Stamp:
    """Size, time of the last change and number of a file, as the system keeps them; looking costs microseconds."""

    path: Path
    size: int
    changed: int  # nanoseconds
    number: int

    @classmethod
    def of(cls, path: Path) -> Stamp:
        """The file as it is now; of a Zarr store, its header. Raises DataError where there is none."""
        try:
            status = path.stat()
            status = (path / "zarr.json").stat() if S_ISDIR(status.st_mode) else status
        except OSError as error:
            raise DataError(
                f"{path}: cannot be looked at any more: {error.strerror}; expected it to stay where it is while it is "
                "read: put it back, and resume the run"
            ) from error
        return cls(path, status.st_size, status.st_mtime_ns, status.st_ino)

    @classmethod
    def of_local(cls, path: Path) -> Stamp | None:
        """The same, or None for what is no file of this machine, such as a store behind a network."""
        return cls.of(path) if path.exists() else None

    def check(self) -> None:
        """Raise DataError where the file is not what it was."""
        try:  # what every batch takes; the rest is for what went wrong, and for folders
            status = self.path.stat()
            if (status.st_size, status.st_mtime_ns, status.st_ino) == (self.size, self.changed, self.number):
                return
        except OSError:
            pass  # told below
        now = Stamp.of(self.path)
        if now == self:
            return
        if now.size != self.size:
            what = f"has {now.size:,} bytes, and had {self.size:,} when it was opened"
        elif now.number != self.number:
            what = "is another file than the one that was opened"
        else:
            what = "was written to since it was opened"
        raise DataError(
            f"{self.path}: {what}; values from before and after would be mixed: start a new run with the data as they "
            "are now, or put back the file and resume this one"
        )


def stamps(paths: Iterable[Path]) -> tuple[Stamp, ...]:
    """The stamps of several files."""
    return tuple(Stamp.of(path) for path in paths)


def check_unchanged(stamps: Iterable[Stamp]) -> None:
    """Raise DataError for the first file that is not what it was."""
    for stamp in stamps:
        stamp.check()
