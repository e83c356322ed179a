/* SPDX-License-Identifier: MIT
 *
 * types.c - each event type from its helpers through a file to ojo-cat's csv, json, ndjson and text.
 *
 * The table below is written by hand from the format's documentation, not made from OJO_EVENTS: it is what
 * a renumbered, renamed or misplaced row is caught by. With the manual clock a trace starts at unix time 0,
 * so the times in the output are the ones set here.
 */
#define OJO_IMPLEMENTATION
#include "ojo.h"

#include "check.h"

typedef enum kind { NONE, NUMBER, RANGE, RECORD } kind;
typedef void plain_fn(ojo_tracer *, uint32_t, uint64_t);
typedef void plain_at_fn(ojo_tracer *, uint64_t, uint32_t, uint64_t);
typedef void sized_fn(ojo_tracer *, uint32_t, uint64_t, uint64_t);
typedef void sized_at_fn(ojo_tracer *, uint64_t, uint32_t, uint64_t, uint64_t);

typedef struct row {
  uint32_t value;
  uint32_t constant; /* the enum's */
  const char *name, *category;
  kind kind;
  const char *text, *text_sized; /* what the text format's line ends with for payload 3, and with size 4 */
  plain_fn *plain;
  plain_at_fn *plain_at;
  sized_fn *sized;
  sized_at_fn *sized_at;
} row;

