"""A domain that stands still, looked at: walks, frames, tables, the P2M.

Plain data comes out, for the command line, for scripts and for tests. Nothing here changes the
machine, and nothing a guest has written can make it fail: a walk follows entries as the MMU does
and stops where that would.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from hypervisor.control.host import Host
from hypervisor.debug.entry_flags import flag_names
from hypervisor.debug.frame_uses import FrameReport, FrameView, Uses, frame_view, owner_name
from hypervisor.domain.domain import Domain, Vcpu
from hypervisor.mm.hole_map import GDT_GUEST_PAGES, HOLE, LDT_OFFSET, WINDOW_SHIFT
from hypervisor.mm.walk import Walk, walk
from hypervisor.x86.paging import (
    PAGE_SHIFT,
    PTE_NX,
    PTE_P,
    PTE_RW,
    PTE_US,
    pte_mfn,
)

_SYMBOL_BYTES_MAX: Final = 1 << 16  # behind a symbol: further away, its name says nothing


@dataclass(frozen=True, slots=True)
class LevelView:
    """One level of a walk: the table, its entry, and the frame that this names."""

    level: int
    slot: int
    entry: int
    entry_maddr: int
    flags: tuple[str, ...]
    is_xens: bool  # the slot belongs to Xen
    table: FrameView
    names: FrameView | None  # None: not present, or beyond the machine's memory


@dataclass(frozen=True, slots=True)
class WalkView:
    """How `vaddr` is translated; `maddr` is None where it is not."""

    vaddr: int
    vcpu: str
    is_user: bool  # by the user's tables of a 64-bit guest
    levels: tuple[LevelView, ...]
    maddr: int | None
    writable: bool
    user: bool
    executable: bool
    region: str | None  # what lies there, where it is Xen's


@dataclass(frozen=True, slots=True)
class TableView:
    """A page table of a domain."""

    frame: FrameView
    level: int
    present: int
    vaddrs: tuple[int, ...]  # the first address it maps, in each address space that has it


@dataclass(frozen=True, slots=True)
class P2mRow:
    """A pseudo-physical frame as the domain was built, and what the machine says of it now."""

    pfn: int
    mfn: int
    owner: str
    m2p: int | None
    problem: str  # empty where list and machine agree


class Inspection:
    """What can be seen of one domain. The scan of all tables is made at the first need of it."""

    def __init__(self, host: Host, dom: Domain) -> None:
        self._host = host
        self._dom = dom
        self._uses: Uses | None = None

    # --- addresses ---------------------------------------------------------------------------
    def walk(self, vaddr: int, *, vcpu_id: int = 0, user: bool = False) -> WalkView:
        """Follow `vaddr` by the tables of a vCPU's kernel, or of its 64-bit user mode.

        Raises ValueError, with a sentence, for what is no address, and where there are no tables.
        """
        self._check(vaddr)
        if not 0 <= vcpu_id < len(self._dom.vcpus):
            raise ValueError(f"d{self._dom.domid} has no vCPU {vcpu_id}")
        vcpu = self._dom.vcpus[vcpu_id]
        root = self._root(vcpu, user=user)
        found = walk(self._host.memory, self._dom.page_tables.mode, root << PAGE_SHIFT, vaddr)
        return WalkView(
            vaddr,
            vcpu.name,
            user,
            self._levels(found),
            found.maddr,
            writable=bool(found.flags & PTE_RW),
            user=bool(found.flags & PTE_US),
            executable=found.maddr is not None and not found.flags & PTE_NX,
            region=self.region(vaddr),
        )

    def _check(self, vaddr: int) -> None:
        if vaddr < 0:
            raise ValueError(f"{vaddr:#x} is no address: it is negative")
        if not self._dom.width.is_64:
            if vaddr >> 32:
                raise ValueError(f"{vaddr:#x} is no address of a 32-bit guest: it has over 32 bits")
        elif vaddr >> 64 or vaddr >> 47 not in (0, (1 << 17) - 1):
            raise ValueError(f"{vaddr:#x} is not canonical: bits 63 to 47 must all be equal")

    def _root(self, vcpu: Vcpu, *, user: bool) -> int:
        root = vcpu.user_root_mfn if user else vcpu.root_mfn
        if not root:
            kind = "user page table" if user else "page table"
            raise ValueError(f"{vcpu.name} has no {kind}")
        return root

    def _levels(self, found: Walk) -> tuple[LevelView, ...]:
        mode = self._dom.page_tables.mode
        return tuple(
            LevelView(
                step.level,
                step.slot,
                step.entry,
                step.entry_maddr,
                flag_names(mode, step.level, step.entry),
                self._is_xens(step.level, step.entry_maddr, step.slot),
                frame_view(self._host, step.entry_maddr >> PAGE_SHIFT),
                self._named(step.level, step.entry),
            )
            for step in found.steps
        )

    def _is_xens(self, level: int, entry_maddr: int, slot: int) -> bool:
        xen = self._dom.page_tables.xen_slots
        kind = self._host.frames.type[entry_maddr >> PAGE_SHIFT]
        return kind == xen.table and xen.first <= slot < xen.end

    def _named(self, level: int, entry: int) -> FrameView | None:
        mfn = pte_mfn(entry)
        if not entry & PTE_P or mfn >= self._host.frames.nr_frames:
            return None
        return frame_view(self._host, mfn)

    def region(self, vaddr: int) -> str | None:
        """What Xen has at `vaddr`; None where that is the guest's."""
        dom = self._dom
        hole = HOLE[dom.width]
        end = hole.vaddr + (16 << 39) if dom.width.is_64 else 1 << 32
        if not hole.vaddr <= vaddr < end:
            return None
        windows_end = hole.windows_vaddr + (len(dom.vcpus) << WINDOW_SHIFT)
        if hole.windows_vaddr <= vaddr < windows_end:
            return self._window(vaddr - hole.windows_vaddr)
        mfn = (vaddr - hole.m2p_vaddr) // dom.width.word_bytes
        if 0 <= mfn < self._host.frames.nr_frames:
            pfn = self._host.m2p.get(mfn)
            says = "no pfn" if pfn is None else f"pfn {pfn:#x}"
            return f"the M2P: its entry for mfn {mfn:#x}, which says {says}"
        return "Xen's part of the address space: nothing is mapped here"

    def _window(self, offset: int) -> str:
        vcpu = self._dom.vcpus[offset >> WINDOW_SHIFT]
        inside = offset & ((1 << WINDOW_SHIFT) - 1)
        if inside >= LDT_OFFSET:
            return f"the LDT window of {vcpu.name}, page {(inside - LDT_OFFSET) >> PAGE_SHIFT}"
        page = inside >> PAGE_SHIFT
        what = "Xen's descriptors" if page >= GDT_GUEST_PAGES else "the guest's descriptors"
        if page >= len(vcpu.gdt_frames) and page < GDT_GUEST_PAGES:
            what = "no page of the guest's"
        return f"the GDT window of {vcpu.name}, page {page}: {what}"

    def address_of(self, name: str) -> int:
        """Where the kernel's image has `name`. Raises ValueError if it has no such symbol."""
        symbols = self._dom.symbols
        found = None if symbols is None else symbols.find(name)
        if found is None:
            raise ValueError(f"{name!r} is neither an address nor a symbol of {self._dom.name}")
        return found

    def symbol_at(self, vaddr: int) -> str | None:
        """`name+0x12` of the code that `vaddr` lies in; None for what is far from any."""
        found = self._dom.symbols.at(vaddr) if self._dom.symbols is not None else None
        if found is None or found[1] >= _SYMBOL_BYTES_MAX:
            return None
        return f"{found[0]}+{found[1]:#x}"

    # --- frames ------------------------------------------------------------------------------
    @property
    def uses(self) -> Uses:
        """Who uses which frame."""
        if self._uses is None:
            self._uses = Uses(self._host)
        return self._uses

    def frame(self, mfn: int) -> FrameReport:
        """A frame of the machine and all its uses. Raises ValueError if there is no such frame."""
        if mfn < 0:
            raise ValueError(f"{mfn} is no frame: it is negative")
        return self.uses.report(mfn)

    def frames(self) -> list[FrameView]:
        """Every frame that the domain owns, ascending."""
        owned = self._host.frames.owned_by(self._dom.domid)
        return [frame_view(self._host, mfn) for mfn in owned]

    def tables(self) -> list[TableView]:
        """Every page table of the domain, the top level first."""
        return [
            TableView(frame_view(self._host, mfn), level, present, vaddrs)
            for mfn, level, vaddrs, present in self.uses.tables_of(self._dom)
        ]

    def p2m(self, pfn: int | None = None) -> list[P2mRow]:
        """The list that the domain was given at its start, beside the machine as it is now.

        Raises ValueError for a pfn that was never in it.
        """
        built = self._dom.p2m
        if pfn is not None and not 0 <= pfn < len(built):
            raise ValueError(
                f"pfn {pfn:#x} is not in the list of d{self._dom.domid}: that has {len(built):#x}"
            )
        wanted = range(len(built)) if pfn is None else range(pfn, pfn + 1)
        return [self._p2m_row(each, built[each]) for each in wanted]

    def _p2m_row(self, pfn: int, mfn: int) -> P2mRow:
        owner = owner_name(self._host.frames, mfn)
        m2p = self._host.m2p.get(mfn)
        if owner != f"d{self._dom.domid}":
            problem = f"mfn {mfn:#x} belongs to {owner} now"
        elif m2p != pfn:
            says = "no pfn" if m2p is None else f"pfn {m2p:#x}"
            problem = f"the M2P says {says}"
        else:
            problem = ""
        return P2mRow(pfn, mfn, owner, m2p, problem)
