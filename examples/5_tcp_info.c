/* SPDX-License-Identifier: MIT
 *
 * 5_tcp_info.c - an ordinary TCP program, and what the kernel does with its connection
 *
 *     cc -std=gnu11 -O2 -I. examples/5_tcp_info.c -o 5_tcp_info -pthread
 *     OJO_DIR=traces ./5_tcp_info && ojo-cat traces
 *
 * The program sends 64 MB over the loopback interface to a reader that takes a break now and then. It is
 * traced without changing how it works: after a write, but at most every millisecond, it asks the kernel for
 * TCP_INFO and records what has changed. The functions that start with trace_ can be copied as they are.
 */
#define OJO_IMPLEMENTATION
#include "ojo.h"
#include <arpa/inet.h>
#include <inttypes.h>
#include <linux/tcp.h> /* the kernel's struct tcp_info: libc's own is older and shorter */
#include <netinet/in.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { TOTAL = 64 << 20, WRITE_BYTES = 64 << 10, BREAK_EVERY = 16 << 20 };

/* ---- the tracing ----------------------------------------------------------------------------- */

struct trace_tcp {
  ojo_tracer *trace;
  int fd;
  uint32_t flow;
  ojo_metrics_values last; /* what was recorded last */
  uint64_t state, limited, mtu, next_ns;
  struct tcp_info before;
};

/* Names the connection: its addresses, and the socket's cookie, by which kernel probes know it too. */
static void trace_tcp_open(struct trace_tcp *t, ojo_tracer *trace, int fd, ojo_role role) {
  struct sockaddr_in local = {0}, remote = {0};
  socklen_t local_bytes = sizeof local, remote_bytes = sizeof remote;
  uint64_t cookie = 0;
#ifdef SO_COOKIE
  socklen_t cookie_bytes = sizeof cookie;
  getsockopt(fd, SOL_SOCKET, SO_COOKIE, &cookie, &cookie_bytes);
#endif
  getsockname(fd, (struct sockaddr *)&local, &local_bytes);
  getpeername(fd, (struct sockaddr *)&remote, &remote_bytes);
  *t = (struct trace_tcp){.trace = trace, .fd = fd};
  t->flow = ojo_flow_open(trace, &(ojo_flow_desc){
    .kind = OJO_FLOW_CONNECTION, .role = role, .key = cookie, .protocol = "tcp",
    .local_address = &local.sin_addr, .remote_address = &remote.sin_addr, .address_bytes = 4,
    .local_port = ntohs(local.sin_port), .remote_port = ntohs(remote.sin_port)});
}

/* What kept the kernel from sending since the last look: it adds up microseconds for each reason. */
static uint64_t trace_tcp_limited(const struct tcp_info *before, const struct tcp_info *now) {
  uint64_t busy = now->tcpi_busy_time - before->tcpi_busy_time;
  uint64_t window = now->tcpi_rwnd_limited - before->tcpi_rwnd_limited;
  uint64_t buffer = now->tcpi_sndbuf_limited - before->tcpi_sndbuf_limited;
  if (busy == 0) return OJO_LIMITED_APPLICATION;
  if (window * 2 > busy) return OJO_LIMITED_CONNECTION_CREDIT; /* the reader's window */
  if (buffer * 2 > busy) return OJO_LIMITED_SOCKET;
  return OJO_LIMITED_CWND;
}

