/* SPDX-License-Identifier: MIT
 *
 * verify_transport.c - proves from the two ends' traces alone that examples/4_transport.c told the truth
 *
 *     verify_transport [--alone] DIR
 *
 * Each end's events are replayed in their order, against a model of the protocol and against what the
 * other end recorded. A step begins with DATAGRAM_RECEIVED or LOSS_TIMER_EXPIRED and lasts until the next
 * one begins. What is proved:
 *   packets  numbers are sent once, without gaps, and end as acknowledged or lost; acknowledged at most
 *            once; in counts and in bytes acked + lost - spurious = sent. What an end received is what the
 *            other one sent: number, size, not before its time.
 *   order    what a packet carries stands before its PACKET_SENT and has its time; DATAGRAM_SENT stands
 *            behind it. What a packet brings stands after its PACKET_RECEIVED, and is what the peer put
 *            into it, in that order. OFFSET_ACKED, OFFSET_LOST and STREAM_FIN_ACKED stand after the ACKED
 *            or LOST of their packet, for exactly what it carried.
 *   acks     a range holds only what the peer had received; its largest number is that of ACK_SENT; what
 *            it newly covers, and nothing else, is PACKET_ACKED in the same step.
 *   loss     by duplicate ack: exactly what is three numbers behind. By timeout: only after the timer,
 *            which is always set to the very value that the round-trip times give. Data that goes out again
 *            is linked to the lost packet that had it.
 *   streams  what is sent, acknowledged and received covers the same bytes, from 0 to the FIN. No limit is
 *            exceeded, BLOCKED tells the truth.
 *   control  cwnd, ssthresh, bytes in flight, congestion state and round-trip times equal the replay, after
 *            every step and every packet: window growth in slow start and avoidance, one reduction for each
 *            recovery period, the least window after the second timeout in a row.
 *   limited  whenever a step ends, SENDER_LIMITED gives a reason why no more is sent, and it is true: so all
 *            idle time is explained.
 * Exit code: 0 all of this holds, 1 it does not, 2 usage. With --alone: one end, whose peer never answered.
 */
#include "ojo.h"
#define OJO_READER_IMPLEMENTATION
#include "ojo_reader.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define NONE UINT64_MAX
#define MS UINT64_C(1000000)
enum { THRESHOLD = 3, ACK_MEMORY = 256, STREAMS_MAX = 128, REPORTS_MAX = 20 };

struct event {
  uint64_t time, payload, number; /* time: CLOCK_MONOTONIC ns */
  uint32_t flow, type;
  bool has_number;
  uint8_t by;  /* CONNECTION_CLOSED */
  ojo_rtt rtt; /* RTT_SAMPLE */
};

struct range {
  uint64_t first, end;
};
struct set {
  struct range *at;
  size_t count, room;
};

struct carried {
  uint32_t type, stream;
  uint64_t first, end;
}; /* end: also a size */

struct packet {
  uint64_t time, bytes;
  size_t carried, carried_count; /* in end.carried */
  size_t event;
  bool in_flight, outstanding;
  unsigned acked, lost, spurious, due; /* due: an ACK covers it, PACKET_ACKED must come */
};

struct stream {
  uint32_t flow;
  bool ours;
  bool linked;
  uint64_t next, limit, granted, blocked_at, final_size;
  struct set acked, received, pending; /* pending: lost, not acknowledged and not sent again yet */
  unsigned fin_sent, fin_acked, fin_received, closed;
};

struct end {
  const char *name;
  struct end *peer;
  struct event *events;
  size_t event_count, event_room;
  const struct event *now;
  uint32_t trace, flow;
  uint8_t role;

  struct packet *packets; /* by number */
  size_t packet_count, packet_room, sent_so_far, first_outstanding, outstanding;
  struct carried *carried;
  size_t carried_count, carried_room;
  size_t *received; /* by the peer's number: 1 + the event; 0: not received */
  size_t received_room;
  uint64_t largest_received;

  struct stream streams[STREAMS_MAX];
  uint32_t stream_count;
  uint64_t sent_data, limit, granted, blocked_at, received_data;

  uint64_t cookie; /* of the socket; 0: not bound yet */
  uint64_t mtu, cwnd, ssthresh, in_flight, recovery_end;
  bool recovering;
  uint64_t rtt_latest, rtt_smoothed, rtt_min, rtt_variation;
  uint64_t timer_from, expiries;
  uint64_t limited, state;
  unsigned closed;
  uint8_t closed_by;
  /* what the trace said last */
  uint64_t said_cwnd, said_ssthresh, said_in_flight, said_congestion, timer_set_at, timer_value;
  uint64_t said_latest;
  ojo_rtt said_rtt;

  /* this step */
  bool timer_step, datagram_open, sent_open;
  uint64_t datagram_bytes, ack_largest, ack_delay_ns;
  size_t acks_due;
  bool ack_seen;
  struct carried expected[4 * STREAMS_MAX], follow[64]; /* what must come, in this order */
  size_t expected_at, expected_count, follow_at, follow_count;
  size_t carried_open; /* first of those that belong to no packet yet */
  uint64_t bytes_sent, bytes_acked, bytes_lost, bytes_spurious;
};

static unsigned violations;

__attribute__((format(printf, 2, 3))) static void wrong(const struct end *e, const char *format,
                                                        ...) {
  va_list arguments;
  if (violations++ >= REPORTS_MAX) return;
  fprintf(stderr, "verify_transport: ");
  if (e && e->now)
    fprintf(stderr, "%s, event %zu at %" PRIu64 " ns (type 0x%04x, payload %" PRIu64 "): ", e->name,
            (size_t)(e->now - e->events), e->now->time - e->events[0].time, e->now->type,
            e->now->payload);
  else if (e)
    fprintf(stderr, "%s, at the end: ", e->name);
  va_start(arguments, format);
  vfprintf(stderr, format, arguments);
  va_end(arguments);
  fputc('\n', stderr);
}

static void *grow(void *memory, size_t count, size_t *capacity, size_t size) {
  if (count < *capacity) return memory;
  size_t old = *capacity;
  while (count >= *capacity) *capacity = *capacity ? 2 * *capacity : 256;
  memory = realloc(memory, *capacity * size);
  if (!memory) {
    fprintf(stderr, "verify_transport: no memory\n");
    exit(1);
  }
  memset((char *)memory + old * size, 0, (*capacity - old) * size);
  return memory;
}

