/* SPDX-License-Identifier: MIT
 * What ojo-cat's formats share: the output buffer, integers, UTF-8, extensions. See export.h. */
#include "export.h"

#include <errno.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

/* ---- output ---------------------------------------------------------------------------------- */

bool out_open(out *o, int fd) {
  o->buffer = malloc(OUT_BYTES + OUT_ROW_BYTES);
  o->at = o->buffer;
  o->full = o->buffer ? o->buffer + OUT_BYTES : NULL;
  o->fd = fd;
  o->error = 0;
  o->written = 0;
  return o->buffer != NULL;
}

void out_flush(out *o) {
  const unsigned char *from = o->buffer;
  while (from < o->at && !o->error) {
    ssize_t n = write(o->fd, from, (size_t)(o->at - from));
    if (n > 0) {
      from += n;
      o->written += (uint64_t)n;
    } else if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) { /* someone made it non-blocking */
      struct pollfd room = {o->fd, POLLOUT, 0};
      (void)poll(&room, 1, 1000);
    } else if (n == 0 || errno != EINTR) {
      o->error = n == 0 ? EIO : errno;
    }
  }
  o->at = o->buffer;
}

void out_close(out *o) {
  if (o->buffer) out_flush(o);
  free(o->buffer);
  o->buffer = o->at = o->full = NULL;
}

void out_text(out *o, const char *text) {
  unsigned char *p = out_row(o);
  size_t length = strlen(text);
  o->at = put_bytes(p, text, length < OUT_ROW_BYTES ? length : OUT_ROW_BYTES);
}

void out_format(out *o, const char *format, ...) {
  va_list args;
  va_start(args, format);
  char *p = (char *)out_row(o);
  int n = vsnprintf(p, OUT_ROW_BYTES, format, args);
  va_end(args);
  if (n > 0) o->at += (unsigned)n < OUT_ROW_BYTES ? (unsigned)n : OUT_ROW_BYTES - 1u;
}

/* ---- integers -------------------------------------------------------------------------------- */

uint32_t four_digits[10000];

void integers_begin(void) {
  for (uint32_t i = 0; i < 10000u; i++)
    four_digits[i] = 0x30303030u + i / 1000u + (i / 100u % 10u << 8) + (i / 10u % 10u << 16) + (i % 10u << 24);
}

unsigned char *put_big(unsigned char *p, uint64_t v) {
  uint64_t high = v / 100000000u;
  p = high >= 100000000u ? put_big(p, high) : put_u64(p, high);
  return put_digits8(p, (uint32_t)(v % 100000000u));
}

void time_digits_set(time_digits *t, uint64_t ns) {
  uint64_t high = ns / 100000000u;
  t->base = high * 100000000u;
  t->length = high ? (uint32_t)(put_u64(t->prefix, high) - t->prefix) : 0;
  t->set = true;
}

unsigned char *put_hex(unsigned char *p, const unsigned char *bytes, size_t length) {
  for (size_t i = 0; i < length; i++) {
    *p++ = (unsigned char)"0123456789abcdef"[bytes[i] >> 4];
    *p++ = (unsigned char)"0123456789abcdef"[bytes[i] & 15];
  }
  return p;
}

unsigned char *put_rfc3339(unsigned char *p, uint64_t unix_ns) {
  time_t seconds = (time_t)(unix_ns / 1000000000u);
  struct tm tm;
  if (!gmtime_r(&seconds, &tm)) return put_u64(p, unix_ns);
  p += strftime((char *)p, 32, "%Y-%m-%dT%H:%M:%S.", &tm);
  unsigned char digits[24];
  put_digits8(digits, (uint32_t)(unix_ns % 1000000000u / 10u));
  p = put_bytes(p, digits, 8);
  *p++ = (unsigned char)('0' + unix_ns % 10u);
  *p++ = 'Z';
  return p;
}

/* ---- fragments ------------------------------------------------------------------------------- */

fragment *fragments_new(void) { return calloc(FRAGMENT_COUNT, sizeof(fragment)); }

void fragment_fill(fragment *f, ojo_reader *r, const ojo_reader_event *e, fragment_maker make) {
  static unsigned char scratch[OUT_ROW_BYTES];
  const ojo_reader_type_info *type = ojo_reader_type(r, e);
  f->type = e->type;
  f->owner = e->trace + 1u;
  f->kind = type->value_kind;
  f->length = (uint32_t)(make(scratch, type) - scratch);
  if (f->length <= FRAGMENT_TEXT_BYTES) memcpy(f->text, scratch, f->length);
}

