"""Two domains on one machine: stop at a hypercall, look around, go on, count."""

from __future__ import annotations

from collections import Counter

from guests import guest_path
from hypervisor.api import Entry, Machine
from hypervisor.trace.names import entry_name

EVENT_CHANNEL_OP = 32


def main() -> None:
    with Machine(memory_mib=64) as machine:
        hello = machine.create(guest_path("hello", "x86_32"), memory_mib=16)
        ticker = machine.create(guest_path("ticker", "x86_64"), memory_mib=16)

        def is_event_of_hello(entry: Entry) -> bool:
            return (entry.domid, entry.number) == (hello.domid, EVENT_CHANNEL_OP)

        machine.run(until_entry=is_event_of_hello)
        vcpu = hello.vcpus[0]
        print(f"{machine.now_ns} ns: {hello.name} in ring {vcpu.cpl} at {vcpu.rip:#x}")
        print("its next bytes:", vcpu.read(vcpu.rip, 4).hex(" "))

        calls: Counter[tuple[int, str]] = Counter()

        def count(entry: Entry) -> None:
            calls[entry.domid, entry_name(entry.kind, entry.number)] += 1

        machine.on_entry.append(count)
        machine.run()
        for domain in (hello, ticker):
            print(f"\n{domain.name} ({domain.width.value}) {domain.state.value}:")
            for (domid, name), times in calls.most_common():
                if domid == domain.domid:
                    print(f"{times:6} {name}")


if __name__ == "__main__":
    main()
