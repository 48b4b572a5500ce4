-- since returns the items of a log after a position: 1 if it joins, 1 if it was
-- trimmed, and five strings for each item. It joins by token; the id is the first
-- place of the search. A position is the token of an item, or the token before an item (that
-- of a new era, which is in no log), or ptok, that of the head.
local function since(ptok, log, id, pos)
  if ptok == pos then return 1, 0, {} end
  local first
  local function look(from)
    local entries = good(redis.pcall('XRANGE', log, from, '+'))
    if entries.err then return false end
    local found, items = false, {}
    for i, e in ipairs(entries) do
      local m = {}
      for j = 1, #e[2] - 1, 2 do m[e[2][j]] = e[2][j + 1] end
      if not (m.k and m.v and m.t and m.b) then return false end -- not ours
      if from == '-' and i == 1 then first = e[1] end
      if not found and m.b == pos and (pos ~= '' or (from == '-' and i == 1)) then found = true end
      if pos ~= '' and m.t == pos then
        found, items = true, {}
      elseif found then
        for _, v in ipairs({m.k, m.v, e[1], m.t, m.b}) do items[#items + 1] = v end
      end
    end
    return found, items
  end
  local ms, seq = string.match(id, '^(%d+)%-(%d+)$')
  if ms then
    local found, items = look(id)
    if found then return 1, 0, items end
  end
  local found, items = look('-')
  if found then return 1, 0, items end
  local trimmed = 0
  if ms and first then
    local fms, fseq = string.match(first, '^(%d+)%-(%d+)$')
    ms, seq, fms, fseq = tonumber(ms), tonumber(seq), tonumber(fms), tonumber(fseq)
    if fms > ms or (fms == ms and fseq > seq) then trimmed = 1 end
  end
  return 0, trimmed, {}
end
