"""`upskit check-plugin`: whether what a distribution offers keeps the contracts of its kinds."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import click

from ..console import printable
from ..errors import PluginError, UsageError, did_you_mean
from ..interfaces import KINDS
from .components import table
from .without import NO_PLUGIN

if TYPE_CHECKING:
    from ..plugins import Catalog, Plugin
    from ..registry import Entry
    from ..testing.report import Report

ADDRESS = re.compile(r"([a-z_]+)/([a-z][a-z0-9_]*)")
SETTING = re.compile(rf"{ADDRESS.pattern}\.(.+)", re.DOTALL)
HEADER = ("KIND", "NAME", "RESULT", "CHECKED ON")


@click.command("check-plugin")
@click.argument("distribution", metavar="DIST")
@click.option("--component", "only", multiple=True, metavar="KIND/NAME", help="Only this component. Repeatable.")
@click.option(
    "--set",
    "settings",
    multiple=True,
    metavar="KIND/NAME.KEY=VALUE",
    help="Check a component with this key, for example dataset/frames.path=u.npz. Repeatable.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON: every clause of every component.")
@NO_PLUGIN
def check_plugin(distribution: str, only: Sequence[str], settings: Sequence[str], as_json: bool) -> int:
    """Check everything that a distribution offers against the contracts of its kinds, on tiny data.

    DIST is the name of an installed distribution, or of a plugin. Exit code 4 where a contract is broken.
    """
    from ..plugins import discover

    catalog = discover()
    entries = list(_chosen(catalog, _plugins(catalog, distribution), only))
    keys = _settings(settings, entries)
    from ..testing import contract_report

    reports = []
    for entry in entries:
        own = keys.get((entry.kind, entry.name), {})
        reports.append(contract_report(entry.kind, entry.name, catalog=catalog, settings=own))
    if as_json:
        click.echo(json.dumps([report.to_dict() for report in reports], indent=1))
    else:
        click.echo(printable("\n".join(_lines(reports))))
    return PluginError.exit_code if any(report.broken for report in reports) else 0


# ---------------------------------------------------------------------------------------------------------------------
# What is checked
# ---------------------------------------------------------------------------------------------------------------------
def _plugins(catalog: Catalog, name: str) -> list[Plugin]:
    """The plugins of a distribution, or the one of this name. Raises UsageError, and PluginError for broken ones."""
    found = [plugin for plugin in catalog.plugins if _normal(plugin.distribution) == _normal(name)]
    found = found or [plugin for plugin in catalog.plugins if plugin.name == name]
    if not found:
        known = dict.fromkeys(each for plugin in catalog.plugins for each in (plugin.distribution, plugin.name))
        listed = ", ".join(dict.fromkeys(plugin.distribution for plugin in catalog.plugins))
        raise UsageError(
            f"no distribution with plugins is called '{name}'{did_you_mean(name, known)} (installed: {listed})"
        )
    broken = [plugin for plugin in found if plugin.state == "broken"]
    if broken:
        told = (
            f"{plugin.name}: {plugin.reason}" + (f"\n  -> {plugin.mend}" if plugin.mend else "") for plugin in broken
        )
        raise PluginError("\n".join([f"{name}: what cannot be loaded cannot be checked", *told]))
    if all(plugin.state == "disabled" for plugin in found):
        raise UsageError(f"{name}: {found[0].reason}; {found[0].mend or 'leave it in to check it'}")
    return found


def _normal(name: str) -> str:
    """A distribution's name as pip compares it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def _chosen(catalog: Catalog, plugins: Sequence[Plugin], only: Sequence[str]) -> Iterator[Entry]:
    names = {plugin.name for plugin in plugins}
    entries = {
        f"{kind}/{name}": entry for kind in KINDS for name, entry in catalog[kind].items() if entry.plugin in names
    }
    if not entries:
        raise UsageError(f"the plugins {', '.join(sorted(names))} offer no components")
    for address in only:
        if address not in entries:
            listed = ", ".join(entries)
            raise UsageError(f"--component {address}: not offered{did_you_mean(address, entries)} (offered: {listed})")
    yield from (entry for address, entry in entries.items() if not only or address in only)


def _settings(settings: Sequence[str], entries: Sequence[Entry]) -> dict[tuple[str, str], Mapping[str, Any]]:
    """The keys of each component. Raises UsageError for what is no setting of one that is checked."""
    from ..merging import Origin, Setting, settings_tree

    addresses = {f"{entry.kind}/{entry.name}": (entry.kind, entry.name) for entry in entries}
    found: dict[tuple[str, str], list[str]] = {}
    for text in settings:
        parts = SETTING.fullmatch(text)
        if parts is None:
            raise UsageError(f"--set {text}: expected KIND/NAME.KEY=VALUE, for example dataset/frames.path=u.npz")
        address = f"{parts[1]}/{parts[2]}"
        if address not in addresses:
            listed = ", ".join(addresses)
            raise UsageError(f"--set {text}: {address} is not checked{did_you_mean(address, addresses)} ({listed})")
        found.setdefault(addresses[address], []).append(parts[3])
    keys = {}
    for which, own in found.items():
        problems: list[Any] = []
        keys[which] = settings_tree(own, Origin(Setting("")), problems).plain()
        if problems:
            raise UsageError("\n".join(f"--set for {'/'.join(which)}: {problem.message}" for problem in problems))
    return keys


# ---------------------------------------------------------------------------------------------------------------------
# What is printed
# ---------------------------------------------------------------------------------------------------------------------
def _lines(reports: Sequence[Report]) -> Iterator[str]:
    yield table(HEADER, [(report.kind, report.name, _result(report), ", ".join(report.on)) for report in reports])
    for report in reports:
        if report.skipped or report.notes:
            yield ""
            yield f"{report.kind} {report.name}"
            yield from (f"  {note}" for note in report.notes)
            for reason in dict.fromkeys(finding.text for finding in report.skipped):
                clauses = ", ".join(finding.clause for finding in report.skipped if finding.text == reason)
                yield f"  not checked: {clauses}: {reason}"
    broken = [report for report in reports if report.broken]
    for report in broken:
        yield ""
        yield str(report)
    yield ""
    partly = sum(1 for report in reports if report.skipped or report.notes)
    yield (
        f"{len(reports)} component{'' if len(reports) == 1 else 's'}: "
        + (f"{len(broken)} of them broken" if broken else "none broken")
        + (f", {partly} not checked in all clauses" if partly else "")
    )


def _result(report: Report) -> str:
    counts = [(len(report.broken), "broken"), (len(report.passed), "passed"), (len(report.skipped), "not checked")]
    return ", ".join(f"{count} {word}" for count, word in counts if count)
