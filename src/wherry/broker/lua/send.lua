-- Append entries to a partition's input stream, as long as it has room.
-- KEYS: in, then keys of message ids, one for each entry that has one ('k'), in order.
-- ARGV: bound of the backlog, ttl ms of message ids, then for each entry the names of its fields
-- in one string (they have one letter each), and their values.
-- Answer: for each entry its id; '=' and the id of the first sending if it was sent before; '' if
-- it was refused, and then every new entry behind it is refused too, to keep the order.
local room = tonumber(ARGV[1]) - redis.call('XLEN', KEYS[1])
local ids, at, key = {}, 3, 1
-- All read before anything is written: a key that is no string must not fail half of a batch.
local first = {}
for i = 2, #KEYS do
  first[KEYS[i]] = redis.call('GET', KEYS[i])
end
while at <= #ARGV do
  local names, fields, known = ARGV[at], {}, false
  if names == 'sm' then  -- as nearly all are
    fields = {'s', ARGV[at + 1], 'm', ARGV[at + 2]}
  else
    for i = 1, #names do
      fields[2 * i - 1] = string.sub(names, i, i)
      fields[2 * i] = ARGV[at + i]
    end
  end
  at = at + 1 + #names
  local has_id = string.find(names, 'k', 1, true)
  if has_id then
    key = key + 1
    known = first[KEYS[key]]
  end
  local id = ''
  if known then
    id = '=' .. known
  elseif room > 0 then
    id = redis.call('XADD', KEYS[1], '*', unpack(fields))
    room = room - 1
    if has_id then
      redis.call('SET', KEYS[key], id, 'PX', ARGV[2])
      first[KEYS[key]] = id
    end
  end
  ids[#ids + 1] = id
end
return ids
