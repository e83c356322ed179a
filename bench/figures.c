/* SPDX-License-Identifier: MIT
 *
 * figures.c - what a record costs, against the loop that only reads the clock it uses; and how fast runs
 * are scanned, against memcpy over the same mapped file. Medians of rounds that alternate, CPU time of
 * the thread, bursts that fit the pool; the flusher writes between the bursts.
 *
 *   figures DIR            the figures
 *   figures pool DIR       ojo_record and ojo_record_at alone, ns per call: for two builds, with the pool in /dev/shm
 *                          and in private memory (OJO_NO_TMPFS), that are run by turns
 *   figures make DIR N B   a trace of N events in DIR, in files of B bytes, to measure tools with
 *   figures ctf DIR OUT    the same events as a CTF 1.8 trace in OUT, for babeltrace2
 *   figures scan FILE      scans it
 *   figures merge DIR      ojo_reader_next over 64 threads' runs, which have turns of 1, 8 and 1,000 events
 */
#define OJO_IMPLEMENTATION
#define OJO_READER_IMPLEMENTATION
#include "ojo_reader.h"

enum { ROUNDS = 41, EVENTS = 200000, THREADS_MAX = 2 };

static uint64_t cpu_ns(void) { return ojo__clock_ns(CLOCK_THREAD_CPUTIME_ID); }

static int by_value(const void *a, const void *b) {
  double x = *(const double *)a, y = *(const double *)b;
  return (x > y) - (x < y);
}
static double median(double *v, int n) {
  qsort(v, (size_t)n, sizeof *v, by_value);
  return v[n / 2];
}

/* ns per iteration of `body` over EVENTS iterations of i. */
#define TIMED(out, body)                                           \
  do {                                                             \
    uint64_t timed_start = cpu_ns();                               \
    for (uint64_t i = 0; i < EVENTS; i++) {                        \
      body;                                                        \
    }                                                              \
    (out) = (double)(cpu_ns() - timed_start) / EVENTS;             \
  } while (0)

enum { CLOCK, RECORD, HELPER, AT, SIZED_AT, FILTERED, SAMPLED, OFF, CASES };
static const char *const names[CASES] = {"the clock alone",
                                         "ojo_record",
                                         "ojo_packet_sent_sized",
                                         "ojo_record_at",
                                         "ojo_packet_sent_sized_at",
                                         "ojo_record, category off",
                                         "ojo_record, flow sampled out",
                                         "ojo_record, tracer NULL"};

struct thread {
  pthread_t id;
  ojo_tracer *t;
  pthread_barrier_t *barrier;
  double ns[CASES][ROUNDS];
};

static volatile uint64_t sink;

/* Between two cases: nobody records while the pool is emptied and what is recorded is changed. */
static void rest(struct thread *self, uint32_t mask, uint32_t one_in) {
  if (pthread_barrier_wait(self->barrier) == PTHREAD_BARRIER_SERIAL_THREAD) {
    ojo_flush(self->t);
    ojo_enable(self->t, mask);
    ojo_sample_flows(self->t, one_in);
  }
  pthread_barrier_wait(self->barrier);
}

static void *measure(void *argument) {
  struct thread *self = (struct thread *)argument;
  ojo_tracer *t = self->t, *off = NULL;
  for (int r = -1; r < ROUNDS; r++) {
    double ns[CASES];
    rest(self, OJO_CATEGORY_ALL, 1);
    TIMED(ns[CLOCK], sink = ojo__raw_now(t));
    rest(self, OJO_CATEGORY_ALL, 1);
    TIMED(ns[RECORD], ojo_record(t, 1, OJO_PACKET_SENT, i));
    rest(self, OJO_CATEGORY_ALL, 1);
    TIMED(ns[HELPER], ojo_packet_sent_sized(t, 1, i, 1200));
    rest(self, OJO_CATEGORY_ALL, 1);
    TIMED(ns[AT], ojo_record_at(t, i, 1, OJO_PACKET_SENT, i));
    rest(self, OJO_CATEGORY_ALL, 1);
    TIMED(ns[SIZED_AT], ojo_packet_sent_sized_at(t, i, 1, i, 1200));
    rest(self, OJO_CATEGORY_STREAM, 1);
    TIMED(ns[FILTERED], ojo_record(t, 1, OJO_PACKET_SENT, i); __asm__ volatile("" ::: "memory"));
    rest(self, OJO_CATEGORY_ALL, 1024);
    TIMED(ns[SAMPLED], ojo_record(t, 1, OJO_PACKET_SENT, i); __asm__ volatile("" ::: "memory"));
    rest(self, OJO_CATEGORY_ALL, 1);
    TIMED(ns[OFF], ojo_record(off, 1, OJO_PACKET_SENT, i); __asm__ volatile("" : "+r"(off)::"memory"));
    for (int c = 0; r >= 0 && c < CASES; c++) self->ns[c][r] = ns[c];
  }
  return NULL;
}

