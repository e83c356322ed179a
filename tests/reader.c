/* SPDX-License-Identifier: MIT
 * reader.c - tests of ojo_reader.h, on files that make_file.h builds byte by byte. */
#define OJO_READER_IMPLEMENTATION
#include "ojo_reader.h"

#include "check.h"
#include "make_file.h"

#include <limits.h>
#include <pthread.h>
#include <sys/resource.h>
#include <sys/time.h>
#include <time.h>

#if defined(__SANITIZE_ADDRESS__)
#define SANITIZED 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define SANITIZED 1
#endif
#endif
#ifndef SANITIZED
#define SANITIZED 0
#endif

#define EXPECT(x) check((x), "%s:%d: %s", __FILE__, __LINE__, #x)
#define EXPECT_EQUAL(a, b) expect_equal((uint64_t)(a), (uint64_t)(b), __LINE__, #a " == " #b)
static bool expect_equal(uint64_t a, uint64_t b, int line, const char *text) {
  return check(a == b, "%s:%d: %s: %" PRIu64 ", %" PRIu64, __FILE__, line, text, a, b);
}

#define UNIX UINT64_C(1000000000000) /* made files' start */
static char root[256];               /* scratch */

static const char *at(const char *format, ...) __attribute__((format(printf, 1, 2)));
static const char *at(const char *format, ...) { /* a path below root; four live at a time */
  static char paths[4][512];
  static unsigned next;
  char *path = paths[next++ % 4];
  size_t used = (size_t)snprintf(path, 512, "%s/", root);
  va_list arguments;
  va_start(arguments, format);
  vsnprintf(path + used, 512 - used, format, arguments);
  va_end(arguments);
  return path;
}
static ojo_reader_desc desc_of(const char *path) {
  ojo_reader_desc d;
  memset(&d, 0, sizeof d);
  d.path = path;
  return d;
}
static ojo_reader *open_desc(const ojo_reader_desc *d) {
  ojo_reader *r = NULL;
  ojo_result result = ojo_reader_open(&r, d);
  if (!check(result == OJO_OK && r, "ojo_reader_open: %d", result)) exit(1);
  return r;
}
static ojo_reader *open_made(made *m) { /* finished by us, read from memory */
  ojo_reader_desc d;
  memset(&d, 0, sizeof d);
  made_finish(m);
  d.memory = m->bytes;
  d.memory_bytes = m->size;
  return open_desc(&d);
}
static ojo_reader *open_path(const char *path) {
  ojo_reader_desc d = desc_of(path);
  return open_desc(&d);
}
static uint64_t count_events(ojo_reader *r) {
  ojo_reader_event e;
  uint64_t count = 0, last = 0;
  bool ascending = true;
  while (ojo_reader_next(r, &e)) {
    ascending = ascending && e.time_ns >= last;
    last = e.time_ns;
    count++;
  }
  EXPECT(ascending);
  return count;
}
static bool has_error(ojo_reader *r, const char *part) {
  for (uint64_t i = 0; i < ojo_reader_error_count(r); i++) {
    const ojo_reader_error *error = ojo_reader_error_at(r, i);
    if (error && strstr(error->text, part)) return true;
  }
  return false;
}
static void expect_errors(ojo_reader *r, uint64_t count, int line) {
  if (check(ojo_reader_error_count(r) == count, "%s:%d: %" PRIu64 " errors", __FILE__, line,
            ojo_reader_error_count(r)))
    return;
  for (uint64_t i = 0; i < ojo_reader_error_count(r) && i < 5; i++) {
    const ojo_reader_error *error = ojo_reader_error_at(r, i);
    printf("  %s at %" PRIu64 ": %s\n", error->path, error->offset, error->text);
  }
}
#define EXPECT_ERRORS(r, count) expect_errors(r, count, __LINE__)
static double seconds(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return (double)now.tv_sec + (double)now.tv_nsec * 1e-9;
}
static uint64_t random_state = 1;
static uint64_t random64(void) {
  random_state ^= random_state << 13;
  random_state ^= random_state >> 7;
  random_state ^= random_state << 17;
  return random_state;
}

/* ---- events */

static const char own_schema[] =
    "{\"events\":[{\"value\":65536,\"name\":\"OWN_NUMBER\",\"category\":\"Mine\",\"description\":\"a "
    "\\\"b\\\" \\u00e9\","
    "\"value_kind\":\"number\"},\n {\"value\":65537,\"name\":\"OWN_RANGE\",\"value_kind\":\"range\"},"
    "{\"value\":65538,\"name\":\"OWN_TEXT\",\"category\":\"Packet\",\"value_kind\":\"text\",\"more\":[1,{"
    "\"x\":null},-2.5e3,true]}]}";

static void test_events(void) {
  made m = made_with_schema(own_schema);
  made_run(&m, 7);
  made_thread(&m, 10, 4711, "worker");
  made_event(&m, 10, OJO_PACKET_CREATED, 3, 100);
  made_sized(&m, 11, OJO_PACKET_SENT, 3, 101, 1200);
  made_number(&m, 12, OJO_PACKET_SENT, 3, UINT64_C(1) << 50, 1300);
  made_sized(&m, 13, OJO_OFFSET_SENT, 4, 1000, 500);
  made_number(&m, 14, OJO_OFFSET_SENT, 4, 1000, 1500);
  made_sized(&m, 15, 65536, 4, 5, 6);
  made_sized(&m, 16, 65537, 4, 5, 6);
  made_number(&m, 17, 65537, 4, 5, 11);
  made_extended(&m, 18, 65538, 4, 1, "hello", 5);
  made_event(&m, 19, 65599, 4, 1);
  uint64_t rtt[3] = {1, 2, 3};
  made_extended(&m, 20, OJO_RTT_SAMPLE, 3, 9, rtt, sizeof rtt);
  made_dropped(&m, 21, 22, 40, OJO_DROP_POOL_FULL);
  made_event(&m, 23, 0x0401, 3, 1);
  ojo_reader *r = open_made(&m);
  ojo_reader_event e[16];
  size_t n = 0;
  while (n < 16 && ojo_reader_next(r, &e[n])) n++;
  EXPECT_EQUAL(n, 13);
  EXPECT_ERRORS(r, 0);
  EXPECT(e[0].time_ns == UNIX + 10 && e[0].ts == 10 && e[0].flow == 3 && e[0].type == OJO_PACKET_CREATED);
  EXPECT(e[0].payload == 100 && !e[0].has_number && !e[0].extension && e[0].thread == 7 &&
         e[0].category == 0);
  EXPECT(e[1].payload == 101 && e[1].has_number && e[1].number == 1200 && !e[1].extension_bytes);
  EXPECT(e[2].payload == UINT64_C(1) << 50 && e[2].has_number && e[2].number == 1300 &&
         e[2].extension_bytes == 24);
  EXPECT(e[3].payload == 1000 && e[3].number == 1500);
  EXPECT(e[4].payload == 1000 && e[4].number == 1500);
  EXPECT(e[5].number == 6 && e[6].number == 11 && e[7].number == 11 && e[5].category == 16);
  EXPECT(!e[8].has_number && e[8].extension_bytes == 24 && memcmp(e[8].extension, "hello\0", 6) == 0);
  ojo_rtt got;
  ojo_dropped dropped;
  EXPECT(ojo_reader_rtt(&e[10], &got) && got.min_ns == 2 && !e[10].has_number);
  EXPECT(e[11].flow == 0 && e[11].thread == 7 && e[11].payload == 40 && e[11].category == 15);
  EXPECT(ojo_reader_dropped(&e[11], &dropped) && dropped.last_ts == 22 && dropped.reason == 1);
  EXPECT(!ojo_reader_dropped(&e[10], &dropped) && !ojo_reader_rtt(&e[11], &got));
  EXPECT(strcmp(ojo_reader_type(r, &e[1])->name, "PACKET_SENT") == 0);
  EXPECT(strcmp(ojo_reader_type(r, &e[1])->category, "Packet") == 0);
  EXPECT(ojo_reader_type(r, &e[3])->value_kind == OJO_VALUE_RANGE);
  EXPECT(strcmp(ojo_reader_type(r, &e[5])->name, "OWN_NUMBER") == 0);
  EXPECT(strcmp(ojo_reader_type(r, &e[5])->category, "Mine") == 0);
  EXPECT(strcmp(ojo_reader_type(r, &e[5])->description, "a \"b\" \xc3\xa9") == 0);
  EXPECT(strcmp(ojo_reader_type(r, &e[6])->category, "Application") == 0);
  EXPECT(ojo_reader_type(r, &e[8])->value_kind == OJO_VALUE_TEXT);
  EXPECT(strcmp(ojo_reader_type(r, &e[9])->name, "0x01003f") == 0);
  EXPECT(strcmp(ojo_reader_type(r, &e[9])->category, "Application") == 0);
  EXPECT(strcmp(ojo_reader_type(r, &e[12])->category, "KernelTCP") == 0);
  EXPECT(strcmp(ojo_reader_type(r, &e[11])->name, "EVENTS_DROPPED") == 0);
  uint32_t tid = 0;
  EXPECT(strcmp(ojo_reader_thread(r, 0, 7, &tid), "worker") == 0 && tid == 4711);
  EXPECT(ojo_reader_thread(r, 0, 8, &tid)[0] == 0 && tid == 0);
  uint64_t types[4];
  EXPECT(ojo_reader_types_by_name(r, "PACKET_SENT", types, 4) == 1 && types[0] == 2);
  EXPECT(ojo_reader_types_by_name(r, "OWN_TEXT", types, 4) == 1 && types[0] == 65538);
  EXPECT(ojo_reader_types_by_name(r, "0x010001", types, 4) == 1 && types[0] == 65537);
  EXPECT(ojo_reader_types_by_name(r, "12", types, 4) == 1 && types[0] == 12);
  EXPECT(ojo_reader_types_by_name(r, "nonsense", types, 4) == 0 &&
         ojo_reader_types_by_name(r, "1x", types, 4) == 0);
  EXPECT(ojo_reader_category_known(r, "Mine") && ojo_reader_category_known(r, "Packet") &&
         ojo_reader_category_known(r, "Application") && ojo_reader_category_known(r, "KernelUDP"));
  EXPECT(!ojo_reader_category_known(r, "mine") && !ojo_reader_category_known(r, ""));
  const ojo_reader_trace_info *trace = ojo_reader_trace(r, 0);
  EXPECT(ojo_reader_trace_count(r) == 1 && trace->pid == 1234 && strcmp(trace->command, "made") == 0);
  EXPECT(trace->first_ns == UNIX + 10 && trace->last_ns == UNIX + 23 && trace->dropped == 40 &&
         trace->files == 1);
  EXPECT(!ojo_reader_trace(r, 1));
  uint64_t total, read = ojo_reader_progress(r, &total);
  EXPECT(total == m.size && read <= total);
  ojo_reader_rewind(r);
  EXPECT_EQUAL(count_events(r), 13);
  EXPECT_EQUAL(trace->dropped, 40);
  ojo_reader_run_view view;
  EXPECT(ojo_reader_next_run(r, &view) && view.thread == 7 && view.tid == 10007 && view.events == 13);
  EXPECT(view.slot_count == (m.size - m.slots_at) / 24 - 3 && view.first_ts == 10 && view.last_ts == 23);
  EXPECT(view.slots[2].payload == 100);
  EXPECT(!ojo_reader_next_run(r, &view));
  ojo_reader_close(r);
  made_free(&m);
}

static void test_schemas(void) {
  static const char *const bad[] = {"",
                                    "{",
                                    "[]",
                                    "{\"events\":{}}",
                                    "{\"events\":[{\"value\":1.5,\"name\":\"x\"}]}",
                                    "{\"events\":[]} x",
                                    "{\"events\":[{\"value\":65536,\"name\":\"x\"},]}",
                                    "{\"events\":[{\"value\":65536,\"name\":\"\\ud800\"}]}",
                                    "{\"events\":[{\"value\":65536,\"name\":\"\xff\"}]}",
                                    "{\"events\":[{\"value\":065536,\"name\":\"x\"}]}",
                                    "{\"events\":[{\"value\":65536,\"name\":\"x\\q\"}]}",
                                    "{\"events\":[{\"value\":65536,\"name\":\"a\nb\"}]}",
                                    "{\"events\":[{\"value\":18446744073709551616,\"name\":\"x\"}]}",
                                    "{\"x\":[[[[[[[[[[[[[[[[[[[[1]]]]]]]]]]]]]]]]]]]]}"};
  for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
    made m = made_with_schema(bad[i]);
    made_run(&m, 1);
    made_event(&m, 1, 65536, 1, 1);
    ojo_reader *r = open_made(&m);
    ojo_reader_event e;
    check(ojo_reader_next(r, &e) && strcmp(ojo_reader_type(r, &e)->name, "0x010000") == 0,
          "bad schema %zu is not used", i);
    check(has_error(r, "schema"), "bad schema %zu is reported", i);
    ojo_reader_close(r);
    made_free(&m);
  }
  made m = made_with_schema(
      "{ \"events\" : [ { \"name\" : \"pair \\ud83d\\ude00\" , \"value\" : 65536 } ] , \"z\" : 1 }\n");
  made_run(&m, 1);
  made_event(&m, 1, 65536, 1, 1);
  ojo_reader *r = open_made(&m);
  ojo_reader_event e;
  EXPECT(ojo_reader_next(r, &e) && strcmp(ojo_reader_type(r, &e)->name, "pair \xf0\x9f\x98\x80") == 0);
  EXPECT_ERRORS(r, 0);
  ojo_reader_close(r);
  m.bytes[150] ^= 1; /* the id does not match any more */
  r = open_made(&m);
  EXPECT(has_error(r, "do not match its id"));
  ojo_reader_close(r);
  made_free(&m);
  /* a type described twice: the first counts */
  m = made_with_schema(
      "{\"events\":[{\"value\":65536,\"name\":\"b\"},{\"value\":65537,\"name\":\"c\"},"
      "{\"value\":65536,\"name\":\"a\"},{\"value\":65536,\"name\":\"d\"}]}");
  made_run(&m, 1);
  made_event(&m, 1, 65536, 1, 1);
  r = open_made(&m);
  EXPECT(ojo_reader_next(r, &e) && strcmp(ojo_reader_type(r, &e)->name, "b") == 0);
  ojo_reader_close(r);
  made_free(&m);
  /* damaged in one file, the schema comes from the next one of the trace */
  mkdir(at("schemas"), 0777);
  for (int f = 0; f < 3; f++) {
    m = made_with_schema(own_schema);
    m.batch = (uint64_t)f;
    made_run(&m, 1);
    made_event(&m, (uint64_t)f, 65536, 1, 1);
    made_finish(&m);
    if (f != 1) m.bytes[160] ^= 1;
    made_write(&m, at("schemas/%d.bin", f));
    made_free(&m);
  }
  for (int f = 0; f < 3; f++) {
    char names[3][300];
    const char *paths[3];
    for (int i = 0; i < 3; i++) {
      snprintf(names[i], sizeof names[i], "%s/schemas/%d.bin", root, (i + f) % 3);
      paths[i] = names[i];
    }
    ojo_reader_desc d;
    memset(&d, 0, sizeof d);
    d.paths = paths;
    d.path_count = 3;
    r = open_desc(&d);
    EXPECT(ojo_reader_next(r, &e) && strcmp(ojo_reader_type(r, &e)->name, "OWN_NUMBER") == 0);
    ojo_reader_close(r);
  }
  /* undescribed types beyond what is kept still have their number as a name */
  m = made_new();
  made_run(&m, 1);
  for (uint32_t i = 0; i < 3000; i++) made_event(&m, i, 0x20000 + i, 1, 1);
  r = open_made(&m);
  bool right = true;
  while (ojo_reader_next(r, &e))
    right = right && strtoull(ojo_reader_type(r, &e)->name, NULL, 16) == e.type;
  EXPECT(right);
  ojo_reader_close(r);
  made_free(&m);
}

