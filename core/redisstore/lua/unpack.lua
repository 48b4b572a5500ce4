-- unpack is in another place in Lua 5.4.
local unpack = table.unpack or unpack
