/* SPDX-License-Identifier: MIT
 *
 * fuzz_reader.c - ojo_reader.h on memory, on a file and on a directory. Beside not crashing:
 *   - every byte that it hands out may be read; there are no more events than slots;
 *   - times that go back are reported as an error;
 *   - reading again, after a rewind or in another way, gives the same, and counts no error twice;
 *   - a filter gives what leaving the others out by hand gives;
 *   - memory stays in proportion to the input; without memory it ends well;
 *   - a file that shrinks, vanishes or comes late is no harm.
 * Choices: [0] what to do, bits below; [1] filter, and in memory 0x5n or 0x66: a longer file; [2] which
 * sample it is made of; [3] event at which something happens to a file; [4..5] allocation that fails;
 * [6..7] size that is left, in 65536ths.
 */
#include "fuzz.h"

#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { AGAIN = 1, FLOWS = 2, RUNS = 4, FILTER = 8, NO_MEMORY = 16, ODD = 32, FOLLOW = 64, CHAIN = 128 };

#define MEMORY_BASE (4u << 20)
#define MEMORY_PER_BYTE 96u

static volatile unsigned sink; /* what is read must be read */

/* ---- memory */

static struct {
  size_t now, most;
  unsigned countdown; /* to an allocation that fails; 0: none does */
} heap;

static void *heap_alloc(void *user, size_t bytes) {
  (void)user;
  if (heap.countdown && --heap.countdown == 0) return NULL;
  size_t *block = malloc(bytes + 16);
  FUZZ_CHECK(block, "out of memory for %zu bytes", bytes);
  *block = bytes;
  heap.now += bytes;
  if (heap.now > heap.most) heap.most = heap.now;
  return block + 2;
}
static void heap_free(void *user, void *memory) {
  size_t *block = (size_t *)memory - 2;
  (void)user;
  heap.now -= *block;
  free(block);
}
static const ojo_allocator heap_allocator = {heap_alloc, heap_free, NULL};

/* ---- one pass */

static uint64_t mix(uint64_t x) {
  x = (x ^ x >> 31) * UINT64_C(0x9E3779B97F4A7C15);
  return x ^ x >> 29;
}
static uint64_t event_hash(const ojo_reader_event *e) {
  uint64_t hash = mix(e->flow) ^ mix(e->type + 3) * 3 ^ mix(e->payload + 5) * 5 ^ mix(e->number + 7) * 7;
  hash = mix(hash ^ e->thread ^ (uint64_t)e->level << 32 ^ (uint64_t)e->has_number << 60);
  for (uint32_t i = 0; i < e->extension_bytes; i++) hash = (hash ^ e->extension[i]) * UINT64_C(1099511628211);
  return hash;
}
static void check_event(ojo_reader *r, const ojo_reader_event *e) {
  const ojo_reader_type_info *type = ojo_reader_type(r, e);
  const ojo_reader_trace_info *trace = ojo_reader_trace(r, e->trace);
  ojo_dropped dropped;
  ojo_rtt rtt;
  uint32_t tid;
  FUZZ_CHECK(type && trace, "an event without a type or trace");
  FUZZ_CHECK(e->extension_bytes % 24 == 0 && e->extension_bytes <= OJO_EXTENSION_BYTES_MAX &&
                 !e->extension == !e->extension_bytes,
             "an extension of %u bytes", e->extension_bytes);
  FUZZ_CHECK(e->category <= 16 && ((e->type != OJO_RUN && e->type != OJO_THREAD) || trace->version == 1),
             "category %u, type %llu", e->category, (unsigned long long)e->type);
  sink += (unsigned)(strlen(type->name) + strlen(type->category) + strlen(type->description));
  sink += (unsigned)strlen(ojo_reader_thread(r, e->trace, e->thread, &tid));
  sink += ojo_reader_dropped(e, &dropped) ? dropped.reason : 0;
  sink += ojo_reader_rtt(e, &rtt) ? 1 : 0;
#ifdef FUZZ_PLANTED /* a bug to be found, in what no file of the corpus has: tests/fuzz.sh proves that it would be */
  FUZZ_CHECK(e->level != 3, "planted");
#endif
}
void fuzz_read(ojo_reader *r, uint64_t most, fuzz_seen *s) {
  ojo_reader_event e;
  memset(s, 0, sizeof *s);
  s->first_ns = UINT64_MAX;
  while (ojo_reader_next(r, &e)) {
    uint64_t hash = event_hash(&e);
    check_event(r, &e);
    s->count++;
    FUZZ_CHECK(s->count <= most, "more events than slots: %llu", (unsigned long long)s->count);
    s->late = s->late || e.time_ns < s->last_ns;
    s->sum += hash;
    if (e.time_ns < s->first_ns) s->first_ns = e.time_ns;
    if (e.time_ns > s->last_ns) s->last_ns = e.time_ns;
    e.extension = NULL;
    if (s->samples < FUZZ_SAMPLES) s->sample[s->samples++] = e;
    else if (hash % 8 == 0) s->sample[hash / 8 % FUZZ_SAMPLES] = e;
  }
  s->errors = ojo_reader_error_count(r);
  for (uint64_t i = 0; i < s->errors; i++) {
    const ojo_reader_error *error = ojo_reader_error_at(r, i);
    if (error) sink += (unsigned)(strlen(error->path) + strlen(error->text));
  }
  FUZZ_CHECK(!s->late || s->errors, "times go back, and no error tells");
}

