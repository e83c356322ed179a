/* SPDX-License-Identifier: MIT
 * For ojo-cat's readers who are people: units, the names of states, of flows, the meaning of each
 * type's payload. See export.h. */
#include "export.h"

/* ---- what numbers mean ----------------------------------------------------------------------- */

/* The words that OJO_EVENTS uses for payloads and sizes. */
#define WORD_packet_number UNIT_PACKET
#define WORD_largest UNIT_PACKET
#define WORD_start UNIT_RANGE
#define WORD_first UNIT_FIRST
#define WORD_bytes UNIT_BYTES
#define WORD_length UNIT_BYTES
#define WORD_limit UNIT_BYTES
#define WORD_final_size UNIT_BYTES
#define WORD_bytes_per_s UNIT_RATE
#define WORD_latest_ns UNIT_NS
#define WORD_from_now_ns UNIT_NS
#define WORD_ack_delay_us UNIT_US
#define WORD_stream_id UNIT_STREAM
#define WORD_parent_flow UNIT_FLOW
#define WORD_error UNIT_ERROR
#define WORD_state UNIT_STATE
#define WORD_by UNIT_STATE
#define WORD_version UNIT_HEX
#define WORD_none UNIT_NONE
#define WORD_count UNIT_PLAIN
#define WORD_datagrams UNIT_PLAIN
#define WORD_one_way UNIT_PLAIN
#define WORD_expiries UNIT_PLAIN
#define WORD_key_phase UNIT_PLAIN
#define WORD_by_peer UNIT_PLAIN
#define WORD_rtt UNIT_PLAIN
#define WORD_closed UNIT_PLAIN
#define WORD_socket_cookie UNIT_COOKIE
#define WORD_connection UNIT_PLAIN
#define WORD_totals UNIT_PLAIN
#define WORD_zero UNIT_NONE
#define WORD_old_state UNIT_STATE
#define WORD_segments UNIT_PLAIN
#define WORD_total UNIT_PLAIN
#define WORD_smoothed_ns UNIT_NS
#define WORD_tid UNIT_PLAIN
#define WORD_asleep UNIT_PLAIN
#define WORD_off_ns UNIT_NS
#define WORD_by_tid UNIT_PLAIN
#define WORD_severity UNIT_PLAIN
#define WORD_span_id UNIT_PLAIN
#define WORD_value UNIT_PLAIN
#define WORD_slots UNIT_PLAIN
#define WORD_tid_pid UNIT_PLAIN
#define WORD_key UNIT_PLAIN
#define WORD_log UNIT_PLAIN
#define WORD_span UNIT_PLAIN
#define WORD_name UNIT_PLAIN
#define WORD_attributes UNIT_PLAIN
#define WORD_dropped UNIT_PLAIN
#define WORD_run UNIT_PLAIN
#define WORD_thread UNIT_PLAIN
#define WORD_flow UNIT_PLAIN

unit unit_of_payload(uint64_t type) {
  switch (type) {
#define X(value, name, helper, category, kind, payload, size) \
  case value: return WORD_##payload;
    OJO_EVENTS(X) OJO_EVENTS_INTERNAL(X)
#undef X
    default: return UNIT_PLAIN;
  }
}

unit unit_of_number(uint64_t type) {
  switch (type) {
#define X(value, name, helper, category, kind, payload, size) \
  case value: return WORD_##size;
    OJO_EVENTS(X) OJO_EVENTS_INTERNAL(X)
#undef X
    default: return UNIT_PLAIN;
  }
}

static const char *name_in(const char *const *names, size_t count, uint64_t value) {
  return value < count ? names[value] : NULL;
}
#define NAME_IN(names, value) name_in(names, sizeof(names) / sizeof *(names), value)

