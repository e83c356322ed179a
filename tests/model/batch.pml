/* SPDX-License-Identifier: MIT
 *
 * batch.pml - a batch's life and a crash at any step of it; as in ojo__batch_begin, ojo__harvest,
 * ojo__batch_end, ojo__roll_back, ojo__free_taken, ojo__recover_link, ojo__recover_list and
 * ojo__recover_write of ojo.h. Two threads record, one of them changes chunks; a
 * flusher writes batches, of which each step of one may fail; SIGKILL comes at any step. Then two
 * recoverers run at once, are killed at any step, fail, and are started again. What lies in the pool and on
 * the disk survives a kill, nothing else does. (Chunks go round as in pool.pml, here in one step.)
 *
 * Checked: at the end, with or without a kill, each committed event is in output/ exactly once and
 * the files' batch numbers have no gap; nothing is left in staging/; no recoverer touches a live tracer's
 * pool, or a pool that another one recovers.
 *
 * -DDEFECT_name: the same defect as in tests/defects.sh; spin must then find an error.
 */
#define EVENTS0 3      /* of the thread that changes chunks, one of them at the start; the other records one */
#ifndef FAILURES
#define FAILURES 1     /* of calls of the flusher or of a recoverer */
#define KILLS 1        /* of recoverers */
#endif
#define SLOTS 2
#define UNITS 3        /* what is taken: chunks 0 and 1 of the first thread, 2 of the second */
#define FREE 0
#define LEASED 1
#define FULL 2

/* The pool. An event is a bit of a byte. */
byte lease[UNITS], committed[UNITS], harvested[UNITS], published[UNITS], batch[UNITS];
byte slot[UNITS * SLOTS];
#ifdef DEFECT_batch_from_0
byte batch_published = 1; /* the first batch's number, as if both counted from 0 */
#else
byte batch_published;
#endif
byte open_batch, batches, last_number = 255;
byte staging_name;            /* of a file, as a number; 0: none yet */
bool magic = true;
bool handed[UNITS];           /* on the full list: see pool.pml */
/* The disk: files in staging/ by name, what is in output/, the link and the pool's file. */
byte staging;                 /* the name of the file there; 0: none */
byte written;                 /* the events in it */
bool complete;                /* its header is */
byte header_batch;            /* the batch number in it */
bool linked;                  /* it has a second link, in output/ */
byte output, files;           /* events in output/, files */
bool link = true, pool = true;

byte names, made;             /* file names given; events committed */
byte failures, kills;
bool dead, closed;            /* the tracer: killed, closed */
byte lock = 1;                /* on the pool: 0: nobody's, 1: the tracer's, 2 and 3: a recoverer's */
bool killed[4];
byte writing = 2;             /* threads that still record */
byte ended;                   /* of the tracer's threads; with a kill they all do at once */
#define ENDED (ended == 3 || (me == 3 && !magic))

#define FAILS atomic { failures < FAILURES -> failures++; ok = false }
#define CREATED (staging == staging_name && staging)

/* To the next unit that `needed` holds for; UNITS: there is none. */
inline next(needed) {
  do
  :: u < UNITS && !(needed) -> u++
  :: else -> break
  od
}

/* ojo__batch_begin */
inline batch_begin() {
  atomic { number = open_batch + 1; names++; staging_name = names; buffer = 0; ok = true } /* B1: its file's name */
  if
  :: atomic { assert(!staging); staging = staging_name; written = 0; complete = false; linked = false }; /* B2: create staging/b */
    open_batch = number                                                    /* B3: open_batch */
  :: FAILS
  fi
}

/* ojo__harvest; a level's losses go by the same three steps, in ojo__level_enter. A unit is taken once into a batch. */
inline take(end) {
#ifdef DEFECT_harvested_early
  atomic { i = harvested[u]; harvested[u] = end }
  published[u] = i; /* what it held before: the order alone is wrong */
  batch[u] = number;
#else
#ifdef DEFECT_batch_before_published
  batch[u] = number;
  published[u] = harvested[u];
#else
  published[u] = harvested[u];                                             /* T1: published */
  batch[u] = number;                                                       /* T2: batch */
#endif
#endif
  atomic {
#ifndef DEFECT_harvested_early
    i = harvested[u];
#endif
    do
    :: i < end ->
      assert(slot[u * SLOTS + i] && !(buffer & slot[u * SLOTS + i]));
      buffer = buffer | slot[u * SLOTS + i];
      i++
    :: else -> i = 0; break
    od;
    harvested[u] = end;                                                    /* T3: harvested */
    u++
  }
}