/* ---- sets of ranges -------------------------------------------------------------------------- */

static void set_add(struct set *s, uint64_t first, uint64_t end) {
  size_t i = s->count, j;
  if (first >= end) return;
  while (i && s->at[i - 1].end >= first) i--;
  for (j = i; j < s->count && s->at[j].first <= end; j++) {
    if (s->at[j].first < first) first = s->at[j].first;
    if (s->at[j].end > end) end = s->at[j].end;
  }
  s->at = grow(s->at, s->count + 1, &s->room, sizeof *s->at);
  memmove(s->at + i + 1, s->at + j, (s->count - j) * sizeof *s->at);
  s->at[i] = (struct range){first, end};
  s->count = s->count + 1 - (j - i);
}

static void set_remove(struct set *s, uint64_t first, uint64_t end) {
  struct set rest = {0};
  size_t i;
  bool touched = false;
  for (i = 0; i < s->count && !touched; i++) touched = s->at[i].first < end && s->at[i].end > first;
  if (!touched) return;
  for (i = 0; i < s->count; i++) {
    struct range r = s->at[i];
    set_add(&rest, r.first, r.end < first ? r.end : first < r.first ? r.first : first);
    set_add(&rest, r.first > end ? r.first : end > r.end ? r.end : end, r.end);
  }
  free(s->at);
  *s = rest;
}

static bool set_covers(const struct set *s, uint64_t first, uint64_t end) {
  for (size_t i = 0; i < s->count; i++)
    if (s->at[i].first <= first && s->at[i].end >= end) return true;
  return first >= end;
}

static bool set_is(const struct set *s, uint64_t end) { /* exactly 0..end */
  return end == 0 ? s->count == 0 : s->count == 1 && s->at[0].first == 0 && s->at[0].end == end;
}

/* ---- first pass: streams, packets and what they carried -------------------------------------- */

static bool is_carried(uint32_t type) {
  switch (type) {
  case OJO_ACK_SENT:
  case OJO_OFFSET_SENT:
  case OJO_OFFSET_RETRANSMITTED:
  case OJO_STREAM_FIN_SENT:
  case OJO_CONNECTION_MAX_DATA_GRANTED:
  case OJO_STREAM_MAX_DATA_GRANTED:
  case OJO_CONNECTION_BLOCKED:
  case OJO_STREAM_BLOCKED:
  case OJO_PACKET_RETRANSMIT_OLD:
  case OJO_PACKET_RETRANSMIT_NEW: return true;
  default: return false;
  }
}

static bool on_stream(uint32_t type) {
  switch (type) {
  case OJO_OFFSET_SENT:
  case OJO_OFFSET_RETRANSMITTED:
  case OJO_OFFSET_ACKED:
  case OJO_OFFSET_LOST:
  case OJO_OFFSET_RECEIVED:
  case OJO_STREAM_OPENED:
  case OJO_STREAM_LINK_PARENT:
  case OJO_STREAM_FIN_SENT:
  case OJO_STREAM_FIN_ACKED:
  case OJO_STREAM_FIN_RECEIVED:
  case OJO_STREAM_CLOSED:
  case OJO_STREAM_BLOCKED:
  case OJO_STREAM_MAX_DATA_UPDATE:
  case OJO_STREAM_MAX_DATA_GRANTED: return true;
  default: return false;
  }
}

/* The stream of an event's flow; STREAMS_MAX: none. */
static uint32_t stream_of(const struct end *e, uint32_t flow) {
  uint32_t i = 0;
  while (i < e->stream_count && e->streams[i].flow != flow) i++;
  return i < e->stream_count ? i : STREAMS_MAX;
}

static void collect(struct end *e) {
  size_t open = 0;
  for (size_t i = 0; i < e->event_count; i++) {
    const struct event *v = e->now = &e->events[i];
    if (v->type == OJO_STREAM_OPENED) {
      if (v->payload != e->stream_count || v->payload >= STREAMS_MAX ||
          stream_of(e, v->flow) != STREAMS_MAX) {
        wrong(e, "stream opened twice or out of turn");
        continue;
      }
      e->streams[e->stream_count++] =
          (struct stream){.flow = v->flow, .blocked_at = NONE, .final_size = NONE};
    }
    uint32_t stream = stream_of(e, v->flow);
    if (on_stream(v->type) && stream == STREAMS_MAX) {
      wrong(e, "a stream's event on flow %" PRIu32 ", which is no stream", v->flow);
      exit(1);
    }
    if (!on_stream(v->type) && v->flow != e->flow && v->type != OJO_PEER_BLOCKED)
      wrong(e, "an event of flow %" PRIu32 ", which is not the connection", v->flow);
    if (is_carried(v->type)) {
      e->carried = grow(e->carried, e->carried_count, &e->carried_room, sizeof *e->carried);
      e->carried[e->carried_count++] = (struct carried){v->type, stream, v->payload, v->number};
    }
    if (v->type == OJO_PACKET_SENT) {
      if (v->payload != e->packet_count) {
        wrong(e, "packet %" PRIu64 " sent, expected %zu: numbers must rise by one", v->payload,
              e->packet_count);
        exit(1);
      }
      e->packets = grow(e->packets, e->packet_count, &e->packet_room, sizeof *e->packets);
      e->packets[e->packet_count++] = (struct packet){.time = v->time,
                                                      .bytes = v->number,
                                                      .carried = open,
                                                      .carried_count = e->carried_count - open,
                                                      .event = i};
      open = e->carried_count;
    }
    if (v->type == OJO_PACKET_RECEIVED) {
      if (v->payload >= UINT64_C(1) << 32) {
        wrong(e, "no such packet number");
        continue;
      }
      e->received = grow(e->received, (size_t)v->payload, &e->received_room, sizeof *e->received);
      if (e->received[v->payload]) wrong(e, "packet %" PRIu64 " received twice", v->payload);
      e->received[v->payload] = i + 1;
    }
  }
  if (open != e->carried_count) wrong(e, "frames of a packet that was never sent");
  e->now = NULL;
}

/* ---- the model of the sender ----------------------------------------------------------------- */

static bool closing(const struct end *e) {
  return e->state == OJO_CONNECTION_CLOSING || e->state == OJO_CONNECTION_DRAINING;
}

static uint64_t least_window(const struct end *e) { return 2 * e->mtu; }

