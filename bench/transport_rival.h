/* SPDX-License-Identifier: MIT
 *
 * transport_rival.h - examples/4_transport.c, unchanged, with another tracer than ojo
 *
 *   cc -include bench/transport_rival.h -DRIVAL=ring -DRIVAL_HEADER='"rivals/plain.h"' ... examples/4_transport.c
 *
 * ojo.h is compiled out, and the calls that the transport makes become calls of RIVAL_record(time, flow, type, payload)
 * with the same fields. A rival has it easier than ojo: an extension's bytes (a round-trip time's other three values)
 * are left out. bench/transfer.sh sees to it that no call of the transport is missing in the list below.
 */
#ifndef TRANSPORT_RIVAL_H
#define TRANSPORT_RIVAL_H
#if !defined(RIVAL) || !defined(RIVAL_HEADER)
#error "-DRIVAL=name and -DRIVAL_HEADER='\"header\"' say which tracer"
#endif
#define _GNU_SOURCE /* as the transport has it: it comes too late there */
#define OJO_DISABLE
#include "../ojo.h"
#include RIVAL_HEADER

#include <stdio.h>

#define RIVAL_JOINED(name, what) name##_##what
#define RIVAL_JOIN(name, what) RIVAL_JOINED(name, what)
#define RIVAL_CALLS static inline __attribute__((always_inline, unused))