/* ---- text from files ------------------------------------------------------------------------- */

size_t utf8_next(const unsigned char *p, size_t length, uint32_t *code_point) {
  unsigned char first = p[0], least = 0x80, most = 0xBF; /* the second byte's range */
  size_t want;
  uint32_t c;
  if (first < 0x80) return *code_point = first, 1;
  *code_point = BAD_UTF8;
  if (first < 0xC2 || first > 0xF4) return 1;
  if (first < 0xE0) {
    want = 2, c = first & 0x1Fu;
  } else if (first < 0xF0) {
    want = 3, c = first & 0x0Fu;
    if (first == 0xE0) least = 0xA0; /* shorter forms exist */
    if (first == 0xED) most = 0x9F;  /* surrogates */
  } else {
    want = 4, c = first & 0x07u;
    if (first == 0xF0) least = 0x90;
    if (first == 0xF4) most = 0x8F; /* past U+10FFFF */
  }
  for (size_t i = 1; i < want; i++) {
    if (i >= length || p[i] < least || p[i] > most) return i;
    c = c << 6 | (p[i] & 0x3Fu);
    least = 0x80, most = 0xBF;
  }
  *code_point = c;
  return want;
}

/* Bidirectional controls: they make a text look like another. */
static bool turns_writing(uint32_t c) {
  return (c >= 0x202A && c <= 0x202E) || (c >= 0x2066 && c <= 0x2069) || c == 0x200E || c == 0x200F;
}

unsigned char *put_safe(unsigned char *p, size_t room, const void *text, size_t length) {
  const unsigned char *from = text, *end = from + length;
  unsigned char *limit = p + room;
  while (from < end && limit - p >= 6) {
    uint32_t c;
    size_t n = utf8_next(from, (size_t)(end - from), &c);
    if (c == BAD_UTF8) {
      p = put_text(p, REPLACEMENT);
    } else if (c == '\n' || c == '\t' || c == '\r') {
      *p++ = '\\';
      *p++ = c == '\n' ? 'n' : c == '\t' ? 't' : 'r';
    } else if (c < 0x20 || (c >= 0x7F && c < 0xA0)) {
      unsigned char byte = (unsigned char)c;
      p = put_hex(put_text(p, "\\x"), &byte, 1);
    } else if (turns_writing(c)) {
      unsigned char bytes[2] = {(unsigned char)(c >> 8), (unsigned char)c};
      p = put_hex(put_text(p, "\\u"), bytes, 2);
    } else {
      p = put_bytes(p, from, n);
    }
    from += n;
  }
  return p;
}

const char *safe(char *to, size_t room, const char *text) {
  *put_safe((unsigned char *)to, room - 1, text, strlen(text)) = 0;
  return to;
}

unsigned char *put_quoted(unsigned char *p, size_t room, const void *text, size_t length) {
  const unsigned char *from = text, *end = from + length, *limit = p + 1 + room;
  *p++ = '"';
  while (from < end && limit - p >= 2) {
    const unsigned char *to = from;
    while (to < end && *to != '"' && *to != '\\') to++;
    p = put_safe(p, (size_t)(limit - p), from, (size_t)(to - from));
    if (to < end && limit - p >= 2) {
      *p++ = '\\';
      *p++ = *to;
    }
    from = to < end ? to + 1 : end;
  }
  *p++ = '"';
  return p;
}

size_t columns_of(const char *text) {
  size_t n = 0;
  for (; *text; text++) n += ((unsigned char)*text & 0xC0) != 0x80;
  return n;
}

size_t name_length(const char *name) { return strnlen(name, NAME_BYTES_MAX); }

/* ---- extensions ------------------------------------------------------------------------------ */

static field number_field(const char *key, uint64_t number) {
  return (field){.key = key, .kind = FIELD_NUMBER, .number = number};
}
static field word_field(const char *key, const char *word, uint64_t number) {
  return (field){
      .key = key, .kind = word ? FIELD_WORD : FIELD_NUMBER, .word = word, .number = number};
}
/* Takes `length` bytes off what is left of an extension; less if there is less. */
static field bytes_field(const char *key, field_kind kind, const unsigned char **at, size_t *left,
                         size_t length) {
  if (length > *left) length = *left;
  field f = {.key = key, .kind = length ? kind : FIELD_ABSENT, .bytes = *at, .length = length};
  *at += length;
  *left -= length;
  return f;
}

