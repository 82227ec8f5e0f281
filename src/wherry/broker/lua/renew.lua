-- Lengthen leases that are still ours, also those that ran out and that nobody took.
-- KEYS: leases.  ARGV: ttl ms, then a token for each lease.
-- Answer: for each lease 1, or 0 if it is no longer ours.
-- A lease that somebody overwrote is lost, and must not take the others with it: hence pcall.
local expiry = string.format('%d', now_ms() + tonumber(ARGV[1]))
local answers = {}
for i, lease in ipairs(KEYS) do
  if redis.pcall('HGET', lease, 'token') == ARGV[i + 1] then
    redis.call('HSET', lease, 'expiry', expiry)
    answers[i] = 1
  else
    answers[i] = 0
  end
end
return answers
