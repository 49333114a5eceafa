/*
 * The shortest way of a trap: from guest code into the guest's own handler and back by the iret
 * hypercall, with no Python in between.
 *
 * Everything here does what hypervisor/traps/bounce.py, iret.py and entry.py do, word by word, for
 * the commonest course of each, and nothing else. Each function first looks at everything that it
 * needs and changes nothing; if anything is not as usual - a page that is not there, a selector
 * that cannot be loaded, a step, a probe - its answer is "no", and Python does all of it. So a host
 * that does not run this code sees the same guest.
 *
 * The names of words (RIP, GATES, ENABLED, ...) are those of hypervisor/machine/state.py,
 * domain/trap_state.py and traps/fast.py, given to the compiler by build.py beside it. The code is
 * position independent and needs nothing but the one array below, which Python fills.
 */
typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;
typedef _Bool bool;

#define true 1
#define false 0
#define M32 0xffffffffull

u64 context[CONTEXT_WORDS] = { 0 };

/* CPUX86State, by words of 8 and 4 bytes as in state.py. */
#define Q(n) (((u64 *)context[ENV])[n])
#define D(n) (((u32 *)context[ENV])[n])
/* The vCPU's words: trap_state.py. */
#define V(n) (((u64 *)context[TRAP_STATE])[n])
/* The block counter's. */
#define W(n) (((u64 *)context[COUNTER_WORDS])[n])

struct segment {
    u32 selector;
    u32 unused;
    u64 base;
    u32 limit;
    u32 flags;
};

static struct segment *segment(unsigned n)
{
    return (struct segment *)((u8 *)context[ENV] + SEGMENTS) + n;
}

struct gate {
    u64 address;
    u32 cs;
    u8 dpl;
    bool masks;
    u16 unused;
};

static const struct gate *gate(unsigned index)
{
    return (const struct gate *)&V(GATES) + index;
}

/* --- where the guest is --------------------------------------------------------------------- */
static bool is_64(void)
{
    return context[LEVELS] == 4;
}

static bool in_kernel(void)
{
    return is_64() ? V(KERNEL_MODE) : (D(HFLAGS) & 3) < 2;
}

/* A 64-bit kernel that was found at CPL 3 (TrapEntry.settle_cpl): for Python. */
static bool is_unsettled(void)
{
    return is_64() && V(KERNEL_MODE) && (D(HFLAGS) & 3) == 3;
}

/* evtchn_upcall_pending and evtchn_upcall_mask, the first bytes of vcpu_info. */
static u8 *attention(void)
{
    return (u8 *)context[VCPU_INFO];
}

static void attend(void)
{
    if (attention()[0] && !attention()[1])
        ((void (*)(void))context[ATTEND])();
}

static u64 read_flags(void)
{
    u64 flags = (Q(EFLAGS) & ~(u64)LAZY_FLAGS) | 2;

    if (D(CC_OP) == CC_OP_EFLAGS)
        flags |= Q(CC_SRC) & CC_FLAGS;
    else
        flags |= ((u64(*)(u64))context[READ_EFLAGS])(context[ENV]) & CC_FLAGS;
    return D(DF) == 0xffffffff ? flags | DF_FLAG : flags;
}

static void write_flags(u64 flags)
{
    D(CC_OP) = CC_OP_EFLAGS;
    Q(CC_SRC) = flags & CC_FLAGS;
    D(DF) = flags & DF_FLAG ? 0xffffffff : 1;
    Q(EFLAGS) = (flags & ~(u64)LAZY_FLAGS) | 2;
}

/* IF is the event mask, inverted. */
static u64 virtual_flags(u64 flags)
{
    return (flags & ~(u64)EFLAGS_IF) | (attention()[1] ? 0 : EFLAGS_IF);
}

