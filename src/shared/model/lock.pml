/* The lock word, its waiters, and the inheritance of a dead holder's lock: shared/lock.cpp, Participants::inherit,
 * Transaction, HeapGuard. Threads keep their slots here (slots.pml: slots that are given to others).
 *
 * One heap: `x`, `y` are journaled words under the lock, equal outside of a transaction; `derived` is not journaled and
 * equals `x` outside of the lock, so that whoever takes the lock from a dead one has to compute it anew (repair).
 *
 * check: three threads, two deaths, safety and no deadlock                 | -DTHREADS=3 -DDEATHS=2 -DNO_LTL
 * check: two threads, a death, everybody alive gets the lock and is done   | -DTHREADS=2 -DDEATHS=1 -DROUNDS=2 | fair done
 * check: three threads, a death, everybody alive gets the lock and is done | -DTHREADS=3 -DDEATHS=1 | fair done
 * check: a repair that ends with an error leaves the heap marked as torn    | -DTHREADS=3 -DDEATHS=1 -DMAY_FAIL -DNO_LTL
 * check: no death, no timeout: no wake-up is lost                          | -DTHREADS=3 -DDEATHS=0 -DNO_TIMEOUT -DNO_LTL
 *
 * mutant: NO_TIMEOUT    a holder that dies between the store of 0 and the wake takes the wake-up with it  | -DTHREADS=3 -DDEATHS=1 -DNO_LTL
 * mutant: NO_SLEEPERS   a waiter sleeps without saying so in the word      | -DTHREADS=2 -DDEATHS=0 -DNO_TIMEOUT -DNO_LTL
 * mutant: NO_KEEP_BIT   whoever has slept takes the lock without the sleepers' bit | -DTHREADS=3 -DDEATHS=0 -DNO_TIMEOUT -DNO_LTL
 * mutant: BLIND_SLEEP   the futex does not compare the word before it sleeps | -DTHREADS=2 -DDEATHS=0 -DNO_TIMEOUT -DNO_LTL
 * mutant: NO_CLAIM      two heirs undo one journal at the same time        | -DTHREADS=3 -DDEATHS=1 -DNO_LTL
 * mutant: NO_RECHECK    no second look at the word after the claim         | -DTHREADS=3 -DDEATHS=1 -DNO_LTL
 * mutant: SWAP_FIRST    the word is swapped before the journal is undone   | -DTHREADS=3 -DDEATHS=2 -DNO_LTL
 * mutant: NO_UNDO       the heir does not undo                             | -DTHREADS=2 -DDEATHS=1 -DNO_LTL
 * mutant: NO_STEAL      nobody takes a dead healer's claim over            | -DTHREADS=3 -DDEATHS=2 | fair done
 * mutant: COUNT_FIRST   the journal counts an entry before it is written   | -DTHREADS=2 -DDEATHS=1 -DROUNDS=2 -DNO_LTL
 * mutant: WORD_FIRST    a word changes before it is journaled              | -DTHREADS=2 -DDEATHS=1 -DNO_LTL
 * mutant: UNDO_COUNTS   the undoing counts down as it goes, before each word | -DTHREADS=3 -DDEATHS=2 -DNO_LTL
 * mutant: NO_TORN       a repair that fails leaves no mark                 | -DTHREADS=3 -DDEATHS=1 -DMAY_FAIL -DNO_LTL
 * mutant: ONLY_MARK     the heir repairs only what is marked as torn      | -DTHREADS=2 -DDEATHS=1 -DNO_LTL
 * mutant: NO_REPAIR     an inherited heap is used as it is                 | -DTHREADS=2 -DDEATHS=1 -DNO_LTL
 */
#ifndef ROUNDS
#define ROUNDS 1
#endif
#define SLEEPERS 8            /* the bit that says that somebody sleeps */
#define SLOT(w) ((w) & 7)
#define SIZE (THREADS + 1)

