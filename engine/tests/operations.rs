//! Operations of every sort on the wire: one encoding each, which decodes to the same; whatever else decodes encodes
//! to the bytes it came from, and nothing claims more than it has.
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use comity_crdts::limits::{CONTEXT_DOTS_MAX, KEY_BYTES_MAX, LANES_MAX, MAP_DEPTH_MAX};
use comity_crdts::{
    Dot, Frontier, Hlc, Kind, LaneId, Nonce, ObjectAddress, OriginId, Reader, ReplicaId, ResetColumn,
    SpaceId, Value, Writer,
};
use comity_engine::Role;
use comity_engine::wire::{
    Body, ChangeSet, Dictionary, Group, LaneEntry, LaneOwner, LaneTip, Op, decode_entry, encode_entry,
};
use proptest::collection::{btree_map, btree_set, vec};
use proptest::prelude::*;
use proptest::sample::Index;

const SPACE: SpaceId = SpaceId([9; 16]);

fn lane() -> LaneId {
    LaneOwner { replica: ReplicaId([1; 32]), nonce: Nonce([2; 16]) }.lane(&SPACE)
}

fn start() -> LaneTip {
    LaneTip::start(&SPACE, &lane())
}

fn origins() -> impl Strategy<Value = OriginId> {
    (0..5_u8).prop_map(|name| OriginId([name; 16]))
}

fn dots() -> impl Strategy<Value = Vec<Dot>> {
    let dot =
        (origins(), any::<u64>(), any::<u16>()).prop_map(|(origin, seq, index)| Dot { origin, seq, index });
    btree_set(dot, 0..4).prop_map(|dots| dots.into_iter().collect())
}

fn values() -> impl Strategy<Value = Value> {
    prop_oneof![
        Just(Value::Null),
        any::<i64>().prop_map(Value::I64),
        "[a-z]{0,8}".prop_map(Value::Text),
        vec(any::<u8>(), 0..20).prop_map(Value::Bytes),
    ]
}

/// When the change sets are made.
fn at() -> Hlc {
    Hlc::new(1_700_000_000_000, 3)
}

/// Operations that may be in a map.
fn nestable() -> impl Strategy<Value = Op> {
    let columns = btree_map(origins(), (any::<u64>(), any::<u16>(), any::<i128>()), 0..4);
    let column = |(origin, (seq, index, sum))| ResetColumn { origin, through: (seq, index), sum };
    let observed = btree_map(origins(), 1..=u64::MAX, 0..4);
    prop_oneof![
        any::<i64>().prop_map(Op::CounterAdd),
        columns
            .prop_map(move |columns| Op::CounterReset { columns: columns.into_iter().map(column).collect() }),
        (values(), dots()).prop_map(|(element, observed)| Op::SetAdd { element, observed }),
        (values(), dots()).prop_map(|(element, observed)| Op::SetRemove { element, observed }),
        observed.prop_map(|observed| Op::SetClear { observed: observed.into_iter().collect() }),
        (values(), any::<u32>(), dots()).prop_map(|(value, ahead, observed)| {
            Op::RegisterSet { value, hlc: Hlc::from_bits(at().bits() + u64::from(ahead)), observed }
        }),
        dots().prop_map(|observed| Op::RegisterReset { observed }),
        dots().prop_map(|observed| Op::FlagEnable { observed }),
        dots().prop_map(|observed| Op::FlagDisable { observed }),
    ]
}

fn operations() -> impl Strategy<Value = Op> {
    let path = vec("[a-z]{1,5}", 1..=MAP_DEPTH_MAX);
    let heads = btree_set(any::<[u8; 32]>(), 0..4);
    let nested = (path, nestable()).prop_map(|(path, op)| Op::Nested { path, op: Box::new(op) });
    prop_oneof![
        4 => nestable(),
        3 => nested,
        1 => heads.prop_map(|heads| Op::DocumentRemove { heads: heads.into_iter().collect() }),
        1 => any::<[u8; 32]>()
            .prop_map(|replica| Op::Grant { replica: ReplicaId(replica), role: Role::Writer }),
        1 => Just(Op::DwFlagEnable),
        1 => Just(Op::DwFlagDisable),
        1 => values().prop_map(|element| Op::RwSetAdd { element }),
        1 => values().prop_map(|element| Op::RwSetRemove { element }),
        1 => any::<u64>().prop_map(Op::BoundedIncrement),
        1 => any::<u64>().prop_map(Op::BoundedDecrement),
        1 => (origins(), any::<u64>()).prop_map(|(to, amount)| Op::BoundedTransfer { to, amount }),
    ]
}

fn entry(ops: Vec<Op>) -> LaneEntry {
    let group = |(index, op): (usize, Op)| {
        let address = match op.kind() {
            Kind::Members => ObjectAddress::members(),
            kind => ObjectAddress::new(kind, "c", &format!("k{index}")).unwrap(),
        };
        Group { address, ops: vec![op] }
    };
    let mut groups: Vec<Group> = ops.into_iter().enumerate().map(group).collect();
    let mut members = 0;
    groups.retain(|group| {
        members += usize::from(group.address.kind() == Kind::Members);
        group.address.kind() != Kind::Members || members == 1
    });
    let (origin, prev, context) = (lane(), start().change_hash, Frontier::new());
    let change =
        ChangeSet { origin, seq: 1, prev, context: context.clone(), hlc: at(), operation: None, groups };
    LaneEntry { admitted: context, at: at(), body: Body::Change(change) }
}

fn encode(entry: &LaneEntry) -> Vec<u8> {
    let mut out = Writer::new();
    encode_entry(&lane(), &start(), entry, &mut Dictionary::default(), &mut out);
    out.finish()
}

