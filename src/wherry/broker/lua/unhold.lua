-- Release a scope whose head is held: let the entry be tried again, or drop it.
-- KEYS: in, attempts.  ARGV: entry id, '1' to drop it, row as it was seen, channel.
-- The row must be the one that was seen: it may have been retried, and held again, meanwhile.
-- Answer: 1, or 0 if the row is another one, or gone.
if redis.call('HGET', KEYS[2], ARGV[1]) ~= ARGV[3] then
  return 0
end
if ARGV[2] == '1' then
  redis.call('XDEL', KEYS[1], ARGV[1])
end
redis.call('HDEL', KEYS[2], ARGV[1])
redis.pcall('PUBLISH', ARGV[4], 'unheld')
return 1
