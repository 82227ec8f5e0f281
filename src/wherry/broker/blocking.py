"""Blocking links, for threads: to one server, and to all nodes of a cluster."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import redis.exceptions as redis_errors

from ..errors import StoreUnavailable, WherryError
from .cluster import HOPS
from .link import Argument, Command
from .mapping import is_of_a_replica, map_error
from .redirects import Redirected
from .routing import Unit, plan_units
from .slots import Place
from .topology import Topology


class BlockingLink(Protocol):
    """What a thread needs of a link; raises as `wherry.broker.link.Link` does."""

    def call(self, *command: Argument) -> Any:
        """Send one command and return its answer."""
        ...

    def calls(self, commands: Sequence[Command]) -> list[Any]:
        """Send many commands; an error answer stands in the list as a `WherryError`."""
        ...

    def close(self) -> None:
        """Close all connections."""
        ...


class SyncLink:
    """Implements `BlockingLink`: one blocking connection."""

    __slots__ = ("_connect", "_connection", "_where")

    def __init__(self, connect: Callable[[], Any], where: str) -> None:
        """Connect with the first call, and anew after each that failed.

        Args:
            connect: makes a connection of redis-py's; a pool would mend one that was lost by
                itself, and go back to a server that is no primary any more.
            where: the place, to be shown.
        """
        self._connection: Any = None
        self._connect = connect
        self._where = where

    def call(self, *command: Argument) -> Any:
        """Send one command and return its answer; raises as a `Link` does."""
        try:
            if self._connection is None:
                self._connection = self._connect()
            self._connection.send_command(*command)
            return self._connection.read_response()
        except (redis_errors.RedisError, OSError) as error:
            if not isinstance(error, redis_errors.ResponseError) or is_of_a_replica(error):
                self.close()
            raise map_error(error, self._where) from error

    def calls(self, commands: Sequence[Command]) -> list[Any]:
        """See `BlockingLink`."""
        answers: list[Any] = []
        for command in commands:
            try:
                answers.append(self.call(*command))
            except WherryError as error:
                if self._connection is None:
                    raise
                answers.append(error)
        return answers

    def close(self) -> None:
        """Close the connection."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.disconnect()


