"""Those who ask: requests with a message id, again until they are answered."""

from __future__ import annotations

import asyncio

from wherry import Client, RequestTimeout, StoreUnavailable

PATIENCE_S = 3.0


async def ask(client: Client, name: str, answers: list[list[dict[str, object]]]) -> None:
    """Ask a scope one question after another, for ever; ``answers`` gets each whole answer."""
    while True:
        number = len(answers) + 1
        message = {"type": "count", "n": number, "work_s": 0.0}
        try:
            answer = await client.request(
                name, message, message_id=f"{name}:{number}", timeout_s=PATIENCE_S
            )
        except (RequestTimeout, StoreUnavailable):
            continue
        answers.append(answer)
        await asyncio.sleep(0.01)
