"""SIGKILL at random moments of training and saving."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

HARNESS = Path(__file__).with_name("kill_harness.py")


@pytest.mark.parametrize(
    ("kills", "steps"), [(20, 300), pytest.param(200, 3000, marks=pytest.mark.slow)], ids=["20", "200"]
)
def test_a_killed_training_ends_with_the_same_bits(tmp_path: Path, kills: int, steps: int) -> None:
    done = subprocess.run(
        [sys.executable, str(HARNESS), str(tmp_path), str(kills), str(steps)],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["kills"] >= kills * 3 // 4, "the training was over before it was killed often enough"
    assert result["lost"] == 0
    assert result["equal"]
    assert result["logged_once"]
    assert result["logged"] == steps // 3