static ojo_tracer *open_for_bursts(const char *dir) {
  ojo_desc d;
  ojo_tracer *t;
  memset(&d, 0, sizeof d);
  d.dir = dir;
  d.buffer_bytes = 128u << 20;
  d.reserve_bytes = 128u << 20; /* every page is there before it is measured */
  d.flush_bytes = 1u << 30;     /* bursts: the flusher works between them, when it is asked */
  d.flush_interval_ms = 100000;
  d.disk_bytes_max = (uint64_t)4 << 30;
  if (ojo_open(&t, &d) != OJO_OK || !t) exit(1);
  return t;
}

static void hot_path(const char *dir) {
  static struct thread threads[THREADS_MAX];
  double bare = 0;
  for (int count = 1; count <= THREADS_MAX; count++) {
    pthread_barrier_t barrier;
    ojo_tracer *t = open_for_bursts(dir);
    pthread_barrier_init(&barrier, NULL, (unsigned)count);
    for (int i = 0; i < count; i++) {
      threads[i].t = t;
      threads[i].barrier = &barrier;
      if (pthread_create(&threads[i].id, NULL, measure, &threads[i])) exit(1);
    }
    for (int i = 0; i < count; i++) pthread_join(threads[i].id, NULL);
    ojo_stats s = ojo_query_stats(t);
    for (int i = 0; i < count; i++) {
      printf("%d thread%s%s%.0d: ns per call, median of %d bursts of %d; ratio to the clock alone, 1 thread\n", count,
             count > 1 ? "s" : "", count > 1 ? ", number " : "", count > 1 ? i + 1 : 0, ROUNDS, EVENTS);
      for (int c = 0; c < CASES; c++) {
        double ns = median(threads[i].ns[c], ROUNDS);
        if (count == 1 && c == CLOCK) bare = ns;
        printf("  %-30s %6.2f ns  x %.3f\n", names[c], ns, ns / bare);
      }
    }
    printf("  recorded %llu, dropped %llu\n", (unsigned long long)s.recorded, (unsigned long long)s.dropped);
    ojo_close(t);
    pthread_barrier_destroy(&barrier);
  }
}

/* What the pool's memory costs a recorder. */
static int pool(const char *dir) {
  enum { BURSTS = 15 };
  double now[BURSTS], at[BURSTS];
  ojo_tracer *t = open_for_bursts(dir);
  for (int r = -1; r < BURSTS; r++) {
    double ns[2];
    TIMED(ns[0], ojo_record(t, 1, OJO_PACKET_SENT, i));
    ojo_flush(t);
    TIMED(ns[1], ojo_record_at(t, i, 1, OJO_PACKET_SENT, i));
    ojo_flush(t);
    if (r < 0) continue;
    now[r] = ns[0];
    at[r] = ns[1];
  }
  ojo_stats s = ojo_query_stats(t);
  printf("%s %.3f %.3f\n", s.crash_safe ? "tmpfs" : "private", median(now, BURSTS), median(at, BURSTS));
  return ojo_close(t) != OJO_OK || s.dropped;
}

/* A trace with the mix of a transport: mostly packets with sizes, and what goes with them. */
static int make(const char *dir, uint64_t events, uint64_t file_bytes) {
  ojo_desc d;
  ojo_tracer *t;
  memset(&d, 0, sizeof d);
  d.dir = dir;
  d.overflow = OJO_OVERFLOW_BLOCK;
  d.flush_bytes = file_bytes;
  d.flush_interval_ms = 100000;
  if (ojo_open(&t, &d) != OJO_OK || !t) return 1;
  for (uint64_t i = 0; i < events; i++) {
    uint32_t flow = (uint32_t)(i >> 6 & 15) + 1;
    switch (i & 7) {
    case 0: case 1: case 2: ojo_packet_sent_sized(t, flow, i, 1200); break;
    case 3: ojo_offset_sent_sized(t, flow, i * 1200, 1200); break;
    case 4: case 5: ojo_packet_acked_sized(t, flow, i - 4, 1200); break;
    case 6: ojo_bytes_in_flight(t, flow, 12000 + (i & 1023)); break;
    default: ojo_cwnd_updated(t, flow, 14000 + i);
    }
  }
  return ojo_close(t) != OJO_OK;
}

