"""The CPU's state, viewed in place.

The engine's CPU is QEMU's CPUX86State, a C structure of some 5,500 bytes. `CpuState` is a set of
views over one such structure: the live one, where a change takes effect at once, or a copy that the
Cpu moves in and out. Its layout belongs to one build of the engine and is verified at start-up
(`_calibrate`).

Two things are not what they seem. The arithmetic flags are lazy while guest code runs: EFLAGS is
worked out from the last operation (`cc_op`, `cc_src`, `cc_dst`), so `rflags` asks the engine when
it must and writes all parts. And the privilege level, code size and a few control bits are repeated
in `hflags`, where the translator looks: the setters here keep both.
"""

from __future__ import annotations

import ctypes
import struct
import zlib
from collections.abc import Callable
from typing import Final, Literal, NamedTuple

STATE_BYTES: Final = 5568  # what a context holds of CPUX86State

# --- offsets, in 8-byte (q) or 4-byte (d) words -----------------------------------------------
RIP: Final = 16  # q
EFLAGS: Final = 17  # q
CC_DST: Final = 18  # q
CC_SRC: Final = 19  # q
CC_OP: Final = 42  # d
DF: Final = 43  # d, signed: 1 or -1
HFLAGS: Final = 44  # d
_SEGS: Final = 184  # bytes: six of {selector u32, base u64, limit u32, flags u32}
_SEGMENT_BYTES: Final = 24
_SEGS_Q: Final = _SEGS // 8
_SEGS_D: Final = _SEGS // 4
_LDT: Final = 328
_TR: Final = 352
_GDT: Final = 376
_IDT: Final = 400
_CR: Final = 424 // 8  # q: cr[0..4]
CR0: Final = _CR
CR2: Final = _CR + 2
CR3: Final = _CR + 3
CR4: Final = _CR + 4
EFER: Final = 592 // 8  # q
DR0: Final = 5400 // 8  # q: dr[0..7]
DR6: Final = DR0 + 6
DR7: Final = DR0 + 7
ERROR_CODE: Final = 5384 // 4  # d
EXCEPTION_IS_INT: Final = 5388 // 4  # d
EXCEPTION_NEXT_EIP: Final = 5392 // 8  # q
OLD_EXCEPTION: Final = 5496 // 4  # d

CC_OP_EFLAGS: Final = 1
_CC_FLAGS: Final = 0x8D5  # CF PF AF ZF SF OF
_DF_FLAG: Final = 1 << 10
_LAZY_FLAGS: Final = _CC_FLAGS | _DF_FLAG

# --- hflags (target/i386/cpu.h of QEMU) -----------------------------------------------------------
HF_CPL: Final = 3
HF_INHIBIT_IRQ: Final = 1 << 3
HF_CS32: Final = 1 << 4
HF_SS32: Final = 1 << 5
HF_ADDSEG: Final = 1 << 6
HF_PE: Final = 1 << 7
HF_MP: Final = 1 << 9
HF_EM: Final = 1 << 10
HF_TS: Final = 1 << 11
HF_LMA: Final = 1 << 14
HF_CS64: Final = 1 << 15
HF_OSFXSR: Final = 1 << 22

_DESC_B: Final = 1 << 22
_DESC_L: Final = 1 << 21
_M32: Final = 0xFFFF_FFFF
_SEGMENT: Final = struct.Struct("<I4xQII")
_TABLE: Final = struct.Struct("<8xQI")

ES, CS, SS, DS, FS, GS = range(6)


class Segment(NamedTuple):
    """A segment register: `flags` is the descriptor's high dword, `limit` in bytes."""

    selector: int
    base: int
    limit: int
    flags: int


