/* SPDX-License-Identifier: MIT
 *
 * stress.c - the tracer under load: every event recorded is in the files once, in its thread's order, or
 * counted as dropped, exactly. Payloads are sequence numbers, so that a torn, doubled or lost one shows.
 *
 *   OJO_STRESS_SECONDS   how long the test at full speed runs (default 2)
 *   OJO_STRESS_EVENTS    events of each test with many threads (default 1,000,000); the numbers of short
 *                        threads and of interrupted instructions go with it
 */
#define OJO_IMPLEMENTATION
#include "ojo.h"
#include "check.h"
#include "tally.h"

#include <sys/syscall.h>

/* ---- recording threads */

struct recorder {
  ojo_tracer *t;
  pthread_t thread;
  uint32_t flow;
  uint64_t count, done;
  const uint32_t *stop;
  bool mixed; /* extensions of 0 to 255 slots, sized, pairs; else plain events */
};

static void record_mixed(struct recorder *r, uint64_t *n, uint64_t *seed) {
  static const unsigned slots[8] = {0, 1, 2, 4, 1, 16, 3, 255};
  ojo_event bytes[255];
  uint64_t choice = check_random(seed) % 64, payload = sealed(r->flow, *n);
  unsigned extra = slots[choice & 7];
  if (choice >= 48) {
    ojo_packet_sent_sized(r->t, r->flow, *n & 0xFFFFFFFFFFF, *n & 0xFFFFF);
    (*n)++;
  } else if (choice >= 40) {
    ojo_packet_retransmit(r->t, r->flow, payload, sealed(r->flow, *n + 1));
    *n += 2;
  } else if (choice >= 8 || extra == 0) {
    ojo_record(r->t, r->flow, OJO_PACKET_SENT, payload);
    (*n)++;
  } else {
    for (unsigned i = 0; i < extra; i++) bytes[i].ts = bytes[i].type = bytes[i].flow = 0, bytes[i].payload = payload;
    ojo_record_ext(r->t, r->flow, 0x010000, payload, bytes, extra * 24);
    (*n)++;
  }
}

static void *record_thread(void *argument) {
  struct recorder *r = (struct recorder *)argument;
  uint64_t n = 0, seed = r->flow;
  while (r->stop ? !__atomic_load_n(r->stop, __ATOMIC_RELAXED) : n < r->count) {
    if (r->mixed) record_mixed(r, &n, &seed);
    else ojo_record(r->t, r->flow, OJO_PACKET_SENT, sealed(r->flow, n)), n++;
  }
  r->done = n;
  return NULL;
}

static void run_threads(ojo_tracer *t, unsigned threads, uint64_t count, bool mixed, uint64_t *attempted) {
  struct recorder r[64];
  memset(r, 0, sizeof r);
  for (unsigned i = 0; i < threads; i++) {
    r[i].t = t;
    r[i].flow = i + 1;
    r[i].count = count;
    r[i].mixed = mixed;
    if (pthread_create(&r[i].thread, NULL, record_thread, &r[i])) abort();
  }
  *attempted = 0;
  for (unsigned i = 0; i < threads; i++) {
    pthread_join(r[i].thread, NULL);
    *attempted += r[i].done;
  }
}

static char directory[256];
static char *fresh_dir(void) {
  if (directory[0]) check_remove(directory);
  return check_directory("stress", directory, sizeof directory);
}

static ojo_tracer *open_with(ojo_desc d) {
  ojo_tracer *t;
  d.dir = fresh_dir();
  ojo_result result = ojo_open(&t, &d);
  if (!check(result == OJO_OK && t, "ojo_open: %s", ojo_result_string(result))) exit(1);
  return t;
}

static void close_and_check(ojo_tracer *t, const char *what, uint64_t attempted) {
  struct tally *s = tally_new();
  char dir[256];
  memcpy(dir, directory, sizeof dir);
  ojo_stats q = ojo_query_stats(t);
  check(q.recorded + q.dropped == attempted, "%s: recorded %llu + dropped %llu != attempted %llu", what,
        (unsigned long long)q.recorded, (unsigned long long)q.dropped, (unsigned long long)attempted);
  check(ojo_close(t) == OJO_OK, "%s: ojo_close", what);
  tally_dir(s, dir, false);
  tally_check(s, what, attempted);
  check(s->dropped == q.dropped, "%s: EVENTS_DROPPED sum to %llu, stats say %llu", what,
        (unsigned long long)s->dropped, (unsigned long long)q.dropped);
  free(s);
}

/* ---- the tests */

