from __future__ import annotations

from wherry.client.answers import Answer, Attempts
from wherry.model import EntryId, Message, Reply, Restarted, ScopeId


def reply(
    index: int,
    *,
    attempt: str = "",
    cause: str = "1-0",
    text: str | None = "x",
    count: int | None = None,
    error: str | None = None,
) -> Reply:
    message: Message | None = None if text is None else {"type": "reply", "text": text}
    return Reply(
        id=EntryId("9-9"),
        scope_id=ScopeId("scope"),
        message=message,
        cause=cause,
        index=index,
        attempt=attempt,
        count=count,
        error=error,
    )


def taken(answer: Answer, *replies: Reply) -> list[object]:
    return [event for one in replies for event in answer.take(one)]


RESTARTED = Restarted(ScopeId("scope"), "1-0", "2.1")


def test_answer_ends_with_its_mark():
    answer = Answer("1-0")
    replies = [reply(0), reply(1, count=2, attempt="1.1")]
    assert taken(answer, *replies) == replies
    assert answer.is_complete
    assert not answer.is_broken
    assert taken(answer, reply(2)) == []


def test_bare_end_mark_ends_an_answer_without_replies():
    answer = Answer("1-0")
    assert len(taken(answer, reply(0, text=None, count=0, attempt="1.1"))) == 1
    assert answer.is_complete


def test_bare_end_mark_behind_streamed_replies():
    answer = Answer("1-0")
    streamed = [reply(0, attempt="1.1"), reply(1, attempt="1.1")]
    assert taken(answer, *streamed, reply(2, text=None, count=2, attempt="1.1"))[:2] == streamed
    assert answer.is_complete
    assert not answer.is_broken


def test_streamed_and_committed_replies_of_one_attempt_are_one_answer():
    answer = Answer("1-0")
    replies = [reply(0, attempt="1.1"), reply(1), reply(2, count=3, attempt="1.1")]
    assert taken(answer, *replies) == replies


def test_other_attempt_at_index_zero_begins_anew():
    answer = Answer("1-0")
    first = [reply(0, attempt="1.1"), reply(1, attempt="1.1")]
    again = [reply(0, attempt="2.1"), reply(1, count=2, attempt="2.1")]
    assert taken(answer, *first, *again) == [*first, RESTARTED, *again]
    assert answer.is_complete


def test_committed_answer_after_a_streamed_attempt_begins_anew():
    answer = Answer("1-0")
    events = taken(answer, reply(0, attempt="1.1"), reply(0), reply(1, count=2, attempt="2.1"))
    assert [type(event) for event in events] == [Reply, Restarted, Reply, Reply]


def test_empty_answer_after_a_streamed_attempt_begins_anew():
    answer = Answer("1-0")
    end = reply(0, text=None, count=0, attempt="2.1")
    assert taken(answer, reply(0, attempt="1.1"), end)[1:] == [RESTARTED, end]
    assert answer.is_complete


def test_replies_that_are_known_are_dropped():
    answer = Answer("1-0")
    replies = [reply(0, attempt="1.1"), reply(1, attempt="1.1")]
    assert taken(answer, *replies, *replies, reply(2, attempt="1.1"))[2:] == [
        reply(2, attempt="1.1")
    ]


def test_other_causes_are_dropped():
    assert taken(Answer("1-0"), reply(0, cause="2-0")) == []


def test_error_ends_an_answer_wherever_it_stands():
    answer = Answer("1-0")
    error = reply(0, text=None, error="Expired: too late")
    assert taken(answer, reply(0, attempt="1.1"), reply(1, attempt="1.1"), error)[-1] == error
    assert answer.is_complete
    assert not answer.is_broken


def test_missing_reply_breaks_an_answer():
    answer = Answer("1-0")
    taken(answer, reply(0), reply(2))
    assert answer.is_broken


def test_answer_resumed_in_its_middle_goes_on():
    answer = Answer("1-0", from_start=False)
    answer.resume(reply(3, attempt="1.1"))
    assert taken(answer, reply(4, attempt="1.1")) == [reply(4, attempt="1.1")]
    assert taken(answer, reply(0, attempt="2.1")) == [RESTARTED, reply(0, attempt="2.1")]


def test_answer_resumed_behind_another_cause_begins_plainly():
    answer = Answer("1-0", from_start=False)
    answer.resume(reply(3, cause="0-1"))
    assert taken(answer, reply(0, attempt="2.1")) == [reply(0, attempt="2.1")]


def test_answer_resumed_nobody_knows_where_counts_as_beginning_anew():
    answer = Answer("1-0", from_start=False)
    assert taken(answer, reply(0, attempt="2.1")) == [RESTARTED, reply(0, attempt="2.1")]


def test_attempts_of_a_whole_stream():
    attempts = Attempts()
    assert attempts.take(reply(0, attempt="1.1")) is None
    assert attempts.take(reply(0, cause="")) is None
    assert attempts.take(reply(0, attempt="2.1")) == RESTARTED
    assert attempts.take(reply(1, attempt="2.1")) is None
    assert attempts.take(reply(2)) is None
    assert attempts.take(reply(0, cause="2-0", attempt="2.1")) is None
    assert attempts.take(reply(0, cause="3-0")) is None


def test_attempts_of_answers_that_mingle():
    """One that expired while it waited is told so in the midst of another's answer."""
    attempts = Attempts()
    assert attempts.take(reply(0, attempt="1.1")) is None
    assert attempts.take(reply(0, cause="2-0", text=None, error="Expired: late")) is None
    assert attempts.take(reply(0, cause="3-0", attempt="1.2")) is None
    assert attempts.take(reply(0, attempt="2.1")) == RESTARTED
    assert attempts.take(reply(1, attempt="2.1", count=2)) is None
    assert attempts.take(reply(0, cause="3-0", attempt="2.2")) == Restarted(
        ScopeId("scope"), "3-0", "2.2"
    )


def test_attempts_remember_a_bounded_number_of_answers():
    attempts = Attempts()
    for number in range(10_000):
        assert attempts.take(reply(0, cause=f"{number}-1", attempt="1.1")) is None
    assert len(attempts._open) < 100
    last = Restarted(ScopeId("scope"), "9999-1", "2.1")
    assert attempts.take(reply(0, cause="9999-1", attempt="2.1")) == last


def test_attempts_behind_a_reply_that_is_gone_are_unsure_once():
    attempts = Attempts(is_unsure=True)
    assert attempts.take(reply(0, attempt="2.1")) == RESTARTED
    assert attempts.take(reply(0, cause="2-0", attempt="2.1")) is None
    assert Attempts(is_unsure=True).take(reply(1, attempt="2.1")) is None
