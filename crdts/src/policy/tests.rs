//! What policies show, what they are called, and which ones the check refuses.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::*;
use crate::hlc::Hlc;
use crate::id::OriginId;
use crate::limits::{VALUE_BYTES_MAX, VALUE_DEPTH_MAX};
use crate::value::ValueError;

type Resolve = Box<dyn Fn(&[(Dot, Sibling)]) -> Option<Value> + Send + Sync>;

struct Scripted {
    name: &'static str,
    version: u32,
    resolve: Resolve,
}

impl ConflictPolicy for Scripted {
    fn name(&self) -> &str {
        self.name
    }

    fn version(&self) -> u32 {
        self.version
    }

    fn resolve(&self, siblings: &[(Dot, Sibling)]) -> Option<Value> {
        (self.resolve)(siblings)
    }
}

fn scripted(resolve: impl Fn(&[(Dot, Sibling)]) -> Option<Value> + Send + Sync + 'static) -> Scripted {
    Scripted { name: "scripted", version: 1, resolve: Box::new(resolve) }
}

fn registry(policy: Scripted) -> PolicyRegistry {
    let mut registry = PolicyRegistry::new();
    registry.register(Arc::new(policy)).unwrap();
    registry
}

fn dot(origin: u8) -> Dot {
    Dot { origin: OriginId([origin; 16]), seq: 1, index: 0 }
}

/// Siblings in dot order, each with its stamp.
fn register(siblings: &[(u64, i64)]) -> MvRegister {
    let mut register = MvRegister::new();
    for (position, (millis, value)) in siblings.iter().enumerate() {
        let sibling = Sibling { hlc: Hlc::new(*millis, 0), value: Value::from(*value) };
        register.set(dot(position as u8), sibling, &[]);
    }
    register
}

fn value(number: i64) -> RegisterView {
    RegisterView::Value(Value::from(number))
}

fn sum(siblings: &[(Dot, Sibling)]) -> Option<Value> {
    let number = |(_, sibling): &(Dot, Sibling)| match sibling.value {
        Value::I64(number) => Some(number),
        _ => None,
    };
    siblings.iter().map(number).sum::<Option<i64>>().map(Value::from)
}

fn custom(name: &str) -> Policy {
    Policy::parse(name).unwrap()
}

#[test]
fn the_least_the_greatest_and_the_first() {
    let register = register(&[(3, 5), (2, 9), (1, 7)]);
    assert_eq!(Policy::Min.view(&register), value(5));
    assert_eq!(Policy::Max.view(&register), value(9));
    assert_eq!(Policy::First.view(&register), value(7));
    assert_eq!(Policy::Lww.view(&register), value(5));
}

#[test]
fn of_equal_stamps_the_lesser_dot_was_first() {
    assert_eq!(Policy::First.view(&register(&[(1, 5), (1, 4)])), value(5));
}

#[test]
fn names_and_policies_correspond() {
    for name in ["lww", "siblings", "union", "min", "max", "first", "custom:a-z_0.9:0", "custom:m:4294967295"]
    {
        let policy = Policy::parse(name).unwrap();
        assert_eq!((policy.name(), policy.to_string()), (name.to_owned(), name.to_owned()));
    }
    let Policy::Custom(custom) = custom("custom:cart:7") else { panic!("it is custom") };
    assert_eq!((custom.name(), custom.version()), ("cart", 7));
    assert_eq!(Policy::default().name(), "lww");
}

#[test]
fn names_that_break_a_rule_are_refused_with_the_rule() {
    for name in ["", "LWW", "lww ", "custom", "custom:", "custom:name", "customer:a:1"] {
        assert_eq!(Policy::parse(name), Err(PolicyNameError::Unknown { input: name.to_owned() }));
    }
    let longest = "n".repeat(POLICY_NAME_BYTES_MAX);
    assert!(Policy::parse(&format!("custom:{longest}:1")).is_ok());
    for name in ["", "A", "a b", "\u{e4}", "a/b", &format!("{longest}n")] {
        let refused = PolicyNameError::Name { input: name.to_owned(), bytes_max: POLICY_NAME_BYTES_MAX };
        assert_eq!(Policy::parse(&format!("custom:{name}:1")), Err(refused.clone()));
        assert_eq!(CustomPolicy::new(name, 1), Err(refused));
    }
    for version in ["", "01", "+1", "-1", "1.0", "4294967296", "1:2"] {
        let refused = PolicyNameError::Version { input: version.to_owned() };
        assert_eq!(Policy::parse(&format!("custom:a:{version}")), Err(refused));
    }
}

