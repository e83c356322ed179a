/* SPDX-License-Identifier: MIT
 *
 * faults.h - includes ojo.h's implementation with its calls of libc under our control: any of them can be
 * made to fail, to do half of what it was asked, to be slow, or to see another clock. And runs each test
 * in a process of its own, so that a crash or a hang is that test's failure, with a /dev/shm of its own
 * where mount namespaces are permitted.
 */
#ifndef OJO_TESTS_FAULTS_H
#define OJO_TESTS_FAULTS_H
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

/* ---- what can fail, and with what when the n-th call does ---- */
#define FAULT_CALLS(X)                                                                                        \
  X(open, EMFILE) X(openat, EMFILE) X(close, EIO) X(mkdir, ENOSPC) X(mkdirat, ENOSPC) X(pwrite, ENOSPC)        \
  X(write, ENOSPC) X(read, EIO) X(pread, EIO) X(fsync, EIO) X(ftruncate, ENOSPC) X(rename, ENOSPC)             \
  X(fallocate, ENOSPC) X(getrandom, ENOSYS) X(linkat, ENOSPC) X(unlink, EIO) X(unlinkat, EIO) X(flock, ENOLCK) \
  X(fcntl, EMFILE) X(fstat, EIO) X(fstatat, EIO) X(stat, EIO) X(statfs, EIO) X(mmap, ENOMEM)                   \
  X(madvise, ENOMEM) X(malloc, ENOMEM) X(calloc, ENOMEM) X(strdup, ENOMEM) X(realpath, EACCES)                 \
  X(opendir, EMFILE) X(fdopendir, ENOMEM) X(pthread_create, EAGAIN) X(fchmod, EPERM)
enum fault_call {
#define FAULT_X(name, error) FAULT_##name,
  FAULT_CALLS(FAULT_X)
#undef FAULT_X
  FAULT_COUNT
};
static const struct {
  const char *name;
  int error;
} fault_calls[FAULT_COUNT] = {
#define FAULT_X(name, error) {#name, error},
    FAULT_CALLS(FAULT_X)
#undef FAULT_X
};

static int fault_error[FAULT_COUNT];     /* while not 0, this call fails with it, in every thread */
static uint64_t fault_hits[FAULT_COUNT]; /* how often it did */
static __thread bool fault_here;         /* this thread's calls are counted, and the fault_at-th fails */
static uint64_t fault_at, fault_seen;
static enum fault_call fault_which;      /* the call that was made to fail */
static bool fault_interrupts;            /* every other call that may be interrupted fails with EINTR */
static int fault_short;                  /* 1: pwrite writes a part; 2: nothing, without an error */
static uint32_t fault_slow_ms;           /* the next pwrite takes so long */
static uint32_t fault_slow_now;          /* one does */
static void (*fault_hook)(enum fault_call call); /* runs before each of the calls above */
static void (*fault_after)(enum fault_call call); /* runs after unlinkat */
static int64_t fault_monotonic, fault_realtime, fault_tsc; /* added to what the clocks say */

