/*
 * The null system call: out of ring 3 into a handler that does nothing but return, count times.
 *
 * "direct" takes the way that Xen is not on: int 0x80 through the kernel's own gate, and the
 * processor's iret. Only 32-bit kernels have it. "bounced" goes through Xen twice: int 0x81, or
 * syscall on 64 bits, and the iret hypercall.
 */
#include "bench.h"

#include "hypercall.h"
#include "report.h"
#include "user.h"
#include "xen/numbers.h"

#define USER_LOOP(name, instruction, counter)                                                      \
    __asm__(".pushsection .text.user, \"ax\"\n" #name ":\n 1: " instruction "\n dec " counter      \
            "\n jnz 1b\n ud2\n" #name "_end:\n.popsection");                                       \
    extern const char name[], name##_end[]

#define TEXT_(x) #x
#define TEXT(x) TEXT_(x)
#define HYPERCALL_IRET                                                                             \
    "jmp hypercall_page + " TEXT(__HYPERVISOR_iret) " * " TEXT(HYPERCALL_SLOT_SIZE) "\n"

extern char bounced_handler[], direct_handler[];

#if IS_64
USER_LOOP(bounced_user, "syscall", "%rbx");
/* rsp -> rcx, r11, rip, cs, rflags, rsp, ss; the stub pushes rcx, r11 and rax below the flags. */
__asm__("bounced_handler:\n pop %rcx\n pop %r11\n push $0\n" HYPERCALL_IRET);
#else
USER_LOOP(direct_user, "int $0x80", "%ebx");
USER_LOOP(bounced_user, "int $0x81", "%ebx");
/* esp -> eip, cs, eflags, esp, ss; the stub pushes eax. */
__asm__("bounced_handler:\n" HYPERCALL_IRET "direct_handler: iret\n");
#endif

static void run_user(const char *start, const char *end, u64 count)
{
    struct trap_seen seen;
    struct regs regs;

    user_load(start, end, &regs);
    regs.bx = (word)count;
    user_continue(&regs, &seen);
    if (seen.regs.vector != EXC_UD || seen.regs.bx)
        panic("the user loop ended by vector %lu with %lu to go", seen.regs.vector, seen.regs.bx);
}

#if IS_64
static void enter_by_syscall(void *handler)
{
    struct callback_register reg = { .type = CALLBACKTYPE_syscall, .address = (word)handler };

    hv_callback_register(&reg);
}

void bounced_loop(u64 count)
{
    enter_by_syscall(bounced_handler);
    run_user(bounced_user, bounced_user_end, count);
    enter_by_syscall(syscall_entry);
}
#else
static void set_handler(u8 vector, void *handler)
{
    struct trap_info table[] = {
        { .vector = vector, .flags = TI_DPL(3), .cs = FLAT_KERNEL_CS, .address = (word)handler },
        { .address = 0 },
    };

    hv_set_trap_table(table);
}

void bounced_loop(u64 count)
{
    set_handler(0x81, bounced_handler);
    run_user(bounced_user, bounced_user_end, count);
}

void direct_loop(u64 count)
{
    set_handler(0x80, direct_handler);
    run_user(direct_user, direct_user_end, count);
}
#endif
