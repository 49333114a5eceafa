/* A store that may fault. */
#ifndef PAGETABLES_STORES_H
#define PAGETABLES_STORES_H

#include "types.h"

struct attempt {
    word (*op)(volatile word *at, word value);
    volatile word *at;
    word value;
    word result;   /* what op returned */
    char trap[32]; /* or the trap that it met, and where */
};

/* Did it go through? */
bool try_store(struct attempt *attempt);

#endif
