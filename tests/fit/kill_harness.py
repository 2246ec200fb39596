"""Kill a training many times and let it go on; run as a script, so that its forks share nothing with the tests.

usage: kill_harness.py FOLDER KILLS STEPS
Prints one JSON object: kills, lost (checkpoints that were acknowledged and are gone), equal (to an uninterrupted run).
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import time
import warnings
from pathlib import Path

import torch
from conftest import ToyModel, same_bits, toy_folder, toy_task, weights

from ups_kit.fit import loop
from ups_kit.fit.settings import Budget
from ups_kit.fit.state import CheckpointFolder
from ups_kit.trackers import MetricsFile, Trackers


def train(path: Path, steps: int, resume: bool) -> None:
    """The whole training, or what is left of it; leaves the final weights in a file."""
    model = ToyModel()
    folder = toy_folder(path, resume)
    task = toy_task(
        model=model, budget=Budget(steps=steps), ema=0.9, accumulation=2, checkpoint_every=1, validate_every=7
    )
    loop.fit(task, folder, Trackers([MetricsFile(path / "metrics.jsonl")]))
    torch.save(weights(model), path / "final.pt")


def killed(path: Path, steps: int, delay: float) -> tuple[bool, int]:
    """Train in a child, kill it after `delay` seconds: whether in time, and the last step that it acknowledged."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        plain_save = loop.save

        def acknowledged(*arguments: object) -> str:
            name = plain_save(*arguments)  # type: ignore[arg-type]
            os.write(writing, f"{name[5:]}\n".encode())
            return name

        loop.save = acknowledged
        train(path, steps, resume=True)
        os._exit(0)
    os.close(writing)
    time.sleep(delay)
    os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    with os.fdopen(reading) as handle:
        steps_done = [int(line) for line in handle.read().splitlines()]
    return os.WIFSIGNALED(status), max(steps_done, default=0)


def main(path: Path, kills: int, steps: int) -> None:
    warnings.simplefilter("error")  # no checkpoint is ever found damaged
    torch.set_num_threads(1)
    chance = random.Random(0)
    done = lost = 0
    while done < kills:
        in_time, acknowledged = killed(path / "killed", steps, chance.uniform(0.005, 0.1))
        if not in_time:
            break
        done += 1
        newest = CheckpointFolder(path / "killed" / "toy" / "checkpoints", keep=2).newest()
        lost += (0 if newest is None else newest.step) < acknowledged
    train(path / "killed", steps, resume=True)
    train(path / "whole", steps, resume=False)
    finals = [torch.load(path / name / "final.pt", weights_only=True) for name in ("killed", "whole")]
    lines = [json.loads(line) for line in (path / "killed" / "metrics.jsonl").read_text().splitlines()]
    logged = [line["step"] for line in lines if "lr" in line]
    result = {"kills": done, "lost": lost, "equal": same_bits(*finals), "logged_once": logged == sorted(set(logged))}
    print(json.dumps(result | {"logged": len(logged)}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
