/* SPDX-License-Identifier: MIT
 *
 * api.c - every call of ojo.h: results, defaults, limits, filters, clocks, what is left on disk.
 */
#define OJO_IMPLEMENTATION
#include "ojo.h"
#include "check.h"

#include <sys/socket.h>

static char dir[256], last_line[2048];
static unsigned lines;
static void keep_line(void *user, const char *line) {
  (void)user;
  lines++;
  snprintf(last_line, sizeof last_line, "%s", line);
}

static void fresh(void) {
  if (dir[0]) check_remove(dir);
  check_directory("api", dir, sizeof dir);
}

static ojo_desc desc_with_logger(void) {
  ojo_desc d;
  memset(&d, 0, sizeof d);
  fresh();
  d.dir = dir;
  d.logger.log = keep_line;
  lines = 0;
  last_line[0] = 0;
  return d;
}

static ojo_tracer *open_desc(const ojo_desc *d) {
  ojo_tracer *t = NULL;
  ojo_result result = ojo_open(&t, d);
  if (!check(result == OJO_OK && t, "open: %s (%s)", ojo_result_string(result), last_line)) exit(1);
  return t;
}

static unsigned count_files(const char *sub) { return check_count(dir, sub); }

/* The events of the trace, RUN and THREAD left out. What they point to stays loaded (and reachable). */
static check_event *events, *loaded[64];
static unsigned loads;
static size_t load(void) {
  size_t count = check_events(dir, &events);
  loaded[loads++ % 64] = events;
  return count;
}

static void test_off(void) {
  ojo_tracer *t = (ojo_tracer *)1;
  ojo_desc d;
  memset(&d, 0, sizeof d);
  check(ojo_open(&t, &d) == OJO_OK && !t, "no dir: off");
  d.dir = "";
  check(ojo_open(&t, &d) == OJO_OK && !t, "dir \"\": off");
  check(ojo_open(&t, NULL) == OJO_OK && !t, "NULL desc: off");
  check(ojo_open(NULL, NULL) == OJO_ERR_ARGUMENT, "out NULL");
  check(ojo_close(NULL) == OJO_OK && ojo_flush(NULL) == OJO_OK, "close and flush of NULL");
  check(ojo_query_stats(NULL).recorded == 0 && !ojo_query_desc(NULL).dir, "queries of NULL");
  check(ojo_adopt(NULL) == NULL, "adopt NULL");
  ojo_enable(NULL, 0);
  ojo_sample_flows(NULL, 3);
  ojo_set_now(NULL, 3);
  ojo_record(NULL, 1, OJO_PACKET_SENT, 1);
  ojo_record_ext(NULL, 1, OJO_RTT_SAMPLE, 1, NULL, 0);
  ojo_packet_retransmit(NULL, 1, 2, 3);
  ojo_flow_close(NULL, 1, 0, "x");
  check(ojo_now(NULL) == 0, "now of NULL");
  uint32_t a = ojo_flow_open(NULL, NULL), b = ojo_flow_open(NULL, NULL);
  check(a && b == a + 1, "flow ids without a tracer count on");
}

