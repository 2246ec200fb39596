"""`upskit predict`: a forecast of a trained model, from file to file."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ..errors import UsageError
from .without import NO_PLUGIN

if TYPE_CHECKING:
    from ..predicting.command import Predicted


@click.command()
@click.argument("bundle", type=click.Path(path_type=Path))
@click.option("--input", "given", type=click.Path(path_type=Path), required=True, metavar="FILE", help="Given states.")
@click.option("--steps", type=click.IntRange(min=1), help="Time steps to forecast; steady data have one.")
@click.option("--points", metavar="FILE|grid:HxW", help="Where to answer; the input's own points where not given.")
@click.option("--out", type=click.Path(path_type=Path), required=True, help="A .npz, .h5 or .zarr to write.")
@click.option("--sample", type=click.IntRange(min=0), help="Which trajectory of the file; the first where not given.")
@click.option("--frame", type=click.IntRange(min=0), help="The last given frame; the first possible where not given.")
@click.option("--parameter", "parameters", multiple=True, metavar="NAME=VALUE", help="A parameter. Repeatable.")
@click.option("--task", metavar="NAME", help="Of a model of several tasks: which.")
@click.option("--forecast", metavar="NAME", help="'operator', or the stage whose part draws forecasts.")
@click.option("--sampling-steps", type=click.IntRange(min=1), help="Steps of the sampler of such a part.")
@click.option("--members", type=click.IntRange(min=1), help="So many draws: writes their mean and deviation.")
@click.option("--all-members", is_flag=True, help="Write every member, too.")
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="What draws follow from.")
@click.option("--overwrite", is_flag=True, help="Replace what is at --out.")
@click.option("--device", metavar="DEVICE", default="auto", help="Where to compute: auto, cpu, cuda or cuda:N.")
@click.option("--json", "as_json", is_flag=True, help="Print what was written as JSON.")
@NO_PLUGIN
def predict(
    bundle: Path,
    given: Path,
    steps: int | None,
    points: str | None,
    out: Path,
    sample: int | None,
    frame: int | None,
    parameters: Sequence[str],
    task: str | None,
    forecast: str | None,
    sampling_steps: int | None,
    members: int | None,
    all_members: bool,
    seed: int,
    overwrite: bool,
    device: str,
    as_json: bool,
) -> int:
    """Forecast with the model of a BUNDLE, or of the run folder that holds one, in physical units.

    --input is a file of the layout that the model was trained on, or a .npz with arrays by the names of the fields,
    and of the parameters. docs/python.md says what is in either, and what is written.
    """
    from ..predicting.command import Asked, parameter_of
    from ..predicting.command import predict as predict_files

    told = dict(parameter_of(text) for text in parameters)
    if len(told) < len(parameters):
        raise UsageError("--parameter: a name is given more than once; expected each once")
    done = predict_files(
        Asked(
            bundle=bundle,
            input=given,
            steps=steps,
            out=out,
            points=points,
            parameters=told,
            sample=sample,
            frame=frame,
            task=task,
            forecast=forecast,
            sampling_steps=sampling_steps,
            members=members,
            all_members=all_members,
            seed=seed,
            device=device,
            overwrite=overwrite,
        )
    )
    if as_json:
        shapes = {name: list(shape) for name, shape in done.shapes.items()}
        click.echo(json.dumps({"path": str(done.path), "arrays": shapes, "provenance": done.provenance}, indent=1))
        return 0
    _tell(done)
    return 0


def _tell(done: Predicted) -> None:
    """Say what was written, and by which forecast."""
    drawn = done.provenance["forecast"]
    sampler = "" if drawn["steps"] is None else f" in {drawn['steps']} steps, seed {drawn['seed']}"
    click.echo(f"{done.path}: forecast '{drawn['use']}'{sampler}, from {done.provenance['input']}")
    for name, shape in done.shapes.items():
        if "/" in name and not name.startswith("parameters/"):
            click.echo(f"  {name} {list(shape)}")
    if done.bad:
        click.echo(f"warning: {done.bad} values of the forecast are NaN or infinite", err=True)
