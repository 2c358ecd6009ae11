//! See `portcullis::wire::http2::fuzz::frames`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| portcullis::wire::http2::fuzz::frames(bytes));
