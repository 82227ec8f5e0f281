from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator

import msgpack
import pytest

from tests.client.owner import commands_sent, owner, say, until
from tests.proxy import proxy
from tests.servers import Server
from tests.servers_plugin import StartServer
from wherry.broker.connect import open_store
from wherry.client import Client, Envelope, outlets
from wherry.client.envelope import pack_plain
from wherry.client.outgoings import Batch, part
from wherry.client.outlets import Outlet
from wherry.config import Config
from wherry.errors import (
    BacklogFull,
    ClientClosed,
    ConfigError,
    MessageError,
    StoreError,
    StoreUnavailable,
    WrongLoop,
)
from wherry.model import Entry, Partition, id_key, partition_of


async def sent(url: str, scope: str, count: int) -> list[Entry]:
    async with owner(url) as reader:
        return await reader.entries(scope, count)


async def test_every_option_of_a_message_reaches_the_worker(url: str):
    before_ms = time.time() * 1000
    async with Client(url) as client:
        entry_id = await client.send(
            "scope",
            {"type": "say", "data": b"\x00", "text": "ä"},
            channel="route",
            scope_keys={"user": "ann", "age": 3},
            headers={"traceparent": "00"},
            message_id="m1",
            inbox="box",
            stream=True,
            expires_s=60.0,
        )
    (entry,) = await sent(url, "scope", 1)
    assert entry.id == entry_id
    assert entry.message == {"type": "say", "data": b"\x00", "text": "ä"}
    assert msgpack.unpackb(entry.extras.scope_keys) == {"age": 3, "channel": "route", "user": "ann"}
    assert entry.extras.headers == {"traceparent": "00"}
    assert (entry.extras.message_id, entry.extras.inbox, entry.extras.mark) == ("m1", "box", 2)
    assert before_ms + 60_000 - 1 <= entry.extras.expires_unix_ms <= time.time() * 1000 + 60_000


async def test_order_of_scope_keys_does_not_change_their_bytes(redis_url: str):
    async with Client(redis_url) as client:
        await client.send("scope", say(0), channel="c", scope_keys={"a": 1, "b": 2})
        await client.send("scope", say(1), channel="c", scope_keys={"b": 2, "a": 1})
    one, two = await sent(redis_url, "scope", 2)
    assert one.extras.scope_keys == two.extras.scope_keys


@pytest.mark.parametrize(
    ("scope", "message", "options", "sentence"),
    [
        ("", say(0), {}, "missing or empty"),
        ("~inbox", say(0), {}, "may not start with '~'"),
        ("x" * 513, say(0), {}, "513 bytes"),
        ("\ud800", say(0), {}, "not UTF-8"),
        ("scope", {"no": "type"}, {}, "'type'"),
        ("scope", {"type": "say", "value": float("nan")}, {}, "nan"),
        ("scope", {"type": "say", "value": 2**64}, {}, "packed"),
        ("scope", {"type": "say", "value": b"x" * 2**20}, {}, "bytes, more than"),
        ("scope", say(0), {"scope_keys": {"state": {}}}, "may not set state"),
        ("scope", say(0), {"scope_keys": {"type": "http"}}, "only 'channel'"),
        ("scope", say(0), {"scope_keys": {1: 2}}, "not a str"),
        ("scope", say(0), {"scope_keys": {"channel": "a"}, "channel": "b"}, "leave one out"),
        ("scope", say(0), {"channel": ""}, "channel has 0 bytes"),
        ("scope", say(0), {"message_id": ""}, "message_id has 0 bytes"),
        ("scope", say(0), {"inbox": "x" * 513}, "inbox has 513 bytes"),
        ("scope", say(0), {"expires_s": 0}, "above 0"),
        ("scope", say(0), {"headers": {"a": object()}}, "headers cannot be packed"),
    ],
)
async def test_what_cannot_be_sent_is_refused_without_connecting(
    scope: str, message: dict[str, object], options: dict[str, object], sentence: str
):
    async with Client("redis://127.0.0.1:1") as client:
        with pytest.raises(MessageError, match=sentence):
            await client.send(scope, message, **options)  # pyright: ignore[reportArgumentType]


async def test_concurrent_sends_share_writes(redis_url: str):
    store = open_store(redis_url)
    async with Client(store, partitions=4) as client:
        await client.send("warm", say(0))  # the script is known from here on
        link = store.link()
        await link.call("CONFIG", "RESETSTAT")
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(client.send(f"s{n}", say(n))) for n in range(1_000)]
        commands = await commands_sent(link)
        await link.aclose()
    assert commands["evalsha"] <= 2 * 4
    assert commands["xadd"] == 1_000
    assert len({(task.result(), n) for n, task in enumerate(tasks)}) == 1_000


