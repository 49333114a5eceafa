"""A domain that talks with a store over the wire, for tests."""

from __future__ import annotations

from dataclasses import dataclass, field

from hypervisor.abi.xs_wire import XsType
from hypervisor.backends.xenstore import Connection, Store
from hypervisor.backends.xenstore.wire import Message, take_message


def everything(connection: Connection) -> list[Message]:
    """All that waits for a domain; it has taken it afterwards."""
    raw = bytearray(connection.peek(1 << 30))
    connection.sent(len(raw))
    messages = []
    while (message := take_message(raw)) is not None:
        messages.append(message)
    assert not raw
    return messages


@dataclass
class Client:
    """One domain. `ask` gives the answer, events are kept in `events`."""

    store: Store
    domid: int
    connection: Connection = field(init=False)
    events: list[tuple[str, str]] = field(default_factory=list)  # path, token
    _next: int = 1

    def __post_init__(self) -> None:
        self.connection = self.store.connect(self.domid)

    def ask(self, kind: int, *strings: str | bytes, tx: int = 0) -> str | bytes:
        """The answer to one request: its payload, or the error's name as a str."""
        payload = b"".join(
            (text.encode("latin-1") if isinstance(text, str) else text) + b"\0" for text in strings
        )
        return self.ask_raw(kind, payload, tx=tx)

    def ask_raw(self, kind: int, payload: bytes, tx: int = 0) -> str | bytes:
        """The same with a payload as it is."""
        number, self._next = self._next, self._next + 1
        self.store.receive(self.connection, Message(kind, number, tx, payload).encode())
        (answer,) = self.take()
        assert (answer.req_id, answer.tx_id) == (number, tx)
        if answer.type == XsType.ERROR:
            return answer.payload.rstrip(b"\0").decode()
        assert answer.type == kind
        return answer.payload

    def take(self) -> list[Message]:
        """Take all that waits: answers are returned, events kept."""
        answers = []
        for message in everything(self.connection):
            if message.type == XsType.WATCH_EVENT:
                assert (message.req_id, message.tx_id) == (0, 0)
                path, token, rest = message.payload.decode("latin-1").split("\0")
                assert rest == ""
                self.events.append((path, token))
            else:
                answers.append(message)
        return answers

    def heard(self) -> list[tuple[str, str]]:
        """Events since the last time."""
        assert self.take() == []
        events, self.events = self.events, []
        return events

    # --- the requests in words --------------------------------------------------------------------
    def read(self, path: str, tx: int = 0) -> str | bytes:
        return self.ask(XsType.READ, path, tx=tx)

    def write(self, path: str, value: bytes | str, tx: int = 0) -> str | bytes:
        raw = value.encode("latin-1") if isinstance(value, str) else value
        return self.ask_raw(XsType.WRITE, path.encode("latin-1") + b"\0" + raw, tx=tx)

    def mkdir(self, path: str, tx: int = 0) -> str | bytes:
        return self.ask(XsType.MKDIR, path, tx=tx)

    def rm(self, path: str, tx: int = 0) -> str | bytes:
        return self.ask(XsType.RM, path, tx=tx)

    def directory(self, path: str, tx: int = 0) -> str | bytes:
        return self.ask(XsType.DIRECTORY, path, tx=tx)

    def watch(self, path: str, token: str) -> str | bytes:
        return self.ask(XsType.WATCH, path, token)

    def start(self) -> int:
        answer = self.ask(XsType.TRANSACTION_START, "")
        assert isinstance(answer, bytes)
        return int(answer.rstrip(b"\0"))

    def end(self, tx: int, answer: str = "T") -> str | bytes:
        return self.ask(XsType.TRANSACTION_END, answer, tx=tx)


OK = b"OK\0"


def domu(store: Store, domid: int) -> Client:
    """A domain with a home of its own, /local/domain/N/data, and nothing else."""
    home = f"/local/domain/{domid}"
    store.write(f"{home}/name", f"guest{domid}")
    store.write(f"{home}/data", "")
    store.set_permissions(home, ("n", 0), ("r", domid))
    store.set_permissions(f"{home}/name", ("n", 0), ("r", domid))
    store.set_permissions(f"{home}/data", ("n", domid))
    return Client(store, domid)
