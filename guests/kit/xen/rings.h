/*
 * The two byte rings every domU has from its start: console (public/io/console.h) and xenstore
 * (public/io/xs_wire.h). Indices run freely and are masked when used; prod - cons is the fill.
 */
#ifndef KIT_XEN_RINGS_H
#define KIT_XEN_RINGS_H

#include "../types.h"

struct xencons_interface {
    char in[1024];
    char out[2048];
    u32 in_cons, in_prod;
    u32 out_cons, out_prod;
};
_Static_assert(sizeof(struct xencons_interface) == 3088, "");

#define XENSTORE_RING_SIZE 1024
#define XENSTORE_PAYLOAD_MAX 4096

struct xenstore_domain_interface {
    char req[XENSTORE_RING_SIZE];
    char rsp[XENSTORE_RING_SIZE];
    u32 req_cons, req_prod;
    u32 rsp_cons, rsp_prod;
    u32 server_features;
    u32 connection;
    u32 error;
};
_Static_assert(sizeof(struct xenstore_domain_interface) == 2076, "");

#define XS_READ 2
#define XS_ERROR 16

struct xsd_sockmsg {
    u32 type;   /* XS_* */
    u32 req_id; /* comes back in the answer */
    u32 tx_id;  /* 0: outside a transaction */
    u32 len;    /* bytes that follow */
};
_Static_assert(sizeof(struct xsd_sockmsg) == 16, "");

#endif
