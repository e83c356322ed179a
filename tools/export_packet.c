/* SPDX-License-Identifier: MIT
 *
 * --packet FLOW:NUMBER of ojo-cat: the story of one packet, and of the packets that its content was
 * sent in before and after. Two passes: the first finds the links of RETRANSMIT_OLD and _NEW, from
 * which the numbers of the story follow; the second tells what happened to these numbers. A trace
 * of the far end, paired by FLOW's id, adds when a packet came in there. */
#include "export.h"

#include <stdlib.h>

#define ENDS_MAX 8u          /* traces that have such a flow */
#define NUMBERS_MAX 32u      /* packets in one story */
#define LINES_MAX 64u        /* of one story */
#define LINKS_MAX (1u << 20) /* 24 MiB */
#define RANGES_MAX 8u        /* named per packet; the others are counted */
#define THREADS 256u         /* whose last events are kept at a time */

typedef struct link { /* packet `was` was sent again as packet `is` */
  uint64_t was, is;
  uint32_t trace;
} link;

typedef struct line {
  uint64_t time_ns, number;
  uint64_t type;        /* OJO_PACKET_SENT and so on */
  uint64_t bytes, also; /* also: RETRANSMIT's new number, ACK_SENT's largest */
  bool has_bytes, at_peer;
  char ranges[200];
} line;

typedef struct end { /* one trace that has the flow, and the story in it */
  uint32_t trace, peer_trace;
  uint64_t peer_flow, root;
  bool has_peer, sent, received; /* received: the flow's peer sent a packet of that number */
  bool acknowledged;
  uint64_t number[NUMBERS_MAX];
  unsigned numbers, lines, lines_left_out;
  line line[LINES_MAX];
} end;

typedef struct thread_state { /* what came last on one thread of one trace */
  uint32_t trace, thread;
  bool has_old, used;
  uint64_t old;
  unsigned ranges, ranges_left_out;
  struct {
    uint64_t flow, start, end;
    bool again, has_end;
  } range[RANGES_MAX];
} thread_state;

static struct {
  uint64_t flow, number;
  end *ends;
  unsigned count, ends_left_out; /* left out: events of further traces */
  link *links;
  uint64_t link_count, link_room, links_left_out;
  thread_state threads[THREADS];
  struct {
    uint64_t flow;
    uint32_t trace;
    bool used, yes;
  } known[1024]; /* the last answers of in_family */
} story;

static thread_state *thread_of(const ojo_reader_event *e) {
  thread_state *t = &story.threads[(e->thread + e->trace * 61u) % THREADS];
  if (!t->used || t->trace != e->trace || t->thread != e->thread) {
    memset(t, 0, sizeof *t);
    t->used = true;
    t->trace = e->trace;
    t->thread = e->thread;
  }
  return t;
}

static uint64_t root_of(cat *c, uint32_t trace, uint64_t flow) {
  for (int depth = 0; depth < 16; depth++) {
    const ojo_reader_flow_info *info = ojo_reader_flow_in(c->reader, trace, flow);
    if (!info || info->parent == 0) break;
    flow = info->parent;
  }
  return flow;
}

/* Does the flow belong to the same root? Remembers the last answers. */
static bool in_family(cat *c, const end *n, uint64_t flow) {
  if (flow == story.flow || flow == n->root) return true;
  unsigned at = (unsigned)((flow + n->trace) * UINT64_C(0x9E3779B97F4A7C15) >> 54);
  if (!story.known[at].used || story.known[at].flow != flow || story.known[at].trace != n->trace) {
    story.known[at].flow = flow;
    story.known[at].trace = n->trace;
    story.known[at].used = true;
    story.known[at].yes = root_of(c, n->trace, flow) == n->root;
  }
  return story.known[at].yes;
}

static end *end_of(uint32_t trace, bool make) {
  for (unsigned i = 0; i < story.count; i++)
    if (story.ends[i].trace == trace) return &story.ends[i];
  if (!make) return NULL;
  if (story.count == ENDS_MAX) {
    story.ends_left_out++;
    return NULL;
  }
  end *n = &story.ends[story.count++];
  memset(n, 0, sizeof *n);
  n->trace = trace;
  return n;
}