/* CTF wants plain, time-ordered slots under a header; one event description for each type. */
static int ctf(const char *dir, const char *out) {
  static const uint64_t types[] = {OJO_PACKET_SENT, OJO_OFFSET_SENT, OJO_PACKET_ACKED, OJO_BYTES_IN_FLIGHT,
                                   OJO_CWND_UPDATED};
  ojo_reader_desc d;
  ojo_reader *r;
  ojo_reader_event e;
  char path[4096];
  memset(&d, 0, sizeof d);
  d.path = dir;
  if (ojo_reader_open(&r, &d) != OJO_OK) return 1;
  mkdir(out, 0700);
  snprintf(path, sizeof path, "%s/metadata", out);
  FILE *f = fopen(path, "w");
  if (!f) return 1;
  fprintf(f, "/* CTF 1.8 */\ntypealias integer {size=64; align=8; signed=false;} := u64;\n"
             "typealias integer {size=32; align=8; signed=false;} := u32;\n"
             "typealias integer {size=20; align=1; signed=false;} := u20;\n"
             "trace {major=1; minor=8; byte_order=le; packet.header := struct {u32 magic;};};\n"
             "clock {name=mono; freq=1000000000; offset_s=0; offset=0; absolute=true;};\n"
             "stream {event.header := struct {integer {size=64; align=8; signed=false; map=clock.mono.value;} "
             "timestamp; u32 id;}; event.context := struct {u32 flow;};};\n");
  for (size_t i = 0; i < sizeof types / sizeof *types; i++) {
    ojo_reader_event probe;
    memset(&probe, 0, sizeof probe);
    probe.type = types[i];
    fprintf(f, "event {name=\"%s\"; id=%llu; fields := struct {integer {size=44; align=1; signed=false;} value; "
               "u20 size;};};\n", ojo_reader_type(r, &probe)->name, (unsigned long long)types[i]);
  }
  fclose(f);
  snprintf(path, sizeof path, "%s/stream", out);
  f = fopen(path, "wb");
  if (!f) return 1;
  static const unsigned char magic[4] = {0xC1, 0x1F, 0xFC, 0xC1};
  fwrite(magic, 1, 4, f);
  while (ojo_reader_next(r, &e)) {
    ojo_event slot;
    slot.ts = e.time_ns;
    slot.type = (uint32_t)e.type;
    slot.flow = (uint32_t)e.flow;
    slot.payload = e.payload | (e.has_number ? (e.type == OJO_OFFSET_SENT ? e.number - e.payload : e.number) << 44 : 0);
    fwrite(&slot, sizeof slot, 1, f);
  }
  ojo_reader_close(r);
  return fclose(f) != 0;
}

/* Sums every slot's payload, run by run, against memcpy of the same bytes from the same mapping. */
static void scan(const char *name) {
  int fd = open(name, O_RDONLY | O_CLOEXEC);
  struct stat st;
  if (fd < 0 || fstat(fd, &st) != 0) exit(1);
  size_t bytes = (size_t)st.st_size;
  unsigned char *map = (unsigned char *)mmap(NULL, bytes, PROT_READ, MAP_SHARED, fd, 0);
  unsigned char *copy = (unsigned char *)malloc(bytes);
  if (map == MAP_FAILED || !copy) exit(1);
  double memcpy_gb[ROUNDS], scan_gb[ROUNDS], ratio[ROUNDS];
  ojo_reader_desc d;
  memset(&d, 0, sizeof d);
  d.path = name;
  for (int r = -1; r < ROUNDS; r++) {
    uint64_t start = cpu_ns(), sum = 0;
    memcpy(copy, map, bytes);
    sink = copy[bytes / 2];
    double copied = (double)bytes / (double)(cpu_ns() - start);
    ojo_reader *reader;
    ojo_reader_run_view run;
    if (ojo_reader_open(&reader, &d) != OJO_OK) exit(1);
    while (ojo_reader_next_run(reader, &run)) /* the first pass maps the file: it is not timed */
      for (uint64_t i = 0; i < run.slot_count; i += 4096 / 24) sum += run.slots[i].payload;
    ojo_reader_rewind(reader);
    start = cpu_ns();
    while (ojo_reader_next_run(reader, &run))
      for (uint64_t i = 0; i < run.slot_count; i++) sum += run.slots[i].payload;
    double scanned = (double)bytes / (double)(cpu_ns() - start);
    sink = sum;
    ojo_reader_close(reader);
    if (r < 0) continue;
    memcpy_gb[r] = copied;
    scan_gb[r] = scanned;
    ratio[r] = scanned / copied;
  }
  printf("scan of a file of %.1f MB over runs: %.2f GB/s, memcpy %.2f GB/s: x %.2f\n", (double)bytes / 1e6,
         median(scan_gb, ROUNDS), median(memcpy_gb, ROUNDS), median(ratio, ROUNDS));
  free(copy);
  munmap(map, bytes);
  close(fd);
}

