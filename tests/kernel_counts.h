/* SPDX-License-Identifier: MIT
 *
 * kernel_counts.h - the parts of kernel.c about exact counts: of the loads themselves, of TCP and of UDP.
 */
#ifndef OJO_TESTS_KERNEL_COUNTS_H
#define OJO_TESTS_KERNEL_COUNTS_H

#include <inttypes.h>

/* Many alike expectations make one check; of those that fail, the first few are shown. */
struct tally {
  unsigned right, wrong;
};
__attribute__((format(printf, 3, 4))) static inline bool expect(struct tally *tally, bool ok, const char *format,
                                                                ...) {
  va_list arguments;
  if (ok) return tally->right++, true;
  if (tally->wrong++ < 5) {
    va_start(arguments, format);
    fputs("  wrong: ", stdout);
    vprintf(format, arguments);
    putchar('\n');
    va_end(arguments);
  }
  return false;
}
static inline void tally_end(const struct tally *tally, unsigned least, const char *what) {
  check(!tally->wrong && tally->right >= least, "%s: %u right, %u wrong, at least %u expected", what, tally->right,
        tally->wrong, least);
  printf("%s: %u/%u\n", what, tally->right, tally->right + tally->wrong);
}
static uint64_t test_seed(const char *name) {
  const char *given = getenv("OJO_KERNEL_SEED");
  uint64_t seed = given ? strtoull(given, NULL, 0) : now_ns() & 0xFFFFFFFF;
  printf("%s: seed %" PRIu64 "\n", name, seed);
  return seed;
}


/* ---- traffic: the loads themselves, without probes: what one end sent is what the other got ---------- */

static void traffic_tcp(void) {
  struct tcp_load *load = tcp_load_new(200, test_seed("traffic"));
  struct tally bytes = {0, 0}, final = {0, 0};
  tcp_load_start(load);
  tcp_load_go(load);
  tcp_load_end(load);
  for (uint32_t i = 0; i < load->count; i++) {
    const struct tcp_connection *c = &load->c[i];
    for (int side = 0; side < SIDES; side++)
      expect(&bytes, c->ends[side].out == c->bytes[side] && c->ends[!side].in == c->bytes[side] &&
               c->ends[side].cookie && c->ends[side].local_port == c->ends[!side].remote_port,
             "%u (%s): sent %" PRIu64 " of %" PRIu64 ", got %" PRIu64, i, way_texts[c->way], c->ends[side].out,
             c->bytes[side], c->ends[!side].in);
    expect(&final, c->ends[CLIENT].final || c->ends[SERVER].final, "%u (%s): no final packets", i, way_texts[c->way]);
  }
  tally_end(&bytes, 400, "traffic: TCP directions");
  tally_end(&final, 200, "traffic: TCP connections with final packets of an end");
}
/* The other end's flow of the same 4-tuple. */
static struct udp_flow *udp_mirror(struct udp_load *load, const struct udp_flow *of, int side) {
  for (uint32_t i = 0; i < load->count[side]; i++) {
    struct udp_flow *f = &load->flows[side][i];
    if (f->remote_port == of->local_port && f->local_port == of->remote_port &&
        f->address_bytes == of->address_bytes)
      return f;
  }
  return NULL;
}
static void traffic_udp(void) {
  struct udp_load *load = udp_load_start(test_seed("traffic"));
  struct tally datagrams = {0, 0};
  uint64_t lost = 0;
  word_store(&load->go, 1);
  udp_load_end(load);
  for (uint32_t i = 0; i < load->count[CLIENT]; i++) {
    const struct udp_flow *a = &load->flows[CLIENT][i], *b = udp_mirror(load, a, SERVER);
    if (b && udp_overflows(load, a->address_bytes == 16, a->remote_port)) {
      lost += a->datagrams_out - b->datagrams_in;
      expect(&datagrams, b->datagrams_in > 0 && b->datagrams_in < a->datagrams_out, "the socket did not overflow");
      continue;
    }
    expect(&datagrams,
           b && a->bytes_out == b->bytes_in && a->datagrams_out == b->datagrams_in && a->bytes_in == b->bytes_out &&
               a->datagrams_in == b->datagrams_out,
           "tuple %u: sent %" PRIu64 " in %" PRIu64 ", got %" PRIu64 " in %" PRIu64, i, a->bytes_out,
           a->datagrams_out, b ? b->bytes_in : 0, b ? b->datagrams_in : 0);
  }
  tally_end(&datagrams, 160, "traffic: UDP tuples");
  uint64_t counted = snmp("Udp", "RcvbufErrors") + snmp6("Udp6RcvbufErrors");
  check(lost == counted, "traffic: %" PRIu64 " datagrams lost, the kernel counted %" PRIu64, lost, counted);
  printf("traffic: %" PRIu64 " datagrams overflowed\n", lost);
}
static void part_traffic(void) {
  traffic_tcp();
  traffic_udp();
}

