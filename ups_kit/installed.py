"""Which plugins are installed, and what their distributions say of them: all that is known before anything is imported.

A distribution says in its entry points which plugins it has (group `ups_kit`) and for which version of the plugin API
each was written (group `ups_kit.api`, `NAME = "v1"`; 1 where it does not say), and in `Requires-Dist` which ups_kit it
needs.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from importlib.metadata import Distribution, EntryPoint, distributions
from typing import Literal

import attrs
from attrs import field, frozen

from . import __version__
from .errors import did_you_mean
from .hookspecs import API, PROJECT
from .keypaths import shown

GROUP = PROJECT
API_GROUP = f"{PROJECT}.api"
NAME = re.compile(r"\w[\w.-]{0,79}")  # of a plugin: what an option and a list between commas can name
UNKNOWN = "unknown"  # a distribution without papers


@frozen
class Plugin:
    """An installed plugin, whether it works or not.

    `api` is the version of the plugin API that it was written for. Of one that is not "ok", `reason` says why, and
    `mend` what to do about it.
    """

    name: str
    distribution: str
    version: str
    module: str
    state: Literal["ok", "disabled", "broken"]
    reason: str = ""
    milliseconds: float = 0.0
    components: Mapping[str, tuple[str, ...]] = field(factory=dict)
    api: int = 1
    mend: str = ""

    @property
    def source(self) -> str:
        """`ups-wavelets 0.3`."""
        return f"{self.distribution} {self.version}"

    def broken(self, reason: str, mend: str) -> Plugin:
        """The same plugin as one that cannot be used."""
        return attrs.evolve(self, state="broken", reason=reason, mend=mend)


def installed(points: Iterable[EntryPoint] | None = None) -> tuple[Plugin, ...]:
    """Every installed plugin, those that cannot be imported as broken ones; nothing of theirs is run.

    The built-in ones come first, all by name and distribution: the same order everywhere, and no stranger takes a
    built-in's name by coming before it in the alphabet. `points` stands in for the installed entry points, in tests.
    """
    found = list(_described()) if points is None else [_alone(point) for point in points]
    return tuple(sorted(found, key=lambda plugin: (plugin.distribution != GROUP, plugin.name, plugin.distribution)))


@frozen
class _Papers:
    """What a distribution says of itself."""

    name: str = UNKNOWN
    version: str = "?"
    requires: tuple[str, ...] = ()


def _described() -> Iterator[Plugin]:
    """The plugins of all distributions. importlib's own list ends at the first whose entry points cannot be read."""
    seen = set()
    for distribution in distributions():
        try:
            text = distribution.read_text("entry_points.txt") or ""
        except (OSError, ValueError):  # a folder that may not be read is no plugin's
            continue
        if GROUP not in text:
            continue
        papers = _papers(distribution)
        if papers.name != UNKNOWN and papers.name in seen:
            continue  # the first on the path is the one that is imported
        seen.add(papers.name)
        try:
            points = list(distribution.entry_points)
        except Exception as error:
            yield Plugin(papers.name, papers.name, papers.version, "", "ok").broken(
                f"its entry_points.txt cannot be read ({type(error).__name__}: {error})", _again(papers.name)
            )
            continue
        yield from (_plugin(point, papers, _apis(points)) for point in points if point.group == GROUP)


def _alone(point: EntryPoint) -> Plugin:
    return _plugin(point, _papers(point.dist), _apis(getattr(point.dist, "entry_points", ())))


def _apis(points: Iterable[EntryPoint]) -> dict[str, str]:
    return {point.name: point.value for point in points if point.group == API_GROUP}


def _papers(distribution: Distribution | None) -> _Papers:
    if distribution is None:
        return _Papers()
    try:
        metadata = getattr(distribution, "metadata", None)
        if metadata is None:  # a stand-in
            return _Papers(distribution.name, distribution.version)
        name, version = metadata.get("Name"), metadata.get("Version")
        requires = () if name == GROUP else tuple(distribution.requires or ())
        return _Papers(shown(name or UNKNOWN), shown(version or "?"), requires)
    except Exception:  # METADATA that is missing, or no text
        return _Papers()


