/* SPDX-License-Identifier: MIT
 *
 * hot.c - what a record costs the thread that records, against a loop that only reads the clock
 *
 *   hot DIR    writes below DIR only, and removes what it wrote
 *
 * CPU time of the recording threads per call, for 1, 2, 4 and 16 of them, all subjects by turns in each round:
 *
 *   hot             bursts that fit the populated part of the pool; the flusher writes between them
 *   hot full speed  a tracer as ojo_open makes it by default: the flusher writes while the threads record
 *   hot from open   the first events after ojo_open, first touches of the pool included
 *   hot total rate  events per second of wall time, all threads together, in bursts
 *
 * A sample is one round: the mean of its threads. What was dropped is in the rows; a dropped event is a call too.
 */
#include "pin.h"
#include "scratch.h"

#define OJO_IMPLEMENTATION
#include "../ojo.h"

void hot_disabled(uint64_t calls); /* hot_disabled.c */

enum { THREADS_MAX = 16, FLOW = 1 };

/* ---- the subjects: each is a loop of its own, as a program's would be ------------------------- */

static volatile uint64_t sink;
static unsigned char extension[4 * OJO_SLOT_BYTES];

__attribute__((noinline)) static void nothing(ojo_tracer *t, uint32_t flow, uint32_t type, uint64_t payload) {
  __asm__ volatile("" : : "r"(t), "r"(flow), "r"(type), "r"(payload) : "memory");
}

#define LOOP(name, call)                                                                  \
  __attribute__((noinline)) static void name(ojo_tracer *t, uint64_t calls) {             \
    for (uint64_t i = 0; i < calls; i++) {                                                \
      call;                                                                               \
      __asm__ volatile("" : "+r"(t) : : "memory"); /* t may be another one, each time */  \
    }                                                                                     \
  }
LOOP(loop_empty, nothing(t, FLOW, OJO_PACKET_SENT, i))
LOOP(loop_clock, sink = ojo__raw_now(t))
LOOP(loop_record, ojo_record(t, FLOW, OJO_PACKET_SENT, i))
LOOP(loop_record_at, ojo_record_at(t, i, FLOW, OJO_PACKET_SENT, i))
LOOP(loop_sized, ojo_packet_sent_sized(t, FLOW, i, 1200))
LOOP(loop_sized_at, ojo_packet_sent_sized_at(t, i, FLOW, i, 1200))
LOOP(loop_ext_1, ojo_record_ext(t, FLOW, OJO_RTT_SAMPLE, i, extension, OJO_SLOT_BYTES))
LOOP(loop_ext_4, ojo_record_ext(t, FLOW, OJO_RTT_SAMPLE, i, extension, 4 * OJO_SLOT_BYTES))

static void loop_null(ojo_tracer *t, uint64_t calls) {
  (void)t;
  loop_record(NULL, calls);
}
static void loop_disabled(ojo_tracer *t, uint64_t calls) {
  (void)t;
  hot_disabled(calls);
}

enum { CLOCK, EMPTY, RECORD, RECORD_AT, SIZED, SIZED_AT, EXT_1, EXT_4, FILTERED, SAMPLED, OFF, DISABLED, SUBJECTS };
static const struct subject {
  const char *name;
  void (*loop)(ojo_tracer *t, uint64_t calls);
  uint64_t slots;           /* that a call takes of the pool; 0: it records nothing */
  uint32_t mask, one_in;    /* for ojo_enable and ojo_sample_flows */
} subjects[SUBJECTS] = {
  [CLOCK] = {"clock alone", loop_clock, 0, OJO_CATEGORY_ALL, 1},
  [EMPTY] = {"empty call", loop_empty, 0, OJO_CATEGORY_ALL, 1},
  [RECORD] = {"ojo_record", loop_record, 1, OJO_CATEGORY_ALL, 1},
  [RECORD_AT] = {"ojo_record_at", loop_record_at, 1, OJO_CATEGORY_ALL, 1},
  [SIZED] = {"ojo_packet_sent_sized", loop_sized, 1, OJO_CATEGORY_ALL, 1},
  [SIZED_AT] = {"ojo_packet_sent_sized_at", loop_sized_at, 1, OJO_CATEGORY_ALL, 1},
  [EXT_1] = {"ojo_record_ext of 24 bytes", loop_ext_1, 2, OJO_CATEGORY_ALL, 1},
  [EXT_4] = {"ojo_record_ext of 96 bytes", loop_ext_4, 5, OJO_CATEGORY_ALL, 1},
  [FILTERED] = {"ojo_record with its category off", loop_record, 0, OJO_CATEGORY_STREAM, 1},
  [SAMPLED] = {"ojo_record with its flow sampled out", loop_record, 0, OJO_CATEGORY_ALL, 1024},
  [OFF] = {"ojo_record with tracer NULL", loop_null, 0, OJO_CATEGORY_ALL, 1},
  [DISABLED] = {"ojo_record under OJO_DISABLE", loop_disabled, 0, OJO_CATEGORY_ALL, 1},
};

/* ---- threads that run the subjects by turns --------------------------------------------------- */

