"""Every latent operator in one recipe, at equal seconds of training: nRMSE, steps done, parameters, minutes.

    python benchmarks/operators.py recipes/burgers_upt.toml --seconds 60 --seeds 0 1 2

Only `[operator]` differs, with the keys below, which come to like numbers of parameters; the recipe's own operator
keeps its keys. Beside them stand the floor of persistence and the recipe of the same name in `_fno`, a Fourier neural
operator on the points. Each finished trial is kept as a JSON file, and is not run again: a comparison can be stopped,
gone on with, and made longer by more seeds or operators. Several processes may work on one at a time: a trial is one's
that has made its `.claimed` file (delete those that a killed process has left). The table shows all that is there.
"""

from __future__ import annotations

import argparse
import hashlib
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

from measure import mean_and_range, print_table
from trials import ERRORS, number, run_once
from ups_kit.errors import UpsKitError
from ups_kit.reading import read_recipe

POINTS = "FNO on points"
PERSISTENCE = {"one step": "floors.persistence.one_step.nrmse", "rollout": "floors.persistence.rollout.nrmse"}
# by space dimensions: keys for lattices of 32 tokens of width 64, and of 8 × 8 tokens of width 96
KEYS: dict[int, dict[str, str]] = {
    1: {
        "transformer": '{ use = "transformer", depth = 4, mlp_ratio = 2.0 }',
        "pde_transformer": '{ use = "pde_transformer", depths = [1, 1, 1], mlp_ratio = 2.0, window = 8 }',
        "unet": '{ use = "unet", levels = 2, hidden = 56 }',
        "fno": '{ use = "fno", modes = 16, hidden = 32 }',
        "persistence": '{ use = "persistence" }',
    },
    2: {
        "transformer": '{ use = "transformer", depth = 4, mlp_ratio = 2.0 }',
        "pde_transformer": '{ use = "pde_transformer", depths = [1, 2], mlp_ratio = 2.0, window = 4 }',
        "unet": '{ use = "unet", levels = 2, hidden = 48 }',
        "fno": '{ use = "fno", modes = 4, hidden = 32 }',
        "persistence": '{ use = "persistence" }',
    },
}


def main() -> None:
    options = _options()
    torch.set_num_threads(1)
    settings = _shared_settings(options)
    trials = {name: Trials(options, name, recipe, [*settings, *own]) for name, recipe, own in _variations(options)}
    if not options.table:
        for seed in options.seeds:
            for trial in trials.values():
                trial.run(seed)
    _print_found(options, {name: trial.found() for name, trial in trials.items()})


class Trials:
    """The runs of one operator: a file for each seed, named by all that a result depends on."""

    def __init__(self, options: argparse.Namespace, name: str, recipe: Path, settings: Sequence[str]) -> None:
        self.name, self.recipe, self.settings = name, recipe, list(settings)
        self.folder = options.folder / options.recipe.stem
        values = json.dumps([recipe.read_text(), self.settings])
        label = "".join(letter if letter.isalnum() else "_" for letter in name)
        self.label = f"{label}_{options.seconds:g}s_{hashlib.sha256(values.encode()).hexdigest()[:8]}"

    def run(self, seed: int) -> None:
        """One trial, unless its result is there or another process is at it."""
        path = self._path(seed)
        claim = path.with_suffix(".claimed")
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.exists():
            return
        try:
            claim.touch(exist_ok=False)
        except FileExistsError:
            print(f"{claim}: another process is at it; left out", flush=True)
            return
        try:
            own = [f"run.seed={seed}", f"run.name={self.label}", f"run.folder={self.folder / 'runs'}"]
            summary = run_once(self.recipe, [*self.settings, *own])
            written = path.with_suffix(".partial")
            content = {"name": self.name, "recipe": str(self.recipe), "settings": self.settings, "summary": summary}
            written.write_text(json.dumps(content, indent=1))
            written.replace(path)
        except UpsKitError as error:  # the others go on
            print(f"{self.label}, seed {seed}: {error}", flush=True)
        finally:
            claim.unlink(missing_ok=True)

    def found(self) -> list[dict[str, Any]]:
        """The summaries that there are, by seed."""
        paths = sorted(self.folder.glob(f"{self.label}_seed*.json"))
        return [json.loads(path.read_text())["summary"] for path in paths]

    def _path(self, seed: int) -> Path:
        return Path(self.folder / f"{self.label}_seed{seed}.json")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe", type=Path, help="recipe whose operator is exchanged")
    parser.add_argument("--seconds", type=float, default=60, help="of training for each trial; CPU seconds on a CPU")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--operators", nargs="+", help=f"of {', '.join(KEYS[1])}; all where not given")
    parser.add_argument("--also", action="append", default=[], metavar="NAME=TOML", help="one more, with these keys")
    parser.add_argument("--no-points", action="store_true", help="without the recipe of the same name in _fno")
    parser.add_argument("--trajectories", type=int, help="that are evaluated; all where not given")
    parser.add_argument("--stage", default="operator", help="the training stage's name")
    parser.add_argument("--folder", type=Path, default=Path("runs/benchmarks/operators"), help="where results are kept")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="setting for all trials")
    parser.add_argument("--table", action="store_true", help="run nothing, print what is there")
    return parser.parse_args()


