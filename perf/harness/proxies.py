"""The proxies under test: how each is configured, started and reloaded. All of them offer the same two ports."""

import os
import shutil
import signal
import socket
import time

from . import envoy
from .machine import PROXY_CPU
from .site import HTTP_HOST, SERVICES, client_hello, fill, replace_file, tls_host

READY_SECONDS_MAX = 180


class Proxy:
    """What all have in common; a peer overrides `files`, `hosts_files` and `command`.

    `extra_hosts` are names allowed on top of the services; all of them lead to the `reply` back end.
    """

    name = ""
    has_http = True
    has_workers = False
    """True: `WORKERS` says how many threads there are."""
    reload_signal = signal.SIGHUP

    def __init__(self, site, children, index, binary):
        self.site, self.children, self.binary = site, children, binary
        self.ports = site.proxy_ports(index)
        self.directory = site.path(self.name)
        self.process = None

    @property
    def http_port(self):
        return self.ports[0]

    def tls_port(self, _service):
        return self.ports[1]

    def values(self, settings):
        """What the templates of perf/peers may name."""
        values = {"DIR": self.directory, "HTTP_PORT": self.http_port, "TLS_PORT": self.ports[1],
                  "ADMIN_PORT": self.ports[2], "HTTP_HOST": HTTP_HOST, "CA": self.site.path("ca.crt"),
                  "FILES": 4096, "CHUNK_BYTES": 16384, "SPIN": "0s", "LOG": False, "WORKERS": 1, **settings}
        values["ACCESS_LOG"] = self.path("access.log") if values["LOG"] else ""
        values["CONNECTIONS"] = values["FILES"] // 2 - 64
        for service, port in self.site.backend_ports.items():
            values[f"{service.upper()}_PORT"] = port
        return values

    def start(self, settings=None, extra_hosts=()):
        """Writes the configuration, starts the process and returns it at once; see `await_ready`."""
        shutil.rmtree(self.directory, ignore_errors=True)
        os.makedirs(self.directory)
        self.settings = settings or {}
        for path, text in self.files(self.values(self.settings)).items():
            os.makedirs(os.path.dirname(self.path(path)), exist_ok=True)
            replace_file(self.path(path), text)
        self.write_hosts(extra_hosts)
        self.process = self.children.start(self.command(), cpu=PROXY_CPU, directory=self.directory)
        return self.process

    def stop(self):
        if self.process:
            self.children.stop(self.process)
            self.process = None

    def path(self, name):
        return os.path.join(self.directory, name)

    def write_hosts(self, extra_hosts):
        """Puts the allow-list where the next reload finds it."""
        for path, text in self.hosts_files(extra_hosts).items():
            replace_file(self.path(path), text)

    def reload(self):
        self.process.signal(self.reload_signal)

    def await_ready(self, host=tls_host("reply"), service="reply"):
        """Waits until a new connection for `host` passes."""
        hello = client_hello(host)
        begun = time.monotonic()
        while not passes(self.tls_port(service), hello):
            if not self.process.alive():
                raise RuntimeError(f"{self.name} ended: {self.process.log_tail()}")
            if time.monotonic() - begun > READY_SECONDS_MAX:
                raise RuntimeError(f"{self.name} does not pass {host}: {self.process.log_tail()}")
            time.sleep(0.001)


class Nginx(Proxy):
    name = "nginx"
    MODULE = "/usr/lib/nginx/modules/ngx_stream_module.so"

    def files(self, values):
        # Debian ships `stream` as a module; other builds have it built in.
        values["HTTP_LOG"] = f"{values['ACCESS_LOG']} combined buffer=64k flush=1s" if values["LOG"] else "off"
        values["STREAM_MODULE"] = f"load_module {self.MODULE};" if os.path.exists(self.MODULE) else ""
        return {"nginx.conf": fill("nginx.conf", values)}

    def hosts_files(self, extra_hosts):
        return {"hosts.map": flat_map(extra_hosts, ";")}

    def command(self):
        return [self.binary, "-p", self.directory, "-c", self.path("nginx.conf")]


