/* SPDX-License-Identifier: MIT
 *
 * cat_make DIR - writes the input files of cat.sh, byte by byte, without the tracer and the reader:
 * what ojo-cat prints of them is compared with cat/'s files.
 *
 * cat_make --big FILE EVENTS - one file of a plain transfer, for measuring.
 * cat_make --flows FILE FLOWS - one event for each of so many flows.
 * cat_make --append DIR N - adds batch N with one event to a live directory, as a tracer does: by a rename.
 */
#include "../ojo.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#define START_UNIX UINT64_C(1700000000000000000)
#define START_MONOTONIC UINT64_C(5000000000000)

static unsigned char *bytes; /* of the file being made */
static size_t length, room, run_at;
static ojo_file_header header;
static ojo_run run;
static uint32_t thread;
static char schema[8192];

static void fail(const char *what) {
  perror(what);
  exit(1);
}

static void put(const void *from, size_t n) {
  if (length + n > room) {
    room = (length + n) * 2;
    bytes = realloc(bytes, room);
    if (!bytes) fail("cat_make");
  }
  if (n) memcpy(bytes + length, from, n);
  length += n;
}

static uint32_t crc32c(const unsigned char *p, size_t n) {
  uint32_t crc = UINT32_MAX;
  for (; n; n--, p++) {
    crc ^= *p;
    for (int bit = 0; bit < 8; bit++) crc = crc >> 1 ^ (crc & 1 ? 0x82F63B78u : 0);
  }
  return ~crc;
}

static void file_begin(uint8_t id, uint32_t pid, const char *command, uint64_t batch, const char *text) {
  static const char zeros[8];
  size_t n = strlen(text);
  length = 0;
  memset(&header, 0, sizeof header);
  memcpy(header.magic, OJO_FILE_MAGIC, 4);
  header.version = OJO_FILE_VERSION;
  header.flags = OJO_FILE_COMPLETE;
  header.slot_bytes = OJO_SLOT_BYTES;
  header.start_unix_ns = START_UNIX;
  header.start_monotonic_ns = START_MONOTONIC;
  header.schema_bytes = (uint32_t)n;
  header.header_bytes = (uint32_t)(sizeof header + (n + 7) / 8 * 8);
  if (n) {
    header.schema_id = UINT64_C(0xCBF29CE484222325);
    for (size_t i = 0; i < n; i++) header.schema_id = (header.schema_id ^ (unsigned char)text[i]) * UINT64_C(0x100000001B3);
  }
  memset(header.trace_id, id, 16);
  memset(header.boot_id, 0xB0, 16);
  header.pid = pid;
  header.clock = OJO_CLOCK_MANUAL;
  header.batch = batch;
  header.first_ts = UINT64_MAX;
  snprintf(header.command, sizeof header.command, "%.15s", command);
  put(&header, sizeof header);
  put(text, n);
  put(zeros, (8 - n % 8) % 8);
}

static void slot(uint64_t ts, uint32_t type, uint32_t flow, uint64_t payload) {
  ojo_event e = {ts, type, flow, payload};
  put(&e, sizeof e);
}

static void noted(uint64_t ts) {
  run.events++;
  if (ts < header.first_ts) header.first_ts = ts;
  if (ts > header.last_ts) header.last_ts = ts;
  if (ts > run.last_ts) run.last_ts = ts;
}

static void event(uint64_t ts, uint32_t type, uint32_t flow, uint64_t payload) {
  slot(ts, type, flow, payload);
  noted(ts);
}

static void sized(uint64_t ts, uint32_t type, uint32_t flow, uint64_t value, uint64_t size) {
  event(ts, type | OJO_SIZED, flow, value | size << OJO_SIZED_VALUE_BITS);
}

static void extended(uint64_t ts, uint32_t type, uint32_t flow, uint64_t payload, const void *from, size_t n) {
  static const unsigned char zeros[OJO_SLOT_BYTES];
  uint32_t slots = (uint32_t)((n + OJO_SLOT_BYTES - 1) / OJO_SLOT_BYTES);
  event(ts, type | slots << OJO_EXTENSION_SHIFT, flow, payload);
  put(from, n);
  put(zeros, slots * OJO_SLOT_BYTES - n);
}

static void text(uint64_t ts, uint32_t type, const char *from) { extended(ts, type, 0, 1, from, strlen(from)); }

