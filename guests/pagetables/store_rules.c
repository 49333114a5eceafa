/*
 * Stores that Xen does not do for the guest: the guest sees its page fault, and nothing changed.
 * Only leaf tables, only naturally aligned, only what mmu_update would accept, and only while
 * vm_assist says so.
 */
#include "stores.h"

#include "console.h"
#include "pagetables.h"
#include "traps.h"

static void run(void *arg)
{
    struct attempt *attempt = arg;

    attempt->result = attempt->op(attempt->at, attempt->value);
}

bool try_store(struct attempt *attempt)
{
    struct trap_seen seen;
    char what[16];

    trap_catch(run, attempt, &seen);
    if (!seen.trapped)
        return true;
    trap_describe(what, sizeof(what), seen.regs.vector, seen.regs.error);
    format(attempt->trap, sizeof(attempt->trap), "%s at +%ld", what,
           (long)(seen.cr2 - (word)attempt->at));
    return false;
}

static word mov(volatile word *at, word value)
{
    *at = value;
    return 0;
}

static word mov_unaligned(volatile word *at, word value)
{
    (void)value;
    __asm__ volatile("movl $0, 1(%0)" : : "r"(at) : "memory");
    return 0;
}

static word mov_within_halves(volatile word *at, word value)
{
    (void)value;
    __asm__ volatile("movw $0, 1(%0)" : : "r"(at) : "memory");
    return 0;
}

#if IS_64
static word cmpxchg16b(volatile word *at, word value)
{
    word low = at[0], high = at[1];

    __asm__ volatile("lock cmpxchg16b %2"
                     : "+a"(low), "+d"(high), "+m"(*(volatile unsigned __int128 *)at)
                     : "b"(value), "c"(value));
    return 0;
}
#endif

static void check(const char *id, const char *rule, const char *want, struct attempt attempt)
{
    pte_t before = *(volatile pte_t *)attempt.at;
    bool is_done;

    if (!check_selected(id))
        return;
    is_done = try_store(&attempt);
    if (!is_done && *(volatile pte_t *)attempt.at != before)
        panic("%s: refused, but the entry has changed", id);
    check_text(id, rule, want, is_done ? "done" : attempt.trap);
    if (is_done)
        set_entry((const pte_t *)attempt.at, before);
}

#define STORE(function, entry, what)                                                               \
    (struct attempt){ .op = function, .at = (volatile word *)(entry), .value = (word)(what) }

static void test_values(const pte_t *leaf, word mfn)
{
    check("rules.fine", "a page of one's own", "done", STORE(mov, leaf, make_pte(mfn, PTE_P)));
    check("rules.table", "a table, writable", "#PF(3) at +0",
          STORE(mov, leaf, make_pte(virt_to_mfn(leaf), PTE_P | PTE_RW)));
    check("rules.table-read-only", "or read-only", "done",
          STORE(mov, leaf, make_pte(virt_to_mfn(leaf), PTE_P)));
    check("rules.bits", "a reserved bit", is_dom0 ? "done" : "#PF(3) at +0",
          STORE(mov, leaf, make_pte(mfn, PTE_P | PTE_PCD)));
    check("rules.no-frame", "a frame that is nobody's", is_dom0 ? "done" : "#PF(3) at +0",
          STORE(mov, leaf, make_pte(NO_FRAME, PTE_P)));
    check("rules.absent", "what is not present may be anything", "done",
          STORE(mov, leaf, make_pte(NO_FRAME, PTE_PCD)));
}

static void test_places(const pte_t *leaf, word mfn)
{
    pte_t *table = fresh_table(), *page = fresh_table();
    word zero = 0;

    check("rules.unaligned", "a store that is not aligned", "#PF(3) at +1",
          STORE(mov_unaligned, leaf, zero));
    check("rules.unaligned-2", "of two bytes", "#PF(3) at +1",
          STORE(mov_within_halves, leaf, zero));
#if IS_64
    check("rules.cmpxchg16b", "one of two entries at once", "#PF(3) at +0",
          STORE(cmpxchg16b, leaf + 1, zero));
#endif
    check("rules.level-2", "a table above the leaves", "#PF(3) at +0",
          STORE(mov, free_entry(2), make_pte(virt_to_mfn(table), PTE_RIGHTS)));
    check("rules.top", "or the top one", "#PF(3) at +0",
          STORE(mov, free_entry(PT_LEVELS), make_pte(virt_to_mfn(table), PTE_P)));
    check("rules.page", "a page that is read-only and no table", "#PF(3) at +0",
          STORE(mov, page, make_pte(mfn, PTE_P)));
    pin(1, table);
    check("rules.pinned", "a leaf table that is only pinned", "done",
          STORE(mov, table, make_pte(mfn, PTE_P)));
    unpin(table);
    check("rules.unpinned", "and is none any more", "#PF(3) at +0",
          STORE(mov, table, make_pte(mfn, PTE_P)));
    give_back(table);
    give_back(page);
}

static void test_assist(const pte_t *leaf, word mfn)
{
    expect("assist.disable", "vm_assist may be switched off", 0,
           hv_vm_assist(VMASST_CMD_disable, VMASST_TYPE_writable_pagetables));
    check("assist.off", "then no store is done, but for the hardware domain",
          is_dom0 ? "done" : "#PF(3) at +0",
          STORE(mov, leaf, make_pte(mfn, PTE_P)));
    expect("assist.enable", "and on", 0,
           hv_vm_assist(VMASST_CMD_enable, VMASST_TYPE_writable_pagetables));
    check("assist.on", "then it is", "done", STORE(mov, leaf, make_pte(mfn, PTE_P)));
    expect("assist.unknown", "an assist that does not exist", -XEN_EINVAL,
           hv_vm_assist(VMASST_CMD_enable, 20));
    expect("assist.command", "a command that does not exist", -XEN_ENOSYS,
           hv_vm_assist(7, VMASST_TYPE_writable_pagetables));
}

#if PT_LEVELS == 3
/* A 32-bit kernel writes an entry by halves, the upper first when it makes it present, the lower
 * first when it takes it away; Xen lets the upper one wait without P. */
static void test_halves(const pte_t *leaf, word mfn)
{
    volatile word *halves = (volatile word *)leaf;

    set_entry(leaf, make_pte(mfn, PTE_P));
    halves[1] = 0x7;
    check_equal("halves.upper", "an upper half that makes a bad frame: P is taken away", 0,
                leaf[0] & PTE_P);
    check_equal("halves.kept", "the half is there", 0x7, halves[1]);
    halves[1] = 0;
    halves[0] = (word)make_pte(mfn, PTE_P | PTE_RW);
    check_equal("halves.lower", "then the right one, then the lower half", PTE_P | PTE_RW,
                leaf[0] & ~PTE_FRAME);
    set_entry(leaf, 0);
}
#endif

void test_store_rules(void)
{
    const pte_t *leaf = free_entry(1);
    void *page = fresh_page();

    test_values(leaf, virt_to_mfn(page));
    test_places(leaf, virt_to_mfn(page));
    test_assist(leaf, virt_to_mfn(page));
#if PT_LEVELS == 3
    test_halves(leaf, virt_to_mfn(page));
#endif
    give_back(page);
}
