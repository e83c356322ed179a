/* SPDX-License-Identifier: MIT
 *
 * kernel_select.h - the parts of kernel.c about what is told of: filters, single probes, sockets that were there
 * before, and rings that overflow.
 */
#ifndef OJO_TESTS_KERNEL_SELECT_H
#define OJO_TESTS_KERNEL_SELECT_H

/* ---- filters: both ends of TCP and UDP exchanges by two processes, to six addresses and two ports ------- */

static const struct {
  const char *text;
  int family;
} filter_addresses[] = {{"127.0.0.1", AF_INET}, {"127.0.1.1", AF_INET}, {"127.0.1.200", AF_INET},
                        {"::1", AF_INET6}, {"fd00:5::1", AF_INET6}, {"fd00:6::1", AF_INET6}};
static const uint16_t filter_ports[] = {7001, 7002};
enum { FILTER_ADDRESSES = 6, FILTER_PORTS = 2, FILTER_PROCESSES = 2, FILTER_BYTES = 3000 };

struct exchange {
  uint64_t cookies[2][SIDES]; /* [0: TCP, 1: UDP] */
};
struct filter_load {
  uint32_t rounds, done[FILTER_PROCESSES]; /* a round of exchanges is under way; how many are done */
  uint32_t pids[FILTER_PROCESSES];
  struct exchange e[FILTER_PROCESSES][FILTER_ADDRESSES][FILTER_PORTS];
};
static address filter_address(int index, uint16_t port) {
  address a = loopback(filter_addresses[index].family, port);
  if (a.any.sa_family == AF_INET) inet_pton(AF_INET, filter_addresses[index].text, &a.v4.sin_addr);
  else inet_pton(AF_INET6, filter_addresses[index].text, &a.v6.sin6_addr);
  return a;
}
/* One end binds the address, the other connects to it from wherever the kernel thinks fit; so both have it. */
static void exchange_run(struct exchange *e, const address *to) {
  for (int kind = 0; kind < 2; kind++) {
    int one = 1, type = (kind ? SOCK_DGRAM : SOCK_STREAM) | SOCK_CLOEXEC;
    int server = socket(to->any.sa_family, type, 0), fd = socket(to->any.sa_family, type, 0), peer = server;
    setsockopt(server, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (bind(server, &to->any, address_length(to))) give_up("bind");
    if (!kind && listen(server, 5)) give_up("listen");
    if (connect(fd, &to->any, address_length(to))) give_up("connect");
    if (!kind) peer = accept4(server, NULL, NULL, SOCK_CLOEXEC);
    limit_waits(peer, 20);
    e->cookies[kind][CLIENT] = cookie_of(fd);
    e->cookies[kind][SERVER] = cookie_of(peer);
    send_bytes(fd, FILTER_BYTES);
    receive_bytes(peer, FILTER_BYTES);
    if (!kind) reset_on_close(fd); /* no TIME_WAIT: the ports are used again */
    close(fd);
    nap_us(100);
    close(peer);
    if (!kind) close(server);
  }
}
static void filter_process(struct filter_load *load, int index, const char *cgroup) {
  char path[600];
  snprintf(path, sizeof path, "%s/cgroup.procs", cgroup);
  int fd = index ? open(path, O_WRONLY | O_CLOEXEC) : -1; /* the second one is in a cgroup of its own */
  if (fd >= 0 && write(fd, "0", 1) != 1) give_up("%s", path);
  load->pids[index] = (uint32_t)getpid();
  for (uint32_t round = 1;; round++) {
    word_wait(&load->rounds,
              round * FILTER_PROCESSES + (uint32_t)index); /* one process at a time: they share ports */
    for (int a = 0; a < FILTER_ADDRESSES; a++)
      for (int p = 0; p < FILTER_PORTS; p++) {
        address to = filter_address(a, filter_ports[p]);
        exchange_run(&load->e[index][a][p], &to);
      }
    word_store(&load->done[index], round);
  }
}
struct filter_case {
  const char *name;
  ojo_bpf_desc desc;
  bool (*wanted)(int process, int address, int port);
};
static bool any_exchange(int process, int a, int p) { return (void)process, (void)a, (void)p, true; }
static bool of_second(int process, int a, int p) { return (void)a, (void)p, process == 1; }
static bool to_second_port(int process, int a, int p) { return (void)process, (void)a, p == 1; }
static bool to_127_0_1(int process, int a, int p) { return (void)process, (void)p, a == 1 || a == 2; }
static bool to_127_0_1_1(int process, int a, int p) { return (void)process, (void)p, a == 1; }
static bool to_fd00_5(int process, int a, int p) { return (void)process, (void)p, a == 4; }
static bool to_two_prefixes(int process, int a, int p) {
  return (void)process, (void)p, a != 3;
} /* 127.0.0.1 connects */
static bool of_all_kinds(int process, int a, int p) { return process == 1 && p == 0 && (a == 1 || a == 2); }

static ojo_bpf_prefix prefix_of(int index, uint8_t bits) {
  ojo_bpf_prefix prefix;
  address a = filter_address(index, 0);
  memset(&prefix, 0, sizeof prefix);
  prefix.address_bytes = address_raw(&a, prefix.address);
  prefix.bits = bits;
  return prefix;
}
static void filter_check(const struct filter_case *c, const struct filter_load *load, struct told *told) {
  struct tally tally = {0, 0};
  char text[96];
  for (int process = 0; process < FILTER_PROCESSES; process++)
    for (int a = 0; a < FILTER_ADDRESSES; a++)
      for (int p = 0; p < FILTER_PORTS; p++)
        for (int kind = 0; kind < 2; kind++)
          for (int side = 0; side < SIDES; side++) {
            const struct seen *f = told_socket(told, load->e[process][a][p].cookies[kind][side]);
            bool wanted = c->wanted(process, a, p);
            uint64_t bytes = !f ? 0 : kind ? seen_sum(f, OJO_KERNEL_UDP_SEND) + seen_sum(f, OJO_KERNEL_UDP_RECEIVE)
                                           : seen_sum(f, OJO_KERNEL_TCP_SEND) + seen_sum(f, OJO_KERNEL_TCP_RECEIVE);
            expect(&tally,
                   bytes == (wanted ? FILTER_BYTES : 0) && (f != NULL) == wanted &&
                       (!f || kind || f->finished == 1),
                   "%s: %s to %s port %u by process %d, %s: %" PRIu64 " bytes%s", c->name, kind ? "UDP" : "TCP",
                   filter_addresses[a].text, filter_ports[p], process, side ? "server" : "client", bytes,
                   wanted ? "" : ", should not be there");
          }
  snprintf(text, sizeof text, "filters: %s", c->name);
  tally_end(&tally, FILTER_PROCESSES * FILTER_ADDRESSES * FILTER_PORTS * 2 * SIDES, text);
}
static void filter_run(struct filter_case *c, struct filter_load *load, uint32_t round) {
  struct session s;
  if (!session_open(&s, &c->desc, c->name)) return;
  for (int process = 0; process < FILTER_PROCESSES; process++) {
    word_store(&load->rounds, round * FILTER_PROCESSES + (uint32_t)process);
    word_wait(&load->done[process], round);
  }
  while (ojo_bpf_poll(s.b, 0) > 0) {
  }
  session_close(&s);
  struct told told = told_read(s.dir, NULL, NULL);
  filter_check(c, load, &told);
  told_free(&told);
  session_remove(&s);
}
/* One connection in n, by hash of the cookie: each of n keeps both what it sends and its close. */
static void filter_one_in(void) {
  struct session s;
  enum { PAIRS = 300, ONE_IN = 4 };
  if (!session_open(&s, &(ojo_bpf_desc){.one_in = ONE_IN}, "filters")) return;
  uint16_t port = 0;
  int listener = bound(AF_INET, SOCK_STREAM, &port);
  for (int i = 0; i < PAIRS; i++) {
    int fd = connected(AF_INET, SOCK_STREAM, port), peer = accept(listener, NULL, NULL);
    send_bytes(fd, 500);
    receive_bytes(peer, 500);
    close(fd);
    close(peer);
  }
  close(listener);
  tcp_wait_idle(5);
  session_close(&s);
  struct told told = told_read(s.dir, NULL, NULL);
  unsigned kept = 0, whole = 0;
  for (size_t i = 0; i < told.count; i++) {
    const struct seen *f = &told.flows[i];
    if (!f->connections || f->connection.netns != s.closed.netns) continue;
    kept++;
    whole += f->finished == 1 && seen_sum(f, OJO_KERNEL_TCP_SEND) + seen_sum(f, OJO_KERNEL_TCP_RECEIVE) == 500;
  }
  /* 600 ends, 150 expected, deviation 10.6: five of them on either side */
  check(kept > 97 && kept < 203 && whole == kept, "filters: one in %d kept %u of %d ends, %u whole", ONE_IN, kept,
        2 * PAIRS, whole);
  printf("filters: one in %d kept %u of %d ends\n", ONE_IN, kept, 2 * PAIRS);
  told_free(&told);
  session_remove(&s);
}
/* Both ends of a connection in different processes: only the chosen processes' ends are told of. */
static void filter_ends(void) {
  struct tcp_load *load = tcp_load_new(36, test_seed("filters"));
  struct tally tally = {0, 0};
  struct session s;
  tcp_load_start(load);
  uint32_t pids[2] = {(uint32_t)load->processes[CLIENT * 2 + BY_THREAD],
                      (uint32_t)load->processes[SERVER * 2 + BY_THREAD]};
  if (!session_open(&s, &(ojo_bpf_desc){.probes = OJO_BPF_TCP, .pids = pids, .pid_count = 2, .thread = true},
                    "filters"))
    return;
  tcp_load_go(load);
  tcp_load_end(load);
  tcp_wait_idle(5);
  session_close(&s);
  struct told told = told_read(s.dir, NULL, NULL);
  for (uint32_t i = 0; i < load->count; i++)
    for (int side = 0; side < SIDES; side++) {
      const struct tcp_connection *c = &load->c[i];
      const struct seen *f = told_socket(&told, c->ends[side].cookie);
      bool wanted = c->by[side] == BY_THREAD;
      expect(&tally,
             wanted ? f && f->finished == 1 && f->totals.bytes_out == c->ends[side].out &&
                          f->totals.bytes_in == c->ends[side].in
                    : !f || !seen_events(f, OJO_KERNEL_TCP_SEND),
             "%s, %s by pid %u: %s", way_texts[c->way], side ? "server" : "client", c->ends[side].pid,
             wanted ? "not told of, or wrong" : "should not be there");
    }
  tally_end(&tally, 72, "filters: ends in different processes");
  told_free(&told);
  session_remove(&s);
}
/* A cgroup2 directory of the test's own; false where there is none to be had. */
static bool cgroup_make(char *path, size_t bytes) {
  char line[1024], where[512];
  bool found = false;
  FILE *file = fopen("/proc/self/mountinfo", "r");
  while (!found && file && fgets(line, sizeof line, file))
    found = strstr(line, " - cgroup2 ") && sscanf(line, "%*s %*s %*s %*s %511s", where) == 1;
  if (file) fclose(file);
  snprintf(path, bytes, "%s/ojo_test_%d", where, (int)getpid());
  return found && mkdir(path, 0755) == 0;
}
static void part_filters(void) {
  static char cgroup[560];
  struct filter_load *load = (struct filter_load *)shared(sizeof *load);
  pid_t processes[FILTER_PROCESSES];
  bool grouped = cgroup_make(cgroup, sizeof cgroup);
  if (!grouped) check_skip("filters: cgroup", "no cgroup2 directory can be made");
  if (!shell("ip -6 address add fd00:5::1/64 dev lo nodad && ip -6 address add fd00:6::1/64 dev lo nodad")) {
    check__skipped++;
    puts("skip: filters: ip is missing");
    return;
  }
  for (int i = 0; i < FILTER_PROCESSES; i++)
    if ((processes[i] = fork_named("kt-filter")) == 0) filter_process(load, i, grouped ? cgroup : "/nowhere");
  for (int i = 0; i < FILTER_PROCESSES; i++) word_wait(&load->pids[i], 1);
  uint16_t second = filter_ports[1], first = filter_ports[0];
  ojo_bpf_prefix net = prefix_of(2, 24), host = prefix_of(1, 32), net6 = prefix_of(4, 32);
  ojo_bpf_prefix two[2] = {prefix_of(4, 29), prefix_of(0, 32)}; /* fd00:0::/29 holds fd00:5:: and fd00:6:: */
  struct filter_case cases[] = {
      {"none", {.pid_count = 0}, any_exchange},
      {"a pid", {.pids = &load->pids[1], .pid_count = 1}, of_second},
      {"a port", {.ports = &second, .port_count = 1}, to_second_port},
      {"a prefix of 24 bits", {.addresses = &net, .address_count = 1}, to_127_0_1},
      {"an IPv4 address", {.addresses = &host, .address_count = 1}, to_127_0_1_1},
      {"a prefix of 32 bits, IPv6", {.addresses = &net6, .address_count = 1}, to_fd00_5},
      {"two prefixes", {.addresses = two, .address_count = 2}, to_two_prefixes},
      {"pid, port and prefix",
       {.pids = &load->pids[1],
        .pid_count = 1,
        .ports = &first,
        .port_count = 1,
        .addresses = &net,
        .address_count = 1},
       of_all_kinds},
      {"a cgroup", {.cgroup = cgroup}, of_second},
  };
  size_t count = sizeof cases / sizeof *cases - !grouped;
  for (size_t i = 0; i < count; i++) filter_run(&cases[i], load, (uint32_t)i + 1);
  for (int i = 0; i < FILTER_PROCESSES; i++) {
    kill(processes[i], SIGKILL);
    waitpid(processes[i], NULL, 0);
  }
  if (grouped) check(rmdir(cgroup) == 0, "filters: rmdir %s", cgroup);
  filter_one_in();
  filter_ends();
}

/* ---- existing: sockets older than the probes -------------------------------------------------------- */

struct old_socket {
  uint64_t cookie, out, in; /* moved since the probes are there */
  uint32_t pid;
  uint8_t protocol;
};
enum { OLD_PAIRS = 4, OLD_BEFORE = 50000 }; /* TCP v4, v6, UDP v4, v6 */
struct old_load {
  uint32_t step, at; /* what it shall do, has done: 1 made, 2 moved, 3 closed */
  struct old_socket s[OLD_PAIRS][SIDES];
};
static void old_process(struct old_load *load) {
  int pairs[OLD_PAIRS][SIDES];
  for (int i = 0; i < OLD_PAIRS; i++) {
    int family = i & 1 ? AF_INET6 : AF_INET;
    uint16_t port = 0;
    if (i < 2) {
      tcp_pair(family, pairs[i]);
    } else {
      pairs[i][SERVER] = bound(family, SOCK_DGRAM, &port);
      pairs[i][CLIENT] = connected(family, SOCK_DGRAM, port);
    }
    send_bytes(pairs[i][CLIENT], OLD_BEFORE);
    receive_bytes(pairs[i][SERVER], OLD_BEFORE);
    for (int side = 0; side < SIDES; side++) {
      load->s[i][side].cookie = cookie_of(pairs[i][side]);
      load->s[i][side].pid = (uint32_t)getpid();
      load->s[i][side].protocol = i < 2 ? 6 : 17;
    }
  }
  word_store(&load->at, 1);
  word_wait(&load->step, 2);
  for (int i = 0; i < OLD_PAIRS; i++) {
    uint64_t bytes = 1000u + (uint64_t)i;
    send_bytes(pairs[i][CLIENT], bytes);
    receive_bytes(pairs[i][SERVER], bytes);
    load->s[i][CLIENT].out = load->s[i][SERVER].in = bytes;
  }
  word_store(&load->at, 2);
  word_wait(&load->step, 3);
  for (int i = 0; i < OLD_PAIRS; i++)
    for (int side = 0; side < SIDES; side++) {
      close(pairs[i][side]);
      nap_us(2000);
    }
  word_store(&load->at, 3);
  _exit(0);
}
static void old_check(const struct rows *rows, const struct old_load *load, bool moved, const char *when) {
  struct tally found = {0, 0}, owners = {0, 0}, counts = {0, 0};
  for (int i = 0; i < OLD_PAIRS; i++)
    for (int side = 0; side < SIDES; side++) {
      const struct old_socket *o = &load->s[i][side];
      const ojo_bpf_connection *row = rows_find(rows, o->cookie);
      const char *kind = o->protocol == 6 ? "TCP" : "UDP";
      if (o->protocol == 17 && !moved && !row) continue; /* without traffic it has no peer to show */
      if (!expect(&found, row && row->partial && row->protocol == o->protocol, "%s, %s, %s: %s", when, kind,
                  side ? "server" : "client", row ? "not partial" : "no row"))
        continue;
      expect(&owners, row->pid == o->pid && !strcmp(row->command, "kt-old"), "%s, %s, %s: pid %u %s, is %u", when,
             kind, side ? "server" : "client", row->pid, row->command, o->pid);
      expect(&counts, row->bytes_out == (moved ? o->out : 0) && row->bytes_in == (moved ? o->in : 0),
             "%s, %s, %s: %" PRIu64 " out, %" PRIu64 " in; since then %" PRIu64 ", %" PRIu64, when, kind,
             side ? "server" : "client", row->bytes_out, row->bytes_in, moved ? o->out : 0, moved ? o->in : 0);
    }
  unsigned least = moved ? 8 : 4;
  tally_end(&found, least, "existing: found and partial");
  tally_end(&owners, least, "existing: owners");
  tally_end(&counts, least, "existing: bytes since first sight");
}
static void part_existing(void) {
  struct old_load *load = (struct old_load *)shared(sizeof *load);
  struct session s;
  pid_t pid = fork_named("kt-old");
  if (!pid) old_process(load);
  word_wait(&load->at, 1);
  if (!session_open(&s, &(ojo_bpf_desc){.thread = true, .list = true, .udp_timeout_ms = 600}, "existing")) return;
  struct rows live = session_live(&s);
  old_check(&live, load, false, "at once");
  rows_free(&live);
  word_store(&load->step, 2);
  word_wait(&load->at, 2);
  live = session_live(&s);
  old_check(&live, load, true, "after traffic");
  rows_free(&live);
  word_store(&load->step, 3);
  join_process(pid, "existing");
  for (uint64_t end = now_ns() + UINT64_C(3000000000); s.closed.count < 2 * OLD_PAIRS && now_ns() < end;
       nap_us(50000))
    session_list(&s);
  old_check(&s.closed, load, true, "closed");
  session_close(&s);
  struct told told = told_read(s.dir, NULL, NULL);
  struct tally tally = {0, 0};
  for (int i = 0; i < OLD_PAIRS; i++)
    for (int side = 0; side < SIDES; side++) {
      const struct old_socket *o = &load->s[i][side];
      const struct seen *f = told_socket(&told, o->cookie);
      expect(&tally,
             f && f->connection.flags & OJO_KERNEL_PARTIAL && f->connection.pid == o->pid && f->finished == 1 &&
                 !strcmp(f->connection.command, "kt-old") && f->totals.bytes_out == o->out &&
                 f->totals.bytes_in == o->in,
             "%s, %s: flags %u, pid %u, finished %u times, %" PRIu64 " out, %" PRIu64 " in", i < 2 ? "TCP" : "UDP",
             side ? "server" : "client", f ? f->connection.flags : 0, f ? f->connection.pid : 0,
             f ? f->finished : 0, f ? f->totals.bytes_out : 0, f ? f->totals.bytes_in : 0);
    }
  tally_end(&tally, 2 * OLD_PAIRS, "existing: in the trace");
  told_free(&told);
  session_remove(&s);
}

/* ---- odd: sockets that are used in unusual ways ------------------------------------------------------- */

struct odd { /* a socket and what should be told of it */
  const char *name;
  uint64_t cookie, out, in;
  unsigned finished, established;
};
enum { ODD_MAPPED_CLIENT, ODD_MAPPED_SERVER, ODD_REFUSED, ODD_TWICE, ODD_INHERITED, ODD_STAMPED, ODD_REPAIRED,
       ODD_COUNT };

static void odd_mapped(struct odd *client, struct odd *server) {
  struct sockaddr_in6 any = {.sin6_family = AF_INET6, .sin6_addr = in6addr_any};
  int zero = 0, listener = socket(AF_INET6, SOCK_STREAM | SOCK_CLOEXEC, 0);
  setsockopt(listener, IPPROTO_IPV6, IPV6_V6ONLY, &zero, sizeof zero);
  if (bind(listener, (struct sockaddr *)&any, sizeof any) || listen(listener, 5)) give_up("listen");
  address name = name_of(listener, false);
  int fd = connected(AF_INET, SOCK_STREAM, address_port(&name)), peer = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
  *client = (struct odd){"IPv4 to an IPv6 socket", cookie_of(fd), 700, 0, 1, 1};
  *server = (struct odd){"IPv4 on an IPv6 socket", cookie_of(peer), 0, 700, 1, 1};
  send_bytes(fd, 700);
  receive_bytes(peer, 700);
  close(fd);
  nap_us(1000);
  close(peer);
  close(listener);
}
static void odd_refused(struct odd *o) {
  uint16_t port = 0;
  int fd = bound(AF_INET, SOCK_STREAM, &port);
  close(fd); /* a port where nobody listens */
  address to = loopback(AF_INET, port);
  fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  *o = (struct odd){"refused", cookie_of(fd), 0, 0, 1, 0};
  check(connect(fd, &to.any, address_length(&to)) < 0 && errno == ECONNREFUSED, "odd: the connection is not refused");
  close(fd);
}
/* A socket that is disconnected and connects again: the kernel counts anew, under the same cookie. */
static void odd_twice(struct odd *o) {
  int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  *o = (struct odd){"connected twice", cookie_of(fd), 600, 0, 2, 2};
  for (unsigned i = 1; i <= 2; i++) {
    struct sockaddr none = {.sa_family = AF_UNSPEC};
    uint16_t port = 0;
    int listener = bound(AF_INET, SOCK_STREAM, &port);
    address to = loopback(AF_INET, port);
    if (connect(fd, &to.any, address_length(&to))) give_up("connect");
    int peer = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
    send_bytes(fd, 200 * i);
    receive_bytes(peer, 200 * i);
    if (i == 1 && connect(fd, &none, sizeof none)) give_up("disconnect");
    if (i == 2) close(fd);
    nap_us(1000);
    close(peer);
    close(listener);
  }
}
static void odd_inherited(struct odd *o) {
  int pair[SIDES];
  tcp_pair(AF_INET, pair);
  *o = (struct odd){"inherited by a fork", cookie_of(pair[CLIENT]), 900, 0, 1, 1};
  send_bytes(pair[CLIENT], 300);
  pid_t pid = fork_named("kt-heir");
  if (pid == 0) {
    send_bytes(pair[CLIENT], 600);
    _exit(0);
  }
  join_process(pid, "odd");
  receive_bytes(pair[SERVER], 900);
  close(pair[CLIENT]);
  nap_us(1000);
  close(pair[SERVER]);
}
/* Time stamps of what was sent, which are received with MSG_ERRQUEUE: no data. */
static void odd_stamped(struct odd *o) {
  char bytes[256];
  struct iovec part = {bytes, sizeof bytes};
  struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1};
  int pair[SIDES], flags = SOF_TIMESTAMPING_TX_SOFTWARE | SOF_TIMESTAMPING_SOFTWARE;
  ssize_t got = -1;
  tcp_pair(AF_INET, pair);
  *o = (struct odd){"with time stamps", cookie_of(pair[CLIENT]), 100, 0, 1, 1};
  setsockopt(pair[CLIENT], SOL_SOCKET, SO_TIMESTAMPING, &flags, sizeof flags);
  send_bytes(pair[CLIENT], 100);
  receive_bytes(pair[SERVER], 100);
  for (int i = 0; i < 100 && got < 0; i++, nap_us(1000)) got = recvmsg(pair[CLIENT], &message, MSG_ERRQUEUE);
  check(got > 0, "odd: no time stamp came");
  close(pair[CLIENT]);
  nap_us(1000);
  close(pair[SERVER]);
}
/* TCP_REPAIR: a socket that goes on with another one's connection, and sends no SYN. */
static void odd_repair(int fd, int queue, uint32_t *sequence, bool set) {
  socklen_t length = sizeof *sequence;
  if (setsockopt(fd, IPPROTO_TCP, TCP_REPAIR_QUEUE, &queue, sizeof queue) ||
      (set ? setsockopt(fd, IPPROTO_TCP, TCP_QUEUE_SEQ, sequence, length)
           : getsockopt(fd, IPPROTO_TCP, TCP_QUEUE_SEQ, sequence, &length)))
    give_up("TCP_QUEUE_SEQ");
}
static void odd_repaired(struct odd *o) {
  int pair[SIDES], on = 1, off = 0;
  uint32_t in, out;
  struct tcp_repair_window window;
  socklen_t length = sizeof window;
  tcp_pair(AF_INET, pair);
  address here = name_of(pair[CLIENT], false), to = name_of(pair[CLIENT], true);
  if (setsockopt(pair[CLIENT], IPPROTO_TCP, TCP_REPAIR, &on, sizeof on)) give_up("TCP_REPAIR");
  odd_repair(pair[CLIENT], TCP_SEND_QUEUE, &out, false);
  odd_repair(pair[CLIENT], TCP_RECV_QUEUE, &in, false);
  if (getsockopt(pair[CLIENT], IPPROTO_TCP, TCP_REPAIR_WINDOW, &window, &length)) give_up("TCP_REPAIR_WINDOW");
  close(pair[CLIENT]);
  int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
  if (setsockopt(fd, IPPROTO_TCP, TCP_REPAIR, &on, sizeof on) || bind(fd, &here.any, address_length(&here)))
    give_up("TCP_REPAIR");
  odd_repair(fd, TCP_SEND_QUEUE, &out, true);
  odd_repair(fd, TCP_RECV_QUEUE, &in, true);
  if (connect(fd, &to.any, address_length(&to))) give_up("connect");
  setsockopt(fd, IPPROTO_TCP, TCP_REPAIR_WINDOW, &window, length);
  setsockopt(fd, IPPROTO_TCP, TCP_REPAIR, &off, sizeof off);
  *o = (struct odd){"repaired", cookie_of(fd), 300, 0, 1, 1}; /* less than its window, which has no scale */
  send_bytes(fd, 300);
  receive_bytes(pair[SERVER], 300);
  close(fd);
  nap_us(1000);
  close(pair[SERVER]);
}
/* A raw socket of UDP sees datagrams that are others'. */
static void odd_raw(struct session *s) {
  uint16_t port = 0;
  int raw = socket(AF_INET, SOCK_RAW | SOCK_CLOEXEC, IPPROTO_UDP), receiver = bound(AF_INET, SOCK_DGRAM, &port);
  int sender = connected(AF_INET, SOCK_DGRAM, port);
  if (raw < 0) give_up("a raw socket");
  for (int i = 0; i < 10; i++) send_bytes(sender, 10);
  struct rows live = session_live(s);
  const ojo_bpf_connection *row = rows_find(&live, cookie_of(receiver));
  check(row && row->packets_in == 10 && !rows_find(&live, cookie_of(raw)), "odd: a raw socket is told of as UDP's");
  rows_free(&live);
  close(raw);
  close(sender);
  close(receiver);
}
static void odd_check(struct told *told, const struct rows *rows, const struct odd *o) {
  uint64_t out = 0, in = 0, sent = 0, received = 0, row_out = 0;
  unsigned finished = 0, established = 0, closed = 0, right = 0, flows = 0;
  address here = loopback(AF_INET, 0);
  uint8_t raw[16];
  address_raw(&here, raw);
  for (size_t i = 0; i < told->count; i++) {
    const struct seen *f = &told->flows[i];
    if (!f->connections || f->connection.cookie != o->cookie) continue;
    flows++;
    finished += f->finished, established += f->established;
    sent += seen_sum(f, OJO_KERNEL_TCP_SEND);
    received += seen_sum(f, OJO_KERNEL_TCP_RECEIVE);
    out += f->totals_sum.bytes_out, in += f->totals_sum.bytes_in;
    right += f->connection.pid == (uint32_t)getpid() && f->connection.address_bytes == 4 &&
             !memcmp(f->connection.remote, raw, 16) && (!o->established || !memcmp(f->connection.local, raw, 16));
  }
  for (size_t i = 0; i < rows->count; i++)
    if (rows->row[i].cookie == o->cookie) closed++, row_out += rows->row[i].bytes_out;
  check(
      finished == o->finished && closed == o->finished && established == o->established && right == flows && flows,
      "odd: %s: finished %u times, %u closing rows, established %u times, %u of %u flows with addresses and owner",
      o->name, finished, closed, established, right, flows);
  check(out == o->out && in == o->in && sent == o->out && received == o->in && row_out == o->out,
        "odd: %s: FINISHED %" PRIu64 " out, %" PRIu64 " in, SEND %" PRIu64 ", RECEIVE %" PRIu64 ", rows %" PRIu64
        "; moved %" PRIu64 ", %" PRIu64,
        o->name, out, in, sent, received, row_out, o->out, o->in);
}
static void part_odd(void) {
  struct odd odd[ODD_COUNT];
  struct session s;
  if (!session_open(&s, &(ojo_bpf_desc){.list = true, .thread = true}, "odd")) return;
  odd_mapped(&odd[ODD_MAPPED_CLIENT], &odd[ODD_MAPPED_SERVER]);
  odd_refused(&odd[ODD_REFUSED]);
  odd_twice(&odd[ODD_TWICE]);
  odd_inherited(&odd[ODD_INHERITED]);
  odd_stamped(&odd[ODD_STAMPED]);
  odd_repaired(&odd[ODD_REPAIRED]);
  odd_raw(&s);
  tcp_wait_idle(5);
  session_list(&s);
  session_close(&s);
  struct told told = told_read(s.dir, NULL, NULL);
  for (int i = 0; i < ODD_COUNT; i++) odd_check(&told, &s.closed, &odd[i]);
  told_free(&told);
  session_remove(&s);
}

