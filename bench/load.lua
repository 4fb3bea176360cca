-- Drives one server with wrk: real files in turn, every answer checked, latencies as they were.
--
-- Start wrk with as many threads as connections. A thread then has one request under way at a time, so
-- that the time between request() and response() is that request's latency. wrk's own percentiles are
-- not used: wrk 4.1 "corrects" them for coordinated omission by adding samples that never happened.
--
-- Arguments: a plan (lines of: file with a whole body, TAB, Lua pattern of the right answer), the media
-- type, the number of threads, and the microseconds after its start from which and up to which a
-- thread's answers count. wrk's threads stop when they look at the clock, up to 100 ms after its end.

local ffi = require("ffi")
ffi.cdef [[
  typedef struct { long seconds; long nanoseconds; } bench_time;
  int clock_gettime(int clock, bench_time *time);
]]

local CLOCK_MONOTONIC = 1
local PATIENCE_US = 2e6 -- see done()
local time = ffi.new("bench_time")

local function now()
  ffi.C.clock_gettime(CLOCK_MONOTONIC, time)
  return tonumber(time.seconds) * 1e6 + tonumber(time.nanoseconds) / 1e3
end

local threads = {}

function setup(thread)
  threads[#threads + 1] = thread
  thread:set("number", #threads)
end

function init(arguments)
  local count = tonumber(arguments[3])
  local lines = {}
  for line in io.lines(arguments[1]) do lines[#lines + 1] = line end
  bodies, patterns = {}, {}
  for at, line in ipairs(lines) do
    -- The files are dealt out to the threads; of more threads than files, several have the same one.
    local dealt = (at - 1) % count == (number - 1) % count
    local shared = #lines < count and (number - 1) % #lines == at - 1
    if dealt or shared then
      local path, pattern = line:match("^(.-)\t(.*)$")
      local file = assert(io.open(path, "rb"))
      bodies[#bodies + 1] = wrk.format("POST", nil, {["Content-Type"] = arguments[2]}, file:read("*a"))
      patterns[#patterns + 1] = pattern
      file:close()
    end
  end
  from, to = tonumber(arguments[4]), tonumber(arguments[5])
  began, started, current = now(), 0, 0
  latencies, right, wrong, first_wrong = {}, 0, 0, ""
end

function request()
  current = current % #bodies + 1
  started = now()
  return bodies[current]
end

function response(status, headers, body)
  local ended = now()
  local counted = ended - began >= from and ended - began < to
  if status == 200 and body:find(patterns[current]) then
    right = right + 1
    if counted then latencies[#latencies + 1] = math.floor(ended - started + 0.5) end
  elseif counted then
    wrong = wrong + 1
    if first_wrong == "" then first_wrong = status .. " " .. body:sub(1, 200):gsub("%s", " ") end
  end
  started = 0
end

-- A request counts as broken that has waited at the end for longer than PATIENCE_US, or than half the
-- time that counts, so that a short load also tells of a client that hangs from its middle on.
function done(summary, latency, requests)
  local ended = now()
  local right, wrong, first_wrong, unanswered = 0, 0, "", 0
  for _, thread in ipairs(threads) do
    io.write("bench latencies_us ", table.concat(thread:get("latencies"), " "), "\n")
    right = right + thread:get("right")
    wrong = wrong + thread:get("wrong")
    if first_wrong == "" then first_wrong = thread:get("first_wrong") end
    local since = thread:get("started")
    local patience = math.min(PATIENCE_US, (thread:get("to") - thread:get("from")) / 2)
    if since > 0 and ended - since > patience then unanswered = unanswered + 1 end
  end
  local errors = summary.errors
  local broken = errors.connect + errors.read + errors.write + errors.timeout + unanswered
  io.write("bench right ", right, "\n")
  io.write("bench broken ", broken, "\n")
  io.write("bench wrong ", wrong, " ", first_wrong, "\n")
end