/* ---- tcp: 200 connections, both ends --------------------------------------------------------------- */

struct tcp_tallies {
  struct tally bytes, rows, sums, packets, packets_near, owner, addresses, once;
};
static void tcp_check_packets(struct tcp_tallies *tallies, const struct tcp_connection *c, int side, uint64_t out,
                              uint64_t in) {
  const struct tcp_end *end = &c->ends[side];
  if (end->final) { /* read in state CLOSE: nothing can have come after */
    expect(&tallies->packets, out == end->packets_out && in == end->packets_in,
           "%s, %s: packets %" PRIu64 "/%" PRIu64 ", the kernel has %" PRIu64 "/%" PRIu64, way_texts[c->way],
           side ? "server" : "client", out, in, end->packets_out, end->packets_in);
    return;
  }
  /* Closed right after they were read. A reset follows in one packet, which the kernel counts after the change to
   * CLOSE; a FIN is one packet, with the peer's FIN comes one, and between them may be an ACK of each. */
  uint64_t most = end->resets ? 1 : 2;
  expect(&tallies->packets_near,
         out >= end->packets_out && out <= end->packets_out + most && in >= end->packets_in &&
             in <= end->packets_in + (end->resets ? 0 : 2) && (end->resets || out > end->packets_out),
         "%s, %s: packets %" PRIu64 "/%" PRIu64 " after %" PRIu64 "/%" PRIu64, way_texts[c->way],
         side ? "server" : "client", out, in, end->packets_out, end->packets_in);
}
static void tcp_check_end(struct tcp_tallies *tallies, struct told *told, const struct rows *rows,
                          const struct tcp_connection *c, int side) {
  const struct tcp_end *end = &c->ends[side];
  const struct seen *f = told_socket(told, end->cookie);
  const ojo_bpf_connection *row = rows_find(rows, end->cookie);
  const char *way = way_texts[c->way], *who = side ? "server" : "client";
  unsigned closed = 0;
  for (size_t i = 0; i < rows->count; i++) closed += rows->row[i].cookie == end->cookie;
  expect(&tallies->once, f && f->finished == 1 && f->closes == 1 && !f->reopened && closed == 1,
         "%s, %s: finished %u times, closed %u times, %u events after, %u closing rows", way, who,
         f ? f->finished : 0, f ? f->closes : 0, f ? f->reopened : 0, closed);
  if (!f || !row) return;
  const ojo_kernel_connection *k = &f->connection;
  expect(&tallies->bytes, f->totals.bytes_out == end->out && f->totals.bytes_in == end->in,
         "%s, %s: FINISHED has %" PRIu64 " out, %" PRIu64 " in; moved %" PRIu64 ", %" PRIu64, way, who,
         f->totals.bytes_out, f->totals.bytes_in, end->out, end->in);
  expect(&tallies->rows, row->bytes_out == end->out && row->bytes_in == end->in && row->flow == f->flow,
         "%s, %s: the row has %" PRIu64 " out, %" PRIu64 " in; moved %" PRIu64 ", %" PRIu64, way, who, row->bytes_out,
         row->bytes_in, end->out, end->in);
  expect(&tallies->sums,
         seen_sum(f, OJO_KERNEL_TCP_SEND) == end->out && seen_sum(f, OJO_KERNEL_TCP_RECEIVE) == end->got,
         "%s, %s: SEND %" PRIu64 ", RECEIVE %" PRIu64 "; moved %" PRIu64 ", %" PRIu64, way, who,
         seen_sum(f, OJO_KERNEL_TCP_SEND), seen_sum(f, OJO_KERNEL_TCP_RECEIVE), end->out, end->got);
  tcp_check_packets(tallies, c, side, f->totals.packets_out, f->totals.packets_in);
  tcp_check_packets(tallies, c, side, row->packets_out, row->packets_in);
  const char *command = tcp_commands[side][c->by[side]];
  expect(&tallies->owner,
         k->pid == end->pid && row->pid == end->pid && !strcmp(k->command, command) &&
             !strcmp(row->command, command),
         "%s, %s: pid %u %.16s, the row's %u %.16s; is %u %s", way, who, k->pid, k->command, row->pid, row->command,
         end->pid, command);
  expect(&tallies->addresses,
         k->local_port == end->local_port && k->remote_port == end->remote_port && k->protocol == 6 &&
             k->address_bytes == end->address_bytes && !memcmp(k->local, end->local, 16) &&
             !memcmp(k->remote, end->remote, 16) && k->netns == rows->netns &&
             (k->flags & OJO_KERNEL_PASSIVE) == (side ? OJO_KERNEL_PASSIVE : 0) &&
             !(k->flags & OJO_KERNEL_PARTIAL) && f->flow >> 30 == 2 && row->local_port == end->local_port &&
             row->remote_port == end->remote_port && row->address_bytes == end->address_bytes &&
             row->protocol == 6 && !memcmp(row->local, end->local, 16) && !memcmp(row->remote, end->remote, 16) &&
             row->passive == (side == SERVER) && !row->partial && row->closed,
         "%s, %s: ports %u, %u, flags %u, flow %#" PRIx64 "; are %u, %u", way, who, k->local_port, k->remote_port,
         k->flags, f->flow, end->local_port, end->remote_port);
}
static void part_tcp(void) {
  struct tcp_load *load = tcp_load_new(200, test_seed("tcp"));
  struct tcp_tallies tallies;
  struct session s;
  memset(&tallies, 0, sizeof tallies);
  tcp_load_start(load);
  if (!session_open(&s, &(ojo_bpf_desc){.probes = OJO_BPF_TCP, .list = true, .thread = true}, "tcp")) return;
  tcp_load_go(load);
  while (tcp_load_running(load)) {
    nap_us(20000);
    session_list(&s);
  }
  tcp_load_end(load);
  tcp_wait_idle(5);
  session_list(&s);
  session_close(&s);
  struct told told = told_read(s.dir, NULL, NULL);
  check(!s.stats.ring_lost && told.dropped == told.missed, "tcp: %" PRIu64 " events lost",
        told.dropped - told.missed);
  for (uint32_t i = 0; i < load->count; i++)
    for (int side = 0; side < SIDES; side++) tcp_check_end(&tallies, &told, &s.closed, &load->c[i], side);
  tally_end(&tallies.once, 400, "tcp: ends that close exactly once");
  tally_end(&tallies.bytes, 400, "tcp: bytes of FINISHED");
  tally_end(&tallies.rows, 400, "tcp: bytes of closing rows");
  tally_end(&tallies.sums, 400, "tcp: sums of SEND and RECEIVE");
  tally_end(&tallies.packets, 480, "tcp: packets that equal TCP_INFO in state CLOSE, FINISHED and rows");
  tally_end(&tallies.packets_near, 100, "tcp: packets that equal TCP_INFO before close and what closing adds");
  tally_end(&tallies.owner, 400, "tcp: pids and commands");
  tally_end(&tallies.addresses, 400, "tcp: addresses, ports and flags");
  unsigned others = 0; /* listeners must not show */
  for (size_t i = 0; i < told.count; i++)
    others += told.flows[i].connections && told.flows[i].connection.netns == s.closed.netns;
  check(others == 400 && s.closed.count == 400, "tcp: %u flows and %zu closing rows for 400 ends", others,
        s.closed.count);
  told_free(&told);
  session_remove(&s);
}

