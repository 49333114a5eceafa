"""The FIFO ABI against a model: whatever the order of operations, no event is lost or told twice.

The model knows which ports have an event waiting and which are masked. The guest's side takes
queues apart as Linux does, one event at a time, so that events are linked behind, and instead of,
what is being taken.
"""

from __future__ import annotations

from functools import cache
from typing import Final

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from hypervisor.abi.width import Width
from tests.support.callers import Guest, guests

PENDING: Final = 1 << 31
MASKED: Final = 1 << 30
LINKED: Final = 1 << 29
LINK: Final = (1 << 17) - 1
NR_PORTS: Final = 5
PORTS: Final = st.integers(0, NR_PORTS - 1)
PRIORITIES: Final = st.sampled_from([7, 7, 3])
VCPUS: Final = st.integers(0, 1)


@cache
def domain() -> Guest:
    """Made once: its ports are closed before each example."""
    return guests(Width.X86_64, nr_vcpus=2).__enter__()[0]


class Fifo(RuleBasedStateMachine):
    """One domain of two vCPUs, five ports that may be moved between them."""

    def __init__(self) -> None:
        super().__init__()
        guest = domain()
        self.dom, self.events = guest.dom, guest.host.events
        self.words = guest.host.memory.u32
        self.events.reset(self.dom)
        control, self.array = self.dom.p2m[-1], self.dom.p2m[-2]
        for mfn in (control, self.array):
            guest.host.memory.frame(mfn)[:] = bytes(4096)
        self.blocks = [(control << 10) + 32 * vcpu for vcpu in (0, 1)]
        for vcpu in (0, 1):
            self.events.init_control(self.dom, vcpu, control, 128 * vcpu)
        self.events.expand_array(self.dom, self.array)
        self.ports = [self.events.alloc_unbound(self.dom, 0) for _ in range(NR_PORTS)]
        self.waiting: set[int] = set()
        self.masked: set[int] = set()
        self.heads: dict[tuple[int, int], int] = {}  # what the guest is in the middle of taking

    def at(self, port: int) -> int:
        return (self.array << 10) + port

    # --- Xen's side ----------------------------------------------------------------------------
    @rule(which=PORTS)
    def happen(self, which: int) -> None:
        port = self.ports[which]
        self.events.set_pending(self.dom, port)
        self.waiting.add(port)

    @rule(which=PORTS, priority=PRIORITIES)
    def set_priority(self, which: int, priority: int) -> None:
        self.events.set_priority(self.dom, self.ports[which], priority)

    @rule(which=PORTS, vcpu=VCPUS)
    def bind_vcpu(self, which: int, vcpu: int) -> None:
        self.events.bind_vcpu(self.dom, self.ports[which], vcpu)

    @rule(which=PORTS)
    def unmask(self, which: int) -> None:
        self.events.unmask(self.dom, self.ports[which])
        self.masked.discard(self.ports[which])

    # --- the guest's ---------------------------------------------------------------------------
    @rule(which=PORTS)
    def mask(self, which: int) -> None:
        port = self.ports[which]
        self.words[self.at(port)] |= MASKED
        self.masked.add(port)

    @rule(vcpu=VCPUS, priority=st.sampled_from([3, 7]))
    def take_one(self, vcpu: int, priority: int) -> None:
        """consume_one_event: where the queue goes on is remembered, as Linux does."""
        block = self.blocks[vcpu]
        queue = vcpu, priority
        port = self.heads.get(queue, 0)
        if not port:
            if not self.words[block] >> priority & 1:
                return
            self.words[block] &= ~(1 << priority)
            port = self.words[block + 2 + priority]
        word = self.words[self.at(port)]
        assert word & LINKED
        self.words[self.at(port)] = word & ~(LINKED | LINK)
        self.heads[queue] = word & LINK
        if word & PENDING and not word & MASKED:
            self.words[self.at(port)] &= ~PENDING
            assert port in self.waiting
            self.waiting.discard(port)

    @rule()
    def take_all(self) -> None:
        """Until nothing is ready: then nothing that is not masked waits any more."""
        for _ in range(100):
            for vcpu in (0, 1):
                for priority in (3, 7):
                    self.take_one(vcpu, priority)
        assert self.waiting <= self.masked

    # --- what always holds ---------------------------------------------------------------------
    @invariant()
    def words_are_what_the_model_says(self) -> None:
        words = {port: self.words[self.at(port)] for port in self.ports}
        assert {port for port, word in words.items() if word & PENDING} == self.waiting
        assert {port for port, word in words.items() if word & MASKED} == self.masked

    @invariant()
    def what_waits_unmasked_is_in_a_queue(self) -> None:
        """A port masked while it was in a queue and unmasked by Xen is put back there."""
        for port in self.waiting - self.masked:
            assert self.words[self.at(port)] & LINKED


Fifo.TestCase.settings = settings(
    max_examples=150, stateful_step_count=50, deadline=None, derandomize=True
)
TestFifo = Fifo.TestCase
