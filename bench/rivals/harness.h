/* SPDX-License-Identifier: MIT
 *
 * harness.h - a rival beside ojo, by turns, with the same 24 bytes of fields, while the consumers of both run
 *
 * A sample is one turn of all threads: the mean of their CPU time (or of the wall time that their loops took) per
 * event. Between turns the consumers come to rest. What was lost is counted; a lost event was a call too. Where two
 * threads are to meet, a turn in which one of them lost its processor, and the other one was alone, does not count.
 */
#ifndef HARNESS_H
#define HARNESS_H
#include "../pin.h"
#include "../scratch.h"

#define OJO_IMPLEMENTATION
#include "../../ojo.h"

#include <sys/resource.h>

enum { RIVAL_THREADS_MAX = 4, RIVAL_CASES_MAX = 4 };

/* One loop to be measured. */
struct rival_case {
  const char *subject;
  void (*loop)(uint64_t events);
  void (*rest)(void);
  uint64_t (*lost)(void);  /* so far; NULL: counted in the end, by the caller */
  uint64_t events;         /* of each thread in a turn */
  const char *against;     /* the subject of another case; NULL: none */
  bool undisturbed;        /* only turns in which no thread was switched away */
  struct bench_samples cpu, wall;
  uint64_t dropped;
};

static ojo_tracer *rival_ojo;

/* The time is one that the caller has: its value matters to those that print it. */
#define RIVAL_LOOP(name, call)                                          \
  __attribute__((noinline)) static void name(uint64_t events) {         \
    const uint64_t given = bench_wall_ns();                             \
    for (uint64_t i = 0; i < events; i++) {                             \
      uint64_t time = given + i;                                        \
      call;                                                             \
      __asm__ volatile("" : : "r"(time) : "memory");                    \
    }                                                                   \
  }
RIVAL_LOOP(rival_loop_ojo, ojo_record(rival_ojo, 1, OJO_PACKET_SENT, i))
RIVAL_LOOP(rival_loop_ojo_at, ojo_record_at(rival_ojo, time, 1, OJO_PACKET_SENT, i))

static void rival_ojo_rest(void) { ojo_flush(rival_ojo); }
static uint64_t rival_ojo_lost(void) { return ojo_query_stats(rival_ojo).dropped; }

/* A tracer as it is by default, but for the disk. */
static void rival_ojo_open(const char *dir) {
  char path[4200];
  ojo_desc d;
  memset(&d, 0, sizeof d);
  snprintf(path, sizeof path, "%s/ojo", dir);
  d.dir = path;
  d.disk_bytes_max = 64u << 20;
  if (ojo_open(&rival_ojo, &d) != OJO_OK || !rival_ojo) exit(1);
}

static struct rival_case rival_case_ojo(bool at, int threads) {
  struct rival_case c;
  memset(&c, 0, sizeof c);
  c.subject = at ? "ojo_record_at" : "ojo_record";
  c.loop = at ? rival_loop_ojo_at : rival_loop_ojo;
  c.rest = rival_ojo_rest;
  c.lost = rival_ojo_lost;
  c.events = bench_scale(400000, 400000, 50000) / (uint64_t)threads; /* as many as of the fastest rivals */
  return c;
}
static struct rival_case rival_case_of(const char *subject, void (*loop)(uint64_t), void (*rest)(void),
                                       uint64_t (*lost)(void), uint64_t events, const char *against) {
  struct rival_case c;
  memset(&c, 0, sizeof c);
  c.subject = subject;
  c.loop = loop;
  c.rest = rest;
  c.lost = lost;
  c.events = events;
  c.against = against;
  return c;
}

struct rival_worker {
  pthread_t id;
  pthread_barrier_t *barrier;
  struct rival_case *cases;
  int count, rounds, threads, index;
  uint64_t *arrived;        /* at the start of a turn; of all threads */
  uint64_t cpu_ns, wall_ns; /* of the turn */
  long switches;
  struct rival_worker *all;
};

static void rival_turn_done(struct rival_worker *w, struct rival_case *c, bool counts) {
  uint64_t cpu = 0, wall = 0;
  long switches = 0;
  for (int i = 0; i < w->threads; i++) {
    switches += w->all[i].switches;
    cpu += w->all[i].cpu_ns;
    wall += w->all[i].wall_ns;
  }
  if (counts && (!c->undisturbed || !switches)) {
    bench_add(&c->cpu, (double)cpu / (double)(c->events * (uint64_t)w->threads));
    bench_add(&c->wall, (double)wall / (double)(c->events * (uint64_t)w->threads));
  }
  c->rest();
}

static long rival_switches(void) {
  struct rusage u;
  return getrusage(RUSAGE_THREAD, &u) ? 0 : u.ru_nvcsw + u.ru_nivcsw;
}

static void *rival_work(void *argument) {
  struct rival_worker *w = (struct rival_worker *)argument;
  uint64_t turn = 0;
  pin_thread(w->index, w->threads);
  for (int r = -1; r < w->rounds; r++) /* round -1 warms up */
    for (int i = 0; i < w->count; i++) {
      struct rival_case *c = &w->cases[i];
      uint64_t lost = c->lost ? c->lost() : 0;
      pthread_barrier_wait(w->barrier); /* the last turn's figures have been taken */
      long switches = rival_switches(); /* from here: who is switched away while it waits starts too late */
      pin_start(w->arrived, w->threads, ++turn);
      uint64_t wall = bench_wall_ns(), cpu = bench_thread_ns();
      c->loop(c->events);
      w->cpu_ns = bench_thread_ns() - cpu;
      w->wall_ns = bench_wall_ns() - wall;
      w->switches = rival_switches() - switches;
      pthread_barrier_wait(w->barrier);
      if (w->index) continue;
      rival_turn_done(w, c, r >= 0);
      if (c->lost) c->dropped += c->lost() - lost;
    }
  return NULL;
}

/* Measures the cases by turns; all threads run one case at a time. */
static void rival_measure(struct rival_case *cases, int count, int threads, int rounds) {
  struct rival_worker workers[RIVAL_THREADS_MAX];
  pthread_barrier_t barrier;
  uint64_t arrived = 0;
  pthread_barrier_init(&barrier, NULL, (unsigned)threads);
  memset(workers, 0, sizeof workers);
  for (int i = 0; i < threads; i++) {
    struct rival_worker *w = &workers[i];
    w->barrier = &barrier;
    w->arrived = &arrived;
    w->cases = cases;
    w->count = count;
    w->rounds = rounds;
    w->threads = threads;
    w->index = i;
    w->all = workers;
    if (pthread_create(&w->id, NULL, rival_work, w)) {
      perror("pthread_create");
      exit(1);
    }
  }
  for (int i = 0; i < threads; i++) pthread_join(workers[i].id, NULL);
  pthread_barrier_destroy(&barrier);
}

/* A row for each case; `beside` is in the notes: ojo's figures belong to the rival that they were taken with. */
static void rival_rows(const char *what, struct rival_case *cases, int count, int threads, bool wall,
                       const char *beside) {
  for (int i = 0; i < count; i++) {
    struct rival_case *c = &cases[i];
    double against = 0;
    char note[128];
    for (int k = 0; k < count && c->against; k++)
      if (!strcmp(cases[k].subject, c->against)) against = bench_median(wall ? &cases[k].wall : &cases[k].cpu);
    snprintf(note, sizeof note, "%s; beside %s", wall ? "wall time of each thread" : "CPU time", beside);
    bench_row(what, c->subject, threads, "ns/event", wall ? &c->wall : &c->cpu, c->against, against,
              (long long)c->dropped, note);
  }
}
#endif