/* The clock's: what lies from RIP on in the block entered last was not done. */
static void settle(void)
{
    u64 rip = Q(RIP) + segment(CS)->base;

    if (!(D(HFLAGS) & HF_CS64))
        rip &= M32;
    if (W(START) <= rip && rip < W(END))
        W(COUNTER) -= W(END) - rip;
    W(END) = 0;
}

/* --- memory -------------------------------------------------------------------------------- */
static bool entry_at(u64 table, unsigned slot, u64 wanted, u64 unwanted, u64 *next)
{
    u64 entry;

    if (context[LEVELS] == 2)
        entry = ((u32 *)(context[MEMORY] + table))[slot];
    else
        entry = ((u64 *)(context[MEMORY] + table))[slot];
    *next = entry & PTE_FRAME;
    return (entry & wanted) == wanted && !(entry & unwanted) && *next < context[MEMORY_BYTES];
}

/* A small page whose entries have the rights and bits that the access needs (mm.walk.quick_walk). */
static bool walk(u64 cr3, u64 vaddr, bool write, u64 *maddr)
{
    u64 upper = write ? PTE_P | PTE_RW : PTE_P;
    u64 leaf = write ? PTE_P | PTE_RW | PTE_A | PTE_D : PTE_P | PTE_A;
    u64 table = cr3 & PTE_FRAME;

    if (context[LEVELS] == 2) {
        if (!entry_at(table, vaddr >> 22, upper, PTE_PSE, &table) ||
            !entry_at(table, vaddr >> 12 & 1023, leaf, 0, &table))
            return false;
    } else {
        if (context[LEVELS] == 4) {
            if (!entry_at(table, vaddr >> 39 & 511, upper, 0, &table) ||
                !entry_at(table, vaddr >> 30 & 511, upper, PTE_PSE, &table))
                return false;
        } else if (!entry_at(cr3 & 0xffffffe0, vaddr >> 30 & 3, PTE_P, 0, &table)) {
            return false;
        }
        if (!entry_at(table, vaddr >> 21 & 511, upper, PTE_PSE, &table) ||
            !entry_at(table, vaddr >> 12 & 511, leaf, 0, &table))
            return false;
    }
    *maddr = table | (vaddr & 0xfff);
    return true;
}

static bool code_in(u64 address)
{
    return ((u8 *)context[CODE_FRAMES])[(address - context[MEMORY]) >> 12];
}

/*
 * The host's address of a frame on a stack: of the guest's memory, in one page, and if it is to be
 * written, neither where translated code comes from nor where the event mask is. NULL if not.
 */
static void *stack_at(u64 cr3, u64 vaddr, unsigned size, bool write)
{
    u64 maddr;

    if ((vaddr & 0xfff) + size > 0x1000)
        return 0;
    if (is_64() ? vaddr + size > 1ull << 47 && vaddr < HYPERVISOR_VIRT_END
                : vaddr + size > context[HOLE])
        return 0;
    if (!walk(cr3, vaddr, write, &maddr))
        return 0;
    maddr += context[MEMORY];
    if (write && (code_in(maddr) || maddr >> 12 == context[VCPU_INFO] >> 12))
        return 0;
    return (void *)maddr;
}

/* --- segments ------------------------------------------------------------------------------ */
static const u64 xen_gdt_32[] = XEN_GDT_32;
static const u64 xen_gdt_64[] = XEN_GDT_64;

/* From the GDT; 0, which nothing accepts, where there is none: the null selector names none, whatever
 * the guest has in the first place. */
static u64 descriptor(u32 selector)
{
    u32 slot = selector >> 3;
    u32 xens = slot - FIRST_RESERVED_GDT_ENTRY;

    if (selector & 4 || !slot)
        return 0;
    if (slot >= FIRST_RESERVED_GDT_ENTRY) {
        if (xens >= sizeof(xen_gdt_32) / 8)
            return 0;
        return is_64() ? xen_gdt_64[xens] : xen_gdt_32[xens];
    }
    if (slot >= V(NR_GDT_ENTRIES))
        return 0;
    return *(u64 *)(context[MEMORY] + (V(GDT_MFNS + (slot >> 9)) << 12) + (slot & 511) * 8);
}

