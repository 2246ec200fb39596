"""Make the run that is stored in tests/runs/stored: its codec is finished, its operator was stopped on the way.

    python tests/runs/make_stored.py FOLDER

was called with version 0.1.0, and its files are read by every later version. To store what another version writes, call
it with that version, into a new folder beside.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Any

import torch

from ups_kit import LatentSpec
from ups_kit.errors import Preempted
from ups_kit.fit.settings import Budget
from ups_kit.recipe import Recipe, Run
from ups_kit.run import run
from ups_kit.trackers import MetricsFile
from ups_plugins.decoders.config import PartitionConfig
from ups_plugins.grid.config import GridEncoderConfig, PDEBenchConfig
from ups_plugins.operators.config import TransformerConfig
from ups_plugins.optim.config import AdamWConfig
from ups_plugins.simulators.config import Burgers1DConfig
from ups_plugins.upt.config import ForwardConfig, InverseEncodingConfig
from ups_plugins.upt.training.config import CodecStageConfig, OperatorStageConfig

STOPPED = 8  # the operator's step
SIMULATOR = Burgers1DConfig(trajectories=14, points=16, frames=6, epsilon=0.1, refinement=1, device="cpu")
KEYS: dict[str, Any] = {
    "batch": 4,
    "keep": 1,
    "validate_every": 4,
    "checkpoint_every": 4,
    "log_every": 4,
    "optimizer": AdamWConfig(lr=0.002),
}


def recipe() -> Recipe:
    """As small as it goes; all paths start from the working directory."""
    losses = {"inverse_encoding": InverseEncodingConfig()}
    operator = OperatorStageConfig(
        name="operator", budget=Budget(steps=20), losses={"forward": ForwardConfig(), **losses}, **KEYS
    )
    return Recipe(
        run=Run(name="stored", device="cpu", threads=1),
        dataset=PDEBenchConfig(path=Path("burgers.h5"), train=8, validation=3, test=3, simulate=SIMULATOR),
        latent=LatentSpec(width=4),
        encoder=GridEncoderConfig(patch_size=4, heads=1),
        operator=TransformerConfig(depth=1, heads=1, rank=2),
        decoder=PartitionConfig(modes=3),
        stages=(CodecStageConfig(budget=Budget(steps=8), losses=losses, **KEYS), operator),
    )


def stop_at(step: int) -> None:
    """Ask the process to stop when the operator's stage logs this step."""
    scalars = MetricsFile.scalars

    def stopping(self: MetricsFile, stage: str, at: int, values: Any) -> None:
        scalars(self, stage, at, values)
        if (stage, at) == ("operator", step):
            signal.raise_signal(signal.SIGTERM)

    MetricsFile.scalars = stopping  # type: ignore[method-assign]


if __name__ == "__main__":
    os.chdir(sys.argv[1])
    torch.set_num_threads(1)
    stop_at(STOPPED)
    try:
        run(recipe())
    except Preempted as stopped:
        print(stopped)
