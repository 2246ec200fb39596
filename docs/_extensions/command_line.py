"""The command line as its page shows it: every command once, by its own name."""

from __future__ import annotations

import click

from ups_kit.cli import cli

COMMANDS = {str(command.name): command for command in cli.commands.values()}  # without second names, as `check` is one
upskit = click.Group("upskit", COMMANDS, params=cli.params, help=cli.help)