inline put_out() {
#ifndef DEFECT_rename_early
  assert(complete && !buffer && header_batch == files);
#endif
  assert(!(output & written));
  output = output | written;
  files++
}
inline free_taken() {
  i = 0;
  do
  :: i < UNITS ->
    if
    :: lease[i] == FULL && harvested[i] == committed[i] -> lease[i] = FREE; handed[i] = false /* F1: free */
    :: else
    fi;
    i++
  :: else -> i = 0; break
  od
}

/* ojo__batch_end, and ojo__roll_back if anything failed. */
inline batch_end() {
  if
  :: atomic { ok -> last_number = batches }                                /* E1: the number it will bear */
#ifdef DEFECT_rename_early
    atomic { put_out(); staging = 0 }
    atomic { output = output | buffer; buffer = 0 }
#else
    if
    :: atomic { written = written | buffer; buffer = 0 }                   /* E2: the events */
      if
      :: atomic { complete = true; header_batch = batches }                /* E3: the header */
        if
        :: atomic { CREATED -> put_out(); staging = 0 }                    /* E4: rename */
        :: atomic { CREATED -> put_out(); linked = true } staging = 0      /* E4: link and unlink, without renameat2 */
        :: FAILS
        fi
      :: FAILS
      fi
    :: FAILS
    fi
#endif
  :: !ok
  fi;
  if
  :: atomic { ok -> batch_published = number }                             /* E5: batch_published */
    atomic { batches++; number = 0 }                                       /* E6: the next file's number */
  :: atomic { !ok ->
#ifdef DEFECT_unlink_early
      staging = (open_batch == number && CREATED -> 0 : staging);
#endif
      u = 0; next(lease[u] != FREE && batch[u] == number) }
    do
    :: atomic { u < UNITS -> harvested[u] = published[u]; u++;             /* X1: roll back */
        next(lease[u] != FREE && batch[u] == number) }
    :: atomic { u == UNITS -> last_number = batches - 1; u = 0; break }    /* X2: no file bears the number */
    od;
    atomic {
#ifndef DEFECT_unlink_early
      staging = (open_batch == number && CREATED -> 0 : staging);          /* X3: unlink staging/b */
#endif
      buffer = 0; number = 0
    }
  fi
}

proctype Changer() { /* the first thread */
  byte chunk, event = 1;
  {
    do
    :: event < EVENTS0 ->
      if
      :: committed[chunk] < SLOTS
      :: committed[chunk] == SLOTS ->
        atomic { handed[chunk] = true; chunk = 1 - chunk }                 /* C2: on the full list */
        atomic { lease[chunk] == FREE -> committed[chunk] = 0; published[chunk] = 0; harvested[chunk] = 0; batch[chunk] = 0 } /* C4 */
        lease[chunk] = LEASED                                              /* C5: leased */
      fi;
      atomic {
        slot[chunk * SLOTS + committed[chunk]] = 1 << event;
        committed[chunk]++;                                                /* R5: committed */
        made = made | 1 << event;
        event++
      }
    :: event == EVENTS0 -> break
    od;
    atomic { handed[chunk] = true; writing--; chunk = 0; event = 0; ended++ } /* the thread ends */
  } unless { atomic { dead -> chunk = 0; event = 0; ended++ } }
}

proctype Other() { /* the second thread */
  {
    atomic { slot[2 * SLOTS] = 1 << EVENTS0; committed[2] = 1; made = made | 1 << EVENTS0; writing--; ended++ }
  } unless { atomic { dead -> ended++ } }
}

proctype Flusher() {
  byte number, buffer, i, u, end[UNITS];
  bool ok, all, any;
  {
    do
    :: atomic { /* ojo__gather: see pool.pml */
        all = writing == 0;
        any = false;
        i = 0;
        do
        :: i < UNITS ->
          end[i] = (lease[i] != FREE && committed[i] > harvested[i] -> committed[i] : 0);
          any = any || end[i];
          lease[i] = (lease[i] == LEASED && handed[i] -> FULL : lease[i]);
          i++
        :: else -> i = 0; break
        od
      }
      if
      :: any ->
        batch_begin();
        atomic { u = 0; next(end[u]); u = (ok -> u : UNITS) }
        do
        :: u < UNITS ->
          take(end[u]);
          atomic {
            next(end[u]);
            if /* a full batch is followed by another one */
            :: true
            :: u = UNITS
            fi
          }
        :: atomic { u == UNITS -> end[0] = 0; end[1] = 0; end[2] = 0; u = 0; any = false; all = false; break }
        od;
#ifdef DEFECT_freed_early
        atomic { free_taken() }
#endif
        batch_end();
        atomic {
          if
          :: ok -> free_taken(); ok = false
          :: else
          fi
        }
      :: atomic { !any -> free_taken(); if :: all -> break :: else fi }
      fi
    od;
    magic = false;                                                         /* D1: ojo_close: the mark */
    link = false;                                                          /* D2: the link */
    pool = false;                                                          /* D3: the pool */
    atomic { lock = 0; closed = true; ended++ }
  } unless {
    atomic { dead ->
      number = 0; buffer = 0; i = 0; u = 0; ok = false; all = false; any = false;
      end[0] = 0; end[1] = 0; end[2] = 0;
      ended++
    }
  }
}

