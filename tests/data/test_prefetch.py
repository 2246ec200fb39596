"""Reading ahead in a thread."""

from __future__ import annotations

import itertools
import threading
import time

import pytest
import torch

from ups_kit import PointSet
from ups_kit.data.prefetch import in_pinned_memory, prefetched


def threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name == "prefetch"]


def test_in_order_and_complete() -> None:
    with prefetched(lambda step: step * step, range(20), depth=3) as values:
        assert list(values) == [step * step for step in range(20)]
    assert threads() == []


def test_an_endless_stream_is_read_no_further_than_asked() -> None:
    read: list[int] = []

    def record(step: int) -> int:
        read.append(step)
        return step

    with prefetched(record, itertools.count(), depth=2) as values:
        assert list(itertools.islice(values, 5)) == [0, 1, 2, 3, 4]
        time.sleep(0.1)
        assert len(read) <= 5 + 2 + 1
    assert threads() == []


def test_an_error_comes_where_its_value_would_have() -> None:
    def fail(step: int) -> int:
        if step == 3:
            raise OSError("disk gone at step 3")
        return step

    with prefetched(fail, range(10)) as values:
        assert [next(values) for _ in range(3)] == [0, 1, 2]
        with pytest.raises(OSError, match="disk gone at step 3"):
            next(values)
    assert threads() == []


def test_an_error_of_the_reader_closes_the_thread() -> None:
    def use() -> None:
        with prefetched(lambda step: step, itertools.count()) as values:
            next(values)
            raise RuntimeError("mine")

    with pytest.raises(RuntimeError, match="mine"):
        use()
    assert threads() == []


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_tensors_are_pinned() -> None:
    points = PointSet(torch.zeros(2, 3, 1), torch.ones(2, 3, 1), grid=(3,))
    pinned = in_pinned_memory(points)
    assert pinned.positions.is_pinned()
    assert pinned.grid == (3,)
    with prefetched(lambda step: points, range(2), pinned=True) as values:
        assert all(value.values.is_pinned() for value in values)