enum { MERGED = 64, MERGED_EVENTS = 4000000 };
struct turns { /* a thread's times */
  ojo_tracer *t;
  uint64_t *times, count;
};
static void *take_turns(void *argument) {
  struct turns *own = (struct turns *)argument;
  for (uint64_t i = 0; i < own->count; i++) ojo_record_at(own->t, own->times[i], 1, OJO_PACKET_SENT, i);
  return NULL;
}
static int merge(const char *dir, uint64_t burst) {
  static struct turns turns[MERGED];
  uint64_t state = 88172645463325252u, count = 0, *times = (uint64_t *)malloc(MERGED_EVENTS * sizeof(uint64_t));
  unsigned char *owner = (unsigned char *)malloc(MERGED_EVENTS);
  char path[4096];
  ojo_desc d;
  ojo_tracer *t;
  pthread_t id;
  memset(&d, 0, sizeof d);
  snprintf(path, sizeof path, "%s/merge%llu", dir, (unsigned long long)burst);
  d.dir = path;
  d.flush_bytes = 1u << 30;
  d.flush_interval_ms = 100000;
  if (!times || !owner || ojo_open(&t, &d) != OJO_OK || !t) return 1;
  memset(turns, 0, sizeof turns);
  for (uint64_t i = 0; i < MERGED_EVENTS; i++) {
    if (i % burst == 0) {
      state ^= state << 13;
      state ^= state >> 7;
      state ^= state << 17;
    }
    owner[i] = (unsigned char)(state >> 20 & (MERGED - 1));
    turns[owner[i]].count++;
  }
  for (int k = 0; k < MERGED; k++) {
    turns[k].times = times;
    times += turns[k].count;
    turns[k].count = 0;
  }
  uint64_t start_ns = ojo__clock_ns(CLOCK_MONOTONIC);
  for (uint64_t i = 0; i < MERGED_EVENTS; i++) turns[owner[i]].times[turns[owner[i]].count++] = start_ns + i;
  for (int k = 0; k < MERGED; k++) {
    turns[k].t = t;
    if (pthread_create(&id, NULL, take_turns, &turns[k]) || pthread_join(id, NULL)) return 1;
  }
  if (ojo_close(t) != OJO_OK) return 1;
  free(turns[0].times);
  free(owner);
  double rate[ROUNDS];
  ojo_reader *r;
  ojo_reader_event e;
  ojo_reader_desc desc;
  memset(&desc, 0, sizeof desc);
  desc.path = path;
  if (ojo_reader_open(&r, &desc) != OJO_OK) return 1;
  for (int i = 0; i < ROUNDS; i++) {
    ojo_reader_rewind(r);
    uint64_t start = cpu_ns(), sum = 0;
    for (count = 0; ojo_reader_next(r, &e); count++) sum += e.payload;
    rate[i] = (double)count * 1e3 / (double)(cpu_ns() - start);
    sink = sum;
  }
  ojo_reader_close(r);
  printf("merge of %d runs in turns of %llu: %.1f M events/s (%llu events)\n", MERGED, (unsigned long long)burst,
         median(rate, ROUNDS), (unsigned long long)count);
  return 0;
}

int main(int argc, char **argv) {
  if (argc == 3 && strcmp(argv[1], "merge") == 0)
    return merge(argv[2], 1) || merge(argv[2], 8) || merge(argv[2], 1000);
  if (argc == 5 && strcmp(argv[1], "make") == 0)
    return make(argv[2], strtoull(argv[3], NULL, 10), strtoull(argv[4], NULL, 10));
  if (argc == 4 && strcmp(argv[1], "ctf") == 0) return ctf(argv[2], argv[3]);
  if (argc == 3 && strcmp(argv[1], "pool") == 0) return pool(argv[2]);
  if (argc == 3 && strcmp(argv[1], "scan") == 0) return scan(argv[2]), 0;
  if (argc != 2) {
    fprintf(stderr, "usage: figures DIR | pool DIR | make DIR EVENTS FILE_BYTES | ctf DIR OUT | scan FILE | merge DIR\n");
    return 2;
  }
  hot_path(argv[1]);
  return 0;
}