/* ---- what can be asked for */

static void check_flows(ojo_reader *r, uint64_t most) {
  uint64_t count = ojo_reader_flow_count(r);
  FUZZ_CHECK(count <= most, "more flows than slots: %llu", (unsigned long long)count);
  for (uint64_t i = 0; i < count; i++) {
    const ojo_reader_flow_info *f = ojo_reader_flow_at(r, i);
    if (!f) continue; /* without memory */
    FUZZ_CHECK(f->id_bytes <= sizeof f->id && f->address_bytes <= 16, "a flow's id or address is too long");
    sink += (unsigned)(strlen(f->protocol) + strlen(f->label));
    uint64_t flow = f->flow;
    const ojo_reader_flow_info *same = ojo_reader_flow_in(r, f->trace, flow);
    FUZZ_CHECK(!same || same->flow == flow, "flow %llu is found as another", (unsigned long long)flow);
  }
}
static void check_runs(ojo_reader *r, uint64_t most) {
  ojo_reader_run_view run;
  uint64_t slots = 0;
  while (ojo_reader_next_run(r, &run)) {
    slots += run.slot_count;
    FUZZ_CHECK(slots <= most, "runs have more slots than the files");
    for (uint64_t i = 0; i < run.slot_count; i++)
      sink += (unsigned)(run.slots[i].ts + run.slots[i].type + run.slots[i].flow + run.slots[i].payload);
  }
}
static void check_names(ojo_reader *r, const fuzz_seen *s) {
  uint64_t types[4];
  for (size_t i = 0; i < s->samples; i++) {
    const ojo_reader_type_info *type = ojo_reader_type(r, &s->sample[i]);
    FUZZ_CHECK(ojo_reader_types_by_name(r, type->name, types, 4) > 0 || !type->name[0],
               "a type's name stands for none: %s", type->name);
    sink += ojo_reader_category_known(r, type->category);
  }
}

/* The number of a standard category's name, or 16. */
static uint32_t category_bit(const char *name) {
#define X(number, identifier, text) \
  if (strcmp(name, text) == 0) return number;
  OJO_CATEGORIES(X)
#undef X
  return 16;
}
/* A filter made of a sample, and what it should let through. */
typedef struct filter {
  unsigned kind;
  ojo_reader_event e;
  char category[128];
  const char *name;
  uint64_t flow, type;
  uint32_t thread;
  uint8_t trace_id[16];
} filter;

