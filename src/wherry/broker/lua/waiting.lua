-- What waits for one scope, among the first entries of its partition.
-- KEYS: input stream.  ARGV: scope id, most entries, most bytes to be looked at.
-- Answer: {its entries, the first id ('' if none), entries looked at, entries there are}.
-- Few at a time: entries may be large, and each is copied before it is looked at.
local scope, most, most_bytes = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])
local found, first, seen, size, start = 0, '', 0, 0, '-'
while seen < most and size < most_bytes do
  local page = redis.call('XRANGE', KEYS[1], start, '+', 'COUNT', math.min(8, most - seen))
  if #page == 0 then
    break
  end
  for _, entry in ipairs(page) do
    for i = 1, #entry[2], 2 do
      size = size + #entry[2][i + 1]
      if entry[2][i] == 's' and entry[2][i + 1] == scope then
        found = found + 1
        if first == '' then
          first = entry[1]
        end
      end
    end
  end
  seen = seen + #page
  start = '(' .. page[#page][1]
end
return { found, first, seen, redis.call('XLEN', KEYS[1]) }
