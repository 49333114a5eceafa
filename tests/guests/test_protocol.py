"""What guests print about themselves, and how a guest is found."""

from __future__ import annotations

import pytest

from guests import CHECK_LINE, REPORT_FAIL, REPORT_PASS, GuestNotBuiltError, guest_path

OUTPUT = """\
traps: x86_64\r
ok   de.zero              #DE at                        div by 0 faults (SDM 2 DIV)\r
skip pf.modify            #PF(0) at cr2 ffffffff80134000  emulators read first\r
FAIL dr.4                 want 1, got 0                 there is no DR4\r
"""


def test_pass_line_has_name_and_count() -> None:
    found = REPORT_PASS.search(OUTPUT + "ring1: PASS traps (187 checks)\r\n")
    assert found is not None
    assert found["name"] == "traps"
    assert found["checks"] == "187"


def test_fail_line_has_name_and_reason() -> None:
    found = REPORT_FAIL.search(OUTPUT + "ring1: FAIL traps: 1 of 187 checks failed\r\n")
    assert found is not None
    assert found["name"] == "traps"
    assert found["why"] == "1 of 187 checks failed"


def test_a_line_that_only_quotes_the_verdict_is_none() -> None:
    assert REPORT_PASS.search("it will say ring1: PASS traps (1 checks)\n") is None


def test_check_lines_give_verdict_id_and_what_was_seen() -> None:
    found = [(m["verdict"], m["id"], m["seen"]) for m in CHECK_LINE.finditer(OUTPUT)]
    assert found == [
        ("ok", "de.zero", "#DE at"),
        ("skip", "pf.modify", "#PF(0) at cr2 ffffffff80134000"),
        ("FAIL", "dr.4", "want 1, got 0"),
    ]


@pytest.mark.parametrize(
    ("name", "width", "sentence"),
    [
        ("nonesuch", "x86_64", r"^no guest is called 'nonesuch'; there are hello, "),
        ("hello", "arm64", r"^no width is called 'arm64'; there are x86_32, x86_32p, x86_64$"),
    ],
)
def test_guest_path_says_what_is_wrong(name: str, width: str, sentence: str) -> None:
    with pytest.raises(GuestNotBuiltError, match=sentence):
        guest_path(name, width)
