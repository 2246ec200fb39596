"""The memory of an evaluation: a few times the truth, however many forecasts there are."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads the process's memory as Linux tells it")
def test_an_evaluation_holds_at_most_three_times_the_truth() -> None:
    """There are 16 forecasts as large as the truth, and metrics that compute in float64.

    Every block is given back to the system at once (MALLOC_MMAP_THRESHOLD_), as large ones always are.
    """
    harness = Path(__file__).with_name("memory_harness.py")
    env = os.environ | {"MALLOC_MMAP_THRESHOLD_": "262144", "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, harness, "160"], capture_output=True, text=True, check=True, env=env)
    size, peak = map(int, done.stdout.split())
    assert size == 160 * 21 * 24 * 24 * 2 * 4
    assert peak < 3 * size
