//! See `portcullis::wire::fuzz::client_hello`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| portcullis::wire::fuzz::client_hello(bytes));
