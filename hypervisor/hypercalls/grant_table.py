"""grant_table_op: so far what sets a grant table up (Xen's common/grant_table.c)."""

from __future__ import annotations

from typing import Final

from hypervisor.abi.errno import Errno
from hypervisor.abi.errors import XenError
from hypervisor.abi.grant_table import (
    GntStatus,
    GnttabGetVersion,
    GnttabOp,
    GnttabQuerySize,
    GnttabSetupTable,
    GnttabSetVersion,
)
from hypervisor.abi.xen import HypercallNr
from hypervisor.domain.domain import Domain
from hypervisor.grants.table import GRANT_TABLE_VERSION, MAX_FRAMES
from hypervisor.hypercalls.caller import Caller
from hypervisor.hypercalls.table import Absent, Row, SubOp, call_subop, hypercall, subops

_M32: Final = 0xFFFF_FFFF
_INT_MAX: Final = 0x7FFF_FFFF
_VERSIONS: Final = (1, 2)


def _target(caller: Caller, domid: int) -> Domain | GntStatus:
    """The domain that is meant, or the status that says why it cannot be."""
    try:
        return caller.resolve(domid)
    except XenError as refusal:
        is_unknown = refusal.errno == Errno.ESRCH
        return GntStatus.BAD_DOMAIN if is_unknown else GntStatus.PERMISSION_DENIED


def setup_table(caller: Caller, arg: GnttabSetupTable) -> None:
    """Grow the table and list its frames."""
    dom = _target(caller, arg.dom)
    if isinstance(dom, GntStatus):
        arg.status = dom
        return
    try:
        table = caller.host.grants.grown(dom, arg.nr_frames)
    except XenError:  # too many, or the machine has no more
        arg.status = GntStatus.GENERAL_ERROR
        return
    size = caller.width.word_bytes
    arg.status = GntStatus.OKAY
    try:
        for idx, mfn in enumerate(table.frames[: arg.nr_frames]):
            caller.mem.write(arg.frame_list + idx * size, mfn.to_bytes(size, "little"))
    except XenError:
        arg.status = GntStatus.BAD_VIRT_ADDR


def query_size(caller: Caller, arg: GnttabQuerySize) -> None:
    """How large the table is, and may become."""
    dom = _target(caller, arg.dom)
    if isinstance(dom, GntStatus):
        arg.status = dom
        return
    arg.nr_frames = caller.host.grants.nr_frames(dom)
    arg.max_nr_frames = MAX_FRAMES
    arg.status = GntStatus.OKAY


def get_version(caller: Caller, arg: GnttabGetVersion) -> None:
    """Which form of entries a domain uses: version 1, as none can choose the other."""
    caller.resolve(arg.dom)
    arg.version = GRANT_TABLE_VERSION


def set_version(caller: Caller, arg: GnttabSetVersion) -> int:
    """Choose the form of entries: version 1 only, as with gnttab=max-ver:1.

    The argument says afterwards which one is in use, also when the other was refused.
    """
    wanted, arg.version = arg.version, GRANT_TABLE_VERSION
    if wanted not in _VERSIONS:
        raise XenError(Errno.EINVAL, f"grant table version {wanted} does not exist")
    return 0 if wanted == GRANT_TABLE_VERSION else -Errno.ENOSYS


GNTTABOP_CMD_MASK: Final = 0xFFF  # above it an argument, of cache_flush only
_LATER: Final = Absent(Errno.ENOSYS, "mapping and copying grants is not there yet")

GNTTAB_OPS: Final[dict[int, Row]] = {
    GnttabOp.MAP_GRANT_REF: _LATER,
    GnttabOp.UNMAP_GRANT_REF: _LATER,
    GnttabOp.SETUP_TABLE: SubOp(GnttabSetupTable, setup_table, copy_back=True),
    GnttabOp.DUMP_TABLE: _LATER,
    GnttabOp.TRANSFER: _LATER,
    GnttabOp.COPY: _LATER,
    GnttabOp.QUERY_SIZE: SubOp(GnttabQuerySize, query_size, copy_back=True),
    GnttabOp.UNMAP_AND_REPLACE: _LATER,
    GnttabOp.SET_VERSION: SubOp(GnttabSetVersion, set_version, copy_back=True),
    GnttabOp.GET_STATUS_FRAMES: Absent(Errno.ENOSYS, "version 2 is not offered"),
    GnttabOp.GET_VERSION: SubOp(GnttabGetVersion, get_version, copy_back=True),
    GnttabOp.SWAP_GRANT_REF: _LATER,
    GnttabOp.CACHE_FLUSH: Absent(Errno.ENOSYS, "caches are not modelled"),
}
subops(HypercallNr.GRANT_TABLE_OP, GNTTAB_OPS)


#: Done once, whatever the count says; the others refuse a count that is not 1.
_COUNT_IGNORED: Final = frozenset({GnttabOp.SET_VERSION, GnttabOp.GET_VERSION})


@hypercall(HypercallNr.GRANT_TABLE_OP, args=3)
def grant_table_op(caller: Caller, operation: int, vaddr: int, count: int) -> int:
    """Do one operation, with its own argument and status."""
    operation &= _M32
    count &= _M32
    if count > _INT_MAX:
        raise XenError(Errno.EINVAL, f"{count:#x} operations: a negative int")
    row = GNTTAB_OPS.get(operation & GNTTABOP_CMD_MASK)
    if operation & ~GNTTABOP_CMD_MASK and operation & GNTTABOP_CMD_MASK != GnttabOp.CACHE_FLUSH:
        raise XenError(Errno.EINVAL, f"grant_table_op {operation:#x} takes no argument in itself")
    if row is None:
        raise XenError(Errno.ENOSYS, f"grant_table_op {operation} is unknown")
    if isinstance(row, Absent):
        raise XenError(row.errno, row.reason)
    if count != 1 and operation not in _COUNT_IGNORED:
        raise XenError(Errno.EINVAL, f"{count} of an operation that is done once")
    return call_subop(caller, GNTTAB_OPS, operation, vaddr)
