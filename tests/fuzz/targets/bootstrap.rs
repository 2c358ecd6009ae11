//! See `portcullis::config::fuzz::bootstrap`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| portcullis::config::fuzz::bootstrap(bytes));
