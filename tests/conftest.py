"""What tests of recipes share: a catalog of small stand-in components that never changes."""

from __future__ import annotations

import os
import sys
from importlib import import_module
from importlib.metadata import EntryPoint
from pathlib import Path
from types import ModuleType

import pytest

from ups_kit.plugins import GROUP, Catalog, discover

# Tests compute on tiny arrays, where threads cost more than they give; also in the processes that tests start.
os.environ.setdefault("OMP_NUM_THREADS", "1")

STAND_INS = Path(__file__).parent / "stand_ins"


@pytest.fixture(scope="session")
def stand_ins() -> Catalog:
    """The components of tests/stand_ins/stand_ins.py as the only plugin that is installed."""
    sys.path.insert(0, str(STAND_INS))
    try:
        return discover(points=[EntryPoint("stand_ins", "stand_ins", GROUP)])
    finally:
        sys.path.remove(str(STAND_INS))


@pytest.fixture
def frames(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """tests/stand_ins/stored_frames.py, where processes that are spawned find it too."""
    monkeypatch.syspath_prepend(str(STAND_INS))
    return import_module("stored_frames")


@pytest.fixture(scope="session")
def waves() -> Path:
    """A valid recipe of stand-in components."""
    return STAND_INS / "waves.toml"
