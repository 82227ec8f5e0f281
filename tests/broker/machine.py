"""A state machine: workers, producers, operators and mishaps act on a real partition and its model.

After every step both must have given the same answers and hold the same data. Two laws are looked
at apart from the model, lest it be wrong in the same way: an entry is finished once, and a name
``(i, n)`` is given to one reply of a run.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

from hypothesis import Phase, seed, settings
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)

from tests.broker.model import (
    ELSE,
    ID,
    LEASE_MS,
    LONG_AGO,
    RUN_OUT,
    Model,
    Operation,
    Record,
    WrongType,
)
from tests.broker.plans import (
    BURY_TWO,
    FAILED,
    HELD,
    HOLD_ONE,
    KEPT_REPLIES,
    MISHAPS,
    STEPS,
    Call,
    CallAgain,
    Lease,
    Mishap,
    Plan,
    Replay,
    Send,
    Step,
    Unhold,
)
from tests.broker.real import Real, is_wrong_type
from tests.broker.tenure import DONE, ZERO
from wherry.broker.calls import Retention
from wherry.broker.commits import Bury, Commit, Emit, Fail, Hold, StateChange
from wherry.errors import StoreError
from wherry.model import EntryId, Outgoing, ScopeId, Token, id_key

RUN = 6
BACKLOG = 6
SENT_HOURS = 4
WRONG_TYPE = "WRONGTYPE"
FIRST = Send([Outgoing(scope_id=ScopeId(scope), message=b"question") for scope in "stss"])


@dataclass(slots=True, eq=False)
class Owner:
    """What one worker takes for true, though Redis may have changed under it.

    Attributes:
        token: of its last tenure.
        emits: number of its last emit.
        runs: instances so far.
        versions: scope -> version of the state that its instance was built on.
        emitted: cause -> replies written before the commit.
        last_call: what can be sent again: operations, how long things are kept, and whether
            what they write to is young.
    """

    token: Token = field(default=Token(""))
    emits: int = 0
    runs: int = 1
    versions: dict[ScopeId, str] = field(default_factory=dict)
    emitted: dict[str, int] = field(default_factory=dict)
    last_call: tuple[list[Operation], Retention, bool] | None = None

    @property
    def run(self) -> str:
        return f"{self.token.partition(':')[0]}.{self.runs}"

    def begin(self, token: Token) -> None:
        """A new tenure: all instances are made anew."""
        self.token, self.emits, self.last_call = token, 0, None
        self.drop_instances()

    def drop_instances(self) -> None:
        self.versions.clear()
        self.emitted.clear()
        self.runs += 1

    def begin_anew(self, entry_id: EntryId) -> None:
        """Once it may be retried, an entry is answered by another run."""
        self.emitted.pop(entry_id, None)
        self.runs += 1

    def fill(self, plan: Plan, entry_id: EntryId, model: Model) -> Operation:
        operation = self._fill(plan, entry_id, model)
        # Who waits in an inbox belongs to a trace, in these tests.
        return replace(operation, headers=b"trace") if plan.inbox else operation

    def _fill(self, plan: Plan, entry_id: EntryId, model: Model) -> Operation:
        first = self.emitted.get(entry_id, 0)
        replies = [b"answer %d" % (first + index) for index in range(plan.replies)]
        if plan.kind is Fail:
            return Fail(entry_id, plan.scope, FAILED.encode())
        if plan.kind is Hold:
            run = self.run
            self.begin_anew(entry_id)
            return Hold(entry_id, plan.scope, HELD.encode(), "E", plan.inbox, first, run)
        if plan.kind is Bury:
            return Bury(
                entry_id, plan.scope, "E", "trace", 5, plan.inbox, first, is_kept=plan.is_kept
            )
        if plan.kind is Emit:
            self.emits += 1
            cause = entry_id or ""
            self.emitted[cause] = first + plan.replies
            return Emit(
                self.emits, cause, plan.scope, replies, plan.inbox, self.run if cause else "", first
            )
        commit = Commit(
            entry_id, plan.scope, replies, plan.inbox, None, self.run if plan.has_end else "", first
        )
        return replace(commit, state=self._change_state(plan, entry_id, model))

    def _change_state(self, plan: Plan, entry_id: EntryId, model: Model) -> StateChange | None:
        """The next message may be handled before this commit is acknowledged: believe it done."""
        if plan.state is None:
            return None
        if plan.scope not in self.versions:
            state = model.found(model.keys.state(ZERO, plan.scope), dict[str, str])
            self.versions[plan.scope] = state.get("v", "")
        expected = self.versions[plan.scope]
        if plan.state == "keep":
            return StateChange(expected, None)
        self.versions[plan.scope] = "" if plan.state == "delete" else entry_id
        packed = b"" if plan.state == "delete" else b"state of " + entry_id.encode()
        return StateChange(expected, packed)


class ScriptsBesideModel(RuleBasedStateMachine):
    """The machine; subclass it with a `real` to run it."""

    real: ClassVar[Real]
    examples: ClassVar[int] = 0

    def __init__(self) -> None:
        super().__init__()
        type(self).examples += 1
        self.real.clear()
        self.model = Model(self.real.keys, self.real.meta)
        self.past: list[tuple[Model, dict[str, tuple[int, bytes]]]] = []
        self.owners = {"a": Owner(), "b": Owner()}
        self.tokens: set[Token] = set()
        self.newest = EntryId("0-0")
        self.accepted: set[str] = set()
        self.finished: list[EntryId] = []
        self.released: set[str] = set()
        self.last_replay = ["1-1"]

    @initialize()
    def begin(self) -> None:
        self._claim("a", is_lost=False)
        self._send(FIRST)

    @rule(mishap=MISHAPS, step=STEPS)
    def act(self, mishap: Mishap, step: Step) -> None:
        """One rule for all: Hypothesis switches whole rules off in half of its examples."""
        self._prepare(step)
        self._meet(mishap)
        if isinstance(step, Call):
            self._call(step)
        elif isinstance(step, CallAgain):
            self._call_again(step)
        elif isinstance(step, Lease):
            self._lease(step)
        elif isinstance(step, Replay):
            self._replay(step)
        elif isinstance(step, Unhold):
            self._unhold(step)
        else:
            self._send(step)
        if mishap.is_mended:
            for key in [key for key, value in self.model.data.items() if value == ELSE]:
                self._remove(key)

    # What must hold.

    @invariant()
    def laws_hold(self) -> None:
        self._data_are_those_of_the_model()
        self._each_entry_is_finished_once()
        self._each_name_is_given_to_one_reply()

    def _data_are_those_of_the_model(self) -> None:
        seen = self.real.look()
        expected = {key: value for key, value in self.model.data.items() if value != []}
        for key in [self.model.keys.replies(ZERO, scope) for scope in ("s", "t")]:
            kept, all_replies = seen.data.get(key), expected.get(key)
            if isinstance(kept, list) and isinstance(all_replies, list):
                bound = min(len(all_replies), KEPT_REPLIES), KEPT_REPLIES + self.real.node
                assert bound[0] <= len(kept) <= bound[1], f"{key} keeps {len(kept)}"
                expected[key] = all_replies[-len(kept) :]
        same("data", seen.data, expected)
        same("hours to live", seen.hours, self.model.hours)
        self.past = [*self.past[-4:], (self.model.copy(), seen.dumps)]

    def _each_entry_is_finished_once(self) -> None:
        unfinished = {one[ID] for one in self._entries()}
        same("unfinished", unfinished, self.accepted - {*self.finished})
        assert len(self.finished) == len({*self.finished}), self.finished

    def _each_name_is_given_to_one_reply(self) -> None:
        for key, value in self.model.data.items():
            if isinstance(value, list) and ":out:" in key:
                names = [_name(one) for one in value if "i" in one and not self._is_retold(one)]
                assert len(names) == len({*names}), (key, value)

    def _is_retold(self, record: Record) -> bool:
        """A call that held an entry may be sent again when an operator has released it."""
        return {"e", "a"} <= {*record} and record["i"] in self.released

    # How it is done.

    def _prepare(self, step: Step) -> None:
        if isinstance(step, Replay) and not self.model.data.get(self.model.keys.dead(ZERO)):
            self._call(BURY_TWO)
        if isinstance(step, Unhold) and not self.model.rows():
            self._call(HOLD_ONE)

    def _meet(self, mishap: Mishap) -> None:
        {
            "nothing": lambda _: None,
            "lease runs out": self._run_out,
            "scripts are forgotten": lambda _: self.real.command("SCRIPT", "FLUSH"),
            "time goes back": self._go_back,
            "everything is lost": self._lose_everything,
            "entry is deleted": self._delete,
            "key is overwritten": self._overwrite,
        }[mishap.kind](mishap.how)

    def _run_out(self, how: int) -> None:
        lease = self.model.found(self.model.keys.lease(ZERO), dict[str, str])
        if lease.get("owner"):
            late = {"expiry": RUN_OUT}
            if "unclean" in lease and how % 3 == 0:
                late["unclean"] = LONG_AGO
            lease |= late
            for name, value in late.items():
                self.real.command("HSET", self.model.keys.lease(ZERO), name, value)

    def _go_back(self, how: int) -> None:
        """A failover to a replica that lacks the last writes; workers know nothing of it."""
        del self.past[max(1, len(self.past) - 1 - how % 4) :]
        model, dumps = self.past[-1]
        self.real.restore(dumps)
        self.model = model.copy()
        self._history_changed()

    def _lose_everything(self, _: int) -> None:
        self.real.command("FLUSHALL")
        self.model.data.clear()
        self.model.hours.clear()
        self._history_changed()

    def _delete(self, how: int) -> None:
        entries = self._entries()
        if entries:
            entry_id = entries.pop(how % len(entries))[ID]
            self.real.command("XDEL", self.model.keys.entries(ZERO), entry_id)
            self.accepted.discard(entry_id)

    def _overwrite(self, how: int) -> None:
        key = self._keys()[how]
        if key == self.model.keys.attempts(ZERO):
            self.released |= {*self.model.rows()}
        self._remove(key)
        self.real.command("SADD", key, *ELSE)
        self.model.data[key] = ELSE
        self._history_changed()

    def _claim(self, worker: str, *, is_lost: bool) -> None:
        real = told(lambda: self.real.claim(worker, LEASE_MS))
        nonce = "" if real in (None, WRONG_TYPE) else real.token.partition(":")[2]
        same("claim", real, told(lambda: self.model.claim(worker, nonce)))
        if real not in (None, WRONG_TYPE):
            assert real.token not in self.tokens, "no two tenures have one token"
            self.tokens.add(real.token)
            if not is_lost:
                self.owners[worker].begin(real.token)

    def _lease(self, lease: Lease) -> None:
        token = self.owners[lease.worker].token
        if lease.act == "take over":
            self._run_out(1)
        if lease.act in ("claim", "take over"):
            self._claim(lease.worker, is_lost=lease.is_lost)
        elif lease.act == "renew":
            real = told(lambda: self.real.renew(token, LEASE_MS))
            same("renew", real, told(lambda: self.model.renew(token)))
        else:
            real = told(lambda: self.real.release(token))
            same("release", real, told(lambda: self.model.release(token)))

    def _send(self, send: Send) -> None:
        real = told(lambda: self.real.send(send.batch, backlog=BACKLOG, hours=SENT_HOURS))
        new = [one for one in real if one and one[0] != "="] if real != WRONG_TYPE else []
        model = told(lambda: self.model.send(send.batch, BACKLOG, SENT_HOURS, iter(new)))
        same("send", real, model)
        self._accept(new)

    def _replay(self, replay: Replay) -> None:
        there = told(self.real.letter_ids)
        there = [] if there == WRONG_TYPE else there
        backlog = len(self._entries()) + replay.room
        if not replay.is_again:
            ids = dict(enumerate(there))
            self.last_replay = [ids.get(pick, "1-1") for pick in replay.picks]
        places = [there.index(one) if one in there else None for one in self.last_replay]
        real = told(lambda: self.real.replay(self.last_replay, backlog=backlog))
        new = [one for one in real if one] if real != WRONG_TYPE else []
        same("replay", real, told(lambda: self.model.replay(places, backlog, iter(new))))
        self._accept(new)

    def _unhold(self, unhold: Unhold) -> None:
        rows = [*self.model.rows().items(), ("1-1", HELD)]
        entry_id, row = rows[min(unhold.pick, len(rows) - 1)]
        row = "seen before" if unhold.is_stale else row
        is_waiting = any(one[ID] == entry_id for one in self._entries())
        real = told(lambda: self.real.unhold(entry_id, row, drops=unhold.drops))
        model = told(lambda: self.model.unhold(entry_id, row, drops=unhold.drops))
        same("unhold", real, model)
        if real is True:
            self.released.add(entry_id)
            if unhold.drops and is_waiting:
                self.finished.append(EntryId(entry_id))

    def _accept(self, new: Iterable[str]) -> None:
        for entry_id in new:
            assert id_key(entry_id) > id_key(self.newest), "ids only grow"
            self.newest = EntryId(entry_id)
        self.accepted |= {*new}

    def _call(self, call: Call) -> None:
        owner = self._caller(call.caller)
        if len(self._entries()) < 2:
            self._send(FIRST)
        used: set[str] = set()
        held: set[str] = set()
        operations: list[Operation] = []
        for plan in call.plans:
            entry_id = self._pick(plan, used, held)
            if entry_id or plan.kind is Emit:
                operations.append(owner.fill(plan, entry_id, self.model))
        owner.last_call = (operations, call.kept, call.is_young)
        self._carry_out(owner, call.beside, is_resent=call.is_resent, is_lost=call.is_lost)

    def _call_again(self, again: CallAgain) -> None:
        owner = self._caller(again.caller)
        if owner.last_call:
            self._carry_out(owner, "", is_resent=True, is_lost=again.is_lost)

    def _carry_out(self, owner: Owner, beside: str, *, is_resent: bool, is_lost: bool) -> None:
        assert owner.last_call
        operations, kept, is_young = owner.last_call
        token = owner.token
        more = {
            "token": token,
            "is_resent": is_resent,
            "retention": kept,
            "aging": () if is_young else None,
            # A worker knows of all rows that there are.
            "has_failures": self.model.keys.attempts(ZERO) in self.model.data,
        }
        real = told(lambda: self.real.call(*operations, beside=beside, **more))
        model = told(
            lambda: self.model.call(token, operations, kept, is_resent=is_resent, is_young=is_young)
        )
        same("answers", real, model)
        answers = real if isinstance(real, list) else []
        for operation, answer in zip(operations, answers, strict=bool(answers)):
            if isinstance(operation, Commit | Bury) and answer == DONE:
                self.finished.append(operation.entry_id)
        if not is_lost and any(answer != DONE for answer in answers or [None]):
            owner.drop_instances()

    def _caller(self, name: str) -> Owner:
        """A worker by name, or the one that owns the partition; where none does, one claims it."""
        if name != "owner":
            return self.owners[name]
        lease = self.model.found(self.model.keys.lease(ZERO), dict[str, str])
        owner = self.owners[lease.get("owner") or "a"]
        if owner.token != lease.get("token"):
            self._claim(lease.get("owner") or "a", is_lost=False)
        return owner

    def _pick(self, plan: Plan, used: set[str], held: set[str]) -> EntryId:
        """An entry that is not finished, each once in a call; or, by -1, one that is.

        In one call a held entry can only be finished: until it is answered nobody releases it.
        """
        waiting = [
            one[ID]
            for one in self._entries()
            if one["s"] == (plan.scope or "s")
            and one[ID] not in used
            and not (plan.kind in (Fail, Hold) and one[ID] in held)
        ]
        if plan.pick < 0:
            return self.finished[-1] if self.finished and plan.kind is not Emit else EntryId("")
        if not waiting:
            return EntryId("")
        entry_id = EntryId(waiting[min(plan.pick, len(waiting) - 1)])
        if plan.kind in (Commit, Bury):
            used.add(entry_id)
        elif plan.kind is Hold:
            held.add(entry_id)
        return entry_id

    def _entries(self) -> list[Record]:
        return self.model.found(self.model.keys.entries(ZERO), list[Record])

    def _keys(self) -> list[str]:
        keys = self.model.keys
        return [
            *(keys.entries(ZERO), keys.lease(ZERO), keys.attempts(ZERO), keys.dead(ZERO)),
            *(keys.replies(ZERO, "s"), keys.replies(ZERO, "t"), keys.inbox(ZERO, "i")),
            *(keys.state(ZERO, "s"), keys.sent(ZERO, "k"), keys.sent(ZERO, "l")),
        ]

    def _remove(self, key: str) -> None:
        self.real.command("DEL", key)
        self.model.remove(key)

    def _history_changed(self) -> None:
        """What was promised of entries until now does not hold any more."""
        self.accepted = {one[ID] for one in self._entries()}
        self.finished.clear()
        self.newest = EntryId("0-0")


def told(act: Callable[[], Any]) -> Any:
    """What one side answers, be it that a key has the wrong type."""
    try:
        return act()
    except WrongType:
        return WRONG_TYPE
    except StoreError as error:
        if is_wrong_type(error):
            return WRONG_TYPE
        raise


def same(what: str, real: object, model: object) -> None:
    assert real == model, f"{what}: the scripts say\n  {real}\nand the model\n  {model}"


def _name(record: Record) -> tuple[str | None, ...]:
    return record.get("i"), record.get("n"), record.get("a")


def beside_model(real: Real) -> type[ScriptsBesideModel]:
    """The machine on one server; its `examples` counts what was run."""
    return type("Scripts", (ScriptsBesideModel,), {"real": real})


def run_machine(
    machine: type[ScriptsBesideModel], seeds: Iterable[int], phases: Collection[Phase]
) -> None:
    """Run a machine once for each seed.

    Many short runs see more than a long one: Hypothesis fills a run with variations of what it
    found in it. Two of a run's examples are trivial, so that it should not be too short either.
    """
    options = settings(max_examples=RUN, stateful_step_count=30, phases=phases)
    for number in seeds:
        run_state_machine_as_test(seed(number)(machine), settings=options)