/* ---- version 1 */

static void test_version1(void) {
  mkdir(at("v1"), 0777);
  mkdir(at("v1/raw"), 0777);
  mkdir(at("v1/schema"), 0777);
  FILE *file = fopen(at("v1/schema/event_schema_00000000000000ab.json"), "w");
  if (!EXPECT(file != NULL)) return;
  fputs(
      "{\"schema_version\":1,\"events\":[{\"value\":18446744073709551614,\"name\":\"Big\",\"category\":"
      "\"Packet\","
      "\"description\":\"d\",\"module\":\"m\",\"value_type\":1},{\"value\":2,\"name\":\"Two\","
      "\"category\":\"Odd\","
      "\"value_type\":6}]}",
      file);
  fclose(file);
  made m = made_version1(UNIX, 0xab);
  made_record1(&m, 5, UINT64_MAX - 1, UINT64_MAX - 1, 7, 8);
  made_record1(&m, 3, 2, 2, UINT64_MAX, 9);
  made_record1(&m, 6, UINT64_MAX, UINT64_MAX, 40, 0);
  made_record1(&m, 7, 1, 77, 1, 2);
  made_write(&m, at("v1/raw/trace_1.bin"));
  made_free(&m);
  m = made_version1(UNIX + 4, 0xab);
  made_record1(&m, 0, 1, 2, 1, 1);
  made_write(&m, at("v1/raw/trace_0.bin"));
  for (int lone = 0; lone < 2; lone++) {
    ojo_reader *r = open_path(lone ? at("v1/raw/trace_1.bin") : at("v1"));
    ojo_reader_event e[8];
    size_t n = 0;
    while (n < 8 && ojo_reader_next(r, &e[n])) n++;
    EXPECT_ERRORS(r, 0);
    EXPECT_EQUAL(n, lone ? 4 : 5);
    EXPECT(e[0].time_ns == UNIX + 3 && e[0].ts == 3 && e[0].flow == 2 && e[0].payload == UINT64_MAX);
    EXPECT(e[0].has_number && e[0].number == 9 && e[0].thread == 0);
    EXPECT(strcmp(ojo_reader_type(r, &e[0])->name, "Two") == 0 && e[0].category == 16);
    EXPECT(strcmp(ojo_reader_type(r, &e[0])->category, "Odd") == 0);
    if (!lone) EXPECT(e[1].time_ns == UNIX + 4 && e[1].ts == 4);
    ojo_reader_event *big = &e[lone ? 1 : 2];
    EXPECT(big->flow == UINT64_MAX - 1 && big->type == UINT64_MAX - 1 && big->category == 0);
    EXPECT(strcmp(ojo_reader_type(r, big)->name, "Big") == 0);
    EXPECT(big[1].type == OJO_EVENTS_DROPPED && big[1].payload == 40 && big[1].flow == 0 &&
           big[1].category == 15);
    EXPECT(strcmp(ojo_reader_type(r, &big[2])->name, "0x00004d") == 0);
    EXPECT(ojo_reader_trace_count(r) == 1 && ojo_reader_trace(r, 0)->version == 1);
    EXPECT(ojo_reader_trace(r, 0)->dropped == 40 && ojo_reader_trace(r, 0)->last_ns == UNIX + 7);
    EXPECT(ojo_reader_flow(r, UINT64_MAX - 1) && ojo_reader_flow(r, 1) && !ojo_reader_flow(r, 99));
    ojo_reader_run_view view;
    EXPECT(!ojo_reader_next_run(r, &view));
    ojo_reader_close(r);
  }
  uint64_t flows[1] = {UINT64_MAX - 1};
  ojo_reader_desc d = desc_of(at("v1"));
  d.flows = flows;
  d.flow_count = 1;
  ojo_reader *r = open_desc(&d);
  EXPECT_EQUAL(count_events(r), 1);
  ojo_reader_close(r);
  made_free(&m);
  /* a file of more than a window, nearly in order, and one cut off within a record */
  m = made_version1(UNIX, 0xab);
  for (uint64_t i = 0; i < 200000; i++) made_record1(&m, i * 10 + random64() % 1000, 1, 2, i, 0);
  made_more(&m, 13);
  made_write(&m, at("v1/raw/trace_2.bin"));
  r = open_path(at("v1/raw/trace_2.bin"));
  EXPECT_EQUAL(count_events(r), 200000);
  EXPECT_ERRORS(r, 1);
  EXPECT(has_error(r, "cut off"));
  ojo_reader_close(r);
  made_free(&m);
}

/* ---- sources */

static void write_text(const char *path, const char *text) {
  FILE *file = fopen(path, "w");
  if (!file) return;
  fputs(text, file);
  fclose(file);
}

static void write_one(const char *path, uint64_t ts, uint8_t trace) {
  made m = made_new();
  m.trace_id[0] = trace;
  made_run(&m, 1);
  made_event(&m, ts, OJO_PACKET_SENT, 1, ts);
  made_finish(&m);
  EXPECT(made_write(&m, path));
  made_free(&m);
}
static void test_sources(void) {
  ojo_reader *r = NULL;
  ojo_reader_desc d = desc_of(at("none"));
  EXPECT_EQUAL(ojo_reader_open(&r, &d), OJO_ERR_NOT_FOUND);
  EXPECT(r && ojo_reader_error_count(r) == 1 && ojo_reader_error_at(r, 0)->result == OJO_ERR_NOT_FOUND);
  ojo_reader_close(r);
  memset(&d, 0, sizeof d);
  EXPECT(ojo_reader_open(&r, &d) == OJO_ERR_ARGUMENT && !r);
  EXPECT(ojo_reader_open(&r, NULL) == OJO_ERR_ARGUMENT && ojo_reader_open(NULL, &d) == OJO_ERR_ARGUMENT);
  ojo_reader_close(NULL);

  mkdir(at("dir"), 0777);
  r = open_path(at("dir"));
  EXPECT(count_events(r) == 0 && ojo_reader_error_count(r) == 0 && ojo_reader_trace_count(r) == 0);
  ojo_reader_close(r);
  write_one(at("dir/a.bin"), 1, 1);
  write_one(at("dir/not.txt"), 1, 1);
  r = open_path(at("dir"));
  EXPECT_EQUAL(count_events(r), 1);
  ojo_reader_close(r);
  mkdir(at("dir/output"), 0777);
  mkdir(at("dir/staging"), 0777);
  write_one(at("dir/staging/x.bin"), 5, 1);
  write_one(at("dir/output/b.bin"), 2, 1);
  write_one(at("dir/output/c.bin"), 3, 2);
  r = open_path(at("dir"));
  EXPECT(count_events(r) == 2 && ojo_reader_trace_count(r) == 2);
  EXPECT_ERRORS(r, 0);
  ojo_reader_close(r);

  /* bad files beside good ones */
  FILE *file = fopen(at("dir/output/empty.bin"), "w");
  if (file) fclose(file);
  file = fopen(at("dir/output/text.bin"), "w");
  if (file) fputs("this is no trace file at all", file), fclose(file);
  made m = made_new();
  made_finish(&m);
  m.bytes[4] = 3;
  made_write(&m, at("dir/output/version3.bin"));
  made_free(&m);
  const char *paths[3] = {at("dir"), at("none"), at("dir/a.bin")};
  memset(&d, 0, sizeof d);
  d.paths = paths;
  d.path_count = 3;
  r = open_desc(&d);
  EXPECT_EQUAL(count_events(r), 3);
  EXPECT_ERRORS(r, 4);
  EXPECT(has_error(r, "empty file") && has_error(r, "not an ojo file") && has_error(r, "version") &&
         has_error(r, "no such"));
  ojo_reader_close(r);
  d = desc_of(at("dir/output/empty.bin"));
  EXPECT_EQUAL(ojo_reader_open(&r, &d), OJO_ERR_FORMAT);
  EXPECT(r && has_error(r, "empty file"));
  ojo_reader_close(r);

  /* standard input: a pipe, and a file */
  int saved = dup(0), pipes[2];
  if (!EXPECT(saved >= 0 && pipe(pipes) == 0)) return;
  size_t bytes;
  char *data = check_load(at("dir/a.bin"), &bytes);
  EXPECT(data && write(pipes[1], data, bytes) == (ssize_t)bytes);
  free(data);
  close(pipes[1]);
  dup2(pipes[0], 0);
  close(pipes[0]);
  r = open_path("-");
  EXPECT_EQUAL(count_events(r), 1);
  ojo_reader_rewind(r);
  EXPECT_EQUAL(count_events(r), 1);
  ojo_reader_close(r);
  int fd = open(at("dir/a.bin"), O_RDONLY);
  dup2(fd, 0);
  close(fd);
  r = open_path("-");
  EXPECT_EQUAL(count_events(r), 1);
  ojo_reader_close(r);
  dup2(saved, 0);
  close(saved);
}

/* ---- the merge */

typedef struct expected {
  uint64_t time, payload;
  uint32_t trace, thread, level;
  uint64_t place;
} expected;
static int by_order(const void *a, const void *b) {
  const expected *x = (const expected *)a, *y = (const expected *)b;
#define BY(f) \
  if (x->f != y->f) return x->f < y->f ? -1 : 1
  BY(time);
  BY(trace);
  BY(thread);
  BY(level);
  BY(place);
#undef BY
  return 0;
}
/* Random runs of several threads and levels in several files of two traces: order and content must be
 * those of a plain sort by (time, trace, thread, level, place). */