byte word;                    /* Lock::word_ */
byte healer[SIZE];            /* ThreadSlot::healer; tags are in slots.pml */
byte count[SIZE];             /* Journal::count; entry 0 is of x, entry 1 of y */
bit old_x[SIZE], old_y[SIZE]; /* what they held */
bit x, y;
byte derived;                 /* 2: half-done */
bit torn;                     /* HeapCore::torn */
#ifdef MAY_FAIL
bit may_fail = 1;             /* one repair may end with ETIMEDOUT */
#endif

bit dead[SIZE];
bit asleep[SIZE];             /* in futex_wait */
bit inside[SIZE];             /* ghost: holds the lock */
bit undoing[SIZE];            /* ghost: undoes somebody's journal */
bit ended[SIZE];
byte finished;

#if THREADS == 3
#define OTHERS(p) ((1 != me && !dead[1] && p[1]) || (2 != me && !dead[2] && p[2]) || (3 != me && !dead[3] && p[3]))
#define JOURNALS_OF_OTHERS ((1 != me && count[1] != 0) || (2 != me && count[2] != 0) || (3 != me && count[3] != 0))
#else
#define OTHERS(p) ((1 != me && !dead[1] && p[1]) || (2 != me && !dead[2] && p[2]))
#define JOURNALS_OF_OTHERS ((1 != me && count[1] != 0) || (2 != me && count[2] != 0))
#endif

/* Each atomic block below is one access to shared memory, with what the thread concludes from it by itself. */

inline write_back() {
  if
  :: left == 1 -> x = old_x[victim]
  :: left == 2 -> y = old_y[victim]
  fi;
  left--
}

/* shared::undo */
inline undo() {
  atomic {
    undoing[me] = 1;
    assert(dead[victim]);            /* never a live thread's journal */
    assert(!OTHERS(undoing));        /* one healer at a time */
    assert(!OTHERS(inside));         /* before anybody else works under the lock */
    left = count[victim]
  };
  do
#ifdef UNDO_COUNTS
  :: atomic { left > 0 -> count[victim] = left - 1 }; atomic { write_back() }
#else
  :: atomic { left > 0 -> write_back() }
#endif
  :: atomic { left == 0 -> count[victim] = 0; old_x[victim] = 0; old_y[victim] = 0; undoing[me] = 0; break }
  od
}

/* Transaction::set. */
inline set(n, variable, saved) {
#ifdef WORD_FIRST
  atomic { now_was = variable; variable = 1 - variable };
  atomic { saved = now_was; now_was = 0 };
  count[me] = n;
#else
#ifdef COUNT_FIRST
  count[me] = n;
  saved = variable;
#else
  saved = variable;
  count[me] = n;
#endif
  variable = 1 - variable;
#endif
}

/* The kernel wakes one of those who sleep, if any; it knows no dead ones. */
inline wake() {
  if
  :: asleep[1] && !dead[1] -> asleep[1] = 0
  :: asleep[2] && !dead[2] -> asleep[2] = 0
#if THREADS == 3
  :: asleep[3] && !dead[3] -> asleep[3] = 0
#endif
  :: else
  fi
}

/* What holds whenever somebody has taken the lock. */
inline enters() {
  inside[me] = 1;
  slept = 0;
  assert(!OTHERS(inside));           /* mutual exclusion */
  assert(!JOURNALS_OF_OTHERS)        /* all that others had in flight is undone */
}