#define P(value, NAME, category, kind, helper, text) \
  {value, OJO_##NAME, #NAME, category, kind, text, NULL, ojo_##helper, ojo_##helper##_at, NULL, NULL},
#define S(value, NAME, category, kind, helper, text, text_sized)                                       \
  {value, OJO_##NAME, #NAME, category, kind, text, text_sized, ojo_##helper, ojo_##helper##_at,       \
   ojo_##helper##_sized, ojo_##helper##_sized_at},

static const row rows[] = {
  S(0x0001, PACKET_CREATED, "Packet", NUMBER, packet_created, "#3", "#3  4 B")
  S(0x0002, PACKET_SENT, "Packet", NUMBER, packet_sent, "#3", "#3  4 B")
  S(0x0003, PACKET_ACKED, "Packet", NUMBER, packet_acked, "#3", "#3  4 B")
  S(0x0004, PACKET_LOST_TIMEOUT, "Packet", NUMBER, packet_lost_timeout, "#3", "#3  4 B")
  S(0x0005, PACKET_LOST_DUPLICATE_ACK, "Packet", NUMBER, packet_lost_duplicate_ack, "#3", "#3  4 B")
  P(0x0006, PACKET_RETRANSMIT_OLD, "Packet", NONE, packet_retransmit_old, "#3")
  P(0x0007, PACKET_RETRANSMIT_NEW, "Packet", NONE, packet_retransmit_new, "#3")
  S(0x0008, PACKET_RECEIVED, "Packet", NUMBER, packet_received, "#3", "#3  4 B")
  S(0x0009, OFFSET_SENT, "Packet", RANGE, offset_sent, "3", "[3, 7)  4 B")
  S(0x000A, OFFSET_ACKED, "Packet", RANGE, offset_acked, "3", "[3, 7)  4 B")
  S(0x000B, OFFSET_RETRANSMITTED, "Packet", RANGE, offset_retransmitted, "3", "[3, 7)  4 B")
  S(0x000C, OFFSET_LOST, "Packet", RANGE, offset_lost, "3", "[3, 7)  4 B")
  S(0x000D, OFFSET_RECEIVED, "Packet", RANGE, offset_received, "3", "[3, 7)  4 B")
  S(0x000E, PACKET_LOST_TIME, "Packet", NUMBER, packet_lost_time, "#3", "#3  4 B")
  S(0x000F, PACKET_LOST_REPORTED, "Packet", NUMBER, packet_lost_reported, "#3", "#3  4 B")
  S(0x0010, PACKET_LOST_SPURIOUS, "Packet", NUMBER, packet_lost_spurious, "#3", "#3  4 B")
  S(0x0011, PACKET_DROPPED, "Packet", NUMBER, packet_dropped, "#3", "#3  4 B")
  S(0x0012, ACK_RECEIVED, "Packet", NUMBER, ack_received, "#3", "[3, 7)")
  S(0x0013, ACK_SENT, "Packet", NUMBER, ack_sent, "up to #3", "up to #3  delay 4.00 us")
  S(0x0014, DATAGRAM_SENT, "Packet", NUMBER, datagram_sent, "3 B", "3 B in 4 datagrams")
  S(0x0015, DATAGRAM_RECEIVED, "Packet", NUMBER, datagram_received, "3 B", "3 B in 4 datagrams")
  P(0x0016, ECN_CE_RECEIVED, "Packet", NONE, ecn_ce_received, "3 B")
  P(0x0017, ECN_CE_REPORTED, "Packet", NONE, ecn_ce_reported, "3")
  P(0x0100, STREAM_OPENED, "Stream", NONE, stream_opened, "stream 3")
  P(0x0101, STREAM_LINK_PARENT, "Stream", NONE, stream_link_parent, "3")
  P(0x0102, STREAM_FIN_SENT, "Stream", NONE, stream_fin_sent, "stream 3")
  P(0x0103, STREAM_FIN_ACKED, "Stream", NONE, stream_fin_acked, "stream 3")
  P(0x0104, STREAM_FIN_RECEIVED, "Stream", NONE, stream_fin_received, "stream 3")
  S(0x0105, STREAM_RESET_SENT, "Stream", NUMBER, stream_reset_sent, "error 0x3", "error 0x3  final size 4 B")
  S(0x0106, STREAM_RESET_RECEIVED, "Stream", NUMBER, stream_reset_received, "error 0x3", "error 0x3  final size 4 B")
  P(0x0107, STREAM_STOP_SENT, "Stream", NONE, stream_stop_sent, "error 0x3")
  P(0x0108, STREAM_STOP_RECEIVED, "Stream", NONE, stream_stop_received, "error 0x3")
  P(0x0109, STREAM_CLOSED, "Stream", NONE, stream_closed, "error 0x3")
  P(0x0200, CONNECTION_MAX_DATA_UPDATE, "FlowControl", NONE, connection_max_data_update, "3 B")
  P(0x0201, STREAM_MAX_DATA_UPDATE, "FlowControl", NONE, stream_max_data_update, "3 B")
  P(0x0202, CONNECTION_MAX_DATA_GRANTED, "FlowControl", NONE, connection_max_data_granted, "3 B")
  P(0x0203, STREAM_MAX_DATA_GRANTED, "FlowControl", NONE, stream_max_data_granted, "3 B")
  P(0x0204, CONNECTION_BLOCKED, "FlowControl", NONE, connection_blocked, "3 B")
  P(0x0205, STREAM_BLOCKED, "FlowControl", NONE, stream_blocked, "3 B")
  P(0x0206, PEER_BLOCKED, "FlowControl", NONE, peer_blocked, "3 B")
  S(0x0207, MAX_STREAMS_UPDATE, "FlowControl", NUMBER, max_streams_update, "3 streams", "3 streams, one way")
  S(0x0208, MAX_STREAMS_GRANTED, "FlowControl", NUMBER, max_streams_granted, "3 streams", "3 streams, one way")
  P(0x0300, CWND_UPDATED, "CongestionControl", NONE, cwnd_updated, "3 B")
  P(0x0301, SSTHRESH_UPDATED, "CongestionControl", NONE, ssthresh_updated, "3 B")
  P(0x0302, BYTES_IN_FLIGHT, "CongestionControl", NONE, bytes_in_flight, "3 B")
  P(0x0303, RTT_SAMPLE, "CongestionControl", RECORD, rtt_sample, "3 ns")
  P(0x0304, PACING_RATE, "CongestionControl", NONE, pacing_rate, "3 B/s")
  P(0x0305, DELIVERY_RATE, "CongestionControl", NONE, delivery_rate, "3 B/s")
  P(0x0306, SENDER_LIMITED, "CongestionControl", NONE, sender_limited, "connection credit")
  P(0x0307, CONGESTION_STATE, "CongestionControl", NONE, congestion_state, "recovery")
  P(0x0308, LOSS_TIMER_SET, "CongestionControl", NONE, loss_timer_set, "in 3 ns")
  P(0x0309, LOSS_TIMER_EXPIRED, "CongestionControl", NONE, loss_timer_expired, "3 in a row")
  P(0x030A, MTU_UPDATED, "CongestionControl", NONE, mtu_updated, "3 B")
  P(0x0800, CONNECTION_STATE, "Connection", NONE, connection_state, "established")
  P(0x0801, CONNECTION_CLOSED, "Connection", RECORD, connection_closed, "error 0x3")
  S(0x0802, KEY_UPDATED, "Connection", NUMBER, key_updated, "phase 3", "phase 3, the peer's")
  P(0x0803, VERSION_CHOSEN, "Connection", NONE, version_chosen, "0x3")
  P(0x0804, PATH_STATE, "Connection", NONE, path_state, "active")
  P(0x0805, SOCKET_BOUND, "Connection", NONE, socket_bound, "socket 3")
};
enum { ROWS = sizeof rows / sizeof *rows };

/* ---- what was recorded, and what the output must say ------------------------------------------- */

typedef struct expected {
  uint64_t ts, flow, type, payload;
  const char *name_csv, *name_json, *category;
  const char *extension_csv, *extension_json; /* as printed */
  const char *text;                           /* the line's end, NULL: not looked at */
  char number[24];
  unsigned row;                               /* which test it belongs to */
  int slots;                                  /* extension slots in the file; -1: SIZED; -2: not looked at */
} expected;

static expected all[2048];
static size_t count;
static uint64_t now_ns = 1000000;
static ojo_tracer *tracer;

static expected *expect(unsigned test, uint64_t flow, uint64_t type, const char *name, const char *category,
                        uint64_t payload, int slots) {
  expected *e = &all[count++];
  e->ts = now_ns;
  e->flow = flow;
  e->type = type;
  e->name_csv = e->name_json = name;
  e->category = category;
  e->payload = payload;
  e->extension_csv = "";
  e->extension_json = "null";
  e->row = test;
  e->slots = slots;
  return e;
}

static uint64_t tick(void) { /* the next event's time */
  now_ns += 1000003;
  return now_ns;
}

static void expect_row(unsigned i, uint64_t flow, uint64_t payload, bool sized, uint64_t size) {
  const row *r = &rows[i];
  bool fits = payload < UINT64_C(1) << 44 && size < 1 << 20;
  expected *e = expect(i, flow, r->value, r->name, r->category, payload, !sized ? 0 : fits ? -1 : 1);
  if (!sized) {
    if (payload == 3) e->text = r->text;
    return;
  }
  snprintf(e->number, sizeof e->number, "%llu",
           (unsigned long long)(r->kind == RANGE ? payload + size : size)); /* a range's exclusive end */
  e->extension_csv = e->extension_json = e->number;
  if (payload == 3 && size == 4) e->text = r->text_sized;
}

static const struct {
  uint64_t value, size;
} values[] = {
  {3, 4},
  {0, 0},
  {(UINT64_C(1) << 44) - 1, (1 << 20) - 1}, /* the last that fit 24 bytes */
  {UINT64_C(1) << 44, 1},
  {1, 1 << 20},
  {UINT64_MAX - 10, 10},
  {UINT64_C(1) << 44, UINT64_C(1) << 40},
};
enum { VALUES = sizeof values / sizeof *values };

static void record_rows(void) {
  for (unsigned i = 0; i < ROWS; i++) {
    const row *r = &rows[i];
    uint32_t flow = 100 + i;
    static const uint64_t payloads[] = {3, 0, UINT64_MAX};
    for (unsigned k = 0; k < 3; k++) {
      ojo_set_now(tracer, tick());
      r->plain(tracer, flow, payloads[k]);
      expect_row(i, flow, payloads[k], false, 0);
      r->plain_at(tracer, tick(), flow, payloads[k]); /* the clock stands still meanwhile */
      expect_row(i, flow, payloads[k], false, 0);
    }
    for (unsigned k = 0; k < VALUES && r->sized; k++) {
      ojo_set_now(tracer, tick());
      r->sized(tracer, flow, values[k].value, values[k].size);
      expect_row(i, flow, values[k].value, true, values[k].size);
      r->sized_at(tracer, tick(), flow, values[k].value, values[k].size);
      expect_row(i, flow, values[k].value, true, values[k].size);
    }
  }
}

/* ---- records, flows, the application's own types ----------------------------------------------- */

enum { TYPE_NONE = 0x010000, TYPE_NUMBER, TYPE_RANGE, TYPE_TEXT, TYPE_BYTES, TYPE_UNKNOWN = 0x7FFFFF };
static const ojo_type types[] = {
  {TYPE_NONE, "FEC_REPAIRED", "Fec", "a packet came back by FEC", OJO_VALUE_NONE},
  {TYPE_NUMBER, "QUEUE_DEPTH", NULL, NULL, OJO_VALUE_NUMBER},
  {TYPE_RANGE, "CACHE_RANGE", "Cache", "bytes kept", OJO_VALUE_RANGE},
  {TYPE_TEXT, "NOTE, \"quoted\"", "Gr\xC3\xBC\xC3\x9F" "e", "line one\nline two\\", OJO_VALUE_TEXT},
  {TYPE_BYTES, "NONCE_LENGTHS", "Fec", "", OJO_VALUE_BYTES},
};

enum { TEST_RECORDS = ROWS, TEST_FLOW, TEST_TYPES, TEST_COUNT };
static const char *const test_names[] = {"RTT_SAMPLE and CONNECTION_CLOSED with values", "FLOW", "custom types"};

static expected *record_of(unsigned test, uint64_t type, const char *name, const char *category,
                           uint64_t payload, int slots, const char *csv, const char *json) {
  expected *e = expect(test, 77, type, name, category, payload, slots);
  e->extension_csv = csv;
  e->extension_json = json;
  return e;
}

static void record_records(void) {
  static const unsigned char timeout_application[] = {2, 1, 0, 0};
  ojo_rtt_sample_full_at(tracer, tick(), 77, 46900000, 45000000, 40000000, UINT64_MAX);
  record_of(TEST_RECORDS, 0x0303, "RTT_SAMPLE", "CongestionControl", 46900000, 1,
            "smoothed_ns=45000000 min_ns=40000000 variation_ns=18446744073709551615",
            "{\"smoothed_ns\":45000000,\"min_ns\":40000000,\"variation_ns\":18446744073709551615}");
  ojo_set_now(tracer, tick());
  ojo_flow_close(tracer, 77, 0, NULL);
  record_of(TEST_RECORDS, 0x0801, "CONNECTION_CLOSED", "Connection", 0, 1, "by=us layer=transport",
            "{\"by\":\"us\",\"layer\":\"transport\",\"reason\":null}");
  ojo_set_now(tracer, tick());
  ojo_flow_close(tracer, 77, 11, "no \"route\", a=b");
  record_of(TEST_RECORDS, 0x0801, "CONNECTION_CLOSED", "Connection", 11, 1,
            "\"by=us layer=transport reason=\"\"no \\\"\"route\\\"\", a=b\"\"\"",
            "{\"by\":\"us\",\"layer\":\"transport\",\"reason\":\"no \\\"route\\\", a=b\"}");
  ojo_record_ext_at(tracer, tick(), 77, OJO_CONNECTION_CLOSED, 12, timeout_application, 4);
  record_of(TEST_RECORDS, 0x0801, "CONNECTION_CLOSED", "Connection", 12, 1, "by=timeout layer=application",
            "{\"by\":\"timeout\",\"layer\":\"application\",\"reason\":null}");
  ojo_packet_retransmit_at(tracer, tick(), 77, 5, UINT64_C(1) << 50); /* one call, two events, one time */
  expect(TEST_RECORDS, 77, 0x0006, "PACKET_RETRANSMIT_OLD", "Packet", 5, 0);
  expect(TEST_RECORDS, 77, 0x0007, "PACKET_RETRANSMIT_NEW", "Packet", UINT64_C(1) << 50, 0);
}

static void record_flows(void) {
  static const unsigned char v4[] = {127, 0, 0, 1}, other4[] = {192, 0, 2, 9};
  static const unsigned char v6[] = {0x20, 1, 0xD, 0xB8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1};
  static const unsigned char any6[16] = {0};
  ojo_flow_desc desc = {0};
  expected *e;
  static char child_csv[200], child_json[300];

  desc.role = OJO_ROLE_CLIENT;
  desc.key = 0;
  desc.id = "\x01\xAB\xFF";
  desc.id_bytes = 3;
  desc.local_address = v4;
  desc.remote_address = other4;
  desc.address_bytes = 4;
  desc.local_port = 50000;
  desc.remote_port = 443;
  desc.protocol = "quic";
  desc.label = "to the origin";
  ojo_set_now(tracer, tick());
  uint32_t root = ojo_flow_open(tracer, &desc);
  e = expect(TEST_FLOW, root, 0xFF04, "FLOW", "Meta", 0, -2);
  e->extension_csv = "\"parent=0 kind=connection role=client id=01abff local_address=127.0.0.1 remote_address=192.0.2.9 "
                     "local_port=50000 remote_port=443 protocol=quic label=\"\"to the origin\"\"\"";
  e->extension_json = "{\"parent\":0,\"kind\":\"connection\",\"role\":\"client\",\"id\":\"01abff\","
                      "\"local_address\":\"127.0.0.1\",\"remote_address\":\"192.0.2.9\",\"local_port\":50000,"
                      "\"remote_port\":443,\"protocol\":\"quic\",\"label\":\"to the origin\"}";
  memset(&desc, 0, sizeof desc);
  desc.role = OJO_ROLE_SERVER;
  desc.local_address = v6;
  desc.remote_address = any6;
  desc.address_bytes = 16;
  desc.local_port = 443;
  desc.key = UINT64_MAX;
  ojo_set_now(tracer, tick());
  uint32_t server = ojo_flow_open(tracer, &desc);
  check(server != root, "two flows have two ids");
  e = expect(TEST_FLOW, server, 0xFF04, "FLOW", "Meta", UINT64_MAX, -2);
  e->extension_csv = "parent=0 kind=connection role=server local_address=2001:db8::1 remote_address=:: local_port=443 remote_port=0";
  e->extension_json = "{\"parent\":0,\"kind\":\"connection\",\"role\":\"server\",\"id\":null,"
                      "\"local_address\":\"2001:db8::1\",\"remote_address\":\"::\",\"local_port\":443,"
                      "\"remote_port\":0,\"protocol\":null,\"label\":null}";
  memset(&desc, 0, sizeof desc);
  desc.parent = root;
  desc.kind = OJO_FLOW_SPACE;
  desc.key = 2;
  ojo_set_now(tracer, tick());
  uint32_t space = ojo_flow_open(tracer, &desc);
  snprintf(child_csv, sizeof child_csv, "parent=%u kind=space", root);
  snprintf(child_json, sizeof child_json,
           "{\"parent\":%u,\"kind\":\"space\",\"role\":null,\"id\":null,\"local_address\":null,"
           "\"remote_address\":null,\"local_port\":null,\"remote_port\":null,\"protocol\":null,\"label\":null}", root);
  e = expect(TEST_FLOW, space, 0xFF04, "FLOW", "Meta", 2, -2);
  e->extension_csv = child_csv;
  e->extension_json = child_json;

  ojo_set_now(tracer, tick());
  uint32_t stream = ojo_flow_stream(tracer, root, 8);
  expect(TEST_FLOW, stream, 0x0100, "STREAM_OPENED", "Stream", 8, 0);
  expect(TEST_FLOW, stream, 0x0101, "STREAM_LINK_PARENT", "Stream", root, 0);
}

static void record_types(void) {
  static const char long_text[] = "abc, \"d\"\nGr\xC3\xBC\xC3\x9F" "e";
  static const unsigned char bytes[] = {3, 0, 0xDE, 0xAD, 0x01};
  expected *e;
  ojo_set_now(tracer, tick());
  ojo_record(tracer, 5, TYPE_NONE, 1);
  expect(TEST_TYPES, 5, 65536, "FEC_REPAIRED", "Fec", 1, 0);
  ojo_record_sized_at(tracer, tick(), 5, TYPE_NUMBER, 2, 9);
  e = expect(TEST_TYPES, 5, 65537, "QUEUE_DEPTH", "Application", 2, -1);
  e->extension_csv = e->extension_json = "9";
  ojo_record_sized_at(tracer, tick(), 5, TYPE_NUMBER, UINT64_MAX, UINT64_MAX);
  e = expect(TEST_TYPES, 5, 65537, "QUEUE_DEPTH", "Application", UINT64_MAX, 1);
  e->extension_csv = e->extension_json = "18446744073709551615";
  ojo_record_sized_at(tracer, tick(), 5, TYPE_RANGE, 10, 5);
  e = expect(TEST_TYPES, 5, 65538, "CACHE_RANGE", "Cache", 10, -1);
  e->extension_csv = e->extension_json = "15";
  ojo_record_sized_at(tracer, tick(), 5, TYPE_RANGE, 10, 1 << 20);
  e = expect(TEST_TYPES, 5, 65538, "CACHE_RANGE", "Cache", 10, 1);
  e->extension_csv = e->extension_json = "1048586";
  ojo_record_ext_at(tracer, tick(), 0, TYPE_TEXT, 3, long_text, strlen(long_text));
  e = expect(TEST_TYPES, 0, 65539, NULL, "Gr\xC3\xBC\xC3\x9F" "e", 3, 1);
  e->name_csv = "\"NOTE, \"\"quoted\"\"\"";
  e->name_json = "NOTE, \\\"quoted\\\"";
  e->extension_csv = "\"abc, \"\"d\"\"\nGr\xC3\xBC\xC3\x9F" "e\"";
  e->extension_json = "\"abc, \\\"d\\\"\\nGr\xC3\xBC\xC3\x9F" "e\"";
  ojo_record_ext_at(tracer, tick(), 0, TYPE_BYTES, 4, bytes, sizeof bytes);
  e = expect(TEST_TYPES, 0, 65540, "NONCE_LENGTHS", "Fec", 4, 1);
  e->extension_csv = "dead01";
  e->extension_json = "\"dead01\"";
  ojo_record_ext_at(tracer, tick(), 0, TYPE_BYTES, 4, bytes, 0); /* no bytes: no extension */
  expect(TEST_TYPES, 0, 65540, "NONCE_LENGTHS", "Fec", 4, 0);
  ojo_record_at(tracer, tick(), 0, TYPE_UNKNOWN, 6);
  expect(TEST_TYPES, 0, 0x7FFFFF, "0x7fffff", "Application", 6, 0);
}

/* ---- comparing --------------------------------------------------------------------------------- */

static const char *test_name(unsigned test) { return test < ROWS ? rows[test].name : test_names[test - ROWS]; }

/* Compares the lines after `header` with what `line` makes of each expectation. An expectation may span
 * several lines (quoted newlines). One test per type. */
static void compare(const char *format, const char *text, const char *header,
                    size_t (*line)(char *to, size_t room, const expected *e, bool last), const char *footer) {
  static bool ok[TEST_COUNT];
  static char want[4096];
  for (unsigned i = 0; i < TEST_COUNT; i++) ok[i] = true;
  size_t length = strlen(header);
  bool framed = strncmp(text, header, length) == 0;
  check(framed, "%s: begins with %.60s, not %.60s", format, header, text);
  const char *at = framed ? text + length : text;
  for (size_t i = 0; i < count; i++) {
    length = line(want, sizeof want, &all[i], i + 1 == count);
    if (strncmp(at, want, length) != 0) {
      if (ok[all[i].row])
        printf("%s, %s:\n  got  %.*s\n  want %s", format, test_name(all[i].row), (int)strcspn(at, "\n"), at, want);
      ok[all[i].row] = false;
      at += strcspn(at, "\n"); /* resynchronise at the next line */
      at += *at == '\n';
    } else {
      at += length;
    }
  }
  check(strcmp(at, footer) == 0, "%s: ends with %s, not %.100s", format, footer, at);
  for (unsigned i = 0; i < TEST_COUNT; i++) check(ok[i], "%s: %s", format, test_name(i));
}

static size_t csv_line(char *to, size_t room, const expected *e, bool last) {
  (void)last;
  return (size_t)snprintf(to, room, "%llu,%llu,%llu,%s,%s,%llu,1,%s\n", (unsigned long long)e->ts,
                          (unsigned long long)e->flow, (unsigned long long)e->type, e->name_csv, e->category,
                          (unsigned long long)e->payload, e->extension_csv);
}

static size_t ndjson_line(char *to, size_t room, const expected *e, bool last) {
  (void)last;
  return (size_t)snprintf(to, room,
                          "{\"timestamp_ns\":%llu,\"flow_id\":%llu,\"event_type\":%llu,\"name\":\"%s\","
                          "\"category\":\"%s\",\"payload\":%llu,\"thread_id\":1,\"extension\":%s}\n",
                          (unsigned long long)e->ts, (unsigned long long)e->flow, (unsigned long long)e->type,
                          e->name_json, e->category, (unsigned long long)e->payload, e->extension_json);
}

static size_t json_line(char *to, size_t room, const expected *e, bool last) {
  size_t length = ndjson_line(to, room, e, last);
  if (last) return length;
  to[length - 1] = ',';
  to[length] = '\n';
  to[length + 1] = 0;
  return length + 1;
}

/* Text is for people: each event's line must hold its name and end with what the table says. */
static void compare_text(const char *text) {
  static bool ok[TEST_COUNT];
  const char *at = text;
  for (unsigned i = 0; i < TEST_COUNT; i++) ok[i] = true;
  for (size_t i = 0; i < count; i++) {
    const expected *e = &all[i];
    const char *name = e->row == TEST_TYPES && e->type == TYPE_TEXT ? "NOTE, \"quoted\"" : e->name_csv;
    const char *found = strstr(at, name);
    size_t length = found ? strcspn(found, "\n") : 0;
    if (!found) {
      printf("text: no line with %s in its place\n", name);
      ok[e->row] = false;
      continue;
    }
    if (e->text) {
      size_t ending = strlen(e->text) + 2;
      char want[200];
      snprintf(want, sizeof want, "  %s", e->text);
      if (length < ending || strncmp(found + length - ending, want, ending) != 0) {
        printf("text, %s: no \"%s\" at the end of: %.*s\n", name, e->text, (int)length, found);
        ok[e->row] = false;
      }
    }
    at = found + length;
  }
  for (unsigned i = 0; i < TEST_COUNT; i++) check(ok[i], "text: %s", test_name(i));
}

int main(void) {
  char dir[256];
  int code;
  const char *build = getenv("BUILD");
  if (!build) build = "build";
#define X(value, NAME, helper, category, KIND, payload, size) +1
  check(ROWS == 0 OJO_EVENTS(X), "the table here has every type: %d rows", ROWS);
#undef X
  for (unsigned i = 0; i < ROWS; i++)
    check(rows[i].constant == rows[i].value, "OJO_%s is 0x%04X, not 0x%04X", rows[i].name, rows[i].value,
          rows[i].constant);

  ojo_desc desc = {0};
  desc.dir = check_directory("types", dir, sizeof dir);
  desc.clock = OJO_CLOCK_MANUAL;
  desc.types = types;
  desc.type_count = sizeof types / sizeof *types;
  if (!check(ojo_open(&tracer, &desc) == OJO_OK && tracer, "ojo_open")) return check_end("types");
  record_rows();
  record_records();
  record_flows();
  record_types();
  ojo_stats stats = ojo_query_stats(tracer);
  check(stats.recorded == count && stats.dropped == 0, "%llu recorded, not %zu",
        (unsigned long long)stats.recorded, count);
  check(ojo_close(tracer) == OJO_OK, "ojo_close");

  check_event *events;
  size_t in_file = check_events(dir, &events);
  bool forms = in_file == count;
  for (size_t i = 0; i < count && i < in_file; i++)
    if (all[i].slots != -2 && (all[i].slots == -1) != events[i].has_size) forms = false;
    else if (all[i].slots >= 0 && events[i].extension_bytes != 24 * (unsigned)all[i].slots) forms = false;
  check(forms, "sizes are in 24 bytes where they fit, else in one extension slot");
  free(events);

  char *text = check_run(&code, "%s/ojo-cat -f csv %s", build, dir);
  check(code == 0, "ojo-cat -f csv exits 0, not %d", code);
  compare("csv", text, "timestamp_ns,flow_id,event_type,name,category,payload,thread_id,extension\n", csv_line, "");
  free(text);
  text = check_run(&code, "%s/ojo-cat -f ndjson %s", build, dir);
  check(code == 0, "ojo-cat -f ndjson exits 0, not %d", code);
  compare("ndjson", text, "", ndjson_line, "");
  free(text);
  text = check_run(&code, "%s/ojo-cat -f json %s", build, dir);
  check(code == 0, "ojo-cat -f json exits 0, not %d", code);
  char *events_at = strstr(text, ",\"events\":[\n");
  check(strncmp(text, "{\"trace\":{\"id\":\"", 16) == 0 && events_at, "json: one object with trace and events");
  if (events_at) compare("json", events_at, ",\"events\":[\n", json_line, "]}\n");
  free(text);
  text = check_run(&code, "%s/ojo-cat -f text %s", build, dir);
  check(code == 0, "ojo-cat -f text exits 0, not %d", code);
  compare_text(text);
  free(text);
  if (!check__failed) check_remove(dir);
  return check_end("types");
}
