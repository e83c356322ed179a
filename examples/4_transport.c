/* SPDX-License-Identifier: MIT
 *
 * 4_transport.c - a small reliable transport over UDP, with everything it does recorded
 *
 * Two processes on the loopback interface transfer a file through a lossy, reordering, duplicating and
 * damaging link, and compare its hash at the far end:
 *
 *     cc -std=gnu11 -O2 -I. examples/4_transport.c -o 4_transport -pthread
 *     OJO_DIR=traces ./4_transport --bytes 50M --loss 1
 *
 * The protocol is QUIC in miniature: packet numbers that are never used twice, acknowledged by ranges;
 * loss by packet threshold and by timeout; lost frames go out again under a new number; streams with FIN;
 * credit for the connection and for each stream; NewReno. It has no security whatsoever: learn from where
 * it records, not from what it sends.
 *
 * The four rules of recording, which hold for every transport:
 *   1. One clock read per packet: `now` is read once, and all events of that packet get it (`_at`). This
 *      transport reads CLOCK_MONOTONIC for its timers anyway, and ojo takes that; one that reads no clock
 *      takes `now = ojo_now(trace)`.
 *   2. What a packet carries is recorded before its PACKET_SENT, and after its PACKET_RECEIVED.
 *   3. Packet events go on the connection's flow, stream events on the stream's.
 *   4. Record where the state changes, not where it is looked at; ojo_metrics_at does that for numbers.
 * A tracer that is off is NULL, and every call takes NULL: nothing here asks whether tracing is on.
 */
#define _GNU_SOURCE /* ppoll */
#define OJO_IMPLEMENTATION
#include "ojo.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <netinet/in.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define MS UINT64_C(1000000) /* ns */
#define NONE UINT64_MAX

enum {
  PACKET_BYTES_MIN = 600, /* an ACK with all its ranges, and something beside it */
  PACKET_BYTES_MAX = 9000,
  HEADER_BYTES = 20,
  STREAMS_MAX = 64,
  FRAMES_MAX = 8,         /* in one packet, without ACK */
  SENT_MAX = 1 << 14,     /* packets remembered, acknowledged or not; a power of two */
  ACK_RANGES_MAX = 32,    /* in one ACK */
  ACK_BYTES = 6 + 4 * 8,  /* of one with four ranges */
  ACK_MEMORY = 256,       /* packets: how much later than its successors a packet may come */
  ACK_EVERY = 2,          /* packets, unless one is missing: then at once */
  PACKET_THRESHOLD = 3,   /* RFC 9002, 6.1.1 */
  CLOSE_TRIES = 8,
  REPLY_BYTES = 8 /* the server's stream: the hash of what it received */
};
static const uint64_t ACK_DELAY_NS = 5 * MS;    /* at most, for a single packet */
static const uint64_t RTT_INITIAL_NS = 20 * MS; /* until the first sample */
static const uint64_t GRANULARITY_NS = 5 * MS;  /* least allowance for variation: schedulers are slow */

struct options {
  uint64_t bytes, seed, streams, packet_bytes, window, stream_window, delay_ms, idle_ms;
  double loss, reorder, duplicate, damage;
  const char *file, *output;
  uint64_t server_port, client_port;
};

static void die(const char *what) { /* errno 0: it says all */
  fprintf(stderr, "4_transport: %s%s%s\n", what, errno ? ": " : "", errno ? strerror(errno) : "");
  exit(1);
}

