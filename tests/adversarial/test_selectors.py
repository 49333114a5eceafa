"""Selectors of descriptor tables that the guest has not given: its own fault, no page fault."""

from __future__ import annotations

import pytest

from hypervisor.abi.width import Width
from hypervisor.api import DomainState, Machine
from tests.support.callers import BASE, nop_kernel

LOAD_DS: dict[str, bytes] = {
    "GDT": bytes.fromhex("b8 53 00 00 00  8e d8"),  # mov $0x53, %eax; mov %eax, %ds
    "LDT": bytes.fromhex("b8 57 00 00 00  8e d8"),
}
ERROR_CODE = {"GDT": "0050", "LDT": "0054"}


@pytest.mark.parametrize("table", LOAD_DS)
@pytest.mark.parametrize("width", Width, ids=lambda width: width.name)
def test_a_selector_of_an_absent_table_is_a_general_protection_fault(
    width: Width, table: str
) -> None:
    with Machine(memory_mib=16) as machine:
        dom = machine.create(nop_kernel(width), memory_mib=4, width=width)
        vmm = machine.vmm
        vcpu = vmm.host.domains[dom.domid].vcpus[0]
        vmm._switch(vmm.host.domains[dom.domid], vcpu)
        vmm.current.mem.write(BASE[width], LOAD_DS[table])
        machine.run(time_limit_ns=1000)
        assert dom.state is DomainState.CRASHED
        assert f"#GP[{ERROR_CODE[table]}]" in (dom.crash_report or "")