/* ---- first pass: links, and who has the packet ----------------------------------------------- */

static void add_link(const ojo_reader_event *e, uint64_t was, uint64_t is) {
  if (story.link_count == story.link_room) {
    uint64_t room = story.link_room ? story.link_room * 2 : 1024;
    link *grown = room <= LINKS_MAX ? realloc(story.links, room * sizeof *grown) : NULL;
    if (!grown) {
      story.links_left_out++;
      return;
    }
    story.links = grown;
    story.link_room = room;
  }
  story.links[story.link_count++] = (link){was, is, e->trace};
}

static void first_pass(const ojo_reader_event *e) {
  end *n;
  if (e->flow != story.flow) return;
  switch (e->type) {
    case OJO_PACKET_RETRANSMIT_OLD: {
      thread_state *t = thread_of(e);
      t->has_old = true;
      t->old = e->payload;
      break;
    }
    case OJO_PACKET_RETRANSMIT_NEW: {
      thread_state *t = thread_of(e);
      if (t->has_old) add_link(e, t->old, e->payload);
      t->has_old = false;
      break;
    }
    case OJO_PACKET_RECEIVED:
    case OJO_PACKET_DROPPED:
      if (e->payload == story.number && (n = end_of(e->trace, true))) n->received = true;
      break;
    case OJO_PACKET_CREATED:
    case OJO_PACKET_SENT:
    case OJO_PACKET_ACKED:
    case OJO_PACKET_LOST_TIMEOUT:
    case OJO_PACKET_LOST_DUPLICATE_ACK:
    case OJO_PACKET_LOST_TIME:
    case OJO_PACKET_LOST_REPORTED:
    case OJO_PACKET_LOST_SPURIOUS:
      if (e->payload == story.number && (n = end_of(e->trace, true))) n->sent = true;
      break;
    default: break;
  }
}

static bool has_number(const end *n, uint64_t number) {
  for (unsigned i = 0; i < n->numbers; i++)
    if (n->number[i] == number) return true;
  return false;
}

/* Follows the links from the packet asked for: back to the first, then on to the last. */
static void follow_links(end *n, bool back) {
  for (unsigned from = 0; from < n->numbers; from++)
    for (uint64_t i = 0; i < story.link_count && n->numbers < NUMBERS_MAX; i++) {
      const link *l = &story.links[i];
      if (l->trace != n->trace || (back ? l->is : l->was) != n->number[from]) continue;
      uint64_t next = back ? l->was : l->is;
      if (!has_number(n, next)) n->number[n->numbers++] = next;
    }
}

/* The far end's flow: that of another trace, or of the same one, whose root has the same id. For a
 * space or path of its own: the root's child there with the same key. */
static void find_peer(cat *c, end *n) {
  ojo_reader_flow_info root, mine; /* copies: the reader's are short-lived */
  const ojo_reader_flow_info *f = ojo_reader_flow_in(c->reader, n->trace, n->root);
  uint64_t count = ojo_reader_flow_count(c->reader);
  if (!f || !f->id_bytes) return;
  root = *f;
  f = ojo_reader_flow_in(c->reader, n->trace, story.flow);
  mine = f ? *f : root;
  for (uint64_t i = 0; i < count && !n->has_peer; i++) {
    f = ojo_reader_flow_at(c->reader, i);
    if (!f || f->id_bytes != root.id_bytes || memcmp(f->id, root.id, f->id_bytes) != 0) continue;
    bool roles = f->role && root.role; /* else the far end is that of another trace */
    if (f->kind != root.kind || (roles ? f->role == root.role : f->trace == root.trace)) continue;
    n->has_peer = true;
    n->peer_trace = f->trace;
    n->peer_flow = f->flow;
  }
  uint64_t peer_root = n->peer_flow;
  for (uint64_t i = 0; n->has_peer && story.flow != n->root && i < count; i++) {
    f = ojo_reader_flow_at(c->reader, i);
    if (f && f->trace == n->peer_trace && f->parent == peer_root && f->kind == mine.kind &&
        f->key == mine.key)
      n->peer_flow = f->flow;
  }
}

/* ---- second pass: the lines ------------------------------------------------------------------ */

