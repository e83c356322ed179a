/* SPDX-License-Identifier: MIT
 *
 * ojo-top - TCP and UDP connections as the kernel counts them, live. See ojo-top.1, or ojo-top --help.
 *
 * From top to bottom: the settings, reading options, text and numbers, the table of connections, order and
 * filter, the lines of batch, JSON and CSV, output, the screen, its keys, signals, the loop, main.
 */
#define OJO_IMPLEMENTATION
#define OJO_BPF_IMPLEMENTATION
#include "ojo.h"
#include "ojo_bpf.h"

#include <arpa/inet.h>
#include <curses.h>
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <langinfo.h>
#include <locale.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/ioctl.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

/* The kernel side is in the program itself: no file need lie beside it. */
#ifndef OJO_TOP_OBJECT
#define OJO_TOP_OBJECT "build/ojo_bpf.o"
#endif
__asm__(".pushsection .rodata\n"
        ".balign 16\n"
        ".globl ojo_top_object\n.hidden ojo_top_object\n"
        "ojo_top_object:\n.incbin \"" OJO_TOP_OBJECT "\"\n"
        ".globl ojo_top_object_end\n.hidden ojo_top_object_end\n"
        "ojo_top_object_end:\n.byte 0\n.popsection\n");
extern const unsigned char ojo_top_object[], ojo_top_object_end[];

enum { EXIT_OK = 0, EXIT_FAILED = 1, EXIT_USAGE = 2, EXIT_UNPRIVILEGED = 77 };

#define LIST_MAX 1024u     /* members of -p and --port */
#define SAMPLES 64u        /* of each connection, for its sparklines: one per refresh */
#define ADDRESS_BYTES 48u  /* text of an address */
#define CELL_BYTES 64u     /* text of a cell: an address, brackets and a port */
#define FILTER_BYTES 64u
#define MISSES_MAX 3u      /* listings without a connection, before it counts as closed */
#define NS_PER_S UINT64_C(1000000000)

/* ---- the settings ---------------------------------------------------------------------------- */

/* What there is of a connection: the keys of JSON and the columns of CSV, in this order. Then whether it is a
 * text or what identifies it (sorted up, numbers down) and more names for --sort. */
#define FIELDS(X)                               \
  X(PROTO, "proto", true, "protocol")           \
  X(LOCAL_ADDR, "local_addr", true, "local")    \
  X(LOCAL_PORT, "local_port", true, "")         \
  X(REMOTE_ADDR, "remote_addr", true, "remote") \
  X(REMOTE_PORT, "remote_port", true, "")       \
  X(PID, "pid", true, "")                       \
  X(COMM, "comm", true, "command")              \
  X(STATE, "state", true, "")                   \
  X(BYTES_IN, "bytes_in", false, "in")          \
  X(BYTES_OUT, "bytes_out", false, "out")       \
  X(PACKETS_IN, "packets_in", false, "")        \
  X(PACKETS_OUT, "packets_out", false, "")      \
  X(RATE_IN, "rate_in", false, "")              \
  X(RATE_OUT, "rate_out", false, "")            \
  X(RTT_US, "rtt_us", false, "rtt")             \
  X(RETRANSMITS, "retransmits", false, "")      \
  X(CWND, "cwnd", false, "")                    \
  X(AGE_MS, "age_ms", false, "age")             \
  X(PARTIAL, "partial", false, "")              \
  X(RATE, "rate", false, "") /* in and out together: for sorting only */
typedef enum field {
#define X(id, name, up, alias) F_##id,
  FIELDS(X)
#undef X
  FIELD_COUNT
} field;
static const struct {
  const char *name, *alias;
  bool up;
} fields[FIELD_COUNT] = {
#define X(id, name, up, alias) {name, alias, up},
    FIELDS(X)
#undef X
};

typedef enum mode { MODE_SCREEN, MODE_BATCH, MODE_JSON, MODE_CSV } mode;

typedef struct settings {
  mode mode;
  bool mode_given, raw, reverse, sort_given;
  field sort;
  uint64_t interval_ns, count; /* count 0: no end */
  uint32_t udp_timeout_ms;
  uint32_t pids[LIST_MAX];
  uint16_t ports[LIST_MAX];
  size_t pid_count, port_count;
  const char *record;
} settings;

static const char help[] =
    "usage: ojo-top [options]\n"
    "Shows TCP and UDP connections as the kernel counts them, live. Needs root, or CAP_BPF and CAP_PERFMON\n"
    "(UDP flows by address also CAP_NET_ADMIN).\n"
    "\n"
    "      --batch           lines instead of the screen; default where stdout is no terminal\n"
    "      --json            ndjson: a line per connection and interval, and one at its close\n"
    "      --csv             the same as CSV\n"
    "                        (lines carry no time: --json | ts of moreutils, or --record, has times)\n"
    "      --interval TIME   between two refreshes: seconds, or as 500ms (default 1)\n"
    "      --count N         end after N refreshes\n"
    "      --sort COLUMN     by this column, -COLUMN the other way round: rate (default), proto, local_addr,\n"
    "                        local_port, remote_addr, remote_port, pid, comm, state, bytes_in, bytes_out,\n"
    "                        packets_in, packets_out, rate_in, rate_out, rtt_us, retransmits, cwnd, age_ms,\n"
    "                        partial\n"
    "      --raw             plain numbers instead of units (the key h changes it)\n"
    "\n"
    "which connections\n"
    "  -p, --pid LIST        those of these processes (several by commas, or the option again)\n"
    "      --port LIST       those with one of these ports, at either end\n"
    "      --udp-timeout TIME  a UDP flow is over when no packet came for so long (default 5)\n"
    "\n"
    "      --record DIR      write a trace of what the kernel does to them meanwhile, into DIR: see ojo-cat\n"
    "      --help, --version\n"
    "\n"
    "exit status: 0 ok, also when ended by q, Ctrl-C, SIGTERM or SIGHUP; 1 the probes could not be attached\n"
    "or the output failed; 2 wrong usage; 77 not enough privileges\n";

/* ---- reading options ------------------------------------------------------------------------- */

static bool screen_is_on;
static char log_last[256]; /* what was said last while the screen was on */
static pthread_mutex_t log_lock = PTHREAD_MUTEX_INITIALIZER; /* of it: the trace's flusher speaks too */

static void complain(const char *format, ...) __attribute__((format(printf, 1, 2)));
static void complain(const char *format, ...) {
  char line[1024];
  va_list args;
  va_start(args, format);
  vsnprintf(line, sizeof line, format, args);
  va_end(args);
  for (char *p = line; *p; p++)
    if ((unsigned char)*p < 0x20 || *p == 0x7F) *p = '?';
  pthread_mutex_lock(&log_lock);
  if (screen_is_on) snprintf(log_last, sizeof log_last, "%.255s", line);
  else fprintf(stderr, "ojo-top: %s\n", line);
  pthread_mutex_unlock(&log_lock);
}

static bool parse_u64(const char *text, const char *end, uint64_t *value) {
  *value = 0;
  if (text == end) return false;
  for (; text < end; text++) {
    if (*text < '0' || *text > '9' || *value > (UINT64_MAX - 9) / 10) return false;
    *value = *value * 10 + (uint64_t)(*text - '0');
  }
  return true;
}

/* Seconds with decimals, or with a unit, ms or s. */
static bool parse_time(const char *option, const char *text, uint64_t least_ms, uint64_t *ns) {
  size_t length = strspn(text, "0123456789.");
  char *end = NULL;
  double value = length ? strtod(text, &end) : 0;
  double unit = strcmp(text + length, "ms") == 0 ? 1e-3 : 1;
  bool unit_ok = !text[length] || unit < 1 || strcmp(text + length, "s") == 0;
  if (length && end == text + length && unit_ok && value * unit <= 86400 && value * unit * 1e3 >= (double)least_ms) {
    *ns = (uint64_t)(value * unit * 1e9 + 0.5);
    return true;
  }
  complain("--%s: '%s' is not a time from %llu ms to a day, in seconds or as 500ms", option, text,
           (unsigned long long)least_ms);
  return false;
}

/* The members of a comma list. */
static bool parse_list(settings *s, const char *option, const char *text, uint64_t most) {
  for (;;) {
    const char *end = text + strcspn(text, ",");
    uint64_t value;
    if (!parse_u64(text, end, &value) || value == 0 || value > most) {
      complain("--%s: '%.*s' is not a number from 1 to %llu", option, (int)(end - text), text,
               (unsigned long long)most);
      return false;
    }
    bool pid = strcmp(option, "pid") == 0;
    if ((pid ? s->pid_count : s->port_count) == LIST_MAX) {
      complain("--%s: more than %u values", option, LIST_MAX);
      return false;
    }
    if (pid) s->pids[s->pid_count++] = (uint32_t)value;
    else s->ports[s->port_count++] = (uint16_t)value;
    if (!*end) return true;
    text = end + 1;
  }
}

static bool parse_sort(settings *s, const char *text) {
  bool reverse = text[0] == '-';
  for (unsigned f = 0; f < FIELD_COUNT; f++) {
    if (strcasecmp(text + reverse, fields[f].name) != 0 &&
        (!*fields[f].alias || strcasecmp(text + reverse, fields[f].alias) != 0))
      continue;
    s->sort = (field)f;
    s->reverse = reverse;
    return s->sort_given = true;
  }
  complain("--sort: there is no column '%s'; ojo-top --help names them", text);
  return false;
}

static bool parse_mode(settings *s, mode m) {
  bool exact = s->mode == MODE_JSON || s->mode == MODE_CSV;
  if (exact && m != MODE_BATCH && m != s->mode) {
    complain("--json does not go with --csv");
    return false;
  }
  if (!exact || m != MODE_BATCH) s->mode = m; /* --batch --json is --json */
  return s->mode_given = true;
}

enum { OPT_BATCH = 256, OPT_JSON, OPT_CSV, OPT_INTERVAL, OPT_COUNT, OPT_PORT, OPT_SORT, OPT_RAW, OPT_UDP_TIMEOUT,
       OPT_RECORD, OPT_HELP, OPT_VERSION };
