"""Several builders of one latent cache at once, and builders that die."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

HARNESS = Path(__file__).with_name("build_harness.py")


def outcome(path: Path, *arguments: str) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, str(HARNESS), str(path), *arguments],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def test_builders_that_are_killed_leave_nothing_that_counts_and_is_not_whole(tmp_path: Path) -> None:
    found = outcome(tmp_path, "kills", "60")
    assert found["kills"] == 60, "the cache was whole before it was killed often enough"
    assert (found["partial"], found["early"], found["lost"], found["equal"]) == (0, 0, 0, True)
    assert found["kept"] > 30, "killed builders finished no shard"
    assert found["made"] == [found["shards"] - found["kept"]], "a shard that counted was made again"


def test_builders_side_by_side_write_each_shard_once(tmp_path: Path) -> None:
    found = outcome(tmp_path, "together", "4")
    assert found["equal"]
    assert sum(found["made"]) == found["shards"], "a shard was written twice, or by nobody"
    assert sum(own > 0 for own in found["made"]) > 1, "one builder did all the work"
