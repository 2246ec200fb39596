"""Checkpoints are whole or not there, and what is damaged is never loaded."""

from __future__ import annotations

import errno
import json
import os
import pickle
import random
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ups_kit.errors import PluginError, StorageError
from ups_kit.fit import state as state_module
from ups_kit.fit.state import CheckpointFolder, Damaged, Foreign, check_state_tree, plain_keys, read_checkpoint


def _state(step: int) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(step)
    return {"step": step, "model": {"weight": torch.randn(40, 40, generator=generator)}, "list": [1, 2.5, None, "a"]}


def _filled(path: Path, steps: int = 3, keep: int = 3) -> CheckpointFolder:
    folder = CheckpointFolder(path / "checkpoints", keep)
    for step in range(1, steps + 1):
        folder.save(step, _state(step), best=None)
    return folder


def _file(path: Path, step: int, name: str = "state.pt") -> Path:
    return path / "checkpoints" / f"step_{step:08}" / name


def _is(state: dict[str, Any], step: int) -> bool:
    return bool(torch.equal(state["model"]["weight"], _state(step)["model"]["weight"]))


def test_what_was_saved_is_loaded(tmp_path: Path) -> None:
    folder = _filled(tmp_path)
    found = folder.newest()
    assert found is not None
    assert found.step == 3
    assert _is(found.state, 3)
    assert found.state["list"] == [1, 2.5, None, "a"]
    assert CheckpointFolder(tmp_path / "empty", 2).newest() is None


def test_the_last_ones_and_the_best_they_count_on_are_kept(tmp_path: Path) -> None:
    folder = CheckpointFolder(tmp_path, keep=2)
    best = None
    for step in range(1, 8):
        if step in (1, 4, 6):
            folder.save_best(step, _state(step))
            best = step
        folder.save(step, _state(step), best)
    assert sorted(entry.name for entry in tmp_path.iterdir()) == [
        "best_00000006",
        "step_00000006",
        "step_00000007",
    ]
    folder.save_best(8, _state(8))  # killed here: the newest checkpoint still counts on 6
    assert _is(CheckpointFolder(tmp_path, keep=2).best(6), 6)


@pytest.mark.parametrize("damage", ["truncate", "flip", "zero page"])
def test_a_damaged_checkpoint_is_passed_over_loudly(tmp_path: Path, damage: str) -> None:
    _filled(tmp_path)
    path = _file(tmp_path, 3)
    data = bytearray(path.read_bytes())
    if damage == "truncate":
        data = data[:-100]
    elif damage == "flip":
        data[len(data) // 2] ^= 1
    else:
        data[4096:8192] = bytes(4096)
    path.write_bytes(data)
    with pytest.warns(UserWarning, match=r"going on from step 2\. step_00000003: state.pt"):
        found = CheckpointFolder(tmp_path / "checkpoints", 3).newest()
    assert found is not None
    assert _is(found.state, 2)


def test_two_hundred_corruptions_are_never_loaded(tmp_path: Path) -> None:
    _filled(tmp_path, steps=1)
    folder = tmp_path / "checkpoints" / "step_00000001"
    whole = {name: (folder / name).read_bytes() for name in ("state.pt", "manifest.json")}
    chance = random.Random(0)
    refused = 0
    for _ in range(200):
        name = chance.choice(["state.pt", "state.pt", "manifest.json"])
        data = bytearray(whole[name])
        place = chance.randrange(len(data))
        kind = chance.choice(["flip", "zero", "truncate"])
        if kind == "flip":
            data[place] ^= 1 << chance.randrange(8)
        elif kind == "zero":
            data[place : place + 4096] = bytes(len(data[place : place + 4096]))
        else:
            data = data[:place]
        (folder / name).write_bytes(data)
        try:
            loaded = read_checkpoint(folder)
        except Damaged:
            refused += 1
        else:  # nothing was changed, or white space of the manifest
            assert _is(loaded, 1)
            assert data == whole[name] or json.loads(data) == json.loads(whole[name])
        (folder / name).write_bytes(whole[name])
    assert refused > 180


@pytest.mark.parametrize("share", [0, 0.25, 0.5, 0.75, 0.999])
def test_a_truncated_file_is_named_with_its_bytes(tmp_path: Path, share: float) -> None:
    _filled(tmp_path, steps=1)
    path = _file(tmp_path, 1)
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    with pytest.raises(Damaged, match=f"state.pt has {int(len(data) * share)} bytes, expected {len(data)}"):
        read_checkpoint(path.parent)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda path: path.unlink(), "manifest.json is missing"),
        (lambda path: path.write_text("{"), "manifest.json is malformed"),
        (lambda path: path.write_text("[]"), "manifest.json is malformed"),
        (lambda path: path.write_text('{"format": 1}'), "manifest.json is malformed"),
        (lambda path: path.write_text(path.read_text().replace("state.pt", "../x.pt")), "leaves the checkpoint"),
        (lambda path: path.write_text(path.read_text().replace("state.pt", "/etc/passwd")), "leaves the checkpoint"),
        (lambda path: path.write_text(path.read_text().replace('"step": 1', '"step": 2')), "malformed|own checksum"),
    ],
)
def test_a_bad_manifest_is_refused(tmp_path: Path, change: Callable[[Path], object], reason: str) -> None:
    _filled(tmp_path, steps=1)
    path = _file(tmp_path, 1, "manifest.json")
    change(path)
    with pytest.raises(Damaged, match=reason):
        read_checkpoint(path.parent)


