/*
 * The networkio protocol, version 1, as a model for SPIN.
 *
 * docs/protocol.md is the authority; a comment such as "P-HS-9" names the rule that the line beside it models, and a
 * test keeps these names in step with that page. docs/topics/model.md says what is modelled, what is left out and why
 * that is sound, and how to read a counterexample. `make model` compiles and runs the configurations.
 *
 * Two nodes hold one session: node 0 is the follower, node 1 the arbiter. Neither has a journal. There is one process:
 * every turn of its loop is one event, chosen freely among those that are possible, and executed as one step, as the
 * core executes one input. So every order of events at both nodes and in the network is tried.
 *
 * A connection is a slot `c` with two ends; the end at node `n` is x = 2c + n. pipe[x] holds the frames on their way to
 * that end. An end closes by itself (a cut: the network, a timeout, a reset), by a rule, or by a crash of its node; the
 * other end may still read what is under way, all or a part of it, before it notices: at any time later, or never while
 * something else happens. So bytes are lost or delivered late, and connections become stale.
 *
 * Every run is finite: faults have budgets, and nothing else repeats without a fault but dialling, which is counted and
 * bounded by an assertion. A run ends when no event is possible; then everything must have been read (`at_rest`).
 */

/* ---- what a configuration chooses -------------------------------------------------------------------------------- */

#ifndef MSG0
#define MSG0 1            /* messages that each process of node 0 has to send */
#endif
#ifndef MSG1
#define MSG1 1            /* and each process of node 1 */
#endif
#ifndef WINDOW
#define WINDOW 2          /* credit window, in messages: every message costs 1 */
#endif
#ifndef DIAL0
#define DIAL0 1           /* node 0 has an address to dial */
#endif
#ifndef DIAL1
#define DIAL1 0           /* node 1 has an address to dial */
#endif
#ifndef CUTS
#define CUTS 1            /* ends that may close by themselves */
#endif
#ifndef CRASH0
#define CRASH0 0          /* crashes of node 0, each with a restart */
#endif
#ifndef CRASH1
#define CRASH1 0
#endif
#ifndef EXTRA
#define EXTRA 0           /* dials begun although an earlier one of the same node is under way */
#endif
#ifndef CONNS
#define CONNS 3           /* connections that may exist at once */
#endif
#ifndef DIALMAX
#define DIALMAX 4         /* no process dials more often than this */
#endif
#ifndef ROOM
#define ROOM 4            /* frames that one direction of a connection takes */
#endif

#if CRASH0 > CRASH1
#define LIVES (1 + CRASH0)
#else
#define LIVES (1 + CRASH1)
#endif

/* ---- states of an end, frames, events ---------------------------------------------------------------------------- */

#define NONE    0
#define CLOSED  1         /* closed here, the other end has not noticed yet */
#define START   2
#define GREETED 3
#define AGREED  4
#define CLAIMED 5
#define PARKED  6
#define LIVE    7
#define OPEN(x) (st[x] >= START)

#define HELLO   1         /* incarnation, dial */
#define HACK    2         /* incarnation */
#define ATTACH  3         /* outbox, first, inbox (0: nil), received, read, credit, generation or seen */
#define DATA    4         /* sequence, redelivered; and, for the judges only, the process that sent it */
#define ACK     5         /* received, read, credit */

#define E_RECEIVE  0      /* an end reads a frame */
#define E_NOTICE   1      /* an end notices that the other has closed; what it has not read is lost */
#define E_CUT      2      /* an end closes by itself */
#define E_CRASH    3      /* a node crashes and starts again as a new process */
#define E_DIAL     4
#define E_EXTRA    5
#define E_TRANSMIT 6      /* the next message is written to the live connection */
#define E_ACK      7      /* an ACK is written */
#define E_SETTLE   8      /* the application acknowledges a message */
#define E_ALIVE    9      /* the probe of the incumbent ends: it is alive */
#define E_DEAD     10     /* the probe ends, or the incumbent did: the parked newcomer's turn */
#define E_REST     11     /* nothing is possible any more */

