//! Every kept input through its check, on a stable compiler; and some noise, so that a check that always
//! fails shows without a corpus.

use std::fs;
use std::path::Path;

type Check = fn(&[u8]);

const CHECKS: [(&str, Check); 11] = [
    ("frame", comity_fuzz::frame),
    ("log", comity_fuzz::log),
    ("message", comity_fuzz::message),
    ("run", comity_fuzz::run),
    ("value", comity_fuzz::value),
    ("raw_change", comity_fuzz::raw_change),
    ("elided", comity_fuzz::elided),
    ("chunks", comity_fuzz::chunks),
    ("ticket", comity_fuzz::ticket),
    ("token", comity_fuzz::token),
    ("engine", comity_fuzz::engine),
];

/// One test, because memory is measured for the whole process.
#[test]
fn kept_inputs_and_noise_pass_every_check() {
    kept();
    noise();
}

fn kept() {
    for (name, check) in CHECKS {
        let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(name);
        let mut inputs: Vec<_> = fs::read_dir(&corpus)
            .unwrap_or_else(|error| panic!("{}: {error}", corpus.display()))
            .map(|entry| entry.expect("the directory can be read").path())
            .collect();
        inputs.sort();
        assert!(!inputs.is_empty(), "{name} has no kept inputs");
        for input in inputs {
            check(&fs::read(&input).expect("the file can be read"));
        }
    }
}

fn noise() {
    let mut state = 1_u64;
    for (_, check) in CHECKS {
        for length in 0..200 {
            let noise: Vec<u8> = (0..length)
                .map(|_| {
                    state =
                        state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                    (state >> 33) as u8
                })
                .collect();
            check(&noise);
        }
    }
}
