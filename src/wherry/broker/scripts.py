"""Lua scripts: found beside this module, sent by hash, sent whole where the server forgot them."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from importlib.resources import files
from typing import Any

from ..errors import StoreError
from .link import Argument, Command, Link

_SOURCE = files("wherry.broker").joinpath("lua")
_ALLOW_OOM = "#!lua flags=allow-oom\n"


class Script:
    """One script as one server takes it.

    Attributes:
        source: its text, with the clock before it.
    """

    __slots__ = ("_sha", "source")

    def __init__(self, source: str) -> None:
        """Keep the text and its hash."""
        self.source = source
        self._sha = hashlib.sha1(source.encode(), usedforsecurity=False).hexdigest()

    def command(self, keys: Sequence[str], arguments: Sequence[Argument]) -> Command:
        """The command that runs it, by hash."""
        return ("EVALSHA", self._sha, len(keys), *keys, *arguments)

    def whole(self, command: Command) -> Command:
        """The same command with the text in place of the hash; the server learns it by that."""
        return ("EVAL", self.source, *command[2:])

    async def run(self, link: Link, keys: Sequence[str], arguments: Sequence[Argument]) -> Any:
        """Run it on a link; raises as `Link.call` does."""
        command = self.command(keys, arguments)
        try:
            return await link.call(*command)
        except StoreError as error:
            if not is_unknown_script(error):
                raise
            return await link.call(*self.whole(command))


class Scripts:
    """All scripts, fitted to one server.

    With ``flags=allow-oom`` a worker can still commit, which frees memory, when the server is
    at its limit; servers before 7.0 and the store in memory do not know the flag.
    """

    __slots__ = (
        "answer", "backlog", "beat", "claim", "commit",
        "release", "renew", "replay", "send", "survey", "unhold", "waiting",
    )  # fmt: skip

    def __init__(self, *, allow_oom: bool = True, memory: bool = False) -> None:
        """Read the scripts.

        Args:
            allow_oom: put the flag before the workers' scripts.
            memory: use the clock of the store in memory.
        """
        clock = _read("memory_clock" if memory else "clock")
        head = _ALLOW_OOM if allow_oom and not memory else ""
        self.answer = Script(head + _read("answer"))
        self.backlog = Script(head + clock + _read("backlog"))
        self.beat = Script(head + clock + _read("beat"))
        self.claim = Script(head + clock + _read("claim"))
        self.commit = Script(head + clock + _read("commit"))
        self.release = Script(head + _read("release"))
        self.renew = Script(head + clock + _read("renew"))
        self.survey = Script(head + clock + _read("survey"))
        self.send = Script(_read("send"))
        self.replay = Script(_read("replay"))
        self.unhold = Script(_read("unhold"))
        self.waiting = Script(_read("waiting"))

    @property
    def has_flags(self) -> bool:
        """Whether the workers' scripts carry the flag."""
        return self.commit.source.startswith(_ALLOW_OOM)


async def fit_scripts(link: Link, *, memory: bool) -> Scripts:
    """The scripts as the server behind ``link`` takes them: asked, not guessed from a version."""
    if memory:
        return Scripts(memory=True)
    try:
        await link.call("EVAL", _ALLOW_OOM + "return 1", 0)
    except StoreError:
        return Scripts(allow_oom=False)
    return Scripts()


async def run_many(
    link: Link, calls: Sequence[tuple[Script, Command]], last: Sequence[Command] = ()
) -> list[Any]:
    """Run scripts in one write; errors stand in the answers, as with `Link.calls`.

    Those that the server did not know are sent again, whole, after the others: two calls
    whose order matters must not go into one write.

    Args:
        link: connection.
        calls: the scripts, with their commands.
        last: commands that come after them in each write; their answers follow.
    """
    answers = await link.calls([*(command for _, command in calls), *last])
    unknown = [index for index, answer in enumerate(answers) if is_unknown_script(answer)]
    if unknown:
        whole = [calls[index][0].whole(calls[index][1]) for index in unknown]
        again = await link.calls([*whole, *last])
        places = (*unknown, *range(len(calls), len(answers)))
        for index, answer in zip(places, again, strict=True):
            answers[index] = answer
    return answers


def is_unknown_script(error: object) -> bool:
    """Whether an answer says that the server does not have the script."""
    return isinstance(error, StoreError) and (
        "NOSCRIPT" in str(error) or "No matching script" in str(error)
    )


def _read(name: str) -> str:
    return _SOURCE.joinpath(f"{name}.lua").read_text("utf-8")
