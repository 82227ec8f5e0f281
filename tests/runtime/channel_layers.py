"""The in-memory channel layer, as consumers find it: a new one for each test."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import channels.layers
from channels.layers import InMemoryChannelLayer
from django.conf import settings


@contextmanager
def in_memory_layer() -> Iterator[InMemoryChannelLayer]:
    if not settings.configured:
        # As the example configures them: there is one configuration for the whole process.
        in_memory = {"default": {"BACKEND": "channels.layers.InMemoryChannelLayer"}}
        settings.configure(CHANNEL_LAYERS=in_memory)
    made = InMemoryChannelLayer()
    layers = channels.layers.channel_layers
    before = layers.set("default", made)
    try:
        yield made
    finally:
        layers.backends.pop("default")
        if before is not None:
            layers.set("default", before)