static const struct option options[] = {{"batch", no_argument, NULL, OPT_BATCH},
                                        {"json", no_argument, NULL, OPT_JSON},
                                        {"csv", no_argument, NULL, OPT_CSV},
                                        {"interval", required_argument, NULL, OPT_INTERVAL},
                                        {"count", required_argument, NULL, OPT_COUNT},
                                        {"pid", required_argument, NULL, 'p'},
                                        {"port", required_argument, NULL, OPT_PORT},
                                        {"sort", required_argument, NULL, OPT_SORT},
                                        {"raw", no_argument, NULL, OPT_RAW},
                                        {"udp-timeout", required_argument, NULL, OPT_UDP_TIMEOUT},
                                        {"record", required_argument, NULL, OPT_RECORD},
                                        {"help", no_argument, NULL, OPT_HELP},
                                        {"version", no_argument, NULL, OPT_VERSION},
                                        {NULL, 0, NULL, 0}};

static bool parse_option(settings *s, int option, const char *text) {
  uint64_t ns;
  switch (option) {
    case OPT_BATCH: return parse_mode(s, MODE_BATCH);
    case OPT_JSON: return parse_mode(s, MODE_JSON);
    case OPT_CSV: return parse_mode(s, MODE_CSV);
    case OPT_INTERVAL: return parse_time("interval", text, 10, &s->interval_ns);
    case OPT_COUNT:
      if (parse_u64(text, text + strlen(text), &s->count) && s->count > 0) return true;
      complain("--count: '%s' is not a number from 1", text);
      return false;
    case 'p': return parse_list(s, "pid", text, INT32_MAX);
    case OPT_PORT: return parse_list(s, "port", text, UINT16_MAX);
    case OPT_SORT: return parse_sort(s, text);
    case OPT_RAW: return s->raw = true;
    case OPT_UDP_TIMEOUT:
      if (!parse_time("udp-timeout", text, 1, &ns)) return false;
      s->udp_timeout_ms = (uint32_t)(ns / 1000000u);
      return true;
    case OPT_RECORD:
      s->record = text;
      if (*text) return true;
      complain("--record: the directory has no name");
      return false;
    default: return false; /* getopt_long has said why */
  }
}

/* Fills s. -1: go on; else the exit code. */
static int parse_options(settings *s, int argc, char **argv) {
  static char name[] = "ojo-top";
  int option;
  s->interval_ns = NS_PER_S;
  s->sort = F_RATE;
  if (argc > 0) argv[0] = name; /* getopt_long complains under this name, as we do */
  while ((option = getopt_long(argc, argv, "p:", options, NULL)) != -1) {
    if (option == OPT_HELP || option == OPT_VERSION) {
      fputs(option == OPT_HELP ? help : "ojo-top " OJO_VERSION "\n", stdout);
      return fflush(stdout) == 0 ? EXIT_OK : EXIT_FAILED;
    }
    if (!parse_option(s, option, optarg)) return EXIT_USAGE;
  }
  if (optind < argc) {
    complain("'%s': there are no arguments but options; see ojo-top --help", argv[optind]);
    return EXIT_USAGE;
  }
  if (!s->mode_given && !isatty(STDOUT_FILENO)) s->mode = MODE_BATCH;
  return -1;
}

/* ---- text and numbers ------------------------------------------------------------------------ */

static inline char *put_part(char *p, const char *text, size_t length) {
  memcpy(p, text, length);
  return p + length;
}
static char *put_text(char *p, const char *text) { return put_part(p, text, strlen(text)); }
#define PUT(p, literal) put_part(p, literal, sizeof(literal) - 1)

static char *put_u64(char *p, uint64_t v) {
  static const char pairs[] = "0001020304050607080910111213141516171819202122232425262728293031323334353637383940414243"
                              "4445464748495051525354555657585960616263646566676869707172737475767778798081828384858687"
                              "888990919293949596979899";
  char digits[20], *d = digits + sizeof digits;
  for (; v >= 100; v /= 100) memcpy(d -= 2, pairs + v % 100 * 2, 2);
  if (v >= 10) memcpy(d -= 2, pairs + v * 2, 2);
  else *--d = (char)('0' + v);
  size_t length = (size_t)(digits + sizeof digits - d);
  memcpy(p, d, length);
  return p + length;
}

/* "999", "1.0K", "99.9K", "123K": at most five characters. base 1024 for bytes, 1000 for counts. */
static char *put_scaled(char *p, uint64_t v, uint64_t base) {
  if (v < 1000) return put_u64(p, v);
  unsigned power = 0;
  uint64_t tenths = 0; /* of the unit; v * 10 might overflow */
  for (; v >= 1000 && power < 6; power++) {
    tenths = (v % base * 10 + base / 2) / base;
    v /= base;
    if (tenths == 10) tenths = 0, v++;
  }
  p = put_u64(p, v);
  if (v < 100) *p++ = '.', *p++ = (char)('0' + tenths);
  *p++ = "?KMGTPE"[power];
  return p;
}

static char *put_rtt(char *p, uint64_t us) { /* "45us", "1.23ms", "12.3ms", "1.2s" */
  if (us < 1000) return PUT(put_u64(p, us), "us");
  if (us < 1000000) {
    p = put_u64(p, us / 1000);
    if (us < 100000) *p++ = '.', *p++ = (char)('0' + us / 100 % 10);
    if (us < 10000) *p++ = (char)('0' + us / 10 % 10);
    return PUT(p, "ms");
  }
  p = put_u64(p, us / 1000000);
  *p++ = '.', *p++ = (char)('0' + us / 100000 % 10);
  *p++ = 's';
  return p;
}

static char *put_age(char *p, uint64_t ms) { /* "0.4s", "59s", "5m03s", "7h09m", "3d04h" */
  static const struct { uint64_t seconds, lower; char unit, lower_unit; } units[] = {
      {86400, 3600, 'd', 'h'}, {3600, 60, 'h', 'm'}, {60, 1, 'm', 's'}};
  uint64_t s = ms / 1000;
  for (unsigned i = 0; i < 3; i++) {
    if (s < units[i].seconds) continue;
    uint64_t rest = s % units[i].seconds / units[i].lower;
    p = put_u64(p, s / units[i].seconds);
    *p++ = units[i].unit;
    if (rest < 10) *p++ = '0';
    p = put_u64(p, rest);
    *p++ = units[i].lower_unit;
    return p;
  }
  p = put_u64(p, s);
  if (s < 10) *p++ = '.', *p++ = (char)('0' + ms / 100 % 10);
  *p++ = 's';
  return p;
}

/* The next character of UTF-8 and its length; 0 for what is none (then of length 1), and for what would do
 * something to a terminal: controls, and what changes the direction of the writing. */
static uint32_t next_character(const char *text, size_t room, size_t *length) {
  const unsigned char *p = (const unsigned char *)text;
  uint32_t c = p[0];
  size_t want = c < 0x80 ? 1 : c < 0xC2 ? 0 : c < 0xE0 ? 2 : c < 0xF0 ? 3 : c < 0xF5 ? 4 : 0;
  *length = 1;
  if (want == 0 || want > room) return 0;
  if (want > 1) c &= 0x7Fu >> want;
  for (size_t i = 1; i < want; i++) {
    if ((p[i] & 0xC0u) != 0x80u) return 0;
    c = c << 6 | (p[i] & 0x3Fu);
  }
  if ((want == 3 && c < 0x800) || (want == 4 && (c < 0x10000 || c > 0x10FFFF)) || (c >= 0xD800 && c < 0xE000)) return 0;
  *length = want;
  bool acts = c < 0x20 || (c >= 0x7F && c < 0xA0) || c == 0x61C || (c >= 0x200B && c <= 0x200F) ||
              (c >= 0x2028 && c <= 0x202E) || (c >= 0x2060 && c <= 0x206F) || c == 0xFEFF;
  return acts ? 0 : c;
}

typedef enum dress { DRESS_PLAIN, DRESS_ASCII, DRESS_JSON, DRESS_CSV } dress;

/* A command's name, which its process chooses freely: up to 16 bytes, perhaps without a NUL. */
static char *put_command(char *p, const char command[16], dress d) {
  size_t length = strnlen(command, 16), step;
  bool quote = d == DRESS_CSV && (memchr(command, ',', length) || memchr(command, '"', length));
  if (quote) *p++ = '"';
  for (size_t i = 0; i < length; i += step) {
    uint32_t c = next_character(command + i, length - i, &step);
    unsigned char byte = (unsigned char)command[i];
    if (c == 0 && d == DRESS_JSON && step == 1 && (byte < 0x20 || byte == 0x7F)) {
      p = PUT(p, "\\u00");
      *p++ = "0123456789abcdef"[byte >> 4];
      *p++ = "0123456789abcdef"[byte & 15];
    } else if (c == 0 || (c >= 0x80 && d == DRESS_ASCII)) {
      if (d == DRESS_PLAIN || d == DRESS_ASCII) *p++ = '?';
      else p = PUT(p, "\xEF\xBF\xBD");
    } else {
      if (d == DRESS_JSON && (c == '"' || c == '\\')) *p++ = '\\';
      if (d == DRESS_CSV && c == '"') *p++ = '"';
      memcpy(p, command + i, step);
      p += step;
    }
  }
  if (quote) *p++ = '"';
  return p;
}

static const char *state_name(uint8_t state) { /* the kernel's, TCP_ESTABLISHED = 1 */
  static const char *const names[] = {"-", "ESTABLISHED", "SYN_SENT", "SYN_RECV", "FIN_WAIT1", "FIN_WAIT2", "TIME_WAIT",
                                      "CLOSED", "CLOSE_WAIT", "LAST_ACK", "LISTEN", "CLOSING", "NEW_SYN_RECV"};
  return state < sizeof names / sizeof *names ? names[state] : "?";
}

static uint64_t now_ns(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (uint64_t)t.tv_sec * NS_PER_S + (uint64_t)t.tv_nsec;
}

/* ---- the table of connections ---------------------------------------------------------------- */

typedef struct sample {
  float rate_in, rate_out;
  uint32_t rtt_us;
} sample;

typedef struct row {
  struct row *next; /* of its bucket */
  ojo_bpf_connection c;
  uint64_t serial;  /* of this row, never used again: what the screen remembers it by */
  uint64_t listing; /* the last that it was in */
  uint64_t rate_in, rate_out; /* bytes per second, over the last interval */
  uint64_t age_ms;
  char local[ADDRESS_BYTES], remote[ADDRESS_BYTES];
  bool is_new; /* first seen in the last listing, and not there before the probes */
  uint32_t sample_count; /* ever; sample i is at i % SAMPLES */
  sample samples[]; /* SAMPLES on the screen, else none */
} row;

