"""public/io/console.h: the console ring, one page shared by a domain and its console daemon."""

from __future__ import annotations

from dataclasses import dataclass

from hypervisor.abi.layout import U32, CharArray, abi_struct


@abi_struct(size=3088)
@dataclass(slots=True)
class XenconsInterface:
    """struct xencons_interface. Indices run freely; `in_` is what the guest reads."""

    in_: CharArray(1024)  # type: ignore[valid-type]
    out: CharArray(2048)  # type: ignore[valid-type]
    in_cons: U32  # of the guest
    in_prod: U32  # of the daemon
    out_cons: U32  # of the daemon
    out_prod: U32  # of the guest