const char *state_name(uint64_t type, uint64_t value) {
  static const char *const limited[] = {
      "nothing", "application",        "cwnd",  "connection credit", "stream credit",
      "pacing",  "anti-amplification", "socket"};
  static const char *const congestion[] = {NULL, "slow start", "avoidance", "recovery"};
  static const char *const connection[] = {NULL,        "initial", "handshake", "established",
                                           "confirmed", "closing", "draining"};
  static const char *const path[] = {NULL,      "probing", "validated", "active",
                                     "standby", "failed",  "abandoned"};
  static const char *const tcp[] = {
      NULL,    "ESTABLISHED", "SYN_SENT", "SYN_RECV", "FIN_WAIT1", "FIN_WAIT2", "TIME_WAIT",
      "CLOSE", "CLOSE_WAIT",  "LAST_ACK", "LISTEN",   "CLOSING",   "NEW_SYN_RECV"};
  static const char *const tcp_congestion[] = {"open", "disorder", "CWR", "recovery", "loss"};
  switch (type) {
    case OJO_KERNEL_TCP_STATE: return NAME_IN(tcp, value);
    case OJO_KERNEL_TCP_CONGESTION_STATE: return NAME_IN(tcp_congestion, value);
    case OJO_SENDER_LIMITED: return NAME_IN(limited, value);
    case OJO_CONGESTION_STATE: return NAME_IN(congestion, value);
    case OJO_CONNECTION_STATE: return NAME_IN(connection, value);
    case OJO_PATH_STATE: return NAME_IN(path, value);
    default: return NULL;
  }
}

const char *drop_reason_name(uint64_t reason) {
  static const char *const names[] = {
      NULL,           "pool_full",     "block_timeout", "overwritten", "nesting",
      "thread_table", "never_written", "kernel_ring",   "disk_limit",  "extension_too_long"};
  return NAME_IN(names, reason);
}

const char *flow_kind_name(unsigned kind) {
  static const char *const names[] = {NULL, "connection", "space", "path", "stream", "socket"};
  return NAME_IN(names, kind);
}

/* value / scale with about three digits: "1.25", "46.9", "512". Integers only, rounded. */
static unsigned char *put_scaled(unsigned char *p, uint64_t value, uint64_t scale) {
  if (scale >> 50) value >>= 10, scale >>= 10; /* so that rest * 100 fits */
  uint64_t whole = value / scale, rest = value % scale;
  unsigned decimals = whole < 10 ? 2 : whole < 100 ? 1 : 0;
  uint64_t power = decimals == 2 ? 100 : decimals == 1 ? 10 : 1;
  uint64_t fraction = (rest * power + scale / 2) / scale;
  if (fraction >= power) whole++, fraction = 0;
  p = put_u64(p, whole);
  if (!decimals) return p;
  *p++ = '.';
  if (decimals == 2) *p++ = (unsigned char)('0' + fraction / 10);
  *p++ = (unsigned char)('0' + fraction % 10);
  return p;
}

static unsigned char *put_size(unsigned char *p, uint64_t value) {
  static const char *const names[] = {" KiB", " MiB", " GiB", " TiB", " PiB", " EiB"};
  if (value < 10000) return put_text(put_u64(p, value), " B");
  unsigned i = 0;
  while (i < 5 && value >> (10 * (i + 2))) i++;
  return put_text(put_scaled(p, value, UINT64_C(1) << (10 * (i + 1))), names[i]);
}

static unsigned char *put_duration(unsigned char *p, uint64_t ns) {
  if (ns < 1000) return put_text(put_u64(p, ns), " ns");
  if (ns < 999500) return put_text(put_scaled(p, ns, 1000), " us"); /* 999.5 us are 1.00 ms */
  if (ns < 999500000) return put_text(put_scaled(p, ns, 1000000), " ms");
  return put_text(put_scaled(p, ns, 1000000000), " s");
}

static unsigned char *put_0x(unsigned char *p, uint64_t value) {
  int shift = 60;
  while (shift > 0 && value >> shift == 0) shift -= 4;
  p = put_text(p, "0x");
  for (; shift >= 0; shift -= 4) *p++ = (unsigned char)"0123456789abcdef"[value >> shift & 15];
  return p;
}

