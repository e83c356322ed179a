/* SPDX-License-Identifier: MIT
 *
 * kernel_trace.h - a tracer with kernel probes for a kernel test, and what they told: the trace, read back by
 * ojo_reader.h and summed up per flow, and the rows of ojo_bpf_connections. After kernel_net.h.
 */
#ifndef OJO_TESTS_KERNEL_TRACE_H
#define OJO_TESTS_KERNEL_TRACE_H

#define APPLICATION_BEFORE 0x010000u /* the tests' own events */
#define APPLICATION_AFTER 0x010001u

static const char *kernel_object; /* build/ojo_bpf.o */

struct rows { /* of ojo_bpf_connections, kept from one namespace */
  ojo_bpf_connection *row;
  size_t count, room;
  uint32_t netns;
  bool closed_only;
};
static inline bool rows_add(void *user, const ojo_bpf_connection *c) {
  struct rows *rows = (struct rows *)user;
  if (c->netns != rows->netns || (rows->closed_only && !c->closed)) return true;
  if (rows->count == rows->room) {
    rows->room = rows->room ? rows->room * 2 : 256;
    rows->row = (ojo_bpf_connection *)realloc(rows->row, rows->room * sizeof *rows->row);
    if (!rows->row) abort();
  }
  rows->row[rows->count++] = *c;
  return true;
}
static inline const ojo_bpf_connection *rows_find(const struct rows *rows, uint64_t cookie) {
  for (size_t i = 0; i < rows->count; i++)
    if (rows->row[i].cookie == cookie) return &rows->row[i];
  return NULL;
}
static inline void rows_free(struct rows *rows) {
  free(rows->row);
  rows->row = NULL;
  rows->count = rows->room = 0;
}

struct session {
  char dir[256];
  ojo_tracer *t;
  ojo_bpf *b;
  struct rows closed; /* all closing rows so far */
  ojo_bpf_stats stats; /* at the end */
};
static inline void session_tracer(struct session *s, const char *name) {
  memset(s, 0, sizeof *s);
  s->closed.netns = namespace_inode();
  s->closed.closed_only = true;
  check_directory(name, s->dir, sizeof s->dir);
  if (!check(ojo_open(&s->t, &(ojo_desc){.dir = s->dir, .buffer_bytes = 256u << 20}) == OJO_OK && s->t,
             "%s: ojo_open", name))
    exit(1);
}
static inline bool session_probes(struct session *s, const ojo_bpf_desc *desc, const char *name) {
  ojo_bpf_desc d = *desc;
  d.tracer = s->t;
  d.object_path = kernel_object;
  ojo_result result = ojo_bpf_open(&s->b, &d);
  return check(result == OJO_OK && s->b, "%s: ojo_bpf_open: %s", name, ojo_result_string(result));
}
static inline bool session_open(struct session *s, const ojo_bpf_desc *desc, const char *name) {
  session_tracer(s, name);
  return session_probes(s, desc, name);
}
static inline void session_list(struct session *s) { /* a refresh, of which the closing rows are kept */
  if (ojo_bpf_connections(s->b, rows_add, &s->closed) != OJO_OK) check(false, "ojo_bpf_connections");
}
static inline void session_close(struct session *s) {
  s->stats = ojo_bpf_query_stats(s->b);
  check(ojo_bpf_close(s->b) == OJO_OK, "ojo_bpf_close");
  check(ojo_close(s->t) == OJO_OK, "ojo_close");
}
static inline void session_remove(struct session *s) {
  rows_free(&s->closed);
  check_remove(s->dir);
}
static inline struct rows session_live(struct session *s) { /* the rows of now, the closing ones kept as well */
  struct rows live = {.netns = s->closed.netns};
  check(ojo_bpf_connections(s->b, rows_add, &live) == OJO_OK, "ojo_bpf_connections");
  size_t kept = 0;
  for (size_t i = 0; i < live.count; i++)
    if (live.row[i].closed) rows_add(&s->closed, &live.row[i]);
    else live.row[kept++] = live.row[i];
  live.count = kept;
  return live;
}

