/* SPDX-License-Identifier: MIT
 *
 * latency.c - how long one call takes, each call timed by itself, with the flusher on
 *
 *   latency DIR    writes below DIR only, and removes what it wrote
 *
 *   latency             p50, p99 (and in rows of their own p99.9, p99.99 and the greatest) of millions of calls, from
 *                       the thread's second on: first touches of the pool and changes of chunk are in it. "paced":
 *                       blocks of 1,000 calls, a million a second of each subject, one tracer as ojo_open makes it by
 *                       default. A batch is more than the reserve, so the pool grows before the first one is written,
 *                       and that the recorder has page faults then shows. "from open": as fast as it goes within the
 *                       reserve, with a new tracer each time; no page is missing.
 *   latency histogram   how many calls took how long
 *
 * A call is timed from one reading of the processor's counter to the next; "clock pair" is two readings with nothing
 * between, and is in all the other figures too. Its steps, often 10 ns on virtual machines, are the figures' steps. The
 * subjects take turns block by block. Whether the thread was switched away, or a page was missing, is asked after each
 * block: as many of its slowest calls as there were switches are taken out and counted, if they took over 1 us.
 * Interrupts that switch nothing stay in: what they cost shows in the clock pair and the empty call alike.
 */
#include "scratch.h"

#define OJO_IMPLEMENTATION
#include "../ojo.h"

#include <sys/resource.h>

#if !defined(__x86_64__)
int main(void) {
  fprintf(stderr, "latency: left out: it reads the counter of x86-64\n");
  return 0;
}
#else
enum { BLOCK = 1000, FINE_NS = 4096, APART_NS = 1000 };

struct histogram {
  uint64_t fine[FINE_NS + 1]; /* by ns; the last: more, which are kept in `slow` */
  double *slow;
  uint64_t slow_count, slow_room, calls;
  uint64_t apart, disturbed, faults; /* calls taken out; blocks with switches; page faults */
};
static double ns_per_tick;

static void add(struct histogram *h, uint64_t ticks) {
  double ns = (double)ticks * ns_per_tick;
  h->calls++;
  h->fine[ns < FINE_NS ? (uint64_t)(ns + 0.5) : FINE_NS]++;
  if (ns < FINE_NS - 0.5) return;
  if (h->slow_count == h->slow_room) {
    h->slow_room = h->slow_room ? 2 * h->slow_room : 4096;
    h->slow = (double *)realloc(h->slow, h->slow_room * sizeof *h->slow);
    if (!h->slow) exit(1);
  }
  h->slow[h->slow_count++] = ns;
}

/* The time that the share q of the calls took at most. */
static double quantile(struct histogram *h, double q) {
  uint64_t rank = (uint64_t)(q * (double)h->calls + 0.999999), sum = 0;
  if (rank > h->calls) rank = h->calls;
  if (rank < 1) rank = 1;
  for (uint64_t ns = 0; ns < FINE_NS; ns++)
    if ((sum += h->fine[ns]) >= rank) return (double)ns;
  qsort(h->slow, h->slow_count, sizeof *h->slow, bench_by_value);
  return h->slow_count ? h->slow[h->slow_count - (h->calls - rank) - 1] : 0;
}

/* ---- one block of a subject ------------------------------------------------------------------- */

static uint64_t ticks_before(void) {
  __builtin_ia32_lfence();
  return __builtin_ia32_rdtsc();
}
static uint64_t ticks_behind(void) {
  unsigned processor;
  uint64_t ticks = __builtin_ia32_rdtscp(&processor); /* waits for what comes before it */
  __builtin_ia32_lfence();
  return ticks;
}

__attribute__((noinline)) static void nothing(ojo_tracer *t, uint32_t flow, uint32_t type, uint64_t payload) {
  __asm__ volatile("" : : "r"(t), "r"(flow), "r"(type), "r"(payload) : "memory");
}

static uint32_t took[BLOCK];

#define BLOCK_OF(name, call)                                         \
  __attribute__((noinline)) static void name(ojo_tracer *t) {        \
    for (uint64_t i = 0; i < BLOCK; i++) {                           \
      uint64_t start = ticks_before();                               \
      call;                                                          \
      __asm__ volatile("" : "+r"(t) : : "memory");                   \
      uint64_t ticks = ticks_behind() - start;                       \
      took[i] = ticks < UINT32_MAX ? (uint32_t)ticks : UINT32_MAX;   \
    }                                                                \
  }
BLOCK_OF(block_pair, (void)0)
BLOCK_OF(block_empty, nothing(t, 1, OJO_PACKET_SENT, i))
BLOCK_OF(block_record, ojo_record(t, 1, OJO_PACKET_SENT, i))
BLOCK_OF(block_record_at, ojo_record_at(t, i, 1, OJO_PACKET_SENT, i))

enum { PAIR, EMPTY, RECORD, RECORD_AT, SUBJECTS };
static const char *const names[SUBJECTS] = {"clock pair", "empty call", "ojo_record", "ojo_record_at"};
static void (*const blocks[SUBJECTS])(ojo_tracer *) = {block_pair, block_empty, block_record, block_record_at};

static int by_ticks(const void *a, const void *b) {
  uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
  return (x < y) - (x > y); /* the greatest first */
}

static void measure_block(struct histogram *h, int subject, ojo_tracer *t) {
  struct rusage before, after;
  getrusage(RUSAGE_THREAD, &before);
  blocks[subject](t);
  getrusage(RUSAGE_THREAD, &after);
  long switches = after.ru_nivcsw - before.ru_nivcsw + after.ru_nvcsw - before.ru_nvcsw;
  int first = 0;
  h->faults += (uint64_t)(after.ru_minflt - before.ru_minflt + after.ru_majflt - before.ru_majflt);
  if (switches) {
    h->disturbed++;
    qsort(took, BLOCK, sizeof *took, by_ticks);
    while (first < BLOCK && first < switches && (double)took[first] * ns_per_tick > APART_NS) first++;
    h->apart += (uint64_t)first;
  }
  for (int i = first; i < BLOCK; i++) add(h, took[i]);
}

