"""Redirects: a node of a cluster says that another one has the key, or soon will."""

from __future__ import annotations

from ..errors import StoreUnavailable
from .slots import Place


class Redirected(StoreUnavailable):
    """The command was not carried out: another node is to be asked.

    Attributes:
        slot: of the key.
        host: of that node, "" for the one that was asked.
        port: of that node.
        is_ask: for this one command, because the slot is on its way (ASK); else for all that
            follow (MOVED).
    """

    def __init__(self, text: str, *, slot: int, host: str, port: int, is_ask: bool) -> None:
        """Tell where to go."""
        super().__init__(text)
        self.slot = slot
        self.host = host
        self.port = port
        self.is_ask = is_ask

    def place(self, asked: Place) -> Place:
        """Where to go, when ``asked`` has told it."""
        return self.host or asked[0], self.port


def read_redirect(answer: str, text: str) -> Redirected | None:
    """The redirect in an error answer; None if it is another one.

    Args:
        answer: as the server worded it: ``MOVED 3999 10.0.0.1:6379``.
        text: for people.
    """
    code, _, rest = answer.partition(" ")
    if code not in ("MOVED", "ASK"):
        return None
    slot, _, place = rest.partition(" ")
    host, _, port = place.rpartition(":")
    if not (slot.isdecimal() and port.isdecimal()):
        return None
    return Redirected(text, slot=int(slot), host=host, port=int(port), is_ask=code == "ASK")


def is_try_again(answer: object) -> bool:
    """Whether an answer says that a slot is between two nodes; nothing was carried out."""
    return isinstance(answer, StoreUnavailable) and "TRYAGAIN" in str(answer)
