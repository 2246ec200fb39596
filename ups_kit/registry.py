"""Name -> config class, for one kind of component."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from attrs import define, field, frozen

from .errors import PluginError, did_you_mean


@frozen
class Entry:
    """One registered component, and who offers it."""

    kind: str
    name: str
    config: type
    plugin: str
    source: str = ""  # the plugin's distribution and version


@define
class Registry(Mapping[str, Entry]):
    """The components of one kind by their recipe names."""

    kind: str
    _entries: dict[str, Entry] = field(factory=dict)

    def add(self, entry: Entry) -> None:
        """Register a component; a name that is taken is an error that names both sides."""
        taken = self._entries.get(entry.name)
        if taken is not None:
            raise PluginError(
                f"two plugins offer the {self.kind} '{entry.name}': "
                f"{taken.plugin} and {entry.plugin}; disable one of them"
            )
        self._entries[entry.name] = entry

    def find(self, name: str) -> Entry:
        """The component with this name; raises PluginError with the nearest name."""
        if name in self._entries:
            return self._entries[name]
        installed = ", ".join(sorted(self._entries)) or "none"
        article = "an" if self.kind[0] in "aeiou" else "a"
        raise PluginError(
            f"no {self.kind} is called '{name}'{did_you_mean(name, self._entries)} (installed: {installed}); "
            f"{article} {self.kind} comes from a plugin: see `upskit list-plugins`"
        )

    def __getitem__(self, name: str) -> Entry:
        return self._entries[name]

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(self._entries))

    def __len__(self) -> int:
        return len(self._entries)
