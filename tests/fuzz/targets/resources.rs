//! See `portcullis::config::fuzz::resources`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| portcullis::config::fuzz::resources(bytes));
