"""What a worker does with messages: each on a real server, seen from outside."""

from __future__ import annotations

import asyncio
import copy
import time
from typing import Any

import msgpack
import pytest

from tests.e2e.rig import Notes, as_json, echo, packed, rig, until, working
from wherry import Worker
from wherry.errors import RepliesTooLarge


async def test_messages_of_each_scope_are_answered_in_order(redis_url: str):
    async with rig(redis_url) as seen, working(echo, redis_url):
        ids = await seen.send_many([(f"s{n % 50}", n) for n in range(3000)])
        await seen.drained()
        for scope in range(50):
            replies = await seen.replies(f"s{scope}")
            assert [one.message["number"] for one in replies if one.message] == list(
                range(scope, 3000, 50)
            )
            assert [one.cause for one in replies] == ids[scope::50]
            assert {(one.index, one.count, one.scope_id) for one in replies} == {
                (0, None, f"s{scope}")
            }


async def test_what_was_sent_before_the_first_worker_is_answered(redis_url: str):
    async with rig(redis_url) as seen:
        await seen.send_many([("early", n) for n in range(300)])
        async with working(echo, redis_url):
            await seen.drained()
        assert await seen.numbers("early") == list(range(300))


async def test_scope_and_message_carry_what_is_promised(redis_url: str):
    got: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        got.append((scope, await receive()))

    async with rig(redis_url) as seen, working(app, redis_url, channel="orders"):
        headers = msgpack.packb({"traceparent": "00-ab"})
        entry = await seen.send("a", {"type": "t", "deep": {"x": [1, b"2"]}}, h=headers)
        await seen.drained()
        scope, message = got[0]
        assert message == {
            "type": "t",
            "deep": {"x": [1, b"2"]},
            "wherry": {"id": entry, "attempt": 1, "headers": {"traceparent": "00-ab"}},
        }
        assert {key: scope[key] for key in ("type", "channel", "scope_id", "state")} == {
            "type": "channel",
            "channel": "orders",
            "scope_id": "a",
            "state": {},
        }
        assert scope["asgi"]["version"] == "3.0"
        assert "durable" not in scope


async def test_each_instance_gets_a_fresh_scope(redis_url: str):
    scopes: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        scopes.append((copy.deepcopy(scope), scope))
        scope["mine"] = scope["state"]["mine"] = True
        for name in ("asgi", "extensions"):
            with pytest.raises(TypeError, match="put a changed copy in its place"):
                scope[name]["mine"] = True
            scope[name] = {**scope[name], "mine": True}
        await receive()

    async with rig(redis_url) as seen, working(app, redis_url):
        await seen.send_many([("a", 1), ("a", 2), ("b", 3)])
        await seen.drained()
        assert len(scopes) == 3
        for before, _ in scopes:
            assert "mine" not in before
            assert "mine" not in before["asgi"]
            assert "mine" not in before["extensions"]
            assert before["state"] == {}
        assert len({id(scope) for _, scope in scopes}) == 3
        assert len({id(scope["state"]) for _, scope in scopes}) == 3


async def test_one_message_functions_see_every_message(redis_url: str):
    async def app(scope: Any, receive: Any, send: Any) -> None:
        message = await receive()
        await send({"type": "one", "number": message["number"]})

    async with rig(redis_url) as seen, working(app, redis_url):
        await seen.send_many([(f"s{n % 7}", n) for n in range(700)])
        await seen.drained()
        for scope in range(7):
            assert await seen.numbers(f"s{scope}") == list(range(scope, 700, 7))


async def test_asgi_2_application_is_served(redis_url: str):
    class Old:
        def __init__(self, scope: Any) -> None:
            self.scope = scope

        async def __call__(self, receive: Any, send: Any) -> None:
            await echo(self.scope, receive, send)

    async with rig(redis_url) as seen, working(Old, redis_url):
        await seen.send("a", 1)
        await seen.answered("a", 1)


async def test_overridden_handle_and_application_send_are_used(redis_url: str):
    handled: list[Worker] = []
    sent: list[tuple[str, Any]] = []

    class Mine(Worker):
        async def handle(self) -> None:
            handled.append(self)
            await super().handle()

        async def application_send(self, scope: Any, message: Any) -> None:
            sent.append((scope["scope_id"], message["number"]))
            await super().application_send(scope, {**message, "number": -message["number"]})

    async with rig(redis_url) as seen, working(echo, redis_url, kind=Mine):
        await seen.send_many([("a", 1), ("a", 2), ("b", 3)])
        await seen.drained()
        assert len(handled) == 1
        assert sorted(sent) == [("a", 1), ("a", 2), ("b", 3)]
        assert await seen.numbers("a") == [-1, -2]


