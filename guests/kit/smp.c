/* Bringing up virtual CPUs, and keeping them from each other. */
#include "smp.h"

#include "hypercall.h"
#include "report.h"
#include "string.h"
#include "time.h"

#define PATIENCE_NS (10 * NSEC_PER_SEC)
#define SPINS 1000 /* before a waiting vCPU gives its turn away */

/* The first word of each stack is the number of the vCPU that runs on it; the boot stack, in
 * entry_*.S, is aligned like these and has 0 there. */
static union {
    unsigned vcpu;
    char bytes[STACK_BYTES];
} stacks[SMP_MAX] __attribute__((aligned(STACK_BYTES)));

static void (*entries[SMP_MAX])(unsigned vcpu);

unsigned smp_vcpu_id(void)
{
    char *here = __builtin_frame_address(0);

    return *(unsigned *)((word)here & ~(word)(STACK_BYTES - 1));
}

unsigned smp_count(void)
{
    unsigned count = 1;

    while (count < SMP_MAX && hv_vcpu_op(VCPUOP_is_up, count, NULL) >= 0)
        count++;
    return count;
}

static word read_cr3(void)
{
    word cr3;

    __asm__ volatile("mov %%cr3, %0" : "=r"(cr3));
    return cr3;
}

/* What every vCPU but the first one executes first. Its traps are its own to set. */
static NORETURN void begin(unsigned vcpu)
{
    traps_init();
    entries[vcpu](vcpu);
    for (;;)
        smp_down(vcpu);
}

/* As a call of begin(vcpu) would have left it: a return address of 0 where backtraces end. */
static void set_registers(struct cpu_user_regs *regs, unsigned vcpu)
{
    word *sp = (word *)(stacks[vcpu].bytes + STACK_BYTES - 64);

#if IS_64
    sp[-1] = 0;
    *regs = (struct cpu_user_regs){
        .rip = (word)begin, .cs = FLAT_KERNEL_CS, .rflags = 0x202,
        .rsp = (word)(sp - 1), .ss = FLAT_KERNEL_SS, .rdi = vcpu,
    };
#else
    sp[-4] = vcpu;
    sp[-5] = 0;
    *regs = (struct cpu_user_regs){
        .eip = (word)begin, .cs = FLAT_KERNEL_CS, .eflags = 0x202,
        .esp = (word)(sp - 5), .ss = FLAT_KERNEL_SS,
        .ds = FLAT_KERNEL_DS, .es = FLAT_KERNEL_DS,
    };
#endif
}

long smp_start(unsigned vcpu, void (*fn)(unsigned vcpu))
{
    static struct vcpu_guest_context context;
    long err;

    memset(&context, 0, sizeof(context));
    context.flags = VGCF_IN_KERNEL;
    context.ctrlreg[3] = read_cr3();
    context.kernel_ss = FLAT_KERNEL_SS;
    context.kernel_sp = (word)(stacks[vcpu].bytes + STACK_BYTES);
    set_registers(&context.user_regs, vcpu);
    stacks[vcpu].vcpu = vcpu;
    entries[vcpu] = fn;
    smp_on = true;
    err = hv_vcpu_op(VCPUOP_initialise, vcpu, &context);
    return err ? err : smp_up(vcpu);
}

long smp_up(unsigned vcpu)
{
    return hv_vcpu_op(VCPUOP_up, vcpu, NULL);
}

long smp_down(unsigned vcpu)
{
    return hv_vcpu_op(VCPUOP_down, vcpu, NULL);
}

bool smp_is_up(unsigned vcpu)
{
    return hv_vcpu_op(VCPUOP_is_up, vcpu, NULL) == 1;
}

void smp_relax(void)
{
    for (unsigned spins = 0; spins < SPINS; spins++)
        __asm__ volatile("pause");
    hv_sched_yield();
}

bool smp_wait(const volatile unsigned *place, unsigned value)
{
    u64 end = system_time() + PATIENCE_NS;

    while (*place != value) {
        if (system_time() > end)
            return false;
        smp_relax();
    }
    return true;
}

static void spin_until(const volatile u32 *place, u32 value)
{
    for (unsigned spins = 1; *place != value; spins++) {
        if (spins % SPINS == 0)
            hv_sched_yield();
        else
            __asm__ volatile("pause");
    }
}

void spin_lock(struct spinlock *lock)
{
    while (__atomic_exchange_n(&lock->taken, 1, __ATOMIC_ACQUIRE))
        spin_until(&lock->taken, 0);
}

void spin_unlock(struct spinlock *lock)
{
    __atomic_store_n(&lock->taken, 0, __ATOMIC_RELEASE);
}

void ticket_lock(struct ticket_lock *lock)
{
    spin_until(&lock->serving, __atomic_fetch_add(&lock->next, 1, __ATOMIC_ACQUIRE));
    barrier();
}

void ticket_unlock(struct ticket_lock *lock)
{
    __atomic_store_n(&lock->serving, lock->serving + 1, __ATOMIC_RELEASE);
}