typedef struct table {
  row **rows; /* in no order */
  row **buckets;
  size_t count, room, bucket_count; /* bucket_count: a power of two, or 0 */
  size_t row_bytes;
  uint64_t serial, listing;
  uint64_t listed_ns, elapsed_ns; /* when the last listing began, and how long after the one before */
  bool sampling, no_memory;
} table;

static uint64_t mix(uint64_t h) {
  h ^= h >> 32;
  h *= UINT64_C(0x9E3779B97F4A7C15);
  return h ^ h >> 29;
}

/* TCP: the socket. UDP: the 4-tuple too, since one socket has many. */
static uint64_t hash_of(const ojo_bpf_connection *c) {
  uint64_t h = mix(c->cookie + c->protocol), part;
  if (c->protocol != 17) return h;
  for (unsigned i = 0; i < 16; i += 8) {
    memcpy(&part, c->remote + i, 8);
    h = mix(h ^ part);
    memcpy(&part, c->local + i, 8);
    h = mix(h ^ part);
  }
  return mix(h ^ ((uint64_t)c->local_port << 16 | c->remote_port));
}

static bool same_addresses(const ojo_bpf_connection *a, const ojo_bpf_connection *b) {
  return a->local_port == b->local_port && a->remote_port == b->remote_port && a->address_bytes == b->address_bytes &&
         memcmp(a->local, b->local, 16) == 0 && memcmp(a->remote, b->remote, 16) == 0;
}

/* A socket that was connected anew keeps its cookie, and its live connection is told before the close of the one
 * before: their starts tell them apart. So it is with a UDP 4-tuple that comes back just after its end. */
static bool same_connection(const row *r, const ojo_bpf_connection *c) {
  if (r->c.cookie != c->cookie || r->c.protocol != c->protocol || r->c.closed) return false;
  if (r->c.first_ns != c->first_ns) return false;
  return c->protocol != 17 || same_addresses(&r->c, c);
}

static bool table_grow(table *t) {
  size_t room = t->room ? t->room * 2 : 1024;
  row **rows = realloc(t->rows, room * sizeof *rows);
  if (!rows) return false;
  t->rows = rows;
  row **buckets = calloc(room * 2, sizeof *buckets);
  if (!buckets) return false;
  free(t->buckets);
  t->buckets = buckets;
  t->bucket_count = room * 2;
  t->room = room;
  for (size_t i = 0; i < t->count; i++) {
    row **bucket = &buckets[hash_of(&t->rows[i]->c) & (t->bucket_count - 1)];
    t->rows[i]->next = *bucket;
    *bucket = t->rows[i];
  }
  return true;
}

static void address_text(char text[ADDRESS_BYTES], const uint8_t *address, uint8_t bytes, uint16_t port) {
  static const uint8_t zeros[16];
  if (port == 0 && memcmp(address, zeros, bytes == 16 ? 16 : 4) == 0) {
    memcpy(text, "*", 2); /* UDP by socket: anyone */
  } else if (bytes == 16) {
    if (!inet_ntop(AF_INET6, address, text, ADDRESS_BYTES)) memcpy(text, "?", 2);
  } else {
    char *p = text;
    for (unsigned i = 0; i < 4; i++) {
      if (i) *p++ = '.';
      p = put_u64(p, address[i]);
    }
    *p = 0;
  }
}

static row *table_add(table *t, const ojo_bpf_connection *c) {
  if (t->count == t->room && !table_grow(t)) return NULL;
  row *r = calloc(1, t->row_bytes);
  if (!r) return NULL;
  row **bucket = &t->buckets[hash_of(c) & (t->bucket_count - 1)];
  r->next = *bucket;
  *bucket = r;
  r->serial = ++t->serial;
  r->is_new = !c->partial;
  t->rows[t->count++] = r;
  return r;
}

static void table_remove(table *t, size_t index) {
  row *r = t->rows[index], **link = &t->buckets[hash_of(&r->c) & (t->bucket_count - 1)];
  while (*link != r) link = &(*link)->next;
  *link = r->next;
  free(r);
  t->rows[index] = t->rows[--t->count];
}

static uint64_t per_second(uint64_t now, uint64_t before, uint64_t elapsed_ns) {
  if (now <= before) return 0;
  return (uint64_t)((double)(now - before) * 1e9 / (double)elapsed_ns);
}

/* ojo_bpf_connections calls it for each connection. */
static bool table_take(void *user, const ojo_bpf_connection *c) {
  table *t = user;
  row *r = t->bucket_count ? t->buckets[hash_of(c) & (t->bucket_count - 1)] : NULL;
  while (r && !same_connection(r, c)) r = r->next;
  bool added = !r;
  if (added && !(r = table_add(t, c))) {
    t->no_memory = true;
    return false;
  }
  if (!added) r->is_new = false;
  r->rate_in = per_second(c->bytes_in, r->c.bytes_in, t->elapsed_ns);
  r->rate_out = per_second(c->bytes_out, r->c.bytes_out, t->elapsed_ns);
  uint64_t until = c->closed && c->last_ns ? c->last_ns : t->listed_ns;
  r->age_ms = until > c->first_ns ? (until - c->first_ns) / 1000000u : 0;
  if (added || !same_addresses(&r->c, c)) { /* a connecting socket gets its own address late */
    address_text(r->local, c->local, c->address_bytes, c->local_port);
    address_text(r->remote, c->remote, c->address_bytes, c->remote_port);
  }
  r->c = *c;
  if (c->protocol == 17) r->c.state = 0, r->c.rtt_us = r->c.cwnd = 0, r->c.retransmits = 0;
  else if (c->closed) r->c.state = 7; /* TCP_CLOSE, whatever was seen last */
  r->listing = t->listing;
  if (t->sampling) {
    sample *s = &r->samples[r->sample_count++ % SAMPLES];
    *s = (sample){(float)r->rate_in, (float)r->rate_out, c->rtt_us};
  }
  return true;
}

/* One refresh: takes all connections; those whose close was told in the listing before go. */
static ojo_result table_refresh(table *t, ojo_bpf *b) {
  uint64_t now = now_ns();
  for (size_t i = t->count; i-- > 0;)
    if (t->rows[i]->c.closed) table_remove(t, i);
  t->elapsed_ns = now - t->listed_ns < 5000000u ? 5000000u : now - t->listed_ns; /* the screen's first: about 0 */
  t->listed_ns = now;
  t->listing++;
  ojo_result result = ojo_bpf_connections(b, table_take, t);
  if (result == OJO_OK && t->no_memory) result = OJO_ERR_MEMORY;
  for (size_t i = 0; result == OJO_OK && i < t->count; i++) {
    row *r = t->rows[i]; /* whose close was lost: the loss is told, see look_for_losses */
    if (t->listing - r->listing < MISSES_MAX) continue;
    r->c.closed = true;
    if (r->c.protocol != 17) r->c.state = 7;
    r->rate_in = r->rate_out = 0;
    r->listing = t->listing;
  }
  return result;
}

static void table_free(table *t) {
  while (t->count) table_remove(t, t->count - 1);
  free(t->rows);
  free(t->buckets);
}

/* ---- order and filter ------------------------------------------------------------------------ */

typedef struct item {
  uint64_t key; /* decides most comparisons without a look at the row */
  row *r;
} item;

static uint64_t leading_bytes(const void *bytes) {
  const unsigned char *p = bytes;
  uint64_t v = 0;
  for (unsigned i = 0; i < 8; i++) v = v << 8 | p[i];
  return v;
}

/* v4 before v6, each by value. */
static uint64_t address_key(const uint8_t *address, uint8_t bytes) {
  uint64_t v = leading_bytes(address);
  return bytes == 16 ? v >> 1 | UINT64_C(1) << 63 : v >> 32;
}

static uint64_t sort_key(const row *r, field f) {
  switch (f) {
    case F_PROTO: return r->c.protocol;
    case F_LOCAL_ADDR: return address_key(r->c.local, r->c.address_bytes);
    case F_LOCAL_PORT: return r->c.local_port;
    case F_REMOTE_ADDR: return address_key(r->c.remote, r->c.address_bytes);
    case F_REMOTE_PORT: return r->c.remote_port;
    case F_PID: return r->c.pid;
    case F_COMM: return leading_bytes(r->c.command);
    case F_STATE: return r->c.state;
    case F_BYTES_IN: return r->c.bytes_in;
    case F_BYTES_OUT: return r->c.bytes_out;
    case F_PACKETS_IN: return r->c.packets_in;
    case F_PACKETS_OUT: return r->c.packets_out;
    case F_RATE_IN: return r->rate_in;
    case F_RATE_OUT: return r->rate_out;
    case F_RTT_US: return r->c.rtt_us;
    case F_RETRANSMITS: return r->c.retransmits;
    case F_CWND: return r->c.cwnd;
    case F_AGE_MS: return r->age_ms;
    case F_PARTIAL: return r->c.partial;
    case F_RATE: return r->rate_in + r->rate_out;
    case FIELD_COUNT: break;
  }
  return 0;
}

static field order_field; /* for qsort, which passes nothing through */
static bool order_up;

static int compare_rest(const row *a, const row *b) { /* of one key */
  int d = 0;
  switch (order_field) {
    case F_LOCAL_ADDR:
      d = memcmp(a->c.local, b->c.local, 16);
      return d ? d : (int)a->c.local_port - (int)b->c.local_port;
    case F_REMOTE_ADDR:
      d = memcmp(a->c.remote, b->c.remote, 16);
      return d ? d : (int)a->c.remote_port - (int)b->c.remote_port;
    case F_COMM: return strncmp(a->c.command, b->c.command, 16);
    case F_RATE:
    case F_RATE_IN:
    case F_RATE_OUT: { /* most are idle: those that moved more first */
      uint64_t x = a->c.bytes_in + a->c.bytes_out, y = b->c.bytes_in + b->c.bytes_out;
      return (x > y) - (x < y);
    }
    default: return 0;
  }
}

static int compare_items(const void *x, const void *y) {
  const item *a = x, *b = y;
  int d = (a->key > b->key) - (a->key < b->key);
  if (d == 0) d = compare_rest(a->r, b->r);
  if (!order_up) d = -d;
  return d ? d : (a->r->serial > b->r->serial) - (a->r->serial < b->r->serial); /* the order of their coming */
}

