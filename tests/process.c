/* SPDX-License-Identifier: MIT
 *
 * process.c - a tracer in a process that does what processes do: exec, fork, thousands of short threads,
 * threads that are cancelled, signal handlers that record much, jump out, or run on a stack of their own, a
 * close that comes too early. Each event is in the files once, and nothing is handed on to a child.
 *
 *   OJO_PROCESS      runs only the tests whose names start so
 *   OJO_FAULTS_LOG   shows what the tracers log
 */
#include "faults.h"

#include <setjmp.h>
#include <spawn.h>

extern char **environ;
static char self[PATH_MAX];

/* ---- exec ---- */

/* In the program that was executed: is a descriptor of the tracer open, or its pool mapped? */
static int after_exec(const char *where) {
  char path[64], target[PATH_MAX], full[PATH_MAX];
  struct dirent *entry;
  int found = 0;
  if (!realpath(where, full)) return 2;
  DIR *d = opendir("/proc/self/fd");
  while (d && (entry = readdir(d)) != NULL) {
    snprintf(path, sizeof path, "/proc/self/fd/%.20s", entry->d_name);
    ssize_t n = readlink(path, target, sizeof target - 1);
    if (n <= 0) continue;
    target[n] = 0;
    found += strncmp(target, full, strlen(full)) == 0 || strncmp(target, "/dev/shm/", 9) == 0;
  }
  if (d) closedir(d);
  return found ? 1 : 0;
}
static int exit_code(pid_t child) {
  int status = -1;
  waitpid(child, &status, 0);
  return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + (WIFSIGNALED(status) ? WTERMSIG(status) : 0);
}
static pid_t spawn(const char *what) {
  char *const arguments[] = {self, (char *)(uintptr_t)what, dir, NULL};
  pid_t child = -1;
  return posix_spawn(&child, self, NULL, NULL, arguments, environ) == 0 ? child : -1;
}

/* Children that execute another program, made in each way, while threads record: nothing goes with them. */
static void *record_until(void *argument) {
  struct recording *r = (struct recording *)argument;
  while (!__atomic_load_n(&r->count, __ATOMIC_ACQUIRE)) record(r->t, r->flow, 1);
  return NULL;
}
static void test_exec_in_child(void) {
  struct recording r[2];
  pthread_t id[2];
  char command[PATH_MAX + 600];
  ojo_desc d = desc_default();
  d.buffer_bytes = 32u << 20;
  ojo_tracer *t = open_tracer(&d);
  for (uint32_t i = 0; i < 2; i++) {
    r[i].t = t;
    r[i].flow = 1 + i;
    r[i].count = 0;
    if (pthread_create(&id[i], NULL, record_until, &r[i])) abort();
  }
  for (int i = 0; i < 3; i++) {
    char *const arguments[] = {self, (char *)(uintptr_t) "after-exec", dir, NULL};
    pid_t child = fork();
    if (child == 0) {
      execv(self, arguments);
      _exit(3);
    }
    check(exit_code(child) == 0, "exec in a fork child inherits a descriptor");
    child = vfork();
    if (child == 0) {
      execv(self, arguments);
      _exit(3);
    }
    check(exit_code(child) == 0, "exec in a vfork child inherits a descriptor");
    check(exit_code(spawn("after-exec")) == 0, "posix_spawn inherits a descriptor");
    snprintf(command, sizeof command, "%s after-exec %s", self, dir);
    int status = system(command);
    check(status == 0, "system inherits a descriptor: %d", status);
  }
  for (int i = 0; i < 2; i++) __atomic_store_n(&r[i].count, 1, __ATOMIC_RELEASE);
  for (int i = 0; i < 2; i++) pthread_join(id[i], NULL);
  close_exact(t, "exec in a child");
}

/* The children of a process that died do not keep its pool locked, whether they executed another program or
 * not: what it recorded is recovered while they live. */
