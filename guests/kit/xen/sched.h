/* Giving the CPU away, waiting, ending (public/sched.h). */
#ifndef KIT_XEN_SCHED_H
#define KIT_XEN_SCHED_H

#include "event_channel.h"

#define SCHEDOP_yield 0
#define SCHEDOP_block 1
#define SCHEDOP_shutdown 2
#define SCHEDOP_poll 3
#define SCHEDOP_remote_shutdown 4

#define SHUTDOWN_poweroff 0
#define SHUTDOWN_reboot 1
#define SHUTDOWN_suspend 2
#define SHUTDOWN_crash 3

struct sched_shutdown {
    u32 reason;
};

struct sched_remote_shutdown {
    domid_t domain_id;
    u32 reason;
};
_Static_assert(sizeof(struct sched_remote_shutdown) == 8, "");

struct sched_poll {
    const evtchn_port_t *ports;
    u32 nr_ports;
    u64 timeout; /* system time in ns; 0: none */
};
_Static_assert(sizeof(struct sched_poll) == (IS_64 ? 24 : 16), "");

#endif
