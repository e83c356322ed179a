/* SPDX-License-Identifier: MIT
 *
 * kernel_api.h - the parts of kernel.c about the interface itself: privileges, wrong use, polling, many connections,
 * and what is left after close.
 */
#ifndef OJO_TESTS_KERNEL_API_H
#define OJO_TESTS_KERNEL_API_H

#include <bpf/bpf.h>
#include <grp.h>
#include <linux/capability.h>
#include <sys/epoll.h>
#include <sys/syscall.h>

#ifndef CAP_PERFMON
#define CAP_PERFMON 38
#define CAP_BPF 39
#endif

/* ---- capabilities ----------------------------------------------------------------------------------- */

enum { NOBODY = 65534 };
struct privilege {
  const char *name;
  uint32_t uid;
  uint64_t capabilities;
  bool enough;
};
static bool keep_privilege(const struct privilege *p) {
  struct __user_cap_header_struct header = {_LINUX_CAPABILITY_VERSION_3, 0};
  struct __user_cap_data_struct data[2];
  prctl(PR_SET_KEEPCAPS, 1);
  if (p->uid && (setgroups(0, NULL) || setresgid(p->uid, p->uid, p->uid) || setresuid(p->uid, p->uid, p->uid)))
    return false;
  memset(data, 0, sizeof data);
  for (int i = 0; i < 2; i++) data[i].effective = data[i].permitted = (uint32_t)(p->capabilities >> 32 * i);
  return syscall(SYS_capset, &header, data) == 0;
}
/* TCP as ever; UDP by socket: without CAP_NET_ADMIN no cgroup_skb, which knows the peers. */
static void capable(ojo_bpf *b, const char *name) {
  struct exchange e;
  ojo_bpf_probe_info info[32];
  address to = loopback(AF_INET, 7001);
  struct rows rows = {.netns = namespace_inode()};
  exchange_run(&e, &to);
  for (int i = 0; i < 20; i++) ojo_bpf_poll(b, 0);
  check(ojo_bpf_connections(b, rows_add, &rows) == OJO_OK, "%s: ojo_bpf_connections", name);
  for (int kind = 0; kind < 2; kind++)
    for (int side = 0; side < SIDES; side++) {
      const ojo_bpf_connection *row = rows_find(&rows, e.cookies[kind][side]);
      static const uint8_t any[16];
      check(row && (side ? row->bytes_in : row->bytes_out) == FILTER_BYTES && row->pid == (uint32_t)getpid(),
            "%s: %s %s: %s, %" PRIu64 " bytes out, %" PRIu64 " in, pid %u", name, kind ? "UDP" : "TCP",
            side ? "server" : "client", row ? "a row" : "no row", row ? row->bytes_out : 0, row ? row->bytes_in : 0,
            row ? row->pid : 0);
      if (kind && row)
        check(!row->remote_port && !memcmp(row->remote, any, 16), "%s: UDP by socket shows a remote port %u", name,
              row->remote_port);
    }
  size_t count = ojo_bpf_query_probes(b, info, 32);
  for (size_t i = 0; i < count && i < 32; i++)
    if (info[i].probe & OJO_BPF_UDP) printf("%s: %s: %s: %s\n", name, info[i].name, info[i].how, info[i].why);
  rows_free(&rows);
}
static void privileged_run(void *argument) {
  const struct privilege *p = (const struct privilege *)argument;
  size_t bytes = 0;
  char *image = check_load(kernel_object, &bytes); /* nobody may not come as far as the file */
  ojo_bpf *b = NULL;
  if (!check(image && keep_privilege(p), "%s: capset", p->name)) return;
  ojo_result result = ojo_bpf_open(&b, &(ojo_bpf_desc){.object = image, .object_bytes = bytes, .list = true});
  check(p->enough ? result == OJO_OK && b : result == OJO_ERR_PERMISSION && !b, "%s: ojo_bpf_open: %s", p->name,
        ojo_result_string(result));
  if (b) capable(b, p->name);
  check(ojo_bpf_close(b) == OJO_OK, "%s: ojo_bpf_close", p->name);
  free(image);
}
static void part_capabilities(void) {
  const uint64_t needed = UINT64_C(1) << CAP_BPF | UINT64_C(1) << CAP_PERFMON;
  static struct privilege cases[] = {
    {"capabilities: root with CAP_BPF and CAP_PERFMON", 0, 0, true},
    {"capabilities: nobody with CAP_BPF and CAP_PERFMON", NOBODY, 0, true},
    {"capabilities: root without any", 0, 0, false},
    {"capabilities: nobody", NOBODY, 0, false},
  };
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    if (cases[i].enough) cases[i].capabilities = needed;
    in_child(cases[i].name, 3, privileged_run, &cases[i]);
  }
}