proctype Thread(byte me) {
  byte seen, left, victim, round;
  bit slept, inherited, failed;
#ifdef WORD_FIRST
  bit now_was;
#endif
  {
again:
    do
    /* Lock::lock and lock_slow */
#ifdef NO_KEEP_BIT
    :: atomic { word == 0 -> word = me; enters(); break }
#else
    :: atomic { word == 0 -> word = me | (slept -> SLEEPERS : 0); enters(); break }
#endif
    :: atomic { word != 0 -> seen = word; assert(SLOT(seen) != me) };
       slept = 1;
       if
       :: atomic { dead[SLOT(seen)] ->          /* slot_dead */
            victim = SLOT(seen); seen = 0 };
          /* Participants::inherit; claim */
#ifndef NO_CLAIM
          if
          :: atomic { healer[victim] == 0 -> healer[victim] = me }
          :: atomic { healer[victim] != 0 -> seen = healer[victim] };
#ifdef NO_STEAL
             seen = 0; goto again
#else
             if
             :: atomic { dead[seen] -> skip }
             :: atomic { else -> seen = 0; goto again }
             fi;
             if
             :: atomic { healer[victim] == seen -> healer[victim] = me; seen = 0 }
             :: atomic { else -> seen = 0; goto again }
             fi
#endif
          fi;
#endif
#ifdef SWAP_FIRST
          atomic { if :: SLOT(word) == victim -> word = me | SLEEPERS; inherited = 1; inside[me] = 1 :: else fi };
          if :: inherited -> undo(); atomic { enters() } :: else fi;
#else
#ifndef NO_RECHECK
          if
          :: atomic { SLOT(word) == victim -> skip };
#endif
#ifndef NO_UNDO
             undo();
#endif
             atomic { if :: SLOT(word) == victim -> word = me | SLEEPERS; inherited = 1; enters() :: else fi }
#ifndef NO_RECHECK
          :: atomic { else -> skip }
          fi;
#endif
#endif
          ;
          atomic {
#ifndef NO_CLAIM
            healer[victim] = 0;
#endif
            victim = 0;
            if :: inherited -> break :: else fi
          }
       :: atomic { !dead[SLOT(seen)] ->
#ifdef NO_SLEEPERS
            if :: word == seen -> asleep[me] = 1 :: else fi; seen = 0 };
#else
            if :: word == seen -> word = seen | SLEEPERS; seen = seen | SLEEPERS :: else -> seen = 0; goto again fi };
          atomic { if
#ifdef BLIND_SLEEP
            :: true
#else
            :: word == seen                    /* the futex compares and sleeps in one go */
#endif
               -> asleep[me] = 1
            :: else
            fi; seen = 0 };
#endif
          if
          :: !asleep[me]
#ifndef NO_TIMEOUT
          :: atomic { asleep[me] -> asleep[me] = 0 }
#endif
          fi
       fi
    od;
    /* HeapGuard and Core::repair_heap_locked */
#ifndef NO_REPAIR
    if
#ifdef ONLY_MARK
    :: atomic { torn ->
#else
    :: atomic { inherited || torn ->
#endif
#ifndef NO_TORN
         torn = 1
#endif
       };
       if
#ifdef MAY_FAIL
       :: atomic { may_fail -> may_fail = 0; failed = 1 }
#endif
       :: derived = 2;
          derived = x;
          torn = 0
       fi
    :: atomic { else -> skip }
    fi;
#endif
    if
    :: atomic { !failed ->
         assert(!torn && x == y && derived == x);  /* nobody works on a torn heap */
         derived = 2 };
       set(1, x, old_x[me]);
       set(2, y, old_y[me]);
       atomic { count[me] = 0; old_x[me] = 0; old_y[me] = 0 };  /* commit */
       derived = x
    :: atomic { failed -> failed = 0 }
    fi;
    atomic { seen = word; inside[me] = 0; inherited = 0; word = 0 };  /* unlock */
    atomic { if :: seen & SLEEPERS -> wake() :: else fi; seen = 0; round++; if :: round < ROUNDS -> goto again :: else fi }
  } unless { dead[me] };
  /* The locals of who is done, or dead, mean nothing any more. */
  atomic {
    seen = 0; left = 0; victim = 0; round = 0; slept = 0; inherited = 0; failed = 0;
    inside[me] = 0; undoing[me] = 0; asleep[me] = 0; ended[me] = 1;
    finished++
  }
}

proctype Reaper() {
  byte deaths;
  do
  :: atomic { deaths < DEATHS ->
     if
     :: !dead[1] && !ended[1] -> dead[1] = 1
     :: !dead[2] && !ended[2] -> dead[2] = 1
#if THREADS == 3
     :: !dead[3] && !ended[3] -> dead[3] = 1
#endif
     :: else
     fi;
     deaths++ }
  :: break
  od
}

init {
  atomic {
    run Thread(1);
    run Thread(2);
#if THREADS == 3
    run Thread(3);
#endif
    run Reaper()
  }
}

#ifndef NO_LTL
ltl done { <> (finished == THREADS) }
#endif
