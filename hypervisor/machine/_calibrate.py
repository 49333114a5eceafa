"""Finding the engine's internals, and proving that they are where they should be.

What is used of them: the live CPU state, a byte that moves the engine's stop checks to block starts
(`no_exit_request`), a word that asks for a block of one instruction (`cflags_next_tb`), and
exported functions that flush by page and by TLB. All belong to one build, recognised by version and
size of the library; then each is verified by its effect. Where anything disagrees, the CPU works on
copies of the state through the public interface alone: slower, with the same results.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from hypervisor.machine import _engine
from hypervisor.machine._engine import REG, Context, Engine, EngineError
from hypervisor.machine.state import STATE_BYTES

_CONTEXT_HEADER: Final = 40


@dataclass(frozen=True, slots=True)
class Build:
    """Offsets of one build of the library, in bytes."""

    cpu_pointer: int  # in uc_struct: the address of the CPU object
    no_exit_request: int  # in uc_struct
    env: int  # in the CPU object: CPUX86State
    cflags_next_tb: int  # in the CPU object


#: Known builds by (version, size of the library).
BUILDS: Final = {
    ("2.1.4", 24_507_432): Build(0x1B8, 0x7F2, 0x8A50, 0x18),  # manylinux x86_64 wheel
}


@dataclass(frozen=True, slots=True)
class Internals:
    """The live internals of one engine."""

    cpu: int
    env: int
    no_exit_request: ctypes.c_uint8
    cflags_next_tb: ctypes.c_uint32
    flush_page: Callable[[int], object]
    flush_user: Callable[[], object]
    drop_physical: Callable[[int, int], object]
    read_eflags: Callable[[], int]
    read_eflags_address: int


_PROBE: Final = {
    "rax": (0, 0x1122_3344_5566_7788),
    "r15": (15 * 8, 0x99AA_BBCC_DDEE_FF00),
    "rip": (16 * 8, 0x7654_3210),
    "cr2": (440, 0x0123_4567_89AB),
    "fs_base": (184 + 4 * 24 + 8, 0x7FFF_1234_5000),
}
_MMU_USER: Final = 1 << 1  # MMU_USER_IDX


def find_internals(engine: Engine) -> Internals | None:
    """The internals of `engine`, verified; None where the build is not known or disagrees."""
    build = BUILDS.get((_engine.VERSION, _engine.library_size()))
    if build is None:
        return None
    cpu = ctypes.c_uint64.from_address(engine.handle + build.cpu_pointer).value
    env = cpu + build.env
    if not cpu or not _verify(engine, lambda: ctypes.string_at(env, STATE_BYTES)):
        return None
    exports = [
        _engine.exported(name)
        for name in (
            "tlb_flush_page_x86_64",
            "tlb_flush_by_mmuidx_x86_64",
            "tb_invalidate_phys_range_x86_64",
            "helper_read_eflags_x86_64",
        )
    ]
    next_tb = ctypes.c_uint32.from_address(cpu + build.cflags_next_tb)
    if None in exports or next_tb.value != 0xFFFF_FFFF:
        return None
    return _internals(engine, build, cpu, env, exports)


def _internals(engine: Engine, build: Build, cpu: int, env: int, exports: list[Any]) -> Internals:
    flush_page, flush_index, drop, read_eflags = exports
    cpu_pointer, env_pointer = ctypes.c_void_p(cpu), ctypes.c_void_p(env)
    handle = ctypes.c_void_p(engine.handle)
    read_eflags.restype = ctypes.c_uint64
    u64 = ctypes.c_uint64
    return Internals(
        cpu=cpu,
        env=env,
        no_exit_request=ctypes.c_uint8.from_address(engine.handle + build.no_exit_request),
        cflags_next_tb=ctypes.c_uint32.from_address(cpu + build.cflags_next_tb),
        flush_page=lambda vaddr: flush_page(cpu_pointer, u64(vaddr)),
        flush_user=lambda: flush_index(cpu_pointer, ctypes.c_uint16(_MMU_USER)),
        drop_physical=lambda start, end: drop(handle, u64(start), u64(end)),
        read_eflags=lambda: int(read_eflags(env_pointer)),
        read_eflags_address=ctypes.cast(read_eflags, ctypes.c_void_p).value or 0,
    )


def verify_context(engine: Engine, context: Context) -> None:
    """A copy of the state has the layout that `state` declares. Raises EngineError if not."""

    def copy() -> bytes:
        context.save()
        return ctypes.string_at(context.address + _CONTEXT_HEADER, STATE_BYTES)

    if context.size < _CONTEXT_HEADER + STATE_BYTES or not _verify(engine, copy):
        raise EngineError(
            f"this build of unicorn {_engine.VERSION} lays its CPU state out in an unknown way; "
            "install unicorn 2.1.4"
        )


def context_state_address(context: Context) -> int:
    """Where CPUX86State starts in a copy."""
    return context.address + _CONTEXT_HEADER


def _verify(engine: Engine, read: Callable[[], bytes]) -> bool:
    """Whether values written by the register interface show up where they should."""
    before = {name: engine.read_register(REG[name]) for name in _PROBE}
    for name, (_, value) in _PROBE.items():
        engine.write_register(REG[name], value)
    seen = read()
    for name, value in before.items():
        engine.write_register(REG[name], value)
    return all(
        int.from_bytes(seen[at : at + 8], "little") == value for at, value in _PROBE.values()
    )
