#![no_main]
use std::sync::Once;

/// The fuzzer's own hook ends the process at any panic, also at one that the document's guard catches.
static QUIET: Once = Once::new();

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    QUIET.call_once(|| std::panic::set_hook(Box::new(|_| {})));
    comity_fuzz::chunks(bytes);
});
