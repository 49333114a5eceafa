"""EFLAGS, control registers, exceptions and MSR numbers (SDM 3A 2.3, 2.5, 6.3; SDM 4)."""

from __future__ import annotations

from enum import IntEnum
from typing import Final

# --- EFLAGS (SDM 3A 2.3) -----------------------------------------------------
EFLAGS_FIXED: Final = 1 << 1  # always reads as one
EFLAGS_TF: Final = 1 << 8
EFLAGS_IF: Final = 1 << 9
EFLAGS_DF: Final = 1 << 10
EFLAGS_IOPL: Final = 3 << 12
EFLAGS_IOPL_SHIFT: Final = 12
EFLAGS_NT: Final = 1 << 14
EFLAGS_RF: Final = 1 << 16
EFLAGS_VM: Final = 1 << 17
EFLAGS_AC: Final = 1 << 18
EFLAGS_ID: Final = 1 << 21

# --- control registers (SDM 3A 2.5) ------------------------------------------
CR0_PE: Final = 1 << 0
CR0_MP: Final = 1 << 1
CR0_EM: Final = 1 << 2
CR0_TS: Final = 1 << 3
CR0_ET: Final = 1 << 4
CR0_NE: Final = 1 << 5
CR0_WP: Final = 1 << 16
CR0_AM: Final = 1 << 18
CR0_PG: Final = 1 << 31
CR4_TSD: Final = 1 << 2
CR4_DE: Final = 1 << 3
CR4_PSE: Final = 1 << 4
CR4_PAE: Final = 1 << 5
CR4_PGE: Final = 1 << 7
CR4_OSFXSR: Final = 1 << 9
CR4_OSXMMEXCPT: Final = 1 << 10

EFER_SCE: Final = 1 << 0
EFER_LME: Final = 1 << 8
EFER_LMA: Final = 1 << 10
EFER_NX: Final = 1 << 11

# --- segment registers, in the order of the instruction encoding ---------------
ES, CS, SS, DS, FS, GS = range(6)
SEGMENT_NAMES: Final = ("es", "cs", "ss", "ds", "fs", "gs")

# --- general registers, in the order of the instruction encoding ---------------
RAX, RCX, RDX, RBX, RSP, RBP, RSI, RDI, R8, R9, R10, R11, R12, R13, R14, R15 = range(16)
GPR_NAMES: Final = (
    "rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi",
    "r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15",
)  # fmt: skip


class Vector(IntEnum):
    """Exception vectors (SDM 3A table 6-1)."""

    DE = 0
    DB = 1
    NMI = 2
    BP = 3
    OF = 4
    BR = 5
    UD = 6
    NM = 7
    DF = 8
    CSO = 9
    TS = 10
    NP = 11
    SS = 12
    GP = 13
    PF = 14
    MF = 16
    AC = 17
    MC = 18
    XM = 19


#: Vectors that push an error code (SDM 3A table 6-1).
HAS_ERROR_CODE: Final = frozenset({8, 10, 11, 12, 13, 14, 17})

# --- page-fault error code (SDM 3A 4.7) ----------------------------------------
PFEC_PRESENT: Final = 1 << 0
PFEC_WRITE: Final = 1 << 1
PFEC_USER: Final = 1 << 2
PFEC_RESERVED: Final = 1 << 3
PFEC_INSN: Final = 1 << 4

#: Selector error code: the fault came from a gate in the IDT (SDM 3A 6.13).
XEC_EXT: Final = 1 << 0
XEC_IDT: Final = 1 << 1

# --- MSRs (SDM 4; APM 2 appendix A) ---------------------------------------------
MSR_TSC: Final = 0x10
MSR_PLATFORM_ID: Final = 0x17
MSR_APIC_BASE: Final = 0x1B
MSR_UCODE_REV: Final = 0x8B
MSR_PLATFORM_INFO: Final = 0xCE
MSR_MISC_FEATURES_ENABLES: Final = 0x140
MSR_MISC_ENABLE: Final = 0x1A0
MSR_PAT: Final = 0x277
MSR_EFER: Final = 0xC0000080
MSR_STAR: Final = 0xC0000081
MSR_FS_BASE: Final = 0xC0000100
MSR_GS_BASE: Final = 0xC0000101
MSR_KERNEL_GS_BASE: Final = 0xC0000102

#: Power-on values (SDM 3A 17.2.3, 17.2.4): the bits that always read as one.
DR6_DEFAULT: Final = 0xFFFF0FF0
DR7_DEFAULT: Final = 0x400
DR6_BS: Final = 1 << 14
DR7_ENABLES: Final = 0xFF  # L0 G0 .. L3 G3
DR7_GD: Final = 1 << 13


def is_canonical(vaddr: int) -> bool:
    """Whether bits 63..47 of a 64-bit linear address are all equal (SDM 1 3.3.7.1)."""
    return vaddr >> 47 in (0, 0x1FFFF)
