"""Discovery: one broken plugin is listed with its reason and stops nobody else."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from ups_kit.errors import PluginError
from ups_kit.interfaces import KINDS
from ups_kit.plugins import GROUP, Catalog, Plugin, discover, installed

GOOD = """
from attrs import frozen
from ups_kit import hookimpl

@frozen
class {name}Config:
    size: int = 1

    def build(self, fields, latent):
        return None

@hookimpl
def ups_kit_components():
    return {{"encoder": {{"{component}": {name}Config}}}}
"""
OFFER = GOOD.format(name="Thing", component="thing").split("@hookimpl")[0]
BROKEN = {
    "import_error": (
        "import a_library_that_is_missing",
        "ModuleNotFoundError: No module named 'a_library_that_is_missing'",
    ),
    "syntax_error": ("def (", "SyntaxError: invalid syntax"),
    "exits": ("raise SystemExit('good bye')", "SystemExit: good bye"),
    "raises": ("raise RuntimeError('first line\\nsecond line')", "RuntimeError: first line"),
    "says_nothing": ("assert False", "AssertionError: without a message"),
    "says_it_badly": (
        "class Mute(Exception):\n    def __str__(self):\n        raise ValueError\nraise Mute",
        "Mute: with a message that cannot be read",
    ),
    "says_much": ("raise ValueError('x' * 10**6)", f"ValueError: {'x' * 400}… (discovered_says_much, line 1)"),
    "colours": ("raise ValueError('\\x1b[31mred')", r"ValueError: \x1b[31mred"),
    "hook_with_arguments": (
        "from ups_kit import hookimpl\n@hookimpl\ndef ups_kit_components(wanted):\n    return {}",
        "Argument(s) {'wanted'} are declared",
    ),
    "docstring_of_numbers": (
        OFFER.replace("    size", "    __doc__ = 3\n    size")
        + "@hookimpl\ndef ups_kit_components():\n    return {'encoder': {'thing': ThingConfig}}",
        "ThingConfig: its docstring is no text",
    ),
    "no_hook": ("x = 1", "the module has no hook; define ups_kit_components() and mark it with @ups_kit.hookimpl"),
    "misspelt_hook": (
        "from ups_kit import hookimpl\n@hookimpl\ndef ups_kit_component():\n    return {}",
        "unknown hook 'ups_kit_component'",
    ),
    "hook_raises": (
        "from ups_kit import hookimpl\n@hookimpl\ndef ups_kit_components():\n    return 1 / 0",
        "ZeroDivisionError: division by zero",
    ),
    "hook_returns_nothing": (
        "from ups_kit import hookimpl\n@hookimpl\ndef ups_kit_components():\n    pass",
        "ups_kit_components() returned None, expected {kind: {name: config class}}",
    ),
    "hook_returns_list": (
        "from ups_kit import hookimpl\n@hookimpl\ndef ups_kit_components():\n    return [1]",
        "ups_kit_components() returned list, expected {kind: {name: config class}}",
    ),
    "wrong_kind": (
        OFFER + "@hookimpl\ndef ups_kit_components():\n    return {'encodr': {'thing': ThingConfig}}",
        "there is no kind 'encodr'; did you mean 'encoder'?",
    ),
    "not_a_mapping": (
        OFFER + "@hookimpl\ndef ups_kit_components():\n    return {'encoder': [ThingConfig]}",
        "encoder: expected {name: config class}, got list",
    ),
    "not_attrs": (
        OFFER
        + "class Plain:\n    pass\n@hookimpl\ndef ups_kit_components():\n    return {'encoder': {'thing': Plain}}",
        "encoder 'thing': a config is an attrs class",
    ),
    "no_build": (
        OFFER + "@frozen\nclass Idle:\n    x: int = 1\n"
        "@hookimpl\ndef ups_kit_components():\n    return {'encoder': {'thing': Idle}}",
        "encoder 'thing': Idle has no build method",
    ),
    "bad_name": (
        OFFER + "@hookimpl\ndef ups_kit_components():\n    return {'encoder': {'my.thing': ThingConfig}}",
        "encoder 'my.thing': a component's name is lower case, with digits and _",
    ),
    "key_use": (
        OFFER + "@frozen\nclass User:\n    use: int = 1\n    def build(self): ...\n"
        "@hookimpl\ndef ups_kit_components():\n    return {'encoder': {'thing': User}}",
        "encoder 'thing': User has a key 'use', which names the component",
    ),
    "missing_annotation": (
        "from __future__ import annotations\n" + OFFER.replace("size: int", "size: Tensor") + "@hookimpl\n"
        "def ups_kit_components():\n    return {'encoder': {'thing': ThingConfig}}",
        "ThingConfig: its annotations cannot be read: name 'Tensor' is not defined",
    ),
    "no_toml_type": (
        OFFER.replace("size: int", "size: list[int]")
        + "@hookimpl\ndef ups_kit_components():\n    return {'encoder': {'thing': ThingConfig}}",
        "ThingConfig.size: a recipe cannot hold the type list[int]",
    ),
    "taken": (
        OFFER
        + "@hookimpl\ndef ups_kit_components():\n    return {'encoder': {'free': ThingConfig, 'good': ThingConfig}}",
        "two plugins offer the encoder 'good': a_good and taken; disable one of them",
    ),
}


def install(folder: Path, modules: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> list[EntryPoint]:
    """Modules that can be imported, and the entry points that name them."""
    for name, text in modules.items():
        (folder / f"discovered_{name}.py").write_text(text)
    monkeypatch.syspath_prepend(str(folder))
    return [EntryPoint(name, f"discovered_{name}", GROUP) for name in modules]


def plugin(catalog: Catalog, name: str) -> Plugin:
    return next(plugin for plugin in catalog.plugins if plugin.name == name)


def test_one_good_plugin_among_many_broken_ones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    modules = {"a_good": GOOD.format(name="Good", component="good")}
    modules |= {name: text for name, (text, _) in BROKEN.items()}
    modules |= {"z_good": GOOD.format(name="Last", component="last")}
    catalog = discover(points=install(tmp_path, modules, monkeypatch))
    assert list(catalog["encoder"]) == ["good", "last"]
    assert {broken.name for broken in catalog.broken()} == set(BROKEN)
    for name, (_, reason) in BROKEN.items():
        assert reason in plugin(catalog, name).reason
        assert "\n" not in plugin(catalog, name).reason
        assert not plugin(catalog, name).components
    assert plugin(catalog, "z_good").components == {"encoder": ("last",)}


def test_what_a_plugin_prints_stays_out_of_results(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    text = "print('welcome')\n" + GOOD.format(name="Loud", component="loud")
    assert plugin(discover(points=install(tmp_path, {"loud": text}, monkeypatch)), "loud").state == "ok"
    told = capsys.readouterr()
    assert (told.out, told.err) == ("", "welcome\n")


def test_a_plugin_that_forks_makes_no_second_process_of_ours(tmp_path: Path) -> None:
    (tmp_path / "forks.py").write_text("import os\nos.fork()\n" + GOOD.format(name="Fork", component="fork"))
    code = (
        "from importlib.metadata import EntryPoint\nfrom ups_kit.plugins import discover\n"
        "print(discover(points=[EntryPoint('forks', 'forks', 'ups_kit')]).plugins[0].state)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout == "ok\n"


@pytest.mark.parametrize("name", ["a,b", "a b", "--json", "../x", "", "x" * 81])
def test_a_name_that_nobody_could_write_is_none(name: str) -> None:
    (found,) = discover(points=[EntryPoint(name, "somewhere", GROUP)]).plugins
    assert found.state == "broken"
    assert "is none: expected letters, digits" in found.reason


@pytest.mark.parametrize("line", ["ups_kit; " + "(" * 2000, "ups_kit>=9; nonsense == 'x'", "ups_kit>=garbage"])
def test_a_requirement_that_cannot_be_read_is_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, line: str
) -> None:
    papers = tmp_path / "odd_papers-1.dist-info"
    papers.mkdir()
    (papers / "METADATA").write_text(f"Metadata-Version: 2.1\nName: odd-papers\nVersion: 1\nRequires-Dist: {line}\n")
    (papers / "entry_points.txt").write_text("[ups_kit]\nodd = nowhere.to_be_found\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    (found,) = (found for found in installed() if found.name == "odd")
    assert found.state == "ok"


def test_an_interrupt_is_not_taken_for_a_fault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    points = install(tmp_path, {"interrupted": "raise KeyboardInterrupt"}, monkeypatch)
    with pytest.raises(KeyboardInterrupt):
        discover(points=points)


def test_a_disabled_plugin_is_not_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    points = install(tmp_path, {"off": "raise KeyboardInterrupt"}, monkeypatch)
    catalog = discover(disable=["off"], points=points)
    assert plugin(catalog, "off").state == "disabled"


def test_two_plugins_of_one_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (first,) = install(tmp_path, {"first": GOOD.format(name="First", component="first")}, monkeypatch)
    catalog = discover(points=[first, EntryPoint("first", "discovered_other", GROUP)])
    states = [(found.state, found.reason) for found in catalog.plugins]
    assert states[0][0] == "ok"
    assert states[1][0] == "broken"
    assert "the name 'first' is taken by the distribution" in states[1][1]


def test_one_module_under_two_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (first,) = install(tmp_path, {"twice": GOOD.format(name="First", component="first")}, monkeypatch)
    catalog = discover(points=[first, EntryPoint("twice_more", "discovered_twice", GROUP)])
    assert plugin(catalog, "twice_more").reason == "its module discovered_twice is the plugin 'twice' already"


def test_a_stranger_does_not_take_a_built_in_name_by_the_alphabet() -> None:
    """The built-ins are the plugins of our own distribution, and come first."""

    class Distribution:
        def __init__(self, name: str) -> None:
            self.name, self.version = name, "1.0"

    def point(name: str, distribution: str) -> EntryPoint:
        made = EntryPoint(name, "a_module_that_is_missing", GROUP)
        vars(made)["dist"] = Distribution(distribution)
        return made

    catalog = discover(points=[point("grid", "a_stranger"), point("aaa", "a_stranger"), point("grid", "ups_kit")])
    assert [(found.name, found.distribution) for found in catalog.plugins] == [
        ("grid", "ups_kit"),
        ("aaa", "a_stranger"),
        ("grid", "a_stranger"),
    ]
    assert "is taken by the distribution ups_kit" in catalog.plugins[2].reason


def test_order_does_not_matter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    modules = {name: GOOD.format(name=name.title(), component=name) for name in ("one", "two", "three")}
    points = install(tmp_path, modules, monkeypatch)

    def names(order: Sequence[EntryPoint]) -> list[str]:
        return [found.name for found in discover(points=order).plugins]

    assert names(points) == names(points[::-1]) == ["one", "three", "two"]


def test_a_catalog_tells_what_there_is(stand_ins: Catalog) -> None:
    assert set(stand_ins.registries) == set(KINDS)
    assert stand_ins.kinds_of("grid") == ("encoder",)
    config = stand_ins["encoder"].find("grid").config
    assert stand_ins.locate(config()).name == "grid"
    with pytest.raises(
        PluginError, match=r"no encoder is called 'gird'; did you mean 'grid'\? \(installed: grid, points\)"
    ):
        stand_ins["encoder"].find("gird")
    with pytest.raises(PluginError, match=r"there is no kind 'encodr'; did you mean 'encoder'\?"):
        stand_ins["encodr"]
    assert not stand_ins.without(["stand_ins"])["encoder"]
