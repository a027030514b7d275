/* Thread slots that pass from hand to hand while others heal what dead ones left in them: Participants::claim, unclaim,
 * heal, inherit, free_slot, release_cleanings_of; DomainState::claim_slot, leave_thread, clean.
 *
 * Processes 1 .. N, one thread each; each takes a slot, does what its first part says, leaves the slot, and does the same
 * with its second part (0: no such part; 1: takes the lock, changes the word under its journal, lets go; 2: cleans the
 * dead). Y and Z are the two that may die, at any step. The election is one step here (cleaner.pml has its details), and
 * so is the futex (lock.pml). Numbers of participants are not used again: to have read one before it died and to ask
 * later whether it is dead is the hard case. A process that has nothing to do is not started: its end alone would multiply
 * the states of the others.
 *
 * check: three heirs, two deaths                        | -DN=3 -DA1=1 -DA2=1 -DA3=1 -DY=1 -DZ=2 -DNO_LTL
 * check: two heirs and a cleaner, two deaths            | -DN=3 -DA1=1 -DA2=1 -DA3=2 -DY=1 -DZ=2 -DNO_LTL
 * check: two heirs and a cleaner that comes back, one death | -DN=3 -DA1=1 -DA2=1 -DA3=2 -DB3=1 -DY=1 -DZ=1 -DNO_LTL
 * check: an heir, a cleaner that dies, another cleans   | -DN=3 -DA1=1 -DA2=2 -DA3=2 -DY=1 -DZ=2 -DNO_LTL
 * check: a healer that dies with its claim, two cleaners, one comes back | -DN=4 -DA1=1 -DA2=1 -DA3=2 -DA4=2 -DB4=1 -DY=1 -DZ=2 -DY_HOLDS -DZ_CLAIMS -DTURN3=1 -DTURN4=2 -DNO_LTL
 * check: a newcomer that dies when it has left, a cleaner comes back | -DN=4 -DA1=1 -DA2=1 -DA3=1 -DA4=2 -DB4=1 -DY=1 -DZ=3 -DY_HOLDS -DZ_AFTER -DTURN3=1 -DTURN4=1 -DNO_LTL | part
 * check: everybody alive is done in the end             | -DN=3 -DA1=1 -DA2=1 -DA3=1 -DY=1 -DZ=1 | fair done
 *
 * mutant: NOT_MINE     a claim that an earlier owner of my slot left in it is not mine: leaving waits for ever | -DN=2 -DA1=1 -DA2=1 -DY=1 -DZ=1 -DNO_LTL
 * mutant: NO_BREAK     the cleaner frees the slot and leaves the lock      | -DN=2 -DA1=1 -DA2=2 -DB2=1 -DY=1 -DZ=1 -DNO_LTL
 * mutant: NO_HEAL      the cleaner frees the slot without undoing          | -DN=2 -DA1=1 -DA2=2 -DB2=1 -DY=1 -DZ=1 -DNO_LTL
 * mutant: NO_DEAD      the heir does not ask again whether the slot's thread is dead | -DN=3 -DA1=1 -DA2=1 -DA3=1 -DY=1 -DZ=2 -DNO_LTL
 * mutant: BREAK_FIRST  the cleaner opens the lock before it undoes         | -DN=3 -DA1=1 -DA2=1 -DA3=2 -DY=1 -DZ=1 -DNO_LTL
 * mutant: NO_RELEASE   a dead healer's claims stay when its slot is freed  | -DN=3 -DA1=1 -DA2=1 -DA3=2 -DY=1 -DZ=2 -DNO_LTL
 * mutant: FREE_UNCLAIMED the cleaner frees a slot without the claim        | -DN=3 -DA1=1 -DA2=1 -DA3=2 -DB3=1 -DY=1 -DZ=1 -DNO_LTL
 * mutant: BLIND_UNCLAIM letting a claim go stores, also where another has taken it over since | -DN=3 -DA1=1 -DA2=1 -DA3=2 -DB3=1 -DY=1 -DZ=1 -DNO_LTL
 * mutant: NO_TAG       a claim names the slot alone: a newcomer in a dead healer's slot loses its claim to one who looked before | -DN=4 -DA1=1 -DA2=1 -DA3=2 -DA4=2 -DB4=1 -DY=1 -DZ=2 -DY_HOLDS -DZ_CLAIMS -DTURN3=1 -DTURN4=2 -DNO_LTL
 * mutant: TAG_LOST     letting a claim go sets its count back           | -DN=4 -DA1=1 -DA2=1 -DA3=2 -DA4=2 -DB4=1 -DY=1 -DZ=2 -DY_HOLDS -DZ_CLAIMS -DTURN3=1 -DTURN4=2 -DNO_LTL
 * mutant: LEAVE_FREELY a thread leaves its slot without the claim       | -DN=4 -DA1=1 -DA2=1 -DA3=1 -DA4=2 -DB4=1 -DY=1 -DZ=3 -DY_HOLDS -DZ_AFTER -DTURN3=1 -DTURN4=1 -DNO_LTL
 *
 * No mutant: that an heir looks at the word again once it has the claim. What it does there it does to a dead thread's slot under
 * the claim, and the swap that follows asks for the same word: without the look it undoes earlier what the cleaner would.
 */
