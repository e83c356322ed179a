/* SPDX-License-Identifier: MIT
 *
 * ojo_bpf.h - version 0.1.0 - what the kernel does to a program's connections, beside what ojo.h records
 *
 * Kernel probes for TCP, UDP and the scheduler, on libbpf. Their events go into an ojo_tracer, in the kernel's own
 * time, or into a table of connections that the caller lists, or both.
 *
 * DO THIS
 *   In exactly one C or C++ file of the program:
 *       #define OJO_IMPLEMENTATION
 *       #include "ojo.h"
 *       #define OJO_BPF_IMPLEMENTATION
 *       #include "ojo_bpf.h"
 *   Everywhere else just #include "ojo_bpf.h". The kernel half is the same file, compiled once (`make bpf` does it):
 *       clang -target bpf -x c -O2 -g -I/usr/include/$(gcc -dumpmachine) -c ojo_bpf.h -o ojo_bpf.o
 *
 * EXAMPLE
 *       ojo_tracer *t;
 *       ojo_bpf *b;
 *       ojo_open(&t, &(ojo_desc){ .dir = getenv("OJO_DIR") });
 *       ojo_bpf_open(&b, &(ojo_bpf_desc){ .tracer = t, .thread = true });
 *       int fd = socket(AF_INET, SOCK_STREAM, 0);
 *       ojo_bind_socket(t, ojo_flow_open(t, NULL), fd);
 *       ojo_bpf_close(b);
 *       ojo_close(t);
 *   (The application's connect, send, receive and close come before ojo_bpf_close.)
 *   C++11: ojo_bpf_desc d = {}; d.tracer = t; d.thread = true; ojo_bpf_open(&b, &d);
 *
 * LINK WITH
 *   -lbpf -pthread (libbpf 1.0 or later). With OJO_DISABLE: nothing.
 *
 * DEFINES (the same in every file that includes ojo_bpf.h; OJO_STATIC, OJO_DISABLE and OJO_API as in ojo.h)
 *   OJO_BPF_IMPLEMENTATION  in one file: also compile the implementation.
 *   OJO_BPF_PREFIX          PREFIX of ojo_bpf_desc.object_path's default; "/usr/local".
 *
 * OVERVIEW
 *   Programs in the kernel, at its tracepoints and cgroup hooks, put events into a ring; the program takes them out
 *   and records them with ojo_record_at. They wake nobody, since that would cost more than all the rest: the ring is
 *   emptied each 10 ms, sooner when a quarter of it is full. An event is in the trace that much later, at its time.
 *   Each probe has candidates, best first: a typed tracepoint (for UDP the cgroup's packet hooks), then fentry. One
 *   that this kernel or this user may not have makes way for the next, and does not disturb the others;
 *   ojo_bpf_query_probes tells.
 *   A connection is a flow: KERNEL_CONNECTION says which, with FLOW. Its id is made of the socket's cookie, with bit
 *   31 set (bit 30 too: UDP), unless ojo_bind_socket has given the socket to a flow of the application before the
 *   kernel saw the connection: then it is that one. If the kernel saw it first, as with every accepted socket, its
 *   flow is linked to the application's by STREAM_LINK_PARENT. A UDP socket's first 4-tuple carries the application's
 *   flow, later ones are flows of their own, linked to it.
 *   TCP's counts are the kernel's own, not sums of events: bytes out is what it took from the program, bytes in what
 *   it accepted in order, packets are segs_out and segs_in (an accepted socket's lack SYN and SYN-ACK). UDP's are sums
 *   over datagrams, exact per 4-tuple; one that the socket had no room for is in `dropped`, not in the others.
 *   Who owns a connection: who connected it, or, if it was accepted, who used it first, until then the listener's
 *   owner. A UDP socket's owner is who made it. The command is the process's, not the thread's.
 *   What was open before the probes is partial: its counts begin when it was seen first.
 *
 * EVENTS
 *   0x0400 KERNEL_CONNECTION      socket cookie; ojo_kernel_connection. May come again for a flow: the last one holds
 *   0x0401 KERNEL_TCP_STATE       new state, old state (1 ESTABLISHED, 2 SYN_SENT, 3 SYN_RECV, 4 FIN_WAIT1,
 *                                 5 FIN_WAIT2, 6 TIME_WAIT, 7 CLOSE, 8 CLOSE_WAIT, 9 LAST_ACK, 10 LISTEN, 11 CLOSING)
 *   0x0402 KERNEL_TCP_SEND        bytes that the kernel took in one call
 *   0x0403 KERNEL_TCP_RECEIVE     bytes given to the program by one call (not MSG_PEEK, MSG_ERRQUEUE)
 *   0x0404 KERNEL_TCP_RETRANSMIT  segments sent again; in total. Their sum is the kernel's RetransSegs
 *   0x0405 KERNEL_TCP_RTT         smoothed, ns; ojo_rtt
 *   0x0406 _CWND, 0x0407 _SSTHRESH, 0x0408 _IN_FLIGHT  bytes; segments. 0x0409 _SEND_WINDOW, 0x040A _RECEIVE_WINDOW
 *                                 bytes. Each when it differs from the last look, of which there is one per
 *                                 metrics_interval_us at most, at a segment's arrival, before TCP acts on it
 *   0x040B KERNEL_TCP_CONGESTION_STATE  0 open, 1 disorder, 2 CWR, 3 recovery, 4 loss
 *   0x040C KERNEL_TCP_RESET_SENT, 0x040D KERNEL_TCP_RESET_RECEIVED  0
 *   0x040E KERNEL_TCP_FINISHED    0; ojo_kernel_totals. Once, at the change to CLOSE, or when close() has sent its RST
 *   0x0500 KERNEL_UDP_SEND, 0x0501 KERNEL_UDP_RECEIVE, 0x0502 KERNEL_UDP_DROP  bytes; datagrams. A datagram that is
 *                                 dropped was told of as received just before
 *   0x0503 KERNEL_UDP_FINISHED    0; ojo_kernel_totals. udp_timeout_ms after the 4-tuple's last datagram, or at close
 *   0x0600 KERNEL_OFF_CPU         thread id; 1 asleep, 0 preempted. This and the next two: flow 0, and only threads of
 *                                 the processes of ojo_bpf_desc.pids, else of this one, without ojo_bpf's own thread
 *   0x0601 KERNEL_ON_CPU          thread id; ns that it was off, 0 unknown
 *   0x0602 KERNEL_WAKEUP          thread id; id of the thread that woke it, 0: an interrupt
 *
 * THREADS, FORK, SIGNALS
 *   One thread at a time polls and lists, unless desc.thread is set: then any thread may list, and none polls. The
 *   queries and ojo_bind_socket may be called from any thread at any time. Open one ojo_bpf per tracer. No call is
 *   safe in a signal handler; ojo_bpf_poll returns when one has run. The thread blocks all signals.
 *   A fork child must not use its parent's ojo_bpf. Probes end with the last process that holds their descriptors,
 *   which exec closes: however the process ends, nothing stays behind.
 *
 * ERRORS
 *   ojo_bpf_open returns a result and logs one line: OJO_ERR_PERMISSION only if the kernel refuses a typed
 *   tracepoint's program that does nothing; OJO_ERR_FORMAT for an object file that is none, or of another version of
 *   this header; OJO_ERR_NOT_FOUND without one. A probe that can't be had is no error: see ojo_bpf_query_probes.
 *   What the ring has no room for is counted per probe, and recorded as EVENTS_DROPPED (reason OJO_DROP_KERNEL_RING,
 *   source the probe's bit), with the times of the gap. The kernel does not call a probe that interrupts itself: that
 *   is counted as `missed`, and recorded likewise (OJO_DROP_NESTING).
 *
 * MEMORY
 *   The ring (16 MiB), about 350 bytes of kernel memory for each TCP socket, 300 for each UDP 4-tuple (at most 65,536
 *   at a time; more are counted as lost), 100 for each bound socket; 1 MiB once sockets are bound (of more than 16,384
 *   between two polls the first may stay without a link); while it lists 200 bytes a connection.
 *
 * CAVEATS
 *   Linux 5.15 or later with BTF (/sys/kernel/btf/vmlinux), x86-64 or aarch64. Sends and receives per call need Linux
 *   6.3, or fentry; without them an accepted connection's owner stays its listener's.
 *   CAP_BPF and CAP_PERFMON are enough, but for UDP's 4-tuples (CAP_NET_ADMIN): without it UDP is counted by socket,
 *   from its program's calls, with remote address and port 0 and drops unknown.
 *   Process ids are those of the initial pid namespace. The cgroup filter goes by where the socket was made. Existing
 *   sockets are found by their descriptors in this pid namespace, and by TCP's table of this network namespace.
 *   Packets that TIME_WAIT sends or takes belong to no socket any more, and a counter of segments wraps at 2^32. The
 *   RST of a disconnect, connect(AF_UNSPEC), is in no count. Who takes an accepted connection's bytes by splice alone,
 *   or has the kernel move them, has not used it: its owner stays the listener's.
 *   Binds made before ojo_bpf_open are in the trace, but the probes don't know of them.
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
  const char *object_path;    /* NULL and no image: ojo_bpf.o beside the program's file, or in PREFIX/lib/ojo/ */
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
  uint64_t unlisted;    /* closed, and in no listing: more than 262,144 between two */
  uint64_t lost[OJO_BPF_PROBE_COUNT]; /* ring_lost, per probe bit */
} ojo_bpf_stats;

#ifndef OJO_DISABLE
/* Loads and attaches the probes, and tells of the connections that are there. Without a tracer and a list there is
 * nothing to do: *out is NULL, OJO_OK. On an error *out is NULL too, and a log line says why; OJO_ERR_ARGUMENT without
 * `out`. Takes 0.1 s. Thread-safe. */
OJO_API ojo_result ojo_bpf_open(ojo_bpf **out, const ojo_bpf_desc *desc);
/* Waits until there are events, at most timeout_ms (negative: for ever), records them, and does what is due: call it
 * at least each 100 ms. Returns how many it took, 0 at the timeout or after a signal, or a negative ojo_result
 * (OJO_ERR_MODE with desc.thread). */
OJO_API int ojo_bpf_poll(ojo_bpf *b, int timeout_ms);
/* For epoll, poll or select: readable when ojo_bpf_poll(b, 0) should be called, which is each 10 ms. -1 for NULL and
 * with desc.thread. */
OJO_API int ojo_bpf_fd(ojo_bpf *b);
/* Detaches the probes, records what is still in the ring, frees everything. Before ojo_close of the tracer. */
OJO_API ojo_result ojo_bpf_close(ojo_bpf *b);
/* Calls fn for each live connection, and then, with .closed set, once for each that closed since the last call, until
 * it returns false. fn may call anything but ojo_bpf_close. OJO_ERR_ARGUMENT without fn, OJO_ERR_MODE without
 * desc.list, OJO_ERR_IO or OJO_ERR_MEMORY if the listing is not complete. Which thread: see THREADS. */
OJO_API ojo_result ojo_bpf_connections(ojo_bpf *b, bool (*fn)(void *user, const ojo_bpf_connection *c), void *user);
/* Fills in up to `room` lines, one for each attach point of the probes that were asked for, and returns how many there
 * are. The text lives until ojo_bpf_close. Any thread. */
