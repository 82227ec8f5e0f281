-- Finish entries and write what they caused, all of it or nothing of it for each entry.
-- The one script through which an owner writes; docs/design.md tells why each check is here.
-- A call carries the operations of one partition, or of several where one server has them all. They
-- are its parts; a few answers of different scopes, which have no say in each other, are a part each.
--
-- KEYS: of each part in, lease, and then attempts, dead, reply streams, inboxes and states; or the
--   reply stream alone where it is one answer.
-- ARGV: count of parts, MAXLEN and ttl ms of replies, ttl ms of states (0 none), then for each part,
--   whose keys follow those of the one before:
--   one answer, as most are where messages come one by one: 'o' token id message
--           'O': the same; the reply stream was given its time to live a short while ago
--   any others: 'm' token, flags, number of the last emit that was acknowledged, count of the
--           arguments that follow, count of its keys, then operations:
--   answers: 'a' out count, then so many: id message (commits of one scope, each of one reply and
--           no more, as most are)
--   states: 's' out state expected count, then so many: id message bytes (the same, and each sets
--           the state that the one before it has left)
--           'A', 'S': the same; these keys were given their times to live a short while ago
--   commit: 'c' id scope out inbox state [action expected bytes] end first count message...
--   emit:   'e' number id scope out inbox attempt first count message...
--   fail:   'f' id scope row
--   hold:   'h' id scope row out inbox first attempt error
--   bury:   'b' id scope out inbox first error traceback attempts kept
--           (kept '0': not to the dead letters)
--   't' headers: before any of these; the replies that it writes carry them
-- flags: letters. 'r': this may have been carried out before. 'd': something goes to the dead letters.
--   'f': failed attempts are written down, or may be.
-- out, inbox, state: number of a key, 0 without. action: '' unchanged, 's' set, 'd' delete.
-- end: '' or the attempt to put on the end mark. first: index of the first reply.
-- Answer for a part: 'FENCED', the number of operations when all are done, or for each operation
-- 1 done, 0 already done, -1 void (behind another of its scope that was not done), 'stale' or 'bad:'
-- and the reason. Of several parts: the number of all operations when all are done, or the
-- answer for each, '!' and the error where one alone would have been answered by an error.
local call, pcall_redis, keys, arguments = redis.call, redis.pcall, KEYS, ARGV
local parts, maxlen, ttl, state_ttl = ARGV[1], ARGV[2], ARGV[3], tonumber(ARGV[4])
local most = tonumber(maxlen)
local at = 5

-- Of the part at hand: its keys, the places behind its operations and its keys, and what is
-- known of it.
local entries_key, lease_key, attempts_key, dead_key
local key_at = 1
local stop, resent, rows_left, void, rows

-- By number of a key, which no two parts share.
local touched = {}

-- Asks what fails for a key of another type, and then answers nil. Any other error ends the script.
local function ask(...)
  local found = pcall_redis(...)
  if type(found) == 'table' then
    return not string.find(tostring(found.err), 'WRONGTYPE', 1, true) and call(...) or nil
  end
  return found
end

-- By number of a key: how much it held before it was first used by that number, false for a key of
-- another type. Looked at once for each: within a call nobody else writes.
local sizes = {}

local function usable(number, question)
  if number == 0 then
    return true
  end
  local size = sizes[number]
  if size == nil then
    size = ask(question, keys[number]) or false
    sizes[number] = size
  end
  return size
end

local function take()
  at = at + 1
  return arguments[at - 1]
end

local function number()
  return tonumber(take())
end

local function append(out, inbox, ...)
  if out > 0 then
    call('XADD', keys[out], 'MAXLEN', '~', maxlen, '*', ...)
    touched[out] = true
  end
  if inbox > 0 then
    call('XADD', keys[inbox], '*', ...)
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
  reply(usable(out, 'XLEN') and out or 0, usable(inbox, 'XLEN') and inbox or 0, ...)
end

local function problem(out, inbox)
  if not usable(out, 'XLEN') then
    return 'bad:reply key ' .. keys[out] .. ' is no stream'
  end
  if not usable(inbox, 'XLEN') then
    return 'bad:inbox key ' .. keys[inbox] .. ' is no stream'
  end
end

