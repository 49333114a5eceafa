"""The FIFO ABI, word by word: linking, tails, priorities, queues that change, frames held."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from hypervisor.abi.errno import Errno
from hypervisor.abi.event_channel import EVTCHN_FIFO_NR_CHANNELS
from hypervisor.abi.width import Width
from hypervisor.abi.xen import Virq
from hypervisor.domain.domain import VcpuState
from hypervisor.events.fifo import MAX_ARRAY_PAGES, WORDS_PER_PAGE
from hypervisor.events.ports import PORTS_PER_BUCKET, PortState
from hypervisor.events.two_level import nr_ports
from hypervisor.mm.frames import FrameType
from tests.support.callers import Guest, guests, refused

PENDING, MASKED, LINKED, BUSY = 1 << 31, 1 << 30, 1 << 29, 1 << 28
LINK = (1 << 17) - 1
HEAD = 8  # offset in the control block
DEFAULT = 7


class Side:
    """A domain of two vCPUs that uses the ABI: what its kernel would see and do."""

    def __init__(self, guest: Guest) -> None:
        self.guest = guest
        self.dom = guest.dom
        self.events = guest.host.events
        self.memory = guest.host.memory
        free = [pfn for pfn in range(len(self.dom.p2m) - 1, 0, -1) if self.is_plain(pfn)]
        self.spare = [self.dom.p2m[pfn] for pfn in free[:8]]
        self.control, self.array = self.spare[0], self.spare[1]

    def is_plain(self, pfn: int) -> bool:
        frames, mfn = self.guest.host.frames, self.dom.p2m[pfn]
        return frames.type[mfn] in (FrameType.NONE, FrameType.WRITABLE)

    def start(self) -> None:
        """Both control blocks in one page, and the first words."""
        self.events.init_control(self.dom, 0, self.control, 0)
        self.events.init_control(self.dom, 1, self.control, 128)
        self.events.expand_array(self.dom, self.array)

    def word(self, port: int) -> int:
        return self.memory.u32[(self.array << 10) + port]

    def set_word(self, port: int, value: int) -> None:
        self.memory.u32[(self.array << 10) + port] = value

    def ready(self, vcpu: int = 0) -> int:
        return self.memory.u32[(self.control << 10) + 32 * vcpu]

    def head(self, priority: int = DEFAULT, vcpu: int = 0) -> int:
        return self.memory.u32[(self.control << 12) + 128 * vcpu + HEAD + 4 * priority >> 2]

    def ipi(self, vcpu: int = 0) -> int:
        return self.events.bind_ipi(self.dom, vcpu)

    def happen(self, *ports: int) -> None:
        for port in ports:
            self.events.set_pending(self.dom, port)

    def take(self, priority: int = DEFAULT, vcpu: int = 0) -> list[int]:
        """Empty a queue, as Linux's consume_one_event does: the ports that were pending."""
        block = (self.control << 10) + 32 * vcpu
        self.memory.u32[block] &= ~(1 << priority)
        port, taken = self.head(priority, vcpu), []
        while port:
            word = self.word(port)
            self.set_word(port, word & ~(LINKED | LINK | PENDING))
            if word & PENDING:
                taken.append(port)
            port = word & LINK
        return taken

    def is_upcall_pending(self, vcpu: int = 0) -> bool:
        return bool(self.memory.view[self.dom.vcpus[vcpu].vcpu_info_maddr])


@pytest.fixture(params=[Width.X86_32P, Width.X86_64], ids=lambda width: width.name)
def side(request: pytest.FixtureRequest) -> Iterator[Side]:
    with guests(request.param, nr_vcpus=2) as (only,):
        yield Side(only)


@pytest.fixture
def fifo(side: Side) -> Side:
    side.start()
    return side


# --- switching ------------------------------------------------------------------------------------
def test_the_first_control_block_switches_the_abi(side: Side) -> None:
    table = side.events.tables[side.dom.domid]
    before = table.nr_ports
    side.events.init_control(side.dom, 0, side.control, 8)
    assert table.nr_ports == EVTCHN_FIFO_NR_CHANNELS > before


def test_a_control_block_is_given_once(fifo: Side) -> None:
    with refused(Errno.EINVAL, "^d1v0 has its control block$"):
        fifo.events.init_control(fifo.dom, 0, fifo.spare[2], 0)


