"""Pickled files are refused in words, and nothing in them runs (D30)."""

from __future__ import annotations

import os
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import ups_kit
from ups_kit import DataError, StorageError
from ups_kit.data.pickles import why_pickled
from ups_plugins.grid.config import PDEBenchConfig


class Trap:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


@pytest.fixture(params=["torch", "torch, old", "pickle"])
def pickled(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    path, content = tmp_path / "model.pt", {"model": nn.Linear(2, 2), "trap": Trap(tmp_path / "sprung")}
    if request.param == "pickle":
        path.write_bytes(pickle.dumps(content))
    else:
        torch.save(content, path, _use_new_zipfile_serialization=request.param == "torch")
    return path


def test_what_a_pickle_names_is_told_and_nothing_runs(pickled: Path) -> None:
    for attempt, error in (
        (ups_kit.load, StorageError),
        (lambda path: PDEBenchConfig(path=path).describe(), DataError),
    ):
        with pytest.raises(error) as caught:
            attempt(pickled)
        for part in (str(pickled), "may run code", "torch.nn.modules.linear.Linear", "safetensors.torch.save_file"):
            assert part in str(caught.value)
    assert not (pickled.parent / "sprung").exists()


def test_other_files_are_no_pickles(tmp_path: Path) -> None:
    path = tmp_path / "data.h5"
    path.write_bytes(b"\x89HDF\r\n\x1a\n")
    assert why_pickled(path) is None
    path.write_bytes(b"")
    assert why_pickled(path) is None
