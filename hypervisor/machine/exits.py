"""Where guest code leaves for its owner."""

from __future__ import annotations

from typing import Protocol

from hypervisor.machine._engine import EngineError


class Exits(Protocol):
    """What the owner of a CPU does at its traps. RIP is the guest's to go on from afterwards.

    Exceptions that leave these methods stop the engine and come out of `run`.
    """

    def exception(self, vector: int, error_code: int) -> None:
        """A fault, RIP at its instruction; or #DB after one. #PF has its address in CR2."""

    def soft_interrupt(self, vector: int) -> None:
        """int n, int3 or into; RIP behind it."""

    def syscall(self) -> None:
        """syscall; RIP behind it, in 64-bit code RCX too, and the flags in R11."""

    def sysenter(self) -> None:
        """sysenter; RIP behind it."""

    def cpuid(self) -> None:
        """cpuid: fill EAX, EBX, ECX, EDX."""

    def rdtsc(self) -> int:
        """rdtsc or rdtscp: the time-stamp counter."""

    def port_allowed(self, code: bytes) -> bool:
        """RIP is at a port instruction, `code`, that IOPL does not permit.

        True: do it all the same, by `port_in` or `port_out`, and nothing of the state has been
        changed. False: it is #GP(0), a call of `exception`, which may change anything.
        """

    def port_in(self, port: int, size: int) -> int:
        """in, where IOPL or the owner permits it."""

    def port_out(self, port: int, size: int, value: int) -> None:
        """out, where IOPL or the owner permits it."""


class NoExits:
    """A CPU without an owner: every trap is a mistake."""

    def exception(self, vector: int, error_code: int) -> None:
        """Nobody expected it."""
        raise EngineError(f"exception {vector} ({error_code:#x}) on a CPU without an owner")

    def soft_interrupt(self, vector: int) -> None:
        """Nobody expected it."""
        raise EngineError(f"int {vector:#x} on a CPU without an owner")

    def syscall(self) -> None:
        """Nobody expected it."""
        raise EngineError("syscall on a CPU without an owner")

    def sysenter(self) -> None:
        """Nobody expected it."""
        raise EngineError("sysenter on a CPU without an owner")

    def cpuid(self) -> None:
        """All leaves are as the registers were."""

    def rdtsc(self) -> int:
        """Time stands still."""
        return 0

    def port_allowed(self, code: bytes) -> bool:
        """As the CPU says."""
        return False

    def port_in(self, port: int, size: int) -> int:
        """Nothing answers."""
        return (1 << 8 * size) - 1

    def port_out(self, port: int, size: int, value: int) -> None:
        """Nothing listens."""
