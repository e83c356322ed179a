/* SPDX-License-Identifier: MIT
 *
 * ojo.h - version 0.1.0 - a tracer for transport protocols, in one header
 *
 * Records packets, acks, losses, streams, windows and round-trip times of a transport written in C or
 * C++ at about the cost of reading the clock, into files that ojo-cat and ojo_reader.h read.
 *
 * DO THIS
 *   In exactly one C or C++ file:
 *       #define OJO_IMPLEMENTATION
 *       #include "ojo.h"
 *   Everywhere else just #include "ojo.h".
 *
 * EXAMPLE
 *       ojo_tracer *t;
 *       ojo_open(&t, &(ojo_desc){ .dir = getenv("OJO_DIR") });
 *       uint32_t flow = ojo_flow_open(t, &(ojo_flow_desc){ .role = OJO_ROLE_CLIENT });
 *       ojo_packet_sent_sized(t, flow, 0, 1200);
 *       ojo_packet_acked_sized(t, flow, 0, 1200);
 *       ojo_close(t);
 *   then: OJO_DIR=traces ./program && ojo-cat traces
 *   C++11: ojo_desc d = {}; d.dir = "traces"; ojo_open(&t, &d);
 *
 * LINK WITH
 *   -pthread. Nothing else.
 *
 * DEFINES (the same in every file that includes ojo.h)
 *   OJO_IMPLEMENTATION  in one file: also compile the implementation.
 *   OJO_STATIC          everything is static: a private copy inside the one file that includes it.
 *   OJO_DISABLE         every call compiles to nothing, still type-checked; plain C99, any compiler and
 *                       system; needs stdint, stddef and stdbool only.
 *   OJO_API             put before each public function (default: extern, or static).
 *   OJO_ASSERT(x)       checks internal invariants (default: assert from <assert.h>).
 *   OJO_NO_TSC          never the processor's counter: clock_gettime.
 *   OJO_NO_TMPFS        never a pool in /dev/shm: anonymous memory.
 *   OJO_NO_ATFORK       no pthread_atfork: the kernel alone switches a fork child's tracers off
 *                       (MADV_WIPEONFORK, Linux 4.14; without it ojo_open gives OJO_ERR_MODE). The child's
 *                       tracers are off and the parent's untouched as ever, but the child keeps the
 *                       parent's descriptors until it calls exec or ends, and so long ojo_recover takes a
 *                       parent that was killed for alive. A fork in a signal handler that interrupted a
 *                       record is not safe then: the child has no memory to end that record in.
 *
 * OVERVIEW
 *   A tracer is one pool of memory, cut into chunks of 64 KiB, and one flusher thread. A thread that
 *   records leases a chunk and appends to it alone: no lock, no shared write, no system call. Full chunks
 *   go to the flusher, which converts clock ticks to nanoseconds, writes a batch file into DIR/staging/
 *   and renames it into DIR/output/. A batch ends after flush_interval_ms or flush_bytes.
 *   A record is 24 bytes: time, type, flow, payload; `_sized` helpers carry a second number in the same
 *   24 bytes. ojo_record_ext appends up to 6,120 bytes more.
 *   A flow is one number space: a connection, one of its packet number spaces or paths, a stream. See
 *   ojo_flow_open.
 *   Several events of one packet need one clock read: stamp = ojo_now(t), then the `_at` helpers.
 *
 * THREADS
 *   Any thread may record any flow. Order is kept per thread: record a connection on one thread, or pass
 *   times. Recording is wait-free, unless OJO_OVERFLOW_BLOCK waits for the flusher.
 *   All other calls are thread-safe against each other and against recording, except that ojo_close wants the
 *   recorders of its tracer stopped: those that are late lose their last events, and touch nothing else (a
 *   closed tracer's addresses stay mapped; they are given to another tracer after 32 more were closed).
 *   A thread's end gives its chunk to the flusher; ten thousand short threads work, and at most 16,384 at once.
 *   A thread that is cancelled asynchronously in a record may lose that one event; deferred cancellation has
 *   no point to act at in a record, and open, close and snapshot hold it off.
 *
 * SIGNALS
 *   Recording is async-signal-safe, also in a handler that interrupted a record: that one goes on behind it,
 *   in another chunk, and no event is lost or torn. Three levels deep; what is nested deeper is dropped and
 *   counted (OJO_DROP_NESTING). Handlers may record any number of events, run on an alternate stack, and leave
 *   by siglongjmp: the record that they interrupted is then not made, or made, but never half. Where that record
 *   ran on an alternate stack or a coroutine, its level is lost to the thread, since nobody can tell that it is
 *   over; on the thread's own stack nothing is.
 *   ojo_now, ojo_enable, ojo_sample_flows, ojo_set_now and ojo_flow_open are async-signal-safe too; open, close,
 *   flush, recover, snapshot and the queries are not. ojo_snapshot_on_signal and ojo_dump_on_crash are the way
 *   to write from a handler. The flusher thread blocks all signals but those of its own faults; the thread
 *   that it starts (ojo-writer) once a batch is larger than 1 MiB, all: such a batch is written past the page
 *   cache (O_DIRECT), where the filesystem can and the disk does 500 MB/s, while the next part is converted.
 *
 * FORK, EXEC
 *   After fork the child's copy of every tracer is off, at the cost of the category check that is there anyway;
 *   the parent's files and pool are not touched, and the child holds none of its descriptors. The child may open
 *   a tracer of its own. fork in a signal handler that interrupted a record is safe in parent and child. vfork
 *   and posix_spawn children must not record before exec, as they must not do anything.
 *   exec leaves a pool behind, as a crash does: close the tracer before, or recover it. All descriptors are
 *   closed by exec. exit() without ojo_close closes the tracers that are open; _exit is a crash.
 *
 * CRASHES
 *   The pool is a file in /dev/shm that outlives the process, and every committed event in it is recovered
 *   exactly once, by the next ojo_open on the directory, by ojo_recover or by `ojo-cat --recover DIR`: what had
 *   been written to output/ is not written again. ojo_reader.h shows a dead pool without recovering it. What
 *   survives SIGKILL, a segfault, an abort: all but the event that was being recorded. What survives a kernel
 *   panic or a power cut: what was in output/, as far as the kernel had written it (see ojo_desc.sync).
 *   A flight recorder (OJO_OVERFLOW_DROP_OLDEST) writes nothing until ojo_snapshot, and is a black box: its pool
 *   is recovered as one more snapshot, which overlaps those in output/; readers show each event once.
 *
 * FILE FORMAT
 *   A header of 144 bytes (struct ojo_file_header), the schema of the application's own types as JSON,
 *   then slots of 24 bytes. README.md has the table. Values in files are never renumbered.
 *
 * ERRORS
 *   open, close and flush return an ojo_result. Record calls return nothing: what can't be kept is
 *   counted, stored in the file as EVENTS_DROPPED with its time range, and shown by every tool. A tracer
 *   that can't be opened is NULL, and every call takes NULL: tracing never takes the application down.
 *   What goes wrong later (a full disk) is logged once per kind through ojo_desc.logger; recording goes on.
 *
 * MEMORY
 *   buffer_bytes of address space, resident only as touched: 2 MiB at the start (reserve_bytes), then what the
 *   recorders are ahead of the flusher; and 1 to 4 MiB to convert in. The pool is a file in /dev/shm where that
 *   has room, so that it outlives a crash; otherwise anonymous memory (a log line says so). A flight recorder's
 *   pool becomes resident as a whole: choose buffer_bytes by how far back it is to reach (2,730 events per 64
 *   KiB).
 *
 * CAVEATS
 *   No payload, key or token is ever recorded; addresses only through FLOW.
 *   A library that is loaded with dlopen takes about 400 bytes of static TLS for its OJO_STATIC copy, of
 *   which libc keeps little in reserve: link it in, or let the application own the one copy.
 *   Needs Linux on a 64-bit little-endian machine (x86-64, aarch64) unless OJO_DISABLE is defined.
 *   Nothing is fsynced unless ojo_desc.sync is set: after a power cut the newest files may be empty.
 */
#ifndef OJO_H
#define OJO_H

#if !defined(OJO_DISABLE) && !defined(_FEATURES_H) && !defined(_DEFAULT_SOURCE) && !defined(_GNU_SOURCE)
#define _DEFAULT_SOURCE 1 /* under -std=c11 the implementation needs mmap flags, syscall and flock */
#endif

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define OJO_VERSION "0.1.0"
#define OJO_ABI UINT64_C(0x6f6a6f0000000003) /* changes with any change to a struct or an inline function */

#if defined(__GNUC__)
#define OJO__UNUSED __attribute__((unused))
#define OJO__LIKELY(x) __builtin_expect(!!(x), 1)
#define OJO__UNLIKELY(x) __builtin_expect(!!(x), 0)
#define OJO__INLINE static inline __attribute__((always_inline, unused))
#define OJO__COLD __attribute__((cold, noinline))
#else
#define OJO__UNUSED
#define OJO__INLINE static inline
#endif

#ifndef OJO_API
#ifdef OJO_STATIC
#define OJO_API static OJO__UNUSED
#else
#define OJO_API extern
#endif
#endif

/* ---- the event types --------------------------------------------------------------------------- */

/* X(value, NAME, helper, CATEGORY, KIND, payload, size). KIND says what goes with the payload: NONE;
 * NUMBER, one number (`size`); RANGE, a length, given as such and shown as the range's exclusive end;
 * TEXT; BYTES; RECORD, a layout of its own. Every row makes the enum value OJO_NAME and the helpers
 *     ojo_helper(t, flow, payload)             ojo_helper_at(t, time, flow, payload)
 * and, for NUMBER and RANGE,
 *     ojo_helper_sized(t, flow, payload, size) ojo_helper_sized_at(t, time, flow, payload, size)
 * Sizes are bytes, numbers are packet numbers or counts, times are ns, unless the name says otherwise. */
#define OJO_EVENTS(X)                                                                                   \
  X(0x0001, PACKET_CREATED, packet_created, PACKET, NUMBER, packet_number, bytes)                       \
  X(0x0002, PACKET_SENT, packet_sent, PACKET, NUMBER, packet_number, bytes)                             \
  X(0x0003, PACKET_ACKED, packet_acked, PACKET, NUMBER, packet_number, bytes)                           \
  X(0x0004, PACKET_LOST_TIMEOUT, packet_lost_timeout, PACKET, NUMBER, packet_number, bytes)             \
  X(0x0005, PACKET_LOST_DUPLICATE_ACK, packet_lost_duplicate_ack, PACKET, NUMBER, packet_number, bytes) \
  X(0x0006, PACKET_RETRANSMIT_OLD, packet_retransmit_old, PACKET, NONE, packet_number, none)            \
  X(0x0007, PACKET_RETRANSMIT_NEW, packet_retransmit_new, PACKET, NONE, packet_number, none)            \
  X(0x0008, PACKET_RECEIVED, packet_received, PACKET, NUMBER, packet_number, bytes)                     \
  X(0x0009, OFFSET_SENT, offset_sent, PACKET, RANGE, start, length)                                     \
  X(0x000A, OFFSET_ACKED, offset_acked, PACKET, RANGE, start, length)                                   \
  X(0x000B, OFFSET_RETRANSMITTED, offset_retransmitted, PACKET, RANGE, start, length)                   \
  X(0x000C, OFFSET_LOST, offset_lost, PACKET, RANGE, start, length)                                     \
  X(0x000D, OFFSET_RECEIVED, offset_received, PACKET, RANGE, start, length)                             \
  X(0x000E, PACKET_LOST_TIME, packet_lost_time, PACKET, NUMBER, packet_number, bytes)                   \
  X(0x000F, PACKET_LOST_REPORTED, packet_lost_reported, PACKET, NUMBER, packet_number, bytes)           \
  X(0x0010, PACKET_LOST_SPURIOUS, packet_lost_spurious, PACKET, NUMBER, packet_number, bytes)           \
  X(0x0011, PACKET_DROPPED, packet_dropped, PACKET, NUMBER, packet_number, bytes)                       \
  X(0x0012, ACK_RECEIVED, ack_received, PACKET, NUMBER, first, count)                                   \
  X(0x0013, ACK_SENT, ack_sent, PACKET, NUMBER, largest, ack_delay_us)                                  \
  X(0x0014, DATAGRAM_SENT, datagram_sent, PACKET, NUMBER, bytes, datagrams)                             \
  X(0x0015, DATAGRAM_RECEIVED, datagram_received, PACKET, NUMBER, bytes, datagrams)                     \
  X(0x0016, ECN_CE_RECEIVED, ecn_ce_received, PACKET, NONE, bytes, none)                                \
  X(0x0017, ECN_CE_REPORTED, ecn_ce_reported, PACKET, NONE, count, none)                                \
  X(0x0100, STREAM_OPENED, stream_opened, STREAM, NONE, stream_id, none)                                \
  X(0x0101, STREAM_LINK_PARENT, stream_link_parent, STREAM, NONE, parent_flow, none)                    \
  X(0x0102, STREAM_FIN_SENT, stream_fin_sent, STREAM, NONE, stream_id, none)                            \
  X(0x0103, STREAM_FIN_ACKED, stream_fin_acked, STREAM, NONE, stream_id, none)                          \
  X(0x0104, STREAM_FIN_RECEIVED, stream_fin_received, STREAM, NONE, stream_id, none)                    \
  X(0x0105, STREAM_RESET_SENT, stream_reset_sent, STREAM, NUMBER, error, final_size)                    \
  X(0x0106, STREAM_RESET_RECEIVED, stream_reset_received, STREAM, NUMBER, error, final_size)            \
  X(0x0107, STREAM_STOP_SENT, stream_stop_sent, STREAM, NONE, error, none)                              \
  X(0x0108, STREAM_STOP_RECEIVED, stream_stop_received, STREAM, NONE, error, none)                      \
  X(0x0109, STREAM_CLOSED, stream_closed, STREAM, NONE, error, none)                                    \
  X(0x0200, CONNECTION_MAX_DATA_UPDATE, connection_max_data_update, FLOW_CONTROL, NONE, limit, none)    \
  X(0x0201, STREAM_MAX_DATA_UPDATE, stream_max_data_update, FLOW_CONTROL, NONE, limit, none)            \
  X(0x0202, CONNECTION_MAX_DATA_GRANTED, connection_max_data_granted, FLOW_CONTROL, NONE, limit, none)  \
  X(0x0203, STREAM_MAX_DATA_GRANTED, stream_max_data_granted, FLOW_CONTROL, NONE, limit, none)          \
  X(0x0204, CONNECTION_BLOCKED, connection_blocked, FLOW_CONTROL, NONE, limit, none)                    \
  X(0x0205, STREAM_BLOCKED, stream_blocked, FLOW_CONTROL, NONE, limit, none)                            \
  X(0x0206, PEER_BLOCKED, peer_blocked, FLOW_CONTROL, NONE, limit, none)                                \
  X(0x0207, MAX_STREAMS_UPDATE, max_streams_update, FLOW_CONTROL, NUMBER, count, one_way)               \
  X(0x0208, MAX_STREAMS_GRANTED, max_streams_granted, FLOW_CONTROL, NUMBER, count, one_way)             \
  X(0x0300, CWND_UPDATED, cwnd_updated, CONGESTION_CONTROL, NONE, bytes, none)                          \
  X(0x0301, SSTHRESH_UPDATED, ssthresh_updated, CONGESTION_CONTROL, NONE, bytes, none)                  \
  X(0x0302, BYTES_IN_FLIGHT, bytes_in_flight, CONGESTION_CONTROL, NONE, bytes, none)                    \
  X(0x0303, RTT_SAMPLE, rtt_sample, CONGESTION_CONTROL, RECORD, latest_ns, rtt)                         \
  X(0x0304, PACING_RATE, pacing_rate, CONGESTION_CONTROL, NONE, bytes_per_s, none)                      \
  X(0x0305, DELIVERY_RATE, delivery_rate, CONGESTION_CONTROL, NONE, bytes_per_s, none)                  \
  X(0x0306, SENDER_LIMITED, sender_limited, CONGESTION_CONTROL, NONE, by, none)                         \
  X(0x0307, CONGESTION_STATE, congestion_state, CONGESTION_CONTROL, NONE, state, none)                  \
  X(0x0308, LOSS_TIMER_SET, loss_timer_set, CONGESTION_CONTROL, NONE, from_now_ns, none)                \
  X(0x0309, LOSS_TIMER_EXPIRED, loss_timer_expired, CONGESTION_CONTROL, NONE, expiries, none)           \
  X(0x030A, MTU_UPDATED, mtu_updated, CONGESTION_CONTROL, NONE, bytes, none)                            \
  X(0x0800, CONNECTION_STATE, connection_state, CONNECTION, NONE, state, none)                          \
  X(0x0801, CONNECTION_CLOSED, connection_closed, CONNECTION, RECORD, error, closed)                    \
  X(0x0802, KEY_UPDATED, key_updated, CONNECTION, NUMBER, key_phase, by_peer)                           \
  X(0x0803, VERSION_CHOSEN, version_chosen, CONNECTION, NONE, version, none)                            \
  X(0x0804, PATH_STATE, path_state, CONNECTION, NONE, state, none)                                      \
  X(0x0805, SOCKET_BOUND, socket_bound, CONNECTION, NONE, socket_cookie, none)

/* Types without helpers: the kernel's, which ojo_bpf.h records and describes; the telemetry numbers, which are
 * reserved; and what the tracer writes itself. */
#define OJO_EVENTS_INTERNAL(X)                                                 \
  X(0x0400, KERNEL_CONNECTION, none, KERNEL_TCP, RECORD, socket_cookie, connection)    \
  X(0x0401, KERNEL_TCP_STATE, none, KERNEL_TCP, NUMBER, state, old_state)      \
  X(0x0402, KERNEL_TCP_SEND, none, KERNEL_TCP, NONE, bytes, none)              \
  X(0x0403, KERNEL_TCP_RECEIVE, none, KERNEL_TCP, NONE, bytes, none)           \
  X(0x0404, KERNEL_TCP_RETRANSMIT, none, KERNEL_TCP, NUMBER, segments, total)  \
  X(0x0405, KERNEL_TCP_RTT, none, KERNEL_TCP, RECORD, smoothed_ns, rtt)        \
  X(0x0406, KERNEL_TCP_CWND, none, KERNEL_TCP, NUMBER, bytes, segments)        \
  X(0x0407, KERNEL_TCP_SSTHRESH, none, KERNEL_TCP, NUMBER, bytes, segments)    \
  X(0x0408, KERNEL_TCP_IN_FLIGHT, none, KERNEL_TCP, NUMBER, bytes, segments)   \
  X(0x0409, KERNEL_TCP_SEND_WINDOW, none, KERNEL_TCP, NONE, bytes, none)       \
  X(0x040A, KERNEL_TCP_RECEIVE_WINDOW, none, KERNEL_TCP, NONE, bytes, none)    \
  X(0x040B, KERNEL_TCP_CONGESTION_STATE, none, KERNEL_TCP, NONE, state, none)  \
  X(0x040C, KERNEL_TCP_RESET_SENT, none, KERNEL_TCP, NONE, zero, none)         \
  X(0x040D, KERNEL_TCP_RESET_RECEIVED, none, KERNEL_TCP, NONE, zero, none)     \
  X(0x040E, KERNEL_TCP_FINISHED, none, KERNEL_TCP, RECORD, zero, totals)       \
  X(0x0500, KERNEL_UDP_SEND, none, KERNEL_UDP, NUMBER, bytes, datagrams)       \
  X(0x0501, KERNEL_UDP_RECEIVE, none, KERNEL_UDP, NUMBER, bytes, datagrams)    \
  X(0x0502, KERNEL_UDP_DROP, none, KERNEL_UDP, NUMBER, bytes, datagrams)       \
  X(0x0503, KERNEL_UDP_FINISHED, none, KERNEL_UDP, RECORD, zero, totals)       \
  X(0x0600, KERNEL_OFF_CPU, none, KERNEL_SCHEDULER, NUMBER, tid, asleep)       \
  X(0x0601, KERNEL_ON_CPU, none, KERNEL_SCHEDULER, NUMBER, tid, off_ns)        \
  X(0x0602, KERNEL_WAKEUP, none, KERNEL_SCHEDULER, NUMBER, tid, by_tid)        \
  X(0x0700, LOG, none, TELEMETRY, RECORD, severity, log)                       \
  X(0x0701, SPAN_BEGIN, none, TELEMETRY, RECORD, span_id, span)                \
  X(0x0702, SPAN_END, none, TELEMETRY, RECORD, span_id, span)                  \
  X(0x0703, COUNTER, none, TELEMETRY, RECORD, value, name)                     \
  X(0x0704, GAUGE, none, TELEMETRY, RECORD, value, name)                       \
  X(0x0705, HISTOGRAM, none, TELEMETRY, RECORD, value, name)                   \
  X(0x0706, ATTRIBUTES, none, TELEMETRY, RECORD, count, attributes)            \
  X(0xFF01, EVENTS_DROPPED, none, META, RECORD, count, dropped)                \
  X(0xFF02, RUN, none, META, RECORD, slots, run)                               \
  X(0xFF03, THREAD, none, META, RECORD, tid_pid, thread)                       \
  X(0xFF04, FLOW, none, META, RECORD, key, flow)

typedef enum ojo_event_type {
#define OJO__X(value, name, helper, category, kind, payload, size) OJO_##name = value,
  OJO_EVENTS(OJO__X) OJO_EVENTS_INTERNAL(OJO__X)
#undef OJO__X
  OJO_APPLICATION_TYPE_FIRST = 0x010000, /* the application's own types */
  OJO_APPLICATION_TYPE_LAST = 0x7FFFFF
} ojo_event_type;

/* One bit each, for ojo_enable. X(bit, NAME, text in files and tools). */
#define OJO_CATEGORIES(X)                            \
  X(0, PACKET, "Packet")                             \
  X(1, STREAM, "Stream")                             \
  X(2, FLOW_CONTROL, "FlowControl")                  \
  X(3, CONGESTION_CONTROL, "CongestionControl")      \
  X(4, KERNEL_TCP, "KernelTCP")                      \
  X(5, KERNEL_UDP, "KernelUDP")                      \
  X(6, KERNEL_SCHEDULER, "KernelScheduler")          \
  X(7, TELEMETRY, "Telemetry")                       \
  X(8, CONNECTION, "Connection")                     \
  X(15, META, "Meta")                                \
  X(16, APPLICATION, "Application")
typedef enum ojo_category {
#define OJO__X(bit, name, text) OJO_CATEGORY_##name = 1 << bit,
  OJO_CATEGORIES(OJO__X)
#undef OJO__X
  OJO_CATEGORY_ALL = 0x1FFFF
} ojo_category;

typedef enum ojo_value_kind { /* what an event carries beside its payload */
  OJO_VALUE_NONE = 0,
  OJO_VALUE_NUMBER = 1,
  OJO_VALUE_RANGE = 2,
  OJO_VALUE_TEXT = 3,
  OJO_VALUE_BYTES = 4,
  OJO_VALUE_RECORD = 5
} ojo_value_kind;

typedef enum ojo_limited { /* SENDER_LIMITED: what keeps the sender from sending, from now on */
  OJO_LIMITED_NOTHING = 0, OJO_LIMITED_APPLICATION = 1, OJO_LIMITED_CWND = 2,
  OJO_LIMITED_CONNECTION_CREDIT = 3, OJO_LIMITED_STREAM_CREDIT = 4, OJO_LIMITED_PACING = 5,
  OJO_LIMITED_ANTI_AMPLIFICATION = 6, OJO_LIMITED_SOCKET = 7
} ojo_limited;
typedef enum ojo_congestion { /* CONGESTION_STATE; 16 and up are the algorithm's own */
  OJO_CONGESTION_SLOW_START = 1, OJO_CONGESTION_AVOIDANCE = 2, OJO_CONGESTION_RECOVERY = 3
} ojo_congestion;
typedef enum ojo_connection { /* CONNECTION_STATE */
  OJO_CONNECTION_INITIAL = 1, OJO_CONNECTION_HANDSHAKE = 2, OJO_CONNECTION_ESTABLISHED = 3,
  OJO_CONNECTION_CONFIRMED = 4, OJO_CONNECTION_CLOSING = 5, OJO_CONNECTION_DRAINING = 6
} ojo_connection;
typedef enum ojo_path { /* PATH_STATE */
  OJO_PATH_PROBING = 1, OJO_PATH_VALIDATED = 2, OJO_PATH_ACTIVE = 3, OJO_PATH_STANDBY = 4,
  OJO_PATH_FAILED = 5, OJO_PATH_ABANDONED = 6
} ojo_path;
typedef enum ojo_closed_by { /* CONNECTION_CLOSED */
  OJO_CLOSED_BY_US = 0, OJO_CLOSED_BY_PEER = 1, OJO_CLOSED_BY_TIMEOUT = 2, OJO_CLOSED_BY_RESET = 3
} ojo_closed_by;
typedef enum ojo_drop_reason { /* EVENTS_DROPPED: why */
  OJO_DROP_POOL_FULL = 1, OJO_DROP_BLOCK_TIMEOUT = 2, OJO_DROP_OVERWRITTEN = 3, OJO_DROP_NESTING = 4,
  OJO_DROP_THREAD_TABLE = 5, OJO_DROP_NEVER_WRITTEN = 6, OJO_DROP_KERNEL_RING = 7,
  OJO_DROP_DISK_LIMIT = 8, OJO_DROP_EXTENSION_TOO_LONG = 9
} ojo_drop_reason;

/* ---- the file format --------------------------------------------------------------------------- */

#define OJO_SLOT_BYTES 24
#define OJO_EXTENSION_BYTES_MAX 6120 /* 255 slots */
#define OJO_TYPE_MASK 0x7FFFFFu      /* bits 0..22 of ojo_event.type; above them: */
#define OJO_SIZED 0x800000u          /* payload is value | size << 44; n is 0 */
#define OJO_EXTENSION_SHIFT 24       /* bits 24..31: n, the extension slots that follow */
#define OJO_SIZED_VALUE_BITS 44
#define OJO_SIZED_SIZE_BITS 20
#define OJO__NS_BIT (UINT64_C(1) << 63) /* in a time as recorded: ns of CLOCK_MONOTONIC, not a tick */

typedef struct ojo_event { /* one slot; little-endian */
  uint64_t ts;             /* ns since the trace's start */
  uint32_t type;
  uint32_t flow;           /* 0: no flow */
  uint64_t payload;
} ojo_event;

#define OJO_FILE_MAGIC "ojo" /* with its NUL: 4 bytes */
#define OJO_FILE_VERSION 2
#define OJO_FILE_COMPLETE 1u  /* flags */
#define OJO_FILE_RECOVERED 2u
#define OJO_FILE_SNAPSHOT 4u
#define OJO_FILE_CHECKSUMS 8u
typedef struct ojo_file_header { /* 144 bytes */
  char magic[4];
  uint8_t version, flags;
  uint16_t slot_bytes;
  uint64_t start_unix_ns;
  uint64_t schema_id;            /* FNV-1a 64 of the schema's bytes; 0: no schema */
  uint32_t header_bytes;         /* before the first slot; a multiple of 8 */
  uint32_t schema_bytes;         /* the schema starts at header_bytes - schema_bytes rounded up to 8 */
  uint64_t start_monotonic_ns;   /* CLOCK_MONOTONIC */
  uint8_t trace_id[16];
  uint32_t pid;
  uint32_t clock;                /* ojo_clock */
  uint64_t batch;                /* published batch of this trace, from 0 */
  uint64_t slot_count;
  uint64_t first_ts, last_ts;    /* ns since the trace's start, both inclusive */
  uint8_t boot_id[16];
  char command[16];
  uint64_t host_id;
  uint32_t anchor_error_ns;      /* the largest error of a tick-to-ns anchor */
  uint32_t crc;                  /* CRC32C of these 144 bytes with this field 0 */
} ojo_file_header;

#define OJO_RUN_UNSORTED 1u /* flags: times go back within the run */
#define OJO_RUN_HANDLER 2u  /* recorded by a signal handler that interrupted a record */
#define OJO_RUN_RECOVERED 4u
typedef struct ojo_run { /* RUN's extension (n = 2); RUN.payload slots of thread RUN.flow follow */
  uint64_t first_ordinal;  /* of its first recorded event among all that (thread, level) tried */
  uint64_t last_ts;        /* greatest; RUN.ts is the least */
  uint32_t tid;            /* the OS's; RUN.flow is the trace's own */
  uint32_t crc;            /* CRC32C of the run's slots; 0: none */
  uint32_t events;         /* in the run, without THREAD */
  uint16_t flags, level;
  uint64_t lost_before;    /* lost (or overwritten) by this (thread, level) before this run's events */
  uint64_t zero;
} ojo_run;

typedef struct ojo_dropped { /* EVENTS_DROPPED's extension; payload is the count */
  uint64_t first_ts, last_ts;
  uint32_t reason; /* ojo_drop_reason */
  uint32_t source;
} ojo_dropped;

typedef struct ojo_rtt { /* RTT_SAMPLE's extension; payload is the latest sample; all ns */
  uint64_t smoothed_ns, min_ns, variation_ns;
} ojo_rtt;

typedef struct ojo_flow_record { /* FLOW's extension, then id, local, remote, protocol, label */
  uint32_t parent;
  uint8_t kind, role, id_bytes, address_bytes;
  uint16_t local_port, remote_port;
  uint8_t protocol_bytes, label_bytes;
  uint16_t zero16;
  uint64_t zero64;
} ojo_flow_record;

#define OJO_KERNEL_PARTIAL 1u /* flags: older than the probes: its counts begin when they saw it first */
#define OJO_KERNEL_PASSIVE 2u /* accepted, not opened */
typedef struct ojo_kernel_connection { /* KERNEL_CONNECTION's extension; a flow's last one holds */
  uint64_t cookie;                     /* SO_COOKIE */
  uint32_t pid;                        /* the owner, 0: not known */
  uint16_t local_port, remote_port;
  uint8_t protocol, address_bytes;     /* 6 TCP, 17 UDP; 4, 16 */
  uint8_t state, flags;                /* as KERNEL_TCP_STATE, 0 for UDP */
  uint32_t netns;                      /* inode number of the network namespace */
  char command[16];
  uint8_t local[16], remote[16];       /* network order */
} ojo_kernel_connection;
typedef struct ojo_kernel_totals { /* KERNEL_TCP_FINISHED, KERNEL_UDP_FINISHED: the extension */
  uint64_t bytes_out, bytes_in, packets_out, packets_in;
  uint64_t retransmits, dropped; /* segments; datagrams that the socket did not take */
} ojo_kernel_totals;

/* ---- types of the interface -------------------------------------------------------------------- */

typedef enum ojo_result {
  OJO_OK = 0,
  OJO_ERR_ARGUMENT = -1,   /* an argument is out of its range; for a desc the log line names the member */
  OJO_ERR_MEMORY = -2,
  OJO_ERR_IO = -3,         /* a directory or file can't be made, read or written */
  OJO_ERR_PERMISSION = -4,
  OJO_ERR_TIMEOUT = -5,    /* ojo_flush: not all was written within 10 s */
  OJO_ERR_MODE = -6,       /* the call does not fit the tracer's mode or thread */
  OJO_ERR_FORMAT = -7,     /* not an ojo file, or none that this version reads */
  OJO_ERR_NOT_FOUND = -8
} ojo_result;

typedef enum ojo_clock {
  OJO_CLOCK_AUTO = 0,      /* TSC or CNTVCT where sound, else MONOTONIC */
  OJO_CLOCK_MONOTONIC = 1, /* clock_gettime(CLOCK_MONOTONIC) */
  OJO_CLOCK_MANUAL = 2,    /* the last ojo_set_now; the trace starts at 0 */
  OJO_CLOCK_TSC = 3,       /* x86-64, invariant, and the kernel's own clock source; as a request: AUTO */
  OJO_CLOCK_CNTVCT = 4     /* aarch64; as a request: AUTO */
} ojo_clock;

typedef enum ojo_overflow { /* what happens when no chunk is free */
  OJO_OVERFLOW_DROP_NEWEST = 0, /* the new event is dropped and counted */
  OJO_OVERFLOW_DROP_OLDEST = 1, /* flight recorder: the oldest are overwritten and counted; see ojo_snapshot. A
                                   thread that gets no chunk (more live threads than chunks) drops, as above */
  OJO_OVERFLOW_BLOCK = 2        /* the recorder waits, up to block_timeout_ms, then drops and counts */
} ojo_overflow;

typedef struct ojo_type { /* one of the application's own event types; text is UTF-8 */
  uint32_t value;         /* OJO_APPLICATION_TYPE_FIRST .. _LAST */
  const char *name;
  const char *category;    /* NULL: "Application" */
  const char *description; /* NULL: none */
  ojo_value_kind value_kind;
} ojo_type;

/* log NULL: a line to stderr. Called from open, close, flush and the flusher thread, one line per kind of
 * trouble. It may record, but not fork or call ojo_open, ojo_close or ojo_recover. */
typedef struct ojo_logger {
  void (*log)(void *user, const char *line);
  void *user;
} ojo_logger;

typedef struct ojo_allocator { /* for open's tables and the write buffer; the pool is mapped. NULL: malloc */
  void *(*alloc)(void *user, size_t bytes);
  void (*free)(void *user, void *memory);
  void *user;
} ojo_allocator;

typedef struct ojo_desc { /* zero is the default */
  const char *dir;            /* made if missing; NULL or "": off, ojo_open gives NULL */
  uint64_t buffer_bytes;      /* the pool, in chunks of 64 KiB, one at least for each thread that records; 0: 512
                                 MiB, or what the limits of memory leave */
  uint64_t reserve_bytes;     /* of it, populated ahead of the recorders; 0: 2 MiB */
  uint32_t flush_interval_ms; /* a batch ends after; 0: 1,000 */
  uint32_t block_timeout_ms;  /* OJO_OVERFLOW_BLOCK; 0: 10,000 */
  uint64_t flush_bytes;       /* a batch ends at; 0: 10 MiB */
  uint64_t disk_bytes_max;    /* this trace's oldest batches are deleted beyond; 0: no limit. Not snapshots */
  ojo_overflow overflow;
  ojo_clock clock;
  const ojo_type *types;      /* the application's own types: copied */
  size_t type_count;
  uint32_t file_mode;         /* 0: 0600 */
  uint32_t dir_mode;          /* 0: 0700 */
  bool sync;                  /* fsync each batch before it is published */
  bool checksums;             /* a CRC32C for each run */
  bool no_thread;             /* no flusher: the program calls ojo_flush */
  ojo_logger logger;
  ojo_allocator allocator;
} ojo_desc;

typedef struct ojo_stats { /* counts since ojo_open. Exact once the recorders have stopped */
  uint64_t recorded;     /* events accepted; filtered and sampled-out ones are in no count */
  uint64_t dropped;      /* events refused: pool full, block timeout, nesting, too many threads, too long; and those
                            that ojo_events_dropped_at was told of */
  uint64_t overwritten;  /* of recorded: no longer in the pool, OJO_OVERFLOW_DROP_OLDEST */
  uint64_t written;      /* of recorded: in files of output/; a flight recorder's: 0 */
  uint64_t batches;      /* files published, snapshots too */
  uint64_t bytes;        /* of these files */
  uint64_t write_errors; /* failed attempts to write a batch (its events wait in the pool) or a snapshot */
  uint64_t deleted;      /* events in files deleted for disk_bytes_max */
  uint64_t flush_ns_max; /* the longest pass of the flusher */
  uint64_t buffer_bytes; /* the pool's size in force */
  uint32_t chunks, chunks_in_use;
  bool crash_safe;       /* the pool is on tmpfs and outlives the process */
} ojo_stats;

typedef enum ojo_flow_kind {
  OJO_FLOW_CONNECTION = 1, OJO_FLOW_SPACE = 2, OJO_FLOW_PATH = 3, OJO_FLOW_STREAM = 4, OJO_FLOW_SOCKET = 5
} ojo_flow_kind;
typedef enum ojo_role { OJO_ROLE_NONE = 0, OJO_ROLE_CLIENT = 1, OJO_ROLE_SERVER = 2 } ojo_role;

typedef struct ojo_flow_desc { /* zero is the default: a connection of unknown role */
  uint32_t parent;         /* 0: a root */
  ojo_flow_kind kind;      /* 0: CONNECTION, or STREAM for a child */
  ojo_role role;
  uint64_t key;            /* stream id, space 1..15, path id, SSRC, conversation, socket cookie */
  const void *id;          /* connection id that both ends know (QUIC: original destination), 0..20 bytes */
  const void *local_address, *remote_address; /* network order, address_bytes each */
  uint8_t id_bytes;
  uint8_t address_bytes;   /* 0, 4 or 16 */
  uint16_t local_port, remote_port; /* host order */
  const char *protocol;    /* "quic", "kcp", "rtp" */
  const char *label;
} ojo_flow_desc;

typedef struct ojo_metrics_values { /* bytes and ns; 0 (ssthresh: also UINT64_MAX) is unknown: not recorded */
  uint64_t cwnd, ssthresh, bytes_in_flight;
  uint64_t latest_rtt_ns, smoothed_rtt_ns, min_rtt_ns, rtt_variation_ns;
  uint64_t pacing_rate; /* bytes/s */
} ojo_metrics_values;

typedef struct ojo_tracer ojo_tracer; /* made by ojo_open alone; to forward-declare: struct ojo_tracer; */
struct ojo_tracer {                   /* what the inline half reads; in a fork child all of it is 0 */
  uint64_t abi;                       /* first word: OJO_ABI */
  uint32_t mask;                      /* categories recorded; 0: off */
  uint32_t sample_below;              /* a flow is kept if its hash is below; 1024: all */
  uint64_t generation;                /* unlike any other tracer's; bit 63 set */
  uint32_t clock;                     /* ojo_clock in force */
  uint32_t every;                     /* mask, while no flow is left out; else 0: one check serves both */
  uint64_t manual_now_ns;             /* OJO_CLOCK_MANUAL */
  uint32_t *flow_count;               /* root flow ids handed out by the copy of ojo.h that opened it */
  struct ojo__core *core;
};

