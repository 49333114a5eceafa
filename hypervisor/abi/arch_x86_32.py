"""public/arch-x86/xen-x86_32.h: what only 32-bit guests see. `PAE` is x86_32p, `NONPAE` x86_32."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from hypervisor.abi.layout import U8, U16, U32, ArrayOf, CharArray, XenUlong, abi_struct
from hypervisor.abi.xen import TrapInfo

# --- flat segments in Xen's part of every GDT ----------------------------------------------------
FLAT_RING1_CS: Final = 0xE019
FLAT_RING1_DS: Final = 0xE021
FLAT_RING1_SS: Final = 0xE021
FLAT_RING3_CS: Final = 0xE02B
FLAT_RING3_DS: Final = 0xE033
FLAT_RING3_SS: Final = 0xE033

# --- Xen's region of the address space ---------------------------------------------------------
HYPERVISOR_VIRT_START_PAE: Final = 0xF580_0000
MACH2PHYS_VIRT_START_PAE: Final = 0xF580_0000
MACH2PHYS_VIRT_END_PAE: Final = 0xF680_0000
HYPERVISOR_VIRT_START_NONPAE: Final = 0xFC00_0000
MACH2PHYS_VIRT_START_NONPAE: Final = 0xFC00_0000
MACH2PHYS_VIRT_END_NONPAE: Final = 0xFC40_0000


@abi_struct(size32=68)
@dataclass(slots=True)
class CpuUserRegs:
    """struct cpu_user_regs (xen-x86_32.h)."""

    ebx: U32 = 0
    ecx: U32 = 0
    edx: U32 = 0
    esi: U32 = 0
    edi: U32 = 0
    ebp: U32 = 0
    eax: U32 = 0
    error_code: U16 = 0  # Xen's own
    entry_vector: U16 = 0  # Xen's own
    eip: U32 = 0
    cs: U16 = 0
    saved_upcall_mask: U8 = 0
    _pad0: U8 = 0
    eflags: U32 = 0
    esp: U32 = 0
    ss: U16 = 0
    _pad1: U16 = 0
    es: U16 = 0
    _pad2: U16 = 0
    ds: U16 = 0
    _pad3: U16 = 0
    fs: U16 = 0
    _pad4: U16 = 0
    gs: U16 = 0
    _pad5: U16 = 0


@abi_struct(size32=2800)
@dataclass(slots=True)
class VcpuGuestContext:
    """struct vcpu_guest_context of 32-bit guests: all a vCPU starts with."""

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
    ctrlreg: ArrayOf(XenUlong, 8)  # type: ignore[valid-type]  # [3] the top-level table
    debugreg: ArrayOf(XenUlong, 8)  # type: ignore[valid-type]
    event_callback_cs: XenUlong
    event_callback_eip: XenUlong
    failsafe_callback_cs: XenUlong
    failsafe_callback_eip: XenUlong
    vm_assist: XenUlong  # of vCPU 0 only
