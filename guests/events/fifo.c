/*
 * The FIFO ABI (public/event_channel.h; Xen's common/event_fifo.c): a word for each port, linked
 * into queues, one for each vCPU and priority.
 */
#include "mm.h"
#include "ports.h"
#include "start.h"

#define BIT(nr) (1u << (nr))
#define PENDING BIT(EVTCHN_FIFO_PENDING)
#define MASKED BIT(EVTCHN_FIFO_MASKED)
#define LINKED BIT(EVTCHN_FIFO_LINKED)
#define LINK EVTCHN_FIFO_LINK_MASK
#define DEFAULT EVTCHN_FIFO_PRIORITY_DEFAULT

static struct evtchn_fifo_control_block *control;
static volatile event_word_t *words;

static long init_control(word mfn, u32 offset, u32 vcpu, u8 *link_bits)
{
    struct evtchn_init_control init = { .control_gfn = mfn, .offset = offset, .vcpu = vcpu };
    long err = hv_event_channel_op(EVTCHNOP_init_control, &init);

    if (link_bits)
        *link_bits = init.link_bits;
    return err;
}

static long expand_array(word mfn)
{
    struct evtchn_expand_array expand = { .array_gfn = mfn };

    return hv_event_channel_op(EVTCHNOP_expand_array, &expand);
}

/* Take a queue apart from its head on; how many pending events were in it, and the last of them. */
static unsigned take_queue(unsigned priority, evtchn_port_t *last)
{
    unsigned count = 0;
    evtchn_port_t port = control->head[priority];

    control->ready &= ~BIT(priority);
    for (; port; ) {
        event_word_t old = words[port];

        words[port] = old & ~(PENDING | LINKED | LINK);
        count += old >> EVTCHN_FIFO_PENDING;
        if (last)
            *last = port;
        port = old & LINK;
    }
    return count;
}

static unsigned take_default(void)
{
    take_upcall();
    return control->ready & BIT(DEFAULT) ? take_queue(DEFAULT, NULL) : 0;
}

/* ---- switching over ---- */

static void test_switch(evtchn_port_t waiting)
{
    word control_mfn, table_mfn = 0;
    const pte_t *l1e = pt_walk((word)test_switch, 1);
    u8 link_bits = 0;

    control = alloc_page();
    words = alloc_page();
    control_mfn = virt_to_mfn(control);
    table_mfn = virt_to_mfn(l1e);
    expect("fifo.vcpu", "the vCPU must exist (init_control)", -XEN_ENOENT,
           init_control(control_mfn, 0, NO_VCPU, NULL));
    expect("fifo.offset", "the control block stays within its page", -XEN_EINVAL,
           init_control(control_mfn, PAGE_SIZE - 64, 0, NULL));
    expect("fifo.aligned", "and is aligned to 8", -XEN_EINVAL,
           init_control(control_mfn, 4, 0, NULL));
    expect("fifo.table", "its frame is ordinary memory: no page table", -XEN_EINVAL,
           init_control(table_mfn, 0, 0, NULL));
    expect("fifo.init", "the first control block switches to FIFO", 0,
           init_control(control_mfn, 0, 0, &link_bits));
    check_equal("fifo.link_bits", "17 bits of link: 131072 ports", EVTCHN_FIFO_LINK_BITS,
                link_bits);
    expect("fifo.twice", "a vCPU has one control block", -XEN_EINVAL,
           init_control(control_mfn, 128, 0, NULL));
    expect("fifo.array.table", "words are ordinary memory too", -XEN_EINVAL,
           expand_array(table_mfn));
    expect("fifo.array", "the first page of words", 0, expand_array(virt_to_mfn((void *)words)));
    check_true("fifo.kept", "an event that the bitmaps had happens again now",
               words[waiting] == (PENDING | LINKED) && control->head[DEFAULT] == waiting);
    take_default();
}

/* ---- linking ---- */

