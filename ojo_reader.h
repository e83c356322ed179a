/* SPDX-License-Identifier: MIT
 *
 * ojo_reader.h - version 0.1.0 - reads what ojo.h records: no copy, no allocation per event
 *
 * DO THIS
 *   In exactly one C or C++ file:
 *       #define OJO_READER_IMPLEMENTATION
 *       #include "ojo_reader.h"
 *   It includes ojo.h for the format; a program that only reads needs no OJO_IMPLEMENTATION.
 *
 * EXAMPLE
 *       ojo_reader *r;
 *       if (ojo_reader_open(&r, &(ojo_reader_desc){ .path = "traces" }) != OJO_OK) return 1;
 *       ojo_reader_event e;
 *       while (ojo_reader_next(r, &e))
 *         printf("%" PRIu64 " %s %" PRIu64 "\n", e.time_ns, ojo_reader_type(r, &e)->name, e.payload);
 *       ojo_reader_close(r);
 *
 * LINK WITH
 *   Nothing but libc.
 *
 * DEFINES (the same in every file that includes ojo_reader.h)
 *   OJO_READER_IMPLEMENTATION  in one file: also compile the implementation.
 *   OJO_STATIC                 everything is static: a private copy inside the one file that includes it.
 *   OJO_READER_API             put before each public function (default: extern, or static).
 *
 * OVERVIEW
 *   ojo_reader_open reads the headers of all files. ojo_reader_next then merges them: it maps a file when
 *   the merge reaches its first time and unmaps it behind its last event; no descriptor stays open. The
 *   order is time, then (trace, thread, level, place in what was recorded). Traces of one boot are aligned
 *   by CLOCK_MONOTONIC, others by unix time.
 *   Filters skip whole files by their header and whole runs by their RUN before they look at events.
 *   ojo_reader_next_run hands out runs as pointers into the mapping, for scans at the memory's speed.
 *   Snapshots of a flight recorder do not empty it, so that several of one trace, and what was recovered of it
 *   after a crash, overlap. Read together, they give each event once, and tell of each loss once, as far
 *   as it is missing from all of them: section >>snapshots has the rules. Such files are read twice, once
 *   to compare them; a lone one, and all others, are not.
 *   The pool of a crashed tracer reads like a file: its path, or that of its link in staging/, gives the events
 *   that recovery (ojo_recover, ojo-cat --recover) would write, and leaves it as it is. It is copied into
 *   memory when it is opened. A pool whose tracer is alive is an error. A file that is named twice, also by
 *   its directory, is read once.
 *   The flow table is made by one pass over all files, when it is first asked for (or for desc.chain).
 *   With desc.follow, ojo_reader_next waits at the end for files that are renamed into the directories:
 *   what is there comes in time order, then what comes, in time order as far as it was there together.
 *
 * THREADS, FORK, SIGNALS
 *   A reader belongs to one thread at a time; several readers in several threads are fine. Only
 *   ojo_reader_stop may be called from anywhere, also from a signal handler. See CAVEATS for SIGBUS.
 *
 * FILE FORMAT
 *   Version 2 is described in ojo.h. Version 1 (Ojo's Rust client) reads as well: thread 0, the secondary
 *   value as `number`, drops as EVENTS_DROPPED without an extension, names from
 *   ../schema/event_schema_{id}.json beside the file's directory.
 *   A version 2 file's schema is JSON, {"events":[{"value", "name", "category", "description",
 *   "value_kind": "none", "number", "range", "text", "bytes" or "record"}, ...]}.
 *
 * ERRORS
 *   Damage is gathered, not fatal (ojo_reader_error_at): what is sound is read, and the rest goes on.
 *   - A header whose CRC is wrong is reported; its file is read if its sizes make sense, without trusting
 *     its times and counts.
 *   - A run is read up to the first slot that can't be: SIZED with an extension, an extension beyond the
 *     run's end, a RUN inside, a slot of zeros (never written: power cut). A run whose CRC32C is wrong is
 *     left out. After slots that belong to no run, reading goes on at the next plausible RUN; a RUN whose
 *     length does not lead to another RUN, or to the end, is cut at the next plausible one inside.
 *   - Times that go back in a run that is not marked UNSORTED are sorted, and reported.
 *   - Where a RUN's or a header's times lie, events come in their place in the merge, which may be late:
 *     reported.
 *   - Snapshots of one trace that contradict each other (other events under the same ordinals) are reported,
 *     and all of their events are given.
 *   - A schema that is damaged in one file is taken from the next one of the same trace.
 *   A file of a directory that vanishes before it is read is no error: tracers delete for disk_bytes_max.
 *   The same error, found again by rewind or another pass, counts once.
 *
 * MEMORY
 *   It does not grow with the number of events. Beside the mappings: about 400 bytes a file and a trace,
 *   and what these bounds allow, whatever the files say: 65,536 runs under way at one time (14 MiB) and
 *   524,288 indexed (8 MiB); 1,048,576 events in sorting windows (16 MiB), 65,536 of them in one run, and
 *   16 in each run for which these leave no room (16 MiB); 131,072 threads (6 MiB); schemas with their types
 *   16 MiB; 1,000 errors; of snapshots that overlap 524,288 runs (72 bytes each, while they are compared
 *   400); the flow table, if it is asked for: 524,288 flows (40 MiB), 8 MiB of their texts.
 *   What is beyond a bound is reported as an error. A run of ours (64 KiB) is always sorted exactly; in a
 *   longer one an event may stand 32,768 events from its place.
 *   Usual: below 1 MiB. Of the files under way up to 128 MiB stay mapped, which is the page cache's memory;
 *   of those beyond, pages of finished runs are given back to the system.
 *   A pipe's bytes go to an unlinked file in TMPDIR or /tmp first: at most 16 GiB.
 *
 * CAVEATS
 *   A mapped file that shrinks raises SIGBUS at whoever touches it. While files are mapped, the reader
 *   therefore has a SIGBUS handler installed: pages of its mappings that are gone read as zeros, which it
 *   notices and reports as damage; other faults go to the handler that was there before. It is removed
 *   with the last mapping. If the program installs another handler meanwhile, or blocks SIGBUS, the
 *   protection is gone; desc.unguarded leaves the handler out. The event that a cut goes through, and
 *   extensions and runs that were handed out before, may show zeros.
 *   Memory that is given to read must be 8-byte aligned, or it is copied once.
 *   Linux, 64-bit, little-endian.
 */
#if !defined(_FEATURES_H) && !defined(_DEFAULT_SOURCE) && !defined(_GNU_SOURCE)
#define _DEFAULT_SOURCE 1 /* under -std=c11 the implementation needs mmap flags and flock */
#endif
#ifndef OJO_READER_H
#define OJO_READER_H

#include "ojo.h"

#ifndef OJO_READER_API
#ifdef OJO_STATIC
#define OJO_READER_API static OJO__UNUSED
#else
#define OJO_READER_API extern
#endif
#endif

typedef struct ojo_reader ojo_reader;

#define OJO_READER_ANY UINT64_MAX /* a flow or type filter's or handler's "all" */

/* What to read. Zero is the default. Filters are ANDed; a list's members are ORed. Everything is copied.
 * EVENTS_DROPPED is of a thread, and matches no flow filter; FLOW matches its own flow. */
typedef struct ojo_reader_desc {
  const char *path;          /* a file; "-": stdin; a directory: output/ in it, else raw/, else its *.bin; what a
                                crashed tracer left: its pool /dev/shm/ojo_*, or DIR/staging/pool_*.link */
  const char *const *paths;  /* or several, merged by time */
  size_t path_count;
  const void *memory;        /* or one file's bytes, which must stay as they are */
  size_t memory_bytes;
  uint64_t since_ns;         /* unix ns, inclusive; 0: no limit */
  uint64_t until_ns;         /* unix ns, exclusive; 0: no limit */
  const uint64_t *flows;
  size_t flow_count;
  uint64_t chain;            /* this flow, its ancestors and its descendants; 0: no such filter */
  const uint64_t *types;
  size_t type_count;
  uint32_t category_mask;    /* OJO_CATEGORY_...; 0: all */
  const char *const *categories; /* by name, as in files (also the application's own names) */
  size_t category_count;
  const uint32_t *threads;   /* trace-unique thread numbers */
  size_t thread_count;
  const uint8_t *trace_id;   /* 16 bytes: only this trace; NULL: all */
  bool follow;               /* ojo_reader_next waits for more, as `tail -f`; see ojo_reader_stop */
  uint32_t follow_poll_ms;   /* 0: 100 */
  void (*idle)(void *user);  /* follow: called when ojo_reader_next is about to wait (to flush output) */
  void *idle_user;
  bool unguarded;            /* install no SIGBUS handler while files are mapped; see CAVEATS */
  ojo_allocator allocator;
} ojo_reader_desc;

/* One event. Pointers stay valid until the next call of ojo_reader_next or ojo_reader_close. */
typedef struct ojo_reader_event {
  uint64_t time_ns;          /* unix */
  uint64_t ts;               /* ns since its trace's start */
  uint64_t flow;
  uint64_t type;             /* without the SIZED and extension bits */
  uint64_t payload;          /* SIZED: the value alone */
  uint64_t number;           /* if has_number: the size, or a range's exclusive end */
  const unsigned char *extension; /* raw bytes; NULL: none */
  uint32_t extension_bytes;  /* a multiple of 24; 0: none (also for SIZED) */
  uint32_t thread;           /* trace-unique number; 0: no thread, or version 1 */
  uint32_t trace;            /* index for ojo_reader_trace */
  uint16_t level;
  uint8_t category;          /* bit number of its category: 1 << category is OJO_CATEGORY_... */
  bool has_number;
} ojo_reader_event;

typedef struct ojo_reader_type_info {
  uint64_t value;
  const char *name;          /* "PACKET_SENT"; undescribed types: "0x010001" */
  const char *category;      /* "Packet"; undescribed: "Application" */
  const char *description;   /* "" if none */
  ojo_value_kind value_kind;
} ojo_reader_type_info;

typedef struct ojo_reader_trace_info {
  uint8_t id[16], boot_id[16];
  uint64_t start_unix_ns, start_monotonic_ns;
  uint64_t first_ns, last_ns; /* unix, from the headers of its files */
  uint64_t files, bytes;
  uint64_t dropped;           /* sum of the EVENTS_DROPPED read so far */
  uint32_t pid, clock, anchor_error_ns;
  uint8_t version, flags;     /* flags: OR over its files */
  char command[17];
} ojo_reader_trace_info;

/* A flow as its FLOW event tells, or STREAM_OPENED and STREAM_LINK_PARENT. */
typedef struct ojo_reader_flow_info {
  uint64_t flow, parent;     /* parent 0: a root */
  uint64_t key;              /* stream id, space, path, SSRC, ... */
  uint64_t first_ns, last_ns, events; /* unix; of what was indexed */
  uint32_t trace;
  uint8_t kind, role;        /* ojo_flow_kind, ojo_role; 0: unknown */
  uint8_t id_bytes, address_bytes;
  uint16_t local_port, remote_port;
  bool collision;            /* two live flows share this id: both are in it */
  uint8_t id[20], local_address[16], remote_address[16];
  char protocol[64], label[256]; /* UTF-8, cut */
} ojo_reader_flow_info;

/* What was damaged, missing or odd: gathered, not fatal. The rest is read. */
typedef struct ojo_reader_error {
  const char *path;
  uint64_t offset;           /* in the file */
  ojo_result result;
  const char *text;          /* what and why, one line */
} ojo_reader_error;

/* A run's slots, as they lie in the mapping (version 2): for scans. */
typedef struct ojo_reader_run_view {
  const ojo_event *slots;    /* after RUN's extension; raw, extension slots included */
  uint64_t slot_count;
  uint64_t first_ts, last_ts;
  uint32_t thread, tid, trace, events;
  uint16_t flags, level;
  uint64_t first_ordinal, lost_before;
} ojo_reader_run_view;

#ifdef __cplusplus
extern "C" {
#endif

/* Opens and reads every file's header. OJO_ERR_NOT_FOUND: no such path, OJO_ERR_FORMAT: nothing readable
 * in it (the reasons are in *out's errors: *out is set then too, and must be closed; it is NULL for
 * OJO_ERR_ARGUMENT and OJO_ERR_MEMORY). A directory with no file yet is OJO_OK. A reader belongs to one
 * thread at a time. */
OJO_READER_API ojo_result ojo_reader_open(ojo_reader **out, const ojo_reader_desc *desc);
OJO_READER_API void ojo_reader_close(ojo_reader *r);
/* The next event in time order that passes the filters; false at the end (with follow: after
 * ojo_reader_stop). RUN and THREAD are not events; FLOW and EVENTS_DROPPED are. */
OJO_READER_API bool ojo_reader_next(ojo_reader *r, ojo_reader_event *event);
/* Any number of handlers per type (OJO_READER_ANY: all types), called by ojo_reader_run in the order of
 * their registration. */
OJO_READER_API ojo_result ojo_reader_on(ojo_reader *r, uint64_t type,
                                        void (*handler)(void *user, const ojo_reader_event *event),
                                        void *user);
OJO_READER_API ojo_result ojo_reader_run(ojo_reader *r); /* OJO_ERR_FORMAT if there were errors */
OJO_READER_API void ojo_reader_stop(ojo_reader *r);      /* ends next and run. Thread- and signal-safe */
OJO_READER_API void ojo_reader_rewind(ojo_reader *r);    /* to the first event again */
/* Runs, file by file, in file order, unfiltered but for whole files out of the time range. Independent of
 * ojo_reader_next; ojo_reader_rewind starts it anew too. Slots are as in the file: THREAD is among them, and
 * who steps over extensions checks against slot_count. Of snapshots that overlap, the parts of runs that
 * are given, without THREAD, and each EVENTS_DROPPED as a run of its own. A view stays valid until the next
 * call, or close. */
OJO_READER_API bool ojo_reader_next_run(ojo_reader *r, ojo_reader_run_view *run);

/* Name, category and kind of an event's type. Never NULL. Valid until close (but past 1,000 undescribed types
 * these share a place). */
OJO_READER_API const ojo_reader_type_info *ojo_reader_type(ojo_reader *r, const ojo_reader_event *event);
/* The types that a name stands for (standard ones, and the application's of every trace; "0x010001" and
 * decimal too). Returns how many there are; stores at most `max`. */
OJO_READER_API size_t ojo_reader_types_by_name(ojo_reader *r, const char *name, uint64_t *types,
                                               size_t max);
/* Whether there is a category of that name: a standard one, or one of the application's types so far. */
OJO_READER_API bool ojo_reader_category_known(const ojo_reader *r, const char *name);
OJO_READER_API uint32_t ojo_reader_trace_count(const ojo_reader *r);
OJO_READER_API const ojo_reader_trace_info *ojo_reader_trace(const ojo_reader *r, uint32_t index);
/* The flow table, made at the first call by one pass over all files (not by filters, except trace_id): every
 * flow that an event names. NULL: unknown. With several traces: the first that has the flow. What is returned
 * stays valid until close for the first 16,384 flows; beyond, until 64 further calls. */
OJO_READER_API const ojo_reader_flow_info *ojo_reader_flow(ojo_reader *r, uint64_t flow);
OJO_READER_API const ojo_reader_flow_info *ojo_reader_flow_in(ojo_reader *r, uint32_t trace,
                                                              uint64_t flow);
OJO_READER_API uint64_t ojo_reader_flow_count(ojo_reader *r);
OJO_READER_API const ojo_reader_flow_info *ojo_reader_flow_at(ojo_reader *r, uint64_t index);
/* A thread's name ("" if unknown) and OS id (0), once an event of it was read. Valid until the next call. */
OJO_READER_API const char *ojo_reader_thread(ojo_reader *r, uint32_t trace, uint32_t thread, uint32_t *tid);
/* Errors so far. Past 1,000, or without memory, they are counted, not kept: then error_at gives NULL. */
OJO_READER_API uint64_t ojo_reader_error_count(const ojo_reader *r);
OJO_READER_API const ojo_reader_error *ojo_reader_error_at(const ojo_reader *r, uint64_t index);
/* Bytes of all files, and how many of these ojo_reader_next is through with: for a progress bar. It only
 * grows, until rewind. Looks at each run under way: not for every event. */
OJO_READER_API uint64_t ojo_reader_progress(const ojo_reader *r, uint64_t *total_bytes);
/* Pools of crashed processes in the directories' staging/: ojo_recover has events to save there. They are
 * neither an error nor read; those that are read, as paths of their own (see desc.path), are not counted. */
OJO_READER_API uint64_t ojo_reader_dead_pools(ojo_reader *r);

/* Fixed-layout extensions, checked against the extension's length: false if it is too short. */
OJO_READER_API bool ojo_reader_dropped(const ojo_reader_event *event, ojo_dropped *out);
OJO_READER_API bool ojo_reader_rtt(const ojo_reader_event *event, ojo_rtt *out); /* RTT_SAMPLE, KERNEL_TCP_RTT */
OJO_READER_API bool ojo_reader_kernel_connection(const ojo_reader_event *event, ojo_kernel_connection *out);
OJO_READER_API bool ojo_reader_kernel_totals(const ojo_reader_event *event, ojo_kernel_totals *out);

#ifdef __cplusplus
}
#endif
#endif /* OJO_READER_H */

/* ================================================================================================
 * The implementation
 * ================================================================================================ */
#ifdef OJO_READER_IMPLEMENTATION
#ifndef OJO_READER_IMPLEMENTATION_GUARD
#define OJO_READER_IMPLEMENTATION_GUARD

#include "ojo.h" /* again: its hashes are compiled where an implementation is */

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#ifndef MAP_ANONYMOUS
#error "ojo_reader.h: a libc header came before it under strict -std=c11: include it first, or define _DEFAULT_SOURCE"
#elif __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__ || __SIZEOF_POINTER__ != 8
#error "ojo_reader.h: needs a 64-bit little-endian machine"
#else /* to the end: one error, not a hundred */

/* The bounds on memory: see MEMORY above, which states them. */
#define OJO__R_ERRORS_MAX 1000u
#define OJO__R_FLOWS_MAX (1u << 19)
#define OJO__R_FLOW_TEXT_BYTES_MAX (8u << 20)
#define OJO__R_THREADS_MAX (1u << 17)
#define OJO__R_RUNS_MAX (1u << 19)   /* indexed at one time, over all mapped files */
#define OJO__R_ACTIVE_MAX (1u << 16) /* under way at one time */
#define OJO__R_SORT_MAX (1u << 20)   /* events in sorting windows at one time */
#define OJO__R_WINDOW_MAX (1u << 16) /* events in the sorting window of one run */
#define OJO__R_WINDOW_MIN 16u        /* what a run gets when these are used up */
#define OJO__R_SPANS_MAX (1u << 19)  /* runs of overlapping snapshots */
#define OJO__R_SAME_NS 10000000u     /* how far apart two snapshots may see one event: see >>snapshots */
#define OJO__R_SEGMENT_BYTES 65536u  /* what is checked at one go: a run of ours, whole */
#define OJO__R_SCHEMA_BYTES_MAX (4u << 20)
#define OJO__R_SCHEMAS_BYTES_MAX (16u << 20)
#define OJO__R_SPOOL_BYTES_MAX (UINT64_C(16) << 30)
#define OJO__R_SCAN_RELEASE_BYTES (2u << 20)
#define OJO__R_KEPT_BYTES_MAX (128u << 20) /* of files under way: see ojo__r_keep */
#define OJO__R_UNKNOWN_MAX 1024u /* undescribed types whose names are kept */
#define OJO__R_HEADER_BYTES 144u
#define OJO__R_V1_HEADER_BYTES 24u
#define OJO__R_V1_RECORD_BYTES 40u
#define OJO__R_RUN_BYTES 72u /* RUN and its two extension slots */
#define OJO__R_RUN_TYPE (2u << OJO_EXTENSION_SHIFT | (uint32_t)OJO_RUN)
#define OJO__R_NONE UINT32_MAX
#define OJO__R_RARE __attribute__((noinline)) /* keeps ojo_reader_next small: it saves no registers */

/* What the file format is, and what its definition in ojo.h is, must be one. */
#define OJO__R_ASSERT(name, x) typedef char ojo__r_assert_##name[(x) ? 1 : -1] OJO__UNUSED
OJO__R_ASSERT(event, sizeof(ojo_event) == OJO_SLOT_BYTES);
OJO__R_ASSERT(header, sizeof(ojo_file_header) == OJO__R_HEADER_BYTES);
OJO__R_ASSERT(header_crc, offsetof(ojo_file_header, crc) == 140);
OJO__R_ASSERT(header_boot, offsetof(ojo_file_header, boot_id) == 96);
OJO__R_ASSERT(run, sizeof(ojo_run) == 2 * OJO_SLOT_BYTES);
OJO__R_ASSERT(run_lost, offsetof(ojo_run, lost_before) == 32);
OJO__R_ASSERT(dropped, sizeof(ojo_dropped) == OJO_SLOT_BYTES);
OJO__R_ASSERT(flow, sizeof(ojo_flow_record) == OJO_SLOT_BYTES);
OJO__R_ASSERT(rtt, sizeof(ojo_rtt) == OJO_SLOT_BYTES);

/* A mapping as the SIGBUS handler knows it. Entries are reused, never freed. */
struct ojo__r_guard {
  uintptr_t start, end; /* written by the thread that maps, under the lock; read by the handler */
  uintptr_t gone;       /* the lowest page found missing: written by the handler, read by the reader */
};
struct ojo__r_map {
  const unsigned char *base;
  uint64_t bytes;
  struct ojo__r_guard *guard; /* NULL: memory of the caller's, or unguarded */
  bool mapped;                /* by us */
};

struct ojo__r_schema { /* the application's own types, by value */
  uint64_t id;
  bool failed; /* empty: damaged in the file that had it first, or too large */
  char *text; /* owns the strings */
  char *path; /* version 1: the JSON's; NULL: in the file itself */
  ojo_reader_type_info *types;
  size_t count;
  struct ojo__r_schema *next;
};

struct ojo__r_trace {
  ojo_reader_trace_info info;
  uint64_t base; /* unix ns of ts 0, aligned with other traces of its boot */
  uint64_t schema_id;
  struct ojo__r_schema *schema;
  bool aligned;
  char *directory; /* version 1: what tells traces apart */
  uint32_t snapshots, alike; /* files of it that are snapshots; these, and what was recovered */
};

struct ojo__r_ref { /* something at `at` (an offset in its file) that comes at `key` */
  uint64_t key, at;
};

struct ojo__r_file {
  char *path;
  uint64_t bytes, header_bytes, slot_count, batch;
  uint64_t first_ts, last_ts; /* 0, UINT64_MAX if the header can't be trusted */
  uint64_t start_unix_ns;     /* version 1: its own */
  uint64_t device, inode;
  uint32_t trace, sequence, index;
  uint8_t version, flags;
  bool trusted;             /* the header's CRC is right */
  bool skip;                /* out of the time range */
  bool member;              /* found in a directory: may vanish */
  struct ojo__r_map pinned; /* memory, or what came through a pipe */
  /* while the merge has it open: */
  struct ojo__r_map map;
  uint64_t slots_end;      /* offset behind the last whole slot */
  struct ojo__r_ref *runs; /* by time */
  size_t run_capacity;
  uint32_t run_count, run_at, cursors;
  uint64_t bytes_read; /* of runs that are finished: they are in the reader's sum */
  uint64_t kept_bytes; /* of its mapping: in the reader's sum */
  uint64_t resume; /* where the index stopped for want of room; 0: it is complete */
  /* a snapshot among others: see >>snapshots */
  struct ojo__r_piece *pieces; /* all that is given of it */
  size_t piece_capacity;
  uint32_t piece_count;
  bool planned, unplanned;  /* pieces are known; for want of memory: read as any other file */
  bool surveyed;            /* in the plan that is being made */
  struct ojo__r_map look;   /* while the plan is made */
  uint64_t known_recorded, known_lost; /* what is known of the threads that are in it */
};

struct ojo__r_run { /* a RUN with its place and what of it is there */
  ojo_event slot;
  ojo_run run;
  uint64_t at, slots_at, slot_count, next; /* offsets in the file, and slots */
  bool cut;
};

/* Of a file that is one of several snapshots: slots in a row that are given. */
struct ojo__r_piece {
  uint64_t from, to;          /* offsets in the file; of one EVENTS_DROPPED with a row: from its slot */
  uint64_t ordinal, lost_before; /* of its first event; of its run */
  uint64_t first_ts, last_ts; /* least and greatest, as found */
  uint32_t events, row;       /* row: index + 1 in told, 0: events */
  uint32_t thread, tid;
  uint16_t level, flags;
};
/* A run in a plan, or an owner: what is given of a run, so that others do not give it again. */
struct ojo__r_span {
  struct ojo__r_file *file;
  uint64_t run_at, from, to;     /* offsets: RUN, the first event, behind the last sound slot */
  uint64_t ordinal, events;
  uint64_t lost, lost_before;    /* before it: as its file's rows tell; as RUN says, which counts overwritten ones */
  uint64_t first_ts, last_ts;    /* least and greatest, as found */
  uint64_t walk_at, walk_ordinal; /* owner: a place to compare from, not behind the next comparison */
  uint32_t trace, thread, tid;
  uint16_t level, flags;
  bool divided; /* there is an EVENTS_DROPPED among the events */
};
/* An EVENTS_DROPPED of a snapshot, and what of it is told. */
struct ojo__r_row {
  struct ojo__r_file *file;
  ojo_event slot[2];     /* as it is given */
  uint64_t from, place;  /* place: of the first in its line of numbers; OVERWRITTEN: behind the last */
  uint64_t count, told, ordinal, lost_before;
  uint32_t trace, thread, tid, reason, slots;
  uint16_t level, flags;
  bool fixed, wrong;     /* decided in an earlier plan; contradicts its run: told as it is */
};
struct ojo__r_told { /* an EVENTS_DROPPED as it is given */
  ojo_event slot[2];
  uint32_t slots;
};
struct ojo__r_mention { /* a thread is in a file */
  struct ojo__r_file *file;
  uint32_t trace, thread;
};
struct ojo__r_known { /* of a thread, from all files */
  uint64_t recorded, lost;
  uint32_t trace, thread;
};

/* A run under way in the merge. [at, segment_end) is checked: whole events, times ascending. */
struct ojo__r_cursor {
  /* what ojo_reader_next reads for each event, in one cache line */
  const unsigned char *at, *at_end; /* events in order; with a window one alone */
  const uintptr_t *gone;            /* of its file: see ojo__r_gone */
  uint64_t base;
  uint32_t thread, trace;
  uint16_t level;
  bool careful, version1; /* careful: of version 1, or there are filters */

  const unsigned char *segment_end, *end, *begin;
  const unsigned char *accounted; /* losses, threads and flows before this are counted */
  uint64_t key, head_ts;          /* of the event at `at` when it was loaded; key = unix time */
  uint64_t last_ts;             /* the greatest handed out before at; in a segment: before the segment */
  uint64_t segment_last;        /* the segment's greatest */
  uint64_t run_first, run_last; /* as RUN says */
  uint64_t ordinal;
  struct ojo__r_file *file;
  struct ojo__r_ref *window; /* sorted: the run, or the next part of it; NULL: it is in order */
  uint32_t window_count, window_at, window_emit, window_capacity;
  uint32_t leaf, row; /* row: index + 1 of an EVENTS_DROPPED that is given from `told` */
  bool unsorted;
};
struct ojo__r_node { /* of the tournament tree: the earliest of the leaves below */
  uint64_t key;
  struct ojo__r_cursor *cursor;
};

struct ojo__r_flow { /* 72 bytes */
  uint64_t flow, parent, key, first_ns, last_ns, events, closed_ns;
  uint32_t trace, text; /* text: offset of FLOW's extension in flow_text; OJO__R_NONE */
  uint32_t chain_epoch; /* of `chain` */
  uint8_t kind, role, bits, chain;
};
enum {
  OJO__R_FLOW_FLOW = 1,
  OJO__R_FLOW_OPENED = 2,
  OJO__R_FLOW_LINKED = 4,
  OJO__R_FLOW_COLLISION = 8,
  OJO__R_FLOW_CLOSED = 16
};
enum {
  OJO__R_CHAIN_UNKNOWN = 0,
  OJO__R_CHAIN_NO = 1,
  OJO__R_CHAIN_ANCESTOR = 2,
  OJO__R_CHAIN_IN = 3,
  OJO__R_CHAIN_VISITING = 4
};
#define OJO__R_FLOW_BLOCK 4096u

struct ojo__r_thread {
  uint32_t trace, thread, tid;
  char name[17];
};
struct ojo__r_handler {
  uint64_t type;
  void (*fn)(void *user, const ojo_reader_event *event);
  void *user;
};
struct ojo__r_pool { /* a path that was given */
  uint64_t device, inode;
  bool read;
};
struct ojo__r_directory {
  char *path;
  struct timespec changed; /* of the listed directory, when it was listed */
  bool listed;
  uint32_t listings;
};
struct ojo__r_seen {
  uint64_t name;
  uint32_t directory, listing; /* the last one of that directory in which it was */
};
struct ojo__r_type_cache {
  uint64_t type;
  uint32_t trace;
  uint8_t category;
  const ojo_reader_type_info *info;
};
struct ojo__r_unknown {
  ojo_reader_type_info info;
  char name[20];
  bool version1;
};

