"""Guests whose traps are built by hand, base pointers and descriptor tables too: so their machines
would not pass an audit."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from hypervisor.abi.width import Width
from tests.support.callers import Guest, guests


@pytest.fixture
def guest_32() -> Iterator[Guest]:
    with guests(Width.X86_32P) as (only,):
        only.machine.audits = False
        yield only


@pytest.fixture
def guest_64() -> Iterator[Guest]:
    with guests(Width.X86_64) as (only,):
        only.machine.audits = False
        yield only