static void test_lock_of_children(void) {
  static const uint32_t flow = 1;
  static const uint64_t count = 5000;
  pid_t *children = (pid_t *)mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  if (children == MAP_FAILED) abort();
  fflush(stdout);
  pid_t victim = fork();
  if (victim == 0) {
    ojo_desc d = desc_default();
    d.no_thread = true;
    ojo_tracer *t = open_tracer(&d);
    record(t, 1, 1000);
    children[0] = fork();
    if (children[0] == 0) {
      sleep(20);
      _exit(0);
    }
    children[1] = spawn("sleep");
    children[2] = (pid_t)syscall(SYS_clone, SIGCHLD, NULL, NULL, NULL, NULL); /* no atfork handlers run */
    if (children[2] == 0) {
      execl(self, self, "sleep", dir, (char *)NULL);
      _exit(0);
    }
    record(t, 1, 4000);
    sleep_ms(300); /* until the last is past its exec */
    kill(getpid(), SIGKILL);
  }
  waitpid(victim, NULL, 0);
  check(kill(children[0], 0) == 0 && kill(children[1], 0) == 0, "children outlive the victim");
  check(ojo_recover(dir) == OJO_OK, "lock of children: recovery");
  check_flows("lock of children", 1, &flow, &count);
  for (int i = 0; i < 3; i++)
    if (children[i] > 0) kill(children[i], SIGKILL);
  munmap(children, 4096);
}

/* A recording process executes another program: for its tracer that is a crash. `again`: the program opens a
 * tracer on the same directory, which recovers it. */
static void *record_and_wait(void *argument) {
  struct recording *r = (struct recording *)argument;
  record(r->t, r->flow, r->count);
  __atomic_store_n(&r->count, 0, __ATOMIC_RELEASE);
  for (;;) pause();
  return NULL;
}
static void exec_directly(bool again) {
  static const uint32_t flows[3] = {1, 2, 3};
  uint64_t counts[3] = {5000, 5000, again ? 10 : 0};
  fflush(stdout);
  pid_t child = fork();
  if (child == 0) {
    struct recording r[2];
    pthread_t id;
    ojo_desc d = desc_default();
    d.flush_interval_ms = 1000000;
    ojo_tracer *t = open_tracer(&d);
    record(t, 3, 0);
    for (uint32_t i = 0; i < 2; i++) {
      r[i].t = t;
      r[i].flow = 1 + i;
      r[i].count = 5000;
      if (pthread_create(&id, NULL, record_and_wait, &r[i])) abort();
    }
    while (__atomic_load_n(&r[0].count, __ATOMIC_ACQUIRE) || __atomic_load_n(&r[1].count, __ATOMIC_ACQUIRE)) sleep_ms(1);
    execl(self, self, again ? "trace" : "after-exec", dir, (char *)NULL);
    _exit(3);
  }
  check(exit_code(child) == 0, "exec by the recording process: what it executes");
  if (!again) check(check_count(dir, "output") == 0 && ojo_recover(dir) == OJO_OK, "exec by the recording process: recovery");
  check_flows("exec by the recording process", 3, flows, counts);
  check(check_count(dir, "staging") == 0, "exec by the recording process: nothing is left");
}
static void test_exec_directly(void) { exec_directly(false); }
static void test_exec_and_trace(void) { exec_directly(true); }
static int trace_after_exec(const char *where) {
  ojo_tracer *t;
  ojo_desc d;
  memset(&d, 0, sizeof d);
  d.dir = where;
  if (ojo_open(&t, &d) != OJO_OK) return 4;
  record(t, 3, 10);
  return ojo_close(t) == OJO_OK ? 0 : 5;
}

/* ---- fork ---- */

