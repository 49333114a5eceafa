"""C escapes: what each stands for, and that a typing error is refused with a sentence."""

from __future__ import annotations

import pytest

from hypervisor.testing.c_escapes import EscapeError, unescape


@pytest.mark.parametrize(
    ("text", "data"),
    [
        ("plain", b"plain"),
        ("", b""),
        (r"echo one two\n", b"echo one two\n"),
        (r"\t\r\a\b\f\v", b"\t\r\a\b\f\v"),
        (r"\\n", b"\\n"),
        (r"\'\"\?", b"'\"?"),
        (r"\x41\x4", b"A\x04"),
        (r"\x1b[A", b"\x1b[A"),
        (r"\e[A", b"\x1b[A"),
        (r"\0\33\0101", b"\x00\x1b\x081"),
        (r"\u00e9", "é".encode()),
        ("é\n", "é\n".encode()),
    ],
)
def test_escape_becomes_its_bytes(text: str, data: bytes) -> None:
    assert unescape(text) == data


@pytest.mark.parametrize("text", ["\\", r"a\q", r"\x", r"\u12", r"\8"])
def test_unknown_escape_is_refused_and_named(text: str) -> None:
    with pytest.raises(EscapeError, match=r"is no C escape, in"):
        unescape(text)