struct run {
  ojo_tracer *t;
  int threads, rounds;
  bool recording; /* only the subjects that record, and the clock */
  uint64_t slots; /* that each thread may fill in one turn */
  pthread_barrier_t barrier;
  uint64_t arrived; /* at the start of a turn */
  uint64_t ns[THREADS_MAX][SUBJECTS]; /* of the round under way */
  struct bench_samples samples[SUBJECTS];
  ojo_stats before;                   /* the turn that is under way */
  uint64_t recorded[SUBJECTS], written[SUBJECTS], dropped[SUBJECTS]; /* in all turns; written: before their ends */
};
struct worker {
  pthread_t id;
  struct run *run;
  int index;
};

static bool takes_part(const struct run *run, int subject) {
  return !run->recording || subjects[subject].slots || subject == CLOCK;
}

static uint64_t calls_of(const struct run *run, int subject) {
  uint64_t slots = subjects[subject].slots;
  return run->slots / (slots ? slots : 1);
}

/* Between two turns: nobody records while the pool is emptied and what is recorded is changed. */
static void rest(struct run *run, int last, int next) {
  if (pthread_barrier_wait(&run->barrier) == PTHREAD_BARRIER_SERIAL_THREAD) {
    if (last >= 0) {
      ojo_stats now = ojo_query_stats(run->t);
      run->recorded[last] += now.recorded - run->before.recorded;
      run->written[last] += now.written - run->before.written;
      run->dropped[last] += now.dropped - run->before.dropped;
    }
    ojo_flush(run->t);
    run->before = ojo_query_stats(run->t);
    ojo_enable(run->t, subjects[next].mask);
    ojo_sample_flows(run->t, subjects[next].one_in);
  }
  pthread_barrier_wait(&run->barrier);
}

/* The round's means, by the thread that comes last; the others wait in the next rest(). */
static void round_done(struct run *run) {
  if (pthread_barrier_wait(&run->barrier) != PTHREAD_BARRIER_SERIAL_THREAD) return;
  for (int s = 0; s < SUBJECTS; s++) {
    uint64_t sum = 0;
    if (!takes_part(run, s)) continue;
    for (int i = 0; i < run->threads; i++) sum += run->ns[i][s];
    bench_add(&run->samples[s], (double)sum / (double)(calls_of(run, s) * (uint64_t)run->threads));
  }
}

static void *work(void *argument) {
  struct worker *self = (struct worker *)argument;
  struct run *run = self->run;
  uint64_t turn = 0;
  int last = -1;
  pin_thread(self->index, run->threads);
  for (int r = -1; r < run->rounds; r++) { /* round -1 warms up */
    for (int s = 0; s < SUBJECTS; s++) {
      if (!takes_part(run, s)) continue;
      rest(run, last, s);
      last = r < 0 ? -1 : s;
      pin_start(&run->arrived, run->threads, ++turn);
      uint64_t start = bench_thread_ns();
      subjects[s].loop(run->t, calls_of(run, s));
      run->ns[self->index][s] = bench_thread_ns() - start;
    }
    if (r >= 0) round_done(run);
  }
  rest(run, last, CLOCK);
  return NULL;
}

static void start_threads(pthread_t *id, void *(*body)(void *), void *argument) {
  if (pthread_create(id, NULL, body, argument)) {
    perror("hot: pthread_create");
    exit(1);
  }
}

static void run_threads(const char *what, struct run *run) {
  struct worker workers[THREADS_MAX];
  pthread_barrier_init(&run->barrier, NULL, (unsigned)run->threads);
  for (int i = 0; i < run->threads; i++) {
    workers[i].run = run;
    workers[i].index = i;
    start_threads(&workers[i].id, work, &workers[i]);
  }
  for (int i = 0; i < run->threads; i++) pthread_join(workers[i].id, NULL);
  pthread_barrier_destroy(&run->barrier);
  double clock = bench_median(&run->samples[CLOCK]);
  for (int s = 0; s < SUBJECTS; s++) {
    char note[64] = "";
    if (!takes_part(run, s)) continue;
    if (subjects[s].slots && run->recorded[s])
      snprintf(note, sizeof note, "%.0f %% were written meanwhile",
               100.0 * (double)run->written[s] / (double)run->recorded[s]);
    bench_row(what, subjects[s].name, run->threads, "ns/call", &run->samples[s], s == CLOCK ? NULL : "clock alone",
              clock, subjects[s].slots ? (long long)run->dropped[s] : -1, note);
  }
}

/* ---- tracers ---------------------------------------------------------------------------------- */

static const char *directory;

static ojo_tracer *open_tracer(ojo_desc d) {
  ojo_tracer *t;
  d.dir = directory;
  d.disk_bytes_max = 64u << 20; /* what is measured is not how much the disk holds */
  if (ojo_open(&t, &d) != OJO_OK || !t) exit(1);
  return t;
}

static ojo_desc for_bursts(void) {
  ojo_desc d;
  memset(&d, 0, sizeof d);
  d.buffer_bytes = 512u << 20;  /* at a quarter of it the flusher starts by itself */
  d.reserve_bytes = 128u << 20; /* every page that a burst uses is there before it is measured */
  d.flush_bytes = 1u << 30;     /* the flusher works between the bursts, when it is asked */
  d.flush_interval_ms = 100000;
  return d;
}