static uint64_t now_ns(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static uint64_t min_u64(uint64_t a, uint64_t b) { return a < b ? a : b; }
static uint64_t max_u64(uint64_t a, uint64_t b) { return a > b ? a : b; }

static uint64_t random_next(uint64_t *state) { /* splitmix64 */
  uint64_t z = *state += UINT64_C(0x9E3779B97F4A7C15);
  z = (z ^ z >> 30) * UINT64_C(0xBF58476D1CE4E5B9);
  z = (z ^ z >> 27) * UINT64_C(0x94D049BB133111EB);
  return z ^ z >> 31;
}

static bool random_chance(uint64_t *state, double percent) {
  return (double)(random_next(state) >> 11) * 0x1p-53 * 100.0 < percent;
}

static uint64_t hash_bytes(const uint8_t *data, size_t bytes) { /* against accidents, not attacks */
  uint64_t hash = UINT64_C(0xcbf29ce484222325) ^ bytes, word;
  for (; bytes >= 8; data += 8, bytes -= 8) {
    memcpy(&word, data, 8);
    hash = (hash ^ word) * UINT64_C(0x9E3779B97F4A7C15);
    hash ^= hash >> 32;
  }
  for (; bytes; data++, bytes--) hash = (hash ^ *data) * UINT64_C(0x100000001b3);
  return hash ^ hash >> 29;
}

/* ---- the link: a socket that really loses, reorders, repeats, damages and delays ------------- */

struct held {
  struct held *next;
  uint64_t due_ns, due_count; /* leaves at this time, or when so many have been sent after it */
  size_t bytes;
  uint8_t data[];
};

struct link {
  int fd;
  const struct options *options;
  uint64_t random, count, dropped;
  struct held *held;
};

static void link_out(struct link *l, const uint8_t *data, size_t bytes) {
  /* What the kernel refuses is lost, like what the network loses: the protocol deals with both. */
  if (send(l->fd, data, bytes, MSG_NOSIGNAL) < 0) l->dropped++;
}

static void link_release(struct link *l, uint64_t now) {
  for (struct held **at = &l->held; *at;) {
    struct held *h = *at;
    if (now < h->due_ns && l->count < h->due_count) {
      at = &h->next;
      continue;
    }
    *at = h->next;
    link_out(l, h->data, h->bytes);
    free(h);
  }
}

static void link_hold(struct link *l, uint64_t due_ns, uint64_t due_count, const uint8_t *data,
                      size_t bytes) {
  struct held *h = malloc(sizeof *h + bytes), **last = &l->held;
  if (!h) die("no memory");
  *h = (struct held){.due_ns = due_ns, .due_count = due_count, .bytes = bytes};
  memcpy(h->data, data, bytes);
  while (*last) last = &(*last)->next;
  *last = h;
}

static void link_send(struct link *l, uint64_t now, const uint8_t *data, size_t bytes) {
  const struct options *o = l->options;
  uint8_t damaged[PACKET_BYTES_MAX];
  l->count++;
  for (int copies = random_chance(&l->random, o->duplicate) ? 2 : 1; copies; copies--) {
    uint64_t late = random_chance(&l->random, o->reorder) ? 1 + random_next(&l->random) % 8 : 0;
    const uint8_t *out = data;
    if (random_chance(&l->random, o->loss)) {
      l->dropped++;
      continue;
    }
    if (random_chance(&l->random, o->damage)) {
      memcpy(damaged, data, bytes);
      damaged[random_next(&l->random) % bytes] ^= 0x55;
      out = damaged;
    }
    if (o->delay_ms) link_hold(l, now + o->delay_ms * MS * (8 + late) / 8, NONE, out, bytes);
    else if (late) link_hold(l, now + 2 * MS, l->count + late, out, bytes);
    else link_out(l, out, bytes);
  }
  link_release(l, now);
}

static uint64_t link_deadline(const struct link *l) {
  uint64_t due = NONE;
  for (const struct held *h = l->held; h; h = h->next) due = min_u64(due, h->due_ns);
  return due;
}

/* ---- sets of ranges: which packets came, which bytes were acknowledged ----------------------- */

struct range { uint64_t first, end; };
struct ranges { /* sorted, apart from each other */
  struct range *at;
  size_t count, room;
};

static void ranges_add(struct ranges *r, uint64_t first, uint64_t end) {
  size_t low = r->count, high = r->count;
  while (low && r->at[low - 1].end >= first) { /* from the back: new ones are mostly the greatest */
    low--;
    if (r->at[low].first > end) high = low;
  }
  if (low == high) {
    if (r->count == r->room) {
      r->room = r->room ? 2 * r->room : 16;
      r->at = realloc(r->at, r->room * sizeof *r->at);
      if (!r->at) die("no memory");
    }
    memmove(r->at + low + 1, r->at + low, (r->count - low) * sizeof *r->at);
    r->at[low] = (struct range){first, end};
    r->count++;
    return;
  }
  r->at[low].first = min_u64(r->at[low].first, first);
  r->at[low].end = max_u64(r->at[high - 1].end, end);
  memmove(r->at + low + 1, r->at + high, (r->count - high) * sizeof *r->at);
  r->count -= high - low - 1;
}

/* The first part of first..end that is not in the set; its first == its end if there is none. */
static struct range ranges_gap(const struct ranges *r, uint64_t first, uint64_t end) {
  size_t i = r->count;
  while (i && r->at[i - 1].end > first) i--;
  for (; i < r->count && r->at[i].first <= first && first < end; i++)
    first = max_u64(first, r->at[i].end);
  if (first >= end) return (struct range){end, end};
  return (struct range){first, i < r->count ? min_u64(end, r->at[i].first) : end};
}

static void ranges_forget(struct ranges *r, uint64_t below) {
  size_t gone = 0;
  while (gone < r->count && r->at[gone].end <= below) gone++;
  if (gone) memmove(r->at, r->at + gone, (r->count - gone) * sizeof *r->at);
  r->count -= gone;
  if (r->count && r->at[0].first < below) r->at[0].first = below;
}

/* ---- the wire: little-endian, fixed widths --------------------------------------------------- */

enum frame_kind {
  FRAME_ACK = 1,         /* u32 delay us, u8 count, count * (u32 first, u32 packets), newest first */
  FRAME_HELLO,           /* u64 file bytes, u64 hash, u32 streams, u64 connection, u64 stream credit */
  FRAME_STREAM,          /* u32 stream, u64 offset, u16 length, u8 FIN, the bytes */
  FRAME_MAX_DATA,        /* u64 limit */
  FRAME_MAX_STREAM_DATA, /* u32 stream, u64 limit */
  FRAME_BLOCKED,         /* u64 limit */
  FRAME_STREAM_BLOCKED,  /* u32 stream, u64 limit */
  FRAME_CLOSE            /* u64 error */
};
enum { STREAM_FRAME_BYTES = 16, MAGIC = 0x314f4a4f };

struct wire {
  uint8_t *at, *end;
  bool bad; /* read past the end */
};

static void put(struct wire *w, uint64_t value, unsigned bytes) {
  for (unsigned i = 0; i < bytes; i++) *w->at++ = (uint8_t)(value >> 8 * i);
}

static uint64_t get(struct wire *w, unsigned bytes) {
  uint64_t value = 0;
  if ((size_t)(w->end - w->at) < bytes) {
    w->bad = true;
    return 0;
  }
  for (unsigned i = 0; i < bytes; i++) value |= (uint64_t)*w->at++ << 8 * i;
  return value;
}

static size_t room(const struct wire *w) { return (size_t)(w->end - w->at); }

/* ---- the connection -------------------------------------------------------------------------- */

struct frame { /* what a packet carried, to send it again */
  enum frame_kind kind;
  uint32_t stream;
  uint64_t start, length; /* STREAM: the range; the others: start is the limit */
};

struct sent { /* a packet, until its slot is used again */
  uint64_t number, time_ns, bytes;
  uint64_t reported; /* the greatest of the peer's numbers that it acknowledged; NONE: none */
  uint64_t again;    /* the lost packet of which it brought back frames last; NONE: none */
  enum { OUTSTANDING = 1, ACKED, LOST } state;
  bool in_flight; /* it asks for an acknowledgement; a packet with nothing but an ACK does not */
  unsigned frames;
  struct frame frame[FRAMES_MAX];
};

struct stream {
  uint64_t id;
  uint32_t flow;
  bool ours, closed;
  /* ours: */
  const uint8_t *data; /* NULL: the application has not written it yet */
  uint64_t size, next; /* all below next was sent at least once */
  uint64_t limit, blocked_at;
  struct ranges acked;
  bool fin_sent, fin_acked;
  /* the peer's: */
  uint8_t *sink;
  uint64_t sink_bytes, final_size, consumed, granted;
  struct ranges received;
};

struct lost { uint64_t number; struct frame frame; };

struct connection {
  const struct options *options;
  struct link link;
  bool server;
  uint64_t id;
  ojo_connection state;
  ojo_tracer *trace;
  uint32_t flow;
  ojo_metrics_values recorded; /* what ojo_metrics_at recorded last */

  uint8_t *file;
  uint64_t file_bytes, file_hash; /* the hash as the client says */
  uint64_t reply;                 /* the hash as the server found it */
  struct stream stream[STREAMS_MAX + 1]; /* the client's, then the server's reply */
  unsigned streams;
  unsigned turn; /* the stream to send from next */

  struct sent *sent; /* SENT_MAX, by number modulo SENT_MAX */
  uint64_t next_number, first_outstanding, outstanding;
  struct lost *lost; /* frames to send again: a ring of SENT_MAX */
  uint64_t lost_head, lost_tail;
  bool close_due, close_acked;

  struct ranges received; /* the peer's packet numbers */
  uint64_t received_floor; /* below: forgotten */
  uint64_t largest_received, largest_time_ns;
  unsigned unacked;    /* packets received that ask for an ACK which is not sent yet */
  bool ack_new, ack_due;
  uint64_t ack_deadline_ns;

  uint64_t limit, sent_bytes, blocked_at;    /* the peer's credit for us; the sum of the streams' next */
  uint64_t granted, consumed, data_received; /* our credit for the peer */

  uint64_t cwnd, ssthresh, in_flight;
  uint64_t recovery_end; /* packets below were sent before the window was reduced last */
  bool recovering;
  ojo_congestion congestion;
  ojo_limited limited;

  uint64_t rtt_latest, rtt_smoothed, rtt_min, rtt_variation; /* ns; latest 0: no sample yet */
  uint64_t loss_deadline_ns, timer_from_ns;
  unsigned expiries; /* in a row */
  uint64_t last_heard_ns;

  uint64_t started_ns, ended_ns;
  uint64_t count_lost, count_spurious, count_again, count_dropped; /* packets */
};

static bool closing(const struct connection *c) {
  return c->state == OJO_CONNECTION_CLOSING || c->state == OJO_CONNECTION_DRAINING;
}

static void set_state(struct connection *c, uint64_t now, ojo_connection state) {
  if (c->state == state) return;
  c->state = state;
  if (closing(c)) c->ended_ns = now;
  ojo_connection_state_at(c->trace, now, c->flow, state);
}

/* CONNECTION_CLOSED with who closed it; ojo_flow_close does the same for "we did, now". */
static void record_closed(struct connection *c, uint64_t now, uint64_t error, uint8_t by,
                          const char *why) {
  size_t length = min_u64(strlen(why), 64);
  uint8_t bytes[4 + 64] = {by, 1, (uint8_t)length, 0}; /* 1: the application's error codes */
  memcpy(bytes + 4, why, length);
  ojo_record_ext_at(c->trace, now, c->flow, OJO_CONNECTION_CLOSED, error, bytes, 4 + length);
}

/* ---- congestion control: NewReno, with RFC 9002's recovery period ---------------------------- */

/* After every step that may have changed a number: one event for each that did. */
static void record_metrics(struct connection *c, uint64_t now) {
  ojo_metrics_values values = {.cwnd = c->cwnd, .ssthresh = c->ssthresh, .bytes_in_flight = c->in_flight,
                               .latest_rtt_ns = c->rtt_latest, .smoothed_rtt_ns = c->rtt_smoothed,
                               .min_rtt_ns = c->rtt_min, .rtt_variation_ns = c->rtt_variation};
  ojo_congestion state = c->recovering ? OJO_CONGESTION_RECOVERY
                         : c->cwnd < c->ssthresh ? OJO_CONGESTION_SLOW_START : OJO_CONGESTION_AVOIDANCE;
  ojo_metrics_at(c->trace, now, c->flow, &c->recorded, &values);
  if (state != c->congestion) ojo_congestion_state_at(c->trace, now, c->flow, state);
  c->congestion = state;
}

static uint64_t cwnd_min(const struct connection *c) { return 2 * c->options->packet_bytes; }

static void congestion_acked(struct connection *c, const struct sent *p) {
  if (p->number < c->recovery_end) return;
  c->recovering = false; /* a packet sent after the reduction has arrived */
  /* A window that was not used is not proved: it grows only while it is what limits us. */
  if (c->limited != OJO_LIMITED_CWND) return;
  if (c->cwnd < c->ssthresh) c->cwnd += p->bytes;
  else c->cwnd += c->options->packet_bytes * p->bytes / c->cwnd;
}

static void congestion_lost(struct connection *c, const struct sent *p) {
  if (p->number < c->recovery_end) return; /* one reduction per round trip */
  c->recovery_end = c->next_number;
  c->recovering = true;
  c->cwnd = max_u64(c->cwnd / 2, cwnd_min(c));
  c->ssthresh = c->cwnd;
}

/* The second timeout in a row: the path has changed or is gone. Start over with the least window, slowly
 * up to ssthresh; this takes the place of RFC 9002's persistent congestion. */
static void congestion_collapsed(struct connection *c) {
  c->recovery_end = c->next_number;
  c->recovering = false;
  c->cwnd = cwnd_min(c);
}

/* ---- round-trip time and the loss timer ------------------------------------------------------ */

static void rtt_sample(struct connection *c, uint64_t latest, uint64_t ack_delay) { /* RFC 9002, 5.3 */
  if (!c->rtt_latest) {
    c->rtt_min = c->rtt_smoothed = latest;
    c->rtt_variation = latest / 2;
  } else {
    c->rtt_min = min_u64(c->rtt_min, latest);
    ack_delay = min_u64(ack_delay, ACK_DELAY_NS);
    uint64_t sample = latest >= c->rtt_min + ack_delay ? latest - ack_delay : latest;
    uint64_t off = sample > c->rtt_smoothed ? sample - c->rtt_smoothed : c->rtt_smoothed - sample;
    c->rtt_variation = (3 * c->rtt_variation + off) / 4;
    c->rtt_smoothed = (7 * c->rtt_smoothed + sample) / 8;
  }
  c->rtt_latest = latest;
}

static uint64_t timeout_ns(const struct connection *c) {
  uint64_t smoothed = c->rtt_latest ? c->rtt_smoothed : RTT_INITIAL_NS;
  uint64_t variation = c->rtt_latest ? c->rtt_variation : RTT_INITIAL_NS / 2;
  uint64_t timeout = smoothed + max_u64(4 * variation, GRANULARITY_NS) + ACK_DELAY_NS;
  /* Draining: long enough to answer a CLOSE that comes again and again because our ACK was lost. */
  if (c->state == OJO_CONNECTION_DRAINING) return 8 * timeout;
  return timeout << (c->expiries < 4 ? c->expiries : 4);
}

/* The timer runs from the last packet that asks for an acknowledgement; while closing from the last one
 * at all, so that every number that we ever sent ends as acknowledged or as lost. */
static void set_loss_timer(struct connection *c, uint64_t now) {
  bool runs = c->in_flight || (closing(c) && c->outstanding);
  uint64_t deadline = runs ? c->timer_from_ns + timeout_ns(c) : 0;
  if (deadline == c->loss_deadline_ns) return;
  c->loss_deadline_ns = deadline;
  ojo_loss_timer_set_at(c->trace, now, c->flow, deadline > now ? deadline - now : deadline != 0);
}

/* ---- what becomes of packets that we sent ---------------------------------------------------- */

static struct sent *sent_packet(struct connection *c, uint64_t number) {
  struct sent *p = &c->sent[number % SENT_MAX];
  return p->number == number && p->state ? p : NULL; /* NULL: so long ago that it is forgotten */
}

static void stream_closed(struct connection *c, uint64_t now, struct stream *s) {
  s->closed = true;
  ojo_stream_closed_at(c->trace, now, s->flow, 0);
}

static void frame_acked(struct connection *c, uint64_t now, const struct frame *f) {
  if (f->kind == FRAME_HELLO && c->server) set_state(c, now, OJO_CONNECTION_ESTABLISHED);
  if (f->kind == FRAME_CLOSE) {
    c->close_acked = true;
    c->close_due = false;
  }
  if (f->kind != FRAME_STREAM) return;

  struct stream *s = &c->stream[f->stream];
  if (f->length) {
    ranges_add(&s->acked, f->start, f->start + f->length);
    ojo_offset_acked_sized_at(c->trace, now, s->flow, f->start, f->length);
  }
  if (f->start + f->length == s->size && !s->fin_acked) {
    s->fin_acked = true;
    ojo_stream_fin_acked_at(c->trace, now, s->flow, s->id);
  }
  struct range missing = ranges_gap(&s->acked, 0, s->size);
  if (!s->closed && s->fin_acked && missing.first == missing.end) stream_closed(c, now, s);
}

static void packet_acked(struct connection *c, uint64_t now, struct sent *p) {
  if (p->state == LOST) { /* it was only late. Its bytes count as lost, spurious and acknowledged */
    ojo_packet_lost_spurious_sized_at(c->trace, now, c->flow, p->number, p->bytes);
    c->count_spurious++;
  }
  ojo_packet_acked_sized_at(c->trace, now, c->flow, p->number, p->bytes);
  if (p->state == OUTSTANDING) {
    c->outstanding--;
    if (p->in_flight) {
      c->in_flight -= p->bytes;
      c->expiries = 0;
      congestion_acked(c, p);
    }
  }
  p->state = ACKED;
  for (unsigned i = 0; i < p->frames; i++) frame_acked(c, now, &p->frame[i]);
  /* The peer knows what this packet reported: older numbers need not be reported again. */
  if (p->reported != NONE && p->reported > c->received_floor + ACK_MEMORY) {
    c->received_floor = p->reported - ACK_MEMORY;
    ranges_forget(&c->received, c->received_floor);
  }
}

/* The caller has recorded PACKET_LOST_..., which says why. */
static void packet_lost(struct connection *c, uint64_t now, struct sent *p) {
  p->state = LOST;
  c->count_lost++;
  c->outstanding--;
  if (p->in_flight) {
    c->in_flight -= p->bytes;
    congestion_lost(c, p);
  }
  for (unsigned i = 0; i < p->frames; i++) {
    const struct frame *f = &p->frame[i];
    if (f->kind == FRAME_STREAM && f->length)
      ojo_offset_lost_sized_at(c->trace, now, c->stream[f->stream].flow, f->start, f->length);
    if (f->kind == FRAME_CLOSE) c->close_due = !c->close_acked && c->expiries < CLOSE_TRIES;
    if (c->lost_tail - c->lost_head == SENT_MAX) errno = 0, die("too many lost frames");
    c->lost[c->lost_tail++ % SENT_MAX] = (struct lost){p->number, *f};
  }
}

/* The first packet below `end` that is neither acknowledged nor lost; NULL: none. */
static struct sent *next_outstanding(struct connection *c, uint64_t end) {
  for (; c->first_outstanding < end; c->first_outstanding++) {
    struct sent *p = sent_packet(c, c->first_outstanding);
    if (p && p->state == OUTSTANDING) return p;
  }
  return NULL;
}

static void loss_timer_expired(struct connection *c, uint64_t now) {
  ojo_loss_timer_expired_at(c->trace, now, c->flow, ++c->expiries);
  if (c->expiries >= 2) congestion_collapsed(c);
  for (struct sent *p; (p = next_outstanding(c, c->next_number)) != NULL;) {
    if (p->time_ns > c->timer_from_ns) break; /* sent after the timer was started: not overdue */
    ojo_packet_lost_timeout_sized_at(c->trace, now, c->flow, p->number, p->bytes);
    packet_lost(c, now, p);
  }
  record_metrics(c, now);
  set_loss_timer(c, now);
}

static bool receive_ack(struct connection *c, uint64_t now, struct wire *w) {
  uint64_t delay_ns = get(w, 4) * 1000, largest = 0, sample_ns = 0;
  unsigned count = (unsigned)get(w, 1);
  for (unsigned i = 0; i < count; i++) {
    uint64_t first = ojo_unwrap(c->next_number - 1, get(w, 4), 32), packets = get(w, 4);
    if (w->bad || !packets || first >= c->next_number || packets > c->next_number - first)
      return false;
    ojo_ack_received_sized_at(c->trace, now, c->flow, first, packets);
    if (i == 0) largest = first + packets - 1;
    for (uint64_t number = first; number < first + packets; number++) {
      struct sent *p = sent_packet(c, number);
      if (!p || p->state == ACKED) continue;
      if (number == largest && p->state == OUTSTANDING && p->in_flight) sample_ns = now - p->time_ns;
      packet_acked(c, now, p);
    }
  }
  if (sample_ns) rtt_sample(c, sample_ns, delay_ns);
  uint64_t end = largest < PACKET_THRESHOLD ? 0 : largest - PACKET_THRESHOLD + 1;
  for (struct sent *p; (p = next_outstanding(c, end)) != NULL;) { /* missing, and so far behind: lost */
    ojo_packet_lost_duplicate_ack_sized_at(c->trace, now, c->flow, p->number, p->bytes);
    packet_lost(c, now, p);
  }
  return count != 0;
}

/* ---- sending --------------------------------------------------------------------------------- */

static void write_ack(struct connection *c, uint64_t now, struct wire *w) {
  size_t count = min_u64(c->received.count, ACK_RANGES_MAX);
  uint64_t delay_us = (now - c->largest_time_ns) / 1000;
  put(w, FRAME_ACK, 1);
  put(w, delay_us, 4);
  put(w, count, 1);
  for (size_t i = 0; i < count; i++) {
    const struct range *r = &c->received.at[c->received.count - 1 - i];
    put(w, r->first, 4);
    put(w, r->end - r->first, 4);
  }
  ojo_ack_sent_sized_at(c->trace, now, c->flow, c->largest_received, delay_us);
  c->ack_new = c->ack_due = false;
  c->unacked = 0;
  c->ack_deadline_ns = 0;
}

/* A lost frame went out again as f: what of it did not fit stays at the head of the queue. */
static void lost_sent(struct connection *c, const struct frame *f) {
  struct frame *head = &c->lost[c->lost_head % SENT_MAX].frame;
  uint64_t end = head->start + head->length, sent = f->start + f->length;
  if (f->kind != FRAME_STREAM || sent == end) c->lost_head++;
  else *head = (struct frame){FRAME_STREAM, f->stream, sent, end - sent};
}

/* Writes a frame into the packet and remembers it there. `again` is the lost packet that it was in; NONE:
 * it goes out for the first time. The caller has seen that there is room. */
static void write_frame(struct connection *c, uint64_t now, struct sent *p, struct wire *w,
                        struct frame f, uint64_t again) {
  struct stream *s = &c->stream[f.stream];
  ojo_tracer *trace = c->trace;
  put(w, f.kind, 1);
  if (f.kind == FRAME_STREAM || f.kind == FRAME_MAX_STREAM_DATA || f.kind == FRAME_STREAM_BLOCKED)
    put(w, s->id, 4);
  if (f.kind != FRAME_HELLO) put(w, f.start, 8);
  switch (f.kind) {
  case FRAME_HELLO:
    put(w, c->file_bytes, 8);
    put(w, c->file_hash, 8);
    put(w, c->streams - 1, 4);
    put(w, c->options->window, 8);
    put(w, c->options->stream_window, 8);
    c->granted = c->options->window;
    ojo_connection_max_data_granted_at(trace, now, c->flow, c->granted);
    for (unsigned i = 0; i < c->streams; i++) {
      if (c->stream[i].ours) continue;
      c->stream[i].granted = c->options->stream_window;
      ojo_stream_max_data_granted_at(trace, now, c->stream[i].flow, c->stream[i].granted);
    }
    break;
  case FRAME_STREAM:
    put(w, f.length, 2);
    put(w, f.start + f.length == s->size, 1);
    if (f.length) memcpy(w->at, s->data + f.start, f.length);
    w->at += f.length;
    if (again == NONE) {
      s->next += f.length;
      c->sent_bytes += f.length;
      s->fin_sent = s->next == s->size;
      c->turn = (f.stream + 1) % c->streams;
    }
    if (f.length) {
      if (again == NONE) ojo_offset_sent_sized_at(trace, now, s->flow, f.start, f.length);
      else ojo_offset_retransmitted_sized_at(trace, now, s->flow, f.start, f.length);
    }
    if (f.start + f.length == s->size) ojo_stream_fin_sent_at(trace, now, s->flow, s->id);
    break;
  case FRAME_MAX_DATA:
    c->granted = f.start;
    ojo_connection_max_data_granted_at(trace, now, c->flow, f.start);
    break;
  case FRAME_MAX_STREAM_DATA:
    s->granted = f.start;
    ojo_stream_max_data_granted_at(trace, now, s->flow, f.start);
    break;
  case FRAME_BLOCKED:
    c->blocked_at = f.start;
    ojo_connection_blocked_at(trace, now, c->flow, f.start);
    break;
  case FRAME_STREAM_BLOCKED:
    s->blocked_at = f.start;
    ojo_stream_blocked_at(trace, now, s->flow, f.start);
    break;
  case FRAME_CLOSE: c->close_due = false; break;
  case FRAME_ACK: break;
  }
  if (again != NONE) lost_sent(c, &f);
  if (again != NONE && again != p->again) { /* once, however many frames of the old packet come back */
    ojo_packet_retransmit_at(trace, now, c->flow, again, p->number);
    if (p->again == NONE) c->count_again++;
    p->again = again;
  }
  p->frame[p->frames++] = f;
}

static bool has_data(const struct stream *s) { return s->data && !s->fin_sent; }
static bool stream_blocked(const struct stream *s) { return s->next < s->size && s->next == s->limit; }
static bool connection_blocked(const struct connection *c, const struct stream *s) {
  return s->next < s->size && c->sent_bytes == c->limit;
}

/* Is this frame, which was lost, still worth sending? For STREAM *f becomes its first part that is. */
static bool still_needed(struct connection *c, struct frame *f) {
  struct stream *s = &c->stream[f->stream];
  struct range gap;
  switch (f->kind) {
  case FRAME_HELLO: return c->state < OJO_CONNECTION_ESTABLISHED;
  case FRAME_MAX_DATA: return f->start == c->granted; /* else a newer one is on its way */
  case FRAME_MAX_STREAM_DATA: return f->start == s->granted && s->final_size == NONE;
  case FRAME_BLOCKED: return c->blocked_at == f->start && c->limit == f->start;
  case FRAME_STREAM_BLOCKED: return s->blocked_at == f->start && s->limit == f->start;
  case FRAME_STREAM:
    if (!f->length) return !s->fin_acked;
    gap = ranges_gap(&s->acked, f->start, f->start + f->length);
    *f = (struct frame){FRAME_STREAM, f->stream, gap.first, gap.end - gap.first};
    return f->length != 0;
  case FRAME_CLOSE:
  case FRAME_ACK: break;
  }
  return false;
}

/* The next frame to send, lost ones first; *again as in write_frame. False: nothing, or nothing that the
 * peer's credit allows. It looks only: write_frame changes the state. */
static bool next_frame(struct connection *c, struct frame *f, uint64_t *again) {
  *again = NONE;
  if (closing(c)) {
    *f = (struct frame){.kind = FRAME_CLOSE};
    return c->close_due;
  }
  for (; c->lost_head < c->lost_tail; c->lost_head++) {
    const struct lost *lost = &c->lost[c->lost_head % SENT_MAX];
    *f = lost->frame;
    *again = lost->number;
    if (still_needed(c, f)) return true;
  }
  *again = NONE;
  if (c->streams && !c->granted) { /* the server has no streams before it got the client's HELLO */
    *f = (struct frame){.kind = FRAME_HELLO};
    return true;
  }
  if (!c->limit) return false; /* before the peer's HELLO there is no credit */
  if (c->consumed + c->options->window >= c->granted + c->options->window / 2) {
    *f = (struct frame){FRAME_MAX_DATA, 0, c->consumed + c->options->window, 0};
    return true;
  }
  for (unsigned i = 0; i < c->streams; i++) {
    struct stream *s = &c->stream[i];
    if (s->ours || s->final_size != NONE) continue;
    uint64_t limit = s->consumed + c->options->stream_window;
    *f = (struct frame){FRAME_MAX_STREAM_DATA, i, limit, 0};
    if (limit >= s->granted + c->options->stream_window / 2) return true;
  }
  for (unsigned i = 0; i < c->streams; i++) { /* the streams in turn */
    unsigned index = (c->turn + i) % c->streams;
    const struct stream *s = &c->stream[index];
    if (!has_data(s)) continue;
    if (connection_blocked(c, s)) {
      *f = (struct frame){FRAME_BLOCKED, 0, c->limit, 0};
      if (c->blocked_at != c->limit) return true;
    } else if (stream_blocked(s)) {
      *f = (struct frame){FRAME_STREAM_BLOCKED, index, s->limit, 0};
      if (s->blocked_at != s->limit) return true;
    } else {
      uint64_t credit = min_u64(c->limit - c->sent_bytes, s->limit - s->next);
      *f = (struct frame){FRAME_STREAM, index, s->next, min_u64(s->size - s->next, credit)};
      return true;
    }
  }
  return false;
}

/* Sends one packet: an ACK if there is one to send, and with `full` all frames that fit. */
static void send_packet(struct connection *c, uint64_t now, bool full) {
  uint8_t packet[PACKET_BYTES_MAX];
  struct wire w = {packet + HEADER_BYTES, packet + c->options->packet_bytes, false};
  struct sent *p = &c->sent[c->next_number % SENT_MAX];
  struct frame f;
  uint64_t again;
  if (p->state == OUTSTANDING) errno = 0, die("too many packets are outstanding");
  *p = (struct sent){.number = c->next_number, .time_ns = now, .state = OUTSTANDING, .reported = NONE,
                     .again = NONE};
  if (c->ack_new || c->state == OJO_CONNECTION_CLOSING) { /* CLOSE may be the last to arrive */
    p->reported = c->largest_received;
    write_ack(c, now, &w);
  }
  /* Data leaves room for a short ACK, so that it fits in one packet again should it be lost. */
  if (w.at < packet + HEADER_BYTES + ACK_BYTES) w.end -= packet + HEADER_BYTES + ACK_BYTES - w.at;
  if (c->state == OJO_CONNECTION_CLOSING) c->close_due = full = true; /* all packets say so */
  while (full && p->frames < FRAMES_MAX && room(&w) > 64 && next_frame(c, &f, &again)) {
    f.length = min_u64(f.length, room(&w) - STREAM_FRAME_BYTES);
    write_frame(c, now, p, &w, f, again);
  }
  p->bytes = (uint64_t)(w.at - packet);
  p->in_flight = p->frames != 0;

  w.at = packet;
  put(&w, MAGIC, 4);
  put(&w, c->id, 8);
  put(&w, c->next_number, 4);
  put(&w, hash_bytes(packet + HEADER_BYTES, p->bytes - HEADER_BYTES) ^ hash_bytes(packet, 16), 4);
  c->next_number++;
  c->outstanding++;
  if (p->in_flight) c->in_flight += p->bytes;
  if (p->in_flight || closing(c)) c->timer_from_ns = now;

  ojo_packet_sent_sized_at(c->trace, now, c->flow, p->number, p->bytes);
  ojo_datagram_sent_sized_at(c->trace, now, c->flow, p->bytes, 1);
  link_send(&c->link, now, packet, p->bytes);
  record_metrics(c, now);
  set_loss_timer(c, now);
}

/* Why does it not send now? The answer that holds until the next packet comes or the timer expires. */
static ojo_limited limited_by(struct connection *c) {
  struct frame f;
  uint64_t again;
  if (next_frame(c, &f, &again)) return OJO_LIMITED_CWND;
  if (closing(c)) return OJO_LIMITED_APPLICATION;
  for (unsigned i = 0; i < c->streams; i++) {
    if (!has_data(&c->stream[i]) || c->stream[i].next == c->stream[i].size) continue;
    return c->sent_bytes == c->limit ? OJO_LIMITED_CONNECTION_CREDIT : OJO_LIMITED_STREAM_CREDIT;
  }
  return OJO_LIMITED_APPLICATION;
}

/* Sends all that the window, the credit and the application allow. */
static void transmit(struct connection *c, uint64_t now) {
  struct frame f;
  uint64_t again;
  for (;;) {
    bool full = c->in_flight + c->options->packet_bytes <= c->cwnd && next_frame(c, &f, &again);
    if (!full && !c->ack_due) break;
    now = now_ns();
    send_packet(c, now, full);
  }
  ojo_limited by = limited_by(c);
  if (by != c->limited) ojo_sender_limited_at(c->trace, now, c->flow, by);
  c->limited = by;
}

/* ---- receiving ------------------------------------------------------------------------------- */

static void open_streams(struct connection *c, uint64_t now, unsigned count) {
  c->streams = count + 1; /* the client's, and the server's reply */
  for (unsigned i = 0; i < c->streams; i++) {
    c->stream[i] = (struct stream){.id = i, .ours = c->server == (i == count), .size = NONE,
                                   .final_size = NONE, .blocked_at = NONE};
    c->stream[i].flow = ojo_flow_stream_at(c->trace, now, c->flow, i);
  }
}

/* Stream i carries an equal part of the file, the last one what remains. */
static struct range file_part(const struct connection *c, unsigned i) {
  uint64_t part = c->file_bytes / (c->streams - 1);
  return (struct range){i * part, i + 2 == c->streams ? c->file_bytes : (i + 1) * part};
}

static uint8_t *map_file(int fd, uint64_t bytes, int protection) {
  void *map = mmap(NULL, bytes ? bytes : 1, protection, MAP_SHARED, fd, 0);
  if (map == MAP_FAILED) die("mmap");
  return map;
}

static bool receive_hello(struct connection *c, uint64_t now, struct wire *w) {
  uint64_t bytes = get(w, 8), hash = get(w, 8), streams = get(w, 4);
  uint64_t limit = get(w, 8), stream_limit = get(w, 8);
  if (w->bad || streams == 0 || streams > STREAMS_MAX || bytes > INT64_MAX) return false;
  if (c->limit) return true; /* it came again */
  if (c->server) {
    const char *path = c->options->output;
    FILE *scratch = path ? NULL : tmpfile();
    int fd = path ? open(path, O_RDWR | O_CREAT | O_TRUNC, 0666) : scratch ? fileno(scratch) : -1;
    if (fd < 0 || ftruncate(fd, (off_t)bytes) < 0) die("the file to write");
    c->file_bytes = bytes;
    c->file_hash = hash;
    c->file = map_file(fd, bytes, PROT_READ | PROT_WRITE);
    open_streams(c, now, (unsigned)streams);
    for (unsigned i = 0; i + 1 < c->streams; i++) {
      struct range part = file_part(c, i);
      c->stream[i].sink = c->file + part.first;
      c->stream[i].sink_bytes = part.end - part.first;
    }
  }
  c->limit = limit;
  ojo_connection_max_data_update_at(c->trace, now, c->flow, limit);
  for (unsigned i = 0; i < c->streams; i++) {
    if (!c->stream[i].ours) continue;
    c->stream[i].limit = stream_limit;
    ojo_stream_max_data_update_at(c->trace, now, c->stream[i].flow, stream_limit);
  }
  set_state(c, now, c->server ? OJO_CONNECTION_HANDSHAKE : OJO_CONNECTION_ESTABLISHED);
  return true;
}

static bool receive_stream(struct connection *c, uint64_t now, struct stream *s, struct wire *w) {
  uint64_t start = get(w, 8), length = get(w, 2), end = start + length;
  bool fin = get(w, 1) != 0;
  if (w->bad || length > room(w) || s->ours) return false;
  if (start > s->sink_bytes || end > s->sink_bytes) return false;
  uint64_t highest = s->received.count ? s->received.at[s->received.count - 1].end : 0;
  if (end > highest) c->data_received += end - highest;
  if (end > s->granted || c->data_received > c->granted) return false; /* beyond its credit */
  if (length) {
    memcpy(s->sink + start, w->at, length);
    w->at += length;
    ranges_add(&s->received, start, end);
    ojo_offset_received_sized_at(c->trace, now, s->flow, start, length);
  }
  if (fin && s->final_size == NONE) {
    s->final_size = end;
    ojo_stream_fin_received_at(c->trace, now, s->flow, s->id);
  }
  /* What is complete from the start is consumed, and makes room for new credit. */
  if (s->received.count && s->received.at[0].first == 0) {
    c->consumed += s->received.at[0].end - s->consumed;
    s->consumed = s->received.at[0].end;
  }
  if (!s->closed && s->consumed == s->final_size) stream_closed(c, now, s);
  return true;
}

static bool receive_frame(struct connection *c, uint64_t now, uint64_t kind, struct wire *w) {
  uint64_t id, limit;
  struct stream *s = NULL;
  if (kind == FRAME_ACK) return receive_ack(c, now, w);
  if (kind == FRAME_HELLO) return receive_hello(c, now, w);
  if (kind == FRAME_STREAM || kind == FRAME_MAX_STREAM_DATA || kind == FRAME_STREAM_BLOCKED) {
    id = get(w, 4);
    if (w->bad || id >= c->streams) return false;
    s = &c->stream[id];
  }
  if (kind == FRAME_STREAM) return receive_stream(c, now, s, w);
  limit = get(w, 8);
  switch (kind) {
  case FRAME_MAX_DATA:
    if (limit <= c->limit) break; /* overtaken by a newer one */
    c->limit = limit;
    ojo_connection_max_data_update_at(c->trace, now, c->flow, limit);
    break;
  case FRAME_MAX_STREAM_DATA:
    if (!s->ours || limit <= s->limit) break;
    s->limit = limit;
    ojo_stream_max_data_update_at(c->trace, now, s->flow, limit);
    break;
  case FRAME_BLOCKED:
    ojo_peer_blocked_at(c->trace, now, c->flow, limit);
    break;
  case FRAME_STREAM_BLOCKED:
    ojo_peer_blocked_at(c->trace, now, s->flow, limit);
    break;
  case FRAME_CLOSE:
    if (c->state != OJO_CONNECTION_DRAINING) record_closed(c, now, limit, 1, "done");
    set_state(c, now, OJO_CONNECTION_DRAINING);
    c->ack_due = true;
    break;
  default: return false;
  }
  return !w->bad;
}

/* What follows from a packet as a whole: the file is complete, or its transfer is. */
static void advance(struct connection *c, uint64_t now) {
  unsigned open = 0;
  if (c->streams == 0 || closing(c)) return;
  for (unsigned i = 0; i < c->streams; i++) open += !c->stream[i].closed;
  struct stream *reply = &c->stream[c->streams - 1];
  if (c->server && open == 1 && !reply->closed && !reply->data) {
    c->reply = hash_bytes(c->file, c->file_bytes);
    reply->data = (const uint8_t *)&c->reply;
    reply->size = REPLY_BYTES;
  }
  if (!c->server && open == 0) {
    record_closed(c, now, 0, 0, "done");
    set_state(c, now, OJO_CONNECTION_CLOSING);
    c->close_due = true;
  }
}

/* The header of a datagram; false: not a packet, or damaged. */
static bool read_header(struct wire *w, uint64_t *id, uint64_t *number) {
  const uint8_t *start = w->at;
  bool ours = get(w, 4) == MAGIC;
  *id = get(w, 8);
  *number = get(w, 4);
  uint64_t hash = get(w, 4);
  if (!ours || w->bad) return false;
  return hash == ((hash_bytes(w->at, room(w)) ^ hash_bytes(start, 16)) & 0xFFFFFFFFu);
}

static bool receive_datagram(struct connection *c, uint64_t now, uint8_t *data, size_t bytes) {
  struct wire w = {data, data + bytes, false};
  uint64_t id, number;
  struct range gap = {0, 0};
  bool ok = true, asks = false;
  ojo_datagram_received_sized_at(c->trace, now, c->flow, bytes, 1);
  bool sound = read_header(&w, &id, &number) && id == c->id;
  if (sound) {
    number = ojo_unwrap(c->largest_received, number, 32);
    gap = ranges_gap(&c->received, number, number + 1);
  }
  if (!sound || gap.first == gap.end || number < c->received_floor) { /* damaged, or it came before */
    ojo_packet_dropped_sized_at(c->trace, now, c->flow, sound ? number : NONE, bytes);
    c->count_dropped++;
    return true;
  }
  ojo_packet_received_sized_at(c->trace, now, c->flow, number, bytes);
  c->last_heard_ns = now;
  c->ack_new = true;
  ranges_add(&c->received, number, number + 1);
  bool in_order = number == c->largest_received + 1;
  if (number + 1 > c->largest_received + 1) { /* NONE + 1 is 0 */
    c->largest_received = number;
    c->largest_time_ns = now;
  }
  while (ok && room(&w)) {
    uint64_t kind = get(&w, 1);
    asks |= kind != FRAME_ACK;
    ok = receive_frame(c, now, kind, &w);
  }
  if (asks) {
    c->unacked++;
    if (c->unacked >= ACK_EVERY || !in_order) c->ack_due = true;
    else c->ack_deadline_ns = now + ACK_DELAY_NS;
  }
  advance(c, now);
  record_metrics(c, now);
  set_loss_timer(c, now);
  return ok;
}

/* ---- one end of the connection --------------------------------------------------------------- */

static bool finished(const struct connection *c) {
  return closing(c) && !c->outstanding && (c->server || c->close_acked || c->expiries >= CLOSE_TRIES);
}

static const char *give_up(struct connection *c, uint64_t now, uint8_t by, const char *why) {
  record_closed(c, now, 1, by, why);
  return why;
}

/* Receives, sends and waits until the connection has ended. NULL, or what went wrong. */
static const char *run(struct connection *c) {
  uint8_t data[PACKET_BYTES_MAX];
  uint64_t now = now_ns();
  c->last_heard_ns = now;
  record_metrics(c, now);
  transmit(c, now);
  while (!finished(c)) {
    ssize_t bytes = recv(c->link.fd, data, sizeof data, MSG_DONTWAIT);
    now = now_ns();
    if (bytes >= 0) {
      if (!receive_datagram(c, now, data, (size_t)bytes))
        return give_up(c, now, 0, "the peer broke the protocol");
      transmit(c, now);
      continue;
    }
    link_release(&c->link, now);
    if (c->loss_deadline_ns && now >= c->loss_deadline_ns) {
      loss_timer_expired(c, now);
      transmit(c, now);
      continue;
    }
    if (c->ack_deadline_ns && now >= c->ack_deadline_ns) {
      c->ack_due = true;
      transmit(c, now);
      continue;
    }
    uint64_t wake = c->last_heard_ns + c->options->idle_ms * MS;
    if (now >= wake && !closing(c)) return give_up(c, now, 2, "the peer is silent");
    if (c->loss_deadline_ns) wake = min_u64(wake, c->loss_deadline_ns);
    if (c->ack_deadline_ns) wake = min_u64(wake, c->ack_deadline_ns);
    wake = min_u64(wake, link_deadline(&c->link));
    uint64_t wait = wake > now ? wake - now : 1;
    struct timespec timeout = {(time_t)(wait / 1000000000u), (long)(wait % 1000000000u)};
    struct pollfd ready = {c->link.fd, POLLIN, 0};
    ppoll(&ready, 1, &timeout, NULL);
  }
  link_release(&c->link, NONE);
  return NULL;
}

static int udp_socket(uint64_t port) {
  struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
  int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0), bytes = 4 << 20;
  a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  if (fd < 0 || bind(fd, (struct sockaddr *)&a, sizeof a) < 0) die("socket");
  setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &bytes, sizeof bytes); /* as much of it as the system allows */
  setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &bytes, sizeof bytes);
  return fd;
}