static void merge_once(unsigned round, bool unsorted) {
  enum { THREADS = 5, FILES = 6 };
  static expected want[20000];
  size_t wanted = 0;
  uint64_t ordinal[2][THREADS][2] = {{{0}}}, clock[2][THREADS][2] = {{{0}}};
  const char *paths[FILES];
  static char names[FILES][512];
  for (int f = 0; f < FILES; f++) {
    made m = made_new();
    uint32_t trace = (uint32_t)f & 1;
    m.trace_id[0] = (uint8_t)(trace + 1);
    m.batch = (uint64_t)f / 2;
    m.checksums = f & 2;
    int runs = 1 + (int)(random64() % 12);
    for (int i = 0; i < runs; i++) {
      uint32_t thread = 1 + (uint32_t)(random64() % THREADS), level = random64() % 8 == 0;
      uint64_t *now = &clock[trace][thread - 1][level], *place = &ordinal[trace][thread - 1][level];
      made_run(&m, thread);
      m.run_ordinal = *place;
      m.run_level = level;
      made_thread(&m, *now, 1, "t");
      int events = 1 + (int)(random64() % (round % 3 == 0 ? 400 : 20));
      for (int k = 0; k < events && wanted < sizeof want / sizeof *want; k++) {
        *now += random64() % 4;
        uint64_t ts = unsorted && random64() % 4 == 0 ? *now - random64() % (*now / 2 + 1) : *now;
        expected x = {UNIX + ts, wanted, trace, thread, level, (*place)++};
        want[wanted++] = x;
        if (random64() % 16 == 0)
          made_extended(&m, ts, 65536, 1, x.payload, "abcdefghijklmnopqrstuvwxyz", 26);
        else made_event(&m, ts, OJO_PACKET_SENT, 1, x.payload);
      }
    }
    made_finish(&m);
    snprintf(names[f], sizeof names[f], "%s/merge%d.bin", root, f);
    paths[f] = names[f];
    made_write(&m, paths[f]);
    made_free(&m);
  }
  ojo_reader_desc d;
  memset(&d, 0, sizeof d);
  d.paths = paths;
  d.path_count = FILES;
  qsort(want, wanted, sizeof *want, by_order);
  ojo_reader *r = open_desc(&d);
  ojo_reader_event e;
  size_t got = 0, wrong = 0;
  while (ojo_reader_next(r, &e)) {
    if (got >= wanted || e.time_ns != want[got].time || e.payload != want[got].payload ||
        e.thread != want[got].thread || e.trace != want[got].trace || e.level != want[got].level)
      wrong++;
    got++;
  }
  check(got == wanted && wrong == 0, "merge round %u: %zu of %zu events, %zu out of place", round, got,
        wanted, wrong);
  EXPECT_ERRORS(r, 0);
  ojo_reader_close(r);
}
static void test_merge(void) {
  for (unsigned round = 0; round < 60; round++) merge_once(round, round % 2);

  /* times that go back without the flag: sorted all the same, and reported */
  made m = made_new();
  made_run(&m, 1);
  for (uint64_t i = 0; i < 500; i++) made_event(&m, (i ^ 37) + 1, OJO_PACKET_SENT, 1, i);
  m.run_flags = 0;
  made_run(&m, 2);
  for (uint64_t i = 0; i < 500; i++) made_event(&m, i + 1, OJO_PACKET_SENT, 1, i);
  ojo_reader *r = open_made(&m);
  EXPECT_EQUAL(count_events(r), 1000);
  EXPECT_ERRORS(r, 1);
  EXPECT(has_error(r, "not marked UNSORTED"));
  ojo_reader_close(r);
  made_free(&m);

  /* a run far larger than a chunk, out of order within what the window can mend, and beyond it */
  for (int beyond = 0; beyond < 2; beyond++) {
    m = made_new();
    made_run(&m, 1);
    for (uint64_t i = 0; i < 300000; i++)
      made_event(&m, beyond ? 300000 - i : (i / 1000) * 1000 + 999 - i % 1000, OJO_PACKET_SENT, 1, i);
    r = open_made(&m);
    ojo_reader_event e;
    uint64_t n = 0, last = 0, back = 0;
    while (ojo_reader_next(r, &e)) {
      back += e.time_ns < last;
      last = e.time_ns;
      n++;
    }
    EXPECT_EQUAL(n, 300000);
    EXPECT(beyond ? back > 0 && has_error(r, "sorting window")
                  : back == 0 && ojo_reader_error_count(r) == 0);
    ojo_reader_close(r);
    made_free(&m);
  }

  /* times at the end of time */
  m = made_new();
  made_run(&m, 1);
  made_event(&m, UINT64_MAX - 1, OJO_PACKET_SENT, 1, 1);
  made_event(&m, UINT64_MAX, OJO_PACKET_SENT, 1, 2);
  made_run(&m, 2);
  made_event(&m, UINT64_MAX, OJO_PACKET_SENT, 1, 3);
  r = open_made(&m);
  EXPECT_EQUAL(count_events(r), 3);
  ojo_reader_close(r);
  made_free(&m);

  /* ten thousand runs of one event */
  m = made_new();
  for (uint32_t i = 0; i < 10000; i++) {
    made_run(&m, i + 1);
    made_event(&m, 1000 + i % 7, OJO_PACKET_SENT, 1, i);
  }
  r = open_made(&m);
  EXPECT_EQUAL(count_events(r), 10000);
  EXPECT_ERRORS(r, 0);
  ojo_reader_close(r);
  made_free(&m);
}

static void test_alignment(void) {
  static const struct {
    uint64_t unix_ns, mono;
    uint8_t boot;
    uint32_t clock;
    uint64_t expected;
  } traces[] = {{UNIX, 1000, 1, 3, UNIX},               /* the earliest of its boot */
                {UNIX + 77777, 1500, 1, 3, UNIX + 500}, /* the wall clock was set in between */
                {UNIX + 9, 1400, 2, 3, UNIX + 9},       /* another boot */
                {0, 0, 1, 2, 0},                        /* a manual clock stays apart */
                {UNIX + 5, 900, 0, 3, UNIX + 5}};       /* boot unknown */
  static char names[5][512];
  const char *paths[5];
  for (int i = 0; i < 5; i++) {
    made m = made_new();
    m.trace_id[0] = (uint8_t)(i + 1);
    m.start_unix_ns = traces[i].unix_ns;
    m.start_monotonic_ns = traces[i].mono;
    m.boot_id[0] = traces[i].boot;
    m.clock = traces[i].clock;
    made_run(&m, 1);
    made_event(&m, 0, OJO_PACKET_SENT, 1, (uint64_t)i);
    made_finish(&m);
    snprintf(names[i], sizeof names[i], "%s/align%d.bin", root, i);
    paths[4 - i] = names[i]; /* the earliest comes last */
    made_write(&m, names[i]);
    made_free(&m);
  }
  ojo_reader_desc d;
  memset(&d, 0, sizeof d);
  d.paths = paths;
  d.path_count = 5;
  ojo_reader *r = open_desc(&d);
  ojo_reader_event e;
  uint64_t n = 0;
  for (; ojo_reader_next(r, &e); n++) EXPECT_EQUAL(e.time_ns, traces[e.payload].expected);
  EXPECT_EQUAL(n, 5);
  ojo_reader_close(r);
}

/* ---- snapshots */

/* A flight recorder, imitated: lines (thread, level) of events in chunks, of which the oldest are overwritten;
 * losses, after which a new chunk begins; threads that end. What is in its snapshots is known exactly. */
enum { LINES = 8, LINE_EVENTS = 600, CHUNK_EVENTS = 12, SNAPSHOTS = 6 };
struct recorded {
  uint64_t ts, ordinal, payload, lost; /* lost: before it */
  bool starts_chunk;
};
struct line {
  struct recorded events[LINE_EVENTS];
  uint64_t count, attempts, lost, lost_first, lost_last, held; /* held: the first event that is */
  bool ended, gap;
};
struct taken { /* of one snapshot */
  uint64_t recorded, lost; /* up to it */
  unsigned char in[LINES][LINE_EVENTS];
};
static struct line lines[LINES];
static struct taken taken[SNAPSHOTS];
static uint64_t now_ts, ended_recorded, ended_lost;

static uint32_t thread_of(uint32_t line) { return 1 + line / 2; }
static void record_some(uint64_t count) {
  for (uint64_t i = 0; i < count; i++) {
    struct line *l = &lines[random64() % LINES];
    now_ts += random64() % 3;
    if (l->ended || l->count == LINE_EVENTS) continue;
    if (random64() % 16 == 0) {
      for (uint64_t n = 1 + random64() % 3; n; n--) {
        if (!l->gap) l->lost_first = now_ts;
        l->lost_last = now_ts;
        l->gap = true;
        l->lost++;
        l->attempts++;
      }
      continue;
    }
    struct recorded *e = &l->events[l->count];
    bool full = l->count && l->count % CHUNK_EVENTS == 0;
    e->starts_chunk = l->count == 0 || full || l->gap;
    e->ts = now_ts;
    e->ordinal = l->attempts++;
    e->lost = l->lost;
    e->payload = (uint64_t)(l - lines) << 32 | l->count++;
    l->gap = false;
  }
}
static void overwrite(struct line *l, uint64_t up_to) { /* whole chunks */
  while (l->held < up_to) {
    l->held++;
    while (l->held < l->count && !l->events[l->held].starts_chunk) l->held++;
  }
}
static void end_thread(uint32_t thread) {
  for (uint32_t k = 0; k < LINES; k++) {
    if (thread_of(k) != thread || lines[k].ended) continue;
    lines[k].ended = true;
    lines[k].held = lines[k].count;
    ended_recorded += lines[k].count;
    ended_lost += lines[k].lost;
  }
}
static void put_line(made *m, uint32_t k, struct taken *t) {
  struct line *l = &lines[k];
  uint64_t ordinal = 0, lost = 0, told_ts = 0, overwritten = 0;
  bool any = false;
  for (uint64_t i = l->held; i < l->count;) {
    uint64_t end = i + 1;
    while (end < l->count && !l->events[end].starts_chunk) end++;
    if (i > l->held && end < l->count && random64() % 16 == 0) { /* overwritten while the snapshot was taken */
      i = end;
      continue;
    }
    const struct recorded *first = &l->events[i];
    uint64_t gap = first->ordinal - ordinal, lost_gap = first->lost - lost;
    made_run(m, thread_of(k));
    m->run_level = k % 2;
    if (!any) made_thread(m, 0, 1, "t");
    if (gap > lost_gap) made_dropped(m, told_ts, first->ts, gap - lost_gap, OJO_DROP_OVERWRITTEN);
    if (lost_gap) made_dropped(m, first->ts > 2 ? first->ts - 2 : 0, first->ts, lost_gap, OJO_DROP_NESTING);
    m->run_ordinal = first->ordinal;
    lost = first->lost;
    overwritten += gap - lost_gap;
    m->run_lost = lost + overwritten;
    for (; i < end; i++) {
      if (l->events[i].payload % 7 == 0)
        made_number(m, l->events[i].ts, OJO_PACKET_SENT, 1 + k, l->events[i].payload, i);
      else made_event(m, l->events[i].ts, OJO_PACKET_SENT, 1 + k, l->events[i].payload);
      t->in[k][i] = 1;
      told_ts = l->events[i].ts;
    }
    ordinal = l->events[end - 1].ordinal + 1;
    any = true;
  }
  if (!any && l->count) { /* as the tracer tells of a thread of which no chunk is left */
    made_run(m, thread_of(k));
    m->run_level = k % 2;
    made_dropped(m, 0, now_ts, l->count, OJO_DROP_OVERWRITTEN);
    m->run_ordinal = m->run_lost = overwritten = l->count;
  }
  if (l->lost == lost) return;
  made_run(m, thread_of(k));
  m->run_level = k % 2;
  made_dropped(m, l->lost_first, l->lost_last, l->lost - lost, OJO_DROP_NESTING);
  m->run_ordinal = l->attempts;
  m->run_lost = l->lost + overwritten;
}
static made take_snapshot(uint32_t number) {
  struct taken *t = &taken[number];
  made m = made_new();
  m.flags = number % 3 == 2 ? OJO_FILE_COMPLETE | OJO_FILE_RECOVERED : OJO_FILE_COMPLETE | OJO_FILE_SNAPSHOT;
  m.batch = number;
  memset(t, 0, sizeof *t);
  t->recorded = ended_recorded;
  t->lost = ended_lost;
  for (uint32_t k = 0; k < LINES; k++) {
    if (lines[k].ended) continue;
    t->recorded += lines[k].count;
    t->lost += lines[k].lost;
    put_line(&m, k, t);
  }
  if (ended_recorded || ended_lost) {
    made_run(&m, 0);
    if (ended_recorded) made_dropped(&m, 0, now_ts, ended_recorded, OJO_DROP_OVERWRITTEN);
    if (ended_lost) made_dropped(&m, 0, now_ts, ended_lost, OJO_DROP_POOL_FULL);
    m.run_ordinal = 0;
  }
  made_finish(&m);
  return m;
}
struct sums {
  uint64_t events, twice, unknown, overwritten, lost, back;
};
static void sum_slot(struct sums *s, unsigned char seen[LINES][LINE_EVENTS], uint32_t type, uint64_t payload,
                     uint32_t reason) {
  if (type == OJO_EVENTS_DROPPED) {
    if (reason == OJO_DROP_OVERWRITTEN) s->overwritten += payload;
    else s->lost += payload;
    return;
  }
  uint64_t k = payload >> 32, i = payload & UINT32_MAX;
  s->events++;
  if (k >= LINES || i >= LINE_EVENTS) s->unknown++;
  else if (seen[k][i]++) s->twice++;
}
static struct sums sum_events(ojo_reader *r) {
  static unsigned char seen[LINES][LINE_EVENTS];
  struct sums s;
  ojo_reader_event e;
  uint64_t last = 0, last_of[LINES] = {0};
  memset(&s, 0, sizeof s);
  memset(seen, 0, sizeof seen);
  while (ojo_reader_next(r, &e)) {
    ojo_dropped d = {0, 0, 0, 0};
    s.back += e.time_ns < last;
    last = e.time_ns;
    ojo_reader_dropped(&e, &d);
    if (e.type == OJO_EVENTS_DROPPED) s.back += d.first_ts != e.ts || d.last_ts < d.first_ts;
    if (e.type == OJO_PACKET_SENT && e.flow >= 1 && e.flow <= LINES) { /* a line's events in their order */
      s.back += e.payload < last_of[e.flow - 1];
      last_of[e.flow - 1] = e.payload;
    }
    sum_slot(&s, seen, (uint32_t)e.type, e.payload, d.reason);
  }
  return s;
}
static struct sums sum_runs(ojo_reader *r) {
  static unsigned char seen[LINES][LINE_EVENTS];
  struct sums s;
  ojo_reader_run_view v;
  memset(&s, 0, sizeof s);
  memset(seen, 0, sizeof seen);
  while (ojo_reader_next_run(r, &v)) {
    uint64_t events = 0, rows = 0;
    for (uint64_t i = 0; i < v.slot_count; i += 1 + (v.slots[i].type >> OJO_EXTENSION_SHIFT)) {
      uint32_t type = v.slots[i].type & OJO_TYPE_MASK, reason = 0;
      if (type == OJO_THREAD) continue;
      if (type == OJO_EVENTS_DROPPED) memcpy(&reason, (const char *)&v.slots[i + 1] + 16, 4), rows++;
      if (type == OJO_PACKET_SENT)
        s.unknown += lines[v.slots[i].payload >> 32].events[v.slots[i].payload & UINT32_MAX].ordinal !=
                     v.first_ordinal + events - rows;
      sum_slot(&s, seen, type, v.slots[i].payload, reason);
      events++;
    }
    s.unknown += events != v.events;
  }
  return s;
}
/* Snapshots of a random trace: any of them together give what is in one of them once, and tell what is missing
 * of what was recorded up to the last. */
