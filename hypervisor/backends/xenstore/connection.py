"""One domain's end of the store: what it has sent, what waits for it, what it watches.

What a domain does not take waits here, so all of it is bounded: replies by not reading its requests
meanwhile, watch events by dropping those that wait already and, past a limit, all.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

from hypervisor.abi.xs_wire import XenstoreError
from hypervisor.backends.xenstore.limits import (
    MAX_OUTSTANDING,
    MAX_PAYLOAD,
    MAX_QUEUED_BYTES,
)
from hypervisor.backends.xenstore.tree import Transaction
from hypervisor.backends.xenstore.wire import Message


@dataclass(frozen=True, slots=True)
class Watch:
    """Somebody wants to hear of a path and all below it."""

    path: str  # absolute, or special
    token: bytes
    relative_to: str = ""  # events name paths as the watch did: without this and a slash


@dataclass(slots=True)
class Connection:
    """One domain's end of the store."""

    domid: int
    input: bytearray = field(default_factory=bytearray)  # less than one message, when not stalled
    queue: deque[tuple[bytes, bool]] = field(default_factory=deque)  # message, whether an event
    queued_bytes: int = 0  # in the queue, what was sent of its head included
    head_sent: int = 0  # bytes of the first message that the domain has already
    nr_replies: int = 0  # in the queue
    waiting: set[bytes] = field(default_factory=set)  # events in the queue
    watches: dict[tuple[str, bytes], Watch] = field(default_factory=dict)  # by path and token
    transactions: dict[int, Transaction] = field(default_factory=dict)
    next_transaction: int = 1
    nr_events_lost: int = 0
    error: XenstoreError = XenstoreError.NONE  # not NONE: nothing is read or sent any more

    @property
    def is_dropped(self) -> bool:
        """Whether it broke the rules, and is not listened to any more."""
        return self.error is not XenstoreError.NONE

    @property
    def is_stalled(self) -> bool:
        """Whether it has to take answers before its next request is looked at."""
        return self.nr_replies >= MAX_OUTSTANDING

    # --- what waits for the domain ----------------------------------------------------------------
    def reply(self, message: Message) -> None:
        """An answer; there is one for each request."""
        self._append(message.encode(), is_event=False)
        self.nr_replies += 1

    def event(self, message: Message, *, is_first: bool = False) -> None:
        """A watch event, unless the same one waits already: it will be taken after this change.

        The first event of a watch is sent in any case: it belongs behind the watch's answer.
        """
        raw = message.encode()
        if len(message.payload) > MAX_PAYLOAD or (raw in self.waiting and not is_first):
            return
        if self.queued_bytes + len(raw) > MAX_QUEUED_BYTES:
            self.nr_events_lost += 1
            return
        self._append(raw, is_event=True)
        self.waiting.add(raw)

    def _append(self, raw: bytes, *, is_event: bool) -> None:
        self.queue.append((raw, is_event))
        self.queued_bytes += len(raw)

    def peek(self, size: int) -> bytes:
        """The next bytes for the domain, `size` at most."""
        parts: list[bytes] = []
        skip, found = self.head_sent, 0
        for raw, _ in self.queue:
            parts.append(raw[skip : skip + size - found])
            found += len(parts[-1])
            skip = 0
            if found == size:
                break
        return b"".join(parts)

    def sent(self, size: int) -> None:
        """The domain has the next `size` bytes."""
        self.head_sent += size
        while self.queue and self.head_sent >= len(self.queue[0][0]):
            raw, is_event = self.queue.popleft()
            self.head_sent -= len(raw)
            self.queued_bytes -= len(raw)
            if is_event:
                self.waiting.discard(raw)
            else:
                self.nr_replies -= 1

    # --- ends -------------------------------------------------------------------------------------
    def forget(self) -> None:
        """No watches and no transactions any more."""
        self.watches.clear()
        self.transactions.clear()

    def drop(self, error: XenstoreError) -> None:
        """Listen no more: what it sent cannot be understood (xenstored's ignore_connection)."""
        self.forget()
        self.input.clear()
        self.queue.clear()
        self.waiting.clear()
        self.queued_bytes = self.head_sent = self.nr_replies = 0
        self.error = error