/* ---- udp: 4-tuples --------------------------------------------------------------------------------- */

struct udp_tallies {
  struct tally out, in, totals, rows, owner, addresses, once;
  uint64_t dropped; /* as told */
};
static void udp_check_flow(struct udp_tallies *tallies, struct told *told, const struct rows *rows,
                           const struct udp_flow *u, int side, uint64_t drops) {
  const struct seen *f = told_tuple(told, u->cookie, u->remote, u->remote_port);
  const ojo_bpf_connection *row = NULL;
  for (size_t i = 0; i < rows->count && !row; i++)
    if (rows->row[i].cookie == u->cookie && rows->row[i].remote_port == u->remote_port &&
        !memcmp(rows->row[i].remote, u->remote, 16))
      row = &rows->row[i];
  expect(&tallies->once, f && f->finished == 1 && !f->reopened && row, "ports %u, %u: finished %u times%s",
         u->local_port, u->remote_port, f ? f->finished : 0, row ? "" : ", no closing row");
  if (!f || !row) return;
  const ojo_kernel_connection *k = &f->connection;
  expect(&tallies->out,
         seen_sum(f, OJO_KERNEL_UDP_SEND) == u->bytes_out &&
             seen_numbers(f, OJO_KERNEL_UDP_SEND) == u->datagrams_out,
         "ports %u, %u: SEND %" PRIu64 " bytes in %" PRIu64 "; were %" PRIu64 " in %" PRIu64, u->local_port,
         u->remote_port, seen_sum(f, OJO_KERNEL_UDP_SEND), seen_numbers(f, OJO_KERNEL_UDP_SEND), u->bytes_out,
         u->datagrams_out);
  /* RECEIVE is what came up to the socket, DROP what of this it had no room for. */
  uint64_t bytes = seen_sum(f, OJO_KERNEL_UDP_RECEIVE) - seen_sum(f, OJO_KERNEL_UDP_DROP);
  uint64_t datagrams = seen_numbers(f, OJO_KERNEL_UDP_RECEIVE) - seen_numbers(f, OJO_KERNEL_UDP_DROP);
  tallies->dropped += seen_numbers(f, OJO_KERNEL_UDP_DROP);
  expect(&tallies->in,
         bytes == u->bytes_in && datagrams == u->datagrams_in && seen_numbers(f, OJO_KERNEL_UDP_DROP) == drops,
         "ports %u, %u: RECEIVE less DROP %" PRIu64 " bytes in %" PRIu64 ", %" PRIu64 " dropped; were %" PRIu64
         " in %" PRIu64 ", %" PRIu64,
         u->local_port, u->remote_port, bytes, datagrams, seen_numbers(f, OJO_KERNEL_UDP_DROP), u->bytes_in,
         u->datagrams_in, drops);
  expect(&tallies->totals,
         f->totals.bytes_out == u->bytes_out && f->totals.packets_out == u->datagrams_out &&
             f->totals.bytes_in == u->bytes_in && f->totals.packets_in == u->datagrams_in &&
             f->totals.dropped == drops,
         "ports %u, %u: FINISHED %" PRIu64 "/%" PRIu64 " out, %" PRIu64 "/%" PRIu64 " in, dropped %" PRIu64
         "; in were %" PRIu64 "/%" PRIu64,
         u->local_port, u->remote_port, f->totals.bytes_out, f->totals.packets_out, f->totals.bytes_in,
         f->totals.packets_in, f->totals.dropped, u->bytes_in, u->datagrams_in);
  expect(&tallies->rows,
         row->bytes_out == u->bytes_out && row->packets_out == u->datagrams_out && row->bytes_in == u->bytes_in &&
             row->packets_in == u->datagrams_in && row->dropped == drops,
         "ports %u, %u: row %" PRIu64 "/%" PRIu64 " out, %" PRIu64 "/%" PRIu64 " in", u->local_port, u->remote_port,
         row->bytes_out, row->packets_out, row->bytes_in, row->packets_in);
  expect(&tallies->owner,
         k->pid == u->pid && row->pid == u->pid && !strcmp(k->command, udp_commands[side]) &&
             !strcmp(row->command, udp_commands[side]),
         "ports %u, %u: pid %u %.16s, the row's %u %.16s; is %u", u->local_port, u->remote_port, k->pid, k->command,
         row->pid, row->command, u->pid);
  expect(&tallies->addresses,
         k->local_port == u->local_port && k->protocol == 17 && k->address_bytes == u->address_bytes &&
             !memcmp(k->local, u->local, 16) && k->netns == rows->netns && !k->state && f->flow >> 30 == 3 &&
             row->local_port == u->local_port && row->address_bytes == u->address_bytes &&
             !memcmp(row->local, u->local, 16) && row->protocol == 17 && !row->state,
         "ports %u, %u: local port %u, protocol %u, flow %#" PRIx64, u->local_port, u->remote_port, k->local_port,
         k->protocol, f->flow);
}
static void part_udp(void) {
  struct udp_load *load = udp_load_start(test_seed("udp"));
  struct udp_tallies tallies;
  struct session s;
  uint64_t dropped = 0;
  memset(&tallies, 0, sizeof tallies);
  if (!session_open(&s, &(ojo_bpf_desc){.probes = OJO_BPF_UDP, .list = true, .thread = true, .udp_timeout_ms = 700},
                    "udp"))
    return;
  word_store(&load->go, 1);
  udp_load_end(load);
  unsigned tuples = load->count[CLIENT] + load->count[SERVER];
  for (uint64_t end = now_ns() + UINT64_C(4000000000); s.closed.count < tuples && now_ns() < end; nap_us(50000))
    session_list(&s);
  session_close(&s);
  struct told told = told_read(s.dir, NULL, NULL);
  check(!s.stats.ring_lost && told.dropped == told.missed, "udp: %" PRIu64 " events lost",
        told.dropped - told.missed);
  for (int side = 0; side < SIDES; side++)
    for (uint32_t i = 0; i < load->count[side]; i++) {
      const struct udp_flow *u = &load->flows[side][i], *mirror = udp_mirror(load, u, !side);
      bool full = side == SERVER && udp_overflows(load, u->address_bytes == 16, u->local_port);
      uint64_t drops = full && mirror ? mirror->datagrams_out - u->datagrams_in : 0;
      dropped += drops;
      udp_check_flow(&tallies, &told, &s.closed, u, side, drops);
    }
  tally_end(&tallies.once, 340, "udp: tuples told of, and finished once");
  tally_end(&tallies.out, 340, "udp: bytes and datagrams of SEND");
  tally_end(&tallies.in, 340, "udp: bytes and datagrams of RECEIVE less DROP");
  tally_end(&tallies.totals, 340, "udp: FINISHED");
  tally_end(&tallies.rows, 340, "udp: closing rows");
  tally_end(&tallies.owner, 340, "udp: pids and commands");
  tally_end(&tallies.addresses, 340, "udp: addresses and ports");
  uint64_t counted = snmp("Udp", "RcvbufErrors") + snmp6("Udp6RcvbufErrors");
  check(dropped > 0 && tallies.dropped == counted,
        "udp: %" PRIu64 " datagrams told of as dropped, the kernel counted %" PRIu64, tallies.dropped, counted);
  check(s.closed.count == tuples, "udp: %zu closing rows for %u ends of tuples", s.closed.count, tuples);
  told_free(&told);
  session_remove(&s);
}

