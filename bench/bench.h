/* SPDX-License-Identifier: MIT
 *
 * bench.h - what the benchmarks share: time, samples, and rows.
 *
 * Each program measures one group of cases and prints a CSV row for each result to stdout; talk goes to stderr. The
 * header is printed by bench/run, which joins the programs' rows in bench/results/results.csv:
 *
 *   case      what was measured: "record", "latency", "sustained", ...
 *   subject   whose figure it is: "ojo_record", "lttng-ust", "memcpy", ...
 *   threads   recording (or reading) threads
 *   unit      "ns/event", "M events/s", "GB/s", "ms", "MB", ...
 *   min, median, p99   of `runs` runs (of all calls for latencies)
 *   ratio     median / median of `against` (rates: the same way round), empty without one
 *   against   the subject it was compared with, measured in the same run by turns
 *   runs      how many
 *   dropped   events that the subject lost or refused, all runs together; empty where none can be
 *   note      one phrase, without a comma
 *
 * BENCH_BRIEF=1 in the environment: as short as works, to see that it does. BENCH_QUICK=1: under a minute in all.
 */
#ifndef BENCH_H
#define BENCH_H
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static inline uint64_t bench_clock(clockid_t clock) {
  struct timespec t;
  clock_gettime(clock, &t);
  return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}
static inline uint64_t bench_wall_ns(void) { return bench_clock(CLOCK_MONOTONIC); }
static inline uint64_t bench_thread_ns(void) { return bench_clock(CLOCK_THREAD_CPUTIME_ID); }
static inline uint64_t bench_process_ns(void) { return bench_clock(CLOCK_PROCESS_CPUTIME_ID); }

/* How much of a thing to do: `full`, or less for a quick or a brief run. */
static inline uint64_t bench_scale(uint64_t full, uint64_t quick, uint64_t brief) {
  const char *b = getenv("BENCH_BRIEF"), *q = getenv("BENCH_QUICK");
  return b && *b == '1' ? brief : q && *q == '1' ? quick : full;
}

/* Keeps a loop or a value that the compiler sees no use for. */
#define BENCH_KEEP(value) __asm__ volatile("" : : "r"(value) : "memory")

struct bench_samples {
  double value[512];
  int count;
};
static inline void bench_add(struct bench_samples *s, double value) {
  if (s->count < (int)(sizeof s->value / sizeof *s->value)) s->value[s->count++] = value;
}
static inline int bench_by_value(const void *a, const void *b) {
  double x = *(const double *)a, y = *(const double *)b;
  return (x > y) - (x < y);
}
/* The value that the share q of the samples is at or below (nearest rank). Sorts them. */
static inline double bench_quantile(struct bench_samples *s, double q) {
  if (!s->count) return 0;
  qsort(s->value, (size_t)s->count, sizeof *s->value, bench_by_value);
  int rank = (int)(q * s->count + 0.999999) - 1;
  return s->value[rank < 0 ? 0 : rank >= s->count ? s->count - 1 : rank];
}
static inline double bench_median(struct bench_samples *s) { return bench_quantile(s, 0.5); }

/* One row. against NULL: no ratio. dropped < 0: none can be. */
static inline void bench_row(const char *what, const char *subject, int threads, const char *unit,
                             struct bench_samples *s, const char *against, double against_median, long long dropped,
                             const char *note) {
  double median = bench_median(s);
  printf("%s,%s,%d,%s,%.4g,%.4g,%.4g,", what, subject, threads, unit, bench_quantile(s, 0), median,
         bench_quantile(s, 0.99));
  if (against && against_median > 0) printf("%.3f,%s,", median / against_median, against);
  else printf(",,");
  printf("%d,", s->count);
  if (dropped >= 0) printf("%lld", dropped);
  printf(",%s\n", note ? note : "");
  fflush(stdout);
}
#endif
