-- Send dead letters again: each leaves the dead letters and is appended behind what waits.
-- KEYS: dead, in.  ARGV: bound of the backlog, then ids of letters, in order.
-- The new entry has all fields of the old one but 'r' and 'x' (who waited was told of the error,
-- and what is sent again shall not have expired), and the id of the first one as 'o'.
-- Answer: for each letter the id of its new entry; '' if there is no such letter, as when it was
-- replayed before; 0 if there is no room, and then nothing is done for those behind it either.
local room = tonumber(ARGV[1]) - redis.call('XLEN', KEYS[2])
local ids = {}
for i = 2, #ARGV do
  local letter = redis.call('XRANGE', KEYS[1], ARGV[i], ARGV[i])[1]
  if not letter then
    ids[#ids + 1] = ''
  elseif room <= 0 then
    ids[#ids + 1] = 0
  else
    local old, fields, original = letter[2], {}, letter[2][2]
    -- The letter's own five fields come first.
    for at = 11, #old, 2 do
      if old[at] == 'o' then
        original = old[at + 1]
      elseif old[at] ~= 'r' and old[at] ~= 'x' then
        fields[#fields + 1] = old[at]
        fields[#fields + 1] = old[at + 1]
      end
    end
    redis.call('XDEL', KEYS[1], ARGV[i])
    ids[#ids + 1] = redis.call('XADD', KEYS[2], '*', 'o', original, unpack(fields))
    room = room - 1
  end
end
return ids
