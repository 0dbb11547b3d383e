//! Fuzz target: the files of a model folder.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| forebay_fuzz::model_files(data));
