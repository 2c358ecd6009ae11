//! See `portcullis::wire::fuzz::request_head`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| portcullis::wire::fuzz::request_head(bytes));