class ClusterSyncLink:
    """Implements `BlockingLink` for a cluster: one blocking connection to each node.

    All nodes are asked before any is waited for, so that a silent one does not hold up the others.
    """

    __slots__ = ("_answer_timeout_s", "_connect", "_connections", "_shown", "_topology")

    def __init__(
        self,
        topology: Topology,
        connect: Callable[[Place], Any],
        answer_timeout_s: float,
        shown: Callable[[Place], str],
    ) -> None:
        """Connect to each node with the first call for it, and anew after each that failed.

        Args:
            topology: where to go.
            connect: makes a connection of redis-py's to a node.
            answer_timeout_s: nodes are waited for so long, all of them together.
            shown: a node, fit to be shown.
        """
        self._topology = topology
        self._connect = connect
        self._answer_timeout_s = answer_timeout_s
        self._shown = shown
        self._connections: dict[Place, Any] = {}

    def call(self, *command: Argument) -> Any:
        """See `BlockingLink`."""
        [answer] = self.calls((command,))
        if isinstance(answer, WherryError):
            raise answer
        return answer

    def calls(self, commands: Sequence[Command]) -> list[Any]:
        """See `BlockingLink`; that a node is away stands in the list, too."""
        answers: list[Any] = [None] * len(commands)
        units, _ = plan_units(commands)
        asked: dict[Unit, Place] = {}
        for _ in range(HOPS):
            units = self._round(commands, units, asked, answers)
            if not units:
                break
        return answers

    def close(self) -> None:
        """See `BlockingLink`."""
        for place in list(self._connections):
            self._drop(place)

    def _round(
        self,
        commands: Sequence[Command],
        units: Sequence[Unit],
        asked: dict[Unit, Place],
        answers: list[Any],
    ) -> list[Unit]:
        """Send units to their nodes; returns those that were redirected."""
        by_place: dict[Place, list[Unit]] = {}
        for unit in units:
            place = asked.get(unit) or self._place_of(unit.slot)
            if place is None:
                _fill(answers, unit, StoreUnavailable("no node of the cluster is known for a slot"))
            else:
                by_place.setdefault(place, []).append(unit)
        until_s = time.monotonic() + self._answer_timeout_s
        again: list[Unit] = []
        sent: dict[Place, list[Unit]] = {}
        for place, some in by_place.items():
            try:
                self._write(
                    place, [part for unit in some for part in _parts(commands, unit, asked)]
                )
                sent[place] = some
            except (redis_errors.RedisError, OSError) as error:
                self._fail(place, some, error, answers)
        for place, some in sent.items():
            try:
                self._read(place, some, asked, answers, until_s)
            except (redis_errors.RedisError, OSError) as error:
                self._fail(place, some, error, answers)
            else:
                self._topology.answered(place)
                again += [one for one in some if self._is_redirected(one, place, asked, answers)]
        return again

    def _place_of(self, slot: int | None) -> Place | None:
        topology = self._topology
        place = None if slot is None else topology.place_of(slot)
        if place is None:
            topology.refresh_blocking()
            if slot is not None:
                return topology.place_of(slot)
            place = min(topology.primaries, key=topology.is_resting, default=None)
        return place

    def _write(self, place: Place, parts: Sequence[Command]) -> None:
        connection = self._connections.get(place)
        if connection is None:
            if self._topology.is_resting(place):
                raise redis_errors.ConnectionError("it could not be reached just now")
            connection = self._connections[place] = self._connect(place)
        connection.send_packed_command(connection.pack_commands(parts))

    def _read(
        self,
        place: Place,
        units: Sequence[Unit],
        asked: dict[Unit, Place],
        answers: list[Any],
        until_s: float,
    ) -> None:
        connection = self._connections[place]
        for unit in units:
            if unit in asked:
                self._read_one(connection, place, until_s)
            for index in unit.indexes:
                answers[index] = self._read_one(connection, place, until_s)

    def _read_one(self, connection: Any, place: Place, until_s: float) -> Any:
        # What lies there already is taken, however late it is.
        if not connection.can_read(timeout=max(0.001, until_s - time.monotonic())):
            raise redis_errors.TimeoutError(f"no answer for {self._answer_timeout_s:g} s")
        try:
            return connection.read_response()
        except redis_errors.ResponseError as error:
            return map_error(error, self._shown(place))

    def _is_redirected(
        self, unit: Unit, place: Place, asked: dict[Unit, Place], answers: list[Any]
    ) -> bool:
        asked.pop(unit, None)
        for index in unit.indexes:
            answer = answers[index]
            if isinstance(answer, Redirected):
                target = answer.place(place)
                if answer.is_ask:
                    asked[unit] = target
                else:
                    self._topology.note_moved(answer.slot, place, target)
                return True
        return False

    def _fail(
        self, place: Place, units: Sequence[Unit], error: Exception, answers: list[Any]
    ) -> None:
        self._drop(place)
        if not self._topology.is_resting(place):
            self._topology.failed(place)
        self._topology.refresh_blocking()
        mapped = map_error(error, self._shown(place))
        for unit in units:
            _fill(answers, unit, mapped)

    def _drop(self, place: Place) -> None:
        connection = self._connections.pop(place, None)
        if connection is not None:
            connection.disconnect()


def _parts(commands: Sequence[Command], unit: Unit, asked: dict[Unit, Place]) -> list[Command]:
    before: list[Command] = [("ASKING",)] if unit in asked else []
    return [*before, *(commands[index] for index in unit.indexes)]


def _fill(answers: list[Any], unit: Unit, error: WherryError) -> None:
    for index in unit.indexes:
        answers[index] = error