static struct sockaddr_in local_address(int fd) {
  struct sockaddr_in a;
  socklen_t bytes = sizeof a;
  if (getsockname(fd, (struct sockaddr *)&a, &bytes) < 0) die("getsockname");
  return a;
}

/* Connects the socket to its peer and opens the connection's flow. Both ends name it by the same id: by
 * that tools find the two halves of one conversation. */
static void start(struct connection *c, const struct options *o, int fd, struct sockaddr_in peer,
                  uint64_t id, bool server) {
  struct sockaddr_in local;
  if (connect(fd, (struct sockaddr *)&peer, sizeof peer) < 0) die("connect");
  local = local_address(fd);
  *c = (struct connection){.options = o, .server = server, .id = id, .largest_received = NONE,
                           .blocked_at = NONE, .ssthresh = NONE, .cwnd = 10 * o->packet_bytes,
                           .started_ns = now_ns()};
  c->link = (struct link){.fd = fd, .options = o, .random = o->seed * 2 + server};
  c->sent = calloc(SENT_MAX, sizeof *c->sent);
  c->lost = calloc(SENT_MAX, sizeof *c->lost);
  if (!c->sent || !c->lost) die("no memory");

  /* The stamps of this program are CLOCK_MONOTONIC: so is the tracer's own clock, then. */
  ojo_open(&c->trace, &(ojo_desc){.dir = getenv("OJO_DIR"), .clock = OJO_CLOCK_MONOTONIC});
  c->flow = ojo_flow_open(c->trace, &(ojo_flow_desc){
    .kind = OJO_FLOW_CONNECTION, .role = server ? OJO_ROLE_SERVER : OJO_ROLE_CLIENT,
    .id = &c->id, .id_bytes = sizeof c->id,
    .local_address = &local.sin_addr, .remote_address = &peer.sin_addr, .address_bytes = 4,
    .local_port = ntohs(local.sin_port), .remote_port = ntohs(peer.sin_port),
    .protocol = "ojo-demo", .label = server ? "server" : "client"});
  ojo_bind_socket(c->trace, c->flow, fd); /* by its cookie kernel probes know it */
  ojo_mtu_updated(c->trace, c->flow, o->packet_bytes);
}

