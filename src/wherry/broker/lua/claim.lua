-- Take a partition whose lease is free, has run out, or is this worker's own.
-- KEYS: lease, in.  ARGV: worker id, nonce, ttl ms, generation, partition count.
-- Answer: {1, token, 1 if the last owner left uncleanly, 2 if that has happened twice within ten
-- minutes, last id of the stream, token of the last owner if it did} or {0, owner, ms left}.
-- Who claims what is its own (after a doubt about Redis' past, say) did not die of it.
local now = now_ms()
local lease = redis.call('HMGET', KEYS[1], 'owner', 'expiry', 'epoch', 'token', 'unclean')
local owner = lease[1] or ''
local left = tonumber(lease[2] or '0') - now
if owner ~= '' and owner ~= ARGV[1] and left > 0 then
  return {0, owner, left}
end
-- Were it no stream the script must not fail behind its first write: the lease would be taken by
-- nobody. The owner notices when it reads.
local newest = redis.pcall('XREVRANGE', KEYS[2], '+', '-', 'COUNT', 1)
local epoch = string.format('%d', tonumber(lease[3] or '0') + 1)
local token = epoch .. ':' .. ARGV[2]
redis.call('HSET', KEYS[1],
  'owner', ARGV[1], 'token', token, 'epoch', epoch, 'ttl', ARGV[3],
  'expiry', string.format('%d', now + tonumber(ARGV[3])), 'emit', '0',
  'generation', ARGV[4], 'partitions', ARGV[5])
newest = newest[1] and newest[1][1] or '0-0'
if owner == '' or owner == ARGV[1] then
  return {1, token, 0, newest, ''}
end
redis.call('HSET', KEYS[1], 'unclean', string.format('%d', now))
return {1, token, now - tonumber(lease[5] or '0') < 600000 and 2 or 1, newest, lease[4] or ''}
