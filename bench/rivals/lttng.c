/* SPDX-License-Identifier: MIT
 *
 * lttng.c - LTTng-UST beside ojo, in a session of its own
 *
 *   lttng DIR             case "rivals": 1, 2 and 4 threads
 *   lttng DIR COMMAND...  runs a command in such a session
 *
 * A session daemon is started, and ended with all that it started. Nothing is shared with one that may be running:
 * LTTNG_HOME is below DIR; and as root, for whom LTTng uses /var/run/lttng only, that directory is a private one in a
 * mount namespace. The library looks for the daemon before main(): so the daemon is started first, and then this very
 * program again. What is missing here leaves the rival out: a line on stderr, no rows, exit code 0.
 */
#if defined(__has_include)
#if __has_include(<lttng/tracepoint.h>)
#define HAVE_LTTNG 1
#endif
#endif

#ifndef HAVE_LTTNG
#include <stdio.h>
int main(void) {
  fprintf(stderr, "lttng-ust: left out: <lttng/tracepoint.h> was missing when this was compiled\n");
  return 0;
}
#else
#include "harness.h"
#include "lttng.h"

#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/wait.h>

#define SUBBUFFERS "--num-subbuf=4 --subbuf-size=16M"

static int left_out(const char *why) {
  fprintf(stderr, "lttng-ust: left out: %s\n", why);
  return 0;
}

/* A shell command, quietly. True: it succeeded. */
static bool shell(const char *format, ...) {
  char command[8192];
  va_list arguments;
  va_start(arguments, format);
  int length = vsnprintf(command, sizeof command, format, arguments);
  va_end(arguments);
  return length < (int)sizeof command && system(command) == 0;
}

/* ---- the session ------------------------------------------------------------------------------ */

/* /var/run is empty, for this process and its children only. */
static bool private_run_directory(void) {
  return unshare(CLONE_NEWNS) == 0 && mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) == 0 &&
         mount("none", "/var/run/", "tmpfs", 0, "mode=755") == 0;
}

/* The daemon's pid; 0: it can't be started here. It ends when we do, however we end. */
static pid_t start_daemon(const char *home) {
  char log[4200];
  sigset_t usr1;
  snprintf(log, sizeof log, "%s/log", home);
  sigemptyset(&usr1);
  sigaddset(&usr1, SIGUSR1);
  sigprocmask(SIG_BLOCK, &usr1, NULL); /* the daemon says so when it is ready */
  pid_t us = getpid(), pid = fork();
  if (pid < 0) return 0;
  if (pid == 0) {
    int fd = open(log, O_WRONLY | O_CREAT | O_TRUNC, 0600);
    sigprocmask(SIG_UNBLOCK, &usr1, NULL);
    prctl(PR_SET_PDEATHSIG, SIGTERM);
    if (getppid() != us || fd < 0 || dup2(fd, 1) < 0 || dup2(fd, 2) < 0) _exit(127);
    execlp("lttng-sessiond", "lttng-sessiond", "--sig-parent", "--no-kernel", (char *)NULL);
    _exit(127);
  }
  const struct timespec step = {0, 500000000};
  bool ready = false;
  for (int i = 0; i < 20 && !ready; i++) { /* 10 s */
    ready = sigtimedwait(&usr1, NULL, &step) == SIGUSR1;
    if (!ready && waitpid(pid, NULL, WNOHANG) == pid) return 0;
  }
  sigprocmask(SIG_UNBLOCK, &usr1, NULL);
  return pid; /* not ready: the session's commands fail, and say so */
}

/* SIGTERM lets it end its consumer daemons; 10 s later it is killed. */
static void end_daemon(pid_t pid) {
  const struct timespec pause = {0, 20000000};
  kill(pid, SIGTERM);
  for (int i = 0; i < 500; i++) {
    if (waitpid(pid, NULL, WNOHANG) != 0) return;
    nanosleep(&pause, NULL);
  }
  kill(pid, SIGKILL);
  waitpid(pid, NULL, 0);
}

static bool start_session(const char *output) {
  return shell("{ lttng --no-sessiond create ojo_bench --output='%s/trace' && "
               "lttng --no-sessiond enable-channel -u events --session=ojo_bench --discard --buffers-uid %s && "
               "lttng --no-sessiond enable-event -u ojo_bench:event --session=ojo_bench --channel=events && "
               "lttng --no-sessiond start ojo_bench; } > '%s/commands' 2>&1",
               output, SUBBUFFERS, output);
}

