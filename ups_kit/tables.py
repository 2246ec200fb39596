"""Plain tables: the strings in them, and config objects as tables."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_args, get_origin

import attrs

from .addresses import url_of
from .keys import MAPPINGS, alternatives, keys_of, kind_of
from .plugins import Catalog


class WrittenString(str):
    """A string of a recipe that knows the folder it was written in, which a relative path starts from."""

    folder: Path = Path()

    @classmethod
    def of(cls, text: str, folder: Path) -> WrittenString:
        written = cls(text)
        written.folder = folder
        return written


def unstructure(config: Any, catalog: Catalog) -> dict[str, Any]:
    """A config object as plain tables that `structure` reads as an equal object; None stands for a value left out.

    Raises PluginError for a component that no installed plugin offers.
    """
    return {
        name: _plain(getattr(config, _attribute(config, name)), key.type, catalog)
        for name, key in keys_of(type(config)).items()
    }


def _attribute(config: Any, key: str) -> str:
    """The name of the attribute that a key sets."""
    names = {attribute.alias or attribute.name: attribute.name for attribute in attrs.fields(type(config))}
    return str(names[key])


def _plain(value: Any, annotation: Any, catalog: Catalog) -> Any:
    if isinstance(value, tuple):
        inner = [member for member in alternatives(annotation) if get_origin(member) is tuple]
        arguments = get_args(inner[0]) if inner else ()
        return [_plain(element, arguments[0] if arguments else Any, catalog) for element in value]
    if isinstance(value, Mapping):
        inner = [member for member in alternatives(annotation) if get_origin(member) in MAPPINGS]
        arguments = get_args(inner[0]) if inner else ()
        return {key: _plain(element, arguments[1] if arguments else Any, catalog) for key, element in value.items()}
    if attrs.has(type(value)):
        kinds = [kind_of(member) for member in alternatives(annotation)]
        kind = next((kind for kind in kinds if kind is not None), None)
        head = {"use": catalog.locate(value, kind).name} if kind else {}
        return {**head, **unstructure(value, catalog)}
    return (url_of(value) or str(value)) if isinstance(value, Path) else value
