/* SPDX-License-Identifier: MIT
 *
 * kernel_loss.h - the parts of kernel.c about what happens under loss: retransmits against /proc/net/snmp, and the
 * values of tcp_probe, congestion states and resets against TCP_INFO.
 */
#ifndef OJO_TESTS_KERNEL_LOSS_H
#define OJO_TESTS_KERNEL_LOSS_H

#define LOSS_THREADS 12

/* ---- the load: long transfers, and short connections whose SYNs get lost as well ---------------------- */

struct loss_load {
  uint32_t go, next, long_bytes, long_count, short_count; /* connections with an index below long_count are long */
  uint16_t port;
};
static void *loss_server(void *argument) {
  int fd = *(int *)argument;
  char buffer[16384];
  free(argument);
  while (recv(fd, buffer, sizeof buffer, 0) > 0) {
  }
  send(fd, buffer, 1000, MSG_NOSIGNAL);
  close(fd);
  return NULL;
}
static void *loss_accept(void *argument) {
  int listener = *(int *)argument;
  for (int fd; (fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC)) >= 0;) {
    pthread_t thread;
    int *own = (int *)malloc(sizeof *own);
    if (!own) abort();
    *own = fd;
    limit_waits(fd, 25);
    if (pthread_create(&thread, NULL, loss_server, own) == 0) pthread_detach(thread);
  }
  return NULL;
}
static void *loss_client(void *argument) {
  struct loss_load *load = (struct loss_load *)argument;
  char buffer[4096];
  for (uint32_t i; (i = word_add(&load->next, 1)) < load->long_count + load->short_count;) {
    int fd = connected(AF_INET, SOCK_STREAM, load->port);
    send_bytes(fd, i < load->long_count ? load->long_bytes : 1000);
    shutdown(fd, SHUT_WR);
    while (recv(fd, buffer, sizeof buffer, 0) > 0) {
    }
    close(fd);
  }
  return NULL;
}
static void loss_run(struct loss_load *load) {
  pthread_t threads[LOSS_THREADS], acceptor;
  int listener = bound(AF_INET, SOCK_STREAM, &load->port);
  if (pthread_create(&acceptor, NULL, loss_accept, &listener)) give_up("pthread_create");
  for (int i = 0; i < LOSS_THREADS; i++)
    if (pthread_create(&threads[i], NULL, loss_client, load)) give_up("pthread_create");
  for (int i = 0; i < LOSS_THREADS; i++) pthread_join(threads[i], NULL);
  tcp_wait_idle(20); /* a process that ended would reset what is not read */
}
static pid_t loss_start(struct loss_load *load) {
  pid_t pid = fork_named("kt-loss");
  if (pid) return pid;
  word_wait(&load->go, 1);
  loss_run(load);
  _exit(0);
}

/* ---- loss_queue, loss_3, loss_10 ------------------------------------------------------------------- */

struct loss_sums {
  uint64_t told, finals, counted, missed;
};
/* One attempt, with a load of its own. */
static bool loss_attempt(const struct loss_load *like, struct loss_sums *sums, const char *name) {
  struct loss_load *load = (struct loss_load *)shared(sizeof *load);
  struct session s;
  *load = *like;
  memset(sums, 0, sizeof *sums);
  pid_t pid = loss_start(load);
  if (!session_open(&s, &(ojo_bpf_desc){.probes = OJO_BPF_TCP, .thread = true}, name)) return true;
  uint64_t before = snmp("Tcp", "RetransSegs");
  word_store(&load->go, 1);
  join_process(pid, name);
  check(tcp_wait_idle(20), "%s: sockets are still busy", name);
  sums->counted = snmp("Tcp", "RetransSegs") - before;
  session_close(&s);
  struct told told = told_read(s.dir, NULL, NULL);
  check(!s.stats.ring_lost, "%s: %" PRIu64 " events lost", name, s.stats.ring_lost);
  sums->missed = told.missed;
  struct tally flows = {0, 0};
  for (size_t i = 0; i < told.count; i++) {
    const struct seen *f = &told.flows[i];
    if (!f->connections || f->connection.netns != s.closed.netns) continue;
    sums->told += seen_sum(f, OJO_KERNEL_TCP_RETRANSMIT);
    sums->finals += f->totals.retransmits;
    expect(&flows, f->finished == 1 && f->totals.retransmits == seen_sum(f, OJO_KERNEL_TCP_RETRANSMIT) &&
             (!f->totals.retransmits || f->totals.retransmits == seen_last_number(f, OJO_KERNEL_TCP_RETRANSMIT)),
           "port %u: %" PRIu64 " segments told, finally %" PRIu64, f->connection.local_port,
           seen_sum(f, OJO_KERNEL_TCP_RETRANSMIT), f->totals.retransmits);
  }
  char text[64];
  snprintf(text, sizeof text, "%s: flows whose RETRANSMITs sum up to the final count", name);
  tally_end(&flows, 2 * (load->long_count + load->short_count), text);
  printf("%s: RetransSegs grew by %" PRIu64 ", told of %" PRIu64 ", final totals %" PRIu64 ", missed %" PRIu64 "\n",
         name, sums->counted, sums->told, sums->finals, sums->missed);
  told_free(&told);
  session_remove(&s);
  munmap(load, sizeof *load);
  return sums->counted >= 20 && sums->told == sums->counted && sums->finals == sums->counted;
}
/* One attempt of up to six must be exact. A program that the kernel does not call (see in_child) may be the one of a
 * connection's last change: what was retransmitted since the last look is then not told of. That is rare; what it must
 * not be is the rule. */
