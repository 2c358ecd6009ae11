//! Every seed of the fuzz targets, run once: among them are the inputs that once broke a promise.

use std::fs;
use std::path::Path;

use portcullis::{config, route, wire};

/// Runs a target over its seeds.
fn replay(target: &str, run: fn(&[u8])) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz/seeds").join(target);
    let mut count = 0;
    for entry in fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display())) {
        let path = entry.expect("the folder is readable").path();
        let bytes = fs::read(&path).expect("a seed is a file");
        println!("{}", path.display());
        run(&bytes);
        count += 1;
    }
    assert!(count > 0, "{target} has no seeds");
}

#[test]
fn seeds_of_the_wire_formats_keep_the_promises() {
    replay("client_hello", wire::fuzz::client_hello);
    replay("request_head", wire::fuzz::request_head);
    replay("response_head", wire::fuzz::response_head);
    replay("chunked_body", wire::fuzz::chunked_body);
    replay("certificate", wire::fuzz::certificate);
    replay("http2_frames", wire::http2::fuzz::frames);
    replay("http2_message", wire::http2::fuzz::message);
}

#[test]
fn seeds_of_names_and_paths_keep_the_promises() {
    replay("names", route::fuzz::names);
    replay("path", route::fuzz::path);
}

#[test]
fn seeds_of_configurations_keep_the_promises() {
    replay("resources", config::fuzz::resources);
    replay("bootstrap", config::fuzz::bootstrap);
}
