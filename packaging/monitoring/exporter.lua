-- mcache's figures for redis_exporter: `redis_exporter -script exporter.lua`.
--
-- The exporter drops the sections of modules that it does not know, so this script hands over every number of
-- `INFO mcache` as `redis_script_values{key="mcache_hits"}`. Its ACL user needs +info and +eval.
local values = {}
for name, number in redis.call("INFO", "mcache"):gmatch("(mcache_[%w_]+):(%d+)\r\n") do
    values[#values + 1] = name
    values[#values + 1] = number
end
return values
