"""`upskit replicate`: one recipe with several seeds."""

from __future__ import annotations

import json
from collections.abc import Sequence

import click

from ..errors import UsageError
from .recipes import SETTINGS, check_parts
from .without import NO_PLUGIN

MOST_SEEDS = 1000


@click.command()
@click.argument("recipe")
@click.option(
    "--seeds", default="5", show_default=True, metavar="N|A,B,...", help="How many seeds, from 0 on, or which ones."
)
@SETTINGS
@click.option("--jobs", type=click.IntRange(min=1), default=1, show_default=True, help="Runs at a time, of one thread.")
@click.option("--device", metavar="DEVICE", help="Where to compute: auto, cpu, cuda or cuda:N.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON on standard output.")
@NO_PLUGIN
def replicate(recipe: str, seeds: str, settings: Sequence[str], jobs: int, device: str | None, as_json: bool) -> int:
    """Run a RECIPE with several seeds, and tell mean and 95 % interval of every number of the score card.

    Every seed is a run in a numbered folder of its own. Seeds that are finished under the same recipe are taken as they
    are, those that were stopped go on, and one that fails does not stop the others. Writes replicate.json and
    replicate.md into runs/NAME/replicates/N. The exit code is that of the first seed that failed, 7 where one is below
    its floors, else 0.
    """
    from ..keys import toml
    from ..reading import read_recipe

    wanted = _seeds(seeds)
    given = [*settings, *([] if device is None else [f"run.device={toml(device)}"])]
    read = read_recipe(recipe, given)
    check_parts(read)
    from ..replicating import SPLITS
    from ..replicating import replicate as replicate_recipe

    found = replicate_recipe(read, given, wanted, jobs)
    table = found.table
    if as_json:
        click.echo(json.dumps({"written": str(found.folder), **found.summary()}, indent=1))
    elif table is not None:
        click.echo(f"{table.text()}\nnote: {SPLITS}")
    failed = [str(seed.seed) for seed in found.seeds if not seed.is_done]
    if failed:
        click.echo(f"failed: seed{'s' if len(failed) > 1 else ''} {', '.join(failed)}", err=True)
    click.echo(f"written: {found.folder / 'replicate.json'}, {found.folder / 'replicate.md'}", err=True)
    return found.exit_code


def _seeds(text: str) -> tuple[int, ...]:
    """`5`: 0 to 4; `3,7,11`: these."""
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isascii() and part.isdigit() and len(part) < 16 for part in parts):
        raise UsageError(f"--seeds {text}: expected how many, such as 5, or seeds between commas, such as 3,7,11")
    found = tuple(map(int, parts)) if len(parts) > 1 else tuple(range(min(int(parts[0]), MOST_SEEDS + 1)))
    twice = sorted({seed for seed in found if found.count(seed) > 1}) if len(found) <= MOST_SEEDS else []
    if twice:
        raise UsageError(f"--seeds {text}: {twice[0]} stands twice; a seed twice is one run")
    if not 1 <= len(found) <= MOST_SEEDS:
        raise UsageError(f"--seeds {text}: expected 1 to {MOST_SEEDS} seeds")
    return found
