-- Finish entries and write what they caused, all of it or nothing of it for each entry.
-- The one script through which an owner writes; docs/design.md tells why each check is here.
--
-- KEYS: in, lease, attempts, dead, then reply streams, inboxes and states by number.
-- ARGV: token, '1' if this call may have been carried out before, MAXLEN and ttl ms of replies,
--   ttl ms of states (0 none), number of the last emit that was acknowledged, then operations:
--   answers: 'a' out count, then so many: id message (commits of one scope, each of one reply and
--           no more, as most are)
--   commit: 'c' id scope out inbox state [action expected bytes] end first count message...
--   emit:   'e' number id scope out inbox attempt first count message...
--   fail:   'f' id scope row
--   hold:   'h' id scope row out inbox first attempt error
--   bury:   'b' id scope out inbox first error traceback attempts kept
--           (kept '0': not to the dead letters)
--   't' headers: before any of these; the replies that it writes carry them
-- out, inbox, state: number of a key, 0 without. action: '' unchanged, 's' set, 'd' delete.
-- end: '' or the attempt to put on the end mark. first: index of the first reply.
-- Answer: 'FENCED', the number of operations when all are done, or for each operation 1 done,
-- 0 already done, -1 void (behind another of its scope that was not done), 'stale' or 'bad:' and
-- the reason.
local lease = redis.call('HMGET', KEYS[2], 'token', 'emit')
-- A lease that has forgotten an emit has gone back in time under its owner: what this tenure wrote
-- is not there any more, and it must not go on where it stopped.
if lease[1] ~= ARGV[1] or tonumber(lease[2] or '0') < tonumber(ARGV[6]) then
  return 'FENCED'
end

local function kind(key)
  local answer = redis.call('TYPE', key)
  return type(answer) == 'table' and answer.ok or answer
end

-- Looked at once for each key: within a call nobody else writes.
local kinds = {}

local function usable(number, wanted)
  if number == 0 then
    return true
  end
  local found = kinds[number]
  if not found then
    found = kind(KEYS[number])
    kinds[number] = found
  end
  return found == wanted or found == 'none'
end

-- A script that fails half-way is not rolled back: look at everything that can fail first.
if not (usable(1, 'stream') and usable(3, 'hash') and usable(4, 'stream')) then
  return redis.error_reply('WRONGTYPE a key of this partition was overwritten by something else')
end

local resent, maxlen, ttl, state_ttl = ARGV[2] == '1', ARGV[3], ARGV[4], tonumber(ARGV[5])
local has_attempts = kinds[3] ~= 'none'
-- A key that this call has emptied it leaves alone: while its slot moves to another node of a
-- cluster, a command on a key that is not there is refused in the midst of the script.
local rows_left = kinds[3] == 'hash' and redis.call('HLEN', KEYS[3]) or 0
local at, touched, void, answers = 7, {}, {}, {}
local are_done = true

local function take()
  at = at + 1
  return ARGV[at - 1]
end

local function number()
  return tonumber(take())
end

local function append(out, inbox, ...)
  if out > 0 then
    redis.call('XADD', KEYS[out], 'MAXLEN', '~', maxlen, '*', ...)
    touched[out] = true
  end
  if inbox > 0 then
    redis.call('XADD', KEYS[inbox], '*', ...)
    touched[inbox] = true
  end
end

-- Of the replies of the operation at hand; most have none.
local headers

local function reply(out, inbox, ...)
  if headers then
    append(out, inbox, 'h', headers, ...)
  else
    append(out, inbox, ...)
  end
end

-- An error reply must not fail what it tells of: where it cannot be written it is left out.
local function tell(out, inbox, ...)
  reply(usable(out, 'stream') and out or 0, usable(inbox, 'stream') and inbox or 0, ...)
end

local function problem(out, inbox)
  if not usable(out, 'stream') then
    return 'bad:reply key ' .. KEYS[out] .. ' is no stream'
  end
  if not usable(inbox, 'stream') then
    return 'bad:inbox key ' .. KEYS[inbox] .. ' is no stream'
  end
end

local function replies(id, scope, out, inbox, attempt, first, count, finish)
  local from = at
  at = at + count
  return function()
    for i = 0, count - 1 do
      local index = tostring(first + i)
      if finish ~= '' and i == count - 1 then
        reply(out, inbox, 'm', ARGV[from + i], 'i', id, 'n', index, 's', scope,
          'z', tostring(first + count), 'a', finish)
      elseif attempt ~= '' then
        reply(out, inbox, 'm', ARGV[from + i], 'i', id, 'n', index, 's', scope, 'a', attempt)
      elseif id == '' then
        reply(out, inbox, 'm', ARGV[from + i], 'n', index, 's', scope)
      else
        reply(out, inbox, 'm', ARGV[from + i], 'i', id, 'n', index, 's', scope)
      end
    end
    if finish ~= '' and count == 0 then
      reply(out, inbox, 'i', id, 'n', tostring(first), 's', scope, 'z', tostring(first),
        'a', finish)
    end
  end
end

-- Versions of states, by the number of their key: as found, then as this call leaves them.
-- Those that are empty are deleted at the end: they may be written again in between.
local versions, written, emptied = {}, {}, {}

local function state_problem(state, expected)
  if not usable(state, 'hash') then
    return 'bad:state key ' .. KEYS[state] .. ' is no hash'
  end
  if not versions[state] then
    versions[state] = redis.call('HGET', KEYS[state], 'v') or ''
  end
  if versions[state] ~= expected then
    return 'stale'
  end
end

