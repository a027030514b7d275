/* One object is freed by its slab's keeper and by two other threads at once, while the keeper makes the shared slab its own again and
 * the others revoke that: Core::free_fast, free_shared, free_small, rebias, revoke. Exactly one of the three must succeed.
 *
 * The keeper's stores go through a buffer, in order (TSO); the others' compare-and-swaps are whole. The lock is one step.
 *
 * check: of three frees one succeeds | -DNO_LTL
 *
 * mutant: NO_SECOND_LOOK who has swapped does not look at the slab's owner again | -DNO_LTL
 * mutant: NO_LOOK_AT_STATE who has swapped does not look whether the keeper has freed since, and the bias was revoked again | -DNO_LTL
 * mutant: NO_FENCE       the keeper frees before the others can see that the slab is its own | -DNO_LTL
 * mutant: NO_GIVING_BACK who has swapped in vain leaves the object cached | -DNO_LTL
 * mutant: NO_PAUSE       the bias is revoked without stopping the keeper | -DNO_LTL
 */
#define HELD 9

mtype = { STATE, HOME, BUSY, WORD };
chan buffer = [6] of { mtype, byte };

byte state = HELD;  /* or who has cached it */
byte home;          /* the owner, 0: shared */
byte word;          /* the heap's lock */
bit busy, asked;    /* of the keeper's cache */
bit own;            /* the keeper's view of home while its store is in the buffer */
byte succeeded, finished;

inline success() { atomic { succeeded++; assert(succeeded <= 1) } }

proctype Keeper() {
  byte seen;
  if
  :: /* rebias */
     atomic { word == 0 -> word = 1 };
     atomic { buffer ! HOME, 1; own = 1 };
     buffer ! WORD, 0;
#ifndef NO_FENCE
     empty(buffer)
#endif
  :: skip
  fi;
  do
  :: buffer ! BUSY, 1;
     if
     :: atomic { !asked -> break }
     :: atomic { asked -> skip }; buffer ! BUSY, 0; !asked
     fi
  od;
  if
  :: atomic { home == 1 || own -> skip };  /* free_fast: a look, then a store */
     seen = state;
     if
     :: seen == HELD -> buffer ! STATE, 1; success()
     :: else
     fi
  :: atomic { home == 0 && !own && empty(buffer) ->
       if :: state == HELD -> state = 1; success() :: else fi }
  fi;
  buffer ! BUSY, 0;
  finished++
}

proctype Other(byte me) {
  byte seen;
  bit swapped;
  do
  :: seen = home;
     if
     :: seen == 0 ->
        atomic { swapped = (state == HELD); state = (swapped -> me : state) };
        if
        :: !swapped -> break  /* EALREADY */
        :: else ->
#ifdef NO_SECOND_LOOK
           success(); break
#else
           seen = home;
           if
#ifdef NO_LOOK_AT_STATE
           :: seen == 0 -> success(); break
           :: else ->
#else
           :: seen == 0 && state == me -> success(); break
           :: else ->
#endif
#ifdef NO_GIVING_BACK
              skip
#else
              atomic { state = (state == me -> HELD : state) }
#endif
           fi
#endif
        fi
     :: else ->  /* revoke */
        atomic { word == 0 -> word = me };
        if
        :: atomic { home == 1 -> asked = 1 };
#ifndef NO_PAUSE
           empty(buffer);  /* membarrier */
           !busy;
#endif
           home = 0;
           asked = 0
        :: atomic { home == 0 -> skip }
        fi;
        word = 0
     fi
  od;
  finished++
}

proctype Memory() {
  byte value;
end:
  do
  :: atomic { buffer ? STATE, value -> state = value }
  :: atomic { buffer ? HOME, value -> home = value; own = 0 }
  :: atomic { buffer ? BUSY, value -> busy = value }
  :: atomic { buffer ? WORD, value -> word = value }
  od
}

init {
  atomic { run Keeper(); run Other(2); run Other(3); run Memory() };
  finished == 3;
  assert(succeeded == 1)
}
