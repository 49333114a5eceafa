/* What every guest provides and what it is given. */
#ifndef KIT_START_H
#define KIT_START_H

#include "xen/start_info.h"

/* The guest itself. Traps, events (masked) and the console work. Returning powers off. */
void guest_main(const struct start_info *si);

/* The value of key=value in the command line, or NULL; it ends at a space. */
const char *option(const struct start_info *si, const char *key);
/* The same as a decimal number, or the fallback. */
u64 option_number(const struct start_info *si, const char *key, u64 fallback);
/* Is the value of key this one? */
bool option_is(const struct start_info *si, const char *key, const char *value);
/* Only checks whose id starts with only=PREFIX are to be reported; without that, all. */
void check_only_by_option(const struct start_info *si);

#endif
