"""The workloads: what each asks of a proxy, and which figures come back.

A workload measures one proxy once and returns a flat table of figures; `run` repeats and interleaves. The figure
named by `main` is the one that the ratio to portcullis is made of: lower is better.
"""

import resource
import threading
import time
from dataclasses import dataclass, field
from typing import Callable

from . import load
from .machine import Meter
from .proxies import FLOORS
from .site import HTTP_HOST, tls_host

RELOAD_EVERY_SECONDS = 0.1
IDLE_CONNECTIONS = 4000
IDLE_FILES = 12000
"""Descriptors for the idle workloads: two per tunnel and some."""


@dataclass
class Workload:
    """One row of the results."""

    name: str
    title: str
    measure: Callable
    main: str = "cpu_us"
    settings: dict = field(default_factory=dict)
    needs_http: bool = False
    own_process: bool = False
    """True: `measure` starts and stops the proxy itself."""
    skips: tuple = ()


def metered(stage, proxy, action):
    """Runs `action`, a load, and adds what the proxy spent on it."""
    with Meter(proxy.process, stage.backends) as meter:
        answer = action()
    operations = answer["operations"]
    figures = {"seconds": answer["seconds"], "errors": answer["errors"], "foreign_share": meter.foreign_share,
               "rss_mb": proxy.process.memory_bytes() / 1e6, "cpu_share": meter.cpu_seconds / meter.seconds}
    if operations:
        figures |= {"operations": operations, "throughput": operations / answer["seconds"],
                    "cpu_us": meter.cpu_seconds * 1e6 / operations,
                    "p50_ms": answer["p50_us"] / 1e3, "p99_ms": answer["p99_us"] / 1e3}
    elif answer.get("bytes"):
        figures["cpu_s_per_gb"] = meter.cpu_seconds * 1e9 / answer["bytes"]
        figures["gb_per_s"] = answer["bytes"] / answer["seconds"] / 1e9
    return figures


def origination(page, connections, **options):
    """Plain HTTP to the proxy, TLS behind it."""
    def measure(stage, proxy):
        opened = stage.site.web_connections()
        figures = metered(stage, proxy, lambda: load.wrk(
            stage.site, proxy.http_port, HTTP_HOST, page, connections, stage.seconds, **options))
        return figures | {"upstream_opened": stage.site.web_connections() - opened}
    return measure


def passthrough(connections, **options):
    """HTTPS to the proxy, which passes it on by its server name."""
    def measure(stage, proxy):
        return metered(stage, proxy, lambda: load.wrk(
            stage.site, proxy.tls_port("web"), tls_host("web"), "/tiny", connections, stage.seconds, tls=True, **options))
    return measure


def http2(connections, streams):
    """HTTP/2 inside the client's TLS, which the proxy passes on."""
    def measure(stage, proxy):
        return metered(stage, proxy, lambda: load.h2load(
            stage.site, proxy.tls_port("web"), tls_host("web"), "/tiny", connections, streams, stage.seconds))
    return measure


def raw(mode, service, connections):
    """client/load.c against one of the raw back ends."""
    def measure(stage, proxy):
        return metered(stage, proxy, lambda: load.raw(
            stage.site, mode, proxy.tls_port(service), service, connections, stage.seconds))
    return measure


def idle_tunnels(stage, proxy):
    _start_for_many(proxy)
    return _idle(stage, proxy, proxy.tls_port("hold"), stage.site.hello_file(tls_host("hold")))


def idle_http(stage, proxy):
    _start_for_many(proxy)
    # Opens the upstream connections that the idle clients will share: their memory is not the clients'.
    load.wrk(stage.site, proxy.http_port, HTTP_HOST, "/tiny", load.OPENING_MAX, 1)
    return _idle(stage, proxy, proxy.http_port, stage.site.request_file())


def _start_for_many(proxy):
    """Starts the proxy with descriptors for every idle connection and its upstream."""
    _, files_max = resource.getrlimit(resource.RLIMIT_NOFILE)
    if files_max < IDLE_FILES + 500:
        raise RuntimeError(f"needs {IDLE_FILES + 500} descriptors, ulimit -Hn says {files_max}")
    proxy.start({"FILES": IDLE_FILES})
    proxy.await_ready()


