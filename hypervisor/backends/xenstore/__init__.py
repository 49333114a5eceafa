"""XenStore: a small tree of names and values by which domains find each other.

`nodes` says what a node and a path are, `tree` how nodes are changed, in the store or in a
transaction's private version of it, `requests` what each type of message does, `connection` what is
kept for one domain, `limits` how much a domain may use, `wire` the framing. `store` puts them
together. The rules are those of docs/misc/xenstore.txt and, where that is silent, of xenstored;
nothing here knows rings, guests or clocks, so it can be tested and compared by itself.
"""

from __future__ import annotations

from hypervisor.backends.xenstore.connection import Connection
from hypervisor.backends.xenstore.domu import domu_tree, remove_domu_tree
from hypervisor.backends.xenstore.nodes import XsError
from hypervisor.backends.xenstore.store import Store

__all__ = ["Connection", "Store", "XsError", "domu_tree", "remove_domu_tree"]