static uint64_t congestion(const struct end *e) {
  if (e->recovering) return OJO_CONGESTION_RECOVERY;
  return e->cwnd < e->ssthresh ? OJO_CONGESTION_SLOW_START : OJO_CONGESTION_AVOIDANCE;
}

static void model_acked(struct end *e, uint64_t number) {
  const struct packet *p = &e->packets[number];
  e->in_flight -= p->bytes;
  e->expiries = 0;
  if (number < e->recovery_end) return;
  e->recovering = false;
  if (e->limited != OJO_LIMITED_CWND) return;
  e->cwnd += e->cwnd < e->ssthresh ? p->bytes : e->mtu * p->bytes / e->cwnd;
}

static void model_lost(struct end *e, uint64_t number) {
  e->in_flight -= e->packets[number].bytes;
  if (number < e->recovery_end) return;
  e->recovery_end = e->sent_so_far;
  e->recovering = true;
  e->cwnd = e->cwnd / 2 > least_window(e) ? e->cwnd / 2 : least_window(e);
  e->ssthresh = e->cwnd;
}

static void model_sample(struct end *e, uint64_t latest) {
  uint64_t delay = e->ack_delay_ns < 5 * MS ? e->ack_delay_ns : 5 * MS;
  if (!e->rtt_latest) {
    e->rtt_min = e->rtt_smoothed = latest;
    e->rtt_variation = latest / 2;
  } else {
    if (latest < e->rtt_min) e->rtt_min = latest;
    uint64_t sample = latest >= e->rtt_min + delay ? latest - delay : latest;
    uint64_t off = sample > e->rtt_smoothed ? sample - e->rtt_smoothed : e->rtt_smoothed - sample;
    e->rtt_variation = (3 * e->rtt_variation + off) / 4;
    e->rtt_smoothed = (7 * e->rtt_smoothed + sample) / 8;
  }
  e->rtt_latest = latest;
}

static uint64_t model_timeout(const struct end *e) {
  uint64_t smoothed = e->rtt_latest ? e->rtt_smoothed : 20 * MS;
  uint64_t allowance = 4 * (e->rtt_latest ? e->rtt_variation : 10 * MS);
  uint64_t timeout = smoothed + (allowance > 5 * MS ? allowance : 5 * MS) + 5 * MS;
  if (e->state == OJO_CONNECTION_DRAINING) return 8 * timeout;
  return timeout << (e->expiries < 4 ? e->expiries : 4);
}

/* ---- where a step or a packet ends: what must be true then ----------------------------------- */

static void check_follow(struct end *e) {
  if (e->follow_at < e->follow_count)
    wrong(e,
          "0x%04x of stream %" PRIu32 ", %" PRIu64 "..%" PRIu64
          ", is missing after the packet that carried it",
          e->follow[e->follow_at].type, e->follow[e->follow_at].stream,
          e->follow[e->follow_at].first, e->follow[e->follow_at].end);
  e->follow_at = e->follow_count = 0;
}

/* What the last datagram brought must have been recorded by now. */
static void check_received(struct end *e) {
  check_follow(e);
  if (e->datagram_open) wrong(e, "a datagram was neither PACKET_RECEIVED nor PACKET_DROPPED");
  if (e->expected_at < e->expected_count)
    wrong(e,
          "0x%04x (stream %" PRIu32 ", %" PRIu64 ", %" PRIu64 ") is missing after PACKET_RECEIVED",
          e->expected[e->expected_at].type, e->expected[e->expected_at].stream,
          e->expected[e->expected_at].first, e->expected[e->expected_at].end);
  if (e->acks_due) {
    wrong(e, "%zu packets were acknowledged without PACKET_ACKED", e->acks_due);
    for (size_t n = 0; n < e->sent_so_far; n++) e->packets[n].due = 0;
  }
  while (e->first_outstanding < e->sent_so_far && !e->packets[e->first_outstanding].outstanding)
    e->first_outstanding++;
  if (e->ack_seen && e->first_outstanding < e->sent_so_far &&
      e->first_outstanding + THRESHOLD <= e->ack_largest)
    wrong(e, "packet %zu is %d or more behind the acknowledged %" PRIu64 " and not declared lost",
          e->first_outstanding, THRESHOLD, e->ack_largest);
  if (e->timer_step && e->in_flight) wrong(e, "the timer expired and left packets in flight");
  e->datagram_open = e->timer_step = e->ack_seen = false;
  e->expected_at = e->expected_count = e->acks_due = 0;
}

static void check_number(struct end *e, const char *what, uint64_t said, uint64_t replayed) {
  if (said != replayed)
    wrong(e, "%s: recorded %" PRIu64 ", replayed %" PRIu64, what, said, replayed);
}

/* Numbers as recorded last against the replay. */
static void check_numbers(struct end *e) {
  uint64_t deadline =
      e->in_flight || (closing(e) && e->outstanding) ? e->timer_from + model_timeout(e) : 0;
  uint64_t value = deadline == 0 ? 0 : deadline > e->timer_set_at ? deadline - e->timer_set_at : 1;
  if (e->sent_open) wrong(e, "PACKET_SENT without DATAGRAM_SENT");
  e->sent_open = false;
  check_number(e, "cwnd", e->said_cwnd, e->cwnd);
  check_number(e, "ssthresh", e->said_ssthresh, e->ssthresh);
  check_number(e, "bytes in flight", e->said_in_flight, e->in_flight);
  check_number(e, "congestion state", e->said_congestion, congestion(e));
  check_number(e, "latest round-trip time", e->said_latest, e->rtt_latest);
  check_number(e, "smoothed round-trip time", e->said_rtt.smoothed_ns, e->rtt_smoothed);
  check_number(e, "least round-trip time", e->said_rtt.min_ns, e->rtt_min);
  check_number(e, "round-trip time variation", e->said_rtt.variation_ns, e->rtt_variation);
  check_number(e, "loss timer, ns from its setting,", e->timer_value, value);
}

