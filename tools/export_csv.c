/* SPDX-License-Identifier: MIT
 *
 * CSV for ojo-cat: RFC 4180 quoting, lines end with LF. The extension is empty, a number, text, hex
 * (bytes and whatever has no known layout), or for records key=value pairs with a space between
 * them. */
#include "export.h"

#include <stdlib.h>

static struct {
  fragment *fragments; /* ",2,PACKET_SENT,Packet," */
  time_digits time;
  uint64_t flow;
  uint32_t flow_length, thread, thread_length;
  unsigned char flow_text[32], thread_text[32]; /* ",7" and ",1,": the last ones' */
  bool terminal;
} csv;

/* One field, quoted if it must be. What is not UTF-8 becomes U+FFFD, and for a terminal also the
 * control characters other than line ends and tabs; in a file these stay, as CSV has no escape for
 * them. */
static unsigned char *put_field(unsigned char *p, const unsigned char *text, size_t length) {
  const unsigned char *end = text + length;
  bool quote = false;
  for (const unsigned char *at = text; at < end && !quote; at++)
    quote = *at == ',' || *at == '"' || *at == '\n' || *at == '\r';
  if (quote) *p++ = '"';
  while (text < end) {
    uint32_t c;
    size_t n = utf8_next(text, (size_t)(end - text), &c);
    bool control = (c < 0x20 && c != '\n' && c != '\r' && c != '\t') || (c >= 0x7F && c < 0xA0);
    if (c == '"') *p++ = '"';
    if (c == BAD_UTF8 || c == 0 || (control && csv.terminal))
      p = put_text(p, REPLACEMENT);
    else
      p = put_bytes(p, text, n);
    text += n;
  }
  if (quote) *p++ = '"';
  return p;
}

static unsigned char *put_type(unsigned char *p, const ojo_reader_type_info *type) {
  *p++ = ',';
  p = put_u64(p, type->value);
  *p++ = ',';
  p = put_field(p, (const unsigned char *)type->name, name_length(type->name));
  *p++ = ',';
  p = put_field(p, (const unsigned char *)type->category, name_length(type->category));
  *p++ = ',';
  return p;
}

/* A record's text: as it is, or in double quotes with \" \\ \n \r \t \xNN where a reader that
 * splits at spaces and '=' would go wrong. */
static unsigned char *put_value(unsigned char *p, const unsigned char *text, size_t length) {
  const unsigned char *end = text + length;
  bool plain = true;
  for (const unsigned char *at = text; at < end && plain; at++)
    plain = *at > ' ' && *at != 0x7F && *at != '"' && *at != '=' && *at != '\\';
  if (plain) return put_bytes(p, text, length);
  *p++ = '"';
  for (; text < end; text++) {
    if (*text == '"' || *text == '\\') {
      *p++ = '\\';
      *p++ = *text;
    } else if (*text == '\n' || *text == '\r' || *text == '\t') {
      *p++ = '\\';
      *p++ = *text == '\n' ? 'n' : *text == '\r' ? 'r' : 't';
    } else if (*text < ' ' || *text == 0x7F) {
      p = put_hex(put_text(p, "\\x"), text, 1);
    } else {
      *p++ = *text;
    }
  }
  *p++ = '"';
  return p;
}

static unsigned char *put_record(unsigned char *p, const field *fields, size_t count) {
  static unsigned char pairs[OJO_EXTENSION_BYTES_MAX * 4 + 1024];
  unsigned char *q = pairs;
  for (const field *f = fields; f < fields + count; f++) {
    if (f->kind == FIELD_ABSENT) continue;
    if (q > pairs) *q++ = ' ';
    q = put_text(q, f->key);
    *q++ = '=';
    if (f->kind == FIELD_NUMBER) q = put_u64(q, f->number);
    if (f->kind == FIELD_WORD) q = put_text(q, f->word);
    if (f->kind == FIELD_TEXT) q = put_value(q, f->bytes, f->length);
    if (f->kind == FIELD_HEX) q = put_hex(q, f->bytes, f->length);
    if (f->kind == FIELD_ADDRESS) q = put_address(q, f->bytes, f->length);
  }
  return put_field(p, pairs, (size_t)(q - pairs));
}

static unsigned char *put_extension(unsigned char *p, const ojo_reader_event *e,
                                    ojo_value_kind kind) {
  field fields[FIELDS_MAX];
  size_t length, count = record_fields(e, fields);
  if (count) return put_record(p, fields, count);
  const unsigned char *bytes = extension_bytes(e, kind, &length);
  return kind == OJO_VALUE_TEXT ? put_field(p, bytes, length) : put_hex(p, bytes, length);
}

static void set_flow(uint64_t flow) {
  csv.flow = flow;
  csv.flow_text[0] = ',';
  csv.flow_length = (uint32_t)(put_u64(csv.flow_text + 1, flow) - csv.flow_text);
}
static void set_thread(uint32_t thread) {
  csv.thread = thread;
  csv.thread_text[0] = ',';
  unsigned char *p = put_u64(csv.thread_text + 1, thread);
  *p++ = ',';
  csv.thread_length = (uint32_t)(p - csv.thread_text);
}

static bool csv_begin(cat *c) {
  csv.fragments = fragments_new();
  csv.terminal = c->terminal;
  set_flow(0);
  set_thread(0);
  out_text(&c->out, "timestamp_ns,flow_id,event_type,name,category,payload,thread_id,extension\n");
  return csv.fragments != NULL;
}

static void csv_event(cat *c, const ojo_reader_event *e) {
  unsigned char *p = put_time(&csv.time, out_row(&c->out), e->time_ns);
  if (__builtin_expect(e->flow != csv.flow, 0)) set_flow(e->flow);
  memcpy(p, csv.flow_text, 24);
  p += csv.flow_length;
  const fragment *f = fragment_of(csv.fragments, c, e, put_type);
  p = put_fragment(p, f, c, e, put_type);
  p = put_u64(p, e->payload);
  if (__builtin_expect(e->thread != csv.thread, 0)) set_thread(e->thread);
  memcpy(p, csv.thread_text, 16);
  p += csv.thread_length;
  if (e->has_number)
    p = put_u64(p, e->number);
  else if (e->extension_bytes)
    p = put_extension(p, e, f->kind);
  *p++ = '\n';
  c->out.at = p;
}

static void csv_end(cat *c) {
  (void)c;
  free(csv.fragments);
}

const exporter export_csv = {"csv", csv_begin, csv_event, csv_end};
