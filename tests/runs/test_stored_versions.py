"""What earlier versions have written is read, and what later ones write is refused with both versions."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import attrs
import pytest
import torch

import ups_kit
from ups_kit.errors import RecipeError, StorageError, UpsKitError
from ups_kit.fit.state import CheckpointFolder
from ups_kit.reading import read_resolved
from ups_kit.run import run

HERE = Path(__file__).parent
STORED = HERE / "stored" / "0.1"
PREDICTED = [[-0.067858, 0.487673, 0.065205, 0.304109]] * 2  # by version 0.1.0; its operator stands at its beginning


@pytest.fixture
def made() -> ModuleType:
    """The script that the stored run was made with."""
    found = importlib.util.spec_from_file_location("make_stored", HERE / "make_stored.py")
    assert found is not None
    assert found.loader is not None
    module = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    return module


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A copy of the stored run where its own paths lead to it."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(STORED / "run", "runs/stored/1")
    shutil.copyfile(STORED / "burgers.h5", "burgers.h5")
    threads = torch.get_num_threads()
    yield Path("runs/stored/1")
    torch.set_num_threads(threads)


def change(path: Path, **values: Any) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def test_a_bundle_of_version_0_1_predicts_what_it_predicted(folder: Path) -> None:
    bundle = ups_kit.load(folder)
    x = (torch.arange(16) + 0.5) / 16
    found = bundle.predict(torch.sin(2 * torch.pi * x)[None, :, None], {"epsilon": 0.1}, steps=2)
    assert found.shape == (1, 2, 16, 1)
    assert found[0, :, ::5, 0].tolist() == [pytest.approx(row, abs=1e-4) for row in PREDICTED]
    assert bundle.trained == ("codec", "operator")  # it does not say, so all that have a budget
    assert bundle.forecast["use"] == "operator"


def test_a_run_of_version_0_1_goes_on_from_its_checkpoint(folder: Path, made: ModuleType) -> None:
    done = run(made.recipe(), resume=True)
    assert done.summary["stages"]["operator"]["steps"] == 20
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if line["stage"] == "operator" and "lr" in line] == [4, 8, 12, 16, 20]
    assert read_resolved(folder / "resolved.json").recipe == made.recipe()


def test_stages_of_version_0_1_are_taken_over_by_the_papers_of_their_run(folder: Path, made: ModuleType) -> None:
    """They have no key: it is made of the resolved recipe and of the bundle's splits."""
    done = run(made.recipe(), from_stage="operator")
    taken = json.loads((done.folder / "codec" / "done.json").read_text())
    assert len(taken["key"]) == 64
    assert taken["of"]["latent"]["width"] == 4
    with pytest.raises(UpsKitError, match=r"latent\.width: 4 in the run, 8 now"):
        run(attrs.evolve(made.recipe(), latent=ups_kit.LatentSpec(width=8)), from_stage="operator", of=folder)
    splits = json.loads((folder / "bundle" / "bundle.json").read_text())["splits"]
    change(folder / "bundle" / "bundle.json", splits={**splits, "digest": "0" * 64})
    with pytest.raises(UpsKitError, match="other trajectories, or another split"):
        run(made.recipe(), from_stage="operator", of=folder)


@pytest.mark.parametrize("number", [0, 2])
def test_other_formats_are_refused_with_both_versions(folder: Path, made: ModuleType, number: int) -> None:
    """Of the record, a finished stage, a checkpoint and a bundle; the version that wrote them is named."""
    ours = ups_kit.__version__
    whole = {path: path.read_bytes() for path in folder.rglob("*.json")}
    cases: list[tuple[str, Callable[[], object], str]] = [
        ("resolved.json", lambda: read_resolved(folder / "resolved.json"), f"ups_kit 9.9.*ups_kit {ours}.*format 1"),
        ("resolved.json", lambda: run(made.recipe(), resume=True), f"format {number}.*9.9.*ups_kit {ours}.*format 1"),
        ("codec/done.json", lambda: run(made.recipe(), resume=True), f"format {number}.*9.9.*ups_kit {ours}"),
        ("bundle/bundle.json", lambda: ups_kit.load(folder), f"bundle format {number}.*9.9.*ups_kit {ours}.*install"),
    ]
    for name, call, says in cases:
        change(folder / name, format=number, ups_kit="9.9")
        with pytest.raises((StorageError, RecipeError), match=says):
            call()
        (folder / name).write_bytes(whole[folder / name])


def test_a_checkpoint_of_another_format_is_refused_by_the_run(folder: Path, made: ModuleType) -> None:
    path = folder / "operator" / "checkpoints" / "step_00000008" / "manifest.json"
    manifest = {**json.loads(path.read_text()), "format": 2}
    del manifest["check"]
    manifest["check"] = hashlib.sha256(json.dumps(manifest, sort_keys=True).encode()).hexdigest()
    path.write_text(json.dumps(manifest))
    with pytest.raises(StorageError, match=r"checkpoint format 2; this is ups_kit .*, which reads format 1: install"):
        run(made.recipe(), resume=True)
    assert CheckpointFolder(path.parents[1], 1).steps() == [8]
