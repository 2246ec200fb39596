"""`upskit data encode`: cached latents ahead of the training that reads them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ..errors import UsageError
from .recipes import SETTINGS, check_parts
from .without import NO_PLUGIN

if TYPE_CHECKING:
    from ..data.latents import Opened
    from ..reading import ReadRecipe


@click.command()
@click.argument("run", metavar="RUN|RECIPE")
@SETTINGS
@click.option("--device", metavar="DEVICE", help="Where to encode: auto, cpu, cuda or cuda:N.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@NO_PLUGIN
def encode(run: str, settings: Sequence[str], device: str | None, as_json: bool) -> int:
    """Encode the train data of a recipe with a [latent_cache] before a stage needs the latents.

    RUN is the folder of a run whose codec stage is finished, or a bundle; with a RECIPE it is the newest run of its
    name. Several of these at once, on one machine or on several that share a disk, divide the work among them.
    """
    opened = _of_bundle(Path(run), settings, device) or _of_run(run, settings, device)
    click.echo(json.dumps(opened.summary(), indent=1) if as_json else opened.line())
    return 0


def _of_bundle(path: Path, settings: Sequence[str], device: str | None) -> Opened | None:
    if (path / "resolved.json").is_file() or not path.is_dir():
        return None
    if settings:
        raise UsageError(f"{path}: a bundle is used as it was trained; --set goes with a recipe file")
    from ..run import encode_by_bundle

    return encode_by_bundle(path, device)


def _of_run(run: str, settings: Sequence[str], device: str | None) -> Opened:
    from ..folder import RunFolder, last_run_folder

    read, folder = _read(run, settings, device)
    check_parts(read)
    own = read.recipe.run
    found = RunFolder(folder) if folder is not None else last_run_folder(own.folder, own.name)
    if found is None:
        raise UsageError(f"{own.folder / own.name}: there is no run of this recipe yet, whose encoder could be used")
    from ..run import encode_by_run

    return encode_by_run(read.recipe, found, read.catalog)


def _read(run: str, settings: Sequence[str], device: str | None) -> tuple[ReadRecipe, Path | None]:
    from ..keys import toml
    from ..reading import read_recipe, read_resolved

    record = Path(run) / "resolved.json"
    if not record.is_file():
        return read_recipe(run, settings if device is None else [*settings, f"run.device={toml(device)}"]), None
    if settings:
        raise UsageError(f"{run}: a run is used as it was; --set goes with a recipe file")
    return read_resolved(record, device), Path(run)
