"""Tallies: what a worker has done since it was made, as plain whole numbers.

They are counted once for each call of the committer, or where something rare happens; a message
that is answered and no more costs nothing here.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from ..broker.commits import Answer, Bury, Commit, Emit, Hold, Operation


@dataclass(slots=True, eq=False)
class Tallies:
    """Counts that only grow; who wants a rate takes differences.

    Attributes:
        done: messages that were handled and are finished.
        retried: failed attempts after which the message is tried again.
        dead: messages that went to the dead letters.
        expired: messages that were finished unhandled because it was too late for them.
        held: messages that failed too often and hold their scope.
        replies: replies of applications that were written.
        commits: calls of the commit script that were answered.
        fenced: calls that wrote nothing, because the partition was no longer ours.
        claims: partitions that became ours.
        takeovers: those of them that their last owner had not released.
        handoffs: partitions that were released in good order.
        evictions: idle instances that were ended to make room.
    """

    done: int = 0
    retried: int = 0
    dead: int = 0
    expired: int = 0
    held: int = 0
    replies: int = 0
    commits: int = 0
    fenced: int = 0
    claims: int = 0
    takeovers: int = 0
    handoffs: int = 0
    evictions: int = 0

    def answered(self, commits: int, plain: int, others: Iterable[Operation]) -> None:
        """Calls were answered, and this took effect.

        Args:
            commits: so many calls.
            plain: so many messages, each with one reply and nothing else.
            others: all other operations.
        """
        self.commits += commits
        self.done += plain
        self.replies += plain
        for one in others:
            if isinstance(one, Commit):
                self.done += 1
                self.replies += len(one.replies)
            elif isinstance(one, Answer):
                self.done += 1
                self.replies += 1
            elif isinstance(one, Emit):
                self.replies += len(one.replies)
            elif isinstance(one, Bury):
                self.dead += one.is_kept
                self.expired += not one.is_kept
            elif isinstance(one, Hold):
                self.held += 1