fn decode(bytes: &[u8]) -> Option<LaneEntry> {
    let mut reader = Reader::new(bytes);
    let entry = decode_entry(&lane(), &start(), &mut Dictionary::default(), &mut reader).ok()?;
    reader.finish("entry").ok()?;
    Some(entry)
}

/// Whatever decodes has one encoding, and a hash.
fn assert_canonical(bytes: &[u8]) {
    if let Some(entry) = decode(bytes) {
        assert_eq!(encode(&entry), bytes);
        start().after(&SPACE, &entry);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1_024, ..ProptestConfig::default() })]
    #[test]
    fn operations_come_back_as_they_were_and_spoiled_ones_are_canonical_or_refused(
        ops in vec(operations(), 1..5),
        spoils in vec((any::<Index>(), any::<u8>()), 1..12),
    ) {
        let entry = entry(ops);
        let bytes = encode(&entry);
        prop_assert_eq!(decode(&bytes), Some(entry));
        for (index, byte) in spoils {
            let place = index.index(bytes.len());
            assert_canonical(&bytes[..place]);
            let mut spoiled = bytes.clone();
            spoiled[place] = byte;
            assert_canonical(&spoiled);
            spoiled[place] = bytes[place] ^ (1 << (byte % 8));
            assert_canonical(&spoiled);
            spoiled.insert(place, byte);
            assert_canonical(&spoiled);
            spoiled.remove(index.index(spoiled.len()));
            assert_canonical(&spoiled);
        }
    }
}

proptest! {
    #[test]
    fn different_operations_have_different_hashes(one in operations(), other in operations()) {
        let hash = |op: &Op| start().after(&SPACE, &entry(vec![op.clone()])).hash;
        prop_assert_eq!(hash(&one) == hash(&other), one == other);
    }
}

/// An entry with one operation is refused.
fn assert_refused(op: Op) {
    let name = format!("{op:?}").chars().take(80).collect::<String>();
    assert_eq!(decode(&encode(&entry(vec![op]))), None, "{name}");
}

#[test]
fn lists_out_of_order_or_too_long_are_refused() {
    let dot = |seq| Dot { origin: lane(), seq, index: 0 };
    let column = |name: u8, seq| ResetColumn { origin: OriginId([name; 16]), through: (seq, 0), sum: 1 };
    for observed in [vec![dot(2), dot(1)], vec![dot(1), dot(1)]] {
        assert_refused(Op::FlagEnable { observed: observed.clone() });
        assert_refused(Op::FlagDisable { observed: observed.clone() });
        assert_refused(Op::RegisterReset { observed });
    }
    assert_refused(Op::CounterReset { columns: vec![column(2, 1), column(1, 1)] });
    assert_refused(Op::CounterReset { columns: vec![column(1, 1), column(1, 2)] });
    assert_refused(Op::DocumentRemove { heads: vec![[2; 32], [1; 32]] });
    assert_refused(Op::DocumentRemove { heads: vec![[2; 32], [2; 32]] });
    let many = |count: usize| (0..count as u64).map(move |n| OriginId(u128::from(n + 1).to_be_bytes()));
    let observed = many(LANES_MAX + 1).map(|origin| (origin, 1)).collect();
    assert_refused(Op::SetClear { observed });
    let columns = many(LANES_MAX + 1).map(|origin| ResetColumn { origin, through: (1, 0), sum: 1 });
    assert_refused(Op::CounterReset { columns: columns.collect() });
    assert_refused(Op::FlagEnable { observed: (0..=CONTEXT_DOTS_MAX as u64).map(dot).collect() });
}

#[test]
fn paths_that_are_none_and_operations_that_do_not_nest_are_refused() {
    let nested = |path: &[&str], op: Op| {
        let path = path.iter().map(|key| (*key).to_owned()).collect();
        Op::Nested { path, op: Box::new(op) }
    };
    let count = || Op::CounterAdd(1);
    let long = "k".repeat(KEY_BYTES_MAX + 1);
    for path in [&[][..], &[""], &["a", ""], &["a\0b"], &["a"; MAP_DEPTH_MAX + 1], &[&long]] {
        assert_refused(nested(path, count()));
    }
    assert_refused(nested(&["a"], Op::DwFlagEnable));
    assert_refused(nested(&["a"], Op::RwSetAdd { element: Value::Null }));
    assert_refused(nested(&["a"], Op::BoundedIncrement(1)));
    assert_refused(nested(&["a"], Op::DocumentRemove { heads: Vec::new() }));
    assert_refused(nested(&["a"], Op::Grant { replica: ReplicaId([1; 32]), role: Role::Admin }));
    assert_refused(nested(&["a"], nested(&["b"], count())));
    let longest = "k".repeat(KEY_BYTES_MAX);
    let entry = entry(vec![nested(&[longest.as_str(); MAP_DEPTH_MAX], count())]);
    assert_eq!(decode(&encode(&entry)), Some(entry));
}

#[test]
fn operations_of_another_kind_than_their_object_are_refused() {
    let kinds = Kind::APPLICATION.into_iter().chain([Kind::Settings]);
    for kind in kinds {
        let ops = [Op::CounterAdd(1), Op::DwFlagEnable, Op::RegisterReset { observed: Vec::new() }];
        for op in ops.into_iter().filter(|op| !op.is_for(kind)) {
            let mut entry = entry(vec![Op::CounterAdd(1)]);
            let address = ObjectAddress::new(kind, "c", "k").unwrap();
            if let Body::Change(change) = &mut entry.body {
                change.groups = vec![Group { address, ops: vec![op.clone()] }];
            }
            assert_eq!(decode(&encode(&entry)), None, "{op:?} on a {kind}");
        }
    }
}