/* The last line of an end. Returns its exit code. */
static int finish(struct connection *c, const char *error, bool hash_ok) {
  double seconds = (double)((c->ended_ns ? c->ended_ns : now_ns()) - c->started_ns) / 1e9;
  uint64_t bytes = c->server ? c->consumed : c->sent_bytes;
  if (error) fprintf(stderr, "4_transport: %s: %s\n", c->server ? "server" : "client", error);
  printf("%s: %s %" PRIu64 " bytes in %.3f s, %.1f MB/s; sent %" PRIu64 " packets, %" PRIu64 " lost "
         "(%" PRIu64 " spurious), %" PRIu64 " retransmitted; %" PRIu64 " dropped; hash %s\n",
         c->server ? "server" : "client", c->server ? "received" : "sent", bytes, seconds,
         (double)bytes / 1e6 / seconds, c->next_number, c->count_lost, c->count_spurious, c->count_again,
         c->count_dropped, hash_ok ? "ok" : "WRONG");
  fflush(stdout);
  ojo_close(c->trace);
  return error || !hash_ok;
}

static int client(const struct options *o, uint64_t port) {
  static struct connection c;
  struct sockaddr_in peer = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
  uint64_t reply = 0, id = o->seed ^ now_ns();
  peer.sin_addr.s_addr = htonl(INADDR_LOOPBACK);

  FILE *scratch = o->file ? NULL : tmpfile(); /* without --file: one of random bytes */
  int fd = o->file ? open(o->file, O_RDONLY | O_CLOEXEC) : scratch ? fileno(scratch) : -1;
  struct stat status;
  if (fd < 0 || (!o->file && ftruncate(fd, (off_t)o->bytes) < 0) || fstat(fd, &status) < 0)
    die(o->file ? o->file : "tmpfile");
  uint64_t bytes = (uint64_t)status.st_size, random = o->seed;
  uint8_t *file = map_file(fd, bytes, o->file ? PROT_READ : PROT_READ | PROT_WRITE);
  for (uint64_t i = 0; !o->file && i < bytes; i += 8) {
    uint64_t word = random_next(&random);
    memcpy(file + i, &word, min_u64(8, bytes - i));
  }

  start(&c, o, udp_socket(0), peer, random_next(&id), false);
  c.file = file;
  c.file_bytes = bytes;
  c.file_hash = hash_bytes(file, bytes);
  uint64_t now = now_ns();
  set_state(&c, now, OJO_CONNECTION_INITIAL);
  open_streams(&c, now, (unsigned)o->streams);
  for (unsigned i = 0; i + 1 < c.streams; i++) {
    struct range part = file_part(&c, i);
    c.stream[i].data = file + part.first;
    c.stream[i].size = part.end - part.first;
  }
  c.stream[c.streams - 1].sink = (uint8_t *)&reply;
  c.stream[c.streams - 1].sink_bytes = sizeof reply;
  const char *error = run(&c);
  return finish(&c, error, reply == c.file_hash);
}

