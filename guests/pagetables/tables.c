/*
 * What an entry above the leaves may name: a table of the level below that the guest cannot write,
 * whose own entries are all right (promote_l1_table to promote_l4_table in Xen's arch/x86/mm.c).
 */
#include "console.h"
#include "pagetables.h"

static pte_t flags_of(int level)
{
    return PT_LEVELS == 3 && level == 3 ? PTE_P : PTE_RIGHTS;
}

static void id_for(char *id, size_t size, int level, const char *what)
{
    format(id, size, "l%d.%s", level, what);
}

static void refuse(int level, const char *what, const char *rule, word mfn)
{
    char id[24];

    id_for(id, sizeof(id), level, what);
    check_refused(id, rule, -XEN_EINVAL, free_entry(level), make_pte(mfn, flags_of(level)));
}

static void accept(int level, const char *what, const char *rule, word mfn)
{
    char id[24];

    id_for(id, sizeof(id), level, what);
    check_accepted(id, rule, table_entry_flags(level, flags_of(level)), free_entry(level),
                   make_pte(mfn, flags_of(level)));
}

static void test_wrong_frames(int level)
{
    void *page = fresh_page();
    pte_t *table = fresh_table();

    refuse(level, "writable", "a page that the guest can write", virt_to_mfn(page));
    refuse(level, "no-frame", "a frame that does not exist", NO_FRAME);
    refuse(level, "top", "the top table, which is of no lower level",
           virt_to_mfn(pt_walk(SANDBOX, PT_LEVELS)));
    accept(level, "empty", "an empty table", virt_to_mfn(table));
    if (level > 2) {
        pin(1, table);
        refuse(level, "too-low", "a table in use as one of another level", virt_to_mfn(table));
        unpin(table);
    }
    give_back(page);
    give_back(table);
}

/* A table is checked entry by entry when it becomes one; a refusal gives back what was taken. */
static void test_contents(int level)
{
    pte_t *table = fresh_page();
    void *page = fresh_page();
    pte_t *below = fresh_table();
    word good = virt_to_mfn(level == 2 ? page : below);
    pte_t rights = level == 2 ? PTE_RIGHTS : flags_of(level - 1);

    table[3] = make_pte(good, rights);
    table[7] = make_pte(good, rights | PTE_PWT);
    make_read_only(table);
    if (level == 2 && is_dom0)
        accept(level, "bad-bit", "a table of which one entry has a reserved bit",
               virt_to_mfn(table));
    else
        refuse(level, "bad-bit", "a table of which one entry has a reserved bit",
               virt_to_mfn(table));
    make_writable(table);
    table[7] = make_pte(NO_FRAME, rights);
    make_read_only(table);
    if (level == 2 && is_dom0)
        accept(level, "bad-frame", "or names a frame that is nobody's", virt_to_mfn(table));
    else if (level == 2)
        check_refused("l2.bad-frame", "or names a frame that is nobody's", -XEN_EPERM,
                      free_entry(2), make_pte(virt_to_mfn(table), PTE_RIGHTS));
    else
        refuse(level, "bad-frame", "or names a frame that is nobody's", virt_to_mfn(table));
    make_writable(table);
    table[7] = 0;
    make_read_only(table);
    accept(level, "good", "with the other entries alone it is accepted", virt_to_mfn(table));
    give_back(table);
    give_back(page);
    give_back(below);
}

/* A leaf of the table that names a table, in the table's own tree or the table itself. */
static void test_self_writing(void)
{
    pte_t *table = fresh_page();

    table[5] = make_pte(virt_to_mfn(table), PTE_P | PTE_RW);
    make_read_only(table);
    check_refused("l2.writes-itself", "a leaf table that maps itself writable", -XEN_EBUSY,
                  free_entry(2), make_pte(virt_to_mfn(table), PTE_RIGHTS));
    make_writable(table);
    table[5] = make_pte(virt_to_mfn(table), PTE_P);
    make_read_only(table);
    accept(2, "reads-itself", "or read-only", virt_to_mfn(table));
    give_back(table);
}

/* One table may serve in many places. */
static void test_shared(void)
{
    pte_t *table = fresh_table();
    const pte_t *entry = free_entry(2);

    set_entry(entry, make_pte(virt_to_mfn(table), PTE_RIGHTS));
    check_accepted("l2.shared", "a table may be named twice", table_entry_flags(2, PTE_RIGHTS),
                   entry + 1, make_pte(virt_to_mfn(table), PTE_RIGHTS));
    check_accepted("l2.read-only", "its rights may change", table_entry_flags(2, PTE_P), entry,
                   make_pte(virt_to_mfn(table), PTE_P));
    set_entry(entry, 0);
    give_back(table);
}

void test_tables(void)
{
    for (int level = 2; level <= PT_LEVELS; level++) {
        test_wrong_frames(level);
        if (!(PT_LEVELS == 3 && level == 3))
            test_contents(level);
    }
    test_self_writing();
    test_shared();
}
