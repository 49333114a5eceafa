/*
 * Ports: who may use them, and the string forms.
 *
 * A port may be used at the virtual IOPL, or below it where a bitmap that PHYSDEVOP_set_iobitmap
 * named has a clear bit for each byte of the access; Xen looks at it at each use (guest_io_okay,
 * arch/x86/pv/emul-priv-op.c). Nobody answers at these ports.
 */
#include "case.h"
#include "console.h"
#include "hypercall.h"
#include "mm.h"
#include "string.h"
#include "user.h"

#define PORT 0x2f0
#define PORT_TEXT "0x2f0"

PROVOKE_USER(user_in, "mov $" PORT_TEXT ", %edx", "in %dx, %al");
PROVOKE_USER(user_in_word, "mov $" PORT_TEXT ", %edx", "in %dx, %ax");
PROVOKE_USER(user_cli, "", "cli");
PROVOKE(port_in_long, "mov $" PORT_TEXT ", %edx", "in %dx, %eax");

static u8 bitmap[PORT / 8 + 2];

static void set_iobitmap(const u8 *bits, u32 nr_ports)
{
    struct physdev_set_iobitmap arg = { .bitmap = bits, .nr_ports = nr_ports };

    HYPERCALL2(__HYPERVISOR_physdev_op, PHYSDEVOP_set_iobitmap, &arg);
}

#define NOTHING(stub, name, text) { CODE(stub), .id = name, .nothing = true, .rule = text }
#define GP(stub, name, text) { CODE(stub), .id = name, .vector = EXC_GP, .rule = text }

static void test_user_mode(void)
{
    static const struct trap_case at_3[] = {
        NOTHING(user_in, "ports.user-iopl-3", "IOPL 3 is for user mode as well"),
        NOTHING(user_cli, "ports.user-cli", "and goes for cli"),
    };
    static const struct trap_case by_bitmap[] = {
        NOTHING(user_in, "ports.user-bitmap", "a clear bit lets user mode in"),
        GP(user_in_word, "ports.user-word", "each byte of the access needs one"),
        GP(user_cli, "ports.bitmap-cli", "and cli is no port"),
    };
    static const struct trap_case beyond[] = {
        GP(user_in, "ports.user-beyond", "a port beyond the bitmap"),
    };
    static const struct trap_case unmapped[] = {
        GP(user_in, "ports.user-unmapped", "what is not mapped counts as ones"),
    };

    hv_set_iopl(3);
    CHECK_ALL(check_user_case, at_3);
    hv_set_iopl(0);
    memset(bitmap, 0xff, sizeof(bitmap));
    bitmap[PORT / 8] = (u8)~1;
    set_iobitmap(bitmap, 65536);
    CHECK_ALL(check_user_case, by_bitmap);
    set_iobitmap(bitmap, PORT);
    CHECK_ALL(check_user_case, beyond);
    set_iobitmap((u8 *)0x1000, 65536);
    CHECK_ALL(check_user_case, unmapped);
}

static void test_kernel(void)
{
    static const struct trap_case allowed[] = {
        NOTHING(port_in_long, "ports.kernel-bitmap", "the bitmap goes for the kernel too"),
    };

    bitmap[PORT / 8] = 0xf0;
    set_iobitmap(bitmap, 65536);
    CHECK_ALL(check_trap_case, allowed);
    set_iobitmap(NULL, 0);
}

/* rep insb fills memory with what nobody says; rep outsw reads it and tells nobody. */
static void test_strings(void)
{
    static u8 text[16];
    u8 *to = text;
    const u8 *from = text;
    word count = 10;

    hv_set_iopl(1);
    __asm__ volatile("cld\n rep insb" : "+D"(to), "+c"(count) : "d"(PORT) : "memory");
    check_equal("ports.insb", "rep insb moves rDI", 10, (u64)(to - text));
    check_equal("ports.insb-count", "until rCX is 0", 0, count);
    check_true("ports.insb-text", "and stores all ones, so far and no further",
               text[0] == 0xff && text[9] == 0xff && !text[10]);
    count = 3;
    __asm__ volatile("cld\n rep outsw" : "+S"(from), "+c"(count) : "d"(PORT) : "memory");
    check_equal("ports.outsw", "rep outsw moves rSI by words", 6, (u64)(from - text));
    to = text + 10;
    __asm__ volatile("std\n insb\n cld" : "+D"(to) : "d"(PORT) : "memory");
    check_equal("ports.insb-down", "with DF set downwards", 9, (u64)(to - text));
    hv_set_iopl(0);
}

/* The operand in memory may fault: in the guest's own name. */
PROVOKE(insb_unmapped, "mov $" PORT_TEXT ", %edx\n mov $0x1ff8, %edi\n mov $3, %ecx\n cld",
        "rep insb");

static void test_string_fault(void)
{
    static const struct trap_case faults[] = {
        { CODE(insb_unmapped), .id = "ports.insb-fault", .vector = EXC_PF, .error = 2,
          .cr2 = 0x1ff8, .rule = "where it cannot store it faults" },
    };

    hv_set_iopl(1);
    CHECK_ALL(check_trap_case, faults);
    hv_set_iopl(0);
}

void test_ports(void)
{
    test_user_mode();
    test_kernel();
    test_strings();
    test_string_fault();
}