/* SENDER_LIMITED holds from the end of this step until the next one begins: is it true? */
static void check_limited(struct end *e) {
  bool unsent = false, credit = false, unfinished = false, pending = false, reported = true;
  for (uint32_t i = 0; i < e->stream_count; i++) {
    const struct stream *s = &e->streams[i];
    if (!s->ours) continue;
    pending |= s->pending.count != 0;
    /* A server's reply is written when the file is complete: until then it has nothing to send. */
    if (s->fin_sent || e->role == OJO_ROLE_SERVER || s->final_size == 0) continue;
    unfinished = true;
    if (s->next == s->final_size) continue;
    unsent = true;
    credit |= s->next < s->limit;
    reported &= s->blocked_at == s->limit;
  }
  switch (e->limited) {
  case OJO_LIMITED_APPLICATION:
    if ((unfinished || pending) && !closing(e))
      wrong(e, "limited by the application, but there is data to send");
    break;
  case OJO_LIMITED_CWND:
    if (e->in_flight + e->mtu <= e->cwnd)
      wrong(e, "limited by cwnd, but %" PRIu64 " of %" PRIu64 " are in flight", e->in_flight,
            e->cwnd);
    break;
  case OJO_LIMITED_CONNECTION_CREDIT:
    if (!unsent || pending || e->sent_data != e->limit)
      wrong(e, "limited by connection credit, but there is some");
    else if (e->state >= OJO_CONNECTION_ESTABLISHED && e->blocked_at != e->limit)
      wrong(e, "limited by connection credit without CONNECTION_BLOCKED");
    break;
  case OJO_LIMITED_STREAM_CREDIT:
    if (!unsent || pending || credit)
      wrong(e, "limited by stream credit, but there is some");
    else if (!reported)
      wrong(e, "limited by stream credit without STREAM_BLOCKED");
    break;
  default: wrong(e, "waiting, limited by %" PRIu64 ": nothing explains it", e->limited);
  }
}

static void begin_step(struct end *e) {
  check_received(e);
  check_numbers(e);
  check_limited(e);
  if (e->carried_open < e->carried_count && e->sent_so_far < e->packet_count &&
      e->carried_open > e->packets[e->sent_so_far].carried)
    wrong(e, "what a packet carries is not followed by its PACKET_SENT");
}

/* ---- packets --------------------------------------------------------------------------------- */

static void packet_sent(struct end *e) {
  const struct event *v = e->now;
  struct packet *p = &e->packets[v->payload];
  struct set brought = {0};
  bool ack = false;
  check_received(e);
  check_numbers(e);
  if (!e->mtu) wrong(e, "PACKET_SENT before MTU_UPDATED");
  if (!e->cookie) wrong(e, "PACKET_SENT before SOCKET_BOUND");
  if (!v->has_number || v->number == 0 || v->number > e->mtu)
    wrong(e, "a packet of %" PRIu64 " bytes", v->number);
  if (e->carried_open != p->carried + p->carried_count) wrong(e, "frames out of order");
  for (size_t i = 0; i < p->carried_count; i++) {
    const struct carried *c = &e->carried[p->carried + i];
    if (c->type == OJO_ACK_SENT) ack = true;
    if (c->type != OJO_PACKET_RETRANSMIT_NEW) continue;
    if (c->first != v->payload) wrong(e, "RETRANSMIT_NEW names %" PRIu64, c->first);
    uint64_t old = c[-1].first;
    if (i == 0 || c[-1].type != OJO_PACKET_RETRANSMIT_OLD || old >= v->payload ||
        !e->packets[old].lost) {
      wrong(e, "RETRANSMIT_NEW without a lost packet before it");
      continue;
    }
    for (size_t k = 0; k < e->packets[old].carried_count;
         k++) { /* stream number in the upper bits */
      const struct carried *o = &e->carried[e->packets[old].carried + k];
      if (o->type != OJO_OFFSET_SENT && o->type != OJO_OFFSET_RETRANSMITTED) continue;
      set_add(&brought, (uint64_t)o->stream << 48 | o->first, (uint64_t)o->stream << 48 | o->end);
    }
  }
  for (size_t i = 0; i < p->carried_count; i++) {
    const struct carried *c = &e->carried[p->carried + i];
    uint64_t at = (uint64_t)c->stream << 48;
    if (c->type == OJO_OFFSET_RETRANSMITTED && !set_covers(&brought, at | c->first, at | c->end))
      wrong(e, "sends %" PRIu64 "..%" PRIu64 " again, without a link to the packet that lost it",
            c->first, c->end);
  }
  free(brought.at);
  if (p->carried_count == 0 && e->state != OJO_CONNECTION_CLOSING)
    wrong(e, "a packet that carries nothing");
  p->in_flight = !ack || p->carried_count > 1 || e->state == OJO_CONNECTION_CLOSING;
  p->outstanding = true;
  e->outstanding++;
  e->sent_so_far++;
  e->bytes_sent += p->bytes;
  if (p->in_flight) e->in_flight += p->bytes;
  if (p->in_flight || closing(e)) e->timer_from = v->time;
  e->sent_open = true;
}

/* After a packet's ACKED or LOST: an event for each stream range that it carried, in that order. */
static void expect_follow(struct end *e, const struct packet *p, uint32_t type) {
  for (size_t i = 0; i < p->carried_count; i++) {
    struct carried c = e->carried[p->carried + i];
    if (c.type == OJO_OFFSET_SENT || c.type == OJO_OFFSET_RETRANSMITTED)
      c.type = type;
    else if (c.type == OJO_STREAM_FIN_SENT && type == OJO_OFFSET_ACKED &&
             !e->streams[c.stream].fin_acked) {
      bool twice = false;
      c.type = OJO_STREAM_FIN_ACKED;
      for (size_t k = 0; k < e->follow_count; k++)
        twice |= e->follow[k].type == c.type && e->follow[k].stream == c.stream;
      if (twice) continue;
    } else
      continue;
    if (e->follow_count < sizeof e->follow / sizeof *e->follow) e->follow[e->follow_count++] = c;
  }
}

static void follows(struct end *e) {
  const struct event *v = e->now;
  const struct carried *c = &e->follow[e->follow_at];
  if (e->follow_at == e->follow_count || c->type != v->type || c->stream != stream_of(e, v->flow) ||
      c->first != v->payload || (v->type != OJO_STREAM_FIN_ACKED && c->end != v->number))
    wrong(e, "not what the packet before it carried");
  else
    e->follow_at++;
}

