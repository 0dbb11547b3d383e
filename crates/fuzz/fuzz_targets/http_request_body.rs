//! Fuzz target: the bodies of requests, in every dialect.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| forebay_fuzz::http_request_body(data));
