/*
 * Page faults of the kernel.
 *
 * The error code says why (SDM 3A 4.7): bit 0 the page was present, bit 1 a write, bit 2 user mode,
 * bit 4 a fetch. Xen corrects bit 2 to what the guest calls user mode, because a 64-bit kernel runs
 * in ring 3 (pv_inject_event, arch/x86/pv/traps.c), and leaves the address in vcpu_info.arch.cr2.
 */
#include "case.h"
#include "console.h"
#include "events.h"
#include "hypercall.h"
#include "mm.h"

/* Three pages next to each other: data, read-only, not present; and one of code. */
static char pages[3][PAGE_SIZE] __attribute__((aligned(PAGE_SIZE), used));
static char code_page[2][PAGE_SIZE] __attribute__((aligned(PAGE_SIZE), used));

__asm__(".set pf_data, pages\n .set pf_read_only, pages + 4096\n .set pf_absent, pages + 8192\n"
        ".set pf_code, code_page\n .set pf_code_end, code_page + 4096");

PROVOKE(pf_read, "mov $pf_absent, " AX, "mov 8(" AX "), %ecx");
PROVOKE(pf_write, "mov $pf_absent, " AX, "mov %ecx, 8(" AX ")");
PROVOKE(pf_write_read_only, "mov $pf_read_only, " AX, "mov %ecx, 8(" AX ")");
PROVOKE(pf_modify, "mov $pf_absent, " AX, "incl (" AX ")");
PROVOKE(pf_locked_modify, "mov $pf_absent, " AX, "lock incl (" AX ")");
PROVOKE(pf_cmpxchg_read_only, "mov $pf_read_only, " DX "\n xor %eax, %eax\n xor %ecx, %ecx",
        "lock cmpxchg %ecx, (" DX ")");
PROVOKE(pf_straddle, "mov $pf_absent - 2, " AX, "mov (" AX "), %ecx");
PROVOKE(pf_rep, "mov $pf_read_only - 8, " DI "\n mov $16, %ecx\n cld", "rep stosb");
PROVOKE(pf_null, "xor %eax, %eax", "mov (" AX "), %ecx");

#define PF(stub, code, address, name, text)                                                        \
    { CODE(stub), .id = name, .vector = EXC_PF, .error = code, .cr2 = (word)(address),             \
      .rule = text }

static const struct trap_case cases[] = {
    PF(pf_read, 0, pages[2] + 8, "pf.read", "a read, not present: error 0"),
    PF(pf_write, 2, pages[2] + 8, "pf.write", "a write, not present: W"),
    PF(pf_write_read_only, 3, pages[1] + 8, "pf.write-ro", "a write, read-only: W and P"),
    { CODE(pf_modify), .id = "pf.modify", .vector = EXC_PF, .error = 2, .cr2 = (word)pages[2],
      .quirk = "#PF(0)", .rule = "read-modify-write asks for write at once; emulators read first" },
    { CODE(pf_locked_modify), .id = "pf.locked", .vector = EXC_PF, .error = 2,
      .cr2 = (word)pages[2], .quirk = "#PF(0)", .rule = "and so when locked" },
    PF(pf_cmpxchg_read_only, 3, pages[1], "pf.cmpxchg",
       "cmpxchg writes whatever it finds (SDM 2 CMPXCHG)"),
    PF(pf_straddle, 0, pages[2], "pf.straddle", "across two pages: cr2 is where the second begins"),
    PF(pf_rep, 3, pages[1], "pf.rep", "rep stosb stops at the page it may not write"),
    PF(pf_null, 0, 0, "pf.null", "address 0 is not mapped"),
};

/* The code page's first bytes: what a fetch test jumps to. Its last byte begins an instruction. */
static void fill_code_page(void)
{
    code_page[0][0] = (char)0xc3;                /* ret */
    code_page[0][PAGE_SIZE - 2] = (char)0x90;    /* nop, then */
    code_page[0][PAGE_SIZE - 1] = (char)0xb8;    /* mov $imm32, %eax: four more bytes */
    code_page[1][4] = (char)0xc3;
}

