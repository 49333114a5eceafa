/*
 * Segments: a GDT of our own, and what loading from it may do (SDM 3A 3.4, 6.15).
 *
 * set_gdt takes the frames; a frame in use as a descriptor table may not be mapped writable, and
 * Xen checks every descriptor in it (check_descriptor, arch/x86/pv/descriptor-tables.c). The error
 * code of a refused load is the selector without its RPL.
 */
#include "case.h"
#include "hypercall.h"
#include "mm.h"
#include "time.h"

#define RPL (IS_64 ? 3 : 1) /* the ring that the kernel really runs in, and its descriptors' DPL */
#define SELECTOR(index) ((index) * 8 + RPL)

/* Descriptors: flat, accessed already (the table is read-only, the processor could not set it). */
#define DESCRIPTOR(high) (((u64)(high) << 32) | 0xffff)
#define DPL_BITS (RPL << 13)

enum { FLAT = 1, ABSENT, READ_ONLY, EXECUTE_ONLY, CHANGING, NR_DESCRIPTORS };

static const u64 descriptors[NR_DESCRIPTORS] = {
    [FLAT] = DESCRIPTOR(0x00cf9300 | DPL_BITS),
    [ABSENT] = DESCRIPTOR(0x00cf1300 | DPL_BITS),
    [READ_ONLY] = DESCRIPTOR(0x00cf9100 | DPL_BITS),
    [EXECUTE_ONLY] = DESCRIPTOR((IS_64 ? 0x00af9900 : 0x00cf9900) | DPL_BITS),
    [CHANGING] = DESCRIPTOR(0x00cf1300 | DPL_BITS),
};

/* The selector to load, for the code below. */
extern word selector;
word selector;
PROVOKE(load_es, "mov selector, %eax", "mov %eax, %es");
PROVOKE(load_ds, "mov selector, %eax", "mov %eax, %ds");
PROVOKE(load_fs, "mov selector, %eax", "mov %eax, %fs");
PROVOKE(load_ss, "mov selector, %eax\n mov %ss, %ecx", "mov %eax, %ss\n mov %ecx, %ss");
PROVOKE(reload_ss, "mov %ss, %eax", "mov %eax, %ss");
struct load {
    const char *id, *rule;
    word selector;
    word vector; /* 0: allowed */
    const char *start, *at, *end, *stop;
    const char *quirk;
};

static const struct load loads[] = {
    { "seg.flat", "a data segment of our own", SELECTOR(FLAT), 0, CODE(load_es) },
    { "seg.null", "a null selector may be loaded, not used", 0, 0, CODE(load_fs) },
    { "seg.read-only", "a read-only one in FS", SELECTOR(READ_ONLY), 0, CODE(load_fs) },
    { "np.es", "a segment not present: #NP(selector)", SELECTOR(ABSENT), EXC_NP, CODE(load_es) },
    { "np.ds", "in DS", SELECTOR(ABSENT), EXC_NP, CODE(load_ds) },
    { "ss.absent", "in SS it is #SS(selector)", SELECTOR(ABSENT), EXC_SS, CODE(load_ss) },
    { "ss.reload", "SS from the start may be loaded again", 0, 0, CODE(reload_ss) },
    /* A hypervisor that really has its 64-bit kernels in ring 1, for the sake of the TLB, cannot see
     * this one: outside ring 3 long mode takes a null SS. */
    { "gp.ss-null", "SS must not be null", 0, EXC_GP, CODE(load_ss),
      .quirk = IS_64 ? "no trap" : NULL },
    { "gp.ss-read-only", "and must be writable", SELECTOR(READ_ONLY), EXC_GP, CODE(load_ss) },
    { "gp.ds-execute-only", "code that cannot be read is no data", SELECTOR(EXECUTE_ONLY), EXC_GP,
      CODE(load_ds) },
    { "gp.ds-empty", "an empty descriptor", SELECTOR(100), EXC_GP, CODE(load_ds) },
    { "gp.ds-beyond", "beyond the limit of the GDT", 0xfff8 | RPL, EXC_GP, CODE(load_ds) },
    { "gp.ds-ldt", "in the LDT, without one", 0x0c | RPL, EXC_GP, CODE(load_ds) },
};

static void check_load(const struct load *l)
{
    struct trap_case c = {
        .id = l->id, .rule = l->rule, .start = l->start, .at = l->at, .end = l->end,
        .vector = l->vector, .error = l->selector & ~3ul, .nothing = !l->vector,
        .quirk = l->quirk,
    };
    struct trap_seen seen;

    selector = l->selector;
    check_trap_case(&c, &seen);
}

/* update_descriptor writes one entry of the live table. */
static void test_update_descriptor(u64 table_maddr)
{
    static const struct load before = { "np.changing", "not present yet", SELECTOR(CHANGING),
                                        EXC_NP, CODE(load_es) };
    static const struct load after = { "seg.changed", "and loads after update_descriptor",
                                       SELECTOR(CHANGING), 0, CODE(load_es) };

    check_load(&before);
    check_equal("seg.update", "update_descriptor is allowed", 0,
                (u64)hv_update_descriptor(table_maddr + CHANGING * 8, descriptors[FLAT]));
    check_load(&after);
    check_equal("seg.gate", "a gate to ring 0 is refused", (u64)-XEN_EINVAL,
                (u64)hv_update_descriptor(table_maddr + CHANGING * 8, 0x00008e0000080000));
}

