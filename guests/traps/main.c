/*
 * traps: every exception that a PV guest can raise, from the kernel and from user mode, and every
 * other way through the virtual IDT and the callbacks.
 *
 * Each check prints what it saw and the rule it is about. The rules are Intel's for the processor
 * and Xen's public headers for the delivery; where the two leave room, what Xen 4.17 does.
 * Command line: only=PREFIX runs the checks whose id starts so.
 */
#include "case.h"
#include "console.h"
#include "start.h"
#include "user.h"

const char guest_name[] = "traps";

void guest_main(const struct start_info *si)
{
    print("traps: %s\n", WIDTH_NAME);
    check_only_by_option(si);
    user_init();
    test_exceptions();
    test_fpu();
    test_privileged();
    test_soft_interrupts();
    test_page_faults();
    test_segments();
    test_emulated();
    test_events();
    test_nested();
    test_user();
    test_iret();
    test_ports();
    report_and_exit();
}