struct fetch {
    const char *id, *rule;
    const char *start; /* where to jump */
    word ip, cr2;
    word error;
};

/* Fetch faults: ip is the instruction that could not be fetched, whole or in part. */
static void check_fetch(const struct fetch *f)
{
    struct trap_seen seen;
    char want[64], got[64];

    if (!check_selected(f->id))
        return;
    provoke(f->start, &seen);
    format(want, sizeof(want), "#PF(%lx) ip %lx cr2 %lx", f->error, f->ip, f->cr2);
    if (seen.trapped)
        format(got, sizeof(got), "#PF(%lx) ip %lx cr2 %lx", seen.regs.error, seen.regs.ip,
               seen.cr2);
    else
        format(got, sizeof(got), "no trap");
    check_text(f->id, f->rule, want, got);
}

/* Bit 4 is only reported where there is an NX bit (SDM 3A 4.7). */
#define FETCH (HAS_NX ? 0x10 : 0)

static void test_fetches(void)
{
    const char *end = code_page[1];
    struct trap_seen seen;

    fill_code_page();
    provoke(code_page[0], &seen);
    check_true("pf.fetch-fine", "the page may be executed at first", !seen.trapped);
    set_l1e((word)code_page[1], 0);
    check_fetch(&(struct fetch){ "pf.fetch", "a fetch, not present", end, (word)end, (word)end,
                                 FETCH });
    check_fetch(&(struct fetch){ "pf.fetch-cross",
                                 "the page ends inside an instruction: ip at it, cr2 behind",
                                 end - 2, (word)end - 1, (word)end, FETCH });
    protect_page(code_page[1], PTE_P | PTE_RW | PTE_NX);
#if HAS_NX
    check_fetch(&(struct fetch){ "pf.fetch-nx", "a fetch, no-execute: I and P", end, (word)end,
                                 (word)end, 0x11 });
    check_fetch(&(struct fetch){ "pf.fetch-nx-cross", "and from an instruction's middle", end - 2,
                                 (word)end - 1, (word)end, 0x11 });
#endif
    protect_page(code_page[1], PTE_P | PTE_RW);
    provoke(end - 2, &seen);
    check_true("pf.fetch-again", "and may be again after it was allowed", !seen.trapped);
}

static void test_side_effects(void)
{
    struct trap_seen seen;
    word cr2;

    provoke(pf_rep, &seen);
    check_equal("pf.rep-count", "8 of 16 bytes were written", 8, seen.regs.cx);
    provoke(pf_read, &seen);
    __asm__ volatile("mov %%cr2, %0" : "=r"(cr2));
    check_equal("pf.mov-cr2", "mov from CR2, emulated, agrees with vcpu_info", seen.cr2, cr2);
}

/* The machine-to-physical table at the bottom of Xen's hole: readable, true, and not writable. */
extern word m2p_of_pages;
word m2p_of_pages;
PROVOKE(m2p_write, "mov m2p_of_pages, " AX, "mov %ecx, (" AX ")");

static void test_m2p(void)
{
    const word *entry = &MACHINE_TO_PHYS[virt_to_mfn(pages)];
    struct trap_case write = {
        CODE(m2p_write), .id = "m2p.write", .vector = EXC_PF, .error = 3, .cr2 = (word)entry,
        .rule = "and cannot be written: W and P",
    };
    struct trap_seen seen;

    m2p_of_pages = (word)entry;
    check_equal("m2p.read", "the m2p has our pfn for our frame", virt_to_pfn(pages), *entry);
    check_trap_case(&write, &seen);
}

void test_page_faults(void)
{
    protect_page(pages[1], PTE_P | PTE_A);
    set_l1e((word)pages[2], 0);
    CHECK_ALL(check_trap_case, cases);
    test_side_effects();
    test_fetches();
    test_m2p();
    protect_page(pages[1], PTE_P | PTE_RW);
    protect_page(pages[2], PTE_P | PTE_RW);
}
