"""Domains for the tests of hypercalls: one of each word size, alone, in company, privileged."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from hypervisor.abi.width import Width
from tests.support.callers import Guest, guests


@pytest.fixture(params=[Width.X86_32P, Width.X86_64], ids=lambda width: width.name)
def guest(request: pytest.FixtureRequest) -> Iterator[Guest]:
    """A domain on the CPU."""
    with guests(request.param) as (only,):
        yield only


@pytest.fixture
def pair() -> Iterator[tuple[Guest, Guest]]:
    """Two domains, neither privileged."""
    with guests(Width.X86_32P, Width.X86_64) as (one, other):
        yield one, other


@pytest.fixture
def dom0() -> Iterator[tuple[Guest, Guest]]:
    """A privileged domain, and another one."""
    with guests(Width.X86_64, Width.X86_32P, privileged=True) as (one, other):
        other.dom.privileged = False
        yield one, other
