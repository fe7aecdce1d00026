-- Reading: GET, MGET, FETCH, TOKEN, INSPECT.
if op == 'G' then
  local h = call('GETRANGE', KEYS[2], 0, 72)
  if judge(KEYS[2], h, now_ms()) == 'live' then return {1, value(KEYS[2], h)} end
  return {1}
end

if op == 'M' then
  local now, found = now_ms(), {1}
  for i = 2, #KEYS do
    local h = call('GETRANGE', KEYS[i], 0, 72)
    found[i] = h ~= '' and judge(KEYS[i], h, now) == 'live' and value(KEYS[i], h)
  end
  return found
end

-- A token: incarnation 8, birth 8, when it was handed out 8, who 8.
if op == 'K' then return {1, INC .. sub(R, 66, 73) .. pack('>I8', now_ms()) .. ARGV[2]} end

if op == 'F' then
  -- ARGV: who, lease in ms, how long before its end an entry is refreshed, whether the caller waits.
  local now, key = now_ms(), KEYS[2]
  local h = call('GETRANGE', key, 0, 72)
  local state = h ~= '' and judge(key, h, now) or nil
  if state == 'live' then
    local fresh = unpack8('>I8', h, 26)
    if fresh == 0 or tonumber(ARGV[4]) < fresh - now then return {1, 'h', value(key, h)} end
  end
  local lease = P .. 'l:' .. sub(key, #P + 3)
  local token
  if call('SET', lease, ARGV[2], 'NX', 'PX', ARGV[3]) then
    token = INC .. sub(R, 66, 73) .. pack('>I8', now) .. ARGV[2]
  end
  if state == 'live' then return {1, 'h', value(key, h), token} end
  if state == 'stale' then return {1, 's', value(key, h), token} end
  if state == 'dead' then call('UNLINK', key) end
  if token then return {1, 'm', token} end
  if ARGV[5] == '1' and call('STRLEN', lease) == 8 then call('APPEND', lease, 'w') end
  return {1, 'b', call('PTTL', lease)}
end

if op == 'N' then
  local h = call('GETRANGE', KEYS[2], 0, 72)
  if h == '' then return {1} end
  local now = now_ms()
  local state, why = judge(KEYS[2], h, now, true)
  local birth, _, fresh, _, _, _, began, tags, value_at = unpack8('>I8I8I8I8I8I8I8I4I4', h, 10)
  return {1, state, fresh > 0 and math.max(fresh - now, 0) or -1, math.max(now - began, 0), call('STRLEN', KEYS[2]),
    byte(h) % 2, birth, call('GETRANGE', KEYS[2], 73 + tags * 8, value_at - 1), why or false}
end
