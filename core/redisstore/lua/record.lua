-- A record is version:first:attempts:nonce of the call that wrote it:length of the
-- queue's name: and then that name and the payload. record returns nil for other texts.
-- Versions are digits, since the conversion from numbers costs most.
local function record(text)
  if type(text) ~= 'string' then return nil end
  local version, first, attempts, by, n, at = string.match(text, '^(%d+):(%d+):(%d+):([%w_-]*):(%d+):()')
  if not version then return nil end
  attempts, n = tonumber(attempts), tonumber(n)
  if at + n > #text then return nil end -- no payload
  if tonumber(version) >= 2 ^ 53 or tonumber(first) >= 2 ^ 53 or attempts >= 2 ^ 31 then return nil end
  return {
    version = version, first = first, attempts = attempts, by = by,
    queue = string.sub(text, at, at + n - 1), text = text, at = at + n,
  }
end

-- rest is the part between a record's versions and its payload.
local function rest(attempts, by, queue)
  return table.concat({':', attempts, ':', by, ':', #queue, ':', queue})
end