async def test_get_or_create_can_be_overridden(redis_url: str):
    asked: list[Any] = []

    class Mine(Worker):
        def get_or_create_application_instance(self, scope_id: Any, scope: Any) -> Any:
            asked.append(scope_id)
            return super().get_or_create_application_instance(scope_id, scope)

    async with rig(redis_url) as seen, working(echo, redis_url, kind=Mine):
        await seen.send("a", 1)
        await seen.answered("a", 1)
        assert "a" in asked


async def test_json_entries_are_handled(redis_url: str):
    async with rig(redis_url) as seen, working(echo, redis_url):
        text = as_json({"type": "t", "number": 5, "text": "grüß"})
        await seen.send_fields("a", "s", "a", "j", text)
        (reply,) = await seen.answered("a", 1)
        assert reply.message == {"type": "echo", "number": 5}


async def test_unknown_fields_are_ignored(redis_url: str):
    async with rig(redis_url) as seen, working(echo, redis_url):
        await seen.send("a", 1, zz="what", o="1-1", q=b"\xff\x00")
        await seen.answered("a", 1)
        assert await seen.dead() == []


MALFORMED: dict[str, tuple[Any, ...]] = {
    "no scope": ("m", packed(1)),
    "empty scope": ("s", "", "m", packed(1)),
    "scope of an inbox": ("s", "~x", "m", packed(1)),
    "scope not utf-8": ("s", b"\xff\xfe", "m", packed(1)),
    "scope too long": ("s", "x" * 513, "m", packed(1)),
    "no message": ("s", "a"),
    "not msgpack": ("s", "a", "m", b"\xc1\xff"),
    "truncated": ("s", "a", "m", packed(1)[:-1]),
    "no map": ("s", "a", "m", msgpack.packb([1])),
    "no type": ("s", "a", "m", msgpack.packb({"number": 1})),
    "odd type": ("s", "a", "m", msgpack.packb({"type": 1})),
    "extension type": ("s", "a", "m", msgpack.packb({"type": "t", "x": msgpack.ExtType(5, b"x")})),
    "not JSON": ("s", "a", "j", "{"),
    "JSON list": ("s", "a", "j", "[1]"),
    "deep JSON": ("s", "a", "j", "[" * 100_000),
    "too large": ("s", "a", "m", packed({"type": "t", "x": "x" * 200_000})),
    "keys no map": ("s", "a", "m", packed(1), "c", msgpack.packb([1])),
    "keys not msgpack": ("s", "a", "m", packed(1), "c", b"\xc1"),
    "keys set state": ("s", "a", "m", packed(1), "c", msgpack.packb({"state": {}})),
    "keys set durable": ("s", "a", "m", packed(1), "c", msgpack.packb({"durable": {}})),
    "keys set lifespan": ("s", "a", "m", packed(1), "c", msgpack.packb({"type": "lifespan"})),
    "expiry no number": ("s", "a", "m", packed(1), "x", "soon"),
    "mark no number": ("s", "a", "m", packed(1), "w", "-1"),
    "headers no map": ("s", "a", "m", packed(1), "h", b"\x01"),
    "list as a key": ("s", "a", "m", b"\x82\xa4type\xa1n\x90\xc0"),
    "map as a key of keys": ("s", "a", "m", packed(1), "c", b"\x81\x80\xc0"),
    "list as a key of headers": ("s", "a", "m", packed(1), "h", b"\x81\x90\xc0"),
    "deep scope type": ("s", "a", "m", packed(1), "c", b"\x81\xa4type" + b"\x91" * 990 + b"\xc0"),
}


