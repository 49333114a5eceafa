/*
 * hello: a kernel says where it finds itself.
 *
 * What it prints is what it can see: its width, the selectors in its registers and so its ring, its
 * number among the domains, the Xen below and what that offers. What must be so is checked.
 */
#include "console.h"
#include "events.h"
#include "hypercall.h"
#include "mm.h"
#include "report.h"
#include "start.h"
#include "string.h"
#include "time.h"
#include "xenstore.h"

const char guest_name[] = "hello";

#define SELECTOR(reg)                                                                              \
    ({                                                                                             \
        word value_;                                                                               \
        __asm__("mov %%" reg ", %0" : "=r"(value_));                                               \
        (unsigned)(value_ & 0xffff);                                                               \
    })

static const char *width_text(void)
{
    switch (PT_LEVELS) {
    case 2:
        return "32-bit, two levels of page tables";
    case 3:
        return "32-bit with PAE, three levels of page tables";
    default:
        return "64-bit, four levels of page tables";
    }
}

/*
 * A domain is not told its number, but can find it: a port that it opens for itself to bind to says
 * afterwards, in EVTCHNOP_status, who may bind: DOMID_SELF has become the number.
 */
static int own_domid(void)
{
    struct evtchn_alloc_unbound unbound = { .dom = DOMID_SELF, .remote_dom = DOMID_SELF };
    struct evtchn_status status = { .dom = DOMID_SELF };

    if (hv_event_channel_op(EVTCHNOP_alloc_unbound, &unbound))
        return -1;
    status.port = unbound.port;
    if (hv_event_channel_op(EVTCHNOP_status, &status) || status.status != EVTCHNSTAT_unbound)
        return -1;
    hv_evtchn_close(unbound.port);
    return status.u.unbound.dom;
}

static void say_rings(void)
{
    unsigned cs = SELECTOR("cs"), ss = SELECTOR("ss"), ring = cs & 3;

    print("CS %04x SS %04x DS %04x: ring %u\n", cs, ss, SELECTOR("ds"), ring);
#if IS_64
    print("  A 64-bit kernel cannot be put in ring 1: long mode ignores segment limits, and to\n"
          "  the page tables rings 0 to 2 are one, so ring 1 could write all of Xen. It shares\n"
          "  ring 3 with its programs instead, and a page table of its own keeps them apart.\n");
#else
    print("  Xen is in ring 0, this kernel in ring 1, its programs in ring 3.\n");
#endif
    check_equal("hello.ring", "the ring of a kernel of this width", IS_64 ? 3 : 1, ring);
    check_equal("hello.cs", "on Xen's flat code segment", FLAT_KERNEL_CS, cs);
    check_equal("hello.ss", "and its flat stack segment", FLAT_KERNEL_SS, ss);
}

static void say_domain(const struct start_info *si)
{
    int domid = own_domid();
    char text[64];

    print("domain %d%s, %lu MiB in frames from %lx\n", domid,
          si->flags & SIF_INITDOMAIN ? ", the one that Xen starts" : "",
          (unsigned long)(si->nr_pages >> (20 - PAGE_SHIFT)), (unsigned long)pfn_to_mfn(0));
    if (si->flags & SIF_INITDOMAIN)
        check_equal("hello.domid", "the initial domain is number 0", 0, (u64)domid);
    if (!xenstore_init(si))
        return;
    if (xenstore_read("name", text, sizeof(text)))
        print("xenstore calls it \"%s\"\n", text);
    if (xenstore_read("domid", text, sizeof(text))) {
        char want[16];

        format(want, sizeof(want), "%d", domid);
        check_text("hello.domid", "xenstore and the event channels agree on the number", want,
                   text);
    }
    check_true("hello.no-node", "xenstore has no node that nobody wrote",
               !xenstore_read("no/such/node", text, sizeof(text)));
}

static void say_features(void)
{
    static const char *const names[32] = {
        [XENFEAT_writable_page_tables] = "writable_page_tables",
        [XENFEAT_writable_descriptor_tables] = "writable_descriptor_tables",
        [XENFEAT_auto_translated_physmap] = "auto_translated_physmap",
        [XENFEAT_supervisor_mode_kernel] = "supervisor_mode_kernel",
        [XENFEAT_pae_pgdir_above_4gb] = "pae_pgdir_above_4gb",
        [XENFEAT_mmu_pt_update_preserve_ad] = "mmu_pt_update_preserve_ad",
        [XENFEAT_highmem_assist] = "highmem_assist",
        [XENFEAT_gnttab_map_avail_bits] = "gnttab_map_avail_bits",
        [XENFEAT_dom0] = "dom0",
        [XENFEAT_memory_op_vnode_supported] = "memory_op_vnode_supported",
        [XENFEAT_direct_mapped] = "direct_mapped",
    };
    struct xen_feature_info info = { .submap_idx = 0 };

    check_equal("hello.features", "XENVER_get_features answers", 0,
                (u64)hv_xen_version(XENVER_get_features, &info));
    print("features %x:", info.submap);
    for (unsigned bit = 0; bit < 32; bit++)
        if (info.submap >> bit & 1)
            print(" %s", names[bit] ? names[bit] : "?");
    print("\n");
    check_true("hello.translated", "a PV guest sees machine frames",
               !(info.submap >> XENFEAT_auto_translated_physmap & 1));
}

static void say_xen(void)
{
    struct xen_platform_parameters platform = { .virt_start = 0 };
    xen_extraversion_t extra = "";
    long version = hv_xen_version(XENVER_version, NULL);

    hv_xen_version(XENVER_extraversion, extra);
    hv_xen_version(XENVER_platform_parameters, &platform);
    print("Xen %ld.%ld%s, its memory from %lx up\n", version >> 16, version & 0xffff, extra,
          platform.virt_start);
    check_true("hello.xen", "xen_version is 3 or later", version >> 16 >= 3);
}

static void say_time(void)
{
    u64 now = system_time();
    u32 ns;
    u64 seconds = divide(now, (u32)NSEC_PER_SEC, &ns);

    print("up %llu.%09u s, started %llu s after 1970\n", (unsigned long long)seconds, ns,
          (unsigned long long)boot_time());
    check_true("hello.time", "the clock goes forward", system_time() >= now);
}

void guest_main(const struct start_info *si)
{
    print("hello from " WIDTH_NAME ": %s\n", width_text());
    check_true("hello.magic", "start_info's magic names the width",
               starts_with(si->magic, "xen-3.0-" WIDTH_NAME));
    say_rings();
    say_domain(si);
    say_xen();
    say_features();
    say_time();
    print("command line \"%s\"\n", si->cmd_line);
    report_and_exit();
}
