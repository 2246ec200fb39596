"""Verbs on data files: `upskit data inspect`, `validate`, `check`, `stats`, `convert`, `make`."""

from __future__ import annotations

import click


@click.group()
def data() -> None:
    """Look at data files, check them, convert them, make them."""
