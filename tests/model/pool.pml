/* SPDX-License-Identifier: MIT
 *
 * pool.pml - chunks on their way round: free list or fresh, leased, full list, queue, free list; as in
 * ojo__pop, ojo__push, ojo__change, ojo__hand_off, ojo__gather, ojo__pass_locked and ojo__free_taken of
 * ojo.h. Two threads, the first interrupted at every step by a handler that records, and a flusher; every
 * batch is published (batch.pml is about those that are not). A step is what others can see of a control's
 * doings at one moment: an access that they race with, with those of its own that nobody races with.
 *
 * Checked: a chunk is in one place only; each stream's (thread's and level's) events are taken once and in
 * order; its losses are told exactly, from ordinals; at the end all chunks are on the free list, each once.
 *
 * -DDEFECT_name: the same defect as in tests/defects.sh; spin must then find an error.
 */
#ifndef EVENTS0
#define EVENTS0 3 /* records of the first thread, of the handler that interrupts it, of the second thread */
#define EVENTS1 1
#define EVENTS2 1
#define CHUNKS 2
#define SLOTS 2
#endif
#define STREAMS 3

#define FREE 0
#define LEASED 1
#define FULL 2
#define STATE(lease) ((lease) & 3)
#define NEXT_LEASE (4 + LEASED) /* from FREE; numbered by chunk, as a lease is compared with one chunk's only */

byte free_head, free_tag, full_head, fresh; /* an index from 1; 0: none */
byte link[CHUNKS + 1];
byte lease[CHUNKS + 1], committed[CHUNKS + 1], harvested[CHUNKS + 1], ordinal[CHUNKS + 1], stream[CHUNKS + 1];
byte slot[(CHUNKS + 1) * SLOTS];
byte attempts[STREAMS], lost[STREAMS];
byte held[STREAMS];     /* each stream's chunk: ojo__context.lease */
byte made[STREAMS];
bool nested;            /* the handler runs, the first thread does not */
bool leaving[STREAMS];
byte exited;

/* Where a chunk is: looked at by assertions only. */
mtype = { untaken, out, listed, queued, freed };
mtype place[CHUNKS + 1] = untaken;

#define ON (s == 2 || nested == (s == 1))
#define LIMIT(s) (s == 0 -> EVENTS0 : (s == 1 -> EVENTS1 : EVENTS2))

/* Pops the free list's head into `got`; 0: there is none. */
inline pop() {
  atomic { ON -> head = free_head; tag = free_tag }                        /* P1: the head with its tag */
  do
  :: atomic { ON && head == 0 -> got = 0; break }
  :: atomic { ON && head != 0 -> got = link[head] }                        /* P2: the link, maybe another's by now */
    if
    :: atomic {
        ON && free_head == head && free_tag == tag ->                      /* P3: exchanged, if nobody else has */
        free_head = got;
#ifndef DEFECT_tag_kept
        free_tag++;
#endif
        got = head;
        assert(place[got] == freed);
        place[got] = out;
        break
      }
    :: atomic { ON && (free_head != head || free_tag != tag) -> head = free_head; tag = free_tag }
    fi
  od;
  head = 0; tag = 0
}

/* ojo__hand_off of stream of's chunk c. */
inline hand_off(c, whose) {
  atomic { ON -> attempts[whose] = attempts[whose] + committed[c]; head = full_head; link[c] = head }
  do
  :: atomic { ON && full_head == head ->                                   /* C2: on the full list */
      full_head = c; assert(place[c] == out); place[c] = listed; head = 0; c = 0; break }
  :: atomic { ON && full_head != head -> head = full_head; link[c] = head }
  od
}