unsigned char *put_human(unsigned char *p, uint64_t value, unit u) {
  switch (u) {
    case UNIT_PACKET:
    case UNIT_FIRST: *p++ = '#'; return put_u64(p, value);
    case UNIT_BYTES: return put_size(p, value);
    case UNIT_RATE: return put_text(put_size(p, value), "/s");
    case UNIT_NS: return put_duration(p, value);
    case UNIT_US:
      if (value > UINT64_MAX / 1000) return put_text(put_u64(p, value), " us");
      return put_duration(p, value * 1000);
    case UNIT_STREAM: return put_u64(put_text(p, "stream "), value);
    case UNIT_HEX: return put_0x(p, value);
    case UNIT_COOKIE: return put_u64(put_text(p, "socket "), value);
    default: return put_u64(p, value);
  }
}

/* ---- flows ----------------------------------------------------------------------------------- */

/* The names of the flows seen last: label, or kind and key. A newcomer replaces the one there. */
#define FLOW_NAMES 1024u
static struct flow_name {
  uint64_t flow;
  uint32_t trace;
  bool set;
  char text[40]; /* "" : nothing known */
} flow_names[FLOW_NAMES];

static struct flow_name *flow_name_place(uint32_t trace, uint64_t flow) {
  return &flow_names[(flow * UINT64_C(0x9E3779B97F4A7C15) >> 40 ^ trace) % FLOW_NAMES];
}

static void name_flow(struct flow_name *n, const void *label, size_t label_length, unsigned kind,
                      uint64_t key) {
  unsigned char *p = (unsigned char *)n->text;
  if (label_length) {
    p = put_safe(p, sizeof n->text - 1, label, label_length);
  } else if (kind != OJO_FLOW_CONNECTION && flow_kind_name(kind)) {
    p = put_text(p, flow_kind_name(kind));
    *p++ = ' ';
    unsigned char digits[32];
    p = put_bytes(p, digits, (size_t)(put_u64(digits, key) - digits));
  }
  *p = 0;
}

static struct flow_name *flow_name_new(uint32_t trace, uint64_t flow) {
  struct flow_name *n = flow_name_place(trace, flow);
  n->flow = flow;
  n->trace = trace;
  n->set = true;
  n->text[0] = 0;
  return n;
}

void flow_learn(const ojo_reader_event *e) {
  if (e->type == OJO_STREAM_OPENED) {
    struct flow_name *n = flow_name_place(e->trace, e->flow);
    if (!n->set || n->flow != e->flow || n->trace != e->trace || !n->text[0])
      name_flow(flow_name_new(e->trace, e->flow), NULL, 0, OJO_FLOW_STREAM, e->payload);
  } else if (e->type == OJO_FLOW) {
    field fields[FIELDS_MAX];
    size_t count = record_fields(e, fields);
    ojo_flow_record record;
    if (!count) return;
    memcpy(&record, e->extension, sizeof record);
    const field *label = &fields[count - 1];
    name_flow(flow_name_new(e->trace, e->flow), label->bytes, label->length, record.kind,
              e->payload);
  }
}

/* What the reader's flow table has. Making it is a pass over all files: not for large inputs. */
static const ojo_reader_flow_info *flow_info(cat *c, uint32_t trace, uint64_t flow) {
  uint64_t total = 0;
  ojo_reader_progress(c->reader, &total);
  if (c->follow || total > c->flow_table_bytes_max) return NULL;
  return ojo_reader_flow_in(c->reader, trace, flow);
}

unsigned char *put_flow(cat *c, unsigned char *p, uint32_t trace, uint64_t flow) {
  if (flow == 0) return put_text(p, "-");
  struct flow_name *n = flow_name_place(trace, flow);
  if (!n->set || n->flow != flow || n->trace != trace) {
    n = flow_name_new(trace, flow);
    const ojo_reader_flow_info *info = flow_info(c, trace, flow);
    if (info) name_flow(n, info->label, strlen(info->label), info->kind, info->key);
  }
  p = put_u64(p, flow);
  if (!n->text[0]) return p;
  *p++ = ' ';
  return put_text(p, n->text);
}

/* ---- what an event says ---------------------------------------------------------------------- */

