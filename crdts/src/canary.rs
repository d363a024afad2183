//! Planted bugs: what a wrong Comity would do, to show that the simulator's oracles see it.
//!
//! The code that would do wrong is compiled only with the feature `canaries`, and does so only in a thread
//! that chose the bug with `plant`.

/// Whether the named bug is planted in this thread: `canary!(AckBeforeSync)`.
#[cfg(feature = "canaries")]
#[macro_export]
macro_rules! canary {
    ($name:ident) => {
        $crate::canary::is_planted($crate::canary::Canary::$name)
    };
}

/// Whether the named bug is planted in this thread: `canary!(AckBeforeSync)`. Never, in this build: a constant
/// of the compiler, so that nothing is left of the bug.
#[cfg(not(feature = "canaries"))]
#[macro_export]
macro_rules! canary {
    ($name:ident) => {
        const { $crate::canary::is_planted($crate::canary::Canary::$name) }
    };
}

macro_rules! canaries {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// A bug that can be planted.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Canary {
            $($(#[$doc])* $name,)*
        }

        impl Canary {
            /// Every bug that can be planted.
            pub const ALL: &[Self] = &[$(Self::$name,)*];

            /// Its name.
            pub fn name(self) -> &'static str {
                match self {
                    $(Self::$name => stringify!($name),)*
                }
            }
        }
    };
}

