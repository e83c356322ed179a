/* SPDX-License-Identifier: MIT
 *
 * kill_steps.c - SIGKILL at every step. A tracer without a thread of its own runs a fixed script (batches,
 * losses, a write and a close that fail) instruction by instruction; whenever its pool or its directory
 * has changed, both are copied as a SIGKILL at that moment would leave them, and the copy is recovered:
 * done <= in the files <= begun of each flow, none twice, in order, ordinals and batch numbers without a
 * gap. The recoverer is killed as well: before and after each of its calls, and, from some of the states, at
 * each of its instructions that changes something. And it may fail: each write and each file, once.
 *
 * A flight recorder likewise: changes of chunks that overwrite, entries that are retired, pins of a snapshot. What is
 * not there any more is counted, exactly; the newest events are there.
 *
 *   OJO_KILL_STEPS_FIRST   set: ends at the first state that is not recovered exactly
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { FLOWS_USED = 4 };
struct steps {
  uint64_t begun[FLOWS_USED], done[FLOWS_USED], lost_begun, lost_done;
  uint64_t calls;               /* made so far: a directory may have changed */
  uint64_t kill_at;             /* this process ends at its call of this number; 0: never */
  uint64_t fail_at, fail_count; /* the call of this number fails, of those that `fails` names */
  bool kept[FLOWS_USED];        /* flight recorder: flows whose newest events are there */
  char fails;                   /* 'w'rite, 'c'lose, 'o'pen of a new file, 'r'ename */
};
static struct steps *steps;

static void at_call(void) {
  if (++steps->calls == steps->kill_at) kill(getpid(), SIGKILL);
}
static int fails(char what) {
  if (steps->fails != what || ++steps->fail_count != steps->fail_at) return 0;
  errno = ENOSPC;
  return 1;
}
static int fails_openat(int from, const char *name, int flags, ...) {
  return from >= 0 && strncmp(name, "trace_", 6) == 0 && (flags & O_EXCL) && fails('o');
}
static int fails_syscall(long number, ...) { return number == SYS_renameat2 && fails('r'); }
static long after(long result) {
  int saved = errno;
  at_call();
  errno = saved;
  return result;
}
/* The calls of ojo.h that change files. */
#define pwrite(fd, p, n, at) (at_call(), (ssize_t)after(fails('w') ? -1 : (long)pwrite(fd, p, n, at)))
#define openat(...) (at_call(), (int)after(fails_openat(__VA_ARGS__, 0) ? -1 : openat(__VA_ARGS__)))
#define unlinkat(dir, name, flags) (at_call(), (int)after(unlinkat(dir, name, flags)))
#define unlink(path) (at_call(), (int)after(unlink(path)))
#define close(fd) (at_call(), (int)after(close(fd) != 0 || fails('c') ? -1 : 0))
#define syscall(...) (at_call(), after(fails_syscall(__VA_ARGS__, 0) ? -1 : syscall(__VA_ARGS__)))
#define OJO_IMPLEMENTATION
#include "ojo.h"
#undef pwrite
#undef openat
#undef unlinkat
#undef unlink
#undef close
#undef syscall
#include "check.h"
#include "tally.h"

/* ---- the victim: stops itself where stepping begins and ends ---- */

static char dir[256], copy[300], copy2[300];

