"""The table that `upskit data inspect` suggests for a file leaves most trajectories to train on."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from ups_kit.data.layouts import guess_layouts

WriteFile = Callable[..., Path]


@pytest.mark.parametrize(
    ("samples", "splits"), [(300, None), (152, (10, 20)), (60, (10, 20)), (40, (4, 8)), (5, (1, 1))]
)
def test_at_least_half_is_left_to_train_on(write_file: WriteFile, samples: int, splits: tuple[int, int] | None) -> None:
    (layout,) = guess_layouts(write_file(samples=samples))
    suggested = (layout.table["validation"], layout.table["test"]) if "test" in layout.table else None
    assert (layout.use, layout.problems, suggested) == ("pdebench", (), splits)