static bool fault(enum fault_call call) {
  static uint32_t turn[FAULT_COUNT];
  void (*hook)(enum fault_call) = __atomic_load_n(&fault_hook, __ATOMIC_ACQUIRE);
  if (hook) hook(call);
  if (fault_here && ++fault_seen == fault_at) {
    fault_which = call;
    errno = fault_calls[call].error;
    return true;
  }
  int error = __atomic_load_n(&fault_error[call], __ATOMIC_ACQUIRE);
  if (error) {
    __atomic_fetch_add(&fault_hits[call], 1, __ATOMIC_ACQ_REL);
    errno = error;
    return true;
  }
  bool may = call == FAULT_pwrite || call == FAULT_openat || call == FAULT_fsync || call == FAULT_rename;
  if (may && __atomic_load_n(&fault_interrupts, __ATOMIC_ACQUIRE) &&
      __atomic_fetch_add(&turn[call], 1, __ATOMIC_RELAXED) % 2 == 0) {
    __atomic_fetch_add(&fault_hits[call], 1, __ATOMIC_ACQ_REL);
    errno = EINTR;
    return true;
  }
  return false;
}
static bool fault_syscall(long number, ...) {
  return number == SYS_renameat2  ? fault(FAULT_rename)
         : number == SYS_fallocate ? fault(FAULT_fallocate)
         : number == SYS_getrandom ? fault(FAULT_getrandom)
                                   : false;
}
static ssize_t fault_pwrite(int fd, const void *bytes, size_t length, off_t at) {
  uint32_t ms = __atomic_exchange_n(&fault_slow_ms, 0, __ATOMIC_ACQ_REL);
  if (ms) {
    struct timespec wait = {ms / 1000, (long)(ms % 1000) * 1000000};
    __atomic_store_n(&fault_slow_now, 1, __ATOMIC_RELEASE);
    nanosleep(&wait, NULL);
    __atomic_store_n(&fault_slow_now, 0, __ATOMIC_RELEASE);
  }
  if (fault(FAULT_pwrite)) return -1;
  int part = __atomic_load_n(&fault_short, __ATOMIC_ACQUIRE);
  if (part) __atomic_fetch_add(&fault_hits[FAULT_pwrite], 1, __ATOMIC_ACQ_REL);
  if (part == 2) return 0;
  if (part && length > 1) length = length > 4096 ? 4097 : length / 2;
  return pwrite(fd, bytes, length, at);
}
static int fault_unlinked(int result) {
  int saved = errno;
  if (fault_after) fault_after(FAULT_unlinkat);
  errno = saved;
  return result;
}
static int fault_clock(clockid_t id, struct timespec *ts) {
  int result = clock_gettime(id, ts);
  int64_t step = __atomic_load_n(id == CLOCK_MONOTONIC ? &fault_monotonic : &fault_realtime, __ATOMIC_ACQUIRE);
  int64_t ns = (int64_t)ts->tv_sec * 1000000000 + ts->tv_nsec + step;
  ts->tv_sec = (time_t)(ns / 1000000000);
  ts->tv_nsec = (long)(ns % 1000000000);
  return result;
}

#define open(...) (fault(FAULT_open) ? -1 : open(__VA_ARGS__))
#define openat(...) (fault(FAULT_openat) ? -1 : openat(__VA_ARGS__))
#define close(fd) (close(fd) != 0 || fault(FAULT_close) ? -1 : 0)
#define mkdir(path, mode) (fault(FAULT_mkdir) ? -1 : mkdir(path, mode))
#define mkdirat(dir, path, mode) (fault(FAULT_mkdirat) ? -1 : mkdirat(dir, path, mode))
#define pwrite(fd, bytes, length, at) fault_pwrite(fd, bytes, length, at)
#define write(fd, bytes, length) (fault(FAULT_write) ? -1 : write(fd, bytes, length))
#define read(fd, bytes, length) (fault(FAULT_read) ? -1 : read(fd, bytes, length))
#define pread(fd, bytes, length, at) (fault(FAULT_pread) ? -1 : pread(fd, bytes, length, at))
#define fsync(fd) (fault(FAULT_fsync) ? -1 : fsync(fd))
#define ftruncate(fd, length) (fault(FAULT_ftruncate) ? -1 : ftruncate(fd, length))
#define linkat(...) (fault(FAULT_linkat) ? -1 : linkat(__VA_ARGS__))
#define unlink(path) (fault(FAULT_unlink) ? -1 : unlink(path))
#define unlinkat(dir, path, flags) (fault(FAULT_unlinkat) ? -1 : fault_unlinked(unlinkat(dir, path, flags)))
#define flock(fd, how) (fault(FAULT_flock) ? -1 : flock(fd, how))
#define fcntl(...) (fault(FAULT_fcntl) ? -1 : fcntl(__VA_ARGS__))
#define fstat(fd, st) (fault(FAULT_fstat) ? -1 : fstat(fd, st))
#define fstatat(dir, path, st, flags) (fault(FAULT_fstatat) ? -1 : fstatat(dir, path, st, flags))
#define stat(path, st) (fault(FAULT_stat) ? -1 : stat(path, st))
#define statfs(path, st) (fault(FAULT_statfs) ? -1 : statfs(path, st))
#define fchmod(fd, mode) (fault(FAULT_fchmod) ? -1 : fchmod(fd, mode))
#define mmap(...) (fault(FAULT_mmap) ? MAP_FAILED : mmap(__VA_ARGS__))
#define madvise(at, length, how) (fault(FAULT_madvise) ? -1 : madvise(at, length, how))
#define malloc(bytes) (fault(FAULT_malloc) ? NULL : malloc(bytes))
#define calloc(count, bytes) (fault(FAULT_calloc) ? NULL : calloc(count, bytes))
#define strdup(text) (fault(FAULT_strdup) ? NULL : strdup(text))
#define realpath(path, out) (fault(FAULT_realpath) ? NULL : realpath(path, out))
#define opendir(path) (fault(FAULT_opendir) ? NULL : opendir(path))
#define fdopendir(fd) (fault(FAULT_fdopendir) ? NULL : fdopendir(fd))
#define pthread_create(...) (fault(FAULT_pthread_create) ? EAGAIN : pthread_create(__VA_ARGS__))
#define syscall(...) (fault_syscall(__VA_ARGS__, 0) ? -1L : syscall(__VA_ARGS__))
#define clock_gettime(id, ts) fault_clock(id, ts)
#if defined(__x86_64__)
static uint64_t fault_ticks(void) {
  return __builtin_ia32_rdtsc() + (uint64_t)__atomic_load_n(&fault_tsc, __ATOMIC_RELAXED);
}
#define __builtin_ia32_rdtsc() fault_ticks()
#endif
#define OJO_IMPLEMENTATION
#include "ojo.h"
#undef open
#undef openat
#undef close
#undef mkdir
#undef mkdirat
#undef pwrite
#undef write
#undef read
#undef pread
#undef fsync
#undef ftruncate
#undef linkat
#undef unlink
#undef unlinkat
#undef flock
#undef fcntl
#undef fstat
#undef fstatat
#undef stat
#undef statfs
#undef fchmod
#undef mmap
#undef madvise
#undef malloc
#undef calloc
#undef strdup
#undef realpath
#undef opendir
#undef fdopendir
#undef pthread_create
#undef syscall
#undef clock_gettime
#define OJO_READER_IMPLEMENTATION
#include "ojo_reader.h"
#include "check.h"
#include "tally.h"