static size_t flow_fields(const ojo_reader_event *e, field *f) {
  static const char *const roles[] = {NULL, "client", "server"};
  ojo_flow_record record;
  if (e->extension_bytes < sizeof record) return 0;
  memcpy(&record, e->extension, sizeof record);
  const unsigned char *at = e->extension + sizeof record;
  size_t left = e->extension_bytes - sizeof record, n = 0;
  size_t address = record.address_bytes;
  field_kind kind = address == 4 || address == 16 ? FIELD_ADDRESS : FIELD_HEX;
  f[n++] = number_field("parent", record.parent);
  f[n++] = word_field("kind", flow_kind_name(record.kind), record.kind);
  if (record.role == 0)
    f[n++] = (field){.key = "role", .kind = FIELD_ABSENT};
  else
    f[n++] = word_field("role", record.role < 3 ? roles[record.role] : NULL, record.role);
  f[n++] = bytes_field("id", FIELD_HEX, &at, &left, record.id_bytes);
  f[n++] = bytes_field("local_address", left >= address ? kind : FIELD_HEX, &at, &left, address);
  f[n++] = bytes_field("remote_address", left >= address ? kind : FIELD_HEX, &at, &left, address);
  f[n++] = number_field("local_port", record.local_port);
  f[n++] = number_field("remote_port", record.remote_port);
  if (!address && !record.local_port && !record.remote_port)
    f[n - 1].kind = f[n - 2].kind = FIELD_ABSENT;
  f[n++] = bytes_field("protocol", FIELD_TEXT, &at, &left, record.protocol_bytes);
  f[n++] = bytes_field("label", FIELD_TEXT, &at, &left, record.label_bytes);
  return n;
}

static size_t closed_fields(const ojo_reader_event *e, field *f) {
  static const char *const by[] = {"us", "peer", "timeout", "reset"};
  static const char *const layers[] = {"transport", "application"};
  if (e->extension_bytes < 4) return 0;
  const unsigned char *x = e->extension, *at = x + 4;
  size_t left = e->extension_bytes - 4u;
  f[0] = word_field("by", x[0] < 4 ? by[x[0]] : NULL, x[0]);
  f[1] = word_field("layer", x[1] < 2 ? layers[x[1]] : NULL, x[1]);
  f[2] = bytes_field("reason", FIELD_TEXT, &at, &left, x[2] | (size_t)x[3] << 8);
  return 3;
}

static size_t kernel_connection_fields(const ojo_reader_event *e, field *f) {
  ojo_kernel_connection c;
  size_t n = 0;
  if (!ojo_reader_kernel_connection(e, &c)) return 0;
  bool v4 = c.address_bytes == 4;
  const unsigned char *local = e->extension + offsetof(ojo_kernel_connection, local);
  const unsigned char *remote = e->extension + offsetof(ojo_kernel_connection, remote);
  const unsigned char *command = e->extension + offsetof(ojo_kernel_connection, command);
  f[n++] = word_field("protocol", c.protocol == 6 ? "tcp" : c.protocol == 17 ? "udp" : NULL, c.protocol);
  f[n++] = (field){.key = "local_address", .kind = FIELD_ADDRESS, .bytes = local, .length = v4 ? 4 : 16};
  f[n++] = number_field("local_port", c.local_port);
  f[n++] = (field){.key = "remote_address", .kind = FIELD_ADDRESS, .bytes = remote, .length = v4 ? 4 : 16};
  f[n++] = number_field("remote_port", c.remote_port);
  f[n++] = word_field("state", state_name(OJO_KERNEL_TCP_STATE, c.state), c.state);
  if (c.protocol != 6) f[n - 1].kind = FIELD_ABSENT;
  f[n++] = number_field("pid", c.pid);
  f[n++] = (field){.key = "command", .kind = FIELD_TEXT, .bytes = command,
                   .length = strnlen((const char *)command, sizeof c.command)};
  f[n++] = word_field("opened", c.flags & OJO_KERNEL_PARTIAL ? "before the probes" :
                                c.flags & OJO_KERNEL_PASSIVE ? "by the peer" : "by us", c.flags);
  if (c.protocol != 6 && !(c.flags & OJO_KERNEL_PARTIAL)) f[n - 1].kind = FIELD_ABSENT;
  f[n++] = number_field("netns", c.netns);
  return n;
}