static void quiet(void *user, const char *line) {
  (void)user;
  if (getenv("OJO_KILL_LOG")) printf("  log: %s\n", line);
}
static void record(ojo_tracer *t, uint32_t flow, int extension) {
  uint64_t n = steps->begun[flow], payload = sealed(flow, n), bytes[6];
  __atomic_store_n(&steps->begun[flow], n + 1, __ATOMIC_SEQ_CST);
  for (int i = 0; i < 6; i++) bytes[i] = payload;
  if (extension) ojo_record_ext(t, flow, 0x010000, payload, bytes, sizeof bytes);
  else ojo_record(t, flow, OJO_PACKET_SENT, payload);
  __atomic_store_n(&steps->done[flow], n + 1, __ATOMIC_SEQ_CST);
}
static void lose(ojo_tracer *t) {
  static const unsigned char long_bytes[OJO_EXTENSION_BYTES_MAX + 1];
  __atomic_store_n(&steps->lost_begun, steps->lost_begun + 1, __ATOMIC_SEQ_CST);
  ojo_record_ext(t, 1, 0x010000, 0, long_bytes, sizeof long_bytes);
  __atomic_store_n(&steps->lost_done, steps->lost_done + 1, __ATOMIC_SEQ_CST);
}
static void *other_thread(void *argument) {
  ojo_tracer *t = (ojo_tracer *)argument;
  record(t, 2, 0);
  lose(t);
  record(t, 2, 1);
  return NULL;
}
static void run_other_thread(ojo_tracer *t) {
  pthread_t id;
  if (pthread_create(&id, NULL, other_thread, t)) _exit(2);
  pthread_join(id, NULL);
}
static void fail_next(char what) {
  steps->fails = what;
  steps->fail_count = 0;
  steps->fail_at = 1;
}
static void run_victim(void) {
  ojo_tracer *t;
  ojo_desc d;
  memset(&d, 0, sizeof d);
  d.dir = dir;
  d.buffer_bytes = 8u << 16;
  d.flush_bytes = 100; /* a batch of each chunk */
  d.reserve_bytes = 1;
  d.no_thread = true;
  d.checksums = true;
  d.logger.log = quiet;
  if (ojo_open(&t, &d) != OJO_OK || !ojo_query_stats(t).crash_safe) _exit(3);
  run_other_thread(t);
  for (int i = 0; i < 3; i++) record(t, 1, i == 1);
  raise(SIGSTOP);
  ojo_flush(t);
  record(t, 1, 0);
  raise(SIGSTOP);
  for (const char *what = "wcro"; *what; what++) { /* a batch that fails, with losses, then one that does not */
    run_other_thread(t);
    lose(t);
    record(t, 1, 1);
    fail_next(*what);
    raise(SIGSTOP);
    ojo_flush(t);
    lose(t);
    record(t, 1, 0);
    ojo_flush(t);
    raise(SIGSTOP);
  }
  lose(t);
  record(t, 1, 0);
  raise(SIGSTOP);
  ojo_close(t);
  raise(SIGSTOP);
  _exit(0);
}

/* A flight recorder. `tiny`: three threads that live on have all chunks but one. */
static void fill(ojo_tracer *t) {
  do record(t, 1, 0);
  while (ojo__hot.chunk->committed <= OJO__CHUNK_LIMIT - OJO_SLOT_BYTES);
}
static uint32_t idlers;
static void *idle_thread(void *argument) {
  ojo_record((ojo_tracer *)argument, 3, OJO_PACKET_SENT, sealed(3, idlers));
  __atomic_add_fetch(&idlers, 1, __ATOMIC_SEQ_CST);
  for (;;) pause();
  return NULL;
}
static void stepped_change(ojo_tracer *t) {
  fill(t);
  raise(SIGSTOP);
  record(t, 1, 0);
  raise(SIGSTOP);
}
static void run_recorder(bool tiny) {
  ojo_tracer *t;
  ojo_desc d;
  pthread_t id;
  memset(&d, 0, sizeof d);
  d.dir = dir;
  d.buffer_bytes = tiny ? 4u << 16 : 8u << 16;
  d.overflow = OJO_OVERFLOW_DROP_OLDEST;
  d.no_thread = true;
  d.checksums = true;
  d.logger.log = quiet;
  if (ojo_open(&t, &d) != OJO_OK || !ojo_query_stats(t).crash_safe) _exit(3);
  struct ojo__core *core = t->core;
  record(t, 1, 0);
  for (uint32_t i = 0; tiny && i < 3; i++) {
    steps->begun[3]++, steps->done[3]++;
    if (pthread_create(&id, NULL, idle_thread, t)) _exit(2);
    while (__atomic_load_n(&idlers, __ATOMIC_SEQ_CST) <= i) usleep(100);
  }
  steps->kept[1] = !tiny;
  stepped_change(t); /* a fresh chunk; or the only one, in its place */
  for (int i = 0; i < 8; i++) fill(t);
  stepped_change(t); /* its own oldest */
  run_other_thread(t);
  for (int i = 0; i < 7 && !tiny; i++) fill(t);
  stepped_change(t); /* that of a thread that ended, whose entry is retired */
  run_other_thread(t);
  fill(t);
  raise(SIGSTOP);
  ojo__snapshot_begin(core);
  ojo__snapshot_list(core);
  raise(SIGSTOP);
  for (int i = 0; i < 3; i++) stepped_change(t); /* some are pinned */
  raise(SIGSTOP);
  for (uint32_t i = core->noted_count; i > 0; i--)
    if (core->noted[i - 1].pinned) ojo__unpin(core, &core->noted[i - 1]);
  __atomic_store_n(&core->snapshotting, 0, __ATOMIC_SEQ_CST);
  ojo__retire_all_ended(core);
  raise(SIGSTOP);
  for (int i = 0; i < 3; i++) stepped_change(t);
  raise(SIGSTOP);
  ojo__thread_exit(NULL);
  raise(SIGSTOP);
  _exit(0);
}

