/* SPDX-License-Identifier: MIT
 *
 * plain.c - fprintf, fwrite under a mutex, write(2) and one shared ring beside ojo
 *
 *   plain DIR            case "rivals": 1, 2 and 4 threads
 *   plain contended DIR  case "contended": two threads, times given, the ring and ojo_record_at
 */
#include "harness.h"
#include "plain.h"

RIVAL_LOOP(loop_fprintf, fprintf_record(ojo__tick(), 1, OJO_PACKET_SENT, i))
RIVAL_LOOP(loop_fprintf_at, fprintf_record(time, 1, OJO_PACKET_SENT, i))
RIVAL_LOOP(loop_fwrite, fwrite_record(ojo__tick(), 1, OJO_PACKET_SENT, i))
RIVAL_LOOP(loop_fwrite_at, fwrite_record(time, 1, OJO_PACKET_SENT, i))
RIVAL_LOOP(loop_write, write_record(ojo__tick(), 1, OJO_PACKET_SENT, i))
RIVAL_LOOP(loop_write_at, write_record(time, 1, OJO_PACKET_SENT, i))
RIVAL_LOOP(loop_ring, ring_record(ojo__tick(), 1, OJO_PACKET_SENT, i))
RIVAL_LOOP(loop_ring_at, ring_record(time, 1, OJO_PACKET_SENT, i))

static uint64_t ring_lost(void) { return __atomic_load_n(&ring.lost, __ATOMIC_RELAXED); }
static uint64_t write_lost_so_far(void) { return __atomic_load_n(&write_lost, __ATOMIC_RELAXED); }

static const struct rival {
  const char *subject, *subject_at;
  int (*open)(const char *dir);
  void (*loop)(uint64_t events), (*loop_at)(uint64_t events), (*rest)(void);
  uint64_t (*lost)(void), (*close)(void);
  uint64_t events; /* of all threads in a turn */
} rivals[] = {
  {"fprintf", "fprintf with the time given", fprintf_open, loop_fprintf, loop_fprintf_at, fprintf_rest, NULL,
   fprintf_close, 50000},
  {"fwrite under a mutex", "fwrite under a mutex with the time given", fwrite_open, loop_fwrite, loop_fwrite_at,
   fwrite_rest, NULL, fwrite_close, 200000},
  {"write(2)", "write(2) with the time given", write_open, loop_write, loop_write_at, write_rest, write_lost_so_far,
   write_close, 20000},
  {"ring by CAS", "ring by CAS with the time given", ring_open, loop_ring, loop_ring_at, ring_rest, ring_lost,
   ring_close, 400000},
};

/* 0, or what the program exits with. */
static int finish(const struct rival *r) {
  uint64_t lost = r->close();
  if (lost == UINT64_MAX) fprintf(stderr, "plain: %s: its file was not written\n", r->subject);
  return lost == UINT64_MAX;
}

static int compare(const struct rival *r, int threads, const char *dir) {
  uint64_t events = bench_scale(r->events, r->events / 2, r->events / 10) / (uint64_t)threads;
  if (r->open(dir)) {
    perror(r->subject);
    return 1;
  }
  struct rival_case cases[] = {rival_case_ojo(false, threads), rival_case_ojo(true, threads),
                               rival_case_of(r->subject, r->loop, r->rest, r->lost, events, "ojo_record"),
                               rival_case_of(r->subject_at, r->loop_at, r->rest, r->lost, events, "ojo_record_at")};
  rival_measure(cases, 4, threads, (int)bench_scale(11, 5, 1));
  rival_rows("rivals", cases, 4, threads, false, r->subject);
  return finish(r);
}

static int contended(const char *dir) {
  const struct rival *r = &rivals[sizeof rivals / sizeof *rivals - 1];
  if (r->open(dir)) {
    perror(r->subject);
    return 1;
  }
  uint64_t events = 50000; /* a few ms: less than a scheduler's turn */
  struct rival_case cases[] = {
    rival_case_ojo(true, 2), rival_case_of(r->subject_at, r->loop_at, r->rest, r->lost, events, "ojo_record_at")};
  cases[0].events = events;
  cases[0].undisturbed = cases[1].undisturbed = true;
  rival_measure(cases, 2, 2, (int)bench_scale(201, 101, 21));
  rival_rows("contended", cases, 2, 2, false, r->subject);
  rival_rows("contended", cases, 2, 2, true, r->subject);
  return finish(r);
}

int main(int count, char **argument) {
  static const int threads[] = {1, 2, 4};
  bool only_contended = count == 3 && !strcmp(argument[1], "contended");
  char dir[4096];
  int failed = 0;
  if (count != 2 && !only_contended) {
    fprintf(stderr, "usage: plain [contended] DIR\n");
    return 2;
  }
  scratch_make(dir, sizeof dir, argument[count - 1], "plain");
  rival_ojo_open(dir);
  if (only_contended) failed = contended(dir);
  for (size_t r = 0; !only_contended && r < sizeof rivals / sizeof *rivals; r++)
    for (size_t i = 0; i < sizeof threads / sizeof *threads; i++) failed |= compare(&rivals[r], threads[i], dir);
  ojo_close(rival_ojo);
  scratch_remove(dir);
  return failed;
}