/* ---- probes: a line for each, and each alone ---------------------------------------------------------- */

static const struct {
  uint32_t probe;
  unsigned types[8]; /* which events it makes */
} probe_types[OJO_BPF_PROBE_COUNT] = {
  {OJO_BPF_TCP_STATE, {OJO_KERNEL_TCP_STATE}},
  {OJO_BPF_TCP_IO, {OJO_KERNEL_TCP_SEND, OJO_KERNEL_TCP_RECEIVE}},
  {OJO_BPF_TCP_RETRANSMIT, {OJO_KERNEL_TCP_RETRANSMIT}},
  {OJO_BPF_TCP_METRICS, {OJO_KERNEL_TCP_RTT, OJO_KERNEL_TCP_CWND, OJO_KERNEL_TCP_SSTHRESH, OJO_KERNEL_TCP_IN_FLIGHT,
                         OJO_KERNEL_TCP_SEND_WINDOW, OJO_KERNEL_TCP_RECEIVE_WINDOW}},
  {OJO_BPF_TCP_CONGESTION, {OJO_KERNEL_TCP_CONGESTION_STATE}},
  {OJO_BPF_TCP_RESET, {OJO_KERNEL_TCP_RESET_SENT, OJO_KERNEL_TCP_RESET_RECEIVED}},
  {OJO_BPF_UDP_IO, {OJO_KERNEL_UDP_SEND, OJO_KERNEL_UDP_RECEIVE}},
  {OJO_BPF_UDP_DROP, {OJO_KERNEL_UDP_DROP}},
  {OJO_BPF_SCHEDULER, {OJO_KERNEL_OFF_CPU, OJO_KERNEL_ON_CPU, OJO_KERNEL_WAKEUP}},
};
/* Everything that makes events, for each probe at least one: sends, loss (retransmits, another congestion state), a
 * reset, datagrams, and some that are dropped. */