/* ---- the trace, read back ----------------------------------------------------------------------- */

#define SEEN_TYPES 0x20u /* of each of the kernel's categories */
struct seen { /* a kernel flow */
  uint64_t flow;
  ojo_kernel_connection connection; /* the last one */
  ojo_kernel_totals totals, totals_sum; /* the last FINISHED's; of all */
  uint32_t connections, finished, reopened; /* reopened: events that can't be after FINISHED */
  uint32_t established, closes; /* changes of state to ESTABLISHED, to CLOSE */
  uint64_t events[3][SEEN_TYPES];   /* by category and type */
  uint64_t payloads[3][SEEN_TYPES]; /* their payloads' sum */
  uint64_t numbers[3][SEEN_TYPES];  /* their sizes' sum */
  uint64_t last[3][SEEN_TYPES], last_number[3][SEEN_TYPES];
  ojo_rtt rtt; /* the last one */
  uint64_t parent; /* STREAM_LINK_PARENT of it; 0: none */
  uint64_t first_ns, last_ns;
};
static inline uint64_t seen_events(const struct seen *f, unsigned type) {
  return f->events[(type >> 8) - 4][type & 31];
}
static inline uint64_t seen_sum(const struct seen *f, unsigned type) {
  return f->payloads[(type >> 8) - 4][type & 31];
}
static inline uint64_t seen_numbers(const struct seen *f, unsigned type) {
  return f->numbers[(type >> 8) - 4][type & 31];
}
static inline uint64_t seen_last(const struct seen *f, unsigned type) { return f->last[(type >> 8) - 4][type & 31]; }
static inline uint64_t seen_last_number(const struct seen *f, unsigned type) {
  return f->last_number[(type >> 8) - 4][type & 31];
}

