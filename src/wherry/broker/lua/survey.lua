-- Who owns what.
-- KEYS: leases.  Answer: for each lease its owner ('' if released) and the ms it has left.
-- A lease that somebody overwrote has no owner but nil, and must not hide the others: hence pcall.
local now = now_ms()
local answers = {}
for i, lease in ipairs(KEYS) do
  local fields = redis.pcall('HMGET', lease, 'owner', 'expiry', 'epoch', 'unclean')
  local is_whole = not fields.err
  for place = 2, 4 do
    is_whole = is_whole and tonumber(fields[place] or '0') ~= nil
  end
  answers[2 * i - 1] = is_whole and (fields[1] or '')
  answers[2 * i] = is_whole and tonumber(fields[2] or '0') - now or 0
end
return answers
