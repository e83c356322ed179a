/* SPDX-License-Identifier: MIT
 *
 * lttng.h - LTTng-UST as a rival: the tracepoint call. lttng.c runs the session that it is recorded in.
 */
#ifndef LTTNG_RIVAL_H
#define LTTNG_RIVAL_H
#include "lttng_events.h"

static inline __attribute__((unused)) int lttng_open(const char *dir) {
  (void)dir;
  return 0;
}
static inline __attribute__((always_inline, unused)) void lttng_record(uint64_t time, uint32_t flow, uint32_t type,
                                                                       uint64_t payload) {
  (void)time; /* LTTng takes none */
  lttng_ust_tracepoint(ojo_bench, event, type, flow, payload);
}
static inline __attribute__((unused)) uint64_t lttng_close(void) { return 0; } /* the session counts what was lost */
#endif
