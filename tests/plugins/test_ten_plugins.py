"""Ten installed distributions, nine of them broken in different ways: the good one works, and the nine are named."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from importlib.metadata import Distribution
from pathlib import Path

import pytest

from ups_kit import loading
from ups_kit.plugins import discover

Install = Callable[..., Distribution]

GREETING = '''
"""A stage that greets."""
from attrs import field, frozen
from ups_kit import hookimpl

@frozen(kw_only=True)
class GreetingConfig:
    """Says hello, and trains nothing."""
    name: str = field(default="greeting", metadata={"help": "name of the stage"})

    def build(self):
        return Greeting()

class Greeting:
    def run(self, experiment, folder, trackers):
        return {"greeting": "hello"}

@hookimpl
def ups_kit_components():
    return {"stage": {"greeting": GreetingConfig}}
'''
HOOK = """
from attrs import frozen
from ups_kit import hookimpl
@frozen
class Config:
    %s
@hookimpl
def ups_kit_components():
    return %s
"""
BUILDS = "def build(self): ..."
MARK = "from pathlib import Path\nPath(__file__).with_suffix('.imported').touch()\n"  # where nothing may be imported
BROKEN = {  # distribution -> text, options, part of the reason, part of the mend
    "bad-import": (
        "import a_library_that_is_missing",
        {},
        "ModuleNotFoundError: No module named 'a_library_that_is_missing' (bad_import_plugin, line 1)",
        "pip install --force-reinstall bad-import",
    ),
    "bad-syntax": ("x = (", {}, "SyntaxError: '(' was never closed (bad_syntax_plugin.py, line 1)", "tell its authors"),
    "bad-exit": ("import sys\nsys.exit(3)", {}, "SystemExit: 3 (bad_exit_plugin, line 2)", "tell its authors"),
    "bad-return": (HOOK % (BUILDS, "[Config]"), {}, "ups_kit_components() returned list", "tell its authors"),
    "bad-kind": (
        HOOK % (BUILDS, "{'encodr': {'thing': Config}}"),
        {},
        "there is no kind 'encodr'; did you mean 'encoder'?",
        "tell its authors",
    ),
    "bad-twin": (
        HOOK % (BUILDS, "{'encoder': {'grid': Config}}"),
        {},
        "two plugins offer the encoder 'grid': grid and bad_twin; disable one of them",
        "--no-plugin grid (ups_kit 0.1.0), or --no-plugin bad_twin (bad-twin 1.5)",
    ),
    "bad-class": (
        HOOK % ("size: int = 1", "{'encoder': {'thing': Config}}"),
        {},
        "encoder 'thing': Config has no build method",
        "tell its authors",
    ),
    "bad-api": (
        MARK,
        {"api": "v2"},
        "bad-api 1.5 is written for version 2 of the plugin API, and ups_kit 0.1.0 has version 1",
        "pip install --upgrade ups_kit",
    ),
    "bad-range": (
        MARK,
        {"requires": ["torch", "ups_kit>=99 ; python_version > '3'", "ups_kit<1; extra == 'never'"]},
        "bad-range 1.5 needs ups_kit >=99, and ups_kit 0.1.0 is installed",
        "pip install 'ups_kit>=99'",
    ),
}
RECIPE = """
[run]
name = "greeted"
device = "cpu"
[dataset]
use = "pdebench"
path = "burgers.h5"
train = 4
validation = 1
test = 1
simulate = { use = "burgers1d", trajectories = 6, points = 16, frames = 5, refinement = 1 }
[latent]
width = 8
[encoder]
use = "grid"
patch_size = 4
[operator]
use = "transformer"
depth = 1
heads = 2
[decoder]
use = "local"
[[stages]]
use = "greeting"
"""


def upskit(site: Path, *arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "ups_kit", *arguments]
    environment = {**os.environ, "PYTHONPATH": str(site)}
    return subprocess.run(command, capture_output=True, text=True, check=False, env=environment, cwd=cwd)


@pytest.fixture
def site(install: Install, tmp_path: Path) -> Path:
    """Ten distributions."""
    install("good-greeting", "0.3", GREETING, requires=["ups_kit>=0.1,<99"], api="v1")
    for name, (text, options, _, _) in BROKEN.items():
        install(name, "1.5", text, **options)
    return tmp_path / "site"


def test_the_good_one_is_used_and_the_nine_are_named(site: Path, tmp_path: Path) -> None:
    listed = upskit(site, "list-plugins", "--json", cwd=tmp_path)
    assert (listed.returncode, listed.stderr) == (0, "")
    plugins = {plugin["distribution"]: plugin for plugin in json.loads(listed.stdout)}
    good = plugins["good-greeting"]
    assert (good["state"], good["version"], good["api"]) == ("ok", "0.3", 1)
    assert good["components"] == {"stage": ["greeting"]}
    broken = {name: plugin for name, plugin in plugins.items() if plugin["state"] == "broken"}
    assert set(broken) == set(BROKEN)
    for name, (_, _, reason, mend) in BROKEN.items():
        assert reason in broken[name]["reason"], name
        assert mend in broken[name]["mend"], name
        assert (broken[name]["version"], broken[name]["name"]) == ("1.5", name.replace("-", "_"))
    assert broken["bad-api"]["api"] == 2
    assert not list(site.glob("*.imported")), "imported though its papers say that it does not go with this ups_kit"
    (tmp_path / "recipe.toml").write_text(RECIPE)
    ran = upskit(site, "run", "recipe.toml", cwd=tmp_path)
    assert (ran.returncode, "Traceback" in ran.stderr) == (0, False), ran.stderr
    done = json.loads((tmp_path / "runs/greeted/1/greeting/done.json").read_text())
    assert done["greeting"] == "hello"
    environment = json.loads((tmp_path / "runs/greeted/1/environment.json").read_text())
    assert environment["plugins"]["good_greeting"] == "good-greeting 0.3"


def test_a_table_of_the_broken_ones(site: Path, tmp_path: Path) -> None:
    shown = upskit(site, "list-plugins", "--broken", "--strict", cwd=tmp_path)
    assert (shown.returncode, shown.stderr) == (4, "")
    lines = shown.stdout.splitlines()
    assert lines[0].split() == ["PLUGIN", "FROM", "API", "STATE", "LOADED", "IN", "COMPONENTS"]
    for name, (_, _, reason, mend) in BROKEN.items():
        (row,) = [number for number, line in enumerate(lines) if line.startswith(name.replace("-", "_"))]
        assert reason in lines[row]
        assert lines[row + 1].strip().startswith("->")
        assert mend in lines[row + 1]


def test_a_plugin_that_hangs_is_named_while_it_does(
    install: Install, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    install("slow-coach", "2.0", f"import time\ntime.sleep(0.3)\n{GREETING}")
    monkeypatch.setattr(loading, "PATIENCE", 0.1)
    started = time.monotonic()
    (plugin,) = [each for each in discover().plugins if each.distribution == "slow-coach"]
    assert time.monotonic() - started > 0.3
    assert plugin.state == "ok"
    assert plugin.milliseconds > 300
    told = capsys.readouterr().err
    assert "warning: the plugin 'slow_coach' (slow-coach 2.0) has been importing for 0.1 s; if it hangs" in told
    assert "--no-plugin slow_coach" in told


def test_papers_that_cannot_be_read_break_one_plugin_only(install: Install, tmp_path: Path) -> None:
    install("torn-papers", "1.0", GREETING)
    (tmp_path / "site/torn_papers-1.0.dist-info/entry_points.txt").write_text("[ups_kit]\nno equals sign\n")
    install("no-papers", "1.0", GREETING, plugin="papers")
    (tmp_path / "site/no_papers-1.0.dist-info/METADATA").unlink()
    install("odd-value", "1.0", None, plugin="odd", api="two")
    install("bad-value", "1.0", None)
    (tmp_path / "site/bad_value-1.0.dist-info/entry_points.txt").write_text("[ups_kit]\nbad = not-a-module\n")
    plugins = {plugin.name: plugin for plugin in discover().plugins}
    assert plugins["torn-papers"].state == "broken"
    assert "its entry_points.txt cannot be read" in plugins["torn-papers"].reason
    assert plugins["torn-papers"].mend == "pip install --force-reinstall torn-papers"
    assert (plugins["papers"].state, plugins["papers"].distribution) == ("ok", "unknown")
    assert "expected v1 in ups_kit.api, got 'two'" in plugins["odd"].reason
    assert "names no module" in plugins["bad"].reason


def test_two_distributions_with_one_plugin_name(install: Install) -> None:
    install("first-one", "0.1", GREETING, plugin="shared")
    install("second-one", "0.2", GREETING, plugin="shared")
    first, second = (plugin for plugin in discover().plugins if plugin.name == "shared")
    assert (first.distribution, first.state) == ("first-one", "ok")
    assert second.state == "broken"
    assert "the name 'shared' is taken by the distribution first-one 0.1" in second.reason
    assert second.mend == "pip uninstall second-one, or pip uninstall first-one"
