/* SPDX-License-Identifier: MIT
 *
 * 7_kernel.c - what a program decided and what the kernel did to the same connections, on one clock
 *
 *     make bpf                    # the kernel side: build/ojo_bpf.o
 *     cc -std=gnu11 -O2 -I. examples/7_kernel.c -o 7_kernel -lbpf -pthread
 *     sudo OJO_DIR=traces ./7_kernel
 *
 * In a network namespace of its own, whose link loses 3 % of all packets, run one after the other: example 4
 * (the program 4_transport beside this one; left out if it is not there), and a file transfer over TCP.
 * This program records its own sends and receives, the kernel probes what became of them; both go into one
 * trace, and as the sockets are bound to the application's flows, both stand on the same flows. Example 4
 * writes two traces of its own into the directory; its sockets' kernel events stand in ours, on flows of the
 * kernel's: SOCKET_BOUND there and KERNEL_CONNECTION here hold the same cookie.
 * At its end it looks for a segment that the kernel had to send again, and prints the ojo-cat commands that
 * show its story: the application's send, the kernel's, the retransmit, what became of RTT and window, and the
 * peer's receive.
 *
 * Needs root: for the namespace, and for the probes (alone they need CAP_BPF, CAP_PERFMON and, for UDP,
 * CAP_NET_ADMIN). Without, it says so in one line, and its exit code is 77.
 */
#define _GNU_SOURCE /* unshare */
#define OJO_IMPLEMENTATION
#include "ojo.h"
#define OJO_BPF_IMPLEMENTATION
#include "ojo_bpf.h"
#define OJO_READER_IMPLEMENTATION
#include "ojo_reader.h"

#include <arpa/inet.h>
#include <errno.h>
#include <inttypes.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <sched.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

/* The kernel side becomes part of this program: the assembler takes the file in as it is, and one binary
 * needs no file beside it. The path is relative to the directory in which the compiler runs. */
#ifndef KERNEL_SIDE
#define KERNEL_SIDE "build/ojo_bpf.o"
#endif
__asm__(".pushsection .rodata\n"
        ".balign 8\n"
        ".globl kernel_side, kernel_side_end\n" /* with link-time optimisation the names must be global */
        ".hidden kernel_side, kernel_side_end\n"
        "kernel_side: .incbin \"" KERNEL_SIDE "\"\n"
        "kernel_side_end:\n"
        ".popsection\n");
extern const unsigned char kernel_side[], kernel_side_end[];

/* In a namespace of its own every port is free. */
enum { TCP_PORT = 7000, UDP_PORT = 7001, FILE_BYTES = 1 << 20, WRITE_BYTES = 4 << 10 };
enum { SEND_RETURNED = OJO_APPLICATION_TYPE_FIRST };
static const ojo_type types[] = {
  {SEND_RETURNED, "SEND_RETURNED", "Socket", "bytes of the file that the kernel has by now", OJO_VALUE_NONE}};

static uint8_t file[FILE_BYTES], copy[FILE_BYTES + 1];
static ojo_tracer *trace;

extern char **environ;

static int failed(const char *what) {
  fprintf(stderr, "7_kernel: %s: %s\n", what, strerror(errno));
  return 1;
}

static int skipped(const char *why) {
  fprintf(stderr, "7_kernel: left out: %s\n", why);
  return 77;
}

/* ---- the link -------------------------------------------------------------------------------- */

static pid_t start(const char *program, const char *const *arguments) { /* 0, and errno: it can't be */
  pid_t child;
  errno = posix_spawnp(&child, program, NULL, NULL, (char *const *)(uintptr_t)arguments, environ);
  return errno ? 0 : child;
}

