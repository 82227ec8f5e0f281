-- How much waits, and since when.
-- KEYS: input streams.  Answer: for each now, its length and its first id ('' if empty).
-- Only ids go out, however large the entries are. An overwritten one counts as empty: hence pcall.
local now = string.format('%d', now_ms())
local answers = {}
for i, entries in ipairs(KEYS) do
  local length = redis.pcall('XLEN', entries)
  local first = type(length) == 'number' and length > 0
    and redis.call('XRANGE', entries, '-', '+', 'COUNT', 1)[1]
  answers[3 * i - 2] = now
  answers[3 * i - 1] = type(length) == 'number' and length or 0
  answers[3 * i] = first and first[1] or ''
end
return answers
