"""Memory virtualization: who owns a machine frame, what it is used as, and what may be mapped.

To learn direct paging from it, read `frames` (owners and counts), `page_types` (the invariant, and
how a frame gets and loses a type), `leaf_tables` and `pagetables` (what entries may say and hold),
then `linear`, `descriptors` and `tlb`. `bulk` does with arrays what `leaf_tables` does one by one,
`audit` recomputes it all. `hole` builds what Xen maps into every address space, `guest_memory`
reads and writes on a guest's behalf through the guest's own tables.
"""
