/* CLEAR_PAGE and COPY_PAGE: frames, whether mapped or not; never tables (do_mmuext_op). */
#include "pagetables.h"
#include "string.h"

void test_whole_frames(void)
{
    char *from = fresh_page(), *to = fresh_page();
    pte_t *table = fresh_table();

    memset(from, 0x5a, PAGE_SIZE);
    expect("copy.fine", "a frame into another", 0,
           extended(MMUEXT_COPY_PAGE, virt_to_mfn(to), virt_to_mfn(from)));
    check_true("copy.done", "is all there", !memcmp(from, to, PAGE_SIZE));
    expect("copy.no-from", "from nowhere", -XEN_EINVAL,
           extended(MMUEXT_COPY_PAGE, virt_to_mfn(to), NO_FRAME));
    expect("copy.no-to", "to nowhere", -XEN_EINVAL,
           extended(MMUEXT_COPY_PAGE, NO_FRAME, virt_to_mfn(from)));
    expect("clear.fine", "a frame cleared", 0, extended(MMUEXT_CLEAR_PAGE, virt_to_mfn(to), 0));
    check_true("clear.done", "is all zeroes", to[0] == 0 && !memcmp(to, to + 1, PAGE_SIZE - 1));
    expect("clear.nowhere", "one that does not exist", -XEN_EINVAL,
           extended(MMUEXT_CLEAR_PAGE, NO_FRAME, 0));
    pin(1, table);
    expect("clear.table", "a table", -XEN_EINVAL,
           extended(MMUEXT_CLEAR_PAGE, virt_to_mfn(table), 0));
    expect("copy.onto-table", "or onto one", -XEN_EINVAL,
           extended(MMUEXT_COPY_PAGE, virt_to_mfn(table), virt_to_mfn(from)));
    expect("copy.of-table", "though a table may be copied", 0,
           extended(MMUEXT_COPY_PAGE, virt_to_mfn(to), virt_to_mfn(table)));
    expect("clear.in-use", "the table in use", -XEN_EINVAL,
           extended(MMUEXT_CLEAR_PAGE, virt_to_mfn(pt_walk(0, PT_LEVELS)), 0));
    unpin(table);
    expect("clear.unpinned", "which unpinned is a page", 0,
           extended(MMUEXT_CLEAR_PAGE, virt_to_mfn(table), 0));
    give_back(from);
    give_back(to);
    give_back(table);
}
