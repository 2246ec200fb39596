"""Residuals of a mixture of tasks on grids of their own: learnt together, each validated and drawn by itself."""

from __future__ import annotations

import math
from pathlib import Path

import torch

from ups_kit import read_recipe
from ups_kit.run import run

RECIPE = Path(__file__).parents[2] / "recipes/multitask.toml"
SETTINGS = '{ steps = 4 }, batch = 4, optimizer = { use = "adamw", lr = 0.001 }'
NETWORK = "width = 8, heads = 1, depth = 1, rank = 2, shown = [1], sampling_steps = 1"
STAGES = (
    f'{{ use = "operator", budget = {SETTINGS}, losses = {{ forward = {{}} }} }}',
    f'{{ use = "diffusion", budget = {SETTINGS}, {NETWORK} }}',
    f'{{ use = "consistency", budget = {SETTINGS}, teacher_steps = 4 }}',
    '{ use = "evaluate", require_beating = [], pictures = false, members = 2, choose_trajectories = 1 }',
)


def test_a_mixture_of_tasks_is_corrected(tmp_path: Path) -> None:
    tasks = {"burgers": 32, "advection": 16}
    few = ("train=6", "validation=2", "test=2", "simulate.trajectories=10", "simulate.frames=5")
    own = [f"dataset.tasks.{task}.{key}" for task in tasks for key in few]
    own += [f"dataset.tasks.{task}.simulate.points={points}" for task, points in tasks.items()]
    own += [f"dataset.tasks.{task}.path={tmp_path / task}.h5" for task in tasks]
    model = ("latent.width=8", "encoder.patch_size=4", "encoder.heads=1", "operator.depth=1", "decoder.modes=3")
    places = (f"run.folder={tmp_path}", "run.threads=1", "run.device=cpu", "trackers=[]")
    threads = torch.get_num_threads()
    result = run(read_recipe(RECIPE, [*own, *model, *places, f"stages=[{', '.join(STAGES)}]"]).recipe)
    torch.set_num_threads(threads)
    stages = result.summary["stages"]
    assert [stages[name]["steps"] for name in ("operator", "diffusion", "consistency")] == [4, 4, 4]
    assert result.summary["forecast"]["use"] in ("operator", "diffusion", "consistency")
    for task in tasks:
        rows = result.summary["tasks"][task]["ensembles"]["rows"]
        assert any(name.startswith("diffusion") for name in rows)
        assert any(name.startswith("consistency") for name in rows)
        assert all(math.isfinite(row["nrmse"]) for row in rows.values())
