"""Measures a model on trajectories of a given size and prints by how much the process's memory grew at most [bytes]."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parent))

from data import keeping
from ups_kit.data.splits import evenly
from ups_kit.interfaces import Field, FieldSpec, Trajectories
from ups_plugins.upt.evaluation import truth
from ups_plugins.upt.evaluation.config import EvaluateConfig
from ups_plugins.upt.evaluation.measurement import measure

FRAMES, SIDE = 21, 24


class Same:
    """A normaliser that leaves everything as it is."""

    def __getattr__(self, name: str) -> Any:
        return lambda values: values


class Noise:
    """Fields of two channels on a square between walls; the test trajectories are all the same ones, in memory once."""

    normaliser = Same()

    def __init__(self, samples: int) -> None:
        domain, walls = ((0.0, 1.0),) * 2, (False, False)
        self.fields = FieldSpec((Field("a"), Field("b")), domain, walls, "grid", (SIDE, SIDE), 0.1)
        self.splits = {"test": tuple(range(samples)), "train": (0, 1, 2, 3)}

    def trajectories(self, split: str, limit: int | None = None) -> Trajectories:
        samples, points = len(evenly(self.splits[split], limit)), SIDE**2
        values = torch.randn(samples, FRAMES, points, 2)
        empty: Tensor = values.new_zeros(samples, points, 0)
        parameters = torch.full((samples, 1), 0.1)
        return Trajectories(
            values, empty, torch.rand(points, 2), parameters, torch.arange(FRAMES) * 0.1, torch.arange(samples)
        )


def resident(name: str) -> int:
    """A number of /proc/self/status in bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith(name))


def evaluate(samples: int) -> int:
    """The bytes of the truth."""
    dataset = Noise(samples)
    recipe = SimpleNamespace(stages=())
    experiment: Any = SimpleNamespace(
        model=keeping(dataset.fields), dataset=dataset, recipe=recipe, device=torch.device("cpu")
    )
    values = measure(experiment, EvaluateConfig(batch=10**6)).truth.values
    return values.numel() * values.element_size()


if __name__ == "__main__":
    torch.set_num_threads(1)
    truth.PART_BYTES, truth.BLOCK_VALUES = (1 << 18, 256 << 20), 1 << 16
    evaluate(8)  # everything is imported, every buffer is there
    before = resident("VmRSS")
    size = evaluate(int(sys.argv[1]))
    print(size, resident("VmHWM") - before)