#define OJO__R_FLOW_VIEWS 16384u
#define OJO__R_VIEW_BLOCK 64u
#define OJO__R_TYPE_CACHE 64u
#define OJO__R_STANDARD_MAX 128u

struct ojo_reader {
  /* what ojo_reader_next reads for each event: the run whose turn it is, and how long that is so */
  struct ojo__r_cursor *current; /* or `nothing` */
  uint64_t ts_last;
  int stop;
  bool filtered;
  const unsigned char *turn; /* where the turn began */
  struct ojo__r_cursor nothing; /* a run without events */

  /* the merge */
  struct ojo__r_node *tree; /* 1: the earliest; leaf i is at leaves + i */
  uint32_t leaves, active, free_leaf;
  int bursts; /* above 0: lately the runs had several turns in a row */
  struct ojo__r_ref *pending; /* heap of files not open yet (at: index in files) or with runs to come */
  size_t pending_capacity;
  uint32_t pending_count;
  struct ojo__r_cursor *spare; /* linked by `begin` */
  uint64_t runs_indexed, sort_events, kept_bytes;
  struct ojo__r_ref *scratch;
  size_t scratch_capacity;
  uint64_t bytes_read, bytes_total;
  bool started;

  /* filters */
  uint64_t since_ns, until_ns, chain;
  uint64_t *flows, *types;
  uint32_t *threads;
  char **categories;
  size_t flow_count, type_count, thread_count, category_count;
  uint32_t category_mask, category_bits; /* bits: the standard ones among `categories` */
  bool has_trace_id;
  uint8_t trace_id[16];

  /* tables */
  struct ojo__r_file **files;
  size_t file_capacity;
  uint32_t file_count, file_sequence;
  struct ojo__r_trace **traces;
  size_t trace_capacity;
  uint32_t trace_count;
  uint32_t *trace_hash;
  size_t trace_hash_size;
  struct ojo__r_schema *schemas;
  uint64_t schema_bytes;
  ojo_reader_type_info standard[OJO__R_STANDARD_MAX];
  uint8_t standard_at[0x900]; /* by type: index + 1 */
  uint32_t standard_count;
  struct ojo__r_type_cache type_cache[OJO__R_TYPE_CACHE];
  struct ojo__r_unknown *unknown;
  struct ojo__r_thread *thread_table;
  size_t thread_capacity;
  uint32_t thread_table_count;
  uint32_t *thread_hash;
  size_t thread_hash_size;
  struct ojo__r_handler *handlers;
  size_t handler_capacity, handler_count;

  /* snapshots */
  struct ojo__r_span *spans, *owners; /* spans: runs of the plan that is being made */
  struct ojo__r_row *rows;
  struct ojo__r_told *told;
  struct ojo__r_mention *mentions;
  struct ojo__r_known *known;
  size_t span_capacity, owner_capacity, row_capacity, told_capacity, mention_capacity, known_capacity;
  size_t span_count, owner_count, row_count, told_count, mention_count, known_count;
  bool plan_due;

  /* errors */
  ojo_reader_error *errors;
  size_t error_capacity;
  uint64_t error_count;
  size_t errors_kept; /* fewer than error_count: past the bound, or without memory */
  uint64_t *error_hash; /* of those reported: several passes over a file report its damage once */
  uint32_t error_hash_count;

  /* flows */
  struct ojo__r_flow *flow_blocks[OJO__R_FLOWS_MAX / OJO__R_FLOW_BLOCK];
  uint32_t flow_table_count, last_flow, chain_epoch;
  uint32_t *flow_hash;
  size_t flow_hash_size;
  unsigned char *flow_text;
  size_t flow_text_capacity;
  uint32_t flow_text_bytes;
  uint64_t flows_left_out;
  bool flows_made, learning;
  ojo_reader_flow_info *flow_views[OJO__R_FLOW_VIEWS / OJO__R_VIEW_BLOCK + 1];
  uint32_t flow_view;

  /* ojo_reader_next_run */
  struct ojo__r_map scan_map;
  uint32_t scan_file;
  uint64_t scan_at, scan_released;
  bool scan_open;

  /* what is opened; the hash only while it is */
  uint32_t *file_hash;
  size_t file_hash_size, sources, pool_count;
  struct ojo__r_pool *pools;

  /* follow */
  struct ojo__r_directory *directories;
  size_t directory_count;
  struct ojo__r_seen *seen;
  size_t seen_size;
  uint32_t seen_count;
  uint64_t salt; /* see ojo__r_salted */
  int wake; /* eventfd, or -1 */
  uint32_t poll_ms;
  void (*idle)(void *user);
  void *idle_user;
  bool follow, unguarded;
  unsigned char *aligned_copy; /* of memory that is not */
  ojo_allocator allocator;
};

/* ---- >>memory ---------------------------------------------------------------------------------- */

static void *ojo__r_alloc(ojo_reader *r, size_t bytes) {
  void *memory = r->allocator.alloc ? r->allocator.alloc(r->allocator.user, bytes) : malloc(bytes);
  if (memory) memset(memory, 0, bytes);
  return memory;
}
static void ojo__r_free(ojo_reader *r, void *memory) {
  if (!memory) return;
  if (r->allocator.free) r->allocator.free(r->allocator.user, memory);
  else if (!r->allocator.alloc) free(memory);
}
/* `old` with room for `need` items: itself, or a copy at least twice as large; NULL, and `old` is as it
 * was, if there is no memory. */
static void *ojo__r_grown(ojo_reader *r, void *old, size_t *capacity, size_t need, size_t item) {
  if (need <= *capacity && old) return old;
  size_t wanted = *capacity * 2 > need ? *capacity * 2 : need < 16 ? 16 : need;
  void *memory = ojo__r_alloc(r, wanted * item);
  if (!memory) return NULL;
  if (old) memcpy(memory, old, *capacity * item);
  ojo__r_free(r, old);
  *capacity = wanted;
  return memory;
}
static char *ojo__r_copy_text(ojo_reader *r, const char *text) {
  size_t bytes = strlen(text) + 1;
  char *copy = (char *)ojo__r_alloc(r, bytes);
  if (copy) memcpy(copy, text, bytes);
  return copy;
}
static char *ojo__r_join(ojo_reader *r, const char *directory, const char *name) {
  size_t a = strlen(directory), b = strlen(name);
  char *path = (char *)ojo__r_alloc(r, a + b + 2);
  if (!path) return NULL;
  memcpy(path, directory, a);
  if (a && path[a - 1] != '/') path[a++] = '/';
  memcpy(path + a, name, b);
  return path;
}
static uint64_t ojo__r_mix(uint64_t x) {
  x = (x ^ x >> 32) * UINT64_C(0xd6e8feb86659fd93);
  return x ^ x >> 32;
}
/* For tables whose keys come from files: nobody can choose keys that meet in one place. */
static uint64_t ojo__r_salted(const ojo_reader *r, uint64_t x) {
  return ojo__r_mix(ojo__r_mix(x ^ r->salt) + r->salt);
}
static uint64_t ojo__r_add(uint64_t a, uint64_t b) { return a + b < a ? UINT64_MAX : a + b; }
static uint64_t ojo__r_load64(const unsigned char *p) {
  uint64_t value;
  __builtin_memcpy(&value, p, 8); /* one load, also under -fno-builtin */
  return value;
}

/* ---- >>errors ---------------------------------------------------------------------------------- */

#define OJO__R_ERROR_HASH 4096u

/* `text` is a literal, or `own`: then it is copied. The same error, found again by another pass, is counted
 * once (of the first 3,072 different ones). */
static void ojo__r_note_error(ojo_reader *r, const char *path, uint64_t offset, ojo_result result,
                              const char *text, bool own) {
  uint64_t name = ojo__fnv1a(path, strlen(path)) ^ ojo__r_mix(offset) ^ ojo__fnv1a(text, strlen(text));
  if (!r->error_hash) r->error_hash = (uint64_t *)ojo__r_alloc(r, OJO__R_ERROR_HASH * sizeof(uint64_t));
  if (r->error_hash) {
    name += name == 0;
    uint32_t i = (uint32_t)name & (OJO__R_ERROR_HASH - 1);
    while (r->error_hash[i] && r->error_hash[i] != name) i = (i + 1) & (OJO__R_ERROR_HASH - 1);
    if (r->error_hash[i] == name) return;
    if (r->error_hash_count < OJO__R_ERROR_HASH / 4 * 3) {
      r->error_hash[i] = name;
      r->error_hash_count++;
    }
  }
  r->error_count++;
  if (r->errors_kept == OJO__R_ERRORS_MAX) return;
  ojo_reader_error *errors = (ojo_reader_error *)ojo__r_grown(r, r->errors, &r->error_capacity,
                                                              r->errors_kept + 1, sizeof *r->errors);
  if (!errors) return;
  r->errors = errors;
  size_t index = r->errors_kept++;
  size_t path_bytes = strlen(path) + 1, text_bytes = own ? strlen(text) + 1 : 0;
  char *copy = path[0] ? (char *)ojo__r_alloc(r, path_bytes + text_bytes) : NULL;
  if (copy) memcpy(copy, path, path_bytes);
  if (copy && own) memcpy(copy + path_bytes, text, text_bytes);
  errors[index].path = copy ? copy : "";
  errors[index].offset = offset;
  errors[index].result = result;
  errors[index].text = !own ? text : copy ? copy + path_bytes : "no memory to say what is wrong";
}
static void ojo__r_error(ojo_reader *r, const char *path, uint64_t offset, ojo_result result,
                         const char *text) {
  ojo__r_note_error(r, path, offset, result, text, false);
}
static ojo_result ojo__r_errno_result(void) {
  return errno == EACCES || errno == EPERM     ? OJO_ERR_PERMISSION
         : errno == ENOENT || errno == ENOTDIR ? OJO_ERR_NOT_FOUND
         : errno == ENOMEM                     ? OJO_ERR_MEMORY
                                               : OJO_ERR_IO;
}

/* ---- >>guard ----------------------------------------------------------------------------------- */

/* A page of a mapped file is gone once the file shrinks (or its disk fails), and touching it is SIGBUS, at
 * any moment: no check beforehand helps. So while files are mapped we handle SIGBUS: if the address is in
 * one of our mappings, a page of zeros is put in its place and noted; the reader, which looks at the note
 * behind each load, reports the file and drops what it loaded from there on. Other addresses go to whoever
 * handled SIGBUS before us. Blocks are only added, and entries are cleared, never freed: the
 * handler reads them without a lock. An entry that it needs is stable: its owner is the thread (or is
 * synchronised with the thread) that faulted. */
#define OJO__R_GUARD_BLOCK 255
struct ojo__r_guards {
  struct ojo__r_guard guard[OJO__R_GUARD_BLOCK];
  struct ojo__r_guards *next;
};
static struct ojo__r_guards ojo__r_first_guards;
static int ojo__r_guard_lock;
static uint32_t ojo__r_guard_count; /* under the lock */
static struct sigaction ojo__r_previous_action;

static void ojo__r_sigbus(int number, siginfo_t *info, void *context) {
  uintptr_t address = (uintptr_t)info->si_addr;
  for (struct ojo__r_guards *b = &ojo__r_first_guards; b; b = __atomic_load_n(&b->next, __ATOMIC_ACQUIRE))
    for (size_t i = 0; i < OJO__R_GUARD_BLOCK; i++) {
      struct ojo__r_guard *guard = &b->guard[i];
      /* start pairs with the release in ojo__r_guard_set, which writes end before it */
      uintptr_t start = __atomic_load_n(&guard->start, __ATOMIC_ACQUIRE);
      if (start == 0 || address < start || address >= __atomic_load_n(&guard->end, __ATOMIC_RELAXED))
        continue;
      int saved = errno;
      uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE);
      void *zeros = mmap((void *)(address & ~(page - 1)), page, PROT_READ,
                         MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
      errno = saved;
      if (zeros == MAP_FAILED) break;
      if ((address & ~(page - 1)) < __atomic_load_n(&guard->gone, __ATOMIC_RELAXED))
        __atomic_store_n(&guard->gone, address & ~(page - 1), __ATOMIC_RELAXED);
      return;
    }
  if (ojo__r_previous_action.sa_flags & SA_SIGINFO) {
    ojo__r_previous_action.sa_sigaction(number, info, context);
  } else if (ojo__r_previous_action.sa_handler != SIG_DFL &&
             ojo__r_previous_action.sa_handler != SIG_IGN) {
    ojo__r_previous_action.sa_handler(number);
  } else {
    signal(number, SIG_DFL); /* back to the faulting instruction, and down as without us */
  }
}

static void ojo__r_lock_guards(void) {
  while (__atomic_exchange_n(&ojo__r_guard_lock, 1, __ATOMIC_ACQUIRE)) (void)poll(NULL, 0, 1);
}
static void ojo__r_unlock_guards(void) { __atomic_store_n(&ojo__r_guard_lock, 0, __ATOMIC_RELEASE); }

/* NULL: no memory. The first one installs the handler. */
static struct ojo__r_guard *ojo__r_guard_set(const unsigned char *base, uint64_t bytes) {
  struct ojo__r_guard *found = NULL;
  ojo__r_lock_guards();
  if (ojo__r_guard_count == 0) {
    struct sigaction action;
    memset(&action, 0, sizeof action);
    action.sa_sigaction = ojo__r_sigbus;
    action.sa_flags = SA_SIGINFO | SA_ONSTACK | SA_RESTART;
    sigemptyset(&action.sa_mask);
    sigaction(SIGBUS, &action, &ojo__r_previous_action);
  }
  for (struct ojo__r_guards *b = &ojo__r_first_guards; b && !found; b = b->next) {
    for (size_t i = 0; i < OJO__R_GUARD_BLOCK && !found; i++)
      if (b->guard[i].start == 0) found = &b->guard[i];
    if (!found && !b->next)
      __atomic_store_n(&b->next, (struct ojo__r_guards *)calloc(1, sizeof *b), __ATOMIC_RELEASE);
  }
  if (found) {
    __atomic_store_n(&found->gone, UINTPTR_MAX, __ATOMIC_RELAXED);
    __atomic_store_n(&found->end, (uintptr_t)base + (uintptr_t)bytes, __ATOMIC_RELAXED);
    __atomic_store_n(&found->start, (uintptr_t)base, __ATOMIC_RELEASE);
    ojo__r_guard_count++;
  }
  ojo__r_unlock_guards();
  return found;
}
static void ojo__r_guard_clear(struct ojo__r_guard *guard) {
  ojo__r_lock_guards();
  __atomic_store_n(&guard->start, 0, __ATOMIC_RELEASE);
  if (--ojo__r_guard_count == 0) { /* the last one restores what was there, unless it was replaced */
    struct sigaction now;
    if (sigaction(SIGBUS, NULL, &now) == 0 && (now.sa_flags & SA_SIGINFO) &&
        now.sa_sigaction == ojo__r_sigbus)
      sigaction(SIGBUS, &ojo__r_previous_action, NULL);
  }
  ojo__r_unlock_guards();
}
static const uintptr_t ojo__r_never = UINTPTR_MAX;
/* What was loaded from below this address before the call was really there. */
static const unsigned char *ojo__r_gone(const struct ojo__r_map *map) {
  return (const unsigned char *)__atomic_load_n(map->guard ? &map->guard->gone : &ojo__r_never,
                                                __ATOMIC_RELAXED);
}
/* The same as an offset, at most the mapping's size. */
static uint64_t ojo__r_sound(const struct ojo__r_map *map) {
  uint64_t sound = (uint64_t)(ojo__r_gone(map) - map->base);
  return map->guard && sound < map->bytes ? sound : map->bytes;
}

/* ---- >>maps ------------------------------------------------------------------------------------ */

static bool ojo__r_map_fd(ojo_reader *r, int fd, uint64_t bytes, struct ojo__r_map *map) {
  void *base = mmap(NULL, (size_t)bytes, PROT_READ, MAP_SHARED, fd, 0);
  if (base == MAP_FAILED) return false;
  memset(map, 0, sizeof *map);
  map->base = (const unsigned char *)base;
  map->bytes = bytes;
  map->mapped = true;
  if (!r->unguarded && !(map->guard = ojo__r_guard_set(map->base, bytes))) {
    munmap(base, (size_t)bytes);
    errno = ENOMEM;
    return false;
  }
  return true;
}
static void ojo__r_unmap(struct ojo__r_map *map) {
  if (map->mapped) {
    if (map->guard) ojo__r_guard_clear(map->guard); /* before another thread maps at the same address */
    munmap((void *)(uintptr_t)map->base, (size_t)map->bytes);
  }
  memset(map, 0, sizeof *map);
}
/* Gives back the page table entries of [from, to): what was read does not stay resident. */
static void ojo__r_release(const struct ojo__r_map *map, uint64_t from, uint64_t to) {
  uint64_t page = 4096;
  from = (from + page - 1) / page * page;
  to = to / page * page;
  if (map->mapped && to > from)
    madvise((void *)(uintptr_t)(map->base + from), (size_t)(to - from), MADV_DONTNEED);
}

