/* SPDX-License-Identifier: MIT
 *
 * ojo_bpf.h - version 0.1.0 - what the kernel does to a program's connections, beside what ojo.h records
 *
 * Kernel probes for TCP, UDP and the scheduler. Their events go into an ojo_tracer, in the kernel's own time,
 * or into a table of connections that the caller lists.
 *
 * DO THIS
 *   In one C or C++ file of the program:
 *       #define OJO_IMPLEMENTATION
 *       #include "ojo.h"
 *       #define OJO_BPF_IMPLEMENTATION
 *       #include "ojo_bpf.h"
 *   The kernel side is the same file, compiled once (`make bpf` does it):
 *       clang -target bpf -x c -O2 -g -I/usr/include/$(gcc -dumpmachine) -c ojo_bpf.h -o ojo_bpf.o
 *
 * EXAMPLE
 *       ojo_bpf *b;
 *       ojo_bpf_open(&b, &(ojo_bpf_desc){ .tracer = t, .thread = true });
 *       ojo_bind_socket(t, flow, fd);
 *       ...
 *       ojo_bpf_close(b);
 *
 * LINK WITH
 *   -lbpf -pthread (libbpf 1.0 or later). With OJO_DISABLE: nothing.
 */
#if !defined(OJO_BPF_H) && !defined(__bpf__)
#define OJO_BPF_H

#include "ojo.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct ojo_bpf ojo_bpf;

typedef enum ojo_bpf_probe { /* one bit each, for ojo_bpf_desc.probes */
  OJO_BPF_TCP_STATE = 1,
  OJO_BPF_TCP_IO = 2,          /* sends and receives, with their lengths */
  OJO_BPF_TCP_RETRANSMIT = 4,
  OJO_BPF_TCP_METRICS = 8,     /* RTT, cwnd, ssthresh, bytes in flight, windows */
  OJO_BPF_TCP_CONGESTION = 16,
  OJO_BPF_TCP_RESET = 32,
  OJO_BPF_UDP_IO = 64,
  OJO_BPF_UDP_DROP = 128,
  OJO_BPF_SCHEDULER = 256,
  OJO_BPF_TCP = 63,
  OJO_BPF_UDP = 192,
  OJO_BPF_ALL = 511
} ojo_bpf_probe;
#define OJO_BPF_PROBE_COUNT 9

typedef struct ojo_bpf_prefix { /* network order; an address as such has bits 32 or 128 */
  uint8_t address[16];
  uint8_t address_bytes; /* 4, 16 */
  uint8_t bits;
} ojo_bpf_prefix;

typedef struct ojo_bpf_desc { /* zero is the default */
  ojo_tracer *tracer;         /* where events go; NULL: none are (listings only, with .list) */
  const char *object_path;    /* NULL and no image: "ojo_bpf.o" beside the program's file, then PREFIX/lib/ojo/ojo_bpf.o */
  const void *object;         /* or an image in memory, of object_bytes; needed until ojo_bpf_open returns */
  size_t object_bytes;
  uint32_t probes;            /* 0: OJO_BPF_TCP | OJO_BPF_UDP */
  bool list;                  /* keep what ojo_bpf_connections shows */
  const uint32_t *pids;       /* filters, in the kernel; all that are given must hold */
  size_t pid_count;
  const char *cgroup;         /* path of a cgroup2 directory: it and those below */
  const uint16_t *ports;      /* either end's */
  size_t port_count;
  const ojo_bpf_prefix *addresses; /* either end's */
  size_t address_count;
  uint32_t one_in;              /* one connection in n, by hash; 0, 1: all */
  uint32_t ring_bytes;          /* 0: 16 MiB; rounded up to a power of two */
  uint32_t metrics_interval_us; /* 0: 1,000; per connection */
  uint32_t udp_timeout_ms;      /* 0: 5,000 */
  bool thread;                  /* a thread of its own polls; else the caller does */
  ojo_logger logger;
} ojo_bpf_desc;

typedef struct ojo_bpf_connection {
  uint64_t cookie;
  uint32_t flow, pid; /* pid 0: not known */
  char command[16];
  uint8_t protocol;      /* 6, 17 */
  uint8_t address_bytes; /* 4, 16 */
  uint8_t state;         /* TCP's; UDP 0 */
  uint8_t local[16], remote[16]; /* network order */
  uint16_t local_port, remote_port; /* host order; remote 0 and an address of zeros: any (UDP by socket) */
  bool partial;          /* existed before the probes */
  bool passive;          /* accepted */
  bool closed;           /* since the last listing */
  bool is_new;           /* since the last listing */
  uint64_t bytes_in, bytes_out, packets_in, packets_out, retransmits, dropped;
  uint32_t rtt_us, cwnd, cwnd_segments; /* cwnd: bytes */
  uint64_t first_ns, last_ns; /* CLOCK_MONOTONIC; first_ns of a partial one: first sight */
  uint32_t netns;        /* inode number of its network namespace */
} ojo_bpf_connection;

