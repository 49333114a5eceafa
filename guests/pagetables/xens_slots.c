/*
 * Xen's part of every address space: slots that no guest changes, filled in when a table becomes
 * one; the m2p, readable there and nowhere writable; and the rules of PAE's third level, whose last
 * entry leads there.
 */
#include "pagetables.h"
#include "string.h"
#include "traps.h"

#if IS_64
#define FIRST_SLOT 256
#define LAST_SLOT 271
#define WINDOW_SLOT 260 /* of the descriptor tables */
#define TABLE_LEVEL 4
#define SLOT_REFUSAL (-XEN_EINVAL)
#elif PT_LEVELS == 3
#define FIRST_SLOT 428
#define LAST_SLOT 511
#define TABLE_LEVEL 2
#define SLOT_REFUSAL (-XEN_EPERM)
#else
#define FIRST_SLOT 1008
#define LAST_SLOT 1023
#define WINDOW_SLOT 1012
#define TABLE_LEVEL 2
#define SLOT_REFUSAL (-XEN_EPERM)
#endif

static void test_slots(void)
{
    const pte_t *table = pt_walk(MACH2PHYS_VIRT_START, TABLE_LEVEL) - FIRST_SLOT;
    pte_t *below = fresh_table();
    pte_t value = make_pte(virt_to_mfn(below), PTE_RIGHTS);

    check_true("slots.present", "the first leads to the m2p", table[FIRST_SLOT] & PTE_P);
    check_refused("slots.first", "Xen's slots: the first", SLOT_REFUSAL, &table[FIRST_SLOT], value);
    check_refused("slots.last", "and the last", SLOT_REFUSAL, &table[LAST_SLOT], value);
    check_refused("slots.clear", "are not cleared either", SLOT_REFUSAL, &table[FIRST_SLOT], 0);
    check_refused("slots.same", "nor written as they are", SLOT_REFUSAL, &table[FIRST_SLOT],
                  table[FIRST_SLOT]);
    check_accepted("slots.before", "the one before them is the guest's",
                   table_entry_flags(TABLE_LEVEL, PTE_RIGHTS), &table[FIRST_SLOT - 1], value);
    give_back(below);
}

#if PT_LEVELS != 3
/* The guest's garbage there is neither checked nor kept. */
static void test_filled_in(void)
{
    const pte_t *theirs = pt_walk(MACH2PHYS_VIRT_START, TABLE_LEVEL) - FIRST_SLOT;
    pte_t *table = fresh_page();

    table[FIRST_SLOT] = make_pte(NO_FRAME, PTE_P | PTE_PWT);
    table[WINDOW_SLOT] = make_pte(NO_FRAME, PTE_P | PTE_PWT);
    table[LAST_SLOT] = 0;
    make_read_only(table);
    expect("slots.pin", "a top table with garbage there", 0, pin(TABLE_LEVEL, table));
    check_equal("slots.filled", "has Xen's entries then", 0, /* but for what the MMU sets */
                (table[WINDOW_SLOT] ^ theirs[WINDOW_SLOT]) & ~(pte_t)(PTE_A | PTE_D));
    check_equal("slots.filled-last", "to the last", 0,
                (table[LAST_SLOT] ^ theirs[LAST_SLOT]) & ~(pte_t)(PTE_A | PTE_D));
    unpin(table);
    give_back(table);
}
#else
/* PAE's third level: four entries, the last to an L2 of its own kind. */
static void test_third_level(void)
{
    const pte_t *top = pt_walk(0, 3);
    pte_t *l3 = fresh_page(), *l2 = fresh_page(), *other = fresh_page();

    check_refused("pae.slot-3", "the last of the four does not change", -XEN_EINVAL, &top[3], 0);
    check_refused("pae.slot-4", "and none is behind it", -XEN_EINVAL, &top[4], 0);
    check_refused("pae.xens-l2", "the L2 with Xen's slots serves in slot 3 alone", -XEN_EINVAL,
                  &top[1], make_pte(pte_mfn(top[3]), PTE_P));
    make_read_only(l3);
    expect("pae.absent-3", "L3[3] must be present", -XEN_EINVAL, pin(3, l3));
    make_writable(l3);
    l3[3] = make_pte(pte_mfn(top[3]), PTE_P);
    make_read_only(l3);
    expect("pae.same-l2", "and its L2 belongs to no other", -XEN_EINVAL, pin(3, l3));
    make_writable(l3);
    memset(l3, 0xff, PAGE_SIZE);
    memset(l3, 0, 4 * sizeof(pte_t));
    l2[FIRST_SLOT] = make_pte(NO_FRAME, PTE_P);
    make_read_only(l2);
    l3[3] = make_pte(virt_to_mfn(l2), PTE_P);
    make_read_only(l3);
    expect("pae.pin", "with an L2 of its own", 0, pin(3, l3));
    check_true("pae.filled", "that has Xen's entries then",
               l2[FIRST_SLOT] == *pt_walk(MACH2PHYS_VIRT_START, 2));
    check_equal("pae.rest", "and the rest of the L3's page is zeroes", 0,
                l3[4] | l3[ENTRIES - 1]);
    check_equal("pae.rights", "Xen gives its entries rights of their own", PTE_P | PTE_RW | PTE_US,
                l3[3] & ~PTE_FRAME);
    expect("pae.pin-xens-l2", "it is not an L2 like others", -XEN_EINVAL, pin(2, l2));
    check_refused("pae.xens-l2-slots", "its slots are Xen's", -XEN_EPERM, &l2[FIRST_SLOT], 0);
    make_read_only(other);
    check_refused("pae.other-slot-3", "and the pinned L3's last stays too", -XEN_EINVAL, &l3[3],
                  make_pte(virt_to_mfn(other), PTE_P));
    expect("pae.unpin", "unpinned both are pages again", 0, unpin(l3));
    give_back(l3);
    give_back(l2);
    give_back(other);
}
#endif

static void write_word(void *at)
{
    *(volatile word *)at = 0;
}

static void test_m2p(void)
{
    const word *entry = &MACHINE_TO_PHYS[virt_to_mfn(write_word)];
    char text[24];
    struct trap_seen seen;

    check_equal("m2p.read", "the m2p has our number for our frame", virt_to_pfn(write_word), *entry);
    trap_catch(write_word, (void *)entry, &seen);
    trap_describe(text, sizeof(text), seen.regs.vector, seen.regs.error);
    check_text("m2p.write", "and is not written", "#PF(3)", seen.trapped ? text : "no trap");
    expect("m2p.va-mapping", "nor mapped elsewhere there", -XEN_EINVAL,
           hv_update_va_mapping((word)entry, make_pte(virt_to_mfn(write_word), PTE_P), 0));
}

void test_xens_slots(void)
{
    test_slots();
#if PT_LEVELS != 3
    test_filled_in();
#else
    test_third_level();
#endif
    test_m2p();
}
