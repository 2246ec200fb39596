"""What tests of recipes share: a catalog of small stand-in components that never changes."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from importlib.metadata import Distribution, EntryPoint, distributions
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


def install_distribution(
    site: Path,
    name: str,
    version: str,
    text: str | None,
    *,
    plugin: str = "",
    requires: Sequence[str] = (),
    api: str = "",
) -> Distribution:
    """A distribution as pip leaves it in a folder: one module `NAME_plugin`, or none, and the papers beside it."""
    plain = name.replace("-", "_")
    papers, point = site / f"{plain}-{version}.dist-info", plugin or plain
    papers.mkdir(parents=True)
    needs = "".join(f"Requires-Dist: {line}\n" for line in requires)
    (papers / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n{needs}")
    versions = f"[{GROUP}.api]\n{point} = {api}\n" if api else ""
    (papers / "entry_points.txt").write_text(f"[{GROUP}]\n{point} = {plain}_plugin\n{versions}")
    if text is not None:
        (site / f"{plain}_plugin.py").write_text(text)
    return next(found for found in distributions(path=[str(site)]) if found.name == name)


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Distribution]:
    """Installs distributions of plugins into a folder that this process imports from: `install_distribution`."""
    site = tmp_path / "site"
    monkeypatch.syspath_prepend(str(site))
    return lambda *arguments, **options: install_distribution(site, *arguments, **options)
