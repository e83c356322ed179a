/* SPDX-License-Identifier: MIT
 *
 * ojo-cat - prints traces of ojo.h as text, CSV or JSON. See ojo-cat.1, or ojo-cat --help.
 *
 * From top to bottom: the request (what the options ask for), reading options, opening the traces,
 * cat_next (one event after the other, with the progress bar), what is told at the end, main.
 */
#define OJO_IMPLEMENTATION /* for ojo_recover */
#define OJO_READER_IMPLEMENTATION
#include "export.h"

#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <strings.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum { EXIT_OK = 0, EXIT_NOTHING_READ = 1, EXIT_USAGE = 2, EXIT_STRICT = 3 };

#define LIST_MAX 4096u      /* members of a list option */
#define LOOK_EVENTS 32768u  /* events between two looks at the clock and the output */
#define ERROR_LINES_MAX 20u /* the rest is counted */
#define FLOW_TABLE_BYTES (UINT64_C(256) << 20) /* text looks up flow labels in inputs up to it */

/* ---- the request ----------------------------------------------------------------------------- */

typedef struct list {
  uint64_t *items;
  size_t count;
} list;
typedef struct names {
  const char **items;
  size_t count;
} names;

typedef enum mode { MODE_PRINT, MODE_STATS, MODE_FLOWS, MODE_PACKET, MODE_PLOT } mode;

typedef struct moment { /* --since, --until */
  bool set, from_end;
  uint64_t ns; /* unix, or before the end */
} moment;

typedef struct request {
  const char *format, *output;
  mode mode;
  list flows, types, threads;
  names type_names, categories;
  moment since, until;
  uint64_t limit, chain, packet_flow, packet_number, plot_type;
  const char *trace, *plot_name;
  const char *const *paths;
  size_t path_count;
  bool has_limit, follow, strict, recover, has_stdin;
  /* what opening the traces finds out */
  uint64_t since_ns, until_ns;
  uint8_t trace_id[16];
  uint32_t trace_index;
  bool has_trace;
  bool pools;       /* of crashed tracers are there, and not shown */
  bool filter_here; /* the reader was opened without some of these filters: see passes */
  ojo_result opened;
} request;

static volatile sig_atomic_t interrupted;
static ojo_reader *signal_reader;
static bool progress_shown;

void complain(const char *format, ...) {
  static char raw[8192];
  static unsigned char line[8192 * 4];
  va_list args;
  va_start(args, format);
  int n = vsnprintf(raw, sizeof raw, format, args);
  va_end(args);
  if (n < 0) return;
  unsigned char *p = put_safe(line, sizeof line - 1, raw, strlen(raw));
  if (progress_shown) fputs("\r\x1b[K", stderr);
  progress_shown = false;
  fprintf(stderr, "ojo-cat: %.*s\n", (int)(p - line), (char *)line);
}

static const char help[] =
    "usage: ojo-cat [options] PATH...\n"
    "Prints traces. PATH is a trace directory, a file, the pool of a crashed tracer or its link\n"
    "(DIR/staging/pool_*.link), or - for standard input; several are merged by time.\n"
    "\n"
    "  -f, --format FORMAT   text (default on a terminal), csv (default elsewhere), json, ndjson\n"
    "  -o, --output FILE     write to FILE instead of standard output\n"
    "\n"
    "what to read (lists: several by commas, or the option again)\n"
    "      --flow LIST       these flow ids\n"
    "      --chain FLOW      this flow, its ancestors and its descendants\n"
    "      --type LIST       these event types, by name or number\n"
    "      --category LIST   these categories, by name or number\n"
    "      --thread LIST     these threads, by their number in the trace\n"
    "      --since TIME      from TIME on: unix nanoseconds, RFC 3339, or as -5s before the end\n"
    "      --until TIME      up to, but not including, TIME\n"
    "      --trace ID        this trace only: its id in hex, or the beginning of it\n"
    "      --limit N         at most N events\n"
    "      --follow          print what is there, then what comes, until interrupted\n"
    "\n"
    "what to tell instead of the events\n"
    "      --stats           counts, rates and losses, per type and per flow\n"
    "      --flows           the table of flows\n"
    "      --packet FLOW:N   the story of packet N: sent, lost, sent again, acked\n"
    "      --plot TYPE       a line per flow that shows TYPE's payload over time\n"
    "\n"
    "      --recover         write what crashed tracers of the directories PATH left in memory to\n"
    "                        their output/, and print nothing\n"
    "      --strict          exit with 3 if events were dropped, a file is damaged or a crashed\n"
    "                        tracer's events are not shown; reads all, also what --limit does\n"
    "                        not print\n"
    "      --help, --version\n"
    "\n"
    "exit status: 0 ok, 1 nothing could be read or the output failed, 2 wrong usage,\n"
    "3 see --strict\n";

/* ---- reading options ------------------------------------------------------------------------- */

static bool parse_u64(const char *text, const char *end, uint64_t *value) {
  uint64_t v = 0, base = 10;
  if (end - text > 2 && text[0] == '0' && (text[1] | 32) == 'x') text += 2, base = 16;
  if (text == end) return false;
  for (; text < end; text++) {
    uint64_t digit = *text >= '0' && *text <= '9' ? (uint64_t)(*text - '0')
                     : (*text | 32) >= 'a' && (*text | 32) <= 'f'
                         ? (uint64_t)((*text | 32) - 'a' + 10)
                         : 99;
    if (digit >= base || v > (UINT64_MAX - digit) / base) return false;
    v = v * base + digit;
  }
  *value = v;
  return true;
}

