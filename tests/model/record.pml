/* SPDX-License-Identifier: MIT
 *
 * record.pml - one thread's record, as in ojo__record, ojo__enter, ojo__put and ojo__change of ojo.h,
 * interrupted at every step by a handler that records, itself interrupted by another one; into two
 * tracers, which take the hot lease from each other; and a longjmp out of a handler at any step.
 *
 * Checked: a slot is written by its owner alone and whole before it is committed (so what a flusher sees
 * below `committed` is whole, whenever it looks); nothing is committed in a chunk that was handed off; every
 * record that was not cut short is kept once; a marker that a longjmp left keeps no level for ever.
 *
 * A step of the model is one access to memory that others see; it bears the name that ojo.h gives it ("model: R1").
 * -DDEFECT_name: the same defect as in tests/defects.sh; spin must then find an error.
 */
#define CONTROLS 3 /* the thread, a handler, a handler's handler */
#define LEVELS 3
#define SLOTS 2
#define CHUNKS 9   /* 0: none leased, always full */
#define PARTIAL 99
#define EVENTS0 2  /* records of each control */
#define EVENTS1 1
#define EVENTS2 1
#define IDS (EVENTS0 + EVENTS1 + EVENTS2)

/* Values of a marker: 0, a tracer's generation 1 or 2, or a frame's address: deeper frames are greater here. */
#define FRAME(p) (8 + (p))
#define IDLE(m, p) ((m) < 8 || (m) >= FRAME(p)) /* ojo__dead: at or above the marker's frame */

byte depth;             /* which control runs */
bool finished;
byte left[CONTROLS];    /* records to make */
bool recording[CONTROLS];  /* in a record */
bool unwind[CONTROLS];  /* a longjmp went over it */

byte hot_generation, hot_owner, hot_chunk;
byte busy[LEVELS];
byte lease[9];          /* by generation * 3 + level: ojo__context.lease */
byte committed[CHUNKS];
byte slot[CHUNKS * SLOTS];
bool handed[CHUNKS];
byte tracer[CHUNKS];     /* whose pool it is of */
byte fresh;
byte kept[IDS + 1]; /* commits; + 10: cut short by the longjmp */
bool tried[IDS + 1];

#define ON (depth == p)
#define LEASE lease[gen * 3 + level]
#define AT slot[chunk * SLOTS + at]

inline write_slot() { /* the slot in two halves, then the cursor */
#ifdef DEFECT_committed_early
  atomic { ON -> committed[chunk] = at + 1; kept[id]++; }
  atomic { ON -> AT = PARTIAL; assert(at >= committed[chunk]) }
#else
  atomic { ON -> assert(!handed[chunk] && at == committed[chunk] && tracer[chunk] == gen); AT = PARTIAL } /* R4: the slot */
  atomic { ON -> assert(AT == PARTIAL && at == committed[chunk]); AT = id }
#ifdef DEFECT_marker_dropped_early
  atomic { ON -> hot_generation = (level == 0 -> gen : hot_generation); }
#endif
  atomic { ON -> assert(AT == id && at == committed[chunk] && !handed[chunk]);
    committed[chunk] = at + 1; kept[id]++ }                                       /* R5: committed */
#endif
}

inline record_over() {
  recording[p] = false;
  if
  :: p == 0 && left[0] == 0 -> finished = true
  :: else
  fi;
  level = 0; chunk = 0; at = 0; old = 0; gen = 0; id = 0
}

