/* SPDX-License-Identifier: MIT
 *
 * kernel_order.h - the parts of kernel.c about kernel and application on one timeline: sends between the
 * application's own events, sockets bound to flows, and the scheduler beside what a thread did.
 */
#ifndef OJO_TESTS_KERNEL_ORDER_H
#define OJO_TESTS_KERNEL_ORDER_H

#include <sys/syscall.h>

/* ---- interleave: each of 100,000 sends lies between the application's events before and after it -------- */

#define SENDS 100000u
struct interleave {
  uint64_t cookie, application, flow; /* the kernel's flow */
  uint64_t *before, *after, *sent;
  uint32_t befores, afters, sents, type;
};
static void interleave_each(void *user, const ojo_reader_event *e) {
  struct interleave *i = (struct interleave *)user;
  if (e->type == OJO_KERNEL_CONNECTION && e->payload == i->cookie) i->flow = e->flow;
  if (e->flow == i->application && e->type == APPLICATION_BEFORE && i->befores < SENDS)
    i->before[i->befores++] = e->ts;
  if (e->flow == i->application && e->type == APPLICATION_AFTER && i->afters < SENDS) i->after[i->afters++] = e->ts;
  if (e->flow == i->flow && e->type == i->type) {
    if (i->sents < SENDS) i->sent[i->sents] = e->ts;
    i->sents++;
  }
}
struct drain {
  int fd;
  bool stop;
};
static void *drain_all(void *argument) {
  struct drain *drain = (struct drain *)argument;
  char buffer[65536];
  while (!__atomic_load_n(&drain->stop, __ATOMIC_RELAXED)) {
    struct pollfd wait_for = {drain->fd, POLLIN, 0};
    if (poll(&wait_for, 1, 20) > 0 && recv(drain->fd, buffer, sizeof buffer, MSG_DONTWAIT) == 0) break;
  }
  return NULL;
}
static void interleave(int kind, const char *name) {
  struct session s;
  struct interleave i;
  struct drain drain = {-1, false};
  pthread_t thread;
  char bytes[128];
  int fd;
  memset(&i, 0, sizeof i);
  memset(bytes, 0, sizeof bytes);
  if (!session_open(&s, &(ojo_bpf_desc){.probes = OJO_BPF_TCP | OJO_BPF_UDP, .thread = true}, name)) return;
  if (kind == SOCK_STREAM) {
    int pair[SIDES], one = 1;
    tcp_pair(AF_INET, pair);
    fd = pair[CLIENT], drain.fd = pair[SERVER];
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
  } else {
    uint16_t port = 0;
    drain.fd = bound(AF_INET, SOCK_DGRAM, &port);
    fd = connected(AF_INET, SOCK_DGRAM, port);
  }
  i.cookie = cookie_of(fd);
  i.type = kind == SOCK_STREAM ? OJO_KERNEL_TCP_SEND : OJO_KERNEL_UDP_SEND;
  i.application = ojo_flow_open(s.t, &(ojo_flow_desc){.label = "application"});
  if (pthread_create(&thread, NULL, drain_all, &drain)) give_up("pthread_create");
  for (uint32_t k = 0; k < SENDS; k++) {
    ojo_record(s.t, (uint32_t)i.application, APPLICATION_BEFORE, k);
    if (send(fd, bytes, 1 + k % 100, 0) <= 0) give_up("send");
    ojo_record(s.t, (uint32_t)i.application, APPLICATION_AFTER, k);
  }
  ojo_clock clock = ojo_query_desc(s.t).clock;
  __atomic_store_n(&drain.stop, true, __ATOMIC_RELAXED);
  pthread_join(thread, NULL);
  session_close(&s);
  i.before = (uint64_t *)calloc(3 * SENDS, sizeof *i.before);
  if (!i.before) abort();
  i.after = i.before + SENDS, i.sent = i.after + SENDS;
  struct told told = told_read(s.dir, interleave_each, &i);
  check(i.befores == SENDS && i.afters == SENDS && i.sents == SENDS,
        "%s: %u and %u events of the application, %u of the kernel", name, i.befores, i.afters, i.sents);
  struct tally order = {0, 0};
  uint64_t least = UINT64_MAX; /* how near the kernel's time comes to either of the application's */
  for (uint32_t k = 0; k < SENDS && i.sents == SENDS; k++) {
    if (!expect(&order, i.before[k] <= i.sent[k] && i.sent[k] <= i.after[k],
                "send %u: before %" PRIu64 ", kernel %" PRIu64 ", after %" PRIu64, k, i.before[k], i.sent[k],
                i.after[k]))
      continue;
    if (i.sent[k] - i.before[k] < least) least = i.sent[k] - i.before[k];
    if (i.after[k] - i.sent[k] < least) least = i.after[k] - i.sent[k];
  }
  tally_end(&order, SENDS, name);
  check(told.dropped == told.missed && !s.stats.ring_lost, "%s: %" PRIu64 " events lost", name, told.dropped);
  printf("%s: clock %d (3 is the TSC), the nearest %" PRIu64 " ns apart\n", name, (int)clock, least);
  free(i.before);
  told_free(&told);
  close(fd);
  close(drain.fd);
  session_remove(&s);
}
static void part_interleave(void) {
  interleave(SOCK_STREAM, "interleave tcp");
  interleave(SOCK_DGRAM, "interleave udp");
}

