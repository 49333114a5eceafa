"""The short way of a trap is the long way: same guest, same counts, same time, whatever is odd.

Each seed makes a guest whose gates, stacks, selectors, flags, mask and pending events are drawn; of
every other also ring, segments and mode.
It executes one instruction that traps, on a machine whose traps are machine code and on one where
all go by Python.
"""

from __future__ import annotations

import random
import subprocess
import sys
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import pytest

from hypervisor.abi.width import Width
from hypervisor.api import Machine
from hypervisor.domain.domain import DomainState
from hypervisor.domain.trap_state import Callback, TrapGate
from hypervisor.mm.descriptors import checked_descriptor
from hypervisor.mm.walk import walk
from hypervisor.traps.bounce import load_kernel_64, toggle_guest_mode
from hypervisor.x86.flags import CS, DS, ES, FS, GS, R11, RAX, RCX, RSP, SS
from hypervisor.x86.paging import PTE_US
from tests.support.callers import BASE, Guest

ROOT: Final = Path(__file__).resolve().parents[3]
SEEDS: Final = 12
FAR_PS: Final = 1_000_000  # so far that nothing is stepped: a step goes by Python
CODE: Final = 0x100
HANDLER: Final = 0x200
USER_CODE_32: Final = bytes.fromhex("ffff000000fbcf00")
SPIN: Final = b"\xeb\xfe"
INSTRUCTIONS: Final = {
    "int 0x80": b"\xcd\x80",
    "int 0x81": b"\xcd\x81",
    "int 0x82": b"\xcd\x82",
    "int3": b"\xcc",
    "syscall": b"\x0f\x05",
    "read": b"\x8a\x01",  # mov al, [(e/r)cx]
    "write": b"\x88\x01",
    "ud2": b"\x0f\x0b",
    "forced cpuid": b"\x0f\x0bxen\x0f\xa2",
    "divide": b"\x31\xc0\xf7\xf0",
    "jump": b"\xff\xe1",  # jmp (e/r)cx
}
#: VM, NT, RF, AC, TF, the two of IOPL, and the arithmetic and direction flags.
EFLAGS_BITS: Final = (1 << 17, 1 << 14, 1 << 16, 1 << 18, 1 << 8, 1 << 12, 2 << 12, 0x8D5, 1 << 10)
EFLAGS_VM: Final = 1 << 17
ALWAYS_BY_PYTHON: Final = {
    "int 0x82",
    "forced cpuid",
    "jump",
}
Outcome = tuple[object, ...]