@pytest.mark.parametrize("number", [0, 99])
def test_another_format_is_refused_by_number(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    """Not passed over, as a damaged one is: the run would go on from further back than it had come."""
    _filled(tmp_path, steps=1)
    monkeypatch.setattr(state_module, "FORMAT", number)
    _filled(tmp_path, steps=2)
    monkeypatch.undo()
    with pytest.raises(Foreign, match=f"checkpoint format {number}; this is ups_kit 0.* which reads format 1: install"):
        read_checkpoint(tmp_path / "checkpoints" / "step_00000002")
    folder = CheckpointFolder(tmp_path / "checkpoints", 2)
    with pytest.raises(StorageError, match=f"step_00000002: checkpoint format {number}"):
        folder.newest()
    whole = _file(tmp_path, 2).read_bytes()
    folder.save(2, _state(3), best=None)  # another version's work is not overwritten
    assert _file(tmp_path, 2).read_bytes() == whole


def test_when_all_are_damaged_each_is_listed(tmp_path: Path) -> None:
    folder = _filled(tmp_path)
    for step in (1, 2, 3):
        _file(tmp_path, step).write_bytes(b"")
    with pytest.raises(StorageError) as caught:
        folder.newest()
    assert "no checkpoint is whole (3 tried)" in str(caught.value)
    for step in (1, 2, 3):
        assert f"step_0000000{step}: state.pt has 0 bytes" in str(caught.value)
    assert caught.value.exit_code == 6


def test_a_damaged_checkpoint_is_replaced_when_its_step_comes_again(tmp_path: Path) -> None:
    folder = _filled(tmp_path)
    _file(tmp_path, 3).write_bytes(b"")
    folder.save(3, _state(3), None)
    found = folder.newest()
    assert found is not None
    assert _is(found.state, 3)


# --- saving that goes wrong ------------------------------------------------------------------------------------------
class FaultyOS:
    """The module `os`, in which the n-th operation that changes the disk fails, or ends the process."""

    CHANGES = ("open", "write", "fsync", "mkdir", "rename")

    def __init__(self, fail_at: int, failure: Callable[[], None]) -> None:
        self.count = 0
        self._fail_at = fail_at
        self._failure = failure

    def __getattr__(self, name: str) -> Any:
        original = getattr(os, name)
        if name not in self.CHANGES:
            return original

        def counted(*arguments: Any, **options: Any) -> Any:
            self.count += 1
            if self.count == self._fail_at:
                self._failure()
            return original(*arguments, **options)

        return counted


def _disk_full() -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


def _operations_of_a_save(path: Path, monkeypatch: pytest.MonkeyPatch) -> int:
    folder = _filled(path / "counted", steps=1)
    faulty = FaultyOS(-1, lambda: None)
    with monkeypatch.context() as patch:
        patch.setattr(state_module, "os", faulty)
        folder.save(2, _state(2), None)
    return faulty.count


def test_a_full_disk_leaves_the_old_checkpoints_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    total = _operations_of_a_save(tmp_path, monkeypatch)
    assert total >= 10
    for fail_at in range(1, total + 1):
        path = tmp_path / str(fail_at)
        folder = _filled(path, steps=2, keep=5)
        with monkeypatch.context() as patch:
            patch.setattr(state_module, "os", FaultyOS(fail_at, _disk_full))
            with pytest.raises(
                StorageError, match=r"No space left on device; it takes .*free; older checkpoints"
            ) as caught:
                folder.save(3, _state(3), None)
        assert caught.value.exit_code == 6
        assert not list((path / "checkpoints").glob(".*")), "what was written aside is removed"
        found = folder.newest()
        assert found is not None
        assert _is(found.state, found.step)
        assert found.step >= 2


def test_a_crash_after_every_operation_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    total = _operations_of_a_save(tmp_path, monkeypatch)
    for crash_at in range(1, total + 2):
        path = tmp_path / str(crash_at)
        _filled(path, steps=2, keep=2)
        child = os.fork()
        if child == 0:
            state_module.os = FaultyOS(crash_at, lambda: os._exit(0))  # type: ignore[assignment]
            CheckpointFolder(path / "checkpoints", 2).save(3, _state(3), None)
            os._exit(0)
        os.waitpid(child, 0)
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # what is left is whole: nothing needs to be passed over
            folder = CheckpointFolder(path / "checkpoints", 2)
            found = folder.newest()
        assert found is not None
        assert found.step in (2, 3)
        assert _is(found.state, found.step)
        assert not list((path / "checkpoints").glob(".*")), "what a crash leaves is swept up"


def test_a_deletion_that_fails_only_warns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = _filled(tmp_path, steps=2, keep=2)

    def refuse(path: Path, **options: Any) -> None:
        if not options.get("ignore_errors"):
            raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(state_module.shutil, "rmtree", refuse)
    with pytest.warns(UserWarning, match="an old checkpoint could not be deleted: Permission denied"):
        folder.save(3, _state(3), None)
    found = folder.newest()
    assert found is not None
    assert found.step == 3


def test_a_folder_that_cannot_be_made_is_a_storage_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="checkpoints cannot be kept here"):
        CheckpointFolder(tmp_path / "file" / "checkpoints", 2)


