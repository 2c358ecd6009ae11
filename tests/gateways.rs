//! Clients that come to the servers of Gateways, and routes that lead to them, where both end.

mod support;

use support::certificates::Authority;
use support::client;
use support::gateway::{Gateway, command};
use support::resources;
use support::service;
use support::upstream::Upstream;

const API: &str = "api.example.com";

/// A Gateway `egress` for plain HTTP on port 80, and for TLS on port 443, of these hosts.
fn servers(hosts: &str) -> String {
    format!(
        "---
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {{name: egress}}
spec:
  servers:
  - {{port: {{number: 80, name: http, protocol: HTTP}}, hosts: [{hosts}]}}
  - {{port: {{number: 443, name: tls, protocol: TLS}}, hosts: [{hosts}], tls: {{mode: PASSTHROUGH}}}}
"
    )
}

/// A VirtualService for `host` at these gateways; `routes` are its blocks.
fn routes(host: &str, gateways: &str, routes: &str) -> String {
    format!(
        "---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {{name: routes}}
spec:
  hosts: [{host}]
  gateways: [{gateways}]
{routes}"
    )
}

fn api_at_gateway() -> String {
    let http = "  http:\n  - match: [{uri: {prefix: /books}}]\n    route: [{destination: {host: api.example.com}}]\n";
    resources_for(http)
}

fn resources_for(blocks: &str) -> String {
    format!("{}{}", servers(API), routes(API, "egress", blocks))
}

#[test]
fn a_client_of_a_gateway_gets_what_its_virtual_services_say_and_else_404() {
    let upstream = Upstream::plain(service::http);
    let yaml = resources::http_entry("api", API, upstream.port()) + &api_at_gateway();
    let gateway = Gateway::builder().host(API).at_gateways().resources(yaml).start();
    let mut client = gateway.client();
    assert_eq!(client.get(API, "/books/1").status, 200);
    assert_eq!(client.get(API, "/health").status, 404);
    assert_eq!(client.get("other.example.com", "/books/1").status, 404);
    let lines = gateway.log().wait_for_count(3);
    let shown: Vec<_> = lines.iter().map(|line| (line.code, line.flags.as_str())).collect();
    assert_eq!(shown, [(200, "-"), (404, "NR"), (404, "NR")]);
}

#[test]
fn allowing_any_opens_nothing_at_a_gateway() {
    let mesh = "  outboundTrafficPolicy: {mode: ALLOW_ANY}\n";
    let yaml = resources::http_entry("api", API, 9) + &api_at_gateway();
    let gateway = Gateway::builder().host("other.example.com").at_gateways().mesh(mesh).resources(yaml).start();
    assert_eq!(gateway.client().get("other.example.com", "/").status, 404);
    assert!(client::tls(gateway.tls(), "other.example.com", &Authority::new()).is_err());
}

#[test]
fn tls_passes_through_a_gateway_by_the_names_that_it_routes() {
    let authority = Authority::new();
    let upstream = Upstream::tls(&authority.issue(API), service::http);
    let tls = "  tls:\n  - match: [{port: 443, sniHosts: [api.example.com]}]\n    route: [{destination: {host: api.example.com}}]\n";
    let yaml = resources::tls_entry("api", API, upstream.port()) + &resources_for(tls);
    let gateway = Gateway::builder().host(API).at_gateways().resources(yaml).start();
    assert!(client::tls(gateway.tls(), API, &authority).is_ok());
    assert!(client::tls(gateway.tls(), "other.example.com", &authority).is_err());
    let lines = gateway.log().wait_for_count(2);
    let refused = lines.iter().find(|line| line.server_name == "other.example.com").expect("a line of its own");
    assert_eq!(refused.flags, "NR");
}

#[test]
fn the_routes_of_the_mesh_do_not_hold_at_a_gateway() {
    let upstream = Upstream::plain(service::http);
    let yaml = resources::http_entry("api", API, upstream.port());
    let gateway = Gateway::builder().host(API).at_gateways().resources(yaml).start();
    assert_eq!(gateway.client().get(API, "/").status, 404);
}

/// The way from the mesh to the Gateway, within 300 ms, and what follows there.
fn led_through(onward: &str) -> String {
    let way = "  http:
  - match: [{gateways: [mesh]}]
    timeout: 300ms
    route: [{destination: {host: istio-egressgateway.istio-system.svc.cluster.local, port: {number: 80}}}]
";
    servers(API) + &routes(API, "mesh, egress", &format!("{way}{onward}"))
}

#[test]
fn what_the_second_hop_does_not_route_gets_a_gateways_answer() {
    let upstream = Upstream::plain(service::http);
    let onward = "  - match: [{gateways: [egress], uri: {prefix: /books}}]\n    route: [{destination: {host: api.example.com}}]\n";
    let yaml = resources::http_entry("api", API, upstream.port()) + &led_through(onward);
    let gateway = Gateway::builder().host(API).resources(yaml).start();
    let mut client = gateway.client();
    assert_eq!(client.get(API, "/books").status, 200);
    assert_eq!(client.get(API, "/health").status, 404);
    // What the mesh does not know is blocked there, and never gets to the Gateway.
    assert_eq!(client.get("other.example.com", "/").status, 502);
    assert_eq!(gateway.log().wait_for_count(3)[1].flags, "NR");
}