static size_t kernel_totals_fields(const ojo_reader_event *e, field *f) {
  ojo_kernel_totals t;
  if (!ojo_reader_kernel_totals(e, &t)) return 0;
  f[0] = number_field("bytes_out", t.bytes_out);
  f[1] = number_field("bytes_in", t.bytes_in);
  f[2] = number_field("packets_out", t.packets_out);
  f[3] = number_field("packets_in", t.packets_in);
  f[4] = e->type == OJO_KERNEL_TCP_FINISHED ? number_field("retransmits", t.retransmits)
                                            : number_field("dropped", t.dropped);
  return 5;
}

size_t record_fields(const ojo_reader_event *e, field f[FIELDS_MAX]) {
  ojo_rtt rtt;
  ojo_dropped dropped;
  switch (e->type) {
    case OJO_RTT_SAMPLE:
    case OJO_KERNEL_TCP_RTT:
      if (!ojo_reader_rtt(e, &rtt)) return 0;
      f[0] = number_field("smoothed_ns", rtt.smoothed_ns);
      f[1] = number_field("min_ns", rtt.min_ns);
      f[2] = number_field("variation_ns", rtt.variation_ns);
      return 3;
    case OJO_EVENTS_DROPPED:
      if (!ojo_reader_dropped(e, &dropped)) return 0;
      f[0] = number_field("first_ts", dropped.first_ts);
      f[1] = number_field("last_ts", dropped.last_ts);
      f[2] = word_field("reason", drop_reason_name(dropped.reason), dropped.reason);
      f[3] = number_field("source", dropped.source);
      return 4;
    case OJO_FLOW: return flow_fields(e, f);
    case OJO_CONNECTION_CLOSED: return closed_fields(e, f);
    case OJO_KERNEL_CONNECTION: return kernel_connection_fields(e, f);
    case OJO_KERNEL_TCP_FINISHED:
    case OJO_KERNEL_UDP_FINISHED: return kernel_totals_fields(e, f);
    default: return 0;
  }
}

const unsigned char *extension_bytes(const ojo_reader_event *e, ojo_value_kind kind,
                                     size_t *length) {
  const unsigned char *x = e->extension;
  *length = e->extension_bytes;
  if (kind == OJO_VALUE_TEXT) {
    *length = strnlen((const char *)x, e->extension_bytes);
  } else if (kind == OJO_VALUE_BYTES && e->extension_bytes >= 2) {
    size_t want = x[0] | (size_t)x[1] << 8;
    x += 2;
    *length = want < *length - 2 ? want : *length - 2;
  }
  return x;
}

/* IPv6 as RFC 5952: lower case, the first longest run of two or more zero groups as "::". */
unsigned char *put_address(unsigned char *p, const unsigned char *b, size_t length) {
  if (length == 4) {
    for (size_t i = 0; i < 4; i++) {
      if (i) *p++ = '.';
      p = put_u64(p, b[i]);
    }
    return p;
  }
  unsigned group[8], best = 8, best_length = 1;
  for (unsigned i = 0; i < 8; i++) group[i] = (unsigned)b[2 * i] << 8 | b[2 * i + 1];
  for (unsigned i = 0; i < 8; i++) {
    unsigned n = 0;
    while (i + n < 8 && group[i + n] == 0) n++;
    if (n > best_length) best = i, best_length = n;
  }
  bool mapped = best == 0 && best_length == 5 && group[5] == 0xFFFF; /* ::ffff:192.0.2.1 */
  for (unsigned i = 0; i < (mapped ? 6u : 8u); i++) {
    if (i == best) {
      p = put_text(p, "::");
      i += best_length - 1;
      continue;
    }
    if (i && i != best + best_length) *p++ = ':';
    bool started = false;
    for (int shift = 12; shift >= 0; shift -= 4) {
      unsigned digit = group[i] >> shift & 15;
      started = started || digit || shift == 0;
      if (started) *p++ = (unsigned char)"0123456789abcdef"[digit];
    }
  }
  if (mapped) {
    *p++ = ':';
    p = put_address(p, b + 12, 4);
  }
  return p;
}
