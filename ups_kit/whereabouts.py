"""Where a component that is not there may come from: a plugin that is broken, disabled, or not installed.

What a plugin offers is known when it has been asked. One that is broken or disabled is not asked: whether it is the one
is read from the text of its module, which is not run.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from pathlib import Path

from .installed import Plugin, plain_name
from .plugins import Catalog

# Components of distributions that are made beside this one, by kind: told to those who have not installed them.
KNOWN: Mapping[str, Mapping[str, Sequence[str]]] = {
    "ups-tokens": {
        "dataset": ("typed_tokens",),
        "simulator": ("galaxies",),
        "model": ("token_transformer",),
        "loss": ("next_token", "expected_value"),
        "stage": ("token_training", "token_evaluation"),
    },
    "ups-wandb": {"tracker": ("wandb",)},
}
LARGEST = 2**20  # bytes of a module that is looked through
SHOWN = 3  # plugins that are named where it may be any


def whereabouts(catalog: Catalog, kind: str, name: str) -> str:
    """Whom to ask for a component that is not there: `; …` for the end of a message, empty where nobody knows."""
    suspects = _suspects(catalog, kind, name)
    if suspects:
        return "".join(f"; {_state(plugin)}; to have this, {plugin.mend}" for plugin in suspects)
    distribution = _known(kind, name)
    if distribution is not None and all(plain_name(plugin.distribution) != distribution for plugin in catalog.plugins):
        mend = f"pip install plugins/{distribution} from a clone of ups_kit"
        return f"; it is offered by {distribution}, which is not installed: {mend}"
    broken = catalog.broken()
    untold = [plugin for plugin in catalog.plugins if plugin.state == "disabled" and _text(plugin) is None]
    lines = [f"; {_state(plugin)}; if it offers this, {plugin.mend}" for plugin in [*broken, *untold][:SHOWN]]
    more = len(broken) + len(untold) - SHOWN
    return "".join(lines) + (f"; and {more} more: `upskit list-plugins --broken`" if more > 0 else "")


def is_broken(catalog: Catalog, kind: str, name: str) -> bool:
    """Whether a component is not there because its plugin is broken."""
    suspects = _suspects(catalog, kind, name)
    return bool(suspects) and all(plugin.state == "broken" for plugin in suspects)


def _suspects(catalog: Catalog, kind: str, name: str) -> list[Plugin]:
    """The plugins that are broken or disabled and have such a component."""
    distribution = _known(kind, name)
    return [
        plugin
        for plugin in catalog.plugins
        if plugin.state != "ok"
        and (
            name in plugin.components.get(kind, ())
            or plain_name(plugin.distribution) == distribution
            or re.search(rf"[\"']{re.escape(name)}[\"']", _text(plugin) or "")
        )
    ]


def _known(kind: str, name: str) -> str | None:
    return next((distribution for distribution, offer in KNOWN.items() if name in offer.get(kind, ())), None)


def _state(plugin: Plugin) -> str:
    if plugin.state == "broken":
        return f"the plugin '{plugin.name}' ({plugin.source}) is broken: {plugin.reason}"
    return f"the plugin '{plugin.name}' is {plugin.reason}"


def _text(plugin: Plugin) -> str | None:
    """What stands in a plugin's module, which has the hook; None where there is no such file."""
    top, *below = plugin.module.split(".")
    try:
        spec = find_spec(top)  # of a name without dots: finds it, and imports nothing
        paths = [] if spec is None else _files(spec, below)
        path = next((path for path in paths if path.is_file() and path.stat().st_size <= LARGEST), None)
        return None if path is None else path.read_text(encoding="utf-8", errors="replace")
    except (ImportError, ValueError, OSError):
        return None


def _files(spec: ModuleSpec, below: Sequence[str]) -> list[Path]:
    if not below:
        return [Path(spec.origin)] if spec.origin is not None else []
    folders = [Path(folder, *below) for folder in spec.submodule_search_locations or ()]
    return [file for folder in folders for file in (folder.with_suffix(".py"), folder / "__init__.py")]