/* ---- the state --------------------------------------------------------------------------------------------------- */

/* connections */
chan pipe[2 * CONNS] = [ROOM] of { byte, byte, byte, byte, byte, byte, byte, byte };
byte st[2 * CONNS];       /* state of the end */
byte pinc[2 * CONNS];     /* incarnation of the peer that HELLO or HELLO_ACK named at this end */
byte who[CONNS];          /* dialer + 1; 0: the slot is free */
byte dno[CONNS];          /* the `dial` of its HELLO */
byte sgen[CONNS];         /* the generation that the arbiter sent on it */
byte a_recv[CONNS], a_read[CONNS], a_cred[CONNS];   /* what the dialer's ATTACH stated */

/* nodes */
byte life[2];             /* processes so far; names the outbox too (P-MODEL-4) */
byte inc[2];              /* the incarnation (P-MODEL-3) */
byte live[2];             /* the live connection + 1; 0: none */
byte dials[2];            /* `dial` of the last HELLO (P-HELLO-1) */
byte claimed[2];          /* greatest `dial` on which ATTACH was sent (P-HS-11) */
byte newest[2];           /* connection + 1 that was parked last (P-ARB-7) */

/* arbiter and follower */
byte gen;                 /* the arbiter's generation (P-ATT-9) */
byte lt_inc, lt_by, lt_no;/* the last connection taken: incarnation, dialer + 1, generation or dial (P-ARB-10) */
byte seen[LIVES + 1];     /* the follower's, for each incarnation of the arbiter (P-ARB-14) */

/* outbox: sender's part */
byte first[2], next[2], cursor[2];
byte knew[2];             /* the peer's `received` as far as known */
byte rinc[2];             /* the incarnation that the latest verdict was about */
byte tx[2];               /* highest sequence transmitted to that incarnation */
byte mark[2];             /* every retained message up to here is marked (P-MARK-3) */
byte used[2], cred[2];    /* on the live connection (P-CRED-2, P-CRED-6) */

/* inbox: receiver's part; one for each outbox of the peer that it ever met (P-RES-6) */
#define I(n, o) ((n) * (LIVES + 1) + (o))
byte ibx[2];              /* outbox of the current inbox; 0: none */
bit  holds[2];            /* something was taken into it (P-ATT-2) */
byte recv[2 * (LIVES + 1)], read[2 * (LIVES + 1)];
byte usedr[2], s_recv[2], s_read[2], s_cred[2];     /* on the live connection: counted, and last stated */

/* budgets of faults */
byte cuts = CUTS, extra = EXTRA, crashes[2];

/* what only the judges know */
#define G(n, s, r) (((n) * (LIVES + 1) + (s)) * (LIVES + 1) + (r))
byte g_sent[2 * (LIVES + 1) * (LIVES + 1)];   /* highest sequence that process s of n sent to process r of the peer */
byte g_took[2 * (LIVES + 1) * (LIVES + 1)];   /* ... that process r of the peer took from it */
byte g_read[2 * (LIVES + 1)];                 /* ... that any process of the peer settled, for I(n, s) */

/* scratch: set and used within one step */
hidden byte ev, x, c, n, p, y, i, j, k, e, q, t, fa, fb, fc, fd, fe, ff, fg;
hidden byte was, stale;

#define MSGS(n)    ((n) == 0 -> MSG0 : MSG1)
#define DIALS(n)   ((n) == 0 -> DIAL0 : DIAL1)
#define HELD(n, o) (recv[I(n, o)] - read[I(n, o)])
#if LIVES == 1
#define UNSETTLED(n) HELD(n, 1)
#elif LIVES == 2
#define UNSETTLED(n) (HELD(n, 1) + HELD(n, 2))
#else
#define UNSETTLED(n) (HELD(n, 1) + HELD(n, 2) + HELD(n, 3))
#endif

