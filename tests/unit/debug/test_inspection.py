"""What an inspection says of a guest is what its tables and the frame table say."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from guests import WIDTHS, guest_path
from hypervisor.api import DomainHandle, Machine, RunEnd
from hypervisor.debug.frame_uses import Use
from hypervisor.debug.inspection import Inspection, WalkView
from hypervisor.mm.hole_map import HOLE
from hypervisor.x86.paging import PTE_NX, PTE_RW, PTE_US
from tests.support.table_walker import Leaf, walk_everything

MEMORY_MIB = 16


@pytest.fixture(params=WIDTHS)
def dom(request: pytest.FixtureRequest) -> Iterator[DomainHandle]:
    """A guest that has made tables of its own, and has ended."""
    with Machine(memory_mib=48) as machine:
        handle = machine.create(guest_path("traps", request.param), memory_mib=MEMORY_MIB)
        assert machine.run() is RunEnd.ALL_STOPPED
        yield handle


def machine_of(dom: DomainHandle) -> Machine:
    return dom._machine


def as_leaf(walk: WalkView) -> Leaf:
    """A walk in the words of the independent walker."""
    *path, last = walk.levels
    assert last.names is not None
    flags = last.entry & ~0x000F_FFFF_FFFF_F000
    tables = tuple(level.table.mfn for level in walk.levels)
    return Leaf(last.names.mfn, flags, tuple(level.entry for level in path), tables)


def test_walks_are_those_of_an_independent_walker(dom: DomainHandle) -> None:
    root = dom._dom.vcpus[0].root_mfn
    levels = dom._dom.page_tables.mode.levels
    mapped = walk_everything(machine_of(dom).vmm.memory, levels, root)
    assert len(mapped) > 500
    inspection = dom.inspect()
    for vaddr, leaf in mapped.items():
        walk = inspection.walk(vaddr)
        assert as_leaf(walk) == leaf
        assert walk.maddr == leaf.mfn << 12
        upper = [e for e in leaf.path if levels != 3 or e is not leaf.path[0]]
        entries = [*upper, leaf.flags]
        assert walk.writable == all(entry & PTE_RW for entry in entries)
        assert walk.user == all(entry & PTE_US for entry in entries)
        assert walk.executable == (not any(entry & PTE_NX for entry in entries))


def test_a_walk_sees_what_the_guest_reads_there(dom: DomainHandle) -> None:
    vaddr = dom.inspect().address_of("guest_name")
    walk = dom.walk(vaddr)
    assert walk.maddr is not None
    assert machine_of(dom).vmm.memory.read(walk.maddr, 6) == b"traps\0"


def test_a_walk_ends_where_an_entry_is_not_present(dom: DomainHandle) -> None:
    walk = dom.walk(0x7FFF_0000)
    assert walk.maddr is None
    assert walk.levels[-1].names is None
    assert not walk.levels[-1].flags


def test_every_frames_uses_add_up(dom: DomainHandle) -> None:
    inspection = dom.inspect()
    frames = inspection.frames()
    assert len(frames) == (MEMORY_MIB << 8) + 1  # and shared_info
    wrong = [frame for frame in frames if not inspection.frame(frame.mfn).adds_up]
    assert wrong == []


def test_a_count_that_no_use_explains_is_seen(dom: DomainHandle) -> None:
    mfn = dom._dom.p2m[7]
    frames = machine_of(dom).vmm.host.frames
    frames.ref_count[mfn] += 1
    assert not dom.inspect().frame(mfn).adds_up
    frames.ref_count[mfn] -= 1
    assert dom.inspect().frame(mfn).adds_up


def whys(uses: tuple[Use, ...]) -> list[str]:
    return [use.why for use in uses]


def test_a_root_is_held_by_pin_and_base_pointer(dom: DomainHandle) -> None:
    report = dom.inspect().frame(dom._dom.vcpus[0].root_mfn)
    assert report.frame.pinned
    assert report.frame.validated
    assert "a pin: d1 asked to keep it a table" in whys(report.uses)
    assert "the base pointer (cr3) of d1v0" in whys(report.uses)
    assert sum(use.types for use in report.uses) == 2


def test_a_table_is_named_by_the_table_above_and_mapped_read_only(dom: DomainHandle) -> None:
    inspection = dom.inspect()
    walk = inspection.walk(inspection.address_of("guest_name"))
    above, below = walk.levels[-2], walk.levels[-1]
    uses = inspection.frame(below.table.mfn).uses
    naming = next(use for use in uses if use.table == above.table.mfn and use.slot == above.slot)
    assert (naming.references, naming.types) == (1, 1)
    assert naming.vaddrs[0] <= walk.vaddr
    mapped = [use for use in uses if use.why.endswith("maps it read-only")]
    assert [use.types for use in mapped] == [0]
    assert "no mapping of it may be writable" in inspection.frame(below.table.mfn).meaning


def test_a_leafs_use_says_at_which_address_it_maps(dom: DomainHandle) -> None:
    inspection = dom.inspect()
    vaddr = inspection.address_of("guest_name") & ~0xFFF
    walk = inspection.walk(vaddr)
    assert walk.levels[-1].names is not None
    uses = inspection.frame(walk.levels[-1].names.mfn).uses
    assert any(vaddr in use.vaddrs for use in uses)


def test_a_page_that_xen_lends_says_what_it_is(dom: DomainHandle) -> None:
    uses = dom.inspect().frame(dom._dom.shared_info_mfn).uses
    assert "Xen, which lends it to d1: shared_info" in whys(uses)


def test_every_table_is_listed_once_from_the_top(dom: DomainHandle) -> None:
    tables = dom.inspect().tables()
    levels = [table.level for table in tables]
    assert levels == sorted(levels, reverse=True)
    assert len({table.frame.mfn for table in tables}) == len(tables)
    assert dom._dom.vcpus[0].root_mfn in {table.frame.mfn for table in tables}
    assert all(table.frame.validated for table in tables)


# --- Xen's part --------------------------------------------------------------------------------
def test_the_m2p_is_explained_entry_by_entry(dom: DomainHandle) -> None:
    mfn = dom._dom.p2m[3]
    walk = dom.walk(HOLE[dom.width].m2p_vaddr + mfn * dom.width.word_bytes)
    assert walk.region == f"the M2P: its entry for mfn {mfn:#x}, which says pfn 0x3"
    assert any(level.is_xens for level in walk.levels)
    assert not walk.writable
    assert walk.levels[-1].names is not None
    assert walk.levels[-1].names.owner == "Xen"


def test_descriptor_windows_are_explained(dom: DomainHandle) -> None:
    base = HOLE[dom.width].windows_vaddr
    inspection = dom.inspect()
    assert inspection.region(base + 0xE000) == (
        "the GDT window of d1v0, page 14: Xen's descriptors"
    )
    assert inspection.region(base + 0x10000) == "the LDT window of d1v0, page 0"
    assert inspection.region(base - 1) is not None
    assert inspection.region(HOLE[dom.width].vaddr - 1) is None


# --- the P2M -------------------------------------------------------------------------------------
def test_list_and_machine_agree_for_a_guest_that_keeps_its_frames(dom: DomainHandle) -> None:
    assert [row.problem for row in dom.p2m() if row.problem] == []


def test_disagreements_are_told(dom: DomainHandle) -> None:
    host = machine_of(dom).vmm.host
    moved, gone = dom._dom.p2m[5], dom._dom.p2m[6]
    host.m2p.set(moved, 0x77)
    host.m2p.clear(gone)
    problems = {row.pfn: row.problem for row in dom.p2m() if row.problem}
    assert problems == {5: "the M2P says pfn 0x77", 6: "the M2P says no pfn"}
    host.frames.release_allocation(dom._dom.p2m[2000])
    (row,) = dom.inspect().p2m(2000)
    assert row.problem == f"mfn {dom._dom.p2m[2000]:#x} belongs to nobody now"


# --- refusals ---------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("vaddr", "said"),
    [
        (-1, r"^-0x1 is no address: it is negative"),
        (1 << 64, r"^0x10000000000000000 is (no address of a 32-bit guest|not canonical)"),
        (1 << 47, r"^0x800000000000 is (no address of a 32-bit guest|not canonical)"),
    ],
)
def test_what_is_no_address_is_refused(dom: DomainHandle, vaddr: int, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        dom.walk(vaddr)


def test_what_is_not_there_is_refused(dom: DomainHandle) -> None:
    inspection = dom.inspect()
    with pytest.raises(ValueError, match=r"^mfn 0x99999 is beyond the machine's"):
        inspection.frame(0x99999)
    with pytest.raises(ValueError, match=r"^pfn 0x100000 is not in the list of d1"):
        inspection.p2m(0x100000)
    with pytest.raises(ValueError, match=r"^'nonesuch' is neither an address nor a symbol"):
        inspection.address_of("nonesuch")


def test_only_64_bit_user_mode_has_tables_of_its_own(dom: DomainHandle) -> None:
    inspection: Inspection = dom.inspect()
    if dom.width.is_64:
        user = inspection.walk(0x1000_0000, user=True)
        assert user.levels[0].table.mfn == dom._dom.vcpus[0].user_root_mfn
        assert user.maddr == inspection.walk(0x1000_0000).maddr
        assert inspection.walk(inspection.address_of("guest_name"), user=True).maddr is None
    else:
        with pytest.raises(ValueError, match=r"^d1v0 has no user page table$"):
            inspection.walk(0x1000_0000, user=True)


def test_a_destroyed_domain_has_nothing_to_look_at() -> None:
    with Machine(memory_mib=32) as machine:
        handle = machine.create(guest_path("hello", "x86_32"), memory_mib=8)
        handle.destroy()
        with pytest.raises(LookupError, match=r"^d1 is destroyed"):
            handle.inspect()
