"""How hard property tests look: the same few examples always, or many new ones when asked.

python -m pytest tests/properties --hypothesis-profile long
"""

from __future__ import annotations

from typing import Any, Final

from hypothesis import HealthCheck, settings
from hypothesis.stateful import RuleBasedStateMachine

from hypervisor.abi.width import Width

LONG: Final = "long"
_TIMES: Final = 50


def examples(count: int) -> dict[str, Any]:
    """Settings for `count` fixed examples, or for fifty times as many that no run had before."""
    is_long = settings.get_current_profile_name() == LONG
    return {"max_examples": count * _TIMES if is_long else count, "derandomize": not is_long}


def run_machine(
    machine: type[RuleBasedStateMachine], width: Width, max_examples: int, **more: Any
) -> None:
    """Run a state machine for one width. Raises whatever it finds."""
    of_width: Any = type(f"{machine.__name__}{width.name}", (machine,), {"width": width})
    of_width.TestCase.settings = settings(
        max_examples=max_examples,
        stateful_step_count=50,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        **more,
    )
    of_width.TestCase("runTest").runTest()
