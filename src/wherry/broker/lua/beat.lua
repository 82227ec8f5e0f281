-- Say that this worker lives, forget those that do not, and tell who does.
-- KEYS: members, joined, own member hash, meta.
-- ARGV: worker id, ms after which a silent member is dead, protocol version, partition count and a
-- new generation for a meta hash that has vanished, standing ("in" shares the partitions, "out" does
-- not, "anew" joins as the last), channel, then fields of the member hash.
-- Answer: {now, id and joining time of each member that shares, in that order, generation,
-- partition count, since when the namespace is paused}.
local now = now_ms()
local id, silence, standing = ARGV[1], tonumber(ARGV[2]), ARGV[6]
redis.call('ZADD', KEYS[1], now, id)
if standing ~= 'in' and redis.call('ZREM', KEYS[2], id) == 1 and standing == 'out' then
  redis.pcall('PUBLISH', ARGV[7], 'left')
end
if standing ~= 'out' then
  redis.call('ZADD', KEYS[2], 'NX', now, id)
end
for _, dead in ipairs(redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', now - silence, 'LIMIT', 0, 100)) do
  redis.call('ZREM', KEYS[1], dead)
  redis.call('ZREM', KEYS[2], dead)
end
for i = 8, #ARGV, 2 do
  redis.call('HSET', KEYS[3], ARGV[i], ARGV[i + 1])
end
redis.call('PEXPIRE', KEYS[3], 2 * silence)
redis.call('PEXPIRE', KEYS[1], 10 * silence)
redis.call('PEXPIRE', KEYS[2], 10 * silence)
if redis.call('HSETNX', KEYS[4], 'generation', ARGV[5]) == 1 then
  redis.call('HSETNX', KEYS[4], 'protocol_min', ARGV[3])
  redis.call('HSETNX', KEYS[4], 'protocol_max', ARGV[3])
  redis.call('HSETNX', KEYS[4], 'partitions', ARGV[4])
end
local meta = redis.call('HMGET', KEYS[4], 'generation', 'partitions', 'paused')
local members = redis.call('ZRANGE', KEYS[2], 0, 9999, 'WITHSCORES')
return {string.format('%d', now), members, meta[1], meta[2], meta[3]}
