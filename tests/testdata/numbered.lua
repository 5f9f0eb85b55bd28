-- wrk sends numbered requests that no other request is equal to, and notes
-- each that was acknowledged.
--
--   wrk -tN -cN -s numbered.lua URL -- KIND DIR FIRST DEPTH KEYS DELETE
--
-- response() is not told what it answers. So there is one connection for each
-- thread: its responses come in the order of its requests, and a new
-- connection begins with a call of request(). DEPTH requests are sent at once.
-- wrk does not call response() for responses without header fields (a 204) until
-- the connection has had one with some, so each begins with GETs.
--
-- Thread T writes a line "NUMBER SIZE ANSWER" into DIR/wT for every 2xx, before
-- it looks at the next response: ANSWER is the record's number (KIND http) or
-- the status (kv). Any other status goes into DIR/wT.failed, but for 507 from
-- http, whose log nobody truncates. A line "gone" says that the server is: T has
-- seen all answers that there are.
--
-- Requests are numbered from FIRST + 1. In a kv, request n is about key
-- wT-(n mod KEYS); it deletes it when n is divisible by DELETE (SIZE 0, and 404
-- is a success).

local ffi = require("ffi")
ffi.cdef("int usleep(unsigned usec);")

local sizes = { 32, 60, 300, 1000, 1024, 1400, 2100, 5000 }
local threads = 0

function setup(thread)
	thread:set("name", "w" .. threads)
	threads = threads + 1
end

function init(args)
	kind, dir = args[1], args[2]
	first, depth, keys, delete = tonumber(args[3]), tonumber(args[4]), tonumber(args[5]), tonumber(args[6])
	acks = assert(io.open(dir .. "/" .. name, "w"))
	acks:setvbuf("no")
	number = first
	batch = {}
	answered, unanswered = depth, 0
	get = wrk.format("GET", kind == "kv" and "/k/none" or "/"):rep(depth)
	seen = false -- a response
end

local function size(n)
	if kind == "kv" and n % delete == 0 then
		return 0
	end
	return n % 97 == 0 and 40000 or sizes[n % #sizes + 1]
end

-- The body of a request tells whose it is, and its own length.
local function body(n, size)
	local tag = name .. "-" .. n .. "-" .. size .. ";"
	return tag:rep(math.ceil(size / #tag)):sub(1, size)
end

local function format(n)
	if kind == "http" then
		return wrk.format("POST", "/", nil, body(n, size(n)))
	end
	local path = "/k/" .. name .. "-" .. n % keys
	if size(n) == 0 then
		return wrk.format("DELETE", path)
	end
	return wrk.format("PUT", path, nil, body(n, size(n)))
end

function request()
	if answered < depth then
		-- Once is not enough: wrk's first call is not for sending.
		unanswered = unanswered + 1
		if unanswered == 2 then
			acks:write("gone\n")
		end
		ffi.C.usleep(1000) -- leave the CPU to others
	else
		unanswered = 0
	end
	answered = 0
	if not seen then
		return get
	end
	for i = 1, depth do
		number = number + 1
		batch[i] = format(number)
	end
	return table.concat(batch)
end

function response(status, headers, body)
	answered = answered + 1
	if number == first then
		seen = true
		return
	end
	local n = number - depth + answered
	if status == 201 or status == 204 or (status == 404 and size(n) == 0) then
		acks:write(n, " ", size(n), " ", headers["X-Paste-Seq"] or status, "\n")
		return
	elseif status == 507 and kind == "http" then
		return
	end
	local f = assert(io.open(dir .. "/" .. name .. ".failed", "a"))
	f:write(n, " ", status, " ", body)
	f:close()
end
