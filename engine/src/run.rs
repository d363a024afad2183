//! Runs: consecutive entries of a lane with a proof that the owner wrote them, so that a receiver can check all
//! of them before it keeps any.

use comity_crdts::limits::CHANGE_SET_BYTES_MAX;
use comity_crdts::{DecodeError, LaneId, Nonce, Reader, ReplicaId, SpaceId, Writer, canary};

use crate::apply::actor;
use crate::change::{LaneEntry, LaneOwner, LaneTip, decode_entry, encode_entry, encode_stored};
use crate::dictionary::Dictionary;
use crate::hash::Hash;
use crate::limits::RUN_BYTES_MAX;
use crate::pack::{pack, read_packed, write_packed};
use crate::proof::Proof;

/// Entries in one run.
pub(crate) const RUN_ENTRIES_MAX: usize = 4_096;

/// What a run of one entry has.
const RUN_BYTES: usize = 256;

const OWNER: u8 = 1;
const FRESH_DICTIONARY: u8 = 1 << 1;
const PACKED: u8 = 1 << 2;
const LINKED: u8 = 1 << 3;

/// A run that was decoded and whose proof was checked.
#[derive(Debug)]
pub struct CheckedRun {
    /// Named by the run that starts the lane.
    pub owner: LaneOwner,
    /// Each entry with where the lane stands after it.
    pub entries: Vec<(LaneEntry, LaneTip)>,
    /// What proves the lane up to the last one.
    pub proof: Proof,
}

/// What a receiver keeps of an entry of a run besides the entry.
#[derive(Debug)]
pub(crate) struct Received {
    /// The entry in its stored form.
    pub(crate) stored: Vec<u8>,
    /// Its link in the lane's chain.
    pub(crate) link: Hash,
}

/// Why a run was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RunError {
    /// The bytes are not a run.
    #[error(transparent)]
    Decode(#[from] DecodeError),
    /// The proof at its end is not the lane owner's for these entries in this space.
    #[error("the signature at the end of the run does not verify")]
    Signature,
    /// The owner named at the start of the lane does not hash to the lane's id.
    #[error("the run names an owner that is not the lane's")]
    Owner,
}

/// Encodes `entries`, which follow `before`, and the proof of the last of them.
pub fn encode_run(
    lane: &LaneId,
    owner: &LaneOwner,
    before: &LaneTip,
    entries: &[(LaneEntry, LaneTip)],
    proof: &Proof,
    dictionary: &mut Dictionary,
) -> Vec<u8> {
    let fresh = dictionary.is_full();
    if fresh {
        *dictionary = Dictionary::default();
    }
    dictionary.elide(|| actor(lane, &owner.nonce));
    let mut written = Writer::with_room(RUN_BYTES);
    written.varint(entries.len() as u64);
    let mut tip = before;
    for (entry, after) in entries {
        encode_entry(lane, tip, entry, dictionary, &mut written);
        tip = after;
    }
    let (starts, packed) = (before.lsn == 0, pack(written.as_slice()));
    let bytes = packed.as_ref().map_or(written.len(), Vec::len) + proof.bytes();
    let mut out = Writer::with_room(bytes + RUN_BYTES);
    let flag = |bit: u8, is_set: bool| if is_set { bit } else { 0 };
    let (is_packed, is_linked) = (packed.is_some(), !proof.links.is_empty());
    out.u8(flag(OWNER, starts)
        | flag(FRESH_DICTIONARY, fresh)
        | flag(PACKED, is_packed)
        | flag(LINKED, is_linked));
    if starts {
        out.bytes(&owner.replica.0);
        out.bytes(&owner.nonce.0);
    }
    match packed {
        Some(packed) => write_packed(written.as_slice(), &packed, &mut out),
        None => out.bytes(written.as_slice()),
    }
    out.bytes(&proof.to_bytes());
    out.finish()
}

/// Decodes a run that follows `before` and checks its proof; nothing of it is to be kept otherwise.
///
/// # Errors
/// [`RunError`].
pub fn decode_run(
    space: &SpaceId,
    lane: &LaneId,
    known_owner: Option<LaneOwner>,
    before: &LaneTip,
    dictionary: &mut Dictionary,
    bytes: &[u8],
) -> Result<CheckedRun, RunError> {
    check_run(space, lane, known_owner, before, dictionary, bytes).map(|(run, _)| run)
}

