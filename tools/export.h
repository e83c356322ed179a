/* SPDX-License-Identifier: MIT
 *
 * What ojo-cat's formats share. A format is one `exporter`: begin once, event for each event in
 * time order, end once. It appends to `cat.out`, a buffer that is written when it is full; nothing
 * is formatted with printf per event, and nothing is allocated per event.
 *
 * To add a format: write export_NAME.c with one `const exporter`; name it below and in ojo-cat.c.
 */
#ifndef OJO_CAT_EXPORT_H
#define OJO_CAT_EXPORT_H

#include "../ojo_reader.h"

#include <signal.h>
#include <string.h>

#define OUT_BYTES (256u * 1024u)
#define OUT_ROW_BYTES (64u * 1024u) /* the most that one row takes: out_row sees to that room */
#define NAME_BYTES_MAX 1024u        /* of a type's name or category from a file; the rest is cut */

typedef struct out {        /* the output and its buffer */
  unsigned char *at, *full; /* rows may start below full */
  unsigned char *buffer;    /* OUT_BYTES + OUT_ROW_BYTES */
  uint64_t written;
  int fd, error; /* error: errno of the first failed write; then all output is thrown away */
} out;

#define DROP_REASONS 16u

typedef struct cat {
  ojo_reader *reader;
  out out;
  bool terminal; /* the output is one: no control character of a file may reach it */
  bool colour;
  bool follow;
  unsigned width;                /* columns of a line of the terminal, or 80 */
  uint64_t start_ns;             /* unix: the zero of relative times */
  uint64_t flow_table_bytes_max; /* the reader's flow table is asked for if the input is smaller */
  uint64_t events;               /* shown so far */
  uint64_t lost[DROP_REASONS];   /* by EVENTS_DROPPED's reason; 0: unknown ones */
  uint64_t countdown;            /* events until cat_next looks around */
  struct request *request;
} cat;

/* The next event that passes all filters and --limit; false at the end, or when the output is gone.
 * Also sums up losses and draws the progress bar. */
bool cat_next(cat *c, ojo_reader_event *e);
void cat_rewind(cat *c); /* to the first event again */
bool cat_wants_flow(const cat *c, uint32_t trace, uint64_t flow); /* by --flow and --trace */
/* A line on stderr, "ojo-cat: ...". The text may hold anything: it is made safe for a terminal. */
void complain(const char *format, ...) __attribute__((format(printf, 1, 2)));

typedef struct exporter {
  const char *name;
  bool (*begin)(cat *c); /* false: out of memory */
  void (*event)(cat *c, const ojo_reader_event *e);
  void (*end)(cat *c);
} exporter;

extern const exporter export_text, export_csv, export_json, export_ndjson;
extern const exporter export_stats; /* --stats: counts, and prints them at the end */

/* Reports that read the events in their own way, more than once. False: there is nothing to tell,
 * which they have said on stderr. */
bool report_flows(cat *c);
bool report_packet(cat *c, uint64_t flow, uint64_t number);
bool report_plot(cat *c, uint64_t type);

/* ---- output ---------------------------------------------------------------------------------- */