static void test_threads(uint64_t scale) {
  static const unsigned threads[] = {1, 2, 4, 16};
  for (size_t i = 0; i < sizeof threads / sizeof *threads; i++)
    for (int mode = 0; mode < 4; mode++) { /* bit 0: mixed, bit 1: BLOCK */
      char what[64];
      uint64_t attempted;
      snprintf(what, sizeof what, "%u threads, %s, %s", threads[i], mode & 1 ? "mixed" : "plain",
               mode & 2 ? "block" : "drop");
      ojo_desc d;
      memset(&d, 0, sizeof d);
      d.buffer_bytes = 2 << 20;
      d.flush_bytes = 1 << 20;
      d.checksums = (mode & 1) != 0;
      d.overflow = mode & 2 ? OJO_OVERFLOW_BLOCK : OJO_OVERFLOW_DROP_NEWEST;
      ojo_tracer *t = open_with(d);
      run_threads(t, threads[i], scale / threads[i], mode & 1, &attempted);
      if (mode & 2) check(ojo_query_stats(t).dropped == 0, "%s: dropped none", what);
      close_and_check(t, what, attempted);
    }
}

static ojo_tracer *handler_tracer;
static uint64_t handler_count;
static void on_timer(int signal) {
  (void)signal;
  uint64_t n = __atomic_fetch_add(&handler_count, 3, __ATOMIC_RELAXED);
  for (uint64_t i = 0; i < 3; i++) ojo_record(handler_tracer, 40, OJO_PACKET_ACKED, sealed(40, n + i));
}

static void handle(int number, void (*handler)(int)) {
  struct sigaction action;
  memset(&action, 0, sizeof action);
  action.sa_handler = handler;
  action.sa_flags = SA_RESTART;
  sigaction(number, &action, NULL);
}

/* Records while a 10 kHz timer of the thread's own interrupts it. */
static void *timed_thread(void *argument) {
  struct { /* the kernel's struct sigevent, whose last field libc's do not name alike */
    void *value;
    int number, notify, tid, rest[11];
  } event;
  struct itimerspec every = {{0, 100000}, {0, 100000}};
  timer_t timer;
  memset(&event, 0, sizeof event);
  event.notify = 4; /* SIGEV_THREAD_ID: this thread, and no other */
  event.number = SIGUSR1;
  event.tid = (int)syscall(SYS_gettid);
  if (syscall(SYS_timer_create, CLOCK_MONOTONIC, &event, &timer) != 0) abort();
  syscall(SYS_timer_settime, timer, 0, &every, NULL);
  record_thread(argument);
  syscall(SYS_timer_delete, timer);
  return NULL;
}

/* The handlers' events come from several threads and levels, so they have no order: counted, and summed. */
static void check_handler(ojo_tracer *t, const char *what, uint64_t attempted, uint32_t flows, uint64_t each) {
  ojo_stats q = ojo_query_stats(t);
  check(q.recorded + q.dropped == attempted + handler_count, "%s: recorded %llu + dropped %llu != %llu", what,
        (unsigned long long)q.recorded, (unsigned long long)q.dropped,
        (unsigned long long)(attempted + handler_count));
#ifndef __SANITIZE_THREAD__ /* which lets the flusher starve: nested records never wait for it */
  check(q.dropped == 0, "%s: %llu dropped", what, (unsigned long long)q.dropped);
#endif
  check(ojo_close(t) == OJO_OK, "%s: close", what);
  struct tally *s = tally_new();
  s->unordered = 40;
  tally_dir(s, directory, false);
  for (uint32_t flow = 1; flow <= flows; flow++)
    check(s->events[flow] == each, "%s: flow %u has %llu events, not %llu", what, flow,
          (unsigned long long)s->events[flow], (unsigned long long)each);
  check(s->events[40] == handler_count && s->sum == handler_count * (handler_count - 1) / 2,
        "%s: %llu events of the handler, not %llu", what, (unsigned long long)s->events[40],
        (unsigned long long)handler_count);
  tally_check(s, what, attempted + handler_count);
  check(s->nested > 0, "%s: no signal interrupted a record", what);
  printf("%s: %llu events of handlers, %llu of them nested in a record\n", what,
         (unsigned long long)handler_count, (unsigned long long)s->nested);
  free(s);
}

