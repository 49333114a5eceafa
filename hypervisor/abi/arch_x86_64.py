"""public/arch-x86/xen-x86_64.h: what only 64-bit guests see."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import Final

from hypervisor.abi.layout import U8, U16, U32, U64, ArrayOf, CharArray, XenUlong, abi_struct
from hypervisor.abi.xen import TrapInfo

# --- flat segments in Xen's part of every GDT; kernel and user run in ring 3 --------------------
FLAT_RING3_CS32: Final = 0xE023
FLAT_RING3_CS64: Final = 0xE033
FLAT_RING3_DS32: Final = 0xE02B
FLAT_RING3_DS64: Final = 0
FLAT_RING3_SS32: Final = 0xE02B
FLAT_RING3_SS64: Final = 0xE02B
FLAT_KERNEL_CS64: Final = FLAT_RING3_CS64
FLAT_KERNEL_SS64: Final = FLAT_RING3_SS64
FLAT_USER_CS32: Final = FLAT_RING3_CS32
FLAT_USER_CS64: Final = FLAT_RING3_CS64
FLAT_USER_SS64: Final = FLAT_RING3_SS64

# --- Xen's region of the address space ---------------------------------------------------------
HYPERVISOR_VIRT_START: Final = 0xFFFF_8000_0000_0000
HYPERVISOR_VIRT_END: Final = 0xFFFF_8800_0000_0000
MACH2PHYS_VIRT_START: Final = 0xFFFF_8000_0000_0000
MACH2PHYS_VIRT_END: Final = 0xFFFF_8040_0000_0000


class Segbase(IntEnum):
    """SEGBASE_*: the first argument of set_segment_base."""

    FS = 0
    GS_USER = 1
    GS_KERNEL = 2
    GS_USER_SEL = 3


VGCF_IN_SYSCALL: Final = 1 << 8  # in IretContext.flags: rcx and r11 are not restored


@abi_struct(size64=72)
@dataclass(slots=True)
class IretContext:
    """struct iret_context: what the iret hypercall takes from the kernel's stack."""

    rax: U64
    r11: U64
    rcx: U64
    flags: U64  # VGCF_IN_SYSCALL
    rip: U64
    cs: U64
    rflags: U64
    rsp: U64
    ss: U64


@abi_struct(size64=200)
@dataclass(slots=True)
class CpuUserRegs:
    """struct cpu_user_regs (xen-x86_64.h)."""

    r15: U64 = 0
    r14: U64 = 0
    r13: U64 = 0
    r12: U64 = 0
    rbp: U64 = 0
    rbx: U64 = 0
    r11: U64 = 0
    r10: U64 = 0
    r9: U64 = 0
    r8: U64 = 0
    rax: U64 = 0
    rcx: U64 = 0
    rdx: U64 = 0
    rsi: U64 = 0
    rdi: U64 = 0
    error_code: U32 = 0  # Xen's own
    entry_vector: U32 = 0  # Xen's own
    rip: U64 = 0
    cs: U16 = 0
    _pad0: U16 = 0
    saved_upcall_mask: U8 = 0
    _pad1: CharArray(3) = bytes(3)  # type: ignore[valid-type]
    rflags: U64 = 0
    rsp: U64 = 0
    ss: U16 = 0
    _pad2: CharArray(6) = bytes(6)  # type: ignore[valid-type]
    es: U16 = 0
    _pad3: CharArray(6) = bytes(6)  # type: ignore[valid-type]
    ds: U16 = 0
    _pad4: CharArray(6) = bytes(6)  # type: ignore[valid-type]
    fs: U16 = 0
    _pad5: CharArray(6) = bytes(6)  # type: ignore[valid-type]
    gs: U16 = 0
    _pad6: CharArray(6) = bytes(6)  # type: ignore[valid-type]


@abi_struct(size64=5168)
@dataclass(slots=True)
class VcpuGuestContext:
    """struct vcpu_guest_context of 64-bit guests: all a vCPU starts with."""

    fpu_ctxt: CharArray(512)  # type: ignore[valid-type]  # as FXSAVE writes it
    flags: XenUlong  # Vgcf
    user_regs: CpuUserRegs
    trap_ctxt: ArrayOf(TrapInfo, 256)  # type: ignore[valid-type]  # by vector
    ldt_base: XenUlong  # linear
    ldt_ents: XenUlong
    gdt_frames: ArrayOf(XenUlong, 16)  # type: ignore[valid-type]  # mfns
    gdt_ents: XenUlong
    kernel_ss: XenUlong
    kernel_sp: XenUlong
    ctrlreg: ArrayOf(XenUlong, 8)  # type: ignore[valid-type]  # [3] kernel's table, [1] user's
    debugreg: ArrayOf(XenUlong, 8)  # type: ignore[valid-type]
    event_callback_eip: XenUlong
    failsafe_callback_eip: XenUlong
    syscall_callback_eip: XenUlong
    vm_assist: XenUlong  # of vCPU 0 only
    fs_base: U64
    gs_base_kernel: U64
    gs_base_user: U64
