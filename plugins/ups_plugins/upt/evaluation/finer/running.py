"""Super-resolution as a whole: refuse, measure, print, write."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ups_kit.folder import RunFolder, StageFolder, write_json, write_text
from ups_kit.trackers import Trackers

from ..config import EvaluateConfig
from ..facts import read_facts
from ..transfer.table import print_sheets
from .asking import plan
from .measuring import Finer, measure
from .page import finer_page
from .pictures import draw_spectra, draw_states
from .table import NOTES, WAYS, head, sheets
from .verdict import verdict

if TYPE_CHECKING:
    from ups_kit.assemble import Experiment

DEFINITION = {
    **{way: NOTES[name] for way, name in WAYS.items() if name in NOTES},
    "trigonometric": "the same by the trigonometric polynomial through it; where all axes are periodic",
    "nrmse_below": "the part of nRMSE in modes that the coarse grid carries (|k| below half its points, each axis)",
    "nrmse_above": "the part in all other modes; the squares of both add up to nRMSE's for each frame and channel",
    "detail_energy": "energy in those other modes over the truth's; null where the truth has none",
}


def run_finer(
    experiment: Experiment,
    config: EvaluateConfig,
    factors: Sequence[int],
    folder: RunFolder,
    trackers: Trackers,
) -> Mapping[str, Any]:
    """Evaluate the experiment's model at finer points; returns what `finer.json` holds."""
    started = time.perf_counter()
    offers = plan(experiment, config.split, factors)
    finer = measure(experiment, config, offers, lambda text: trackers.line(f"{config.name}  {text}"))
    result = summary(finer)
    print_sheets(head(finer), sheets(finer), NOTES, verdict(finer))
    facts = read_facts(experiment, StageFolder(folder.path / config.name, folder), time.perf_counter() - started)
    pictures = {"spectra": draw_spectra(finer), "states": draw_states(finer)} if config.pictures else {}
    write_text(folder.path / "finer.html", finer_page(facts, finer, pictures))
    write_json(folder.path / "finer.json", result)
    return result


def summary(finer: Finer) -> dict[str, Any]:
    """What `finer.json` holds."""
    return {
        "definition": DEFINITION,
        "split": finer.split,
        "trajectories": finer.trajectories,
        "steps": finer.steps,
        "given": {"points": finer.lines[0].points, "grid": list(finer.fields.grid or ())},
        "lines": [line.summary() for line in finer.lines],
        "verdict": verdict(finer),
    }
