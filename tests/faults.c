/* SPDX-License-Identifier: MIT
 *
 * faults.c - what can go wrong around the tracer, made to go wrong: full and missing file systems, calls
 * that fail, stop short or are interrupted, directories that vanish, clocks that step, files that somebody
 * planted. Each time: no crash, no hang; every event in the files once or counted as dropped; one log line
 * for each kind of trouble; and once the trouble is over what waited in the pool is written.
 *
 *   OJO_FAULTS       runs only the tests whose names start so
 *   OJO_FAULTS_LOG   shows what the tracers log
 */
#include "faults.h"

/* ---- /dev/shm ---- */

static void shm_case(const char *what, uint64_t bytes, bool safe, unsigned lines_max) {
  ojo_desc d = desc_default();
  d.buffer_bytes = bytes;
  ojo_tracer *t = open_tracer(&d);
  ojo_stats q = ojo_query_stats(t);
  check(q.crash_safe == safe, "%s: crash_safe is %d", what, q.crash_safe);
  check(log_lines <= lines_max && (safe || log_lines == lines_max), "%s: %u log lines, the last: %s", what, log_lines,
        log_last);
  check(check_count(dir, "staging") == (safe ? 1u : 0u), "%s: a link only where there is a pool", what);
  record_threads(t, 1, 2, 40000);
  close_exact(t, what);
}
static void test_shm_default(void) { /* Docker's size */
  shm_case("64 MiB", 0, true, 1);
}
static void test_shm_wanted(void) { shm_case("64 MiB, 512 wanted", 512u << 20, true, 1); }
static void test_shm_tiny(void) { shm_case("1 MiB", 0, false, 1); }
static void test_shm_full(void) {
  fill("/dev/shm/filler");
  shm_case("full", 0, false, 1);
}
static void test_shm_read_only(void) {
  check(mount("none", "/dev/shm", NULL, MS_REMOUNT | MS_RDONLY, NULL) == 0, "read-only: remounted");
  shm_case("read-only", 0, false, 1);
}
static void test_shm_no_tmpfs(void) { /* the directory alone: a file system that is none */
  check(mount(dir, "/dev/shm", NULL, MS_BIND, NULL) == 0, "no tmpfs: mounted over");
  mkdir("/dev/shm/traces", 0700);
  snprintf(dir + strlen(dir), sizeof dir - strlen(dir), "/traces");
  shm_case("no tmpfs", 0, false, 1);
}
static void test_shm_absent(void) { /* a /dev without it */
  mkdir("/dev/shm/dev", 0755);
  check(mount("/dev/shm/dev", "/dev", NULL, MS_BIND, NULL) == 0, "absent: another /dev");
  check(access("/dev/shm", F_OK) != 0, "absent: no /dev/shm");
  shm_case("absent", 0, false, 1);
}
static void test_shm_inodes(void) { /* room, but no file can be made */
  check(mount("none", "/dev/shm", NULL, MS_REMOUNT, "size=64m,nr_inodes=1") == 0 || errno == EINVAL, "no inodes: remounted");
  mount_tmpfs("/dev/shm", "size=64m,nr_inodes=2");
  int fd = open("/dev/shm/taken", O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
  if (fd >= 0) close(fd);
  check(open("/dev/shm/one_more", O_WRONLY | O_CREAT | O_CLOEXEC, 0600) < 0, "no inodes: really none");
  shm_case("no inodes", 4u << 20, false, 1);
}

/* /dev/shm fills up while the tracer runs: what can't be kept is counted, nothing raises SIGBUS; and once
 * there is room again recording goes on. */
static void *one_event(void *argument) {
  struct recording *r = (struct recording *)argument;
  record(r->t, r->flow, 1);
  return NULL;
}
static void test_shm_fills_up(void) {
  ojo_desc d = desc_default();
  d.buffer_bytes = 12u << 20;
  d.reserve_bytes = 128u << 10;
  ojo_tracer *t = open_tracer(&d);
  check(ojo_query_stats(t).crash_safe, "fills up: the pool is in /dev/shm");
  record(t, 1, 100);
  fill("/dev/shm/filler");
  __atomic_store_n(&fault_error[FAULT_pwrite], EIO, __ATOMIC_RELEASE); /* no chunk comes back meanwhile */
  record_threads(t, 2, 2, 30000);
  for (uint32_t flow = 100; flow < 400; flow++) { /* more threads than entries were made ready for */
    struct recording r = {t, flow, 1};
    pthread_t id;
    if (pthread_create(&id, NULL, one_event, &r)) abort();
    pthread_join(id, NULL);
  }
  ojo_stats q = ojo_query_stats(t);
  check(q.dropped > 30000 && q.recorded + q.dropped == attempted(), "fills up: %llu dropped", (unsigned long long)q.dropped);
  __atomic_store_n(&fault_error[FAULT_pwrite], 0, __ATOMIC_RELEASE);
  check(ojo_flush(t) == OJO_OK, "fills up: what was kept is written");
  unlink("/dev/shm/filler");
  uint64_t dropped = ojo_query_stats(t).dropped;
  record_threads(t, 500, 2, 10000);
  check(ojo_query_stats(t).dropped == dropped, "fills up: none dropped once there is room");
  close_exact(t, "fills up");
}

/* Pages that an idle tracer gave back are not there any more when it needs them. */
static void test_shm_fills_up_idle(void) {
  ojo_desc d = desc_default();
  d.buffer_bytes = 8u << 20;
  d.reserve_bytes = 128u << 10;
  d.clock = OJO_CLOCK_MONOTONIC;
  d.no_thread = true;
  ojo_tracer *t = open_tracer(&d);
  record(t, 1, 200000);
  check(ojo_query_stats(t).dropped == 200000 - ojo_query_stats(t).recorded && ojo_flush(t) == OJO_OK, "idle: a burst");
  for (int i = 0; i < 3; i++) {
    fault_monotonic += 4000000000;
    ojo_flush(t);
  }
  check(t->core->pool->line_free[3] > 50, "idle: %llu chunks gave their pages back",
        (unsigned long long)t->core->pool->line_free[3]);
  fill("/dev/shm/filler");
  uint64_t before = ojo_query_stats(t).dropped;
  record(t, 1, 40000);
  check(ojo_query_stats(t).dropped > before, "idle: a full /dev/shm drops");
  check(ojo_flush(t) == OJO_OK, "idle: flush");
  unlink("/dev/shm/filler");
  before = ojo_query_stats(t).dropped;
  record(t, 1, 100000);
  check(ojo_query_stats(t).dropped == before, "idle: none dropped once there is room");
  close_exact(t, "idle");
}

/* ---- the disk ---- */

/* The trace directory's own file system is full, from the start or later, and is freed. */
static void disk_mount(const char *size) {
  char options[64];
  snprintf(options, sizeof options, "size=%s,mode=700", size);
  check(mount_tmpfs(dir, options), "disk: mounted");
}
static void test_disk_fills_up(void) {
  char path[512];
  disk_mount("1m");
  ojo_desc d = desc_default();
  d.buffer_bytes = 64u << 20;
  ojo_tracer *t = open_tracer(&d);
  record_threads(t, 1, 2, 100000); /* 4.8 MB */
  check(wait_errors(t, 3), "disk fills up: errors are counted");
  check(log_lines == 1 && strstr(log_last, "No space left"), "disk fills up: %u log lines, the last: %s", log_lines, log_last);
  record_threads(t, 3, 2, 10000);
  check(mount("none", dir, NULL, MS_REMOUNT, "size=64m") == 0, "disk fills up: freed");
  close_exact(t, "disk fills up");
  check(log_lines == 2, "disk fills up: %u log lines, the last: %s", log_lines, log_last);
  check(ojo_query_stats(t).dropped == 0, "disk fills up: none dropped");
  snprintf(path, sizeof path, "%s", dir);
  umount2(path, MNT_DETACH);
}
static void test_disk_full(void) {
  char path[512];
  disk_mount("1m");
  snprintf(path, sizeof path, "%s/filler", dir);
  fill(path);
  ojo_desc d = desc_default();
  ojo_tracer *t = open_tracer(&d);
  check(ojo_query_stats(t).crash_safe, "disk full at open: the pool is found by its link's name");
  record(t, 1, 10000);
  check(wait_errors(t, 2), "disk full at open: errors are counted");
  check(log_lines == 1, "disk full at open: %u log lines, the last: %s", log_lines, log_last);
  unlink(path);
  close_exact(t, "disk full at open");
}
/* The process dies on the full disk: what it had recorded is recovered once the disk is freed. */
static void test_disk_full_crash(void) {
  char path[512];
  int status;
  disk_mount("1m");
  snprintf(path, sizeof path, "%s/filler", dir);
  fill(path);
  fflush(stdout);
  pid_t child = fork();
  if (child == 0) {
    ojo_desc d = desc_default();
    ojo_tracer *t = open_tracer(&d);
    record(t, 1, 10000);
    wait_errors(t, 1);
    kill(getpid(), SIGKILL);
  }
  waitpid(child, &status, 0);
  check(ojo_recover(dir) == OJO_ERR_IO, "crash on a full disk: recovery says that it could not");
  check(check_count(dir, "output") == 0, "crash on a full disk: no file");
  unlink(path);
  check(ojo_recover(dir) == OJO_OK, "crash on a full disk: recovery once it is freed");
  check_files("crash on a full disk", 10000, 0);
  check(check_count(dir, "staging") == 0 && count_entries("/dev/shm", "ojo_") == 0, "crash on a full disk: nothing is left");
}

/* Each call of a batch fails for a while, with each error that it may have. */
static void test_errors(void) {
  static const struct {
    enum fault_call call;
    int error;
  } cases[] = {{FAULT_pwrite, EIO},    {FAULT_pwrite, ENOSPC}, {FAULT_pwrite, EDQUOT},  {FAULT_pwrite, EFBIG},
               {FAULT_openat, EMFILE}, {FAULT_openat, ENFILE}, {FAULT_openat, EACCES},  {FAULT_openat, EROFS},
               {FAULT_openat, ENOMEM}, {FAULT_close, EIO},     {FAULT_close, EDQUOT},   {FAULT_rename, EIO},
               {FAULT_rename, EACCES}, {FAULT_rename, EROFS},  {FAULT_rename, ENOSPC},  {FAULT_fsync, EIO},
               {FAULT_openat, ENOENT}, {FAULT_rename, ENOENT}, {FAULT_rename, EXDEV}};
  for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
    char what[64];
    enum fault_call call = cases[i].call;
    snprintf(what, sizeof what, "%s gives %s", fault_calls[call].name, strerror(cases[i].error));
    check_remove(dir);
    memset(attempts, 0, sizeof attempts);
    ojo_desc d = desc_default();
    d.sync = true;
    ojo_tracer *t = open_tracer(&d);
    record(t, 1, 100);
    check(ojo_flush(t) == OJO_OK && log_lines == 0, "%s: before", what);
    __atomic_store_n(&fault_error[call], cases[i].error, __ATOMIC_RELEASE);
    record_threads(t, 1, 2, 6000);
    check(wait_errors(t, 3) && fault_hits[call] >= 3, "%s: errors are counted", what);
    check(log_lines == 1 && strstr(log_last, strerror(cases[i].error)), "%s: %u log lines, the last: %s", what, log_lines,
          log_last);
    check(ojo_query_stats(t).written == 100, "%s: nothing written meanwhile", what);
    __atomic_store_n(&fault_error[call], 0, __ATOMIC_RELEASE);
    record(t, 3, 10);
    close_exact(t, what);
    check(log_lines == 2, "%s: %u log lines at the end, the last: %s", what, log_lines, log_last);
    check(ojo_query_stats(t).dropped == 0, "%s: none dropped", what);
  }
}

