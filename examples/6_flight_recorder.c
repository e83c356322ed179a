/* SPDX-License-Identifier: MIT
 *
 * 6_flight_recorder.c - always on, and nothing written until it matters
 *
 *     cc -std=gnu11 -O2 -I. examples/6_flight_recorder.c -o 6_flight_recorder -pthread
 *     OJO_DIR=traces ./6_flight_recorder && ojo-cat traces | tail
 *
 * A tracer with OJO_OVERFLOW_DROP_OLDEST keeps the newest events of every thread in its pool, and overwrites the
 * oldest. A snapshot of it is a trace file like any other:
 *   - when the program finds something odd: ojo_snapshot (below, a round trip of more than 300 ms);
 *   - when you ask for it: kill -USR1 PID;
 *   - when it crashes: ojo_dump_on_crash;
 *   - after kill -9 too: the pool is still there, and ojo-cat --recover DIR writes what was in it.
 */
#define OJO_IMPLEMENTATION
#include "ojo.h"
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>

enum { PACKETS = 1000000, ODD = 900000 };

/* Round trips in ns: about 20 ms, but for one packet. */
static uint64_t round_trip(uint64_t number) { return number == ODD ? 412000000 : 20000000 + number % 977 * 1000; }

int main(void) {
  ojo_tracer *trace;
  ojo_desc desc = {
      .dir = getenv("OJO_DIR"),
      .overflow = OJO_OVERFLOW_DROP_OLDEST,
      .buffer_bytes = 8u << 20, /* about 300,000 events: how far back a snapshot reaches */
  };
  if (ojo_open(&trace, &desc) != OJO_OK) return 1;
  ojo_snapshot_on_signal(trace, SIGUSR1, NULL); /* NULL: a file of its own in DIR/output/ */
  ojo_dump_on_crash(trace);

  /* FLOW, which describes it, is overwritten as well in time: log ids that you want to find later. */
  uint32_t flow = ojo_flow_open(trace, &(ojo_flow_desc){.label = "always on"});
  for (uint64_t number = 0; number < PACKETS; number++) {
    uint64_t now = ojo_now(trace), rtt = round_trip(number);
    ojo_packet_sent_sized_at(trace, now, flow, number, 1200);
    ojo_rtt_sample_at(trace, now, flow, rtt);
    if (rtt > 300000000 && ojo_snapshot(trace, NULL) != OJO_OK) fprintf(stderr, "no snapshot\n");
  }
  ojo_close(trace); /* writes nothing */
  return 0;
}