struct told { /* a trace */
  struct seen *flows;
  size_t count, room;
  uint32_t *slots; /* hash of flow ids: index + 1 */
  size_t mask;
  uint64_t events, dropped, dropped_ring;
  uint64_t missed; /* of the dropped: programs that were not called; close tells of the last ones */
  uint64_t dropped_events;
};
static inline struct seen *told_find(struct told *told, uint64_t flow, bool make) {
  if (make && (told->count + 1) * 2 > told->mask) {
    told->mask = told->mask ? told->mask * 2 + 1 : 1023;
    free(told->slots);
    told->slots = (uint32_t *)calloc(told->mask + 1, sizeof *told->slots);
    if (!told->slots) abort();
    for (size_t i = 0; i < told->count; i++) {
      size_t at = (size_t)(told->flows[i].flow * UINT64_C(0x9E3779B97F4A7C15) >> 40) & told->mask;
      while (told->slots[at]) at = (at + 1) & told->mask;
      told->slots[at] = (uint32_t)i + 1;
    }
  }
  if (!told->slots) return NULL;
  size_t at = (size_t)(flow * UINT64_C(0x9E3779B97F4A7C15) >> 40) & told->mask;
  for (; told->slots[at]; at = (at + 1) & told->mask)
    if (told->flows[told->slots[at] - 1].flow == flow) return &told->flows[told->slots[at] - 1];
  if (!make) return NULL;
  if (told->count == told->room) {
    told->room = told->room ? told->room * 2 : 256;
    told->flows = (struct seen *)realloc(told->flows, told->room * sizeof *told->flows);
    if (!told->flows) abort();
  }
  struct seen *f = &told->flows[told->count++];
  memset(f, 0, sizeof *f);
  f->flow = flow;
  told->slots[at] = (uint32_t)told->count;
  return f;
}
static inline void told_add(struct told *told, const ojo_reader_event *e) {
  unsigned group = (unsigned)(e->type >> 8) - 4, type = (unsigned)e->type & 0xFF;
  told->events++;
  if (e->type == OJO_EVENTS_DROPPED) {
    ojo_dropped dropped;
    told->dropped += e->payload;
    told->dropped_events++;
    if (ojo_reader_dropped(e, &dropped) && dropped.reason == OJO_DROP_KERNEL_RING) told->dropped_ring += e->payload;
    if (ojo_reader_dropped(e, &dropped) && dropped.reason == OJO_DROP_NESTING) told->missed += e->payload;
    return;
  }
  if (e->type == OJO_STREAM_LINK_PARENT) told_find(told, e->flow, true)->parent = e->payload;
  if (e->type < 0x400 || group > 2 || type >= SEEN_TYPES) return;
  struct seen *f = told_find(told, e->flow, true);
  f->events[group][type]++;
  f->payloads[group][type] += e->payload;
  f->last[group][type] = e->payload;
  if (!f->first_ns) f->first_ns = e->time_ns;
  f->last_ns = e->time_ns;
  if (e->has_number) f->numbers[group][type] += e->number, f->last_number[group][type] = e->number;
  /* What came in before the end may be read after it, and a close with data unread resets after the change to CLOSE. */
  if (f->finished && e->type != OJO_KERNEL_CONNECTION && e->type != OJO_KERNEL_TCP_RECEIVE &&
      e->type != OJO_KERNEL_TCP_RESET_SENT)
    f->reopened++;
  if (e->type == OJO_KERNEL_TCP_STATE)
    f->established += e->payload == STATE_ESTABLISHED, f->closes += e->payload == STATE_CLOSE;
  if (e->type == OJO_KERNEL_TCP_RTT && e->extension_bytes >= sizeof f->rtt)
    memcpy(&f->rtt, e->extension, sizeof f->rtt);
  if (e->type == OJO_KERNEL_CONNECTION && e->extension_bytes >= sizeof f->connection) {
    memcpy(&f->connection, e->extension, sizeof f->connection);
    if (f->connection.cookie != e->payload) check(false, "KERNEL_CONNECTION: payload and cookie differ");
    f->connections++;
  }
  if ((e->type == OJO_KERNEL_TCP_FINISHED || e->type == OJO_KERNEL_UDP_FINISHED) &&
      e->extension_bytes >= sizeof f->totals) {
    memcpy(&f->totals, e->extension, sizeof f->totals);
    f->totals_sum.bytes_out += f->totals.bytes_out;
    f->totals_sum.bytes_in += f->totals.bytes_in;
    f->finished++;
  }
}
/* Reads a trace; `each` may look at every event as well. */
static inline struct told told_read(const char *dir, void (*each)(void *user, const ojo_reader_event *e),
                                    void *user) {
  struct told told;
  ojo_reader *reader;
  ojo_reader_event e;
  memset(&told, 0, sizeof told);
  if (!check(ojo_reader_open(&reader, &(ojo_reader_desc){.path = dir}) == OJO_OK, "%s can't be read", dir))
    return told;
  while (ojo_reader_next(reader, &e)) {
    told_add(&told, &e);
    if (each) each(user, &e);
  }
  for (uint64_t i = 0; i < ojo_reader_error_count(reader); i++)
    check(false, "%s: %s", dir, ojo_reader_error_at(reader, i)->text);
  ojo_reader_close(reader);
  programs_missed += (unsigned long)told.missed;
  return told;
}
static inline void told_free(struct told *told) {
  free(told->flows);
  free(told->slots);
}
/* The TCP flow of a socket; `others` counts further ones with that cookie. */
static inline struct seen *told_socket(struct told *told, uint64_t cookie) {
  for (size_t i = 0; i < told->count; i++)
    if (told->flows[i].connections && told->flows[i].connection.cookie == cookie) return &told->flows[i];
  return NULL;
}
/* A UDP flow: a socket and a peer. */
static inline struct seen *told_tuple(struct told *told, uint64_t cookie, const uint8_t remote[16],
                                      uint16_t remote_port) {
  for (size_t i = 0; i < told->count; i++) {
    const ojo_kernel_connection *c = &told->flows[i].connection;
    if (told->flows[i].connections && c->cookie == cookie && c->remote_port == remote_port &&
        !memcmp(c->remote, remote, 16))
      return &told->flows[i];
  }
  return NULL;
}
#endif
