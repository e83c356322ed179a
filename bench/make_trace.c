/* SPDX-License-Identifier: MIT
 *
 * make_trace.c - what bench/cat.sh measures converters with: one mix of events in each form.
 *
 *   make_trace ojo DIR FILES EVENTS        a trace in DIR: so many files, of so many events each
 *   make_trace ctf DIR OUT                 its events as a CTF 1.8 trace in OUT, for babeltrace2
 *   make_trace fprintf EVENTS              the lines of `ojo-cat -f csv` for such a trace, each made with fprintf
 */
#include "bench.h"

#define OJO_IMPLEMENTATION
#define OJO_READER_IMPLEMENTATION
#include "ojo_reader.h"

/* The mix of a transport: mostly packets with their sizes, and what goes with them. */
static void record(ojo_tracer *t, uint64_t i) {
  uint32_t flow = (uint32_t)(i >> 6 & 15) + 1;
  switch (i & 7) {
  case 0: case 1: case 2: ojo_packet_sent_sized(t, flow, i, 1200); break;
  case 3: ojo_offset_sent_sized(t, flow, i * 1200, 1200); break;
  case 4: case 5: ojo_packet_acked_sized(t, flow, i - 4, 1200); break;
  case 6: ojo_bytes_in_flight(t, flow, 12000 + (i & 1023)); break;
  default: ojo_cwnd_updated(t, flow, 14000 + i);
  }
}
static int make(const char *directory, uint64_t files, uint64_t events_per_file) {
  ojo_desc d;
  ojo_tracer *t;
  memset(&d, 0, sizeof d);
  d.dir = directory;
  d.flush_bytes = (uint64_t)1 << 40;
  d.no_thread = true; /* so that a file is what ojo_flush makes of what was recorded */
  if (ojo_open(&t, &d) != OJO_OK || !t) return 1;
  for (uint64_t f = 0; f < files; f++) {
    for (uint64_t i = f * events_per_file; i < (f + 1) * events_per_file; i++) record(t, i);
    if (ojo_flush(t) != OJO_OK) return 1;
  }
  ojo_stats s = ojo_query_stats(t);
  return ojo_close(t) != OJO_OK || s.dropped;
}

/* What `record` records, a microsecond apart, as a program would print it that has no tracer. */
static int print(uint64_t events) {
  static const struct {
    unsigned type;
    const char *name, *category;
  } kinds[] = {{OJO_PACKET_SENT, "PACKET_SENT", "Packet"},
               {OJO_OFFSET_SENT, "OFFSET_SENT", "Packet"},
               {OJO_PACKET_ACKED, "PACKET_ACKED", "Packet"},
               {OJO_BYTES_IN_FLIGHT, "BYTES_IN_FLIGHT", "CongestionControl"},
               {OJO_CWND_UPDATED, "CWND_UPDATED", "CongestionControl"}};
  static const unsigned char kind_of[8] = {0, 0, 0, 1, 2, 2, 3, 4};
  unsigned long long start = bench_clock(CLOCK_REALTIME);
  printf("timestamp_ns,flow_id,event_type,name,category,payload,thread_id,extension\n");
  for (unsigned long long i = 0; i < events; i++) {
    unsigned k = kind_of[i & 7];
    unsigned long long payload = k == 1   ? i * 1200
                                 : k == 2 ? i - 4
                                 : k == 3 ? 12000 + (i & 1023)
                                 : k == 4 ? 14000 + i
                                          : i;
    fprintf(stdout, "%llu,%u,%u,%s,%s,%llu,%u,", start + i * 1000, (unsigned)(i >> 6 & 15) + 1, kinds[k].type,
            kinds[k].name, kinds[k].category, payload, 1u);
    if (k < 3) fprintf(stdout, "%llu", k == 1 ? payload + 1200 : 1200);
    putchar('\n');
  }
  return fflush(stdout) != 0;
}

static void put_metadata(ojo_reader *r, FILE *f) {
  static const uint64_t types[] = {OJO_PACKET_SENT, OJO_OFFSET_SENT, OJO_PACKET_ACKED, OJO_BYTES_IN_FLIGHT,
                                   OJO_CWND_UPDATED};
  fprintf(f, "/* CTF 1.8 */\ntypealias integer {size=64; align=8; signed=false;} := u64;\n"
             "typealias integer {size=32; align=8; signed=false;} := u32;\n"
             "typealias integer {size=20; align=1; signed=false;} := u20;\n"
             "trace {major=1; minor=8; byte_order=le; packet.header := struct {u32 magic;};};\n"
             "clock {name=mono; freq=1000000000; offset_s=0; offset=0; absolute=true;};\n"
             "stream {event.header := struct {integer {size=64; align=8; signed=false; map=clock.mono.value;} "
             "timestamp; u32 id;}; event.context := struct {u32 flow;};};\n");
  for (size_t i = 0; i < sizeof types / sizeof *types; i++) {
    ojo_reader_event probe;
    memset(&probe, 0, sizeof probe);
    probe.type = types[i];
    fprintf(f, "event {name=\"%s\"; id=%llu; fields := struct {integer {size=44; align=1; signed=false;} value; "
               "u20 size;};};\n", ojo_reader_type(r, &probe)->name, (unsigned long long)types[i]);
  }
}
/* CTF wants plain, time-ordered slots under a header, and one description for each type: 24 bytes an event, as ours. */
static int convert(const char *directory, const char *out) {
  static const unsigned char magic[4] = {0xC1, 0x1F, 0xFC, 0xC1};
  ojo_reader_desc d;
  ojo_reader *r;
  ojo_reader_event e;
  char path[4096];
  memset(&d, 0, sizeof d);
  d.path = directory;
  if (ojo_reader_open(&r, &d) != OJO_OK) return 1;
  mkdir(out, 0700);
  snprintf(path, sizeof path, "%s/metadata", out);
  FILE *f = fopen(path, "w");
  if (!f) return 1;
  put_metadata(r, f);
  fclose(f);
  snprintf(path, sizeof path, "%s/stream", out);
  f = fopen(path, "wb");
  if (!f) return 1;
  fwrite(magic, 1, sizeof magic, f);
  while (ojo_reader_next(r, &e)) {
    uint64_t size = !e.has_number ? 0 : e.type == OJO_OFFSET_SENT ? e.number - e.payload : e.number;
    ojo_event slot;
    slot.ts = e.time_ns;
    slot.type = (uint32_t)e.type;
    slot.flow = (uint32_t)e.flow;
    slot.payload = e.payload | size << OJO_SIZED_VALUE_BITS;
    fwrite(&slot, sizeof slot, 1, f);
  }
  ojo_reader_close(r);
  return fclose(f) != 0;
}

int main(int argc, char **argv) {
  const char *mode = argc > 1 ? argv[1] : "";
  if (argc == 5 && strcmp(mode, "ojo") == 0)
    return make(argv[2], strtoull(argv[3], NULL, 10), strtoull(argv[4], NULL, 10));
  if (argc == 4 && strcmp(mode, "ctf") == 0) return convert(argv[2], argv[3]);
  if (argc == 3 && strcmp(mode, "fprintf") == 0) return print(strtoull(argv[2], NULL, 10));
  fprintf(stderr, "usage: make_trace ojo DIR FILES EVENTS | ctf DIR OUT | fprintf EVENTS\n");
  return 2;
}