local function write_state(state, action, bytes, id)
  if action == 's' then
    redis.call('HSET', KEYS[state], 'state', bytes, 'v', id)
    versions[state] = id
    emptied[state] = nil
  elseif action == 'd' then
    versions[state] = ''
    emptied[state] = true
  end
  written[state] = true
end

local function finish_entry(id)
  if redis.call('XDEL', KEYS[1], id) == 0 then
    return false
  end
  if has_attempts then
    rows_left = rows_left - redis.call('HDEL', KEYS[3], id)
    has_attempts = rows_left > 0
  end
  return true
end

-- 1: the entry is finished now, and what it caused is to be written.
local function finish(id, scope, bad)
  if void[scope] then
    return -1
  end
  -- An entry that is gone was committed before, whatever became of its keys since.
  if bad and #redis.call('XRANGE', KEYS[1], id, id) == 1 then
    void[scope] = true
    return bad
  end
  if not finish_entry(id) then
    void[scope] = not resent
    return 0
  end
  return 1
end

local function note(result)
  answers[#answers + 1] = result
  are_done = are_done and result == 1
end

-- The name of a reply stream ends with its scope: `{namespace:partition}:out:` and the scope id.
local scope_at = #KEYS[1] - 1 + #'out:'

local function finish_answers()
  local out, count = number(), number()
  local scope = string.sub(KEYS[out], scope_at)
  local bad = problem(out, 0)
  for _ = 1, count do
    local id, message = ARGV[at], ARGV[at + 1]
    local result = finish(id, scope, bad)
    if result == 1 then
      append(out, 0, 'm', message, 'i', id, 'n', '0', 's', scope)
    end
    note(result)
    at = at + 2
  end
end

local function commit()
  local id, scope, out, inbox, state = take(), take(), number(), number(), number()
  local action, expected, bytes = '', '', ''
  if state > 0 then
    action, expected, bytes = take(), take(), take()
  end
  local mark, first, count = take(), number(), number()
  local write = replies(id, scope, out, inbox, '', first, count, mark)
  local bad = state > 0 and state_problem(state, expected) or problem(out, inbox)
  local result = finish(id, scope, bad)
  if result == 1 then
    write()
    if state > 0 then
      write_state(state, action, bytes, id)
    end
  end
  return result
end

local function emit()
  local sequence = number()
  local id, scope, out, inbox = take(), take(), number(), number()
  local attempt, first, count = take(), number(), number()
  local write = replies(id, scope, out, inbox, attempt, first, count, '')
  if sequence <= tonumber(redis.call('HGET', KEYS[2], 'emit') or '0') then
    return 0
  end
  -- An answer to an entry that is gone would never end.
  if void[scope] or id ~= '' and #redis.call('XRANGE', KEYS[1], id, id) == 0 then
    void[scope] = true
    return -1
  end
  local bad = problem(out, inbox)
  if bad then
    void[scope] = true
    return bad
  end
  redis.call('HSET', KEYS[2], 'emit', tostring(sequence))
  write()
  return 1
end

-- Rows as this call found them: sent again, it may write down a failure before it holds.
local rows = {}

local function write_row(id, row)
  rows[id] = rows[id] or has_attempts and redis.call('HGET', KEYS[3], id) or ''
  rows_left = rows_left + redis.call('HSET', KEYS[3], id, row)
  has_attempts = true
end

local function fail()
  local id, scope, row = take(), take(), take()
  if void[scope] then
    return -1
  end
  if #redis.call('XRANGE', KEYS[1], id, id) == 0 then
    return 0
  end
  write_row(id, row)
  return 1
end

-- As fail; and who waits for the answer is told that it does not come by itself.
local function hold()
  local id, scope, row, out, inbox = take(), take(), take(), number(), number()
  local first, attempt, reason = take(), take(), take()
  if void[scope] then
    return -1
  end
  if #redis.call('XRANGE', KEYS[1], id, id) == 0 then
    return 0
  end
  write_row(id, row)
  if rows[id] == row then
    return 0
  end
  tell(out, inbox, 'i', id, 'n', first, 's', scope, 'a', attempt, 'e', reason)
  return 1
end

local function bury()
  local id, scope, out, inbox, first = take(), take(), number(), number(), take()
  local reason, traceback, attempts, is_kept = take(), take(), take(), take() == '1'
  if void[scope] then
    return -1
  end
  local entry = redis.call('XRANGE', KEYS[1], id, id)[1]
  if not entry then
    return 0
  end
  local letter = {'id', id, 'error', reason, 'traceback', traceback, 'attempts', attempts,
    'when', string.format('%d', now_ms())}
  -- More fields than any producer of ours writes would overflow the stack of unpack.
  for i = 1, math.min(#entry[2], 1000) do
    letter[#letter + 1] = entry[2][i]
  end
  finish_entry(id)
  if is_kept then
    redis.call('XADD', KEYS[4], '*', unpack(letter))
  end
  tell(out, inbox, 'i', id, 'n', first, 's', scope, 'e', reason)
  return 1
end

local operations = {c = commit, e = emit, f = fail, h = hold, b = bury}

function operations.t()
  headers = take()
  local result = operations[take()]()
  headers = nil
  return result
end

local last = #ARGV
while at <= last do
  local operation = take()
  if operation == 'a' then
    finish_answers()
  else
    note(operations[operation]())
  end
end
for key in pairs(touched) do
  redis.call('PEXPIRE', KEYS[key], ttl)
end
for key in pairs(written) do
  if emptied[key] then
    redis.call('DEL', KEYS[key])
  elseif state_ttl > 0 then
    redis.call('PEXPIRE', KEYS[key], state_ttl)
  else
    redis.call('PERSIST', KEYS[key])
  end
end
return are_done and #answers or answers