/* P-CRED-5; in ATTACH `used` is 0 */
#define CREDIT(n, u) ((u) + WINDOW > UNSETTLED(n) -> (u) + WINDOW - UNSETTLED(n) : 0)

/* ---- closing, sending -------------------------------------------------------------------------------------------- */

inline discard(z) {
    do
    :: len(pipe[z]) > 0 -> pipe[z]?t, _, _, _, _, _, _, _
    :: else -> break
    od
}

/* The end z closes: what it has not read is discarded, what it wrote is still under way. */
inline shut(z) {
    st[z] = CLOSED;
    discard(z);
    if
    :: live[(z) % 2] == (z) / 2 + 1 ->
        live[(z) % 2] = 0;
        used[(z) % 2] = 0; usedr[(z) % 2] = 0; s_recv[(z) % 2] = 0; s_read[(z) % 2] = 0; s_cred[(z) % 2] = 0;
#ifndef BUG_CREDIT_CARRIED
        cred[(z) % 2] = 0;      /* P-ATT-7 */
#endif
#ifdef BUG_LAST_TAKEN_FORGOTTEN
        if :: (z) % 2 == 1 -> lt_inc = 0; lt_by = 0; lt_no = 0 :: else fi
#endif
    :: else
    fi;
    if
    :: newest[(z) % 2] == (z) / 2 + 1 -> newest[(z) % 2] = 0
    :: else
    fi;
    if
    :: !OPEN((z) ^ 1) ->
        st[z] = NONE; st[(z) ^ 1] = NONE; pinc[z] = 0; pinc[(z) ^ 1] = 0;
        who[(z) / 2] = 0; dno[(z) / 2] = 0; sgen[(z) / 2] = 0;
        a_recv[(z) / 2] = 0; a_read[(z) / 2] = 0; a_cred[(z) / 2] = 0
    :: else
    fi
}

/* From the end z to the other one; into the void if that has closed. */
inline put(z, kind, a, b, cc, d, ee, f, g) {
    if
    :: OPEN((z) ^ 1) -> pipe[(z) ^ 1]!kind, a, b, cc, d, ee, f, g
    :: else
    fi
}

/* P-ATT-1: facts that hold now. P-ATT-2: nothing is nil. P-ATT-8: the arbiter's generation, the follower's seen. */
inline attach(z) {
    if
    :: n == 1 -> gen++; sgen[c] = gen; fg = gen                                  /* P-ATT-9 */
    :: else ->
        fg = seen[pinc[z]]
    fi;
    fc = 0; fd = 0; fe = 0;
    if :: holds[n] -> fc = ibx[n]; fd = recv[I(n, ibx[n])]; fe = read[I(n, ibx[n])] :: else fi;
    ff = CREDIT(n, 0);
    put(z, ATTACH, life[n], first[n], fc, fd, fe, ff, fg);
    if
    :: who[c] == n + 1 -> a_recv[c] = recv[I(n, ibx[n])]; a_read[c] = read[I(n, ibx[n])]; a_cred[c] = ff
    :: else -> s_recv[n] = recv[I(n, ibx[n])]; s_read[n] = read[I(n, ibx[n])]; s_cred[n] = ff
    fi
}

/* ---- resume: judging the peer's ATTACH, whose values are in fa to fg --------------------------------------------- */

/* S takes `read` (P-ACK-8) and judges that it is true. */
inline take_read(r) {
    assert((r) <= g_read[I(n, life[n])]);                                        /* READ truth */
    if
    :: (r) + 1 > first[n] -> first[n] = (r) + 1
    :: else
    fi
}

