"""`upskit data validate`, `stats` and `check`: whether data are fit to train on."""

from __future__ import annotations

import json
import math
import shlex
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..console import printable
from ..errors import DataError, UpsKitError, UsageError
from .recipes import SETTINGS
from .without import NO_PLUGIN

if TYPE_CHECKING:
    from ..data.checking import Target

GIB = 2**30
TARGET = click.argument("target", type=click.Path(path_type=Path, readable=False), metavar="FILE|RECIPE")
JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
SECONDS = click.option(
    "--seconds",
    type=click.FloatRange(min=0.1),
    default=20.0,
    show_default=True,
    help="How long the reader may go without reading on.",
)
MEMORY = click.option(
    "--memory", type=click.FloatRange(min=0.1), default=4.0, show_default=True, help="Memory of the reader, in GiB."
)
DATA_EXIT = 3


def plain_numbers(value: Any) -> Any:
    """JSON has no NaN: numbers that are not finite as text."""
    if isinstance(value, Mapping):
        return {key: plain_numbers(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain_numbers(entry) for entry in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def told_as_json(file: str, **verdict: bool) -> Callable[[Callable[..., int]], Callable[..., int]]:
    """With --json, an error is JSON on standard output too: `problems`, and the verdict of the command."""

    def wrapped(command: Callable[..., int]) -> Callable[..., int]:
        @wraps(command)
        def call(as_json: bool, **keys: Any) -> int:
            try:
                return command(as_json=as_json, **keys)
            except UpsKitError as error:
                if as_json:
                    click.echo(json.dumps({file: str(keys[file]), **verdict, "problems": [str(error)]}))
                raise

        return call

    return wrapped


@click.command()
@TARGET
@SETTINGS
@JSON
@SECONDS
@MEMORY
@told_as_json("target", valid=False)
@NO_PLUGIN
def validate(target: Path, settings: Sequence[str], as_json: bool, seconds: float, memory: float) -> int:
    """Look through all data of a FILE or RECIPE and print everything that is wrong with them.

    A recipe's data are read as the recipe says; a file through the layout that an installed dataset recognises. Exit
    code 3 where something is wrong.
    """
    from ..data.checking import in_child
    from ..data.inspection import inspect_file

    which = _target(target, settings)
    limit = int(memory * GIB)
    problems: list[str] = []
    with _following(as_json) as report:
        if not which.is_recipe:
            problems += [f"{target}: {problem}" for problem in inspect_file(target, seconds, limit).problems]
        try:
            found = in_child("validate", which, seconds, limit, report)
        except DataError as error:
            found = {"problems": [str(error)]}
    problems += [problem for problem in found["problems"] if problem not in problems]
    if as_json:
        facts = {key: value for key, value in found.items() if key != "problems"}
        click.echo(json.dumps({"target": str(target), "valid": not problems, "problems": problems, **facts}))
    else:
        click.echo(printable("\n".join(_validated(target, found, problems))), err=bool(problems))
    return DATA_EXIT if problems else 0


def _validated(target: Path, found: Mapping[str, Any], problems: Sequence[str]) -> Iterator[str]:
    from .data import field_lines

    if problems:
        yield f"{target}: {len(problems)} problem{'' if len(problems) == 1 else 's'}"
        yield from (f"  {problem}" for problem in problems)
        return
    yield f"{target}: valid ({found['use']})"
    yield from (f"  {line}" for line in field_lines(found["fields"]))
    if found.get("to_be_made"):
        yield f"  files       to be made: {', '.join(found['to_be_made'])}"
        return
    if not found["splits"]:
        looked = found.get("values_looked_at", 0)
        values = f"all {looked:,} values finite" if looked else "its values were not looked at"
        yield f"  splits      none: too few trajectories for splits of its own; {values}"
        return
    splits = ", ".join(f"{count} {split}" for split, count in found["splits"].items())
    if "lines" in found["fields"]:  # of another family than fields in space: what its data set has looked at
        yield f"  splits      {splits}; all values as they should be, no sample in two of them"
        return
    yield f"  splits      {splits}; all values finite, no common initial conditions"
    yield f"  samples     {found['samples_checked']} checked one by one"


@click.command()
@TARGET
@SETTINGS
@JSON
@SECONDS
@MEMORY
@click.option("--recompute", is_flag=True, help="Compute them anew, also where they are kept beside the data.")
@told_as_json("target")
@NO_PLUGIN
def stats(target: Path, settings: Sequence[str], as_json: bool, seconds: float, memory: float, recompute: bool) -> int:
    """Mean, deviation, range and quantiles of every field: of a FILE, or of the train split of a RECIPE.

    They are kept beside the data, in .NAME.stats.json, with the data's hash.
    """
    from ..data.kept_statistics import statistics_of_target

    which = _target(target, settings)
    with _following(as_json) as report:
        found, kept = statistics_of_target(which, recompute, seconds, int(memory * GIB), report)
    if as_json:
        click.echo(json.dumps(plain_numbers({"target": str(target), "kept": kept, **found}), indent=1))
        return 0
    click.echo(printable("\n".join(_statistics(target, found, kept))))
    return 0


def _statistics(target: Path, found: Mapping[str, Any], kept: bool) -> Iterator[str]:
    yield f"{target}: {found['of']}{', as kept beside the data' if kept else ''}"
    names = ("mean", "std", "min", "max")
    quantiles = next((list(each["quantiles"]) for each in found["fields"].values() if each["count"]), [])
    shown = [q for q in ("0.05", "0.5", "0.95") if q in quantiles]
    rows = [["FIELD", "VALUES", *(name.upper() for name in names), *(f"{float(q):.0%}" for q in shown), ""]]
    for name, each in found["fields"].items():
        bad = f"{each['not_finite']:,} not finite" if each["not_finite"] else ""
        numbers = [""] * (len(names) + len(shown))
        if each["count"]:
            numbers = [f"{each[key]:.6g}" for key in names] + [f"{each['quantiles'][q]:.4g}" for q in shown]
        rows.append([name, f"{each['count']:,}", *numbers, bad])
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        yield "  ".join(f"{cell:{width}}" for cell, width in zip(row, widths, strict=True)).rstrip()


@click.command()
@TARGET
@SETTINGS
@JSON
@SECONDS
@MEMORY
@told_as_json("target", sound=False)
@NO_PLUGIN
def check(target: Path, settings: Sequence[str], as_json: bool, seconds: float, memory: float) -> int:
    """Look for leaks and broken physics: initial conditions that stand twice, or nearly; trajectories that do not
    follow their equation.

    For a RECIPE, across its splits, separate test files included; for a FILE, within it. Residual and conservation
    are measured where the file says which simulator made it, and that one can. Exit code 3 for a leak between splits,
    or a number above its tolerance.
    """
    from ..data.checking import in_child

    which = _target(target, settings)
    with _following(as_json) as report:
        found = in_child("leaks", which, seconds, int(memory * GIB), report)
    problems = found["problems"]
    if as_json:
        click.echo(json.dumps(plain_numbers({"target": str(target), "sound": not problems, **found})))
    else:
        click.echo(printable("\n".join(_checked(target, found))))
        if problems:
            click.echo(printable("\n".join(f"problem: {problem}" for problem in problems)), err=True)
    return DATA_EXIT if problems else 0


def _checked(target: Path, found: Mapping[str, Any]) -> Iterator[str]:
    twins = found["twins"]
    equal = sum(twin["distance"] == 0 for twin in twins)
    crossing = sum(twin["splits"][0] != twin["splits"][1] for twin in twins)
    yield f"{target}: {equal} pairs of equal and {len(twins) - equal} of nearly equal initial conditions"
    if twins and target.suffix == ".toml":
        yield f"  {crossing} of them in different splits"
    for twin in twins[:5]:
        yield f"  trajectories {twin['ids'][0]} and {twin['ids'][1]}: relative distance {twin['distance']:.1e}"
    for number in found["audits"]:
        limit = f", sound below {number['below']:g}" if number["below"] is not None else ""
        measured = f"{number['number']} at most {number['worst']:.2g}{limit}"
        yield f"  {Path(number['file']).name}: {measured} ({number['trajectories']} trajectories)"
    for each in found["unaudited"]:
        maker = f"the simulator '{each['simulator']}', which made it,"
        yield f"  {Path(each['file']).name}: {maker} has no audit for its equation"
    if not found["audits"] and not found["unaudited"]:
        yield "  the equation is not measured: these data do not say which installed simulator made them"


def _target(path: Path, settings: Sequence[str]) -> Target:
    """A file, or the dataset of a recipe. Raises UsageError, DataError for an address, RecipeError."""
    from ..addresses import check_local
    from ..data.checking import Target, data_files

    check_local(path)
    if path.suffix != ".toml":
        if settings:
            raise UsageError(f"{path}: --set goes with a recipe")
        return Target(path)
    from ..reading import read_recipe
    from ..tables import unstructure

    read = read_recipe(path, settings)
    recipe, catalog = read.recipe, read.catalog
    use = catalog.locate(recipe.dataset, "dataset").name
    command = shlex.join([str(path), *(part for each in settings for part in ("--set", each))])
    table = {"use": use, **unstructure(recipe.dataset, catalog)}
    return Target(path, table, data_files(recipe.dataset), recipe.run.seed, recipe.plugins.disable, command)


class _following:  # noqa: N801 - a context manager, named as one
    """Show on a terminal what is being read."""

    def __init__(self, quiet: bool) -> None:
        self._shown = not quiet and sys.stderr.isatty()
        self._last = 0.0

    def __enter__(self) -> Any:
        return self._report if self._shown else None

    def _report(self, what: str) -> None:
        import time

        if time.monotonic() - self._last > 0.2:
            self._last = time.monotonic()
            click.echo(f"\r\x1b[Kreading {what[:60]}", err=True, nl=False)

    def __exit__(self, *error: object) -> None:
        if self._shown:
            click.echo("\r\x1b[K", err=True, nl=False)