static void number(uint64_t ts, uint32_t type, uint32_t flow, uint64_t payload, uint64_t n) {
  extended(ts, type, flow, payload, &n, sizeof n);
}

static void run_begin(uint32_t number_of_thread, uint64_t first_ts, uint64_t ordinal, const char *name) {
  char padded[24] = "";
  thread = number_of_thread;
  memset(&run, 0, sizeof run);
  run.first_ordinal = ordinal;
  run.tid = 4200 + thread;
  run_at = length;
  slot(first_ts, OJO_RUN | 2u << OJO_EXTENSION_SHIFT, thread, 0);
  put(&run, sizeof run);
  slot(first_ts, OJO_THREAD | 1u << OJO_EXTENSION_SHIFT, thread, run.tid | (uint64_t)header.pid << 32);
  snprintf(padded, 16, "%s", name);
  put(padded, sizeof padded);
}

static void run_end(void) {
  uint64_t slots = (length - run_at) / OJO_SLOT_BYTES - 3;
  memcpy(bytes + run_at + offsetof(ojo_event, payload), &slots, 8);
  memcpy(bytes + run_at + OJO_SLOT_BYTES, &run, sizeof run);
}

static void save(const char *dir, const char *name) {
  char path[4096];
  header.slot_count = (length - header.header_bytes) / OJO_SLOT_BYTES;
  if (header.first_ts == UINT64_MAX) header.first_ts = 0;
  header.crc = 0;
  header.crc = crc32c((const unsigned char *)&header, sizeof header);
  memcpy(bytes, &header, sizeof header);
  snprintf(path, sizeof path, "%s%s%s", dir, *dir ? "/" : "", name);
  FILE *file = fopen(path, "wb");
  if (!file || fwrite(bytes, 1, length, file) != length || fclose(file) != 0) fail(path);
}

static void dropped(uint64_t first, uint64_t last, uint64_t count, uint32_t reason) {
  ojo_dropped d = {first, last, reason, 0};
  extended(first, OJO_EVENTS_DROPPED, thread, count, &d, sizeof d);
}

static void flow(uint64_t ts, uint32_t id, uint32_t parent, uint8_t kind, uint8_t role, uint64_t key,
                 const char *address, const char *label) { /* address: "id" + local + remote, or "" */
  unsigned char x[256];
  ojo_flow_record r = {parent, kind, role, 0, 0, 0, 0, 0, (uint8_t)strlen(label), 0, 0};
  size_t n = sizeof r;
  if (*address) {
    static const unsigned char v4[] = {127, 0, 0, 1, 10, 0, 0, 255};
    static const unsigned char v6[] = {0xFE, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x12, 0x34,
                                       0x20, 1, 0xD, 0xB8, 0, 0, 0, 1, 0, 1, 0, 0, 0, 0, 0, 1};
    bool four = strcmp(address, "v4") == 0;
    r.id_bytes = 8;
    r.address_bytes = four ? 4 : 16;
    r.local_port = 40000;
    r.remote_port = 4433;
    r.protocol_bytes = 4;
    memcpy(x + n, "\xC0\xFF\xEE\x01\x02\x03\x04\x05", 8);
    memcpy(x + n + 8, four ? v4 : v6, four ? 8 : 32);
    n += 8 + (four ? 8u : 32u);
    memcpy(x + n, "quic", 4);
    n += 4;
  }
  memcpy(x, &r, sizeof r);
  memcpy(x + n, label, strlen(label));
  extended(ts, OJO_FLOW, id, key, x, n + strlen(label));
}

/* One connection: packet 1 is lost and sent again as 3, 3 is lost by timeout and sent again as 4; packet 2
 * is declared lost wrongly. Two batches, two threads. */