/* The verdict on the own outbox (P-RES-11), the cursor (P-OUT-1), the marks. */
inline verdict() {
    e = first[n] - 1;
    if
    :: fc == life[n] ->
        e = fd;
        assert(fe <= fd);                                                        /* case F */
        assert(fd + 1 >= first[n]);                                              /* case D: a memory does not go back */
        q = 0;
        for (j : 1 .. LIVES) { if :: g_sent[G(n, life[n], j)] > q -> q = g_sent[G(n, life[n], j)] :: else fi };
        assert(fd < first[n] || fd <= q)                                         /* P-RES-18 */
    :: else -> assert(g_took[G(n, life[n], pinc[x])] == 0)                       /* A or E: it truly holds nothing */
    fi;
    if
    :: pinc[x] != rinc[n] ->                                                     /* P-MARK-1 */
        if :: tx[n] > mark[n] -> mark[n] = tx[n] :: else fi;
        tx[n] = 0
    :: else
#ifdef BUG_MARK_FADES
        mark[n] = 0
#endif
    fi;
#ifdef BUG_LOSS_MARKS
    if :: tx[n] > mark[n] -> mark[n] = tx[n] :: else fi;
#endif
    if
    :: e < knew[n] && knew[n] > mark[n] -> mark[n] = knew[n]                     /* P-MARK-2 */
    :: else
    fi;
    assert(pinc[x] != rinc[n] || e >= knew[n]);                                  /* a process does not forget */
    rinc[n] = pinc[x];
    knew[n] = e;
#ifdef BUG_NO_REWIND
    if :: e + 1 > cursor[n] -> cursor[n] = e + 1 :: else fi;
#elif defined(BUG_RESUME_FROM_READ)
    cursor[n] = (fc == life[n] -> fe + 1 : e + 1);
#else
    cursor[n] = e + 1;
#endif
    if
    :: fc == life[n] -> take_read(fe)                                            /* case B */
    :: else
    fi
}

/* The inbox for the outbox that the peer states. */
inline meet() {
    if
    :: fa == ibx[n] && holds[n] -> assert(fb <= recv[I(n, fa)] + 1)              /* P-RES-3 */
    :: else ->
        if
        :: !holds[n] && ibx[n] != 0 -> recv[I(n, ibx[n])] = 0; read[I(n, ibx[n])] = 0
        :: else                                                                  /* P-RES-5: left, its positions kept */
        fi;
        ibx[n] = fa;
        if
        :: recv[I(n, fa)] > 0 -> holds[n] = 1                                    /* P-RES-6 */
        :: else -> recv[I(n, fa)] = fb - 1; read[I(n, fa)] = fb - 1; holds[n] = 0   /* P-RES-4: the base */
        fi
    fi
}

/* To take the connection c at node n: one step (P-HS-9). */
inline take() {
    pipe[x]?t, fa, fb, fc, fd, fe, ff, fg;
    was = (live[n] != 0);
    if
    :: was && live[n] != c + 1 -> y = 2 * (live[n] - 1) + n;
#ifdef BUG_INCUMBENT_HEARD
        live[n] = 0
#else
        shut(y)                                                                  /* P-HS-9 (1) */
#endif
    :: else
    fi;
    for (i : 0 .. CONNS - 1) {                                                   /* P-HS-9 (2), P-ARB-13, P-ARB-17 */
        y = 2 * i + n;
        if
        :: i != c && OPEN(y) && st[y] != LIVE ->
            if
            :: st[y] == PARKED -> shut(y)
#ifndef BUG_OTHERS_STAY
            :: st[y] != PARKED && pinc[y] != 0 && pinc[y] != pinc[x] -> shut(y)
#endif
#ifndef BUG_ARBITER_KEEPS_DIALS
            :: st[y] != PARKED && n == 1 && who[i] == 2 && (pinc[y] == 0 || pinc[y] == pinc[x]) -> shut(y)
#endif
#ifdef BUG_FOLLOWER_DROPS_DIALS
            :: st[y] != PARKED && n == 0 && who[i] == 1 && (pinc[y] == 0 || pinc[y] == pinc[x]) -> shut(y)
#endif
            :: else
            fi
        :: else
        fi
    };
    if
    :: n == 1 -> lt_inc = pinc[x]; lt_by = who[c]; lt_no = (who[c] == 2 -> sgen[c] : dno[c])    /* P-ARB-10 */
    :: else -> if :: fg > seen[pinc[x]] -> seen[pinc[x]] = fg :: else fi          /* P-ARB-14 */
    fi;
    st[x] = LIVE; live[n] = c + 1; newest[n] = 0;
    meet(); verdict();                                                           /* P-HS-9 (3), (4), P-RES-1 */
    used[n] = 0; usedr[n] = 0;
#ifdef BUG_CREDIT_CARRIED
    if :: ff > cred[n] -> cred[n] = ff :: else fi;
#else
    cred[n] = ff;                                                                /* P-ATT-7 */
#endif
    if
    :: who[c] == n + 1 -> s_cred[n] = a_cred[c];
        s_recv[n] = (holds[n] -> a_recv[c] : recv[I(n, ibx[n])]);                /* P-ACK-10: nil stated the base */
        s_read[n] = (holds[n] -> a_read[c] : read[I(n, ibx[n])]);
        a_recv[c] = 0; a_read[c] = 0; a_cred[c] = 0
    :: else -> attach(x)                                                         /* P-HS-9 (5), P-HS-4 */
    fi
}

