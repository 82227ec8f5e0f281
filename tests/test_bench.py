"""``scripts/bench`` measures what it says, and notices wrong answers; no figure is judged here."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast
from xml.etree import ElementTree as ET

import msgpack
import pytest
import redis

from scripts.benchmarks import followers, load, roundtrip, scale, send
from scripts.benchmarks.__main__ import parse
from scripts.benchmarks.process import ROOT, cpu_s, resident_bytes
from scripts.benchmarks.relay import relaying
from scripts.benchmarks.store import BenchServer
from tests.servers import Server, available_servers
from wherry.broker.connect import open_store
from wherry.model import partition_of

SMALL = ["--messages=200", "--scopes=20", "--pairs=1", "--evictions=20", "--instances=50"]
SMALL += ["--pools", "10", "30", "--handoffs=1", "--takeovers=1", "--rounds=1"]
SMALL += ["--restarts=1", "--kills=1", "--story=4"]
SMALL += ["--trips=20", "--followed=30", "--rate=100", "--seconds=1", "--idle-instances=20"]
SMALL += ["--batches=2", "--paced=300", "--windows=1", "--window=0.3"]
SMALL += ["--most-workers=1", "--most-partitions=1", "--most-scopes=1"]


def bench(directory: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run it as the script does, from another directory."""
    server = next(iter(available_servers().values()))
    command = [sys.executable, "-m", "scripts.benchmarks", "--server", str(server), *arguments]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    return subprocess.run(
        command,
        cwd=directory,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.fixture
def client(redis_server: Server) -> Iterator[redis.Redis]:
    with redis.Redis(port=redis_server.port, protocol=2) as client:
        yield client


def figures(directory: Path, *arguments: str) -> dict[str, Any]:
    """What a small run writes down."""
    done = bench(directory, *arguments, *SMALL, "--json", "figures.json")
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads((directory / "figures.json").read_text())


def test_workers_are_measured(tmp_path: Path):
    report = figures(tmp_path, "drain", "evict", "memory")
    [pair] = report["drain"]["pairs"]
    for one in (pair["worker"], pair["yardstick"]):
        assert one["messages"] == 200
        assert one["messages_per_s"] > 0
        assert one["server_cpu_us"] > 0
    rates = [pair[name]["messages_per_s"] for name in ("worker", "yardstick")]
    assert report["drain"]["ratio"]["median"] == pytest.approx(rates[0] / rates[1])
    for name in ("server", "worker"):
        small, large = report["evict"][name]["us"]
        assert report["evict"][name]["ratio"] == pytest.approx(large / small)
    assert report["memory"]["empty_bytes"] > 2**20


def test_ownership_is_measured(tmp_path: Path):
    report = figures(tmp_path, "handoff", "takeover", "exit", "scaling")
    for name in ("handoff", "takeover", "exit"):
        assert 0 < report[name]["p50_ms"] <= report[name]["p99_ms"] <= report[name]["max_ms"]
    assert report["scaling"]["moves"] >= report["scaling"]["needed"] > 0


def test_supervisors_are_measured(tmp_path: Path):
    report = figures(tmp_path, "rolling", "respawn", "story")
    assert report["rolling"]["gap"]["count"] == report["rolling"]["flights"] > 0
    assert report["rolling"]["behind"]["count"] <= report["rolling"]["flights"]
    assert 0 < report["respawn"]["back_s"][0] < 30
    assert 0 < report["respawn"]["taken_s"][0] < 30
    assert report["story"]["view"][-1]["words"] == 8


def test_durable_state_is_drained(tmp_path: Path):
    assert figures(tmp_path, "drain", "--durable")["drain"]["is_durable"]


def test_round_trips_are_measured(tmp_path: Path):
    report = figures(tmp_path, "roundtrip")["roundtrip"]
    for in_flight in ("1", "64"):
        [sides] = report[in_flight]["rounds"]
        for one in sides.values():
            assert 0 < one["p50_ms"] <= one["p99_ms"]
            assert one["server_cpu_us"] > 0
        for bare in ("asyncio", "blocking"):
            ratio = sides["worker"]["p50_ms"] / sides[bare]["p50_ms"]
            assert report[in_flight][f"ratio_{bare}"]["median"] == pytest.approx(ratio)


def test_clients_are_measured(tmp_path: Path):
    report = figures(tmp_path, "send", "followers")
    [pair] = report["send"]["pairs"]
    rates = [pair[name]["messages_per_s"] for name in ("send_many", "pipeline")]
    assert report["send"]["ratio"]["median"] == pytest.approx(rates[0] / rates[1])
    assert report["send"]["trips"] == 1
    followed = report["followers"]
    assert followed["replies"] == followed["from_reply"]["count"] == 100
    # One for the shared read and at least one for what it takes to begin.
    assert 2 <= followed["connections"] <= 6


def test_an_idle_worker_is_measured(tmp_path: Path):
    report = figures(tmp_path, "idle")["idle"]
    assert [report[name]["instances"] for name in ("empty", "full")] == [0, 20]
    for name in ("empty", "full"):
        # It beats, renews and looks around; what its scripts call is not counted.
        assert report[name]["commands"].keys() <= {"EVALSHA", "XREAD"}
        assert report[name]["commands_per_s"] < 10


def test_parts_of_the_engine_are_measured(tmp_path: Path):
    report = figures(tmp_path, "micro")["micro"]
    parts = ["route", "turn", "encode", "pack", "settle"]
    assert [*report] == [*parts, "sum", "metrics"]
    assert all(report[part]["median"] > 0 for part in parts)


def test_scale_is_measured_and_drawn(tmp_path: Path):
    report = figures(tmp_path, "scale", "--plot", "scale.svg")["scale"]
    assert report["rate"] == 300
    values = [[one[axis] for axis in scale.AXES] for one in report["points"]]
    assert values == [[1, 64, 1_000], [1, 1, 1_000], [1, 64, 1]]
    assert all(one["server_us"]["median"] > 0 for one in report["points"])
    assert min(report["spans"].values()) >= 1
    picture = ET.fromstring((tmp_path / "scale.svg").read_text())
    circles = picture.findall("{http://www.w3.org/2000/svg}circle")
    assert len(circles) == 2 * (1 + 1 + 1)


def test_scopes_beyond_the_cap_are_measured_apart(client: redis.Redis, tmp_path: Path):
    port = client.get_connection_kwargs()["port"]
    server = BenchServer(url=f"redis://127.0.0.1:{port}/0", client=client, name="", pid=0)
    axes = {"workers": (1, 2), "partitions": (64,), "scopes": (1_000, 1_100)}
    report = scale.measure(server, tmp_path, axes=axes, rate=400, seconds=0.3, rounds=1)
    apart = [one for one in report["points"] if one["is_created_anew"]]
    assert [one["scopes"] for one in apart] == [1_100]
    assert [one["workers"] for one in report["points"]] == [1, 2, 1, 1]


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (
            ["drian"],
            "no scenario 'drian'; there are drain, roundtrip, send, followers, idle, ",
        ),
        (["--pairs=0"], "every number must be at least 1"),
        (["--window=0"], "every number must be at least 1"),
        (["--messages=5000", "--scopes=2"], "reply streams would be trimmed"),
    ],
)
def test_wrong_usage_is_refused(
    arguments: list[str], complaint: str, capsys: pytest.CaptureFixture[str]
):
    with pytest.raises(SystemExit) as ended:
        parse(arguments)
    assert ended.value.code == 2
    assert complaint in capsys.readouterr().err