/* renameat2 that the file system or the kernel does not know: link and unlink instead. */
static void test_no_renameat2(void) {
  for (int i = 0; i < 2; i++) {
    check_remove(dir);
    memset(attempts, 0, sizeof attempts);
    ojo_desc d = desc_default();
    ojo_tracer *t = open_tracer(&d);
    __atomic_store_n(&fault_error[FAULT_rename], i ? EINVAL : ENOSYS, __ATOMIC_RELEASE);
    record_threads(t, 1, 2, 6000);
    check(ojo_flush(t) == OJO_OK, "no renameat2: flush");
    close_exact(t, "no renameat2");
    check(log_lines == 0, "no renameat2: %s", log_last);
    __atomic_store_n(&fault_error[FAULT_rename], 0, __ATOMIC_RELEASE);
  }
}

static void test_interrupted(void) {
  ojo_desc d = desc_default();
  d.sync = true;
  fault_interrupts = true;
  ojo_tracer *t = NULL;
  check(ojo_open(&t, &d) == OJO_OK, "EINTR: open");
  record_threads(t, 1, 2, 60000);
  close_exact(t, "EINTR");
  check(fault_hits[FAULT_pwrite] > 5, "EINTR: %llu writes were interrupted", (unsigned long long)fault_hits[FAULT_pwrite]);
}
static void test_short_writes(void) {
  ojo_desc d = desc_default();
  fault_short = 1;
  ojo_tracer *t = open_tracer(&d);
  record_threads(t, 1, 2, 30000);
  close_exact(t, "short writes");
  check(fault_hits[FAULT_pwrite] > 20 && log_lines == 0, "short writes: %llu, and no log line: %s",
        (unsigned long long)fault_hits[FAULT_pwrite], log_last);
}
static void test_no_progress(void) { /* pwrite returns 0 */
  ojo_desc d = desc_default();
  ojo_tracer *t = open_tracer(&d);
  __atomic_store_n(&fault_short, 2, __ATOMIC_RELEASE);
  record_threads(t, 1, 2, 6000);
  check(wait_errors(t, 2), "writes of nothing: errors are counted");
  check(log_lines == 1, "writes of nothing: %u log lines, the last: %s", log_lines, log_last);
  __atomic_store_n(&fault_short, 0, __ATOMIC_RELEASE);
  close_exact(t, "writes of nothing");
}

/* No descriptor is left for the flusher; the application has them all. */
static void test_descriptors(void) {
  int taken[256], count = 0;
  struct rlimit limit = {200, 200};
  ojo_desc d = desc_default();
  setrlimit(RLIMIT_NOFILE, &limit);
  ojo_tracer *t = open_tracer(&d);
  record(t, 1, 10);
  check(ojo_flush(t) == OJO_OK, "no descriptors: before");
  while (count < 256 && (taken[count] = open("/dev/null", O_RDONLY | O_CLOEXEC)) >= 0) count++;
  check(errno == EMFILE, "no descriptors: all taken");
  record_threads(t, 1, 4, 3000);
  check(wait_errors(t, 2), "no descriptors: errors are counted");
  check(log_lines == 1 && strstr(log_last, "Too many open files"), "no descriptors: %u log lines, the last: %s", log_lines,
        log_last);
  ojo_tracer *other = (ojo_tracer *)1;
  check(ojo_open(&other, &d) != OJO_OK && !other && log_lines >= 2, "no descriptors: another tracer: %s", log_last);
  check(ojo_recover(dir) != OJO_OK, "no descriptors: recovery says that it could not");
  while (count) close(taken[--count]);
  close_exact(t, "no descriptors");
}

/* ---- calls that fail in turn ---- */

/* A process that leaves `count` events of `flow` behind, in a pool of a dead tracer. */
static void die_with_events(uint32_t flow, uint64_t flushed, uint64_t count) {
  int status;
  fflush(stdout);
  pid_t child = fork();
  if (child == 0) {
    ojo_desc d = desc_default();
    d.no_thread = true;
    d.buffer_bytes = 1u << 20;
    ojo_tracer *t = open_tracer(&d);
    if (!ojo_query_stats(t).crash_safe) _exit(1);
    record(t, flow, flushed);
    if (flushed) ojo_flush(t);
    record(t, flow, count);
    kill(getpid(), SIGKILL);
  }
  waitpid(child, &status, 0);
  check(WIFSIGNALED(status), "a victim died with its events in /dev/shm");
}