static void loss_part(const struct loss_load *like, const char *name) {
  struct loss_sums sums;
  bool exact = false;
  int attempts = 0;
  while (!exact && attempts < 6) exact = loss_attempt(like, &sums, name), attempts++;
  check(exact,
        "%s: no attempt is exact: the last one told of %" PRIu64 ", final totals %" PRIu64
        ", the kernel counted %" PRIu64,
        name, sums.told, sums.finals, sums.counted);
  printf("%s: exact at attempt %d\n", name, attempts);
}
static bool needs(const char *part, const char *program, const char *const *commands) {
  for (; *commands; commands++)
    if (!shell("%s >/dev/null 2>&1", *commands)) {
      if (shell("command -v %s >/dev/null", program)) check_skip(part, "this kernel refuses its commands");
      else check__skipped++, printf("skip: %s: %s is missing\n", part, program);
      return false;
    }
  return true;
}
static void part_loss_queue(void) { /* a queue that is too short */
  static const char *const setup[] = {"ip link set lo mtu 1500",
                                      "tc qdisc add dev lo root tbf rate 50mbit burst 5k limit 8k", NULL};
  if (needs("loss_queue", "tc", setup))
    loss_part(&(struct loss_load){.long_bytes = 700000, .long_count = 6, .short_count = 20}, "loss_queue");
}
static void loss_by_nft(unsigned percent,
                        const char *name) { /* on the way in: dropped on the way out, the sender knows */
  char rule[160];
  const char *setup[] = {"ip link set lo mtu 1500", "nft add table inet loss",
    "nft 'add chain inet loss input { type filter hook input priority 0; }'", rule, NULL};
  snprintf(rule, sizeof rule, "nft add rule inet loss input meta l4proto tcp numgen random mod 100 '<' %u drop",
           percent);
  if (needs(name, "nft", setup))
    loss_part(&(struct loss_load){.long_bytes = 1000000, .long_count = 6, .short_count = 40}, name);
}
static void part_loss_3(void) { loss_by_nft(3, "loss_3"); }
static void part_loss_10(void) { loss_by_nft(10, "loss_10"); }

/* ---- metrics: tcp_probe's values, congestion states, resets ------------------------------------------- */

struct metrics { /* what happened on one flow */
  uint64_t cookie, flow, rtts, since_ns, crowded, states[8];
};
static void metrics_each(void *user, const ojo_reader_event *e) {
  struct metrics *m = (struct metrics *)user;
  if (e->type == OJO_KERNEL_CONNECTION && e->payload == m->cookie) m->flow = e->flow;
  if (!m->flow || e->flow != m->flow) return;
  if (e->type == OJO_KERNEL_TCP_CONGESTION_STATE) m->states[e->payload & 7]++;
  if (e->type != OJO_KERNEL_TCP_RTT) return;
  m->crowded += m->since_ns && e->time_ns - m->since_ns < 500000;
  m->since_ns = e->time_ns;
  m->rtts++;
}
static bool same_metrics(const struct tcp_info *a, const struct tcp_info *b) {
  return a->tcpi_rtt == b->tcpi_rtt && a->tcpi_rttvar == b->tcpi_rttvar && a->tcpi_snd_cwnd == b->tcpi_snd_cwnd &&
         a->tcpi_snd_ssthresh == b->tcpi_snd_ssthresh && a->tcpi_snd_wnd == b->tcpi_snd_wnd && !a->tcpi_unacked &&
         !b->tcpi_unacked;
}
static void *metrics_drain(void *argument) {
  receive_bytes(*(int *)argument, 6000000);
  return NULL;
}
/* At rest the peer's packets change nothing of what the sender measures: tcp_probe, which looks before the kernel
 * takes a packet in, shows in the last ones what TCP_INFO shows. */
