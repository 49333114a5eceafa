"""What may stand in a GDT or LDT (check_descriptor in Xen's arch/x86/pv/descriptor-tables.c)."""

from __future__ import annotations

import pytest

from hypervisor.abi.errno import Errno
from hypervisor.abi.width import Width
from hypervisor.machine.memory import MachineMemory
from hypervisor.mm.descriptors import check_page, checked_descriptor, kernel_ring
from hypervisor.x86.descriptor import (
    DESC_ACCESSED,
    DESC_CODE,
    DESC_DPL_SHIFT,
    DESC_G,
    DESC_L,
    DESC_P,
    DESC_RW,
    DESC_S,
    desc_dpl,
    desc_limit,
)
from tests.support.small_machine import refused

WIDTHS = pytest.mark.parametrize("width", Width, ids=lambda width: width.name)
WIDTHS_32 = pytest.mark.parametrize("width", [Width.X86_32, Width.X86_32P], ids=lambda w: w.name)
FLAT = 0x000F_0000_0000_FFFF | DESC_G
DATA = DESC_P | DESC_S | DESC_RW | FLAT
CODE = DATA | DESC_CODE
CALL_GATE = DESC_P | 0xC << 40


def dpl(ring: int) -> int:
    return ring << DESC_DPL_SHIFT


@WIDTHS
@pytest.mark.parametrize("garbage", [0, 0xFFFF_7FFF_FFFF_FFFF, 0x0000_1F00_0000_0000])
def test_what_is_not_present_may_be_anything(width: Width, garbage: int) -> None:
    assert checked_descriptor(width, garbage & ~DESC_P) == garbage & ~DESC_P


@WIDTHS
@pytest.mark.parametrize("ring", range(4))
def test_no_segment_is_above_the_kernels_ring(width: Width, ring: int) -> None:
    for segment in (DATA, CODE):
        desc = checked_descriptor(width, segment | dpl(ring))
        assert desc_dpl(desc) == max(ring, kernel_ring(width))


@WIDTHS
def test_the_accessed_bit_is_set_here(width: Width) -> None:
    assert checked_descriptor(width, DATA | dpl(3)) & DESC_ACCESSED


@WIDTHS_32
def test_a_32_bit_guest_has_no_64_bit_code(width: Width) -> None:
    with refused(Errno.EINVAL, r"64-bit code in a 32-bit guest$"):
        checked_descriptor(width, CODE | DESC_L | dpl(3))


def test_a_64_bit_guest_has() -> None:
    assert checked_descriptor(Width.X86_64, CODE | DESC_L | dpl(3)) & DESC_L


@WIDTHS_32
def test_a_limit_trimmed_to_xens_region_becomes_the_whole_space(width: Width) -> None:
    trimmed = DATA & ~0x000F_0000_0000_FFFF | 0x000F_0000_0000_C3FF | dpl(1)
    desc = checked_descriptor(width, trimmed)
    assert desc_limit(desc) == 0xFFFF_FFFF


@WIDTHS_32
def test_a_shorter_limit_stays(width: Width) -> None:
    short = DATA & ~0x000F_0000_0000_FFFF | 0x000B_0000_0000_FFFF | dpl(3)
    assert desc_limit(checked_descriptor(width, short)) == 0xBFFF_FFFF


@WIDTHS
@pytest.mark.parametrize("kind", [1, 2, 3, 4, 5, 6, 7, 8, 9, 0xA, 0xB, 0xD, 0xE, 0xF])
def test_system_segments_and_other_gates_are_refused(width: Width, kind: int) -> None:
    with refused(Errno.EINVAL, r"a system segment$"):
        checked_descriptor(width, DESC_P | kind << 40)


@WIDTHS
def test_type_0_is_harmless(width: Width) -> None:
    checked_descriptor(width, DESC_P | 0x1234)


class TestCallGates:
    @WIDTHS
    def test_it_traps_when_used_and_remembers_its_dpl(self, width: Width) -> None:
        desc = checked_descriptor(width, CALL_GATE | dpl(3) | 0x73 << 16 | 0x1234)
        assert desc_dpl(desc) == 0
        assert desc >> 16 & 0xFFFF == 0x73

    @WIDTHS
    def test_its_target_is_not_privileged(self, width: Width) -> None:
        desc = checked_descriptor(width, CALL_GATE | 0x70 << 16)
        assert desc >> 16 & 3 == kernel_ring(width)

    @WIDTHS
    @pytest.mark.parametrize("selector", [0xE000, 0xE008, 0xE010, 0xFFF8])
    def test_a_selector_of_xens_is_refused(self, width: Width, selector: int) -> None:
        with refused(Errno.EINVAL, rf"selector {selector:#x} is Xen's$"):
            checked_descriptor(width, CALL_GATE | selector << 16)

    @pytest.mark.parametrize(
        ("width", "selector"),
        [(Width.X86_32, 0xE019), (Width.X86_32P, 0xE019), (Width.X86_64, 0xE033)],
    )
    def test_but_for_the_guests_own_code(self, width: Width, selector: int) -> None:
        checked_descriptor(width, CALL_GATE | selector << 16)

    @WIDTHS
    def test_any_selector_of_the_ldt_will_do(self, width: Width) -> None:
        checked_descriptor(width, CALL_GATE | 0xFFFC << 16)

    @WIDTHS
    def test_reserved_bits_are_refused(self, width: Width) -> None:
        with refused(Errno.EINVAL, r"reserved bits 0x2000000000$"):
            checked_descriptor(width, CALL_GATE | 0x73 << 16 | 0x20 << 32)

    @pytest.mark.parametrize(("width", "allowed"), [(Width.X86_32, True), (Width.X86_64, False)])
    def test_a_count_of_parameters_is_for_32_bits(self, width: Width, allowed: bool) -> None:
        gate = CALL_GATE | 0x73 << 16 | 0x1F << 32
        if allowed:
            checked_descriptor(width, gate)
            return
        with refused(Errno.EINVAL, r"reserved bits"):
            checked_descriptor(width, gate)


def test_a_page_is_changed_as_a_whole_or_not_at_all() -> None:
    memory = MachineMemory(4 * 4096)
    words = memory.u64[512:1024]
    words[0], words[511] = DATA, DESC_P | 2 << 40
    with refused(Errno.EINVAL, r"a system segment$"):
        check_page(memory, Width.X86_64, 1)
    assert words[0] == DATA
    words[511] = 0
    check_page(memory, Width.X86_64, 1)
    assert words[0] == DATA | dpl(3) | DESC_ACCESSED