OJO_API size_t ojo_bpf_query_probes(ojo_bpf *b, ojo_bpf_probe_info *info, size_t room);
OJO_API ojo_bpf_stats ojo_bpf_query_stats(ojo_bpf *b); /* zeros for NULL. Any thread */
OJO_API ojo_bpf_desc ojo_bpf_query_desc(ojo_bpf *b);   /* what is in force, defaults filled in; zeros for NULL */
#else
OJO__NOTHING(ojo_result ojo_bpf_open(ojo_bpf **out, const ojo_bpf_desc *desc)) {
  (void)desc;
  return out ? (*out = NULL, OJO_OK) : OJO_ERR_ARGUMENT;
}
OJO__NOTHING(int ojo_bpf_poll(ojo_bpf *b, int timeout_ms)) { return (void)b, (void)timeout_ms, 0; }
OJO__NOTHING(int ojo_bpf_fd(ojo_bpf *b)) { return (void)b, -1; }
OJO__NOTHING(ojo_result ojo_bpf_close(ojo_bpf *b)) { return (void)b, OJO_OK; }
OJO__NOTHING(ojo_result ojo_bpf_connections(ojo_bpf *b, bool (*fn)(void *user, const ojo_bpf_connection *c),
                                            void *user)) {
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

/* ---- what crosses the boundary ------------------------------------------------------------------ */

/* One definition for both halves. The kernel half has no libc headers: it makes the names of stdint.h itself. */
#if defined(__bpf__) && !defined(OJO__BPF_SHARED)
typedef __UINT8_TYPE__ uint8_t;
typedef __UINT16_TYPE__ uint16_t;
typedef __UINT32_TYPE__ uint32_t;
typedef __UINT64_TYPE__ uint64_t;
#endif

#if (defined(__bpf__) || (defined(OJO_BPF_IMPLEMENTATION) && !defined(OJO_DISABLE))) && !defined(OJO__BPF_SHARED)
#define OJO__BPF_SHARED
#define OJO__BPF_PROBES 9

enum ojo__bpf_limits {
  OJO__BPF_PIDS_MAX = 4096,
  OJO__BPF_PORTS_MAX = 4096,
  OJO__BPF_PREFIXES_MAX = 4096,
  OJO__BPF_TUPLES_MAX = 65536, /* UDP 4-tuples at a time */
  OJO__BPF_THREADS_MAX = 8192, /* whose time off the CPU is known */
  OJO__BPF_CGROUP_DEPTH = 32
};

/* Event types as ojo.h has them, which the kernel half can't include; the loader's half checks that. */
enum {
  OJO__TCP = 6, OJO__UDP = 17,
  OJO__E_CONNECTION = 0x0400, OJO__E_STATE = 0x0401, OJO__E_SEND = 0x0402, OJO__E_RECEIVE = 0x0403,
  OJO__E_RETRANSMIT = 0x0404, OJO__E_CONGESTION = 0x040B, OJO__E_RESET_SENT = 0x040C, OJO__E_RESET_RECEIVED = 0x040D,
  OJO__E_TCP_FINISHED = 0x040E, OJO__E_UDP_SEND = 0x0500, OJO__E_UDP_RECEIVE = 0x0501, OJO__E_UDP_DROP = 0x0502,
  OJO__E_UDP_FINISHED = 0x0503, OJO__E_OFF_CPU = 0x0600, OJO__E_ON_CPU = 0x0601, OJO__E_WAKEUP = 0x0602
};

/* What the ring carries beside the event types of ojo.h: rows of a listing, and metrics, which are several events. */
enum ojo__bpf_record {
  OJO__BPF_ROW = 1,    /* struct ojo__bpf_row: live, for a listing */
  OJO__BPF_METRICS = 2 /* struct ojo__bpf_metrics */
};
#define OJO__BPF_SIZED 0x80000000u /* of event.type: `size` counts */
#define OJO__BPF_QUIET 0x40000000u /* of FINISHED: its owner has turned out to be one that the filter leaves out */

struct ojo__bpf_event { /* every record in the ring begins with it */
  uint64_t time_ns;     /* CLOCK_MONOTONIC */
  uint32_t type;
  uint32_t flow;
  uint64_t value;
  uint64_t size;        /* not there if the record is a short one */
};
#define OJO__BPF_SHORT 24 /* bytes of an event without a size: with the ring's 8 two share a cache line */

struct ojo__bpf_identity { /* laid out as ojo_kernel_connection, which is checked below */
  uint64_t cookie;
  uint32_t pid;
  uint16_t local_port, remote_port;
  uint8_t protocol, address_bytes, state, flags;
  uint32_t netns;
  uint64_t command[2];
  uint64_t local[2], remote[2];
};

struct ojo__bpf_totals { /* laid out as ojo_kernel_totals */
  uint64_t bytes_out, bytes_in, packets_out, packets_in, retransmits, dropped;
};

struct ojo__bpf_connection { /* KERNEL_CONNECTION */
  struct ojo__bpf_event event; /* size: the application's flow that the socket is bound to, if `flow` is another */
  struct ojo__bpf_identity identity;
};

struct ojo__bpf_row { /* OJO__BPF_ROW, KERNEL_TCP_FINISHED, KERNEL_UDP_FINISHED */
  struct ojo__bpf_event event;
  struct ojo__bpf_identity identity;
  struct ojo__bpf_totals totals;
  uint64_t first_ns, last_ns;
  uint32_t rtt_us, cwnd, cwnd_segments;
  uint32_t is_new;
};

#define OJO__BPF_HAS_RTT 1u /* metrics.event.value: which of them changed */
#define OJO__BPF_HAS_CWND 2u
#define OJO__BPF_HAS_SSTHRESH 4u
#define OJO__BPF_HAS_IN_FLIGHT 8u
#define OJO__BPF_HAS_SEND_WINDOW 16u
#define OJO__BPF_HAS_RECEIVE_WINDOW 32u
struct ojo__bpf_metrics {
  struct ojo__bpf_event event;
  uint32_t srtt_us, min_rtt_us, variation_us, mss; /* srtt in us, not in the kernel's eighths */
  uint32_t cwnd, ssthresh, in_flight;              /* segments */
  uint32_t send_window, receive_window;            /* bytes */
  uint32_t zero;
};

struct ojo__bpf_tuple_key { /* a UDP flow as one socket sees it; by socket alone: remote is zero */
  uint64_t cookie;
  uint64_t local[2], remote[2];
  uint16_t local_port, remote_port;
  uint32_t address_bytes;
};

struct ojo__bpf_tuple {
  struct ojo__bpf_identity identity;
  struct ojo__bpf_totals totals;
  uint64_t first_ns, last_ns;
  uint32_t flow, parent; /* parent: as a KERNEL_CONNECTION's size */
  uint8_t wanted, announced, listed, owned;
};

struct ojo__bpf_bound { /* a socket that the application has bound to a flow */
  uint32_t flow;
  uint32_t taken_by; /* UDP: hash of the one 4-tuple that carries this flow's id */
};

struct ojo__bpf_prefix_key { /* of the address filter: IPv4 as ::ffff:a.b.c.d */
  uint32_t bits;
  uint32_t address[4];
};

/* Constants to the verifier: what is off here is not even in the loaded program. */
struct ojo__bpf_config {
  uint32_t abi;
  uint32_t probes;        /* ojo_bpf_probe bits whose events are recorded */
  uint32_t trace;         /* events are asked for */
  uint32_t metrics_interval_us;
  uint32_t one_in;
  uint32_t has_pids, has_ports, has_addresses;
  uint32_t udp_by_socket; /* no cgroup_skb here */
  uint32_t poll_congestion; /* no tracepoint for it: tcp_probe looks */
  uint32_t sees_drops;    /* the probe for UDP's drops is there */
  uint32_t self;          /* the loader's pid */
  uint32_t zero;
  uint64_t cgroup;        /* id; 0: any */
  uint64_t ring_mark;     /* bytes in the ring that wake the reader */
  uint64_t ring_half;     /* bytes at which a listing's walk pauses */
};

struct ojo__bpf_lost { /* of one probe. Written by any CPU with atomic adds, read by the loader */
  uint64_t count;
  uint64_t first_ns, last_ns; /* since the loader last raised `epoch` */
  uint64_t epoch;
};

struct ojo__bpf_shared { /* in memory that both halves map */
  struct ojo__bpf_lost lost[OJO__BPF_PROBES];
  uint64_t epoch;    /* loader: raised after it has read the losses */
  uint64_t any_lost; /* kernel: sum of the counts */
  uint32_t woken;    /* kernel: 1 once it has woken the reader; loader: 0 before it drains */
  uint32_t poller;   /* tid of the loader's own thread, which the scheduler's probes leave out */
  uint64_t connections; /* kernel: seen */
  uint64_t expired_before_ns; /* loader: a walk over UDP's tuples tells only of those that are older; 0: of all */
};

/* Of everything in this section: an object file of another one is refused. Each size and offset has a factor of its
 * own, so that members that change places don't make up for each other. Raise the 2 if what they mean changes. */
#define OJO__BPF_SIZE(type, factor) (uint32_t)sizeof(struct ojo__bpf_##type) * factor##u
#define OJO__BPF_AT(type, member, factor) (uint32_t)__builtin_offsetof(struct ojo__bpf_##type, member) * factor##u
#define OJO__BPF_ABI                                                                                              \
  (2u + OJO__BPF_SIZE(event, 2654435761) + OJO__BPF_SIZE(identity, 2246822519) + OJO__BPF_SIZE(totals, 3266489917) + \
   OJO__BPF_SIZE(connection, 668265263) + OJO__BPF_SIZE(row, 374761393) + OJO__BPF_SIZE(metrics, 3332679571) +     \
   OJO__BPF_SIZE(tuple_key, 2860486313) + OJO__BPF_SIZE(tuple, 1500450271) + OJO__BPF_SIZE(bound, 3267000013) +    \
   OJO__BPF_SIZE(prefix_key, 2147483647) + OJO__BPF_SIZE(config, 1073741789) + OJO__BPF_SIZE(shared, 536870909) +  \
   OJO__BPF_AT(event, type, 268435399) + OJO__BPF_AT(event, flow, 134217689) + OJO__BPF_AT(event, value, 67108859) + \
   OJO__BPF_AT(event, size, 33554393) + OJO__BPF_AT(row, identity, 16777213) + OJO__BPF_AT(row, totals, 8388593) + \
   OJO__BPF_AT(row, first_ns, 4194301) + OJO__BPF_AT(row, rtt_us, 2097143) + OJO__BPF_AT(row, cwnd, 1048573) +     \
   OJO__BPF_AT(row, is_new, 524287) + OJO__BPF_AT(metrics, mss, 262139) + OJO__BPF_AT(metrics, cwnd, 131071) +     \
   OJO__BPF_AT(metrics, ssthresh, 65521) + OJO__BPF_AT(metrics, in_flight, 32749) +                               \
   OJO__BPF_AT(metrics, send_window, 16381) + OJO__BPF_AT(tuple_key, remote, 8191) +                              \
   OJO__BPF_AT(tuple, totals, 4093) + OJO__BPF_AT(tuple, last_ns, 2039) + OJO__BPF_AT(tuple, flow, 1021) +        \
   OJO__BPF_AT(tuple, parent, 509) + OJO__BPF_AT(tuple, wanted, 251) + OJO__BPF_AT(bound, flow, 127) +            \
   OJO__BPF_AT(config, probes, 3221225473) + OJO__BPF_AT(config, trace, 3489660929) +                             \
   OJO__BPF_AT(config, metrics_interval_us, 2013265921) + OJO__BPF_AT(config, one_in, 1811939329) +               \
   OJO__BPF_AT(config, has_pids, 469762049) + OJO__BPF_AT(config, has_ports, 167772161) +                         \
   OJO__BPF_AT(config, has_addresses, 998244353) + OJO__BPF_AT(config, udp_by_socket, 754974721) +                \
   OJO__BPF_AT(config, poll_congestion, 1224736769) + OJO__BPF_AT(config, sees_drops, 4261675009) +               \
   OJO__BPF_AT(config, self, 4253024257) + OJO__BPF_AT(config, cgroup, 4223164417) +                              \
   OJO__BPF_AT(config, ring_mark, 4194304001) + OJO__BPF_AT(shared, epoch, 4179623937) +                          \
   OJO__BPF_AT(shared, any_lost, 4076863489) + OJO__BPF_AT(shared, woken, 4043309057) +                           \
   OJO__BPF_AT(shared, connections, 4026531841))
#endif

/* ---- >>kernel: the kernel half ------------------------------------------------------------------ */

#if defined(__bpf__) && !defined(OJO__BPF_KERNEL)
#define OJO__BPF_KERNEL

#include <linux/bpf.h>

#include <bpf/bpf_core_read.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>

char ojo_license[] SEC("license") = "Dual MIT/GPL";

typedef _Bool bool;

/* The kernel's structs, as far as they are used. The loader moves each access to where the running kernel has the
 * field, so that order and size here mean nothing. */
#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)

struct ns_common { unsigned inum; };
struct net { struct ns_common ns; };
typedef struct { struct net *net; } possible_net_t;
struct in6_addr { union { uint32_t u6_addr32[4]; } in6_u; };
struct kernfs_node { uint64_t id; };
struct cgroup;
struct cgroup_subsys_state { struct cgroup *cgroup; struct cgroup_subsys_state *parent; };
struct cgroup { struct cgroup_subsys_state self; struct kernfs_node *kn; };
struct sock_cgroup_data { struct cgroup *cgroup; };
struct sock_common {
  uint32_t skc_daddr, skc_rcv_saddr;
  uint16_t skc_dport, skc_num;
  unsigned short skc_family;
  volatile unsigned char skc_state;
  possible_net_t skc_net;
  struct in6_addr skc_v6_daddr, skc_v6_rcv_saddr;
  unsigned long skc_flags;
};
struct sock {
  struct sock_common __sk_common;
  uint16_t sk_type, sk_protocol;
  uint8_t sk_shutdown;
  struct sock_cgroup_data sk_cgrp_data;
};
struct inet_sock { struct sock sk; uint16_t inet_sport; };
struct inet_connection_sock { struct inet_sock icsk_inet; uint8_t icsk_ca_state : 5; };
struct minmax_sample { uint32_t t, v; };
struct minmax { struct minmax_sample s[3]; };
struct tcp_sock {
  struct inet_connection_sock inet_conn;
  uint64_t bytes_received, bytes_acked, tcp_mstamp;
  uint32_t segs_in, segs_out, write_seq, snd_una, total_retrans;
  uint32_t srtt_us, mdev_us, mss_cache, snd_cwnd, snd_ssthresh, snd_wnd, rcv_wnd;
  uint32_t packets_out, sacked_out, lost_out, retrans_out;
  uint8_t repair : 1;
  struct minmax rtt_min;
};
struct nsproxy { struct net *net_ns; };
struct thread_info { uint64_t preempt_count; }; /* aarch64 */
struct pt_regs { unsigned long orig_ax; };      /* x86-64 */
struct task_struct {
  struct thread_info thread_info;
  void *stack;
  int pid, tgid;
  unsigned __state;
  struct task_struct *group_leader;
  struct nsproxy *nsproxy;
  char comm[16];
};
struct socket { struct sock *sk; };
struct file;
struct sk_buff;
struct bpf_iter_meta;
struct bpf_iter__tcp { struct bpf_iter_meta *meta; struct sock_common *sk_common; };
struct bpf_iter__task_file { struct bpf_iter_meta *meta; struct task_struct *task; uint32_t fd; struct file *file; };
struct bpf_iter__bpf_sk_storage_map { struct bpf_iter_meta *meta; struct bpf_map *map; struct sock *sk; void *value; };
struct bpf_iter__bpf_map_elem { struct bpf_iter_meta *meta; struct bpf_map *map; void *key; void *value; };

#pragma clang attribute pop

enum {
  OJO__AF_INET = 2, OJO__AF_INET6 = 10, OJO__DATAGRAM = 2, OJO__STACK_BYTES = 16384,
  OJO__NO_DATA = 0x2002, /* flags MSG_PEEK, MSG_ERRQUEUE */
  OJO__ESTABLISHED = 1, OJO__SYN_SENT = 2, OJO__SYN_RECV = 3, OJO__FIN_WAIT1 = 4, OJO__FIN_WAIT2 = 5,
  OJO__TIME_WAIT = 6, OJO__CLOSE = 7, OJO__CLOSE_WAIT = 8, OJO__LAST_ACK = 9, OJO__LISTEN = 10, OJO__CLOSING = 11,
  OJO__NEW_SYN_RECV = 12
};
enum { /* index of a probe: its bit is 1 << index */
  OJO__P_STATE = 0, OJO__P_IO = 1, OJO__P_RETRANSMIT = 2, OJO__P_METRICS = 3, OJO__P_CONGESTION = 4, OJO__P_RESET = 5,
  OJO__P_UDP_IO = 6, OJO__P_UDP_DROP = 7, OJO__P_SCHEDULER = 8
};
#define OJO__WANTS(probe) (ojo_config.probes & (1u << (probe)))
#define OJO__SEES_DROPS (ojo_config.sees_drops)

/* In a section of its own: .rodata has constants of the compiler in it too. */
const volatile struct ojo__bpf_config ojo_config SEC(".rodata.ojo") = {.abi = OJO__BPF_ABI};

/* What is kept of a TCP socket. The first 40 bytes are all that a send, a receive and a segment look at: they share a
 * cache line with what the look-up of this reads, and in bulk that line alone is often no longer in the first cache. */
struct ojo__tcp {
  uint64_t due_us;             /* tcp_mstamp of the next look at the metrics */
  uint32_t flow;
  /* One byte each: they are written on several CPUs, and an atomic `or` would need a newer instruction set. */
  uint8_t settled;   /* owned, decided and told of: nothing to do on the fast path */
  uint8_t wanted;    /* the filters let it pass */
  uint8_t begun;     /* identity and bases are set */
  uint8_t listener;  /* holds the owner that its accepted sockets begin with */
  uint8_t active;    /* opened here: the SYN is in the kernel's sequence */
  uint8_t owned;     /* the owner is certain */
  uint8_t decided;   /* `wanted` is final, unless the owner changes */
  uint8_t announced, closing, finished, listed, reset;
  struct ojo__bpf_identity identity;
  struct ojo__bpf_totals last; /* the final counts, once `closing` */
  uint64_t first_ns;
  uint64_t base_out, base_in;  /* counts at first sight */
  uint32_t base_packets_out, base_packets_in, base_retransmits;
  uint32_t retransmits;        /* total_retrans as told so far */
  uint32_t srtt_us, min_rtt_us, mdev_us; /* and so on: as told last */
  uint32_t cwnd, ssthresh, in_flight, send_window, receive_window, mss, congestion_state;
};

struct ojo__owner { /* of a UDP socket */
  uint64_t command[2];
  uint32_t pid, netns;
  uint8_t owned, partial;
};

struct { __uint(type, BPF_MAP_TYPE_RINGBUF); __uint(max_entries, 1 << 24); } ojo_ring SEC(".maps");
struct { /* BPF_F_CLONE: an accepted socket begins with its listener's value */
  __uint(type, BPF_MAP_TYPE_SK_STORAGE);
  __uint(map_flags, BPF_F_NO_PREALLOC | BPF_F_CLONE);
  __type(key, int);
  __type(value, struct ojo__tcp);
} ojo_tcp SEC(".maps");
struct {
  __uint(type, BPF_MAP_TYPE_SK_STORAGE);
  __uint(map_flags, BPF_F_NO_PREALLOC);
  __type(key, int);
  __type(value, struct ojo__owner);
} ojo_owners SEC(".maps");
struct {
  __uint(type, BPF_MAP_TYPE_HASH);
  __uint(map_flags, BPF_F_NO_PREALLOC);
  __uint(max_entries, OJO__BPF_TUPLES_MAX);
  __type(key, struct ojo__bpf_tuple_key);
  __type(value, struct ojo__bpf_tuple);
} ojo_tuples SEC(".maps");
struct { /* written by ojo_bind_socket's caller; it dies with the socket */
  __uint(type, BPF_MAP_TYPE_SK_STORAGE);
  __uint(map_flags, BPF_F_NO_PREALLOC);
  __type(key, int);
  __type(value, struct ojo__bpf_bound);
} ojo_bound SEC(".maps");
struct {
  __uint(type, BPF_MAP_TYPE_HASH);
  __uint(map_flags, BPF_F_NO_PREALLOC);
  __uint(max_entries, OJO__BPF_PIDS_MAX);
  __type(key, uint32_t);
  __type(value, uint8_t);
} ojo_pids SEC(".maps");
struct {
  __uint(type, BPF_MAP_TYPE_HASH);
  __uint(map_flags, BPF_F_NO_PREALLOC);
  __uint(max_entries, OJO__BPF_PORTS_MAX);
  __type(key, uint16_t);
  __type(value, uint8_t);
} ojo_ports SEC(".maps");
struct {
  __uint(type, BPF_MAP_TYPE_LPM_TRIE);
  __uint(map_flags, BPF_F_NO_PREALLOC);
  __uint(max_entries, OJO__BPF_PREFIXES_MAX);
  __type(key, struct ojo__bpf_prefix_key);
  __type(value, uint8_t);
} ojo_prefixes SEC(".maps");
struct { __uint(type, BPF_MAP_TYPE_ARRAY); __uint(map_flags, BPF_F_MMAPABLE); __uint(max_entries, 1);
  __type(key, uint32_t); __type(value, struct ojo__bpf_shared); } ojo_shared SEC(".maps");
struct ojo__seen { /* by this CPU's ingress program: what a drop, which follows on the same CPU, was about */
  struct ojo__bpf_tuple_key key;
  uint64_t bytes, datagrams;
};
struct { __uint(type, BPF_MAP_TYPE_PERCPU_ARRAY); __uint(max_entries, 1); __type(key, uint32_t);
  __type(value, struct ojo__seen); } ojo_seen SEC(".maps");
struct { /* all allocated before: under the scheduler's locks nothing may be. (TASK_STORAGE would allocate) */
  __uint(type, BPF_MAP_TYPE_LRU_HASH);
  __uint(max_entries, OJO__BPF_THREADS_MAX);
  __type(key, uint32_t);   /* tid */
  __type(value, uint64_t); /* when it left the CPU */
} ojo_off_cpu SEC(".maps");

/* -- the ring */

static __noinline int ojo__lost(uint32_t probe, uint64_t now) {
  uint32_t zero = 0;
  struct ojo__bpf_shared *shared = bpf_map_lookup_elem(&ojo_shared, &zero);
  if (!shared || probe >= OJO__BPF_PROBES) return 0;
  struct ojo__bpf_lost *lost = &shared->lost[probe];
  uint64_t epoch = shared->epoch + 1; /* 0 stays "never" */
  if (lost->epoch != epoch) {
    lost->epoch = epoch;
    lost->first_ns = now;
  }
  lost->last_ns = now;
  __sync_fetch_and_add(&lost->count, 1);
  __sync_fetch_and_add(&shared->any_lost, 1);
  return 0;
}

/* The reader comes each 10 ms; it is woken only if the ring fills faster than that, and only once per fill. */
static __noinline int ojo__wake(void) {
  uint32_t zero = 0;
  struct ojo__bpf_shared *shared = bpf_map_lookup_elem(&ojo_shared, &zero);
  if (!shared || shared->woken) return 0;
  shared->woken = 1;
  return 1;
}
static __always_inline uint64_t ojo__submit_flags(uint64_t now) {
  if (now & 0x700) return BPF_RB_NO_WAKEUP; /* one event in eight looks, at random by its time */
  if (bpf_ringbuf_query(&ojo_ring, BPF_RB_AVAIL_DATA) < ojo_config.ring_mark) return BPF_RB_NO_WAKEUP;
  return ojo__wake() ? BPF_RB_FORCE_WAKEUP : BPF_RB_NO_WAKEUP;
}

static __always_inline void ojo__emit(uint32_t probe, uint64_t now, uint32_t type, uint32_t flow, uint64_t value,
                                      uint64_t size) {
  struct ojo__bpf_event *event;
  if (type & OJO__BPF_SIZED) {
    event = bpf_ringbuf_reserve(&ojo_ring, sizeof *event, 0);
    if (event) event->size = size;
  } else {
    event = bpf_ringbuf_reserve(&ojo_ring, OJO__BPF_SHORT, 0);
  }
  if (!event) {
    ojo__lost(probe, now);
    return;
  }
  event->time_ns = now;
  event->type = type;
  event->flow = flow;
  event->value = value;
  bpf_ringbuf_submit(event, ojo__submit_flags(now));
}

static __noinline int ojo__announce(struct ojo__bpf_identity *identity, uint32_t flow, uint32_t parent, uint64_t now,
                                    uint32_t probe) {
  if (!ojo_config.trace || !identity) return 0;
  struct ojo__bpf_connection *record = bpf_ringbuf_reserve(&ojo_ring, sizeof *record, 0);
  if (!record) return ojo__lost(probe, now);
  record->event.time_ns = now;
  record->event.type = OJO__E_CONNECTION;
  record->event.flow = flow;
  record->event.value = identity->cookie;
  record->event.size = parent != flow ? parent : 0;
  record->identity = *identity;
  bpf_ringbuf_submit(record, ojo__submit_flags(now));
  return 0;
}

/* -- who owns it, and is it wanted */

static __always_inline void ojo__command(struct task_struct *task, uint64_t command[2]) {
  struct task_struct *leader = task->group_leader; /* the process's name, not its thread's */
  command[0] = *(uint64_t *)&leader->comm[0];
  command[1] = *(uint64_t *)&leader->comm[8];
}

static __noinline int ojo__prefix_has(const uint64_t *address, uint32_t address_bytes) {
  struct ojo__bpf_prefix_key key = {.bits = 128};
  if (!address) return 0;
  if (address_bytes == 4) {
    key.address[2] = bpf_htonl(0xFFFF);
    key.address[3] = (uint32_t)address[0];
  } else {
    __builtin_memcpy(key.address, address, 16);
  }
  return bpf_map_lookup_elem(&ojo_prefixes, &key) != 0;
}

static __always_inline uint32_t ojo__hash(uint64_t x) {
  x ^= x >> 33;
  x *= 0xFF51AFD7ED558CCDull;
  x ^= x >> 33;
  return (uint32_t)(x * 0xC4CEB9FE1A85EC53ull >> 32);
}

enum { OJO__NO = 0, OJO__YES = 1, OJO__NOT_YET = 2 };

/* What the filters say of a connection as far as it is known. NOT_YET: its local port is not chosen yet. */
static __noinline int ojo__passes(struct ojo__bpf_identity *identity) {
  if (!identity) return OJO__NO;
  if (ojo_config.one_in > 1 && ojo__hash(identity->cookie) % ojo_config.one_in != 0) return OJO__NO;
  if (ojo_config.has_pids) {
    uint32_t pid = identity->pid;
    if (!bpf_map_lookup_elem(&ojo_pids, &pid)) return OJO__NO;
  }
  if (ojo_config.has_addresses) { /* nested: of `!a && !b` over two look-ups clang makes what the verifier refuses */
    if (!ojo__prefix_has(identity->remote, identity->address_bytes))
      if (!ojo__prefix_has(identity->local, identity->address_bytes)) return OJO__NO;
  }
  if (ojo_config.has_ports) {
    uint16_t local = identity->local_port, remote = identity->remote_port;
    if (bpf_map_lookup_elem(&ojo_ports, &remote)) return OJO__YES;
    if (local == 0) return OJO__NOT_YET;
    if (!bpf_map_lookup_elem(&ojo_ports, &local)) return OJO__NO;
  }
  return OJO__YES;
}

/* Whether the socket was made in the cgroup of the filter or below it. */
static __noinline int ojo__in_cgroup(const struct sock *sk) {
  if (!ojo_config.cgroup) return 1;
  struct cgroup *cgroup = sk->sk_cgrp_data.cgroup;
  for (int i = 0; i < OJO__BPF_CGROUP_DEPTH && cgroup; i++) {
    if (cgroup->kn->id == ojo_config.cgroup) return 1;
    struct cgroup_subsys_state *parent = cgroup->self.parent;
    if (!parent) return 0;
    cgroup = parent->cgroup;
  }
  return 0;
}

static __noinline int ojo__one_more(void) {
  uint32_t zero = 0;
  struct ojo__bpf_shared *shared = bpf_map_lookup_elem(&ojo_shared, &zero);
  if (shared) __sync_fetch_and_add(&shared->connections, 1);
  return 0;
}

/* -- TCP: what is known of a connection */

static __always_inline struct ojo__tcp *ojo__tcp_of(const struct sock *sk, uint64_t flags) {
  return bpf_sk_storage_get(&ojo_tcp, (void *)sk, 0, flags);
}

/* IPv4 inside an IPv6 socket is shown as IPv4. */
static __always_inline void ojo__addresses(const struct sock *sk, struct ojo__bpf_identity *identity) {
  const struct sock_common *common = &sk->__sk_common;
  identity->local[0] = identity->local[1] = identity->remote[0] = identity->remote[1] = 0;
  if (common->skc_family == OJO__AF_INET6) {
    uint32_t l0 = common->skc_v6_rcv_saddr.in6_u.u6_addr32[0], l1 = common->skc_v6_rcv_saddr.in6_u.u6_addr32[1];
    uint32_t l2 = common->skc_v6_rcv_saddr.in6_u.u6_addr32[2], l3 = common->skc_v6_rcv_saddr.in6_u.u6_addr32[3];
    uint32_t r0 = common->skc_v6_daddr.in6_u.u6_addr32[0], r1 = common->skc_v6_daddr.in6_u.u6_addr32[1];
    uint32_t r2 = common->skc_v6_daddr.in6_u.u6_addr32[2], r3 = common->skc_v6_daddr.in6_u.u6_addr32[3];
    if (r0 == 0 && r1 == 0 && r2 == bpf_htonl(0xFFFF)) {
      identity->address_bytes = 4;
      identity->local[0] = l3;
      identity->remote[0] = r3;
    } else {
      identity->address_bytes = 16;
      identity->local[0] = l0 | (uint64_t)l1 << 32;
      identity->local[1] = l2 | (uint64_t)l3 << 32;
      identity->remote[0] = r0 | (uint64_t)r1 << 32;
      identity->remote[1] = r2 | (uint64_t)r3 << 32;
    }
  } else {
    identity->address_bytes = 4;
    identity->local[0] = common->skc_rcv_saddr;
    identity->remote[0] = common->skc_daddr;
  }
}

static __always_inline void ojo__identify(struct tcp_sock *tp, struct ojo__tcp *c) {
  struct sock *sk = &tp->inet_conn.icsk_inet.sk;
  ojo__addresses(sk, &c->identity);
  c->identity.remote_port = bpf_ntohs(sk->__sk_common.skc_dport);
  /* skc_num is 0 again at the change to CLOSE, inet_sport is not. */
  c->identity.local_port = bpf_ntohs(tp->inet_conn.icsk_inet.inet_sport);
  c->identity.netns = sk->__sk_common.skc_net.net->ns.inum;
  c->identity.protocol = OJO__TCP;
}

/* Bytes that the kernel took from the program, and that TCP accepted in order, since the socket began. The kernel's
 * sequence counts SYN and FIN as bytes. */
static __always_inline uint64_t ojo__bytes_out(struct tcp_sock *tp, uint32_t state, bool active) {
  uint64_t bytes = tp->bytes_acked + (uint32_t)(tp->write_seq - tp->snd_una);
  if (active && bytes) bytes--;
  if (bytes && (state == OJO__FIN_WAIT1 || state == OJO__FIN_WAIT2 || state == OJO__CLOSING || state == OJO__LAST_ACK))
    bytes--;
  return bytes;
}
static __always_inline uint64_t ojo__bytes_in(struct tcp_sock *tp) {
  uint64_t bytes = tp->bytes_received;
  uint64_t done = tp->inet_conn.icsk_inet.sk.__sk_common.skc_flags >> 1 & 1; /* SOCK_DONE: a FIN came */
  return bytes > done ? bytes - done : 0;
}
static __always_inline void ojo__totals(struct tcp_sock *tp, const struct ojo__tcp *c, uint32_t state,
                                        struct ojo__bpf_totals *totals) {
  uint64_t out = ojo__bytes_out(tp, state, c->active), in = ojo__bytes_in(tp);
  totals->bytes_out = out > c->base_out ? out - c->base_out : 0;
  totals->bytes_in = in > c->base_in ? in - c->base_in : 0;
  totals->packets_out = (uint32_t)(tp->segs_out - c->base_packets_out);
  totals->packets_in = (uint32_t)(tp->segs_in - c->base_packets_in);
  totals->retransmits = (uint32_t)(tp->total_retrans - c->base_retransmits);
  totals->dropped = 0;
}

/* -- TCP: beginning and end */

/* Decides, and tells of the connection once the filters let it pass. `again`: tell it although it was told. */
static __noinline int ojo__settle(const struct sock *sk, struct ojo__tcp *c, uint64_t now, int again) {
  uint32_t verdict = ojo__in_cgroup(sk) ? ojo__passes(&c->identity) : OJO__NO;
  c->decided = verdict != OJO__NOT_YET;
  c->wanted = verdict == OJO__YES;
  if (c->wanted && (again || !c->announced)) {
    struct ojo__bpf_bound *bound = bpf_sk_storage_get(&ojo_bound, (void *)sk, 0, 0);
    if (!c->announced) ojo__one_more();
    c->announced = 1;
    ojo__announce(&c->identity, c->flow, bound ? bound->flow : 0, now, OJO__P_STATE);
  }
  c->settled = c->owned && c->decided;
  return 0;
}

static __always_inline void ojo__owned_by_current(struct ojo__tcp *c) {
  c->identity.pid = bpf_get_current_pid_tgid() >> 32;
  ojo__command(bpf_get_current_task_btf(), c->identity.command);
  c->owned = 1;
}

static __noinline int ojo__begin(struct tcp_sock *tp, struct ojo__tcp *c, uint64_t now, uint32_t flags) {
  struct sock *sk = &tp->inet_conn.icsk_inet.sk;
  uint64_t cookie = bpf_get_socket_cookie(tp);
  uint32_t state = sk->__sk_common.skc_state;
  struct ojo__bpf_bound *bound;
  c->listener = c->listed = c->closing = c->finished = c->reset = c->announced = 0;
  c->active = flags == 0 && !BPF_CORE_READ_BITFIELD(tp, repair); /* TCP_REPAIR: connect sends no SYN */
  c->base_out = c->base_in = 0;
  c->base_packets_out = c->base_packets_in = c->base_retransmits = c->retransmits = 0;
  c->srtt_us = c->min_rtt_us = c->mdev_us = c->cwnd = c->ssthresh = c->in_flight = 0;
  c->send_window = c->receive_window = 0;
  c->congestion_state = 0;
  c->due_us = 0;
  if (flags & 1) { /* partial */
    c->base_out = ojo__bytes_out(tp, state, 0);
    c->base_in = ojo__bytes_in(tp);
    c->base_packets_out = tp->segs_out;
    c->base_packets_in = tp->segs_in;
    c->base_retransmits = c->retransmits = tp->total_retrans;
  }
  c->identity.cookie = cookie;
  c->identity.flags = flags;
  c->identity.state = state;
  ojo__identify(tp, c);
  bound = bpf_sk_storage_get(&ojo_bound, sk, 0, 0);
  c->flow = bound ? bound->flow : (uint32_t)(0x80000000u | (cookie & 0x3FFFFFFFu));
  c->first_ns = now;
  c->begun = 1;
  return 0;
}

/* A connection that is older than the probes, or that they missed. */
static __noinline int ojo__adopt(struct tcp_sock *tp, struct ojo__tcp *c, uint64_t now) {
  return ojo__begin(tp, c, now, 1);
}

static __always_inline void ojo__tell_retransmits(struct tcp_sock *tp, struct ojo__tcp *c, uint64_t now) {
  uint32_t total = tp->total_retrans, more = total - c->retransmits;
  if (!more) return;
  c->retransmits = total;
  if (c->wanted && OJO__WANTS(OJO__P_RETRANSMIT))
    ojo__emit(OJO__P_RETRANSMIT, now, OJO__E_RETRANSMIT | OJO__BPF_SIZED, c->flow, more, total - c->base_retransmits);
}

static __noinline int ojo__finish(struct tcp_sock *tp, struct ojo__tcp *c, uint64_t now) {
  struct ojo__bpf_row *row;
  c->finished = 1;
  if (!c->announced) return 0;
  row = bpf_ringbuf_reserve(&ojo_ring, sizeof *row, 0);
  if (!row) return ojo__lost(OJO__P_STATE, now);
  row->event.time_ns = now;
  row->event.type = OJO__E_TCP_FINISHED | (c->wanted ? 0 : OJO__BPF_QUIET);
  row->event.flow = c->flow;
  row->event.value = 0;
  row->event.size = 0;
  row->identity = c->identity;
  row->identity.state = OJO__CLOSE;
  row->totals = c->last;
  row->first_ns = c->first_ns;
  row->last_ns = now;
  row->rtt_us = tp->srtt_us >> 3;
  row->cwnd = tp->snd_cwnd * tp->mss_cache;
  row->cwnd_segments = tp->snd_cwnd;
  row->is_new = !c->listed;
  bpf_ringbuf_submit(row, ojo__submit_flags(now));
  return 0;
}

/* At the change to CLOSE the counts are final, but for a RST that close() sends thereafter: then the socket is about
 * to be destroyed, and is told of there. SOCK_DEAD (bit 0) or both directions shut without a FIN: it is in close(). */
static __noinline int ojo__close(struct tcp_sock *tp, struct ojo__tcp *c, uint64_t now, uint32_t old) {
  struct sock *sk = &tp->inet_conn.icsk_inet.sk;
  bool dead = sk->__sk_common.skc_flags & 1;
  if (!c->begun || c->finished || c->closing) return 0;
  if (c->identity.local_port == 0 || !c->decided) { /* a connect that failed: now the port is known */
    ojo__identify(tp, c);
    ojo__settle(sk, c, now, 1);
  }
  ojo__totals(tp, c, old, &c->last);
  ojo__tell_retransmits(tp, c, now);
  if (dead || (sk->sk_shutdown == 3 && (old == OJO__ESTABLISHED || old == OJO__CLOSE_WAIT || old == OJO__SYN_RECV))) {
    c->closing = 1;
    return 0;
  }
  return ojo__finish(tp, c, now);
}

static __always_inline int ojo__on_state(const struct sock *sk, int old, int new) {
  struct tcp_sock *tp = bpf_skc_to_tcp_sock((void *)sk);
  if (!tp) return 0; /* not TCP: MPTCP, DCCP and SCTP use the same tracepoint */
  bool make = new == OJO__LISTEN || new == OJO__SYN_SENT || new == OJO__SYN_RECV || new == OJO__ESTABLISHED;
  struct ojo__tcp *c = ojo__tcp_of(sk, make ? BPF_SK_STORAGE_GET_F_CREATE : 0);
  if (!c) return 0;
  uint64_t now = bpf_ktime_get_ns();
  if (new == OJO__LISTEN) {
    c->listener = 1;
    c->begun = 0;
    ojo__owned_by_current(c);
    return 0;
  }
  if (c->listener) { /* itself, closing; or its clone, an accepted socket: the listener's owner, till one is seen */
    if (old == OJO__LISTEN && new == OJO__CLOSE) return 0;
    c->listener = c->begun = c->owned = 0;
    if (new == OJO__SYN_RECV) return 0; /* its addresses are not set yet */
  }
  if (new == OJO__SYN_SENT) {
    ojo__owned_by_current(c);
    ojo__begin(tp, c, now, 0);
    c->identity.state = new; /* the socket still has the old one */
    ojo__settle(sk, c, now, 1);
  } else if (new == OJO__ESTABLISHED && !c->begun) {
    ojo__begin(tp, c, now, 2); /* passive */
    c->identity.state = new;
    ojo__settle(sk, c, now, 1);
  } else if (new == OJO__ESTABLISHED) {
    ojo__identify(tp, c); /* now with its local port */
    c->identity.state = new;
    ojo__settle(sk, c, now, 1);
  }
  c->identity.state = new;
  if (c->wanted && OJO__WANTS(OJO__P_STATE))
    ojo__emit(OJO__P_STATE, now, OJO__E_STATE | OJO__BPF_SIZED, c->flow, new, old);
  if (new == OJO__ESTABLISHED) ojo__tell_retransmits(tp, c, now); /* of its SYN or SYN-ACK */
  if (new == OJO__CLOSE) ojo__close(tp, c, now, old);
  return 0;
}

SEC("tp_btf/inet_sock_set_state")
int BPF_PROG(ojo_state, const struct sock *sk, int old, int new) { return ojo__on_state(sk, old, new); }
SEC("fentry/tcp_set_state")
int BPF_PROG(ojo_state_fentry, struct sock *sk, int new) { return ojo__on_state(sk, sk->__sk_common.skc_state, new); }

static __always_inline int ojo__on_destroy(struct sock *sk) {
  struct tcp_sock *tp = bpf_skc_to_tcp_sock(sk);
  struct ojo__tcp *c;
  if (!tp) return 0;
  c = ojo__tcp_of(sk, 0);
  if (!c || c->listener || !c->begun || c->finished) return 0;
  if (c->closing) {
    uint64_t out = (uint32_t)(tp->segs_out - c->base_packets_out);
    if (tp->segs_out >= c->base_packets_out && out > c->last.packets_out) c->last.packets_out = out;
    else c->last.packets_out += c->reset; /* linger 0: the kernel's counts are 0 by now */
  } else { /* the change to CLOSE was missed: the state before it tells whether a FIN was sent */
    ojo__totals(tp, c, c->identity.state, &c->last);
    ojo__tell_retransmits(tp, c, bpf_ktime_get_ns());
  }
  return ojo__finish(tp, c, bpf_ktime_get_ns());
}
SEC("tp_btf/tcp_destroy_sock")
int BPF_PROG(ojo_destroy, struct sock *sk) { return ojo__on_destroy(sk); }
SEC("fentry/tcp_v4_destroy_sock") /* IPv6 sockets too */
int BPF_PROG(ojo_destroy_fentry, struct sock *sk) { return ojo__on_destroy(sk); }

/* -- TCP: sends and receives */

/* Once for each connection: who uses it is its owner. */
static __noinline int ojo__io_first(struct sock *sk) {
  struct tcp_sock *tp = bpf_skc_to_tcp_sock(sk);
  struct ojo__tcp *c;
  uint64_t now;
  uint32_t pid;
  int changed = 0;
  if (!tp) return 0;
  c = ojo__tcp_of(sk, BPF_SK_STORAGE_GET_F_CREATE);
  if (!c || c->finished || c->closing) return 0;
  now = bpf_ktime_get_ns();
  if (c->listener) c->listener = c->begun = c->owned = 0; /* fast open: data before it is established */
  if (!c->begun && sk->__sk_common.skc_state == OJO__SYN_RECV) ojo__begin(tp, c, now, 2);
  if (!c->begun) ojo__adopt(tp, c, now);
  if (!c->owned) {
    pid = bpf_get_current_pid_tgid() >> 32;
    changed = pid != c->identity.pid;
    ojo__owned_by_current(c);
  }
  return ojo__settle(sk, c, now, changed);
}

static __noinline int ojo__udp_socket(struct sock *sk, uint32_t bytes, uint32_t out);

static __always_inline int ojo__on_io(struct sock *sk, int length, uint32_t out) {
  if (length <= 0) return 0;
  uint32_t protocol = sk->sk_protocol;
  if (protocol != OJO__TCP) {
    if (ojo_config.udp_by_socket && protocol == OJO__UDP && sk->sk_type == OJO__DATAGRAM)
      ojo__udp_socket(sk, length, out);
    return 0;
  }
  struct ojo__tcp *c = ojo__tcp_of(sk, 0);
  if (!c || !c->settled) {
    ojo__io_first(sk);
    c = ojo__tcp_of(sk, 0);
    if (!c) return 0;
  }
  if (c->wanted && OJO__WANTS(OJO__P_IO))
    ojo__emit(OJO__P_IO, bpf_ktime_get_ns(), out ? OJO__E_SEND : OJO__E_RECEIVE, c->flow, length, 0);
  return 0;
}

SEC("tp_btf/sock_send_length")
int BPF_PROG(ojo_send, struct sock *sk, int length, int flags) { return ojo__on_io(sk, length, 1); }
SEC("tp_btf/sock_recv_length")
int BPF_PROG(ojo_receive, struct sock *sk, int length, int flags) {
  return flags & OJO__NO_DATA ? 0 : ojo__on_io(sk, length, 0);
}
SEC("fexit/tcp_sendmsg")
int BPF_PROG(ojo_send_fexit, struct sock *sk, void *message, unsigned long size, int length) {
  return ojo__on_io(sk, length, 1);
}
SEC("fexit/tcp_recvmsg")
int BPF_PROG(ojo_receive_fexit, struct sock *sk, void *message, unsigned long size, int flags, int *address_bytes,
             int length) {
  return flags & OJO__NO_DATA ? 0 : ojo__on_io(sk, length, 0);
}
SEC("fexit/tcp_recvmsg") /* before Linux 5.19 */
int BPF_PROG(ojo_receive_fexit6, struct sock *sk, void *message, unsigned long size, int nonblock, int flags,
             int *address_bytes, int length) {
  return flags & OJO__NO_DATA ? 0 : ojo__on_io(sk, length, 0);
}

/* -- TCP: what it does by itself */

static __always_inline int ojo__on_retransmit(const struct sock *sk) {
  if (!OJO__WANTS(OJO__P_RETRANSMIT)) return 0; /* a listing alone reads the kernel's count */
  struct tcp_sock *tp = bpf_skc_to_tcp_sock((void *)sk);
  if (!tp) return 0;
  struct ojo__tcp *c = ojo__tcp_of(sk, 0);
  if (c && c->begun) ojo__tell_retransmits(tp, c, bpf_ktime_get_ns());
  return 0;
}
SEC("tp_btf/tcp_retransmit_skb")
int BPF_PROG(ojo_retransmit, const struct sock *sk) { return ojo__on_retransmit(sk); }
SEC("fexit/__tcp_retransmit_skb")
int BPF_PROG(ojo_retransmit_fexit, struct sock *sk) { return ojo__on_retransmit(sk); }

static __noinline int ojo__look(struct tcp_sock *tp, struct ojo__tcp *c) {
  uint32_t srtt = tp->srtt_us, mss = tp->mss_cache, cwnd = tp->snd_cwnd, ssthresh = tp->snd_ssthresh;
  uint32_t in_flight = tp->packets_out - tp->sacked_out - tp->lost_out + tp->retrans_out;
  uint32_t send_window = tp->snd_wnd, receive_window = tp->rcv_wnd, changed = 0;
  uint32_t min_rtt = tp->rtt_min.s[0].v, mdev = tp->mdev_us;
  struct ojo__bpf_metrics *m;
  uint64_t now;
  if (srtt != c->srtt_us || min_rtt != c->min_rtt_us || mdev != c->mdev_us) changed |= OJO__BPF_HAS_RTT;
  if (cwnd != c->cwnd || mss != c->mss) changed |= OJO__BPF_HAS_CWND;
  if (ssthresh < 0x7FFFFFFF && (ssthresh != c->ssthresh || mss != c->mss)) changed |= OJO__BPF_HAS_SSTHRESH;
  if (in_flight != c->in_flight || mss != c->mss) changed |= OJO__BPF_HAS_IN_FLIGHT;
  if (send_window != c->send_window) changed |= OJO__BPF_HAS_SEND_WINDOW;
  if (receive_window != c->receive_window) changed |= OJO__BPF_HAS_RECEIVE_WINDOW;
  if (!changed) return 0;
  now = bpf_ktime_get_ns();
  m = bpf_ringbuf_reserve(&ojo_ring, sizeof *m, 0);
  if (!m) return ojo__lost(OJO__P_METRICS, now);
  c->srtt_us = srtt;
  c->min_rtt_us = min_rtt;
  c->mdev_us = mdev;
  c->cwnd = cwnd;
  c->mss = mss;
  c->ssthresh = ssthresh;
  c->in_flight = in_flight;
  c->send_window = send_window;
  c->receive_window = receive_window;
  m->event.time_ns = now;
  m->event.type = OJO__BPF_METRICS;
  m->event.flow = c->flow;
  m->event.value = changed;
  m->event.size = 0;
  m->srtt_us = srtt >> 3;
  m->min_rtt_us = min_rtt;
  m->variation_us = mdev >> 2;
  m->mss = mss;
  m->cwnd = cwnd;
  m->ssthresh = ssthresh;
  m->in_flight = in_flight;
  m->send_window = send_window;
  m->receive_window = receive_window;
  m->zero = 0;
  bpf_ringbuf_submit(m, ojo__submit_flags(now));
  return 0;
}

static __always_inline void ojo__congestion(struct ojo__tcp *c, uint32_t state) {
  if (!c->wanted || c->congestion_state == state) return;
  c->congestion_state = state;
  ojo__emit(OJO__P_CONGESTION, bpf_ktime_get_ns(), OJO__E_CONGESTION, c->flow, state, 0);
}

/* For each segment that arrives: looks at the connection at most once per interval, by TCP's own time, which costs
 * nothing to read. It is as of the segment before: an idle connection's first look may be left out. */
static __always_inline int ojo__on_segment(struct sock *sk) {
  if (!OJO__WANTS(OJO__P_METRICS) && !(OJO__WANTS(OJO__P_CONGESTION) && ojo_config.poll_congestion)) return 0;
  struct tcp_sock *tp = bpf_skc_to_tcp_sock(sk);
  if (!tp) return 0;
  struct ojo__tcp *c = ojo__tcp_of(sk, 0);
  if (!c || !c->wanted) return 0;
  if (OJO__WANTS(OJO__P_CONGESTION) && ojo_config.poll_congestion)
    ojo__congestion(c, BPF_CORE_READ_BITFIELD(&tp->inet_conn, icsk_ca_state));
  if (!OJO__WANTS(OJO__P_METRICS)) return 0;
  uint64_t at = tp->tcp_mstamp;
  if (at < c->due_us) return 0;
  c->due_us = at + ojo_config.metrics_interval_us;
  return ojo__look(tp, c);
}
SEC("tp_btf/tcp_probe")
int BPF_PROG(ojo_segment, struct sock *sk) { return ojo__on_segment(sk); }
SEC("fentry/tcp_rcv_established")
int BPF_PROG(ojo_segment_fentry, struct sock *sk) { return ojo__on_segment(sk); }

SEC("tp_btf/tcp_cong_state_set")
int BPF_PROG(ojo_congestion, struct sock *sk, uint8_t state) {
  if (!OJO__WANTS(OJO__P_CONGESTION)) return 0;
  struct ojo__tcp *c = ojo__tcp_of(sk, 0);
  if (c && c->begun) ojo__congestion(c, state);
  return 0;
}

static __always_inline int ojo__on_reset(const struct sock *sk, uint32_t type) {
  struct tcp_sock *tp = bpf_skc_to_tcp_sock((void *)sk); /* none: a request, or in TIME_WAIT */
  if (!tp) return 0;
  struct ojo__tcp *c = ojo__tcp_of(sk, 0);
  if (!c || !c->begun || c->listener) return 0;
  if (type == OJO__E_RESET_SENT && c->closing) c->reset = 1;
  if (c->wanted && OJO__WANTS(OJO__P_RESET)) ojo__emit(OJO__P_RESET, bpf_ktime_get_ns(), type, c->flow, 0, 0);
  return 0;
}
SEC("tp_btf/tcp_send_reset")
int BPF_PROG(ojo_reset_sent, const struct sock *sk) { return sk ? ojo__on_reset(sk, OJO__E_RESET_SENT) : 0; }
SEC("tp_btf/tcp_receive_reset")
int BPF_PROG(ojo_reset_received, struct sock *sk) { return ojo__on_reset(sk, OJO__E_RESET_RECEIVED); }
SEC("fentry/tcp_send_active_reset")
int BPF_PROG(ojo_reset_sent_fentry, struct sock *sk) { return ojo__on_reset(sk, OJO__E_RESET_SENT); }
SEC("fentry/tcp_reset")
int BPF_PROG(ojo_reset_received_fentry, struct sock *sk) { return ojo__on_reset(sk, OJO__E_RESET_RECEIVED); }

/* -- walks: what was there before, and listings */

/* Owners of sockets that are older than the probes: of several processes the lowest pid. */
SEC("iter/task_file")
int ojo_walk_files(struct bpf_iter__task_file *ctx) {
  struct task_struct *task = ctx->task;
  struct file *file = ctx->file;
  if (!task) return 0;
  if (!file) return 0;
  struct socket *socket = bpf_sock_from_file(file);
  if (!socket) return 0;
  struct sock *sk = socket->sk;
  if (!sk) return 0;
  uint32_t pid = task->tgid, protocol = sk->sk_protocol;
  uint32_t family = sk->__sk_common.skc_family;
  if (family != OJO__AF_INET && family != OJO__AF_INET6) return 0;
  if (protocol == OJO__UDP) {
    struct ojo__owner *owner = bpf_sk_storage_get(&ojo_owners, sk, 0, BPF_SK_STORAGE_GET_F_CREATE);
    if (!owner) return 0;
    if (owner->owned && (!owner->partial || owner->pid <= pid)) return 0;
    owner->pid = pid;
    owner->netns = sk->__sk_common.skc_net.net->ns.inum;
    ojo__command(task, owner->command);
    owner->owned = owner->partial = 1;
    return 0;
  }
  struct tcp_sock *tp = bpf_skc_to_tcp_sock(sk);
  if (!tp) return 0;
  struct ojo__tcp *c = ojo__tcp_of(sk, BPF_SK_STORAGE_GET_F_CREATE);
  if (!c) return 0;
  uint32_t state = sk->__sk_common.skc_state;
  if (c->settled || (c->owned && c->announced)) return 0; /* the probes know better */
  if (c->identity.pid && c->identity.pid <= pid) return 0;
  if (state == OJO__LISTEN) c->listener = 1;
  else if (state == OJO__CLOSE) return 0;
  else if (!c->begun) ojo__adopt(tp, c, bpf_ktime_get_ns());
  c->identity.pid = pid;
  ojo__command(task, c->identity.command);
  return 0;
}

/* Sockets that no descriptor leads to: not accepted yet, or closed by their program and not yet by TCP. */
SEC("iter/tcp")
int ojo_walk_tcp(struct bpf_iter__tcp *ctx) {
  struct sock_common *common = ctx->sk_common;
  if (!common) return 0;
  struct tcp_sock *tp = bpf_skc_to_tcp_sock(common);
  if (!tp) return 0; /* TIME_WAIT, a request */
  struct ojo__tcp *c = bpf_sk_storage_get(&ojo_tcp, tp, 0, BPF_SK_STORAGE_GET_F_CREATE);
  if (!c || c->begun || c->listener) return 0;
  if (common->skc_state == OJO__LISTEN) c->listener = 1;
  else if (common->skc_state != OJO__CLOSE) ojo__adopt(tp, c, bpf_ktime_get_ns());
  return 0;
}

static __always_inline bool ojo__ring_busy(void) {
  return bpf_ringbuf_query(&ojo_ring, BPF_RB_AVAIL_DATA) > ojo_config.ring_half;
}

/* Tells of what the two above have found. 1 when the ring is half full: the reader empties it and goes on. */
SEC("iter/bpf_sk_storage_map")
int ojo_walk_found(struct bpf_iter__bpf_sk_storage_map *ctx) {
  struct sock *sk = ctx->sk;
  struct ojo__tcp *c = ctx->value;
  if (!sk) return 0;
  if (!c) return 0;
  if (!c->begun || c->announced || c->finished || c->closing || !(c->identity.flags & 1)) return 0;
  if (ojo__ring_busy()) return 1;
  c = ojo__tcp_of(sk, 0);
  if (!c) return 0;
  c->owned = c->identity.pid != 0;
  return ojo__settle(sk, c, bpf_ktime_get_ns(), 0);
}

/* A row for each live connection. 1 when the ring is half full: the reader empties it and goes on from there. */
SEC("iter/bpf_sk_storage_map")
int ojo_walk_list(struct bpf_iter__bpf_sk_storage_map *ctx) {
  struct sock *sk = ctx->sk;
  struct ojo__tcp *c = ctx->value;
  struct ojo__bpf_row *row;
  uint64_t mstamp_ns;
  if (!sk) return 0;
  if (!c) return 0;
  if (!c->wanted || c->finished || !c->begun) return 0;
  struct tcp_sock *tp = bpf_skc_to_tcp_sock(sk);
  if (!tp) return 0;
  uint32_t state = sk->__sk_common.skc_state;
  if (state == OJO__CLOSE && !c->closing) return 0; /* before SYN_SENT: not connected again yet */
  if (ojo__ring_busy()) return 1;
  row = bpf_ringbuf_reserve(&ojo_ring, sizeof *row, 0);
  if (!row) return 1;
  mstamp_ns = tp->tcp_mstamp * 1000;
  row->event.time_ns = 0;
  row->event.type = OJO__BPF_ROW;
  row->event.flow = c->flow;
  row->event.value = 0;
  row->event.size = 0;
  row->identity = c->identity;
  row->identity.state = state;
  if (c->closing) row->totals = c->last;
  else ojo__totals(tp, c, state, &row->totals);
  row->first_ns = c->first_ns;
  row->last_ns = mstamp_ns > c->first_ns ? mstamp_ns : c->first_ns;
  row->rtt_us = tp->srtt_us >> 3;
  row->cwnd = tp->snd_cwnd * tp->mss_cache;
  row->cwnd_segments = tp->snd_cwnd;
  row->is_new = !c->listed;
  c->listed = 1;
  bpf_ringbuf_submit(row, BPF_RB_NO_WAKEUP);
  return 0;
}

/* -- UDP */

static __always_inline uint32_t ojo__tuple_hash(const struct ojo__bpf_tuple_key *key) {
  uint64_t x = key->cookie * 0x9E3779B97F4A7C15ull;
  x = (x ^ key->local[0] ^ x >> 29) * 0xBF58476D1CE4E5B9ull;
  x = (x ^ key->local[1] ^ x >> 31) * 0x94D049BB133111EBull;
  x = (x ^ key->remote[0] ^ x >> 29) * 0xBF58476D1CE4E5B9ull;
  x = (x ^ key->remote[1] ^ x >> 31) * 0x94D049BB133111EBull;
  x ^= key->local_port | (uint32_t)key->remote_port << 16;
  return ojo__hash(x) & 0x3FFFFFFFu;
}

static __noinline int ojo__tuple_settle(struct ojo__bpf_tuple *tuple, struct ojo__owner *owner, uint64_t now) {
  int changed = 0;
  if (!tuple) return 0;
  if (owner && owner->owned) {
    changed = tuple->identity.pid != owner->pid;
    tuple->identity.pid = owner->pid;
    tuple->identity.netns = owner->netns;
    tuple->identity.command[0] = owner->command[0];
    tuple->identity.command[1] = owner->command[1];
    tuple->identity.flags = owner->partial;
    tuple->owned = 1;
  }
  tuple->wanted = ojo__passes(&tuple->identity) == OJO__YES;
  if (!tuple->wanted || (tuple->announced && !changed)) return 0;
  if (!tuple->announced) ojo__one_more();
  tuple->announced = 1;
  return ojo__announce(&tuple->identity, tuple->flow, tuple->parent, now, OJO__P_UDP_IO);
}

static __noinline int ojo__tuple_make(struct ojo__bpf_tuple_key *key, struct ojo__bpf_bound *bound, uint64_t now) {
  struct ojo__bpf_tuple tuple = {};
  uint32_t hash;
  if (!key) return 0;
  hash = ojo__tuple_hash(key);
  uint64_t cookie = key->cookie;
  tuple.flow = 0xC0000000u | hash;
  if (bound) {
    tuple.parent = bound->flow;
    if (bound->taken_by == 0 || bound->taken_by == hash) {
      bound->taken_by = hash;
      tuple.flow = bound->flow;
    }
  }
  tuple.identity.cookie = cookie;
  tuple.identity.local_port = key->local_port;
  tuple.identity.remote_port = key->remote_port;
  tuple.identity.protocol = OJO__UDP;
  tuple.identity.address_bytes = key->address_bytes;
  tuple.identity.local[0] = key->local[0];
  tuple.identity.local[1] = key->local[1];
  tuple.identity.remote[0] = key->remote[0];
  tuple.identity.remote[1] = key->remote[1];
  tuple.first_ns = tuple.last_ns = now;
  if (bpf_map_update_elem(&ojo_tuples, key, &tuple, BPF_NOEXIST) < 0) return 0; /* another CPU made it, or full */
  return 1;
}

/* `sk`: a struct sock or bpf_sock, as this kind of program has it. */
static __always_inline void ojo__tuple_count(struct ojo__bpf_tuple_key *key, void *sk, struct ojo__owner *owner,
                                             uint64_t bytes, uint64_t datagrams, uint32_t out) {
  uint64_t now = bpf_ktime_get_ns();
  struct ojo__bpf_tuple *tuple = bpf_map_lookup_elem(&ojo_tuples, key);
  if (!tuple) {
    ojo__tuple_make(key, bpf_sk_storage_get(&ojo_bound, sk, 0, 0), now);
    tuple = bpf_map_lookup_elem(&ojo_tuples, key);
    if (!tuple) {
      ojo__lost(OJO__P_UDP_IO, now);
      return;
    }
    ojo__tuple_settle(tuple, owner, now);
  } else if (!tuple->owned && owner && owner->owned) {
    ojo__tuple_settle(tuple, owner, now);
  }
  if (!tuple->wanted) return;
  tuple->last_ns = now;
  __sync_fetch_and_add(out ? &tuple->totals.bytes_out : &tuple->totals.bytes_in, bytes);
  __sync_fetch_and_add(out ? &tuple->totals.packets_out : &tuple->totals.packets_in, datagrams);
  if (OJO__WANTS(OJO__P_UDP_IO))
    ojo__emit(OJO__P_UDP_IO, now, (out ? OJO__E_UDP_SEND : OJO__E_UDP_RECEIVE) | OJO__BPF_SIZED, tuple->flow, bytes,
              datagrams);
}

static __always_inline void ojo__owner_is_current(struct ojo__owner *owner) {
  struct task_struct *task = bpf_get_current_task_btf();
  owner->pid = task->tgid;
  owner->netns = task->nsproxy->net_ns->ns.inum;
  ojo__command(task, owner->command);
  owner->owned = 1;
}

SEC("cgroup/sock_create")
int ojo_udp_create(struct bpf_sock *sk) {
  if (sk->protocol != OJO__UDP || sk->type != OJO__DATAGRAM) return 1; /* a raw socket may be of UDP as well */
  struct ojo__owner *owner = bpf_sk_storage_get(&ojo_owners, sk, 0, BPF_SK_STORAGE_GET_F_CREATE);
  if (owner) ojo__owner_is_current(owner);
  return 1;
}

/* Where UDP's header begins; 0: not UDP. */
static __always_inline uint32_t ojo__udp_offset(struct __sk_buff *skb) {
  uint8_t *data = (void *)(long)skb->data, *end = (void *)(long)skb->data_end;
  if (skb->protocol == bpf_htons(0x0800)) {
    if (data + 20 > end || data[9] != OJO__UDP) return 0;
    return (data[0] & 15) * 4;
  }
  if (skb->protocol != bpf_htons(0x86DD) || data + 40 > end) return 0;
  uint32_t next = data[6], at = 40;
  if (next == OJO__UDP) return at;
  if (next == OJO__TCP) return 0;
  for (int i = 0; i < 4; i++) { /* extension headers */
    uint8_t head[2];
    if (next != 0 && next != 43 && next != 44 && next != 60) return 0;
    if (bpf_skb_load_bytes(skb, at, head, 2) < 0) return 0;
    at += next == 44 ? 8 : head[1] * 8 + 8;
    next = head[0];
    if (next == OJO__UDP) return at;
  }
  return 0;
}

static __always_inline int ojo__tuple_key(struct __sk_buff *skb, uint32_t at, uint32_t out,
                                          struct ojo__bpf_tuple_key *key) {
  uint16_t ports[2];
  uint64_t *source = out ? key->local : key->remote, *target = out ? key->remote : key->local;
  if (bpf_skb_load_bytes(skb, at, ports, 4) < 0) return 0;
  if (skb->protocol == bpf_htons(0x0800)) {
    uint32_t both[2];
    if (bpf_skb_load_bytes(skb, 12, both, 8) < 0) return 0;
    source[0] = both[0];
    target[0] = both[1];
    source[1] = target[1] = 0;
    key->address_bytes = 4;
  } else {
    uint64_t both[4];
    if (bpf_skb_load_bytes(skb, 8, both, 32) < 0) return 0;
    source[0] = both[0];
    source[1] = both[1];
    target[0] = both[2];
    target[1] = both[3];
    key->address_bytes = 16;
  }
  key->local_port = bpf_ntohs(out ? ports[0] : ports[1]);
  key->remote_port = bpf_ntohs(out ? ports[1] : ports[0]);
  key->cookie = bpf_get_socket_cookie(skb);
  return 1;
}

/* Must return 1 whatever happens: 0 drops the packet. TCP leaves at the first comparison. */
static __always_inline int ojo__on_packet(struct __sk_buff *skb, uint32_t out) {
  uint32_t at = ojo__udp_offset(skb), zero = 0;
  if (at == 0) return 1;
  struct bpf_sock *sk = skb->sk;
  if (!sk) return 1;
  sk = bpf_sk_fullsock(sk);
  if (!sk || sk->protocol != OJO__UDP || sk->type != OJO__DATAGRAM) return 1; /* raw, or TCP through a tunnel */
  struct ojo__seen on_stack = {}, *seen = &on_stack;
  if (!out && OJO__SEES_DROPS) {
    seen = bpf_map_lookup_elem(&ojo_seen, &zero);
    if (!seen) return 1;
  }
  if (!ojo__tuple_key(skb, at, out, &seen->key)) return 1;
  uint32_t length = skb->len, gso = skb->gso_size;
  if (length < at + 8) return 1;
  seen->bytes = length - at - 8;
  seen->datagrams = gso && seen->bytes > gso ? (seen->bytes + gso - 1) / gso : 1;
  struct ojo__owner *owner = bpf_sk_storage_get(&ojo_owners, sk, 0, out ? BPF_SK_STORAGE_GET_F_CREATE : 0);
  if (out && owner && !owner->owned) ojo__owner_is_current(owner);
  ojo__tuple_count(&seen->key, sk, owner, seen->bytes, seen->datagrams, out);
  return 1;
}
SEC("cgroup_skb/egress")
int ojo_udp_out(struct __sk_buff *skb) { return ojo__on_packet(skb, 1); }
SEC("cgroup_skb/ingress")
int ojo_udp_in(struct __sk_buff *skb) { return ojo__on_packet(skb, 0); }

/* The ingress program has just counted it, on this CPU. */
SEC("tp_btf/udp_fail_queue_rcv_skb")
int BPF_PROG(ojo_udp_drop, int error, struct sock *sk) {
  uint32_t zero = 0;
  struct ojo__seen *seen = bpf_map_lookup_elem(&ojo_seen, &zero);
  if (!seen || seen->datagrams == 0) return 0;
  if (bpf_get_socket_cookie(sk) != seen->key.cookie) return 0;
  struct ojo__bpf_tuple *tuple = bpf_map_lookup_elem(&ojo_tuples, &seen->key);
  if (!tuple || !tuple->wanted) return 0;
  __sync_fetch_and_add(&tuple->totals.bytes_in, -seen->bytes);
  __sync_fetch_and_add(&tuple->totals.packets_in, -seen->datagrams);
  __sync_fetch_and_add(&tuple->totals.dropped, seen->datagrams);
  if (OJO__WANTS(OJO__P_UDP_DROP))
    ojo__emit(OJO__P_UDP_DROP, bpf_ktime_get_ns(), OJO__E_UDP_DROP | OJO__BPF_SIZED, tuple->flow, seen->bytes,
              seen->datagrams);
  seen->datagrams = 0;
  return 0;
}

/* Without cgroup_skb: what the program gave and took, by socket. The peer is not known. */
static __noinline int ojo__udp_socket(struct sock *sk, uint32_t bytes, uint32_t out) {
  struct ojo__bpf_tuple_key key = {};
  if (!ojo__in_cgroup(sk)) return 0;
  struct ojo__owner *owner = bpf_sk_storage_get(&ojo_owners, sk, 0, BPF_SK_STORAGE_GET_F_CREATE);
  if (!owner) return 0;
  if (!owner->owned) ojo__owner_is_current(owner);
  key.cookie = bpf_get_socket_cookie(sk);
  key.local_port = sk->__sk_common.skc_num;
  key.address_bytes = sk->__sk_common.skc_family == OJO__AF_INET6 ? 16 : 4;
  ojo__tuple_count(&key, sk, owner, bytes, 1, out);
  return 0;
}

/* A row for each live tuple, as ojo_walk_list. */
SEC("iter/bpf_map_elem")
int ojo_walk_tuples(struct bpf_iter__bpf_map_elem *ctx) {
  struct ojo__bpf_tuple_key *key = ctx->key;
  struct ojo__bpf_tuple *tuple = ctx->value;
  if (!key) return 0;
  if (!tuple) return 0;
  uint32_t zero = 0;
  struct ojo__bpf_shared *shared = bpf_map_lookup_elem(&ojo_shared, &zero);
  if (!shared) return 0;
  uint64_t before = shared->expired_before_ns;
  if (before ? tuple->last_ns >= before : !tuple->wanted) return 0;
  if (ojo__ring_busy()) return 1;
  struct ojo__bpf_row *row = bpf_ringbuf_reserve(&ojo_ring, sizeof *row, 0);
  if (!row) return 1;
  row->event.time_ns = 0;
  row->event.type = OJO__BPF_ROW;
  row->event.flow = tuple->flow;
  row->event.value = before != 0;
  row->event.size = 0;
  row->identity = tuple->identity;
  row->totals = tuple->totals;
  row->first_ns = tuple->first_ns;
  row->last_ns = tuple->last_ns;
  row->rtt_us = row->cwnd = row->cwnd_segments = 0;
  row->is_new = !tuple->listed;
  if (!before) tuple->listed = 1;
  bpf_ringbuf_submit(row, BPF_RB_NO_WAKEUP);
  return 0;
}

/* -- the scheduler */

/* Whether an interrupt is being served, in which nobody's thread does the waking. x86-64 keeps the count of that in a
 * variable that many kernels don't let a program look at. But interrupts, soft ones too, have a stack of their own, on
 * which this program's frame then is (a frame of 64 bytes would not be: keep it small); unless they came in user
 * mode: those begin on the thread's stack, with -1 where the number of a system call would be. */
static __always_inline bool ojo__in_interrupt(void) {
  struct task_struct *task = bpf_get_current_task_btf();
  uint64_t frame, stack = (uint64_t)task->stack;
  if (bpf_core_field_exists(task->thread_info.preempt_count))
    return task->thread_info.preempt_count & 0xFF0100; /* NMI, hard interrupt, soft interrupt being served */
  __asm__ volatile("%0 = r10\n%0 -= %1" : "=&r"(frame) : "r"(task)); /* to the verifier the difference is a number */
  if (frame + bpf_get_current_task() - stack >= OJO__STACK_BYTES) return 1;
  struct pt_regs *registers = (struct pt_regs *)bpf_task_pt_regs(task);
  return bpf_core_field_exists(registers->orig_ax) && registers->orig_ax == ~0ul;
}

static __always_inline bool ojo__traced(struct task_struct *task) {
  uint32_t pid = task->tgid;
  if (!ojo_config.has_pids) return pid == ojo_config.self;
  return pid && bpf_map_lookup_elem(&ojo_pids, &pid) != 0;
}

static __always_inline bool ojo__poller(uint32_t tid) {
  uint32_t zero = 0;
  struct ojo__bpf_shared *shared = bpf_map_lookup_elem(&ojo_shared, &zero);
  return shared && shared->poller == tid;
}

SEC("tp_btf/sched_switch")
int BPF_PROG(ojo_switch, bool preempt, struct task_struct *from, struct task_struct *to) {
  uint64_t now = 0;
  uint32_t tid = from->pid;
  if (ojo__traced(from) && !ojo__poller(tid)) {
    now = bpf_ktime_get_ns();
    bpf_map_update_elem(&ojo_off_cpu, &tid, &now, BPF_ANY);
    ojo__emit(OJO__P_SCHEDULER, now, OJO__E_OFF_CPU | OJO__BPF_SIZED, 0, tid, !preempt && from->__state != 0);
  }
  tid = to->pid;
  if (ojo__traced(to) && !ojo__poller(tid)) {
    uint64_t *since = bpf_map_lookup_elem(&ojo_off_cpu, &tid);
    if (!now) now = bpf_ktime_get_ns();
    ojo__emit(OJO__P_SCHEDULER, now, OJO__E_ON_CPU | OJO__BPF_SIZED, 0, tid, since ? now - *since : 0);
  }
  return 0;
}

SEC("tp_btf/sched_waking")
int BPF_PROG(ojo_waking, struct task_struct *task) {
  if (!ojo__traced(task) || ojo__poller(task->pid)) return 0;
  uint32_t by = ojo__in_interrupt() ? 0 : (uint32_t)bpf_get_current_pid_tgid();
  ojo__emit(OJO__P_SCHEDULER, bpf_ktime_get_ns(), OJO__E_WAKEUP | OJO__BPF_SIZED, 0, task->pid, by);
  return 0;
}
#endif /* the kernel half */

/* ---- >>loader: the program's half ---------------------------------------------------------------- */

#if defined(OJO_BPF_IMPLEMENTATION) && !defined(OJO_DISABLE) && !defined(__bpf__) && !defined(OJO__BPF_IMPLEMENTED)
#define OJO__BPF_IMPLEMENTED

#include <bpf/bpf.h>
#include <bpf/btf.h>
#include <bpf/libbpf.h>

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/timerfd.h>
#include <sys/vfs.h>
#include <time.h>
#include <unistd.h>

#ifndef MAP_ANONYMOUS
#error "ojo_bpf.h: a libc header came before it under strict -std=c11: include it first, or define _DEFAULT_SOURCE"
#else

#ifndef OJO_BPF_PREFIX
#define OJO_BPF_PREFIX "/usr/local"
#endif

#define OJO__BPF_PRINTF(text, first) __attribute__((format(printf, text, first)))

#ifdef __cplusplus
#define OJO__BPF_ASSERT(x, name) static_assert(x, #name)
#else
#define OJO__BPF_ASSERT(x, name) _Static_assert(x, #name)
#endif
/* What the kernel half has under names of its own, as it can't include ojo.h. */
OJO__BPF_ASSERT(sizeof(struct ojo__bpf_identity) == sizeof(ojo_kernel_connection), identity_is_as_in_files);
OJO__BPF_ASSERT(offsetof(struct ojo__bpf_identity, netns) == offsetof(ojo_kernel_connection, netns), netns_as_in_files);
OJO__BPF_ASSERT(offsetof(struct ojo__bpf_identity, command) == offsetof(ojo_kernel_connection, command),
                command_as_in_files);
OJO__BPF_ASSERT(offsetof(struct ojo__bpf_identity, remote) == offsetof(ojo_kernel_connection, remote),
                remote_as_in_files);
OJO__BPF_ASSERT(sizeof(struct ojo__bpf_totals) == sizeof(ojo_kernel_totals), totals_are_as_in_files);
OJO__BPF_ASSERT(OJO__BPF_PROBES == OJO_BPF_PROBE_COUNT, probes);
#define OJO__BPF_SAME(theirs, ours) OJO__BPF_ASSERT((int)OJO_##theirs == (int)OJO__E_##ours, theirs)
OJO__BPF_SAME(KERNEL_CONNECTION, CONNECTION);
OJO__BPF_SAME(KERNEL_TCP_STATE, STATE);
OJO__BPF_SAME(KERNEL_TCP_SEND, SEND);
OJO__BPF_SAME(KERNEL_TCP_RECEIVE, RECEIVE);
OJO__BPF_SAME(KERNEL_TCP_RETRANSMIT, RETRANSMIT);
OJO__BPF_SAME(KERNEL_TCP_CONGESTION_STATE, CONGESTION);
OJO__BPF_SAME(KERNEL_TCP_RESET_SENT, RESET_SENT);
OJO__BPF_SAME(KERNEL_TCP_RESET_RECEIVED, RESET_RECEIVED);
OJO__BPF_SAME(KERNEL_TCP_FINISHED, TCP_FINISHED);
OJO__BPF_SAME(KERNEL_UDP_SEND, UDP_SEND);
OJO__BPF_SAME(KERNEL_UDP_RECEIVE, UDP_RECEIVE);
OJO__BPF_SAME(KERNEL_UDP_DROP, UDP_DROP);
OJO__BPF_SAME(KERNEL_UDP_FINISHED, UDP_FINISHED);
OJO__BPF_SAME(KERNEL_OFF_CPU, OFF_CPU);
OJO__BPF_SAME(KERNEL_ON_CPU, ON_CPU);
OJO__BPF_SAME(KERNEL_WAKEUP, WAKEUP);

#define OJO__BPF_DRAIN_MS 10          /* the kernel half does not wake us: a timer does */
#define OJO__BPF_DRAIN_MAX 200000     /* records per turn, so that a poll ends while the kernel goes on */
#define OJO__BPF_CLOSED_MAX (1u << 18) /* closed rows kept for the next listing */
#define OJO__BPF_BINDS_MAX (1u << 14)  /* latest binds kept, for what the ring told of before and is read after */

#define OJO__BPF_CGROUP2 0x63677270   /* CGROUP2_SUPER_MAGIC of linux/magic.h */

#define OJO__BPF_CANDIDATES 3

/* One line of ojo_bpf_query_probes, and the programs that can fill it, best first. */
enum ojo__bpf_how { OJO__BPF_TP, OJO__BPF_EGRESS, OJO__BPF_INGRESS, OJO__BPF_CREATE, OJO__BPF_FENTRY, OJO__BPF_ITER };
struct ojo__bpf_candidate {
  const char *program;
  enum ojo__bpf_how how;
  const char *target; /* the tracepoint's or function's name */
};
struct ojo__bpf_part {
  const char *name;
  uint32_t probe;  /* whose events it makes, and whose losses are its own */
  uint32_t needed; /* loaded if any of these is asked for */
  struct ojo__bpf_candidate candidates[OJO__BPF_CANDIDATES]; /* program NULL: no more */
};
enum { /* those with a role of their own below */
  OJO__BPF_PART_CONGESTION = 6,
  OJO__BPF_PART_UDP_OUT = 9, OJO__BPF_PART_UDP_IN = 10, OJO__BPF_PART_UDP_DROP = 12,
  OJO__BPF_PART_FILES = 15, OJO__BPF_PART_OTHERS = 16, OJO__BPF_PART_FOUND = 17, OJO__BPF_PART_LIST = 18,
  OJO__BPF_PART_TUPLES = 19, OJO__BPF_PARTS = 20
};
static const struct ojo__bpf_part ojo__bpf_parts[OJO__BPF_PARTS] = {
  {"tcp_state", OJO_BPF_TCP_STATE, OJO_BPF_TCP,
   {{"ojo_state", OJO__BPF_TP, "inet_sock_set_state"}, {"ojo_state_fentry", OJO__BPF_FENTRY, "tcp_set_state"}}},
  {"tcp_destroy", OJO_BPF_TCP_STATE, OJO_BPF_TCP,
   {{"ojo_destroy", OJO__BPF_TP, "tcp_destroy_sock"}, {"ojo_destroy_fentry", OJO__BPF_FENTRY, "tcp_v4_destroy_sock"}}},
  {"tcp_send", OJO_BPF_TCP_IO, OJO_BPF_TCP,
   {{"ojo_send", OJO__BPF_TP, "sock_send_length"}, {"ojo_send_fexit", OJO__BPF_FENTRY, "tcp_sendmsg"}}},
  {"tcp_receive", OJO_BPF_TCP_IO, OJO_BPF_TCP,
   {{"ojo_receive", OJO__BPF_TP, "sock_recv_length"}, {"ojo_receive_fexit", OJO__BPF_FENTRY, "tcp_recvmsg"},
    {"ojo_receive_fexit6", OJO__BPF_FENTRY, "tcp_recvmsg"}}},
  {"tcp_retransmit", OJO_BPF_TCP_RETRANSMIT, OJO_BPF_TCP_RETRANSMIT,
   {{"ojo_retransmit", OJO__BPF_TP, "tcp_retransmit_skb"},
    {"ojo_retransmit_fexit", OJO__BPF_FENTRY, "__tcp_retransmit_skb"}}},
  {"tcp_metrics", OJO_BPF_TCP_METRICS, OJO_BPF_TCP_METRICS,
   {{"ojo_segment", OJO__BPF_TP, "tcp_probe"}, {"ojo_segment_fentry", OJO__BPF_FENTRY, "tcp_rcv_established"}}},
  {"tcp_congestion", OJO_BPF_TCP_CONGESTION, OJO_BPF_TCP_CONGESTION,
   {{"ojo_congestion", OJO__BPF_TP, "tcp_cong_state_set"}, {"ojo_segment", OJO__BPF_TP, "tcp_probe"}}},
  {"tcp_reset_sent", OJO_BPF_TCP_RESET, OJO_BPF_TCP, /* a RST that ends a connection is one of its packets */
   {{"ojo_reset_sent", OJO__BPF_TP, "tcp_send_reset"},
    {"ojo_reset_sent_fentry", OJO__BPF_FENTRY, "tcp_send_active_reset"}}},
  {"tcp_reset_received", OJO_BPF_TCP_RESET, OJO_BPF_TCP_RESET,
   {{"ojo_reset_received", OJO__BPF_TP, "tcp_receive_reset"},
    {"ojo_reset_received_fentry", OJO__BPF_FENTRY, "tcp_reset"}}},
  {"udp_send", OJO_BPF_UDP_IO, OJO_BPF_UDP,
   {{"ojo_udp_out", OJO__BPF_EGRESS, "egress"}, {"ojo_send", OJO__BPF_TP, "sock_send_length"}}},
  {"udp_receive", OJO_BPF_UDP_IO, OJO_BPF_UDP,
   {{"ojo_udp_in", OJO__BPF_INGRESS, "ingress"}, {"ojo_receive", OJO__BPF_TP, "sock_recv_length"}}},
  {"udp_owner", OJO_BPF_UDP_IO, OJO_BPF_UDP,
   {{"ojo_udp_create", OJO__BPF_CREATE, "sock_create"}}},
  {"udp_drop", OJO_BPF_UDP_DROP, OJO_BPF_UDP, /* what was dropped was not received: the counts need it too */
   {{"ojo_udp_drop", OJO__BPF_TP, "udp_fail_queue_rcv_skb"}}},
  {"scheduler_switch", OJO_BPF_SCHEDULER, OJO_BPF_SCHEDULER,
   {{"ojo_switch", OJO__BPF_TP, "sched_switch"}}},
  {"scheduler_wakeup", OJO_BPF_SCHEDULER, OJO_BPF_SCHEDULER,
   {{"ojo_waking", OJO__BPF_TP, "sched_waking"}}},
  {"walk_files", 0, OJO_BPF_TCP | OJO_BPF_UDP, {{"ojo_walk_files", OJO__BPF_ITER, NULL}}},
  {"walk_tcp", 0, OJO_BPF_TCP, {{"ojo_walk_tcp", OJO__BPF_ITER, NULL}}},
  {"walk_found", 0, OJO_BPF_TCP, {{"ojo_walk_found", OJO__BPF_ITER, "ojo_tcp"}}},
  {"walk_list", 0, OJO_BPF_TCP, {{"ojo_walk_list", OJO__BPF_ITER, "ojo_tcp"}}},
  {"walk_tuples", 0, OJO_BPF_UDP, {{"ojo_walk_tuples", OJO__BPF_ITER, "ojo_tuples"}}},
};

struct ojo__bpf_slot { /* what became of a part */
  uint32_t choice;     /* candidate in force or to try; past the last: none */
  struct bpf_program *program;
  struct bpf_link *link;
  bool shared;         /* its program is attached by another part */
  uint64_t missed;     /* as told so far */
  char why[192];
};

struct ojo__bpf_entry {
  uint64_t key, value;
  uint32_t next, before; /* of `announced`: flows of the same socket that are not linked yet; 0: none */
};
struct ojo__bpf_table { /* open addressing; key 0: free */
  struct ojo__bpf_entry *entries;
  uint32_t capacity, count;
};

struct ojo_bpf {
  ojo_bpf_desc desc; /* its arrays and strings are ours */
  struct bpf_object *object;
  struct ojo__bpf_slot slots[OJO__BPF_PARTS];
  struct ojo__bpf_shared *shared;
  size_t shared_bytes;
  struct ring_buffer *ring;
  int epoll_fd, timer_fd, cgroup_fd;
  bool can_cgroup;            /* CAP_NET_ADMIN is there, and a cgroup2 to attach to */
  int bound_fd, tuples_fd;
  pthread_mutex_t lock;       /* held by who takes from the ring: poll, its thread, a listing */
  pthread_mutex_t table_lock; /* of the two tables: also ojo_bind_socket's caller changes them */
  struct ojo__bpf_table bound;     /* the latest binds: cookie -> number of the bind << 32 | the application's flow */
  uint64_t *binds;                 /* their cookies, OJO__BPF_BINDS_MAX of them, by the number of the bind */
  uint32_t bind_count;
  struct ojo__bpf_table announced; /* the kernel's flow -> cookie << 1 | linked to the application's flow */
  struct ojo__bpf_table unlinked;  /* cookie -> the first of its flows that are not linked */
  ojo_bpf_connection *rows, *closed; /* of a listing under way; since the last one */
  size_t row_count, row_capacity, closed_count, closed_capacity;
  bool listing, out_of_memory, told_closed;
  uint32_t told_full;         /* a bind found no memory: 1, 2 once that is logged. Any thread */
  uint64_t closed_lost;
  bool say_closed;            /* logged once `lock` is free: the logger may call us */
  struct ojo__bpf_tuple_key *expired; /* found by a walk, to be removed after it */
  size_t expired_count, expired_capacity;
  char heard[192];            /* what libbpf said last, while opening */
  uint64_t handled;           /* in this turn */
  uint64_t events, missed, lost[OJO__BPF_PROBES], lost_sum, missed_at_ns, expired_at_ns;
  pthread_t thread;
  bool thread_runs, stop;
};

/* -- talk */

static void ojo__bpf_log(const ojo_logger *logger, const char *format, ...) OJO__BPF_PRINTF(2, 3);
static void ojo__bpf_log(const ojo_logger *logger, const char *format, ...) {
  char line[512];
  va_list arguments;
  va_start(arguments, format);
  vsnprintf(line, sizeof line, format, arguments);
  va_end(arguments);
  if (logger->log) logger->log(logger->user, line);
  else fprintf(stderr, "ojo_bpf: %s\n", line);
}

/* libbpf writes to stderr, and its hint about ulimit -l misleads. While this thread loads, its talk ends here; what
 * the last line of a verifier's log says is the reason. Other threads' talk goes where it went. */
static __thread char *ojo__bpf_heard; /* ojo_bpf.heard; NULL: not ours */
static libbpf_print_fn_t ojo__bpf_print_before;

/* The line that says why: of a verifier's log the last one before its statistics. */
static void ojo__bpf_hear(char *heard, size_t room, char *text) {
  char *line, *next;
  if (strstr(text, "ulimit -l") || strstr(text, "failed to load object") || strstr(text, "failed to load: ")) return;
  for (line = text; line && *line; line = next) {
    next = strchr(line, '\n');
    if (next) *next++ = 0;
    if (*line == 0 || strstr(line, "-- END PROG LOAD LOG") || strstr(line, "-- BEGIN PROG LOAD LOG")) continue;
    if (strncmp(line, "processed ", 10) == 0 || strncmp(line, "max_states", 10) == 0) continue;
    if (strncmp(line, "libbpf: ", 8) == 0) line += 8;
    snprintf(heard, room, "%s", line);
  }
}
static int ojo__bpf_print(enum libbpf_print_level level, const char *format, va_list arguments) {
  va_list again;
  char *text;
  int length;
  if (!ojo__bpf_heard) return ojo__bpf_print_before ? ojo__bpf_print_before(level, format, arguments) : 0;
  if (level != LIBBPF_WARN) return 0;
  va_copy(again, arguments);
  length = vsnprintf(NULL, 0, format, again);
  va_end(again);
  if (length < 0) return 0;
  text = (char *)malloc((size_t)length + 1);
  if (!text) return 0;
  vsnprintf(text, (size_t)length + 1, format, arguments);
  ojo__bpf_hear(ojo__bpf_heard, sizeof(((ojo_bpf *)NULL)->heard), text);
  free(text);
  return 0;
}

/* -- tables */

static uint32_t ojo__bpf_place(const struct ojo__bpf_table *table, uint64_t key) {
  return (uint32_t)((key * UINT64_C(0x9E3779B97F4A7C15)) >> 32) & (table->capacity - 1);
}
static struct ojo__bpf_entry *ojo__bpf_get(struct ojo__bpf_table *table, uint64_t key) {
  if (table->capacity == 0) return NULL;
  for (uint32_t i = ojo__bpf_place(table, key);; i = (i + 1) & (table->capacity - 1)) {
    if (table->entries[i].key == key) return &table->entries[i];
    if (table->entries[i].key == 0) return NULL;
  }
}
static bool ojo__bpf_put(struct ojo__bpf_table *table, uint64_t key, uint64_t value) {
  struct ojo__bpf_entry *found = ojo__bpf_get(table, key);
  if (found) {
    found->value = value;
    return true;
  }
  if (table->count + 1 > table->capacity / 4 * 3) {
    struct ojo__bpf_table grown = {NULL, table->capacity ? table->capacity * 2 : 64, 0};
    grown.entries = (struct ojo__bpf_entry *)calloc(grown.capacity, sizeof *grown.entries);
    if (!grown.entries) return false;
    for (uint32_t i = 0; i < table->capacity; i++) {
      struct ojo__bpf_entry *e = &table->entries[i];
      if (!e->key) continue;
      uint32_t place = ojo__bpf_place(&grown, e->key);
      while (grown.entries[place].key) place = (place + 1) & (grown.capacity - 1);
      grown.entries[place] = *e;
      grown.count++;
    }
    free(table->entries);
    *table = grown;
  }
  uint32_t i = ojo__bpf_place(table, key);
  while (table->entries[i].key) i = (i + 1) & (table->capacity - 1);
  table->entries[i].key = key;
  table->entries[i].value = value;
  table->entries[i].next = table->entries[i].before = 0;
  table->count++;
  return true;
}
static void ojo__bpf_remove(struct ojo__bpf_table *table, uint64_t key) {
  struct ojo__bpf_entry *found = ojo__bpf_get(table, key);
  if (!found) return;
  uint32_t mask = table->capacity - 1, hole = (uint32_t)(found - table->entries);
  for (uint32_t i = (hole + 1) & mask; table->entries[i].key; i = (i + 1) & mask) {
    uint32_t home = ojo__bpf_place(table, table->entries[i].key);
    if (((i - home) & mask) < ((i - hole) & mask)) continue; /* its home lies behind the hole: it stays */
    table->entries[hole] = table->entries[i];
    hole = i;
  }
  table->entries[hole].key = 0;
  table->count--;
}

static uint64_t ojo__bpf_now(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return (uint64_t)now.tv_sec * UINT64_C(1000000000) + (uint64_t)now.tv_nsec;
}

/* -- flows: the kernel's and the application's */

/* Says that the kernel's flow belongs to the one that the application has bound its socket to. */
static void ojo__bpf_link(ojo_bpf *b, uint64_t time, uint32_t flow, uint64_t parent) {
  ojo_record_at(b->desc.tracer, time, flow, OJO_STREAM_LINK_PARENT, parent);
}

/* The three below: table_lock is held. A bind links all flows of its socket, so that those which are not linked hang
 * together: their number may be large, and a bind must not look through what others have. */
static void ojo__bpf_unchain(ojo_bpf *b, struct ojo__bpf_entry *e) {
  struct ojo__bpf_entry *next = e->next ? ojo__bpf_get(&b->announced, e->next) : NULL;
  struct ojo__bpf_entry *before = e->before ? ojo__bpf_get(&b->announced, e->before) : NULL;
  if (next) next->before = e->before;
  if (before) before->next = e->next;
  else if (next) ojo__bpf_get(&b->unlinked, e->value >> 1)->value = e->next;
  else ojo__bpf_remove(&b->unlinked, e->value >> 1);
  e->next = e->before = 0;
}
static void ojo__bpf_forget_flow(ojo_bpf *b, uint32_t flow) {
  struct ojo__bpf_entry *e = ojo__bpf_get(&b->announced, flow);
  if (!e) return;
  if (!(e->value & 1)) ojo__bpf_unchain(b, e);
  ojo__bpf_remove(&b->announced, flow);
}
static void ojo__bpf_know_flow(ojo_bpf *b, uint32_t flow, uint64_t cookie, bool linked) {
  struct ojo__bpf_entry *e, *first, *second;
  ojo__bpf_forget_flow(b, flow);
  if (!ojo__bpf_put(&b->announced, flow, cookie << 1 | linked) || linked) return;
  first = ojo__bpf_get(&b->unlinked, cookie);
  e = ojo__bpf_get(&b->announced, flow);
  if (first) {
    second = ojo__bpf_get(&b->announced, first->value);
    e->next = (uint32_t)first->value;
    if (second) second->before = flow;
    first->value = flow;
  } else if (!ojo__bpf_put(&b->unlinked, cookie, flow)) {
    ojo__bpf_remove(&b->announced, flow);
  }
}

/* Keeps a bind until as many others have come; table_lock is held. The kernel half says itself what a socket is bound
 * to; only what it had put into the ring before the bind is looked up here. */
static bool ojo__bpf_remember(ojo_bpf *b, uint64_t cookie, uint32_t flow) {
  uint32_t number = b->bind_count, at = number % OJO__BPF_BINDS_MAX;
  struct ojo__bpf_entry *oldest;
  if (!b->binds) b->binds = (uint64_t *)calloc(OJO__BPF_BINDS_MAX, sizeof *b->binds);
  if (!b->binds) return false;
  oldest = ojo__bpf_get(&b->bound, b->binds[at]);
  if (oldest && oldest->key && oldest->value >> 32 == (uint32_t)(number - OJO__BPF_BINDS_MAX))
    ojo__bpf_remove(&b->bound, b->binds[at]); /* else the socket was bound again */
  if (!ojo__bpf_put(&b->bound, cookie, (uint64_t)number << 32 | flow)) return false;
  b->binds[at] = cookie;
  b->bind_count++;
  return true;
}

/* ojo_bind_socket's caller's thread. The kernel half looks into `ojo_bound` when a connection begins; what has begun
 * before stays on the kernel's flow, which is linked: here if it was announced, else when it is. */
static void ojo__bpf_on_bind(void *user, uint32_t flow, uint64_t cookie, int fd) {
  ojo_bpf *b = (ojo_bpf *)user;
  struct ojo__bpf_bound bound = {flow, 0}, before;
  struct ojo__bpf_entry *first;
  uint64_t now = ojo__bpf_now();
  bool told = bpf_map_update_elem(b->bound_fd, &fd, &bound, BPF_NOEXIST) == 0;
  uint32_t zero = 0;
  if (!told && errno == EEXIST) /* on the same flow: the 4-tuple that carries it stays the only one */
    told = (bpf_map_lookup_elem(b->bound_fd, &fd, &before) == 0 && before.flow == flow) ||
           bpf_map_update_elem(b->bound_fd, &fd, &bound, BPF_ANY) == 0;
  pthread_mutex_lock(&b->table_lock);
  if (!ojo__bpf_remember(b, cookie, flow)) told = false;
  while ((first = ojo__bpf_get(&b->unlinked, cookie)) != NULL) {
    struct ojo__bpf_entry *e = ojo__bpf_get(&b->announced, first->value);
    ojo__bpf_unchain(b, e);
    e->value |= 1;
    ojo__bpf_link(b, now, (uint32_t)e->key, flow);
  }
  pthread_mutex_unlock(&b->table_lock);
  if (!told) __atomic_compare_exchange_n(&b->told_full, &zero, 1, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED);
}

static void ojo__bpf_flow(ojo_bpf *b, uint64_t time, uint32_t flow, const struct ojo__bpf_identity *id,
                          uint32_t parent) {
  char command[17] = "";
  ojo_flow_desc desc;
  memset(&desc, 0, sizeof desc);
  memcpy(command, id->command, 16);
  desc.kind = OJO_FLOW_SOCKET;
  desc.parent = parent;
  desc.key = id->cookie;
  if (id->protocol == OJO__TCP && !(id->flags & OJO_KERNEL_PARTIAL))
    desc.role = (id->flags & OJO_KERNEL_PASSIVE) ? OJO_ROLE_SERVER : OJO_ROLE_CLIENT;
  desc.local_address = id->local;
  desc.remote_address = id->remote;
  desc.address_bytes = id->address_bytes;
  desc.local_port = id->local_port;
  desc.remote_port = id->remote_port;
  desc.protocol = id->protocol == OJO__TCP ? "tcp" : "udp";
  desc.label = command;
  ojo__flow_record(b->desc.tracer, time, flow, &desc);
}

static void ojo__bpf_on_announce(ojo_bpf *b, const struct ojo__bpf_connection *record) {
  const struct ojo__bpf_identity *id = &record->identity;
  uint32_t flow = record->event.flow;
  uint64_t time = record->event.time_ns, parent = 0;
  if (flow & 0x80000000u) { /* the kernel's: the application has told of its own */
    struct ojo__bpf_entry *bound, *seen;
    bool link, linked;
    pthread_mutex_lock(&b->table_lock);
    bound = ojo__bpf_get(&b->bound, id->cookie);
    seen = ojo__bpf_get(&b->announced, flow);
    parent = record->event.size ? record->event.size : bound ? (uint32_t)bound->value : 0;
    linked = seen && (seen->value & 1);
    link = parent && !linked;
    ojo__bpf_know_flow(b, flow, id->cookie, linked || link);
    pthread_mutex_unlock(&b->table_lock);
    ojo__bpf_flow(b, time, flow, id, (uint32_t)parent);
    if (link) ojo__bpf_link(b, time, flow, parent);
  }
  ojo_record_ext_at(b->desc.tracer, time, flow, OJO_KERNEL_CONNECTION, id->cookie, id, sizeof *id);
}

/* -- what comes out of the ring */

static bool ojo__bpf_room(void **array, size_t *capacity, size_t count, size_t item_bytes) {
  if (count < *capacity) return true;
  size_t grown = *capacity ? *capacity * 2 : 256;
  void *memory = realloc(*array, grown * item_bytes);
  if (!memory) return false;
  *array = memory;
  *capacity = grown;
  return true;
}

static void ojo__bpf_row_out(const struct ojo__bpf_row *row, bool closed, ojo_bpf_connection *c) {
  const struct ojo__bpf_identity *id = &row->identity;
  memset(c, 0, sizeof *c);
  c->cookie = id->cookie;
  c->flow = row->event.flow;
  c->pid = id->pid;
  memcpy(c->command, id->command, sizeof c->command);
  c->command[15] = 0;
  c->protocol = id->protocol;
  c->address_bytes = id->address_bytes;
  c->state = id->state;
  memcpy(c->local, id->local, 16);
  memcpy(c->remote, id->remote, 16);
  c->local_port = id->local_port;
  c->remote_port = id->remote_port;
  c->partial = (id->flags & OJO_KERNEL_PARTIAL) != 0;
  c->passive = (id->flags & OJO_KERNEL_PASSIVE) != 0;
  c->closed = closed;
  c->is_new = row->is_new != 0;
  c->bytes_in = row->totals.bytes_in;
  c->bytes_out = row->totals.bytes_out;
  c->packets_in = row->totals.packets_in;
  c->packets_out = row->totals.packets_out;
  c->retransmits = row->totals.retransmits;
  c->dropped = row->totals.dropped;
  c->rtt_us = row->rtt_us;
  c->cwnd = row->cwnd;
  c->cwnd_segments = row->cwnd_segments;
  c->first_ns = row->first_ns;
  c->last_ns = row->last_ns;
  c->netns = id->netns;
}

static void ojo__bpf_on_row(ojo_bpf *b, const struct ojo__bpf_row *row) {
  if (row->event.value) { /* of a walk for tuples that have expired */
    if (!ojo__bpf_room((void **)&b->expired, &b->expired_capacity, b->expired_count, sizeof *b->expired)) return;
    struct ojo__bpf_tuple_key *key = &b->expired[b->expired_count++];
    memset(key, 0, sizeof *key);
    key->cookie = row->identity.cookie;
    memcpy(key->local, row->identity.local, 16);
    memcpy(key->remote, row->identity.remote, 16);
    key->local_port = row->identity.local_port;
    key->remote_port = row->identity.remote_port;
    key->address_bytes = row->identity.address_bytes;
  } else if (b->listing && ojo__bpf_room((void **)&b->rows, &b->row_capacity, b->row_count, sizeof *b->rows)) {
    ojo__bpf_row_out(row, false, &b->rows[b->row_count++]);
  } else {
    b->out_of_memory = b->listing;
  }
}

/* A connection's end: into the trace, and into the next listing. */
static void ojo__bpf_on_finish(ojo_bpf *b, const struct ojo__bpf_row *row) {
  uint32_t flow = row->event.flow, type = row->event.type & 0xFFFFu;
  pthread_mutex_lock(&b->table_lock);
  ojo__bpf_forget_flow(b, flow);
  pthread_mutex_unlock(&b->table_lock);
  if (row->event.type & OJO__BPF_QUIET) return;
  ojo_record_ext_at(b->desc.tracer, row->event.time_ns, flow, type, 0, &row->totals, sizeof row->totals);
  if (!b->desc.list) return;
  if (b->closed_count < OJO__BPF_CLOSED_MAX &&
      ojo__bpf_room((void **)&b->closed, &b->closed_capacity, b->closed_count, sizeof *b->closed)) {
    ojo__bpf_row_out(row, true, &b->closed[b->closed_count++]);
  } else {
    b->closed_lost++;
    b->say_closed |= !b->told_closed;
    b->told_closed = true;
  }
}

static void ojo__bpf_on_metrics(ojo_bpf *b, const struct ojo__bpf_metrics *m) {
  ojo_tracer *t = b->desc.tracer;
  uint64_t time = m->event.time_ns, changed = m->event.value, mss = m->mss;
  uint32_t flow = m->event.flow;
  if (changed & OJO__BPF_HAS_RTT) {
    ojo_rtt rtt;
    rtt.smoothed_ns = (uint64_t)m->srtt_us * 1000;
    rtt.min_ns = m->min_rtt_us == UINT32_MAX ? 0 : (uint64_t)m->min_rtt_us * 1000;
    rtt.variation_ns = (uint64_t)m->variation_us * 1000;
    ojo_record_ext_at(t, time, flow, OJO_KERNEL_TCP_RTT, rtt.smoothed_ns, &rtt, sizeof rtt);
  }
  if (changed & OJO__BPF_HAS_CWND) ojo_record_sized_at(t, time, flow, OJO_KERNEL_TCP_CWND, m->cwnd * mss, m->cwnd);
  if (changed & OJO__BPF_HAS_SSTHRESH)
    ojo_record_sized_at(t, time, flow, OJO_KERNEL_TCP_SSTHRESH, m->ssthresh * mss, m->ssthresh);
  if (changed & OJO__BPF_HAS_IN_FLIGHT)
    ojo_record_sized_at(t, time, flow, OJO_KERNEL_TCP_IN_FLIGHT, m->in_flight * mss, m->in_flight);
  if (changed & OJO__BPF_HAS_SEND_WINDOW) ojo_record_at(t, time, flow, OJO_KERNEL_TCP_SEND_WINDOW, m->send_window);
  if (changed & OJO__BPF_HAS_RECEIVE_WINDOW)
    ojo_record_at(t, time, flow, OJO_KERNEL_TCP_RECEIVE_WINDOW, m->receive_window);
}

static int ojo__bpf_handle(void *user, void *data, size_t bytes) {
  ojo_bpf *b = (ojo_bpf *)user;
  const struct ojo__bpf_event *event = (const struct ojo__bpf_event *)data;
  uint32_t type;
  if (bytes < OJO__BPF_SHORT) return 0;
  type = event->type & 0xFFFFu;
  b->handled++;
  if (type == OJO__BPF_ROW && bytes >= sizeof(struct ojo__bpf_row))
    ojo__bpf_on_row(b, (const struct ojo__bpf_row *)data);
  else if (type == OJO__BPF_METRICS && bytes >= sizeof(struct ojo__bpf_metrics))
    ojo__bpf_on_metrics(b, (const struct ojo__bpf_metrics *)data);
  else if (type == OJO_KERNEL_CONNECTION && bytes >= sizeof(struct ojo__bpf_connection))
    ojo__bpf_on_announce(b, (const struct ojo__bpf_connection *)data);
  else if (type == OJO_KERNEL_TCP_FINISHED && bytes >= sizeof(struct ojo__bpf_row))
    ojo__bpf_on_finish(b, (const struct ojo__bpf_row *)data);
  else if ((event->type & OJO__BPF_SIZED) && bytes >= sizeof *event)
    ojo_record_sized_at(b->desc.tracer, event->time_ns, event->flow, type, event->value, event->size);
  else
    ojo_record_at(b->desc.tracer, event->time_ns, event->flow, type, event->value);
  return b->handled >= OJO__BPF_DRAIN_MAX ? -EAGAIN : 0; /* this one is taken all the same */
}

/* Lets go of `lock`, and logs what came up while it was held, or in ojo_bind_socket: a logger may call us. */
static void ojo__bpf_unlock(ojo_bpf *b) {
  uint32_t one = 1;
  bool closed = b->say_closed;
  b->say_closed = false;
  pthread_mutex_unlock(&b->lock);
  if (closed)
    ojo__bpf_log(&b->desc.logger, "too many connections closed since the last listing: later ones are not in it");
  if (__atomic_compare_exchange_n(&b->told_full, &one, 2, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED))
    ojo__bpf_log(&b->desc.logger, "no memory for a bound socket: it is linked only, or not at all");
}

/* Empties the ring. The caller holds `lock`. */
static uint64_t ojo__bpf_drain(ojo_bpf *b) {
  b->handled = 0;
  __atomic_store_n(&b->shared->woken, 0, __ATOMIC_RELEASE);
  ring_buffer__consume(b->ring);
  b->events += b->handled;
  return b->handled;
}

/* -- losses */

static uint32_t ojo__bpf_probe_of(uint32_t part) { return ojo__bpf_parts[part].probe; }

/* What did not fit into the ring, per probe, with the times of the gap since the last look. */
static void ojo__bpf_tell_lost(ojo_bpf *b) {
  uint64_t now;
  uint64_t any = __atomic_load_n(&b->shared->any_lost, __ATOMIC_ACQUIRE); /* pairs with the kernel's atomic add */
  if (any == b->lost_sum) return;
  b->lost_sum = any;
  now = ojo__bpf_now();
  for (uint32_t i = 0; i < OJO__BPF_PROBES; i++) {
    struct ojo__bpf_lost *lost = &b->shared->lost[i];
    uint64_t count = __atomic_load_n(&lost->count, __ATOMIC_RELAXED), more = count - b->lost[i];
    if (more == 0) continue;
    b->lost[i] = count;
    ojo_events_dropped_at(b->desc.tracer, now, more, __atomic_load_n(&lost->first_ns, __ATOMIC_RELAXED),
                          __atomic_load_n(&lost->last_ns, __ATOMIC_RELAXED), OJO_DROP_KERNEL_RING, 1u << i);
  }
  __atomic_fetch_add(&b->shared->epoch, 1, __ATOMIC_RELEASE);
}

/* A program that is interrupted by itself is not called: what it would have told is missing. */
static void ojo__bpf_tell_missed_of(ojo_bpf *b, uint32_t part, uint64_t now) {
  struct ojo__bpf_slot *slot = &b->slots[part];
  struct bpf_prog_info info;
  uint32_t bytes = sizeof info;
  uint64_t more;
  if (!slot->link || ojo__bpf_probe_of(part) == 0) return;
  memset(&info, 0, sizeof info);
  if (bpf_obj_get_info_by_fd(bpf_program__fd(slot->program), &info, &bytes) < 0) return;
  if (info.recursion_misses <= slot->missed) return;
  more = info.recursion_misses - slot->missed;
  slot->missed = info.recursion_misses;
  b->missed += more;
  ojo_events_dropped_at(b->desc.tracer, now, more, b->missed_at_ns, now, OJO_DROP_NESTING, ojo__bpf_probe_of(part));
}
static void ojo__bpf_tell_missed(ojo_bpf *b, uint64_t now) {
  for (uint32_t i = 0; i < OJO__BPF_PARTS; i++) ojo__bpf_tell_missed_of(b, i, now);
  b->missed_at_ns = now;
}

/* -- walks */

/* Runs an iterator once through all that it goes over. It pauses when the ring is half full. `lock` is held. */
static bool ojo__bpf_walk(ojo_bpf *b, uint32_t part) {
  struct ojo__bpf_slot *slot = &b->slots[part];
  char nothing[64];
  ssize_t n;
  int fd, pauses = 0;
  if (!slot->link) return false;
  fd = bpf_iter_create(bpf_link__fd(slot->link));
  if (fd < 0) return false;
  for (;;) {
    n = read(fd, nothing, sizeof nothing);
    if (n == 0) break;
    if (n < 0 && errno == EINTR) continue;
    if (n < 0 && (errno != EAGAIN || ++pauses > 1000000)) break;
    ojo__bpf_drain(b);
  }
  close(fd);
  return n == 0;
}

/* Looks for 4-tuples that were quiet since `before`, and takes them out with the counts that they have at that
 * moment. */
static void ojo__bpf_expire(ojo_bpf *b, uint64_t now, uint64_t before) {
  struct ojo__bpf_row row;
  if (!b->slots[OJO__BPF_PART_TUPLES].link || before == 0) return;
  b->expired_count = 0;
  b->shared->expired_before_ns = before;
  ojo__bpf_walk(b, OJO__BPF_PART_TUPLES);
  b->shared->expired_before_ns = 0;
  do ojo__bpf_drain(b);
  while (b->handled >= OJO__BPF_DRAIN_MAX);
  for (size_t i = 0; i < b->expired_count; i++) {
    struct ojo__bpf_tuple tuple;
    if (bpf_map_lookup_and_delete_elem(b->tuples_fd, &b->expired[i], &tuple) < 0) continue;
    memset(&row, 0, sizeof row);
    row.event.time_ns = now;
    row.event.type = (uint32_t)OJO_KERNEL_UDP_FINISHED;
    row.event.flow = tuple.flow;
    row.identity = tuple.identity;
    row.totals = tuple.totals;
    row.first_ns = tuple.first_ns;
    row.last_ns = tuple.last_ns;
    row.is_new = !tuple.listed;
    if (tuple.wanted) ojo__bpf_on_finish(b, &row);
  }
}

static void ojo__bpf_expire_due(ojo_bpf *b) {
  uint64_t now = ojo__bpf_now(), timeout = (uint64_t)b->desc.udp_timeout_ms * 1000000;
  b->expired_at_ns = now;
  ojo__bpf_expire(b, now, now > timeout ? now - timeout : 0);
}

/* What is due beside the ring. `lock` is held. */
static void ojo__bpf_upkeep(ojo_bpf *b) {
  uint64_t now = ojo__bpf_now(), each = (uint64_t)b->desc.udp_timeout_ms * 1000000 / 10;
  if (each > 500000000) each = 500000000;
  ojo__bpf_tell_lost(b);
  if (now - b->missed_at_ns >= 1000000000) ojo__bpf_tell_missed(b, now);
  if (now - b->expired_at_ns >= each) ojo__bpf_expire_due(b);
}

/* -- loading */

/* Whether the kernel has the tracepoint or the function, by its BTF. */
static bool ojo__bpf_exists(const struct btf *kernel, const struct ojo__bpf_candidate *c) {
  char name[96];
  if (c->how == OJO__BPF_TP) {
    snprintf(name, sizeof name, "btf_trace_%s", c->target);
    return btf__find_by_name_kind(kernel, name, BTF_KIND_TYPEDEF) > 0;
  }
  return c->how != OJO__BPF_FENTRY || btf__find_by_name_kind(kernel, c->target, BTF_KIND_FUNC) > 0;
}
static const char *ojo__bpf_how_name(const struct ojo__bpf_candidate *c) {
  switch (c->how) {
    case OJO__BPF_TP: return "tp_btf";
    case OJO__BPF_FENTRY: return "fentry";
    case OJO__BPF_ITER: return "iter";
    default: return "cgroup_skb";
  }
}
static const struct ojo__bpf_candidate *ojo__bpf_chosen(const ojo_bpf *b, uint32_t part) {
  uint32_t choice = b->slots[part].choice;
  if (choice >= OJO__BPF_CANDIDATES || !ojo__bpf_parts[part].candidates[choice].program) return NULL;
  return &ojo__bpf_parts[part].candidates[choice];
}
static bool ojo__bpf_is_cgroup(const struct ojo__bpf_candidate *c) {
  return c->how == OJO__BPF_EGRESS || c->how == OJO__BPF_INGRESS || c->how == OJO__BPF_CREATE;
}
static void ojo__bpf_why(struct ojo__bpf_slot *slot, const struct ojo__bpf_candidate *c, const char *reason) {
  size_t used = strlen(slot->why);
  snprintf(slot->why + used, sizeof slot->why - used, "%s%s/%s: %s", used ? "; " : "", ojo__bpf_how_name(c),
           c->target ? c->target : c->program, reason);
}
/* Gives up a part's candidate, and goes on to the next that this kernel has. */
static void ojo__bpf_next(ojo_bpf *b, const struct btf *kernel, uint32_t part, const char *reason) {
  struct ojo__bpf_slot *slot = &b->slots[part];
  const struct ojo__bpf_candidate *c;
  if (reason) {
    ojo__bpf_why(slot, ojo__bpf_chosen(b, part), reason);
    slot->choice++;
  }
  for (; (c = ojo__bpf_chosen(b, part)) != NULL; slot->choice++) {
    const struct ojo__bpf_candidate *in = ojo__bpf_chosen(b, OJO__BPF_PART_UDP_IN);
    if (!ojo__bpf_exists(kernel, c)) ojo__bpf_why(slot, c, "not in this kernel");
    else if (part == OJO__BPF_PART_UDP_DROP && (!in || in->how != OJO__BPF_INGRESS))
      ojo__bpf_why(slot, c, "needs cgroup_skb/ingress");
    else if (ojo__bpf_is_cgroup(c) && !b->can_cgroup)
      ojo__bpf_why(slot, c, b->cgroup_fd < 0 ? "no cgroup2 filesystem is mounted" : "needs CAP_NET_ADMIN");
    else return;
  }
}

/* CAP_NET_ADMIN in force, without libcap; if /proc is not there, the attempt will tell. */
static bool ojo__bpf_net_admin(void) {
  char line[128];
  unsigned long long capabilities = ~0ull;
  FILE *f = fopen("/proc/self/status", "re");
  if (!f) return true;
  while (fgets(line, sizeof line, f))
    if (sscanf(line, "CapEff: %llx", &capabilities) == 1) break;
  fclose(f);
  return capabilities >> 12 & 1;
}

/* The cgroup2 directory to attach to: the filter's, else the root, which /proc/self/mountinfo names. */
static int ojo__bpf_cgroup_open(const char *path) {
  char line[1024], mount[512], *rest;
  int fd = -1;
  FILE *f;
  if (path) return open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  f = fopen("/proc/self/mountinfo", "re");
  if (!f) return -1;
  while (fd < 0 && fgets(line, sizeof line, f)) {
    rest = strstr(line, " - ");
    if (!rest || strncmp(rest, " - cgroup2 ", 11) != 0) continue;
    if (sscanf(line, "%*s %*s %*s %*s %511s", mount) == 1) fd = open(mount, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  }
  fclose(f);
  return fd;
}

/* The least that all probes need: a typed tracepoint's program that does nothing. */
static ojo_result ojo__bpf_permitted(const struct btf *kernel, const ojo_logger *logger) {
  struct bpf_insn instructions[2];
  struct bpf_prog_load_opts options;
  int id = btf__find_by_name_kind(kernel, "btf_trace_inet_sock_set_state", BTF_KIND_TYPEDEF), fd;
  if (id <= 0) id = btf__find_by_name_kind(kernel, "btf_trace_sched_switch", BTF_KIND_TYPEDEF);
  memset(instructions, 0, sizeof instructions);
  instructions[0].code = BPF_ALU64 | BPF_MOV | BPF_K; /* r0 = 0 */
  instructions[1].code = BPF_JMP | BPF_EXIT;
  memset(&options, 0, sizeof options);
  options.sz = sizeof options;
  options.expected_attach_type = BPF_TRACE_RAW_TP;
  options.attach_btf_id = id > 0 ? (uint32_t)id : 0;
  fd = bpf_prog_load(BPF_PROG_TYPE_TRACING, "ojo_permitted", "Dual MIT/GPL", instructions, 2, &options);
  if (fd >= 0) {
    close(fd);
    return OJO_OK;
  }
  if (errno == EPERM || errno == EACCES) {
    ojo__bpf_log(logger, "this process may not load kernel probes (CAP_BPF and CAP_PERFMON, or root)");
    return OJO_ERR_PERMISSION;
  }
  ojo__bpf_log(logger, "kernel probes can't be loaded: %s (Linux 5.15 or later is needed)", strerror(errno));
  return OJO_ERR_IO;
}

static void *ojo__bpf_read_file(const char *path, size_t *bytes) {
  struct stat status;
  char *memory = NULL;
  size_t done = 0;
  ssize_t n = 1;
  int fd = open(path, O_RDONLY | O_CLOEXEC);
  if (fd < 0) return NULL;
  if (fstat(fd, &status) == 0 && S_ISREG(status.st_mode) && status.st_size > 0 && status.st_size < (64 << 20)) {
    memory = (char *)malloc((size_t)status.st_size);
    while (memory && done < (size_t)status.st_size && n > 0) {
      n = read(fd, memory + done, (size_t)status.st_size - done);
      if (n > 0) done += (size_t)n;
      else if (n < 0 && errno == EINTR) n = 1;
    }
  } else {
    errno = ENOEXEC;
  }
  close(fd);
  *bytes = done;
  return memory;
}

/* The object file's bytes, in memory of ours: an image may stand at any address. */
static ojo_result ojo__bpf_image(const ojo_bpf_desc *desc, void **image, size_t *bytes) {
  char path[4096 + 16];
  const char *tried = desc->object_path;
  if (desc->object) {
    *image = malloc(desc->object_bytes ? desc->object_bytes : 1);
    if (!*image) return OJO_ERR_MEMORY;
    memcpy(*image, desc->object, desc->object_bytes);
    *bytes = desc->object_bytes;
    return OJO_OK;
  }
  *image = NULL;
  if (tried) {
    *image = ojo__bpf_read_file(tried, bytes);
  } else {
    ssize_t n = readlink("/proc/self/exe", path, 4095);
    char *slash;
    path[n > 0 ? n : 0] = 0;
    slash = strrchr(path, '/');
    tried = OJO_BPF_PREFIX "/lib/ojo/ojo_bpf.o";
    if (slash) {
      strcpy(slash + 1, "ojo_bpf.o");
      *image = ojo__bpf_read_file(path, bytes);
    }
    if (!*image) *image = ojo__bpf_read_file(tried, bytes);
  }
  if (*image) return OJO_OK;
  if (errno == ENOEXEC) {
    ojo__bpf_log(&desc->logger, "the probes' object file %s is no BPF object", tried);
    return OJO_ERR_FORMAT;
  }
  ojo__bpf_log(&desc->logger, "can't read the probes' object file %s%s: %s", desc->object_path ? "" :
               "ojo_bpf.o, neither beside the program nor as ", tried, strerror(errno));
  return errno == ENOENT ? OJO_ERR_NOT_FOUND : OJO_ERR_IO;
}

static struct bpf_map *ojo__bpf_map(struct bpf_object *object, const char *name) {
  return bpf_object__find_map_by_name(object, name);
}
static int ojo__bpf_map_fd(const ojo_bpf *b, const char *name) {
  struct bpf_map *map = ojo__bpf_map(b->object, name);
  return map ? bpf_map__fd(map) : -1;
}

static uint32_t ojo__bpf_probes_of_trace(const ojo_bpf *b) { return b->desc.tracer ? b->desc.probes : 0; }

/* Constants of the kernel half, as this attempt's choice of programs wants them. */
static bool ojo__bpf_configure(ojo_bpf *b, struct bpf_object *object) {
  struct ojo__bpf_config *config = NULL;
  struct bpf_map *map, *ring = ojo__bpf_map(object, "ojo_ring");
  const struct ojo__bpf_candidate *udp = ojo__bpf_chosen(b, OJO__BPF_PART_UDP_OUT);
  struct stat status;
  size_t bytes = 0;
  bpf_object__for_each_map(map, object) {
    if (!strstr(bpf_map__name(map), ".rodata.ojo")) continue;
    config = (struct ojo__bpf_config *)bpf_map__initial_value(map, &bytes);
    if (bytes == sizeof *config && config && config->abi == OJO__BPF_ABI) break;
    config = NULL;
  }
  if (!config || !ring || bpf_map__set_max_entries(ring, b->desc.ring_bytes) < 0) return false;
  config->probes = ojo__bpf_probes_of_trace(b);
  config->trace = b->desc.tracer != NULL;
  config->metrics_interval_us = b->desc.metrics_interval_us;
  config->one_in = b->desc.one_in;
  config->has_pids = b->desc.pid_count != 0;
  config->has_ports = b->desc.port_count != 0;
  config->has_addresses = b->desc.address_count != 0;
  config->udp_by_socket = udp && udp->how == OJO__BPF_TP;
  config->poll_congestion = b->slots[OJO__BPF_PART_CONGESTION].choice == 1;
  config->sees_drops = ojo__bpf_chosen(b, OJO__BPF_PART_UDP_DROP) != NULL;
  config->self = (uint32_t)getpid();
  config->cgroup = b->desc.cgroup && fstat(b->cgroup_fd, &status) == 0 ? status.st_ino : 0;
  config->ring_mark = b->desc.ring_bytes / 4;
  config->ring_half = b->desc.ring_bytes / 2;
  return true;
}

/* Opens the object with the chosen programs, or with `only` one of them, and loads it. NULL: errno is set. */
static struct bpf_object *ojo__bpf_load(ojo_bpf *b, const void *image, size_t bytes, const char *only) {
  struct bpf_object_open_opts options;
  struct bpf_object *object;
  struct bpf_program *program;
  int error;
  memset(&options, 0, sizeof options);
  options.sz = sizeof options;
  options.object_name = "ojo";
  object = bpf_object__open_mem(image, bytes, &options);
  if (!object) {
    errno = ENOEXEC;
    return NULL;
  }
  bpf_object__for_each_program(program, object) {
    bool wanted = false;
    for (uint32_t i = 0; i < OJO__BPF_PARTS; i++) {
      const struct ojo__bpf_candidate *c = ojo__bpf_chosen(b, i);
      if (c && strcmp(c->program, bpf_program__name(program)) == 0) wanted = !only || strcmp(only, c->program) == 0;
    }
    bpf_program__set_autoload(program, wanted);
  }
  error = ojo__bpf_configure(b, object) ? bpf_object__load(object) : -ENOEXEC;
  if (error < 0) {
    bpf_object__close(object);
    errno = -error;
    return NULL;
  }
  return object;
}

/* Loads what is chosen. If that fails, each program is tried alone, and those that fail make way for their next
 * candidate: one that this kernel refuses does not fail the others. */
static ojo_result ojo__bpf_load_best(ojo_bpf *b, const struct btf *kernel, const void *image, size_t bytes) {
  for (int attempt = 0; attempt < 4; attempt++) {
    bool changed = false;
    b->heard[0] = 0;
    b->object = ojo__bpf_load(b, image, bytes, NULL);
    if (b->object) return OJO_OK;
    if (errno == ENOEXEC) {
      ojo__bpf_log(&b->desc.logger, "the probes' object file is none, or of another version of ojo_bpf.h%s%s",
                   b->heard[0] ? ": " : "", b->heard);
      return OJO_ERR_FORMAT;
    }
    for (uint32_t i = 0; i < OJO__BPF_PARTS; i++) {
      const struct ojo__bpf_candidate *c = ojo__bpf_chosen(b, i);
      struct bpf_object *alone;
      if (!c) continue;
      b->heard[0] = 0;
      alone = ojo__bpf_load(b, image, bytes, c->program);
      if (alone) {
        bpf_object__close(alone);
        continue;
      }
      ojo__bpf_next(b, kernel, i, b->heard[0] ? b->heard : strerror(errno));
      changed = true;
    }
    if (!changed) break;
  }
  ojo__bpf_log(&b->desc.logger, "the probes can't be loaded: %s", strerror(errno));
  return OJO_ERR_IO;
}

static struct bpf_link *ojo__bpf_attach(ojo_bpf *b, struct bpf_program *program, const struct ojo__bpf_candidate *c) {
  struct bpf_iter_attach_opts options;
  union bpf_iter_link_info info;
  if (ojo__bpf_is_cgroup(c)) return bpf_program__attach_cgroup(program, b->cgroup_fd);
  if (c->how != OJO__BPF_ITER) return bpf_program__attach(program);
  memset(&options, 0, sizeof options);
  memset(&info, 0, sizeof info);
  options.sz = sizeof options;
  if (c->target) {
    info.map.map_fd = (uint32_t)ojo__bpf_map_fd(b, c->target);
    options.link_info = &info;
    options.link_info_len = sizeof info;
  }
  return bpf_program__attach_iter(program, &options);
}

/* Attaches everything. false: a part had to give up its candidate, and all must be loaded anew. */
static bool ojo__bpf_attach_all(ojo_bpf *b, const struct btf *kernel) {
  for (uint32_t i = 0; i < OJO__BPF_PARTS; i++) {
    const struct ojo__bpf_candidate *c = ojo__bpf_chosen(b, i);
    struct ojo__bpf_slot *slot = &b->slots[i];
    if (!c) continue;
    slot->program = bpf_object__find_program_by_name(b->object, c->program);
    slot->shared = false;
    for (uint32_t j = 0; j < i; j++)
      if (b->slots[j].link && b->slots[j].program == slot->program) slot->shared = true;
    if (slot->shared) continue;
    slot->link = slot->program ? ojo__bpf_attach(b, slot->program, c) : NULL;
    if (slot->link) continue;
    ojo__bpf_next(b, kernel, i, slot->program ? strerror(errno) : "not in the object file");
    return false;
  }
  return true;
}

static void ojo__bpf_unload(ojo_bpf *b) {
  for (uint32_t i = 0; i < OJO__BPF_PARTS; i++) {
    if (b->slots[i].link) bpf_link__destroy(b->slots[i].link);
    b->slots[i].link = NULL;
    b->slots[i].program = NULL;
    b->slots[i].shared = false;
  }
  if (b->ring) ring_buffer__free(b->ring);
  b->ring = NULL;
  if (b->shared) munmap(b->shared, b->shared_bytes);
  b->shared = NULL;
  if (b->object) bpf_object__close(b->object);
  b->object = NULL;
}

/* The filters' values, and what both halves share, before anything is attached. */
static bool ojo__bpf_fill(ojo_bpf *b) {
  const uint8_t one = 1;
  long page = sysconf(_SC_PAGESIZE);
  void *memory;
  int pids = ojo__bpf_map_fd(b, "ojo_pids"), ports = ojo__bpf_map_fd(b, "ojo_ports");
  int prefixes = ojo__bpf_map_fd(b, "ojo_prefixes"), shared = ojo__bpf_map_fd(b, "ojo_shared");
  for (size_t i = 0; i < b->desc.pid_count; i++)
    if (bpf_map_update_elem(pids, &b->desc.pids[i], &one, BPF_ANY) < 0) return false;
  for (size_t i = 0; i < b->desc.port_count; i++)
    if (bpf_map_update_elem(ports, &b->desc.ports[i], &one, BPF_ANY) < 0) return false;
  for (size_t i = 0; i < b->desc.address_count; i++) {
    const ojo_bpf_prefix *prefix = &b->desc.addresses[i];
    struct ojo__bpf_prefix_key key;
    uint8_t *address = (uint8_t *)key.address;
    memset(&key, 0, sizeof key);
    key.bits = prefix->bits;
    if (prefix->address_bytes == 4) {
      key.bits += 96;
      address[10] = address[11] = 0xFF;
      memcpy(address + 12, prefix->address, 4);
    } else {
      memcpy(address, prefix->address, 16);
    }
    if (bpf_map_update_elem(prefixes, &key, &one, BPF_ANY) < 0) return false;
  }
  b->bound_fd = ojo__bpf_map_fd(b, "ojo_bound");
  b->tuples_fd = ojo__bpf_map_fd(b, "ojo_tuples");
  b->shared_bytes = (sizeof *b->shared + (size_t)page - 1) / (size_t)page * (size_t)page;
  memory = mmap(NULL, b->shared_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, shared, 0);
  if (memory == MAP_FAILED) return false;
  b->shared = (struct ojo__bpf_shared *)memory;
  b->ring = ring_buffer__new(ojo__bpf_map_fd(b, "ojo_ring"), ojo__bpf_handle, b, NULL);
  return b->ring != NULL;
}

/* Loads, fills and attaches, as often as a candidate turns out not to work. */
static ojo_result ojo__bpf_start(ojo_bpf *b, const struct btf *kernel, const void *image, size_t bytes) {
  for (int attempt = 0; attempt < 2 * OJO__BPF_PARTS; attempt++) {
    ojo_result result = ojo__bpf_load_best(b, kernel, image, bytes);
    if (result != OJO_OK) return result;
    if (!ojo__bpf_fill(b)) {
      ojo__bpf_log(&b->desc.logger, "the probes' maps can't be filled: %s", strerror(errno));
      return OJO_ERR_IO;
    }
    if (ojo__bpf_attach_all(b, kernel)) return OJO_OK;
    ojo__bpf_unload(b);
  }
  return OJO_ERR_IO;
}

/* -- opening and closing */

static void ojo__bpf_free(ojo_bpf *b) {
  ojo__bpf_unload(b);
  if (b->epoll_fd >= 0) close(b->epoll_fd);
  if (b->timer_fd >= 0) close(b->timer_fd);
  if (b->cgroup_fd >= 0) close(b->cgroup_fd);
  free((void *)(uintptr_t)b->desc.object_path);
  free((void *)(uintptr_t)b->desc.cgroup);
  free((void *)(uintptr_t)b->desc.pids);
  free((void *)(uintptr_t)b->desc.ports);
  free((void *)(uintptr_t)b->desc.addresses);
  free(b->bound.entries);
  free(b->binds);
  free(b->announced.entries);
  free(b->unlinked.entries);
  free(b->rows);
  free(b->closed);
  free(b->expired);
  pthread_mutex_destroy(&b->lock);
  pthread_mutex_destroy(&b->table_lock);
  free(b);
}

/* A copy of an array or string of the caller's; true also when there is none. */
static bool ojo__bpf_copy(const void *from, size_t bytes, const void **to) {
  void *copy;
  *to = NULL;
  if (!from || bytes == 0) return true;
  copy = malloc(bytes);
  if (!copy) return false;
  memcpy(copy, from, bytes);
  *to = copy;
  return true;
}
static bool ojo__bpf_copy_desc(ojo_bpf *b, const ojo_bpf_desc *desc) {
  const void *path, *cgroup, *pids, *ports, *addresses;
  bool ok = ojo__bpf_copy(desc->object_path, desc->object_path ? strlen(desc->object_path) + 1 : 0, &path);
  ok &= ojo__bpf_copy(desc->cgroup, desc->cgroup ? strlen(desc->cgroup) + 1 : 0, &cgroup);
  ok &= ojo__bpf_copy(desc->pids, desc->pid_count * sizeof *desc->pids, &pids);
  ok &= ojo__bpf_copy(desc->ports, desc->port_count * sizeof *desc->ports, &ports);
  ok &= ojo__bpf_copy(desc->addresses, desc->address_count * sizeof *desc->addresses, &addresses);
  b->desc = *desc;
  b->desc.object_path = (const char *)path;
  b->desc.cgroup = (const char *)cgroup;
  b->desc.pids = (const uint32_t *)pids;
  b->desc.ports = (const uint16_t *)ports;
  b->desc.addresses = (const ojo_bpf_prefix *)addresses;
  if (b->desc.probes == 0) b->desc.probes = OJO_BPF_TCP | OJO_BPF_UDP;
  if (b->desc.ring_bytes == 0) b->desc.ring_bytes = 16u << 20;
  if (b->desc.metrics_interval_us == 0) b->desc.metrics_interval_us = 1000;
  if (b->desc.udp_timeout_ms == 0) b->desc.udp_timeout_ms = 5000;
  for (uint32_t bytes = 4096; bytes; bytes *= 2) {
    if (bytes < b->desc.ring_bytes || bytes < (uint32_t)sysconf(_SC_PAGESIZE)) continue;
    b->desc.ring_bytes = bytes;
    break;
  }
  return ok;
}

static const char *ojo__bpf_fault(const ojo_bpf_desc *desc) {
  if (desc->probes & ~(uint32_t)OJO_BPF_ALL) return "probes";
  if (desc->pid_count > OJO__BPF_PIDS_MAX || (desc->pid_count && !desc->pids)) return "pids";
  if (desc->port_count > OJO__BPF_PORTS_MAX || (desc->port_count && !desc->ports)) return "ports";
  if (desc->address_count > OJO__BPF_PREFIXES_MAX || (desc->address_count && !desc->addresses)) return "addresses";
  if (desc->ring_bytes > 1u << 30) return "ring_bytes";
  for (size_t i = 0; i < desc->address_count; i++) {
    const ojo_bpf_prefix *p = &desc->addresses[i];
    if ((p->address_bytes != 4 && p->address_bytes != 16) || p->bits > p->address_bytes * 8) return "addresses";
  }
  return NULL;
}

static int ojo__bpf_watch(ojo_bpf *b) {
  struct itimerspec each;
  struct epoll_event event;
  memset(&each, 0, sizeof each);
  memset(&event, 0, sizeof event);
  each.it_interval.tv_nsec = each.it_value.tv_nsec = OJO__BPF_DRAIN_MS * 1000000;
  event.events = EPOLLIN;
  b->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
  b->timer_fd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
  if (b->epoll_fd < 0 || b->timer_fd < 0 || timerfd_settime(b->timer_fd, 0, &each, NULL) < 0) return -1;
  if (epoll_ctl(b->epoll_fd, EPOLL_CTL_ADD, b->timer_fd, &event) < 0) return -1;
  event.events = EPOLLIN | EPOLLET; /* when it is woken, not whenever something is in it: that would spin */
  return epoll_ctl(b->epoll_fd, EPOLL_CTL_ADD, ojo__bpf_map_fd(b, "ojo_ring"), &event);
}

/* For ojo_bpf_query_probes: what is in force, and what was tried before. */
static void ojo__bpf_say_why(ojo_bpf *b) {
  for (uint32_t i = 0; i < OJO__BPF_PARTS; i++) {
    const struct ojo__bpf_candidate *c = ojo__bpf_chosen(b, i);
    struct ojo__bpf_slot *slot = &b->slots[i];
    char before[sizeof slot->why];
    if (!(ojo__bpf_parts[i].needed & b->desc.probes)) continue;
    if (c) {
      memcpy(before, slot->why, sizeof before);
      snprintf(slot->why, sizeof slot->why, "%s/%s%s%.96s", ojo__bpf_how_name(c), c->target ? c->target : "",
               before[0] ? ", after " : "", before);
    } else if (ojo__bpf_parts[i].probe == 0) {
      ojo__bpf_log(&b->desc.logger, "%s is not available: %s", ojo__bpf_parts[i].name, slot->why);
    }
  }
}

/* Finds what was open before: owners by their descriptors, the rest by TCP's own table, and tells of both. */
static void ojo__bpf_look_around(ojo_bpf *b) {
  pthread_mutex_lock(&b->lock);
  ojo__bpf_walk(b, OJO__BPF_PART_FILES);
  ojo__bpf_walk(b, OJO__BPF_PART_OTHERS);
  ojo__bpf_walk(b, OJO__BPF_PART_FOUND);
  ojo__bpf_unlock(b);
}

static int ojo__bpf_turn(ojo_bpf *b, int timeout_ms);
static void *ojo__bpf_thread(void *user) {
  ojo_bpf *b = (ojo_bpf *)user;
  prctl(PR_SET_NAME, "ojo-bpf");
  __atomic_store_n(&b->shared->poller, (uint32_t)syscall(SYS_gettid), __ATOMIC_RELAXED);
  while (!__atomic_load_n(&b->stop, __ATOMIC_ACQUIRE)) ojo__bpf_turn(b, 100); /* stop: ojo_bpf_close, release */
  return NULL;
}
static bool ojo__bpf_run(ojo_bpf *b) {
  sigset_t all, before;
  if (!b->desc.thread) return true;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  b->thread_runs = pthread_create(&b->thread, NULL, ojo__bpf_thread, b) == 0;
  pthread_sigmask(SIG_SETMASK, &before, NULL);
  return b->thread_runs;
}

/* libbpf's callback is one for the whole process: ours is put in front of it, and it is put back. */
static pthread_mutex_t ojo__bpf_open_lock = PTHREAD_MUTEX_INITIALIZER;

static ojo_result ojo__bpf_open_quietly(ojo_bpf *b, const void *image, size_t bytes) {
  struct btf *kernel = btf__load_vmlinux_btf();
  ojo_result result;
  if (!kernel) {
    ojo__bpf_log(&b->desc.logger, "this kernel has no BTF (/sys/kernel/btf/vmlinux): %s", strerror(errno));
    return errno == EACCES || errno == EPERM ? OJO_ERR_PERMISSION : OJO_ERR_IO;
  }
  result = ojo__bpf_permitted(kernel, &b->desc.logger);
  for (uint32_t i = 0; result == OJO_OK && i < OJO__BPF_PARTS; i++) {
    if (!(ojo__bpf_parts[i].needed & b->desc.probes)) b->slots[i].choice = OJO__BPF_CANDIDATES;
    else ojo__bpf_next(b, kernel, i, NULL);
  }
  if (result == OJO_OK) result = ojo__bpf_start(b, kernel, image, bytes);
  btf__free(kernel);
  return result;
}

OJO_API ojo_result ojo_bpf_open(ojo_bpf **out, const ojo_bpf_desc *desc) {
  ojo_result result = OJO_ERR_MEMORY;
  const char *fault;
  void *image = NULL;
  size_t bytes = 0;
  struct statfs where;
  ojo_bpf *b;
  if (!out) return OJO_ERR_ARGUMENT;
  *out = NULL;
  if (!desc || (!desc->tracer && !desc->list)) return OJO_OK;
  if ((fault = ojo__bpf_fault(desc)) != NULL) {
    ojo__bpf_log(&desc->logger, "ojo_bpf_desc.%s is out of its range", fault);
    return OJO_ERR_ARGUMENT;
  }
  b = (ojo_bpf *)calloc(1, sizeof *b);
  if (!b) return OJO_ERR_MEMORY;
  b->epoll_fd = b->timer_fd = -1;
  pthread_mutex_init(&b->lock, NULL);
  pthread_mutex_init(&b->table_lock, NULL);
  b->cgroup_fd = ojo__bpf_cgroup_open(desc->cgroup);
  b->can_cgroup = b->cgroup_fd >= 0 && ojo__bpf_net_admin();
  if (desc->cgroup && b->cgroup_fd >= 0 && (fstatfs(b->cgroup_fd, &where) < 0 || where.f_type != OJO__BPF_CGROUP2)) {
    close(b->cgroup_fd);
    b->cgroup_fd = -1;
    errno = EMEDIUMTYPE;
  }
  if (desc->cgroup && b->cgroup_fd < 0) {
    ojo__bpf_log(&desc->logger, "the cgroup %s can't be used: %s", desc->cgroup,
                 errno == EMEDIUMTYPE ? "it is no directory of a cgroup2 filesystem" : strerror(errno));
    result = OJO_ERR_ARGUMENT;
  } else if (ojo__bpf_copy_desc(b, desc)) {
    result = ojo__bpf_image(desc, &image, &bytes);
  }
  if (result == OJO_OK) {
    pthread_mutex_lock(&ojo__bpf_open_lock);
    ojo__bpf_heard = b->heard;
    ojo__bpf_print_before = libbpf_set_print(ojo__bpf_print);
    result = ojo__bpf_open_quietly(b, image, bytes);
    libbpf_set_print(ojo__bpf_print_before);
    ojo__bpf_heard = NULL;
    pthread_mutex_unlock(&ojo__bpf_open_lock);
  }
  free(image);
  if (result == OJO_OK && ojo__bpf_watch(b) < 0) result = OJO_ERR_IO;
  if (result == OJO_OK) {
    b->missed_at_ns = b->expired_at_ns = ojo__bpf_now();
    ojo__bpf_say_why(b);
    ojo__bind_hook_set(b->desc.tracer, ojo__bpf_on_bind, b);
    ojo__bpf_look_around(b);
    if (!ojo__bpf_run(b)) result = OJO_ERR_MEMORY;
  }
  if (result != OJO_OK) {
    ojo_bpf_close(b);
    return result;
  }
  *out = b;
  return OJO_OK;
}

OJO_API ojo_result ojo_bpf_close(ojo_bpf *b) {
  if (!b) return OJO_OK;
  if (b->thread_runs) {
    __atomic_store_n(&b->stop, true, __ATOMIC_RELEASE);
    pthread_join(b->thread, NULL);
  }
  if (b->ring) ojo__bind_hook_set(b->desc.tracer, NULL, NULL);
  for (uint32_t i = 0; b->ring && i < OJO__BPF_PARTS; i++) {
    if (!b->slots[i].link || ojo__bpf_probe_of(i) == 0) continue;
    ojo__bpf_tell_missed_of(b, i, ojo__bpf_now());
    bpf_link__destroy(b->slots[i].link); /* no program runs any more: what is in the ring now is all */
    b->slots[i].link = NULL;
  }
  if (b->ring) {
    do ojo__bpf_drain(b);
    while (b->handled >= OJO__BPF_DRAIN_MAX);
    ojo__bpf_expire(b, ojo__bpf_now(), UINT64_MAX); /* those that were live: their counts until now */
    ojo__bpf_tell_lost(b);
  }
  ojo__bpf_free(b);
  return OJO_OK;
}

/* -- polling, listing, asking */

/* Waits at most timeout_ms (negative: for ever) for something to do, and does it. */
static int ojo__bpf_turn(ojo_bpf *b, int timeout_ms) {
  uint64_t until = ojo__bpf_now() + (uint64_t)(timeout_ms < 0 ? 0 : timeout_ms) * 1000000, now;
  for (;;) {
    struct epoll_event events[2];
    uint64_t ticks, handled;
    int wait = OJO__BPF_DRAIN_MS, n;
    now = ojo__bpf_now();
    if (timeout_ms >= 0 && now + (uint64_t)wait * 1000000 > until)
      wait = now < until ? (int)((until - now + 999999) / 1000000) : 0;
    n = epoll_wait(b->epoll_fd, events, 2, wait);
    if (n < 0 && errno != EINTR) return OJO_ERR_IO;
    if (read(b->timer_fd, &ticks, sizeof ticks) < 0 && errno != EAGAIN && errno != EINTR) return OJO_ERR_IO;
    pthread_mutex_lock(&b->lock);
    handled = ojo__bpf_drain(b);
    ojo__bpf_upkeep(b);
    ojo__bpf_unlock(b);
    if (handled || n < 0) return (int)handled;
    if (timeout_ms >= 0 && ojo__bpf_now() >= until) return 0;
    if (__atomic_load_n(&b->stop, __ATOMIC_ACQUIRE)) return 0;
  }
}

OJO_API int ojo_bpf_poll(ojo_bpf *b, int timeout_ms) {
  if (!b) return 0;
  return b->desc.thread ? OJO_ERR_MODE : ojo__bpf_turn(b, timeout_ms);
}
OJO_API int ojo_bpf_fd(ojo_bpf *b) { return b && !b->desc.thread ? b->epoll_fd : -1; }

OJO_API ojo_result ojo_bpf_connections(ojo_bpf *b, bool (*fn)(void *user, const ojo_bpf_connection *c), void *user) {
  ojo_result result = OJO_OK;
  ojo_bpf_connection *rows, *closed;
  size_t row_count, closed_count, later;
  bool more = true;
  if (!b) return OJO_OK;
  if (!fn) return OJO_ERR_ARGUMENT;
  if (!b->desc.list) return OJO_ERR_MODE;
  pthread_mutex_lock(&b->lock);
  b->listing = true;
  b->out_of_memory = false;
  b->row_count = 0;
  do ojo__bpf_drain(b);
  while (b->handled >= OJO__BPF_DRAIN_MAX);
  ojo__bpf_expire_due(b);
  closed_count = b->closed_count; /* what closes from here on is a live row now, and closed in the next listing */
  if (b->slots[OJO__BPF_PART_LIST].link && !ojo__bpf_walk(b, OJO__BPF_PART_LIST)) result = OJO_ERR_IO;
  if (b->slots[OJO__BPF_PART_TUPLES].link && !ojo__bpf_walk(b, OJO__BPF_PART_TUPLES)) result = OJO_ERR_IO;
  do ojo__bpf_drain(b);
  while (b->handled >= OJO__BPF_DRAIN_MAX);
  b->listing = false;
  if (b->out_of_memory) result = OJO_ERR_MEMORY;
  /* Taken out, so that fn may call whatever it likes. */
  rows = b->rows;
  row_count = b->row_count;
  closed = b->closed;
  later = b->closed_count - closed_count;
  b->rows = b->closed = NULL;
  b->row_count = b->row_capacity = b->closed_count = b->closed_capacity = 0;
  for (size_t i = 0; i < later; i++) {
    if (ojo__bpf_room((void **)&b->closed, &b->closed_capacity, b->closed_count, sizeof *b->closed))
      b->closed[b->closed_count++] = closed[closed_count + i];
    else b->closed_lost++;
  }
  b->told_closed = false;
  ojo__bpf_unlock(b);
  for (size_t i = 0; more && i < row_count; i++) more = fn(user, &rows[i]);
  for (size_t i = 0; more && i < closed_count; i++) more = fn(user, &closed[i]);
  free(rows);
  free(closed);
  return result;
}

OJO_API size_t ojo_bpf_query_probes(ojo_bpf *b, ojo_bpf_probe_info *info, size_t room) {
  size_t count = 0;
  for (uint32_t i = 0; b && i < OJO__BPF_PARTS; i++) {
    const struct ojo__bpf_part *part = &ojo__bpf_parts[i];
    const struct ojo__bpf_candidate *c = ojo__bpf_chosen(b, i);
    if (!(part->probe & b->desc.probes)) continue;
    if (count < room && info) {
      info[count].name = part->name;
      info[count].probe = part->probe;
      info[count].attached = c != NULL;
      info[count].how = c ? ojo__bpf_how_name(c) : "absent";
      info[count].why = b->slots[i].why;
    }
    count++;
  }
  return count;
}

OJO_API ojo_bpf_stats ojo_bpf_query_stats(ojo_bpf *b) {
  ojo_bpf_stats stats;
  memset(&stats, 0, sizeof stats);
  if (!b) return stats;
  pthread_mutex_lock(&b->lock);
  stats.events = b->events;
  stats.missed = b->missed;
  stats.unlisted = b->closed_lost;
  stats.connections = __atomic_load_n(&b->shared->connections, __ATOMIC_RELAXED);
  for (uint32_t i = 0; i < OJO__BPF_PROBES; i++) {
    stats.lost[i] = __atomic_load_n(&b->shared->lost[i].count, __ATOMIC_RELAXED);
    stats.ring_lost += stats.lost[i];
  }
  pthread_mutex_unlock(&b->lock);
  return stats;
}

OJO_API ojo_bpf_desc ojo_bpf_query_desc(ojo_bpf *b) {
  ojo_bpf_desc desc;
  memset(&desc, 0, sizeof desc);
  if (!b) return desc;
  desc = b->desc;
  desc.object = NULL;
  desc.object_bytes = 0;
  return desc;
}
#endif /* MAP_ANONYMOUS */
#endif /* the loader */
