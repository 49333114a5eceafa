/*
 * Way out: use a device of the machine's: here its keyboard controller, which can reset it.
 * Rule: ports are for a virtual I/O privilege level that was asked for (guest_io_okay).
 * Check: hypervisor.traps.ports.may_use
 */
#include "attacks.h"

static void read_port(void *arg)
{
    u8 value;

    __asm__ volatile("inb %1, %0" : "=a"(value) : "Nd"((u16)0x64));
    *(u8 *)arg = value;
}

ATTACK(port_io, "#GP(0)")
{
    struct trap_seen seen;
    u8 value;

    trap_catch(read_port, &value, &seen);
    if (!trapped(&seen))
        escaped("read a port");
}
