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
from hypervisor.abi.layout import layout
from hypervisor.abi.xen import HypercallNr
from hypervisor.domain.domain import Domain
from hypervisor.grants.table import MAX_FRAMES
from hypervisor.hypercalls.caller import Caller
from hypervisor.hypercalls.table import Absent, Row, SubOp, hypercall, subops


def _target(caller: Caller, domid: int) -> Domain | None:
    try:
        return caller.resolve(domid)
    except XenError:
        return None


def setup_table(caller: Caller, arg: GnttabSetupTable) -> None:
    """Grow the table and list its frames."""
    dom = _target(caller, arg.dom)
    if dom is None:
        arg.status = GntStatus.PERMISSION_DENIED
        return
    grants = caller.host.grants
    table = grants.table(dom)
    if arg.nr_frames > MAX_FRAMES:
        arg.status = GntStatus.GENERAL_ERROR
        return
    grants.grow(dom, arg.nr_frames)
    size = caller.width.word_bytes
    listed = b"".join(mfn.to_bytes(size, "little") for mfn in table.frames[: arg.nr_frames])
    caller.mem.write(arg.frame_list, listed)
    arg.status = GntStatus.OKAY


def query_size(caller: Caller, arg: GnttabQuerySize) -> None:
    """How large the table is, and may become."""
    dom = _target(caller, arg.dom)
    if dom is None:
        arg.status = GntStatus.PERMISSION_DENIED
        return
    arg.nr_frames = len(caller.host.grants.table(dom).frames)
    arg.max_nr_frames = MAX_FRAMES
    arg.status = GntStatus.OKAY


def get_version(caller: Caller, arg: GnttabGetVersion) -> None:
    """Which form of entries a domain uses."""
    dom = caller.resolve(arg.dom)
    arg.version = caller.host.grants.table(dom).version


def set_version(caller: Caller, arg: GnttabSetVersion) -> None:
    """Choose the form of entries: version 1 only, as with gnttab=max-ver:1."""
    if arg.version not in (1, 2):
        raise XenError(Errno.EINVAL, f"grant table version {arg.version} does not exist")
    if arg.version == 2:
        raise XenError(Errno.ENOSYS, "grant table version 2 is not offered")


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


@hypercall(HypercallNr.GRANT_TABLE_OP, args=3)
def grant_table_op(caller: Caller, operation: int, vaddr: int, count: int) -> int:
    """Do one operation `count` times, each with its own argument and status."""
    row = GNTTAB_OPS.get(operation)
    if row is None:
        raise XenError(Errno.ENOSYS, f"grant_table_op {operation} is unknown")
    if isinstance(row, Absent):
        raise XenError(row.errno, row.reason)
    if row.argument is None:
        return 0
    if operation in (GnttabOp.SETUP_TABLE, GnttabOp.QUERY_SIZE) and count != 1:
        raise XenError(Errno.EINVAL, f"{count} of an operation that is done once")
    shape = layout(row.argument, caller.width)
    for idx in range(count):
        at = vaddr + idx * shape.size
        argument = shape.unpack_from(caller.mem.read(at, shape.size))
        row.handler(caller, argument)
        caller.mem.write(at, shape.pack(argument))
    return 0
