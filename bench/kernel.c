/* SPDX-License-Identifier: MIT
 *
 * kernel.c - what the probes of ojo_bpf.h cost the connections that they look at
 *
 *   kernel DIR OBJECT   writes below DIR only, and removes what it wrote; OBJECT: build/ojo_bpf.o
 *
 * Over the loopback interface, with both ends on one processor, and what takes the events (ojo_bpf's thread and the
 * tracer's flusher) on another: so what is measured is the work that the probes add, not who waits for whom. CPU time
 * of both ends, in which the kernel counts what it does for them in soft interrupts too; a kernel with
 * CONFIG_IRQ_TIME_ACCOUNTING does not: there BENCH_WALL=1 takes wall time, on a machine that does nothing else.
 *
 *   kernel tcp bulk        per KiB of writes of 64 KiB
 *   kernel tcp ping-pong   per round trip of one byte each way
 *   kernel udp             per datagram of 1,200 bytes, in bursts of 32
 *   kernel udp ping-pong   per round trip of one byte each way
 *   kernel sustained       events per second out of 1-byte TCP sends and receives at full speed, and how many were lost
 *
 * In each round every subject runs once, in an order of its own; its probes are loaded before and removed after.
 * "off again" is a second subject without probes: how far its ratio is from 1 is how far the others' can be trusted.
 * A ratio is the median of the rounds' own ratios, which a machine that is slower at times disturbs less than a ratio of
 * medians. Needs root; without, it says so and measures nothing.
 */
#include "bench.h" /* first: it asks for what sched.h declares */
#include "scratch.h"

#define OJO_IMPLEMENTATION
#include "../ojo.h"
#define OJO_BPF_IMPLEMENTATION
#include "../ojo_bpf.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <sched.h>
#include <sys/socket.h>
#include <unistd.h>

enum { OFF, OFF_AGAIN, TCP, TCP_UDP, UDP, SCHEDULER, ALL, SUBJECTS };
static const struct subject {
  const char *name;
  uint32_t probes; /* 0: none */
} subjects[SUBJECTS] = {
  [OFF] = {"no probes", 0},
  [OFF_AGAIN] = {"off again", 0},
  [TCP] = {"all TCP probes", OJO_BPF_TCP},
  [TCP_UDP] = {"all TCP and UDP probes", OJO_BPF_TCP | OJO_BPF_UDP},
  [UDP] = {"UDP probes", OJO_BPF_UDP},
  [SCHEDULER] = {"scheduler probes", OJO_BPF_SCHEDULER},
  [ALL] = {"all probes", OJO_BPF_ALL},
};

enum { TCP_BULK, TCP_PING, UDP_BULK, UDP_PING, LOADS };
static const struct load {
  const char *name, *unit;
  bool udp, bulk;
  uint32_t subjects; /* a bit each */
} loads[LOADS] = {
  [TCP_BULK] = {"kernel tcp bulk", "ns/KiB", false, true, ~(1u << UDP)},
  [TCP_PING] = {"kernel tcp ping-pong", "ns/round trip", false, false, ~(1u << UDP)},
  [UDP_BULK] = {"kernel udp", "ns/datagram", true, true, ~(1u << TCP)},
  [UDP_PING] = {"kernel udp ping-pong", "ns/round trip", true, false, ~(1u << TCP)},
};

enum { WRITE_BYTES = 64 << 10, DATAGRAM_BYTES = 1200, BURST = 32 };
static cpu_set_t ends, consumer; /* the same processor if there is only one */
static unsigned char data[2][WRITE_BYTES]; /* one of each end */

static void fail(const char *what) {
  perror(what);
  exit(1);
}

static void choose_processors(void) {
  cpu_set_t allowed;
  int found = 0;
  CPU_ZERO(&ends);
  CPU_ZERO(&consumer);
  if (sched_getaffinity(0, sizeof allowed, &allowed)) fail("sched_getaffinity");
  for (size_t cpu = 0; cpu < CPU_SETSIZE && found < 2; cpu++)
    if (CPU_ISSET(cpu, &allowed)) CPU_SET(cpu, found++ ? &consumer : &ends);
  if (found < 2) consumer = ends;
  sched_setaffinity(0, sizeof consumer, &consumer); /* also of the threads that ojo and ojo_bpf start */
}

/* ---- the two ends ----------------------------------------------------------------------------- */

struct run {
  const struct load *load;
  int fd[2];         /* the ends: connected sockets */
  uint64_t amount;   /* KiB, datagrams, round trips; an eighth of it goes before, unmeasured */
  uint64_t ns[2];    /* what the amount took each end */
  uint64_t until_ns; /* sustained: 1-byte sends until then; 0: not so */
};