/* ---- bind: kernel events carry the application's flow, or are linked to it --------------------------- */

struct bind_case {
  const char *name;
  int kind;
  bool late, caller; /* bound after first traffic; polled by the caller, not yet when it is bound */
  int fds[SIDES];
  uint64_t cookie;
  uint32_t flow;
};
static struct bind_case bind_cases[] = {
  {"TCP, bound before connect", SOCK_STREAM, false, false, {0}, 0, 0},
  {"UDP, bound before connect", SOCK_DGRAM, false, false, {0}, 0, 0},
  {"TCP, bound after first traffic", SOCK_STREAM, true, false, {0}, 0, 0},
  {"UDP, bound after first traffic", SOCK_DGRAM, true, false, {0}, 0, 0},
  {"TCP, bound before, polled after", SOCK_STREAM, false, true, {0}, 0, 0},
  {"TCP, bound and polled after", SOCK_STREAM, true, true, {0}, 0, 0},
};
static void bind_move(struct session *s, struct bind_case *c, int polls) {
  send_bytes(c->fds[CLIENT], 1000);
  receive_bytes(c->fds[SERVER], 1000);
  if (!c->caller) nap_us(60000); /* the thread's polls are 10 ms apart */
  else if (polls) ojo_bpf_poll(s->b, 50);
}
static void bind_run(struct session *s, struct bind_case *c) {
  uint16_t port = 0;
  int listener = bound(AF_INET, c->kind, &port);
  address to = loopback(AF_INET, port);
  c->fds[CLIENT] = socket(AF_INET, c->kind, 0);
  c->cookie = cookie_of(c->fds[CLIENT]);
  c->flow = ojo_flow_open(s->t, &(ojo_flow_desc){.label = c->name});
  if (!c->late) check(ojo_bind_socket(s->t, c->flow, c->fds[CLIENT]) == OJO_OK, "bind: %s: ojo_bind_socket", c->name);
  if (connect(c->fds[CLIENT], &to.any, address_length(&to))) give_up("connect");
  c->fds[SERVER] = c->kind == SOCK_STREAM ? accept(listener, NULL, NULL) : listener;
  bind_move(s, c, !c->caller);
  if (c->late) check(ojo_bind_socket(s->t, c->flow, c->fds[CLIENT]) == OJO_OK, "bind: %s: ojo_bind_socket", c->name);
  bind_move(s, c, true);
  close(c->fds[CLIENT]);
  if (c->kind == SOCK_STREAM) close(listener);
  nap_us(20000);
  close(c->fds[SERVER]);
}
/* A UDP socket that is bound again to its flow: a second 4-tuple is a flow of its own still. */
static struct bind_case bind_twice = {"UDP, bound twice", SOCK_DGRAM, false, true, {0}, 0, 0};
static void bind_again(struct session *s, struct bind_case *c) {
  c->flow = ojo_flow_open(s->t, &(ojo_flow_desc){.label = c->name});
  c->fds[CLIENT] = socket(AF_INET, SOCK_DGRAM, 0);
  for (int i = 0; i < 2; i++) {
    uint16_t port = 0;
    int receiver = bound(AF_INET, SOCK_DGRAM, &port);
    address to = loopback(AF_INET, port);
    ojo_bind_socket(s->t, c->flow, c->fds[CLIENT]);
    if (sendto(c->fds[CLIENT], "", 1, 0, &to.any, address_length(&to)) != 1) give_up("sendto");
    close(receiver);
  }
  close(c->fds[CLIENT]);
}
static void bind_check(struct told *told, const char *dir, const struct bind_case *c) {
  unsigned type = c->kind == SOCK_STREAM ? OJO_KERNEL_TCP_SEND : OJO_KERNEL_UDP_SEND;
  const struct seen *own = told_find(told, c->flow, false), *kernel = NULL;
  uint64_t sent = own ? seen_sum(own, type) : 0, chain = 0;
  for (size_t i = 0; i < told->count; i++)
    if (told->flows[i].connections && told->flows[i].connection.cookie == c->cookie && told->flows[i].flow != c->flow)
      kernel = &told->flows[i];
  if (!c->late) {
    check(own && own->connections > 0 && sent == 2000 && !kernel,
          "bind: %s: %" PRIu64 " of 2000 bytes on the application's flow%s", c->name, sent,
          kernel ? ", others on one of the kernel's" : "");
  } else {
    uint64_t others = kernel ? seen_sum(kernel, type) : 0;
    check(others + sent == 2000,
          "bind: %s: %" PRIu64 " bytes on the application's flow, %" PRIu64 " on the kernel's", c->name, sent,
          others);
    check(c->caller || (kernel && kernel->parent == c->flow),
          "bind: %s: the kernel's flow is not linked to the application's", c->name);
    check(!kernel || kernel->parent == c->flow, "bind: %s: parent %" PRIu64 ", not %u", c->name,
          kernel ? kernel->parent : 0, c->flow);
  }
  ojo_reader *reader;
  ojo_reader_event e;
  bool bound_event = false;
  if (!check(ojo_reader_open(&reader, &(ojo_reader_desc){.path = dir, .chain = c->flow}) == OJO_OK, "bind: chain"))
    return;
  while (ojo_reader_next(reader, &e)) {
    if (e.type == type) chain += e.payload;
    bound_event |= e.type == OJO_SOCKET_BOUND && e.flow == c->flow && e.payload == c->cookie;
  }
  ojo_reader_close(reader);
  check(chain == 2000 && bound_event, "bind: %s: %" PRIu64 " of 2000 bytes in the flow's chain%s", c->name, chain,
        bound_event ? "" : ", no SOCKET_BOUND");
}
/* More sockets than any table holds, each closed at once, never connected: none may be in the way of later ones. */
static void bind_many(struct session *s) {
  uint32_t flow = ojo_flow_open(s->t, NULL);
  for (unsigned i = 0; i < OJO__BPF_TUPLES_MAX + 100; i++) {
    int fd = socket(AF_INET, i & 1 ? SOCK_STREAM : SOCK_DGRAM, 0);
    if (fd < 0 || ojo_bind_socket(s->t, flow, fd)) give_up("bind %u", i);
    close(fd);
  }
  check(s->b->bound.count <= OJO__BPF_BINDS_MAX, "bind: %u sockets are remembered that are closed", s->b->bound.count);
}
/* A bind links all flows of its socket, and takes no longer when others have many. */
static void bind_beside(struct session *s) {
  enum { FLOWS = 20000 };
  uint16_t port = 0;
  int fd = bound(AF_INET, SOCK_DGRAM, &port);
  uint64_t best = UINT64_MAX;
  for (uint32_t i = 0; i < FLOWS; i++) ojo__bpf_know_flow(s->b, UINT32_C(0xB0000000) + i, UINT64_C(1) << 40 | i, false);
  for (uint32_t i = 0; i < 4; i++) ojo__bpf_know_flow(s->b, UINT32_C(0xBF000000) + i, cookie_of(fd), false);
  ojo__bpf_forget_flow(s->b, 0xBF000001);
  for (unsigned i = 0; i < 100; i++) {
    uint64_t start = now_ns();
    if (ojo_bind_socket(s->t, 1, fd)) give_up("bind");
    if (now_ns() - start < best) best = now_ns() - start;
    for (uint32_t k = 0; i == 0 && k < 4; k++)
      if (k != 1) check(ojo__bpf_get(&s->b->announced, 0xBF000000 + k)->value & 1, "bind: flow %u is not linked", k);
  }
  check(best < 15000, "bind: beside %u flows it takes %" PRIu64 " ns at best", (unsigned)FLOWS, best);
  printf("note: ojo_bind_socket beside %u live flows takes %" PRIu64 " ns at best\n", (unsigned)FLOWS, best);
  for (uint32_t i = 0; i < FLOWS; i++) ojo__bpf_forget_flow(s->b, UINT32_C(0xB0000000) + i);
  for (uint32_t i = 0; i < 4; i++) ojo__bpf_forget_flow(s->b, UINT32_C(0xBF000000) + i);
  check(!s->b->unlinked.count, "bind: %u sockets have flows that are gone", s->b->unlinked.count);
  close(fd);
}
static void part_bind(void) {
  for (int caller = 0; caller < 2; caller++) {
    struct session s;
    if (!session_open(&s, &(ojo_bpf_desc){.thread = !caller}, "bind")) return;
    if (caller) bind_many(&s), bind_beside(&s), bind_again(&s, &bind_twice);
    for (size_t i = 0; i < sizeof bind_cases / sizeof *bind_cases; i++)
      if (bind_cases[i].caller == caller) bind_run(&s, &bind_cases[i]);
    check(ojo_bind_socket(s.t, 1, -1) == OJO_ERR_ARGUMENT, "bind: of no descriptor");
    check(ojo_bind_socket(s.t, 1, 0) == OJO_ERR_ARGUMENT, "bind: of no socket");
    check(ojo_bind_socket(NULL, 1, -1) == OJO_OK, "bind: without a tracer");
    session_close(&s);
    struct told told = told_read(s.dir, NULL, NULL);
    for (size_t i = 0; i < sizeof bind_cases / sizeof *bind_cases; i++)
      if (bind_cases[i].caller == caller) bind_check(&told, s.dir, &bind_cases[i]);
    const struct seen *twice = caller ? told_find(&told, bind_twice.flow, false) : NULL;
    check(!caller || (twice && twice->connections == 1), "bind: %s: %u 4-tuples carry the flow", bind_twice.name,
          twice ? (unsigned)twice->connections : 0);
    told_free(&told);
    session_remove(&s);
  }
}

