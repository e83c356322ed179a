/* SPDX-License-Identifier: MIT
 *
 * mutate.c - changes trace files, directories of them, and patches to a pool, in ways that get past the
 * first check: it knows headers, runs, events, extensions and schemas, and puts lengths, checksums and
 * ids right again most of the time. Compiled as a shared object it is a custom mutator for AFL++.
 */
#include "mutate.h"

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define HEADER 144u
#define SLOT 24u
#define RUN_BYTES 72u
#define RUN_WORD (0xFF02u | 2u << 24)
#define RUNS_MAX 256u
#define EVENTS_MAX 1024u

typedef struct bytes {
  uint8_t *p;
  size_t n, room;
} bytes;

static uint64_t random_state;
static fuzz_general general_mutation;

static uint64_t random64(void) { /* splitmix64 */
  uint64_t z = random_state += UINT64_C(0x9E3779B97F4A7C15);
  z = (z ^ z >> 30) * UINT64_C(0xBF58476D1CE4E5B9);
  z = (z ^ z >> 27) * UINT64_C(0x94D049BB133111EB);
  return z ^ z >> 31;
}
static size_t below(size_t n) { return n ? (size_t)(random64() % n) : 0; }
static bool one_in(unsigned n) { return below(n) == 0; }

static uint64_t get(const uint8_t *p, unsigned width) {
  uint64_t value = 0;
  for (unsigned i = width; i--;) value = value << 8 | p[i];
  return value;
}
static void put(uint8_t *p, unsigned width, uint64_t value) {
  for (unsigned i = 0; i < width; i++) p[i] = (uint8_t)(value >> 8 * i);
}

static bool insert(bytes *b, size_t at, const uint8_t *from, size_t n) {
  if (n > b->room - b->n || at > b->n) return false;
  memmove(b->p + at + n, b->p + at, b->n - at);
  if (from) memcpy(b->p + at, from, n);
  else memset(b->p + at, 0, n);
  b->n += n;
  return true;
}
static void erase(bytes *b, size_t at, size_t n) {
  if (at > b->n || n > b->n - at) return;
  memmove(b->p + at, b->p + at + n, b->n - at - n);
  b->n -= n;
}
/* A copy of [from, from + n) put in before `to`. */
static void repeat(bytes *b, size_t from, size_t n, size_t to) {
  uint8_t *copy = n && from + n <= b->n ? malloc(n) : NULL;
  if (!copy) return;
  memcpy(copy, b->p + from, n);
  insert(b, to, copy, n);
  free(copy);
}

/* A number on which code often turns; `now` is what stands there, `size` that of the whole. */
static uint64_t telling(uint64_t now, size_t size) {
  switch (below(12)) {
    case 0: return 0;
    case 1: return UINT64_MAX - below(3);
    case 2: return UINT64_C(1) << below(64);
    case 3: return (UINT64_C(1) << below(64)) - 1;
    case 4: return now + 1 + below(4);
    case 5: return now - 1 - below(4);
    case 6: return size / SLOT + below(5) - 2;
    case 7: return size + below(5) - 2;
    case 8: return random64();
    case 9: return now * 2;
    case 10: return now ^ UINT64_C(1) << below(64);
    default: return below(300);
  }
}
static void vary(uint8_t *p, unsigned width, size_t size) { put(p, width, telling(get(p, width), size)); }

/* ---- what the file's checks compare with */

static uint32_t crc32c(const uint8_t *p, size_t n) {
  static uint32_t table[256];
  if (!table[1])
    for (uint32_t i = 0; i < 256; i++) {
      uint32_t c = i;
      for (int bit = 0; bit < 8; bit++) c = c >> 1 ^ (c & 1 ? 0x82F63B78u : 0);
      table[i] = c;
    }
  uint32_t crc = UINT32_MAX;
  for (size_t i = 0; i < n; i++) crc = table[(crc ^ p[i]) & 255] ^ crc >> 8;
  return ~crc;
}
static uint64_t fnv(const uint8_t *p, size_t n) {
  uint64_t hash = UINT64_C(14695981039346656037);
  for (size_t i = 0; i < n; i++) hash = (hash ^ p[i]) * UINT64_C(1099511628211);
  return hash;
}

/* ---- version 2's structure */

