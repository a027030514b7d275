/* The handshake with a pauser or an owner that dies: Handshake, Core::enter, pause_all, resume_all, repair_heap_locked.
 *
 * Process 1 pauses the others under the heap's lock and rewrites their caches; 2 and 3 own a cache each and do one operation.
 * Y may die at any step. `busy` goes through a store buffer of one entry, which membarrier drains. The lock is one step
 * (lock.pml), and so is asking whether a process is dead.
 *
 * check: the pauser dies                | -DY=1 -DNO_LTL
 * check: an owner dies                  | -DY=2 -DNO_LTL
 * check: the pauser dies, the owners go on in the end  | -DY=1 | fair done
 * check: an owner dies, the others go on in the end    | -DY=2 | fair done
 *
 * mutant: NO_FENCE       the pauser does not make the owners' stores visible     | -DY=2 -DNO_LTL
 * mutant: NO_WAIT        the pauser does not wait until the owner stands still   | -DY=2 -DNO_LTL
 * mutant: NO_SECOND_LOOK the owner does not look at the request after busy       | -DY=2 -DNO_LTL
 * mutant: NOT_MY_OWN     the repair resumes all caches but the heir's own        | -DY=1 | fair done
 * mutant: NO_REPAIR      the heir resumes the owners without a repair            | -DY=1 -DNO_LTL
 * mutant: WAIT_FOR_DEAD  the pauser waits for a dead owner                       | -DY=2 | fair done
 * mutant: SLEEP_FOR_EVER a paused owner does not look at the lock after a while  | -DY=1 | fair done
 */
#define DEAD(i) (dead[i])

byte word;            /* the heap's lock */
bit busy[4];          /* in memory */
bit buffered[4], stored[4];  /* the store buffer of the owner */
bit asked[4];         /* kPause in request_ */
bit half[4];          /* the cache is half-done */
bit dead[4];
bit ended[4];
bit in_op[4];         /* ghost: inside an operation */
byte finished;

/* Stores wait in the buffer; a second one drains the first. */
inline store_busy(value) {
  atomic { if :: buffered[me] -> busy[me] = stored[me] :: else fi; buffered[me] = 1; stored[me] = value }
}
inline drain(i) {
  if :: buffered[i] -> busy[i] = stored[i]; buffered[i] = 0; stored[i] = 0 :: else fi
}

/* Stands still, or is dead: then what it had half-done is put right (bury_cache_locked). */
inline stands(i) {
#ifndef NO_WAIT
  if
  :: atomic { i == me || !busy[i] -> skip }
#ifndef WAIT_FOR_DEAD
  :: atomic { i != me && busy[i] && DEAD(i) -> half[i] = 0 }
#endif
  fi;
#endif
  assert(i == me || !in_op[i] || DEAD(i))
}
inline ask_all() {
  asked[2] = (me == 2 -> asked[2] : 1);
  asked[3] = (me == 3 -> asked[3] : 1);
#ifndef NO_FENCE
  atomic { drain(2); drain(3) };
#endif
  stands(2);
  stands(3)
}

proctype Pauser() {
  byte me = 1;
  {
    atomic { word == 0 || DEAD(word) -> word = 1 };
    ask_all();
    half[2] = 1; half[2] = 0;
    half[3] = 1; half[3] = 0;
    asked[2] = 0; asked[3] = 0;
    word = 0
  } unless { dead[1] };
  atomic { ended[1] = 1; finished++ }
}

proctype Owner(byte me) {
  bit inherited;
  {
    do
    :: /* Handshake::enter */
       store_busy(1);
#ifdef NO_SECOND_LOOK
       break;
#endif
       if
       :: atomic { !asked[me] -> in_op[me] = 1; break }
       :: atomic { asked[me] -> skip };
          store_busy(0);
#ifdef SLEEP_FOR_EVER
          !asked[me]
#else
          if
          :: !asked[me]
          :: atomic { word == 0 || DEAD(word) -> inherited = (word != 0); word = me };  /* Core::enter: HeapGuard */
             if
             :: atomic { inherited -> inherited = 0 };
                ask_all();
#ifndef NO_REPAIR
                half[2] = 0; half[3] = 0;
#endif
#ifdef NOT_MY_OWN
                asked[5 - me] = 0
#else
                asked[2] = 0; asked[3] = 0
#endif
             :: atomic { !inherited -> skip }
             fi;
             word = 0
          fi
#endif
       fi
    od;
    atomic { in_op[me] = 1; assert(!half[me]); half[me] = 1 };  /* nobody else is at it, and it is whole */
    atomic { assert(half[me]); half[me] = 0; in_op[me] = 0 };
    store_busy(0)
  } unless { dead[me] };
  atomic { inherited = 0; in_op[me] = 0; ended[me] = 1; drain(me); finished++ }
}

/* The memory system: buffers drain in the end. */
proctype Memory() {
end:
  do
  :: atomic { buffered[2] -> drain(2) }
  :: atomic { buffered[3] -> drain(3) }
  od
}

proctype Reaper() {
  if
  :: atomic { !ended[Y] -> dead[Y] = 1 }
  :: true
  fi
}

init { atomic { run Pauser(); run Owner(2); run Owner(3); run Memory(); run Reaper() } }

#ifndef NO_LTL
ltl done { <> (finished == 3) }
#endif
