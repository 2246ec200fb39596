"""`upskit data make` and `convert`: new data files, whole or not at all."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from ..errors import UsageError
from ..interfaces import NamesEndings
from .without import NO_PLUGIN

GIB = 2**30
HDF5 = (".h5", ".hdf5")
OUT = click.option("--out", type=click.Path(path_type=Path), required=True, metavar="FILE", help="What is written.")


@click.command()
@click.argument("name")
@OUT
@click.option(
    "--set",
    "settings",
    multiple=True,
    metavar="KEY=VALUE",
    help="A key of the simulator, for example trajectories=200. Repeatable.",
)
@NO_PLUGIN
def make(name: str, out: Path, settings: Sequence[str]) -> None:
    """Make data with the simulator NAME (`upskit list simulator`): a file of a grid, a store of meshes or particles.

    What has been solved is kept beside the file until it is whole: the same command goes on where it was stopped.
    """
    from ..reading import read_component

    config = read_component("simulator", name, settings)
    from ..data.making import make as make_file

    endings = _endings(config)
    if out.suffix.lower() in {*HDF5, ".zarr", ".npz", ".npy"} - set(endings):
        kind = "an HDF5 file" if endings[0] in HDF5 else "a Zarr store" if endings[0] == ".zarr" else endings[0]
        raise UsageError(f"--out {out}: '{name}' writes {kind}; nearest: --out {out.with_suffix(endings[0])}")
    make_file(out.absolute(), config)
    click.echo(f"{out}: made; `upskit data inspect {out}` shows what is in it")


def _endings(config: Any) -> tuple[str, ...]:
    """The endings that a simulator's files may have, the usual one first."""
    if isinstance(config, NamesEndings):
        return config.endings
    return HDF5 if config.describe().layout == "grid" else (".zarr",)


def _words(context: click.Context, parameter: click.Parameter, value: str | None) -> tuple[str, ...] | None:
    """Names between commas."""
    return None if value is None else tuple(part.strip() for part in value.split(",") if part.strip())


def _target(source: Path, out: Path | None, kind: str | None) -> Path:
    """What is written: as --out says, or SRC with the ending of --to. Raises UsageError."""
    if out is not None:
        if kind is not None and out.suffix not in ({".h5", ".hdf5"} if kind == "h5" else {f".{kind}"}):
            raise click.UsageError(f"--out {out} does not end as --to {kind} says; give one of them")
        return out
    if kind is None:
        raise click.UsageError("expected --out FILE, or --to with a format")
    parts = [part for part in source.parts if not any(letter in part for letter in "*?[")]
    base = Path(*parts) if parts else Path("meshes")
    return base.with_name(f"{base.name if base.is_dir() else base.stem}.{kind}")


@click.command()
@click.argument("source", type=click.Path(path_type=Path, readable=False), metavar="SRC")
@click.option("--out", type=click.Path(path_type=Path), metavar="FILE", help="What is written.")
@click.option(
    "--to",
    "kind",
    type=click.Choice(["h5", "zarr", "npz"]),
    help="The format, where --out is not given: SRC with this ending, beside it.",
)
@click.option(
    "--axes", callback=_words, metavar="b,t,x,c", help="Axes of plain arrays: b, t, x, y, z, c, in their order."
)
@click.option(
    "--arrays", callback=_words, metavar="A,B", help="Which arrays of SRC; those with so many axes if not given."
)
@click.option("--names", callback=_words, metavar="u,v", help="Names of the fields: of the arrays, or of the channels.")
@click.option(
    "--parameters", multiple=True, metavar="NAME=NUMBER|ARRAY", help="A parameter of the equation. Repeatable."
)
@click.option("--domain", callback=_words, metavar="0:1,0:1", help="Ends of each axis in space; 0:1 if not given.")
@click.option("--statics", callback=_words, metavar="A,B", help="Data of meshes that are given and do not change.")
@click.option("--centres", is_flag=True, help="Points are centres of cells, instead of their first corners.")
@click.option("--dt", type=click.FloatRange(min=0, min_open=True), help="Time between frames, where SRC does not say.")
@click.option("--periodic/--not-periodic", default=True, show_default=True, help="Whether the axes are periodic.")
@click.option("--as-is", is_flag=True, help="Copy all arrays and attributes, whatever they are.")
@click.option("--memory", type=click.FloatRange(min=0.1), default=4.0, show_default=True, help="Memory, in GiB.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@NO_PLUGIN
def convert(
    source: Path,
    out: Path | None,
    kind: str | None,
    axes: tuple[str, ...] | None,
    arrays: tuple[str, ...] | None,
    names: tuple[str, ...] | None,
    parameters: Sequence[str],
    domain: tuple[str, ...] | None,
    statics: tuple[str, ...] | None,
    centres: bool,
    dt: float | None,
    periodic: bool,
    as_is: bool,
    memory: float,
    as_json: bool,
) -> None:
    """Write the data of SRC (HDF5, Zarr store, .npz, .npy) as another format, by the ending of --out: .h5, .zarr, .npz.

    Files of meshes (.vtu, .vtk, .msh; .pvd and .xdmf, which list their frames) become a `mesh_zarr` store: one file, a
    folder or a quoted pattern whose files are the frames of one sample, or a folder of such folders, each a sample. All
    frames of a sample have one mesh; data at nodes and in cells become fields, those in --statics static ones. A
    `parameters.json` in a sample's folder holds its parameters. Particles (LagrangeBench's folder or one of its files,
    another `particle_zarr` store) become a `particle_zarr` store.

    With --axes, plain arrays become trajectories that a dataset reads: a `grid_zarr` store, or PDEBench's HDF5 layout.
    Without, a file whose layout a dataset knows becomes one that a dataset knows: a `grid_zarr` store, or PDEBench's
    HDF5 layout, with its coordinates, times, parameters and units. Of other files, and with --as-is, all arrays and
    attributes are copied as they are. What was written is read again and compared; nothing is overwritten.
    """
    from ..data.conversion import convert_file
    from ..data.conversion_options import mesh_options, plain_options
    from ..data.mesh_files import is_mesh_source

    target = _target(source, out, kind)
    plain = meshes = None
    if axes is not None and as_is:
        raise click.UsageError("--axes says what the arrays are, and --as-is that they stay what they are: give one")
    if axes is not None:
        plain = plain_options(axes, arrays, names, parameters, domain, centres, dt, periodic)
    elif is_mesh_source(source):
        if target.suffix != ".zarr" or domain or centres or as_is:
            raise click.UsageError(
                "files of meshes become a Zarr store (--out NAME.zarr); of the options, --arrays, --names, --statics, "
                "--parameters and --dt are for them"
            )
        meshes = mesh_options(arrays, names, statics, parameters, dt)
    elif arrays or names or parameters or domain or centres or dt is not None:
        raise click.UsageError("--arrays, --names, --parameters, --domain, --centres and --dt go with --axes")
    if statics and meshes is None:
        raise click.UsageError("--statics is for files of meshes")
    done = convert_file(source, target, plain, int(memory * GIB), as_is, meshes)
    if as_json:
        click.echo(json.dumps({"source": str(source), "out": str(target), **done}))
        return
    for note in done["notes"]:
        click.echo(f"note: {note}", err=True)
    click.echo(f"{target}: {done['arrays']} arrays, {done['values']:,} values, read again and compared")
    if done.get("use"):
        click.echo(f"the dataset '{done['use']}' reads it: `upskit data inspect {target}` shows its table")