/* ojo_open with its n-th call failing, until it makes fewer: an error and nothing left behind, or a tracer
 * that works. With `dead` there is also a dead tracer's pool in the directory, whose events must come out
 * whatever fails. */
static void open_failing(bool dead) {
  unsigned failed = 0, opened = 0;
  uint64_t n = 1;
  ojo_type type = {0x010000, "T", NULL, NULL, OJO_VALUE_NONE};
  for (;; n++) {
    static const uint32_t flows[2] = {1, 2};
    uint64_t counts[2] = {0, 0};
    char what[96];
    check_remove(dir);
    memset(attempts, 0, sizeof attempts);
    if (dead) die_with_events(2, 5, 30), counts[1] = 35;
    ojo_desc d = desc_default();
    d.types = &type;
    d.type_count = 1;
    ojo_tracer *t = (ojo_tracer *)1;
    unsigned fds = open_fds();
    fault_at = n;
    fault_seen = 0;
    fault_here = true;
    ojo_result result = ojo_open(&t, &d);
    fault_here = false;
    bool done = fault_seen < n;
    snprintf(what, sizeof what, "open%s, call %llu (%s) fails", dead ? " over a dead pool" : "", (unsigned long long)n,
             fault_calls[fault_which].name);
    if (done) check(result == OJO_OK, "%s: nothing failed, and %s", what, ojo_result_string(result));
    if (result != OJO_OK) {
      failed++;
      check(!t && result < 0, "%s: %d and NULL", what, (int)result);
      check(log_lines >= 1, "%s: no log line says why", what);
    } else {
      opened++;
      check(t != NULL, "%s: OK and a tracer", what);
      record(t, 1, 3000);
      counts[0] = 3000;
      check(ojo_query_stats(t).recorded == 3000, "%s: recorded %llu", what,
            (unsigned long long)ojo_query_stats(t).recorded);
      check(ojo_close(t) == OJO_OK, "%s: close", what);
    }
    check(open_fds() == fds, "%s: %u descriptors, not %u", what, open_fds(), fds);
    check(count_entries("/proc/self/task", "") == 1, "%s: a thread is left", what);
    if (dead) check(ojo_recover(dir) == OJO_OK, "%s: recovery", what);
    bool names = fault_which == FAULT_unlink || fault_which == FAULT_unlinkat; /* nobody else could */
    check(done || names || count_entries("/dev/shm", "ojo_") == 0, "%s: a pool is left", what);
    check(done || names || check_count(dir, "staging") == 0, "%s: something is left in staging/", what);
    if (counts[0] + counts[1]) check_flows(what, 2, flows, counts);
    if (done) break;
    if (names) free(check_run(NULL, "rm -f /dev/shm/ojo_*"));
  }
  printf("open%s: %llu calls made to fail in turn: %u times an error, %u times a tracer\n",
         dead ? " over a dead pool" : "", (unsigned long long)n - 1, failed, opened);
  check(failed > 5 && opened > 10, "open: %u failed, %u opened", failed, opened);
}
static void test_open_failing(void) { open_failing(false); }
static void test_open_failing_dead(void) { open_failing(true); }

/* ojo_recover with its n-th call failing: what says OK has recovered; what does not leaves all to the next. */
static void test_recover_failing(void) {
  static const uint32_t flow = 2;
  static const uint64_t count = 3035;
  uint64_t n = 1;
  for (;; n++) {
    char what[96];
    check_remove(dir);
    die_with_events(flow, 35, 3000);
    unsigned fds = open_fds();
    fault_at = n;
    fault_seen = 0;
    fault_here = true;
    ojo_result result = ojo_recover(dir);
    fault_here = false;
    bool done = fault_seen < n;
    snprintf(what, sizeof what, "recover, call %llu (%s) fails", (unsigned long long)n, fault_calls[fault_which].name);
    check(open_fds() == fds, "%s: descriptors", what);
    if (result == OJO_OK) check_flows(what, 1, &flow, &count);
    check(ojo_recover(dir) == OJO_OK, "%s: and then another", what);
    check_flows(what, 1, &flow, &count);
    check_files(what, count, 0);
    if (done) break;
    free(check_run(NULL, "rm -f /dev/shm/ojo_*"));
  }
  printf("recover: %llu calls made to fail in turn\n", (unsigned long long)n - 1);
  check(n > 20, "recover: %llu calls", (unsigned long long)n);
}

/* The same for a flush and a close by the recorder's own thread. */
static void flush_failing(bool closing) {
  uint64_t n = 1;
  for (;; n++) {
    char what[96];
    check_remove(dir);
    memset(attempts, 0, sizeof attempts);
    ojo_desc d = desc_default();
    d.no_thread = true;
    d.sync = true;
    ojo_tracer *t = open_tracer(&d);
    record(t, 1, 10);
    check(ojo_flush(t) == OJO_OK, "flush failing: before");
    record_threads(t, 1, 2, 3000);
    unsigned fds = open_fds();
    fault_at = n;
    fault_seen = 0;
    fault_here = true;
    ojo_result result = closing ? ojo_close(t) : ojo_flush(t);
    fault_here = false;
    bool done = fault_seen < n;
    snprintf(what, sizeof what, "%s, call %llu (%s) fails", closing ? "close" : "flush", (unsigned long long)n,
             fault_calls[fault_which].name);
    if (!closing) {
      ojo_stats q = ojo_query_stats(t);
      check((result == OJO_OK) == (q.written == attempted()) && open_fds() == fds, "%s: %d, %llu written", what,
            (int)result, (unsigned long long)q.written);
      check(log_lines == (result != OJO_OK), "%s: %u log lines", what, log_lines);
      record(t, 3, 10);
      close_exact(t, what);
    } else {
      check(result == OJO_OK, "%s: it tries again", what);
      check_files(what, attempted(), 0);
    }
    if (done) break;
    free(check_run(NULL, "rm -f /dev/shm/ojo_*"));
  }
  printf("%s: %llu calls made to fail in turn\n", closing ? "close" : "flush", (unsigned long long)n - 1);
  check(n > 5, "%llu calls", (unsigned long long)n);
}
static void test_flush_failing(void) { flush_failing(false); }
static void test_close_failing(void) { flush_failing(true); }

/* ---- batches that go past the page cache, written by a thread of the flusher's ---- */