async def test_malformed_entries_go_to_the_dead_letters_and_others_go_on(redis_url: str):
    async with rig(redis_url) as seen:
        ids: dict[str, str] = {}
        for n, (name, fields) in enumerate(MALFORMED.items()):
            await seen.send("a", n)
            ids[name] = await seen.send_fields("a", *fields, "r", "box")
        await seen.send("a", len(MALFORMED))
        async with working(echo, redis_url, message_bytes=100_000):
            await seen.drained()
        dead = {one["id"].decode(): one for one in await seen.dead()}
        assert set(dead) == set(ids.values())
        for name, entry_id in ids.items():
            assert dead[entry_id]["error"].startswith(b"Malformed: "), name
            assert dead[entry_id]["r"] == b"box"
            for field, value in zip(MALFORMED[name][::2], MALFORMED[name][1::2], strict=True):
                raw = value if isinstance(value, bytes) else value.encode()
                assert dead[entry_id][field] == raw, name
        told = {one.cause: one.error for one in await seen.replies("", inbox="box")}
        # The inbox of what has no usable scope id is in the partition where the entry was.
        inbox = {one.cause for one in await seen.replies("a", inbox="box") if one.error}
        assert inbox | set(told) == set(ids.values())
        assert await seen.numbers("a") == list(range(len(MALFORMED) + 1))


async def test_retry_gets_a_fresh_message_after_a_pause(redis_url: str):
    seen_by_app: list[tuple[float, Any]] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        while True:
            message = await receive()
            seen_by_app.append((time.monotonic(), message))
            await send({"type": "half", "number": -1})
            if message["wherry"]["attempt"] < 3 and message["number"] == 2:
                message["list"].append("changed")
                message["number"] = 99
                raise ValueError("not yet")
            await send({"type": "whole", "number": message["number"]})

    hooks = Notes()
    async with (
        rig(redis_url) as seen,
        working(app, redis_url, retry_backoff_s=0.2, hooks=hooks),
    ):
        for number in (1, 2, 3):
            await seen.send("a", {"type": "t", "number": number, "list": []})
        await seen.drained()
        assert await seen.numbers("a") == [-1, 1, -1, 2, -1, 3]
        tries = [(at, m) for at, m in seen_by_app if m["wherry"]["attempt"] > 1 or "list" in m]
        twos = [(at, m) for at, m in tries if m["number"] in (2, 99)]
        assert [m["wherry"]["attempt"] for _, m in twos] == [1, 2, 3]
        assert twos[2][1]["list"] == []
        assert twos[1][0] - twos[0][0] >= 0.1
        assert twos[2][0] - twos[1][0] >= 0.2
        assert [str(one) for one in hooks.errors] == ["not yet", "not yet"]
        assert await seen.leftovers() == set()


async def test_scope_that_fails_waits_and_others_do_not(redis_url: str):
    async def app(scope: Any, receive: Any, send: Any) -> None:
        while True:
            message = await receive()
            if scope["scope_id"] == "bad" and message["number"] == 0:
                raise ValueError("never")
            await send({"type": "t", "number": message["number"]})

    async with rig(redis_url) as seen, working(app, redis_url, retry_backoff_s=30.0):
        await seen.send_many([("bad", 0), ("bad", 1), *((f"s{n}", n) for n in range(50))])
        for number in range(50):
            await seen.answered(f"s{number}", 1)
        assert await seen.replies("bad") == []
        assert await seen.backlog() == 2


async def test_last_attempt_makes_a_dead_letter_and_the_scope_goes_on(redis_url: str):
    async def app(scope: Any, receive: Any, send: Any) -> None:
        while True:
            message = await receive()
            await send({"type": "t", "number": message["number"]})
            if message["number"] == 2:
                raise ValueError("poison \udcff")

    async with rig(redis_url) as seen, working(app, redis_url, max_attempts=3):
        ids = [await seen.send("a", number, r="box", w="1") for number in (1, 2, 3)]
        await seen.drained()
        (letter,) = await seen.dead()
        assert letter["id"].decode() == ids[1]
        assert letter["attempts"] == b"3"
        assert letter["error"].startswith(b"ValueError: poison")
        assert b"raise ValueError" in letter["traceback"]
        assert letter["m"] == packed(2)
        for replies in (await seen.replies("a"), await seen.replies("a", inbox="box")):
            assert [one.message and one.message["number"] for one in replies] == [1, None, 3]
            assert [one.count for one in replies] == [1, None, 1]
            assert replies[1].error is not None
            assert replies[1].error.startswith("ValueError: poison")
            assert replies[1].cause == ids[1]
        assert await seen.leftovers() == {seen.keys.dead(seen.partition("a"))}


