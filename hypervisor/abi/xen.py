"""public/xen.h and public/arch-x86/xen*.h: hypercall numbers and the basic structures."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import Final

from hypervisor.abi.layout import (
    I8,
    U8,
    U16,
    U32,
    U64,
    ArrayOf,
    ByWidth,
    CharArray,
    XenUlong,
    abi_struct,
)


class HypercallNr(IntEnum):
    """__HYPERVISOR_*."""

    SET_TRAP_TABLE = 0
    MMU_UPDATE = 1
    SET_GDT = 2
    STACK_SWITCH = 3
    SET_CALLBACKS = 4
    FPU_TASKSWITCH = 5
    SCHED_OP_COMPAT = 6
    PLATFORM_OP = 7
    SET_DEBUGREG = 8
    GET_DEBUGREG = 9
    UPDATE_DESCRIPTOR = 10
    MEMORY_OP = 12
    MULTICALL = 13
    UPDATE_VA_MAPPING = 14
    SET_TIMER_OP = 15
    EVENT_CHANNEL_OP_COMPAT = 16
    XEN_VERSION = 17
    CONSOLE_IO = 18
    PHYSDEV_OP_COMPAT = 19
    GRANT_TABLE_OP = 20
    VM_ASSIST = 21
    UPDATE_VA_MAPPING_OTHERDOMAIN = 22
    IRET = 23
    VCPU_OP = 24
    SET_SEGMENT_BASE = 25
    MMUEXT_OP = 26
    XSM_OP = 27
    NMI_OP = 28
    SCHED_OP = 29
    CALLBACK_OP = 30
    XENOPROF_OP = 31
    EVENT_CHANNEL_OP = 32
    PHYSDEV_OP = 33
    HVM_OP = 34
    SYSCTL = 35
    DOMCTL = 36
    KEXEC_OP = 37
    TMEM_OP = 38
    ARGO_OP = 39
    XENPMU_OP = 40
    DM_OP = 41
    HYPFS_OP = 42
    ARCH_0 = 48
    ARCH_1 = 49
    ARCH_2 = 50
    ARCH_3 = 51
    ARCH_4 = 52
    ARCH_5 = 53
    ARCH_6 = 54
    ARCH_7 = 55


class Virq(IntEnum):
    """VIRQ_*: virtual interrupts."""

    TIMER = 0  # of a vCPU
    DEBUG = 1  # of a vCPU
    CONSOLE = 2
    DOM_EXC = 3
    TBUF = 4
    DEBUGGER = 6
    XENOPROF = 7  # of a vCPU
    CON_RING = 8
    PCPU_STATE = 9
    MEM_EVENT = 10
    ARGO = 11
    ENOMEM = 12
    XENPMU = 13  # of a vCPU


NR_VIRQS: Final = 24


class VmAssistType(IntEnum):
    """VMASST_TYPE_*."""

    FOURGB_SEGMENTS = 0
    FOURGB_SEGMENTS_NOTIFY = 1
    WRITABLE_PAGETABLES = 2
    PAE_EXTENDED_CR3 = 3
    ARCHITECTURAL_IOPL = 4
    RUNSTATE_UPDATE_FLAG = 5
    M2P_STRICT = 32


class VmAssistCmd(IntEnum):
    """VMASST_CMD_*: the first argument of vm_assist."""

    ENABLE = 0
    DISABLE = 1


class ConsoleioCmd(IntEnum):
    """CONSOLEIO_*: the first argument of console_io."""

    WRITE = 0
    READ = 1


# --- page tables -------------------------------------------------------------------------
class MmuCommand(IntEnum):
    """MMU_*: the bits of mmu_update.ptr below an entry's size."""

    NORMAL_PT_UPDATE = 0
    MACHPHYS_UPDATE = 1
    PT_UPDATE_PRESERVE_AD = 2
    PT_UPDATE_NO_TRANSLATE = 3


@abi_struct(size=16)
@dataclass(slots=True)
class MmuUpdate:
    """struct mmu_update."""

    ptr: U64  # machine address of the entry | MmuCommand
    val: U64


class MmuextCmd(IntEnum):
    """MMUEXT_*."""

    PIN_L1_TABLE = 0
    PIN_L2_TABLE = 1
    PIN_L3_TABLE = 2
    PIN_L4_TABLE = 3
    UNPIN_TABLE = 4
    NEW_BASEPTR = 5
    TLB_FLUSH_LOCAL = 6
    INVLPG_LOCAL = 7
    TLB_FLUSH_MULTI = 8
    INVLPG_MULTI = 9
    TLB_FLUSH_ALL = 10
    INVLPG_ALL = 11
    FLUSH_CACHE = 12
    SET_LDT = 13
    NEW_USER_BASEPTR = 15
    CLEAR_PAGE = 16
    COPY_PAGE = 17
    FLUSH_CACHE_GLOBAL = 18
    MARK_SUPER = 19
    UNMARK_SUPER = 20


@abi_struct(size32=12, size64=24)
@dataclass(slots=True)
class MmuextOp:
    """struct mmuext_op."""

    cmd: U32
    arg1: XenUlong  # mfn or linear_addr
    arg2: XenUlong  # nr_ents (of which 32 bits count), vcpumask or src_mfn