static size_t slots_at(const bytes *b) {
  size_t at = b->n >= HEADER ? (size_t)get(b->p + 24, 4) : b->n;
  return at >= HEADER && at <= b->n && at % 8 == 0 ? at : HEADER <= b->n ? HEADER : b->n;
}
static size_t find_runs(const bytes *b, size_t runs[RUNS_MAX]) {
  size_t count = 0;
  for (size_t at = slots_at(b); at + RUN_BYTES <= b->n && count < RUNS_MAX; at += SLOT)
    if (get(b->p + at + 8, 4) == RUN_WORD) runs[count++] = at;
  return count;
}
/* Offsets of a run's events, up to its end. */
static size_t find_events(const bytes *b, size_t from, size_t to, size_t events[EVENTS_MAX]) {
  size_t count = 0;
  while (from + SLOT <= to && count < EVENTS_MAX) {
    events[count++] = from;
    from += SLOT * (1 + (size_t)b->p[from + 11]);
  }
  return count;
}
static size_t run_end(const bytes *b, const size_t *runs, size_t count, size_t i) {
  return i + 1 < count ? runs[i + 1] : b->n;
}

static void mend_run(bytes *b, size_t at, size_t end, bool checksums) {
  size_t events[EVENTS_MAX], slots = (end - at - RUN_BYTES) / SLOT, count;
  uint64_t first = UINT64_MAX, last = 0, before = 0;
  bool unsorted = false;
  count = find_events(b, at + RUN_BYTES, end, events);
  for (size_t i = 0; i < count; i++) {
    uint64_t ts = get(b->p + events[i], 8);
    unsorted = unsorted || ts < before;
    before = ts;
    if (ts < first) first = ts;
    if (ts > last) last = ts;
  }
  put(b->p + at, 8, count ? first : 0);
  put(b->p + at + 16, 8, slots);
  put(b->p + at + 32, 8, last);
  put(b->p + at + 48, 4, count);
  if (unsorted) b->p[at + 52] |= 1;
  put(b->p + at + 44, 4, checksums ? crc32c(b->p + at + RUN_BYTES, slots * SLOT) : 0);
}
static void mend_header(bytes *b) {
  size_t runs[RUNS_MAX], count = find_runs(b, runs), start = slots_at(b);
  size_t schema = (size_t)get(b->p + 28, 4), padded = (schema + 7) / 8 * 8;
  uint64_t first = UINT64_MAX, last = 0;
  for (size_t i = 0; i < count; i++) {
    uint64_t from = get(b->p + runs[i], 8), to = get(b->p + runs[i] + 32, 8);
    if (from < first) first = from;
    if (to > last) last = to;
  }
  memcpy(b->p, "ojo", 4);
  b->p[4] = 2;
  put(b->p + 6, 2, SLOT);
  put(b->p + 24, 4, start);
  put(b->p + 72, 8, (b->n - start) / SLOT);
  put(b->p + 80, 8, count ? first : 0);
  put(b->p + 88, 8, last);
  if (schema && padded <= start - HEADER) put(b->p + 16, 8, fnv(b->p + start - padded, schema));
}
static void seal(bytes *b) {
  put(b->p + 140, 4, 0);
  put(b->p + 140, 4, crc32c(b->p, HEADER));
}
static void mend_runs(bytes *b) {
  size_t runs[RUNS_MAX], count = find_runs(b, runs);
  for (size_t i = 0; i < count; i++)
    if (run_end(b, runs, count, i) - runs[i] >= RUN_BYTES)
      mend_run(b, runs[i], run_end(b, runs, count, i), b->p[5] & 8);
}

/* ---- schemas */