static void packet_acked(struct end *e) {
  const struct event *v = e->now;
  check_follow(e);
  if (v->payload >= e->sent_so_far) {
    wrong(e, "a packet was acknowledged that was not sent");
    return;
  }
  struct packet *p = &e->packets[v->payload];
  if (v->number != p->bytes)
    wrong(e, "sent with %" PRIu64 " bytes, acknowledged with %" PRIu64, p->bytes, v->number);
  if (p->acked++) wrong(e, "packet %" PRIu64 " acknowledged twice", v->payload);
  if (p->lost && !p->spurious)
    wrong(e, "packet %" PRIu64 " was lost and is acknowledged without LOST_SPURIOUS", v->payload);
  if (!p->due)
    wrong(e, "packet %" PRIu64 " is acknowledged, but no ACK_RECEIVED has it", v->payload);
  else
    e->acks_due--;
  p->due = 0;
  e->bytes_acked += p->bytes;
  if (p->outstanding) {
    p->outstanding = false;
    e->outstanding--;
    if (p->in_flight) {
      model_acked(e, v->payload);
      if (v->payload == e->ack_largest) model_sample(e, v->time - p->time);
    }
  }
  expect_follow(e, p, OJO_OFFSET_ACKED);
}

static void packet_lost(struct end *e) {
  const struct event *v = e->now;
  check_follow(e);
  if (v->payload >= e->sent_so_far || !e->packets[v->payload].outstanding) {
    wrong(e, "packet %" PRIu64 " is lost, but it is not outstanding", v->payload);
    return;
  }
  struct packet *p = &e->packets[v->payload];
  if (v->number != p->bytes)
    wrong(e, "sent with %" PRIu64 " bytes, lost with %" PRIu64, p->bytes, v->number);
  if (p->lost++) wrong(e, "packet %" PRIu64 " lost twice", v->payload);
  if (v->type == OJO_PACKET_LOST_TIMEOUT && !e->timer_step)
    wrong(e, "lost by timeout, but no timer has expired");
  if (v->type == OJO_PACKET_LOST_DUPLICATE_ACK &&
      (!e->ack_seen || v->payload + THRESHOLD > e->ack_largest))
    wrong(e, "lost by duplicate ack, but it is not %d behind the acknowledged %" PRIu64, THRESHOLD,
          e->ack_largest);
  p->outstanding = false;
  e->outstanding--;
  e->bytes_lost += p->bytes;
  if (p->in_flight) model_lost(e, v->payload);
  expect_follow(e, p, OJO_OFFSET_LOST);
}

static void ack_received(struct end *e) {
  const struct event *v = e->now;
  struct carried *c = &e->expected[e->expected_at];
  check_follow(e);
  if (!e->ack_seen) { /* the first range has the largest number, which the peer's ACK_SENT names */
    if (e->expected_at == e->expected_count || c->type != OJO_ACK_RECEIVED) {
      wrong(e, "the packet carried no ACK, says the peer");
      return;
    }
    e->expected_at++;
    e->ack_seen = true;
    e->ack_largest = v->payload + v->number - 1;
    e->ack_delay_ns = c->end * 1000;
    if (e->ack_largest != c->first)
      wrong(e, "the ACK's largest number is %" PRIu64 ", the peer sent %" PRIu64, e->ack_largest,
            c->first);
  }
  for (uint64_t n = v->payload; n < v->payload + v->number; n++) {
    const struct end *peer = e->peer;
    if (n >= e->sent_so_far || n >= peer->received_room || !peer->received[n] ||
        peer->events[peer->received[n] - 1].time > v->time) {
      wrong(e, "packet %" PRIu64 " is acknowledged, but the peer has not received it", n);
      return;
    }
    if (e->packets[n].acked || e->packets[n].due) continue;
    e->packets[n].due = 1;
    e->acks_due++;
  }
}

/* What the peer put into packet n must come next, in its order. */
static void packet_received(struct end *e) {
  const struct event *v = e->now;
  const struct end *peer = e->peer;
  check_follow(e);
  if (!e->datagram_open || v->number != e->datagram_bytes)
    wrong(e, "PACKET_RECEIVED without its datagram");
  e->datagram_open = false;
  if (v->payload >= peer->packet_count) {
    wrong(e, "packet %" PRIu64 " was never sent", v->payload);
    return;
  }
  const struct packet *p = &peer->packets[v->payload];
  if (p->bytes != v->number) wrong(e, "sent with %" PRIu64 " bytes", p->bytes);
  if (p->time > v->time) wrong(e, "received before it was sent");
  uint64_t limit = e->limit;
  if (e->largest_received == NONE || v->payload > e->largest_received)
    e->largest_received = v->payload;
  for (size_t i = 0; i < p->carried_count; i++) {
    struct carried c = peer->carried[p->carried + i];
    switch (c.type) {
    case OJO_ACK_SENT: c.type = OJO_ACK_RECEIVED; break;
    case OJO_OFFSET_SENT:
    case OJO_OFFSET_RETRANSMITTED: c.type = OJO_OFFSET_RECEIVED; break;
    case OJO_STREAM_FIN_SENT: c.type = OJO_STREAM_FIN_RECEIVED; break;
    case OJO_CONNECTION_MAX_DATA_GRANTED:
      c.type = c.first > limit ? OJO_CONNECTION_MAX_DATA_UPDATE : 0;
      limit = c.first > limit ? c.first : limit;
      break;
    case OJO_STREAM_MAX_DATA_GRANTED:
      c.type = c.stream >= e->stream_count || c.first > e->streams[c.stream].limit
                   ? OJO_STREAM_MAX_DATA_UPDATE
                   : 0;
      break;
    case OJO_CONNECTION_BLOCKED:
      c.stream = STREAMS_MAX;
      c.type = OJO_PEER_BLOCKED;
      break;
    case OJO_STREAM_BLOCKED: c.type = OJO_PEER_BLOCKED; break;
    default: c.type = 0;
    }
    if (c.type == OJO_STREAM_FIN_RECEIVED && c.stream < e->stream_count) {
      if (e->streams[c.stream].fin_received) c.type = 0;
      for (size_t k = 0; k < e->expected_count; k++)
        if (e->expected[k].type == OJO_STREAM_FIN_RECEIVED && e->expected[k].stream == c.stream)
          c.type = 0;
    }
    if (c.type && e->expected_count < sizeof e->expected / sizeof *e->expected)
      e->expected[e->expected_count++] = c;
  }
}

