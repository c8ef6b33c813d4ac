-- What wrk asks: a path and a body, in which {names} are filled anew for every request; the figures go out as JSON.
-- Arguments: METHOD PATH BODY-FILE SEED BEGIN END STEP RUNS ANSWERS [HEADER: VALUE]…
-- BEGIN, END and STEP are microseconds since 1970, whole numbers that a double holds.

local threads = 0

function setup(thread)
   threads = threads + 1
   thread:set("number", threads)
end

local types = { "cabling", "gain", "t0", "trigger", "tw" }
local begin, stop, step, runs, answers
local seed, sent, start = 0, 0, 0

local function spelled(microseconds)
   local seconds = math.floor(microseconds / 1000000)
   return os.date("!%Y-%m-%dT%H:%M:%S", seconds) .. string.format(".%06dZ", microseconds - seconds * 1000000)
end

local function instant()
   return begin + math.floor(math.random() * (stop - begin))
end

-- What may stand in braces.
local fill = {
   device = function() return "DEVICE" .. math.random(0, 9) end,
   type = function() return types[math.random(5)] end,
   date = function() return spelled(instant()) end,
   -- One of 60 days.
   day = function() return spelled(begin + math.floor((stop - begin) / 60) * math.random(0, 59)) end,
   run = function() return tostring(math.random(runs)) end,
   answer = function() return tostring(math.random(answers)) end,
   -- A period with the 50 that are in force at its start, and 50 that begin in it: another each time, however few there are.
   start = function()
      start = begin + math.floor(math.random() * (stop - begin - 51 * step))
      return spelled(start)
   end,
   stop = function() return spelled(start + 50 * step) end,
   -- Sixteen characters of base64 that no other request has.
   unique = function() return string.format("%07d%02d%07d", seed, number, sent) end,
}

-- A text as the pieces between names, and the names.
local function parsed(text)
   local pieces, from = {}, 1
   while true do
      local first, last, name = text:find("{(%l+)}", from)
      table.insert(pieces, text:sub(from, (first or 0) - 1))
      if not first then return pieces end
      table.insert(pieces, fill[name])
      from = last + 1
   end
end

local function filled(pieces)
   local texts = {}
   for index, piece in ipairs(pieces) do
      texts[index] = index % 2 == 1 and piece or piece()
   end
   return table.concat(texts)
end

local method, path, body, headers, fixed

function init(args)
   method, path = args[1], parsed(args[2])
   if args[3] ~= "-" then
      local file = assert(io.open(args[3], "rb"))
      body = parsed(file:read("*a"))
      file:close()
   end
   seed, begin, stop, step, runs, answers = unpack(args, 4, 9)
   seed, begin, stop = tonumber(seed), tonumber(begin), tonumber(stop)
   step, runs, answers = tonumber(step), tonumber(runs), tonumber(answers)
   headers = {}
   for index = 10, #args do
      local name, value = args[index]:match("^(.-): (.*)$")
      headers[name] = value
   end
   math.randomseed(seed * 100 + number)
   if #path == 1 and (body == nil or #body == 1) then
      fixed = wrk.format(method, path[1], headers, body and body[1])
   end
end

function request()
   if fixed then return fixed end
   sent = sent + 1
   return wrk.format(method, filled(path), headers, body and filled(body))
end

function done(summary, latency)
   local errors = summary.errors
   io.write(string.format(
      '\n{"requests": %d, "seconds": %.6f, "p50": %.6f, "p99": %.6f, "max": %.6f, "refused": %d, "broken": %d}\n',
      summary.requests, summary.duration / 1e6, latency:percentile(50) / 1e6, latency:percentile(99) / 1e6,
      latency.max / 1e6, errors.status, errors.connect + errors.read + errors.write + errors.timeout))
end