class Odd:
    """One drawn guest."""

    def __init__(self, guest: Guest, draw: random.Random, *, is_wild: bool = False) -> None:
        self.guest = guest
        self.is_wild = is_wild
        self.draw = draw
        self.is_64 = guest.width.is_64
        self.current = guest.enter().current
        self.base = BASE[guest.width]
        guest.dom.paused = 0
        guest.put(bytes(0x1000))  # a page that was written: its entry is dirty
        self._open_to_user_mode()
        self.came_to_python = 0
        entry = guest.machine.vmm.entry
        crash, cpu = entry.crash, guest.machine.vmm.cpu

        def crash_and_stop(why: str) -> None:
            crash(why)
            cpu.request_stop()  # the scheduler does not know that this guest runs

        entry.crash = crash_and_stop
        for way in ("exception", "soft_interrupt", "syscall"):
            setattr(entry, way, self._counted(getattr(entry, way)))

    def _open_to_user_mode(self) -> None:
        """All of the image, by every entry above it."""
        memory, mode = self.guest.host.memory, self.guest.dom.page_tables.mode
        words = memory.u32 if mode.entry_bytes == 4 else memory.u64
        for vaddr in range(self.base, self.base + 0x4000, 0x1000):
            for step in walk(memory, mode, self.current.state.cr3, vaddr).steps:
                words[step.entry_maddr >> mode.entry_shift] |= PTE_US
        self.guest.host.flush_tlb()

    def _counted(self, handle: Callable[..., None]) -> Callable[..., None]:
        def counted(*args: int) -> None:
            self.came_to_python += 1
            handle(*args)

        return counted

    def selector(self, good: int) -> int:
        """`good`, or now and then something else."""
        others = (0, 1, 3, 0xE008, 0xE018, 0xE019, 0xE021, 0xE02B, 0xE033, 0xE023, 0x0F, 0xFFFF)
        if self.is_wild and self.draw.random() < 0.5:
            return self.draw.randrange(16) << 3 | self.draw.choice((1, 3))
        return good if self.draw.random() < 0.85 else self.draw.choice(others)

    def stack(self) -> int:
        """A place in the data page, or now and then none."""
        good = self.guest.data + self.draw.randrange(0x100, 0x1000)
        odd = (0x800, 0xFFFF_FFFF, self.guest.data + 4, self.base + 0x40, self.base + CODE + 64)
        return good if self.draw.random() < 0.85 else self.draw.choice(odd)

    def flags(self) -> int:
        """Any."""
        return 0x202 | sum(bit for bit in EFLAGS_BITS if self.draw.random() < 0.2)

    def go_wild(self) -> None:
        """What a guest brings about by loads of segments, far jumps and an iret of its own: another
        ring, other selectors and bases, virtual-8086 mode."""
        draw, state = self.draw, self.current.state
        for register in (ES, DS, FS, GS):
            if draw.random() < 0.3:
                kinds = (0, 0x00CF_F300, 0x0000_F300, 0x00CF_FB00, 0x00CF_9F00, 0x00CF_B300)
                flags = draw.choice(kinds)
                base = draw.choice((0, 0, 0x1000, 0xFFFF_F000))
                selector = draw.randrange(0x1_0000)
                state.set_segment(register, selector, base, 0xFFFF_FFFF, flags)
        for register in (CS, SS):
            if draw.random() < 0.2:
                _, base, limit, flags = state.segment(register)
                wild = draw.choice((0xE019, 0xE030, 0xE033, 0xE02B, draw.randrange(0x1_0000)))
                state.set_segment(register, wild, base, limit, flags)
        if draw.random() < 0.2 and not self.is_64:
            state.set_cpl(draw.choice((1, 2, 3)))
        if draw.random() < 0.3 and state.cpl == 3:
            self.go_to_vm86()

    def make_gdt(self) -> None:
        """A table of descriptors, the first place too, of all kinds that are let through."""
        draw, guest = self.draw, self.guest
        table = b""
        for _ in range(16):
            kind = draw.choice((0x0, 0x2, 0x4, 0x6, 0x8, 0xA, 0xC, 0xE)) | 0x11  # accessed; no gate
            dpl = draw.choice((3, 3, 3 if self.is_64 else 1))
            high = kind << 8 | dpl << 13 | draw.choice((0, 1, 1, 1)) << 15
            high |= draw.choice((0x00CF_0000, 0x0000_0000, 0x1040_0010))
            high |= 0x0020_0000 if self.is_64 and draw.random() < 0.3 else 0
            desc = checked_descriptor(guest.width, high << 32 | 0xFFFF)
            table += desc.to_bytes(8, "little")
        at = guest.read_only(table)
        mfn = self.current.mem.translate(at, write=False) >> 12
        tables = guest.host.descriptor_tables
        tables.set_gdt(guest.dom, guest.vcpu, [mfn], draw.choice((16, 2, 512)))

    def go_to_vm86(self) -> None:
        """As return_to_vm86 of the engine leaves it, but for the base: our code is there."""
        state = self.current.state
        for register in (ES, SS, DS, FS, GS):
            selector = self.draw.randrange(0x1_0000)
            state.set_segment(register, selector, selector << 4, 0xFFFF, 0x0000_F300)
        selector = self.draw.choice((0xE019, 0xE030, 0xE033))
        state.set_segment(CS, selector, self.base, 0xFFFF, 0x0000_F300)
        state.rflags |= EFLAGS_VM | 3 << 12

    def set_up(self) -> None:
        draw, vcpu, state = self.draw, self.guest.vcpu, self.current.state
        if self.is_wild:
            self.make_gdt()
        kernel_cs = 0xE033 if self.is_64 else 0xE019
        for vector in (0, 3, 6, 13, 14, 0x80, 0x81, 0x82):
            if draw.random() < 0.9:
                cs = self.selector(kernel_cs)
                gate = TrapGate(
                    cs, self.base + HANDLER, draw.choice((3, 3, 1)), draw.random() < 0.3
                )
                vcpu.gates[vector] = gate
        if draw.random() < 0.8:
            vcpu.syscall_callback = Callback(0xE033, self.base + HANDLER, draw.random() < 0.3)
        vcpu.event_callback = Callback(kernel_cs, self.base + HANDLER + 2)
        vcpu.kernel_ss, vcpu.kernel_sp = self.selector(0xE021), self.stack()
        if self.is_64:
            vcpu.user_root_mfn = draw.choice((vcpu.root_mfn, vcpu.root_mfn, 0))
            vcpu.gs_base_user = 0x1234_5000
        self.guest.dom.vm_assist = draw.choice((0, 0, 0, 1 << 4))
        self.current.assist_changed()
        self.current.mask_events(draw.random() < 0.4)
        self.current.view[vcpu.vcpu_info_maddr] = draw.random() < 0.3
        flags = self.flags() & ~EFLAGS_VM
        state.rflags = draw.choice((0x202, 0x8D7, 0xA46, 0x4_0202, 0x1_4202, flags))
        state.set_gpr(
            RCX, draw.choice((self.guest.data, 0x1000, 0xF600_0000, self.base + 0x9_0000))
        )
        state.set_gpr(RSP, self.stack())

    def go_to_user_mode(self) -> None:
        state = self.current.state
        if self.is_64:
            self.guest.vcpu.user_root_mfn = self.guest.vcpu.root_mfn
            toggle_guest_mode(self.current)
            state.set_segment(CS, 0xE033, 0, 0xFFFF_FFFF, 0x00AF_FB00)
            state.set_segment(SS, 0xE02B, 0, 0xFFFF_FFFF, 0x00CF_F300)
        else:
            state.set_segment(CS, 0xE02B, 0, 0xFFFF_FFFF, 0x00CF_FB00)
            state.set_segment(SS, 0xE033, 0, 0xFFFF_FFFF, 0x00CF_F300)
        state.set_cpl(3)

    def frame_for_iret(self) -> None:
        """At the stack pointer, as the iret hypercall wants it."""
        draw = self.draw
        size = self.guest.width.word_bytes
        flags = draw.choice((0x202, 0x2, 0x302, 0xA46, 0x3202, self.flags()))
        if self.is_64:
            cs, ss = self.selector(draw.choice((0xE033, 0xE030, 0xE023))), self.selector(0xE02B)
            ways = draw.choice((0, 256)), self.base + HANDLER
            frame: tuple[int, ...] = (1, 2, 3, *ways, cs, flags, self.stack(), ss)
        else:
            to_user = draw.random() < 0.7
            cs = self.selector(0xE02B if to_user else 0xE019)
            frame = (1, self.base + HANDLER, cs, flags, self.stack(), self.selector(0xE033))
        at = self.current.state.gpr(RSP)
        if self.current.mem.is_guest_range(at, 9 * size):
            with_room = at & 0xFFF <= 0x1000 - 9 * size and at > self.base
            if with_room:
                raw = b"".join(word.to_bytes(size, "little") for word in frame)
                self.current.mem.write(at, raw)
        self.current.state.set_gpr(RAX, 23)

    def run(self, name: str) -> Outcome:
        self.set_up()
        is_call = name == "iret"
        if is_call:
            self.frame_for_iret()
        else:
            if self.draw.random() < 0.6:
                self.go_to_user_mode()
            if self.is_wild:
                self.go_wild()
        code = INSTRUCTIONS[("syscall" if self.is_64 else "int 0x82") if is_call else name]
        mem, state = self.current.mem, self.current.state
        mem.write(self.base + CODE, b"\x90" + code + SPIN)
        mem.write(self.base + HANDLER, SPIN + SPIN)
        state.rip = self.base + CODE
        vmm = self.guest.machine.vmm
        vmm.cpu.run(vmm.cpu.clock.now_ps() + FAR_PS)
        vcpu = self.guest.vcpu
        return (
            self.guest.dom.state,
            self.guest.dom.crash_report,
            state.architectural(),
            zlib.crc32(self.guest.host.memory.view),
            vcpu.exceptions,
            vcpu.stats,
            vcpu.calls.latest(),
            vcpu.kernel_mode,
            vcpu.gs_base_user,
            vmm.cpu.clock.now_ps(),
        )


