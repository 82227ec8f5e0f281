-- Who owns what.
-- KEYS: leases.  Answer: for each lease its owner ('' if released) and the ms it has left.
local now = now_ms()
local answers = {}
for i, lease in ipairs(KEYS) do
  local fields = redis.call('HMGET', lease, 'owner', 'expiry')
  answers[2 * i - 1] = fields[1] or ''
  answers[2 * i] = tonumber(fields[2] or '0') - now
end
return answers