/* An event that a received packet caused: the next one that is expected? */
static void brought(struct end *e) {
  const struct event *v = e->now;
  const struct carried *c = &e->expected[e->expected_at];
  check_follow(e);
  bool range = v->type == OJO_OFFSET_RECEIVED;
  if (e->expected_at == e->expected_count || c->type != v->type ||
      c->stream != stream_of(e, v->flow) || c->first != v->payload ||
      (range && c->end != v->number))
    wrong(e, "not what the peer put into the packet");
  else
    e->expected_at++;
}

/* ---- streams and credit ---------------------------------------------------------------------- */

static void carries(struct end *e) { /* an event of what the next packet carries */
  const struct event *v = e->now;
  struct stream *s = on_stream(v->type) ? &e->streams[stream_of(e, v->flow)] : NULL;
  if (e->sent_so_far == e->packet_count) return; /* collect has complained */
  if (e->carried_open == e->packets[e->sent_so_far].carried) check_received(e);
  e->carried_open++;
  if (v->time != e->packets[e->sent_so_far].time) wrong(e, "not the time of its PACKET_SENT");
  switch (v->type) {
  case OJO_OFFSET_SENT:
    if (v->payload != s->next || v->number <= v->payload)
      wrong(e, "new data from %" PRIu64 ", not %" PRIu64, v->payload, s->next);
    e->sent_data += v->number - s->next;
    s->next = v->number;
    s->ours = true;
    if (s->next > s->limit)
      wrong(e, "stream limit %" PRIu64 " exceeded: %" PRIu64, s->limit, s->next);
    if (e->sent_data > e->limit)
      wrong(e, "connection limit %" PRIu64 " exceeded: %" PRIu64, e->limit, e->sent_data);
    if (s->fin_sent) wrong(e, "data after FIN");
    break;
  case OJO_OFFSET_RETRANSMITTED:
    if (v->number > s->next || v->number <= v->payload) wrong(e, "retransmits what was never sent");
    set_remove(&s->pending, v->payload, v->number);
    break;
  case OJO_STREAM_FIN_SENT:
    s->fin_sent++;
    if (s->next != s->final_size) wrong(e, "FIN before the end");
    break;
  case OJO_ACK_SENT:
    if (v->payload != e->largest_received)
      wrong(e, "acknowledges %" PRIu64 ", the largest is %" PRIu64, v->payload,
            e->largest_received);
    break;
  case OJO_CONNECTION_MAX_DATA_GRANTED:
    if (v->payload < e->granted) wrong(e, "credit taken back: %" PRIu64, e->granted);
    e->granted = v->payload;
    break;
  case OJO_STREAM_MAX_DATA_GRANTED:
    if (v->payload < s->granted) wrong(e, "credit taken back: %" PRIu64, s->granted);
    s->granted = v->payload;
    break;
  case OJO_CONNECTION_BLOCKED:
    if (v->payload != e->limit || e->sent_data != e->limit)
      wrong(e, "blocked, but the limit is %" PRIu64 " and %" PRIu64 " sent", e->limit,
            e->sent_data);
    e->blocked_at = v->payload;
    break;
  case OJO_STREAM_BLOCKED:
    if (v->payload != s->limit || s->next != s->limit)
      wrong(e, "blocked, but the limit is %" PRIu64 " and %" PRIu64 " sent", s->limit, s->next);
    s->blocked_at = v->payload;
    break;
  case OJO_PACKET_RETRANSMIT_OLD:
    if (v + 1 == e->events + e->event_count || v[1].type != OJO_PACKET_RETRANSMIT_NEW)
      wrong(e, "RETRANSMIT_NEW is not next");
    break;
  default: break;
  }
}

static void data_received(struct end *e, struct stream *s) {
  const struct event *v = e->now;
  uint64_t highest = s->received.count ? s->received.at[s->received.count - 1].end : 0;
  brought(e);
  if (v->number > highest) e->received_data += v->number - highest;
  set_add(&s->received, v->payload, v->number);
  if (v->number > s->granted || e->received_data > e->granted)
    wrong(e, "the peer went beyond its credit");
}

static void stream_event(struct end *e, struct stream *s) {
  const struct event *v = e->now;
  uint64_t id = (uint64_t)(s - e->streams);
  switch (v->type) {
  case OJO_STREAM_OPENED: break;
  case OJO_STREAM_LINK_PARENT:
    s->linked = v->payload == e->flow && v[-1].type == OJO_STREAM_OPENED;
    break;
  case OJO_STREAM_FIN_ACKED:
    follows(e);
    s->fin_acked++;
    break;
  case OJO_STREAM_FIN_RECEIVED:
    brought(e);
    s->fin_received++;
    break;
  case OJO_STREAM_CLOSED:
    s->closed++;
    if (v->payload) wrong(e, "stream closed with an error");
    if (s->ours ? !s->fin_acked || !set_is(&s->acked, s->final_size)
                : !s->fin_received || !set_is(&s->received, s->final_size))
      wrong(e, "stream %" PRIu64 " closed before it was complete", id);
    break;
  case OJO_OFFSET_ACKED:
    follows(e);
    set_add(&s->acked, v->payload, v->number);
    set_remove(&s->pending, v->payload, v->number);
    break;
  case OJO_OFFSET_LOST: {
    struct set lost = {0}; /* what other packets delivered meanwhile need not be sent again */
    follows(e);
    set_add(&lost, v->payload, v->number);
    for (size_t i = 0; i < s->acked.count; i++)
      set_remove(&lost, s->acked.at[i].first, s->acked.at[i].end);
    for (size_t i = 0; i < lost.count; i++) set_add(&s->pending, lost.at[i].first, lost.at[i].end);
    free(lost.at);
    break;
  }
  case OJO_OFFSET_RECEIVED: data_received(e, s); break;
  case OJO_STREAM_MAX_DATA_UPDATE:
    brought(e);
    if (v->payload <= s->limit) wrong(e, "a limit that does not rise");
    s->limit = v->payload;
    break;
  default: break;
  }
}

/* ---- second pass ----------------------------------------------------------------------------- */

static void state_changed(struct end *e) {
  static const uint64_t client[] = {0, OJO_CONNECTION_INITIAL, OJO_CONNECTION_ESTABLISHED,
                                    OJO_CONNECTION_CLOSING, 0};
  static const uint64_t server[] = {0, OJO_CONNECTION_HANDSHAKE, OJO_CONNECTION_ESTABLISHED,
                                    OJO_CONNECTION_DRAINING, 0};
  const uint64_t *way = e->role == OJO_ROLE_SERVER ? server : client;
  while (*way != e->state) way++;
  if (e->now->payload != way[1])
    wrong(e, "connection state %" PRIu64 " after %" PRIu64, e->now->payload, e->state);
  e->state = e->now->payload;
}