static void unpack(u32 selector, u64 desc, struct segment *to)
{
    u32 limit = (desc & 0xffff) | (desc >> 32 & 0xf0000);

    to->selector = selector;
    to->base = (desc >> 16 & 0xffffff) | desc >> 56 << 24;
    to->limit = desc >> 55 & 1 ? limit << 12 | 0xfff : limit;
    to->flags = desc >> 32;
}

/* Present, code or data, as `type` says of the bits in `mask`, for the selector's own ring. */
static bool load(u32 selector, u32 mask, u32 type, struct segment *to)
{
    u64 desc = descriptor(selector);
    u32 high = desc >> 32;

    if ((high & mask) != type || (high >> 13 & 3) != (selector & 3))
        return false;
    unpack(selector, desc, to);
    return true;
}

#define SEG_P 0x8000
#define SEG_S 0x1000
#define SEG_CODE 0x0800
#define SEG_CONFORMING 0x0400
#define SEG_WRITABLE 0x0200
#define SEG_L 0x200000
#define SEG_B 0x400000

static bool load_code(u32 selector, struct segment *to)
{
    return load(selector, SEG_P | SEG_S | SEG_CODE | SEG_CONFORMING, SEG_P | SEG_S | SEG_CODE, to);
}

static bool load_stack(u32 selector, struct segment *to)
{
    return load(selector, SEG_P | SEG_S | SEG_CODE | SEG_WRITABLE, SEG_P | SEG_S | SEG_WRITABLE, to);
}

/* CPUState.set_code_and_stack, with what QEMU derives from the segments. */
static void set_code_and_stack(const struct segment *code, const struct segment *stack, u32 cpl)
{
    u32 hflags = D(HFLAGS) & ~(3 | HF_CS32 | HF_SS32 | HF_CS64 | HF_ADDSEG);

    *segment(CS) = *code;
    *segment(SS) = *stack;
    hflags |= cpl;
    if (hflags & HF_LMA && code->flags & SEG_L) {
        hflags |= HF_CS32 | HF_SS32 | HF_CS64;
    } else {
        if (code->flags & SEG_B)
            hflags |= HF_CS32;
        if (stack->flags & SEG_B)
            hflags |= HF_SS32;
        if (!(code->flags & SEG_B) || segment(DS)->base || segment(ES)->base || stack->base)
            hflags |= HF_ADDSEG;
    }
    D(HFLAGS) = hflags;
}

static const struct segment kernel_code_64 = { FLAT_KERNEL_CS64, 0, 0, 0xffffffff, 0x00affb00 };
static const struct segment kernel_stack_64 = { FLAT_KERNEL_SS64, 0, 0, 0xffffffff, 0x00cff300 };

/* --- into the guest's kernel ----------------------------------------------------------------- */
enum kind { PLAIN, WITH_ERROR, DIRECT };

static bool enter_32(const struct gate *to, enum kind kind, u32 error)
{
    struct segment code, stack = *segment(SS);
    bool changes_stack = (D(HFLAGS) & 3) >= 2;
    u32 esp = Q(RSP), words = 3 + (kind == WITH_ERROR) + 2 * changes_stack;
    u64 flags = read_flags();
    u32 *frame;

    if ((to->cs & 3) != 1 || !load_code(to->cs, &code))
        return false;
    if (changes_stack) {
        if ((V(KERNEL_SS) & 3) != 1 || !load_stack(V(KERNEL_SS), &stack))
            return false;
        esp = V(KERNEL_SP);
    }
    esp -= 4 * words;
    frame = stack_at(Q(CR3), (stack.base + esp) & M32, 4 * words, true);
    if (!frame)
        return false;
    if (kind == WITH_ERROR)
        *frame++ = error;
    frame[0] = Q(RIP);
    frame[1] = segment(CS)->selector | (kind == DIRECT ? 0 : (u32)attention()[1] << 16);
    frame[2] = kind == DIRECT ? flags : virtual_flags(flags);
    if (changes_stack) {
        frame[3] = Q(RSP);
        frame[4] = segment(SS)->selector;
    }
    if (W(END))
        settle();
    set_code_and_stack(&code, &stack, 1);
    Q(RSP) = esp;
    Q(RIP) = to->address;
    write_flags(flags & ~(u64)CLEARED_32);
    return true;
}

