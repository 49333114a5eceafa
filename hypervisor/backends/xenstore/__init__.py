"""XenStore: a small tree of names and values by which domains find each other.

`tree` holds the nodes and their permissions, `transaction` isolates a sequence of changes,
`watches` says who hears of a change, `wire` is the framing of messages, `store` puts them together
and answers requests. Rules are those of docs/misc/xenstore.txt and of xenstored; nothing here knows
rings, guests or clocks, so it can be tested and compared by itself.
"""

from __future__ import annotations

from hypervisor.backends.xenstore.domu import domu_tree
from hypervisor.backends.xenstore.store import Connection, Store
from hypervisor.backends.xenstore.tree import XsError

__all__ = ["Connection", "Store", "XsError", "domu_tree"]
