"""Rights: which parts this user may play, found out by calls that change nothing.

Redis checks rights before it looks at arguments: a call with an argument that it cannot take, or
on a key that is not there, tells whether the user may make it. Nothing is written.
https://redis.io/docs/latest/operate/oss_and_stack/management/security/acl/
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from urllib.parse import urlsplit

from ..broker.connect import Store
from ..broker.link import Command, Link
from ..broker.wire import Keys
from ..errors import StoreError, StoreRefused
from .finding import Finding, Level, error, note, ok

_META = ("hsetnx", "hmget", "hget")
_SCRIPTS = ("evalsha", "eval")


@dataclass(frozen=True, slots=True, kw_only=True)
class Role:
    """A part that a user plays.

    Attributes:
        does: what it is for.
        commands: those it needs.
        helpful: those it can do without, and what is lost then.
        patterns: of the keys it needs; ``%`` stands for the namespace.
        channels: those on which it publishes and to which it listens; the same.
    """

    does: str
    commands: Sequence[str]
    patterns: Sequence[str]
    helpful: Mapping[str, str]
    channels: Sequence[str] = ()


_CHANNELS = ("{%}:released", "{%}:control")
_EVERYTHING = ("{%}:*", "{%:*}:*")
_SLOWLY = "what others bring up is noticed up to block_s later"
_CONNECTION = {
    "client|id": _SLOWLY,
    "client|unblock": _SLOWLY,
    "client|setname": "its connections have no name in CLIENT LIST",
    "role": "what a sentinel names is believed to be the primary",
}
ROLES: Mapping[str, Role] = {
    "worker": Role(
        does="run applications",
        commands=(
            *_META, *_SCRIPTS, "xread", "xrange", "xrevrange", "xlen", "xadd", "xdel", "hset",
            "hdel", "hgetall", "hlen", "exists", "del", "persist", "pexpire", "publish",
            "subscribe", "time", "zadd", "zrem", "zrange", "zrangebyscore", "llen", "rpush",
        ),
        patterns=_EVERYTHING,
        helpful={"info": "it is not noticed that Redis was restarted with older data"}
        | _CONNECTION,
        channels=_CHANNELS,
    ),
    "producer": Role(
        does="send messages and wait for their answers",
        commands=(
            *_META, *_SCRIPTS, "xlen", "xadd", "get", "set", "xread", "xdel", "del", "pexpire",
        ),
        patterns=("{%}:meta", "{%:*}:in", "{%:*}:sent:*", "{%:*}:out:~*"),
        helpful={"wait": "sends with replicas= are never confirmed"} | _CONNECTION,
    ),
    "reader": Role(
        does="read and follow replies",
        commands=(
            *_META, "xread", "xrange", "xrevrange", "xinfo|stream", "time", "multi", "exec",
        ),
        patterns=("{%}:meta", "{%:*}:out:*"),
        helpful=_CONNECTION,
    ),
    "operator": Role(
        does="watch, mend and purge",
        commands=(
            *_META, *_SCRIPTS, "xlen", "xrange", "xrevrange", "xadd", "xdel", "hgetall", "hscan",
            "hstrlen", "hset", "hdel", "zrange", "zrevrange", "zscore", "pttl", "time", "publish",
            "scan", "unlink", "del", "blpop",
        ),
        patterns=_EVERYTHING,
        helpful={"info": "doctor knows nothing of memory and persistence"} | _CONNECTION,
        channels=_CHANNELS,
    ),
}  # fmt: skip


IN_A_CLUSTER: Mapping[str, str] = {
    "cluster|slots": "it is not known which node serves what, and nothing works",
    "cluster|info": "what a node believes that is cut off from the others is believed",
    "asking": "partitions wait while their slots move",
}
"""What every part needs of a cluster, beside its other commands, and what happens without it."""

_NO_SCRIPT = "0" * 40
_HINT = "look again"
_OF_A_COMMAND = "permissions to run the"
"""What Redis says where a command is refused, and not a key or a channel of it."""
_HARMLESS: Mapping[str, Sequence[str]] = {
    "blpop": ("KEY", "no number"),
    "client|id": (),
    "client|setname": ("wherry",),
    "client|unblock": ("0",),
    "del": ("KEY",),
    "eval": ("return 1", "0"),
    "evalsha": (_NO_SCRIPT, "0"),
    "exec": (),
    "exists": ("KEY",),
    "get": ("KEY",),
    "hdel": ("KEY", "NONCE"),
    "hget": ("KEY", "NONCE"),
    "hgetall": ("KEY",),
    "hlen": ("KEY",),
    "hmget": ("KEY", "NONCE"),
    "hscan": ("KEY", "0"),
    "hstrlen": ("KEY", "x"),
    "hset": ("KEY", "NONCE", "a field without", "its value"),
    "hsetnx": ("META", "generation", "has one already"),
    "info": ("server",),
    "llen": ("KEY",),
    "persist": ("KEY",),
    "pexpire": ("KEY", "no number"),
    "pttl": ("KEY",),
    "publish": ("CHANNEL", _HINT),
    "role": (),
    "rpush": ("META", "no list"),
    "scan": ("0", "MATCH", "NONCE", "COUNT", "1"),
    "set": ("KEY", "", "NX", "XX"),
    "time": (),
    "unlink": ("KEY",),
    "wait": ("0", "1"),
    "xadd": ("KEY", "MAXLEN", "no number", "*", "a", "b"),
    "xdel": ("KEY", "0-1"),
    "xinfo|stream": ("KEY",),
    "xlen": ("KEY",),
    "xrange": ("KEY", "-", "+"),
    "xread": ("COUNT", "1", "STREAMS", "KEY", "0-0"),
    "xrevrange": ("KEY", "+", "-"),
    "zadd": ("KEY", "no number", "NONCE"),
    "zrange": ("KEY", "0", "0"),
    "zrangebyscore": ("KEY", "0", "0"),
    "zrem": ("KEY", "NONCE"),
    "zrevrange": ("KEY", "0", "0"),
    "zscore": ("KEY", "NONCE"),
}
"""Arguments with which a command does nothing, on a key that is not there.

