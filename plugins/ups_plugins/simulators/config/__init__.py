"""Recipe keys of the simulators plugin."""

from __future__ import annotations

from .one_dimension import Burgers1DConfig

__all__ = ["Burgers1DConfig"]
