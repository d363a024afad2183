//! What answers look like, for the description of the API. The contract test holds the daemon to it.
#![allow(dead_code, reason = "these types are only described")]

use std::collections::BTreeMap;

use serde_json::Value;
use utoipa::ToSchema;

/// A problem (RFC 9457). Some types have members of their own.
#[derive(ToSchema)]
pub(crate) struct Problem {
    /// `urn:comity:problem:` and a name that stays the same.
    r#type: String,
    title: String,
    status: u16,
    detail: String,
}

/// What a write came to.
#[derive(ToSchema)]
pub(crate) struct Receipt {
    /// What to present anywhere to find the write there.
    token: String,
    /// Whether the durability that was asked for was reached. If not, the write stays and goes on spreading.
    reached: bool,
    /// Whether it was made before under the same Idempotency-Key, and not again.
    deduplicated: bool,
    durability: Reached,
}

/// How durable a write is.
#[derive(ToSchema)]
pub(crate) struct Reached {
    asked: String,
    counted: u32,
    needed: u32,
    remote: u32,
    replicas: Vec<String>,
    regions: Vec<String>,
}

/// An object. Which members there are depends on its kind.
#[derive(ToSchema)]
pub(crate) struct Object {
    kind: String,
    /// Counters: an integer, as a string beyond 2^53. Flags: whether it is enabled. Registers and documents: the value.
    #[schema(required = false)]
    value: Value,
    /// Registers: `value`, or `conflict` when the policy shows several.
    state: Option<String>,
    /// Registers: the policy of the collection.
    policy: Option<String>,
    /// Registers: every concurrent value.
    siblings: Option<Vec<Sibling>>,
    /// Sets: a page of elements.
    elements: Option<Vec<Value>>,
    /// Maps: a page of keys with what they lead to.
    entries: Option<Vec<Entry>>,
    /// Sets and maps: how many there are.
    size: Option<u64>,
    /// Sets and maps: what to give as `after` for the next page.
    next: Option<String>,
    /// Documents: the hashes that name this version.
    heads: Option<Vec<String>>,
    /// Bounded counters: who may lower it by how much.
    rights: Option<Vec<Rights>>,
}

/// One of several values.
#[derive(ToSchema)]
pub(crate) struct Sibling {
    dot: String,
    value: Value,
    written_ms: u64,
    author: Option<String>,
    region: Option<String>,
}

/// A key of a map.
#[derive(ToSchema)]
pub(crate) struct Entry {
    key: String,
    holds: Vec<Value>,
}

/// Rights to a bounded counter.
#[derive(ToSchema)]
pub(crate) struct Rights {
    origin: String,
    rights: Value,
}

/// A page of keys.
#[derive(ToSchema)]
pub(crate) struct Keys {
    keys: Vec<String>,
    next: Option<String>,
}

/// A page of collections.
#[derive(ToSchema)]
pub(crate) struct Collections {
    collections: Vec<String>,
    next: Option<String>,
}

/// A space in short.
#[derive(ToSchema)]
pub(crate) struct Space {
    id: String,
    name: String,
}

/// A page of spaces.
#[derive(ToSchema)]
pub(crate) struct Spaces {
    spaces: Vec<Space>,
    next: Option<String>,
}

/// The space that was joined.
#[derive(ToSchema)]
pub(crate) struct Joined {
    id: String,
}

/// A ticket, which lets one replica in once. Treat it as a password.
#[derive(ToSchema)]
pub(crate) struct Ticket {
    ticket: String,
}

/// A member.
#[derive(ToSchema)]
pub(crate) struct Member {
    replica: String,
    role: String,
}

/// The members of a space.
#[derive(ToSchema)]
pub(crate) struct Members {
    members: Vec<Member>,
}

/// The report on a space.
#[derive(ToSchema)]
pub(crate) struct SpaceReport {
    id: String,
    name: String,
    digest: String,
    standing: String,
    may_write: bool,
    confirmed: bool,
    quarantined: u64,
    /// Change sets of which something is held, because this build does not know it.
    held: u64,
    audit: Audit,
    members: Vec<Member>,
    lanes: Vec<Lane>,
    peers: Vec<Value>,
    stalled_by: Vec<String>,
}

/// What audits of a space have come to since the start.
#[derive(ToSchema)]
pub(crate) struct Audit {
    passes: u64,
    last_pass_ms: Option<u64>,
    inspected: u64,
    compared: u64,
    touched: u64,
    unanswered: u64,
    damaged: u64,
    diverged: u64,
    upheld: u64,
    repaired: u64,
    unresolved: u64,
}

/// The report on a lane.
#[derive(ToSchema)]
pub(crate) struct Lane {
    lane: String,
    owner: String,
    is_own: bool,
    applied: u64,
    known: u64,
    lacks: u64,
    staged: u64,
    parent: Option<String>,
    frozen: Option<String>,
}

