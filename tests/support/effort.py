"""How hard property tests look: the same few examples always, or many new ones when asked.

python -m pytest tests/properties --hypothesis-profile long
"""

from __future__ import annotations

from typing import Any, Final

from hypothesis import settings

LONG: Final = "long"
_TIMES: Final = 50


def examples(count: int) -> dict[str, Any]:
    """Settings for `count` fixed examples, or for fifty times as many that no run had before."""
    is_long = settings.get_current_profile_name() == LONG
    return {"max_examples": count * _TIMES if is_long else count, "derandomize": not is_long}