/* Events that found no room in a sub-buffer, as the daemon counts them; -1: it does not say. */
static long long discarded(const char *output) {
  char path[4200], line[256];
  long long count = -1, one;
  snprintf(path, sizeof path, "%s/list", output);
  if (!shell("lttng --no-sessiond list ojo_bench > '%s' 2>&1", path)) return -1;
  FILE *f = fopen(path, "r");
  while (f && fgets(line, sizeof line, f)) {
    const char *at = strstr(line, "Discarded events:");
    if (at && sscanf(at, "Discarded events: %lld", &one) == 1) count = (count < 0 ? 0 : count) + one;
  }
  if (f) fclose(f);
  return count;
}

/* ---- the measurement, in the session ---------------------------------------------------------- */

RIVAL_LOOP(loop_lttng, lttng_record(time, 1, OJO_PACKET_SENT, i))

static const char *session_dir;

/* The consumer daemon writes sub-buffers as they fill: it has written most of them after so long. */
static void lttng_rest(void) {
  const struct timespec pause = {0, 30000000};
  nanosleep(&pause, NULL);
}

static int compare(int threads) {
  uint64_t events = bench_scale(400000, 400000, 50000) / (uint64_t)threads;
  struct rival_case cases[4] = {rival_case_ojo(false, threads), rival_case_ojo(true, threads),
                                rival_case_of("lttng-ust", loop_lttng, lttng_rest, NULL, events, "ojo_record")};
  long long before = discarded(session_dir);
  rival_measure(cases, 3, threads, (int)bench_scale(15, 7, 1));
  long long lost = discarded(session_dir) - before;
  cases[2].dropped = (uint64_t)lost;
  /* The same turns against the other of ojo's two: LTTng has no call that takes a time. */
  cases[3] = cases[2];
  cases[3].subject = "lttng-ust (it takes no time)";
  cases[3].against = "ojo_record_at";
  rival_rows("rivals", cases, 4, threads, false, "lttng-ust");
  return lost < 0;
}

static int measure(const char *dir) {
  static const int threads[] = {1, 2, 4};
  int failed = 0;
  rival_ojo_open(dir);
  for (size_t i = 0; i < sizeof threads / sizeof *threads; i++) failed |= compare(threads[i]);
  ojo_close(rival_ojo);
  return failed;
}

/* ---- main ------------------------------------------------------------------------------------- */

static int in_session(int count, char **argument) {
  pid_t child;
  int status = 0;
  if (count == 2) return measure(session_dir);
  child = fork();
  if (child == 0) {
    /* A child of the command that records would have no threads of the library's without this. */
    setenv("LD_PRELOAD", "liblttng-ust-fork.so.1", 1);
    execvp(argument[2], argument + 2);
    perror(argument[2]);
    _exit(127);
  }
  if (child < 0 || waitpid(child, &status, 0) != child) return 1;
  fprintf(stderr, "lttng-ust: discarded %lld\n", discarded(session_dir));
  return !WIFEXITED(status) || WEXITSTATUS(status);
}

int main(int count, char **argument) {
  static char dir[4096];
  const char *pid = getenv("OJO_BENCH_LTTNG_PID");
  if (count < 2) {
    fprintf(stderr, "usage: lttng DIR [COMMAND...]\n");
    return 2;
  }
  session_dir = dir;
  if (!pid) { /* the first of us starts the session */
    char number[32];
    if (!shell("command -v lttng > /dev/null && command -v lttng-sessiond > /dev/null"))
      return left_out("lttng-tools is not installed");
    scratch_make(dir, sizeof dir, argument[1], "lttng");
    char *home = realpath(dir, NULL);
    if (!home || setenv("LTTNG_HOME", home, 1)) return 1;
    bool alone = geteuid() != 0 || private_run_directory();
    pid_t daemon = alone ? start_daemon(home) : 0;
    bool ready = daemon && start_session(home);
    if (ready) {
      snprintf(number, sizeof number, "%d", (int)daemon);
      setenv("OJO_BENCH_LTTNG_PID", number, 1);
      execv("/proc/self/exe", argument);
    }
    if (daemon) end_daemon(daemon);
    if (daemon && !ready) shell("cat '%s/log' '%s/commands' >&2", home, home);
    scratch_remove(dir);
    free(home);
    return left_out(!alone ? "no mount namespace for a root daemon of its own"
                    : daemon ? "no session" : "the session daemon does not start");
  }
  snprintf(dir, sizeof dir, "%s/lttng", argument[1]);
  int result = in_session(count, argument);
  shell("lttng --no-sessiond destroy ojo_bench > /dev/null 2>&1");
  end_daemon((pid_t)strtol(pid, NULL, 10));
  scratch_remove(dir);
  return result;
}
#endif