async def test_order_of_calls_is_order_of_entries(url: str):
    async with Client(url) as client, asyncio.TaskGroup() as group:
        one = [group.create_task(client.send("scope", say(n))) for n in range(1_500)]
        many = group.create_task(client.send_many(("scope", say(n)) for n in range(1_500, 1_700)))
        last = group.create_task(client.send("scope", say(1_700)))
    entries = await sent(url, "scope", 1_701)
    assert [entry.message["number"] for entry in entries] == list(range(1_701))
    ids = [*(task.result() for task in one), *many.result(), last.result()]
    assert ids == [entry.id for entry in entries]
    assert sorted(ids, key=id_key) == ids


async def test_producer_waits_when_too_much_waits_to_be_written(start_server: StartServer):
    server = start_server()
    config = Config(in_flight=10, in_flight_per_partition=10)
    async with Client(server.url, config=config) as client:
        sender = client._sender
        await client.send("scope", say(0))
        server.pause()
        async with asyncio.TaskGroup() as group:

            async def send_two() -> None:
                """The second one is called when all others wait, and must not overtake them."""
                await client.send("scope", say(1))
                await client.send("scope", say(99))

            group.create_task(send_two())
            await until(
                lambda: sender._outlets[""].task is not None and not sender._outlets[""].waiting
            )
            for number in range(2, 99):
                group.create_task(client.send("scope", say(number)))
            await until(lambda: len(sender._outlets[""].waiting) == 10)
            for _ in range(10):
                await asyncio.sleep(0)
            assert len(sender._outlets[""].waiting) == 10
            server.resume()
    entries = await sent(server.url, "scope", 100)
    assert [entry.message["number"] for entry in entries] == list(range(100))


async def test_full_partition_refuses_what_is_beyond_its_bound_and_only_that(url: str):
    async with Client(url, partitions=8, config=Config(backlog=5)) as client:
        other = next(f"o{n}" for n in range(99) if partition_of(f"o{n}", 8) != 0)
        full = next(f"f{n}" for n in range(99) if partition_of(f"f{n}", 8) == 0)
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(try_send(client, full, n)) for n in range(8)]
            fine = group.create_task(client.send(other, say(0)))
    results = [task.result() for task in tasks]
    assert fine.result()
    assert all(isinstance(one, str) for one in results[:5])
    for error in results[5:]:
        assert isinstance(error, BacklogFull)
        assert (error.partition, error.backlog) == (0, 5)
    entries = await sent(url, full, 5)
    assert [entry.message["number"] for entry in entries] == list(range(5))


async def try_send(client: Client, scope: str, number: int, **options: str) -> object:
    try:
        return await client.send(scope, say(number), **options)  # pyright: ignore[reportArgumentType]
    except BacklogFull as error:
        return error


async def test_message_id_makes_sending_idempotent(url: str):
    async with Client(url) as client, Client(url) as other:
        first = await client.send("scope", say(0), message_id="m")
        again = await other.send("scope", say(1), message_id="m")
        async with asyncio.TaskGroup() as group:
            tasks = [
                group.create_task(one.send("scope", say(2), message_id="n"))
                for one in (client, other) * 20
            ]
    assert first == again
    assert len({task.result() for task in tasks}) == 1
    assert [entry.message["number"] for entry in await sent(url, "scope", 2)] == [0, 2]


async def test_known_message_id_is_answered_although_the_partition_is_full(url: str):
    async with Client(url, config=Config(backlog=1)) as client:
        first = await client.send("scope", say(0), message_id="m")
        results = await asyncio.gather(
            try_send(client, "scope", 1), try_send(client, "scope", 0, message_id="m")
        )
    assert isinstance(results[0], BacklogFull)
    assert results[1] == first


async def test_message_id_is_forgotten_after_its_time(redis_url: str):
    async with Client(redis_url, config=Config(dedup_ttl_s=0.05)) as client:
        first = await client.send("scope", say(0), message_id="m")
        link = open_store(redis_url).link()

        async def is_forgotten() -> bool:
            partition = partition_of("scope", 64)
            return await link.call("EXISTS", f"{{wherry:{partition}}}:sent:m") == 0

        await until(is_forgotten)
        assert await client.send("scope", say(0), message_id="m") != first
        await link.aclose()


