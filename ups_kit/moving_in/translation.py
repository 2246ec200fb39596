"""From a configuration's values to a recipe's tables."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..recipe import RUN_NAME
from .data_part import HELD_OUT, GridOf, data_part, seen_from
from .losses_part import LossPart
from .model_part import model_part
from .settings import Settings
from .stages_part import CACHE, StagesPart

PRECISIONS = {"bfloat16": "bf16", "bf16": "bf16", "float16": "fp16", "fp16": "fp16"}
WANDB = "logging.wandb"


def translate(
    settings: Settings,
    folder: Path,
    grid_of: GridOf,
    without: Mapping[str, str],
    tracker_keys: Mapping[str, set[str]],
    held_out: tuple[int, int] = HELD_OUT[0],
) -> dict[str, Any]:
    """The tables of a recipe that will lie in `folder`.

    `grid_of` tells the grid of data that are there, `without` which losses the data refuse and why, `tracker_keys`
    the keys of each tracker that is installed, `held_out` how many trajectories are kept from training. What has
    become of each key is kept in `settings`.
    """
    data = data_part(settings, folder, grid_of, held_out)
    model = model_part(settings, data)
    stages = StagesPart(settings, data, LossPart(settings, data, without), model["latent"]["width"])
    recipe: dict[str, Any] = {"recipe_version": 1, "run": _run(settings), "dataset": data.table, **model}
    tables = stages.tables()
    if stages.caches:
        kept = seen_from(folder, settings.take(CACHE))
        recipe["latent_cache"] = {"folder": kept, "dtype": settings.take("training.latent_cache_dtype")}
    recipe["stages"] = tables
    tracker = _tracker(settings, tracker_keys)
    return {**recipe, "trackers": [tracker]} if tracker else recipe


def _run(settings: Settings) -> dict[str, Any]:
    run: dict[str, Any] = {"name": _name(settings), "seed": settings.take("seed")}
    if settings.take("checkpoint.dir") and settings.has("checkpoint.dir"):
        run["folder"] = settings.take("checkpoint.dir")
    if settings.take("training.amp"):
        named = settings.take("training.amp_dtype") if settings.has("training.amp_dtype") else "float16"
        run["precision"] = PRECISIONS[named]
        settings.remark("training.amp", f"{PRECISIONS[named]}; fp16 needs a GPU")
    if settings.take("training.compile"):
        run["compile"] = True
    workers = settings.take("training.num_workers")
    if workers:
        run["workers"] = workers
    return run


def _name(settings: Settings) -> str:
    written = settings.take(f"{WANDB}.run_name")
    name = re.sub(r"[^A-Za-z0-9._-]+", "_", Path(settings.source).stem if written is None else written)[:80].lstrip(".")
    return name if re.fullmatch(RUN_NAME, name) else "imported"


def _tracker(settings: Settings, tracker_keys: Mapping[str, set[str]]) -> dict[str, Any]:
    """The table of Weights & Biases, where its plugin is installed and the configuration asks for it."""
    names = ("project", "entity", "tags", "group", "notes")
    written = [f"{WANDB}.{name}" for name in names if settings.has(f"{WANDB}.{name}")]
    reason = ""
    if not settings.take(f"{WANDB}.enabled"):
        reason = f"{WANDB}.enabled is false"
    elif "wandb" not in tracker_keys:
        reason = "the plugin ups-wandb is not installed; metrics.jsonl and the tracker tensorboard need nothing else"
        settings.drop(f"{WANDB}.enabled", reason)
    if reason:
        for path in written:
            settings.drop(path, reason)
        return {}
    table: dict[str, Any] = {"use": "wandb"}
    for path in written:
        name = path.rpartition(".")[2]
        if name in tracker_keys["wandb"]:
            table[name] = settings.take(path)
    if settings.has(f"{WANDB}.run_name") and "name" in tracker_keys["wandb"]:
        table["name"] = settings.take(f"{WANDB}.run_name")
    return table