UVMF_NONE: Final = 0
UVMF_TLB_FLUSH: Final = 1
UVMF_INVLPG: Final = 2
UVMF_FLUSHTYPE_MASK: Final = 3
UVMF_MULTI: Final = 0
UVMF_LOCAL: Final = 0
UVMF_ALL: Final = 1 << 2


# --- traps, multicalls ----------------------------------------------------------------------
TI_DPL: Final = 3  # TI_GET_DPL: who may enter by `int n`
TI_IF: Final = 4  # TI_GET_IF: mask events on entry


@abi_struct(size32=8, size64=16)
@dataclass(slots=True)
class TrapInfo:
    """struct trap_info (arch-x86/xen.h)."""

    vector: U8
    flags: U8  # TI_*
    cs: U16
    address: XenUlong


@abi_struct(size32=32, size64=64)
@dataclass(slots=True)
class MulticallEntry:
    """struct multicall_entry."""

    op: XenUlong
    result: XenUlong
    args: ArrayOf(XenUlong, 6)  # type: ignore[valid-type]


# --- time and events ----------------------------------------------------------------------------
@abi_struct(size=32)
@dataclass(slots=True)
class VcpuTimeInfo:
    """struct vcpu_time_info."""

    version: U32 = 0
    pad0: U32 = 0
    tsc_timestamp: U64 = 0
    system_time: U64 = 0
    tsc_to_system_mul: U32 = 0
    tsc_shift: I8 = 0
    flags: U8 = 0  # XEN_PVCLOCK_*
    pad1: U16 = 0


XEN_PVCLOCK_TSC_STABLE_BIT: Final = 1 << 0
XEN_PVCLOCK_GUEST_STOPPED: Final = 1 << 1


@abi_struct(size32=24, size64=16)
@dataclass(slots=True)
class ArchVcpuInfo:
    """struct arch_vcpu_info (arch-x86/xen-x86_*.h)."""

    cr2: XenUlong  # the address of the latest page fault
    pad: ByWidth(ArrayOf(XenUlong, 5), XenUlong)  # type: ignore[valid-type]


@abi_struct(size=64)
@dataclass(slots=True)
class VcpuInfo:
    """struct vcpu_info: a virtual CPU's event state, fault address and time."""

    evtchn_upcall_pending: U8
    evtchn_upcall_mask: U8
    evtchn_pending_sel: XenUlong  # a bit for each word of shared_info.evtchn_pending
    arch: ArchVcpuInfo
    time: VcpuTimeInfo


XEN_LEGACY_MAX_VCPUS: Final = 32


@abi_struct(size32=28, size64=48)
@dataclass(slots=True)
class ArchSharedInfo:
    """struct arch_shared_info (arch-x86/xen.h), where the guest says how its P2M can be found."""

    max_pfn: XenUlong
    pfn_to_mfn_frame_list_list: XenUlong
    nmi_reason: XenUlong
    p2m_cr3: XenUlong
    p2m_vaddr: XenUlong
    p2m_generation: XenUlong
    wc_sec_hi: ByWidth(U32, CharArray(0))  # type: ignore[valid-type]  # 64-bit: in SharedInfo


@abi_struct(size32=2344, size64=3136)
@dataclass(slots=True)
class SharedInfo:
    """struct shared_info: the page that a domain shares with Xen."""

    vcpu_info: ArrayOf(VcpuInfo, XEN_LEGACY_MAX_VCPUS)  # type: ignore[valid-type]
    evtchn_pending: ByWidth(ArrayOf(XenUlong, 32), ArrayOf(XenUlong, 64))  # type: ignore[valid-type]
    evtchn_mask: ByWidth(ArrayOf(XenUlong, 32), ArrayOf(XenUlong, 64))  # type: ignore[valid-type]
    wc_version: U32
    wc_sec: U32
    wc_nsec: U32
    wc_sec_hi: ByWidth(CharArray(0), U32)  # type: ignore[valid-type]  # 32-bit: in ArchSharedInfo
    arch: ArchSharedInfo


# --- start of day ----------------------------------------------------------------------------
MAX_GUEST_CMDLINE: Final = 1024
SIF_PRIVILEGED: Final = 1 << 0
SIF_INITDOMAIN: Final = 1 << 1
SIF_MULTIBOOT_MOD: Final = 1 << 2
SIF_MOD_START_PFN: Final = 1 << 3
SIF_VIRT_P2M_4TOOLS: Final = 1 << 4


@abi_struct(size32=1112, size64=1168)
@dataclass(slots=True)
class StartInfo:
    """struct start_info; `console_mfn` and `console_evtchn` are its console.domU."""

    magic: CharArray(32) = b""  # type: ignore[valid-type]
    nr_pages: XenUlong = 0
    shared_info: XenUlong = 0  # machine address
    flags: U32 = 0  # SIF_*
    store_mfn: XenUlong = 0
    store_evtchn: U32 = 0
    console_mfn: XenUlong = 0
    console_evtchn: U32 = 0
    pt_base: XenUlong = 0  # vaddr
    nr_pt_frames: XenUlong = 0
    mfn_list: XenUlong = 0  # vaddr
    mod_start: XenUlong = 0  # vaddr, or pfn with SIF_MOD_START_PFN
    mod_len: XenUlong = 0  # bytes
    cmd_line: CharArray(MAX_GUEST_CMDLINE) = b""  # type: ignore[valid-type]
    first_p2m_pfn: XenUlong = 0
    nr_p2m_frames: XenUlong = 0