static void connect_ends(struct run *r) {
  struct sockaddr_in address = {.sin_family = AF_INET}, other;
  socklen_t bytes = sizeof address, other_bytes = sizeof other;
  const struct timeval patience = {.tv_sec = 5};
  const int one = 1, kind = (r->load->udp ? SOCK_DGRAM : SOCK_STREAM) | SOCK_CLOEXEC;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  int first = socket(AF_INET, kind, 0);
  r->fd[0] = socket(AF_INET, kind, 0);
  if (first < 0 || r->fd[0] < 0 || bind(first, (struct sockaddr *)&address, sizeof address) ||
      (!r->load->udp && listen(first, 1)) || getsockname(first, (struct sockaddr *)&address, &bytes))
    fail("socket");
  /* Not what a pacing one has to say of when it sends: what sending costs. */
  if (!r->load->udp) setsockopt(r->fd[0], IPPROTO_TCP, TCP_CONGESTION, "cubic", 5);
  if (connect(r->fd[0], (struct sockaddr *)&address, sizeof address)) fail("connect");
  r->fd[1] = first;
  if (r->load->udp) {
    if (getsockname(r->fd[0], (struct sockaddr *)&other, &other_bytes) ||
        connect(first, (struct sockaddr *)&other, other_bytes))
      fail("connect");
  } else {
    r->fd[1] = accept(first, NULL, NULL);
    if (r->fd[1] < 0) fail("accept");
    close(first);
  }
  for (int i = 0; i < 2; i++) {
    setsockopt(r->fd[i], SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
    if (!r->load->udp) setsockopt(r->fd[i], IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
  }
}

static uint64_t clock_of(int end) {
  const char *wall = getenv("BENCH_WALL");
  return !wall ? bench_thread_ns() : end == 0 ? bench_wall_ns() : 0;
}
static void put(int fd, int end, size_t bytes) {
  if (send(fd, data[end], bytes, MSG_NOSIGNAL) != (ssize_t)bytes) fail("send");
}
static size_t take(int fd, int end, size_t room) {
  ssize_t got = recv(fd, data[end], room, 0);
  if (got <= 0) fail("recv");
  return (size_t)got;
}

/* `amount`, by the end that begins, and by the other one. */
static void give(const struct run *r, uint64_t amount) {
  int fd = r->fd[0];
  if (r->load->udp && r->load->bulk) { /* alone: a receiver of its own would lose what comes while it waits */
    for (uint64_t i = 0; i < amount; i += BURST) {
      for (int k = 0; k < BURST; k++) put(fd, 0, DATAGRAM_BYTES);
      for (int k = 0; k < BURST; k++) take(r->fd[1], 1, WRITE_BYTES);
    }
  } else if (r->load->bulk) {
    for (uint64_t i = 0; i < amount * 1024; i += WRITE_BYTES) put(fd, 0, WRITE_BYTES);
    take(fd, 0, 1);
  } else {
    for (uint64_t i = 0; i < amount; i++) put(fd, 0, 1), take(fd, 0, 1);
  }
}
static void answer(const struct run *r, uint64_t amount) {
  int fd = r->fd[1];
  if (r->load->udp && r->load->bulk) return;
  if (r->load->bulk) {
    for (uint64_t i = 0; i < amount * 1024;) i += take(fd, 1, WRITE_BYTES);
    put(fd, 1, 1);
  } else {
    for (uint64_t i = 0; i < amount; i++) take(fd, 1, 1), put(fd, 1, 1);
  }
}

static void *begin_end(void *argument) {
  struct run *r = (struct run *)argument;
  sched_setaffinity(0, sizeof ends, &ends);
  if (r->until_ns) {
    for (int i = 0; i & 255 || bench_wall_ns() < r->until_ns; i++) put(r->fd[0], 0, 1);
    shutdown(r->fd[0], SHUT_WR);
    return NULL;
  }
  give(r, r->amount / 8);
  uint64_t start = clock_of(0);
  give(r, r->amount);
  r->ns[0] = clock_of(0) - start;
  return NULL;
}
static void *other_end(void *argument) {
  struct run *r = (struct run *)argument;
  sched_setaffinity(0, sizeof ends, &ends);
  if (r->until_ns) {
    while (recv(r->fd[1], data[1], 64, 0) > 0) {}
    return NULL;
  }
  answer(r, r->amount / 8);
  uint64_t start = clock_of(1);
  answer(r, r->amount);
  r->ns[1] = clock_of(1) - start;
  return NULL;
}

static void run(struct run *r) {
  pthread_t thread[2];
  connect_ends(r);
  if (pthread_create(&thread[0], NULL, other_end, r) || pthread_create(&thread[1], NULL, begin_end, r)) fail("thread");
  pthread_join(thread[1], NULL);
  pthread_join(thread[0], NULL);
  close(r->fd[0]);
  close(r->fd[1]);
}

/* ---- rounds ----------------------------------------------------------------------------------- */

static ojo_tracer *tracer;
static const char *object;
static struct bench_samples samples[LOADS][SUBJECTS];
static double in_pairs[LOADS][SUBJECTS];
static long long dropped[SUBJECTS];

static ojo_bpf *probes_on(uint32_t probes) {
  const uint32_t pid = (uint32_t)getpid();
  ojo_bpf *b;
  ojo_bpf_desc desc = {.tracer = tracer, .object_path = object, .probes = probes, .pids = &pid, .pid_count = 1,
                       .thread = true};
  ojo_result result = ojo_bpf_open(&b, &desc);
  if (result == OJO_ERR_PERMISSION) {
    fputs("kernel: left out: kernel probes need root\n", stderr);
    exit(0);
  }
  if (result != OJO_OK) {
    fprintf(stderr, "kernel: probes: %s\n", ojo_result_string(result));
    exit(1);
  }
  return b;
}
/* Returns what was lost since ojo_query_stats gave `before`, on the way to the tracer and by it. */
static long long probes_off(ojo_bpf *b, const ojo_stats *before) {
  ojo_bpf_close(b); /* which takes what is still in the ring, and tells the tracer of losses */
  ojo_stats after = ojo_query_stats(tracer);
  if (after.recorded == before->recorded) {
    fputs("kernel: the probes saw nothing\n", stderr);
    exit(1);
  }
  return (long long)(after.dropped - before->dropped);
}

static void one_round(const uint64_t amounts[LOADS], bool counts) {
  int order[SUBJECTS];
  for (int i = 0; i < SUBJECTS; i++) order[i] = i;
  for (int i = SUBJECTS - 1; i > 0; i--) {
    int other = rand() % (i + 1), kept = order[i];
    order[i] = order[other];
    order[other] = kept;
  }
  for (int i = 0; i < SUBJECTS; i++) {
    int s = order[i];
    ojo_stats before = ojo_query_stats(tracer);
    ojo_bpf *b = subjects[s].probes ? probes_on(subjects[s].probes) : NULL;
    for (int l = 0; l < LOADS; l++) {
      if (!(loads[l].subjects >> s & 1)) continue;
      struct run r = {.load = &loads[l], .amount = amounts[l]};
      run(&r);
      if (counts) bench_add(&samples[l][s], (double)(r.ns[0] + r.ns[1]) / (double)r.amount);
    }
    if (b) dropped[s] += probes_off(b, &before);
  }
}

/* The median of what the subject took in a round over what it took without probes (twice, if it is not one of these) in
 * the same round. To be called before anything sorts the samples. */
static double round_by_round(const struct bench_samples subject[SUBJECTS], int s) {
  struct bench_samples ratios = {.count = 0};
  for (int i = 0; i < subject[s].count; i++) {
    double off = subject[OFF].value[i], again = s == OFF_AGAIN ? off : subject[OFF_AGAIN].value[i];
    bench_add(&ratios, subject[s].value[i] / ((off + again) / 2));
  }
  return bench_median(&ratios);
}

static void sustained(uint64_t ns, int runs) {
  struct bench_samples rate = {.count = 0};
  long long lost = 0;
  for (int i = 0; i < runs; i++) {
    struct run r = {.load = &loads[TCP_PING]};
    ojo_stats before = ojo_query_stats(tracer);
    ojo_bpf *b = probes_on(OJO_BPF_TCP);
    uint64_t start = bench_wall_ns();
    r.until_ns = start + ns;
    run(&r);
    double seconds = (double)(bench_wall_ns() - start) / 1e9;
    lost += probes_off(b, &before);
    bench_add(&rate, (double)(ojo_query_stats(tracer).recorded - before.recorded) / 1e6 / seconds);
  }
  bench_row("kernel sustained", "all TCP probes", 2, "M events/s", &rate, NULL, 0, lost, "1-byte sends at full speed");
}

int main(int count, char **argument) {
  char dir[4096];
  if (count != 3) {
    fputs("usage: kernel DIR OBJECT\n", stderr);
    return 2;
  }
  object = argument[2];
  choose_processors();
  scratch_make(dir, sizeof dir, argument[1], "kernel");
  if (ojo_open(&tracer, &(ojo_desc){.dir = dir, .disk_bytes_max = 64 << 20}) != OJO_OK) return 1;

  const uint64_t amounts[LOADS] = {
    [TCP_BULK] = bench_scale(256 << 10, 64 << 10, 4 << 10), [TCP_PING] = bench_scale(4096, 4096, 256),
    [UDP_BULK] = bench_scale(16384, 16384, 1024), [UDP_PING] = bench_scale(4096, 4096, 256)};
  int rounds = (int)bench_scale(41, 3, 1);
  one_round(amounts, false); /* warms up */
  for (int i = 0; i < rounds; i++) one_round(amounts, true);
  for (int l = 0; l < LOADS; l++)
    for (int s = 0; s < SUBJECTS; s++) in_pairs[l][s] = round_by_round(samples[l], s);
  for (int l = 0; l < LOADS; l++) {
    for (int s = 0; s < SUBJECTS; s++) {
      if (!samples[l][s].count) continue;
      bench_row(loads[l].name, subjects[s].name, 2, loads[l].unit, &samples[l][s], s == OFF ? NULL : subjects[OFF].name,
                bench_median(&samples[l][s]) / in_pairs[l][s], subjects[s].probes ? dropped[s] : -1,
                s == OFF ? NULL : "the median of the ratios of rounds");
    }
  }
  sustained(bench_scale(3000000000u, 500000000u, 50000000u), (int)bench_scale(5, 1, 1));
  ojo_close(tracer);
  scratch_remove(dir);
  return 0;
}