static void test_snapshots(void) {
  char names[SNAPSHOTS][300];
  bool ok = true;
  random_state = 0x5eed;
  for (int round = 0; round < 60 && ok; round++) {
    memset(lines, 0, sizeof lines);
    now_ts = ended_recorded = ended_lost = 0;
    for (uint32_t n = 0; n < SNAPSHOTS; n++) {
      record_some(random64() % 400);
      for (uint32_t k = 0; k < LINES; k++)
        if (random64() % 2) overwrite(&lines[k], lines[k].held + random64() % (lines[k].count - lines[k].held + 1));
      if (random64() % 4 == 0) end_thread(1 + (uint32_t)(random64() % (LINES / 2)));
      made m = take_snapshot(n);
      snprintf(names[n], sizeof names[n], "%s/snapshot%u.bin", root, n);
      EXPECT(made_write(&m, names[n]));
      made_free(&m);
    }
    for (uint32_t set = 1; set < 1u << SNAPSHOTS && ok; set++) {
      const char *paths[SNAPSHOTS];
      ojo_reader_desc d;
      memset(&d, 0, sizeof d);
      uint64_t events = 0, last = 0;
      bool snapshot = false;
      for (uint32_t n = 0; n < SNAPSHOTS; n++) {
        if (!(set >> n & 1)) continue;
        size_t at_index = (size_t)(random64() % (d.path_count + 1)); /* in any order */
        for (size_t i = d.path_count; i > at_index; i--) paths[i] = paths[i - 1];
        paths[at_index] = names[n];
        d.path_count++;
        last = n;
        snapshot = snapshot || n % 3 != 2;
      }
      if (!snapshot && d.path_count > 1) continue; /* recovered twice: no such thing */
      for (uint32_t k = 0; k < LINES; k++)
        for (uint64_t i = 0; i < LINE_EVENTS; i++) {
          unsigned char in = 0;
          for (uint32_t n = 0; n < SNAPSHOTS; n++) in |= (set >> n & 1) && taken[n].in[k][i];
          events += in;
        }
      d.paths = paths;
      ojo_reader *r = open_desc(&d);
      for (int pass = 0; pass < 3; pass++) { /* events, runs, and after rewind */
        if (pass) ojo_reader_rewind(r);
        struct sums s = pass == 1 ? sum_runs(r) : sum_events(r);
        ok = check(s.events == events && s.twice == 0 && s.unknown == 0 && s.back == 0 &&
                       s.overwritten == taken[last].recorded - events && s.lost == taken[last].lost,
                   "snapshots: round %d, set %x, pass %d: %" PRIu64 " events of %" PRIu64 ", %" PRIu64
                   " twice, %" PRIu64 " unknown, %" PRIu64 " back, %" PRIu64 " overwritten of %" PRIu64
                   ", %" PRIu64 " lost of %" PRIu64,
                   round, set, pass, s.events, events, s.twice, s.unknown, s.back, s.overwritten,
                   taken[last].recorded - events, s.lost, taken[last].lost) &&
             ok;
        if (pass == 1) continue;
        ok = check(ojo_reader_trace(r, 0)->dropped == s.overwritten + s.lost, "snapshots: dropped") && ok;
        uint64_t total, done = ojo_reader_progress(r, &total);
        ok = check(done == total, "snapshots: progress") && ok;
        if (pass == 0) continue;
        for (uint64_t i = 0; i < ojo_reader_flow_count(r); i++) events -= ojo_reader_flow_at(r, i)->events;
        ok = check(events == 0, "snapshots: the flows' events") && ok;
      }
      ok = check(ojo_reader_error_count(r) == 0, "snapshots: no errors") && ok;
      ojo_reader_close(r);
    }
  }
}

static made snapshot_of(uint64_t batch, uint32_t flags) {
  made m = made_new();
  m.flags = OJO_FILE_COMPLETE | flags;
  m.batch = batch;
  return m;
}
static void put_run(made *m, uint64_t ordinal, uint64_t events, uint64_t overwritten) {
  made_run(m, 1);
  if (overwritten) made_dropped(m, 0, ordinal * 10, overwritten, OJO_DROP_OVERWRITTEN);
  for (uint64_t i = ordinal; i < ordinal + events; i++) made_event(m, i * 10, OJO_PACKET_SENT, 1, i);
  m->run_ordinal = ordinal;
}
static const char *snapshot_names[4];
static void write_snapshot(made *m, int n) {
  static char names[4][300];
  made_finish(m);
  snprintf(names[n], sizeof names[n], "%s/odd%d.bin", root, n);
  EXPECT(made_write(m, names[n]));
  made_free(m);
  snapshot_names[n] = names[n];
}
static ojo_reader *open_snapshots(ojo_reader_desc *d, size_t count) {
  d->paths = snapshot_names;
  d->path_count = count;
  return open_desc(d);
}
static uint64_t sum_dropped(ojo_reader *r, uint64_t *events) {
  ojo_reader_event e;
  uint64_t dropped = 0;
  while (ojo_reader_next(r, &e))
    if (e.type == OJO_EVENTS_DROPPED) dropped += e.payload;
    else ++*events;
  return dropped;
}
static void expect_snapshots(size_t count, uint64_t events, uint64_t dropped, uint64_t errors, int line) {
  ojo_reader_desc d;
  memset(&d, 0, sizeof d);
  ojo_reader *r = open_snapshots(&d, count);
  uint64_t n = 0, got = sum_dropped(r, &n);
  check(n == events && got == dropped, "%s:%d: %" PRIu64 " events, %" PRIu64 " dropped", __FILE__, line, n, got);
  expect_errors(r, errors, line);
  EXPECT(errors == 0 || has_error(r, "contradict"));
  ojo_reader_close(r);
}
#define EXPECT_SNAPSHOTS(count, events, dropped, errors) \
  expect_snapshots(count, events, dropped, errors, __LINE__)

static void test_snapshot_gap(void) { /* what is told of a gap: how many, and between which times */
  made m = snapshot_of(0, OJO_FILE_SNAPSHOT);
  put_run(&m, 100, 100, 100);
  write_snapshot(&m, 0);
  m = snapshot_of(1, OJO_FILE_SNAPSHOT);
  put_run(&m, 300, 100, 300);
  write_snapshot(&m, 1);
  m = snapshot_of(2, OJO_FILE_SNAPSHOT);
  put_run(&m, 350, 100, 350);
  write_snapshot(&m, 2);
  ojo_reader_desc d;
  memset(&d, 0, sizeof d);
  ojo_reader *r = open_snapshots(&d, 3);
  ojo_reader_event e;
  ojo_dropped gap;
  uint64_t n = 0;
  for (; ojo_reader_next(r, &e); n++) {
    if (n == 0)
      EXPECT(ojo_reader_dropped(&e, &gap) && e.payload == 100 && e.ts == 0 && gap.last_ts == 1000 &&
             e.thread == 1 && e.extension_bytes == 24);
    else if (n == 101)
      EXPECT(ojo_reader_dropped(&e, &gap) && e.payload == 100 && e.ts == 1990 && gap.first_ts == 1990 &&
             gap.last_ts == 3000 && gap.reason == OJO_DROP_OVERWRITTEN);
    else EXPECT(e.type == OJO_PACKET_SENT && e.payload * 10 == e.ts);
  }
  EXPECT_EQUAL(n, 252);
  EXPECT_EQUAL(ojo_reader_trace(r, 0)->dropped, 200);
  ojo_reader_close(r);
  /* filters: an event is given also if the file that would give it is out of the time range */
  for (uint64_t since = 0; since < 4600; since += 365) {
    memset(&d, 0, sizeof d);
    d.since_ns = UNIX + since;
    d.until_ns = UNIX + since + 700;
    uint64_t wanted = 0;
    for (uint64_t i = 100; i < 450; i++)
      wanted += (i < 200 || i >= 300) && i * 10 >= since && i * 10 < since + 700;
    r = open_snapshots(&d, 3);
    n = 0;
    sum_dropped(r, &n);
    check(n == wanted, "snapshots from %" PRIu64 ": %" PRIu64 " of %" PRIu64, since, n, wanted);
    ojo_reader_close(r);
  }
  EXPECT_SNAPSHOTS(3, 250, 200, 0);
  snapshot_names[1] = snapshot_names[0]; /* a file and itself: the same events */
  EXPECT_SNAPSHOTS(2, 100, 100, 0);
}
/* Ordinals that lie lose nothing, and are reported; damage in one file is made up for by another. */
static void test_snapshot_damage(void) {
  made m = snapshot_of(0, OJO_FILE_SNAPSHOT);
  put_run(&m, 0, 100, 0);
  write_snapshot(&m, 0);
  m = snapshot_of(1, OJO_FILE_SNAPSHOT); /* other events under the same ordinals */
  put_run(&m, 500, 100, 0);
  m.run_ordinal = 50;
  write_snapshot(&m, 1);
  EXPECT_SNAPSHOTS(2, 200, 0, 1);
  m = snapshot_of(1, OJO_FILE_SNAPSHOT); /* beyond 64 bits */
  put_run(&m, 500, 100, 0);
  m.run_ordinal = UINT64_MAX - 7;
  write_snapshot(&m, 1);
  EXPECT_SNAPSHOTS(2, 200, 0, 1);
  m = snapshot_of(1, OJO_FILE_SNAPSHOT); /* one event differs: all are given; a third agrees with the first */
  put_run(&m, 0, 120, 0);
  put_run(&m, 120, 10, 0);
  made_end_run(&m);
  made_put(&m, m.slots_at + 72 + 60 * 24 + 16, 7777, 8);
  write_snapshot(&m, 1);
  m = snapshot_of(2, OJO_FILE_SNAPSHOT);
  put_run(&m, 60, 60, 60);
  write_snapshot(&m, 2);
  /* the longest run goes first, and what it says counts: 120 and 10, then two runs that contradict it */
  EXPECT_SNAPSHOTS(3, 120 + 10 + 100 + 60, 0, 2);
  /* times: up to 10 ms apart are the same */
  for (int far = 0; far < 2; far++) {
    m = snapshot_of(1, OJO_FILE_SNAPSHOT);
    made_run(&m, 1);
    for (uint64_t i = 50; i < 150; i++)
      made_event(&m, i * 10 + (far ? 10000001 : 10000000), OJO_PACKET_SENT, 1, i);
    m.run_ordinal = 50;
    write_snapshot(&m, 1);
    EXPECT_SNAPSHOTS(2, far ? 200 : 150, 0, (uint64_t)far);
  }
  /* counts that their run denies are told as they are */
  m = snapshot_of(1, OJO_FILE_SNAPSHOT);
  put_run(&m, 50, 100, 51);
  write_snapshot(&m, 1);
  EXPECT_SNAPSHOTS(2, 150, 51, 1);
  m = snapshot_of(1, OJO_FILE_SNAPSHOT);
  put_run(&m, 50, 100, 0);
  made_dropped(&m, 2000, 2000, 151, OJO_DROP_POOL_FULL);
  m.run_ordinal = 50;
  write_snapshot(&m, 1);
  EXPECT_SNAPSHOTS(2, 150, 151, 1);
  /* a run that claims more than it has covers only what is there */
  m = snapshot_of(0, OJO_FILE_SNAPSHOT);
  put_run(&m, 0, 100, 0);
  made_end_run(&m);
  made_put(&m, m.slots_at + 48, 1000000, 4);
  memset(m.bytes + m.slots_at + 72 + 40 * 24, 0, 24);
  write_snapshot(&m, 0);
  m = snapshot_of(1, OJO_FILE_SNAPSHOT);
  put_run(&m, 30, 100, 30);
  write_snapshot(&m, 1);
  ojo_reader_desc d;
  memset(&d, 0, sizeof d);
  ojo_reader *r = open_snapshots(&d, 2);
  uint64_t n = 0;
  EXPECT_EQUAL(sum_dropped(r, &n), 0);
  EXPECT_EQUAL(n, 130);
  EXPECT(ojo_reader_error_count(r) == 1 && has_error(r, "never written"));
  ojo_reader_close(r);
  /* ordinal by ordinal against one long run: linear */
  m = snapshot_of(0, OJO_FILE_SNAPSHOT);
  put_run(&m, 0, 200000, 0);
  write_snapshot(&m, 0);
  m = snapshot_of(1, OJO_FILE_SNAPSHOT);
  for (uint64_t i = 0; i < 200000; i++) put_run(&m, i, 1, 0);
  put_run(&m, 1, 200000, 0);
  write_snapshot(&m, 1);
  double start = seconds();
  EXPECT_SNAPSHOTS(2, 200001, 0, 0);
  m = snapshot_of(0, OJO_FILE_SNAPSHOT); /* and a long run over many short ones */
  for (uint64_t i = 0; i < 200000; i++) put_run(&m, i, 1, 0);
  write_snapshot(&m, 0);
  EXPECT_SNAPSHOTS(2, 200001, 0, 0);
  EXPECT(seconds() - start < 20);
  /* a file that goes after the plan was made is missed */
  r = open_snapshots(&d, 2);
  ojo_reader_run_view view;
  EXPECT(ojo_reader_next_run(r, &view));
  unlink(snapshot_names[0]);
  EXPECT(count_events(r) < 200001 && has_error(r, "can't be opened"));
  ojo_reader_close(r);
}
/* What goes together: snapshots and what was recovered. Two recovered files, or a lone snapshot, do not. */
static void test_snapshot_groups(void) {
  static const uint32_t flags[][2] = {{OJO_FILE_SNAPSHOT, OJO_FILE_RECOVERED},
                                      {OJO_FILE_SNAPSHOT, OJO_FILE_SNAPSHOT | OJO_FILE_RECOVERED},
                                      {OJO_FILE_RECOVERED, OJO_FILE_RECOVERED},
                                      {OJO_FILE_SNAPSHOT, 0}};
  for (int i = 0; i < 4; i++) {
    for (int f = 0; f < 2; f++) {
      made m = snapshot_of((uint64_t)f, flags[i][f]);
      m.checksums = f;
      put_run(&m, 0, 50, 0);
      put_run(&m, 50, 50, 0);
      write_snapshot(&m, f);
    }
    EXPECT_SNAPSHOTS(2, i < 2 ? 100 : 200, 0, 0);
  }
  made m = snapshot_of(0, OJO_FILE_SNAPSHOT); /* another trace, another thread, another level */
  put_run(&m, 0, 50, 0);
  write_snapshot(&m, 0);
  m = snapshot_of(1, OJO_FILE_SNAPSHOT);
  put_run(&m, 0, 50, 0);
  m.run_thread = 2;
  put_run(&m, 0, 50, 0);
  m.run_level = 1;
  write_snapshot(&m, 1);
  m = snapshot_of(2, OJO_FILE_SNAPSHOT);
  m.trace_id[0]++;
  put_run(&m, 0, 50, 0);
  write_snapshot(&m, 2);
  EXPECT_SNAPSHOTS(3, 200, 0, 0);
  /* a lone one is read as it is, also where it tells twice */
  m = snapshot_of(0, OJO_FILE_SNAPSHOT);
  put_run(&m, 10, 10, 10);
  put_run(&m, 10, 10, 10);
  write_snapshot(&m, 0);
  EXPECT_SNAPSHOTS(1, 20, 20, 0);
  /* losses that the probes recorded are events; unsorted runs; THREAD and losses amid events; a CRC that is wrong */
  for (int f = 0; f < 3; f++) {
    m = snapshot_of((uint64_t)f, OJO_FILE_SNAPSHOT);
    m.checksums = true;
    made_run(&m, 1);
    for (uint64_t i = 0; i < 40; i++) {
      if (i == 20) made_dropped(&m, 5, 6, 7, OJO_DROP_KERNEL_RING);
      else made_event(&m, (i * 7 + 3) % 40, OJO_PACKET_SENT, 1, i);
      if (i == 5) made_thread(&m, 1, 2, "x");
      if (i == 10 || i == 12) made_dropped(&m, 20, 20, 1, OJO_DROP_NESTING);
    }
    m.run_ordinal = 0;
    m.run_lost = 2;
    made_end_run(&m);
    if (f == 0) m.bytes[m.size - 5] ^= 1;
    write_snapshot(&m, f);
  }
  ojo_reader_desc d;
  memset(&d, 0, sizeof d);
  ojo_reader *r = open_snapshots(&d, 3);
  EXPECT_EQUAL(count_events(r), 42);
  EXPECT(ojo_reader_trace(r, 0)->dropped == 9);
  EXPECT(ojo_reader_error_count(r) == 1 && has_error(r, "checksum"));
  ojo_reader_close(r);
}
/* Followed: each snapshot gives what those before it did not. */
static int followed;
static void follow_more(void *user) {
  ojo_reader *r = *(ojo_reader **)user;
  if (followed == 4) {
    ojo_reader_stop(r);
    return;
  }
  made m = snapshot_of((uint64_t)followed, OJO_FILE_SNAPSHOT);
  if (followed == 3) { /* an older one that comes late, around them */
    put_run(&m, 0, 300, 0);
  } else {
    uint64_t from = 50 + 30 * (uint64_t)followed;
    put_run(&m, from, 50, from);
    put_run(&m, from + 50, 20, 0);
  }
  made_finish(&m);
  EXPECT(made_write(&m, at("flight/x")) && rename(at("flight/x"), at("flight/%d.bin", followed)) == 0);
  made_free(&m);
  if (followed == 2) unlink(at("flight/0.bin"));
  followed++;
}
static void test_snapshot_follow(void) {
  ojo_reader *r = NULL;
  mkdir(at("flight"), 0777);
  for (int again = 0; again < 2; again++) {
    if (!again) {
      ojo_reader_desc d = desc_of(at("flight"));
      d.follow = true;
      d.follow_poll_ms = 1;
      d.idle = follow_more;
      d.idle_user = &r;
      r = open_desc(&d);
    } else {
      ojo_reader_rewind(r); /* one of the files is gone by now */
    }
    uint64_t events = 0, dropped = sum_dropped(r, &events);
    EXPECT_EQUAL(events, 300);
    EXPECT_EQUAL(dropped, again ? 0 : 50);
    EXPECT_ERRORS(r, 0);
  }
  ojo_reader_close(r);
}