static unsigned char *put_range(unsigned char *p, uint64_t start, uint64_t end) {
  *p++ = '[';
  p = put_text(put_u64(p, start), ", ");
  p = put_u64(p, end);
  *p++ = ')';
  return p;
}

#define QUOTED_BYTES_MAX (OUT_ROW_BYTES / 2) /* what a row has room for beside the rest of it */

static unsigned char *put_fields(unsigned char *p, const field *fields, size_t count, bool behind) {
  for (const field *f = fields; f < fields + count; f++) {
    size_t key = strlen(f->key);
    if (f->kind == FIELD_ABSENT) continue;
    if (behind) p = put_text(p, "  ");
    behind = true;
    bool ns = key > 3 && strcmp(f->key + key - 3, "_ns") == 0;
    for (const char *at = f->key; at < f->key + key - (ns ? 3 : 0); at++)
      *p++ = (unsigned char)(*at == '_' ? ' ' : *at);
    *p++ = ' ';
    if (f->kind == FIELD_NUMBER) p = put_human(p, f->number, ns ? UNIT_NS : UNIT_PLAIN);
    if (f->kind == FIELD_WORD) p = put_text(p, f->word);
    if (f->kind == FIELD_TEXT) p = put_quoted(p, QUOTED_BYTES_MAX, f->bytes, f->length);
    if (f->kind == FIELD_HEX) p = put_hex(p, f->bytes, f->length);
    if (f->kind == FIELD_ADDRESS) p = put_address(p, f->bytes, f->length);
  }
  return p;
}

static const field *find_field(const field *fields, size_t count, const char *key) {
  for (size_t i = 0; i < count; i++)
    if (strcmp(fields[i].key, key) == 0 && fields[i].kind != FIELD_ABSENT) return &fields[i];
  return NULL;
}

static unsigned char *put_endpoint(unsigned char *p, const field *address, const field *port) {
  bool v6 = address && address->length == 16;
  if (v6) *p++ = '[';
  if (address && address->kind == FIELD_ADDRESS)
    p = put_address(p, address->bytes, address->length);
  if (address && address->kind == FIELD_HEX) p = put_hex(p, address->bytes, address->length);
  if (v6) *p++ = ']';
  *p++ = ':';
  return put_u64(p, port->number);
}

static unsigned char *put_flow_event(unsigned char *p, const ojo_reader_event *e,
                                     const field *fields, size_t count) {
  const field *f = find_field(fields, count, "kind");
  p = f && f->word ? put_text(p, f->word) : put_text(p, "flow");
  if (e->payload) {
    *p++ = ' ';
    p = put_u64(p, e->payload);
  }
  if ((f = find_field(fields, count, "role")))
    p = put_text(put_text(p, ", "), f->word ? f->word : "role?");
  if ((f = find_field(fields, count, "parent")) && f->number)
    p = put_u64(put_text(p, ", of flow "), f->number);
  if ((f = find_field(fields, count, "protocol")))
    p = put_safe(put_text(p, ", "), 256, f->bytes, f->length);
  if ((f = find_field(fields, count, "local_port"))) {
    p = put_endpoint(put_text(p, ", "), find_field(fields, count, "local_address"), f);
    p = put_endpoint(put_text(p, " to "), find_field(fields, count, "remote_address"),
                     find_field(fields, count, "remote_port"));
  }
  if ((f = find_field(fields, count, "id"))) p = put_hex(put_text(p, ", id "), f->bytes, f->length);
  if ((f = find_field(fields, count, "label")))
    p = put_quoted(put_text(p, ", "), QUOTED_BYTES_MAX, f->bytes, f->length);
  return p;
}

