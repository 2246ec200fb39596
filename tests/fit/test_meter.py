"""What a training step measures, on a clock of the test's."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from ups_kit.fit import meter


class Clock:
    """Stands still but for what the test says."""

    def __init__(self) -> None:
        self.now = 100.0

    def perf_counter(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(meter, "time", clock)
    return clock


def test_the_share_of_waiting_leaves_validations_out(clock: Clock) -> None:
    def batches() -> Iterator[int]:
        while True:
            clock.now += 0.5  # to read one
            yield 8

    measured, source = meter.Meter(), batches()
    for _ in range(3):
        for _ in range(4):
            samples = measured.awaited(source)
            clock.now += 1.5  # to compute
            measured.add(samples, {"loss": torch.tensor(2.0)})
        values = measured.read()
        assert values == {"loss": 2.0, "samples_per_second": 4.0, "data_wait": 0.25}
        measured.awaited(source)
        clock.now += 50  # a validation
        measured.restart_clock()


def test_nothing_measured_says_nothing(clock: Clock) -> None:
    assert meter.Meter().read() == {}