/* ---- scheduler: a thread that sleeps, one that is woken, two that fight for a processor ---------------- */

enum { SLEEPS = 20, SLEEP_US = 4000 };
struct worker {
  pthread_t thread;
  ojo_tracer *t;
  uint32_t tid, flow;
  int fds[2];
};
static void worker_enter(struct worker *w) { w->tid = (uint32_t)syscall(SYS_gettid); }
static void *sleep_work(void *argument) { /* by a timer */
  struct worker *w = (struct worker *)argument;
  worker_enter(w);
  for (int i = 0; i < SLEEPS; i++) {
    ojo_record(w->t, w->flow, APPLICATION_BEFORE, (uint64_t)i);
    nap_us(SLEEP_US);
    ojo_record(w->t, w->flow, APPLICATION_AFTER, (uint64_t)i);
  }
  return NULL;
}
static void *wait_work(void *argument) { /* for another thread's bytes */
  struct worker *w = (struct worker *)argument;
  char byte;
  worker_enter(w);
  for (int i = 0; i < SLEEPS; i++) {
    ojo_record(w->t, w->flow, APPLICATION_BEFORE, (uint64_t)i);
    if (read(w->fds[0], &byte, 1) != 1) give_up("read");
    ojo_record(w->t, w->flow, APPLICATION_AFTER, (uint64_t)i);
  }
  return NULL;
}
static void *wake_work(void *argument) {
  struct worker *w = (struct worker *)argument;
  worker_enter(w);
  for (int i = 0; i < SLEEPS; i++) {
    nap_us(SLEEP_US);
    if (write(w->fds[1], "", 1) != 1) give_up("write");
  }
  return NULL;
}
static void *spin_work(void *argument) {
  struct worker *w = (struct worker *)argument;
  cpu_set_t set;
  CPU_ZERO(&set);
  CPU_SET(0, &set);
  sched_setaffinity(0, sizeof set, &set);
  worker_enter(w);
  for (uint64_t end = now_ns() + 200000000; now_ns() < end;) {
  }
  return NULL;
}
enum { SLEEPER, WAITER, WAKER, SPINNER, OTHER_SPINNER, WORKERS };