static void bursts(int threads) {
  struct run run = {.threads = threads, .rounds = (int)bench_scale(threads > 4 ? 9 : 25, 3, 2)};
  run.t = open_tracer(for_bursts());
  run.slots = bench_scale(200000, 200000, 10000);
  run_threads("hot", &run);
  ojo_close(run.t);
}

static void full_speed(int threads) {
  struct run run = {.threads = threads, .rounds = (int)bench_scale(5, 1, 1), .recording = true};
  ojo_desc d;
  memset(&d, 0, sizeof d);
  run.t = open_tracer(d);
  run.slots = bench_scale(8000000, 4000000, 200000) / (uint64_t)threads; /* at most 40 % of the pool */
  run_threads("hot full speed", &run);
  ojo_close(run.t);
}

static void from_open(void) {
  struct bench_samples samples = {.count = 0};
  uint64_t calls = bench_scale(1000000, 1000000, 100000), dropped = 0;
  for (uint64_t r = bench_scale(9, 5, 1); r; r--) {
    ojo_desc d;
    memset(&d, 0, sizeof d);
    ojo_tracer *t = open_tracer(d);
    uint64_t start = bench_thread_ns();
    loop_record(t, calls);
    bench_add(&samples, (double)(bench_thread_ns() - start) / (double)calls);
    dropped += ojo_query_stats(t).dropped;
    ojo_close(t);
  }
  bench_row("hot from open", "ojo_record", 1, "ns/call", &samples, NULL, 0, (long long)dropped,
            "the first million events with first touches");
}

/* ---- all threads' rate: as many events in each burst, whoever records them -------------------- */

struct rate_worker {
  pthread_t id;
  ojo_tracer *t;
  pthread_barrier_t *barrier;
  int index, threads;
  uint64_t calls, start, end;
};

static void *rate_work(void *argument) {
  struct rate_worker *self = (struct rate_worker *)argument;
  pin_thread(self->index, self->threads);
  loop_record(self->t, 1); /* the thread's registration is not the rate's */
  pthread_barrier_wait(self->barrier);
  self->start = bench_wall_ns();
  loop_record(self->t, self->calls);
  self->end = bench_wall_ns();
  return NULL;
}

/* Events per microsecond, from the first thread's start to the last one's end. */
static double rate_burst(ojo_tracer *t, int threads, uint64_t events) {
  struct rate_worker workers[THREADS_MAX];
  pthread_barrier_t barrier;
  uint64_t start = UINT64_MAX, end = 0;
  pthread_barrier_init(&barrier, NULL, (unsigned)threads);
  for (int i = 0; i < threads; i++) {
    workers[i] = (struct rate_worker){.t = t, .barrier = &barrier, .index = i, .threads = threads,
                                      .calls = events / (uint64_t)threads};
    start_threads(&workers[i].id, rate_work, &workers[i]);
  }
  for (int i = 0; i < threads; i++) {
    pthread_join(workers[i].id, NULL);
    if (workers[i].start < start) start = workers[i].start;
    if (workers[i].end > end) end = workers[i].end;
  }
  pthread_barrier_destroy(&barrier);
  ojo_flush(t);
  return (double)events * 1000.0 / (double)(end - start);
}

static void total_rate(void) {
  static const int counts[] = {2, 1, 4, 16}; /* the first is what the others are compared with */
  enum { COUNTS = sizeof counts / sizeof *counts };
  struct bench_samples samples[COUNTS];
  long long dropped[COUNTS] = {0};
  uint64_t before = 0, events = bench_scale(3200000, 3200000, 320000);
  int rounds = (int)bench_scale(21, 3, 2);
  ojo_tracer *t = open_tracer(for_bursts());
  memset(samples, 0, sizeof samples);
  for (int r = -1; r < rounds; r++)
    for (int c = 0; c < COUNTS; c++) {
      double rate = rate_burst(t, counts[c], events);
      uint64_t now = ojo_query_stats(t).dropped;
      dropped[c] += (long long)(now - before);
      before = now;
      if (r >= 0) bench_add(&samples[c], rate);
    }
  double two = bench_median(&samples[0]);
  for (int c = 0; c < COUNTS; c++)
    bench_row("hot total rate", "ojo_record", counts[c], "M events/s", &samples[c], c ? "2 threads" : NULL, two,
              dropped[c], "wall time of bursts that fit the pool");
  ojo_close(t);
}

int main(int count, char **argument) {
  static const int threads[] = {1, 2, 4, 16};
  char path[4096];
  if (count != 2) {
    fprintf(stderr, "usage: hot DIR\n");
    return 2;
  }
  scratch_make(path, sizeof path, argument[1], "hot");
  directory = path;
  for (size_t i = 0; i < sizeof threads / sizeof *threads; i++) bursts(threads[i]);
  for (size_t i = 0; i < sizeof threads / sizeof *threads; i++) full_speed(threads[i]);
  from_open();
  total_rate();
  scratch_remove(path);
  return 0;
}
