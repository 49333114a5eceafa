"""xen_version: what the hypervisor says of itself."""

from __future__ import annotations

import pytest

from hypervisor.abi.errno import Errno
from hypervisor.abi.features import Feature
from hypervisor.abi.version import CompileInfo, FeatureInfo, PlatformParameters, XenverCmd
from hypervisor.abi.xen import HypercallNr, VmAssistCmd, VmAssistType
from tests.support.callers import UNMAPPED, Guest, hole, refused


def ask(guest: Guest, command: int, argument: object = None) -> int | None:
    return guest.op(HypercallNr.XEN_VERSION, command, argument)


def features(guest: Guest) -> set[Feature]:
    info = FeatureInfo(0, 0)
    assert ask(guest, XenverCmd.GET_FEATURES, info) == 0
    return {feature for feature in Feature if info.submap >> feature & 1}


def test_version_is_major_and_minor(guest: Guest) -> None:
    assert ask(guest, XenverCmd.VERSION) == 4 << 16 | 17


def test_page_size(guest: Guest) -> None:
    assert ask(guest, XenverCmd.PAGESIZE) == 4096


@pytest.mark.parametrize(
    ("command", "size", "start"),
    [
        (XenverCmd.EXTRAVERSION, 16, b".ring1\0"),
        (XenverCmd.CAPABILITIES, 1024, b"xen-3.0-x86_64 xen-3.0-x86_32p xen-3.0-x86_32 \0"),
        (XenverCmd.CHANGESET, 64, b"ring1\0"),
    ],
)
def test_text_fills_its_array(guest: Guest, command: int, size: int, start: bytes) -> None:
    guest.put(b"\xaa" * (size + 1))
    assert guest.call(HypercallNr.XEN_VERSION, command, guest.data) == 0
    assert guest.get(size + 1) == start.ljust(size, b"\0") + b"\xaa"


def test_compile_info_is_the_same_on_every_machine(guest: Guest) -> None:
    info = CompileInfo(b"", b"", b"", b"")
    assert ask(guest, XenverCmd.COMPILE_INFO, info) == 0
    assert info.compile_by.rstrip(b"\0") == b"ring1"


def test_platform_parameters_say_where_xen_begins(guest: Guest) -> None:
    parameters = PlatformParameters(0)
    assert ask(guest, XenverCmd.PLATFORM_PARAMETERS, parameters) == 0
    assert parameters.virt_start == hole(guest.width)


def test_features_are_those_a_pv_guest_needs(guest: Guest) -> None:
    found = features(guest)
    assert Feature.MMU_PT_UPDATE_PRESERVE_AD in found
    assert Feature.GNTTAB_MAP_AVAIL_BITS in found
    assert Feature.AUTO_TRANSLATED_PHYSMAP not in found
    assert Feature.DOM0 not in found


def test_extended_cr3_shows_once_it_is_switched_on(guest: Guest) -> None:
    assert Feature.PAE_PGDIR_ABOVE_4GB not in features(guest)
    guest.call(HypercallNr.VM_ASSIST, VmAssistCmd.ENABLE, VmAssistType.PAE_EXTENDED_CR3)
    assert Feature.PAE_PGDIR_ABOVE_4GB in features(guest)


def test_privileged_domain_is_told_that_it_is(dom0: tuple[Guest, Guest]) -> None:
    assert Feature.DOM0 in features(dom0[0])


def test_domain_handle_is_its_uuid(guest: Guest) -> None:
    guest.call(HypercallNr.XEN_VERSION, XenverCmd.GUEST_HANDLE, guest.data)
    assert guest.get(16) == guest.dom.handle


def test_refusals(guest: Guest) -> None:
    with refused(Errno.ENOSYS, "^operation 99 is unknown$"):
        ask(guest, 99)
    with refused(Errno.EINVAL, "^feature submap 7 does not exist$"):
        ask(guest, XenverCmd.GET_FEATURES, FeatureInfo(7, 0))
    for nowhere in (UNMAPPED, hole(guest.width)):
        with refused(Errno.EFAULT, "^cannot write at"):
            guest.call(HypercallNr.XEN_VERSION, XenverCmd.EXTRAVERSION, nowhere)
    with refused(Errno.EPERM, "privileged"):
        guest.call(HypercallNr.XEN_VERSION, XenverCmd.COMMANDLINE, guest.data)
