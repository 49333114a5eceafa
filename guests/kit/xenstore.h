/* Reading xenstore, the tree in which a domain finds its name and its devices. */
#ifndef KIT_XENSTORE_H
#define KIT_XENSTORE_H

#include "types.h"
#include "xen/start_info.h"

/* Is there a xenstore for this domain? dom0 starts before there is one. */
bool xenstore_init(const struct start_info *si);

/* Reads a node; a path without a leading slash counts from the domain's own home. False when there
 * is no such node, or it is longer than the buffer. */
bool xenstore_read(const char *path, char *value, size_t size);

#endif
