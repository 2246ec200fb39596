"""The verb that begins a plugin: `new-plugin`."""

from __future__ import annotations

from pathlib import Path

import click

from ..interfaces import KINDS


@click.command("new-plugin")
@click.argument("name")
@click.option(
    "--kind",
    "kinds",
    type=click.Choice(KINDS),
    multiple=True,
    default=("loss",),
    show_default=True,
    help="What it offers; may be given several times.",
)
@click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path(),
    help="Folder in which its folder is made; the current one where not given.",
)
def new_plugin(name: str, kinds: tuple[str, ...], out: Path) -> None:
    """Write a package that adds a component: NAME is that of its distribution, such as ups-wavelets.

    It has a small component of each kind that works, a recipe that uses it, and tests that pass.
    """
    from ..folder import OWN_NAMES
    from ..new_plugin.naming import names_of
    from ..new_plugin.rendering import offered_kinds
    from ..new_plugin.writing import write_package
    from ..plugins import discover

    catalog, offered = discover(), offered_kinds(kinds)
    taken = [component for kind in offered for component in catalog[kind]]
    own = OWN_NAMES if "stage" in offered else ()  # no stage is called so
    names = names_of(name, [plugin.name for plugin in catalog.plugins], [*taken, *own])
    written = write_package(names, kinds, out)
    offers = ", ".join(f"{kind} '{names.plugin}'" for kind in dict.fromkeys(kinds))
    click.echo(f"wrote {written.folder}: {offers}\n\nnext:\n")
    click.echo("\n".join(f"  {command}" for command in (f"cd {written.folder}", *written.commands)))
