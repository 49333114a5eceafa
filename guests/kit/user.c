/* Ring 3 and back. */
#include "user.h"

#include "hypercall.h"
#include "mm.h"
#include "report.h"
#include "string.h"

static char trap_stack[4 * PAGE_SIZE] __attribute__((aligned(PAGE_SIZE)));
char *const user_trap_stack_top = trap_stack + sizeof(trap_stack);

static char *user_code;
word *user_data;

void user_init(void)
{
    long err;

    user_code = alloc_page();
    user_data = alloc_page();
    map_page(USER_CODE, virt_to_mfn(user_code), PTE_P | PTE_US | PTE_A);
    map_page(USER_DATA, virt_to_mfn(user_data), PTE_P | PTE_RW | PTE_US | PTE_A | PTE_D | PTE_NX);
    map_page(USER_STACK, virt_to_mfn(alloc_page()),
             PTE_P | PTE_RW | PTE_US | PTE_A | PTE_D | PTE_NX);
#if IS_64
    make_user_table(USER_BASE);
#endif
    err = hv_stack_switch(FLAT_KERNEL_SS, (word)user_trap_stack_top);
    if (err)
        panic("stack_switch: error %ld", err);
}

void user_load(const char *start, const char *end, struct regs *regs)
{
    memcpy(user_code, start, (size_t)(end - start));
    *regs = (struct regs){
        .ip = USER_CODE,
        .cs = FLAT_USER_CS,
        .flags = FLAG_IF | 0x2,
        .sp = USER_STACK_TOP,
        .ss = FLAT_USER_SS,
#if !IS_64
        .ds = FLAT_USER_DS,
        .es = FLAT_USER_DS,
#endif
    };
}

static void resume(void *regs)
{
    regs_resume(regs);
}

void user_continue(struct regs *regs, struct trap_seen *seen)
{
    /* regs_resume eats the structure that it loads. */
    struct regs copy = *regs;

    trap_catch(resume, &copy, seen);
}