class CpuState:
    """Views over a CPUX86State at a host address.

    `q` and `d` are the structure as 8- and 4-byte words, for hot paths; register n is `q[n]`, its
    low half `d[2 * n]`.
    """

    def __init__(self, address: int, compute_flags: Callable[[], int]) -> None:
        raw = (ctypes.c_uint8 * STATE_BYTES).from_address(address)
        self.bytes = memoryview(raw).cast("B")
        self.q = self.bytes.cast("Q")
        self.d = self.bytes.cast("I")
        self._compute_flags = compute_flags
        self.is_inside = False  # guest code is being run: flags are lazy
        self.address = address

    # --- general registers, rip, flags --------------------------------------------------------
    def gpr(self, number: int) -> int:
        """A general register, 64 bits of it."""
        return self.q[number]

    def set_gpr(self, number: int, value: int) -> None:
        """Set a general register."""
        self.q[number] = value

    @property
    def rip(self) -> int:
        """The instruction pointer, relative to the code segment."""
        return self.q[RIP]

    @rip.setter
    def rip(self, value: int) -> None:
        self.q[RIP] = value

    @property
    def rflags(self) -> int:
        """EFLAGS with the lazy flags worked out."""
        if not self.is_inside:
            return self.q[EFLAGS] | 2
        flags = self.q[EFLAGS] & ~_LAZY_FLAGS | 2
        if self.d[CC_OP] == CC_OP_EFLAGS:
            arithmetic = self.q[CC_SRC] & _CC_FLAGS
        else:
            arithmetic = self._compute_flags() & _CC_FLAGS
        return flags | arithmetic | (_DF_FLAG if self.d[DF] == _M32 else 0)

    @rflags.setter
    def rflags(self, value: int) -> None:
        if not self.is_inside:
            self.q[EFLAGS] = value | 2
            return
        self.d[CC_OP] = CC_OP_EFLAGS
        self.q[CC_SRC] = value & _CC_FLAGS
        self.d[DF] = _M32 if value & _DF_FLAG else 1
        self.q[EFLAGS] = value & ~_LAZY_FLAGS | 2

    # --- privilege and segments ------------------------------------------------------------------
    @property
    def hflags(self) -> int:
        """QEMU's summary of the mode."""
        return self.d[HFLAGS]

    @hflags.setter
    def hflags(self, value: int) -> None:
        self.d[HFLAGS] = value

    @property
    def is_long_code(self) -> bool:
        """Whether 64-bit code is being run."""
        return bool(self.d[HFLAGS] & HF_CS64)

    @property
    def cpl(self) -> int:
        """The current privilege level."""
        return self.d[HFLAGS] & HF_CPL

    def set_cpl(self, cpl: int) -> None:
        """Change the privilege level and nothing else: selectors may say otherwise."""
        self.d[HFLAGS] = self.d[HFLAGS] & ~HF_CPL | cpl

    def segment(self, register: int) -> Segment:
        """ES, CS, SS, DS, FS or GS (0..5)."""
        return Segment._make(_SEGMENT.unpack_from(self.bytes, _SEGS + register * _SEGMENT_BYTES))

    def selector(self, register: int) -> int:
        """A segment register's selector alone."""
        return self.d[_SEGS_D + 6 * register]

    def segment_base(self, register: int) -> int:
        """A segment register's base alone."""
        return self.q[_SEGS_Q + 3 * register + 1]

    def segment_flags(self, register: int) -> int:
        """A segment register's flags alone."""
        return self.d[_SEGS_D + 6 * register + 5]

    def set_code_and_stack(
        self,
        cs: int,
        code: tuple[int, int, int],
        ss: int,
        stack: tuple[int, int, int],
        cpl: int,
    ) -> None:
        """Load CS and SS, each as selector and (base, limit, flags), and the privilege level."""
        _SEGMENT.pack_into(self.bytes, _SEGS + CS * _SEGMENT_BYTES, cs, *code)
        _SEGMENT.pack_into(self.bytes, _SEGS + SS * _SEGMENT_BYTES, ss, *stack)
        self.d[HFLAGS] = self.d[HFLAGS] & ~HF_CPL | cpl
        self._refresh_segment_hflags()

    def set_segment(self, register: int, selector: int, base: int, limit: int, flags: int) -> None:
        """Load a segment register with what it would get from a descriptor; no checks."""
        at = _SEGS + register * _SEGMENT_BYTES
        _SEGMENT.pack_into(self.bytes, at, selector, base, limit, flags)
        self._refresh_segment_hflags()

    def _refresh_segment_hflags(self) -> None:
        """CS32, CS64, SS32 and ADDSEG as QEMU derives them (cpu_x86_load_seg_cache)."""
        d, q = self.d, self.q
        hflags = d[HFLAGS] & ~(HF_CS32 | HF_CS64 | HF_SS32 | HF_ADDSEG)
        cs_flags = d[_SEGS_D + 6 * CS + 5]
        if hflags & HF_LMA and cs_flags & _DESC_L:
            d[HFLAGS] = hflags | HF_CS32 | HF_SS32 | HF_CS64
            return
        if cs_flags & _DESC_B:
            hflags |= HF_CS32
        if d[_SEGS_D + 6 * SS + 5] & _DESC_B:
            hflags |= HF_SS32
        if (
            not hflags & HF_CS32
            or q[_SEGS_Q + 3 * DS + 1]
            or q[_SEGS_Q + 3 * ES + 1]
            or q[_SEGS_Q + 3 * SS + 1]
        ):
            hflags |= HF_ADDSEG
        d[HFLAGS] = hflags

    @property
    def linear_rsp(self) -> int:
        """The stack pointer with the stack segment's base."""
        if self.is_long_code:
            return self.q[4]
        mask = _M32 if self.d[HFLAGS] & HF_SS32 else 0xFFFF
        return (self.q[4] & mask) + self.segment_base(SS) & _M32

    @property
    def ldt(self) -> Segment:
        """The LDT register."""
        return Segment._make(_SEGMENT.unpack_from(self.bytes, _LDT))

    def set_ldt(self, selector: int, base: int, limit: int, flags: int) -> None:
        """Load the LDT register."""
        _SEGMENT.pack_into(self.bytes, _LDT, selector, base, limit, flags)

    @property
    def tr(self) -> Segment:
        """The task register."""
        return Segment._make(_SEGMENT.unpack_from(self.bytes, _TR))

    @property
    def gdt(self) -> tuple[int, int]:
        """Base and limit of the GDT."""
        base, limit = _TABLE.unpack_from(self.bytes, _GDT)
        return base, limit

    @gdt.setter
    def gdt(self, value: tuple[int, int]) -> None:
        _TABLE.pack_into(self.bytes, _GDT, *value)

    @property
    def idt(self) -> tuple[int, int]:
        """Base and limit of the IDT, which the engine does not consult."""
        base, limit = _TABLE.unpack_from(self.bytes, _IDT)
        return base, limit

    # --- control registers -----------------------------------------------------------------------
    @property
    def cr0(self) -> int:
        """CR0."""
        return self.q[CR0]

    @cr0.setter
    def cr0(self, value: int) -> None:
        """Set CR0; PE, MP, EM and TS are repeated in hflags."""
        self.q[CR0] = value
        hflags = self.d[HFLAGS] & ~(HF_PE | HF_MP | HF_EM | HF_TS)
        hflags |= (value & 1) << 7 | (value & 0b1110) << 8
        self.d[HFLAGS] = hflags

    @property
    def cr2(self) -> int:
        """CR2: the address of the last page fault."""
        return self.q[CR2]

    @cr2.setter
    def cr2(self, value: int) -> None:
        self.q[CR2] = value

    @property
    def cr3(self) -> int:
        """CR3. Setting it here flushes nothing."""
        return self.q[CR3]

    @cr3.setter
    def cr3(self, value: int) -> None:
        self.q[CR3] = value

    @property
    def cr4(self) -> int:
        """CR4."""
        return self.q[CR4]

    @cr4.setter
    def cr4(self, value: int) -> None:
        self.q[CR4] = value

    @property
    def efer(self) -> int:
        """The EFER MSR."""
        return self.q[EFER]

    # --- whole states
    # ------------------------------------------------------------------------------
    def save(self) -> bytes:
        """Everything, as bytes that `load` takes. Only between runs, where no flag is lazy."""
        assert not self.is_inside, "a state is saved between runs"
        return bytes(self.bytes)

    def load(self, saved: bytes) -> None:
        """Take over a whole state. Only between runs; the TLB is the caller's business."""
        assert not self.is_inside, "a state is loaded between runs"
        self.bytes[:] = saved

    def checksum(self) -> int:
        """CRC-32 over the general registers, rip, flags, selectors and privilege level."""
        crc = zlib.crc32(self.bytes[: 17 * 8])
        selectors = [self.d[_SEGS_D + 6 * n] for n in range(6)]
        return zlib.crc32(struct.pack("<Q6IB", self.rflags, *selectors, self.cpl), crc)

    def architectural(self) -> tuple[int | bytes, ...]:
        """What software can see, whichever way the state came about: for digests."""
        segments = [value for n in range(6) for value in self.segment(n)]
        return (
            *self.q[0:17],
            self.rflags,
            *segments,
            *self.ldt,
            *self.gdt,
            self.cpl,
            self.cr0,
            self.cr2,
            self.cr3,
            self.cr4,
            self.efer,
            bytes(self.bytes[_FPU_START:_FPU_END]),
        )