/* Asks the kernel and records what differs from the last time. A system call: not for every packet. */
static void trace_tcp_poll(struct trace_tcp *t) {
  struct tcp_info i = {0};
  socklen_t bytes = sizeof i; /* an older kernel fills less of it: the rest stays 0, which is "unknown" */
  if (!t->trace || getsockopt(t->fd, IPPROTO_TCP, TCP_INFO, &i, &bytes) < 0) return;
  uint64_t now = ojo_now(t->trace); /* one clock read for all that this look brings */
  uint64_t mss = i.tcpi_snd_mss;
  uint64_t flying = i.tcpi_unacked - i.tcpi_sacked - i.tcpi_lost + i.tcpi_retrans; /* segments */

  ojo_metrics_values values = {
    .cwnd = i.tcpi_snd_cwnd * mss,
    .ssthresh = i.tcpi_snd_ssthresh >= 0x7FFFFFFF ? UINT64_MAX : i.tcpi_snd_ssthresh * mss, /* unset */
    .bytes_in_flight = flying * mss,
    .latest_rtt_ns = i.tcpi_rtt * UINT64_C(1000), /* the kernel keeps no latest one: its smoothed value */
    .smoothed_rtt_ns = i.tcpi_rtt * UINT64_C(1000),
    .min_rtt_ns = i.tcpi_min_rtt * UINT64_C(1000),
    .rtt_variation_ns = i.tcpi_rttvar * UINT64_C(1000),
    .pacing_rate = i.tcpi_pacing_rate == UINT64_MAX ? 0 : i.tcpi_pacing_rate};
  ojo_metrics_at(t->trace, now, t->flow, &t->last, &values); /* an event for each that changed, no other */

  if (i.tcpi_delivery_rate && i.tcpi_delivery_rate != t->before.tcpi_delivery_rate)
    ojo_delivery_rate_at(t->trace, now, t->flow, i.tcpi_delivery_rate);
  if (i.tcpi_pmtu != t->mtu) ojo_mtu_updated_at(t->trace, now, t->flow, t->mtu = i.tcpi_pmtu);
  uint64_t state = i.tcpi_state == 1   ? OJO_CONNECTION_ESTABLISHED /* TCP_ESTABLISHED */
                   : i.tcpi_state <= 3 ? OJO_CONNECTION_HANDSHAKE   /* TCP_SYN_SENT, TCP_SYN_RECV */
                                       : OJO_CONNECTION_CLOSING;
  if (state != t->state) ojo_connection_state_at(t->trace, now, t->flow, t->state = state);
  uint64_t limited = trace_tcp_limited(&t->before, &i);
  if (limited != t->limited) ojo_sender_limited_at(t->trace, now, t->flow, t->limited = limited);
  t->before = i;
}

/* The same, at most every millisecond. */
static void trace_tcp_often(struct trace_tcp *t) {
  struct timespec clock;
  if (!t->trace) return;
  clock_gettime(CLOCK_MONOTONIC, &clock);
  uint64_t now_ns = (uint64_t)clock.tv_sec * 1000000000u + (uint64_t)clock.tv_nsec;
  if (now_ns < t->next_ns) return;
  t->next_ns = now_ns + 1000000;
  trace_tcp_poll(t);
}

/* ---- the program ----------------------------------------------------------------------------- */

static int failed(const char *what) {
  perror(what);
  return 1;
}

static void *reader(void *argument) { /* takes a break of 20 ms every 16 MB */
  static char buffer[WRITE_BYTES];
  int listener = *(int *)argument, fd = accept(listener, NULL, NULL);
  uint64_t total = 0, next = BREAK_EVERY;
  for (ssize_t got; (got = read(fd, buffer, sizeof buffer)) > 0;) {
    total += (uint64_t)got;
    if (total < next) continue;
    next += BREAK_EVERY;
    nanosleep(&(struct timespec){.tv_nsec = 20000000}, NULL);
  }
  close(fd);
  return (void *)(uintptr_t)total;
}

int main(void) {
  static const char data[WRITE_BYTES] = {0};
  struct sockaddr_in address = {.sin_family = AF_INET};
  socklen_t address_bytes = sizeof address;
  pthread_t thread;
  void *received;
  struct trace_tcp tcp;
  ojo_tracer *trace;

  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  int listener = socket(AF_INET, SOCK_STREAM, 0), fd = socket(AF_INET, SOCK_STREAM, 0);
  if (listener < 0 || fd < 0 || bind(listener, (struct sockaddr *)&address, sizeof address) < 0 ||
      listen(listener, 1) < 0 || getsockname(listener, (struct sockaddr *)&address, &address_bytes) < 0)
    return failed("listen");
  if (connect(fd, (struct sockaddr *)&address, sizeof address) < 0) return failed("connect");
  if (pthread_create(&thread, NULL, reader, &listener)) return failed("thread");

  ojo_open(&trace, &(ojo_desc){.dir = getenv("OJO_DIR")});
  trace_tcp_open(&tcp, trace, fd, OJO_ROLE_CLIENT);
  trace_tcp_poll(&tcp);
  for (size_t sent = 0; sent < TOTAL;) {
    size_t rest = TOTAL - sent;
    ssize_t wrote = send(fd, data, rest < sizeof data ? rest : sizeof data, MSG_NOSIGNAL);
    if (wrote < 0) return failed("send");
    sent += (size_t)wrote;
    trace_tcp_often(&tcp); /* the one line that the program got */
  }
  shutdown(fd, SHUT_WR);
  pthread_join(thread, &received);
  trace_tcp_poll(&tcp);
  ojo_flow_close(trace, tcp.flow, 0, NULL);
  close(fd);

  printf("sent %d bytes, received %" PRIuPTR ", recorded %" PRIu64 " events\n", TOTAL, (uintptr_t)received,
         ojo_query_stats(trace).recorded);
  return ojo_close(trace) != OJO_OK || (uintptr_t)received != TOTAL;
}
