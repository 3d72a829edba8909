"""The scripts that Redis runs: one for each step, so that each step is atomic and one round trip.

A client whose answer got lost runs a script again by itself.  So each script, run twice, has the
effect of one run.
"""

__all__ = ["ASIDE", "EXTEND", "FREE", "HOLDER", "LOOK", "REMEMBER", "REMEMBERED", "SAVE", "TAKE"]

# The checksum proves that a document is whole: anything else is not a record.
LOOK = """
local kind, held = redis.call('TYPE', KEYS[1]).ok, {false, false, false, false}
if kind == 'hash' then
    held = redis.call('HMGET', KEYS[1], 'format', 'tag', 'document', 'sha1')
end
local now = redis.call('TIME')
return {kind, held[1], held[2], held[3], held[4], now[1], now[2]}
"""
"""record -> its type, format, tag, document and checksum, and the server's time in two parts."""

SAVE = """
local kind, found = redis.call('TYPE', KEYS[1]).ok, 'damaged'
if kind == 'none' then
    found = 'empty'
elseif kind == 'hash' then
    local tag, document, sum = unpack(redis.call('HMGET', KEYS[1], 'tag', 'document', 'sha1'))
    if tag and document and sum == redis.sha1hex(document) then found = 'tag ' .. tag end
end
if found ~= ARGV[1] and found ~= 'tag ' .. ARGV[3] then return 0 end
redis.call('HSET', KEYS[1], 'format', ARGV[2], 'tag', ARGV[3],
    'document', ARGV[4], 'sha1', redis.sha1hex(ARGV[4]))
if ARGV[5] == '' then
    redis.call('PERSIST', KEYS[1])
else
    redis.call('PEXPIRE', KEYS[1], ARGV[5])
end
return 1
"""
"""record; the expected state, format, tag, document, milliseconds or '' -> whether it was saved."""

ASIDE = """
if redis.call('TYPE', KEYS[1]).ok ~= ARGV[1] then return 0 end
if ARGV[1] == 'hash' then
    local held = redis.call('HMGET', KEYS[1], 'format', 'tag', 'document', 'sha1')
    for i = 1, 4 do
        if (held[i] or '') ~= ARGV[i + 1] then return 0 end
    end
end
redis.call('PERSIST', KEYS[1])
return redis.call('RENAMENX', KEYS[1], KEYS[2])
"""
"""record, another key; type, format, tag, document, checksum -> whether this content was moved."""

TAKE = """
local holder = redis.call('GET', KEYS[1])
if holder and holder ~= ARGV[1] and holder ~= ARGV[3] then return holder end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return ARGV[1]
"""
"""lock; owner, milliseconds, an owner that is dead or '' -> the owner now."""

EXTEND = """
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
return redis.call('PEXPIRE', KEYS[1], ARGV[2])
"""
"""lock; owner, milliseconds -> whether the owner still has it."""

FREE = """
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
return redis.call('DEL', KEYS[1])
"""
"""lock; owner."""

HOLDER = "return redis.call('GET', KEYS[1])"
"""lock -> its owner, if it has one."""

# One sorted set: hashes that are never forgotten at infinity, the others in the order of arrival.
REMEMBER = """
if ARGV[2] == 'good' then return redis.call('ZADD', KEYS[1], '+inf', ARGV[1]) end
if redis.call('ZSCORE', KEYS[1], ARGV[1]) == 'inf' then return 0 end
local last = redis.call('ZREVRANGEBYSCORE', KEYS[1], '(+inf', 0, 'WITHSCORES', 'LIMIT', 0, 1)
redis.call('ZADD', KEYS[1], (last[2] or 0) + 1, ARGV[1])
local forgotten = redis.call('ZCOUNT', KEYS[1], 0, '(+inf') - ARGV[3]
if forgotten > 0 then redis.call('ZREMRANGEBYRANK', KEYS[1], 0, forgotten - 1) end
return 1
"""
"""hashes; a hash, 'good' or '', how many others are remembered."""

REMEMBERED = "return redis.call('ZRANGE', KEYS[1], 0, -1)"
"""hashes -> all of them."""
