/* SPDX-License-Identifier: MIT
 *
 * 1_first_trace.c - the whole of it: open, name the connection, record, close
 *
 *     cc -std=gnu11 -O2 -I. examples/1_first_trace.c -o 1_first_trace -pthread
 *     OJO_DIR=traces ./1_first_trace && ojo-cat traces
 *
 * Without OJO_DIR the tracer is NULL and every call returns at once: ship it like this.
 */
#define OJO_IMPLEMENTATION /* in one file of the program */
#include "ojo.h"
#include <stdlib.h>

int main(void) {
  ojo_tracer *trace;
  ojo_open(&trace, &(ojo_desc){.dir = getenv("OJO_DIR")});
  uint32_t flow = ojo_flow_open(trace, &(ojo_flow_desc){.role = OJO_ROLE_CLIENT, .label = "first"});
  ojo_packet_sent_sized(trace, flow, 0, 1200);  /* packet 0, 1,200 bytes */
  ojo_packet_acked_sized(trace, flow, 0, 1200); /* and its acknowledgement */
  return ojo_close(trace) != OJO_OK;
}
