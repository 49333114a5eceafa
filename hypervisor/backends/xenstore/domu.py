"""What a domU finds in the store when it starts, as Xen's toolstack writes it (libxl_create.c)."""

from __future__ import annotations

from typing import Final

from hypervisor.backends.console import LIMIT_BYTES
from hypervisor.backends.xenstore.nodes import home_of, is_below
from hypervisor.backends.xenstore.store import Store

#: What belongs to the domain itself, and it may write and make children of.
_OWN: Final = (
    "control/shutdown",
    "control/feature-poweroff",
    "control/feature-reboot",
    "control/feature-suspend",
    "control/sysrq",
    "device/suspend/event-channel",
    "data",
    "drivers",
    "feature",
    "attr",
    "error",
)


def domu_tree(
    store: Store,
    domid: int,
    *,
    name: str,
    uuid: str,
    memory_kib: int,
    vcpus: int,
    console_mfn: int,
    console_port: int,
    store_mfn: int,
    store_port: int,
) -> None:
    """Write a new domain's home: readable by it, and its own where `_OWN` says so."""
    home, vm = home_of(domid), f"/vm/{uuid}"
    for path, value in (
        (f"{vm}/name", name),
        (f"{vm}/uuid", uuid),
        (f"{home}/vm", vm),
        (f"{home}/name", name),
        (f"{home}/domid", str(domid)),
        (f"{home}/memory/target", str(memory_kib)),
        (f"{home}/memory/static-max", str(memory_kib)),
        (f"{home}/memory/videoram", "0"),
        (f"{home}/console/type", "xenconsoled"),
        (f"{home}/console/limit", str(LIMIT_BYTES)),
        (f"{home}/console/output", "pty"),
        (f"{home}/console/tty", ""),
        (f"{home}/console/ring-ref", str(console_mfn)),
        (f"{home}/console/port", str(console_port)),
        (f"{home}/store/ring-ref", str(store_mfn)),
        (f"{home}/store/port", str(store_port)),
        (f"{home}/control/platform-feature-multiprocessor-suspend", "1"),
        (f"{home}/control/platform-feature-xs_reset_watches", "1"),
    ):
        store.write(path, value)
    for vcpu in range(vcpus):
        store.write(f"{home}/cpu/{vcpu}/availability", "online")
    for own in _OWN:
        store.write(f"{home}/{own}", "")
    mine = {f"{home}/{own}" for own in _OWN}
    for path in [path for path in store.nodes if is_below(path, home) or is_below(path, vm)]:
        if path in mine:
            store.set_permissions(path, ("n", domid))
        else:
            store.set_permissions(path, ("n", 0), ("r", domid))


def remove_domu_tree(store: Store, domid: int, *, uuid: str) -> None:
    """A domain is gone, and all that was written for it, and by it there."""
    store.remove(home_of(domid))
    store.remove(f"/vm/{uuid}")
