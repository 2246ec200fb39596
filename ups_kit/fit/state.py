"""Checkpoints of a stage: written whole or not at all, and never loaded when damaged.

    checkpoints/
        step_00001000/  state.pt  manifest.json
        best_00000750/  state.pt  manifest.json

`state.pt` holds plain tensors and numbers and is read with `weights_only`; the manifest holds the size and SHA-256 of
every file, and of itself. A checkpoint is written beside, synced, renamed and read back before an older one goes.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import shutil
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from attrs import frozen

from .. import __version__
from ..errors import PluginError, StorageError

FORMAT = 1
STATE_FILE = "state.pt"
MANIFEST_FILE = "manifest.json"
PLAIN = (bool, int, float, str, type(None), torch.Tensor)
SHOWN = 5  # names that do not fit, in a message
NAME = re.compile(r"(step|best)_(\d{8,})")


@frozen
class Checkpoint:
    """A checkpoint that was read and found whole."""

    step: int
    state: dict[str, Any]


class Foreign(Exception):  # noqa: N818 - as Damaged
    """Why a whole checkpoint cannot be read by this version."""


class Damaged(Exception):  # noqa: N818 - never leaves this module's callers: becomes a warning or a StorageError
    """Why a folder is not a checkpoint that can be trusted."""


class CheckpointFolder:
    """The checkpoints of one stage; one process writes at a time (the run folder is locked)."""

    def __init__(self, path: Path, keep: int) -> None:
        self._path = path
        self._keep = keep
        try:
            path.mkdir(parents=True, exist_ok=True)
            for leftover in path.glob(".*"):
                shutil.rmtree(leftover, ignore_errors=True)
        except OSError as error:
            raise StorageError(f"{path}: checkpoints cannot be kept here: {error.strerror}") from error

    def save(self, step: int, state: Mapping[str, Any], best: int | None) -> None:
        """Write the state after `step` steps; `best` is the step of the best checkpoint that it counts on.

        Afterwards the newest `keep` checkpoints remain, and the best ones that these count on.
        Raises StorageError (nothing that stood is damaged), PluginError for a state that could not be read back.
        """
        self._write(f"step_{step:08}", state, {"step": step, "best": best})
        self._forget_old()

    def save_best(self, step: int, state: Mapping[str, Any]) -> Path:
        """Write the weights that did best on validation; they stay until a checkpoint counts on others."""
        self._write(f"best_{step:08}", state, {"step": step, "best": None})
        return self._path / f"best_{step:08}"

    def steps(self) -> list[int]:
        """The steps of all checkpoints, whole or not, newest first."""
        return sorted((step for kind, step in self._entries() if kind == "step"), reverse=True)

    def newest(self) -> Checkpoint | None:
        """The newest checkpoint that is whole, or None where there is no checkpoint at all.

        Warns for each damaged one that is passed over. Raises StorageError where all are damaged, or where one is whole
        and of another version's format: a run never starts from scratch, or from further back, silently.
        """
        reasons = []
        for step in self.steps():
            folder = self._path / f"step_{step:08}"
            try:
                state = read_checkpoint(folder)
            except Damaged as damage:
                reasons.append(f"{folder.name}: {damage}")
                continue
            except Foreign as error:
                raise StorageError(f"{folder}: {error}") from error
            for reason in reasons:
                warnings.warn(
                    f"{self._path}: damaged checkpoint passed over; going on from step {step}. {reason}", stacklevel=2
                )
            return Checkpoint(step, state)
        if reasons:
            tried = "\n".join(f"  {reason}" for reason in reasons)
            raise StorageError(
                f"{self._path}: no checkpoint is whole ({len(reasons)} tried); start a new run, or restore one\n{tried}"
            )
        return None

    def best(self, step: int) -> dict[str, Any]:
        """The weights that did best on validation; raises StorageError where they are damaged."""
        folder = self._path / f"best_{step:08}"
        try:
            return read_checkpoint(folder)
        except (Damaged, Foreign) as reason:
            raise StorageError(f"{folder}: the best weights cannot be trusted: {reason}") from reason

    def check_space(self, bytes_each: int) -> None:
        """Warn before a long training that the disk will not hold its checkpoints; stop where it holds not one."""
        free = shutil.disk_usage(self._path).free
        wanted = bytes_each * (self._keep + 2)
        if free < bytes_each:
            raise StorageError(f"{self._path}: a checkpoint takes {_size(bytes_each)}, and only {_size(free)} are free")
        if free < wanted:
            warnings.warn(
                f"{self._path}: {self._keep} checkpoints and the best take {_size(wanted)}, "
                f"and only {_size(free)} are free",
                stacklevel=2,
            )

    def _entries(self) -> list[tuple[str, int]]:
        matches = (NAME.fullmatch(entry.name) for entry in self._path.iterdir())
        return [(match[1], int(match[2])) for match in matches if match]

    def _write(self, name: str, state: Mapping[str, Any], facts: Mapping[str, Any]) -> None:
        check_state_tree(state)
        target, aside = self._path / name, self._path / f".{name}"
        if target.exists() and not _damage(target):
            return  # the same step of the same run
        buffer = io.BytesIO()
        torch.save(dict(state), buffer)
        try:
            self._write_whole(target, aside, buffer.getbuffer(), facts)
        except OSError as error:
            shutil.rmtree(aside, ignore_errors=True)
            free = shutil.disk_usage(self._path).free
            raise StorageError(
                f"{target}: could not be written: {error.strerror or error}; it takes {_size(buffer.tell())}, "
                f"{_size(free)} are free; older checkpoints are intact, go on with --resume"
            ) from error
        reason = _damage(target)
        if reason:
            raise StorageError(f"{target}: was written, but does not read back: {reason}; older checkpoints are intact")

    def _write_whole(self, target: Path, aside: Path, data: memoryview, facts: Mapping[str, Any]) -> None:
        shutil.rmtree(aside, ignore_errors=True)
        os.mkdir(aside)  # noqa: PTH102 - all steps that must fail safely go through `os`
        _write_file(aside / STATE_FILE, data)
        manifest = {
            "format": FORMAT,
            **facts,
            "files": {STATE_FILE: {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}},
        }
        manifest["check"] = _check(manifest)
        _write_file(aside / MANIFEST_FILE, memoryview(json.dumps(manifest, indent=1).encode()))
        _sync(aside)
        if target.exists():  # damaged: a whole one is never replaced
            _remove(target)
        os.rename(aside, target)  # noqa: PTH104
        _sync(self._path)

    def _forget_old(self) -> None:
        """Delete what no longer counts. A failure here costs disk space and nothing else."""
        kept = self.steps()[: self._keep]
        counted_on = {self._counts_on(step) for step in kept}
        for kind, step in self._entries():
            if step in (kept if kind == "step" else counted_on):
                continue
            folder = self._path / f"{kind}_{step:08}"
            try:
                _remove(folder)
            except OSError as error:
                warnings.warn(f"{folder}: an old checkpoint could not be deleted: {error.strerror}", stacklevel=3)

    def _counts_on(self, step: int) -> int | None:
        """The step of the best weights that a checkpoint counts on."""
        try:
            best: int | None = read_manifest(self._path / f"step_{step:08}")["best"]
        except (Damaged, Foreign):
            return None
        return best


def read_checkpoint(folder: Path) -> dict[str, Any]:
    """The state in a checkpoint folder, every byte of it verified; raises Damaged, Foreign."""
    manifest = read_manifest(folder)
    data = {name: _verified(folder, name, facts) for name, facts in manifest["files"].items()}
    try:
        state: dict[str, Any] = torch.load(io.BytesIO(data[STATE_FILE]), map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many kinds; whatever it is, this checkpoint cannot be used
        raise Damaged(f"{STATE_FILE}: {str(error).splitlines()[0]}") from error
    return state


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of a checkpoint folder, checked for form; raises Damaged, Foreign."""
    try:
        manifest = json.loads((folder / MANIFEST_FILE).read_bytes())
        files = manifest["files"]
        names = set(files)
        claimed = manifest.pop("check")
        whole = claimed == _check(manifest) and manifest["step"] == int(folder.name.split("_")[1])
        known = manifest["format"] == FORMAT
    except FileNotFoundError as error:
        raise Damaged(f"{MANIFEST_FILE} is missing") from error
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise Damaged(f"{MANIFEST_FILE} is malformed: {error}") from error
    for name in names:
        if name in ("", ".", "..") or Path(name).name != name or "\\" in name:
            raise Damaged(f"{MANIFEST_FILE}: the path '{name}' leaves the checkpoint")
    if not whole:
        raise Damaged(f"{MANIFEST_FILE} does not match its own checksum")
    if not known:
        raise Foreign(
            f"checkpoint format {manifest['format']}; this is ups_kit {__version__}, which reads format {FORMAT}: "
            "install the version that wrote it, or start a new run"
        )
    if STATE_FILE not in names:
        raise Damaged(f"{MANIFEST_FILE} does not list {STATE_FILE}")
    return dict(manifest)


