/* SPDX-License-Identifier: MIT
 *
 * crash.c - SIGKILL at random moments of a program with 4 recording threads. Each thread stores "begun"
 * before and "done" after each record, in memory that it shares with this test. After recovery the files
 * hold, of each thread, its first `recovered` events, each once and in order, done <= recovered <= begun.
 * (Without a tmpfs, OJO_NO_TMPFS: the first of those that it began, and nothing is recovered.)
 *
 * Three ways in turn: plain; a consumer reads and deletes the files of output/ all the while; and the
 * recoverer is killed as well, up to three times, or two of them at once.
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

enum { PLAIN, CONSUMER, RECOVERER, MODES };
static const char *const mode_names[MODES] = {"plain", "a consumer deletes files", "the recoverer is killed"};

static pid_t start(int (*run)(void)) {
  fflush(stdout);
  pid_t child = fork();
  if (child == 0) _exit(run());
  if (child < 0) abort();
  return child;
}
static int run_recoverer(void) { return ojo_recover(dir) != OJO_OK; }

/* Ends a child of ours after `us`, and waits for it. Returns what waitpid tells. */
static int kill_after(pid_t child, unsigned us) {
  int status = -1;
  usleep(us);
  kill(child, SIGKILL);
  waitpid(child, &status, 0);
  return status;
}

/* Takes files away until the child ends. Returns what waitpid tells. */
static int consume_until_end(struct tally *s, pid_t child) {
  int status = -1;
  s->live = true;
  while (waitpid(child, &status, WNOHANG) == 0) {
    tally_dir(s, dir, true);
    usleep(300);
  }
  s->live = false;
  return status;
}

/* The victim's life and death, and what must be done before the recovery that is to succeed. */
static void crash(struct tally *s, int mode, unsigned us, uint64_t *state) {
  pid_t victim = start(run_victim);
  int status;
  if (mode != CONSUMER) {
    status = kill_after(victim, us);
  } else { /* a third process kills it, so that the consumer is at work at that moment too */
    fflush(stdout);
    pid_t killer = fork();
    if (killer == 0) {
      usleep(us);
      _exit(kill(victim, SIGKILL));
    }
    status = consume_until_end(s, victim);
    waitpid(killer, NULL, 0);
  }
  check(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL, "the victim recorded until it was killed");
  uint64_t kills = mode == RECOVERER ? 1 + check_random(state) % 3 : 0;
  bool two = check_random(state) % 3 == 0;
  for (uint64_t i = 0; i < kills; i++) {
    pid_t one = start(run_recoverer), other = two ? start(run_recoverer) : 0;
    kill_after(one, (unsigned)(check_random(state) % 6000));
    if (other) kill_after(other, (unsigned)(check_random(state) % 6000));
  }
}

/* Every now and then by the tool, which prints nothing on standard output. */
static void recover(struct tally *s, int mode, int run) {
  if (run % 10 == 0) {
    int code;
    char *text = check_run(&code, "%s/ojo-cat --recover %s", getenv("BUILD") ? getenv("BUILD") : "build", dir);
    check(code == 0 && !*text, "run %d: ojo-cat --recover gives %d and '%s'", run, code, text);
    free(text);
  } else if (mode == CONSUMER) {
    int status = consume_until_end(s, start(run_recoverer));
    check(WIFEXITED(status) && WEXITSTATUS(status) == 0, "run %d: ojo_recover, files taken away meanwhile", run);
  } else {
    check(ojo_recover(dir) == OJO_OK, "run %d: ojo_recover", run);
  }
}

/* One check for each thread: its events in the files are 0, 1, 2 .. recovered - 1, each once: bad_order counts
 * every number that is not above the one before it, so as many of them as the last one plus one are all. */
static void verify(struct tally *s, int run) {
  uint64_t sum = 0;
  for (uint32_t i = 0; i < THREADS; i++) {
    uint64_t begun = shared->thread[i].begun, done = shared->thread[i].done, got = s->events[i + 1];
#ifdef OJO_NO_TMPFS
    done = 0; /* private memory: what was not written went with the process */
#endif
    check(got >= done && got <= begun && s->next[i + 1] == got,
          "run %d, thread %u: done %llu <= recovered %llu <= begun %llu, next %llu", run, i + 1,
          (unsigned long long)done, (unsigned long long)got, (unsigned long long)begun,
          (unsigned long long)s->next[i + 1]);
    sum += got;
  }
  check(sum == s->total, "run %d: %llu events of no thread of ours", run, (unsigned long long)(s->total - sum));
  check(s->bad_file == 0 && s->bad_payload == 0 && s->bad_order == 0 && s->bad_ordinal == 0,
        "run %d: %llu unsound, %llu torn, %llu doubled or out of order, %llu ordinals", run,
        (unsigned long long)s->bad_file, (unsigned long long)s->bad_payload, (unsigned long long)s->bad_order,
        (unsigned long long)s->bad_ordinal);
  check(s->dropped == 0, "run %d: %llu dropped", run, (unsigned long long)s->dropped);
}

int main(void) {
  const char *runs_text = getenv("OJO_CRASH_RUNS"), *seed_text = getenv("OJO_CRASH_SEED");
  int runs = runs_text ? atoi(runs_text) : 50, done[MODES] = {0, 0, 0};
  uint64_t seed = seed_text ? strtoull(seed_text, NULL, 10) : (uint64_t)time(NULL), state = seed;
  uint64_t longest = check_emulated() ? 200000 : 40000; /* us */
  uint64_t events[MODES] = {0, 0, 0}, begun[MODES] = {0, 0, 0};
  setvbuf(stdout, NULL, _IOLBF, 0);
  printf("crash: %d runs, OJO_CRASH_SEED=%llu\n", runs, (unsigned long long)seed);
  shared = (struct shared *)mmap(NULL, sizeof *shared, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  if (shared == MAP_FAILED) return 1;
  for (int run = 0; run < runs; run++) {
    int mode = run % MODES;
    memset(shared, 0, sizeof *shared);
    check_directory("crash", dir, sizeof dir);
    struct tally *s = tally_new();
    /* every fourth while the tracer opens and the first events come */
    crash(s, mode, (unsigned)(check_random(&state) % (run % 4 ? longest : longest / 10)), &state);
    recover(s, mode, run);
#ifdef OJO_NO_TMPFS
    check(check_count(dir, "staging") <= 1, "run %d: staging/ has at most the batch that was being written", run);
#else
    check(check_count(dir, "staging") == 0, "run %d: staging/ is empty", run);
#endif
    tally_dir(s, dir, true);
    verify(s, run);
    done[mode]++;
    events[mode] += s->total;
    for (int i = 0; i < THREADS; i++) begun[mode] += shared->thread[i].begun;
    free(s);
    check_remove(dir);
    if (runs >= 500 && (run + 1) % (runs / 5) == 0) printf("crash: %d runs done\n", run + 1);
  }
  for (int mode = 0; mode < MODES; mode++) {
    printf("note: %s: %d runs, %llu events begun, %llu in the files\n", mode_names[mode], done[mode],
           (unsigned long long)begun[mode], (unsigned long long)events[mode]);
    check(events[mode] > 0 || done[mode] < 10, "%s: no run had events", mode_names[mode]);
  }
  munmap(shared, sizeof *shared);
  return check_end("crash");
}
