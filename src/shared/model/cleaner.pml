/* Participants: joining, dying, electing a cleaner, cleaning, taking over from a dead cleaner, burying, reuse of the
 * record. shared/participants.cpp (join, dead, elect, release_cleanings_of, bury), DomainState::recover and clean.
 *
 * The first JOINED of the PROCESSES have records 1 .. JOINED of R when it begins. Process 1 only dies. VICTIM may die, at
 * any step. The others recover what they find, leave in order, and BACK comes back once, in the first free record.
 * SURVIVOR looks until all others have gone, and once more. `litter` stands for all that a participant leaves behind
 * (slots.pml has the details): it is there from joining until the cleaner has removed it.
 *
 * check: three cleaners, one of whom dies, one comes back in a dead one's record | -DPROCESSES=4 -DJOINED=4 -DR=4 -DBACK=4 -DNO_LTL
 * check: two newcomers, one of whom dies, and records that get free  | -DPROCESSES=4 -DJOINED=2 -DR=3 -DVICTIM=4 -DSURVIVOR=2 -DNO_LTL
 * check: a cleaning ends with an error, once                         | -DPROCESSES=4 -DJOINED=3 -DR=3 -DMAY_FAIL -DNO_LTL
 * check: every dead participant is cleaned in the end                | -DPROCESSES=3 -DJOINED=3 -DR=3 -DMAY_FAIL | fair cleaned
 *
 * mutant: NO_GENERATION  an election does not count up the generation: a new cleaner's claim looks like that of the dead one who had its number | -DPROCESSES=4 -DJOINED=4 -DR=4 -DBACK=4 -DNO_LTL
 * mutant: LOOK_LATE      elect() asks who is dead before it reads the state: a newcomer in the record is taken for dead | -DPROCESSES=4 -DJOINED=3 -DR=3 -DNO_LTL
 * mutant: NO_OLD_VALUE   elect() stores instead of comparing and swapping   | -DPROCESSES=3 -DJOINED=3 -DR=3 -DNO_LTL
 * mutant: STEAL          elect() does not ask whether the cleaner lives     | -DPROCESSES=3 -DJOINED=3 -DR=3 -DNO_LTL
 * mutant: NO_TAKEOVER    nobody takes over from a dead cleaner, nor gives its work back | -DPROCESSES=3 -DJOINED=3 -DR=3 -DNO_RELEASE | fair cleaned
 * mutant: NO_RELEASE     a dead cleaner is buried with work in its name     | -DPROCESSES=3 -DJOINED=3 -DR=3 | fair cleaned
 * mutant: KEEP_ON_ERROR  a cleaning that ends with an error is not given back | -DPROCESSES=3 -DJOINED=3 -DR=3 -DMAY_FAIL | fair cleaned
 * mutant: BURY_FIRST     the record is freed before its litter is removed   | -DPROCESSES=4 -DJOINED=3 -DR=3 -DNO_LTL
 * mutant: NO_TOKEN       joining does not take the token                    | -DPROCESSES=4 -DJOINED=2 -DR=3 -DVICTIM=4 -DSURVIVOR=2 -DNO_LTL
 * mutant: NO_SECOND_LOOK joining does not look at the state again once it has the token | -DPROCESSES=4 -DJOINED=2 -DR=3 -DVICTIM=4 -DSURVIVOR=2 -DNO_LTL
 * mutant: TOKEN_LAST     joining says alive before it has the token         | -DPROCESSES=4 -DJOINED=2 -DR=3 -DVICTIM=4 -DSURVIVOR=2 -DNO_LTL
 * mutant: TOKEN_FIRST    leaving gives the token up before the record is free | -DPROCESSES=3 -DJOINED=3 -DR=3 -DNO_LTL
 */
#define P1 (PROCESSES + 1)
#define R1 (R + 1)
#define FREE 0
#define ALIVE 1
#define DYING 2

typedef Record {
  byte generation;
  byte cleaner;
  byte life;
}
#define IS(r, g, c, l) (record[r].generation == g && record[r].cleaner == c && record[r].life == l)