Where there are none it is tried on the meta hash, if there is one: that is no list, and has the
field already. MULTI is not among them: it changes what the commands behind it do.
"""


def acl_of(role: Role, namespace: str, *, in_a_cluster: bool = False) -> str:
    """The rules of a user who may play a part and no other, as ACL SETUSER takes them."""
    further = tuple(IN_A_CLUSTER) if in_a_cluster else ()
    commands = " ".join(f"+{one}" for one in (*role.commands, *role.helpful, *further))
    keys = " ".join(f"~{one.replace('%', namespace)}" for one in role.patterns)
    channels = "".join(f"&{one.replace('%', namespace)} " for one in role.channels)
    return f"{keys} {channels}{commands}"


async def examine_rights(
    store: Store, keys: Keys, wanted: Sequence[str], *, is_used: bool
) -> list[Finding]:
    """Find out which parts the user of a store may play.

    Args:
        store: with his login.
        keys: of the namespace.
        wanted: names of parts that he must be able to play.
        is_used: whether the namespace has a meta hash; only then some can be tried in vain.

    Raises:
        StoreUnavailable: Redis does not answer.
    """
    user = urlsplit(store.where).username or "default"
    nonce = f"doctor-{secrets.token_hex(6)}"
    link = store.link()
    try:
        missing = {
            name: await _missing(link, keys, role, nonce, is_used=is_used)
            for name, role in ROLES.items()
        }
    finally:
        await link.aclose()
    may_listen = await _may_listen(store, keys)
    findings = await _lacks_of_a_cluster(store, user)
    able: list[str] = []
    for name, role in ROLES.items():
        lacking = missing[name]
        if "subscribe" in role.commands and not may_listen:
            lacking.append("+subscribe")
        about = list(_judge(name, user, lacking, is_wanted=name in wanted))
        if about[0].level is Level.OK:
            able.append(name)
        findings += about
    if not able and not wanted:
        text = f"{user} may play no part at all, neither worker nor producer, reader or operator"
        findings.append(error("rights", text, "docs/redis.md has the ACL rules of each part"))
    return findings


async def _lacks_of_a_cluster(store: Store, user: str) -> list[Finding]:
    """What the user may not ask the nodes of a cluster."""
    if store.topology is None:
        return []
    link = store.link()
    try:
        calls: dict[str, Command] = {
            name: tuple(name.upper().split("|")) for name in IN_A_CLUSTER if name != "asking"
        }
        refused = await _refused(link, calls)
    finally:
        await link.aclose()
    return [
        note("rights", f"without +{one} {IN_A_CLUSTER[one]}", f"ACL SETUSER {user} +{one}")
        for one in refused
    ]


def _judge(name: str, user: str, lacking: Sequence[str], *, is_wanted: bool) -> Iterator[Finding]:
    """What it means for a part that rights are lacking."""
    role = ROLES[name]
    needed = [one for one in lacking if one[1:] not in role.helpful]
    remedy = f"ACL SETUSER {user} {' '.join(needed)}"
    if needed and is_wanted:
        yield error(name, f"{user} cannot {role.does}: not allowed {', '.join(needed)}", remedy)
    elif needed:
        yield note(name, f"{user} is not allowed to {role.does}", f"if he should: {remedy}")
    else:
        yield ok(name, f"{user} may {role.does}")
        for one in lacking:
            text = f"without {one} {role.helpful[one[1:]]}"
            yield note(name, text, f"ACL SETUSER {user} {one}")


async def _missing(link: Link, keys: Keys, role: Role, nonce: str, *, is_used: bool) -> list[str]:
    """The rights that a part lacks, as ACL SETUSER would grant them."""
    samples = [_sample(one.replace("%", keys.namespace), nonce) for one in role.patterns]
    places = {"KEY": samples[-1], "META": keys.meta, "CHANNEL": keys.released, "NONCE": nonce}
    calls: dict[str, Command] = {
        name: (*name.upper().split("|"), *(places.get(one, one) for one in arguments))
        for name, arguments in _HARMLESS.items()
        if name in (*role.commands, *role.helpful) and (is_used or "META" not in arguments)
    }
    refused = await _refused(link, calls)
    missing = [f"+{name}" for name in calls if _OF_A_COMMAND in refused.get(name, "")]
    if "multi" in role.commands and "+exec" not in missing:
        begun = await _refused(link, {"multi": ("MULTI",), "exec": ("EXEC",)})
        missing += ["+multi"] if "multi" in begun else []
    if "+publish" not in missing:
        channels = [one.replace("%", keys.namespace) for one in role.channels]
        hints = {f"&{one}": ("PUBLISH", one, _HINT) for one in channels}
        missing += await _refused(link, hints)
    return missing + await _missing_patterns(link, role, keys, samples, set(missing))


async def _missing_patterns(
    link: Link, role: Role, keys: Keys, samples: Sequence[str], missing: AbstractSet[str]
) -> list[str]:
    """The rights to keys; nothing is known of them where the command that asks is refused."""
    tries: dict[str, Command] = {}
    for pattern, sample in zip(role.patterns, samples, strict=True):
        right = f"~{pattern.replace('%', keys.namespace)}"
        if "evalsha" not in role.commands:  # who runs no scripts only reads
            tries[right] = ("HGET", sample, "none")
        elif "+evalsha" not in missing:
            tries[right] = ("EVALSHA", _NO_SCRIPT, 1, sample)
    refused = await _refused(link, tries)
    return [right for right, text in refused.items() if _OF_A_COMMAND not in text]


async def _may_listen(store: Store, keys: Keys) -> bool:
    """Whether the user may subscribe at all; the connection is of no use afterwards."""
    link = store.link()
    try:
        await link.call("SUBSCRIBE", keys.released)
    except StoreRefused as refusal:
        return _OF_A_COMMAND not in str(refusal)
    finally:
        await link.aclose()
    return True


async def _refused(link: Link, calls: Mapping[str, Command]) -> dict[str, str]:
    """What Redis says where it refuses a call; any other answer shows that it may be made."""
    answers = await link.calls(list(calls.values()))
    refused: dict[str, str] = {}
    for name, answer in zip(calls, answers, strict=True):
        # Of EXEC it says that as the reason why the transaction, that there is not, is discarded.
        if isinstance(answer, StoreRefused) or (
            isinstance(answer, StoreError) and _OF_A_COMMAND in str(answer)
        ):
            refused[name] = str(answer)
    return refused


def _sample(pattern: str, nonce: str) -> str:
    """A key that a pattern stands for: of partition 0, and nobody's."""
    place, _, rest = pattern.partition("}")
    return f"{place.replace('*', '0')}}}{rest.replace('*', nonce)}"
