/* SPDX-License-Identifier: MIT
 *
 * unit.c - the parts of ojo.h that are functions of their arguments, and the layout of what is in files.
 */
#define OJO_IMPLEMENTATION
#include "ojo.h"

#include "check.h"

#include <fcntl.h>

/* ---- layout: every size and offset of the file format ------------------------------------------ */

#define AT(type, field, offset) _Static_assert(offsetof(type, field) == (offset), #type "." #field)
#define SIZE(type, bytes) _Static_assert(sizeof(type) == (bytes), #type)

SIZE(ojo_event, 24);
AT(ojo_event, ts, 0);
AT(ojo_event, type, 8);
AT(ojo_event, flow, 12);
AT(ojo_event, payload, 16);
_Static_assert(_Alignof(ojo_event) == 8, "slots are 8-byte aligned");

SIZE(ojo_file_header, 144);
AT(ojo_file_header, magic, 0);
AT(ojo_file_header, version, 4);
AT(ojo_file_header, flags, 5);
AT(ojo_file_header, slot_bytes, 6);
AT(ojo_file_header, start_unix_ns, 8);
AT(ojo_file_header, schema_id, 16);
AT(ojo_file_header, header_bytes, 24);
AT(ojo_file_header, schema_bytes, 28);
AT(ojo_file_header, start_monotonic_ns, 32);
AT(ojo_file_header, trace_id, 40);
AT(ojo_file_header, pid, 56);
AT(ojo_file_header, clock, 60);
AT(ojo_file_header, batch, 64);
AT(ojo_file_header, slot_count, 72);
AT(ojo_file_header, first_ts, 80);
AT(ojo_file_header, last_ts, 88);
AT(ojo_file_header, boot_id, 96);
AT(ojo_file_header, command, 112);
AT(ojo_file_header, host_id, 128);
AT(ojo_file_header, anchor_error_ns, 136);
AT(ojo_file_header, crc, 140);

SIZE(ojo_run, 48);
AT(ojo_run, first_ordinal, 0);
AT(ojo_run, last_ts, 8);
AT(ojo_run, tid, 16);
AT(ojo_run, crc, 20);
AT(ojo_run, events, 24);
AT(ojo_run, flags, 28);
AT(ojo_run, level, 30);
AT(ojo_run, lost_before, 32);
AT(ojo_run, zero, 40);

SIZE(ojo_dropped, 24);
AT(ojo_dropped, first_ts, 0);
AT(ojo_dropped, last_ts, 8);
AT(ojo_dropped, reason, 16);
AT(ojo_dropped, source, 20);

SIZE(ojo_rtt, 24);
AT(ojo_rtt, smoothed_ns, 0);
AT(ojo_rtt, min_ns, 8);
AT(ojo_rtt, variation_ns, 16);

SIZE(ojo_flow_record, 24);
AT(ojo_flow_record, parent, 0);
AT(ojo_flow_record, kind, 4);
AT(ojo_flow_record, role, 5);
AT(ojo_flow_record, id_bytes, 6);
AT(ojo_flow_record, address_bytes, 7);
AT(ojo_flow_record, local_port, 8);
AT(ojo_flow_record, remote_port, 10);
AT(ojo_flow_record, protocol_bytes, 12);
AT(ojo_flow_record, label_bytes, 13);
AT(ojo_flow_record, zero16, 14);
AT(ojo_flow_record, zero64, 16);

AT(struct ojo_tracer, abi, 0);

_Static_assert(OJO_FILE_COMPLETE == 1 && OJO_FILE_RECOVERED == 2 && OJO_FILE_SNAPSHOT == 4 &&
                 OJO_FILE_CHECKSUMS == 8, "file flags");
_Static_assert(OJO_RUN_UNSORTED == 1 && OJO_RUN_HANDLER == 2 && OJO_RUN_RECOVERED == 4, "run flags");
_Static_assert(OJO_SIZED == 1u << 23 && OJO_TYPE_MASK == (1u << 23) - 1 && OJO_EXTENSION_SHIFT == 24 &&
                 OJO_SIZED_VALUE_BITS == 44 && OJO_SIZED_SIZE_BITS == 20, "the type word");
_Static_assert(OJO_DROP_POOL_FULL == 1 && OJO_DROP_BLOCK_TIMEOUT == 2 && OJO_DROP_OVERWRITTEN == 3 &&
                 OJO_DROP_NESTING == 4 && OJO_DROP_THREAD_TABLE == 5 && OJO_DROP_NEVER_WRITTEN == 6 &&
                 OJO_DROP_KERNEL_RING == 7 && OJO_DROP_DISK_LIMIT == 8, "reasons are in files");