static unsigned char *put_kernel_connection(unsigned char *p, const ojo_reader_event *e, const field *fields,
                                            size_t count) {
  const field *f = find_field(fields, count, "protocol");
  p = f->word ? put_text(p, f->word) : put_u64(put_text(p, "protocol "), f->number);
  p = put_endpoint(put_text(p, " "), find_field(fields, count, "local_address"),
                   find_field(fields, count, "local_port"));
  p = put_endpoint(put_text(p, " to "), find_field(fields, count, "remote_address"),
                   find_field(fields, count, "remote_port"));
  if ((f = find_field(fields, count, "state")) && f->word) p = put_text(put_text(p, ", "), f->word);
  p = put_quoted(put_text(p, ", "), 64, find_field(fields, count, "command")->bytes,
                 find_field(fields, count, "command")->length);
  p = put_u64(put_text(p, " pid "), find_field(fields, count, "pid")->number);
  if ((f = find_field(fields, count, "opened")) && f->word) p = put_text(put_text(p, ", opened "), f->word);
  return put_u64(put_text(p, ", socket "), e->payload);
}

static unsigned char *put_dropped(unsigned char *p, const ojo_reader_event *e) {
  ojo_dropped d;
  p = put_text(put_u64(p, e->payload), e->payload == 1 ? " event lost" : " events lost");
  if (!ojo_reader_dropped(e, &d)) return p;
  p = put_text(p, ": ");
  const char *reason = drop_reason_name(d.reason);
  for (const char *at = reason; at && *at; at++) *p++ = (unsigned char)(*at == '_' ? ' ' : *at);
  if (!reason) p = put_u64(put_text(p, "reason "), d.reason);
  if (d.last_ts > d.first_ts)
    p = put_human(put_text(p, ", within "), d.last_ts - d.first_ts, UNIT_NS);
  return p;
}

static unsigned char *put_segments(unsigned char *p, uint64_t count) {
  return put_text(put_u64(p, count), count == 1 ? " segment" : " segments");
}

/* What the kernel did (ojo_bpf.h). NULL: nothing that reads better as a phrase. */
static unsigned char *put_kernel_phrase(unsigned char *p, const ojo_reader_event *e) {
  const char *now = state_name(OJO_KERNEL_TCP_STATE, e->payload), *before = state_name(OJO_KERNEL_TCP_STATE, e->number);
  switch (e->type) {
    case OJO_KERNEL_TCP_STATE:
      return e->has_number && now && before ? put_text(put_text(put_text(p, before), " to "), now) : NULL;
    case OJO_KERNEL_TCP_RETRANSMIT:
      p = put_segments(p, e->payload);
      return e->has_number ? put_text(put_u64(put_text(p, ", "), e->number), " so far") : p;
    case OJO_KERNEL_TCP_CWND:
    case OJO_KERNEL_TCP_SSTHRESH:
    case OJO_KERNEL_TCP_IN_FLIGHT:
      p = put_human(p, e->payload, UNIT_BYTES);
      return e->has_number ? put_segments(put_text(p, " in "), e->number) : p;
    case OJO_KERNEL_OFF_CPU:
      p = put_u64(put_text(p, "thread "), e->payload);
      return e->has_number ? put_text(p, e->number ? ", asleep" : ", preempted") : p;
    case OJO_KERNEL_ON_CPU:
      p = put_u64(put_text(p, "thread "), e->payload);
      return e->has_number && e->number ? put_human(put_text(p, " after "), e->number, UNIT_NS) : p;
    case OJO_KERNEL_WAKEUP:
      p = put_u64(put_text(p, "thread "), e->payload);
      if (!e->has_number) return p;
      return e->number ? put_u64(put_text(p, " by thread "), e->number) : put_text(p, " by an interrupt");
    default: return NULL;
  }
}

