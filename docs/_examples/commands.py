"""Whether a command that is shown exists, without running it."""

from __future__ import annotations

from collections.abc import Sequence

import click

from ups_kit.cli import cli


def problems(words: Sequence[str]) -> list[str]:
    """What is wrong with a command line, `upskit` left off: verbs and options that do not exist, values that lack."""
    command, rest, wrong = _found(words)
    if command is None:
        return wrong
    try:
        command.command.make_parser(command).parse_args(rest)
    except click.UsageError as error:
        return [f"{command.command_path}: {error.format_message()}"]
    return []


def unknown(words: Sequence[str]) -> list[str]:
    """The verbs and options alone that do not exist, as where a text names an option without its value."""
    command, rest, wrong = _found(words)
    if command is None:
        return wrong
    known = {name for parameter in command.command.params for name in (*parameter.opts, *parameter.secondary_opts)}
    known |= {"--help", "-h", "--version"}
    options = [word.split("=")[0] for word in rest if word.startswith("-")]
    return [f"{command.command_path} has no option {option}" for option in options if option not in known]


def _found(words: Sequence[str]) -> tuple[click.Context | None, list[str], list[str]]:
    """The command that the verbs name, what is left of the words, and what is wrong where there is none."""
    command: click.Command = cli
    context = click.Context(cli, info_name="upskit")
    rest = list(words)
    while isinstance(command, click.Group) and rest and not rest[0].startswith("-"):
        found = command.get_command(context, rest[0])
        if found is None:
            return None, [], [f"there is no command '{rest[0]}' in {context.command_path}"]
        context = click.Context(found, info_name=rest.pop(0), parent=context)
        command = found
    return context, rest, []