def test_control_block_of_a_missing_vcpu(side: Side) -> None:
    with refused(Errno.ENOENT, "^d1 has no vCPU 2$"):
        side.events.init_control(side.dom, 2, side.control, 0)


@pytest.mark.parametrize(
    ("offset", "why"), [(4096 - 71, "leave its page"), (4, "not aligned"), (1 << 31, "leave")]
)
def test_control_block_in_a_bad_place(side: Side, offset: int, why: str) -> None:
    with refused(Errno.EINVAL, why):
        side.events.init_control(side.dom, 0, side.control, offset)
    assert side.events.tables[side.dom.domid].fifo is None


def test_last_place_of_a_page_will_do(side: Side) -> None:
    side.events.init_control(side.dom, 0, side.control, 4096 - 72)


def test_frames_that_are_not_ordinary_memory_of_the_guests(side: Side) -> None:
    root = side.dom.vcpus[0].root_mfn
    for mfn in (root, 1, 1 << 40):
        with refused(Errno.EINVAL, "."):
            side.events.init_control(side.dom, 0, mfn, 0)
    side.events.init_control(side.dom, 0, side.control, 0)
    for mfn in (root, 1, 1 << 40):
        with refused(Errno.EINVAL, "."):
            side.events.expand_array(side.dom, mfn)


def test_without_a_control_block_there_is_no_array(side: Side) -> None:
    with refused(Errno.EOPNOTSUPP, "^d1 has no control block$"):
        side.events.expand_array(side.dom, side.array)


def test_all_ports_have_words_in_the_end(side: Side) -> None:
    side.events.init_control(side.dom, 0, side.control, 0)
    for _ in range(MAX_ARRAY_PAGES):
        side.events.expand_array(side.dom, side.array)
    with refused(Errno.ENOSPC, "^d1 has a word for every port$"):
        side.events.expand_array(side.dom, side.array)


def test_frames_are_held_writable_until_the_reset(fifo: Side) -> None:
    frames = fifo.guest.host.frames
    held = [frames.type_count[mfn] for mfn in (fifo.control, fifo.array)]
    fifo.guest.machine.audit()
    fifo.events.reset(fifo.dom)
    now = [frames.type_count[mfn] for mfn in (fifo.control, fifo.array)]
    assert [before - after for before, after in zip(held, now, strict=True)] == [2, 1]


def test_reset_goes_back_to_the_bitmaps(fifo: Side) -> None:
    fifo.events.reset(fifo.dom)
    port = fifo.ipi()
    fifo.happen(port)
    assert fifo.events.bits.is_pending(fifo.dom, port)
    assert fifo.word(port) == 0
    fifo.start()


def test_an_event_of_the_bitmaps_happens_again_when_its_port_has_a_word(side: Side) -> None:
    port = side.ipi()
    side.happen(port)
    side.events.init_control(side.dom, 0, side.control, 0)
    assert not side.events.is_pending(side.dom, port)
    assert side.head() == 0
    side.events.expand_array(side.dom, side.array)
    assert side.word(port) == PENDING | LINKED
    assert side.head() == port


def test_an_event_without_a_word_waits_for_it(side: Side) -> None:
    side.events.init_control(side.dom, 0, side.control, 0)
    port = side.ipi()
    side.happen(port)
    side.events.expand_array(side.dom, side.array)
    assert side.take() == [port]
    side.events.expand_array(side.dom, side.spare[2])
    assert side.take() == []


def test_a_word_is_masked_as_long_as_it_does_not_exist(side: Side) -> None:
    side.events.init_control(side.dom, 0, side.control, 0)
    fifo = side.events.tables[side.dom.domid].fifo
    assert fifo is not None
    assert side.events.fifo.is_masked(fifo, 5)
    side.events.expand_array(side.dom, side.array)
    assert not side.events.fifo.is_masked(fifo, 5)


# --- linking --------------------------------------------------------------------------------------
def test_the_first_event_is_the_head_and_an_upcall(fifo: Side) -> None:
    port = fifo.ipi()
    fifo.happen(port)
    assert fifo.word(port) == PENDING | LINKED
    assert (fifo.head(), fifo.ready()) == (port, 1 << DEFAULT)
    assert fifo.is_upcall_pending()


def test_the_next_ones_are_linked_behind_it(fifo: Side) -> None:
    ports = [fifo.ipi() for _ in range(3)]
    fifo.happen(*ports)
    assert fifo.head() == ports[0]
    assert [fifo.word(port) & LINK for port in ports] == [ports[1], ports[2], 0]
    assert fifo.take() == ports


