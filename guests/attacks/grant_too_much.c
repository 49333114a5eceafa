/*
 * Way out: the same with grant-table frames, which are in no reservation.
 * Rule: a grant table has a maximum (gnttab_setup_table).
 * Check: hypervisor.grants.table.MAX_FRAMES
 */
#include "attacks.h"

#define TOO_MANY 65

ATTACK(grant_too_much, "status -1")
{
    static word frames[TOO_MANY];
    struct gnttab_setup_table setup = { DOMID_SELF, TOO_MANY, 0, frames };

    if (refused(hypercall(__HYPERVISOR_grant_table_op, GNTTABOP_setup_table, (word)&setup, 1, 0, 0)))
        return;
    if (!setup.status)
        return escaped("65 frames of grant table");
    outcome("status %d", setup.status);
}
