"""Where the bytes of a Zarr store lie: a folder of this machine, or behind an address (`s3://…`, `https://…`).

A store is asked for a key, whole or in part. It may be asked by several threads at once, and travels to other
processes as its address alone: each opens its own files and connections.
"""

from __future__ import annotations

import errno
import os
import stat
import threading
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlsplit

from ..addresses import url_of
from ..errors import DataError
from .stamps import Stamp

OPEN_FILES = 64  # of all stores, in one process
SEEN_FOLDERS = 2**13  # of one store, that are not looked at again
SEEN_FILES = 2**14  # of one store, that are told from others put in their place
HEADER = "zarr.json"  # of the root: what a store is stamped by
LOCAL_THREADS, REMOTE_THREADS = 4, 16
LARGE = 2**20  # bytes
WORTH_A_THREAD = 2**18  # bytes of a chunk below which handing it over costs more than unpacking it


class ByteStore(Protocol):
    """Bytes by key."""

    @property
    def label(self) -> str:
        """The folder or address, for messages."""
        ...

    def threads(self, nbytes: int) -> int:
        """How many reads of about so many bytes, unpacked, are worth being under way at once."""
        ...

    def read(self, key: str, start: int = 0, length: int | None = None) -> bytes | None:
        """Bytes of a key, fewer where it ends before; a negative `start` counts from its end. None: no such key."""
        ...

    def children(self, folder: str) -> tuple[str, ...] | None:
        """Names of folders in a folder; None where the store cannot tell."""
        ...

    def holds(self, key: str) -> bool | None:
        """Whether there is such a key; None where that cannot be told without a request for each."""
        ...

    def check_unchanged(self) -> None:
        """Raise DataError where the store was replaced since it was opened, as far as a look costs microseconds."""
        ...


def byte_store(path: Path | str) -> ByteStore:
    """The store at a path or an address. Raises DataError where there is none."""
    url = url_of(path)
    return RemoteBytes(url) if url is not None else LocalBytes(_folder(Path(path)))


def _folder(path: Path) -> Path:
    if path.is_dir():
        return path.absolute()
    if path.is_symlink() and not path.exists():
        raise DataError(
            f"{path}: a link to {path.readlink()}, which does not exist; expected the folder of a Zarr store"
        )
    if not path.exists():
        raise DataError(f"{path}: no such folder; expected a Zarr store")
    raise DataError(f"{path}: is no folder; expected the folder of a Zarr store (unpack it if it is an archive)")


# ---------------------------------------------------------------------------------------------------------------------
# Folders
# ---------------------------------------------------------------------------------------------------------------------
class _File:
    """An open file, closed when nobody holds it any more."""

    __slots__ = ("facts", "number")

    def __init__(self, path: str, flags: int = 0) -> None:
        self.number = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | flags)  # a FIFO is not waited for
        self.facts = _facts(os.fstat(self.number))

    def __del__(self) -> None:
        if hasattr(self, "number"):
            os.close(self.number)


Facts = tuple[int, int, int]  # size, time of the last change, number: those of a `Stamp`


def _facts(status: os.stat_result) -> Facts:
    return status.st_size, status.st_mtime_ns, status.st_ino


class _Files:
    """The files that were read last, open, as many as the limit says: a process may open a thousand or so."""

    def __init__(self) -> None:
        self._kept: OrderedDict[tuple[object, str], _File] = OrderedDict()
        self._lock = threading.Lock()
        self._process = os.getpid()

    def get(self, store: object, key: str, open_it: Callable[[str], _File]) -> _File:
        """The file of a store's key. A child process opens its own."""
        if self._process != os.getpid():
            self.__init__()  # type: ignore[misc]
        with self._lock:
            file = self._kept.get((store, key))
            if file is not None:
                self._kept.move_to_end((store, key))
                return file
        file = open_it(key)
        with self._lock:
            self._kept[store, key] = file
            while len(self._kept) > OPEN_FILES:
                self._kept.popitem(last=False)
        return file