static bool succeeds(pid_t child) {
  int status;
  while (child && waitpid(child, &status, 0) < 0 && errno == EINTR) {}
  return child && WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

/* A loopback interface that nobody else sees, made as bad as a link can be: 20 Mbit/s with a queue of 10 ms,
 * segments of one packet each, and 3 % of what arrives gets lost. */
static const char *link_make(void) { /* NULL, or what can't be done */
  static const char *const commands[][20] = {
    {"ip", "link", "set", "dev", "lo", "mtu", "1500", "gso_max_segs", "1", "up", NULL},
    {"tc", "qdisc", "add", "dev", "lo", "root", "tbf", "rate", "20mbit", "burst", "5k", "limit", "25k", NULL},
    {"nft", "add", "table", "ip", "lossy", NULL},
    {"nft", "add", "chain", "ip", "lossy", "arrive", "{ type filter hook input priority 0; }", NULL},
    {"nft", "add", "rule", "ip", "lossy", "arrive", "numgen random mod 100 < 3 drop", NULL}};
  static char text[80];
  if (unshare(CLONE_NEWNET)) return "a network namespace of its own needs root (CAP_SYS_ADMIN)";
  for (size_t i = 0; i < sizeof commands / sizeof *commands; i++) {
    if (succeeds(start(commands[i][0], commands[i]))) continue;
    snprintf(text, sizeof text, "'%s %s %s' failed", commands[i][0], commands[i][1], commands[i][2]);
    return text;
  }
  return NULL;
}

/* ---- example 4, as it is --------------------------------------------------------------------- */

static int transport_run(void) {
  char program[4096], port[8];
  ssize_t length = readlink("/proc/self/exe", program, sizeof program - 16);
  if (length < 0) return failed("/proc/self/exe");
  program[length] = 0;
  strcpy(strrchr(program, '/'), "/4_transport");
  snprintf(port, sizeof port, "%d", UDP_PORT);
  const char *server[] = {program, "--server", port, "--loss", "0", NULL};
  const char *client[] = {program, "--client", port, "--loss", "0", "--bytes", "500K", NULL};
  if (access(program, X_OK)) return puts("udp: 4_transport is not beside this program: left out"), 0;
  pid_t first = start(program, server), second = start(program, client);
  bool second_ok = succeeds(second), first_ok = succeeds(first);
  return !first_ok || !second_ok;
}

/* ---- the file over TCP ----------------------------------------------------------------------- */

struct receiver {
  int listener;
  uint32_t flow;
  uint64_t bytes;
};

static void *receive(void *argument) {
  struct receiver *r = (struct receiver *)argument;
  int fd = accept(r->listener, NULL, NULL);
  if (fd < 0) return NULL;
  ojo_bind_socket(trace, r->flow, fd); /* the kernel knows it since the handshake: from now on as this flow */
  for (ssize_t got; (got = recv(fd, copy + r->bytes, sizeof copy - r->bytes, 0)) > 0; r->bytes += (uint64_t)got)
    ojo_offset_received_sized(trace, r->flow, r->bytes, (uint64_t)got);
  close(fd);
  return NULL;
}

static bool send_file(int fd, uint32_t flow) {
  for (uint64_t at = 0; at < FILE_BYTES;) {
    uint64_t rest = FILE_BYTES - at, before = ojo_now(trace);
    ssize_t took = send(fd, file + at, rest < WRITE_BYTES ? rest : WRITE_BYTES, MSG_NOSIGNAL);
    if (took < 0) return false;
    ojo_offset_sent_sized_at(trace, before, flow, at, (uint64_t)took);
    at += (uint64_t)took;
    ojo_record(trace, flow, SEND_RETURNED, at);
  }
  return true;
}

static int transfer_run(uint32_t *sender_flow, uint32_t *receiver_flow) {
  struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(TCP_PORT)};
  struct receiver receiver = {.listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)};
  int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), unsent = 2 * WRITE_BYTES;
  pthread_t thread;
  uint32_t flow = ojo_flow_open(trace, &(ojo_flow_desc){.role = OJO_ROLE_CLIENT, .protocol = "tcp",
                                                        .label = "sender"});
  receiver.flow = ojo_flow_open(trace, &(ojo_flow_desc){.role = OJO_ROLE_SERVER, .protocol = "tcp",
                                                        .label = "receiver"});
  *sender_flow = flow;
  *receiver_flow = receiver.flow;

  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  if (receiver.listener < 0 || fd < 0 ||
      bind(receiver.listener, (struct sockaddr *)&address, sizeof address) || listen(receiver.listener, 1))
    return failed("listen");
  if (pthread_create(&thread, NULL, receive, &receiver)) return failed("thread");

  /* The one line that a program needs for its kernel events. Before connect: so the handshake is in, too. */
  ojo_bind_socket(trace, flow, fd);
  /* No more than this waits unsent in the kernel: what is written is soon on its way. */
  setsockopt(fd, IPPROTO_TCP, TCP_NOTSENT_LOWAT, &unsent, sizeof unsent);
  if (connect(fd, (struct sockaddr *)&address, sizeof address)) return failed("connect");
  if (!send_file(fd, flow)) return failed("send");
  shutdown(fd, SHUT_WR);
  recv(fd, &unsent, 1, 0); /* until the peer has it all, and closes: then the kernel's last word is in, too */
  close(fd);
  pthread_join(thread, NULL);
  close(receiver.listener);
  ojo_flow_close(trace, flow, 0, NULL);
  ojo_flow_close(trace, receiver.flow, 0, NULL);

  bool same = receiver.bytes == FILE_BYTES && !memcmp(file, copy, FILE_BYTES);
  printf("tcp: received %" PRIu64 " of %d bytes, %s\n", receiver.bytes, FILE_BYTES, same ? "verified" : "WRONG");
  return !same;
}