def test_space_is_looked_at_before_the_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = CheckpointFolder(tmp_path, keep=2)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10, 5, 3 * 2**20))  # type: ignore[attr-defined]
    folder.check_space(2**18)
    with pytest.warns(UserWarning, match=r"take 4\.0 MiB, and only 3\.0 MiB are free"):
        folder.check_space(2**20)
    with pytest.raises(StorageError, match=r"takes 4\.0 MiB, and only 3\.0 MiB are free"):
        folder.check_space(2**22)


# --- what may be in a state ------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("value", "kind"),
    [(np.zeros(2), "numpy.ndarray"), (np.float64(1.0), "numpy.float64"), (Path("x"), "Path"), ({1}, "builtins.set")],
)
def test_what_could_not_be_loaded_is_named_when_it_is_saved(tmp_path: Path, value: object, kind: str) -> None:
    state = {"optimizer": {"state": {0: {"history": [1.0, value]}}}}
    with pytest.raises(PluginError, match=r"optimizer\.state\.0\.history\[1\] is a .*" + kind):
        CheckpointFolder(tmp_path, 2).save(1, state, None)
    assert not list(tmp_path.iterdir())


def test_states_of_all_optimisers_may_be_saved() -> None:
    weight = torch.nn.Parameter(torch.ones(2, 2))
    for make in (torch.optim.AdamW, torch.optim.Adam, torch.optim.SGD, torch.optim.Muon):
        optimizer = make([weight], lr=0.1)
        weight.grad = torch.ones(2, 2)
        optimizer.step()
        check_state_tree(optimizer.state_dict())


class Trap:
    def __reduce__(self) -> tuple[Any, ...]:
        return (os.mkdir, ("trapped",))


def test_a_checkpoint_runs_no_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(state_module, "check_state_tree", lambda state: None)
    monkeypatch.setattr(torch, "save", lambda state, buffer: buffer.write(pickle.dumps(Trap(), protocol=2)))
    CheckpointFolder(tmp_path / "checkpoints", 2).save(1, {}, None)
    with pytest.raises(Damaged, match=r"state\.pt: "):
        read_checkpoint(tmp_path / "checkpoints" / "step_00000001")
    assert not (tmp_path / "trapped").exists()


def test_names_of_compiled_weights_are_plain() -> None:
    assert list(plain_keys({"encoder._orig_mod.weight": 1, "_orig_mod.bias": 2})) == ["encoder.weight", "bias"]