#ifndef B2
#define B2 0
#endif
#if N < 3
#define A3 0
#endif
#if N < 4
#define A4 0
#endif
#ifndef B3
#define B3 0
#endif
#ifndef B4
#define B4 0
#endif
/* TURN3, TURN4: that thread comes when the one of this number has died, and if it is spared not at all. */
#ifndef TURN3
#define TURN3 0
#endif
#ifndef TURN4
#define TURN4 0
#endif
#define SLOTS N            /* as many are enough: a thread, dead or alive, has at most one */
#define WHO(h) ((h) & 7)
#define COUNT(h) ((h) >> 3)

byte word;             /* the lock: the slot that holds it */
bit v;                 /* the word under the lock; 0 outside of it */
byte owner[5];         /* ThreadSlot::owner: the participant */
byte healer[5];        /* ThreadSlot::healer: count << 3 | slot */
bit journal[5];        /* ThreadSlot::journal: whether it has an entry; what `v` held is always 0 */

bit dead[5];
bit inside[5];         /* ghost: holds the lock */
byte cleaner[5];       /* who cleans the participant */
bit buried[5];
bit ended[5];
bit spared[5];         /* Y, Z: the reaper has let it live */
byte finished;

#define OTHER(i) (i != me && !dead[i] && inside[i])
#define OTHERS_INSIDE (OTHER(1) || OTHER(2) || OTHER(3) || OTHER(4))
#define DEAD_SLOT(s) (dead[owner[s]])   /* dead[0] is 0 */

/* Whether the claim of slot s can be taken now: what claim() finds out in two steps, for those who wait. */
#ifdef NO_STEAL
#define CLAIMABLE(s) (WHO(healer[s]) == 0)
#elif defined(NOT_MINE)
#define CLAIMABLE(s) (WHO(healer[s]) == 0 || (WHO(healer[s]) != by && DEAD_SLOT(WHO(healer[s]))))
#else
#define CLAIMABLE(s) (WHO(healer[s]) == 0 || WHO(healer[s]) == by || DEAD_SLOT(WHO(healer[s])))
#endif

#ifdef NO_TAG
#define CLAIM(h) (by)
#else
#define CLAIM(h) (((COUNT(h) + 1) << 3) | by)
#endif
#ifdef TAG_LOST
#define UNCLAIM(h) 0
#else
#define UNCLAIM(h) (COUNT(h) << 3)
#endif

