"""The FIFO ABI: queues of events in the guest's memory, by priority and vCPU.

Every port has a word: PENDING (the event happened), MASKED, and while it is in a queue LINKED with
the number of the port behind it in LINK. A vCPU's control block says which of its 16 queues have
something (`ready`) and where each begins (`head`); where a queue ends only Xen knows. An event that
is neither masked nor linked already is put behind the tail, if the tail is still linked; else the
guest has emptied the queue and the event becomes its head (evtchn_fifo_set_pending in Xen's
common/event_fifo.c).

The guest may write anything into words and control blocks at any time, and only confuses itself:
all that is followed here are Xen's own notes, in `FifoState`. Nothing runs in the guest meanwhile,
so BUSY, by which Xen locks a tail against its guest, is never seen set.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from hypervisor.abi.errno import Errno
from hypervisor.abi.errors import XenError
from hypervisor.abi.event_channel import (
    EVTCHN_FIFO_BUSY,
    EVTCHN_FIFO_LINK_MASK,
    EVTCHN_FIFO_LINKED,
    EVTCHN_FIFO_MASKED,
    EVTCHN_FIFO_NR_CHANNELS,
    EVTCHN_FIFO_PENDING,
    EVTCHN_FIFO_PRIORITY_DEFAULT,
    EVTCHN_FIFO_PRIORITY_MIN,
    EvtchnFifoControlBlock,
)
from hypervisor.abi.layout import layout
from hypervisor.abi.width import Width
from hypervisor.domain.domain import Domain
from hypervisor.events.ports import Channel, FifoQueues, FifoState, PortTable
from hypervisor.machine.memory import MachineMemory
from hypervisor.mm.frames import FrameType
from hypervisor.x86.paging import PAGE_SHIFT, PAGE_SIZE

WORDS_PER_PAGE: Final = PAGE_SIZE // 4
MAX_ARRAY_PAGES: Final = EVTCHN_FIFO_NR_CHANNELS // WORDS_PER_PAGE
_CONTROL: Final = layout(EvtchnFifoControlBlock, Width.X86_64)
_HEAD: Final = _CONTROL.offset("head")
_WORDS_SHIFT: Final = 10  # event words in a frame, log2

_PENDING: Final = 1 << EVTCHN_FIFO_PENDING
_MASKED: Final = 1 << EVTCHN_FIFO_MASKED
_LINKED: Final = 1 << EVTCHN_FIFO_LINKED
_NOT_LINKABLE: Final = _MASKED | _LINKED
_KEPT_BY_LINKING: Final = ~(1 << EVTCHN_FIFO_BUSY | EVTCHN_FIFO_LINK_MASK)


class Fifo:
    """Reads and writes the event words and control blocks of any domain that has them."""

    def __init__(self, memory: MachineMemory) -> None:
        self._words = memory.u32
        self.written: Callable[[int, int], None] = _nobody  # maddr, bytes: code may lie there

    # --- setting up ----------------------------------------------------------------------------
    def init_control(
        self, dom: Domain, table: PortTable, vcpu_id: int, mfn: int, offset: int
    ) -> None:
        """Let a vCPU's control block lie at `offset` of `mfn`; the first switches the ABI.

        Raises XenError(EINVAL), nothing changed.
        """
        if offset > PAGE_SIZE - _CONTROL.size:
            raise XenError(Errno.EINVAL, f"a control block at {offset:#x} would leave its page")
        if offset & 7:
            raise XenError(Errno.EINVAL, f"a control block at {offset:#x} is not aligned")
        state = table.fifo or FifoState([FifoQueues() for _ in dom.vcpus])
        queues = state.queues[vcpu_id]
        if queues.control_maddr:
            raise XenError(Errno.EINVAL, f"{dom.vcpus[vcpu_id].name} has its control block")
        _hold(dom, mfn)
        queues.control_maddr = (mfn << PAGE_SHIFT) + offset
        if table.fifo is None:
            table.fifo = state
            table.nr_ports = EVTCHN_FIFO_NR_CHANNELS
            for channel in table.channels:
                channel.priority = EVTCHN_FIFO_PRIORITY_DEFAULT
                channel.last_vcpu_id = channel.last_priority = 0

    def expand_array(self, dom: Domain, table: PortTable, mfn: int) -> list[int]:
        """1024 more ports have words, in `mfn`; which of them had an event before.

        Raises XenError: EOPNOTSUPP without a control block, ENOSPC when all have words, EINVAL for
        a frame that is not the guest's ordinary memory.
        """
        state = table.fifo
        if state is None:
            raise XenError(Errno.EOPNOTSUPP, f"d{dom.domid} has no control block")
        if len(state.array) == MAX_ARRAY_PAGES:
            raise XenError(Errno.ENOSPC, f"d{dom.domid} has a word for every port")
        _hold(dom, mfn)
        state.array.append(mfn)
        first, state.nr_words = state.nr_words, state.nr_words + WORDS_PER_PAGE
        late = table.channels[first : state.nr_words]
        found = [port for port, channel in enumerate(late, start=first) if channel.is_waiting]
        for port in found:
            table.channels[port].is_waiting = False
        return found

    def set_priority(self, channel: Channel, priority: int) -> None:
        """Future events of a port go to another queue. Raises XenError(EINVAL)."""
        if priority > EVTCHN_FIFO_PRIORITY_MIN:
            raise XenError(Errno.EINVAL, f"priority {priority}; the lowest is 15")
        channel.priority = priority

    def destroy(self, dom: Domain, table: PortTable) -> None:
        """Give all frames back; the domain has no FIFO any more."""
        if table.fifo is None:
            return
        for mfn in held_frames(table.fifo):
            dom.page_tables.put_page_and_type(mfn)
        table.fifo = None

    # --- events --------------------------------------------------------------------------------
    def set_pending(
        self, state: FifoState, channel: Channel, port: int, vcpu_id: int
    ) -> tuple[bool, bool]:
        """Let the event of `port` have happened, for a vCPU.

        Returns whether that is news, and whether a queue became ready by it, which is an upcall.
        """
        if port >= state.nr_words:
            channel.is_waiting = True
            return False, False
        words = self._words
        at = (state.array[port >> _WORDS_SHIFT] << _WORDS_SHIFT) + (port & WORDS_PER_PAGE - 1)
        word = words[at]
        is_news = not word & _PENDING
        words[at] = word | _PENDING
        self.written(at << 2, 4)
        queues = state.queues[vcpu_id]
        if word & _NOT_LINKABLE or not queues.control_maddr:
            return is_news, False
        words[at] = word | _PENDING | _LINKED
        return is_news, self._link(state, channel, port, vcpu_id)

    def _link(self, state: FifoState, channel: Channel, port: int, vcpu_id: int) -> bool:
        """Put `port` at the end of its queue; whether that was empty and not ready."""
        words = self._words
        last = state.queues[channel.last_vcpu_id].tails
        if last[channel.last_priority] == port:
            last[channel.last_priority] = 0  # what comes behind it there would follow it here
        queues, priority = state.queues[vcpu_id], channel.priority
        channel.last_vcpu_id, channel.last_priority = vcpu_id, priority
        tail = queues.tails[priority]
        queues.tails[priority] = port
        if tail and self._set_link(state, tail, port):
            return False
        control = queues.control_maddr
        words[control + _HEAD + 4 * priority >> 2] = port
        ready = words[control >> 2]
        words[control >> 2] = ready | 1 << priority
        self.written(control, _CONTROL.size)
        return not ready >> priority & 1

    def _set_link(self, state: FifoState, tail: int, port: int) -> bool:
        """Let `port` follow `tail` if that is still in the queue; whether it is."""
        at = self._at(state, tail)
        word = self._words[at]
        if not word & _LINKED:
            return False
        self._words[at] = word & _KEPT_BY_LINKING | port
        self.written(at << 2, 4)
        return True

    def clear_pending(self, state: FifoState, port: int) -> None:
        """Forget an event; its place in the queue is the guest's to free."""
        if port < state.nr_words:
            at = self._at(state, port)
            self._words[at] &= ~_PENDING
            self.written(at << 2, 4)

    def unmask(self, state: FifoState, port: int) -> bool:
        """Clear the mask of `port`; whether an event is waiting, and has to happen again."""
        if port >= state.nr_words:
            return False
        at = self._at(state, port)
        word = self._words[at]
        self._words[at] = word & ~_MASKED
        self.written(at << 2, 4)
        return bool(word & _PENDING)

    def is_pending(self, state: FifoState, port: int) -> bool:
        """Whether the event of `port` has happened and was not taken yet."""
        return port < state.nr_words and bool(self._words[self._at(state, port)] & _PENDING)

    def is_masked(self, state: FifoState, port: int) -> bool:
        """Whether the guest does not want to hear of `port`; so it is without a word."""
        return port >= state.nr_words or bool(self._words[self._at(state, port)] & _MASKED)

    def is_busy(self, state: FifoState, port: int) -> bool:
        """Whether `port` is in a queue, and cannot be bound to something else before it is not."""
        return port < state.nr_words and bool(self._words[self._at(state, port)] & _LINKED)

    def _at(self, state: FifoState, port: int) -> int:
        """Which word of machine memory is that of `port`."""
        return (state.array[port >> _WORDS_SHIFT] << _WORDS_SHIFT) + (port & WORDS_PER_PAGE - 1)


def held_frames(state: FifoState) -> list[int]:
    """What the ABI holds writable of a domain: control blocks' frames, one for each, and words'."""
    control = [queues.control_maddr >> PAGE_SHIFT for queues in state.queues]
    return [mfn for mfn in control if mfn] + state.array


def _hold(dom: Domain, mfn: int) -> None:
    """A frame of the guest's stays ordinary memory. Raises XenError(EINVAL)."""
    try:
        dom.page_tables.get_page_and_type(mfn, FrameType.WRITABLE)
    except XenError as refusal:
        raise XenError(Errno.EINVAL, refusal.why) from None


def _nobody(maddr: int, size: int) -> None:
    """Nobody runs code."""
