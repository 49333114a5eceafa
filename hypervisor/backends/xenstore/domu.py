"""What a domU finds in the store when it starts, as Xen's toolstack writes it (libxl_create.c)."""

from __future__ import annotations

from hypervisor.backends.xenstore.store import Store


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
    """Write a new domain's home, readable by it; what it may write itself it owns."""
    home, vm = f"/local/domain/{domid}", f"/vm/{uuid}"
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
        (f"{home}/console/limit", "1048576"),
        (f"{home}/console/output", "pty"),
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
    _share(store, home, domid, own=("control/shutdown", "device", "drivers", "feature", "data"))


def _share(store: Store, home: str, domid: int, *, own: tuple[str, ...]) -> None:
    for path in sorted(path for path in store.nodes if path == home or path.startswith(home + "/")):
        store.set_permissions(path, ("n", 0), ("r", domid))
    for name in own:
        store.write(f"{home}/{name}", "")
        store.set_permissions(f"{home}/{name}", ("n", domid))