static void test_defaults(void) {
  ojo_desc d = desc_with_logger(), q;
  ojo_tracer *t = open_desc(&d);
  q = ojo_query_desc(t);
  check(q.flush_interval_ms == 1000 && q.flush_bytes == 10u << 20 && q.block_timeout_ms == 10000, "limits");
  check(q.reserve_bytes == 2u << 20 && q.file_mode == 0600 && q.dir_mode == 0700, "reserve and modes");
  check(q.overflow == OJO_OVERFLOW_DROP_NEWEST && !q.disk_bytes_max && !q.sync && !q.checksums, "rest");
  check(strcmp(q.dir, dir) == 0 && q.clock != OJO_CLOCK_AUTO, "dir and clock are resolved");
  ojo_stats s = ojo_query_stats(t);
#ifdef OJO_NO_TSC
  check(q.clock == OJO_CLOCK_MONOTONIC, "OJO_NO_TSC: the clock is clock_gettime");
#endif
#ifdef OJO_NO_TMPFS
  check(!s.crash_safe && lines == 1 && strstr(last_line, "will not survive"), "OJO_NO_TMPFS: %u lines, %s", lines, last_line);
#endif
  check(s.buffer_bytes == q.buffer_bytes && s.chunks == s.buffer_bytes / 65536 && s.chunks_in_use == 0, "pool");
  uint32_t flow = ojo_flow_open(t, NULL);
  s = ojo_query_stats(t);
  check(s.recorded == 1 && s.chunks_in_use == 1 && s.dropped == 0 && s.written == 0, "FLOW is recorded");
  check(flow && !(flow >> 31), "a flow id");
  check(ojo_flush(t) == OJO_OK && ojo_query_stats(t).written == 1 && count_files("output") == 1, "flush");
  check(ojo_flush(t) == OJO_OK && count_files("output") == 1, "nothing new: no batch");
  struct stat st;
  char path[600], file[512];
  check(stat(check_only_file(dir, file, sizeof file), &st) == 0 && (st.st_mode & 0777) == 0600, "file mode 0600");
  check(strstr(file, "/output/trace_") != NULL, "name of %s", file);
  snprintf(path, sizeof path, "%s/output", dir);
  check(stat(path, &st) == 0 && (st.st_mode & 0777) == 0700, "dir mode 0700");
  check(count_files("staging") == (ojo_query_stats(t).crash_safe ? 1u : 0u), "the pool's link");
  check(ojo_close(t) == OJO_OK && count_files("staging") == 0, "close leaves nothing in staging/");
  check(ojo_close(t) == OJO_OK, "close twice");
  ojo_record(t, flow, OJO_PACKET_SENT, 1);
  check(ojo_query_stats(t).recorded == 0 && ojo_flush(t) == OJO_OK, "a closed tracer is off");
  size_t size;
  char *data = check_load(file, &size);
  const ojo_file_header *h = (const ojo_file_header *)(const void *)data;
  struct timespec now;
  clock_gettime(CLOCK_REALTIME, &now);
  uint64_t unix_ns = (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
  check(h->pid == (uint32_t)getpid() && h->batch == 0 && h->schema_id == 0 && h->header_bytes == 144, "header");
  check(h->start_unix_ns < unix_ns && h->start_unix_ns > unix_ns - 60000000000u, "the trace's start, unix");
  check(h->first_ts <= h->last_ts && h->flags == OJO_FILE_COMPLETE && h->host_id, "header times and flags");
  check(h->anchor_error_ns < 10000, "anchor error %u ns", h->anchor_error_ns);
  free(data);
}

static void test_bad_desc(void) {
  ojo_tracer *t = (ojo_tracer *)1;
  ojo_desc d = desc_with_logger();
  ojo_type types[2];
  memset(types, 0, sizeof types);
  d.overflow = (ojo_overflow)7;
  check(ojo_open(&t, &d) == OJO_ERR_ARGUMENT && !t && strstr(last_line, "overflow"), "bad overflow: %s", last_line);
  d.overflow = OJO_OVERFLOW_DROP_NEWEST;
  d.clock = (ojo_clock)9;
  check(ojo_open(&t, &d) == OJO_ERR_ARGUMENT && !t && strstr(last_line, "clock"), "bad clock: %s", last_line);
  d.clock = OJO_CLOCK_AUTO;
  d.types = types;
  d.type_count = 2;
  types[0].value = 5;
  types[0].name = "X";
  check(ojo_open(&t, &d) == OJO_ERR_ARGUMENT && strstr(last_line, "0x010000"), "type's value: %s", last_line);
  types[0].value = types[1].value = 0x010000;
  types[1].name = "Y";
  check(ojo_open(&t, &d) == OJO_ERR_ARGUMENT && strstr(last_line, "twice"), "value twice: %s", last_line);
  types[1].value = 0x010001;
  types[1].name = NULL;
  check(ojo_open(&t, &d) == OJO_ERR_ARGUMENT && strstr(last_line, "name"), "no name: %s", last_line);
  d.type_count = 0;
  d.dir = "/dev/null/x";
  check(ojo_open(&t, &d) == OJO_ERR_IO && !t && strstr(last_line, "/dev/null/x"), "bad dir: %s", last_line);
  char deep[PATH_MAX + 64];
  memset(deep, 'a', sizeof deep);
  deep[sizeof deep - 1] = 0;
  d.dir = deep;
  check(ojo_open(&t, &d) == OJO_ERR_ARGUMENT && !t, "long dir");
  char nested[512];
  snprintf(nested, sizeof nested, "%s/a/b//c/", dir);
  d.dir = nested;
  check(ojo_open(&t, &d) == OJO_OK && t, "mkdir -p");
  ojo_close(t);
}

/* Open with the n-th allocation failing: an error, or a tracer that works; never a leak or a crash. */
static unsigned allocations, fail_at, live;
static void *failing_alloc(void *user, size_t bytes) {
  (void)user;
  if (++allocations == fail_at) return NULL;
  live++;
  return malloc(bytes);
}
static void failing_free(void *user, void *memory) {
  (void)user;
  live--;
  free(memory);
}
static void test_allocation_failures(void) {
  ojo_type type = {0x010000, "T", NULL, NULL, OJO_VALUE_NONE};
  bool opened = false;
  for (fail_at = 1; fail_at < 50 && !opened; fail_at++) {
    ojo_desc d = desc_with_logger();
    ojo_tracer *t;
    d.allocator.alloc = failing_alloc;
    d.allocator.free = failing_free;
    d.types = &type;
    d.type_count = 1;
    allocations = 0;
    ojo_result result = ojo_open(&t, &d);
    opened = result == OJO_OK;
    if (!opened) check(!t && result == OJO_ERR_MEMORY, "allocation %u fails", fail_at);
    ojo_record(t, 1, OJO_PACKET_SENT, 1);
    check(ojo_close(t) == OJO_OK && live == 0, "allocation %u fails: %u not freed", fail_at, live);
    check(count_files("staging") == 0, "allocation %u fails: staging/ is empty", fail_at);
  }
  check(opened && fail_at > 4, "all allocations were made to fail in turn");
}

static void test_extensions(void) {
  static unsigned char bytes[8000];
  ojo_desc d = desc_with_logger();
  ojo_tracer *t = open_desc(&d);
  static const size_t lengths[] = {0, 1, 24, 25, 48, 6119, 6120};
  for (size_t i = 0; i < sizeof bytes; i++) bytes[i] = (unsigned char)(i * 7 + 1);
  for (int round = 0; round < 40; round++) /* so that some don't fit a chunk's rest */
    for (size_t i = 0; i < sizeof lengths / sizeof *lengths; i++)
      ojo_record_ext(t, 1, 0x010000, i, bytes, lengths[i]);
  ojo_record_ext(t, 1, 0x010000, 9, bytes, 6121);
  ojo_record_ext(t, 1, 0x010000, 10, bytes, 24);
  ojo_stats s = ojo_query_stats(t);
  check(s.recorded == 281 && s.dropped == 1, "recorded %llu, dropped %llu", (unsigned long long)s.recorded,
        (unsigned long long)s.dropped);
  ojo_close(t);
  size_t n = load(), at = 0;
  check(n == 282, "%zu events", n);
  for (size_t k = 0; k < n; k++) {
    const check_event *e = &events[k];
    if (e->type == OJO_EVENTS_DROPPED) {
      uint32_t reason;
      memcpy(&reason, e->extension + 16, 4);
      check(e->payload == 1 && reason == OJO_DROP_EXTENSION_TOO_LONG, "too long: told, with its reason");
      continue;
    }
    size_t length = at < 280 ? lengths[at % 7] : 24;
    bool good = e->extension_bytes == (length + 23) / 24 * 24 && memcmp(e->extension, bytes, length) == 0;
    for (size_t i = length; i < e->extension_bytes; i++) good = good && e->extension[i] == 0;
    if (!good) check(false, "extension of %zu bytes, event %zu", length, at);
    at++;
  }
  check(at == 281, "all extensions compared");
}

/* A full batch is not followed by a tiny one: the rest waits for the next. */
static void test_batch_sizes(void) {
  ojo_desc d = desc_with_logger();
  d.flush_bytes = 1 << 20;
  d.overflow = OJO_OVERFLOW_BLOCK;
  ojo_tracer *t = open_desc(&d);
  for (int i = 0; i < 1000000; i++) {
    ojo_record(t, 1, OJO_PACKET_SENT, (uint64_t)i);
    if (i % 20000 == 0) usleep(2000);
  }
  ojo_stats s = ojo_query_stats(t);
  check(ojo_close(t) == OJO_OK && s.dropped == 0, "batch sizes: close");
  check(count_files("output") <= 26, "24 MB in batches of 1 MiB: %u files", count_files("output"));
}

static void test_filters(void) {
  ojo_desc d = desc_with_logger();
  ojo_tracer *t = open_desc(&d);
  ojo_enable(t, OJO_CATEGORY_STREAM);
  ojo_record(t, 1, OJO_PACKET_SENT, 1);
  ojo_record(t, 1, OJO_STREAM_OPENED, 2);
  ojo_record(t, 1, 0x012345, 3);
  uint32_t flow = ojo_flow_open(t, NULL); /* Meta is always on */
  ojo_enable(t, OJO_CATEGORY_APPLICATION);
  ojo_record(t, 1, 0x012345, 4);
  ojo_record(t, 1, 0x7FFFFF, 5);
  ojo_record(t, 1, OJO_STREAM_OPENED, 6);
  ojo_enable(t, OJO_CATEGORY_ALL);
  ojo_record(t, 1, 0xFF800000u | OJO_PACKET_SENT, 7); /* high bits are masked away */
  ojo_record(t, 1, OJO_RUN, 8);                        /* the tracer's own types are not recorded */
  ojo_record(t, 1, OJO_THREAD, 8);
  ojo_record(t, 1, OJO_EVENTS_DROPPED, 8);
  ojo_stats s = ojo_query_stats(t);
  check(s.recorded == 5 && s.dropped == 0, "filtered calls are in no count: %llu", (unsigned long long)s.recorded);
  ojo_close(t);
  static const uint64_t expected[5] = {2, 0, 4, 5, 7};
  size_t n = load();
  check(n == 5, "%zu events", n);
  for (size_t i = 0; i < n && i < 5; i++) check(events[i].payload == expected[i], "event %zu", i);
  check(n > 1 && events[1].type == OJO_FLOW && events[1].flow == flow, "FLOW passed the mask");
  check(n > 4 && events[4].type == OJO_PACKET_SENT && events[4].extension_bytes == 0, "type is masked");
}

static void test_sampling(void) {
  static const unsigned ns[] = {0, 1, 2, 3, 10, 100, 1024, 5000};
  for (size_t k = 0; k < sizeof ns / sizeof *ns; k++) {
    ojo_desc d = desc_with_logger();
    ojo_tracer *t = open_desc(&d);
    unsigned kept = 0, torn = 0;
    ojo_sample_flows(t, ns[k]);
    for (uint32_t i = 0; i < 1024; i++) {
      uint64_t before = ojo_query_stats(t).recorded, after;
      uint32_t flow = ojo_flow_open(t, NULL), child = ojo_flow_child(flow, 64 + 4);
      bool in = ojo_query_stats(t).recorded != before;
      kept += in;
      ojo_record(t, flow, OJO_PACKET_SENT, 1);
      ojo_flow_stream(t, flow, 8);
      ojo_record(t, child, OJO_OFFSET_SENT, 1);
      after = ojo_query_stats(t).recorded;
      torn += after - before != (in ? 5u : 0u);
    }
    unsigned wanted = ns[k] < 2 ? 1024 : 1024 / ns[k];
    check(kept == wanted, "1 in %u: %u of 1,024 flows kept, not %u", ns[k], kept, wanted);
    check(torn == 0, "1 in %u: %u flows kept in part", ns[k], torn);
    uint64_t before = ojo_query_stats(t).recorded;
    ojo_record(t, 0, OJO_PACKET_SENT, 1);
    check(ojo_query_stats(t).recorded == before + 1, "flow 0 is always kept");
    ojo_close(t);
  }
}

/* Categories and sampling change at any time, in any order, by several threads: both hold in the end. */
static uint64_t recorded_of(ojo_tracer *t, uint32_t flow, uint32_t type) {
  uint64_t before = ojo_query_stats(t).recorded;
  ojo_record(t, flow, type, 1);
  return ojo_query_stats(t).recorded - before;
}
static void *toggle(void *argument) {
  ojo_tracer *t = (ojo_tracer *)argument;
  for (uint32_t i = 0; i < 20000; i++) {
    ojo_sample_flows(t, i % 3 ? 1 : 1024);
    ojo_enable(t, i % 2 ? OJO_CATEGORY_ALL : OJO_CATEGORY_PACKET);
  }
  return NULL;
}
static void test_filters_together(void) {
  ojo_desc d = desc_with_logger();
  ojo_tracer *t = open_desc(&d);
  pthread_t threads[3];
  uint32_t kept = 0, left_out = 0;
  ojo_sample_flows(t, 2);
  for (uint32_t flow = 1; !kept || !left_out; flow++) *(recorded_of(t, flow, OJO_PACKET_SENT) ? &kept : &left_out) = flow;
  ojo_enable(t, OJO_CATEGORY_PACKET);
  check(recorded_of(t, kept, OJO_PACKET_SENT) && !recorded_of(t, kept, OJO_STREAM_OPENED) &&
        !recorded_of(t, left_out, OJO_PACKET_SENT), "a category of a sampled flow");
  ojo_sample_flows(t, 1);
  check(recorded_of(t, left_out, OJO_PACKET_SENT) && !recorded_of(t, left_out, OJO_STREAM_OPENED),
        "all flows again: the category holds");
  for (int i = 0; i < 3; i++)
    if (pthread_create(&threads[i], NULL, toggle, t)) abort();
  for (int i = 0; i < 3; i++) pthread_join(threads[i], NULL);
  uint32_t mask = t->mask, below = t->sample_below;
  check(t->every == (below >= 1024 ? mask : 0), "mask %x, below %u: every is %x", mask, below, t->every);
  ojo_enable(t, OJO_CATEGORY_STREAM);
  ojo_sample_flows(t, 2);
  check(!recorded_of(t, kept, OJO_PACKET_SENT) && recorded_of(t, kept, OJO_STREAM_OPENED) &&
        !recorded_of(t, left_out, OJO_STREAM_OPENED), "the last ones hold");
  ojo_close(t);
  check(t->every == 0 && t->mask == 0, "closed: nothing is wanted");
}

/* Times: ticks, stamps and caller's ns agree with CLOCK_MONOTONIC within 1 us. */
static void test_clock(ojo_clock clock) {
  enum { EVENTS = 2000 };
  static uint64_t before[EVENTS], after[EVENTS];
  ojo_desc d = desc_with_logger();
  d.clock = clock;
  d.flush_interval_ms = 20;
  ojo_tracer *t = open_desc(&d);
  uint64_t start = t->core->pool->file.start_monotonic_ns, wrong = 0;
  for (int i = 0; i < EVENTS; i++) {
    before[i] = ojo__clock_ns(CLOCK_MONOTONIC);
    if (i % 3 == 0) ojo_record(t, 1, OJO_PACKET_SENT, (uint64_t)i);
    else if (i % 3 == 1) ojo_record_at(t, ojo_now(t), 1, OJO_PACKET_SENT, (uint64_t)i);
    else ojo_record_at(t, before[i], 1, OJO_PACKET_SENT, (uint64_t)i);
    after[i] = ojo__clock_ns(CLOCK_MONOTONIC);
    if (i % 20 == 0) usleep(2000);
  }
  ojo_record_at(t, start - 1, 1, OJO_PACKET_ACKED, 0);
  ojo_record_at(t, 0, 1, OJO_PACKET_ACKED, 0);
  ojo_record_at(t, start + 12345, 1, OJO_PACKET_ACKED, 1);
  ojo_close(t);
  size_t n = load(), sent = 0;
  check(n == EVENTS + 3, "%zu events", n);
  for (size_t k = 0; k < n; k++) {
    const check_event *e = &events[k];
    if (e->type == OJO_PACKET_ACKED) {
      check(e->ts == (e->payload ? 12345 : 0), "clock %d: a time %s the start", (int)clock, e->payload ? "after" : "before");
      continue;
    }
    wrong += e->ts + start + 1000 < before[e->payload] || e->ts + start > after[e->payload] + 1000;
    sent++;
  }
  check(sent == EVENTS && wrong == 0, "clock %d: %llu times are off by more than 1 us", (int)clock, (unsigned long long)wrong);
}

static void test_manual_clock(void) {
  ojo_desc d = desc_with_logger();
  d.clock = OJO_CLOCK_MANUAL;
  d.no_thread = true;
  ojo_tracer *t = open_desc(&d);
  ojo_set_now(t, 100);
  ojo_record(t, 1, OJO_PACKET_SENT, 0);
  check(ojo_now(t) == 100, "now is what was set");
  ojo_set_now(t, 250);
  ojo_record_at(t, 200, 1, OJO_PACKET_SENT, 1);
  ojo_record(t, 1, OJO_PACKET_SENT, 2);
  check(count_files("output") == 0 && ojo_flush(t) == OJO_OK && count_files("output") == 1,
        "no_thread: ojo_flush writes");
  ojo_enable(t, 0);
  check(ojo_now(t) == 0, "with all switched off the clock is not read");
  ojo_enable(t, OJO_CATEGORY_ALL);
  ojo_record_at(t, UINT64_MAX, 1, OJO_PACKET_SENT, 3); /* a stamp of another clock: any time, no crash */
  ojo_close(t);
  size_t n = load();
  check(n == 4 && events[0].ts == 100 && events[1].ts == 200 && events[2].ts == 250, "manual times");
}

static void test_schema(void) {
  ojo_type types[2] = {{0x010000, "quote\" back\\slash", "caf\xC3\xA9", "line\nbreak\ttab \x01", OJO_VALUE_TEXT},
                       {0x7FFFFF, "bad\xFFutf\xC3", NULL, NULL, OJO_VALUE_RANGE}};
  const char *expected =
      "{\"events\":[{\"value\":65536,\"name\":\"quote\\\" back\\\\slash\",\"category\":\"caf\xC3\xA9\","
      "\"description\":\"line\\u000abreak\\u0009tab \\u0001\",\"value_kind\":\"text\"},"
      "{\"value\":8388607,\"name\":\"bad\xEF\xBF\xBDutf\xEF\xBF\xBD\",\"category\":\"Application\","
      "\"description\":\"\",\"value_kind\":\"range\"}]}";
  char file[512];
  size_t size;
  ojo_desc d = desc_with_logger();
  d.types = types;
  d.type_count = 2;
  ojo_tracer *t = open_desc(&d);
  ojo_record_ext(t, 1, 0x010000, 5, "hello", 5);
  ojo_record_sized(t, 1, 0x7FFFFF, 1000, 50);
  ojo_record_sized(t, 1, 0x7FFFFF, 1000, 1 << 20);
  ojo_close(t);
  char *data = check_load(check_only_file(dir, file, sizeof file), &size);
  const ojo_file_header *h = (const ojo_file_header *)(const void *)data;
  check(h->schema_bytes == strlen(expected) && memcmp(data + 144, expected, h->schema_bytes) == 0,
        "schema is %.*s", (int)h->schema_bytes, data + 144);
  check(h->header_bytes == 144 + (h->schema_bytes + 7) / 8 * 8, "header size");
  check(h->schema_id == ojo__fnv1a(expected, strlen(expected)), "schema id");
  free(data);
  uint64_t end;
  check(load() == 3 && events[1].has_size && events[1].size == 50, "a custom range, short");
  memcpy(&end, events[2].extension, 8);
  check(!events[2].has_size && end == 1000 + (1 << 20), "a custom range, long: its end");
}

/* BLOCK gives up after its time, and counts; writes that fail keep the pool full meanwhile. */
static void test_block_timeout(void) {
  struct rlimit limit, none;
  ojo_desc d = desc_with_logger();
  d.overflow = OJO_OVERFLOW_BLOCK;
  d.block_timeout_ms = 50;
  d.buffer_bytes = 256 << 10;
  ojo_tracer *t = open_desc(&d);
  getrlimit(RLIMIT_FSIZE, &limit);
  none = limit;
  none.rlim_cur = 0;
  setrlimit(RLIMIT_FSIZE, &none);
  uint64_t n = 0, start = 0, took = 0;
  while (ojo_query_stats(t).dropped == 0 && n < 100000) {
    start = ojo__clock_ns(CLOCK_MONOTONIC);
    ojo_record(t, 1, OJO_PACKET_SENT, n++);
    took = ojo__clock_ns(CLOCK_MONOTONIC) - start;
  }
  check(n == 4 * 2730 + 1, "dropped after %llu events", (unsigned long long)n);
  check(took >= 50000000 && took < 2000000000, "the call waited %.0f ms", (double)took / 1e6);
  setrlimit(RLIMIT_FSIZE, &limit);
  check(ojo_close(t) == OJO_OK, "close once writing works again");
  bool told = false;
  size_t count = load();
  for (size_t i = 0; i < count; i++)
    if (events[i].type == OJO_EVENTS_DROPPED) {
      uint32_t reason;
      memcpy(&reason, events[i].extension + 16, 4);
      told = events[i].payload == 1 && reason == OJO_DROP_BLOCK_TIMEOUT;
    }
  check(told && count == n, "told as block timeout");
}

/* What a crash leaves to recover of `pending` events that were not written: private memory keeps none. */
#ifdef OJO_NO_TMPFS
#define SURVIVES(pending) ((void)(pending), (size_t)0)
#else
#define SURVIVES(pending) ((size_t)(pending))
#endif

/* Writing never works: close gives up, says how much was lost, and keeps a pool that can be recovered. */
OJO__UNUSED static void test_close_gives_up(void) {
  struct rlimit limit, none;
  ojo_desc d = desc_with_logger();
  ojo_tracer *t = open_desc(&d);
  ojo_record(t, 1, OJO_PACKET_SENT, 1);
  getrlimit(RLIMIT_FSIZE, &limit);
  none = limit;
  none.rlim_cur = 0;
  setrlimit(RLIMIT_FSIZE, &none);
  uint64_t start = ojo__clock_ns(CLOCK_MONOTONIC);
  check(ojo_flush(t) == OJO_ERR_TIMEOUT, "flush gives up");
  check(ojo__clock_ns(CLOCK_MONOTONIC) - start >= OJO__WAIT_MS * UINT64_C(1000000), "after %d ms", OJO__WAIT_MS);
  ojo_result result = ojo_close(t);
  setrlimit(RLIMIT_FSIZE, &limit);
  check(result == OJO_ERR_IO && strstr(last_line, "1 events could not be written"), "close: %s", last_line);
  check(ojo_recover(dir) == OJO_OK && load() == SURVIVES(1), "what close could not write is recovered later");
}

static void test_batches(void) {
  ojo_desc d = desc_with_logger();
  d.flush_bytes = 100000;
  d.flush_interval_ms = 50;
  d.dir_mode = 0750;
  d.file_mode = 0640;
  d.sync = true;
  ojo_tracer *t = open_desc(&d);
  for (int i = 0; i < 20000; i++) ojo_record(t, 1, OJO_PACKET_SENT, (uint64_t)i);
  for (int i = 0; i < 100 && ojo_query_stats(t).written < 20000; i++) usleep(20000);
  check(ojo_query_stats(t).written == 20000, "written by the timer, with no flush");
  unsigned files = count_files("output");
  check(files >= 3 && files <= 6, "batches end at flush_bytes: %u files", files);
  usleep(200000);
  check(count_files("output") == files, "no batch when nothing happened");
  check(ojo_query_stats(t).batches == files && ojo_query_stats(t).flush_ns_max > 0, "stats of batches");
  ojo_close(t);
  check(load() == 20000, "all events");
}

/* A thread that ends with all its events written leaves nothing to write. */
static void *one_record(void *t) {
  ojo_record((ojo_tracer *)t, 1, OJO_PACKET_SENT, 1);
  ojo_flush((ojo_tracer *)t);
  return NULL;
}
static void test_no_empty_batch(void) {
  ojo_desc d = desc_with_logger();
  pthread_t id;
  ojo_tracer *t = open_desc(&d);
  for (int i = 0; i < 5; i++) {
    pthread_create(&id, NULL, one_record, t);
    pthread_join(id, NULL);
    ojo_flush(t);
  }
  check(count_files("output") == 5 && ojo_query_stats(t).chunks_in_use == 0, "%u batches for 5 events",
        count_files("output"));
  ojo_close(t);
}

/* A pool whose process died is recovered at the next open; one whose process lives is left alone. */
static void die_with_events(const ojo_desc *d, uint64_t written, uint64_t pending) {
  fflush(stdout);
  pid_t child = fork();
  if (child == 0) {
    ojo_tracer *t = NULL;
    ojo_open(&t, d);
    for (uint64_t i = 0; i < written; i++) ojo_record(t, 1, OJO_PACKET_SENT, i);
    ojo_flush(t);
    for (uint64_t i = 0; i < pending; i++) ojo_record(t, 1, OJO_PACKET_SENT, written + i);
    kill(getpid(), SIGKILL);
  }
  waitpid(child, NULL, 0);
}
#ifdef OJO_NO_TMPFS
/* The documented difference: what was written stays, the rest went with the process, and nothing is left. */
static void test_dead_pool(void) {
  ojo_desc d = desc_with_logger();
  ojo_tracer *other;
  die_with_events(&d, 5000, 7000);
  check(count_files("staging") == 0, "private memory: a killed tracer leaves no link");
  check(load() == 5000, "private memory: what was flushed before the crash");
  check(ojo_recover(dir) == OJO_OK && load() == 5000, "private memory: there is nothing to recover");
  ojo_tracer *t = open_desc(&d);
  check(ojo_open(&other, &d) == OJO_OK, "private memory: open after a crash");
  ojo_record(t, 1, OJO_PACKET_SENT, 1);
  ojo_record(other, 1, OJO_PACKET_SENT, 2);
  check(ojo_close(t) == OJO_OK && ojo_close(other) == OJO_OK && load() == 5002, "two tracers on one directory");
}
#else
static void test_dead_pool(void) {
  ojo_desc d = desc_with_logger();
  char path[512], file[512];
  die_with_events(&d, 1, 0);
  check(count_files("staging") == 1, "a killed tracer leaves its link");
  snprintf(path, sizeof path, "%s/staging", dir);
  int code;
  char *pool = check_run(&code, "cat %s/pool_*.link", path);
  pool[strcspn(pool, "\n")] = 0;
  check(access(pool, F_OK) == 0, "and its pool %s", pool);
  ojo_tracer *t = open_desc(&d), *other;
  check(access(pool, F_OK) != 0, "open removes a dead pool");
  check(count_files("staging") == 1, "and its link");
  check(ojo_open(&other, &d) == OJO_OK && count_files("staging") == 2, "a live pool is left alone");
  check(ojo_recover(dir) == OJO_OK && count_files("staging") == 2, "by ojo_recover too");
  ojo_record(t, 1, OJO_PACKET_SENT, 1);
  ojo_record(other, 1, OJO_PACKET_SENT, 2);
  check(ojo_close(t) == OJO_OK && ojo_close(other) == OJO_OK && load() == 3, "two tracers on one directory");
  free(pool);
  check(ojo_recover(dir) == OJO_OK && load() == 3, "nothing to recover is no error");
  check(ojo_recover("/nonexistent") == OJO_ERR_NOT_FOUND, "no such directory");

  d = desc_with_logger();
  die_with_events(&d, 5000, 7000);
  check(load() == 5000, "what was flushed before the crash");
  check(ojo_recover(dir) == OJO_OK && load() == 12000 && count_files("staging") == 0, "recovered the rest");
  for (uint64_t i = 0; i < 12000; i++)
    if (events[i].payload != i || events[i].thread != 1 || (i && events[i].ts < events[i - 1].ts)) {
      check(false, "event %llu after recovery", (unsigned long long)i);
      break;
    }
  struct rlimit limit, none;
  getrlimit(RLIMIT_FSIZE, &limit);
  none = limit;
  none.rlim_cur = 0;
  d = desc_with_logger();
  die_with_events(&d, 0, 10);
  signal(SIGXFSZ, SIG_IGN); /* our own stderr may be a file */
  setrlimit(RLIMIT_FSIZE, &none);
  check(ojo_recover(dir) != OJO_OK && load() == 0, "a recovery that can't write");
  setrlimit(RLIMIT_FSIZE, &limit);
  signal(SIGXFSZ, SIG_DFL);
  check(ojo_recover(dir) == OJO_OK && load() == 10, "leaves all to the next");
  size_t size;
  char *data = check_load(check_only_file(dir, file, sizeof file), &size);
  const ojo_file_header *h = (const ojo_file_header *)(const void *)data;
  check(h->flags == (OJO_FILE_COMPLETE | OJO_FILE_RECOVERED) && h->batch == 0, "flagged RECOVERED");
  free(data);
}
#endif

/* A process is killed while a fork child of it lives on. The child holds nothing of the dead tracer, so that
 * its pool can be recovered at once; under OJO_NO_ATFORK, once the child has ended. */
static void test_dead_parent(void) {
  ojo_desc d = desc_with_logger();
  int ready[2], end[2];
  char byte = 0;
  fflush(stdout);
  if (pipe(ready) || pipe(end)) abort();
  pid_t parent = fork();
  if (parent == 0) {
    ojo_tracer *t = NULL;
    d.no_thread = true; /* an emulator forks no process with threads */
    ojo_open(&t, &d);
    for (uint64_t i = 0; i < 10; i++) ojo_record(t, 1, OJO_PACKET_SENT, i);
    if (fork() == 0) {
      close(end[1]);
      ojo_record(t, 1, OJO_PACKET_SENT, 10); /* off */
      bool off = ojo_now(t) == 0 && ojo_query_stats(t).recorded == 0 && ojo_flush(t) == OJO_OK;
      if (write(ready[1], off ? "y" : "n", 1) != 1 || read(end[0], &byte, 1) != 0) _exit(1);
      _exit(0); /* when we have closed our end */
    }
    for (;;) pause();
  }
  close(ready[1]);
  close(end[0]);
  check(read(ready[0], &byte, 1) == 1 && byte == 'y', "the child of a process that records is off");
  kill(parent, SIGKILL);
  waitpid(parent, NULL, 0);
  check(ojo_recover(dir) == OJO_OK, "recover while the child lives");
#ifdef OJO_NO_ATFORK
  check(load() == 0, "OJO_NO_ATFORK: nothing is recovered while the child lives");
#else
  check(load() == SURVIVES(10), "recovered while the child lives");
#endif
  close(end[1]);
  check(read(ready[0], &byte, 1) == 0, "the child ends"); /* and its descriptors with it */
  close(ready[0]);
  check(ojo_recover(dir) == OJO_OK && load() == SURVIVES(10), "recovered once the child has ended");
}

/* A link that points elsewhere, a symlink: neither is followed. */
static void test_planted_links(void) {
  ojo_desc d = desc_with_logger();
  char path[600], victim[512];
  ojo_tracer *t = open_desc(&d);
  ojo_close(t);
  snprintf(victim, sizeof victim, "%s/victim", dir);
  FILE *f = fopen(victim, "w");
  fputs("precious", f);
  fclose(f);
  snprintf(path, sizeof path, "%s/staging/pool_0.link", dir);
  f = fopen(path, "w");
  fprintf(f, "/dev/shm/ojo_/../..%s\n", victim);
  fclose(f);
  snprintf(path, sizeof path, "%s/staging/pool_1.link", dir);
  check(symlink(victim, path) == 0, "a symlink");
  t = open_desc(&d);
  check(access(victim, F_OK) == 0, "the victim is left alone");
  ojo_close(t);
  char real[600];
  snprintf(path, sizeof path, "%s/output", dir);
  snprintf(real, sizeof real, "%s/elsewhere", dir);
  check(rename(path, real) == 0 && symlink("elsewhere", path) == 0, "output/ becomes a symlink");
  check(ojo_open(&t, &d) != OJO_OK && !t, "a symlink in place of output/ is refused");
  unlink(path);
}

/* exit() without ojo_close. */
static void test_exit(void) {
  ojo_desc d = desc_with_logger();
  fflush(stdout);
  pid_t child = fork();
  if (child == 0) {
    ojo_tracer *t = NULL;
    ojo_open(&t, &d);
    ojo_record(t, 1, OJO_PACKET_SENT, 1);
    exit(0);
  }
  int status;
  waitpid(child, &status, 0);
  check(WIFEXITED(status) && load() == 1, "exit() closes open tracers");
  check(count_files("staging") == 0, "and leaves no pool");
}

/* A smaller pool than asked for is a log line, not a failure. */
static void test_small_memory(void) {
  ojo_desc d = desc_with_logger();
  d.buffer_bytes = (uint64_t)1 << 50;
  ojo_tracer *t = open_desc(&d);
  check(lines >= 1 && ojo_query_stats(t).buffer_bytes < d.buffer_bytes, "a pool of 1 PiB: %s", last_line);
  ojo_record(t, 1, OJO_PACKET_SENT, 1);
  check(ojo_close(t) == OJO_OK && load() == 1, "works");
}

/* A burst's chunks give their pages back once nobody has needed them for seconds. */
static void test_idle_memory(void) {
  ojo_desc d = desc_with_logger();
  struct stat st;
  d.buffer_bytes = 64u << 20;
  d.flush_bytes = 1u << 30; /* so that the burst piles up */
  d.flush_interval_ms = 100;
  ojo_tracer *t = open_desc(&d);
  uint64_t n = 0, peak = 0;
  for (int burst = 0; burst < 2; burst++) {
    for (uint64_t i = 0; i < 1500000; i++) ojo_record_at(t, i, 1, OJO_PACKET_SENT, n++);
    if (!ojo_query_stats(t).crash_safe) break;
    for (int i = 0; i < (check_emulated() ? 1 : 50); i++) {
      fstat(t->core->pool_fd, &st);
      if ((uint64_t)st.st_blocks * 512 > peak) peak = (uint64_t)st.st_blocks * 512;
      usleep(burst ? 1000 : 200000);
      if (!burst && (uint64_t)st.st_blocks * 512 < 6u << 20) break;
    }
    if (check_emulated() && !burst) check_skip("idle memory: pages given back", "qemu-user ignores MADV_REMOVE");
    else if (!burst) check(peak > (16u << 20) && (uint64_t)st.st_blocks * 512 < 6u << 20, "pool of %llu MiB idles at %llu MiB",
                      (unsigned long long)(peak >> 20), (unsigned long long)st.st_blocks >> 11);
  }
  ojo_stats s = ojo_query_stats(t);
  ojo_result closed = ojo_close(t);
  size_t count = load();
  check(s.dropped == 0 && closed == OJO_OK && count == n, "over idle memory: %llu dropped, close gives %d, %zu events of %llu",
        (unsigned long long)s.dropped, (int)closed, count, (unsigned long long)n);
}

static void test_adopt(void) {
  ojo_desc d = desc_with_logger();
  ojo_tracer *t = open_desc(&d), other;
  check(ojo_adopt(t) == t, "the same version");
  memset(&other, 0, sizeof other);
  other.abi = OJO_ABI + 1;
  fflush(stderr);
  check(ojo_adopt(&other) == NULL && ojo_adopt(&other) == NULL, "another version (one line on stderr)");
  ojo_close(t);
}

#if !defined(__SANITIZE_THREAD__) && !defined(__SANITIZE_ADDRESS__)
/* In a process of its own: under a limit, or without standard streams. Gives its resident KiB; 0: failed. */
static unsigned long run_alone(const char *how) {
  int ends[2];
  char text[64] = "";
  fresh();
  fflush(stdout);
  if (pipe(ends)) abort();
  pid_t child = fork();
  if (child == 0) {
    char *const arguments[] = {(char *)"/proc/self/exe", dir, (char *)(uintptr_t)how, NULL};
    dup2(ends[1], 7);
    execv(arguments[0], arguments);
    _exit(1);
  }
  close(ends[1]);
  ssize_t got = read(ends[0], text, sizeof text - 1);
  close(ends[0]);
  waitpid(child, NULL, 0);
  return got > 0 ? strtoul(text, NULL, 10) : 0;
}
#endif
static int alone(const char *where, const char *how) {
  ojo_desc d;
  ojo_tracer *t;
  char text[4096];
  struct rlimit limit = {(rlim_t)100 << 20, (rlim_t)4 << 30};
  memset(&d, 0, sizeof d);
  d.dir = where;
  if (*how) d.logger.log = keep_line;
  if (!strcmp(how, "space")) {
    setrlimit(RLIMIT_AS, &limit);
    limit.rlim_cur = (rlim_t)10 << 20;
    struct rlimit tight = limit;
    for (int i = 0; i < 40; i++) { /* failures leave nothing behind that a later open trips over */
      setrlimit(RLIMIT_AS, &tight);
      ojo_open(&t, &d);
      ojo_close(t);
    }
    limit.rlim_cur = (rlim_t)200 << 20;
    setrlimit(RLIMIT_AS, &limit);
  }
  if (!strcmp(how, "file size")) setrlimit(RLIMIT_FSIZE, &limit);
  if (!strcmp(how, "no streams")) {
    close(0);
    close(1);
    close(2);
  }
  if (ojo_open(&t, &d) != OJO_OK || (*how && strcmp(how, "no streams") && lines == 0)) return 1;
  fprintf(stderr, "what a program says\n");
  ojo_record(t, 1, OJO_PACKET_SENT, 1);
  ojo__read_text("/proc/self/status", text, sizeof text);
  char *line = strstr(text, "VmRSS:");
  int n = snprintf(text, sizeof text, "%lu\n", line ? strtoul(line + 6, NULL, 10) : 0);
  if (write(7, text, (size_t)n) != n) return 1;
  return ojo_close(t) != OJO_OK;
}

static void test_alone(void) {
#if !defined(__SANITIZE_THREAD__) && !defined(__SANITIZE_ADDRESS__)
  if (check_emulated()) {
    check_skip("alone: resident memory, limits, closed streams", "under qemu-user /proc/self/exe is the emulator");
    return;
  }
  unsigned long kib = run_alone("");
  printf("resident after open with defaults and one event: %lu KiB\n", kib);
  check(kib > 0 && kib < 5000, "resident: %lu KiB", kib);
  static const char *const how[] = {"space", "file size", "no streams"};
  for (size_t i = 0; i < 3; i++) check(run_alone(how[i]) > 0 && load() == 1, "alone: %s", how[i]);
#endif
}

/* What ojo_bpf.h builds on: which socket carries a flow, and losses of events that never reached the tracer. */
static uint64_t told_cookie;
static uint32_t told_flow;
static int told_fd;
static void told_of_bind(void *user, uint32_t flow, uint64_t cookie, int fd) {
  ++*(unsigned *)user;
  told_flow = flow;
  told_cookie = cookie;
  told_fd = fd;
}

static void test_kernel_side(void) {
  ojo_desc d = desc_with_logger();
  ojo_tracer *t = open_desc(&d);
  unsigned calls = 0, seen = 0;
  int fd = socket(AF_INET, SOCK_DGRAM, 0), file = open("/dev/null", O_RDONLY);
  ojo__bind_hook_set(t, told_of_bind, &calls);
  check(ojo_bind_socket(NULL, 7, -1) == OJO_OK, "bind: tracer NULL");
  check(ojo_bind_socket(t, 7, -1) == OJO_ERR_ARGUMENT && ojo_bind_socket(t, 7, file) == OJO_ERR_ARGUMENT,
        "bind: no socket");
  ojo_result bound = ojo_bind_socket(t, 7, fd);
  if (bound == OJO_ERR_NOT_FOUND && check_emulated()) {
    check_skip("bind", "the emulator gives no socket cookies");
  } else {
    check(bound == OJO_OK && calls == 1 && told_flow == 7 && told_cookie && told_fd == fd,
          "bind: the hook is called, once");
    ojo__bind_hook_set(t, NULL, NULL);
    check(ojo_bind_socket(t, 8, fd) == OJO_OK && calls == 1, "bind: no hook, no call");
  }
  uint64_t start = t->core->file.start_monotonic_ns;
  ojo_events_dropped_at(t, start + 5000, 12, start + 1000, start + 4000, OJO_DROP_KERNEL_RING, 3);
  ojo_events_dropped_at(t, start + 6000, 1, 0, start + 4500, OJO_DROP_KERNEL_RING, 4); /* began before the trace */
  ojo_events_dropped_at(t, start + 7000, 0, 1, 2, OJO_DROP_KERNEL_RING, 5);
  ojo_events_dropped_at(NULL, 1, 1, 1, 2, OJO_DROP_KERNEL_RING, 5);
  check(ojo_query_stats(t).dropped == 13, "losses told of are in the statistics");
  ojo_flow_desc flow;
  memset(&flow, 0, sizeof flow);
  flow.kind = OJO_FLOW_SOCKET;
  flow.key = 99;
  flow.protocol = "tcp";
  ojo__flow_record(t, start + 8000, 0x80000001u, &flow);
  check(ojo_close(t) == OJO_OK, "close");
  size_t n = load();
  for (size_t i = 0; i < n; i++) {
    const check_event *e = &events[i];
    ojo_dropped gap;
    if (e->type == OJO_SOCKET_BOUND) check(e->flow == 7 + seen && e->payload == told_cookie, "SOCKET_BOUND"), seen++;
    bool socket_flow = e->flow == 0x80000001u && e->payload == 99;
    if (e->type == OJO_FLOW) check(socket_flow && e->extension[4] == OJO_FLOW_SOCKET, "FLOW"), seen++;
    if (e->type != OJO_EVENTS_DROPPED) continue;
    memcpy(&gap, e->extension, sizeof gap);
    bool first = e->payload == 12;
    check(e->ts == (first ? 5000 : 6000) && gap.first_ts == (first ? 1000 : 0) &&
          gap.last_ts == (first ? 4000 : 4500) && gap.reason == OJO_DROP_KERNEL_RING && gap.source == (first ? 3 : 4),
          "EVENTS_DROPPED of the kernel's ring");
    seen++;
  }
  check(seen == (bound == OJO_OK ? 5u : 3u) && n == seen, "%u of %zu events", seen, n);
  close(fd);
  close(file);
}

int main(int argc, char **argv) {
  if (argc == 3) return alone(argv[1], argv[2]);
  test_off();
  test_defaults();
  test_bad_desc();
  test_allocation_failures();
  test_extensions();
  test_filters();
  test_batch_sizes();
  test_sampling();
  test_filters_together();
  test_clock(OJO_CLOCK_AUTO);
  test_clock(OJO_CLOCK_MONOTONIC);
  test_manual_clock();
  test_schema();
  test_block_timeout();
  test_batches();
  test_no_empty_batch();
  test_dead_pool();
  test_dead_parent();
  test_planted_links();
  test_exit();
  test_small_memory();
  test_idle_memory();
  test_adopt();
  test_kernel_side();
  test_alone();
#if !defined(__SANITIZE_THREAD__) && !defined(__SANITIZE_ADDRESS__)
  test_close_gives_up(); /* takes 2 * OJO__WAIT_MS: 20 s */
#endif
  check_remove(dir);
  return check_end("api");
}
