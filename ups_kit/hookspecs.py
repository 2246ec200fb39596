"""The one hook of a plugin: it returns what it offers, and is told nothing."""

from __future__ import annotations

import pluggy

from .interfaces import Components

PROJECT = "ups_kit"
API = 1  # version of the hook, of the kinds and of their protocols, as plugins are written for it

hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)


@hookspec
def ups_kit_components() -> Components:  # type: ignore[empty-body]
    """Return `{kind: {name: config class}}`, for example `{"encoder": {"grid": GridEncoderConfig}}`."""
