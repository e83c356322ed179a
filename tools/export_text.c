/* SPDX-License-Identifier: MIT
 *
 * Text for ojo-cat, for people: aligned columns of time since the trace's start, thread, flow,
 * event and what it means. Nothing from a file reaches the terminal unescaped. */
#include "export.h"

#include <stdlib.h>

static struct {
  fragment *fragments; /* "PACKET_SENT                " padded, with colour */
  uint64_t scale;      /* ns per unit of the time column */
  const char *unit;
  bool several; /* traces: then a column says which */
} text;

#define NAME_COLUMNS 28u
#define FLOW_COLUMNS 22u
#define TIME_COLUMNS 14u

static unsigned char *pad(unsigned char *p, size_t have, size_t want) {
  while (have++ < want) *p++ = ' ';
  return p;
}

static bool colour;

static unsigned char *put_name(unsigned char *p, const ojo_reader_type_info *type) {
  const char *on = "";
  if (colour) {
    bool lost = strstr(type->name, "LOST") || strstr(type->name, "DROPPED") ||
                strstr(type->name, "BLOCKED");
    on = lost                                               ? "\x1b[31m"
         : strcmp(type->category, "CongestionControl") == 0 ? "\x1b[33m"
         : strcmp(type->category, "Stream") == 0            ? "\x1b[36m"
         : strcmp(type->category, "FlowControl") == 0       ? "\x1b[35m"
         : strcmp(type->category, "Packet") == 0            ? "\x1b[32m"
                                                            : "\x1b[34m";
  }
  char name[NAME_BYTES_MAX * 6 + 1];
  *put_safe((unsigned char *)name, sizeof name - 1, type->name, name_length(type->name)) = 0;
  p = put_text(put_text(p, on), name);
  if (*on) p = put_text(p, "\x1b[0m");
  return pad(p, columns_of(name), NAME_COLUMNS);
}

/* Signed, in the run's unit, right-aligned: "12.345678 ms". All digits of the nanosecond are kept.
 */
static unsigned char *put_relative(unsigned char *p, const cat *c, uint64_t ns) {
  bool before = ns < c->start_ns;
  uint64_t distance = before ? c->start_ns - ns : ns - c->start_ns;
  unsigned char digits[64], *q = digits;
  if (before) *q++ = '-';
  q = put_u64(q, distance / text.scale);
  *q++ = '.';
  uint64_t rest = distance % text.scale, place = text.scale / 10;
  for (; place; place /= 10) *q++ = (unsigned char)('0' + rest / place % 10);
  *q++ = ' ';
  q = put_text(q, text.unit);
  p = pad(p, (size_t)(q - digits), TIME_COLUMNS + 1);
  return put_bytes(p, digits, (size_t)(q - digits));
}

/* One unit for the whole output, by the length of the traces: columns that compare at a glance. */
static void choose_unit(cat *c) {
  uint64_t last = c->start_ns;
  for (uint32_t i = 0; i < ojo_reader_trace_count(c->reader); i++) {
    const ojo_reader_trace_info *t = ojo_reader_trace(c->reader, i);
    if (t->last_ns > last) last = t->last_ns;
  }
  uint64_t span = last - c->start_ns;
  text.scale = c->follow || span >= 1000000000u ? 1000000000u : span >= 1000000u ? 1000000u : 1000u;
  text.unit = text.scale == 1000000000u ? "s" : text.scale == 1000000u ? "ms" : "us";
}

static void put_heading(cat *c) {
  char command[17 * 6];
  for (uint32_t i = 0; i < ojo_reader_trace_count(c->reader) && i < 16; i++) {
    const ojo_reader_trace_info *t = ojo_reader_trace(c->reader, i);
    unsigned char *p = put_hex(put_text(out_row(&c->out), "# trace "), t->id, 4);
    if (t->command[0]) p = put_text(put_text(p, "  "), safe(command, sizeof command, t->command));
    if (t->pid) p = put_u64(put_text(p, "  pid "), t->pid);
    p = put_rfc3339(put_text(p, "  started "), t->start_unix_ns);
    *p++ = '\n';
    c->out.at = p;
  }
  out_format(&c->out, "# %*s  thread  %s%-*s %-*s what\n", (int)TIME_COLUMNS - 1, "time",
             text.several ? "trace     " : "", (int)FLOW_COLUMNS, "flow", (int)NAME_COLUMNS,
             "event");
}

static bool text_begin(cat *c) {
  colour = c->colour;
  text.fragments = fragments_new();
  text.several = ojo_reader_trace_count(c->reader) > 1;
  choose_unit(c);
  put_heading(c);
  return text.fragments != NULL;
}

static void text_event(cat *c, const ojo_reader_event *e) {
  unsigned char flow[FLOW_NAME_BYTES + 16], thread[24], *end;
  if (e->type == OJO_FLOW || e->type == OJO_STREAM_OPENED) flow_learn(e);
  unsigned char *p = put_relative(out_row(&c->out), c, e->time_ns);
  end = put_u64(thread, e->thread);
  p = put_bytes(pad(p, (size_t)(end - thread), 8), thread, (size_t)(end - thread));
  p = put_text(p, "  ");
  if (text.several) p = put_text(put_hex(p, ojo_reader_trace(c->reader, e->trace)->id, 4), "  ");
  end = put_flow(c, flow, e->trace, e->flow);
  *end = 0;
  p = pad(put_text(p, (char *)flow), columns_of((char *)flow), FLOW_COLUMNS);
  *p++ = ' ';
  const fragment *f = fragment_of(text.fragments, c, e, put_name);
  p = put_fragment(p, f, c, e, put_name);
  *p++ = ' ';
  p = put_meaning(c, p, e, f->kind);
  *p++ = '\n';
  c->out.at = p;
}

static void text_end(cat *c) {
  (void)c;
  free(text.fragments);
}

const exporter export_text = {"text", text_begin, text_event, text_end};
