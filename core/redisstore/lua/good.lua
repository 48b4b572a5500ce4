-- good returns a reply. A key of another type counts as missing. Any other error, such as that of
-- a withdrawn right, is raised, since it must not pass for an answer.
local function good(r)
  if type(r) == 'table' and r.err and not string.find(r.err, 'WRONGTYPE', 1, true) then error(r.err) end
  return r
end