#[test]
fn the_timeout_of_the_way_to_the_gateway_bounds_the_request() {
    let upstream = Upstream::plain(service::http);
    let onward =
        "  - match: [{gateways: [egress]}]\n    name: out\n    route: [{destination: {host: api.example.com}}]\n";
    let yaml = resources::http_entry("api", API, upstream.port()) + &led_through(onward);
    let gateway = Gateway::builder().host(API).resources(yaml).start();
    assert_eq!(gateway.client().get(API, "/silent").status, 504);
    // The route of the last hop is the one that is logged.
    assert_eq!(gateway.log().first().route, "out");
}

#[test]
fn a_gateway_may_answer_itself() {
    let onward = "  - match: [{gateways: [egress]}]\n    directResponse: {status: 418}\n";
    let yaml = resources::http_entry("api", API, 9) + &led_through(onward);
    let gateway = Gateway::builder().host(API).resources(yaml).start();
    assert_eq!(gateway.client().get(API, "/").status, 418);
}

/// The servers of [`servers`], the one for plain HTTP with `httpsRedirect`.
fn redirecting(yaml: &str) -> String {
    let (before, after) = ("protocol: HTTP}, hosts:", "protocol: HTTP}, tls: {httpsRedirect: true}, hosts:");
    assert!(yaml.contains(before), "{yaml}");
    yaml.replace(before, after)
}

#[test]
fn a_server_with_https_redirect_sends_its_clients_to_https() {
    let upstream = Upstream::plain(service::http);
    let yaml = resources::http_entry("api", API, upstream.port()) + &redirecting(&api_at_gateway());
    let gateway = Gateway::builder().host(API).at_gateways().resources(yaml).start();
    let mut client = gateway.client();
    for (host, target, location) in [
        (API, "/books/1?page=2", "https://api.example.com/books/1?page=2"),
        ("api.example.com:80", "/", "https://api.example.com/"),
        ("api.example.com:8080", "/health", "https://api.example.com:8080/health"),
    ] {
        let response = client.get(host, target);
        assert_eq!((response.status, response.header("location")), (301, Some(location)), "{host}{target}");
    }
    assert_eq!(client.get("other.example.com", "/books/1").status, 404);
    let line = gateway.log().first();
    let shown = (line.code, line.flags.as_str(), line.details.as_str(), line.route.as_str());
    assert_eq!(shown, (301, "-", "direct_response", "https_redirect"));
    assert_eq!(upstream.seen().counts().connections, 0);
    let url = format!("http://{API}/books/1");
    let told = command().args(["explain", &url, "--config"]).arg(gateway.config()).output().expect("it runs");
    let told = String::from_utf8(told.stdout).expect("UTF-8");
    assert!(told.contains("https://api.example.com/books/1") && told.contains("https_redirect"), "{told}");
}

#[test]
fn the_second_hop_passes_a_redirect_to_https_on_to_the_client() {
    let onward = "  - match: [{gateways: [egress]}]\n    route: [{destination: {host: api.example.com}}]\n";
    let yaml = resources::http_entry("api", API, 9) + &redirecting(&led_through(onward));
    let gateway = Gateway::builder().host(API).resources(yaml).start();
    let response = gateway.client().get(API, "/books?page=2");
    assert_eq!((response.status, response.header("location")), (301, Some("https://api.example.com/books?page=2")));
    assert_eq!(gateway.log().first().route, "https_redirect");
}

#[test]
fn another_name_for_the_service_of_the_gateways_is_a_setting() {
    let upstream = Upstream::plain(service::http);
    let onward = "  - match: [{gateways: [egress]}]\n    route: [{destination: {host: api.example.com}}]\n";
    let led = led_through(onward).replace("istio-egressgateway.istio-system.svc.cluster.local", "exit.example.com");
    let yaml = resources::http_entry("api", API, upstream.port()) + &led;
    let without = Gateway::builder().host(API).resources(yaml.clone()).start();
    assert_eq!(without.client().get(API, "/").status, 503);
    assert_eq!(without.log().first().flags, "NC");
    let with = Gateway::builder().host(API).setting("gatewayServices: [exit.example.com]\n").resources(yaml).start();
    assert_eq!(with.client().get(API, "/").status, 200);
}

#[test]
fn gateways_are_shown_and_obeyed_after_a_reload() {
    let upstream = Upstream::plain(service::http);
    let onward = "  - match: [{gateways: [egress]}]\n    route: [{destination: {host: api.example.com}}]\n";
    let yaml = resources::http_entry("api", API, upstream.port()) + &led_through(onward);
    let gateway = Gateway::builder().host(API).resources(yaml.clone()).start();
    let mut client = gateway.client();
    assert_eq!(client.get(API, "/").status, 200);
    let shown = command().args(["get", "gateways", "--admin", &gateway.admin().to_string()]).output().expect("it runs");
    let shown = String::from_utf8(shown.stdout).expect("UTF-8");
    assert!(shown.contains("default     egress"), "{shown}");
    // The server admits another host now: the next request on the open connection finds none.
    gateway.reload(&yaml.replace(&servers(API), &servers("other.example.com")));
    assert_eq!(client.get(API, "/").status, 404);
}
