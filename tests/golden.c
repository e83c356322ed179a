/* SPDX-License-Identifier: MIT
 *
 * golden.c - a trace recorded with the manual clock, compared byte for byte with tests/golden/: the file,
 * and what ojo-cat makes of it. What differs from run to run (ids of the trace, boot, host, processes and
 * threads) is masked first, and the header's CRC is made anew.
 *
 * The files in tests/golden/ are never written by a test run. After a change that is meant, run
 * `make golden` (golden --write), and look at the difference before it is committed.
 */
#define OJO_IMPLEMENTATION
#include "ojo.h"

#include "check.h"

#include <pthread.h>

enum { TYPE_FEC = 0x010000, TYPE_NOTE, TYPE_BLOB, TYPE_DEPTH };
static const ojo_type types[] = {
  {TYPE_FEC, "FEC_REPAIRED", "Fec", "a packet came back by FEC", OJO_VALUE_NONE},
  {TYPE_NOTE, "NOTE", NULL, "says \"what\",\nthen why: Gr\xC3\xBC\xC3\x9F" "e \\ \x01", OJO_VALUE_TEXT},
  {TYPE_BLOB, "BLOB", "Fec", NULL, OJO_VALUE_BYTES},
  {TYPE_DEPTH, "QUEUE_DEPTH", NULL, "packets waiting", OJO_VALUE_NUMBER},
};

static void quiet(void *user, const char *line) { (void)user, (void)line; }

/* ---- two traces: a connection that loses a packet, which README.md shows, and the format's corners */

static ojo_tracer *t;

static void *second_thread(void *flow) {
  uint32_t server = *(uint32_t *)flow;
  ojo_set_now(t, 2500000);
  ojo_packet_received_sized(t, server, 0, 1200);
  ojo_set_now(t, 3500000);
  ojo_ack_sent_sized(t, server, 0, 25);
  return NULL;
}

static void record_example(void) {
  static const unsigned char address[] = {127, 0, 0, 1};
  ojo_flow_desc desc = {0};
  ojo_metrics_values last = {0}, now = {0};
  pthread_t thread;
  desc.role = OJO_ROLE_CLIENT;
  desc.id = "\x01\x02\x03\x04";
  desc.id_bytes = 4;
  desc.local_address = desc.remote_address = address;
  desc.address_bytes = 4;
  desc.local_port = 40000;
  desc.remote_port = 4433;
  desc.protocol = "quic";
  desc.label = "download";
  ojo_set_now(t, 1000000);
  uint32_t flow = ojo_flow_open(t, &desc);
  desc.role = OJO_ROLE_SERVER;
  desc.local_port = 4433;
  desc.remote_port = 40000;
  desc.label = NULL;
  uint32_t server = ojo_flow_open(t, &desc);
  ojo_connection_state(t, flow, OJO_CONNECTION_HANDSHAKE);
  ojo_version_chosen(t, flow, 1);
  ojo_set_now(t, 2000000);
  uint32_t stream = ojo_flow_stream(t, flow, 4);
  ojo_stream_max_data_update(t, stream, 65536);
  now.cwnd = 12000;
  ojo_metrics(t, flow, &last, &now);
  for (uint64_t number = 0; number < 3; number++) {
    uint64_t stamp = 2000000 + number * 1000;
    ojo_offset_sent_sized_at(t, stamp, stream, number * 1150, 1150);
    ojo_packet_sent_sized_at(t, stamp, flow, number, 1200);
  }
  ojo_set_now(t, 2100000);
  now.bytes_in_flight = 3600;
  ojo_metrics(t, flow, &last, &now);
  ojo_loss_timer_set(t, flow, 300000000);
  if (pthread_create(&thread, NULL, second_thread, &server)) exit(1);
  pthread_join(thread, NULL);
  ojo_set_now(t, 48900000);
  ojo_ack_received_sized(t, flow, 0, 1);
  ojo_packet_acked_sized(t, flow, 0, 1200);
  ojo_offset_acked_sized(t, stream, 0, 1150);
  now.latest_rtt_ns = now.smoothed_rtt_ns = now.min_rtt_ns = 46900000;
  now.rtt_variation_ns = 23450000;
  now.bytes_in_flight = 2400;
  ojo_metrics(t, flow, &last, &now);
  ojo_set_now(t, 60000000);
  ojo_packet_lost_duplicate_ack_sized(t, flow, 1, 1200);
  ojo_offset_lost_sized(t, stream, 1150, 1150);
  ojo_congestion_state(t, flow, OJO_CONGESTION_RECOVERY);
  now.cwnd = now.ssthresh = 6000;
  now.bytes_in_flight = 1200;
  ojo_metrics(t, flow, &last, &now);
  ojo_offset_retransmitted_sized(t, stream, 1150, 1150);
  ojo_packet_retransmit(t, flow, 1, 3);
  ojo_packet_sent_sized(t, flow, 3, 1200);
  ojo_sender_limited(t, flow, OJO_LIMITED_APPLICATION);
  ojo_set_now(t, 107000000);
  ojo_packet_acked_sized(t, flow, 3, 1200);
  ojo_stream_fin_sent(t, stream, 4);
  ojo_flow_close(t, flow, 0, "done");
}

