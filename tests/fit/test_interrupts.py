"""SIGTERM where there are no steps to stop between."""

from __future__ import annotations

import signal
from contextlib import suppress

import pytest

from ups_kit.errors import Preempted
from ups_kit.fit.interrupts import sigterm_preempts


def test_sigterm_is_no_failure_of_what_it_interrupts() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(Preempted, match="--resume") as stopped, sigterm_preempts(), suppress(Exception):
        signal.raise_signal(signal.SIGTERM)
    assert stopped.value.exit_code == 75
    assert signal.getsignal(signal.SIGTERM) == before