/* Participants::claim: got */
inline claim(s) {
  atomic { h = healer[s]; got = 0; q = owner[WHO(h)] };   /* of_slot ... */
  atomic {                                                /* ... dead */
    if
    :: WHO(h) == 0
#ifdef NOT_MINE
    :: WHO(h) != 0 && WHO(h) != by && dead[q]
    :: else -> h = 255
#elif defined(NO_STEAL)
    :: else -> h = 255
#else
    :: WHO(h) == by && by != 0
    :: WHO(h) != by && WHO(h) != 0 && dead[q]
    :: else -> h = 255                                    /* no claim has this value: the swap below fails */
#endif
    fi; q = 0 };
  atomic { if :: healer[s] == h -> healer[s] = CLAIM(h); got = 1; k = CLAIM(h) :: else fi; h = 0 }
}
/* Participants::unclaim: what this thread has claimed, nobody else's claim */
inline unclaim(s) {
#ifdef BLIND_UNCLAIM
  healer[s] = UNCLAIM(healer[s]);
#else
  if :: healer[s] == k -> healer[s] = UNCLAIM(k) :: else fi;
#endif
  k = 0; got = 0
}
inline claim_or_wait(s) {
  do
  :: atomic { CLAIMABLE(s) -> skip };
     claim(s);
     if :: atomic { got -> break } :: atomic { !got -> skip } fi
  od;
}

/* shared::undo */
inline undo(s) {
  if
  :: atomic { journal[s] ->
       assert(dead[owner[s]]);    /* never a living thread's journal */
       assert(!OTHERS_INSIDE);    /* before anybody else works under the lock */
       v = 0 };
     atomic { assert(journal[s]); /* once */
       assert(dead[owner[s]]); assert(!OTHERS_INSIDE); journal[s] = 0 }
  :: atomic { !journal[s] -> skip }
  fi
}

inline enters() {
  inside[me] = 1;
  assert(!OTHERS_INSIDE);         /* mutual exclusion */
  assert(v == 0);                 /* what others had in flight is undone */
  assert(!journal[1] && !journal[2] && !journal[3] && !journal[4])
}

inline work() {
  do
  :: atomic { word == 0 -> word = by; enters(); break }
  :: atomic { word != 0 -> x = word; q = owner[x]; assert(x != by) };
     if
     :: atomic { dead[q] -> q = 0 };
        /* Participants::inherit */
        claim(x);
        if
        :: atomic { got ->
             got = 0;
             if :: word == x -> q = owner[x] :: else -> q = 255 fi
           };
           if
#ifdef NO_DEAD
           :: atomic { q != 255 -> q = 0 };
#else
           :: atomic { q != 255 && dead[q] -> q = 0 };
#endif
              undo(x);
              atomic { if :: word == x -> word = by; got = 1; enters() :: else fi }
           :: atomic { else -> q = 0 }
           fi;
           atomic { q = got; unclaim(x); x = 0; if :: q -> q = 0; break :: else fi }
        :: atomic { !got -> x = 0 }
        fi
     :: atomic { !dead[q] -> q = 0 };
        atomic { word != x || DEAD_SLOT(x) -> x = 0 }
     fi
  od;
  journal[by] = 1;
  v = 1;
  v = 0;
  journal[by] = 0;
  atomic { inside[me] = 0; word = 0 }
}

/* DomainState::recover and clean */
inline recover() {
  d = 1;
  do
  :: atomic { d <= N && dead[d] && !buried[d] && (cleaner[d] == 0 || dead[cleaner[d]]) -> cleaner[d] = me; x = 1 };
#ifndef NO_RELEASE
     do
     :: atomic { x <= SLOTS && WHO(healer[x]) != 0 && owner[WHO(healer[x])] == d -> h = healer[x] };
        atomic { if :: healer[x] == h -> healer[x] = UNCLAIM(h) :: else fi; h = 0; x++ }
     :: atomic { x <= SLOTS && !(WHO(healer[x]) != 0 && owner[WHO(healer[x])] == d) -> x++ }
     :: atomic { x > SLOTS -> break }
     od;
#endif
     x = 1;
     do
     :: atomic { x <= SLOTS && owner[x] != d -> x++ }
     :: atomic { x <= SLOTS && owner[x] == d -> skip };
#ifdef BREAK_FIRST
        atomic { if :: word == x -> word = 0 :: else fi };
#endif
#ifndef NO_HEAL
        claim_or_wait(x);
        undo(x);                            /* heal */
        atomic { unclaim(x) };
#endif
#ifndef NO_BREAK
        atomic { if :: word == x -> word = 0 :: else fi };
#endif
        x++
     :: atomic { x > SLOTS -> x = 1; break }
     od;
     do
     :: atomic { x <= SLOTS && owner[x] != d -> x++ }
     :: atomic { x <= SLOTS && owner[x] == d -> skip };
        free_slot(x);
        x++
     :: atomic { x > SLOTS -> x = 0; break }
     od;
     atomic { buried[d] = 1; d++ }
  :: atomic { d <= N && !(dead[d] && !buried[d] && (cleaner[d] == 0 || dead[cleaner[d]])) -> d++ }
  :: atomic { d > N -> d = 0; break }
  od
}