/* ---- the story ------------------------------------------------------------------------------- */

/* What the receiver has taken when the kernel sends something again ends at the byte that is missing: that byte's
 * story begins with the send that held it and ends with the next receive. We take the shortest one in which
 * the sender's window or round-trip time changed in between. */
struct story {
  uint64_t sent_ns, again_ns, received_ns; /* unix */
  uint64_t byte;
  uint64_t linked; /* the kernel's flow of the receiver's socket, which it saw before we bound it */
  uint32_t trace;  /* the reader's index of it */
};

static bool story_find(ojo_reader *r, uint32_t sender, uint32_t receiver, struct story *best) {
  enum { NOT_YET, SENT_AGAIN, CHANGED, RECEIVED } step = NOT_YET;
  struct { uint64_t end, time_ns; } sends[1024]; /* in order; there are 256 if each took all it was given */
  struct story now = {0};
  size_t send_count = 0;
  uint64_t taken = 0;
  ojo_reader_event e;
  *best = now;
  while (ojo_reader_next(r, &e)) {
    if (ojo_reader_trace(r, e.trace)->pid != (uint32_t)getpid()) continue; /* flows of example 4's */
    if (e.type == OJO_STREAM_LINK_PARENT && e.payload == receiver) now.linked = e.flow;
    if (e.flow == sender) {
      if (e.type == OJO_OFFSET_SENT && send_count < sizeof sends / sizeof *sends) {
        sends[send_count].end = e.number;
        sends[send_count++].time_ns = e.time_ns;
      } else if (e.type == OJO_KERNEL_TCP_RETRANSMIT && step == NOT_YET) {
        size_t i = 0;
        while (i < send_count && sends[i].end <= taken) i++;
        if (i == send_count) continue; /* of the handshake, or of what had come after all */
        now = (struct story){sends[i].time_ns, e.time_ns, 0, taken, now.linked, e.trace};
        step = SENT_AGAIN;
      } else if ((e.type == OJO_KERNEL_TCP_CWND || e.type == OJO_KERNEL_TCP_RTT) && step == SENT_AGAIN) {
        step = CHANGED;
      }
    } else if (now.linked && e.flow == now.linked && e.type == OJO_KERNEL_TCP_RECEIVE) {
      taken += e.payload;
      step = step == CHANGED ? RECEIVED : NOT_YET;
    } else if (e.flow == receiver && e.type == OJO_OFFSET_RECEIVED && step == RECEIVED) {
      now.received_ns = e.time_ns;
      if (!best->sent_ns || now.received_ns - now.sent_ns < best->received_ns - best->sent_ns) *best = now;
      step = NOT_YET;
    }
  }
  return best->sent_ns != 0;
}

