"""The names of a new package: from that of its distribution, checked, with the nearest that would do."""

from __future__ import annotations

import keyword
import re
import sys
from collections.abc import Iterable, Mapping
from importlib.metadata import PackageNotFoundError, packages_distributions, version
from importlib.util import find_spec

from attrs import frozen

from ..errors import UsageError
from ..keypaths import shown

PREFIX = "ups-"  # what distributions of plugins are called by custom, and plugins are not
DISTRIBUTION = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")
RESERVED = ("tests", "recipes", "docs", "build", "dist")  # folders that are something else
LONGEST = 28  # characters: longer names would break the lines that they stand in


@frozen
class Names:
    """How a new package is called, in all the places where it is."""

    distribution: str  # ups-wavelets: what pip installs

    @property
    def package(self) -> str:
        """`ups_wavelets`: what Python imports."""
        return self.distribution.replace("-", "_")

    @property
    def plugin(self) -> str:
        """`wavelets`: the entry point, and what recipes call the components."""
        return self.package.removeprefix("ups_")

    @property
    def classes(self) -> str:
        """`Wavelets`: what class names begin with."""
        return "".join(part.capitalize() for part in self.plugin.split("_"))


def names_of(given: str, plugins: Iterable[str], components: Iterable[str] = ()) -> Names:
    """The names that follow from a distribution's name, none of which is taken.

    `plugins` are the names of the installed plugins, `components` those that its components cannot have. Raises
    UsageError with the nearest name that would do.
    """
    taken = Taken(frozenset(plugins), frozenset(components), packages_distributions())
    problem = _problem(given, taken)
    if not problem:
        return Names(given)
    near = _nearest(given, taken)
    raise UsageError(f"NAME: '{shown(given)}' {problem}; nearest: '{near}'")


@frozen
class Taken:
    """Names that are taken here: plugins, and packages with the distributions that have installed them."""

    plugins: frozenset[str]
    components: frozenset[str]
    packages: Mapping[str, list[str]]


def _problem(given: str, taken: Taken) -> str:
    """What is wrong with a name; empty where nothing is."""
    if not DISTRIBUTION.fullmatch(given):
        return "is no name of a distribution: expected lower-case letters, digits and single hyphens, a letter first"
    if len(given) > LONGEST:
        return f"is {len(given)} characters long; expected at most {LONGEST}"
    names = Names(given)
    if not names.plugin[:1].isalpha():
        return f"would make a plugin '{names.plugin}', and names of components begin with a letter"
    if _installed(given):
        return f"is a distribution that is installed here, in version {version(given)}"
    if keyword.iskeyword(names.package) or keyword.issoftkeyword(names.package):
        return f"is a word of Python's own, and cannot be the package '{names.package}'"
    if names.package in sys.stdlib_module_names:
        return f"would make a package '{names.package}', which is a module of Python's own library"
    if names.package in RESERVED:
        return f"would make a package '{names.package}', and a folder of that name is something else"
    if names.package in taken.packages:
        owner = taken.packages[names.package][0]
        return f"would make a package '{names.package}', which the distribution {owner} has installed"
    if _importable(names.package):
        return f"would make a package '{names.package}', and one of that name can be imported here"
    if names.plugin in taken.plugins:
        return f"would make a plugin '{names.plugin}', and one of that name is installed"
    if names.plugin in taken.components:
        return f"would make a component '{names.plugin}', and its kind has one of that name, or cannot"
    return ""


def _installed(distribution: str) -> bool:
    try:
        version(distribution)
    except PackageNotFoundError:
        return False
    return True


def _importable(package: str) -> bool:
    spec = find_spec(package)  # of a name without dots: finds it, and imports nothing
    return spec is not None and spec.origin is not None


def _nearest(given: str, taken: Taken) -> str:
    """A name like the given one that would do."""
    bare = re.sub(r"[^a-z0-9]+", "-", given.lower()).lstrip("-").removeprefix(PREFIX).lstrip("-0123456789")
    bare = bare[: LONGEST - len(PREFIX) - 3].strip("-") or "plugin"
    candidates = [f"{PREFIX}{bare}", *(f"{PREFIX}{bare}-{number}" for number in range(2, 100))]
    return next(name for name in candidates if not _problem(name, taken))
