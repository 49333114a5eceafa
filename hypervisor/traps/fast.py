"""The short way of a trap: machine code between the guest and its own handler.

What is commonest - a system call, a page fault that is the guest's, `int n`, and the iret hypercall
back - needs nothing of the VMM but a frame and a few registers, and Python takes 5 to 10 us for
that. traps/native/traps.c does it in a tenth of one. It is asked first; where anything is not as
usual it has changed nothing, and bounce, iret and entry do all of it. So whether it is there shows
in the host's time only: both ways give the same guest state, counts and virtual time, and while
somebody watches the entries (Probes.entry) all go by Python.

Nothing is kept in two places: the code reads the vCPU's own words (domain.trap_state), its
vcpu_info, its page tables and its GDT, each time.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Any, Final

from hypervisor.abi.xen import VmAssistType
from hypervisor.domain.domain import Domain, Vcpu
from hypervisor.machine.cpu import Cpu
from hypervisor.mm.entries import PAGING_MODE
from hypervisor.mm.hole_map import HOLE
from hypervisor.traps import fast_context as words
from hypervisor.traps.generated import fast_code

_ARCHITECTURAL_IOPL: Final = 1 << VmAssistType.ARCHITECTURAL_IOPL
_NO_ARGS: Final = ctypes.CFUNCTYPE(None)


class FastTraps:
    """The machine code of one CPU; harmless where the CPU calls none."""

    def __init__(self, cpu: Cpu) -> None:
        self._memory = cpu.memory
        places = cpu.for_machine_code
        self.works = places is not None
        self._is_watched = False
        self._is_usual = False
        if places is None:
            self._words = memoryview(bytearray(words.CONTEXT_WORDS * 8)).cast("Q")
            return
        self._page = cpu.executable(fast_code.CODE)
        self._start = ctypes.addressof(ctypes.c_char.from_buffer(self._page))
        at = fast_code.CONTEXT
        self._words = memoryview(self._page)[at : at + words.CONTEXT_WORDS * 8].cast("Q")
        self._code_frames = cpu.code_frames
        self._words[words.ENV] = places.env
        self._words[words.COUNTER_WORDS] = places.counter
        self._words[words.READ_EFLAGS] = places.read_eflags
        self._words[words.MEMORY] = cpu.memory.address
        self._words[words.MEMORY_BYTES] = cpu.memory.size_bytes
        frames = ctypes.c_char.from_buffer(self._code_frames)
        self._words[words.CODE_FRAMES] = ctypes.addressof(frames)
        ours = (fast_code.INTERRUPT, fast_code.SYSTEM_CALL, fast_code.INVALID)
        before = cpu.ask_first(*(self._start + function for function in ours))
        nexts = (words.NEXT_INTERRUPT, words.NEXT_SYSCALL, words.NEXT_INVALID)
        for word, function in zip(nexts, before, strict=True):
            self._words[word] = function
        self._attend: Any = None

    def connect(self, attend: Callable[[], None]) -> None:
        """Call `attend`, which must not raise, when the guest on the CPU has an event due."""
        if self.works:
            self._attend = _NO_ARGS(attend)
            self._words[words.ATTEND] = ctypes.cast(self._attend, ctypes.c_void_p).value or 0

    def ask_first_for_iret(self, function: int) -> int:
        """Machine code for the iret hypercall, to be called in place of the C function given."""
        if not self.works:
            return function
        self._words[words.NEXT_IRET] = function
        return self._start + fast_code.IRET

    # --- whom it serves --------------------------------------------------------------------------
    def serve(self, dom: Domain, vcpu: Vcpu) -> None:
        """`vcpu` is on the CPU now, or something about it has changed that stands here."""
        context = self._words
        context[words.TRAP_STATE] = vcpu.traps.address
        context[words.VCPU_INFO] = self._memory.address + vcpu.vcpu_info_maddr
        context[words.LEVELS] = PAGING_MODE[vcpu.width].levels
        context[words.HOLE] = HOLE[vcpu.width].vaddr
        # an NMI's handler is to be seen to return
        self._is_usual = not dom.vm_assist & _ARCHITECTURAL_IOPL and not vcpu.nmi_masked
        context[words.ENABLED] = self._is_usual and not self._is_watched

    def watch(self, is_watched: bool) -> None:
        """Somebody is to be told of each entry, or nobody any more."""
        self._is_watched = is_watched
        self._words[words.ENABLED] = self._is_usual and not is_watched

    @property
    def user_tlb_stale(self) -> bool:
        """See TrapEntry: something has to be flushed before user mode runs again."""
        return bool(self._words[words.USER_TLB_STALE])

    @user_tlb_stale.setter
    def user_tlb_stale(self, stale: bool) -> None:
        self._words[words.USER_TLB_STALE] = stale