/* ---- each test in a process of its own ---- */

struct outcome {
  unsigned passed, failed, skipped;
};
static struct outcome *outcome; /* shared with the children */
static char dir[256];           /* the test's scratch directory */
static const char *run_part;    /* the program's name */

OJO__UNUSED static bool write_text(const char *path, const char *text) {
  int fd = open(path, O_WRONLY | O_CLOEXEC);
  bool ok = fd >= 0 && write(fd, text, strlen(text)) == (ssize_t)strlen(text);
  if (fd >= 0) close(fd);
  return ok;
}

/* A mount namespace of this process's own, as root or through a user namespace. */
static bool own_mounts(void) {
  char text[64];
  uid_t uid = geteuid();
  gid_t gid = getegid();
  if (unshare(CLONE_NEWNS) != 0) {
    if (unshare(CLONE_NEWUSER | CLONE_NEWNS) != 0) return false;
    write_text("/proc/self/setgroups", "deny");
    snprintf(text, sizeof text, "0 %u 1", (unsigned)uid);
    if (!write_text("/proc/self/uid_map", text)) return false;
    snprintf(text, sizeof text, "0 %u 1", (unsigned)gid);
    if (!write_text("/proc/self/gid_map", text)) return false;
  }
  return mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) == 0;
}
static bool mount_tmpfs(const char *path, const char *options) {
  return mount("none", path, "tmpfs", 0, options) == 0;
}

/* Runs a test. `shm`: what /dev/shm is for it: a size as tmpfs takes it; NULL: as it is on this machine. A
 * name that starts with '-' needs mounts of its own; any other does without them if need be. */