@contextmanager
def one_guest(width: Width, *, native: bool) -> Iterator[Guest]:
    with Machine(memory_mib=8, native_clock=native) as machine:
        machine.audits = False
        yield Guest(machine, width)


def outcome(width: Width, name: str, seed: int, *, native: bool) -> tuple[Outcome, int]:
    """And how often it came to Python, -1 where it always does."""
    with one_guest(width, native=native) as guest:
        odd = Odd(guest, random.Random(f"{name} {seed}"), is_wild=bool(seed % 2))
        found = odd.run(name)
        return found, odd.came_to_python if guest.host.current.fast.works else -1


@pytest.mark.parametrize("name", [*INSTRUCTIONS, "iret"])
@pytest.mark.parametrize("width", Width, ids=lambda width: width.name)
def test_both_ways_are_the_same(width: Width, name: str) -> None:
    alone = 0
    for seed in range(SEEDS):
        by_code, python = outcome(width, name, seed, native=True)
        if python < 0:
            pytest.skip("this host or this build of the engine has no short way")
        by_python, _ = outcome(width, name, seed, native=False)
        assert by_code == by_python, f"seed {seed}"
        alone += python == 0 and by_code[0] is DomainState.RUNNING
    assert alone or name in ALWAYS_BY_PYTHON or (name == "syscall" and not width.is_64)