/* An LDT is a page that may be read only, named by its address; Xen looks at its descriptors when
 * they are first used (MMUEXT_SET_LDT, public/xen.h). */
#define LDT_SELECTOR(index) (SELECTOR(index) | 4)

static long set_ldt(const void *table, u32 entries)
{
    struct mmuext_op op = {
        .cmd = MMUEXT_SET_LDT, .arg1.linear_addr = (word)table, .arg2.nr_ents = entries,
    };

    return hv_mmuext_op(&op, 1, NULL);
}

static void test_ldt(void)
{
    static const struct load loads_ldt[] = {
        { "ldt.flat", "a data segment in the LDT", LDT_SELECTOR(FLAT), 0, CODE(load_fs) },
        { "ldt.absent", "one not present: #NP(selector), with its TI bit", LDT_SELECTOR(ABSENT),
          EXC_NP, CODE(load_es) },
        { "ldt.beyond", "beyond its limit: #GP(selector)", LDT_SELECTOR(NR_DESCRIPTORS), EXC_GP,
          CODE(load_es) },
    };
    static const struct load gone = { "ldt.gone", "no LDT again", LDT_SELECTOR(FLAT), EXC_GP,
                                      CODE(load_es) };
    u64 *table = alloc_page();

    for (unsigned i = 0; i < NR_DESCRIPTORS; i++)
        table[i] = descriptors[i];
    protect_page(table, PTE_P | PTE_A);
    check_equal("ldt.set", "MMUEXT_SET_LDT takes a page mapped read-only", 0,
                (u64)set_ldt(table, NR_DESCRIPTORS));
    for (size_t i = 0; i < ARRAY_SIZE(loads_ldt); i++)
        check_load(&loads_ldt[i]);
    __asm__ volatile("mov %0, %%fs" ::"r"(0));
    check_equal("ldt.unset", "no entries: no LDT", 0, (u64)set_ldt(NULL, 0));
    check_load(&gone);
}

/*
 * The failsafe callback: FS holds a segment that is then made absent. A Xen that reloads FS when
 * it comes back to this vCPU cannot, loads null instead and says so (public/arch-x86/xen.h); one
 * that has run nobody else in between, or never lets go of the register, has nothing to say.
 */
static unsigned failsafes;

static bool on_failsafe(struct regs *regs)
{
    (void)regs;
    failsafes++;
    return true;
}

static void test_failsafe(u64 table_maddr)
{
    static const char id[] = "failsafe.fs", rule[] = "FS cannot be reloaded: the failsafe callback";
    struct sched_poll poll = { .timeout = system_time() + NSEC_PER_MSEC };
    word fs;

    trap_set_handler(VECTOR_FAILSAFE, on_failsafe);
    hv_update_descriptor(table_maddr + CHANGING * 8, descriptors[FLAT]);
    __asm__ volatile("mov %0, %%fs" ::"r"(SELECTOR(CHANGING)));
    hv_update_descriptor(table_maddr + CHANGING * 8, descriptors[ABSENT]);
    hv_sched_poll(&poll);
    __asm__ volatile("mov %%fs, %0" : "=r"(fs));
    trap_set_handler(VECTOR_FAILSAFE, NULL);
    if ((fs & 0xffff) == SELECTOR(CHANGING))
        check_skip(id, rule, "FS was not reloaded");
    else
        check_equal(id, rule, 1, failsafes);
    if (failsafes)
        check_equal("failsafe.frame", "whose frame has the selector", SELECTOR(CHANGING),
                    failsafe_selectors[2]);
}

static void clear_data_segments(void)
{
    __asm__ volatile("mov %0, %%fs\n mov %0, %%es\n mov %1, %%es\n mov %1, %%ds" ::"r"(0),
                     "r"(FLAT_KERNEL_DS));
}

void test_segments(void)
{
    u64 *table = alloc_page();
    word mfn = virt_to_mfn(table);

    for (unsigned i = 0; i < NR_DESCRIPTORS; i++)
        table[i] = descriptors[i];
    check_equal("seg.gdt-writable", "a page mapped writable cannot become a GDT", (u64)-XEN_EINVAL,
                (u64)hv_set_gdt(&mfn, 512));
    protect_page(table, PTE_P | PTE_A);
    check_equal("seg.set-gdt", "a read-only one can", 0, (u64)hv_set_gdt(&mfn, 512));
    for (size_t i = 0; i < ARRAY_SIZE(loads); i++)
        check_load(&loads[i]);
    test_update_descriptor((u64)mfn << PAGE_SHIFT);
    test_ldt();
    test_failsafe((u64)mfn << PAGE_SHIFT);
    clear_data_segments();
}