/* ---- what a SIGKILL would leave, as a copy of its own ---- */

static void copy_file(const char *from, const char *to) { /* sparse, as the pool is */
  char block[4096];
  int in = open(from, O_RDONLY), out = open(to, O_WRONLY | O_CREAT | O_EXCL, 0600);
  struct stat st;
  if (in < 0 || out < 0 || fstat(in, &st) != 0) abort();
  for (off_t at = 0; (at = lseek(in, at, SEEK_DATA)) >= 0;)
    for (off_t end = lseek(in, at, SEEK_HOLE); at < end;) {
      ssize_t got = pread(in, block, (size_t)(end - at) < sizeof block ? (size_t)(end - at) : sizeof block, at);
      if (got <= 0 || pwrite(out, block, (size_t)got, at) != got) abort();
      at += got;
    }
  if (ftruncate(out, st.st_size) != 0) abort();
  close(in);
  close(out);
}

/* The pool of a directory: as the link in its staging/ says. False: none is named or none is there. */
static bool pool_of(const char *of, char *pool, size_t room, char *link, size_t link_room) {
  char path[600];
  struct dirent *entry;
  bool found = false;
  snprintf(path, sizeof path, "%s/staging", of);
  DIR *d = opendir(path);
  while (d && !found && (entry = readdir(d)) != NULL) {
    if (strncmp(entry->d_name, "pool_", 5) != 0) continue;
    snprintf(link, link_room, "%s/%.60s", path, entry->d_name);
    char *text = check_load(link, NULL);
    if (text) text[strcspn(text, "\n")] = 0;
    found = text && snprintf(pool, room, "%s", text) > 0;
    free(text);
  }
  if (d) closedir(d);
  return found;
}

static unsigned copies;
static char copied[128];
/* `pool` of the directory `from`, and its files, as directory `to`. */
static void copy_state(const char *from, const char *pool, const char *to) {
  static const char *const sub[2] = {"staging", "output"};
  char path[700], name[700], new_pool[128];
  struct dirent *entry;
  check_remove(to);
  mkdir(to, 0700);
  snprintf(new_pool, sizeof new_pool, "%.46s%024x%08x", pool, (unsigned)getpid(), copies++);
  snprintf(copied, sizeof copied, "%s", new_pool);
  if (access(pool, F_OK) == 0) copy_file(pool, new_pool);
  for (int i = 0; i < 2; i++) {
    snprintf(path, sizeof path, "%s/%s", to, sub[i]);
    mkdir(path, 0700);
    snprintf(path, sizeof path, "%s/%s", from, sub[i]);
    DIR *d = opendir(path);
    while (d && (entry = readdir(d)) != NULL) {
      if (entry->d_name[0] == '.') continue;
      bool link = strncmp(entry->d_name, "pool_", 5) == 0;
      snprintf(path, sizeof path, "%s/%s/%.60s", from, sub[i], entry->d_name);
      snprintf(name, sizeof name, "%s/%s/%.60s", to, sub[i], entry->d_name);
      if (link) {
        FILE *file = fopen(name, "w");
        if (!file || fprintf(file, "%s\n", new_pool) < 0 || fclose(file) != 0) abort();
      } else {
        copy_file(path, name);
      }
    }
    if (d) closedir(d);
  }
}

