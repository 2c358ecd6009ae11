//! See `portcullis::wire::fuzz::response_head`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| portcullis::wire::fuzz::response_head(bytes));
