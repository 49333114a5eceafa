"""The hardware: machine memory and an x86 CPU whose exceptions, stops and time are exact.

Knows nothing of Xen, and is usable alone: see docs/machine.md.
"""

from __future__ import annotations


def describe_engine() -> dict[str, str]:
    """Facts of the engine on this host, for people: its version and how it is used."""
    from hypervisor.machine import _engine
    from hypervisor.machine._calibrate import BUILDS
    from hypervisor.machine._native import native_code_works

    known = (_engine.VERSION, _engine.library_size()) in BUILDS
    return {
        "unicorn": _engine.VERSION,
        "state access": "live" if known else "copies (this build of unicorn is not known)",
        "virtual clock": "native code" if native_code_works() else "Python",
    }