def _plugin(point: EntryPoint, papers: _Papers, apis: Mapping[str, str]) -> Plugin:
    """A plugin as its papers describe it; broken where they say that it does not go with this ups_kit."""
    plugin = Plugin(point.name, papers.name, papers.version, point.value, "ok")
    if NAME.fullmatch(point.name) is None:
        reason = f"its name '{shown(point.name)}' is none: expected letters, digits, . _ - with a letter or digit first"
        return attrs.evolve(plugin, name=shown(point.name)).broken(reason, _upgrade(papers.name))
    if EntryPoint.pattern.match(point.value) is None:
        return plugin.broken(f"its entry point '{point.name} = {point.value}' names no module", _again(papers.name))
    plugin = attrs.evolve(plugin, module=point.module)
    written = apis.get(point.name, f"v{API}" if papers.name == GROUP else "v1")
    number = re.fullmatch(r"v(\d{1,6})", written)
    if number is None:
        reason = f"its version of the plugin API cannot be read: expected v{API} in {API_GROUP}, got '{written}'"
        return plugin.broken(reason, _upgrade(papers.name))
    plugin = attrs.evolve(plugin, api=int(number[1]))
    return _fitting(plugin, papers.requires)


def _fitting(plugin: Plugin, requires: Sequence[str]) -> Plugin:
    if plugin.api != API:
        reason = (
            f"{plugin.source} is written for version {plugin.api} of the plugin API, and ups_kit {__version__} has "
            f"version {API}"
        )
        newer, older = "pip install --upgrade ups_kit", f"pip install --upgrade {plugin.distribution}"
        return plugin.broken(reason, newer if plugin.api > API else older)
    wanted = _wanted(requires)
    if wanted and not _allows(wanted, __version__):
        reason = f"{plugin.source} needs ups_kit {wanted}, and ups_kit {__version__} is installed"
        return plugin.broken(
            reason, f"pip install 'ups_kit{wanted}', or a version of {plugin.distribution} for this one"
        )
    return plugin


def _wanted(requires: Sequence[str]) -> str:
    """The range of ups_kit versions that a distribution asks for, empty where any will do."""
    lines = [line for line in requires if re.match(r"ups[-_.]+kit\b", line, re.IGNORECASE)]
    if not lines:
        return ""
    from packaging.requirements import Requirement

    ranges = []
    for line in lines:
        try:
            requirement = Requirement(line)
            applies = requirement.marker is None or requirement.marker.evaluate({"extra": ""})
        except (ValueError, RecursionError):
            continue  # what pip could not read, it has not held the distribution to
        if applies:
            ranges += [str(part) for part in requirement.specifier]
    return ",".join(sorted(set(ranges)))


def _allows(wanted: str, version: str) -> bool:
    from packaging.specifiers import SpecifierSet
    from packaging.version import InvalidVersion

    try:
        return SpecifierSet(wanted).contains(version, prereleases=True)
    except InvalidVersion:
        return not wanted


def unmet(requirement: str, plugins: Sequence[Plugin]) -> str:
    """Why the installed plugins are not what a recipe requires, such as `ups-wavelets >= 0.3`; empty where they are.

    Raises ValueError where that names no distribution and its versions.
    """
    from packaging.requirements import InvalidRequirement, Requirement

    said = f"expected a distribution and its versions, for example 'ups-wavelets >= 0.3', got '{shown(requirement)}'"
    try:
        wanted = Requirement(requirement)
    except (InvalidRequirement, RecursionError) as error:
        raise ValueError(said) from error
    if wanted.url is not None or wanted.marker is not None:
        raise ValueError(f"{said}; an address or a condition does not go here")
    line = f"pip install '{wanted.name}{wanted.specifier}'"
    found = [plugin for plugin in plugins if plain_name(plugin.distribution) == plain_name(wanted.name)]
    if not found:
        known = list(dict.fromkeys(plugin.distribution for plugin in plugins))
        return f"needs {wanted}, and no plugin of it is installed: {line}{did_you_mean(wanted.name[:100], known)}"
    if not _allows(str(wanted.specifier), found[0].version):
        return f"needs {wanted}, and {found[0].source} is installed: {line}"
    return ""


def plain_name(distribution: str) -> str:
    """A distribution's name as pip compares them."""
    return re.sub(r"[-_.]+", "-", distribution).lower()


def _again(distribution: str) -> str:
    return "reinstall its distribution" if distribution == UNKNOWN else f"pip install --force-reinstall {distribution}"


def _upgrade(distribution: str) -> str:
    return "reinstall its distribution" if distribution == UNKNOWN else f"pip install --upgrade {distribution}"
