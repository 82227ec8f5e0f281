"""The smallest application: answers each message with its own text.

wherry run examples.echo.app:application
"""


async def application(scope, receive, send):
    """Answer every message of one scope."""
    while True:
        message = await receive()
        await send({"type": "echo", "text": message["text"]})
