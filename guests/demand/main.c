/*
 * The story: one page fault slowly, then a family of processes, then the same work by three ways of
 * writing page tables, and what each costs in entries into Xen.
 */
#include "demand.h"

#include "console.h"
#include "hypercall.h"
#include "report.h"
#include "start.h"

const char guest_name[] = "demand";

/* What the processor and Xen add to an entry: accessed and dirty, and G for 64-bit user pages. */
#define ADDED (PTE_A | PTE_D | (pte_t)0x100)

static void say_tables(const struct process *process)
{
    const struct space *space = &process->space;

    print("pid %u: an address space of %u tables, its root mfn %lx%s.\n", process->pid,
          space->nr_tables, (unsigned long)virt_to_mfn(space->root),
          IS_64 ? ", and a second root for ring 3" : "");
    print("  They were filled as ordinary memory, made read-only (%u hypercalls) and pinned (1):\n"
          "  then Xen checked every entry. From now on no store of ours can change them.\n",
          space->nr_tables);
}

/* The first fault of all, told step by step. */
static void say_fault(const struct fault *fault, pte_t now)
{
    print("One page fault, from an instruction to the same instruction:\n");
    print("  1 pid %u, in ring 3 at %lx, writes to %lx. The processor walks the tables in cr3,\n"
          "    our own: the L1 entry is %llx, not present.\n",
          fault->pid, (unsigned long)fault->ip, (unsigned long)fault->vaddr,
          (unsigned long long)fault->before);
    print("  2 It raises #PF(%lx), and that leads into Xen, as every trap does: ENTRY 1.\n",
          (unsigned long)fault->error);
    print("  3 Xen has no use for it. It leaves the address in vcpu_info, builds a frame on this\n"
          "    kernel's stack as the processor would, and continues in our handler: a bounce.\n");
    print("  4 The handler takes a zeroed frame, mfn %lx, and asks for the entry %llx by\n"
          "    update_va_mapping: ENTRY 2. Xen checks that the frame is ours and may be written,\n"
          "    counts the use, and writes the entry.\n",
          (unsigned long)pte_mfn(fault->installed), (unsigned long long)fault->installed);
    print("  5 The handler ends with the iret hypercall, which also sets the mask of events: ENTRY 3.\n");
    print("  6 The write is executed again, and done. The entry is %llx now: the processor has\n"
          "    set A and D%s.\n",
          (unsigned long long)now, IS_64 ? ", and Xen had set G: user pages stay in the TLB" : "");
}

static void check_first_fault(const struct fault *fault, pte_t now)
{
    check_equal("fault.error", "ring 3 wrote to what is not present: U and W", 6, fault->error);
    check_equal("fault.vaddr", "at the first page of its data", DATA_BASE, fault->vaddr);
    check_equal("fault.before", "where nothing was mapped", 0, fault->before);
    check_equal("fault.now", "the entry asked for is the entry that is there, but for A D G",
                fault->installed & ~ADDED, now & ~ADDED);
    check_equal("fault.dirty", "the processor has set accessed and dirty", PTE_A | PTE_D,
                now & (PTE_A | PTE_D));
    check_equal("fault.entries", "Xen is entered to deliver, to install, and by iret", 3,
                entries(&fault->cost));
}

static void say_faults(unsigned from)
{
    static const char *const words[] = {
        [REFUSED] = "refused",
        [ZEROED] = "a zeroed frame",
        [COPIED] = "a copy: the frame has other users",
        [LAST_USER] = "no copy: the last user may write",
    };

    for (unsigned i = from; i < nr_faults; i++)
        print("  pid %u #PF(%lx) at %lx: %s\n", faults[i].pid, (unsigned long)faults[i].error,
              (unsigned long)faults[i].vaddr, words[faults[i].how]);
}

static unsigned count_faults(unsigned from, enum how how)
{
    unsigned count = 0;

    for (unsigned i = from; i < nr_faults; i++)
        count += faults[i].how == how;
    return count;
}

/* ---- the acts ---- */

static void one_fault(void)
{
    struct process *process = process_start(toucher, toucher_end);
    const pte_t *entry = space_entry(&process->space, DATA_BASE);

    say_tables(process);
    check_equal("space.empty", "no page of data is mapped at the start", 0, *entry);
    process_run(process);
    say_fault(&faults[0], *entry);
    check_first_fault(&faults[0], *entry);
    processes_run();
    check_equal("fault.each", "one fault for each page touched, and no more", NR_DATA_PAGES,
                nr_faults);
}

