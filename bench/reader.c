/* SPDX-License-Identifier: MIT
 *
 * reader.c - how fast ojo_reader.h reads, against what bounds it: memcpy and a loop over an array.
 *
 *   reader DIR   rows of the cases "reader" and "growth" (see bench.h); writes traces in DIR, and removes them
 *
 * Everything is in the page cache and measured in CPU time of the one thread that reads. A pass starts at
 * ojo_reader_rewind, so that it maps its files anew, as a first one does. What is compared takes turns.
 */
#include "bench.h"

#define OJO_IMPLEMENTATION
#define OJO_READER_IMPLEMENTATION
#include "ojo_reader.h"

#include <ftw.h>
#include <glob.h>

enum { THREADS_MAX = 64, FLOWS_OF_A_MIX = 16 };

static const char *directory;
static uint64_t rounds;

static void fail(const char *what) {
  fprintf(stderr, "reader: %s failed\n", what);
  exit(1);
}
static int remove_one(const char *path, const struct stat *st, int type, struct FTW *at) {
  (void)st, (void)type, (void)at;
  return remove(path);
}
static void remove_trace(const char *path) { nftw(path, remove_one, 16, FTW_DEPTH | FTW_PHYS); }

/* ---- traces */

/* All is in the pool until ojo_flush makes a file of it. */
static ojo_tracer *open_tracer(const char *path) {
  ojo_desc d;
  ojo_tracer *t;
  memset(&d, 0, sizeof d);
  d.dir = path;
  d.flush_bytes = (uint64_t)1 << 40;
  d.no_thread = true;
  remove_trace(path);
  if (ojo_open(&t, &d) != OJO_OK || !t) fail("ojo_open");
  return t;
}
static void close_tracer(ojo_tracer *t) {
  ojo_stats s = ojo_query_stats(t);
  if (s.dropped || ojo_close(t) != OJO_OK) fail("recording");
}

/* Packets and what goes with them: of each 16 events 11 of packets, 3 of congestion control, 2 of streams. */
static void record_mix(ojo_tracer *t, uint64_t time, uint32_t flow, uint64_t i) {
  switch (i & 15) {
  case 3: case 11: ojo_offset_sent_sized_at(t, time, flow, i * 1200, 1200); break;
  case 6: case 14: ojo_record_at(t, time, flow, OJO_BYTES_IN_FLIGHT, 12000 + (i & 1023)); break;
  case 7: ojo_record_at(t, time, flow, OJO_CWND_UPDATED, 14000 + i); break;
  case 4: case 5: case 12: case 13: ojo_packet_acked_sized_at(t, time, flow, i - 4, 1200); break;
  default: ojo_packet_sent_sized_at(t, time, flow, i, 1200);
  }
}

struct turns { /* what one thread records */
  ojo_tracer *t;
  uint64_t *times, count;
};
static void *take_turns(void *argument) {
  const struct turns *own = (const struct turns *)argument;
  for (uint64_t i = 0; i < own->count; i++)
    record_mix(own->t, own->times[i], (uint32_t)(i >> 4) % FLOWS_OF_A_MIX + 1, i);
  return NULL;
}
/* Events a nanosecond apart, of `threads` threads that have turns of `burst` events, at random. */
static void make_turns(const char *path, uint32_t threads, uint64_t burst, uint64_t events) {
  static struct turns turns[THREADS_MAX];
  uint64_t state = 88172645463325252u;
  unsigned char *owner = (unsigned char *)malloc(events);
  uint64_t *times = (uint64_t *)malloc(events * sizeof *times), *room = times;
  pthread_t id;
  if (!owner || !times) fail("malloc");
  memset(turns, 0, sizeof turns);
  for (uint64_t i = 0; i < events; i++) {
    if (i % burst == 0) {
      state ^= state << 13;
      state ^= state >> 7;
      state ^= state << 17;
    }
    owner[i] = (unsigned char)((state >> 20) % threads);
    turns[owner[i]].count++;
  }
  for (uint32_t k = 0; k < threads; k++) {
    turns[k].times = room;
    room += turns[k].count;
    turns[k].count = 0;
  }
  ojo_tracer *t = open_tracer(path);
  uint64_t start = bench_wall_ns(); /* a trace has no times before it was opened */
  for (uint64_t i = 0; i < events; i++) turns[owner[i]].times[turns[owner[i]].count++] = start + i;
  for (uint32_t k = 0; k < threads; k++) { /* one after the other: their times are given */
    turns[k].t = t;
    if (pthread_create(&id, NULL, take_turns, &turns[k]) || pthread_join(id, NULL)) fail("pthread_create");
  }
  close_tracer(t);
  free(owner);
  free(times);
}
/* One thread's, in `files` files that follow each other in time. */
static void make_files(const char *path, uint64_t files, uint64_t events_per_file, uint32_t flows) {
  ojo_tracer *t = open_tracer(path);
  uint64_t start = bench_wall_ns();
  for (uint64_t f = 0; f < files; f++) {
    for (uint64_t i = f * events_per_file; i < (f + 1) * events_per_file; i++)
      record_mix(t, start + i, (uint32_t)(i >> 4) % flows + 1, i);
    if (ojo_flush(t) != OJO_OK) fail("ojo_flush");
  }
  close_tracer(t);
}

