"""Whether a command that is shown exists, without running it."""

from __future__ import annotations

from collections.abc import Sequence

import click

from ups_kit.cli import cli


def problems(words: Sequence[str]) -> list[str]:
    """What is wrong with the verbs and options of a command line, `upskit` left off: nothing where all are known."""
    command: click.Command = cli
    context = click.Context(cli, info_name="upskit")
    rest = list(words)
    while isinstance(command, click.Group) and rest and not rest[0].startswith("-"):
        found = command.get_command(context, rest[0])
        if found is None:
            return [f"there is no command '{rest[0]}' in {context.command_path}"]
        context = click.Context(found, info_name=rest.pop(0), parent=context)
        command = found
    try:
        command.make_parser(context).parse_args(rest)
    except click.UsageError as error:
        return [f"{context.command_path}: {error.format_message()}"]
    return []