def test_a_usual_system_call_does_not_come_to_python() -> None:
    with one_guest(Width.X86_64, native=True) as guest:
        if not guest.host.current.fast.works:
            pytest.skip("this host or this build of the engine has no short way")
        odd = Odd(guest, random.Random(0))
        guest.vcpu.syscall_callback = Callback(0xE033, odd.base + HANDLER)
        guest.vcpu.kernel_sp = guest.data + 0x800
        odd.go_to_user_mode()
        state, mem = odd.current.state, odd.current.mem
        mem.write(odd.base + CODE, INSTRUCTIONS["syscall"])
        mem.write(odd.base + HANDLER, SPIN)
        state.rip = odd.base + CODE
        state.set_gpr(R11, 7)
        vmm = guest.machine.vmm
        vmm.cpu.run(vmm.cpu.clock.now_ps() + FAR_PS)
        assert (state.rip, state.cpl, guest.vcpu.kernel_mode) == (odd.base + HANDLER, 1, True)
        assert state.gpr(RCX) == odd.base + CODE + 2
        assert odd.came_to_python == 0


def test_the_machine_code_is_what_its_source_makes() -> None:
    command = [
        sys.executable,
        str(ROOT / "hypervisor" / "traps" / "native" / "build.py"),
        "--check",
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("native", [True, False], ids=["by machine code", "by Python"])
def test_the_null_selector_names_no_code(native: bool) -> None:
    """Though the first place of the table holds a descriptor that would do."""
    with one_guest(Width.X86_32, native=native) as guest:
        odd = Odd(guest, random.Random(0))
        mfn = odd.current.mem.translate(guest.read_only(USER_CODE_32), write=False) >> 12
        guest.host.descriptor_tables.set_gdt(guest.dom, guest.vcpu, [mfn], 512)
        guest.vcpu.gates[13] = TrapGate(0xE019, odd.base + HANDLER)
        guest.vcpu.kernel_ss, guest.vcpu.kernel_sp = 0xE021, guest.data + 0x800
        state, mem = odd.current.state, odd.current.mem
        frame = (1, odd.base + HANDLER, 3, 0x202, guest.data + 0x100, 0xE033)
        mem.write(guest.data + 0x200, b"".join(word.to_bytes(4, "little") for word in frame))
        mem.write(odd.base + CODE, INSTRUCTIONS["int 0x82"])
        mem.write(odd.base + HANDLER, SPIN)
        state.rip = odd.base + CODE
        state.set_gpr(RAX, 23)
        state.set_gpr(RSP, guest.data + 0x200)
        vmm = guest.machine.vmm
        vmm.cpu.run(vmm.cpu.clock.now_ps() + FAR_PS)
        assert (state.selector(CS), guest.vcpu.exceptions) == (0xE019, 1)


def test_kernel_mode_of_a_new_vcpu() -> None:
    with one_guest(Width.X86_64, native=True) as guest:
        assert guest.vcpu.kernel_mode
        load_kernel_64(guest.enter().current)
        assert guest.enter().current.state.cpl == 1
