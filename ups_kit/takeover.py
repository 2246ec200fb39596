"""Finished stages of one run in another: a run from a given stage on, or of one stage alone.

What is taken over must have been trained as the recipe now says: by the same keys, on the same data. Weights are linked
or copied, and nothing in the run that they come from is changed.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from attrs import evolve, field, frozen

from .differences import ABSENT, Difference
from .errors import StorageError, UsageError, did_you_mean
from .fit.settings import FitSettings
from .folder import (
    RECORD,
    RunFolder,
    StageFolder,
    last_run_folder,
    read_json,
    read_record,
    write_bytes,
    write_json,
    write_text,
)
from .interfaces import AnyDataset, StageConfig
from .recipe import AnyRecipe
from .stage_keys import Recorded, data_record, files_record, key_of, training_stages


@frozen
class Course:
    """The way of a run through its recipe's stages: those that it takes from the run `source`, and those it leaves out.

    `asked` is how it was asked for, such as `--from diffusion`.
    """

    asked: str = ""
    source: Path | None = None
    taken: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """As the run's record holds it; empty for a plain run."""
        if not self.asked:
            return {}
        source = None if self.source is None else str(self.source)
        return {"asked": self.asked, "of": source, "taken": list(self.taken), "left_out": list(self.left_out)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Course:
        """What `to_dict` gave."""
        if not values:
            return cls()
        source = None if values["of"] is None else Path(values["of"])
        return cls(values["asked"], source, tuple(values["taken"]), tuple(values["left_out"]))


def planned(recipe: AnyRecipe, from_stage: str | None, only: str | None, of: Path | None) -> Course:
    """What is taken from where, for a run from a stage on, or of one stage alone.

    Raises UsageError where there is no such stage, no such run, or a stage before is not finished in it.
    """
    if from_stage is None and only is None:
        if of is not None:
            raise UsageError(f"--of {of}: says which run finished stages come from; add --from STAGE or --only STAGE")
        return Course()
    if from_stage is not None and only is not None:
        raise UsageError(f"--from {from_stage} and --only {only} are two ways of running; give one of them")
    option, name = ("--from", from_stage) if only is None else ("--only", only)
    names = [stage.name for stage in recipe.stages]
    if name not in names:
        raise UsageError(
            f"{option} {name}: the recipe '{recipe.run.name}' has no such stage{did_you_mean(str(name), names)} "
            f"(stages: {', '.join(names)})"
        )
    number, training = names.index(str(name)), [stage.name for stage in training_stages(recipe)]
    if only is not None and isinstance(recipe.stages[number], FitSettings) and only not in training:
        raise UsageError(f"--only {only}: its budget is 0, so that there is nothing to run; give it one")
    taken = tuple(each for each in names[:number] if each in training)
    idle = (each.name for each in recipe.stages[:number] if not isinstance(each, FitSettings))
    left_out = (*idle, *(names[number + 1 :] if only is not None else ()))
    asked = f"{option} {name}"
    if not taken:
        return Course(asked, None, (), left_out) if left_out else Course()
    source = _source(recipe, of, asked)
    _refuse_unfinished(recipe, source, taken, asked)
    return Course(asked, source, taken, left_out)


def _source(recipe: AnyRecipe, of: Path | None, asked: str) -> Path:
    if of is None:
        newest = last_run_folder(recipe.run.folder, recipe.run.name)
        if newest is None:
            home = recipe.run.folder / recipe.run.name
            raise UsageError(
                f"{asked}: there is no run in {home} to take the stages before it from; "
                "run the recipe without it, or name a run by --of"
            )
        return newest.path
    if not (of / RECORD).is_file():
        what = "is not there" if not of.exists() else "is no run folder"
        raise UsageError(f"--of {of}: {what}; expected the folder of a run, such as runs/{recipe.run.name}/1")
    return of


def _refuse_unfinished(recipe: AnyRecipe, source: Path, taken: Sequence[str], asked: str) -> None:
    missing = [name for name in taken if not (source / name / "done.json").is_file()]
    if not missing:
        return
    first, begun = missing[0], (source / missing[0]).is_dir()
    lines = [f"{asked}: takes over the stages before it, and '{first}' {'is not finished' if begun else 'was not run'}"]
    lines[0] += f" in {source}"
    if begun:
        lines.append(f"  `upskit run {source} --resume` goes on with it")
    other = _run_that_has(taken, source)
    if other is not None:
        lines.append(f"  --of {other} takes them from a run in which they are")
    earlier = taken[: taken.index(first)]
    anew = f"--from {first}" if earlier else "without it, the recipe"
    lines.append(f"  {anew} runs '{first}' and all after it")
    raise UsageError("\n".join(lines))


def _run_that_has(taken: Sequence[str], source: Path) -> Path | None:
    """The newest other run of the same name in which all these stages are finished."""
    siblings = [entry for entry in source.absolute().parent.iterdir() if entry.name.isdigit()]
    for entry in sorted(siblings, key=lambda entry: int(entry.name), reverse=True):
        path = source.parent / entry.name
        if path != source and all((path / name / "done.json").is_file() for name in taken):
            return path
    return None


# ---------------------------------------------------------------------------------------------------------------------
# What was finished, and whether it is what the recipe says
# ---------------------------------------------------------------------------------------------------------------------
@frozen
class Finished:
    """A stage of another run: what it returned, and its weights, whose hash is verified."""

    stage: StageConfig
    room: StageFolder
    done: Mapping[str, Any]
    weights: bytes = field(repr=False)

    @property
    def content(self) -> Mapping[str, Any] | None:
        """All that its weights depend on; None where the version that trained it did not write that down."""
        found: Mapping[str, Any] | None = self.done.get("of")
        return found


def finished_stages(recipe: AnyRecipe, course: Course) -> list[Finished]:
    """The stages that a run takes over. Raises StorageError where one is damaged, with what to do."""
    if course.source is None:
        return []
    found, folder = [], RunFolder(course.source)
    for stage in training_stages(recipe):
        if stage.name not in course.taken:
            continue
        room = StageFolder(course.source / stage.name, folder)
        try:
            done, weights = read_record(room.done), room.weights.read_bytes()
        except OSError as error:
            reason = f"{room.weights}: cannot be read: {error.strerror}"
            raise StorageError(f"{reason}; {_instead(stage, course)}") from error
        odd = [name for name in ("of", "files", "versions") if not isinstance(done.get(name, {}), Mapping)]
        if odd:
            raise StorageError(f"{room.done}: {odd[0]}: expected a table; {_instead(stage, course)}")
        if hashlib.sha256(weights).hexdigest() != done.get("weights_sha256"):
            raise StorageError(f"{room.weights}: its content is not what was written; {_instead(stage, course)}")
        found.append(Finished(stage, room, done, weights))
    return found


def _instead(stage: StageConfig, course: Course) -> str:
    return f"restore it, take another run by --of, or train the stage anew: --from {stage.name}"


def current(recorded: Recorded, stages: Iterable[Finished], dataset: AnyDataset | None) -> list[Finished]:
    """The stages with their keys, which are those of the recipe as it is now.

    Without a dataset, what the data hold is not looked at. Raises UsageError with everything that has changed.
    """
    keyed: list[Finished] = []
    keys: dict[str, str] = {}
    stale: dict[str, list[Difference]] = {}
    for finished in stages:
        name, old = finished.stage.name, finished.content or _migrated(recorded, finished, keys)
        new = recorded.content(finished.stage, keys, _data(dataset, old))
        known = {(found.path, repr(found.after)) for each in stale.values() for found in each}
        changes = recorded.changes(old, new if dataset is not None else {**new, "data": old["data"]})
        fresh = [change for change in changes if (change.path, repr(change.after)) not in known]
        if fresh:
            stale[name] = fresh
        done = {"key": key_of(old), "of": old, **finished.done}
        keys[name] = str(done["key"])
        keyed.append(evolve(finished, done=done))
    if stale:
        raise UsageError(_staleness(keyed[0].room.run.path, stale))
    return keyed


def _data(dataset: AnyDataset | None, old: Mapping[str, Any]) -> Mapping[str, Any]:
    """What the data hold, as far as the record of a stage tells what it was trained on."""
    if dataset is None:
        return {}
    if set(old["data"]) <= {"splits"}:  # of a version that wrote down no more
        return dict.fromkeys(old["data"], dataset.splits.digest)
    return data_record(dataset)


def _migrated(recorded: Recorded, finished: Finished, before: Mapping[str, str]) -> Mapping[str, Any]:
    """What the weights of a stage depend on, of a version that did not write it down: from the papers of its run."""
    folder = finished.room.run
    values = read_record(folder.path / RECORD).get("values", {})
    data = {}
    if (folder.bundle / "bundle.json").is_file():
        data["splits"] = read_json(folder.bundle / "bundle.json").get("splits", {}).get("digest")
    return recorded.read(values).content(finished.stage, before, data)


def _staleness(source: Path, stale: Mapping[str, Sequence[Difference]]) -> str:
    first, *others = stale
    told = [f"  {line}" for name, changes in stale.items() for line in _told(name, changes)]
    which = f"stage '{first}' was" if not others else f"stages {', '.join(stale)} were"
    return "\n".join(
        [
            f"{source}: its {which} not trained as this recipe says, and cannot be taken over:",
            *told,
            f"--from {first} trains {'it' if not others else 'them'} anew, with all after; or undo the changes",
        ]
    )


def _told(name: str, changes: Sequence[Difference]) -> Iterator[str]:
    for change in changes:
        head, _, rest = change.path.partition(".")
        if head == "before":
            gone, new = change.after is ABSENT, change.before is ABSENT
            how = "trains no more" if gone else "did not train before it" if new else "was another one there"
            yield f"stages.{name}: was trained after other stages: '{rest}' {how}"
        elif head == "changed":
            found = change.before if isinstance(change.before, Mapping) else {rest: change.before}
            for path, (before, after) in found.items():
                yield f"{path}: changed from {before!r} to {after!r} while stage '{name}' was trained"
        elif head == "data":
            if rest.endswith("splits") or not any(each.path.endswith(".splits") for each in changes):
                what = "other trajectories, or another split" if rest.endswith("splits") else f"other {rest}"
                yield f"dataset: the files hold other data than in the run ({what})"
        else:
            yield change.told()


# ---------------------------------------------------------------------------------------------------------------------
# Taking over
# ---------------------------------------------------------------------------------------------------------------------
def take(stages: Sequence[Finished], folder: RunFolder) -> None:
    """Bring finished stages into a run folder, as if they had been run in it. What is there already stays."""
    missing = [each for each in stages if not (folder.path / each.stage.name / "done.json").exists()]
    if not missing:
        return
    _take_metrics(stages, folder)
    for finished in missing:
        room = folder.stage(finished.stage.name)
        _link(finished.room.weights, room.weights, finished.weights)
        write_json(room.done, {**finished.done, "taken_from": str(finished.room.run.path)})


def _link(source: Path, target: Path, content: bytes) -> None:
    """The same file under another name, which no run ever writes into; a copy where that cannot be."""
    target.unlink(missing_ok=True)
    try:
        os.link(source, target)
    except OSError:
        write_bytes(target, content)


def _take_metrics(stages: Sequence[Finished], folder: RunFolder) -> None:
    """The lines of `metrics.jsonl` that are of these stages, for the report's curves."""
    source, names = stages[0].room.run.metrics, {each.stage.name for each in stages}
    if folder.metrics.exists() or not source.is_file():
        return
    kept = []
    for line in source.read_text(errors="replace").splitlines():
        try:
            stage = json.loads(line)["stage"]
        except (ValueError, KeyError, TypeError):
            continue  # a process died within this line
        if stage in names:
            kept.append(line + "\n")
    write_text(folder.metrics, "".join(kept))


def notices(stages: Iterable[Finished], dataset: AnyDataset, now: Mapping[str, str]) -> Iterator[str]:
    """What is worth saying of stages that are taken over: other versions, and files with another date or content."""
    for finished in stages:
        where = f"{finished.room.run.path}: its stage '{finished.stage.name}'"
        then = finished.done.get("versions", {})
        changed = [f"{name} {then.get(name)} -> {now[name]}" for name in now if then and then.get(name) != now[name]]
        if changed:
            yield f"{where} was trained by other versions: {', '.join(changed)}"
        files = finished.done.get("files", {})
        if files and files != files_record(dataset):
            yield (
                f"{where} was trained on data files of other dates or content; "
                "their splits and statistics are the same, so it is taken over"
            )