def _shared_settings(options: argparse.Namespace) -> list[str]:
    budget = f"{{ seconds = {options.seconds:g}, gpu_seconds = {options.seconds:g} }}"
    settings = [f"stages.{options.stage}.budget={budget}", "stages.evaluate.pictures=false"]
    if options.trajectories:
        settings.append(f"stages.evaluate.trajectories={options.trajectories}")
    return [*options.set, *settings]


def _variations(options: argparse.Namespace) -> Iterator[tuple[str, Path, list[str]]]:
    """Name, recipe and own settings of every operator."""
    recipe = read_recipe(options.recipe, options.set).recipe
    dims, own = recipe.dataset.describe().space_dims, type(recipe.operator).__name__
    keys = KEYS[min(dims, 2)]
    for name in options.operators or keys:
        if name not in keys:
            raise SystemExit(f"--operators: there is no '{name}'; there are {', '.join(keys)}")
        kept = own.casefold() == f"{name.replace('_', '')}config"
        yield name, options.recipe, [] if kept else [f"operator={keys[name]}"]
    for text in options.also:
        name, _, table = text.partition("=")
        yield name, options.recipe, [f"operator={table.strip()}"]
    points = options.recipe.with_name(f"{options.recipe.stem.removesuffix('_upt')}_fno.toml")
    if not options.no_points and points.exists():
        yield POINTS, points, []


def _print_found(options: argparse.Namespace, found: dict[str, list[dict[str, Any]]]) -> None:
    errors = {name: path for name, path in ERRORS.items() if name != "encode-decode"}
    counts = {
        "steps": f"stages.{options.stage}.steps",
        "parameters of the operator": "parameters.operator",
        "of all": "parameters.total",
    }
    rows = []
    for name, summaries in found.items():
        cells = [_cell(summaries, path) for path in errors.values()]
        if name == POINTS:
            cells[list(errors).index("latent rollout")] = "-"  # it is trained to step fields
        sizes = [_mean(summaries, path, "{:.0f}") for path in counts.values()]
        rows.append([name, str(len(summaries)), *cells, *sizes, _mean(summaries, "seconds.total", "{:.1f}", 60.0)])
    most = max(found.values(), key=len)  # the data are split by seed: one number for each
    one, rollout = (_cell(most, path) for path in PERSISTENCE.values())
    rows.append(["persistence of fields", "", one, rollout, rollout, *["-"] * (1 + len(counts))])
    title = f"{options.recipe.stem}: {options.seconds:g} s of training each; nRMSE on the test split, mean (range)"
    print_table(title, ["", "seeds", *errors, *counts, "minutes"], rows)


def _cell(summaries: Sequence[dict[str, Any]], path: str) -> str:
    return mean_and_range([value for summary in summaries if (value := number(summary, path)) is not None])


def _mean(summaries: Sequence[dict[str, Any]], path: str, form: str, divisor: float = 1.0) -> str:
    values = [value for summary in summaries if (value := number(summary, path)) is not None]
    return form.format(sum(values) / len(values) / divisor) if values else "-"


if __name__ == "__main__":
    main()
