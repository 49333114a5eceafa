"""A Xen-compatible paravirtualizing hypervisor; Unicorn is its CPU.

`hypervisor.api` is what Python users import. Nothing is imported here, so that reading one layer,
or the numbers in `hypervisor.abi`, never loads the engine.
"""