/* The file again, for reading its slots; not the one whose header we read if it was replaced since. */
static bool ojo__r_map_file(ojo_reader *r, struct ojo__r_file *f, struct ojo__r_map *map) {
  if (f->pinned.base) {
    *map = f->pinned;
    map->mapped = false;
    return true;
  }
  int fd = open(f->path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (fd < 0) {
    if (errno != ENOENT || !f->member || f->planned) /* the tracer deletes for disk_bytes_max: no damage */
      ojo__r_error(r, f->path, 0, ojo__r_errno_result(), "can't be opened");
    return false;
  }
  struct stat st;
  bool ok = false;
  if (fstat(fd, &st) != 0 || !S_ISREG(st.st_mode) || (uint64_t)st.st_ino != f->inode ||
      (uint64_t)st.st_dev != f->device) {
    ojo__r_error(r, f->path, 0, OJO_ERR_IO, "was replaced since its header was read");
  } else if ((uint64_t)st.st_size < f->header_bytes) {
    ojo__r_error(r, f->path, (uint64_t)st.st_size, OJO_ERR_FORMAT, "the file shrank while it was read");
  } else if (!ojo__r_map_fd(r, fd, (uint64_t)st.st_size, map)) {
    ojo__r_error(r, f->path, 0, ojo__r_errno_result(), "can't be mapped");
  } else {
    if ((uint64_t)st.st_size < f->bytes)
      ojo__r_error(r, f->path, (uint64_t)st.st_size, OJO_ERR_FORMAT, "the file shrank while it was read");
    ok = true;
  }
  close(fd);
  return ok;
}

/* ---- >>schema ---------------------------------------------------------------------------------- */

/* JSON, strict and bounded: one pass, in place (a decoded string is never longer than its source), at most
 * 16 levels deep. Only what a schema needs comes out; the rest is checked and skipped. */
struct ojo__r_json {
  char *at, *end;
};

static bool ojo__r_json_token(struct ojo__r_json *j, char wanted) {
  while (j->at < j->end && (*j->at == ' ' || *j->at == '\t' || *j->at == '\n' || *j->at == '\r')) j->at++;
  if (j->at == j->end || *j->at != wanted) return false;
  j->at++;
  return true;
}
static bool ojo__r_json_hex(struct ojo__r_json *j, uint32_t *out) {
  static const char digits[] = "0123456789abcdef0123456789ABCDEF";
  if (j->end - j->at < 4) return false;
  *out = 0;
  for (int i = 0; i < 4; i++) {
    char c = *j->at++;
    const char *found = c ? strchr(digits, c) : NULL;
    if (!found) return false;
    *out = *out << 4 | (uint32_t)((found - digits) & 15);
  }
  return true;
}
static char *ojo__r_utf8(char *to, uint32_t code) {
  if (code < 0x80) {
    *to++ = (char)code;
  } else if (code < 0x800) {
    *to++ = (char)(0xC0 | code >> 6);
    *to++ = (char)(0x80 | (code & 63));
  } else if (code < 0x10000) {
    *to++ = (char)(0xE0 | code >> 12);
    *to++ = (char)(0x80 | (code >> 6 & 63));
    *to++ = (char)(0x80 | (code & 63));
  } else {
    *to++ = (char)(0xF0 | code >> 18);
    *to++ = (char)(0x80 | (code >> 12 & 63));
    *to++ = (char)(0x80 | (code >> 6 & 63));
    *to++ = (char)(0x80 | (code & 63));
  }
  return to;
}
static bool ojo__r_json_escape(struct ojo__r_json *j, char **to) {
  if (j->at == j->end) return false;
  char c = *j->at++;
  static const char from[] = "\"\\/bfnrt", into[] = "\"\\/\b\f\n\r\t";
  const char *known = c ? strchr(from, c) : NULL;
  if (known) {
    *(*to)++ = into[known - from];
    return true;
  }
  uint32_t code, low;
  if (c != 'u' || !ojo__r_json_hex(j, &code) || code == 0) return false;
  if (code >= 0xD800 && code < 0xE000) { /* a pair, or nothing */
    if (code >= 0xDC00 || j->end - j->at < 6 || *j->at++ != '\\' || *j->at++ != 'u' ||
        !ojo__r_json_hex(j, &low) || low < 0xDC00 || low >= 0xE000)
      return false;
    code = 0x10000 + ((code - 0xD800) << 10 | (low - 0xDC00));
  }
  *to = ojo__r_utf8(*to, code);
  return true;
}
/* Checks one UTF-8 sequence and moves it to *to. */
static bool ojo__r_json_multibyte(struct ojo__r_json *j, char **to) {
  unsigned char c = (unsigned char)*j->at;
  int more = c >= 0xC2 && c < 0xE0 ? 1 : c >= 0xE0 && c < 0xF0 ? 2 : c >= 0xF0 && c < 0xF5 ? 3 : 0;
  if (more == 0 || j->end - j->at <= more) return false;
  unsigned char second = (unsigned char)j->at[1];
  if ((c == 0xE0 && second < 0xA0) || (c == 0xED && second > 0x9F) || (c == 0xF0 && second < 0x90) ||
      (c == 0xF4 && second > 0x8F))
    return false;
  *(*to)++ = *j->at++;
  for (; more; more--) {
    if (((unsigned char)*j->at & 0xC0) != 0x80) return false;
    *(*to)++ = *j->at++;
  }
  return true;
}
/* NUL-terminated, in place of its source. A NUL cannot be in it. */
static bool ojo__r_json_string(struct ojo__r_json *j, char **out) {
  if (!ojo__r_json_token(j, '"')) return false;
  char *to = j->at;
  *out = to;
  while (j->at < j->end) {
    unsigned char c = (unsigned char)*j->at;
    if (c == '"') {
      j->at++;
      *to = 0; /* at the closing quote or before it */
      return true;
    }
    if (c < 0x20) return false;
    if (c >= 0x80) {
      if (!ojo__r_json_multibyte(j, &to)) return false;
    } else if (c == '\\') {
      j->at++;
      if (!ojo__r_json_escape(j, &to)) return false;
    } else {
      *to++ = *j->at++;
    }
  }
  return false;
}
static bool ojo__r_json_number(struct ojo__r_json *j, uint64_t *out) { /* a whole one */
  ojo__r_json_token(j, ' ');
  char *start = j->at;
  uint64_t value = 0;
  while (j->at < j->end && *j->at >= '0' && *j->at <= '9') {
    uint64_t digit = (uint64_t)(*j->at - '0');
    if (value > (UINT64_MAX - digit) / 10) return false;
    value = value * 10 + digit;
    j->at++;
  }
  *out = value;
  return j->at > start && (*start != '0' || j->at == start + 1) &&
         (j->at == j->end || (*j->at != '.' && *j->at != 'e' && *j->at != 'E'));
}
static bool ojo__r_json_skip(struct ojo__r_json *j, int depth) {
  char *text;
  if (depth == 0) return false;
  if (ojo__r_json_token(j, '{')) {
    if (ojo__r_json_token(j, '}')) return true;
    do {
      if (!ojo__r_json_string(j, &text) || !ojo__r_json_token(j, ':') || !ojo__r_json_skip(j, depth - 1))
        return false;
    } while (ojo__r_json_token(j, ','));
    return ojo__r_json_token(j, '}');
  }
  if (ojo__r_json_token(j, '[')) {
    if (ojo__r_json_token(j, ']')) return true;
    do {
      if (!ojo__r_json_skip(j, depth - 1)) return false;
    } while (ojo__r_json_token(j, ','));
    return ojo__r_json_token(j, ']');
  }
  if (j->at < j->end && *j->at == '"') return ojo__r_json_string(j, &text);
  static const char *const words[] = {"true", "false", "null"};
  for (int i = 0; i < 3; i++) {
    size_t bytes = strlen(words[i]);
    if ((size_t)(j->end - j->at) >= bytes && memcmp(j->at, words[i], bytes) == 0) {
      j->at += bytes;
      return true;
    }
  }
  char *start = j->at;
  while (j->at < j->end && *j->at && strchr("+-.0123456789eE", *j->at)) j->at++;
  return j->at > start;
}

static ojo_value_kind ojo__r_kind(const char *text) {
  static const char *const names[] = {"none", "number", "range", "text", "bytes", "record"};
  for (int i = 0; i < 6; i++)
    if (strcmp(text, names[i]) == 0) return (ojo_value_kind)i;
  return OJO_VALUE_NONE;
}
/* One of "events". Version 1's value_type: none, identifier, count, bytes, duration, then three ranges. */
static bool ojo__r_schema_event(struct ojo__r_json *j, ojo_reader_type_info *info, bool *has_value) {
  char *key, *text;
  uint64_t number;
  memset(info, 0, sizeof *info);
  info->category = "Application";
  info->description = "";
  *has_value = false;
  if (!ojo__r_json_token(j, '{')) return false;
  if (ojo__r_json_token(j, '}')) return true;
  do {
    if (!ojo__r_json_string(j, &key) || !ojo__r_json_token(j, ':')) return false;
    ojo__r_json_token(j, ' ');
    bool is_text = j->at < j->end && *j->at == '"';
    if (strcmp(key, "value") == 0) {
      if (!ojo__r_json_number(j, &info->value)) return false;
      *has_value = true;
    } else if (strcmp(key, "value_type") == 0 && !is_text) {
      if (!ojo__r_json_number(j, &number)) return false;
      info->value_kind = number >= 5 && number <= 7 ? OJO_VALUE_RANGE : OJO_VALUE_NUMBER;
    } else if (is_text) {
      if (!ojo__r_json_string(j, &text)) return false;
      if (strcmp(key, "name") == 0) info->name = text;
      if (strcmp(key, "category") == 0 && text[0]) info->category = text;
      if (strcmp(key, "description") == 0) info->description = text;
      if (strcmp(key, "value_kind") == 0) info->value_kind = ojo__r_kind(text);
    } else if (!ojo__r_json_skip(j, 8)) {
      return false;
    }
  } while (ojo__r_json_token(j, ','));
  return ojo__r_json_token(j, '}');
}
static int ojo__r_compare_types(const void *a, const void *b) { /* of one value, the first described counts */
  const ojo_reader_type_info *x = (const ojo_reader_type_info *)a, *y = (const ojo_reader_type_info *)b;
  if (x->value != y->value) return x->value < y->value ? -1 : 1;
  return x->name < y->name ? -1 : x->name > y->name; /* both are in the schema's text */
}
static bool ojo__r_schema_events(ojo_reader *r, struct ojo__r_json *j, struct ojo__r_schema *schema,
                                 size_t *capacity) {
  if (!ojo__r_json_token(j, '[')) return false;
  if (ojo__r_json_token(j, ']')) return true;
  do {
    ojo_reader_type_info info;
    bool has_value;
    if (!ojo__r_schema_event(j, &info, &has_value)) return false;
    if (!has_value || !info.name || !info.name[0]) continue;
    void *types = ojo__r_grown(r, schema->types, capacity, schema->count + 1, sizeof info);
    if (!types) return false;
    schema->types = (ojo_reader_type_info *)types;
    schema->types[schema->count++] = info;
  } while (ojo__r_json_token(j, ','));
  return ojo__r_json_token(j, ']');
}
static bool ojo__r_schema_parse(ojo_reader *r, struct ojo__r_schema *schema, size_t bytes,
                                size_t *capacity) {
  struct ojo__r_json j;
  char *key;
  j.at = schema->text;
  j.end = schema->text + bytes;
  if (!ojo__r_json_token(&j, '{')) return false;
  if (!ojo__r_json_token(&j, '}')) {
    do {
      if (!ojo__r_json_string(&j, &key) || !ojo__r_json_token(&j, ':')) return false;
      bool ok = strcmp(key, "events") == 0 && !schema->types
                    ? ojo__r_schema_events(r, &j, schema, capacity)
                    : (ojo__r_json_token(&j, ' '), ojo__r_json_skip(&j, 16));
      if (!ok) return false;
    } while (ojo__r_json_token(&j, ','));
    if (!ojo__r_json_token(&j, '}')) return false;
  }
  ojo__r_json_token(&j, ' ');
  if (j.at != j.end) return false;
  if (schema->count > 1) qsort(schema->types, schema->count, sizeof *schema->types, ojo__r_compare_types);
  return true;
}

static void ojo__r_schema_free(ojo_reader *r, struct ojo__r_schema *schema) {
  ojo__r_free(r, schema->types);
  ojo__r_free(r, schema->text);
  ojo__r_free(r, schema->path);
  ojo__r_free(r, schema);
}
/* The schema of that id (version 2), or of that path, if it was read before. A failed one is kept as well,
 * empty; for version 2 the next file of the trace then has another try with its own copy. */
static struct ojo__r_schema *ojo__r_schema_find(ojo_reader *r, uint64_t id, const char *path) {
  for (struct ojo__r_schema *s = r->schemas; s; s = s->next)
    if (path ? s->path && strcmp(s->path, path) == 0 : !s->path && s->id == id) return s;
  return NULL;
}
/* `bytes` at `offset` of fd, or of memory, into an empty schema. NULL, or why it stays empty. */
static const char *ojo__r_schema_fill(ojo_reader *r, struct ojo__r_schema *schema, int fd,
                                      const unsigned char *memory, uint64_t offset, uint64_t bytes) {
  static const char too_large[] =
      "the schema is too large (4 MiB, 16 MiB for all): types are shown by number";
  size_t capacity = 0;
  if (bytes > OJO__R_SCHEMA_BYTES_MAX || r->schema_bytes + bytes > OJO__R_SCHEMAS_BYTES_MAX)
    return too_large;
  schema->text = (char *)ojo__r_alloc(r, (size_t)bytes + 1);
  if (!schema->text) return "no memory for the schema: types are shown by number";
  if (memory) memcpy(schema->text, memory + offset, (size_t)bytes);
  else if (pread(fd, schema->text, (size_t)bytes, (off_t)offset) != (ssize_t)bytes)
    return "the schema can't be read: types are shown by number";
  if (!schema->path && ojo__fnv1a(schema->text, (size_t)bytes) != schema->id)
    return "the schema's bytes do not match its id: types are shown by number";
  if (!ojo__r_schema_parse(r, schema, (size_t)bytes, &capacity))
    return "the schema is not the JSON that it should be: types are shown by number";
  uint64_t total = r->schema_bytes + bytes + capacity * sizeof *schema->types;
  if (total > OJO__R_SCHEMAS_BYTES_MAX) return too_large;
  r->schema_bytes = total;
  return NULL;
}
/* Reads the schema `id`, or, for version 1, that of the file `path`, into a new one, or a failed one. */
static struct ojo__r_schema *ojo__r_schema_read(ojo_reader *r, struct ojo__r_schema *schema, uint64_t id,
                                                const char *path, const char *file_path, int fd,
                                                const unsigned char *memory, uint64_t offset,
                                                uint64_t bytes) {
  if (!schema) {
    schema = (struct ojo__r_schema *)ojo__r_alloc(r, sizeof *schema);
    if (!schema || (path && !(schema->path = ojo__r_copy_text(r, path)))) {
      ojo__r_error(r, file_path, offset, OJO_ERR_MEMORY,
                   "no memory for the schema: types are shown by number");
      ojo__r_free(r, schema);
      return NULL;
    }
    schema->id = id;
    schema->next = r->schemas;
    r->schemas = schema;
  }
  const char *problem = ojo__r_schema_fill(r, schema, fd, memory, offset, bytes);
  schema->failed = problem != NULL;
  if (!problem) return schema;
  ojo__r_error(r, file_path, offset, OJO_ERR_FORMAT, problem);
  ojo__r_free(r, schema->types);
  ojo__r_free(r, schema->text);
  schema->types = NULL;
  schema->text = NULL;
  schema->count = 0;
  return schema;
}
/* Version 1: schema/event_schema_{id}.json beside the directory of `path`. */
static struct ojo__r_schema *ojo__r_schema_version1(ojo_reader *r, const char *path, uint64_t id) {
  const char *slash = strrchr(path, '/');
  size_t directory = slash ? (size_t)(slash - path) + 1 : 0;
  size_t size = directory + 80;
  char *name = (char *)ojo__r_alloc(r, size);
  if (!name) return NULL;
  memcpy(name, path, directory);
  snprintf(name + directory, size - directory, "../schema/event_schema_%016" PRIx64 ".json", id);
  struct ojo__r_schema *schema = ojo__r_schema_find(r, id, name);
  if (!schema) {
    struct stat st;
    int fd = open(name, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0)
      ojo__r_error(r, name, 0, ojo__r_errno_result(),
                   "no schema for this trace: types are shown by number");
    else if (fstat(fd, &st) != 0 || !S_ISREG(st.st_mode))
      ojo__r_error(r, name, 0, OJO_ERR_FORMAT, "the schema is no file: types are shown by number");
    else schema = ojo__r_schema_read(r, NULL, id, name, name, fd, NULL, 0, (uint64_t)st.st_size);
    if (fd >= 0) close(fd);
  }
  ojo__r_free(r, name);
  return schema;
}

/* ---- >>types ----------------------------------------------------------------------------------- */

static const char *ojo__r_category_name(uint32_t bit) {
  switch (bit) {
#define OJO__X(number, name, text) \
  case number:                     \
    return text;
    OJO_CATEGORIES(OJO__X)
#undef OJO__X
  }
  return NULL;
}
static uint8_t ojo__r_category_by_name(const char *text) {
#define OJO__X(number, name, word) \
  if (strcmp(text, word) == 0) return number;
  OJO_CATEGORIES(OJO__X)
#undef OJO__X
  return 16;
}
static void ojo__r_add_standard(ojo_reader *r, uint32_t value, const char *name, int category,
                                ojo_value_kind kind) {
  if (r->standard_count == OJO__R_STANDARD_MAX) return;
  ojo_reader_type_info *info = &r->standard[r->standard_count++];
  uint32_t bit = 0;
  while (category >> bit != 1) bit++;
  info->value = value;
  info->name = name;
  info->category = ojo__r_category_name(bit);
  info->description = "";
  info->value_kind = kind;
  if (value < sizeof r->standard_at) r->standard_at[value] = (uint8_t)r->standard_count;
}
static void ojo__r_make_standard(ojo_reader *r) {
#define OJO__X(value, name, helper, category, kind, payload, size) \
  ojo__r_add_standard(r, value, #name, OJO_CATEGORY_##category, OJO_VALUE_##kind);
  OJO_EVENTS(OJO__X)
  OJO_EVENTS_INTERNAL(OJO__X)
#undef OJO__X
}
static const ojo_reader_type_info *ojo__r_standard(const ojo_reader *r, uint64_t type) {
  if (type < sizeof r->standard_at)
    return r->standard_at[type] ? &r->standard[r->standard_at[type] - 1] : NULL;
  for (uint32_t i = r->standard_count; i-- && r->standard[i].value >= 0xFF00;) /* Meta is at the end */
    if (r->standard[i].value == type) return &r->standard[i];
  return NULL;
}
static const ojo_reader_type_info *ojo__r_described(const struct ojo__r_schema *schema, uint64_t type) {
  size_t low = 0, high = schema ? schema->count : 0;
  while (low < high) {
    size_t middle = low + (high - low) / 2;
    if (schema->types[middle].value < type) low = middle + 1;
    else high = middle;
  }
  return schema && low < schema->count && schema->types[low].value == type ? &schema->types[low] : NULL;
}
/* A number for a name. Kept until close for the first 1,023 such types; the others share one place. */
static const ojo_reader_type_info *ojo__r_undescribed(ojo_reader *r, uint64_t type, bool version1) {
  static const ojo_reader_type_info none = {0, "0x000000", "Application", "", OJO_VALUE_NONE};
  if (!r->unknown)
    r->unknown = (struct ojo__r_unknown *)ojo__r_alloc(r, OJO__R_UNKNOWN_MAX * sizeof *r->unknown);
  if (!r->unknown) return &none;
  uint32_t i = 0;
  uint32_t slot = (uint32_t)ojo__r_mix(type) & (OJO__R_UNKNOWN_MAX - 1);
  for (; i < OJO__R_UNKNOWN_MAX - 1; i++, slot = (slot + 1) & (OJO__R_UNKNOWN_MAX - 1)) {
    struct ojo__r_unknown *u = &r->unknown[slot];
    if (!u->name[0] || (u->info.value == type && u->version1 == version1)) break;
  }
  struct ojo__r_unknown *u = &r->unknown[slot];
  if (u->name[0] && u->info.value == type && u->version1 == version1) return &u->info;
  const char *category =
      type < 0x10000 && !version1 ? ojo__r_category_name((uint32_t)(type >> 8) & 15) : NULL;
  snprintf(u->name, sizeof u->name, "0x%06" PRIx64, type);
  u->info.value = type;
  u->info.name = u->name;
  u->info.category = category ? category : "Application";
  u->info.description = "";
  u->info.value_kind = version1 ? OJO_VALUE_NUMBER : OJO_VALUE_NONE;
  u->version1 = version1;
  return &u->info;
}
static const ojo_reader_type_info *ojo__r_type(ojo_reader *r, uint32_t trace, uint64_t type) {
  const struct ojo__r_trace *t = r->traces[trace];
  bool version1 = t->info.version == 1;
  const ojo_reader_type_info *info;
  if (!version1 && type < OJO_APPLICATION_TYPE_FIRST && (info = ojo__r_standard(r, type)) != NULL)
    return info;
  struct ojo__r_type_cache *cache =
      &r->type_cache[(type ^ type >> 6 ^ trace * 7u) & (OJO__R_TYPE_CACHE - 1)];
  if (cache->info && cache->type == type && cache->trace == trace) return cache->info;
  info = version1 && type == OJO_EVENTS_DROPPED ? ojo__r_standard(r, type)
                                                : ojo__r_described(t->schema, type);
  if (!info) return ojo__r_undescribed(r, type, version1);
  cache->info = info;
  cache->type = type;
  cache->trace = trace;
  return info;
}
/* ---- >>traces ---------------------------------------------------------------------------------- */

/* The slot in a table of indices + 1 for `hash`; grows it. NULL: no memory. */
static bool ojo__r_hash_room(ojo_reader *r, uint32_t **table, size_t *size, size_t used,
                             uint64_t (*hash_of)(const ojo_reader *r, uint32_t index)) {
  if (*table && used * 2 < *size) return true;
  size_t wanted = *size ? *size * 2 : 64;
  uint32_t *bigger = (uint32_t *)ojo__r_alloc(r, wanted * sizeof **table);
  if (!bigger) return false;
  for (size_t i = 0; i < *size; i++)
    if ((*table)[i]) {
      size_t slot = (size_t)hash_of(r, (*table)[i] - 1) & (wanted - 1);
      while (bigger[slot]) slot = (slot + 1) & (wanted - 1);
      bigger[slot] = (*table)[i];
    }
  ojo__r_free(r, *table);
  *table = bigger;
  *size = wanted;
  return true;
}
static uint64_t ojo__r_trace_name(const uint8_t *id, const char *directory, uint64_t schema_id) {
  uint64_t hash =
      directory ? ojo__fnv1a(directory, strlen(directory)) ^ ojo__r_mix(schema_id) : ojo__fnv1a(id, 16);
  return ojo__r_mix(hash);
}
static uint64_t ojo__r_trace_hash(const ojo_reader *r, uint32_t index) {
  const struct ojo__r_trace *t = r->traces[index];
  return ojo__r_trace_name(t->info.id, t->directory, t->schema_id);
}
/* The trace of that id (version 1: of that directory and schema), made if it is new. NULL: no memory. */
static struct ojo__r_trace *ojo__r_trace_of(ojo_reader *r, const uint8_t *id, const char *directory,
                                            uint64_t schema_id, uint32_t *index) {
  if (!ojo__r_hash_room(r, &r->trace_hash, &r->trace_hash_size, r->trace_count, ojo__r_trace_hash))
    return NULL;
  size_t slot = (size_t)ojo__r_trace_name(id, directory, schema_id) & (r->trace_hash_size - 1);
  for (; r->trace_hash[slot]; slot = (slot + 1) & (r->trace_hash_size - 1)) {
    struct ojo__r_trace *t = r->traces[r->trace_hash[slot] - 1];
    bool same = directory
                    ? t->directory && strcmp(t->directory, directory) == 0 && t->schema_id == schema_id
                    : !t->directory && memcmp(t->info.id, id, 16) == 0;
    *index = r->trace_hash[slot] - 1;
    if (same) return t;
  }
  struct ojo__r_trace **traces = (struct ojo__r_trace **)ojo__r_grown(r, r->traces, &r->trace_capacity,
                                                                      r->trace_count + 1, sizeof *traces);
  if (!traces) return NULL;
  r->traces = traces;
  struct ojo__r_trace *t = (struct ojo__r_trace *)ojo__r_alloc(r, sizeof *t);
  if (!t || (directory && !(t->directory = ojo__r_copy_text(r, directory)))) {
    ojo__r_free(r, t);
    return NULL;
  }
  memcpy(t->info.id, id, 16);
  t->schema_id = schema_id;
  t->info.first_ns = UINT64_MAX;
  *index = r->trace_count;
  r->traces[r->trace_count++] = t;
  r->trace_hash[slot] = r->trace_count;
  return t;
}

/* Traces of one boot share its earliest trace's pair of clocks, so that an adjustment of the wall clock
 * between their starts does not tear them apart. A trace keeps its place once it has one (follow). */
static bool ojo__r_alignable(const struct ojo__r_trace *t) {
  static const uint8_t none[16] = {0};
  return t->info.version != 1 && t->info.clock != OJO_CLOCK_MANUAL &&
         memcmp(t->info.boot_id, none, 16) != 0;
}
static int ojo__r_compare_boots(const void *a, const void *b) {
  const struct ojo__r_trace *x = *(struct ojo__r_trace *const *)a, *y = *(struct ojo__r_trace *const *)b;
  int order = memcmp(x->info.boot_id, y->info.boot_id, 16);
  if (order) return order;
  if (x->aligned != y->aligned) return x->aligned ? -1 : 1; /* who has a place is the reference */
  return x->info.start_monotonic_ns < y->info.start_monotonic_ns   ? -1
         : x->info.start_monotonic_ns > y->info.start_monotonic_ns ? 1
                                                                   : 0;
}
static void ojo__r_align(ojo_reader *r) {
  uint32_t count = 0, fresh = 0;
  for (uint32_t i = 0; i < r->trace_count; i++) {
    struct ojo__r_trace *t = r->traces[i];
    if (t->aligned) continue;
    t->base = t->info.start_unix_ns;
    fresh++;
  }
  if (fresh == 0) return;
  struct ojo__r_trace **sorted =
      (struct ojo__r_trace **)ojo__r_alloc(r, r->trace_count * sizeof(struct ojo__r_trace *));
  for (uint32_t i = 0; sorted && i < r->trace_count; i++)
    if (ojo__r_alignable(r->traces[i])) sorted[count++] = r->traces[i];
  if (count > 1) qsort(sorted, count, sizeof *sorted, ojo__r_compare_boots);
  for (uint32_t i = 0, reference = 0; i < count; i++) {
    struct ojo__r_trace *t = sorted[i], *first = sorted[reference];
    if (i == reference || memcmp(t->info.boot_id, first->info.boot_id, 16) != 0) {
      reference = i;
      continue;
    }
    uint64_t mono = t->info.start_monotonic_ns, from = first->info.start_monotonic_ns;
    if (t->aligned) continue;
    t->base = mono >= from                ? ojo__r_add(first->base, mono - from)
              : first->base > from - mono ? first->base - (from - mono)
                                          : 0;
  }
  for (uint32_t i = 0; i < r->trace_count; i++) r->traces[i]->aligned = true;
  if (!sorted)
    ojo__r_error(r, "", 0, OJO_ERR_MEMORY, "no memory to align the traces: they are merged by unix time");
  ojo__r_free(r, sorted);
}

/* ---- >>files ----------------------------------------------------------------------------------- */

static void ojo__r_file_free(ojo_reader *r, struct ojo__r_file *f) {
  if (!f) return;
  ojo__r_unmap(&f->map);
  if (f->runs) r->runs_indexed -= f->run_capacity;
  ojo__r_free(r, f->runs);
  ojo__r_free(r, f->pieces);
  ojo__r_unmap(&f->look);
  if (f->pinned.mapped) ojo__r_unmap(&f->pinned);
  ojo__r_free(r, f->path);
  ojo__r_free(r, f);
}
/* What follows the header of version 2, checked against what is there. */
static bool ojo__r_header2(ojo_reader *r, struct ojo__r_file *f, const ojo_file_header *h) {
  ojo_file_header copy = *h;
  const char *problem = NULL;
  copy.crc = 0;
  f->trusted = ojo__crc32c(0, &copy, sizeof copy) == h->crc;
  if (h->slot_bytes != OJO_SLOT_BYTES) problem = "slots of another size than 24";
  else if (h->header_bytes < OJO__R_HEADER_BYTES || h->header_bytes % 8 != 0)
    problem = "a header of impossible size";
  else if (h->header_bytes > f->bytes) problem = "the file ends within its header";
  else if (h->schema_bytes > h->header_bytes - OJO__R_HEADER_BYTES)
    problem = "the schema does not fit into the header";
  if (problem) {
    ojo__r_error(r, f->path, 0, OJO_ERR_FORMAT, problem);
    return false;
  }
  if (!f->trusted)
    ojo__r_error(r, f->path, 140, OJO_ERR_FORMAT,
                 "the header's checksum is wrong: its times and counts are not used");
  f->header_bytes = h->header_bytes;
  f->batch = h->batch;
  f->flags = h->flags;
  uint64_t room = (f->bytes - h->header_bytes) / OJO_SLOT_BYTES;
  f->slot_count = room;
  f->first_ts = 0;
  f->last_ts = UINT64_MAX;
  if (!f->trusted) return true;
  if (h->first_ts <= h->last_ts) {
    f->first_ts = h->first_ts;
    f->last_ts = h->last_ts;
  }
  if (h->slot_count == 0 && !(h->flags & OJO_FILE_COMPLETE))
    return true; /* never finished: what is there */
  if (h->slot_count > room)
    ojo__r_error(r, f->path, f->bytes, OJO_ERR_FORMAT,
                 "the file is cut off: it has fewer slots than its header says");
  else if (h->header_bytes + h->slot_count * OJO_SLOT_BYTES != f->bytes)
    ojo__r_error(r, f->path, h->header_bytes + h->slot_count * OJO_SLOT_BYTES, OJO_ERR_FORMAT,
                 "bytes after the last slot, not read");
  if (h->slot_count < room) f->slot_count = h->slot_count;
  return true;
}
static void ojo__r_trace_fill(struct ojo__r_trace *t, const struct ojo__r_file *f,
                              const ojo_file_header *h) {
  ojo_reader_trace_info *info = &t->info;
  info->files++;
  info->bytes += f->bytes;
  info->flags = (uint8_t)(info->flags | h->flags);
  if (h->anchor_error_ns > info->anchor_error_ns) info->anchor_error_ns = h->anchor_error_ns;
  if (info->version != 0) return;
  info->version = OJO_FILE_VERSION;
  memcpy(info->boot_id, h->boot_id, 16);
  info->start_unix_ns = h->start_unix_ns;
  info->start_monotonic_ns = h->start_monotonic_ns;
  info->pid = h->pid;
  info->clock = h->clock;
  memcpy(info->command, h->command, 16);
  info->command[16] = 0;
}
static bool ojo__r_examine2(ojo_reader *r, struct ojo__r_file *f, int fd, const unsigned char *memory,
                            const ojo_file_header *h) {
  if (!ojo__r_header2(r, f, h)) return false;
  if (r->has_trace_id && memcmp(h->trace_id, r->trace_id, 16) != 0) {
    f->version = 0; /* fine, and not ours */
    return false;
  }
  struct ojo__r_trace *t = ojo__r_trace_of(r, h->trace_id, NULL, 0, &f->trace);
  if (!t) {
    ojo__r_error(r, f->path, 0, OJO_ERR_MEMORY, "no memory for its trace");
    return false;
  }
  ojo__r_trace_fill(t, f, h);
  if ((t->schema && !t->schema->failed) || h->schema_id == 0) return true;
  struct ojo__r_schema *schema = ojo__r_schema_find(r, h->schema_id, NULL);
  if (!schema || schema->failed)
    schema =
        ojo__r_schema_read(r, schema, h->schema_id, NULL, f->path, fd, memory,
                           h->header_bytes - (h->schema_bytes + UINT64_C(7)) / 8 * 8, h->schema_bytes);
  t->schema_id = h->schema_id;
  if (schema) t->schema = schema;
  return true;
}
/* Version 1's header has no end time: the last record tells, near enough for the trace's summary. */
static bool ojo__r_examine1(ojo_reader *r, struct ojo__r_file *f, int fd, const unsigned char *memory,
                            const unsigned char *head) {
  static const uint8_t no_id[16] = {0};
  uint64_t start = ojo__r_load64(head + 8), schema_id = ojo__r_load64(head + 16), last = 0;
  f->header_bytes = OJO__R_V1_HEADER_BYTES;
  f->trusted = false;
  f->start_unix_ns = start;
  f->last_ts = UINT64_MAX;
  uint64_t records = (f->bytes - OJO__R_V1_HEADER_BYTES) / OJO__R_V1_RECORD_BYTES;
  f->slot_count = records;
  if (f->bytes != OJO__R_V1_HEADER_BYTES + records * OJO__R_V1_RECORD_BYTES)
    ojo__r_error(r, f->path, OJO__R_V1_HEADER_BYTES + records * OJO__R_V1_RECORD_BYTES, OJO_ERR_FORMAT,
                 "the file is cut off within a record");
  if (r->has_trace_id && memcmp(no_id, r->trace_id, 16) != 0) {
    f->version = 0;
    return false;
  }
  const char *slash = strrchr(f->path, '/');
  char *directory = ojo__r_copy_text(r, slash ? f->path : ".");
  if (directory && slash) directory[slash - f->path] = 0;
  struct ojo__r_trace *t = directory ? ojo__r_trace_of(r, no_id, directory, schema_id, &f->trace) : NULL;
  ojo__r_free(r, directory);
  if (!t) {
    ojo__r_error(r, f->path, 0, OJO_ERR_MEMORY, "no memory for its trace");
    return false;
  }
  if (t->info.version == 0 && !memory) t->schema = ojo__r_schema_version1(r, f->path, schema_id);
  t->info.version = 1;
  t->info.files++;
  t->info.bytes += f->bytes;
  if (t->info.start_unix_ns == 0 || start < t->info.start_unix_ns) t->info.start_unix_ns = start;
  uint64_t at = OJO__R_V1_HEADER_BYTES + (records - 1) * OJO__R_V1_RECORD_BYTES;
  if (records && memory) last = ojo__r_load64(memory + at);
  if (records && !memory && pread(fd, &last, 8, (off_t)at) != 8) last = 0;
  if (start < t->info.first_ns) t->info.first_ns = start;
  if (ojo__r_add(start, last) > t->info.last_ns) t->info.last_ns = ojo__r_add(start, last);
  return true;
}
/* Reads the header (from fd, or memory). False: an error was noted, or another trace is wanted. */
static bool ojo__r_examine(ojo_reader *r, struct ojo__r_file *f, int fd, const unsigned char *memory) {
  union {
    unsigned char bytes[OJO__R_HEADER_BYTES];
    ojo_file_header header;
  } head;
  memset(&head, 0, sizeof head);
  size_t want = f->bytes < sizeof head ? (size_t)f->bytes : sizeof head;
  if (f->bytes == 0) {
    ojo__r_error(r, f->path, 0, OJO_ERR_FORMAT, "empty file");
    return false;
  }
  if (memory) memcpy(head.bytes, memory, want);
  else if (pread(fd, head.bytes, want, 0) != (ssize_t)want) {
    ojo__r_error(r, f->path, 0, OJO_ERR_IO, "the header can't be read");
    return false;
  }
  f->version = head.header.version;
  if (want < OJO__R_V1_HEADER_BYTES || memcmp(head.bytes, OJO_FILE_MAGIC, 4) != 0) {
    ojo__r_error(r, f->path, 0, OJO_ERR_FORMAT, "not an ojo file");
    return false;
  }
  if (f->version == 1) return ojo__r_examine1(r, f, fd, memory, head.bytes);
  if (f->version != OJO_FILE_VERSION) {
    ojo__r_error(r, f->path, 4, OJO_ERR_FORMAT,
                 "a version of the file format that this reader does not know");
    return false;
  }
  if (want < sizeof head) {
    ojo__r_error(r, f->path, f->bytes, OJO_ERR_FORMAT, "the file ends within its header");
    return false;
  }
  return ojo__r_examine2(r, f, fd, memory, &head.header);
}

static uint64_t ojo__r_file_name(uint64_t device, uint64_t inode) { return ojo__r_mix(inode ^ ojo__r_mix(device)); }
static uint64_t ojo__r_file_hash(const ojo_reader *r, uint32_t index) {
  return ojo__r_file_name(r->files[index]->device, r->files[index]->inode);
}
/* Whether the file is in already, under another name or the same one: while several paths are opened. */
static bool ojo__r_twice(ojo_reader *r, const struct stat *st) {
  if (r->sources < 2 || !ojo__r_hash_room(r, &r->file_hash, &r->file_hash_size, r->file_count, ojo__r_file_hash))
    return false;
  size_t slot =
      (size_t)ojo__r_file_name((uint64_t)st->st_dev, (uint64_t)st->st_ino) & (r->file_hash_size - 1);
  for (; r->file_hash[slot]; slot = (slot + 1) & (r->file_hash_size - 1)) {
    const struct ojo__r_file *f = r->files[r->file_hash[slot] - 1];
    if (f->inode == (uint64_t)st->st_ino && f->device == (uint64_t)st->st_dev) return true;
  }
  return false;
}
static void ojo__r_note_file(ojo_reader *r, const struct ojo__r_file *f) { /* ojo__r_twice has made room */
  if (!r->file_hash || (r->file_count + 1u) * 2 > r->file_hash_size) return;
  size_t slot = (size_t)ojo__r_file_name(f->device, f->inode) & (r->file_hash_size - 1);
  while (r->file_hash[slot]) slot = (slot + 1) & (r->file_hash_size - 1);
  r->file_hash[slot] = f->index + 1;
}

/* Puts a file whose header is to be read into the list. Takes over f. False: not taken, f is freed. */
static bool ojo__r_take_file(ojo_reader *r, struct ojo__r_file *f, int fd) {
  f->sequence = r->file_sequence++;
  bool fine = ojo__r_examine(r, f, fd, f->pinned.base);
  void *files =
      fine ? ojo__r_grown(r, r->files, &r->file_capacity, r->file_count + 1, sizeof *r->files) : NULL;
  if (!files) {
    if (fine) ojo__r_error(r, f->path, 0, OJO_ERR_MEMORY, "no memory for one more file");
    ojo__r_file_free(r, f);
    return false;
  }
  r->files = (struct ojo__r_file **)files;
  f->index = r->file_count;
  r->files[r->file_count++] = f;
  ojo__r_note_file(r, f);
  r->bytes_total += f->bytes;
  if (f->version != 1 && f->flags & (OJO_FILE_SNAPSHOT | OJO_FILE_RECOVERED)) r->plan_due = true;
  return true;
}
static struct ojo__r_file *ojo__r_new_file(ojo_reader *r, const char *path) {
  struct ojo__r_file *f = (struct ojo__r_file *)ojo__r_alloc(r, sizeof *f);
  if (f && !(f->path = ojo__r_copy_text(r, path))) {
    ojo__r_free(r, f);
    f = NULL;
  }
  if (!f) ojo__r_error(r, path, 0, OJO_ERR_MEMORY, "no memory for one more file");
  return f;
}

/* What can't be mapped (a pipe) goes to an unlinked file in TMPDIR or /tmp first: up to 16 GiB. */
static int ojo__r_spool(ojo_reader *r, int from, const char *path) {
  const char *directory = getenv("TMPDIR");
  char *name = ojo__r_join(r, directory && directory[0] ? directory : "/tmp", "ojo_XXXXXX");
  unsigned char *block = (unsigned char *)ojo__r_alloc(r, 65536);
  int to = name && block ? mkstemp(name) : -1;
  if (to >= 0) unlink(name);
  uint64_t total = 0;
  for (bool more = to >= 0; more;) {
    ssize_t got = read(from, block, 65536);
    if (got < 0 && errno == EINTR && !__atomic_load_n(&r->stop, __ATOMIC_RELAXED)) continue;
    more = got > 0;
    if (got < 0) ojo__r_error(r, path, total, OJO_ERR_IO, "can't be read further");
    for (ssize_t done = 0; done < got;) {
      ssize_t put = write(to, block + done, (size_t)(got - done));
      if (put < 0 && errno == EINTR) continue;
      if (put <= 0 || total + (uint64_t)put > OJO__R_SPOOL_BYTES_MAX) {
        ojo__r_error(
            r, path, total, OJO_ERR_IO,
            "no room in TMPDIR for what comes through the pipe (16 GiB at most): the rest is left out");
        more = false;
        break;
      }
      done += put;
      total += (uint64_t)put;
    }
  }
  if (to < 0) ojo__r_error(r, path, 0, OJO_ERR_IO, "no temporary file for what comes through the pipe");
  ojo__r_free(r, block);
  ojo__r_free(r, name);
  return to;
}
/* A file of any kind by its descriptor, which it closes. `pin`: it can't be opened again by its path. */
static void ojo__r_add_fd(ojo_reader *r, const char *path, int fd, bool member, bool pin) {
  struct stat st;
  struct ojo__r_file *f = NULL;
  bool regular = fstat(fd, &st) == 0 && S_ISREG(st.st_mode);
  if (regular && ojo__r_twice(r, &st)) {
    close(fd);
    return;
  }
  if (!regular && !member) {
    int spooled = ojo__r_spool(r, fd, path);
    close(fd);
    fd = spooled;
    pin = true;
    if (fd < 0 || fstat(fd, &st) != 0) return;
  }
  if ((!regular && member) || !(f = ojo__r_new_file(r, path))) {
    close(fd);
    return;
  }
  f->bytes = (uint64_t)st.st_size;
  f->device = (uint64_t)st.st_dev;
  f->inode = (uint64_t)st.st_ino;
  f->member = member;
  if (pin && f->bytes && !ojo__r_map_fd(r, fd, f->bytes, &f->pinned)) {
    ojo__r_error(r, path, 0, ojo__r_errno_result(), "can't be mapped");
    ojo__r_file_free(r, f);
  } else {
    ojo__r_take_file(r, f, fd);
  }
  close(fd);
}

/* Seen names of followed directories. When the table grows, those are forgotten that were neither in this
 * listing of their directory, which may be under way, nor in the one before. */
static bool ojo__r_first_sight(ojo_reader *r, uint32_t directory, const char *path) {
  uint64_t name = ojo__r_mix(ojo__fnv1a(path, strlen(path)));
  name += name == 0;
  if (r->seen_count * 2 >= r->seen_size) {
    size_t size = r->seen_size ? r->seen_size * 2 : 256;
    struct ojo__r_seen *bigger = (struct ojo__r_seen *)ojo__r_alloc(r, size * sizeof *bigger);
    if (!bigger) return false;
    r->seen_count = 0;
    for (size_t i = 0; i < r->seen_size; i++) {
      if (!r->seen[i].name || r->seen[i].listing + 1 < r->directories[r->seen[i].directory].listings)
        continue;
      size_t slot = (size_t)r->seen[i].name & (size - 1);
      while (bigger[slot].name) slot = (slot + 1) & (size - 1);
      bigger[slot] = r->seen[i];
      r->seen_count++;
    }
    ojo__r_free(r, r->seen);
    r->seen = bigger;
    r->seen_size = size;
  }
  size_t slot = (size_t)name & (r->seen_size - 1);
  while (r->seen[slot].name && r->seen[slot].name != name) slot = (slot + 1) & (r->seen_size - 1);
  bool first = !r->seen[slot].name;
  r->seen[slot].name = name;
  r->seen[slot].directory = directory;
  r->seen[slot].listing = r->directories[directory].listings;
  r->seen_count += first;
  return first;
}
static bool ojo__r_is_directory(const char *path) {
  struct stat st;
  return stat(path, &st) == 0 && S_ISDIR(st.st_mode);
}
/* DIR/output if there is one, else DIR/raw, else DIR. */
static char *ojo__r_resolve(ojo_reader *r, const char *path) {
  static const char *const inner[] = {"output", "raw"};
  for (int i = 0; i < 2; i++) {
    char *joined = ojo__r_join(r, path, inner[i]);
    if (!joined || ojo__r_is_directory(joined)) return joined;
    ojo__r_free(r, joined);
  }
  return ojo__r_copy_text(r, path);
}
/* A directory whose time stamp stands still has nothing new, unless the change was so recent that another
 * one could share its stamp. */
static bool ojo__r_unchanged(struct ojo__r_directory *d, const char *path) {
  struct stat st;
  struct timespec now;
  if (stat(path, &st) != 0 || clock_gettime(CLOCK_REALTIME, &now) != 0) return false;
  bool same = d->listed && st.st_mtim.tv_sec == d->changed.tv_sec && st.st_mtim.tv_nsec == d->changed.tv_nsec &&
              now.tv_sec > st.st_mtim.tv_sec + 2;
  d->changed = st.st_mtim;
  return same;
}
/* Adds the directory's files that are not in yet. */
static void ojo__r_list(ojo_reader *r, uint32_t index) {
  struct ojo__r_directory *d = &r->directories[index];
  char *path = ojo__r_resolve(r, d->path), *name = NULL;
  if (path && r->follow && ojo__r_unchanged(d, path)) {
    ojo__r_free(r, path);
    return;
  }
  DIR *listing = path ? opendir(path) : NULL;
  d->listed = listing != NULL;
  if (!listing && path && errno != ENOENT)
    ojo__r_error(r, path, 0, ojo__r_errno_result(),
                 errno == EACCES ? "the directory can't be listed: permission denied"
                                 : "the directory can't be listed");
  d->listings++;
  bool memory = path != NULL;
  for (struct dirent *entry; listing && memory && (entry = readdir(listing)) != NULL;) {
    size_t bytes = strlen(entry->d_name);
    if (entry->d_name[0] == '.' || bytes < 5 || strcmp(entry->d_name + bytes - 4, ".bin") != 0) continue;
    memory = (name = ojo__r_join(r, path, entry->d_name)) != NULL;
    if (memory && (!r->follow || ojo__r_first_sight(r, index, name))) {
      int fd = open(name, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
      if (fd >= 0) ojo__r_add_fd(r, name, fd, true, false);
      else if (errno != ENOENT) ojo__r_error(r, name, 0, ojo__r_errno_result(), "can't be opened");
    }
    ojo__r_free(r, name);
  }
  if (!memory) ojo__r_error(r, d->path, 0, OJO_ERR_MEMORY, "no memory to list the directory");
  if (listing) closedir(listing);
  ojo__r_free(r, path);
}
static bool ojo__r_same_directory(const char *path, const char *other) {
  struct stat a, b;
  return stat(path, &a) == 0 && stat(other, &b) == 0 && a.st_dev == b.st_dev && a.st_ino == b.st_ino;
}
/* The pool that a link file names: its first line, an absolute path. False: it is no link. */
static bool ojo__r_read_link(const char *link, char *name, size_t room) {
  struct stat st;
  int fd = open(link, O_RDONLY | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK);
  if (fd < 0) return false;
  ssize_t bytes = fstat(fd, &st) == 0 && S_ISREG(st.st_mode) ? read(fd, name, room - 1) : -1;
  close(fd);
  if (bytes <= 0 || name[0] != '/') return false;
  name[bytes] = 0;
  name[strcspn(name, "\n")] = 0;
  return true;
}
static bool ojo__r_is_link_name(const char *name) {
  size_t bytes = strlen(name);
  return strncmp(name, "pool_", 5) == 0 && bytes >= 10 && strcmp(name + bytes - 5, ".link") == 0;
}
/* A pool, by its path or by that of its link: the events in it, as recovery would write them. False: it is
 * something else. Whose tracer is alive is not looked at: why it can't be read is an error. */
static bool ojo__r_add_pool(ojo_reader *r, const char *path) {
  char name[4096], why[256] = "can't be read";
  const char *slash = strrchr(path, '/');
  bool link = ojo__r_is_link_name(slash ? slash + 1 : path) && ojo__r_read_link(path, name, sizeof name);
  struct stat st;
  int fd = open(link ? name : path, O_RDONLY | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK);
  if (fd < 0 && link)
    ojo__r_error(r, path, 0, ojo__r_errno_result(),
                 errno == ENOENT ? "the pool that this link names is gone: it was recovered, or the system restarted"
                                 : "the pool that this link names can't be opened");
  if (fd < 0) return link;
  bool pool = fstat(fd, &st) == 0 && S_ISREG(st.st_mode) && pread(fd, why, 8, 0) == 8 && memcmp(why, "ojopool", 8) == 0;
  close(fd);
  fd = -1;
  if (!pool && link) ojo__r_error(r, path, 0, OJO_ERR_FORMAT, "what this link names is no pool");
  if (!pool) return link;
  for (size_t i = 0; i < r->pool_count; i++) /* by its link and by its own path, perhaps */
    if (r->pools[i].inode == (uint64_t)st.st_ino && r->pools[i].device == (uint64_t)st.st_dev) return true;
  r->pools[r->pool_count].inode = (uint64_t)st.st_ino;
  r->pools[r->pool_count++].device = (uint64_t)st.st_dev;
#ifdef OJO__IMAGE
  snprintf(why, sizeof why, "the pool can't be read");
  fd = ojo__pool_image(link ? name : path, why, sizeof why);
#else
  snprintf(why, sizeof why, "a program that is compiled with OJO_DISABLE reads files, not pools");
#endif
  if (fd < 0) ojo__r_note_error(r, path, 0, OJO_ERR_FORMAT, why, true);
  else ojo__r_add_fd(r, path, fd, false, true);
  r->pools[r->pool_count - 1].read = fd >= 0;
  return true;
}
/* False: no memory. */
static bool ojo__r_add_path(ojo_reader *r, const char *path) {
  if (strcmp(path, "-") == 0) {
    int fd = dup(STDIN_FILENO);
    if (fd < 0) ojo__r_error(r, "-", 0, OJO_ERR_IO, "standard input is closed");
    else ojo__r_add_fd(r, "-", fd, false, true);
    return true;
  }
  if (ojo__r_is_directory(path)) {
    struct ojo__r_directory *d = &r->directories[r->directory_count];
    for (size_t i = 0; i < r->directory_count; i++)
      if (ojo__r_same_directory(path, r->directories[i].path)) return true;
    if (!(d->path = ojo__r_copy_text(r, path))) return false;
    ojo__r_list(r, (uint32_t)r->directory_count++);
    return true;
  }
  if (ojo__r_add_pool(r, path)) return true;
  int fd = open(path, O_RDONLY | O_CLOEXEC);
  if (fd < 0)
    ojo__r_error(r, path, 0, ojo__r_errno_result(),
                 errno == ENOENT ? "no such file or directory" : "can't be opened");
  else ojo__r_add_fd(r, path, fd, false, false);
  return true;
}

/* ---- >>runs ------------------------------------------------------------------------------------ */

/* A RUN that may be one: what a search for the next sound place demands. */
static bool ojo__r_plausible(const unsigned char *p, uint64_t room_bytes) {
  ojo_event slot;
  ojo_run run;
  if (room_bytes < OJO__R_RUN_BYTES) return false;
  memcpy(&slot, p, sizeof slot);
  if (slot.type != OJO__R_RUN_TYPE) return false;
  memcpy(&run, p + OJO_SLOT_BYTES, sizeof run);
  return slot.payload <= (room_bytes - OJO__R_RUN_BYTES) / OJO_SLOT_BYTES && run.last_ts >= slot.ts &&
         run.flags < 8 && run.zero == 0 && run.events <= slot.payload;
}
static uint32_t ojo__r_type_at(const unsigned char *p) {
  uint32_t type;
  __builtin_memcpy(&type, p + 8, sizeof type);
  return type;
}
/* The offset of the next plausible RUN at or after `at`, before `stop`; 0: none. */
static uint64_t ojo__r_find_run(const struct ojo__r_map *map, uint64_t at, uint64_t stop, uint64_t end) {
  for (; at < stop && end - at >= OJO__R_RUN_BYTES && at < ojo__r_sound(map); at += OJO_SLOT_BYTES)
    if (ojo__r_type_at(map->base + at) == OJO__R_RUN_TYPE && ojo__r_plausible(map->base + at, end - at))
      return at;
  return 0;
}
static uint64_t ojo__r_slots_end(const struct ojo__r_file *f, const struct ojo__r_map *map) {
  uint64_t room = (map->bytes - f->header_bytes) / OJO_SLOT_BYTES;
  return f->header_bytes + (f->slot_count < room ? f->slot_count : room) * OJO_SLOT_BYTES;
}
static bool ojo__r_shrank(ojo_reader *r, const struct ojo__r_file *f, uint64_t at) {
  ojo__r_error(r, f->path, at, OJO_ERR_FORMAT, "the file shrank while it was read");
  return false;
}
/* A RUN whose length leads to something else than a RUN is not believed: it is cut at the next plausible
 * one within its length, so that a flipped bit costs one run, not the rest of the file. */
static void ojo__r_check_length(ojo_reader *r, const struct ojo__r_file *f, const struct ojo__r_map *map,
                                uint64_t end, struct ojo__r_run *run) {
  uint64_t room = (end - run->slots_at) / OJO_SLOT_BYTES;
  run->cut = run->slot.payload > room;
  run->slot_count = run->cut ? room : run->slot.payload;
  run->next = run->slots_at + run->slot_count * OJO_SLOT_BYTES;
  if (!run->cut && run->next == end) return;
  if (!run->cut && ojo__r_type_at(map->base + run->next) == OJO__R_RUN_TYPE) return;
  uint64_t found = ojo__r_find_run(map, run->slots_at, run->next, end);
  if (found) {
    run->next = found;
    run->slot_count = (found - run->slots_at) / OJO_SLOT_BYTES;
    ojo__r_error(r, f->path, run->at, OJO_ERR_FORMAT, "a run's length is wrong: cut at the next run");
  } else if (run->cut) {
    ojo__r_error(r, f->path, end, OJO_ERR_FORMAT, "the file ends within a run");
  }
  run->cut = run->cut || found;
}
/* The run at `at`, or the next sound one after it. False: there is none. */
static bool ojo__r_walk(ojo_reader *r, const struct ojo__r_file *f, const struct ojo__r_map *map,
                        uint64_t end, uint64_t at, struct ojo__r_run *run) {
  if (at >= end) return false;
  if (ojo__r_sound(map) < at + OJO__R_RUN_BYTES && ojo__r_sound(map) < map->bytes)
    return ojo__r_shrank(r, f, at);
  if (end - at < OJO__R_RUN_BYTES || ojo__r_type_at(map->base + at) != OJO__R_RUN_TYPE) {
    uint64_t found = ojo__r_find_run(map, at, end, end);
    if (ojo__r_sound(map) < map->bytes) return ojo__r_shrank(r, f, at);
    ojo__r_error(r, f->path, at, OJO_ERR_FORMAT,
                 found ? "slots outside of any run: skipped up to the next run"
                       : "slots outside of any run: the rest of the file is skipped");
    if (!found) return false;
    at = found;
  }
  memcpy(&run->slot, map->base + at, sizeof run->slot);
  memcpy(&run->run, map->base + at + OJO_SLOT_BYTES, sizeof run->run);
  if (ojo__r_sound(map) < at + OJO__R_RUN_BYTES) return ojo__r_shrank(r, f, at);
  run->at = at;
  run->slots_at = at + OJO__R_RUN_BYTES;
  ojo__r_check_length(r, f, map, end, run);
  if (run->run.last_ts < run->slot.ts) {
    ojo__r_error(r, f->path, at, OJO_ERR_FORMAT, "a run that ends before it begins");
    run->run.last_ts = UINT64_MAX;
  }
  return true;
}
static bool ojo__r_run_intact(ojo_reader *r, const struct ojo__r_file *f, const struct ojo__r_map *map,
                              const struct ojo__r_run *run) {
  if (!(f->flags & OJO_FILE_CHECKSUMS) || run->run.crc == 0 || run->cut) return true;
  if (ojo__crc32c(0, map->base + run->slots_at, (size_t)run->slot_count * OJO_SLOT_BYTES) == run->run.crc)
    return true;
  ojo__r_error(r, f->path, run->at, OJO_ERR_FORMAT, "a run's checksum is wrong: the run is left out");
  return false;
}
static uint64_t ojo__r_base(const ojo_reader *r, const struct ojo__r_file *f) {
  return f->version == 1 ? f->start_unix_ns : r->traces[f->trace]->base;
}
static bool ojo__r_thread_wanted(const ojo_reader *r, uint32_t thread) {
  for (size_t i = 0; i < r->thread_count; i++)
    if (r->threads[i] == thread) return true;
  return r->thread_count == 0;
}
static bool ojo__r_run_wanted(const ojo_reader *r, const struct ojo__r_file *f,
                              const struct ojo__r_run *run) {
  uint64_t base = ojo__r_base(r, f);
  if (run->slot_count == 0) return false;
  if (r->until_ns && ojo__r_add(base, run->slot.ts) >= r->until_ns) return false;
  if (r->since_ns && ojo__r_add(base, run->run.last_ts) < r->since_ns) return false;
  return ojo__r_thread_wanted(r, run->slot.flow);
}

/* Bytes of the event at p: 24 times its slots. 0: damage. A file may change under us, so that this is
 * asked of each event whenever it is looked at. */
static inline uint32_t ojo__r_event_bytes(const unsigned char *p, const unsigned char *end,
                                          uint32_t type) {
  uint32_t bytes = ((type >> OJO_EXTENSION_SHIFT) + 1) * OJO_SLOT_BYTES;
  if ((size_t)(end - p) < bytes || (type & OJO_TYPE_MASK) == OJO_RUN) return 0;
  if (type == 0 && (ojo__r_load64(p) | ojo__r_load64(p + 8) | ojo__r_load64(p + 16)) == 0)
    return 0; /* no event */
  return bytes > OJO_SLOT_BYTES && (type & OJO_SIZED) ? 0 : bytes;
}

static const char *ojo__r_damage(uint32_t type) { /* why ojo__r_event_bytes said 0 */
  return type == 0 ? "zeros: never written, or the file shrank; the rest of the run is left out"
         : (type & OJO_TYPE_MASK) == OJO_RUN ? "a RUN within a run: the rest of the run is left out"
         : (type & OJO_SIZED) && type >> OJO_EXTENSION_SHIFT
             ? "a SIZED event with an extension: the rest of the run is left out"
             : "an extension that reaches beyond its run: the event is left out";
}

/* ---- >>threads --------------------------------------------------------------------------------- */

static uint64_t ojo__r_thread_name(const ojo_reader *r, uint32_t trace, uint32_t thread) {
  return ojo__r_salted(r, (uint64_t)trace << 32 | thread);
}
static uint64_t ojo__r_thread_hash(const ojo_reader *r, uint32_t index) {
  return ojo__r_thread_name(r, r->thread_table[index].trace, r->thread_table[index].thread);
}
/* NULL: unknown, or no room for one more. */
static struct ojo__r_thread *ojo__r_thread_of(ojo_reader *r, uint32_t trace, uint32_t thread, bool make) {
  if (make && !ojo__r_hash_room(r, &r->thread_hash, &r->thread_hash_size, r->thread_table_count,
                                ojo__r_thread_hash))
    return NULL;
  if (!r->thread_hash) return NULL;
  size_t slot = (size_t)ojo__r_thread_name(r, trace, thread) & (r->thread_hash_size - 1);
  for (; r->thread_hash[slot]; slot = (slot + 1) & (r->thread_hash_size - 1)) {
    struct ojo__r_thread *known = &r->thread_table[r->thread_hash[slot] - 1];
    if (known->trace == trace && known->thread == thread) return known;
  }
  if (!make || r->thread_table_count >= OJO__R_THREADS_MAX) return NULL;
  void *table = ojo__r_grown(r, r->thread_table, &r->thread_capacity, r->thread_table_count + 1,
                             sizeof *r->thread_table);
  if (!table) return NULL;
  r->thread_table = (struct ojo__r_thread *)table;
  struct ojo__r_thread *fresh = &r->thread_table[r->thread_table_count++];
  fresh->trace = trace;
  fresh->thread = thread;
  r->thread_hash[slot] = r->thread_table_count;
  return fresh;
}
static void ojo__r_learn_thread(ojo_reader *r, uint32_t trace, uint32_t thread, const unsigned char *p,
                                size_t room) {
  struct ojo__r_thread *t = ojo__r_thread_of(r, trace, thread, true);
  if (!t || room < 2 * OJO_SLOT_BYTES) return;
  t->tid = (uint32_t)ojo__r_load64(p + 16);
  memcpy(t->name, p + OJO_SLOT_BYTES, 16);
}

/* ---- >>snapshots ------------------------------------------------------------------------------- */

/* A snapshot of a flight recorder leaves the pool as it is, so that several of one trace, and what was recovered
 * of it after a crash, hold the same events and tell of the same losses. Where such files are read together,
 * each event and each loss is given once, by these rules, for each (trace, thread, level):
 *
 * - The events of a run have the ordinals from first_ordinal on, one after the other; counted are the events
 *   that are there, not those that RUN claims. An ordinal is given by the run that begins first; of those
 *   that begin alike, by the longest, then by the file that comes first. Other runs are left out as far as
 *   they are covered: wholly, or they are entered behind what is covered.
 * - What is left out was compared: type, flow, payload and extension must be equal, and the times 10 ms
 *   apart at most (ticks are interpolated between anchors, which are thinned in a long trace). A run with one
 *   event that differs contradicts the others: that is an error, all of its events are given, and it
 *   covers nothing. So nothing is left out that is not given elsewhere.
 * - Each file tells of all losses since the trace's start. So the counts of its EVENTS_DROPPED, but those with
 *   OVERWRITTEN, number the losses, in the order of the ordinals: a row of `count` behind others of `sum` is of
 *   the losses [sum, sum + count). In the order of these numbers, each tells of those that were not told
 *   before. (lost_before is not asked: it counts what its file has not, overwritten ones too.)
 * - ordinal - sum of losses so far numbers the recorded events without gaps. OVERWRITTEN in front of a run says that
 *   `count` of the first_ordinal - sum events that were recorded before it are not in its file. In the order of
 *   these numbers, each tells of what is missing below its run: the number, less the events below it
 *   that any file gives, less what was told before; but at most its count.
 * - Thread 0 tells sums since the trace's start, one for each reason: each tells of what was not told before. Its
 *   OVERWRITTEN and POOL_FULL are of threads that had ended: less what is known of the threads that are in
 *   other files, but no longer in this one (events given and told as overwritten; losses told).
 * - A count that the ordinal behind it denies (more than were recorded, or tried) is an error, and told as it is.
 * - What is told in part begins no earlier than the last event before it, or the end of what was told before.
 * - EVENTS_DROPPED with KERNEL_RING was recorded as events are: it has an ordinal, and counts as one.
 *
 * A file that comes later (follow) gets what was not given by then; the losses are exact if files come in the order
 * in which they were taken.
 *
 * So a plan is made when such files are there: a survey reads each of their runs once; from it come the
 * pieces, which are what the merge takes from these files instead of runs. Files that can't overlap have no part
 * in this, and cost nothing. */

struct ojo__r_walker { /* over the events of a run, without THREAD and the losses that were told to it */
  const unsigned char *p, *end;
  uint64_t ordinal; /* of the event at p, once ojo__r_walker_event has found it */
};
static bool ojo__r_is_row(const unsigned char *p, uint32_t type, uint32_t bytes) {
  uint32_t reason = 0;
  if ((type & OJO_TYPE_MASK) != OJO_EVENTS_DROPPED) return false;
  if (bytes > OJO_SLOT_BYTES) memcpy(&reason, p + OJO_SLOT_BYTES + offsetof(ojo_dropped, reason), sizeof reason);
  return reason != OJO_DROP_KERNEL_RING;
}
/* Bytes of the next event, which is at w->p then; 0: there is none. */
static uint32_t ojo__r_walker_event(struct ojo__r_walker *w) {
  while (w->p < w->end) {
    uint32_t type = ojo__r_type_at(w->p), bytes = ojo__r_event_bytes(w->p, w->end, type);
    if (bytes == 0) return 0;
    if ((type & OJO_TYPE_MASK) != OJO_THREAD && !ojo__r_is_row(w->p, type, bytes)) return bytes;
    w->p += bytes;
  }
  return 0;
}
static bool ojo__r_walk_to(struct ojo__r_walker *w, uint64_t ordinal) {
  while (w->ordinal < ordinal) {
    uint32_t bytes = ojo__r_walker_event(w);
    if (bytes == 0) return false;
    w->p += bytes;
    w->ordinal++;
  }
  return true;
}
static bool ojo__r_same_event(const unsigned char *p, const unsigned char *q, uint32_t bytes) {
  uint64_t a = ojo__r_load64(p), b = ojo__r_load64(q);
  return (a > b ? a - b : b - a) <= OJO__R_SAME_NS && memcmp(p + 8, q + 8, bytes - 8) == 0;
}

static int ojo__r_order(uint64_t a, uint64_t b) { return a < b ? -1 : a > b; }
static int ojo__r_compare_lines(uint32_t trace, uint32_t thread, uint16_t level, uint32_t trace2, uint32_t thread2,
                                uint16_t level2) {
  return trace != trace2     ? ojo__r_order(trace, trace2)
         : thread != thread2 ? ojo__r_order(thread, thread2)
                             : ojo__r_order(level, level2);
}
static int ojo__r_compare_spans(const void *a, const void *b) {
  const struct ojo__r_span *x = (const struct ojo__r_span *)a, *y = (const struct ojo__r_span *)b;
  int order = ojo__r_compare_lines(x->trace, x->thread, x->level, y->trace, y->thread, y->level);
  if (order) return order;
  if (x->ordinal != y->ordinal) return ojo__r_order(x->ordinal, y->ordinal);
  if (x->events != y->events) return ojo__r_order(y->events, x->events); /* the longest first */
  if (x->file != y->file) return ojo__r_order(x->file->sequence, y->file->sequence);
  return ojo__r_order(x->run_at, y->run_at);
}
static bool ojo__r_overwritten(const struct ojo__r_row *row) { return row->reason == OJO_DROP_OVERWRITTEN; }
static int ojo__r_compare_rows(const void *a, const void *b) {
  const struct ojo__r_row *x = (const struct ojo__r_row *)a, *y = (const struct ojo__r_row *)b;
  int order = ojo__r_compare_lines(x->trace, x->thread, x->level, y->trace, y->thread, y->level);
  if (order) return order;
  if (x->thread == 0 && x->reason != y->reason) return ojo__r_order(x->reason, y->reason);
  if (ojo__r_overwritten(x) != ojo__r_overwritten(y)) return ojo__r_overwritten(x) ? -1 : 1;
  if (x->place != y->place) return ojo__r_order(x->place, y->place);
  if (x->fixed != y->fixed) return x->fixed ? -1 : 1;
  if (x->count != y->count) return ojo__r_order(x->count, y->count);
  if (x->file != y->file) return ojo__r_order(x->file->sequence, y->file->sequence);
  return ojo__r_order(x->from, y->from);
}
static int ojo__r_compare_mentions(const void *a, const void *b) {
  const struct ojo__r_mention *x = (const struct ojo__r_mention *)a, *y = (const struct ojo__r_mention *)b;
  int order = ojo__r_compare_lines(x->trace, x->thread, 0, y->trace, y->thread, 0);
  return order ? order : ojo__r_order(x->file->sequence, y->file->sequence);
}

static bool ojo__r_add_row(ojo_reader *r, struct ojo__r_file *f, const struct ojo__r_span *span,
                           const unsigned char *p, uint32_t bytes, uint64_t ordinal) {
  void *rows = r->row_count < OJO__R_SPANS_MAX
                   ? ojo__r_grown(r, r->rows, &r->row_capacity, r->row_count + 1, sizeof *r->rows)
                   : NULL;
  if (!rows) return false;
  r->rows = (struct ojo__r_row *)rows;
  struct ojo__r_row *row = &r->rows[r->row_count++];
  memset(row, 0, sizeof *row);
  row->slots = bytes > OJO_SLOT_BYTES ? 2 : 1; /* of a longer extension the rest has no meaning */
  memcpy(row->slot, p, row->slots * OJO_SLOT_BYTES);
  uint32_t raw = row->slot[0].type;
  row->count = row->slot[0].payload;
  if (raw & OJO_SIZED) row->count &= (UINT64_C(1) << OJO_SIZED_VALUE_BITS) - 1;
  row->slot[0].type = OJO_EVENTS_DROPPED | (row->slots - 1) << OJO_EXTENSION_SHIFT;
  if (row->slots == 2)
    memcpy(&row->reason, p + OJO_SLOT_BYTES + offsetof(ojo_dropped, reason), sizeof row->reason);
  row->file = f;
  row->from = (uint64_t)(p - f->look.base);
  row->ordinal = ordinal;
  row->lost_before = span->lost_before;
  row->trace = span->trace;
  row->thread = span->thread;
  row->tid = span->tid;
  row->level = span->level;
  row->flags = span->flags;
  return true;
}
/* Reads a run: what is in it goes to spans, rows and mentions. False: no room. */
static bool ojo__r_survey_run(ojo_reader *r, struct ojo__r_file *f, const struct ojo__r_run *run) {
  struct ojo__r_span span;
  const unsigned char *p = f->look.base + run->slots_at, *end = p + run->slot_count * OJO_SLOT_BYTES;
  bool row_since = false;
  memset(&span, 0, sizeof span);
  span.file = f;
  span.run_at = run->at;
  span.ordinal = run->run.first_ordinal;
  span.lost_before = run->run.lost_before;
  span.trace = f->trace;
  span.thread = run->slot.flow;
  span.tid = run->run.tid;
  span.level = run->run.level;
  span.flags = run->run.flags;
  span.first_ts = UINT64_MAX;
  while (p < end) {
    uint64_t ts = ojo__r_load64(p);
    uint32_t type = ojo__r_type_at(p), bytes = ojo__r_event_bytes(p, end, type);
    if (bytes == 0 || p + bytes > ojo__r_gone(&f->look)) {
      ojo__r_error(r, f->path, (uint64_t)(p - f->look.base), OJO_ERR_FORMAT,
                   bytes ? "the file shrank while it was read" : ojo__r_damage(type));
      break;
    }
    if ((type & OJO_TYPE_MASK) == OJO_THREAD) {
      ojo__r_learn_thread(r, f->trace, span.thread, p, bytes);
    } else if (OJO__UNLIKELY((type & OJO_TYPE_MASK) == OJO_EVENTS_DROPPED) && ojo__r_is_row(p, type, bytes)) {
      if (!ojo__r_add_row(r, f, &span, p, bytes, ojo__r_add(span.ordinal, span.events))) return false;
      row_since = true;
    } else {
      if (span.events == 0) span.from = (uint64_t)(p - f->look.base);
      else span.divided = span.divided || row_since;
      row_since = false;
      if (ts < span.first_ts) span.first_ts = ts;
      if (ts > span.last_ts) span.last_ts = ts;
      span.events++;
      span.to = (uint64_t)(p - f->look.base) + bytes;
    }
    p += bytes;
  }
  struct ojo__r_thread *t = ojo__r_thread_of(r, f->trace, span.thread, true);
  if (t && t->tid == 0) t->tid = span.tid;
  if (span.thread) { /* mentions of one thread follow each other: most are left out here */
    struct ojo__r_mention *last = r->mention_count ? &r->mentions[r->mention_count - 1] : NULL;
    if (!last || last->file != f || last->thread != span.thread) {
      void *mentions = r->mention_count < OJO__R_SPANS_MAX
                           ? ojo__r_grown(r, r->mentions, &r->mention_capacity, r->mention_count + 1, sizeof *last)
                           : NULL;
      if (!mentions) return false;
      r->mentions = (struct ojo__r_mention *)mentions;
      last = &r->mentions[r->mention_count++];
      last->file = f;
      last->trace = span.trace;
      last->thread = span.thread;
    }
  }
  if (span.events == 0) return true;
  void *spans = r->span_count + r->owner_count < OJO__R_SPANS_MAX
                    ? ojo__r_grown(r, r->spans, &r->span_capacity, r->span_count + 1, sizeof span)
                    : NULL;
  if (!spans) return false;
  r->spans = (struct ojo__r_span *)spans;
  r->spans[r->span_count++] = span;
  return true;
}
static void ojo__r_survey_file(ojo_reader *r, struct ojo__r_file *f) {
  struct ojo__r_run run;
  size_t spans = r->span_count, rows = r->row_count, mentions = r->mention_count;
  bool room = true;
  if (f->slot_count && !ojo__r_map_file(r, f, &f->look)) {
    f->planned = f->surveyed = true; /* and gives nothing: that it can't be read was said */
    return;
  }
  uint64_t end = f->slot_count ? ojo__r_slots_end(f, &f->look) : 0;
  for (uint64_t at = f->header_bytes; room && f->slot_count && ojo__r_walk(r, f, &f->look, end, at, &run);
       at = run.next) {
    if (ojo__r_run_intact(r, f, &f->look, &run)) room = ojo__r_survey_run(r, f, &run);
    ojo__r_release(&f->look, run.at, run.next);
  }
  if (room) {
    f->planned = f->surveyed = true;
    return;
  }
  r->span_count = spans;
  r->row_count = rows;
  r->mention_count = mentions;
  f->unplanned = true;
  ojo__r_unmap(&f->look);
  ojo__r_error(r, f->path, 0, OJO_ERR_MEMORY,
               "no room to compare one more snapshot (524,288 runs at most): its events may be given twice");
}

static int ojo__r_compare_rows_in_file(const void *a, const void *b) {
  const struct ojo__r_row *x = (const struct ojo__r_row *)a, *y = (const struct ojo__r_row *)b;
  int order = ojo__r_compare_lines(x->trace, x->thread, x->level, y->trace, y->thread, y->level);
  if (order) return order;
  if (x->file != y->file) return ojo__r_order(x->file->sequence, y->file->sequence);
  return x->ordinal != y->ordinal ? ojo__r_order(x->ordinal, y->ordinal) : ojo__r_order(x->from, y->from);
}
static int ojo__r_compare_spans_in_file(const void *a, const void *b) {
  const struct ojo__r_span *x = (const struct ojo__r_span *)a, *y = (const struct ojo__r_span *)b;
  int order = ojo__r_compare_lines(x->trace, x->thread, x->level, y->trace, y->thread, y->level);
  if (order) return order;
  return x->file != y->file ? ojo__r_order(x->file->sequence, y->file->sequence) : ojo__r_order(x->ordinal, y->ordinal);
}
/* The places of the new rows, from number `fixed` on, and the losses before the new runs: line by line, file by
 * file, in the order of the ordinals. */
static void ojo__r_place_rows(ojo_reader *r, size_t fixed) {
  struct ojo__r_row *rows = fixed ? r->rows + fixed : r->rows; /* there may be none */
  size_t count = r->row_count - fixed, s = 0;
  if (r->span_count > 1) qsort(r->spans, r->span_count, sizeof *r->spans, ojo__r_compare_spans_in_file);
  if (count > 1) qsort(rows, count, sizeof *rows, ojo__r_compare_rows_in_file);
  uint64_t losses = 0;
  for (size_t i = 0; i < count;) {
    size_t end = i;
    bool wrong = false;
    if (i == 0 || rows[i].file != rows[i - 1].file ||
        ojo__r_compare_lines(rows[i].trace, rows[i].thread, rows[i].level, rows[i - 1].trace, rows[i - 1].thread,
                             rows[i - 1].level) != 0)
      losses = 0;
    for (; end < count && rows[end].file == rows[i].file && rows[end].ordinal == rows[i].ordinal &&
           ojo__r_compare_lines(rows[i].trace, rows[i].thread, rows[i].level, rows[end].trace, rows[end].thread,
                                rows[end].level) == 0;
         end++) {
      struct ojo__r_row *row = &rows[end];
      row->place = row->thread ? losses : row->count; /* thread 0 tells sums */
      if (row->thread == 0 || ojo__r_overwritten(row)) continue;
      row->wrong = row->count > row->ordinal || losses > row->ordinal - row->count;
      wrong = wrong || row->wrong;
      if (!row->wrong) losses += row->count;
    }
    for (size_t k = i; k < end; k++) {
      struct ojo__r_row *row = &rows[k];
      if (row->thread == 0 || !ojo__r_overwritten(row)) continue;
      row->place = row->ordinal > losses ? row->ordinal - losses : 0;
      row->wrong = row->count > row->place;
      wrong = wrong || row->wrong;
    }
    if (wrong)
      ojo__r_error(r, rows[i].file->path, rows[i].from, OJO_ERR_FORMAT,
                   "a count of losses contradicts the ordinals: told as it is");
    for (; s < r->span_count; s++) { /* up to the next row of this line and file */
      struct ojo__r_span *span = &r->spans[s];
      int order = ojo__r_compare_lines(span->trace, span->thread, span->level, rows[i].trace, rows[i].thread,
                                       rows[i].level);
      if (order == 0 && span->file != rows[i].file)
        order = ojo__r_order(span->file->sequence, rows[i].file->sequence);
      if (order > 0) break;
      bool next = end < count && rows[end].file == span->file && span->ordinal >= rows[end].ordinal &&
                  ojo__r_compare_lines(span->trace, span->thread, span->level, rows[end].trace, rows[end].thread,
                                       rows[end].level) == 0;
      if (order == 0 && next) break;
      if (order == 0 && span->ordinal >= rows[i].ordinal) span->lost = losses;
    }
    i = end;
  }
}

static struct ojo__r_piece *ojo__r_add_piece(ojo_reader *r, struct ojo__r_file *f) {
  void *pieces = f->unplanned ? NULL
                              : ojo__r_grown(r, f->pieces, &f->piece_capacity, f->piece_count + 1u,
                                             sizeof *f->pieces);
  if (!pieces) {
    if (!f->unplanned)
      ojo__r_error(r, f->path, 0, OJO_ERR_MEMORY,
                   "no memory to compare one more snapshot: its events may be given twice");
    f->unplanned = true; /* all of it then, as any other file */
    return NULL;
  }
  f->pieces = (struct ojo__r_piece *)pieces;
  struct ojo__r_piece *piece = &f->pieces[f->piece_count++];
  memset(piece, 0, sizeof *piece);
  return piece;
}
/* Gives the events of s below ordinal `end`, from the one where w stands, and moves w there. */
static void ojo__r_give(ojo_reader *r, const struct ojo__r_span *s, struct ojo__r_walker *w, uint64_t end) {
  const unsigned char *base = s->file->look.base;
  uint32_t bytes;
  if (w->ordinal == s->ordinal && end == s->ordinal + s->events && !s->divided) { /* all of it: no need to walk */
    struct ojo__r_piece *piece = ojo__r_add_piece(r, s->file);
    if (!piece) return;
    piece->from = s->from;
    piece->to = s->to;
    piece->ordinal = s->ordinal;
    piece->lost_before = s->lost_before;
    piece->first_ts = s->first_ts;
    piece->last_ts = s->last_ts;
    piece->events = (uint32_t)s->events;
    piece->thread = s->thread;
    piece->tid = s->tid;
    piece->level = s->level;
    piece->flags = s->flags;
    w->p = base + s->to;
    w->ordinal = end;
    return;
  }
  struct ojo__r_piece *piece = NULL;
  const unsigned char *before = NULL;
  while (w->ordinal < end && (bytes = ojo__r_walker_event(w)) != 0) {
    uint64_t ts = ojo__r_load64(w->p);
    if (!piece || w->p != before) { /* a row lies between, or THREAD */
      if (!(piece = ojo__r_add_piece(r, s->file))) return;
      piece->from = (uint64_t)(w->p - base);
      piece->ordinal = w->ordinal;
      piece->lost_before = s->lost_before;
      piece->first_ts = UINT64_MAX;
      piece->thread = s->thread;
      piece->tid = s->tid;
      piece->level = s->level;
      piece->flags = s->flags;
    }
    if (ts < piece->first_ts) piece->first_ts = ts;
    if (ts > piece->last_ts) piece->last_ts = ts;
    piece->events++;
    w->p += bytes;
    w->ordinal++;
    before = w->p;
    piece->to = (uint64_t)(w->p - base);
  }
}

/* Whether the events that s and the owner both have are the same. Comparisons with an owner come in the order of
 * their beginnings, and those of one run in the order of its owners: the places in both only move on, and
 * the work is linear in what is there. */
static bool ojo__r_agree(struct ojo__r_span *owner, const struct ojo__r_span *s, struct ojo__r_walker *b) {
  uint64_t from = owner->ordinal > s->ordinal ? owner->ordinal : s->ordinal, to = owner->ordinal + owner->events;
  const struct ojo__r_map *map = &owner->file->look;
  struct ojo__r_walker a;
  if (s->ordinal + s->events < to) to = s->ordinal + s->events;
  if (!map->base || owner->to > map->bytes) return true; /* gone since it was given (follow): its word is taken */
  if (owner->walk_at == 0) {
    owner->walk_at = owner->from;
    owner->walk_ordinal = owner->ordinal;
  }
  a.p = map->base + owner->walk_at;
  a.end = map->base + owner->to;
  a.ordinal = owner->walk_ordinal;
  if (!ojo__r_walk_to(&a, from) || !ojo__r_walk_to(b, from)) return false;
  owner->walk_at = (uint64_t)(a.p - map->base);
  owner->walk_ordinal = from;
  for (; b->ordinal < to; b->ordinal++) {
    uint32_t bytes = ojo__r_walker_event(&a), other = ojo__r_walker_event(b);
    if (bytes == 0 || bytes != other || !ojo__r_same_event(a.p, b->p, bytes)) return false;
    a.p += bytes;
    b->p += bytes;
  }
  return true;
}
/* Makes [w->ordinal, end) of s an owner's, and gives it. */
static bool ojo__r_own(ojo_reader *r, const struct ojo__r_span *s, struct ojo__r_walker *w, uint64_t end) {
  void *owners = ojo__r_grown(r, r->owners, &r->owner_capacity, r->owner_count + 1, sizeof *r->owners);
  if (!owners) return false;
  r->owners = (struct ojo__r_span *)owners;
  struct ojo__r_span *owner = &r->owners[r->owner_count++];
  *owner = *s;
  owner->lost = s->lost < s->ordinal ? s->lost : s->ordinal;
  ojo__r_walker_event(w);
  owner->from = (uint64_t)(w->p - s->file->look.base);
  owner->ordinal = w->ordinal;
  owner->events = end - w->ordinal;
  ojo__r_give(r, s, w, end);
  r->owners[r->owner_count - 1].to = (uint64_t)(w->p - s->file->look.base);
  return true;
}
struct ojo__r_sweep { /* over one line (trace, thread, level); indices of owners */
  size_t fixed, fixed_end; /* of earlier plans, from the first one that may matter */
  size_t fresh;            /* of this one: up to owner_count */
  uint64_t covered;        /* by fresh ones: nothing that comes begins before its beginning */
};
static void ojo__r_place_span(ojo_reader *r, const struct ojo__r_span *s, struct ojo__r_sweep *sweep) {
  uint64_t end = s->ordinal + s->events;
  struct ojo__r_walker w, compared;
  bool agree = end >= s->ordinal;
  w.p = s->file->look.base + s->from;
  w.end = s->file->look.base + s->to;
  w.ordinal = s->ordinal;
  while (sweep->fixed < sweep->fixed_end &&
         r->owners[sweep->fixed].ordinal + r->owners[sweep->fixed].events <= s->ordinal)
    sweep->fixed++;
  while (sweep->fresh < r->owner_count &&
         r->owners[sweep->fresh].ordinal + r->owners[sweep->fresh].events <= s->ordinal)
    sweep->fresh++;
  compared = w;
  for (size_t i = sweep->fixed; agree && i < sweep->fixed_end && r->owners[i].ordinal < end; i++)
    agree = ojo__r_agree(&r->owners[i], s, &compared);
  compared = w;
  for (size_t i = sweep->fresh; agree && i < r->owner_count && r->owners[i].ordinal < end; i++)
    agree = ojo__r_agree(&r->owners[i], s, &compared);
  if (!agree) {
    ojo__r_error(r, s->file->path, s->run_at, OJO_ERR_FORMAT,
                 "a run's ordinals contradict another file or run of its trace: all of its events are given");
    struct ojo__r_span all = *s;
    if (end < s->ordinal) all.ordinal = w.ordinal = 0; /* beyond 64 bits */
    ojo__r_give(r, &all, &w, all.ordinal + all.events);
    return;
  }
  uint64_t at = sweep->covered > s->ordinal ? sweep->covered : s->ordinal;
  bool room = true;
  for (size_t i = sweep->fixed; room && i < sweep->fixed_end && at < end; i++) {
    uint64_t from = r->owners[i].ordinal, to = from + r->owners[i].events;
    if (from > at && ojo__r_walk_to(&w, at)) room = ojo__r_own(r, s, &w, from < end ? from : end);
    if (to > at) at = to;
  }
  if (room && at < end && ojo__r_walk_to(&w, at)) room = ojo__r_own(r, s, &w, end);
  if (sweep->covered < end) sweep->covered = end;
  if (room) return;
  ojo__r_error(r, s->file->path, s->run_at, OJO_ERR_MEMORY,
               "no memory to compare one more snapshot: its events may be given twice");
  s->file->unplanned = true;
}
static bool ojo__r_same_line(const struct ojo__r_span *a, const struct ojo__r_span *b) {
  return a->trace == b->trace && a->thread == b->thread && a->level == b->level;
}
static void ojo__r_place_spans(ojo_reader *r) {
  size_t old = r->owner_count, at = 0;
  if (r->span_count > 1) qsort(r->spans, r->span_count, sizeof *r->spans, ojo__r_compare_spans);
  for (size_t i = 0; i < r->span_count;) {
    const struct ojo__r_span *s = &r->spans[i];
    struct ojo__r_sweep sweep;
    while (at < old && ojo__r_compare_lines(r->owners[at].trace, r->owners[at].thread, r->owners[at].level, s->trace,
                                            s->thread, s->level) < 0)
      at++;
    sweep.fixed = sweep.fixed_end = at;
    while (sweep.fixed_end < old && ojo__r_same_line(&r->owners[sweep.fixed_end], s)) sweep.fixed_end++;
    sweep.fresh = r->owner_count;
    sweep.covered = 0;
    for (size_t line = i; i < r->span_count && ojo__r_same_line(&r->spans[i], &r->spans[line]); i++)
      ojo__r_place_span(r, &r->spans[i], &sweep);
  }
  if (r->owner_count > 1) qsort(r->owners, r->owner_count, sizeof *r->owners, ojo__r_compare_spans);
  for (size_t i = 0; i < r->owner_count; i++) r->owners[i].walk_at = 0;
}

/* What is told of a row, from `first_ts` on at the earliest. */
static void ojo__r_tell(struct ojo__r_row *row, uint64_t told, uint64_t first_ts) {
  row->told = told;
  row->slot[0].payload = told;
  if (row->slots < 2) return;
  ojo_dropped d;
  memcpy(&d, &row->slot[1], sizeof d);
  if (first_ts > d.last_ts) first_ts = d.last_ts;
  if (first_ts <= d.first_ts || row->slot[0].ts != d.first_ts) return;
  d.first_ts = row->slot[0].ts = first_ts;
  memcpy(&row->slot[1], &d, sizeof d);
}
static uint64_t ojo__r_row_last_ts(const struct ojo__r_row *row) {
  return row->slots < 2 ? row->slot[0].ts : ojo__r_load64((const unsigned char *)&row->slot[1] + 8);
}
/* Rows [i, end) of one line, which is not thread 0's, and its owners [o, owners). What is known of the thread from
 * these goes to *known. */
static void ojo__r_tell_line(ojo_reader *r, size_t i, size_t end, size_t o, size_t owners, struct ojo__r_known *known) {
  uint64_t below = 0, told = 0, told_to = 0, last_ts = 0, place = 0;
  for (size_t k = o; k < owners; k++) known->recorded += r->owners[k].events;
  for (; i < end && ojo__r_overwritten(&r->rows[i]); i++) {
    struct ojo__r_row *row = &r->rows[i];
    uint64_t partly = 0;
    for (; o < owners; o++) { /* numbers of recorded events: [from, from + events) */
      const struct ojo__r_span *s = &r->owners[o];
      uint64_t from = s->ordinal - s->lost;
      if (from >= row->place) break;
      if (from + s->events > row->place) {
        partly = row->place - from;
        break;
      }
      below += s->events;
      place = from + s->events;
      last_ts = s->last_ts;
    }
    uint64_t known_below = ojo__r_add(below + partly, told);
    uint64_t missing = row->place > known_below ? row->place - known_below : 0;
    uint64_t count = row->wrong || row->count < missing ? row->count : missing;
    if (!row->fixed) ojo__r_tell(row, count, count <= row->place - place && !partly ? last_ts : 0);
    told = ojo__r_add(told, row->told);
  }
  known->recorded = ojo__r_add(known->recorded, told);
  for (last_ts = 0; i < end; i++) {
    struct ojo__r_row *row = &r->rows[i];
    uint64_t from = row->place > told_to ? row->place : told_to, to = row->place + row->count;
    if (row->wrong) {
      if (!row->fixed) ojo__r_tell(row, row->count, 0);
      continue;
    }
    if (!row->fixed) ojo__r_tell(row, to > from ? to - from : 0, row->place < told_to ? last_ts : 0);
    if (to > told_to) told_to = to;
    if (ojo__r_row_last_ts(row) > last_ts) last_ts = ojo__r_row_last_ts(row);
    known->lost = ojo__r_add(known->lost, row->told);
  }
}
static size_t ojo__r_known_from(const ojo_reader *r, uint32_t trace, uint32_t thread) {
  size_t low = 0, high = r->known_count;
  while (low < high) {
    size_t middle = low + (high - low) / 2;
    const struct ojo__r_known *k = &r->known[middle];
    if (ojo__r_compare_lines(k->trace, k->thread, 0, trace, thread, 0) < 0) low = middle + 1;
    else high = middle;
  }
  return low;
}
/* Thread 0's rows of one trace and reason: sums, least first. */
static void ojo__r_tell_sums(ojo_reader *r, size_t i, size_t end) {
  uint64_t told = 0, recorded = 0, lost = 0, last_ts = 0;
  uint32_t reason = r->rows[i].reason, trace = r->rows[i].trace;
  bool of_threads = reason == OJO_DROP_OVERWRITTEN || reason == OJO_DROP_POOL_FULL;
  for (size_t k = ojo__r_known_from(r, trace, 0); of_threads && k < r->known_count && r->known[k].trace == trace; k++) {
    recorded = ojo__r_add(recorded, r->known[k].recorded);
    lost = ojo__r_add(lost, r->known[k].lost);
  }
  for (; i < end; i++) {
    struct ojo__r_row *row = &r->rows[i];
    uint64_t ended = reason == OJO_DROP_OVERWRITTEN  ? recorded - row->file->known_recorded
                     : reason == OJO_DROP_POOL_FULL ? lost - row->file->known_lost
                                                    : 0;
    uint64_t before = ojo__r_add(told, ended);
    if (!row->fixed) ojo__r_tell(row, row->count > before ? row->count - before : 0, told ? last_ts : 0);
    told = ojo__r_add(told, row->told);
    last_ts = ojo__r_row_last_ts(row);
  }
}
static void ojo__r_note_known(ojo_reader *r, const struct ojo__r_known *line) {
  struct ojo__r_known *last = r->known_count ? &r->known[r->known_count - 1] : NULL;
  if (!last || last->trace != line->trace || last->thread != line->thread) {
    void *known = ojo__r_grown(r, r->known, &r->known_capacity, r->known_count + 1, sizeof *last);
    if (!known) return; /* thread 0 tells more then than is missing */
    r->known = (struct ojo__r_known *)known;
    last = &r->known[r->known_count++];
    *last = *line;
    return;
  }
  last->recorded = ojo__r_add(last->recorded, line->recorded);
  last->lost = ojo__r_add(last->lost, line->lost);
}
static void ojo__r_tell_rows(ojo_reader *r) {
  size_t i = 0, o = 0;
  if (r->row_count > 1) qsort(r->rows, r->row_count, sizeof *r->rows, ojo__r_compare_rows);
  r->known_count = 0;
  while (i < r->row_count || o < r->owner_count) { /* line by line */
    const struct ojo__r_row *row = i < r->row_count ? &r->rows[i] : NULL;
    const struct ojo__r_span *s = o < r->owner_count ? &r->owners[o] : NULL;
    int order = !row  ? 1
                : !s ? -1
                      : ojo__r_compare_lines(row->trace, row->thread, row->level, s->trace, s->thread, s->level);
    uint32_t trace = order <= 0 ? row->trace : s->trace, thread = order <= 0 ? row->thread : s->thread;
    uint16_t level = order <= 0 ? row->level : s->level;
    size_t rows = i, owners = o;
    while (rows < r->row_count && ojo__r_compare_lines(r->rows[rows].trace, r->rows[rows].thread, r->rows[rows].level,
                                                       trace, thread, level) == 0)
      rows++;
    while (owners < r->owner_count &&
           ojo__r_compare_lines(r->owners[owners].trace, r->owners[owners].thread, r->owners[owners].level, trace,
                                thread, level) == 0)
      owners++;
    struct ojo__r_known known;
    memset(&known, 0, sizeof known);
    known.trace = trace;
    known.thread = thread;
    if (thread) {
      ojo__r_tell_line(r, i, rows, o, owners, &known);
      ojo__r_note_known(r, &known);
    }
    i = rows;
    o = owners;
  }
  if (r->mention_count > 1) qsort(r->mentions, r->mention_count, sizeof *r->mentions, ojo__r_compare_mentions);
  for (size_t m = 0; m < r->mention_count; m++) {
    const struct ojo__r_mention *mention = &r->mentions[m];
    size_t k = ojo__r_known_from(r, mention->trace, mention->thread);
    if (k == r->known_count) continue;
    const struct ojo__r_known *known = &r->known[k];
    if (known->trace != mention->trace || known->thread != mention->thread) continue;
    if (m && ojo__r_compare_mentions(mention, mention - 1) == 0) continue;
    mention->file->known_recorded += known->recorded;
    mention->file->known_lost += known->lost;
  }
  for (i = 0; i < r->row_count;) {
    size_t end = i + 1;
    while (end < r->row_count && r->rows[end].trace == r->rows[i].trace && r->rows[end].thread == 0 &&
           r->rows[end].reason == r->rows[i].reason)
      end++;
    if (r->rows[i].thread == 0) ojo__r_tell_sums(r, i, end);
    i = end;
  }
}
/* The rows of which something is told, as pieces of their files. */
static void ojo__r_give_rows(ojo_reader *r) {
  for (size_t i = 0; i < r->row_count; i++) {
    struct ojo__r_row *row = &r->rows[i];
    if (row->told == 0 || row->fixed) continue;
    void *rows = ojo__r_grown(r, r->told, &r->told_capacity, r->told_count + 1, sizeof *r->told);
    if (rows) r->told = (struct ojo__r_told *)rows;
    struct ojo__r_piece *piece = rows ? ojo__r_add_piece(r, row->file) : NULL;
    if (!piece) {
      row->file->unplanned = true;
      continue;
    }
    struct ojo__r_told *told = &r->told[r->told_count++];
    memcpy(told->slot, row->slot, sizeof told->slot);
    told->slots = row->slots;
    piece->from = row->from;
    piece->to = row->from + row->slots * OJO_SLOT_BYTES;
    piece->ordinal = row->ordinal;
    piece->lost_before = row->lost_before;
    piece->first_ts = piece->last_ts = row->slot[0].ts;
    piece->events = 1;
    piece->row = (uint32_t)r->told_count;
    piece->thread = row->thread;
    piece->tid = row->tid;
    piece->level = row->level;
    piece->flags = (uint16_t)(row->flags & ~OJO_RUN_UNSORTED);
  }
}

/* A file of an earlier plan (follow) again, to compare with it. It may be gone: that is no error by now. */
static void ojo__r_look_again(ojo_reader *r, struct ojo__r_file *f) {
  struct stat st;
  if (f->pinned.base) {
    ojo__r_map_file(r, f, &f->look);
    return;
  }
  int fd = open(f->path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (fd >= 0 && fstat(fd, &st) == 0 && S_ISREG(st.st_mode) && (uint64_t)st.st_ino == f->inode &&
      (uint64_t)st.st_dev == f->device && (uint64_t)st.st_size >= f->bytes && f->bytes)
    ojo__r_map_fd(r, fd, (uint64_t)st.st_size, &f->look); /* or not */
  if (fd >= 0) close(fd);
}
static void ojo__r_unplan(ojo_reader *r, struct ojo__r_file *f) {
  ojo__r_free(r, f->pieces);
  f->pieces = NULL;
  f->piece_capacity = 0;
  f->piece_count = 0;
  f->planned = false;
}
/* The files that are new and may overlap: a trace's snapshots, and what was recovered of it, if it has
 * snapshots; if it is two at least, or more may come. */
static bool ojo__r_survey(ojo_reader *r, size_t fixed_rows) {
  const unsigned flags = OJO_FILE_SNAPSHOT | OJO_FILE_RECOVERED;
  bool any = false;
  for (uint32_t i = 0; i < r->trace_count; i++) r->traces[i]->snapshots = r->traces[i]->alike = 0;
  for (uint32_t i = 0; i < r->file_count; i++) {
    const struct ojo__r_file *f = r->files[i];
    if (f->version == 1 || !(f->flags & flags)) continue;
    r->traces[f->trace]->alike++;
    if (f->flags & OJO_FILE_SNAPSHOT) r->traces[f->trace]->snapshots++;
  }
  for (uint32_t i = 0; i < r->file_count; i++) {
    struct ojo__r_file *f = r->files[i];
    const struct ojo__r_trace *t = r->traces[f->trace];
    if (f->version == 1 || !(f->flags & flags) || f->unplanned || t->snapshots == 0) continue;
    if (f->planned) ojo__r_look_again(r, f);
    else if (t->alike > 1 || r->follow) ojo__r_survey_file(r, f);
    any = any || f->surveyed;
  }
  if (any) ojo__r_place_rows(r, fixed_rows);
  return any;
}
/* Makes the plan for the files that are new. */
static void ojo__r_plan(ojo_reader *r) {
  if (!r->plan_due) return;
  r->plan_due = false;
  if (ojo__r_survey(r, r->row_count)) {
    ojo__r_place_spans(r);
    ojo__r_tell_rows(r);
    ojo__r_give_rows(r);
  }
  for (uint32_t i = 0; i < r->file_count; i++) {
    struct ojo__r_file *f = r->files[i];
    ojo__r_unmap(&f->look);
    if (f->surveyed && f->unplanned) ojo__r_unplan(r, f);
    f->surveyed = false;
  }
  for (size_t i = 0; i < r->row_count; i++) r->rows[i].fixed = true;
  ojo__r_free(r, r->spans);
  ojo__r_free(r, r->mentions);
  ojo__r_free(r, r->known);
  r->spans = NULL;
  r->mentions = NULL;
  r->known = NULL;
  r->span_capacity = r->span_count = r->mention_capacity = r->mention_count = r->known_capacity = r->known_count = 0;
  if (r->follow) return;
  ojo__r_free(r, r->owners); /* nothing comes that would be compared with them */
  ojo__r_free(r, r->rows);
  r->owners = NULL;
  r->rows = NULL;
  r->owner_capacity = r->owner_count = r->row_capacity = r->row_count = 0;
}
/* Once the merge holds nothing: all files are new again. */
static void ojo__r_plan_forget(ojo_reader *r) {
  r->owner_count = r->row_count = r->told_count = 0;
  for (uint32_t i = 0; i < r->file_count; i++) {
    struct ojo__r_file *f = r->files[i];
    if (f->planned || f->unplanned) r->plan_due = true;
    ojo__r_unplan(r, f);
    f->unplanned = false;
    f->known_recorded = f->known_lost = 0;
  }
}

/* ---- >>flows ----------------------------------------------------------------------------------- */

static struct ojo__r_flow *ojo__r_flow_row(const ojo_reader *r, uint32_t index) {
  return &r->flow_blocks[index / OJO__R_FLOW_BLOCK][index % OJO__R_FLOW_BLOCK];
}
static uint64_t ojo__r_flow_name(const ojo_reader *r, uint32_t trace, uint64_t flow) {
  return ojo__r_salted(r, flow ^ (uint64_t)trace << 40);
}
static uint64_t ojo__r_flow_hash(const ojo_reader *r, uint32_t index) {
  const struct ojo__r_flow *f = ojo__r_flow_row(r, index);
  return ojo__r_flow_name(r, f->trace, f->flow);
}
static struct ojo__r_flow *ojo__r_flow_of(ojo_reader *r, uint32_t trace, uint64_t flow, bool make) {
  if (r->last_flow < r->flow_table_count) {
    struct ojo__r_flow *last = ojo__r_flow_row(r, r->last_flow);
    if (last->flow == flow && last->trace == trace) return last;
  }
  if (make &&
      !ojo__r_hash_room(r, &r->flow_hash, &r->flow_hash_size, r->flow_table_count, ojo__r_flow_hash)) {
    ojo__r_error(r, "", 0, OJO_ERR_MEMORY, "no memory for the flow table: it is not complete");
    return NULL;
  }
  if (!r->flow_hash) return NULL;
  size_t slot = (size_t)ojo__r_flow_name(r, trace, flow) & (r->flow_hash_size - 1);
  for (; r->flow_hash[slot]; slot = (slot + 1) & (r->flow_hash_size - 1)) {
    struct ojo__r_flow *known = ojo__r_flow_row(r, r->flow_hash[slot] - 1);
    if (known->flow != flow || known->trace != trace) continue;
    r->last_flow = r->flow_hash[slot] - 1;
    return known;
  }
  if (!make) return NULL;
  uint32_t index = r->flow_table_count;
  if (index < OJO__R_FLOWS_MAX && !r->flow_blocks[index / OJO__R_FLOW_BLOCK])
    r->flow_blocks[index / OJO__R_FLOW_BLOCK] =
        (struct ojo__r_flow *)ojo__r_alloc(r, OJO__R_FLOW_BLOCK * sizeof(struct ojo__r_flow));
  if (index >= OJO__R_FLOWS_MAX || !r->flow_blocks[index / OJO__R_FLOW_BLOCK]) {
    if (r->flows_left_out++ == 0)
      ojo__r_error(r, "", 0, OJO_ERR_MEMORY,
                   "more flows than the flow table holds (524,288): the others are left out of it");
    return NULL;
  }
  struct ojo__r_flow *f = ojo__r_flow_row(r, index);
  f->flow = flow;
  f->trace = trace;
  f->text = OJO__R_NONE;
  f->first_ns = UINT64_MAX;
  r->flow_table_count++;
  r->flow_hash[slot] = r->flow_table_count;
  return f;
}
/* Keeps FLOW's extension, as it is, behind a u32 with its length. */
static void ojo__r_flow_keep(ojo_reader *r, struct ojo__r_flow *f, const unsigned char *bytes,
                             uint32_t length) {
  if (length > 624) length = 624; /* 24 + 20 + 32 + 255 + 255, in slots */
  uint32_t room = 0;
  if (f->text != OJO__R_NONE) memcpy(&room, r->flow_text + f->text, 4);
  if (length > room) {
    size_t need = (size_t)r->flow_text_bytes + 4 + 624;
    if (need > OJO__R_FLOW_TEXT_BYTES_MAX) {
      ojo__r_error(r, "", 0, OJO_ERR_MEMORY,
                   "more text about flows than 8 MiB: later ones have no addresses and labels");
      f->text = OJO__R_NONE;
      return;
    }
    void *text = ojo__r_grown(r, r->flow_text, &r->flow_text_capacity, need, 1);
    if (!text) return;
    r->flow_text = (unsigned char *)text;
    f->text = r->flow_text_bytes;
    r->flow_text_bytes += 4 + length;
    room = length;
  }
  memcpy(r->flow_text + f->text, &room, 4);
  memset(r->flow_text + f->text + 4, 0, room); /* told again: in the same room, if that is enough */
  memcpy(r->flow_text + f->text + 4, bytes, length);
}
/* FLOW or STREAM_OPENED tells what a flow is. Once more, with another key or parent, before it was closed:
 * two live flows share the id; but one that was linked to its parent may be told without one. `closed_ns` is compared
 * too, as a close may stand in another thread's run. */
static void ojo__r_flow_opened(ojo_reader *r, struct ojo__r_flow *f, uint8_t bit, uint64_t time,
                               uint64_t key, const ojo_flow_record *record, const unsigned char *bytes,
                               uint32_t length) {
  const uint8_t known = OJO__R_FLOW_FLOW | OJO__R_FLOW_OPENED;
  bool anew = (f->bits & OJO__R_FLOW_CLOSED) && f->closed_ns <= time;
  bool linked = (f->bits & OJO__R_FLOW_LINKED) && !anew, rooted = linked && record && record->parent == 0;
  bool other_parent = record && (linked || (f->bits & OJO__R_FLOW_FLOW)) && record->parent != f->parent && !rooted;
  if (!anew && (((f->bits & known) && key != f->key) || other_parent)) {
    f->bits |= OJO__R_FLOW_COLLISION;
    return;
  }
  if (anew) f->bits &= OJO__R_FLOW_COLLISION;
  f->key = key;
  f->bits |= bit;
  if (record) {
    if (f->parent != record->parent && !rooted) r->chain_epoch++;
    if (!rooted) f->parent = record->parent;
    f->kind = record->kind;
    f->role = record->role;
    ojo__r_flow_keep(r, f, bytes, length);
  } else if (f->kind == 0) {
    f->kind = OJO_FLOW_STREAM;
  }
}
static void ojo__r_flow_linked(ojo_reader *r, struct ojo__r_flow *f, uint64_t time, uint64_t parent) {
  bool anew = (f->bits & OJO__R_FLOW_CLOSED) && f->closed_ns <= time;
  /* A root may be linked to a parent that is known later: a kernel's flow whose socket is then bound. */
  if (!anew && (f->bits & (OJO__R_FLOW_FLOW | OJO__R_FLOW_LINKED)) && f->parent != parent && f->parent != 0) {
    f->bits |= OJO__R_FLOW_COLLISION;
    return;
  }
  if (f->parent != parent) r->chain_epoch++;
  f->parent = parent;
  f->bits |= OJO__R_FLOW_LINKED;
}
static void ojo__r_flow_event(ojo_reader *r, uint32_t trace, uint64_t time, uint64_t flow, uint64_t type,
                              uint64_t payload, const unsigned char *extension, uint32_t bytes) {
  struct ojo__r_flow *f =
      flow && type != OJO_EVENTS_DROPPED ? ojo__r_flow_of(r, trace, flow, true) : NULL;
  if (!f) return;
  f->events++;
  if (time < f->first_ns) f->first_ns = time;
  if (time > f->last_ns) f->last_ns = time;
  if (r->traces[trace]->info.version == 1) return; /* its types mean what its application says */
  if (type == OJO_FLOW && bytes >= sizeof(ojo_flow_record)) {
    ojo_flow_record record;
    memcpy(&record, extension, sizeof record);
    ojo__r_flow_opened(r, f, OJO__R_FLOW_FLOW, time, payload, &record, extension, bytes);
  } else if (type == OJO_STREAM_OPENED) {
    ojo__r_flow_opened(r, f, OJO__R_FLOW_OPENED, time, payload, NULL, NULL, 0);
  } else if (type == OJO_STREAM_LINK_PARENT) {
    ojo__r_flow_linked(r, f, time, payload);
  } else if (type == OJO_STREAM_CLOSED || type == OJO_CONNECTION_CLOSED) {
    f->bits |= OJO__R_FLOW_CLOSED;
    if (time > f->closed_ns) f->closed_ns = time;
  }
}
/* The event at p of file f, of whichever version, into the flow table. */
static void ojo__r_flow_at(ojo_reader *r, const struct ojo__r_file *f, const unsigned char *p,
                           uint32_t bytes) {
  uint64_t time = ojo__r_add(ojo__r_base(r, f), ojo__r_load64(p));
  if (f->version == 1) {
    uint64_t flow = ojo__r_load64(p + 8), type = ojo__r_load64(p + 16);
    if (flow != UINT64_MAX || type != UINT64_MAX)
      ojo__r_flow_event(r, f->trace, time, flow, type, ojo__r_load64(p + 24), NULL, 0);
    return;
  }
  ojo_event slot;
  memcpy(&slot, p, sizeof slot);
  ojo__r_flow_event(r, f->trace, time, slot.flow, slot.type & OJO_TYPE_MASK, slot.payload,
                    p + OJO_SLOT_BYTES, bytes - OJO_SLOT_BYTES);
}
static void ojo__r_flow_run(ojo_reader *r, const struct ojo__r_file *f, const struct ojo__r_map *map,
                            const unsigned char *p, const unsigned char *end) {
  uint32_t thread;
  while (p < end) {
    uint32_t type = f->version == 1 ? 0 : ojo__r_type_at(p);
    uint32_t bytes = f->version == 1 ? OJO__R_V1_RECORD_BYTES : ojo__r_event_bytes(p, end, type);
    if (bytes == 0 || p + bytes > ojo__r_gone(map)) return; /* the merge reports it */
    if (f->version != 1 && (type & OJO_TYPE_MASK) == OJO_THREAD) {
      memcpy(&thread, p + 12, sizeof thread);
      ojo__r_learn_thread(r, f->trace, thread, p, bytes);
    } else {
      ojo__r_flow_at(r, f, p, bytes);
    }
    p += bytes;
  }
}
static void ojo__r_flow_pieces(ojo_reader *r, const struct ojo__r_file *f, const struct ojo__r_map *map) {
  for (uint32_t i = 0; i < f->piece_count; i++) {
    const struct ojo__r_piece *piece = &f->pieces[i];
    if (piece->row || piece->to > map->bytes) continue;
    ojo__r_flow_run(r, f, map, map->base + piece->from, map->base + piece->to);
    ojo__r_release(map, piece->from, piece->to);
  }
}
static void ojo__r_make_flows(ojo_reader *r) {
  if (r->flows_made) return;
  r->flows_made = true;
  ojo__r_plan(r);
  for (uint32_t i = 0; i < r->file_count; i++) {
    struct ojo__r_file *f = r->files[i];
    struct ojo__r_map map;
    struct ojo__r_run run;
    if (f->slot_count == 0 || !ojo__r_map_file(r, f, &map)) continue;
    if (f->version == 1) {
      uint64_t records = (map.bytes - OJO__R_V1_HEADER_BYTES) / OJO__R_V1_RECORD_BYTES;
      const unsigned char *slots = map.base + OJO__R_V1_HEADER_BYTES;
      if (records > f->slot_count) records = f->slot_count;
      ojo__r_flow_run(r, f, &map, slots, slots + records * OJO__R_V1_RECORD_BYTES);
    } else if (f->planned) {
      ojo__r_flow_pieces(r, f, &map);
    } else {
      uint64_t end = ojo__r_slots_end(f, &map);
      for (uint64_t at = f->header_bytes; ojo__r_walk(r, f, &map, end, at, &run); at = run.next) {
        const unsigned char *slots = map.base + run.slots_at;
        if (ojo__r_run_intact(r, f, &map, &run))
          ojo__r_flow_run(r, f, &map, slots, slots + run.slot_count * OJO_SLOT_BYTES);
        ojo__r_release(&map, run.at, run.next);
      }
    }
    ojo__r_unmap(&map);
  }
  r->learning = r->follow; /* what comes later is added as it is read */
}

/* Whether a flow is in the chain: it, an ancestor, or one below it. Found by walking up, and kept until a
 * parent becomes known (chain_epoch). The walk marks its path, so that a loop of parents ends it. */
static uint8_t ojo__r_chain_state(ojo_reader *r, struct ojo__r_flow *f) {
  uint8_t answer = OJO__R_CHAIN_NO;
  struct ojo__r_flow *at = f;
  for (;;) { /* up, until someone knows */
    if (at->chain_epoch != r->chain_epoch) {
      at->chain_epoch = r->chain_epoch;
      at->chain = OJO__R_CHAIN_UNKNOWN;
    }
    if (at->flow == r->chain) answer = OJO__R_CHAIN_IN;
    else if (at->chain == OJO__R_CHAIN_IN) answer = OJO__R_CHAIN_IN;
    if (at->flow == r->chain || at->chain != OJO__R_CHAIN_UNKNOWN) break;
    at->chain = OJO__R_CHAIN_VISITING;
    if (at->parent == r->chain) answer = OJO__R_CHAIN_IN; /* which may have no event of its own */
    if (at->parent == r->chain) break;
    struct ojo__r_flow *up = at->parent ? ojo__r_flow_of(r, at->trace, at->parent, false) : NULL;
    if (!up) break;
    at = up;
  }
  if (at->flow == r->chain) at->chain = OJO__R_CHAIN_IN;
  for (at = f; at && at->chain == OJO__R_CHAIN_VISITING;) { /* the same way again, with the answer */
    at->chain = answer;
    at = at->parent ? ojo__r_flow_of(r, at->trace, at->parent, false) : NULL;
  }
  return f->chain;
}
/* Marks the ancestors, once per epoch and trace: the walk above then stops at them. */
static void ojo__r_chain_ancestors(ojo_reader *r, uint32_t trace) {
  struct ojo__r_flow *f = ojo__r_flow_of(r, trace, r->chain, false);
  if (!f || (f->chain_epoch == r->chain_epoch && f->chain == OJO__R_CHAIN_IN)) return;
  f->chain_epoch = r->chain_epoch;
  f->chain = OJO__R_CHAIN_IN;
  while (f->parent && (f = ojo__r_flow_of(r, trace, f->parent, false)) != NULL) {
    if (f->chain_epoch == r->chain_epoch && f->chain != OJO__R_CHAIN_NO) return;
    f->chain_epoch = r->chain_epoch;
    f->chain = OJO__R_CHAIN_ANCESTOR;
  }
}
static bool ojo__r_in_chain(ojo_reader *r, uint32_t trace, uint64_t flow) {
  struct ojo__r_flow *f = flow ? ojo__r_flow_of(r, trace, flow, false) : NULL;
  if (!f) return flow == r->chain;
  if (f->chain_epoch == r->chain_epoch && f->chain != OJO__R_CHAIN_UNKNOWN)
    return f->chain != OJO__R_CHAIN_NO;
  ojo__r_chain_ancestors(r, trace);
  if (f->chain_epoch == r->chain_epoch && f->chain == OJO__R_CHAIN_ANCESTOR) return true;
  return ojo__r_chain_state(r, f) != OJO__R_CHAIN_NO;
}

/* ---- >>sort ------------------------------------------------------------------------------------ */

static bool ojo__r_ref_less(const struct ojo__r_ref *a, const struct ojo__r_ref *b) {
  return a->key < b->key || (a->key == b->key && a->at < b->at);
}
/* Merge sort that takes the ascending stretches as they come: what is nearly sorted costs little. */
static bool ojo__r_sort(ojo_reader *r, struct ojo__r_ref *refs, size_t count) {
  size_t sorted = 1;
  while (sorted < count && !ojo__r_ref_less(&refs[sorted], &refs[sorted - 1])) sorted++;
  if (sorted >= count) return true;
  void *scratch = ojo__r_grown(r, r->scratch, &r->scratch_capacity, count, sizeof *refs);
  if (!scratch) return false;
  r->scratch = (struct ojo__r_ref *)scratch;
  for (bool merged = true; merged;) {
    merged = false;
    for (size_t start = 0; start < count;) {
      size_t middle = start + 1;
      while (middle < count && !ojo__r_ref_less(&refs[middle], &refs[middle - 1])) middle++;
      if (middle == count) break;
      size_t end = middle + 1;
      while (end < count && !ojo__r_ref_less(&refs[end], &refs[end - 1])) end++;
      memcpy(r->scratch, refs + start, (middle - start) * sizeof *refs);
      size_t left = 0, lefts = middle - start, right = middle, to = start;
      while (left < lefts && right < end)
        if (ojo__r_ref_less(&refs[right], &r->scratch[left])) refs[to++] = refs[right++];
        else refs[to++] = r->scratch[left++];
      memcpy(refs + to, r->scratch + left, (lefts - left) * sizeof *refs);
      start = end;
      merged = true;
    }
  }
  return true;
}

/* ---- >>cursor ---------------------------------------------------------------------------------- */

static void ojo__r_cursor_error(ojo_reader *r, const struct ojo__r_cursor *c, const unsigned char *p,
                                const char *text) {
  ojo__r_error(r, c->file->path, (uint64_t)(p - c->file->map.base), OJO_ERR_FORMAT, text);
}
/* What must be noted once of an event, whether or not a filter lets it through. */
static void ojo__r_account(ojo_reader *r, struct ojo__r_cursor *c, const unsigned char *p,
                           uint32_t bytes) {
  if (p < c->accounted) return;
  c->accounted = p + bytes;
  if (c->file->version == 1) {
    if (ojo__r_load64(p + 8) == UINT64_MAX && ojo__r_load64(p + 16) == UINT64_MAX)
      r->traces[c->file->trace]->info.dropped += ojo__r_load64(p + 24);
  } else {
    uint32_t raw = ojo__r_type_at(p), type = raw & OJO_TYPE_MASK;
    uint64_t payload = ojo__r_load64(p + 16);
    if (raw & OJO_SIZED) payload &= (UINT64_C(1) << OJO_SIZED_VALUE_BITS) - 1;
    if (type == OJO_EVENTS_DROPPED) r->traces[c->file->trace]->info.dropped += payload;
    if (type == OJO_THREAD) ojo__r_learn_thread(r, c->file->trace, c->thread, p, bytes);
    if (type == OJO_THREAD) return;
  }
  if (r->learning) ojo__r_flow_at(r, c->file, p, bytes);
}
/* Bytes of the event at p, 0 at damage: then the run ends there, and it is reported. */
static uint32_t ojo__r_measure(ojo_reader *r, struct ojo__r_cursor *c, const unsigned char *p) {
  if (c->file->version == 1) return OJO__R_V1_RECORD_BYTES;
  uint32_t type = ojo__r_type_at(p), bytes = ojo__r_event_bytes(p, c->end, type);
  if (bytes == 0) {
    ojo__r_cursor_error(r, c, p, ojo__r_damage(type));
    c->end = p;
  }
  return bytes;
}
static bool ojo__r_hidden(const struct ojo__r_cursor *c, const unsigned char *p) {
  return c->file->version != 1 && (ojo__r_type_at(p) & OJO_TYPE_MASK) == OJO_THREAD;
}

static void ojo__r_check_times(ojo_reader *r, const struct ojo__r_cursor *c, uint64_t first,
                               uint64_t last) {
  if (first < c->run_first || last > c->run_last)
    ojo__r_cursor_error(r, c, c->begin, "a run has times that its RUN denies: events may come late");
}

/* The file lost pages that the run is on: what lies before them is sound. */
static bool ojo__r_trim(ojo_reader *r, struct ojo__r_cursor *c) {
  const unsigned char *gone = ojo__r_gone(&c->file->map);
  uint64_t slot = c->file->version == 1 ? OJO__R_V1_RECORD_BYTES : OJO_SLOT_BYTES;
  if (gone >= c->end) return false;
  ojo__r_cursor_error(r, c, gone > c->begin ? gone : c->begin, "the file shrank while it was read");
  c->end = gone > c->begin ? c->begin + (uint64_t)(gone - c->begin) / slot * slot : c->begin;
  return true;
}

/* The next part of a run whose times go back, sorted. All of it if the window holds it; else the window is
 * refilled when its earlier half is out, so that an event may stand up to half a window from its place. */
static bool ojo__r_fill_window(ojo_reader *r, struct ojo__r_cursor *c) {
  uint32_t kept = c->window_count - c->window_at;
  memmove(c->window, c->window + c->window_at, kept * sizeof *c->window);
  c->window_at = 0;
  const unsigned char *p = c->segment_end; /* read up to here */
  while (kept < c->window_capacity && p < c->end) {
    uint32_t bytes = ojo__r_measure(r, c, p);
    if (bytes == 0) break;
    ojo__r_account(r, c, p, bytes);
    if (!ojo__r_hidden(c, p)) {
      c->window[kept].key = ojo__r_load64(p);
      c->window[kept++].at = (uint64_t)(p - c->begin);
    }
    p += bytes;
  }
  if (ojo__r_trim(r, c)) {
    uint32_t sound = 0;
    for (uint32_t i = 0; i < kept; i++)
      if (c->begin + c->window[i].at < c->end) c->window[sound++] = c->window[i];
    kept = sound;
    p = c->end;
  }
  c->segment_end = p;
  c->window_count = kept;
  c->window_emit = p < c->end && kept > 1 ? kept / 2 : kept;
  if (!ojo__r_sort(r, c->window, kept))
    ojo__r_cursor_error(r, c, c->begin, "no memory to sort a run: it stays as it is");
  if (kept == 0) return false;
  ojo__r_check_times(r, c, c->window[0].key, c->window[kept - 1].key);
  if (c->window[0].key < c->last_ts)
    ojo__r_cursor_error(r, c, c->begin,
                        "times go back further than the sorting window: events come late");
  c->last_ts = c->window[c->window_emit - 1].key;
  return true;
}
static void ojo__r_open_window(ojo_reader *r, struct ojo__r_cursor *c) {
  uint64_t room = r->sort_events < OJO__R_SORT_MAX ? OJO__R_SORT_MAX - r->sort_events : 0;
  uint64_t most =
      (uint64_t)(c->end - c->at) / (c->file->version == 1 ? OJO__R_V1_RECORD_BYTES : OJO_SLOT_BYTES);
  if (most > OJO__R_WINDOW_MAX) most = OJO__R_WINDOW_MAX;
  if (most > room) most = room;
  if (most < OJO__R_WINDOW_MIN) most = OJO__R_WINDOW_MIN;
  c->window = (struct ojo__r_ref *)ojo__r_alloc(r, (size_t)most * sizeof *c->window);
  c->segment_end = c->at;
  if (!c->window) {
    ojo__r_cursor_error(r, c, c->at, "no memory to sort a run: the run is left out");
    c->end = c->at;
    return;
  }
  c->window_capacity = (uint32_t)most;
  r->sort_events += most;
}

/* Checks the next 64 KiB of the run from c->at: whole events, times ascending. If so they are handed out
 * as they lie (and are in the cache by then); else the rest of the run goes through a window. */
static void ojo__r_next_segment(ojo_reader *r, struct ojo__r_cursor *c) {
  const unsigned char *p = c->at;
  uint64_t left = (uint64_t)(c->end - p), first = UINT64_MAX, last = c->last_ts = c->segment_last;
  const unsigned char *stop = left > OJO__R_SEGMENT_BYTES ? p + OJO__R_SEGMENT_BYTES : c->end;
  bool version1 = c->file->version == 1, sorted = !c->unsorted || left <= OJO__R_SEGMENT_BYTES;
  bool bulk = !version1 && !r->learning;
  while (p < stop && sorted) {
    uint64_t ts = ojo__r_load64(p);
    /* not the bulk: extensions, the application's types, Meta, and 0 */
    if (OJO__LIKELY(bulk && (ojo__r_type_at(p) & ~OJO_SIZED) - 1 < OJO_EVENTS_DROPPED - 1u && ts >= last)) {
      first = ts < first ? ts : first;
      last = ts;
      p += OJO_SLOT_BYTES;
      continue;
    }
    uint32_t bytes = ojo__r_measure(r, c, p);
    if (bytes == 0) break;
    if (ojo__r_hidden(c, p)) {
      ojo__r_account(r, c, p, bytes);
      if (c->at == p) c->at += bytes; /* THREAD stands before what its thread recorded */
      p += bytes;
      continue;
    }
    if (ts >= last) ojo__r_account(r, c, p, bytes);
    sorted = ts >= last;
    first = ts < first ? ts : first;
    last = ts;
    p += bytes;
  }
  if (ojo__r_trim(r, c)) { /* once more, up to where it is sound */
    if (c->at > c->end) c->at = c->end;
    c->segment_end = c->at;
    return;
  }
  if (sorted) {
    c->segment_end = p;
    c->segment_last = last;
    if (c->at < p) ojo__r_check_times(r, c, first, last);
    return;
  }
  if (!c->unsorted && !version1)
    ojo__r_cursor_error(r, c, c->begin, "times go back in a run that is not marked UNSORTED");
  ojo__r_open_window(r, c);
}
static OJO__R_RARE bool ojo__r_load_slow(ojo_reader *r, struct ojo__r_cursor *c) {
  for (;;) {
    if (c->window) {
      if (c->window_at == c->window_emit && !ojo__r_fill_window(r, c)) return false;
      c->at = c->row ? (const unsigned char *)r->told[c->row - 1].slot : c->begin + c->window[c->window_at].at;
      c->at_end = c->at + 1;
      c->head_ts = c->window[c->window_at++].key;
      break;
    }
    if (c->at >= c->segment_end) {
      if (c->at >= c->end) return false;
      ojo__r_next_segment(r, c);
    } else if (ojo__r_hidden(c, c->at)) {
      uint32_t bytes = ojo__r_measure(r, c, c->at);
      c->at = bytes ? c->at + bytes : c->end;
    } else {
      c->at_end = c->segment_end;
      c->head_ts = ojo__r_load64(c->at);
      break;
    }
  }
  c->key = ojo__r_add(c->base, c->head_ts);
  return true;
}
/* Moves to the next event. False: the run is at its end. */
static inline bool ojo__r_load(ojo_reader *r, struct ojo__r_cursor *c) {
  if (OJO__UNLIKELY(c->window || c->at >= c->at_end || (ojo__r_type_at(c->at) & OJO_TYPE_MASK) == OJO_THREAD))
    return ojo__r_load_slow(r, c);
  c->head_ts = ojo__r_load64(c->at);
  c->key = ojo__r_add(c->base, c->head_ts);
  return true;
}
static void ojo__r_cursor_free(ojo_reader *r, struct ojo__r_cursor *c) {
  if (c->window) r->sort_events -= c->window_capacity;
  ojo__r_free(r, c->window);
  memset(c, 0, sizeof *c);
  c->begin = (const unsigned char *)r->spare;
  r->spare = c;
}
static struct ojo__r_cursor *ojo__r_cursor_new(ojo_reader *r) {
  struct ojo__r_cursor *c = r->spare;
  if (!c) return (struct ojo__r_cursor *)ojo__r_alloc(r, sizeof *c);
  r->spare = (struct ojo__r_cursor *)(uintptr_t)c->begin;
  c->begin = NULL;
  return c;
}

/* ---- >>merge ----------------------------------------------------------------------------------- */

/* The tie of two events at one time: trace, thread, level, then the place in what was recorded. */
static bool ojo__r_before(const struct ojo__r_cursor *a, const struct ojo__r_cursor *b) {
  if (!a || !b) return a != NULL;
  const struct ojo__r_file *f = a->file, *g = b->file;
  if (f->trace != g->trace) return f->trace < g->trace;
  if (a->thread != b->thread) return a->thread < b->thread;
  if (a->level != b->level) return a->level < b->level;
  if (a->ordinal != b->ordinal) return a->ordinal < b->ordinal;
  if (f->batch != g->batch) return f->batch < g->batch;
  if (f != g) return f->sequence < g->sequence;
  return a->begin < b->begin;
}
struct ojo__r_played {
  struct ojo__r_cursor *first;
  uint64_t rival;
};
/* Plays the leaf's way up the tree. Returns who comes out on top, and the least key among those that the leaf
 * met: if its cursor is on top, that is how far it may go on before anyone else's turn. The siblings' places
 * follow from the leaf alone, so that their loads do not wait for each other, and the choice is made without a
 * branch: at random interleave no predictor can know it. */
static inline struct ojo__r_played ojo__r_play(ojo_reader *r, uint32_t leaf, uint64_t key,
                                               struct ojo__r_cursor *c) {
  struct ojo__r_node *tree = r->tree;
  uint32_t i = r->leaves + leaf;
  struct ojo__r_played played;
  played.rival = UINT64_MAX;
  tree[i].key = key;
  tree[i].cursor = c;
  for (; i > 1; i >>= 1) {
    const struct ojo__r_node *other = &tree[i ^ 1];
    uint64_t other_key = other->key;
    struct ojo__r_cursor *other_cursor = other->cursor;
    if (OJO__UNLIKELY(other_key == key) && ojo__r_before(other_cursor, c)) c = other_cursor;
    played.rival = other_key < played.rival ? other_key : played.rival;
    c = other_key < key ? other_cursor : c;
    key = other_key < key ? other_key : key;
    tree[i >> 1].key = key;
    tree[i >> 1].cursor = c;
  }
  played.first = c;
  return played;
}
/* The least key of all other leaves: how far the winner's leaf may go on. */
static inline uint64_t ojo__r_rival(const ojo_reader *r, uint32_t leaf) {
  uint64_t rival = UINT64_MAX;
  for (uint32_t i = r->leaves + leaf; i > 1; i >>= 1) {
    uint64_t key = r->tree[i ^ 1].key;
    rival = key < rival ? key : rival;
  }
  return rival;
}
static bool ojo__r_resize_tree(ojo_reader *r, uint32_t leaves) {
  struct ojo__r_node *tree = (struct ojo__r_node *)ojo__r_alloc(r, 2u * leaves * sizeof *tree);
  if (!tree) return false;
  for (uint32_t i = 0; i < 2u * leaves; i++) tree[i].key = UINT64_MAX;
  struct ojo__r_node *old = r->tree;
  uint32_t old_leaves = r->leaves, leaf = 0;
  r->tree = tree;
  r->leaves = leaves;
  for (uint32_t i = old_leaves; old && i < 2u * old_leaves; i++)
    if (old[i].cursor) {
      old[i].cursor->leaf = leaf;
      ojo__r_play(r, leaf++, old[i].key, old[i].cursor);
    }
  r->free_leaf = leaf;
  ojo__r_free(r, old);
  return true;
}
static bool ojo__r_enter(ojo_reader *r, struct ojo__r_cursor *c) {
  if (r->active == r->leaves && !ojo__r_resize_tree(r, r->leaves ? r->leaves * 2 : 1)) return false;
  while (r->tree[r->leaves + r->free_leaf].cursor) r->free_leaf = (r->free_leaf + 1) & (r->leaves - 1);
  c->leaf = r->free_leaf;
  r->free_leaf = (r->free_leaf + 1) & (r->leaves - 1);
  r->active++;
  ojo__r_play(r, c->leaf, c->key, c);
  return true;
}

static void ojo__r_pending_down(ojo_reader *r, uint32_t i) {
  struct ojo__r_ref *heap = r->pending, moving = heap[i];
  for (;;) {
    uint32_t child = 2 * i + 1;
    if (child >= r->pending_count) break;
    if (child + 1 < r->pending_count && ojo__r_ref_less(&heap[child + 1], &heap[child])) child++;
    if (!ojo__r_ref_less(&heap[child], &moving)) break;
    heap[i] = heap[child];
    i = child;
  }
  heap[i] = moving;
}
static void ojo__r_pending_push(ojo_reader *r, uint64_t key, uint32_t file) {
  void *heap =
      ojo__r_grown(r, r->pending, &r->pending_capacity, r->pending_count + 1u, sizeof *r->pending);
  if (!heap) {
    ojo__r_error(r, r->files[file]->path, 0, OJO_ERR_MEMORY, "no memory for one more file");
    return;
  }
  r->pending = (struct ojo__r_ref *)heap;
  uint32_t i = r->pending_count++;
  for (; i && key < r->pending[(i - 1) / 2].key; i = (i - 1) / 2) r->pending[i] = r->pending[(i - 1) / 2];
  r->pending[i].key = key;
  r->pending[i].at = file;
}
static void ojo__r_pending_pop(ojo_reader *r) {
  r->pending[0] = r->pending[--r->pending_count];
  if (r->pending_count) ojo__r_pending_down(r, 0);
}
/* Once the traces are aligned: when the file is, and whether it is out of the time range. */
static void ojo__r_note_times(ojo_reader *r, struct ojo__r_file *f) {
  struct ojo__r_trace *t = r->traces[f->trace];
  uint64_t base = ojo__r_base(r, f), first = ojo__r_add(base, f->first_ts),
           last = ojo__r_add(base, f->last_ts);
  if (f->trusted && f->last_ts != UINT64_MAX) {
    if (first < t->info.first_ns) t->info.first_ns = first;
    if (last > t->info.last_ns) t->info.last_ns = last;
  }
  f->skip = (r->until_ns && first >= r->until_ns) || (r->since_ns && last < r->since_ns);
}
static bool ojo__r_piece_wanted(const ojo_reader *r, const struct ojo__r_file *f,
                                const struct ojo__r_piece *piece) {
  uint64_t base = ojo__r_base(r, f);
  if (r->until_ns && ojo__r_add(base, piece->first_ts) >= r->until_ns) return false;
  if (r->since_ns && ojo__r_add(base, piece->last_ts) < r->since_ns) return false;
  return ojo__r_thread_wanted(r, piece->thread);
}
static void ojo__r_queue_planned(ojo_reader *r, struct ojo__r_file *f) {
  uint64_t first = UINT64_MAX;
  bool any = false;
  for (uint32_t i = 0; i < f->piece_count; i++) {
    if (!ojo__r_piece_wanted(r, f, &f->pieces[i])) continue;
    any = true;
    if (f->pieces[i].first_ts < first) first = f->pieces[i].first_ts;
  }
  if (any) ojo__r_pending_push(r, ojo__r_add(ojo__r_base(r, f), first), f->index);
  else r->bytes_read += f->bytes;
}
static void ojo__r_queue_file(ojo_reader *r, struct ojo__r_file *f) {
  if (f->planned) ojo__r_queue_planned(r, f);
  else if (f->skip || f->slot_count == 0) r->bytes_read += f->bytes;
  else ojo__r_pending_push(r, ojo__r_add(ojo__r_base(r, f), f->first_ts), f->index);
}

/* Room in the index for one more run of the file, which is at `at`. */
static bool ojo__r_index_room(ojo_reader *r, struct ojo__r_file *f, uint64_t at) {
  if (f->run_count < f->run_capacity) return true;
  size_t before = f->run_capacity;
  void *runs = NULL;
  if (r->runs_indexed + before <= OJO__R_RUNS_MAX || before == 0)
    runs = ojo__r_grown(r, f->runs, &f->run_capacity, f->run_count + 1u, sizeof *f->runs);
  if (!runs) {
    ojo__r_error(r, f->path, at, OJO_ERR_MEMORY,
                 "more runs at one time than the index holds: events may come late");
    return false;
  }
  f->runs = (struct ojo__r_ref *)runs;
  r->runs_indexed += f->run_capacity - before;
  return true;
}
/* Looking at a RUN brings 64 KiB around it in, that is all of a file of ours. It is wanted soon, and to give its
 * pages back one by one, and map them again, costs a tenth of the merge's time. Large files are not kept. */
static void ojo__r_keep(ojo_reader *r, struct ojo__r_file *f) {
  if (!f->kept_bytes && r->kept_bytes + f->map.bytes <= OJO__R_KEPT_BYTES_MAX) {
    f->kept_bytes = f->map.bytes;
    r->kept_bytes += f->kept_bytes;
  }
  if (!f->kept_bytes) ojo__r_release(&f->map, 0, f->map.bytes);
}
/* The file's runs from `at` on, by time; or its pieces from number `at` on. Where the index's bound (524,288
 * runs over all open files) allows no more, the rest of the file is indexed when these are out, and
 * reported: its events may come late. */
static void ojo__r_index_file(ojo_reader *r, struct ojo__r_file *f, uint64_t at) {
  struct ojo__r_run run;
  f->run_count = f->run_at = 0;
  f->resume = 0;
  for (; f->planned && at < f->piece_count; at++) {
    const struct ojo__r_piece *piece = &f->pieces[at];
    if (!ojo__r_piece_wanted(r, f, piece)) continue;
    if (!ojo__r_index_room(r, f, piece->from)) {
      if (f->run_count) f->resume = at;
      break;
    }
    f->runs[f->run_count].key = ojo__r_add(ojo__r_base(r, f), piece->first_ts);
    f->runs[f->run_count++].at = at;
  }
  while (!f->planned && ojo__r_walk(r, f, &f->map, f->slots_end, at, &run)) {
    if (!ojo__r_index_room(r, f, run.at)) {
      if (f->run_count) f->resume = run.at;
      break;
    }
    at = run.next;
    if (!ojo__r_run_wanted(r, f, &run)) continue;
    if (run.slot.ts < f->first_ts)
      ojo__r_error(r, f->path, run.at, OJO_ERR_FORMAT,
                   "a run before the first time in the file's header: events may come late");
    f->runs[f->run_count].key = ojo__r_add(ojo__r_base(r, f), run.slot.ts);
    f->runs[f->run_count++].at = run.at;
  }
  if (!ojo__r_sort(r, f->runs, f->run_count))
    ojo__r_error(r, f->path, at, OJO_ERR_MEMORY, "no memory to sort the runs: events may come late");
  ojo__r_keep(r, f);
}
static bool ojo__r_open_file(ojo_reader *r, struct ojo__r_file *f) {
  if (!ojo__r_map_file(r, f, &f->map)) return false;
  if (f->version == 1) {
    size_t capacity = 0;
    f->runs = (struct ojo__r_ref *)ojo__r_grown(r, NULL, &capacity, 1, sizeof *f->runs);
    if (!f->runs) {
      ojo__r_error(r, f->path, 0, OJO_ERR_MEMORY, "no memory for one more run");
      return false;
    }
    r->runs_indexed += f->run_capacity = capacity;
    f->runs[0].key = f->start_unix_ns;
    f->runs[0].at = OJO__R_V1_HEADER_BYTES;
    f->run_count = ojo__r_thread_wanted(r, 0);
    f->run_at = 0;
    return true;
  }
  f->slots_end = ojo__r_slots_end(f, &f->map);
  ojo__r_index_file(r, f, f->planned ? 0 : f->header_bytes);
  return true;
}
static void ojo__r_close_file(ojo_reader *r, struct ojo__r_file *f) {
  ojo__r_unmap(&f->map);
  r->kept_bytes -= f->kept_bytes;
  f->kept_bytes = 0;
  r->runs_indexed -= f->runs ? f->run_capacity : 0;
  ojo__r_free(r, f->runs);
  f->runs = NULL;
  f->run_capacity = 0;
  f->run_count = f->run_at = 0;
  r->bytes_read += f->bytes - f->bytes_read;
  f->bytes_read = 0;
  if (!r->follow || !f->member || f->planned) return; /* planned: what comes is compared with it */
  struct ojo__r_file *moved = r->files[--r->file_count]; /* a followed directory may run for ever */
  r->files[f->index] = moved;
  moved->index = f->index;
  for (uint32_t i = 0; i < r->pending_count; i++)
    if (r->pending[i].at == r->file_count) r->pending[i].at = moved->index;
  ojo__r_file_free(r, f);
}
/* A row's one event, in a window of its own: what is given of it is not what lies in the file. */
static bool ojo__r_open_row(ojo_reader *r, struct ojo__r_cursor *c, uint32_t row) {
  c->window = (struct ojo__r_ref *)ojo__r_alloc(r, sizeof *c->window);
  if (!c->window) return false;
  c->row = row;
  c->gone = &ojo__r_never;
  c->window[0].key = r->told[row - 1].slot[0].ts;
  c->window_count = c->window_emit = c->window_capacity = 1;
  c->segment_end = c->end;
  r->sort_events++;
  r->traces[c->file->trace]->info.dropped += r->told[row - 1].slot[0].payload;
  return true;
}
/* What the file is planned to give as number `at`, as a run. False: it is no longer there. */
static bool ojo__r_piece_run(ojo_reader *r, const struct ojo__r_file *f, uint64_t at, struct ojo__r_run *run) {
  const struct ojo__r_piece *piece = &f->pieces[at];
  if (piece->to > f->slots_end) return ojo__r_shrank(r, f, piece->from);
  run->slots_at = piece->from;
  run->slot_count = (piece->to - piece->from) / OJO_SLOT_BYTES;
  run->slot.ts = piece->first_ts;
  run->slot.flow = piece->thread;
  run->run.last_ts = piece->last_ts;
  run->run.first_ordinal = piece->ordinal;
  run->run.tid = piece->tid;
  run->run.level = piece->level;
  run->run.flags = piece->flags;
  return true;
}
/* A cursor for the run at `at`, or the piece number `at`. NULL: not wanted after all, or damaged. */
static struct ojo__r_cursor *ojo__r_open_run(ojo_reader *r, struct ojo__r_file *f, uint64_t at) {
  struct ojo__r_run run;
  uint64_t bytes;
  memset(&run, 0, sizeof run);
  if (f->planned) {
    if (!ojo__r_piece_run(r, f, at, &run)) return NULL;
    bytes = run.slot_count * OJO_SLOT_BYTES;
  } else if (f->version == 1) {
    run.slots_at = at;
    run.run.last_ts = UINT64_MAX;
    run.run.first_ordinal = f->start_unix_ns;
    uint64_t room = (f->map.bytes - at) / OJO__R_V1_RECORD_BYTES;
    bytes = (f->slot_count < room ? f->slot_count : room) * OJO__R_V1_RECORD_BYTES;
  } else {
    if (!ojo__r_walk(r, f, &f->map, f->slots_end, at, &run) || run.at != at) return NULL;
    if (!ojo__r_run_intact(r, f, &f->map, &run)) return NULL;
    bytes = run.slot_count * OJO_SLOT_BYTES;
  }
  struct ojo__r_cursor *c = ojo__r_cursor_new(r);
  if (!c) {
    ojo__r_error(r, f->path, at, OJO_ERR_MEMORY, "no memory for one more run");
    return NULL;
  }
  c->file = f;
  c->begin = c->at = c->segment_end = c->accounted = f->map.base + run.slots_at;
  c->end = c->begin + bytes;
  c->base = ojo__r_base(r, f);
  c->run_first = run.slot.ts;
  c->run_last = run.run.last_ts;
  c->ordinal = run.run.first_ordinal;
  c->gone = f->map.guard ? &f->map.guard->gone : &ojo__r_never;
  c->thread = run.slot.flow;
  c->trace = f->trace;
  c->level = run.run.level;
  c->version1 = f->version == 1;
  c->careful = c->version1 || r->filtered;
  c->unsorted = (run.run.flags & OJO_RUN_UNSORTED) != 0;
  if (f->version != 1) {
    struct ojo__r_thread *t = ojo__r_thread_of(r, f->trace, c->thread, true);
    if (t && t->tid == 0) t->tid = run.run.tid;
  }
  bool some = f->planned && f->pieces[at].row && !ojo__r_open_row(r, c, f->pieces[at].row)
                  ? false
                  : ojo__r_load(r, c);
  if (!some || !ojo__r_enter(r, c)) {
    if (some) ojo__r_error(r, f->path, at, OJO_ERR_MEMORY, "no memory for one more run");
    ojo__r_cursor_free(r, c);
    return NULL;
  }
  f->cursors++;
  return c;
}
/* Opens what is at the top of `pending`: a file, or the next run of an open one. */
static void ojo__r_admit(ojo_reader *r) {
  struct ojo__r_file *f = r->files[r->pending[0].at];
  if (!f->map.base) {
    if (!ojo__r_open_file(r, f)) {
      ojo__r_pending_pop(r);
      ojo__r_close_file(r, f);
      return;
    }
  } else {
    ojo__r_open_run(r, f, f->runs[f->run_at++].at);
    if (f->run_at == f->run_count && f->resume) ojo__r_index_file(r, f, f->resume);
  }
  if (f->run_at < f->run_count) {
    r->pending[0].key = f->runs[f->run_at].key;
    ojo__r_pending_down(r, 0);
    return;
  }
  ojo__r_pending_pop(r);
  if (f->cursors == 0) ojo__r_close_file(r, f);
}
/* The current run is at its end. */
static void ojo__r_leave(ojo_reader *r, struct ojo__r_cursor *c) {
  struct ojo__r_file *f = c->file;
  uint64_t from = (uint64_t)(c->begin - f->map.base), to = (uint64_t)(c->segment_end - f->map.base);
  ojo__r_play(r, c->leaf, UINT64_MAX, NULL);
  r->active--;
  r->free_leaf = c->leaf;
  ojo__r_cursor_free(r, c);
  f->bytes_read += to - from;
  r->bytes_read += to - from;
  f->cursors--;
  if (f->cursors == 0 && f->run_at == f->run_count) ojo__r_close_file(r, f);
  else if (!f->kept_bytes) ojo__r_release(&f->map, from, to);
  if (r->leaves > 64 && r->active < r->leaves / 8) ojo__r_resize_tree(r, r->leaves / 4);
}

/* ---- >>follow ---------------------------------------------------------------------------------- */

static bool ojo__r_stopped(const ojo_reader *r) {
  return __atomic_load_n(&r->stop, __ATOMIC_RELAXED) != 0;
}

/* Lists the directories again. True: there are new files. */
static bool ojo__r_look(ojo_reader *r) {
  uint32_t before = r->file_count;
  for (size_t i = 0; i < r->directory_count; i++) ojo__r_list(r, (uint32_t)i);
  ojo__r_align(r);
  uint32_t after = r->file_count;
  for (uint32_t i = before; i < after; i++) ojo__r_note_times(r, r->files[i]);
  ojo__r_plan(r);
  for (uint32_t i = before; i < after; i++) ojo__r_queue_file(r, r->files[i]);
  return after > before;
}
/* True: there is more to read. False: stopped. */
static bool ojo__r_wait(ojo_reader *r) {
  bool told = false;
  while (!ojo__r_stopped(r)) {
    if (ojo__r_look(r)) return true;
    if (!told && r->idle) r->idle(r->idle_user);
    told = true;
    struct pollfd wake;
    wake.fd = r->wake; /* -1: poll just sleeps */
    wake.events = POLLIN;
    (void)poll(&wake, 1, (int)(r->wake < 0 && r->poll_ms > 100 ? 100 : r->poll_ms));
  }
  return false;
}

/* ---- >>next ------------------------------------------------------------------------------------ */

static void ojo__r_start(ojo_reader *r) {
  r->started = true;
  ojo__r_plan(r);
  if (r->chain) ojo__r_make_flows(r);
  for (uint32_t i = 0; i < r->file_count; i++) ojo__r_queue_file(r, r->files[i]);
}
/* It is c's turn: its events up to `last` (a key), but at least the one that it stands at, may be handed out with
 * no further question. */
static inline void ojo__r_begin_turn(ojo_reader *r, struct ojo__r_cursor *c, uint64_t last) {
  /* Of many runs at once the processor's own prefetcher loses track: the run's next turn will want this. */
  __builtin_prefetch(c->at + 256);
  if (r->bursts > 0) {
    __builtin_prefetch(c->at + 320);
    __builtin_prefetch(c->at + 384);
  }
  uint64_t ts_last = last == UINT64_MAX ? last : last > c->base ? last - c->base : 0;
  r->ts_last = ts_last < c->head_ts ? c->head_ts : ts_last;
  r->turn = c->at;
  r->current = c;
}
/* Behind a turn: the same run's next one, or that of the run that is first now. False: the end. */
static OJO__R_RARE bool ojo__r_advance(ojo_reader *r) {
  struct ojo__r_cursor *c = r->current;
  struct ojo__r_played played = {NULL, 0}; /* first: who is it, if that is known */
  bool met = false;                        /* played.rival is of played.first */
  if (ojo__r_stopped(r)) return false;
  if (!r->started) ojo__r_start(r);
  r->current = &r->nothing;
  if (c != &r->nothing) {
    bool several = !c->window && c->at > r->turn + OJO_SLOT_BYTES;
    if (ojo__r_load(r, c)) {
      played = ojo__r_play(r, c->leaf, c->key, c);
      met = played.first == c;
      several = several || met;
      r->bursts = several ? (r->bursts < 8 ? r->bursts + 2 : r->bursts) : (r->bursts > -8 ? r->bursts - 1 : r->bursts);
    } else {
      ojo__r_leave(r, c);
    }
  }
  for (;;) {
    c = played.first ? played.first : r->leaves ? r->tree[1].cursor : NULL;
    bool due = r->pending_count && (!c || r->pending[0].key <= c->key);
    if (OJO__LIKELY(c && !due)) break;
    if (due && r->active < OJO__R_ACTIVE_MAX) {
      ojo__r_admit(r);
      played.first = NULL;
      met = false;
    } else if (c) {
      ojo__r_cursor_error(r, c, c->begin, "more than 65,536 runs at one time: events may come late");
      break;
    } else if (!r->follow || !ojo__r_wait(r)) {
      return false;
    }
    if (ojo__r_stopped(r)) return false;
  }
  if (r->bursts > 0 && !met) { /* worth to know at once, where a run has many turns in a row */
    played.rival = ojo__r_rival(r, c->leaf);
    met = true;
  }
  uint64_t last = r->active == 1 ? UINT64_MAX : met && played.rival > c->key ? played.rival - 1 : c->key;
  if (r->pending_count && r->pending[0].key <= last) last = r->pending[0].key - (r->pending[0].key != 0);
  ojo__r_begin_turn(r, c, last);
  return true;
}

static bool ojo__r_listed(const uint64_t *sorted, size_t count, uint64_t value) {
  size_t low = 0;
  while (count > 8) { /* halve: what is left is [low, low + count) */
    size_t half = count / 2;
    if (sorted[low + half] <= value) low += half, count -= half;
    else count = half;
  }
  for (size_t i = 0; i < count; i++)
    if (sorted[low + i] == value) return true;
  return false;
}
static OJO__R_RARE bool ojo__r_passes(ojo_reader *r, const ojo_reader_event *e) {
  bool of_thread = e->category == 15 && e->type == OJO_EVENTS_DROPPED; /* of no flow */
  if (r->since_ns && e->time_ns < r->since_ns) return false;
  if (r->until_ns && e->time_ns >= r->until_ns) return false;
  if (r->flow_count && (of_thread || !ojo__r_listed(r->flows, r->flow_count, e->flow))) return false;
  if (r->type_count && !ojo__r_listed(r->types, r->type_count, e->type)) return false;
  if (r->category_mask && !(r->category_mask >> e->category & 1)) return false;
  if (r->category_count && !(r->category_bits >> e->category & 1)) {
    const char *category = ojo__r_type(r, e->trace, e->type)->category;
    size_t i = 0;
    while (i < r->category_count && strcmp(r->categories[i], category) != 0) i++;
    if (i == r->category_count) return false;
  }
  return !r->chain || (!of_thread && ojo__r_in_chain(r, e->trace, e->flow));
}

/* ---- what ojo_reader_next does rarely, out of its line: it needs no stack then */

static OJO__R_RARE void ojo__r_fill_extension(ojo_reader *r, ojo_reader_event *e,
                                              const unsigned char *from, const unsigned char *to) {
  ojo_value_kind kind = ojo__r_type(r, e->trace, e->type)->value_kind;
  e->extension = from;
  e->extension_bytes = (uint32_t)(to - from);
  e->has_number = kind == OJO_VALUE_NUMBER || kind == OJO_VALUE_RANGE;
  e->number = e->has_number ? ojo__r_load64(from) : 0;
}
static OJO__R_RARE bool ojo__r_custom_range(ojo_reader *r, uint32_t type) {
  return ojo__r_type(r, r->current->trace, type)->value_kind == OJO_VALUE_RANGE;
}
static inline bool ojo__r_standard_range(uint32_t type) {
  return type - OJO_OFFSET_SENT <= OJO_OFFSET_RECEIVED - OJO_OFFSET_SENT;
}
static inline const unsigned char *ojo__r_gone_now(const struct ojo__r_cursor *c) {
  return (const unsigned char *)__atomic_load_n(c->gone, __ATOMIC_RELAXED);
}
/* Since it was checked, the file has changed or shrunk at c->at: the run ends there. */
static void ojo__r_changed(ojo_reader *r, struct ojo__r_cursor *c) {
  ojo__r_cursor_error(r, c, c->at, "the file changed while it was read");
  c->end = c->segment_end = c->at_end = c->at;
  c->window_at = c->window_emit = c->window_count = 0;
}
/* A version 1 record; its drops look like version 2's. False: there is none in this turn. */
static bool ojo__r_next_version1(ojo_reader *r, struct ojo__r_cursor *c, ojo_reader_event *e) {
  uint64_t word[5];
  memcpy(word, c->at, sizeof word);
  if (word[0] > r->ts_last) return false;
  if (c->at + OJO__R_V1_RECORD_BYTES > ojo__r_gone_now(c)) {
    ojo__r_changed(r, c);
    return false;
  }
  c->at += OJO__R_V1_RECORD_BYTES;
  bool dropped = word[1] == UINT64_MAX && word[2] == UINT64_MAX;
  const ojo_reader_trace_info *trace = &r->traces[c->trace]->info;
  memset(e, 0, sizeof *e);
  e->time_ns = ojo__r_add(c->base, word[0]);
  e->ts = e->time_ns > trace->start_unix_ns ? e->time_ns - trace->start_unix_ns : 0;
  e->flow = dropped ? 0 : word[1];
  e->type = dropped ? (uint64_t)OJO_EVENTS_DROPPED : word[2];
  e->payload = word[3];
  e->number = dropped ? 0 : word[4];
  e->has_number = !dropped;
  e->trace = c->trace;
  e->category = dropped ? 15 : ojo__r_category_by_name(ojo__r_type(r, c->trace, word[2])->category);
  return true;
}
/* *e as the slot tells it, but for what is rare: an extension, the application's types, EVENTS_DROPPED. Without
 * a branch on SIZED: of many threads at once no predictor can know which event is. */
static inline void ojo__r_fill(const struct ojo__r_cursor *c, ojo_reader_event *e, uint64_t time, uint64_t ts,
                               uint64_t word, uint64_t payload, bool range) {
  uint64_t mask = (uint64_t)0 - (word / OJO_SIZED & 1); /* all ones: SIZED */
  uint64_t value = payload & ~(mask << OJO_SIZED_VALUE_BITS);
  e->time_ns = time;
  e->ts = ts;
  e->flow = word >> 32;
  e->type = word & OJO_TYPE_MASK;
  e->payload = value;
  e->number = (payload >> OJO_SIZED_VALUE_BITS & mask) + (range ? value & mask : 0);
  e->extension = NULL;
  e->extension_bytes = 0;
  e->thread = c->thread;
  e->trace = c->trace;
  e->level = c->level;
  e->category = (uint8_t)(word >> 8 & 15);
  e->has_number = (word & OJO_SIZED) != 0;
}
/* The next event, whatever it is and whosever turn. */
static OJO__R_RARE bool ojo__r_next_any(ojo_reader *r, ojo_reader_event *e) {
  for (;;) {
    struct ojo__r_cursor *c = r->current;
    const unsigned char *p = c->at, *end = c->end;
    if (p >= c->at_end || (!c->version1 && ojo__r_load64(p) > r->ts_last) ||
        (c->version1 && !ojo__r_next_version1(r, c, e))) {
      if (!ojo__r_advance(r)) return false;
      continue;
    }
    if (!c->version1) {
      uint64_t ts = ojo__r_load64(p), word = ojo__r_load64(p + 8), payload = ojo__r_load64(p + 16);
      uint32_t raw = (uint32_t)word, type = raw & OJO_TYPE_MASK;
      const unsigned char *next = p + OJO_SLOT_BYTES + (raw >> OJO_EXTENSION_SHIFT) * OJO_SLOT_BYTES;
      if (OJO__UNLIKELY(c->row)) end = p + r->told[c->row - 1].slots * OJO_SLOT_BYTES;
      if (next > end || next > ojo__r_gone_now(c) || type == OJO_RUN || (ts | word | payload) == 0) {
        ojo__r_changed(r, c);
        continue;
      }
      c->at = next;
      if (type == OJO_THREAD) continue;
      ojo__r_fill(c, e, ojo__r_add(c->base, ts), ts, word, payload, ojo__r_standard_range(type));
      if (type == OJO_EVENTS_DROPPED) e->flow = 0;
      if (type >= OJO_APPLICATION_TYPE_FIRST) {
        e->category = 16;
        if ((raw & OJO_SIZED) && ojo__r_custom_range(r, type)) e->number += e->payload;
      }
      if (raw >> OJO_EXTENSION_SHIFT) ojo__r_fill_extension(r, e, p + OJO_SLOT_BYTES, next);
    }
    if (r->filtered && !ojo__r_passes(r, e)) continue;
    return OJO__LIKELY(!ojo__r_stopped(r));
  }
}

/* ---- >>public ---------------------------------------------------------------------------------- */

/* The bulk is done here: a standard type without an extension, while nothing else precedes. It has nothing to keep
 * over a call, and so needs no stack. */
OJO_READER_API bool ojo_reader_next(ojo_reader *r, ojo_reader_event *e) {
  struct ojo__r_cursor *c = r->current;
  const unsigned char *p = c->at;
  if (OJO__UNLIKELY(p >= c->at_end || c->careful)) return ojo__r_next_any(r, e);
  /* three loads rather than a struct, which the compiler would copy to the stack and read back */
  uint64_t ts = ojo__r_load64(p), word = ojo__r_load64(p + 8), payload = ojo__r_load64(p + 16);
  uint32_t type = (uint32_t)word & ~OJO_SIZED; /* with an extension it is beyond all types */
  uint64_t time = c->base + ts;
  if (OJO__UNLIKELY(ts > r->ts_last || p + OJO_SLOT_BYTES > ojo__r_gone_now(c) ||
                    type - 1 >= OJO_EVENTS_DROPPED - 1u || time < ts))
    return ojo__r_next_any(r, e);
  c->at = p + OJO_SLOT_BYTES;
  ojo__r_fill(c, e, time, ts, word, payload, ojo__r_standard_range(type));
  return OJO__LIKELY(!ojo__r_stopped(r));
}

static bool ojo__r_copy_list(ojo_reader *r, const uint64_t *from, size_t count, uint64_t **to,
                             size_t *to_count) {
  if (count == 0 || !from) return true;
  *to = (uint64_t *)ojo__r_alloc(r, count * sizeof **to);
  if (!*to) return false;
  *to_count = count;
  for (size_t i = 0; i < count; i++) { /* sorted by insertion: lists are short */
    size_t at = i;
    for (; at && (*to)[at - 1] > from[i]; at--) (*to)[at] = (*to)[at - 1];
    (*to)[at] = from[i];
  }
  return true;
}
static bool ojo__r_copy_filters(ojo_reader *r, const ojo_reader_desc *desc) {
  r->since_ns = desc->since_ns;
  r->until_ns = desc->until_ns;
  r->chain = desc->chain;
  r->category_mask = desc->category_mask;
  if (!ojo__r_copy_list(r, desc->flows, desc->flow_count, &r->flows, &r->flow_count)) return false;
  if (!ojo__r_copy_list(r, desc->types, desc->type_count, &r->types, &r->type_count)) return false;
  if (desc->thread_count && desc->threads) {
    r->threads = (uint32_t *)ojo__r_alloc(r, desc->thread_count * sizeof *r->threads);
    if (!r->threads) return false;
    memcpy(r->threads, desc->threads, desc->thread_count * sizeof *r->threads);
    r->thread_count = desc->thread_count;
  }
  if (desc->category_count && desc->categories) {
    r->categories = (char **)ojo__r_alloc(r, desc->category_count * sizeof *r->categories);
    if (!r->categories) return false;
    for (size_t i = 0; i < desc->category_count; i++) {
      r->categories[i] = ojo__r_copy_text(r, desc->categories[i]);
      if (!r->categories[i]) return false;
      uint32_t bit = ojo__r_category_by_name(desc->categories[i]);
      if (bit != 16 || strcmp(desc->categories[i], "Application") == 0) r->category_bits |= 1u << bit;
      r->category_count++;
    }
  }
  if (r->category_bits >> 16 & 1) r->category_bits ^= 1u << 16; /* by name alone: types may have others */
  if (desc->trace_id) {
    memcpy(r->trace_id, desc->trace_id, 16);
    r->has_trace_id = true;
  }
  r->filtered = r->since_ns || r->until_ns || r->chain || r->category_mask || r->flow_count ||
                r->type_count || r->category_count;
  return true;
}
static bool ojo__r_add_memory(ojo_reader *r, const void *memory, size_t bytes) {
  struct ojo__r_file *f = ojo__r_new_file(r, "(memory)");
  if (!f) return false;
  f->bytes = bytes;
  f->pinned.base = (const unsigned char *)memory;
  f->pinned.bytes = bytes;
  if ((uintptr_t)memory % 8 != 0) { /* runs are handed out as slots, which are aligned: one copy */
    unsigned char *copy = (unsigned char *)ojo__r_alloc(r, bytes + !bytes);
    if (!copy) {
      ojo__r_file_free(r, f);
      return false;
    }
    memcpy(copy, memory, bytes);
    r->aligned_copy = copy;
    f->pinned.base = copy;
  }
  ojo__r_take_file(r, f, -1);
  return true;
}
static bool ojo__r_add_sources(ojo_reader *r, const ojo_reader_desc *desc) {
  size_t paths = desc->path_count + (desc->path != NULL);
  r->sources = paths;
  r->directories = (struct ojo__r_directory *)ojo__r_alloc(r, (paths + 1) * sizeof *r->directories);
  r->pools = (struct ojo__r_pool *)ojo__r_alloc(r, (paths + 1) * sizeof *r->pools);
  if (!r->directories || !r->pools) return false;
  if (desc->memory && !ojo__r_add_memory(r, desc->memory, desc->memory_bytes)) return false;
  if (desc->path && !ojo__r_add_path(r, desc->path)) return false;
  for (size_t i = 0; i < desc->path_count; i++)
    if (!ojo__r_add_path(r, desc->paths[i])) return false;
  ojo__r_free(r, r->file_hash); /* by index, which a followed directory's files do not keep */
  r->file_hash = NULL;
  r->sources = 0;
  ojo__r_align(r);
  for (uint32_t i = 0; i < r->file_count; i++) ojo__r_note_times(r, r->files[i]);
  return true;
}

OJO_READER_API ojo_result ojo_reader_open(ojo_reader **out, const ojo_reader_desc *desc) {
  ojo_reader_desc copy;
  if (!out) return OJO_ERR_ARGUMENT;
  *out = NULL;
  if (!desc || (!desc->path && !desc->path_count && !desc->memory) || (desc->path_count && !desc->paths))
    return OJO_ERR_ARGUMENT;
  if (desc->allocator.alloc && !desc->allocator.free) return OJO_ERR_ARGUMENT;
  copy = *desc;
  ojo_reader *r =
      (ojo_reader *)(copy.allocator.alloc ? copy.allocator.alloc(copy.allocator.user, sizeof *r)
                                          : malloc(sizeof *r));
  if (!r) return OJO_ERR_MEMORY;
  memset(r, 0, sizeof *r);
  r->allocator = copy.allocator;
  r->current = &r->nothing;
  r->follow = copy.follow;
  r->unguarded = copy.unguarded;
  r->idle = copy.idle;
  r->idle_user = copy.idle_user;
  r->poll_ms = copy.follow_poll_ms ? copy.follow_poll_ms : 100;
  if (r->poll_ms > 60000) r->poll_ms = 60000;
  r->chain_epoch = 1;
  struct timespec now = {0, 0};
  clock_gettime(CLOCK_MONOTONIC, &now);
  r->salt = ojo__r_mix((uint64_t)(uintptr_t)r ^ (uint64_t)now.tv_nsec << 32 ^ (uint64_t)now.tv_sec);
  r->wake = copy.follow ? eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK) : -1;
  ojo__r_make_standard(r);
  if (!ojo__r_copy_filters(r, &copy) || !ojo__r_add_sources(r, &copy)) {
    ojo_reader_close(r);
    return OJO_ERR_MEMORY;
  }
  *out = r;
  if (r->file_count || r->error_count == 0) return OJO_OK;
  /* nothing readable: the reason, if there is but one kind of it */
  ojo_result result = r->errors_kept ? r->errors[0].result : OJO_ERR_MEMORY;
  for (size_t i = 1; i < r->errors_kept; i++)
    if (r->errors[i].result != result) return OJO_ERR_FORMAT;
  return result;
}

static void ojo__r_drop_merge(ojo_reader *r) {
  for (uint32_t i = r->leaves; r->tree && i < 2u * r->leaves; i++)
    if (r->tree[i].cursor) ojo__r_cursor_free(r, r->tree[i].cursor);
  ojo__r_free(r, r->tree);
  r->tree = NULL;
  r->leaves = r->active = r->free_leaf = r->pending_count = 0;
  r->current = &r->nothing;
  for (uint32_t i = 0; i < r->file_count; i++) {
    struct ojo__r_file *f = r->files[i];
    ojo__r_unmap(&f->map);
    if (f->runs) r->runs_indexed -= f->run_capacity;
    ojo__r_free(r, f->runs);
    f->runs = NULL;
    f->run_capacity = 0;
    f->run_count = f->run_at = f->cursors = 0;
    f->bytes_read = f->kept_bytes = 0;
  }
  r->kept_bytes = 0;
  ojo__r_unmap(&r->scan_map);
  r->scan_open = false;
  r->scan_file = 0;
}
OJO_READER_API void ojo_reader_close(ojo_reader *r) {
  if (!r) return;
  ojo__r_drop_merge(r);
  for (uint32_t i = 0; i < r->file_count; i++) ojo__r_file_free(r, r->files[i]);
  for (uint32_t i = 0; i < r->trace_count; i++) {
    ojo__r_free(r, r->traces[i]->directory);
    ojo__r_free(r, r->traces[i]);
  }
  for (struct ojo__r_schema *s = r->schemas, *next; s; s = next) {
    next = s->next;
    ojo__r_schema_free(r, s);
  }
  for (struct ojo__r_cursor *c = r->spare, *next; c; c = next) {
    next = (struct ojo__r_cursor *)(uintptr_t)c->begin;
    ojo__r_free(r, c);
  }
  for (size_t i = 0; i < r->errors_kept; i++)
    if (r->errors[i].path[0]) ojo__r_free(r, (void *)(uintptr_t)r->errors[i].path);
  for (size_t i = 0; i < r->category_count; i++) ojo__r_free(r, r->categories[i]);
  for (size_t i = 0; i < r->directory_count; i++) ojo__r_free(r, r->directories[i].path);
  for (size_t i = 0; i < OJO__R_FLOWS_MAX / OJO__R_FLOW_BLOCK; i++) ojo__r_free(r, r->flow_blocks[i]);
  for (size_t i = 0; i <= OJO__R_FLOW_VIEWS / OJO__R_VIEW_BLOCK; i++) ojo__r_free(r, r->flow_views[i]);
  void *const owned[] = {r->files,        r->traces,      r->trace_hash,  r->pending,    r->scratch,
                         r->flows,        r->types,       r->threads,     r->categories, r->unknown,
                         r->thread_table, r->thread_hash, r->handlers,    r->errors,     r->error_hash,
                         r->flow_hash,    r->flow_text,   r->directories, r->seen,       r->aligned_copy,
                         r->spans,        r->owners,      r->rows,        r->mentions,   r->known,
                         r->told,         r->file_hash,   r->pools};
  for (size_t i = 0; i < sizeof owned / sizeof *owned; i++) ojo__r_free(r, owned[i]);
  if (r->wake >= 0) close(r->wake);
  ojo__r_free(r, r);
}
OJO_READER_API void ojo_reader_rewind(ojo_reader *r) {
  uint64_t drained;
  ojo__r_drop_merge(r);
  r->bytes_read = 0;
  r->started = false;
  for (uint32_t i = 0; i < r->trace_count; i++) r->traces[i]->info.dropped = 0;
  if (r->wake >= 0 && read(r->wake, &drained, sizeof drained) < 0) drained = 0; /* there may be nothing */
  __atomic_store_n(&r->stop, 0, __ATOMIC_RELAXED);
  if (!r->follow) return;
  ojo__r_plan_forget(r);
  /* what was read is forgotten by then: the directories are listed anew */
  uint32_t kept = 0;
  r->bytes_total = 0;
  for (uint32_t i = 0; i < r->trace_count; i++) r->traces[i]->info.files = r->traces[i]->info.bytes = 0;
  for (uint32_t i = 0; i < r->file_count; i++) {
    struct ojo__r_file *f = r->files[i];
    r->files[i] = NULL;
    if (f->member) {
      ojo__r_file_free(r, f);
      continue;
    }
    r->bytes_total += f->bytes;
    r->traces[f->trace]->info.files++;
    r->traces[f->trace]->info.bytes += f->bytes;
    f->index = kept;
    r->files[kept++] = f;
  }
  r->file_count = kept;
  ojo__r_free(r, r->seen);
  r->seen = NULL;
  r->seen_size = r->seen_count = 0;
  for (size_t i = 0; i < r->directory_count; i++) r->directories[i].listed = false;
}
OJO_READER_API void ojo_reader_stop(ojo_reader *r) {
  const uint64_t one = 1;
  int saved = errno;
  if (!r) return;
  __atomic_store_n(&r->stop, 1, __ATOMIC_RELAXED);
  if (r->wake >= 0 && write(r->wake, &one, sizeof one) < 0) errno = saved; /* full: it wakes anyhow */
  errno = saved;
}

OJO_READER_API ojo_result ojo_reader_on(ojo_reader *r, uint64_t type,
                                        void (*handler)(void *user, const ojo_reader_event *event),
                                        void *user) {
  if (!r || !handler) return OJO_ERR_ARGUMENT;
  void *grown =
      ojo__r_grown(r, r->handlers, &r->handler_capacity, r->handler_count + 1, sizeof *r->handlers);
  if (!grown) return OJO_ERR_MEMORY;
  r->handlers = (struct ojo__r_handler *)grown;
  struct ojo__r_handler *h = &r->handlers[r->handler_count++];
  h->type = type;
  h->fn = handler;
  h->user = user;
  return OJO_OK;
}
OJO_READER_API ojo_result ojo_reader_run(ojo_reader *r) {
  ojo_reader_event e;
  while (ojo_reader_next(r, &e))
    for (size_t i = 0; i < r->handler_count; i++)
      if (r->handlers[i].type == OJO_READER_ANY || r->handlers[i].type == e.type)
        r->handlers[i].fn(r->handlers[i].user, &e);
  return r->error_count ? OJO_ERR_FORMAT : OJO_OK;
}

/* Piece number scan_at - 1 of a planned file, as a run. Rows are told as they are given, not as in the file. */
static bool ojo__r_view_piece(ojo_reader *r, const struct ojo__r_file *f, ojo_reader_run_view *view) {
  const struct ojo__r_piece *piece = &f->pieces[r->scan_at - 1];
  if (piece->row) {
    view->slots = r->told[piece->row - 1].slot;
    view->slot_count = r->told[piece->row - 1].slots;
  } else if (piece->to > ojo__r_sound(&r->scan_map)) {
    return ojo__r_shrank(r, f, piece->from);
  } else {
    view->slots = (const ojo_event *)(const void *)(r->scan_map.base + piece->from);
    view->slot_count = (piece->to - piece->from) / OJO_SLOT_BYTES;
  }
  view->first_ts = piece->first_ts;
  view->last_ts = piece->last_ts;
  view->thread = piece->thread;
  view->tid = piece->tid;
  view->trace = f->trace;
  view->events = piece->events;
  view->flags = piece->flags;
  view->level = piece->level;
  view->first_ordinal = piece->ordinal;
  view->lost_before = piece->lost_before;
  return true;
}
OJO_READER_API bool ojo_reader_next_run(ojo_reader *r, ojo_reader_run_view *view) {
  struct ojo__r_run run;
  ojo__r_plan(r);
  for (; r->scan_file < r->file_count; r->scan_file++) {
    struct ojo__r_file *f = r->files[r->scan_file];
    if (!r->scan_open) {
      if (f->version == 1 || (f->planned ? f->piece_count == 0 : f->skip) || f->slot_count == 0 ||
          !ojo__r_map_file(r, f, &r->scan_map))
        continue;
      r->scan_open = true;
      r->scan_at = r->scan_released = f->planned ? 0 : f->header_bytes;
    }
    while (f->planned && r->scan_at < f->piece_count) {
      if (r->scan_at++ % 512 == 511) ojo__r_release(&r->scan_map, 0, r->scan_map.bytes);
      if (ojo__r_view_piece(r, f, view)) return true;
    }
    if (!f->planned && r->scan_at - r->scan_released > OJO__R_SCAN_RELEASE_BYTES) {
      ojo__r_release(&r->scan_map, r->scan_released, r->scan_at);
      r->scan_released = r->scan_at;
    }
    while (!f->planned && ojo__r_walk(r, f, &r->scan_map, ojo__r_slots_end(f, &r->scan_map), r->scan_at, &run)) {
      r->scan_at = run.next;
      if (run.slot_count == 0 || !ojo__r_run_intact(r, f, &r->scan_map, &run)) continue;
      view->slots = (const ojo_event *)(const void *)(r->scan_map.base + run.slots_at);
      view->slot_count = run.slot_count;
      view->first_ts = run.slot.ts;
      view->last_ts = run.run.last_ts;
      view->thread = run.slot.flow;
      view->tid = run.run.tid;
      view->trace = f->trace;
      view->events = run.run.events;
      view->flags = run.run.flags;
      view->level = run.run.level;
      view->first_ordinal = run.run.first_ordinal;
      view->lost_before = run.run.lost_before;
      return true;
    }
    ojo__r_unmap(&r->scan_map);
    r->scan_open = false;
  }
  return false;
}

OJO_READER_API const ojo_reader_type_info *ojo_reader_type(ojo_reader *r, const ojo_reader_event *event) {
  return ojo__r_type(r, event->trace, event->type);
}
static void ojo__r_note_type(uint64_t type, uint64_t *types, size_t max, size_t *count) {
  for (size_t i = 0; i < *count && i < max; i++)
    if (types[i] == type) return;
  if (*count < max) types[*count] = type;
  (*count)++;
}
OJO_READER_API size_t ojo_reader_types_by_name(ojo_reader *r, const char *name, uint64_t *types,
                                               size_t max) {
  size_t count = 0;
  for (uint32_t i = 0; i < r->standard_count; i++)
    if (strcmp(r->standard[i].name, name) == 0)
      ojo__r_note_type(r->standard[i].value, types, max, &count);
  for (const struct ojo__r_schema *s = r->schemas; s; s = s->next)
    for (size_t i = 0; i < s->count; i++)
      if (strcmp(s->types[i].name, name) == 0) ojo__r_note_type(s->types[i].value, types, max, &count);
  if (count == 0 && name[0] >= '0' && name[0] <= '9') {
    char *end;
    errno = 0;
    uint64_t type = strtoull(name, &end, name[1] == 'x' || name[1] == 'X' ? 16 : 10);
    if (*end == 0 && errno == 0) ojo__r_note_type(type, types, max, &count);
  }
  return count;
}

OJO_READER_API bool ojo_reader_category_known(const ojo_reader *r, const char *name) {
  if (strcmp(name, "Application") == 0 || ojo__r_category_by_name(name) != 16) return true;
  for (const struct ojo__r_schema *s = r->schemas; s; s = s->next)
    for (size_t i = 0; i < s->count; i++)
      if (strcmp(s->types[i].category, name) == 0) return true;
  return false;
}

OJO_READER_API uint32_t ojo_reader_trace_count(const ojo_reader *r) { return r->trace_count; }
OJO_READER_API const ojo_reader_trace_info *ojo_reader_trace(const ojo_reader *r, uint32_t index) {
  return index < r->trace_count ? &r->traces[index]->info : NULL;
}
OJO_READER_API const char *ojo_reader_thread(ojo_reader *r, uint32_t trace, uint32_t thread,
                                             uint32_t *tid) {
  struct ojo__r_thread *t = ojo__r_thread_of(r, trace, thread, false);
  if (tid) *tid = t ? t->tid : 0;
  return t ? t->name : "";
}

/* `bytes` of text into a string of `room` bytes; cut at a whole character. */
static void ojo__r_cut_text(char *to, size_t room, const unsigned char *from, size_t bytes) {
  if (bytes > room - 1) {
    bytes = room - 1;
    while (bytes && (from[bytes] & 0xC0) == 0x80) bytes--;
  }
  memcpy(to, from, bytes);
  to[bytes] = 0;
}
static void ojo__r_flow_details(const unsigned char *p, uint32_t length, ojo_reader_flow_info *info) {
  ojo_flow_record record;
  memcpy(&record, p, sizeof record);
  size_t address = record.address_bytes == 4 || record.address_bytes == 16 ? record.address_bytes : 0;
  size_t id = record.id_bytes <= 20 ? record.id_bytes : 0, at = sizeof record;
  if (at + id + 2 * address + record.protocol_bytes + record.label_bytes > length) return;
  info->local_port = record.local_port;
  info->remote_port = record.remote_port;
  info->id_bytes = (uint8_t)id;
  info->address_bytes = (uint8_t)address;
  memcpy(info->id, p + at, id);
  memcpy(info->local_address, p + at + id, address);
  memcpy(info->remote_address, p + at + id + address, address);
  at += id + 2 * address;
  ojo__r_cut_text(info->protocol, sizeof info->protocol, p + at, record.protocol_bytes);
  ojo__r_cut_text(info->label, sizeof info->label, p + at + record.protocol_bytes, record.label_bytes);
}
/* Where flow `index` is shown: a place of its own, or, past the first 16,384, one of 64 in turn. */
static ojo_reader_flow_info *ojo__r_flow_view(ojo_reader *r, uint32_t index) {
  uint32_t view =
      index < OJO__R_FLOW_VIEWS ? index : OJO__R_FLOW_VIEWS + r->flow_view++ % OJO__R_VIEW_BLOCK;
  ojo_reader_flow_info **block = &r->flow_views[view / OJO__R_VIEW_BLOCK];
  if (!*block) *block = (ojo_reader_flow_info *)ojo__r_alloc(r, OJO__R_VIEW_BLOCK * sizeof **block);
  return *block ? *block + view % OJO__R_VIEW_BLOCK : NULL;
}
static const ojo_reader_flow_info *ojo__r_show_flow(ojo_reader *r, uint32_t index) {
  const struct ojo__r_flow *f = ojo__r_flow_row(r, index);
  ojo_reader_flow_info *info = ojo__r_flow_view(r, index);
  if (!info) return NULL;
  memset(info, 0, sizeof *info);
  info->flow = f->flow;
  info->parent = f->parent;
  info->key = f->key;
  info->first_ns = f->first_ns;
  info->last_ns = f->last_ns;
  info->events = f->events;
  info->trace = f->trace;
  info->kind = f->kind;
  info->role = f->role;
  info->collision = (f->bits & OJO__R_FLOW_COLLISION) != 0;
  if (f->text != OJO__R_NONE) {
    uint32_t length;
    memcpy(&length, r->flow_text + f->text, sizeof length);
    ojo__r_flow_details(r->flow_text + f->text + sizeof length, length, info);
  }
  return info;
}
OJO_READER_API const ojo_reader_flow_info *ojo_reader_flow_in(ojo_reader *r, uint32_t trace,
                                                              uint64_t flow) {
  ojo__r_make_flows(r);
  /* found: last_flow is its index */
  return flow && ojo__r_flow_of(r, trace, flow, false) ? ojo__r_show_flow(r, r->last_flow) : NULL;
}
OJO_READER_API const ojo_reader_flow_info *ojo_reader_flow(ojo_reader *r, uint64_t flow) {
  for (uint32_t trace = 0; trace < r->trace_count; trace++) {
    const ojo_reader_flow_info *info = ojo_reader_flow_in(r, trace, flow);
    if (info) return info;
  }
  return NULL;
}
OJO_READER_API uint64_t ojo_reader_flow_count(ojo_reader *r) {
  ojo__r_make_flows(r);
  return r->flow_table_count;
}
OJO_READER_API const ojo_reader_flow_info *ojo_reader_flow_at(ojo_reader *r, uint64_t index) {
  ojo__r_make_flows(r);
  return index < r->flow_table_count ? ojo__r_show_flow(r, (uint32_t)index) : NULL;
}

OJO_READER_API uint64_t ojo_reader_error_count(const ojo_reader *r) { return r->error_count; }
OJO_READER_API const ojo_reader_error *ojo_reader_error_at(const ojo_reader *r, uint64_t index) {
  return index < r->errors_kept ? &r->errors[index] : NULL;
}
/* Of a run under way: what is out, or at least that much. */
static uint64_t ojo__r_bytes_out(const struct ojo__r_cursor *c) {
  uint64_t slot = c->file->version == 1 ? OJO__R_V1_RECORD_BYTES : OJO_SLOT_BYTES;
  if (c->window) return (uint64_t)(c->segment_end - c->begin) - (c->window_count - c->window_at) * slot;
  return (uint64_t)(c->at - c->begin);
}
OJO_READER_API uint64_t ojo_reader_progress(const ojo_reader *r, uint64_t *total_bytes) {
  uint64_t bytes = r->bytes_read;
  for (uint32_t i = r->leaves; r->tree && i < 2 * r->leaves; i++)
    if (r->tree[i].cursor) bytes += ojo__r_bytes_out(r->tree[i].cursor);
  if (total_bytes) *total_bytes = r->bytes_total;
  return bytes;
}

/* The pool that a link file names: 1 if it is there and no process holds its lock, which lives as long as
 * the process does; but 0 if we read it. */
static uint64_t ojo__r_pool_is_dead(const ojo_reader *r, const char *link) {
  char name[4096];
  struct stat st;
  if (!ojo__r_read_link(link, name, sizeof name)) return 0;
  int fd = open(name, O_RDONLY | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK);
  if (fd < 0) return 0;
  bool dead = fstat(fd, &st) == 0 && S_ISREG(st.st_mode) && flock(fd, LOCK_EX | LOCK_NB) == 0;
  close(fd); /* which unlocks it */
  for (size_t i = 0; i < r->pool_count; i++)
    if (r->pools[i].read && r->pools[i].inode == (uint64_t)st.st_ino && r->pools[i].device == (uint64_t)st.st_dev)
      return 0;
  return dead;
}
OJO_READER_API uint64_t ojo_reader_dead_pools(ojo_reader *r) {
  uint64_t count = 0;
  for (size_t i = 0; i < r->directory_count; i++) {
    char *staging = ojo__r_join(r, r->directories[i].path, "staging");
    DIR *listing = staging ? opendir(staging) : NULL;
    for (struct dirent *entry; listing && (entry = readdir(listing)) != NULL;) {
      if (!ojo__r_is_link_name(entry->d_name)) continue;
      char *link = ojo__r_join(r, staging, entry->d_name);
      if (link) count += ojo__r_pool_is_dead(r, link);
      ojo__r_free(r, link);
    }
    if (listing) closedir(listing);
    ojo__r_free(r, staging);
  }
  return count;
}

static bool ojo__r_record(const ojo_reader_event *event, void *out, size_t bytes) {
  if (!event->extension || event->extension_bytes < bytes) return false;
  memcpy(out, event->extension, bytes);
  return true;
}
OJO_READER_API bool ojo_reader_dropped(const ojo_reader_event *event, ojo_dropped *out) {
  return event->type == OJO_EVENTS_DROPPED && ojo__r_record(event, out, sizeof *out);
}
OJO_READER_API bool ojo_reader_rtt(const ojo_reader_event *event, ojo_rtt *out) {
  return (event->type == OJO_RTT_SAMPLE || event->type == OJO_KERNEL_TCP_RTT) &&
         ojo__r_record(event, out, sizeof *out);
}
OJO_READER_API bool ojo_reader_kernel_connection(const ojo_reader_event *event, ojo_kernel_connection *out) {
  return event->type == OJO_KERNEL_CONNECTION && ojo__r_record(event, out, sizeof *out);
}
OJO_READER_API bool ojo_reader_kernel_totals(const ojo_reader_event *event, ojo_kernel_totals *out) {
  return (event->type == OJO_KERNEL_TCP_FINISHED || event->type == OJO_KERNEL_UDP_FINISHED) &&
         ojo__r_record(event, out, sizeof *out);
}

#endif
#endif /* OJO_READER_IMPLEMENTATION_GUARD */
#endif /* OJO_READER_IMPLEMENTATION */
