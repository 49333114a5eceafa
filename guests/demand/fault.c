/*
 * Page faults: a page on first touch, a copy on first write.
 *
 * The tables are read in place, like any memory. What is written goes through Xen: one
 * update_va_mapping, which also forgets the old translation of that one page.
 */
#include "demand.h"

#include "events.h"
#include "hypercall.h"
#include "report.h"
#include "string.h"

#define ERROR_WRITE 2u
#define OWN (PTE_P | PTE_RW | PTE_US | PTE_NX)

struct fault faults[MAX_FAULTS];
unsigned nr_faults;
struct cost cost;

static void install(struct fault *fault, void *page)
{
    fault->installed = make_pte(virt_to_mfn(page), OWN);
    called(hv_update_va_mapping(fault->vaddr & ~(word)(PAGE_SIZE - 1), fault->installed,
                                UVMF_INVLPG),
           "update_va_mapping");
}

static void copy_or_keep(struct fault *fault)
{
    void *shared = page_of_mfn(pte_mfn(fault->before)), *own = shared;

    fault->how = LAST_USER;
    if (page_users(shared) > 1) {
        fault->how = COPIED;
        own = memcpy(page_alloc(), shared, PAGE_SIZE);
        page_put(shared);
    }
    install(fault, own);
}

bool fault_resolve(word vaddr, word ip, word error)
{
    struct fault *fault = &faults[nr_faults++ % MAX_FAULTS];

    *fault = (struct fault){
        .pid = current->pid, .vaddr = vaddr, .ip = ip, .error = error,
    };
    if (vaddr < USER_BASE || vaddr >= DATA_END)
        return false;
    fault->before = *space_entry(&current->space, vaddr);
    if (!(fault->before & PTE_P) && vaddr >= DATA_BASE) {
        fault->how = ZEROED;
        install(fault, page_alloc());
    } else if ((error & ERROR_WRITE) && (fault->before & PTE_COW)) {
        copy_or_keep(fault);
    }
    return fault->how != REFUSED;
}

/* Resolves the fault that a frame is about, and writes down what it cost. */
static bool resolve(word ip, word error, bool is_native)
{
    struct fault *fault = &faults[nr_faults % MAX_FAULTS];
    struct cost before = cost;

    cost.faults++;
    if (!fault_resolve(vcpu_info()->arch.cr2, ip, error))
        return false;
    cost.irets += !is_native;
    fault->cost = cost_since(&before);
    return true;
}

/* Every trap of the kit ends with the iret hypercall. */
static bool on_page_fault(struct regs *regs)
{
    return regs_from_user(regs) && resolve(regs->ip, regs->error, false);
}

void faults_init(void)
{
    trap_set_handler(EXC_PF, on_page_fault);
}

#if !IS_64
extern char native_entry[];

void faults_go_native(void)
{
    struct trap_info table[2] = {
        { .vector = EXC_PF, .flags = TI_DPL(0), .cs = FLAT_KERNEL_CS,
          .address = (word)native_entry },
    };

    called(hv_set_trap_table(table), "set_trap_table");
}

void faults_go_back(void)
{
    trap_set_gate(EXC_PF, TI_DPL(0));
}

/* From native_entry (native.S): the frame is all that it shows. */
void native_fault(word ip, word error)
{
    if (!resolve(ip, error, true))
        panic("page fault at %lx in ring 3, for %lx", ip, vcpu_info()->arch.cr2);
}
#endif
