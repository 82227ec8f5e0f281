"""``wherry purge``: delete all that a namespace has in Redis."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Annotated

import typer

from ..errors import WherryError
from . import options as o
from .exits import reported
from .opening import confirm, opened, read

if TYPE_CHECKING:
    from ..broker.connect import Store
    from ..broker.purging import Stock
    from ..config import Config

_DryRun = Annotated[bool, typer.Option("--dry-run", help="Only say what would be deleted.")]
_Yes = Annotated[bool, typer.Option("--yes", help="Do not ask.")]
_Force = Annotated[bool, typer.Option("--force", help="Although workers are at work on it.")]


def purge(
    *,
    dry_run: _DryRun = False,
    yes: _Yes = False,
    force: _Force = False,
    as_json: o.AsJson = False,
    url: o.Url = None,
    namespace: o.Namespace = None,
    set_: o.Set = None,
) -> None:
    """Delete all keys of a namespace: messages, replies, states and dead letters."""
    with reported():
        settings = read({"url": url, "namespace": namespace}, set_)
        config = settings.config
        with opened(settings) as store:
            stock = asyncio.run(_count(store, config, check_members=not (dry_run or force)))
            count = 0
            if stock.kinds and not dry_run:
                if not yes:
                    confirm(_question(stock, config.namespace, store.where))
                count = asyncio.run(_delete(store, config))
        _tell(stock, count, dry_run=dry_run, as_json=as_json)


async def _count(store: Store, config: Config, *, check_members: bool) -> Stock:
    from ..broker.leases import read_members
    from ..broker.purging import count_keys
    from ..broker.wire import Keys

    link, keys = store.link(), Keys(config.namespace)
    try:
        if check_members and (members := await read_members(link, keys)):
            names = ", ".join(one.worker_id for one in members[:3])
            raise WherryError(
                f"namespace {config.namespace} has {len(members)} live workers ({names}), which "
                "would go on with what they have in hand; stop them first, or give --force"
            )
        return await count_keys(link, keys)
    finally:
        await link.aclose()


async def _delete(store: Store, config: Config) -> int:
    from ..broker.purging import delete_keys
    from ..broker.wire import Keys

    link = store.link()
    try:
        return await delete_keys(link, Keys(config.namespace))
    finally:
        await link.aclose()


def _question(stock: Stock, namespace: str, where: str) -> str:
    return (
        f"delete the {sum(stock.kinds.values())} keys of namespace {namespace} at {where}, with "
        f"{stock.unfinished} unfinished messages and {stock.dead} dead letters, for good?"
    )


def _tell(stock: Stock, count: int, *, dry_run: bool, as_json: bool) -> None:
    from . import tables

    if as_json:
        data = {
            "deleted": count,
            "dry_run": dry_run,
            "keys": dict(sorted(stock.kinds.items())),
            "unfinished": stock.unfinished,
            "dead": stock.dead,
        }
        print(tables.to_json(data))
        return
    if not stock.kinds:
        print("there are no keys of that namespace")
        return
    if dry_run:
        rows = [[kind, str(number)] for kind, number in sorted(stock.kinds.items())]
        print(tables.table(["KIND", "KEYS"], rows))
        print(f"\n{stock.unfinished} unfinished messages, {stock.dead} dead letters")
    print(
        f"{sum(stock.kinds.values())} keys would be deleted" if dry_run else f"{count} keys deleted"
    )
