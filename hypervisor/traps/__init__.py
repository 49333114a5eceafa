"""From a CPU exit to the guest's handler: bounce frames, iret, upcalls, emulated instructions.

`current` is the guest on the CPU, `segments` loads its segment registers, `bounce` builds the
frames that Xen builds, `iret` takes them apart again, `emulate` does what a kernel in ring 1 may
not do itself, `entry` decides which of these an exit needs.
"""
