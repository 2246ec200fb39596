"""`upskit import-config`: configurations of the ancestor as recipes."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from ..errors import Problem, RecipeError, UsageError


@click.command("import-config")
@click.argument("source", type=click.Path(path_type=Path), metavar="FILE.yaml")
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    metavar="RECIPE.toml",
    help="The recipe that is written; FILE.toml beside FILE.yaml if not given.",
)
@click.option("--force", is_flag=True, help="Write over a recipe that is there.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def import_config(source: Path, out: Path | None, force: bool, as_json: bool) -> None:
    """Translate a YAML configuration of universal_simulator, this library's ancestor, to a recipe.

    What has become of every key, and of those that could not be carried over and why, stands at the recipe's head and
    is printed. Losses that the data refuse are left out.
    """
    from ..moving_in.importing import import_config as translate
    from ..moving_in.importing import refuse_existing, write
    from ..moving_in.writing import account, record
    from ..plugins import discover

    out = source.parent / f"{source.stem or 'recipe'}.toml" if out is None else out
    if out.suffix != ".toml" and not out.is_dir():
        raise UsageError(f"--out {out}: recipes are TOML; nearest: --out {out.with_suffix('.toml')}")
    refuse_existing(out, force)
    catalog = discover()
    imported = translate(source, out, catalog, lambda tables: _problems(tables, catalog))
    write(imported, force)
    if as_json:
        problems = [{"path": problem.path, "message": problem.message} for problem in imported.problems]
        click.echo(json.dumps(record(imported.settings, out, problems), indent=1))
    else:
        click.echo("\n".join([*account(imported.settings, 100), "", f"written: {out}"]))
        if imported.fits and imported.problems:
            click.echo("its data are not there yet:")
            click.echo("\n".join(f"  {problem}" for problem in imported.problems))
        elif imported.fits:
            click.echo(f"`upskit validate {out} --data` shows its data, `upskit run {out}` trains")
    if not imported.fits:
        raise RecipeError(f"{out} (written, and to be mended)", imported.problems)


def _problems(tables: Mapping[str, Any], catalog: Any) -> Sequence[Problem]:
    """What is wrong with a recipe, as `upskit validate` says it."""
    from ..assemble import check
    from ..reading import read_tables

    recipe, problems = read_tables(tables, catalog)
    return problems if recipe is None or problems else check(recipe)