/* TrapEntry of a 64-bit guest to the other page tables and GS base (toggle_guest_mode). */
static void toggle_guest_mode(u64 kernel_mode)
{
    u64 gs = segment(GS)->base;

    V(KERNEL_MODE) = kernel_mode;
    segment(GS)->base = V(GS_BASE_USER);
    V(GS_BASE_USER) = gs;
    Q(CR3) = V(kernel_mode ? ROOT_MFN : USER_ROOT_MFN) << 12;
}

static bool enter_64(const struct gate *to, enum kind kind, u64 error, u64 rcx, u64 r11)
{
    bool from_kernel = V(KERNEL_MODE);
    u64 cs = segment(CS)->selector, stack, flags = read_flags();
    u32 words = 7 + (kind == WITH_ERROR);
    u64 *frame;

    stack = ((from_kernel ? Q(RSP) : V(KERNEL_SP)) & ~15ull) - 8 * words;
    frame = stack_at(V(ROOT_MFN) << 12, stack, 8 * words, true);
    if (!frame || (from_kernel && Q(CR3) != V(ROOT_MFN) << 12))
        return false;
    *frame++ = rcx;
    *frame++ = r11;
    if (kind == WITH_ERROR)
        *frame++ = error;
    frame[0] = Q(RIP);
    frame[1] = (from_kernel ? cs & ~3ull : cs) | (u64)attention()[1] << 32;
    frame[2] = virtual_flags(flags);
    frame[3] = Q(RSP);
    frame[4] = segment(SS)->selector;
    if (W(END))
        settle();
    if (!from_kernel)
        toggle_guest_mode(1);
    set_code_and_stack(&kernel_code_64, &kernel_stack_64, 1);
    Q(RSP) = stack;
    Q(RIP) = to->address;
    write_flags(flags & ~(u64)CLEARED_64);
    return true;
}

static bool bounce(const struct gate *to, enum kind kind, u32 error)
{
    if (!to->address)
        return false;
    if (!(is_64() ? enter_64(to, kind, error, Q(RCX), Q(R11)) : enter_32(to, kind, error)))
        return false;
    if (to->masks)
        attention()[1] = 1;
    return true;
}

/* --- exceptions and int n ---------------------------------------------------------------------- */
static bool soft_interrupt(u32 vector)
{
    const struct gate *to = gate(vector & 255);

    if (vector == HYPERCALL_VECTOR)
        return false;
    if (vector != 3 && vector != 4 && to->dpl < (in_kernel() ? 1 : 3))
        return false;
    if (vector == DIRECT_VECTOR && !is_64() && !to->masks)
        return bounce(to, DIRECT, 0); /* no entry into Xen: nothing is counted, no event looked for */
    if (!bounce(to, PLAIN, 0))
        return false;
    V(EXCEPTIONS)++;
    attend();
    return true;
}

#define PFEC_PRESENT 1
#define PFEC_WRITE 2
#define PFEC_USER 4
#define PFEC_RESERVED 8
#define PFEC_INSN 16

/* Only what the guest itself has to see to: nothing that Xen repairs (TrapEntry._page_fault), and
 * no fetch, whose place is not sure yet (Callbacks._fault). */
