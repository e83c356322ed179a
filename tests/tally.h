/* SPDX-License-Identifier: MIT
 *
 * tally.h - walks trace files as their format says and counts what is in them: events per flow with their
 * sequence numbers, losses, ordinals. For tests that include ojo.h's implementation and check.h first.
 */
#ifndef OJO_TESTS_TALLY_H
#define OJO_TESTS_TALLY_H

enum { FLOWS = 32768 };

/* What the files of a trace say, per flow; fed file by file in batch order. */
struct tally {
  uint64_t events[FLOWS], next[FLOWS]; /* next: least sequence number that may come */
  uint64_t total, dropped, deleted, files, batch_next;
  uint64_t bad_order, bad_payload, bad_file, bad_ordinal, unsorted, nested;
  uint64_t unordered, sum; /* a flow whose events have no order; the sum of its sequence numbers */
  bool late; /* a cancelled thread's chunk may come behind what that thread recorded next */
  bool live; /* files come meanwhile: a listing may miss one and have the next, which then waits its turn */
  struct { uint64_t ordinal, lost, gap, gap_end; bool seen; } stream[FLOWS * 4]; /* by thread and level */
};

/* Sequence numbers carry a check in their upper half, extensions repeat it. */
static uint64_t sealed(uint32_t flow, uint64_t n) {
  return n | ((n * 0x9E3779B97F4A7C15u ^ flow * 0x85EBCA6Bu) & UINT64_C(0xFFFFF)) << 44;
}

static void tally_event(struct tally *s, const ojo_event *e, unsigned extra, bool sized) {
  uint64_t n = e->payload & ((UINT64_C(1) << 44) - 1);
  uint32_t type = e->type & OJO_TYPE_MASK;
  if (type == OJO_FLOW || e->flow >= FLOWS) return;
  if (sized) s->bad_payload += (e->payload >> 44) != (n & 0xFFFFF);
  else s->bad_payload += e->payload != sealed(e->flow, n);
  for (unsigned i = 0; i < extra; i++) s->bad_payload += e[1 + i].payload != e->payload;
  if (s->unordered == e->flow) s->sum += n & 0xFFFFFFFFFFF;
  else s->bad_order += n < s->next[e->flow];
  s->next[e->flow] = n + 1;
  s->events[e->flow]++;
}

/* Walks one file as its format says. */
static void tally_file(struct tally *s, const unsigned char *data, size_t bytes) {
  ojo_file_header h;
  memcpy(&h, data, sizeof h);
  uint32_t crc = h.crc;
  h.crc = 0;
  s->files++;
  if (bytes < sizeof h || memcmp(h.magic, "ojo", 4) || !(h.flags & OJO_FILE_COMPLETE) ||
      crc != ojo__crc32c(0, &h, sizeof h) || h.header_bytes + 24 * h.slot_count != bytes ||
      h.batch != s->batch_next) {
    s->bad_file++;
    return;
  }
  s->batch_next++;
  const ojo_event *at = (const ojo_event *)(const void *)(data + h.header_bytes), *end = at + h.slot_count;
  while (at < end) {
    ojo_run run;
    if (at->type != (OJO_RUN | 2u << 24) || at + 3 + at->payload > end) {
      s->bad_file++;
      return;
    }
    memcpy(&run, at + 1, sizeof run);
    const ojo_event *slot = at + 3, *stop = slot + at->payload;
    if (run.crc && run.crc != ojo__crc32c(0, slot, (size_t)(stop - slot) * 24)) s->bad_file++;
    uint64_t events = 0, recorded = 0, lost = 0, last = 0, least = UINT64_MAX, greatest = 0;
    bool sorted = true;
    while (slot < stop) {
      uint32_t type = slot->type & OJO_TYPE_MASK;
      unsigned extra = slot->type >> 24;
      if (type != OJO_THREAD) {
        events++;
        sorted = sorted && slot->ts >= last;
        last = slot->ts;
        if (last < least) least = last;
        if (last > greatest) greatest = last;
        if (type == OJO_EVENTS_DROPPED) {
          uint32_t reason;
          memcpy(&reason, (const char *)(slot + 1) + 16, 4);
          if (reason == OJO_DROP_DISK_LIMIT) s->deleted += slot->payload;
          else s->dropped += slot->payload, lost += slot->payload;
        } else {
          s->total++, recorded++;
          tally_event(s, slot, extra, (slot->type & OJO_SIZED) != 0);
        }
      }
      slot += 1 + extra;
    }
    s->bad_file += slot != stop || events != run.events || least != at->ts || greatest != run.last_ts ||
                   greatest > h.last_ts || least < h.first_ts || sorted != !(run.flags & OJO_RUN_UNSORTED);
    s->unsorted += !sorted;
    s->bad_file += (run.level > 0) != ((run.flags & OJO_RUN_HANDLER) != 0);
    if (run.level) s->nested += recorded;
    if (at->flow && at->flow < FLOWS) { /* ordinals: no gap that EVENTS_DROPPED does not tell */
      uint32_t i = at->flow * 4 + run.level;
      uint64_t expected = s->stream[i].ordinal + lost;
      if (s->late && s->stream[i].gap == s->stream[i].gap_end && run.first_ordinal > expected) {
        s->stream[i].gap = expected;
        s->stream[i].gap_end = expected = run.first_ordinal;
      } else if (s->late && s->stream[i].gap < s->stream[i].gap_end && run.first_ordinal == s->stream[i].gap) {
        s->stream[i].gap += recorded; /* more than is missing: the test for it finds that */
        at = stop;
        continue;
      }
      s->bad_ordinal += run.first_ordinal != expected || run.lost_before != s->stream[i].lost + lost;
      s->stream[i].ordinal = run.first_ordinal + recorded;
      s->stream[i].lost = run.lost_before;
    }
    at = stop;
  }
}