static line *add_line(end *n, const ojo_reader_event *e) {
  if (n->lines == LINES_MAX) {
    n->lines_left_out++;
    return NULL;
  }
  line *l = &n->line[n->lines++];
  memset(l, 0, sizeof *l);
  l->time_ns = e->time_ns;
  l->number = e->payload;
  l->type = e->type;
  l->has_bytes = e->has_number;
  l->bytes = e->number;
  return l;
}

static void keep_range(thread_state *t, const ojo_reader_event *e) {
  if (t->ranges == RANGES_MAX) {
    t->ranges_left_out++;
    return;
  }
  t->range[t->ranges].flow = e->flow;
  t->range[t->ranges].start = e->payload;
  t->range[t->ranges].end = e->number;
  t->range[t->ranges].has_end = e->has_number;
  t->range[t->ranges].again = e->type == OJO_OFFSET_RETRANSMITTED;
  t->ranges++;
}

/* "stream 0 [1200, 2400)" for each range recorded on this thread since the packet before. */
static void tell_ranges(cat *c, line *l, const thread_state *t) {
  unsigned char text[4096], *p = text, name[FLOW_NAME_BYTES + 16];
  for (unsigned i = 0; i < t->ranges; i++) {
    const ojo_reader_flow_info *info = ojo_reader_flow_in(c->reader, t->trace, t->range[i].flow);
    p = put_text(p, i ? ", " : "  carries ");
    if (info && info->kind == OJO_FLOW_STREAM) {
      p = put_u64(put_text(p, "stream "), info->key);
    } else {
      *put_flow(c, name, t->trace, t->range[i].flow) = 0;
      p = put_text(put_text(p, "flow "), (char *)name);
    }
    p = put_u64(put_text(p, " ["), t->range[i].start);
    p = t->range[i].has_end ? put_u64(put_text(p, ", "), t->range[i].end) : put_text(p, ", ?");
    p = put_text(p, t->range[i].again ? ") again" : ")");
  }
  if (t->ranges_left_out) p = put_text(put_u64(put_text(p, " and "), t->ranges_left_out), " more");
  size_t length = (size_t)(p - text);
  if (length >= sizeof l->ranges) { /* cut at a whole character: a flow's label may hold any */
    length = sizeof l->ranges - 1;
    while (length && (text[length] & 0xC0) == 0x80) length--;
  }
  memcpy(l->ranges, text, length);
  l->ranges[length] = 0;
}

/* Where the far end's clock shows the same time as ours, the merge orders by trace: a packet comes in after
 * it was sent and before it was acked all the same. */
static void order_lines(end *n) {
  for (unsigned i = 0; i < n->lines; i++) {
    line moving = n->line[i];
    unsigned to = i;
    if (!moving.at_peer) continue;
    for (unsigned k = i; k-- && n->line[k].time_ns == moving.time_ns;)
      if (n->line[k].number == moving.number && n->line[k].type == OJO_PACKET_ACKED) to = k;
    for (unsigned k = i + 1; k < n->lines && n->line[k].time_ns == moving.time_ns; k++)
      if (n->line[k].number == moving.number && n->line[k].type == OJO_PACKET_SENT) to = k;
    if (to < i) memmove(&n->line[to + 1], &n->line[to], (i - to) * sizeof moving);
    if (to > i) memmove(&n->line[i], &n->line[i + 1], (to - i) * sizeof moving);
    n->line[to] = moving;
  }
}

static void second_pass_sender(cat *c, end *n, const ojo_reader_event *e) {
  thread_state *t = thread_of(e);
  line *l;
  switch (e->type) {
    case OJO_OFFSET_SENT:
    case OJO_OFFSET_RETRANSMITTED: keep_range(t, e); return;
    case OJO_PACKET_SENT:
      if (e->flow == story.flow && has_number(n, e->payload) && (l = add_line(n, e)))
        tell_ranges(c, l, t);
      t->ranges = t->ranges_left_out = 0;
      return;
    case OJO_PACKET_RETRANSMIT_OLD:
      t->has_old = e->flow == story.flow;
      t->old = e->payload;
      return;
    case OJO_PACKET_RETRANSMIT_NEW:
      if (e->flow == story.flow && t->has_old && has_number(n, t->old) &&
          has_number(n, e->payload) && (l = add_line(n, e))) {
        l->also = e->payload;
        l->number = t->old;
      }
      t->has_old = false;
      return;
    case OJO_PACKET_CREATED:
    case OJO_PACKET_ACKED:
    case OJO_PACKET_LOST_TIMEOUT:
    case OJO_PACKET_LOST_DUPLICATE_ACK:
    case OJO_PACKET_LOST_TIME:
    case OJO_PACKET_LOST_REPORTED:
    case OJO_PACKET_LOST_SPURIOUS:
      if (e->flow == story.flow && has_number(n, e->payload)) add_line(n, e);
      return;
    default: return;
  }
}

