"""Answers: the replies to one message put in order, however often a worker began anew.

``(cause, index)`` names a reply for ever. Index 0 of a cause that is known, with another attempt,
means that the answer begins anew (``docs/protocol.md``).
"""

from __future__ import annotations

from ..model import Reply, Restarted

Event = Reply | Restarted
_OPEN = 64
"""Four times what may be open at a time in ack mode: an answer by flush has no end mark."""


class Answer:
    """The replies to one message.

    Attributes:
        is_complete: the end mark, or the error that stands for it, was taken.
        is_broken: a reply before one that was taken is missing, and will not come.
    """

    __slots__ = ("_attempt", "_cause", "_is_unsure", "_next", "is_broken", "is_complete")

    def __init__(self, cause: str, *, from_start: bool = True) -> None:
        """Await the answer to an entry; ``from_start`` False may join in its middle.

        Unless `resume` says where, its beginning then counts as beginning anew.
        """
        self._cause = cause
        self._is_unsure = not from_start
        self._attempt: str | None = None
        self._next = 0 if from_start else -1
        self.is_complete = False
        self.is_broken = False

    def resume(self, last: Reply) -> None:
        """Go on behind a reply that was taken elsewhere."""
        self._is_unsure = False
        if last.cause == self._cause:
            self._attempt = last.attempt
            self._next = last.index + 1

    def take(self, reply: Reply) -> list[Event]:
        """What a reply adds: nothing for one that is known or of another cause."""
        if reply.cause != self._cause or self.is_complete:
            return []
        events: list[Event] = []
        if reply.index == 0 and (self._is_unsure or self._attempt not in (None, reply.attempt)):
            events.append(Restarted(reply.scope_id, reply.cause, reply.attempt))
            self._attempt = None
            self._next = 0
        if reply.error is None and self._next >= 0:
            # A bare end mark has the index of the reply that would come next.
            if reply.index < self._next:
                return events
            if reply.index > self._next:
                self.is_broken = True
        if self._attempt is None:
            self._attempt = reply.attempt
        self._is_unsure = False
        self._next = reply.index + 1
        self.is_complete = reply.is_end
        events.append(reply)
        return events


class Attempts:
    """Sees in a scope's whole reply stream where an answer begins anew.

    Answers mingle: in ack mode several messages are open at a time, and one that has expired is
    told so while another is being answered. The newest `_OPEN` that may begin anew are remembered.
    """

    __slots__ = ("_is_unsure", "_open")

    def __init__(self, *, is_unsure: bool = False) -> None:
        """Start at the oldest kept, or ``is_unsure`` behind a reply that is not kept any more.

        In that case an answer that starts at index 0 may be one that began before.
        """
        self._open: dict[str, str] = {}  # cause -> attempt, in the order of their last replies
        self._is_unsure = is_unsure

    def take(self, reply: Reply) -> Restarted | None:
        """Note a reply; say if an answer begins anew with it."""
        if not reply.cause:
            return None
        known = self._open.pop(reply.cause, None)
        begins_anew = reply.index == 0 and (self._is_unsure or known not in (None, reply.attempt))
        self._is_unsure = False
        attempt = reply.attempt if reply.index == 0 else known or reply.attempt
        if attempt and (not reply.is_end or (reply.error is not None and reply.attempt)):
            # Only what was written before its commit can begin anew; that it is held is told so.
            self._open[reply.cause] = attempt
            if len(self._open) > _OPEN:
                del self._open[next(iter(self._open))]
        return Restarted(reply.scope_id, reply.cause, reply.attempt) if begins_anew else None
