-- Append entries to a partition's input stream, as long as it has room.
-- KEYS: in, then keys of message ids.
-- ARGV: bound of the backlog, ttl ms of message ids, then for each entry the number of its
-- message id's key (0 without), the number of its field arguments, and these.
-- Answer: for each entry its id; '=' and the id of the first sending if it was sent before; '' if
-- it was refused, and then every new entry behind it is refused too, to keep the order.
local room = tonumber(ARGV[1]) - redis.call('XLEN', KEYS[1])
local ids, at, refused = {}, 3, false
while at <= #ARGV do
  local key, count = tonumber(ARGV[at]), tonumber(ARGV[at + 1])
  local known = key > 0 and redis.call('GET', KEYS[key])
  local id = ''
  if known then
    id = '=' .. known
  elseif room > 0 and not refused then
    id = redis.call('XADD', KEYS[1], '*', unpack(ARGV, at + 2, at + 1 + count))
    room = room - 1
    if key > 0 then
      redis.call('SET', KEYS[key], id, 'PX', ARGV[2])
    end
  else
    refused = true
  end
  ids[#ids + 1] = id
  at = at + 2 + count
end
return ids
