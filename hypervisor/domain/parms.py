"""What a kernel says of itself, whichever way it says it: by Xen ELF notes or by `__xen_guest`.

Both readers fill the same `DomParms` (Xen's elf_dom_parms, libelf.h). None means that the kernel
says nothing, which is not the same as 0: PV-GRUB's entry and virtual base are 0.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Final

from hypervisor.abi.features import Feature
from hypervisor.domain.elf import ImageError

_FEATURE_NAMED: Final = {feature.name.lower(): feature for feature in Feature}

#: What a PV kernel may insist on here: what XENVER_get_features can answer for a PV domain.
OFFERED_FEATURES: Final = frozenset(
    {
        Feature.PAE_PGDIR_ABOVE_4GB,
        Feature.MMU_PT_UPDATE_PRESERVE_AD,
        Feature.HIGHMEM_ASSIST,
        Feature.GNTTAB_MAP_AVAIL_BITS,
    }
)


class PaeMode(Enum):
    """A 32-bit kernel's page tables (XEN_PAE_* in Xen's libelf.h)."""

    NO = "no"  # two-level
    YES = "yes"  # PAE, the top-level table below 4 GiB
    EXTENDED = "yes[extended-cr3]"  # PAE, the top-level table anywhere
    BIMODAL = "bimodal"  # either; PAE anywhere


@dataclass(slots=True)
class DomParms:
    """A kernel's statements; None where it makes none."""

    virt_base: int | None = None
    entry: int | None = None
    hypercall_page: int | None = None  # virtual address
    hv_start_low: int | None = None  # lowest start of Xen's hole that the kernel can live with
    init_p2m: int | None = None
    paddr_offset: int | None = None
    phys32_entry: int | None = None
    pae: PaeMode = PaeMode.NO
    supported: int = 0  # bits by feature number
    required: int = 0
    states_supported: bool = False  # XEN_ELFNOTE_SUPPORTED_FEATURES is there
    mod_start_pfn: bool = False
    suspend_cancel: bool = False
    bsd_symtab: bool = False
    loader: str = ""
    guest_os: str = ""
    guest_version: str = ""
    xen_version: str = ""

    def add_features(self, text: str) -> None:
        """Read a list of feature names, separated by `|`; `!` before a name makes it required.

        Raises ImageError for a required name that is unknown; an unknown supported one is of no
        concern (elf_xen_parse_features in libelf-dominfo.c).
        """
        for word in text.split("|"):
            name = word.removeprefix("!")
            feature = _FEATURE_NAMED.get(name)
            if feature is not None:
                self.supported |= 1 << feature
            if name == word:
                continue
            if feature is None:
                raise ImageError(f"the kernel requires feature {name!r}, which is unknown")
            self.required |= 1 << feature