/* ---- filters */

static ojo_reader *filtered(ojo_reader_desc *d, uint64_t count, int line) {
  ojo_reader *r = open_desc(d);
  uint64_t n = count_events(r);
  check(n == count, "%s:%d: %" PRIu64 " events pass, expected %" PRIu64, __FILE__, line, n, count);
  return r;
}
#define FILTER(d, count) ojo_reader_close(filtered(d, count, __LINE__))
static void test_filters(void) {
  mkdir(at("filters"), 0777);
  for (uint64_t f = 0; f < 4; f++) { /* times 100 f .. 100 f + 99 */
    made m = made_with_schema(own_schema);
    m.batch = f;
    for (uint32_t thread = 1; thread <= 2; thread++) {
      made_run(&m, thread);
      for (uint64_t i = 0; i < 50; i++)
        made_event(&m, 100 * f + 2 * i,
                   i == 10   ? 65536
                   : i == 11 ? 65538
                   : i % 2   ? OJO_PACKET_SENT
                             : OJO_CWND_UPDATED,
                   1 + (uint32_t)(i % 5), i);
      if (thread == 1) made_dropped(&m, 100 * f + 99, 100 * f + 99, 3, 1);
      if (thread == 2) made_flow(&m, 100 * f + 99, 2, 4, 1, 4, 0, "", "");
    }
    made_finish(&m);
    if (f == 3) memset(m.bytes + m.slots_at, 0xEE, 200); /* damage: seen only if the file is read */
    made_write(&m, at("filters/%d.bin", (int)f));
    made_free(&m);
  }
  ojo_reader_desc d = desc_of(at("filters"));
  d.until_ns = UNIX + 300;
  ojo_reader *r = filtered(&d, 306, __LINE__);
  EXPECT_ERRORS(r, 0); /* the damaged file was skipped by its header */
  EXPECT(ojo_reader_trace(r, 0)->dropped == 9);
  ojo_reader_close(r);
  d.since_ns = UNIX + 250; /* inclusive; until exclusive */
  d.until_ns = UNIX + 260;
  FILTER(&d, 10);
  d.since_ns = 0;
  d.until_ns = UNIX + 300;
  uint64_t flows[3] = {5, 2, 5}, types[2] = {OJO_CWND_UPDATED, 65536};
  d.flows = flows;
  d.flow_count = 1;
  FILTER(&d, 3 * 2 * 10);
  d.flow_count = 3;
  FILTER(&d, 3 * (2 * 20 + 1)); /* FLOW of flow 2 as well; EVENTS_DROPPED never */
  d.flow_count = 0;
  d.types = types;
  d.type_count = 2;
  FILTER(&d, 3 * 2 * (24 + 1));
  d.type_count = 0;
  d.category_mask = OJO_CATEGORY_PACKET | OJO_CATEGORY_META;
  FILTER(&d, 3 * (2 * 24 + 2));
  d.category_mask = OJO_CATEGORY_APPLICATION;
  FILTER(&d, 3 * 2 * 2);
  d.category_mask = 0;
  const char *names[2] = {"Mine", "CongestionControl"};
  d.categories = names;
  d.category_count = 1;
  FILTER(&d, 3 * 2);
  d.category_count = 2;
  FILTER(&d, 3 * 2 * (1 + 24));
  names[0] = "Packet"; /* also the application's OWN_TEXT, which calls itself that */
  d.category_count = 1;
  FILTER(&d, 3 * 2 * (24 + 1));
  d.category_count = 0;
  uint32_t threads[1] = {2};
  d.threads = threads;
  d.thread_count = 1;
  FILTER(&d, 3 * 51);
  d.thread_count = 0;
  uint8_t trace[16] = {0xA1};
  d.trace_id = trace;
  FILTER(&d, 306);
  trace[15] = 1;
  FILTER(&d, 0);
  /* more values than are searched one by one */
  static uint64_t many[100];
  for (uint64_t i = 0; i < 100; i++) many[i] = 100 - i;
  d.trace_id = NULL;
  d.flows = many;
  d.flow_count = 96; /* 5 .. 100 */
  FILTER(&d, 3 * 2 * 10);
}

/* ---- flows */

static void test_flows(void) {
  made m = made_new();
  made_run(&m, 1);
  unsigned char record[24 + 4 + 8 + 4 + 5] = {0};
  record[4] = 1, record[5] = 2, record[6] = 4, record[7] = 4, record[8] = 0xBB, record[9] = 1,
  record[12] = 4, record[13] = 5;
  memcpy(record + 24,
         "\1\2\3\4"
         "\x7f\0\0\1"
         "\x0a\0\0\2"
         "quic"
         "label",
         21);
  made_extended(&m, 1, MADE_FLOW | 0, 10, 99, record, sizeof record);
  made_event(&m, 2, OJO_STREAM_OPENED, 20, 4);
  made_event(&m, 2, OJO_STREAM_LINK_PARENT, 20, 10);
  made_flow(&m, 3, 30, 7, 20, 4, 0, "", "grandchild");
  made_event(&m, 4, OJO_STREAM_LINK_PARENT, 30, 20);
  made_flow(&m, 5, 40, 1, 0, 1, 1, "", "other");
  made_event(&m, 5, OJO_PACKET_SENT, 50, 0);   /* a flow that nobody described */
  made_event(&m, 6, OJO_STREAM_OPENED, 60, 8); /* parents in a circle */
  made_event(&m, 6, OJO_STREAM_LINK_PARENT, 60, 61);
  made_event(&m, 6, OJO_STREAM_OPENED, 61, 9);
  made_event(&m, 6, OJO_STREAM_LINK_PARENT, 61, 60);
  made_event(&m, 7, OJO_STREAM_OPENED, 20, 4); /* told again: fine */
  made_event(&m, 8, OJO_STREAM_CLOSED, 40, 0);
  made_event(&m, 9, OJO_STREAM_OPENED, 40, 2); /* reused after its end: fine */
  made_event(&m, 9, OJO_STREAM_OPENED, 70, 1);
  made_event(&m, 9, OJO_STREAM_OPENED, 70, 2); /* two at once */
  made_event(&m, 9, OJO_STREAM_OPENED, 80, 1);
  made_event(&m, 9, OJO_STREAM_LINK_PARENT, 80, 10);
  made_event(&m, 9, OJO_STREAM_LINK_PARENT, 80, 40); /* two at once */
  made_flow(&m, 9, 90, 1, 0, 1, 1, "", "");
  made_event(&m, 9, OJO_CONNECTION_CLOSED, 90, 0);
  made_flow(&m, 9, 90, 2, 0, 1, 1, "quic", "reused, with a longer label"); /* fine */
  made_flow(&m, 9, 100, 5, 0, 5, 0, "tcp", "socket"); /* a root that is linked later: fine, also told again */
  made_event(&m, 9, OJO_STREAM_LINK_PARENT, 100, 110);
  made_flow(&m, 9, 100, 5, 0, 5, 0, "tcp", "socket");
  made_flow(&m, 9, 100, 5, 110, 5, 0, "tcp", "socket");
  made_event(&m, 10, OJO_PACKET_SENT, 10, 0);
  made_event(&m, 10, OJO_PACKET_SENT, 20, 0);
  made_event(&m, 10, OJO_PACKET_SENT, 30, 0);
  made_event(&m, 10, OJO_PACKET_SENT, 0, 0);
  made_dropped(&m, 10, 10, 5, 1);
  ojo_reader *r = open_made(&m);
  EXPECT_EQUAL(ojo_reader_flow_count(r), 11);
  const ojo_reader_flow_info *f = ojo_reader_flow(r, 100);
  EXPECT(f && f->parent == 110 && f->kind == OJO_FLOW_SOCKET && !f->collision);
  f = ojo_reader_flow(r, 10);
  EXPECT(f && f->key == 99 && f->kind == 1 && f->role == 2 && f->parent == 0 && f->events == 2);
  EXPECT(f && f->first_ns == UNIX + 1 && f->last_ns == UNIX + 10 && f->local_port == 443 &&
         !f->collision);
  EXPECT(f && f->id_bytes == 4 && f->id[3] == 4 && f->address_bytes == 4 && f->remote_address[3] == 2);
  EXPECT(f && strcmp(f->protocol, "quic") == 0 && strcmp(f->label, "label") == 0);
  EXPECT(f == ojo_reader_flow(r, 10) && f == ojo_reader_flow_at(r, 0));
  f = ojo_reader_flow(r, 20);
  EXPECT(f && f->parent == 10 && f->key == 4 && f->kind == OJO_FLOW_STREAM && !f->collision);
  f = ojo_reader_flow(r, 30);
  EXPECT(f && f->parent == 20 && strcmp(f->label, "grandchild") == 0 && !f->collision);
  f = ojo_reader_flow(r, 40);
  EXPECT(f && f->key == 2 && !f->collision);
  f = ojo_reader_flow(r, 50);
  EXPECT(f && f->kind == 0 && f->events == 1);
  f = ojo_reader_flow(r, 70);
  EXPECT(f && f->collision && f->key == 1);
  f = ojo_reader_flow(r, 90);
  EXPECT(f && f->key == 2 && strcmp(f->label, "reused, with a longer label") == 0 && !f->collision);
  f = ojo_reader_flow(r, 80);
  EXPECT(f && f->collision && f->parent == 10);
  EXPECT(!ojo_reader_flow(r, 0) && !ojo_reader_flow(r, 12345) && !ojo_reader_flow_at(r, 11) &&
         !ojo_reader_flow_in(r, 3, 10));
  ojo_reader_close(r);

  static const struct {
    uint64_t flow, events;
  } chains[] = {{10, 12}, {20, 9}, {30, 9}, {40, 3}, {60, 4}, {50, 1}, {99, 0}};
  /* 10: 2 + 4 of 20 + 3 of 30 + 3 of 80; 20: with ancestor and child; 60: the circle */
  for (size_t i = 0; i < sizeof chains / sizeof *chains; i++) {
    ojo_reader_desc d;
    memset(&d, 0, sizeof d);
    d.memory = m.bytes;
    d.memory_bytes = m.size;
    d.chain = chains[i].flow;
    r = open_desc(&d);
    uint64_t n = count_events(r);
    check(n == chains[i].events, "chain %" PRIu64 ": %" PRIu64 " events", chains[i].flow, n);
    ojo_reader_close(r);
  }
  made_free(&m);

  /* the table's bound */
  m = made_new();
  made_run(&m, 1);
  for (uint32_t i = 0; i < 530000; i++) made_event(&m, i, OJO_PACKET_SENT, i + 1, 0);
  r = open_made(&m);
  EXPECT_EQUAL(ojo_reader_flow_count(r), 524288);
  EXPECT(has_error(r, "flow table"));
  EXPECT(ojo_reader_flow_at(r, 524287) && ojo_reader_flow_at(r, 524287)->flow == 524288);
  ojo_reader_close(r);
  made_free(&m);
}

