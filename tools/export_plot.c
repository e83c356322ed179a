/* SPDX-License-Identifier: MIT
 *
 * --plot TYPE of ojo-cat: for each flow one line of block characters, the type's payload over time.
 * Two passes over the events: the first finds the time range, the second fills as many buckets as
 * the line has columns. A bucket shows the last value in it; an empty one the value before, as
 * these are states. */
#include "export.h"

#include <stdio.h>
#include <stdlib.h>

#define PLOT_FLOWS_MAX 64u
#define PLOT_COLUMNS_MAX 400u

typedef struct plot {
  uint64_t flow, events, least, most, last;
  uint32_t trace;
  uint64_t value[PLOT_COLUMNS_MAX];
  bool set[PLOT_COLUMNS_MAX];
} plot;

static plot *plot_of(plot *plots, unsigned *count, const ojo_reader_event *e) {
  for (unsigned i = 0; i < *count; i++)
    if (plots[i].flow == e->flow && plots[i].trace == e->trace) return &plots[i];
  if (*count == PLOT_FLOWS_MAX) return NULL;
  plot *p = &plots[(*count)++];
  memset(p, 0, sizeof *p);
  p->flow = e->flow;
  p->trace = e->trace;
  p->least = UINT64_MAX;
  return p;
}

static const char *human(char to[40], uint64_t value, uint64_t type) {
  *put_human((unsigned char *)to, value, unit_of_payload(type)) = 0;
  return to;
}

static void print_plot(cat *c, const plot *p, uint64_t type, unsigned columns) {
  static const char *const blocks[] = {"\u2581", "\u2582", "\u2583", "\u2584",
                                       "\u2585", "\u2586", "\u2587", "\u2588"};
  unsigned char name[FLOW_NAME_BYTES + 16];
  char a[40], b[40], d[40];
  uint64_t value = 0, range = p->most - p->least;
  bool seen = false;
  *put_flow(c, name, p->trace, p->flow) = 0;
  out_format(&c->out, "flow %s  min %s  max %s  last %s  %llu event%s\n", (char *)name,
             human(a, p->least, type), human(b, p->most, type), human(d, p->last, type),
             (unsigned long long)p->events, plural(p->events));
  for (unsigned i = 0; i < columns; i++) {
    if (p->set[i]) value = p->value[i], seen = true;
    /* in eighths of the range; double can't overflow, and is exact enough for a picture */
    unsigned level =
        seen && range ? (unsigned)((double)(value - p->least) / (double)range * 7.0 + 0.5) : 3;
    out_text(&c->out, seen ? blocks[level] : " ");
  }
  out_text(&c->out, "\n");
}

bool report_plot(cat *c, uint64_t type) {
  ojo_reader_event e;
  uint64_t first = 0, last = 0, events = 0, left_out = 0;
  unsigned count = 0, columns = c->terminal ? c->width - 1 : 72;
  if (columns > PLOT_COLUMNS_MAX) columns = PLOT_COLUMNS_MAX;
  if (columns < 8) columns = 8;
  const char *type_name = NULL;
  char name_copy[256];
  while (cat_next(c, &e)) {
    if (e.type == OJO_FLOW || e.type == OJO_STREAM_OPENED) flow_learn(&e);
    if (e.type != type) continue;
    if (!type_name)
      type_name = safe(name_copy, sizeof name_copy, ojo_reader_type(c->reader, &e)->name);
    if (events++ == 0) first = e.time_ns;
    last = e.time_ns;
  }
  if (events == 0) {
    complain("no such event to plot within the filters");
    return true;
  }
  plot *plots = malloc(PLOT_FLOWS_MAX * sizeof *plots);
  if (!plots) {
    complain("out of memory");
    return false;
  }
  uint64_t step = (last - first) / columns + 1; /* ns per column */
  cat_rewind(c);
  while (cat_next(c, &e)) {
    if (e.type != type || e.time_ns < first || e.time_ns > last) continue;
    plot *p = plot_of(plots, &count, &e);
    if (!p) {
      left_out++;
      continue;
    }
    uint64_t column = (e.time_ns - first) / step;
    p->value[column] = p->last = e.payload;
    p->set[column] = true;
    p->events++;
    if (e.payload < p->least) p->least = e.payload;
    if (e.payload > p->most) p->most = e.payload;
  }
  unsigned char from[40], to[40];
  *put_human(from, first > c->start_ns ? first - c->start_ns : 0, UNIT_NS) = 0;
  *put_human(to, last > c->start_ns ? last - c->start_ns : 0, UNIT_NS) = 0;
  out_format(&c->out, "%s from %s to %s\n", type_name, (char *)from, (char *)to);
  for (unsigned i = 0; i < count; i++) print_plot(c, &plots[i], type, columns);
  if (left_out)
    complain("%llu event%s of flows beyond the first %u not shown: choose with --flow",
             (unsigned long long)left_out, plural(left_out), PLOT_FLOWS_MAX);
  free(plots);
  return true;
}
