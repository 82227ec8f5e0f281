"""What can happen to a partition, as Hypothesis draws it: steps, and mishaps before them."""

from __future__ import annotations

from dataclasses import dataclass

from hypothesis import strategies as st

from tests.broker.model import HOUR_MS
from tests.broker.neighbours import FATES
from wherry.broker.calls import Retention
from wherry.broker.commits import Bury, Commit, Emit, Fail, Hold, Operation
from wherry.model import Outgoing, ScopeId

KEPT_REPLIES = 3
FAILED, HELD = "failed", "held"
"""Rows of attempts."""
REPLY_HOURS, STATE_HOURS = 2, 3


@dataclass(frozen=True, slots=True)
class Mishap:
    """What happens right before a step, mostly nothing.

    Attributes:
        how: the number of a key, an entry or of steps.
        is_mended: what was overwritten is removed after the step.
    """

    kind: str
    how: int
    is_mended: bool


@dataclass(frozen=True, slots=True)
class Plan:
    """An operation; `Owner.fill` puts in what depends on what has happened.

    Attributes:
        pick: which entry of the scope: from the oldest that waits, to the latest that does not.
        replies: how many.
        state: None without durable state, "keep", "set" or "delete".
    """

    kind: type[Operation]
    scope: ScopeId
    pick: int
    replies: int = 0
    inbox: str = ""
    state: str | None = None
    has_end: bool = False
    is_kept: bool = True


@dataclass(frozen=True, slots=True)
class Call:
    """A call of the commit script.

    Attributes:
        caller: "owner": who owns the partition; "a" or "b": that worker, whatever it owns.
        kept: how long things are kept.
        is_resent: it says that it may have been carried out before.
        is_lost: the worker does not learn its answer.
        is_young: all keys were given their times to live a short while ago.
        beside: what becomes of another partition of the same command, see `Neighbours`; "" without.
    """

    caller: str
    plans: list[Plan]
    kept: Retention
    is_resent: bool
    is_lost: bool
    is_young: bool = False
    beside: str = ""


@dataclass(frozen=True, slots=True)
class CallAgain:
    """The worker sends its last call again, as it does when an answer was lost."""

    caller: str
    is_lost: bool


@dataclass(frozen=True, slots=True)
class Lease:
    """A worker claims, renews or releases the partition, or takes over what ran out."""

    worker: str
    act: str
    is_lost: bool


@dataclass(frozen=True, slots=True)
class Send:
    """A producer sends; those with a message id often for the second time."""

    batch: list[Outgoing]


@dataclass(frozen=True, slots=True)
class Replay:
    """An operator replays dead letters.

    Attributes:
        picks: which, from the oldest; there may be no such letter.
        room: how many more entries the backlog takes.
        is_again: those of the last time once more, as when its answer was lost.
    """

    picks: list[int]
    room: int
    is_again: bool


@dataclass(frozen=True, slots=True)
class Unhold:
    """An operator lets an entry be tried again, or drops it.

    Attributes:
        pick: which of those that have failed.
        is_stale: its row has become another since it was looked at.
    """

    pick: int
    is_stale: bool
    drops: bool


Step = Call | CallAgain | Lease | Send | Replay | Unhold

WORKERS = st.sampled_from(["a", "b"])
CALLERS = st.sampled_from(["owner"] * 6 + ["a", "b"])
BESIDE = st.sampled_from(["", "", "", *FATES])
RARELY = st.sampled_from([False, False, True])
SCOPES = st.sampled_from([ScopeId("s"), ScopeId("s"), ScopeId("t")])
INBOXES = st.sampled_from(["", "i"])
PICKS = st.sampled_from([0, 0, 0, 1, -1])