class Silly(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no text")


@pytest.mark.parametrize("error", [Silly(), ValueError("\ud800"), ValueError("x" * 100_000)])
async def test_errors_with_odd_texts_are_failed_attempts_like_others(
    redis_url: str, error: Exception
):
    async def app(scope: Any, receive: Any, send: Any) -> None:
        while True:
            message = await receive()
            if message["number"] == 0:
                raise error
            await send(message)

    async with rig(redis_url) as seen, working(app, redis_url, max_attempts=2):
        await seen.send_many([("a", 0), ("a", 1)])
        assert [one.error is None for one in await seen.answered("a", 2)] == [False, True]
        assert len(await seen.dead()) == 1


async def test_attempts_are_counted_on_by_the_next_worker(redis_url: str):
    attempts: list[int] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        message = await receive()
        attempts.append(message["wherry"]["attempt"])
        raise ValueError("no")

    async with rig(redis_url) as seen:
        async with working(app, redis_url, retry_backoff_s=0.3, max_attempts=4):
            await seen.send("a", 1)
            await until(lambda: len(attempts) == 2)
        started = time.monotonic()
        async with working(app, redis_url, retry_backoff_s=0.3, max_attempts=4):
            await seen.drained()
        assert attempts == [1, 2, 3, 4]
        assert time.monotonic() - started > 0.15, "the pause before the third attempt was kept"
        assert len(await seen.dead()) == 1
        assert await seen.link.call("EXISTS", seen.keys.attempts(seen.partition("a"))) == 0


async def test_row_that_cannot_be_read_goes_with_its_entry(redis_url: str):
    hooks = Notes()
    async with rig(redis_url) as seen:
        entry_id = await seen.send("a", 1)
        key = seen.keys.attempts(seen.partition("a"))
        await seen.link.call("HSET", key, entry_id, b"no row")
        async with working(echo, redis_url, hooks=hooks):
            await seen.drained()
        assert await seen.numbers("a") == [1]
        assert hooks.count("an attempts row cannot be read") == 1
        assert await seen.link.call("EXISTS", key) == 0


async def test_application_that_returns_without_receiving_fails_an_attempt(redis_url: str):
    calls = 0

    async def app(scope: Any, receive: Any, send: Any) -> None:
        nonlocal calls
        calls += 1

    async with rig(redis_url) as seen, working(app, redis_url, max_attempts=3):
        await seen.send_many([("a", 1), ("a", 2)])
        await seen.drained()
        assert calls == 6
        assert len(await seen.dead()) == 2


async def test_expired_message_is_told_of_and_not_handled(redis_url: str):
    handled: list[int] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        while True:
            handled.append((await receive())["number"])

    async with rig(redis_url) as seen:
        now_ms = int(time.time() * 1000)
        await seen.send("a", 1, x=now_ms - 1, r="box")
        await seen.send("a", 2, x=now_ms + 60_000)
        async with working(app, redis_url):
            await seen.drained()
        assert handled == [2]
        (told,) = await seen.replies("a", inbox="box")
        assert told.error is not None
        assert told.error.startswith("Expired")
        assert await seen.dead() == []


async def test_message_that_expires_behind_a_slow_one_is_not_handled(redis_url: str):
    handled: list[int] = []
    gate = asyncio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        while True:
            handled.append((await receive())["number"])
            if handled[-1] == 1:
                await gate.wait()

    async with rig(redis_url) as seen, working(app, redis_url) as worker:
        await seen.send("a", 1)
        expiry = int(time.time() * 1000) + 200
        await seen.send("a", 2, x=expiry, r="box")
        await seen.send("a", 3)
        await until(lambda: worker.application_instances.get("a") is not None and handled == [1])
        await until(lambda: worker.application_instances["a"]["input_queue"].qsize() == 2)
        await until(lambda: time.time() * 1000 > expiry + 50)
        gate.set()
        await seen.drained()
        assert handled == [1, 3]
        (told,) = await seen.replies("a", inbox="box")
        assert told.error is not None
        assert told.error.startswith("Expired")


async def test_other_scope_keys_end_the_idle_instance_and_make_another(redis_url: str):
    scopes: list[tuple[Any, list[int]]] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        numbers: list[int] = []
        scopes.append((scope.get("user"), numbers))
        while True:
            message = await receive()
            numbers.append(message["number"])
            await send({"type": "t", "number": message["number"]})

    def keys(user: str) -> dict[str, Any]:
        return {"c": msgpack.packb({"user": user})}

    async with rig(redis_url) as seen, working(app, redis_url):
        for number, extra in enumerate([keys("x"), keys("x"), keys("y"), {}, keys("y")]):
            await seen.send("a", number, **extra)
        await seen.drained()
        assert scopes == [("x", [0, 1]), ("y", [2]), (None, [3]), ("y", [4])]
        assert await seen.numbers("a") == [0, 1, 2, 3, 4]


async def test_flush_and_stream_write_replies_before_the_commit(redis_url: str):
    gate = asyncio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        while True:
            message = await receive()
            await send({"type": "t", "number": 0})
            if message.get("flush"):
                await send({"type": "wherry.flush"})
            await send({"type": "t", "number": 1})
            await gate.wait()
            await send({"type": "t", "number": 2})

    async with rig(redis_url) as seen, working(app, redis_url) as worker:
        one = await seen.send("flush", {"type": "t", "flush": True}, w="1", r="box")
        two = await seen.send("stream", {"type": "t"}, w="2")
        held = await seen.send("held", {"type": "t"}, w="1")
        for scope in ("flush", "stream"):
            first = await seen.answered(scope, 2)
            assert [(r.index, r.count) for r in first] == [(0, None), (1, None)]
            assert len({r.attempt for r in first}) == 1
            assert "." in first[0].attempt
        assert await seen.replies("held") == []
        gate.set()
        await seen.drained()
        for scope, cause in (("flush", one), ("stream", two), ("held", held)):
            replies = await seen.replies(scope)
            assert [r.index for r in replies if r.message] == [0, 1, 2]
            assert [r.cause for r in replies] == [cause] * len(replies)
            assert replies[-1].count == 3
            epochs = {r.attempt for r in replies if r.attempt}
            assert len(epochs) == 1
            assert [r.count for r in replies[:-1]] == [None] * (len(replies) - 1)
        assert [r.index for r in await seen.replies("flush", inbox="box") if r.message] == [0, 1, 2]
        assert worker.application_instances["flush"]["input_queue"].empty()


@pytest.mark.parametrize("mark", ["1", "2"])
async def test_retried_stream_begins_anew_with_another_attempt(redis_url: str, mark: str):
    async def app(scope: Any, receive: Any, send: Any) -> None:
        while True:
            message = await receive()
            attempt = message["wherry"]["attempt"]
            await send({"type": "t", "number": 10 * attempt})
            if mark == "1":
                await send({"type": "wherry.flush"})
            await send({"type": "t", "number": 10 * attempt + 1})
            if attempt == 1:
                raise ValueError("cut")

    async with rig(redis_url) as seen, working(app, redis_url):
        await seen.send("a", 1, w=mark)
        await seen.drained()
        replies = await seen.replies("a")
        carried = [(r.index, r.message["number"]) for r in replies if r.message]
        assert carried == [(0, 10), (1, 11), (0, 20), (1, 21)]
        attempts = [r.attempt for r in replies]
        assert attempts[0] == attempts[1] != attempts[2] == attempts[3], "both were streamed"
        assert replies[-1].count == 2
        assert replies[-1].attempt == attempts[2]


async def test_sends_outside_any_message_go_out_at_once_without_a_cause(redis_url: str):
    gate = asyncio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "hello", "number": 1})
        await gate.wait()
        await receive()
        await send({"type": "t", "number": 2})
        task = asyncio.create_task(receive())
        await asyncio.sleep(0)
        await send({"type": "later", "number": 3})
        await task

    async with rig(redis_url) as seen, working(app, redis_url):
        entry = await seen.send("a", 1)
        (hello,) = await seen.answered("a", 1)
        assert (hello.cause, hello.index, hello.attempt) == ("", 0, "")
        gate.set()
        replies = await seen.answered("a", 3)
        assert [(r.message["number"], r.cause) for r in replies if r.message] == [
            (1, ""),
            (2, entry),
            (3, ""),
        ]
        await seen.drained()


