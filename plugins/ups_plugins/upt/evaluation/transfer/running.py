"""The transfer as a whole: refuse, measure, print, write."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ups_kit.folder import RunFolder, StageFolder, write_json, write_text
from ups_kit.interfaces import Elsewhere
from ups_kit.trackers import Trackers

from ..config import EvaluateConfig
from ..facts import read_facts
from .asking import plan
from .measuring import Transfer, measure, verdict
from .page import transfer_page
from .pictures import draw_errors, draw_states
from .table import NOTES, print_transfer

if TYPE_CHECKING:
    from ups_kit.assemble import Experiment

DEFINITION = {
    "own": "encoded from the N points and compared at them",
    "reference": "encoded from the N points and compared at the data's own points, the same for every N",
    "queried": "encoded from the data's own points and compared at the N points",
    "interpolation": NOTES["through N"],
    "states_error": NOTES["states"],
}


def run_transfer(
    experiment: Experiment,
    config: EvaluateConfig,
    asked: Sequence[Elsewhere],
    folder: RunFolder,
    trackers: Trackers,
) -> Mapping[str, Any]:
    """Evaluate the experiment's model on other points; returns what `transfer.json` holds."""
    started = time.perf_counter()
    plans = plan(experiment, config, asked)
    transfer = measure(experiment, config, plans, lambda text: trackers.line(f"{config.name}  {text}"))
    result = summary(transfer)
    print_transfer(transfer)
    facts = read_facts(experiment, StageFolder(folder.path / config.name, folder), time.perf_counter() - started)
    pictures = {"errors": draw_errors(transfer), "states": draw_states(transfer)} if config.pictures else {}
    write_text(folder.path / "transfer.html", transfer_page(facts, transfer, pictures))
    write_json(folder.path / "transfer.json", result)
    return result


def summary(transfer: Transfer) -> dict[str, Any]:
    """What `transfer.json` holds."""
    return {
        "definition": DEFINITION,
        "split": transfer.split,
        "trajectories": transfer.trajectories,
        "steps": transfer.steps,
        "reference": {"points": transfer.points, "layout": transfer.fields.layout, **transfer.reference},
        "lines": [line.summary() for line in transfer.lines],
        "rises": {layout: [list(pair) for pair in transfer.rises(layout)] for layout in transfer.layouts},
        "verdict": verdict(transfer),
    }
