"""Fleet: the workers of one story; real ones, each on a node of the network."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from wherry.config import Config
from wherry.engine.gathering import Usage
from wherry.errors import ScopeClosed, WherryError
from wherry.hooks import Hooks
from wherry.worker import Worker

from .application import Application, Refusal
from .network import Network, Node, SimulatedStore


class Reports(Hooks):
    """The hooks of all workers: what the application did not mean to raise is a finding."""

    __slots__ = ("_find", "_network")

    def __init__(self, network: Network, find: Callable[[str], None]) -> None:
        super().__init__()
        self._network = network
        self._find = find

    def life(self, event: str, **data: object) -> None:
        self._tell(event, data)

    def detail(self, event: str, **data: object) -> None:
        self._tell(event, data)

    def warn(self, event: str, **data: object) -> None:
        self._tell(event, data)

    def warn_once(self, event: str, **data: object) -> None:
        self._tell(event, data)

    def failed(self, event: str, error: BaseException, **data: object) -> None:
        self._tell(event, {**data, "error": repr(error)})
        if not isinstance(error, Refusal | ScopeClosed):
            self._find(f"reported: {event}: {error!r}")

    def _tell(self, event: str, data: dict[str, object]) -> None:
        if self._network.tell is not None:
            self._network.tell(f"{self._network.loop.time():.4f}   {event} {data}")


@dataclass(eq=False)
class Member:
    """One worker.

    Attributes:
        node: where it runs.
        worker: itself.
        task: its run.
        ready: done when it has joined.
        is_frozen: it stands still.
        is_draining: it was asked to end.
    """

    node: Node
    worker: Worker
    task: asyncio.Task[None]
    ready: asyncio.Task[None]
    is_frozen: bool = False
    is_draining: bool = False

    @property
    def name(self) -> str:
        return self.node.name

    @property
    def has_joined(self) -> bool:
        return self.ready.done()


class CrowdedWorker(Worker):
    """Its thread waits for a core most of the time."""

    def _usage(self) -> Usage:
        now_s = asyncio.get_running_loop().time()
        return Usage(ran_s=now_s / 4, waited_s=now_s / 2)


class Fleet:
    """Starts, freezes, kills and drains workers."""

    def __init__(
        self,
        network: Network,
        application: Application,
        config: Config,
        find: Callable[[str], None],
    ) -> None:
        self.members: dict[str, Member] = {}
        self.gone: list[Member] = []
        self._network = network
        self._application = application
        self._config = config
        self._find = find
        self._hooks = Reports(network, find)
        self._started = 0

    def start(self) -> Member:
        """Start one more worker."""
        name = f"w{self._started}"
        self._started += 1
        loop, node = self._network.loop, Node(name, self._network)
        worker = CrowdedWorker(
            self._application, SimulatedStore(node), self._config, hooks=self._hooks
        )
        worker.worker_id = name
        task = loop.start_node(name, worker.arun())
        ready = loop.start_node(name, worker.ready())
        member = self.members[name] = Member(node, worker, task, ready)
        self._network.note("start", name)
        return member

    def awake(self) -> list[Member]:
        """Those that run and are to stay."""
        return [
            one
            for one in self.members.values()
            if not one.is_frozen and not one.is_draining and not one.task.done()
        ]

    def freeze(self, member: Member, for_s: float) -> None:
        """Let a worker stand still for a while."""
        if member.is_frozen:
            return
        member.is_frozen = True
        self._network.note("freeze", member.name, for_s)
        self._network.loop.agenda.freeze(member.name)
        self._network.loop.at(for_s, lambda: self.thaw(member))

    def thaw(self, member: Member) -> None:
        """Let it go on."""
        if member.is_frozen and not member.node.is_dead:
            member.is_frozen = False
            self._network.note("thaw", member.name)
            self._network.loop.agenda.thaw(member.name)

    def kill(self, member: Member) -> None:
        """End a worker as SIGKILL does: it never runs again."""
        if self.members.pop(member.name, None) is None:
            return
        self.gone.append(member)
        self._network.note("kill", member.name)
        member.node.is_dead = True
        member.node.cut()
        self._network.loop.agenda.freeze(member.name)

    def drain(self, member: Member) -> None:
        """Ask a worker to end in good order, as SIGTERM does."""
        if not member.is_draining:
            member.is_draining = True
            self._network.note("drain", member.name)
            member.worker.request_stop()

    def check(self) -> None:
        """Notice workers that have ended."""
        for member in list(self.members.values()):
            if not member.task.done():
                continue
            del self.members[member.name]
            self.gone.append(member)
            error = None if member.task.cancelled() else member.task.exception()
            if member.is_draining and error is None:
                continue
            if isinstance(error, WherryError) and not member.has_joined:
                continue  # it could not start, and says so; somebody starts another one
            self._find(f"{member.name} ended by itself: {error!r}")