/* Forks while threads record: in each child the tracer is off, and one of its own works. */
static void test_fork_while_recording(void) {
  struct recording r[3];
  pthread_t id[3];
  ojo_desc d = desc_default();
  d.buffer_bytes = 32u << 20;
  ojo_tracer *t = open_tracer(&d);
  for (uint32_t i = 0; i < 3; i++) {
    r[i].t = t;
    r[i].flow = 1 + i;
    r[i].count = 0;
    if (pthread_create(&id[i], NULL, record_until, &r[i])) abort();
  }
  for (int i = 0; i < 12; i++) {
    record(t, 4, 100);
    fflush(stdout);
    /* What no atfork handler has seen may call little of libc. The address sanitizer has none
     * of its own: its allocator's locks may be held for ever in any child. */
#if defined(__SANITIZE_ADDRESS__)
    bool raw = false, allocates = false;
#else
    bool raw = i % 3 == 2, allocates = !raw;
#endif
    pid_t child = raw ? (pid_t)syscall(SYS_clone, SIGCHLD, NULL, NULL, NULL, NULL) : fork();
    if (child == 0) {
      bool fine = ojo_query_stats(t).recorded == 0;
      for (uint64_t n = 0; n < 5000; n++) ojo_record(t, 5, OJO_PACKET_SENT, sealed(5, n));
      ojo_record_ext(t, 5, 0x010000, 1, "text", 4);
      fine = fine && ojo_flow_open(t, NULL) != 0 && ojo_flush(t) == OJO_OK && ojo_close(t) == OJO_OK;
      if (allocates) {
        char own[300];
        ojo_tracer *mine = NULL;
        snprintf(own, sizeof own, "%s/child%d", dir, i);
        d.dir = own;
        d.buffer_bytes = 1u << 20;
        fine = fine && ojo_open(&mine, &d) == OJO_OK && mine;
        for (uint64_t n = 0; n < 4000; n++) ojo_record(mine, 5, OJO_PACKET_SENT, sealed(5, n));
        fine = fine && ojo_query_stats(mine).recorded == 4000 && ojo_close(mine) == OJO_OK;
      }
      _exit(fine ? 0 : 1);
    }
    check(exit_code(child) == 0, "fork while recording: child %d", i);
    if (allocates) {
      char own[300];
      uint64_t events, dropped;
      snprintf(own, sizeof own, "%s/child%d", dir, i);
      read_back(own, "fork while recording", &events, &dropped);
      check(events == 4000 && dropped == 0, "fork while recording: child %d has %llu events", i, (unsigned long long)events);
    }
  }
  for (int i = 0; i < 3; i++) __atomic_store_n(&r[i].count, 1, __ATOMIC_RELEASE);
  for (int i = 0; i < 3; i++) pthread_join(id[i], NULL);
  close_exact(t, "fork while recording");
}

/* ---- threads ---- */

static uint32_t stop_flushing;
static void *flush_forever(void *t) {
  while (!__atomic_load_n(&stop_flushing, __ATOMIC_ACQUIRE)) ojo_flush((ojo_tracer *)t);
  return NULL;
}
/* 10,000 threads of one to three events, which end while their chunks are being flushed. */
static void test_short_threads(void) {
  enum { THREADS = 10000, TOGETHER = 50 };
  struct recording r[TOGETHER];
  pthread_t id[TOGETHER], flusher;
  ojo_desc d = desc_default();
  d.buffer_bytes = 128u << 20;
  d.overflow = OJO_OVERFLOW_BLOCK; /* how far the flusher is behind is not what is tested */
  ojo_tracer *t = open_tracer(&d);
  if (pthread_create(&flusher, NULL, flush_forever, t)) abort();
  for (uint32_t first = 0; first < THREADS; first += TOGETHER) {
    for (uint32_t i = 0; i < TOGETHER; i++) {
      r[i].t = t;
      r[i].flow = 1 + first + i;
      r[i].count = 1 + i % 3;
      if (pthread_create(&id[i], NULL, record_in_thread, &r[i])) abort();
    }
    for (uint32_t i = 0; i < TOGETHER; i++) pthread_join(id[i], NULL);
  }
  __atomic_store_n(&stop_flushing, 1, __ATOMIC_RELEASE);
  pthread_join(flusher, NULL);
  ojo_stats q = ojo_query_stats(t);
  check(q.dropped == 0 && q.recorded == attempted(), "short threads: %llu recorded, %llu dropped",
        (unsigned long long)q.recorded, (unsigned long long)q.dropped);
  check(t->core->pool->threads_fresh < THREADS / 2, "short threads: entries are used again: %llu",
        (unsigned long long)t->core->pool->threads_fresh);
  close_exact(t, "short threads");
}

/* ---- handlers ---- */

enum { HANDLED = 40 }; /* the handlers' flow */
static ojo_tracer *handler_tracer;
static uint64_t handler_count, handler_calls, handler_bursts;
static uint32_t handler_burst; /* every so many calls a handler records more than a chunk holds */
static void on_signal(int number) {
  (void)number;
  uint64_t call = __atomic_fetch_add(&handler_calls, 1, __ATOMIC_RELAXED);
  uint64_t count = handler_burst && call % handler_burst == handler_burst - 1 ? 3000 : 2;
  if (count == 3000) __atomic_fetch_add(&handler_bursts, 1, __ATOMIC_RELAXED);
  uint64_t n = __atomic_fetch_add(&handler_count, count, __ATOMIC_RELAXED);
  for (uint64_t i = 0; i < count; i++) ojo_record(handler_tracer, HANDLED, OJO_PACKET_ACKED, sealed(HANDLED, n + i));
}
static void handle(int number, void (*handler)(int), int flags) {
  struct sigaction action;
  memset(&action, 0, sizeof action);
  action.sa_handler = handler;
  action.sa_flags = flags | SA_RESTART;
  sigaction(number, &action, NULL);
}

