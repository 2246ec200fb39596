"""`upskit plan`: what a run would take, before it is started."""

from __future__ import annotations

import json
from collections.abc import Sequence

import click

from .recipes import SETTINGS, check_parts
from .without import NO_PLUGIN


@click.command()
@click.argument("recipe")
@SETTINGS
@click.option("--device", metavar="DEVICE", help="Where it would compute: auto, cpu, cuda or cuda:N.")
@click.option(
    "--probe/--no-probe", default=True, show_default=True, help="Take a few steps of every stage, to tell the time."
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@NO_PLUGIN
def plan(recipe: str, settings: Sequence[str], device: str | None, probe: bool, as_json: bool) -> None:
    """Say what a run of a RECIPE would take: parameters, arithmetic, memory, data, disk, steps and time.

    Everything is built as the run would build it, and no run folder is written. Data that a simulator is still to make
    are stood for by a few trajectories in a temporary folder, and the numbers that depend on them are estimates.
    """
    from ..keys import toml
    from ..reading import read_recipe

    read = read_recipe(recipe, settings if device is None else [*settings, f"run.device={toml(device)}"])
    check_parts(read)
    from ..planning.plan import plan as plan_recipe
    from ..planning.plan import summary
    from ..planning.showing import lines

    found = plan_recipe(read.recipe, read.catalog, probe)
    click.echo(json.dumps(summary(found), indent=1) if as_json else "\n".join(lines(found)))
