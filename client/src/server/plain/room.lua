-- The room: what every call looks at first, and how a room is made. The parts that follow are one text with this.
--
-- KEYS[1] is the room's own key; what stands before its last letter stands before every key of the room.
-- An answer begins with 1 (done), 0 (another text is the witness: which), 2 (another version of mcache is here),
-- 3 (there is no room).
local WITNESS = '@WITNESS@'
local call, sub, byte = redis.call, string.sub, string.byte
local pack, unpack8 = struct.pack, struct.unpack
local op, room = ARGV[1], KEYS[1]

-- One string: version 1, witness 16, its digest 40, incarnation 8, epoch 8, one bit for each of 256 groups that was
-- used. GETEX reads it and is a write, which a replica refuses. STORE writes anyway, and must be told when memory is
-- full: only the first write of a script is.
local R = call(op == 'S' and 'GET' or 'GETEX', room)
local P = sub(room, 1, -2)

if op == 'T' then
  -- Makes the room, or makes it anew: everything that was in it is dead. ARGV: this text's digest, a new incarnation,
  -- the witness that is known to be gone.
  if not redis.REDIS_VERSION_NUM then
    return redis.error_reply('ERR mcache without its module needs Redis 7.0 or later: older ones keep scripts across a restart')
  end
  if R then
    if byte(R) ~= 49 or #R ~= 105 then return {2} end
    local there = sub(R, 2, 17)
    if there == WITNESS then return {1} end
    if there ~= ARGV[4] then return {0, sub(R, 2, 57)} end
  end
  call('UNLINK', P .. 'r')
  call('SET', room, '1' .. WITNESS .. ARGV[2] .. ARGV[3] .. pack('>I8', 1) .. string.rep('\0', 32))
  return {1}
end

if not R then
  -- The room is gone: entries may be left of it, but none of them counts as alive.
  if op == 'F' or op == 'K' then return {3} end
  if op == 'S' then
    if ARGV[2] == '' then return {3} end
    return {1, 0}
  end
  if op == 'M' then
    local none = {1}
    for i = 2, #KEYS do none[i] = false end
    return none
  end
  if op == 'C' then call('UNLINK', KEYS[2]) end
  if op == 'C' or op == 'R' then return {1, 0} end
  return {1}
end
if sub(R, 2, 17) ~= WITNESS or byte(R) ~= 49 or #R ~= 105 then
  if byte(R) ~= 49 or #R ~= 105 then return {2} end
  return {0, sub(R, 2, 57)}
end
local INC = sub(R, 58, 65)

local function now_ms()
  local t = call('TIME')
  return t[1] * 1000 + math.floor(t[2] / 1000)
end

-- An entry: flags 1 (bit 0: manual), incarnation 8, birth 8, checked 8, fresh until 8, served until 8, soft until 8,
-- stale window 8, began 8 (times in ms, 0: never), number of tags 4, where the value begins 4. Then a digest of each
-- tag, sorted; then the tags, each with its length; then the value.
if op == 'G' then
  -- The usual case: nothing was invalidated in the room since the entry was looked at.
  local h = call('GETRANGE', KEYS[2], 0, 72)
  if h == '' then return {1} end
  if sub(h, 18, 25) == sub(R, 66, 73) and sub(h, 2, 9) == INC then
    local fresh, _, soft = unpack8('>I8I8I8', h, 26)
    if soft == 0 and (fresh == 0 or now_ms() < fresh) then
      return {1, call('GETRANGE', KEYS[2], unpack8('>I4', h, 70), -1)}
    end
  end
end

local EPOCH = unpack8('>I8', R, 66)