/* ---- damage */

static made small_file(bool checksums) { /* a bit of everything */
  made m = made_with_schema(own_schema);
  m.checksums = checksums;
  for (uint32_t thread = 1; thread <= 3; thread++) {
    made_run(&m, thread);
    made_thread(&m, 1, 100 + thread, "thread");
    for (uint64_t i = 0; i < 8; i++) made_sized(&m, 10 * i + thread, OJO_PACKET_SENT, 1, i, 1200);
    made_flow(&m, 90, 1, 5, 0, 1, 1, "quic", "a label");
    made_extended(&m, 91, 65538, 1, 2, "some text that takes two slots", 30);
    made_dropped(&m, 92, 93, 4, 1);
  }
  made_finish(&m);
  return m;
}
static ojo_reader *open_bytes(const void *bytes, size_t size) {
  ojo_reader_desc d;
  ojo_reader *r = NULL;
  memset(&d, 0, sizeof d);
  d.memory = bytes;
  d.memory_bytes = size;
  ojo_reader_open(&r, &d);
  return r;
}
/* Everything that can be asked of a file. Returns the events. */
static uint64_t exercise(const void *bytes, size_t size, uint64_t chain) {
  ojo_reader_desc d;
  ojo_reader *r = NULL;
  memset(&d, 0, sizeof d);
  d.memory = bytes;
  d.memory_bytes = size;
  d.chain = chain;
  ojo_reader_open(&r, &d);
  if (!r) return 0;
  ojo_reader_event e;
  ojo_reader_run_view view;
  uint64_t events = 0, sum = 0;
  while (ojo_reader_next(r, &e)) {
    events++;
    for (uint32_t i = 0; i < e.extension_bytes; i++) sum += e.extension[i];
    sum += strlen(ojo_reader_type(r, &e)->name);
  }
  while (ojo_reader_next_run(r, &view))
    for (uint64_t i = 0; i < view.slot_count; i++) sum += view.slots[i].payload;
  for (uint64_t i = 0; i < ojo_reader_flow_count(r) && i < 100; i++)
    sum += strlen(ojo_reader_flow_at(r, i)->label);
  for (uint64_t i = 0; i < ojo_reader_error_count(r) && i < 1000; i++)
    sum += strlen(ojo_reader_error_at(r, i)->text);
  ojo_reader_close(r);
  return events + (sum == 1);
}
static void test_truncation(void) {
  made m = small_file(false);
  double start = seconds();
  uint64_t whole = exercise(m.bytes, m.size, 0), last = 0;
  bool prefix = true, reported = true;
  for (size_t size = 0; size <= m.size; size++) {
    unsigned char *exact = (unsigned char *)malloc(size + 1); /* the sanitizer sees one byte too far */
    if (!exact) abort();
    unsigned char *bytes = size % 2 ? exact + 1 : exact; /* unaligned as well */
    memcpy(bytes, m.bytes, size);
    uint64_t events = exercise(bytes, size, size % 3 ? 0 : 1);
    if (size % 3) {
      prefix = prefix && events >= last && events <= whole;
      last = events;
    }
    ojo_reader *r = open_bytes(bytes, size);
    while (r && size < m.size && ojo_reader_error_count(r) == 0) {
      ojo_reader_event e;
      if (!ojo_reader_next(r, &e)) break;
    }
    reported = reported && r && (size == m.size) == (ojo_reader_error_count(r) == 0);
    ojo_reader_close(r);
    free(exact);
  }
  EXPECT_EQUAL(whole, 33);
  EXPECT(prefix && reported);
  EXPECT(seconds() - start < 60);
  made_free(&m);
}
static void test_flips(void) {
  double start = seconds();
  for (int checksums = 0; checksums < 2; checksums++) {
    made m = small_file(checksums);
    uint64_t whole = exercise(m.bytes, m.size, 0), least = whole;
    for (size_t bit = 0; bit < m.size * 8; bit++) {
      m.bytes[bit / 8] ^= (unsigned char)(1u << bit % 8);
      uint64_t events = exercise(m.bytes, m.size, bit % 5 ? 0 : 1);
      if (bit % 5 && bit / 8 >= m.slots_at && events < least) least = events;
      if (bit / 8 >= m.slots_at && !checksums)
        check(events <= whole + 60, "bit %zu: %" PRIu64 " events", bit, events);
      if (checksums && bit / 8 >= m.slots_at + 72 &&
          bit / 8 < m.slots_at + 96) { /* in a run: it is found */
        ojo_reader *r = open_bytes(m.bytes, m.size);
        while (r && ojo_reader_error_count(r) == 0) {
          ojo_reader_event e;
          if (!ojo_reader_next(r, &e)) break;
        }
        check(r && has_error(r, "checksum"), "bit %zu is found by the checksum", bit);
        ojo_reader_close(r);
      }
      m.bytes[bit / 8] ^= (unsigned char)(1u << bit % 8);
    }
    check(least >= 22, "a flipped bit costs at most its run: %" PRIu64 " events left of %" PRIu64, least,
          whole);
    made_free(&m);
  }
  EXPECT(seconds() - start < 120);
}
static void test_random_damage(void) {
  uint64_t seed =
      getenv("OJO_SEED") ? strtoull(getenv("OJO_SEED"), NULL, 0) : (uint64_t)time(NULL) * 2654435761u + 1;
  printf("note: random damage: OJO_SEED=%" PRIu64 "\n", seed);
  random_state = seed | 1;
  double start = seconds();
  for (int round = 0; round < 3000 && seconds() - start < 20; round++) {
    made m = small_file(round & 1);
    int changes = 1 + (int)(random64() % 8);
    for (int i = 0; i < changes; i++) {
      size_t at8 = random64() % (m.size / 8) * 8;
      static const uint64_t odd[] = {
          0, 1, UINT64_MAX, 0xFF02 | 2u << 24, UINT64_C(1) << 63, 0x800000, 0xFFFFFFFF, 1u << 24};
      if (random64() % 2) made_put(&m, at8, odd[random64() % 8], 8);
      else made_put(&m, at8 + random64() % 5, random64(), 4);
    }
    if (random64() % 4) made_seal(&m);
    exercise(m.bytes, random64() % 4 ? m.size : random64() % (m.size + 1), random64() % 4 == 0);
    made_free(&m);
  }
}

static void test_damage(void) {
  made m = made_new();
  made_run(&m, 1);
  for (uint64_t i = 0; i < 10; i++) made_event(&m, i, OJO_PACKET_SENT, 1, i);
  made_slot(&m, 10, OJO_PACKET_SENT | MADE_SIZED | 1u << 24, 1, 1); /* SIZED with an extension */
  made_slot(&m, 10, 0, 0, 0);
  made_run(&m, 2);
  made_event(&m, 20, OJO_PACKET_SENT, 1, 1);
  made_slot(&m, 21, OJO_PACKET_SENT | 200u << 24, 1, 1); /* an extension beyond the run */
  made_run(&m, 3);
  made_event(&m, 30, OJO_PACKET_SENT, 1, 1);
  ojo_reader *r = open_made(&m);
  EXPECT_EQUAL(count_events(r), 12);
  EXPECT_ERRORS(r, 2);
  EXPECT(has_error(r, "SIZED") && has_error(r, "beyond its run"));
  EXPECT_EQUAL(ojo_reader_error_at(r, 0)->offset, m.slots_at + 72 + 240);
  uint64_t before = ojo_reader_error_count(r);
  ojo_reader_rewind(r);
  EXPECT(count_events(r) == 12 &&
         ojo_reader_error_count(r) == before); /* the same damage is counted once */
  EXPECT(!ojo_reader_error_at(r, 2));
  ojo_reader_close(r);
  made_free(&m);

  m = small_file(false); /* RUN's payload lies: too long, then too short */
  size_t second = m.slots_at;
  second += 72 + made_get(&m, second + 16, 8) * 24;
  uint64_t slots = made_get(&m, m.slots_at + 16, 8);
  made_put(&m, m.slots_at + 16, slots + 2, 8);
  r = open_bytes(m.bytes, m.size);
  EXPECT(count_events(r) == 33 && has_error(r, "length is wrong"));
  ojo_reader_close(r);
  made_put(&m, m.slots_at + 16, UINT64_MAX, 8);
  r = open_bytes(m.bytes, m.size);
  EXPECT(count_events(r) == 33 && has_error(r, "length is wrong"));
  ojo_reader_close(r);
  made_put(&m, m.slots_at + 16, 4, 8);
  r = open_bytes(m.bytes, m.size);
  EXPECT(count_events(r) == 24 && has_error(r, "outside of any run"));
  ojo_reader_close(r);
  made_put(&m, m.slots_at + 16, slots, 8);
  made_put(&m, second + 8, 1, 4); /* the second RUN is none */
  r = open_bytes(m.bytes, m.size);
  EXPECT(count_events(r) == 22 && has_error(r, "outside of any run"));
  ojo_reader_close(r);
  made_free(&m);

  m = small_file(true); /* a checksum */
  m.bytes[m.slots_at + 72 + 48 + 16] ^= 1;
  r = open_bytes(m.bytes, m.size);
  EXPECT(count_events(r) == 22 && has_error(r, "checksum is wrong"));
  ojo_reader_run_view view;
  int runs = 0;
  while (ojo_reader_next_run(r, &view)) runs++;
  EXPECT_EQUAL(runs, 2);
  ojo_reader_close(r);
  made_free(&m);

  m = small_file(false); /* the header */
  m.bytes[115] ^= 1;
  r = open_bytes(m.bytes, m.size);
  EXPECT(count_events(r) == 33 && has_error(r, "header's checksum"));
  ojo_reader_close(r);
  m.bytes[115] ^= 1;
  static const struct {
    size_t at, bytes;
    uint64_t value;
  } lies[] = {{6, 2, 25}, {24, 4, 136}, {24, 4, 145}, {24, 4, 0xFFFFFFF8}, {28, 4, 5000}};
  for (size_t i = 0; i < sizeof lies / sizeof *lies; i++) {
    uint64_t was = made_get(&m, lies[i].at, (int)lies[i].bytes);
    made_put(&m, lies[i].at, lies[i].value, (int)lies[i].bytes);
    made_seal(&m);
    ojo_reader_desc d;
    memset(&d, 0, sizeof d);
    d.memory = m.bytes;
    d.memory_bytes = m.size;
    EXPECT(ojo_reader_open(&r, &d) == OJO_ERR_FORMAT && r && ojo_reader_error_count(r) == 1);
    ojo_reader_close(r);
    made_put(&m, lies[i].at, was, (int)lies[i].bytes);
  }
  made_put(&m, 72, 10, 8); /* fewer slots than there are: the rest is not read */
  made_seal(&m);
  r = open_bytes(m.bytes, m.size);
  EXPECT(count_events(r) < 10 && has_error(r, "after the last slot"));
  ojo_reader_close(r);
  made_put(&m, 72, 100000, 8);
  made_seal(&m);
  r = open_bytes(m.bytes, m.size);
  EXPECT(count_events(r) == 33 && has_error(r, "cut off"));
  ojo_reader_close(r);
  made_free(&m);

  mkdir(at("many"), 0777); /* more errors than are kept */
  for (int i = 0; i < 1100; i++) {
    FILE *file = fopen(at("many/%d.bin", i), "w");
    if (file) fclose(file);
  }
  write_one(at("many/good.bin"), 1, 1);
  r = open_path(at("many"));
  EXPECT_EQUAL(count_events(r), 1);
  EXPECT(ojo_reader_error_count(r) == 1100 && ojo_reader_error_at(r, 999) &&
         !ojo_reader_error_at(r, 1000));
  ojo_reader_close(r);
}

/* ---- files that change, many files, memory */

static volatile sig_atomic_t own_sigbus;
static void on_sigbus(int number) {
  (void)number;
  own_sigbus = 1;
  _exit(42);
}
/* Flows that would all meet in one place of the flow table, if its hash were what it is without its salt:
 * finding room for each would look at all before it. */
static void test_flood(void) {
  enum { FLOWS = 150000 };
  made m = made_version1(UNIX, 0);
  uint64_t inverse = 1; /* of ojo__r_mix's factor, by Newton's method */
  for (int i = 0; i < 6; i++) inverse *= 2 - inverse * UINT64_C(0xd6e8feb86659fd93);
  for (uint64_t i = 0; i < FLOWS; i++) {
    uint64_t hash = (i + 1) << 20, flow = (hash ^ hash >> 32) * inverse;
    made_record1(&m, i, flow ^ flow >> 32, 2, i, 0);
  }
  ojo_reader_desc d;
  memset(&d, 0, sizeof d);
  d.memory = m.bytes;
  d.memory_bytes = m.size;
  clock_t before = clock();
  ojo_reader *r = open_desc(&d);
  EXPECT_EQUAL(ojo_reader_flow_count(r), FLOWS);
  double seconds = (double)(clock() - before) / CLOCKS_PER_SEC;
  check(seconds < 5, "%d flows chosen to collide took %.1f s", FLOWS, seconds);
  ojo_reader_close(r);
  made_free(&m);
}

