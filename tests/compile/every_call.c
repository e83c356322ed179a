/* SPDX-License-Identifier: MIT
 *
 * every_call.c - an instrumented source that makes every call of ojo.h. Plain C99 and C++11: compiled by
 * tests/compile.sh as C and C++, with the tracer and with OJO_DISABLE, and run where there is a tracer.
 */
#include "ojo.h"

ojo_tracer *every_call_open(const char *dir);
int every_call(ojo_tracer *t);

ojo_tracer *every_call_open(const char *dir) {
  static ojo_type types[1];
  ojo_tracer *t = NULL;
  ojo_desc desc = ojo_query_desc(NULL);
  types[0].value = OJO_APPLICATION_TYPE_FIRST;
  types[0].name = "PROBE_SENT";
  desc.dir = dir;
  desc.types = types;
  desc.type_count = 1;
  desc.clock = OJO_CLOCK_MANUAL;
  desc.overflow = OJO_OVERFLOW_DROP_NEWEST;
  if (ojo_open(&t, &desc) != OJO_OK) return NULL;
  return t;
}

/* Returns how many events were recorded if t records. */
int every_call(ojo_tracer *t) {
  ojo_flow_desc flow_desc;
  ojo_metrics_values last = {0, 0, 0, 0, 0, 0, 0, 0}, now = {1, 2, 3, 4, 5, 6, 7, 8};
  uint32_t flow, stream;
  uint64_t stamp = ojo_now(t);
  int n = 0;
  unsigned char *raw = (unsigned char *)&flow_desc;
  size_t i;
  for (i = 0; i < sizeof flow_desc; i++) raw[i] = 0;
  flow_desc.kind = OJO_FLOW_CONNECTION;
  flow_desc.role = OJO_ROLE_CLIENT;

#define PLAIN(helper) ojo_##helper(t, 1, 2), ojo_##helper##_at(t, stamp, 1, 2), n += 2
#define WITH_SIZE(helper) \
  PLAIN(helper), ojo_##helper##_sized(t, 1, 2, 3), ojo_##helper##_sized_at(t, stamp, 1, 2, 3), n += 2
#define CALLS_NONE(helper) PLAIN(helper)
#define CALLS_RECORD(helper) PLAIN(helper)
#define CALLS_NUMBER(helper) WITH_SIZE(helper)
#define CALLS_RANGE(helper) WITH_SIZE(helper)
#define X(value, NAME, helper, category, KIND, payload, size) CALLS_##KIND(helper);
  OJO_EVENTS(X)
#undef X

  flow = ojo_flow_open(ojo_adopt(t), &flow_desc), n += 1;
  stream = ojo_flow_stream(t, flow, 4), n += 2;
  stream = ojo_flow_stream_at(t, stamp, flow, 8), n += 2;
  stream |= ojo_flow_child(flow, 64 + 8);
  ojo_record(t, stream, OJO_APPLICATION_TYPE_FIRST, 1), n += 1;
  ojo_record_at(t, stamp, flow, OJO_APPLICATION_TYPE_FIRST, 1), n += 1;
  ojo_record_sized(t, flow, OJO_APPLICATION_TYPE_FIRST, 1, 2), n += 1;
  ojo_record_sized_at(t, stamp, flow, OJO_APPLICATION_TYPE_FIRST, 1, 2), n += 1;
  ojo_record_ext(t, flow, OJO_APPLICATION_TYPE_FIRST, 1, "x", 1), n += 1;
  ojo_record_ext_at(t, stamp, flow, OJO_APPLICATION_TYPE_FIRST, 1, "x", 1), n += 1;
  ojo_packet_retransmit(t, flow, 1, 2), n += 2;
  ojo_packet_retransmit_at(t, stamp, flow, 1, 2), n += 2;
  ojo_rtt_sample_full_at(t, stamp, flow, 1, 2, 3, 4), n += 1;
  ojo_metrics(t, flow, &last, &now), n += 5;
  now.cwnd = 9;
  ojo_metrics_at(t, stamp, flow, &last, &now), n += 1;
  ojo_flow_close(t, flow, ojo_unwrap(1, 2, 8), "done"), n += 1;
  ojo_events_dropped_at(t, stamp, 3, 1, 2, OJO_DROP_KERNEL_RING, 4), n += 1;
  if (ojo_bind_socket(t, flow, -1) == OJO_OK && ojo_query_stats(t).chunks) n = -1000; /* -1 is no socket */
  (void)ojo_recover(NULL);
  ojo_enable(t, OJO_CATEGORY_ALL);
  ojo_sample_flows(t, 1);
  ojo_set_now(t, 5);
  return ojo_result_string(ojo_flush(t)) ? n : -1;
}
