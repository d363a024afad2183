//! What must hold for any bytes at all: nothing panics, whatever decodes encodes to the same bytes, and
//! decoding allocates in proportion to what it was given.

mod engine;
mod frame;
mod log;
mod peer;

use std::sync::OnceLock;

use comity_crdts::automerge::transaction::{CommitOptions, Transactable};
use comity_crdts::automerge::{Automerge, ObjType, ROOT};
use comity_crdts::hostile::{base, chunk};
use comity_crdts::limits::VALUE_BYTES_MAX;
use comity_crdts::{
    ChunkLimits, DecodeError, EditError, Expected, Nonce, RawChange, Reader, RecentChanges, ReplicaId,
    SpaceId, Value, Writer,
};
use comity_engine::Token;
use comity_engine::wire::{Dictionary, LaneOwner, LaneTip, Message, RunError, decode_run, encode_run};
use ed25519_dalek::SigningKey;
use peak_alloc::PeakAlloc;

pub use engine::engine;
pub use frame::frame;
pub use log::log;

#[global_allocator]
static ALLOCATIONS: PeakAlloc = PeakAlloc;

/// Bytes of memory that decoding may use beyond a multiple of its input.
const ALLOCATION_BASE: usize = 64 * 1024;
/// A decoded thing is a tree of values of up to some hundred bytes, each from at least one byte of input.
const ALLOCATION_FACTOR: usize = 512;

/// Beyond that, what a run may use whose entries are packed: a few bytes are as many as a run may have, and
/// those are a tree of values.
const PACKED_RUN_BYTES: usize = 128 * 1024 * 1024;
/// The flag of such a run.
const PACKED: u8 = 1 << 2;

/// Runs a decoder and holds it to the allocation bound.
fn bounded<R>(bytes: &[u8], decode: impl FnOnce() -> R) -> R {
    within(ALLOCATION_BASE + ALLOCATION_FACTOR * bytes.len(), decode)
}

/// Runs something and holds it to so many bytes of memory at once.
fn within<R>(allowed: usize, run: impl FnOnce() -> R) -> R {
    ALLOCATIONS.reset_peak_usage();
    let before = ALLOCATIONS.peak_usage();
    let result = run();
    let used = ALLOCATIONS.peak_usage() - before;
    assert!(used <= allowed, "{used} bytes of memory were used where {allowed} suffice");
    result
}

/// Takes an input apart into choices; what is not there any more is zero.
struct Choices<'a>(&'a [u8]);

