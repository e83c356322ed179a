/* SPDX-License-Identifier: MIT
 *
 * plain.h - how a program without a tracer traces: fprintf, fwrite under a mutex, write(2), one ring shared by all
 *
 * Each has NAME_open(dir), NAME_record(time, flow, type, payload) that any thread may call, NAME_rest() that waits
 * until nothing is under way, and NAME_close(), which gives how many events were lost. One of each per process.
 */
#ifndef PLAIN_H
#define PLAIN_H
#include <fcntl.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#define RIVAL_UNUSED __attribute__((unused))
#define RIVAL_INLINE static inline __attribute__((always_inline, unused))

struct plain_event { /* the bytes of an ojo_event */
  uint64_t time;
  uint32_t type, flow;
  uint64_t payload;
};

/* Processes that trace into one directory have a file each. */
static RIVAL_UNUSED void plain_path(char *path, size_t bytes, const char *dir, const char *name) {
  snprintf(path, bytes, "%s/%s.%d", dir, name, (int)getpid());
}

/* ---- fprintf: text, by stdio's own lock and buffer -------------------------------------------- */

static RIVAL_UNUSED FILE *fprintf_file;

static RIVAL_UNUSED int fprintf_open(const char *dir) {
  char path[4096];
  plain_path(path, sizeof path, dir, "fprintf");
  fprintf_file = fopen(path, "w");
  return fprintf_file ? 0 : -1;
}
RIVAL_INLINE void fprintf_record(uint64_t time, uint32_t flow, uint32_t type, uint64_t payload) {
  fprintf(fprintf_file, "%" PRIu64 " %" PRIu32 " %" PRIu32 " %" PRIu64 "\n", time, flow, type, payload);
}
static RIVAL_UNUSED void fprintf_rest(void) { fflush(fprintf_file); }
static RIVAL_UNUSED uint64_t fprintf_close(void) { return fclose(fprintf_file) ? UINT64_MAX : 0; }

/* ---- fwrite under a mutex: the struct as it is ------------------------------------------------ */

static RIVAL_UNUSED FILE *fwrite_file;
static RIVAL_UNUSED pthread_mutex_t fwrite_mutex = PTHREAD_MUTEX_INITIALIZER;

static RIVAL_UNUSED int fwrite_open(const char *dir) {
  char path[4096];
  plain_path(path, sizeof path, dir, "fwrite");
  fwrite_file = fopen(path, "w");
  return fwrite_file ? 0 : -1;
}
RIVAL_INLINE void fwrite_record(uint64_t time, uint32_t flow, uint32_t type, uint64_t payload) {
  struct plain_event e = {time, type, flow, payload};
  pthread_mutex_lock(&fwrite_mutex);
  fwrite_unlocked(&e, sizeof e, 1, fwrite_file); /* stdio's own lock on top of ours would be waste */
  pthread_mutex_unlock(&fwrite_mutex);
}
static RIVAL_UNUSED void fwrite_rest(void) { fflush(fwrite_file); }
static RIVAL_UNUSED uint64_t fwrite_close(void) { return fclose(fwrite_file) ? UINT64_MAX : 0; }

/* ---- write(2): a system call for each event --------------------------------------------------- */

static RIVAL_UNUSED int write_fd;
static RIVAL_UNUSED uint64_t write_lost;

static RIVAL_UNUSED int write_open(const char *dir) {
  char path[4096];
  plain_path(path, sizeof path, dir, "write");
  write_lost = 0;
  write_fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_APPEND | O_CLOEXEC, 0600);
  return write_fd < 0 ? -1 : 0;
}
RIVAL_INLINE void write_record(uint64_t time, uint32_t flow, uint32_t type, uint64_t payload) {
  struct plain_event e = {time, type, flow, payload};
  if (write(write_fd, &e, sizeof e) != (ssize_t)sizeof e) __atomic_fetch_add(&write_lost, 1, __ATOMIC_RELAXED);
}
static RIVAL_UNUSED void write_rest(void) {}
static RIVAL_UNUSED uint64_t write_close(void) {
  close(write_fd);
  return write_lost;
}

/* ---- one ring: places reserved by compare-and-swap, published each by its own number ---------- */

#ifndef RING_SLOTS
#define RING_SLOTS (1 << 22) /* 128 MiB */
#endif
enum { RING_BATCH = 4096 }; /* slots that the consumer takes at once */

