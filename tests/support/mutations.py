"""Rules of `mm` weakened one at a time: what the searches have to find, to be worth their time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import pytest

from hypervisor.abi.errors import XenError
from hypervisor.abi.width import Width
from hypervisor.hypercalls import descriptors as descriptor_calls
from hypervisor.hypercalls import mmuext
from hypervisor.hypercalls.caller import Caller
from hypervisor.mm import descriptors
from hypervisor.mm.frames import FrameTable, FrameType
from hypervisor.mm.leaf_tables import LeafTables
from hypervisor.mm.page_types import OutOfBudget, PageTypes
from hypervisor.mm.pagetables import PageTables
from hypervisor.x86.paging import PTE_RW, pte_mfn

Mutation = Callable[[pytest.MonkeyPatch], None]


def forget_a_type_count(patch: pytest.MonkeyPatch) -> None:
    """A writable leaf does not hold its frame's type."""
    original = LeafTables._get_leaf

    def get_leaf(self: LeafTables, entry: int, owner: int) -> None:
        original(self, entry, owner)
        if entry & PTE_RW:
            self.frames.type_count[pte_mfn(entry)] -= 1

    patch.setattr(LeafTables, "_get_leaf", get_leaf)


def map_a_strangers_frame(patch: pytest.MonkeyPatch) -> None:
    """A leaf may name any frame that there is."""
    original = LeafTables._refuse_frame

    def refuse(self: LeafTables, mfn: int, owner: int) -> None:
        if mfn >= self.frames.nr_frames:
            original(self, mfn, owner)

    patch.setattr(LeafTables, "_refuse_frame", refuse)


def use_any_frame(patch: pytest.MonkeyPatch) -> None:
    """References are given on whatever exists."""

    def get_page(self: FrameTable, mfn: int, owner: int) -> None:
        if mfn >= self.nr_frames:
            raise XenError(22, "beyond memory")  # type: ignore[arg-type]
        self.ref_count[mfn] += 1

    patch.setattr(FrameTable, "get_page", get_page)


def settle_nothing(patch: pytest.MonkeyPatch) -> None:
    """A frame becomes a table while a stale translation can still write it."""
    patch.setattr(FrameTable, "settle", lambda self, mfn: None)


def free_without_a_stamp(patch: pytest.MonkeyPatch) -> None:
    """A frame goes to the next owner while the last can still see it."""
    original = FrameTable._free_frame

    def free(self: FrameTable, mfn: int) -> None:
        original(self, mfn)
        self.stamp[mfn] = 0

    patch.setattr(FrameTable, "_free_frame", free)


def keep_a_reference_on_failure(patch: pytest.MonkeyPatch) -> None:
    """A refused type leaves the general reference behind."""

    def get(self: PageTypes, mfn: int, want: FrameType) -> None:
        self.frames.get_page(mfn, self.domid)
        self.get_page_type(mfn, want)

    patch.setattr(PageTypes, "get_page_and_type", get)


def keep_what_a_table_held(patch: pytest.MonkeyPatch) -> None:
    """A table refused half way does not give back what its first entries took."""
    original = PageTables._put_table

    def put(self: PageTables, table: int, entry: int) -> None:
        if self.frames.flags[table] & 4 or self.frames.type_count[table] == 0:
            original(self, table, entry)

    patch.setattr(PageTables, "_put_table", put)


def write_tables(patch: pytest.MonkeyPatch) -> None:
    """A table may be mapped writable."""
    original = LeafTables._get_writable

    def get(self: LeafTables, mfn: int) -> None:
        try:
            original(self, mfn)
        except XenError:
            self.frames.type_count[mfn] += 1

    patch.setattr(LeafTables, "_get_writable", get)


def allow_ring_0(patch: pytest.MonkeyPatch) -> None:
    """Descriptors stand as the guest wrote them."""

    def checked(width: Width, desc: int) -> int:
        return desc

    patch.setattr(descriptors, "checked_descriptor", checked)
    patch.setattr(descriptor_calls, "checked_descriptor", checked)


def change_xens_slots(patch: pytest.MonkeyPatch) -> None:
    """No slot is private."""
    patch.setattr(PageTables, "_refuse_private_slot", lambda self, kind, slot: None)


def show_tables_writable(patch: pytest.MonkeyPatch) -> None:
    """A linear entry may be writable."""
    original = PageTables._get_linear

    def get(self: PageTables, level: int, table: int, named: int, entry: int) -> bool:
        return original(self, level, table, named, entry & ~PTE_RW)

    patch.setattr(PageTables, "_get_linear", get)


def allow_all_bits(patch: pytest.MonkeyPatch) -> None:
    """Superpages, uncached pages, reserved bits."""
    patch.setattr(LeafTables, "_refuse_bits", lambda self, level, entry: None)


def share_xens_l2(patch: pytest.MonkeyPatch) -> None:
    """PAE: two address spaces with one L2 in the fourth slot."""

    def get(self: PageTables, mfn: int) -> None:
        self.get_page_and_type(mfn, FrameType.XEN_L2)

    patch.setattr(PageTables, "_get_xen_l2", get)


def run_out_and_forget(patch: pytest.MonkeyPatch) -> None:
    """What a piece of long work has validated is not held until the next."""
    original = PageTypes.retryable

    def retryable(self: PageTypes, who: int, operation: Callable[..., None], *args: Any) -> None:
        try:
            original(self, who, operation, *args)
        except OutOfBudget:
            self.kept.pop(who, None)
            raise

    patch.setattr(PageTypes, "retryable", retryable)


def write_whole_frames(patch: pytest.MonkeyPatch) -> None:
    """MMUEXT_CLEAR_PAGE and COPY_PAGE do not ask what a frame is."""

    def write(caller: Caller, target: Any, mfn: int, data: bytes) -> None:
        frames = caller.host.frames
        frames.get_page(mfn, target.domid)
        caller.host.memory.frame(mfn)[:] = data
        frames.put_page(mfn)

    patch.setattr(mmuext, "_write_frame", write)


def act_on_others(patch: pytest.MonkeyPatch) -> None:
    """No operation on another domain needs privilege."""
    patch.setattr(Caller, "require_target", lambda self, dom: None)


OF_TABLES: Final[tuple[Mutation, ...]] = (
    forget_a_type_count,
    map_a_strangers_frame,
    use_any_frame,
    settle_nothing,
    free_without_a_stamp,
    keep_a_reference_on_failure,
    keep_what_a_table_held,
    write_tables,
    allow_ring_0,
    change_xens_slots,
    show_tables_writable,
    allow_all_bits,
    run_out_and_forget,
)
OF_HYPERCALLS: Final[tuple[Mutation, ...]] = (
    forget_a_type_count,
    map_a_strangers_frame,
    use_any_frame,
    keep_a_reference_on_failure,
    keep_what_a_table_held,
    write_tables,
    allow_ring_0,
    change_xens_slots,
    show_tables_writable,
    allow_all_bits,
    write_whole_frames,
    act_on_others,
)