static bool page_fault(u32 error)
{
    u64 vaddr = Q(CR2), rip = Q(RIP) + segment(CS)->base;
    bool kernel = in_kernel();

    if (!(D(HFLAGS) & HF_CS64))
        rip &= M32;
    if (error & (PFEC_INSN | PFEC_RESERVED))
        return false;
    if (!(error & PFEC_WRITE) && (vaddr == rip || (!(vaddr & 0xfff) && vaddr >> 12 == (rip >> 12) + 1)))
        return false;
    if (error & PFEC_PRESENT) {
        if (kernel && error & PFEC_WRITE)
            return false;
    } else if (!(error & PFEC_USER) && vaddr >= context[HOLE] &&
               (!is_64() || vaddr < HYPERVISOR_VIRT_END)) {
        return false;
    }
    error = (error & ~PFEC_USER) | (kernel ? 0 : PFEC_USER);
    if (!bounce(gate(14), WITH_ERROR, error))
        return false;
    if (is_64())
        *(u64 *)(attention() + CR2_OFFSET_64) = vaddr;
    else
        *(u32 *)(attention() + CR2_OFFSET_32) = vaddr;
    D(OLD_EXCEPTION) = 0xffffffff;
    V(EXCEPTIONS)++;
    attend();
    return true;
}

/* An exception without an error code, about which Xen has nothing to do or to say. */
static bool plain_fault(u32 vector)
{
    if (!bounce(gate(vector), PLAIN, 0))
        return false;
    V(EXCEPTIONS)++;
    attend();
    return true;
}

static bool fault(u32 vector)
{
    if (vector == 14)
        return page_fault(D(ERROR_CODE));
    if ((vector != 0 && vector != 16) || !plain_fault(vector)) /* #DE, #MF */
        return false;
    D(OLD_EXCEPTION) = 0xffffffff;
    return true;
}

/* A limit of 0 is a step, or somebody wants the CPU to stop. In virtual-8086 mode, where no guest can
 * be by right, CS is any number (bounce._out_of_vm86). */
static bool is_usual(void)
{
    return context[ENABLED] && W(LIMIT) && !is_unsettled() && !(Q(EFLAGS) & EFLAGS_VM);
}

/* Called in place of the machine's callback: see Cpu.ask_first. */
void interrupt(void *engine, u32 vector, void *data)
{
    if (is_usual() && (D(EXCEPTION_IS_INT) ? soft_interrupt(vector) : fault(vector)))
        return;
    ((void (*)(void *, u32, void *))context[NEXT_INTERRUPT])(engine, vector, data);
}

/* #UD, unless ud2 begins the prefix of a forced emulation: 0f 0b, "xen". */
static bool undefined_opcode(void)
{
    u64 rip = Q(RIP) + segment(CS)->base;
    const u8 *code = stack_at(Q(CR3), D(HFLAGS) & HF_CS64 ? rip : rip & M32, 3, false);

    return code && !(code[0] == 0x0f && code[1] == 0x0b && code[2] == 'x') && plain_fault(6);
}

bool invalid(void *engine, void *data)
{
    if (is_usual() && undefined_opcode())
        return true;
    return ((bool (*)(void *, void *))context[NEXT_INVALID])(engine, data);
}

/* --- system calls -------------------------------------------------------------------------------- */
static bool user_syscall(void)
{
    const struct gate *to = gate(SYSCALL_GATE);
    u64 rcx = Q(RIP), r11;

    if (!is_64() || V(KERNEL_MODE) || !(D(HFLAGS) & HF_CS64) || !to->address)
        return false;
    r11 = virtual_flags(read_flags());
    if (!enter_64(to, PLAIN, 0, rcx, r11))
        return false;
    Q(RCX) = rcx;
    Q(R11) = r11;
    if (to->masks)
        attention()[1] = 1;
    attend();
    return true;
}

void system_call(void)
{
    if (is_usual() && user_syscall())
        return;
    ((void (*)(void))context[NEXT_SYSCALL])();
}

