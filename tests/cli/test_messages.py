"""Messages of the command line: JSON, with a way to write bytes."""

from __future__ import annotations

import json

import pytest

from wherry.cli.messages import check_entry_id, describe_reply, read_message, write_line
from wherry.errors import ConfigError, MessageError
from wherry.model import EntryId, Reply, Restarted, ScopeId


def test_bytes_go_both_ways(capsys: pytest.CaptureFixture[str]):
    text = '{"type": "x", "list": [{"$bytes": "AP8="}], "also": {"$bytes": "", "b": 1}}'
    message = read_message(text)
    assert message["list"] == [b"\x00\xff"]
    assert message["also"] == {"$bytes": "", "b": 1}
    write_line(message)
    assert json.loads(capsys.readouterr().out) == json.loads(text)


def test_keys_that_json_does_not_know_are_written_as_text(capsys: pytest.CaptureFixture[str]):
    write_line({2: "a", b"k\xff": "b", None: "c", True: "d"})
    assert json.loads(capsys.readouterr().out) == {
        "2": "a",
        "k\\xff": "b",
        "null": "c",
        "true": "d",
    }


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("hello", r"is not JSON .*write an object with a type: '\{\"type\""),
        ("", "is not JSON"),
        ("[" * 100_000, "is not JSON"),
        ('"hello"', "is JSON but no object; give it a type"),
        ("[]", "is JSON but no object"),
        ('{"text": "hello"}', "no 'type' of text"),
        ('{"type": 3}', "no 'type' of text"),
        ('{"$bytes": "AP8="}', "is JSON but no object"),
        ('{"type": "x", "b": {"$bytes": "?"}}', "is not base64"),
    ],
)
def test_bad_message_is_told_how_to_write_one(text: str, sentence: str):
    with pytest.raises(MessageError, match=sentence):
        read_message(text)


@pytest.mark.parametrize("text", ["", "yesterday", "1-", "-1", "1-2-3", "$", "9" * 21])
def test_bad_entry_id(text: str):
    with pytest.raises(ConfigError, match="is not an entry id"):
        check_entry_id(text)


def test_lines_of_a_reply_stream():
    first = Reply(
        id=EntryId("5-0"), scope_id=ScopeId("a"), message={"type": "x"}, cause="4-0", index=0
    )
    assert describe_reply(first) == {
        "id": "5-0",
        "cause": "4-0",
        "index": 0,
        "message": {"type": "x"},
    }
    end = Reply(
        id=EntryId("6-0"),
        scope_id=ScopeId("a"),
        message=None,
        cause="4-0",
        index=1,
        attempt="2.1",
        count=1,
        error="ValueError: x",
    )
    assert describe_reply(end) == {
        "id": "6-0",
        "cause": "4-0",
        "index": 1,
        "attempt": "2.1",
        "count": 1,
        "error": "ValueError: x",
        "message": None,
    }
    again = Restarted(ScopeId("a"), "4-0", "2.2")
    assert describe_reply(again) == {"restarted": True, "cause": "4-0", "attempt": "2.2"}
