//! What must hold for any bytes at all: nothing panics, whatever decodes encodes to the same bytes, and
//! decoding allocates in proportion to what it was given.

mod engine;
mod frame;
mod log;
mod peer;

use comity_crdts::automerge::transaction::Transactable;
use comity_crdts::automerge::{Automerge, ROOT};
use comity_crdts::hostile::{base, chunk};
use comity_crdts::limits::VALUE_BYTES_MAX;
use comity_crdts::{
    ChunkLimits, DecodeError, EditError, Nonce, RawChange, Reader, ReplicaId, SpaceId, Value, Writer,
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
    let decoded =
        bounded(bytes, || decode_run(&space, &lane, None, &start, &mut Dictionary::default(), bytes));
    match decoded {
        Ok(run) => {
            let mut dictionary = Dictionary::default();
            let again = encode_run(&lane, &run.owner, &start, &run.entries, &run.signature, &mut dictionary);
            assert_eq!(again, bytes);
        }
        Err(RunError::Decode(_) | RunError::Signature | RunError::Owner) => {}
    }
}