static uint32_t writers_writes;
static bool to_fail, slow, writers_signals; /* its first write; every one; it takes signals */
static int writers_error;
static void count_writer(enum fault_call call) {
  char name[16];
  if (call != FAULT_pwrite || prctl(PR_GET_NAME, name, 0, 0, 0) != 0) return;
  if (strcmp(name, "ojo-writer") != 0) { /* only O_DIRECT wants larger blocks */
    if (writers_error == EINVAL) __atomic_store_n(&fault_error[FAULT_pwrite], 0, __ATOMIC_RELEASE);
    return;
  }
  sigset_t held;
  pthread_sigmask(SIG_SETMASK, NULL, &held); /* its crash handler would wait for the flusher, who waits for it */
  if (!sigismember(&held, SIGSEGV) || !sigismember(&held, SIGPROF)) writers_signals = true;
  __atomic_fetch_add(&writers_writes, 1, __ATOMIC_RELAXED);
  if (slow) __atomic_store_n(&fault_slow_ms, 100, __ATOMIC_RELEASE); /* the next one */
  if (to_fail) __atomic_store_n(&fault_error[FAULT_pwrite], writers_error, __ATOMIC_RELEASE);
  to_fail = false;
}
static bool past_the_cache(void) { /* can files here be written so? */
  char path[300];
  snprintf(path, sizeof path, "%s/probe", dir);
  int fd = open(path, O_WRONLY | O_CREAT | O_DIRECT | O_CLOEXEC, 0600);
  bool can = fd >= 0;
  if (can) close(fd);
  unlink(path);
  return can;
}
/* Calls fail with `error` until it has shown; of pwrite, from the writer's first on. */
static void big_batches(const char *what, enum fault_call call, int error, bool interrupts, int part) {
  ojo_desc d = desc_default();
  d.buffer_bytes = 64u << 20;
  d.flush_bytes = 8u << 20;
  check_remove(dir);
  memset(attempts, 0, sizeof attempts);
  ojo_tracer *t = open_tracer(&d);
  bool can = past_the_cache();
  writers_writes = 0;
  __atomic_store_n(&fault_hook, count_writer, __ATOMIC_RELEASE);
  writers_error = error;
  to_fail = call == FAULT_pwrite;
  if (call != FAULT_pwrite && call != FAULT_COUNT) __atomic_store_n(&fault_error[call], error, __ATOMIC_RELEASE);
  fault_interrupts = interrupts;
  fault_short = part;
  record_threads(t, 1, 2, 400000);
  bool counted = call == FAULT_pwrite && error != EINVAL && can;
  if (counted) check(wait_errors(t, 2), "%s: errors are counted", what);
  else check(ojo_flush(t) == OJO_OK, "%s: flush", what);
  check(!writers_signals, "%s: the writer blocks all signals", what);
  bool writes = call != FAULT_pthread_create && call != FAULT_fcntl;
  if (can) check((writers_writes > 0) == writes, "%s: %u writes by the writer", what, writers_writes);
  for (int i = 0; i < FAULT_COUNT; i++) __atomic_store_n(&fault_error[i], 0, __ATOMIC_RELEASE);
  record_threads(t, 3, 1, 400000);
  check(ojo_query_stats(t).dropped == 0, "%s: none dropped", what);
  close_exact(t, what);
  __atomic_store_n(&fault_hook, NULL, __ATOMIC_RELEASE);
  fault_interrupts = false;
  fault_short = 0;
  check(interrupts || log_lines == (counted ? 2 : 0), "%s: %u log lines, the last: %s", what, log_lines, log_last);
}
static void test_big_batches(void) {
  if (!past_the_cache()) check_skip("big batches", "the file system of build/ has no O_DIRECT: through the cache only");
  big_batches("big batches", FAULT_COUNT, 0, false, 0);
  big_batches("big batches, EIO", FAULT_pwrite, EIO, false, 0);
  big_batches("big batches, disk full", FAULT_pwrite, ENOSPC, false, 0);
  big_batches("big batches, larger blocks wanted", FAULT_pwrite, EINVAL, false, 0);
  big_batches("big batches, no O_DIRECT", FAULT_fcntl, EINVAL, false, 0);
  big_batches("big batches, no second thread", FAULT_pthread_create, EAGAIN, false, 0);
  big_batches("big batches, EINTR", FAULT_COUNT, 0, true, 0);
  big_batches("big batches, short writes", FAULT_COUNT, 0, false, 1);
}
/* A disk slower than the page cache is spared for a while. */
static void test_big_batches_slow(void) {
  ojo_desc d = desc_default();
  d.buffer_bytes = 64u << 20;
  d.flush_bytes = 8u << 20;
  ojo_tracer *t = open_tracer(&d);
  if (!past_the_cache()) return;
  struct ojo__core *core = (struct ojo__core *)t->core;
  slow = true;
  __atomic_store_n(&fault_hook, count_writer, __ATOMIC_RELEASE);
  record_threads(t, 1, 1, 1000000);
  check(ojo_flush(t) == OJO_OK && __atomic_load_n(&core->direct_rest, __ATOMIC_RELAXED) > 0,
        "slow disk: %u batches go through the cache", core->direct_rest);
  close_exact(t, "slow disk, big batches");
}

/* A caller's snapshot does not wait for the disk: nor may a fast one be written without the flusher's help. */
static uint32_t flags_set;
static void count_flags(enum fault_call call) {
  if (call == FAULT_fcntl) __atomic_fetch_add(&flags_set, 1, __ATOMIC_RELAXED);
}
static void test_big_snapshot(void) {
  char path[300];
  ojo_desc d = desc_default();
  d.buffer_bytes = 8u << 20;
  d.overflow = OJO_OVERFLOW_DROP_OLDEST;
  ojo_tracer *t = open_tracer(&d);
  record_threads(t, 1, 1, 600000);
  snprintf(path, sizeof path, "%s/snapshot.bin", dir);
  __atomic_store_n(&fault_hook, count_flags, __ATOMIC_RELEASE);
  check(ojo_snapshot(t, path) == OJO_OK && flags_set == 0, "a caller's snapshot: %u changes of O_DIRECT", flags_set);
  __atomic_store_n(&fault_hook, NULL, __ATOMIC_RELEASE);
  check(ojo_close(t) == OJO_OK, "a caller's snapshot: close");
}

/* ---- a disk that hangs, directories that vanish ---- */

/* A write that takes more than a second: recorders go on, and drop and count what finds no room; or wait. */
static void slow_case(const char *what, ojo_overflow overflow) {
  ojo_desc d = desc_default();
  d.buffer_bytes = 1u << 20;
  d.overflow = overflow;
  ojo_tracer *t = open_tracer(&d);
  record(t, 1, 100);
  check(ojo_flush(t) == OJO_OK, "%s: before", what);
  __atomic_store_n(&fault_slow_ms, 1200, __ATOMIC_RELEASE);
  record(t, 1, 10);
  for (int i = 0; i < 1000 && !__atomic_load_n(&fault_slow_now, __ATOMIC_ACQUIRE); i++) sleep_ms(1);
  uint64_t start = now_ns();
  record_threads(t, 1, 2, 100000);
  double took = (double)(now_ns() - start) / 1e9;
  bool still = __atomic_load_n(&fault_slow_now, __ATOMIC_ACQUIRE) != 0;
  ojo_stats q = ojo_query_stats(t);
  if (overflow == OJO_OVERFLOW_BLOCK) {
    check(!still && took > 0.5 && q.dropped == 0, "%s: %.3f s, %llu dropped", what, took, (unsigned long long)q.dropped);
  } else {
    check(still && q.recorded - q.written <= q.chunks * 2730u && q.dropped > 100000, "%s: %.3f s, %llu dropped", what, took,
          (unsigned long long)q.dropped);
  }
  close_exact(t, what);
}
static void test_slow_drop(void) { slow_case("slow disk, drop", OJO_OVERFLOW_DROP_NEWEST); }
static void test_slow_block(void) { slow_case("slow disk, block", OJO_OVERFLOW_BLOCK); }

static const char *remove_part;
static uint32_t removals;
static void remove_directory(enum fault_call call) {
  char path[512];
  if (call != FAULT_pwrite || __atomic_exchange_n(&removals, 1, __ATOMIC_ACQ_REL)) return;
  snprintf(path, sizeof path, "%s%s", dir, remove_part);
  check_remove(path);
}
/* A directory goes while a batch is being written into it: that batch is written again. */
static void test_removed_in_batch(void) {
  static const char *const parts[] = {"", "/staging", "/output"};
  for (int i = 0; i < 3; i++) {
    char what[64], path[512];
    check_remove(dir);
    memset(attempts, 0, sizeof attempts);
    ojo_desc d = desc_default();
    ojo_tracer *t = open_tracer(&d);
    bool safe = ojo_query_stats(t).crash_safe;
    snprintf(what, sizeof what, "DIR%s removed in a batch", parts[i]);
    remove_part = parts[i];
    removals = 0;
    __atomic_store_n(&fault_hook, remove_directory, __ATOMIC_RELEASE);
    record_threads(t, 1, 2, 5000);
    check(ojo_flush(t) == OJO_OK && removals == 1, "%s: flush", what);
    __atomic_store_n(&fault_hook, NULL, __ATOMIC_RELEASE);
    snprintf(path, sizeof path, "%s/staging", dir);
    check(count_entries(path, "pool_") == safe, "%s: the link is there again", what);
    record(t, 3, 10);
    close_exact(t, what);
  }
}

