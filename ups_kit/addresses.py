"""Addresses of remote data where a recipe may also name a file."""

from __future__ import annotations

import re
from pathlib import Path

from .errors import DataError

SCHEMES = ("s3", "https", "http", "gs", "az")
_REMOTE = re.compile(rf"({'|'.join(SCHEMES)}):/+(?=[^/])")


def url_of(path: Path | str) -> str | None:
    """`s3://bucket/x` for such an address, also where a Path has made one slash of two; None for a file's path."""
    text = str(path)
    found = _REMOTE.match(text)
    return f"{found[1]}://{text[found.end() :]}" if found else None


def check_local(path: Path) -> None:
    """Raise DataError for an address where a file of this machine is expected."""
    url = url_of(path)
    if url is not None:
        raise DataError(
            f"{url}: is an address; this command looks at files and stores of this machine. A recipe reads a Zarr "
            'store there with dataset.use = "grid_zarr" and dataset.path, and `upskit data validate RECIPE` looks at it'
        )