static int serve(const struct options *o, int fd) {
  static struct connection c;
  struct sockaddr_in peer;
  struct pollfd ready = {fd, POLLIN, 0};
  uint8_t data[PACKET_BYTES_MAX];
  uint64_t id, number, waiting = now_ns();
  for (;;) { /* looks at the first sound packet and leaves it there: the flow is opened before it */
    socklen_t peer_bytes = sizeof peer;
    if (poll(&ready, 1, (int)o->idle_ms) == 0 || now_ns() - waiting > o->idle_ms * MS)
      errno = 0, die("server: no client came");
    ssize_t bytes = recvfrom(fd, data, sizeof data, MSG_PEEK, (struct sockaddr *)&peer, &peer_bytes);
    if (bytes < 0) continue;
    struct wire w = {data, data + bytes, false};
    if (read_header(&w, &id, &number)) break;
    if (recv(fd, data, sizeof data, MSG_DONTWAIT) < 0) continue; /* not for us */
  }
  start(&c, o, fd, peer, id, true);
  const char *error = run(&c);
  return finish(&c, error, c.stream[c.streams ? c.streams - 1 : 0].data && c.reply == c.file_hash);
}

/* ---- options --------------------------------------------------------------------------------- */

static const char usage[] =
  "usage: 4_transport [options]\n"
  "Transfers a file between two processes over a bad link on the loopback interface.\n"
  "Set OJO_DIR to a directory to record what both ends do.\n"
  "  --bytes N           a file of N random bytes; K, M, G (default 1M)\n"
  "  --file FILE         this file instead\n"
  "  --output FILE       where the server puts it (default: a temporary file)\n"
  "  --loss PERCENT      of the packets, each way (default 1); likewise\n"
  "  --reorder PERCENT   --duplicate PERCENT   --damage PERCENT\n"
  "  --delay-ms N        one way (default 0)\n"
  "  --seed N            for the link and the random file (default 1)\n"
  "  --streams N         1 to 64 (default 4)\n"
  "  --packet-bytes N    600 to 9000 (default 1350)\n"
  "  --window N          credit for the connection (default 1M)\n"
  "  --stream-window N   credit for each stream (default 512K)\n"
  "  --idle-ms N         give up after so long a silence (default 10000)\n"
  "  --server PORT       only the server; and --client PORT: only the client\n"
  "Exit code: 0 the hash at the far end is right, 1 it is not or something failed, 2 usage.\n";

