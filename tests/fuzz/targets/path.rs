//! See `portcullis::route::fuzz::path`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| portcullis::route::fuzz::path(bytes));
