"""Boards of every kind: each paging mode, on the live state and on copies of it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import cast

import pytest

from hypervisor.machine.cpu import StateAccess
from tests.support.board import MODES, Board, Mode

ACCESSES = (StateAccess.LIVE, StateAccess.COPIES)


@pytest.fixture(params=ACCESSES, ids=lambda access: cast(StateAccess, access).value)
def access(request: pytest.FixtureRequest) -> StateAccess:
    """How the CPU's state is reached."""
    return cast(StateAccess, request.param)


@pytest.fixture(params=MODES)
def mode(request: pytest.FixtureRequest) -> Mode:
    """A paging mode."""
    return cast(Mode, request.param)


@pytest.fixture
def board(mode: Mode, access: StateAccess) -> Iterator[Board]:
    """A board in every mode and with both kinds of access."""
    made = Board(mode, access)
    yield made
    made.cpu.close()


@pytest.fixture
def board64(access: StateAccess) -> Iterator[Board]:
    """A board in long mode, with both kinds of access."""
    made = Board("long", access)
    yield made
    made.cpu.close()
