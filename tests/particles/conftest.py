"""What tests of particles share: files in the public layouts."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from types import ModuleType

import pytest


@pytest.fixture
def files(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """tests/particles/particle_files.py."""
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    return import_module("particle_files")