/* Is the newcomer (c, n) refused? The ATTACH is in fa to fg. P-ARB-11, P-ARB-12, P-ARB-16. */
inline judge() {
    if
    :: n == 1 && who[c] == 1 ->
        stale = (lt_inc == pinc[x] && ((lt_by == 2 && fg < lt_no) || (lt_by == 1 && dno[c] <= lt_no)))
    :: n == 1 && who[c] == 2 -> stale = 0
#ifdef BUG_GENERATION_IGNORED
    :: n == 0 -> stale = 0
#else
    :: n == 0 -> stale = (fg <= seen[pinc[x]])
#endif
    fi
}

/* ---- frames on a live connection --------------------------------------------------------------------------------- */

/* DATA fa (sequence), fb (redelivered), fc (the process that sent it); p is the peer. */
inline take_data() {
    assert(fc == ibx[n]);                                                        /* of the outbox that was stated */
    assert(usedr[n] < s_cred[n]);                                                /* P-CRED-4: never without credit */
    usedr[n]++;                                                                  /* P-CRED-2 */
    k = recv[I(n, ibx[n])] + 1;
    assert(fa <= k);                                                             /* P-DATA-14: no hole */
    assert(fa == k);                                                             /* nothing is sent that R holds */
    if
    :: fa == k ->
        /* the judges: in order, once for each process, nothing lost before it, the flag says what it means */
        j = g_took[G(p, fc, life[n])];
        assert(fa == j + 1 || (j == 0 && fa - 1 <= g_read[I(p, fc)]));
        was = 0; stale = 0;
        for (j : 1 .. LIVES) {
            if
            :: j != life[n] ->
                if :: g_took[G(p, fc, j)] >= fa -> was = 1 :: else fi;
                if :: g_sent[G(p, fc, j)] >= fa -> stale = 1 :: else fi
            :: else
            fi
        };
        assert(fb || !was);                                                      /* G5 */
        assert(!fb || stale);                                                    /* P-MARK-4: and no other may */
        g_took[G(p, fc, life[n])] = fa;
        recv[I(n, ibx[n])] = fa; holds[n] = 1;                                   /* P-ACK-5 */
#ifdef BUG_READ_ON_RECEIPT
        read[I(n, ibx[n])] = fa;
#endif
        assert(UNSETTLED(n) <= WINDOW)                                           /* G9 */
    :: else                                                                      /* P-DATA-14: a duplicate is dropped */
    fi
}

/* ACK fa (received), fb (read), fc (credit): each for itself (P-ACK-1). */
inline take_ack() {
    assert(fb <= fa && fa < next[n]);                                            /* P-ACK-2, P-ACK-3 */
    if :: fa > knew[n] -> knew[n] = fa :: else fi;
    if :: fa + 1 > cursor[n] -> cursor[n] = fa + 1 :: else fi;                   /* P-ACK-9 */
    take_read(fb);
    if :: fc > cred[n] -> cred[n] = fc :: else fi                                /* P-CRED-6 */
}