static int story_show(const char *dir, uint32_t sender, uint32_t receiver) {
  ojo_reader *r;
  struct story s;
  if (ojo_reader_open(&r, &(ojo_reader_desc){.path = dir}) != OJO_OK) return failed(dir);
  if (!story_find(r, sender, receiver, &s)) {
    ojo_reader_close(r);
    puts("nothing was sent again of which there is this much to tell");
    return 1;
  }
  const uint8_t *id = ojo_reader_trace(r, s.trace)->id;
  char which[16];
  snprintf(which, sizeof which, "%02x%02x%02x%02x", id[0], id[1], id[2], id[3]);
  ojo_reader_close(r);
  printf("byte %" PRIu64 " got lost: written at 0, sent again by the kernel after %.3f ms, received after "
         "%.3f ms\n\nIts story, and how to see more:\n", s.byte, (double)(s.again_ns - s.sent_ns) / 1e6,
         (double)(s.received_ns - s.sent_ns) / 1e6);
  printf("  ojo-cat -f text --trace %s --flow %u,%u,%" PRIu64 " --since %" PRIu64 " --until %" PRIu64 " %s\n", which,
         sender, receiver, s.linked, s.sent_ns, s.received_ns + 1, dir);
  printf("  ojo-cat --flows %s\n", dir);
  printf("  ojo-cat -f text --trace %s --type KERNEL_TCP_RETRANSMIT,KERNEL_TCP_CONGESTION_STATE %s\n", which, dir);
  printf("  ojo-cat --trace %s --flow %u --plot KERNEL_TCP_CWND %s\n", which, sender, dir);
  printf("  ojo-cat -f text --type SOCKET_BOUND,KERNEL_CONNECTION,KERNEL_TCP_FINISHED,KERNEL_UDP_FINISHED %s\n", dir);
  return 0;
}

int main(void) {
  const char *dir = getenv("OJO_DIR"), *why = link_make();
  const uint16_t ports[] = {TCP_PORT, UDP_PORT};
  const ojo_bpf_prefix here = {.address = {127}, .address_bytes = 4, .bits = 8};
  uint32_t sender, receiver;
  ojo_bpf *probes;
  if (why) return skipped(why);
  if (ojo_open(&trace, &(ojo_desc){.dir = dir, .types = types, .type_count = 1}) != OJO_OK) return 1;
  /* Filters work in the kernel: what other programs do costs them next to nothing. With trace NULL this, too,
   * does nothing. */
  ojo_result result = ojo_bpf_open(&probes, &(ojo_bpf_desc){
    .tracer = trace, .object = kernel_side, .object_bytes = (size_t)(kernel_side_end - kernel_side),
    .ports = ports, .port_count = 2, .addresses = &here, .address_count = 1, .thread = true,
    .metrics_interval_us = 100 /* the link is slow: a look at nearly every ACK */});
  if (result == OJO_ERR_PERMISSION) return 77; /* ojo_bpf has said so, in one line */
  if (result != OJO_OK) return fprintf(stderr, "7_kernel: probes: %s\n", ojo_result_string(result)), 1;

  for (size_t i = 0; i < FILE_BYTES; i++) file[i] = (uint8_t)(i * 2654435761u >> 13);
  int status = transport_run();
  if (!status) status = transfer_run(&sender, &receiver);

  ojo_bpf_stats seen = ojo_bpf_query_stats(probes);
  ojo_bpf_close(probes); /* takes what is still under way; then nothing records any more */
  if (ojo_close(trace) != OJO_OK || status) return 1;
  if (!trace) return puts("OJO_DIR is not set: nothing was recorded"), 0;
  printf("%" PRIu64 " events of the kernel's, %" PRIu64 " lost\n", seen.events, seen.ring_lost + seen.missed);
  return story_show(dir, sender, receiver);
}
