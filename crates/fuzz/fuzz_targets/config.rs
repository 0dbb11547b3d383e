//! Fuzz target: configuration files and environment variables.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| forebay_fuzz::config(data));
