"""`upskit compare`: finished runs beside each other."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import click


@click.command()
@click.argument("runs", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="RUN RUN...")
@click.option("--md", "as_markdown", is_flag=True, help="Print Markdown.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    metavar="FOLDER",
    help="Also write compare.md, compare.json and pictures of the training and of the errors' growth.",
)
def compare(runs: Sequence[Path], as_markdown: bool, as_json: bool, out: Path | None) -> None:
    """Put finished RUNs beside each other: what differs in recipe and environment, and the score card.

    RUN is a run folder, or a folder that `upskit evaluate` has made in one. Runs that differ in run.seed alone are one
    column, mean ± standard deviation. Runs that were scored by different definitions (another split, other data, steps
    or trajectories) are refused, and what differs is listed.
    """
    from ..comparing.comparison import compare as compare_runs
    from ..comparing.comparison import write
    from ..errors import UsageError

    if as_markdown and as_json:
        raise UsageError("--md and --json are two forms of one output; give one of them")
    found = compare_runs(runs)
    if out is not None:
        for path in write(found, out):
            click.echo(f"written: {path}", err=True)
    if as_json:
        click.echo(json.dumps(found.summary(), indent=1))
    else:
        click.echo(found.markdown() if as_markdown else found.text())
