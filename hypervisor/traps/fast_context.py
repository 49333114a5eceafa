"""The words that the machine code of traps (traps/native/traps.c) works on, one 64-bit word each.

A module of its own because the code is compiled with these numbers, and `fast` needs the code.
"""

from __future__ import annotations

from typing import Final

#: Traps take the short way: nobody watches, and the domain is nothing special.
ENABLED: Final = 0
# --- of the machine: addresses in the host's memory -----------------------------------------------
ENV: Final = 1  # CPUX86State
COUNTER_WORDS: Final = 2
READ_EFLAGS: Final = 3
MEMORY: Final = 4
MEMORY_BYTES: Final = 5
CODE_FRAMES: Final = 6  # Cpu.code_frames
# --- what to call where there is no answer, and when an event is due ------------------------------
NEXT_INTERRUPT: Final = 7
NEXT_SYSCALL: Final = 8
NEXT_IRET: Final = 9
ATTEND: Final = 10
# --- of the vCPU on the CPU -----------------------------------------------------------------------
TRAP_STATE: Final = 11  # address of its words: domain.trap_state
VCPU_INFO: Final = 12  # address of its vcpu_info
LEVELS: Final = 13  # of its page tables: 2, 3, 4
HOLE: Final = 14  # where Xen's region begins
USER_TLB_STALE: Final = 15  # see TrapEntry
NEXT_INVALID: Final = 16
CONTEXT_WORDS: Final = 17

DIRECT_VECTOR: Final = 0x80  # see bounce.to_direct_gate
HYPERCALL_VECTOR: Final = 0x82  # of 32-bit guests