static void record_corners(void) {
  static char long_note[6121];
  ojo_set_now(t, 200000000);
  uint32_t flow = ojo_flow_open(t, NULL), stream = ojo_flow_child(flow, 64);
  ojo_stream_reset_received_sized(t, stream, 7, 3450);
  ojo_flow_close(t, flow, 0, "done, \"fine\"");
  ojo_record(t, 0, TYPE_FEC, UINT64_MAX);
  ojo_record_ext(t, flow, TYPE_NOTE, 1, "a, \"b\"\nc \xC3\xBC \x1B[31m \xFF", 19);
  ojo_record_ext(t, flow, TYPE_NOTE, 2, "24 bytes, so with no NUL", 24);
  ojo_record_ext(t, flow, TYPE_BLOB, 3, "\x05\x00" "abc\x00\xFF", 7);
  ojo_record_sized(t, flow, TYPE_DEPTH, 4, 5);
  ojo_packet_sent_sized(t, flow, (UINT64_C(1) << 44) - 1, (1 << 20) - 1);
  ojo_packet_sent_sized(t, flow, UINT64_C(1) << 44, 1200);
  ojo_offset_sent_sized(t, stream, 4096, UINT64_C(1) << 20);
  ojo_packet_dropped_sized(t, flow, UINT64_MAX, 40);
  ojo_record(t, flow, 0x012345, 6); /* described nowhere */
  ojo_record_at(t, 3, flow, OJO_PACKET_CREATED, 7); /* time goes back */
  memset(long_note, 'n', sizeof long_note);
  ojo_record_ext(t, flow, TYPE_NOTE, 8, long_note, sizeof long_note); /* too long: dropped and counted */
  ojo_set_now(t, 300000000);
  ojo_record_ext(t, flow, TYPE_NOTE, 9, "after the gap", 13);
}

/* ---- masking ----------------------------------------------------------------------------------- */

static uint32_t crc32c(const unsigned char *p, size_t bytes) { /* bit by bit: not the code under test */
  uint32_t crc = UINT32_MAX;
  while (bytes--) {
    crc ^= *p++;
    for (int bit = 0; bit < 8; bit++) crc = crc >> 1 ^ (crc & 1 ? 0x82F63B78u : 0);
  }
  return ~crc;
}

static bool mask(char *data, size_t bytes) {
  ojo_file_header header;
  memcpy(&header, data, sizeof header);
  uint32_t crc = header.crc;
  header.crc = 0;
  if (!check(crc == crc32c((const unsigned char *)&header, sizeof header), "the header's CRC32C")) return false;
  check(header.pid == (uint32_t)getpid(), "the header's pid");
  check(header.start_unix_ns == 0 && header.start_monotonic_ns == 0, "a manual trace starts at 0");
  for (size_t i = 0; i < 16; i++) {
    header.trace_id[i] = (uint8_t)(0xA0 + i);
    header.boot_id[i] = (uint8_t)(0xB0 + i);
  }
  header.pid = 1000;
  header.host_id = 0x1122334455667788;
  memcpy(header.command, "golden\0\0\0\0\0\0\0\0\0", 16);
  header.crc = crc32c((const unsigned char *)&header, sizeof header);
  memcpy(data, &header, sizeof header);
  for (size_t at = header.header_bytes; at + 24 <= bytes;) {
    ojo_event slot;
    memcpy(&slot, data + at, sizeof slot);
    uint32_t type = slot.type & OJO_TYPE_MASK, masked = 2000 + slot.flow;
    if (type == OJO_RUN) memcpy(data + at + 24 + offsetof(ojo_run, tid), &masked, 4);
    if (type == OJO_THREAD) {
      slot.payload = masked | UINT64_C(1000) << 32;
      memcpy(data + at, &slot, sizeof slot);
      memcpy(data + at + 24, "golden\0\0\0\0\0\0\0\0\0", 16);
    }
    at += 24 * (size_t)(1 + (slot.type >> OJO_EXTENSION_SHIFT));
  }
  return true;
}

