"""One recipe with several seeds: every seed an ordinary run in a folder of its own, and what they have in common.

Seeds that are finished already are taken as they are, those that were stopped are gone on with, and one that fails does
not stop the others. Every run is a process of its own, which is what `upskit run` is. Needs no torch.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any

from attrs import define, field, frozen

from .comparing.comparison import Table
from .comparing.groups import Group, Spread, number, refuse_other_definitions
from .comparing.runs import FINISHED, FinishedRun, read_run
from .console import Console, duration
from .differences import PLACES, default_paths, differences
from .errors import BELOW_FLOOR_EXIT_CODE, Preempted, StorageError, UpsKitError, UsageError
from .fit.interrupts import sigterm_preempts
from .fit.settings import FitSettings
from .folder import RECORD, new_run_folder, read_json, write_json, write_text
from .tables import unstructure

if TYPE_CHECKING:
    from .reading import ReadRecipe

REPLICATES = "replicates"  # beside a name's numbered run folders
CONFIDENCE = 0.95
LAST_LINES = 6  # of a failed run's log that are shown
SPLITS = "run.seed draws weights, batches and splits: an interval is also one of the trajectories that are scored"


@frozen
class Seed:
    """One seed: the run folder where it stands, and how far it is."""

    seed: int
    folder: Path | None
    state: str  # "new", "to be resumed", "taken", "finished", "below_floor" or "failed"
    exit_code: int = 0

    @property
    def is_done(self) -> bool:
        return self.state in ("taken", *FINISHED)


@frozen(eq=False)
class Replicates:
    """What the seeds have come to."""

    folder: Path
    recipe: str
    seeds: tuple[Seed, ...]
    group: Group | None  # of the runs that have a score card

    @property
    def exit_code(self) -> int:
        """That of the first seed that failed; 7 where one is below its floors; else 0."""
        failed = [seed.exit_code or 1 for seed in self.seeds if not seed.is_done]
        below = any(seed.exit_code == BELOW_FLOOR_EXIT_CODE for seed in self.seeds)
        return failed[0] if failed else BELOW_FLOOR_EXIT_CODE if below else 0

    @property
    def table(self) -> Table | None:
        """Mean and interval of every number of the score card; None where no seed has any."""
        if self.group is None:
            return None
        rows = [
            (f"{row.replace('_', ' ')}, {column}", *_cells(self.group.of(row, column)))
            for row, column in _numbers(self.group.runs)
        ]
        title = f"{self.recipe}: {len(self.group.runs)} seeds"
        return Table(title, ("forecast", "mean", "95 % interval", "least", "most"), tuple(rows))

    def summary(self) -> dict[str, Any]:
        """As JSON can hold it."""
        runs = self.group.runs if self.group is not None else ()
        numbers: dict[str, dict[str, Any]] = {}
        for row, column in _numbers(runs):
            assert self.group is not None
            spread = self.group.of(row, column)
            low, high = interval(spread) or (None, None)
            values = {str(run.seed): value for run, value in zip(runs, spread.values, strict=True)}
            numbers.setdefault(row, {})[column] = {"mean": spread.mean, "low": low, "high": high, "values": values}
        return {
            "recipe": self.recipe,
            "confidence": CONFIDENCE,
            "note": SPLITS,
            "seeds": {
                str(seed.seed): {
                    "folder": str(seed.folder) if seed.folder is not None else None,
                    "state": seed.state,
                    "exit_code": seed.exit_code,
                }
                for seed in self.seeds
            },
            "numbers": numbers,
        }

    def markdown(self) -> str:
        """The same as a page."""
        seeds = Table(
            "Seeds",
            ("seed", "run", "state"),
            tuple((str(seed.seed), str(seed.folder or "-"), seed.state) for seed in self.seeds),
        )
        tables = [table.markdown() for table in (self.table, seeds) if table is not None]
        return "\n\n".join([f"# {self.recipe}, replicated", *tables, f"Intervals are Student's. {SPLITS}."]) + "\n"


def replicate(read: ReadRecipe, settings: Sequence[str], seeds: Sequence[int], jobs: int = 1) -> Replicates:
    """Run a recipe with every seed, `jobs` of them at a time, and write what they have in common.

    `settings` are those of the command line that `read` was read with. Raises UsageError where nothing in the recipe
    evaluates, Preempted where this is stopped: what is finished is kept.
    """
    recipe = read.recipe
    if all(isinstance(stage, FitSettings) for stage in recipe.stages):
        raise UsageError(f"{read.source}: no stage evaluates, so there are no numbers to average")
    if any(setting.partition("=")[0].strip() == "run.seed" for setting in settings):
        raise UsageError("--set run.seed: the seeds of a replication are those of --seeds; leave one of the two out")
    folder = new_run_folder(recipe.run.folder / recipe.run.name, REPLICATES)
    work = _Work(read, tuple(settings), jobs, folder.path)
    try:
        with sigterm_preempts(), ThreadPoolExecutor(jobs) as pool:
            futures = [pool.submit(work.do, seed) for seed in seeds]
            try:
                while not all(future.done() for future in futures):
                    time.sleep(0.05)  # signals are handled here
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                work.stop()
                raise
    except Preempted as error:
        raise Preempted("stopped by SIGTERM; what is finished is kept, and the same command goes on") from error
    done = tuple(future.result() for future in futures)
    runs = tuple(run for run in map(_score_card, done) if run is not None)
    found = Replicates(folder.path, recipe.run.name, done, Group("A", runs) if runs else None)
    if found.group is not None:
        refuse_other_definitions([found.group])
    write_json(folder.path / "replicate.json", found.summary())
    write_text(folder.path / "replicate.md", found.markdown())
    return found


# ---------------------------------------------------------------------------------------------------------------------
# The runs
# ---------------------------------------------------------------------------------------------------------------------
@define(eq=False)
class _Work:
    """The processes of a replication. Several threads ask it for seeds."""

    read: ReadRecipe
    settings: tuple[str, ...]
    jobs: int
    logs: Path
    _lock: Lock = field(factory=Lock, init=False)
    _running: list[subprocess.Popen[bytes]] = field(factory=list, init=False)
    _stopping: bool = field(default=False, init=False)

    def do(self, seed: int) -> Seed:
        """Take, go on with or begin the run of a seed."""
        found = self.find(seed)
        if found.state == "taken":
            _tell(f"seed {seed}: finished before, {found.folder}")
            return found
        _tell(f"seed {seed}: " + (f"goes on in {found.folder}" if found.folder is not None else "begins"))
        started, log = time.monotonic(), self.logs / f"seed_{seed}.log"
        code = self._run(self._command(found), log)
        done = self.find(seed)
        if code in (0, BELOW_FLOOR_EXIT_CODE) and done.state == "taken":
            _tell(f"seed {seed}: finished after {duration(time.monotonic() - started)}, {done.folder}")
            return Seed(seed, done.folder, "below_floor" if code else "finished", code)
        _tell(f"seed {seed}: failed with exit code {code}{_last_lines(log)}")
        return Seed(seed, done.folder, "failed", code or 1)

    def find(self, seed: int) -> Seed:
        """The run of a seed that is finished, else the newest that was begun, else none."""
        own = self.read.recipe.run
        values = unstructure(self.read.recipe, self.read.catalog)
        wanted = {**values, "run": {**values["run"], "seed": seed}}
        defaults = default_paths(self.read.recipe)
        begun: Path | None = None
        for path in _numbered(own.folder / own.name):
            if not _is_run_of(path, wanted, defaults):
                continue
            status = _status(path)
            if status in FINISHED:
                return Seed(seed, path, "taken", BELOW_FLOOR_EXIT_CODE if status == "below_floor" else 0)
            begun = begun or path
        return Seed(seed, begun, "new" if begun is None else "to be resumed")

    def stop(self) -> None:
        """Ask every run to save its state and end, and wait for that."""
        with self._lock:
            self._stopping = True
            running = list(self._running)
        for process in running:
            process.terminate()
        for process in running:
            process.wait()

    def _command(self, seed: Seed) -> list[str]:
        start = [sys.executable, "-m", "ups_kit", "run"]
        if seed.folder is not None:
            return [*start, str(seed.folder), "--resume"]
        settings = [*self.settings, f"run.seed={seed.seed}", *(["run.threads=1"] if self.jobs > 1 else [])]
        return [*start, self.read.source, *(word for setting in settings for word in ("--set", setting))]

    def _run(self, command: Sequence[str], log: Path) -> int:
        """Its exit code. One run at a time shows what it does; of several each has a log."""
        environment = {**os.environ, **({"OMP_NUM_THREADS": "1"} if self.jobs > 1 else {})}
        with log.open("wb") as file:
            output = file if self.jobs > 1 else sys.stderr.fileno() if _has_number(sys.stderr) else file
            with self._lock:
                if self._stopping:
                    return Preempted.exit_code
                process = subprocess.Popen(command, stdout=output, stderr=output, env=environment)
                self._running.append(process)
            code = process.wait()
        with self._lock:
            self._running.remove(process)
        if not log.stat().st_size:
            log.unlink()
        return code if code >= 0 else 128 - code  # as a shell says that a signal ended it


def _numbered(home: Path) -> list[Path]:
    """The run folders of a name, newest first."""
    if not home.is_dir():
        return []
    return sorted((entry for entry in home.iterdir() if entry.name.isdigit()), key=lambda entry: -int(entry.name))


def _is_run_of(path: Path, wanted: Mapping[str, Any], defaults: frozenset[str]) -> bool:
    """Whether a run is whole, of this recipe alone, and was not changed on the way."""
    try:
        record = read_json(path / RECORD)
        values = record["values"]
        same = all(found.is_below(PLACES) for found in differences(values, wanted, defaults))
    except (StorageError, KeyError, TypeError, AttributeError):
        return False  # another run's papers are damaged: no matter here
    return same and not record.get("course") and not record.get("changes")


def _status(path: Path) -> str:
    status = path / "STATUS"
    return status.read_text(errors="replace").strip() if status.is_file() else ""


def _has_number(stream: Any) -> bool:
    """Whether a process can write to a stream, as it cannot where the stream is a test's."""
    try:
        return int(stream.fileno()) >= 0
    except (OSError, ValueError, AttributeError):
        return False