struct interrupted {
  ojo_tracer *t;
  pthread_t thread;
  uint32_t flow;
  uint64_t end_ns, done;
  bool own_stack, jumps, timer;
  uint64_t *uncertain, uncertain_count; /* events that a jump may have cut */
};
static __thread sigjmp_buf jump_to;
static __thread volatile sig_atomic_t may_jump;
static void on_signal_jump(int number) {
  (void)number;
  __atomic_fetch_add(&handler_calls, 1, __ATOMIC_RELAXED);
  uint64_t n = __atomic_fetch_add(&handler_count, 1, __ATOMIC_RELAXED);
  ojo_record(handler_tracer, HANDLED, OJO_PACKET_ACKED, sealed(HANDLED, n));
  if (may_jump) siglongjmp(jump_to, 1);
}
static void thread_timer(timer_t *timer) {
  struct { /* the kernel's struct sigevent, whose last field libc's do not name alike */
    void *value;
    int number, notify, tid, rest[11];
  } event;
  struct itimerspec every = {{0, 100000}, {0, 100000}};
  memset(&event, 0, sizeof event);
  event.notify = 4; /* SIGEV_THREAD_ID */
  event.number = SIGUSR1;
  event.tid = (int)syscall(SYS_gettid);
  if (syscall(SYS_timer_create, CLOCK_MONOTONIC, &event, timer) != 0) abort();
  syscall(SYS_timer_settime, *timer, 0, &every, NULL);
}
static void *interrupted_thread(void *argument) {
  struct interrupted *r = (struct interrupted *)argument;
  static const unsigned char zeros[240];
  stack_t stack;
  timer_t timer;
  volatile uint64_t n = 0; /* lives over the jumps */
  memset(&stack, 0, sizeof stack);
  stack.ss_size = 64 << 10;
  if (r->own_stack) {
    stack.ss_sp = malloc(stack.ss_size);
    if (!stack.ss_sp || sigaltstack(&stack, NULL) != 0) abort();
  }
  if (r->timer) thread_timer(&timer);
  if (r->jumps && sigsetjmp(jump_to, 1) != 0) {
    may_jump = 0;
    if (r->uncertain_count < 65536) r->uncertain[r->uncertain_count++] = n;
    n++;
  }
  while (now_ns() < r->end_ns && r->uncertain_count < 65536)
    for (int i = 0; i < 64; i++) {
      may_jump = r->jumps;
      if (n % 16) ojo_record(r->t, r->flow, OJO_PACKET_SENT, sealed(r->flow, n));
      else if (!r->jumps) ojo_record(r->t, r->flow, OJO_PACKET_SENT, sealed(r->flow, n));
      else ojo_record_ext(r->t, r->flow, 0x010000, sealed(r->flow, n), zeros, sizeof zeros);
      may_jump = 0;
      n++;
    }
  if (r->timer) syscall(SYS_timer_delete, timer);
  sigset_t all;
  sigfillset(&all);
  pthread_sigmask(SIG_BLOCK, &all, NULL);
  if (r->own_stack) {
    stack.ss_flags = SS_DISABLE;
    sigaltstack(&stack, NULL);
    free(stack.ss_sp);
  }
  r->done = n;
  return NULL;
}

static int by_number(const void *a, const void *b) {
  uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
  return (x > y) - (x < y);
}
/* Four recording threads, interrupted 10,000 times a second each by a timer of their own; or as fast as a
 * fifth sends signals. */