Record record[R1];    /* Participant::state: read and swapped as one word */
byte token[R1];       /* whose process has the byte's lock */
bit litter[R1];
#ifdef MAY_FAIL
bit may_fail = 1;
#endif

bit dead[P1];
byte member[R1];      /* ghost: the process that has joined as this record */
byte cleaning[R1];    /* ghost: the process that cleans this record */
byte gone;            /* processes that have left for good, or died */
bit ended[P1];
bit over;             /* the survivor has found nothing more to do */

#ifndef VICTIM
#define VICTIM 2
#endif
#ifndef BACK
#define BACK 0
#endif
#ifndef SURVIVOR
#define SURVIVOR 3
#endif

#ifdef NO_GENERATION
#define NEXT(g) (g)
#else
#define NEXT(g) ((g) + 1)
#endif

proctype Process(byte me) {
  byte self, r, g, c, l;
  bit round;
  {
    atomic { if :: me <= JOINED -> self = me; goto look :: else fi };
again:
    /* Participants::join */
    atomic { self = 0; r = 1 };
    do
    :: atomic { r <= R && record[r].life != FREE -> r++ }
    :: atomic { r <= R && record[r].life == FREE -> g = record[r].generation; c = record[r].cleaner };
#ifdef TOKEN_LAST
       atomic { if :: IS(r, g, c, FREE) :: else -> r++; goto next fi;
         assert(!litter[r]);
         record[r].generation = g + 1; record[r].cleaner = 0; record[r].life = ALIVE; member[r] = me; litter[r] = 1; self = r };
       atomic { token[r] == 0 -> token[r] = me; break };
#else
#ifndef NO_TOKEN
       atomic { if :: token[r] == 0 -> token[r] = me :: else -> r++; goto next fi };
#endif
#ifndef NO_SECOND_LOOK
       if
       :: IS(r, g, c, FREE)
       :: atomic { !IS(r, g, c, FREE) -> token[r] = 0; r++; goto next }
       fi;
#endif
       atomic {
         assert(member[r] == 0 && cleaning[r] == 0 && !litter[r]);
         record[r].generation = g + 1;
         record[r].cleaner = 0;
         record[r].life = ALIVE;
         member[r] = me; litter[r] = 1; self = r;
         break
       };
#endif
next:
       skip
    :: atomic { r > R -> goto out }       /* ENOSPC */
    od;

    /* DomainState::recover */
look:
    atomic { r = 1; g = 0; c = 0; l = 0 };
    do
    :: atomic { r == self -> r++ }
    :: atomic { r != self && r <= R && record[r].life == FREE -> r++ }
    :: atomic { r != self && r <= R && record[r].life != FREE ->
#ifdef LOOK_LATE
         skip };
       /* dead(), and only then the state that is swapped */
       atomic { if :: record[r].life == DYING :: record[r].life == ALIVE && token[r] == 0 :: else -> r++; goto skipped fi };
       atomic { g = record[r].generation; c = record[r].cleaner; l = record[r].life;
         if :: l == FREE -> r++; goto skipped :: else fi };
#else
         g = record[r].generation; c = record[r].cleaner; l = record[r].life };
       if
       :: atomic { l == DYING -> skip }
       :: atomic { l == ALIVE && token[r] == 0 -> skip }
       :: atomic { l == ALIVE && token[r] != 0 -> r++; goto skipped }
       fi;
#endif
       if
       :: atomic { l == DYING && c == self -> r++; goto skipped }
       :: atomic { l == DYING && c != self && c != 0 ->
#ifdef NO_TAKEOVER
            r++; goto skipped
#elif defined(STEAL)
            skip
#else
            /* dead(c): its state, then its token */
            if :: record[c].life == FREE -> r++; goto skipped :: record[c].life == DYING -> goto swap :: else fi
#endif
          };
#if !defined(NO_TAKEOVER) && !defined(STEAL)
          atomic { if :: token[c] != 0 -> r++; goto skipped :: else fi }
#endif
       :: atomic { l == ALIVE || c == 0 -> skip }
       fi;
swap:
       atomic {
#ifndef NO_OLD_VALUE
         if
         :: !IS(r, g, c, l) -> r++; goto skipped
         :: else
         fi;
#endif
         record[r].generation = NEXT(g); record[r].cleaner = self; record[r].life = DYING;
         assert(member[r] == 0 || dead[member[r]]);       /* nobody cleans the living */
         assert(cleaning[r] == 0 || dead[cleaning[r]]);   /* one cleaner at a time */
         cleaning[r] = me; c = 1; g = 0; l = 0
       };
       /* clean(): what this one had begun to clean is anybody's again */
#ifndef NO_RELEASE
       do
       :: atomic { c <= R ->
            if
            :: record[c].life == DYING && record[c].cleaner == r -> g = record[c].generation; l = 1
            :: else -> c++
            fi };
          if
          :: atomic { l == 1 ->
               if
               :: IS(c, g, r, DYING) -> record[c].generation = NEXT(g); record[c].cleaner = 0
               :: else
               fi;
               l = 0; g = 0; c++ }
          :: l == 0
          fi
       :: atomic { c > R -> c = 0; break }
       od;
#endif
       c = 0;
#ifdef MAY_FAIL
       if
       :: atomic { may_fail -> may_fail = 0;
            /* the cleaning goes back: others may have it */
#ifndef KEEP_ON_ERROR
            record[r].generation = NEXT(record[r].generation);
            record[r].cleaner = 0;
#endif
            cleaning[r] = 0;
            if :: me == SURVIVOR -> goto look :: else -> goto left fi }
       :: true
       fi;
#endif
#ifdef BURY_FIRST
       atomic { record[r].cleaner = 0; record[r].life = FREE; member[r] = 0; cleaning[r] = 0 };
       litter[r] = 0;
#else
       litter[r] = 0;
       atomic { assert(!litter[r]); record[r].cleaner = 0; record[r].life = FREE; member[r] = 0; cleaning[r] = 0 };  /* bury */
#endif
       r++;
skipped:
       atomic { g = 0; c = 0; l = 0 }
    :: atomic { r > R -> break }
    od;
left:
    atomic { r = 0;
      if
      :: me == SURVIVOR && gone < PROCESSES - 1 -> goto look
      :: me == SURVIVOR && gone == PROCESSES - 1 ->
         /* once more after the last has gone */
         if :: !round -> round = 1; goto look :: else fi
      :: else
      fi };
    /* DomainState::leave, finish_leaving */
    atomic { assert(cleaning[self] == 0); litter[self] = 0 };
#ifdef TOKEN_FIRST
    token[self] = 0;
    atomic { record[self].cleaner = 0; record[self].life = FREE; member[self] = 0 };
#else
    atomic { record[self].cleaner = 0; record[self].life = FREE; member[self] = 0 };
    token[self] = 0;
#endif
    atomic { if :: me == BACK && !round -> round = 1; goto again :: else fi };
out:
    skip
  } unless { dead[me] };
  atomic { self = 0; r = 0; g = 0; c = 0; l = 0; round = 0; ended[me] = 1; gone++ }
}

/* The kernel gives a dead process' token back. */
inline kill(i) {
  dead[i] = 1;
  if :: token[1] == i -> token[1] = 0 :: else fi;
  if :: token[2] == i -> token[2] = 0 :: else fi;
  if :: token[3] == i -> token[3] = 0 :: else fi;
  if :: token[R] == i -> token[R] = 0 :: else fi
}

/* The first participant does nothing but die; another one may. */
proctype Reaper() {
  atomic { kill(1); ended[1] = 1; gone++ };
  if
  :: atomic { !ended[VICTIM] -> kill(VICTIM) }
  :: true
  fi
}

init {
  atomic {
    gone = 1;
    do
    :: gone <= JOINED ->
       record[gone].life = ALIVE; token[gone] = gone; member[gone] = gone; litter[gone] = 1;
       gone++
    :: else -> gone = 0; break
    od;
    run Process(2); run Process(3);
#if PROCESSES > 3
    run Process(4);
#endif
    run Reaper()
  }
}

#ifndef NO_LTL
ltl cleaned { <> (gone == PROCESSES && record[1].life == FREE && record[2].life == FREE && record[3].life == FREE && record[R].life == FREE) }
#endif