_Static_assert(OJO_EVENTS_DROPPED == 0xFF01 && OJO_RUN == 0xFF02 && OJO_THREAD == 0xFF03 &&
                 OJO_FLOW == 0xFF04 && OJO_APPLICATION_TYPE_FIRST == 0x010000 &&
                 OJO_APPLICATION_TYPE_LAST == 0x7FFFFF, "meta types are in files");

/* ---- ojo_unwrap -------------------------------------------------------------------------------- */

static void test_unwrap(void) {
  static const struct {
    uint64_t last, wire;
    unsigned bits;
    uint64_t want;
  } table[] = {
    {UINT64_C(0xa82f30ea), 0x9b32, 16, UINT64_C(0xa82f9b32)}, /* RFC 9000, A.3 */
    {UINT64_MAX, 0, 16, 0},                /* nothing received yet: last + 1 is 0 */
    {UINT64_MAX, 5, 8, 5},
    {0, 1, 8, 1},
    {0, 0xFF, 8, 0xFF},                    /* can't be -1 */
    {0xFE, 0xFF, 8, 0xFF},
    {0xFF, 0x00, 8, 0x100},
    {0x100, 0xFF, 8, 0xFF},                /* a late one, from before the wrap */
    {0x17F, 0x01, 8, 0x101},               /* less than half a window behind 0x180 */
    {0x17F, 0x00, 8, 0x200},               /* half a window away: ahead, not behind */
    {0x17E, 0xFF, 8, 0x1FF},               /* exactly half ahead: ahead */
    {0x17F, 0x80, 8, 0x180},
    {0x17F, 0x7F, 8, 0x17F},               /* a duplicate */
    {65535, 0, 16, 65536},                 /* an RTP sequence number wraps */
    {65536, 65535, 16, 65535},
    {UINT64_C(0xFFFFFFFF), 0, 32, UINT64_C(0x100000000)},
    {UINT64_C(0x100000000), 0xFFFFFFFF, 32, UINT64_C(0xFFFFFFFF)},
    {UINT64_C(0x3FFFFFFFFFFFFFFE), 0xFF, 8, UINT64_C(0x3FFFFFFFFFFFFFFF)},
    {UINT64_C(0x3FFFFFFFFFFFFFFF), 0x00, 8, UINT64_C(0x4000000000000000)}, /* no limit at 2^62 */
    {UINT64_C(0xFFFFFFFFFFFFFFF0), 0xFF, 8, UINT64_MAX},
    {UINT64_C(0xFFFFFFFFFFFFFFF0), 0x10, 8, UINT64_C(0xFFFFFFFFFFFFFF10)}, /* not beyond 2^64 */
    {7, UINT64_C(0x123456789ABCDEF0), 64, UINT64_C(0x123456789ABCDEF0)},
    {7, 0x23, 4, 3},                       /* bits above are ignored: 0x3, expected 8: -5, +11 */
    {5, 1, 1, 7},
    {5, 0, 1, 6},
  };
  uint64_t seed = 1;
  bool ok = true;
  for (size_t i = 0; i < sizeof table / sizeof *table; i++) {
    uint64_t got = ojo_unwrap(table[i].last, table[i].wire, table[i].bits);
    check(got == table[i].want, "ojo_unwrap(0x%llx, 0x%llx, %u) is 0x%llx, not 0x%llx",
          (unsigned long long)table[i].last, (unsigned long long)table[i].wire, table[i].bits,
          (unsigned long long)table[i].want, (unsigned long long)got);
  }
  for (unsigned bits = 1; bits < 63; bits++) /* whatever lies in (expected - half, expected + half] */
    for (int i = 0; i < 1000; i++) {
      uint64_t window = UINT64_C(1) << bits, half = window / 2;
      uint64_t expected = window + (check_random(&seed) >> 1);
      uint64_t number = expected - half + 1 + check_random(&seed) % window;
      ok = ok && ojo_unwrap(expected - 1, number & (window - 1), bits) == number;
      ok = ok && ojo_unwrap(expected - 1, (expected + half) & (window - 1), bits) == expected + half;
    }
  check(ok, "ojo_unwrap finds every number within half a window, seed 1");
}

/* ---- ojo_flow_child ---------------------------------------------------------------------------- */

static int by_value(const void *a, const void *b) {
  uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
  return x < y ? -1 : x > y;
}