static void second_pass_receiver(end *n, const ojo_reader_event *e) {
  if ((e->type == OJO_PACKET_RECEIVED || e->type == OJO_PACKET_DROPPED) &&
      e->payload == story.number) {
    add_line(n, e);
  } else if (e->type == OJO_ACK_SENT && e->payload >= story.number && n->lines &&
             !n->acknowledged) {
    line *l = add_line(n, e);
    if (l) l->also = e->payload, l->number = story.number, l->has_bytes = false;
    n->acknowledged = true;
  }
}

static void second_pass(cat *c, const ojo_reader_event *e) {
  for (unsigned i = 0; i < story.count; i++) {
    end *n = &story.ends[i];
    if (n->sent && n->trace == e->trace && in_family(c, n, e->flow)) second_pass_sender(c, n, e);
    if (!n->sent && n->trace == e->trace && e->flow == story.flow) second_pass_receiver(n, e);
    if (n->sent && n->has_peer && n->peer_trace == e->trace && n->peer_flow == e->flow &&
        (e->type == OJO_PACKET_RECEIVED || e->type == OJO_PACKET_DROPPED) &&
        has_number(n, e->payload)) {
      line *l = add_line(n, e);
      if (l) l->at_peer = true;
    }
  }
}

/* ---- telling it ------------------------------------------------------------------------------ */

static const char *what(const line *l) {
  switch (l->type) {
    case OJO_PACKET_CREATED: return "created";
    case OJO_PACKET_SENT: return "sent";
    case OJO_PACKET_ACKED: return "acked";
    case OJO_PACKET_LOST_TIMEOUT: return "declared lost: timeout";
    case OJO_PACKET_LOST_DUPLICATE_ACK: return "declared lost: later packets acked";
    case OJO_PACKET_LOST_TIME: return "declared lost: time threshold";
    case OJO_PACKET_LOST_REPORTED: return "declared lost: reported by the peer";
    case OJO_PACKET_LOST_SPURIOUS: return "was not lost: acked late";
    case OJO_PACKET_RETRANSMIT_NEW: return "sent again as";
    case OJO_PACKET_RECEIVED: return l->at_peer ? "received by the peer" : "received";
    case OJO_PACKET_DROPPED: return l->at_peer ? "dropped by the peer" : "dropped";
    case OJO_ACK_SENT: return "acknowledged, up to";
    default: return "?";
  }
}

static const char *colour_of(const cat *c, const line *l) {
  if (!c->colour) return "";
  bool lost = l->type == OJO_PACKET_LOST_TIMEOUT || l->type == OJO_PACKET_LOST_DUPLICATE_ACK ||
              l->type == OJO_PACKET_LOST_TIME || l->type == OJO_PACKET_LOST_REPORTED ||
              l->type == OJO_PACKET_DROPPED;
  return lost ? "\x1b[31m" : l->type == OJO_PACKET_ACKED ? "\x1b[32m" : "\x1b[36m";
}

static void tell_line(cat *c, const line *l, uint64_t before_ns) {
  unsigned char delay[40] = "", detail[64] = "", *p;
  uint64_t ns = l->time_ns > c->start_ns ? l->time_ns - c->start_ns : 0;
  if (before_ns) {
    delay[0] = '+';
    *put_human(delay + 1, l->time_ns - before_ns, UNIT_NS) = 0;
  }
  if (l->type == OJO_PACKET_RETRANSMIT_NEW || l->type == OJO_ACK_SENT) {
    p = detail;
    *p++ = '#';
    *put_u64(p, l->also) = 0;
  } else if (l->has_bytes) {
    *put_human(detail, l->bytes, UNIT_BYTES) = 0;
  }
  const char *on = colour_of(c, l);
  out_format(&c->out, "%6llu.%06llu s  %9s  #%-10llu %s%s%s%s%s%s\n",
             (unsigned long long)(ns / 1000000000u), (unsigned long long)(ns % 1000000000u / 1000u),
             (char *)delay, (unsigned long long)l->number, on, what(l), *on ? "\x1b[0m" : "",
             detail[0] ? (detail[0] == '#' ? " " : "  ") : "", (char *)detail, l->ranges);
}