def check_state_tree(value: Any, path: str = "") -> None:
    """Refuse what could be saved but not loaded safely; raises PluginError that names the key.

    Allowed are None, bool, int, float, str, tensors, and lists, tuples and dicts of these.
    """
    if isinstance(value, Mapping):
        for key, item in value.items():
            if not isinstance(key, (str, int)):
                raise PluginError(
                    f"checkpoint: {path or 'state'} has a key of type {type(key).__name__}; use strings", key=path
                )
            check_state_tree(item, f"{path}.{key}" if path else str(key))
    elif isinstance(value, (list, tuple)):
        for index, item in enumerate(value):
            check_state_tree(item, f"{path}[{index}]")
    elif not isinstance(value, PLAIN) or type(value).__module__ == "numpy":
        kind = f"{type(value).__module__}.{type(value).__qualname__}"
        raise PluginError(
            f"checkpoint: {path} is a {kind}, which cannot be loaded safely; keep a tensor or a plain number", key=path
        )


def plain_keys(state: Mapping[str, Any]) -> dict[str, Any]:
    """Weights by their names without the prefix that `torch.compile` puts before a wrapped module's."""
    return {name.replace("_orig_mod.", ""): value for name, value in state.items()}


def misfits(own: Mapping[str, torch.Tensor], given: Mapping[str, torch.Tensor]) -> str:
    """Why weights are not those of a model: the first names on either side, and shapes; empty where they are."""
    missing, unexpected = sorted(set(own) - set(given)), sorted(set(given) - set(own))
    shapes = [
        f"{name}: {tuple(given[name].shape)} in the file, {tuple(value.shape)} in the model"
        for name, value in own.items()
        if name in given and given[name].shape != value.shape
    ]
    facts = {"missing": missing, "unexpected": unexpected, "other shapes": shapes}
    return "; ".join(
        f"{what}: {', '.join(names[:SHOWN])}{f' and {len(names) - SHOWN} more' if len(names) > SHOWN else ''}"
        for what, names in facts.items()
        if names
    )