/// A policy.
#[derive(ToSchema)]
pub(crate) struct Policy {
    policy: String,
}

/// The daemon in short.
#[derive(ToSchema)]
pub(crate) struct Status {
    replica: String,
    region: Option<String>,
    version: String,
    uptime_seconds: u64,
    ready: bool,
    waits_for: Option<String>,
    spaces: u64,
    peers: Vec<String>,
    /// The protocol versions that this replica speaks.
    protocols: Protocols,
    /// Peers that speak none of them.
    refused: Vec<RefusedPeer>,
    damage: Option<String>,
}

/// Protocol versions from one to another.
#[derive(ToSchema)]
pub(crate) struct Protocols {
    min: u16,
    max: u16,
}

/// A peer with which no protocol version is shared.
#[derive(ToSchema)]
pub(crate) struct RefusedPeer {
    replica: String,
    protocols: Protocols,
}

/// The connected replicas.
#[derive(ToSchema)]
pub(crate) struct Peers {
    peers: Vec<Peer>,
}

/// A connected replica, and what went over its connection.
#[derive(ToSchema)]
pub(crate) struct Peer {
    replica: String,
    udp_bytes_sent: u64,
    udp_bytes_received: u64,
    packets_lost: u64,
}

/// Spaces in which somebody is behind.
#[derive(ToSchema)]
pub(crate) struct Lag {
    spaces: Vec<Value>,
}

/// Where the members of a space are, and how far they were behind lately.
#[derive(ToSchema)]
pub(crate) struct Overview {
    /// The region of each member that says one, by its replica.
    regions: BTreeMap<String, String>,
    /// How far apart the samples are, milliseconds.
    step_ms: u64,
    /// By replica, the oldest sample first.
    lag: BTreeMap<String, Samples>,
}

/// How many change sets somebody lacked.
#[derive(ToSchema)]
pub(crate) struct Samples {
    /// What the replica is known to have and was missing here.
    here: Vec<u64>,
    /// What is here and was missing there; null while it was not connected.
    there: Vec<Option<u64>>,
}

/// A page of conflicts.
#[derive(ToSchema)]
pub(crate) struct Conflicts {
    conflicts: Vec<Conflict>,
    next: Option<String>,
}

/// Something that people have to decide.
#[derive(ToSchema)]
pub(crate) struct Conflict {
    location: Value,
    /// `siblings` or `kinds`.
    matter: String,
    policy: Option<String>,
    siblings: Option<Vec<Sibling>>,
    kinds: Option<Vec<String>>,
    /// Of several kinds, what they hold: equal only where they hold the same.
    state: Option<String>,
}

/// A page of the journal.
#[derive(ToSchema)]
pub(crate) struct Journal {
    entries: Vec<Aside>,
    totals: Totals,
    /// What to give as `after` for the next page.
    next: Option<String>,
}

/// What was set aside.
#[derive(ToSchema)]
pub(crate) struct Aside {
    location: Value,
    /// The kind of what held it there.
    kind: String,
    dot: String,
    value: Value,
    author: Option<String>,
    written_ms: u64,
    reason: String,
    detail: Option<String>,
    by: String,
    by_author: Option<String>,
    at_ms: u64,
}

/// How much the journal holds, and how much of it was forgotten.
#[derive(ToSchema)]
pub(crate) struct Totals {
    entries: u64,
    bytes: u64,
    pruned: u64,
}

/// A page of versions, newest first.
#[derive(ToSchema)]
pub(crate) struct Versions {
    versions: Vec<Version>,
    next: Option<String>,
}

/// A change in the history of a document.
#[derive(ToSchema)]
pub(crate) struct Version {
    hash: String,
    actor: String,
    time_seconds: i64,
    message: Option<String>,
    deps: Vec<String>,
    operations: u64,
}

/// What leads from one version to another.
#[derive(ToSchema)]
pub(crate) struct Patches {
    patches: Vec<Value>,
}

/// The marks of a text.
#[derive(ToSchema)]
pub(crate) struct Marks {
    marks: Vec<Value>,
}

/// How many changes were not there yet.
#[derive(ToSchema)]
pub(crate) struct Imported {
    changes: u64,
}

/// A job.
#[derive(ToSchema)]
pub(crate) struct Job {
    id: u64,
    kind: String,
    /// `running`, `done` or `failed`.
    state: String,
    done: u64,
    all: u64,
    #[schema(required = false)]
    result: Value,
    error: Option<String>,
}

/// The jobs of late.
#[derive(ToSchema)]
pub(crate) struct Jobs {
    jobs: Vec<Job>,
}

/// Whether it is ready, and what it waits for otherwise.
#[derive(ToSchema)]
pub(crate) struct Health {
    status: String,
    reason: Option<String>,
}