/* ---- the events -------------------------------------------------------------------------------------------------- */

inline boot(m) {
    life[m]++;
#ifdef BUG_INCARNATION_REUSED
    inc[m] = 1;
#else
    inc[m] = life[m];                                                            /* P-MODEL-3 */
#endif
    dials[m] = 0; claimed[m] = 0; newest[m] = 0;
    first[m] = 1; next[m] = MSGS(m) + 1; cursor[m] = 1; knew[m] = 0; rinc[m] = 0; tx[m] = 0; mark[m] = 0;
    ibx[m] = 0; holds[m] = 0;
    for (j : 0 .. LIVES) { recv[I(m, j)] = 0; read[I(m, j)] = 0 };
    if
    :: m == 1 -> gen = 0; lt_inc = 0; lt_by = 0; lt_no = 0
    :: else -> for (j : 0 .. LIVES) { seen[j] = 0 }
    fi
}

inline receive() {
    pipe[x]?<t, fa, fb, fc, fd, fe, ff, fg>;
    printf("@frame %d %d %d %d %d %d %d %d\n", t, fa, fb, fc, fd, fe, ff, fg);
    if
    :: t == ATTACH ->
        assert(st[x] == AGREED || st[x] == CLAIMED);
        if
        :: live[n] != 0 && pinc[2 * (live[n] - 1) + n] != pinc[x] ->             /* P-ARB-3, P-ARB-4, P-ARB-8 */
            st[x] = PARKED; newest[n] = c + 1
        :: else ->                                                               /* P-ARB-2 */
            judge();
            if
            :: stale -> shut(x)
            :: else -> take()
            fi
        fi
    :: else ->
        pipe[x]?t, fa, fb, fc, fd, fe, ff, fg;
        if
        :: t == HELLO -> assert(st[x] == START);
            pinc[x] = fa; put(x, HACK, inc[n], 0, 0, 0, 0, 0, 0); st[x] = AGREED        /* P-HS-2 */
        :: t == HACK -> assert(st[x] == GREETED);
            pinc[x] = fa; was = (dno[c] < claimed[n]); stale = 0;
            for (i : 0 .. CONNS - 1) {
                if
                :: i != c && who[i] == n + 1 && (st[2 * i + n] == CLAIMED || st[2 * i + n] == PARKED) -> stale = 1
                :: else
                fi
            };
#ifdef BUG_TWO_CLAIMS
            was = 0; stale = 0;
#endif
            if
#ifndef BUG_LIVE_DIALER_ATTACHES
            :: live[n] != 0 -> shut(x)                                           /* P-HS-8 */
            :: live[n] == 0 && (was || stale) -> shut(x)                         /* P-HS-11 */
#else
            :: was || stale -> shut(x)
#endif
            :: else -> claimed[n] = dno[c]; st[x] = CLAIMED; attach(x)           /* P-HS-3 */
            fi
        :: t == DATA -> assert(st[x] == LIVE); take_data()
        :: t == ACK -> assert(st[x] == LIVE); take_ack()
        fi
    fi
}

inline dial() {
    c = 0;
    do :: who[c] != 0 -> c++ :: else -> break od;
    dials[n]++;                                                                  /* P-HELLO-1 */
    assert(dials[n] <= DIALMAX);                                                 /* the churn ends */
    who[c] = n + 1; dno[c] = dials[n];
    st[2 * c + n] = GREETED; st[2 * c + 1 - n] = START;
    put(2 * c + n, HELLO, inc[n], dials[n], 0, 0, 0, 0, 0)                       /* P-HS-1 */
}

inline transmit() {
    q = cursor[n];
    put(2 * (live[n] - 1) + n, DATA, q, (q <= mark[n]), life[n], 0, 0, 0, 0);    /* P-MARK-4 */
    cursor[n]++; used[n]++;
    if :: q > tx[n] -> tx[n] = q :: else fi;
    k = G(n, life[n], pinc[2 * (live[n] - 1) + n]);
#ifdef BUG_INCARNATION_REUSED
    k = G(n, life[n], life[p]);
#endif
    if :: q > g_sent[k] -> g_sent[k] = q :: else fi
}

