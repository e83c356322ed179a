/* SPDX-License-Identifier: MIT
 *
 * growth.c - does a record cost more as threads, the pool or the flows get ten times as many? CPU time per
 * ojo_record, in bursts that fit the pool. (What the number of files costs the reader: bench/reader.c.)
 *
 *   growth DIR
 */
#include "bench.h"

#define OJO_IMPLEMENTATION
#include "ojo.h"

#include <pthread.h>

struct worker {
  pthread_t id;
  ojo_tracer *t;
  pthread_barrier_t *barrier;
  uint64_t events, flows;
  int rounds;
  double ns;
};
static pthread_mutex_t turn = PTHREAD_MUTEX_INITIALIZER;

static void *work(void *argument) {
  struct worker *own = (struct worker *)argument;
  for (int r = 0; r < own->rounds; r++) {
    pthread_barrier_wait(own->barrier); /* all have chunks, or hold none yet */
    pthread_mutex_lock(&turn);          /* one at a time: what is measured is not who has a processor */
    uint64_t start = bench_thread_ns();
    for (uint64_t i = 0; i < own->events; i++)
      ojo_record(own->t, (uint32_t)(i * 0x9E3779B1u >> 8) % (uint32_t)own->flows + 1, OJO_PACKET_SENT, i);
    own->ns = (double)(bench_thread_ns() - start) / (double)own->events;
    pthread_mutex_unlock(&turn);
    pthread_barrier_wait(own->barrier); /* main flushes */
    pthread_barrier_wait(own->barrier);
  }
  return NULL;
}

static double base; /* median of the first row of a kind */
static void grow(const char *dir, const char *subject, int threads, uint64_t pool_bytes, uint64_t flows) {
  int rounds = (int)bench_scale(11, 5, 2);
  uint64_t total = bench_scale(200000, 100000, 20000);
  struct worker *workers = (struct worker *)calloc((size_t)threads, sizeof *workers);
  struct bench_samples s = {{0}, 0};
  pthread_barrier_t barrier;
  pthread_attr_t small;
  ojo_desc d;
  ojo_tracer *t;
  memset(&d, 0, sizeof d);
  d.dir = dir;
  d.buffer_bytes = pool_bytes;
  d.reserve_bytes = pool_bytes < 128u << 20 ? pool_bytes : 128u << 20;
  d.flush_bytes = 1u << 30;
  d.flush_interval_ms = 100000;
  d.disk_bytes_max = 256u << 20;
  if (!workers || ojo_open(&t, &d) != OJO_OK || !t) exit(1);
  pthread_barrier_init(&barrier, NULL, (unsigned)threads + 1);
  pthread_attr_init(&small);
  pthread_attr_setstacksize(&small, 128 << 10);
  for (int i = 0; i < threads; i++) {
    workers[i].t = t;
    workers[i].barrier = &barrier;
    workers[i].events = total / (uint64_t)threads > 2000 ? total / (uint64_t)threads : 2000; /* about a chunk */
    workers[i].flows = flows;
    workers[i].rounds = rounds + 1;
    if (pthread_create(&workers[i].id, &small, work, &workers[i])) exit(1);
  }
  for (int r = 0; r <= rounds; r++) {
    pthread_barrier_wait(&barrier);
    pthread_barrier_wait(&barrier);
    double sum = 0;
    for (int i = 0; i < threads; i++) sum += workers[i].ns;
    if (r) bench_add(&s, sum / threads); /* the first touches pages and makes contexts */
    if (ojo_flush(t) != OJO_OK) exit(1);
    pthread_barrier_wait(&barrier);
  }
  for (int i = 0; i < threads; i++) pthread_join(workers[i].id, NULL);
  long long dropped = (long long)ojo_query_stats(t).dropped;
  bench_row("growth", subject, threads, "ns/event", &s, base > 0 ? "the first of its kind" : NULL, base, dropped, NULL);
  if (base == 0) base = bench_median(&s);
  ojo_close(t);
  pthread_barrier_destroy(&barrier);
  pthread_attr_destroy(&small);
  free(workers);
}

int main(int argc, char **argv) {
  char subject[96];
  if (argc != 2) {
    fprintf(stderr, "usage: growth DIR\n");
    return 2;
  }
  for (int threads = 1; threads <= 1000; threads *= 10) {
    snprintf(subject, sizeof subject, "ojo_record; %d threads", threads);
    grow(argv[1], subject, threads, 128u << 20, 1);
  }
  base = 0;
  for (uint64_t mib = 8; mib <= 8000; mib *= 10) { /* address space: pages are touched as they are needed */
    snprintf(subject, sizeof subject, "ojo_record; pool of %d MiB", (int)mib);
    grow(argv[1], subject, 1, mib << 20, 1);
  }
  base = 0;
  for (uint64_t flows = 10; flows <= 100000; flows *= 10) {
    snprintf(subject, sizeof subject, "ojo_record; %d flows", (int)flows);
    grow(argv[1], subject, 1, 128u << 20, flows);
  }
  return 0;
}