/* ---- many: 10,000 connections, both ends ------------------------------------------------------------ */

enum { MANY = 10000, MANY_OPEN_MS = 1000, MANY_LIST_MS = 50 };
struct many {
  uint32_t listening, connected, accepted, end, closed;
  uint16_t port;
};
static void many_process(struct many *many, int side) {
  struct rlimit limit;
  int *fds = (int *)calloc(MANY, sizeof *fds);
  if (!fds || getrlimit(RLIMIT_NOFILE, &limit)) give_up("getrlimit");
  limit.rlim_cur = limit.rlim_max;
  setrlimit(RLIMIT_NOFILE, &limit);
  if (side == SERVER) {
    int listener = bound(AF_INET, SOCK_STREAM, &many->port);
    word_store(&many->listening, 1);
    for (int i = 0; i < MANY; i++) {
      if ((fds[i] = accept(listener, NULL, NULL)) < 0) give_up("accept %d", i);
      receive_bytes(fds[i], 1);
      word_add(&many->accepted, 1);
    }
    close(listener);
  } else {
    word_wait(&many->listening, 1);
    for (int i = 0; i < MANY; i++) {
      fds[i] = connected(AF_INET, SOCK_STREAM, many->port);
      send_bytes(fds[i], 1);
      word_add(&many->connected, 1);
    }
  }
  word_wait(&many->end, 1);
  for (int i = 0; i < MANY; i++) close(fds[i]);
  word_add(&many->closed, 1);
  _exit(0);
}
static uint64_t resident_bytes(void) {
  unsigned long all = 0, resident = 0;
  FILE *file = fopen("/proc/self/statm", "r");
  if (file && fscanf(file, "%lu %lu", &all, &resident) != 2) resident = 0;
  if (file) fclose(file);
  return (uint64_t)resident * (uint64_t)sysconf(_SC_PAGESIZE);
}
static double cpu_ms(void) { /* of the process: also of its poller, whoever of them does the work */
  struct rusage usage;
  getrusage(RUSAGE_SELF, &usage);
  return (double)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) * 1e3 +
         (double)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) / 1e3;
}
/* The memory of the BPF maps that this process holds, as their fdinfo tells. */
static uint64_t map_bytes(void) {
  uint64_t sum = 0;
  char path[320], line[256];
  struct dirent *entry;
  DIR *directory = opendir("/proc/self/fdinfo");
  while (directory && (entry = readdir(directory)) != NULL) {
    unsigned long long bytes = 0, value;
    bool map = false;
    snprintf(path, sizeof path, "/proc/self/fdinfo/%s", entry->d_name);
    FILE *file = fopen(path, "r");
    while (file && fgets(line, sizeof line, file)) {
      if (sscanf(line, "memlock: %llu", &value) == 1) bytes = value;
      map |= !strncmp(line, "map_type:", 9);
    }
    if (file) fclose(file);
    if (map) sum += bytes;
  }
  if (directory) closedir(directory);
  return sum;
}
static void many_rows(const struct rows *rows, const struct many *many, const pid_t *processes, bool closed) {
  unsigned right = 0, owned = 0;
  for (size_t i = 0; i < rows->count; i++) {
    const ojo_bpf_connection *row = &rows->row[i];
    right += row->partial && row->closed == closed && (closed || row->state == STATE_ESTABLISHED);
    owned += row->pid == (uint32_t)processes[row->local_port == many->port ? SERVER : CLIENT];
  }
  check(rows->count == 2 * MANY && right == 2 * MANY && owned == 2 * MANY,
        "many: %zu %s rows, %u right, %u with their owner, of %d", rows->count, closed ? "closing" : "live", right,
        owned, 2 * MANY);
}
static void many_list(struct session *s, const struct many *many, const pid_t *processes) {
  double spent[5], least = 1e9, most = 0;
  for (int i = 0; i < 5; i++) {
    double before = cpu_ms();
    struct rows live = session_live(s);
    spent[i] = cpu_ms() - before;
    if (spent[i] < least) least = spent[i];
    if (spent[i] > most) most = spent[i];
    if (i == 0) many_rows(&live, many, processes, false);
    rows_free(&live);
    nap_us(20000);
  }
  /* The best of five: what others did to the caches and the clock is not what it costs. */
  check(least < MANY_LIST_MS, "many: a listing took %.1f ms of CPU at best, at most %.1f", least, most);
  printf("note: 10,000 connections, both ends: a listing takes %.1f to %.1f ms of CPU\n", least, most);
}
static void part_many(void) {
  struct many *many = (struct many *)shared(sizeof *many);
  struct session s;
  struct rlimit limit;
  pid_t processes[SIDES];
  if (!getrlimit(RLIMIT_NOFILE, &limit) && limit.rlim_max < MANY + 100) {
    check_skip("many", "a process may not have 10,100 descriptors");
    return;
  }
  for (int side = 0; side < SIDES; side++)
    if ((processes[side] = fork_named("kt-many")) == 0) many_process(many, side);
  word_wait(&many->connected, MANY);
  word_wait(&many->accepted, MANY);
  session_tracer(&s, "many");
  uint64_t resident = resident_bytes(), start = now_ns();
  double before = cpu_ms();
  if (!session_probes(&s, &(ojo_bpf_desc){.list = true, .thread = true}, "many")) return;
  uint64_t opened = now_ns() - start;
  double spent = cpu_ms() - before;
  /* The time on a machine that is busy with something else says little: then the CPU's. */
  check(opened < MANY_OPEN_MS * UINT64_C(1000000) || spent < MANY_OPEN_MS / 2.0,
        "many: ojo_bpf_open took %.0f ms, %.0f of CPU", (double)opened / 1e6, spent);
  printf("note: 10,000 connections, both ends: ojo_bpf_open takes %.0f ms, %.0f ms of CPU\n", (double)opened / 1e6,
         spent);
  many_list(&s, many, processes);
  printf("note: 10,000 connections, both ends: %.1f MiB more resident, %.1f MiB of BPF maps\n",
         (double)(resident_bytes() - resident) / 1048576, (double)map_bytes() / 1048576);
  word_store(&many->end, 1);
  for (int side = 0; side < SIDES; side++) join_process(processes[side], "many");
  tcp_wait_idle(10);
  session_list(&s);
  many_rows(&s.closed, many, processes, true);
  session_close(&s);
  struct told told = told_read(s.dir, NULL, NULL);
  unsigned finished = 0, twice = 0;
  for (size_t i = 0; i < told.count; i++)
    if (told.flows[i].connections && told.flows[i].connection.netns == s.closed.netns)
      finished += told.flows[i].finished == 1, twice += told.flows[i].finished > 1;
  check(finished == 2 * MANY && !twice && told.dropped == told.missed,
        "many: %u of %d closes in the trace, %u twice, %" PRIu64 " events dropped", finished, 2 * MANY, twice,
        told.dropped);
  told_free(&told);
  session_remove(&s);
}