def test_an_unusable_server_is_exit_code_1(tmp_path: Path):
    done = bench(tmp_path, "memory", "--server", "no-such-server")
    assert done.returncode == 1
    assert "no-such-server" in done.stderr
    assert "Traceback" not in done.stderr


class Answered:
    """A load that was answered rightly, and the means to spoil it."""

    def __init__(self, client: redis.Redis) -> None:
        self.client = client
        self.load = load.stage(client, ["a", "b"], 6, 100, load.input_stream)
        for scope, sent in self.load.sent.items():
            for entry_id, number in sent:
                self.answer(scope, entry_id, number)

    def answer(self, scope: str, cause: bytes, number: int) -> None:
        message = {"type": "bench.reply", "n": number, "data": self.load.data}
        self.client.xadd(load.reply_stream(scope), {"m": msgpack.packb(message), "i": cause})

    def verify(self) -> float:
        return load.verify(self.client, self.load, load.reply_stream, causes=True)


def test_right_answers_pass_and_tell_when_the_last_was_written(client: redis.Redis):
    answered = Answered(client)
    now: Any = client.time()
    assert answered.verify() == pytest.approx(now[0], abs=60)


def test_a_missing_answer_is_found(client: redis.Redis):
    answered = Answered(client)
    stream = load.reply_stream("b")
    client.xtrim(stream, maxlen=2, approximate=False)
    with pytest.raises(load.Mismatch, match="scope b: 2 answers to 3 messages"):
        answered.verify()


def test_a_doubled_answer_is_found(client: redis.Redis):
    answered = Answered(client)
    answered.answer("a", *answered.load.sent["a"][-1])
    with pytest.raises(load.Mismatch, match="scope a: 4 answers to 3 messages"):
        answered.verify()


def test_answers_out_of_order_are_found(client: redis.Redis):
    answered = Answered(client)
    client.delete(load.reply_stream("a"))
    for entry_id, number in reversed(answered.load.sent["a"]):
        answered.answer("a", entry_id, number)
    with pytest.raises(load.Mismatch, match=r"scope a: entry .* is answered wrongly"):
        answered.verify()


def test_of_many_answers_the_newest_are_checked(client: redis.Redis):
    answered = Answered(client)
    stream = load.reply_stream("a")

    def verify() -> None:
        load.verify(client, answered.load, load.reply_stream, causes=True, is_tail=True)

    older = client.xrange(stream)
    for _ in range(2):
        client.xadd(stream, cast("Any", older)[0][1])
        for entry_id, number in answered.load.sent["a"]:
            answered.answer("a", entry_id, number)
    verify()
    client.xdel(stream, cast("Any", client.xrevrange(stream, count=2))[1][0])
    with pytest.raises(load.Mismatch, match="scope a"):
        verify()


