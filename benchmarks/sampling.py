"""Query samplers against ratio: time of a training step, bytes saved for its backward pass, final error.

    python benchmarks/sampling.py --steps 300 --seeds 2

The first table times the recipe's own step; then the recipe is trained for the same number of steps with each sampler,
and both are set beside the projections of docs/method.md §3. With `--seconds` trainings get equal CPU seconds instead
of equal steps, with `--seeds 0` there are none. A step depends on its decoder: `--set decoder.use=perceiver`,
or `local`, which decode query by query.
"""

from __future__ import annotations

import argparse
import math
import statistics
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch

from measure import alternate, print_table, saved_bytes
from trials import ERRORS, Summary, arguments, compare, number, print_errors
from ups_kit.assemble import Experiment, assemble
from ups_kit.fit.forward import LossTerm, compute_losses
from ups_kit.interfaces import Progress
from ups_kit.reading import read_recipe

END = Progress(step=0, epoch=1e9, fraction=1.0)  # all losses apply, all curricula are at their end
SAMPLED = ("uniform", "stratified", "importance")
RATIOS = (0.5, 0.3, 0.1)
PROJECTED = {0.5: ("-25 to -30 %", "-15 %", "none"), 0.3: ("-35 to -40 %", "-25 %", "+1 to +2 %")}
PROJECTED |= {0.1: ("-50 to -60 %", "-40 %", "+5 to +10 %")}
Costs = dict[str, tuple[float, float]]  # CPU seconds of a step and bytes saved, over those at all points, by variation


def main() -> None:
    parser = arguments(__doc__ or "", seconds=0)
    parser.add_argument("--steps", type=int, default=300, help="training steps of each run, where --seconds is 0")
    parser.add_argument("--batch", type=int, default=32, help="batch size of the timed step")
    parser.add_argument("--rounds", type=int, default=7, help="timed steps of each kind")
    parser.add_argument("--samplers", nargs="+", default=list(SAMPLED), metavar="USE", help="which samplers")
    options = parser.parse_args()
    if options.quick:
        options.seeds, options.steps, options.rounds = 1, 20, 1
    torch.set_num_threads(1)
    losses = _sampled_losses(options)
    variations = {"all points": _settings(options, losses, "uniform", 1.0)}
    for use in options.samplers:
        variations |= {f"{use} {ratio:g}": _settings(options, losses, use, ratio) for ratio in RATIOS}
    costs = _print_steps(options, variations)
    budget = f"budget.seconds={options.seconds:g}" if options.seconds else f"budget.steps={options.steps}"
    found = compare(options, "sampling", variations, budget)
    _print_beside(options, costs, found)
    if not options.seeds:
        return
    title = f"{budget.removeprefix('budget.')} for each run, seeds 0 to {options.seeds - 1}: nRMSE"
    print_errors(title, found)


def _print_beside(options: argparse.Namespace, costs: Costs, found: Mapping[str, Sequence[Summary]]) -> None:
    """What was measured at every ratio, relative to all points, above what was projected."""

    def error(name: str, path: str) -> float:
        values = [number(summary, path) or math.nan for summary in found[name]]
        return statistics.mean(values) if values else math.nan

    rows = []
    for ratio in RATIOS:
        for use in options.samplers:
            name = f"{use} {ratio:g}"
            changes = [*costs[name]]
            changes += [
                error(name, ERRORS[kind]) / error("all points", ERRORS[kind]) for kind in ("one step", "latent rollout")
            ]
            rows.append([name, *("-" if math.isnan(change) else f"{100 * (change - 1):+.0f} %" for change in changes)])
        time, memory, loss = PROJECTED[ratio]
        rows.append([f"projected {ratio:g}", time, memory, loss, ""])
    header = ["", "step, CPU", "saved for backward", "one-step error", "latent rollout"]
    print_table("change from all points, beside the projections of docs/method.md §3 (of the final loss)", header, rows)


def _sampled_losses(options: argparse.Namespace) -> list[str]:
    """The recipe's losses that can sample."""
    recipe = read_recipe(options.recipe, options.set).recipe
    stage = next(stage for stage in recipe.stages if stage.name == options.stage)
    return [name for name, config in stage.losses.items() if hasattr(config, "sampler")]  # type: ignore[attr-defined]


def _settings(options: argparse.Namespace, losses: Sequence[str], use: str, ratio: float) -> list[str]:
    sampler = f'{{ use = "{use}", ratio = {ratio} }}'
    return [f"stages.{options.stage}.losses.{name}.sampler={sampler}" for name in losses]


def _print_steps(options: argparse.Namespace, variations: dict[str, list[str]]) -> Costs:
    """Time and saved bytes of the training step, all variations in turn in this process."""
    steps, kept = {}, {}
    for name, settings in variations.items():
        step, losses, experiment = _step(options, settings, options.batch)
        steps[name] = step
        kept[name] = saved_bytes(losses, [experiment.model])
    timings = alternate(steps, options.rounds)
    first, most = timings["all points"], kept["all points"]
    costs = {name: (timing.cpu / first.cpu, kept[name] / most) for name, timing in timings.items()}
    rows = [
        [
            name,
            f"{1000 * timing.wall:.1f}",
            f"{1000 * timing.cpu:.1f}",
            f"{costs[name][0]:.2f}",
            f"{kept[name] / 1e6:.1f}",
            f"{costs[name][1]:.2f}",
        ]
        for name, timing in timings.items()
    ]
    title = f"one training step of {options.recipe}, batch {options.batch}, one thread, median of {options.rounds}"
    print_table(title, ["sampler", "wall ms", "CPU ms", "CPU ratio", "saved MB", "saved ratio"], rows)
    return costs


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
