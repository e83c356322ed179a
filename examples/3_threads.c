/* SPDX-License-Identifier: MIT
 *
 * 3_threads.c - many threads, one tracer
 *
 *     cc -std=gnu11 -O2 -I. examples/3_threads.c -o 3_threads -pthread
 *     OJO_DIR=traces ./3_threads && ojo-cat --stats traces
 *
 * Any thread may record into any tracer and any flow, with nothing to register: a thread leases a chunk of
 * the pool at its first event and writes alone in it. Order is kept within a thread; between threads time
 * decides. So there are two ways to keep a connection's events in order:
 *   1. record a connection on one thread (the four workers below), or
 *   2. pass times: read the clock where it happened, record where it is convenient (the receiver below).
 */
#define OJO_IMPLEMENTATION
#include "ojo.h"
#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

enum { WORKERS = 4, PACKETS = 20000, QUEUE = 64 };

static ojo_tracer *trace; /* set before the threads start, closed after they have ended */

/* 1. One thread per connection. One clock read does for all events of one packet. */
static void *worker(void *argument) {
  uint64_t key = (uint64_t)(uintptr_t)argument;
  uint32_t flow = ojo_flow_open(trace, &(ojo_flow_desc){.key = key, .label = "worker"});
  uint32_t stream = ojo_flow_stream(trace, flow, 0);
  for (uint64_t number = 0; number < PACKETS; number++) {
    uint64_t now = ojo_now(trace);
    ojo_offset_sent_sized_at(trace, now, stream, number * 1000, 1000);
    ojo_packet_sent_sized_at(trace, now, flow, number, 1040);
  }
  ojo_flow_close(trace, flow, 0, "done");
  return NULL; /* the thread's chunk goes back to the pool; nothing is lost */
}

/* 2. One thread receives, another one records: the stamp travels with the packet. */
static struct {
  pthread_mutex_t lock;
  pthread_cond_t changed;
  struct { uint64_t number, received; } packet[QUEUE];
  unsigned count;
  bool ended;
} queue = {.lock = PTHREAD_MUTEX_INITIALIZER, .changed = PTHREAD_COND_INITIALIZER};

static void *receiver(void *argument) {
  (void)argument;
  for (uint64_t number = 0; number < PACKETS; number++) {
    uint64_t received = ojo_now(trace);
    pthread_mutex_lock(&queue.lock);
    while (queue.count == QUEUE) pthread_cond_wait(&queue.changed, &queue.lock);
    queue.packet[queue.count].number = number;
    queue.packet[queue.count++].received = received;
    pthread_cond_signal(&queue.changed);
    pthread_mutex_unlock(&queue.lock);
  }
  pthread_mutex_lock(&queue.lock);
  queue.ended = true;
  pthread_cond_signal(&queue.changed);
  pthread_mutex_unlock(&queue.lock);
  return NULL;
}

static void *processor(void *argument) {
  (void)argument;
  uint32_t flow = ojo_flow_open(trace, &(ojo_flow_desc){.key = WORKERS, .label = "receiver"});
  pthread_mutex_lock(&queue.lock);
  while (queue.count || !queue.ended) {
    for (unsigned i = 0; i < queue.count; i++) /* when it came, not when we got round to it */
      ojo_packet_received_sized_at(trace, queue.packet[i].received, flow, queue.packet[i].number, 1040);
    queue.count = 0;
    pthread_cond_signal(&queue.changed);
    if (!queue.ended) pthread_cond_wait(&queue.changed, &queue.lock);
  }
  pthread_mutex_unlock(&queue.lock);
  ojo_flow_close(trace, flow, 0, "done");
  return NULL;
}

int main(void) {
  pthread_t thread[WORKERS + 2];
  ojo_open(&trace, &(ojo_desc){.dir = getenv("OJO_DIR")});
  for (uintptr_t i = 0; i < WORKERS + 2; i++) {
    void *(*run)(void *) = i < WORKERS ? worker : i == WORKERS ? receiver : processor;
    if (pthread_create(&thread[i], NULL, run, (void *)i)) return 1;
  }
  for (int i = 0; i < WORKERS + 2; i++) pthread_join(thread[i], NULL);

  /* What does not fit into the pool is dropped and counted, never silently: check it once, at the end. */
  ojo_stats stats = ojo_query_stats(trace);
  printf("recorded %" PRIu64 " events, dropped %" PRIu64 "\n", stats.recorded, stats.dropped);
  return ojo_close(trace) != OJO_OK || stats.dropped != 0;
}
