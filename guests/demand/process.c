/* Processes: one after the other, each until its next system call. */
#include "demand.h"

#include "console.h"
#include "events.h"
#include "hypercall.h"
#include "report.h"
#include "string.h"

#define MAX_PROCESSES 4

static struct process processes[MAX_PROCESSES];
static unsigned last_pid;
struct process *current;

static struct process *new_process(void)
{
    for (unsigned i = 0; i < MAX_PROCESSES; i++)
        if (!processes[i].pid) {
            processes[i].pid = ++last_pid;
            return &processes[i];
        }
    panic("all %d processes are used", MAX_PROCESSES);
}

struct process *process_start(const char *program, const char *end)
{
    struct process *process = new_process();
    void *code = memcpy(page_alloc(), program, (size_t)(end - program));

    space_fill(&process->space);
    *space_entry(&process->space, USER_CODE) = make_pte(virt_to_mfn(code), PTE_P | PTE_US | PTE_A);
    space_seal(&process->space);
    process->regs = (struct regs){
        .ip = USER_CODE,
        .cs = FLAT_USER_CS,
        .flags = FLAG_IF | 0x2,
        .sp = DATA_END,
        .ss = FLAT_USER_SS,
#if !IS_64
        .ds = FLAT_USER_DS,
        .es = FLAT_USER_DS,
#endif
    };
    return process;
}

static void end(struct process *process)
{
    space_use_first();
    space_free(&process->space);
    process->pid = 0;
}

static void fork(struct process *parent)
{
    struct process *child = new_process();

    fork_space(&parent->space, &child->space, (enum way)parent->regs.cx);
    child->regs = parent->regs;
    child->regs.ax = 0;
    parent->regs.ax = child->pid;
}

static void system_call(struct process *process)
{
    switch (process->regs.ax) {
    case SYS_FORK:
        fork(process);
        break;
    case SYS_SAY:
        print("  pid %u reads '%c' at %lx\n", process->pid, (int)process->regs.cx,
              process->regs.bx);
        break;
    case SYS_YIELD:
        break;
    case SYS_EXIT:
        end(process);
        break;
    default:
        panic("pid %u: there is no system call %lu", process->pid, process->regs.ax);
    }
}

void process_run(struct process *process)
{
    struct trap_seen seen;

    space_switch(&process->space);
    current = process;
    user_continue(&process->regs, &seen);
    events_disable();
    process->regs = seen.regs;
    if (seen.regs.vector == 0x80) {
        system_call(process);
        return;
    }
    if (seen.regs.vector != EXC_PF)
        panic("pid %u: trap %lu at %lx", process->pid, seen.regs.vector, seen.regs.ip);
    print("  pid %u has no right to %lx: ended\n", process->pid, seen.cr2);
    end(process);
}

void processes_run(void)
{
    bool alive = true;

    while (alive) {
        alive = false;
        for (unsigned i = 0; i < MAX_PROCESSES; i++)
            if (processes[i].pid) {
                process_run(&processes[i]);
                alive = true;
            }
    }
}
