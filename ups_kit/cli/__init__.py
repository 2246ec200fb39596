"""The command `upskit`: one module per group of verbs, which only parse and print.

Nothing but the verbs on runs and trained models imports torch or matplotlib; `validate` may load the library that reads
the header of a data file.
"""

from __future__ import annotations

import io
import os
import sys
import traceback
import warnings
from collections.abc import Sequence
from typing import NoReturn

import click

from .. import __version__
from ..console import printable
from ..errors import DEBUG, StorageError, UpsKitError
from .check_plugin import check_plugin
from .compare import compare
from .completion import completion
from .components import list_components, list_plugins, show
from .data import data
from .evaluate import evaluate
from .export import export
from .import_config import import_config
from .new_plugin import new_plugin
from .plan import plan
from .predict import predict
from .recipes import schema, validate
from .replicate import replicate
from .run import run
from .tb import tb
from .without import NO_PLUGIN

INTERRUPTED = 130


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, message="%(prog)s %(version)s")
@NO_PLUGIN
def cli() -> None:
    """Train neural surrogates of PDEs in a latent space."""


cli.add_command(run)
cli.add_command(evaluate)
cli.add_command(predict)
cli.add_command(export)
cli.add_command(compare)
cli.add_command(tb)
cli.add_command(plan)
cli.add_command(replicate)
cli.add_command(import_config)
cli.add_command(validate)
cli.add_command(validate, "check")
cli.add_command(schema)
cli.add_command(data)
cli.add_command(new_plugin)
cli.add_command(check_plugin)
cli.add_command(list_plugins)
cli.add_command(list_components)
cli.add_command(show)
cli.add_command(completion)


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run a command and exit: what a user can cause is told on standard error, without a traceback."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # closed by who called: `upskit list >&-`
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115, PTH123 - for as long as the process lives
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a terminal that cannot show a character shows its number
            stream.reconfigure(errors="backslashreplace")
    warnings.showwarning = _warn
    try:
        code = cli.main(arguments, prog_name="upskit", standalone_mode=False)
        sys.stdout.flush()
    except UpsKitError as error:
        code = _tell(error)
    except click.ClickException as error:
        error.show()
        code = error.exit_code
    except (click.Abort, KeyboardInterrupt):
        click.echo("interrupted", err=True)
        code = INTERRUPTED
    except BrokenPipeError:
        code = 1
    except OSError as error:  # what no message of its own foresaw: a full disk, a file that is in the way
        where = f"{error.filename}: " if error.filename else ""
        click.echo(f"{where}{error.strerror or error}", err=True)
        code = StorageError.exit_code
    except (Exception, SystemExit) as error:  # a fault in code: of a plugin's, where it came through one
        from ..blame import blamed
        from ..plugins import installed

        told = blamed(error, installed())
        if told is None:
            raise
        told.__cause__ = error
        code = _tell(told)
    _leave(code if isinstance(code, int) else 0)


def _warn(message: Warning | str, *where: object, **more: object) -> None:
    """A warning as a line for the person who runs, without the line of code that it came from."""
    click.echo(f"warning: {message}", err=True)


def _tell(error: UpsKitError) -> int:
    """Print what went wrong, its traceback too where it is asked for."""
    if os.environ.get(DEBUG, "") not in ("", "0"):
        traceback.print_exception(error)
    click.echo(printable(str(error)), err=True)
    return error.exit_code


def _leave(code: int) -> NoReturn:
    """Exit quietly also where nobody reads the output any more (`upskit list | head -1`), or nothing takes it."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    sys.exit(code)
