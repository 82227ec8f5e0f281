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


FENCE = "if is_fenced(token, emitted) then"
EMIT_VOID = """  -- An answer to an entry that is gone would never end.
  if void[scope] or id ~= '' and #call('XRANGE', entries_key, id, id) == 0 then
    void[scope] = true
    return -1
  end
"""
XDEL = "if call('XDEL', entries_key, id) == 0 then"
REMEMBER_NUMBER = "call('HSET', lease_key, 'emit', tostring(sequence))"
GONE = "    return 0\n  end\n"
BAD = "    void[scope] = true\n    return bad\n  end\n"
NOT_BAD = "    return bad\n  end\n"
TAKE_LETTER = "redis.call('XDEL', KEYS[1], ARGV[i])"
FORGET_ROW = "redis.call('HDEL', KEYS[2], ARGV[1])"
FORGET_TOKEN = "redis.call('HDEL', KEYS[1], 'token')"
CLEAN = "if owner == '' or owner == ARGV[1] then"
NEWEST = "('XREVRANGE', KEYS[2], '+', '-', 'COUNT', 1)"
FAIL = "local id, scope, row = take(), take(), take()\n"
HOLD = "local first, attempt, reason = take(), take(), take()\n"
GONE_ENTRY = "  if #call('XRANGE', entries_key, id, id) == 0 then\n    return 0\n  end\n"
VOID_CHECK = """  if void[scope] then
    return -1
  end
"""

