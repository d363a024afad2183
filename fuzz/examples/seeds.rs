//! Writes the first inputs of every corpus: one of each thing, as the code encodes it.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use comity_crdts::automerge::{Automerge, ROOT, ReadDoc, transaction::Transactable};
use comity_crdts::{Dot, Frontier, Hlc, Kind, ObjectAddress, Value};
use comity_engine::Token;
use comity_engine::wire::{
    Body, ChangeSet, Data, Denied, Dictionary, Genesis, Group, Have, Hello, Join, LaneEntry, LaneRef,
    LaneTip, Message, Op, Open, OpenLane, Subscribe, Unsubscribe, encode_run, sign,
};

fn main() {
    let value = Value::Map(BTreeMap::from([
        (
            "list".to_owned(),
            Value::List(vec![Value::Null, Value::Bool(true), Value::I64(-5), Value::F64(0.5)]),
        ),
        ("bytes".to_owned(), Value::Bytes(vec![1, 2, 3])),
        ("text".to_owned(), Value::from("Grüße")),
    ]));
    keep("value", "map", &value.to_bytes());
    let run = run(&value);
    keep("run", "four-kinds", &run);
    for (name, message) in messages(&run) {
        keep("message", name, &message.encode());
    }
    keep("raw_change", "map-and-text", &raw_change());
    let (_, space, owner) = comity_fuzz::owner();
    let frontier: Frontier = [(owner.lane(&space), 258)].into_iter().collect();
    keep("token", "one-lane", &Token { space, frontier }.to_bytes());
    let addresses = vec!["127.0.0.1:4433".parse().expect("an address")];
    let ticket = comity::Ticket { replica: owner.replica, addresses, space, secret: Some([5; 16]) };
    keep("ticket", "invitation", ticket.to_string().as_bytes());
    let mut inputs = vec![0, 1, 2, 3, 8, 1, 2];
    for (_, message) in messages(&run) {
        let frame = message.encode();
        if let Ok(length) = u8::try_from(frame.len()) {
            inputs.extend([4, length]);
            inputs.extend(frame);
        }
    }
    keep("engine", "every-message", &inputs);
}

fn keep(target: &str, name: &str, bytes: &[u8]) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target);
    fs::create_dir_all(&folder).expect("the folder can be made");
    fs::write(folder.join(name), bytes).expect("the file can be written");
}

fn raw_change() -> Vec<u8> {
    let mut document = Automerge::new().with_actor([1_u8; 16].into());
    let mut tx = document.transaction();
    tx.put(ROOT, "title", "Milk").expect("the root is a map");
    let (hash, _) = tx.commit();
    let hash = hash.expect("something was changed");
    document.get_change_by_hash(&hash).expect("it was just made").raw_bytes().to_vec()
}

fn run(value: &Value) -> Vec<u8> {
    let (key, space, owner) = comity_fuzz::owner();
    let lane = owner.lane(&space);
    let address = |kind| ObjectAddress::new(kind, "c", "k").expect("a short name");
    let observed = vec![Dot { origin: lane, seq: 1, index: 0 }];
    let hlc = Hlc::new(1_700_000_000_000, 1);
    let groups = vec![
        Group { address: address(Kind::Counter), ops: vec![Op::CounterAdd(5)] },
        Group { address: address(Kind::Set), ops: vec![Op::SetAdd { element: value.clone(), observed }] },
        Group {
            address: address(Kind::Register),
            ops: vec![Op::RegisterSet { value: value.clone(), hlc, observed: Vec::new() }],
        },
        Group {
            address: address(Kind::Document),
            ops: vec![Op::DocumentChange(
                comity_crdts::RawChange::parse(&raw_change()).expect("a sound change"),
            )],
        },
    ];
    let start = LaneTip::start(&space, &lane);
    let (origin, prev, context) = (lane, start.change_hash, Frontier::new());
    let change = ChangeSet { origin, seq: 1, prev, context: context.clone(), hlc, groups };
    let entry = LaneEntry { admitted: context, at: hlc, body: Body::Change(change) };
    let after = start.after(&space, &entry);
    let signature = sign(&key, &space, &lane, after.lsn, &after.hash);
    encode_run(&lane, &owner, &start, &[(entry, after)], &signature, &mut Dictionary::default())
}

fn messages(run: &[u8]) -> Vec<(&'static str, Message<'_>)> {
    let (_, space, owner) = comity_fuzz::owner();
    let lane = owner.lane(&space);
    let open_lane = OpenLane { lane, lsn: 3, hash: [1; 8], subscription: Some(0) };
    let (creator, nonce, name) = (owner.replica, owner.nonce, "notes".to_owned());
    vec![
        ("hello", Message::Hello(Hello { version_min: 1, version_max: 1, wall_ms: 1_700_000_000_000 })),
        ("join", Message::Join(Join { space, secret: [5; 16] })),
        ("open", Message::Open(Open { space_ref: 0, space, needs_genesis: true, lanes: vec![open_lane] })),
        ("genesis", Message::Genesis(Genesis { space, creator, nonce, name })),
        ("denied", Message::Denied(Denied { space })),
        ("subscribe", Message::Subscribe(Subscribe { space, subscription: 0, lane, from: 1, hash: [0; 8] })),
        ("unsubscribe", Message::Unsubscribe(Unsubscribe { subscription: 0, refused: false })),
        (
            "have",
            Message::Have(Have {
                space_ref: 0,
                lanes: vec![(LaneRef::Known(0), 9), (LaneRef::New(lane), 1)],
            }),
        ),
        ("data", Message::Data(Data { subscription: 0, more: false, awaited: true, first: 1, bytes: run })),
    ]
}
