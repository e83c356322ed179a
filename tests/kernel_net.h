/* SPDX-License-Identifier: MIT
 *
 * kernel_net.h - what the kernel tests' traffic needs: a network namespace, processes that end with the test, memory
 * that they share, sockets, and the kernel's own counters to compare with. Nothing of ojo_bpf.h. After check.h.
 */
#ifndef OJO_TESTS_KERNEL_NET_H
#define OJO_TESTS_KERNEL_NET_H

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/net_tstamp.h>
#include <linux/tcp.h> /* all of struct tcp_info; netinet/tcp.h has its first half */
#include <net/if.h>
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <time.h>

#ifndef SO_COOKIE
#define SO_COOKIE 57
#endif
#ifndef SO_RCVBUFFORCE
#define SO_RCVBUFFORCE 33
#endif
#define SIDES 2
enum { CLIENT, SERVER };
#ifndef SOL_UDP
#define SOL_UDP 17
#endif
enum { /* the kernel's TCP states, as events and TCP_INFO have them (in netinet/tcp.h, which linux/tcp.h excludes) */
       STATE_ESTABLISHED = 1,
       STATE_SYN_SENT = 2,
       STATE_TIME_WAIT = 6,
       STATE_CLOSE = 7,
       STATE_CLOSE_WAIT = 8,
       STATE_LISTEN = 10
};

static inline uint64_t now_ns(void) {
  struct timespec at;
  clock_gettime(CLOCK_MONOTONIC, &at);
  return (uint64_t)at.tv_sec * 1000000000u + (uint64_t)at.tv_nsec;
}
static inline void nap_us(unsigned us) {
  struct timespec span = {us / 1000000, (long)(us % 1000000) * 1000};
  while (nanosleep(&span, &span) && errno == EINTR) {
  }
}

/* What traffic processes can't go on from: it ends the process with a line, and the part misses its counts. */
__attribute__((format(printf, 1, 2), noreturn)) static inline void give_up(const char *format, ...) {
  char line[512];
  va_list arguments;
  va_start(arguments, format);
  int length = vsnprintf(line, sizeof line, format, arguments);
  va_end(arguments);
  dprintf(1, "traffic: %.*s: %s\n", length, line, strerror(errno)); /* a fork's stdio may hold another's lines */
  _exit(70);
}

/* Zeroed memory that forks share. */
static inline void *shared(size_t bytes) {
  void *memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED) give_up("mmap");
  return memory;
}
static inline uint32_t word_load(uint32_t *word) { return __atomic_load_n(word, __ATOMIC_ACQUIRE); }
static inline void word_store(uint32_t *word, uint32_t value) { __atomic_store_n(word, value, __ATOMIC_RELEASE); }
static inline uint32_t word_add(uint32_t *word, uint32_t value) {
  return __atomic_fetch_add(word, value, __ATOMIC_ACQ_REL);
}
/* Waits till *word >= least: barriers between processes. Half a minute is far beyond what any part takes. */
static inline void word_wait(uint32_t *word, uint32_t least) {
  for (uint64_t end = now_ns() + UINT64_C(30000000000); word_load(word) < least; nap_us(50))
    if (now_ns() > end) give_up("waited in vain for %u, have %u", least, word_load(word));
}

/* A fork that ends with its parent. Its name is what the kernel should report as command. */
static inline pid_t fork_named(const char *name) {
  fflush(stdout);
  pid_t pid = fork();
  if (pid < 0) give_up("fork");
  if (pid == 0) {
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    prctl(PR_SET_NAME, name);
    signal(SIGPIPE, SIG_IGN);
  }
  return pid;
}
static inline bool join_process(pid_t pid, const char *what) {
  int status = 0;
  while (waitpid(pid, &status, 0) < 0 && errno == EINTR) {
  }
  bool ok = WIFEXITED(status) && WEXITSTATUS(status) == 0;
  if (!ok) check(false, "%s: ended with status 0x%x", what, (unsigned)status);
  return ok;
}

static unsigned long programs_missed; /* programs that the kernel did not call, in all sessions of this process */

/* Runs in a child what changes a process for good; its checks count as ours. False if it did not come to its end.
 * The kernel does not call a program that is running on the same processor already: what a softirq does that interrupts
 * it is not told of then (and is counted as missed). That is rare, and what a test found wrong when it happened proves
 * nothing: it runs again, up to `attempts` times in all. */
