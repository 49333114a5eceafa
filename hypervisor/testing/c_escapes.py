"""C's escape sequences in text typed on a command line or in a scenario.

Written out rather than borrowed from `codecs`: its `unicode_escape` reads the text as Latin-1, so
`é` would reach the guest as one byte, and it lets an unknown escape through with a warning.
"""

from __future__ import annotations

import re
from typing import Final

SIMPLE: Final = {
    "a": b"\a",
    "b": b"\b",
    "e": b"\x1b",  # not C's but every compiler's
    "f": b"\f",
    "n": b"\n",
    "r": b"\r",
    "t": b"\t",
    "v": b"\v",
    "\\": b"\\",
    "'": b"'",
    '"': b'"',
    "?": b"?",
}

BACKSLASH: Final = "\\\\"  # how to write one

PIECE: Final = re.compile(
    r"(?P<plain>[^\\]+)"
    r"|\\(?P<octal>[0-7]{1,3})"
    r"|\\x(?P<hex>[0-9A-Fa-f]{1,2})"
    r"|\\u(?P<code>[0-9A-Fa-f]{4})"
    r"|\\(?P<simple>[abefnrtv\\'\"?])"
    r"|(?P<bad>\\.?)",
    re.DOTALL,
)


class EscapeError(ValueError):
    """The text has a backslash that starts no escape sequence."""


def unescape(text: str) -> bytes:
    r"""The bytes that `text` stands for: `a\n` is two bytes, `é` its UTF-8.

    Knows \a \b \e \f \n \r \t \v \\ \' \" \?, \x with one or two hex digits, one to three octal
    digits, and \u with four hex digits. Raises EscapeError for any other backslash.
    """
    out = bytearray()
    for piece in PIECE.finditer(text):
        kind, value = piece.lastgroup, piece[piece.lastgroup or 0]
        if kind == "plain":
            out += value.encode()
        elif kind == "simple":
            out += SIMPLE[value]
        elif kind == "code":
            out += chr(int(value, 16)).encode(errors="surrogatepass")
        elif kind == "bad":
            raise EscapeError(f"{value} is no C escape, in '{text}'; a backslash is {BACKSLASH}")
        else:
            out.append(int(value, 16 if kind == "hex" else 8) & 0xFF)
    return bytes(out)