static void test_handler(uint64_t scale) {
  enum { THREADS = 4 };
  ojo_desc d;
  struct recorder r[THREADS];
  memset(&d, 0, sizeof d);
  memset(r, 0, sizeof r);
  d.buffer_bytes = 32 << 20;
  d.overflow = OJO_OVERFLOW_BLOCK;
  ojo_tracer *t = handler_tracer = open_with(d);
  handler_count = 0;
  handle(SIGUSR1, on_timer);
  for (uint32_t i = 0; i < THREADS; i++) {
    r[i].t = t;
    r[i].flow = i + 1;
    r[i].count = scale;
    if (pthread_create(&r[i].thread, NULL, timed_thread, &r[i])) abort();
  }
  for (int i = 0; i < THREADS; i++) pthread_join(r[i].thread, NULL);
  check_handler(t, "handler", THREADS * scale, THREADS, scale);
}

/* Every instruction of every record is interrupted once, by a handler that records: the processor's trap
 * flag raises SIGTRAP behind each one. What a timer hits once in a million, this hits each time. */
#if defined(__x86_64__) && !defined(__SANITIZE_THREAD__) && !defined(__SANITIZE_ADDRESS__)
static void trap_on(void) { __asm__ volatile("pushfq\n\torq $0x100, (%%rsp)\n\tpopfq" ::: "memory", "cc"); }
static void trap_off(void) { __asm__ volatile("pushfq\n\tandq $~0x100, (%%rsp)\n\tpopfq" ::: "memory", "cc"); }
static void on_trap(int signal) {
  (void)signal;
  ojo_record(handler_tracer, 40, OJO_PACKET_ACKED, sealed(40, handler_count));
  handler_count++;
}
/* `apart`: the handler records into a tracer of its own, which takes the hot lease from the other's. */
static void test_every_instruction(bool apart, uint64_t events) {
  ojo_desc d;
  char other_dir[256];
  memset(&d, 0, sizeof d);
  d.buffer_bytes = 64 << 20;
  ojo_tracer *t = handler_tracer = open_with(d);
  if (apart) {
    d.dir = check_directory("other", other_dir, sizeof other_dir);
    check(ojo_open(&handler_tracer, &d) == OJO_OK, "every instruction: the other tracer");
    ojo_record(handler_tracer, 1, OJO_PACKET_SENT, sealed(1, 0));
  }
  handler_count = 0;
  handle(SIGTRAP, on_trap);
  struct recorder r;
  memset(&r, 0, sizeof r);
  r.t = t;
  r.flow = 1;
  uint64_t n = 0, seed = 1;
  ojo_record(t, 1, OJO_PACKET_SENT, sealed(1, n++)); /* registering a thread blocks signals */
  trap_on();
  while (n < events) {
    ojo_record(t, 1, OJO_PACKET_SENT, sealed(1, n));
    n++;
    record_mixed(&r, &n, &seed); /* its extensions make many changes of chunks */
  }
  trap_off();
  signal(SIGTRAP, SIG_DFL);
  if (!apart) {
    check_handler(t, "every instruction", n, 1, n);
    return;
  }
  close_and_check(t, "every instruction, two tracers: the outer", n);
  ojo_stats q = ojo_query_stats(handler_tracer);
  check(q.recorded == handler_count + 1 && q.dropped == 0 && ojo_close(handler_tracer) == OJO_OK,
        "every instruction, two tracers: the handler's recorded %llu of %llu", (unsigned long long)q.recorded,
        (unsigned long long)handler_count + 1);
  struct tally *s = tally_new();
  tally_dir(s, other_dir, false);
  s->bad_order = 0;
  tally_check(s, "every instruction, two tracers: the handler's", handler_count + 1);
  check(s->events[40] == handler_count && s->events[1] == 1, "every instruction, two tracers: whose events");
  free(s);
  check_remove(other_dir);
}

