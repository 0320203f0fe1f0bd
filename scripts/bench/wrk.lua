-- Prints what a program can read. With the argument "timeline" it also counts requests by tenths of a second, when
-- they are sent: in a closed loop that is when the one before was answered. Costs 0.3 us a request.
local ffi = require("ffi")
ffi.cdef("typedef struct { long s; long us; } todo_time; int gettimeofday(todo_time *, void *);")

local threads = {}

function setup(thread)
    table.insert(threads, thread)
end

function init(args)
    counts = {}
    if args[1] ~= "timeline" then return end
    local now, message = ffi.new("todo_time"), wrk.format()
    function request()
        ffi.C.gettimeofday(now, nil)
        local slot = tonumber(now.s) * 10 + math.floor(tonumber(now.us) / 100000)
        counts[slot] = (counts[slot] or 0) + 1
        return message
    end
end

function done(summary, latency)
    print("requests", summary.requests)
    print("duration_us", summary.duration)
    for name, count in pairs(summary.errors) do print("failures." .. name, count) end
    for _, percent in ipairs({PERCENTILES}) do print("latency_us." .. percent, latency:percentile(percent)) end
    print("latency_us.100", latency.max)
    for _, thread in ipairs(threads) do
        for slot, count in pairs(thread:get("counts")) do print("sent." .. string.format("%d", slot), count) end
    end
end