async def test_sending_whose_answer_is_lost(redis_server: Server):
    """The message was appended, but the producer cannot know."""
    async with proxy(redis_server.port) as way, Client(way.url) as client:
        await client.send("scope", say(0))
        way.lose_answers = 1
        with pytest.raises(StoreUnavailable, match="may or may not have been appended"):
            await client.send("scope", say(1))
        way.lose_answers = 2
        entry_id = await client.send("scope", say(2), message_id="m")
        assert way.lost == 3
        assert entry_id == await client.send("scope", say(2), message_id="m")
        way.lose_answers = 1
        with pytest.raises(StoreUnavailable) as failed:
            await client.send_many([("scope", say(3)), ("scope", say(4))])
        assert failed.value.accepted == [None, None]
    entries = await sent(redis_server.url, "scope", 5)
    assert [entry.message["number"] for entry in entries] == [0, 1, 2, 3, 4]


async def test_what_may_have_been_appended_once_is_told_so_whatever_came_after(
    redis_server: Server, monkeypatch: pytest.MonkeyPatch
):
    """The answer is lost; then the namespace cannot be looked at, and nothing is sent any more."""
    monkeypatch.setattr(outlets, "_RESEND_FOR_S", 0.5)
    async with proxy(redis_server.port) as way, Client(way.url) as client:
        await client.send("scope", say(0))
        way.lose_answers = 1_000
        sending = asyncio.create_task(client.send("scope", say(1), message_id="m"))
        await until(lambda: way.lost == 1)
        client._session._look_at_s = 0.0  # it is time to look again
        with pytest.raises(StoreUnavailable, match="may or may not have been appended"):
            await sending
    assert len(await sent(redis_server.url, "scope", 2)) == 2


async def test_order_is_kept_when_idempotent_messages_are_sent_again(redis_server: Server):
    """Also of those that had no room in the write that was lost."""
    async with proxy(redis_server.port) as way, Client(way.url) as client:
        await client.send("scope", say(0))
        way.lose_requests = 1
        async with asyncio.TaskGroup() as group:
            for number in range(1, 1_500):
                group.create_task(client.send("scope", say(number), message_id=str(number)))
    entries = await sent(redis_server.url, "scope", 1_500)
    assert [entry.message["number"] for entry in entries] == list(range(1_500))


async def test_message_id_outlasts_a_restart_of_the_server(start_server: StartServer):
    server = start_server(append_only=True)
    async with Client(server.url) as client:
        await client.send("scope", say(0))
        server.stop()
        sending = asyncio.create_task(client.send("scope", say(1), message_id="m"))
        await until(lambda: client._sender._outlets[""].task is not None)
        with pytest.raises(StoreUnavailable):
            await Client(server.url).send("scope", say(9))
        assert not sending.done()
        server.start()
        await sending
    entries = await sent(server.url, "scope", 2)
    assert [entry.message["number"] for entry in entries] == [0, 1]


async def test_script_forgotten_by_the_server_is_sent_again(redis_server: Server):
    async with Client(redis_server.url) as client:
        await client.send("scope", say(0))
        redis_server.command("SCRIPT", "FLUSH")
        ids = await client.send_many((f"s{n}", say(n)) for n in range(100))
    assert len(ids) == 100


async def test_send_many_returns_ids_in_the_order_given(url: str):
    async with Client(url, partitions=2) as client:
        items = [(f"s{n % 7}", say(n)) for n in range(5_000)]
        ids = await client.send_many(items)
    async with owner(url) as reader:
        sent = {
            (entry.scope_id, entry.id): entry.message["number"]
            for scope in ("s0", "s1", "s2", "s3", "s4", "s5", "s6")
            for entry in await reader.entries(scope)
        }
    assert {(f"s{n % 7}", entry_id): n for n, entry_id in enumerate(ids)} == sent
    assert len(sent) == 5_000


async def test_send_many_says_what_was_accepted_when_a_partition_is_full(url: str):
    async with Client(url, partitions=8, config=Config(backlog=3)) as client:
        full = next(f"f{n}" for n in range(99) if partition_of(f"f{n}", 8) == 0)
        rest = [f"o{n}" for n in range(99) if partition_of(f"o{n}", 8) != 0][:10]
        items = [(full, say(n)) for n in range(5)] + [(scope, say(0)) for scope in rest]
        items += [(full, say(5))]
        with pytest.raises(BacklogFull) as refused:
            await client.send_many(items)
    accepted = refused.value.accepted
    assert [entry_id is not None for entry_id in accepted] == [True] * 3 + [False] * 2 + [
        True
    ] * 10 + [False]
    entries = await sent(url, full, 3)
    assert [entry.id for entry in entries] == accepted[:3]