static bool recover(const char *of) {
  struct ojo__core *opener = (struct ojo__core *)calloc(1, sizeof *opener); /* as ojo_recover, but silent */
  if (!opener) abort();
  opener->desc.file_mode = 0600;
  opener->desc.dir_mode = 0700;
  opener->desc.logger.log = quiet;
  opener->staging_fd = opener->output_fd = -1;
  opener->dir = strdup(of);
  bool ok = ojo__open_dirs(opener) == OJO_OK && ojo__recover_all(opener) == OJO_OK;
  close(opener->staging_fd);
  close(opener->output_fd);
  free(opener->dir);
  free(opener);
  return ok;
}

static unsigned states, bad;
static bool recorder;
/* A directory after its recovery: the union is exact. */
static void verify(const char *of, const char *what, unsigned long state) {
  static struct tally *s;
  unlink(copied); /* of a state that kept it */
  if (!s) s = tally_new();
  memset(s, 0, sizeof *s);
  tally_dir(s, of, false);
  bool ok = !s->bad_file && !s->bad_payload && !s->bad_order && !s->bad_ordinal;
  uint64_t begun = steps->lost_begun, done = steps->lost_done;
  for (uint32_t i = 1; i < FLOWS_USED; i++) {
    begun += steps->begun[i], done += steps->done[i];
    if (recorder && steps->kept[i]) ok = ok && s->next[i] >= steps->done[i] && s->next[i] <= steps->begun[i];
  }
  if (recorder) ok = ok && s->total + s->dropped >= done && s->total + s->dropped <= begun;
  else ok = ok && s->dropped >= steps->lost_done && s->dropped <= steps->lost_begun;
  for (uint32_t i = 1; i < FLOWS_USED && !recorder; i++)
    ok = ok && s->events[i] >= steps->done[i] && s->events[i] <= steps->begun[i] && s->next[i] == s->events[i];
  states++;
  if (ok || bad++ > 20) return;
  printf("  %s %lu: flow 1 %llu of %llu..%llu, flow 2 %llu of %llu..%llu, dropped %llu of %llu..%llu, unsound %llu, "
         "order %llu, ordinals %llu, batches %llu\n", what, state,
         (unsigned long long)s->events[1], (unsigned long long)steps->done[1], (unsigned long long)steps->begun[1],
         (unsigned long long)s->events[2], (unsigned long long)steps->done[2], (unsigned long long)steps->begun[2],
         (unsigned long long)s->dropped, (unsigned long long)steps->lost_done, (unsigned long long)steps->lost_begun,
         (unsigned long long)s->bad_file, (unsigned long long)s->bad_order, (unsigned long long)s->bad_ordinal,
         (unsigned long long)s->batch_next);
  if (!getenv("OJO_KILL_STEPS_FIRST")) return;
  check_remove(dir);
  check_remove(copy);
  check_remove(copy2);
  exit(1);
}

/* ---- stepping ---- */

struct watch { /* a pool's header, threads and chunk headers, as last seen */
  unsigned char *map, *seen;
  size_t bytes, from[3], length[3];
  uint64_t calls;
};
static bool watch_begin(struct watch *w, const char *pool) {
  struct stat st;
  int fd = open(pool, O_RDONLY);
  memset(w, 0, sizeof *w);
  if (fd < 0 || fstat(fd, &st) != 0) return false;
  w->bytes = (size_t)st.st_size;
  w->map = (unsigned char *)mmap(NULL, w->bytes, PROT_READ, MAP_SHARED, fd, 0);
  close(fd);
  if (w->map == MAP_FAILED) return false;
  struct ojo__pool *p = (struct ojo__pool *)(void *)w->map;
  w->length[0] = sizeof *p;
  w->from[1] = p->threads_at;
  w->length[1] = 3 * sizeof(struct ojo__thread);
  w->from[2] = p->chunks_at;
  w->length[2] = p->chunk_count * sizeof(struct ojo__chunk);
  w->seen = (unsigned char *)calloc(3, 8192);
  return w->seen && w->length[1] <= 8192 && w->length[2] <= 8192;
}
static bool watch_changed(struct watch *w) {
  bool changed = w->calls != steps->calls;
  w->calls = steps->calls;
  for (int i = 0; i < 3; i++)
    if (memcmp(w->seen + 8192 * i, w->map + w->from[i], w->length[i]) != 0) {
      memcpy(w->seen + 8192 * i, w->map + w->from[i], w->length[i]);
      changed = true;
    }
  return changed;
}
static void watch_end(struct watch *w) {
  munmap(w->map, w->bytes);
  free(w->seen);
}