static void sort_items(item *items, size_t count, field f, bool reverse) {
  for (size_t i = 0; i < count; i++) items[i].key = sort_key(items[i].r, f);
  order_field = f;
  order_up = fields[f].up != reverse;
  qsort(items, count, sizeof *items, compare_items);
}

static char *put_endpoint(char *p, const char *address, uint16_t port) { /* 1.2.3.4:80, [::1]:80, * */
  bool six = strchr(address, ':') != NULL;
  if (address[0] == '*') return *p = '*', p + 1;
  if (six) *p++ = '[';
  p = put_text(p, address);
  if (six) *p++ = ']';
  *p++ = ':';
  return put_u64(p, port);
}

static void lower(char *text) {
  for (; *text; text++)
    if (*text >= 'A' && *text <= 'Z') *text = (char)(*text | 32);
}

/* All words of the filter are in what the row shows as text; in any case; !word: is not. */
static bool passes_filter(const row *r, const char *filter) {
  char text[4 * CELL_BYTES], word[FILTER_BYTES], *p = text;
  p = put_text(p, r->c.protocol == 17 ? "udp " : "tcp ");
  p = put_endpoint(p, r->local, r->c.local_port);
  *p++ = ' ';
  p = put_endpoint(p, r->remote, r->c.remote_port);
  *p++ = ' ';
  p = put_u64(p, r->c.pid);
  *p++ = ' ';
  p = put_command(p, r->c.command, DRESS_ASCII);
  *p++ = ' ';
  p = put_text(p, state_name(r->c.state));
  *p = 0;
  lower(text);
  for (;;) {
    filter += strspn(filter, " ");
    size_t length = strcspn(filter, " ");
    if (length == 0) return true;
    bool without = filter[0] == '!' && length > 1;
    memcpy(word, filter, length);
    word[length] = 0;
    lower(word);
    if ((strstr(text, word + without) != NULL) == without) return false;
    filter += length;
  }
}

/* ---- the lines of batch, JSON and CSV -------------------------------------------------------- */

#define LINE_BYTES 1024u /* a line is shorter */

static char *put_bytes(char *p, uint64_t v, bool raw) { return raw ? put_u64(p, v) : put_scaled(p, v, 1024); }
static char *put_count(char *p, uint64_t v, bool raw) { return raw ? put_u64(p, v) : put_scaled(p, v, 1000); }

/* [OPEN]   127.0.0.1:40000 -> 127.0.0.1:80 tcp* ESTABLISHED in 1.2K out 3.4M ... 123/command */
static char *put_batch(char *p, const row *r, bool raw) {
  p = r->c.closed ? PUT(p, "[CLOSED] ") : r->is_new ? PUT(p, "[NEW]    ") : PUT(p, "[OPEN]   ");
  p = put_endpoint(p, r->local, r->c.local_port);
  p = PUT(p, " -> ");
  p = put_endpoint(p, r->remote, r->c.remote_port);
  p = r->c.protocol == 17 ? PUT(p, " udp") : PUT(p, " tcp");
  if (r->c.partial) *p++ = '*';
  *p++ = ' ';
  p = put_text(p, state_name(r->c.state));
  p = put_bytes(PUT(p, "  in "), r->c.bytes_in, raw);
  p = put_bytes(PUT(p, " out "), r->c.bytes_out, raw);
  p = put_bytes(PUT(p, "  in/s "), r->rate_in, raw);
  p = put_bytes(PUT(p, " out/s "), r->rate_out, raw);
  p = put_count(PUT(p, "  packets in "), r->c.packets_in, raw);
  p = put_count(PUT(p, " out "), r->c.packets_out, raw);
  if (r->c.protocol != 17) {
    p = PUT(p, "  rtt ");
    p = raw ? put_u64(p, r->c.rtt_us) : put_rtt(p, r->c.rtt_us);
    p = put_count(PUT(p, " retransmits "), r->c.retransmits, raw);
    p = put_bytes(PUT(p, " cwnd "), r->c.cwnd, raw);
  }
  p = PUT(p, "  age ");
  p = raw ? put_u64(p, r->age_ms) : put_age(p, r->age_ms);
  p = put_u64(PUT(p, "  "), r->c.pid);
  *p++ = '/';
  p = put_command(p, r->c.command, DRESS_PLAIN);
  *p++ = '\n';
  return p;
}

static char *put_json(char *p, const row *r) {
  const ojo_bpf_connection *c = &r->c;
  p = PUT(p, "{\"proto\":\"");
  p = c->protocol == 17 ? PUT(p, "udp") : PUT(p, "tcp");
  p = put_text(PUT(p, "\",\"local_addr\":\""), r->local);
  p = put_u64(PUT(p, "\",\"local_port\":"), c->local_port);
  p = put_text(PUT(p, ",\"remote_addr\":\""), r->remote);
  p = put_u64(PUT(p, "\",\"remote_port\":"), c->remote_port);
  p = put_u64(PUT(p, ",\"pid\":"), c->pid);
  p = put_command(PUT(p, ",\"comm\":\""), c->command, DRESS_JSON);
  p = put_text(PUT(p, "\",\"state\":\""), state_name(c->state));
  p = put_u64(PUT(p, "\",\"bytes_in\":"), c->bytes_in);
  p = put_u64(PUT(p, ",\"bytes_out\":"), c->bytes_out);
  p = put_u64(PUT(p, ",\"packets_in\":"), c->packets_in);
  p = put_u64(PUT(p, ",\"packets_out\":"), c->packets_out);
  p = put_u64(PUT(p, ",\"rate_in\":"), r->rate_in);
  p = put_u64(PUT(p, ",\"rate_out\":"), r->rate_out);
  p = put_u64(PUT(p, ",\"rtt_us\":"), c->rtt_us);
  p = put_u64(PUT(p, ",\"retransmits\":"), c->retransmits);
  p = put_u64(PUT(p, ",\"cwnd\":"), c->cwnd);
  p = put_u64(PUT(p, ",\"age_ms\":"), r->age_ms);
  return c->partial ? PUT(p, ",\"partial\":true}\n") : PUT(p, ",\"partial\":false}\n");
}

static char *put_csv(char *p, const row *r) {
  const ojo_bpf_connection *c = &r->c;
  p = c->protocol == 17 ? PUT(p, "udp,") : PUT(p, "tcp,");
  p = put_text(p, r->local);
  *p++ = ',', p = put_u64(p, c->local_port);
  *p++ = ',', p = put_text(p, r->remote);
  *p++ = ',', p = put_u64(p, c->remote_port);
  *p++ = ',', p = put_u64(p, c->pid);
  *p++ = ',', p = put_command(p, c->command, DRESS_CSV);
  *p++ = ',', p = put_text(p, state_name(c->state));
  const uint64_t numbers[] = {c->bytes_in, c->bytes_out, c->packets_in, c->packets_out, r->rate_in, r->rate_out,
                              c->rtt_us, c->retransmits, c->cwnd, r->age_ms};
  for (unsigned i = 0; i < sizeof numbers / sizeof *numbers; i++) *p++ = ',', p = put_u64(p, numbers[i]);
  return c->partial ? PUT(p, ",true\n") : PUT(p, ",false\n");
}

static char *put_csv_header(char *p) {
  for (unsigned f = 0; f < F_RATE; f++) {
    if (f) *p++ = ',';
    p = put_text(p, fields[f].name);
  }
  *p++ = '\n';
  return p;
}

/* ---- output ---------------------------------------------------------------------------------- */

static volatile sig_atomic_t interrupted, resized;

/* Standard output, of batch, JSON and CSV. error: an errno; EPIPE: its reader has gone. */
typedef struct output {
  char *buffer;
  size_t used;
  int error;
} output;
#define OUTPUT_BYTES 65536u

static void output_flush(output *o) {
  size_t done = 0;
  while (done < o->used && !o->error) {
    ssize_t n = write(STDOUT_FILENO, o->buffer + done, o->used - done);
    if (n > 0) {
      done += (size_t)n;
    } else if (n < 0 && errno == EAGAIN) { /* someone made it non-blocking */
      struct pollfd room = {STDOUT_FILENO, POLLOUT, 0};
      (void)poll(&room, 1, 1000);
      if (interrupted && !room.revents) o->error = EINTR;
    } else if (n == 0 || errno != EINTR || interrupted) { /* interrupted: nobody reads, see on_end */
      o->error = n == 0 ? EIO : errno;
    }
  }
  o->used = 0;
}

static char *output_line(output *o) { /* where the next one starts. Its end goes to output_put */
  if (o->used + LINE_BYTES > OUTPUT_BYTES) output_flush(o);
  return o->buffer + o->used;
}
static void output_put(output *o, const char *end) { o->used = (size_t)(end - o->buffer); }

/* ---- the program's state --------------------------------------------------------------------- */

typedef enum view { VIEW_TABLE, VIEW_DETAIL, VIEW_HELP } view;

#define COLUMN_COUNT 16u
typedef struct screen {
  SCREEN *terminal;
  FILE *tty;
  view view;
  bool paused, editing, unicode, follow; /* follow: the cursor stays on its connection */
  char filter[FILTER_BYTES], filter_before[FILTER_BYTES];
  size_t cursor, first; /* of the items: under the cursor, and at the top */
  uint64_t cursor_serial;
  int help_first, widths[COLUMN_COUNT]; /* of the columns: they don't shrink, so that they keep still */
  row *detail;          /* a copy; NULL: none */
  row **frozen;         /* while paused: copies of all rows */
  size_t frozen_count;
  uint64_t rate_in, rate_out; /* of what passes the filter */
  size_t passed, tcp, udp;    /* without the closed ones; tcp, udp: with a filter too, all */
} screen;

typedef struct top {
  settings s;
  table t;
  ojo_bpf *b;
  ojo_tracer *tracer;
  output out;
  item *items; /* what is shown, in order */
  size_t item_count, item_room;
  ojo_bpf_stats told; /* losses that were told */
  char losses[128];
  bool failed; /* what can't be helped happened, and was said */
  screen screen;
} top;

static row **shown_rows(top *t, size_t *count) {
  bool frozen = t->screen.paused && t->screen.frozen;
  *count = frozen ? t->screen.frozen_count : t->t.count;
  return frozen ? t->screen.frozen : t->t.rows;
}

