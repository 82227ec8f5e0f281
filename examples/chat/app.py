"""The worker's side: one instance for each chat, which answers word by word.

    wherry run examples.chat.app:application --durable-state

Messages:
    ``{"type": "chat.ask", "text": ...}``, sent with ``stream=True``, is answered with
    ``chat.word`` replies and one ``chat.end``.
    ``{"type": "chat.stop"}`` ends the answer that is being given, and those that wait.

Why ack mode: the messages of a scope are handled one after another, so a plain receive loop
would see ``chat.stop`` only when the answer is complete. In ack mode ``receive()`` hands out the
next message while earlier ones are open, and a message is finished by its ``message.ack`` alone.
An ack that names no message switches the mode on.
Messages are acknowledged in the order they came: when the worker dies in mid-answer, the next one
is given the question and what came behind it again, the readers are told `wherry.Restarted`, and
the chat's durable state has counted the question once.
"""

from __future__ import annotations

import asyncio
from contextlib import aclosing

from . import model

TURNS_KEPT = 5


async def application(scope, receive, send):
    """Take messages at once; answer them in order."""
    await send({"type": "message.ack"})
    chat = Chat(send, scope["durable"])
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(chat.work(), name=f"chat:{scope['scope_id']}")
        while True:
            chat.take(await receive())


class Chat:
    """One conversation."""

    def __init__(self, send, state):
        self._send = send
        self._state = state
        self._open = asyncio.Queue()  # Wherry hands out at most 16 messages without an ack
        self._stops = 0
        self._thinking: asyncio.Timeout | None = None

    def take(self, message):
        """Queue a message; a stop also interrupts the model, whatever it is doing."""
        if message["type"] == "chat.stop":
            self._stops += 1
            if self._thinking is not None:
                self._thinking.reschedule(asyncio.get_running_loop().time())
        self._open.put_nowait((message, self._stops))

    async def work(self):
        """Finish messages in the order they came."""
        while True:
            message, stops = await self._open.get()
            if message["type"] == "chat.ask":
                await self._answer(message["text"], stops)
            await self._send({"type": "message.ack", "id": message["wherry"]["id"]})

    async def _answer(self, question, stops):
        number = self._state.get("asked", 0) + 1
        words = []
        async with aclosing(model.speak(number, question)) as speech:
            while self._stops == stops:
                word = await self._think(speech)
                if word is None:
                    break
                words.append(word)
                await self._send({"type": "chat.word", "text": word})
        is_stopped = self._stops != stops
        turns = [*self._state.get("turns", []), {"ask": question, "answer": " ".join(words)}]
        self._state.update(asked=number, turns=turns[-TURNS_KEPT:])
        await self._send({"type": "chat.end", "words": len(words), "stopped": is_stopped})

    async def _think(self, speech):
        """The next word; None at the end of the answer, or when it is stopped meanwhile."""
        try:
            async with asyncio.timeout(None) as self._thinking:
                return await anext(speech, None)
        except TimeoutError:
            return None
        finally:
            self._thinking = None
