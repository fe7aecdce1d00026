-- What an entry is worth: what was invalidated since it was last looked at, by the ring of the latest invalidations or
-- by the groups that remember each tag.
local RING, GROUP_MAX = 1024, @GROUP_MAX@

local function used(bits, g)
  return bit.band(byte(bits, math.floor(g / 8) + 1), bit.lshift(1, g % 8)) ~= 0
end

-- Runs of digests of one group, which their first byte names. A call does not carry any number of arguments.
local function runs(D, each)
  local i, n = 1, #D
  while i <= n do
    local g, from, args = byte(D, i), i, {'f'}
    while i <= n and byte(D, i) == g and i - from < 8000 do
      args[#args + 1] = sub(D, i, i + 7)
      i = i + 8
    end
    if each(g, args) then return true end
  end
end

-- Whether anything later than `c` concerns one of these tags, as the groups remember it. Dead: true and why. Else the
-- time of the first soft invalidation, if there was one. A group that is not there was evicted, and what it remembered
-- may be anything.
local function by_groups(c, manual, D)
  local soft, why
  local dead = runs(D, function(g, args)
    if not used(sub(R, 74, 105), g) then return end
    local found = call('HMGET', P .. 'g' .. g, unpack(args))
    local f = found[1]
    if not f or sub(f, 1, 8) ~= INC then
      redis.pcall('HSET', P .. 'g' .. g, 'f', INC .. sub(R, 66, 73))
      why = 'a group of tags was evicted'
      return true
    end
    if unpack8('>I8', f, 9) > c then why = 'not read for so long that its invalidations are forgotten' return true end
    for i = 2, #args do
      if found[i] then
        local h, a, s, ts, x, tx = unpack8('>I8I8I8I8I8I8', found[i])
        if h > c or (a > c and not manual) then why = 'a tag was invalidated' return true end
        if s > c then soft = math.min(soft or ts, ts) end
        if x > c and not manual then soft = math.min(soft or tx, tx) end
      end
    end
  end)
  return dead, dead and why or soft
end

-- Those of the tags that were invalidated later than `c`, by the ring; nil if it does not know. A slot: which lap 1,
-- digest 8.
local function by_ring(c, D)
  local n = EPOCH - c
  if n > RING or n * 4 > #D then return nil end
  local first = (c + 1) % RING
  local data = call('GETRANGE', P .. 'r', first * 9, math.min(first + n, RING) * 9 - 1)
  if first + n > RING then data = data .. call('GETRANGE', P .. 'r', 0, (first + n - RING) * 9 - 1) end
  if #data ~= n * 9 then return nil end
  local hit = ''
  for t = 0, n - 1 do
    if byte(data, t * 9 + 1) ~= math.floor((c + 1 + t) / RING) % 255 + 1 then return nil end
    local d, at = sub(data, t * 9 + 2, t * 9 + 9), 1
    while at do
      at = string.find(D, d, at, true)
      if at and at % 8 == 1 then hit = hit .. d break end
      at = at and at + 1
    end
  end
  return hit
end

local function since(c, manual, D)
  if c == EPOCH or D == '' then return false end
  local hit = by_ring(c, D)
  if hit == '' then return false end
  return by_groups(c, manual, hit or D)
end

-- 'live', 'stale' or 'dead' (and why) of an entry with this header; writes into it what was found out.
local function judge(key, h, now, only_look)
  if sub(h, 2, 9) ~= INC then return 'dead', 'the room was made anew' end
  local c, fresh, last, soft, window = unpack8('>I8I8I8I8I8', h, 18)
  local tags, value_at = unpack8('>I4I4', h, 66)
  if c > EPOCH then return 'dead', 'from a later room' end
  if c < EPOCH then
    local manual = byte(h) % 2 == 1
    local D = tags > 0 and call('GETRANGE', key, 73, 72 + tags * 8) or ''
    local dead, told = since(c, manual, D)
    if dead then return 'dead', told end
    if told then
      if window == 0 then return 'dead', 'a tag was invalidated' end
      local ends = math.min(told + window, last)
      soft = soft == 0 and ends or math.min(soft, ends)
    end
    if not only_look and (told or EPOCH - c >= 16) then
      -- When memory is full it is not noted, and found out again.
      if told then redis.pcall('SETRANGE', key, 41, pack('>I8', soft)) end
      redis.pcall('SETRANGE', key, 17, pack('>I8', EPOCH))
    end
  end
  if soft > 0 then
    if now < soft then return 'stale' end
    return 'dead', 'expired'
  end
  if fresh == 0 or now < fresh then return 'live' end
  if now < last then return 'stale' end
  return 'dead', 'expired'
end

local function value(key, h)
  return call('GETRANGE', key, unpack8('>I4', h, 70), -1)
end

-- Ends the lease of KEYS[2]: any holder's, or only that of `mine`. Callers that wait for it are told.
local function end_lease(mine)
  local name = sub(KEYS[2], #P + 3)
  local lease = P .. 'l:' .. name
  local held = call('GET', lease)
  if not held or (mine and sub(held, 1, 8) ~= mine) then return 0 end
  call('UNLINK', lease)
  if #held > 8 then redis.pcall('PUBLISH', P .. 'w', name) end
  return 1
end
