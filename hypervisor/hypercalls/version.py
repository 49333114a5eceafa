"""xen_version: who this hypervisor says it is (Xen's common/kernel.c)."""

from __future__ import annotations

from typing import Final

from hypervisor.abi.errno import Errno
from hypervisor.abi.errors import XenError
from hypervisor.abi.features import Feature
from hypervisor.abi.version import CompileInfo, FeatureInfo, PlatformParameters, XenverCmd
from hypervisor.abi.xen import HypercallNr, VmAssistType
from hypervisor.hypercalls.caller import Caller
from hypervisor.hypercalls.table import Absent, SubOp, call_subop, hypercall, subops
from hypervisor.mm.hole_map import HOLE

XEN_MAJOR: Final = 4
XEN_MINOR: Final = 17
_VERSION: Final = XEN_MAJOR << 16 | XEN_MINOR
EXTRAVERSION: Final = b".ring1"
CAPABILITIES: Final = b"xen-3.0-x86_64 xen-3.0-x86_32p xen-3.0-x86_32 "
_VMASST_PAE_EXTENDED_CR3: Final = 1 << VmAssistType.PAE_EXTENDED_CR3


def _string(size: int, text: bytes) -> bytes:
    return text[: size - 1].ljust(size, b"\0")


def compile_info(caller: Caller, arg: CompileInfo) -> None:
    """Who built it, with what. Constants: a build's date would make two machines differ."""
    arg.compiler = _string(64, b"Python")
    arg.compile_by = _string(16, b"ring1")
    arg.compile_domain = _string(32, b"")
    arg.compile_date = _string(32, b"")


def platform_parameters(caller: Caller, arg: PlatformParameters) -> None:
    """Where the hypervisor's region starts."""
    arg.virt_start = HOLE[caller.width].vaddr


def get_features(caller: Caller, arg: FeatureInfo) -> None:
    """The features that a PV guest may rely on."""
    if arg.submap_idx != 0:
        raise XenError(Errno.EINVAL, f"feature submap {arg.submap_idx} does not exist")
    features = (
        1 << Feature.MMU_PT_UPDATE_PRESERVE_AD
        | 1 << Feature.HIGHMEM_ASSIST
        | 1 << Feature.GNTTAB_MAP_AVAIL_BITS
        | 1 << Feature.MEMORY_OP_VNODE_SUPPORTED  # understood, and without vNUMA passed over
        | 1 << Feature.DIRECT_MAPPED  # a gfn is the mfn
    )
    if caller.dom.vm_assist & _VMASST_PAE_EXTENDED_CR3:
        features |= 1 << Feature.PAE_PGDIR_ABOVE_4GB
    if caller.dom.privileged:
        features |= 1 << Feature.DOM0
    arg.submap = features


def version(caller: Caller) -> int:
    """Major and minor: the null hypercall of every benchmark."""
    return _VERSION


def pagesize(caller: Caller) -> int:
    """4096."""
    return 4096


VERSION_OPS: Final = subops(
    HypercallNr.XEN_VERSION,
    {
        XenverCmd.VERSION: SubOp(None, version),
        XenverCmd.COMPILE_INFO: SubOp(CompileInfo, compile_info, copy_back=True),
        XenverCmd.PLATFORM_PARAMETERS: SubOp(
            PlatformParameters, platform_parameters, copy_back=True
        ),
        XenverCmd.GET_FEATURES: SubOp(FeatureInfo, get_features, copy_back=True),
        XenverCmd.PAGESIZE: SubOp(None, pagesize),
        XenverCmd.COMMANDLINE: Absent(Errno.EPERM, "only a privileged domain may read it"),
        XenverCmd.BUILD_ID: Absent(Errno.ENODATA, "there is no build id"),
    },
)

#: Operations whose argument is a bare string of a fixed size.
_STRINGS: Final = {
    XenverCmd.EXTRAVERSION: _string(16, EXTRAVERSION),
    XenverCmd.CAPABILITIES: _string(1024, CAPABILITIES),
    XenverCmd.CHANGESET: _string(64, b"ring1"),
}


@hypercall(HypercallNr.XEN_VERSION, args=2, operations=VERSION_OPS)
def xen_version(caller: Caller, command: int, vaddr: int) -> int:
    """Answer one question about the hypervisor."""
    if command in _STRINGS:
        caller.mem.write(vaddr, _STRINGS[XenverCmd(command)])
        return 0
    if command == XenverCmd.GUEST_HANDLE:
        caller.mem.write(vaddr, caller.dom.handle)
        return 0
    return call_subop(caller, VERSION_OPS, command, vaddr)