/* The paper's count is two: that is how it is when the way back needs no Xen. */
static void two_entries(void)
{
#if IS_64
    print("Why three entries and not two: this kernel shares ring 3 with its processes, and only\n"
          "  another page table keeps them apart. Nobody but Xen can change both, so the way back\n"
          "  is a hypercall. A 32-bit kernel is in ring 1, and may return to ring 3 by itself.\n");
    check_skip("fault.native", "a native iret to ring 3 saves an entry", "32-bit only");
#else
    unsigned from = nr_faults, sum = 0;

    print("Why three entries and not two: this kernel's traps end with the iret hypercall, which\n"
          "  also sets the mask of events. From ring 1 to ring 3 the iret instruction will do when\n"
          "  no event was masked; then a fault costs the two entries of the paper. Once more so:\n");
    faults_go_native();
    process_start(toucher, toucher_end);
    processes_run();
    faults_go_back();
    for (unsigned i = from; i < nr_faults; i++)
        sum += entries(&faults[i].cost);
    print("  %u faults, %u entries\n", nr_faults - from, sum);
    check_equal("fault.native", "deliver and install: two entries a fault (SOSP 2003, 6.2)",
                2 * NR_DATA_PAGES, sum);
#endif
}

static void family_act(void)
{
    unsigned from = nr_faults;

    print("A parent touches three pages and forks; then both write:\n");
    process_start(family, family_end);
    processes_run();
    print("Their faults, in order:\n");
    say_faults(from);
    check_equal("family.zeroed", "each first touch gives a zeroed frame", 3,
                count_faults(from, ZEROED));
    check_equal("family.copied", "a write to a shared page gives a copy", 2,
                count_faults(from, COPIED));
    check_equal("family.kept", "the last user of a page needs none", 1,
                count_faults(from, LAST_USER));
}

static void say_way(const char *name, enum way way, const char *why)
{
    const struct cost *paid = &fork_costs[way];

    print("  %-30s hypercalls %u, trapped stores %u: entries %u\n    %s\n", name, paid->calls,
          paid->stores, entries(paid), why);
}

/* A fork makes all pages of the parent read-only: by which way, decides what that costs. */
static void forks_act(void)
{
    unsigned from = nr_faults;

    forks_init();
    process_start(forker, forker_end);
    processes_run();
    print("Three forks of a parent with %u pages. To take its right to write from it:\n",
          fork_pages[ONE_BY_ONE]);
    say_way("update_va_mapping for each", ONE_BY_ONE,
            "each entry is checked, and its translation forgotten, by a call of its own");
    say_way("mmu_update with all, one flush", ONE_BATCH,
            "every entry is checked just the same, but Xen is entered once for all");
    say_way("plain stores, one flush", PLAIN_STORES,
            "each store faults; Xen decodes it, checks the entry, and does it");
    print("  The child's tables cost no such calls: they were filled as ordinary memory, and\n"
          "  checked when they were pinned. So a kernel batches, and writes before it pins.\n");
    check_equal("fork.pages", "each fork found all pages of its parent present",
                3 * NR_DATA_PAGES,
                fork_pages[ONE_BY_ONE] + fork_pages[ONE_BATCH] + fork_pages[PLAIN_STORES]);
    check_equal("fork.one-by-one", "an entry into Xen for each page", NR_DATA_PAGES,
                entries(&fork_costs[ONE_BY_ONE]));
    check_equal("fork.batch", "one for the batch, one to flush", 2,
                entries(&fork_costs[ONE_BATCH]));
    check_equal("fork.stores", "one for each store, one to flush", NR_DATA_PAGES + 1,
                entries(&fork_costs[PLAIN_STORES]));
    check_equal("fork.works", "after each, every page was read-only: its next write faulted",
                2 * NR_DATA_PAGES, count_faults(from, LAST_USER));
}

static void stray_act(void)
{
    unsigned from = nr_faults;

    print("A process that reads what it was never given:\n");
    process_start(stray, stray_end);
    processes_run();
    check_equal("stray.refused", "the fault is nobody's to resolve: the process ends", 1,
                count_faults(from, REFUSED));
}

void guest_main(const struct start_info *si)
{
    unsigned free = pages_free();

    (void)si;
    trap_set_gate(0x80, TI_DPL(3));
    called(hv_stack_switch(FLAT_KERNEL_SS, (word)user_trap_stack_top), "stack_switch");
    faults_init();
    one_fault();
    two_entries();
    family_act();
    forks_act();
    stray_act();
    print("All processes have ended: %u of %u frames are free.\n", pages_free(), free);
    check_equal("end.frames", "every frame is back, those of page tables too", free, pages_free());
    check_equal("end.writable", "and may be written again, for no table names it", free,
                pages_wiped());
    report_and_exit();
}
