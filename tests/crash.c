/* SPDX-License-Identifier: MIT
 *
 * crash.c - SIGKILL at random moments of a program with 4 recording threads. Each thread stores "begun"
 * before and "done" after each record, in memory that it shares with this test. After recovery the files
 * hold done <= recovered <= begun events of each thread, none twice, none missing in between.
 *
 *   OJO_CRASH_RUNS   how many kills (default 50)
 *   OJO_CRASH_SEED   of the random moments (default: the time; printed)
 */
#define OJO_IMPLEMENTATION
#include "ojo.h"
#include "check.h"
#include "tally.h"

enum { THREADS = 4 };
struct shared {
  struct {
    uint64_t begun, done, pad[6];
  } thread[THREADS];
};
static struct shared *shared;
static char dir[256];

struct writer {
  ojo_tracer *t;
  uint32_t index;
};
static void *write_forever(void *argument) {
  struct writer *w = (struct writer *)argument;
  uint32_t flow = w->index + 1;
  static const unsigned char zero[96];
  unsigned char bytes[96];
  memcpy(bytes, zero, sizeof bytes);
  for (uint64_t n = 0;; n++) {
    __atomic_store_n(&shared->thread[w->index].begun, n + 1, __ATOMIC_RELEASE);
    if (n % 7) {
      ojo_record(w->t, flow, OJO_PACKET_SENT, sealed(flow, n));
    } else { /* four slots, committed as one */
      uint64_t payload = sealed(flow, n);
      for (int i = 0; i < 4; i++) memcpy(bytes + 24 * i + 16, &payload, 8);
      ojo_record_ext(w->t, flow, 0x010000, payload, bytes, sizeof bytes);
    }
    __atomic_store_n(&shared->thread[w->index].done, n + 1, __ATOMIC_RELEASE);
  }
  return NULL;
}

static int run_victim(void) {
  struct writer w[THREADS];
  pthread_t id;
  ojo_desc d;
  ojo_tracer *t;
  memset(&d, 0, sizeof d);
  d.dir = dir;
  d.buffer_bytes = 16u << 20;
  d.flush_bytes = 1u << 20;
  d.flush_interval_ms = 5;
  d.overflow = OJO_OVERFLOW_BLOCK;
  if (ojo_open(&t, &d) != OJO_OK || !t) return 1;
  for (uint32_t i = 0; i < THREADS; i++) {
    w[i].t = t;
    w[i].index = i;
    if (pthread_create(&id, NULL, write_forever, &w[i])) return 1;
  }
  for (;;) pause();
}

/* Ends a child of ours after `us`, and waits for it. */
static void kill_after(pid_t child, unsigned us) {
  usleep(us);
  kill(child, SIGKILL);
  waitpid(child, NULL, 0);
}

/* Files go to a tally as a consumer takes them, in the order of their batches. */
static void verify(struct tally *s, int run) {
  for (uint32_t i = 0; i < THREADS; i++) {
    uint64_t begun = shared->thread[i].begun, done = shared->thread[i].done, got = s->events[i + 1];
    check(got >= done && got <= begun && s->next[i + 1] == got,
          "run %d, thread %u: done %llu <= recovered %llu <= begun %llu, next %llu", run, i + 1,
          (unsigned long long)done, (unsigned long long)got, (unsigned long long)begun,
          (unsigned long long)s->next[i + 1]);
  }
  check(s->bad_file == 0 && s->bad_payload == 0 && s->bad_order == 0 && s->bad_ordinal == 0,
        "run %d: %llu unsound, %llu torn, %llu out of order, %llu ordinals", run, (unsigned long long)s->bad_file,
        (unsigned long long)s->bad_payload, (unsigned long long)s->bad_order, (unsigned long long)s->bad_ordinal);
  check(s->dropped == 0, "run %d: %llu dropped", run, (unsigned long long)s->dropped);
}

int main(void) {
  const char *runs_text = getenv("OJO_CRASH_RUNS"), *seed_text = getenv("OJO_CRASH_SEED");
  int runs = runs_text ? atoi(runs_text) : 50;
  uint64_t seed = seed_text ? strtoull(seed_text, NULL, 10) : (uint64_t)time(NULL), state = seed, total = 0;
  printf("crash: %d runs, OJO_CRASH_SEED=%llu\n", runs, (unsigned long long)seed);
  shared = (struct shared *)mmap(NULL, sizeof *shared, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  if (shared == MAP_FAILED) return 1;
  for (int run = 0; run < runs; run++) {
    memset(shared, 0, sizeof *shared);
    check_directory("crash", dir, sizeof dir);
    struct tally *s = tally_new();
    fflush(stdout);
    pid_t child = fork();
    if (child == 0) _exit(run_victim());
    unsigned us = (unsigned)(check_random(&state) % (run % 3 ? 40000 : 4000));
    if (run % 2) { /* a consumer takes files away meanwhile */
      usleep(us / 2);
      tally_dir(s, dir, true);
      usleep(us / 2);
      tally_dir(s, dir, true);
    }
    kill_after(child, run % 2 ? 0 : us);
    for (int killed = 0; killed < run % 4; killed++) { /* the recoverer is killed as well, or two run */
      pid_t one = fork();
      if (one == 0) _exit(ojo_recover(dir) != OJO_OK);
      pid_t two = run % 4 == 2 ? fork() : 0;
      if (run % 4 == 2 && two == 0) _exit(ojo_recover(dir) != OJO_OK);
      kill_after(one, (unsigned)(check_random(&state) % 6000));
      if (two > 0) kill_after(two, (unsigned)(check_random(&state) % 6000));
    }
    if (run % 10 == 0) { /* by the tool: nothing on standard output */
      int code;
      char *text = check_run(&code, "%s/ojo-cat --recover %s", getenv("BUILD") ? getenv("BUILD") : "build", dir);
      check(code == 0 && !*text, "run %d: ojo-cat --recover gives %d and '%s'", run, code, text);
      free(text);
    } else {
      check(ojo_recover(dir) == OJO_OK, "run %d: ojo_recover", run);
    }
    check(check_count(dir, "staging") == 0, "run %d: staging/ is empty", run);
    tally_dir(s, dir, true);
    verify(s, run);
    total += s->total;
    free(s);
    check_remove(dir);
  }
  printf("crash: %llu events recovered or written over all runs\n", (unsigned long long)total);
  munmap(shared, sizeof *shared);
  return check_end("crash");
}