/// As [`decode_run`], and what is kept of each entry. Names are spelled out there that the run may only
/// refer to, so the limits on that form are checked entry by entry: a few bytes never become many.
pub(crate) fn check_run(
    space: &SpaceId,
    lane: &LaneId,
    known_owner: Option<LaneOwner>,
    before: &LaneTip,
    dictionary: &mut Dictionary,
    bytes: &[u8],
) -> Result<(CheckedRun, Vec<Received>), RunError> {
    let mut reader = Reader::new(bytes);
    let flags = reader.u8("run flags")?;
    if flags & !(OWNER | FRESH_DICTIONARY | PACKED | LINKED) != 0 {
        return Err(DecodeError::UnknownTag { what: "run flags", tag: u64::from(flags) }.into());
    }
    if flags & FRESH_DICTIONARY != 0 {
        *dictionary = Dictionary::default();
    }
    let owner = decode_owner(flags & OWNER != 0, before, known_owner, &mut reader)?;
    if owner.lane(space) != *lane {
        return Err(RunError::Owner);
    }
    dictionary.elide(|| actor(lane, &owner.nonce));
    let (entries, received) = if flags & PACKED != 0 {
        let unpacked = read_packed(&mut reader)?;
        let mut packed = Reader::new(&unpacked);
        let entries = decode_entries(space, lane, before, dictionary, &mut packed)?;
        packed.finish("entries of a run")?;
        entries
    } else {
        decode_entries(space, lane, before, dictionary, &mut reader)?
    };
    let proof = Proof::read_to_end(&mut reader)?;
    if proof.links.is_empty() != (flags & LINKED == 0) {
        return Err(DecodeError::NotCanonical { what: "run" }.into());
    }
    if entries.len() + proof.links.len() > RUN_ENTRIES_MAX {
        let (value, value_max) = ((entries.len() + proof.links.len()) as u64, RUN_ENTRIES_MAX as u64);
        return Err(DecodeError::OverLimit { what: "entries and links in a run", value, value_max }.into());
    }
    let last = entries.last().map_or(before, |(_, tip)| tip);
    if !proof.holds(&owner.replica, space, lane, (last.lsn, &last.hash)) {
        return Err(RunError::Signature);
    }
    Ok((CheckedRun { owner, entries, proof }, received))
}

/// Entries, and what is kept of each besides.
type Decoded = (Vec<(LaneEntry, LaneTip)>, Vec<Received>);

fn decode_entries(
    space: &SpaceId,
    lane: &LaneId,
    before: &LaneTip,
    dictionary: &mut Dictionary,
    reader: &mut Reader<'_>,
) -> Result<Decoded, DecodeError> {
    let entries_max = if canary!(LimitDiffers) { 8 } else { RUN_ENTRIES_MAX };
    let count = reader.count(entries_max, "entries in a run")?;
    if count == 0 {
        return Err(DecodeError::Invalid { what: "run", rule: "must hold an entry" });
    }
    let mut entries: Vec<(LaneEntry, LaneTip)> = Vec::new();
    let mut received = Vec::new();
    let mut room = RUN_BYTES_MAX;
    for _ in 0..count {
        let tip = entries.last().map_or(before, |(_, tip)| tip);
        let rest = reader.remaining();
        let entry = decode_entry(lane, tip, dictionary, reader)?;
        let (after, link) = tip.after_linked(space, &entry);
        let stored = encode_stored(lane, &after.hash, &entry, rest - reader.remaining());
        room = check_size(stored.len(), room)?;
        received.push(Received { stored, link });
        entries.push((entry, after));
    }
    Ok((entries, received))
}

/// What is left of `room` after an entry.
fn check_size(bytes: usize, room: usize) -> Result<usize, DecodeError> {
    let over = |what, value_max: usize| {
        let (value, value_max) = (bytes as u64, value_max as u64);
        DecodeError::OverLimit { what, value, value_max }
    };
    if bytes > CHANGE_SET_BYTES_MAX {
        return Err(over("stored entry", CHANGE_SET_BYTES_MAX));
    }
    room.checked_sub(bytes).ok_or(over("stored entries of a run", RUN_BYTES_MAX))
}

fn decode_owner(
    named: bool,
    before: &LaneTip,
    known: Option<LaneOwner>,
    reader: &mut Reader<'_>,
) -> Result<LaneOwner, RunError> {
    if named != (before.lsn == 0) {
        return Err(DecodeError::Invalid {
            what: "run",
            rule: "names the owner exactly at the lane's start",
        }
        .into());
    }
    if named {
        let replica = ReplicaId(reader.array("lane owner")?);
        return Ok(LaneOwner { replica, nonce: Nonce(reader.array("lane nonce")?) });
    }
    known.ok_or(RunError::Owner)
}