static void make_story(const char *dir) {
  const uint32_t c = 5, s = ojo_flow_child(c, 64 + 4);
  const uint64_t ms = 1000000;
  ojo_rtt rtt = {40 * ms, 39 * ms, 2 * ms};
  const unsigned char closed[] = "\x01\x01\x08\x00" "all done";
  file_begin(0x11, 77, "transfer", 0, "");
  run_begin(1, 1 * ms, 0, "sender");
  flow(1 * ms, c, 0, OJO_FLOW_CONNECTION, OJO_ROLE_CLIENT, 0, "v4", "client");
  event(1 * ms, OJO_CONNECTION_STATE, c, OJO_CONNECTION_ESTABLISHED);
  event(2 * ms, OJO_STREAM_OPENED, s, 4);
  event(2 * ms, OJO_STREAM_LINK_PARENT, s, c);
  event(2 * ms, OJO_CWND_UPDATED, c, 12000);
  for (uint64_t i = 0; i < 3; i++) {
    uint64_t at = 3 * ms + i * 1000;
    sized(at, OJO_OFFSET_SENT, s, i * 1200, 1200);
    sized(at, OJO_PACKET_SENT, c, i, 1252);
    event(at, OJO_BYTES_IN_FLIGHT, c, (i + 1) * 1252);
  }
  sized(43 * ms, OJO_ACK_RECEIVED, c, 0, 1);
  sized(43 * ms, OJO_PACKET_ACKED, c, 0, 1252);
  extended(43 * ms, OJO_RTT_SAMPLE, c, 40 * ms, &rtt, sizeof rtt);
  event(43 * ms, OJO_CWND_UPDATED, c, 13252);
  sized(44 * ms + 500000, OJO_PACKET_LOST_DUPLICATE_ACK, c, 1, 1252);
  sized(44 * ms + 500000, OJO_PACKET_LOST_TIME, c, 2, 1252);
  event(44 * ms + 500000, OJO_CONGESTION_STATE, c, OJO_CONGESTION_RECOVERY);
  event(44 * ms + 500000, OJO_CWND_UPDATED, c, 6626);
  event(44 * ms + 500000, OJO_SSTHRESH_UPDATED, c, 6626);
  event(45 * ms, OJO_PACKET_RETRANSMIT_OLD, c, 1);
  event(45 * ms, OJO_PACKET_RETRANSMIT_NEW, c, 3);
  sized(45 * ms, OJO_OFFSET_RETRANSMITTED, s, 1200, 1200);
  sized(45 * ms, OJO_PACKET_SENT, c, 3, 1252);
  event(46 * ms, OJO_SENDER_LIMITED, c, OJO_LIMITED_CWND);
  run_end();
  run_begin(2, 10 * ms, 0, "receiver");
  sized(10 * ms, OJO_PACKET_RECEIVED, c, 0, 60);
  sized(11 * ms, OJO_ACK_SENT, c, 0, 25);
  sized(12 * ms, OJO_DATAGRAM_SENT, 0, 12520, 10);
  dropped(20 * ms, 25 * ms, 12, OJO_DROP_POOL_FULL);
  run_end();
  save(dir, "story/output/trace_5000000000_0.bin");

  file_begin(0x11, 77, "transfer", 1, "");
  run_begin(1, 50 * ms, 28, "sender");
  sized(50 * ms, OJO_PACKET_LOST_SPURIOUS, c, 2, 1252);
  sized(50 * ms, OJO_PACKET_ACKED, c, 2, 1252);
  event(245 * ms, OJO_LOSS_TIMER_EXPIRED, c, 1);
  sized(245 * ms, OJO_PACKET_LOST_TIMEOUT, c, 3, 1252);
  event(245 * ms + 1000, OJO_PACKET_RETRANSMIT_OLD, c, 3);
  event(245 * ms + 1000, OJO_PACKET_RETRANSMIT_NEW, c, 4);
  sized(245 * ms + 1000, OJO_OFFSET_RETRANSMITTED, s, 1200, 1200);
  sized(245 * ms + 1000, OJO_PACKET_SENT, c, 4, 1252);
  sized(285 * ms, OJO_PACKET_ACKED, c, 4, 1252);
  sized(285 * ms, OJO_OFFSET_ACKED, s, 1200, 1200);
  event(286 * ms, OJO_STREAM_CLOSED, s, 0);
  extended(290 * ms, OJO_CONNECTION_CLOSED, c, 0, closed, sizeof closed - 1);
  run_end();
  save(dir, "story/output/trace_5000000000_1.bin");

  /* the far end, on the same machine: another trace, its own flow ids, the same connection id */
  file_begin(0x22, 78, "serve", 0, "");
  run_begin(1, 1 * ms, 0, "server");
  flow(1 * ms, 9, 0, OJO_FLOW_CONNECTION, OJO_ROLE_SERVER, 0, "v4", "server");
  sized(23 * ms, OJO_PACKET_RECEIVED, 9, 0, 1252);
  sized(23 * ms + 2000, OJO_PACKET_RECEIVED, 9, 2, 1252);
  sized(24 * ms, OJO_ACK_SENT, 9, 2, 1000);
  sized(265 * ms, OJO_PACKET_RECEIVED, 9, 4, 1252);
  run_end();
  save(dir, "peer/output/trace_5000000001_0.bin");
}

