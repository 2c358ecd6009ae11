//! Attacks by the path: spellings that a policy reads in one way and an upstream in another.

use crate::scene::{HOST, Scene, answers_to, statuses};
use crate::support::gateway::Gateway;
use crate::support::resources;
use crate::support::service;

/// Ways to write a path below `/secret` that starts in `/public`, or hides the word.
const SPELLINGS: [&str; 42] = [
    "/secret",
    "/secret/",
    "//secret",
    "///secret",
    "/./secret",
    "/public/../secret",
    "/public/./../secret",
    "/public//../secret",
    "/public/..//secret",
    "/public/../../secret",
    "/public/%2e%2e/secret",
    "/public/%2E%2E/secret",
    "/public/.%2e/secret",
    "/public/%2e./secret",
    "/public/..%2fsecret",
    "/public/..%2Fsecret",
    "/public%2f..%2fsecret",
    "/public/..%5csecret",
    "/public\\..\\secret",
    "/public/..\\secret",
    "/public/%252e%252e/secret",
    "/public/%252e%252e%252fsecret",
    "/public/..%252fsecret",
    "/public/%25252e%25252e/secret",
    "/public/%c0%ae%c0%ae/secret",
    "/public/%c0%af../secret",
    "/public/%e0%80%ae%e0%80%ae/secret",
    "/public/%00/../secret",
    "/secret%00",
    "/secret%00/public",
    "/%73ecret",
    "/%73%65%63%72%65%74",
    "/sec%72et",
    "/%2573ecret",
    "/;/secret",
    "/public/..;/secret",
    "/public/;/../secret",
    "/public/../secret;x=y",
    "/secret#/public",
    "/secret?/public",
    "/public/../secret?/public",
    "/public/%u002e%u002e/secret",
];

/// As a lenient upstream would read a path: everything decoded twice, parameters cut, dot segments resolved.
fn as_a_lenient_upstream(path: &str) -> String {
    let path = path.split(['?', '#']).next().unwrap_or_default();
    let path = decoded(&decoded(path)).replace('\\', "/");
    let mut segments: Vec<&str> = Vec::new();
    for segment in path.split('/').map(|segment| segment.split(';').next().unwrap_or_default()) {
        match segment {
            "" | "." => {}
            ".." => drop(segments.pop()),
            other => segments.push(other),
        }
    }
    format!("/{}", segments.join("/"))
}