proctype Control(byte p) {
  byte gen, id, level, chunk, at, old;
end_idle:
  atomic {
    depth == (p -> p - 1 : 0) && !unwind[0] && left[p] && !finished && !recording[p] ->
    depth = p;
    recording[p] = true;
    id = left[p] + (p == 0 -> 0 : (p == 1 -> EVENTS0 : EVENTS0 + EVENTS1));
    left[p]--;
    level = 0;
    tried[id] = 1;
  }
  {
    if
    :: ON -> gen = 1
    :: ON -> gen = 2
    fi;
    if
    :: ON && hot_generation == gen                                         /* R0: is the lease ours, idle? */
    :: ON && hot_generation != gen -> goto slow
    fi;
#ifdef DEFECT_marker_late
    atomic { ON -> chunk = hot_chunk }
    atomic { ON -> at = committed[chunk] }
#endif
    atomic { ON -> hot_generation = FRAME(p) }                             /* R1: the marker */
#ifndef DEFECT_owner_unchecked
    if
    :: ON && hot_owner == gen                                              /* R2: the owner, behind it */
    :: atomic { ON && hot_owner != gen -> hot_generation = 0 } goto slow
    fi;
#endif
#ifndef DEFECT_marker_late
    atomic { ON -> chunk = hot_chunk }                                     /* R3: the cursor */
    atomic { ON -> at = committed[chunk] }
#endif
    if
    :: ON && at == SLOTS -> goto put
    :: ON && at < SLOTS
    fi;
    write_slot();
    atomic { ON -> hot_generation = gen }                                  /* R6: idle again */
    goto ended;

slow: /* ojo__enter */
    do
    :: atomic { ON && level == 0 && !IDLE(hot_generation, p) -> level = 1 }  /* L1: the first idle level */
    :: atomic { ON && level > 0 && level < LEVELS && !IDLE(busy[level], p) -> level++ }
    :: ON && level == 0 && IDLE(hot_generation, p) -> break
    :: ON && level > 0 && level < LEVELS && IDLE(busy[level], p) -> break
    :: atomic { ON && level == LEVELS -> assert(false) } /* unreached: as many levels as controls */
    od;
    atomic { ON -> if :: level == 0 -> hot_generation = FRAME(p) :: else -> busy[level] = FRAME(p) fi } /* L2: its marker */
    if
    :: ON && level == 0 ->
      atomic { ON -> hot_owner = gen }                                     /* L3: the hot lease is this tracer's */
      atomic { ON -> hot_chunk = LEASE }
    :: ON && level > 0
    fi;
put: /* ojo__put */
    atomic { ON -> chunk = LEASE }
    atomic { ON -> at = committed[chunk] }
    if
    :: ON && at == SLOTS ->
      old = chunk;
      atomic { ON -> LEASE = 0 }                                           /* C1: the old chunk is let go of */
      if
      :: atomic { ON && level == 0 -> hot_chunk = 0 }
      :: ON && level > 0
      fi;
      if
      :: atomic { ON && old -> assert(!handed[old]); handed[old] = true }  /* C2: pushed on the full list */
      :: ON && !old
      fi;
      atomic { ON -> fresh++; assert(fresh < CHUNKS); chunk = fresh; tracer[chunk] = gen; at = 0 } /* C3: another; see pool.pml */
      atomic { ON -> LEASE = chunk }                                       /* C6: leased */
      if
      :: atomic { ON && level == 0 -> hot_chunk = chunk }
      :: ON && level > 0
      fi
    :: ON && at < SLOTS
    fi;
    write_slot();
    atomic { ON -> if :: level == 0 -> hot_generation = gen :: else -> busy[level] = 0 fi } /* L4: idle again */
ended:
    atomic { ON -> depth = (p -> p - 1 : 0); record_over() }
  } unless {
    atomic { unwind[p] -> unwind[p] = false; kept[id] = kept[id] + 10; record_over() }
  };
  goto end_idle
}

/* A longjmp from the running handler to the thread's own frames: every record below is cut short. */
proctype Longjmp() {
end_none:
  atomic {
    depth > 0 && !finished ->
    unwind[0] = recording[0];
    unwind[1] = recording[1];
    unwind[2] = recording[2];
    depth = 0
  }
}

init {
  byte i, c, n;
  bool seen[IDS + 1];
  d_step {
    committed[0] = SLOTS;
    left[0] = EVENTS0; left[1] = EVENTS1; left[2] = EVENTS2;
  }
  atomic { run Control(0); run Control(1); run Control(2); run Longjmp() }
  d_step {
    finished && depth == 0 && !unwind[1] && !unwind[2] && !recording[1] && !recording[2] ->
    c = 1;
    do
    :: c <= fresh ->
      i = 0;
      do
      :: i < committed[c] ->
        n = slot[c * SLOTS + i];
        assert(n > 0 && n != PARTIAL);
        assert(!seen[n]);
        seen[n] = true;
        i++
      :: else -> break
      od;
      c++
    :: else -> break
    od;
    i = 1;
    do
    :: i <= IDS ->
      assert(kept[i] % 10 == (seen[i] -> 1 : 0));
      assert(!tried[i] || kept[i] >= 10 || seen[i]);
      i++
    :: else -> break
    od;
    i = 0; c = 0; n = 0;
  }
}