def test_a_pending_event_is_not_linked_twice(fifo: Side) -> None:
    first, second = fifo.ipi(), fifo.ipi()
    fifo.happen(first, second, first, second)
    assert fifo.take() == [first, second]


def test_only_the_first_event_of_a_queue_is_an_upcall(fifo: Side) -> None:
    first, second = fifo.ipi(), fifo.ipi()
    fifo.happen(first)
    fifo.memory.view[fifo.dom.vcpus[0].vcpu_info_maddr] = 0
    fifo.happen(second)
    assert not fifo.is_upcall_pending()


def test_an_emptied_queue_begins_again(fifo: Side) -> None:
    first, second = fifo.ipi(), fifo.ipi()
    fifo.happen(first)
    fifo.take()
    fifo.happen(second)
    assert fifo.head() == second
    assert fifo.word(first) == 0
    assert fifo.take() == [second]


def test_the_tail_itself_can_happen_again_when_it_was_taken(fifo: Side) -> None:
    port = fifo.ipi()
    fifo.happen(port)
    assert fifo.take() == [port]
    fifo.happen(port)
    assert fifo.word(port) == PENDING | LINKED
    assert fifo.take() == [port]


def test_a_masked_event_is_pending_and_in_no_queue(fifo: Side) -> None:
    port = fifo.ipi()
    fifo.set_word(port, MASKED)
    fifo.happen(port)
    assert fifo.word(port) == MASKED | PENDING
    assert fifo.head() == 0
    fifo.events.unmask(fifo.dom, port)
    assert fifo.word(port) == PENDING | LINKED
    assert fifo.take() == [port]


def test_unmask_without_an_event_links_nothing(fifo: Side) -> None:
    port = fifo.ipi()
    fifo.set_word(port, MASKED)
    fifo.events.unmask(fifo.dom, port)
    assert fifo.word(port) == 0


def test_linking_clears_busy_and_an_old_link(fifo: Side) -> None:
    first, second = fifo.ipi(), fifo.ipi()
    fifo.happen(first)
    fifo.set_word(first, PENDING | LINKED | BUSY | 999)
    fifo.happen(second)
    assert fifo.word(first) == PENDING | LINKED | second


def test_without_a_control_block_an_event_is_pending_and_dropped(side: Side) -> None:
    side.events.init_control(side.dom, 0, side.control, 0)
    side.events.expand_array(side.dom, side.array)
    port = side.ipi(vcpu=1)
    side.happen(port)
    assert side.word(port) == PENDING
    assert not side.is_upcall_pending(1)


# --- queues ---------------------------------------------------------------------------------------
def test_each_priority_has_its_queue(fifo: Side) -> None:
    high, low = fifo.ipi(), fifo.ipi()
    fifo.events.set_priority(fifo.dom, high, 0)
    fifo.events.set_priority(fifo.dom, low, 15)
    fifo.happen(low, high)
    assert fifo.ready() == 1 << 15 | 1
    assert (fifo.head(0), fifo.head(15)) == (high, low)


def test_each_vcpu_has_its_queues(fifo: Side) -> None:
    zero, one = fifo.ipi(0), fifo.ipi(1)
    fifo.happen(zero, one)
    assert (fifo.head(), fifo.head(vcpu=1)) == (zero, one)
    assert fifo.is_upcall_pending(1)


def test_a_new_priority_counts_from_the_next_event_on(fifo: Side) -> None:
    port = fifo.ipi()
    fifo.happen(port)
    fifo.events.set_priority(fifo.dom, port, 3)
    assert (fifo.head(), fifo.head(3)) == (port, 0)
    fifo.take()
    fifo.happen(port)
    assert fifo.head(3) == port
    assert fifo.take(3) == [port]


def test_a_moved_tail_is_no_tail_of_the_old_queue(fifo: Side) -> None:
    """Else what comes behind it there would be linked into the new queue."""
    moving, staying = fifo.ipi(), fifo.ipi()
    fifo.happen(moving)
    fifo.take()
    fifo.events.set_priority(fifo.dom, moving, 3)
    fifo.happen(moving, staying)
    assert fifo.word(moving) == PENDING | LINKED
    assert (fifo.head(3), fifo.head()) == (moving, staying)