static void snapshot_begin(uint64_t batch, uint8_t flags) {
  file_begin(0x44, 5, "flight", batch, "");
  header.flags = (uint8_t)(OJO_FILE_COMPLETE | flags);
}
static void snapshot_run(uint64_t first, uint64_t end, uint64_t overwritten, uint64_t lost) {
  ojo_dropped d = {0, first * 1000, OJO_DROP_OVERWRITTEN, 0}, l = {150000, 160000, OJO_DROP_NESTING, 0};
  run_begin(1, 0, first + lost, "recorder");
  run.lost_before = lost;
  if (overwritten) extended(0, OJO_EVENTS_DROPPED, 1, overwritten, &d, sizeof d);
  if (lost) extended(150000, OJO_EVENTS_DROPPED, 1, lost, &l, sizeof l);
  for (uint64_t i = first; i < end; i++) sized(i * 1000, OJO_PACKET_SENT, 1, i, 1200);
  run_end();
}
/* Of a flight recorder: three snapshots that overlap, with a gap before the last, and what was recovered after a
 * crash. 400 events were recorded, of which 100..349 and 380..399 are there; 5 were lost behind 150. */
static void make_snapshots(const char *dir) {
  snapshot_begin(0, OJO_FILE_SNAPSHOT);
  snapshot_run(100, 150, 100, 0);
  save(dir, "flight/output/trace_5000000003_0.bin");
  snapshot_begin(1, OJO_FILE_SNAPSHOT);
  snapshot_run(120, 150, 120, 0);
  snapshot_run(150, 350, 0, 5);
  save(dir, "flight/output/trace_5000000003_1.bin");
  snapshot_begin(2, OJO_FILE_SNAPSHOT);
  snapshot_run(380, 390, 380, 5);
  save(dir, "flight/output/trace_5000000003_2.bin");
  snapshot_begin(3, OJO_FILE_RECOVERED | OJO_FILE_SNAPSHOT);
  snapshot_run(380, 400, 380, 5);
  save(dir, "flight/output/trace_5000000003_3.bin");
}

/* Two ends with one clock, so coarse that a packet comes in when it is sent; both call the connection 5. The
 * near end's second path has the connection's id too, and gets a packet of the same number. */
static void make_twins(const char *dir) {
  file_begin(0x99, 11, "near", 0, "");
  run_begin(1, 0, 0, "");
  flow(0, 5, 0, OJO_FLOW_CONNECTION, OJO_ROLE_CLIENT, 0, "v4", "near");
  flow(0, 6, 5, OJO_FLOW_PATH, 0, 1, "v4", "");
  sized(1000, OJO_PACKET_SENT, 5, 3, 1200);
  sized(1000, OJO_PACKET_ACKED, 5, 3, 1200);
  sized(2000, OJO_PACKET_RECEIVED, 6, 3, 77);
  dropped(3000, 3000, 1, OJO_DROP_POOL_FULL);
  run_end();
  save(dir, "near.bin");
  file_begin(0xAA, 12, "far", 0, "");
  run_begin(1, 0, 0, "");
  flow(0, 5, 0, OJO_FLOW_CONNECTION, OJO_ROLE_SERVER, 0, "v4", "far");
  sized(1000, OJO_PACKET_RECEIVED, 5, 3, 1200);
  run_end();
  save(dir, "far.bin");
}

/* A run that lies about its first time: its event comes late. */
static void make_late(const char *dir) {
  file_begin(0xBB, 1, "late", 0, "");
  run_begin(1, 100, 0, "");
  event(5, OJO_PACKET_SENT, 1, 0);
  run_end();
  run_begin(2, 10, 0, "");
  event(10, OJO_PACKET_SENT, 1, 1);
  event(50, OJO_PACKET_SENT, 1, 2);
  run_end();
  save(dir, "late.bin");
}

