/*
 * Way out: leave code behind. Run it in a page, give the page back, get it again, empty: if the
 * engine still has a translation of the old code, so would the next owner of the frame.
 * Rule: what is translated of a frame is forgotten when the frame is freed.
 * Check: hypervisor.mm.frames.FrameTable._free_frame
 */
#include "attacks.h"

#include "string.h"

/* mov $0x2a, %eax; ret: and an empty page is `add %al, (%eax)`, here at an address of nobody's */
static const u8 code[] = { 0xb8, 0x2a, 0, 0, 0, 0xc3 };

static void run_it(void *arg)
{
    word result = 8;

    __asm__ volatile("call *%1" : "+a"(result) : "r"(own[0]) : "memory");
    *(word *)arg = result;
}

static long give_and_take(void)
{
    word mfn = virt_to_mfn(own[0]);
    long err = map(own[0], 0, 0);

    if (!err && release_frame(mfn, DOMID_SELF) != 1)
        err = -XEN_EINVAL;
    if (!err)
        err = populate_frame(virt_to_pfn(own[0]), &mfn);
    return err ? err : map(own[0], mfn, READABLE);
}

ATTACK(stale_code, "#PF(0)")
{
    struct trap_seen seen;
    word result = 0;

    memcpy(own[0], code, sizeof(code));
    if (refused(map(own[0], virt_to_mfn(own[0]), READABLE)))
        return;
    trap_catch(run_it, &result, &seen);
    if (result != 0x2a || refused(give_and_take()))
        return;
    trap_catch(run_it, &result, &seen);
    if (!trapped(&seen))
        escaped("ran code of a frame that was scrubbed");
}
