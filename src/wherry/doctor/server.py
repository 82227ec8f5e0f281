"""The server as it describes itself (INFO and CONFIG GET): what that means for messages.

Pure: facts in, findings out. https://redis.io/docs/latest/commands/info/ names the fields.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from .finding import Finding, error, note, ok, warning

_FULL, _NEARLY_FULL = 0.95, 0.8
_LAG_S = 10

Facts = Mapping[str, str]
"""Fields of INFO, and settings by their names with "config:" before them where they are known."""


def judge_server(facts: Facts) -> list[Finding]:
    """All that the server says of itself."""
    return [
        _kind(facts),
        *_persistence(facts),
        _eviction(facts),
        *_memory(facts),
        *_replicas(facts),
        *_clients(facts),
    ]


def _kind(facts: Facts) -> Finding:
    # Valkey calls itself redis 7.2.4 as well, for programs that compare versions.
    name = "Valkey" if facts.get("server_name") == "valkey" else "Redis"
    version = facts.get("valkey_version") or facts.get("redis_version") or "of unknown version"
    mode = facts.get("redis_mode") or facts.get("server_mode") or "standalone"
    text = f"{name} {version}, {mode}"
    if mode == "sentinel":
        return error("server", f"{text}: it keeps no data", "name the primary that it watches")
    if facts.get("loading") == "1":
        return warning("server", f"{text}, loading its data", "wait until it has done so")
    return ok("server", text)


def _persistence(facts: Facts) -> Iterator[Finding]:
    if facts.get("rdb_last_bgsave_status", "ok") != "ok" and _blocks_writes(facts):
        yield error(
            "persistence",
            "the last snapshot could not be written, and Redis refuses writes for that (MISCONF)",
            "make room on its disk or mend its rights, then run BGSAVE; its log has the reason",
        )
    if facts.get("aof_enabled") == "1":
        yield _append_only(facts)
        return
    remedy = "CONFIG SET appendonly yes, and the same in its configuration file"
    saves = facts.get("config:save")
    if saves:
        yield warning(
            "persistence",
            f"snapshots alone ({saves}): what came after the last one is lost when Redis ends",
            remedy,
        )
    elif saves is None:
        yield warning(
            "persistence",
            "no append-only file; whether snapshots are made this user may not ask (CONFIG GET)",
            remedy,
        )
    else:
        yield warning(
            "persistence",
            "nothing is written to disk: all messages, replies and states are lost when Redis ends",
            remedy,
        )


def _append_only(facts: Facts) -> Finding:
    if facts.get("aof_last_write_status", "ok") != "ok":
        return error(
            "persistence",
            "the append-only file could not be written, and Redis refuses writes for that",
            "make room on its disk; its log has the reason",
        )
    policy = facts.get("config:appendfsync", "")
    if policy == "no":
        return warning(
            "persistence",
            "append-only file, synced when the kernel likes: a power loss costs half a minute",
            "CONFIG SET appendfsync everysec",
        )
    cost = {
        "always": "synced at each write: nothing is lost",
        "everysec": "synced each second: a power loss may cost the last one",
    }
    return ok("persistence", f"append-only file, {cost.get(policy, 'how it is synced is unknown')}")


def _blocks_writes(facts: Facts) -> bool:
    return facts.get("config:stop-writes-on-bgsave-error", "yes") == "yes"


def _eviction(facts: Facts) -> Finding:
    policy = facts.get("maxmemory_policy", "")
    remedy = "CONFIG SET maxmemory-policy noeviction, and the same in its configuration file"
    if policy == "noeviction":
        return ok("eviction", "noeviction: no message is dropped for want of memory")
    if not policy:
        return note("eviction", "the policy is not known", "grant INFO, or ask who runs the server")
    if _number(facts, "maxmemory"):
        return error(
            "eviction",
            f"{policy}: Redis drops messages and leases when its memory is full, and workers "
            "refuse to start for that (exit code 7)",
            remedy,
        )
    return warning("eviction", f"{policy}, without effect while there is no memory limit", remedy)


def _memory(facts: Facts) -> Iterator[Finding]:
    used, limit = _number(facts, "used_memory"), _number(facts, "maxmemory")
    if not used:
        return
    peak = _megabytes(_number(facts, "used_memory_peak"))
    if not limit:
        yield note(
            "memory",
            f"{_megabytes(used)} used, at most {peak} so far, no limit",
            "set maxmemory below what the machine has: producers are then refused in time, where "
            "the kernel would end Redis",
        )
        return
    share = used / limit
    text = f"{_megabytes(used)} of {_megabytes(limit)} used ({share:.0%}), at most {peak} so far"
    remedy = "start more workers, drop dead letters, shorten reply_ttl_s, or raise maxmemory"
    if share >= _FULL:
        yield error("memory", f"{text}: producers are refused at the limit", remedy)
    elif share >= _NEARLY_FULL:
        yield warning("memory", text, remedy)
    else:
        yield ok("memory", text)


def _replicas(facts: Facts) -> Iterator[Finding]:
    role = facts.get("role")
    if role in ("slave", "replica"):
        primary = f"{facts.get('master_host', '?')}:{facts.get('master_port', '?')}"
        yield error(
            "replicas",
            f"this is a replica of {primary}, and takes no writes",
            f"name the primary in the URL: {primary}",
        )
        return
    if role is None:
        return
    count = _number(facts, "connected_slaves")
    if not count:
        yield note(
            "replicas",
            "none: when the disk of this server is gone, so is what it holds",
            "add a replica, or keep backups of its files",
        )
        return
    behind: list[str] = []
    for number in range(count):
        parts = (part.partition("=") for part in facts.get(f"slave{number}", "").split(","))
        about = {name: value for name, _, value in parts}
        lag = about.get("lag", "0")
        if about.get("state") != "online" or (lag.isdecimal() and int(lag) > _LAG_S):
            behind.append(f"{about.get('ip')}:{about.get('port')}")
    if behind:
        yield warning(
            "replicas",
            f"{len(behind)} of {count} are behind: {', '.join(behind)}",
            "look at their logs: a failover to one of them loses what it does not have",
        )
    else:
        yield ok("replicas", f"{count}, all of them up to date")


def _clients(facts: Facts) -> Iterator[Finding]:
    count, limit = _number(facts, "connected_clients"), _number(facts, "maxclients")
    if not count or not limit:
        return
    if count / limit >= _NEARLY_FULL:
        yield warning(
            "clients",
            f"{count} connections of at most {limit}; a worker has about five",
            "raise maxclients, or let producers share their clients",
        )
    else:
        yield ok("clients", f"{count} connections of at most {limit}")


def _number(facts: Facts, name: str) -> int:
    text = facts.get(name, "")
    return int(text) if text.isdecimal() else 0


def _megabytes(size: int) -> str:
    return f"{size / 2**20:,.1f} MiB"
