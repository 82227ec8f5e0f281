"""Every error that Wherry raises: one class for each thing a caller can do about it.

A message names the object, says what is wrong and what to do about it. Errors of
redis-py, msgpack and the operating system are mapped to these at the border, with the
original as ``__cause__``.
"""

from __future__ import annotations

from collections.abc import Sequence

from .model import EntryId


class WherryError(Exception):
    """Root of all errors of this package; ``str(error)`` is a sentence for people.

    Attributes:
        accepted: set by ``send_many`` on whatever ends it: for each message that it had taken, in
            order, the id under which it was appended, or None. None means refused after a
            `BacklogFull` or `MessageError`, and not known after a `StoreUnavailable`.
    """

    accepted: Sequence[EntryId | None] = ()


class ConfigError(WherryError):
    """A setting is misspelt, out of range or contradicts another: mend the setting."""


class MessageError(WherryError):
    """A message, scope id or header cannot be sent as it is: mend the message."""


class BacklogFull(WherryError):
    """The partition holds as many unfinished entries as it may: send again later.

    Nothing of the refused message was written. After ``send_many``, ``accepted`` tells which of
    the messages were; those behind a refused one in its partition were refused too.

    Attributes:
        partition: number of the full partition.
        backlog: its bound, in entries.
    """

    def __init__(self, partition: int, backlog: int) -> None:
        """Name the full partition and its bound in entries."""
        super().__init__(
            f"partition {partition} holds {backlog} unfinished entries, its bound; "
            "start more workers, or send again when they have caught up"
        )
        self.partition = partition
        self.backlog = backlog


class NotReplicated(WherryError):
    """The message is accepted, and too few replicas are known to have it: it may be lost yet.

    It will be handled, unless the server fails before a replica has it. Send it again with the
    same ``message_id`` to have it confirmed; without one that would be another message.

    Attributes:
        entry_id: under which it was appended.
        wanted: replicas asked for.
        confirmed: those that had it in time.
    """

    def __init__(self, entry_id: EntryId, wanted: int, confirmed: int, reason: str = "") -> None:
        """Name the entry, the replicas asked for and those that confirmed it, and why, if known."""
        super().__init__(
            f"entry {entry_id} is accepted, but {confirmed} of {wanted} replicas are known to have "
            f"it{': ' if reason else ''}{reason}; send again with the same message_id, or see "
            "whether the replicas are there"
        )
        self.entry_id = entry_id
        self.wanted = wanted
        self.confirmed = confirmed


class MessageFailed(WherryError):
    """The message that was sent ended without an answer: it expired or was buried.

    Attributes:
        entry_id: the input entry that failed.
        reason: error class and text, as the worker wrote it.
    """

    def __init__(self, entry_id: str, reason: str) -> None:
        """Name the entry and give the worker's reason."""
        super().__init__(f"entry {entry_id} failed: {reason}")
        self.entry_id = entry_id
        self.reason = reason


class RequestTimeout(WherryError, TimeoutError):
    """No complete answer came in time; the message may still be handled later.

    Attributes:
        entry_id: the input entry, or "" when the sending itself did not end in time.
    """

    def __init__(self, entry_id: str, timeout_s: float) -> None:
        """Name the entry and the limit in seconds."""
        super().__init__(
            f"entry {entry_id or '(not sent)'} was not answered within {timeout_s:g} s; "
            "is a worker running? `wherry status` shows them"
        )
        self.entry_id = entry_id


class RepliesTrimmed(WherryError):
    """Replies after the id that was asked for are gone: read what else tells the state.

    Attributes:
        scope_id: whose reply stream.
        after: the id after which replies were asked for.
        first: the oldest id that is kept, or "" when the stream is gone.
    """

    def __init__(self, scope_id: str, after: str, first: str) -> None:
        """Name the scope, the id asked for and the oldest id kept."""
        super().__init__(
            f"replies of scope {scope_id!r} after {after} are trimmed or expired "
            f"(oldest kept: {first or 'none'}); read from the oldest kept, after='0-0'"
        )
        self.scope_id = scope_id
        self.after = after
        self.first = first


class ReaderTooSlow(WherryError):
    """An answer came faster than it was taken: read on with ``replies(cause=..., follow=True)``.

    Attributes:
        entry_id: the input entry whose answer it is.
    """

    def __init__(self, entry_id: str, replies: int) -> None:
        """Name the entry and the number of replies that wait."""
        super().__init__(
            f"{replies} replies to entry {entry_id} wait to be taken, more than a client holds; "
            "take them faster, or read the answer with replies(cause=..., follow=True)"
        )
        self.entry_id = entry_id


class ClientClosed(WherryError):
    """The client was closed: make another one."""


class ScopeClosed(WherryError, OSError):
    """``send()`` was called after the application instance had ended.

    An ``OSError``, as the ASGI specification wants for a closed connection.
    """


class RepliesTooLarge(WherryError):
    """An application held more replies for one message than it may: flush in between."""


class HandlerTimeout(WherryError, TimeoutError):
    """An application took longer for a message than ``handler_timeout_s``: the attempt failed."""


class ApplicationError(WherryError):
    """The application could not be found or is of the wrong kind (exit code 2)."""


class StartupFailed(WherryError):
    """The application failed while it was imported or started (exit code 3)."""


class StoreNotFound(WherryError):
    """No server binary for the embedded store: install one, or name a Redis (exit code 2)."""


class StoreUnavailable(WherryError):
    """Redis cannot be reached (exit code 4 at start)."""


class StoreRefused(WherryError):
    """Redis answers and refuses: password, ACL, or a directory of somebody else (exit code 5)."""


class StoreIncompatible(WherryError):
    """Server or namespace cannot be used with these settings (exit code 7)."""


class StoreError(WherryError):
    """Redis answers with an error that Wherry does not expect; the text is Redis' own."""


class WorkerSilent(WherryError):
    """A worker did not do in time what it was asked for; look at its log."""


class WrongLoop(WherryError):
    """A client is used from another event loop than the one it was first used in."""


class HarnessError(WherryError):
    """The test harness is used in a way that cannot work, or its application never rests."""
