/*
 * A program of everything that is hard to run exactly, over and over with other numbers.
 *
 * Ring 3, long mode, memory mapped where it is. Before each thing that may fault, RBX holds where to
 * go on; the owner goes there. R15 counts rounds, R14 is a generator's state. int $0xff is the end.
 */
#define DATA   0xa000
#define COPY   0xb000
#define EDGE   0xd000   /* code is put at its end; the page behind it is absent */
#define ABSENT 0x300000

        .text
        .globl _start
_start:
        mov     $30, %r15d
        mov     $12345, %r14d
        mov     $0x8800, %esp

round:  imul    $1103515245, %r14d, %r14d
        add     $12345, %r14d

        /* strings: store, copy, compare, scan */
        cld
        mov     $DATA, %edi
        mov     %r14d, %eax
        mov     $37, %ecx
        rep stosl
        mov     $DATA, %esi
        mov     $COPY, %edi
        mov     $131, %ecx
        rep movsb
        incb    COPY + 93
        mov     $DATA, %esi
        mov     $COPY, %edi
        mov     $131, %ecx
        repe cmpsb
        mov     $COPY, %edi
        mov     %r14b, %al
        mov     $64, %ecx
        repne scasb
        std
        mov     $COPY + 200, %edi
        mov     $17, %ecx
        rep stosb
        cld

        /* read-modify-write */
        lock incl DATA + 512
        mov     %r14, %rax
        lock xadd %rax, DATA + 520
        lock cmpxchg %r15, DATA + 528

        /* exits one after the other, flags alive across them */
        cmp     $7, %r15d
        int     $0x20
        setl    DATA + 600
        syscall
        cpuid
        rdtsc
        mov     $0x70, %edx
        in      (%dx), %al
        out     %eax, (%dx)
        int3

        /* a page fault in a load, in a store, in the middle of a repeat */
        lea     1f(%rip), %rbx
        mov     ABSENT + 8, %eax
1:      lea     2f(%rip), %rbx
        movl    $1, ABSENT + 16
2:      lea     3f(%rip), %rbx
        mov     $ABSENT - 24, %edi
        mov     $40, %ecx
        rep stosb
3:      add     %rcx, DATA + 608

        /* faults of other kinds */
        lea     4f(%rip), %rbx
        xor     %ecx, %ecx
        div     %ecx
4:      lea     5f(%rip), %rbx
        ud2
5:      lea     6f(%rip), %rbx
        hlt
6:
        /* code that changes itself: ahead in its block, and in a loop */
        mov     %r14b, 7f+1(%rip)
7:      mov     $0, %al
        mov     $3, %ecx
8:      addb    $3, 9f+2(%rip)
9:      add     $0, %dl
        dec     %ecx
        jnz     8b

        /* an instruction over the end of a page; fetches from where nothing is */
        call    crossing
        lea     10f(%rip), %rbx
        mov     $ABSENT, %eax
        jmp     *%rax
10:     lea     11f(%rip), %rbx
        mov     $0xb8c1ffc1, %eax       /* inc ecx; inc; mov's first byte: the rest is absent */
        mov     %eax, EDGE + 4092
        movb    $0xff, EDGE + 4091
        mov     $EDGE + 4091, %eax
        jmp     *%rax
11:
        /* a trap after each of a few instructions */
        pushfq
        orl     $0x100, (%rsp)
        popfq
        nop
        mov     $5, %ecx
        pushfq
        pop     %rax
        nop
        nop
        int     $0x21                   /* the owner takes the flag away */

        dec     %r15d
        jnz     round
        int     $0xff

        .org    0xffd, 0x90
crossing:
        movabs  $0x1122334455667788, %rax
        add     %rax, DATA + 640
        ret