local function replies(id, scope, out, inbox, attempt, first, count, finish)
  local from = at
  at = at + count
  return function()
    for i = 0, count - 1 do
      local index = tostring(first + i)
      if finish ~= '' and i == count - 1 then
        reply(out, inbox, 'm', arguments[from + i], 'i', id, 'n', index, 's', scope,
          'z', tostring(first + count), 'a', finish)
      elseif attempt ~= '' then
        reply(out, inbox, 'm', arguments[from + i], 'i', id, 'n', index, 's', scope, 'a', attempt)
      elseif id == '' then
        reply(out, inbox, 'm', arguments[from + i], 'n', index, 's', scope)
      else
        reply(out, inbox, 'm', arguments[from + i], 'i', id, 'n', index, 's', scope)
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
  local version = versions[state]
  if not version then
    version = ask('HGET', keys[state], 'v')
    if version == nil then
      return 'bad:state key ' .. keys[state] .. ' is no hash'
    end
    version = version or ''
    versions[state] = version
  end
  if version ~= expected then
    return 'stale'
  end
end

local function write_state(state, action, bytes, id)
  if action == 's' then
    call('HSET', keys[state], 'state', bytes, 'v', id)
    versions[state] = id
    emptied[state] = nil
  elseif action == 'd' then
    versions[state] = ''
    emptied[state] = true
  end
end

local function finish_entry(id)
  if call('XDEL', entries_key, id) == 0 then
    return false
  end
  if rows_left > 0 then
    rows_left = rows_left - call('HDEL', attempts_key, id)
  end
  return true
end

-- 1: the entry is finished now, and what it caused is to be written.
local function finish(id, scope, bad)
  if void[scope] then
    return -1
  end
  -- An entry that is gone was committed before, whatever became of its keys since.
  if bad and #call('XRANGE', entries_key, id, id) == 1 then
    void[scope] = true
    return bad
  end
  if not finish_entry(id) then
    void[scope] = not resent
    return 0
  end
  return 1
end

-- A list only once there is something else than 1 to tell.
local noted, answers

local function note(result)
  noted = noted + 1
  if result ~= 1 and not answers then
    answers = {}
    for i = 1, noted - 1 do
      answers[i] = 1
    end
  end
  if answers then
    answers[noted] = result
  end
end

-- The name of a reply stream ends with its scope: `{namespace:partition}:out:` and the scope id.
local scope_at

-- held: how long the stream was before this call, which does not add so much that it matters.
local function answer(out_key, held, scope, id, message)
  if held < most then
    call('XADD', out_key, '*', 'm', message, 'i', id, 'n', '0', 's', scope)
  else
    call('XADD', out_key, 'MAXLEN', '~', maxlen, '*',
      'm', message, 'i', id, 'n', '0', 's', scope)
  end
end

local function finish_answers(is_young)
  local out, count = tonumber(arguments[at]), tonumber(arguments[at + 1])
  local out_key, held = keys[out], usable(out, 'XLEN')
  local scope = string.sub(out_key, scope_at)
  local bad = not held and problem(out, 0)
  local has_any = false
  at = at + 2
  for _ = 1, count do
    local id = arguments[at]
    local result = finish(id, scope, bad)
    if result == 1 then
      answer(out_key, held, scope, id, arguments[at + 1])
      has_any = true
    end
    note(result)
    at = at + 2
  end
  if has_any and not (is_young and held > 0) then
    touched[out] = true
  end
end

local function finish_states(is_young)
  local out, state, expected, count = number(), number(), take(), number()
  local scope = string.sub(keys[out], scope_at)
  local bad = problem(out, 0)
  local before, last = nil, nil
  for _ = 1, count do
    local id = arguments[at]
    local result = finish(id, scope, state_problem(state, expected) or bad)
    if result == 1 then
      before = before or versions[state]
      versions[state], last = id, at
      answer(keys[out], sizes[out], scope, id, arguments[at + 1])
    end
    note(result)
    expected = id
    at = at + 3
  end
  if last then
    write_state(state, 's', arguments[last + 2], arguments[last])
    if not (is_young and sizes[out] > 0) then
      touched[out] = true
    end
    if not (is_young and before ~= '') then
      written[state] = true
    end
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
      written[state] = true
    end
  end
  return result
end

local function emit()
  local sequence = number()
  local id, scope, out, inbox = take(), take(), number(), number()
  call('XLEN', entries_key)  -- fails here, and not when something is written
  local attempt, first, count = take(), number(), number()
  local write = replies(id, scope, out, inbox, attempt, first, count, '')
  if sequence <= tonumber(call('HGET', lease_key, 'emit') or '0') then
    return 0
  end
  -- An answer to an entry that is gone would never end.
  if void[scope] or id ~= '' and #call('XRANGE', entries_key, id, id) == 0 then
    void[scope] = true
    return -1
  end
  local bad = problem(out, inbox)
  if bad then
    void[scope] = true
    return bad
  end
  call('HSET', lease_key, 'emit', tostring(sequence))
  write()
  return 1
