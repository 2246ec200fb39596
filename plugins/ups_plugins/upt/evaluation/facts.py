"""What was run, on what, for how long: the head of a report."""

from __future__ import annotations

import json
import os
import platform
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from attrs import frozen

from ups_kit.folder import StageFolder
from ups_kit.interfaces import FieldSpec

from .curves import History, read_history

if TYPE_CHECKING:
    from ups_kit.assemble import Experiment


@frozen
class Facts:
    """The circumstances of a run."""

    name: str
    description: str
    line: str  # the shortest summary
    rows: tuple[tuple[str, str], ...]  # (what, how much)
    history: History


def read_facts(experiment: Experiment, folder: StageFolder, seconds: float) -> Facts:
    """Collect them; what cannot be found out is left out."""
    recipe, model = experiment.recipe, experiment.model
    fields, counts = experiment.dataset.fields, {name: _parameters(part) for name, part in model.parts.items()}
    shape = "×".join(map(str, fields.grid)) if fields.grid is not None else fields.layout
    rows = [
        ("components", ", ".join(_components(experiment))),
        ("parameters", f"{_parameters(model):,} ({', '.join(f'{name} {count:,}' for name, count in counts.items())})"),
        ("data", f"{', '.join(field.name for field in fields.targets)} on {shape}, {_given(fields)}"),
        ("conditions", ", ".join(fields.conditions)),
        ("seed", str(recipe.run.seed)),
        ("device", _device(experiment.device)),
        ("software", f"Python {platform.python_version()}, torch {torch.__version__}, {sys.platform}"),
        *_stage_seconds(experiment, folder.run.path),
        ("evaluation", f"{seconds:.1f} s, pictures not counted"),
    ]
    history = read_history(folder.run.metrics, folder.path.name)
    line = f"{_parameters(model):,} parameters, {_device(experiment.device)}"
    return Facts(recipe.run.name, recipe.description, line, tuple(row for row in rows if row[1]), history)


def _components(experiment: Experiment) -> list[str]:
    recipe = experiment.recipe
    parts = {
        "dataset": recipe.dataset,
        "encoder": recipe.encoder,
        "operator": recipe.operator,
        "decoder": recipe.decoder,
    }
    return [f"{kind} {experiment.catalog.locate(config).name}" for kind, config in parts.items()]


def _given(fields: FieldSpec) -> str:
    names = ", ".join(field.name for field in fields.statics)
    if fields.steady:
        return f"steady, from {names or 'the conditions'}"
    return f"{fields.history} frame(s){' and ' if names else ''}{names} given"


def _parameters(module: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def _device(device: torch.device) -> str:
    if device.type == "cuda":
        return f"{torch.cuda.get_device_name(device)} ({device})"
    return f"{_processor()}, {torch.get_num_threads()} of {os.cpu_count()} cores"


def _processor() -> str:
    information = Path("/proc/cpuinfo")
    if information.is_file():
        for line in information.read_text(errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _stage_seconds(experiment: Experiment, run: Path) -> list[tuple[str, str]]:
    """The seconds and steps that finished stages have noted."""
    rows = []
    for stage in experiment.recipe.stages:
        done = run / stage.name / "done.json"
        if not done.is_file():
            continue
        try:
            noted = json.loads(done.read_text())
        except json.JSONDecodeError:
            continue  # only a note for the reader
        if isinstance(noted, Mapping):
            texts = [
                f"{noted[name]:,.0f} {unit}"
                for name, unit in (("steps", "steps"), ("epochs", "epochs"), ("wall_seconds", "s"))
                if isinstance(noted.get(name), (int, float))
            ]
            rows.append((f"stage {stage.name}", ", ".join(texts)))
    return rows