/* Every value kind of the application's types, with the strings that break formats. */
static void make_hostile(const char *dir) {
  enum { NONE = 0x010000, NUMBER, RANGE, TEXT, BYTES, RECORD, NOWHERE };
  const unsigned char five[] = {5, 0, 0xDE, 0xAD, 0xBE, 0xEF, 0x00};
  const unsigned char too_long[] = {255, 255, 0xAB, 0xCD};
  const unsigned char rest[] = "\x09\x07\x05\x00" "a=b c\"\\\n\x1b[31m\xFF";
  static const char *const texts[] = {
    "plain", "comma, quote \" and\nnewline", "cr\rtab\t", "\x1b]0;owned\x07\x1b[31mred", "Gr\xC3\xBC\xC3\x9F" "e \xE2\x82\xAC \xF0\x9F\x98\x80",
    "bad \xFF\xC3(\xE2\x82\xED\xA0\x80 end", "\xC2\x9B" "31m c1, \xE2\x80\xAE rtl, \xE2\x80\xA8 ls, del \x7F", "=1+1", " spaces "};
  snprintf(schema, sizeof schema,
           "{\"events\":[{\"value\":65536,\"name\":\"APP_NONE\",\"category\":\"App, \\\"quoted\\\"\",\"description\":\"\",\"value_kind\":\"none\"},"
           "{\"value\":65537,\"name\":\"APP_NUMBER\",\"category\":\"Application\",\"description\":\"n\",\"value_kind\":\"number\"},"
           "{\"value\":65538,\"name\":\"APP_RANGE\",\"category\":\"Application\",\"description\":\"\",\"value_kind\":\"range\"},"
           "{\"value\":65539,\"name\":\"APP_\\u001b[31mTEXT\\n\",\"category\":\"Gr\xC3\xBC\xC3\x9F" "e\",\"description\":\"\",\"value_kind\":\"text\"},"
           "{\"value\":65540,\"name\":\"APP_BYTES\",\"category\":\"Application\",\"description\":\"\",\"value_kind\":\"bytes\"},"
           "{\"value\":65541,\"name\":\"APP_RECORD\",\"category\":\"Application\",\"description\":\"\",\"value_kind\":\"record\"}]}");
  file_begin(0x33, 1, "ho\x1b[31mst\xFFile", 0, schema);
  run_begin(1, 1, 0, "\x1b[2Jthread");
  flow(1, 3, 0, OJO_FLOW_CONNECTION, OJO_ROLE_SERVER, UINT64_MAX, "v6", "la\x1b[31mbel \"x\"\xFF");
  event(1000, NONE, 3, 1);
  number(2000, NONE, 3, 1, 2); /* more than its kind says */
  sized(3000, NUMBER, 3, 7, 8);
  number(4000, NUMBER, 3, UINT64_MAX, UINT64_MAX);
  event(5000, NUMBER, 3, 9);
  sized(6000, RANGE, 3, 100, 20);
  number(7000, RANGE, 3, UINT64_C(1) << 53, (UINT64_C(1) << 53) + 1);
  for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) text(8000 + i, TEXT, texts[i]);
  event(8500, TEXT, 3, 2);
  extended(9000, BYTES, 3, 1, five, sizeof five);
  extended(9001, BYTES, 3, 1, too_long, sizeof too_long);
  extended(9002, RECORD, 3, 1, five, sizeof five);
  extended(9003, NOWHERE, 3, 1, five, sizeof five);
  event(9004, NOWHERE, 3, UINT64_MAX);
  event(9005, 0x04FF, 3, 1);
  extended(9006, OJO_CONNECTION_CLOSED, 3, 5, rest, sizeof rest - 1);
  extended(9007, OJO_RTT_SAMPLE, 3, 5, five, sizeof five); /* its 24 bytes are there, but nonsense */
  event(9008, OJO_RTT_SAMPLE, 3, 1234567);
  run_end();
  save(dir, "hostile.bin");
}