/* And what comes in its place is not followed, whatever it is. */
static void test_replaced_directory(void) {
  static const char *const parts[] = {"staging", "output"};
  for (int i = 0; i < 4; i++) {
    char what[64], path[512], other[512], target[64];
    struct stat st;
    check_remove(dir);
    memset(attempts, 0, sizeof attempts);
    ojo_desc d = desc_default();
    d.no_thread = true;
    ojo_tracer *t = open_tracer(&d);
    snprintf(what, sizeof what, "%s/ replaced by a %s", parts[i / 2], i % 2 ? "file" : "symlink");
    snprintf(path, sizeof path, "%s/%s", dir, parts[i / 2]);
    snprintf(other, sizeof other, "%s/elsewhere", dir);
    mkdir(other, 0700);
    check_remove(path);
    if (i % 2) {
      int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
      if (fd >= 0) close(fd);
    } else {
      snprintf(target, sizeof target, "elsewhere");
      check(symlink(target, path) == 0, "%s: planted", what);
    }
    record_threads(t, 1, 2, 5000);
    for (int k = 0; k < 3; k++) check(ojo_flush(t) == OJO_ERR_IO, "%s: flush says so", what);
    check(log_lines == 1 && ojo_query_stats(t).write_errors == 3, "%s: %u log lines, the last: %s", what, log_lines, log_last);
    check(check_count(dir, "elsewhere") == 0, "%s: nothing was written elsewhere", what);
    check(lstat(path, &st) == 0 && !S_ISDIR(st.st_mode), "%s: it is still there", what);
    unlink(path);
    close_exact(t, what);
  }
}

/* The directory is removed and made anew; then the process dies. The new directory has its link. */
static void test_removed_then_crash(void) {
  int status;
  fflush(stdout);
  pid_t child = fork();
  if (child == 0) {
    ojo_desc d = desc_default();
    d.no_thread = true;
    ojo_tracer *t = open_tracer(&d);
    check_remove(dir);
    record(t, 1, 100);
    ojo_flush(t);
    record(t, 1, 200);
    kill(getpid(), SIGKILL);
  }
  waitpid(child, &status, 0);
  check(ojo_recover(dir) == OJO_OK, "removed, then a crash: recovery");
  check_files("removed, then a crash", 300, 0);
}

/* Permission is refused, to a process that is not root. */
static void test_permission(void) {
  char path[512];
  ojo_tracer *t = (ojo_tracer *)1;
  if (!mount_tmpfs(dir, "size=64m,mode=755,uid=65534,gid=65534") || setresgid(65534, 65534, 65534) != 0 ||
      setresuid(65534, 65534, 65534) != 0 || prctl(PR_SET_DUMPABLE, 1) != 0) {
    check_skip("permission", "can't become another user");
    return;
  }
  if (access(dir, W_OK) != 0) {
    check_skip("permission", "the tests' directory is closed to other users");
    return;
  }
  ojo_desc d = desc_default();
  chmod(dir, 0555);
  check(ojo_open(&t, &d) == OJO_ERR_PERMISSION && !t && log_lines == 1, "permission: open, %s", log_last);
  chmod(dir, 0755);
  static const char *const parts[] = {"staging", "output"};
  for (int i = 0; i < 2; i++) {
    memset(attempts, 0, sizeof attempts);
    snprintf(path, sizeof path, "%s/output", dir);
    check_remove(path);
    d = desc_default();
    t = open_tracer(&d);
    record(t, 1, 10);
    check(ojo_flush(t) == OJO_OK, "permission: before");
    snprintf(path, sizeof path, "%s/%s", dir, parts[i]);
    chmod(path, 0500);
    record_threads(t, 1, 2, 5000);
    check(wait_errors(t, 2), "permission, %s: errors are counted", parts[i]);
    check(log_lines == 1 && strstr(log_last, "Permission denied"), "permission, %s: %u log lines, the last: %s", parts[i],
          log_lines, log_last);
    chmod(path, 0700);
    close_exact(t, "permission");
  }
}
static void test_shm_permission(void) {
  chmod("/dev/shm", 0755);
  if (!mount_tmpfs(dir, "size=64m,mode=700,uid=65534,gid=65534") || setresgid(65534, 65534, 65534) != 0 ||
      setresuid(65534, 65534, 65534) != 0 || access(dir, W_OK) != 0) {
    check_skip("shm without permission", "can't become another user");
    return;
  }
  shm_case("no permission", 4u << 20, false, 1);
}

/* ---- clocks that step ---- */

/* Waits until the flusher has written all, by its own timer. */
static bool wait_written(ojo_tracer *t) {
  for (int i = 0; i < 3000; i++) {
    ojo_stats q = ojo_query_stats(t);
    if (q.written == q.recorded) return true;
    sleep_ms(1);
  }
  return false;
}
static void clock_case(const char *what, ojo_clock clock, int64_t *which, int64_t step) {
  ojo_desc d = desc_default();
  check_remove(dir);
  memset(attempts, 0, sizeof attempts);
  fault_monotonic = fault_realtime = fault_tsc = 0;
  d.clock = clock;
  ojo_tracer *t = open_tracer(&d);
  for (int i = 0; i < 6; i++) {
    record_threads(t, 1, 2, 1000);
    if (i % 2) __atomic_fetch_add(which, step, __ATOMIC_ACQ_REL);
    record_threads(t, 1, 2, 1000);
    check(wait_written(t), "%s: the timer writes", what);
  }
  close_exact(t, what);
  fault_monotonic = fault_realtime = fault_tsc = 0;
}
static void test_clock_steps(void) {
  static const int64_t hour = INT64_C(3600000000000);
  clock_case("CLOCK_MONOTONIC goes back", OJO_CLOCK_MONOTONIC, &fault_monotonic, -hour);
  clock_case("CLOCK_MONOTONIC leaps", OJO_CLOCK_MONOTONIC, &fault_monotonic, hour);
  clock_case("CLOCK_MONOTONIC goes back, ticks", OJO_CLOCK_AUTO, &fault_monotonic, -hour);
  clock_case("CLOCK_MONOTONIC leaps, ticks", OJO_CLOCK_AUTO, &fault_monotonic, hour);
  clock_case("CLOCK_REALTIME goes back", OJO_CLOCK_AUTO, &fault_realtime, -24 * hour);
  clock_case("CLOCK_REALTIME leaps", OJO_CLOCK_AUTO, &fault_realtime, 24 * hour);
}

/* The processor's counter steps, as when a virtual machine is restored elsewhere. Back: one line, and the
 * times of what is recorded from the next pass on are right. Forth: right again after the next pass. */
static void test_counter_steps(void) {
#if defined(__x86_64__)
  for (int back = 0; back < 2; back++) {
    const char *what = back ? "the counter goes back" : "the counter leaps";
    check_event *events;
    check_remove(dir);
    memset(attempts, 0, sizeof attempts);
    fault_tsc = INT64_C(1) << 50;
    ojo_desc d = desc_default();
    d.no_thread = true;
    ojo_tracer *t = open_tracer(&d);
    if (ojo_query_desc(t).clock != OJO_CLOCK_TSC) {
      ojo_close(t);
      check_skip("counter steps", "this machine keeps time by another clock");
      return;
    }
    uint64_t start = t->core->pool->file.start_monotonic_ns, before[3], after[3];
    for (int i = 0; i < 3; i++) { /* 0: before the step, 1: on either side of it, 2: after a pass */
      before[i] = now_ns();
      record(t, 1, 1000);
      if (i == 1) fault_tsc += back ? -(INT64_C(1) << 40) : INT64_C(1) << 40;
      if (i == 1) record(t, 1, 1000);
      after[i] = now_ns();
      sleep_ms(20);
      check(ojo_flush(t) == OJO_OK, "%s: flush", what);
      if (i == 1) ojo_flush(t), sleep_ms(5), ojo_flush(t);
    }
    uint64_t stamp = ojo_now(t), stamp_ns = now_ns();
    ojo_record_at(t, stamp, 1, OJO_PACKET_SENT, sealed(1, attempts[1]++));
    check(log_lines == (unsigned)back, "%s: %u log lines, the last: %s", what, log_lines, log_last);
    close_exact(t, what);
    size_t count = check_events(dir, &events), wrong = 0;
    check(count == 4001, "%s: %zu events", what, count);
    for (size_t i = 0; i < count; i++) {
      uint64_t n = events[i].payload & ((UINT64_C(1) << 44) - 1), ns = events[i].ts + start;
      if (n < 1000) wrong += ns + 2000 < before[0] || ns > after[0] + 2000;
      if (n >= 3000 && n < 4000) wrong += ns + 2000 < before[2] || ns > after[2] + 2000;
      if (n == 4000) wrong += ns + 1000000 < stamp_ns || ns > stamp_ns + 1000000;
    }
    check(wrong == 0, "%s: %zu times are wrong before or long after the step", what, wrong);
    free(events);
    fault_tsc = 0;
  }
#else
  check_skip("counter steps", "x86-64 only");
#endif
}

