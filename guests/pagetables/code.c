/*
 * A page table is memory like other: a guest that can read it can execute it, where nothing forbids
 * that. An entry that is not present may be anything, so it may be code; when it is changed, by
 * whatever way, what is executed next is what stands there now.
 */
#include "pagetables.h"

/* mov $value, %al; ret; nop: a value of four bytes, the first of them even. */
#define CODE(value) ((pte_t)0x90c300b0u | (pte_t)(value) << 8)

static u8 run(const pte_t *entry)
{
    u8 (*code)(void) = (u8(*)(void))(word)entry;

    return code();
}

static void update_many(const pte_t *entry, pte_t value)
{
    static struct mmu_update requests[128];

    for (unsigned i = 0; i < ARRAY_SIZE(requests); i++)
        requests[i] = (struct mmu_update){ .ptr = maddr_of(entry + i), .val = value };
    hv_mmu_update(requests, ARRAY_SIZE(requests), NULL);
}

void test_code(void)
{
    pte_t *table = fresh_page();

    table[0] = CODE(1);
    make_read_only(table);
    check_equal("code.page", "code in a page", 1, run(table));
    pin(1, table);
    check_equal("code.pinned", "is code when it is a page table", 1, run(table));
    update(table, CODE(2));
    check_equal("code.update", "mmu_update changes it", 2, run(table));
    update_many(table, CODE(3));
    check_equal("code.updates", "many at once do", 3, run(table));
    hv_vm_assist(VMASST_CMD_enable, VMASST_TYPE_writable_pagetables);
    *(volatile word *)table = (word)CODE(4);
    check_equal("code.store", "a store does", 4, run(table));
    set_entry(free_entry(2), make_pte(virt_to_mfn(table), PTE_RIGHTS));
    hv_update_va_mapping(((word)SANDBOX >> (PAGE_SHIFT + PT_BITS) << (PAGE_SHIFT + PT_BITS)) +
                             ((word)1 << (PAGE_SHIFT + PT_BITS)),
                         CODE(5), UVMF_NONE);
    check_equal("code.va-mapping", "update_va_mapping does", 5, run(table));
    set_entry(free_entry(2), 0);
    unpin(table);
    check_equal("code.unpinned", "and it stays what it is", 5, run(table));
    extended(MMUEXT_CLEAR_PAGE, virt_to_mfn(table), 0);
    update(table, CODE(6));
    check_equal("code.word", "as a page it is written too", 6, run(table));
    give_back(table);
}
