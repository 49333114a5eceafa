"""TOML tables that must be used up, and where each of their keys stands in the file.

A key that nobody takes is a mistake: a misspelt one would otherwise silently do nothing. Python's
parser does not say on which line it found a key, so lines are looked up in the text, by the headers
and keys that stand at the beginning of lines; a key written in another way is named without one.
"""

from __future__ import annotations

import difflib
import re
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final, TypeVar

_HEADER: Final = re.compile(r"\s*\[(\[)?\s*([\w.-]+)\s*\]")
_KEY: Final = re.compile(r"\s*([\w-]+)\s*=")
_KINDS: Final = {int: "a whole number", float: "a number", str: "text", bool: "true or false",
                 dict: "a table", list: "a list"}  # fmt: skip

T = TypeVar("T")


class ConfigError(ValueError):
    """The file cannot be understood; the message is one sentence that says where."""


class Document:
    """A TOML file: its name for sentences, its tables, and the lines of their keys."""

    def __init__(self, name: str, text: str) -> None:
        """Raises ConfigError if `text` is not TOML."""
        self.name = name
        self._lines = dict(_lines_of_keys(text))
        try:
            content = tomllib.loads(text)
        except tomllib.TOMLDecodeError as error:
            raise ConfigError(f"{name} is not TOML: {error}") from error
        self.top = Table(content, "", self)

    def place(self, path: str, key: str) -> str:
        """`file` or `file:line`, for the beginning of a sentence."""
        line = self._lines.get((path, key)) or self._lines.get((path, ""))
        return self.name if line is None else f"{self.name}:{line}"


def read_document(path: Path) -> Document:
    """The document in a file. Raises ConfigError and OSError."""
    try:
        return Document(path.name, path.read_text(encoding="utf-8"))
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path.name} is not UTF-8: {error.reason}") from error


def _lines_of_keys(text: str) -> Iterator[tuple[tuple[str, str], int]]:
    """((table, key), line) for what stands at the beginning of a line; key "" is the header.

    A table in a list is called as people count: `domains 2`.
    """
    table = ""
    counts: dict[str, int] = {}
    for number, line in enumerate(text.splitlines(), start=1):
        if (header := _HEADER.match(line)) is not None:
            table = header[2]
            above, _, key_above = table.rpartition(".")
            if table not in counts:
                yield (above, key_above), number
            if header[1]:
                counts[table] = counts.get(table, 0) + 1
                table = f"{table} {counts[table]}"
            yield (table, ""), number
        elif (key := _KEY.match(line)) is not None:
            yield (table, key[1]), number


class Table:
    """One table of a document; what is taken is gone from it."""

    def __init__(self, content: Mapping[str, Any], path: str, document: Document) -> None:
        self._rest = dict(content)
        self._path = path
        self._document = document
        self._known: list[str] = []

    def error(self, key: str, what: str) -> ConfigError:
        """A refusal of what stands at `key`."""
        where = f" [{self._path}]" if self._path else ""
        return ConfigError(f"{self._document.place(self._path, key)}:{where} {what}")

    def take(self, key: str, kind: type[T], default: T | None = None) -> T:
        """The value at `key`. Raises ConfigError when it is missing or of another kind."""
        self._known.append(key)
        value = self._rest.pop(key, default)
        if value is None:
            raise self.error("", f"lacks {key!r}")
        if kind is float and isinstance(value, int) and not isinstance(value, bool):
            value = float(value)
        if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
            raise self.error(key, f"{key} = {value!r} is not {_KINDS[kind]}")
        return value

    def take_number(self, key: str, default: int, least: int, most: int) -> int:
        """A whole number from `least` to `most`."""
        value = self.take(key, int, default)
        if not least <= value <= most:
            raise self.error(key, f"{key} = {value} is not between {least} and {most}")
        return value

    def take_ms(self, key: str, default: float | None = 0) -> int:
        """A time that is written in milliseconds, in ns; without a default it has to be there."""
        value = self.take(key, float, None if default is None else float(default))
        if not 0 <= value <= 1e12:  # 30 years; infinity and "not a number" are beyond
            raise self.error(key, f"{key} = {value:g} is not a number of milliseconds")
        return round(value * 1_000_000)

    def take_choice(self, key: str, choices: tuple[str, ...], default: str) -> str:
        """One of some words."""
        value = self.take(key, str, default)
        if value not in choices:
            raise self.error(key, f"{key} = {value!r} is none of {', '.join(choices)}")
        return value

    def take_table(self, key: str) -> Table:
        """A table within, empty if it is not there."""
        return Table(self.take(key, dict, {}), self._below(key), self._document)

    def take_tables(self, key: str) -> list[Table]:
        """A list of tables, `[[key]]`; empty if there is none."""
        tables = []
        for number, content in enumerate(self.take(key, list, []), start=1):
            if not isinstance(content, dict):
                raise self.error(key, f"{key} is a list of tables, written [[{key}]]")
            tables.append(Table(content, f"{self._below(key)} {number}", self._document))
        return tables

    def _below(self, key: str) -> str:
        return f"{self._path}.{key}" if self._path else key

    def __contains__(self, key: str) -> bool:
        return key in self._rest

    def finish(self) -> None:
        """Raise ConfigError when something is left that nobody knows."""
        for key in self._rest:
            near = difflib.get_close_matches(key, self._known, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise self.error(key, f"{key!r} is not known here{hint}")