#ifdef __cplusplus
extern "C" {
#endif

/* ---- functions --------------------------------------------------------------------------------- */

#ifndef OJO_DISABLE
/* Opens a tracer. desc NULL is a zero desc; without a dir *out is NULL and the result OJO_OK: tracing is
 * off. On an error *out is NULL too and a log line says what, where and why. Thread-safe. */
OJO_API ojo_result ojo_open(ojo_tracer **out, const ojo_desc *desc);
/* Writes what is pending (nothing for a flight recorder), stops the flusher, removes the pool. The recorders of t
 * must have stopped, or their last events may be lost. OJO_ERR_IO: events could not be written within 10 s
 * (logged, with their number; a pool on tmpfs then stays for ojo_recover). In a fork child it does nothing. */
OJO_API ojo_result ojo_close(ojo_tracer *t);
/* Returns once all that was recorded before the call, by any thread, is in DIR/output/; OJO_ERR_TIMEOUT
 * after 10 s, OJO_ERR_IO with no_thread when the write failed, OJO_ERR_MODE from within the logger, and for a
 * flight recorder, which writes only snapshots. */
OJO_API ojo_result ojo_flush(ojo_tracer *t);
/* Flight recorder (OJO_OVERFLOW_DROP_OLDEST, else OJO_ERR_MODE): writes all that the pool holds at this moment
 * into the file `path` (relative: to the working directory), beside it first and then renamed over it; NULL: as a
 * file of its own in DIR/output/. Nothing is cleared, recorders are not stopped, what was overwritten is counted in
 * the file. Any thread, but not a signal handler; snapshots come one after another. OJO_ERR_IO: errno is set;
 * logged, the same error once a minute. OJO_OK and no file if t is NULL, closed, or a fork child's copy. */
OJO_API ojo_result ojo_snapshot(ojo_tracer *t, const char *path);
/* Takes such a snapshot whenever the process gets the signal, into the same file each time: by the flusher thread,
 * at once; with no_thread in the handler itself. A relative `path` is that of this call's working directory. The
 * handler that was installed before is called too, but not the default action: until ojo_close the signal ends no
 * process. With t NULL nothing is installed. OJO_ERR_ARGUMENT for the signals of ojo_dump_on_crash. */
OJO_API ojo_result ojo_snapshot_on_signal(ojo_tracer *t, int signo, const char *path);
/* On SIGSEGV, SIGBUS, SIGABRT, SIGFPE and SIGILL: the flusher writes what t holds into DIR/output/ (a flight
 * recorder's as ojo_snapshot(t, NULL)), while the handler waits for it, at most 3 s; then the handler that was
 * installed before is called, or the process ends as it would have. Call it when the program has installed its own
 * handlers: a later one replaces ours. The handler only stores and waits; with no_thread it writes the file itself.
 * Async-signal-safe. A stack overflow needs a sigaltstack of the thread. SIGKILL needs none of this: ojo_recover. */
OJO_API ojo_result ojo_dump_on_crash(ojo_tracer *t);
OJO_API ojo_stats ojo_query_stats(ojo_tracer *t); /* zeros for NULL. Thread-safe; walks the pool's headers */
OJO_API ojo_desc ojo_query_desc(ojo_tracer *t);   /* what is in force, defaults filled in; no types */
OJO_API const char *ojo_result_string(ojo_result result); /* never NULL */
/* Writes what tracers of processes that died left in their pools into DIR/output/, each event exactly
 * once, and removes the pools. Live tracers, also other recoverers at the same time, are not disturbed.
 * OJO_OK too when there is nothing to do. ojo_open does this for its directory. Thread-safe. */
OJO_API ojo_result ojo_recover(const char *dir);
/* A library calls this on a tracer that its caller made: t, or NULL (and one log line to stderr) if the
 * caller's ojo.h is another version. */
OJO_API ojo_tracer *ojo_adopt(ojo_tracer *t);
/* Records only these categories (OJO_CATEGORY_...) from now on; Meta is always on. Signal-safe. */
OJO_API void ojo_enable(ojo_tracer *t, uint32_t category_mask);
/* Keeps one root flow in n, by hash, with all its children; 0 and 1 keep all. Flow 0 is always kept. */
OJO_API void ojo_sample_flows(ojo_tracer *t, uint32_t n);
OJO_API void ojo_set_now(ojo_tracer *t, uint64_t ns); /* OJO_CLOCK_MANUAL: what ojo_now gives. Signal-safe */

/* A new flow id and its FLOW event: a root flow, or with desc.parent ojo_flow_child of it by kind and
 * key. Never 0; the same ids come whether t records, is NULL, or leaves the flow out. Bit 31 is never set. */
OJO_API uint32_t ojo_flow_open(ojo_tracer *t, const ojo_flow_desc *desc);
OJO_API uint32_t ojo_flow_open_at(ojo_tracer *t, uint64_t time, const ojo_flow_desc *desc); /* as _at below */
/* Says which socket carries a flow: records SOCKET_BOUND with the socket's cookie, and from then on the kernel's events
 * of that socket, if an ojo_bpf (ojo_bpf.h) records into t, carry this flow's id. OJO_ERR_ARGUMENT: no socket;
 * OJO_ERR_NOT_FOUND: the kernel gives no cookie (Linux before 4.12). Thread-safe. */
OJO_API ojo_result ojo_bind_socket(ojo_tracer *t, uint32_t flow, int fd);
/* For a source of events beside ojo.h, as ojo_bpf.h is one: `count` events from first_ns to last_ns (CLOCK_MONOTONIC)
 * were lost before they reached t. Recorded as EVENTS_DROPPED, and counted as dropped. Signal-safe. */
OJO_API void ojo_events_dropped_at(ojo_tracer *t, uint64_t time, uint64_t count, uint64_t first_ns, uint64_t last_ns,
                                   ojo_drop_reason reason, uint32_t source);
/* ojo_bpf.h's: FLOW for an id of its own, and who is told of binds (fn NULL: nobody; returns once no call of the last
 * one is under way). */
OJO_API void ojo__flow_record(ojo_tracer *t, uint64_t time, uint32_t flow, const ojo_flow_desc *desc);
OJO_API void ojo__bind_hook_set(ojo_tracer *t, void (*fn)(void *user, uint32_t flow, uint64_t cookie, int fd),
                                void *user);

/* What the inline calls below fall back to. `raw` is a time as stored: ns | 1 << 63, or ticks; 0: now. */
OJO__COLD OJO_API void ojo__slow(ojo_tracer *t, uint64_t raw, uint32_t type, uint32_t flow, uint64_t payload,
                       const void *frame);
OJO__COLD OJO_API void ojo__full(ojo_tracer *t, uint64_t raw, uint32_t type, uint32_t flow, uint64_t payload);
OJO_API void ojo__ext(ojo_tracer *t, uint64_t raw, uint32_t type, uint32_t flow, uint64_t payload,
                      const void *bytes, size_t length);
OJO_API void ojo__long_sized(ojo_tracer *t, uint64_t raw, uint32_t type, uint32_t flow, uint64_t value,
                             uint64_t size);
OJO_API void ojo__retransmit(ojo_tracer *t, uint64_t raw, uint32_t flow, uint64_t old_number,
                             uint64_t new_number);
OJO_API uint64_t ojo__clock_raw(const ojo_tracer *t);

/* ---- the hot path ------------------------------------------------------------------------------ */

#define OJO__CHUNK_BYTES 65536u
#define OJO__CHUNK_LIMIT (OJO__CHUNK_BYTES / OJO_SLOT_BYTES * OJO_SLOT_BYTES)

struct ojo__chunk { /* a chunk's header: one cache line in the pool's dense array of them */
  uint64_t committed; /* bytes. Owner: release. Flusher: acquire. The bytes below it are whole events */
  uint64_t lease;     /* number << 3 | pinned << 2 | state; numbers are never repeated */
  uint64_t ordinal;   /* attempts of this (thread, level) before slot 0. Owner, at lease */
  uint64_t lost;      /* of these: lost. Owner, at lease */
  uint32_t thread;    /* index into the pool's thread table */
  uint16_t level, flags;
  uint32_t next;      /* link of the free or full list, or of its level's chain: index + 1 */
  uint32_t extension_slots; /* among the committed. Owner */
  uint32_t published, harvested; /* bytes; flusher only, as batch */
  uint64_t batch;
};
struct ojo__lease { /* of one thread, for its hottest tracer, outside signal handlers */
  uint64_t generation; /* of the tracer; a frame's address while a record is under way; 0: none */
  uint64_t owner;      /* generation of the tracer whose chunk this is */
  struct ojo__chunk *chunk;
  unsigned char *base; /* the chunk's slots */
};
/* Stands for "no chunk": full, and never written to. */
#define OJO__NO_CHUNK {OJO__CHUNK_LIMIT, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}
/* initial-exec: the default model of -fPIC doubles the cost of a record. */
#define OJO__TLS __thread __attribute__((tls_model("initial-exec")))
#ifdef OJO_STATIC
static const struct ojo__chunk ojo__no_chunk = OJO__NO_CHUNK;
static OJO__UNUSED OJO__TLS struct ojo__lease ojo__hot = {0, 0, (struct ojo__chunk *)&ojo__no_chunk, 0};
#else
extern OJO__TLS struct ojo__lease ojo__hot;
#endif

/* Meta types are the tracer's own, but FLOW may be recorded. Folds to a constant for a constant type. */
OJO__INLINE uint32_t ojo__category_bit(uint32_t type) {
  type &= OJO_TYPE_MASK;
  return type >= OJO_APPLICATION_TYPE_FIRST ? (uint32_t)OJO_CATEGORY_APPLICATION
         : type >= 0xFF01u && type <= 0xFF03u ? 0u
                                               : 1u << ((type >> 8) & 15u);
}

/* A bijection of the low 10 bits: of 1,024 root flows in a row exactly 1,024 / n are kept. */
OJO__INLINE bool ojo__sampled_out(uint32_t below, uint32_t flow) {
  return flow != 0 && (((flow & 1023u) * 619u) & 1023u) >= below;
}

/* False also for NULL, and in a fork child, whose masks are 0. ojo_enable and ojo_sample_flows store what is read here
 * relaxed; a change takes effect at some later call, which is all we promise. */
OJO__INLINE bool ojo__wanted(const ojo_tracer *t, uint32_t type, uint32_t flow) {
  if (!t) return false;
  if (OJO__LIKELY(__atomic_load_n(&t->every, __ATOMIC_RELAXED) & ojo__category_bit(type))) return true;
  if (!(__atomic_load_n(&t->mask, __ATOMIC_RELAXED) & ojo__category_bit(type))) return false;
  return !ojo__sampled_out(__atomic_load_n(&t->sample_below, __ATOMIC_RELAXED), flow);
}

OJO__INLINE uint64_t ojo__tick(void) {
#if defined(__x86_64__)
  return __builtin_ia32_rdtsc();
#elif defined(__aarch64__)
  uint64_t tick;
  __asm__ volatile("mrs %0, cntvct_el0" : "=r"(tick));
  return tick;
#else
  return 0;
#endif
}
OJO__INLINE uint64_t ojo__raw_now(const ojo_tracer *t) {
  return OJO__LIKELY(__atomic_load_n(&t->clock, __ATOMIC_RELAXED) >= OJO_CLOCK_TSC) ? ojo__tick() : ojo__clock_raw(t);
}

/* Asks for a cache line to write to. The flusher has read the chunk's lines before, on another processor: without this
 * each would cost its owner a round trip once the store buffer is full, and each page a walk through its tables.
 * 2 KiB ahead hides both (64 to 512 bytes don't); behind a chunk's end it asks for lines of its neighbour in vain. */
#define OJO__AHEAD_BYTES 2048
OJO__INLINE void ojo__ahead(const unsigned char *line) {
#if defined(__x86_64__)
  __asm__ volatile("prefetchw %0" : : "m"(*line)); /* the builtin asks for a line to read, unless -mprfchw is given */
#else
  __builtin_prefetch(line, 1);
#endif
}

/* One event of one slot; `raw` 0: now. `type` holds the bits of ojo_event.type. (`model: R1` and the like name the
 * steps of the models in tests/model/, which spin checks.)
 *
 * Invariant: the bytes of a chunk below `committed` are whole events, at every instruction. The marker
 * (this frame's address in ojo__hot.generation) is stored BEFORE the cursor is loaded: a signal handler
 * that comes after it sees a lease that is busy and records at another level, in another chunk; one that
 * comes before it leaves the cursor where we will find it. The clock is read behind the marker too, so
 * that the handler's later time can't come first in this chunk. Handlers run on this very thread, so
 * compiler barriers are enough for the marker; `committed` is read by the flusher (ojo__harvest: acquire)
 * and stored with release, after the slot. */
OJO__INLINE void ojo__record(ojo_tracer *t, uint64_t raw, uint32_t type, uint32_t flow, uint64_t payload) {
  uint64_t generation = t->generation;
  const void *frame = __builtin_frame_address(0);
  if (OJO__UNLIKELY(ojo__hot.generation != generation)) { /* model: R0; the marker is R1 */
    ojo__slow(t, raw, type, flow, payload, frame);
    return;
  }
  ojo__hot.generation = (uint64_t)(uintptr_t)frame;
  __asm__ volatile("" ::: "memory");
  if (OJO__UNLIKELY(ojo__hot.owner != generation)) { /* model: R2. A handler recorded elsewhere before the marker */
    ojo__hot.generation = 0;
    ojo__slow(t, raw, type, flow, payload, frame);
    return;
  }
  struct ojo__chunk *chunk = ojo__hot.chunk; /* model: R3 */
  uint64_t at = __atomic_load_n(&chunk->committed, __ATOMIC_RELAXED); /* ours alone */
  if (OJO__UNLIKELY(at > OJO__CHUNK_LIMIT - OJO_SLOT_BYTES)) {
    ojo__full(t, raw, type, flow, payload);
    return;
  }
  ojo_event *slot = (ojo_event *)(void *)(ojo__hot.base + at); /* model: R4 */
  ojo__ahead((const unsigned char *)slot + OJO__AHEAD_BYTES);
  slot->ts = raw ? raw : ojo__raw_now(t);
  slot->type = type;
  slot->flow = flow;
  slot->payload = payload;
  __atomic_store_n(&chunk->committed, at + OJO_SLOT_BYTES, __ATOMIC_RELEASE); /* model: R5 */
  __asm__ volatile("" ::: "memory");
  ojo__hot.generation = generation; /* model: R6 */
}

/* A stamp for the `_at` calls, for all events of one packet: CLOCK_MONOTONIC ns, or a tick with bit 63
 * set, which only `_at` of a tracer understands. 0 if t is NULL. Signal-safe. */
OJO__INLINE uint64_t ojo_now(const ojo_tracer *t) {
  /* With nothing but Meta on no `_at` call wants the time. (ojo_flow_open reads the clock itself) */
  return t && (__atomic_load_n(&t->mask, __ATOMIC_RELAXED) & ~(uint32_t)OJO_CATEGORY_META)
             ? ojo__raw_now(t) ^ OJO__NS_BIT : 0;
}

#else /* OJO_DISABLE: nothing is wanted; the calls below compile to nothing, type-checked */
#define OJO__NOTHING(...) static inline OJO__UNUSED __VA_ARGS__
OJO__NOTHING(ojo_result ojo_open(ojo_tracer **out, const ojo_desc *desc)) {
  (void)desc;
  return *out = NULL, OJO_OK;
}
OJO__NOTHING(ojo_result ojo_close(ojo_tracer *t)) { return (void)t, OJO_OK; }
OJO__NOTHING(ojo_result ojo_flush(ojo_tracer *t)) { return (void)t, OJO_OK; }
OJO__NOTHING(ojo_result ojo_snapshot(ojo_tracer *t, const char *path)) { return (void)t, (void)path, OJO_OK; }
OJO__NOTHING(ojo_result ojo_snapshot_on_signal(ojo_tracer *t, int signo, const char *path)) {
  return (void)t, (void)signo, (void)path, OJO_OK;
}
OJO__NOTHING(ojo_result ojo_dump_on_crash(ojo_tracer *t)) { return (void)t, OJO_OK; }
OJO__NOTHING(ojo_stats ojo_query_stats(ojo_tracer *t)) {
  static ojo_stats zero;
  return (void)t, zero;
}
OJO__NOTHING(ojo_desc ojo_query_desc(ojo_tracer *t)) {
  static ojo_desc zero;
  return (void)t, zero;
}
OJO__NOTHING(const char *ojo_result_string(ojo_result r)) { return (void)r, "tracing is compiled out"; }
OJO__NOTHING(ojo_tracer *ojo_adopt(ojo_tracer *t)) { return (void)t, (ojo_tracer *)NULL; }
OJO__NOTHING(void ojo_enable(ojo_tracer *t, uint32_t mask)) { (void)t, (void)mask; }
OJO__NOTHING(void ojo_sample_flows(ojo_tracer *t, uint32_t n)) { (void)t, (void)n; }
OJO__NOTHING(void ojo_set_now(ojo_tracer *t, uint64_t ns)) { (void)t, (void)ns; }
OJO__NOTHING(uint32_t ojo_flow_open_at(ojo_tracer *t, uint64_t time, const ojo_flow_desc *desc)) {
  return (void)t, (void)time, (void)desc, 1;
}
OJO__NOTHING(ojo_result ojo_recover(const char *dir)) { return (void)dir, OJO_OK; }
OJO__NOTHING(uint32_t ojo_flow_open(ojo_tracer *t, const ojo_flow_desc *desc)) { return (void)t, (void)desc, 1; }
OJO__NOTHING(ojo_result ojo_bind_socket(ojo_tracer *t, uint32_t flow, int fd)) {
  return (void)t, (void)flow, (void)fd, OJO_OK;
}
OJO__NOTHING(void ojo_events_dropped_at(ojo_tracer *t, uint64_t time, uint64_t count, uint64_t first_ns,
                                        uint64_t last_ns, ojo_drop_reason reason, uint32_t source)) {
  (void)t, (void)time, (void)count, (void)first_ns, (void)last_ns, (void)reason, (void)source;
}
OJO__NOTHING(uint64_t ojo_now(const ojo_tracer *t)) { return (void)t, 0; }
OJO__NOTHING(bool ojo__wanted(const ojo_tracer *t, uint32_t type, uint32_t flow)) {
  return (void)t, (void)type, (void)flow, false;
}
OJO__NOTHING(void ojo__record(ojo_tracer *t, uint64_t raw, uint32_t type, uint32_t flow, uint64_t payload)) {
  (void)t, (void)raw, (void)type, (void)flow, (void)payload;
}
OJO__NOTHING(void ojo__ext(ojo_tracer *t, uint64_t raw, uint32_t type, uint32_t flow, uint64_t payload,
                           const void *bytes, size_t length)) {
  (void)t, (void)raw, (void)type, (void)flow, (void)payload, (void)bytes, (void)length;
}
OJO__NOTHING(void ojo__long_sized(ojo_tracer *t, uint64_t raw, uint32_t type, uint32_t flow, uint64_t value,
                                  uint64_t size)) {
  (void)t, (void)raw, (void)type, (void)flow, (void)value, (void)size;
}
OJO__NOTHING(void ojo__retransmit(ojo_tracer *t, uint64_t raw, uint32_t flow, uint64_t o, uint64_t n)) {
  (void)t, (void)raw, (void)flow, (void)o, (void)n;
}
#endif

/* A time as stored: a caller's ns get bit 63, a stamp of ojo_now loses it. */
OJO__INLINE uint64_t ojo__raw(uint64_t time) { return time ^ OJO__NS_BIT; }

/* Records an event. Any thread; signal-safe; wait-free unless OJO_OVERFLOW_BLOCK waits. */
OJO__INLINE void ojo_record(ojo_tracer *t, uint32_t flow, uint32_t type, uint64_t payload) {
  if (ojo__wanted(t, type, flow)) ojo__record(t, 0, type & OJO_TYPE_MASK, flow, payload);
}
/* `time` is CLOCK_MONOTONIC ns that the caller has, or a stamp of ojo_now; before the trace's start: 0. */
OJO__INLINE void ojo_record_at(ojo_tracer *t, uint64_t time, uint32_t flow, uint32_t type,
                               uint64_t payload) {
  if (ojo__wanted(t, type, flow)) ojo__record(t, ojo__raw(time), type & OJO_TYPE_MASK, flow, payload);
}
OJO__INLINE void ojo__record_sized(ojo_tracer *t, uint64_t raw, uint32_t flow, uint32_t type,
                                   uint64_t value, uint64_t size) {
  if (!ojo__wanted(t, type, flow)) return;
  if (OJO__LIKELY(value >> OJO_SIZED_VALUE_BITS == 0 && size >> OJO_SIZED_SIZE_BITS == 0))
    ojo__record(t, raw, (type & OJO_TYPE_MASK) | OJO_SIZED, flow, value | size << OJO_SIZED_VALUE_BITS);
  else
    ojo__long_sized(t, raw, type & OJO_TYPE_MASK, flow, value, size);
}
/* With a second number: a size; for a range its length. 24 bytes while value < 2^44 and size < 2^20. */
OJO__INLINE void ojo_record_sized(ojo_tracer *t, uint32_t flow, uint32_t type, uint64_t value,
                                  uint64_t size) {
  ojo__record_sized(t, 0, flow, type, value, size);
}
OJO__INLINE void ojo_record_sized_at(ojo_tracer *t, uint64_t time, uint32_t flow, uint32_t type,
                                     uint64_t value, uint64_t size) {
  ojo__record_sized(t, ojo__raw(time), flow, type, value, size);
}
/* With up to 6,120 bytes, laid out as the type's value kind says; longer: dropped and counted. */
OJO__INLINE void ojo_record_ext(ojo_tracer *t, uint32_t flow, uint32_t type, uint64_t payload,
                                const void *bytes, size_t length) {
  if (ojo__wanted(t, type, flow)) ojo__ext(t, 0, type & OJO_TYPE_MASK, flow, payload, bytes, length);
}
OJO__INLINE void ojo_record_ext_at(ojo_tracer *t, uint64_t time, uint32_t flow, uint32_t type,
                                   uint64_t payload, const void *bytes, size_t length) {
  if (ojo__wanted(t, type, flow))
    ojo__ext(t, ojo__raw(time), type & OJO_TYPE_MASK, flow, payload, bytes, length);
}
/* RETRANSMIT_OLD and RETRANSMIT_NEW as one: links between numbers. Record SENT and LOST as well. */
OJO__INLINE void ojo_packet_retransmit(ojo_tracer *t, uint32_t flow, uint64_t old_number,
                                       uint64_t new_number) {
  if (ojo__wanted(t, OJO_PACKET_RETRANSMIT_OLD, flow)) ojo__retransmit(t, 0, flow, old_number, new_number);
}
OJO__INLINE void ojo_packet_retransmit_at(ojo_tracer *t, uint64_t time, uint32_t flow, uint64_t old_number,
                                          uint64_t new_number) {
  if (ojo__wanted(t, OJO_PACKET_RETRANSMIT_OLD, flow))
    ojo__retransmit(t, ojo__raw(time), flow, old_number, new_number);
}

/* ---- flows, and what follows from the calls above ---------------------------------------------- */

/* A child flow's id, from its parent's and a key: 1..15 packet number spaces, 16 + path id (below 48),
 * 64 + stream id. A pure function, never 0, except that child(0, key) is 0. Children have bit 30 set and
 * the low 10 bits of their root; the other 20 are a permutation of the key's low 20 bits, chosen by the
 * parent (odd multiplier, offset, xor-shift: each step invertible), so that siblings with keys in one
 * range of 2^20 never collide. */
OJO__INLINE uint32_t ojo_flow_child(uint32_t parent, uint64_t key) {
  if (parent == 0) return 0;
  uint32_t seed = parent * 0x9E3779B1u ^ (uint32_t)(key >> 20) * 0x85EBCA6Bu ^ (uint32_t)(key >> 52);
  seed = (seed ^ seed >> 15) * 0x2C1B3C6Du;
  seed ^= seed >> 13;
  uint32_t mixed = ((uint32_t)key * (seed | 1u) + (seed >> 12)) & 0xFFFFFu;
  mixed ^= mixed >> 10;
  return 0x40000000u | mixed << 10 | (parent & 1023u);
}

/* Opens a stream's flow: records STREAM_OPENED and STREAM_LINK_PARENT on it and gives its id. */
OJO__INLINE uint32_t ojo_flow_stream_at(ojo_tracer *t, uint64_t time, uint32_t parent, uint64_t stream_id) {
  uint32_t flow = ojo_flow_child(parent, stream_id + 64u);
  ojo_record_at(t, time, flow, OJO_STREAM_OPENED, stream_id);
  ojo_record_at(t, time, flow, OJO_STREAM_LINK_PARENT, parent);
  return flow;
}
OJO__INLINE uint32_t ojo_flow_stream(ojo_tracer *t, uint32_t parent, uint64_t stream_id) {
  return ojo_flow_stream_at(t, ojo_now(t), parent, stream_id);
}

/* CONNECTION_CLOSED with who closed it, whose error code it is, and a reason (NULL: none; cut at 255). */
OJO__INLINE void ojo_connection_closed_full_at(ojo_tracer *t, uint64_t time, uint32_t flow, uint64_t error,
                                               ojo_closed_by by, bool application, const char *reason) {
  unsigned char bytes[4 + 255] = {0, 0, 0, 0};
  size_t length = 0;
  for (; reason && length < 255 && reason[length]; length++) bytes[4 + length] = (unsigned char)reason[length];
  bytes[0] = (unsigned char)by;
  bytes[1] = application;
  bytes[2] = (unsigned char)length;
  ojo_record_ext_at(t, time, flow, OJO_CONNECTION_CLOSED, error, bytes, 4 + length);
}
/* Records that we closed a connection, with a transport error code (0: clean). For a stream record
 * ojo_stream_closed instead. */
OJO__INLINE void ojo_flow_close(ojo_tracer *t, uint32_t flow, uint64_t error, const char *reason) {
  ojo_connection_closed_full_at(t, ojo_now(t), flow, error, OJO_CLOSED_BY_US, false, reason);
}

/* RTT_SAMPLE with the estimator's values; ojo_rtt_sample records the latest alone. */
OJO__INLINE void ojo_rtt_sample_full_at(ojo_tracer *t, uint64_t time, uint32_t flow, uint64_t latest_ns,
                                        uint64_t smoothed_ns, uint64_t min_ns, uint64_t variation_ns) {
  ojo_rtt rtt;
  rtt.smoothed_ns = smoothed_ns;
  rtt.min_ns = min_ns;
  rtt.variation_ns = variation_ns;
  ojo_record_ext_at(t, time, flow, OJO_RTT_SAMPLE, latest_ns, &rtt, sizeof rtt);
}

/* One event for each field that differs between *last and *now and is known; then *last = *now. The four
 * RTT fields are one RTT_SAMPLE. Keep one `last` per flow, zero at first. */
OJO__INLINE void ojo_metrics_at(ojo_tracer *t, uint64_t time, uint32_t flow, ojo_metrics_values *last,
                                const ojo_metrics_values *now) {
  if (now->cwnd != last->cwnd && now->cwnd) ojo_record_at(t, time, flow, OJO_CWND_UPDATED, now->cwnd);
  if (now->ssthresh != last->ssthresh && now->ssthresh && now->ssthresh != UINT64_MAX)
    ojo_record_at(t, time, flow, OJO_SSTHRESH_UPDATED, now->ssthresh);
  if (now->bytes_in_flight != last->bytes_in_flight)
    ojo_record_at(t, time, flow, OJO_BYTES_IN_FLIGHT, now->bytes_in_flight);
  if (now->latest_rtt_ns && (now->latest_rtt_ns != last->latest_rtt_ns ||
                             now->smoothed_rtt_ns != last->smoothed_rtt_ns ||
                             now->min_rtt_ns != last->min_rtt_ns ||
                             now->rtt_variation_ns != last->rtt_variation_ns))
    ojo_rtt_sample_full_at(t, time, flow, now->latest_rtt_ns, now->smoothed_rtt_ns, now->min_rtt_ns,
                           now->rtt_variation_ns);
  if (now->pacing_rate != last->pacing_rate && now->pacing_rate)
    ojo_record_at(t, time, flow, OJO_PACING_RATE, now->pacing_rate);
  *last = *now;
}
OJO__INLINE void ojo_metrics(ojo_tracer *t, uint32_t flow, ojo_metrics_values *last,
                             const ojo_metrics_values *now) {
  ojo_metrics_at(t, ojo_now(t), flow, last, now);
}

/* The 64-bit number whose low `bits` (1..64) are `wire` and which is nearest to last + 1, where `last` is
 * the greatest number seen so far. RFC 9000, appendix A.3, without its limit of 2^62. Pure. */
OJO__INLINE uint64_t ojo_unwrap(uint64_t last, uint64_t wire, unsigned bits) {
  if (bits == 0 || bits >= 64) return wire;
  uint64_t window = UINT64_C(1) << bits, half = window / 2, expected = last + 1;
  uint64_t candidate = (expected & ~(window - 1)) | (wire & (window - 1));
  if (candidate < expected && expected - candidate >= half && candidate <= UINT64_MAX - window)
    return candidate + window;
  if (candidate > expected && candidate - expected > half && candidate >= window) return candidate - window;
  return candidate;
}

/* ---- the typed helpers: ojo_packet_sent and so on, from OJO_EVENTS ------------------------------ */

#define OJO__PLAIN(NAME, helper, payload)                                                              \
  OJO__INLINE void ojo_##helper(ojo_tracer *t, uint32_t flow, uint64_t payload) {                      \
    ojo_record(t, flow, OJO_##NAME, payload);                                                          \
  }                                                                                                    \
  OJO__INLINE void ojo_##helper##_at(ojo_tracer *t, uint64_t time, uint32_t flow, uint64_t payload) {  \
    ojo_record_at(t, time, flow, OJO_##NAME, payload);                                                 \
  }
#define OJO__WITH_SIZE(NAME, helper, payload, size)                                                    \
  OJO__PLAIN(NAME, helper, payload)                                                                    \
  OJO__INLINE void ojo_##helper##_sized(ojo_tracer *t, uint32_t flow, uint64_t payload, uint64_t size) { \
    ojo_record_sized(t, flow, OJO_##NAME, payload, size);                                              \
  }                                                                                                    \
  OJO__INLINE void ojo_##helper##_sized_at(ojo_tracer *t, uint64_t time, uint32_t flow,                \
                                           uint64_t payload, uint64_t size) {                          \
    ojo_record_sized_at(t, time, flow, OJO_##NAME, payload, size);                                     \
  }
#define OJO__HELPERS_NONE(NAME, helper, payload, size) OJO__PLAIN(NAME, helper, payload)
#define OJO__HELPERS_RECORD(NAME, helper, payload, size) OJO__PLAIN(NAME, helper, payload)
#define OJO__HELPERS_NUMBER(NAME, helper, payload, size) OJO__WITH_SIZE(NAME, helper, payload, size)
#define OJO__HELPERS_RANGE(NAME, helper, payload, size) OJO__WITH_SIZE(NAME, helper, payload, size)
#define OJO__X(value, NAME, helper, category, KIND, payload, size) \
  OJO__HELPERS_##KIND(NAME, helper, payload, size)
OJO_EVENTS(OJO__X)
#undef OJO__X

#ifdef __cplusplus
}
#endif
#endif /* OJO_H */

/* ---- hashes: what both implementations share; outside the guards above, behind its own ----------- */

#if (defined(OJO_IMPLEMENTATION) || defined(OJO_READER_IMPLEMENTATION)) && !defined(OJO__HASH_GUARD)
#define OJO__HASH_GUARD

/* FNV-1a, 64 bits: proves a schema. */
static OJO__UNUSED uint64_t ojo__fnv1a(const void *data, size_t bytes) {
  const unsigned char *p = (const unsigned char *)data;
  uint64_t hash = UINT64_C(0xcbf29ce484222325);
  for (size_t i = 0; i < bytes; i++) hash = (hash ^ p[i]) * UINT64_C(0x100000001b3);
  return hash;
}

/* CRC32C (Castagnoli), by half bytes: where the processor has no instruction for it. 16 constants instead
 * of a table of 1 KiB that somebody would have to initialise. */
static OJO__UNUSED uint32_t ojo__crc32c_soft(uint32_t crc, const unsigned char *p, size_t bytes) {
  static const uint32_t half[16] = {0x00000000u, 0x105ec76fu, 0x20bd8edeu, 0x30e349b1u, 0x417b1dbcu, 0x5125dad3u,
                                    0x61c69362u, 0x7198540du, 0x82f63b78u, 0x92a8fc17u, 0xa24bb5a6u, 0xb21572c9u,
                                    0xc38d26c4u, 0xd3d3e1abu, 0xe330a81au, 0xf36e6f75u};
  for (size_t i = 0; i < bytes; i++) {
    crc ^= p[i];
    crc = half[crc & 15u] ^ crc >> 4;
    crc = half[crc & 15u] ^ crc >> 4;
  }
  return crc;
}

#if defined(__x86_64__) && defined(__GNUC__)
__attribute__((target("sse4.2"))) static OJO__UNUSED uint32_t ojo__crc32c_hard(uint32_t crc,
                                                                               const unsigned char *p,
                                                                               size_t bytes) {
  uint64_t wide = crc;
  for (; bytes >= 8; p += 8, bytes -= 8) {
    uint64_t word;
    __builtin_memcpy(&word, p, 8);
    wide = (uint64_t)__builtin_ia32_crc32di((unsigned long long)wide, (unsigned long long)word);
  }
  crc = (uint32_t)wide;
  for (; bytes; p++, bytes--) crc = __builtin_ia32_crc32qi(crc, *p);
  return crc;
}
#endif

/* CRC32C of `bytes` bytes after those that gave `crc` (0 at first): crc32c(crc32c(0, a), b) is that of ab. */
static OJO__UNUSED uint32_t ojo__crc32c(uint32_t crc, const void *data, size_t bytes) {
  const unsigned char *p = (const unsigned char *)data;
#if defined(__x86_64__) && defined(__GNUC__)
  if (__builtin_cpu_supports("sse4.2")) return ~ojo__crc32c_hard(~crc, p, bytes);
#endif
  return ~ojo__crc32c_soft(~crc, p, bytes);
}
#endif /* OJO__HASH_GUARD */

/* ---- the pool and what makes files of it: what the tracer, recovery and the reader of a dead pool share */

#if (defined(OJO_IMPLEMENTATION) || defined(OJO_READER_IMPLEMENTATION)) && !defined(OJO_DISABLE) && \
    !defined(OJO__IMAGE_GUARD)
#define OJO__IMAGE_GUARD

#if !defined(__linux__) || !defined(__LP64__) || __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "ojo.h records on 64-bit little-endian Linux; define OJO_DISABLE elsewhere"
#endif

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/syscall.h>
#include <dirent.h>
#include <time.h>
#include <unistd.h>
#if defined(__x86_64__)
#include <cpuid.h>
#endif

#if !defined(MAP_ANONYMOUS) || !defined(O_NOFOLLOW)
#ifdef OJO_IMPLEMENTATION /* the reader's says it by itself */
#error "ojo.h: a libc header came before it under strict -std=c11: include ojo.h first, or define _DEFAULT_SOURCE"
#endif
#else /* to the end: one error, not a hundred */
#define OJO__IMAGE

#ifndef OJO_ASSERT
#include <assert.h>
#define OJO_ASSERT(x) assert(x)
#endif