static inline bool in_child(const char *name, unsigned attempts, void (*run)(void *), void *argument) {
  struct counts {
    unsigned passed, failed, skipped;
    unsigned long missed;
    bool through;
  } *counts = (struct counts *)shared(sizeof *counts);
  int status = 0;
  do {
    memset(counts, 0, sizeof *counts);
    pid_t pid = fork_named("kernel");
    if (pid == 0) {
      check__passed = check__failed = check__skipped = 0, programs_missed = 0;
      alarm(120);
      run(argument);
      fflush(stdout);
      *counts = (struct counts){check__passed, check__failed, check__skipped, programs_missed, true};
      _exit(0);
    }
    while (waitpid(pid, &status, 0) < 0 && errno == EINTR) {
    }
    if (counts->missed) printf("%s: %lu programs were not called\n", name, counts->missed);
  } while (--attempts && counts->failed && counts->missed);
  check__passed += counts->passed, check__failed += counts->failed, check__skipped += counts->skipped;
  programs_missed += counts->missed;
  bool through = counts->through;
  munmap(counts, sizeof *counts);
  return check(through, "%s did not end: status 0x%x", name, (unsigned)status);
}

/* A network namespace of this process's own, lo up. False where that is refused. */
static inline bool namespace_enter(void) {
  struct ifreq request;
  if (unshare(CLONE_NEWNET)) return false;
  int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  memset(&request, 0, sizeof request);
  memcpy(request.ifr_name, "lo", 3);
  request.ifr_flags = IFF_UP | IFF_RUNNING | IFF_LOOPBACK;
  bool ok = fd >= 0 && ioctl(fd, SIOCSIFFLAGS, &request) == 0;
  if (fd >= 0) close(fd);
  return ok;
}
static inline uint32_t namespace_inode(void) {
  struct stat status;
  return stat("/proc/self/ns/net", &status) ? 0 : (uint32_t)status.st_ino;
}
__attribute__((format(printf, 1, 2))) static inline bool shell(const char *format, ...) {
  char command[1024];
  va_list arguments;
  va_start(arguments, format);
  vsnprintf(command, sizeof command, format, arguments);
  va_end(arguments);
  fflush(stdout);
  return system(command) == 0;
}

/* A counter of this namespace's /proc/net/snmp: the value below the name. UINT64_MAX: not there. */
static inline uint64_t snmp(const char *group, const char *name) {
  char names[4096], values[4096], prefix[32];
  uint64_t found = UINT64_MAX;
  FILE *file = fopen("/proc/net/snmp", "r");
  snprintf(prefix, sizeof prefix, "%s:", group);
  while (file && fgets(names, sizeof names, file) && fgets(values, sizeof values, file)) {
    char *n, *v, *name_at, *value_at;
    if (strncmp(names, prefix, strlen(prefix))) continue;
    for (n = strtok_r(names, " \n", &name_at), v = strtok_r(values, " \n", &value_at); n && v;
         n = strtok_r(NULL, " \n", &name_at), v = strtok_r(NULL, " \n", &value_at))
      if (!strcmp(n, name)) found = strtoull(v, NULL, 10);
  }
  if (file) fclose(file);
  return found;
}

/* The same of /proc/net/snmp6: a name and a value on each line. */
static inline uint64_t snmp6(const char *name) {
  char line[256], found[128];
  unsigned long long value = 0;
  FILE *file = fopen("/proc/net/snmp6", "r");
  while (file && fgets(line, sizeof line, file))
    if (sscanf(line, "%127s %llu", found, &value) == 2 && !strcmp(found, name)) break;
  if (file) fclose(file);
  return value;
}

/* TCP sockets of this namespace that may still send: all but listeners (0A), TIME_WAIT (06), closed ones (07). */
static inline unsigned tcp_busy(void) {
  static const char *const tables[] = {"/proc/net/tcp", "/proc/net/tcp6"};
  unsigned busy = 0;
  char line[512];
  for (int i = 0; i < 2; i++) {
    FILE *file = fopen(tables[i], "r");
    while (file && fgets(line, sizeof line, file)) {
      unsigned state;
      if (sscanf(line, " %*u: %*[0-9A-Fa-f:] %*[0-9A-Fa-f:] %x", &state) == 1)
        busy += state != STATE_LISTEN && state != STATE_TIME_WAIT && state != STATE_CLOSE;
    }
    if (file) fclose(file);
  }
  return busy;
}
static inline bool tcp_wait_idle(unsigned seconds) {
  uint64_t end = now_ns() + seconds * UINT64_C(1000000000);
  while (tcp_busy())
    if (now_ns() > end) return false;
    else nap_us(5000);
  return true;
}

/* ---- sockets ------------------------------------------------------------------------------------ */