/* Makes the items: the rows that pass, in order. False: out of memory. */
static bool arrange(top *t, bool closed_only, bool sorted) {
  size_t count, kept = 0;
  row **rows = shown_rows(t, &count);
  t->item_count = 0;
  if (count > t->item_room) {
    item *items = realloc(t->items, count * 2 * sizeof *items);
    if (!items) return false;
    t->items = items;
    t->item_room = count * 2;
  }
  for (size_t i = 0; i < count; i++) {
    if (closed_only && !rows[i]->c.closed) continue;
    if (!t->screen.terminal && rows[i]->listing != t->t.listing) continue; /* batch: said as it was before */
    if (t->screen.filter[0] && !passes_filter(rows[i], t->screen.filter)) continue;
    t->items[kept++].r = rows[i];
  }
  t->item_count = kept;
  if (sorted) sort_items(t->items, kept, t->s.sort, t->s.reverse);
  return true;
}

static void print_lines(top *t, bool closed_only) {
  if (!arrange(t, closed_only, t->s.sort_given || t->s.mode == MODE_BATCH)) {
    t->t.no_memory = true;
    return;
  }
  for (size_t i = 0; i < t->item_count && !t->out.error; i++) {
    const row *r = t->items[i].r;
    char *p = output_line(&t->out);
    output_put(&t->out, t->s.mode == MODE_JSON  ? put_json(p, r)
                        : t->s.mode == MODE_CSV ? put_csv(p, r)
                                                : put_batch(p, r, t->s.raw));
  }
  output_flush(&t->out);
}

/* Losses are never silent: on the screen at the bottom, else on standard error, each time they grow. */
static void look_for_losses(top *t) {
  ojo_bpf_stats now = ojo_bpf_query_stats(t->b);
  bool grew = now.ring_lost > t->told.ring_lost || now.missed > t->told.missed;
  if (!grew) return;
  snprintf(t->losses, sizeof t->losses,
           "%llu kernel event%s lost (ring full), %llu missed (probe interrupted): closes may be late, counts short",
           (unsigned long long)now.ring_lost, now.ring_lost == 1 ? "" : "s", (unsigned long long)now.missed);
  t->told = now;
  if (!screen_is_on) complain("%s", t->losses);
}

/* ---- the screen: columns --------------------------------------------------------------------- */

enum { COLOR_NEW = 1, COLOR_CLOSED, COLOR_LOSS };
static int attributes_of[4]; /* of these; set once it is known what the terminal can */

/* least: of its width, if there is not room for all of its text. rank: which go first as room gets short. */
typedef struct column {
  field f;
  const char *title, *raw_title;
  bool left;
  unsigned char least, rank;
} column;
static const column columns[COLUMN_COUNT] = {
    {F_PROTO, "PRO", "PRO", true, 3, 7},
    {F_LOCAL_ADDR, "LOCAL", "LOCAL", true, 21, 0},
    {F_REMOTE_ADDR, "REMOTE", "REMOTE", true, 21, 1},
    {F_PID, "PID", "PID", false, 5, 6},
    {F_COMM, "COMMAND", "COMMAND", true, 7, 5},
    {F_STATE, "STATE", "STATE", true, 5, 2},
    {F_RATE_IN, "IN/s", "IN B/s", false, 5, 3},
    {F_RATE_OUT, "OUT/s", "OUT B/s", false, 5, 4},
    {F_BYTES_IN, "IN", "IN B", false, 5, 9},
    {F_BYTES_OUT, "OUT", "OUT B", false, 5, 10},
    {F_RTT_US, "RTT", "RTT us", false, 6, 8},
    {F_RETRANSMITS, "RETR", "RETR", false, 4, 11},
    {F_CWND, "CWND", "CWND B", false, 5, 13},
    {F_AGE_MS, "AGE", "AGE ms", false, 5, 12},
    {F_PACKETS_IN, "PKT IN", "PKT IN", false, 6, 14},
    {F_PACKETS_OUT, "PKT OUT", "PKT OUT", false, 7, 15},
};

static bool column_sorts(const column *c, field f) {
  return c->f == f || (f == F_RATE && (c->f == F_RATE_IN || c->f == F_RATE_OUT)) ||
         (f == F_LOCAL_PORT && c->f == F_LOCAL_ADDR) || (f == F_REMOTE_PORT && c->f == F_REMOTE_ADDR);
}

/* The text of one cell, with a NUL. */
static void cell_text(char text[CELL_BYTES], const row *r, field f, bool raw) {
  const ojo_bpf_connection *c = &r->c;
  bool udp = c->protocol == 17;
  char *p = text;
  switch (f) {
    case F_PROTO: p = put_text(p, udp ? "udp" : "tcp"); break;
    case F_LOCAL_ADDR: p = put_endpoint(p, r->local, c->local_port); break;
    case F_REMOTE_ADDR: p = put_endpoint(p, r->remote, c->remote_port); break;
    case F_PID: p = c->pid ? put_u64(p, c->pid) : PUT(p, "-"); break;
    case F_COMM: p = put_command(p, c->command, DRESS_ASCII); break;
    case F_STATE: p = put_text(p, state_name(c->state)); break;
    case F_RATE_IN: p = put_bytes(p, r->rate_in, raw); break;
    case F_RATE_OUT: p = put_bytes(p, r->rate_out, raw); break;
    case F_BYTES_IN: p = put_bytes(p, c->bytes_in, raw); break;
    case F_BYTES_OUT: p = put_bytes(p, c->bytes_out, raw); break;
    case F_RTT_US: p = udp ? PUT(p, "-") : raw ? put_u64(p, c->rtt_us) : put_rtt(p, c->rtt_us); break;
    case F_RETRANSMITS: p = udp ? PUT(p, "-") : put_count(p, c->retransmits, raw); break;
    case F_CWND: p = udp ? PUT(p, "-") : put_bytes(p, c->cwnd, raw); break;
    case F_AGE_MS: p = raw ? put_u64(p, r->age_ms) : put_age(p, r->age_ms); break;
    case F_PACKETS_IN: p = put_count(p, c->packets_in, raw); break;
    case F_PACKETS_OUT: p = put_count(p, c->packets_out, raw); break;
    default: break;
  }
  *p = 0;
}

static const char *short_state(const row *r) { /* five characters, for a narrow screen */
  static const char *const names[] = {"-",     "ESTAB", "SYN-S", "SYN-R", "FIN-1", "FIN-2", "TIME",
                                      "CLOSD", "CL-WT", "L-ACK", "LISTN", "CLSNG", "NEW-S"};
  return r->c.state < sizeof names / sizeof *names ? names[r->c.state] : "?";
}

/* Shortens an address, never the port: "[2001:db8:~]:443". */
static void fit_endpoint(char *text, size_t width) {
  size_t length = strlen(text);
  if (length <= width) return;
  char *tail = strrchr(text, ':');
  if (tail && tail > text && tail[-1] == ']') tail--;
  size_t tail_length = tail ? strlen(tail) : 0;
  if (tail_length + 1 >= width) {
    text[width] = 0;
    return;
  }
  text[width - tail_length - 1] = '~';
  memmove(text + width - tail_length, tail, tail_length + 1);
}

/* Chooses the columns that fit into `width`, and how wide each is; 0: left out. */
static void choose_columns(top *t, int width, int chosen[COLUMN_COUNT]) {
  screen *s = &t->screen;
  char text[CELL_BYTES];
  int least[COLUMN_COUNT], left = width;
  size_t rows = LINES > 3 ? (size_t)LINES - 3 : 0;
  for (unsigned c = 0; c < COLUMN_COUNT; c++) {
    int *want = &s->widths[c], title = (int)strlen(t->s.raw ? columns[c].raw_title : columns[c].title);
    bool sorts = column_sorts(&columns[c], t->s.sort);
    if (sorts) title += s->unicode ? 1 : 2; /* the mark of the order, see draw_table */
    if (*want < title) *want = title;
    for (size_t i = s->first; i < t->item_count && i < s->first + rows; i++) {
      cell_text(text, t->items[i].r, columns[c].f, t->s.raw);
      if (*want < (int)strlen(text)) *want = (int)strlen(text);
    }
    chosen[c] = 0;
    bool shrinks = columns[c].left && *want > columns[c].least;
    least[c] = shrinks ? columns[c].least : *want;
    if (sorts && least[c] < title) least[c] = title;
  }
  for (unsigned rank = 0; rank <= COLUMN_COUNT; rank++) /* what orders the rows is always there */
    for (unsigned c = 0; c < COLUMN_COUNT; c++) {
      bool now = rank == 0 ? column_sorts(&columns[c], t->s.sort) : columns[c].rank == rank - 1;
      if (!now || chosen[c] || least[c] + 1 > left) continue;
      chosen[c] = least[c];
      left -= least[c] + 1;
    }
  for (bool grew = true; grew && left > 0;) { /* the rest goes to texts that are cut short */
    grew = false;
    for (unsigned c = 0; c < COLUMN_COUNT && left > 0; c++)
      if (chosen[c] && chosen[c] < s->widths[c]) chosen[c]++, left--, grew = true;
  }
}

/* ---- the screen: what it shows --------------------------------------------------------------- */

/* A whole line, cut at the right edge and filled with blanks. */
static void draw_line(int y, int attributes, const char *format, ...) __attribute__((format(printf, 3, 4)));
static void draw_line(int y, int attributes, const char *format, ...) {
  char line[512];
  va_list args;
  va_start(args, format);
  vsnprintf(line, sizeof line, format, args);
  va_end(args);
  if (y < 0 || y >= LINES) return;
  (void)attrset(attributes);
  (void)mvaddnstr(y, 0, line, COLS);
  for (int x = (int)strlen(line); x < COLS; x++) (void)mvaddch(y, x, ' ');
  (void)attrset(A_NORMAL);
}

static void draw_title(top *t) {
  char in[16], out[16], every[16], clock[16] = "";
  time_t now = time(NULL);
  struct tm tm;
  if (localtime_r(&now, &tm)) strftime(clock, sizeof clock, "%H:%M:%S", &tm);
  *put_bytes(in, t->screen.rate_in, false) = 0;
  *put_bytes(out, t->screen.rate_out, false) = 0;
  snprintf(every, sizeof every, "%g", (double)t->s.interval_ns / 1e9);
  char more[FILTER_BYTES + 64], wide[64] = "";
  bool filtered = t->screen.filter[0] != 0;
  snprintf(more, sizeof more, "%s%s%s%s", t->screen.paused ? "  PAUSED" : "", t->tracer ? "  recording" : "",
           filtered ? "  filter: " : "", t->screen.filter);
  if (COLS >= 100)
    snprintf(wide, sizeof wide, "  every %s s  by %s%s", every, fields[t->s.sort].name,
             t->s.reverse ? " reversed" : "");
  char counts[80];
  size_t all = t->screen.tcp + t->screen.udp;
  if (filtered) snprintf(counts, sizeof counts, "%zu of %zu connection%s", t->screen.passed, all, all == 1 ? "" : "s");
  else snprintf(counts, sizeof counts, "%zu TCP %zu UDP", t->screen.tcp, t->screen.udp);
  draw_line(0, A_BOLD, "ojo-top %s  %s  in %s/s out %s/s%s%s", clock, counts, in, out, wide, more);
}