/* ---- api -------------------------------------------------------------------------------------------- */

static unsigned api_lines; /* logged */
static void api_log(void *user, const char *line) {
  (void)user;
  api_lines++;
  printf("api: logged: %s\n", line);
}
static bool api_stop(void *user, const ojo_bpf_connection *c) {
  (void)c;
  return ++*(unsigned *)user < 2;
}
static void api_null(void) {
  ojo_bpf_probe_info info;
  ojo_bpf *b = (ojo_bpf *)(uintptr_t)8;
  unsigned rows = 0;
  check(ojo_bpf_open(NULL, NULL) == OJO_ERR_ARGUMENT, "api: open without a place for the result");
  check(ojo_bpf_open(&b, NULL) == OJO_OK && !b, "api: a NULL desc is off");
  b = (ojo_bpf *)(uintptr_t)8;
  check(ojo_bpf_open(&b, &(ojo_bpf_desc){.object_path = kernel_object}) == OJO_OK && !b,
        "api: neither tracer nor list is off");
  check(ojo_bpf_poll(NULL, 0) == 0 && ojo_bpf_close(NULL) == OJO_OK && ojo_bpf_query_probes(NULL, &info, 1) == 0 &&
            ojo_bpf_connections(NULL, api_stop, &rows) == OJO_OK && rows == 0 &&
            ojo_bpf_query_stats(NULL).events == 0 && ojo_bpf_query_desc(NULL).probes == 0 && ojo_bpf_fd(NULL) == -1,
        "api: NULL is accepted by every call");
}
static void api_wrong(const char *what, const ojo_bpf_desc *desc, ojo_result wanted) {
  ojo_bpf *b = (ojo_bpf *)(uintptr_t)8;
  ojo_bpf_desc d = *desc;
  d.list = true;
  d.logger.log = api_log;
  if (!d.object_path && !d.object) d.object_path = kernel_object;
  api_lines = 0;
  ojo_result result = ojo_bpf_open(&b, &d);
  check(result == wanted && !b && api_lines > 0, "api: %s: %s, %u lines logged", what, ojo_result_string(result),
        api_lines);
  ojo_bpf_close(result == OJO_OK ? b : NULL);
}
static void api_wrong_descs(void) {
  static const char junk[4096] = "no object file";
  ojo_bpf_prefix five = {{0}, 5, 8}, long_bits = {{0}, 4, 33};
  api_wrong("no such object file", &(ojo_bpf_desc){.object_path = "/nowhere/ojo_bpf.o"}, OJO_ERR_NOT_FOUND);
  api_wrong("an object file that is none", &(ojo_bpf_desc){.object_path = "/proc/self/status"}, OJO_ERR_FORMAT);
  api_wrong("an object file of another machine", &(ojo_bpf_desc){.object_path = "/proc/self/exe"}, OJO_ERR_FORMAT);
  api_wrong("an image that is none", &(ojo_bpf_desc){.object = junk, .object_bytes = sizeof junk}, OJO_ERR_FORMAT);
  api_wrong("an address of 5 bytes", &(ojo_bpf_desc){.addresses = &five, .address_count = 1}, OJO_ERR_ARGUMENT);
  api_wrong("a prefix of 33 bits", &(ojo_bpf_desc){.addresses = &long_bits, .address_count = 1}, OJO_ERR_ARGUMENT);
  api_wrong("ports that are missing", &(ojo_bpf_desc){.port_count = 1}, OJO_ERR_ARGUMENT);
  api_wrong("probes that there are not", &(ojo_bpf_desc){.probes = OJO_BPF_ALL + 1}, OJO_ERR_ARGUMENT);
  api_wrong("a directory that is no cgroup", &(ojo_bpf_desc){.cgroup = "/proc/self"}, OJO_ERR_ARGUMENT);
  api_wrong("no such cgroup", &(ojo_bpf_desc){.cgroup = "/sys/fs/cgroup/nowhere"}, OJO_ERR_ARGUMENT);
}
/* A header whose structs are laid out otherwise, though of the same size, is another version. */
static void api_layout(void) {
  static const char *const edits[] = {
      "s/  uint32_t one_in;/  uint32_t self;/;s/  uint32_t self;   /  uint32_t one_in;   /",
      "s/uint32_t rtt_us, cwnd, cwnd_segments;/uint32_t cwnd, rtt_us, cwnd_segments;/"};
  for (size_t i = 0; i < 2; i++) {
    char path[320], name[64];
    snprintf(path, sizeof path, "%s.%d", kernel_object, (int)getpid());
    if (!shell("sed '/ojo__bpf_.* {/,/^}/{%s}' ojo_bpf.h | clang -target bpf -x c -O2 -g "
               "-I/usr/include/$(gcc -dumpmachine) -c - -o %s 2>/dev/null", edits[i], path)) {
      check_skip("api: another layout", "clang is not here, or it is not run from the source's directory");
      return;
    }
    snprintf(name, sizeof name, "another layout (%zu)", i);
    api_wrong(name, &(ojo_bpf_desc){.object_path = path}, OJO_ERR_FORMAT);
    unlink(path);
  }
}
/* More have closed than a listing keeps: they are counted, and the logger may call us. */
static ojo_bpf *api_logging;
static unsigned api_full_lines;
static void api_log_query(void *user, const char *line) {
  (void)line;
  *(uint64_t *)user = ojo_bpf_query_stats(api_logging).unlisted;
  api_full_lines++;
}
static void api_full(void) {
  struct session s;
  struct exchange e;
  uint64_t unlisted = 0;
  uint16_t port = 7001;
  address to = loopback(AF_INET, port);
  const ojo_bpf_desc desc = {.list = true, .ports = &port, .port_count = 1, .logger = {api_log_query, &unlisted}};
  if (!session_open(&s, &desc, "api")) return;
  api_logging = s.b;
  for (unsigned i = 1; i <= 2; i++) {
    s.b->closed_count = OJO__BPF_CLOSED_MAX;
    exchange_run(&e, &to);
    for (int k = 0; k < 20; k++) ojo_bpf_poll(s.b, 0), nap_us(1000);
    s.b->closed_count = 0;
    session_list(&s);
    check(api_full_lines == i && unlisted >= i, "api: %u lines logged, %" PRIu64 " closes in no listing",
          api_full_lines, unlisted);
  }
  session_close(&s);
  session_remove(&s);
}
static void api_poll(void) { /* nobody uses this port: nothing comes */
  struct session s;
  uint16_t port = 9;
  if (!session_open(&s, &(ojo_bpf_desc){.ports = &port, .port_count = 1}, "api")) return;
  while (ojo_bpf_poll(s.b, 0) > 0) {
  }
  uint64_t start = now_ns();
  int polled = ojo_bpf_poll(s.b, 100);
  uint64_t took = now_ns() - start;
  check(polled == 0 && took > 90000000 && took < 400000000, "api: a poll of 100 ms: %d after %" PRIu64 " us",
        polled, took / 1000);
  start = now_ns();
  check(ojo_bpf_poll(s.b, 0) == 0 && now_ns() - start < 50000000, "api: a poll of 0 ms waits");
  session_close(&s);
  session_remove(&s);
}
/* Traffic on one port, told of by the descriptor within a moment; at rest it must not spin. */
static void api_epoll(void) {
  struct session s;
  struct exchange e;
  struct epoll_event event = {.events = EPOLLIN}, out;
  uint16_t port = 7001;
  address to = loopback(AF_INET, port);
  if (!session_open(&s, &(ojo_bpf_desc){.ports = &port, .port_count = 1}, "api")) return;
  int epoll = epoll_create1(EPOLL_CLOEXEC), fd = ojo_bpf_fd(s.b), events = 0;
  check(fd >= 0 && epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event) == 0, "api: the descriptor %d for epoll", fd);
  exchange_run(&e, &to);
  for (uint64_t end = now_ns() + 300000000; now_ns() < end;)
    if (epoll_wait(epoll, &out, 1, 50) == 1) {
      int polled = ojo_bpf_poll(s.b, 0);
      if (polled < 0) break;
      events += polled;
    }
  check(events >= 8, "api: %d events by epoll",
        events); /* at least a send and a receive, four connections, two FINISHED */
  unsigned wakes = 0;
  for (uint64_t end = now_ns() + 200000000; now_ns() < end;)
    if (epoll_wait(epoll, &out, 1, 50) == 1) wakes++, ojo_bpf_poll(s.b, 0);
  check(wakes <= 60, "api: %u wake-ups in 0.2 s at rest", wakes);
  close(epoll);
  session_close(&s);
  struct told told = told_read(s.dir, NULL, NULL);
  check(told_socket(&told, e.cookies[0][CLIENT]) && told_socket(&told, e.cookies[1][SERVER]),
        "api: the exchange by epoll");
  told_free(&told);
  session_remove(&s);
}
/* Two at once, of a file and of an image, one with a thread, see the same; closed under traffic. */
static void api_twice(void) {
  struct session a, b;
  struct exchange e;
  size_t bytes = 0;
  unsigned rows = 0;
  char *image = check_load(kernel_object, &bytes);
  address to = loopback(AF_INET, 7001);
  session_tracer(&b, "api");
  bool ok =
      session_open(&a, &(ojo_bpf_desc){.list = true}, "api") &&
      check(ojo_bpf_open(
                &b.b,
                &(ojo_bpf_desc){
                    .tracer = b.t, .object = image, .object_bytes = bytes, .thread = true, .list = true}) == OJO_OK,
            "api: open of an image, beside another");
  free(image);
  if (!ok) return;
  exchange_run(&e, &to);
  check(ojo_bpf_connections(a.b, api_stop, &rows) == OJO_OK && rows == 2,
        "api: a listing that stops after 2 rows has %u", rows);
  check(ojo_bpf_connections(a.b, NULL, NULL) == OJO_ERR_ARGUMENT, "api: a listing without a function");
  session_close(&a);
  exchange_run(&e, &to);
  session_close(&b);
  struct told one = told_read(a.dir, NULL, NULL), two = told_read(b.dir, NULL, NULL);
  check(!told_socket(&one, e.cookies[0][CLIENT]) && told_socket(&two, e.cookies[0][CLIENT]) &&
            told_socket(&two, e.cookies[1][SERVER]),
        "api: what came after the first one's close is in the second one's trace alone");
  told_free(&one);
  told_free(&two);
  session_remove(&a);
  session_remove(&b);
}
static void *api_traffic(void *argument) {
  struct exchange e;
  address to = loopback(AF_INET, 7002);
  while (!word_load((uint32_t *)argument)) exchange_run(&e, &to);
  return NULL;
}
static void api_close_busy(void) {
  pthread_t thread;
  uint32_t stop = 0;
  if (pthread_create(&thread, NULL, api_traffic, &stop)) give_up("pthread_create");
  for (int i = 0; i < 6; i++) {
    struct session s;
    if (!session_open(&s, &(ojo_bpf_desc){.thread = i & 1, .list = i & 2, .probes = OJO_BPF_ALL}, "api")) break;
    nap_us(15000);
    session_close(&s);
    session_remove(&s);
  }
  word_store(&stop, 1);
  pthread_join(thread, NULL);
}
static void part_api(void) {
  api_null();
  api_wrong_descs();
  api_layout();
  api_full();
  api_poll();
  api_epoll();
  api_twice();
  api_close_busy();
}

