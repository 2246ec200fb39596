"""From `upskit new-plugin` to green tests, in seconds, for every kind: each in a fresh environment, as a stranger has.

    python benchmarks/new_plugin.py [--kind loss] [--check]

The environments see the libraries of this one, ups_kit among them; making them is not counted. `written` is
`upskit new-plugin`, `installed` is `pip install -e .` without a network, `tested` is `pytest` with all that it imports:
wall seconds, and `CPU` the processor's in all of them.
"""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import sysconfig
import tempfile
import time
import venv
from collections.abc import Sequence
from pathlib import Path

import click

from ups_kit.interfaces import KINDS

OFFLINE = ("--no-deps", "--no-index", "--no-build-isolation", "--disable-pip-version-check", "-q")


@click.command()
@click.option("--kind", "kinds", type=click.Choice(KINDS), multiple=True, default=KINDS, help="Only these kinds.")
@click.option("--check", is_flag=True, help="Run `upskit check-plugin` on each, too.")
def main(kinds: Sequence[str], check: bool) -> None:
    """Print a row for every kind."""
    click.echo(f"{'kind':12}{'written':>9}{'installed':>11}{'tested':>8}{'in all':>8}{'CPU':>6}{'checked':>9}  tests")
    with tempfile.TemporaryDirectory(prefix="ups_kit_strangers_") as folder:
        for kind in kinds:
            row(Path(folder), kind, check)


def row(folder: Path, kind: str, check: bool) -> None:
    """Do what a stranger does, and print how long it took; ends the script where something fails."""
    name, python = f"ups-my-{kind}", environment(folder / f"environment-{kind}")
    home = folder / name
    before = processor_seconds()
    written, _ = timed([python, "-m", "ups_kit", "new-plugin", name, "--kind", kind], folder)
    installed, _ = timed([sys.executable, "-m", "pip", "--python", python, "install", *OFFLINE, "-e", "."], home)
    tested, told = timed([python, "-m", "pytest", "-q"], home)
    spent = processor_seconds() - before
    checked = timed([python, "-m", "ups_kit", "check-plugin", name], home)[0] if check else 0.0
    times = f"{written:9.1f}{installed:11.1f}{tested:8.1f}{written + installed + tested:8.1f}{spent:6.1f}{checked:9.1f}"
    click.echo(f"{kind:12}{times}  {told.strip().splitlines()[-1]}")


def environment(folder: Path) -> str:
    """The Python of a fresh environment that sees the libraries of this one."""
    venv.create(folder, with_pip=False)
    python = folder / "bin/python"
    inside = "import sysconfig; print(sysconfig.get_paths()['purelib'])"
    site = subprocess.run([python, "-c", inside], capture_output=True, text=True, check=True).stdout.strip()
    own = sysconfig.get_paths()["purelib"]
    (Path(site) / "libraries.pth").write_text(f"import site; site.addsitedir({own!r})\n")
    return str(python)


def processor_seconds() -> float:
    """Of all processes that were started and have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def timed(command: Sequence[str], folder: Path) -> tuple[float, str]:
    """Seconds, and what was printed."""
    settings = {**os.environ, "OMP_NUM_THREADS": "1"}
    started = time.perf_counter()
    done = subprocess.run(command, cwd=folder, env=settings, capture_output=True, text=True, check=False)
    if done.returncode:
        raise click.ClickException(f"{' '.join(command)} in {folder.name}:\n{done.stdout}\n{done.stderr}")
    return time.perf_counter() - started, done.stdout


if __name__ == "__main__":
    main()