/* The child goes one instruction on. 0: it goes on so; 1: it stopped itself; 2: it is gone. */
static int step(pid_t child) {
  int status;
  if (ptrace(PTRACE_SINGLESTEP, child, NULL, NULL) != 0 || waitpid(child, &status, 0) != child) return 2;
  if (!WIFSTOPPED(status)) return 2;
  return WSTOPSIG(status) == SIGSTOP;
}

/* Each copied state again, with a recoverer that is killed at each of its calls, or that fails. */
static void recover_killed(const char *pool, unsigned long state) {
  struct steps before = *steps;
  for (uint64_t n = 1;; n++) {
    int status;
    copy_state(dir, pool, copy2);
    pid_t child = fork();
    if (child == 0) {
      steps->calls = 0;
      steps->fails = 0;
      steps->kill_at = n;
      recover(copy2);
      _exit(0);
    }
    waitpid(child, &status, 0);
    *steps = before;
    steps->kill_at = 0, steps->fails = 0;
    bool ok = recover(copy2);
    *steps = before;
    verify(copy2, ok ? "recoverer killed, state * 1000 + call" : "recover failed", state * 1000 + (unsigned long)n);
    if (WIFEXITED(status)) break;
  }
  for (const char *what = "wcor"; *what; what++) {
    copy_state(dir, pool, copy2);
    fail_next(*what);
    recover(copy2);
    *steps = before;
    steps->fails = 0;
    bool ok = recover(copy2);
    *steps = before;
    verify(copy2, ok ? "recoverer failed, state * 1000 + kind" : "recover failed", state * 1000 + (unsigned char)*what);
  }
}

/* A recoverer, step by step. */
static unsigned long recover_stepped(const char *pool, unsigned long state) {
  char inner[128];
  struct steps before = *steps;
  struct watch w;
  unsigned long n = 0;
  int status;
  copy_state(dir, pool, copy2);
  snprintf(inner, sizeof inner, "%s", copied);
  if (!watch_begin(&w, inner)) return 0;
  fflush(stdout);
  pid_t child = fork();
  if (child == 0) {
    steps->kill_at = 0, steps->fails = 0;
    ptrace(PTRACE_TRACEME, 0, NULL, NULL);
    raise(SIGSTOP);
    recover(copy2);
    _exit(0);
  }
  waitpid(child, &status, 0);
  for (int end = 0; end != 2; n++) {
    end = step(child);
    if (end == 2 || !watch_changed(&w)) continue;
    struct steps now = *steps;
    steps->kill_at = 0, steps->fails = 0;
    copy_state(copy2, inner, copy);
    bool ok = recover(copy);
    verify(copy, ok ? "recoverer stepped, state * 1000000 + step" : "recover failed", state * 1000000 + n);
    *steps = now;
  }
  *steps = before;
  watch_end(&w);
  return n;
}