/* ---- leaks: what the kernel still has after close ---------------------------------------------------- */

enum { LEAK_IDS = 256 };
struct ids { /* of programs, maps and links that this process's descriptors stand for */
  uint32_t id[3][LEAK_IDS], count[3];
};
static const char *const id_kinds[] = {"prog_id", "map_id", "link_id"};
static unsigned descriptors(struct ids *ids) {
  char path[320], line[256], format[32];
  unsigned count = 0, value;
  struct dirent *entry;
  DIR *directory = opendir("/proc/self/fdinfo");
  while (directory && (entry = readdir(directory)) != NULL) {
    if (entry->d_name[0] == '.') continue;
    count++;
    snprintf(path, sizeof path, "/proc/self/fdinfo/%s", entry->d_name);
    FILE *file = ids ? fopen(path, "r") : NULL;
    while (file && fgets(line, sizeof line, file))
      for (int kind = 0; kind < 3; kind++) {
        snprintf(format, sizeof format, "%s: %%u", id_kinds[kind]);
        if (sscanf(line, format, &value) == 1 && ids->count[kind] < LEAK_IDS)
          ids->id[kind][ids->count[kind]++] = value;
      }
    if (file) fclose(file);
  }
  if (directory) closedir(directory);
  return count;
}
static unsigned ids_alive(const struct ids *ids) {
  unsigned alive = 0;
  for (int kind = 0; kind < 3; kind++)
    for (uint32_t i = 0; i < ids->count[kind]; i++) {
      uint32_t id = ids->id[kind][i];
      int fd = kind == 0   ? bpf_prog_get_fd_by_id(id)
               : kind == 1 ? bpf_map_get_fd_by_id(id)
                           : bpf_link_get_fd_by_id(id);
      if (fd >= 0) alive++, close(fd);
    }
  return alive;
}
static void leak_round(const ojo_bpf_desc *desc, bool first) {
  static struct ids ids;
  struct session s;
  struct exchange e;
  address to = loopback(AF_INET, 7001);
  unsigned before = descriptors(NULL);
  memset(&ids, 0, sizeof ids);
  if (!session_open(&s, desc, "leaks")) return;
  descriptors(&ids);
  check(ids.count[0] > 0 && ids.count[1] > 0 && ids.count[2] > 0 && ids_alive(&ids) > 2,
        "leaks: %u programs, %u maps, %u links", ids.count[0], ids.count[1], ids.count[2]);
  if (first) printf("leaks: %u programs, %u maps, %u links while open\n", ids.count[0], ids.count[1], ids.count[2]);
  exchange_run(&e, &to);
  session_close(&s);
  session_remove(&s);
  unsigned alive = ids_alive(&ids);
  for (int i = 0; alive && i < 100; i++, alive = ids_alive(&ids))
    nap_us(20000); /* the kernel frees them when nobody runs them */
  unsigned after = descriptors(NULL);
  check(!alive, "leaks: %u programs, maps or links are left", alive);
  check(after == before, "leaks: %u descriptors before, %u after", before, after);
}
static void part_leaks(void) {
  const uint16_t port = 7001;
  const ojo_bpf_prefix net = prefix_of(0, 8);
  const ojo_bpf_desc descs[] = {
      {.probes = OJO_BPF_ALL, .list = true, .thread = true},
      {.probes = OJO_BPF_TCP_IO},
      {.probes = OJO_BPF_UDP},
      {.ports = &port, .port_count = 1, .addresses = &net, .address_count = 1, .one_in = 2}};
  leak_round(&descs[0], true); /* what libbpf and libc keep for good is open after this */
  unsigned first = descriptors(NULL);
  for (size_t i = 0; i < sizeof descs / sizeof *descs; i++) leak_round(&descs[i], false);
  ojo_bpf *b;
  check(
      ojo_bpf_open(&b, &(ojo_bpf_desc){.list = true, .object_path = "/proc/self/exe", .logger = {api_log, NULL}}) !=
              OJO_OK &&
          !b,
      "leaks: a failed open");
  check(descriptors(NULL) == first, "leaks: %u descriptors, after failed opens %u", first, descriptors(NULL));
}
#endif