static void test_shrink(void) {
  enum { EVENTS = 40000 };
  for (int way = 0; way < 4; way++) {
    made m = made_new();
    for (uint32_t run = 0; run < 20; run++) {
      made_run(&m, 1 + run % 2);
      for (uint64_t i = 0; i < EVENTS / 20; i++)
        made_extended(&m, (way == 3 ? i ^ 1 : i) + (run / 2) * EVENTS, 65538, 1, i, "text", 4);
    }
    made_finish(&m);
    const char *path = at("shrink.bin");
    made_write(&m, path);
    ojo_reader *r = open_path(path);
    ojo_reader_event e;
    ojo_reader_run_view view;
    uint64_t n = 0, sum = 0;
    for (; n < 3000; n++) EXPECT(ojo_reader_next(r, &e));
    EXPECT(ojo_reader_next_run(r, &view));
    EXPECT(truncate(path, way == 0 ? 0 : (off_t)m.size / 2) == 0);
    if (way == 2) EXPECT(truncate(path, (off_t)m.size) == 0); /* grown again: zeros */
    for (uint32_t i = 0; i < e.extension_bytes; i++) sum += e.extension[i];
    for (uint64_t i = 0; i < view.slot_count; i++) sum += view.slots[i].payload;
    uint64_t odd = 0;
    for (; ojo_reader_next(r, &e); n++) {
      odd += e.type != 65538 || e.flow != 1;
      for (uint32_t i = 0; i < e.extension_bytes; i++) sum += e.extension[i];
    }
    while (ojo_reader_next_run(r, &view))
      for (uint64_t i = 0; i < view.slot_count; i++) sum += view.slots[i].payload;
    check(n >= 3000 && n < EVENTS && sum != 1, "shrinking file %d: %" PRIu64 " events", way, n);
    check(odd <= 1, "shrinking file %d: %" PRIu64 " events that were not recorded", way,
          odd); /* the cut one */
    check(ojo_reader_error_count(r) > 0, "shrinking file %d is reported", way);
    EXPECT(has_error(r, "shrank"));
    ojo_reader_close(r);
    made_free(&m);
  }
  /* version 1, cut within what was checked already */
  made old = made_version1(UNIX, 0);
  for (uint64_t i = 0; i < 1600; i++) made_record1(&old, i, 1, 2, i, 0);
  made_write(&old, at("shrink1.bin"));
  ojo_reader *r1 = open_path(at("shrink1.bin"));
  ojo_reader_event e1;
  EXPECT(ojo_reader_next(r1, &e1) && truncate(at("shrink1.bin"), 32768) == 0);
  uint64_t n1 = 1;
  while (ojo_reader_next(r1, &e1)) n1++;
  EXPECT(n1 >= 700 && n1 < 1000 && has_error(r1, "while it was read"));
  ojo_reader_close(r1);
  made_free(&old);

  /* the handler is gone with the last mapping, and passes on what is not the reader's */
  struct sigaction action;
  EXPECT(sigaction(SIGBUS, NULL, &action) == 0 && (SANITIZED || action.sa_handler == SIG_DFL));
  write_one(at("one.bin"), 1, 1);
  fflush(stdout);
  pid_t child = fork();
  if (child == 0) {
    signal(SIGBUS, on_sigbus);
    ojo_reader *r = open_path(at("one.bin"));
    ojo_reader_event e;
    ojo_reader_next(r, &e); /* mapped */
    int fd = open(at("own"), O_RDWR | O_CREAT, 0600);
    volatile char *own = (volatile char *)mmap(NULL, 4096, PROT_READ, MAP_SHARED, fd, 0);
    char c = own[0]; /* beyond the end of a file of ours */
    _exit(c ? 1 : 0);
  }
  int status = 0;
  EXPECT(child > 0 && waitpid(child, &status, 0) == child && WIFEXITED(status) &&
         WEXITSTATUS(status) == 42);
}

/* What is ours alone; mapped pages of files are the page cache's, in units as large as it likes. */
static uint64_t private_bytes(void) {
  FILE *file = fopen("/proc/self/smaps_rollup", "r");
  char line[256];
  uint64_t total = 0;
  unsigned long long kb;
  while (file && fgets(line, sizeof line, file))
    if (sscanf(line, "Anonymous: %llu", &kb) == 1) total += kb << 10;
  if (file) fclose(file);
  return total;
}
static void test_many_files(void) {
  mkdir(at("files"), 0777);
  for (uint64_t f = 0; f < 1100; f++) { /* all overlap in time */
    made m = made_new();
    m.trace_id[1] = (uint8_t)f;
    m.trace_id[2] = (uint8_t)(f >> 8);
    for (uint32_t run = 0; run < 3; run++) {
      made_run(&m, run + 1);
      for (uint64_t i = 0; i < 20; i++) made_event(&m, i * 1000 + f % 13, OJO_PACKET_SENT, 1, i);
    }
    made_finish(&m);
    made_write(&m, at("files/%d.bin", (int)f));
    made_free(&m);
  }
  struct rlimit saved, few;
  getrlimit(RLIMIT_NOFILE, &saved);
  few = saved;
  few.rlim_cur = 64;
  setrlimit(RLIMIT_NOFILE, &few);
  ojo_reader *r = open_path(at("files"));
  EXPECT_EQUAL(count_events(r), 1100 * 60);
  EXPECT_ERRORS(r, 0);
  EXPECT_EQUAL(ojo_reader_trace_count(r), 1100);
  uint64_t total;
  EXPECT(ojo_reader_progress(r, &total) == total);
  ojo_reader_close(r);
  setrlimit(RLIMIT_NOFILE, &saved);
}
static void test_memory(void) {
  mkdir(at("large"), 0777);
  made m = made_new();
  for (uint32_t run = 0; run < 64; run++) {
    made_run(&m, run % 4 + 1);
    for (uint64_t i = 0; i < 2700; i++) made_event(&m, (run / 4) * 30000 + i * 10, OJO_PACKET_SENT, 1, i);
  }
  for (uint64_t f = 0; f < 24; f++) { /* 100 MB */
    m.batch = f;
    m.start_unix_ns = UNIX + f * 16 * 30000;
    m.trace_id[1] = (uint8_t)f;
    made_finish(&m);
    made_write(&m, at("large/%d.bin", (int)f));
  }
  made_free(&m);
  ojo_reader *r = open_path(at("large"));
  ojo_reader_event e;
  uint64_t start = private_bytes(), most = start, n = 0, now;
  while (ojo_reader_next(r, &e))
    if (++n % 100000 == 0 && (now = private_bytes()) > most) most = now;
  EXPECT_EQUAL(n, 24 * 64 * 2700);
  if (SANITIZED || start == 0)
    check_skip("memory", "private memory can't be measured under this sanitizer");
  else
    check(most - start < 1u << 20, "reading 100 MB takes %" PRIu64 " KiB of private memory",
          (most - start) >> 10);
  ojo_reader_close(r);
}

static int64_t live_bytes, live_most;
static void *measuring_alloc(void *user, size_t bytes) {
  (void)user;
  size_t *memory = (size_t *)malloc(bytes + 16);
  if (!memory) return NULL;
  memory[0] = bytes;
  live_bytes += (int64_t)bytes;
  if (live_bytes > live_most) live_most = live_bytes;
  return memory + 2;
}
static void measuring_free(void *user, void *memory) {
  (void)user;
  live_bytes -= (int64_t)((size_t *)memory)[-2];
  free((size_t *)memory - 2);
}
/* Schemas that are sound, with as many types as fit, and schemas that are no JSON: each another one. */
static void test_schema_memory(void) {
  mkdir(at("schema_memory"), 0777);
  size_t room = 1000000, size = 0;
  char *text = (char *)malloc(room + 100);
  if (!EXPECT(text != NULL)) return;
  for (int f = 0; f < 60; f++) {
    size = (size_t)snprintf(text, room, "{\"id\":%d,\"events\":[", f);
    while (size < room - 30) size += (size_t)snprintf(text + size, 30, "{\"value\":9,\"name\":\"a\"},");
    strcpy(text + size - 1, f % 2 ? "]}" : "}");
    made m = made_with_schema(text);
    m.trace_id[1] = (uint8_t)f;
    made_run(&m, 1);
    made_event(&m, 1, 65536, 1, 1);
    made_finish(&m);
    made_write(&m, at("schema_memory/%d.bin", f));
    made_free(&m);
  }
  free(text);
  ojo_reader_desc d = desc_of(at("schema_memory"));
  d.allocator.alloc = measuring_alloc;
  d.allocator.free = measuring_free;
  live_bytes = live_most = 0;
  ojo_reader *r = open_desc(&d);
  EXPECT_EQUAL(count_events(r), 60);
  EXPECT(has_error(r, "too large") && has_error(r, "not the JSON"));
  check(live_bytes < 18 << 20, "schemas take %" PRId64 " KiB, at most %" PRId64, live_bytes >> 10,
        live_most >> 10);
  ojo_reader_close(r);
  EXPECT_EQUAL(live_bytes, 0);
}

/* Progress only grows, and within a run too: also sorted ones, and version 1. */
static void test_progress(void) {
  for (int way = 0; way < 3; way++) {
    made m = way == 2 ? made_version1(UNIX, 0) : made_new();
    for (uint32_t run = 0; run < (way == 2 ? 1u : 2u); run++) {
      if (way < 2) made_run(&m, run + 1);
      for (uint64_t i = 0; i < 200000; i++)
        if (way == 2) made_record1(&m, i, 1, 2, i, 0);
        else made_event(&m, way == 1 ? i ^ 1 : i, OJO_PACKET_SENT, 1, i);
    }
    if (way < 2) made_finish(&m);
    ojo_reader *r = open_bytes(m.bytes, m.size);
    ojo_reader_event e;
    uint64_t n = 0, total = 0, before = 0, now, back = 0, steps = 0, off = 0, events = way == 2 ? 200000 : 400000;
    while (r && ojo_reader_next(r, &e)) {
      if (++n % 1000) continue;
      now = ojo_reader_progress(r, &total);
      back += now < before || now > total;
      steps += now > before;
      double share = (double)now / (double)total, right = (double)n / (double)events;
      off += share < right - 0.25 || share > right + 0.25;
      before = now;
    }
    check(n == events && back == 0 && steps >= 3 && off == 0,
          "progress %d: %" PRIu64 " events, %" PRIu64 " steps, %" PRIu64 " back, %" PRIu64 " off", way, n,
          steps, back, off);
    EXPECT(ojo_reader_progress(r, &total) == total && total == m.size);
    ojo_reader_rewind(r);
    EXPECT(ojo_reader_progress(r, &total) == 0 && total == m.size);
    ojo_reader_close(r);
    made_free(&m);
  }
}

/* Every allocation fails in turn: no crash, nothing leaked, nothing left out silently. */
static int64_t fail_after, allocated;
static void *failing_alloc(void *user, size_t bytes) {
  (void)user;
  if (fail_after-- <= 0) return NULL;
  void *memory = malloc(bytes);
  if (memory) allocated++;
  return memory;
}
static void counting_free(void *user, void *memory) {
  (void)user;
  allocated--;
  free(memory);
}
static void test_out_of_memory(void) {
  made m = small_file(true);
  made_run(&m, 1);
  made_event(&m, 9, 65536, 1, 1);
  made_event(&m, 5, 65599, 1, 1);
  made_finish(&m);
  mkdir(at("oom"), 0777);
  made_write(&m, at("oom/a.bin"));
  made_write(&m, at("oom/b.bin"));
  bool complete = false;
  uint64_t whole[6] = {0}, silent = 0;
  for (int64_t n = -6; n < 500 && !complete; n++) { /* first the six kinds of filters with all their memory */
    const char *names[1] = {"Mine"};
    uint64_t flows[1] = {1};
    ojo_reader_desc d = desc_of(at("oom"));
    d.allocator.alloc = failing_alloc;
    d.allocator.free = counting_free;
    d.chain = n % 2 != 0;
    d.categories = n % 3 ? NULL : names;
    d.category_count = n % 3 ? 0 : 1;
    d.flows = flows;
    d.flow_count = n % 2 != 0;
    fail_after = n < 0 ? INT64_MAX : n;
    ojo_reader *r = NULL;
    uint64_t events = 0;
    ojo_result opened = ojo_reader_open(&r, &d);
    ojo_reader_event e;
    ojo_reader_run_view view;
    for (; r && ojo_reader_next(r, &e); events++) (void)ojo_reader_type(r, &e);
    if (n < 0) whole[(n + 6) % 6] = events;
    else silent += opened == OJO_OK && events < whole[n % 6] && ojo_reader_error_count(r) == 0;
    while (r && ojo_reader_next_run(r, &view)) continue;
    if (r) (void)ojo_reader_flow(r, 1);
    complete = n >= 0 && r && fail_after > 0;
    ojo_reader_close(r);
    if (allocated != 0) break;
  }
  EXPECT(complete);
  EXPECT(whole[0] && whole[1] && whole[5]);
  EXPECT_EQUAL(silent, 0);
  EXPECT_EQUAL(allocated, 0);
  made_free(&m);
}

