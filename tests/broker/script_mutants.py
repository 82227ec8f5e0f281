"""Named ways to break the scripts, one at a time: the state machine must notice each.

A machine that cannot fail proves nothing. Each mutant replaces one text of one script, which must
stand there exactly once; whoever changes a script changes its mutants with it.
"""

from __future__ import annotations

from typing import NamedTuple

from wherry.broker.scripts import Script, Scripts


class Mutant(NamedTuple):
    """One way to break a script: its name, the text, and what stands there instead."""

    script: str
    old: str
    new: str


FENCE = "if redis.call('HGET', KEYS[2], 'token') ~= ARGV[1] then"
XDEL = "if redis.call('XDEL', KEYS[1], id) == 0 then"
REMEMBER_NUMBER = "redis.call('HSET', KEYS[2], 'emit', tostring(sequence))"
GONE = "    return 0\n  end\n"
BAD = "    void[scope] = true\n    return bad\n  end\n"
NOT_BAD = "    return bad\n  end\n"
FORGET_TOKEN = "redis.call('HDEL', KEYS[1], 'token')"
NEWEST = "('XREVRANGE', KEYS[2], '+', '-', 'COUNT', 1)"
VOID_CHECK = """  if void[scope] then
    return -1
  end
"""

MUTANTS: dict[str, Mutant] = {
    # The fence.
    "no fence": Mutant("commit", FENCE, "if false then"),
    "epoch instead of token": Mutant(
        "commit",
        "redis.call('HGET', KEYS[2], 'token') ~= ARGV[1]",
        "redis.call('HGET', KEYS[2], 'epoch') ~= string.match(ARGV[1], '^%d*')",
    ),
    "a higher epoch passes the fence": Mutant(
        "commit",
        FENCE,
        "local mine = tonumber(string.match(ARGV[1], '^%d+') or -1)\n"
        "local token = redis.call('HGET', KEYS[2], 'token')\n"
        "if not token or token ~= ARGV[1] and tonumber(string.match(token, '^%d+')) >= mine then",
    ),
    "a released lease has no fence": Mutant(
        "commit",
        FENCE,
        "if (redis.call('HGET', KEYS[2], 'token') or ARGV[1]) ~= ARGV[1] then",
    ),
    "expiry fences": Mutant(
        "commit",
        FENCE,
        "if redis.call('HGET', KEYS[2], 'token') ~= ARGV[1]\n"
        "  or tonumber(redis.call('HGET', KEYS[2], 'expiry')) < now_ms() then",
    ),
    # Entries are finished once.
    "no XDEL answer": Mutant("commit", XDEL, XDEL.replace("==", "<")),
    "entry is not deleted": Mutant(
        "commit",
        XDEL,
        "if #redis.call('XRANGE', KEYS[1], id, id) == 0 then",
    ),
    "an entry that somebody else finished voids nothing": Mutant(
        "commit", "void[scope] = not resent", "void[scope] = nil"
    ),
    "own resend voids": Mutant("commit", "void[scope] = not resent", "void[scope] = true"),
    "a commit that was done can be bad": Mutant(
        "commit", "if bad and #redis.call('XRANGE', KEYS[1], id, id) == 1 then", "if bad then"
    ),
    "burial of an entry that is gone": Mutant(
        "commit", "  if not entry then\n    return 0\n  end", "  entry = entry or {id, {}}"
    ),
    # Everything that can fail is looked at first.
    "damaged partition not looked at first": Mutant(
        "commit",
        "if not (usable(1, 'stream') and usable(3, 'hash') and usable(4, 'stream')) then",
        "if false then",
    ),
    "dead letters not looked at first": Mutant("commit", " and usable(4, 'stream')", ""),
    "attempts not looked at first": Mutant("commit", " and usable(3, 'hash')", ""),
    "reply key not looked at first": Mutant(
        "commit", "if not usable(out, 'stream') then\n    return", "if false then\n    return"
    ),
    "inbox not looked at first": Mutant(
        "commit", "if not usable(inbox, 'stream') then\n    return", "if false then\n    return"
    ),
    "state key not looked at first": Mutant(
        "commit", "if not usable(state, 'hash') then", "if false then"
    ),
    "burial writes to a reply key of any type": Mutant(
        "commit", "if not usable(out, 'stream') then\n    out = 0", "if false then\n    out = 0"
    ),
    "burial writes to an inbox of any type": Mutant(
        "commit", "if not usable(inbox, 'stream') then\n    inbox", "if false then\n    inbox"
    ),
    # States.
    "no state version": Mutant(
        "commit",
        "if (redis.call('HGET', KEYS[state], 'v') or '') ~= expected then",
        "if false then",
    ),
    "version not written": Mutant("commit", "'state', bytes, 'v', id)", "'state', bytes)"),
    "unchanged state gets a new version": Mutant(
        "commit",
        "elseif action == 'd' then",
        "elseif action == '' then\n    redis.call('HSET', KEYS[state], 'v', id)\n"
        "  elseif action == 'd' then",
    ),
    "deleted state leaves its version": Mutant(
        "commit", "redis.call('DEL', KEYS[state])", "redis.call('HDEL', KEYS[state], 'state')"
    ),
    "state without time to live": Mutant(
        "commit", "redis.call('PEXPIRE', KEYS[state], state_ttl)", "local _ = state_ttl"
    ),
    "state keeps an old time to live": Mutant(
        "commit", "redis.call('PERSIST', KEYS[state])", "local _ = state"
    ),
    # Void.
    "nothing is void behind a stale or bad commit": Mutant(
        "commit", f"{BAD}  if not", f"{NOT_BAD}  if not"
    ),
    "nothing is void behind a bad emit": Mutant(
        "commit",
        f"{BAD}  redis",
        f"{NOT_BAD}  redis",
    ),
    "no commit is void": Mutant(
        "commit", f"scope, bad, write)\n{VOID_CHECK}", "scope, bad, write)\n"
    ),
    # Short forms.
    "answer goes to another scope": Mutant("commit", "#KEYS[1] - 1 + #'out:'", "#KEYS[1] + 1"),
    "all are done although one is not": Mutant(
        "commit", "are_done = are_done and result == 1", "are_done = are_done or result == 1"
    ),
    "a key's type is remembered for another": Mutant(
        "commit", "kinds[number] = found", "kinds[number] = found\n    kinds[number + 1] = found"
    ),
    "no emit is void": Mutant("commit", f"{GONE}{VOID_CHECK}", GONE),
    "no failure is void": Mutant(
        "commit", f"take(), take(), take()\n{VOID_CHECK}", "take(), take(), take()\n"
    ),
    "no burial is void": Mutant("commit", f"take() == '1'\n{VOID_CHECK}", "take() == '1'\n"),
    # Emits.
    "emit not numbered": Mutant("commit", "if sequence <= tonumber(", "if 0 > tonumber("),
    "number of an emit not remembered": Mutant("commit", REMEMBER_NUMBER, "local _ = sequence"),
    "bad emit uses up its number": Mutant(
        "commit",
        f"{GONE}{VOID_CHECK}",
        f"{GONE}  {REMEMBER_NUMBER}\n{VOID_CHECK}",
    ),
    "numbers of emits outlive the tenure": Mutant("claim", ", 'emit', '0',", ","),
    "emitted reply does not tell its run": Mutant(
        "commit", "elseif attempt ~= '' then", "elseif false then"
    ),
    # Attempts.
    "failure of an entry that is gone": Mutant(
        "commit",
        "if #redis.call('XRANGE', KEYS[1], id, id) == 0 then\n    return 0\n  end",
        "",
    ),
    "attempts outlive their entry": Mutant(
        "commit", "redis.call('HDEL', KEYS[3], id)", "local _ = id"
    ),
    "attempts of the same call outlive their entry": Mutant(
        "commit", "  has_attempts = true\n", ""
    ),
    # Dead letters.
    "burial is not kept": Mutant("commit", "if is_kept then", "if false then"),
    "an expired entry is kept": Mutant("commit", "if is_kept then", "if true then"),
    "dead letter without the entry's fields": Mutant(
        "commit", "math.min(#entry[2], 1000)", "math.min(#entry[2], 2)"
    ),
    "burial tells nobody": Mutant(
        "commit", "  append(out, inbox, 'i', id, 'n', first, 's', scope, 'e', reason)\n", ""
    ),
    # Replies.
    "end mark on the first reply": Mutant("commit", "and i == count - 1 then", "and i == 0 then"),
    "end mark forgets what was emitted": Mutant(
        "commit", "'z', tostring(first + count), 'a', finish)", "'z', tostring(count), 'a', finish)"
    ),
    "no end mark without replies": Mutant(
        "commit", "if finish ~= '' and count == 0 then", "if false then"
    ),
    "indexes begin anew behind emits": Mutant(
        "commit", "local index = tostring(first + i)", "local index = tostring(i)"
    ),
    "no copy for the inbox": Mutant("commit", "if inbox > 0 then", "if false then"),
    "reply stream not trimmed": Mutant("commit", "'MAXLEN', '~', maxlen, '*', ...", "'*', ..."),
    "inbox trimmed": Mutant(
        "commit",
        "redis.call('XADD', KEYS[inbox], '*', ...)",
        "redis.call('XADD', KEYS[inbox], 'MAXLEN', '~', maxlen, '*', ...)",
    ),
    "reply stream without time to live": Mutant("commit", "touched[out] = true", "local _ = out"),
    "inbox without time to live": Mutant("commit", "touched[inbox] = true", "local _ = inbox"),
    # Leases.
    "live lease is stolen": Mutant("claim", "and left > 0 then", "and left > 1e12 then"),
    "lease that ran out is not free": Mutant("claim", "and left > 0 then", "then"),
    "own lease is not taken again": Mutant("claim", " and owner ~= ARGV[1]", ""),
    "epoch does not grow": Mutant(
        "claim", "tonumber(lease[3] or '0') + 1", "tonumber(lease[3] or '1')"
    ),
    "token without nonce": Mutant("claim", "epoch .. ':' .. ARGV[2]", "epoch .. ':'"),
    "unclean end is not told": Mutant("claim", "owner ~= '' and 1 or 0", "0"),
    "damaged stream is claimed": Mutant("claim", f"redis.call{NEWEST}", f"redis.pcall{NEWEST}"),
    "renewal steals back": Mutant("renew", "== ARGV[i + 1] then", "then"),
    "renewal takes what was released": Mutant(
        "renew",
        "redis.pcall('HGET', lease, 'token') == ARGV[i + 1]",
        "(redis.pcall('HGET', lease, 'token') or ARGV[i + 1]) == ARGV[i + 1]",
    ),
    "release by anybody": Mutant(
        "release", "if redis.call('HGET', KEYS[1], 'token') ~= ARGV[1] then", "if false then"
    ),
    "released lease keeps its token": Mutant("release", FORGET_TOKEN, "local _ = KEYS"),
    "release forgets the epoch": Mutant(
        "release", FORGET_TOKEN, FORGET_TOKEN.replace("'token'", "'token', 'epoch'")
    ),
    # Sending.
    "message ids are forgotten": Mutant("send", "if known then", "if false then"),
    "message id for ever": Mutant("send", "id, 'PX', ARGV[2])", "id)"),
    "message id does not count within its batch": Mutant(
        "send", "first[KEYS[key]] = id", "local _ = id"
    ),
    "message ids read as they come": Mutant(
        "send",
        "local first = {}\nfor i = 2, #KEYS do",
        "local read = function(_, name) return redis.call('GET', name) end\n"
        "local first = setmetatable({}, {__index = read})\nfor i = 2, 1 do",
    ),
    "message id of what was refused": Mutant(
        "send",
        "  ids[#ids + 1] = id",
        "  if has_id and id == '' then redis.call('SET', KEYS[key], '0-0', 'PX', ARGV[2]) end\n"
        "  ids[#ids + 1] = id",
    ),
    "backlog without bound": Mutant("send", "elseif room > 0 then", "else"),
    "backlog counted once for a batch": Mutant("send", "room = room - 1", "local _ = room"),
}


def mutated(scripts: Scripts, mutant: Mutant) -> Script:
    """The script with the mutant's text in it."""
    source: str = getattr(scripts, mutant.script).source
    assert source.count(mutant.old) == 1, f"stands {source.count(mutant.old)} times: {mutant.old}"
    return Script(source.replace(mutant.old, mutant.new))
