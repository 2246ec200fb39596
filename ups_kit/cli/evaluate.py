"""`upskit evaluate`: a finished run once more, on its own points or on others."""

from __future__ import annotations

import itertools
import json
import sys
from collections.abc import Sequence
from contextlib import nullcontext, redirect_stdout
from pathlib import Path

import click

from ..errors import UsageError
from .without import NO_PLUGIN

LAYOUTS = ("grid", "mesh", "particles")


@click.command()
@click.argument("run", type=click.Path(path_type=Path))
@click.option("--on", "layouts", multiple=True, type=click.Choice(LAYOUTS), help="Evaluate on such points. Repeatable.")
@click.option("--points", multiple=True, type=click.IntRange(min=1), help="About how many points. Repeatable.")
@click.option(
    "--finer", multiple=True, type=int, metavar="FACTOR", help="Decode at so many times as many points. Repeatable."
)
@click.option("--split", type=click.Choice(("train", "validation", "test")), help="Trajectories that are evaluated.")
@click.option("--steps", type=click.IntRange(min=1), help="Steps that are rolled out.")
@click.option("--trajectories", type=click.IntRange(min=1), help="How many trajectories, spread over the split.")
@click.option("--stage", metavar="NAME", help="Which stage of the recipe, where several evaluate.")
@click.option("--out", type=click.Path(path_type=Path), metavar="FOLDER", help="Where to write, instead of the run.")
@click.option("--allow-partial", is_flag=True, help="Take a run whose training is not finished.")
@click.option("--device", metavar="DEVICE", help="Where to compute: auto, cpu, cuda or cuda:N.")
@click.option("--json", "as_json", is_flag=True, help="Print what was found as JSON on standard output.")
@NO_PLUGIN
def evaluate(
    run: Path,
    layouts: Sequence[str],
    points: Sequence[int],
    finer: Sequence[int],
    split: str | None,
    steps: int | None,
    trajectories: int | None,
    stage: str | None,
    out: Path | None,
    allow_partial: bool,
    device: str | None,
    as_json: bool,
) -> int:
    """Evaluate the model of a RUN, a run folder or a bundle, once more.

    Without --on, the recipe's stage that evaluates is run again, into a new folder evaluations/1, 2, … of the run.

    With --on and --points the same states on another discretisation or resolution: encoded from so many points, scored
    there and at the data's own points, beside what interpolation between the given points would do. Writes
    transfer.json and transfer.html into the run folder.

    With --finer 2 or 4 zero-shot super-resolution: a model that was trained on every 4th point (dataset.space_stride)
    is given those, and decoded at 2 or 4 times as many along each axis, beside interpolation. Writes finer.json and
    finer.html.
    """
    if bool(layouts) != bool(points):
        given, missing = ("--on", "--points N") if layouts else ("--points", "--on grid, mesh or particles")
        raise UsageError(f"{given} needs {missing} beside it")
    from ..evaluating import evaluate as evaluate_run
    from ..interfaces import Elsewhere

    asked = [Elsewhere(layout, count) for layout, count in dict.fromkeys(itertools.product(layouts, points))]  # type: ignore[arg-type]  # click has checked the names
    options = {"split": split, "steps": steps, "trajectories": trajectories}
    with redirect_stdout(sys.stderr) if as_json else nullcontext():  # a table is no JSON
        done = evaluate_run(
            run,
            asked=asked,
            finer=tuple(dict.fromkeys(finer)),
            changes={key: value for key, value in options.items() if value is not None},
            stage=stage,
            device=device,
            out=out,
            partial=allow_partial,
        )
    if as_json:
        click.echo(json.dumps({"folder": str(done.folder), **done.result}, indent=1))
    else:
        click.echo(f"written to {done.folder}", err=True)
    return done.exit_code