#[test]
fn a_registered_policy_is_asked_about_siblings_in_dot_order_and_not_about_one() {
    let registry = registry(scripted(|siblings| {
        assert!(siblings.len() > 1 && siblings.is_sorted_by(|one, other| one.0 < other.0));
        sum(siblings)
    }));
    let policy = custom("custom:scripted:1");
    assert_eq!(policy.view_with(&register(&[(3, 5), (2, 9), (1, 7)]), &registry), value(21));
    assert_eq!(policy.view_with(&register(&[(1, 5)]), &registry), value(5));
    assert_eq!(policy.view_with(&MvRegister::new(), &registry), RegisterView::Absent);
}

#[test]
fn siblings_are_shown_where_the_policy_is_unknown_or_of_another_version_or_does_not_decide() {
    let register = register(&[(1, 5), (2, 6)]);
    let all = Policy::Siblings.view(&register);
    assert!(matches!(&all, RegisterView::Siblings(siblings) if siblings.len() == 2));
    let undecided = registry(scripted(|_| None));
    assert_eq!(custom("custom:scripted:1").view(&register), all);
    assert_eq!(custom("custom:scripted:2").view_with(&register, &undecided), all);
    assert_eq!(custom("custom:other:1").view_with(&register, &undecided), all);
    assert_eq!(custom("custom:scripted:1").view_with(&register, &undecided), all);
}

#[test]
fn a_policy_that_panics_shows_the_siblings() {
    let register = register(&[(1, 5), (2, 6)]);
    let registry = registry(scripted(|_| panic!("a policy that panics")));
    assert_eq!(custom("custom:scripted:1").view_with(&register, &registry), Policy::Siblings.view(&register));
}

#[test]
fn a_name_and_version_is_registered_once() {
    let mut registry = registry(scripted(sum));
    let duplicate = RegistryError::Duplicate { name: "scripted".into(), version: 1 };
    assert_eq!(registry.register(Arc::new(scripted(|_| None))), Err(duplicate));
    assert_eq!(registry.register(Arc::new(Scripted { version: 2, ..scripted(|_| None) })), Ok(()));
    let refused = registry.register(Arc::new(Scripted { name: "No", ..scripted(sum) }));
    assert!(matches!(refused, Err(RegistryError::Name(PolicyNameError::Name { .. }))));
    let names: Vec<_> = registry.iter().map(|custom| (custom.name(), custom.version())).collect();
    assert_eq!(names, [("scripted", 1), ("scripted", 2)]);
    assert!(registry.get(&CustomPolicy::new("scripted", 2).unwrap()).is_some());
    let register = register(&[(1, 5), (2, 6)]);
    assert_eq!(custom("custom:scripted:1").view_with(&register, &registry), value(11));
}

fn samples() -> Vec<Vec<Value>> {
    vec![vec![Value::from(1), Value::from(2)], vec![Value::from("a"), Value::Null, Value::from(3)]]
}

/// What the check says is broken, and with which sample.
fn broken(policy: &Scripted) -> Option<(usize, PolicyLaw)> {
    match check_policy(policy, &samples()) {
        Err(PolicyFault::Broken { sample, law, siblings }) => {
            assert_eq!(siblings.len(), samples()[sample].len());
            Some((sample, law))
        }
        Err(fault) => panic!("{fault}"),
        Ok(()) => None,
    }
}

