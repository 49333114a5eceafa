"""The shortest way from an instruction to its handler: a few bytes of machine code before Python.

For the `Calls` of one `int` vector and of syscall, the machine code does what the instruction does,
looks whether it is a call, and does what `Calls.call` says; the functions are Python's, through
ctypes. What is not a call goes the general way.

    int (uc, vector, block):                    syscall (uc, block):
        if it is a fault: general()                 end of the block entered last = 0
        end of the block entered last = 0           if in 64-bit code:
        if another vector: general()                    R11 = flags; RCX = RIP + 2
        if hflags & mask != value: general()        RIP += 2
        call                                        if hflags & mask != value: general()
                                                    else: call
                                                    RIP -= 2, which the engine adds

The end is zero because both instructions end their block (see clock). A step needs no stop here:
the instruction was executed, so its block was let through, and the next one is not.
"""

from __future__ import annotations

import ctypes
from typing import Any, Final

from hypervisor.machine._core import Core
from hypervisor.machine._engine import NO_ARGS_FN
from hypervisor.machine._native import machine_code
from hypervisor.machine.calls import CallLog, Calls, Function

# words of a block
_COUNTER, _ENV, _GENERAL, _VECTOR, _MASK, _VALUE, _READ_EFLAGS, _LOG = range(8)
_LIMIT, _TABLE, _ATTENTION, _ATTEND = range(8, 12)
_WORDS: Final = 12
_NO_VECTOR: Final = 0xFFFF_FFFF

# System V calling convention; offsets in env are those of state.py. rbx: block, r11: env.
_FIND: Final = (  # rax: the number; notes it, and r10 is its function
    "4c8b4b38"  # mov r9, [rbx+56]            log
    "4d8b11"  # mov r10, [r9]
    "49ff01"  # inc qword [r9]
    "4183e20f"  # and r10d, 15                LOG_ENTRIES - 1
    "41c1e204"  # shl r10d, 4
    "4b89441108"  # mov [r9+r10+8], rax
    "498b8b80000000"  # mov rcx, [r11+128]          RIP
    "4b894c1110"  # mov [r9+r10+16], rcx
    "483b4340"  # cmp rax, [rbx+64]           limit
    "480f434340"  # cmovae rax, [rbx+64]
    "4c8b5348"  # mov r10, [rbx+72]           table
    "4d8b14c2"  # mov r10, [r10+rax*8]
)
_INT: Final = (
    "488b4208"  # mov rax, [rdx+8]            env
    "83b80c15000000"  # cmp dword [rax+5388], 0     exception_is_int
    "0f8496000000"  # je general
    "488b0a"  # mov rcx, [rdx]
    "48c7411000000000"  # mov qword [rcx+16], 0       END
    "3b7218"  # cmp esi, [rdx+24]           vector
    "0f8582000000"  # jne general
    "8b88b0000000"  # mov ecx, [rax+176]          hflags
    "234a20"  # and ecx, [rdx+32]           mask
    "3b4a28"  # cmp ecx, [rdx+40]           value
    "7574"  # jne general
    "53"  # push rbx                    which aligns the stack as well
    "4889d3"  # mov rbx, rdx
    "4989c3"  # mov r11, rax
    "418b03"  # mov eax, [r11]              32 bits of RAX
    + _FIND
    + "498b7b18"  # mov rdi, [r11+24]           EBX
    "498b7308"  # mov rsi, [r11+8]            ECX
    "498b5310"  # mov rdx, [r11+16]           EDX
    "498b4b30"  # mov rcx, [r11+48]           ESI
    "4d8b4338"  # mov r8, [r11+56]            EDI
    "41ffd2"  # call r10
    "4c8b5b08"  # mov r11, [rbx+8]
    "89c0"  # mov eax, eax                clears the upper half
    "498903"  # mov [r11], rax
    "4c8b4b50"  # mov r9, [rbx+80]            attention
    "41803900"  # cmp byte [r9], 0
    "740a"  # je end
    "4180790100"  # cmp byte [r9+1], 0
    "7503"  # jne end
    "ff5358"  # call [rbx+88]               attend()
    "5b"  # end: pop rbx
    "c3"  # ret
    "ff6210"  # general: jmp [rdx+16]
)
_SYSCALL: Final = (
    "53"  # push rbx
    "4889f3"  # mov rbx, rsi
    "488b03"  # mov rax, [rbx]
    "48c7401000000000"  # mov qword [rax+16], 0       END
    "4c8b5b08"  # mov r11, [rbx+8]
    "41f783b000000000800000"  # test dword [r11+176], 0x8000HF_CS64
    "741d"  # je behind
    "4c89df"  # mov rdi, r11
    "ff5330"  # call [rbx+48]               read_eflags(env)
    "4c8b5b08"  # mov r11, [rbx+8]
    "49894358"  # mov [r11+88], rax           R11
    "498b8380000000"  # mov rax, [r11+128]          RIP
    "4883c002"  # add rax, 2
    "49894308"  # mov [r11+8], rax            RCX
    "4983838000000002"  # behind: add qword [r11+128], 2
    "418b83b0000000"  # mov eax, [r11+176]          hflags
    "234320"  # and eax, [rbx+32]           mask
    "3b4328"  # cmp eax, [rbx+40]           value
    "756b"  # jne general
    "498b03" + _FIND + "498b7b38"  # mov rax, [r11]  # mov rdi, [r11+56]           RDI
    "498b7330"  # mov rsi, [r11+48]           RSI
    "498b5310"  # mov rdx, [r11+16]           RDX
    "498b4b50"  # mov rcx, [r11+80]           R10
    "4d8b4340"  # mov r8, [r11+64]            R8
    "41ffd2"  # call r10
    "4c8b5b08"  # mov r11, [rbx+8]
    "498903"  # mov [r11], rax
    "4c8b4b50"  # mov r9, [rbx+80]            attention
    "41803900"  # cmp byte [r9], 0
    "740f"  # je end
    "4180790100"  # cmp byte [r9+1], 0
    "7508"  # jne end
    "ff5358"  # call [rbx+88]               attend()
    "eb03"  # jmp end
    "ff5310"  # general: call [rbx+16]      general()
    "4c8b5b08"  # end: mov r11, [rbx+8]
    "4983ab8000000002"  # sub qword [r11+128], 2
    "5b"  # pop rbx
    "c3"  # ret
)
INT_REGISTERS: Final = (3, 1, 2, 6, 7)  # EBX ECX EDX ESI EDI, as loaded above
SYSCALL_REGISTERS: Final = (7, 6, 2, 10, 8)  # RDI RSI RDX R10 R8


