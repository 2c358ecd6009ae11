//! See `portcullis::wire::fuzz::chunked_body`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| portcullis::wire::fuzz::chunked_body(bytes));
