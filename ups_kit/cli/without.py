"""The option `--no-plugin`, which every command on recipes and components has, and `upskit` itself."""

from __future__ import annotations

from collections.abc import Sequence

import click
from click.shell_completion import CompletionItem

from ..disabling import OPTION, leaving_out


def _leave_out(context: click.Context, parameter: click.Parameter, names: Sequence[str]) -> None:
    if names and not context.resilient_parsing:
        context.with_resource(leaving_out(names))


def _plugins(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    from ..installed import installed

    names = [plugin.name for plugin in installed()]
    return [CompletionItem(name) for name in dict.fromkeys(names) if name.startswith(incomplete)]


NO_PLUGIN = click.option(
    OPTION,
    multiple=True,
    metavar="NAME",
    is_eager=True,
    expose_value=False,
    callback=_leave_out,
    shell_complete=_plugins,
    help="Do without this plugin. Repeatable.",
)