typedef struct ojo_bpf_probe_info {
  const char *name;
  uint32_t probe;   /* ojo_bpf_probe */
  bool attached;
  const char *how;  /* "tp_btf", "cgroup_skb", "fentry", "absent" */
  const char *why;  /* one line: which attach point is in force, or why none is */
} ojo_bpf_probe_info;

typedef struct ojo_bpf_stats { /* counts since ojo_bpf_open */
  uint64_t events;      /* taken from the ring */
  uint64_t ring_lost;   /* did not fit into the ring, all probes */
  uint64_t missed;      /* probes not called by the kernel since they were interrupted by themselves */
  uint64_t connections; /* seen */
  uint64_t lost[OJO_BPF_PROBE_COUNT]; /* ring_lost, per probe bit */
} ojo_bpf_stats;

#ifndef OJO_DISABLE
OJO_API ojo_result ojo_bpf_open(ojo_bpf **out, const ojo_bpf_desc *desc);
OJO_API int ojo_bpf_poll(ojo_bpf *b, int timeout_ms);
OJO_API int ojo_bpf_fd(ojo_bpf *b);
OJO_API ojo_result ojo_bpf_close(ojo_bpf *b);
OJO_API ojo_result ojo_bpf_connections(ojo_bpf *b, bool (*fn)(void *user, const ojo_bpf_connection *c), void *user);
OJO_API size_t ojo_bpf_query_probes(ojo_bpf *b, ojo_bpf_probe_info *info, size_t room);
OJO_API ojo_bpf_stats ojo_bpf_query_stats(ojo_bpf *b);
OJO_API ojo_bpf_desc ojo_bpf_query_desc(ojo_bpf *b);
#else
OJO__NOTHING(ojo_result ojo_bpf_open(ojo_bpf **out, const ojo_bpf_desc *desc)) {
  (void)desc;
  return *out = NULL, OJO_OK;
}
OJO__NOTHING(int ojo_bpf_poll(ojo_bpf *b, int timeout_ms)) { return (void)b, (void)timeout_ms, 0; }
OJO__NOTHING(int ojo_bpf_fd(ojo_bpf *b)) { return (void)b, -1; }
OJO__NOTHING(ojo_result ojo_bpf_close(ojo_bpf *b)) { return (void)b, OJO_OK; }
OJO__NOTHING(ojo_result ojo_bpf_connections(ojo_bpf *b, bool (*fn)(void *user, const ojo_bpf_connection *c), void *user)) {
  return (void)b, (void)fn, (void)user, OJO_OK;
}
OJO__NOTHING(size_t ojo_bpf_query_probes(ojo_bpf *b, ojo_bpf_probe_info *info, size_t room)) {
  return (void)b, (void)info, (void)room, (size_t)0;
}
OJO__NOTHING(ojo_bpf_stats ojo_bpf_query_stats(ojo_bpf *b)) {
  static ojo_bpf_stats zero;
  return (void)b, zero;
}
OJO__NOTHING(ojo_bpf_desc ojo_bpf_query_desc(ojo_bpf *b)) {
  static ojo_bpf_desc zero;
  return (void)b, zero;
}
#endif

#ifdef __cplusplus
}
#endif
#endif /* OJO_BPF_H */

#if defined(OJO_BPF_IMPLEMENTATION) && !defined(OJO_DISABLE) && !defined(__bpf__) && !defined(OJO__BPF_IMPLEMENTED)
#define OJO__BPF_IMPLEMENTED
#include <string.h>
/* Stubs until the loader is here. */
OJO_API ojo_result ojo_bpf_open(ojo_bpf **out, const ojo_bpf_desc *desc) { (void)desc; *out = NULL; return OJO_OK; }
OJO_API int ojo_bpf_poll(ojo_bpf *b, int timeout_ms) { (void)b; (void)timeout_ms; return 0; }
OJO_API int ojo_bpf_fd(ojo_bpf *b) { (void)b; return -1; }
OJO_API ojo_result ojo_bpf_close(ojo_bpf *b) { (void)b; return OJO_OK; }
OJO_API ojo_result ojo_bpf_connections(ojo_bpf *b, bool (*fn)(void *user, const ojo_bpf_connection *c), void *user) {
  (void)b; (void)fn; (void)user;
  return OJO_OK;
}
OJO_API size_t ojo_bpf_query_probes(ojo_bpf *b, ojo_bpf_probe_info *info, size_t room) {
  (void)b; (void)info; (void)room;
  return 0;
}
OJO_API ojo_bpf_stats ojo_bpf_query_stats(ojo_bpf *b) { ojo_bpf_stats zero; (void)b; memset(&zero, 0, sizeof zero); return zero; }
OJO_API ojo_bpf_desc ojo_bpf_query_desc(ojo_bpf *b) { ojo_bpf_desc zero; (void)b; memset(&zero, 0, sizeof zero); return zero; }
#endif