def _idle(stage, proxy, port, first_message):
    """Memory of the proxy with connections open and silent, less what it needs without any."""
    time.sleep(1)
    empty_bytes = proxy.process.memory_bytes()
    holder, answer = load.hold(stage.site, proxy.children, port, first_message, IDLE_CONNECTIONS)
    time.sleep(1)
    try:
        cpu_begun = proxy.process.cpu_seconds()
        time.sleep(stage.seconds)
        cpu_seconds = proxy.process.cpu_seconds() - cpu_begun
        full_bytes = proxy.process.memory_bytes()
    finally:
        proxy.children.stop(holder)
        proxy.stop()
    return {"empty_mb": empty_bytes / 1e6, "rss_mb": full_bytes / 1e6, "connections": answer["operations"],
            "errors": answer["errors"] + IDLE_CONNECTIONS - answer["operations"],
            "bytes_per_connection": (full_bytes - empty_bytes) / max(1, answer["operations"]),
            "idle_cpu_ms_per_s": cpu_seconds * 1e3 / stage.seconds}


def reload_storm(stage, proxy):
    """Origination under load while the configuration changes, back and forth, every 100 ms."""
    # The proxy has been started for this round, and has no upstream connection yet. What it takes to open 64 of them at
    # once is no part of a reload, but would be the p99.
    load.wrk(stage.site, proxy.http_port, HTTP_HOST, "/tiny", 64, 1)
    opened = stage.site.web_connections()
    over = threading.Event()
    reloads = 0

    def storm():
        nonlocal reloads
        while not over.wait(RELOAD_EVERY_SECONDS):
            proxy.write_hosts(["added.perf.test"] if reloads % 2 == 0 else [])
            proxy.reload()
            reloads += 1

    thread = threading.Thread(target=storm)
    thread.start()
    try:
        figures = metered(stage, proxy, lambda: load.wrk(
            stage.site, proxy.http_port, HTTP_HOST, "/tiny", 64, stage.seconds))
    finally:
        over.set()
        thread.join()
    opened = stage.site.web_connections() - opened
    # A restart after every round: the storm leaves old workers behind in some proxies.
    alive = proxy.process.alive()
    proxy.stop()
    if not alive:
        raise RuntimeError(f"{proxy.name} ended during the reloads")
    proxy.start()
    proxy.await_ready()
    return figures | {"reloads": reloads, "upstream_opened": opened}


SETTLE_SECONDS = 3
"""Until what a start or reload has needed for a moment is given back, where that happens at all."""


def hosts(count, settings=None):
    """Start and reload with `count` allowed hosts: until a new connection to the last one passes."""
    def measure(stage, proxy):
        names = [f"host-{index}.perf.test" for index in range(count)]
        proxy.start(settings, extra_hosts=names)
        start_seconds = _seconds(lambda: proxy.await_ready(host=names[-1]))
        ready_cpu = proxy.process.cpu_seconds()
        time.sleep(SETTLE_SECONDS)
        ready_bytes, peak_bytes = proxy.process.memory_bytes(), proxy.process.peak_bytes()
        settled_cpu = proxy.process.cpu_seconds()
        added = names + ["added.perf.test"]
        proxy.write_hosts(added)
        reload_seconds = _seconds(lambda: (proxy.reload(), proxy.await_ready(host=added[-1])))
        time.sleep(SETTLE_SECONDS)
        reload_cpu = proxy.process.cpu_seconds() - settled_cpu
        reloaded_bytes = proxy.process.memory_bytes()
        proxy.stop()
        figures = {"start_ms": start_seconds * 1e3, "start_cpu_ms": ready_cpu * 1e3, "rss_mb": ready_bytes / 1e6,
                   "reload_ms": reload_seconds * 1e3, "reload_cpu_ms": reload_cpu * 1e3,
                   "reloaded_mb": reloaded_bytes / 1e6, "peak_mb": peak_bytes / 1e6}
        if proxy.has_workers:
            proxy.start({**(settings or {}), "WORKERS": 2}, extra_hosts=names)
            proxy.await_ready(host=names[-1])
            time.sleep(SETTLE_SECONDS)
            figures["worker_mb"] = (proxy.process.memory_bytes() - ready_bytes) / 1e6
            proxy.stop()
        return figures
    return measure