inline ack() {
    s_recv[n] = recv[I(n, ibx[n])]; s_read[n] = read[I(n, ibx[n])];
    q = CREDIT(n, usedr[n]);
    if :: q > s_cred[n] -> s_cred[n] = q :: else fi;
    put(2 * (live[n] - 1) + n, ACK, s_recv[n], s_read[n], s_cred[n], 0, 0, 0, 0)
}

/* The application settles in order, the older outboxes first (P-RES-5); `read` follows (P-ACK-6). */
inline settle() {
    j = 1;
    do :: HELD(n, j) == 0 -> j++ :: else -> break od;
    read[I(n, j)]++;
    if :: read[I(n, j)] > g_read[I(p, j)] -> g_read[I(p, j)] = read[I(n, j)] :: else fi
}

/* P-ARB-6 */
inline probe_alive() {
    for (i : 0 .. CONNS - 1) {
        if :: st[2 * i + n] == PARKED -> y = 2 * i + n; shut(y) :: else fi
    };
    newest[n] = 0
}

/* P-ARB-7: the newest that is still there; the others wait for their turn */
inline probe_dead() {
    if
    :: newest[n] != 0 -> c = newest[n] - 1
    :: else -> c = 0; do :: st[2 * c + n] != PARKED -> c++ :: else -> break od
    fi;
    x = 2 * c + n;
    pipe[x]?<t, fa, fb, fc, fd, fe, ff, fg>;
    judge();
    if
    :: stale -> shut(x)
    :: else -> take()
    fi
}

/* Nothing is possible any more: all is read, both are live, on the same connection, and nothing else is left. */
inline at_rest() {
    for (i : 0 .. 1) {
        assert(first[i] == next[i]);                                             /* G8 */
        assert(live[i] != 0);
        assert(UNSETTLED(i) == 0)
    };
    assert(live[0] == live[1]);
    for (i : 0 .. CONNS - 1) { assert(st[2 * i] == NONE || live[0] == i + 1) }
}

/* After every event: one live end at most at each node (I13); the same generation means the same connection (I14). */
inline invariant() {
    for (i : 0 .. CONNS - 1) {
        assert((st[2 * i] == LIVE) == (live[0] == i + 1));
        assert((st[2 * i + 1] == LIVE) == (live[1] == i + 1))
    };
    assert(live[0] == 0 || live[1] == 0 || live[0] == live[1] || sgen[live[0] - 1] != sgen[live[1] - 1]
        || pinc[2 * (live[0] - 1)] != inc[1]);
    for (i : 0 .. 1) {
        assert(first[i] <= knew[i] + 1 && knew[i] < next[i]);                    /* P-MODEL-12, I1 */
        assert(first[i] - 1 <= g_read[I(i, life[i])])                            /* nothing is dropped unread (I8) */
    }
}

/* ---- what is possible -------------------------------------------------------------------------------------------- */

#define OWN_(c, n) (who[c] == (n) + 1 && OPEN(2 * (c) + (n)))
#define PARKED_(c, n) (st[2 * (c) + (n)] == PARKED)
#if CONNS == 2
#define OWN(n)   (OWN_(0, n) || OWN_(1, n))
#define PARK(n)  (PARKED_(0, n) || PARKED_(1, n))
#define FREE     (who[0] == 0 || who[1] == 0)
#elif CONNS == 3
#define OWN(n)   (OWN_(0, n) || OWN_(1, n) || OWN_(2, n))
#define PARK(n)  (PARKED_(0, n) || PARKED_(1, n) || PARKED_(2, n))
#define FREE     (who[0] == 0 || who[1] == 0 || who[2] == 0)
#else
#define OWN(n)   (OWN_(0, n) || OWN_(1, n) || OWN_(2, n) || OWN_(3, n))
#define PARK(n)  (PARKED_(0, n) || PARKED_(1, n) || PARKED_(2, n) || PARKED_(3, n))
#define FREE     (who[0] == 0 || who[1] == 0 || who[2] == 0 || who[3] == 0)
#endif