def test_a_message_that_is_not_counted_is_found(client: redis.Redis):
    answered = Answered(client)
    keys = {scope: load.KEYS.state(partition_of(scope, 64), scope) for scope in "ab"}
    for key in keys.values():
        client.hset(key, "state", cast("Any", msgpack.packb({"count": 3})))
    load.verify_states(client, answered.load)
    client.hset(keys["b"], "state", cast("Any", msgpack.packb({"count": 2})))
    with pytest.raises(load.Mismatch, match="scope b: 2 of 3 are counted"):
        load.verify_states(client, answered.load)


@pytest.mark.parametrize("numbers", [[0, 1], [0, 2, 1], [0, 1, 2, 2], [0, 1, 2, 3]])
def test_a_follower_that_was_given_something_else_is_found(numbers: list[int]):
    sent = load.Load({"a": [(b"1-0", 0), (b"2-0", 1), (b"3-0", 2)]}, "")
    followers.verify(sent, [("a", number, 0.0, 0.0) for number in range(3)])
    with pytest.raises(load.Mismatch, match="scope a"):
        followers.verify(sent, [("a", number, 0.0, 0.0) for number in numbers])


@pytest.mark.parametrize("numbers", [[0], [1, 0], [0, 1, 1]])
def test_what_was_not_sent_as_it_was_given_is_found(client: redis.Redis, numbers: list[int]):
    items: list[send.Item] = [("a", {"type": "bench.echo", "n": number}) for number in range(2)]

    def append(stream: str, numbers: list[int]) -> list[str]:
        entries = [{"s": "a", "m": msgpack.packb(items[number][1])} for number in numbers]
        return [cast("bytes", client.xadd(stream, cast("Any", one))).decode() for one in entries]

    ids = append("right", [0, 1])
    send.verify(client, ["right"], items, ids)
    append("wrong", numbers)
    for stream, said in (("wrong", []), ("right", ids[::-1])):
        with pytest.raises(load.Mismatch):
            send.verify(client, [stream], items, said)


@pytest.mark.parametrize(
    ("number", "cause", "is_right"), [(0, b"1-0", True), (1, b"1-0", False), (0, b"2-0", False)]
)
def test_a_wrong_reply_of_a_round_trip_is_found(number: int, cause: bytes, *, is_right: bool):
    who = roundtrip.Answerer(
        pid=0,
        stream_of=load.input_stream,
        replies_of=load.reply_stream,
        names_causes=True,
    )
    reply = {"type": "bench.reply", "n": number, "data": load.payload(200)}
    flat = [b"m", cast("bytes", msgpack.packb(reply)), b"i", cause]
    answers = [(roundtrip.Sent(0, 0.0, b"1-0"), flat)]
    with contextlib.nullcontext() if is_right else pytest.raises(load.Mismatch):
        roundtrip.verify(who, answers, load.payload(200))


async def test_round_trips_are_counted(redis_url: str):
    async with relaying(redis_url) as relay:
        link = open_store(relay.url).link(answer_timeout_s=10.0)
        await link.call("PING")
        before = relay.trips
        await link.calls([("SET", f"key-{number}", "x" * 100) for number in range(100)])
        assert relay.trips - before == 1
        await link.call("PING")
        assert relay.trips - before == 2
        await link.aclose()


def test_messages_are_as_large_as_asked_for(client: redis.Redis):
    staged = load.stage(client, ["a"], 1, 200, load.input_stream)
    entries: Any = client.xrange(f"{load.input_stream('a')}:staged")
    [(_, fields)] = entries
    assert len(fields[b"m"]) == pytest.approx(200, abs=4)
    assert staged.count == 1


def test_a_released_load_is_read_at_the_same_ids(client: redis.Redis):
    staged = load.stage(client, ["a"], 3, 100, load.input_stream)
    load.release(client, staged)
    found: Any = client.xrange(load.input_stream("a"))
    assert [entry_id for entry_id, _ in found] == [entry_id for entry_id, _ in staged.sent["a"]]


def test_a_process_is_measured_from_outside():
    assert cpu_s(os.getpid()) > 0
    assert 2**20 < resident_bytes(os.getpid()) < 2**40


def test_cluster_is_measured_beside_one_server(tmp_path: Path):
    report = figures(tmp_path, "drain", "idle", "--cluster")
    [pair] = report["drain"]["pairs"]
    assert pair["cluster"]["messages"] == pair["server"]["messages"] == 200
    assert report["drain"]["cpu_ratio"]["median"] > 0
    for place in ("cluster", "server"):
        for state in ("empty", "full"):
            assert report["idle"][place][state]["commands_per_s"] > 0


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        (("send", "--cluster"), "--cluster goes with drain and idle only"),
        (("drain", "--cluster", "--durable"), "--durable is not measured on a cluster"),
    ],
)
def test_what_is_not_measured_on_a_cluster_is_told(
    capsys: pytest.CaptureFixture[str], flags: tuple[str, ...], told: str
):
    with pytest.raises(SystemExit):
        parse(flags)
    assert told in capsys.readouterr().err