/* A handler forks at every instruction of a record: the child, whose tracer is off, gets through it. */
#ifdef OJO_NO_ATFORK
static void test_fork_in_record(void) {
  check_skip("fork in a record", "under OJO_NO_ATFORK the child has no memory to end the record in, as documented");
}
#else
static unsigned fork_at, fork_count;
static pid_t fork_child;
static void on_trap_fork(int signal) {
  (void)signal;
  if (++fork_count == fork_at) fork_child = fork();
}
static void test_fork_in_record(void) {
  ojo_desc d;
  memset(&d, 0, sizeof d);
  d.buffer_bytes = 4 << 20;
  ojo_tracer *t = open_with(d);
  uint64_t n = 0, bytes[6] = {0, 0, 0, 0, 0, 0};
  unsigned bad = 0, forks = 0;
  ojo_record(t, 1, OJO_PACKET_SENT, sealed(1, n++));
  handle(SIGTRAP, on_trap_fork);
  fflush(stdout);
  for (int kind = 0; kind < 2; kind++)
    for (fork_at = 1;; fork_at++) {
      fork_count = 0;
      fork_child = -1;
      bytes[2] = bytes[5] = sealed(1, n);
      trap_on();
      if (kind) ojo_record_ext(t, 1, 0x010000, sealed(1, n), bytes, sizeof bytes);
      else ojo_record(t, 1, OJO_PACKET_SENT, sealed(1, n));
      trap_off();
      n++;
      if (fork_child == 0) _exit(0);
      if (fork_child < 0) break; /* the record has fewer instructions */
      int status = -1;
      waitpid(fork_child, &status, 0);
      bad += !WIFEXITED(status) || WEXITSTATUS(status) != 0;
      forks++;
    }
  signal(SIGTRAP, SIG_DFL);
  check(bad == 0 && forks > 50, "fork in a record: %u of %u children died", bad, forks);
  close_and_check(t, "fork in a record", n);
}
#endif
#else
static void test_fork_in_record(void) {
  check_skip("fork in a record", "needs x86-64 without sanitizers");
}
static void test_every_instruction(bool apart, uint64_t events) {
  (void)events;
  check_skip(apart ? "every instruction, two tracers" : "every instruction", "needs x86-64 without sanitizers");
}
#endif

/* Threads of one event each, 100 at a time. */
static void *one_event(void *argument) {
  struct recorder *r = (struct recorder *)argument;
  ojo_record(r->t, r->flow, OJO_PACKET_SENT, sealed(r->flow, 0));
  return NULL;
}
static void test_short_threads(unsigned total, uint64_t pool, const char *what) {
  static struct recorder r[100];
  ojo_desc d;
  memset(&d, 0, sizeof d);
  d.buffer_bytes = pool;
  ojo_tracer *t = open_with(d);
  for (unsigned i = 0; i < total; i += 100) { /* `total` is a multiple of 100 */
    for (unsigned k = 0; k < 100; k++) {
      r[k].t = t;
      r[k].flow = i + k + 1;
      if (pthread_create(&r[k].thread, NULL, one_event, &r[k])) abort();
    }
    for (unsigned k = 0; k < 100; k++) pthread_join(r[k].thread, NULL);
  }
  check(pool < (8u << 20) || ojo_query_stats(t).dropped == 0, "%s: dropped none", what);
  close_and_check(t, what, total);
}

/* Processes are forked while another thread opens and closes tracers, and so holds the lock of that now and
 * then: the child can open a tracer of its own all the same, and exit. */
static void no_line(void *user, const char *line) { (void)user, (void)line; }
static ojo_desc fork_desc(char *where) {
  ojo_desc d;
  memset(&d, 0, sizeof d);
  d.dir = where;
  d.buffer_bytes = 1 << 20;
  d.logger.log = no_line; /* stderr may be locked by the thread that is not in the child */
  d.no_thread = true;
  return d;
}
static uint32_t fork_stop;
OJO__UNUSED static void *open_and_close(void *where) {
  ojo_desc d = fork_desc((char *)where);
  for (uint64_t n = 0; !__atomic_load_n(&fork_stop, __ATOMIC_RELAXED); n++) {
    ojo_tracer *t;
    if (ojo_open(&t, &d) != OJO_OK) abort();
    ojo_record(t, 1, OJO_PACKET_SENT, n);
    if (ojo_close(t) != OJO_OK) abort();
  }
  return NULL;
}
static void test_fork_while_opening(unsigned forks) {
#if defined(__SANITIZE_THREAD__) || defined(__SANITIZE_ADDRESS__)
  (void)forks;
  check_skip("fork while another thread opens", "a sanitizer's own locks are not made for it");
#else
  pthread_t id;
  unsigned bad = 0;
  fork_stop = 0;
  char *where = fresh_dir(), own[300];
  snprintf(own, sizeof own, "%s/own", where);
  ojo_desc d = fork_desc(own);
  if (pthread_create(&id, NULL, open_and_close, where)) abort();
  fflush(stdout);
  for (unsigned i = 0; i < forks; i++) {
    int status = -1;
    pid_t child = fork();
    if (child == 0) {
      ojo_tracer *t;
      alarm(20); /* a lock that is held for ever ends as a signal */
      if (i % 4 == 0) exit(0); /* closes what this process has open: nothing */
      if (ojo_open(&t, &d) != OJO_OK) _exit(1);
      ojo_record(t, 2, OJO_PACKET_SENT, i);
      if (i % 4 == 1) exit(0);
      _exit(ojo_close(t) != OJO_OK);
    }
    waitpid(child, &status, 0);
    bad += !WIFEXITED(status) || WEXITSTATUS(status) != 0;
    usleep(i % 8 * 50);
  }
  __atomic_store_n(&fork_stop, 1, __ATOMIC_RELAXED);
  pthread_join(id, NULL);
  static check_event *events;
  size_t count = check_events(own, &events);
  check(bad == 0 && count == forks - forks / 4, "fork while another thread opens: %u of %u children failed, %zu events",
        bad, forks, count);
#endif
}

