"""Leftovers: messages that wait in a lane when it is done, on their way to the scope's next one."""

from __future__ import annotations

from functools import partial
from typing import Any

from ..hooks import Hooks
from .face import Face
from .inbox import Item
from .lane import Lane


class Leftovers:
    """Hands messages on through the server's face, where user code may have its say.

    Attributes:
        are_dropped: the server ends, and no instance is to be started for them.
    """

    __slots__ = ("_face", "_hooks", "are_dropped")

    def __init__(self, face: Face, hooks: Hooks) -> None:
        """Ask ``face`` for the next queue of a scope."""
        self.are_dropped = False
        self._face = face
        self._hooks = hooks

    def forward(self, lane: Lane) -> None:
        """What is put into the lane's inbox from now on goes to the scope's next lane."""
        lane.input_queue.forward(partial(self._redirect, lane.scope_id, lane.scope))

    def hand_over(self, lane: Lane) -> None:
        """What waits in a lane that has no successor yet makes one."""
        items = lane.input_queue.drain()
        scope = str(lane.scope_id)
        if self.are_dropped:
            self._hooks.detail(
                "messages wait at the end of the server", scope=scope, count=len(items)
            )
            return
        for item in items:
            try:
                self._redirect(lane.scope_id, lane.scope, item)
            except Exception as error:  # noqa: BLE001 - user code's override
                self._hooks.failed(
                    "a waiting message is lost: the next instance could not be had",
                    error,
                    scope=scope,
                )

    def _redirect(self, scope_id: Any, scope: Any, item: Item) -> None:
        self._face.get_or_create_application_instance(scope_id, scope).put_nowait(item)