static void run(const char *name, void (*test)(void), const char *shm) {
  bool needs = name[0] == '-';
  name += needs;
  struct outcome before = *outcome;
  struct timespec start, end;
  clock_gettime(CLOCK_MONOTONIC, &start);
  check_directory(run_part, dir, sizeof dir);
  fflush(stdout);
  fflush(stderr);
  pid_t child = fork();
  if (child == 0) {
    char options[64];
    check__passed = check__failed = check__skipped = 0;
    alarm(60); /* a hang */
    bool mounts = own_mounts();
    if (mounts && shm) {
      snprintf(options, sizeof options, "size=%s", shm);
      mounts = mount_tmpfs("/dev/shm", options);
    }
    if (!mounts && needs) check_skip(name, "no mount namespaces");
    else test();
    outcome->passed += check__passed;
    outcome->failed += check__failed;
    outcome->skipped += check__skipped;
    exit(0);
  }
  int status = -1;
  waitpid(child, &status, 0);
  if (WIFSIGNALED(status)) check(false, "%s: ended by signal %d (%s)", name, WTERMSIG(status), strsignal(WTERMSIG(status)));
  else check(WIFEXITED(status) && WEXITSTATUS(status) == 0, "%s: exit code %d", name, WEXITSTATUS(status));
  clock_gettime(CLOCK_MONOTONIC, &end);
  printf("%s: %u checks passed, %u failed, %.1f s\n", name, outcome->passed - before.passed,
         outcome->failed - before.failed,
         (double)(end.tv_sec - start.tv_sec) + (double)(end.tv_nsec - start.tv_nsec) / 1e9);
  check_remove(dir);
}
static void run_begin(const char *part) {
  run_part = part;
  outcome = (struct outcome *)mmap(NULL, sizeof *outcome, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  if (outcome == MAP_FAILED) abort();
  setvbuf(stdout, NULL, _IOLBF, 0);
}
static int run_end(void) {
  check__passed += outcome->passed;
  check__failed += outcome->failed;
  check__skipped += outcome->skipped;
  munmap(outcome, sizeof *outcome);
  return check_end(run_part);
}

/* ---- what the tests share ---- */

static uint32_t log_lines;
static char log_last[1024];
OJO__UNUSED static void keep_line(void *user, const char *line) {
  (void)user;
  __atomic_fetch_add(&log_lines, 1, __ATOMIC_ACQ_REL);
  snprintf(log_last, sizeof log_last, "%s", line);
  if (getenv("OJO_FAULTS_LOG")) printf("  log: %s\n", line);
}
OJO__UNUSED static ojo_desc desc_default(void) {
  ojo_desc d;
  memset(&d, 0, sizeof d);
  d.dir = dir;
  d.buffer_bytes = 4u << 20;
  d.flush_interval_ms = 10;
  d.logger.log = keep_line;
  log_lines = 0;
  log_last[0] = 0;
  return d;
}
OJO__UNUSED static ojo_tracer *open_tracer(const ojo_desc *d) {
  ojo_tracer *t = NULL;
  ojo_result result = ojo_open(&t, d);
  if (!check(result == OJO_OK && t, "open: %s (%s)", ojo_result_string(result), log_last)) {
    outcome->failed += check__failed;
    exit(0);
  }
  return t;
}

static uint64_t attempts[FLOWS]; /* per flow: the next sequence number */
OJO__UNUSED static uint64_t attempted(void) {
  uint64_t sum = 0;
  for (uint32_t i = 0; i < FLOWS; i++) sum += attempts[i];
  return sum;
}
OJO__UNUSED static void record(ojo_tracer *t, uint32_t flow, uint64_t count) {
  for (uint64_t i = 0; i < count; i++) ojo_record(t, flow, OJO_PACKET_SENT, sealed(flow, attempts[flow]++));
}
struct recording {
  ojo_tracer *t;
  uint32_t flow;
  uint64_t count;
};
OJO__UNUSED static void *record_in_thread(void *argument) {
  struct recording *r = (struct recording *)argument;
  record(r->t, r->flow, r->count);
  return NULL;
}
/* Threads first..first + threads - 1 record `count` events each, on flows of their numbers. */
OJO__UNUSED static void record_threads(ojo_tracer *t, uint32_t first, uint32_t threads, uint64_t count) {
  struct recording r[64];
  pthread_t id[64];
  for (uint32_t i = 0; i < threads; i++) {
    r[i].t = t;
    r[i].flow = first + i;
    r[i].count = count;
    if (pthread_create(&id[i], NULL, record_in_thread, &r[i])) abort();
  }
  for (uint32_t i = 0; i < threads; i++) pthread_join(id[i], NULL);
}

OJO__UNUSED static void sleep_ms(unsigned ms) { usleep(ms * 1000); }
OJO__UNUSED static uint64_t now_ns(void) {
  struct timespec ts;
  clock_gettime(CLOCK_MONOTONIC, &ts);
  return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}
/* Until the tracer has failed to write `more` times from now on. */
OJO__UNUSED static bool wait_errors(ojo_tracer *t, uint64_t more) {
  uint64_t until = ojo_query_stats(t).write_errors + more;
  for (int i = 0; i < 5000 && ojo_query_stats(t).write_errors < until; i++) sleep_ms(1);
  return ojo_query_stats(t).write_errors >= until;
}

/* The files of DIR/output/ by ojo_reader.h: events, and what EVENTS_DROPPED tell. */
OJO__UNUSED static void read_back(const char *of, const char *what, uint64_t *events, uint64_t *dropped) {
  ojo_reader *r;
  ojo_reader_event e;
  ojo_reader_desc d;
  memset(&d, 0, sizeof d);
  d.path = of;
  *events = *dropped = 0;
  if (!check(ojo_reader_open(&r, &d) == OJO_OK, "%s: the reader opens %s", what, of)) return;
  while (ojo_reader_next(r, &e)) {
    if (e.type == OJO_EVENTS_DROPPED) *dropped += e.payload;
    else ++*events;
  }
  check(ojo_reader_error_count(r) == 0, "%s: %llu errors of the reader", what,
        (unsigned long long)ojo_reader_error_count(r));
  ojo_reader_close(r);
}

/* The files hold what was attempted: once, in order, or told as dropped. `dropped` UINT64_MAX: any number. */
OJO__UNUSED static void check_files(const char *what, uint64_t all, uint64_t dropped) {
  struct tally *s = tally_new();
  uint64_t events, told;
  tally_dir(s, dir, false);
  tally_check(s, what, all);
  if (dropped != UINT64_MAX)
    check(s->dropped == dropped, "%s: EVENTS_DROPPED sum to %llu, stats say %llu", what, (unsigned long long)s->dropped,
          (unsigned long long)dropped);
  read_back(dir, what, &events, &told);
  check(events == s->total && told == s->dropped, "%s: the reader sees %llu events and %llu dropped, not %llu and %llu",
        what, (unsigned long long)events, (unsigned long long)told, (unsigned long long)s->total,
        (unsigned long long)s->dropped);
  free(s);
}
/* Closes a tracer that works again, and compares its counts with its files. */
OJO__UNUSED static void close_exact(ojo_tracer *t, const char *what) {
  ojo_stats q;
  check(ojo_flush(t) == OJO_OK, "%s: flush", what);
  q = ojo_query_stats(t);
  check(q.recorded + q.dropped == attempted(), "%s: recorded %llu + dropped %llu != attempted %llu", what,
        (unsigned long long)q.recorded, (unsigned long long)q.dropped, (unsigned long long)attempted());
  check(q.written == q.recorded, "%s: written %llu of %llu", what, (unsigned long long)q.written,
        (unsigned long long)q.recorded);
  check(ojo_close(t) == OJO_OK, "%s: close", what);
  check_files(what, attempted(), q.dropped);
  check(check_count(dir, "staging") == 0, "%s: staging/ is empty", what);
}

/* The files hold events 0 to count - 1 of each flow, once. For directories that hold several traces. */
OJO__UNUSED static void check_flows(const char *what, unsigned n, const uint32_t *flows, const uint64_t *counts) {
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

OJO__UNUSED static unsigned count_entries(const char *path, const char *prefix) {
  unsigned count = 0;
  struct dirent *entry;
  DIR *d = opendir(path);
  while (d && (entry = readdir(d)) != NULL)
    count += entry->d_name[0] != '.' && strncmp(entry->d_name, prefix, strlen(prefix)) == 0;
  if (d) closedir(d);
  return count;
}
OJO__UNUSED static unsigned open_fds(void) { return count_entries("/proc/self/fd", ""); }

/* Fills a file system to its last byte. */
OJO__UNUSED static void fill(const char *path) {
  static char block[4096];
  int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
  if (fd < 0) abort();
  memset(block, 1, sizeof block);
  while (write(fd, block, sizeof block) > 0) {}
  close(fd);
}
#endif
