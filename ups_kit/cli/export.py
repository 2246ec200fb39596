"""`upskit export`: a trained model as programs that need nothing but torch."""

from __future__ import annotations

import json
from pathlib import Path

import click

from .without import NO_PLUGIN


@click.command()
@click.argument("bundle", type=click.Path(path_type=Path))
@click.option("--out", type=click.Path(path_type=Path), required=True, metavar="FOLDER", help="The folder to write.")
@click.option("--task", metavar="NAME", help="Of a model of several tasks: which.")
@click.option("--forecast", metavar="NAME", help="'operator', or the stage whose part draws forecasts.")
@click.option("--sampling-steps", type=click.IntRange(min=1), help="Steps of the sampler of such a part.")
@click.option("--overwrite", is_flag=True, help="Replace an export that is there.")
@click.option("--json", "as_json", is_flag=True, help="Print what was written as JSON.")
@NO_PLUGIN
def export(
    bundle: Path,
    out: Path,
    task: str | None,
    forecast: str | None,
    sampling_steps: int | None,
    overwrite: bool,
    as_json: bool,
) -> int:
    """Write the model of a BUNDLE, or of a run folder, as encode.pt2, step.pt2 and decode.pt2.

    They are loaded again and compared with the model on random inputs of several sizes; they are written only where
    they agree. docs/python.md shows their use.
    """
    from ..bundle import load_bundle
    from ..exporting import check_folder
    from ..exporting import export as export_programs
    from ..predicting.forecast import chosen

    check_folder(out, overwrite)
    own = load_bundle(bundle).alone(task)
    done = export_programs(own, chosen(own, forecast, sampling_steps), out, overwrite)
    if as_json:
        click.echo(json.dumps({"folder": str(done.folder), **done.record}, indent=1))
        return 0
    for name, value in done.differences.items():
        click.echo(f"{done.folder / name}.pt2: differs from the model by {value:.2g} of the largest value at most")
    return 0