static unsigned collisions(uint32_t *ids, size_t count) {
  unsigned same = 0;
  qsort(ids, count, sizeof *ids, by_value);
  for (size_t i = 1; i < count; i++) same += ids[i] == ids[i - 1];
  return same;
}

static void test_flow_child(void) {
  static uint32_t ids[10000];
  static const size_t counts[] = {1000, 10000};
  uint64_t seed = 2;
  bool pure = true, low = true, bit31 = true, never0 = true, unlike = true;
  check(ojo_flow_child(0, 0) == 0 && ojo_flow_child(0, 1) == 0 && ojo_flow_child(0, UINT64_MAX) == 0,
        "a child of flow 0 is 0");
  for (int i = 0; i < 1000000; i++) {
    uint32_t parent = (uint32_t)check_random(&seed) | 1u << (i % 31);
    uint64_t key = check_random(&seed) >> (i % 60);
    uint32_t child = ojo_flow_child(parent, key);
    pure = pure && child == ojo_flow_child(parent, key);
    low = low && (child & 1023) == (parent & 1023);
    bit31 = bit31 && !(child >> 31);
    never0 = never0 && child != 0;
    unlike = unlike && child != ojo_flow_child(parent, key + 1);
  }
  check(pure, "ojo_flow_child is pure");
  check(low, "a child has its parent's low 10 bits");
  check(bit31, "a child's bit 31 is clear");
  check(never0, "a child is never 0");
  check(unlike, "neighbours differ");
  check((ojo_flow_child(ojo_flow_child(77, 3), 64 + 4) & 1023) == 77, "so has a grandchild");

  for (size_t c = 0; c < 2; c++) {
    for (uint64_t step = 1; step <= 4; step *= 4) { /* QUIC's stream ids go by 4 */
      unsigned worst = 0;
      for (uint32_t parent = 1; parent <= 50; parent++) {
        for (size_t i = 0; i < counts[c]; i++) ids[i] = ojo_flow_child(parent, 64 + i * step);
        unsigned same = collisions(ids, counts[c]);
        if (same > worst) worst = same;
      }
      check(worst <= (c == 0 ? 2 : 24), "%zu streams, ids by %u: %u collide", counts[c], (unsigned)step,
            worst);
      if (step == 1) printf("note: among %zu sibling streams at most %u pairs share an id\n", counts[c], worst);
    }
    for (size_t i = 0; i < counts[c]; i++) ids[i] = ojo_flow_child(5, check_random(&seed) >> 2);
    unsigned same = collisions(ids, counts[c]); /* 20 bits: n^2 / 2^21 = 0.5 and 48 pairs expected */
    check(same <= (c == 0 ? 6 : 100), "%zu random keys: %u collide, seed 2", counts[c], same);
  }
  size_t count = 0;
  for (uint32_t root = 1; root <= 1023; root++)
    for (uint64_t space = 1; space <= 3; space++) ids[count++] = ojo_flow_child(root, space);
  check(collisions(ids, count) == 0, "the spaces of 1,023 connections are all unlike");
}

/* ---- through a tracer: sampling, categories, metrics ------------------------------------------- */

static void quiet(void *user, const char *line) { (void)user, (void)line; }

static ojo_tracer *manual_tracer(const char *dir) {
  ojo_tracer *t = NULL;
  ojo_desc desc = {0};
  desc.dir = dir;
  desc.buffer_bytes = 4 << 20;
  desc.clock = OJO_CLOCK_MANUAL;
  desc.no_thread = true;
  desc.logger.log = quiet;
  ojo_result result = ojo_open(&t, &desc);
  check(result == OJO_OK && t, "ojo_open: %s", ojo_result_string(result));
  return t;
}

