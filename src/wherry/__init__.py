"""Wherry: ASGI applications as a fleet of stateless workers on Redis Streams."""

from .config import Config
from .runtime.server import StatelessServer
from .worker import Worker

__all__ = ["Config", "StatelessServer", "Worker"]