/* ---- comparing, or writing --------------------------------------------------------------------- */

static bool writing;
static const char *source = "tests/golden";

static void compare(const char *name, const char *data, size_t bytes) {
  char path[512], got_path[512];
  size_t want_bytes = 0, at = 0;
  snprintf(path, sizeof path, "%s/%s", source, name);
  if (writing) {
    FILE *file = fopen(path, "wb");
    check(file && fwrite(data, 1, bytes, file) == bytes && fclose(file) == 0, "%s is written", path);
    return;
  }
  char *want = check_load(path, &want_bytes);
  while (want && at < bytes && at < want_bytes && data[at] == want[at]) at++;
  bool same = want && bytes == want_bytes && at == bytes;
  if (!same) {
    const char *build = getenv("BUILD");
    snprintf(got_path, sizeof got_path, "%s/tests/golden.%s", build ? build : "build", name);
    FILE *file = fopen(got_path, "wb");
    if (file) fwrite(data, 1, bytes, file), fclose(file);
    printf("%s differs from %s at byte %zu (%zu and %zu bytes)\n", got_path, path, at, bytes, want_bytes);
  }
  check(same, "%s", name);
  free(want);
}

static void compare_output(const char *trace, const char *name, const char *options, int want_code) {
  const char *build = getenv("BUILD");
  char file[64];
  int code;
  char *text = check_run(&code, "TZ=UTC COLUMNS=100 %s/ojo-cat %s %s/%s.bin 2>/dev/null", build ? build : "build",
                         options, source, trace);
  snprintf(file, sizeof file, "%s.%s", trace, name);
  check(code == want_code, "ojo-cat %s exits %d, not %d", options, want_code, code);
  compare(file, text, strlen(text));
  free(text);
}

static void golden(const char *trace, void (*record)(void), bool own_types, uint64_t dropped) {
  char dir[256], path[512], file[64];
  ojo_desc desc = {0};
  size_t bytes;
  desc.dir = check_directory("golden", dir, sizeof dir);
  desc.clock = OJO_CLOCK_MANUAL;
  if (own_types) desc.types = types, desc.type_count = sizeof types / sizeof *types;
  desc.no_thread = true;
  desc.logger.log = quiet;
  if (!check(ojo_open(&t, &desc) == OJO_OK && t, "ojo_open")) return;
  record();
  check(ojo_query_stats(t).dropped == dropped, "%s: %llu dropped", trace, (unsigned long long)dropped);
  check(ojo_close(t) == OJO_OK, "ojo_close");
  char *data = check_only_file(dir, path, sizeof path) ? check_load(path, &bytes) : NULL;
  snprintf(file, sizeof file, "%s.bin", trace);
  if (check(data != NULL, "one file in %s/output", dir) && mask(data, bytes)) compare(file, data, bytes);
  free(data);
  compare_output(trace, "csv", "-f csv", 0);
  compare_output(trace, "csv", "-f csv --strict", dropped ? 3 : 0);
  compare_output(trace, "json", "-f json", 0);
  compare_output(trace, "ndjson", "-f ndjson", 0);
  compare_output(trace, "txt", "-f text", 0);
  compare_output(trace, "stats.txt", "--stats", 0);
  compare_output(trace, "flows.txt", "--flows", 0);
  check_remove(dir);
}

int main(int argc, char **argv) {
  writing = argc > 1 && !strcmp(argv[1], "--write");
  if (argc > 1 && !writing) return fprintf(stderr, "usage: golden [--write]\n"), 2;
  golden("example", record_example, false, 0);
  golden("corners", record_corners, true, 1);
  return check_end("golden");
}
