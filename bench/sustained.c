/* SPDX-License-Identifier: MIT
 *
 * sustained.c - how fast events reach the disk without a loss, against the best that the machine does with
 * plain writes of the same bytes to the same place: pwrite(2) in files of the same size, through the page
 * cache and past it (O_DIRECT), in blocks of several sizes. The best of the sweep then takes turns with ojo.
 * Both keep keep_bytes on the disk and delete their oldest files beyond that. The clock stops for both when what
 * the page cache still holds is on the disk (syncfs).
 *
 *   sustained DIR [SECONDS]   SECONDS: of one turn of ojo's, 20 if not given
 */
#include "bench.h"

#define OJO_IMPLEMENTATION
#include "ojo.h"

#include <fcntl.h>
#include <pthread.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

static uint64_t keep_bytes;

struct way { /* of raw writing */
  bool direct;
  size_t block;
};

static void fail(const char *what) {
  perror(what);
  exit(1);
}

/* Waits until what the page cache took is on the disk: a rate counts it. */
static void settle(const char *dir) {
  int fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd < 0 || syncfs(fd) != 0) fail(dir);
  close(fd);
}

/* GB/s of plain writes for `ns`, in files of file_bytes. 0: this way does not work here. */
static double raw(const char *dir, struct way way, size_t file_bytes, uint64_t ns) {
  unsigned char *block = (unsigned char *)mmap(NULL, way.block, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  char path[4200];
  uint64_t written = 0, file = 0, oldest = 0, start;
  if (block == MAP_FAILED) fail("mmap");
  for (size_t i = 0; i < way.block; i++) block[i] = (unsigned char)(i * 7 + (i >> 12));
  for (start = bench_wall_ns(); bench_wall_ns() - start < ns; file++) {
    snprintf(path, sizeof path, "%s/raw%llu", dir, (unsigned long long)file);
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | (way.direct ? O_DIRECT : 0), 0600);
    if (fd < 0) {
      if (way.direct && errno == EINVAL) break;
      fail(path);
    }
    for (size_t at = 0; at < file_bytes && bench_wall_ns() - start < ns; at += way.block) {
      if (pwrite(fd, block, way.block, (off_t)at) != (ssize_t)way.block) fail(path);
      written += way.block;
    }
    close(fd);
    while ((file - oldest + 1) * file_bytes > keep_bytes) {
      snprintf(path, sizeof path, "%s/raw%llu", dir, (unsigned long long)oldest++);
      unlink(path);
    }
  }
  settle(dir);
  double rate = (double)written / (double)(bench_wall_ns() - start);
  for (; oldest <= file; oldest++) {
    snprintf(path, sizeof path, "%s/raw%llu", dir, (unsigned long long)oldest);
    unlink(path);
  }
  munmap(block, way.block);
  return rate;
}

struct writer {
  pthread_t id;
  ojo_tracer *t;
  uint64_t until, count, cpu_ns;
};
static void *record(void *argument) {
  struct writer *own = (struct writer *)argument;
  uint64_t start = bench_thread_ns();
  while (bench_wall_ns() < own->until) {
    for (int i = 0; i < 10000; i++) ojo_packet_sent_sized(own->t, 1, own->count + (uint64_t)i, 1200);
    own->count += 10000;
  }
  own->cpu_ns = bench_thread_ns() - start;
  return NULL;
}

static void remove_tree(const char *dir) {
  char command[4300];
  snprintf(command, sizeof command, "rm -rf '%s'", dir);
  if (system(command) != 0) fail(dir);
}