static void add_text(char *to, size_t room, const char *text) {
  size_t have = strlen(to);
  if (have + strlen(text) < room) memcpy(to + have, text, strlen(text) + 1);
}
static const char *odd_text(void) {
  static const char *const texts[] = {"PING",           "a,b",          "quote\\\"s",    "\\u0000",
                                      "\\u0001\\n\\r",  "\\u2028",      "\\ud83d\\ude00", "\\ud800",
                                      "\xE2\x80\xAE",   "\xC3\x28",     "\x7F",          "\xEF\xBB\xBF",
                                      "",               "=1+1",         "\\u009b31m",    "0x010001",
                                      "EVENTS_DROPPED", "\\\\",         "Packet",        "\\u0022",
                                      "\xF0\x9F\x98\x80", "\xC2\x9B", "\t",            "\\u202e"};
  return texts[below(sizeof texts / sizeof *texts)];
}
static void make_schema(char *to, size_t room) {
  static const char *const kinds[] = {"none", "number", "range", "text", "bytes", "record", "odd"};
  char item[64];
  unsigned count = (unsigned)below(one_in(8) ? 40 : 4);
  to[0] = 0;
  add_text(to, room, one_in(6) ? "{\"schema_version\":1,\"events\":[" : "{\"events\":[");
  for (unsigned i = 0; i < count; i++) {
    snprintf(item, sizeof item, "%s{\"value\":%u,\"name\":\"", i ? "," : "",
             one_in(3) ? (unsigned)below(0x900) : 0x10000u + (unsigned)below(4));
    add_text(to, room, item);
    for (size_t k = below(one_in(16) ? 300 : 3) + 1; k--;) add_text(to, room, odd_text());
    add_text(to, room, "\",\"category\":\"");
    add_text(to, room, odd_text());
    snprintf(item, sizeof item, "\",\"value_kind\":\"%s\",\"value_type\":%u",
             kinds[below(sizeof kinds / sizeof *kinds)], (unsigned)below(9));
    add_text(to, room, item);
    if (one_in(4)) add_text(to, room, ",\"x\":[[{\"y\":[null,true,-1.5e3]}]]");
    add_text(to, room, "}");
  }
  add_text(to, room, "]}");
}
/* The schema in a version 2 header: another, or with some bytes changed. */
static void change_schema(bytes *b) {
  char text[4096];
  size_t start = slots_at(b), old = start - HEADER, length;
  if (one_in(3) && old) {
    size_t n = get(b->p + 28, 4) <= old ? (size_t)get(b->p + 28, 4) : old;
    uint8_t *schema = b->p + HEADER;
    if (n) schema[below(n)] = one_in(2) ? (uint8_t) "\"\\{}[],:\n\0u\x80\xFF"[below(13)] : (uint8_t)random64();
    return;
  }
  make_schema(text, sizeof text);
  length = strlen(text);
  size_t padded = (length + 7) / 8 * 8;
  if (padded > old && padded - old > b->room - b->n) return;
  erase(b, HEADER, old);
  insert(b, HEADER, NULL, padded);
  memcpy(b->p + HEADER, text, length);
  put(b->p + 24, 4, HEADER + padded);
  put(b->p + 28, 4, length);
}

/* ---- changes to a version 2 file */

static const uint32_t telling_types[] = {1,      2,      3,      6,      7,      8,      9,      0x0A,   0x0D,
                                         0x12,   0x13,   0x14,   0x100,  0x101,  0x105,  0x109,  0x207,  0x302,
                                         0x303,  0x306,  0x308,  0x700,  0x800,  0x801,  0x802,  0x804,  0xFF00,
                                         0xFF01, 0xFF02, 0xFF03, 0xFF04, 0xFFFF, 0x10000, 0x10001, 0x10002,
                                         0x10003, 0x7FFFFF, 0};

static uint32_t some_type(void) { return telling_types[below(sizeof telling_types / sizeof *telling_types)]; }