canaries! {
    /// A replica goes on in the lane of a directory that its own is a copy of.
    InstanceIgnored,
    /// A lane's nonce is counted up from the lanes that are known instead of drawn afresh.
    IncarnationCounted,
    /// An entry is applied although the first of the lanes it depends on has not come far enough.
    DependencySkipped,
    /// The space's digest depends on which change sets were applied in one batch.
    DigestOfArrival,
    /// Whoever takes back several additions of one element leaves one of them behind.
    RemoveForgetsDot,
    /// Who removes an element takes concurrent additions of it away as well.
    RemoveTakesConcurrent,
    /// A document that is ahead of its rows stays loaded after a commit failed.
    DocumentKeptLoaded,
    /// What a document's tail held is remembered after it went into a snapshot.
    TailKeptInMind,
    /// A write is acknowledged when it is committed, not when it is synced.
    AckBeforeSync,
    /// What waited for a sync that failed is acknowledged.
    AckAfterFailedSync,
    /// A replica counts itself among the other replicas that hold a write.
    RemoteCountsItself,
    /// Half of the members are taken for a majority of them.
    QuorumOfHalf,
    /// Followers are counted among the members of which a majority must hold a write.
    FollowerCounted,
    /// What an admin says about a member replaces all that has arrived before, seen or not.
    RosterOfArrival,
    /// Who is removed goes on over the sessions that are open.
    RevocationNotEnforced,
    /// Lanes of members that were removed hold up the cut.
    RemovedStallCut,
    /// A quorum read asks nobody.
    QuorumReadOfOne,
    /// A read is taken for fresh before what others answered has arrived.
    FreshBeforeArrival,
    /// A write that is repeated under its operation id is made again.
    OperationForgotten,
    /// A replica tells others that it holds durably what it has only applied.
    HaveBeforeSync,
    /// Two additions to one counter in one transaction add the first one twice, where they are made.
    CounterAddsTwice,
    /// The operations of an entry that arrives together with others are applied twice.
    AppliedTwice,
    /// A third concurrent value in a register pushes one of the others out.
    SiblingPruned,
    /// A write to a register leaves one of the values behind that it was to replace.
    SiblingKept,
    /// The values that one write replaced together are not journalled.
    LoserNotJournalled,
    /// A token counts as reached when the first of its lanes is.
    TokenPartReached,
    /// A token counts as reached when what it stands for is applied, before readers see it.
    TokenBeforeSync,
    /// Every transaction starts a lane of its own.
    IncarnationPerWrite,
    /// A replica never tells others how far it has come.
    HaveNeverSent,
    /// A lane whose parent has nothing new is never taken from somebody who has.
    GraftForgotten,
    /// Of a run of which only a part was applied, nothing is passed on.
    PartNotProved,
    /// A deadline that has passed is asked for again.
    DeadlineRepeated,
    /// What arrived during a sync is not looked at when the sync ends.
    PostponedForgotten,
    /// After the disk was full, syncs are never tried again.
    FullDiskNotRetried,
    /// Lanes that were refused because their owner was unknown are not asked for once it is known.
    StrangerNotReviewed,
    /// A peer is not told of lanes of which it had as much when it was last heard of, before it was restored.
    PeerFrontierCached,
    /// What a peer acknowledges is counted as on its way for ever.
    WindowNeverOpens,
    /// A lane that its owner sends is asked for again every few seconds.
    ResubscribedForEver,
    /// A lane's row says that entries are applied when they have only arrived.
    FrontierBeforeEntries,
    /// The last object of a change set that touches several is left out when it arrives from elsewhere.
    HalfChangeSet,
    /// Of the change sets that arrived together only the first is announced.
    EventLost,
    /// Whoever asks for a space gets it.
    StrangerServed,
    /// An invitation is redeemed by any secret.
    SecretNotCompared,
    /// A receiver takes fewer entries in one run than a sender may put there.
    LimitDiffers,
    /// A change set whose stamp is ahead of the receiver's clock is refused.
    ReceiverClockRefuses,
    /// Whether a subscriber holds the same as the sender up to where it stands is not compared.
    SubscribedWithoutHash,
    /// Lengths in what peers send are believed.
    LengthBelieved,
    /// A signature over something else than what is held here is ignored.
    ForkIgnored,
    /// The order in which subscriptions are served is that of a hash map with random keys.
    HashMapOrder,
    /// Entries are sent when they are applied, not when they are synced.
    SentBeforeSync,
    /// After a restart stamps start at the wall clock, wherever they had got to.
    ClockFloorForgotten,
    /// Stamps follow the wall clock when it is set back, and two in a millisecond are equal.
    ClockFollowsWall,
    /// A replica that was restored removes before anybody has heard of it, and what was forgotten does not come back.
    UnconfirmedRemoves,
    /// What everybody has seen is taken to be what is applied here, and what was forgotten does not come back.
    CutOfOne,
    /// A replica never says how far it has applied what others removed.
    AnnouncementForgotten,
    /// A bounded counter is lowered by whoever wants to, whatever rights it has.
    RightsNotChecked,
    /// An element of a remove-wins set that was removed where it was absent is not noted.
    AbsentRemovalForgotten,
    /// What a map holds under a key is not counted when it goes.
    FieldNotCounted,
    /// Whoever takes a lane from somebody else does not tell the one it had it from.
    UnsubscribeForgotten,
    /// Of what this replica lacks, what has arrived and waits is left out.
    LagForgetsStaged,
    /// How long catching up takes is still estimated when nothing is missing.
    EstimateNeverEnds,
    /// A writer that is held up until others follow is never told that they do, nor that they do not.
    ThrottledForEver,
    /// Entries are let go of although not everybody has announced to have applied them.
    FloorBeyondCut,
    /// What is held here and not in a snapshot is not applied again after it was installed.
    ExtrasForgotten,
    /// Pieces of a snapshot that were staged from another state are taken to be of this one.
    PieceOfAnotherView,
    /// A snapshot is installed without its journal.
    JournalNotCarried,
    /// A session has the highest version that its own side speaks.
    OwnVersionTaken,
    /// Additions that a removal beats are not journalled.
    AdditionNotJournalled,
    /// What was held is dropped once it is known, not carried out.
    HeldDropped,
    /// What is known is carried out although something before it on the same object is held.
    HeldOvertaken,
    /// Removals and resets are forgotten while something is held that is judged by them.
    HeldNotConsidered,
    /// Audits take the word of sets and maps for what they hold.
    PartsNotInspected,
    /// Audits take states for comparable although only one side has applied some operation.
    TouchedCompared,
    /// What is made again from the log is made on top of what is wrong.
    RemadeOverOld,
    /// A repair is told of when it is made, not when it is synced.
    RepairToldEarly,
    /// Files of the log are let go of although the database has not followed them.
    LogGoneBeforeDatabase,
    /// Of groups that the database follows together only the last one is put.
    FollowedInPart,
    /// Readers are shown the database without the groups that only the log holds.
    RecentNotShown,
    /// A space in which a peer was found to stand as this replica does is not opened when something happens in it.
    QuietForEver,
    /// What is shared with a peer is compared as it was when the peer was met first.
    DigestStale,
    /// A part of a lane that a peer was asked for and did not send is asked for of nobody else.
    PartForgotten,
    /// A part of a lane is taken in as soon as it is here.
    PartOutOfTurn,
    /// After what is encoded once for all, a subscription goes on with the names it had before.
    SealedNamesKept,
}

#[cfg(feature = "canaries")]
mod planted {
    use std::cell::Cell;

    thread_local! {
        pub(super) static PLANTED: Cell<Option<super::Canary>> = const { Cell::new(None) };
    }

    /// Plants a bug in this thread, or none.
    pub fn plant(canary: Option<super::Canary>) {
        PLANTED.set(canary);
    }
}

#[cfg(feature = "canaries")]
pub use planted::plant;

/// Whether a bug is planted in this thread.
#[cfg(feature = "canaries")]
pub fn is_planted(canary: Canary) -> bool {
    planted::PLANTED.get() == Some(canary)
}

/// Whether a bug is planted in this thread: never, in this build.
#[cfg(not(feature = "canaries"))]
pub const fn is_planted(_: Canary) -> bool {
    false
}
