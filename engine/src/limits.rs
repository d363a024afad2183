//! Limits of the conversation between replicas. What a stored thing may measure is in
//! `comity_crdts::limits`.

use std::time::Duration;

use comity_crdts::limits::CHANGE_SET_BYTES_MAX;

/// One frame.
pub const FRAME_BYTES_MAX: usize = 256 * 1024;
// Runs, windows and staging count entries in their stored form, which both ends know and which is what
// an entry costs in memory; the compact form on the wire is never longer by much.

/// Entries are gathered into runs of about this size.
pub(crate) const RUN_BYTES_TARGET: usize = 64 * 1024;
/// One run: the largest change set and what surrounds it.
pub(crate) const RUN_BYTES_MAX: usize = CHANGE_SET_BYTES_MAX + 256 * 1024;
/// Unacknowledged bytes of one lane that is caught up.
pub(crate) const LIVE_WINDOW_BYTES: usize = 256 * 1024;
/// Unacknowledged bytes of one lane that is catching up: 20 MiB in each second over a round trip of 100 ms take 2 MiB. Where
/// packets are lost, what follows them waits for one more round trip, then for the sync before it is acknowledged, and
/// both leave room for variation.
pub(crate) const CATCH_UP_WINDOW_BYTES: usize = 8 * 1024 * 1024;
/// The same towards a peer that speaks version 4, which ends the session beyond that.
pub(crate) const CATCH_UP_WINDOW_BYTES_4: usize = 4 * 1024 * 1024;
/// Unacknowledged bytes on one session.
pub(crate) const SESSION_WINDOW_BYTES: usize = 16 * 1024 * 1024;
/// Unacknowledged runs on one session; bounds the driver's queue when runs are small.
pub(crate) const SESSION_WINDOW_RUNS: usize = 512;
/// Bytes of one lane that may wait here for their turn: the window, and a run beyond it.
pub(crate) const STAGED_BYTES_MAX: usize = CATCH_UP_WINDOW_BYTES + 2 * RUN_BYTES_MAX;
/// Bytes of one lane that may wait here when a subscription is made: the new window comes on top.
pub(crate) const STAGED_BYTES_SUBSCRIBE: usize = STAGED_BYTES_MAX - CATCH_UP_WINDOW_BYTES - RUN_BYTES_MAX;
/// Staged bytes that are applied in one batch, up to the end of a run; so many are not kept waiting by the sync under way. What
/// is written or arrives meanwhile waits for the sync of such a batch, so that it is not to take long.
pub(crate) const APPLY_BYTES_TARGET: usize = 512 * 1024;
/// Bytes that were applied and are not synced: a batch that is being synced, and the next one.
pub(crate) const UNSYNCED_BYTES_MAX: usize = 2 * APPLY_BYTES_TARGET;
/// Heads of a lane are kept about this far apart, so that its copies can be served from any of them.
pub(crate) const HEAD_SPACING_BYTES: u64 = 64 * 1024;
/// So far apart are those that are kept where parts may end: closer than they are asked for, since the mean length of entries is
/// not the same for all.
pub(crate) const PART_HEAD_SPACING_BYTES: u64 = PART_BYTES_TARGET / 4;
/// Lanes are divided into segments of so many entries, unless configured otherwise. What lies in one that is whole is encoded
/// once for all who catch up, from names of its own.
pub(crate) const SEGMENT_ENTRIES: u64 = 4_096;
/// Packed bytes of a segment that are kept for others: of one of long entries only so much is sent alike to all.
pub(crate) const SEGMENT_BYTES_MAX: usize = 2 * 1024 * 1024;
/// The same of all segments together.
pub(crate) const SEGMENTS_BYTES_MAX: usize = 16 * 1024 * 1024;
/// For so long a segment is kept after it was sent.
pub(crate) const SEGMENT_KEPT: Duration = Duration::from_secs(30);
/// About so long is a part of a lane that one of several peers is asked for: as many entries as a power of two says, a segment at most.
pub(crate) const PART_BYTES_TARGET: u64 = 1024 * 1024;
/// A lane that lacks more than so many parts here is asked for in parts, if several peers have it.
pub(crate) const RANGE_PARTS_MIN: u64 = 2;
/// Parts of a lane that are asked for at once,
pub(crate) const PARTS_MAX: usize = 8;
/// of one peer,
pub(crate) const PARTS_OF_SESSION_MAX: usize = 2;
/// and of one peer in all lanes.
pub(crate) const PARTS_ASKED_MAX: usize = 32;
/// Parts that are being sent to one peer, or are not acknowledged by it, which takes longer than to have them. Beyond that they are refused.
pub(crate) const PARTS_SERVED_MAX: usize = 128;
/// Unacknowledged bytes of one part. So much of each may wait at the receiver for what comes before it.
pub(crate) const RANGE_WINDOW_BYTES: usize = 4 * 1024 * 1024;
/// Parts are not taken in while more than this waits in their lane.
pub(crate) const RANGE_STAGED_BYTES: usize = STAGED_BYTES_MAX - RUN_BYTES_MAX - RUN_BYTES_MAX;
/// Spaces one session may open.
pub(crate) const SESSION_SPACES_MAX: usize = 16_384;
/// Who shares no more spaces than this with a peer opens them all at once, unless configured otherwise: with a digest,
/// what is new comes half a round trip later.
pub(crate) const OPEN_AT_ONCE_SPACES: usize = 4;
/// Where digests of spaces differ, spaces are listed once there are no more than about this many under a node ...
pub(crate) const LEAF_SPACES: u32 = 16;
/// ... or so many levels below the root.
pub(crate) const LEAF_DEPTH_MAX: u8 = 3;
/// Spaces, and ranges of them, that are listed in one frame.
pub(crate) const LEAVES_MAX: usize = 4_096;
/// Digests are kept for peers that are connected, and for others as long as these are no more in all.
pub(crate) const DIGEST_PEERS_MAX: usize = 64;
/// Acknowledgements that nobody waits for are gathered this long.
pub(crate) const HAVE_INTERVAL: Duration = Duration::from_millis(20);
/// A lane that makes no progress while another peer has more is taken from that peer: after one and a half round trips
/// to where it is received from, and after this long where that distance is not known.
pub(crate) const GRAFT_AFTER: Duration = Duration::from_millis(150);
/// The least that is waited; acknowledgements are gathered for half as long.
pub(crate) const GRAFT_AFTER_MIN: Duration = Duration::from_millis(40);
/// The most.
pub(crate) const GRAFT_AFTER_MAX: Duration = Duration::from_secs(5);
/// A piece of a run that is at least this long is progress. There are few of them in the longest run, so nobody holds a
/// lane up by sending it byte by byte.
pub(crate) const PIECE_BYTES_PROGRESS: usize = FRAME_BYTES_MAX / 2;
/// How long after a graft the lane's owner is tried again.
pub(crate) const RETURN_AFTER: Duration = Duration::from_secs(2);
/// How often the waits before a graft and a return double at most while a lane stays behind.
pub(crate) const GRAFT_DOUBLINGS_MAX: u32 = 6;
/// Limits on lag are looked at this long after something moved.
pub(crate) const LAG_LOOK_AFTER: Duration = Duration::from_millis(100);
/// Writers that wait at one replica until others follow.
pub(crate) const ROOM_WAITS_MAX: usize = 16_384;
/// A full disk is tried again this often.
pub(crate) const SYNC_RETRY: Duration = Duration::from_secs(1);
/// After something was applied that can be forgotten once everybody has applied it, this replica announces how
/// far it has come.
pub(crate) const ANNOUNCE_AFTER: Duration = Duration::from_secs(1);
/// Rows that one step forgets.
pub(crate) const COMPACT_ROWS_MAX: usize = 1_024;
/// Entries of the log that one step lets go of.
pub(crate) const DROP_ROWS_MAX: u64 = 1_024;
/// Their bytes in stored form, and one entry.
pub(crate) const DROP_BYTES_MAX: u64 = 4 * 1024 * 1024;
/// Entries that somebody is being sent are looked at again this often.
pub(crate) const DROP_RETRY: Duration = Duration::from_secs(5);
/// For so long entries are kept for a subscriber that takes none.
pub(crate) const DROP_HELD_MAX: Duration = Duration::from_secs(10 * 60);
/// Rows of a snapshot are gathered into pieces of about this size. Most of them take pages of 128 KiB in the store then, and
/// not of 256.
pub(crate) const PIECE_BYTES_TARGET: usize = 120 * 1024;
/// One piece: a row may be that long, such as a register with many large siblings.
pub(crate) const PIECE_BYTES_MAX: usize = 24 * 1024 * 1024;
/// Pieces that a receiver may have asked for and not got: over a long path what is asked for at once is what fills it.
pub(crate) const PIECES_ASKED_MAX: usize = 64;
/// The same of a source that speaks version 4.
pub(crate) const PIECES_ASKED_MAX_4: usize = 16;
/// Pieces that are asked for before it is known how long they are: a row may be as long as many pieces.
pub(crate) const PIECES_ASKED_FIRST: usize = 8;
/// Bytes that are asked for at once, if pieces are as long as the longest that came.
pub(crate) const PIECES_ASKED_BYTES: usize = 8 * 1024 * 1024;
/// Snapshots that a replica serves at once.
pub(crate) const SNAPSHOTS_SERVED_MAX: usize = 2;
/// A view that is kept for a snapshot is let go of when nobody has read from it for this long.
pub(crate) const SNAPSHOT_IDLE_MAX: Duration = Duration::from_secs(10 * 60);
/// And once it is done with, it is kept for so long for who comes back: less than a source is left alone whose snapshot turned
/// out to be faulty, which may have been repaired by then.
pub(crate) const SNAPSHOT_RETURN_MAX: Duration = Duration::from_secs(30);
/// Who is busy, or has nothing to offer, is asked again this often.
pub(crate) const SNAPSHOT_RETRY: Duration = Duration::from_secs(2);
/// Rows that one step of an installation writes or removes.
pub(crate) const INSTALL_ROWS_MAX: usize = 1_024;
/// Steps of an installation that wait for the disk.
pub(crate) const INSTALL_BATCHES_MAX: u64 = 64;
/// Bytes of entries that are applied again in one step.
pub(crate) const INSTALL_BYTES_MAX: usize = 1024 * 1024;
/// Where there are many spaces, their first audits are spread over this time.
pub(crate) const AUDIT_FIRST_MAX: Duration = Duration::from_secs(60 * 60);
/// How long peers have to open a space that is to be audited.
pub(crate) const AUDIT_ROUSE: Duration = Duration::from_secs(1);
/// A stretch that was not read by then is read again.
pub(crate) const AUDIT_READ_MAX: Duration = Duration::from_secs(60);
/// A peer that has not compared a stretch by then is not waited for: it may lack what it is compared with.
pub(crate) const AUDIT_ANSWER_MAX: Duration = Duration::from_secs(10);
/// The key of an object in an audit: an address and what separates its parts.
pub(crate) const AUDIT_KEY_BYTES_MAX: usize = 1_024;
/// Objects that one peer may take to be wrong at once, and that are looked into together.
pub(crate) const AUDIT_SUSPECTED_MAX: usize = 16;
/// Objects that wait for being looked into.
pub(crate) const AUDIT_SUSPECTS_MAX: usize = 64;
/// Looking into suspects reads the log, so a peer that was wrong about them is not heard again for this long.
pub(crate) const AUDIT_UNHEARD: Duration = Duration::from_secs(60);
/// What could not be looked into is tried again after this long.
pub(crate) const AUDIT_RETRY: Duration = Duration::from_secs(1);
/// The rows of an object that are sent to who has wrong ones: one of them, with its key,
pub(crate) const AUDIT_ROW_BYTES_MAX: usize = 96 * 1024;
/// those of one frame, and one,
pub(crate) const AUDIT_ROWS_FRAME_BYTES: usize = 96 * 1024;
/// and all.
pub(crate) const AUDIT_ROWS_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Entries that are applied to an object which takes the place of a wrong one, in one batch.
pub(crate) const AUDIT_CATCH_UP_MAX: u64 = 4_096;
/// Peers asked for rights to a bounded counter are asked again this often.
pub(crate) const RIGHTS_RETRY: Duration = Duration::from_millis(500);
/// Requests for rights that wait at one replica.
pub(crate) const RIGHTS_WAITS_MAX: usize = 4_096;
/// Change sets in one page of changes, unless the reader says otherwise.
pub(crate) const CHANGES_PAGE_ENTRIES: usize = 128;
/// Lane entries read for one page of changes, bytes in stored form, unless the reader says otherwise.
pub(crate) const CHANGES_PAGE_BYTES: usize = 1024 * 1024;
/// Rows of the apply log that one page of changes may look at, so that every call is short.
pub(crate) const CHANGES_PAGE_ROWS: usize = 4_096;
/// A write that is repeated under the same operation id is known again for this long after it was made.
pub(crate) const OPERATION_ID_KEPT: Duration = Duration::from_secs(24 * 60 * 60);
/// Operation ids are forgotten together, the oldest this long after it may be.
pub(crate) const OPERATION_ID_LATE: Duration = Duration::from_secs(60 * 60);
/// Operation ids that a space remembers, some 130 bytes each; beyond that the oldest are forgotten sooner.
pub(crate) const OPERATION_IDS_MAX: u64 = 1_048_576;
/// So many more may gather until the oldest are forgotten.
pub(crate) const OPERATION_IDS_STEP: u64 = 1_024;
/// What admins can say about one member, one after another: each grant, change of role and removal is kept.
pub(crate) const MEMBER_STATEMENTS_MAX: usize = 1_024;
/// A connection over which nothing is shared with a former member any more ends this long after it was told.
pub(crate) const PART_AFTER: Duration = Duration::from_millis(250);
/// A connection with a peer that speaks no common version ends this long after its greeting, so that it reads ours.
pub(crate) const VERSION_CLOSE_AFTER: Duration = Duration::from_millis(250);
/// Peers of whom it is remembered that they speak no common version.
pub(crate) const REFUSALS_MAX: usize = 1_024;
/// Operations and kinds of later versions that a peer can say it knows, each.
pub(crate) const KNOWN_TAGS_MAX: usize = 192;
/// Change sets of which what is held of one object is carried out in one step,
pub(crate) const HELD_ROWS_RELEASED: usize = 256;
/// or so many bytes of it, whichever comes first.
pub(crate) const HELD_BYTES_RELEASED: usize = 1024 * 1024;
/// Rows and lane entries that one step of deleting a space removes.
pub(crate) const DELETE_ROWS_MAX: usize = 1_024;
/// Answers of one member about where it stands whose content has not arrived; until some has, it is not asked again.
pub(crate) const FRESH_ANSWERS_MAX: usize = 8;
/// Reads that wait at one replica until they are fresh.
pub(crate) const FRESH_WAITS_MAX: usize = 16_384;