/* ---- rows ------------------------------------------------------------------------------------- */

static void row(const char *subject, const char *unit, double value, long long dropped, const char *note) {
  struct bench_samples s = {.count = 0};
  bench_add(&s, value);
  bench_row("latency", subject, 1, unit, &s, NULL, 0, dropped, note);
}

static void report(struct histogram *h, const char *name, const char *mode, long long dropped) {
  static const double upper[] = {10, 20, 30, 40, 50, 60, 80, 100, 150, 200, 500, 1000, 2000, 4000, 10000, 100000,
                                 1000000, 1e12};
  char subject[128], note[128];
  double p50 = quantile(h, 0.5), p99 = quantile(h, 0.99), p999 = quantile(h, 0.999);
  snprintf(subject, sizeof subject, "%s; %s", name, mode);
  printf("latency,%s,1,ns,%.4g,%.4g,%.4g,,,%llu,", subject, quantile(h, 0), p50, p99, (unsigned long long)h->calls);
  if (dropped >= 0) printf("%lld", dropped);
  printf(",p99 is p50 + %.0f ns; p99.9 is p50 + %.0f ns\n", p99 - p50, p999 - p50);
  row(subject, "ns at p99.9", p999, -1, "");
  row(subject, "ns at p99.99", quantile(h, 0.9999), -1, "");
  row(subject, "ns at most", quantile(h, 1), -1, "");
  snprintf(note, sizeof note, "of %llu blocks in which the thread was switched away", (unsigned long long)h->disturbed);
  row(subject, "calls taken out", (double)h->apart, -1, note);
  row(subject, "page faults", (double)h->faults, -1, "");
  uint64_t ns = 0, slow = 0;
  for (size_t i = 0; i < sizeof upper / sizeof *upper; i++) {
    struct bench_samples s = {.count = 0};
    uint64_t count = 0;
    for (; ns < FINE_NS && (double)ns <= upper[i]; ns++) count += h->fine[ns];
    for (; slow < h->slow_count && upper[i] > 4000 && h->slow[slow] <= upper[i]; slow++) count++; /* sorted above */
    bench_add(&s, (double)count);
    snprintf(note, sizeof note, "up to %.0f ns", upper[i]);
    if (upper[i] > 1e11) snprintf(note, sizeof note, "more");
    bench_row("latency histogram", subject, 1, "calls", &s, NULL, 0, -1, note);
  }
}

/* ---- the two ways ----------------------------------------------------------------------------- */

static ojo_tracer *open_tracer(const char *dir) {
  ojo_tracer *t;
  ojo_desc d;
  memset(&d, 0, sizeof d);
  d.dir = dir;
  d.disk_bytes_max = 64u << 20;
  if (ojo_open(&t, &d) != OJO_OK || !t) exit(1);
  return t;
}

static void report_all(struct histogram *h, const char *mode, uint64_t dropped) {
  for (int s = 0; s < SUBJECTS; s++) {
    quantile(&h[s], 1); /* sorts the slow ones */
    report(&h[s], names[s], mode, s == RECORD || s == RECORD_AT ? (long long)dropped : -1);
    free(h[s].slow);
  }
}

/* A block of each subject in a ms; the rest of it is spun away, as a program would have other work. */
static void paced(const char *dir) {
  static struct histogram h[SUBJECTS];
  ojo_tracer *t = open_tracer(dir);
  ojo_record(t, 1, OJO_PACKET_SENT, 0);
  uint64_t start = bench_wall_ns(), count = bench_scale(4000, 1500, 300);
  for (uint64_t b = 0; b < count; b++) {
    while (bench_wall_ns() < start + b * 1000000u) {}
    for (int s = 0; s < SUBJECTS; s++) measure_block(&h[s], s, t);
  }
  uint64_t dropped = ojo_query_stats(t).dropped;
  ojo_close(t);
  report_all(h, "paced", dropped);
}

/* Each tracer's reserve, at most nine tenths of it: what the flusher populates meanwhile is not counted on. */
static void from_open(const char *dir) {
  static struct histogram h[SUBJECTS];
  uint64_t tracers = bench_scale(50, 15, 2), dropped = 0;
  for (uint64_t i = 0; i < tracers; i++) {
    ojo_tracer *t = open_tracer(dir);
    uint64_t slots = ojo_query_desc(t).reserve_bytes / OJO_SLOT_BYTES * 9 / 10;
    ojo_record(t, 1, OJO_PACKET_SENT, 0);
    for (uint64_t b = 0; b < slots / (2 * BLOCK); b++)
      for (int s = 0; s < SUBJECTS; s++) measure_block(&h[s], s, t);
    dropped += ojo_query_stats(t).dropped;
    ojo_close(t);
  }
  report_all(h, "from open", dropped);
}

static void calibrate(void) {
  uint64_t ns = bench_wall_ns(), ticks = ticks_before(), end;
  while ((end = bench_wall_ns()) < ns + 50000000u) {}
  ns_per_tick = (double)(end - ns) / (double)(ticks_behind() - ticks);
}

int main(int count, char **argument) {
  char dir[4096];
  if (count != 2) {
    fprintf(stderr, "usage: latency DIR\n");
    return 2;
  }
  scratch_make(dir, sizeof dir, argument[1], "latency");
  memset(took, 1, sizeof took); /* its pages are there */
  calibrate();
  paced(dir);
  from_open(dir);
  scratch_remove(dir);
  return 0;
}
#endif