static void interrupted(const char *what, void (*handler)(int), bool own_stack, bool jumps, bool timer) {
  enum { THREADS = 4 };
  struct interrupted r[THREADS];
  ojo_desc d = desc_default();
  d.buffer_bytes = 256u << 20;
  d.overflow = OJO_OVERFLOW_BLOCK;
  ojo_tracer *t = handler_tracer = open_tracer(&d);
  memset(r, 0, sizeof r);
  handle(SIGUSR1, handler, own_stack ? SA_ONSTACK : 0);
  uint64_t end = now_ns() + 700000000u, all = 0;
  for (uint32_t i = 0; i < THREADS; i++) {
    r[i].t = t;
    r[i].flow = i + 1;
    r[i].end_ns = end;
    r[i].own_stack = own_stack;
    r[i].jumps = jumps;
    r[i].timer = timer;
    r[i].uncertain = (uint64_t *)calloc(65536, sizeof(uint64_t));
    if (!r[i].uncertain || pthread_create(&r[i].thread, NULL, interrupted_thread, &r[i])) abort();
  }
  while (!timer && now_ns() < end - 100000000u) {
    for (int i = 0; i < THREADS; i++) pthread_kill(r[i].thread, SIGUSR1);
    usleep(50);
  }
  for (int i = 0; i < THREADS; i++) {
    pthread_join(r[i].thread, NULL);
    all += r[i].done;
  }
  handle(SIGUSR1, SIG_IGN, 0);
  check(handler_calls > (timer ? 200u : 10u), "%s: %llu signals", what, (unsigned long long)handler_calls);
  ojo_stats q = ojo_query_stats(t);
  check(ojo_close(t) == OJO_OK, "%s: close", what);
  if (!jumps) {
    struct tally *s = tally_new();
    s->unordered = HANDLED;
    tally_dir(s, dir, false);
    check(q.recorded + q.dropped == all + handler_count, "%s: recorded %llu + dropped %llu != %llu", what,
          (unsigned long long)q.recorded, (unsigned long long)q.dropped, (unsigned long long)(all + handler_count));
    tally_check(s, what, all + handler_count);
    check(s->dropped == q.dropped, "%s: EVENTS_DROPPED sum to %llu, stats say %llu", what, (unsigned long long)s->dropped,
          (unsigned long long)q.dropped);
    if (q.dropped == 0)
      check(s->events[HANDLED] == handler_count && s->sum == handler_count * (handler_count - 1) / 2,
            "%s: %llu events of the handler, not %llu", what, (unsigned long long)s->events[HANDLED],
            (unsigned long long)handler_count);
    printf("%s: %llu signals, %llu bursts, %llu events nested in a record, of %llu\n", what,
           (unsigned long long)handler_calls, (unsigned long long)handler_bursts, (unsigned long long)s->nested,
           (unsigned long long)s->total);
    free(s);
  } else {
    check_event *events;
    size_t count = check_events(dir, &events);
    unsigned char *seen[THREADS + 1];
    uint64_t twice = 0, foreign = 0, missing = 0, told = 0, cut = 0, jumped = 0;
    for (uint32_t i = 0; i <= THREADS; i++) seen[i] = (unsigned char *)calloc((i < THREADS ? r[i].done : handler_count) + 1, 1);
    for (size_t i = 0; i < count; i++) {
      uint32_t k = events[i].flow == HANDLED ? THREADS : events[i].flow - 1;
      uint64_t n = events[i].payload & ((UINT64_C(1) << 44) - 1);
      if (k > THREADS || n >= (k < THREADS ? r[k].done : handler_count) || events[i].payload != sealed(events[i].flow, n)) {
        if (events[i].type == OJO_EVENTS_DROPPED) told++;
        else foreign++;
        continue;
      }
      twice += seen[k][n];
      seen[k][n] = 1;
    }
    for (uint32_t i = 0; i < THREADS; i++) {
      qsort(r[i].uncertain, r[i].uncertain_count, sizeof *r[i].uncertain, by_number);
      jumped += r[i].uncertain_count;
      for (uint64_t n = 0, k = 0; n < r[i].done; n++) {
        bool uncertain = k < r[i].uncertain_count && r[i].uncertain[k] == n;
        if (uncertain) k++;
        if (seen[i][n]) continue;
        if (uncertain) cut++;
        else missing++;
      }
    }
    for (uint64_t n = 0; n < handler_count; n++) missing += !seen[THREADS][n];
    check(twice == 0 && foreign == 0, "%s: %llu twice, %llu torn", what, (unsigned long long)twice, (unsigned long long)foreign);
    check(missing == q.dropped, "%s: %llu are missing, %llu dropped", what, (unsigned long long)missing,
          (unsigned long long)q.dropped);
    check(q.recorded == count - told, "%s: recorded %llu, %zu in the files", what, (unsigned long long)q.recorded,
          (size_t)(count - told));
    check(told <= q.dropped, "%s: %llu rows tell of losses", what, (unsigned long long)told);
    check(jumped > 50, "%s: %llu jumps", what, (unsigned long long)jumped);
    printf("%s: %llu signals, %llu jumps, %llu of them cut a record, %zu events, %llu dropped\n", what,
           (unsigned long long)handler_calls, (unsigned long long)jumped, (unsigned long long)cut, count,
           (unsigned long long)q.dropped);
    for (uint32_t i = 0; i <= THREADS; i++) free(seen[i]);
    free(events);
  }
  for (int i = 0; i < THREADS; i++) free(r[i].uncertain);
}
static void test_handler_bursts(void) {
  handler_burst = 200;
  interrupted("handlers that record more than a chunk", on_signal, false, false, true);
  check(handler_bursts > 3, "bursts: %llu", (unsigned long long)handler_bursts);
}
static void test_handler_stack(void) {
  handler_burst = 1000;
  interrupted("handlers on a stack of their own", on_signal, true, false, true);
}
static void test_handler_kill(void) { interrupted("signals by pthread_kill", on_signal, true, false, false); }
static void test_handler_jumps(void) { interrupted("handlers that jump out", on_signal_jump, false, true, true); }
static void test_handler_jumps_stack(void) {
  interrupted("handlers that jump out of a stack of their own", on_signal_jump, true, true, true);
}