inline change() {
  atomic { ON -> old = chunk; held[s] = 0 }                                /* C1: the old chunk is let go of */
#ifndef DEFECT_push_after_lease
  if
  :: ON && old -> hand_off(old, s)
  :: ON && !old
  fi;
#endif
  pop();                                                                   /* C3: a free chunk, else a fresh one */
  if
  :: atomic { ON && got == 0 && fresh < CHUNKS -> fresh++; got = fresh; assert(place[got] == untaken); place[got] = out }
  :: ON && (got != 0 || fresh == CHUNKS)
  fi;
  chunk = got; got = 0;
#ifdef DEFECT_push_after_lease
  if
  :: ON && !chunk && old -> hand_off(old, s)
  :: ON && (chunk || !old)
  fi;
#endif
  if
  :: ON && chunk ->
    atomic { ON ->
      committed[chunk] = 0; harvested[chunk] = 0; ordinal[chunk] = attempts[s]; stream[chunk] = s; /* C4 */
      lease[chunk] = lease[chunk] + NEXT_LEASE;                            /* C5: leased */
      held[s] = chunk }                                                    /* C6: ours */
#ifdef DEFECT_push_after_lease
    if
    :: ON && old -> hand_off(old, s)
    :: ON && !old
    fi
#endif
  :: ON && !chunk
  fi
}

/* Stream 0: the first thread's own records; 1: its handler's; 2: the second thread's. */
proctype Writer(byte s) {
  byte head, tag, got, old, chunk;
end_idle:
  do
  :: atomic {
      ON == (s != 1) && made[s] < LIMIT(s) && !leaving[s] ->
      nested = (s == 1 || nested);
      made[s]++;
      chunk = held[s]
    }
    if
    :: ON && (chunk == 0 || committed[chunk] == SLOTS) -> change()
    :: ON && chunk != 0 && committed[chunk] != SLOTS
    fi;
    if
    :: ON && chunk ->
      atomic { ON -> assert(place[chunk] == out && stream[chunk] == s);
        slot[chunk * SLOTS + committed[chunk]] = made[s];                  /* R4: the slot */
        committed[chunk]++; chunk = 0; nested = (s == 1 -> false : nested) } /* R5: committed */
    :: ON && !chunk -> /* ojo__lose */
      atomic { ON -> attempts[s]++; lost[s]++; nested = (s == 1 -> false : nested) }
    fi
  :: atomic { s != 1 && ON && made[s] == LIMIT(s) -> leaving[s] = true; leaving[1] = leaving[0]; break }
  od;
  old = held[s];                                                           /* ojo__leave: signals are blocked */
  held[s] = 0;
  if
  :: old -> hand_off(old, s)
  :: !old
  fi;
  old = (s == 0 -> held[1] : 0);
  if
  :: old -> held[1] = 0; hand_off(old, 1)
  :: !old
  fi;
  exited++
}

/* ojo__harvest: the events of chunk c below `end`. */
inline harvest(c, end) {
  whose = stream[c];
  assert(place[c] == out || place[c] == listed || place[c] == queued);
  assert(harvested[c] <= end && end <= committed[c]);
  assert(harvested[c] || !end || ordinal[c] + 1 == slot[c * SLOTS]); /* the first one's; recovery sorts by it */
  if
  :: harvested[c] == 0 && end && ordinal[c] > ordinal_harvested[whose] -> /* lost before the chunk was leased */
    lost_harvested[whose] = lost_harvested[whose] + ordinal[c] - ordinal_harvested[whose];
    ordinal_harvested[whose] = ordinal[c];
    assert(lost_harvested[whose] <= lost[whose])
  :: else
  fi;
  do
  :: harvested[c] < end ->
    assert(slot[c * SLOTS + harvested[c]] > last[whose]); /* once, and in order */
    last[whose] = slot[c * SLOTS + harvested[c]];
    slot[c * SLOTS + harvested[c]] = 0;
    harvested[c]++;
    taken[whose]++;
    ordinal_harvested[whose]++
  :: else -> break
  od;
  assert(ordinal_harvested[whose] == taken[whose] + lost_harvested[whose]);
  whose = 0
}

inline note() {
  c = 1;
  do
  :: c <= fresh_seen ->
    atomic { noted[c] = (STATE(lease[c]) == LEASED -> lease[c] : 0) }      /* G1: leased? */
    atomic { noted_committed[c] = (noted[c] -> committed[c] : 0);          /* G2: up to where */
      noted[c] = (noted_committed[c] > harvested[c] -> noted[c] : 0);
      noted_committed[c] = (noted[c] -> noted_committed[c] : 0);
      c++ }
  :: c > fresh_seen -> break
  od;
  c = 0; fresh_seen = 0
}