#ifdef __cplusplus
extern "C" {
#define OJO__STATIC_ASSERT(x, name) static_assert(x, #name)
#else
#define OJO__STATIC_ASSERT(x, name) _Static_assert(x, #name)
#endif
OJO__STATIC_ASSERT(sizeof(ojo_event) == 24 && offsetof(ojo_event, type) == 8 &&
                   offsetof(ojo_event, flow) == 12 && offsetof(ojo_event, payload) == 16, event_layout);
OJO__STATIC_ASSERT(sizeof(ojo_file_header) == 144 && offsetof(ojo_file_header, start_unix_ns) == 8 &&
                   offsetof(ojo_file_header, schema_id) == 16 &&
                   offsetof(ojo_file_header, header_bytes) == 24 &&
                   offsetof(ojo_file_header, start_monotonic_ns) == 32 &&
                   offsetof(ojo_file_header, trace_id) == 40 && offsetof(ojo_file_header, pid) == 56 &&
                   offsetof(ojo_file_header, batch) == 64 && offsetof(ojo_file_header, boot_id) == 96 &&
                   offsetof(ojo_file_header, command) == 112 && offsetof(ojo_file_header, host_id) == 128 &&
                   offsetof(ojo_file_header, crc) == 140, header_layout);
OJO__STATIC_ASSERT(sizeof(ojo_run) == 48 && offsetof(ojo_run, tid) == 16 && offsetof(ojo_run, events) == 24 &&
                   offsetof(ojo_run, lost_before) == 32, run_layout);
OJO__STATIC_ASSERT(sizeof(ojo_dropped) == 24 && sizeof(ojo_rtt) == 24, extension_layout);
OJO__STATIC_ASSERT(sizeof(ojo_kernel_connection) == 72 && offsetof(ojo_kernel_connection, local_port) == 12 &&
                   offsetof(ojo_kernel_connection, netns) == 20 && offsetof(ojo_kernel_connection, local) == 40 &&
                   sizeof(ojo_kernel_totals) == 48, kernel_layout);
OJO__STATIC_ASSERT(sizeof(ojo_flow_record) == 24 && offsetof(ojo_flow_record, local_port) == 8,
                   flow_layout);
OJO__STATIC_ASSERT(sizeof(struct ojo__chunk) == 64, chunk_layout);

/* Atomics: each use says which store its load pairs with. */
#define OJO__LOAD(p) __atomic_load_n((p), __ATOMIC_ACQUIRE)
#define OJO__PEEK(p) __atomic_load_n((p), __ATOMIC_RELAXED)
#define OJO__STORE(p, v) __atomic_store_n((p), (v), __ATOMIC_RELEASE)
#define OJO__SET(p, v) __atomic_store_n((p), (v), __ATOMIC_RELAXED)
#define OJO__ADD(p, v) __atomic_fetch_add((p), (v), __ATOMIC_ACQ_REL)
#define OJO__COMPILER_BARRIER() __asm__ volatile("" ::: "memory")

/* Macros, so that the tests need not wait so long. */
#ifndef OJO__WAIT_MS
#define OJO__WAIT_MS 10000 /* ojo_flush and ojo_close give up after */
#endif
#ifndef OJO__IDLE_MS
#define OJO__IDLE_MS 3000 /* chunks that nobody needed for so long give their pages back */
#endif
enum {
  OJO__LEVELS = 3,          /* a record, one that interrupts it, one that interrupts that */
  OJO__CONTEXTS = 4,        /* tracers whose leases a thread keeps at hand */
  OJO__THREADS_MAX = 16384, /* that hold or queue chunks at one time */
  OJO__THREADS_AHEAD = 64,  /* thread entries populated ahead */
  OJO__LOOK = 64,           /* of them looked at for the oldest chunk */
  OJO__ANCHORS_MAX = 4096,
  OJO__NESTED_CHUNKS = 16,  /* kept back for nested records while outer ones block */
  OJO__CHUNKS_MIN = 4,
  OJO__SCHEMA_BYTES_MAX = 64 << 20,
  OJO__BUFFER_BYTES = 1 << 20, /* of slots, converted on their way to the file */
  OJO__BUFFERS = 4,            /* one is filled while others are written; a power of two, since counts wrap */
  OJO__BLOCK_BYTES = 4096,     /* of a file: O_DIRECT wants offsets, lengths and addresses to be multiples of it */
  OJO__DIRECT_MB_MIN = 500,    /* a second: a disk slower than this is written through the page cache */
  OJO__DIRECT_JUDGED = 4 << 20, /* bytes after which that is known */
  OJO__DIRECT_REST = 64,       /* files written so before another try */
  OJO__CRASH_WAIT_MS = 3000, /* a crash handler does */
  OJO__POOL_VERSION = 3,    /* changes with any struct of the pool */
  OJO__KINDS = 8,           /* of trouble whose log lines are held back for a minute */
  OJO__QUARANTINE = 32      /* closed tracers whose addresses are not used again yet */
};
enum { OJO__FUTEX_WAIT = 128, OJO__FUTEX_WAKE = 129 }; /* private; <linux/futex.h> is not everywhere */
/* The low 3 bits of ojo__chunk.lease: a state, and in a flight recorder perhaps a pin of a snapshot. PARKED:
 * taken off its chain to be overwritten, found pinned, and left to the snapshot to give back. */
enum { OJO__FREE = 0, OJO__LEASED = 1, OJO__FULL = 2, OJO__PARKED = 3, OJO__STATE = 3 };
enum { OJO__PINNED = 4, OJO__LEASE_SHIFT = 3 };
enum { OJO__THREAD_FREE = 0, OJO__THREAD_LIVE = 1, OJO__THREAD_EXITED = 2 };
enum { OJO__CHUNK_HANDED = 1 };                                  /* ojo__chunk.flags */
#define OJO__HANDED_END 0x80000000u /* no more transfers come. The counts are modulo this */
#define OJO__BUFFER_ROOM (OJO__BUFFER_BYTES + 2u * OJO__BLOCK_BYTES) /* both of its ends within a block */
#if defined(O_DIRECT)
#define OJO__O_DIRECT O_DIRECT
#elif defined(__O_DIRECT) /* glibc without _GNU_SOURCE */
#define OJO__O_DIRECT __O_DIRECT
#elif defined(__x86_64__) || defined(__i386__) /* musl without it */
#define OJO__O_DIRECT 040000
#elif defined(__aarch64__) || defined(__arm__)
#define OJO__O_DIRECT 0200000
#else
#define OJO__O_DIRECT 0
#endif
#ifdef SO_COOKIE
#define OJO__SO_COOKIE SO_COOKIE
#else
#define OJO__SO_COOKIE 57 /* an older libc's headers */
#endif
#define OJO__LIST_INDEX 0xFFFFFFu /* a list's head: tag << 24 | index + 1 */
#define OJO__NONE UINT32_MAX

/* One (thread, level)'s counts. The owner alone writes the first half, the flusher the second. */
struct ojo__level {
  uint64_t chain;    /* flight recorder: its chunks, oldest first; tag << 24 | index + 1. See >>recorder */
  uint64_t attempts; /* in chunks handed off, and lost */
  uint64_t lost;     /* release; the flusher's acquire makes the times and reason before it visible */
  uint64_t lost_first, lost_last; /* raw times of the losses that the flusher has not taken */
  uint64_t reason;
  uint64_t lost_taken; /* flusher: `lost` as last reported; the owner then starts a new gap */
  uint64_t ordinal_published, ordinal_harvested, lost_published, lost_harvested;
  uint64_t told_published, told_harvested; /* end of the last gap told, ts */
  uint64_t batch;
  uint64_t overwritten; /* flight recorder: as told in the file under way */
  uint64_t newest; /* the chain's end: index + 1. Owner */
  uint64_t failed; /* times in a row that there was no chunk for it. Owner */
  uint64_t seen_attempts, seen_lost; /* flight recorder: when the snapshot under way began */
};
struct ojo__thread {
  uint32_t number; /* unique in the trace; 0: entry is free */
  uint32_t tid;
  char name[16];
  uint64_t first_raw; /* when first seen */
  uint64_t serial;    /* unique in the process */
  uint32_t state;
  uint32_t chunks;    /* leased or queued: owners add, the flusher subtracts */
  uint64_t batch;     /* flusher: the last that has its THREAD */
  uint32_t next;
  uint32_t evicted;   /* its thread keeps no context for it, and won't tell of its end */
  struct ojo__level level[OJO__LEVELS + 1]; /* the last: records nested too deep; only `lost` */
};
struct ojo__anchor {
  uint64_t tick, ns;
};
/* Events that went unwritten after they were accepted, with no thread's entry left to tell it: with files that
 * were deleted for disk_bytes_max, or in a flight recorder the last chunk of a thread that had ended. */
struct ojo__gone {
  uint64_t events, lost;       /* all of them; of their threads' own losses, those that only they told */
  uint64_t first_ts, last_ts;  /* of the files deleted; a flight recorder's: 0, and as last_raw */
  uint64_t last_raw;
  uint64_t events_published, events_harvested, lost_published, lost_harvested; /* told so far */
};

/* The pool: this header, anchors, thread table, chunk headers, chunks, at the offsets that it names. It
 * is all that recovery needs: nothing that must survive a crash lives elsewhere. */
struct ojo__pool {
  char magic[8];
  uint32_t version, chunk_count;
  uint64_t bytes, anchors_at, threads_at, chunks_at, data_at, schema_at;
  ojo_file_header file; /* of every batch; slot counts and times are filled in per batch */
  uint64_t process_start;
  char dir[PATH_MAX];   /* absolute */
  char staging_name[64], output_name[64]; /* of open_batch; stored before it */
  uint64_t anchor_count;
  uint64_t open_batch, batch_published; /* from 1; see >>writer */
  uint64_t line_free[8];  /* [0]: free chunks, [1]: those kept back for nested levels, [2]: free ones whose
                             pages were given back, [3]: how many these are. A cache line */
  uint64_t line_full[8];  /* [0]: index + 1 of the newest full chunk */
  uint64_t line_fresh[8]; /* [0]: chunks ever taken, [1]: populated ahead, [2]: of those kept back */
  uint64_t line_lease[8]; /* [0]: leases given, [1]: chunks in use, [2]: bytes queued */
  uint64_t threads_free, threads_fresh, thread_number;
  uint64_t batches;         /* published: the next file's number */
  uint64_t last_number;     /* of the file that is being renamed, or was last: a crash in between shows */
  struct ojo__level nobody; /* losses of threads without an entry: thread 0's */
  struct ojo__gone gone;
  struct {                  /* the file that is being deleted, and what `gone` is once it is */
    uint64_t events, lost, first_ts, last_ts, under_way;
    char name[64];
  } going;
  uint64_t overflow;        /* ojo_overflow */
  uint64_t line_recorder[8]; /* flight recorder. [1]: threads alive, [2]: entries of threads that ended, [3]: where
                                the search for the oldest of these goes on, [4]: whose entry is being retired, a
                                lock; [7]: likewise, once [5], [6] hold gone.events and gone.lost from before */
};

struct ojo__published { /* a batch in output/, for disk_bytes_max */
  char name[64];
  uint64_t bytes, events, deleted, lost, first_ts, last_ts;
};
struct ojo__batch { /* the one being written */
  int fd;            /* -1: none */
  int error;         /* errno of what failed; 0: nothing has */
  const char *failed; /* the step that did */
  bool direct;        /* the file is open for writes past the page cache */
  uint64_t direct_ns, direct_bytes; /* such writes took, and wrote */
  uint64_t number, us, offset, slots, events, lost, deleted, first_ts, last_ts;
  char name[64];      /* in staging/ */
};
struct ojo__transfer { /* bytes on their way to a file */
  int fd, error;       /* 0, or errno of what ended it */
  bool direct;         /* past the page cache */
  const unsigned char *bytes;
  size_t length, left;
  uint64_t at, ns;
};
struct ojo__noted { /* a chunk, as a pass, a snapshot or a recoverer found it */
  uint32_t index, thread, level;
  bool pinned;
  uint64_t lease, committed, ordinal;
};

struct ojo__kind { /* of trouble, that was logged */
  uint32_t kind;
  uint64_t until; /* ns: it is not logged again before */
};

struct ojo__core {
  ojo_tracer *t;
  struct ojo__core *next; /* of all ever made; never taken out */
  uint64_t closed;        /* order of closing; 0: open or being opened */
  ojo_desc desc;
  char *dir, path[PATH_MAX]; /* as given; absolute */
  ojo_type *types;        /* value and value_kind only */
  size_t type_count;
  char *schema;
  struct ojo__pool *pool;
  struct ojo__anchor *anchors;
  struct ojo__thread *threads;
  struct ojo__chunk *chunks;
  unsigned char *data;
  uint64_t map_bytes, schema_at;
  uint32_t chunk_count, nested_count; /* the last nested_count chunks are for nested levels under BLOCK */
  int pool_fd, lock_fd, staging_fd, output_fd;
  char pool_path[128], link_name[64];
  bool crash_safe, closing, recovering;
  bool dump, mute; /* ojo_dump_on_crash; in a signal handler: no logging */
  uint32_t crashed, signalled; /* a handler asks for a snapshot */
  uint32_t snapshotting; /* threads' entries are not retired meanwhile */
  uint64_t snapshots;
  char beside[PATH_MAX + 64]; /* a snapshot's file while it is written. Not on the stack: a sigaltstack is small */
  bool kept; /* closed with events that could not be written: the pool stays, as after a crash */
  pid_t pid;
  pthread_t thread;
  pthread_mutex_t pass_lock, retire_lock;
  pthread_mutex_t bind_lock; /* also held while the hook is called */
  void (*bind_hook)(void *user, uint32_t flow, uint64_t cookie, int fd);
  void *bind_user;
  uint32_t pass_tid; /* who holds pass_lock: a logger that flushes would wait for itself. Relaxed: only the thread
                        that stored its own number can find it */
  uint32_t wake, sleeping, stop, freed, waiters; /* futexes and their flags */
  uint32_t reserve_low; /* why a recorder woke the flusher, unless there is more for it to do. Relaxed */
  uint32_t requested, done, ended;               /* ojo_flush calls; done is a futex */
  uint32_t crash_request;
  /* the flusher's, under pass_lock */
  unsigned char *blocks, *buffer; /* memory, and the buffer in it: see ojo__buffer_empty */
  size_t buffer_used;
  struct ojo__transfer transfer[OJO__BUFFERS];
  uint32_t handed, written_parts, seen_parts; /* see ojo__writer. The last: those that the flusher has looked at */
  uint32_t flusher_tid;           /* relaxed, as pass_tid */
  bool writer_runs;
  pthread_t writer;
  uint32_t direct_rest; /* files to write through the page cache, before O_DIRECT is tried again */
  bool (*hand_over)(struct ojo__core *core, const struct ojo__transfer *w); /* NULL: there is no flusher */
  unsigned char *copy; /* recovery: a chunk's bytes, which nobody else can change */
  ojo_file_header file; /* of every batch; the pool has the copy that recovery needs */
  struct ojo__batch batch;
  struct ojo__noted *noted;
  uint32_t noted_count, noted_room; /* room: of a dead pool */
  uint32_t queue_head, queue_next, queue_tail; /* full chunks in order; before queue_next: in the batch */
  uint64_t batch_target, sequence;
  uint64_t peak, peak_since; /* chunks in use, ns */
  uint64_t threads_seen;
  uint64_t anchor_error;
  bool anchor_idle, clock_left;
  struct ojo__anchor from; /* the segment of the clock's line that is in use */
  uint64_t segment_ticks, segment_mult;
  struct ojo__published *published;
  size_t published_count, published_room;
  uint64_t published_bytes;
  struct ojo__kind kinds[OJO__KINDS];
  bool logged; /* that writing fails, and not yet that it works again */
  uint64_t retired_recorded, retired_lost;
  uint64_t told; /* losses that ojo_events_dropped_at was told of. Relaxed */
  /* counts for ojo_query_stats: relaxed atomics */
  uint64_t written, bytes, write_errors, deleted, flush_ns_max;
};

/* ---- >>clock ------------------------------------------------------------------------------------ */

static uint64_t ojo__clock_ns(clockid_t id) {
  struct timespec ts;
  clock_gettime(id, &ts);
  return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

/* The counter went back, as when a virtual machine is restored on another: what it says from here on can't
 * be told from what it said before. Recorders read t->clock relaxed, and change over at some later record. */
static void ojo__clock_leave(struct ojo__core *core) {
  core->clock_left = true; /* the flusher says so: see ojo__pass */
  OJO__SET(&core->t->clock, (uint32_t)OJO_CLOCK_MONOTONIC);
  core->desc.clock = OJO_CLOCK_MONOTONIC;
  core->pool->file.clock = core->file.clock = OJO_CLOCK_MONOTONIC;
}

/* A tick and the CLOCK_MONOTONIC ns of the same moment: the narrowest of 8 brackets. Anchors must be
 * taken AFTER the limits of a harvest are noted, so that every tick harvested lies before the last one:
 * then times are interpolated, and a tick maps to the same ns in every batch. Calibrating per batch and
 * extrapolating made half of all batch boundaries step back. With !keep nothing is
 * harvested: of such anchors in a row only the last stays, so that after idle hours the line is young. */
static void ojo__anchor_take(struct ojo__core *core, bool keep) {
  struct ojo__pool *pool = core->pool;
  struct ojo__anchor best = {0, 0}, last;
  uint64_t width = UINT64_MAX, count = pool->anchor_count;
  if (core->file.clock < OJO_CLOCK_TSC) return; /* ns are stored as they are */
  if (count > OJO__ANCHORS_MAX) count = OJO__ANCHORS_MAX; /* a dead tracer's, that somebody writes to */
  if (!keep && core->anchor_idle && count > 1) { /* idle still: this one takes the last one's place */
    count--;
    core->segment_ticks = 0;
  }
  core->anchor_idle = !keep;
  for (int i = 0; i < 8; i++) {
    uint64_t before = ojo__tick(), ns = ojo__clock_ns(CLOCK_MONOTONIC), after = ojo__tick();
    if (after - before >= width) continue;
    width = after - before;
    best.tick = before + width / 2;
    best.ns = ns;
  }
  if (count) {
    last = core->anchors[count - 1];
    if (best.tick <= last.tick && best.ns > last.ns + 1000000u && !core->recovering) ojo__clock_leave(core);
    if (best.tick <= last.tick || best.ns <= last.ns) return; /* clock has not moved: keep it monotone */
    uint64_t error = (uint64_t)((double)width / 2 * (double)(best.ns - last.ns) /
                                (double)(best.tick - last.tick));
    if (error > core->anchor_error) core->anchor_error = error;
  }
  if (count == OJO__ANCHORS_MAX) { /* thin by halves: old times stay known, to some ns less */
    for (uint64_t i = 1; i <= count / 2; i++) core->anchors[i] = core->anchors[2 * i - 1]; /* keeps the last */
    count = count / 2 + 1;
    core->segment_ticks = 0;
  }
  core->anchors[count] = best;
  OJO__STORE(&pool->anchor_count, count + 1); /* a recoverer reads it after the anchors */
}

/* Finds the segment between two anchors that holds a tick, for ojo__to_ts. */
static void ojo__segment(struct ojo__core *core, uint64_t tick) {
  const struct ojo__anchor *a = core->anchors;
  uint64_t low = 0, high = core->pool->anchor_count;
  if (high > OJO__ANCHORS_MAX) high = OJO__ANCHORS_MAX; /* as in ojo__anchor_take */
  if (!high) return; /* not a tick of ours: a stamp of another clock. segment_ticks, mult are 0 */
  high--;
  while (high - low > 1) {
    uint64_t middle = (low + high) / 2;
    if (a[middle].tick <= tick) low = middle;
    else high = middle;
  }
  struct ojo__anchor from = a[low], to = a[high];
  if (to.tick <= from.tick) { /* one anchor: nothing was harvested yet */
    core->from = from;
    core->segment_ticks = 0;
    core->segment_mult = 0;
    return;
  }
  __extension__ typedef unsigned __int128 wide;
  core->from = from;
  core->segment_ticks = to.tick - from.tick;
  core->segment_mult = (uint64_t)(((wide)(to.ns - from.ns) << 40) / core->segment_ticks);
}

/* A stored time to ns since the trace's start. */
OJO__INLINE uint64_t ojo__to_ts(struct ojo__core *core, uint64_t raw) {
  __extension__ typedef unsigned __int128 wide;
  uint64_t ns, start = core->file.start_monotonic_ns;
  if (raw & OJO__NS_BIT) {
    ns = raw & ~OJO__NS_BIT;
  } else {
    if (OJO__UNLIKELY(raw - core->from.tick >= core->segment_ticks)) ojo__segment(core, raw);
    /* Cores differ by a few ticks: one before the first anchor counts as it, one past the last goes on. */
    uint64_t ticks = raw > core->from.tick ? raw - core->from.tick : 0;
    ns = core->from.ns + (uint64_t)(((wide)ticks * core->segment_mult) >> 40);
  }
  return ns > start ? ns - start : 0;
}

/* ---- >>image ------------------------------------------------------------------------------------ */

static uint64_t ojo__round_up(uint64_t n, uint64_t to) { return (n + to - 1) / to * to; }

/* Thread entries ever used. Never more than the table has, whoever writes to a dead tracer's pool. */
static uint64_t ojo__threads(const struct ojo__core *core) {
  uint64_t fresh = OJO__LOAD(&core->pool->threads_fresh);
  return fresh < OJO__THREADS_MAX ? fresh : (uint64_t)OJO__THREADS_MAX;
}

static bool ojo__batch_failed(struct ojo__core *core, const char *step) {
  if (!core->batch.error) {
    core->batch.error = errno ? errno : EIO;
    core->batch.failed = step;
  }
  return false;
}

static long ojo__futex(uint32_t *word, int op, uint32_t value, const struct timespec *timeout) {
  return syscall(SYS_futex, word, op, value, timeout, NULL, 0);
}
/* Waits while *word is `value`, at most ns; returns early too. */
static void ojo__futex_wait(uint32_t *word, uint32_t value, uint64_t ns) {
  struct timespec ts;
  ts.tv_sec = (time_t)(ns / 1000000000u);
  ts.tv_nsec = (long)(ns % 1000000000u);
  ojo__futex(word, OJO__FUTEX_WAIT, value, &ts);
}

/* Big batches go past the page cache (O_DIRECT) where that works: it costs a tenth of the CPU time, and what the
 * program has in the cache stays there. What is no whole block goes through the cache: a batch's two ends. The
 * flusher has a thread of its own write such blocks while it converts the next ones (see ojo__writer); whoever else
 * writes a file, in a caller's thread or in recovery, would wait for the disk, and writes through the cache. */
static bool ojo__may_hand_over(const struct ojo__core *core) {
  uint32_t flusher = OJO__PEEK(&core->flusher_tid);
  return core->hand_over && flusher && OJO__PEEK(&core->pass_tid) == flusher && !core->direct_rest;
}
static void ojo__direct(struct ojo__core *core, bool on) {
  if (core->batch.direct == on) return;
  core->batch.direct = on && fcntl(core->batch.fd, F_SETFL, OJO__O_DIRECT) == 0;
  if (!on) fcntl(core->batch.fd, F_SETFL, 0);
  else if (!core->batch.direct) core->direct_rest = OJO__DIRECT_REST; /* the filesystem can't */
}

static void ojo__transfer_do(struct ojo__transfer *w) {
  uint64_t start = ojo__clock_ns(CLOCK_MONOTONIC);
  w->error = 0;
  while (w->left && !w->error) {
    ssize_t done = pwrite(w->fd, w->bytes, w->left, (off_t)w->at);
    if (done < 0 && errno == EINTR) continue;
    if (done <= 0) {
      w->error = done && errno ? errno : EIO; /* no progress, and no reason given */
      continue;
    }
    w->bytes += done;
    w->left -= (size_t)done;
    w->at += (uint64_t)done;
  }
  w->ns = ojo__clock_ns(CLOCK_MONOTONIC) - start;
}

static bool ojo__transferred(struct ojo__core *core, struct ojo__transfer *w) {
  struct ojo__batch *b = &core->batch;
  if (w->direct) {
    b->direct_ns += w->ns;
    b->direct_bytes += w->length - w->left;
    /* A disk that is slower than the page cache takes bytes gets the latter: then a burst need not wait for it. */
    if (b->direct_bytes >= OJO__DIRECT_JUDGED && b->direct_ns / 1000 > b->direct_bytes / OJO__DIRECT_MB_MIN)
      core->direct_rest = OJO__DIRECT_REST;
  }
  if (w->error == EINVAL && w->direct) { /* wants larger blocks, or stopped within one. Others may be under way */
    ojo__direct(core, false);
    core->direct_rest = OJO__DIRECT_REST;
    ojo__transfer_do(w);
  }
  errno = w->error;
  return w->error == 0 || ojo__batch_failed(core, "write a file");
}

/* Waits until at most `left` transfers are under way, and looks what became of the others. */
static bool ojo__hand_back(struct ojo__core *core, uint32_t left) {
  bool ok = true;
  uint32_t handed = OJO__PEEK(&core->handed), written;
  while (((handed - (written = OJO__LOAD(&core->written_parts))) & ~OJO__HANDED_END) > left) /* the writer's release */
    ojo__futex_wait(&core->written_parts, written, 1000000000u);
  for (; core->seen_parts != written; core->seen_parts = (core->seen_parts + 1) & ~OJO__HANDED_END)
    ok = ojo__transferred(core, &core->transfer[core->seen_parts % OJO__BUFFERS]) && ok;
  return ok;
}

/* Writes the buffer's bytes, if `direct` perhaps later, and others at once. One of the buffers is always the
 * flusher's. */
static bool ojo__write(struct ojo__core *core, const void *bytes, size_t length, uint64_t at, bool direct) {
  struct ojo__transfer w;
  if (!ojo__hand_back(core, direct && core->batch.direct ? OJO__BUFFERS - 2 : 0) || core->batch.error) return false;
  ojo__direct(core, direct && !core->direct_rest);
  memset(&w, 0, sizeof w);
  w.fd = core->batch.fd;
  w.bytes = (const unsigned char *)bytes;
  w.length = w.left = length;
  w.at = at;
  w.direct = core->batch.direct;
  if (w.direct && core->hand_over(core, &w)) return true;
  ojo__transfer_do(&w);
  return ojo__transferred(core, &w);
}

/* Empties the buffer, which then starts where batch.offset lies within its block. */
static void ojo__buffer_empty(struct ojo__core *core) {
  uintptr_t room = (uintptr_t)core->blocks + OJO__PEEK(&core->handed) % OJO__BUFFERS * (size_t)OJO__BUFFER_ROOM;
  core->buffer = (unsigned char *)(ojo__round_up(room, OJO__BLOCK_BYTES) + core->batch.offset % OJO__BLOCK_BYTES);
  core->buffer_used = 0;
}

/* Writes the buffer. Unless it is a batch's `last`, bytes behind its last whole block may stay in it. */
static bool ojo__buffer_write(struct ojo__core *core, bool last) {
  struct ojo__batch *b = &core->batch;
  uint64_t end = b->offset + core->buffer_used;
  uint64_t from = ojo__round_up(b->offset, OJO__BLOCK_BYTES), to = end - end % OJO__BLOCK_BYTES;
  if (!ojo__may_hand_over(core) || (last && !b->direct) || from >= to) from = to = end;
  const unsigned char *middle = core->buffer + (from - b->offset), *tail = core->buffer + (to - b->offset);
  bool ok = (from == b->offset || ojo__write(core, core->buffer, (size_t)(from - b->offset), b->offset, false)) &&
            (to == from || ojo__write(core, middle, (size_t)(to - from), from, true)) &&
            (!last || end == to || ojo__write(core, tail, (size_t)(end - to), to, false));
  size_t rest = ok && !last ? (size_t)(end - to) : 0;
  if (ok) b->offset = end - rest;
  ojo__buffer_empty(core);
  memmove(core->buffer, tail, rest);
  core->buffer_used = rest;
  return ok;
}

static void ojo__batch_zero(struct ojo__core *core, uint64_t number) {
  struct ojo__batch *b = &core->batch;
  memset(b, 0, sizeof *b);
  b->fd = -1;
  b->number = number;
  b->offset = core->file.header_bytes;
  b->first_ts = UINT64_MAX;
  b->us = ojo__clock_ns(CLOCK_MONOTONIC) / 1000;
  if (core->direct_rest) core->direct_rest--;
  ojo__buffer_empty(core);
}

/* A run under construction, at the end of the buffer. */
struct ojo__open_run {
  unsigned char *at;
  uint64_t least, greatest, last, events;
  bool unsorted;
};

static ojo_event *ojo__buffer_slot(struct ojo__core *core) {
  return (ojo_event *)(void *)(core->buffer + core->buffer_used);
}

/* Room for a run of `bytes`, a THREAD and two EVENTS_DROPPED; its RUN is filled in at its end. */
static void ojo__run_begin(struct ojo__core *core, struct ojo__open_run *run, struct ojo__thread *thread,
                           uint64_t bytes) {
  if (core->buffer_used + bytes + 16 * OJO_SLOT_BYTES > OJO__BUFFER_BYTES) ojo__buffer_write(core, false);
  run->at = core->buffer + core->buffer_used;
  run->least = UINT64_MAX;
  run->greatest = run->last = run->events = 0;
  run->unsorted = false;
  core->buffer_used += 3 * OJO_SLOT_BYTES;
  if (!thread || thread->batch == core->batch.number) return;
  thread->batch = core->batch.number;
  ojo_event *slot = ojo__buffer_slot(core);
  slot->ts = ojo__to_ts(core, thread->first_raw);
  slot->type = OJO_THREAD | 1u << OJO_EXTENSION_SHIFT;
  slot->flow = thread->number;
  slot->payload = thread->tid | (uint64_t)core->file.pid << 32;
  memset(slot + 1, 0, sizeof *slot);
  memcpy(slot + 1, thread->name, sizeof thread->name);
  core->buffer_used += 2 * OJO_SLOT_BYTES;
}

static void ojo__run_lost(struct ojo__core *core, struct ojo__open_run *run, uint32_t number, uint64_t count,
                          uint64_t first_ts, uint64_t last_ts, uint32_t reason) {
  ojo_event *slot = ojo__buffer_slot(core);
  ojo_dropped *dropped = (ojo_dropped *)(void *)(slot + 1);
  slot->ts = first_ts;
  slot->type = OJO_EVENTS_DROPPED | 1u << OJO_EXTENSION_SHIFT;
  slot->flow = number;
  slot->payload = count;
  dropped->first_ts = first_ts;
  dropped->last_ts = last_ts;
  dropped->reason = reason;
  dropped->source = 0;
  core->buffer_used += 2 * OJO_SLOT_BYTES;
  if (first_ts < run->last) run->unsorted = true;
  if (first_ts < run->least) run->least = first_ts;
  if (first_ts > run->greatest) run->greatest = first_ts;
  run->last = first_ts;
  run->events++;
  if (reason == OJO_DROP_DISK_LIMIT) core->batch.deleted += count;
  else core->batch.lost += count;
}

static void ojo__run_end(struct ojo__core *core, struct ojo__open_run *run, uint32_t number, uint32_t tid,
                         int level, uint64_t first_ordinal, uint64_t lost_before) {
  ojo_event *slot = (ojo_event *)(void *)run->at;
  ojo_run *head = (ojo_run *)(void *)(slot + 1);
  uint64_t bytes = (uint64_t)(core->buffer + core->buffer_used - run->at) - 3 * OJO_SLOT_BYTES;
  memset(slot, 0, 3 * OJO_SLOT_BYTES);
  slot->ts = run->least;
  slot->type = OJO_RUN | 2u << OJO_EXTENSION_SHIFT;
  slot->flow = number;
  slot->payload = bytes / OJO_SLOT_BYTES;
  head->first_ordinal = first_ordinal;
  head->last_ts = run->greatest;
  head->tid = tid;
  head->events = (uint32_t)run->events;
  head->flags = (uint16_t)((run->unsorted ? OJO_RUN_UNSORTED : 0) | (level ? OJO_RUN_HANDLER : 0) |
                           (core->recovering ? OJO_RUN_RECOVERED : 0));
  head->level = (uint16_t)level;
  head->lost_before = lost_before;
  if (core->desc.checksums) head->crc = ojo__crc32c(0, slot + 3, bytes);
  struct ojo__batch *b = &core->batch;
  b->slots += 3 + bytes / OJO_SLOT_BYTES;
  if (run->least < b->first_ts) b->first_ts = run->least;
  if (run->greatest > b->last_ts) b->last_ts = run->greatest;
}

/* Copies slots [from, to) to the run, times converted. Returns the events. */
static uint64_t ojo__convert(struct ojo__core *core, struct ojo__open_run *run, const unsigned char *from,
                             const unsigned char *to) {
  ojo_event *out = ojo__buffer_slot(core);
  uint64_t events = 0, last = run->last, least = run->least, greatest = run->greatest;
  bool unsorted = run->unsorted;
  while (from < to) {
    const ojo_event *in = (const ojo_event *)(const void *)from;
    __builtin_prefetch(from + OJO__AHEAD_BYTES); /* these lines are in another processor's cache */
    uint32_t extra = in->type >> OJO_EXTENSION_SHIFT;
    uint64_t ts = ojo__to_ts(core, in->ts);
    out->ts = ts;
    out->type = in->type;
    out->flow = in->flow;
    out->payload = in->payload;
    unsorted |= ts < last;
    last = ts;
    if (ts < least) least = ts;
    if (ts > greatest) greatest = ts;
    events++;
    out++;
    from += OJO_SLOT_BYTES;
    if (OJO__UNLIKELY(extra)) {
      memcpy(out, from, (size_t)extra * OJO_SLOT_BYTES);
      out += extra;
      from += (size_t)extra * OJO_SLOT_BYTES;
    }
  }
  OJO_ASSERT(from == to);
  core->buffer_used = (size_t)((unsigned char *)out - core->buffer);
  run->last = last;
  run->least = least;
  run->greatest = greatest;
  run->unsorted = unsorted;
  run->events += events;
  return events;
}

/* The losses of a level up to `lost`, as one EVENTS_DROPPED. Their times may reach further than those
 * counted here (the owner goes on), but a gap ends before `end_ts`, the first event behind it, and starts
 * where the last one ended. */
static void ojo__level_lost(struct ojo__core *core, struct ojo__open_run *run, struct ojo__level *level,
                            uint32_t number, uint64_t count, uint64_t end_ts) {
  uint64_t first = ojo__to_ts(core, OJO__PEEK(&level->lost_first));
  uint64_t last = ojo__to_ts(core, OJO__PEEK(&level->lost_last));
  uint32_t reason = (uint32_t)OJO__PEEK(&level->reason);
  if (first < level->told_harvested) first = level->told_harvested;
  if (last > end_ts) last = end_ts;
  if (first > last) first = last;
  level->told_harvested = last;
  ojo__run_lost(core, run, number, count, first, last, reason ? reason : (uint32_t)OJO_DROP_NESTING);
  level->ordinal_harvested += count;
  level->lost_harvested += count;
}

/* Takes a chunk's events in [from, end) into the file, with a gap before them; `level` keeps what was told so
 * far of their thread's level `number`. */
static void ojo__emit(struct ojo__core *core, struct ojo__thread *thread, int number, struct ojo__level *level,
                      const struct ojo__chunk *chunk, uint64_t from, uint64_t end) {
  const unsigned char *base =
      core->recovering ? core->copy : core->data + (uint64_t)(chunk - core->chunks) * OJO__CHUNK_BYTES;
  bool recorder = core->pool->overflow == OJO_OVERFLOW_DROP_OLDEST, late = false;
  struct ojo__open_run run;
  ojo__run_begin(core, &run, thread, end - from);
  /* What is missing before the chunk: lost, or overwritten; or neither: a longjmp out of the middle of a hand-off
   * left it in a chunk that is on no list, and comes later (below). Losses that were told ahead of it count already. */
  if (from == 0 && chunk->ordinal > level->ordinal_harvested) {
    uint64_t gap = chunk->ordinal - level->ordinal_harvested;
    uint64_t lost = chunk->lost > level->lost_harvested ? chunk->lost - level->lost_harvested : 0;
    uint64_t next_ts = ojo__to_ts(core, ((const ojo_event *)(const void *)base)->ts);
    if (lost > gap) lost = gap;
    if (gap > lost && !recorder) level->ordinal_harvested += gap - lost;
    if (gap > lost && recorder) {
      uint64_t first = ojo__to_ts(core, thread->first_raw);
      if (first < level->told_harvested) first = level->told_harvested;
      ojo__run_lost(core, &run, thread->number, gap - lost, first < next_ts ? first : next_ts, next_ts,
                    OJO_DROP_OVERWRITTEN);
      level->ordinal_harvested += gap - lost;
      level->overwritten += gap - lost;
    }
    (void)OJO__LOAD(&level->lost); /* pairs with ojo__lose: the times */
    if (lost) ojo__level_lost(core, &run, level, thread->number, lost, next_ts);
  }
  uint64_t ordinal = level->ordinal_harvested;
  if (!core->recovering && !recorder && (OJO__PEEK(&chunk->flags) & OJO__CHUNK_HANDED) &&
      (OJO__LOAD(&chunk->lease) & OJO__STATE) == OJO__LEASED) {
    uint64_t own = chunk->ordinal;
    for (uint64_t at = 0; at < from; own++)
      at += OJO_SLOT_BYTES *
            (1 + (uint64_t)(((const ojo_event *)(const void *)(base + at))->type >> OJO_EXTENSION_SHIFT));
    late = own < ordinal;
    if (late) ordinal = own;
  }
  uint64_t events = ojo__convert(core, &run, base + from, base + end);
  if (!late) level->ordinal_harvested += events;
  core->batch.events += events;
  if (recorder && run.greatest > level->told_harvested)
    level->told_harvested = run.greatest; /* what is overwritten next lies behind it */
  ojo__run_end(core, &run, thread->number, thread->tid, number, ordinal,
               level->lost_harvested + level->overwritten);
}

static void ojo__level_enter(struct ojo__core *core, struct ojo__level *level) {
  if (level->batch == core->batch.number) return;
  level->ordinal_published = level->ordinal_harvested;
  level->lost_published = level->lost_harvested;
  level->told_published = level->told_harvested;
  if (level == &core->pool->nobody) {
    core->pool->gone.events_published = core->pool->gone.events_harvested;
    core->pool->gone.lost_published = core->pool->gone.lost_harvested;
  }
  OJO__STORE(&level->batch, core->batch.number); /* last: as in ojo__harvest */
  OJO__COMPILER_BARRIER(); /* the release holds back what is before it, not the counts that follow */
}

static void ojo__level_roll_back(struct ojo__pool *pool, struct ojo__level *level) {
  level->ordinal_harvested = level->ordinal_published;
  level->lost_harvested = level->lost_published;
  level->told_harvested = level->told_published;
  level->overwritten = 0; /* a flight recorder's file is its only one */
  if (level != &pool->nobody) return;
  pool->gone.events_harvested = pool->gone.events_published;
  pool->gone.lost_harvested = pool->gone.lost_published;
}

static uint64_t ojo__chunk_sound(struct ojo__core *dead, const struct ojo__chunk *chunk, uint64_t at);

/* Takes a chunk's events below `end` (as loaded with acquire; in recovery: those that are sound) into the
 * open batch. */
static void ojo__harvest(struct ojo__core *core, struct ojo__chunk *chunk, uint64_t end) {
  uint32_t from = OJO__PEEK(&chunk->harvested), index = OJO__PEEK(&chunk->thread), number = OJO__PEEK(&chunk->level);
  if (core->recovering) { /* checked again, on what is used: it may have been changed since */
    end = ojo__chunk_sound(core, chunk, from);
    if (end <= from || index >= ojo__threads(core) || number >= OJO__LEVELS) return;
  }
  struct ojo__thread *thread = &core->threads[index];
  struct ojo__level *level = &thread->level[number];
  if (chunk->batch != core->batch.number) {
    OJO__STORE(&chunk->published, from);             /* model: T1 */
    OJO__STORE(&chunk->batch, core->batch.number); /* model: T2 */
  }
  if (from == end) return;
  ojo__level_enter(core, level);
  ojo__emit(core, thread, (int)number, level, chunk, from, end);
  OJO__STORE(&chunk->harvested, (uint32_t)end); /* model: T3 */
}

/* A run that tells of losses alone: those that no later chunk's ordinal has told yet. */
static void ojo__emit_losses(struct ojo__core *core, struct ojo__level *level, struct ojo__thread *thread, int index) {
  uint64_t lost = OJO__LOAD(&level->lost); /* pairs with ojo__lose's release */
  if (lost <= level->lost_harvested) return;
  struct ojo__open_run run;
  ojo__run_begin(core, &run, thread, 0);
  ojo__level_lost(core, &run, level, thread->number, lost - level->lost_harvested, UINT64_MAX);
  ojo__run_end(core, &run, thread->number, thread->tid, index, level->ordinal_harvested,
               level->lost_harvested + level->overwritten);
}
/* Flight recorder: how many of a level's first `attempts` are neither told nor lost. They were overwritten. */
static uint64_t ojo__untold_end(const struct ojo__level *level, uint64_t attempts) {
  uint64_t lost = OJO__LOAD(&level->lost), told = level->ordinal_harvested;
  if (lost > level->lost_harvested) told += lost - level->lost_harvested;
  return attempts > told ? attempts - told : 0;
}
/* A run that tells of these: behind the last of the level's chunks, or without one. `now`: a raw time */
static void ojo__emit_end(struct ojo__core *core, struct ojo__level *level, struct ojo__thread *thread, int index,
                          uint64_t attempts, uint64_t now) {
  uint64_t count = ojo__untold_end(level, attempts);
  uint64_t first = ojo__to_ts(core, thread->first_raw), last = ojo__to_ts(core, now);
  struct ojo__open_run run;
  if (!count) return;
  if (first < level->told_harvested) first = level->told_harvested;
  ojo__run_begin(core, &run, thread, 0);
  ojo__run_lost(core, &run, thread->number, count, first, last > first ? last : first, OJO_DROP_OVERWRITTEN);
  level->ordinal_harvested += count;
  level->overwritten += count;
  ojo__run_end(core, &run, thread->number, thread->tid, index, level->ordinal_harvested,
               level->lost_harvested + level->overwritten);
}
static void ojo__harvest_losses(struct ojo__core *core, struct ojo__thread *thread, int index) {
  struct ojo__level *level = &thread->level[index];
  if (OJO__LOAD(&level->lost) <= level->lost_harvested) return;
  ojo__level_enter(core, level);
  ojo__emit_losses(core, level, thread, index);
}

/* Thread 0's run: losses of threads without an entry, and events that are gone. */
static void ojo__emit_nobody(struct ojo__core *core, struct ojo__level *level, struct ojo__gone *gone) {
  struct ojo__open_run run;
  uint64_t orphans = OJO__LOAD(&level->lost) - level->lost_harvested; /* pairs with ojo__lose_shared */
  uint64_t events = OJO__LOAD(&gone->events) - gone->events_harvested;
  uint64_t lost = OJO__LOAD(&gone->lost) - gone->lost_harvested;
  bool recorder = core->pool->overflow == OJO_OVERFLOW_DROP_OLDEST;
  uint64_t last_ts = recorder ? ojo__to_ts(core, OJO__PEEK(&gone->last_raw)) : gone->last_ts;
  if (!events && !lost && !orphans) return;
  ojo__run_begin(core, &run, NULL, 0);
  if (events)
    ojo__run_lost(core, &run, 0, events, gone->first_ts, last_ts,
                  recorder ? OJO_DROP_OVERWRITTEN : OJO_DROP_DISK_LIMIT);
  if (lost) ojo__run_lost(core, &run, 0, lost, gone->first_ts, last_ts, OJO_DROP_POOL_FULL);
  gone->events_harvested += events;
  gone->lost_harvested += lost;
  if (orphans) {
    if (!level->reason) level->reason = OJO_DROP_THREAD_TABLE;
    ojo__level_lost(core, &run, level, 0, orphans, UINT64_MAX);
  }
  ojo__run_end(core, &run, 0, 0, 0, 0, level->lost_harvested);
}

/* Ends a file's slots, and writes its header, last. */
static bool ojo__file_end(struct ojo__core *core, uint8_t flags) {
  struct ojo__pool *pool = core->pool;
  struct ojo__batch *b = &core->batch;
  ojo_file_header header = core->file;
  bool ok = ojo__buffer_write(core, true) && !b->error;
  if (pool->overflow == OJO_OVERFLOW_DROP_OLDEST) flags |= OJO_FILE_SNAPSHOT;
  header.flags = (uint8_t)(header.flags | OJO_FILE_COMPLETE | flags);
  header.batch = pool->batches;
  header.slot_count = b->slots;
  header.first_ts = b->first_ts == UINT64_MAX ? 0 : b->first_ts;
  header.last_ts = b->last_ts;
  header.anchor_error_ns = (uint32_t)(core->anchor_error < UINT32_MAX ? core->anchor_error : UINT32_MAX);
  header.crc = 0;
  header.crc = ojo__crc32c(0, &header, sizeof header);
  ok = ok && ojo__write(core, (unsigned char *)pool + core->schema_at, header.header_bytes - sizeof header,
                        sizeof header, false);
  return ok && ojo__write(core, &header, sizeof header, 0, false); /* model: E3 */
}

/* `pool` is a copy of the header: nobody changes it between its check and its use. */
static bool ojo__pool_sound(const struct ojo__pool *pool, uint64_t file_bytes) {
  const ojo_file_header *file = &pool->file;
  uint64_t schema = ojo__round_up(sizeof *pool, 64), count = pool->chunk_count;
  if (memcmp(pool->magic, "ojopool", 8) != 0 || pool->version != OJO__POOL_VERSION) return false;
  if (memcmp(file->magic, OJO_FILE_MAGIC, 4) != 0 || file->version != OJO_FILE_VERSION ||
      file->slot_bytes != OJO_SLOT_BYTES || file->header_bytes < sizeof *file ||
      file->header_bytes - sizeof *file > OJO__SCHEMA_BYTES_MAX || file->header_bytes % 8 ||
      file->schema_bytes > file->header_bytes - sizeof *file)
    return false;
  uint64_t anchors = ojo__round_up(schema + file->header_bytes - sizeof *file, 4096);
  uint64_t threads = ojo__round_up(anchors + OJO__ANCHORS_MAX * sizeof(struct ojo__anchor), 4096);
  uint64_t chunks = ojo__round_up(threads + OJO__THREADS_MAX * sizeof(struct ojo__thread), 4096);
  uint64_t data = ojo__round_up(chunks + count * sizeof(struct ojo__chunk), OJO__CHUNK_BYTES);
  if (pool->schema_at != schema || pool->anchors_at != anchors || pool->threads_at != threads ||
      pool->chunks_at != chunks || pool->data_at != data || count >= OJO__LIST_INDEX ||
      pool->bytes != data + count * OJO__CHUNK_BYTES || pool->bytes != file_bytes)
    return false;
  return pool->threads_fresh <= OJO__THREADS_MAX && pool->anchor_count <= OJO__ANCHORS_MAX;
}

static bool ojo__anchors_sound(const struct ojo__anchor *a, uint64_t count) {
  for (uint64_t i = 1; i < count; i++)
    if (a[i].tick <= a[i - 1].tick || a[i].ns <= a[i - 1].ns) return false;
  return true;
}

/* The name of the open batch's file. False: it is none, or leads elsewhere. */
static bool ojo__batch_name(const struct ojo__pool *pool, char name[64]) {
  memcpy(name, pool->staging_name, 64);
  name[63] = 0;
  return strncmp(name, "trace_", 6) == 0 && !strchr(name, '/');
}

/* Was the batch published whose number a chunk or level bears? If it is the open one, its file in staging/
 * tells: gone, or (without renameat2) with a second link in output/. */
static bool ojo__batch_done(struct ojo__core *dead, uint64_t number) {
  struct ojo__pool *pool = dead->pool;
  struct stat st;
  char name[64];
  if (number <= pool->batch_published || number < pool->open_batch) return true;
  if (!ojo__batch_name(pool, name)) return false; /* rather twice than not at all */
  if (fstatat(dead->staging_fd, name, &st, AT_SYMLINK_NOFOLLOW) != 0) return errno == ENOENT;
  return st.st_nlink > 1;
}

#ifndef SEEK_HOLE
#define SEEK_HOLE 4
#endif
/* Are these bytes of the pool there? Reading a hole takes a page of the tmpfs, and SIGBUS if it is full. (A copy
 * of a pool has no lock_fd and no such holes) */
static bool ojo__present(struct ojo__core *dead, const void *from, uint64_t bytes) {
  off_t at = (off_t)((const unsigned char *)from - (const unsigned char *)dead->pool);
  return bytes == 0 || dead->lock_fd < 0 || lseek(dead->lock_fd, at, SEEK_HOLE) >= at + (off_t)bytes;
}

/* How far a chunk's events from `at` on are sound: all that was committed, unless somebody else wrote to the
 * pool. Somebody may do so now: they are copied first, to the same place in dead->copy. */
static uint64_t ojo__chunk_sound(struct ojo__core *dead, const struct ojo__chunk *chunk, uint64_t at) {
  const unsigned char *base = dead->data + (uint64_t)(chunk - dead->chunks) * OJO__CHUNK_BYTES;
  uint64_t end = OJO__LOAD(&chunk->committed); /* pairs with the record's release */
  if (end > OJO__CHUNK_LIMIT || at > end || end % OJO_SLOT_BYTES || at % OJO_SLOT_BYTES) return 0;
  if (!ojo__present(dead, base, end)) return 0;
  memcpy(dead->copy + at, base + at, end - at);
  while (at < end) {
    uint32_t type;
    memcpy(&type, dead->copy + at + offsetof(ojo_event, type), sizeof type);
    uint64_t size = (uint64_t)OJO_SLOT_BYTES * (1 + (type >> OJO_EXTENSION_SHIFT));
    if (size > end - at) break;
    at += size;
  }
  return at;
}

/* By (thread, level, ordinal). Heap sort, since libc's allocates, and a snapshot may be taken in a handler. */
static bool ojo__noted_less(const struct ojo__noted *a, const struct ojo__noted *b) {
  if (a->thread != b->thread) return a->thread < b->thread;
  return a->level != b->level ? a->level < b->level : a->ordinal < b->ordinal;
}
static void ojo__sort(struct ojo__noted *noted, uint32_t count) {
  uint32_t start = count / 2, end = count;
  while (end > 1) {
    if (start) start--;
    else {
      struct ojo__noted top = noted[--end];
      noted[end] = noted[0];
      noted[0] = top;
    }
    for (uint32_t root = start, child; (child = 2 * root + 1) < end; root = child) {
      if (child + 1 < end && ojo__noted_less(&noted[child], &noted[child + 1])) child++;
      if (!ojo__noted_less(&noted[root], &noted[child])) break;
      struct ojo__noted swap = noted[root];
      noted[root] = noted[child];
      noted[child] = swap;
    }
  }
}

/* A core for a dead tracer's pool, or a copy of it, whose header, copied to `head`, was found sound, and whose
 * file has so many bytes in fact. Descriptors are the caller's. False: no memory. */
static bool ojo__dead_attach(struct ojo__core *dead, struct ojo__pool *pool, const struct ojo__pool *head,
                             uint64_t bytes_present) {
  unsigned char *at = (unsigned char *)pool;
  dead->pool = pool;
  dead->file = head->file;
  dead->chunk_count = head->chunk_count;
  dead->anchors = (struct ojo__anchor *)(void *)(at + head->anchors_at);
  dead->threads = (struct ojo__thread *)(void *)(at + head->threads_at);
  dead->chunks = (struct ojo__chunk *)(void *)(at + head->chunks_at);
  dead->data = at + head->data_at;
  dead->schema_at = head->schema_at;
  dead->desc.checksums = (head->file.flags & OJO_FILE_CHECKSUMS) != 0;
  dead->recovering = true;
  dead->batch.fd = -1;
  /* A chunk that holds events has at least a page, however many chunks the pool says that it has. */
  dead->noted_room = bytes_present / 4096 < dead->chunk_count ? (uint32_t)(bytes_present / 4096) : dead->chunk_count;
  dead->noted = (struct ojo__noted *)malloc((dead->noted_room + (size_t)1) * sizeof *dead->noted);
  dead->blocks = (unsigned char *)malloc(OJO__BUFFER_ROOM);
  dead->copy = (unsigned char *)malloc(OJO__CHUNK_BYTES);
  return dead->noted && dead->blocks && dead->copy;
}
static void ojo__dead_detach(struct ojo__core *dead) {
  free(dead->noted);
  free(dead->blocks);
  free(dead->copy);
}

/* Rolls a dead pool's unpublished batch back, and lists the chunks that still hold events. `done`: its last
 * batch was published. */
static void ojo__dead_list(struct ojo__core *dead, bool *done) {
  struct ojo__pool *pool = dead->pool;
  *done = ojo__batch_done(dead, pool->open_batch); /* model: V5 */
  dead->noted_count = 0;
  uint64_t threads = ojo__threads(dead);
  uint64_t retired = pool->overflow == OJO_OVERFLOW_DROP_OLDEST ? pool->line_recorder[7] : 0;
  if (retired && retired <= threads && dead->threads[retired - 1].state != OJO__THREAD_FREE) {
    pool->gone.events = pool->line_recorder[5]; /* see ojo__retire_ended: its entry tells them */
    pool->gone.lost = pool->line_recorder[6];
  }
  pool->line_recorder[7] = 0;
  for (uint64_t i = 0; i <= threads; i++)
    for (int k = 0; k <= OJO__LEVELS; k++) {
      struct ojo__level *level = i < threads ? &dead->threads[i].level[k] : &pool->nobody;
      if (level->batch >= pool->open_batch && !*done) ojo__level_roll_back(pool, level);
    }
  for (uint32_t i = 0; i < dead->chunk_count && dead->noted_count < dead->noted_room; i++) {
    struct ojo__chunk *chunk = &dead->chunks[i];
    struct ojo__noted *n = &dead->noted[dead->noted_count];
    if (i % 64 == 0 && !ojo__present(dead, chunk, sizeof *chunk)) { /* a page of headers never used */
      i += 63;
      continue;
    }
    uint64_t lease = OJO__LOAD(&chunk->lease); /* pairs with ojo__change's release */
    if ((lease & OJO__STATE) == OJO__FREE) continue;
    uint32_t thread = OJO__PEEK(&chunk->thread), level = OJO__PEEK(&chunk->level);
    if (thread >= threads || level >= OJO__LEVELS) continue;
    if (chunk->batch >= pool->open_batch && !*done) OJO__STORE(&chunk->harvested, chunk->published); /* model: V6 */
    uint32_t harvested = OJO__PEEK(&chunk->harvested);
    if (ojo__chunk_sound(dead, chunk, harvested) <= harvested) continue;
    n->index = i;
    n->thread = dead->threads[thread].number;
    n->level = level;
    n->ordinal = chunk->ordinal;
    n->lease = lease;
    dead->noted_count++;
  }
  ojo__sort(dead->noted, dead->noted_count);
}

/* Events of a flight recorder's level that were overwritten, of which no chunk that is left tells. */
static bool ojo__dead_end(const struct ojo__core *dead, uint64_t thread, int level) {
  const struct ojo__thread *entry = &dead->threads[thread];
  return dead->pool->overflow == OJO_OVERFLOW_DROP_OLDEST && level < OJO__LEVELS && entry->state != OJO__THREAD_FREE &&
         ojo__untold_end(&entry->level[level], entry->level[level].attempts) != 0;
}

/* Takes all that ojo__dead_list found into the open file. */
static void ojo__dead_drain(struct ojo__core *dead) {
  for (uint32_t i = 0; i < dead->noted_count; i++)
    ojo__harvest(dead, &dead->chunks[dead->noted[i].index], 0);
  for (uint64_t i = 0, threads = ojo__threads(dead); i < threads; i++)
    for (int k = 0; k <= OJO__LEVELS && dead->threads[i].state != OJO__THREAD_FREE; k++) {
      struct ojo__level *level = &dead->threads[i].level[k];
      if (ojo__dead_end(dead, i, k)) {
        ojo__level_enter(dead, level);
        ojo__emit_end(dead, level, &dead->threads[i], k, level->attempts, dead->threads[i].first_raw);
      }
      ojo__harvest_losses(dead, &dead->threads[i], k);
    }
}

/* Is there anything that recovery has to tell? */
static OJO__UNUSED bool ojo__dead_any(struct ojo__core *dead) {
  for (uint64_t i = 0, threads = ojo__threads(dead); i < threads; i++)
    for (int k = 0; k < OJO__LEVELS; k++)
      if (ojo__dead_end(dead, i, k)) return true;
  return dead->noted_count != 0;
}

#ifdef __cplusplus
}
#endif
#endif
#endif /* OJO__IMAGE_GUARD */

#if defined(OJO_READER_IMPLEMENTATION) && defined(OJO__IMAGE) && !defined(OJO__POOL_IMAGE_GUARD)
#define OJO__POOL_IMAGE_GUARD
#ifdef __cplusplus
extern "C" {
#endif

#ifndef SEEK_DATA
#define SEEK_DATA 3
#endif
/* Copies a sparse file's bytes to `to`: read, not mapped, so that whoever truncates it meanwhile does no harm. */
static bool ojo__copy_sparse(int fd, unsigned char *to, off_t size) {
  for (off_t at = lseek(fd, 0, SEEK_DATA); at >= 0 && at < size; at = lseek(fd, at, SEEK_DATA)) {
    off_t end = lseek(fd, at, SEEK_HOLE);
    if (end < 0 || end > size) end = size;
    for (ssize_t got; at < end; at += got) {
      got = pread(fd, to + at, (size_t)(end - at), at);
      if (got < 0 && errno == EINTR) got = 0;
      else if (got <= 0) return false;
    }
  }
  return errno == ENXIO || size == 0; /* no more data */
}

/* The events of a dead tracer's pool, as recovery would write them, as a file in memory: its descriptor, or -1 with
 * the reason in `why`. The pool stays as it is. */
static int ojo__pool_image(const char *path, char *why, size_t why_bytes) {
  struct stat st;
  int memory = -1, fd = open(path, O_RDONLY | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK);
  void *map = MAP_FAILED;
  const char *reason = NULL;
  char staging[PATH_MAX + 16];
  struct ojo__core *dead = (struct ojo__core *)calloc(1, sizeof *dead);
  struct ojo__pool *pool = NULL, head;
  bool done = false;
  if (fd < 0 || fstat(fd, &st) != 0) reason = strerror(errno);
  else if (!S_ISREG(st.st_mode) || (uint64_t)st.st_size < sizeof *pool) reason = "not a pool of an ojo tracer";
  else if (flock(fd, LOCK_SH | LOCK_NB) != 0) reason = "its tracer is alive, or it is being recovered";
  if (!reason) {
    map = mmap(NULL, (size_t)st.st_size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (map == MAP_FAILED || !dead) reason = "out of memory";
    else if (!ojo__copy_sparse(fd, (unsigned char *)map, st.st_size)) reason = "it can't be read, or changes";
    else {
      pool = (struct ojo__pool *)map;
      memcpy(&head, pool, sizeof head);
      if (!ojo__pool_sound(&head, (uint64_t)st.st_size) ||
          !ojo__anchors_sound((struct ojo__anchor *)(void *)((char *)map + head.anchors_at), head.anchor_count))
        reason = "not a pool, or not of this version of ojo.h";
    }
  }
  if (fd >= 0) close(fd); /* the lock too: a recoverer would take it for the owner's */
  if (!reason) {
    dead->lock_fd = dead->output_fd = -1;
    snprintf(staging, sizeof staging, "%.*s/staging", PATH_MAX - 1, head.dir);
    dead->staging_fd = open(staging, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC); /* says if a batch was renamed */
    memory = (int)syscall(SYS_memfd_create, "ojo-pool", 1u /* MFD_CLOEXEC */);
    if (!ojo__dead_attach(dead, pool, &head, (uint64_t)st.st_blocks * 512) || memory < 0) reason = "out of memory";
  }
  if (!reason) {
    ojo__batch_zero(dead, pool->open_batch + 1);
    dead->batch.fd = memory;
    ojo__dead_list(dead, &done);
    if (done && pool->open_batch) pool->batches = pool->last_number + 1;
    ojo__anchor_take(dead, true);
    ojo__dead_drain(dead);
    ojo__emit_nobody(dead, &pool->nobody, &pool->gone);
    if (!ojo__file_end(dead, OJO_FILE_RECOVERED)) reason = strerror(dead->batch.error);
  }
  if (reason) {
    snprintf(why, why_bytes, "%s", reason);
    if (memory >= 0) close(memory);
    memory = -1;
  }
  if (dead && dead->pool && dead->staging_fd >= 0) close(dead->staging_fd);
  if (dead) ojo__dead_detach(dead);
  free(dead);
  if (map != MAP_FAILED) munmap(map, (size_t)st.st_size);
  return memory;
}

#ifdef __cplusplus
}
#endif
#endif /* OJO__POOL_IMAGE_GUARD */

/* ================================================================================================ */
#if defined(OJO_IMPLEMENTATION) && defined(OJO__IMAGE) && !defined(OJO_IMPLEMENTATION_GUARD)
#define OJO_IMPLEMENTATION_GUARD

#ifdef __cplusplus
extern "C" {
#endif

/* Thread-local, beside ojo__hot. initial-exec for the same reason, and because other models allocate. */
struct ojo__context { /* this thread's leases from one tracer */
  uint64_t generation; /* 0: free */
  ojo_tracer *t;
  struct ojo__thread *thread;
  struct {
    struct ojo__chunk *chunk; /* or OJO__NONE_LEASED */
    unsigned char *base;
    uint32_t taking; /* index + 1 of a chunk that was taken for this level and is not leased yet; bit 31: counted */
  } lease[OJO__LEVELS];
};
struct ojo__local {
  struct ojo__context context[OJO__CONTEXTS];
  struct ojo__context *hot;             /* whose level 0 is in ojo__hot */
  uint64_t busy[OJO__LEVELS];           /* markers of levels 1 and up, as ojo__hot.generation is of 0 */
  uint64_t serial;
  uintptr_t stack_low, stack_high;      /* of the thread's own stack; high 1: can't be known */
  bool registered, evicted;
  int crashing; /* the signal of a crash whose handler, from before ours, is being called */
};
#ifdef OJO_STATIC
static OJO__TLS struct ojo__local ojo__local;
#else
static const struct ojo__chunk ojo__no_chunk = OJO__NO_CHUNK;
OJO__TLS struct ojo__lease ojo__hot = {0, 0, (struct ojo__chunk *)&ojo__no_chunk, 0};
static OJO__TLS struct ojo__local ojo__local;
#endif
#define OJO__NONE_LEASED ((struct ojo__chunk *)&ojo__no_chunk)

/* Weak, so that OJO_STATIC copies in one program count on, and hand out no id twice. */
__attribute__((weak, visibility("default"))) uint32_t ojo__flow_count_shared;

static pthread_mutex_t ojo__lock = PTHREAD_MUTEX_INITIALIZER; /* open, close, fork */
static struct ojo__core *ojo__cores;                          /* under it */
static uint64_t ojo__closings;
static void ojo__fork_look(void);
static pthread_key_t ojo__key;
static bool ojo__key_made;
static pthread_once_t ojo__once = PTHREAD_ONCE_INIT;
/* Weak too: the copies share tracers' thread tables. */
__attribute__((weak, visibility("default"))) uint64_t ojo__serials_shared;

static void ojo__log_args(struct ojo__core *core, const char *format, va_list args) {
  char line[1024];
  if (core->mute) return;
  vsnprintf(line, sizeof line, format, args);
  if (core->desc.logger.log) core->desc.logger.log(core->desc.logger.user, line);
  else fprintf(stderr, "ojo: %s\n", line);
}
static void ojo__log(struct ojo__core *core, const char *format, ...) __attribute__((format(printf, 2, 3)));
static void ojo__log(struct ojo__core *core, const char *format, ...) {
  va_list args;
  va_start(args, format);
  ojo__log_args(core, format, args);
  va_end(args);
}

/* Descriptors that are kept are never 0, 1 or 2: where the program closed these, its own output to stderr
 * would go into them. */
static int ojo__keep_fd(int fd) {
  if (fd < 0 || fd > 2) return fd;
  int other = fcntl(fd, F_DUPFD_CLOEXEC, 3), error = errno;
  close(fd);
  errno = error;
  return other;
}
/* openat, again if a signal interrupts it (a file system may wait for its server). What it creates has
 * exactly this mode, whatever the umask. */
static int ojo__openat(int at, const char *name, int flags, uint32_t mode) {
  int fd;
  do fd = openat(at, name, flags | O_NOFOLLOW | O_CLOEXEC, (mode_t)mode);
  while (fd < 0 && errno == EINTR);
  if (fd >= 0 && (flags & O_CREAT)) (void)!fchmod(fd, (mode_t)mode); /* not every file system has modes */
  return ojo__keep_fd(fd);
}
/* Forgets the number before it is free for others: a fork child closes what is still noted here. */
static int ojo__close_fd(int *fd) {
  int old = *fd;
  *fd = -1;
  return old >= 0 ? close(old) : 0;
}
static int ojo__batch_fd_close(struct ojo__core *core) {
  ojo__hand_back(core, 0);
  return ojo__close_fd(&core->batch.fd);
}

static void *ojo__alloc(struct ojo__core *core, size_t bytes) {
  return core->desc.allocator.alloc ? core->desc.allocator.alloc(core->desc.allocator.user, bytes)
                                    : malloc(bytes);
}
static void ojo__free(struct ojo__core *core, void *memory) {
  if (!memory) return;
  if (core->desc.allocator.free) core->desc.allocator.free(core->desc.allocator.user, memory);
  else free(memory);
}

static void ojo__futex_wake(uint32_t *word) { ojo__futex(word, OJO__FUTEX_WAKE, INT_MAX, NULL); }

/* A deadline set at most `most` ns ahead: a clock that goes back (a restored process) does not put it off. */
static uint64_t ojo__deadline(uint64_t end, uint64_t now, uint64_t most) {
  return end > now + most ? now + most : end;
}

OJO_API uint64_t ojo__clock_raw(const ojo_tracer *t) {
  uint64_t ns = t->clock == OJO_CLOCK_MANUAL ? OJO__PEEK(&t->manual_now_ns) : ojo__clock_ns(CLOCK_MONOTONIC);
  return ns | OJO__NS_BIT;
}

/* Reads a small file of /proc or /sys. Returns the bytes read, NUL-terminated in text; 0: none. */
static size_t ojo__read_text(const char *path, char *text, size_t room) {
  int fd = open(path, O_RDONLY | O_CLOEXEC);
  ssize_t got = fd < 0 ? -1 : read(fd, text, room - 1);
  if (fd >= 0) close(fd);
  text[got > 0 ? got : 0] = 0;
  return got > 0 ? (size_t)got : 0;
}

/* CPUID 0x80000007, EDX bit 8 is what Linux shows as constant_tsc and nonstop_tsc; that the kernel keeps
 * time by it says that it is in step on all cores (the kernel's watchdog drops it otherwise). */
static ojo_clock ojo__clock_choose(ojo_clock wanted) {
  if (wanted == OJO_CLOCK_MONOTONIC || wanted == OJO_CLOCK_MANUAL) return wanted;
#if defined(__x86_64__) && !defined(OJO_NO_TSC)
  unsigned a = 0, b = 0, c = 0, d = 0;
  char source[32];
  if (__get_cpuid(0x80000007u, &a, &b, &c, &d) && (d & 256u) &&
      ojo__read_text("/sys/devices/system/clocksource/clocksource0/current_clocksource", source,
                     sizeof source) && strcmp(source, "tsc\n") == 0)
    return OJO_CLOCK_TSC;
#elif defined(__aarch64__) && !defined(OJO_NO_TSC)
  return OJO_CLOCK_CNTVCT; /* architected: constant rate, in step on all cores */
#endif
  return OJO_CLOCK_MONOTONIC;
}

/* One line a minute for each kind of trouble that may come with every batch. */
static bool ojo__log_kind(struct ojo__core *core, uint32_t kind, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
static bool ojo__log_kind(struct ojo__core *core, uint32_t kind, const char *format, ...) {
  uint64_t now = ojo__clock_ns(CLOCK_MONOTONIC);
  struct ojo__kind *oldest = core->kinds;
  for (int i = 0; i < OJO__KINDS; i++) {
    if (core->kinds[i].kind == kind && core->kinds[i].until > now) return false;
    if (core->kinds[i].until < oldest->until) oldest = &core->kinds[i];
  }
  oldest->kind = kind;
  oldest->until = now + (uint64_t)60 * 1000000000u;
  va_list args;
  va_start(args, format);
  ojo__log_args(core, format, args);
  va_end(args);
  return true;
}

/* ---- >>pool ------------------------------------------------------------------------------------- */

/* A chunk is in exactly one place: on a free list, leased by one (thread, level), on the full list or the
 * flusher's queue behind it, or fresh (never taken). Owners move it free -> leased -> full list; the
 * flusher alone moves it on to the queue and back to free, and only after the batch that holds all its
 * events is published. */

/* A list's links lie in an array of chunks or of thread entries. */
#define OJO__CHUNK_LINKS(core) &(core)->chunks->next, sizeof(struct ojo__chunk)
#define OJO__THREAD_LINKS(core) &(core)->threads->next, sizeof(struct ojo__thread)
static uint32_t *ojo__link(uint32_t *links, size_t stride, uint64_t index) {
  return (uint32_t *)(void *)((unsigned char *)links + stride * index);
}

/* Pops a list's head. The tag changes with every pop, so a head that was popped, used and pushed back
 * between our load and our exchange makes the exchange fail; 40 bits of tag outlast any preemption. The
 * link may be read while another thread owns its element: then the exchange fails too. */
static uint32_t ojo__pop(uint64_t *list, uint32_t *links, size_t stride) {
  /* model: P1; the link is P2, the exchange P3. Pairs with ojo__push: the link is visible */
  uint64_t head = OJO__LOAD(list);
  for (;;) {
    uint32_t at = (uint32_t)(head & OJO__LIST_INDEX);
    if (at == 0) return OJO__NONE;
    uint64_t next = ((head & ~(uint64_t)OJO__LIST_INDEX) + OJO__LIST_INDEX + 1) |
                    OJO__PEEK(ojo__link(links, stride, at - 1));
    if (__atomic_compare_exchange_n(list, &head, next, true, __ATOMIC_ACQUIRE, __ATOMIC_ACQUIRE))
      return at - 1;
  }
}
/* Pushes onto a list; the full list, which is only emptied whole, needs no tag and has none. Release: what
 * was done to the element before is visible to who pops it. */
static void ojo__push(uint64_t *list, uint32_t *links, size_t stride, uint32_t index) {
  uint64_t head = OJO__PEEK(list);
  do OJO__SET(ojo__link(links, stride, index), (uint32_t)(head & OJO__LIST_INDEX));
  while (!__atomic_compare_exchange_n(list, &head, (head & ~(uint64_t)OJO__LIST_INDEX) | (index + 1), true,
                                      __ATOMIC_RELEASE, __ATOMIC_RELAXED));
}

#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23
#endif
/* Makes pages of the pool present, and reserves them on a tmpfs, so that no store faults (or, on a full
 * tmpfs, raises SIGBUS). Signal-safe. Before Linux 5.14: reserves only. */
static bool ojo__populate(struct ojo__core *core, void *from, uint64_t bytes) {
  uintptr_t below = (uintptr_t)sysconf(_SC_PAGESIZE) - 1;
  uintptr_t page = (uintptr_t)from & ~below, end = ((uintptr_t)from + bytes + below) & ~below;
  int saved = errno;
  bool ok = madvise((void *)page, end - page, MADV_POPULATE_WRITE) == 0;
  if (!ok && errno == EINVAL)
    ok = core->pool_fd < 0 || syscall(SYS_fallocate, core->pool_fd, 0, (off_t)(page - (uintptr_t)core->pool),
                                      (off_t)(end - page)) == 0;
  errno = saved;
  return ok;
}
static bool ojo__populate_chunk(struct ojo__core *core, uint64_t index) {
  return ojo__populate(core, &core->chunks[index], sizeof(struct ojo__chunk)) &&
         ojo__populate(core, core->data + index * OJO__CHUNK_BYTES, OJO__CHUNK_BYTES);
}

/* A chunk that was never taken: number `base` + *fresh. Populated before it is claimed, so that nobody who
 * walks the claimed ones ever touches a page that a full tmpfs can't give. */
static uint32_t ojo__take_fresh(struct ojo__core *core, uint64_t *fresh, uint64_t base, uint64_t limit,
                                uint64_t populated) {
  uint64_t n = OJO__PEEK(fresh);
  while (n < limit) {
    if (n >= populated && !ojo__populate_chunk(core, base + n)) break;
    if (__atomic_compare_exchange_n(fresh, &n, n + 1, true, __ATOMIC_ACQ_REL, __ATOMIC_RELAXED))
      return (uint32_t)(base + n);
  }
  return OJO__NONE;
}

static void ojo__wake_flusher(struct ojo__core *core) {
  __atomic_fetch_add(&core->wake, 1, __ATOMIC_SEQ_CST);
  if (__atomic_exchange_n(&core->sleeping, 0, __ATOMIC_SEQ_CST)) ojo__futex_wake(&core->wake);
}

static uint64_t ojo__chunk_events(const struct ojo__chunk *chunk) {
  uint64_t slots = OJO__PEEK(&chunk->committed) / OJO_SLOT_BYTES, extra = OJO__PEEK(&chunk->extension_slots);
  return slots > extra ? slots - extra : 0; /* another thread may see the second of two stores first */
}

/* ---- >>recorder --------------------------------------------------------------------------------- */

/* In a flight recorder (OJO_OVERFLOW_DROP_OLDEST) full chunks stay with the (thread, level) that filled them,
 * in a chain from the oldest to the newest, until they are overwritten. Its owner appends to the chain's end.
 * Whoever needs a chunk takes the oldest of a chain, by a compare-and-exchange on the chain's head, whose tag
 * changes with every take as in ojo__pop. The last of a chain is not taken while its thread lives, so a
 * chain that its owner may append to is never empty. A snapshot pins chunks by a bit of their lease words:
 * who takes a pinned one parks it, and takes the next; the snapshot puts it back. */

static bool ojo__recorder(const struct ojo__core *core) { return core->desc.overflow == OJO_OVERFLOW_DROP_OLDEST; }

/* The last chunk of a thread that ended is gone: its counts go to pool->gone, its entry may be used again.
 * Its end and the taking of its last chunk may come together: one of them finds both done. One entry at a time:
 * after a crash in between, what the pool notes in line_recorder takes half an addition back. An entry that comes
 * meanwhile is retired with the next ones. No signal may cut it short. */
static void ojo__retire_ended(struct ojo__core *core, struct ojo__thread *thread) {
  struct ojo__pool *pool = core->pool;
  uint64_t none = 0, mine = (uint64_t)(thread - core->threads) + 1, events = 0, lost = 0;
  sigset_t all, before;
  /* seq_cst: the end stores the state, then loads the count; the taker subtracts, then loads the state. */
  if (__atomic_load_n(&thread->chunks, __ATOMIC_SEQ_CST) ||
      __atomic_load_n(&thread->state, __ATOMIC_SEQ_CST) != OJO__THREAD_EXITED)
    return;
  sigfillset(&all);
  sigdelset(&all, SIGTRAP); /* a debugger's */
  pthread_sigmask(SIG_BLOCK, &all, &before);
  if (__atomic_compare_exchange_n(&pool->line_recorder[4], &none, mine, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST)) {
    /* Again: the entry may have been retired and had another life in between. A snapshot does it the other way
     * round: it says that it goes on, then waits for the lock. */
    bool retired = __atomic_load_n(&thread->chunks, __ATOMIC_SEQ_CST) == 0 &&
                   __atomic_load_n(&thread->state, __ATOMIC_SEQ_CST) == OJO__THREAD_EXITED &&
                   !__atomic_load_n(&core->snapshotting, __ATOMIC_SEQ_CST);
    for (int k = 0; retired && k <= OJO__LEVELS; k++) {
      uint64_t n = OJO__LOAD(&thread->level[k].lost);
      lost += n;
      if (k < OJO__LEVELS) events += OJO__LOAD(&thread->level[k].attempts) - n;
    }
    if (retired) {
      OJO__STORE(&pool->line_recorder[5], pool->gone.events);
      OJO__STORE(&pool->line_recorder[6], pool->gone.lost);
      OJO__STORE(&pool->line_recorder[7], mine);
      OJO__STORE(&pool->gone.last_raw, ojo__raw_now(core->t));
      OJO__STORE(&pool->gone.lost, pool->gone.lost + lost);
      OJO__STORE(&pool->gone.events, pool->gone.events + events);
      OJO__ADD(&pool->line_recorder[2], UINT64_MAX);
      OJO__STORE(&thread->state, OJO__THREAD_FREE);
      OJO__STORE(&pool->line_recorder[7], (uint64_t)0);
    }
    __atomic_store_n(&pool->line_recorder[4], (uint64_t)0, __ATOMIC_SEQ_CST);
    if (retired) ojo__push(&pool->threads_free, OJO__THREAD_LINKS(core), (uint32_t)(thread - core->threads));
  }
  pthread_sigmask(SIG_SETMASK, &before, NULL);
}

/* Makes a chunk that is off its chain, or its chain's end and ours, free for us. False: it is pinned, and parked
 * if `park`. */
static bool ojo__overwrite(struct ojo__core *core, struct ojo__chunk *chunk, bool park) {
  struct ojo__thread *thread = &core->threads[chunk->thread];
  uint64_t lease = OJO__LOAD(&chunk->lease), to;
  do {
    if ((lease & OJO__PINNED) && !park) return false;
    to = lease & OJO__PINNED ? lease | OJO__PARKED : lease & ~(uint64_t)OJO__STATE;
    /* Acquire: a snapshot's reads, which end with its release of the pin, come before our stores to the slots */
  } while (!__atomic_compare_exchange_n(&chunk->lease, &lease, to, false, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE));
  if (lease & OJO__PINNED) return false;
  __atomic_fetch_sub(&core->pool->line_lease[1], 1, __ATOMIC_RELAXED);
  if (__atomic_fetch_sub(&thread->chunks, 1, __ATOMIC_SEQ_CST) == 1) ojo__retire_ended(core, thread);
  return true;
}

/* The head of a chain, if it may be taken: index + 1, else 0. *next: what will be the head. */
static uint32_t ojo__chain_head(struct ojo__core *core, struct ojo__thread *thread, uint64_t head, uint32_t *next) {
  uint32_t at = (uint32_t)(head & OJO__LIST_INDEX);
  if (!at) return 0;
  /* The state first: a link of 0 that was read before its thread appended to it and ended is not the chain's end. */
  bool ended = OJO__LOAD(&thread->state) == OJO__THREAD_EXITED; /* pairs with ojo__thread_ended, behind all appends */
  *next = OJO__LOAD(&core->chunks[at - 1].next);                /* pairs with ojo__chain_append */
  return *next || ended ? at : 0;
}

static uint32_t ojo__chain_take(struct ojo__core *core, struct ojo__thread *thread, int level) {
  uint64_t *chain = &thread->level[level].chain, head = OJO__LOAD(chain);
  uint32_t at, next;
  while ((at = ojo__chain_head(core, thread, head, &next)) != 0) {
    uint64_t rest = ((head & ~(uint64_t)OJO__LIST_INDEX) + OJO__LIST_INDEX + 1) | next;
    if (!__atomic_compare_exchange_n(chain, &head, rest, true, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE)) continue;
    if (ojo__overwrite(core, &core->chunks[at - 1], true)) return at - 1;
    head = OJO__LOAD(chain);
  }
  return OJO__NONE;
}

/* The number of a thread's oldest lease that may be taken, and its level; UINT64_MAX: none. */
static uint64_t ojo__oldest_lease(struct ojo__core *core, struct ojo__thread *thread, int *level) {
  uint64_t oldest = UINT64_MAX;
  uint32_t next;
  for (int k = 0; k < OJO__LEVELS; k++) {
    uint32_t at = ojo__chain_head(core, thread, OJO__LOAD(&thread->level[k].chain), &next);
    uint64_t number = at ? OJO__LOAD(&core->chunks[at - 1].lease) >> OJO__LEASE_SHIFT : UINT64_MAX;
    if (number < oldest) oldest = number, *level = k;
  }
  return oldest;
}

/* A chunk to overwrite. By age alone one busy thread would erase the idle ones, so each keeps its share, half
 * of what an equal division among the living would give it: who has that takes its own oldest, or an older one
 * of a thread that ended; who has less takes from those that ended, else from the one that has most, else its
 * own. With many entries only a few are looked at each time, so that a chunk change stays short; all of them for
 * who would get no chunk else, but after many failures seldom, since then each record comes here. */
static uint32_t ojo__take_oldest(struct ojo__core *core, struct ojo__thread *me, const struct ojo__level *mine) {
  struct ojo__pool *pool = core->pool;
  bool wide = !mine->newest && (mine->failed & (mine->failed - 1)) == 0;
  for (int round = 0; round < 16; round++) { /* another thread may take what we chose */
    uint64_t alive = OJO__PEEK(&pool->line_recorder[1]), share = core->chunk_count / (2 * (alive ? alive : 1));
    uint64_t entries = OJO__LOAD(&pool->threads_fresh), look = entries, most, oldest = UINT64_MAX;
    struct ojo__thread *ended = NULL, *richest = NULL;
    int own_level = 0, ended_level = 0, level = 0;
    uint64_t own = ojo__oldest_lease(core, me, &own_level), held = OJO__PEEK(&me->chunks);
    bool enough = own != UINT64_MAX && held >= 2 && held >= share;
    if (enough) look = !OJO__PEEK(&pool->line_recorder[2]) ? 0 : entries < 16 ? entries : 16;
    else if (!wide && look > OJO__LOOK) look = OJO__LOOK;
    most = own == UINT64_MAX ? 1 : held > share ? held : share;
    uint64_t at = look ? __atomic_fetch_add(&pool->line_recorder[3], look, __ATOMIC_RELAXED) : 0;
    for (uint64_t i = 0; i < look && (i < OJO__LOOK || (!ended && !richest)); i++) {
      struct ojo__thread *thread = &core->threads[(at + i) % entries];
      uint32_t state = OJO__LOAD(&thread->state);
      if (state == OJO__THREAD_EXITED) {
        uint64_t number = ojo__oldest_lease(core, thread, &level);
        if (number < oldest) oldest = number, ended = thread, ended_level = level;
      } else if (!enough && state == OJO__THREAD_LIVE && thread != me && OJO__PEEK(&thread->chunks) > most &&
                 ojo__oldest_lease(core, thread, &level) != UINT64_MAX) {
        most = OJO__PEEK(&thread->chunks);
        richest = thread;
      }
    }
    if (ended && enough && oldest > own) ended = NULL;
    if (!ended && (enough || !richest) && own == UINT64_MAX) return OJO__NONE;
    if (!ended && richest) (void)ojo__oldest_lease(core, richest, &level);
    uint32_t index = ended     ? ojo__chain_take(core, ended, ended_level)
                     : richest ? ojo__chain_take(core, richest, level)
                               : ojo__chain_take(core, me, own_level);
    if (index != OJO__NONE) return index;
  }
  return OJO__NONE;
}

/* Appends a chunk to its level's chain; its link is 0, its lease stored. */
static void ojo__chain_append(struct ojo__core *core, struct ojo__level *level, uint32_t index) {
  if (level->newest == index + 1) return; /* it was overwritten in its place */
  if (level->newest) OJO__STORE(&core->chunks[level->newest - 1].next, index + 1);
  else ojo__push(&level->chain, OJO__CHUNK_LINKS(core), index);
  OJO__SET(&level->newest, index + 1);
}

/* ---- >>pool, continued: what a thread does with its chunks -------------------------------------- */

/* A chunk to lease: the last one freed (still in cache), else a fresh one. OJO__NONE: the pool is full,
 * or the tmpfs is. */
static uint32_t ojo__take_chunk(struct ojo__core *core, struct ojo__thread *thread, int level) {
  struct ojo__pool *pool = core->pool;
  uint32_t shared = core->chunk_count - core->nested_count;
  uint64_t newest = thread->level[level].newest; /* flight recorder: ours, and nobody else takes it */
  if (newest && (OJO__LOAD(&core->chunks[newest - 1].lease) & OJO__STATE) == OJO__FREE)
    return (uint32_t)(newest - 1); /* overwritten in its place, when a longjmp cut that short */
  uint32_t index = ojo__pop(&pool->line_free[0], OJO__CHUNK_LINKS(core));
  if (index == OJO__NONE) {
    uint64_t ready = OJO__LOAD(&pool->line_fresh[1]); /* pairs with the flusher's release behind ojo__populate_chunk */
    index = ojo__take_fresh(core, &pool->line_fresh[0], 0, shared, ready);
    /* Half of the reserve is gone: more of it, before each page has us stop for it. Not for a thread's first chunk:
     * a thousand short threads use a page of each. */
    if (index != OJO__NONE && index + core->desc.reserve_bytes / OJO__CHUNK_BYTES / 2 >= ready && ready < shared &&
        OJO__PEEK(&thread->level[level].attempts) && OJO__PEEK(&core->sleeping)) {
      OJO__SET(&core->reserve_low, 1);
      ojo__wake_flusher(core);
    }
  }
  if (index == OJO__NONE && (index = ojo__pop(&pool->line_free[2], OJO__CHUNK_LINKS(core))) != OJO__NONE) {
    if (!ojo__populate_chunk(core, index)) {
      ojo__push(&pool->line_free[2], OJO__CHUNK_LINKS(core), index);
      index = OJO__NONE;
    } else {
      __atomic_fetch_sub(&pool->line_free[3], 1, __ATOMIC_RELAXED);
    }
  }
  if (index == OJO__NONE && level > 0) index = ojo__pop(&pool->line_free[1], OJO__CHUNK_LINKS(core));
  if (index == OJO__NONE && level > 0)
    index = ojo__take_fresh(core, &pool->line_fresh[2], shared, core->nested_count, 0);
  if (index != OJO__NONE || !ojo__recorder(core)) return index;
  struct ojo__level *mine = &thread->level[level];
  index = ojo__take_oldest(core, thread, mine);
  if (index == OJO__NONE && newest && ojo__overwrite(core, &core->chunks[newest - 1], false))
    index = (uint32_t)(newest - 1);
  mine->failed = index == OJO__NONE ? mine->failed + 1 : 0;
  return index;
}

/* Gives a chunk to the flusher. Its lease word stays LEASED until the flusher takes it off the list: a
 * hand-off that a longjmp cuts short leaves a chunk that is still harvested. The push comes BEFORE the
 * next lease's release store, so a pass that notes the new chunk finds the old one on the list; and its events are
 * counted before both, since the next chunk's ordinal begins there. */
static void ojo__hand_off(struct ojo__core *core, struct ojo__chunk *chunk) {
  struct ojo__pool *pool = core->pool;
  if (ojo__recorder(core)) { /* it stays where it is in its chain; a pin stays too */
    OJO__ADD(&chunk->lease, OJO__FULL - OJO__LEASED);
    return;
  }
  uint64_t queued = __atomic_add_fetch(&pool->line_lease[2], OJO__PEEK(&chunk->committed), __ATOMIC_SEQ_CST);
  ojo__push(&pool->line_full[0], OJO__CHUNK_LINKS(core), (uint32_t)(chunk - core->chunks)); /* model: C2 */
  uint64_t in_use = OJO__PEEK(&pool->line_lease[1]);
  /* At a quarter of the pool the flusher may have little but partly filled chunks to free. */
  if ((queued >= core->desc.flush_bytes || in_use >= core->chunk_count / 4) &&
      __atomic_load_n(&core->sleeping, __ATOMIC_SEQ_CST))
    ojo__wake_flusher(core);
}

/* Takes a level's chunk away from its context and hands it off. */
static void ojo__give_up(struct ojo__core *core, struct ojo__context *context, int level) {
  struct ojo__chunk *chunk = context->lease[level].chunk;
  struct ojo__level *counts = &context->thread->level[level];
  if (chunk == OJO__NONE_LEASED) return;
  context->lease[level].taking = 0; /* of this very chunk, where a longjmp came between its lease and this */
  /* Counted from the chunk's own numbers, so that a longjmp out of a handler that comes in between, after which
   * this is not done again, or done twice, leaves the count right. */
  OJO__STORE(&counts->attempts, chunk->ordinal + ojo__chunk_events(chunk) + (counts->lost - chunk->lost));
  OJO__SET(&chunk->flags, OJO__CHUNK_HANDED);
  context->lease[level].chunk = OJO__NONE_LEASED; /* model: C1 */
  if (level == 0 && ojo__local.hot == context) ojo__hot.chunk = OJO__NONE_LEASED;
  OJO__COMPILER_BARRIER(); /* a longjmp from here on must not find it again */
  ojo__hand_off(core, chunk);
}

/* Hands the level's chunk off and leases another. False: there is none; the level then has no chunk. The
 * level's marker is held. */
static bool ojo__change(struct ojo__core *core, struct ojo__context *context, int level) {
  struct ojo__pool *pool = core->pool;
  struct ojo__thread *thread = context->thread;
  struct ojo__level *counts = &thread->level[level];
  ojo__give_up(core, context, level);
  /* `taking`: a chunk that a longjmp kept us from leasing last time. */
  uint32_t taking = context->lease[level].taking, counted = UINT32_C(1) << 31;
  uint32_t index = taking ? (taking & ~counted) - 1 : ojo__take_chunk(core, thread, level); /* model: C3 */
  if (index == OJO__NONE) {
    if (OJO__PEEK(&core->sleeping)) ojo__wake_flusher(core); /* stale: the next record that finds none looks again */
    return false;
  }
  if (!taking) context->lease[level].taking = index + 1;
  OJO__COMPILER_BARRIER();
  struct ojo__chunk *chunk = &core->chunks[index];
  unsigned char *base = core->data + (uint64_t)index * OJO__CHUNK_BYTES;
  for (unsigned at = 0; at < OJO__AHEAD_BYTES; at += 64) ojo__ahead(base + at);
  OJO__SET(&chunk->committed, 0); /* model: C4 */
  chunk->published = chunk->harvested = 0;
  chunk->batch = 0;
  /* Relaxed atomics: a snapshot may look at a chunk that it then finds leased anew. */
  OJO__SET(&chunk->ordinal, counts->attempts);
  OJO__SET(&chunk->lost, counts->lost);
  OJO__SET(&chunk->thread, (uint32_t)(thread - core->threads));
  OJO__SET(&chunk->level, (uint16_t)level);
  OJO__SET(&chunk->flags, 0);
  OJO__SET(&chunk->extension_slots, 0);
  if (ojo__recorder(core) && counts->newest != index + 1) OJO__SET(&chunk->next, 0);
  if (!(taking & counted)) {
    OJO__ADD(&thread->chunks, 1);
    __atomic_fetch_add(&pool->line_lease[1], 1, __ATOMIC_SEQ_CST); /* before `sleeping` is loaded at a hand-off */
    context->lease[level].taking = (index + 1) | counted;
    OJO__COMPILER_BARRIER();
  }
  /* model: C5; the context's lease is C6. Release: who sees LEASED (flusher, recoverer: acquire) sees the fields
   * above, and committed 0. */
  OJO__STORE(&chunk->lease, (OJO__ADD(&pool->line_lease[0], 1) + 1) << OJO__LEASE_SHIFT | OJO__LEASED);
  if (ojo__recorder(core)) ojo__chain_append(core, counts, index);
  context->lease[level].base = base;
  context->lease[level].chunk = chunk;
  OJO__COMPILER_BARRIER();
  context->lease[level].taking = 0;
  if (level == 0) {
    ojo__hot.base = context->lease[0].base;
    OJO__COMPILER_BARRIER();
    ojo__hot.chunk = chunk;
  }
  return true;
}

/* ---- >>threads ---------------------------------------------------------------------------------- */

/* Counts `count` losses of one (thread, level) whose marker we hold. */
static void ojo__lose(ojo_tracer *t, struct ojo__level *level, uint64_t raw, uint64_t count,
                      ojo_drop_reason reason) {
  if (!raw) raw = ojo__raw_now(t);
  if (level->lost == OJO__LOAD(&level->lost_taken)) OJO__SET(&level->lost_first, raw);
  OJO__SET(&level->lost_last, raw);
  OJO__SET(&level->reason, (uint64_t)reason);
  OJO__STORE(&level->attempts, level->attempts + count);
  OJO__STORE(&level->lost, level->lost + count);
}
/* Likewise where no marker is held: nested too deep, or no thread entry (pool->nobody). */
static void ojo__lose_shared(ojo_tracer *t, struct ojo__level *level, uint64_t raw, uint64_t count) {
  if (!raw) raw = ojo__raw_now(t);
  if (OJO__PEEK(&level->lost) == OJO__LOAD(&level->lost_taken)) OJO__SET(&level->lost_first, raw);
  OJO__SET(&level->lost_last, raw);
  OJO__ADD(&level->lost, count);
}

static struct ojo__context *ojo__find_context(uint64_t generation) {
  for (int i = 0; i < OJO__CONTEXTS; i++)
    if (ojo__local.context[i].generation == generation) return &ojo__local.context[i];
  return NULL;
}

/* Hands all of a context's chunks off. If its tracer was closed its generation is another one now (the
 * struct is never unmapped): then there is nothing to give back. */
static void ojo__leave(struct ojo__context *context) {
  if (context->generation && OJO__PEEK(&context->t->generation) == context->generation) {
    struct ojo__core *core = OJO__PEEK(&context->t->core);
    for (int level = 0; core && level < OJO__LEVELS; level++) {
      uint64_t newest = context->thread->level[level].newest;
      bool cut = newest && (OJO__LOAD(&core->chunks[newest - 1].lease) & OJO__STATE) == OJO__FREE;
      if (context->lease[level].chunk == OJO__NONE_LEASED && (cut || context->lease[level].taking))
        ojo__change(core, context, level); /* a longjmp cut it short */
      ojo__give_up(core, context, level);
    }
  }
  if (ojo__local.hot == context) {
    ojo__local.hot = NULL;
    ojo__hot.chunk = OJO__NONE_LEASED;
  }
  context->generation = 0;
}

/* A thread table entry: one that this thread left before (its context was evicted), a freed one, or a
 * fresh one. NULL: the table is full. */
static struct ojo__thread *ojo__thread_entry(struct ojo__core *core) {
  struct ojo__pool *pool = core->pool;
  struct ojo__thread *thread = NULL;
  uint64_t fresh = OJO__LOAD(&pool->threads_fresh);
  if (ojo__local.evicted)
    for (uint64_t i = 0; i < fresh; i++)
      if (OJO__LOAD(&core->threads[i].state) == OJO__THREAD_LIVE &&
          OJO__PEEK(&core->threads[i].serial) == ojo__local.serial) {
        OJO__STORE(&core->threads[i].evicted, 0);
        return &core->threads[i];
      }
  uint32_t freed = ojo__pop(&pool->threads_free, OJO__THREAD_LINKS(core));
  if (freed != OJO__NONE) thread = &core->threads[freed];
  while (!thread && fresh < OJO__THREADS_MAX && ojo__populate(core, &core->threads[fresh], sizeof *thread))
    if (__atomic_compare_exchange_n(&pool->threads_fresh, &fresh, fresh + 1, true, __ATOMIC_ACQ_REL,
                                    __ATOMIC_RELAXED))
      thread = &core->threads[fresh];
  if (!thread) return NULL;
  for (int k = 0; k <= OJO__LEVELS; k++) /* but for the chain, which is empty: its tag goes on */
    memset(&thread->level[k].attempts, 0, sizeof thread->level[k] - offsetof(struct ojo__level, attempts));
  memset(thread->name, 0, sizeof thread->name);
  thread->number = (uint32_t)OJO__ADD(&pool->thread_number, 1) + 1;
  thread->tid = (uint32_t)syscall(SYS_gettid);
  prctl(PR_GET_NAME, thread->name, 0, 0, 0);
  thread->first_raw = ojo__raw_now(core->t);
  thread->serial = ojo__local.serial;
  OJO__SET(&thread->chunks, 0);
  OJO__SET(&thread->evicted, 0);
  thread->batch = 0;
  if (ojo__recorder(core)) OJO__ADD(&pool->line_recorder[1], 1);
  OJO__STORE(&thread->state, OJO__THREAD_LIVE); /* the flusher looks at entries in this state: acquire */
  return thread;
}

/* This thread's context for a tracer that it has not recorded into yet, or not for long. Signals are
 * blocked meanwhile: once per thread and tracer, and no handler sees half a context. NULL: counted. */
static struct ojo__context *ojo__new_context(ojo_tracer *t, struct ojo__core *core, uint64_t generation,
                                             int level) {
  struct ojo__context *context = NULL;
  sigset_t all, before;
  int cancel = 0;
  pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &cancel); /* libc may allocate, and half an entry is lost */
  sigfillset(&all);
  pthread_sigmask(SIG_BLOCK, &all, &before);
  if (!ojo__local.registered) {
    ojo__local.serial = OJO__ADD(&ojo__serials_shared, 1) + 1;
    ojo__local.registered = ojo__key_made && pthread_setspecific(ojo__key, &ojo__local) == 0;
  }
  for (int i = 0; i < OJO__CONTEXTS && !context; i++) {
    struct ojo__context *c = &ojo__local.context[i];
    if (c->generation == 0 || OJO__PEEK(&c->t->generation) != c->generation) context = c;
  }
  if (!context && level == 0) { /* the one after the hot one: they take turns. A nested record must not */
    int hot = ojo__local.hot ? (int)(ojo__local.hot - ojo__local.context) : 0; /* take one in use below it */
    context = &ojo__local.context[(hot + 1) % OJO__CONTEXTS];
    ojo__local.evicted = true;
  }
  struct ojo__thread *thread = context ? ojo__thread_entry(core) : NULL;
  if (!thread) context = NULL;
  if (context) {
    bool alive = context->generation && OJO__PEEK(&context->t->generation) == context->generation;
    ojo__leave(context);
    if (alive) OJO__STORE(&context->thread->evicted, 1);
    context->t = t;
    context->thread = thread;
    memset(context->lease, 0, sizeof context->lease);
    for (int i = 0; i < OJO__LEVELS; i++) context->lease[i].chunk = OJO__NONE_LEASED;
    context->generation = generation;
  }
  pthread_sigmask(SIG_SETMASK, &before, NULL);
  pthread_setcancelstate(cancel, NULL);
  return context;
}

/* A thread has no chunk leased any more and will have none. */
static void ojo__thread_ended(struct ojo__core *core, struct ojo__thread *thread) {
  if (ojo__recorder(core)) {
    OJO__ADD(&core->pool->line_recorder[1], UINT64_MAX);
    OJO__ADD(&core->pool->line_recorder[2], 1);
  }
  __atomic_store_n(&thread->state, OJO__THREAD_EXITED, __ATOMIC_SEQ_CST); /* last: the entry may be used again */
  if (ojo__recorder(core)) ojo__retire_ended(core, thread);
}

/* The thread ends: its chunks go to the flusher, its entries may be used again once they are written. */
static void ojo__thread_exit(void *unused) {
  (void)unused;
  sigset_t all, before;
  sigfillset(&all);
  pthread_sigmask(SIG_BLOCK, &all, &before);
  ojo__hot.generation = 0;
  for (int i = 0; i < OJO__CONTEXTS; i++) {
    struct ojo__context *c = &ojo__local.context[i];
    bool alive = c->generation && OJO__PEEK(&c->t->generation) == c->generation;
    struct ojo__core *core = alive ? OJO__PEEK(&c->t->core) : NULL;
    ojo__leave(c);
    if (core) ojo__thread_ended(core, c->thread);
  }
  ojo__local.registered = false; /* a later destructor that records registers anew */
  pthread_sigmask(SIG_SETMASK, &before, NULL);
}

/* The bounds of this thread's own stack: [stack] for the main thread, else from the start of the mapping
 * that holds its thread-local storage up to that storage, which libc puts at the stack's top. (What lies
 * above it in the same mapping may be a sigaltstack.) Read with system calls alone: signal-safe,
 * as pthread_getattr_np is not, and no point of cancellation, as open and read are. */
static void ojo__find_stack(void) {
  char text[4096], line[256];
  size_t used = 0;
  ssize_t got;
  int saved = errno;
  bool main_thread = syscall(SYS_gettid) == getpid();
  sigset_t all, before;
  sigfillset(&all);
  pthread_sigmask(SIG_BLOCK, &all, &before); /* a jump out of here would leave it unknown for good */
  ojo__local.stack_high = 1;
  int fd = (int)syscall(SYS_openat, AT_FDCWD, "/proc/self/maps", O_RDONLY | O_CLOEXEC);
  while (fd >= 0 && (got = (ssize_t)syscall(SYS_read, fd, text, sizeof text)) > 0)
    for (ssize_t i = 0; i < got; i++) {
      if (text[i] != '\n') {
        if (used < sizeof line - 1) line[used++] = text[i];
        continue;
      }
      line[used] = 0;
      uintptr_t bound[2] = {0, 0};
      const char *p = line;
      for (int k = 0; k < 2; k++, p++)
        for (; (*p >= '0' && *p <= '9') || (*p >= 'a' && *p <= 'f'); p++)
          bound[k] = bound[k] * 16 + (uintptr_t)(*p <= '9' ? *p - '0' : *p - 'a' + 10);
      bool here = main_thread ? used > 7 && strcmp(line + used - 7, "[stack]") == 0
                              : bound[0] <= (uintptr_t)&ojo__local && (uintptr_t)&ojo__local < bound[1];
      used = 0;
      if (!here) continue;
      ojo__local.stack_low = main_thread ? bound[1] - ((uintptr_t)1 << 30) : bound[0]; /* it grows */
      ojo__local.stack_high = main_thread ? bound[1] : (uintptr_t)&ojo__local;
    }
  if (fd >= 0) syscall(SYS_close, fd);
  errno = saved;
  pthread_sigmask(SIG_SETMASK, &before, NULL);
}

/* Is a marker's record over, left by a longjmp? Stacks grow down and a handler's frames lie below those
 * that it interrupted: if we stand at or above the marker's frame, on the thread's own stack both, that
 * frame is gone. On any other stack (sigaltstack, coroutines) nothing is known: it counts as alive. */
static bool ojo__dead(uint64_t marker, const void *frame) {
  if (ojo__local.stack_high == 0) ojo__find_stack();
  uintptr_t low = ojo__local.stack_low, high = ojo__local.stack_high, m = (uintptr_t)marker, f = (uintptr_t)frame;
  return m >= low && m < high && f >= low && f < high && f >= m;
}

/* ---- >>record ----------------------------------------------------------------------------------- */

/* Stores one of the two words that say what is recorded, and what follows from both. Of several that do so at once, in
 * threads or handlers, each stores `every` before it looks whether it had gone by what still holds: the last to look
 * finds that it had. */
static void ojo__keep(ojo_tracer *t, uint32_t *word, uint32_t value) {
  uint32_t mask, below;
  __atomic_store_n(word, value, __ATOMIC_SEQ_CST);
  do {
    mask = __atomic_load_n(&t->mask, __ATOMIC_SEQ_CST);
    below = __atomic_load_n(&t->sample_below, __ATOMIC_SEQ_CST);
    __atomic_store_n(&t->every, below >= 1024u ? mask : 0, __ATOMIC_SEQ_CST);
  } while (__atomic_load_n(&t->mask, __ATOMIC_SEQ_CST) != mask ||
           __atomic_load_n(&t->sample_below, __ATOMIC_SEQ_CST) != below);
}

/* Nested records, the flusher itself (a logger that records) and tracers without a flusher never wait. */
static bool ojo__may_block(struct ojo__core *core, int level) {
  return core->desc.overflow == OJO_OVERFLOW_BLOCK && level == 0 && !core->desc.no_thread &&
         !pthread_equal(pthread_self(), core->thread);
}

/* Waits for a free chunk under OJO_OVERFLOW_BLOCK. */
static bool ojo__block(struct ojo__core *core, struct ojo__context *context, int level) {
  if (!ojo__may_block(core, level)) return false;
  int saved = errno;
  uint64_t most = (uint64_t)core->desc.block_timeout_ms * 1000000u, end = UINT64_MAX, now = 0;
  bool got = false;
  while (!got && !OJO__LOAD(&core->stop)) {
    now = ojo__clock_ns(CLOCK_MONOTONIC);
    end = ojo__deadline(end, now, most);
    if (now >= end) break;
    __atomic_fetch_add(&core->waiters, 1, __ATOMIC_SEQ_CST);
    uint32_t seen = __atomic_load_n(&core->freed, __ATOMIC_SEQ_CST); /* before the list is tried again */
    got = ojo__change(core, context, level);
    if (!got) {
      ojo__wake_flusher(core);
      ojo__futex_wait(&core->freed, seen, end - now < 100000000u ? end - now : 100000000u);
    }
    __atomic_fetch_sub(&core->waiters, 1, __ATOMIC_SEQ_CST);
  }
  errno = saved;
  return got;
}

struct ojo__record { /* what is to be recorded */
  uint64_t raw;
  uint32_t type, flow;
  uint64_t payload;
  const void *bytes; /* extension; or, for a pair, the second event */
  size_t length;
  bool pair;
};

/* Appends a record to a chunk that has room for it, behind a marker. */
OJO__INLINE void ojo__append(ojo_tracer *t, struct ojo__chunk *chunk, unsigned char *base, uint64_t at,
                             const struct ojo__record *r, uint32_t extra) {
  ojo_event *slot = (ojo_event *)(void *)(base + at);
  ojo__ahead((const unsigned char *)slot + OJO__AHEAD_BYTES);
  slot->ts = r->raw ? r->raw : ojo__raw_now(t);
  slot->type = r->pair ? r->type : r->type | extra << OJO_EXTENSION_SHIFT;
  slot->flow = r->flow;
  slot->payload = r->payload;
  if (extra) {
    memset(slot + extra, 0, sizeof *slot); /* what the last one does not fill is zero */
    memcpy(slot + 1, r->bytes, r->length);
  }
  if (r->pair) slot[1].ts = slot->ts;
  else OJO__SET(&chunk->extension_slots, chunk->extension_slots + extra);
  /* Release: pairs with the flusher's and the recoverer's acquire; slots before it are whole. */
  __atomic_store_n(&chunk->committed, at + (uint64_t)OJO_SLOT_BYTES * (1 + extra), __ATOMIC_RELEASE);
}

/* Writes one record at a level whose marker we hold. */
static void ojo__put(ojo_tracer *t, struct ojo__core *core, struct ojo__context *context, int level,
                     const struct ojo__record *r) {
  uint32_t extra = (uint32_t)((r->length + OJO_SLOT_BYTES - 1) / OJO_SLOT_BYTES);
  uint64_t size = (uint64_t)OJO_SLOT_BYTES * (1 + extra), events = r->pair ? 2 : 1;
  if (r->length > OJO_EXTENSION_BYTES_MAX) {
    ojo__lose(t, &context->thread->level[level], r->raw, events, OJO_DROP_EXTENSION_TOO_LONG);
    return;
  }
  struct ojo__chunk *chunk = context->lease[level].chunk;
  uint64_t at = OJO__PEEK(&chunk->committed);
  if (at + size > OJO__CHUNK_LIMIT) {
    if (!ojo__change(core, context, level) && !ojo__block(core, context, level)) {
      ojo__lose(t, &context->thread->level[level], r->raw, events,
                ojo__may_block(core, level) ? OJO_DROP_BLOCK_TIMEOUT : OJO_DROP_POOL_FULL);
      return;
    }
    chunk = context->lease[level].chunk;
    at = 0;
  }
  ojo__append(t, chunk, context->lease[level].base, at, r, extra);
}

/* A record was cut short by a longjmp, perhaps between the two stores that count its slots. */
static void ojo__recount(int level) {
  for (int i = 0; i < OJO__CONTEXTS; i++) {
    struct ojo__context *c = &ojo__local.context[i];
    if (!c->generation || c->t->generation != c->generation || c->lease[level].chunk == OJO__NONE_LEASED) continue;
    struct ojo__chunk *chunk = c->lease[level].chunk;
    uint64_t end = OJO__PEEK(&chunk->committed);
    uint32_t extra = 0;
    for (uint64_t at = 0, n; at < end; at += OJO_SLOT_BYTES * (1 + n), extra += (uint32_t)n)
      n = ((const ojo_event *)(const void *)(c->lease[level].base + at))->type >> OJO_EXTENSION_SHIFT;
    OJO__SET(&chunk->extension_slots, extra);
  }
}

/* Every record that is not the inline fast path: no lease from this tracer yet, nested in another record,
 * or longer than a slot. */
static void ojo__enter(ojo_tracer *t, const struct ojo__record *r, const void *frame) {
  /* Read once: a fork in a handler wipes *t under us, and the child must get through this. */
  struct ojo__core *core = OJO__PEEK(&t->core);
  uint64_t generation = OJO__PEEK(&t->generation), marker = ojo__hot.generation;
  uint64_t *word = &ojo__hot.generation;
  int level = 0;
  bool cut = false;
  if (!generation || !core) return; /* closed meanwhile */
  for (; level < OJO__LEVELS; level++) { /* model: L1 */
    if (level) word = &ojo__local.busy[level], marker = *word;
    if (marker == 0 || marker >> 63 || (cut = ojo__dead(marker, frame))) break;
  }
  if (level == OJO__LEVELS) {
    struct ojo__context *context = ojo__find_context(generation);
    ojo__lose_shared(t, context ? &context->thread->level[OJO__LEVELS] : &core->pool->nobody, r->raw,
                     r->pair ? 2 : 1);
    return;
  }
  *word = (uint64_t)(uintptr_t)frame; /* model: L2. The marker, before any cursor is loaded: see ojo__record */
  OJO__COMPILER_BARRIER();
  if (OJO__UNLIKELY(cut)) ojo__recount(level);
  struct ojo__context *context = ojo__find_context(generation);
  if (!context) context = ojo__new_context(t, core, generation, level);
  if (context) {
    if (level == 0) {
      ojo__local.hot = context;
      ojo__hot.owner = generation; /* model: L3 */
      ojo__hot.base = context->lease[0].base;
      ojo__hot.chunk = context->lease[0].chunk;
    }
    ojo__put(t, core, context, level, r);
  } else {
    ojo__lose_shared(t, &core->pool->nobody, r->raw, r->pair ? 2 : 1);
  }
  OJO__COMPILER_BARRIER();
  *word = level == 0 && context ? generation : 0; /* model: L4 */
}

OJO_API void ojo__slow(ojo_tracer *t, uint64_t raw, uint32_t type, uint32_t flow, uint64_t payload,
                       const void *frame) {
  struct ojo__record r = {raw, type, flow, payload, NULL, 0, false};
  ojo__enter(t, &r, frame);
}
/* The fast path found its chunk full; it holds level 0's marker. */
OJO_API void ojo__full(ojo_tracer *t, uint64_t raw, uint32_t type, uint32_t flow, uint64_t payload) {
  struct ojo__record r = {raw, type, flow, payload, NULL, 0, false};
  struct ojo__core *core = OJO__PEEK(&t->core);
  uint64_t generation = OJO__PEEK(&t->generation);
  if (generation && core && ojo__local.hot) ojo__put(t, core, ojo__local.hot, 0, &r);
  OJO__COMPILER_BARRIER();
  ojo__hot.generation = generation;
}
/* ojo__record with extension slots. False: not recorded, since that is not the usual case. */
static bool ojo__ext_fast(ojo_tracer *t, const struct ojo__record *r, const void *frame) {
  uint64_t generation = OJO__PEEK(&t->generation);
  uint32_t extra = (uint32_t)((r->length + OJO_SLOT_BYTES - 1) / OJO_SLOT_BYTES);
  if (ojo__hot.generation != generation || r->length - 1 >= OJO_EXTENSION_BYTES_MAX) return false;
  ojo__hot.generation = (uint64_t)(uintptr_t)frame; /* the marker, before the cursor is loaded */
  OJO__COMPILER_BARRIER();
  struct ojo__chunk *chunk = ojo__hot.chunk;
  uint64_t at = OJO__PEEK(&chunk->committed);
  bool fits = ojo__hot.owner == generation && at + (uint64_t)OJO_SLOT_BYTES * (1 + extra) <= OJO__CHUNK_LIMIT;
  if (OJO__LIKELY(fits)) ojo__append(t, chunk, ojo__hot.base, at, r, extra);
  OJO__COMPILER_BARRIER();
  ojo__hot.generation = ojo__hot.owner == generation ? generation : 0;
  return fits;
}
OJO_API void ojo__ext(ojo_tracer *t, uint64_t raw, uint32_t type, uint32_t flow, uint64_t payload,
                      const void *bytes, size_t length) {
  struct ojo__record r = {raw, type, flow, payload, bytes, length, false};
  const void *frame = __builtin_frame_address(0);
  if (!ojo__ext_fast(t, &r, frame)) ojo__enter(t, &r, frame);
}
OJO_API void ojo__retransmit(ojo_tracer *t, uint64_t raw, uint32_t flow, uint64_t old_number,
                             uint64_t new_number) {
  ojo_event second = {0, OJO_PACKET_RETRANSMIT_NEW, flow, new_number};
  struct ojo__record r = {raw, OJO_PACKET_RETRANSMIT_OLD, flow, old_number, &second, sizeof second, true};
  ojo__enter(t, &r, __builtin_frame_address(0));
}
OJO_API void ojo__long_sized(ojo_tracer *t, uint64_t raw, uint32_t type, uint32_t flow, uint64_t value,
                             uint64_t size) {
  bool range = type >= OJO_OFFSET_SENT && type <= OJO_OFFSET_RECEIVED;
  struct ojo__core *core = OJO__PEEK(&t->core);
  for (size_t i = 0; core && type >= OJO_APPLICATION_TYPE_FIRST && i < core->type_count; i++)
    if (core->types[i].value == type) range = core->types[i].value_kind == OJO_VALUE_RANGE;
  uint64_t number = range ? value + size : size; /* the slot form of a range holds its end */
  ojo__ext(t, raw, type, flow, value, &number, sizeof number);
}

/* ---- >>writer ----------------------------------------------------------------------------------- */

/* Comments "model: X" name the steps of the models in tests/model/, which spin checks.
 *
 * The rename of a batch's file from staging/ to output/ is the commit. A chunk's bytes stay in the pool
 * until the batch that holds them is renamed, so after a crash at any step every event is in exactly one
 * of output/ and the pool:
 *   - staging/b is created BEFORE open_batch = b is stored: an open batch whose staging file is gone was
 *     renamed;
 *   - taking a chunk into batch b stores published = harvested, then batch = b, then harvested = end:
 *     whether b was renamed says which of the two holds;
 *   - a failed batch is rolled back (harvested = published) BEFORE its staging file is unlinked, and its
 *     number is never used again. Numbers start at 1: batch 0 is "none", and counts as published. */

static ojo_result ojo__open_dirs(struct ojo__core *core);
static bool ojo__pool_link(struct ojo__core *core);

/* The flusher hands transfers over by raising `handed`, the writer tells of them by raising `written`: each a futex
 * that the other sleeps on. transfer[n % OJO__BUFFERS] is the writer's from one to the other, as is that buffer. */
static void *ojo__writer(void *argument) {
  struct ojo__core *core = (struct ojo__core *)argument;
  sigset_t all;
  sigfillset(&all); /* its own faults too: a crash handler in it would wait for the flusher, who waits for it */
  pthread_sigmask(SIG_SETMASK, &all, NULL);
  prctl(PR_SET_NAME, "ojo-writer", 0, 0, 0);
  for (;;) {
    uint32_t handed = OJO__LOAD(&core->handed); /* pairs with ojo__hand_over */
    uint32_t written = OJO__PEEK(&core->written_parts);
    if ((handed & ~OJO__HANDED_END) != written) {
      ojo__transfer_do(&core->transfer[written % OJO__BUFFERS]);
      OJO__STORE(&core->written_parts, (written + 1) & ~OJO__HANDED_END);
      ojo__futex_wake(&core->written_parts);
    } else if (handed & OJO__HANDED_END) {
      return NULL;
    } else {
      ojo__futex_wait(&core->handed, handed, 3600000000000u);
    }
  }
}

/* Has the writer do `w`. */
static bool ojo__hand_over(struct ojo__core *core, const struct ojo__transfer *w) {
  uint32_t handed = OJO__PEEK(&core->handed);
  if (!core->writer_runs && pthread_create(&core->writer, NULL, ojo__writer, core) != 0) return false;
  core->writer_runs = true;
  core->transfer[handed % OJO__BUFFERS] = *w;
  OJO__STORE(&core->handed, (handed + 1) & ~OJO__HANDED_END);
  ojo__futex_wake(&core->handed);
  return true;
}

/* trace_{us}_{sequence}.bin. By hand: snprintf is not for signal handlers. */
static void ojo__name(char *out, uint64_t us, uint64_t sequence) {
  const uint64_t numbers[2] = {us, sequence};
  memcpy(out, "trace", 5);
  out += 5;
  for (int i = 0; i < 2; i++) {
    char digits[20];
    int n = 0;
    uint64_t left = numbers[i];
    do digits[n++] = (char)('0' + left % 10);
    while ((left /= 10) != 0);
    for (*out++ = '_'; n; ) *out++ = digits[--n];
  }
  memcpy(out, ".bin", 5);
}

/* Creates a file in staging/, with a name of its own. A directory that was removed under us is made anew. */
static bool ojo__staging_create(struct ojo__core *core) {
  struct ojo__batch *b = &core->batch;
  for (int reopened = 0;;) {
    ojo__name(b->name, b->us, core->sequence++);
    /* model: B1; the file is B2. The pool has the name for a recoverer; what others make of it is not used here */
    memcpy(core->pool->staging_name, b->name, sizeof b->name);
    b->fd = ojo__openat(core->staging_fd, b->name, O_WRONLY | O_CREAT | O_EXCL, core->desc.file_mode);
    if (b->fd >= 0) return true;
    if (errno == EEXIST) continue; /* another process on this directory, in the same microsecond */
    core->sequence--; /* a recoverer goes on from open_batch */
    if ((errno != ENOENT && core->staging_fd >= 0) || reopened++ || ojo__open_dirs(core) != OJO_OK)
      return ojo__batch_failed(core, "create a file in staging/");
  }
}

static bool ojo__batch_begin(struct ojo__core *core) {
  ojo__batch_zero(core, core->pool->open_batch + 1);
  if (!ojo__staging_create(core)) return false;
  OJO__STORE(&core->pool->open_batch, core->batch.number); /* model: B3. From now on its absence says: renamed */
  return true;
}

/* Puts staging/b into output/ under a name that is not taken. */
static bool ojo__rename(struct ojo__core *core) {
  const char *from = core->batch.name;
  char to[64];
  int reopened = 0;
  memcpy(to, from, sizeof to);
  for (;; ojo__name(to, core->batch.us, core->sequence++)) {
    memcpy(core->pool->output_name, to, sizeof to);
    if (syscall(SYS_renameat2, core->staging_fd, from, core->output_fd, to, 1u /* RENAME_NOREPLACE */) == 0)
      return true;
    if (errno == EEXIST) continue;
    /* output/ was removed: made anew. (If staging/ was too, the file is gone, and the next try fails) */
    if (errno == ENOENT && !reopened++ && ojo__open_dirs(core) == OJO_OK) continue;
    if (errno != ENOSYS && errno != EINVAL) return ojo__batch_failed(core, "rename a file into output/");
    if (linkat(core->staging_fd, from, core->output_fd, to, 0) == 0) {
      unlinkat(core->staging_fd, from, 0);
      return true;
    }
    if (errno != EEXIST) return ojo__batch_failed(core, "link a file into output/");
  }
}

/* The file of pool->going is gone. Stores totals, so that a recoverer may do it again. */
static void ojo__deleted(struct ojo__pool *pool) {
  pool->gone.first_ts = pool->going.first_ts;
  pool->gone.last_ts = pool->going.last_ts;
  OJO__STORE(&pool->gone.lost, pool->going.lost);
  OJO__STORE(&pool->gone.events, pool->going.events);
  OJO__STORE(&pool->going.under_way, 0);
}

/* Deletes the oldest batches so that one of `bytes` more fits. What was in them, losses that only they
 * told of included, is counted in the pool, and told by this batch or, if it fails, a later one. A file
 * that somebody took is not lost. */
static void ojo__delete_oldest(struct ojo__core *core, uint64_t bytes) {
  size_t drop = 0;
  for (; drop < core->published_count && core->published_bytes + bytes > core->desc.disk_bytes_max; drop++) {
    struct ojo__published *p = &core->published[drop];
    struct ojo__pool *pool = core->pool;
    core->published_bytes -= p->bytes;
    bool told = pool->gone.events == pool->gone.events_harvested &&
                pool->gone.lost == pool->gone.lost_harvested; /* all before: a new range */
    pool->going.first_ts = told || p->first_ts < pool->gone.first_ts ? p->first_ts : pool->gone.first_ts;
    pool->going.last_ts = told || p->last_ts > pool->gone.last_ts ? p->last_ts : pool->gone.last_ts;
    pool->going.lost = pool->gone.lost + p->lost;
    pool->going.events = pool->gone.events + p->events + p->deleted;
    memcpy(pool->going.name, p->name, sizeof pool->going.name);
    OJO__STORE(&pool->going.under_way, 1); /* before the file goes: a recoverer looks whether it did */
    if (unlinkat(core->output_fd, p->name, 0) != 0) {
      if (errno != ENOENT)
        ojo__log_kind(core, 1, "can't delete a file of %s/output for disk_bytes_max: %s", core->dir,
                      strerror(errno));
      OJO__STORE(&pool->going.under_way, 0);
      continue;
    }
    ojo__deleted(pool);
    OJO__SET(&core->deleted, core->deleted + p->events);
  }
  core->published_count -= drop;
  memmove(core->published, core->published + drop, core->published_count * sizeof *core->published);
}

static void ojo__harvest_nobody(struct ojo__core *core) {
  if (core->desc.disk_bytes_max)
    ojo__delete_oldest(core, core->batch.offset + core->buffer_used + 16 * OJO_SLOT_BYTES);
  ojo__level_enter(core, &core->pool->nobody);
  ojo__emit_nobody(core, &core->pool->nobody, &core->pool->gone);
}

/* Chunks wholly in the batch that was just published go back to the free list, newest first out. */
static void ojo__free_taken(struct ojo__core *core) {
  struct ojo__pool *pool = core->pool;
  uint32_t shared = core->chunk_count - core->nested_count;
  while (core->queue_head != core->queue_next) {
    uint32_t index = core->queue_head;
    struct ojo__chunk *chunk = &core->chunks[index];
    core->queue_head = chunk->next ? chunk->next - 1 : OJO__NONE;
    uint64_t bytes = OJO__PEEK(&chunk->committed);
    __atomic_fetch_sub(&core->threads[chunk->thread].chunks, 1, __ATOMIC_RELEASE);
    __atomic_fetch_sub(&pool->line_lease[2], bytes, __ATOMIC_RELAXED);
    __atomic_fetch_sub(&pool->line_lease[1], 1, __ATOMIC_RELAXED);
    OJO__STORE(&chunk->lease, chunk->lease & ~(uint64_t)OJO__STATE); /* model: F1, FREE; the push is F2 */
    ojo__push(&pool->line_free[index >= shared], OJO__CHUNK_LINKS(core), index);
  }
  if (core->queue_head == OJO__NONE) core->queue_tail = OJO__NONE;
  /* Before waiters is read: ojo__block does it the other way round. */
  __atomic_fetch_add(&core->freed, 1, __ATOMIC_SEQ_CST);
  if (__atomic_load_n(&core->waiters, __ATOMIC_SEQ_CST)) ojo__futex_wake(&core->freed);
}

static void ojo__remember(struct ojo__core *core, uint64_t bytes) {
  if (!core->desc.disk_bytes_max) return;
  if (core->published_count == core->published_room) {
    size_t room = core->published_room * 2;
    struct ojo__published *more = (struct ojo__published *)ojo__alloc(core, room * sizeof *more);
    if (!more) { /* the oldest is kept on disk for good, and said so */
      ojo__log(core, "out of memory: %s/output/%s no longer counts for disk_bytes_max", core->dir,
               core->published[0].name);
      core->published_bytes -= core->published[0].bytes;
      core->published_count--;
      memmove(core->published, core->published + 1, core->published_count * sizeof *more);
    } else {
      memcpy(more, core->published, core->published_count * sizeof *more);
      ojo__free(core, core->published);
      core->published = more;
      core->published_room = room;
    }
  }
  struct ojo__published *p = &core->published[core->published_count++];
  memcpy(p->name, core->pool->output_name, sizeof p->name);
  p->bytes = bytes;
  p->events = core->batch.events;
  p->deleted = core->batch.deleted;
  p->lost = core->batch.lost;
  p->first_ts = core->batch.first_ts;
  p->last_ts = core->batch.last_ts;
  core->published_bytes += bytes;
}

/* Undoes an unpublished batch: first what was taken goes back, then the file goes. */
static void ojo__roll_back(struct ojo__core *core) {
  struct ojo__pool *pool = core->pool;
  uint64_t number = core->batch.number, fresh = ojo__threads(core);
  /* model: X1 */
  for (uint32_t i = core->queue_head; i != core->queue_next; i = core->chunks[i].next - 1)
    if (core->chunks[i].batch == number) OJO__STORE(&core->chunks[i].harvested, core->chunks[i].published);
  for (uint32_t i = 0; i < core->noted_count; i++) {
    struct ojo__chunk *chunk = &core->chunks[core->noted[i].index];
    if (chunk->batch == number && OJO__LOAD(&chunk->lease) == core->noted[i].lease)
      OJO__STORE(&chunk->harvested, chunk->published);
  }
  for (uint64_t i = 0; i <= fresh; i++)
    for (int k = 0; k <= OJO__LEVELS; k++) {
      struct ojo__level *level = i == fresh ? &core->pool->nobody : &core->threads[i].level[k];
      if (OJO__PEEK(&level->batch) == number) ojo__level_roll_back(pool, level); /* one that is being made: not this */
    }
  core->queue_next = core->queue_head; /* model: X2 */
  pool->last_number = pool->batches - 1;
  ojo__batch_fd_close(core);
  if (pool->open_batch == number) unlinkat(core->staging_fd, core->batch.name, 0); /* model: X3 */
  core->batch.number = 0;
  core->buffer_used = 0;
}

/* After a batch failed: counted, logged once per kind of failure, and smaller next time if the disk is
 * full, so that what piled up can go out in parts. */
static void ojo__batch_give_up(struct ojo__core *core) {
  int error = core->batch.error;
  ojo__roll_back(core);
  OJO__SET(&core->write_errors, core->write_errors + 1);
  if ((error == ENOSPC || error == EDQUOT) && core->batch_target > OJO__CHUNK_BYTES) core->batch_target /= 2;
  if (ojo__log_kind(core, (uint32_t)error << 8 | (unsigned char)core->batch.failed[0],
                    "%s: can't %s: %s; events wait in the pool", core->dir, core->batch.failed, strerror(error)))
    core->logged = true;
}

static bool ojo__batch_close(struct ojo__core *core) {
  while (core->desc.sync && fsync(core->batch.fd) != 0)
    if (errno != EINTR) return ojo__batch_failed(core, "sync a file");
  return ojo__batch_fd_close(core) == 0 || ojo__batch_failed(core, "close a file");
}

/* Writes the rest and the header, renames, and frees the chunks that are done with. */
static bool ojo__batch_end(struct ojo__core *core) {
  struct ojo__pool *pool = core->pool;
  struct ojo__batch *b = &core->batch;
  if (b->direct) ojo__buffer_write(core, false); /* the writer has something to do while old files are deleted */
  ojo__harvest_nobody(core);
  pool->last_number = pool->batches; /* model: E1; E2 before it */
  bool ok = ojo__file_end(core, core->recovering ? OJO_FILE_RECOVERED : 0);
  uint64_t bytes = b->offset;
  ok = ok && ojo__batch_close(core);
  if (!ok || !ojo__rename(core)) { /* model: E4 */
    ojo__batch_give_up(core);
    return false;
  }
  OJO__STORE(&pool->batch_published, b->number); /* model: E5 */
  if (core->desc.sync) fsync(core->output_fd);
  OJO__SET(&core->written, core->written + b->events);
  OJO__SET(&pool->batches, pool->batches + 1); /* model: E6 */
  OJO__SET(&core->bytes, core->bytes + bytes);
  ojo__free_taken(core);
  ojo__remember(core, bytes);
  core->batch_target *= 2;
  if (core->batch_target > core->desc.flush_bytes || !core->batch_target) core->batch_target = core->desc.flush_bytes;
  b->number = 0;
  return true;
}

/* ---- >>flusher ---------------------------------------------------------------------------------- */

/* Notes the leased chunks and their committed bytes, then takes over the full list. In this order: the
 * hand-off of a thread's last chunk comes before the lease of its next, so a chunk noted here has all its
 * predecessors on the list. Chunks both noted and on the list become FULL below and are taken once. */
static void ojo__gather(struct ojo__core *core) {
  struct ojo__pool *pool = core->pool;
  uint32_t shared = core->chunk_count - core->nested_count;
  uint64_t ends[2] = {OJO__LOAD(&pool->line_fresh[0]), shared + OJO__LOAD(&pool->line_fresh[2])};
  core->noted_count = 0;
  for (int part = 0; part < 2; part++)
    for (uint64_t i = part ? shared : 0; i < ends[part]; i++) {
      struct ojo__chunk *chunk = &core->chunks[i];
      uint64_t lease = OJO__LOAD(&chunk->lease); /* model: G1; committed is G2. Pairs with ojo__change's release */
      if ((lease & OJO__STATE) != OJO__LEASED) continue;
      struct ojo__noted *n = &core->noted[core->noted_count];
      n->index = (uint32_t)i;
      n->lease = lease;
      n->committed = OJO__LOAD(&chunk->committed); /* pairs with the record's release */
      if (n->committed > chunk->harvested) core->noted_count++;
    }
  /* model: G3 */
  uint32_t newest = (uint32_t)(__atomic_exchange_n(&pool->line_full[0], 0, __ATOMIC_ACQUIRE) & OJO__LIST_INDEX);
  uint32_t first = OJO__NONE, last = newest ? newest - 1 : OJO__NONE;
  while (newest) { /* newest first: turn it round */
    struct ojo__chunk *chunk = &core->chunks[newest - 1];
    uint32_t older = OJO__PEEK(&chunk->next);
    OJO__SET(&chunk->next, first == OJO__NONE ? 0 : first + 1); /* a late ojo__pop may look at it */
    first = newest - 1;
    newest = older;
    OJO__STORE(&chunk->lease, (chunk->lease & ~(uint64_t)OJO__STATE) | OJO__FULL); /* model: G4 */
  }
  if (first == OJO__NONE) return;
  if (core->queue_tail == OJO__NONE) core->queue_head = core->queue_next = first;
  else {
    OJO__SET(&core->chunks[core->queue_tail].next, first + 1);
    if (core->queue_next == OJO__NONE) core->queue_next = first;
  }
  core->queue_tail = last;
}

/* The open batch, or a new one; a full one is ended first. False: a failure was dealt with. */
static bool ojo__batch_room(struct ojo__core *core) {
  if (core->batch.number && !core->batch.error && core->batch.offset + core->buffer_used < core->batch_target)
    return true;
  if (core->batch.number && !ojo__batch_end(core)) return false; /* deals with an earlier error too */
  if (ojo__batch_begin(core)) return true;
  ojo__batch_give_up(core);
  return false;
}

static bool ojo__losses_pending(struct ojo__core *core) {
  uint64_t fresh = ojo__threads(core);
  for (uint64_t i = 0; i < fresh; i++)
    for (int k = 0; OJO__LOAD(&core->threads[i].state) != OJO__THREAD_FREE && k <= OJO__LEVELS; k++)
      if (OJO__LOAD(&core->threads[i].level[k].lost) > core->threads[i].level[k].lost_harvested) return true;
  return OJO__LOAD(&core->pool->nobody.lost) > core->pool->nobody.lost_harvested ||
         core->pool->gone.events > core->pool->gone.events_harvested ||
         core->pool->gone.lost > core->pool->gone.lost_harvested;
}

/* Has a thread ended that keeps no context for us, and so could not tell? */
static bool ojo__died(struct ojo__core *core, struct ojo__thread *thread) {
  return OJO__LOAD(&thread->evicted) && syscall(SYS_tgkill, core->pid, thread->tid, 0) != 0 && errno == ESRCH;
}

/* Entries of threads that are gone and wholly written may be used again. */
static void ojo__retire_threads(struct ojo__core *core) {
  struct ojo__pool *pool = core->pool;
  uint64_t fresh = OJO__LOAD(&pool->threads_fresh);
  for (uint64_t i = 0; i < fresh; i++) {
    struct ojo__thread *thread = &core->threads[i];
    uint32_t state = OJO__LOAD(&thread->state);
    if (state == OJO__THREAD_FREE) continue;
    if (state == OJO__THREAD_LIVE && ojo__died(core, thread)) {
      ojo__thread_ended(core, thread);
      state = OJO__THREAD_EXITED;
    }
    bool open = state != OJO__THREAD_EXITED || OJO__LOAD(&thread->chunks) != 0;
    for (int k = 0; k <= OJO__LEVELS; k++) { /* what is reported, the owner need not report again. Release: our reads */
                                             /* of the times come before a new gap; pairs with ojo__lose */
      OJO__STORE(&thread->level[k].lost_taken, thread->level[k].lost_harvested);
      open = open || OJO__LOAD(&thread->level[k].lost) != thread->level[k].lost_harvested;
    }
    if (open) continue;
    pthread_mutex_lock(&core->retire_lock);
    for (int k = 0; k <= OJO__LEVELS; k++) {
      if (k < OJO__LEVELS) core->retired_recorded += thread->level[k].attempts - thread->level[k].lost;
      core->retired_lost += thread->level[k].lost;
    }
    OJO__STORE(&thread->state, OJO__THREAD_FREE);
    pthread_mutex_unlock(&core->retire_lock);
    ojo__push(&pool->threads_free, OJO__THREAD_LINKS(core), (uint32_t)i);
  }
  OJO__STORE(&pool->nobody.lost_taken, pool->nobody.lost_harvested);
}

/* A flight recorder's threads that ended while a snapshot was taken, or that could not tell of their end. */
static void ojo__retire_all_ended(struct ojo__core *core) {
  uint64_t fresh = OJO__LOAD(&core->pool->threads_fresh);
  for (uint64_t i = 0; i < fresh; i++) {
    struct ojo__thread *thread = &core->threads[i];
    uint32_t state = OJO__LOAD(&thread->state);
    if (state == OJO__THREAD_LIVE && ojo__died(core, thread)) ojo__thread_ended(core, thread);
    else if (state == OJO__THREAD_EXITED) ojo__retire_ended(core, thread);
  }
}

/* Keeps reserve_bytes of never-used chunks populated ahead of the recorders, who would stop for it. */
static void ojo__populate_ahead(struct ojo__core *core) {
  struct ojo__pool *pool = core->pool;
  uint64_t ready = pool->line_fresh[1], shared = core->chunk_count - core->nested_count;
  uint64_t want = OJO__LOAD(&pool->line_fresh[0]) + core->desc.reserve_bytes / OJO__CHUNK_BYTES;
  if (ready < OJO__LOAD(&pool->line_fresh[0])) ready = OJO__LOAD(&pool->line_fresh[0]);
  for (; ready < want && ready < shared && ojo__populate_chunk(core, ready); ready++)
    OJO__STORE(&pool->line_fresh[1], ready + 1);
  uint64_t threads = OJO__LOAD(&pool->threads_fresh);
  if (threads != core->threads_seen && threads + OJO__THREADS_AHEAD < OJO__THREADS_MAX)
    ojo__populate(core, &core->threads[threads], OJO__THREADS_AHEAD * sizeof(struct ojo__thread));
  core->threads_seen = threads;
}

/* Gives the pages of chunks back that a burst needed and nobody has since: beyond the peak of the last
 * seconds and the reserve. In pieces, so that a pass stays short. */
static void ojo__trim(struct ojo__core *core, uint64_t now) {
  struct ojo__pool *pool = core->pool;
  uint64_t in_use = OJO__PEEK(&pool->line_lease[1]);
  if (in_use > core->peak) core->peak = in_use;
  if (now - core->peak_since < (uint64_t)OJO__IDLE_MS * 1000000u) return;
  uint64_t held = OJO__LOAD(&pool->line_fresh[0]) - OJO__PEEK(&pool->line_free[3]);
  uint64_t keep = core->peak + core->desc.reserve_bytes / OJO__CHUNK_BYTES;
  for (int piece = 0; held > keep && piece < 512; held--, piece++) {
    uint32_t index = ojo__pop(&pool->line_free[0], OJO__CHUNK_LINKS(core));
    if (index == OJO__NONE) break;
    void *data = core->data + (uint64_t)index * OJO__CHUNK_BYTES;
    bool gone = madvise(data, OJO__CHUNK_BYTES, core->crash_safe ? MADV_REMOVE : MADV_DONTNEED) == 0;
    ojo__push(&pool->line_free[gone ? 2 : 0], OJO__CHUNK_LINKS(core), index);
    if (!gone) break;
    __atomic_fetch_add(&pool->line_free[3], 1, __ATOMIC_RELAXED);
  }
  if (held > keep) return; /* the rest at the next pass */
  core->peak = in_use;
  core->peak_since = now;
}

/* A write beyond RLIMIT_FSIZE fails with EFBIG and raises SIGXFSZ, which ends a program that does not know
 * why. The flusher blocks all signals; where we write in a caller's thread, this one is held off. */
static void ojo__file_signal(bool hold, sigset_t *before) {
  sigset_t one, pending;
  struct timespec now = {0, 0};
  sigemptyset(&one);
  sigaddset(&one, SIGXFSZ);
  if (hold) {
    pthread_sigmask(SIG_BLOCK, &one, before);
    return;
  }
  if (!sigismember(before, SIGXFSZ) && sigpending(&pending) == 0 && sigismember(&pending, SIGXFSZ))
    sigtimedwait(&one, NULL, &now);
  pthread_sigmask(SIG_SETMASK, before, NULL);
}

/* One pass: with `all`, everything committed before it began is in output/ when it returns true. */
/* Ends a batch that has reached its size. *enough: what is left makes no full one, and may wait. */
static bool ojo__batch_full(struct ojo__core *core, bool all, uint64_t left, bool *enough) {
  if (!core->batch.number || core->batch.error || core->batch.offset + core->buffer_used < core->batch_target)
    return true;
  if (!ojo__batch_end(core)) return false;
  *enough = !all && left < core->batch_target;
  return true;
}

/* `all`: also what would make a small batch behind a full one. */
static bool ojo__pass_locked(struct ojo__core *core, bool all) {
  bool ok = true, enough = false;
  ojo__populate_ahead(core);
  ojo__gather(core);
  bool any = core->queue_next != OJO__NONE || core->noted_count || ojo__losses_pending(core);
  ojo__anchor_take(core, any); /* after the limits were noted */
  uint64_t left = 0; /* at most */
  for (uint32_t i = 0; i < core->noted_count; i++)
    if (OJO__LOAD(&core->chunks[core->noted[i].index].lease) == core->noted[i].lease) left += OJO__CHUNK_BYTES;
  for (uint32_t i = core->queue_next; i != OJO__NONE; i = core->chunks[i].next - 1) left += OJO__CHUNK_BYTES;
  while (ok && core->queue_next != OJO__NONE) {
    struct ojo__chunk *chunk = &core->chunks[core->queue_next];
    uint64_t end = OJO__LOAD(&chunk->committed);
    ok = ojo__batch_full(core, all, left, &enough);
    if (!ok || enough) break;
    left -= OJO__CHUNK_BYTES;
    if (end != chunk->harvested) { /* else all of it went out while it was leased */
      ok = ojo__batch_room(core);
      if (!ok) break;
      ojo__harvest(core, chunk, end);
      if (end > OJO__CHUNK_BYTES / 2) ojo__populate_ahead(core); /* a pass is long, and who fills chunks goes on */
    }
    core->queue_next = chunk->next ? chunk->next - 1 : OJO__NONE;
  }
  if (ok && !enough) ok = ojo__batch_full(core, all, left, &enough);
  for (uint32_t i = 0; ok && !enough && i < core->noted_count; i++) {
    struct ojo__noted *n = &core->noted[i];
    if (OJO__LOAD(&core->chunks[n->index].lease) != n->lease) continue; /* model: G5. Taken above, as full */
    ok = ojo__batch_room(core);
    if (ok) ojo__harvest(core, &core->chunks[n->index], n->committed);
  }
  uint64_t threads = OJO__LOAD(&core->pool->threads_fresh);
  for (uint64_t i = 0; any && ok && !enough && i < threads; i++)
    for (int k = 0; ok && k <= OJO__LEVELS; k++) {
      struct ojo__thread *thread = &core->threads[i];
      if (OJO__LOAD(&thread->state) == OJO__THREAD_FREE) break;
      if (OJO__LOAD(&thread->level[k].lost) <= thread->level[k].lost_harvested) continue;
      ok = ojo__batch_room(core);
      if (ok) ojo__harvest_losses(core, thread, k);
    }
  if (ok && !enough && !core->batch.number && ojo__losses_pending(core)) ok = ojo__batch_room(core); /* thread 0's */
  if (ok && core->batch.number) ok = ojo__batch_end(core);
  else if (ok) ojo__free_taken(core);
  if (ok && any) ojo__retire_threads(core);
  if (ok && !enough && core->logged) { /* all of it: on a full disk small batches may fit, and the next not */
    ojo__log(core, "writing to %s again", core->dir);
    core->logged = false;
  }
  return ok;
}

/* ---- >>snapshot --------------------------------------------------------------------------------- */

/* What the pool of a flight recorder holds at this moment becomes one file, and stays in the pool. The newest
 * three quarters of the chunks that may be taken are pinned at once, and all threads' newest, so that recorders
 * at full speed, which go once round the pool in milliseconds, cycle in the rest; older ones are pinned one by
 * one as they are written, and those that were overwritten by then are counted so. All under pass_lock, and in
 * one thread; nothing here allocates or takes another lock, so that a signal handler may do it when there is no
 * flusher. */

static uint64_t ojo__lease_number(uint64_t lease) { return lease >> OJO__LEASE_SHIFT; }

static bool ojo__pin(struct ojo__core *core, struct ojo__noted *n) {
  uint64_t *word = &core->chunks[n->index].lease, lease = OJO__LOAD(word);
  do
    if (ojo__lease_number(lease) != ojo__lease_number(n->lease) || (lease & OJO__STATE) == OJO__FREE ||
        (lease & OJO__PINNED)) /* noted twice */
      return false;
  /* Acquire: pairs with ojo__change's release; until it is unpinned nobody leases it anew */
  while (!__atomic_compare_exchange_n(word, &lease, lease | OJO__PINNED, true, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE));
  n->pinned = true;
  n->committed = OJO__LOAD(&core->chunks[n->index].committed); /* pairs with the record's release */
  return true;
}

static void ojo__unpin(struct ojo__core *core, struct ojo__noted *n) {
  struct ojo__chunk *chunk = &core->chunks[n->index];
  uint64_t lease = OJO__LOAD(&chunk->lease), to;
  n->pinned = false;
  do /* Release: our reads of its slots come before its next lease's stores to them */
    to = (lease & OJO__STATE) == OJO__PARKED ? (lease & ~(uint64_t)7) | OJO__FULL : lease & ~(uint64_t)OJO__PINNED;
  while (!__atomic_compare_exchange_n(&chunk->lease, &lease, to, true, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE));
  /* Off its chain, older than all that is on it: back to the front. Its thread's entry is kept by it. */
  if ((lease & OJO__STATE) == OJO__PARKED)
    ojo__push(&core->threads[chunk->thread].level[chunk->level].chain, OJO__CHUNK_LINKS(core), n->index);
}

/* Where a chunk's events belong. Of one that is not pinned perhaps another's by now: ojo__pin will tell. */
static void ojo__snapshot_place(struct ojo__core *core, struct ojo__noted *n) {
  const struct ojo__chunk *chunk = &core->chunks[n->index];
  n->thread = OJO__PEEK(&chunk->thread);
  n->level = OJO__PEEK(&chunk->level);
  n->ordinal = OJO__PEEK(&chunk->ordinal);
}

/* Notes a chunk, and pins it if `pin`: as it is now, whoever leases it. False: it is free, or pinned already. */
static bool ojo__snapshot_note(struct ojo__core *core, uint32_t index, bool pin) {
  struct ojo__noted *n = &core->noted[core->noted_count];
  struct ojo__chunk *chunk = &core->chunks[index];
  memset(n, 0, sizeof *n);
  n->index = index;
  do {
    n->lease = OJO__LOAD(&chunk->lease);
    if ((n->lease & OJO__STATE) == OJO__FREE || (n->lease & OJO__PINNED)) return false;
  } while (pin && !ojo__pin(core, n));
  ojo__snapshot_place(core, n);
  core->noted_count++;
  return true;
}

/* Is a chunk the end of its level's chain, which nobody else takes while its thread lives? */
static bool ojo__chain_end(struct ojo__core *core, uint64_t index) {
  struct ojo__thread *thread = &core->threads[OJO__PEEK(&core->chunks[index].thread)];
  return OJO__PEEK(&thread->level[OJO__PEEK(&core->chunks[index].level)].newest) == index + 1 &&
         OJO__LOAD(&thread->state) == OJO__THREAD_LIVE;
}

/* *most: three quarters of the chunks that recorders may take. Returns the number that the leases of all but so
 * many of them lie below. */
static uint64_t ojo__snapshot_old(struct ojo__core *core, uint64_t end, uint32_t *most) {
  uint32_t ends = 0;
  core->noted_count = 0;
  for (uint64_t i = 0; i < end; i++) {
    struct ojo__noted *n = &core->noted[core->noted_count];
    uint64_t lease = OJO__LOAD(&core->chunks[i].lease);
    if ((lease & OJO__STATE) == OJO__FREE) continue;
    if (ojo__chain_end(core, i)) {
      ends++;
      continue;
    }
    memset(n, 0, sizeof *n);
    n->ordinal = ojo__lease_number(lease); /* only to be sorted */
    core->noted_count++;
  }
  *most = core->chunk_count - ends;
  *most -= (*most + 3) / 4;
  if (core->noted_count <= *most) return 0;
  ojo__sort(core->noted, core->noted_count);
  return *most ? core->noted[core->noted_count - *most].ordinal : UINT64_MAX;
}

/* Notes the chunks in use, and pins the newest. Recorders may go round the pool while this goes through it, so
 * the chunks are taken as they are then, and the ends of all chains come last: nobody's newest are missed, unless
 * there are so many that next to no chunk would be left to record into. */
static void ojo__snapshot_list(struct ojo__core *core) {
  uint64_t end = OJO__LOAD(&core->pool->line_fresh[0]), entries = OJO__LOAD(&core->pool->threads_fresh);
  uint32_t most = 0, pinned = 0, all = core->chunk_count - (core->chunk_count + 7) / 8;
  uint64_t old = ojo__snapshot_old(core, end, &most);
  core->noted_count = 0;
  for (uint32_t i = 0; i < end; i++) {
    bool pin = pinned < most && !ojo__chain_end(core, i) && ojo__lease_number(OJO__LOAD(&core->chunks[i].lease)) >= old;
    if (ojo__snapshot_note(core, i, pin) && pin) pinned++;
  }
  for (uint64_t i = 0; i < entries; i++)
    for (int k = 0; k < OJO__LEVELS && OJO__LOAD(&core->threads[i].state) == OJO__THREAD_LIVE; k++) {
      uint64_t newest = OJO__PEEK(&core->threads[i].level[k].newest);
      if (newest && pinned < all && ojo__snapshot_note(core, (uint32_t)(newest - 1), true))
        pinned++;
    }
  for (uint32_t i = 0; i < core->noted_count && pinned < all; i++) { /* those that were an end, and are none any more */
    struct ojo__noted *n = &core->noted[i];
    if (n->pinned || ojo__lease_number(n->lease) < old || !ojo__pin(core, n)) continue;
    ojo__snapshot_place(core, n);
    pinned++;
  }
  ojo__sort(core->noted, core->noted_count);
}

/* What was told of a (thread, level) in this file: nothing yet. */
static struct ojo__level ojo__untold(const struct ojo__level *level) {
  struct ojo__level copy;
  memset(&copy, 0, sizeof copy);
  copy.lost = level->seen_lost;
  copy.lost_first = OJO__PEEK(&level->lost_first);
  copy.lost_last = OJO__PEEK(&level->lost_last);
  copy.reason = OJO__PEEK(&level->reason);
  copy.attempts = level->seen_attempts;
  return copy;
}

/* What is in the chunk that a level fills was attempted too: its chunk may be overwritten before it is written. */
static void ojo__snapshot_newest(struct ojo__level *level, const struct ojo__chunk *chunk, uint64_t thread,
                                 int number) {
  uint64_t lease, attempts;
  for (int i = 0; i < 100; i++) {
    lease = OJO__LOAD(&chunk->lease); /* pairs with ojo__change's release */
    uint32_t extra = OJO__LOAD(&chunk->extension_slots); /* acquire, all: the lease is looked at again behind them */
    uint64_t slots = OJO__LOAD(&chunk->committed) / OJO_SLOT_BYTES, before = OJO__LOAD(&chunk->lost);
    attempts = OJO__LOAD(&chunk->ordinal) + (slots > extra ? slots - extra : 0);
    if (level->seen_lost > before) attempts += level->seen_lost - before;
    if ((lease & OJO__STATE) != OJO__LEASED) return; /* counted, or being overwritten */
    if (OJO__LOAD(&chunk->thread) != thread || OJO__LOAD(&chunk->level) != number) return; /* leased by another since */
    if (OJO__PEEK(&chunk->lease) != lease || OJO__PEEK(&chunk->extension_slots) != extra) continue;
    if (attempts > level->seen_attempts) level->seen_attempts = attempts;
    return;
  }
}

/* From here on no entry is retired; what was attempted and lost up to here is what this snapshot tells at least. */
static void ojo__snapshot_begin(struct ojo__core *core) {
  struct ojo__pool *pool = core->pool;
  __atomic_store_n(&core->snapshotting, 1, __ATOMIC_SEQ_CST);
  for (int i = 0; __atomic_load_n(&pool->line_recorder[4], __ATOMIC_SEQ_CST) && i < 1000; i++) {
    struct timespec wait = {0, 100000};
    nanosleep(&wait, NULL);
  }
  uint64_t entries = OJO__LOAD(&pool->threads_fresh);
  for (uint64_t i = 0; i <= entries; i++)
    for (int k = 0; k <= OJO__LEVELS; k++) {
      struct ojo__level *level = i == entries ? &pool->nobody : &core->threads[i].level[k];
      if (i < entries && OJO__LOAD(&core->threads[i].state) == OJO__THREAD_FREE) break;
      level->seen_lost = OJO__LOAD(&level->lost); /* pairs with ojo__lose's release: the times and reason are there */
      level->seen_attempts = OJO__LOAD(&level->attempts); /* behind the losses: it counts them all */
      uint64_t newest = i < entries && k < OJO__LEVELS ? OJO__PEEK(&level->newest) : 0;
      if (newest) ojo__snapshot_newest(level, &core->chunks[newest - 1], i, k);
    }
}

static void ojo__snapshot_room(struct ojo__core *core) {
  if (core->buffer_used + 16 * OJO_SLOT_BYTES > OJO__BUFFER_BYTES) ojo__buffer_write(core, false);
}

static void ojo__snapshot_events(struct ojo__core *core) {
  struct ojo__gone gone = core->pool->gone; /* entries are not retired from here on */
  struct ojo__level told;
  uint64_t entries = OJO__LOAD(&core->pool->threads_fresh);
  for (uint32_t i = 0; i < core->noted_count && !core->batch.error;) {
    struct ojo__noted *first = &core->noted[i], *n = first;
    struct ojo__thread *thread = &core->threads[first->thread];
    bool any = false;
    told = ojo__untold(&thread->level[first->level]);
    for (; i < core->noted_count && n->thread == first->thread && n->level == first->level; n = &core->noted[++i]) {
      bool late = !n->pinned;
      if (late && !ojo__pin(core, n)) continue;
      if (n->committed) {
        ojo__emit(core, thread, (int)first->level, &told, &core->chunks[n->index], 0, n->committed);
        any = true;
      }
      if (late && (OJO__LOAD(&core->chunks[n->index].lease) & OJO__STATE) != OJO__PARKED)
        ojo__unpin(core, n); /* else at the end, with the others, lest a newer one get in front of it */
    }
    if (!any) continue;
    thread->level[first->level].batch = core->batch.number;
    ojo__emit_end(core, &told, thread, (int)first->level, told.attempts, ojo__raw_now(core->t));
    ojo__emit_losses(core, &told, thread, (int)first->level);
  }
  for (uint64_t i = 0; i < entries; i++) /* those of whom no chunk is left */
    for (int k = 0; k <= OJO__LEVELS && OJO__LOAD(&core->threads[i].state) != OJO__THREAD_FREE; k++) {
      struct ojo__thread *thread = &core->threads[i];
      if (thread->level[k].batch == core->batch.number) continue;
      told = ojo__untold(&thread->level[k]);
      if (k < OJO__LEVELS) ojo__emit_end(core, &told, thread, k, told.attempts, ojo__raw_now(core->t));
      ojo__emit_losses(core, &told, thread, k);
    }
  told = ojo__untold(&core->pool->nobody);
  ojo__snapshot_room(core);
  gone.events_harvested = gone.lost_harvested = 0;
  ojo__emit_nobody(core, &told, &gone);
}

/* `path` NULL: into output/. Under pass_lock. */
static bool ojo__snapshot_locked(struct ojo__core *core, const char *path) {
  struct ojo__pool *pool = core->pool;
  struct ojo__batch *b = &core->batch;
  char *beside = core->beside;
  size_t length = path ? strlen(path) : 0;
  ojo__batch_zero(core, ++core->snapshots | UINT64_C(1) << 62); /* no number of a batch */
  if (path) {
    memcpy(beside, path, length);
    beside[length++] = '.';
    do {
      ojo__name(beside + length, b->us++, (uint64_t)core->pid); /* not of a thread: one snapshot at a time */
      b->fd = ojo__openat(AT_FDCWD, beside, O_WRONLY | O_CREAT | O_EXCL, core->desc.file_mode);
    } while (b->fd < 0 && errno == EEXIST);
    if (b->fd < 0) ojo__batch_failed(core, "create a file beside the snapshot's");
  } else {
    ojo__staging_create(core);
  }
  if (!b->error) {
    ojo__snapshot_begin(core);
    ojo__snapshot_list(core);
    ojo__anchor_take(core, true); /* after the limits were noted */
    ojo__snapshot_events(core);
    for (uint32_t i = core->noted_count; i > 0; i--) /* the newest first: the oldest ends up in front */
      if (core->noted[i - 1].pinned) ojo__unpin(core, &core->noted[i - 1]);
    __atomic_store_n(&core->snapshotting, 0, __ATOMIC_SEQ_CST);
    ojo__retire_all_ended(core);
  }
  bool ok = !b->error && ojo__file_end(core, OJO_FILE_SNAPSHOT);
  uint64_t bytes = b->offset;
  ok = ok && ojo__batch_close(core);
  if (ok && path && rename(beside, path) != 0) ok = ojo__batch_failed(core, "rename the snapshot");
  if (ok && !path) ok = ojo__rename(core);
  if (ok) {
    OJO__SET(&pool->batches, pool->batches + 1);
    OJO__SET(&core->bytes, core->bytes + bytes);
  } else {
    int error = b->error;
    const char *failed = b->failed;
    if (path) unlink(beside);
    else unlinkat(core->staging_fd, core->batch.name, 0);
    ojo__batch_fd_close(core);
    OJO__SET(&core->write_errors, core->write_errors + 1);
    if (!core->mute)
      ojo__log_kind(core, (uint32_t)error << 8 | (unsigned char)failed[0], "snapshot of %s%s%s: can't %s: %s",
                    core->dir,
                    path ? " to " : "", path ? path : "", failed, strerror(error));
    errno = error;
  }
  b->number = 0;
  core->buffer_used = 0;
  return ok;
}

/* What a flight recorder's flusher has to do: memory ahead of the recorders, anchors for their clock. */
static bool ojo__tend(struct ojo__core *core) {
  ojo__populate_ahead(core);
  ojo__anchor_take(core, true);
  ojo__retire_all_ended(core);
  return true;
}

static void ojo__pass_begin(struct ojo__core *core, sigset_t *before) {
  OJO__SET(&core->pass_tid, (uint32_t)syscall(SYS_gettid));
  ojo__file_signal(true, before);
}
static void ojo__pass_end(struct ojo__core *core, const sigset_t *before) {
  sigset_t set = *before;
  ojo__file_signal(false, &set);
  OJO__SET(&core->pass_tid, 0);
  pthread_mutex_unlock(&core->pass_lock);
}

static bool ojo__pass(struct ojo__core *core, bool all) {
  uint64_t start = ojo__clock_ns(CLOCK_MONOTONIC);
  sigset_t before;
  pthread_mutex_lock(&core->pass_lock);
  ojo__pass_begin(core, &before);
  if (!ojo__recorder(core)) ojo__trim(core, start);
  bool ok = ojo__recorder(core) ? ojo__tend(core) : ojo__pass_locked(core, all);
  if (core->clock_left)
    ojo__log(core, "%s: the processor's counter went back: CLOCK_MONOTONIC from now on; the times of events since the "
             "last pass may be wrong", core->dir);
  core->clock_left = false;
  ojo__pass_end(core, &before);
  uint64_t took = ojo__clock_ns(CLOCK_MONOTONIC) - start;
  if (took > OJO__PEEK(&core->flush_ns_max)) OJO__SET(&core->flush_ns_max, took);
  return ok;
}

/* Is there as much queued, or in use, as wakes the flusher? */
static bool ojo__enough(struct ojo__core *core) {
  return __atomic_load_n(&core->pool->line_lease[2], __ATOMIC_SEQ_CST) >= core->desc.flush_bytes ||
         __atomic_load_n(&core->pool->line_lease[1], __ATOMIC_SEQ_CST) >= core->chunk_count / 4;
}

static void ojo__fill_reserve(struct ojo__core *core) {
  pthread_mutex_lock(&core->pass_lock);
  ojo__populate_ahead(core);
  pthread_mutex_unlock(&core->pass_lock);
}

static bool ojo__snapshot(struct ojo__core *core, const char *path) {
  sigset_t before;
  pthread_mutex_lock(&core->pass_lock);
  ojo__pass_begin(core, &before);
  errno = EBADF; /* closed since */
  bool ok = OJO__LOAD(&core->t->abi) == OJO_ABI && ojo__snapshot_locked(core, path);
  int error = errno;
  ojo__pass_end(core, &before);
  errno = error;
  return ok;
}

/* ---- >>signals ---------------------------------------------------------------------------------- */

struct ojo__signal { /* of ojo_snapshot_on_signal. Made under ojo__lock, never freed: a handler may look at it */
  struct ojo__signal *next;
  struct ojo__core *core; /* NULL: the entry is free */
  int signo;
  uint32_t wanted;
  bool to_output;
  char path[PATH_MAX];
};
enum { OJO__SIGNALS = 65 };
static struct ojo__signal *ojo__signals;
static struct sigaction ojo__before[OJO__SIGNALS]; /* the program's own handlers */
static bool ojo__installed[OJO__SIGNALS];
static const int ojo__crashes[] = {SIGSEGV, SIGBUS, SIGABRT, SIGFPE, SIGILL};

static void ojo__signal_snapshots(struct ojo__core *core) {
  __atomic_store_n(&core->signalled, 0, __ATOMIC_SEQ_CST); /* before `wanted` is read: a later signal comes again */
  for (struct ojo__signal *s = OJO__LOAD(&ojo__signals); s; s = s->next)
    if (OJO__LOAD(&s->core) == core && __atomic_exchange_n(&s->wanted, 0, __ATOMIC_SEQ_CST))
      ojo__snapshot(core, s->to_output ? NULL : s->path);
}

/* In a handler, for a tracer without a flusher: at once, unless this very moment somebody writes. */
static void ojo__write_in_handler(struct ojo__core *core, const char *path) {
  sigset_t before;
  if (pthread_mutex_trylock(&core->pass_lock) != 0) return;
  ojo__pass_begin(core, &before);
  core->mute = true;
  bool open = OJO__LOAD(&core->t->abi) == OJO_ABI; /* not closed since: ojo__close waits for the lock behind that */
  if (open && ojo__recorder(core)) ojo__snapshot_locked(core, path);
  else if (open) ojo__pass_locked(core, true);
  core->mute = false;
  ojo__pass_end(core, &before);
}

/* Calls the handler that ours replaced. One that is none: `fatal` brings the default action about, by the same
 * instruction once more or by the same signal once more. */
static void ojo__call_before(int signo, siginfo_t *info, void *context, bool fatal) {
  const struct sigaction *old = &ojo__before[signo];
  if (old->sa_flags & SA_SIGINFO) {
    if (old->sa_sigaction) old->sa_sigaction(signo, info, context);
  } else if (old->sa_handler != SIG_DFL && old->sa_handler != SIG_IGN) {
    old->sa_handler(signo);
  } else if (fatal && (old->sa_handler == SIG_DFL || info->si_code > 0)) {
    sigaction(signo, old, NULL);
    if (info->si_code <= 0) syscall(SYS_tgkill, getpid(), syscall(SYS_gettid), signo); /* once we have returned */
  }
}

static void ojo__on_signal(int signo, siginfo_t *info, void *context) {
  int saved = errno;
  for (struct ojo__signal *s = OJO__LOAD(&ojo__signals); s; s = s->next) {
    struct ojo__core *core = OJO__LOAD(&s->core);
    if (!core || s->signo != signo || OJO__LOAD(&core->t->abi) != OJO_ABI) continue;
    if (core->desc.no_thread) {
      ojo__write_in_handler(core, s->to_output ? NULL : s->path);
      continue;
    }
    __atomic_store_n(&s->wanted, 1, __ATOMIC_SEQ_CST);
    __atomic_store_n(&core->signalled, 1, __ATOMIC_SEQ_CST);
    ojo__wake_flusher(core);
  }
  ojo__call_before(signo, info, context, false);
  errno = saved;
}

/* Waits until the flusher has done what request `mine` asked for, at most so long since `begun`. Signal-safe. */
static ojo_result ojo__await(struct ojo__core *core, uint32_t mine, uint64_t begun, uint64_t most_ms) {
  uint64_t end = begun + most_ms * 1000000u, now;
  for (;;) {
    uint32_t done = OJO__LOAD(&core->done); /* pairs with the flusher's release behind its pass */
    if ((int32_t)(done - mine) >= 0) return OJO_OK;
    uint32_t ended = OJO__LOAD(&core->ended); /* closed meanwhile, by a pass that came after the call */
    if (ended) return ended == 1 ? OJO_OK : OJO_ERR_IO;
    now = ojo__clock_ns(CLOCK_MONOTONIC);
    if (now >= (end = ojo__deadline(end, now, most_ms * 1000000u))) return OJO_ERR_TIMEOUT;
    ojo__futex_wait(&core->done, done, end - now < 100000000u ? end - now : 100000000u);
  }
}

static void ojo__on_crash(int signo, siginfo_t *info, void *context) {
  int saved = errno;
  /* A crash in the handler below is no news. While it is called its signal is blocked, unless it was left by a
   * siglongjmp, which restored the mask. */
  int crashing = ojo__local.crashing;
  bool nested = crashing && sigismember(&((const ucontext_t *)context)->uc_sigmask, crashing) == 1;
  uint32_t tid = (uint32_t)syscall(SYS_gettid);
  uint64_t begun = ojo__clock_ns(CLOCK_MONOTONIC);
  for (int wait = 0; wait < 2 && !nested; wait++) /* first all are asked, then all are waited for */
    for (struct ojo__core *core = OJO__LOAD(&ojo__cores); core; core = core->next) {
      if (OJO__LOAD(&core->t->abi) != OJO_ABI || !core->dump || OJO__PEEK(&core->pass_tid) == tid) continue;
      if (core->desc.no_thread || pthread_equal(pthread_self(), core->thread)) {
        if (!wait) ojo__write_in_handler(core, NULL);
      } else if (!wait) {
        OJO__STORE(&core->crashed, 1);
        core->crash_request = __atomic_add_fetch(&core->requested, 1, __ATOMIC_SEQ_CST);
        ojo__wake_flusher(core);
      } else {
        ojo__await(core, core->crash_request, begun, OJO__CRASH_WAIT_MS);
      }
    }
  if (!nested) ojo__local.crashing = signo;
  ojo__call_before(signo, info, context, true);
  if (!nested) ojo__local.crashing = 0;
  errno = saved;
}

/* Gives a signal back, unless somebody else has it now, who may call us. */
static void ojo__uninstall(int signo) {
  struct sigaction now;
  if (!ojo__installed[signo] || sigaction(signo, NULL, &now) != 0 || !(now.sa_flags & SA_SIGINFO) ||
      (now.sa_sigaction != ojo__on_signal && now.sa_sigaction != ojo__on_crash))
    return;
  ojo__installed[signo] = sigaction(signo, &ojo__before[signo], NULL) != 0;
}

/* Under ojo__lock. */
static bool ojo__install(int signo, void (*handler)(int, siginfo_t *, void *)) {
  struct sigaction action;
  if (ojo__installed[signo]) return true; /* not again: who came after us may call us, and we would call him */
  memset(&action, 0, sizeof action);
  action.sa_sigaction = handler;
  action.sa_flags = SA_SIGINFO | SA_ONSTACK | SA_RESTART;
  sigemptyset(&action.sa_mask);
  if (sigaction(signo, NULL, &ojo__before[signo]) != 0 || sigaction(signo, &action, NULL) != 0) return false;
  return ojo__installed[signo] = true;
}

static void *ojo__flusher(void *argument) {
  struct ojo__core *core = (struct ojo__core *)argument;
  struct ojo__pool *pool = core->pool;
  uint64_t interval = (uint64_t)core->desc.flush_interval_ms * 1000000u, wait = 0, end = UINT64_MAX;
  uint64_t due = ojo__clock_ns(CLOCK_MONOTONIC) + interval; /* when all must go out, full batch or not */
  bool failed = false;
  prctl(PR_SET_NAME, "ojo-flusher", 0, 0, 0);
  OJO__SET(&core->flusher_tid, (uint32_t)syscall(SYS_gettid));
  for (;;) {
    /* wake is read before stop, signalled and requested, which are stored before wake is raised: nothing is
     * missed */
    uint32_t seen = __atomic_load_n(&core->wake, __ATOMIC_SEQ_CST);
    if (!OJO__LOAD(&core->stop) && !__atomic_load_n(&core->signalled, __ATOMIC_SEQ_CST) &&
        OJO__LOAD(&core->requested) == OJO__LOAD(&core->done)) {
      uint64_t now = ojo__clock_ns(CLOCK_MONOTONIC);
      due = ojo__deadline(due, now, interval);
      __atomic_store_n(&core->sleeping, 1, __ATOMIC_SEQ_CST);
      /* What is queued and in use is read after sleeping is set; a recorder does it the other way round. */
      if (!ojo__enough(core) || !__atomic_load_n(&pool->line_full[0], __ATOMIC_SEQ_CST))
        ojo__futex_wait(&core->wake, seen, now < due ? due - now : 0);
      __atomic_store_n(&core->sleeping, 0, __ATOMIC_SEQ_CST);
    }
    bool stop = OJO__LOAD(&core->stop);
    uint32_t asked = OJO__LOAD(&core->requested);
    uint64_t begun = ojo__clock_ns(CLOCK_MONOTONIC);
    bool all = stop || asked != OJO__LOAD(&core->done) || begun >= due;
    bool low = __atomic_exchange_n(&core->reserve_low, 0, __ATOMIC_RELAXED) != 0;
    if (OJO__LOAD(&core->signalled)) ojo__signal_snapshots(core);
    else if (low && !all && !ojo__enough(core)) { /* no batch before its time */
      ojo__fill_reserve(core);
      continue;
    }
    if (OJO__LOAD(&core->crashed) && ojo__recorder(core)) { /* stored before `requested` was raised */
      OJO__STORE(&core->crashed, 0);
      ojo__snapshot(core, NULL);
    }
    if (ojo__pass(core, all)) {
      wait = 0;
      if (all) due = begun + interval;
      OJO__STORE(&core->done, asked);
      ojo__futex_wake(&core->done);
      if (stop) break;
      continue;
    }
    uint64_t now = ojo__clock_ns(CLOCK_MONOTONIC);
    if (stop) end = ojo__deadline(end, now, (uint64_t)OJO__WAIT_MS * 1000000u);
    failed = stop && now >= end;
    if (failed) break;
    wait = wait ? (wait < 500000000u ? wait * 2 : 1000000000u) : 20000000u; /* try again after 20 ms .. 1 s */
    ojo__futex_wait(&core->stop, stop, wait);
  }
  if (core->writer_runs) {
    OJO__STORE(&core->handed, OJO__PEEK(&core->handed) | OJO__HANDED_END);
    ojo__futex_wake(&core->handed);
    pthread_join(core->writer, NULL);
  }
  OJO__SET(&core->flusher_tid, 0); /* another thread may get the number */
  OJO__STORE(&core->ended, failed ? 2u : 1u); /* ojo_flush calls that came meanwhile wait no longer */
  ojo__futex_wake(&core->done);
  return NULL;
}

/* ---- >>open -------------------------------------------------------------------------------------- */

/* The tightest limit of memory: of the control groups above us (v2, v1) and of the machine. */
static uint64_t ojo__memory_limit(void) {
  char text[4096], path[8192], value[64];
  uint64_t limit = (uint64_t)sysconf(_SC_PHYS_PAGES) * (uint64_t)sysconf(_SC_PAGESIZE);
  if (ojo__read_text("/sys/fs/cgroup/memory/memory.limit_in_bytes", value, sizeof value)) {
    uint64_t v1 = strtoull(value, NULL, 10);
    if (v1 && v1 < limit) limit = v1;
  }
  if (!ojo__read_text("/proc/self/cgroup", text, sizeof text)) return limit;
  char *group = strstr(text, "0::");
  if (!group) return limit;
  group += 3;
  group[strcspn(group, "\n")] = 0;
  for (;;) {
    snprintf(path, sizeof path, "/sys/fs/cgroup%s/memory.max", strcmp(group, "/") ? group : "");
    if (ojo__read_text(path, value, sizeof value) && value[0] != 'm') {
      uint64_t v2 = strtoull(value, NULL, 10);
      if (v2 && v2 < limit) limit = v2;
    }
    char *slash = strrchr(group, '/');
    if (!slash || !group[0]) return limit;
    *slash = 0;
  }
}

static void ojo__random(void *bytes, size_t length) {
  if (syscall(SYS_getrandom, bytes, length, 0) == (long)length) return;
  for (size_t i = 0; i < length; i++) { /* no getrandom: what differs between processes and moments */
    uint64_t mix = ojo__clock_ns(CLOCK_REALTIME) * 0x9E3779B97F4A7C15u ^ (uint64_t)getpid() << 32 ^ i;
    ((unsigned char *)bytes)[i] = (unsigned char)(mix >> 56 ^ mix >> 24);
  }
}

static void ojo__boot_id(uint8_t id[16]) {
  char text[64];
  size_t n = 0;
  memset(id, 0, 16);
  ojo__read_text("/proc/sys/kernel/random/boot_id", text, sizeof text);
  for (const char *p = text; *p && n < 32; p++) {
    int digit = *p >= '0' && *p <= '9' ? *p - '0' : *p >= 'a' && *p <= 'f' ? *p - 'a' + 10 : -1;
    if (digit >= 0) id[n / 2] = (uint8_t)(id[n / 2] << 4 | digit), n++;
  }
}

static void ojo__hex(char *out, const uint8_t *bytes, size_t length) {
  for (size_t i = 0; i < length; i++) snprintf(out + 2 * i, 3, "%02x", bytes[i]);
}

/* mkdir -p, then handles on DIR/staging and DIR/output that a symlink planted there can't turn away. Called
 * again when a directory was removed under us: the handles change only if both can be had. */
static ojo_result ojo__open_dirs(struct ojo__core *core) {
  const char *const name[2] = {"staging", "output"};
  const char *where = core->path[0] ? core->path : core->dir;
  char path[PATH_MAX];
  int fd[2] = {-1, -1};
  size_t length = strlen(where);
  if (length + 32 >= sizeof path) {
    ojo__log(core, "%.60s...: the path has %zu bytes, too long", where, length);
    return OJO_ERR_ARGUMENT;
  }
  bool made_it = false; /* DIR itself, not its parents */
  for (size_t i = 1; i <= length; i++) {
    if (where[i] != '/' && where[i] != 0) continue;
    memcpy(path, where, i);
    path[i] = 0;
    made_it = mkdir(path, (mode_t)core->desc.dir_mode) == 0;
    if (!made_it && errno != EEXIST && errno != EROFS && errno != EACCES) break; /* the open below tells */
  }
  int dir = open(where, O_RDONLY | O_DIRECTORY | O_CLOEXEC), error = errno;
  if (dir >= 0 && made_it) (void)!fchmod(dir, (mode_t)core->desc.dir_mode);
  for (int i = 0; dir >= 0 && i < 2; i++) {
    int made = mkdirat(dir, name[i], (mode_t)core->desc.dir_mode);
    if (made == 0 || errno == EEXIST) fd[i] = ojo__openat(dir, name[i], O_RDONLY | O_DIRECTORY, 0);
    if (made == 0 && fd[i] >= 0) (void)!fchmod(fd[i], (mode_t)core->desc.dir_mode); /* whatever the umask */
    if (fd[i] < 0) {
      error = errno;
      ojo__close_fd(&dir);
    }
  }
  if (dir < 0) {
    ojo__close_fd(&fd[0]);
    ojo__close_fd(&fd[1]);
    if (!core->pool) ojo__log(core, "can't make the directories of %s: %s", where, strerror(error));
    errno = error;
    return error == EACCES || error == EPERM ? OJO_ERR_PERMISSION : OJO_ERR_IO;
  }
  close(dir);
  ojo__close_fd(&core->staging_fd);
  ojo__close_fd(&core->output_fd);
  core->staging_fd = fd[0];
  core->output_fd = fd[1];
  if (core->crash_safe && !ojo__pool_link(core)) /* it went with the old staging/ */
    ojo__log(core, "can't write %s/staging/%s (%s): a crash's events will not be found", core->dir, core->link_name,
             strerror(errno));
  if (!core->path[0] && !realpath(core->dir, core->path)) core->path[0] = 0; /* for chdir */
  return OJO_OK;
}

/* ---- >>recover ---------------------------------------------------------------------------------- */

/* A dead tracer's pool is finished by its own protocol: what its open batch had taken is rolled back,
 * unless that batch was renamed, and then we are its flusher for one last batch. This needs no state of
 * its own: a recoverer that is killed leaves a pool to which the same applies, and two are kept apart by
 * the pool's lock. The pool's contents are not trusted: every index and length is checked before use. */

/* Header, anchors and thread entries in use: present, lest a hole raise SIGBUS where the tmpfs is full. */
static bool ojo__recover_present(struct ojo__core *dead, const struct ojo__pool *head) {
  return ojo__populate(dead, dead->pool, sizeof *head) &&
         ojo__populate(dead, dead->anchors, head->anchor_count * sizeof *dead->anchors) &&
         ojo__populate(dead, dead->threads, head->threads_fresh * sizeof *dead->threads);
}

/* Writes a dead pool's events as one batch. False: they can't be written now; the pool stays. */
static bool ojo__recover_write(struct ojo__core *dead) {
  struct ojo__pool *pool = dead->pool;
  char name[64];
  bool done = false;
  ojo__dead_list(dead, &done);
  if (OJO__LOAD(&pool->going.under_way)) { /* killed around a deletion for disk_bytes_max: did it happen? */
    struct stat st;
    memcpy(name, pool->going.name, sizeof name);
    name[sizeof name - 1] = 0;
    if (!strchr(name, '/') && fstatat(dead->output_fd, name, &st, AT_SYMLINK_NOFOLLOW) != 0 && errno == ENOENT)
      ojo__deleted(pool);
    OJO__STORE(&pool->going.under_way, 0);
  }
  if (done && pool->open_batch) { /* model: V7. Noted: our own file's name will take the place of the one that tells */
    pool->batches = pool->last_number + 1;
    OJO__STORE(&pool->batch_published, pool->open_batch);
  } else pool->last_number = pool->batches - 1;
  /* model: V8. Only now that all is rolled back: its absence will say that nothing is left to roll back. */
  if (ojo__batch_name(pool, name)) unlinkat(dead->staging_fd, name, 0);
  bool ok = true;
  if (ojo__dead_any(dead) || ojo__losses_pending(dead)) {
    ojo__anchor_take(dead, true); /* ticks since the last pass lie before it */
    ok = ojo__batch_room(dead);
    if (ok) ojo__dead_drain(dead);
    ok = ok && ojo__batch_end(dead);
  }
  return ok;
}

/* /dev/shm/ojo_{boot id}_{trace id}, in hex, and nothing else. */
static bool ojo__pool_name(const char *path) {
  static const char digits[] = "0123456789abcdef";
  return strncmp(path, "/dev/shm/ojo_", 13) == 0 && strspn(path + 13, digits) == 32 && path[45] == '_' &&
         strspn(path + 46, digits) == 32 && path[78] == 0;
}

/* What keeps us from a pool: gone, a planted symlink, or not ours to open is none of our business; else it
 * is still to be recovered, and OJO_OK would be a lie. */
static ojo_result ojo__recover_cannot(struct ojo__core *opener, const char *name, int error) {
  if (error == ENOENT || error == ELOOP || error == EACCES || error == ENXIO) return OJO_OK;
  ojo__log(opener, "%s: can't recover %s now: %s", opener->dir, name, strerror(error));
  return OJO_ERR_IO;
}

/* Recovers the pool that a link in staging/ names, if its owner is dead: nobody holds its lock. A link is
 * only followed to a regular file in /dev/shm that belongs to the directory's owner, never through a
 * symlink. Not OJO_OK: what is in it could not be written. */
static ojo_result ojo__recover_link(struct ojo__core *opener, const char *link) {
  char path[160];
  struct stat st, owner;
  ojo_result result = OJO_OK;
  int fd = ojo__openat(opener->staging_fd, link, O_RDONLY | O_NONBLOCK, 0);
  if (fd < 0) return ojo__recover_cannot(opener, link, errno);
  bool known = fstat(fd, &st) == 0, regular = known && S_ISREG(st.st_mode);
  ssize_t got = regular ? read(fd, path, sizeof path - 1) : -1;
  int error = errno;
  close(fd);
  if (!known || (regular && got < 0)) return ojo__recover_cannot(opener, link, error);
  path[got > 0 ? got : 0] = 0;
  path[strcspn(path, "\n")] = 0;
  if (got == 0 && strlen(link) == 42) { /* its owner died before it wrote the name, which the link's implies */
    uint8_t boot[16];
    char boot_hex[33];
    ojo__boot_id(boot);
    ojo__hex(boot_hex, boot, 16);
    snprintf(path, sizeof path, "/dev/shm/ojo_%s_%.32s", boot_hex, link + 5);
  }
  if (got < 0 || !ojo__pool_name(path)) return OJO_OK;
  int lock = ojo__openat(AT_FDCWD, path, O_RDONLY | O_NONBLOCK, 0); /* model: V1 */
  if (lock < 0) { /* not in this /dev/shm: of an earlier boot; else another container's, and it may live */
    uint8_t boot[16];
    char boot_hex[33];
    error = errno;
    ojo__boot_id(boot);
    ojo__hex(boot_hex, boot, 16);
    if (error == ENOENT && memcmp(path + 13, boot_hex, 32) != 0) unlinkat(opener->staging_fd, link, 0);
    return ojo__recover_cannot(opener, path, error);
  }
  known = fstat(opener->staging_fd, &owner) == 0 && fstat(lock, &st) == 0;
  bool ours = known && S_ISREG(st.st_mode) && st.st_uid == owner.st_uid && (geteuid() == 0 || geteuid() == st.st_uid);
  bool locked = ours && flock(lock, LOCK_EX | LOCK_NB) == 0; /* model: V2; no name left is V3 */
  if (!locked || fstat(lock, &st) != 0 || st.st_nlink == 0) {
    /* Locked: alive, or somebody else recovers it. No name left: somebody else has. */
    error = !known || (ours && !locked && errno != EWOULDBLOCK) || (locked && st.st_nlink != 0) ? errno : ENOENT;
    close(lock);
    return ojo__recover_cannot(opener, path, error);
  }
  fd = open(path, O_RDWR | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK); /* mapped: not the description that locks */
  struct stat mapped;
  struct ojo__pool *pool = NULL, head;
  void *map = MAP_FAILED;
  if (fd >= 0 && (fstat(fd, &mapped) != 0 || mapped.st_dev != st.st_dev || mapped.st_ino != st.st_ino)) {
    ojo__close_fd(&fd); /* another file than the one that we locked */
    errno = ESTALE;
  }
  if (fd >= 0 && (uint64_t)st.st_size >= sizeof head && pread(lock, &head, sizeof head, 0) == (ssize_t)sizeof head)
    map = mmap(NULL, (size_t)st.st_size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  if (map != MAP_FAILED) pool = (struct ojo__pool *)map;
  struct ojo__core *dead = (struct ojo__core *)calloc(1, sizeof *dead);
  ojo_tracer t;
  memset(&t, 0, sizeof t);
  bool sound = pool && dead && ojo__pool_sound(&head, (uint64_t)st.st_size);
  if (sound) {
    dead->t = &t;
    dead->desc = opener->desc;
    dead->desc.disk_bytes_max = 0;
    dead->desc.overflow = OJO_OVERFLOW_DROP_NEWEST; /* whatever it was: we are a flusher */
    dead->desc.flush_bytes = dead->batch_target = UINT64_MAX; /* one batch */
    dead->dir = opener->dir;
    dead->staging_fd = opener->staging_fd;
    dead->output_fd = opener->output_fd;
    dead->lock_fd = lock;
    dead->pool_fd = fd;
    dead->queue_head = dead->queue_next = dead->queue_tail = OJO__NONE;
    if (!ojo__dead_attach(dead, pool, &head, (uint64_t)st.st_blocks * 512)) result = OJO_ERR_MEMORY;
    else if (!ojo__recover_present(dead, &head)) {
      ojo__log(opener, "%s: no room in /dev/shm to recover %s: its events wait there", opener->dir, path);
      result = OJO_ERR_IO;
    } else sound = ojo__anchors_sound(dead->anchors, head.anchor_count);
  }
  if (sound && result == OJO_OK) {
    dead->sequence = pool->open_batch; /* names go on where the dead one's ended */
    sigset_t before;
    ojo__file_signal(true, &before);
    if (!ojo__recover_write(dead)) result = OJO_ERR_IO;
    opener->staging_fd = dead->staging_fd; /* ojo__open_dirs may have changed them */
    opener->output_fd = dead->output_fd;
    ojo__file_signal(false, &before);
    if (result != OJO_OK) ojo__log(opener, "%s: the events of %s wait there", opener->dir, path);
    else
      ojo__log(opener, "recovered %llu events of process %u, which did not close its tracer, into %s/output",
               (unsigned long long)dead->written, (unsigned)head.file.pid, opener->dir);
  } else if (result != OJO_OK) { /* said above */
  } else if (st.st_size == 0 || (pool && dead && head.magic[0] == 0)) {
    result = OJO_OK; /* its owner died while it opened: there are no events */
  } else if (pool && dead) {
    ojo__log(opener, "%s is no pool of this version of ojo.h: left alone", path);
    result = OJO_ERR_FORMAT;
  } else {
    ojo__log(opener, "can't map the pool %s: %s", path, strerror(errno));
    result = OJO_ERR_IO;
  }
  if (result == OJO_OK) { /* model: D1, D2, D3, as in ojo__pool_file_drop */
    if (pool) pool->magic[0] = 0;
    unlinkat(opener->staging_fd, link, 0);
    unlink(path);
  }
  if (dead) ojo__dead_detach(dead);
  free(dead);
  if (map != MAP_FAILED) munmap(map, (size_t)st.st_size);
  ojo__close_fd(&fd);
  close(lock);
  return result;
}

/* A dead tracer's pool whose directory, or link in it, is not here: deleted, or in another container that
 * shares /dev/shm. Nobody here will recover it, and it holds memory; but what it holds is not ours to throw
 * away, nor to take into a directory that has the same name by chance. */
static bool ojo__pool_lost(int fd, const char *name, const struct stat *st, time_t now, char where[PATH_MAX]) {
  struct ojo__pool head;
  char link[PATH_MAX + 64];
  if (st->st_ctime + 60 >= now || pread(fd, &head, sizeof head, 0) != (ssize_t)sizeof head) return false;
  if (memcmp(head.magic, "ojopool", 8) != 0 || head.version != OJO__POOL_VERSION || head.dir[0] != '/') return false;
  memcpy(where, head.dir, PATH_MAX);
  where[PATH_MAX - 1] = 0;
  snprintf(link, sizeof link, "%s/staging/pool_%.32s.link", where, name + 37);
  return access(link, F_OK) != 0 && errno == ENOENT && flock(fd, LOCK_SH | LOCK_NB) == 0;
}

/* Removes pools without a link: their owners died between the creation of the two, and recorded nothing.
 * Those being created now are told by their age. ojo_recover, not each ojo_open, tells of lost pools. */
static void ojo__remove_unborn(struct ojo__core *opener) {
  char where[PATH_MAX], path[PATH_MAX] = "", name[80] = "";
  unsigned lost = 0;
  unsigned long long kib = 0;
  DIR *dir = opendir("/dev/shm");
  struct stat st;
  struct timespec now;
  clock_gettime(CLOCK_REALTIME, &now);
  for (struct dirent *entry; dir && (entry = readdir(dir));) {
    char magic = 1;
    if (strncmp(entry->d_name, "ojo_", 4) != 0 || strlen(entry->d_name) != 69) continue;
    int fd = openat(dirfd(dir), entry->d_name, O_RDONLY | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0) continue;
    /* Looked at before it is locked, lest a recoverer take our lock for its owner's, and again behind it */
    bool mine = fstat(fd, &st) == 0 && S_ISREG(st.st_mode) && st.st_uid == geteuid();
    bool unborn = mine && st.st_ctime + 2 < now.tv_sec;
    for (int i = 0; unborn && i < 2; i++)
      unborn = fstat(fd, &st) == 0 && (st.st_size == 0 || (pread(fd, &magic, 1, 0) == 1 && magic == 0)) &&
               (i == 1 || flock(fd, LOCK_EX | LOCK_NB) == 0);
    if (unborn) unlinkat(dirfd(dir), entry->d_name, 0);
    else if (!opener->t && mine && magic && ojo__pool_lost(fd, entry->d_name, &st, now.tv_sec, where)) {
      if (!lost++) {
        memcpy(path, where, sizeof path);
        snprintf(name, sizeof name, "%.79s", entry->d_name);
      }
      kib += (unsigned long long)st.st_blocks / 2;
    }
    close(fd);
  }
  if (dir) closedir(dir);
  if (lost) /* an empty link is enough: its name implies the pool's */
    ojo__log(opener, "%u pools (%llu KiB) of processes that died are left in /dev/shm, without a link in "
             "their directories, one of them /dev/shm/%s of %.400s. Delete it; or create DIR/staging/pool_%s.link, empty, and "
             "recover DIR", lost, kib, name, path, name + 37);
}

static ojo_result ojo__recover_all(struct ojo__core *opener) {
  int copy = openat(opener->staging_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  DIR *dir = copy < 0 ? NULL : fdopendir(copy);
  ojo_result result = OJO_OK;
  if (!dir) {
    if (copy >= 0) close(copy);
    return OJO_ERR_IO;
  }
  ojo__remove_unborn(opener);
  for (struct dirent *entry; (entry = readdir(dir));) {
    size_t length = strlen(entry->d_name);
    if (strncmp(entry->d_name, "pool_", 5) != 0 || length < 10 || strcmp(entry->d_name + length - 5, ".link") != 0)
      continue;
    ojo_result one = ojo__recover_link(opener, entry->d_name);
    if (one != OJO_OK) result = one;
  }
  closedir(dir);
  return result;
}

static ojo_result ojo__recover(const char *path) {
  struct ojo__core *opener;
  struct stat st;
  ojo_result result = OJO_ERR_MEMORY;
  if (!path || !*path) return OJO_ERR_ARGUMENT;
  if (stat(path, &st) != 0 || !S_ISDIR(st.st_mode)) return OJO_ERR_NOT_FOUND;
  opener = (struct ojo__core *)calloc(1, sizeof *opener);
  if (!opener) return result;
  opener->desc.file_mode = 0600;
  opener->desc.dir_mode = 0700;
  opener->staging_fd = opener->output_fd = -1;
  opener->dir = strdup(path);
  char staging[PATH_MAX];
  if (snprintf(staging, sizeof staging, "%s/staging", path) >= (int)sizeof staging || access(staging, F_OK) != 0)
    result = OJO_OK; /* no tracer ever was here: nothing is made */
  else if (opener->dir)
    result = ojo__open_dirs(opener);
  else result = OJO_ERR_MEMORY;
  if (opener->staging_fd >= 0) result = ojo__recover_all(opener);
  if (opener->staging_fd >= 0) close(opener->staging_fd);
  if (opener->output_fd >= 0) close(opener->output_fd);
  free(opener->dir);
  free(opener);
  return result;
}

/* Under ojo__lock, which a fork takes: a child that came to be meanwhile would keep the pool's lock. */
OJO_API ojo_result ojo_recover(const char *path) {
  int cancel = 0;
  pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &cancel);
  ojo__fork_look();
  pthread_mutex_lock(&ojo__lock);
  ojo_result result = ojo__recover(path);
  pthread_mutex_unlock(&ojo__lock);
  pthread_setcancelstate(cancel, NULL);
  return result;
}

/* ---- >>map -------------------------------------------------------------------------------------- */

/* What the tmpfs and the limits of memory leave for the pool. 0: not on tmpfs. */
static uint64_t ojo__pool_bytes(struct ojo__core *core, uint64_t wanted, bool *tmpfs) {
  struct statfs fs;
  uint64_t least = 8u << 20, room = 0;
  *tmpfs = statfs("/dev/shm", &fs) == 0 && (unsigned long)fs.f_type == 0x01021994ul &&
           !((unsigned long)fs.f_flags & 1ul /* ST_RDONLY */);
#ifdef OJO_NO_TMPFS
  *tmpfs = false;
#endif
  if (*tmpfs) room = (uint64_t)fs.f_bavail * (uint64_t)fs.f_bsize;
  uint64_t bytes = wanted ? wanted : (uint64_t)512 << 20, limit = ojo__memory_limit() / 4;
  if (!wanted && bytes > limit) bytes = limit;
  if (!wanted && *tmpfs && room >= 2 * least && bytes > room / 2) bytes = room / 2;
  if (*tmpfs && bytes + bytes / 16 > room) { /* a sixteenth: headers and tables */
    if (room >= least) bytes = room - room / 8;
    else *tmpfs = false;
  }
  struct rlimit file, space;
  if (getrlimit(RLIMIT_AS, &space) == 0 && space.rlim_cur != RLIM_INFINITY && bytes > space.rlim_cur / 4)
    bytes = space.rlim_cur / 4; /* the application needs some too */
  if (*tmpfs && getrlimit(RLIMIT_FSIZE, &file) == 0 && file.rlim_cur != RLIM_INFINITY &&
      bytes + bytes / 16 + least > file.rlim_cur) {
    if (file.rlim_cur >= 2 * least) bytes = (file.rlim_cur - least) / 2; /* ftruncate would raise SIGXFSZ */
    else *tmpfs = false;
  }
  uint64_t full = wanted ? wanted : (uint64_t)512 << 20;
  if (bytes < full)
    ojo__log(core, "pool of %s: %llu KiB, not %llu: memory is limited", core->dir,
             (unsigned long long)(bytes >> 10), (unsigned long long)(full >> 10));
  return bytes;
}

/* The link in staging/ by which a dead pool is found. On a full disk it may be empty: its own name implies
 * the pool's; but half a name would hide it. */
static bool ojo__pool_link(struct ojo__core *core) {
  char text[160];
  int n = snprintf(text, sizeof text, "%s\n", core->pool_path);
  int fd = ojo__openat(core->staging_fd, core->link_name, O_WRONLY | O_CREAT | O_EXCL, 0600);
  if (fd < 0) return errno == EEXIST;
  bool ok = write(fd, text, (size_t)n) == n || ftruncate(fd, 0) == 0;
  int error = errno;
  close(fd);
  errno = error;
  return ok;
}

/* Creates the pool's file and takes the lock that says "alive": on an open of its own that is never mapped,
 * because a mapping would keep the description, and so the lock, alive in a fork child. */
static bool ojo__pool_file(struct ojo__core *core, const uint8_t boot[16], const uint8_t trace[16],
                           uint64_t bytes) {
  char boot_hex[33], trace_hex[33];
  ojo__hex(boot_hex, boot, 16);
  ojo__hex(trace_hex, trace, 16);
  snprintf(core->pool_path, sizeof core->pool_path, "/dev/shm/ojo_%s_%s", boot_hex, trace_hex);
  snprintf(core->link_name, sizeof core->link_name, "pool_%s.link", trace_hex);
  core->pool_fd = ojo__openat(AT_FDCWD, core->pool_path, O_RDWR | O_CREAT | O_EXCL, 0600);
  if (core->pool_fd < 0) return false;
  core->lock_fd = ojo__openat(AT_FDCWD, core->pool_path, O_RDONLY, 0);
  if (core->lock_fd < 0 || flock(core->lock_fd, LOCK_EX | LOCK_NB) != 0) return false;
  /* The link once it is locked; and at once, lest a crash leave a pool that nobody finds */
  return ojo__pool_link(core) && ftruncate(core->pool_fd, (off_t)bytes) == 0;
}

/* Takes the pool's names away: the mark first, so that a crash in between leaves what ojo__remove_unborn
 * removes, then the link, then the pool. */
static void ojo__pool_file_drop(struct ojo__core *core) {
  if (core->pool_fd >= 0 && !core->kept) { /* model: D1, D2, D3 */
    if (core->pool) core->pool->magic[0] = 0;
    unlinkat(core->staging_fd, core->link_name, 0);
    unlink(core->pool_path);
  }
  ojo__close_fd(&core->pool_fd);
  ojo__close_fd(&core->lock_fd);
}

/* Closed tracers' addresses are used again, oldest first, once OJO__QUARANTINE of that size are closed: a
 * recorder that is late stores into memory that is nobody's, not into another tracer's pool. Under
 * ojo__lock. NULL: map anew. */
static struct ojo__core *ojo__oldest_closed(uint64_t map_bytes) {
  struct ojo__core *oldest = NULL;
  uint64_t closed = 0;
  for (struct ojo__core *c = ojo__cores; c; c = c->next)
    if (c->closed && c->closed != UINT64_MAX && c->pool && c->map_bytes == map_bytes) {
      closed++;
      if (!oldest || c->closed < oldest->closed) oldest = c;
    }
  return closed >= OJO__QUARANTINE ? oldest : NULL;
}

/* Lays the pool out at `bytes` of chunks and maps it; smaller if the address space is limited. */
static bool ojo__pool_map(struct ojo__core *core, uint64_t bytes, uint64_t schema_bytes, bool tmpfs,
                          const ojo_file_header *file) {
  uint64_t nested = core->desc.overflow == OJO_OVERFLOW_BLOCK ? OJO__NESTED_CHUNKS : 0;
  void *at = MAP_FAILED;
  uint64_t anchors, threads, chunks, data, schema = ojo__round_up(sizeof(struct ojo__pool), 64);
  uint64_t count = bytes / OJO__CHUNK_BYTES, asked = count;
  if (count > OJO__LIST_INDEX - 32) count = OJO__LIST_INDEX - 32;
  for (;; count /= 2) {
    if (count < OJO__CHUNKS_MIN) count = OJO__CHUNKS_MIN;
    anchors = ojo__round_up(schema + schema_bytes, 4096);
    threads = ojo__round_up(anchors + OJO__ANCHORS_MAX * sizeof(struct ojo__anchor), 4096);
    chunks = ojo__round_up(threads + OJO__THREADS_MAX * sizeof(struct ojo__thread), 4096);
    data = ojo__round_up(chunks + (count + nested) * sizeof(struct ojo__chunk), OJO__CHUNK_BYTES);
    core->map_bytes = data + (count + nested) * OJO__CHUNK_BYTES;
    struct ojo__core *old = ojo__oldest_closed(core->map_bytes);
    if (tmpfs && !ojo__pool_file(core, file->boot_id, file->trace_id, core->map_bytes)) {
      ojo__log(core, "no pool in /dev/shm (%s): events in memory will not survive a crash", strerror(errno));
      ojo__pool_file_drop(core);
      tmpfs = false;
    }
    int flags = (tmpfs ? MAP_SHARED : MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE) | (old ? MAP_FIXED : 0);
    at = mmap(old ? (void *)old->pool : NULL, core->map_bytes, PROT_READ | PROT_WRITE, flags,
              tmpfs ? core->pool_fd : -1, 0);
    if (at != MAP_FAILED && old) old->map_bytes = 0; /* its addresses are ours now */
    if (at != MAP_FAILED || count == OJO__CHUNKS_MIN) break;
    ojo__pool_file_drop(core);
  }
  if (at == MAP_FAILED) {
    ojo__pool_file_drop(core);
    ojo__log(core, "can't map a pool of %llu KiB: %s", (unsigned long long)(core->map_bytes >> 10), strerror(errno));
    core->map_bytes = 0;
    return false;
  }
  core->chunk_count = (uint32_t)(count + nested);
  core->nested_count = (uint32_t)nested;
  core->desc.buffer_bytes = core->chunk_count * (uint64_t)OJO__CHUNK_BYTES;
  if (count < asked)
    ojo__log(core, "pool of %s: %llu KiB, not %llu: address space is limited", core->dir,
             (unsigned long long)(count * OJO__CHUNK_BYTES >> 10), (unsigned long long)(bytes >> 10));
  /* Header, anchors and the first thread entries; on a tmpfs that filled up meanwhile: not on it. */
  if (!ojo__populate(core, at, threads + OJO__THREADS_AHEAD * sizeof(struct ojo__thread)) && tmpfs) {
    tmpfs = false;
    ojo__log(core, "/dev/shm is full: events in memory will not survive a crash");
    ojo__pool_file_drop(core);
    if (mmap(at, core->map_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1,
             0) == MAP_FAILED)
      return false;
  }
  core->pool = (struct ojo__pool *)at;
  core->crash_safe = tmpfs;
  madvise(at, core->map_bytes, MADV_DONTFORK);
  madvise(at, core->map_bytes, MADV_DONTDUMP);
  core->anchors = (struct ojo__anchor *)(void *)((unsigned char *)at + anchors);
  core->threads = (struct ojo__thread *)(void *)((unsigned char *)at + threads);
  core->chunks = (struct ojo__chunk *)(void *)((unsigned char *)at + chunks);
  core->data = (unsigned char *)at + data;
  struct ojo__pool *pool = core->pool;
  pool->version = OJO__POOL_VERSION;
  pool->chunk_count = core->chunk_count;
  pool->bytes = core->map_bytes;
  pool->anchors_at = anchors;
  pool->threads_at = threads;
  pool->chunks_at = chunks;
  pool->data_at = data;
  pool->schema_at = core->schema_at = schema;
  pool->file = core->file = *file;
  pool->last_number = UINT64_MAX;
  pool->overflow = (uint64_t)core->desc.overflow;
  OJO__COMPILER_BARRIER();
  memcpy(pool->magic, "ojopool", 8); /* last: from here on a recoverer takes it for a pool */
  return true;
}

/* JSON text of a string, into out (room for 6 bytes a byte). Invalid UTF-8 becomes U+FFFD. */
static char *ojo__json(char *out, const char *text) {
  const unsigned char *p = (const unsigned char *)(text ? text : "");
  *out++ = '"';
  while (*p) {
    unsigned length = *p < 0x80 ? 1 : *p >= 0xC2 && *p < 0xE0 ? 2 : *p >= 0xE0 && *p < 0xF0 ? 3
                      : *p >= 0xF0 && *p < 0xF5 ? 4 : 0;
    unsigned good = length ? 1 : 0;
    while (good && good < length && (p[good] & 0xC0) == 0x80) good++;
    bool valid = length && good == length && !(*p == 0xE0 && p[1] < 0xA0) && !(*p == 0xED && p[1] > 0x9F) &&
                 !(*p == 0xF0 && p[1] < 0x90) && !(*p == 0xF4 && p[1] > 0x8F);
    if (!valid) {
      memcpy(out, "\xEF\xBF\xBD", 3);
      out += 3;
      p++;
      continue;
    }
    if (*p == '"' || *p == '\\') *out++ = '\\';
    if (*p < 0x20 || *p == 0x7F) out += snprintf(out, 7, "\\u%04x", *p);
    else memcpy(out, p, length), out += length;
    p += length;
  }
  *out++ = '"';
  return out;
}

static ojo_result ojo__no_memory(const ojo_desc *desc) {
  if (desc->logger.log) desc->logger.log(desc->logger.user, "ojo_open: out of memory");
  else fprintf(stderr, "ojo: ojo_open: out of memory\n");
  return OJO_ERR_MEMORY;
}

/* The schema of the application's own types: what every file's header carries. */
static ojo_result ojo__make_schema(struct ojo__core *core, const ojo_desc *desc, size_t *bytes) {
  static const char *const kinds[] = {"none", "number", "range", "text", "bytes", "record"};
  size_t room = 32;
  *bytes = 0;
  if (!desc->type_count) return OJO_OK;
  for (size_t i = 0; i < desc->type_count; i++) {
    const ojo_type *type = &desc->types[i];
    const char *why = type->value < OJO_APPLICATION_TYPE_FIRST || type->value > OJO_APPLICATION_TYPE_LAST
                          ? "value must be 0x010000 to 0x7FFFFF"
                      : !type->name || !*type->name ? "it has no name"
                      : type->value_kind < OJO_VALUE_NONE || type->value_kind > OJO_VALUE_RECORD
                          ? "value_kind is not an ojo_value_kind" : NULL;
    for (size_t k = 0; k < i && !why; k++)
      if (desc->types[k].value == type->value) why = "its value stands twice";
    if (why) {
      ojo__log(core, "types[%zu] (0x%06x, %s): %s", i, (unsigned)type->value, type->name ? type->name : "NULL", why);
      return OJO_ERR_ARGUMENT;
    }
    room += 160 + 6 * (strlen(type->name) + (type->category ? strlen(type->category) : 11) +
                       (type->description ? strlen(type->description) : 0));
  }
  if (room > OJO__SCHEMA_BYTES_MAX) {
    ojo__log(core, "types: %zu bytes of text, too much for a header", room / 6);
    return OJO_ERR_ARGUMENT;
  }
  core->types = (ojo_type *)ojo__alloc(core, desc->type_count * sizeof *core->types);
  core->schema = (char *)ojo__alloc(core, room);
  if (!core->types || !core->schema) return ojo__no_memory(desc);
  memcpy(core->types, desc->types, desc->type_count * sizeof *core->types);
  char *out = core->schema;
  out += sprintf(out, "{\"events\":[");
  for (size_t i = 0; i < desc->type_count; i++) {
    const ojo_type *type = &desc->types[i];
    out += sprintf(out, "%s{\"value\":%u,\"name\":", i ? "," : "", (unsigned)type->value);
    out = ojo__json(out, type->name);
    out += sprintf(out, ",\"category\":");
    out = ojo__json(out, type->category ? type->category : "Application");
    out += sprintf(out, ",\"description\":");
    out = ojo__json(out, type->description);
    out += sprintf(out, ",\"value_kind\":\"%s\"}", kinds[type->value_kind]);
  }
  out += sprintf(out, "]}");
  *bytes = (size_t)(out - core->schema);
  return OJO_OK;
}

/* What every batch's header says. The moment of the trace's start is read on both clocks. */
static void ojo__make_header(struct ojo__core *core, ojo_file_header *file, size_t schema_bytes) {
  char text[256];
  memset(file, 0, sizeof *file);
  memcpy(file->magic, OJO_FILE_MAGIC, 4);
  file->version = OJO_FILE_VERSION;
  file->flags = core->desc.checksums ? OJO_FILE_CHECKSUMS : 0;
  file->slot_bytes = OJO_SLOT_BYTES;
  if (core->desc.clock != OJO_CLOCK_MANUAL) {
    uint64_t before = ojo__clock_ns(CLOCK_MONOTONIC);
    file->start_unix_ns = ojo__clock_ns(CLOCK_REALTIME);
    file->start_monotonic_ns = before + (ojo__clock_ns(CLOCK_MONOTONIC) - before) / 2;
  }
  file->schema_id = schema_bytes ? ojo__fnv1a(core->schema, schema_bytes) : 0;
  file->schema_bytes = (uint32_t)schema_bytes;
  file->header_bytes = (uint32_t)(sizeof *file + ojo__round_up(schema_bytes, 8));
  ojo__random(file->trace_id, 16);
  file->pid = (uint32_t)getpid();
  file->clock = (uint32_t)core->desc.clock;
  ojo__boot_id(file->boot_id);
  size_t n = ojo__read_text("/proc/self/comm", text, sizeof text);
  if (n && text[n - 1] == '\n') n--;
  memcpy(file->command, text, n < sizeof file->command ? n : sizeof file->command - 1);
  n = ojo__read_text("/etc/machine-id", text, sizeof text);
  if (!n && gethostname(text, sizeof text - 1) == 0) n = strlen(text);
  file->host_id = ojo__fnv1a(text, n);
}

static ojo_result ojo__check_desc(struct ojo__core *core, const ojo_desc *desc) {
  const char *why = NULL;
  if (desc->overflow < OJO_OVERFLOW_DROP_NEWEST || desc->overflow > OJO_OVERFLOW_BLOCK) why = "overflow";
  else if (desc->clock < OJO_CLOCK_AUTO || desc->clock > OJO_CLOCK_CNTVCT) why = "clock";
  else if (desc->type_count && !desc->types) why = "types is NULL, type_count is not 0";
  else if ((desc->file_mode & ~0777u) || (desc->dir_mode & ~0777u)) why = "file_mode or dir_mode";
  else if (!desc->allocator.alloc != !desc->allocator.free) why = "allocator: alloc and free go together";
  if (!why) return OJO_OK;
  ojo__log(core, "ojo_open: bad desc: %s", why);
  return OJO_ERR_ARGUMENT;
}

static void ojo__fill_desc(struct ojo__core *core, const ojo_desc *desc) {
  ojo_desc *d = &core->desc;
  *d = *desc;
  if (!d->reserve_bytes) d->reserve_bytes = 2u << 20;
  if (!d->flush_interval_ms) d->flush_interval_ms = 1000;
  if (!d->block_timeout_ms) d->block_timeout_ms = 10000;
  if (!d->flush_bytes) d->flush_bytes = 10u << 20;
  if (d->disk_bytes_max && d->flush_bytes > d->disk_bytes_max / 4) d->flush_bytes = d->disk_bytes_max / 4 + 1;
  if (!d->file_mode) d->file_mode = 0600;
  if (!d->dir_mode) d->dir_mode = 0700;
  d->clock = ojo__clock_choose(d->clock);
  core->batch_target = d->flush_bytes;
}

/* Gives back all that a tracer holds but its addresses: the struct and the pool's range stay mapped, so
 * that a recorder that is late touches no foreign memory. */
static void ojo__release(struct ojo__core *core) {
  ojo__pool_file_drop(core);
  if (core->pool && mmap((void *)core->pool, core->map_bytes, PROT_READ | PROT_WRITE,
                         MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0) == MAP_FAILED)
    ojo__log(core, "can't give the pool's memory back: %s", strerror(errno));
  ojo__close_fd(&core->staging_fd);
  ojo__close_fd(&core->output_fd);
  ojo__free(core, core->blocks);
  ojo__free(core, core->noted);
  ojo__free(core, core->published);
  ojo__free(core, core->types);
  ojo__free(core, core->schema);
  ojo__free(core, core->dir);
  pthread_mutex_destroy(&core->pass_lock);
  pthread_mutex_destroy(&core->retire_lock);
  pthread_mutex_destroy(&core->bind_lock);
}

#ifndef MADV_WIPEONFORK
#define MADV_WIPEONFORK 18
#endif

#ifdef OJO_NO_ATFORK
/* On a page that a fork child finds zeroed: 1 while ojo__lock and ojo__cores are this process's own, 0 in
 * a fork child that has not looked yet, 2 while one of its threads puts them right. NULL: the kernel can't. */
static uint32_t *ojo__own;
static bool ojo__fork_watch(void) {
  void *at = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (at == MAP_FAILED) return true; /* ojo_open will tell */
  if (madvise(at, 4096, MADV_WIPEONFORK) != 0) munmap(at, 4096);
  else ojo__own = (uint32_t *)at;
  if (ojo__own) OJO__STORE(ojo__own, 1);
  return true;
}
/* Called before ojo__lock is taken. A fork child's first call makes the lock new, since another thread of
 * the parent may have held it, and strikes the parent's tracers off. Their descriptors stay open: the child
 * may have closed them and be using the numbers. Their pools' ranges (MADV_DONTFORK) may be used by others
 * too: they are not touched. */
static void ojo__fork_look(void) {
  static const pthread_mutex_t fresh = PTHREAD_MUTEX_INITIALIZER;
  uint32_t seen = 0;
  if (!ojo__own || OJO__LOAD(ojo__own) == 1) return; /* pairs with the stores of 1 */
  if (__atomic_compare_exchange_n(ojo__own, &seen, 2, false, __ATOMIC_ACQUIRE, __ATOMIC_ACQUIRE)) {
    ojo__lock = fresh;
    for (struct ojo__core *core = ojo__cores; core; core = core->next)
      if (!core->closed) core->closed = UINT64_MAX; /* never used again */
    OJO__STORE(ojo__own, 1);
  }
  while (OJO__LOAD(ojo__own) != 1) { /* another thread is at it */
    struct timespec wait = {0, 100000};
    nanosleep(&wait, NULL);
  }
}
#else
static void ojo__fork_look(void) {} /* ojo__fork_child has done it */
#endif

static void ojo__close_all(void) {
  pid_t pid = getpid();
  ojo__fork_look();
  for (;;) {
    pthread_mutex_lock(&ojo__lock);
    struct ojo__core *core = ojo__cores;
    while (core && (core->closed || core->pid != pid || OJO__LOAD(&core->t->abi) != OJO_ABI ||
                    OJO__PEEK(&core->pass_tid) == (uint32_t)syscall(SYS_gettid))) /* exit in a logger */
      core = core->next;
    pthread_mutex_unlock(&ojo__lock);
    if (!core) return;
    ojo_close(core->t);
  }
}

#ifndef OJO_NO_ATFORK
static void ojo__fork_lock(void) { pthread_mutex_lock(&ojo__lock); }
static void ojo__fork_unlock(void) { pthread_mutex_unlock(&ojo__lock); }
/* In the child every tracer is off: its struct is zero (the kernel wiped it; where it can't, we do), the
 * pool's range is the child's own memory, and the lock that says "alive" is the parent's alone. */
static void ojo__fork_child(void) {
  for (struct ojo__core *core = ojo__cores; core; core = core->next) {
    memset(core->t, 0, sizeof *core->t);
    if (core->closed) continue;
    int *const fds[] = {&core->lock_fd, &core->pool_fd, &core->staging_fd, &core->output_fd, &core->batch.fd};
    for (size_t i = 0; i < sizeof fds / sizeof fds[0]; i++)
      if (*fds[i] > 2) ojo__close_fd(fds[i]); /* 0: ojo__batch_begin was at its memset */
    if (core->pool)
      mmap((void *)core->pool, core->map_bytes, PROT_READ | PROT_WRITE,
           MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0);
    core->closed = UINT64_MAX; /* never used again */
  }
  pthread_mutex_unlock(&ojo__lock);
}
static bool ojo__fork_watch(void) {
  return pthread_atfork(ojo__fork_lock, ojo__fork_unlock, ojo__fork_child) == 0;
}
#endif

/* At load, not at the first ojo_open: a copy that only adopts tracers needs the key as well, and a fork
 * may come at any time. At unload no thread may run our code at its exit any more. */
static void ojo__load_once(void) {
  ojo__key_made = pthread_key_create(&ojo__key, ojo__thread_exit) == 0 && ojo__fork_watch();
}
__attribute__((constructor)) static void ojo__load(void) { pthread_once(&ojo__once, ojo__load_once); }
__attribute__((destructor)) static void ojo__unload(void) {
  if (ojo__key_made) pthread_key_delete(ojo__key);
  ojo__key_made = false;
  for (int i = 1; i < OJO__SIGNALS; i++) ojo__uninstall(i);
}

/* The tracer's struct, on a page that a fork child finds zeroed, and its core. Neither is ever given back,
 * only used again. Under ojo__lock. */
static struct ojo__core *ojo__core_make(void) {
  struct ojo__core *core = ojo__cores;
  while (core && !(core->closed && core->closed != UINT64_MAX && core->map_bytes == 0)) core = core->next;
  if (core) {
    struct ojo__core *next = core->next;
    ojo_tracer *t = core->t;
    memset(core, 0, sizeof *core);
    core->t = t;
    core->next = next;
    return core;
  }
  void *at = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  core = at == MAP_FAILED ? NULL : (struct ojo__core *)calloc(1, sizeof *core);
  if (!core) {
    if (at != MAP_FAILED) munmap(at, 4096);
    return NULL;
  }
  madvise(at, 4096, MADV_WIPEONFORK);
  core->t = (ojo_tracer *)at;
  core->next = ojo__cores;
  OJO__STORE(&ojo__cores, core); /* release: a crash handler walks the list, or a child of a fork that comes now */
  return core;
}

static ojo_result ojo__start(struct ojo__core *core, const ojo_desc *desc) {
  ojo_file_header file;
  size_t schema_bytes = 0;
  bool tmpfs = false;
  size_t length = strlen(desc->dir);
  core->dir = (char *)ojo__alloc(core, length + 1);
  if (!core->dir) return ojo__no_memory(desc);
  memcpy(core->dir, desc->dir, length + 1);
  core->desc.dir = core->dir;
  ojo_result result = ojo__open_dirs(core);
  if (result == OJO_OK) result = ojo__make_schema(core, desc, &schema_bytes);
  if (result != OJO_OK) return result;
  core->type_count = desc->type_count;
  core->desc.types = NULL;
  core->desc.type_count = 0;
  ojo__recover_all(core);
  ojo__make_header(core, &file, schema_bytes);
  uint64_t bytes = ojo__pool_bytes(core, desc->buffer_bytes, &tmpfs);
  if (!ojo__pool_map(core, bytes, file.header_bytes - sizeof file, tmpfs, &file)) return OJO_ERR_MEMORY;
  if (!core->crash_safe && !tmpfs)
    ojo__log(core, "no room in a tmpfs at /dev/shm: events in memory will not survive a crash");
  struct ojo__pool *pool = core->pool;
  if (schema_bytes) memcpy((char *)pool + pool->schema_at, core->schema, schema_bytes);
  memcpy(pool->dir, core->path, sizeof pool->dir);
  core->blocks = (unsigned char *)ojo__alloc(core, (core->desc.no_thread ? 1 : OJO__BUFFERS) * OJO__BUFFER_ROOM);
  core->noted = (struct ojo__noted *)ojo__alloc(core, (2 * (size_t)core->chunk_count + 1) * sizeof *core->noted);
  core->published_room = 64;
  core->published = (struct ojo__published *)ojo__alloc(core, core->published_room * sizeof *core->published);
  if (!core->blocks || !core->noted || !core->published) return ojo__no_memory(desc);
  core->t->clock = (uint32_t)core->desc.clock;
  OJO__STORE(&core->t->core, core); /* release, before the generation that leads to it */
  ojo__anchor_take(core, true);
  ojo__populate_ahead(core);
  uint64_t generation = 0;
  ojo__random(&generation, sizeof generation);
  OJO__STORE(&core->t->generation, generation | OJO__NS_BIT); /* bit 63 tells it from a marker, a frame's address */
  if (!core->desc.no_thread) {
    core->hand_over = ojo__hand_over;
    sigset_t all, before;
    sigfillset(&all);
    for (size_t i = 0; i < sizeof ojo__crashes / sizeof ojo__crashes[0]; i++)
      if (ojo__crashes[i] != SIGABRT) sigdelset(&all, ojo__crashes[i]); /* its own faults: in a logger, say */
    pthread_sigmask(SIG_BLOCK, &all, &before); /* the flusher runs no handler of the application's but for these */
    int error = pthread_create(&core->thread, NULL, ojo__flusher, core);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (error) {
      ojo__log(core, "can't start the flusher thread: %s", strerror(error));
      return OJO_ERR_MEMORY;
    }
  }
  return OJO_OK;
}

OJO_API ojo_result ojo_open(ojo_tracer **out, const ojo_desc *desc) {
  if (!out) return OJO_ERR_ARGUMENT;
  *out = NULL;
  if (!desc || !desc->dir || !*desc->dir) return OJO_OK;
  int cancel = 0;
  pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &cancel); /* files are opened with the lock held */
  pthread_once(&ojo__once, ojo__load_once);
  ojo__fork_look();
  pthread_mutex_lock(&ojo__lock);
  static bool at_exit; /* only a copy that opens tracers closes them */
  if (!at_exit) at_exit = atexit(ojo__close_all) == 0;
  struct ojo__core *core = at_exit && ojo__key_made ? ojo__core_make() : NULL;
  if (!core) {
    pthread_mutex_unlock(&ojo__lock);
    ojo_result result = ojo__no_memory(desc);
    pthread_setcancelstate(cancel, NULL);
    return result;
  }
  core->pool_fd = core->lock_fd = core->staging_fd = core->output_fd = core->batch.fd = -1;
  core->queue_head = core->queue_next = core->queue_tail = OJO__NONE;
  core->pid = getpid();
  core->desc.logger = desc->logger;
  pthread_mutex_init(&core->pass_lock, NULL);
  pthread_mutex_init(&core->retire_lock, NULL);
  pthread_mutex_init(&core->bind_lock, NULL);
  ojo_result result = ojo__check_desc(core, desc);
#ifdef OJO_NO_ATFORK
  if (!ojo__own) {
    ojo__log(core, "ojo_open: this kernel can't switch tracing off in a fork child, as OJO_NO_ATFORK needs");
    result = OJO_ERR_MODE;
  }
#endif
  if (result == OJO_OK) {
    sigset_t before;
    ojo__fill_desc(core, desc);
    ojo__file_signal(true, &before); /* the pool's file may be beyond RLIMIT_FSIZE */
    result = ojo__start(core, desc);
    ojo__file_signal(false, &before);
  }
  ojo_tracer *t = core->t;
  if (result == OJO_OK) {
    t->flow_count = &ojo__flow_count_shared;
    t->sample_below = 1024;
    OJO__STORE(&t->abi, OJO_ABI);
    ojo__keep(t, &t->mask, UINT32_MAX);
    *out = t;
  } else {
    memset(t, 0, sizeof *t);
    ojo__release(core);
    core->closed = ++ojo__closings;
  }
  pthread_mutex_unlock(&ojo__lock);
  pthread_setcancelstate(cancel, NULL);
  return result;
}

/* ---- >>public ----------------------------------------------------------------------------------- */

OJO_API ojo_stats ojo_query_stats(ojo_tracer *t) {
  ojo_stats s;
  memset(&s, 0, sizeof s);
  if (!t || t->abi != OJO_ABI) return s;
  struct ojo__core *core = t->core;
  struct ojo__pool *pool = core->pool;
  uint32_t shared = core->chunk_count - core->nested_count;
  uint64_t ends[2] = {OJO__LOAD(&pool->line_fresh[0]), shared + OJO__LOAD(&pool->line_fresh[2])};
  pthread_mutex_lock(&core->retire_lock);
  s.recorded = core->retired_recorded;
  s.dropped = core->retired_lost + OJO__LOAD(&core->pool->nobody.lost);
  if (ojo__recorder(core)) {
    s.recorded = OJO__LOAD(&pool->gone.events);
    s.dropped += OJO__LOAD(&pool->gone.lost);
  }
  uint64_t threads = OJO__LOAD(&pool->threads_fresh);
  for (uint64_t i = 0; i < threads; i++) {
    struct ojo__thread *thread = &core->threads[i];
    for (int k = 0; OJO__LOAD(&thread->state) != OJO__THREAD_FREE && k <= OJO__LEVELS; k++) {
      uint64_t lost = OJO__LOAD(&thread->level[k].lost);
      s.dropped += lost;
      if (k < OJO__LEVELS) s.recorded += OJO__LOAD(&thread->level[k].attempts) - lost;
    }
  }
  pthread_mutex_unlock(&core->retire_lock);
  uint64_t held = 0, in_use = 0; /* counted, where a longjmp may cut a change of chunks short at any instruction */
  for (int part = 0; part < 2; part++)
    for (uint64_t i = part ? shared : 0; i < ends[part]; i++) {
      uint64_t state = OJO__LOAD(&core->chunks[i].lease) & OJO__STATE, events = ojo__chunk_events(&core->chunks[i]);
      if (state == OJO__LEASED && !OJO__PEEK(&core->chunks[i].flags)) s.recorded += events;
      if (state != OJO__FREE) held += events, in_use++;
    }
  s.dropped += OJO__PEEK(&core->told);
  if (ojo__recorder(core)) s.overwritten = s.recorded > held ? s.recorded - held : 0;
  s.written = OJO__PEEK(&core->written);
  s.batches = OJO__PEEK(&pool->batches);
  s.bytes = OJO__PEEK(&core->bytes);
  s.write_errors = OJO__PEEK(&core->write_errors);
  s.deleted = OJO__PEEK(&core->deleted);
  s.flush_ns_max = OJO__PEEK(&core->flush_ns_max);
  s.buffer_bytes = core->desc.buffer_bytes;
  s.chunks = core->chunk_count;
  s.chunks_in_use = (uint32_t)(ojo__recorder(core) ? in_use : OJO__PEEK(&pool->line_lease[1]));
  s.crash_safe = core->crash_safe;
  return s;
}

OJO_API ojo_desc ojo_query_desc(ojo_tracer *t) {
  ojo_desc desc;
  memset(&desc, 0, sizeof desc);
  return t && t->abi == OJO_ABI ? t->core->desc : desc;
}

OJO_API const char *ojo_result_string(ojo_result result) {
  switch (result) {
  case OJO_OK: return "ok";
  case OJO_ERR_ARGUMENT: return "an argument is out of its range";
  case OJO_ERR_MEMORY: return "out of memory";
  case OJO_ERR_IO: return "a file or directory can't be made, read or written";
  case OJO_ERR_PERMISSION: return "permission denied";
  case OJO_ERR_TIMEOUT: return "not done within the time limit";
  case OJO_ERR_MODE: return "the call does not fit the tracer's mode or thread";
  case OJO_ERR_FORMAT: return "not an ojo file of a version that can be read";
  case OJO_ERR_NOT_FOUND: return "not found";
  }
  return "unknown result";
}

OJO_API ojo_tracer *ojo_adopt(ojo_tracer *t) {
  static uint32_t logged;
  if (!t || t->abi == OJO_ABI) return t;
  if (t->abi && !__atomic_exchange_n(&logged, 1, __ATOMIC_RELAXED)) /* 0: closed, or in a fork child */
    fprintf(stderr, "ojo: a library's ojo.h is another version than its caller's: tracing is off there\n");
  return NULL;
}

OJO_API void ojo_enable(ojo_tracer *t, uint32_t category_mask) {
  if (t && t->abi == OJO_ABI) ojo__keep(t, &t->mask, category_mask | OJO_CATEGORY_META);
}
OJO_API void ojo_sample_flows(ojo_tracer *t, uint32_t n) {
  if (t) ojo__keep(t, &t->sample_below, n > 1 ? 1024u / n : 1024u);
}
OJO_API void ojo_set_now(ojo_tracer *t, uint64_t ns) {
  if (t) OJO__SET(&t->manual_now_ns, ns);
}

static void ojo__flow_describe(ojo_tracer *t, uint64_t raw, uint32_t flow, ojo_flow_kind kind,
                               const ojo_flow_desc *desc) {
  static const unsigned char nothing[20] = {0};
  if (!ojo__wanted(t, OJO_FLOW, flow)) return;
  unsigned char bytes[sizeof(ojo_flow_record) + 20 + 32 + 255 + 255], *p = bytes + sizeof(ojo_flow_record);
  size_t protocol = desc->protocol ? strlen(desc->protocol) : 0, label = desc->label ? strlen(desc->label) : 0;
  ojo_flow_record record;
  memset(&record, 0, sizeof record);
  record.parent = desc->parent;
  record.kind = (uint8_t)kind;
  record.role = (uint8_t)desc->role;
  record.id_bytes = !desc->id ? 0 : desc->id_bytes > 20 ? 20 : desc->id_bytes;
  record.address_bytes = desc->address_bytes == 4 || desc->address_bytes == 16 ? desc->address_bytes : 0;
  record.local_port = desc->local_port;
  record.remote_port = desc->remote_port;
  record.protocol_bytes = (uint8_t)(protocol > 255 ? 255 : protocol);
  record.label_bytes = (uint8_t)(label > 255 ? 255 : label);
  memcpy(bytes, &record, sizeof record);
  const void *const parts[5] = {desc->id, desc->local_address, desc->remote_address, desc->protocol, desc->label};
  const size_t lengths[5] = {record.id_bytes, record.address_bytes, record.address_bytes, record.protocol_bytes,
                             record.label_bytes};
  for (int i = 0; i < 5; i++) {
    if (lengths[i]) memcpy(p, parts[i] ? parts[i] : nothing, lengths[i]);
    p += lengths[i];
  }
  ojo__ext(t, raw, OJO_FLOW, flow, desc->key, bytes, (size_t)(p - bytes));
}

static uint32_t ojo__flow_open(ojo_tracer *t, uint64_t raw, const ojo_flow_desc *desc) {
  ojo_flow_desc zero;
  memset(&zero, 0, sizeof zero);
  if (!desc) desc = &zero;
  ojo_flow_kind kind = desc->kind ? desc->kind : desc->parent ? OJO_FLOW_STREAM : OJO_FLOW_CONNECTION;
  uint64_t first_key = kind == OJO_FLOW_SPACE ? 0 : kind == OJO_FLOW_PATH ? 16 : 64;
  uint32_t flow = desc->parent ? ojo_flow_child(desc->parent, desc->key + first_key) : 0;
  uint32_t *count = t && t->flow_count ? t->flow_count : &ojo__flow_count_shared;
  while (!flow) flow = (OJO__ADD(count, 1) + 1) & 0x3FFFFFFFu; /* bits 30 and 31: children, kernel flows */
  ojo__flow_describe(t, raw, flow, kind, desc);
  return flow;
}
OJO_API uint32_t ojo_flow_open(ojo_tracer *t, const ojo_flow_desc *desc) { return ojo__flow_open(t, 0, desc); }
OJO_API uint32_t ojo_flow_open_at(ojo_tracer *t, uint64_t time, const ojo_flow_desc *desc) {
  return ojo__flow_open(t, ojo__raw(time), desc);
}

OJO_API void ojo__flow_record(ojo_tracer *t, uint64_t time, uint32_t flow, const ojo_flow_desc *desc) {
  ojo__flow_describe(t, ojo__raw(time), flow, desc->kind, desc);
}

OJO_API void ojo_events_dropped_at(ojo_tracer *t, uint64_t time, uint64_t count, uint64_t first_ns, uint64_t last_ns,
                                   ojo_drop_reason reason, uint32_t source) {
  if (!t || !count || !(OJO__PEEK(&t->mask) & OJO_CATEGORY_META)) return; /* no mask: closed, or a fork child */
  struct ojo__core *core = OJO__PEEK(&t->core);
  if (!core) return; /* a fork in a handler has wiped *t since */
  uint64_t start = core->file.start_monotonic_ns;
  ojo_dropped dropped;
  dropped.first_ts = first_ns > start ? first_ns - start : 0;
  dropped.last_ts = last_ns > start ? last_ns - start : 0;
  dropped.reason = (uint32_t)reason;
  dropped.source = source;
  __atomic_fetch_add(&core->told, count, __ATOMIC_RELAXED);
  ojo__ext(t, ojo__raw(time), OJO_EVENTS_DROPPED, 0, count, &dropped, sizeof dropped);
}

OJO_API void ojo__bind_hook_set(ojo_tracer *t, void (*fn)(void *user, uint32_t flow, uint64_t cookie, int fd),
                                void *user) {
  if (!t || t->abi != OJO_ABI) return;
  pthread_mutex_lock(&t->core->bind_lock);
  t->core->bind_hook = fn;
  t->core->bind_user = user;
  pthread_mutex_unlock(&t->core->bind_lock);
}

OJO_API ojo_result ojo_bind_socket(ojo_tracer *t, uint32_t flow, int fd) {
  uint64_t cookie = 0;
  socklen_t bytes = sizeof cookie;
  if (!t || t->abi != OJO_ABI) return OJO_OK;
  if (getsockopt(fd, SOL_SOCKET, OJO__SO_COOKIE, &cookie, &bytes) < 0)
    return errno == EBADF || errno == ENOTSOCK ? OJO_ERR_ARGUMENT : OJO_ERR_NOT_FOUND;
  ojo_socket_bound(t, flow, cookie);
  pthread_mutex_lock(&t->core->bind_lock);
  if (t->core->bind_hook) t->core->bind_hook(t->core->bind_user, flow, cookie, fd);
  pthread_mutex_unlock(&t->core->bind_lock);
  return OJO_OK;
}

OJO_API ojo_result ojo_snapshot(ojo_tracer *t, const char *path) {
  int cancel = 0;
  if (!t || t->abi != OJO_ABI) return OJO_OK;
  struct ojo__core *core = t->core;
  if (!ojo__recorder(core) || OJO__PEEK(&core->pass_tid) == (uint32_t)syscall(SYS_gettid)) return OJO_ERR_MODE;
  if (path && (!*path || strlen(path) >= PATH_MAX)) return OJO_ERR_ARGUMENT;
  pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &cancel);
  bool ok = ojo__snapshot(core, path);
  pthread_setcancelstate(cancel, NULL);
  return ok ? OJO_OK : OJO_ERR_IO;
}

OJO_API ojo_result ojo_snapshot_on_signal(ojo_tracer *t, int signo, const char *path) {
  char here[PATH_MAX] = "";
  if (!t || t->abi != OJO_ABI) return OJO_OK;
  struct ojo__core *core = t->core;
  if (!ojo__recorder(core)) return OJO_ERR_MODE;
  bool taken = false;
  for (size_t i = 0; i < sizeof ojo__crashes / sizeof ojo__crashes[0]; i++) taken = taken || signo == ojo__crashes[i];
  if (taken || signo <= 0 || signo >= OJO__SIGNALS || (path && !*path)) return OJO_ERR_ARGUMENT;
  if (path && *path != '/' && !getcwd(here, sizeof here - 1)) return OJO_ERR_IO;
  pthread_mutex_lock(&ojo__lock);
  struct ojo__signal *s = ojo__signals;
  while (s && s->core) s = s->next;
  bool made = !s;
  if (made) s = (struct ojo__signal *)calloc(1, sizeof *s);
  ojo_result result = s ? OJO_OK : OJO_ERR_MEMORY;
  if (s) {
    s->signo = signo;
    s->wanted = 0;
    s->to_output = !path;
    int n = snprintf(s->path, sizeof s->path, "%s%s%s", here, *here ? "/" : "", path ? path : "");
    if (n >= (int)sizeof s->path || !ojo__install(signo, ojo__on_signal)) result = OJO_ERR_ARGUMENT;
    if (made) {
      s->next = ojo__signals;
      OJO__STORE(&ojo__signals, s);
    }
    if (result == OJO_OK) OJO__STORE(&s->core, core); /* last: from here on the handler takes it up */
  }
  pthread_mutex_unlock(&ojo__lock);
  return result;
}

OJO_API ojo_result ojo_dump_on_crash(ojo_tracer *t) {
  if (!t || t->abi != OJO_ABI) return OJO_OK;
  bool ok = true;
  pthread_mutex_lock(&ojo__lock);
  OJO__STORE(&t->core->dump, true);
  for (size_t i = 0; i < sizeof ojo__crashes / sizeof ojo__crashes[0]; i++)
    ok = ojo__install(ojo__crashes[i], ojo__on_crash) && ok;
  pthread_mutex_unlock(&ojo__lock);
  return ok ? OJO_OK : OJO_ERR_ARGUMENT;
}

static ojo_result ojo__flush(ojo_tracer *t) {
  struct ojo__core *core = t->core;
  if (ojo__recorder(core)) return OJO_ERR_MODE;
  if (OJO__PEEK(&core->pass_tid) == (uint32_t)syscall(SYS_gettid)) return OJO_ERR_MODE;
  if (core->desc.no_thread) return ojo__pass(core, true) ? OJO_OK : OJO_ERR_IO;
  uint32_t mine = __atomic_add_fetch(&core->requested, 1, __ATOMIC_SEQ_CST);
  ojo__wake_flusher(core);
  return ojo__await(core, mine, ojo__clock_ns(CLOCK_MONOTONIC), OJO__WAIT_MS);
}

OJO_API ojo_result ojo_flush(ojo_tracer *t) {
  int cancel = 0;
  if (!t || t->abi != OJO_ABI) return OJO_OK;
  pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &cancel); /* with no_thread it writes with a lock held */
  ojo_result result = ojo__flush(t);
  pthread_setcancelstate(cancel, NULL);
  return result;
}

static ojo_result ojo__close(ojo_tracer *t) {
  struct ojo__core *core = t->core;
  pthread_mutex_lock(&ojo__lock);
  bool mine = !core->closed && !core->closing;
  core->closing = true;
  pthread_mutex_unlock(&ojo__lock);
  while (!mine && OJO__LOAD(&core->closed) == 0) { /* another thread closes it, or exit does: wait for it */
    struct timespec wait = {0, 1000000};
    nanosleep(&wait, NULL);
  }
  if (!mine) return OJO_OK;
  ojo__keep(t, &t->mask, 0);
  if (core->desc.no_thread && !ojo__recorder(core)) {
    uint64_t end = ojo__clock_ns(CLOCK_MONOTONIC) + (uint64_t)OJO__WAIT_MS * 1000000u;
    struct timespec wait = {0, 50000000};
    while (!ojo__pass(core, true) && ojo__clock_ns(CLOCK_MONOTONIC) < end) nanosleep(&wait, NULL);
  } else if (!core->desc.no_thread) {
    __atomic_store_n(&core->stop, 1, __ATOMIC_SEQ_CST);
    ojo__wake_flusher(core);
    ojo__futex_wake(&core->stop);
    pthread_join(core->thread, NULL);
  }
  ojo_stats s = ojo_query_stats(t);
  bool all = ojo__recorder(core) || s.written >= s.recorded;
  if (!all) {
    core->kept = core->crash_safe;
    ojo__log(core, "%llu events could not be written to %s%s", (unsigned long long)(s.recorded - s.written),
             core->dir, core->kept ? ": ojo_recover writes them later" : "");
  }
  pthread_mutex_lock(&ojo__lock);
  for (struct ojo__signal *one = ojo__signals; one; one = one->next)
    if (one->core == core) {
      OJO__STORE(&one->core, (struct ojo__core *)NULL);
      bool last = true;
      for (struct ojo__signal *other = ojo__signals; other; other = other->next)
        last = last && !(other->core && other->signo == one->signo);
      if (last) ojo__uninstall(one->signo);
    }
  OJO__STORE(&t->generation, (uint64_t)0); /* a thread may end meanwhile: it then stores into memory that is nobody's */
  OJO__STORE(&t->abi, (uint64_t)0);
  pthread_mutex_unlock(&ojo__lock);
  if (OJO__PEEK(&core->pass_tid) != (uint32_t)syscall(SYS_gettid)) {
    pthread_mutex_lock(&core->pass_lock); /* a snapshot that another thread's handler takes */
    pthread_mutex_unlock(&core->pass_lock);
  }
  pthread_mutex_lock(&ojo__lock);
  ojo__release(core);
  OJO__STORE(&core->closed, ++ojo__closings);
  pthread_mutex_unlock(&ojo__lock);
  return all ? OJO_OK : OJO_ERR_IO;
}

OJO_API ojo_result ojo_close(ojo_tracer *t) {
  int cancel = 0;
  if (!t || t->abi != OJO_ABI) return OJO_OK;
  pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &cancel);
  ojo_result result = ojo__close(t);
  pthread_setcancelstate(cancel, NULL);
  return result;
}

#ifdef __cplusplus
}
#endif
#endif /* OJO_IMPLEMENTATION_GUARD */

/* License: MIT. See LICENSE. */