static void make_filter(ojo_reader *r, const fuzz_seen *s, const uint8_t *choices, filter *f, ojo_reader_desc *desc) {
  memset(f, 0, sizeof *f);
  f->e = s->sample[choices[2] % s->samples];
  f->kind = choices[1] % 8;
  f->flow = f->e.flow;
  f->type = f->e.type;
  f->thread = f->e.thread;
  snprintf(f->category, sizeof f->category, "%s", ojo_reader_type(r, &f->e)->category);
  f->name = f->category;
  memcpy(f->trace_id, ojo_reader_trace(r, f->e.trace)->id, 16);
  switch (f->kind) {
    case 0: desc->flows = &f->flow, desc->flow_count = 1; break;
    case 1: desc->types = &f->type, desc->type_count = 1; break;
    case 2: desc->threads = &f->thread, desc->thread_count = 1; break;
    case 3: desc->category_mask = 1u << f->e.category; break;
    case 4: desc->categories = &f->name, desc->category_count = 1; break;
    case 5: desc->since_ns = f->e.time_ns; break;
    case 6: desc->until_ns = f->e.time_ns; break;
    default: desc->trace_id = f->trace_id; break;
  }
}
static bool passes(ojo_reader *r, const filter *f, const ojo_reader_event *e) {
  switch (f->kind) {
    case 0: return e->flow == f->flow && !(e->category == 15 && e->type == OJO_EVENTS_DROPPED);
    case 1: return e->type == f->type;
    case 2: return e->thread == f->thread;
    case 3: return e->category == f->e.category;
    case 4: {
      uint32_t bit = category_bit(f->category);
      return strcmp(ojo_reader_type(r, e)->category, f->category) == 0 || (bit != 16 && bit == e->category);
    }
    case 5: return e->time_ns >= f->e.time_ns;
    case 6: return e->time_ns < f->e.time_ns || f->e.time_ns == 0; /* 0: no limit */
    default: return memcmp(ojo_reader_trace(r, e->trace)->id, f->trace_id, 16) == 0;
  }
}
/* Only of sound files: where one lies about what is in it, a filter believes it. */
static void check_filter(ojo_reader *r, const ojo_reader_desc *plain, const fuzz_seen *s, const uint8_t *choices,
                         uint64_t most) {
  ojo_reader_desc desc = *plain;
  ojo_reader_event e;
  ojo_reader *filtered;
  fuzz_seen got;
  filter f;
  uint64_t count = 0, sum = 0;
  make_filter(r, s, choices, &f, &desc);
  ojo_reader_rewind(r);
  while (ojo_reader_next(r, &e))
    if (passes(r, &f, &e)) count++, sum += event_hash(&e);
  FUZZ_CHECK(ojo_reader_open(&filtered, &desc) == OJO_OK || filtered, "no reader with a filter");
  fuzz_read(filtered, most, &got);
  bool times_hold = ojo_reader_trace_count(r) == 1 && ojo_reader_trace(r, 0)->files == 1 &&
                    ojo_reader_trace(r, 0)->first_ns <= s->first_ns && ojo_reader_trace(r, 0)->last_ns >= s->last_ns;
  if (s->errors == 0 && (times_hold || (f.kind != 5 && f.kind != 6)))
    FUZZ_CHECK(got.count == count && got.sum == sum, "filter %u lets %llu events through, not %llu", f.kind,
               (unsigned long long)got.count, (unsigned long long)count);
  ojo_reader_close(filtered);
}
static void check_chain(const ojo_reader_desc *plain, const fuzz_seen *s, const uint8_t *choices, uint64_t most) {
  ojo_reader_desc desc = *plain;
  ojo_reader *r;
  fuzz_seen got;
  desc.chain = s->sample[choices[2] % s->samples].flow;
  if (desc.chain == 0) return;
  FUZZ_CHECK(ojo_reader_open(&r, &desc) == OJO_OK || r, "no reader with a chain");
  fuzz_read(r, most, &got);
  FUZZ_CHECK(got.count <= s->count || s->errors, "a chain has more events than there are");
  ojo_reader_close(r);
}

/* Reads in all the ways that the choices ask for. Returns what the first pass saw. */
static fuzz_seen read_input(const ojo_reader_desc *asked, const uint8_t *choices, size_t bytes) {
  ojo_reader_desc desc = *asked;
  ojo_reader *r;
  fuzz_seen first, again;
  uint64_t most = bytes / 24;
  memset(&heap, 0, sizeof heap);
  memset(&first, 0, sizeof first);
  desc.allocator = heap_allocator;
  if (choices[0] & NO_MEMORY) heap.countdown = 1u + choices[4] + (choices[5] & 3u) * 256u;
  ojo_result result = ojo_reader_open(&r, &desc);
  FUZZ_CHECK(r || (result == OJO_ERR_MEMORY && choices[0] & NO_MEMORY), "open: %s", ojo_result_string(result));
  if (r) {
    if (choices[0] & FLOWS && choices[1] & 1) check_flows(r, most);
    fuzz_read(r, most, &first);
    if (choices[0] & FLOWS) check_flows(r, most);
    if (choices[0] & RUNS) check_runs(r, most);
    if (!(choices[0] & NO_MEMORY)) check_names(r, &first);
    if (choices[0] & AGAIN) {
      ojo_reader_rewind(r);
      fuzz_read(r, most, &again);
      FUZZ_CHECK(choices[0] & NO_MEMORY || (again.count == first.count && again.sum == first.sum),
                 "%llu events, and %llu after a rewind", (unsigned long long)first.count,
                 (unsigned long long)again.count);
      FUZZ_CHECK(again.errors == first.errors || choices[0] & NO_MEMORY || first.errors > 3000 ||
                     choices[0] & (RUNS | FLOWS),
                 "%llu errors, and %llu after a rewind", (unsigned long long)first.errors,
                 (unsigned long long)again.errors);
    }
    heap.countdown = 0;
    if (first.samples && choices[0] & FILTER && !(choices[0] & NO_MEMORY))
      check_filter(r, &desc, &first, choices, most);
    if (first.samples && choices[0] & CHAIN) check_chain(&desc, &first, choices, most);
  }
  ojo_reader_close(r);
  FUZZ_CHECK(heap.now == 0, "%zu bytes are left allocated", heap.now);
  FUZZ_CHECK(heap.most <= MEMORY_BASE + MEMORY_PER_BYTE * bytes, "%zu bytes of memory for %zu", heap.most, bytes);
  return first;
}