MISHAPS = st.builds(
    Mishap,
    st.sampled_from(
        ["nothing"] * 9
        + ["lease runs out", "scripts are forgotten", "entry is deleted", "everything is lost"]
        + ["key is overwritten"] * 3
        + ["time goes back"] * 2
    ),
    st.integers(0, 9),
    st.sampled_from([True, True, False]),
)
RETENTIONS = st.builds(
    Retention,
    reply_length=st.just(KEPT_REPLIES),
    reply_ttl_ms=st.sampled_from([REPLY_HOURS * HOUR_MS, 2 * REPLY_HOURS * HOUR_MS]),
    state_ttl_ms=st.sampled_from([0, STATE_HOURS * HOUR_MS]),
)
COMMITS = st.builds(
    Plan,
    st.just(Commit),
    SCOPES,
    PICKS,
    replies=st.integers(0, 3),
    inbox=INBOXES,
    state=st.sampled_from([None, "keep", "set", "set", "delete"]),
    has_end=st.booleans(),
)
ANSWERS = st.builds(
    Plan,
    st.just(Commit),
    SCOPES,
    PICKS,
    replies=st.just(1),
    state=st.sampled_from([None, None, "set", "set", "set"]),
)
EMITS = st.builds(Plan, st.just(Emit), SCOPES, PICKS, replies=st.integers(1, 3), inbox=INBOXES)
FAILS = st.builds(Plan, st.just(Fail), SCOPES, PICKS)
HOLDS = st.builds(Plan, st.just(Hold), SCOPES, PICKS, inbox=INBOXES)
BURIALS = st.builds(
    Plan,
    st.just(Bury),
    st.sampled_from([ScopeId("s"), ScopeId("s"), ScopeId("t"), ScopeId("")]),
    PICKS,
    inbox=INBOXES,
    is_kept=st.booleans(),
)
MESSAGES = st.builds(
    Outgoing,
    scope_id=SCOPES,
    message=st.just(b"question"),
    inbox=INBOXES,
    expires_unix_ms=st.sampled_from([0, 0, 99]),
    message_id=st.sampled_from(["", "", "k", "l"]),
)


def calls(
    callers: st.SearchStrategy[str], plans: st.SearchStrategy[Plan]
) -> st.SearchStrategy[Call]:
    return st.builds(
        Call,
        callers,
        st.lists(plans, min_size=1, max_size=4),
        RETENTIONS,
        is_resent=RARELY,
        is_lost=RARELY,
        is_young=RARELY,
        beside=BESIDE,
    )


KEPT = Retention(reply_length=KEPT_REPLIES, reply_ttl_ms=REPLY_HOURS * HOUR_MS, state_ttl_ms=0)
BURY_TWO, HOLD_ONE = (
    Call("owner", plans, KEPT, is_resent=False, is_lost=False)
    for plans in ([Plan(Bury, ScopeId("s"), 0)] * 2, [Plan(Hold, ScopeId("s"), 0)])
)
"""What comes before an operator's step where there is nothing to replay or to release."""
STEPS: st.SearchStrategy[Step] = st.one_of(
    calls(st.just("owner"), COMMITS),
    calls(st.just("owner"), ANSWERS),
    calls(st.just("owner"), st.one_of(ANSWERS, COMMITS)),
    calls(CALLERS, st.one_of(COMMITS, ANSWERS, EMITS, FAILS, HOLDS, BURIALS)),
    calls(st.just("owner"), st.one_of(COMMITS, EMITS, HOLDS, BURIALS)),
    calls(st.just("owner"), st.one_of(FAILS, HOLDS)),
    st.builds(CallAgain, CALLERS, RARELY),
    st.builds(Lease, WORKERS, st.sampled_from(["claim", "take over", "renew", "release"]), RARELY),
    st.builds(Send, st.lists(MESSAGES, min_size=1, max_size=3)),
    st.builds(
        Replay, st.lists(st.integers(0, 2), min_size=1, max_size=3), st.integers(0, 3), RARELY
    ),
    st.builds(Unhold, st.integers(0, 1), RARELY, st.booleans()),
)