static void connection_event(struct end *e) {
  const struct event *v = e->now;
  switch (v->type) {
  case OJO_FLOW: break;
  case OJO_SOCKET_BOUND:
    if (e->cookie || !v->payload || (e->peer && v->payload == e->peer->cookie))
      wrong(e, "SOCKET_BOUND twice, or without a cookie of its own");
    e->cookie = v->payload;
    break;
  case OJO_MTU_UPDATED:
    e->mtu = v->payload;
    if (!e->cwnd) e->cwnd = 10 * e->mtu;
    break;
  case OJO_DATAGRAM_RECEIVED:
    begin_step(e);
    e->datagram_open = true;
    e->datagram_bytes = v->payload;
    if (v->number != 1) wrong(e, "one datagram expected");
    break;
  case OJO_DATAGRAM_SENT:
    if (!e->sent_open || v[-1].type != OJO_PACKET_SENT || v[-1].number != v->payload ||
        v->number != 1)
      wrong(e, "DATAGRAM_SENT is not that of the packet before it");
    e->sent_open = false;
    break;
  case OJO_PACKET_SENT: packet_sent(e); break;
  case OJO_PACKET_RECEIVED: packet_received(e); break;
  case OJO_PACKET_DROPPED:
    if (!e->datagram_open || v->number != e->datagram_bytes)
      wrong(e, "PACKET_DROPPED without its datagram");
    e->datagram_open = false;
    if (v->payload != NONE &&
        (v->payload >= e->received_room || !e->received[v->payload] ||
         e->received[v->payload] > (size_t)(v - e->events)) &&
        v->payload + ACK_MEMORY > e->largest_received)
      wrong(e, "packet %" PRIu64 " was dropped, but it was not received before", v->payload);
    break;
  case OJO_ACK_RECEIVED: ack_received(e); break;
  case OJO_PACKET_ACKED: packet_acked(e); break;
  case OJO_PACKET_LOST_SPURIOUS:
    check_follow(e);
    if (v->payload >= e->sent_so_far || !e->packets[v->payload].lost ||
        e->packets[v->payload].spurious++ || v->number != e->packets[v->payload].bytes)
      wrong(e, "packet %" PRIu64 " was not lost, or twice spurious", v->payload);
    e->bytes_spurious += v->number;
    break;
  case OJO_PACKET_LOST_TIMEOUT:
  case OJO_PACKET_LOST_DUPLICATE_ACK: packet_lost(e); break;
  case OJO_LOSS_TIMER_EXPIRED:
    begin_step(e);
    e->timer_step = true;
    check_number(e, "expiries in a row", v->payload, ++e->expiries);
    if (!e->timer_value || v->time < e->timer_set_at + e->timer_value)
      wrong(e, "expired before its time");
    if (e->expiries >= 2) {
      e->recovery_end = e->sent_so_far;
      e->recovering = false;
      e->cwnd = least_window(e);
    }
    break;
  case OJO_LOSS_TIMER_SET:
    e->timer_set_at = v->time;
    e->timer_value = v->payload;
    break;
  case OJO_CWND_UPDATED: check_number(e, "cwnd", e->said_cwnd = v->payload, e->cwnd); break;
  case OJO_SSTHRESH_UPDATED:
    check_number(e, "ssthresh", e->said_ssthresh = v->payload, e->ssthresh);
    break;
  case OJO_BYTES_IN_FLIGHT:
    check_number(e, "bytes in flight", e->said_in_flight = v->payload, e->in_flight);
    break;
  case OJO_CONGESTION_STATE:
    check_number(e, "state", e->said_congestion = v->payload, congestion(e));
    break;
  case OJO_RTT_SAMPLE:
    check_number(e, "round-trip time", v->payload, e->rtt_latest);
    e->said_latest = v->payload;
    e->said_rtt = v->rtt;
    break;
  case OJO_SENDER_LIMITED:
    if (v->payload == e->limited) wrong(e, "limited as before");
    e->limited = v->payload;
    break;
  case OJO_CONNECTION_MAX_DATA_UPDATE:
    brought(e);
    if (v->payload <= e->limit) wrong(e, "a limit that does not rise");
    e->limit = v->payload;
    break;
  case OJO_PEER_BLOCKED: brought(e); break;
  case OJO_CONNECTION_STATE: state_changed(e); break;
  case OJO_CONNECTION_CLOSED:
    e->closed++;
    e->closed_by = v->by;
    break;
  default: wrong(e, "an event that this transport has no reason to record");
  }
}

static void replay(struct end *e, bool alone) {
  uint64_t before = 0;
  e->ssthresh = e->said_ssthresh = NONE;
  e->largest_received = e->blocked_at = NONE;
  for (uint32_t i = 0; i < e->stream_count; i++) { /* a stream's size, from its FIN */
    struct stream *s = &e->streams[i];
    s->ours = (e->role == OJO_ROLE_SERVER) == (i + 1 == e->stream_count);
    const struct end *sender = s->ours || !e->peer ? e : e->peer;
    uint64_t highest = 0;
    for (size_t k = 0; k < sender->carried_count; k++) {
      const struct carried *c = &sender->carried[k];
      if (c->stream == i && c->type == OJO_OFFSET_SENT && c->end > highest) highest = c->end;
    }
    s->final_size = alone ? NONE : highest;
  }
  for (size_t i = 0; i < e->event_count; i++) {
    const struct event *v = e->now = &e->events[i];
    if (v->time < before) wrong(e, "time goes back");
    before = v->time;
    if (is_carried(v->type))
      carries(e);
    else if (on_stream(v->type))
      stream_event(e, &e->streams[stream_of(e, v->flow)]);
    else
      connection_event(e);
  }
  check_received(e);
  check_numbers(e);
  check_limited(e);
  e->now = NULL;
}