/* ---- passes: each returns its CPU time in ns */

static ojo_reader *open_reader(const ojo_reader_desc *desc) {
  ojo_reader *r;
  if (ojo_reader_open(&r, desc) != OJO_OK) fail("ojo_reader_open");
  return r;
}
static ojo_reader *open_path(const char *path) {
  ojo_reader_desc d;
  memset(&d, 0, sizeof d);
  d.path = path;
  return open_reader(&d);
}
static double next_pass(ojo_reader *r, uint64_t expected) {
  ojo_reader_event e;
  uint64_t sum = 0, count = 0, start;
  ojo_reader_rewind(r);
  start = bench_thread_ns();
  for (; ojo_reader_next(r, &e); count++) sum += e.payload;
  double ns = (double)(bench_thread_ns() - start);
  BENCH_KEEP(sum);
  if (count != expected || ojo_reader_error_count(r)) fail("ojo_reader_next");
  return ns;
}
static double scan_pass(ojo_reader *r) {
  ojo_reader_run_view run;
  uint64_t sum = 0, start;
  ojo_reader_rewind(r);
  start = bench_thread_ns();
  while (ojo_reader_next_run(r, &run))
    for (uint64_t i = 0; i < run.slot_count; i++) sum += run.slots[i].payload;
  double ns = (double)(bench_thread_ns() - start);
  BENCH_KEEP(sum);
  return ns;
}
static double array_pass(const ojo_event *events, uint64_t count) {
  uint64_t sum = 0, start = bench_thread_ns();
  for (uint64_t i = 0; i < count; i++) sum += events[i].payload;
  double ns = (double)(bench_thread_ns() - start);
  BENCH_KEEP(sum);
  return ns;
}

/* ---- the case "reader" */

static const struct {
  uint32_t threads;
  uint64_t burst;
  const char *note;
} merges[] = {{2, 1, "turns of 1 event at random"},    {2, 8, "turns of 8 events at random"},
              {2, 1000, "turns of 1000 events at random"}, {64, 1, "turns of 1 event at random"},
              {64, 8, "turns of 8 events at random"},  {64, 1000, "turns of 1000 events at random"}};
enum { MERGES = sizeof merges / sizeof *merges };

static const char *path_of(const char *name, uint64_t number) {
  static char path[4096];
  snprintf(path, sizeof path, "%s/%s%llu", directory, name, (unsigned long long)number);
  return path;
}

static void merge(void) {
  static struct bench_samples array, merged[MERGES];
  uint64_t count = bench_scale(4000000, 1000000, 20000);
  ojo_event *events = (ojo_event *)calloc(count, sizeof *events);
  ojo_reader *readers[MERGES];
  if (!events) fail("calloc");
  for (uint64_t i = 0; i < count; i++) events[i].payload = i;
  for (int m = 0; m < MERGES; m++) {
    make_turns(path_of("merge", (uint64_t)m), merges[m].threads, merges[m].burst, count);
    readers[m] = open_path(path_of("merge", (uint64_t)m));
  }
  for (uint64_t r = 0; r < rounds; r++) {
    bench_add(&array, (double)count * 1e3 / array_pass(events, count));
    for (int m = 0; m < MERGES; m++) bench_add(&merged[m], (double)count * 1e3 / next_pass(readers[m], count));
  }
  bench_row("reader", "loop over an array", 1, "M events/s", &array, NULL, 0, -1, "24 bytes each; sums the payloads");
  double plain = bench_median(&array);
  for (int m = 0; m < MERGES; m++) {
    char subject[64];
    snprintf(subject, sizeof subject, "ojo_reader_next: %u threads", merges[m].threads);
    bench_row("reader", subject, 1, "M events/s", &merged[m], "loop over an array", plain, -1, merges[m].note);
    ojo_reader_close(readers[m]);
    remove_trace(path_of("merge", (uint64_t)m));
  }
  free(events);
}

