"""Query samplers: at which points a decoded field is compared with the truth."""

from __future__ import annotations

from ups_kit import Components, hookimpl

from .config import ImportanceConfig, StratifiedConfig, UniformConfig


@hookimpl
def ups_kit_components() -> Components:
    """The samplers of docs/method.md §3."""
    return {"sampler": {"uniform": UniformConfig, "stratified": StratifiedConfig, "importance": ImportanceConfig}}