/* Tuples that are live when the probes are closed are told of with their counts until then. */
static void part_udp_close(void) {
  struct session s;
  struct sockaddr_in to = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  socklen_t bytes = sizeof to;
  char data[100] = {0};
  if (!session_open(&s, &(ojo_bpf_desc){.probes = OJO_BPF_UDP, .thread = true}, "udp_close")) return;
  int from = socket(AF_INET, SOCK_DGRAM, 0), at = socket(AF_INET, SOCK_DGRAM, 0);
  bool sent = bind(at, (struct sockaddr *)&to, sizeof to) == 0 && getsockname(at, (struct sockaddr *)&to, &bytes) == 0;
  for (int i = 0; i < 3; i++)
    sent = sent && sendto(from, data, sizeof data, 0, (struct sockaddr *)&to, sizeof to) == (ssize_t)sizeof data;
  check(sent, "udp_close: three datagrams");
  session_close(&s);
  struct told told = told_read(s.dir, NULL, NULL);
  unsigned ends = 0, exact = 0;
  for (size_t i = 0; i < told.count; i++) {
    const struct seen *f = &told.flows[i];
    if (!f->connections) continue;
    ends++;
    exact += f->finished == 1 && f->totals.bytes_out + f->totals.bytes_in == 3 * sizeof data &&
             f->totals.packets_out + f->totals.packets_in == 3;
  }
  check(ends == 2 && exact == 2, "udp_close: %u ends, %u finished once with their counts", ends, exact);
  told_free(&told);
  session_remove(&s);
  close(from);
  close(at);
}
#endif
