"""The one importer of unicorn: its C library, raw, with the few types that go through it.

The Python class of the binding is used only to create an engine; hot calls go to the library itself
through ctypes, with plain integers.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, Final

import unicorn
from unicorn import unicorn_const as const
from unicorn import x86_const
from unicorn.unicorn_py3.unicorn import uclib as _uclib

_BINDING: Final[Any] = unicorn  # it says that it is typed, and is not
_RELEASING: Final[Any] = _uclib  # calls by it release Python's lock,
LIB: Final[Any] = ctypes.PyDLL(_uclib._name)  # and by this keep it, callbacks included: faster
VERSION: Final[str] = _BINDING.__version__

HOOK_INTR: Final[int] = const.UC_HOOK_INTR
HOOK_INSN: Final[int] = const.UC_HOOK_INSN
HOOK_CODE: Final[int] = const.UC_HOOK_CODE
HOOK_BLOCK: Final[int] = const.UC_HOOK_BLOCK
HOOK_INSN_INVALID: Final[int] = const.UC_HOOK_INSN_INVALID
HOOK_EDGE_GENERATED: Final[int] = const.UC_HOOK_EDGE_GENERATED
INSN_SYSCALL: Final[int] = x86_const.UC_X86_INS_SYSCALL
INSN_SYSENTER: Final[int] = x86_const.UC_X86_INS_SYSENTER
INSN_CPUID: Final[int] = x86_const.UC_X86_INS_CPUID
INSN_IN: Final[int] = x86_const.UC_X86_INS_IN
INSN_OUT: Final[int] = x86_const.UC_X86_INS_OUT
INSN_RDTSC: Final[int] = x86_const.UC_X86_INS_RDTSC
INSN_RDTSCP: Final[int] = x86_const.UC_X86_INS_RDTSCP

_CTL_TLB_FLUSH: Final[int] = const.UC_CTL_TLB_FLUSH
_CTL_TB_FLUSH: Final[int] = const.UC_CTL_TB_FLUSH
_CTL_USE_EXITS: Final[int] = const.UC_CTL_UC_USE_EXITS
_CTL_WRITE: Final = 1 << 30
_CTL_ONE_ARGUMENT: Final = 1 << 26

#: Callback types. Python prints and forgets an exception that leaves one: ours never does.
INTR_FN: Final = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_uint32, ctypes.c_void_p)
BLOCK_FN: Final = ctypes.CFUNCTYPE(
    None, ctypes.c_void_p, ctypes.c_uint64, ctypes.c_uint32, ctypes.c_void_p
)
VOID_INSN_FN: Final = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p)
INT_INSN_FN: Final = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p)
INVALID_FN: Final = ctypes.CFUNCTYPE(ctypes.c_bool, ctypes.c_void_p, ctypes.c_void_p)
IN_FN: Final = ctypes.CFUNCTYPE(
    ctypes.c_uint32, ctypes.c_void_p, ctypes.c_uint32, ctypes.c_int, ctypes.c_void_p
)
OUT_FN: Final = ctypes.CFUNCTYPE(
    None, ctypes.c_void_p, ctypes.c_uint32, ctypes.c_int, ctypes.c_uint32, ctypes.c_void_p
)


NO_ARGS_FN: Final = ctypes.CFUNCTYPE(None)


class TranslationBlock(ctypes.Structure):
    """uc_tb: what an EDGE hook is told of a new block."""

    _fields_ = (("pc", ctypes.c_uint64), ("icount", ctypes.c_uint16), ("size", ctypes.c_uint16))


EDGE_FN: Final = ctypes.CFUNCTYPE(
    None,
    ctypes.c_void_p,
    ctypes.POINTER(TranslationBlock),
    ctypes.POINTER(TranslationBlock),
    ctypes.c_void_p,
)


class EngineError(Exception):
    """The engine refused a call or stopped on something that guests cannot cause."""


class Engine:
    """One emulated CPU: the handle, and calls on it. Keeps what C code points to alive."""

    def __init__(self) -> None:
        self._uc: Any = _BINDING.Uc(const.UC_ARCH_X86, const.UC_MODE_64)
        self.handle: int = self._uc._uch.value
        self._handle = ctypes.c_void_p(self.handle)
        self._kept: list[Any] = []  # callbacks removed, which code of before may still call
        self._is_flushed = False
        self.hooks: dict[int, Any] = {}
        check(LIB.uc_ctl(self._handle, _CTL_USE_EXITS | _CTL_WRITE | _CTL_ONE_ARGUMENT, 1))
        self.emu_stop_address: int = ctypes.cast(LIB.uc_emu_stop, ctypes.c_void_p).value or 0

    def map_memory(self, maddr: int, size: int, address: int) -> None:
        """Let [maddr, maddr + size) of the machine be host memory at `address`."""
        pointer = ctypes.c_void_p(address)
        check(
            LIB.uc_mem_map_ptr(
                self._handle,
                ctypes.c_uint64(maddr),
                ctypes.c_size_t(size),
                ctypes.c_uint32(const.UC_PROT_ALL),
                pointer,
            )
        )

    def hook(
        self,
        kind: int,
        function: Any,
        *,
        begin: int = 1,
        end: int = 0,
        insn: int | None = None,
        user_data: int = 0,
    ) -> int:
        """Install a callback; [begin, end] of virtual addresses, all of them by default."""
        hook = ctypes.c_size_t()
        arguments = [
            self._handle,
            ctypes.byref(hook),
            ctypes.c_int(kind),
            ctypes.cast(function, ctypes.c_void_p),
            ctypes.c_void_p(user_data),
            ctypes.c_uint64(begin),
            ctypes.c_uint64(end),
        ]
        if insn is not None:
            arguments.append(ctypes.c_int(insn))
        check(LIB.uc_hook_add(*arguments))
        self.hooks[hook.value] = function
        return hook.value

    def unhook(self, hook: int) -> None:
        """Remove a callback."""
        check(LIB.uc_hook_del(self._handle, ctypes.c_size_t(hook)))
        self._kept.append(self.hooks.pop(hook))

    def start(self, rip: int, count: int = 0, *, is_short: bool = True) -> int:
        """Run from `rip` until something stops it; the library's error number.

        Other threads of Python run meanwhile unless it `is_short`.
        """
        if self._is_flushed:
            self._is_flushed = False
            self._kept.clear()
        result: int = (LIB if is_short else _RELEASING).uc_emu_start(
            self._handle,
            ctypes.c_uint64(rip),
            ctypes.c_uint64(0),
            ctypes.c_uint64(0),
            ctypes.c_size_t(count),
        )
        return result

    def stopper(self) -> Callable[[], object]:
        """A fast function that stops the engine."""
        stop, handle = LIB.uc_emu_stop, self._handle
        return lambda: stop(handle)

    def tlb_flusher(self) -> Callable[[], object]:
        """A fast function that flushes the TLB."""
        ctl, handle, command = LIB.uc_ctl, self._handle, _CTL_TLB_FLUSH | _CTL_WRITE
        return lambda: ctl(handle, command)

    def flush_translations(self) -> None:
        """Drop all translated code."""
        self._is_flushed = True
        check(LIB.uc_ctl(self._handle, _CTL_TB_FLUSH | _CTL_WRITE))

    def remove_translations(self, vaddr: int, end: int) -> None:
        """Drop code translated from [vaddr, end) of the current address space."""
        LIB.uc_ctl(
            self._handle,
            const.UC_CTL_TB_REMOVE_CACHE | _CTL_WRITE | 2 << 26,
            ctypes.c_uint64(vaddr),
            ctypes.c_uint64(end),
        )

    # --- contexts ----------------------------------------------------------------------------
    def new_context(self) -> Context:
        """Room for a copy of the CPU's state."""
        return Context(self._handle)

    # --- registers by the interface, for checks ------------------------------------------------
    def read_register(self, register: int) -> int:
        """A register by its UC_X86_REG_* number."""
        value = ctypes.c_uint64()
        check(LIB.uc_reg_read(self._handle, ctypes.c_int(register), ctypes.byref(value)))
        return value.value

    def write_register(self, register: int, value: int) -> None:
        """The opposite."""
        raw = ctypes.c_uint64(value)
        check(LIB.uc_reg_write(self._handle, ctypes.c_int(register), ctypes.byref(raw)))

    def close(self) -> None:
        """Free the engine; nothing of it may be used any more."""
        self._uc = None