static void change_header(bytes *b) {
  static const struct {
    uint8_t at, width;
  } fields[] = {{4, 1},  {5, 1},  {6, 2},  {8, 8},  {16, 8}, {24, 4},  {28, 4},  {32, 8},  {40, 1},  {56, 4},
                {60, 4}, {64, 8}, {72, 8}, {80, 8}, {88, 8}, {96, 1},  {112, 8}, {120, 8}, {128, 8}, {136, 4}};
  size_t i = below(sizeof fields / sizeof *fields);
  vary(b->p + fields[i].at, fields[i].width, b->n);
}
static void change_run(bytes *b, size_t at) {
  static const struct {
    uint8_t at, width;
  } fields[] = {{0, 8},  {8, 4},  {12, 4}, {16, 8}, {24, 8}, {32, 8},
                {40, 4}, {44, 4}, {48, 4}, {52, 2}, {54, 2}, {56, 8}};
  size_t i = below(sizeof fields / sizeof *fields);
  vary(b->p + at + fields[i].at, fields[i].width, b->n);
}
static void change_event(bytes *b, size_t at) {
  uint8_t *p = b->p + at;
  switch (below(8)) {
    case 0: vary(p, 8, b->n); break;
    case 1: put(p, 8, get(p, 8) + below(2000) - 1000); break;
    case 2: put(p + 8, 3, some_type()); break;
    case 3: p[11] = (uint8_t)telling(p[11], b->n); break;
    case 4: p[10] ^= 0x80; break; /* SIZED */
    case 5: vary(p + 12, 4, b->n); break;
    case 6: put(p + 12, 4, below(6)); break;
    default: vary(p + 16, 8, b->n); break;
  }
}
/* Bytes of an extension: text that is hard to show, a FLOW's lengths, any. */
static void change_extension(bytes *b, size_t at, size_t end) {
  size_t n = (size_t)b->p[at + 11] * SLOT;
  if (n == 0 || at + SLOT + n > end) return;
  uint8_t *p = b->p + at + SLOT;
  switch (below(4)) {
    case 0: p[below(n)] = (uint8_t)random64(); break;
    case 1: p[4 + below(10)] = (uint8_t)telling(0, n); break;
    case 2: vary(p + 8 * below(n / 8), 8, n); break;
    default: {
      const char *text = odd_text();
      size_t length = strlen(text), to = below(n);
      memcpy(p + to, text, length < n - to ? length : n - to);
    }
  }
}
static void add_event(bytes *b, size_t at) {
  uint8_t slot[SLOT] = {0};
  unsigned extra = one_in(2) ? (unsigned)below(4) : 0;
  put(slot, 8, at >= SLOT && at <= b->n ? get(b->p + at - SLOT, 8) + below(100) : below(10000));
  put(slot + 8, 4, some_type() | extra << 24 | (extra == 0 && one_in(3) ? 0x800000u : 0));
  put(slot + 12, 4, below(5));
  put(slot + 16, 8, one_in(4) ? telling(0, b->n) : below(100));
  if (!insert(b, at, NULL, (1 + extra) * SLOT)) return;
  memcpy(b->p + at, slot, SLOT);
  for (unsigned i = 0; i < extra; i++) change_extension(b, at, b->n);
}
static void add_run(bytes *b, size_t at) {
  if (!insert(b, at, NULL, RUN_BYTES + SLOT)) return;
  put(b->p + at + 8, 4, RUN_WORD);
  put(b->p + at + 12, 4, below(5));
  put(b->p + at + 16, 8, 1);
  put(b->p + at + 24, 8, below(10));
  put(b->p + at + 48, 4, 1);
  put(b->p + at + RUN_BYTES, 8, below(10000));
  put(b->p + at + RUN_BYTES + 8, 4, some_type());
}
static void change_runs(bytes *b, const size_t *runs, size_t count) {
  size_t i = below(count), k = below(count), end = run_end(b, runs, count, i);
  switch (below(4)) {
    case 0: repeat(b, runs[i], end - runs[i], runs[k]); break;
    case 1: erase(b, runs[i], end - runs[i]); break;
    case 2: add_run(b, runs[i]); break;
    default: /* moves it */
      repeat(b, runs[i], end - runs[i], runs[k]);
      erase(b, runs[i] + (k <= i ? end - runs[i] : 0), end - runs[i]);
  }
}
static void change_events(bytes *b, const size_t *runs, size_t count) {
  size_t events[EVENTS_MAX], i = below(count), end = run_end(b, runs, count, i);
  size_t found = find_events(b, runs[i] + RUN_BYTES, end, events);
  size_t at = found ? events[below(found)] : end;
  size_t next = found ? at + SLOT * (1 + (size_t)b->p[at + 11]) : end;
  if (next > end) next = end;
  if (found == 0) {
    add_event(b, end);
    return;
  }
  switch (below(7)) {
    case 0: erase(b, at, next - at); break;
    case 1: repeat(b, at, next - at, events[below(found)]); break;
    case 2: add_event(b, at); break;
    case 3:
    case 4: change_extension(b, at, end); break;
    default: change_event(b, at); break;
  }
}
static void change_bytes(bytes *b) {
  if (one_in(4) && b->n) { /* anywhere, in place */
    size_t at = below(b->n), n = below(b->n - at < 32 ? b->n - at : 32);
    if (n) general_mutation(b->p + at, n, n);
    return;
  }
  b->n = general_mutation(b->p, b->n, b->room);
}
static void change_file2(bytes *b) {
  size_t runs[RUNS_MAX], count = find_runs(b, runs);
  switch (below(12)) {
    case 0: change_header(b); break;
    case 1: change_schema(b); break;
    case 2: b->p[5] ^= (uint8_t)(1u << below(5)); break;
    case 3: change_bytes(b); break;
    case 4:
      if (one_in(4)) b->n = one_in(2) ? below(b->n) : slots_at(b) + below((b->n - slots_at(b)) / SLOT + 1) * SLOT;
      break;
    case 5:
      if (count) change_run(b, runs[below(count)]);
      else add_run(b, slots_at(b));
      break;
    case 6:
    case 7:
      if (count) change_runs(b, runs, count);
      else add_run(b, slots_at(b));
      break;
    default:
      if (count) change_events(b, runs, count);
      else add_run(b, slots_at(b));
  }
}