/* ---- safety: modes, and what others have planted ---- */

static unsigned mode_of(const char *path) {
  struct stat st;
  return lstat(path, &st) == 0 ? (unsigned)st.st_mode & 07777 : 0xFFFF;
}
static void test_modes(void) {
  static const mode_t masks[] = {0, 022, 077, 0777};
  for (int i = 0; i < 8; i++) {
    char path[700], made[512];
    bool set = i >= 4;
    umask(0);
    check_remove(dir);
    memset(attempts, 0, sizeof attempts);
    ojo_desc d = desc_default();
    if (set) d.file_mode = 0640, d.dir_mode = 0750;
    snprintf(made, sizeof made, "%s/made", dir);
    mkdir(dir, 0700);
    d.dir = made;
    umask(masks[i % 4]);
    ojo_tracer *t = open_tracer(&d);
    record(t, 1, 10);
    check(ojo_flush(t) == OJO_OK, "modes: flush under umask %o", (unsigned)masks[i % 4]);
    umask(022);
    static const char *const parts[] = {"", "/staging", "/output"};
    for (int k = 0; k < 3; k++) {
      snprintf(path, sizeof path, "%s%s", made, parts[k]);
      check(mode_of(path) == (set ? 0750u : 0700u), "modes: umask %o: DIR%s is %o", (unsigned)masks[i % 4], parts[k],
            mode_of(path));
    }
    check(check_only_file(made, path, sizeof path) && mode_of(path) == (set ? 0640u : 0600u), "modes: umask %o: %s is %o",
          (unsigned)masks[i % 4], path, mode_of(path));
    if (ojo_query_stats(t).crash_safe) {
      snprintf(path, sizeof path, "%s/staging/%s", made, t->core->link_name);
      check(mode_of(path) == 0600 && mode_of(t->core->pool_path) == 0600, "modes: umask %o: link %o, pool %o",
            (unsigned)masks[i % 4], mode_of(path), mode_of(t->core->pool_path));
    }
    ojo_close(t);
  }
}

static char victim[512];
static void plant_victim(void) {
  FILE *f = fopen(victim, "w");
  if (!f || fputs("precious", f) < 0 || fclose(f) != 0) abort();
}
static bool victim_well(void) {
  char *text = check_load(victim, NULL);
  bool well = text && strcmp(text, "precious") == 0 && mode_of(victim) == 0644;
  free(text);
  return well;
}

/* Symlinks where the next files of staging/ and output/ will be. */
static ojo_tracer *plant_tracer;
static unsigned planted;
static void plant_name(enum fault_call call) {
  char path[700];
  struct ojo__pool *pool = plant_tracer->core->pool;
  if (planted >= 6 || (call != FAULT_openat && call != FAULT_rename)) return;
  snprintf(path, sizeof path, "%s/%s/%.63s", dir, call == FAULT_openat ? "staging" : "output",
           call == FAULT_openat ? pool->staging_name : pool->output_name);
  planted += symlink(victim, path) == 0;
}
static void test_planted_names(void) {
  struct tally *s = tally_new();
  char path[512];
  snprintf(victim, sizeof victim, "/tmp/ojo_faults_victim_%d", (int)getpid());
  plant_victim();
  ojo_desc d = desc_default();
  d.no_thread = true;
  ojo_tracer *t = plant_tracer = open_tracer(&d);
  record(t, 1, 1000);
  fault_hook = plant_name;
  check(ojo_flush(t) == OJO_OK && planted == 6, "planted names: flush, %u planted", planted);
  fault_hook = NULL;
  check(ojo_close(t) == OJO_OK && log_lines == 0, "planted names: close");
  check(victim_well(), "planted names: the victim is left alone");
  unlink(victim);
  snprintf(path, sizeof path, "rm -f $(find %s -type l)", dir);
  free(check_run(NULL, "%s", path));
  tally_dir(s, dir, false);
  tally_check(s, "planted names", 1000);
  free(s);
}

static void write_link(const char *name, const char *text) {
  char path[700];
  snprintf(path, sizeof path, "%s/staging/%s", dir, name);
  FILE *f = fopen(path, "w");
  if (!f || fprintf(f, "%s\n", text) < 0 || fclose(f) != 0) abort();
}
/* Links of dead pools that lead to what is none: symlinks, pipes, directories, another user's pool. */
static void test_planted_pools(void) {
  static const char pool[] = "/dev/shm/ojo_00000000000000000000000000000000_0000000000000000000000000000000";
  char path[8][128], link[64], staging[512];
  snprintf(staging, sizeof staging, "%s/staging", dir);
  mkdir(staging, 0700);
  snprintf(victim, sizeof victim, "/dev/shm/victim");
  umask(022);
  plant_victim();
  for (int i = 0; i < 8; i++) {
    snprintf(path[i], sizeof path[i], "%s%d", pool, i);
    snprintf(link, sizeof link, "pool_%d.link", i);
    write_link(link, path[i]);
  }
  check(symlink(victim, path[0]) == 0 && mkfifo(path[1], 0600) == 0 && mkdir(path[2], 0700) == 0, "planted pools: made");
  check(symlink(path[0], path[3]) == 0, "planted pools: made");
  FILE *f = fopen(path[4], "w"); /* another user's */
  if (!f || fputs("ojopool", f) < 0 || fclose(f) != 0) abort();
  bool chowned = chown(path[4], 65534, 65534) == 0;
  f = fopen(path[5], "w"); /* garbage of ours */
  for (int i = 0; f && i < 5000; i++) fputs("garbage ", f);
  if (!f || fclose(f) != 0) abort();
  snprintf(staging, sizeof staging, "%s/staging/pool_9.link", dir);
  check(mkfifo(staging, 0600) == 0, "planted pools: a pipe for a link");
  ojo_recover(dir);
  check(victim_well(), "planted pools: the victim is left alone");
  check(mode_of(path[0]) != 0xFFFF && mode_of(path[1]) != 0xFFFF && mode_of(path[2]) != 0xFFFF, "planted pools: not touched");
  check(!chowned || mode_of(path[4]) != 0xFFFF, "planted pools: another user's is not touched");
  ojo_desc d = desc_default();
  ojo_tracer *t = open_tracer(&d);
  record(t, 1, 100);
  check(ojo_close(t) == OJO_OK && victim_well(), "planted pools: a tracer works beside them");
  check_files("planted pools", 100, 0);
  snprintf(staging, sizeof staging, "%s/staging", dir);
  check_remove(staging);
  snprintf(link, sizeof link, ".");
  check(symlink(link, staging) == 0 && ojo_open(&t, &d) != OJO_OK && !t, "staging/ as a symlink is refused");
  check(ojo_recover(dir) != OJO_OK, "by recovery too");
}