end

-- Rows as this call found them: sent again, it may write down a failure before it holds.
local function write_row(id, row)
  rows[id] = rows[id] or rows_left > 0 and call('HGET', attempts_key, id) or ''
  rows_left = rows_left + call('HSET', attempts_key, id, row)
end

local function fail()
  local id, scope, row = take(), take(), take()
  if void[scope] then
    return -1
  end
  if #call('XRANGE', entries_key, id, id) == 0 then
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
  if #call('XRANGE', entries_key, id, id) == 0 then
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
  local entry = call('XRANGE', entries_key, id, id)[1]
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
    call('XADD', dead_key, '*', unpack(letter))
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

local function is_fenced(token, emitted)
  if call('HGET', lease_key, 'token') ~= token then
    return true
  end
  -- A lease that has forgotten an emit has gone back in time under its owner: what this tenure wrote
  -- is not there any more, and it must not go on where it stopped.
  return emitted ~= '0' and tonumber(call('HGET', lease_key, 'emit') or '0') < tonumber(emitted)
end

local function has(flags, flag)
  return flags ~= '' and string.find(flags, flag, 1, true)
end

-- As a run of one answer. Nearly everything comes through here: it calls as little as it can.
local function finish_one(out, is_young)
  local out_key, id = keys[out], arguments[at]
  local scope, held = string.sub(out_key, scope_at), pcall_redis('XLEN', out_key)
  if type(held) == 'table' then
    void = {}
    return {finish(id, scope, problem(out, 0))}
  end
  if not finish_entry(id) then
    return {0}
  end
  answer(out_key, held, scope, id, arguments[at + 1])
  if held == 0 or not is_young then
    touched[out] = true
  end
  return 1
end

local function carry_out()
  local kind, token, first = arguments[at], arguments[at + 1], key_at
  local flags, emitted, size, count = '', '0', 2, 3
  at = at + 2
  if kind == 'm' then
    flags, emitted, size, count = take(), take(), number(), number()
  end
  stop, key_at = at + size, first + count
  entries_key, lease_key = keys[first], keys[first + 1]
  if is_fenced(token, emitted) then
    return 'FENCED'
  end
  scope_at = #entries_key - 1 + #'out:'
  if kind ~= 'm' then
    resent, rows_left = false, 0
    return finish_one(first + 2, kind == 'O')
  end
  attempts_key, dead_key = keys[first + 2], keys[first + 3]
  -- A script that fails half-way is not rolled back: look at everything that can fail first. That
  -- the input is a stream is seen when an operation looks for its entry, before it writes.
  if has(flags, 'f') and not usable(first + 2, 'HLEN')
    or has(flags, 'd') and not usable(first + 3, 'XLEN') then
    return redis.error_reply('WRONGTYPE a key of this partition was overwritten by something else')
  end
  resent = has(flags, 'r')
  -- What this call has emptied it leaves alone: while its slot moves to another node of a cluster, a
  -- command on a key that is not there is refused in the midst of the script.
  rows_left = sizes[first + 2] or 0
  void, rows, noted, answers, headers = {}, {}, 0, nil, nil
  while at < stop do
    local operation = take()
    if operation == 'A' or operation == 'a' then
      finish_answers(operation == 'A')
    elseif operation == 'S' or operation == 's' then
      finish_states(operation == 'S')
    else
      note(operations[operation]())
    end
  end
  return answers or noted
end

local function error_of(problem)
  local text = type(problem) == 'table' and problem.err or tostring(problem)
  if string.find(text, 'READONLY', 1, true) then
    error(problem, 0)  -- it is no primary any more, which is for the connection to know
  end
  return '!' .. text
end

-- What goes wrong in one of several parts is told of that one: the others go on.
local function carry_out_all()
  local results, done, are_all_done = {}, 0, true
  for i = 1, tonumber(parts) do
    local is_whole, result = pcall(carry_out)
    at = stop
    if not is_whole or type(result) == 'table' and result.err then
      result = error_of(result)
    end
    if type(result) == 'number' then
      done = done + result
    else
      are_all_done = false
    end
    results[i] = result
  end
  return are_all_done and done or results
end

local result
if parts == '1' then
  result = carry_out()
else
  result = carry_out_all()
end
for key in pairs(touched) do
  call('PEXPIRE', keys[key], ttl)
end
for key in pairs(written) do
  if emptied[key] then
    call('DEL', keys[key])
  elseif state_ttl > 0 then
    call('PEXPIRE', keys[key], state_ttl)
  else
    call('PERSIST', keys[key])
  end
end
return result