static void test_sampling(void) {
  static const uint32_t rates[] = {0, 1, 2, 3, 4, 7, 10, 100, 1000, 1024};
  char dir[256];
  check_event *events;
  for (size_t i = 0; i < sizeof rates / sizeof *rates; i++) {
    uint32_t n = rates[i], want = n < 2 ? 1024 : 1024 / n, flow0 = 0, roots = 0, children = 0;
    bool together = true;
    static bool kept[2048];
    ojo_tracer *t = manual_tracer(check_directory("unit", dir, sizeof dir));
    memset(kept, 0, sizeof kept);
    ojo_sample_flows(t, n);
    ojo_packet_sent(t, 0, 0);
    for (uint32_t flow = 1024; flow < 2048; flow++) {
      ojo_packet_sent(t, flow, flow);
      ojo_packet_sent_sized(t, ojo_flow_child(flow, 64), flow, 1);
    }
    ojo_stats stats = ojo_query_stats(t);
    check(stats.recorded == 1 + 2 * (uint64_t)want && stats.dropped == 0,
          "sampled-out events are in no count: %llu recorded", (unsigned long long)stats.recorded);
    check(ojo_close(t) == OJO_OK, "close");
    size_t count = check_events(dir, &events);
    for (size_t k = 0; k < count; k++) {
      if (events[k].flow == 0) flow0++;
      else if (!events[k].has_size) roots++, kept[events[k].payload] = true;
      else children++, together = together && kept[events[k].payload];
    }
    check(roots == want, "one flow in %u: %u of 1,024 are kept, not %u", n, want, roots);
    check(children == roots && together, "one flow in %u: a child is kept if its root is", n);
    check(flow0 == 1, "flow 0 is always kept");
    free(events);
    check_remove(dir);
  }
}

static void test_categories(void) {
  static const struct {
    uint32_t type;
    int bit;
    const char *name;
  } table[] = {
    {OJO_PACKET_SENT, OJO_CATEGORY_PACKET, "Packet"},
    {OJO_STREAM_OPENED, OJO_CATEGORY_STREAM, "Stream"},
    {OJO_CONNECTION_BLOCKED, OJO_CATEGORY_FLOW_CONTROL, "FlowControl"},
    {OJO_CWND_UPDATED, OJO_CATEGORY_CONGESTION_CONTROL, "CongestionControl"},
    {0x0400, OJO_CATEGORY_KERNEL_TCP, "KernelTCP"},
    {0x0500, OJO_CATEGORY_KERNEL_UDP, "KernelUDP"},
    {0x0600, OJO_CATEGORY_KERNEL_SCHEDULER, "KernelScheduler"},
    {OJO_COUNTER, OJO_CATEGORY_TELEMETRY, "Telemetry"},
    {OJO_PATH_STATE, OJO_CATEGORY_CONNECTION, "Connection"},
    {OJO_APPLICATION_TYPE_FIRST, OJO_CATEGORY_APPLICATION, "Application"},
    {OJO_APPLICATION_TYPE_LAST, OJO_CATEGORY_APPLICATION, "Application"},
  };
  enum { COUNT = sizeof table / sizeof *table };
  static const int bits[] = {1, 2, 4, 8, 16, 32, 64, 128, 256};
  char dir[256];
  check_event *events;
  bool in_order = true;
  for (int i = 0; i < 9; i++) in_order = in_order && table[i].bit == bits[i];
  check(in_order && OJO_CATEGORY_META == 1 << 15 && OJO_CATEGORY_APPLICATION == 1 << 16 &&
          OJO_CATEGORY_ALL == 0x1FFFF, "the categories' bits");
  for (int enabled = 0; enabled < COUNT; enabled++) {
    uint64_t want = 0, got = 0;
    ojo_tracer *t = manual_tracer(check_directory("unit", dir, sizeof dir));
    ojo_enable(t, (uint32_t)table[enabled].bit);
    for (int i = 0; i < COUNT; i++) {
      ojo_record(t, 7, table[i].type, 1);
      ojo_record_at(t, 1, 7, table[i].type, 2);
      ojo_record_sized(t, 7, table[i].type, 3, 4);
      ojo_record_ext(t, 7, table[i].type, 4, "x", 1);
      if (table[i].bit == table[enabled].bit) want += 4;
    }
    uint32_t flow = ojo_flow_open(t, NULL); /* FLOW is Meta, which is always on */
    check(flow != 0, "ojo_flow_open gives an id");
    check(ojo_close(t) == OJO_OK, "close");
    size_t count = check_events(dir, &events);
    for (size_t i = 0; i < count; i++) got += events[i].type != OJO_FLOW;
    check(got == want && count == want + 1, "ojo_enable(%s) keeps %llu events and FLOW, not %zu",
          table[enabled].name, (unsigned long long)want, count);
    free(events);
    check_remove(dir);
  }
  ojo_tracer *t = manual_tracer(check_directory("unit", dir, sizeof dir));
  ojo_enable(t, 0);
  ojo_packet_sent(t, 1, 1);
  ojo_enable(t, OJO_CATEGORY_ALL);
  ojo_packet_sent(t, 1, 2);
  ojo_record(t, 1, OJO_RUN, 3);    /* what the tracer alone writes */
  ojo_record(t, 1, OJO_THREAD, 3);
  ojo_record(t, 1, OJO_EVENTS_DROPPED, 3);
  ojo_record(t, 1, 0xFF000000u | OJO_PACKET_SENT, 4); /* a type with high bits must not derail a reader */
  ojo_record(t, 1, OJO_SIZED | OJO_PACKET_SENT, 5);
  ojo_close(t);
  size_t count = check_events(dir, &events);
  check(count == 3 && events[0].payload == 2 && events[1].payload == 4 && events[2].payload == 5 &&
          events[2].type == OJO_PACKET_SENT && !events[2].has_size,
        "switching on and off, and types masked: %zu events", count);
  free(events);
  check_remove(dir);
}

