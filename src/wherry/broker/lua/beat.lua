-- Say that this worker lives, forget those that do not, and tell who does.
-- KEYS: members, joined, own member hash, meta.
-- ARGV: worker id, ms after which a silent member is dead, protocol version, partition count and a
-- new generation for a meta hash that has vanished, then fields of the member hash.
-- Answer: {now, worker ids in order of joining, generation, partition count}.
local now = now_ms()
local id, silence = ARGV[1], tonumber(ARGV[2])
redis.call('ZADD', KEYS[1], now, id)
redis.call('ZADD', KEYS[2], 'NX', now, id)
for _, dead in ipairs(redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', now - silence, 'LIMIT', 0, 100)) do
  redis.call('ZREM', KEYS[1], dead)
  redis.call('ZREM', KEYS[2], dead)
end
for i = 6, #ARGV, 2 do
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
local meta = redis.call('HMGET', KEYS[4], 'generation', 'partitions')
return {string.format('%d', now), redis.call('ZRANGE', KEYS[2], 0, 9999), meta[1], meta[2]}
