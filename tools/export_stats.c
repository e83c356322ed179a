/* SPDX-License-Identifier: MIT
 *
 * --stats and --flows of ojo-cat: how much of what was recorded, and by which flows. The tables are
 * bounded: what comes after they are full is counted together, and the output says so. */
#include "export.h"

#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#define TYPES_MAX 4096u
#define FLOWS_MAX 65536u

typedef struct row { /* of one type or one flow */
  uint64_t key, count, first_ns, last_ns;
  uint64_t sent, acked, lost, sent_bytes; /* packets, and their bytes */
  uint32_t trace;
  bool used;
  char *name; /* of a type; safe to print */
} row;

typedef struct table {
  row *rows; /* twice as many as may be used: open addressing finds an empty one soon */
  row other; /* what found no place */
  uint64_t max, used;
} table;

static struct {
  table types, flows;
  row all;
  uint64_t salt; /* of their hashes: no file can choose keys that meet in one place */
} stats;

static bool table_open(table *t, uint64_t max) {
  t->max = max;
  t->used = 0;
  memset(&t->other, 0, sizeof t->other);
  t->rows = calloc(2 * max, sizeof(row));
  return t->rows != NULL;
}

static row *table_find(table *t, uint32_t trace, uint64_t key) {
  uint64_t at = (key ^ stats.salt) * UINT64_C(0x9E3779B97F4A7C15);
  at = ((at ^ at >> 32) + stats.salt + trace) * UINT64_C(0xC2B2AE3D27D4EB4F) >> 32;
  for (;; at++) {
    row *r = &t->rows[at & (2 * t->max - 1)];
    if (r->used && r->key == key && r->trace == trace) return r;
    if (r->used) continue;
    if (t->used == t->max) return &t->other;
    t->used++;
    r->used = true;
    r->key = key;
    r->trace = trace;
    return r;
  }
}

/* Moves the rows in use to the front. */
static void table_pack(table *t) {
  for (uint64_t from = 0, to = 0; to < t->used; from++)
    if (t->rows[from].used) t->rows[to++] = t->rows[from];
}

static void row_add(row *r, const ojo_reader_event *e) {
  /* where a file lies about its times, an event may come late */
  if (r->count++ == 0 || e->time_ns < r->first_ns) r->first_ns = e->time_ns;
  if (e->time_ns > r->last_ns) r->last_ns = e->time_ns;
  switch (e->type) {
    case OJO_PACKET_SENT:
      r->sent++;
      if (e->has_number) r->sent_bytes += e->number;
      break;
    case OJO_PACKET_ACKED: r->acked++; break;
    case OJO_PACKET_LOST_TIMEOUT:
    case OJO_PACKET_LOST_DUPLICATE_ACK:
    case OJO_PACKET_LOST_TIME:
    case OJO_PACKET_LOST_REPORTED: r->lost++; break;
    default: break;
  }
}

static bool stats_begin(cat *c) {
  struct timespec now = {0, 0};
  (void)c;
  clock_gettime(CLOCK_MONOTONIC, &now);
  stats.salt = ((uint64_t)now.tv_nsec << 32 ^ (uint64_t)now.tv_sec) * UINT64_C(0x9E3779B97F4A7C15);
  memset(&stats.all, 0, sizeof stats.all);
  return table_open(&stats.types, TYPES_MAX) && table_open(&stats.flows, FLOWS_MAX);
}

static void stats_event(cat *c, const ojo_reader_event *e) {
  static row *type, *flow; /* the last ones: often the next ones too */
  if (stats.all.count == 0) type = flow = NULL;
  if (!type || type->key != e->type || type->trace != e->trace) {
    type = table_find(&stats.types, e->trace, e->type);
    if (type->count == 0 && type != &stats.types.other) {
      unsigned char name[73];
      const char *from = ojo_reader_type(c->reader, e)->name;
      *put_safe(name, sizeof name - 1, from, name_length(from)) = 0;
      type->name = strdup((char *)name);
    }
  }
  if (!flow || flow->key != e->flow || flow->trace != e->trace || !flow->used)
    flow = table_find(&stats.flows, e->trace, e->flow);
  if (e->type == OJO_FLOW || e->type == OJO_STREAM_OPENED) flow_learn(e);
  row_add(&stats.all, e);
  row_add(type, e);
  row_add(flow, e);
}

/* ---- printing -------------------------------------------------------------------------------- */

static const char *human(char *to, uint64_t value, unit u) {
  *put_human((unsigned char *)to, value, u) = 0;
  return to;
}

static const char *since_start(char to[32], const cat *c, uint64_t ns) {
  if (ns >= c->start_ns) return human(to, ns - c->start_ns, UNIT_NS);
  to[0] = '-';
  return human(to + 1, c->start_ns - ns, UNIT_NS), to;
}

/* Events per second between the first and the last, which is one interval less than events. */
static const char *rate(char to[32], const row *r) {
  uint64_t span = r->last_ns - r->first_ns;
  if (r->count < 2 || span == 0) return "-";
  double per_second = (double)(r->count - 1) * 1e9 / (double)span;
  snprintf(to, 32, per_second < 10 ? "%.2f" : "%.0f", per_second);
  return to;
}