static void test_metrics(void) {
  char dir[256];
  check_event *events;
  ojo_metrics_values last = {0}, now = {0};
  ojo_tracer *t = manual_tracer(check_directory("unit", dir, sizeof dir));
  ojo_metrics(t, 9, &last, &now); /* nothing is known: nothing */
  now.cwnd = 12000;
  now.ssthresh = UINT64_MAX; /* unset: not recorded */
  now.bytes_in_flight = 1200;
  ojo_set_now(t, 10);
  ojo_metrics(t, 9, &last, &now);
  ojo_metrics(t, 9, &last, &now); /* nothing changed: nothing */
  now.latest_rtt_ns = 5;
  now.smoothed_rtt_ns = 6;
  now.min_rtt_ns = 4;
  now.rtt_variation_ns = 3;
  now.ssthresh = 6000;
  now.pacing_rate = 777;
  ojo_set_now(t, 20);
  ojo_metrics(t, 9, &last, &now);
  now.bytes_in_flight = 0; /* back to 0 is a change, and known */
  now.smoothed_rtt_ns = 7;
  ojo_metrics_at(t, 30, 9, &last, &now);
  check(memcmp(&last, &now, sizeof now) == 0, "ojo_metrics copies now to last");
  ojo_close(t);
  static const struct {
    uint64_t ts;
    uint32_t type;
    uint64_t payload;
  } want[] = {
    {10, OJO_CWND_UPDATED, 12000},   {10, OJO_BYTES_IN_FLIGHT, 1200}, {20, OJO_SSTHRESH_UPDATED, 6000},
    {20, OJO_RTT_SAMPLE, 5},         {20, OJO_PACING_RATE, 777},      {30, OJO_BYTES_IN_FLIGHT, 0},
    {30, OJO_RTT_SAMPLE, 5},
  };
  size_t count = check_events(dir, &events);
  check(count == 7, "ojo_metrics records one event per change: %zu, not 7", count);
  for (size_t i = 0; i < count && i < 7; i++)
    check(events[i].ts == want[i].ts && events[i].type == want[i].type && events[i].flow == 9 &&
            events[i].payload == want[i].payload,
          "metrics event %zu: ts %llu type 0x%04x payload %llu", i, (unsigned long long)events[i].ts,
          events[i].type, (unsigned long long)events[i].payload);
  if (count == 7) {
    static const ojo_rtt first = {6, 4, 3}, second = {7, 4, 3};
    check(events[3].extension_bytes == 24 && memcmp(events[3].extension, &first, 24) == 0, "the first RTT");
    check(events[6].extension_bytes == 24 && memcmp(events[6].extension, &second, 24) == 0, "the second RTT");
  }
  free(events);
  check_remove(dir);
}

static void test_flow_close(void) {
  char dir[256], reason[301];
  check_event *events;
  ojo_tracer *t = manual_tracer(check_directory("unit", dir, sizeof dir));
  memset(reason, 'r', 300);
  reason[300] = 0;
  ojo_flow_close(t, 4, 0, NULL);
  ojo_flow_close(t, 4, 7, "why");
  ojo_flow_close(t, 4, 8, reason);
  ojo_close(t);
  size_t count = check_events(dir, &events);
  if (check(count == 3, "three CONNECTION_CLOSED")) {
    check(events[0].type == OJO_CONNECTION_CLOSED && events[0].payload == 0 && events[0].extension_bytes == 24 &&
            !memcmp(events[0].extension, "\0\0\0\0\0\0\0\0", 8), "closed cleanly");
    check(events[1].payload == 7 && !memcmp(events[1].extension, "\0\0\3\0why\0", 8), "closed with a reason");
    check(events[2].extension[2] == 255 && events[2].extension_bytes == 264, "a reason is cut at 255 bytes");
  }
  free(events);
  check_remove(dir);
}