async def test_held_replies_are_bounded_in_count_and_bytes(redis_url: str):
    raised: list[str] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        while True:
            await receive()
            count = 0
            try:
                while True:
                    await send({"type": "t", "number": count, "x": "x" * 1000})
                    count += 1
            except RepliesTooLarge as error:
                raised.append(str(error))
            await send({"type": "wherry.flush"})
            await send({"type": "t", "number": -1})

    async with rig(redis_url) as seen:
        cases: dict[str, dict[str, Any]] = {
            "a": {"replies_held": 7},
            "b": {"replies_held_bytes": 5_500},
        }
        for name, bounds in cases.items():
            async with working(app, redis_url, **bounds):
                await seen.send(name, 1)
                await seen.drained()
        assert await seen.numbers("a") == [*range(7), -1]
        assert await seen.numbers("b") == [*range(5), -1]
        assert len(raised) == 2
        assert "wherry.flush" in raised[0]


async def test_long_held_replies_are_mentioned_once(redis_url: str):
    hooks = Notes()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        while True:
            await receive()
            await send({"type": "t", "number": 1})
            await asyncio.sleep(1.05)
            await send({"type": "t", "number": 2})

    async with rig(redis_url) as seen, working(app, redis_url, hooks=hooks):
        await seen.send_many([("a", 1), ("b", 1)])
        await seen.drained()
        assert hooks.count("held for over a second") == 1