def _verified(folder: Path, name: str, facts: Mapping[str, Any]) -> bytes:
    try:
        data = (folder / name).read_bytes()
    except OSError as error:
        raise Damaged(f"{name}: {error.strerror}") from error
    if len(data) != facts["bytes"]:
        raise Damaged(f"{name} has {len(data)} bytes, expected {facts['bytes']}")
    if hashlib.sha256(data).hexdigest() != facts["sha256"]:
        raise Damaged(f"{name} does not match its SHA-256")
    return data


def _damage(folder: Path) -> str:
    """Why a checkpoint folder cannot be trusted, empty where it can."""
    try:
        for name, facts in read_manifest(folder)["files"].items():
            _verified(folder, name, facts)
    except Damaged as damage:
        return str(damage)
    except Foreign:
        return ""  # whole, and not this version's to replace
    return ""


def _check(manifest: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(manifest, sort_keys=True).encode()).hexdigest()


def _write_file(path: Path, data: memoryview) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
    try:
        while len(data):
            data = data[os.write(descriptor, data) :]
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _sync(folder: Path) -> None:
    """As `folder.sync_folder`; of this module, so that the fault tests can fail every operation of a save."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _remove(folder: Path) -> None:
    """Rename first, so that a deletion that is interrupted leaves no half checkpoint under its name."""
    aside = folder.with_name(f".old_{folder.name}")
    shutil.rmtree(aside, ignore_errors=True)
    os.rename(folder, aside)  # noqa: PTH104
    shutil.rmtree(aside)


def _size(count: int) -> str:
    return f"{count / 2**20:.1f} MiB" if count >= 2**20 else f"{count} bytes"
