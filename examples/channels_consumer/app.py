"""A Django Channels consumer, unchanged, behind Channels' own routers.

    wherry run examples.channels_consumer.app:application

Each scope is a person in a room. What a person says goes to the room's group through the channel
layer, and each consumer of the group answers on the reply stream of its own scope. A message is
finished when the consumer's handler has returned and the consumer asks for the next one.

The in-memory layer reaches the consumers of one process; with several workers use
``channels_redis``, as with any Channels project.
"""

from __future__ import annotations

from typing import Any, cast

import django
from channels.consumer import AsyncConsumer
from channels.routing import ChannelNameRouter, ProtocolTypeRouter
from django.conf import settings

if not settings.configured:  # a Django project has its settings module instead
    settings.configure(
        CHANNEL_LAYERS={"default": {"BACKEND": "channels.layers.InMemoryChannelLayer"}}
    )
    django.setup()


class RoomConsumer(AsyncConsumer):
    """One person in a room."""

    async def room_join(self, event: dict[str, Any]) -> None:
        """Join the room's group."""
        await self.channel_layer.group_add(event["room"], self.channel_name)
        await self.send({"type": "room.joined", "room": event["room"]})

    async def room_say(self, event: dict[str, Any]) -> None:
        """Tell everybody in the room."""
        person = cast("dict[str, Any]", self.scope)["scope_id"]  # unknown to Channels' types
        said = {"type": "room.heard", "by": person, "text": event["text"]}
        await self.channel_layer.group_send(event["room"], said)

    async def room_heard(self, event: dict[str, Any]) -> None:
        """Something came from the group: answer on the own reply stream."""
        await self.send(event)


application = ProtocolTypeRouter(
    {"channel": ChannelNameRouter({"wherry": RoomConsumer.as_asgi()})},
)
