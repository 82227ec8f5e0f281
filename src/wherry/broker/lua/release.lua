-- Free a lease that is still ours, and announce it.
-- KEYS: lease.  ARGV: token, channel, partition.
-- Answer: 1, or 0 if it was no longer ours.
-- Who may not publish frees it all the same, hence pcall; the others notice a little later.
if redis.call('HGET', KEYS[1], 'token') ~= ARGV[1] then
  return 0
end
redis.call('HSET', KEYS[1], 'owner', '', 'expiry', '0')
redis.call('HDEL', KEYS[1], 'token')
redis.pcall('PUBLISH', ARGV[2], ARGV[3])
return 1
