"""Query samplers at ratios 1, 0.5 and 0.25: time of a training step, bytes saved for its backward pass, final error.

    python benchmarks/sampling.py --steps 400 --seeds 3

The first table times the recipe's own step; the second trains for the same number of steps with each sampler. With
`--seconds` the trainings get equal CPU seconds instead of equal steps.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence

import numpy as np
import torch

from measure import alternate, print_table, saved_bytes
from trials import arguments, compare, print_errors
from ups_kit.assemble import Experiment, assemble
from ups_kit.fit.forward import LossTerm, compute_losses
from ups_kit.interfaces import Progress
from ups_kit.reading import read_recipe

END = Progress(step=0, epoch=1e9, fraction=1.0)  # all losses apply, all curricula are at their end
SAMPLED = ("uniform", "stratified")
RATIOS = (0.5, 0.25)


def main() -> None:
    parser = arguments(__doc__ or "", seconds=0)
    parser.add_argument("--steps", type=int, default=400, help="training steps of each run, where --seconds is 0")
    parser.add_argument("--batches", type=int, nargs="+", default=[32], help="batch sizes of the timed step")
    parser.add_argument("--rounds", type=int, default=7, help="timed steps of each kind")
    options = parser.parse_args()
    if options.quick:
        options.seeds, options.steps, options.rounds = 1, 20, 1
    torch.set_num_threads(1)
    losses = _sampled_losses(options)
    variations = {"all points": _settings(options, losses, "uniform", 1.0)}
    for use in SAMPLED:
        variations |= {f"{use} {ratio:g}": _settings(options, losses, use, ratio) for ratio in RATIOS}
    for batch in options.batches:
        _print_steps(options, variations, batch)
    budget = f"budget.seconds={options.seconds:g}" if options.seconds else f"budget.steps={options.steps}"
    found = compare(options, "sampling", variations, budget)
    title = f"{budget.removeprefix('budget.')} for each run, seeds 0 to {options.seeds - 1}: nRMSE"
    print_errors(title, found)


def _sampled_losses(options: argparse.Namespace) -> list[str]:
    """The recipe's losses that can sample."""
    recipe = read_recipe(options.recipe, options.set).recipe
    stage = next(stage for stage in recipe.stages if stage.name == options.stage)
    return [name for name, config in stage.losses.items() if hasattr(config, "sampler")]  # type: ignore[attr-defined]


def _settings(options: argparse.Namespace, losses: Sequence[str], use: str, ratio: float) -> list[str]:
    sampler = f'{{ use = "{use}", ratio = {ratio} }}'
    return [f"stages.{options.stage}.losses.{name}.sampler={sampler}" for name in losses]


def _print_steps(options: argparse.Namespace, variations: dict[str, list[str]], batch: int) -> None:
    """Time and saved bytes of the training step, all variations in turn in this process."""
    steps, kept = {}, {}
    for name, settings in variations.items():
        step, losses, experiment = _step(options, settings, batch)
        steps[name] = step
        kept[name] = saved_bytes(losses, [experiment.model])
    timings = alternate(steps, options.rounds)
    first, most = timings["all points"], kept["all points"]
    rows = [
        [
            name,
            f"{1000 * timing.wall:.1f}",
            f"{1000 * timing.cpu:.1f}",
            f"{timing.cpu / first.cpu:.2f}",
            f"{kept[name] / 1e6:.1f}",
            f"{kept[name] / most:.2f}",
        ]
        for name, timing in timings.items()
    ]
    title = f"one training step of {options.recipe}, batch {batch}, one thread, median of {options.rounds}"
    print_table(title, ["sampler", "wall ms", "CPU ms", "CPU ratio", "saved MB", "saved ratio"], rows)


def _step(
    options: argparse.Namespace, settings: Sequence[str], batch: int
) -> tuple[Callable[[], object], Callable[[], object], Experiment]:
    """One optimiser step of the recipe's stage, and its losses alone."""
    experiment = assemble(read_recipe(options.recipe, [*options.set, *settings]).recipe)
    stage = next(stage for stage in experiment.recipe.stages if stage.name == options.stage)
    configs = stage.losses  # type: ignore[attr-defined]
    terms = [LossTerm(name, config, config.build(experiment.dataset.fields)) for name, config in configs.items()]
    horizon = max(term.loss.horizon for term in terms)
    windows = np.arange(batch) % experiment.dataset.windows("train", horizon)
    data = experiment.dataset.batch("train", windows, horizon)
    model = experiment.model.to("cpu")
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5)
    generator = torch.Generator().manual_seed(0)

    def losses() -> torch.Tensor:
        return compute_losses(model, data, terms, END, generator).total

    def step() -> None:
        optimizer.zero_grad()
        losses().backward()  # type: ignore[no-untyped-call]
        optimizer.step()

    return step, losses, experiment


if __name__ == "__main__":
    main()
