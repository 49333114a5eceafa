/*
 * refusals: hypercalls that are wrong in one respect each, and the error that Xen answers with.
 *
 * What an error number is for is nowhere written down, and kernels depend on it: Linux asks for
 * ports and timers until it is told ENOSYS, counts vCPUs until ENOENT. So the rule of each check
 * is what Xen 4.17 does, and the checks run on it as well as here.
 */
#include "refusals.h"

#include "console.h"
#include "mm.h"
#include "start.h"

const char guest_name[] = "refusals";

bool is_dom0;
void *const xens = (void *)MACH2PHYS_VIRT_START;

long hypercall(unsigned nr, word a1, word a2, word a3)
{
    HYPERCALL_REGS(a1, a2, a3, 0, 0);
    long ret = (long)(hypercall_page + nr * HYPERCALL_SLOT_SIZE);

    __asm__ volatile("call *%0"
                     : "+a"(ret), "+r"(r1), "+r"(r2), "+r"(r3), "+r"(r4), "+r"(r5)
                     :
                     : HYPERCALL_CLOBBER);
    return ret;
}

void guest_main(const struct start_info *si)
{
    is_dom0 = si->flags & SIF_INITDOMAIN;
    print("refusals: %s, %s\n", WIDTH_NAME, is_dom0 ? "the initial domain" : "a domain");
    test_event_channels();
    test_scheduling();
    test_vcpus();
    test_entry_points();
    test_cpu_state();
    test_devices();
    test_numbers();
    report_and_exit();
}
