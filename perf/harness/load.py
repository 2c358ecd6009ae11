"""The load clients: wrk for HTTP/1, h2load for HTTP/2, client/load.c for the rest. Both pinned away from the proxy; both answer alike.

An answer has operations, bytes, errors, seconds and, where requests are timed, p50_us and p99_us.
"""

import json
import os
import re
import subprocess

from .machine import LOAD_CPU
from .site import PERF, tls_host

GRACE_SECONDS = 20
"""How much longer than asked a client may take before it is ended and the run fails."""

OPENING_MAX = 64
"""How many connections `hold` has in the making at a time (client/load.c)."""


def wrk(site, port, host, page, connections, seconds, tls=False, post_bytes=0, close=False):
    """Runs wrk against a proxy's port; the URL's host goes into Host and, with TLS, into the SNI."""
    environment = {**os.environ, "PERF_PORT": str(port), "PERF_POST_BYTES": str(post_bytes)}
    if close:
        environment["PERF_CLOSE"] = "1"
    url = f"{'https' if tls else 'http'}://{host}{page}"
    output = _run(["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--timeout", "5s",
                   "-s", os.path.join(PERF, "client", "wrk.lua"), url], site, seconds, environment)
    for line in output.splitlines():
        if line.startswith("PERF "):
            return json.loads(line[5:])
    raise RuntimeError(f"wrk gave no figures: {output[-400:]}")


def h2load(site, port, host, page, connections, streams, seconds):
    """Runs h2load, HTTP/2 over TLS, against a proxy's port; the URL's host goes into :authority and the SNI."""
    log = site.path("h2load.log")
    if os.path.exists(log):
        os.remove(log)
    output = _run(["h2load", f"-D{seconds}", f"-c{connections}", f"-m{streams}", f"--connect-to=127.0.0.1:{port}",
                   f"--log-file={log}", f"https://{host}{page}"], site, seconds)
    counts = re.search(r"requests: (\d+) total.*?(\d+) done, (\d+) succeeded", output)
    if not counts or "h2" not in output:
        raise RuntimeError(f"h2load gave no figures: {output[-400:]}")
    with open(log) as lines:
        times = sorted(int(line.split("\t")[2]) for line in lines)
    operations = int(counts.group(3))
    return {"operations": operations, "bytes": 0, "errors": int(counts.group(2)) - operations, "seconds": seconds,
            "p50_us": times[len(times) // 2] if times else 0, "p99_us": times[len(times) * 99 // 100] if times else 0}


def raw(site, mode, port, service, connections, seconds):
    """Runs client/load.c with a ClientHello for the service."""
    hello = site.hello_file(tls_host(service))
    return json.loads(_run([site.path("load"), mode, str(port), hello, str(connections), str(seconds)], site, seconds))


def hold(site, children, port, first_message, connections):
    """Opens connections that stay. Returns the process that holds them and its answer."""
    process = children.start([site.path("load"), "hold", str(port), first_message, str(connections), "30"],
                             cpu=LOAD_CPU, directory=site.directory, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    line = process.child.stdout.readline()
    if not line:
        raise RuntimeError(f"load hold failed: {process.log_tail()}")
    return process, json.loads(line)


def _run(command, site, seconds, environment=None):
    """Runs a client to its end. It inherits the harness's CPU, which is LOAD_CPU."""
    done = subprocess.run(command, cwd=site.directory, env=environment, capture_output=True, text=True,
                          stdin=subprocess.DEVNULL, timeout=seconds + GRACE_SECONDS, check=False)
    if done.returncode:
        raise RuntimeError(f"{command[0]}: {done.stderr[-400:] or done.stdout[-400:]}")
    return done.stdout
