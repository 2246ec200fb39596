"""What tests of runs share: a tiny pipeline of training stages, and a way to stop it."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import attrs
import pytest
import torch

import ups_kit
from ups_kit.errors import Preempted
from ups_kit.run import RunResult, run
from ups_kit.trackers import MetricsFile

PIPELINE = Path(__file__).parents[1] / "pipelines" / "burgers.toml"


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the pipeline's data are made, once."""
    return tmp_path_factory.mktemp("data") / "burgers.h5"


@pytest.fixture
def pipeline(data: Path, tmp_path: Path) -> Iterator[Callable[..., ups_kit.Recipe]]:
    """The pipeline's recipe with settings, and these stages of it alone; its runs go to `tmp_path / "runs"`."""
    threads = torch.get_num_threads()

    def recipe(*settings: str, stages: tuple[str, ...] = ("codec", "operator", "diffusion")) -> ups_kit.Recipe:
        places = (f"run.folder={tmp_path / 'runs'}", f"dataset.path={data}")
        found = ups_kit.read_recipe(PIPELINE, [*places, *settings]).recipe
        kept = tuple(stage for stage in found.stages if stage.name in stages)
        return attrs.evolve(found, stages=kept)

    yield recipe
    torch.set_num_threads(threads)


@pytest.fixture
def stopped(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Run a recipe until a stage logs a step, and stop it there as a queue does."""

    def until(recipe: ups_kit.Recipe, stage: str, step: int, **options: Any) -> None:
        plain = MetricsFile.scalars

        def scalars(self: MetricsFile, at: str, number: int, values: Mapping[str, float]) -> None:
            plain(self, at, number, values)
            if (at, number) == (stage, step):
                signal.raise_signal(signal.SIGTERM)

        with monkeypatch.context() as patch:
            patch.setattr(MetricsFile, "scalars", scalars)
            with pytest.raises(Preempted):
                run(recipe, **options)

    return until


@pytest.fixture
def files() -> SimpleNamespace:
    """What to look at in a run folder."""

    def every(folder: Path) -> dict[str, bytes]:
        return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}

    def weights(found: RunResult | Path, stage: str) -> bytes:
        folder = found if isinstance(found, Path) else found.folder
        return (folder / stage / "model.safetensors").read_bytes()

    return SimpleNamespace(every=every, weights=weights)