class Context:
    """A copy of the state: `address` and `size` of its bytes, header included."""

    def __init__(self, handle: ctypes.c_void_p) -> None:
        self._engine = handle
        self._context = ctypes.c_void_p()
        check(LIB.uc_context_alloc(handle, ctypes.byref(self._context)))
        self.size: int = LIB.uc_context_size(handle)
        self.address = self._context.value or 0

    def save(self) -> None:
        """Engine to copy."""
        LIB.uc_context_save(self._engine, self._context)

    def restore(self) -> None:
        """Copy to engine."""
        LIB.uc_context_restore(self._engine, self._context)


def check(error: int) -> None:
    """Raise EngineError unless the library's answer is UC_ERR_OK."""
    if error:
        raise EngineError(f"unicorn: {error_text(error)}")


def error_text(error: int) -> str:
    """The library's words for an error number."""
    return str(_BINDING.UcError(error))


@cache
def library_size() -> int:
    """The size of the loaded library in bytes: with VERSION it names a build, and hashing 30 MB
    would cost a tenth of a second at every start."""
    return Path(LIB._name).stat().st_size


def exported(name: str) -> Any | None:
    """A function that the library exports beyond its interface, None when it does not."""
    return getattr(LIB, name, None)


REG: Final = {
    name[len("UC_X86_REG_") :].lower(): value
    for name, value in vars(x86_const).items()
    if name.startswith("UC_X86_REG_")
}
