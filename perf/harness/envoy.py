"""Envoy's listeners and clusters as files: filter chains by server name, and HTTP with TLS upstream.

The extra hosts share one filter chain and one cluster: the leanest form, as the flat maps of nginx and HAProxy are.
A chain and a cluster per host, as Istio generates them, needs ten times the memory.
"""

import json

from .site import HTTP_HOST, SERVICES, tls_host

TYPE = "type.googleapis.com/envoy."
# Above what any workload opens: the defaults (1024) would refuse requests.
UNLIMITED = {"thresholds": [{"max_connections": 1000000, "max_pending_requests": 1000000,
                             "max_requests": 1000000, "max_retries": 1000000}]}


def listeners(values, extra_hosts):
    """The text of listeners.json."""
    return _discovery("config.listener.v3.Listener", [_tls_listener(values, extra_hosts), _http_listener(values)])


def clusters(values):
    """The text of clusters.json."""
    found = [_cluster(service, values[f"{service.upper()}_PORT"]) for service in SERVICES]
    found.append(_origination_cluster(values))
    return _discovery("config.cluster.v3.Cluster", found)


def _discovery(kind, resources):
    return json.dumps({"resources": [{"@type": TYPE + kind, **resource} for resource in resources]})


def _tls_listener(values, extra_hosts):
    chains = [_chain(service, [tls_host(service)], service) for service in SERVICES]
    if extra_hosts:
        chains.append(_chain("extra", list(extra_hosts), "reply"))
    return {
        "name": "tls",
        "address": _address(values["TLS_PORT"]),
        "listener_filters": [_filter("envoy.filters.listener.tls_inspector",
                                     "extensions.filters.listener.tls_inspector.v3.TlsInspector")],
        "filter_chains": chains,
    }


def _chain(name, hosts, cluster):
    return {
        "name": name,
        "filter_chain_match": {"server_names": hosts},
        "filters": [_filter("envoy.filters.network.tcp_proxy", "extensions.filters.network.tcp_proxy.v3.TcpProxy",
                            stat_prefix="passthrough", cluster=cluster)],
    }


def _http_listener(values):
    router = _filter("envoy.filters.http.router", "extensions.filters.http.router.v3.Router",
                     dynamic_stats=False, suppress_envoy_headers=True)
    host = {"name": "origination", "domains": [HTTP_HOST, f"{HTTP_HOST}:*"],
            "routes": [{"match": {"prefix": "/"}, "route": {"cluster": "origination", "timeout": "0s"}}]}
    manager = _filter("envoy.filters.network.http_connection_manager",
                      "extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
                      stat_prefix="http", codec_type="HTTP1", generate_request_id=False, http_filters=[router],
                      route_config={"name": "http", "virtual_hosts": [host]})
    if values["LOG"]:
        manager["typed_config"]["access_log"] = [_filter("envoy.access_loggers.file", "extensions.access_loggers.file.v3.FileAccessLog",
                                                         path=values["ACCESS_LOG"])]
    return {"name": "http", "address": _address(values["HTTP_PORT"]), "filter_chains": [{"filters": [manager]}]}


def _cluster(name, port):
    return {
        "name": name,
        "type": "STATIC",
        "connect_timeout": "10s",
        "circuit_breakers": UNLIMITED,
        "load_assignment": {"cluster_name": name, "endpoints": [
            {"lb_endpoints": [{"endpoint": {"address": _address(port)}}]}]},
    }


def _origination_cluster(values):
    validation = {"trusted_ca": {"filename": values["CA"]},
                  "match_typed_subject_alt_names": [{"san_type": "DNS", "matcher": {"exact": HTTP_HOST}}]}
    tls = {"@type": TYPE + "extensions.transport_sockets.tls.v3.UpstreamTlsContext", "sni": HTTP_HOST,
           "common_tls_context": {"validation_context": validation,
                                  "tls_params": {"tls_maximum_protocol_version": "TLSv1_3"}}}
    return {**_cluster("origination", values["WEB_PORT"]),
            "transport_socket": {"name": "envoy.transport_sockets.tls", "typed_config": tls}}


def _address(port):
    return {"socket_address": {"address": "127.0.0.1", "port_value": port}}


def _filter(name, kind, **fields):
    return {"name": name, "typed_config": {"@type": TYPE + kind, **fields}}