/* The dead pool of the directory. NULL: none. */
static struct ojo__pool *map_dead_pool(char *path, size_t room, size_t *bytes) {
  struct stat st;
  struct dirent *entry;
  int fd = -1;
  DIR *d = opendir("/dev/shm");
  while (d && fd < 0 && (entry = readdir(d)) != NULL)
    if (strncmp(entry->d_name, "ojo_", 4) == 0 && snprintf(path, room, "/dev/shm/%s", entry->d_name) > 0)
      fd = open(path, O_RDWR | O_CLOEXEC);
  if (d) closedir(d);
  if (fd < 0 || fstat(fd, &st) != 0) return NULL;
  *bytes = (size_t)st.st_size;
  void *map = mmap(NULL, *bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  close(fd);
  return map == MAP_FAILED ? NULL : (struct ojo__pool *)map;
}

/* A pool that names a file outside of staging/ as its open batch. */
static void test_escaping_name(void) {
  static const char *const names[] = {"../victim", "/dev/shm/victim", "trace_/../../victim", "..", "."};
  char path[512];
  size_t bytes;
  umask(022);
  for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
    check_remove(dir);
    die_with_events(1, 10, 20);
    snprintf(victim, sizeof victim, i == 1 ? "/dev/shm/victim" : "%s/victim", dir);
    plant_victim();
    struct ojo__pool *pool = map_dead_pool(path, sizeof path, &bytes);
    if (!check(pool != NULL, "escaping name: the pool")) return;
    memset(pool->staging_name, 'x', sizeof pool->staging_name);
    snprintf(pool->staging_name, sizeof pool->staging_name, "%s", names[i]);
    snprintf(pool->output_name, sizeof pool->output_name, "%s", names[i]);
    pool->open_batch++;
    munmap(pool, bytes);
    ojo_recover(dir);
    check(victim_well(), "escaping name %s: the victim is left alone", names[i]);
    free(check_run(NULL, "rm -f /dev/shm/ojo_*"));
    unlink(victim);
  }
}

/* Somebody else (of our user) writes into a dead pool while we recover it: what comes out may be nonsense, but
 * we neither crash nor hang, and write nothing but files of output/. */
static void test_hostile_writer(void) {
  char path[512];
  size_t bytes;
  uint64_t end = now_ns() + 1500000000u, rounds = 0;
  for (; now_ns() < end; rounds++) {
    check_remove(dir);
    die_with_events(1, 100, 9000);
    struct ojo__pool *pool = map_dead_pool(path, sizeof path, &bytes);
    if (!check(pool != NULL, "hostile writer: the pool")) return;
    uint32_t *go = (uint32_t *)mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (go == MAP_FAILED) abort();
    pid_t writer = fork();
    if (writer == 0) { /* values that pass or fail checks, back and forth, in what is read between them */
      struct ojo__chunk *chunks = (struct ojo__chunk *)(void *)((char *)pool + pool->chunks_at);
      struct ojo__level *level = ((struct ojo__thread *)(void *)((char *)pool + pool->threads_at))->level;
      struct ojo__anchor *anchors = (struct ojo__anchor *)(void *)((char *)pool + pool->anchors_at);
      ojo_event *slots = (ojo_event *)(void *)((char *)pool + pool->data_at);
      static const uint64_t values[] = {0, 1, 24, 65520, 65536, UINT32_MAX, UINT64_MAX, UINT64_MAX - 1, 1u << 20};
      void *const words[][2] = {/* in 8 bytes, in 4 */
                                {&chunks[0].harvested, &chunks[0].thread},
                                {&chunks[1].published, &chunks[1].thread},
                                {&chunks[2].committed, &chunks[2].level}, /* and flags */
                                {&chunks[3].harvested, &chunks[3].level},
                                {&pool->threads_fresh, &pool->file.header_bytes},
                                {&pool->anchor_count, &pool->chunk_count},
                                {&anchors[0].tick, &pool->file.schema_bytes},
                                {&anchors[1].ns, &pool->version},
                                {&level[0].lost_harvested, &slots[6000].type},
                                {&pool->data_at, &slots[8000].type},
                                {&pool->threads_at, &slots[100].type},
                                {&pool->schema_at, &slots[3000].type}};
      uint64_t state = rounds;
      __atomic_store_n(go, 1, __ATOMIC_RELEASE);
      for (;;) {
        uint64_t r = check_random(&state), value = values[(r >> 32) % 9];
        void *const *word = words[r % (sizeof words / sizeof words[0])];
        if (r >> 63) {
          uint64_t was = __atomic_exchange_n((uint64_t *)word[0], value, __ATOMIC_SEQ_CST);
          for (volatile unsigned i = 0; i < (r >> 44 & 255); i++) {}
          __atomic_store_n((uint64_t *)word[0], was, __ATOMIC_SEQ_CST);
        } else {
          uint32_t was = __atomic_exchange_n((uint32_t *)word[1], (uint32_t)value, __ATOMIC_SEQ_CST);
          for (volatile unsigned i = 0; i < (r >> 44 & 255); i++) {}
          __atomic_store_n((uint32_t *)word[1], was, __ATOMIC_SEQ_CST);
        }
      }
    }
    while (!__atomic_load_n(go, __ATOMIC_ACQUIRE)) {}
    for (int i = 0; i < 4 && check_count(dir, "staging") > 0; i++) ojo_recover(dir);
    kill(writer, SIGKILL);
    waitpid(writer, NULL, 0);
    munmap(pool, bytes);
    munmap(go, 4096);
    free(check_run(NULL, "rm -f /dev/shm/ojo_*"));
  }
  printf("hostile writer: %llu pools\n", (unsigned long long)rounds);
  check(rounds > 3, "hostile writer: %llu rounds", (unsigned long long)rounds);
}

/* A pool with holes, in a /dev/shm that is full: reading them there would raise SIGBUS. */
static void test_holes(void) {
  static const uint32_t flow = 1;
  static const uint64_t count = 120;
  char path[512];
  size_t bytes;
  die_with_events(flow, 20, 100);
  struct ojo__pool *pool = map_dead_pool(path, sizeof path, &bytes);
  if (!check(pool != NULL, "holes: the pool")) return;
  pool->threads_fresh = 3000; /* entries that were never written */
  munmap(pool, bytes);
  fill("/dev/shm/filler");
  check(ojo_recover(dir) == OJO_ERR_IO, "holes: recovery says that it could not");
  unlink("/dev/shm/filler");
  check(ojo_recover(dir) == OJO_OK, "holes: once there is room");
  check_flows("holes", 1, &flow, &count);
  check_files("holes", count, 0);
}

/* A kill around the deletion of an old file for disk_bytes_max: it is counted, once, or it is there. */
static int kill_point, kill_unlinks;
static void killer_before(enum fault_call call) {
  if (call == FAULT_unlinkat && kill_point % 2 == 0 && ++kill_unlinks == 1 + kill_point / 2) kill(getpid(), SIGKILL);
}
static void killer_after(enum fault_call call) {
  if (call == FAULT_unlinkat && kill_point % 2 && ++kill_unlinks == 1 + kill_point / 2) kill(getpid(), SIGKILL);
}
static void test_kill_at_deletion(void) {
  for (kill_point = 0; kill_point < 8; kill_point++) {
    char path[512];
    int status;
    struct tally *s = tally_new();
    uint64_t *sent = (uint64_t *)mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (sent == MAP_FAILED) abort();
    check_remove(dir);
    fflush(stdout);
    pid_t child = fork();
    if (child == 0) {
      ojo_desc d = desc_default();
      d.no_thread = true;
      d.disk_bytes_max = 100000;
      ojo_tracer *t = open_tracer(&d);
      fault_hook = killer_before;
      fault_after = killer_after;
      for (int i = 0; i < 30; i++) {
        record(t, 1, 1000);
        *sent = attempted();
        ojo_flush(t);
      }
      _exit(0);
    }
    waitpid(child, &status, 0);
    check(WIFSIGNALED(status), "kill at a deletion: killed");
    check(ojo_recover(dir) == OJO_OK, "kill at a deletion: recovery");
    s->batch_next = UINT64_MAX;
    snprintf(path, sizeof path, "%s/output", dir);
    DIR *d = opendir(path);
    for (struct dirent *entry; d && (entry = readdir(d)) != NULL;) {
      char file[1024];
      if (entry->d_name[0] == '.') continue;
      snprintf(file, sizeof file, "%s/%s", path, entry->d_name);
      char *data = check_load(file, NULL);
      uint64_t batch = data ? ((const ojo_file_header *)(const void *)data)->batch : UINT64_MAX;
      if (batch < s->batch_next) s->batch_next = batch;
      free(data);
    }
    if (d) closedir(d);
    tally_dir(s, dir, false);
    check(s->bad_file == 0 && s->bad_payload == 0 && s->bad_order == 0, "kill at deletion %d: sound", kill_point);
    check(s->total + s->deleted == *sent && s->dropped == 0, "kill at deletion %d: %llu in files + %llu deleted, not %llu",
          kill_point, (unsigned long long)s->total, (unsigned long long)s->deleted, (unsigned long long)*sent);
    munmap(sent, 4096);
    free(s);
  }
}