class DetachedState(CpuState):
    """A state that is in no CPU, to be prepared: `save` gives it to whoever loads it later."""

    def __init__(self, saved: bytes) -> None:
        self._buffer = (ctypes.c_uint8 * STATE_BYTES).from_buffer_copy(saved)
        super().__init__(ctypes.addressof(self._buffer), lambda: 0)


#: FPU stack top, status, control, tags and registers, then MXCSR and the SSE registers.
_FPU_START: Final = 600
_FPU_END: Final = 824 + 16 * 64

Mode = Literal["long", "pae", "legacy32"]

#: EFER, CR0, CR4 and hflags of a kernel in ring 1 with paging on, FPU and SSE usable.
_MODES: Final[dict[Mode, tuple[int, int, int, int]]] = {
    "long": (0xD01, 0x8005_0033, 0x6A0, 0x40_C2B1),
    "pae": (0x800, 0x8005_0033, 0x6A0, 0x40_02B1),
    "legacy32": (0x000, 0x8005_0033, 0x680, 0x40_02B1),
}


def initial_state(reset: bytes, mode: Mode) -> bytes:
    """`reset`, a CPU's state after reset, put into a paging mode and ring 1, interrupts enabled.

    Whoever uses it sets CR3, the segments, the tables and RIP.
    """
    state = bytearray(reset)
    efer, cr0, cr4, hflags = _MODES[mode]
    struct.pack_into("<Q", state, CR0 * 8, cr0)
    struct.pack_into("<Q", state, CR4 * 8, cr4)
    struct.pack_into("<Q", state, EFER * 8, efer)
    struct.pack_into("<I", state, HFLAGS * 4, hflags)
    struct.pack_into("<Q", state, EFLAGS * 8, 0x202)
    return bytes(state)
