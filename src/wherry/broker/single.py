"""SingleLink: a link with one connection of our own, for a worker's reads and commits.

One call at a time. A call that failed, was cancelled, or was not answered in time closes the
connection, and the next one makes another.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from ..errors import StoreError, StoreRefused, StoreUnavailable, WherryError
from .connection import Connection, Endpoint, ErrorAnswer, connect
from .history import Past, name_history
from .link import Argument, Command
from .mapping import map_answer


class SingleLink:
    """Implements `wherry.broker.link.Link`."""

    __slots__ = (
        "_answer_timeout_s",
        "_connect_timeout_s",
        "_connection",
        "_history",
        "_locate",
        "_where",
        "client_id",
        "connects",
        "past",
    )

    def __init__(
        self,
        locate: Callable[[], Awaitable[Endpoint]],
        where: str,
        *,
        connect_timeout_s: float,
        answer_timeout_s: float | None,
    ) -> None:
        """Connect, when it is needed, to where ``locate`` then says; ``where`` is shown."""
        self._locate = locate
        self._where = where
        self._connect_timeout_s = connect_timeout_s
        self._answer_timeout_s = answer_timeout_s
        self._connection: Connection | None = None
        self._history: str | None = None
        self.connects = 0
        self.client_id: int | None = None
        self.past: Past | None = None

    async def call(self, *command: Argument) -> Any:
        """See `wherry.broker.link.Link`."""
        [answer] = await self.calls((command,))
        if isinstance(answer, WherryError):
            raise answer
        return answer

    async def calls(self, commands: Sequence[Command]) -> list[Any]:
        """See `wherry.broker.link.Link`."""
        connection = self._connection
        if connection is None or not connection.is_open:
            connection = await self._connect()
        return await self._ask(connection, commands)

    async def _ask(self, connection: Connection, commands: Sequence[Command]) -> list[Any]:
        try:
            answers = await connection.ask(commands, self._answer_timeout_s)
        except OSError as error:
            raise self._unavailable(error) from error
        for index, answer in enumerate(answers):
            if isinstance(answer, ErrorAnswer):
                answers[index] = map_answer(str(answer), self._where)
        return answers

    async def _connect(self) -> Connection:
        try:
            async with asyncio.timeout(self._connect_timeout_s):
                endpoint = await self._locate()
                connection = await connect(endpoint)
        except OSError as error:
            raise self._unavailable(error) from error
        try:
            await self._greet(connection, endpoint.login())
        except BaseException:
            connection.close()
            raise
        self._connection = connection
        return connection

    async def _greet(self, connection: Connection, login: Sequence[Command]) -> None:
        """Log in, ask for the connection's number, name it, and look at the server's history.

        Raises:
            StoreUnavailable: also once for each other history; the call was meant for the one
                before.
        """
        questions: list[Command] = [("CLIENT", "ID"), ("CLIENT", "SETNAME", "wherry")]
        if self.past is not None:
            questions.append(("INFO",))
        answers = await self._ask(connection, [*login, *questions])
        for place, answer in enumerate(answers):
            # A user without the right to the questions is served all the same.
            is_question = place >= len(login)
            if isinstance(answer, StoreUnavailable) or (
                isinstance(answer, WherryError) and not is_question
            ):
                raise answer
        self.connects += 1
        client_id, _, *info = answers[len(login) :]
        self.client_id = client_id if isinstance(client_id, int) else None
        if self.past is not None:
            is_told = not isinstance(info[0], StoreError | StoreRefused)
            known, self._history = self._history, name_history(info[0]) if is_told else ""
            self.past.meet(self._history)
            if known not in (None, self._history):
                raise self._unavailable(ConnectionError("Redis was restarted or replaced"))

    def _unavailable(self, error: OSError) -> StoreUnavailable:
        text = str(error) or type(error).__name__
        return StoreUnavailable(f"Redis at {self._where} cannot be reached: {text}")

    async def aclose(self) -> None:
        """See `wherry.broker.link.Link`."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()
            with contextlib.suppress(OSError):
                await connection.wait_closed()
