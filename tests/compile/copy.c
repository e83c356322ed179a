/* SPDX-License-Identifier: MIT
 *
 * copy.c - one of several copies of the tracer in a program: compiled with -DCOPY=a -DOJO_STATIC and so
 * on, each exports COPY_open, COPY_record and COPY_close. Plain C and C++.
 */
#define OJO_IMPLEMENTATION
#include "ojo.h"

#define JOIN_(a, b) a##b
#define JOIN(a, b) JOIN_(a, b)

#ifdef __cplusplus
extern "C" {
#endif
struct ojo_tracer *JOIN(COPY, _open)(const char *dir);
uint32_t JOIN(COPY, _record)(struct ojo_tracer *t, unsigned count);
uint64_t JOIN(COPY, _close)(struct ojo_tracer *t);
#ifdef __cplusplus
}
#endif

struct ojo_tracer *JOIN(COPY, _open)(const char *dir) {
  ojo_tracer *t;
  ojo_desc desc = ojo_query_desc(NULL);
  desc.dir = dir;
  desc.buffer_bytes = 8 << 20;
  return ojo_open(&t, &desc) == OJO_OK ? t : NULL;
}

/* Into a tracer that any copy opened; returns a flow id made by this copy. */
uint32_t JOIN(COPY, _record)(struct ojo_tracer *t, unsigned count) {
  unsigned i;
  uint32_t flow;
  t = ojo_adopt(t);
  flow = ojo_flow_open(t, NULL);
  for (i = 0; i < count; i++) ojo_packet_sent_sized(t, flow, i, 1200);
  ojo_flow_stream(t, flow, 4);
  return flow;
}

/* How many events it recorded and wrote; 0 if these differ. */
uint64_t JOIN(COPY, _close)(struct ojo_tracer *t) {
  ojo_stats stats;
  if (ojo_flush(t) != OJO_OK) return 0;
  stats = ojo_query_stats(t);
  if (ojo_close(t) != OJO_OK || stats.dropped || stats.written != stats.recorded) return 0;
  return stats.recorded;
}