/* One thread, more tracers in turn than it keeps leases for. */
static void test_tracers_in_turn(void) {
  enum { TRACERS = 7, ROUNDS = 3000 };
  ojo_tracer *t[TRACERS];
  char dir[TRACERS][256];
  for (int i = 0; i < TRACERS; i++) {
    ojo_desc d;
    memset(&d, 0, sizeof d);
    d.dir = check_directory("turn", dir[i], sizeof dir[i]);
    d.buffer_bytes = 64 << 20;
    check(ojo_open(&t[i], &d) == OJO_OK, "in turn: open");
  }
  for (uint64_t n = 0; n < ROUNDS; n++)
    for (int i = 0; i < TRACERS; i++) ojo_record(t[(n + (uint64_t)i * 3) % TRACERS], 1, OJO_PACKET_SENT,
                                                 sealed(1, n * TRACERS + (uint64_t)i));
  for (int i = 0; i < TRACERS; i++) {
    struct tally *s = tally_new();
    ojo_stats q = ojo_query_stats(t[i]);
    check(q.recorded == ROUNDS, "in turn: tracer %d recorded %llu", i, (unsigned long long)q.recorded);
    ojo_close(t[i]);
    tally_dir(s, dir[i], false);
    tally_check(s, "in turn", ROUNDS);
    uint32_t threads = 0;
    for (uint32_t k = 1; k < FLOWS; k++) threads += s->stream[k * 4].ordinal != 0;
    check(threads == 1, "in turn: one thread has %u numbers", threads);
    check_remove(dir[i]);
    free(s);
  }
}

/* A tracer closed and another opened in its place, while threads live on that recorded into the first. */
struct cycle {
  pthread_t thread;
  pthread_barrier_t *barrier;
  ojo_tracer **t;
  uint32_t flow;
};
enum { CYCLES = 50, CYCLE_THREADS = 4, CYCLE_EVENTS = 5000 };
static void *cycle_thread(void *argument) {
  struct cycle *c = (struct cycle *)argument;
  for (int i = 0; i < CYCLES; i++) {
    pthread_barrier_wait(c->barrier); /* opened */
    for (uint64_t n = 0; n < CYCLE_EVENTS; n++) ojo_record(*c->t, c->flow, OJO_PACKET_SENT, sealed(c->flow, n));
    pthread_barrier_wait(c->barrier); /* done */
  }
  pthread_barrier_wait(c->barrier); /* the last is closed: a thread that ends while it is counted moves a chunk's count */
  return NULL;
}
static void test_reopen(void) {
  struct cycle c[CYCLE_THREADS];
  pthread_barrier_t barrier;
  ojo_tracer *t;
  pthread_barrier_init(&barrier, NULL, CYCLE_THREADS + 1);
  for (uint32_t i = 0; i < CYCLE_THREADS; i++) {
    c[i].barrier = &barrier;
    c[i].t = &t;
    c[i].flow = i + 1;
    if (pthread_create(&c[i].thread, NULL, cycle_thread, &c[i])) abort();
  }
  for (int i = 0; i < CYCLES; i++) {
    ojo_desc d;
    memset(&d, 0, sizeof d);
    d.buffer_bytes = 4 << 20;
    t = open_with(d);
    pthread_barrier_wait(&barrier);
    pthread_barrier_wait(&barrier);
    close_and_check(t, "reopen", CYCLE_THREADS * CYCLE_EVENTS);
  }
  pthread_barrier_wait(&barrier);
  for (int i = 0; i < CYCLE_THREADS; i++) pthread_join(c[i].thread, NULL);
}