async def test_nothing_overtakes_a_refused_message_of_its_send_many(redis_server: Server):
    """Room that comes while a long send_many runs is not used behind a refused message."""

    def messages():
        for number in range(6_000):
            if number == 4_000:
                redis_server.command("XTRIM", "{wherry:0}:in", "MAXLEN", "0")
            yield ("scope", say(number))

    async with Client(redis_server.url, partitions=1, config=Config(backlog=1_500)) as client:
        with pytest.raises(BacklogFull) as refused:
            await client.send_many(messages())
        assert await client.send("scope", say(0))
    flags = [entry_id is not None for entry_id in refused.value.accepted]
    assert flags == [True] * 1_500 + [False] * 4_500


async def test_send_many_stops_at_a_message_that_cannot_be_sent(url: str):
    async with Client(url) as client:
        with pytest.raises(MessageError, match="'type'") as refused:
            await client.send_many([("scope", say(0)), ("scope", {}), ("scope", say(2))])
    (accepted,) = refused.value.accepted
    assert [entry.id for entry in await sent(url, "scope", 1)] == [accepted]


async def test_send_many_takes_envelopes(url: str):
    async with Client(url) as client:
        envelope = Envelope(scope_id="scope", message=say(0), message_id="m", stream=True)
        one, two = await client.send_many([envelope, envelope])
    assert one == two
    (entry,) = await sent(url, "scope", 1)
    assert entry.extras.mark == 2


async def test_send_many_of_nothing_needs_no_store():
    async with Client("redis://127.0.0.1:1") as client:
        assert await client.send_many([]) == []


async def test_store_that_is_not_there():
    async with Client("redis://127.0.0.1:1") as client:
        with pytest.raises(StoreUnavailable, match=r"127\.0\.0\.1:1.*was not appended"):
            await client.send("scope", say(0))
        with pytest.raises(StoreUnavailable) as failed:
            await client.send_many([("scope", say(0)), ("scope", say(1))])
        assert failed.value.accepted == [None, None]


async def test_key_of_the_wrong_type_is_an_error_of_its_partition_only(redis_server: Server):
    async with Client(redis_server.url, partitions=2) as client:
        bad = next(f"s{n}" for n in range(99) if partition_of(f"s{n}", 2) == 0)
        good = next(f"s{n}" for n in range(99) if partition_of(f"s{n}", 2) == 1)
        redis_server.command("SET", "{wherry:0}:in", "x")
        results = await asyncio.gather(
            client.send(bad, say(0)), client.send(good, say(0)), return_exceptions=True
        )
    assert isinstance(results[0], StoreError)
    assert "WRONGTYPE" in str(results[0])
    assert isinstance(results[1], str)


async def test_partition_count_of_the_namespace_is_adopted(url: str):
    async with Client(url, partitions=3) as one, Client(url) as two:
        await one.send("scope", say(0))
        await two.send("scope", say(1))
    async with owner(url) as reader:
        assert reader.partitions == 3
        assert len(await reader.entries("scope", 2)) == 2


def test_wrong_settings_are_refused_at_once():
    with pytest.raises(ConfigError, match="namespace"):
        Client("memory://", namespace="a b")
    with pytest.raises(ConfigError, match="partitions"):
        Client("memory://", partitions=0)


def test_client_in_a_second_loop_names_the_remedy(redis_url: str):
    client = Client(redis_url)
    with asyncio.Runner() as runner:
        runner.run(client.send("scope", say(0)))

        async def elsewhere() -> None:
            for use in (
                client.send("scope", say(1)),
                client.send_many([]),
                client.request("scope", say(1)),
                anext(client.replies("scope")),
                anext(client.request_stream("scope", say(1))),
                client.aclose(),
            ):
                with pytest.raises(WrongLoop, match=r"one Client for each loop.*SyncClient"):
                    await use

        with asyncio.Runner() as other:
            other.run(elsewhere())
        runner.run(client.aclose())


async def test_closed_client_is_of_no_use_and_leaves_nothing(redis_url: str):
    client = Client(redis_url)
    pending = asyncio.create_task(client.send("scope", say(0)))
    await asyncio.sleep(0)
    await client.aclose()
    await client.aclose()
    assert isinstance(await asyncio.gather(pending, return_exceptions=True), list)
    with pytest.raises(ClientClosed):
        await client.send("scope", say(1))


async def test_what_waits_is_written_before_the_client_closes(redis_url: str):
    async with Client(redis_url) as client:
        await client.send("scope", say(0))
        tasks = [asyncio.create_task(client.send("scope", say(n))) for n in range(1, 50)]
        await asyncio.sleep(0)
    ids = [await task for task in tasks]
    assert len(ids) == 49
    assert len(await sent(redis_url, "scope", 50)) == 50


