"""A small machine for each width."""

from __future__ import annotations

import pytest

from hypervisor.abi.width import Width
from tests.support.small_machine import SmallMachine


@pytest.fixture(params=Width, ids=lambda width: width.name)
def small(request: pytest.FixtureRequest) -> SmallMachine:
    return SmallMachine(request.param)
