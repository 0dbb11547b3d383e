//! Fuzz target: the files of an event log.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| forebay_fuzz::event_log(data));
