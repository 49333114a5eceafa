/*
 * Writable page tables: a plain store to a leaf table faults, and Xen does it for the guest's
 * kernel, checked as mmu_update would check it (ptwr_do_page_fault in Xen's
 * arch/x86/pv/ro-page-fault.c). Whatever instruction stores: what its registers and flags are
 * afterwards is as if it had run.
 */
#include "console.h"
#include "pagetables.h"
#include "stores.h"
#include "traps.h"

/* The natural width's suffix and accumulator. */
#if IS_64
#define W "q"
#define ACC "%%rax"
#else
#define W "l"
#define ACC "%%eax"
#endif

/* Each stores `value`, or what comes of it, at `at`, and gives something for the report. */
#define OP(name) static word name(volatile word *at, word value)

OP(store_mov)
{
    __asm__ volatile("mov %1, %0" : "=m"(*at) : "r"(value));
    return 0;
}

OP(store_mov_immediate)
{
    (void)value;
    __asm__ volatile("mov" W " $0x200, %0" : "=m"(*at));
    return 0;
}

OP(store_xchg)
{
    __asm__ volatile("xchg %0, %1" : "+r"(value), "+m"(*at));
    return value & 0xfff;
}

static word exchanged(volatile word *at, word old, word value)
{
    u8 zf;

    __asm__ volatile("lock cmpxchg %3, %1\n sete %2"
                     : "+a"(old), "+m"(*at), "=q"(zf) : "r"(value));
    return zf << 12 | (old & 0xfff);
}

OP(store_cmpxchg)
{
    return exchanged(at, *at, value);
}

OP(store_cmpxchg_unequal)
{
    return exchanged(at, ~*at, value);
}

#if PT_LEVELS > 2
OP(store_cmpxchg8b)
{
    u32 low = (u32)at[0], high = (u32)((volatile u32 *)at)[1];
    u8 zf;

    __asm__ volatile("lock cmpxchg8b %3\n sete %2"
                     : "+a"(low), "+d"(high), "=q"(zf), "+m"(*(volatile u64 *)at)
                     : "b"((u32)value), "c"((u32)((u64)value >> 32)));
    return zf;
}
#endif

OP(store_or)
{
    __asm__ volatile("lock or" W " %1, %0" : "+m"(*at) : "r"(value & 0xfff));
    return 0;
}

OP(store_and)
{
    __asm__ volatile("and" W " %1, %0" : "+m"(*at) : "r"(~(word)PTE_P));
    (void)value;
    return 0;
}

OP(store_xor)
{
    (void)value;
    __asm__ volatile("xor" W " %1, %0" : "+m"(*at) : "i"(PTE_AVAIL));
    return 0;
}

OP(store_add)
{
    (void)value;
    __asm__ volatile("add" W " %1, %0" : "+m"(*at) : "i"(0x200));
    return 0;
}

OP(store_sub)
{
    (void)value;
    __asm__ volatile("sub" W " %1, %0" : "+m"(*at) : "i"(1));
    return 0;
}

OP(store_inc)
{
    (void)value;
    __asm__ volatile("dec" W " %0\n inc" W " %0" : "+m"(*at));
    return 0;
}

OP(store_xadd)
{
    value = 0x200;
    __asm__ volatile("lock xadd %0, %1" : "+r"(value), "+m"(*at));
    return value & 0xfff;
}

#define BIT_OP(name, insn)                                                                         \
    OP(name)                                                                                       \
    {                                                                                              \
        u8 cf;                                                                                     \
                                                                                                   \
        (void)value;                                                                               \
        __asm__ volatile(insn W " $9, %0\n setc %1" : "+m"(*at), "=q"(cf));                        \
        return cf;                                                                                 \
    }

BIT_OP(store_bts, "lock bts")
BIT_OP(store_btr, "lock btr")
BIT_OP(store_btc, "btc")

OP(store_bts_register)
{
    u8 cf;

    (void)value;
    __asm__ volatile("bts %2, %0\n setc %1" : "+m"(*at), "=q"(cf) : "r"((word)11));
    return cf;
}

OP(store_stos)
{
    volatile word *to = at;

    __asm__ volatile("cld\n stos" W : "+D"(to) : "a"(value) : "memory");
    return to - at;
}

OP(store_rep_stos)
{
    volatile word *to = at;
    word count = 2 * sizeof(pte_t) / sizeof(word);

    (void)value;
    __asm__ volatile("cld\n rep stos" W : "+D"(to), "+c"(count) : "a"((word)0) : "memory");
    return (to - at) << 4 | count;
}

OP(store_movs)
{
    volatile word *to = at;
    word *from = &value;

    __asm__ volatile("cld\n movs" W : "+D"(to), "+S"(from) : : "memory");
    return (word)(to - at) << 4 | (word)(from - &value);
}

OP(store_push)
{
#if IS_64
    __asm__ volatile("mov %%rsp, %%rcx\n lea 8(%0), %%rsp\n push %1\n mov %%rcx, %%rsp"
                     : : "r"(at), "r"(value) : "rcx", "memory");
#else
    __asm__ volatile("mov %%esp, %%ecx\n lea 4(%0), %%esp\n push %1\n mov %%ecx, %%esp"
                     : : "r"(at), "r"(value) : "ecx", "memory");
#endif
    return 0;
}

