"""Leaving plugins out: by an option, by the environment, by a recipe; and having only some."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import Distribution
from pathlib import Path

import pytest
from click.testing import CliRunner

from ups_kit import console
from ups_kit.cli import cli
from ups_kit.disabling import DISABLE, ONLY, leaving_out
from ups_kit.errors import PluginError, UsageError
from ups_kit.plugins import Plugin, discover
from ups_kit.sketches import sketch

Install = Callable[..., Distribution]
IMPORTED = "raise SystemExit('imported')"  # a plugin that shows when it is imported


def plugin(name: str, *disable: str) -> Plugin:
    return next(plugin for plugin in discover(disable).plugins if plugin.name == name)


def upskit(*arguments: str) -> str:
    """What a command prints; called in this process."""
    done = CliRunner().invoke(cli, arguments, catch_exceptions=False, standalone_mode=False)
    return done.output


def test_by_option_before_and_after_the_command() -> None:
    for arguments in (("--no-plugin", "trackers", "list-plugins"), ("list-plugins", "--no-plugin", "trackers")):
        shown = upskit(*arguments, "--json")
        (found,) = [each for each in json.loads(shown) if each["name"] == "trackers"]
        assert (found["state"], found["reason"]) == ("disabled", "disabled by --no-plugin")
        assert found["mend"] == "leave out --no-plugin trackers"
        assert DISABLE not in os.environ
    both = json.loads(upskit("--no-plugin", "mesh", "list-plugins", "--json", "--no-plugin", "trackers"))
    assert {each["name"] for each in both if each["state"] == "disabled"} == {"mesh", "trackers"}


def test_every_command_on_recipes_or_components_has_the_option() -> None:
    def has(path: tuple[str, ...]) -> bool:
        return "--no-plugin" in upskit(*path, "--help")

    alone = ("run", "validate", "schema", "plan", "replicate", "evaluate", "predict", "export", "list", "show")
    data = ("make", "convert", "check", "stats", "validate", "inspect", "encode")
    assert all(has(path) for path in [(), *((name,) for name in alone), *(("data", name) for name in data)])


def test_a_run_does_without_it(tmp_path: Path) -> None:
    """Nothing of it is imported, also in a process that is started on the way."""
    listing = "upskit = [sys.executable, '-m', 'ups_kit', 'list-plugins', '--json', '--kind', 'tracker']"
    code = (
        "import subprocess, sys; from ups_kit.cli import cli; import click\n"
        f"{listing}\n"
        "command = click.Command('inner', callback=lambda: print(subprocess.check_output(upskit, text=True)))\n"
        "cli.add_command(command)\n"
        "cli.main(['--no-plugin', 'trackers', 'inner'], standalone_mode=False)\n"
        "cli.main(['list', 'tracker', '--no-plugin', 'trackers', '--no-plugin', 'upt'], standalone_mode=False)\n"
        "print([name for name in ('trackers', 'upt', 'grid') if f'ups_plugins.{name}' in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=tmp_path)
    inherited = [each["name"] for each in json.loads(done.stdout.partition("\n\n")[0])]
    assert "trackers" not in inherited
    assert done.stdout.splitlines()[-1] == "['grid']"


def test_a_recipe_that_needs_it_says_how_to_have_it(tmp_path: Path) -> None:
    path = tmp_path / "recipe.toml"
    path.write_text(f'{sketch(discover())}\n[[trackers]]\nuse = "tensorboard"\n')
    shown = upskit("validate", str(path), "--no-plugin", "trackers")
    assert "no tracker is called 'tensorboard'" in shown
    assert "the plugin 'trackers' is disabled by --no-plugin; to have this, leave out --no-plugin trackers" in shown


def test_an_unknown_name_is_told_with_the_nearest() -> None:
    with pytest.raises(
        UsageError, match=r"--no-plugin traker: no plugin is called 'traker'; did you mean 'trackers'\?"
    ):
        upskit("list-plugins", "--no-plugin", "traker")
    its = "the plugins of that distribution are called .*grid.*upt"
    with pytest.raises(UsageError, match=its), leaving_out(["ups-kit"]):
        pass


def test_by_the_environment(
    install: Install, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    install("ups-loud", "0.1", IMPORTED, plugin="loud")
    assert plugin("loud").state == "broken"
    monkeypatch.setenv(DISABLE, " loud, ,trakers")
    console.notice.cache_clear()
    loud = plugin("loud")
    assert (loud.state, loud.reason) == ("disabled", "disabled by UPSKIT_DISABLE_PLUGINS")
    assert loud.mend == "take loud out of UPSKIT_DISABLE_PLUGINS"
    discover()
    told = capsys.readouterr().err
    assert told.count("warning: UPSKIT_DISABLE_PLUGINS: no plugin is called 'trakers'; did you mean 'trackers'?") == 1
    with leaving_out(["trackers"]):
        assert os.environ[DISABLE].split(",") == ["loud", "trakers", "trackers"]
        assert plugin("loud").reason == "disabled by UPSKIT_DISABLE_PLUGINS"
    assert os.environ[DISABLE] == " loud, ,trakers"


def test_listing_the_built_in_plugins_imports_nothing_heavy() -> None:
    """Below 0.3 s on a machine at rest, as nothing but config classes is imported: not even numpy."""
    code = "import sys; from ups_kit.plugins import discover; discover(); print({'numpy', 'torch'} & set(sys.modules))"
    environment = {**os.environ, ONLY: ""}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    assert done.stdout == "set()\n"


def test_by_a_recipe() -> None:
    found = plugin("mesh", "mesh")
    assert (found.state, found.reason) == ("disabled", "disabled by plugins.disable of the recipe")
    after = next(each for each in discover().without(["mesh"]).plugins if each.name == "mesh")
    assert (after.state, after.reason, after.mend) == (found.state, found.reason, found.mend)


def test_only_some_of_strangers(install: Install, monkeypatch: pytest.MonkeyPatch) -> None:
    install("ups-loud", "0.1", IMPORTED, plugin="loud")
    install("ups-other", "0.1", IMPORTED, plugin="other")
    monkeypatch.setenv(ONLY, "other")
    assert (plugin("loud").state, plugin("loud").reason) == ("disabled", "not among those of UPSKIT_PLUGINS")
    assert plugin("loud").mend == "add loud to UPSKIT_PLUGINS"
    assert "imported" in plugin("other").reason
    assert plugin("grid").state == "ok"
    monkeypatch.setenv(ONLY, "")
    assert plugin("other").state == "disabled"
    assert plugin("grid").state == "ok"


def test_a_component_of_a_broken_plugin_ends_show_with_4(install: Install) -> None:
    install("ups-loud", "0.1", f'{IMPORTED}\n{{"encoder": {{"noise": 1}}}}', plugin="loud")
    with pytest.raises(PluginError, match=r"the plugin 'loud' \(ups-loud 0\.1\) is broken: SystemExit: imported"):
        upskit("show", "encoder", "noise")
    with pytest.raises(UsageError, match="no encoder is called 'silence'"):
        upskit("show", "encoder", "silence")
