-- What wrk asks and how it reports, driven by the environment:
--   PERF_PORT         the proxy's port on loopback; the URL's host stays what Host and SNI carry
--   PERF_POST_BYTES   POST a body of this size instead of GET
--   PERF_CLOSE        one connection per request
-- `request` and `response` stay undefined: wrk then sends one prepared request and runs no Lua on the way.

function wrk.resolve(host, service)
   wrk.addrs = wrk.lookup("127.0.0.1", os.getenv("PERF_PORT"))
end

local post_bytes = tonumber(os.getenv("PERF_POST_BYTES") or "0")
if post_bytes > 0 then
   wrk.method = "POST"
   wrk.body = string.rep("x", post_bytes)
end
if os.getenv("PERF_CLOSE") then
   wrk.headers["Connection"] = "close"
end

function done(summary, latency, requests)
   local errors = summary.errors
   io.write(string.format(
      '\nPERF {"operations":%d,"bytes":%d,"errors":%d,"seconds":%.6f,"p50_us":%d,"p99_us":%d,' ..
      '"failed":{"connect":%d,"read":%d,"write":%d,"status":%d,"timeout":%d}}\n',
      summary.requests, summary.bytes,
      errors.connect + errors.read + errors.write + errors.status + errors.timeout,
      summary.duration / 1e6, latency:percentile(50), latency:percentile(99),
      errors.connect, errors.read, errors.write, errors.status, errors.timeout))
end
