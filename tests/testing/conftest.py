"""What tests of the contract checks share: a plugin each of whose components breaks one clause."""

from __future__ import annotations

import sys
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path

import pytest
import torch

from ups_kit.plugins import GROUP, Catalog, discover

BROKEN = Path(__file__).parent / "broken"


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def broken() -> Catalog:
    """The plugins of tests/testing/broken beside those that are installed."""
    sys.path.insert(0, str(BROKEN))  # for good: fresh processes are asked for them too
    points = [EntryPoint(name, name, GROUP) for name in ("broken_parts", "broken_keys", "broken_listing")]
    return discover(points=[*entry_points(group=GROUP), *points])