static void draw_bottom(top *t) {
  screen *s = &t->screen;
  int y = LINES - 1;
  if (s->editing) {
    draw_line(y, A_BOLD, "filter: %s", s->filter);
    (void)mvaddch(y, 8 + (int)strlen(s->filter) < COLS ? 8 + (int)strlen(s->filter) : COLS - 1, ' ' | A_REVERSE);
  } else if (t->losses[0]) {
    draw_line(y, attributes_of[COLOR_LOSS], "%s", t->losses);
  } else if (log_last[0]) {
    pthread_mutex_lock(&log_lock);
    draw_line(y, attributes_of[COLOR_LOSS], "%s", log_last);
    pthread_mutex_unlock(&log_lock);
  } else {
    static const char keys[] = "q quit  / filter  < > order  r reverse  h units  p pause  Enter detail  ? help";
    draw_line(y, A_DIM, "%s%s", keys, COLS < 125 ? "" : "    + new  - closed  * from before the start");
  }
}

static void draw_row(top *t, int y, const row *r, bool cursor, const int chosen[COLUMN_COUNT]) {
  char text[CELL_BYTES];
  int x = 3, attributes = r->c.closed ? attributes_of[COLOR_CLOSED] : r->is_new ? attributes_of[COLOR_NEW] : 0;
  if (cursor) attributes |= (int)A_REVERSE;
  draw_line(y, attributes, "%c%c", r->c.closed ? '-' : r->is_new ? '+' : ' ', r->c.partial ? '*' : ' ');
  (void)attrset(attributes);
  for (unsigned c = 0; c < COLUMN_COUNT; c++) {
    if (!chosen[c]) continue;
    size_t width = (size_t)chosen[c];
    cell_text(text, r, columns[c].f, t->s.raw);
    if (columns[c].f == F_STATE && strlen(text) > width) snprintf(text, sizeof text, "%s", short_state(r));
    if (columns[c].f == F_LOCAL_ADDR || columns[c].f == F_REMOTE_ADDR) fit_endpoint(text, width);
    if (strlen(text) > width) text[width - 1] = '~', text[width] = 0;
    (void)mvaddstr(y, columns[c].left ? x : x + chosen[c] - (int)strlen(text), text);
    x += chosen[c] + 1;
  }
  (void)attrset(A_NORMAL);
}

static void draw_table(top *t) {
  screen *s = &t->screen;
  int chosen[COLUMN_COUNT], x = 3;
  size_t rows = LINES > 3 ? (size_t)LINES - 3 : 0;
  choose_columns(t, COLS - 3, chosen);
  draw_line(1, A_REVERSE, "%s", "");
  (void)attrset(A_REVERSE);
  for (unsigned c = 0; c < COLUMN_COUNT; c++) {
    if (!chosen[c]) continue;
    const char *title = t->s.raw ? columns[c].raw_title : columns[c].title, *mark = "";
    bool sorts = column_sorts(&columns[c], t->s.sort), up = fields[columns[c].f].up != t->s.reverse;
    if (sorts && s->unicode) mark = up ? "\u25B4" : "\u25BE";
    else if (sorts) mark = up ? " ^" : " v"; /* set off: "IN/sv" would be read as one word */
    int length = (int)strlen(title) + (!sorts ? 0 : s->unicode ? 1 : 2);
    (void)attrset(sorts ? A_REVERSE | A_BOLD : A_REVERSE);
    (void)mvaddstr(1, columns[c].left ? x : x + chosen[c] - length, title);
    (void)addstr(mark);
    x += chosen[c] + 1;
  }
  (void)attrset(A_NORMAL);
  for (size_t i = s->first; i < t->item_count && i < s->first + rows; i++)
    draw_row(t, 2 + (int)(i - s->first), t->items[i].r, i == s->cursor, chosen);
  if (t->item_count == 0)
    draw_line(3, A_NORMAL, "   %s", s->filter[0] ? "no connection passes the filter" : "no connections");
}

/* Values as block characters (digits of height where the locale is not UTF-8), the last at the right. */
static void draw_sparkline(top *t, int y, const char *name, const row *r, int which) {
  static const char *const blocks[] = {" ",      "\u2581", "\u2582", "\u2583", "\u2584",
                                       "\u2585", "\u2586", "\u2587", "\u2588"};
  static const char *const plain[] = {" ", ".", ".", ":", "-", "=", "+", "*", "#"};
  char text[16], most_text[16];
  int room = COLS - 34;
  double most = 0;
  uint32_t count = r->sample_count < SAMPLES ? r->sample_count : SAMPLES;
  if (room < 8 || y >= LINES - 1) return;
  if (count > (uint32_t)room) count = (uint32_t)room;
  double values[SAMPLES];
  for (uint32_t i = 0; i < count; i++) {
    const sample *s = &r->samples[(r->sample_count - count + i) % SAMPLES];
    values[i] = which == 0 ? (double)s->rtt_us : which == 1 ? (double)s->rate_in : (double)s->rate_out;
    if (values[i] > most) most = values[i];
  }
  uint64_t last = count ? (uint64_t)values[count - 1] : 0;
  *(which ? put_bytes(text, last, t->s.raw) : t->s.raw ? put_u64(text, last) : put_rtt(text, last)) = 0;
  last = (uint64_t)most;
  *(which ? put_bytes(most_text, last, t->s.raw) : t->s.raw ? put_u64(most_text, last) : put_rtt(most_text, last)) = 0;
  draw_line(y, A_NORMAL, "  %-6s%10s  ", name, text);
  move(y, 20);
  for (uint32_t i = 0; i < count; i++) {
    int height = most > 0 && values[i] > 0 ? 1 + (int)(values[i] * 7 / most) : 0;
    (void)addstr((t->screen.unicode ? blocks : plain)[height]);
  }
  (void)mvprintw(y, 20 + (int)count + 1, "max %s", most_text);
}

static void draw_detail(top *t) {
  const row *r = t->screen.detail;
  const ojo_bpf_connection *c = &r->c;
  char local[CELL_BYTES], remote[CELL_BYTES], text[CELL_BYTES];
  cell_text(local, r, F_LOCAL_ADDR, true);
  cell_text(remote, r, F_REMOTE_ADDR, true);
  draw_line(1, A_REVERSE, " %s -> %s", local, remote);
  cell_text(text, r, F_COMM, true);
  bool udp = c->protocol == 17;
  draw_line(3, A_NORMAL, "  %-14s %s%s%s%s", "connection", udp ? "UDP" : "TCP, ", udp ? "" : state_name(c->state),
            udp || c->partial ? "" : c->passive ? ", accepted" : ", connected",
            c->partial ? ", * from before the start: counted from first sight" : "");
  draw_line(4, A_NORMAL, "  %-14s %u %s", "process", c->pid, text);
  draw_line(5, A_NORMAL, "  %-14s %llu, namespace %u, flow %u", "socket cookie", (unsigned long long)c->cookie,
            c->netns, c->flow);
  static const struct { const char *name; field first, second; } pairs[] = {
      {"bytes in, out", F_BYTES_IN, F_BYTES_OUT}, {"bytes/s", F_RATE_IN, F_RATE_OUT},
      {"packets", F_PACKETS_IN, F_PACKETS_OUT},   {"RTT, cwnd", F_RTT_US, F_CWND},
      {"retransmits", F_RETRANSMITS, F_RETRANSMITS}, {"age", F_AGE_MS, F_AGE_MS}};
  int y = 6;
  for (unsigned i = 0; i < sizeof pairs / sizeof *pairs; i++) {
    char second[CELL_BYTES];
    if (udp && (pairs[i].first == F_RTT_US || pairs[i].first == F_RETRANSMITS)) continue;
    cell_text(text, r, pairs[i].first, t->s.raw);
    cell_text(second, r, pairs[i].second, t->s.raw);
    bool two = pairs[i].first != pairs[i].second;
    draw_line(y++, A_NORMAL, "  %-14s %12s %12s", pairs[i].name, text, two ? second : "");
  }
  if (!udp) draw_line(y++, A_NORMAL, "  %-14s %12s %12u", "cwnd, segments", "", c->cwnd_segments);
  if (c->dropped) draw_line(y++, A_NORMAL, "  %-14s %12llu", "dropped", (unsigned long long)c->dropped);
  y++;
  draw_line(y++, A_DIM, "  the last %u refreshes, %g s each", SAMPLES, (double)t->s.interval_ns / 1e9);
  if (!udp) draw_sparkline(t, y++, "RTT", r, 0);
  draw_sparkline(t, y++, "in/s", r, 1);
  draw_sparkline(t, y++, "out/s", r, 2);
  if (c->closed) draw_line(y + 1, attributes_of[COLOR_CLOSED], "  closed: these are its last counts");
  draw_line(LINES - 1, A_DIM, "Esc or Enter back  h units  p pause  q quit");
}

static const char *const help_lines[] = {
    "keys",
    "  up, down, k, j      move the cursor         PgUp, PgDn, Home, End",
    "  < >  left, right    order by the column before, after; \"by\" in the title is what orders",
    "  r                   the other way round",
    "  /                   filter: all words must be in a row's text; !word must not",
    "  Enter               the connection's detail, and back",
    "  h                   units or plain numbers",
    "  p, space            pause: the picture stands still, counting goes on",
    "  q, Ctrl-C           quit        ?  this help        any key leaves it",
    "marks",
    "  +  new since the last refresh             -  closed: its last counts, for one refresh",
    "  *  from before the start: counted from first sight",
    "columns",
    "  IN, OUT    bytes: for TCP what was accepted in order, and what the kernel took from the program",
    "  PKT        segments (TCP), datagrams (UDP)        RETR  segments sent again",
    "  CWND       congestion window, bytes               RTT   smoothed",
    "  Columns that do not fit are left out; the one that orders is always there. Detail has all.",
    "probes",
};