#define HOLDS (lease[u] != FREE && harvested[u] < committed[u])
#define TAKEN (lease[u] != FREE && batch[u] >= open_batch && !done)

/* ojo__recover_link */
proctype Recoverer(byte me) {
  byte number, buffer, i, u;
  bool ok, done;
end_start:
  {
    (ended == 3 || (me == 3 && !magic)) && link && pool;                   /* V1: the link is read, the pool opened */
#ifdef DEFECT_no_lock
    dead;
#else
    atomic { lock == 0 -> lock = me }                                      /* V2: its lock; another's: tried again */
    if
    :: atomic { !pool -> lock = 0 } goto end_start                         /* V3: no name left: somebody else has */
    :: atomic { pool && !magic -> assert(lock == me && (dead || closed)) } goto gone /* V4: dropped by its owner */
    :: atomic { pool && magic -> assert(lock == me && dead && !closed) }
    fi;
#endif
    atomic {
      done = open_batch <= batch_published || !CREATED || linked;          /* V5: was the open batch renamed? */
      u = 0; next(TAKEN)
    }
#ifdef DEFECT_recovery_unlinks_early
    staging = (CREATED -> 0 : staging);
#endif
    do
    :: atomic { u < UNITS -> harvested[u] = published[u]; u++; next(TAKEN) } /* V6: roll back */
    :: u == UNITS -> break
    od;
    if
    :: atomic { done && open_batch -> batches = last_number + 1 }          /* V7: noted, before the name goes */
#ifndef DEFECT_done_not_noted
      batch_published = open_batch
#endif
    :: atomic { !(done && open_batch) -> last_number = batches - 1 }
    fi;
    atomic {
#ifndef DEFECT_recovery_unlinks_early
      staging = (CREATED -> 0 : staging);                                  /* V8: unlink staging/b */
#endif
      done = false; ok = true;
      u = 0; next(HOLDS)
    }
    if
    :: u < UNITS -> /* the last batch, by the same rule */
      batch_begin();
      atomic { u = 0; next(HOLDS); u = (ok -> u : UNITS) }
      do
      :: u < UNITS -> take(committed[u]); next(HOLDS)
      :: atomic { u == UNITS -> u = 0; break }
      od;
      batch_end()
    :: u == UNITS
    fi;
    if
    :: ok ->
gone:
      magic = false;                                                       /* D1: the mark */
      link = false;                                                        /* D2: the link */
      pool = false                                                         /* D3: the pool */
    :: !ok
    fi;
    atomic { lock = (lock == me -> 0 : lock); number = 0; buffer = 0; i = 0; u = 0; ok = false; done = false; goto end_start }
  } unless {
    atomic { killed[me] -> killed[me] = false; number = 0; buffer = 0; i = 0; u = 0; ok = false; done = false; goto end_start }
  }
}

proctype Killer() { /* SIGKILL, of the tracer once, and of recoverers; a lock goes with its process */
end_killer:
  do
  :: atomic { !dead && !closed -> dead = true; lock = 0 }
  :: atomic { kills < KILLS && lock > 1 -> kills++; killed[lock] = true; lock = 0 }
  od
}

init {
  atomic {
    lease[0] = LEASED; lease[2] = LEASED;
    slot[0] = 1; committed[0] = 1; made = 1; /* one event is there */
    run Changer(); run Other(); run Flusher(); run Recoverer(2); run Recoverer(3); run Killer()
  }
  atomic {
    ended == 3 && !link && lock == 0 ->
    assert(output == made);   /* each once: see put_out */
    assert(!staging);
    assert(!closed || made == (2 << EVENTS0) - 1)
  }
}
