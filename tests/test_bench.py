"""``scripts/bench`` measures what it says, and notices wrong answers; no figure is judged here."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgpack
import pytest
import redis

from scripts.benchmarks import load
from scripts.benchmarks.__main__ import parse
from scripts.benchmarks.process import ROOT, cpu_s, resident_bytes
from tests.servers import Server, available_servers

SMALL = ["--messages=200", "--scopes=20", "--pairs=1", "--evictions=20", "--instances=50"]
SMALL += ["--pools", "10", "30", "--handoffs=1", "--takeovers=1", "--rounds=1"]


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


def test_every_scenario_reports_its_figures(tmp_path: Path):
    done = bench(tmp_path, *SMALL, "--json", "figures.json")
    assert done.returncode == 0, done.stdout + done.stderr
    report: dict[str, Any] = json.loads((tmp_path / "figures.json").read_text())
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
    assert "every reply is right" in done.stdout
    for name in ("handoff", "takeover", "exit"):
        assert 0 < report[name]["p50_ms"] <= report[name]["p99_ms"] <= report[name]["max_ms"]
    assert report["scaling"]["moves"] >= report["scaling"]["needed"] > 0


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (
            ["drian"],
            "no scenario 'drian'; there are drain, evict, memory, handoff, takeover, exit, scaling",
        ),
        (["--pairs=0"], "every number must be at least 1"),
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