static void draw_help(top *t) {
  ojo_bpf_probe_info probes[24] = {{0}};
  size_t count = ojo_bpf_query_probes(t->b, probes, 24), lines = sizeof help_lines / sizeof *help_lines;
  int total = (int)(lines + (count < 24 ? count : 24)), room = LINES - 2;
  if (t->screen.help_first > total - room) t->screen.help_first = total - room;
  if (t->screen.help_first < 0) t->screen.help_first = 0;
  for (int i = 0; i < room && i + t->screen.help_first < total; i++) {
    size_t n = (size_t)(i + t->screen.help_first);
    if (n < lines) draw_line(1 + i, help_lines[n][0] == ' ' ? A_NORMAL : A_BOLD, "%s", help_lines[n]);
    else draw_line(1 + i, A_NORMAL, "  %-22s %-10s %s", probes[n - lines].name, probes[n - lines].how,
                   probes[n - lines].why);
  }
  draw_line(LINES - 1, A_DIM, "%s", total > room ? "up, down: more   any other key: back" : "any key: back");
}

static void draw(top *t) {
  (void)erase();
  if (LINES >= 2 && COLS >= 20) {
    draw_title(t);
    if (t->screen.view == VIEW_TABLE) draw_table(t), draw_bottom(t);
    if (t->screen.view == VIEW_DETAIL) draw_detail(t);
    if (t->screen.view == VIEW_HELP) draw_help(t);
  }
  (void)refresh();
}

/* ---- the screen: data and keys --------------------------------------------------------------- */

static void scroll_to_cursor(top *t) {
  screen *s = &t->screen;
  size_t rows = LINES > 3 ? (size_t)LINES - 3 : 1;
  if (s->cursor >= t->item_count) s->cursor = t->item_count ? t->item_count - 1 : 0;
  if (s->first > s->cursor) s->first = s->cursor;
  if (s->first + rows <= s->cursor) s->first = s->cursor - rows + 1;
  if (s->first + rows > t->item_count) s->first = t->item_count > rows ? t->item_count - rows : 0;
  s->cursor_serial = t->item_count ? t->items[s->cursor].r->serial : 0;
}

/* After a refresh, or a change of order or filter: the cursor stays on its connection. */
static void rearrange(top *t) {
  screen *s = &t->screen;
  if (!arrange(t, false, true)) {
    t->t.no_memory = true;
    return;
  }
  s->rate_in = s->rate_out = s->passed = 0;
  for (size_t i = 0; i < t->item_count; i++) {
    const row *r = t->items[i].r;
    s->rate_in += r->rate_in;
    s->rate_out += r->rate_out;
    s->passed += !r->c.closed;
  }
  for (size_t i = 0; s->follow && i < t->item_count; i++)
    if (t->items[i].r->serial == s->cursor_serial) {
      s->cursor = i;
      break;
    }
  scroll_to_cursor(t);
}

static void refresh_screen(top *t) {
  screen *s = &t->screen;
  row *detail = s->detail;
  if (s->paused) return;
  s->tcp = s->udp = 0;
  for (size_t i = 0; i < t->t.count; i++) {
    const row *r = t->t.rows[i];
    if (!r->c.closed) r->c.protocol == 17 ? s->udp++ : s->tcp++;
    if (detail && r->serial == detail->serial) memcpy(detail, r, t->t.row_bytes);
  }
  rearrange(t);
}

static void freeze_end(screen *s) {
  for (size_t i = 0; i < s->frozen_count; i++) free(s->frozen[i]);
  free(s->frozen);
  s->frozen = NULL;
  s->frozen_count = 0;
}

/* Pause shows copies; the table itself goes on, so that rates and closes are right afterwards. */
static void toggle_pause(top *t) {
  screen *s = &t->screen;
  if (s->paused) {
    s->paused = false;
    freeze_end(s);
    refresh_screen(t);
    return;
  }
  s->frozen = calloc(t->t.count + 1, sizeof *s->frozen);
  for (size_t i = 0; s->frozen && i < t->t.count; i++) {
    row *copy = malloc(t->t.row_bytes);
    if (!copy) break;
    s->frozen[s->frozen_count++] = memcpy(copy, t->t.rows[i], t->t.row_bytes);
  }
  s->paused = s->frozen && s->frozen_count == t->t.count;
  if (!s->paused) freeze_end(s);
  rearrange(t);
}

static void open_detail(top *t) {
  screen *s = &t->screen;
  if (t->item_count == 0) return;
  if (!s->detail && !(s->detail = malloc(t->t.row_bytes))) return;
  memcpy(s->detail, t->items[s->cursor].r, t->t.row_bytes);
  s->view = VIEW_DETAIL;
}

static void key_of_filter(top *t, int key) {
  screen *s = &t->screen;
  size_t length = strlen(s->filter);
  if (key == 27 || key == '\n' || key == '\r' || key == KEY_ENTER) s->editing = false;
  if (key == 27) memcpy(s->filter, s->filter_before, sizeof s->filter);
  if ((key == KEY_BACKSPACE || key == 127 || key == 8) && length) s->filter[length - 1] = 0;
  if (key == 21) s->filter[0] = 0; /* Ctrl-U */
  if (key >= 0x20 && key < 0x7F && length + 1 < sizeof s->filter) {
    s->filter[length] = (char)key;
    s->filter[length + 1] = 0;
  }
  rearrange(t);
}

static void move_order(top *t, int step) { /* rate stands between the two rates' neighbours: after the last column */
  int at = (int)COLUMN_COUNT, count = (int)COLUMN_COUNT + 1;
  for (int c = 0; c < (int)COLUMN_COUNT; c++)
    if (t->s.sort != F_RATE && column_sorts(&columns[c], t->s.sort)) at = c;
  at = (at + step + count) % count;
  t->s.sort = at == (int)COLUMN_COUNT ? F_RATE : columns[at].f;
  t->s.reverse = false;
  rearrange(t);
}

static void move_cursor(top *t, int key) {
  screen *s = &t->screen;
  size_t page = LINES > 4 ? (size_t)LINES - 3 : 1, last = t->item_count ? t->item_count - 1 : 0;
  if (key == KEY_UP || key == 'k') s->cursor -= s->cursor > 0;
  if (key == KEY_DOWN || key == 'j') s->cursor++;
  if (key == KEY_PPAGE) s->cursor -= s->cursor < page ? s->cursor : page;
  if (key == KEY_NPAGE) s->cursor += page;
  if (key == KEY_HOME) s->cursor = 0;
  if (key == KEY_END || s->cursor > last) s->cursor = last;
  bool moves = key == KEY_UP || key == 'k' || key == KEY_DOWN || key == 'j' || key == KEY_PPAGE || key == KEY_NPAGE ||
               key == KEY_END;
  if (moves || key == KEY_HOME) s->follow = moves; /* at the top one stays at the top, whoever is there */
  scroll_to_cursor(t);
}

/* False: quit. */
static bool handle_key(top *t, int key) {
  screen *s = &t->screen;
  if (s->editing) return key_of_filter(t, key), true;
  if (key == 'q' && s->view != VIEW_HELP) return false;
  if (s->view == VIEW_HELP) {
    if (key == KEY_DOWN || key == 'j') s->help_first++;
    else if (key == KEY_UP || key == 'k') s->help_first--;
    else s->view = VIEW_TABLE;
    return true;
  }
  switch (key) {
    case '?': s->view = VIEW_HELP, s->help_first = 0; return true;
    case 'h': t->s.raw = !t->s.raw, memset(s->widths, 0, sizeof s->widths); return true;
    case 'p':
    case ' ': toggle_pause(t); return true;
    case 12: (void)clearok(curscr, TRUE); return true; /* Ctrl-L */
    default: break;
  }
  if (s->view == VIEW_DETAIL) {
    if (key == 27 || key == '\n' || key == '\r' || key == KEY_ENTER) s->view = VIEW_TABLE;
    return true;
  }
  switch (key) {
    case '/': s->editing = true, memcpy(s->filter_before, s->filter, sizeof s->filter); break;
    case 27: s->filter[0] = 0, rearrange(t); break;
    case 'r': t->s.reverse = !t->s.reverse, rearrange(t); break;
    case '<':
    case KEY_LEFT: move_order(t, -1); break;
    case '>':
    case KEY_RIGHT: move_order(t, 1); break;
    case '\n':
    case '\r':
    case KEY_ENTER: open_detail(t); break;
    default: move_cursor(t, key); break;
  }
  return true;
}

static bool screen_begin(screen *s) {
  (void)setlocale(LC_CTYPE, "");
  s->unicode = strcmp(nl_langinfo(CODESET), "UTF-8") == 0;
  s->tty = isatty(STDIN_FILENO) ? stdin : fopen("/dev/tty", "re");
  const char *name = getenv("TERM");
  s->terminal = s->tty ? newterm(NULL, stdout, s->tty) : NULL;
  if (!s->terminal) {
    complain("the terminal (TERM=%s) can't show a screen; try --batch", name ? name : "");
    return false;
  }
  screen_is_on = true;
  (void)cbreak();
  (void)noecho();
  (void)nodelay(stdscr, TRUE);
  (void)keypad(stdscr, TRUE);
  (void)set_escdelay(25);
  (void)curs_set(0);
  attributes_of[COLOR_NEW] = attributes_of[COLOR_LOSS] = (int)A_BOLD;
  attributes_of[COLOR_CLOSED] = (int)A_DIM;
  const char *plain = getenv("NO_COLOR");
  if (has_colors() && !(plain && *plain) && start_color() == OK && use_default_colors() == OK) {
    static const short colors[] = {0, COLOR_GREEN, COLOR_RED, COLOR_YELLOW};
    for (short i = COLOR_NEW; i <= COLOR_LOSS; i++)
      if (init_pair(i, colors[i], -1) == OK) attributes_of[i] = (int)COLOR_PAIR(i);
  }
  return true;
}

static void screen_end(screen *s) {
  if (s->terminal) {
    (void)endwin();
    delscreen(s->terminal);
  }
  screen_is_on = false;
  if (log_last[0]) complain("%s", log_last);
  freeze_end(s);
  free(s->detail);
}

/* ---- signals --------------------------------------------------------------------------------- */