/* ---- version 1, and any file */

static void change_file1(bytes *b) {
  size_t records = (b->n - 24) / 40, at = 24 + 40 * below(records);
  switch (below(7)) {
    case 0: vary(b->p + 8 * (1 + below(2)), 8, b->n); break;
    case 1: change_bytes(b); break;
    case 2:
      if (records) repeat(b, at, 40, 24 + 40 * below(records));
      break;
    case 3:
      if (records > 1) erase(b, at, 40);
      break;
    case 4:
      if (records) memset(b->p + at + 8, 0xFF, 16); /* events dropped */
      break;
    default:
      if (records) vary(b->p + at + 8 * below(5), 8, b->n);
      else insert(b, b->n, NULL, 40);
  }
}
/* Every so often it stays as it came out, with its lengths and sums wrong. */
static void change_file(bytes *b) {
  bool ojo = b->n >= 24 && memcmp(b->p, "ojo", 4) == 0;
  unsigned times = 1 + (unsigned)below(4);
  for (unsigned i = 0; i < times; i++) {
    if (ojo && b->p[4] == 2 && b->n >= HEADER) change_file2(b);
    else if (ojo && b->p[4] == 1 && b->n >= 24) change_file1(b);
    else if (b->n && b->p[0] == '{' && one_in(2)) {
      char text[4096];
      make_schema(text, sizeof text);
      b->n = 0;
      insert(b, 0, (uint8_t *)text, strlen(text) < b->room ? strlen(text) : b->room);
    } else {
      change_bytes(b);
    }
    ojo = b->n >= 24 && memcmp(b->p, "ojo", 4) == 0;
  }
  if (!ojo || b->p[4] != 2 || b->n < HEADER || one_in(8)) return;
  if (!one_in(3)) mend_runs(b);
  if (!one_in(4)) mend_header(b);
  seal(b);
}

/* ---- parts and patches */

#define PARTS_MAX 64u

static size_t find_parts(const bytes *b, size_t parts[PARTS_MAX + 1]) {
  size_t count = 0, at = FUZZ_CHOICES;
  while (at + FUZZ_PART_HEAD <= b->n && count < PARTS_MAX) {
    size_t left = b->n - at - FUZZ_PART_HEAD, n = (size_t)get(b->p + at + 1, 3);
    parts[count++] = at;
    at += FUZZ_PART_HEAD + (n < left ? n : left);
  }
  parts[count] = b->n;
  return count;
}
static void change_part(bytes *b, size_t at, size_t end) {
  size_t n = end - at - FUZZ_PART_HEAD, tail = b->n - end, room = b->room - (b->n - n);
  bytes part = {malloc(room + 1), n, room};
  if (!part.p) return;
  if (n) memcpy(part.p, b->p + at + FUZZ_PART_HEAD, n);
  change_file(&part);
  if (part.n > 0xFFFFFF) part.n = 0xFFFFFF;
  memmove(b->p + at + FUZZ_PART_HEAD + part.n, b->p + end, tail);
  if (part.n) memcpy(b->p + at + FUZZ_PART_HEAD, part.p, part.n);
  put(b->p + at + 1, 3, part.n);
  b->n = at + FUZZ_PART_HEAD + part.n + tail;
  free(part.p);
}
static void change_parts(bytes *b) {
  size_t parts[PARTS_MAX + 1], count = find_parts(b, parts);
  size_t i = below(count), k = below(count);
  if (count == 0) {
    insert(b, b->n, NULL, FUZZ_PART_HEAD + HEADER);
    return;
  }
  switch (below(16)) {
    case 0: repeat(b, parts[i], parts[i + 1] - parts[i], parts[k]); break;
    case 1:
      if (count > 1) erase(b, parts[i], parts[i + 1] - parts[i]);
      break;
    case 2: b->p[parts[i]] = (uint8_t)below(FUZZ_NAMES); break;
    case 3: /* two batches of one trace: the same id */
      if (parts[i + 1] - parts[i] >= FUZZ_PART_HEAD + HEADER && parts[k + 1] - parts[k] >= FUZZ_PART_HEAD + HEADER) {
        bytes file = {b->p + parts[i] + FUZZ_PART_HEAD, HEADER, HEADER};
        memcpy(file.p + 40, b->p + parts[k] + FUZZ_PART_HEAD + 40, 16);
        seal(&file);
      }
      break;
    default: change_part(b, parts[i], parts[i + 1]); break;
  }
}
static void change_patches(bytes *b) {
  size_t count = (b->n - FUZZ_CHOICES) / FUZZ_PATCH, at = FUZZ_CHOICES + FUZZ_PATCH * below(count);
  uint8_t patch[FUZZ_PATCH] = {0};
  switch (count ? below(8) : 0) {
    case 0:
    case 1:
    case 2:
      patch[0] = (uint8_t)(below(FUZZ_PATCH_KINDS) | (one_in(4) ? 0x80 : 0));
      patch[1] = (uint8_t)(one_in(4) ? random64() : below(4));
      put(patch + 2, 2, below(32));
      put(patch + 4, 4, random64());
      put(patch + 8, 8, telling(0, 1u << 16));
      insert(b, FUZZ_CHOICES + FUZZ_PATCH * count, patch, FUZZ_PATCH);
      break;
    case 3: erase(b, at, FUZZ_PATCH); break;
    case 4: vary(b->p + at + 8, 8, 1u << 16); break;
    case 5: b->p[at + 2] = (uint8_t)below(32); break;
    case 6: repeat(b, at, FUZZ_PATCH, FUZZ_CHOICES + FUZZ_PATCH * below(count)); break;
    default: change_bytes(b); break;
  }
}

