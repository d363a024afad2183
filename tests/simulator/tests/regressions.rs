//! Plans that once broke a rule, as small as they could be made, and a few seeds.
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use comity_simulator::{Plan, Scale, plan, run};

#[test]
fn no_plan_that_once_failed_fails_again() {
    let directory = concat!(env!("CARGO_MANIFEST_DIR"), "/regressions");
    let mut files: Vec<_> = std::fs::read_dir(directory).unwrap().map(|file| file.unwrap().path()).collect();
    files.sort();
    assert!(!files.is_empty());
    for file in files {
        let plan: Plan = serde_json::from_str(&std::fs::read_to_string(&file).unwrap()).unwrap();
        let outcome = run(&plan);
        assert_eq!(outcome.violation, None, "{}", file.display());
        assert!(outcome.tally.starts > 0, "{}: something happens", file.display());
    }
}

/// A few in every run of the tests; `simulate seeds` runs as many as wanted.
#[test]
fn seeds_break_no_rule_and_repeat_themselves() {
    for seed in 0..12 {
        let plan = plan(seed, Scale { operations_max: 300, ..Scale::default() });
        let outcome = run(&plan);
        assert_eq!(outcome.violation, None, "seed {seed}");
        assert_eq!(run(&plan), outcome, "O18: seed {seed}");
    }
}
