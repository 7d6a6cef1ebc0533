-- The REST face of a route. Envoy's transcoder knows one success code (200) and one error body (google.rpc.Status); the
-- documents want their own. This filter sits outside the transcoder, so it sees every answer last: the server's as JSON,
-- Envoy's own as plain text. What it does on a route is that route's filter_context in envoy.yaml:
--   success       how a success differs: its `status`, its `body` if it has none, int64 fields to print as `integers`
--   statuses      error status → the status to answer instead
--   documented    the message type that is the route's error body
--   bodies        status (or `other`) → the body of an error that brings no documented one; takes %status% %code% %message% %detail%

-- HTTP status → gRPC code and a text for people, for the errors that Envoy itself answers.
local OWN = {
  ["400"] = { "3", "the request could not be read" },
  ["401"] = { "16", "credentials are missing or not accepted" },
  ["403"] = { "7", "not allowed" },
  ["404"] = { "5", "no such path or method" },
  ["408"] = { "4", "the request took too long to arrive" },
  ["413"] = { "8", "the request body is too large" },
  ["429"] = { "8", "too many requests" },
  ["431"] = { "8", "the request headers are too large" },
  ["501"] = { "12", "not implemented" },
  ["503"] = { "14", "the service is unavailable, please try again" },
  ["504"] = { "4", "the service took too long to answer" },
}
local STATUS_BODY = '{"code":%code%,"message":%message%,"details":[%detail%]}'
-- What the server says of a token, so that nobody learns who refused it, or why.
local DETAILS = {
  ["401"] = '{"@type":"type.googleapis.com/google.rpc.ErrorInfo","reason":"UNAUTHENTICATED","domain":"till","metadata":{}}',
}
-- Headers of the way behind Envoy, which mean nothing to a REST client: those of every answer, then the rare ones.
local INTERNAL = { "grpc-status", "grpc-message", "grpc-accept-encoding" }
local RARE = { "grpc-status-details-bin", "grpc-encoding", "x-envoy-upstream-healthchecked-cluster" }

local function read(handle)
  local body = handle:body(true)
  return tostring(body:getBytes(0, body:length()))
end

-- Returns text as a JSON string. It may quote the client's own bytes, so it is cut and anything but plain ASCII replaced.
local function quote(text)
  return '"' .. text:sub(1, 200):gsub("[^\32-\126]+", "?"):gsub('[\\"]', "\\%0") .. '"'
end

-- Returns the gRPC code and the message (as JSON) of an error, and whether the words are the server's own.
local function fault(status, text)
  local code, message = text:match('^{"code":(%d+),"message":"(.-)","details":')
  -- Code 2, UNKNOWN, is a crash whose message may show the server's insides; 4, a deadline, has gRPC's own words.
  if code and code ~= "2" and code ~= "4" and message ~= "" then return code, '"' .. message .. '"', true end
  local own = OWN[status] or { "13", "internal error" }
  -- The first line of Envoy's own 400 tells what is wrong with the JSON; the next ones quote it. `.value` is a wrapper's.
  local told = status == "400" and not code and text:match("^:? ?([^\r\n]+)")
  return code ~= "2" and code or own[1], quote(told and told:gsub("%.value:", ":", 1) or own[2]), false
end

-- Returns the documented error body, which is the last detail, or nil.
local function documented(context, text)
  local name = context:get("documented")
  local fields = name and text:match('^.*{"@type":"type%.googleapis%.com/' .. name .. '",?(.*)%]}$')
  return fields and "{" .. fields
end

local function remove(headers, names)
  for _, name in ipairs(names) do headers:remove(name) end
end

local function failed(handle, status)
  local text, context = read(handle), handle:filterContext()
  local code, message, kept = fault(status, text)
  local answered = (context:get("statuses") or {})[status] or status
  local bodies = context:get("bodies") or (kept and {}) or { other = STATUS_BODY }
  local template = bodies[answered] or bodies.other
  local filled = template and template:gsub("%%(%a+)%%", {
    status = answered, code = code, message = message, detail = DETAILS[status] or "",
  })
  handle:body(true):setBytes(documented(context, text) or filled or text)
  local headers = handle:headers() -- anew: waiting for the body ended the first ones
  remove(headers, RARE)
  headers:replace(":status", answered)
  headers:replace("content-type", "application/json")
  if answered == "401" then headers:replace("www-authenticate", "Bearer") end
  handle:streamInfo():dynamicMetadata():set("till", "grpc_status", code)
end

-- Most answers go as they are, and every step here is one of every call: what is not needed is not asked for.
local function succeeded(handle, headers)
  local differs = handle:filterContext():get("success")
  handle:streamInfo():dynamicMetadata():set("till", "grpc_status", "0")
  if not differs then return end
  if differs.status then headers:replace(":status", differs.status) end
  local body = differs.integers and read(handle) or differs.body
  if not body then return end
  for _, field in ipairs(differs.integers or {}) do
    -- Within a string a quote is written \", so only fields match.
    body = body:gsub('"' .. field .. '":"(%-?%d+)"', '"' .. field .. '":%1')
  end
  handle:body(true):setBytes(body)
  remove(handle:headers(), RARE)
  handle:headers():replace("content-type", "application/json")
end

function envoy_on_response(handle)
  local headers = handle:headers()
  if (headers:get("content-type") or ""):find("^application/grpc") then return end
  remove(headers, INTERNAL)
  local status = headers:get(":status")
  if tonumber(status) >= 400 then failed(handle, status) else succeeded(handle, headers) end
end
