/* SPDX-License-Identifier: MIT
 *
 * pool.c - ojo_record and ojo_record_at in bursts, ns of CPU time per call on one line: for bench/pool.sh, which runs
 * two builds of it by turns, one with the pool in /dev/shm and one with it in private memory (OJO_NO_TMPFS).
 *
 *   pool DIR
 */
#include "scratch.h"

#define OJO_IMPLEMENTATION
#include "../ojo.h"

int main(int argc, char **argv) {
  char dir[4096];
  if (argc != 2) {
    fprintf(stderr, "usage: pool DIR\n");
    return 2;
  }
  scratch_make(dir, sizeof dir, argv[1], "pool");
  struct bench_samples now = {{0}, 0}, at = {{0}, 0};
  uint64_t events = bench_scale(200000, 200000, 20000);
  ojo_desc d;
  ojo_tracer *t;
  memset(&d, 0, sizeof d);
  d.dir = dir;
  d.buffer_bytes = 64u << 20;
  d.reserve_bytes = 64u << 20; /* every page is there before it is measured */
  d.flush_bytes = 1u << 30;    /* the flusher works between bursts, when it is asked */
  d.flush_interval_ms = 100000;
  if (ojo_open(&t, &d) != OJO_OK || !t) return 1;
  for (int r = -1; r < 15; r++) {
    uint64_t start = bench_thread_ns();
    for (uint64_t i = 0; i < events; i++) ojo_record(t, 1, OJO_PACKET_SENT, i);
    double took = (double)(bench_thread_ns() - start) / (double)events;
    ojo_flush(t);
    if (r >= 0) bench_add(&now, took); /* the first burst makes the thread's context */
    start = bench_thread_ns();
    for (uint64_t i = 0; i < events; i++) ojo_record_at(t, i, 1, OJO_PACKET_SENT, i);
    took = (double)(bench_thread_ns() - start) / (double)events;
    ojo_flush(t);
    if (r >= 0) bench_add(&at, took);
  }
  ojo_stats s = ojo_query_stats(t);
  printf("%s %.3f %.3f %llu\n", s.crash_safe ? "shared" : "private", bench_median(&now), bench_median(&at),
         (unsigned long long)s.dropped);
  ojo_close(t);
  scratch_remove(dir);
  return 0;
}
