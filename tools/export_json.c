/* SPDX-License-Identifier: MIT
 *
 * JSON for ojo-cat: `json`, one object {"trace":{...},"events":[...]}, and `ndjson`, one object per
 * event and line. An event's extension is null, a number, a string, or for records an object;
 * bytes, and whatever has no known layout, are a string of hex digits. All integers are written in
 * full. */
#include "export.h"

#include <stdlib.h>

static struct {
  fragment *fragments; /* ,"event_type":2,"name":"PACKET_SENT","category":"Packet","payload": */
  time_digits time;
  uint64_t flow;
  uint32_t flow_length, thread, thread_length;
  unsigned char flow_text[48];   /* ,"flow_id":7  the last flow's */
  unsigned char thread_text[48]; /* ,"thread_id":1,"extension":  the last thread's */
  bool one_object, first;
} json;

#define PUT(p, literal) put_bytes(p, literal, sizeof(literal) - 1)

/* A string in quotes. Escaped: what JSON asks for, and DEL, C1 and line separators, which terminals
 * and scripts take badly; what is not UTF-8 becomes U+FFFD. */
static unsigned char *put_string(unsigned char *p, const void *text, size_t length) {
  const unsigned char *at = text, *end = at + length;
  *p++ = '"';
  while (at < end) {
    uint32_t c;
    size_t n = utf8_next(at, (size_t)(end - at), &c);
    if (c == BAD_UTF8) {
      p = PUT(p, REPLACEMENT);
    } else if (c == '"' || c == '\\') {
      *p++ = '\\';
      *p++ = (unsigned char)c;
    } else if (c == '\n') {
      p = PUT(p, "\\n");
    } else if (c < 0x20 || (c >= 0x7F && c < 0xA0) || c == 0x2028 || c == 0x2029) {
      unsigned char bytes[2] = {(unsigned char)(c >> 8), (unsigned char)c};
      p = put_hex(PUT(p, "\\u"), bytes, 2);
    } else {
      p = put_bytes(p, at, n);
    }
    at += n;
  }
  *p++ = '"';
  return p;
}

static unsigned char *put_hex_string(unsigned char *p, const unsigned char *bytes, size_t length) {
  *p++ = '"';
  p = put_hex(p, bytes, length);
  *p++ = '"';
  return p;
}

static unsigned char *put_type(unsigned char *p, const ojo_reader_type_info *type) {
  p = put_u64(PUT(p, ",\"event_type\":"), type->value);
  p = put_string(PUT(p, ",\"name\":"), type->name, name_length(type->name));
  p = put_string(PUT(p, ",\"category\":"), type->category, name_length(type->category));
  return PUT(p, ",\"payload\":");
}

static unsigned char *put_record(unsigned char *p, const field *fields, size_t count) {
  for (const field *f = fields; f < fields + count; f++) {
    *p++ = f == fields ? '{' : ',';
    p = put_string(p, f->key, strlen(f->key));
    *p++ = ':';
    switch (f->kind) {
      case FIELD_ABSENT: p = PUT(p, "null"); break;
      case FIELD_NUMBER: p = put_u64(p, f->number); break;
      case FIELD_WORD: p = put_string(p, f->word, strlen(f->word)); break;
      case FIELD_TEXT: p = put_string(p, f->bytes, f->length); break;
      case FIELD_HEX: p = put_hex_string(p, f->bytes, f->length); break;
      case FIELD_ADDRESS:
        *p++ = '"';
        p = put_address(p, f->bytes, f->length);
        *p++ = '"';
        break;
    }
  }
  *p++ = '}';
  return p;
}

static unsigned char *put_extension(unsigned char *p, const ojo_reader_event *e,
                                    ojo_value_kind kind) {
  field fields[FIELDS_MAX];
  size_t length, count = record_fields(e, fields);
  if (count) return put_record(p, fields, count);
  const unsigned char *bytes = extension_bytes(e, kind, &length);
  return kind == OJO_VALUE_TEXT ? put_string(p, bytes, length) : put_hex_string(p, bytes, length);
}

