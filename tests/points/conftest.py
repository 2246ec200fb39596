"""What tests of data on points share: made-up points."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from types import ModuleType

import pytest


@pytest.fixture
def clouds(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """tests/points/clouds.py, where processes that are spawned find it too."""
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    return import_module("clouds")