class Haproxy(Proxy):
    name = "haproxy"

    def files(self, values):
        # Its standard output is a file of the harness.
        values["LOG_TARGET"] = "log stdout format raw local0" if values["LOG"] else ""
        values["HTTP_LOG"] = "log global\n    option httplog" if values["LOG"] else ""
        return {"haproxy.cfg": fill("haproxy.cfg", values)}

    def hosts_files(self, extra_hosts):
        return {"hosts.map": flat_map(extra_hosts, "")}

    def command(self):
        return [self.binary, "-W", "-f", self.path("haproxy.cfg")]


class Envoy(Proxy):
    name = "envoy"

    def files(self, values):
        return {"envoy.yaml": fill("envoy.yaml", values)}

    def hosts_files(self, extra_hosts):
        values = self.values(self.settings)
        return {"clusters.json": envoy.clusters(values), "listeners.json": envoy.listeners(values, extra_hosts)}

    def command(self):
        return [self.binary, "-c", self.path("envoy.yaml"), "--concurrency", "1", "--disable-hot-restart",
                "--log-level", "error"]

    def reload(self):
        """Nothing to signal: Envoy watches the folder and has seen the rename."""


class Portcullis(Proxy):
    name = "portcullis"
    has_workers = True

    def files(self, values):
        services = "".join(self._entry(service, tls_host(service), service) for service in SERVICES)
        return {"portcullis.yaml": fill("portcullis.yaml", values),
                "resources/services.yaml": services + fill("portcullis-origination.yaml", values)}

    def hosts_files(self, extra_hosts):
        template = self._entry("@NAME@", "@HOST@", "reply")
        size = self.settings.get("HOSTS_PER_ENTRY", 1)
        groups = (extra_hosts[begin:begin + size] for begin in range(0, len(extra_hosts), size))
        return {"resources/hosts.yaml": "".join(
            template.replace("@NAME@", group[0].replace(".", "-")).replace("@HOST@", "\n  - ".join(group))
            for group in groups)}

    def _entry(self, name, host, service):
        port = self.site.backend_ports[service]
        return fill("portcullis-passthrough.yaml", {"NAME": name, "HOST": host, "PORT": port})

    def command(self):
        return [self.binary, "run", "--config", self.path("portcullis.yaml")]


class Floor(Proxy):
    """client/relay.c: the least a relay costs. It knows no names, so every service has a port of its own; plain requests
    it relays as they are, to the web server's plain port: origination without TLS, and without a look at the request."""

    name = "floor"
    loop = "epoll"

    def files(self, values):
        self.chunk_bytes = values["CHUNK_BYTES"]
        return {}

    def hosts_files(self, _extra_hosts):
        return {}

    def tls_port(self, service):
        return self.ports[2 + SERVICES.index(service)]

    def command(self):
        pairs = [f"{self.tls_port(service)}:{port}" for service, port in self.site.backend_ports.items()]
        pairs.append(f"{self.http_port}:{self.site.plain_port}")
        # As big as the chunks that the peers are given, and never below one TLS record.
        return [self.site.path("relay"), self.loop, str(max(self.chunk_bytes, 65536)), *pairs]

    def reload(self):
        """There is nothing to reload."""


class RingFloor(Floor):
    """The same relay on one-shot polls of an io_uring."""

    name = "floor-ring"
    loop = "ring"


PROXIES = {proxy.name: proxy for proxy in (Portcullis, Nginx, Haproxy, Envoy, Floor, RingFloor)}
PEERS = ("nginx", "haproxy", "envoy")
FLOORS = ("floor", "floor-ring")


def flat_map(extra_hosts, end):
    """`host target` lines, the form that nginx and HAProxy share."""
    lines = [f"{tls_host(service)} {service}{end}" for service in SERVICES]
    return "\n".join(lines + [f"{host} reply{end}" for host in extra_hosts]) + "\n"


def passes(port, hello):
    """True when a connection with this first message is answered by the `reply` back end."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
            connection.sendall(hello)
            return connection.recv(64).startswith(b"xxxx")
    except OSError:
        return False
