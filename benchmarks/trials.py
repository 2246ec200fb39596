"""Whole runs of a recipe with variations: what the benchmark scripts about training compare."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from measure import mean_and_range, print_table
from ups_kit.reading import read_recipe
from ups_kit.run import run

Summary = dict[str, Any]


def arguments(description: str, seconds: float) -> argparse.ArgumentParser:
    """The options that these scripts share."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--recipe", type=Path, default=Path("recipes/burgers_upt.toml"), help="recipe that is varied")
    parser.add_argument("--stage", default="operator", help="the training stage's name")
    parser.add_argument("--seconds", type=float, default=seconds, help="CPU seconds of training for each run")
    parser.add_argument("--seeds", type=int, default=3, help="runs of each variation, with seeds 0, 1, …")
    parser.add_argument("--folder", type=Path, default=Path("runs/benchmarks"), help="where the runs are kept")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="setting for all runs")
    parser.add_argument("--quick", action="store_true", help="a few steps and one seed: does it work?")
    return parser


def compare(
    options: argparse.Namespace, title: str, variations: Mapping[str, Sequence[str]], budget: str
) -> dict[str, list[Summary]]:
    """Run every variation with every seed, one seed after the other, and return the summaries.

    `variations` are settings by name; `budget` is the setting of the training budget, such as `budget.seconds=60`.
    """
    found: dict[str, list[Summary]] = {name: [] for name in variations}
    for seed in range(options.seeds):
        for name, settings in variations.items():
            label = "".join(letter if letter.isalnum() else "_" for letter in f"{title}_{name}")[:60]
            budget_setting = f"stages.{options.stage}.{budget}"
            everything = [*options.set, budget_setting, *settings, f"run.seed={seed}", f"run.name={label}"]
            found[name].append(run_once(options.recipe, [*everything, f"run.folder={options.folder}"]))
    return found


def run_once(recipe: Path, settings: Sequence[str]) -> Summary:
    """One run of a recipe with settings: its summary."""
    read = read_recipe(recipe, settings)
    return dict(run(read.recipe, recipe_text=read.text, origins=read.origins).summary)


def number(summary: Summary, path: str) -> float | None:
    """A number of a summary by its path: `metrics.one_step.nrmse`."""
    value: Any = summary
    for key in path.split("."):
        value = value.get(key) if isinstance(value, dict) else None
    return float(value) if isinstance(value, (int, float)) else None


ERRORS = {
    "encode-decode": "floors.encode_decode.one_step.nrmse",
    "one step": "metrics.one_step.nrmse",
    "latent rollout": "metrics.latent_rollout.nrmse",
    "re-encoded rollout": "metrics.reencoded_rollout.nrmse",
}


def print_errors(title: str, found: Mapping[str, Sequence[Summary]], extra: Mapping[str, str] | None = None) -> None:
    """nRMSE of every variation, mean over seeds with the range, and the ratio of latent rollouts to the first row."""
    columns = {**ERRORS, **(extra or {})}
    first = _numbers(next(iter(found.values())), ERRORS["latent rollout"])
    rows = []
    for name, summaries in found.items():
        cells = [mean_and_range(_numbers(summaries, path)) for path in columns.values()]
        latent = _numbers(summaries, ERRORS["latent rollout"])
        ratio = f"{(sum(latent) / len(latent)) / (sum(first) / len(first)):.2f}" if latent and first else "-"
        rows.append([name, *cells, ratio])
    print_table(title, ["", *columns, "latent rollout / first"], rows)


def _numbers(summaries: Iterable[Summary], path: str) -> list[float]:
    return [value for summary in summaries if (value := number(summary, path)) is not None]