async def test_cancelled_send_that_waits_is_not_sent(start_server: StartServer):
    server = start_server()
    async with Client(server.url) as client:
        await client.send("scope", say(0))
        server.pause()
        first = asyncio.create_task(client.send("scope", say(1)))
        await until(
            lambda: (
                client._sender._outlets[""].task is not None
                and not client._sender._outlets[""].waiting
            )
        )
        second = asyncio.create_task(client.send("scope", say(2)))
        third = asyncio.create_task(client.send("scope", say(3)))
        await until(lambda: len(client._sender._outlets[""].waiting) == 2)
        second.cancel()
        server.resume()
        await asyncio.gather(first, third)
        with pytest.raises(asyncio.CancelledError):
            await second
    entries = await sent(server.url, "scope", 3)
    assert [entry.message["number"] for entry in entries] == [0, 1, 3]


async def test_bulk_is_written_while_more_of_it_is_packed(redis_url: str):
    left: list[int] = []
    async with Client(redis_url) as client:
        await client.send("scope", say(0))

        def messages() -> Iterator[tuple[str, dict[str, object]]]:
            for number in range(3_000):
                if number == 1_500:
                    left.append(len(client._sender._outlets[""].waiting))
                yield "scope", say(number)

        await client.send_many(messages())
    assert left == [0]


async def test_cancelled_bulk_is_sent_no_further(start_server: StartServer):
    server = start_server()
    async with Client(server.url) as client:
        await client.send("scope", say(0))
        server.pause()
        bulk = asyncio.create_task(client.send_many(("scope", say(n)) for n in range(1, 3_001)))
        await until(lambda: len(client._sender._outlets[""].waiting) == 1)
        bulk.cancel()
        server.resume()
        with pytest.raises(asyncio.CancelledError):
            await bulk
        await client.send("scope", say(3_001))
    entries = await sent(server.url, "scope", 1_026)
    assert [entry.message["number"] for entry in entries] == [*range(1_025), 3_001]


async def test_connections_lost_in_silence_are_waited_for_once(redis_server: Server):
    """One is for looks at the namespace, one for messages; what strikes one may strike both."""
    config = Config(socket_timeout_s=0.4, block_s=0.2)
    async with proxy(redis_server.port) as way, Client(way.url, config=config) as client:
        await client.send("scope", say(0))
        way.swallows_answers = {*way._wires}.__contains__
        client._session._look_at_s = 0.0  # it is time to look again
        with pytest.raises(StoreUnavailable, match="was not appended"):
            await client.send("scope", say(1))
        await client.send("scope", say(2))
        way.swallows_answers = {*way._wires}.__contains__
        with pytest.raises(StoreUnavailable, match="may or may not"):
            await client.send("scope", say(3))
        client._session._look_at_s = 0.0
        await client.send("scope", say(4))


async def test_bulk_that_is_cut_off_says_so(start_server: StartServer):
    server = start_server()
    async with Client(server.url) as client:
        await client.send("scope", say(0))
        server.pause()
        bulk = asyncio.create_task(client.send_many(("scope", say(n)) for n in range(1, 3_001)))
        outlet = client._sender._outlets[""]
        await until(lambda: len(outlet.waiting) == 1)
        assert outlet.task is not None
        outlet.task.cancel()
        with pytest.raises(ClientClosed) as raised:
            await bulk
        server.resume()
    assert raised.value.accepted == [None] * 2_048
    assert isinstance(raised.value.__cause__, asyncio.CancelledError)


async def test_what_waits_for_a_partition_is_found_whatever_count_it_was_put_for(redis_url: str):
    async with Client(redis_url, partitions=4) as client:
        await client.send("s0", say(0))
        outlet = Outlet(client._session, client._sender)
        entries = [pack_plain(f"s{n}", say(n), 1_000) for n in range(64)]
        done = asyncio.get_running_loop().create_future()
        batch = Batch(entries, [None] * 64, 64, done, None)
        for parcel in part(batch, range(64), 4):
            outlet.put(parcel)
        wanted = [n for n in range(64) if partition_of(f"s{n}", 16) == 3]
        taken = outlet.withdraw(Partition(3), 16)
        assert [place for parcel in taken for place in parcel.places] == wanted
        left = [place for parcel in outlet.waiting for place in parcel.places]
        assert sorted(left + wanted) == list(range(64))
        assert outlet.pending.total() == len(outlet.waiting)
        assert outlet.pending[Partition(3)] == 0