bool out_open(out *o, int fd);
void out_flush(out *o);
void out_close(out *o); /* flushes and frees; leaves fd open */
void out_text(out *o, const char *text);
void out_format(out *o, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* Where the next row starts, with room for OUT_ROW_BYTES. Store its end in o->at. */
static inline unsigned char *out_row(out *o) {
  if (__builtin_expect(o->at >= o->full, 0)) out_flush(o);
  return o->at;
}

/* ---- integers -------------------------------------------------------------------------------- */

/* Of each number below 10,000 its four decimal digits in ASCII, the first in the lowest byte: what text
 * there is of an event is mostly digits. */
extern uint32_t four_digits[10000];
void integers_begin(void); /* fills it: before anything is put */

/* The eight digits of v < 10^8, the first in the lowest byte. */
static inline uint64_t digits8(uint32_t v) {
  uint32_t high = v / 10000u;
  return four_digits[high] | (uint64_t)four_digits[v - high * 10000u] << 32;
}

static inline unsigned char *put_digits8(unsigned char *p, uint32_t v) { /* with leading zeros */
  uint64_t x = digits8(v);
  memcpy(p, &x, 8);
  return p + 8;
}

unsigned char *put_big(unsigned char *p, uint64_t v);

/* Decimal. May write up to 8 bytes past the result's end. */
static inline unsigned char *put_u64(unsigned char *p, uint64_t v) {
  if (v >= 100000000u) return put_big(p, v);
  uint64_t x = digits8((uint32_t)v);
  /* bits of leading zeros; bit 56 keeps the last digit of 0 */
  unsigned skip = (unsigned)__builtin_ctzll((x ^ UINT64_C(0x3030303030303030)) | UINT64_C(1) << 56) & ~7u;
  x >>= skip;
  memcpy(p, &x, 8);
  return p + 8 - skip / 8;
}

/* Unix times in a row share all but their last eight digits: the others are made once per 0.1 s. */
typedef struct time_digits {
  uint64_t base; /* the prefix's value * 10^8 */
  uint32_t length;
  bool set;
  unsigned char prefix[24];
} time_digits;
void time_digits_set(time_digits *t, uint64_t ns);

static inline unsigned char *put_time(time_digits *t, unsigned char *p, uint64_t ns) {
  if (__builtin_expect(ns - t->base >= 100000000u || !t->set, 0)) time_digits_set(t, ns);
  if (__builtin_expect(t->length == 0, 0)) return put_u64(p, ns);
  memcpy(p, t->prefix, 16);
  return put_digits8(p + t->length, (uint32_t)(ns - t->base));
}

static inline unsigned char *put_bytes(unsigned char *p, const void *bytes, size_t length) {
  memcpy(p, bytes, length);
  return p + length;
}
static inline unsigned char *put_text(unsigned char *p, const char *text) {
  return put_bytes(p, text, strlen(text));
}
unsigned char *put_hex(unsigned char *p, const unsigned char *bytes, size_t length);
unsigned char *put_rfc3339(unsigned char *p, uint64_t unix_ns); /* UTC, nine decimals */

/* ---- what is ready-made per type and per flow ------------------------------------------------ */

/* What a format writes of a type in each row, made once: for CSV ",2,PACKET_SENT,Packet,". One per
 * (trace, type); a newcomer replaces the one in its place: no input makes the table grow. */
#define FRAGMENT_TEXT_BYTES 160u
typedef struct fragment {
  uint64_t type;
  uint32_t owner, length; /* owner: trace + 1, 0: none. length > FRAGMENT_TEXT_BYTES: text is not set, make it again */
  ojo_value_kind kind;
  unsigned char text[FRAGMENT_TEXT_BYTES];
} fragment;
#define FRAGMENT_COUNT 4096u

typedef unsigned char *(*fragment_maker)(unsigned char *p, const ojo_reader_type_info *type);

fragment *fragments_new(void); /* FRAGMENT_COUNT of them; free() it. NULL: out of memory */
void fragment_fill(fragment *f, ojo_reader *r, const ojo_reader_event *e, fragment_maker make);

/* Types below 0x1000 have a place each; the application's come where these leave room. */
static inline fragment *fragment_of(fragment *all, cat *c, const ojo_reader_event *e,
                                    fragment_maker make) {
  fragment *f = &all[(e->type + (e->type >> 16) * 32u + e->trace * 64u) & (FRAGMENT_COUNT - 1u)];
  if (__builtin_expect(f->type != e->type || f->owner != e->trace + 1u, 0))
    fragment_fill(f, c->reader, e, make);
  return f;
}

static inline unsigned char *put_fragment(unsigned char *p, const fragment *f, cat *c,
                                          const ojo_reader_event *e, fragment_maker make) {
  memcpy(p, f->text, 64);
  if (__builtin_expect(f->length > 64u, 0)) {
    if (f->length > FRAGMENT_TEXT_BYTES) return make(p, ojo_reader_type(c->reader, e));
    memcpy(p + 64, f->text + 64, FRAGMENT_TEXT_BYTES - 64u);
  }
  return p + f->length;
}

/* ---- text from files ------------------------------------------------------------------------- */

/* The next code point of UTF-8 and its length in bytes; for what is not UTF-8 the code point is
 * BAD_UTF8 and the length that of the longest prefix that could have become a character, or 1. */
#define BAD_UTF8 UINT32_MAX
size_t utf8_next(const unsigned char *p, size_t length, uint32_t *code_point);
#define REPLACEMENT "\xEF\xBF\xBD" /* U+FFFD */

/* For people: control characters, and those that change the direction of the writing, as \n, \x1b
 * or \u202e; bad UTF-8 as U+FFFD; a backslash stays. At most `room` bytes; returns the end. */
unsigned char *put_safe(unsigned char *p, size_t room, const void *text, size_t length);
const char *safe(char *to, size_t room, const char *text); /* the same, with a NUL */
/* The same in double quotes, within which a quote and a backslash have a backslash before them. At most
 * `room` bytes more than the two quotes. */
unsigned char *put_quoted(unsigned char *p, size_t room, const void *text, size_t length);
size_t columns_of(const char *text);                       /* code points */
size_t name_length(const char *name);                      /* strlen, cut at NAME_BYTES_MAX */

/* ---- extensions ------------------------------------------------------------------------------ */

/* What an extension holds besides a number, in the order of its layout. */
typedef enum field_kind {
  FIELD_ABSENT,
  FIELD_NUMBER,
  FIELD_WORD,
  FIELD_TEXT,
  FIELD_HEX,
  FIELD_ADDRESS
} field_kind;
typedef struct field {
  const char *key;
  field_kind kind;
  uint64_t number;
  const char *word;           /* FIELD_WORD: plain ASCII */
  const unsigned char *bytes; /* FIELD_TEXT: untrusted; FIELD_HEX; FIELD_ADDRESS: 4 or 16 bytes */
  size_t length;
} field;
#define FIELDS_MAX 12u

/* Fills fields and returns how many; 0: a record that is not known here: show it as hex. */
size_t record_fields(const ojo_reader_event *e, field fields[FIELDS_MAX]);
/* Where text or bytes begin and how long they are, by the type's value kind. Else: all of it. */
const unsigned char *extension_bytes(const ojo_reader_event *e, ojo_value_kind kind,
                                     size_t *length);
unsigned char *put_address(unsigned char *p, const unsigned char *bytes, size_t length);

/* ---- for people ------------------------------------------------------------------------------ */

typedef enum unit {
  UNIT_PLAIN,
  UNIT_PACKET,
  UNIT_RANGE,
  UNIT_FIRST,
  UNIT_BYTES,
  UNIT_RATE,
  UNIT_NS,
  UNIT_US,
  UNIT_STREAM,
  UNIT_FLOW,
  UNIT_ERROR,
  UNIT_STATE,
  UNIT_HEX,
  UNIT_COOKIE,
  UNIT_NONE
} unit;
unit unit_of_payload(uint64_t type);
unit unit_of_number(uint64_t type);
/* Names, or NULL for an unknown value. state_name: of SENDER_LIMITED and the ..._STATE types. */
const char *state_name(uint64_t type, uint64_t value);
const char *drop_reason_name(uint64_t reason);
const char *flow_kind_name(unsigned kind);
unsigned char *put_human(unsigned char *p, uint64_t value, unit u); /* "14.6 KiB", "#12" */
static inline const char *plural(uint64_t count) { return count == 1 ? "" : "s"; }
/* "7 client", "1073742848 stream 4": what is known of a flow, for people; up to 64 bytes. */
unsigned char *put_flow(cat *c, unsigned char *p, uint32_t trace, uint64_t flow);
/* What FLOW and STREAM_OPENED tell as they pass by: for put_flow, where there is no flow table. */
void flow_learn(const ojo_reader_event *e);
#define FLOW_NAME_BYTES 64u

/* The rest of a line in `text`: payload and extension by the type's meaning. */
unsigned char *put_meaning(cat *c, unsigned char *p, const ojo_reader_event *e,
                           ojo_value_kind kind);

#endif /* OJO_CAT_EXPORT_H */