impl<'a> Choices<'a> {
    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn byte(&mut self) -> u8 {
        let Some((first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        *first
    }

    /// Two bytes, the higher first.
    fn short(&mut self) -> usize {
        usize::from(self.byte()) << 8 | usize::from(self.byte())
    }

    /// So many bytes, or all that are left.
    fn bytes(&mut self, count: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at(count.min(self.0.len()));
        self.0 = rest;
        taken
    }
}

/// A frame between two replicas.
pub fn message(bytes: &[u8]) {
    if let Ok(message) = bounded(bytes, || Message::decode(bytes)) {
        match message {
            Message::Skippable(_) => {}
            message => assert_eq!(message.encode(), bytes),
        }
    }
}

/// A value.
pub fn value(bytes: &[u8]) {
    let decode = || -> Result<Value, DecodeError> {
        let mut reader = Reader::new(bytes);
        let value = Value::decode(&mut reader, VALUE_BYTES_MAX)?;
        reader.finish("value")?;
        Ok(value)
    };
    if let Ok(value) = bounded(bytes, decode) {
        let mut out = Writer::new();
        value.encode(&mut out);
        assert_eq!(out.as_slice(), bytes);
        assert!(value.check(VALUE_BYTES_MAX).is_ok(), "what decodes may be written");
        let _ = value.to_string();
    }
}

/// An Automerge change, before and inside a document.
pub fn raw_change(bytes: &[u8]) {
    let Ok(change) = RawChange::parse(bytes) else { return };
    assert_eq!(change.bytes(), bytes);
    let mut document = comity_crdts::Document::new([1; 16]);
    let outcome = document.apply(&[change]).expect("a document that was whole stays whole");
    assert_eq!(outcome.applied.len() + outcome.refused.len() + outcome.known.len(), 1);
    assert_eq!(document.change_count(), outcome.applied.len());
}

/// What the `elided` target takes to be known, and its actor: a document in which somebody types.
pub fn recent() -> (RecentChanges, Vec<RawChange>) {
    let changes = typed();
    let mut recent = RecentChanges::default();
    changes.iter().take(KNOWN_CHANGES).for_each(|change| recent.note(change));
    (recent, changes)
}

/// Of the changes that are typed, those that the target takes to be known.
const KNOWN_CHANGES: usize = 5;

/// As whom the lane's owner types, and when.
pub fn expected(recent: &RecentChanges) -> Expected<'_> {
    Expected { recent, actor: &[1; 16], time_seconds: 1_700_000_000 }
}

fn typed() -> Vec<RawChange> {
    let mut document = Automerge::new().with_actor([1_u8; 16].into());
    let mut text = None;
    for (at, erased, typed) in [
        (0, 0, "a"),
        (1, 0, "b"),
        (1, 1, ""),
        (1, 0, "words"),
        (2, 1, "x"),
        (3, 0, "c"),
        (4, 0, "ü"),
        (2, 3, ""),
    ] {
        let mut tx = document.transaction();
        let text =
            text.get_or_insert_with(|| tx.put_object(ROOT, "t", ObjType::Text).expect("the root is a map"));
        tx.splice_text(&*text, at, erased, typed).expect("the place is in the text");
        tx.commit_with(CommitOptions::default().with_time(1_700_000_000));
    }
    let changes = document.get_changes(&[]);
    changes.iter().map(|change| RawChange::parse(change.raw_bytes()).expect("a sound change")).collect()
}

/// What a run says of an Automerge change after others.
pub fn elided(bytes: &[u8]) {
    static RECENT: OnceLock<RecentChanges> = OnceLock::new();
    let expected = expected(RECENT.get_or_init(|| recent().0));
    let mut reader = Reader::new(bytes);
    let decoded = bounded(bytes, || RawChange::decode_elided(&expected, &mut reader));
    if let Ok(change) = decoded {
        let mut out = Writer::new();
        change.encode_elided(&expected, &mut out);
        assert_eq!(out.as_slice(), &bytes[..bytes.len() - reader.remaining()]);
        assert_eq!(RawChange::parse(change.bytes()), Ok(change));
    }
}

/// What a client may supply here: little, so that a run is short.
const CHUNK_LIMITS: ChunkLimits = ChunkLimits {
    bytes: 1024 * 1024,
    inflated_bytes: 1024 * 1024,
    changes: 4_096,
    ops: 16_384,
    memory_bytes: 8 * 1024 * 1024,
};

/// Chunks that a client supplies: as they are, or as one of the type that the first byte names, with the
/// checksum that belongs to it. What they hold is then applied to a document.
pub fn chunks(bytes: &[u8]) {
    let Some((first, rest)) = bytes.split_first() else { return };
    let framed = if *first < 4 { chunk(*first, rest) } else { rest.to_vec() };
    let allowed = CHUNK_LIMITS.memory_bytes + 4 * CHUNK_LIMITS.inflated_bytes;
    let allowed = allowed as usize + ALLOCATION_BASE + ALLOCATION_FACTOR * bytes.len();
    let Ok(changes) = within(allowed, || RawChange::read_chunks(&framed, &CHUNK_LIMITS)) else { return };
    for change in &changes {
        assert_eq!(RawChange::parse(change.bytes()).as_ref(), Ok(change));
    }
    let base: Vec<_> =
        base().iter().map(|chunk| RawChange::parse(chunk).expect("the base is sound")).collect();
    let mut document = comity_crdts::Document::new([1; 16]);
    document.apply(&base).expect("a new document takes changes");
    let outcome = document.apply(&changes).expect("a document that was whole stays whole");
    assert_eq!(outcome.applied.len() + outcome.refused.len() + outcome.known.len(), changes.len());
    // Unless operations are numbered up to the last number there is, others go on editing.
    let edited = document.edit(0, |tx| tx.put(ROOT, "n", 2));
    assert!(matches!(edited, Ok(_) | Err(EditError::TooLarge { .. })), "{edited:?}");
    let loaded = Automerge::load(&document.automerge().save()).expect("what was taken loads");
    assert_eq!(loaded.get_heads(), document.automerge().get_heads());
}

/// A ticket.
pub fn ticket(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    if let Ok(ticket) = bounded(bytes, || text.parse::<comity::Ticket>()) {
        assert_eq!(ticket.to_string().parse(), Ok(ticket));
    }
}

/// A token.
pub fn token(bytes: &[u8]) {
    if let Ok(token) = bounded(bytes, || Token::from_bytes(bytes)) {
        assert_eq!(token.to_bytes(), bytes);
    }
}

/// The owner whose lane the run target pretends to receive.
pub fn owner() -> (SigningKey, SpaceId, LaneOwner) {
    let key = SigningKey::from_bytes(&[7; 32]);
    let replica = ReplicaId(key.verifying_key().to_bytes());
    (key, SpaceId([9; 16]), LaneOwner { replica, nonce: Nonce([3; 16]) })
}

/// A run of lane entries at the start of a lane.
pub fn run(bytes: &[u8]) {
    let (_, space, owner) = owner();
    let lane = owner.lane(&space);
    let start = LaneTip::start(&space, &lane);
    let is_packed = |run: &[u8]| run.first().is_some_and(|flags| flags & PACKED != 0);
    let packed = if is_packed(bytes) { PACKED_RUN_BYTES } else { 0 };
    let allowed = ALLOCATION_BASE + ALLOCATION_FACTOR * bytes.len() + packed;
    let decode = |bytes: &[u8]| decode_run(&space, &lane, None, &start, &mut Dictionary::default(), bytes);
    match within(allowed, || decode(bytes)) {
        Ok(run) => {
            let mut dictionary = Dictionary::default();
            let again = encode_run(&lane, &run.owner, &start, &run.entries, &run.proof, &mut dictionary);
            // Whether and how it is packed is the sender's choice.
            if is_packed(bytes) || is_packed(&again) {
                let again = decode(&again).expect("what is encoded decodes");
                assert_eq!(again.entries, run.entries);
            } else {
                assert_eq!(again, bytes);
            }
        }
        Err(RunError::Decode(_) | RunError::Signature | RunError::Owner) => {}
    }
}