/* ---- entries */

size_t fuzz_mutate(fuzz_layout layout, uint8_t *data, size_t size, size_t room, uint64_t seed,
                   fuzz_general general) {
  bytes b = {data, size, room};
  random_state = seed * UINT64_C(0xD1342543DE82EF95) + 1;
  general_mutation = general;
  if (room < FUZZ_CHOICES + HEADER) return general(data, size, room);
  if (b.n < FUZZ_CHOICES) insert(&b, b.n, NULL, FUZZ_CHOICES - b.n);
  if (one_in(6)) b.p[below(FUZZ_CHOICES)] = (uint8_t)random64();
  if (layout == FUZZ_FILE) {
    bytes file = {data + FUZZ_CHOICES, b.n - FUZZ_CHOICES, room - FUZZ_CHOICES};
    change_file(&file);
    return FUZZ_CHOICES + file.n;
  }
  if (layout == FUZZ_PARTS) change_parts(&b);
  else change_patches(&b);
  return b.n;
}

#ifdef FUZZ_AFL_MUTATOR
typedef struct afl_state {
  fuzz_layout layout;
  uint8_t *buffer;
  size_t room;
  uint64_t seed;
} afl_state;

static size_t flip_byte(uint8_t *data, size_t size, size_t room) {
  (void)room;
  if (size) data[below(size)] ^= (uint8_t)(1u << below(8));
  return size;
}

void *afl_custom_init(void *afl, unsigned seed);
size_t afl_custom_fuzz(afl_state *s, uint8_t *data, size_t size, uint8_t **out, uint8_t *add, size_t add_size,
                       size_t max_size);
void afl_custom_deinit(afl_state *s);

void *afl_custom_init(void *afl, unsigned seed) {
  afl_state *s = calloc(1, sizeof *s);
  const char *target = getenv("OJO_FUZZ_TARGET");
  (void)afl;
  if (!s || !target) return s;
  s->seed = seed;
  s->layout = strcmp(target, "recover") == 0                                     ? FUZZ_PATCHES
              : strcmp(target, "cat") == 0 || strcmp(target, "directory") == 0 ? FUZZ_PARTS
                                                                                 : FUZZ_FILE;
  return s;
}
size_t afl_custom_fuzz(afl_state *s, uint8_t *data, size_t size, uint8_t **out, uint8_t *add, size_t add_size,
                       size_t max_size) {
  (void)add;
  (void)add_size;
  size_t room = max_size < 65536 ? max_size : 65536;
  if (s->room < room) {
    uint8_t *grown = realloc(s->buffer, room);
    if (!grown) return 0;
    s->buffer = grown;
    s->room = room;
  }
  if (size > room) size = room;
  memcpy(s->buffer, data, size);
  *out = s->buffer;
  return fuzz_mutate(s->layout, s->buffer, size, room, s->seed++, flip_byte);
}
void afl_custom_deinit(afl_state *s) {
  free(s->buffer);
  free(s);
}
#endif