/* A dead tracer's pool whose directory is gone, or another one by now: it is told of, not removed. */
static void test_lost_directory(void) {
  static const uint32_t flows[2] = {2, 1};
  static const uint64_t counts[2] = {35, 10};
  char gone[512], path[700], name[512];
  size_t bytes;
  die_with_events(2, 5, 30);
  snprintf(gone, sizeof gone, "%s.gone", dir);
  rename(dir, gone);
  fault_realtime = INT64_C(120000000000); /* it is no new one */
  ojo_desc d = desc_default();
  ojo_tracer *t = open_tracer(&d);
  record(t, 1, 10);
  check(log_lines == 0, "lost directory: open says nothing: %s", log_last);
  ojo_close(t);
  snprintf(path, sizeof path, "%s/stderr", gone);
  int standard = dup(2), text = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
  dup2(text, 2);
  check(ojo_recover(dir) == OJO_OK, "lost directory: recover");
  dup2(standard, 2);
  close(standard);
  close(text);
  char *told = check_load(path, NULL);
  check(told && strstr(told, "1 pools") && strstr(told, "/dev/shm/ojo_"), "lost directory: told: %s", told);
  free(told);
  unlink(path);
  struct ojo__pool *pool = map_dead_pool(name, sizeof name, &bytes);
  if (!check(pool != NULL, "lost directory: the pool is left")) return;
  munmap(pool, bytes);
  snprintf(path, sizeof path, "%s/output", gone); /* as the line says: an empty link, here; and its batch */
  free(check_run(NULL, "mv %s/* %s/output/", path, dir));
  snprintf(path, sizeof path, "pool_%s.link", strrchr(name, '_') + 1);
  char link[1300];
  snprintf(link, sizeof link, "%s/staging/%s", dir, path);
  int fd = open(link, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
  if (fd >= 0) close(fd);
  check(ojo_recover(dir) == OJO_OK, "lost directory: recovered into another");
  check_flows("lost directory", 2, flows, counts);
  check(count_entries("/dev/shm", "ojo_") == 0, "lost directory: and removed");
  check_remove(gone);
}

/* A fork during a recovery: the child does not keep the pool locked. */
static uint32_t recovering;
static void wait_in_write(enum fault_call call) {
  if (call != FAULT_pwrite || __atomic_exchange_n(&recovering, 1, __ATOMIC_ACQ_REL)) return;
  sleep_ms(200);
}
static void *recover_thread(void *unused) {
  (void)unused;
  return ojo_recover(dir) == OJO_OK ? dir : NULL;
}
static void test_fork_in_recovery(void) {
  static const uint32_t flow = 2;
  static const uint64_t count = 35;
  pthread_t id;
  void *result = dir;
  die_with_events(flow, 5, 30);
  __atomic_store_n(&fault_hook, wait_in_write, __ATOMIC_RELEASE);
  __atomic_store_n(&fault_error[FAULT_pwrite], EIO, __ATOMIC_RELEASE);
  if (pthread_create(&id, NULL, recover_thread, NULL)) abort();
  while (!__atomic_load_n(&recovering, __ATOMIC_ACQUIRE)) sleep_ms(1);
  pid_t child = fork();
  if (child == 0) {
    sleep_ms(3000);
    _exit(0);
  }
  pthread_join(id, &result);
  check(!result, "fork in a recovery: that fails");
  __atomic_store_n(&fault_error[FAULT_pwrite], 0, __ATOMIC_RELEASE);
  check(ojo_recover(dir) == OJO_OK, "fork in a recovery: the next one");
  check_flows("fork in a recovery", 1, &flow, &count);
  kill(child, SIGKILL);
  waitpid(child, NULL, 0);
}

int main(void) {
  static const struct {
    const char *name;
    void (*test)(void);
    const char *shm;
  } tests[] = {
      {"-shm of 64 MiB", test_shm_default, "64m"},
      {"-shm of 64 MiB, more wanted", test_shm_wanted, "64m"},
      {"-shm of 1 MiB", test_shm_tiny, "1m"},
      {"-shm full", test_shm_full, "64m"},
      {"-shm read-only", test_shm_read_only, "64m"},
      {"-shm no tmpfs", test_shm_no_tmpfs, NULL},
      {"-shm absent", test_shm_absent, "64m"},
      {"-shm without inodes", test_shm_inodes, "64m"},
      {"-shm fills up", test_shm_fills_up, "16m"},
      {"-shm fills up while idle", test_shm_fills_up_idle, "16m"},
      {"-disk fills up", test_disk_fills_up, "256m"},
      {"-disk full", test_disk_full, "64m"},
      {"-disk full, crash", test_disk_full_crash, "64m"},
      {"errors", test_errors, "64m"},
      {"no renameat2", test_no_renameat2, "64m"},
      {"interrupted", test_interrupted, "64m"},
      {"short writes", test_short_writes, "64m"},
      {"writes of nothing", test_no_progress, "64m"},
      {"no descriptors", test_descriptors, "64m"},
      {"-open failing", test_open_failing, "64m"},
      {"-open failing over a dead pool", test_open_failing_dead, "64m"},
      {"-recover failing", test_recover_failing, "64m"},
      {"-flush failing", test_flush_failing, "64m"},
      {"-close failing", test_close_failing, "64m"},
      {"big batches", test_big_batches, "256m"},
      {"big batches, slow disk", test_big_batches_slow, "256m"},
      {"big snapshot", test_big_snapshot, "64m"},
      {"slow disk, drop", test_slow_drop, "64m"},
      {"slow disk, block", test_slow_block, "64m"},
      {"removed in a batch", test_removed_in_batch, "64m"},
      {"replaced directory", test_replaced_directory, "64m"},
      {"-removed, then a crash", test_removed_then_crash, "64m"},
      {"-permission", test_permission, "64m"},
      {"-permission for shm", test_shm_permission, "64m"},
      {"clock steps", test_clock_steps, "64m"},
      {"counter steps", test_counter_steps, "64m"},
      {"modes", test_modes, "64m"},
      {"planted names", test_planted_names, "64m"},
      {"-planted pools", test_planted_pools, "64m"},
      {"-escaping name", test_escaping_name, "64m"},
      {"-hostile writer", test_hostile_writer, "64m"},
      {"-holes", test_holes, "64m"},
      {"-kill at a deletion", test_kill_at_deletion, "64m"},
      {"-lost directory", test_lost_directory, "64m"},
      {"-fork in a recovery", test_fork_in_recovery, "64m"},
  };
  const char *only = getenv("OJO_FAULTS");
  run_begin("faults");
  for (size_t i = 0; i < sizeof tests / sizeof tests[0]; i++) {
    const char *name = tests[i].name + (tests[i].name[0] == '-');
    if (!only || strncmp(name, only, strlen(only)) == 0) run(tests[i].name, tests[i].test, tests[i].shm);
  }
  return run_end();
}
