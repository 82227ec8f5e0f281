-- The same for the store in memory, whose clock tests may set: key wherry-clock, milliseconds.
local function now_ms()
  local set = redis.call('GET', 'wherry-clock')
  if set then
    return tonumber(set)
  end
  local time = redis.call('TIME')
  return tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
end