/* Rows as long as they get, many times over, so that they cross the ends of every buffer. */
static void make_long(const char *dir) {
  static const unsigned char fill[] = {'"', 0x01, 0xFF, ','};
  static unsigned char filled[4][OJO_EXTENSION_BYTES_MAX];
  char name[3001];
  memset(name, 'N', sizeof name - 1);
  name[sizeof name - 1] = 0;
  snprintf(schema, sizeof schema,
           "{\"events\":[{\"value\":65536,\"name\":\"%s\",\"category\":\"%s\",\"description\":\"\",\"value_kind\":\"text\"}]}",
           name, name);
  file_begin(0x88, 1, "long", 0, schema);
  run_begin(1, 0, 0, "");
  for (uint64_t i = 0; i < 100; i++) {
    memset(filled[i % 4], fill[i % 4], OJO_EXTENSION_BYTES_MAX);
    extended(i, 65536, UINT32_MAX, UINT64_MAX, filled[i % 4], OJO_EXTENSION_BYTES_MAX);
    memcpy(filled[i % 4], "\1\0\xFF\xFF", 4);
    extended(i, OJO_CONNECTION_CLOSED, UINT32_MAX, UINT64_MAX, filled[i % 4], OJO_EXTENSION_BYTES_MAX);
  }
  run_end();
  save(dir, "long.bin");
}

static void make_numbers(const char *dir) {
  static const uint64_t values[] = {0, 1, 9, 10, 99, 100, 999, 1000, 9999, 10000, 99999, 100000, 999999, 1000000,
                                    9999999, 10000000, 99999999, 100000000, 100000001, 9999999999999999,
                                    10000000000000000, UINT64_C(10000000000000001), UINT64_C(1) << 53,
                                    (UINT64_C(1) << 53) + 1, UINT64_C(9999999999999999999),
                                    UINT64_C(10000000000000000000), UINT64_MAX};
  file_begin(0x44, 1, "numbers", 0, "");
  run_begin(1, 0, 0, "");
  for (size_t i = 0; i < sizeof values / sizeof *values; i++) {
    uint64_t ts = i * UINT64_C(33333333);
    number(ts, OJO_PACKET_SENT, (uint32_t)values[i], values[i], values[i]);
  }
  run_end();
  save(dir, "numbers.bin");
}

/* What the kernel's probes record. */
static void kernel_meanings(uint64_t ts) {
  ojo_kernel_connection c = {.cookie = 77, .pid = 4242, .local_port = 443, .remote_port = 50000, .protocol = 6,
                             .address_bytes = 4, .state = 1, .flags = OJO_KERNEL_PASSIVE, .netns = 4026531840u,
                             .command = "nginx: \"w\"", .local = {127, 0, 0, 1}, .remote = {192, 0, 2, 1}};
  ojo_kernel_totals totals = {1000, 2000, 3, 4, 5, 6};
  ojo_rtt rtt = {2000000, 1000000, 300};
  for (uint64_t i = 0; i < 14; i++) sized(ts++, OJO_KERNEL_TCP_STATE, 1, i, 1);
  for (uint64_t i = 0; i < 6; i++) event(ts++, OJO_KERNEL_TCP_CONGESTION_STATE, 1, i);
  extended(ts++, OJO_KERNEL_CONNECTION, 1, 77, &c, sizeof c);
  extended(ts++, OJO_KERNEL_CONNECTION, 1, 77, &c, sizeof c - 1 - OJO_SLOT_BYTES); /* too short: as bytes */
  c.flags = OJO_KERNEL_PARTIAL, c.address_bytes = 16, c.protocol = 17, c.local[15] = 1;
  extended(ts++, OJO_KERNEL_CONNECTION, 1, 77, &c, sizeof c);
  event(ts++, OJO_SOCKET_BOUND, 1, 77);
  event(ts++, OJO_KERNEL_TCP_SEND, 1, 20000);
  sized(ts++, OJO_KERNEL_TCP_RETRANSMIT, 1, 1, 5);
  sized(ts++, OJO_KERNEL_TCP_RETRANSMIT, 1, 2, 7);
  extended(ts++, OJO_KERNEL_TCP_RTT, 1, 2000000, &rtt, sizeof rtt);
  sized(ts++, OJO_KERNEL_TCP_CWND, 1, 14480, 10);
  event(ts++, OJO_KERNEL_TCP_RESET_SENT, 1, 0);
  extended(ts++, OJO_KERNEL_TCP_FINISHED, 1, 0, &totals, sizeof totals);
  sized(ts++, OJO_KERNEL_UDP_SEND, 1, 1200, 1);
  sized(ts++, OJO_KERNEL_UDP_DROP, 1, 2400, 2);
  extended(ts++, OJO_KERNEL_UDP_FINISHED, 1, 0, &totals, sizeof totals);
  sized(ts++, OJO_KERNEL_OFF_CPU, 0, 99, 0);
  sized(ts++, OJO_KERNEL_OFF_CPU, 0, 99, 1);
  sized(ts++, OJO_KERNEL_ON_CPU, 0, 99, 1500);
  sized(ts++, OJO_KERNEL_ON_CPU, 0, 99, 0);
  sized(ts++, OJO_KERNEL_WAKEUP, 0, 99, 98);
  sized(ts, OJO_KERNEL_WAKEUP, 0, 99, 0);
}

