"""Watch: looks at what passes to Redis and back, while the story goes on."""

from __future__ import annotations

from typing import Any

import msgpack

from wherry.model import partition_of

from .checking import Accepted
from .fleet import Member
from .network import Node
from .points import parts_of
from .server import Fields
from .world import PARTITIONS, World


class Watch:
    """Knows what was accepted, and rules that hold at every moment."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._newest: dict[bytes, str] = {}

    def check_refusals(self, node: Node, fields: Fields, answer: Any) -> None:
        """As long as Redis does not go back in time, nothing is handled twice in one tenure."""
        parts = parts_of(fields)
        answers = [answer] if len(parts) == 1 else answer
        for (is_resent, kinds), found in zip(parts, answers, strict=True):
            if type(found) is not list:
                continue
            if b"stale" in found:
                self._world.find(
                    f"{node.name} built on an old state, in a history that never changed"
                )
            if not is_resent and 0 in found and set(kinds) == {"commit"}:
                self._world.find(f"{node.name} committed what it had committed before: {found}")

    def check_released(self, node: Node, fields: Fields) -> None:
        """What was handled is written before a partition is released."""
        if self._world.went_back:
            return
        key = fields[3].replace(b"}:lease", b"}:in")
        for entry_id, flat in self._world.server.call("XRANGE", key, "-", "+"):
            found = dict(zip(flat[::2], flat[1::2], strict=True))
            name = f"{found[b's'].decode()} {entry_id.decode()}"
            if self._world.application.handled.get(name) == node.name:
                self._world.find(f"{node.name} released a partition before {name} was written")

    def note_claimed(self, node: Node, fields: Fields) -> None:
        """What a node handled in a tenure before was fenced with it: others may do it anew."""
        handled = self._world.application.handled
        for name in [name for name, handler in handled.items() if handler == node.name]:
            partition = partition_of(name.partition(" ")[0], PARTITIONS)
            if fields[3] == f"{{sim:{partition}}}:lease".encode():
                del handled[name]

    def note_accepted(self, fields: Fields) -> None:
        """A call that sends was carried out."""
        key = fields[3]
        start = f"({self._newest[key]}" if key in self._newest else "-"
        for entry_id, flat in self._world.server.call("XRANGE", key, start, "+"):
            found = dict(zip(flat[::2], flat[1::2], strict=True))
            self._newest[key] = entry_id.decode()
            self._world.accepted.append(
                Accepted(
                    entry_id.decode(),
                    found[b"s"].decode(),
                    msgpack.unpackb(found[b"m"]),
                    has_mark=b"w" in found,
                    expires=b"x" in found,
                )
            )
            self._world.network.note("accepted", found[b"s"].decode(), entry_id.decode())

    def check_stalled(self, member: Member) -> None:
        """Who stands still keeps nothing from the others."""
        if not member.is_frozen or member.node.is_dead:
            return
        now_ms = self._world.server.now_ms()
        for partition in range(PARTITIONS):
            lease = self._world.server.call(
                "HMGET", f"{{sim:{partition}}}:lease", "owner", "expiry"
            )
            if lease[0] == member.name.encode() and int(lease[1]) > now_ms:
                self._world.find(f"{member.name} stands still for two leases and holds {partition}")