/* ---- the targets */

/* A version 2 file whose first run holds what follows it over and over, up to `bytes`: longer than what the
 * reader checks at one go (64 KiB), or sorts in one window (65,536 events). */
static size_t lengthen(uint8_t *to, size_t bytes, const uint8_t *data, size_t size) {
  uint32_t header;
  uint64_t slots;
  if (size < sizeof(ojo_file_header)) return 0;
  memcpy(&header, data + offsetof(ojo_file_header, header_bytes), 4);
  size_t begin = (size_t)header + 72, n;
  if (header < sizeof(ojo_file_header) || size < begin + OJO_SLOT_BYTES) return 0;
  n = (size - begin) / OJO_SLOT_BYTES * OJO_SLOT_BYTES;
  memcpy(&slots, data + header + 16, 8);
  if (slots > 0 && slots < n / OJO_SLOT_BYTES) n = (size_t)slots * OJO_SLOT_BYTES;
  memcpy(to, data, begin);
  for (bytes -= n; begin < bytes; begin += n) memcpy(to + begin, data + header + 72, n);
  slots = (begin - header - 72) / OJO_SLOT_BYTES;
  memcpy(to + header + 16, &slots, 8);
  to[offsetof(ojo_file_header, crc)] ^= 1; /* its count of slots is not to be believed */
  return begin;
}

void fuzz_memory(const uint8_t *choices, const uint8_t *data, size_t size) {
  size_t odd = choices[0] & ODD ? 1 + choices[3] % 7u : 0;
  size_t lengthened = choices[1] >> 4 == 5 ? 256u << 10 : choices[1] == 0x66 ? 2u << 20 : 0;
  uint8_t *longer = lengthened > size ? malloc(lengthened) : NULL;
  if (longer && (lengthened = lengthen(longer, lengthened, data, size)) != 0) data = longer, size = lengthened;
  uint8_t *copy = malloc(size + odd + !(size + odd)); /* its end is the end */
  FUZZ_CHECK(copy, "out of memory");
  if (size) memcpy(copy + odd, data, size);
  free(longer);
  ojo_reader_desc desc = {.memory = copy + odd, .memory_bytes = size};
  fuzz_seen plain = read_input(&desc, choices, size);
  (void)plain;
  free(copy);
}

/* Something happens to the file while it is read. */
static void read_shrinking(const char *path, const uint8_t *choices, size_t size) {
  ojo_reader_desc desc = {.path = path};
  ojo_reader *r;
  ojo_reader_event e;
  size_t left = size * (choices[6] | (size_t)choices[7] << 8) / 65536, events = 0;
  FUZZ_CHECK(ojo_reader_open(&r, &desc) == OJO_OK || r, "no reader");
  if (choices[1] & 1) sink += (unsigned)ojo_reader_flow_count(r);
  do
    if (events == choices[3] % 32u) {
      if (choices[1] & 2) unlink(path);
      else FUZZ_CHECK(truncate(path, (off_t)left) == 0, "truncate: %s", strerror(errno));
      if (choices[1] & 4) check_runs(r, size / 24);
      if (choices[1] & 8) check_flows(r, size / 24);
    }
  while (ojo_reader_next(r, &e) && events++ <= size);
  FUZZ_CHECK(events <= size / 24, "more events than slots");
  ojo_reader_rewind(r);
  while (ojo_reader_next(r, &e)) sink += e.extension_bytes;
  ojo_reader_close(r);
}

