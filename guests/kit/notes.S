/*
 * How Xen's domain builder learns what this kernel needs.
 *
 * Since 2006 by ELF notes (public/elfnote.h), before by one text in a section named __xen_guest.
 * The x86_32 build, which stands for the older Xen, uses the text; the others use notes.
 *
 * PADDR_OFFSET is what to subtract from the ELF file's physical addresses to get offsets into the
 * domain's memory. Both customs exist, and both are used here: 32-bit builds carry the virtual
 * address as the physical one (so the offset is VIRT_BASE), the 64-bit build counts from 0.
 */
#include "layout.h"
#include "types.h"

#if defined(WIDTH_X86_32)

    .section __xen_guest, "", @progbits
    .ascii "GUEST_OS=ring1-kit,GUEST_VER=1,XEN_VER=xen-3.0"
    .ascii ",VIRT_BASE=" STRING(VIRT_BASE)
    .ascii ",ELF_PADDR_OFFSET=" STRING(PADDR_OFFSET)
    /* a page number, counted from VIRT_BASE: see layout.h */
    .ascii ",HYPERCALL_PAGE=" STRING(HYPERCALL_PAGE_NR)
    .ascii ",LOADER=generic"
    .asciz ",PAE=no"

#else

/* One note: sizes of name and value, a type, the name "Xen" and the value, each padded to 4. */
.macro xen_note type, value:vararg
    .balign 4
    .long 2f - 1f, 4f - 3f, \type
1:  .asciz "Xen"
2:  .balign 4
3:  \value
4:  .balign 4
.endm

#if IS_64
#define WORD .quad
#else
#define WORD .long
#endif

    .section .note.Xen, "a", @note
    xen_note 6, .asciz "ring1-kit"              /* GUEST_OS */
    xen_note 7, .asciz "1"                      /* GUEST_VERSION */
    xen_note 5, .asciz "xen-3.0"                /* XEN_VERSION */
    xen_note 8, .asciz "generic"                /* LOADER */
    xen_note 3, WORD VIRT_BASE                  /* VIRT_BASE */
    xen_note 4, WORD PADDR_OFFSET               /* PADDR_OFFSET */
    xen_note 1, WORD _start                     /* ENTRY */
    xen_note 2, WORD hypercall_page             /* HYPERCALL_PAGE */
#if !IS_64
    xen_note 9, .asciz "yes"                    /* PAE_MODE */
    xen_note 12, WORD 0xf5800000                /* HV_START_LOW: the hole may begin there */
#endif

#endif

    .section .note.GNU-stack, "", @progbits
