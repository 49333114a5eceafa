"""The searches find what they are there to find: rules are weakened, and each must be missed.

A fuzzer or a state machine that finds nothing says nothing by itself. So for each of some rules of
`mm` and of the hypercalls over it a build without that rule is searched, with no more examples than
the suite has, in one width after the other until the hole is found.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import Phase

from hypervisor.abi.width import Width
from tests.fuzz import driver
from tests.fuzz.driver import Found, Fuzzer
from tests.properties import test_frames
from tests.properties.test_frames import frames_of
from tests.properties.test_two_domains import EXAMPLES, two_domains
from tests.support.mutations import OF_HYPERCALLS, OF_TABLES, Mutation, share_xens_l2

pytestmark = pytest.mark.slow
_CALLS = 6000  # of a width; the suite makes five times as many


def _name(mutation: Mutation) -> str:
    return mutation.__name__


def _is_found(search: Callable[..., None], width: Width, max_examples: int) -> bool:
    try:
        search(
            width,
            max_examples=max_examples,
            derandomize=True,
            print_blob=False,
            phases=(Phase.generate,),  # it need not be made small
        )
    except Exception:  # noqa: BLE001 - any failure is a find
        return True
    return False


def test_the_model_of_one_domain_misses_the_rule(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that no count shows: Xen's slots would be in two address spaces at once."""
    share_xens_l2(monkeypatch)
    assert _is_found(frames_of, Width.X86_32P, test_frames.EXAMPLES)


@pytest.mark.parametrize("mutation", OF_TABLES, ids=_name)
def test_two_domains_miss_the_rule(mutation: Mutation, monkeypatch: pytest.MonkeyPatch) -> None:
    mutation(monkeypatch)
    assert any(_is_found(two_domains, width, EXAMPLES) for width in Width)


@pytest.mark.parametrize("mutation", OF_HYPERCALLS, ids=_name)
def test_the_fuzzer_misses_the_rule(mutation: Mutation, monkeypatch: pytest.MonkeyPatch) -> None:
    mutation(monkeypatch)
    monkeypatch.setattr(driver, "shrunk", _as_it_is)
    assert any(_is_found_by_fuzzer(width) for width in Width)


def _is_found_by_fuzzer(width: Width) -> bool:
    try:
        Fuzzer(width).run(_CALLS)
    except Found:
        return True
    return False


def _as_it_is(setting: Any, actions: Any, error: Any) -> Any:
    return actions, error