static int wake[2] = {-1, -1}; /* a pipe: a signal that comes just before poll wakes it all the same */
static bool pipe_ignored;      /* SIGPIPE, by whoever started this program */

static void on_end(int signo) {
  /* Ends also a write that waits for a reader: the timer goes off again and again, so that it does not matter
   * if the first signal comes just before the write. */
  static const struct itimerval again = {{0, 100000}, {0, 100000}};
  int error = errno;
  if (signo != SIGALRM) {
    interrupted = 1;
    (void)setitimer(ITIMER_REAL, &again, NULL);
  }
  ssize_t ignored = write(wake[1], "", 1);
  (void)ignored;
  errno = error;
}

static void on_resize(int signo) {
  int error = errno;
  (void)signo;
  resized = 1;
  ssize_t ignored = write(wake[1], "", 1);
  (void)ignored;
  errno = error;
}

static bool catch_signals(void) {
  static const int ends[] = {SIGINT, SIGTERM, SIGHUP, SIGALRM};
  struct sigaction action = {.sa_handler = on_end}; /* without SA_RESTART */
  if (pipe(wake) != 0) return false;
  for (int i = 0; i < 2; i++)
    if (fcntl(wake[i], F_SETFL, O_NONBLOCK) != 0 || fcntl(wake[i], F_SETFD, FD_CLOEXEC) != 0) return false;
  for (unsigned i = 0; i < sizeof ends / sizeof *ends; i++) {
    struct sigaction old;
    if (sigaction(ends[i], NULL, &old) != 0) return false;
    if (old.sa_handler == SIG_IGN && ends[i] != SIGALRM) continue; /* so it was started: by nohup, say */
    if (sigaction(ends[i], &action, NULL) != 0) return false;
  }
  action.sa_handler = on_resize;
  action.sa_flags = SA_RESTART;
  if (sigaction(SIGWINCH, &action, NULL) != 0) return false;
  action.sa_handler = SIG_IGN; /* write says EPIPE, then the probes are detached and the trace is closed */
  struct sigaction old;
  if (sigaction(SIGPIPE, &action, &old) != 0) return false;
  pipe_ignored = old.sa_handler == SIG_IGN;
  return true;
}

/* ---- the loop -------------------------------------------------------------------------------- */

/* One interval is over. False: the end. */
static bool refresh_all(top *t) {
  ojo_result result = table_refresh(&t->t, t->b);
  look_for_losses(t);
  if (t->screen.terminal) {
    refresh_screen(t);
    draw(t);
  } else {
    print_lines(t, false);
  }
  if (result == OJO_OK && t->t.no_memory) result = OJO_ERR_MEMORY;
  if (result != OJO_OK) complain("the connections could not be listed: %s", ojo_result_string(result));
  return result == OJO_OK && !t->out.error;
}

/* Keys that were pressed, and a new size. False: quit. */
static bool handle_terminal(top *t) {
  int key;
  if (resized) {
    struct winsize size;
    resized = 0;
    if (ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_row && size.ws_col)
      (void)resizeterm(size.ws_row, size.ws_col);
    scroll_to_cursor(t);
  }
  while ((key = getch()) != ERR)
    if (key != KEY_RESIZE && !handle_key(t, key)) return false;
  draw(t);
  return true;
}

/* Waits for kernel events, keys and signals until `until`. False: the end. */
static bool wait_until(top *t, uint64_t until) {
  bool on_screen = t->screen.terminal != NULL;
  for (;;) {
    /* In the lines' modes the third tells that stdout's reader has gone: no events are asked of it. */
    struct pollfd fds[] = {{ojo_bpf_fd(t->b), POLLIN, 0},
                           {wake[0], POLLIN, 0},
                           {on_screen ? fileno(t->screen.tty) : STDOUT_FILENO, (short)(on_screen ? POLLIN : 0), 0}};
    uint64_t now = now_ns();
    if (interrupted) return false;
    if (now >= until) return true;
    uint64_t ms = (until - now + 999999u) / 1000000u;
    int ready = poll(fds, 3, ms > 1000 ? 1000 : (int)ms);
    if (ready < 0 && errno != EINTR) return complain("poll: %s", strerror(errno)), t->failed = true, false;
    if (ready <= 0) continue;
    if (fds[1].revents) {
      char bytes[64];
      while (read(wake[0], bytes, sizeof bytes) > 0) {}
    }
    if (fds[2].revents & (POLLERR | POLLHUP | POLLNVAL)) {
      t->out.error = on_screen ? 0 : EPIPE;
      return false;
    }
    if (fds[0].revents && ojo_bpf_poll(t->b, 0) < 0)
      return complain("the probes can't be polled"), t->failed = true, false;
    if (on_screen && (fds[2].revents || resized) && !handle_terminal(t)) return false;
  }
}

static int run(top *t) {
  uint64_t next = now_ns();
  bool on_screen = t->screen.terminal != NULL;
  t->t.listed_ns = next;
  if (!on_screen) next += t->s.interval_ns;
  if (t->s.mode == MODE_CSV) {
    output_put(&t->out, put_csv_header(output_line(&t->out)));
    output_flush(&t->out);
  }
  for (uint64_t i = 0; !t->out.error;) {
    if (!wait_until(t, next)) break;
    if (!refresh_all(t)) return EXIT_FAILED;
    if (t->s.count && ++i == t->s.count) return EXIT_OK;
    next += t->s.interval_ns;
    uint64_t now = now_ns();
    if (next < now) next = now; /* it took longer than an interval */
  }
  if (!on_screen && !t->out.error && interrupted) { /* those that closed since the last refresh */
    (void)ojo_bpf_poll(t->b, 0);
    if (table_refresh(&t->t, t->b) == OJO_OK) print_lines(t, true);
    look_for_losses(t);
  }
  return t->out.error || t->failed ? EXIT_FAILED : EXIT_OK;
}

/* ---- main ------------------------------------------------------------------------------------ */

/* What ojo.h and ojo_bpf.h say: kept back until it is clear that not only privileges are missing. */
static char log_held[8192];
static bool log_holds = true;

static void log_line(void *user, const char *line) {
  (void)user;
  size_t used = strlen(log_held), length = strlen(line);
  if (!log_holds) complain("%s", line);
  else if (used + length + 2 < sizeof log_held) snprintf(log_held + used, sizeof log_held - used, "%s\n", line);
}

static void log_release(void) {
  log_holds = false;
  for (char *line = log_held, *end; (end = strchr(line, '\n')) != NULL; line = end + 1) {
    *end = 0;
    complain("%s", line);
  }
}

/* Opens the trace and attaches the probes. The exit code, or -1: go on. */
static int attach(top *t) {
  settings *s = &t->s;
  ojo_logger logger = {log_line, NULL};
  ojo_bpf_desc desc = {.object = ojo_top_object, .object_bytes = (size_t)(ojo_top_object_end - ojo_top_object)};
  ojo_result result = ojo_open(&t->tracer, &(ojo_desc){.dir = s->record, .logger = logger});
  if (result != OJO_OK) {
    log_release();
    complain("--record %s: %s", s->record, ojo_result_string(result));
    return EXIT_FAILED;
  }
  desc.tracer = t->tracer;
  desc.list = true;
  if (!t->tracer) desc.probes = OJO_BPF_TCP_STATE | OJO_BPF_TCP_IO | OJO_BPF_UDP; /* what listings need, no more */
  desc.pids = s->pids;
  desc.pid_count = s->pid_count;
  desc.ports = s->ports;
  desc.port_count = s->port_count;
  desc.udp_timeout_ms = s->udp_timeout_ms;
  desc.logger = logger;
  result = ojo_bpf_open(&t->b, &desc);
  if (result == OJO_ERR_PERMISSION) {
    fputs("error: ojo-top requires root privileges. Run with sudo.\n", stderr);
    return EXIT_UNPRIVILEGED;
  }
  log_release();
  if (result == OJO_OK) return -1;
  complain("the kernel probes could not be attached: %s", ojo_result_string(result));
  return EXIT_FAILED;
}

/* Closes the trace; true: all of it is there. */
static bool close_trace(top *t) {
  ojo_result result = ojo_flush(t->tracer);
  ojo_stats stats = ojo_query_stats(t->tracer);
  ojo_result closed = ojo_close(t->tracer);
  if (!t->tracer) return true;
  t->tracer = NULL;
  complain("%llu events recorded into %s, %llu dropped", (unsigned long long)stats.recorded, t->s.record,
           (unsigned long long)stats.dropped);
  return result == OJO_OK && closed == OJO_OK;
}

/* Standard input, output and error where they are closed: else the next descriptors would be them, and lines would
 * go into a pipe or a trace. Opened the wrong way round, so that output into what was closed is an error. */
static bool open_standard(void) {
  for (int fd = STDIN_FILENO; fd <= STDERR_FILENO; fd++)
    if (fcntl(fd, F_GETFD) < 0 && open("/dev/null", fd == STDIN_FILENO ? O_WRONLY : O_RDONLY) != fd) return false;
  return true;
}

int main(int argc, char **argv) {
  static top t;
  if (!open_standard()) return EXIT_FAILED;
  int code = parse_options(&t.s, argc, argv);
  if (code >= 0) return code;
  code = EXIT_FAILED;
  t.out.buffer = malloc(OUTPUT_BYTES);
  t.t.sampling = t.s.mode == MODE_SCREEN;
  t.t.row_bytes = sizeof(row) + (t.t.sampling ? SAMPLES * sizeof(sample) : 0);
  if (!t.out.buffer || !catch_signals()) complain("%s", strerror(errno));
  else code = attach(&t);
  if (code < 0) code = t.s.mode != MODE_SCREEN || screen_begin(&t.screen) ? run(&t) : EXIT_FAILED;
  screen_end(&t.screen);
  if (ojo_bpf_close(t.b) != OJO_OK && code == EXIT_OK) code = EXIT_FAILED;
  if (!close_trace(&t) && code == EXIT_OK) code = EXIT_FAILED;
  bool by_signal = t.out.error == EPIPE && !pipe_ignored; /* ends as cat does */
  if (t.out.error && !by_signal && t.out.error != EINTR)
    complain("standard output: %s", strerror(t.out.error));
  table_free(&t.t);
  free(t.items);
  free(t.out.buffer);
  if (by_signal) {
    (void)signal(SIGPIPE, SIG_DFL);
    (void)raise(SIGPIPE);
  }
  return code;
}
