-- Put an answer where whoever asked waits for it.
-- KEYS: list of answers.  ARGV: ms after which it is forgotten, most answers, the answer.
if redis.call('LLEN', KEYS[1]) < tonumber(ARGV[2]) then
  redis.call('RPUSH', KEYS[1], ARGV[3])
  redis.call('PEXPIRE', KEYS[1], ARGV[1])
end
return 1
