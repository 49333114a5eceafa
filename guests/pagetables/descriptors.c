/*
 * One descriptor at a time: nothing that leads to ring 0 (check_descriptor in Xen's
 * arch/x86/pv/descriptor-tables.c). What is too privileged is fixed up where that makes sense. The
 * accessed bit is not compared: the processor may set it at the first use, or Xen before.
 */
#include "console.h"
#include "pagetables.h"

#define ACCESSED (1ull << 40)
#define NOT_ACCEPTED 0xbad /* what stands there when nothing was written */

struct descriptor {
    const char *id, *rule;
    u64 asked, found;
    long answer;
};

#define KERNEL_DPL (IS_64 ? 3ull : 1ull)
#define WITH_DPL(descriptor, dpl) (((descriptor) & ~(3ull << 45)) | (dpl) << 45)
#define CODE (IS_64 ? 0x00af9b000000ffffull : 0x00cf9b000000ffffull)
#define DATA 0x00cf93000000ffffull
#define GATE(selector) (0x00008c0000000000ull | (u64)(selector) << 16)

static const struct descriptor descriptors[] = {
    { "desc.code-0", "code of ring 0 becomes the kernel's", CODE, WITH_DPL(CODE, KERNEL_DPL), 0 },
    { "desc.data-0", "so do data", DATA, WITH_DPL(DATA, KERNEL_DPL), 0 },
    { "desc.data-1", "of ring 1", WITH_DPL(DATA, 1ull), WITH_DPL(DATA, KERNEL_DPL), 0 },
    { "desc.data-3", "those of ring 3 stay", WITH_DPL(DATA, 3ull), WITH_DPL(DATA, 3ull), 0 },
    { "desc.based", "a base and a limit", WITH_DPL(0x12409234567800ffull, 3ull),
      WITH_DPL(0x12409334567800ffull, 3ull), 0 },
    { "desc.null", "nothing", 0, 0, 0 },
    { "desc.absent", "what is not present", 0x0000690000000067ull, 0x0000690000000067ull, 0 },
    { "desc.ldt", "an LDT", 0x0000820000000fffull, NOT_ACCEPTED, -XEN_EINVAL },
    { "desc.tss", "a task state segment", 0x0000890000000067ull, NOT_ACCEPTED, -XEN_EINVAL },
    { "desc.tss-busy", "a busy one", 0x00008b0000000067ull, NOT_ACCEPTED, -XEN_EINVAL },
    { "desc.task-gate", "a task gate", 0x0000850000080000ull, NOT_ACCEPTED, -XEN_EINVAL },
    { "desc.interrupt-gate", "an interrupt gate", 0x0000ee0000080000ull, NOT_ACCEPTED,
      -XEN_EINVAL },
    { "desc.trap-gate", "a trap gate", 0x0000ef0000080000ull, NOT_ACCEPTED, -XEN_EINVAL },
    { "desc.gate-xens", "a call gate to Xen's code", GATE(0xe008), NOT_ACCEPTED, -XEN_EINVAL },
    { "desc.gate-reserved", "one with reserved bits", GATE(8) | 0x80ull << 32, NOT_ACCEPTED,
      -XEN_EINVAL },
    { "desc.gate", "one to the guest's own: DPL 0, so that its use traps; the ring in the selector",
      WITH_DPL(GATE(0x08), 3ull), GATE(0x0b), 0 },
    { "desc.gate-0", "from ring 0, which is the kernel's", GATE(0x08),
      GATE(0x08 | (IS_64 ? 3 : 1)), 0 },
#if IS_64
    { "desc.gate-kernel", "to the flat code of the kernel", WITH_DPL(GATE(0xe033), 3ull),
      GATE(0xe033), 0 },
#else
    { "desc.gate-16", "a 16-bit one", 0x0000840000080000ull, NOT_ACCEPTED, -XEN_EINVAL },
    { "desc.code-64", "64-bit code", 0x00af9b000000ffffull, NOT_ACCEPTED, -XEN_EINVAL },
#endif
};

static void describe(char *text, size_t size, long answer, u64 descriptor)
{
    if (descriptor & 1ull << 44) /* a segment, not a gate */
        descriptor |= ACCESSED;
    format(text, size, "%ld, %llx", answer, (unsigned long long)descriptor);
}

void test_descriptors(void)
{
    u64 *page = fresh_page();
    u64 maddr = maddr_of(page);

    for (size_t i = 0; i < ARRAY_SIZE(descriptors); i++) {
        const struct descriptor *d = &descriptors[i];
        char want[40], got[40];
        long err;

        page[i] = NOT_ACCEPTED;
        err = hv_update_descriptor(maddr + 8 * i, d->asked);
        describe(want, sizeof(want), d->answer, d->found);
        describe(got, sizeof(got), err, page[i]);
        check_text(d->id, d->rule, want, got);
    }
    expect("desc.unaligned", "not at a descriptor's place", -XEN_EINVAL,
           hv_update_descriptor(maddr + 4, 0));
    expect("desc.no-frame", "in a frame that does not exist", -XEN_EINVAL,
           hv_update_descriptor((u64)NO_FRAME << PAGE_SHIFT, 0));
    expect("desc.page-table", "in a page table", -XEN_EINVAL,
           hv_update_descriptor(maddr_of(free_entry(1)), 0));
    give_back(page);
}