async def test_replies_that_cannot_travel_raise_out_of_send(redis_url: str):
    raised: list[str] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        while True:
            await receive()
            for odd in (
                {"type": 1},
                {},
                {"type": "t", "x": float("nan")},
                {"type": "t", "x": 2**64},
            ):
                try:
                    await send(odd)
                except Exception as error:  # noqa: BLE001 - looked at below
                    raised.append(type(error).__name__)
            await send({"type": "t", "number": 1, "unknown": {"x": b"1"}})

    async with rig(redis_url) as seen, working(app, redis_url):
        await seen.send("a", 1)
        await seen.answered("a", 1)
        assert raised == ["MessageError"] * 4


async def test_ack_mode_finishes_by_ack_alone(redis_url: str):
    acked = asyncio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        first = await receive()
        waiting = asyncio.create_task(receive())
        await acked.wait()
        await send({"type": "t", "number": first["number"]})
        await send({"type": "message.ack", "id": first["wherry"]["id"]})
        second = await waiting
        await send({"type": "t", "number": second["number"]})
        await send({"type": "message.ack", "id": second["wherry"]["id"]})
        await receive()

    async with rig(redis_url) as seen, working(app, redis_url, ack_mode="on") as worker:
        one = await seen.send("a", 1)
        two = await seen.send("a", 2)
        await until(lambda: "a" in worker.application_instances)
        await until(lambda: worker.application_instances["a"]["input_queue"].empty())
        assert await seen.backlog() == 2
        acked.set()
        replies = await seen.answered("a", 2)
        assert [r.cause for r in replies] == [one, two]
        await seen.drained()


async def test_application_acks_from_its_first_ack_on(redis_url: str):
    async def app(scope: Any, receive: Any, send: Any) -> None:
        while True:
            message = await receive()
            await send({"type": "t", "number": message["number"]})
            await send({"type": "message.ack", "id": message["wherry"]["id"]})

    async with rig(redis_url) as seen, working(app, redis_url):
        await seen.send_many([("a", n) for n in range(100)])
        await seen.drained()
        assert await seen.numbers("a") == list(range(100))


async def test_unacked_messages_are_handled_again(redis_url: str):
    tries: list[int] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        first, second = await receive(), await receive()
        tries.append(first["wherry"]["attempt"])
        await send({"type": "t", "number": first["number"], "wherry": first["wherry"]})
        await send({"type": "t", "number": second["number"], "wherry": second["wherry"]})
        await send({"type": "message.ack", "id": second["wherry"]["id"]})
        if first["wherry"]["attempt"] > 1:
            await send({"type": "message.ack", "id": first["wherry"]["id"]})
            await receive()

    async with rig(redis_url) as seen, working(app, redis_url, ack_mode="on"):
        await seen.send_many([("a", 1), ("a", 2), ("a", 3)])
        await seen.drained()
        assert tries == [1, 2]
        assert sorted(await seen.numbers("a")) == [1, 2, 3]


async def test_instance_ended_by_the_user_loses_nothing(redis_url: str):
    """`delete_application_instance` is nobody's failure; the message is handled again, afresh."""
    got: list[tuple[int, int]] = []
    gate = asyncio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        while True:
            message = await receive()
            got.append((message["number"], message["wherry"]["attempt"]))
            message["number"] += 100
            await send({"type": "t", "number": message["number"] - 100})
            await gate.wait()

    async with rig(redis_url) as seen, working(app, redis_url) as worker:
        await seen.send_many([("a", 1), ("a", 2)])
        await until(lambda: got == [(1, 1)])
        worker.delete_application_instance("a")
        await until(lambda: len(got) == 2)
        gate.set()
        await seen.drained()
        assert got == [(1, 1), (1, 1), (2, 1)]
        assert await seen.numbers("a") == [1, 2]