static void check_end(struct end *e) {
  uint64_t acked = 0, lost = 0, spurious = 0;
  for (size_t n = 0; n < e->packet_count; n++) {
    const struct packet *p = &e->packets[n];
    acked += p->acked;
    lost += p->lost;
    spurious += p->spurious;
    if (p->acked + p->lost - p->spurious != 1)
      wrong(e, "packet %zu: acknowledged %u times, lost %u, spurious %u", n, p->acked, p->lost,
            p->spurious);
  }
  if (acked + lost - spurious != e->packet_count ||
      e->bytes_acked + e->bytes_lost - e->bytes_spurious != e->bytes_sent)
    wrong(e, "sent %zu packets, %" PRIu64 " bytes; acked + lost - spurious = %" PRIu64 ", %" PRIu64,
          e->packet_count, e->bytes_sent, acked + lost - spurious,
          e->bytes_acked + e->bytes_lost - e->bytes_spurious);
  if (e->in_flight || e->outstanding) wrong(e, "%zu packets outstanding", e->outstanding);
  if (e->closed != 1 || e->closed_by != (e->role == OJO_ROLE_SERVER))
    wrong(e, "CONNECTION_CLOSED %u times, by %d", e->closed, e->closed_by);
  if (!closing(e)) wrong(e, "the connection did not reach closing or draining");
  if (e->stream_count < 2 || e->stream_count != e->peer->stream_count)
    wrong(e, "%u streams", e->stream_count);
  for (uint32_t i = 0; i < e->stream_count; i++) {
    const struct stream *s = &e->streams[i], *other = &e->peer->streams[i];
    if (!s->linked) wrong(e, "stream %u has no STREAM_LINK_PARENT", i);
    if (s->closed != 1) wrong(e, "stream %u closed %u times", i, s->closed);
    if (!s->ours) continue;
    if (!s->fin_sent || s->fin_acked != 1 || other->fin_received != 1)
      wrong(e, "stream %u: FIN", i);
    if (!set_is(&s->acked, s->final_size) || !set_is(&other->received, s->final_size))
      wrong(e, "stream %u: acknowledged and received are not 0..%" PRIu64, i, s->final_size);
    if (s->pending.count) wrong(e, "stream %u: lost data was never sent again", i);
  }
}

/* ---- reading --------------------------------------------------------------------------------- */

static void load(struct end *e, ojo_reader *reader) {
  ojo_reader_event v;
  uint64_t origin = ojo_reader_trace(reader, e->trace)->start_monotonic_ns;
  ojo_reader_rewind(reader);
  while (ojo_reader_next(reader, &v)) {
    if (v.trace != e->trace) continue;
    if (v.type == OJO_EVENTS_DROPPED)
      wrong(NULL, "%s: the trace lost %" PRIu64 " events", e->name, v.payload);
    e->events = grow(e->events, e->event_count, &e->event_room, sizeof *e->events);
    struct event *x = &e->events[e->event_count++];
    *x = (struct event){origin + v.ts,    v.payload,    v.number, (uint32_t)v.flow,
                        (uint32_t)v.type, v.has_number, 0,        {0, 0, 0}};
    if (v.type == OJO_RTT_SAMPLE && !ojo_reader_rtt(&v, &x->rtt))
      wrong(NULL, "%s: RTT_SAMPLE without values", e->name);
    if (v.type == OJO_CONNECTION_CLOSED) x->by = v.extension_bytes ? v.extension[0] : 255;
  }
}

/* The two ends: connections with the same id, one client and one server, whose addresses mirror each other. */
static bool pair(ojo_reader *reader, struct end *client, struct end *server, bool alone) {
  ojo_reader_flow_info ends[2];
  bool found[2] = {false, false};
  for (uint64_t i = 0; i < ojo_reader_flow_count(reader); i++) {
    const ojo_reader_flow_info *f = ojo_reader_flow_at(reader, i);
    if (f->kind != OJO_FLOW_CONNECTION || f->role < OJO_ROLE_CLIENT || f->role > OJO_ROLE_SERVER)
      continue;
    if (found[f->role - 1]) wrong(NULL, "two connections of one role");
    found[f->role - 1] = true;
    ends[f->role - 1] = *f;
    struct end *e = f->role == OJO_ROLE_CLIENT ? client : server;
    e->flow = (uint32_t)f->flow;
    e->trace = f->trace;
    e->role = f->role;
  }
  if (!found[0] || found[1] == alone) {
    wrong(NULL, "%s FLOW event is missing", found[0] ? "the server's" : "the client's");
    return false;
  }
  if (alone) return true;
  if (ends[0].id_bytes == 0 || ends[0].id_bytes != ends[1].id_bytes ||
      memcmp(ends[0].id, ends[1].id, ends[0].id_bytes) || ends[0].trace == ends[1].trace)
    wrong(NULL, "the two flows have no id in common");
  if (ends[0].address_bytes != 4 || ends[0].local_port != ends[1].remote_port ||
      ends[0].remote_port != ends[1].local_port ||
      memcmp(ends[0].local_address, ends[1].remote_address, 4))
    wrong(NULL, "the addresses of the two flows are not each other's");
  return true;
}

int main(int count, char **argument) {
  static struct end client = {.name = "client"}, server = {.name = "server"};
  bool alone = count == 3 && !strcmp(argument[1], "--alone");
  ojo_reader *reader;
  if (count != 2 + alone) {
    fprintf(stderr, "usage: verify_transport [--alone] DIR\n");
    return 2;
  }
  if (ojo_reader_open(&reader, &(ojo_reader_desc){.path = argument[1 + alone]}) != OJO_OK) {
    fprintf(stderr, "verify_transport: %s can't be read\n", argument[1 + alone]);
    return 1;
  }
  if (pair(reader, &client, &server, alone)) {
    load(&client, reader);
    collect(&client);
    if (!alone) {
      client.peer = &server;
      server.peer = &client;
      load(&server, reader);
      collect(&server);
    }
    replay(&client, alone);
    if (alone) {
      if (client.closed != 1 || client.closed_by != 2) wrong(&client, "not closed by a timeout");
      if (!client.expiries) wrong(&client, "no timer expired");
    } else {
      replay(&server, alone);
      check_end(&client);
      check_end(&server);
    }
  }
  for (uint64_t i = 0; i < ojo_reader_error_count(reader); i++)
    wrong(NULL, "%s", ojo_reader_error_at(reader, i)->text);
  ojo_reader_close(reader);
  if (violations)
    printf("%u violations\n", violations);
  else
    printf("ok: client sent %zu packets (%zu events), server %zu (%zu)\n", client.packet_count,
           client.event_count, server.packet_count, server.event_count);
  return violations != 0;
}