/* ---- NULL, results, other versions ------------------------------------------------------------- */

static void test_results(void) {
  static const int results[] = {OJO_OK, OJO_ERR_ARGUMENT, OJO_ERR_MEMORY, OJO_ERR_IO, OJO_ERR_PERMISSION,
                                OJO_ERR_TIMEOUT, OJO_ERR_MODE, OJO_ERR_FORMAT, OJO_ERR_NOT_FOUND};
  for (int i = 0; i < 9; i++) {
    const char *text = ojo_result_string((ojo_result)results[i]);
    bool unlike = text != NULL && text[0] != 0;
    check(results[i] == -i, "result %d has its number", -i);
    for (int k = 0; unlike && k < i; k++)
      unlike = strcmp(text, ojo_result_string((ojo_result)results[k])) != 0;
    check(unlike, "result %d has a text of its own", results[i]);
  }
  check(ojo_result_string((ojo_result)-99) != NULL, "an unknown result has a text");
}

static void test_null(void) {
  ojo_tracer *t = (ojo_tracer *)&t;
  ojo_desc desc = {0};
  check(ojo_open(&t, NULL) == OJO_OK && t == NULL, "ojo_open with a NULL desc is off");
  t = (ojo_tracer *)&t;
  check(ojo_open(&t, &desc) == OJO_OK && t == NULL, "ojo_open without a dir is off");
  desc.dir = "";
  t = (ojo_tracer *)&t;
  check(ojo_open(&t, &desc) == OJO_OK && t == NULL, "a dir of \"\" is off");
  check(ojo_open(NULL, NULL) == OJO_ERR_ARGUMENT, "ojo_open without out is an error");
  check(ojo_flush(NULL) == OJO_OK && ojo_close(NULL) == OJO_OK, "flush and close of NULL");
  ojo_stats stats = ojo_query_stats(NULL);
  check(stats.recorded == 0 && stats.chunks == 0 && stats.dropped == 0, "stats of NULL are zeros");
  check(ojo_query_desc(NULL).dir == NULL, "the desc of NULL is zero");
  check(ojo_adopt(NULL) == NULL, "adopting NULL gives NULL");
  check(ojo_now(NULL) == 0, "ojo_now(NULL) is 0");
  ojo_enable(NULL, 1);
  ojo_sample_flows(NULL, 2);
  ojo_set_now(NULL, 3);
  ojo_record(NULL, 1, OJO_PACKET_SENT, 1);
  ojo_record_ext(NULL, 1, OJO_PACKET_SENT, 1, NULL, 0);
  ojo_packet_retransmit(NULL, 1, 1, 2);
  ojo_flow_close(NULL, 1, 0, "x");
  uint32_t a = ojo_flow_open(NULL, NULL), b = ojo_flow_open(NULL, NULL);
  check(a && b && a != b && !(a >> 31) && !(b >> 31), "ojo_flow_open(NULL) hands out ids");
  ojo_flow_desc child = {0};
  child.parent = a;
  child.kind = OJO_FLOW_STREAM;
  child.key = 4;
  check(ojo_flow_open(NULL, &child) == ojo_flow_child(a, 64 + 4), "a child opened is ojo_flow_child");
  check(ojo_flow_stream(NULL, a, 4) == ojo_flow_child(a, 64 + 4), "ojo_flow_stream gives the same");
  child.kind = OJO_FLOW_SPACE;
  child.key = 2;
  check(ojo_flow_open(NULL, &child) == ojo_flow_child(a, 2), "a space's key is as it is");
  child.kind = OJO_FLOW_PATH;
  child.key = 3;
  check(ojo_flow_open(NULL, &child) == ojo_flow_child(a, 16 + 3), "a path's key is 16 + its id");
}

static void test_adopt(void) {
  char dir[256];
  ojo_tracer *t = manual_tracer(check_directory("unit", dir, sizeof dir)), other = *t;
  check(ojo_adopt(t) == t, "a tracer of this version is adopted");
  other.abi ^= 1;
  int keep = dup(2), null = open("/dev/null", O_WRONLY); /* it says so, on stderr */
  dup2(null, 2);
  check(ojo_adopt(&other) == NULL, "one of another version is not");
  dup2(keep, 2);
  close(keep);
  close(null);
  ojo_close(t);
  check_remove(dir);
}

int main(void) {
  test_unwrap();
  test_flow_child();
  test_results();
  test_null();
  test_sampling();
  test_categories();
  test_metrics();
  test_flow_close();
  test_adopt();
  return check_end("unit");
}