static void metrics_rest(int pair[SIDES], struct tcp_info *info) {
  struct tcp_info before;
  for (int tries = 0; tries < 5; tries++) {
    for (int i = 0; i < 4; i++) {
      if (i == 1) before = info_of(pair[CLIENT]);
      send_bytes(pair[SERVER], 100);
      receive_bytes(pair[CLIENT], 100);
      nap_us(60000); /* beyond the delayed ACK */
    }
    *info = info_of(pair[CLIENT]);
    if (same_metrics(&before, info)) return;
  }
  check(false, "metrics: the connection does not come to rest");
}
static void metrics_compare(const struct seen *f, const struct tcp_info *info) {
  check(f->rtt.smoothed_ns / 1000 == info->tcpi_rtt && f->rtt.variation_ns / 1000 == info->tcpi_rttvar &&
            f->rtt.min_ns / 1000 == info->tcpi_min_rtt && seen_last(f, OJO_KERNEL_TCP_RTT) == f->rtt.smoothed_ns,
        "metrics: RTT %" PRIu64 ", variation %" PRIu64 ", least %" PRIu64 " ns; TCP_INFO has %u, %u, %u us",
        f->rtt.smoothed_ns, f->rtt.variation_ns, f->rtt.min_ns, info->tcpi_rtt, info->tcpi_rttvar,
        info->tcpi_min_rtt);
  check(seen_last_number(f, OJO_KERNEL_TCP_CWND) == info->tcpi_snd_cwnd &&
            seen_last(f, OJO_KERNEL_TCP_CWND) == (uint64_t)info->tcpi_snd_cwnd * info->tcpi_snd_mss,
        "metrics: cwnd %" PRIu64 " bytes, %" PRIu64 " segments; TCP_INFO has %u of %u",
        seen_last(f, OJO_KERNEL_TCP_CWND), seen_last_number(f, OJO_KERNEL_TCP_CWND), info->tcpi_snd_cwnd,
        info->tcpi_snd_mss);
  check(info->tcpi_snd_ssthresh < 0x7FFFFFFF &&
            seen_last_number(f, OJO_KERNEL_TCP_SSTHRESH) == info->tcpi_snd_ssthresh &&
            seen_last(f, OJO_KERNEL_TCP_SSTHRESH) == (uint64_t)info->tcpi_snd_ssthresh * info->tcpi_snd_mss,
        "metrics: ssthresh %" PRIu64 " segments; TCP_INFO has %u", seen_last_number(f, OJO_KERNEL_TCP_SSTHRESH),
        info->tcpi_snd_ssthresh);
  check(seen_events(f, OJO_KERNEL_TCP_IN_FLIGHT) > 0 && seen_last(f, OJO_KERNEL_TCP_IN_FLIGHT) == 0,
        "metrics: in flight %" PRIu64 " bytes at rest", seen_last(f, OJO_KERNEL_TCP_IN_FLIGHT));
  check(seen_sum(f, OJO_KERNEL_TCP_IN_FLIGHT) > 0, "metrics: never anything in flight");
  check(seen_last(f, OJO_KERNEL_TCP_SEND_WINDOW) == info->tcpi_snd_wnd,
        "metrics: send window %" PRIu64 ", TCP_INFO has %u", seen_last(f, OJO_KERNEL_TCP_SEND_WINDOW),
        info->tcpi_snd_wnd);
  check(seen_last(f, OJO_KERNEL_TCP_RECEIVE_WINDOW) > 1000, "metrics: receive window %" PRIu64,
        seen_last(f, OJO_KERNEL_TCP_RECEIVE_WINDOW));
}
static void part_metrics(void) {
  static const char *const setup[] = {"ip link set lo mtu 1500", "nft add table inet loss",
    "nft 'add chain inet loss input { type filter hook input priority 0; }'",
    "nft add rule inet loss input meta l4proto tcp numgen random mod 100 '<' 2 drop", NULL};
  struct session s;
  struct metrics m;
  struct tcp_info info;
  pthread_t drain;
  int pair[SIDES];
  memset(&m, 0, sizeof m);
  if (!needs("metrics", "nft", setup) ||
      !session_open(&s, &(ojo_bpf_desc){.probes = OJO_BPF_TCP, .thread = true, .list = true}, "metrics"))
    return;
  tcp_pair(AF_INET, pair);
  /* cubic: bbr, the default here, sets no ssthresh. reno is always there. */
  if (setsockopt(pair[CLIENT], IPPROTO_TCP, TCP_CONGESTION, "cubic", 5))
    setsockopt(pair[CLIENT], IPPROTO_TCP, TCP_CONGESTION, "reno", 4);
  m.cookie = cookie_of(pair[CLIENT]);
  uint64_t other = cookie_of(pair[SERVER]);
  if (pthread_create(&drain, NULL, metrics_drain, &pair[SERVER])) give_up("pthread_create");
  for (int i = 0; i < 60; i++) { /* over some time: there is one look in a millisecond */
    send_bytes(pair[CLIENT], 100000);
    nap_us(2000);
  }
  pthread_join(drain, NULL);
  shell("nft flush ruleset");
  metrics_rest(pair, &info);
  struct rows live = session_live(&s);
  const ojo_bpf_connection *row = rows_find(&live, m.cookie);
  check(row && row->state == STATE_ESTABLISHED && row->rtt_us == info.tcpi_rtt &&
            row->cwnd_segments == info.tcpi_snd_cwnd && row->cwnd == info.tcpi_snd_cwnd * info.tcpi_snd_mss &&
            row->retransmits == info.tcpi_total_retrans,
        "metrics: the row's rtt %u, cwnd %u, %u, retransmits %" PRIu64 "; TCP_INFO has %u, %u, %u",
        row ? row->rtt_us : 0, row ? row->cwnd : 0, row ? row->cwnd_segments : 0, row ? row->retransmits : 0,
        info.tcpi_rtt, info.tcpi_snd_cwnd, info.tcpi_total_retrans);
  rows_free(&live);
  reset_on_close(pair[CLIENT]);
  close(pair[CLIENT]);
  nap_us(20000);
  close(pair[SERVER]);
  session_close(&s);
  struct told told = told_read(s.dir, metrics_each, &m);
  const struct seen *f = told_socket(&told, m.cookie), *g = told_socket(&told, other);
  if (check(f && g, "metrics: both flows are told of")) {
    metrics_compare(f, &info);
    check(m.rtts >= 20, "metrics: %" PRIu64 " RTTs", m.rtts);
    check(m.crowded * 10 <= m.rtts, "metrics: %" PRIu64 " of %" PRIu64 " RTTs less than half a ms after another",
          m.crowded, m.rtts);
    check(m.states[3] + m.states[4] > 0 && m.states[0] > 0 &&
              seen_last(f, OJO_KERNEL_TCP_CONGESTION_STATE) == info.tcpi_ca_state,
          "metrics: %" PRIu64 " recoveries, %" PRIu64 " losses, %" PRIu64 " times open; the last state %" PRIu64
          ", TCP_INFO has %u",
          m.states[3], m.states[4], m.states[0], seen_last(f, OJO_KERNEL_TCP_CONGESTION_STATE), info.tcpi_ca_state);
    check(seen_events(f, OJO_KERNEL_TCP_RESET_SENT) == 1 && !seen_events(f, OJO_KERNEL_TCP_RESET_RECEIVED) &&
            seen_events(g, OJO_KERNEL_TCP_RESET_RECEIVED) == 1 && !seen_events(g, OJO_KERNEL_TCP_RESET_SENT),
          "metrics: resets sent %" PRIu64 ", received %" PRIu64, seen_events(f, OJO_KERNEL_TCP_RESET_SENT),
          seen_events(g, OJO_KERNEL_TCP_RESET_RECEIVED));
    printf("metrics: %" PRIu64 " RTTs, %" PRIu64 " recoveries, %" PRIu64
           " losses, cwnd %u, ssthresh %u, rtt %u us\n",
           m.rtts, m.states[3], m.states[4], info.tcpi_snd_cwnd, info.tcpi_snd_ssthresh, info.tcpi_rtt);
  }
  told_free(&told);
  session_remove(&s);
}
#endif
