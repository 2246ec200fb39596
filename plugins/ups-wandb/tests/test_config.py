"""The tracker's keys, and what of a run becomes an artifact."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from ups_kit.interfaces import Artefact, StageEvent
from ups_kit.plugins import discover
from ups_wandb import WandbConfig
from ups_wandb.tracker import WandbTracker, _named


def test_it_is_found_without_wandb_and_torch() -> None:
    code = (
        "import sys; from ups_kit.plugins import discover; assert 'wandb' in discover()['tracker']\n"
        "print(*({'wandb', 'torch', 'PIL'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "\n"
    assert discover()["tracker"]["wandb"].config is WandbConfig


def test_nothing_leaves_the_machine_by_default() -> None:
    assert (WandbConfig().mode, WandbConfig().upload_checkpoints) == ("offline", "none")


@pytest.fixture
def artefacts(tmp_path: Path) -> list[Artefact]:
    (tmp_path / "files").write_text("whole")
    return [
        Artefact("checkpoint", tmp_path / "files", 10),
        Artefact("best", tmp_path / "files", 10, 0.5),
        Artefact("best", tmp_path / "files", 20, 0.4),
        Artefact("weights", tmp_path / "files"),
        Artefact("bundle", tmp_path / "files"),
        Artefact("report", tmp_path / "files"),
    ]


@pytest.mark.parametrize(
    ("asked", "end", "sent"),
    [
        ("none", "finished", []),
        ("best", "finished", ["weights", "bundle", "report"]),
        ("best", "diverged", ["weights", "bundle", "report", "best step-20"]),
        ("all", "diverged", ["checkpoint step-10", "best step-10", "best step-20", "weights", "bundle", "report"]),
    ],
)
def test_what_is_uploaded(tmp_path: Path, artefacts: list[Artefact], asked: Any, end: Any, sent: list[str]) -> None:
    """A stage that diverges leaves its best weights so far."""
    tracker, told = WandbTracker(tmp_path, WandbConfig(upload_checkpoints=asked, alerts=())), []
    tracker._say = lambda call, **values: told.append((call, values))  # type: ignore[method-assign]
    for artefact in artefacts:
        tracker.artefact("operator", artefact)
    tracker.event("operator", StageEvent(end))
    assert [" ".join(values["aliases"]) for call, values in told if call == "artifact"] == sent


def test_stages_of_one_name_are_told_apart() -> None:
    stages = [{"use": "operator"}, {"use": "operator"}, {"use": "evaluate", "steps": (1, 2), "worst": float("inf")}]
    assert _named({"stages": stages})["stages"] == {
        "operator_0": {"use": "operator"},
        "operator_1": {"use": "operator"},
        "evaluate_2": {"use": "evaluate", "steps": [1, 2], "worst": "inf"},
    }