void fuzz_file(const uint8_t *choices, const uint8_t *data, size_t size) {
  const char *path = fuzz_path("in/input.bin");
  fuzz_write(path, data, size);
  if (choices[0] & ODD) {
    read_shrinking(path, choices, size);
  } else {
    ojo_reader_desc desc = {.path = path}, memory = {.memory = data, .memory_bytes = size};
    fuzz_seen from_file = read_input(&desc, choices, size);
    bool version1 = size > 4 && data[4] == 1; /* from memory it has no schema */
    fuzz_seen from_memory = read_input(&memory, choices, size);
    FUZZ_CHECK(version1 || choices[0] & NO_MEMORY ||
                   (from_file.sum == from_memory.sum && from_file.errors == from_memory.errors),
               "%llu events in the file, %llu in memory", (unsigned long long)from_file.count,
               (unsigned long long)from_memory.count);
  }
  unlink(path);
}

static const char *const part_names[FUZZ_NAMES] = {"in/output/a.bin",    "in/output/b.bin", "in/output/c.bin",
                                                   "in/raw/a.bin",       "in/raw/b.bin",    "in/schema/",
                                                   "in/schema/late.bin", "in/staging/pool_0123.link"};

const char *fuzz_spread(const uint8_t *data, size_t size, const char **first) {
  static char first_path[PATH_MAX];
  uint64_t schema_id = 0;
  *first = NULL;
  for (size_t at = 0; at + FUZZ_PART_HEAD <= size;) {
    const uint8_t *head = data + at, *bytes = head + FUZZ_PART_HEAD;
    size_t n = head[1] | (size_t)head[2] << 8 | (size_t)head[3] << 16, left = size - at - FUZZ_PART_HEAD;
    const char *name = part_names[head[0] % FUZZ_NAMES], *slash = strrchr(name, '/');
    char path[64];
    if (n > left) n = left;
    snprintf(path, sizeof path, "%.*s", (int)(slash - name), name);
    mkdir(fuzz_path(path), 0700);
    if (n >= 24 && bytes[4] == 1 && schema_id == 0) memcpy(&schema_id, bytes + 16, 8);
    if (slash[1]) snprintf(path, sizeof path, "%s", name);
    else snprintf(path, sizeof path, "%sevent_schema_%016llx.json", name, (unsigned long long)schema_id);
    const char *to = fuzz_path(path);
    fuzz_write(to, bytes, n);
    if (!*first) {
      snprintf(first_path, sizeof first_path, "%s", to);
      *first = first_path;
    }
    at += FUZZ_PART_HEAD + n;
  }
  return fuzz_path("in");
}
void fuzz_gather(void) {
  static const char *const directories[] = {"in/output", "in/raw", "in/schema", "in/staging"};
  for (size_t i = 0; i < 4; i++) fuzz_clear(fuzz_path(directories[i]), true);
}

static struct {
  ojo_reader *reader;
  unsigned idle;
} following;

/* Nothing more to read: one more file comes, and an empty but sound one that brings us here again. */
static void on_idle(void *user) {
  static const char empty[24] = "ojo\0\1";
  (void)user;
  if (following.idle++ == 0) {
    rename(fuzz_path("in/schema/late.bin"), fuzz_path("in/output/y.bin"));
    if (access(fuzz_path("in/output"), F_OK) == 0) {
      fuzz_write(fuzz_path("in/output/z.bin"), empty, sizeof empty);
      return;
    }
  }
  ojo_reader_stop(following.reader);
}
static void follow(const char *directory, const uint8_t *choices, uint64_t most) {
  ojo_reader_desc desc = {.path = directory, .follow = true, .follow_poll_ms = 1, .idle = on_idle};
  fuzz_seen seen;
  memset(&following, 0, sizeof following);
  FUZZ_CHECK(ojo_reader_open(&following.reader, &desc) == OJO_OK || following.reader, "no reader to follow with");
  if (choices[0] & FLOWS) check_flows(following.reader, most);
  ojo_reader_event e;
  uint64_t count = 0;
  while (ojo_reader_next(following.reader, &e)) FUZZ_CHECK(++count <= most, "more events than slots, following");
  ojo_reader_rewind(following.reader);
  if (choices[0] & AGAIN) fuzz_read(following.reader, most, &seen);
  ojo_reader_close(following.reader);
}

void fuzz_directory(const uint8_t *choices, const uint8_t *data, size_t size) {
  const char *first, *directory = fuzz_spread(data, size, &first);
  if (choices[0] & FOLLOW) {
    follow(directory, choices, size / 24);
  } else {
    ojo_reader_desc desc = {.path = directory};
    fuzz_seen seen = read_input(&desc, choices, size);
    FUZZ_CHECK(ojo_reader_open(&following.reader, &desc) == OJO_OK || following.reader, "no reader");
    sink += (unsigned)(seen.count + ojo_reader_dead_pools(following.reader));
    ojo_reader_close(following.reader);
  }
  fuzz_gather();
}