/* The same bytes as the reader's, in a mapping of our own. */
static void *map_only_file(const char *trace, size_t *bytes) {
  char pattern[4200];
  glob_t found;
  struct stat st;
  snprintf(pattern, sizeof pattern, "%s/output/*.bin", trace);
  if (glob(pattern, 0, NULL, &found) != 0 || found.gl_pathc != 1) fail("glob");
  int fd = open(found.gl_pathv[0], O_RDONLY | O_CLOEXEC);
  if (fd < 0 || fstat(fd, &st) != 0) fail("open");
  *bytes = (size_t)st.st_size;
  void *map = mmap(NULL, *bytes, PROT_READ, MAP_SHARED, fd, 0);
  if (map == MAP_FAILED) fail("mmap");
  close(fd);
  globfree(&found);
  return map;
}
/* Passes over the one file of a trace: runs, all events, and those that a filter lets through. */
static void scan_and_filter(void) {
  static struct bench_samples copies, loops, scans, filtered[4];
  static const uint64_t flow = 5, type = OJO_CWND_UPDATED;
  static const char *const subjects[] = {"ojo_reader_next: no filter", "ojo_reader_next: one flow of 16",
                                         "ojo_reader_next: one type", "ojo_reader_next: one category"};
  uint64_t count = bench_scale(4000000, 1000000, 20000) / 256 * 256;
  const uint64_t expected[4] = {count, count / FLOWS_OF_A_MIX, count / 16, count / 16 * 3};
  const char *path = path_of("scan", 0);
  make_turns(path, 1, 1, count);
  ojo_reader *readers[4];
  ojo_reader_desc desc;
  for (int f = 0; f < 4; f++) {
    memset(&desc, 0, sizeof desc);
    desc.path = path;
    desc.flows = &flow;
    desc.flow_count = f == 1;
    desc.types = &type;
    desc.type_count = f == 2;
    desc.category_mask = f == 3 ? OJO_CATEGORY_CONGESTION_CONTROL : 0;
    readers[f] = open_reader(&desc);
  }
  size_t bytes;
  void *map = map_only_file(path, &bytes), *copy = malloc(bytes);
  if (!copy) fail("malloc");
  memcpy(copy, map, bytes); /* brings all pages in */
  for (uint64_t r = 0; r < rounds; r++) {
    uint64_t start = bench_thread_ns();
    memcpy(copy, map, bytes);
    BENCH_KEEP(copy);
    bench_add(&copies, (double)bytes / (double)(bench_thread_ns() - start));
    bench_add(&loops, (double)bytes / array_pass((const ojo_event *)copy, bytes / sizeof(ojo_event)));
    bench_add(&scans, (double)bytes / scan_pass(readers[0]));
    for (int f = 0; f < 4; f++) bench_add(&filtered[f], (double)count * 1e3 / next_pass(readers[f], expected[f]));
  }
  double copied = bench_median(&copies), looped = bench_median(&loops);
  bench_row("reader", "memcpy of the mapping", 1, "GB/s", &copies, NULL, 0, -1, NULL);
  bench_row("reader", "loop over an array", 1, "GB/s", &loops, "memcpy of the mapping", copied, -1,
            "sums the payloads of the copy");
  bench_row("reader", "ojo_reader_next_run", 1, "GB/s", &scans, "memcpy of the mapping", copied, -1,
            "sums the payloads");
  bench_row("reader", "ojo_reader_next_run", 1, "GB/s", &scans, "loop over an array", looped, -1,
            "sums the payloads");
  double all = bench_median(&filtered[0]);
  for (int f = 0; f < 4; f++) {
    bench_row("reader", subjects[f], 1, "M events/s", &filtered[f], f ? subjects[0] : NULL, all, -1,
              "events read; of one thread");
    ojo_reader_close(readers[f]);
  }
  munmap(map, bytes);
  free(copy);
  remove_trace(path);
}

