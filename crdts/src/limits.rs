//! Every limit on what is stored and exchanged, in one place, each with its unit in its name.
//!
//! All are part of what makes an entry valid, so they are constants of the format, the same at every
//! replica: two builds with different limits would disagree about what is acceptable.

/// A collection name, UTF-8 bytes.
pub const COLLECTION_BYTES_MAX: usize = 128;
/// A key, UTF-8 bytes.
pub const KEY_BYTES_MAX: usize = 512;
/// The name of a space, UTF-8 bytes.
pub const SPACE_NAME_BYTES_MAX: usize = 128;
/// One value in a register, canonical bytes.
pub const VALUE_BYTES_MAX: usize = 64 * 1024;
/// One set element, canonical bytes; elements are part of storage keys.
pub const ELEMENT_BYTES_MAX: usize = 4 * 1024;
/// Lists and maps within lists and maps.
pub const VALUE_DEPTH_MAX: usize = 32;
/// One raw Automerge change, uncompressed bytes.
pub const DOCUMENT_CHANGE_BYTES_MAX: usize = 512 * 1024;
/// Operations inside one Automerge change, counted from its columns before it is parsed.
pub const DOCUMENT_CHANGE_OPS_MAX: u64 = 10_000;
/// Predecessors named by the operations of one Automerge change, counted like the operations: run lengths
/// can claim any number of either.
pub const DOCUMENT_CHANGE_PREDECESSORS_MAX: u64 = 4 * DOCUMENT_CHANGE_OPS_MAX;
/// Map keys and mark names in one Automerge change, bytes, each counted as often as it is used.
pub const DOCUMENT_CHANGE_NAMES_BYTES_MAX: u64 = 8 * 1024 * 1024;
/// The actor of an Automerge change, bytes.
pub const DOCUMENT_ACTOR_BYTES_MAX: usize = 64;
/// The operation counter of an Automerge document; Automerge itself overflows beyond twice this.
pub const DOCUMENT_OP_COUNTER_MAX: u64 = (1 << 31) - 1;
/// Objects on the way from the root of an Automerge document to what is nested deepest in it: what walks a
/// document by recursion needs a stack as deep as this.
pub const DOCUMENT_DEPTH_MAX: u64 = 64;
/// What an operation of a later version says, bytes.
pub const EXTENSION_BYTES_MAX: usize = 512 * 1024;
/// One change set, encoded bytes.
pub const CHANGE_SET_BYTES_MAX: usize = 1024 * 1024;
/// Operations in one change set.
pub const CHANGE_SET_OPS_MAX: usize = 65_535;
/// Objects touched by one change set.
pub const CHANGE_SET_OBJECTS_MAX: usize = 4_096;
/// Dots one operation may name as observed.
pub const CONTEXT_DOTS_MAX: usize = 4_096;
/// Keys on the way from a map to what is nested deepest in it.
pub const MAP_DEPTH_MAX: usize = 4;
/// A counter's absolute value stays below two to this power.
pub const COUNTER_BITS_MAX: u32 = 120;
/// A bounded counter stays below two to this power.
pub const BOUNDED_BITS_MAX: u32 = 63;
/// The name of a policy that an application registers, bytes.
pub const POLICY_NAME_BYTES_MAX: usize = 64;
/// Lanes in one space.
pub const LANES_MAX: usize = 256;
/// Members of one space.
pub const MEMBERS_MAX: usize = 1_024;
