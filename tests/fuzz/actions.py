"""What a fuzzed guest does, as plain data: to be mutated, spliced, shrunk, written and done again.

No action holds a frame number or an address. Each value is a `Term`, a place in a pool by role ("an
L2 table", "a frame of the neighbour's") with a shift and an addend, and gets its number when the
action is done: so a list of actions means the same on another machine, in another domain, and after
half of it was taken out.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from enum import IntEnum
from typing import Any


class Kind(IntEnum):
    """What an action is."""

    CALL = 0  # a hypercall; `number` and `args`
    POKE = (
        1  # plain stores to memory that the guest could map writable; `blocks` by machine address
    )
    STORE = 2  # one of the stores in `target.STORES`; `args` are its address and registers


class Via(IntEnum):
    """Which way into the VMM a hypercall takes."""

    HANDLER = 0  # the handler itself: the quickest, and refusals keep their reasons
    DISPATCHER = 1  # the dispatcher, with live registers, and events delivered after it
    ENGINE = 2  # an instruction that the engine executes


@dataclass(frozen=True, slots=True)
class Term:
    """A number: `(pool[index] << shift) + plus`; the index wraps, the pool "num" holds a 0."""

    pool: str = "num"
    index: int = 0
    shift: int = 0
    plus: int = 0

    def __repr__(self) -> str:
        base = "" if self.pool == "num" else f"{self.pool}[{self.index}]"
        base += f" << {self.shift}" if self.shift else ""
        if not base:
            return f"{self.plus:#x}"
        return f"{base} + {self.plus:#x}" if self.plus else base


@dataclass(frozen=True, slots=True)
class Block:
    """Values that lie one behind the other in memory, each with its size in bytes."""

    at: Term
    items: tuple[tuple[int, Term], ...]


@dataclass(frozen=True, slots=True)
class Action:
    """One thing that a guest does."""

    kind: Kind
    number: int
    args: tuple[Term, ...]
    blocks: tuple[Block, ...] = ()
    via: Via = Via.HANDLER


def dumps(actions: list[Action]) -> str:
    """Actions as text, one a line."""
    return "\n".join(json.dumps(_plain(action)) for action in actions)


def loads(text: str) -> list[Action]:
    """The opposite. Raises ValueError for what is none."""
    return [_action(json.loads(line)) for line in text.splitlines() if line.strip()]


def _plain(action: Action) -> list[Any]:
    return [
        int(action.kind),
        action.number,
        int(action.via),
        [_term(term) for term in action.args],
        [
            [_term(block.at), [[size, _term(term)] for size, term in block.items]]
            for block in action.blocks
        ],
    ]


def _term(term: Term) -> list[Any]:
    return [term.pool, term.index, term.shift, term.plus]


def _action(raw: list[Any]) -> Action:
    kind, number, via, args, blocks = raw
    return Action(
        Kind(kind),
        number,
        tuple(Term(*term) for term in args),
        tuple(
            Block(Term(*at), tuple((size, Term(*term)) for size, term in items))
            for at, items in blocks
        ),
        Via(via),
    )
