/*
 * pagetables: what a PV guest may do with its memory, and what it may not.
 *
 * The guest owns its page tables, the MMU walks those very tables, and every change is a request
 * that Xen checks. Each check here makes one request, and names the rule by which it is accepted or
 * refused; after a refusal nothing may have changed. The rules are those of Xen 4.17, where the
 * checks run too. Command line: only=PREFIX runs the checks whose id starts so.
 */
#include "console.h"
#include "pagetables.h"
#include "start.h"

const char guest_name[] = "pagetables";

bool is_dom0, is_privileged;
void *const xens = (void *)MACH2PHYS_VIRT_START;

void guest_main(const struct start_info *si)
{
    is_dom0 = si->flags & SIF_INITDOMAIN;
    is_privileged = si->flags & SIF_PRIVILEGED;
    print("pagetables: %s, %s\n", WIDTH_NAME, is_dom0 ? "the initial domain" : "a domain");
    check_only_by_option(si);
    sandbox_init();
    test_bits();
    test_leaves();
    test_tables();
    test_linear();
    test_xens_slots();
    test_updates();
    test_batches();
    test_va_mappings();
    test_pins();
    test_base_pointers();
    test_flushes();
    test_whole_frames();
    test_memory_maps();
    test_reservation();
    test_exchange();
    test_stores();
    test_store_rules();
    test_descriptors();
    test_gdt_and_ldt();
    test_code();
    test_multicalls();
    test_pointers();
    test_nothing_is_left();
    report_and_exit();
}