static void tell(cat *c, const end *n) {
  unsigned char name[FLOW_NAME_BYTES + 16], id[16], total[40];
  uint64_t first_sent = 0, last_acked = 0, before = 0;
  unsigned sent = 0, lost = 0;
  *put_flow(c, name, n->trace, story.flow) = 0;
  *put_hex(id, ojo_reader_trace(c->reader, n->trace)->id, 4) = 0;
  out_format(&c->out, "packet #%llu of flow %s in trace %s%s\n", (unsigned long long)story.number,
             (char *)name, (char *)id, n->sent ? "" : ", numbered by the peer");
  for (unsigned i = 0; i < n->lines; i++) {
    const line *l = &n->line[i];
    tell_line(c, l, before);
    before = l->time_ns;
    if (l->type == OJO_PACKET_SENT && sent++ == 0) first_sent = l->time_ns;
    if (l->type == OJO_PACKET_ACKED) last_acked = l->time_ns;
    lost += l->type == OJO_PACKET_LOST_TIMEOUT || l->type == OJO_PACKET_LOST_DUPLICATE_ACK ||
            l->type == OJO_PACKET_LOST_TIME || l->type == OJO_PACKET_LOST_REPORTED;
  }
  if (n->lines_left_out) out_format(&c->out, "... and %u more\n", n->lines_left_out);
  if (!n->sent) return;
  bool timed = last_acked && sent;
  *put_human(total, last_acked - first_sent, UNIT_NS) = 0;
  out_format(&c->out, "sent %u time%s, declared lost %u time%s, %s %s%s\n", sent,
             sent == 1 ? "" : "s", lost, lost == 1 ? "" : "s",
             last_acked ? "acked" : "never acked", timed ? (char *)total : "",
             timed ? " after it was first sent" : "");
}

bool report_packet(cat *c, uint64_t flow, uint64_t number) {
  ojo_reader_event e;
  bool told = false;
  memset(&story, 0, sizeof story);
  story.flow = flow;
  story.number = number;
  story.ends = malloc(ENDS_MAX * sizeof *story.ends);
  if (!story.ends) {
    complain("out of memory");
    return false;
  }
  while (cat_next(c, &e)) first_pass(&e);
  for (unsigned i = 0; i < story.count; i++) {
    end *n = &story.ends[i];
    n->root = root_of(c, n->trace, flow);
    n->number[n->numbers++] = number;
    follow_links(n, true);
    follow_links(n, false);
    if (n->sent) find_peer(c, n);
  }
  if (story.links_left_out)
    complain("%llu retransmission%s not followed: there are more than %u",
             (unsigned long long)story.links_left_out, plural(story.links_left_out), LINKS_MAX);
  memset(story.threads, 0, sizeof story.threads);
  if (story.ends_left_out)
    complain("only the first %u traces with such a packet are shown: choose with --trace", ENDS_MAX);
  if (story.count) cat_rewind(c);
  while (story.count && cat_next(c, &e)) second_pass(c, &e);
  for (unsigned i = 0; i < story.count; i++) order_lines(&story.ends[i]);
  bool any_sent = false;
  for (unsigned i = 0; i < story.count; i++) any_sent = any_sent || story.ends[i].sent;
  for (unsigned i = 0; i < story.count; i++) {
    /* where it was but received: another packet, to which the peer gave that number */
    if (any_sent && !story.ends[i].sent) continue;
    if (told) out_text(&c->out, "\n");
    tell(c, &story.ends[i]);
    told = true;
  }
  if (!told)
    complain("no packet #%llu in flow %llu", (unsigned long long)number, (unsigned long long)flow);
  free(story.links);
  free(story.ends);
  return told;
}
