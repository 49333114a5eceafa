"""Memory virtualization: who owns a machine frame, what it is used as, and what may be mapped.

`frames` counts, `pagetables` validates, `hole` builds what Xen maps into every address space,
`guest_memory` reads and writes on a guest's behalf through the guest's own tables.
"""