inline exchange() {
  atomic {
    newest = full_head;
    full_head = 0;                                                         /* G3: the full list is exchanged */
    n = 0;
    do
    :: newest ->                                                           /* G4: turned round; FULL */
      assert(place[newest] == listed);
      place[newest] = queued;
      i = n;
      do
      :: i -> queue[queued_count + i] = queue[queued_count + i - 1]; i--
      :: else -> break
      od;
      queue[queued_count] = newest;
      n++;
      c = newest;
      newest = link[c];
      link[c] = (n > 1 -> queue[queued_count + 1] : 0);
#ifndef DEFECT_full_not_set
      lease[c] = lease[c] - LEASED + FULL
#endif
    :: else -> break
    od;
    queued_count = queued_count + n;
    n = 0; c = 0; i = 0
  }
}

proctype Flusher() {
  byte c, i, n, newest, whose, head, tag, fresh_seen;
  byte queue[CHUNKS], queued_count, noted[CHUNKS + 1], noted_committed[CHUNKS + 1];
  byte ordinal_harvested[STREAMS], lost_harvested[STREAMS], last[STREAMS], taken[STREAMS]; /* put into files */
  bool all;
  do
  :: !all ->
    atomic { all = (exited == 2); fresh_seen = fresh }
#ifdef DEFECT_exchange_before_note
    exchange();
    atomic { fresh_seen = fresh };
    note();
#else
    note();
    exchange();
#endif
    atomic { /* nobody but us changes what is FULL, or a lease that is LEASED */
      i = 0;
      do
      :: i < queued_count -> harvest(queue[i], committed[queue[i]]); i++
      :: else -> break
      od;
      i = 1;
      do
      :: i <= CHUNKS ->
        if
        :: noted[i] && lease[i] == noted[i] -> harvest(i, noted_committed[i]) /* G5: still leased, else taken above */
        :: else
        fi;
        noted[i] = 0; noted_committed[i] = 0;
        i++
      :: else -> break
      od;
      i = 0
    }
    atomic { /* ojo__harvest_losses */
      do
      :: i < STREAMS ->
        if
        :: lost[i] > lost_harvested[i] ->
          ordinal_harvested[i] = ordinal_harvested[i] + lost[i] - lost_harvested[i];
          lost_harvested[i] = lost[i]
        :: else
        fi;
        i++
      :: else -> i = 0; break
      od
    }
    do /* ojo__free_taken */
    :: queued_count ->
      atomic {
        c = queue[0];
        i = 1;
        do
        :: i < queued_count -> queue[i - 1] = queue[i]; i++
        :: else -> break
        od;
        queued_count--;
        queue[queued_count] = 0;
        i = 0;
        assert(harvested[c] == committed[c]);
        lease[c] = lease[c] & 252;                                         /* F1: free */
        head = free_head; tag = free_tag;
        link[c] = head
      }
      do
      :: atomic { free_head == head && free_tag == tag ->                  /* F2: on the free list */
          free_head = c; assert(place[c] == queued); place[c] = freed; break }
      :: atomic { (free_head != head || free_tag != tag) -> head = free_head; tag = free_tag; link[c] = head }
      od;
      c = 0; head = 0; tag = 0
    :: !queued_count -> break
    od
  :: all -> break
  od;
  /* The end: nothing is anywhere else, nothing was lost or doubled. */
  atomic {
    i = 0;
    do
    :: i < STREAMS ->
      assert(taken[i] + lost[i] == made[i] && lost_harvested[i] == lost[i] && attempts[i] == made[i]);
      assert(ordinal_harvested[i] == made[i]);
      i++
    :: else -> break
    od;
    n = 0;
    c = free_head;
    do
    :: c -> assert(place[c] == freed && STATE(lease[c]) == FREE && n < fresh); n++; c = link[c]
    :: else -> break
    od;
    assert(n == fresh && !full_head)
  }
}

init { atomic { run Writer(0); run Writer(1); run Writer(2); run Flusher() } }
