"""What goes wrong in a plugin's own code names the plugin, its distribution and version, and shows no traceback."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from importlib.metadata import Distribution
from pathlib import Path

import pytest
import torch

import ups_kit
from ups_kit.assemble import assemble
from ups_kit.blame import blamed
from ups_kit.bundle import load_bundle
from ups_kit.errors import PluginError
from ups_kit.installed import Plugin
from ups_kit.run import run

Install = Callable[..., Distribution]

FAULTY = '''
"""Components that fail where they are told to."""
from typing import Any, ClassVar
from attrs import field, frozen
from ups_kit import Needs, Weighted, hookimpl

def fail():
    raise KeyError("a key\\nand more")

@frozen(kw_only=True)
class FaultyStage:
    """A stage that fails when it is built, or run."""
    name: str = "faulty"
    at: str = field(default="", metadata={"help": "where it fails"})

    def build(self) -> Any:
        if self.at == "build":
            fail()
        return Stage(self.at)

    def check(self, fields: Any, latent: Any) -> Any:
        if self.at == "check":
            fail()
        return ()

class Stage:
    def __init__(self, at: str) -> None:
        self.at = at

    def run(self, experiment: Any, folder: Any, trackers: Any) -> Any:
        if self.at == "exit":
            raise SystemExit(3)
        if self.at == "memory":
            raise MemoryError("no more")
        if self.at == "run":
            fail()
        return {}

@frozen(kw_only=True)
class FaultyLoss(Weighted):
    """A loss that fails when it is asked."""
    def build(self, fields: Any) -> Any:
        return Loss()

class Loss:
    reaches = ("encoder", "decoder")
    sampler = None
    horizon = 0

    def needs(self, progress: Any) -> Any:
        return Needs()

    def __call__(self, forward: Any) -> Any:
        fail()

@frozen(kw_only=True)
class Misbuilt:
    """A part that is built with other arguments than it is given."""
    name: str = "tracking"

    def build(self, folder: Any, more: Any) -> Any: ...

@frozen
class FaultyOptimizer:
    """An optimiser whose state holds an array of numpy's."""
    def build(self, model: Any) -> Any:
        import numpy as np
        import torch

        class Keeping(torch.optim.SGD):
            def state_dict(self) -> Any:
                return {**super().state_dict(), "history": np.zeros(2)}

        return Keeping(model.parameters(), lr=0.1)

@hookimpl
def ups_kit_components() -> Any:
    return {
        "stage": {"faulty": FaultyStage, "misbuilt": Misbuilt},
        "loss": {"faulty_loss": FaultyLoss},
        "optimizer": {"faulty_sgd": FaultyOptimizer},
    }