#[test]
fn the_check_passes_pure_policies() {
    assert_eq!(broken(&scripted(sum)), None);
    assert_eq!(broken(&scripted(|siblings| siblings.last().map(|(_, sibling)| sibling.value.clone()))), None);
    assert_eq!(broken(&scripted(|_| None)), None);
}

#[test]
fn the_check_asks_about_every_order_of_values_and_stamps_in_valid_siblings() {
    assert_eq!(
        broken(&scripted(|siblings| {
            assert!(siblings.is_sorted_by(|one, other| one.0 < other.0));
            sum(siblings)
        })),
        None
    );
    for (first, rising) in [(1, true), (1, false), (2, true), (2, false)] {
        let found = scripted(move |siblings| {
            let (_, one) = &siblings[0];
            let (_, other) = &siblings[1];
            assert!(
                !(one.value == Value::from(first) && one.hlc != other.hlc && (one.hlc < other.hlc) == rising)
            );
            None
        });
        assert_eq!(broken(&found), Some((0, PolicyLaw::Answers)));
    }
}

#[test]
fn the_check_finds_a_policy_that_counts() {
    let asked = AtomicU64::new(0);
    let counting = scripted(move |_| Some(Value::from(asked.fetch_add(1, Ordering::Relaxed) as i64)));
    assert_eq!(broken(&counting), Some((0, PolicyLaw::Repeats)));
}

/// It answers alike as long as the question is the same, and otherwise by what it was asked first.
#[test]
fn the_check_finds_a_policy_that_remembers() {
    let first = std::sync::OnceLock::new();
    let remembering = scripted(move |siblings| {
        let second_sample = siblings.len() == 3;
        let was_asked = first.get().is_some();
        if second_sample {
            first.get_or_init(|| ());
            return None;
        }
        Some(Value::from(was_asked))
    });
    assert_eq!(broken(&remembering), Some((0, PolicyLaw::Repeats)));
}

#[test]
fn the_check_finds_a_policy_that_looks_at_addresses() {
    let first = AtomicU64::new(0);
    let asked = AtomicU64::new(0);
    let looking = scripted(move |siblings| {
        let address = siblings.as_ptr() as u64;
        if asked.fetch_add(1, Ordering::Relaxed) == 0 {
            first.store(address, Ordering::Relaxed);
        }
        Some(Value::from(first.load(Ordering::Relaxed) == address))
    });
    assert_eq!(broken(&looking), Some((0, PolicyLaw::LooksAtValuesOnly)));
}

#[test]
fn the_check_finds_panics_and_answers_that_no_register_could_hold() {
    assert_eq!(broken(&scripted(|_| panic!("a policy that panics"))), Some((0, PolicyLaw::Answers)));
    let number_only = scripted(|siblings| Some(sum(siblings).expect("numbers")));
    assert_eq!(broken(&number_only), Some((1, PolicyLaw::Answers)));
    let long = scripted(|_| Some(Value::Bytes(vec![0; VALUE_BYTES_MAX])));
    let too_large = ValueError::TooLarge { bytes: VALUE_BYTES_MAX + 4, bytes_max: VALUE_BYTES_MAX };
    assert_eq!(broken(&long), Some((0, PolicyLaw::Storable(too_large))));
    let deep =
        scripted(|_| Some((0..=VALUE_DEPTH_MAX).fold(Value::Null, |value, _| Value::List(vec![value]))));
    let too_deep = ValueError::TooDeep { depth_max: VALUE_DEPTH_MAX };
    assert_eq!(broken(&deep), Some((0, PolicyLaw::Storable(too_deep))));
}

#[test]
fn the_check_refuses_names_and_samples_that_prove_nothing() {
    let unnamed = Scripted { name: "", ..scripted(sum) };
    assert!(matches!(
        check_policy(&unnamed, &samples()),
        Err(PolicyFault::Name(PolicyNameError::Name { .. }))
    ));
    let fault = check_policy(&scripted(sum), &[samples().remove(0), vec![Value::Null]]);
    assert_eq!(fault, Err(PolicyFault::SampleTooSmall { sample: 1 }));
}
