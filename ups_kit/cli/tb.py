"""`upskit tb`: TensorBoard on a run, or on all runs of a name."""

from __future__ import annotations

import ipaddress
import os
import sys
from pathlib import Path

import click

from ..errors import UsageError
from ..folder import RECORD, what_is_at

LOOPBACK = "127.0.0.1"


@click.command()
@click.argument("run", type=click.Path(path_type=Path))
@click.option("--host", default=LOOPBACK, show_default=True, help="The address to listen at.")
@click.option("--port", type=click.IntRange(0, 65535), default=6006, show_default=True, help="0 takes a free one.")
@click.option(
    "--i-know-it-is-unauthenticated",
    "known",
    is_flag=True,
    help="Let other machines look: TensorBoard has no password.",
)
def tb(run: Path, host: str, port: int, known: bool) -> None:
    """Start TensorBoard on RUN: a run folder, or a folder of several, such as runs/NAME.

    It listens to this machine alone. From another one, forward the port: ssh -L 6006:127.0.0.1:6006 HOST.
    """
    if not known and not _is_loopback(host):
        raise UsageError(
            f"--host {host}: TensorBoard asks nobody for a password, and would show the run to whoever reaches this "
            f"address; leave --host out and forward the port (ssh -L {port}:{LOOPBACK}:{port} …), or add "
            "--i-know-it-is-unauthenticated"
        )
    command = [sys.executable, "-m", "tensorboard.main", "--logdir", str(_folder(run)), "--host", host]
    sys.stdout.flush()
    os.execv(command[0], [*command, "--port", str(port)])  # in this process's place: Ctrl-C and signals are its own


def _folder(run: Path) -> Path:
    """What TensorBoard is to read. Raises UsageError where there is nothing to be seen."""
    own = run / "tensorboard"
    if own.is_dir():
        return own
    if run.is_dir() and any(run.glob("*/tensorboard")):
        return run
    if (run / RECORD).is_file():
        raise UsageError(f"{run}: has no TensorBoard files; [[trackers]] with use = 'tensorboard' writes them")
    raise UsageError(f"{run}: {what_is_at(run, 'give a run folder, such as runs/NAME/1')}")


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:  # a name, which may be that of any address
        return False