/* The types that read better as a phrase than as payload and number. NULL: none of them. */
static unsigned char *put_phrase(unsigned char *p, const ojo_reader_event *e) {
  bool one = e->payload == 1;
  switch (e->type) {
    case OJO_ACK_SENT:
      p = put_human(put_text(p, "up to "), e->payload, UNIT_PACKET);
      return e->has_number ? put_human(put_text(p, "  delay "), e->number, UNIT_US) : p;
    case OJO_DATAGRAM_SENT:
    case OJO_DATAGRAM_RECEIVED:
    case OJO_KERNEL_UDP_SEND:
    case OJO_KERNEL_UDP_RECEIVE:
    case OJO_KERNEL_UDP_DROP:
      p = put_human(p, e->payload, UNIT_BYTES);
      if (!e->has_number) return p;
      p = put_u64(put_text(p, " in "), e->number);
      return put_text(p, e->number == 1 ? " datagram" : " datagrams");
    case OJO_MAX_STREAMS_UPDATE:
    case OJO_MAX_STREAMS_GRANTED:
      p = put_text(put_u64(p, e->payload), one ? " stream" : " streams");
      return e->has_number ? put_text(p, e->number ? ", one way" : ", both ways") : p;
    case OJO_STREAM_RESET_SENT:
    case OJO_STREAM_RESET_RECEIVED:
      p = put_0x(put_text(p, "error "), e->payload);
      return e->has_number ? put_human(put_text(p, "  final size "), e->number, UNIT_BYTES) : p;
    case OJO_STREAM_CLOSED:
      return e->payload ? put_0x(put_text(p, "error "), e->payload) : put_text(p, "clean");
    case OJO_LOSS_TIMER_SET:
      return e->payload ? put_human(put_text(p, "in "), e->payload, UNIT_NS)
                        : put_text(p, "cancelled");
    case OJO_LOSS_TIMER_EXPIRED: return put_text(put_u64(p, e->payload), " in a row");
    case OJO_KEY_UPDATED:
      p = put_u64(put_text(p, "phase "), e->payload);
      return e->has_number ? put_text(p, e->number ? ", the peer's" : ", ours") : p;
    case OJO_PACKET_DROPPED:
      p = e->payload == UINT64_MAX ? put_text(p, "number unknown")
                                   : put_human(p, e->payload, UNIT_PACKET);
      return e->has_number ? put_human(put_text(p, "  "), e->number, UNIT_BYTES) : p;
    case OJO_EVENTS_DROPPED: return put_dropped(p, e);
    default: return put_kernel_phrase(p, e);
  }
}

static unsigned char *put_payload(cat *c, unsigned char *p, const ojo_reader_event *e,
                                  ojo_value_kind kind) {
  unit u = unit_of_payload(e->type);
  if (u == UNIT_NONE) return p;
  const char *state = state_name(e->type, e->payload);
  if (state) return put_text(p, state);
  if (u == UNIT_FLOW) return put_flow(c, p, e->trace, e->payload);
  if (u == UNIT_ERROR && e->payload == 0) return put_text(p, "no error");
  if (u == UNIT_ERROR) return put_0x(put_text(p, "error "), e->payload);
  if (e->has_number && (u == UNIT_RANGE || kind == OJO_VALUE_RANGE)) {
    p = put_range(p, e->payload, e->number);
    return e->number < e->payload
               ? p
               : put_human(put_text(p, "  "), e->number - e->payload, UNIT_BYTES);
  }
  if (e->has_number && u == UNIT_FIRST && e->number <= UINT64_MAX - e->payload)
    return put_range(p, e->payload, e->payload + e->number);
  p = put_human(p, e->payload, u);
  return e->has_number ? put_human(put_text(p, "  "), e->number, unit_of_number(e->type)) : p;
}

unsigned char *put_meaning(cat *c, unsigned char *p, const ojo_reader_event *e,
                           ojo_value_kind kind) {
  field fields[FIELDS_MAX];
  unsigned char *phrase = put_phrase(p, e);
  if (phrase) return phrase;
  size_t length, count = e->extension_bytes ? record_fields(e, fields) : 0;
  if (count && e->type == OJO_FLOW) return put_flow_event(p, e, fields, count);
  if (count && e->type == OJO_KERNEL_CONNECTION) return put_kernel_connection(p, e, fields, count);
  unsigned char *start = p;
  p = put_payload(c, p, e, kind);
  if (e->has_number || !e->extension_bytes) return p;
  if (count) return put_fields(p, fields, count, p > start);
  const unsigned char *bytes = extension_bytes(e, kind, &length);
  p = put_text(p, "  ");
  return kind == OJO_VALUE_TEXT ? put_quoted(p, QUOTED_BYTES_MAX, bytes, length)
                                : put_hex(p, bytes, length);
}
