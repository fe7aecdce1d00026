-- Writing: STORE, RELEASE, INVALIDATE, CLEAR.
if op == 'S' then
  -- ARGV: token or nothing, manual 0 or 1, ttl, stale window, digests, names, value, digest of the key's own mark.
  local token, manual, ttl, window, D = ARGV[2], ARGV[3] == '1', tonumber(ARGV[4]), tonumber(ARGV[5]), ARGV[6]
  local now = now_ms()
  local birth, began = EPOCH, now
  if token ~= '' then
    local refused = #token ~= 32 or sub(token, 1, 8) ~= INC
    if not refused then
      birth, began = unpack8('>I8I8', token, 9)
      if birth > EPOCH then
        refused = true
      elseif birth < EPOCH then
        local dead, soft = since(birth, manual, D .. ARGV[9])
        refused = dead or soft
      end
    end
    if refused then
      if #token == 32 then end_lease(sub(token, 25, 32)) end
      return {1, 0}
    end
  end
  local value_at = 73 + #D + #ARGV[7]
  local fresh, last = 0, 0
  if ttl > 0 then fresh, last = now + ttl, now + ttl + window end
  local entry = table.concat({
    pack('>I1', manual and 1 or 0), INC, pack('>I8I8I8I8I8I8I8I4I4', birth, EPOCH, fresh, last, 0, window, began, #D / 8, value_at),
    D, ARGV[7], ARGV[8]})
  if ttl > 0 then
    call('SET', KEYS[2], entry, 'PX', string.format('%.0f', ttl + window))
  else
    call('SET', KEYS[2], entry)
  end
  end_lease()
  return {1, 1}
end

if op == 'R' then return {1, #ARGV[2] == 32 and end_lease(sub(ARGV[2], 25, 32)) or 0} end

-- Forgets the older half of what a group remembers: what was not looked at since is dead.
local function fold(group)
  local all, epochs = call('HGETALL', group), {}
  local floor = 0
  for i = 1, #all, 2 do
    if all[i] == 'f' then
      floor = unpack8('>I8', all[i + 1], 9)
    else
      local h, a, s, _, x = unpack8('>I8I8I8I8I8', all[i + 1])
      epochs[#epochs + 1] = math.max(h, a, s, x)
    end
  end
  table.sort(epochs)
  floor = math.max(floor, epochs[math.ceil(#epochs / 2)])
  for i = 1, #all, 2 do
    if all[i] ~= 'f' then
      local h, a, s, _, x = unpack8('>I8I8I8I8I8', all[i + 1])
      if math.max(h, a, s, x) <= floor then call('HDEL', group, all[i]) end
    end
  end
  call('HSET', group, 'f', INC .. pack('>I8', floor))
end

-- Notes that these were invalidated: in their groups, in the ring, and last in the room, whose epoch says so.
local function note(D, auto, soft, now)
  local bits, v, slots, last = sub(R, 74, 105), EPOCH, {}, EPOCH + #D / 8
  runs(D, function(g, args)
    local group = P .. 'g' .. g
    local found, write = call('HMGET', group, unpack(args)), {}
    if not used(bits, g) then
      call('UNLINK', group)
      found = {}
      write = {'f', INC .. pack('>I8', 0)}
      local at = math.floor(g / 8) + 1
      bits = sub(bits, 1, at - 1) .. string.char(bit.bor(byte(bits, at), bit.lshift(1, g % 8))) .. sub(bits, at + 1)
    elseif not found[1] or sub(found[1], 1, 8) ~= INC then
      found = {}
      write = {'f', INC .. pack('>I8', last)}
    end
    for i = 2, #args do
      v = v + 1
      slots[#slots + 1] = string.char(math.floor(v / RING) % 255 + 1) .. args[i]
      local h, a, s, ts, x, tx = 0, 0, 0, 0, 0, 0
      if found[i] then h, a, s, ts, x, tx = unpack8('>I8I8I8I8I8I8', found[i]) end
      -- Only the time of the latest soft invalidation is kept. An entry that was not read since the one before is dead.
      if soft and auto then a, x, tx = math.max(a, x), v, now
      elseif soft then h, s, ts = math.max(h, s), v, now
      elseif auto then a = v
      else h = v end
      write[#write + 1] = args[i]
      write[#write + 1] = pack('>I8I8I8I8I8I8', h, a, s, ts, x, tx)
    end
    call('HSET', group, unpack(write))
    if call('HLEN', group) > GROUP_MAX + 1 then fold(group) end
  end)
  local first, n = (EPOCH + 1) % RING, #slots
  local before = math.min(n, RING - first)
  call('SETRANGE', P .. 'r', first * 9, table.concat(slots, '', 1, before))
  if n > before then call('SETRANGE', P .. 'r', 0, table.concat(slots, '', before + 1)) end
  call('SET', room, sub(R, 1, 65) .. pack('>I8', last) .. bits)
end

if op == 'I' then
  -- ARGV: auto 0 or 1, soft 0 or 1, digests.
  note(ARGV[4], ARGV[2] == '1', ARGV[3] == '1', now_ms())
  return {1}
end

if op == 'C' then
  -- ARGV: digest of the key's own mark. A fill that is under way is refused.
  local h, removed = call('GETRANGE', KEYS[2], 0, 72), 0
  if h ~= '' and judge(KEYS[2], h, now_ms(), true) ~= 'dead' then removed = 1 end
  call('UNLINK', KEYS[2])
  note(ARGV[2], false, false, 0)
  return {1, removed}
end

return redis.error_reply('ERR unknown call')