/* Left-aligned by characters, not bytes. */
static void put_column(cat *c, const char *text, size_t columns) {
  if (!text) text = "?"; /* out of memory for a name */
  size_t have = columns_of(text);
  out_format(&c->out, "%s%*s", text, have < columns ? (int)(columns - have) : 0, "");
}

static int by_count(const void *a, const void *b) {
  const row *x = a, *y = b;
  if (x->count != y->count) return x->count < y->count ? 1 : -1;
  if (x->trace != y->trace) return x->trace < y->trace ? -1 : 1;
  return x->key < y->key ? -1 : x->key > y->key;
}

/* Types of the same number and name in several traces are one line. */
static void merge_types(table *t) {
  for (uint64_t i = 0; i + 1 < t->used; i++)
    for (uint64_t k = i + 1; k < t->used && t->rows[i].count; k++) {
      row *a = &t->rows[i], *b = &t->rows[k];
      if (a->key != b->key || !a->name || !b->name || strcmp(a->name, b->name) != 0) continue;
      a->count += b->count;
      b->count = 0;
      if (b->first_ns < a->first_ns) a->first_ns = b->first_ns;
      if (b->last_ns > a->last_ns) a->last_ns = b->last_ns;
    }
}

static void print_traces(cat *c) {
  char a[32], b[32], command[17 * 6], *hex;
  unsigned char id[40], started[40];
  uint32_t count = ojo_reader_trace_count(c->reader);
  for (uint32_t i = 0; i < count && i < 100; i++) {
    const ojo_reader_trace_info *t = ojo_reader_trace(c->reader, i);
    *put_hex(id, t->id, 16) = 0;
    *put_rfc3339(started, t->start_unix_ns) = 0;
    hex = (char *)id;
    out_format(&c->out, "trace %s  %s  pid %u  started %s  lasted %s  %llu file%s  %s\n", hex,
               safe(command, sizeof command, t->command), t->pid, (char *)started,
               human(a, t->last_ns > t->start_unix_ns ? t->last_ns - t->start_unix_ns : 0, UNIT_NS),
               (unsigned long long)t->files, plural(t->files), human(b, t->bytes, UNIT_BYTES));
  }
  if (count > 100) out_format(&c->out, "... and %u trace%s more\n", count - 100, plural(count - 100));
}

static void print_types(cat *c) {
  char a[32], b[32], d[32];
  table *t = &stats.types;
  table_pack(t);
  qsort(t->rows, t->used, sizeof(row), by_count); /* so that the same rows are merged each time */
  merge_types(t);
  qsort(t->rows, t->used, sizeof(row), by_count);
  out_format(&c->out, "\n%-28s %12s %12s %10s %10s\n", "type", "events", "rate/s", "first", "last");
  for (uint64_t i = 0; i < t->used && t->rows[i].count; i++) {
    const row *r = &t->rows[i];
    put_column(c, r->name, 28);
    out_format(&c->out, " %12llu %12s %10s %10s\n", (unsigned long long)r->count, rate(a, r),
               since_start(b, c, r->first_ns), since_start(d, c, r->last_ns));
  }
  if (t->other.count)
    out_format(&c->out, "%-28s %12llu   (beyond the first %u types)\n", "all others",
               (unsigned long long)t->other.count, TYPES_MAX);
}

static void print_flows(cat *c) {
  char a[32], b[32], d[32], bytes[32];
  unsigned char name[FLOW_NAME_BYTES + 16], id[40];
  bool several = ojo_reader_trace_count(c->reader) > 1; /* a flow id means something in its trace only */
  table *t = &stats.flows;
  table_pack(t);
  qsort(t->rows, t->used, sizeof(row), by_count);
  out_format(&c->out, "\n%-28s %12s %12s %10s %10s %10s %9s %9s %9s%s\n", "flow", "events", "rate/s",
             "first", "last", "sent", "acked", "lost", "bytes", several ? " trace" : "");
  for (uint64_t i = 0; i < t->used; i++) {
    const row *r = &t->rows[i];
    *put_flow(c, name, r->trace, r->key) = 0;
    put_column(c, (char *)name, 28);
    *put_hex(id, ojo_reader_trace(c->reader, r->trace)->id, 4) = 0;
    out_format(&c->out, " %12llu %12s %10s %10s %10llu %9llu %9llu %9s%s%s\n",
               (unsigned long long)r->count, rate(a, r), since_start(b, c, r->first_ns),
               since_start(d, c, r->last_ns), (unsigned long long)r->sent,
               (unsigned long long)r->acked, (unsigned long long)r->lost,
               r->sent ? human(bytes, r->sent_bytes, UNIT_BYTES) : "-", several ? " " : "",
               several ? (char *)id : "");
  }
  if (t->other.count)
    out_format(&c->out, "%-28s %12llu   (beyond the first %u flows)\n", "all others",
               (unsigned long long)t->other.count, FLOWS_MAX);
}