/* The flight recorder's victim. */
static void step_recorder(bool tiny) {
  char pool[128], link[700];
  struct watch w;
  int status;
  unsigned long taken = 0, changes = 0, before = states;
  recorder = true;
  memset(steps, 0, sizeof *steps);
  check_directory("kill_steps", dir, sizeof dir);
  snprintf(copy, sizeof copy, "%s.copy", dir);
  snprintf(copy2, sizeof copy2, "%s.copy2", dir);
  fflush(stdout);
  pid_t child = fork();
  if (child == 0) {
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (ptrace(PTRACE_TRACEME, 0, NULL, NULL) != 0) _exit(4);
    run_recorder(tiny);
  }
  waitpid(child, &status, 0);
  if (!WIFSTOPPED(status) || !pool_of(dir, pool, sizeof pool, link, sizeof link) || !watch_begin(&w, pool)) abort();
  for (int end = 0; end != 2;) {
    for (end = 0; end == 0; taken++) {
      end = step(child);
      if (end == 2 || !watch_changed(&w)) continue;
      struct steps now = *steps;
      steps->kill_at = 0, steps->fails = 0;
      copy_state(dir, pool, copy);
      bool ok = recover(copy);
      *steps = now;
      verify(copy, ok ? "recorder stepped, state" : "recover failed", ++changes);
      if (changes % 100 == 10) recover_killed(pool, changes);
    }
    if (end == 2) break;
    if (ptrace(PTRACE_CONT, child, NULL, NULL) != 0 || waitpid(child, &status, 0) != child || !WIFSTOPPED(status)) break;
    watch_changed(&w);
  }
  watch_end(&w);
  printf("kill_steps: a flight recorder: %lu steps, %lu of them change something; %lu states recovered\n", taken, changes,
         states - before);
  check(bad == 0, "%u of %u states of a flight recorder are not recovered exactly", bad, states);
  check(changes > 50, "%lu changes", changes);
  recover(dir); /* its pool is still there */
  check_remove(dir);
  check_remove(copy);
  check_remove(copy2);
}

int main(void) {
  char pool[128], link[700];
  struct watch w;
  int status;
  steps = (struct steps *)mmap(NULL, sizeof *steps, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  if (steps == MAP_FAILED) return 1;
  check_directory("kill_steps", dir, sizeof dir);
  snprintf(copy, sizeof copy, "%s.copy", dir);
  snprintf(copy2, sizeof copy2, "%s.copy2", dir);
  fflush(stdout);
  pid_t child = fork();
  if (child == 0) {
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (ptrace(PTRACE_TRACEME, 0, NULL, NULL) != 0) _exit(4);
    run_victim();
  }
  waitpid(child, &status, 0);
  if (!WIFSTOPPED(status)) {
    int code = WIFEXITED(status) ? WEXITSTATUS(status) : -1;
    if (code == 3 || code == 4) check_skip("kill_steps", code == 3 ? "no room in /dev/shm" : "ptrace is not permitted");
    else check(false, "the victim ends with %d", code);
    check_remove(dir);
    return check_end("kill_steps");
  }
  if (!pool_of(dir, pool, sizeof pool, link, sizeof link) || !watch_begin(&w, pool)) abort();
  unsigned long taken = 0, changes = 0, recoverer_steps = 0;
  unsigned long deep = 0;
  for (int end = 0; end != 2;) {
    for (end = 0; end == 0; taken++) {
      uint64_t calls = w.calls;
      end = step(child);
      if (end == 2 || !watch_changed(&w)) continue;
      changes++;
      struct steps now = *steps;
      steps->kill_at = 0, steps->fails = 0;
      copy_state(dir, pool, copy);
      bool ok = recover(copy);
      *steps = now;
      verify(copy, ok ? "victim stepped, state" : "recover failed", changes);
      if (calls != now.calls && now.calls % 12 == 0 && access(pool, F_OK) == 0) recover_killed(pool, changes);
      if (changes % 250 == 1 && deep++ < 4 && access(pool, F_OK) == 0) recoverer_steps += recover_stepped(pool, changes);
    }
    if (end == 2) break;
    if (ptrace(PTRACE_CONT, child, NULL, NULL) != 0 || waitpid(child, &status, 0) != child || !WIFSTOPPED(status)) break;
    watch_changed(&w);
  }
  watch_end(&w);
  printf("kill_steps: %lu steps, %lu of them change something; %lu of a recoverer; %u states recovered\n", taken, changes,
         recoverer_steps, states);
  check(bad == 0, "%u of %u states are not recovered exactly", bad, states);
  check(changes > 100 && states > 500, "%lu changes, %u states", changes, states);
  check_remove(dir);
  check_remove(copy);
  check_remove(copy2);
  step_recorder(false);
  step_recorder(true);
  munmap(steps, sizeof *steps);
  return check_end("kill_steps");
}