/* ---- close while others record ---- */

struct late {
  ojo_tracer **t;
  pthread_t thread;
  uint32_t flow;
  uint32_t *stop;
};
static void *record_late(void *argument) {
  struct late *r = (struct late *)argument;
  uint64_t n = 0;
  while (!__atomic_load_n(r->stop, __ATOMIC_ACQUIRE)) {
    ojo_tracer *t = __atomic_load_n(r->t, __ATOMIC_ACQUIRE);
    for (int i = 0; i < 500; i++) ojo_record(t, r->flow, OJO_PACKET_SENT, sealed(r->flow, n++));
    ojo_record_ext(t, r->flow, OJO_PACKET_SENT, sealed(r->flow, n++), "", 0);
  }
  return NULL;
}
/* Misuse: the recorders of a tracer go on while it is closed and another is opened. Nothing crashes, its files
 * are sound, and no tracer gets an event twice. */
static void test_early_close(void) {
  enum { THREADS = 3, ROUNDS = 60 };
  struct late r[THREADS];
  uint32_t stop = 0;
  ojo_tracer *shared = NULL, *t;
  char name[300];
  for (uint32_t i = 0; i < THREADS; i++) {
    r[i].t = &shared;
    r[i].flow = i + 1;
    r[i].stop = &stop;
    if (pthread_create(&r[i].thread, NULL, record_late, &r[i])) abort();
  }
  for (int round = 0; round < ROUNDS; round++) {
    ojo_desc d = desc_default();
    d.buffer_bytes = 1u << 20;
    d.clock = OJO_CLOCK_MONOTONIC;
    snprintf(name, sizeof name, "%s/%d", dir, round);
    d.dir = name;
    t = open_tracer(&d);
    __atomic_store_n(&shared, t, __ATOMIC_RELEASE);
    sleep_ms((unsigned)round % 8);
    ojo_close(t); /* its result is theirs: what they record now may be lost */
    struct tally *s = tally_new();
    tally_dir(s, name, false);
    check(s->bad_file == 0 && s->bad_payload == 0 && s->bad_order == 0, "early close: %llu unsound, %llu torn, %llu out of order",
          (unsigned long long)s->bad_file, (unsigned long long)s->bad_payload, (unsigned long long)s->bad_order);
    free(s);
    check_remove(name);
  }
  __atomic_store_n(&stop, 1, __ATOMIC_RELEASE);
  for (int i = 0; i < THREADS; i++) pthread_join(r[i].thread, NULL);
}

/* ---- cancellation ---- */