static void test_linking(void)
{
    evtchn_port_t first = make_ipi(), second = make_ipi(), third = make_ipi(), last = 0;

    hv_evtchn_send(first);
    check_true("fifo.head", "the first event: head, ready and an upcall",
               words[first] == (PENDING | LINKED) && control->head[DEFAULT] == first &&
                   control->ready == BIT(DEFAULT) && take_upcall());
    hv_evtchn_send(second);
    hv_evtchn_send(third);
    check_equal("fifo.link", "the next is linked behind it", second, words[first] & LINK);
    check_equal("fifo.link.2", "and one behind that", third, words[second] & LINK);
    check_true("fifo.quiet", "a queue that was ready makes no new upcall", !take_upcall());
    hv_evtchn_send(first);
    check_true("fifo.once", "what is linked is not linked again",
               words[first] == (PENDING | LINKED | second));
    check_equal("fifo.take", "in the order in which they happened", 3,
                take_queue(DEFAULT, &last));
    check_equal("fifo.last", "the last one last", third, last);
    hv_evtchn_send(third);
    check_true("fifo.restart", "an emptied queue begins anew, even with its own tail",
               control->head[DEFAULT] == third && words[third] == (PENDING | LINKED));
    take_default();
    hv_evtchn_close(first);
    hv_evtchn_close(second);
    hv_evtchn_close(third);
}

static void test_masks(void)
{
    evtchn_port_t port = make_ipi();

    words[port] |= MASKED;
    hv_evtchn_send(port);
    check_true("fifo.masked", "a masked event is pending, in no queue",
               words[port] == (PENDING | MASKED) && !control->ready && !take_upcall());
    hv_evtchn_unmask(port);
    check_true("fifo.unmask", "unmask puts it there",
               words[port] == (PENDING | LINKED) && control->ready == BIT(DEFAULT));
    take_default();
    hv_evtchn_unmask(port);
    check_equal("fifo.unmask.idle", "with nothing pending it does nothing", 0, words[port]);
    hv_evtchn_close(port);
}

static void test_priorities(void)
{
    evtchn_port_t high = make_ipi(), low = make_ipi();

    expect("fifo.priority", "set_priority", 0, set_priority(high, 0));
    set_priority(low, EVTCHN_FIFO_PRIORITY_MIN);
    hv_evtchn_send(low);
    hv_evtchn_send(high);
    check_equal("fifo.queues", "each priority has its queue", BIT(0) | BIT(15), control->ready);
    check_true("fifo.heads", "each queue its head",
               control->head[0] == high && control->head[15] == low);
    set_priority(high, DEFAULT);
    check_equal("fifo.stays", "what is queued stays where it is", high, control->head[0]);
    take_queue(0, NULL);
    take_queue(15, NULL);
    hv_evtchn_send(high);
    check_equal("fifo.moves", "its next event goes to the new queue", high,
                control->head[DEFAULT]);
    take_default();
    expect("fifo.priority.range", "16 priorities", -XEN_EINVAL, set_priority(high, 16));
    hv_evtchn_close(high);
    expect("fifo.priority.free", "a port in use", -XEN_EACCES, set_priority(high, 1));
    hv_evtchn_close(low);
}

static void test_ports(void)
{
    evtchn_port_t port = make_ipi(), other;

    hv_evtchn_send(port);
    hv_evtchn_close(port);
    check_equal("fifo.close", "close clears pending and leaves the link to the guest", LINKED,
                words[port]);
    other = make_ipi();
    check_true("fifo.busy", "a port that is still in a queue is not given again", other != port);
    check_equal("fifo.skipped", "taking it apart, the guest passes over it", 0, take_default());
    hv_evtchn_close(other);
    other = make_ipi();
    check_equal("fifo.free", "then it can be had", port < other ? port : other, other);
    hv_evtchn_close(other);
    expect("fifo.more", "a second page of words", 0, expand_array(virt_to_mfn(alloc_page())));
}

/* Only dom0, whose console is no event channel, can do without all its ports. */
static void test_reset(void)
{
    struct evtchn_reset reset = { .dom = DOMID_SELF };
    evtchn_port_t port;

    if (!is_dom0) {
        check_skip("fifo.reset", "EVTCHNOP_reset", "would close the console");
        return;
    }
    expect("fifo.reset", "reset closes all ports", 0,
           hv_event_channel_op(EVTCHNOP_reset, &reset));
    port = make_ipi();
    expect("fifo.reset.2l", "and goes back to the bitmaps", -XEN_ENOSYS, set_priority(port, 1));
    hv_evtchn_send(port);
    check_true("fifo.reset.bit", "where events are again", event_is_pending(port));
}

void test_fifo(void)
{
    evtchn_port_t waiting = make_ipi();

    event_mask(waiting);
    hv_evtchn_send(waiting);
    test_switch(waiting);
    hv_evtchn_close(waiting);
    test_linking();
    test_masks();
    test_priorities();
    test_ports();
    test_reset();
}
