"""`upskit check-plugin`: what it finds, prints and exits with."""

from __future__ import annotations

import json

import pytest
from click.testing import CliRunner, Result

import ups_kit.plugins
from ups_kit.cli import cli
from ups_kit.errors import PluginError, UsageError
from ups_kit.plugins import Catalog


@pytest.fixture
def installed(broken: Catalog, monkeypatch: pytest.MonkeyPatch) -> None:
    """The broken plugins as if they were installed."""
    monkeypatch.setattr(ups_kit.plugins, "discover", lambda *arguments, **named: broken)


def upskit(*arguments: str) -> Result:
    return CliRunner().invoke(cli, ["check-plugin", *arguments], standalone_mode=False)


def test_sound_components_are_listed_with_what_was_looked_at() -> None:
    done = upskit("optim")
    assert done.return_value == 0
    lines = [line.split() for line in done.output.splitlines()]
    assert ["optimizer", "muon", "10", "passed"] in lines
    assert ["schedule", "step", "9", "passed"] in lines
    assert done.output.rstrip().endswith("8 components: none broken")


def test_what_was_not_checked_is_told_with_the_reason() -> None:
    done = upskit("ups_kit", "--component", "dataset/well", "--set", "dataset/well.path=nowhere/*.hdf5")
    assert done.return_value == 4
    assert "nowhere/*.hdf5: no file fits this pattern" in done.output
    done = upskit("UPS.kit", "--component", "sampler/uniform")
    assert done.return_value == 0
    assert "  not checked: unbiased: all its points count alike" in done.output
    assert "1 component: none broken, 1 not checked in all clauses" in done.output


def test_a_broken_contract_ends_it_with_4(installed: None) -> None:
    done = upskit("broken_parts", "--component", "metric/offset", "--component", "schedule/negative")
    assert done.return_value == 4
    assert "schedule 'negative' of the plugin 'broken_parts' breaks its contract: 1 of 9 clauses" in done.output
    assert "  perfect: expected: A perfect forecast has the error 0, and a wrong one more" in done.output
    assert "    got: on line: 1 for a perfect forecast" in done.output
    assert "    to mend it: where it is no error, as a correlation, say is_error" in done.output
    assert done.output.rstrip().endswith("2 components: 2 of them broken")


def test_json_holds_every_clause(installed: None) -> None:
    done = upskit("broken_keys", "--component", "operator/silent", "--json")
    (report,) = json.loads(done.output)
    assert (report["kind"], report["name"], report["plugin"], report["state"]) == (
        "operator",
        "silent",
        "broken_keys",
        "broken",
    )
    states = {clause["clause"]: clause["state"] for clause in report["clauses"]}
    assert (states["documented"], states["round-trip"], states["shapes"]) == ("broken", "passed", "passed")


def test_settings_reach_the_component(installed: None) -> None:
    settings = ("--set", "optimizer/uphill.lr=0.01")
    assert upskit("broken_parts", "--component", "optimizer/uphill", *settings).return_value == 0


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["optm"], "no distribution with plugins is called 'optm'; did you mean 'optim'?"),
        (["optim", "--component", "optimizer/adamm"], "did you mean 'optimizer/adam'?"),
        (["optim", "--set", "lr=1"], "expected KIND/NAME.KEY=VALUE"),
        (["optim", "--set", "optimizer/adma.lr=1"], "optimizer/adma is not checked; did you mean 'optimizer/adam'?"),
        (["optim", "--set", "optimizer/adam.lr"], "'=' is missing"),
    ],
)
def test_arguments_that_do_not_fit_are_usage_errors(arguments: list[str], words: str) -> None:
    done = upskit(*arguments)
    assert isinstance(done.exception, UsageError)
    assert words in str(done.exception)


def test_a_plugin_that_cannot_be_loaded_is_told_with_the_reason(
    broken: Catalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    import attrs

    plugins = [
        plugin.broken("its module does not import", "mend the import") if plugin.name == "broken_keys" else plugin
        for plugin in broken.plugins
    ]
    monkeypatch.setattr(ups_kit.plugins, "discover", lambda: attrs.evolve(broken, plugins=tuple(plugins)))
    done = upskit("broken_keys")
    assert isinstance(done.exception, PluginError)
    assert "broken_keys: its module does not import\n  -> mend the import" in str(done.exception)