struct cancelled {
  ojo_tracer *t;
  pthread_t thread;
  uint32_t flow;
  bool asynchronous;
  uint64_t begun, done, cleanup;
};
static pthread_key_t late_key;
static void record_at_exit(void *argument) { /* of thread-specific data: the tracer's may have run before */
  struct cancelled *c = (struct cancelled *)argument;
  ojo_record(c->t, HANDLED, OJO_PACKET_ACKED, sealed(HANDLED, 2 * (uint64_t)c->flow));
}
static void record_cleanup(void *argument) {
  struct cancelled *c = (struct cancelled *)argument;
  ojo_record(c->t, HANDLED, OJO_PACKET_ACKED, sealed(HANDLED, 2 * (uint64_t)c->flow + 1));
  c->cleanup = 1;
}
static void *cancelled_thread(void *argument) {
  struct cancelled *c = (struct cancelled *)argument;
  static const unsigned char zeros[240];
  int old;
  pthread_setspecific(late_key, c);
  pthread_cleanup_push(record_cleanup, c);
  if (c->asynchronous) pthread_setcanceltype(PTHREAD_CANCEL_ASYNCHRONOUS, &old);
  for (uint64_t n = 0;; n++) {
    __atomic_store_n(&c->begun, n + 1, __ATOMIC_RELEASE);
    if (n % 8) ojo_record(c->t, c->flow, OJO_PACKET_SENT, sealed(c->flow, n));
    else ojo_record_ext(c->t, c->flow, OJO_PACKET_SENT, sealed(c->flow, n), zeros, 0);
    __atomic_store_n(&c->done, n + 1, __ATOMIC_RELEASE);
    if (!c->asynchronous && n % 64 == 0) pthread_testcancel();
  }
  pthread_cleanup_pop(0);
  return NULL;
}
static void cancel_case(const char *what, bool asynchronous) {
  enum { THREADS = 120, TOGETHER = 3 };
  static struct cancelled c[THREADS];
  uint64_t seed = 7, wrong = 0;
  memset(c, 0, sizeof c);
  pthread_key_create(&late_key, record_at_exit);
  ojo_desc d = desc_default();
  d.buffer_bytes = 64u << 20;
  d.overflow = OJO_OVERFLOW_BLOCK;
  ojo_tracer *t = open_tracer(&d);
  for (uint32_t first = 0; first < THREADS; first += TOGETHER) {
    for (uint32_t i = first; i < first + TOGETHER; i++) {
      c[i].t = t;
      c[i].flow = 1000 + i;
      c[i].asynchronous = asynchronous;
      if (pthread_create(&c[i].thread, NULL, cancelled_thread, &c[i])) abort();
    }
    usleep((unsigned)(check_random(&seed) % 3000));
    for (uint32_t i = first; i < first + TOGETHER; i++) pthread_cancel(c[i].thread);
    for (uint32_t i = first; i < first + TOGETHER; i++) {
      void *result = NULL;
      int joined = pthread_join(c[i].thread, &result);
      /* NULL: glibc 2.36 forgets the result where pthread_setcancelstate finds the request (1 of 2,000 without ojo) */
      bool ended = result == PTHREAD_CANCELED || (asynchronous && !result);
      check(joined == 0 && ended, "%s: thread %u ended otherwise: join %d, result %p, %llu begun, %llu cleanups",
            what, i, joined, result, (unsigned long long)c[i].begun, (unsigned long long)c[i].cleanup);
    }
  }
  record(t, 1, 5000); /* the tracer goes on */
  check(ojo_flush(t) == OJO_OK, "%s: flush", what);
  ojo_stats q = ojo_query_stats(t);
  check(q.dropped == 0, "%s: %llu dropped", what, (unsigned long long)q.dropped);
  check(ojo_close(t) == OJO_OK, "%s: close: %s", what, log_last);
  struct tally *s = tally_new();
  s->unordered = HANDLED;
  s->late = asynchronous;
  tally_dir(s, dir, false);
  uint64_t handled = 0;
  for (uint32_t i = 0; i < FLOWS * 4; i++) s->bad_ordinal += s->stream[i].gap != s->stream[i].gap_end;
  for (uint32_t i = 0; i < THREADS; i++) {
    uint64_t got = s->events[c[i].flow];
    wrong += got < c[i].done || got > c[i].begun || s->next[c[i].flow] != got;
    handled += c[i].cleanup;
  }
  check(wrong == 0, "%s: %llu of %d threads' events are not done..begun", what, (unsigned long long)wrong, THREADS);
  check(s->events[1] == 5000 && s->bad_file == 0 && s->bad_payload == 0 && s->bad_order == 0 && s->bad_ordinal == 0,
        "%s: %llu of 5000 events; %llu unsound files, %llu torn, %llu out of order, %llu wrong ordinals", what,
        (unsigned long long)s->events[1], (unsigned long long)s->bad_file, (unsigned long long)s->bad_payload,
        (unsigned long long)s->bad_order, (unsigned long long)s->bad_ordinal);
  /* A thread that is cancelled before it starts runs no cleanup and has no data */
  check(s->events[HANDLED] >= 2 * handled, "%s: %llu events of %llu cleanups", what, (unsigned long long)s->events[HANDLED],
        (unsigned long long)handled);
  if (!asynchronous)
    check(q.recorded == s->total && q.written == q.recorded, "%s: recorded %llu, written %llu, %llu in files", what,
          (unsigned long long)q.recorded, (unsigned long long)q.written, (unsigned long long)s->total);
  free(s);
  pthread_key_delete(late_key);
}
static void test_cancel_deferred(void) { cancel_case("deferred cancellation", false); }
static void test_cancel_asynchronous(void) {
#if defined(__SANITIZE_ADDRESS__)
  check_skip("asynchronous cancellation", "it cuts the sanitizer's own functions");
#else
  cancel_case("asynchronous cancellation", true);
#endif
}

