"""A stand-in for a language model: the same words for the same question, one at a time."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator

WORD_S = float(os.environ.get("CHAT_WORD_S") or 0.05)
"""Seconds that the model thinks about each word."""

_TEXT = """A wherry is a boat that carries passengers and goods over a river, and it goes to and
fro all day. Whoever rows it keeps no secrets: every parcel is on one bank, or on the other, or
in the boat. Should the boat sink, the parcel is still on the first bank, and the next boat takes
it over; nobody finds it twice."""


def answer_to(number: int, question: str) -> list[str]:
    """The words of the answer to the question that is the number-th of its chat."""
    return f"Answer {number}, to {question[:80]!r}: {_TEXT}".split()


async def speak(number: int, question: str) -> AsyncGenerator[str]:
    """Yield the words of an answer as they come to mind."""
    for word in answer_to(number, question):
        await asyncio.sleep(WORD_S)
        yield word