OP(store_pop)
{
    __asm__ volatile("push %1\n pop" W " (%0)" : : "r"(at), "r"(value) : "memory");
    return 0;
}

OP(store_byte)
{
    (void)value;
    __asm__ volatile("orb $2, 1(%0)" : : "r"(at) : "memory");
    return 0;
}

OP(store_halfword)
{
    __asm__ volatile("movw %w1, (%0)" : : "r"(at), "r"(value) : "memory");
    return 0;
}

OP(store_setne)
{
    (void)value;
    __asm__ volatile("xor %%ecx, %%ecx\n setne (%0)" : : "r"(at) : "ecx", "cc", "memory");
    return 0;
}

#if IS_64
OP(store_movnti)
{
    __asm__ volatile("movnti %1, %0" : "=m"(*at) : "r"(value));
    return 0;
}
#endif

struct store {
    const char *id, *rule;
    word (*op)(volatile word *at, word value);
    pte_t flags; /* of the entry afterwards, where not those of `value` */
    word gives;
};

/* The entry is present and read-only at first, its available bits 001; `value` makes it writable,
 * with available bits 010. */
#define FIRST (PTE_P | 0x200)
#define VALUE (PTE_P | PTE_RW | 0x400)

static void describe(char *text, size_t size, pte_t flags, word gives)
{
    format(text, size, "flags %llx, gives %lx", (unsigned long long)(flags & ~PTE_FRAME), gives);
}

static void check_store(const struct store *s, const pte_t *entry, word mfn)
{
    struct attempt attempt = { .op = s->op, .at = (volatile word *)entry,
                               .value = (word)make_pte(mfn, VALUE) };
    char want[48], got[48];

    if (!check_selected(s->id))
        return;
    set_entry(entry, make_pte(mfn, FIRST));
    set_entry(entry + 1, make_pte(mfn, FIRST));
    describe(want, sizeof(want), s->flags, s->gives);
    if (try_store(&attempt))
        describe(got, sizeof(got), *entry, attempt.result);
    else
        format(got, sizeof(got), "%s", attempt.trap);
    check_text(s->id, s->rule, want, got);
    set_entry(entry, 0);
    set_entry(entry + 1, 0);
}

void test_stores(void)
{
    void *page = fresh_page();
    pte_t first = leaf_flags(FIRST), value = leaf_flags(VALUE);
    word low = (word)first & 0xfff;
    const struct store stores[] = {
        { "store.mov", "mov", store_mov, value, 0 },
        { "store.mov-imm", "mov of a constant, not present", store_mov_immediate, 0x200, 0 },
        { "store.xchg", "xchg gives the old value", store_xchg, value, low },
        { "store.cmpxchg", "cmpxchg that finds what it expects", store_cmpxchg, value,
          0x1000 | low },
        { "store.cmpxchg-not", "and that does not", store_cmpxchg_unequal, first, low },
#if PT_LEVELS > 2
        { "store.cmpxchg8b", "cmpxchg8b", store_cmpxchg8b, value, 1 },
#endif
        { "store.or", "or", store_or, first | VALUE, 0 },
        { "store.and", "and, which takes P away", store_and, first & ~(pte_t)PTE_P, 0 },
        { "store.xor", "xor", store_xor, first ^ PTE_AVAIL, 0 },
        { "store.add", "add", store_add, first + 0x200, 0 },
        { "store.sub", "sub, which takes P away", store_sub, first - 1, 0 },
        { "store.inc", "dec takes P away, inc sets it", store_inc, first, 0 },
        { "store.xadd", "xadd gives the old value", store_xadd, first + 0x200, low },
        { "store.bts", "bts gives the old bit", store_bts, first, 1 },
        { "store.btr", "btr", store_btr, first & ~(pte_t)0x200, 1 },
        { "store.btc", "btc", store_btc, first ^ 0x200, 1 },
        { "store.bts-register", "bts by a register", store_bts_register, first | 0x800, 0 },
        { "store.stos", "stos moves on", store_stos, value, 1 },
        { "store.rep-stos", "rep stos, as often as it says", store_rep_stos, 0,
          2 * sizeof(pte_t) / sizeof(word) << 4 },
        { "store.movs", "movs moves both on", store_movs, value, 0x11 },
        { "store.push", "push", store_push, value, 0 },
        { "store.pop", "pop to memory", store_pop, value, 0 },
        { "store.byte", "a byte of an entry", store_byte, first, 0 },
        { "store.halfword", "two", store_halfword, value, 0 },
        { "store.setne", "setne", store_setne, first & ~(pte_t)0xff, 0 },
#if IS_64
        { "store.movnti", "movnti", store_movnti, value, 0 },
#endif
    };

    hv_vm_assist(VMASST_CMD_enable, VMASST_TYPE_writable_pagetables);
    for (size_t i = 0; i < ARRAY_SIZE(stores); i++)
        check_store(&stores[i], free_entry(1), virt_to_mfn(page));
    give_back(page);
}