/* 2^32 hand-offs: the counters and the free list's tag are put just below where they wrap. */
static void test_wrap(void) {
  ojo_desc d;
  uint64_t attempted;
  memset(&d, 0, sizeof d);
  d.buffer_bytes = 1 << 20;
  d.flush_bytes = 256 << 10;
  d.overflow = OJO_OVERFLOW_BLOCK;
  ojo_tracer *t = open_with(d);
  struct ojo__pool *pool = t->core->pool;
  OJO__SET(&pool->line_lease[0], UINT64_C(0xFFFFFFFF) - 50);
  OJO__SET(&pool->line_free[0], ~(uint64_t)OJO__LIST_INDEX - ((uint64_t)50 << 24));
  OJO__SET(&t->core->wake, UINT32_MAX - 20);
  OJO__SET(&t->core->freed, UINT32_MAX - 20);
  run_threads(t, 2, 600000, true, &attempted);
  check(OJO__PEEK(&pool->line_lease[0]) > UINT64_C(0x100000000), "wrap: leases passed 2^32");
  check(OJO__PEEK(&pool->line_free[0]) >> 24 < UINT64_C(0xFFFF), "wrap: the free list's tag wrapped");
  close_and_check(t, "wrap", attempted);
}

/* The thread table is full: counted, and told in the file. */
static void test_thread_table(void) {
  ojo_desc d;
  memset(&d, 0, sizeof d);
  d.buffer_bytes = 4 << 20;
  d.no_thread = true;
  ojo_tracer *t = open_with(d);
  uint64_t attempted;
  t->core->pool->threads_fresh = OJO__THREADS_MAX - 2;
  run_threads(t, 6, 1000, false, &attempted);
  check(ojo_query_stats(t).dropped > 0, "thread table: some dropped");
  close_and_check(t, "thread table", attempted);
}

/* disk_bytes_max: what was deleted is counted in the files that are left. */
static void test_disk_limit(void) {
  ojo_desc d;
  uint64_t attempted;
  memset(&d, 0, sizeof d);
  d.buffer_bytes = 4 << 20;
  d.flush_bytes = 256 << 10;
  d.disk_bytes_max = 2 << 20;
  ojo_tracer *t = open_with(d);
  run_threads(t, 2, 400000, false, &attempted);
  ojo_stats q = ojo_query_stats(t);
  ojo_close(t);
  struct tally *s = tally_new();
  char path[512], line[256];
  snprintf(path, sizeof path, "%s/output", directory);
  uint64_t bytes = 0;
  int code;
  char *text = check_run(&code, "ls -ln %s | awk '{s += $5} END {print s}'", path);
  snprintf(line, sizeof line, "%s", text);
  free(text);
  bytes = strtoull(line, NULL, 10);
  check(bytes > 0 && bytes <= d.disk_bytes_max, "disk limit: %llu bytes are left", (unsigned long long)bytes);
  s->batch_next = UINT64_MAX;
  DIR *dir = opendir(path);
  struct dirent *entry;
  while (dir && (entry = readdir(dir)) != NULL) { /* the oldest left gives the first batch's number */
    char file[4096];
    size_t size;
    if (entry->d_name[0] == '.') continue;
    snprintf(file, sizeof file, "%s/%s", path, entry->d_name);
    char *data = check_load(file, &size);
    if (!data) abort();
    uint64_t batch = ((const ojo_file_header *)(const void *)data)->batch;
    if (batch < s->batch_next) s->batch_next = batch;
    free(data);
  }
  if (dir) closedir(dir);
  check(s->batch_next > 0, "disk limit: old batches were deleted");
  tally_dir(s, directory, false);
  check(s->bad_file == 0 && s->bad_payload == 0 && s->bad_order == 0, "disk limit: sound files");
  check(s->total + s->dropped + s->deleted == attempted, "disk limit: %llu + %llu dropped + %llu deleted != %llu",
        (unsigned long long)s->total, (unsigned long long)s->dropped, (unsigned long long)s->deleted,
        (unsigned long long)attempted);
  check(q.recorded + q.dropped == attempted, "disk limit: stats");
  free(s);
}

