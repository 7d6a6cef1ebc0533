-- The REST face of a route. Envoy's transcoder knows one success code (200) and one error body (google.rpc.Status); the
-- documents want their own. This filter sits outside the transcoder, so it sees every answer last: the server's as JSON,
-- Envoy's own as plain text. What it does on a route is that route's filter_context in envoy.yaml:
--   success       how a success differs: its `status`, its `body` if it has none, int64 fields to print as `integers`
--   statuses      error status → the status to answer instead
--   spelling      `proto` where the document spells fields as the protos do; camelCase otherwise
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
  ["426"] = { "9", "HTTP/1.1 or HTTP/2 is needed" },
  ["429"] = { "8", "too many requests" },
  ["431"] = { "8", "the request headers are too large" },
  ["501"] = { "12", "not implemented" },
  ["503"] = { "14", "the service is unavailable, please try again" },
  ["504"] = { "4", "the service took too long to answer" },
}
local STATUS_BODY = '{"code":%code%,"message":%message%,"details":[%detail%]}'
-- The details that the server sends: of a token, so that nobody learns who refused it, or why; and of what cannot be read.
local INFO = '{"@type":"type.googleapis.com/google.rpc.ErrorInfo","reason":"%s","domain":"till","metadata":{}}'
local DETAILS = { ["400"] = INFO:format("MALFORMED_REQUEST"), ["401"] = INFO:format("UNAUTHENTICATED") }
local VIOLATION = '{"@type":"type.googleapis.com/google.rpc.BadRequest","fieldViolations":['
  .. '{"field":"%s","description":"%s","reason":""}]},' .. INFO:format("INVALID_FIELD")
-- What is wrong with a value that is not of its field's type.
local KINDS = {
  TYPE_INT32 = "must be a whole number of 32 bits",
  TYPE_INT64 = "must be a whole number of 64 bits",
  TYPE_DOUBLE = "must be a number",
  TYPE_BOOL = "must be true or false",
  TYPE_STRING = "must be a string",
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

-- Returns the field that Envoy cannot read, as the document spells it, and what is wrong with it; or nil.
local function misread(context, text)
  local name, kind = text:match("^([%w_%.%[%]]+): invalid value .- for type ([%w_%./]+)")
  local wrong = KINDS[kind] or "cannot have this value"
  if not name then
    name = text:match("^invalid value Starting an object on a scalar field for type ([%w_]+)")
    wrong = "must not be an object"
  end
  if not name then
    name = text:match("^invalid value oneof field .- Cannot set '([%w_]+)'")
    wrong = "is there twice"
  end
  if not name then return nil end
  name = name:gsub("%.value$", "") -- a wrapper's
  if context:get("spelling") ~= "proto" then name = name:gsub("_(%l)", string.upper) end
  return name, wrong
end

-- Returns the gRPC code and the message (as JSON) of an error, whether the words are the server's own, and if not, details.
local function fault(status, text, context)
  local code, message = text:match('^{"code":(%d+),"message":"(.-)","details":')
  -- Code 2, UNKNOWN, is a crash whose message may show the server's insides; 4, a deadline, has gRPC's own words.
  if code and code ~= "2" and code ~= "4" and message ~= "" then return code, '"' .. message .. '"', true end
  local own, detail = OWN[status] or { "13", "internal error" }, DETAILS[status] or ""
  if status ~= "400" or code then return code ~= "2" and code or own[1], quote(own[2]), false, detail end
  text = text:gsub("^: ?", "")
  local field, wrong = misread(context, text)
  if field then return own[1], quote(field .. " " .. wrong), false, VIOLATION:format(field, wrong) end
  -- The first line tells what is wrong with the JSON; the next ones quote it.
  return own[1], quote(text:match("^[^\r\n]+") or own[2]), false, detail
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
  local code, message, kept, detail = fault(status, text, context)
  local answered = (context:get("statuses") or {})[status] or status
  local bodies = context:get("bodies") or (kept and {}) or { other = STATUS_BODY }
  local template = bodies[answered] or bodies.other
  local filled = template and template:gsub("%%(%a+)%%", {
    status = answered, code = code, message = message, detail = detail or "",
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
