"""How much of the store one unprivileged domain can use: xenstored's quotas (xenstored_core.c)."""

from __future__ import annotations

from typing import Final

from hypervisor.abi.xs_wire import XENSTORE_PAYLOAD_MAX

MAX_NODES: Final = 1000  # quota_nb_entry_per_domain
MAX_NODE_BYTES: Final = 2048  # quota_max_entry_size: head, permissions, value, children's names
MAX_PERMISSIONS: Final = 5  # quota_nb_perms_per_node
MAX_WATCHES: Final = 128  # quota_nb_watch_per_domain; xenstored lets one more pass
MAX_TRANSACTIONS: Final = 10  # quota_max_transaction; and here
MAX_TRANSACTION_NODES: Final = 1024  # quota_trans_nodes: what one transaction looks at
MAX_OUTSTANDING: Final = 20  # quota_req_outstanding: answers not taken, before reading stops
MAX_QUEUED_BYTES: Final = 5 << 19  # quota_memory_per_domain_hard: beyond it events are lost

NODE_HEAD_BYTES: Final = 24  # struct xs_tdb_record_hdr
PERMISSION_BYTES: Final = 8  # struct xs_permissions
MAX_PAYLOAD: Final = XENSTORE_PAYLOAD_MAX
