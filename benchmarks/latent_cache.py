"""What a latent cache saves: time per epoch, and errors after equal CPU seconds.

    python benchmarks/latent_cache.py [--seconds 120] [--codec-seconds 40] [--seeds 3] [--recipe recipes/…] [--set …]

Three ways to spend the same CPU seconds of training on the recipe's data and model: end to end (encoder, operator and
decoder on all losses of `burgers_upt`); codec first, then the operator on latents that the frozen encoder makes anew in
every step; the same with the latents from a cache. The time that encoding the cache takes is counted: the cached
operator stage has that much less. First the time of an epoch of each, in turns in one process, then the errors.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import attrs
import torch

from measure import alternate, print_table
from trials import Summary, number, print_errors
from ups_kit.assemble import Experiment, assemble
from ups_kit.data.latents import cached_dataset
from ups_kit.fit.batches import TrainingWindows
from ups_kit.fit.fitting import Task, frozen_parts, prepare
from ups_kit.fit.forward import compute_losses
from ups_kit.fit.loop import training_step
from ups_kit.reading import read_recipe
from ups_kit.run import run
from ups_plugins.upt.training.stages import built_losses

ROOT = Path(__file__).parents[1]
END_TO_END, FROZEN, CACHED = "end to end", "frozen encoder, no cache", "frozen encoder, cached latents"
STEPS = 10  # of one turn


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=120.0, help="CPU seconds of training of each run, in all")
    parser.add_argument("--codec-seconds", type=float, default=40.0, help="of these, for encoder and decoder")
    parser.add_argument("--seeds", type=int, default=3, help="runs of each way, with seeds 0, 1, …")
    parser.add_argument("--rounds", type=int, default=9, help="turns of each way when epochs are timed")
    parser.add_argument("--folder", type=Path, default=Path("runs/benchmarks"), help="where the runs are kept")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="setting for all runs")
    parser.add_argument("--quick", action="store_true", help="few seconds, small data and one seed: does it work?")
    options = parser.parse_args()
    if options.quick:
        options.seconds, options.codec_seconds, options.seeds, options.rounds = 4.0, 2.0, 1, 2
    print_epochs(options)
    print_runs(options)


# ---------------------------------------------------------------------------------------------------------------------
# Time per epoch
# ---------------------------------------------------------------------------------------------------------------------
def print_epochs(options: argparse.Namespace) -> None:
    """Time of an operator epoch, from the steps of all ways in turn: without the rollout loss, and at its horizon."""
    with tempfile.TemporaryDirectory() as folder:
        ways = {
            name: stepping(recipe, name == CACHED, Path(folder), options)
            for name, recipe in ((END_TO_END, "burgers_upt"), (FROZEN, "burgers_cached"), (CACHED, "burgers_cached"))
        }
        for title, fraction in (("before the rollout loss sets in", 0.0), ("rollout loss at its whole horizon", 1.0)):
            cases = {name: partial(steps, fraction) for name, (steps, _) in ways.items()}
            times = alternate(cases, options.rounds)
            first = times[FROZEN].cpu * ways[FROZEN][1]
            rows = []
            for name, timing in times.items():
                cpu, wall = (seconds * ways[name][1] for seconds in (timing.cpu, timing.wall))
                rows.append(
                    [name, f"{1000 * timing.cpu / STEPS:.1f}", f"{cpu:.1f}", f"{wall:.1f}", f"{first / cpu:.2f}"]
                )
            header = ["", "ms per step (CPU)", "s per epoch (CPU)", "s per epoch (wall)", "times as fast as no cache"]
            print_table(f"Training of the operator, one epoch, {title}", header, rows)


def stepping(
    name: str, from_cache: bool, folder: Path, options: argparse.Namespace
) -> tuple[Callable[[float], None], float]:
    """A function that trains for some steps, reading batches included; and how often an epoch holds that."""
    settings = [*options.set, f"run.folder={folder}", "run.threads=1"]
    recipe = read_recipe(ROOT / "recipes" / f"{name}.toml", settings).recipe
    experiment = assemble(recipe)
    config: Any = next(stage for stage in recipe.stages if stage.name == "operator")
    terms = built_losses(config.losses, experiment.dataset.fields)
    windows = TrainingWindows(
        dataset=experiment.dataset,
        steps=max(1, *(term.loss.horizon for term in terms)),
        batch=config.batch,
        seed=0,
        stage="operator",
        shift=config.periodic_shifts,
        device=experiment.device,
    )
    if from_cache:
        dataset, summary = cached_dataset(experiment, windows.steps, False, print)
        windows = attrs.evolve(windows, dataset=dataset)
        print(f"encoding: {summary['seconds']:.1f} s wall")
    return steps_of(experiment, config, terms, windows), windows.windows / (config.batch * STEPS)


def steps_of(
    experiment: Experiment, config: Any, terms: Sequence[Any], windows: TrainingWindows
) -> Callable[[float], None]:
    """Trains for some steps when called, as if this share of the budget were spent."""
    model, now = experiment.model, [0.0]

    def loss(batch: Any, progress: Any, generator: torch.Generator) -> Any:
        return compute_losses(model, batch, terms, progress._replace(fraction=now[0]), generator)

    frozen = frozen_parts(model, config.freeze)
    frozen.__enter__()  # for as long as the benchmark lives
    task = Task(
        stage="operator",
        model=model,
        settings=config,
        run=experiment.recipe.run,
        device=experiment.device,
        source=windows,
        loss=loss,
        validate=lambda model: {"score": 0.0},
    )
    fitting = prepare(task)

    def steps(fraction: float) -> None:
        now[0] = fraction
        for _ in range(STEPS):
            training_step(fitting, windows.read(fitting.step))

    return steps


# ---------------------------------------------------------------------------------------------------------------------
# Errors after equal CPU seconds
# ---------------------------------------------------------------------------------------------------------------------
def print_runs(options: argparse.Namespace) -> None:
    """Whole runs of each way and seed, and their errors on the test split."""
    found: dict[str, list[Summary]] = {END_TO_END: [], FROZEN: [], CACHED: []}
    rest = options.seconds - options.codec_seconds
    for seed in range(options.seeds):
        found[END_TO_END].append(trained("burgers_upt", seed, options, {"operator": options.seconds}))
        split = {"codec": options.codec_seconds, "operator": rest}
        found[FROZEN].append(trained("burgers_cached", seed, options, split, cache=False))
        spent = encoding_seconds(seed, options)
        split["operator"] = max(rest - spent, 0.1 * rest)
        found[CACHED].append(trained("burgers_cached", seed, options, split))
    title = f"nRMSE after {options.seconds:g} CPU seconds of training, {options.seeds} seeds"
    steps = {"operator steps": "stages.operator.steps", "operator epochs": "stages.operator.epochs"}
    print_errors(title, found, steps)
    for name, summaries in found.items():
        spent = [
            sum(float(number(s, f"stages.{stage}.seconds") or 0) for stage in ("codec", "operator")) for s in summaries
        ]
        print(f"{name}: CPU seconds in the training loops {', '.join(f'{value:.1f}' for value in spent)}")


def encoding_seconds(seed: int, options: argparse.Namespace) -> float:
    """CPU seconds that encoding the train split takes, with fresh weights: their values make no difference to that."""
    with tempfile.TemporaryDirectory() as folder:
        settings = [*options.set, f"run.seed={seed}", f"run.folder={folder}"]
        experiment = assemble(read_recipe(ROOT / "recipes/burgers_cached.toml", settings).recipe)
        started = time.process_time()
        cached_dataset(experiment, 1, False, print)
        return time.process_time() - started


def trained(
    recipe: str, seed: int, options: argparse.Namespace, seconds: dict[str, float], cache: bool = True
) -> Summary:
    """The summary of a whole run."""
    settings = [f"stages.{stage}.budget.seconds={value}" for stage, value in seconds.items()]
    name = f"run.name={recipe}{'' if cache else '_without'}"
    everything = [*options.set, *settings, f"run.seed={seed}", f"run.folder={options.folder}", name]
    read = read_recipe(ROOT / "recipes" / f"{recipe}.toml", everything)
    chosen = read.recipe if cache else attrs.evolve(read.recipe, latent_cache=None)
    return dict(run(chosen, recipe_text=read.text, origins=read.origins).summary)


if __name__ == "__main__":
    main()