_FILES = _Files()


class LocalBytes:
    """A folder. Links that lead out of it are not followed: a store can show no other file of this machine."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._root = os.path.realpath(folder)
        self._token = object()  # under which its open files are kept; not itself, so that they do not keep it alive
        self._folders: set[str] = set()  # that were seen to lie in the store
        self._header = Stamp.of(folder / HEADER) if (folder / HEADER).is_file() else None
        self._seen: dict[str, Facts] = {}  # files that were opened, as they were then

    @property
    def label(self) -> str:
        return str(self.folder)

    def threads(self, nbytes: int) -> int:
        return min(LOCAL_THREADS, os.cpu_count() or 1) if nbytes >= WORTH_A_THREAD else 1

    def read(self, key: str, start: int = 0, length: int | None = None) -> bytes | None:
        try:
            file = _FILES.get(self._token, key, self._opened)
            status = os.fstat(file.number)
            if not status.st_nlink or _facts(status) != file.facts:  # it has no name any more, or was written to
                self._check_file(key, file.facts)
            if start < 0 or length is None or length > LARGE:  # so much memory is asked for, whatever there is to read
                size = status.st_size
                start = max(0, size + start) if start < 0 else start
                length = size - start if length is None else min(length, size - start)
            return os.pread(file.number, max(0, length), start)
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
            return None
        except OSError as error:
            raise DataError(f"{self.folder / key}: cannot be read: {error.strerror}") from error

    def _opened(self, key: str) -> _File:
        """A file of the store, the same as when it was opened before."""
        file = self._within(key)
        mode = os.fstat(file.number).st_mode
        if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
            raise DataError(f"{self.folder / key}: is no regular file; expected a file of a Zarr store")
        if len(self._seen) < SEEN_FILES and self._seen.setdefault(key, file.facts) != file.facts:
            self._check_file(key, self._seen[key])
        return file

    def _check_file(self, key: str, facts: Facts) -> None:
        Stamp(self.folder / key, *facts).check()

    def _within(self, key: str) -> _File:
        """Open a file of the store. Its folder is looked at once: to follow links costs more than to read a chunk."""
        self._check_folder(key.rpartition("/")[0])
        try:
            return _File(f"{self._root}{os.sep}{key}", os.O_NOFOLLOW)
        except OSError as error:
            if error.errno != errno.ELOOP:
                raise
            self._refuse_outside(key)
            return _File(f"{self._root}{os.sep}{key}")

    def _check_folder(self, folder: str) -> None:
        if folder in self._folders or not folder:
            return
        self._check_folder(folder.rpartition("/")[0])
        if stat.S_ISLNK(os.lstat(f"{self._root}{os.sep}{folder}").st_mode):
            self._refuse_outside(folder)
        if len(self._folders) >= SEEN_FOLDERS:
            self._folders.clear()
        self._folders.add(folder)

    def _refuse_outside(self, key: str) -> None:
        path = os.path.realpath(f"{self._root}{os.sep}{key}")
        if path != self._root and not path.startswith(self._root + os.sep):
            raise DataError(
                f"{self.folder / key}: is a link to {path}, outside the store; it is not followed, as it could show "
                "any file of this machine; put the file itself there"
            )

    def children(self, folder: str) -> tuple[str, ...] | None:
        try:
            entries = list(os.scandir(self.folder / folder if folder else self.folder))
        except OSError:
            return ()
        return tuple(sorted(entry.name for entry in entries if entry.is_dir()))

    def holds(self, key: str) -> bool:
        try:
            self._check_folder(key.rpartition("/")[0])
            return stat.S_ISREG(os.stat(f"{self._root}{os.sep}{key}").st_mode)  # noqa: PTH116 - thousands are looked for
        except OSError:
            return False

    def check_unchanged(self) -> None:
        if self._header is not None:
            self._header.check()

    def __getstate__(self) -> tuple[Path, Stamp | None]:
        return self.folder, self._header

    def __setstate__(self, state: tuple[Path, Stamp | None]) -> None:
        self.__init__(state[0])  # type: ignore[misc]
        self._header = state[1]  # as the process found it that opened the store


# ---------------------------------------------------------------------------------------------------------------------
# Addresses
# ---------------------------------------------------------------------------------------------------------------------
class RemoteBytes:
    """A store behind an address, read through obstore. Credentials come from the environment, as its tools take them.

    `http://` is for this machine alone: values that come unencrypted through a network are not trusted.
    """

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/")
        parts = urlsplit(self.url)
        self._host = parts.netloc
        self._loopback = parts.hostname in ("localhost", "127.0.0.1", "::1")
        self._lists = parts.scheme not in ("http", "https")
        if parts.scheme == "http" and not self._loopback:
            raise DataError(f"{self.url}: expected https:// (http:// is read from this machine alone)")
        self._store: tuple[int, Any] | None = None
        self._lock = threading.Lock()
        _obstore(self.url)

    @property
    def label(self) -> str:
        return self.url

    def threads(self, nbytes: int) -> int:
        return REMOTE_THREADS

    def read(self, key: str, start: int = 0, length: int | None = None) -> bytes | None:
        obstore = _obstore(self.url)
        options: dict[str, Any] = {}
        if start < 0:
            options = {"range": {"suffix": -start}}
        elif length is not None:
            if length <= 0:
                return b""
            options = {"range": (start, start + length)}
        elif start:
            options = {"range": {"offset": start}}
        try:
            return bytes(obstore.get(self._opened(), key, options=options).bytes())
        except (FileNotFoundError, obstore.exceptions.NotFoundError):
            return None
        except obstore.exceptions.BaseError as error:
            raise self._unreachable(key, error) from error

    def children(self, folder: str) -> tuple[str, ...] | None:
        if not self._lists:
            return None
        obstore = _obstore(self.url)
        try:
            found = obstore.list_with_delimiter(self._opened(), folder or None)["common_prefixes"]
        except obstore.exceptions.BaseError as error:
            raise self._unreachable(folder, error) from error
        return tuple(sorted(str(path).rstrip("/").rpartition("/")[2] for path in found))

    def holds(self, key: str) -> None:
        return None  # a request for each of many objects takes longer than to miss one when it is read

    def check_unchanged(self) -> None:
        return None  # not without a request for each batch

    def _opened(self) -> Any:
        with self._lock:
            if self._store is None or self._store[0] != os.getpid():
                store = _obstore(self.url).store
                client = {"timeout": "30s", "connect_timeout": "10s", "allow_http": self._loopback or self._to_self()}
                retries = {"max_retries": 3, "retry_timeout": _seconds(30)}
                self._store = (os.getpid(), store.from_url(self.url, client_options=client, retry_config=retries))
            return self._store[1]

    def _to_self(self) -> bool:
        """Whether the environment names an endpoint on this machine, as tests and local object stores do."""
        endpoint = os.environ.get("AWS_ENDPOINT_URL", os.environ.get("AWS_ENDPOINT", ""))
        return urlsplit(endpoint).hostname in ("localhost", "127.0.0.1", "::1")

    def _unreachable(self, key: str, error: Exception) -> DataError:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        said = lines[0][:300] if lines else type(error).__name__
        return DataError(
            f"{self.url}/{key}: the host {self._host} gives no answer that can be used: {said}; check the address, the "
            "network and the credentials in the environment, or copy the store to this machine"
        )

    def __getstate__(self) -> str:
        return self.url

    def __setstate__(self, url: str) -> None:
        self.__init__(url)  # type: ignore[misc]


def _seconds(count: int) -> Any:
    from datetime import timedelta

    return timedelta(seconds=count)


def _obstore(url: str) -> Any:
    try:
        import obstore
        import obstore.exceptions
        import obstore.store
    except ImportError as error:
        raise DataError(
            f"{url}: reading remote data needs the extra 'remote': `pip install 'ups_kit[remote]'`; or copy the store "
            "to this machine"
        ) from error
    return obstore