struct ring_slot {
  uint64_t published; /* 1 + the event's number; producer: release. Consumer: acquire */
  struct plain_event event;
};
static RIVAL_UNUSED struct {
  uint64_t head __attribute__((aligned(128))); /* numbers reserved; producers */
  uint64_t tail __attribute__((aligned(128))); /* numbers consumed; consumer: release, a batch at a time */
  uint64_t lost __attribute__((aligned(128))); /* found no room; producers */
  struct ring_slot *slots __attribute__((aligned(128)));
  FILE *file;
  pthread_t consumer;
  bool stop;
} ring;

/* Writes what is published from the tail on, up to a batch. False: nothing is. */
static RIVAL_UNUSED bool ring_drain(void) {
  static struct plain_event batch[RING_BATCH];
  uint64_t tail = ring.tail, count = 0;
  for (; count < RING_BATCH; count++) {
    struct ring_slot *slot = &ring.slots[(tail + count) % RING_SLOTS];
    if (__atomic_load_n(&slot->published, __ATOMIC_ACQUIRE) != tail + count + 1) break;
    batch[count] = slot->event;
  }
  if (!count) return false;
  __atomic_store_n(&ring.tail, tail + count, __ATOMIC_RELEASE);
  if (fwrite_unlocked(batch, sizeof *batch, count, ring.file) != count)
    __atomic_fetch_add(&ring.lost, count, __ATOMIC_RELAXED);
  return true;
}
/* It sleeps for a hundredth of a second, as ojo's flusher sleeps: where there are few processors it would take turns
 * with the producers otherwise, who would then hardly meet. The ring has room for what they record meanwhile. */
static RIVAL_UNUSED void *ring_consume(void *unused) {
  const struct timespec pause = {0, 10000000};
  (void)unused;
  for (;;) { /* what was recorded before `stop` was set is there when it is seen */
    bool stop = __atomic_load_n(&ring.stop, __ATOMIC_ACQUIRE);
    while (ring_drain()) {}
    if (stop) return NULL;
    nanosleep(&pause, NULL);
  }
}
static RIVAL_UNUSED int ring_open(const char *dir) {
  char path[4096];
  plain_path(path, sizeof path, dir, "ring");
  ring.head = ring.tail = ring.lost = 0;
  ring.stop = false;
  ring.file = fopen(path, "w");
  ring.slots = (struct ring_slot *)aligned_alloc(128, RING_SLOTS * sizeof *ring.slots);
  if (!ring.file || !ring.slots) return -1;
  setvbuf(ring.file, NULL, _IONBF, 0); /* a batch is written as it is */
  for (uint64_t i = 0; i < RING_SLOTS; i++) ring.slots[i].published = 0; /* and every page is there */
  return pthread_create(&ring.consumer, NULL, ring_consume, NULL) ? -1 : 0;
}
/* The tail is loaded before the head: it can only be too old, and the ring look fuller than it is, never emptier. */
RIVAL_INLINE void ring_record(uint64_t time, uint32_t flow, uint32_t type, uint64_t payload) {
  uint64_t tail = __atomic_load_n(&ring.tail, __ATOMIC_ACQUIRE);
  uint64_t head = __atomic_load_n(&ring.head, __ATOMIC_RELAXED);
  do {
    if (head - tail >= RING_SLOTS) {
      __atomic_fetch_add(&ring.lost, 1, __ATOMIC_RELAXED);
      return;
    }
  } while (!__atomic_compare_exchange_n(&ring.head, &head, head + 1, true, __ATOMIC_RELAXED, __ATOMIC_RELAXED));
  struct ring_slot *slot = &ring.slots[head % RING_SLOTS];
  slot->event = (struct plain_event){time, type, flow, payload};
  __atomic_store_n(&slot->published, head + 1, __ATOMIC_RELEASE);
}
static RIVAL_UNUSED void ring_rest(void) {
  const struct timespec pause = {0, 200000};
  while (__atomic_load_n(&ring.tail, __ATOMIC_ACQUIRE) != __atomic_load_n(&ring.head, __ATOMIC_ACQUIRE))
    nanosleep(&pause, NULL);
}
static RIVAL_UNUSED uint64_t ring_close(void) {
  __atomic_store_n(&ring.stop, true, __ATOMIC_RELEASE);
  pthread_join(ring.consumer, NULL);
  free(ring.slots);
  return fclose(ring.file) ? UINT64_MAX : ring.lost;
}
#endif