def test_a_port_moved_to_another_vcpu_is_queued_there(fifo: Side) -> None:
    port = fifo.events.bind_virq(fifo.dom, Virq.CONSOLE, 0)
    fifo.happen(port)
    fifo.take()
    fifo.events.bind_vcpu(fifo.dom, port, 1)
    fifo.happen(port)
    assert fifo.take(vcpu=1) == [port]


@pytest.mark.parametrize(
    ("port", "priority", "errno"),
    [(999, 0, Errno.EINVAL), (60, 0, Errno.EACCES), (0, 0, Errno.EACCES), (5, 16, Errno.EINVAL)],
)
def test_priorities_that_are_refused(fifo: Side, port: int, priority: int, errno: Errno) -> None:
    while fifo.ipi() != 5:
        pass
    with refused(errno, "."):
        fifo.events.set_priority(fifo.dom, port, priority)


def test_the_bitmaps_know_no_priorities(side: Side) -> None:
    with refused(Errno.ENOSYS, "^2-level ports have no priorities$"):
        side.events.set_priority(side.dom, side.ipi(), 3)


def test_a_bound_port_has_the_default_priority_again(fifo: Side) -> None:
    port = fifo.ipi()
    fifo.events.set_priority(fifo.dom, port, 3)
    fifo.events.close(fifo.dom, port)
    assert fifo.ipi() == port
    fifo.happen(port)
    assert fifo.head() == port


# --- ports ----------------------------------------------------------------------------------------
def test_a_closed_port_is_given_again_only_when_it_left_its_queue(fifo: Side) -> None:
    port, other = fifo.ipi(), fifo.ipi()
    fifo.happen(port)
    fifo.events.close(fifo.dom, port)
    assert fifo.word(port) == LINKED
    assert fifo.ipi() == other + 1
    assert fifo.take() == []
    assert fifo.ipi() == port


def test_ports_beyond_the_bitmaps(fifo: Side) -> None:
    table = fifo.events.tables[fifo.dom.domid]
    fifo.events.expand_array(fifo.dom, fifo.spare[2])
    fifo.events.expand_array(fifo.dom, fifo.spare[3])
    while (port := fifo.ipi()) < 2 * WORDS_PER_PAGE + 3:
        pass
    fifo.happen(port)
    assert fifo.memory.u32[(fifo.spare[3] << 10) + 3] == PENDING | LINKED
    assert len(table.channels) % PORTS_PER_BUCKET == 0


def test_after_a_reset_only_the_bitmaps_ports_are_given(fifo: Side) -> None:
    limit = nr_ports(fifo.dom.width)
    while fifo.ipi() < limit + PORTS_PER_BUCKET:
        pass
    while not fifo.events.reset(fifo.dom, resuming=fifo.events.tables[1].next_to_reset > 0):
        pass
    for _ in range(limit - 1):
        fifo.ipi()
    with refused(Errno.ENOSPC, f"^d1 has used all {limit} ports$"):
        fifo.ipi()


def test_long_resets_go_on_later(fifo: Side) -> None:
    while fifo.ipi() < 3000:
        pass
    with refused(Errno.EBUSY, "."):
        fifo.events.reset(fifo.dom, resuming=True)
    assert not fifo.events.reset(fifo.dom)
    with refused(Errno.EBUSY, "."):
        fifo.events.reset(fifo.dom)
    rounds = 1
    while not fifo.events.reset(fifo.dom, resuming=True):
        rounds += 1
    assert rounds == 2
    states = {channel.state for channel in fifo.events.tables[1].channels}
    assert states == {PortState.FREE, PortState.RESERVED}


# --- whom it wakes --------------------------------------------------------------------------------
def test_an_event_wakes_its_vcpu_and_pollers(fifo: Side) -> None:
    port = fifo.ipi(1)
    one, zero = fifo.dom.vcpus[1], fifo.dom.vcpus[0]
    one.state, one.saved = VcpuState.BLOCKED, zero.saved
    fifo.happen(port)
    assert one.state is VcpuState.RUNNABLE


def test_a_masked_event_wakes_a_poller(fifo: Side) -> None:
    port = fifo.ipi(1)
    fifo.set_word(port, MASKED)
    zero = fifo.dom.vcpus[0]
    zero.state, zero.poll_ports = VcpuState.POLLING, (port,)
    fifo.happen(port)
    assert zero.state is VcpuState.RUNNABLE
