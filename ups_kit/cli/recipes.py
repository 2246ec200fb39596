"""Verbs on recipes: `validate` and `schema`."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..errors import Problem, RecipeError, UpsKitError, UsageError, did_you_mean
from ..interfaces import DescribesTasks, FieldSpec
from .without import NO_PLUGIN

if TYPE_CHECKING:
    from ..reading import ReadRecipe

SETTINGS = click.option(
    "--set",
    "settings",
    multiple=True,
    metavar="KEY=VALUE",
    help="Change a value, for example run.seed=1 or stages.operator.budget.seconds=300. Repeatable.",
)


@click.command()
@click.argument("recipes", nargs=-1, required=True, metavar="RECIPE...")
@SETTINGS
@click.option("--data", is_flag=True, help="Also open the headers of the data files, and print what they hold.")
@click.option("--explain", metavar="KEY", help="Print a value, or all values of a table, and where each was written.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object for each recipe.")
@NO_PLUGIN
def validate(recipes: Sequence[str], settings: Sequence[str], data: bool, explain: str | None, as_json: bool) -> int:
    """Check recipes, and print every problem. Exit code 2 if there is one, 3 if all are in the data."""
    from ..reading import read_recipe

    codes = [0]
    for recipe in recipes:
        problems: Sequence[Problem] = ()
        try:
            read = read_recipe(recipe, settings)
            check_parts(read)
            if not as_json:
                click.echo("\n".join(_report(read, data, explain)))
        except RecipeError as error:
            problems = error.problems
            codes.append(_failed(error, as_json))
        except UpsKitError as error:  # data that cannot be read, a plugin that breaks its contract
            problems = [Problem("", str(error))]
            codes.append(_failed(error, as_json))
        if as_json:
            click.echo(json.dumps({"recipe": recipe, "valid": not problems, "problems": [_plain(p) for p in problems]}))
    return max(codes)


def _failed(error: UpsKitError, quiet: bool) -> int:
    if not quiet:
        click.echo(str(error), err=True)
    return error.exit_code


@click.command()
@click.option("--write", type=click.Path(path_type=Path), metavar="FILE", help="Write it to a file, for an editor.")
@NO_PLUGIN
def schema(write: Path | None) -> None:
    """Print the JSON Schema of recipes, for the plugins that are installed."""
    from ..folder import write_text
    from ..plugins import discover
    from ..schema import recipe_schema

    text = json.dumps(recipe_schema(discover()), indent=1) + "\n"
    if write is None:
        click.echo(text, nl=False)
        return
    try:
        write.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"{write.parent}: the folder cannot be made: {error.strerror}") from error
    write_text(write, text)
    click.echo(f"{write}: name it in a recipe's first line: #:schema {write}")


def check_parts(read: ReadRecipe) -> None:
    """Check that the parts of a recipe fit its data. Raises RecipeError with every problem."""
    from ..assemble import check
    from ..blame import blaming

    with blaming(read.catalog):
        problems = check(read.recipe)
    if problems:
        raise read.error(problems)


def _plain(problem: Problem) -> dict[str, str]:
    return {"path": problem.path, "message": problem.message, "origin": problem.origin}


def _report(read: ReadRecipe, data: bool, explain: str | None) -> Iterator[str]:
    stages = ", ".join(stage.name for stage in read.recipe.stages)
    yield f"{read.source}: valid (run {read.recipe.run.name}, stages {stages})"
    if data:
        described = read.recipe.dataset.describe()
        yield from _describe(described) if isinstance(described, FieldSpec) else described.lines()
        tasks = read.recipe.dataset.describe_tasks() if isinstance(read.recipe.dataset, DescribesTasks) else {}
        for name, fields in tasks.items():
            yield f"  task {name}: {fields.layout} {_shape(fields)}, time step {fields.dt:g}"
    if explain is not None:
        yield from _explain(read, explain)


def _describe(fields: FieldSpec) -> Iterator[str]:
    box = " x ".join(f"[{low:g}, {high:g}]" for low, high in fields.domain)
    yield f"  fields      {', '.join(field.name for field in fields.targets)}"
    yield f"  layout      {fields.layout} {_shape(fields)} on {box}"
    yield f"  time step   {fields.dt:g}"
    yield f"  conditions  {', '.join(fields.conditions)}"


def _shape(fields: FieldSpec) -> str:
    return " x ".join(str(points) for points in fields.grid) if fields.grid else "points that differ by sample"


def _explain(read: ReadRecipe, key: str) -> Iterator[str]:
    from ..keypaths import render
    from ..merging import leaves

    values: dict[str, Any] = {render(path): value for path, value in leaves(read.resolved["values"])}
    found = [path for path in values if path == key or path.startswith(f"{key}.")]
    if not found:
        raise UsageError(f"--explain {key}: the recipe has no such key{did_you_mean(key, values)}")
    width = max(len(path) for path in found)
    for path in found:
        yield f"  {path:{width}} = {_toml(values[path])}  ({read.origins[path]})"


def _toml(value: Any) -> str:
    from ..keys import toml

    return toml(value)