fn decoded(path: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = path.as_bytes();
    while let [byte, tail @ ..] = rest {
        let digits = tail.get(..2).and_then(|digits| std::str::from_utf8(digits).ok());
        match digits.filter(|_| *byte == b'%').and_then(|digits| u8::from_str_radix(digits, 16).ok()) {
            Some(value) => {
                bytes.push(value);
                rest = &tail[2..];
            }
            None => {
                bytes.push(*byte);
                rest = tail;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Asks for a path; the status.
fn ask(scene: &Scene, path: &str) -> u16 {
    let request = format!("GET {path} HTTP/1.1\r\nHost: {HOST}\r\nConnection: close\r\n\r\n");
    let answers = answers_to(&scene.gateway, request);
    let line = scene.next_line(path);
    let status = statuses(&answers).first().copied().unwrap_or(0);
    assert_eq!(line.code, status, "{path}");
    status
}

/// The paths that the upstream was asked for.
fn asked(scene: &Scene) -> Vec<String> {
    scene.requests().iter().filter_map(|head| head.split(' ').nth(1).map(str::to_owned)).collect()
}

#[test]
fn what_passes_a_policy_that_allows_a_path_is_that_path_to_every_upstream() {
    let policy = "  action: ALLOW\n  rules: [{to: [{operation: {paths: [/public, /public/*]}}]}]\n";
    let policy = resources::authorization_policy("public-only", policy);
    let scene = Scene::with_resources(Gateway::builder(), &policy, service::http);
    assert_eq!(ask(&scene, "/public/a"), 200);
    for path in SPELLINGS {
        let status = ask(&scene, path);
        assert!(matches!(status, 200 | 400 | 403), "{path}: {status}");
    }
    // A request for the whole server is for no path.
    let whole = answers_to(&scene.gateway, format!("OPTIONS * HTTP/1.1\r\nHost: {HOST}\r\nConnection: close\r\n\r\n"));
    assert_eq!(statuses(&whole), [403], "{whole}");
    for path in asked(&scene) {
        // `;` has a meaning to some servers only; Istio forwards it, and the gateway does, too.
        let seen = as_a_lenient_upstream(&path.replace(';', "_"));
        assert!(seen.starts_with("/public"), "{path} is {seen}");
    }
}

#[test]
fn what_a_policy_denies_passes_in_no_spelling() {
    let policy = "  action: DENY\n  rules: [{to: [{operation: {paths: [/secret, /secret/*]}}]}]\n";
    let policy = resources::authorization_policy("no-secrets", policy);
    let mesh = "  pathNormalization: {normalization: MERGE_SLASHES}\n";
    let scene = Scene::with_resources(Gateway::builder().mesh(mesh), &policy, service::http);
    assert_eq!(ask(&scene, "/public/a"), 200);
    for path in SPELLINGS {
        ask(&scene, path);
    }
    for path in asked(&scene) {
        // Upstreams that decode letters twice, or cut parameters, are beyond a policy that lists what is bad: see
        // SECURITY.md.
        let seen = as_a_lenient_upstream(&path.replace(';', "_").replace("%25", "_"));
        assert!(seen != "/secret" && !seen.starts_with("/secret/"), "{path} is {seen}");
    }
}

#[test]
fn a_route_by_path_forwards_only_what_every_upstream_sees_below_it() {
    let route = "  - match: [{uri: {prefix: /public/}}]\n    route: [{destination: {host: api.example.com}}]\n";
    let routes = resources::virtual_service("public", HOST, route);
    let scene = Scene::with_resources(Gateway::builder(), &routes, service::http);
    assert_eq!(ask(&scene, "/public/a"), 200);
    for path in SPELLINGS {
        let status = ask(&scene, path);
        assert!(matches!(status, 200 | 400 | 404), "{path}: {status}");
    }
    for path in asked(&scene) {
        let seen = as_a_lenient_upstream(&path.replace(';', "_"));
        assert!(seen.starts_with("/public"), "{path} is {seen}");
    }
}

#[test]
fn the_case_of_a_path_matters_and_is_kept() {
    let policy = "  action: ALLOW\n  rules: [{to: [{operation: {paths: [/Public/*]}}]}]\n";
    let policy = resources::authorization_policy("public-only", policy);
    let scene = Scene::with_resources(Gateway::builder(), &policy, service::http);
    assert_eq!((ask(&scene, "/public/a"), ask(&scene, "/Public/A")), (403, 200));
    assert_eq!(asked(&scene), ["/Public/A"]);
}

#[test]
fn what_is_matched_is_what_is_forwarded() {
    let scene = Scene::http();
    for (sent, forwarded) in [
        ("/a/../b?x=/../y", "/b?x=/../y"),
        ("/%61%2Fb", "/a%2Fb"),
        ("/a//b", "/a//b"),
        ("/a;b=c", "/a;b=c"),
        ("http://api.example.com/x/./y", "/x/y"),
        ("http://api.example.com?q", "/?q"),
    ] {
        assert_eq!(ask(&scene, sent), 200, "{sent}");
        assert_eq!(asked(&scene).last().map(String::as_str), Some(forwarded), "{sent}");
    }
}

/// Numbers that look random and are the same in every run (the multiplier of Knuth's MMIX).
struct Dice(u64);

impl Dice {
    fn below(&mut self, count: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % count
    }

    fn of<'a>(&mut self, choices: &[&'a str]) -> &'a str {
        choices[self.below(choices.len())]
    }
}

/// A path of everything that is used to leave a prefix: it begins inside of it more often than not.
fn generated(dice: &mut Dice) -> String {
    const PIECES: [&str; 30] = [
        "/", "/", "/", "//", "/.", "/..", "/../", "/./", "a", "secret", "public", "..", ".", "%2e", "%2E%2e", ".%2e",
        "\\", "/..\\", "%2f", "%5C", "%252e", "%252f", "%25", "%32%65", "%c0%ae", "{", "%70", ";x", "%20", "%7e",
    ];
    let mut path = dice.of(&["/public/", "/public/", "/public", "/", "/%70ublic/"]).to_owned();
    for _ in 0..dice.below(8) {
        path += dice.of(&PIECES);
    }
    path + dice.of(&["", "", "?q=/../../secret", "/secret"])
}

/// RFC 3986 section 5.2.4 and nothing else; `\` is a slash to some.
fn resolved(path: &str) -> String {
    let path = path.split('?').next().unwrap_or_default().replace('\\', "/");
    let mut segments: Vec<&str> = Vec::new();
    for segment in path.split('/').skip(1) {
        match segment {
            "." => {}
            ".." => drop(segments.pop()),
            other => segments.push(other),
        }
    }
    format!("/{}", segments.join("/"))
}

#[test]
fn no_generated_path_leaves_its_prefix_in_any_mode_for_any_upstream() {
    let allow = "  action: ALLOW\n  rules: [{to: [{operation: {paths: [/public/*]}}]}]\n";
    let route = "  - match: [{uri: {prefix: /public/}}]\n    route: [{destination: {host: api.example.com}}]\n";
    let rules = [resources::authorization_policy("public", allow), resources::virtual_service("public", HOST, route)];
    let mut dice = Dice(5);
    for mode in ["NONE", "BASE", "MERGE_SLASHES", "DECODE_AND_MERGE_SLASHES"] {
        for rule in &rules {
            let mesh = format!("  pathNormalization: {{normalization: {mode}}}\n");
            let scene = Scene::with_resources(Gateway::builder().mesh(&mesh), rule, service::http);
            for _ in 0..300 {
                let path = generated(&mut dice);
                let request = format!("GET {path} HTTP/1.1\r\nHost: {HOST}\r\nConnection: close\r\n\r\n");
                let answers = statuses(&answers_to(&scene.gateway, request));
                assert!(matches!(answers[..], [200 | 400 | 403 | 404]), "{mode} {path}: {answers:?}");
            }
            assert_eq!(scene.gateway.log().wait_for_count(300).len(), 300);
            let asked = asked(&scene);
            assert!(asked.len() > 30, "{mode}: {} paths are too few to tell", asked.len());
            for path in asked {
                // Once decoded, twice decoded, and not at all.
                for seen in [resolved(&path), resolved(&decoded(&path)), as_a_lenient_upstream(&path.replace(';', "_"))]
                {
                    assert!(seen == "/public" || seen.starts_with("/public/"), "{mode}: {path} is {seen}");
                }
            }
        }
    }
}