/* Whatever a damaged snapshot says, what another one has is given; and so it is if memory runs out. */
static void test_snapshot_random_damage(void) {
  enum { HELD = 120 };
  made a = snapshot_of(0, OJO_FILE_SNAPSHOT), b = snapshot_of(1, OJO_FILE_SNAPSHOT);
  put_run(&a, 20, 40, 20);
  put_run(&a, 60, 60, 0);
  made_finish(&a);
  EXPECT(made_write(&a, at("whole.bin")));
  write_snapshot(&b, 1); /* for its name */
  static char name[300];
  snprintf(name, sizeof name, "%s/whole.bin", root);
  const char *paths[2] = {name, snapshot_names[1]};
  for (int round = 0; round < 3000; round++) {
    made m = snapshot_of(1, OJO_FILE_SNAPSHOT);
    put_run(&m, 40, 50, 40);
    made_dropped(&m, 900, 900, 3, OJO_DROP_NESTING);
    m.run_lost = 3;
    put_run(&m, 90, HELD - 90 + 40, 0);
    made_finish(&m);
    for (uint64_t flips = 1 + random64() % 4; flips; flips--) {
      size_t slot = m.slots_at + 24 * (random64() % 2 ? random64() % 5 : random64() % ((m.size - m.slots_at) / 24));
      m.bytes[slot + random64() % 24] ^= (unsigned char)(random64() % 2 ? 1u << random64() % 8 : random64());
    }
    EXPECT(made_write(&m, snapshot_names[1]));
    made_free(&m);
    ojo_reader_desc d;
    memset(&d, 0, sizeof d);
    d.paths = paths;
    d.path_count = 2;
    ojo_reader *r = open_desc(&d);
    ojo_reader_event e;
    unsigned char seen[HELD] = {0};
    uint64_t missing = 0;
    while (ojo_reader_next(r, &e))
      if (e.type == OJO_PACKET_SENT && e.payload >= 20 && e.payload < HELD && e.ts - e.payload * 10 + 10000000 <= 20000000)
        seen[e.payload] = 1;
    for (int i = 20; i < HELD; i++) missing += !seen[i];
    ojo_reader_run_view view;
    while (ojo_reader_next_run(r, &view)) continue;
    ojo_reader_close(r);
    if (!check(missing == 0, "damaged snapshot, round %d: %" PRIu64 " events of the sound one are missing", round,
               missing))
      break;
  }
  b = snapshot_of(1, OJO_FILE_SNAPSHOT);
  put_run(&b, 40, 50, 40);
  put_run(&b, 90, HELD - 90 + 40, 0);
  write_snapshot(&b, 1);
  bool complete = false;
  for (int64_t n = 0; n < 500 && !complete; n++) {
    ojo_reader_desc d;
    memset(&d, 0, sizeof d);
    d.paths = paths;
    d.path_count = 2;
    d.allocator.alloc = failing_alloc;
    d.allocator.free = counting_free;
    fail_after = n;
    ojo_reader *r = NULL;
    uint64_t events = 0;
    if (ojo_reader_open(&r, &d) == OJO_OK) {
      ojo_reader_event e;
      while (ojo_reader_next(r, &e)) events += e.type != OJO_EVENTS_DROPPED;
      complete = fail_after > 0;
      if (!complete) EXPECT(events >= HELD - 20 + 40 || ojo_reader_error_count(r) > 0);
      else EXPECT(events == HELD - 20 + 40 && ojo_reader_error_count(r) == 0);
    }
    ojo_reader_close(r);
    if (!EXPECT_EQUAL(allocated, 0)) break;
  }
  EXPECT(complete);
  made_free(&a);
}

/* ---- handlers, stop, follow */

static void count_it(void *user, const ojo_reader_event *e) {
  (void)e;
  ++*(uint64_t *)user;
}
static void stop_it(void *user, const ojo_reader_event *e) {
  if (e->payload == 5) ojo_reader_stop((ojo_reader *)user);
}
static void test_handlers(void) {
  made m = made_new();
  made_run(&m, 1);
  for (uint64_t i = 0; i < 20; i++) made_event(&m, i, i % 4 ? OJO_PACKET_SENT : OJO_PACKET_ACKED, 1, i);
  ojo_reader *r = open_made(&m);
  uint64_t all = 0, acked = 0, more = 0;
  EXPECT(ojo_reader_on(r, OJO_READER_ANY, count_it, &all) == OJO_OK);
  EXPECT(ojo_reader_on(r, OJO_PACKET_ACKED, count_it, &acked) == OJO_OK);
  EXPECT(ojo_reader_on(r, OJO_PACKET_ACKED, count_it, &more) == OJO_OK);
  EXPECT(ojo_reader_on(r, OJO_PACKET_ACKED, NULL, NULL) == OJO_ERR_ARGUMENT);
  EXPECT(ojo_reader_run(r) == OJO_OK && all == 20 && acked == 5 && more == 5);
  ojo_reader_rewind(r);
  EXPECT(ojo_reader_on(r, OJO_PACKET_SENT, stop_it, r) == OJO_OK);
  EXPECT(ojo_reader_run(r) == OJO_OK && all == 26);
  ojo_reader_event e;
  EXPECT(!ojo_reader_next(r, &e));
  ojo_reader_rewind(r);
  EXPECT(ojo_reader_next(r, &e) && e.payload == 0);
  ojo_reader_close(r);
  made_free(&m);
}

enum { FOLLOWED = 30 };
static void publish(uint64_t f) {
  made m = made_new();
  m.batch = f;
  for (uint32_t run = 0; run < 2; run++) {
    made_run(&m, run + 1);
    made_event(&m, f * 100 + run, OJO_STREAM_OPENED, 100 + (uint32_t)f, f);
    made_event(&m, f * 100 + 1 + run, OJO_STREAM_LINK_PARENT, 100 + (uint32_t)f, 5);
    for (uint64_t i = 0; i < 10; i++)
      made_event(&m, f * 100 + 10 + i * 2 + run, OJO_PACKET_SENT, 100 + (uint32_t)f, i);
  }
  made_finish(&m);
  made_write(&m, at("live/staging/%d.bin", (int)f));
  EXPECT(rename(at("live/staging/%d.bin", (int)f), at("live/output/%d.bin", (int)f)) == 0);
  made_free(&m);
}
static void *publisher(void *reader) {
  struct timespec pause = {0, 5000000};
  mkdir(at("live/output"), 0777);
  for (uint64_t f = 1; f <= FOLLOWED; f++) {
    publish(f);
    nanosleep(&pause, NULL);
    if (f == 10) unlink(at("live/output/3.bin"));
    if (f == 20) publish(0); /* a late one */
  }
  pause.tv_nsec = 200000000;
  nanosleep(&pause, NULL);
  ojo_reader_stop((ojo_reader *)reader);
  return NULL;
}
static ojo_reader *stopped_by_signal;
static void on_alarm(int number) {
  (void)number;
  ojo_reader_stop(stopped_by_signal);
}
static void test_follow(void) {
  mkdir(at("live"), 0777);
  mkdir(at("live/staging"), 0777);
  ojo_reader_desc d = desc_of(at("live"));
  d.follow = true;
  d.follow_poll_ms = 10;
  d.chain = 5; /* nothing of it is known at the start */
  ojo_reader *r = open_desc(&d);
  pthread_t thread;
  if (!EXPECT(pthread_create(&thread, NULL, publisher, r) == 0)) return;
  ojo_reader_event e;
  uint64_t n = 0, back = 0, last = 0;
  while (ojo_reader_next(r, &e)) {
    back += e.time_ns < last;
    last = e.time_ns;
    n++;
  }
  pthread_join(thread, NULL);
  check(n == (FOLLOWED + 1) * 24, "follow: %" PRIu64 " events", n);
  check(back <= 1, "follow: time goes back %" PRIu64 " times, for one late file", back);
  EXPECT_ERRORS(r, 0);
  EXPECT(!ojo_reader_next(r, &e)); /* stopped for good */
  EXPECT_EQUAL(ojo_reader_trace(r, 0)->files, FOLLOWED + 1);
  ojo_reader_rewind(r); /* from the start; one file is gone */
  for (n = 0; n < FOLLOWED * 24 && ojo_reader_next(r, &e); n++) continue;
  EXPECT_EQUAL(n, FOLLOWED * 24);
  uint64_t total = 0;
  EXPECT(ojo_reader_progress(r, &total) <= total && total == ojo_reader_trace(r, 0)->bytes);
  stopped_by_signal = r;
  signal(SIGALRM, on_alarm);
  struct itimerval timer;
  memset(&timer, 0, sizeof timer);
  timer.it_value.tv_usec = 50000;
  double start = seconds();
  setitimer(ITIMER_REAL, &timer, NULL);
  EXPECT(!ojo_reader_next(r, &e));
  EXPECT(seconds() - start < 5);
  signal(SIGALRM, SIG_DFL);
  ojo_reader_close(r);
}
/* Many files, then nothing for a while, then one more: each is read once, however often the directory was
 * looked at meanwhile. */
static void *late_publisher(void *reader) {
  struct timespec pause = {0, 150000000};
  nanosleep(&pause, NULL);
  write_one(at("late/output/200.bin"), 200, 1);
  nanosleep(&pause, NULL);
  ojo_reader_stop((ojo_reader *)reader);
  return NULL;
}
static void test_follow_late(void) {
  const struct timespec long_ago[2] = {{1000000000, 0}, {1000000000, 0}}, epoch[2] = {{0, 0}, {0, 0}};
  mkdir(at("late"), 0777);
  mkdir(at("late/output"), 0777);
  for (int f = 0; f < 128; f++) write_one(at("late/output/%d.bin", f), (uint64_t)f, 1);
  EXPECT(utimensat(AT_FDCWD, at("late/output"), long_ago, 0) == 0);
  mkdir(at("old"), 0777);
  write_one(at("old/a.bin"), 1, 2);
  EXPECT(utimensat(AT_FDCWD, at("old"), epoch, 0) == 0);
  char names[2][300];
  snprintf(names[0], sizeof names[0], "%s/late", root);
  snprintf(names[1], sizeof names[1], "%s/old", root);
  const char *paths[2] = {names[0], names[1]};
  ojo_reader_desc d;
  memset(&d, 0, sizeof d);
  d.paths = paths;
  d.path_count = 2;
  d.follow = true;
  d.follow_poll_ms = 5;
  ojo_reader *r = open_desc(&d);
  pthread_t thread;
  if (!EXPECT(pthread_create(&thread, NULL, late_publisher, r) == 0)) return;
  ojo_reader_event e;
  uint64_t n = 0;
  while (ojo_reader_next(r, &e)) n++;
  pthread_join(thread, NULL);
  EXPECT_EQUAL(n, 130);
  EXPECT_ERRORS(r, 0);
  ojo_reader_close(r);
}
/* A followed directory that can't be listed is reported. */
static void *spoiler(void *reader) {
  struct timespec pause = {0, 100000000};
  rmdir(at("spoiled"));
  write_text(at("spoiled"), "no directory any more");
  nanosleep(&pause, NULL);
  ojo_reader_stop((ojo_reader *)reader);
  return NULL;
}
static void test_follow_spoiled(void) {
  mkdir(at("spoiled"), 0777);
  ojo_reader_desc d = desc_of(at("spoiled"));
  d.follow = true;
  d.follow_poll_ms = 5;
  ojo_reader *r = open_desc(&d);
  pthread_t thread;
  if (!EXPECT(pthread_create(&thread, NULL, spoiler, r) == 0)) return;
  EXPECT_EQUAL(count_events(r), 0);
  pthread_join(thread, NULL);
  EXPECT(ojo_reader_error_count(r) == 1 && has_error(r, "can't be listed"));
  ojo_reader_close(r);
}
static void stop_idle(void *user) { ojo_reader_stop(*(ojo_reader **)user); }
static void test_idle(void) {
  write_one(at("idle.bin"), 1, 1);
  ojo_reader_desc d = desc_of(at("idle.bin"));
  ojo_reader *r = NULL;
  d.follow = true;
  d.follow_poll_ms = 60000;
  d.idle = stop_idle;
  d.idle_user = &r;
  r = open_desc(&d);
  double start = seconds();
  EXPECT_EQUAL(count_events(r), 1); /* a file: all of it, then waiting, which stop ends at once */
  EXPECT(seconds() - start < 10);
  ojo_reader_close(r);
}

static void test_dead_pools(void) {
  char line[1024];
  mkdir(at("pools"), 0777);
  mkdir(at("pools/output"), 0777);
  mkdir(at("pools/staging"), 0777);
  write_text(at("pool_dead"), "x");
  write_text(at("pool_alive"), "x");
  char absolute[PATH_MAX];
  if (!EXPECT(realpath(root, absolute) != NULL)) return;
  snprintf(line, sizeof line, "%.900s/pool_dead\n", absolute);
  write_text(at("pools/staging/pool_1.link"), line);
  snprintf(line, sizeof line, "%.900s/pool_alive\n", absolute);
  write_text(at("pools/staging/pool_2.link"), line);
  write_text(at("pools/staging/pool_3.link"), "/nowhere/at/all\n");
  write_text(at("pools/staging/pool_4.link"), "relative\n");
  write_text(at("pools/staging/pool_5.link"), "");
  write_text(at("pools/staging/batch.bin"), "");
  int fd = open(at("pool_alive"), O_RDONLY);
  EXPECT(fd >= 0 && flock(fd, LOCK_EX) == 0);
  ojo_reader *r = open_path(at("pools"));
  EXPECT_EQUAL(ojo_reader_dead_pools(r), 1);
  close(fd);
  EXPECT_EQUAL(ojo_reader_dead_pools(r), 2);
  EXPECT_ERRORS(r, 0);
  ojo_reader_close(r);
}

int main(void) {
  alarm(600);
  setvbuf(stdout, NULL, _IOLBF, 0);
  check_directory("reader", root, sizeof root);
  test_events();
  test_schemas();
  test_version1();
  test_sources();
  test_merge();
  test_alignment();
  test_snapshots();
  test_snapshot_gap();
  test_snapshot_damage();
  test_snapshot_groups();
  test_snapshot_follow();
  test_filters();
  test_flows();
  test_damage();
  test_truncation();
  test_flips();
  test_random_damage();
  test_flood();
  test_shrink();
  test_many_files();
  test_memory();
  test_schema_memory();
  test_progress();
  test_out_of_memory();
  test_snapshot_random_damage();
  test_handlers();
  test_follow();
  test_follow_late();
  test_follow_spoiled();
  test_idle();
  test_dead_pools();
  check_remove(root);
  return check_end("reader");
}