struct name { char text[64]; unsigned long long sequence; };
static int by_sequence(const void *a, const void *b) {
  const struct name *x = (const struct name *)a, *y = (const struct name *)b;
  return (x->sequence > y->sequence) - (x->sequence < y->sequence);
}

static bool in_turn(const struct tally *s, const char *data, size_t bytes) {
  ojo_file_header h;
  if (bytes < sizeof h) return true; /* unsound: tally_file says so */
  memcpy(&h, data, sizeof h);
  return h.batch <= s->batch_next;
}

/* Reads what is in DIR/output/ now; with `consume` deletes each file after it. */
static void tally_dir(struct tally *s, const char *dir, bool consume) {
  char path[4096];
  struct name *names = NULL;
  size_t count = 0, bytes;
  snprintf(path, sizeof path, "%s/output", dir);
  DIR *d = opendir(path);
  struct dirent *entry;
  while (d && (entry = readdir(d)) != NULL) {
    if (entry->d_name[0] == '.') continue;
    names = (struct name *)realloc(names, (count + 1) * sizeof *names);
    if (!names) abort();
    snprintf(names[count].text, sizeof names[count].text, "%.60s", entry->d_name);
    sscanf(entry->d_name, "trace_%*u_%llu.bin", &names[count].sequence);
    count++;
  }
  if (d) closedir(d);
  if (count) qsort(names, count, sizeof *names, by_sequence);
  for (size_t i = 0; i < count; i++) {
    snprintf(path, sizeof path, "%s/output/%s", dir, names[i].text);
    char *data = check_load(path, &bytes);
    if (!data) abort();
    bool now = !s->live || in_turn(s, data, bytes);
    if (now) tally_file(s, (const unsigned char *)data, bytes);
    free(data);
    if (!now) break;
    if (consume) unlink(path);
  }
  free(names);
}

static struct tally *tally_new(void) {
  struct tally *s = (struct tally *)calloc(1, sizeof *s);
  if (!s) abort();
  return s;
}

OJO__UNUSED static void tally_check(const struct tally *s, const char *what, uint64_t attempted) {
  check(s->bad_file == 0, "%s: %llu unsound files or runs", what, (unsigned long long)s->bad_file);
  check(s->bad_payload == 0, "%s: %llu torn payloads", what, (unsigned long long)s->bad_payload);
  check(s->bad_order == 0, "%s: %llu doubled or out of order", what, (unsigned long long)s->bad_order);
  check(s->bad_ordinal == 0, "%s: %llu runs with wrong ordinals", what, (unsigned long long)s->bad_ordinal);
  check(s->total + s->dropped + s->deleted == attempted, "%s: %llu in files + %llu dropped + %llu deleted, not %llu",
        what, (unsigned long long)s->total, (unsigned long long)s->dropped, (unsigned long long)s->deleted,
        (unsigned long long)attempted);
}
#endif