typedef union address {
  struct sockaddr any;
  struct sockaddr_in v4;
  struct sockaddr_in6 v6;
} address;

static inline address loopback(int family, uint16_t port) {
  address a;
  memset(&a, 0, sizeof a);
  a.any.sa_family = (sa_family_t)family;
  if (family == AF_INET) {
    a.v4.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    a.v4.sin_port = htons(port);
  } else {
    a.v6.sin6_addr = in6addr_loopback;
    a.v6.sin6_port = htons(port);
  }
  return a;
}
static inline socklen_t address_length(const address *a) {
  return a->any.sa_family == AF_INET ? sizeof a->v4 : sizeof a->v6;
}
static inline uint16_t address_port(const address *a) {
  return ntohs(a->any.sa_family == AF_INET ? a->v4.sin_port : a->v6.sin6_port);
}
static inline uint8_t address_raw(const address *a, uint8_t raw[16]) { /* as events have it; its bytes: 4 or 16 */
  memset(raw, 0, 16);
  if (a->any.sa_family == AF_INET) return memcpy(raw, &a->v4.sin_addr, 4), 4;
  return memcpy(raw, &a->v6.sin6_addr, 16), 16;
}
static inline address name_of(int fd, bool peer) {
  address a;
  socklen_t length = sizeof a;
  memset(&a, 0, sizeof a);
  if (peer ? getpeername(fd, &a.any, &length) : getsockname(fd, &a.any, &length)) a.any.sa_family = AF_INET;
  return a;
}
static inline uint64_t cookie_of(int fd) {
  uint64_t cookie = 0;
  socklen_t length = sizeof cookie;
  getsockopt(fd, SOL_SOCKET, SO_COOKIE, &cookie, &length);
  return cookie;
}
static inline struct tcp_info info_of(int fd) {
  struct tcp_info info;
  socklen_t length = sizeof info;
  memset(&info, 0, sizeof info);
  getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &length);
  return info;
}
static inline void limit_waits(int fd, unsigned seconds) { /* so that no failure hangs */
  struct timeval limit = {seconds, 0};
  setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
  setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit);
}
/* A bound socket; a listening one if of TCP. port 0: any, returned. */
static inline int bound(int family, int type, uint16_t *port) {
  address a = loopback(family, *port);
  int one = 1, fd = socket(family, type | SOCK_CLOEXEC, 0);
  if (fd < 0) give_up("socket");
  if (type == SOCK_STREAM) setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
  if (bind(fd, &a.any, address_length(&a))) give_up("bind to port %u", *port);
  if (type == SOCK_STREAM && listen(fd, 4096)) give_up("listen");
  a = name_of(fd, false);
  *port = address_port(&a);
  return fd;
}
static inline int connected(int family, int type, uint16_t port) {
  address a = loopback(family, port);
  int fd = socket(family, type | SOCK_CLOEXEC, 0);
  if (fd < 0) give_up("socket");
  limit_waits(fd, 25);
  if (connect(fd, &a.any, address_length(&a))) give_up("connect to port %u", port);
  return fd;
}
/* Two connected TCP sockets, [CLIENT] and [SERVER], through a listener of their own. */
static inline void tcp_pair(int family, int pair[SIDES]) {
  uint16_t port = 0;
  int listener = bound(family, SOCK_STREAM, &port);
  pair[CLIENT] = connected(family, SOCK_STREAM, port);
  pair[SERVER] = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
  if (pair[SERVER] < 0) give_up("accept");
  limit_waits(pair[SERVER], 25);
  close(listener);
}
static inline void send_bytes(int fd, size_t bytes) { /* in sends of at most 16 KiB */
  static const char zeros[16384];
  while (bytes) {
    ssize_t sent = send(fd, zeros, bytes < sizeof zeros ? bytes : sizeof zeros, MSG_NOSIGNAL);
    if (sent < 0 && errno == EINTR) continue;
    if (sent <= 0) give_up("send");
    bytes -= (size_t)sent;
  }
}
static inline void receive_bytes(int fd, size_t bytes) {
  char buffer[65536];
  while (bytes) {
    ssize_t got = recv(fd, buffer, bytes < sizeof buffer ? bytes : sizeof buffer, 0);
    if (got < 0 && errno == EINTR) continue; /* another thread's system() lets SIGCHLD come here */
    if (got <= 0) give_up("recv gave %zd", got);
    bytes -= (size_t)got;
  }
}
static inline void reset_on_close(int fd) {
  struct linger linger = {1, 0};
  setsockopt(fd, SOL_SOCKET, SO_LINGER, &linger, sizeof linger);
}
#endif