static void set_flow(uint64_t flow) {
  json.flow = flow;
  json.flow_length = (uint32_t)(put_u64(PUT(json.flow_text, ",\"flow_id\":"), flow) - json.flow_text);
}
static void set_thread(uint32_t thread) {
  unsigned char *p = put_u64(PUT(json.thread_text, ",\"thread_id\":"), thread);
  json.thread = thread;
  json.thread_length = (uint32_t)(PUT(p, ",\"extension\":") - json.thread_text);
}

static unsigned char *put_trace(unsigned char *p, const ojo_reader_trace_info *t) {
  static const char *const clocks[] = {"auto", "monotonic", "manual", "tsc", "cntvct"};
  const char *clock = t->clock < sizeof clocks / sizeof *clocks ? clocks[t->clock] : "unknown";
  p = put_hex_string(PUT(p, "{\"id\":"), t->id, 16);
  p = put_u64(PUT(p, ",\"version\":"), t->version);
  p = put_u64(PUT(p, ",\"start_unix_ns\":"), t->start_unix_ns);
  p = put_u64(PUT(p, ",\"start_monotonic_ns\":"), t->start_monotonic_ns);
  p = put_u64(PUT(p, ",\"first_ns\":"), t->first_ns);
  p = put_u64(PUT(p, ",\"last_ns\":"), t->last_ns);
  p = put_u64(PUT(p, ",\"pid\":"), t->pid);
  p = put_string(PUT(p, ",\"command\":"), t->command, strlen(t->command));
  p = put_string(PUT(p, ",\"clock\":"), clock, strlen(clock));
  p = put_u64(PUT(p, ",\"anchor_error_ns\":"), t->anchor_error_ns);
  p = put_hex_string(PUT(p, ",\"boot_id\":"), t->boot_id, 16);
  p = put_u64(PUT(p, ",\"files\":"), t->files);
  p = put_u64(PUT(p, ",\"bytes\":"), t->bytes);
  *p++ = '}';
  return p;
}

static bool begin(cat *c, bool one_object) {
  json.fragments = fragments_new();
  json.one_object = one_object;
  json.first = true;
  set_flow(0);
  set_thread(0);
  if (!one_object) return json.fragments != NULL;
  uint32_t traces = ojo_reader_trace_count(c->reader);
  unsigned char *p = PUT(out_row(&c->out), "{\"trace\":");
  p = traces ? put_trace(p, ojo_reader_trace(c->reader, 0)) : PUT(p, "{}");
  for (uint32_t i = 0; traces > 1 && i < traces; i++) {
    c->out.at = i ? PUT(p, ",\n") : PUT(p, ",\"traces\":[\n");
    p = put_trace(out_row(&c->out), ojo_reader_trace(c->reader, i));
  }
  if (traces > 1) *p++ = ']';
  c->out.at = PUT(p, ",\"events\":[");
  return json.fragments != NULL;
}
static bool json_begin(cat *c) { return begin(c, true); }
static bool ndjson_begin(cat *c) { return begin(c, false); }

static void json_event(cat *c, const ojo_reader_event *e) {
  unsigned char *p = out_row(&c->out);
  if (json.one_object) {
    if (!json.first) *p++ = ',';
    *p++ = '\n';
    json.first = false;
  }
  p = put_time(&json.time, PUT(p, "{\"timestamp_ns\":"), e->time_ns);
  if (__builtin_expect(e->flow != json.flow, 0)) set_flow(e->flow);
  memcpy(p, json.flow_text, 32);
  p += json.flow_length;
  const fragment *f = fragment_of(json.fragments, c, e, put_type);
  p = put_fragment(p, f, c, e, put_type);
  p = put_u64(p, e->payload);
  if (__builtin_expect(e->thread != json.thread, 0)) set_thread(e->thread);
  memcpy(p, json.thread_text, 40);
  p += json.thread_length;
  if (e->has_number)
    p = put_u64(p, e->number);
  else if (e->extension_bytes)
    p = put_extension(p, e, f->kind);
  else
    p = PUT(p, "null");
  *p++ = '}';
  if (!json.one_object) *p++ = '\n';
  c->out.at = p;
}

static void json_end(cat *c) {
  if (json.one_object) out_text(&c->out, json.first ? "]}\n" : "\n]}\n");
  free(json.fragments);
}

const exporter export_json = {"json", json_begin, json_event, json_end};
const exporter export_ndjson = {"ndjson", ndjson_begin, json_event, json_end};
