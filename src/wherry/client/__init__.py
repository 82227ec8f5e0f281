"""Clients: what producers and readers use."""

from .bulk import Item
from .client import Client
from .envelope import Envelope, RequestOptions, SendOptions
from .sync import SyncClient

__all__ = ["Client", "Envelope", "Item", "RequestOptions", "SendOptions", "SyncClient"]