class Gate:
    """A hook in machine code and what it knows. `function` and `user_data` are the hook's."""

    def __init__(self, core: Core, code: str, general: Any) -> None:
        internals = core.internals
        assert internals is not None, "machine code looks at the live state"
        self._page = machine_code(bytes.fromhex(code))
        self._general = general
        self._block = (ctypes.c_uint64 * _WORDS)()
        block = self._block
        block[_COUNTER] = ctypes.addressof(ctypes.c_char.from_buffer(core.words))
        block[_ENV] = internals.env
        block[_GENERAL] = _address(general)
        block[_VECTOR] = _NO_VECTOR
        block[_VALUE] = 1  # of a mask of 0: never
        block[_READ_EFLAGS] = internals.read_eflags_address
        self.function = ctypes.c_void_p(ctypes.addressof(ctypes.c_char.from_buffer(self._page)))
        self.user_data = ctypes.addressof(block)
        self._tables: dict[
            int, tuple[Calls, Any, list[Any], Any]
        ] = {}  # by the identity of the calls

    def lead_to(self, calls: Calls, vector: int = _NO_VECTOR) -> None:
        """Serve `calls` from now on, for an int gate if the vector is `vector`."""
        if id(calls) not in self._tables:
            self._tables[id(calls)] = (calls, *_c_table(calls), NO_ARGS_FN(calls.attend))
        block = self._block
        block[_TABLE] = ctypes.addressof(self._tables[id(calls)][1])
        block[_LIMIT] = len(calls.table)
        block[_MASK] = calls.mask
        block[_VALUE] = calls.value
        block[_VECTOR] = vector
        block[_ATTEND] = _address(self._tables[id(calls)][3])

    def ask_first(self, function: int) -> int:
        """Have machine code asked about all that is no call; the address of what was, until now.

        It is called in that one's place, and calls it where it has no answer.
        """
        before: int = self._block[_GENERAL]
        self._block[_GENERAL] = function
        return before

    def serve_caller(self, log: CallLog, attention: int) -> None:
        """Who calls from now on: its log, and the host address of its two bytes (see Calls)."""
        self._block[_LOG] = log.address
        self._block[_ATTENTION] = attention


def int_gate(core: Core, general: Any) -> Gate:
    """For HOOK_INTR; `general` is the C callback for all that is no call."""
    return Gate(core, _INT, general)


def syscall_gate(core: Core, general: Any) -> Gate:
    """For SYSCALL's hook; `general` takes no arguments."""
    return Gate(core, _SYSCALL, general)


def _c_table(calls: Calls) -> tuple[Any, list[Any]]:
    """Addresses of C functions, the last one `other`'s; and what they need to stay alive."""
    word = ctypes.c_uint64 if calls.bits == 64 else ctypes.c_uint32
    functions: dict[int, Any] = {}

    def address(entry: Function) -> int:
        if id(entry) not in functions:
            prototype = ctypes.CFUNCTYPE(word, *[word] * entry.nr_args)
            functions[id(entry)] = prototype(entry.function)
        at = _address(functions[id(entry)])
        return at if entry.ask_first is None else entry.ask_first(at)

    addresses = [address(entry or calls.other) for entry in (*calls.table, calls.other)]
    return (ctypes.c_uint64 * len(addresses))(*addresses), list(functions.values())


def _address(function: Any) -> int:
    return ctypes.cast(function, ctypes.c_void_p).value or 0