static void *probe_receive(void *argument) {
  receive_bytes(*(int *)argument, 300000);
  return NULL;
}
static void probe_traffic(void) {
  pthread_t thread;
  int pair[SIDES];
  tcp_pair(AF_INET, pair);
  if (pthread_create(&thread, NULL, probe_receive, &pair[SERVER])) give_up("pthread_create");
  shell("nft add table inet loss; nft 'add chain inet loss input { type filter hook input priority 0; }';"
        "nft add rule inet loss input meta l4proto tcp numgen inc mod 9 == 4 drop");
  send_bytes(pair[CLIENT], 300000);
  pthread_join(thread, NULL);
  shell("nft flush ruleset");
  nap_us(20000);
  reset_on_close(pair[CLIENT]);
  close(pair[CLIENT]);
  nap_us(2000);
  close(pair[SERVER]);
  uint16_t port = 0;
  int small = 4096, receiver = bound(AF_INET, SOCK_DGRAM, &port), sender = connected(AF_INET, SOCK_DGRAM, port);
  setsockopt(receiver, SOL_SOCKET, SO_RCVBUF, &small, sizeof small);
  for (int i = 0; i < 50; i++) send_bytes(sender, 600);
  close(sender);
  close(receiver);
}
/* TCP fast open: a server that receives before the connection is established. The client's ACKs are held back. */
static void probe_fast_open(void) {
  struct session s;
  uint16_t port = 0;
  int on = 16, length = 500;
  char bytes[500] = {0};
  if (!shell("echo 519 > /proc/sys/net/ipv4/tcp_fastopen") || /* client and server, without a cookie */
      !session_open(&s, &(ojo_bpf_desc){.list = true}, "probes"))
    return;
  int listener = bound(AF_INET, SOCK_STREAM, &port), client = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  setsockopt(listener, IPPROTO_TCP, TCP_FASTOPEN, &on, sizeof on);
  shell("nft add table inet hold; nft 'add chain inet hold input { type filter hook input priority 0; }';"
        "nft add rule inet hold input tcp dport %u 'tcp flags & (syn|ack) == ack' drop", port);
  address to = loopback(AF_INET, port);
  check(sendto(client, bytes, (size_t)length, MSG_FASTOPEN, &to.any, address_length(&to)) == length,
        "probes: a fast open");
  int server = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
  limit_waits(server, 5);
  receive_bytes(server, (size_t)length);
  struct rows live = session_live(&s);
  const ojo_bpf_connection *row = rows_find(&live, cookie_of(server));
  check(row && row->bytes_in == 500 && row->passive && !row->partial,
        "probes: fast open: %s, %" PRIu64 " of 500 bytes%s", row ? "a row" : "no row",
         row ? row->bytes_in : 0, row && row->partial ? ", partial" : "");
  rows_free(&live);
  shell("nft flush ruleset");
  close(client);
  close(server);
  close(listener);
  session_close(&s);
  session_remove(&s);
}
static bool of_probes(unsigned type, uint32_t probes) {
  for (int i = 0; i < OJO_BPF_PROBE_COUNT; i++)
    for (int k = 0; k < 8 && probe_types[i].types[k]; k++)
      if (probe_types[i].types[k] == type) return probe_types[i].probe & probes;
  return true; /* what a connection is, and its end, come with any */
}
static void probe_alone(uint32_t probe, const char *name) {
  struct session s;
  uint32_t pid = (uint32_t)getpid();
  if (!session_open(&s, &(ojo_bpf_desc){.probes = probe, .pids = &pid, .pid_count = 1}, "probes")) return;
  check(ojo_bpf_query_desc(s.b).probes == probe, "probes: query_desc says %#x, not %#x",
        ojo_bpf_query_desc(s.b).probes, probe);
  probe_traffic();
  while (ojo_bpf_poll(s.b, 0) > 0) {
  }
  session_close(&s);
  struct told told = told_read(s.dir, NULL, NULL);
  uint64_t own = 0, others = 0;
  for (size_t i = 0; i < told.count; i++)
    for (unsigned group = 0; group < 3; group++)
      for (unsigned type = 0; type < SEEN_TYPES; type++) {
        uint64_t events = told.flows[i].events[group][type];
        unsigned full = (group + 4) << 8 | type;
        if (!of_probes(full, probe)) others += events;
        else if (full != OJO_KERNEL_CONNECTION && full != OJO_KERNEL_TCP_FINISHED &&
                 full != OJO_KERNEL_UDP_FINISHED)
          own += events;
      }
  check(own > 0 && !others, "probes: %s alone: %" PRIu64 " events of its own, %" PRIu64 " of others", name, own,
        others);
  told_free(&told);
  session_remove(&s);
}
static void part_probes(void) {
  ojo_bpf_probe_info info[32];
  char names[OJO_BPF_PROBE_COUNT][64];
  struct session s;
  static const char *const setup[] = {"nft add table inet loss", "ip link set lo mtu 1500 gso_max_segs 2", NULL};
  uint32_t described = 0;
  if (!needs("probes", "nft", setup)) return;
  if (!session_open(&s, &(ojo_bpf_desc){.probes = OJO_BPF_ALL}, "probes")) return;
  size_t count = ojo_bpf_query_probes(s.b, info, 32);
  check(count >= OJO_BPF_PROBE_COUNT && count <= 32, "probes: %zu lines", count);
  check(ojo_bpf_query_probes(s.b, NULL, 0) == count, "probes: the number of lines without room");
  memset(names, 0, sizeof names);
  for (size_t i = 0; i < count && i < 32; i++) {
    described |= info[i].probe;
    check(info[i].attached && info[i].how && info[i].why && !strchr(info[i].why, '\n') &&
            (!strcmp(info[i].how, "tp_btf") || !strcmp(info[i].how, "cgroup_skb")),
          "probes: %s: %s: %s", info[i].name, info[i].how, info[i].why);
    printf("probes: %s: %s: %s\n", info[i].name, info[i].how, info[i].why);
    for (int bit = 0; bit < OJO_BPF_PROBE_COUNT; bit++)
      if (info[i].probe == 1u << bit) snprintf(names[bit], sizeof *names, "%s", info[i].name);
  }
  check(described == OJO_BPF_ALL, "probes: lines for %#x", described);
  session_close(&s);
  session_remove(&s);
  for (int bit = 0; bit < OJO_BPF_PROBE_COUNT; bit++) probe_alone(1u << bit, names[bit]);
  probe_fast_open();
}