static void open_many(void) {
  static struct bench_samples opened;
  uint64_t files = bench_scale(1000, 1000, 100);
  make_files(path_of("open", 0), files, 100, 1);
  ojo_reader_close(open_path(path_of("open", 0))); /* the inodes are in memory from here on */
  for (uint64_t r = 0; r < rounds; r++) {
    uint64_t start = bench_wall_ns();
    ojo_reader *reader = open_path(path_of("open", 0));
    bench_add(&opened, (double)(bench_wall_ns() - start) / 1e6);
    ojo_reader_close(reader);
  }
  char note[64];
  snprintf(note, sizeof note, "a directory of %llu files; warm", (unsigned long long)files);
  bench_row("reader", "ojo_reader_open", 1, "ms", &opened, NULL, 0, -1, note);
  remove_trace(path_of("open", 0));
}

/* ---- the case "growth": what an event costs as one thing grows tenfold and the rest stays */

enum { FILE_STEPS = 3, FLOW_STEPS = 4 };

static void grow_files(void) {
  static struct bench_samples cost[FILE_STEPS];
  uint64_t per_file = bench_scale(10000, 5000, 100), files = 10;
  ojo_reader *readers[FILE_STEPS];
  for (int s = 0; s < FILE_STEPS; s++, files *= 10) {
    make_files(path_of("files", files), files, per_file, FLOWS_OF_A_MIX);
    readers[s] = open_path(path_of("files", files));
  }
  for (uint64_t r = 0; r < rounds; r++) {
    files = 10;
    for (int s = 0; s < FILE_STEPS; s++, files *= 10)
      bench_add(&cost[s], next_pass(readers[s], files * per_file) / (double)(files * per_file));
  }
  files = 10;
  for (int s = 0; s < FILE_STEPS; s++, files *= 10) {
    char subject[64], note[64];
    snprintf(subject, sizeof subject, "ojo_reader_next: %llu files", (unsigned long long)files);
    snprintf(note, sizeof note, "%llu events in each", (unsigned long long)per_file);
    bench_row("growth", subject, 1, "ns/event", &cost[s], s ? "ojo_reader_next: 10 files" : NULL,
              bench_median(&cost[0]), -1, note);
    ojo_reader_close(readers[s]);
    remove_trace(path_of("files", files));
  }
}
/* The merge looks at no flow; the flow table and a chain look at each event's. */
static void grow_flows(void) {
  static struct bench_samples next_cost[FLOW_STEPS], table_cost[FLOW_STEPS];
  uint64_t count = bench_scale(2000000, 500000, 160000);
  ojo_reader *readers[FLOW_STEPS];
  uint32_t flows = 10;
  for (int s = 0; s < FLOW_STEPS; s++, flows *= 10) {
    make_files(path_of("flows", flows), 1, count, flows);
    readers[s] = open_path(path_of("flows", flows));
  }
  for (uint64_t r = 0; r < rounds; r++) {
    flows = 10;
    for (int s = 0; s < FLOW_STEPS; s++, flows *= 10) {
      bench_add(&next_cost[s], next_pass(readers[s], count) / (double)count);
      ojo_reader *reader = open_path(path_of("flows", flows)); /* a reader makes its table once */
      uint64_t start = bench_thread_ns(), found = ojo_reader_flow_count(reader);
      bench_add(&table_cost[s], (double)(bench_thread_ns() - start) / (double)count);
      if (found != flows) fail("ojo_reader_flow_count");
      ojo_reader_close(reader);
    }
  }
  flows = 10;
  for (int s = 0; s < FLOW_STEPS; s++, flows *= 10) {
    char subject[64];
    snprintf(subject, sizeof subject, "ojo_reader_next: %u flows", flows);
    bench_row("growth", subject, 1, "ns/event", &next_cost[s], s ? "ojo_reader_next: 10 flows" : NULL,
              bench_median(&next_cost[0]), -1, NULL);
    snprintf(subject, sizeof subject, "ojo_reader_flow_count: %u flows", flows);
    bench_row("growth", subject, 1, "ns/event", &table_cost[s], s ? "ojo_reader_flow_count: 10 flows" : NULL,
              bench_median(&table_cost[0]), -1, "makes the flow table");
    ojo_reader_close(readers[s]);
    remove_trace(path_of("flows", flows));
  }
}

int main(int argc, char **argv) {
  if (argc != 2) {
    fprintf(stderr, "usage: reader DIR\n");
    return 2;
  }
  directory = argv[1];
  mkdir(directory, 0700);
  rounds = bench_scale(21, 5, 2);
  scan_and_filter();
  merge();
  open_many();
  grow_files();
  grow_flows();
  rmdir(directory); /* unless something else is in it */
  return 0;
}
