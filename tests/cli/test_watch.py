"""^C, termination and time-outs: each interrupts the machine and is remembered."""

from __future__ import annotations

import os
import signal
import threading

import pytest

from cli.watch import SIGNALS, Watch


@pytest.mark.parametrize("number", SIGNALS)
def test_signal_interrupts_and_is_remembered(number: signal.Signals) -> None:
    interrupts: list[str] = []
    with Watch(lambda: interrupts.append("now"), None) as watch:
        os.kill(os.getpid(), number)
        assert watch.signalled is number
        assert watch.ended
    assert interrupts == ["now"]


def test_second_signal_does_not_wait_for_the_machine() -> None:
    with Watch(lambda: None, None):
        os.kill(os.getpid(), signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)


def test_time_out_interrupts_and_is_no_signal() -> None:
    interrupted = threading.Event()
    with Watch(interrupted.set, 0.01) as watch:
        assert interrupted.wait(5)
        assert watch.timed_out
        assert watch.signalled is None


def test_time_out_is_called_off_at_the_end() -> None:
    interrupted = threading.Event()
    with Watch(interrupted.set, 0.05) as watch:
        pass
    assert not interrupted.wait(0.1)
    assert not watch.ended


def test_handlers_are_put_back() -> None:
    before = {number: signal.getsignal(number) for number in SIGNALS}
    with Watch(lambda: None, None):
        pass
    assert {number: signal.getsignal(number) for number in SIGNALS} == before
