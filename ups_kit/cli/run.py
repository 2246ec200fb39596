"""`upskit run`: a recipe, from data to report."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from contextlib import nullcontext, redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ..errors import Problem, UsageError
from ..folder import RECORD
from .recipes import SETTINGS, check_parts
from .without import NO_PLUGIN

if TYPE_CHECKING:
    from ..reading import ReadRecipe


@click.command()
@click.argument("recipe")
@SETTINGS
@click.option(
    "--resume",
    is_flag=True,
    help="Continue the newest run of this recipe's name, or the run whose folder is given, where it stopped.",
)
@click.option("--from", "from_stage", metavar="STAGE", help="A new run that takes over the finished stages before it.")
@click.option("--only", metavar="STAGE", help="The same, but for this stage alone.")
@click.option("--of", type=click.Path(path_type=Path), metavar="RUN", help="Where they are taken from: a run folder.")
@click.option(
    "--allow-changed",
    multiple=True,
    metavar="KEY",
    help="Resume though this key has changed, as latent.width. Repeatable.",
)
@click.option("--device", metavar="DEVICE", help="Where to compute: auto, cpu, cuda or cuda:N.")
@click.option("--json", "as_json", is_flag=True, help="Print the run's summary as JSON on standard output.")
@NO_PLUGIN
def run(
    recipe: str,
    settings: Sequence[str],
    resume: bool,
    from_stage: str | None,
    only: str | None,
    of: Path | None,
    allow_changed: Sequence[str],
    device: str | None,
    as_json: bool,
) -> int:
    """Run a RECIPE: make or read the data, train, evaluate, write the report.

    RECIPE may also be the folder of a run, with --resume, --from or --only.

    --from and --only make a new run folder. The stages before STAGE are taken from the newest run of the recipe's name,
    or from --of RUN, where they were trained by the same keys on the same data; nothing there is changed.
    """
    anew = from_stage is not None or only is not None
    read = _read(recipe, settings, resume, anew, device)
    folder = Path(recipe) if (Path(recipe) / RECORD).is_file() else None
    if anew and of is None:
        of = folder
    _refuse_unwritable(read)
    if resume:
        _refuse_running(read, folder)
    check_parts(read)

    from ..run import run as run_recipe

    with redirect_stdout(sys.stderr) if as_json else nullcontext():  # a score card is no JSON
        result = run_recipe(
            read.recipe,
            resume=resume,
            from_stage=from_stage,
            only=only,
            of=of,
            at=folder if resume else None,
            allow_changed=allow_changed,
            recipe_text=read.text,
            origins=read.origins,
            catalog=read.catalog,
        )
    if as_json:
        click.echo(json.dumps({"folder": str(result.folder), **result.summary}, indent=1))
    return result.exit_code


def _read(recipe: str, settings: Sequence[str], resume: bool, anew: bool, device: str | None) -> ReadRecipe:
    """A recipe file with its settings, or the recipe that a run folder was made from."""
    from ..keys import toml
    from ..reading import read_recipe, read_resolved

    folder = Path(recipe)
    record = folder / RECORD
    if not record.is_file():
        return read_recipe(recipe, settings if device is None else [*settings, f"run.device={toml(device)}"])
    if not resume and not anew:
        raise UsageError(f"{recipe} is the folder of a run; to continue it, add --resume")
    if settings:
        raise UsageError(f"{recipe}: a run is continued as it was; --set goes with a recipe file")
    read = read_resolved(record, device)
    _refuse_elsewhere(folder, read)
    return read


def _refuse_unwritable(read: ReadRecipe) -> None:
    """Say that nothing can be written before data are made and not after."""
    folder = read.recipe.run.folder.absolute()
    there = next(parent for parent in (folder, *folder.parents) if parent.exists())
    if there.is_dir() and os.access(there, os.W_OK | os.X_OK):
        return
    why = "may not be written" if there.is_dir() else "is a file"
    message = f"no run folder can be made in {folder}: {there} {why}; choose another, for example --set run.folder=runs"
    raise read.error([Problem("run.folder", message)])


def _refuse_running(read: ReadRecipe, folder: Path | None) -> None:
    """Say that the run to resume goes on elsewhere before anything is loaded or looked through."""
    from ..folder import RunFolder, last_run_folder

    own = read.recipe.run
    resumed = RunFolder(folder) if folder is not None else last_run_folder(own.folder, own.name)
    if resumed is None:
        raise UsageError(f"{own.folder / own.name}: there is no run to resume; start one without --resume")
    resumed.check_free()


def _refuse_elsewhere(folder: Path, read: ReadRecipe) -> None:
    """A run goes on where its recipe says that runs of it are."""
    home = read.recipe.run.folder / read.recipe.run.name
    if home.resolve() != folder.resolve().parent:
        raise UsageError(f"{folder} was made as {home}/{folder.name}; call upskit from where that path leads to it")