/* No call of the tracer is a point of cancellation: a request that is pending stays so. */
static uint32_t reached;
static void *pending_cancel(void *argument) {
  ojo_tracer *t = (ojo_tracer *)argument;
  pthread_cancel(pthread_self());
  ojo_record(t, 1, OJO_PACKET_SENT, sealed(1, attempts[1]++));
  reached = 1;
  ojo__hot.generation = (uint64_t)(uintptr_t)&t - 4096; /* as a jump out of a deeper record leaves it */
  ojo_record(t, 1, OJO_PACKET_SENT, sealed(1, attempts[1]++));
  reached = 2;
  ojo_flush(t);
  reached = 3;
  ojo_query_stats(t);
  ojo_recover(dir);
  reached = 4;
  pthread_testcancel();
  reached = 5;
  return NULL;
}
static void test_cancel_pending(void) {
  pthread_t id;
  void *result = NULL;
  ojo_desc d = desc_default();
  d.no_thread = true;
  ojo_tracer *t = open_tracer(&d);
  unsigned fds = open_fds();
  if (pthread_create(&id, NULL, pending_cancel, t)) abort();
  pthread_join(id, &result);
  check(reached == 4 && result == PTHREAD_CANCELED, "pending cancellation: acted upon after step %u", reached);
  check(open_fds() == fds, "pending cancellation: descriptors");
  record(t, 2, 10);
  close_exact(t, "pending cancellation");
}

int main(int argc, char **argv) {
  static const struct {
    const char *name;
    void (*test)(void);
    const char *shm;
  } tests[] = {
      {"exec in a child", test_exec_in_child, "512m"},
      {"-lock of children", test_lock_of_children, "64m"},
      {"-exec by the recording process", test_exec_directly, "64m"},
      {"-exec, and then trace", test_exec_and_trace, "64m"},
      {"fork while recording", test_fork_while_recording, "512m"},
      {"short threads", test_short_threads, "512m"},
      {"handler bursts", test_handler_bursts, "1g"},
      {"handler stack", test_handler_stack, "1g"},
      {"handler pthread_kill", test_handler_kill, "1g"},
      {"handler jumps", test_handler_jumps, "1g"},
      {"handler jumps from a stack of its own", test_handler_jumps_stack, "1g"},
      {"early close", test_early_close, "512m"},
      {"cancel deferred", test_cancel_deferred, "512m"},
      {"cancel asynchronous", test_cancel_asynchronous, "512m"},
      {"cancel pending", test_cancel_pending, "512m"},
  };
  if (argc == 3 && !strcmp(argv[1], "after-exec")) return after_exec(argv[2]);
  if (argc == 3 && !strcmp(argv[1], "sleep")) return (int)sleep(20);
  if (argc == 3 && !strcmp(argv[1], "trace")) return trace_after_exec(argv[2]);
  ssize_t n = readlink("/proc/self/exe", self, sizeof self - 1);
  if (n <= 0) return 1;
  self[n] = 0;
  const char *only = getenv("OJO_PROCESS");
  run_begin("process");
  for (size_t i = 0; i < sizeof tests / sizeof tests[0]; i++) {
    const char *name = tests[i].name + (tests[i].name[0] == '-');
    if (!only || strncmp(name, only, strlen(only)) == 0) run(tests[i].name, tests[i].test, tests[i].shm);
  }
  return run_end();
}
