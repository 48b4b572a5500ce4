-- Lua 5.4 has unpack in table.
local unpack = table.unpack or unpack
