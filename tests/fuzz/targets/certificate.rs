//! See `portcullis::wire::fuzz::certificate`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| portcullis::wire::fuzz::certificate(bytes));
