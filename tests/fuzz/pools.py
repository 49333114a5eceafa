"""The numbers that a malicious guest knows or guesses, by the role that they play."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from hypervisor.abi.types import (
    DOMID_FIRST_RESERVED,
    DOMID_IDLE,
    DOMID_INVALID,
    DOMID_IO,
    DOMID_SELF,
    DOMID_XEN,
)
from hypervisor.abi.width import Width
from hypervisor.mm.entries import LEVEL_OF
from hypervisor.mm.frames import OWNER_XEN, PINNED, FrameType
from hypervisor.mm.hole_map import HOLE
from hypervisor.x86.paging import PAGE_SHIFT, PAGE_SIZE
from tests.support.attacker import NASTY
from tests.support.callers import BASE, UNMAPPED, Guest

SPARE: Final = 24  # frames at the end of memory that the kernel does not map
STACK: Final = 0x80  # offsets in the kernel's image: its stack's top,
STUBS: Final = 0x100  # code,
NESTED: Final = 0x1000  # a page for what other arguments lead to
DATA: Final = 0x2000  # and the page where arguments lie

#: Descriptors, the good ones first; see `mm.descriptors` for what is wrong with the others.
DESCRIPTORS: Final = (
    0,
    0x00CF_F300_0000_FFFF,
    0x00CF_BB00_0000_FFFF,
    0x00CF_9300_0000_FFFF,  # DPL 0: becomes the kernel's
    0x00AF_FB00_0000_FFFF,  # 64-bit code
    0x0000_8900_0000_0067,  # a TSS
    0x0000_8200_0000_0FFF,  # an LDT
    0x0000_8E00_0010_0000,  # an interrupt gate
    0x0000_8C00_E008_1234,  # a call gate to ring 0
    0x0000_EC00_0061_1234,  # one to the guest
    0x0000_EC1F_0061_1234,  # one with parameters
    0x0000_ECE0_0061_1234,  # one with reserved bits
    0x0000_EC00_E019_1234,  # one to Xen's selectors
    0x0000_EC00_E033_1234,
    0x0000_8000_0000_0000,  # type 0
    0x00CF_7300_0000_FFFF,  # not present
)
_ENDS: Final = (0, 1, 0x7FFF_FFFF, 0x8000_0000, 0xFFFF_FFFF, (1 << 63) - 1, 1 << 63, (1 << 64) - 1)
_TABLES: Final = tuple(int(kind) for kind in LEVEL_OF)


class Pools:
    """Every pool, for one guest as it is now. `pick` is what terms are resolved by."""

    def __init__(self, guest: Guest, neighbour: Guest) -> None:
        self.guest = guest
        self.neighbour = neighbour
        self.frames = guest.host.frames
        p2m = guest.dom.p2m
        types = self.frames.type
        self.built = [mfn for mfn in p2m[:64] if types[mfn] in _TABLES]  # the builder's tables
        self.spare = p2m[-SPARE:]
        self.gained: list[int] = []  # by balloon operations
        self._candidates = [*self.spare, *self.built]
        self._fixed = self._constants() | self._addresses()
        self._xen = [mfn for mfn, owner in enumerate(self.frames.owner) if owner == OWNER_XEN][:4]
        by_type = {
            "l1": (FrameType.L1,),
            "l2": (FrameType.L2,),
            "xl2": (FrameType.XEN_L2,),
            "l3": (FrameType.L3,),
            "l4": (FrameType.L4,),
            "seg": (FrameType.SEGDESC,),
            "table": _TABLES,
        }
        self._live: dict[str, Callable[[], Sequence[int]]] = {
            name: self._finder(tuple(map(int, kinds))) for name, kinds in by_type.items()
        } | {
            "pinned": self._pinned,
            "root": lambda: [guest.vcpu.root_mfn, guest.vcpu.user_root_mfn or guest.vcpu.root_mfn],
            "lent": self._lent,
            "free": lambda: self.frames.free_list()[-2:],
            "gained": lambda: self.gained,
            "time": lambda: [guest.host.now_ns],
        }

    def pick(self, pool: str, index: int) -> int:
        """A number of a pool; an empty one has 0."""
        values = self._fixed.get(pool)
        if values is None:
            values = self._live[pool]()
        return values[index % len(values)] if values else 0

    @property
    def names(self) -> list[str]:
        """All pools."""
        return [*self._fixed, *self._live]

    def look_for_gains(self) -> None:
        """Which frames the guest has now that it was not built with."""
        built = set(self.guest.dom.p2m)
        owned = self.frames.owned_by(self.guest.dom.domid)
        self.gained = [mfn for mfn in owned if mfn not in built][:8]
        self._candidates = [*self.spare, *self.built, *self.gained]

    # --- frames ----------------------------------------------------------------------------------
    def _finder(self, kinds: tuple[int, ...]) -> Callable[[], Sequence[int]]:
        types, counts = self.frames.type, self.frames.type_count

        def find() -> list[int]:
            found = [mfn for mfn in self._candidates if types[mfn] in kinds and counts[mfn]]
            return found or self.spare

        return find

    def _pinned(self) -> list[int]:
        flags = self.frames.flags
        return [mfn for mfn in self._candidates if flags[mfn] & PINNED] or self.spare

    def _lent(self) -> list[int]:
        table = self.guest.host.grants.tables.get(self.guest.dom.domid)
        frames = list(getattr(table, "frames", []))[:2]
        return [self.guest.dom.shared_info_mfn, *frames]

    # --- what stays ------------------------------------------------------------------------------
    def _constants(self) -> dict[str, Sequence[int]]:
        guest, neighbour = self.guest, self.neighbour
        nr = self.frames.nr_frames
        other = neighbour.dom
        xen = [mfn for mfn, owner in enumerate(self.frames.owner) if owner == OWNER_XEN]
        domids = [DOMID_SELF, DOMID_SELF, guest.dom.domid, other.domid, 0, DOMID_IO, DOMID_XEN]
        domids += [DOMID_INVALID, DOMID_FIRST_RESERVED - 1, DOMID_IDLE, 0xFFFF, 99]
        return {
            "num": (0,),
            "nasty": NASTY,
            "ends": _ENDS,
            "spare": self.spare,
            "built": self.built,
            "image": guest.dom.p2m[:4],
            "foreign": [
                *other.p2m[:2],
                neighbour.vcpu.root_mfn,
                other.shared_info_mfn,
                other.p2m[-1],
            ],
            "xen": [xen[0], xen[-1]],
            "beyond": [nr - 1, nr, nr + 7, 1 << 20, (1 << 40) - 1, 0],
            "domid": domids,
            "port": [*range(8), 1023, 1024, 4095, 4096, 131071, 131072, 0xFFFF_FFFF],
            "vcpu": [0, 0, 0, 1, 31, 32, 8191, 0xFFFF_FFFF],
            "gref": [*range(8), 511, 512, 0xFFFF, 0xFFFF_FFFF],
            "desc": DESCRIPTORS,
        }

    def _addresses(self) -> dict[str, Sequence[int]]:
        width, dom = self.guest.width, self.guest.dom
        base, hole = BASE[width], HOLE[width]
        nr = len(dom.p2m)
        end = base + nr * PAGE_SIZE
        pages = [base + pfn * PAGE_SIZE for pfn in range(nr - SPARE, nr)]
        pfn_of = {mfn: pfn for pfn, mfn in enumerate(dom.p2m[:64])}
        return {
            "data": [base + DATA],
            "nested": [base + NESTED],
            "stub": [base + STUBS],
            "stack": [base + STACK],
            "page": pages,  # where spare frames were mapped
            "tables": [base + pfn_of[mfn] * PAGE_SIZE for mfn in self.built],  # read-only there
            "bad": _bad_addresses(width, base, end),
            "xens": [hole.vaddr, hole.m2p_vaddr, hole.windows_vaddr, hole.vaddr - PAGE_SIZE],
        }


def _bad_addresses(width: Width, base: int, end: int) -> list[int]:
    hole = HOLE[width]
    top = 1 << width.bits
    return [
        UNMAPPED,
        0,
        end - 4,  # the last bytes that are mapped, and then no more
        end,
        base + DATA + 0xFFC,  # across pages
        base + DATA + 1,
        hole.vaddr - 4,
        hole.vaddr,
        top - 1,
        top - PAGE_SIZE,
        1 << 47 if width.is_64 else 0x7FFF_F000,
        base + (1 << PAGE_SHIFT) * 512 * 8,  # no L1 table there
    ]
