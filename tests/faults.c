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
  record(t, 1, 200000);
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

/* The files hold events 0 to count - 1 of each flow, once. For directories that hold several traces. */
static void check_flows(const char *what, unsigned n, const uint32_t *flows, const uint64_t *counts) {
  check_event *events;
  size_t all = check_events(dir, &events);
  uint64_t expected = 0;
  for (unsigned k = 0; k < n; k++) {
    unsigned char *seen = (unsigned char *)calloc(counts[k] + 1, 1);
    uint64_t good = 0;
    for (size_t i = 0; i < all && seen; i++) {
      uint64_t at = events[i].payload & ((UINT64_C(1) << 44) - 1);
      if (events[i].flow != flows[k] || at >= counts[k] || events[i].payload != sealed(flows[k], at)) continue;
      good += !seen[at];
      seen[at] = 1;
    }
    free(seen);
    check(good == counts[k], "%s: flow %u has %llu of %llu events", what, flows[k], (unsigned long long)good,
          (unsigned long long)counts[k]);
    expected += counts[k];
  }
  check(all == expected, "%s: %zu events, not %llu", what, all, (unsigned long long)expected);
  free(events);
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
    if (names) check_run(NULL, "rm -f /dev/shm/ojo_*");
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
    check_run(NULL, "rm -f /dev/shm/ojo_*");
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
    check_run(NULL, "rm -f /dev/shm/ojo_*");
  }
  printf("%s: %llu calls made to fail in turn\n", closing ? "close" : "flush", (unsigned long long)n - 1);
  check(n > 5, "%llu calls", (unsigned long long)n);
}
static void test_flush_failing(void) { flush_failing(false); }
static void test_close_failing(void) { flush_failing(true); }

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
  };
  const char *only = getenv("OJO_FAULTS");
  run_begin();
  for (size_t i = 0; i < sizeof tests / sizeof tests[0]; i++) {
    const char *name = tests[i].name + (tests[i].name[0] == '-');
    if (!only || strncmp(name, only, strlen(only)) == 0) run(tests[i].name, tests[i].test, tests[i].shm);
  }
  return run_end("faults");
}
