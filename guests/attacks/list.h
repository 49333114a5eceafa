/* All attacks, one file each. */
#ifndef ATTACKS_LIST_H
#define ATTACKS_LIST_H

#define ATTACKS(X)                                                                                 \
    X(base_of_neighbour)                                                                           \
    X(bind_closed_port)                                                                            \
    X(call_gate)                                                                                   \
    X(clear_other_domain)                                                                          \
    X(copy_neighbour)                                                                              \
    X(copy_over_table)                                                                             \
    X(count_over_table)                                                                            \
    X(descriptor_neighbour)                                                                        \
    X(end_neighbour)                                                                               \
    X(exchange_of_neighbour)                                                                       \
    X(fifo_neighbour)                                                                              \
    X(fifo_over_table)                                                                             \
    X(free_mapped)                                                                                 \
    X(free_of_neighbour)                                                                           \
    X(gdt_forged)                                                                                  \
    X(gdt_writable)                                                                                \
    X(grant_too_much)                                                                              \
    X(iret_ring0)                                                                                  \
    X(ldt_writable)                                                                                \
    X(linear_circle)                                                                               \
    X(linear_writable)                                                                             \
    X(m2p_of_neighbour)                                                                            \
    X(map_neighbour)                                                                               \
    X(map_neighbour_batch)                                                                         \
    X(map_neighbour_pin)                                                                           \
    X(map_neighbour_store)                                                                         \
    X(map_neighbour_tree)                                                                          \
    X(map_neighbour_update)                                                                        \
    X(map_other_domain)                                                                            \
    X(map_table_writable)                                                                          \
    X(map_xen)                                                                                     \
    X(msr_efer)                                                                                    \
    X(pin_writable)                                                                                \
    X(populate_too_much)                                                                           \
    X(port_io)                                                                                     \
    X(result_in_hole)                                                                              \
    X(result_over_table)                                                                           \
    X(runstate_over_table)                                                                         \
    X(segment_ring0)                                                                               \
    X(spy_on_ports)                                                                                \
    X(stale_code)                                                                                  \
    X(stale_freed)                                                                                 \
    X(stale_writable)                                                                              \
    X(store_to_m2p)                                                                                \
    X(superpage)                                                                                   \
    X(task_segment)                                                                                \
    X(time_over_table)                                                                             \
    X(trap_ring0)                                                                                  \
    X(update_other_domain)                                                                         \
    X(user_reads_kernel)                                                                           \
    X(vcpu_info_neighbour)                                                                         \
    X(vcpu_info_over_table)                                                                        \
    X(vm86_frame)                                                                                  \
    X(vm86_interrupt)                                                                              \
    X(write_neighbour)                                                                             \
    X(xen_slot)

#endif
