-- For wrk: draws keys uniformly over all, and checks an answer in SHARE against the score that its key must have.
-- wrk ... -- ROWS SHARE KIND PATH, where KIND is get (one key in the path), batch (a hundred in a body) or feast.
local KEYS_A_BATCH = 100
local MULTIPLIER, STEPS = 11400713, 2 ^ 24 -- as in population.py; the products stay below 2^53
local threads = {}

local function key() return string.format("C%09d", math.random(0, rows - 1)) end

local function right(number, score)
  local value = tonumber(score)
  local expected = tonumber(number) * MULTIPLIER % STEPS
  return value ~= nil and math.floor(value * STEPS + 0.5) == expected
end

local function post(body) return wrk.format("POST", path, nil, body) end

local ask = {
  get = function() return wrk.format("GET", path .. key()) end,
  batch = function()
    local keys = {}
    for n = 1, KEYS_A_BATCH do keys[n] = '"' .. key() .. '"' end
    return post('{"keys": [' .. table.concat(keys, ",") .. "]}")
  end,
  feast = function()
    return post('{"features": ["scores:score"], "entities": {"customer_id": ["' .. key() .. '"]}}')
  end,
}

-- How key and score stand in an answer.
local PAIRS = {
  get = '"key": ?"C(%d+)", ?"score": ?([^,}]+)',
  batch = '"key": ?"C(%d+)", ?"score": ?([^,}]+)',
  feast = '"values":%["C(%d+)"%].-"values":%[([^%]]+)%]',
}

function setup(thread)
  table.insert(threads, thread)
  thread:set("id", #threads)
end

function init(arguments)
  rows, share, kind, path = tonumber(arguments[1]), tonumber(arguments[2]), arguments[3], arguments[4]
  answers, checked, wrong = 0, 0, 0
  math.randomseed(os.time() * 100 + id)
  wrk.headers["Content-Type"] = kind ~= "get" and "application/json" or nil
end

function request() return ask[kind]() end

function response(status, headers, body)
  answers = answers + 1
  if share == 0 or answers % share > 0 then return end
  local found = 0
  for number, score in string.gmatch(body, PAIRS[kind]) do
    found = found + 1
    if not right(number, score) then wrong = wrong + 1 end
  end
  checked = checked + found
  if found < (kind == "batch" and KEYS_A_BATCH or 1) then wrong = wrong + 1 end
end

function done(summary, latency, requests)
  local total, bad = 0, 0
  for _, thread in ipairs(threads) do
    total, bad = total + thread:get("checked"), bad + thread:get("wrong")
  end
  local errors = summary.errors
  local failed = errors.connect + errors.read + errors.write + errors.status + errors.timeout
  io.write(string.format('\n{"requests": %d, "seconds": %f, "failed": %d, "checked": %d, "wrong": %d}\n',
    summary.requests, summary.duration / 1e6, failed, total, bad))
end
