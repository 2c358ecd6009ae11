"""The place of one run: its folder, ports, certificates, compiled clients, and the hosts that exist in it."""

import os
import re
import shutil
import socket
import ssl
import subprocess
import urllib.request

PERF = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
REPOSITORY = os.path.dirname(PERF)
OUT = os.path.join(PERF, "out")

HTTP_HOST = "http.perf.test"
"""The host of plain requests, to which the proxies originate TLS."""

SERVICES = ("web", "reply", "hold", "sink", "source")
"""What stands behind the proxies: `web` is the TLS server, the others are roles of client/raw-backend.c."""


def tls_host(service):
    """The server name under which a service is reached through passthrough."""
    return f"{service}.perf.test"


class Site:
    """Everything made before the first process starts."""

    def __init__(self, directory, port_base):
        self.directory = directory
        self.port_base = port_base
        self.status_port = port_base + len(SERVICES)
        self.plain_port = self.status_port + 1
        _check_free(range(port_base, port_base + 100))
        self._questions = 0
        self.backend_ports = {service: port_base + index for index, service in enumerate(SERVICES)}
        try:
            self._make()
        except BaseException:
            self.remove()
            raise

    def proxy_ports(self, index, count=10):
        """The ports of the proxy with this index; the back ends have the first ten."""
        begin = self.port_base + 10 * (index + 1)
        return range(begin, begin + count)

    def path(self, *parts):
        return os.path.join(self.directory, *parts)

    def web_connections(self):
        """How many connections the web server has accepted so far, this question's own not counted."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.status_port}/status", timeout=10) as answer:
            text = answer.read().decode()
        self._questions += 1
        # "server accepts handled requests", and a line with the three numbers.
        return int(re.search(r"requests\s+(\d+)", text).group(1)) - self._questions

    def hello_file(self, host):
        """A file with a genuine ClientHello for this host, as OpenSSL writes it."""
        path = self.path(f"hello-{host}")
        if not os.path.exists(path):
            with open(path, "wb") as file:
                file.write(client_hello(host))
        return path

    def request_file(self):
        """A file with a plain request for the small page."""
        path = self.path("request")
        with open(path, "w", newline="") as file:
            file.write(f"GET /tiny HTTP/1.1\r\nHost: {HTTP_HOST}\r\n\r\n")
        return path

    def _make(self):
        os.makedirs(self.path("backend", "pages"))
        with open(self.path("backend", "pages", "64k"), "wb") as page:
            page.write(os.urandom(64 * 1024))
        self._make_certificates()
        self._compile()

    def _make_certificates(self):
        names = ",".join(f"DNS:{name}" for name in (HTTP_HOST, *map(tls_host, SERVICES)))
        curve = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
        self._openssl("req", "-x509", *curve, "-keyout", "ca.key", "-out", "ca.crt", "-days", "2",
                      "-subj", "/CN=perf test CA", "-addext", "keyUsage=critical,keyCertSign,cRLSign")
        self._openssl("req", *curve, "-keyout", "web.key", "-out", "web.csr", "-subj", "/CN=perf test")
        with open(self.path("web.ext"), "w") as file:
            file.write(f"subjectAltName={names}\nbasicConstraints=critical,CA:FALSE\nextendedKeyUsage=serverAuth\n")
        self._openssl("x509", "-req", "-in", "web.csr", "-CA", "ca.crt", "-CAkey", "ca.key", "-CAcreateserial",
                      "-days", "2", "-extfile", "web.ext", "-out", "web.crt")

    def _openssl(self, *arguments):
        subprocess.run(["openssl", *arguments], cwd=self.directory, check=True, capture_output=True, timeout=60)

    def _compile(self):
        for program in ("load", "raw-backend", "relay"):
            source = os.path.join(PERF, "client", f"{program}.c")
            subprocess.run(["gcc", "-O2", "-o", self.path(program), source], check=True, timeout=60)

    def remove(self):
        shutil.rmtree(self.directory, ignore_errors=True)


def _check_free(ports):
    """Another run, or anything else on these ports, would answer in our place."""
    for port in ports:
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError as error:
                raise SystemExit(f"perf/run: port {port} is taken ({error.strerror}); choose another --port-base") from error


def client_hello(host):
    """The first message of a TLS client that asks for `host`."""
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    # No certificates are loaded: that would take 30 ms, longer than some reloads that are timed.
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).wrap_bio(incoming, outgoing, server_hostname=host)
    try:
        client.do_handshake()
    except ssl.SSLWantReadError:
        pass
    return outgoing.read()


def fill(template, values):
    """The text of perf/peers/`template` with every @NAME@ replaced."""
    with open(os.path.join(PERF, "peers", template)) as file:
        text = file.read()
    for name, value in values.items():
        text = text.replace(f"@{name}@", str(value))
    return text


def replace_file(path, text):
    """Writes the file so that a reader sees the old text or the new one, never a part."""
    with open(path + ".new", "w") as file:
        file.write(text)
    os.rename(path + ".new", path)