static bool list_add(list *l, uint64_t value) {
  if (l->count == LIST_MAX) return false;
  if (!l->items && !(l->items = malloc(LIST_MAX * sizeof *l->items))) return false;
  l->items[l->count++] = value;
  return true;
}
static bool names_add(names *n, const char *from, const char *to) {
  if (n->count == LIST_MAX) return false;
  if (!n->items && !(n->items = calloc(LIST_MAX, sizeof *n->items))) return false;
  return (n->items[n->count++] = strndup(from, (size_t)(to - from))) != NULL;
}

static bool too_many(const char *option) {
  complain("--%s: more than %u values", option, LIST_MAX);
  return false;
}

/* Calls `add` for each member of a comma list. */
static bool each(request *q, const char *option, const char *text,
                 bool (*add)(request *q, const char *option, const char *from, const char *to)) {
  for (;;) {
    const char *to = text + strcspn(text, ",");
    if (!add(q, option, text, to)) return false;
    if (!*to) return true;
    text = to + 1;
  }
}

static bool bad(const char *option, const char *from, const char *to, const char *wanted) {
  complain("--%s: '%.*s' is not %s", option, (int)(to - from), from, wanted);
  return false;
}

static bool add_flow(request *q, const char *option, const char *from, const char *to) {
  uint64_t value;
  if (!parse_u64(from, to, &value))
    return bad(option, from, to, "a flow id (decimal, or hex with 0x)");
  return list_add(&q->flows, value) || too_many(option);
}

static bool add_thread(request *q, const char *option, const char *from, const char *to) {
  uint64_t value;
  if (!parse_u64(from, to, &value) || value > UINT32_MAX)
    return bad(option, from, to, "a thread number (decimal, or hex with 0x)");
  return list_add(&q->threads, value) || too_many(option);
}

static bool same_name(const char *from, const char *to, const char *name) {
  return strlen(name) == (size_t)(to - from) && strncasecmp(from, name, strlen(name)) == 0;
}