'''
PIPELINE = """
[run]
name = "burgers"
threads = 1
device = "cpu"
[dataset]
use = "pdebench"
train = 6
validation = 2
test = 2
simulate = { use = "burgers1d", trajectories = 10, points = 16, frames = 5, refinement = 1 }
[latent]
width = 8
[encoder]
use = "grid"
patch_size = 4
heads = 1
[operator]
use = "transformer"
depth = 1
heads = 1
[decoder]
use = "local"
"""
SOURCE = r"the plugin 'faulty' \(ups-faulty 0\.3\) failed: KeyError: 'a key\\nand more' \(ups_faulty_plugin, line \d+\)"


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("data") / "burgers.h5"


@pytest.fixture
def read(install: Install, tmp_path: Path, data: Path) -> Iterator[Callable[..., ups_kit.Recipe]]:
    """The tiny pipeline's codec, with settings; the faulty plugin is installed."""
    install("ups-faulty", "0.3", FAULTY, plugin="faulty")
    threads = torch.get_num_threads()

    def recipe(text: str, *settings: str) -> ups_kit.Recipe:
        path = tmp_path / "faulty.toml"
        path.write_text(PIPELINE + text)
        places = (f"run.folder={tmp_path / 'runs'}", f"dataset.path={data}")
        return ups_kit.read_recipe(path, [*places, *settings]).recipe

    yield recipe
    torch.set_num_threads(threads)


STAGE = '[[stages]]\nuse = "faulty"\n'
CODEC = """
[[stages]]
use = "codec"
budget = { steps = 2 }
batch = 4
[stages.optimizer]
use = "adam"
[stages.losses.inverse_decoding]
"""


def test_a_fault_in_build_and_check(read: Callable[..., ups_kit.Recipe]) -> None:
    for at in ("build", "check"):
        with pytest.raises(PluginError, match=SOURCE) as caught:
            assemble(read(STAGE, f"stages.faulty.at={at}"))
        assert "tell its authors" in str(caught.value)
        assert "UPSKIT_DEBUG=1 shows the traceback" in str(caught.value)
        assert "\n" not in str(caught.value)
    with pytest.raises(PluginError, match=r"Misbuilt\.build\(\) missing 2 .* \(ups_faulty_plugin\.Misbuilt\)"):
        assemble(read(STAGE.replace("faulty", "misbuilt")))


def test_a_fault_in_a_stage(read: Callable[..., ups_kit.Recipe], tmp_path: Path) -> None:
    with pytest.raises(PluginError, match=f"stage 'faulty': {SOURCE}.*the traceback is in ") as caught:
        run(read(STAGE, "stages.faulty.at=run"))
    folder = tmp_path / "runs/burgers/1"
    assert str(caught.value).endswith(str(folder / "traceback.txt"))
    assert 'raise KeyError("a key' in (folder / "traceback.txt").read_text()
    assert (folder / "STATUS").read_text() == "failed\n"
    with pytest.raises(PluginError, match=r"stage 'faulty': the plugin 'faulty' .* failed: SystemExit: 3"):
        run(read(STAGE, "stages.faulty.at=exit"))
    with pytest.raises(MemoryError):  # nobody's fault
        run(read(STAGE, "stages.faulty.at=memory"))


def test_a_fault_in_the_step_of_a_built_in_stage(read: Callable[..., ups_kit.Recipe]) -> None:
    """The stranger's loss is named, and not the built-in stage that calls it."""
    with pytest.raises(PluginError, match=f"stage 'codec': {SOURCE}"):
        run(read(CODEC.replace("inverse_decoding", "faulty_loss")))


def test_what_cannot_be_saved_names_its_keeper(read: Callable[..., ups_kit.Recipe]) -> None:
    said = (
        r"checkpoint: optimizer\.history is a numpy\.ndarray, which cannot be loaded safely; .* it is kept by the "
        r"optimizer 'faulty_sgd' of the plugin 'faulty' \(ups-faulty 0\.3\), a fault of that plugin"
    )
    with pytest.raises(PluginError, match=said):
        run(read(CODEC.replace('"adam"', '"faulty_sgd"')))


def test_another_version_is_told_by_bundles_and_runs_that_go_on(
    read: Callable[..., ups_kit.Recipe], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = f"{CODEC}\n{STAGE}"
    folder = run(read(text)).folder
    load_bundle(folder)  # without a warning: they are errors in this test
    site = tmp_path / "site"
    (site / "ups_faulty-0.3.dist-info").rename(site / "ups_faulty-0.4.dist-info")
    papers = site / "ups_faulty-0.4.dist-info/METADATA"
    papers.write_text(papers.read_text().replace("Version: 0.3", "Version: 0.4"))
    capsys.readouterr()
    run(read(text), resume=True)
    moved = "the plugin 'faulty': ups-faulty 0.3 then, ups-faulty 0.4 now"
    assert f"warning: resumed under other conditions, so not to the same bits: {moved}\n" in capsys.readouterr().err
    with pytest.warns(UserWarning, match=f"bundle: was written with other versions: {moved}"):
        load_bundle(folder)


def test_the_command_shows_a_traceback_only_when_asked(install: Install, tmp_path: Path) -> None:
    text = FAULTY.replace('"stage": {', '"simulator": {')
    install("ups-faulty", "0.3", text, plugin="faulty")
    command = [sys.executable, "-m", "ups_kit", "data", "make", "faulty", "--out", "x.h5", "--set", "at=build"]

    def call(**environment: str) -> tuple[int, str]:
        environment = {**os.environ, "PYTHONPATH": str(tmp_path / "site"), **environment}
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment, cwd=tmp_path)
        return done.returncode, done.stderr

    code, told = call()
    assert (code, told.count("\n")) == (4, 1)
    assert told.startswith(
        "the plugin 'faulty' (ups-faulty 0.3) failed: AttributeError: 'FaultyStage' object has no attribute 'describe' "
        "(ups_faulty_plugin.FaultyStage); a fault of the plugin"
    )
    code, told = call(UPSKIT_DEBUG="1")
    assert code == 4
    assert "Traceback" in told


def test_whose_code_it_was() -> None:
    """The longest name of a module wins, strangers go before built-ins, and what came through no plugin stays."""
    plugins = [
        Plugin("grid", "ups_kit", "1", "ups_plugins.grid", "ok"),
        Plugin("heat", "ups-waves", "2", "ups_waves.heat", "ok"),
        Plugin("waves", "ups-waves", "2", "ups_waves", "ok"),
    ]

    def raised_in(*modules: str) -> BaseException:
        code = "raise ValueError('no')"
        for module in reversed(modules):
            spaces = {"__name__": module, "code": code}
            code = f"exec({code!r}, {{'__name__': {module!r}}})"
        try:
            exec(code, spaces)
        except ValueError as error:
            return error
        raise AssertionError

    for modules, name in {
        ("ups_plugins.grid.dataset",): "grid",
        ("ups_waves.heat", "torch.nn"): "heat",
        ("ups_waves.heater",): "waves",
        ("ups_waves.encoder", "ups_kit.layers"): "waves",
        ("ups_waves.encoder", "ups_plugins.grid.encoder"): "waves",
        ("ups_plugins.griddle", "ups_kit.run"): "",
        ("ups_plugins",): "",
    }.items():
        told = blamed(raised_in(*modules), plugins)
        assert (told is None) == (name == ""), modules
        assert f"the plugin '{name}'" in str(told) or not name
