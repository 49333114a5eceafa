"""From a hypercall instruction to its handler and back: the hottest path of the VMM.

32-bit guests execute `int $0x82` with the number in EAX and arguments in EBX ECX EDX ESI EDI,
64-bit ones `syscall` with RAX and RDI RSI RDX R10 R8; the result replaces the number. 64-bit
callers find RCX = RIP and R11 = RFLAGS afterwards: the instruction leaves them so.

That is a table of calls to the machine (machine.calls). Each hypercall gets one function, over
everything that does not change; while a probe looks at entries, one function that tells it stands
for all. `_result_of` is the one place where XenError becomes a number.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from hypervisor.abi.errors import DomainCrash, XenError
from hypervisor.abi.xen import HypercallNr
from hypervisor.domain.domain import DomainState
from hypervisor.hypercalls.caller import Caller
from hypervisor.hypercalls.table import ABSENT, HYPERCALLS, Hypercall, Preempted
from hypervisor.machine.calls import Calls, Function
from hypervisor.machine.cpu import Cpu
from hypervisor.machine.state import HF_CPL, HF_CS64, HF_LMA
from hypervisor.probes import Entry, Probes
from hypervisor.traps.entry import TrapEntry
from hypervisor.traps.fast_context import HYPERCALL_VECTOR
from hypervisor.x86.flags import R8, R10, RAX, RBX, RCX, RDI, RDX, RSI

_ENOSYS: Final = -38
_ARGS_32: Final = (RBX, RCX, RDX, RSI, RDI)
_ARGS_64: Final = (RDI, RSI, RDX, R10, R8)
_INSTRUCTION_BYTES: Final = 2  # int $0x82, syscall
_M32: Final = 0xFFFF_FFFF
_M64: Final = 0xFFFF_FFFF_FFFF_FFFF


class Dispatcher:
    """Answers the hypercalls of the guest on the CPU."""

    def __init__(self, caller: Caller, entry: TrapEntry, probes: Probes) -> None:
        self._caller = caller
        self._current = caller.current
        self._entry = entry
        self._probes = probes
        state = caller.current.state
        self._state = state
        self._q = state.q
        self._view = caller.current.view
        self.why = ""
        self._by_number = {nr: self._bind(row) for nr, row in HYPERCALLS.items()}
        self._current.fast.connect(self._deliver)
        self._fast = self._tables(self._by_number, Function(self._unknown, 0))
        self._seen = self._tables({}, Function(self._traced, 0))

    def serve(self, cpu: Cpu) -> None:
        """Let `cpu` call hypercalls: told to the probe if there is one, else the short way."""
        calls32, calls64 = self._fast if self._probes.entry is None else self._seen
        self._current.fast.watch(self._probes.entry is not None)
        cpu.serve_int(HYPERCALL_VECTOR, calls32)
        cpu.serve_syscall(calls64)

    def made(self) -> None:
        """The guest on the CPU has made a hypercall, as its registers say, by another way."""
        tables = self._fast if self._probes.entry is None else self._seen
        vcpu = self._current.vcpu
        at = vcpu.vcpu_info_maddr
        tables[vcpu.width.is_64].call(self._state, vcpu.calls, self._view[at : at + 2])

    def _tables(self, by_number: dict[int, Function], other: Function) -> tuple[Calls, Calls]:
        """`int $0x82` from ring 1 in 32-bit mode; `syscall` from a 64-bit kernel, at CPL 1 here."""
        table = tuple(by_number.get(nr) for nr in range(max(by_number, default=-1) + 1))
        return (
            Calls(table, other, _ARGS_32, 32, HF_LMA | HF_CPL, 1, self._deliver),
            Calls(table, other, _ARGS_64, 64, HF_CS64 | HF_CPL, HF_CS64 | 1, self._deliver),
        )

    # --- the short way ---------------------------------------------------------------------------
    def _bind(self, row: Hypercall) -> Function:
        """A function of the hypercall's arguments, over everything that does not change."""
        if row.plain:
            return Function(self._bind_plain(row), row.nr_args)
        caller, handler, ended_early, q = self._caller, row.handler, self._ended_early, self._q

        def call(*args: int) -> int:
            try:
                result = handler(caller, *args)
                return q[RAX] if result is None else result
            except BaseException as error:
                return ended_early(error)

        is_iret = row.number == HypercallNr.IRET
        return Function(
            call, row.nr_args, caller.current.fast.ask_first_for_iret if is_iret else None
        )

    def _bind_plain(self, row: Hypercall) -> Callable[[int, int], int]:
        """The same for a hypercall with operations of which some take no argument."""
        caller, handler, ended_early = self._caller, row.handler, self._ended_early
        plain = tuple(row.plain.get(operation) for operation in range(max(row.plain) + 1))
        end = len(plain)

        def call(operation: int, vaddr: int) -> int:
            try:
                if operation < end and (without_argument := plain[operation]):
                    return without_argument(caller) or 0
                return handler(caller, operation, vaddr) or 0
            except BaseException as error:
                return ended_early(error)

        return call

    def _unknown(self) -> int:
        """A number without a handler."""
        return self._absent(self._q[RAX] & self._mask)

    def _ended_early(self, error: BaseException) -> int:
        """An exception came out of a hypercall, which may be its regular end."""
        try:
            result = self._result_of(error)
            return self._q[RAX] if result is None else result
        except BaseException as mistake:
            self._current.cpu.failed(mistake)
            return 0

    def _deliver(self) -> None:
        """Something is pending that the guest is to hear of (Calls.attend)."""
        try:
            if self._current.dom.state is DomainState.RUNNING:
                self._entry.deliver_events()
        except DomainCrash as crash:
            self._entry.crash(str(crash))
        except BaseException as mistake:
            self._current.cpu.failed(mistake)

    # --- what both ways need ---------------------------------------------------------------------
    def _absent(self, nr: int) -> int:
        row = ABSENT.get(nr)
        self.why = row.reason if row else f"hypercall {nr} is unknown"
        return -row.errno if row else _ENOSYS

    def _result_of(self, error: BaseException) -> int | None:
        """Refused, put off, or the end of the domain (None: RAX stays); else it is our mistake."""
        match error:
            case XenError():
                self.why = error.why
                return -error.errno
            case Preempted():
                self.why = "goes on later"
                self._again(error.arguments)
                return None
            case DomainCrash():
                self.why = str(error)
                self._entry.crash(self.why)
                return None
            case _:
                raise error

    @property
    def _mask(self) -> int:
        return _M64 if self._current.vcpu.width.is_64 else _M32

    def _again(self, arguments: tuple[int, ...]) -> None:
        """Let the guest make the same hypercall again, when it has its next turn."""
        state = self._state
        registers = _ARGS_64 if self._current.vcpu.width.is_64 else _ARGS_32
        for register, value in zip(registers, arguments, strict=False):
            state.set_gpr(register, value)
        state.rip -= _INSTRUCTION_BYTES
        self._caller.host.preempt(self._current.vcpu)

    # --- by number, for multicalls ---------------------------------------------------------------
    def call(self, nr: int, args: tuple[int, ...]) -> int | None:
        """Hypercall `nr` with arguments from memory; refusals as negative numbers."""
        row: Hypercall | None = HYPERCALLS.get(nr)
        if row is None:
            return self._absent(nr)
        try:
            return row.handler(self._caller, *args[: row.nr_args])
        except XenError as refusal:
            self.why = refusal.why
            return -refusal.errno

    # --- with a probe on it ----------------------------------------------------------------------
    def _traced(self) -> int:
        """The same, telling the probe."""
        current = self._current
        state = self._state
        mask, registers = self._mask, _ARGS_64 if current.vcpu.width.is_64 else _ARGS_32
        nr = self._q[RAX] & mask
        row = HYPERCALLS.get(nr)
        args = [state.gpr(register) & mask for register in registers[: row.nr_args if row else 0]]
        entry = Entry(
            time_ps=self._entry.now_ps(),
            domid=current.vcpu.domid,
            vcpu_id=current.vcpu.vcpu_id,
            kind="hypercall",
            rip=state.rip,
            number=nr,
            args=tuple(args),
            result=None,
            why="",
            checksum=state.checksum(),
        )
        self.why = ""
        try:
            try:
                entry.result = row.handler(self._caller, *args) if row else self._absent(nr)
            except (XenError, Preempted, DomainCrash) as early:
                entry.result = self._result_of(early)
            entry.why = self.why
            if (probe := self._probes.entry) is not None:
                probe(entry)
            return self._q[RAX] if entry.result is None else entry.result
        except BaseException as mistake:
            current.cpu.failed(mistake)
            return 0
