"""Files that describe machines: TOML to dataclasses, by one schema.

`machine` has what a machine and its domains are, for every kind of file; `run` what a run is. A
file is understood whole, or refused with one sentence before anything is made from it.
"""

from hypervisor.config.machine import DomainSpec, MachineSpec
from hypervisor.config.run import RunSpec, read_run
from hypervisor.config.tables import ConfigError, Document, Table

__all__ = [
    "ConfigError",
    "Document",
    "DomainSpec",
    "MachineSpec",
    "RunSpec",
    "Table",
    "read_run",
]