/* One event of every state, and other types whose meaning `text` spells out. */
static void make_meanings(const char *dir) {
  uint64_t ts = 0;
  file_begin(0x55, 1, "meanings", 0, "");
  run_begin(1, 0, 0, "");
  for (uint64_t i = 0; i < 9; i++) event(ts++, OJO_SENDER_LIMITED, 1, i);
  for (uint64_t i = 0; i < 4; i++) event(ts++, OJO_CONGESTION_STATE, 1, i);
  for (uint64_t i = 1; i < 7; i++) event(ts++, OJO_CONNECTION_STATE, 1, i);
  for (uint64_t i = 1; i < 8; i++) event(ts++, OJO_PATH_STATE, 1, i);
  sized(ts++, OJO_PACKET_DROPPED, 1, 4, 60);
  event(ts++, OJO_PACKET_DROPPED, 1, UINT64_MAX);
  sized(ts++, OJO_ACK_RECEIVED, 1, 10, 5);
  sized(ts++, OJO_MAX_STREAMS_UPDATE, 1, 100, 1);
  sized(ts++, OJO_MAX_STREAMS_GRANTED, 1, 1, 0);
  sized(ts++, OJO_STREAM_RESET_SENT, 1, 257, 20000);
  event(ts++, OJO_STREAM_STOP_SENT, 1, 2);
  event(ts++, OJO_STREAM_CLOSED, 1, 0);
  event(ts++, OJO_STREAM_CLOSED, 1, 15);
  event(ts++, OJO_CONNECTION_MAX_DATA_UPDATE, 1, 1 << 20);
  event(ts++, OJO_PACING_RATE, 1, 125000000);
  event(ts++, OJO_LOSS_TIMER_SET, 1, 200000000);
  event(ts++, OJO_LOSS_TIMER_SET, 1, 0);
  event(ts++, OJO_MTU_UPDATED, 1, 1452);
  sized(ts++, OJO_KEY_UPDATED, 1, 1, 1);
  event(ts++, OJO_VERSION_CHOSEN, 1, 1);
  event(ts++, OJO_STREAM_FIN_SENT, 1, 4);
  event(ts++, OJO_OFFSET_SENT, 1, 5);
  event(ts++, OJO_ECN_CE_REPORTED, 1, 3);
  event(ts++, OJO_CWND_UPDATED, 1, 9999);
  event(ts++, OJO_CWND_UPDATED, 1, 10000);
  event(ts++, OJO_CWND_UPDATED, 1, UINT64_MAX);
  event(ts++, OJO_LOSS_TIMER_SET, 1, 999);
  event(ts++, OJO_LOSS_TIMER_SET, 1, 999999);
  event(ts++, OJO_LOSS_TIMER_SET, 1, UINT64_MAX);
  for (uint32_t i = 0; i < 11; i++, ts++) dropped(ts, ts + 1000, i + 1, i);
  kernel_meanings(ts);
  run_end();
  save(dir, "meanings.bin");
}

/* Version 1: 24 bytes of header, then records of 40 bytes; the names are in schema/. */
static void make_version_1(const char *dir) {
  static const uint64_t records[][5] = {{0, 7, 1, 100, 1200},
                                        {500, UINT64_C(1) << 40, 2, 101, 0},
                                        {1000, 7, 99, 1, 2},
                                        {1500, UINT64_MAX, UINT64_MAX, 33, 0}};
  struct { char magic[4]; uint8_t version, zero[3]; uint64_t start, schema; } head = {"ojo", 1, {0}, START_UNIX, 0xABC};
  char path[4096];
  snprintf(path, sizeof path, "%s/v1/raw/trace_1_0.bin", dir);
  FILE *file = fopen(path, "wb");
  if (!file || fwrite(&head, sizeof head, 1, file) != 1 || fwrite(records, sizeof records, 1, file) != 1 ||
      fclose(file) != 0)
    fail(path);
  snprintf(path, sizeof path, "%s/v1/schema/event_schema_0000000000000abc.json", dir);
  file = fopen(path, "wb");
  if (!file ||
      fputs("{\"schema_version\":1,\"events\":["
            "{\"value\":1,\"name\":\"PKT_OUT\",\"category\":\"Net\",\"description\":\"d\",\"module\":\"m\",\"value_type\":3},"
            "{\"value\":2,\"name\":\"PKT_IN\",\"category\":\"Net\",\"description\":\"d\",\"module\":\"m\",\"value_type\":0}]}",
            file) < 0 ||
      fclose(file) != 0)
    fail(path);
}