def _seconds(action):
    begun = time.monotonic()
    action()
    return time.monotonic() - begun


BULK = {"CHUNK_BYTES": 262144}
"""For bulk the peers get the buffers that serve them best there."""

SPIN = {"SPIN": "50us"}
"""What portcullis offers for latency; the peers have nothing alike."""

LOG = {"LOG": True}
"""A line for every request, each proxy in its own default format, into a file."""

GROUPED = {"HOSTS_PER_ENTRY": 256}
"""As many hosts in a ServiceEntry as Istio allows, not one; the peers have one flat list in any case."""

NO_FLOOR = FLOORS
"""What the floors are no measure of: they have no names to reload, no log and no upstream connections to share."""


def _all():
    for connections in (1, 64, 512):
        yield Workload(f"origination-{connections}", f"origination, tiny body, {connections} connections",
                       origination("/tiny", connections), needs_http=True)
    yield Workload("origination-1-spin", "origination, tiny body, 1 connection, portcullis with spin: 50us",
                   origination("/tiny", 1), "p50_ms", SPIN, needs_http=True, skips=NO_FLOOR)
    yield Workload("origination-64-log", "origination, tiny body, 64 connections, access logs on",
                   origination("/tiny", 64), settings=LOG, needs_http=True, skips=NO_FLOOR)
    yield Workload("origination-64k", "origination, 64 KiB response, 64 connections",
                   origination("/64k", 64), needs_http=True)
    yield Workload("origination-post", "origination, 16 KiB POST, 64 connections",
                   origination("/post", 64, post_bytes=16384), needs_http=True)
    yield Workload("origination-new", "origination, new client connection per request, 64 at a time",
                   origination("/tiny", 64, close=True), needs_http=True, skips=NO_FLOOR)
    for connections in (1, 64, 512):
        yield Workload(f"passthrough-{connections}", f"passthrough, keep-alive, {connections} connections",
                       passthrough(connections))
    yield Workload("passthrough-1-spin", "passthrough, keep-alive, 1 connection, portcullis with spin: 50us",
                   passthrough(1), "p50_ms", SPIN)
    yield Workload("passthrough-http2", "passthrough, HTTP/2 by h2load, 64 connections of 10 streams", http2(64, 10))
    yield Workload("passthrough-new", "passthrough, new TLS connection per request, 64 at a time",
                   passthrough(64, close=True))
    yield Workload("hello", "raw ClientHello, 1 KiB answer, end; 64 at a time", raw("connect", "reply", 64))
    yield Workload("bulk-down", "bulk from the upstream, one stream", raw("down", "source", 1), "cpu_s_per_gb", BULK)
    yield Workload("bulk-up", "bulk to the upstream, one stream", raw("up", "sink", 1), "cpu_s_per_gb", BULK)
    yield Workload("idle-tunnels", f"{IDLE_CONNECTIONS} idle tunnels", idle_tunnels, "bytes_per_connection",
                   own_process=True)
    yield Workload("idle-http", f"{IDLE_CONNECTIONS} idle HTTP clients", idle_http, "bytes_per_connection",
                   needs_http=True, own_process=True, skips=NO_FLOOR)
    yield Workload("reload-storm", "origination, 64 connections, a reload every 100 ms", reload_storm,
                   "p99_ms", needs_http=True, skips=NO_FLOOR)
    for count, label in ((100, "100"), (1000, "1k"), (10000, "10k"), (100000, "100k")):
        yield Workload(f"hosts-{label}", f"{count:,} hosts", hosts(count), "reload_ms", own_process=True,
                       skips=NO_FLOOR)
    yield Workload("hosts-grouped-100k", "100,000 hosts, for portcullis 256 to a ServiceEntry", hosts(100000, GROUPED),
                   "reload_ms", own_process=True, skips=NO_FLOOR)


WORKLOADS = {workload.name: workload for workload in _all()}
