"""Linear page tables: a table that names a table of its own level.

A guest may let an entry of a table name that table itself, or another one of the same level: then
a stretch of its address space shows its page tables (the "recursive mapping" of NetBSD and others).
The MMU takes the table named for one of the next lower level, so what it shows must not be
writable. The rules are Xen's (get_l2_linear_pagetable and its brothers in arch/x86/mm.c):

- the entry is not writable; the walk through it therefore is not either;
- an entry that names its own table holds nothing;
- any other holds a type reference, as an entry of the level above would, and the table it names
  is already validated. A table that has such entries is not named by such entries elsewhere: so
  tables cannot hold each other in a circle, and each can be given back.
"""

from __future__ import annotations

from hypervisor.abi.errno import Errno
from hypervisor.abi.errors import XenError


class LinearUses:
    """For each table with a part in this: how many linear entries it has, or, as a negative
    number, how many others have that name it. Tables without are not listed."""

    def __init__(self) -> None:
        self._counts: dict[int, int] = {}

    def add(self, table: int, named: int) -> None:
        """An entry of `table` names `named`. Raises XenError(EINVAL) if that closes a chain."""
        counts = self._counts
        if counts.get(table, 0) < 0:
            raise XenError(Errno.EINVAL, f"mfn {table:#x} is itself used as a linear page table")
        if counts.get(named, 0) > 0:
            raise XenError(Errno.EINVAL, f"mfn {named:#x} has linear entries itself")
        self._count(table, 1)
        self._count(named, -1)

    def remove(self, table: int, named: int) -> None:
        """The opposite."""
        self._count(table, -1)
        self._count(named, 1)

    def _count(self, mfn: int, change: int) -> None:
        count = self._counts.get(mfn, 0) + change
        if count:
            self._counts[mfn] = count
        else:
            del self._counts[mfn]

    def is_empty(self) -> bool:
        """Whether no linear entry is left."""
        return not self._counts
