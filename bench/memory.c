/* SPDX-License-Identifier: MIT
 *
 * memory.c - resident memory of a program that traces with ojo's defaults: after opening, at 1 M events/s, at full
 * speed, and at rest again once the pool's pages were given back. Each figure is this process's VmRSS, which counts
 * the pool's touched pages, less what it was before ojo_open.
 *
 *   memory DIR
 */
#include "bench.h"

#define OJO_IMPLEMENTATION
#include "ojo.h"

static double resident_mb(void) {
  char line[256];
  double kb = 0;
  FILE *f = fopen("/proc/self/status", "r");
  while (f && fgets(line, sizeof line, f))
    if (strncmp(line, "VmRSS:", 6) == 0) kb = strtod(line + 6, NULL);
  if (f) fclose(f);
  return kb / 1024;
}

static void sleep_ns(uint64_t ns) {
  struct timespec t = {(time_t)(ns / 1000000000u), (long)(ns % 1000000000u)};
  nanosleep(&t, NULL);
}

static uint64_t count;
static void record(ojo_tracer *t, uint64_t events) {
  for (uint64_t i = 0; i < events; i++, count++) ojo_packet_sent_sized(t, 1, count, 1200);
}

int main(int argc, char **argv) {
  if (argc != 2) {
    fprintf(stderr, "usage: memory DIR\n");
    return 2;
  }
  const uint64_t second = 1000000000u, ms = 1000000;
  struct bench_samples open = {{0}, 0}, paced = {{0}, 0}, full = {{0}, 0}, rest = {{0}, 0};
  ojo_desc d;
  ojo_tracer *t;
  memset(&d, 0, sizeof d);
  d.dir = argv[1];
  d.disk_bytes_max = (uint64_t)2 << 30;
  printf("%s", ""); /* stdout's buffer is not the tracer's */
  double before = resident_mb();
  if (ojo_open(&t, &d) != OJO_OK || !t) return 1;
  record(t, 1);
  bench_add(&open, resident_mb() - before);
  ojo_stats s = ojo_query_stats(t);
  uint64_t run = bench_scale(10 * second, 2 * second, second / 5), start = bench_wall_ns(), seen = start;
  for (uint64_t n = 0; bench_wall_ns() - start < run; n++) { /* 1,000 each millisecond */
    record(t, 1000);
    uint64_t now = bench_wall_ns(), due = start + (n + 1) * ms;
    if (now - seen > run / 100) bench_add(&paced, resident_mb() - before), seen = now;
    if (now < due) sleep_ns(due - now);
  }
  bench_row("memory", "ojo; opened; one event", 1, "MB", &open, NULL, 0, 0, "first chunks are populated ahead");
  s = ojo_query_stats(t);
  bench_row("memory", "ojo; 1 M events/s", 1, "MB", &paced, NULL, 0, (long long)s.dropped, "all of it; pool included");
  uint64_t dropped = s.dropped;
  run = bench_scale(3 * second, second, second / 5);
  for (seen = start = bench_wall_ns(); seen - start < run; seen = bench_wall_ns()) {
    record(t, 1000000);
    bench_add(&full, resident_mb() - before);
  }
  ojo_flush(t);
  s = ojo_query_stats(t);
  bench_row("memory", "ojo; full speed", 1, "MB", &full, NULL, 0, (long long)(s.dropped - dropped),
            "as much of the pool of 512 MiB as the disk's speed leaves full");
  /* Pages that nobody needed for some seconds are given back, a part with each pass. */
  sleep_ns(bench_scale(20 * second, 5 * second, second / 10));
  bench_add(&rest, resident_mb() - before);
  bench_row("memory", "ojo; at rest again", 1, "MB", &rest, NULL, 0, 0, "20 s later (a quick run: 5 s)");
  return ojo_close(t) != OJO_OK;
}