static void make_small(const char *dir, const char *name, uint64_t batch, uint64_t first) {
  file_begin(0x66, 5, "live", batch, "");
  run_begin(1, first, batch, "");
  sized(first, OJO_PACKET_SENT, 1, batch, 100);
  run_end();
  save(dir, name);
}

static void make_big(const char *path, uint64_t events) {
  static const uint32_t types[] = {OJO_OFFSET_SENT, OJO_PACKET_SENT, OJO_BYTES_IN_FLIGHT, OJO_PACKET_ACKED,
                                   OJO_OFFSET_ACKED, OJO_CWND_UPDATED, OJO_PACKET_RECEIVED, OJO_ACK_SENT};
  uint64_t ts = 0;
  file_begin(0x77, 9, "big", 0, "");
  for (uint64_t i = 0; i < events;) {
    run_begin(1 + (uint32_t)(i / 2700 % 2), ts, i, "worker");
    for (uint64_t k = 0; k < 2700 && i < events; k++, i++) {
      unsigned which = (unsigned)(i % 8);
      bool on_stream = which == 0 || which == 4;
      ts += 40 + i % 7;
      if (which == 2 || which == 5)
        event(ts, types[which], 5, 12000 + i % 100000);
      else
        sized(ts, types[which], on_stream ? 1073742853u : 5, on_stream ? i / 8 * 1200 : i / 8, 1200);
    }
    run_end();
  }
  save("", path);
}

static void make_flows(const char *path, uint64_t flows) {
  file_begin(0xCC, 9, "flows", 0, "");
  run_begin(1, 0, 0, "");
  for (uint64_t i = 0; i < flows; i++) event(i, OJO_PACKET_SENT, (uint32_t)i + 1, 0);
  run_end();
  save("", path);
}

int main(int argc, char **argv) {
  static const char *const dirs[] = {"", "/story", "/story/output", "/peer", "/peer/output", "/v1", "/v1/raw",
                                     "/v1/schema", "/live", "/live/output", "/empty", "/empty/output", "/flight",
                                     "/flight/output"};
  char path[4096];
  if (argc == 4 && strcmp(argv[1], "--big") == 0) {
    make_big(argv[2], strtoull(argv[3], NULL, 10));
  } else if (argc == 4 && strcmp(argv[1], "--flows") == 0) {
    make_flows(argv[2], strtoull(argv[3], NULL, 10));
  } else if (argc == 4 && strcmp(argv[1], "--append") == 0) {
    uint64_t n = strtoull(argv[3], NULL, 10);
    char final_path[4096];
    make_small(argv[2], "new", n, 1000000 * (n + 1));
    snprintf(path, sizeof path, "%s/new", argv[2]);
    snprintf(final_path, sizeof final_path, "%s/output/trace_5000000002_%" PRIu64 ".bin", argv[2], n);
    if (rename(path, final_path) != 0) fail(final_path);
  } else if (argc == 2) {
    for (size_t i = 0; i < sizeof dirs / sizeof *dirs; i++) {
      snprintf(path, sizeof path, "%s%s", argv[1], dirs[i]);
      mkdir(path, 0777);
    }
    make_story(argv[1]);
    make_twins(argv[1]);
    make_snapshots(argv[1]);
    make_late(argv[1]);
    make_hostile(argv[1]);
    make_long(argv[1]);
    make_numbers(argv[1]);
    make_meanings(argv[1]);
    make_version_1(argv[1]);
    make_small(argv[1], "live/output/trace_5000000002_0.bin", 0, 1000000);
  } else {
    fprintf(stderr, "usage: cat_make DIR | --big FILE EVENTS | --flows FILE FLOWS | --append DIR N\n");
    return 2;
  }
  free(bytes);
  return 0;
}