/* ---- lost: a ring of one page, which nobody polls ------------------------------------------------------ */

static void part_lost(void) {
  enum { LOST_SENDS = 5000 };
  struct session s;
  int pair[SIDES];
  tcp_pair(AF_INET, pair); /* before the probes: the ring shall hold sends and receives alone */
  uint32_t pid = (uint32_t)getpid(); /* what others do must not count */
  const ojo_bpf_desc desc = {.probes = OJO_BPF_TCP_IO, .ring_bytes = 4096, .pids = &pid, .pid_count = 1};
  if (!session_open(&s, &desc, "lost")) return;
  while (ojo_bpf_poll(s.b, 0) > 0) {
  }
  uint64_t cookies[SIDES] = {cookie_of(pair[CLIENT]), cookie_of(pair[SERVER])};
  uint64_t before = now_ns();
  for (int i = 0; i < LOST_SENDS; i++) {
    send_bytes(pair[CLIENT], 10);
    receive_bytes(pair[SERVER], 10);
  }
  while (ojo_bpf_poll(s.b, 0) > 0) {
  }
  uint64_t after = now_ns();
  close(pair[CLIENT]);
  close(pair[SERVER]);
  ojo_stats tracer = ojo_query_stats(s.t);
  session_close(&s);
  struct told told = told_read(s.dir, NULL, NULL);
  const struct seen *a = told_socket(&told, cookies[CLIENT]), *b = told_socket(&told, cookies[SERVER]);
  uint64_t kept = (a ? seen_events(a, OJO_KERNEL_TCP_SEND) : 0) + (b ? seen_events(b, OJO_KERNEL_TCP_RECEIVE) : 0);
  uint64_t lost = s.stats.lost[1];
  check(lost > LOST_SENDS && kept > 0 && kept + lost == 2 * LOST_SENDS,
        "lost: %" PRIu64 " kept + %" PRIu64 " lost of %d", kept, lost, 2 * LOST_SENDS);
  check(told.dropped_ring == s.stats.ring_lost && told.dropped == told.dropped_ring + told.missed &&
            tracer.dropped <= s.stats.ring_lost,
        "lost: %" PRIu64 " in the trace, of the ring %" PRIu64 ", counted %" PRIu64, told.dropped,
        told.dropped_ring, s.stats.ring_lost);
  uint64_t sum = 0;
  for (int i = 0; i < OJO_BPF_PROBE_COUNT; i++) sum += s.stats.lost[i];
  check(sum == s.stats.ring_lost, "lost: by probe %" PRIu64 ", in all %" PRIu64, sum, s.stats.ring_lost);
  printf("lost: %" PRIu64 " kept + %" PRIu64 " lost = %d, in %" PRIu64 " ms\n", kept, lost, 2 * LOST_SENDS,
         (after - before) / 1000000);
  told_free(&told);
  session_remove(&s);
}
#endif