def _last_lines(log: Path) -> str:
    if not log.is_file():
        return ""
    lines = log.read_text(errors="replace").rstrip().splitlines()[-LAST_LINES:]
    return "".join(["; the end of ", str(log), ":", *(f"\n  {line}" for line in lines)])


def _tell(text: str) -> None:
    Console().line(text)


# ---------------------------------------------------------------------------------------------------------------------
# The numbers
# ---------------------------------------------------------------------------------------------------------------------
def interval(spread: Spread) -> tuple[float, float] | None:
    """Student's 95 % interval of the mean; None of fewer than two numbers."""
    from scipy.special import stdtrit

    if spread.mean is None or spread.deviation is None:
        return None
    count = len(spread.values)
    half = float(stdtrit(count - 1, 0.5 + CONFIDENCE / 2)) * spread.deviation / count**0.5
    return spread.mean - half, spread.mean + half


def _score_card(seed: Seed) -> FinishedRun | None:
    """The run of a seed that is done, as its folder tells it."""
    if not seed.is_done or seed.folder is None:
        return None
    try:
        return read_run(seed.folder)
    except UpsKitError as error:
        _tell(f"seed {seed.seed}: its numbers are left out: {error}")
        return None


def _numbers(runs: Sequence[FinishedRun]) -> Iterator[tuple[str, str]]:
    """All rows and columns of the runs' score cards."""
    seen = {(row, column): None for run in runs for row, columns in run.rows.items() for column in columns}
    yield from seen


def _cells(spread: Spread) -> tuple[str, str, str, str]:
    """Mean, interval, least and most."""
    known = [value for value in spread.values if value is not None]
    if spread.mean is None:
        return "-", "-", "-", "-"
    bounds = interval(spread)
    shown = "-" if bounds is None else f"{number(bounds[0])} to {number(bounds[1])}"
    return number(spread.mean), shown, number(min(known)), number(max(known))