inline free_slot(s) {
#ifndef FREE_UNCLAIMED
  claim_or_wait(s);
#endif
  atomic {
    assert(word != s && !journal[s]);       /* no slot is reused while a lock names it */
    owner[s] = 0 };
#ifndef FREE_UNCLAIMED
  atomic { unclaim(s) }
#else
  skip
#endif
}

proctype Thread(byte me, first, second, turn) {
  byte by, x, q, h, k, d, task;
  bit got;
  {
    task = first;
    if
    :: atomic { turn == 0 || dead[turn] -> turn = 0 }
    :: atomic { turn != 0 && spared[turn] -> turn = 0; task = 0; second = 0 }
    fi;
    do
    :: atomic { task != 0 ->                /* claim_slot */
         by = 1;
         do
         :: owner[by] == 0 -> break
         :: else -> by++
         od;
         assert(by <= SLOTS && word != by && !journal[by]);
         owner[by] = me };
       if
       :: atomic { task == 1 -> skip }; work()
       :: atomic { task == 2 -> skip }; recover()
       fi;
       /* leave_thread */
#ifdef LEAVE_FREELY
       atomic { assert(word != by && !journal[by]); owner[by] = 0 };
#else
       claim_or_wait(by);
       atomic { assert(word != by && !journal[by]); owner[by] = 0 };
       atomic { unclaim(by) };
#endif
       atomic { by = 0; task = second; second = 0 }
    :: atomic { task == 0 -> break }
    od
  } unless { dead[me] };
  atomic { by = 0; x = 0; q = 0; h = 0; k = 0; d = 0; task = 0; first = 0; second = 0; turn = 0; got = 0; inside[me] = 0; ended[me] = 1; finished++ }
}

/* Where Y and Z may die, if not everywhere: a search that is too big for every death is small for those that matter.
 * ..._AFTER: without a slot, having left one or not come yet. ..._HOLDS: under the lock, its journal begun. ..._CLAIMS: with a
 * claim. */
#define HAS_NO_SLOT(i) (owner[1] != i && owner[2] != i && owner[3] != i && owner[4] != i)
#define HOLDS(i) (inside[i] && (journal[1] || journal[2] || journal[3] || journal[4]))
#define CLAIMS_IN(i, s) (WHO(healer[s]) != 0 && owner[WHO(healer[s])] == i)
#define CLAIMS(i) (CLAIMS_IN(i, 1) || CLAIMS_IN(i, 2) || CLAIMS_IN(i, 3) || CLAIMS_IN(i, 4))
#ifdef Y_AFTER
#define WHEN_Y HAS_NO_SLOT(Y)
#elif defined(Y_HOLDS)
#define WHEN_Y HOLDS(Y)
#else
#define WHEN_Y true
#endif
#ifdef Z_AFTER
#define WHEN_Z HAS_NO_SLOT(Z)
#elif defined(Z_CLAIMS)
#define WHEN_Z CLAIMS(Z)
#else
#define WHEN_Z true
#endif

proctype Reaper() {
  if
  :: atomic { !ended[Y] && (WHEN_Y) -> dead[Y] = 1 }
  :: spared[Y] = 1
  fi;
  if
  :: atomic { !ended[Z] && (WHEN_Z) -> dead[Z] = 1 }
  :: spared[Z] = 1
  fi
}

init {
  atomic {
    run Thread(1, A1, 0, 0); run Thread(2, A2, B2, 0);
#if N > 2
    run Thread(3, A3, B3, TURN3);
#endif
#if N > 3
    run Thread(4, A4, B4, TURN4);
#endif
    run Reaper()
  }
}

#ifndef NO_LTL
ltl done { <> (finished == N) }
#endif