static void wrong(const char *option) {
  fprintf(stderr, "4_transport: wrong option or value: %s\n%s", option, usage);
  exit(2);
}

static uint64_t number_of(const char *option, const char *text, uint64_t least, uint64_t most) {
  char *end;
  errno = 0;
  uint64_t value = strtoull(text, &end, 10);
  unsigned shift = *end == 'K' ? 10 : *end == 'M' ? 20 : *end == 'G' ? 30 : 0;
  if (end == text || errno || *text == '-' || (shift ? end[1] : *end)) wrong(option);
  if (value > UINT64_MAX >> shift || value << shift < least || value << shift > most) wrong(option);
  return value << shift;
}

static double percent_of(const char *option, const char *text) {
  char *end;
  double value = strtod(text, &end);
  if (end == text || *end || !(value >= 0 && value <= 100)) wrong(option);
  return value;
}

static struct options read_options(int count, char **argument) {
  struct options o = {.bytes = 1 << 20, .loss = 1, .seed = 1, .streams = 4, .packet_bytes = 1350,
                      .window = 1 << 20, .stream_window = 1 << 19, .idle_ms = 10000};
  const struct { const char *name; uint64_t *value, least, most; } numbers[] = {
    {"--bytes", &o.bytes, 0, UINT64_C(1) << 40}, {"--seed", &o.seed, 0, UINT64_MAX},
    {"--streams", &o.streams, 1, STREAMS_MAX}, {"--window", &o.window, 2, UINT64_C(1) << 30},
    {"--packet-bytes", &o.packet_bytes, PACKET_BYTES_MIN, PACKET_BYTES_MAX},
    {"--stream-window", &o.stream_window, 2, UINT64_C(1) << 30},
    {"--delay-ms", &o.delay_ms, 0, 1000}, {"--idle-ms", &o.idle_ms, 1, 600000},
    {"--server", &o.server_port, 1, 65535}, {"--client", &o.client_port, 1, 65535}};
  const struct { const char *name; double *value; } percents[] = {
    {"--loss", &o.loss}, {"--reorder", &o.reorder}, {"--duplicate", &o.duplicate},
    {"--damage", &o.damage}};
  const struct { const char *name, **value; } texts[] = {{"--file", &o.file}, {"--output", &o.output}};
  const size_t counts[] = {sizeof numbers / sizeof *numbers, sizeof percents / sizeof *percents,
                           sizeof texts / sizeof *texts};
  for (int i = 1; i < count; i += 2) {
    const char *name = argument[i], *value = argument[i + 1];
    size_t n = 0, p = 0, t = 0;
    if (!strcmp(name, "--help")) {
      fputs(usage, stdout);
      exit(0);
    }
    while (n < counts[0] && strcmp(name, numbers[n].name)) n++;
    while (p < counts[1] && strcmp(name, percents[p].name)) p++;
    while (t < counts[2] && strcmp(name, texts[t].name)) t++;
    if (!value) wrong(name);
    if (n < counts[0]) *numbers[n].value = number_of(name, value, numbers[n].least, numbers[n].most);
    else if (p < counts[1]) *percents[p].value = percent_of(name, value);
    else if (t < counts[2]) *texts[t].value = value;
    else wrong(name);
  }
  return o;
}

int main(int count, char **argument) {
  struct options o = read_options(count, argument);
  if (o.client_port) return client(&o, o.client_port);
  if (o.server_port) return serve(&o, udp_socket(o.server_port));

  int fd = udp_socket(0), status = 0;
  uint64_t port = ntohs(local_address(fd).sin_port);
  pid_t child = fork(); /* each process opens its own tracer, after this */
  if (child < 0) die("fork");
  if (child == 0) exit(serve(&o, fd));
  close(fd);
  int result = client(&o, port);
  while (waitpid(child, &status, 0) < 0 && errno == EINTR) {}
  return result || !WIFEXITED(status) || WEXITSTATUS(status);
}
