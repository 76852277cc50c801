package redis

import "github.com/redis/rueidis"

// scripts run inside Redis, each over the keys of one hash tag. Times come
// from Redis alone; numbers stay below 2^53, where Lua's are exact.
//
// Entries name nodes. Whether a node lives is for the caller to say: argument
// "live" is its list and "dead" what it knows to be gone, each as
// "\nid\nid\n". A node that is in neither makes a script answer U and the node,
// with nothing changed; the caller looks again and repeats.
//
// A Redis that hung runs afterwards what it was asked meanwhile, though nobody
// waits for it any more. What would take a peer or a place in a room for such a
// caller answers L from a time on, argument "until" in us, and changes nothing.
type scripts struct {
	renew, claim, locate, release, park, room, put, drop *rueidis.Lua
}

const scriptHead = `
local function listed(list, id) return string.find(list, '\n' .. id .. '\n', 1, true) ~= nil end
local function micros()
  local t = redis.call('TIME')
  return tonumber(t[1]) * 1000000 + tonumber(t[2])
end
local function whole(n) return string.format('%.0f', n) end
`

// KEYS nodes; ARGV id, entry, lease ms, ttl ms.
// Returns micros, whether the lease was new, and the whole list.
const scriptRenew = `
local us = micros()
local now = math.floor(us / 1000)
local function deadline(entry) return tonumber(string.match(entry, '^(%d+)|') or 0) end -- 0: malformed
local old = redis.call('HGET', KEYS[1], ARGV[1])
local fresh = '1'
if old and deadline(old) > now then fresh = '0' end
redis.call('HSET', KEYS[1], ARGV[1], whole(now + tonumber(ARGV[3])) .. '|' .. ARGV[2])
redis.call('PEXPIRE', KEYS[1], ARGV[4])
local out = {whole(us), fresh}
local all = redis.call('HGETALL', KEYS[1])
for i = 1, #all, 2 do
  if deadline(all[i + 1]) + tonumber(ARGV[4]) < now then
    redis.call('HDEL', KEYS[1], all[i])
  else
    out[#out + 1] = all[i]
    out[#out + 1] = all[i + 1]
  end
end
return out`

// A peer is a hash: n node, e epoch, p hash of the proof; parked also: s state,
// u until when in ms. Beside it a sorted set of the nodes that wait for it.

// KEYS peer, waiting; ARGV live, dead, self, proof, held, ttl ms, latest number, until.
// Returns G epoch previous parked waiting...; T taken; F fenced; U node; L.
const scriptClaim = `
local us = micros()
local now = us / 1000
if us > tonumber(ARGV[8]) then return {'L'} end
local held = tonumber(ARGV[5])
local e = redis.call('HMGET', KEYS[1], 'n', 'e', 'p', 's', 'u')
local epoch = tonumber(e[2] or '0')
local same = e[3] == ARGV[4]
local counts = false
if e[5] then
  counts = tonumber(e[5]) > now
elseif e[1] then
  if listed(ARGV[1], e[1]) then
    counts = true
  elseif not listed(ARGV[2], e[1]) then
    return {'U', e[1]}
  end
end
if counts and not same then return {'T'} end
if held > 0 and epoch > held then return {'F'} end
epoch = math.max(epoch, held, tonumber(ARGV[7]), us) + 1
local out = {'G', whole(epoch), same and e[1] or '', counts and same and e[4] or ''}
for _, id in ipairs(redis.call('ZRANGEBYSCORE', KEYS[2], whole(math.floor(now)), '+inf')) do out[#out + 1] = id end
redis.call('DEL', KEYS[1], KEYS[2])
redis.call('HSET', KEYS[1], 'n', ARGV[3], 'e', whole(epoch), 'p', ARGV[4])
redis.call('PEXPIRE', KEYS[1], ARGV[6])
return out`

// KEYS peer, waiting; ARGV live, dead, self, wait ms, most waiting.
// Returns H node epoch; M miss; U node.
const scriptLocate = `
local e = redis.call('HMGET', KEYS[1], 'n', 'e', 'u')
if e[1] and not e[3] then
  if listed(ARGV[1], e[1]) then return {'H', e[1], e[2]} end
  if not listed(ARGV[2], e[1]) then return {'U', e[1]} end
end
local wait = tonumber(ARGV[4])
if wait > 0 then
  local now = math.floor(micros() / 1000)
  redis.call('ZREMRANGEBYSCORE', KEYS[2], '-inf', whole(now - 1))
  if redis.call('ZSCORE', KEYS[2], ARGV[3]) or redis.call('ZCARD', KEYS[2]) < tonumber(ARGV[5]) then
    redis.call('ZADD', KEYS[2], whole(now + wait), ARGV[3])
    if redis.call('PTTL', KEYS[2]) < wait then redis.call('PEXPIRE', KEYS[2], ARGV[4]) end
  end
end
return {'M'}`

// KEYS peer; ARGV self, epoch.
const scriptRelease = `
local e = redis.call('HMGET', KEYS[1], 'n', 'e', 'u')
if e[1] == ARGV[1] and e[2] == ARGV[2] and not e[3] then redis.call('DEL', KEYS[1]) end
return {'R'}`

// KEYS peer; ARGV self, epoch, state, ttl ms. Returns P; F fenced.
const scriptPark = `
local e = redis.call('HMGET', KEYS[1], 'n', 'e', 'u')
if e[1] ~= ARGV[1] or e[2] ~= ARGV[2] or e[3] then return {'F'} end
redis.call('HSET', KEYS[1], 's', ARGV[3], 'u', whole(math.floor(micros() / 1000) + tonumber(ARGV[4])))
redis.call('PEXPIRE', KEYS[1], ARGV[4])
return {'P'}`

