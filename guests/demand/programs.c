/*
 * What runs in ring 3: copied to USER_CODE, so without references to itself. System calls come by
 * int $0x80: number in eax, arguments in ebx and ecx, result in eax.
 */
#include "demand.h"

#if IS_64
#define AT "(%rbx)"
#else
#define AT "(%ebx)"
#endif

#define PAGE(n) "0x" #n "000" AT
#define CALL(nr) "mov $" #nr ", %eax\n int $0x80\n"
#define FORK(way) "mov $" #way ", %ecx\n" CALL(1)
#define SAY(n) "movzbl " PAGE(n) ", %ecx\n" CALL(2)
#define YIELD CALL(3)
#define EXIT CALL(4)

#define ASM_PROGRAM(name, text)                                                                    \
    __asm__(".pushsection .text.programs, \"ax\"\n .globl " #name ", " #name "_end\n" #name ":\n"  \
            "mov $0x10001000, %ebx\n" text "\n" #name "_end:\n.popsection")

_Static_assert(DATA_BASE == 0x10001000, "the programs know where their data is");
_Static_assert(SYS_FORK == 1 && SYS_SAY == 2 && SYS_YIELD == 3 && SYS_EXIT == 4, "");

/* Touches three pages, forks, and then both write and read. */
ASM_PROGRAM(family,
            "movb $'a', " PAGE(0) "\n"
            "movb $'b', " PAGE(1) "\n"
            "movb " PAGE(2) ", %dl\n"      /* a read maps a page as well */
            FORK(1)
            "test %eax, %eax\n"
            "jz 1f\n"
            "movb $'P', " PAGE(0) "\n"     /* the parent's first write: a copy */
            SAY(0)
            YIELD
            YIELD
            EXIT
            "1:\n"
            SAY(0)                          /* the child still reads what was there */
            "movb $'C', " PAGE(0) "\n"     /* and is by now the last user: no copy */
            SAY(0)
            "movb $'D', " PAGE(1) "\n"     /* still shared: a copy */
            SAY(1)
            EXIT);

/* Touches every page and forks, three times; children end at once. */
ASM_PROGRAM(forker,
            "xor %esi, %esi\n"
            "1:\n"
            "movb $1, " PAGE(0) "\n movb $1, " PAGE(1) "\n"
            "movb $1, " PAGE(2) "\n movb $1, " PAGE(3) "\n"
            "movb $1, " PAGE(4) "\n movb $1, " PAGE(5) "\n"
            "movb $1, " PAGE(6) "\n movb $1, " PAGE(7) "\n"
            "mov %esi, %ecx\n"
            CALL(1)
            "test %eax, %eax\n"
            "jz 2f\n"
            YIELD
            "inc %esi\n"
            "cmp $3, %esi\n"
            "jne 1b\n"
            "2:\n"
            EXIT);

/* Reads what it has no right to. */
ASM_PROGRAM(stray, "movb $1, " PAGE(0) "\n"
                   "mov $0x20000000, %ebx\n"
                   "mov " AT ", %ecx\n" EXIT);

/* Touches a page, lets the kernel look, touches the others, and ends. */
ASM_PROGRAM(toucher,
            "movb $1, " PAGE(0) "\n"
            YIELD
            "movb $1, " PAGE(1) "\n movb $1, " PAGE(2) "\n movb $1, " PAGE(3) "\n"
            "movb $1, " PAGE(4) "\n movb $1, " PAGE(5) "\n movb $1, " PAGE(6) "\n"
            "movb $1, " PAGE(7) "\n"
            EXIT);