struct scheduled { /* what was told of the workers, in time order */
  struct worker *workers;
  struct tally asleep, woken;
  unsigned preempted[WORKERS], times_asleep[WORKERS], late;
  uint64_t off_ns[WORKERS], before_ns[WORKERS], waker[WORKERS], off_sum_ns[WORKERS];
  struct tally durations;
  bool was_asleep[WORKERS], was_woken[WORKERS];
};
static void scheduled_each(void *user, const ojo_reader_event *e) {
  struct scheduled *x = (struct scheduled *)user;
  for (int i = 0; i < WORKERS; i++) {
    struct worker *w = &x->workers[i];
    if (e->flow == w->flow && e->type == APPLICATION_BEFORE) {
      x->before_ns[i] = e->ts;
      x->off_sum_ns[i] = 0, x->was_woken[i] = false;
    }
    if (e->flow == w->flow && e->type == APPLICATION_AFTER && i == WAITER && x->off_sum_ns[i] < 100000) {
      x->late++; /* it came so late that the byte was there */
    } else if (e->flow == w->flow && e->type == APPLICATION_AFTER && i <= WAITER) {
      /* A sleep is at least so long, a wait may begin late. On a busy machine a thread may be preempted on its way to
       * sleep, and be woken before it gets there: not asleep, but off the processor. */
      expect(&x->asleep,
             x->off_sum_ns[i] >= (i == SLEEPER ? SLEEP_US * 990u : 100000u) &&
                 x->off_sum_ns[i] <= e->ts - x->before_ns[i],
             "%s: off the processor for %" PRIu64 " ns within %" PRIu64, i ? "waiter" : "sleeper", x->off_sum_ns[i],
             e->ts - x->before_ns[i]);
      expect(&x->woken, x->was_woken[i] && x->waker[i] == (i == SLEEPER ? 0 : x->workers[WAKER].tid),
             "%s: %swoken, by %" PRIu64 " (the waker is %u)", i ? "waiter" : "sleeper",
             x->was_woken[i] ? "" : "not ", x->waker[i], x->workers[WAKER].tid);
    }
    if (e->flow || e->payload != w->tid) continue;
    if (e->type == OJO_KERNEL_OFF_CPU) {
      x->off_ns[i] = e->ts, x->was_asleep[i] = e->number == 1;
      x->preempted[i] += e->number == 0;
    } else if (e->type == OJO_KERNEL_WAKEUP) {
      x->was_woken[i] = true, x->waker[i] = e->number;
    } else if (e->type == OJO_KERNEL_ON_CPU && x->off_ns[i]) {
      uint64_t off = e->ts - x->off_ns[i];
      expect(&x->durations, off == e->number, "ON_CPU says %" PRIu64 " ns, its time is %" PRIu64 " after OFF_CPU",
             e->number, off);
      x->off_sum_ns[i] += off;
      x->times_asleep[i] += x->was_asleep[i];
    }
  }
}
static void part_scheduler(void) {
  static void *(*const work[WORKERS])(void *) = {sleep_work, wait_work, wake_work, spin_work, spin_work};
  struct worker workers[WORKERS];
  struct scheduled x;
  struct session s;
  uint32_t pid = (uint32_t)getpid();
  int fds[2];
  if (pipe(fds)) give_up("pipe");
  memset(&x, 0, sizeof x);
  memset(workers, 0, sizeof workers);
  x.workers = workers;
  if (!session_open(&s, &(ojo_bpf_desc){.probes = OJO_BPF_SCHEDULER, .pids = &pid, .pid_count = 1, .thread = true},
                    "scheduler"))
    return;
  for (int i = 0; i < WORKERS; i++) {
    workers[i].t = s.t, workers[i].fds[0] = fds[0], workers[i].fds[1] = fds[1];
    workers[i].flow = ojo_flow_open(s.t, NULL);
  }
  for (int first = 0; first < WORKERS; first += SPINNER) { /* spinning after sleeping: else the sleepers are late */
    int end = first ? WORKERS : SPINNER;
    for (int i = first; i < end; i++)
      if (pthread_create(&workers[i].thread, NULL, work[i], &workers[i])) give_up("pthread_create");
    for (int i = first; i < end; i++) pthread_join(workers[i].thread, NULL);
  }
  session_close(&s);
  struct told told = told_read(s.dir, scheduled_each, &x);
  tally_end(&x.asleep, 2 * SLEEPS - x.late, "scheduler: times off the processor");
  tally_end(&x.woken, 2 * SLEEPS - x.late, "scheduler: who woke whom");
  tally_end(&x.durations, 3 * SLEEPS, "scheduler: durations off the processor");
  check(x.times_asleep[SLEEPER] >= SLEEPS / 2 && x.times_asleep[WAITER] >= SLEEPS / 2,
        "scheduler: the sleeper was asleep %u times, the waiter %u", x.times_asleep[SLEEPER], x.times_asleep[WAITER]);
  check(x.preempted[SPINNER] + x.preempted[OTHER_SPINNER] >= 3, "scheduler: preempted %u and %u times",
        x.preempted[SPINNER], x.preempted[OTHER_SPINNER]);
  printf("scheduler: two threads on one processor were preempted %u and %u times in 0.2 s\n", x.preempted[SPINNER],
         x.preempted[OTHER_SPINNER]);
  check(told.dropped == told.missed && !s.stats.ring_lost, "scheduler: %" PRIu64 " events lost", told.dropped);
  told_free(&told);
  session_remove(&s);
}
#endif