/* --- back, by the iret hypercall ------------------------------------------------------------------ */
static void null_privileged(u32 cpl)
{
    static const u8 data_segments[] = { ES, DS, FS, GS };

    for (unsigned i = 0; i < sizeof(data_segments); i++) {
        struct segment *s = segment(data_segments[i]);
        bool is_conforming = (s->flags >> 10 & 3) == 3;

        if ((s->flags >> 13 & 3) < cpl && !is_conforming && s->selector & ~3)
            *s = (struct segment){ 0, s->unused, 0, 0, 0 };
    }
}

static u64 flags_of(u64 eflags)
{
    return (eflags & ~(u64)(EFLAGS_IOPL | EFLAGS_VM)) | EFLAGS_IF | 2;
}

static bool iret_32(u64 *eax)
{
    u32 base = segment(SS)->base, esp = Q(RSP);
    u32 *frame = stack_at(Q(CR3), (base + esp) & M32, 16, false);
    struct segment code, stack = *segment(SS);
    u32 cs, cpl, target_esp = esp + 16;

    if (!frame)
        return false;
    cs = frame[2] & 0xffff;
    cpl = cs & 3;
    if (cpl == 0 || frame[3] & EFLAGS_TF || !load_code(cs, &code))
        return false;
    if (cpl > 1) {
        if ((((u64)base + esp) & 0xfff) + 24 > 0x1000)
            return false;
        target_esp = frame[4];
        if ((frame[5] & 3) != cpl || !load_stack(frame[5] & 0xffff, &stack))
            return false;
    }
    attention()[1] = !(frame[3] & EFLAGS_IF);
    *eax = frame[0];
    Q(RIP) = frame[1];
    write_flags(flags_of(frame[3]));
    Q(RSP) = target_esp;
    if (cpl > 1)
        null_privileged(cpl);
    set_code_and_stack(&code, &stack, cpl);
    return true;
}

static bool iret_64(u64 *rax)
{
    /* rax r11 rcx flags rip cs rflags rsp ss */
    u64 *frame = stack_at(Q(CR3), Q(RSP), 72, false);
    struct segment code = kernel_code_64, stack = kernel_stack_64;
    u64 rip, flags;
    bool to_user, by_sysret;

    if (!frame || context[USER_TLB_STALE] || frame[6] & EFLAGS_TF)
        return false;
    rip = frame[4];
    to_user = (frame[5] & 3) == 3;
    by_sysret = frame[3] & VGCF_IN_SYSCALL;
    if (to_user) {
        u32 cs = frame[5] & 0xffff, ss = (frame[8] | 3) & 0xffff;

        if (by_sysret && cs != FLAT_USER_CS32) {
            cs = FLAT_USER_CS64;
            ss = FLAT_USER_SS64;
        }
        if (!V(USER_ROOT_MFN) || (rip >> 47 && rip >> 47 != 0x1ffff))
            return false;
        if (!load_code(cs, &code) || !load_stack(ss, &stack))
            return false;
        toggle_guest_mode(0);
    }
    flags = flags_of(frame[6]);
    attention()[1] = !(frame[6] & EFLAGS_IF);
    *rax = frame[0];
    Q(R11) = by_sysret ? flags : frame[1];
    Q(RCX) = by_sysret ? rip : frame[2];
    Q(RSP) = frame[7];
    Q(RIP) = rip;
    write_flags(flags);
    set_code_and_stack(&code, &stack, to_user ? 3 : 1);
    return true;
}

u64 iret(void)
{
    u64 result;

    /* The iret of an NMI's handler lets the next one come. */
    if (context[ENABLED] && W(LIMIT) && !V(NMI_MASKED) &&
        (is_64() ? iret_64(&result) : iret_32(&result)))
        return result;
    return ((u64(*)(void))context[NEXT_IRET])();
}