RIVAL_CALLS void rival_at(ojo_tracer *t, uint64_t time, uint32_t flow, uint32_t type, uint64_t payload) {
  if (t) RIVAL_JOIN(RIVAL, record)(time, flow, type, payload);
}
RIVAL_CALLS void rival_sized_at(ojo_tracer *t, uint64_t time, uint32_t flow, uint32_t type, uint64_t value,
                                uint64_t size) {
  rival_at(t, time, flow, type | OJO_SIZED, value | size << OJO_SIZED_VALUE_BITS);
}
#define OJO__X(value, NAME, helper, category, KIND, payload, size)                                                \
  RIVAL_CALLS void rival_##helper##_at(ojo_tracer *t, uint64_t time, uint32_t flow, uint64_t number) {            \
    rival_at(t, time, flow, OJO_##NAME, number);                                                                  \
  }                                                                                                               \
  RIVAL_CALLS void rival_##helper##_sized_at(ojo_tracer *t, uint64_t time, uint32_t flow, uint64_t number,        \
                                             uint64_t second) {                                                   \
    rival_sized_at(t, time, flow, OJO_##NAME, number, second);                                                    \
  }
OJO_EVENTS(OJO__X)
#undef OJO__X

static ojo_tracer rival_tracer; /* its address says that tracing is on */

RIVAL_CALLS ojo_result rival_open(ojo_tracer **out, const ojo_desc *desc) {
  *out = desc->dir && *desc->dir && RIVAL_JOIN(RIVAL, open)(desc->dir) == 0 ? &rival_tracer : NULL;
  return OJO_OK;
}
RIVAL_CALLS ojo_result rival_close(ojo_tracer *t) {
  uint64_t lost = t ? RIVAL_JOIN(RIVAL, close)() : 0;
  if (lost) fprintf(stderr, "lost %llu\n", (unsigned long long)lost);
  return OJO_OK;
}
RIVAL_CALLS uint32_t rival_flow_open(ojo_tracer *t, const ojo_flow_desc *desc) {
  rival_at(t, 0, 1, OJO_FLOW, desc->key);
  return 1;
}
RIVAL_CALLS uint32_t rival_flow_stream_at(ojo_tracer *t, uint64_t time, uint32_t parent, uint64_t stream_id) {
  uint32_t flow = ojo_flow_child(parent, stream_id + 64u);
  rival_at(t, time, flow, OJO_STREAM_OPENED, stream_id);
  rival_at(t, time, flow, OJO_STREAM_LINK_PARENT, parent);
  return flow;
}
RIVAL_CALLS void rival_ext_at(ojo_tracer *t, uint64_t time, uint32_t flow, uint32_t type, uint64_t payload,
                              const void *bytes, size_t length) {
  (void)bytes, (void)length;
  rival_at(t, time, flow, type, payload);
}
RIVAL_CALLS void rival_retransmit_at(ojo_tracer *t, uint64_t time, uint32_t flow, uint64_t old_number,
                                     uint64_t new_number) {
  rival_at(t, time, flow, OJO_PACKET_RETRANSMIT_OLD, old_number);
  rival_at(t, time, flow, OJO_PACKET_RETRANSMIT_NEW, new_number);
}
RIVAL_CALLS void rival_mtu_updated(ojo_tracer *t, uint32_t flow, uint64_t bytes) {
  rival_at(t, 0, flow, OJO_MTU_UPDATED, bytes);
}
RIVAL_CALLS void rival_bind_socket(ojo_tracer *t, uint32_t flow, int fd) {
  rival_at(t, 0, flow, OJO_SOCKET_BOUND, (uint64_t)fd);
}
/* What ojo_metrics_at does with the numbers that this transport has. */
RIVAL_CALLS void rival_metrics_at(ojo_tracer *t, uint64_t time, uint32_t flow, ojo_metrics_values *last,
                                  const ojo_metrics_values *now) {
  if (now->cwnd != last->cwnd && now->cwnd) rival_at(t, time, flow, OJO_CWND_UPDATED, now->cwnd);
  if (now->ssthresh != last->ssthresh && now->ssthresh && now->ssthresh != UINT64_MAX)
    rival_at(t, time, flow, OJO_SSTHRESH_UPDATED, now->ssthresh);
  if (now->bytes_in_flight != last->bytes_in_flight)
    rival_at(t, time, flow, OJO_BYTES_IN_FLIGHT, now->bytes_in_flight);
  if (now->latest_rtt_ns &&
      (now->latest_rtt_ns != last->latest_rtt_ns || now->smoothed_rtt_ns != last->smoothed_rtt_ns ||
       now->min_rtt_ns != last->min_rtt_ns || now->rtt_variation_ns != last->rtt_variation_ns))
    rival_at(t, time, flow, OJO_RTT_SAMPLE, now->latest_rtt_ns);
  *last = *now;
}

#define ojo_open rival_open
#define ojo_close rival_close
#define ojo_flow_open rival_flow_open
#define ojo_flow_stream_at rival_flow_stream_at
#define ojo_record_ext_at rival_ext_at
#define ojo_packet_retransmit_at rival_retransmit_at
#define ojo_metrics_at rival_metrics_at
#define ojo_mtu_updated rival_mtu_updated
#define ojo_bind_socket rival_bind_socket
#define ojo_ack_received_sized_at rival_ack_received_sized_at
#define ojo_ack_sent_sized_at rival_ack_sent_sized_at
#define ojo_congestion_state_at rival_congestion_state_at
#define ojo_connection_blocked_at rival_connection_blocked_at
#define ojo_connection_max_data_granted_at rival_connection_max_data_granted_at
#define ojo_connection_max_data_update_at rival_connection_max_data_update_at
#define ojo_connection_state_at rival_connection_state_at
#define ojo_datagram_received_sized_at rival_datagram_received_sized_at
#define ojo_datagram_sent_sized_at rival_datagram_sent_sized_at
#define ojo_loss_timer_expired_at rival_loss_timer_expired_at
#define ojo_loss_timer_set_at rival_loss_timer_set_at
#define ojo_offset_acked_sized_at rival_offset_acked_sized_at
#define ojo_offset_lost_sized_at rival_offset_lost_sized_at
#define ojo_offset_received_sized_at rival_offset_received_sized_at
#define ojo_offset_retransmitted_sized_at rival_offset_retransmitted_sized_at
#define ojo_offset_sent_sized_at rival_offset_sent_sized_at
#define ojo_packet_acked_sized_at rival_packet_acked_sized_at
#define ojo_packet_dropped_sized_at rival_packet_dropped_sized_at
#define ojo_packet_lost_duplicate_ack_sized_at rival_packet_lost_duplicate_ack_sized_at
#define ojo_packet_lost_spurious_sized_at rival_packet_lost_spurious_sized_at
#define ojo_packet_lost_timeout_sized_at rival_packet_lost_timeout_sized_at
#define ojo_packet_received_sized_at rival_packet_received_sized_at
#define ojo_packet_sent_sized_at rival_packet_sent_sized_at
#define ojo_peer_blocked_at rival_peer_blocked_at
#define ojo_sender_limited_at rival_sender_limited_at
#define ojo_stream_blocked_at rival_stream_blocked_at
#define ojo_stream_closed_at rival_stream_closed_at
#define ojo_stream_fin_acked_at rival_stream_fin_acked_at
#define ojo_stream_fin_received_at rival_stream_fin_received_at
#define ojo_stream_fin_sent_at rival_stream_fin_sent_at
#define ojo_stream_max_data_granted_at rival_stream_max_data_granted_at
#define ojo_stream_max_data_update_at rival_stream_max_data_update_at
#endif
