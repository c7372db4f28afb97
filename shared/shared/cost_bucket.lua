-- The cost points of one app in one shop, shared by every process that asks it (KEYS[1], a JSON text).
--
--   take   id points expected          -> ms until it is worth asking again; 0: the points are held, go
--   settle id spent left size rate     what an answer said; '' for what it did not say
--
-- `level` never exceeds what Shopify's bucket really has. A query holds what Shopify will ask for until its
-- answer tells what it took. Who must wait stands in line: nobody is given points that one ahead of him
-- needs, and each is told when his turn can come at the earliest. Times are Redis's, in ms.

local ASSUMED_SIZE, ASSUMED_RATE = 1000, 50 -- the smallest bucket that Shopify has documented
local LEARNING = 3000 -- ms that others wait for a shop's first answer, which tells the real figures
local HELD_FOR = 45000 -- ms; no request lasts that long: its process died, and its points count as spent
local LATE = 2000 -- ms after which the line goes on without a waiter who did not come back
local SOONEST, LATEST = 30, 2000 -- ms between two questions of a waiter
local FORGOTTEN = 600 -- seconds without a question; the bucket is full again long before

local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)

local function open()
  local text = redis.call('GET', KEYS[1])
  local ok, found = pcall(cjson.decode, text or '')
  if ok and type(found) == 'table' and found.level then return found end
  return { level = ASSUMED_SIZE, size = ASSUMED_SIZE, rate = ASSUMED_RATE, at = now, since = now,
           learned = false, spent = 0, held = {}, line = {} }
end

local bucket = open()

local function pay(points)
  bucket.level = bucket.level - points
  bucket.spent = bucket.spent + points
end

local function catch_up()
  local restored = math.max(0, now - bucket.at) * bucket.rate / 1000
  bucket.level, bucket.at = math.min(bucket.size, bucket.level + restored), now
  for id, held in pairs(bucket.held) do
    if held.ends < now then
      pay(held.points)
      bucket.held[id] = nil
    end
  end
end

-- What is left for `id`: surely, and once the queries before it have cost what they usually do.
local function left_for(id)
  local surely, likely = bucket.level, bucket.level
  local line, me = {}, nil
  for _, held in pairs(bucket.held) do
    surely, likely = surely - held.points, likely - held.expected
  end
  for _, waiter in ipairs(bucket.line) do
    if waiter.id == id then
      me = waiter
      line[#line + 1] = waiter
    elseif waiter.back > now then
      line[#line + 1] = waiter
      if not me then
        surely, likely = surely - waiter.points, likely - waiter.expected
      end
    end
  end
  bucket.line = line
  return surely, likely, me
end

local function leave_line(id)
  for place, waiter in ipairs(bucket.line) do
    if waiter.id == id then return table.remove(bucket.line, place) end
  end
end

local function take(id, points, expected)
  points = math.min(points, bucket.size) -- more than a full bucket can never be had: Shopify will say so
  local surely, likely, me = left_for(id)
  local first = bucket.learned or now - bucket.since > LEARNING or next(bucket.held) == nil
  if first and surely >= points then
    leave_line(id)
    bucket.held[id] = { points = points, expected = math.min(expected, points), ends = now + HELD_FOR,
                        spent = bucket.spent }
    return 0
  end
  local wait = math.ceil((points - likely) / bucket.rate * 1000)
  wait = math.max(SOONEST, math.min(LATEST, wait))
  if not me then
    me = { id = id }
    bucket.line[#bucket.line + 1] = me
  end
  me.points, me.expected, me.back = points, math.min(expected, points), now + wait + LATE
  return wait
end

local function settle(id, spent, left, size, rate)
  local held = bucket.held[id]
  bucket.held[id] = nil
  local cost = held and (spent or held.points) or 0
  pay(cost)
  if left and size and rate then
    bucket.size, bucket.rate, bucket.learned = size, math.max(rate, 1), true
    -- What others paid since this query was sent may, or may not, be in `left` already.
    local least = held and left - (bucket.spent - cost - held.spent) or bucket.level
    bucket.level = math.min(left, math.max(bucket.level, least))
  end
  return 0
end

catch_up()
local verb = { take = take, settle = settle }
local answer = verb[ARGV[1]](ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5]), tonumber(ARGV[6]))
redis.call('SET', KEYS[1], cjson.encode(bucket), 'EX', FORGOTTEN)
return answer
