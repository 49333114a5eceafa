"""What a kernel says of itself, whichever way it says it: by Xen ELF notes or by `__xen_guest`.

Both readers fill the same `DomParms` (Xen's elf_dom_parms, libelf.h). None means that the kernel
says nothing, which is not the same as 0: PV-GRUB's entry and virtual base are 0. Feature names and
numbers are those of public/features.h.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Final

from hypervisor.domain.elf import ImageError

#: XENFEAT_* of public/features.h by the name that a kernel uses.
FEATURE_BITS: Final = {
    "writable_page_tables": 0,
    "writable_descriptor_tables": 1,
    "auto_translated_physmap": 2,
    "supervisor_mode_kernel": 3,
    "pae_pgdir_above_4gb": 4,
    "mmu_pt_update_preserve_ad": 5,
    "highmem_assist": 6,
    "gnttab_map_avail_bits": 7,
    "hvm_callback_vector": 8,
    "dom0": 11,
}
FEATURE_DOM0: Final = 1 << FEATURE_BITS["dom0"]

#: What a PV kernel may insist on here: what XENVER_get_features can answer for a PV domain.
OFFERED_FEATURES: Final = frozenset(
    {"pae_pgdir_above_4gb", "mmu_pt_update_preserve_ad", "highmem_assist", "gnttab_map_avail_bits"}
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
            bit = FEATURE_BITS.get(name)
            if bit is not None:
                self.supported |= 1 << bit
            if name is word:
                continue
            if bit is None:
                raise ImageError(f"the kernel requires feature {name!r}, which is unknown")
            self.required |= 1 << bit
