/*
 * Every bit of an entry that is not part of the frame number, at every level: allowed or reserved
 * (L1_DISALLOW_MASK to L4_DISALLOW_MASK in Xen's arch/x86/mm.c), and what stands there afterwards.
 *
 * A leaf of uncached memory needs a domain with hardware, which the initial domain is. What Intel
 * ignores in 64-bit entries Xen takes (a Xen built for debugging keeps bit 62 of leaves to itself).
 */
#include "console.h"
#include "pagetables.h"

#define AT(level) (1u << (level))
#define NOWHERE 0
#define EVERYWHERE (AT(1) | AT(2) | AT(3) | AT(4))
#define WITH_HARDWARE (1u << 8) /* in a leaf, for a domain that has some */

struct bit {
    const char *name;
    u64 bits;
    unsigned allowed;
};

static const struct bit bits[] = {
    { "rw", PTE_RW, EVERYWHERE },
    { "us", PTE_US, EVERYWHERE },
    { "pwt", PTE_PWT, WITH_HARDWARE },
    { "pcd", PTE_PCD, WITH_HARDWARE },
    { "a", PTE_A, EVERYWHERE },
    { "d", PTE_D, EVERYWHERE },
    { "7", PTE_BIT_7, WITH_HARDWARE },
    { "g", PTE_G, AT(1) },
    { "avail", PTE_AVAIL, EVERYWHERE },
#if IS_64
    { "52", 1ull << 52, EVERYWHERE },
    { "53-58", 0x3full << 53, EVERYWHERE },
    { "59-61", 7ull << 59, EVERYWHERE },
    { "62", 1ull << 62, EVERYWHERE },
    { "nx", 1ull << 63, EVERYWHERE },
#elif PT_LEVELS == 3
    /* Where Xen is a 64-bit one the processor ignores these; here it is really in PAE mode. */
    { "52", 1ull << 52, NOWHERE },
    { "53-62", 0x3ffull << 53, NOWHERE },
    { "nx", 1ull << 63, AT(1) | AT(2) },
#endif
};

static void check_bit(const struct bit *b, int level, const pte_t *entry, pte_t base)
{
    bool allowed = b->allowed & AT(level);
    pte_t value = base | (pte_t)b->bits;
    char id[24];

    if (b->allowed & WITH_HARDWARE)
        allowed = level == 1 && is_dom0;
    format(id, sizeof(id), "l%d.%s", level, b->name);
    if (allowed)
        check_accepted(id, "a bit that an entry of this level may have",
                       level == 1 ? leaf_flags(value) : table_entry_flags(level, value), entry,
                       value);
    else
        check_refused(id, "a bit that an entry of this level must not have", -XEN_EINVAL, entry,
                      value);
}

static void check_not_present(int level, const pte_t *entry)
{
    char id[24];

    format(id, sizeof(id), "l%d.absent", level);
    check_accepted(id, "an entry that is not present may be anything", ~PTE_FRAME & ~(pte_t)PTE_P,
                   entry, ~(pte_t)PTE_P);
}

void test_bits(void)
{
    for (int level = 1; level <= PT_LEVELS; level++) {
        const pte_t *entry = free_entry(level);
        pte_t *below = fresh_table();
        pte_t base = make_pte(virt_to_mfn(below), PTE_P);

        if (level == 1)
            make_writable(below);
        for (size_t i = 0; i < ARRAY_SIZE(bits); i++)
            check_bit(&bits[i], level, entry, base);
        check_not_present(level, entry);
        give_back(below);
    }
}
