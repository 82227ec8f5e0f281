"""The same partition on a real server: acted on by the product's own functions, looked at whole."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any, Self

from tests.broker.model import ELSE, HOUR_MS, ID, LIVE, NOW, Record, Value, is_short
from tests.broker.neighbours import call_beside
from tests.broker.tenure import ZERO, Tenure, tenure
from wherry.broker.commits import Answer, Commit
from wherry.broker.connect import Store
from wherry.broker.deadletters import replay_letters
from wherry.broker.leases import Claimed
from wherry.broker.renewing import renew_held
from wherry.broker.scripts import Scripts
from wherry.broker.streams import SendTerms, send_entries
from wherry.errors import StoreError, WherryError
from wherry.model import Outgoing, Token

NODE = 4
"""Records in a node of a stream: Redis trims whole nodes, and tests want to see it trim."""

LOOK = """
local found = {}
for _, key in ipairs(redis.call('KEYS', '*')) do
  local kind = redis.call('TYPE', key)
  kind = type(kind) == 'table' and kind.ok or kind
  local read = ({stream = {'XRANGE', key, '-', '+'}, hash = {'HGETALL', key},
    string = {'GET', key}})[kind] or {'SMEMBERS', key}
  found[#found + 1] = {key, kind, redis.call(unpack(read)), redis.call('PTTL', key),
    redis.call('DUMP', key)}
end
return {redis.call('TIME'), found}
"""


@dataclass(frozen=True, slots=True)
class Seen:
    """All keys of a server at one moment, as the model has them.

    Attributes:
        data: values.
        hours: hours to live, rounded up, of the keys that do not live for ever.
        dumps: key -> milliseconds to live, and bytes: what `Real.restore` takes.
    """

    data: dict[str, Value]
    hours: dict[str, int]
    dumps: dict[str, tuple[int, bytes]]


class Real:
    """A server with one namespace; its coroutines are run to their end, one after another.

    Attributes:
        scripts: what is run; replace one to break it.
        node: how many records more than asked a stream may keep.
    """

    def __init__(self, store: Store) -> None:
        self._runner = asyncio.Runner()
        self._stack = AsyncExitStack()
        self._tenure: Tenure = self._run(self._stack.enter_async_context(tenure(store)))
        self.keys = self._tenure.keys
        self.meta = self._tenure.meta
        self.node = 100 if store.is_memory else NODE
        self._configure(self.node)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._configure(100)
        self._run(self._stack.aclose())
        self._runner.close()

    @property
    def scripts(self) -> Scripts:
        return self._tenure.scripts

    def claim(self, worker: str, ttl_ms: int) -> Claimed | None:
        taken = self._run(self._tenure.leases(worker, ttl_ms).claim([ZERO]))
        return taken[0] if taken else None

    def renew(self, token: Token, ttl_ms: int) -> bool:
        renewal = renew_held(
            self._tenure.link, self.scripts.renew, self.keys, [(ZERO, token)], ttl_ms
        )
        return self._run(renewal)[0]

    def release(self, token: Token) -> bool:
        return self._run(self._tenure.leases("any").release(ZERO, token))

    def send(self, batch: Sequence[Outgoing], *, backlog: int, hours: int) -> list[str]:
        terms = SendTerms(backlog=backlog, dedup_ttl_ms=hours * HOUR_MS)
        answers, _ = self._run(
            send_entries(self._tenure.link, self.scripts.send, self.keys, {ZERO: batch}, terms)
        )
        if isinstance(answers[ZERO], WherryError):
            raise answers[ZERO]
        return answers[ZERO]

    def call(self, *operations: Any, beside: str = "", **more: Any) -> Any:
        sent = [_shortest(operation) for operation in operations]
        if not beside:
            return self._run(self._tenure.call(*sent, **more))
        return self._run(call_beside(self._tenure, sent, beside, **more))

    def letter_ids(self) -> list[str]:
        letters = self.command("XRANGE", self.keys.dead(ZERO), "-", "+")
        return [letter_id.decode() for letter_id, _ in letters]

    def replay(self, letter_ids: Sequence[str], *, backlog: int) -> list[str | None]:
        link, script = self._tenure.link, self.scripts.replay
        return self._run(replay_letters(link, script, self.keys, ZERO, letter_ids, backlog=backlog))

    def unhold(self, entry_id: str, row: str, *, drops: bool) -> bool:
        """What `release_held` does when it has seen this row."""
        names = (self.keys.entries(ZERO), self.keys.attempts(ZERO))
        about = (entry_id, int(drops), row, self.keys.released)
        return self._run(self.scripts.unhold.run(self._tenure.link, names, about)) == 1

    def command(self, *command: Any) -> Any:
        return self._run(self._tenure.link.call(*command))

    def look(self) -> Seen:
        """Read every key of the server but the namespace's meta hash, which no script writes."""
        time, found = self.command("EVAL", LOOK, 0)
        now_ms = int(time[0]) * 1000 + int(time[1]) // 1000
        seen = Seen({}, {}, {})
        for name, kind, raw, ttl_ms, dump in found:
            key = name.decode()
            if key == self.keys.meta:
                continue
            seen.dumps[key] = (ttl_ms, dump)
            if ttl_ms >= 0:
                seen.hours[key] = _hours(ttl_ms)
            if value := self._value(key, kind.decode(), raw, now_ms):
                seen.data[key] = value
        return seen

    def restore(self, dumps: dict[str, tuple[int, bytes]]) -> None:
        """Let the server go back to what it held."""
        self.clear()
        for key, (ttl_ms, dump) in dumps.items():
            self.command("RESTORE", key, max(ttl_ms, 0), dump)

    def clear(self) -> None:
        names = [name for name in self.command("KEYS", "*") if name.decode() != self.keys.meta]
        if names:
            self.command("DEL", *names)

    def _value(self, key: str, kind: str, raw: Any, now_ms: int) -> Value:
        if kind == "stream":
            is_input = key == self.keys.entries(ZERO)
            return [
                ({ID: entry_id.decode()} if is_input else {}) | _record(flat, now_ms)
                for entry_id, flat in raw
            ]
        if kind == "hash":
            return _record(raw, now_ms)
        return raw.decode() if kind == "string" else ELSE

    def _configure(self, node: int) -> None:
        if self.node != 100:
            self.command("CONFIG", "SET", "stream-node-max-entries", node)

    def _run(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        # Runner.run sets and unsets a signal handler each time, which costs more than the rest.
        return self._runner.get_loop().run_until_complete(coroutine)


def is_wrong_type(error: StoreError) -> bool:
    return "WRONGTYPE" in str(error)


def _hours(ms: int) -> int:
    return -(-ms // HOUR_MS)


def _record(flat: list[bytes], now_ms: int) -> Record:
    """A record with its moments put into words, as the model has them."""
    parts = [part.decode() for part in flat]
    record = dict(zip(parts[::2], parts[1::2], strict=True))
    if "expiry" in record and _hours(int(record["expiry"]) - now_ms) == 1:
        record["expiry"] = LIVE
    for name in ("when", "unclean"):
        if name in record and 0 <= now_ms - int(record[name]) < HOUR_MS:
            record[name] = NOW
    return record


def _shortest(operation: Any) -> Any:
    """A commit of one reply, and maybe a new state, and nothing else, as workers send it."""
    if not isinstance(operation, Commit) or not is_short(operation):
        return operation
    return Answer(operation.entry_id, operation.scope_id, operation.replies[0], operation.state)