static bool standard_type(const char *from, const char *to, uint64_t *value) {
#define X(number, name, helper, category, kind, payload, size) \
  if (same_name(from, to, #name)) return *value = number, true;
  OJO_EVENTS(X)
  OJO_EVENTS_INTERNAL(X)
#undef X
  return false;
}

static bool add_type(request *q, const char *option, const char *from, const char *to) {
  uint64_t value;
  if (from == to) return bad(option, from, to, "an event type");
  if (parse_u64(from, to, &value) || standard_type(from, to, &value))
    return list_add(&q->types, value) || too_many(option);
  /* perhaps one of the application's own: looked up when the traces are open */
  return names_add(&q->type_names, from, to) || too_many(option);
}

static bool add_category(request *q, const char *option, const char *from, const char *to) {
  uint64_t value;
  bool number = parse_u64(from, to, &value);
  if (from == to) return bad(option, from, to, "a category");
#define X(bit, name, text) \
  if (number ? value == bit : same_name(from, to, text)) \
    return names_add(&q->categories, text, &(text)[strlen(text)]) || too_many(option);
  OJO_CATEGORIES(X)
#undef X
  if (number) return bad(option, from, to, "a category's number");
  return names_add(&q->categories, from, to) || too_many(option);
}

/* Digits of exactly `count` at *p, as a number; moves *p on. */
static bool take_digits(const char **p, int count, int *value) {
  *value = 0;
  for (int i = 0; i < count; i++, (*p)++) {
    if (**p < '0' || **p > '9') return false;
    *value = *value * 10 + (**p - '0');
  }
  return true;
}

static bool take_fraction(const char **p, uint64_t scale, uint64_t *ns) { /* ".25" of scale ns */
  *ns = 0;
  if (**p != '.') return true;
  (*p)++;
  if (**p < '0' || **p > '9') return false;
  for (uint64_t place = scale / 10; **p >= '0' && **p <= '9'; (*p)++, place /= 10)
    *ns += (uint64_t)(**p - '0') * place;
  return true;
}

static bool leap(int year) { return year % 4 == 0 && (year % 100 != 0 || year % 400 == 0); }

/* Days since 1970-01-01 (Gregorian; years are counted from March, so that leap days come last). */
static int64_t days_from(int64_t year, int month, int day) {
  year -= month <= 2;
  int64_t era = year / 400, of_era = year - era * 400;
  int64_t of_year = (153 * (month + (month > 2 ? -3 : 9)) + 2) / 5 + day - 1;
  return era * 146097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719468;
}

/* 2024-05-01, 2024-05-01T12:30:00, with .fraction and Z or +02:00; without a zone: UTC. */
static bool parse_rfc3339(const char *p, uint64_t *unix_ns) {
  static const int month_days[] = {31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
  int year, month, day, hour = 0, minute = 0, second = 0, zone_hour = 0, zone_minute = 0, sign = 0;
  uint64_t fraction = 0;
  if (!take_digits(&p, 4, &year) || *p++ != '-' || !take_digits(&p, 2, &month) || *p++ != '-' ||
      !take_digits(&p, 2, &day) || month < 1 || month > 12 || day < 1 ||
      day > month_days[month - 1] || (month == 2 && day == 29 && !leap(year)))
    return false;
  if (*p == 'T' || *p == 't' || *p == ' ') {
    p++;
    if (!take_digits(&p, 2, &hour) || *p++ != ':' || !take_digits(&p, 2, &minute)) return false;
    if (*p == ':') {
      p++;
      if (!take_digits(&p, 2, &second) || !take_fraction(&p, 1000000000u, &fraction)) return false;
    }
    if (*p == 'Z' || *p == 'z') {
      p++;
    } else if (*p == '+' || *p == '-') {
      sign = *p++ == '+' ? 1 : -1;
      if (!take_digits(&p, 2, &zone_hour)) return false;
      if (*p == ':') p++;
      if (!take_digits(&p, 2, &zone_minute)) return false;
    }
  }
  if (*p || hour > 23 || minute > 59 || second > 60 || zone_hour > 23 || zone_minute > 59)
    return false;
  int64_t seconds = days_from(year, month, day) * 86400 + hour * 3600 + minute * 60 + second -
                    sign * (zone_hour * 3600 + zone_minute * 60);
  if (seconds < 0 || (uint64_t)seconds > UINT64_MAX / 1000000000u - 1) return false;
  *unix_ns = (uint64_t)seconds * 1000000000u + fraction;
  return true;
}

static bool parse_duration(const char *p, uint64_t *ns) { /* 5s, 1.5ms */
  static const struct {
    const char *name;
    uint64_t ns;
  } units[] = {{"ns", 1},
               {"us", 1000},
               {"ms", 1000000},
               {"s", 1000000000},
               {"m", UINT64_C(60000000000)},
               {"h", UINT64_C(3600000000000)},
               {"d", UINT64_C(86400000000000)}};
  const char *digits = p, *name;
  uint64_t whole, fraction;
  while (*p >= '0' && *p <= '9') p++;
  if (!parse_u64(digits, p, &whole)) return false;
  name = p + strspn(p, ".0123456789");
  for (size_t i = 0; i < sizeof units / sizeof *units; i++) {
    if (strcmp(name, units[i].name) != 0) continue;
    if (!take_fraction(&p, units[i].ns, &fraction) || p != name) return false;
    if (whole > (UINT64_MAX - fraction) / units[i].ns) return false;
    *ns = whole * units[i].ns + fraction;
    return true;
  }
  return false;
}

static bool parse_moment(const char *option, const char *text, moment *m) {
  m->set = true;
  m->from_end = text[0] == '-';
  if (m->from_end ? parse_duration(text + 1, &m->ns)
                  : parse_u64(text, text + strlen(text), &m->ns) || parse_rfc3339(text, &m->ns))
    return true;
  return bad(option, text, text + strlen(text),
             "a time: unix nanoseconds, RFC 3339 as 2024-05-01T12:00:00Z, or -5s before the end");
}

static bool set_mode(request *q, mode m, const char *option) {
  static const char *const modes[] = {"", "stats", "flows", "packet", "plot"};
  if (q->mode != MODE_PRINT && q->mode != m) {
    complain("--%s does not go with --%s", option, modes[q->mode]);
    return false;
  }
  q->mode = m;
  return true;
}

static bool parse_packet(request *q, const char *text) {
  const char *colon = strchr(text, ':'), *end = text + strlen(text);
  if (!colon || !parse_u64(text, colon, &q->packet_flow) ||
      !parse_u64(colon + 1, end, &q->packet_number))
    return bad("packet", text, end, "FLOW:NUMBER");
  return set_mode(q, MODE_PACKET, "packet");
}

static bool parse_plot(request *q, const char *text) {
  const char *end = text + strlen(text);
  q->plot_name = NULL;
  if (!*text) return bad("plot", text, end, "an event type");
  if (!parse_u64(text, end, &q->plot_type) && !standard_type(text, end, &q->plot_type))
    q->plot_name = text;
  return set_mode(q, MODE_PLOT, "plot");
}

static bool parse_trace(request *q, const char *text) {
  size_t length = strlen(text);
  if (length == 0 || length > 32 || strspn(text, "0123456789abcdefABCDEF") != length)
    return bad("trace", text, text + length, "a trace id (up to 32 hex digits)");
  q->trace = text;
  return true;
}

static bool parse_number(const char *option, const char *text, uint64_t *value) {
  const char *end = text + strlen(text);
  return parse_u64(text, end, value) || bad(option, text, end, "a number");
}

enum {
  OPT_FLOW = 256,
  OPT_CHAIN,
  OPT_TYPE,
  OPT_CATEGORY,
  OPT_THREAD,
  OPT_SINCE,
  OPT_UNTIL,
  OPT_TRACE,
  OPT_LIMIT,
  OPT_FOLLOW,
  OPT_STATS,
  OPT_FLOWS,
  OPT_PACKET,
  OPT_PLOT,
  OPT_RECOVER,
  OPT_STRICT,
  OPT_HELP,
  OPT_VERSION
};
static const struct option options[] = {{"format", required_argument, NULL, 'f'},
                                        {"output", required_argument, NULL, 'o'},
                                        {"flow", required_argument, NULL, OPT_FLOW},
                                        {"chain", required_argument, NULL, OPT_CHAIN},
                                        {"type", required_argument, NULL, OPT_TYPE},
                                        {"category", required_argument, NULL, OPT_CATEGORY},
                                        {"thread", required_argument, NULL, OPT_THREAD},
                                        {"since", required_argument, NULL, OPT_SINCE},
                                        {"until", required_argument, NULL, OPT_UNTIL},
                                        {"trace", required_argument, NULL, OPT_TRACE},
                                        {"limit", required_argument, NULL, OPT_LIMIT},
                                        {"follow", no_argument, NULL, OPT_FOLLOW},
                                        {"stats", no_argument, NULL, OPT_STATS},
                                        {"flows", no_argument, NULL, OPT_FLOWS},
                                        {"packet", required_argument, NULL, OPT_PACKET},
                                        {"plot", required_argument, NULL, OPT_PLOT},
                                        {"recover", no_argument, NULL, OPT_RECOVER},
                                        {"strict", no_argument, NULL, OPT_STRICT},
                                        {"help", no_argument, NULL, OPT_HELP},
                                        {"version", no_argument, NULL, OPT_VERSION},
                                        {NULL, 0, NULL, 0}};

static bool parse_option(request *q, int option, const char *text) {
  switch (option) {
    case 'f': q->format = text; return true;
    case 'o': q->output = text; return true;
    case OPT_FLOW: return each(q, "flow", text, add_flow);
    case OPT_TYPE: return each(q, "type", text, add_type);
    case OPT_CATEGORY: return each(q, "category", text, add_category);
    case OPT_THREAD: return each(q, "thread", text, add_thread);
    case OPT_CHAIN:
      if (!parse_number("chain", text, &q->chain)) return false;
      return q->chain != 0 || bad("chain", text, text + strlen(text), "a flow (0 is no flow)");
    case OPT_SINCE: return parse_moment("since", text, &q->since);
    case OPT_UNTIL: return parse_moment("until", text, &q->until);
    case OPT_TRACE: return parse_trace(q, text);
    case OPT_LIMIT: return q->has_limit = true, parse_number("limit", text, &q->limit);
    case OPT_FOLLOW: return q->follow = true;
    case OPT_STATS: return set_mode(q, MODE_STATS, "stats");
    case OPT_FLOWS: return set_mode(q, MODE_FLOWS, "flows");
    case OPT_PACKET: return parse_packet(q, text);
    case OPT_PLOT: return parse_plot(q, text);
    case OPT_RECOVER: return q->recover = true;
    case OPT_STRICT: return q->strict = true;
    default: return false; /* getopt_long has said why */
  }
}

/* What goes with what. */
static bool check_request(request *q) {
  static const char *const formats[] = {"text", "csv", "json", "ndjson"};
  bool known = !q->format;
  for (size_t i = 0; i < 4 && !known; i++) known = strcmp(q->format, formats[i]) == 0;
  if (!known) {
    complain("--format: '%s' is not text, csv, json or ndjson", q->format);
    return false;
  }
  if (q->mode != MODE_PRINT && q->format && strcmp(q->format, "text") != 0) {
    complain("--format %s: --stats, --flows, --packet and --plot print text", q->format);
    return false;
  }
  if (q->follow && q->mode != MODE_PRINT && q->mode != MODE_STATS) {
    complain("--follow does not go with --flows, --packet or --plot");
    return false;
  }
  if (q->path_count == 0) {
    complain("which trace? PATH is missing; see ojo-cat --help");
    return false;
  }
  for (size_t i = 0; i < q->path_count; i++) {
    bool dash = strcmp(q->paths[i], "-") == 0;
    if (dash && q->has_stdin) {
      complain("- (standard input) can be read only once");
      return false;
    }
    q->has_stdin = q->has_stdin || dash;
  }
  return true;
}

/* Fills q. -1: go on; else the exit code. */
static int parse_options(request *q, int argc, char **argv) {
  int option;
  static char name[] = "ojo-cat";
  if (argc > 0) argv[0] = name; /* getopt_long complains under this name, as we do */
  while ((option = getopt_long(argc, argv, "f:o:", options, NULL)) != -1) {
    if (option == OPT_HELP || option == OPT_VERSION) {
      fputs(option == OPT_HELP ? help : "ojo-cat " OJO_VERSION "\n", stdout);
      return fflush(stdout) == 0 ? EXIT_OK : EXIT_NOTHING_READ;
    }
    if (!parse_option(q, option, optarg)) return EXIT_USAGE;
  }
  q->paths = (const char *const *)argv + optind;
  q->path_count = (size_t)(argc - optind);
  return check_request(q) ? -1 : EXIT_USAGE;
}

/* ---- opening the traces ---------------------------------------------------------------------- */

/* The events that a report reads, so that the reader skips the others. */
static const uint64_t packet_types[] = {OJO_PACKET_CREATED,
                                        OJO_PACKET_SENT,
                                        OJO_PACKET_ACKED,
                                        OJO_PACKET_LOST_TIMEOUT,
                                        OJO_PACKET_LOST_DUPLICATE_ACK,
                                        OJO_PACKET_RETRANSMIT_OLD,
                                        OJO_PACKET_RETRANSMIT_NEW,
                                        OJO_PACKET_RECEIVED,
                                        OJO_PACKET_DROPPED,
                                        OJO_PACKET_LOST_TIME,
                                        OJO_PACKET_LOST_REPORTED,
                                        OJO_PACKET_LOST_SPURIOUS,
                                        OJO_ACK_SENT,
                                        OJO_OFFSET_SENT,
                                        OJO_OFFSET_RETRANSMITTED,
                                        OJO_FLOW,
                                        OJO_STREAM_OPENED,
                                        OJO_STREAM_LINK_PARENT,
                                        OJO_EVENTS_DROPPED};

/* --follow: called before the reader waits for more. */
static void flush_idle(void *user) {
  cat *c = user;
  out_flush(&c->out);
  if (c->out.error) ojo_reader_stop(c->reader);
}

/* Opens with all filters; or, before names, traces and times from the end are known (`resolved`
 * false), to find these out: with none, or, for standard input, which is opened only once, with
 * those that are. */
static ojo_result open_reader(cat *c, ojo_reader **r, bool resolved) {
  request *q = c->request;
  static uint32_t threads[LIST_MAX];
  uint64_t plot_types[4] = {q->plot_type, OJO_FLOW, OJO_STREAM_OPENED, OJO_EVENTS_DROPPED};
  ojo_reader_desc desc = {.paths = q->paths, .path_count = q->path_count};
  if (!resolved && !q->has_stdin) return ojo_reader_open(r, &desc);
  for (size_t i = 0; i < q->threads.count; i++) threads[i] = (uint32_t)q->threads.items[i];
  desc.follow = q->follow;
  desc.idle = flush_idle;
  desc.idle_user = c;
  desc.threads = threads;
  desc.thread_count = q->threads.count;
  desc.flows = q->flows.items;
  desc.flow_count = q->flows.count;
  desc.chain = q->chain;
  desc.categories = q->categories.items;
  desc.category_count = q->categories.count;
  desc.since_ns = q->since_ns;
  desc.until_ns = q->until_ns;
  desc.trace_id = q->has_trace ? q->trace_id : NULL;
  if (resolved) {
    desc.types = q->types.items;
    desc.type_count = q->types.count;
  }
  if (q->mode == MODE_PACKET) {
    desc.types = packet_types;
    desc.type_count = sizeof packet_types / sizeof *packet_types;
  }
  if (q->mode == MODE_FLOWS) { /* the flows come from the reader's table: only losses are read */
    desc.types = plot_types + 3;
    desc.type_count = 1;
  }
  if (resolved && q->mode == MODE_PLOT) {
    desc.types = plot_types;
    desc.type_count = 4;
  }
  return ojo_reader_open(r, &desc);
}

static bool trace_matches(const request *q, const ojo_reader_trace_info *t) {
  unsigned char hex[40];
  put_hex(hex, t->id, 16);
  return strncasecmp(q->trace, (char *)hex, strlen(q->trace)) == 0;
}

static bool resolve_trace(request *q, ojo_reader *r) {
  unsigned matches = 0;
  for (uint32_t i = 0; i < ojo_reader_trace_count(r); i++) {
    const ojo_reader_trace_info *t = ojo_reader_trace(r, i);
    if (!trace_matches(q, t)) continue;
    memcpy(q->trace_id, t->id, 16);
    q->trace_index = i;
    matches++;
  }
  q->has_trace = matches == 1;
  if (matches != 1)
    complain("--trace: '%s' fits %u traces of %u", q->trace, matches, ojo_reader_trace_count(r));
  return matches == 1;
}

static bool resolve_name(request *q, ojo_reader *r, const char *option, const char *name,
                         list *types) {
  static uint64_t values[LIST_MAX];
  size_t count = ojo_reader_types_by_name(r, name, values, LIST_MAX);
  (void)q;
  if (count == 0) {
    complain("--%s: there is no event type '%s', neither in ojo nor in these traces", option, name);
    return false;
  }
  for (size_t i = 0; i < count; i++)
    if (i == LIST_MAX || !list_add(types, values[i])) return too_many(option);
  return true;
}

/* The application's own categories are known from its types. */
static bool resolve_category(const request *q, const ojo_reader *r, const char *name) {
  if (ojo_reader_category_known(r, name)) return true;
  if (q->follow && ojo_reader_trace_count(r) == 0) return true; /* it may come */
  complain("--category: there is no category '%s', neither in ojo nor in these traces", name);
  return false;
}

static void resolve_moment(ojo_reader *r, const moment *m, uint64_t *ns) {
  uint64_t end = 0;
  *ns = m->ns;
  if (!m->from_end) return;
  for (uint32_t i = 0; i < ojo_reader_trace_count(r); i++)
    if (ojo_reader_trace(r, i)->last_ns > end) end = ojo_reader_trace(r, i)->last_ns;
  *ns = m->ns < end ? end - m->ns : 0;
}

/* Names of the application's types, trace ids and times from the end are known only once the traces
 * are open. The reader is then opened again with these filters too; standard input can't be read
 * twice, and is filtered here (see passes). Returns the exit code, or -1: go on. */
static int open_traces(cat *c) {
  request *q = c->request;
  ojo_reader **r = &c->reader;
  bool ask =
      q->trace || q->type_names.count || q->plot_name || q->since.from_end || q->until.from_end;
  q->filter_here = ask && q->has_stdin;
  q->since_ns = q->since.from_end ? 0 : q->since.ns;
  q->until_ns = q->until.from_end ? 0 : q->until.ns;
  if (q->until.set && !q->until.from_end && q->until.ns == 0)
    q->until_ns = 1; /* 0 is the reader's "no limit" */
  q->opened = open_reader(c, r, !ask);
  for (size_t i = 0; *r && q->opened == OJO_OK && i < q->categories.count; i++)
    if (!resolve_category(q, *r, q->categories.items[i])) return EXIT_USAGE;
  if (q->opened != OJO_OK || !ask) return -1;
  resolve_moment(*r, &q->since, &q->since_ns);
  resolve_moment(*r, &q->until, &q->until_ns);
  if (q->until.set && q->until_ns == 0) q->until_ns = 1;
  for (size_t i = 0; i < q->type_names.count; i++)
    if (!resolve_name(q, *r, "type", q->type_names.items[i], &q->types)) return EXIT_USAGE;
  if (q->plot_name) {
    list found = {0};
    if (!resolve_name(q, *r, "plot", q->plot_name, &found)) return EXIT_USAGE;
    q->plot_type = found.items[0];
    free(found.items);
  }
  if (q->trace && !resolve_trace(q, *r)) return EXIT_USAGE;
  if (q->has_stdin) return -1;
  ojo_reader_close(*r);
  *r = NULL;
  q->opened = open_reader(c, r, true);
  return -1;
}

static bool listed(const list *l, uint64_t value) {
  for (size_t i = 0; i < l->count; i++)
    if (l->items[i] == value) return true;
  return l->count == 0;
}

/* For standard input: the filters that were resolved too late for the reader. */
static bool passes(const cat *c, const ojo_reader_event *e) {
  const request *q = c->request;
  if (q->has_trace && e->trace != q->trace_index) return false;
  if ((q->since_ns && e->time_ns < q->since_ns) || (q->until_ns && e->time_ns >= q->until_ns))
    return false;
  return q->mode > MODE_STATS || listed(&q->types, e->type); /* reports choose types themselves */
}

bool cat_wants_flow(const cat *c, uint32_t trace, uint64_t flow) {
  const request *q = c->request;
  if (q->has_trace && memcmp(ojo_reader_trace(c->reader, trace)->id, q->trace_id, 16) != 0)
    return false;
  return listed(&q->flows, flow);
}

/* ---- one event after the other --------------------------------------------------------------- */

static uint64_t now_ms(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (uint64_t)t.tv_sec * 1000u + (uint64_t)t.tv_nsec / 1000000u;
}

/* "[######..............]  30 %  12 M events": on a terminal, once the work has taken a second. */
static void show_progress(cat *c) {
  static uint64_t start, shown;
  static int wanted = -1;
  if (wanted < 0) {
    wanted = isatty(STDERR_FILENO) && !isatty(c->out.fd) && !c->follow;
    start = now_ms();
  }
  if (!wanted) return;
  uint64_t now = now_ms(), total = 0, done = ojo_reader_progress(c->reader, &total);
  if (now - start < 1000 || now - shown < 100 || total == 0) return;
  if (done > total) done = total;
  unsigned filled = (unsigned)(done / (total / 30 + 1));
  shown = now;
  progress_shown = true;
  fprintf(stderr, "\r[%.*s%.*s] %3u %%  %llu events ", (int)filled,
          "##############################", 30 - (int)filled, "..............................",
          (unsigned)(done / (total / 100 + 1)), (unsigned long long)c->events);
}

static void clear_progress(void) {
  if (progress_shown) fputs("\r\x1b[K", stderr);
  progress_shown = false;
}

/* Every LOOK_EVENTS events, and at the limit. False: stop. */
static bool look_around(cat *c) {
  const request *q = c->request;
  if (c->out.error || interrupted) return false;
  if (q->has_limit && c->events >= q->limit) return false;
  show_progress(c);
  c->countdown = LOOK_EVENTS;
  if (q->has_limit && q->limit - c->events < c->countdown) c->countdown = q->limit - c->events;
  if (c->follow) c->countdown = 1;
  return true;
}

static void count_loss(cat *c, const ojo_reader_event *e) {
  ojo_dropped d = {0};
  if (!ojo_reader_dropped(e, &d) || d.reason >= DROP_REASONS) d.reason = 0;
  c->lost[d.reason] += e->payload;
}

static inline bool next_event(cat *c, ojo_reader_event *e) {
  if (__builtin_expect(c->countdown == 0, 0) && !look_around(c)) return false;
  for (;;) {
    if (!ojo_reader_next(c->reader, e)) return false;
    if (__builtin_expect(c->request->filter_here, 0) && !passes(c, e)) continue;
    break;
  }
  c->countdown--;
  c->events++;
  if (__builtin_expect(e->type == OJO_EVENTS_DROPPED, 0)) count_loss(c, e);
  return true;
}
bool cat_next(cat *c, ojo_reader_event *e) { return next_event(c, e); }

void cat_rewind(cat *c) {
  ojo_reader_rewind(c->reader);
  c->events = c->countdown = 0;
  memset(c->lost, 0, sizeof c->lost);
}

/* ---- signals --------------------------------------------------------------------------------- */

static void on_interrupt(int signal_number) {
  interrupted = signal_number;
  if (signal_reader) ojo_reader_stop(signal_reader);
}

static void catch_signals(cat *c) {
  struct sigaction action;
  memset(&action, 0, sizeof action);
  sigemptyset(&action.sa_mask);
  signal_reader = c->reader;
  action.sa_handler = SIG_IGN; /* a closed pipe is an error of write, told apart in finish */
  sigaction(SIGPIPE, &action, NULL);
  action.sa_handler = on_interrupt;
  action.sa_flags = SA_RESTART | (int)SA_RESETHAND; /* the second Ctrl-C ends the program at once */
  sigaction(SIGINT, &action, NULL);
  sigaction(SIGTERM, &action, NULL);
}

/* ---- what is told at the end ----------------------------------------------------------------- */

static void tell_traces(const cat *c) {
  uint32_t count = ojo_reader_trace_count(c->reader);
  if (count < 2 || c->request->has_trace) return;
  char line[1024], *p = line;
  for (uint32_t i = 0; i < count && i < 8; i++) {
    const ojo_reader_trace_info *t = ojo_reader_trace(c->reader, i);
    unsigned char hex[24];
    *put_hex(hex, t->id, 4) = 0;
    p += sprintf(p, "%s%s %s", i ? ", " : "", (char *)hex, t->command);
    if (t->pid) p += sprintf(p, " (pid %u)", t->pid);
  }
  complain("%u traces, merged by time; --trace ID shows one: %s%s", count, line,
           count > 8 ? ", ..." : "");
}

/* The losses in the same traces, times and threads that other filters (a flow, a type) kept from us: only
 * the reader's sum of them is known, which is that of whole runs, so read these events again. False: not
 * all were found. */
static bool find_losses(cat *c) {
  static uint32_t threads[LIST_MAX];
  request *q = c->request;
  const uint64_t type = OJO_EVENTS_DROPPED;
  ojo_reader_desc desc = {
      .paths = q->paths, .path_count = q->path_count, .types = &type, .type_count = 1};
  desc.since_ns = q->since_ns;
  desc.until_ns = q->until_ns;
  desc.trace_id = q->has_trace ? q->trace_id : NULL;
  for (size_t i = 0; i < q->threads.count; i++) threads[i] = (uint32_t)q->threads.items[i];
  desc.threads = threads;
  desc.thread_count = q->threads.count;
  ojo_reader *r;
  ojo_reader_event e;
  bool opened = ojo_reader_open(&r, &desc) == OJO_OK;
  if (opened) {
    memset(c->lost, 0, sizeof c->lost);
    while (!interrupted && ojo_reader_next(r, &e)) count_loss(c, &e);
  }
  ojo_reader_close(r);
  return opened && !interrupted;
}

/* --strict wants the losses and the damage behind --limit as well. */
static void read_the_rest(cat *c) {
  ojo_reader_event e;
  while (!interrupted && ojo_reader_next(c->reader, &e))
    if (e.type == OJO_EVENTS_DROPPED && (!c->request->filter_here || passes(c, &e)))
      count_loss(c, &e);
}

static uint64_t sum_of_losses(const cat *c) {
  uint64_t sum = 0;
  for (unsigned i = 0; i < DROP_REASONS; i++) sum += c->lost[i];
  return sum;
}

/* One line per kind of loss. Returns how many events were lost. */
static uint64_t tell_losses(cat *c) {
  const request *q = c->request;
  uint64_t total = 0, seen = sum_of_losses(c);
  bool all_read = !q->has_limit || c->events < q->limit || q->strict;
  for (uint32_t i = 0; i < ojo_reader_trace_count(c->reader); i++)
    total += ojo_reader_trace(c->reader, i)->dropped;
  bool exact = total > seen && all_read && !q->has_stdin && !q->follow && !interrupted && find_losses(c);
  seen = sum_of_losses(c);
  if (exact) total = seen;
  for (unsigned i = 0; i < DROP_REASONS; i++) {
    const char *reason = drop_reason_name(i);
    char words[32];
    snprintf(words, sizeof words, "%s", reason ? reason : "unknown reason");
    for (char *at = words; *at; at++)
      if (*at == '_') *at = ' ';
    if (c->lost[i])
      complain("%llu event%s dropped: %s", (unsigned long long)c->lost[i], plural(c->lost[i]), words);
  }
  if (total > seen)
    complain("%llu event%s dropped, by what is not shown here: --type EVENTS_DROPPED",
             (unsigned long long)(total - seen), plural(total - seen));
  return total > seen ? total : seen;
}

/* A crashed tracer's events are in its pool: they are not read from there. */
static void tell_dead_pools(cat *c) {
  uint64_t pools = ojo_reader_dead_pools(c->reader);
  const char *dir = c->request->path_count == 1 ? c->request->paths[0] : "DIR";
  size_t length = strlen(dir);
  c->request->pools = pools != 0;
  if (pools)
    complain("staging/ holds %llu pool%s of crashed tracers, whose last events are not shown unless a dump wrote them; to see them: "
             "ojo-cat %s%sstaging/pool_*.link; to write them: ojo-cat --recover %s",
             (unsigned long long)pools, pools == 1 ? "" : "s", dir,
             length && dir[length - 1] == '/' ? "" : "/", dir);
}

/* A line per error, up to a limit. Returns how many there are. */
static uint64_t tell_errors(const cat *c) {
  uint64_t count = ojo_reader_error_count(c->reader), told = 0;
  for (; told < count && told < ERROR_LINES_MAX; told++) {
    const ojo_reader_error *e = ojo_reader_error_at(c->reader, told);
    if (!e) break;
    if (!e->path[0]) complain("%s", e->text); /* of no one file */
    else if (!e->offset) complain("%s: %s", e->path, e->text); /* of the file as a whole */
    else complain("%s: at offset %llu: %s", e->path, (unsigned long long)e->offset, e->text);
  }
  if (count > told)
    complain("%llu more error%s", (unsigned long long)(count - told), plural(count - told));
  return count;
}

/* Why there is nothing to see, or less than was asked for: a misspelt path or flow is no error, but not silent. */
static void tell_nothing(const cat *c) {
  const request *q = c->request;
  uint64_t bytes = 0;
  if (q->follow || interrupted) return;
  if (ojo_reader_trace_count(c->reader) == 0)
    for (size_t i = 0; i < q->path_count; i++) complain("%s: there is no trace in it", q->paths[i]);
  for (uint32_t i = 0; i < ojo_reader_trace_count(c->reader); i++) bytes += ojo_reader_trace(c->reader, i)->bytes;
  if (bytes == 0 || (c->events && bytes > c->flow_table_bytes_max)) return;
  for (size_t i = 0; i < q->flows.count; i++) /* by the reader's table: one more pass over the files, perhaps */
    if (q->flows.items[i] && !ojo_reader_flow(c->reader, q->flows.items[i]))
      complain("--flow: no event is of flow %llu", (unsigned long long)q->flows.items[i]);
  if (q->chain && c->events == 0 && !ojo_reader_flow(c->reader, q->chain))
    complain("--chain: no event is of flow %llu", (unsigned long long)q->chain);
}

/* Says what was lost or damaged, and gives the exit code. */
static int finish(cat *c, bool told) {
  const request *q = c->request;
  clear_progress();
  if (c->out.error == EPIPE) { /* the reader of our output has gone: end as cat does */
    signal(SIGPIPE, SIG_DFL);
    raise(SIGPIPE);
    return EXIT_NOTHING_READ;
  }
  if (q->strict && q->has_limit && !q->follow && !c->out.error) read_the_rest(c);
  uint64_t lost = tell_losses(c), errors = tell_errors(c);
  if (c->out.error) {
    complain("%s: %s", q->output ? q->output : "standard output", strerror(c->out.error));
    return EXIT_NOTHING_READ;
  }
  if (!told) return EXIT_NOTHING_READ;
  tell_nothing(c);
  return q->strict && (lost || errors || q->pools) ? EXIT_STRICT : EXIT_OK;
}

/* ---- main ------------------------------------------------------------------------------------ */

static bool is_input(const request *q, const struct stat *file) {
  struct stat input;
  for (size_t i = 0; i < q->path_count; i++)
    if (stat(q->paths[i], &input) == 0 && input.st_dev == file->st_dev &&
        input.st_ino == file->st_ino)
      return true;
  return false;
}

/* Perhaps one of a directory that is to be read, or what standard input is. */
static bool is_trace(const char *path) {
  char magic[4] = {0};
  int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  bool is = fd >= 0 && read(fd, magic, 4) == 4 && memcmp(magic, OJO_FILE_MAGIC, 4) == 0;
  if (fd >= 0) close(fd);
  return is;
}

/* The output file, written in place. Opening it must not destroy what is to be read. Returns -1,
 * and sets the exit code, if there is none. */
static int open_output(const request *q, int *code) {
  struct stat file;
  if (!q->output || strcmp(q->output, "-") == 0) return STDOUT_FILENO;
  if (stat(q->output, &file) == 0 && S_ISREG(file.st_mode) &&
      (is_input(q, &file) || is_trace(q->output))) {
    complain(is_input(q, &file) ? "--output: '%s' is what is to be read"
                                : "--output: '%s' is a trace: remove it first",
             q->output);
    *code = EXIT_USAGE;
    return -1;
  }
  int fd = open(q->output, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
  if (fd < 0) complain("%s: %s", q->output, strerror(errno));
  return fd;
}

static void look_at_terminal(cat *c, int fd) {
  const char *no_color = getenv("NO_COLOR"), *term = getenv("TERM");
  struct winsize size;
  c->terminal = isatty(fd);
  c->colour = c->terminal && !(no_color && *no_color) && !(term && strcmp(term, "dumb") == 0);
  c->width = 80;
  if (c->terminal && ioctl(fd, TIOCGWINSZ, &size) == 0 && size.ws_col > 20) c->width = size.ws_col;
}

static const exporter *choose_exporter(const request *q, bool terminal) {
  static const exporter *const all[] = {&export_text, &export_csv, &export_json, &export_ndjson};
  const char *name = q->format ? q->format : terminal ? "text" : "csv";
  if (q->mode == MODE_STATS) return &export_stats;
  for (size_t i = 0; i < sizeof all / sizeof *all; i++)
    if (strcmp(all[i]->name, name) == 0) return all[i];
  return &export_csv;
}

static bool print_events(cat *c, const exporter *x) {
  if (!x->begin(c)) {
    complain("out of memory");
    return false;
  }
  ojo_reader_event e;
  while (next_event(c, &e)) x->event(c, &e);
  x->end(c);
  return true;
}

/* The earliest start: the zero of relative times. */
static uint64_t start_of(ojo_reader *r) {
  uint64_t start = 0;
  for (uint32_t i = 0; i < ojo_reader_trace_count(r); i++)
    if (i == 0 || ojo_reader_trace(r, i)->start_unix_ns < start)
      start = ojo_reader_trace(r, i)->start_unix_ns;
  return start;
}

static bool print_all(cat *c, const request *q) {
  switch (q->mode) {
    case MODE_FLOWS: return report_flows(c);
    case MODE_PACKET: return report_packet(c, q->packet_flow, q->packet_number);
    case MODE_PLOT: return report_plot(c, q->plot_type);
    default: return print_events(c, choose_exporter(q, c->terminal));
  }
}

static void free_request(request *q) {
  for (size_t i = 0; i < q->type_names.count; i++) free((void *)(uintptr_t)q->type_names.items[i]);
  for (size_t i = 0; i < q->categories.count; i++) free((void *)(uintptr_t)q->categories.items[i]);
  free(q->type_names.items);
  free(q->categories.items);
  free(q->flows.items);
  free(q->types.items);
  free(q->threads.items);
}

/* --recover: nothing to do is no error. */
static int recover(const request *q) {
  int code = EXIT_OK;
  for (size_t i = 0; i < q->path_count; i++) {
    struct stat st;
    ojo_result result = ojo_recover(q->paths[i]);
    if (result == OJO_OK) continue;
    if (stat(q->paths[i], &st) == 0 && !S_ISDIR(st.st_mode))
      complain("--recover %s: not a directory; it wants the one that the tracer was given", q->paths[i]);
    else complain("--recover %s: %s", q->paths[i], ojo_result_string(result));
    code = EXIT_NOTHING_READ;
  }
  return code;
}

int main(int argc, char **argv) {
  request q = {0};
  cat c = {.request = &q, .flow_table_bytes_max = FLOW_TABLE_BYTES};
  integers_begin();
  int fd = -1, code = parse_options(&q, argc, argv);
  if (code >= 0) goto cleanup;
  if (q.recover) {
    code = recover(&q);
    goto cleanup;
  }
  code = open_traces(&c);
  if (code >= 0) goto cleanup;
  code = EXIT_NOTHING_READ;
  if (!c.reader) {
    complain("out of memory");
    goto cleanup;
  }
  if (ojo_reader_trace_count(c.reader) == 0 &&
      (q.opened != OJO_OK || ojo_reader_error_count(c.reader) > 0)) {
    if (tell_errors(&c) == 0) complain("%s: nothing to read", q.paths[0]);
    goto cleanup;
  }
  fd = open_output(&q, &code);
  if (fd < 0 || !out_open(&c.out, fd)) goto cleanup;
  look_at_terminal(&c, fd);
  c.follow = q.follow;
  c.start_ns = start_of(c.reader);
  tell_traces(&c);
  tell_dead_pools(&c);
  catch_signals(&c);
  bool told = print_all(&c, &q);
  out_flush(&c.out);
  if (fd != STDOUT_FILENO && close(fd) != 0 && !c.out.error) c.out.error = errno;
  code = finish(&c, told);
  if (interrupted && !c.follow) { /* not all was printed: end as the signal asks */
    signal(interrupted, SIG_DFL);
    raise(interrupted);
  }

cleanup:
  if (c.out.buffer) {
    c.out.at = c.out.buffer;
    out_close(&c.out);
  }
  signal_reader = NULL;
  ojo_reader_close(c.reader);
  free_request(&q);
  return code;
}
