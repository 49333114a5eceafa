/* One request each, and the judgement of the answer. */
#include "console.h"
#include "pagetables.h"
#include "string.h"

u64 maddr_of(const void *vaddr)
{
    return ((u64)virt_to_mfn(vaddr) << PAGE_SHIFT) | ((word)vaddr & (PAGE_SIZE - 1));
}

long update_as(unsigned command, const void *at, u64 value, u32 foreign)
{
    struct mmu_update request = { .ptr = maddr_of(at) | command, .val = value };

    return hv_mmu_update_foreign(&request, 1, NULL, foreign);
}

long update(const pte_t *entry, pte_t value)
{
    return update_as(MMU_NORMAL_PT_UPDATE, entry, value, DOMID_SELF);
}

long extended_foreign(u32 cmd, word arg1, word arg2, u32 foreign)
{
    struct mmuext_op op = { .cmd = cmd, .arg1.mfn = arg1, .arg2.src_mfn = arg2 };

    return hv_mmuext_op_foreign(&op, 1, NULL, foreign);
}

long extended(u32 cmd, word arg1, word arg2)
{
    return extended_foreign(cmd, arg1, arg2, DOMID_SELF);
}

void set_entry(const pte_t *entry, pte_t value)
{
    long err = update(entry, value);

    if (err)
        panic("entry %p cannot be %llx: error %ld", (const void *)entry, (unsigned long long)value,
              err);
}

/* ---- checks ---- */

void expect_by_privilege(const char *id, const char *rule, long want, long want_privileged,
                         long got)
{
    expect(id, rule, is_privileged ? want_privileged : want, got);
}

/* "flags 67" when it was accepted, else "-22, as it was". */
static void describe(char *text, size_t size, long answer, pte_t before, pte_t now)
{
    if (answer == 0)
        format(text, size, "flags %llx", (unsigned long long)(now & ~PTE_FRAME));
    else
        format(text, size, "%ld, %s", answer, now == before ? "as it was" : "changed");
}

static void check(const char *id, const char *rule, const char *want, const pte_t *entry,
                  pte_t value)
{
    pte_t before = *entry;
    char got[40];

    if (!check_selected(id))
        return;
    describe(got, sizeof(got), update(entry, value), before, *entry);
    check_text(id, rule, want, got);
    if (*entry != before)
        set_entry(entry, before);
}

void check_accepted(const char *id, const char *rule, pte_t want_flags, const pte_t *entry,
                    pte_t value)
{
    char want[40];

    describe(want, sizeof(want), 0, 0, want_flags);
    check(id, rule, want, entry, value);
}

void check_refused(const char *id, const char *rule, long want, const pte_t *entry, pte_t value)
{
    char text[40];

    describe(text, sizeof(text), want, 0, 0);
    check(id, rule, text, entry, value);
}

/* A 64-bit kernel is in ring 3, so Xen makes all its leaves user ones. It marks those that the
 * kernel did not, and makes the others global, since they are the same in both of its tables. */
pte_t leaf_flags(pte_t flags)
{
    if (!IS_64)
        return flags;
    if (!(flags & PTE_US))
        return flags | PTE_US | (pte_t)PTE_GUEST_KERNEL;
    return flags & (pte_t)PTE_GUEST_KERNEL ? flags : flags | PTE_G;
}

/* The rights of PAE's third level are for Xen's 64-bit tables; the MMU of PAE has none there. */
pte_t table_entry_flags(int level, pte_t flags)
{
    if (PT_LEVELS == 3 && level == 3)
        return flags | PTE_RW | PTE_US;
    if (IS_64 && level == 4) /* Xen may keep copies, in which it does not look for the A bit */
        flags |= PTE_A;
    return IS_64 ? flags | PTE_US : flags;
}