struct result {
  struct bench_samples gb, events, cpu;
  uint64_t dropped;
};
/* Writers that wait when the pool is full: the highest rate at which nothing is lost. */
static void ojo(const char *dir, int writers, size_t file_bytes, uint64_t ns, struct result *result) {
  char path[4200];
  struct writer writer[8];
  ojo_desc d;
  ojo_tracer *t;
  memset(&d, 0, sizeof d);
  snprintf(path, sizeof path, "%s/ojo", dir);
  d.dir = path;
  d.overflow = OJO_OVERFLOW_BLOCK;
  d.block_timeout_ms = 60000;
  d.flush_bytes = file_bytes;
  d.disk_bytes_max = keep_bytes;
  if (ojo_open(&t, &d) != OJO_OK || !t) exit(1);
  uint64_t start = bench_wall_ns(), cpu = bench_process_ns();
  for (int i = 0; i < writers; i++) {
    writer[i].t = t;
    writer[i].until = start + ns;
    writer[i].count = 0;
    if (pthread_create(&writer[i].id, NULL, record, &writer[i])) exit(1);
  }
  for (int i = 0; i < writers; i++) pthread_join(writer[i].id, NULL);
  if (ojo_flush(t) != OJO_OK) exit(1); /* what was recorded counts once it is written */
  settle(dir);
  uint64_t took = bench_wall_ns() - start;
  cpu = bench_process_ns() - cpu;
  ojo_stats s = ojo_query_stats(t);
  ojo_close(t);
  remove_tree(path);
  bench_add(&result->gb, (double)s.bytes / (double)took);
  bench_add(&result->events, (double)s.written * 1e3 / (double)took);
  bench_add(&result->cpu, (double)cpu / (double)s.written);
  result->dropped += s.dropped + s.write_errors;
}

static const char *way_name(struct way way, char *name) {
  sprintf(name, "%s writes of %zu KiB", way.direct ? "O_DIRECT" : "buffered", way.block >> 10);
  return name;
}

int main(int argc, char **argv) {
  if (argc < 2 || argc > 3) {
    fprintf(stderr, "usage: sustained DIR [SECONDS]\n");
    return 2;
  }
  const char *dir = argv[1];
  uint64_t second = 1000000000u, turn = argc > 2 ? strtoull(argv[2], NULL, 10) * second
                                                 : bench_scale(20 * second, second, second / 10);
  uint64_t raw_turn = bench_scale(turn < 10 * second ? turn : 10 * second, second / 2, second / 10);
  uint64_t sweep_turn = bench_scale(second, second / 10, second / 50);
  int rounds = (int)bench_scale(2, 1, 1);
  size_t file_bytes[2] = {10u << 20, 256u << 20}; /* the default, and what a machine with this much to say sets */
  keep_bytes = bench_scale((uint64_t)6 << 30, (uint64_t)2 << 30, 64u << 20); /* more than the cache holds back */
  mkdir(dir, 0700);
  for (uint64_t f = bench_scale(0, 1, 0); f < 2; f++) {
    char what[64], name[64];
    struct way best = {false, 1u << 20};
    double best_rate = 0;
    snprintf(what, sizeof what, "sustained; files of %zu MiB", file_bytes[f] >> 20);
    for (int direct = 0; direct < 2; direct++)
      for (size_t block = 128u << 10; block <= 8u << 20; block *= 4) {
        struct way way = {direct != 0, block};
        struct bench_samples s = {{0}, 0};
        for (uint64_t i = 0; i < bench_scale(2, 1, 1); i++) bench_add(&s, raw(dir, way, file_bytes[f], sweep_turn));
        if (bench_median(&s) == 0) continue;
        bench_row(what, way_name(way, name), 1, "GB/s", &s, NULL, 0, -1, "sweep");
        if (bench_median(&s) > best_rate) {
          best_rate = bench_median(&s);
          best = way;
        }
      }
    struct bench_samples of_raw = {{0}, 0};
    struct result of_ojo[2];
    memset(of_ojo, 0, sizeof of_ojo);
    for (int r = 0; r < rounds; r++)
      for (int writers = 1; writers <= 2; writers++) {
        bench_add(&of_raw, raw(dir, best, file_bytes[f], raw_turn));
        ojo(dir, writers, file_bytes[f], turn, &of_ojo[writers - 1]);
      }
    bench_add(&of_raw, raw(dir, best, file_bytes[f], raw_turn));
    bench_row(what, way_name(best, name), 1, "GB/s", &of_raw, NULL, 0, -1, "the best of the sweep; by turns with ojo");
    for (int writers = 1; writers <= 2; writers++) {
      struct result *r = &of_ojo[writers - 1];
      bench_row(what, "ojo", writers, "GB/s", &r->gb, name, bench_median(&of_raw), (long long)r->dropped, NULL);
      bench_row(what, "ojo", writers, "M events/s", &r->events, NULL, 0, (long long)r->dropped, NULL);
      bench_row(what, "ojo", writers, "ns/event", &r->cpu, NULL, 0, (long long)r->dropped,
                "CPU time of the whole process");
    }
  }
  return 0;
}
