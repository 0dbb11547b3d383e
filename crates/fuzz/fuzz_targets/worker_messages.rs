//! Fuzz target: what host, worker and device monitor say to each other.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| forebay_fuzz::worker_messages(data));
