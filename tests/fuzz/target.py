"""The machine under the fuzzer: an attacker, a neighbour that must not notice, what always holds.

The attacker's kernel runs a `nop`; what it does is done for it, with its memory and its registers
as they would be. Whatever comes out of a hypercall but a result, a refusal, a continuation or the
end of the domain comes out of `do` as well: that is a bug of ours. An attacker that has ended is
replaced by another, built anew in whatever frames are free.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Final

from hypervisor.abi.errors import DomainCrash, XenError
from hypervisor.abi.width import Width
from hypervisor.abi.xen import HypercallNr
from hypervisor.api import Machine
from hypervisor.domain.domain import DomainState, VcpuState
from hypervisor.hypercalls.mmuext import set_baseptr
from hypervisor.hypercalls.table import ABSENT, HYPERCALLS, Preempted
from hypervisor.mm.audit import audit
from hypervisor.mm.frames import FrameType
from hypervisor.x86.flags import R8, R10, RAX, RBX, RCX, RDI, RDX, RSI, RSP
from hypervisor.x86.paging import PAGE_SHIFT, PAGE_SIZE
from tests.fuzz.actions import Action, Block, Kind, Term, Via
from tests.fuzz.coverage import ENDED, UNFINISHED
from tests.fuzz.pools import SPARE, STACK, STUBS, Pools
from tests.support.callers import BASE, Guest
from tests.support.frame_properties import check_descriptors
from tests.support.reach import check_reach

MEMORY_MIB: Final = 12
_TIGHT: Final = 3  # frames that a tight machine has free
_MOST_PIECES: Final = 12
_LOST_AFTER: Final = (
    4  # stores in a row that the guest could not make: it has unmapped its own data
)
_STUB_BYTES: Final = 16
_ARGS_32: Final = (RBX, RCX, RDX, RSI, RDI)
_ARGS_64: Final = (RDI, RSI, RDX, R10, R8)
_REGISTERS: Final = (RSI, RAX, RCX, RBX)
_WRITE_FAULT: Final = 3  # PFEC_PRESENT | PFEC_WRITE
_ENOSYS: Final = -38

#: Stores to (e/r)di, by the guest's width; the number is `Action.number`.
_PLAIN: Final = (
    "89 37",  # mov
    "87 37",  # xchg
    "f0 0f b1 37",  # lock cmpxchg
    "09 37",  # or
    "21 37",  # and
    "31 37",  # xor
    "0f ab 37",  # bts
    "0f c1 37",  # xadd
    "66 89 37",  # 16 bits
    "88 0f",  # 8 bits
    "0f c7 0f",  # cmpxchg8b
    "ab",  # stos
)
_PREFIXED_64: Final = frozenset(range(8)) | {10, 11}  # REX.W: of 8 bytes, cmpxchg16b


@dataclass(frozen=True, slots=True)
class Setting:
    """What a round is played on."""

    width: Width
    other: Width  # the neighbour's
    privileged: bool
    tight: bool  # the machine has hardly a frame left

    @staticmethod
    def of_round(width: Width, number: int) -> Setting:
        """Every fifth round Domain 0 is the attacker, every third there is no memory."""
        others = list(Width)
        return Setting(width, others[number % 3], number % 5 == 4, number % 3 == 2)


class Target:
    """One machine, from its start to the end of a round."""

    def __init__(self, machine: Machine, setting: Setting) -> None:
        self.machine = machine
        self.vmm = machine.vmm
        self.host = machine.vmm.host
        self.width = setting.width
        self.privileged = setting.privileged
        self.mask = (1 << setting.width.bits) - 1
        self.neighbour = self._new_neighbour(setting.other)
        self.guest = self._new_guest()
        self.domains = 1
        if setting.tight:
            self.host.frames.allocate_xen(self.host.frames.nr_free - _TIGHT)
        self._before = self._of_neighbour()
        self._failed_stores = 0
        self.calls = 0
        self.pieces = 0

    # --- domains ---------------------------------------------------------------------------------
    def _new_neighbour(self, width: Width) -> Guest:
        """It never runs: not a byte of it may change."""
        neighbour = Guest(self.machine, width)
        neighbour.enter()
        self.host.pause(neighbour.dom)
        return neighbour

    def _new_guest(self) -> Guest:
        guest = Guest(self.machine, self.width, privileged=self.privileged)
        guest.dom.max_frames += 2 * SPARE
        self.guest = guest
        caller = guest.enter()
        self._put_stubs(guest)
        self._first_root = guest.vcpu.root_mfn
        state = self.vmm.cpu.state
        state.set_gpr(RSP, BASE[self.width] + STACK)
        self._kernel = state.save()
        for pfn in range(len(guest.dom.p2m) - SPARE, len(guest.dom.p2m)):
            vaddr = BASE[self.width] + pfn * PAGE_SIZE
            HYPERCALLS[HypercallNr.UPDATE_VA_MAPPING].handler(caller, vaddr, 0, 0, 0)
        HYPERCALLS[HypercallNr.VM_ASSIST].handler(caller, 0, 2)  # writable page tables
        self.pools = Pools(guest, self.neighbour)
        return guest

    def _put_stubs(self, guest: Guest) -> None:
        is_64 = self.width.is_64
        call = bytes.fromhex("0f 05" if is_64 else "cd 82")
        codes = [bytes.fromhex(code) for code in _PLAIN]
        if is_64:
            codes = [self._wide(idx, code) for idx, code in enumerate(codes)]
        stubs = b"".join(code.ljust(_STUB_BYTES, b"\x90") for code in (call, *codes))
        guest.enter().mem.write(BASE[self.width] + STUBS, stubs)

    @staticmethod
    def _wide(idx: int, code: bytes) -> bytes:
        if idx not in _PREFIXED_64:
            return code
        at = 1 if code[0] == 0xF0 else 0
        return code[:at] + b"\x48" + code[at:]

    def _back_to_its_tables(self) -> None:
        """A guest that has gone to tables without its own memory had better gone back in time."""
        if self._failed_stores >= _LOST_AFTER and self.guest.dom.state is DomainState.RUNNING:
            with suppress(XenError):
                set_baseptr(self.guest.enter(), self._first_root)
                self.guest.put(b"\0")
                self._failed_stores = 0

    def _replace_the_dead(self) -> None:
        self._back_to_its_tables()
        if self.guest.dom.state is not DomainState.RUNNING or self._failed_stores >= _LOST_AFTER:
            self.vmm.destroy(self.guest.dom)
            self.guest = self._new_guest()
            self.domains += 1
            self._failed_stores = 0
        if self.neighbour.dom.state is not DomainState.RUNNING and self.privileged:
            self.vmm.destroy(self.neighbour.dom)
            self.neighbour = self._new_neighbour(self.neighbour.width)
            self.pools = Pools(self.guest, self.neighbour)

    def _at_the_start(self) -> None:
        """The attacker's kernel is on the CPU, and about to do the next thing."""
        guest = self.guest
        vcpu = guest.vcpu
        if vcpu.state is not VcpuState.RUNNABLE:
            self.host.wake(vcpu)
            self.host.bring_up(vcpu)
        guest.enter()
        state = self.vmm.cpu.state
        state.load(self._kernel)
        state.cr3 = vcpu.root_mfn << PAGE_SHIFT
        vcpu.kernel_mode = True

    # --- actions ---------------------------------------------------------------------------------
    def do(self, action: Action) -> int:
        """Do one action; its result. Any exception is a bug."""
        self._replace_the_dead()
        self._at_the_start()
        match action.kind:
            case Kind.POKE:
                self._poke(action)
                return 0
            case Kind.STORE:
                return self._store(action)
            case _:
                self.calls += 1
                result = self._call(action)
                return result if self.guest.dom.state is DomainState.RUNNING else ENDED

    def value(self, term: Term) -> int:
        """What a term means now."""
        return (self.pools.pick(term.pool, term.index) << term.shift) + term.plus

    def _bytes(self, block: Block) -> bytes:
        value = self.value
        return b"".join(
            (value(term) & (1 << 8 * size) - 1).to_bytes(size, "little")
            for size, term in block.items
        )

    def _put(self, blocks: tuple[Block, ...]) -> None:
        """The guest's own stores; those that would fault it does not make."""
        mem = self.host.current.mem
        for block in blocks:
            if block.items:
                try:
                    mem.write(self.value(block.at) & self.mask, self._bytes(block))
                    self._failed_stores = 0
                except XenError:
                    self._failed_stores += 1

    def _poke(self, action: Action) -> None:
        """Stores by machine address, to frames that the guest could have mapped writable."""
        frames = self.host.frames
        for block in action.blocks:
            maddr = self.value(block.at)
            mfn = maddr >> PAGE_SHIFT
            if mfn >= frames.nr_frames or frames.owner[mfn] != self.guest.dom.domid:
                continue
            if frames.type_count[mfn] and frames.type[mfn] != FrameType.WRITABLE:
                continue
            data = self._bytes(block)[: PAGE_SIZE - (maddr & PAGE_SIZE - 1)]
            self.host.memory.view[maddr : maddr + len(data)] = data
            self.host.cpu.code_written(maddr, len(data))

    # --- hypercalls ------------------------------------------------------------------------------
    def _call(self, action: Action) -> int:
        self._put(action.blocks)
        args = [self.value(term) & self.mask for term in action.args]
        if action.via is Via.HANDLER:
            return self._by_handler(action.number, args)
        state = self.vmm.cpu.state
        state.set_gpr(RAX, action.number)
        for register, value in zip(_ARGS_64 if self.width.is_64 else _ARGS_32, args, strict=False):
            state.set_gpr(register, value)
        stub = BASE[self.width] + STUBS
        if action.via is Via.ENGINE:
            return self._by_engine(stub)
        state.rip = stub + 2
        self.vmm.dispatcher.made()
        self._raise_failures()
        return self._signed(state.gpr(RAX))

    def _by_handler(self, number: int, args: list[int]) -> int:
        row = HYPERCALLS.get(number)
        if row is None:
            gap = ABSENT.get(number)
            return -gap.errno if gap else _ENOSYS
        caller = self.guest.enter()
        args += [0] * (row.nr_args - len(args))
        try:
            for _ in range(_MOST_PIECES):
                self.pieces += 1
                try:
                    return row.handler(caller, *args[: row.nr_args]) or 0
                except Preempted as later:
                    args[: len(later.arguments)] = [word & self.mask for word in later.arguments]
        except XenError as refusal:
            return -refusal.errno
        except DomainCrash as crash:
            self.host.crash(self.guest.dom, self.guest.vcpu, str(crash))
        return UNFINISHED

    def _by_engine(self, stub: int) -> int:
        """One instruction, as the loop would have it executed."""
        state = self.vmm.cpu.state
        state.rip = stub
        self.vmm.step()
        return self._signed(state.gpr(RAX)) if self.host.running is self.guest.vcpu else UNFINISHED

    def _raise_failures(self) -> None:
        core = self.vmm.cpu._core
        if core._error is not None:
            error, core._error = core._error, None
            raise error

    def _signed(self, value: int) -> int:
        value &= self.mask
        return value - (value >> (self.width.bits - 1) << self.width.bits)

    def _store(self, action: Action) -> int:
        """A store that faults, or is made, as the guest's tables say."""
        vaddr, *registers = (self.value(term) & self.mask for term in action.args)
        state = self.vmm.cpu.state
        state.set_gpr(RDI, vaddr)
        for register, value in zip(_REGISTERS, registers, strict=False):
            state.set_gpr(register, value)
        state.set_gpr(RDX, 0)
        stub = BASE[self.width] + STUBS + (1 + action.number % len(_PLAIN)) * _STUB_BYTES
        state.rip = stub
        if action.via is Via.ENGINE:
            self.vmm.step()
            return int(self.guest.dom.state is DomainState.RUNNING)
        return int(self.vmm.entry._writable_tables.store(vaddr, _WRITE_FAULT))

    # --- what always holds -----------------------------------------------------------------------
    def check(self) -> None:
        """Counts are right, what is free is clean, and the neighbour has not noticed."""
        audit(self.host.frames, self.vmm.audit_subjects())
        for mfn in self.host.frames.free_list()[-4:]:
            assert not any(self.host.memory.frame(mfn)), f"mfn {mfn:#x} is free, and not scrubbed"
        if not self.privileged:
            assert self._of_neighbour() == self._before, "the neighbour has changed"
        widths = {dom.domid: dom.width for dom in self.host.domains.values()}
        check_descriptors(self.host.frames, widths)
        self.pools.look_for_gains()

    def check_walks(self) -> None:
        """No walk leads to a frame that is not the walker's."""
        for dom in self.host.domains.values():
            others = {other.domid for other in self.host.domains.values()} if dom.privileged else ()
            check_reach(self.host, dom, set(others) | {dom.domid})

    def _of_neighbour(self) -> tuple[object, ...]:
        dom = self.neighbour.dom
        frames = self.host.frames
        memory = self.host.memory.frame
        mfns = frames.owned_by(dom.domid)
        contents = hash(tuple(hash(bytes(memory(mfn))) for mfn in mfns))
        counts = [(frames.type[mfn], frames.type_count[mfn], frames.ref_count[mfn]) for mfn in mfns]
        tables = self.host.events.tables[dom.domid], self.host.grants.tables.get(dom.domid)
        return mfns, contents, counts, repr(dom.vcpus), repr(tables), dom.state, dom.paused

    def digest(self) -> str:
        """The machine at the end."""
        with suppress(XenError):
            self.guest.enter()
        return self.vmm.digest()


@contextmanager
def target(setting: Setting) -> Iterator[Target]:
    """A machine for a round."""
    with Machine(memory_mib=MEMORY_MIB) as machine:
        yield Target(machine, setting)