#define TO(n)      (2 * (live[n] - 1) + 1 - (n))          /* the other end of the live connection */
#define WRITABLE(n) (!OPEN(TO(n)) || len(pipe[TO(n)]) < ROOM)

#define AT_END(z) \
    :: OPEN(z) && st[z] != PARKED && len(pipe[z]) > 0 -> x = z; ev = E_RECEIVE \
    :: OPEN(z) && st[(z) ^ 1] == CLOSED               -> x = z; ev = E_NOTICE \
    :: OPEN(z) && cuts > 0                            -> x = z; ev = E_CUT

#define AT_NODE(m) \
    :: crashes[m] > 0                                                           -> x = m; ev = E_CRASH \
    :: DIALS(m) && live[m] == 0 && !OWN(m) && FREE                              -> x = m; ev = E_DIAL \
    :: DIALS(m) && live[m] == 0 && OWN(m) && FREE && extra > 0                  -> x = m; ev = E_EXTRA \
    :: live[m] != 0 && cursor[m] < next[m] && used[m] < cred[m] && WRITABLE(m)  -> x = m; ev = E_TRANSMIT \
    :: live[m] != 0 && WRITABLE(m) && (recv[I(m, ibx[m])] > s_recv[m] || read[I(m, ibx[m])] > s_read[m] \
           || CREDIT(m, usedr[m]) > s_cred[m])                                  -> x = m; ev = E_ACK \
    :: UNSETTLED(m) > 0                                                         -> x = m; ev = E_SETTLE \
    :: PARK(m) && live[m] != 0 && OPEN(TO(m))                                   -> x = m; ev = E_ALIVE \
    :: PARK(m) && (live[m] == 0 || !OPEN(TO(m)))                                -> x = m; ev = E_DEAD

active proctype session() {
    d_step { crashes[0] = CRASH0; crashes[1] = CRASH1; boot(0); boot(1) };
    do
    :: atomic {
        if
        AT_END(0)
        AT_END(1)
        AT_END(2)
        AT_END(3)
#if CONNS > 2
        AT_END(4)
        AT_END(5)
#endif
#if CONNS > 3
        AT_END(6)
        AT_END(7)
#endif
        AT_NODE(0)
        AT_NODE(1)
        :: else -> x = 0; ev = E_REST
        fi;
        d_step {
            printf("@event %d %d\n", ev, x);         /* printed when a counterexample is replayed, and only then */
            n = x % 2; p = 1 - n; c = x / 2;
            if
            :: ev == E_RECEIVE  -> receive()
            :: ev == E_NOTICE   -> shut(x)
            :: ev == E_CUT      -> cuts--; shut(x)
            :: ev == E_CRASH    -> n = x; crashes[n]--;
                for (k : 0 .. CONNS - 1) { if :: OPEN(2 * k + n) -> y = 2 * k + n; shut(y) :: else fi };
                boot(n)
            :: ev == E_DIAL     -> n = x; dial()
            :: ev == E_EXTRA    -> n = x; extra--; dial()
            :: ev == E_TRANSMIT -> n = x; p = 1 - n; transmit()
            :: ev == E_ACK      -> n = x; ack()
            :: ev == E_SETTLE   -> n = x; p = 1 - n; settle()
            :: ev == E_ALIVE    -> n = x; probe_alive()
            :: ev == E_DEAD     -> n = x; probe_dead()
            :: ev == E_REST     -> at_rest()
            fi;
            printf("@state %d %d %d %d %d %d %d %d %d %d\n", inc[0], live[0], first[0], cursor[0], recv[I(0, ibx[0])],
                inc[1], live[1], first[1], cursor[1], recv[I(1, ibx[1])]);
            invariant();
            x = 0; c = 0
        }
        if :: ev == E_REST -> break :: else fi
    }
    od
}
