/*
 * Small families: physical devices' rights (public/physdev.h), VM assists (public/xen.h), the
 * emergency console (public/xen.h), segment bases (public/arch-x86/xen-x86_64.h), batches.
 */
#ifndef KIT_XEN_MISC_H
#define KIT_XEN_MISC_H

#include "../types.h"

#define PHYSDEVOP_set_iopl 6
#define PHYSDEVOP_set_iobitmap 7

struct physdev_set_iopl {
    u32 iopl;
};

struct physdev_set_iobitmap {
    const void *bitmap;
    u32 nr_ports;
};
_Static_assert(sizeof(struct physdev_set_iobitmap) == 2 * sizeof(word), "");

#define VMASST_CMD_enable 0
#define VMASST_CMD_disable 1
#define VMASST_TYPE_writable_pagetables 2
#define VMASST_TYPE_architectural_iopl 4

#define CONSOLEIO_write 0
#define CONSOLEIO_read 1

#define SEGBASE_FS 0
#define SEGBASE_GS_USER 1
#define SEGBASE_GS_KERNEL 2
#define SEGBASE_GS_USER_SEL 3

struct multicall_entry {
    word op, result;
    word args[6];
};
_Static_assert(sizeof(struct multicall_entry) == 8 * sizeof(word), "");

/* Xen's error numbers that the guests expect (public/errno.h); hypercalls return them negated. */
#define XEN_EPERM 1
#define XEN_ENOENT 2
#define XEN_ESRCH 3
#define XEN_ENXIO 6
#define XEN_E2BIG 7
#define XEN_ENOMEM 12
#define XEN_EACCES 13
#define XEN_EFAULT 14
#define XEN_EBUSY 16
#define XEN_EEXIST 17
#define XEN_ENODEV 19
#define XEN_EINVAL 22
#define XEN_ENOSYS 38
#define XEN_EOPNOTSUPP 95

#endif
