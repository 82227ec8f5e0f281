"""x"""

from tests.e2e.rig import echo, rig, working


async def test_echo(redis_url: str):
    async with rig(redis_url) as seen, working(echo, redis_url):
        await seen.send("a", 1)
        (reply,) = await seen.answered("a", 1)
        assert reply.message == {"type": "echo", "number": 1}
        await seen.send_many([(f"s{n % 50}", n) for n in range(5000)])
        await seen.drained()
        for scope in range(50):
            assert await seen.numbers(f"s{scope}") == list(range(scope, 5000, 50))