// A room is a hash: v version, b the version it began with, r relay, m<peer>
// "node\nepoch\ninfo". Other fields are a later release's.

// KEYS room; ARGV live, dead, op (join, leave, look), usable relays, preferred
// relay, ttl ms, self, peer, epoch, info, limit, latest number, until.
// Returns R version began relay (peer member)...; X full; F fenced; U node...; L (join).
const scriptRoom = `
local op, self, peer, epoch = ARGV[3], ARGV[7], ARGV[8], tonumber(ARGV[9])
if op == 'join' and micros() > tonumber(ARGV[13]) then return {'L'} end
local all = redis.call('HGETALL', KEYS[1])
local version, began, relay, members, count, unknown, gone = 0, 0, '', {}, 0, {'U'}, {}
local function alive(id)
  if listed(ARGV[1], id) then return true end
  if not listed(ARGV[2], id) then unknown[#unknown + 1] = id end
  return false
end
for i = 1, #all, 2 do
  local k, v = all[i], all[i + 1]
  if k == 'v' then version = tonumber(v)
  elseif k == 'b' then began = tonumber(v)
  elseif k == 'r' then relay = v
  elseif string.sub(k, 1, 1) == 'm' then
    local p = string.sub(k, 2)
    local node = string.match(v, '^([^\n]*)\n%d+\n')
    if node and alive(node) then
      members[p] = v
      count = count + 1
    else
      gone[#gone + 1] = k
    end
  end
end
if relay ~= '' then alive(relay) end
if #unknown > 1 then return unknown end

local function mepoch(v) return tonumber(string.match(v, '^[^\n]*\n(%d+)\n')) end
local changed = #gone > 0
for _, k in ipairs(gone) do redis.call('HDEL', KEYS[1], k) end
local refused
if op == 'join' then
  local new = self .. '\n' .. ARGV[9] .. '\n' .. ARGV[10]
  local old = members[peer]
  local limit = tonumber(ARGV[11])
  if old and mepoch(old) > epoch then refused = 'F'
  elseif not old and limit > 0 and count >= limit then refused = 'X'
  elseif old ~= new then
    if not old then count = count + 1 end
    members[peer] = new
    redis.call('HSET', KEYS[1], 'm' .. peer, new)
    changed = true
  end
elseif op == 'leave' then
  local old = members[peer]
  if old and mepoch(old) <= epoch then
    members[peer] = nil
    count = count - 1
    redis.call('HDEL', KEYS[1], 'm' .. peer)
    changed = true
  end
end
if count == 0 then
  relay = ''
elseif not listed(ARGV[4], relay) then
  local before = relay
  if ARGV[5] ~= '' then relay = ARGV[5] elseif not listed(ARGV[1], relay) then relay = '' end
  if relay ~= before then changed = true end
end
if changed then
  version = math.max(version, tonumber(ARGV[12]), micros()) + 1
  if count == 0 then
    redis.call('DEL', KEYS[1])
  else
    if began == 0 then began = version end
    redis.call('HSET', KEYS[1], 'v', whole(version), 'b', whole(began), 'r', relay)
  end
end
if count > 0 then redis.call('PEXPIRE', KEYS[1], ARGV[6]) else began = 0 end
if refused then return {refused} end
local out = {'R', whole(version), whole(began), relay}
for p, v in pairs(members) do
  out[#out + 1] = p
  out[#out + 1] = v
end
return out`

// Records are fields "version|expires ms|payload" of a hash a bucket.

// KEYS bucket, revision, buckets; ARGV bucket name, key, record, its version,
// expected version or "older", most records, ttl ms, channel, writer.
// Returns whether it was stored: S or N, and E when the bucket is full.
const scriptPut = `
local old = redis.call('HGET', KEYS[1], ARGV[2])
local version = 0
if old then version = tonumber(string.sub(old, 1, string.find(old, '|', 1, true) - 1)) end
if ARGV[5] == 'older' then
  if version >= tonumber(ARGV[4]) then return {'N'} end
elseif version ~= tonumber(ARGV[5]) then
  return {'N'}
end
if not old and redis.call('HLEN', KEYS[1]) >= tonumber(ARGV[6]) then return {'E'} end
redis.call('HSET', KEYS[1], ARGV[2], ARGV[3])
redis.call('SADD', KEYS[3], ARGV[1])
local before = redis.call('GET', KEYS[2]) or '0'
local revision = whole(math.max(tonumber(before), micros()) + 1)
redis.call('SET', KEYS[2], revision)
for i = 1, 3 do redis.call('PEXPIRE', KEYS[i], ARGV[7]) end
redis.call(PUBLISH, ARGV[8], before .. '\n' .. revision .. '\n' .. ARGV[9] .. '\n' .. ARGV[1] .. '\n' .. ARGV[2])
return {'S'}`

// KEYS bucket; ARGV key, version. Removes a record whose time is over.
const scriptDrop = `
local old = redis.call('HGET', KEYS[1], ARGV[1])
if old and string.sub(old, 1, string.find(old, '|', 1, true) - 1) == ARGV[2] then redis.call('HDEL', KEYS[1], ARGV[1]) end
return {'D'}`

func newScripts(cluster bool) *scripts {
	publish := "local PUBLISH = 'PUBLISH'\n"
	if cluster {
		publish = "local PUBLISH = 'SPUBLISH'\n"
	}
	lua := func(body string) *rueidis.Lua { return rueidis.NewLuaScript(scriptHead + body) }
	return &scripts{
		renew:   lua(scriptRenew),
		claim:   lua(scriptClaim),
		locate:  lua(scriptLocate),
		release: lua(scriptRelease),
		park:    lua(scriptPark),
		room:    lua(scriptRoom),
		put:     lua(publish + scriptPut),
		drop:    lua(scriptDrop),
	}
}
