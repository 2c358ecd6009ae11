//! See `portcullis::route::fuzz::names`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| portcullis::route::fuzz::names(bytes));