/* Writes that fail and then work again: nothing lost, nothing twice. RLIMIT_FSIZE makes pwrite fail. */
static unsigned log_lines;
static void count_lines(void *user, const char *line) {
  (void)user, (void)line;
  __atomic_fetch_add(&log_lines, 1, __ATOMIC_RELAXED);
}
static void test_write_errors(void) {
  ojo_desc d;
  uint64_t attempted, more;
  struct rlimit limit, small;
  memset(&d, 0, sizeof d);
  d.buffer_bytes = 64 << 20;
  d.flush_interval_ms = 10;
  d.logger.log = count_lines;
  ojo_tracer *t = open_with(d);
  getrlimit(RLIMIT_FSIZE, &limit);
  small = limit;
  small.rlim_cur = 100000;
  run_threads(t, 2, 20000, true, &attempted);
  ojo_flush(t);
  log_lines = 0;
  setrlimit(RLIMIT_FSIZE, &small);
  for (uint32_t flow = 3; flow < 5; flow++) { /* far more than the limit lets a file hold */
    struct recorder r;
    memset(&r, 0, sizeof r);
    r.t = t;
    r.flow = flow;
    r.count = 100000;
    record_thread(&r);
    attempted += r.done;
    usleep(50000);
  }
  ojo_stats q = ojo_query_stats(t);
  check(q.write_errors > 0, "write errors: counted");
  check(log_lines == 1, "write errors: %u log lines, not 1", log_lines);
  setrlimit(RLIMIT_FSIZE, &limit);
  run_threads(t, 0, 0, false, &more);
  check(ojo_flush(t) == OJO_OK, "write errors: flushed once writing works again");
  check(ojo_query_stats(t).dropped == 0, "write errors: dropped none");
  check(log_lines == 2, "write errors: %u log lines, not 2", log_lines);
  close_and_check(t, "write errors", attempted);
}

/* Directories vanish under the tracer, all or one of them: they are made anew, and nothing is lost. */
static void test_removed_directory(void) {
  static const char *const parts[] = {"", "/output", "/staging"};
  for (size_t i = 0; i < 3; i++) {
    char path[512];
    ojo_desc d;
    memset(&d, 0, sizeof d);
    ojo_tracer *t = open_with(d);
    ojo_record(t, 1, OJO_PACKET_SENT, sealed(1, 0));
    check(ojo_flush(t) == OJO_OK, "removed directory%s: flush", parts[i]);
    snprintf(path, sizeof path, "%s%s", directory, parts[i]);
    check_remove(path);
    ojo_record(t, 1, OJO_PACKET_SENT, sealed(1, 1));
    check(ojo_flush(t) == OJO_OK, "removed directory%s: flush after", parts[i]);
    ojo_close(t);
    struct tally *s = tally_new();
    s->batch_next = i < 2;
    tally_dir(s, directory, false);
    check(s->total == (i < 2 ? 1 : 2) && s->bad_file == 0, "removed directory%s: %llu events, %llu unsound", parts[i],
          (unsigned long long)s->total, (unsigned long long)s->bad_file);
    free(s);
  }
}

/* A thread that ends with events in more tracers than it keeps leases for leaves no entry behind. */
static void *seven_events(void *argument) {
  ojo_tracer **t = (ojo_tracer **)argument;
  for (int i = 0; i < 7; i++) ojo_record(t[i], 1, OJO_PACKET_SENT, 1);
  return NULL;
}
static void test_evicted_entries(void) {
  ojo_tracer *t[7];
  char dir[7][256];
  pthread_t id;
  for (int i = 0; i < 7; i++) {
    ojo_desc d;
    memset(&d, 0, sizeof d);
    d.dir = check_directory("evict", dir[i], sizeof dir[i]);
    d.buffer_bytes = 8 << 20;
    check(ojo_open(&t[i], &d) == OJO_OK, "evicted: open");
  }
  for (int n = 0; n < 300; n++) {
    if (pthread_create(&id, NULL, seven_events, t)) abort();
    pthread_join(id, NULL);
    if (n % 50 == 49)
      for (int i = 0; i < 7; i++) ojo_flush(t[i]);
  }
  for (int i = 0; i < 7; i++) {
    ojo_stats q = ojo_query_stats(t[i]);
    check(q.recorded == 300 && q.dropped == 0 && t[i]->core->pool->threads_fresh < 200,
          "evicted: tracer %d recorded %llu with %llu entries", i, (unsigned long long)q.recorded,
          (unsigned long long)t[i]->core->pool->threads_fresh);
    ojo_close(t[i]);
    check_remove(dir[i]);
  }
}

