"""SingleLink: a link with one connection of our own, for reads, commits and what clients send.

One call at a time. A call that failed, was cancelled, or was not answered in time closes the
connection, and the next one makes another.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from typing import Any

import redis.exceptions as redis_errors

from ..errors import StoreError, StoreRefused, StoreUnavailable, WherryError
from .connection import Connection, Endpoint, ErrorAnswer, Told, connect
from .history import Meeting, OtherHistory, name_history
from .link import Argument, Command
from .mapping import is_of_a_replica, map_answer, map_error
from .pools import Pools
from .sentinels import NO_PRIMARY, is_replica


class SingleLink:
    """Implements `wherry.broker.link.Link`.

    Attributes:
        history: of the server that was met last, None before the first and where there is no
            ``past`` that wants to know.
    """

    __slots__ = (
        "_answer_timeout_s",
        "_connection",
        "_pools",
        "_told",
        "_where",
        "client_id",
        "connects",
        "history",
        "joins_slots",
        "past",
    )

    def __init__(
        self,
        pools: Pools,
        where: str,
        *,
        answer_timeout_s: float | None,
        told: Told | None = None,
    ) -> None:
        """Connect, when it is needed, to where ``pools`` then lead; ``where`` is shown.

        With ``told`` the server gives notice of each key that was read here, once, when it has
        changed, and answers are those of RESP3.
        """
        self._pools = pools
        self._where = where
        self._answer_timeout_s = answer_timeout_s
        self._connection: Connection | None = None
        self.history: str | None = None
        self._told = told
        self.connects = 0
        self.client_id: int | None = None
        self.past: Meeting | None = None
        self.joins_slots = True

    async def call(self, *command: Argument) -> Any:
        """See `wherry.broker.link.Link`."""
        [answer] = await self.calls((command,))
        if isinstance(answer, WherryError):
            raise answer
        return answer

    async def calls(self, commands: Sequence[Command]) -> list[Any]:
        """See `wherry.broker.link.Link`."""
        return await self._ask(await self.connected(), commands)

    async def connected(self) -> Connection:
        """The connection, made if there is none; raises as `calls` does."""
        connection = self._connection
        if connection is None or not connection.is_open:
            connection = self._connection = await self._connect()
        return connection

    async def _ask(self, connection: Connection, commands: Sequence[Command]) -> list[Any]:
        try:
            answers = await connection.ask(commands, self._answer_timeout_s)
        except OSError as error:
            raise self._unavailable(error) from error
        for index, answer in enumerate(answers):
            if isinstance(answer, ErrorAnswer):
                if is_of_a_replica(answer):
                    connection.close()
                answers[index] = map_answer(str(answer), self._where)
        return answers

    async def _connect(self) -> Connection:
        try:
            return await self._pools.reach(self._try)
        except redis_errors.RedisError as error:  # of sentinels
            raise map_error(error, self._where) from error

    async def _try(self, endpoint: Endpoint) -> Connection:
        try:
            async with asyncio.timeout(self._pools.connect_timeout_s):
                connection = await connect(endpoint)
        except OSError as error:
            raise self._unavailable(error) from error
        try:
            await self._greet(connection, endpoint.login())
            if self._told is not None:
                await self._ask_for_notice(connection, self._told)
        except BaseException:
            connection.close()
            raise
        return connection

    async def _greet(self, connection: Connection, login: Sequence[Command]) -> None:
        """Log in, ask for the connection's number, name it, and look at the server's history.

        Raises:
            StoreUnavailable: also for a login that fails otherwise than by a refusal.
            OtherHistory: once for each other history; the call was meant for the one before.
            StoreRefused: the login.
        """
        questions: list[Command] = [("CLIENT", "ID"), ("CLIENT", "SETNAME", "wherry")]
        if self.past is not None:
            questions.append(("INFO",))
        if self._pools.only_primary:
            questions.append(("ROLE",))
        answers = await self._ask(connection, [*login, *questions])
        for place, answer in enumerate(answers):
            # A user without the right to the questions is served all the same.
            is_question = place >= len(login)
            if isinstance(answer, StoreUnavailable) or (
                isinstance(answer, WherryError) and not is_question
            ):
                # A database that is not there, say: whoever is at work waits for it.
                raise StoreUnavailable(str(answer)) if isinstance(answer, StoreError) else answer
        if self._pools.only_primary:
            role = answers.pop()
            if isinstance(role, list) and is_replica(role):
                raise self._unavailable(error := ConnectionError(NO_PRIMARY)) from error
        self.connects += 1
        client_id, _, *info = answers[len(login) :]
        self.client_id = client_id if isinstance(client_id, int) else None
        if self.past is not None:
            is_told = not isinstance(info[0], StoreError | StoreRefused)
            known, self.history = self.history, name_history(info[0]) if is_told else ""
            await self.past.meet(self.history, self)
            if known not in (None, self.history):
                raise OtherHistory(f"Redis at {self._where} was restarted or replaced")

    async def _ask_for_notice(self, connection: Connection, told: Told) -> None:
        """Turn on what Redis calls tracking, for client-side caching.

        https://redis.io/docs/latest/develop/reference/client-side-caching/

        Raises:
            StoreError: the server cannot do that.
            StoreRefused: the user may not.
        """
        try:
            for command in ("HELLO", 3), ("CLIENT", "TRACKING", "ON"):
                [answer] = await self._ask(connection, [command])
                if isinstance(answer, WherryError):
                    raise answer
        except StoreUnavailable as error:  # some proxies hang up on what they do not know
            raise StoreError(str(error)) from error
        connection.told = told

    def _unavailable(self, error: OSError) -> WherryError:
        return map_error(error, self._where)

    def cut(self) -> None:
        """Close the connection at once, for the next call to make another; one under way fails."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    async def reconnect(self) -> None:
        """See `wherry.broker.link.Link`."""
        self.cut()

    async def aclose(self) -> None:
        """See `wherry.broker.link.Link`."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()
            with contextlib.suppress(OSError):
                await connection.wait_closed()
