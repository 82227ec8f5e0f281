"""Topology: which node of a cluster serves which slot, asked of the nodes themselves.

Redis-py's cluster client closes every connection on some errors and sends again by itself; here
only the map is shared, and each link has its own connections to each node.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, cast

import redis
import redis.exceptions as redis_errors
from redis.backoff import NoBackoff
from redis.retry import Retry as SyncRetry

from ..errors import StoreRefused, StoreUnavailable, WherryError
from .connection import Endpoint, ErrorAnswer, connect
from .mapping import map_answer, map_error
from .slots import Place, SlotMap, read_slots
from .urls import Address

ASK_WITHIN_S = 1.0
"""A node that is silent for longer is passed over."""
ASK_AGAIN_S = 0.2
"""Nobody asks again within this time of the last answer, however many connections break."""
REST_S = (0.2, 2.0)
"""A node that could not be reached is left alone for so long at first, and at most."""

_QUESTIONS = (("CLUSTER", "INFO"), ("CLUSTER", "SLOTS"))


@dataclass(slots=True)
class _Rest:
    until_s: float
    length_s: float


class Topology:
    """What is known of one cluster; any thread may use it.

    Attributes:
        map: who serves which slot, as it was told last; empty at first.
        handed_over: slot -> who said of itself that it has given it away (MOVED), and to whom.
    """

    __slots__ = (
        "_address", "_asked_at_s", "_best", "_listeners", "_resting", "handed_over", "map",
    )  # fmt: skip

    def __init__(self, address: Address) -> None:
        """Begin with the nodes that an address names."""
        self._address = address
        self._best = address.places[0]
        self._asked_at_s = float("-inf")
        self._resting: dict[Place, _Rest] = {}
        self._listeners: dict[Callable[[], None], None] = {}
        self.map = SlotMap()
        self.handed_over: dict[int, tuple[Place, Place]] = {}

    def place_of(self, slot: int) -> Place | None:
        """Who serves a slot, None if that is not known."""
        told = self.handed_over.get(slot)
        return self.map.place_of(slot) if told is None else told[1]

    @property
    def primaries(self) -> Sequence[Place]:
        """All who are known to serve slots."""
        return tuple(
            dict.fromkeys((*self.map.primaries, *(b for _, b in list(self.handed_over.values()))))
        )

    def note_moved(self, slot: int, told_by: Place, place: Place) -> None:
        """A node says that another one serves a slot now."""
        before = self.place_of(slot)
        self.handed_over[slot] = (told_by, place)
        if before != place:
            self._tell()

    def listen(self, listener: Callable[[], None]) -> Callable[[], None]:
        """Call this, in whatever thread, whenever slots have moved; returns what ends it."""
        self._listeners[listener] = None
        return lambda: self._listeners.pop(listener, None) and None

    def _tell(self) -> None:
        for listener in list(self._listeners):
            listener()

    def is_resting(self, place: Place) -> bool:
        """Whether a node could not be reached just now, and should not be tried again yet."""
        rest = self._resting.get(place)
        return rest is not None and time.monotonic() < rest.until_s

    def failed(self, place: Place) -> None:
        """A node could not be reached, or was silent."""
        first_s, most_s = REST_S
        rest = self._resting.get(place)
        length_s = first_s if rest is None else min(most_s, 2 * rest.length_s)
        self._resting[place] = _Rest(time.monotonic() + length_s, length_s)

    def answered(self, place: Place) -> None:
        """A node has answered."""
        if self._resting:
            self._resting.pop(place, None)

    async def refresh(self, *, at_least: bool = False) -> None:
        """Ask the nodes, one after the other until one knows; at once if that was done just now.

        Args:
            at_least: raise if there is no map afterwards.

        Raises:
            StoreUnavailable: no node knows, and a map is wanted.
            StoreRefused: a node refuses the login or the question, likewise.
        """
        if not self._may_ask():
            return self._check(at_least, [])
        reasons: list[WherryError] = []
        doubtful: SlotMap | None = None
        for place in self._order():
            try:
                is_well, found = self._read(place, await self._ask(place))
            except WherryError as error:
                reasons.append(error)
                continue
            if is_well:
                return self._adopt(place, found)
            doubtful = doubtful or found
        self._settle(doubtful)
        return self._check(at_least, reasons)

    def refresh_blocking(self) -> None:
        """The same for a thread; does not raise."""
        if not self._may_ask():
            return
        doubtful: SlotMap | None = None
        for place in self._order():
            try:
                is_well, found = self._read(place, self._ask_blocking(place))
            except WherryError:
                continue
            if is_well:
                self._adopt(place, found)
                return
            doubtful = doubtful or found
        self._settle(doubtful)

    def _may_ask(self) -> bool:
        now_s = time.monotonic()
        if self.map.shards and now_s - self._asked_at_s < ASK_AGAIN_S:
            return False
        self._asked_at_s = now_s
        return True

    def _order(self) -> Sequence[Place]:
        """Whom to ask: who was right last first, and those last that were silent."""
        places = dict.fromkeys((self._best, *self.map.places, *self._address.places))
        return sorted(places, key=self.is_resting)

    def _adopt(self, place: Place, found: SlotMap) -> None:
        self._best = place
        before = self.map
        # What it confirms is kept: it says that a slot was moved, and that no replica took over.
        self.handed_over = {
            slot: told
            for slot, told in list(self.handed_over.items())
            if found.place_of(slot) == told[1]
        }
        self.map = found
        if found != before:
            self._tell()

    def _settle(self, doubtful: SlotMap | None) -> None:
        """Nobody says that all is well: what a node believes is better than nothing."""
        if doubtful is not None and not self.map.shards:
            self._adopt(self._best, doubtful)

    def _check(self, at_least: bool, reasons: Sequence[WherryError]) -> None:
        if not at_least or self.map.shards:
            return
        for reason in reasons:
            if isinstance(reason, StoreRefused):
                raise reason
        told = "; ".join(map(str, reasons)) or "asked just now"
        raise StoreUnavailable(f"no node of {self._address.shown} knows the cluster: {told}")

    async def _ask(self, place: Place) -> list[Any]:
        address, login = self._address, self._address.login
        endpoint = Endpoint(
            host=place[0],
            port=place[1],
            tls=address.tls.context if address.tls else None,
            username=login.get("username", ""),
            password=login.get("password", ""),
        )
        commands = [*endpoint.login(), *_QUESTIONS]
        try:
            async with asyncio.timeout(min(ASK_WITHIN_S, address.connect_timeout_s)):
                connection = await connect(endpoint)
                try:
                    answers = await connection.ask(commands, ASK_WITHIN_S)
                finally:
                    connection.close()
        except OSError as error:
            raise map_error(error, self._shown(place)) from error
        for answer in answers[:-2]:
            if isinstance(answer, ErrorAnswer):
                raise map_answer(str(answer), self._shown(place))
        return answers[-2:]

    def _ask_blocking(self, place: Place) -> list[Any]:
        address = self._address
        kind = cast("Any", redis.Connection if address.tls is None else redis.SSLConnection)
        connection = kind(
            **{
                **address.server,
                "host": place[0],
                "port": place[1],
                "socket_connect_timeout": min(ASK_WITHIN_S, address.connect_timeout_s),
                "socket_timeout": ASK_WITHIN_S,
                "protocol": 2,
                "retry": SyncRetry(NoBackoff(), 0),
                "driver_info": None,
            }
        )
        answers: list[Any] = []
        try:
            connection.connect()
            for question in _QUESTIONS:
                connection.send_command(*question)
                try:
                    answers.append(connection.read_response())
                except redis_errors.ResponseError as error:
                    answers.append(ErrorAnswer(str(error)))
        except (redis_errors.RedisError, OSError) as error:
            raise map_error(error, self._shown(place)) from error
        finally:
            connection.disconnect()
        return answers

    def _read(self, place: Place, answers: Sequence[Any]) -> tuple[bool, SlotMap]:
        """Whether a node thinks that all is well, and its map."""
        info, slots = answers
        if isinstance(slots, Exception):
            raise map_answer(str(slots), self._shown(place))
        found = read_slots(slots, place)
        if not found.shards:
            raise StoreUnavailable(f"Redis at {self._shown(place)} knows no slots of a cluster")
        # Who may not be asked is believed.
        return isinstance(info, Exception) or b"cluster_state:ok" in info, found

    def _shown(self, place: Place) -> str:
        return shown_node(self._address, place)


def shown_node(address: Address, place: Place) -> str:
    """A node, fit to be shown."""
    host, port = place
    return f"{host}:{port} of {address.shown}"