/* In a fork child the tracer is off; the child may open its own; the parent's goes on. */
static void test_fork(void) {
  ojo_desc d;
  memset(&d, 0, sizeof d);
  ojo_tracer *t = open_with(d), *own;
  for (uint64_t n = 0; n < 10; n++) ojo_record(t, 1, OJO_PACKET_SENT, sealed(1, n));
  fflush(stdout);
  pid_t child = fork();
  if (child == 0) {
    for (uint64_t n = 0; n < 100000; n++) ojo_record(t, 1, OJO_PACKET_SENT, sealed(1, n));
    bool fine = ojo_flush(t) == OJO_OK && ojo_query_stats(t).recorded == 0 && ojo_now(t) == 0;
    fine = fine && ojo_open(&own, &d) == OJO_OK && own == NULL; /* d.dir is not set */
    d.dir = directory;
#if defined(__SANITIZE_THREAD__)
    d.no_thread = true; /* the sanitizer allows no thread in a child of threads */
#else
    d.no_thread = check_emulated();
#endif
    fine = fine && ojo_open(&own, &d) == OJO_OK && own;
    ojo_record(own, 2, OJO_PACKET_SENT, sealed(2, 0));
    fine = fine && ojo_close(own) == OJO_OK && ojo_close(t) == OJO_OK;
    exit(fine ? 0 : 1); /* atexit handlers run */
  }
  int status = -1;
  waitpid(child, &status, 0);
  check(WIFEXITED(status) && WEXITSTATUS(status) == 0, "fork: the child");
  if (check_emulated()) check_skip("fork: a flusher in the child", "qemu-user starts no thread in a child of threads");
  for (uint64_t n = 10; n < 20; n++) ojo_record(t, 1, OJO_PACKET_SENT, sealed(1, n));
  ojo_stats q = ojo_query_stats(t);
  check(q.recorded == 20, "fork: the parent recorded %llu", (unsigned long long)q.recorded);
  check(ojo_close(t) == OJO_OK, "fork: close");
  static check_event *events; /* static: what they point to stays reachable for a leak checker */
  size_t count = check_events(directory, &events);
  check(count == 21, "fork: %zu events in the files, not 21", count);
}

/* Two writers and the flusher at full speed; a consumer reads and deletes the files meanwhile. */
static void test_full_speed(double seconds) {
  ojo_desc d;
  uint32_t stop = 0;
  struct recorder r[2];
  struct tally *s = tally_new();
  memset(&d, 0, sizeof d);
  memset(r, 0, sizeof r);
  d.buffer_bytes = 64 << 20;
  ojo_tracer *t = open_with(d);
  uint64_t end = ojo__clock_ns(CLOCK_MONOTONIC) + (uint64_t)(seconds * 1e9);
  for (uint32_t i = 0; i < 2; i++) {
    r[i].t = t;
    r[i].flow = i + 1;
    r[i].stop = &stop;
    if (pthread_create(&r[i].thread, NULL, record_thread, &r[i])) abort();
  }
  while (ojo__clock_ns(CLOCK_MONOTONIC) < end) {
    usleep(20000);
    tally_dir(s, directory, true);
  }
  __atomic_store_n(&stop, 1, __ATOMIC_RELAXED);
  uint64_t attempted = 0;
  for (int i = 0; i < 2; i++) {
    pthread_join(r[i].thread, NULL);
    attempted += r[i].done;
  }
  ojo_stats q = ojo_query_stats(t);
  ojo_close(t);
  tally_dir(s, directory, true);
  tally_check(s, "full speed", attempted);
  check(q.recorded + q.dropped == attempted, "full speed: stats");
  check(s->dropped == q.dropped, "full speed: EVENTS_DROPPED sum to the stats' dropped");
  check(s->unsorted == 0, "full speed: time ran backwards in %llu runs", (unsigned long long)s->unsorted);
  printf("full speed, %.0f s: %llu attempted, %llu in files, %llu dropped, longest pass %.1f ms\n", seconds,
         (unsigned long long)attempted, (unsigned long long)s->total, (unsigned long long)s->dropped,
         (double)q.flush_ns_max / 1e6);
  free(s);
}

int main(void) {
  const char *seconds = getenv("OJO_STRESS_SECONDS"), *scale = getenv("OJO_STRESS_EVENTS");
  uint64_t events = scale ? strtoull(scale, NULL, 10) : 1000000;
  test_threads(events);
  test_handler(events * 2);
  test_every_instruction(false, events * 6 / 1000);
  test_every_instruction(true, events * 6 / 1000);
  test_fork_in_record();
  unsigned threads = events >= 1000000 ? 10000 : 1000;
  test_short_threads(threads, 64 << 20, threads == 10000 ? "10,000 short threads" : "1,000 short threads");
  test_short_threads(1000, 1 << 20, "1,000 short threads, a small pool");
  test_tracers_in_turn();
  test_reopen();
  test_wrap();
  test_thread_table();
  test_disk_limit();
  test_write_errors();
  test_removed_directory();
  test_evicted_entries();
  test_fork();
  test_fork_while_opening(events >= 1000000 ? 200 : 60);
  test_full_speed(seconds ? atof(seconds) : 2);
  check_remove(directory);
  return check_end("stress");
}
