"""The hypercall page: 128 entries of 32 bytes, entry n makes hypercall n.

A guest calls `page + n * 32` and need not know how its Xen is entered. For iret (23) the entry
pushes what the hypercall expects on the stack and never returns. Instruction by instruction the
contents are those of Xen 4.17 (hypercall_page_initialise_ring1_kernel and _ring3_kernel), for a
guest may decode them.
"""

from __future__ import annotations

from typing import Final

from hypervisor.abi.width import Width
from hypervisor.abi.xen import HypercallNr
from hypervisor.x86.paging import PAGE_SIZE

_ENTRY_BYTES: Final = 32
_FILLER: Final = b"\xcc"  # int3

_MOV_EAX: Final = b"\xb8"  # with a 32-bit number behind it
_INT_82: Final = b"\xcd\x82"
_SYSCALL: Final = b"\x0f\x05"
_PUSH_RAX: Final = b"\x50"
_PUSH_RCX_R11: Final = b"\x51\x41\x53"
_POP_R11_RCX: Final = b"\x41\x5b\x59"
_RET: Final = b"\xc3"


def hypercall_page(width: Width) -> bytes:
    """The 4096 bytes of the page."""
    entry = _entry_64 if width.is_64 else _entry_32
    entries = (entry(nr).ljust(_ENTRY_BYTES, _FILLER) for nr in range(PAGE_SIZE // _ENTRY_BYTES))
    return b"".join(entries)


def _entry_32(nr: int) -> bytes:
    load = _MOV_EAX + nr.to_bytes(4, "little")
    return _PUSH_RAX + load + _INT_82 if nr == HypercallNr.IRET else load + _INT_82 + _RET


def _entry_64(nr: int) -> bytes:
    """`syscall` overwrites rcx and r11, which a caller of the page need not know."""
    load = _MOV_EAX + nr.to_bytes(4, "little")
    if nr == HypercallNr.IRET:
        return _PUSH_RCX_R11 + _PUSH_RAX + load + _SYSCALL
    return _PUSH_RCX_R11 + load + _SYSCALL + _POP_R11_RCX + _RET