MUTANTS: dict[str, Mutant] = {
    # The fence.
    "no fence": Mutant("commit", FENCE, "if false then"),
    "epoch instead of token": Mutant(
        "commit",
        "call('HGET', lease_key, 'token') ~= token",
        "call('HGET', lease_key, 'epoch') ~= string.match(token, '^%d*')",
    ),
    "a higher epoch passes the fence": Mutant(
        "commit",
        FENCE,
        "local mine = tonumber(string.match(token, '^%d+') or -1)\n"
        "local found = call('HGET', lease_key, 'token')\n"
        "if not found or found ~= token and tonumber(string.match(found, '^%d+')) >= mine then",
    ),
    "a released lease has no fence": Mutant(
        "commit",
        FENCE,
        "if (call('HGET', lease_key, 'token') or token) ~= token then",
    ),
    "expiry fences": Mutant(
        "commit",
        FENCE,
        "if call('HGET', lease_key, 'token') ~= token\n"
        "  or tonumber(call('HGET', lease_key, 'expiry')) < now_ms() then",
    ),
    # Entries are finished once.
    "no XDEL answer": Mutant("commit", XDEL, XDEL.replace("==", "<")),
    "entry is not deleted": Mutant(
        "commit",
        XDEL,
        "if #call('XRANGE', entries_key, id, id) == 0 then",
    ),
    "an entry that somebody else finished voids nothing": Mutant(
        "commit", "void[scope] = not resent", "void[scope] = nil"
    ),
    "own resend voids": Mutant("commit", "void[scope] = not resent", "void[scope] = true"),
    "a commit that was done can be bad": Mutant(
        "commit", "if bad and #call('XRANGE', entries_key, id, id) == 1 then", "if bad then"
    ),
    "burial of an entry that is gone": Mutant(
        "commit", "  if not entry then\n    return 0\n  end", "  entry = entry or {id, {}}"
    ),
    # Everything that can fail is looked at first.
    "damaged partition not looked at first": Mutant(
        "commit",
        "if has(flags, 'f') and not usable(first + 2, 'HLEN')\n"
        "    or has(flags, 'd') and not usable(first + 3, 'XLEN') then",
        "if has(flags, 'f') and not usable(first + 2, 'HLEN') and false then",
    ),
    "entries not looked at first": Mutant(
        "commit", "call('XLEN', entries_key)", "local _ = entries_key"
    ),
    "dead letters not looked at first": Mutant(
        "commit", "\n    or has(flags, 'd') and not usable(first + 3, 'XLEN')", ""
    ),
    "reply key not looked at first": Mutant(
        "commit", "if not usable(out, 'XLEN') then", "if usable(out, 'XLEN') and false then"
    ),
    "inbox not looked at first": Mutant(
        "commit", "if not usable(inbox, 'XLEN') then", "if false then"
    ),
    "state key not looked at first": Mutant("commit", "if version == nil then", "if false then"),
    "an error is told to a reply key of any type": Mutant(
        "commit", "usable(out, 'XLEN') and out or 0", "out"
    ),
    "an error is told to an inbox of any type": Mutant(
        "commit", "usable(inbox, 'XLEN') and inbox or 0", "inbox"
    ),
    # States.
    "no state version": Mutant(
        "commit",
        "if version ~= expected then",
        "if false then",
    ),
    "own version not known to the next commit": Mutant("commit", "    versions[state] = id\n", ""),
    "own deletion not known to the next commit": Mutant("commit", "    versions[state] = ''\n", ""),
    "version not written": Mutant("commit", "'state', bytes, 'v', id)", "'state', bytes)"),
    "unchanged state gets a new version": Mutant(
        "commit",
        "elseif action == 'd' then",
        "elseif action == '' then\n    call('HSET', keys[state], 'v', id)\n"
        "  elseif action == 'd' then",
    ),
    "deleted state leaves its version": Mutant(
        "commit", "call('DEL', keys[key])", "call('HDEL', keys[key], 'state')"
    ),
    "state without time to live": Mutant(
        "commit", "call('PEXPIRE', keys[key], state_ttl)", "local _ = state_ttl"
    ),
    "state keeps an old time to live": Mutant(
        "commit", "call('PERSIST', keys[key])", "local _ = key"
    ),
    # Void.
    "nothing is void behind a stale or bad commit": Mutant(
        "commit", f"{BAD}  if not", f"{NOT_BAD}  if not"
    ),
    "nothing is void behind a bad emit": Mutant(
        "commit",
        f"{BAD}  call",
        f"{NOT_BAD}  call",
    ),
    "no commit is void": Mutant("commit", f"scope, bad)\n{VOID_CHECK}", "scope, bad)\n"),
    # Short forms.
    "answer goes to another scope": Mutant(
        "commit", "#entries_key - 1 + #'out:'", "#entries_key + 1"
    ),
    "answer to a key of any type": Mutant(
        "commit",
        "local bad = not held and problem(out, 0)",
        "held = held or 0\n  local bad",
    ),
    "answer with a state to a key of any type": Mutant(
        "commit",
        "local bad = problem(out, 0)\n  local before",
        "sizes[out] = usable(out, 'XLEN') or 0\n  local bad\n  local before",
    ),
    "answer with a state of any version": Mutant(
        "commit",
        "finish(id, scope, state_problem(state, expected) or",
        "finish(id, scope, state_problem(state, expected) and nil or",
    ),
    "state of a run is that of its first": Mutant(
        "commit", "versions[state], last = id, at", "versions[state], last = id, last or at"
    ),
    "state of a run whose last was not done": Mutant(
        "commit",
        "    expected = id\n    at = at + 3\n",
        "    expected, last = id, at\n    at = at + 3\n",
    ),
    "version of a run is not remembered": Mutant(
        "commit", "versions[state], last = id, at", "last = at"
    ),
    "answer with a state that was not done is written": Mutant(
        "commit",
        "    if result == 1 then\n      before",
        "    if result ~= 2 then\n      before",
    ),
    "one answer to a key of any type": Mutant(
        "commit",
        "  if type(held) == 'table' then\n",
        "  held = tonumber(held) or 0\n  if type(held) == 'table' then\n",
    ),
    "one answer to an entry that is gone": Mutant(
        "commit", "  if not finish_entry(id) then\n    return {0}\n  end\n", "  finish_entry(id)\n"
    ),
    "one answer that is bad is told like one that is not": Mutant(
        "commit", "    return {finish(id, scope, problem(out, 0))}\n", "    return {0}\n"
    ),
    "one answer has as many keys as others": Mutant("commit", "'0', 2, 3\n", "'0', 2, 4\n"),
    "one answer has as many arguments as others": Mutant("commit", "'0', 2, 3\n", "'0', 3, 3\n"),
    # Times to live that are young.
    "new reply stream of one answer counts as young": Mutant(
        "commit", "if held == 0 or not is_young then", "if not is_young then"
    ),
    "all times to live of one answer are young": Mutant("commit", "kind == 'O'", "true"),
    "new reply stream counts as young": Mutant(
        "commit",
        "if has_any and not (is_young and held > 0) then",
        "if has_any and not is_young then",
    ),
    "new reply stream beside a state counts as young": Mutant(
        "commit",
        "    if not (is_young and sizes[out] > 0) then",
        "    if not is_young then",
    ),
    "new state counts as young": Mutant(
        "commit", "if not (is_young and before ~= '') then", "if not is_young then"
    ),
    "all times to live are young": Mutant(
        "commit", "finish_answers(operation == 'A')", "finish_answers(true)"
    ),
    "all times to live beside states are young": Mutant(
        "commit", "finish_states(operation == 'S')", "finish_states(true)"
    ),
    "answers not trimmed": Mutant(
        "commit",
        "'MAXLEN', '~', maxlen, '*',\n      'm', message",
        "'*',\n      'm', message",
    ),
    "no stream is long enough to be trimmed": Mutant(
        "commit", "if held < most then", "if true then"
    ),
    # Several partitions in one call.
    "what goes wrong beside goes wrong here": Mutant(
        "commit", "pcall(carry_out)", "true, carry_out()"
    ),
    "what is void beside is void here": Mutant(
        "commit",
        "void, rows, noted, answers, headers = {},",
        "void, rows, noted, answers, headers = void or {},",
    ),
    "rows beside are rows here": Mutant(
        "commit", "headers = {}, {}, 0,", "headers = {}, rows or {}, 0,"
    ),
    "no attempts beside are none here": Mutant(
        "commit",
        "rows_left = sizes[first + 2] or 0",
        "rows_left = rows_left == 0 and 0 or sizes[first + 2] or 0",
    ),
    "fenced beside is carried out": Mutant(
        "commit", "    return 'FENCED'\n", "    if at > 12 then return 'FENCED' end\n"
    ),
    "partition behind a fenced one is left out": Mutant(
        "commit",
        "    at = stop\n",
        "    at = is_whole and result == 'FENCED' and #arguments or stop\n",
    ),
    "all are done if those beside are": Mutant("commit", "      are_all_done = false\n", ""),
    "answer without its index": Mutant(
        "commit", "'*', 'm', message, 'i', id, 'n', '0', 's'", "'*', 'm', message, 'i', id, 's'"
    ),
    "all are done if the last is": Mutant(
        "commit",
        "return answers or noted",
        "return answers and answers[noted] ~= 1 and answers or noted",
    ),
    "all are done although one is not": Mutant(
        "commit",
        "return answers or noted",
        "return answers and answers[1] ~= 1 and answers or noted",
    ),
    "a key's type is remembered for another": Mutant(
        "commit", "sizes[number] = size", "sizes[number] = size\n    sizes[number + 1] = size"
    ),
    "no emit is void": Mutant("commit", "if void[scope] or id ~= ''", "if id ~= ''"),
    "emit of an entry that is gone": Mutant("commit", EMIT_VOID, VOID_CHECK),
    "no failure is void": Mutant("commit", f"{FAIL}{VOID_CHECK}", FAIL),
    "no hold is void": Mutant("commit", f"{HOLD}{VOID_CHECK}", HOLD),
    "no burial is void": Mutant("commit", f"take() == '1'\n{VOID_CHECK}", "take() == '1'\n"),
    # Emits.
    "emit not numbered": Mutant("commit", "if sequence <= tonumber(", "if 0 > tonumber("),
    "number of an emit not remembered": Mutant("commit", REMEMBER_NUMBER, "local _ = sequence"),
    "bad emit uses up its number": Mutant(
        "commit",
        EMIT_VOID,
        f"  {REMEMBER_NUMBER}\n{EMIT_VOID}",
    ),
    "numbers of emits outlive the tenure": Mutant("claim", ", 'emit', '0',", ","),
    "emitted reply does not tell its run": Mutant(
        "commit", "elseif attempt ~= '' then", "elseif false then"
    ),
    # Attempts.
    "failure of an entry that is gone": Mutant(
        "commit", f"{GONE_ENTRY}  write_row(id, row)\n  return", "  write_row(id, row)\n  return"
    ),
    "attempts outlive their entry": Mutant("commit", "call('HDEL', attempts_key, id)", "0"),
    "attempts of the same call outlive their entry": Mutant(
        "commit",
        "rows_left = rows_left + call('HSET', attempts_key, id, row)",
        "call('HSET', attempts_key, id, row)",
    ),
    "hold of an entry that is gone": Mutant(
        "commit", f"{GONE_ENTRY}  write_row(id, row)\n  if", "  write_row(id, row)\n  if"
    ),
    "hold that is sent again tells again": Mutant(
        "commit", "if rows[id] == row then", "if false then"
    ),
    "hold behind a failure of its call that is sent again tells again": Mutant(
        "commit",
        "rows[id] = rows[id] or rows_left > 0 and call('HGET', attempts_key, id) or ''",
        "rows[id] = rows_left > 0 and call('HGET', attempts_key, id) or ''",
    ),
    "hold that is sent again leaves the row of the failure before it": Mutant(
        "commit",
        "  write_row(id, row)\n  if rows[id] == row then\n    return 0\n  end\n",
        "  rows[id] = rows[id] or call('HGET', attempts_key, id) or ''\n"
        "  if rows[id] == row then\n    return 0\n  end\n  write_row(id, row)\n",
    ),
    "hold tells nobody": Mutant(
        "commit",
        "  tell(out, inbox, 'i', id, 'n', first, 's', scope, 'a', attempt, 'e', reason)\n",
        "",
    ),
    "hold does not tell its run": Mutant(
        "commit", "scope, 'a', attempt, 'e', reason)", "scope, 'e', reason)"
    ),
    "hold finishes its entry": Mutant(
        "commit",
        "  tell(out, inbox, 'i', id, 'n', first, 's', scope, 'a', attempt",
        "  finish_entry(id)\n  tell(out, inbox, 'i', id, 'n', first, 's', scope, 'a', attempt",
    ),
    # Dead letters.
    "burial is not kept": Mutant("commit", "if is_kept then", "if false then"),
    "an expired entry is kept": Mutant("commit", "if is_kept then", "if true then"),
    "dead letter without the entry's fields": Mutant(
        "commit", "math.min(#entry[2], 1000)", "math.min(#entry[2], 2)"
    ),
    "burial tells nobody": Mutant(
        "commit", "  tell(out, inbox, 'i', id, 'n', first, 's', scope, 'e', reason)\n", ""
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
        "call('XADD', keys[inbox], '*', ...)",
        "call('XADD', keys[inbox], 'MAXLEN', '~', maxlen, '*', ...)",
    ),
    "reply stream without time to live": Mutant(
        "commit", "'*', ...)\n    touched[out] = true", "'*', ...)"
    ),
    "inbox without time to live": Mutant("commit", "touched[inbox] = true", "local _ = inbox"),
    # Leases.
    "live lease is stolen": Mutant("claim", "and left > 0 then", "and left > 1e12 then"),
    "lease that ran out is not free": Mutant("claim", "and left > 0 then", "then"),
    "own lease is not taken again": Mutant("claim", " and owner ~= ARGV[1]", ""),
    "epoch does not grow": Mutant(
        "claim", "tonumber(lease[3] or '0') + 1", "tonumber(lease[3] or '1')"
    ),
    "token without nonce": Mutant("claim", "epoch .. ':' .. ARGV[2]", "epoch .. ':'"),
    "unclean end is not told": Mutant("claim", CLEAN, "if true then"),
    "claim of what is one's own tells of an unclean end": Mutant(
        "claim", CLEAN, "if owner == '' then"
    ),
    "claim of what was released tells of an unclean end": Mutant(
        "claim", CLEAN, "if owner == ARGV[1] then"
    ),
    "unclean end is not written down": Mutant(
        "claim",
        "redis.call('HSET', KEYS[1], 'unclean'",
        "string.format('%s%s%s', KEYS[1], 'unclean'",
    ),
    "unclean end is written down for a clean one": Mutant(
        "claim", CLEAN, f"redis.call('HSET', KEYS[1], 'unclean', string.format('%d', now))\n{CLEAN}"
    ),
    "unclean end is remembered for ever": Mutant("claim", "< 600000", "< 1e18"),
    "second unclean end is told like the first": Mutant("claim", "600000 and 2", "600000 and 1"),
    "token of who left uncleanly is not told": Mutant("claim", ", lease[4] or ''}", ", ''}"),
    "token of who left cleanly is told": Mutant(
        "claim", "0, newest, ''}", "0, newest, lease[4] or ''}"
    ),
    "damaged stream cannot be claimed": Mutant(
        "claim", f"redis.pcall{NEWEST}", f"redis.call{NEWEST}"
    ),
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
    # Replaying.
    "replayed letter stays": Mutant("replay", TAKE_LETTER, "local _ = KEYS"),
    "letter without room is lost": Mutant(
        "replay", "room <= 0 then\n", f"room <= 0 then\n    {TAKE_LETTER}\n"
    ),
    "replay without bound": Mutant("replay", "elseif room <= 0 then", "elseif false then"),
    "room counted once for a replay": Mutant("replay", "room = room - 1", "local _ = room"),
    "letter goes to a key of any type": Mutant(
        "replay", "redis.call('XLEN', KEYS[2])", "(tonumber(redis.pcall('XLEN', KEYS[2])) or 0)"
    ),
    "replayed entry tells who waited": Mutant("replay", "old[at] ~= 'r' and ", ""),
    "replayed entry has expired": Mutant("replay", " and old[at] ~= 'x'", ""),
    "replayed entry has fields of its letter": Mutant("replay", "for at = 11,", "for at = 9,"),
    "replayed entry lacks a field": Mutant("replay", "for at = 11,", "for at = 13,"),
    "first id is forgotten by the second replay": Mutant(
        "replay", "original = old[at + 1]", "local _ = at"
    ),
    # Headers of replies.
    "replies have no headers": Mutant("commit", "if headers then", "if false then"),
    "headers go to the operations behind": Mutant("commit", "  headers = nil\n", ""),
    # Releasing what is held.
    "any row is released": Mutant("unhold", "~= ARGV[3] then", "== false then"),
    "row outlives its release": Mutant("unhold", FORGET_ROW, "local _ = KEYS"),
    "row is forgotten before the entry is looked at": Mutant(
        "unhold", "if ARGV[2] == '1' then", f"{FORGET_ROW}\nif ARGV[2] == '1' then"
    ),
    "dropped entry stays": Mutant("unhold", "if ARGV[2] == '1' then", "if false then"),
    "released entry is dropped": Mutant("unhold", "if ARGV[2] == '1' then", "if true then"),
}


def mutated(scripts: Scripts, mutant: Mutant) -> Script:
    """The script with the mutant's text in it."""
    source: str = getattr(scripts, mutant.script).source
    assert source.count(mutant.old) == 1, f"stands {source.count(mutant.old)} times: {mutant.old}"
    return Script(source.replace(mutant.old, mutant.new))
