"""What is not there, and why: every number of Xen's public header that has no handler."""

from __future__ import annotations

from hypervisor.abi.errno import Errno
from hypervisor.abi.xen import HypercallNr
from hypervisor.hypercalls.table import absent

absent(HypercallNr.PLATFORM_OP, "for the hardware domain only", Errno.EPERM)
absent(HypercallNr.EVENT_CHANNEL_OP_COMPAT, "superseded by event_channel_op in Xen 3.2")
absent(HypercallNr.PHYSDEV_OP_COMPAT, "superseded by physdev_op in Xen 3.2")
absent(HypercallNr.XSM_OP, "no security module is configured")
absent(HypercallNr.XENOPROF_OP, "removed from Xen in 4.19; there are no counters to profile with")
absent(HypercallNr.HVM_OP, "no HVM domains yet")
absent(HypercallNr.SYSCTL, "no toolstack runs in Domain 0 yet", Errno.EPERM)
absent(HypercallNr.DOMCTL, "no toolstack runs in Domain 0 yet", Errno.EPERM)
absent(HypercallNr.KEXEC_OP, "there is no host kernel to hand over to")
absent(HypercallNr.TMEM_OP, "removed from Xen in 4.13")
absent(HypercallNr.ARGO_OP, "Argo is off, as by default in Xen")
absent(HypercallNr.XENPMU_OP, "the engine counts no performance events")
absent(HypercallNr.DM_OP, "no device models: there are no HVM domains yet")
absent(HypercallNr.HYPFS_OP, "no file system of hypervisor parameters")
absent(HypercallNr.ARCH_0, "machine checks do not happen here")
for number in range(HypercallNr.ARCH_1, HypercallNr.ARCH_7 + 1):
    absent(HypercallNr(number), "unused on x86")