static void stats_end(cat *c) {
  char a[32], b[32];
  const row *all = &stats.all;
  print_traces(c);
  out_format(&c->out, "%llu event%s in %s", (unsigned long long)all->count, plural(all->count),
             human(a, all->last_ns - all->first_ns, UNIT_NS));
  if (strcmp(rate(b, all), "-") != 0) out_format(&c->out, ", %s/s", rate(b, all));
  out_format(&c->out, ", %llu flow%s", (unsigned long long)stats.flows.used, plural(stats.flows.used));
  uint64_t lost = 0;
  for (unsigned i = 0; i < DROP_REASONS; i++) lost += c->lost[i];
  out_format(&c->out, ", %llu event%s dropped\n", (unsigned long long)lost, plural(lost));
  if (all->count) { /* print_types packs the table: its rows in use come first from there on */
    print_types(c);
    print_flows(c);
  }
  if (lost) out_format(&c->out, "\n%-28s %12s\n", "dropped", "events");
  for (unsigned i = 0; i < DROP_REASONS; i++) {
    const char *reason = drop_reason_name(i);
    if (c->lost[i])
      out_format(&c->out, "%-28s %12llu\n", reason ? reason : "unknown",
                 (unsigned long long)c->lost[i]);
  }
  for (uint64_t i = 0; i < stats.types.used; i++) free(stats.types.rows[i].name);
  free(stats.types.rows);
  free(stats.flows.rows);
}

const exporter export_stats = {"stats", stats_begin, stats_event, stats_end};

/* ---- --flows --------------------------------------------------------------------------------- */

static const char *endpoint(char to[64], const ojo_reader_flow_info *f, const uint8_t *address,
                            uint16_t port) {
  unsigned char *p = (unsigned char *)to;
  if (!f->address_bytes && !port) return "-";
  bool v6 = f->address_bytes == 16;
  if (v6) *p++ = '[';
  if (f->address_bytes == 4 || v6) p = put_address(p, address, f->address_bytes);
  if (v6) *p++ = ']';
  *p++ = ':';
  *put_u64(p, port) = 0;
  return to;
}

bool report_flows(cat *c) {
  ojo_reader_event e;
  static const char *const roles[] = {"-", "client", "server"};
  char local[64], remote[64], first[32], last[32], text[256 * 6];
  unsigned char id[48];
  uint64_t count = ojo_reader_flow_count(c->reader), shown = 0;
  for (uint64_t i = 0; i < count && !c->out.error; i++) {
    const ojo_reader_flow_info *f = ojo_reader_flow_at(c->reader, i);
    if (!f || !cat_wants_flow(c, f->trace, f->flow)) continue;
    if (shown++ == 0)
      out_format(&c->out, "%-11s %-11s %-10s %-6s %-12s %10s %10s %10s  %-21s %-21s what\n",
                 "flow", "parent", "kind", "role", "key", "events", "first", "last", "local",
                 "remote");
    const char *remote_text = endpoint(remote, f, f->remote_address, f->remote_port);
    out_format(&c->out, "%-11llu %-11llu %-10s %-6s %-12llu %10llu %10s %10s  %-21s %s",
               (unsigned long long)f->flow, (unsigned long long)f->parent,
               flow_kind_name(f->kind) ? flow_kind_name(f->kind) : "-",
               f->role < 3 ? roles[f->role] : "?", (unsigned long long)f->key,
               (unsigned long long)f->events, f->events ? since_start(first, c, f->first_ns) : "-",
               f->events ? since_start(last, c, f->last_ns) : "-",
               endpoint(local, f, f->local_address, f->local_port), remote_text);
    bool more = f->protocol[0] || f->label[0] || f->id_bytes || f->collision ||
                ojo_reader_trace_count(c->reader) > 1;
    if (more)
      out_format(&c->out, "%*s", (int)(strlen(remote_text) < 21 ? 21 - strlen(remote_text) : 0),
                 "");
    if (f->protocol[0]) out_format(&c->out, " %s", safe(text, sizeof text, f->protocol));
    if (f->label[0]) {
      *put_quoted((unsigned char *)text, sizeof text - 3, f->label, strlen(f->label)) = 0;
      out_format(&c->out, " %s", text);
    }
    *put_hex(id, f->id, f->id_bytes <= sizeof f->id ? f->id_bytes : sizeof f->id) = 0;
    if (f->id_bytes) out_format(&c->out, " id %s", (char *)id);
    if (f->collision) out_format(&c->out, " (two flows share this id)");
    if (ojo_reader_trace_count(c->reader) > 1) {
      *put_hex(id, ojo_reader_trace(c->reader, f->trace)->id, 4) = 0;
      out_format(&c->out, " trace %s", (char *)id);
    }
    out_text(&c->out, "\n");
  }
  while (cat_next(c, &e)) continue; /* for what was dropped, which is always told */
  if (!shown) complain("no flow is described in this trace%s", count ? " within the filters" : "");
  return true;
}
