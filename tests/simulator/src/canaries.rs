//! Shows that the oracles see what they are for: bugs are planted one at a time, and each must be found by the
//! oracle that names the harm.

use std::cell::Cell;
use std::panic::{self, AssertUnwindSafe, catch_unwind};
use std::sync::Once;
use std::thread;

use comity_crdts::canary::{Canary, plant};

use crate::menu::{Scale, plan};
use crate::oracle::{Oracle, Violation};
use crate::run::run;

/// The oracle that names the harm that a bug does.
pub fn expected(canary: Canary) -> Oracle {
    match canary {
        Canary::InstanceIgnored | Canary::IncarnationCounted => Oracle::Uniqueness,
        Canary::DependencySkipped => Oracle::CausalDelivery,
        Canary::DigestOfArrival | Canary::RosterOfArrival => Oracle::Convergence,
        Canary::RemoveForgetsDot
        | Canary::RemoveTakesConcurrent
        | Canary::DocumentKeptLoaded
        | Canary::FollowedInPart
        | Canary::RecentNotShown => Oracle::Absence,
        Canary::AckBeforeSync
        | Canary::AckAfterFailedSync
        | Canary::RemoteCountsItself
        | Canary::QuorumOfHalf
        | Canary::FollowerCounted
        | Canary::HaveBeforeSync => Oracle::Acknowledgement,
        Canary::CounterAddsTwice | Canary::AppliedTwice | Canary::HeldDropped => Oracle::Counters,
        Canary::SiblingPruned | Canary::SiblingKept | Canary::HeldOvertaken => Oracle::Siblings,
        Canary::LoserNotJournalled | Canary::AdditionNotJournalled | Canary::JournalNotCarried => {
            Oracle::Journal
        }
        Canary::TokenPartReached | Canary::TokenBeforeSync => Oracle::Sessions,
        Canary::QuorumReadOfOne | Canary::FreshBeforeArrival => Oracle::Freshness,
        Canary::OperationForgotten => Oracle::Operations,
        Canary::IncarnationPerWrite => Oracle::Bounds,
        Canary::HaveNeverSent
        | Canary::QuietForEver
        | Canary::DigestStale
        | Canary::GraftForgotten
        | Canary::PartForgotten
        | Canary::PartNotProved
        | Canary::PostponedForgotten
        | Canary::FullDiskNotRetried
        | Canary::StrangerNotReviewed
        | Canary::PeerFrontierCached
        | Canary::WindowNeverOpens
        | Canary::ResubscribedForEver => Oracle::Liveness,
        Canary::FrontierBeforeEntries => Oracle::Prefix,
        Canary::HalfChangeSet => Oracle::Atomicity,
        Canary::EventLost => Oracle::Events,
        Canary::StrangerServed | Canary::SecretNotCompared | Canary::RevocationNotEnforced => {
            Oracle::Isolation
        }
        Canary::PartOutOfTurn
        | Canary::SealedNamesKept
        | Canary::LimitDiffers
        | Canary::ReceiverClockRefuses
        | Canary::SubscribedWithoutHash
        | Canary::OwnVersionTaken => Oracle::Acceptance,
        Canary::LengthBelieved | Canary::DeadlineRepeated | Canary::TailKeptInMind => Oracle::Robustness,
        Canary::ForkIgnored | Canary::LogGoneBeforeDatabase => Oracle::LossReport,
        Canary::HashMapOrder => Oracle::Determinism,
        Canary::SentBeforeSync => Oracle::Wire,
        Canary::ClockFloorForgotten | Canary::ClockFollowsWall => Oracle::Clock,
        Canary::UnconfirmedRemoves
        | Canary::CutOfOne
        | Canary::AbsentRemovalForgotten
        | Canary::HeldNotConsidered => Oracle::Strict,
        Canary::RightsNotChecked => Oracle::Bounded,
        Canary::FieldNotCounted => Oracle::Maps,
        Canary::FloorBeyondCut => Oracle::Retention,
        Canary::ExtrasForgotten => Oracle::Prefix,
        Canary::PieceOfAnotherView => Oracle::Convergence,
        Canary::AnnouncementForgotten | Canary::RemovedStallCut => Oracle::Forgetting,
        Canary::UnsubscribeForgotten => Oracle::Copies,
        Canary::LagForgetsStaged | Canary::EstimateNeverEnds => Oracle::Lag,
        Canary::PartsNotInspected
        | Canary::TouchedCompared
        | Canary::RemadeOverOld
        | Canary::RepairToldEarly => Oracle::Audit,
        Canary::ThrottledForEver => Oracle::Throttle,
    }
}

/// Runs seeds from `first_seed` on with a bug planted, `seeds_max` of them at most, until the oracle that names
/// its harm finds it; what others find does not count. Returns how many seeds that took, and what was found.
pub fn hunt(canary: Canary, first_seed: u64, seeds_max: u64) -> Option<(u64, Violation)> {
    (0..seeds_max).find_map(|index| {
        let found = violation(Some(canary), first_seed + index)?;
        (found.oracle == expected(canary)).then_some((index + 1, found))
    })
}

/// What a seed comes to with a bug planted, or with none. Runs twice what must come out the same.
pub fn violation(canary: Option<Canary>, seed: u64) -> Option<Violation> {
    silence_panics();
    let twice = canary.is_some_and(|canary| expected(canary) == Oracle::Determinism);
    let work = move || {
        QUIET.set(true);
        plant(canary);
        let plan = plan(seed, Scale::default());
        let first = run(&plan);
        let differs = twice && first != run(&plan);
        let detail = || "the same plan went two ways".to_owned();
        let violation =
            differs.then(|| Violation { oracle: Oracle::Determinism, detail: detail(), at_us: 0 });
        violation.or(first.violation)
    };
    let in_a_thread = || thread::scope(|scope| scope.spawn(|| catch_unwind(AssertUnwindSafe(work))).join());
    match in_a_thread() {
        Ok(Ok(violation)) => violation,
        // Not caught where cores are called: the world itself could not go on.
        Ok(Err(_)) | Err(_) => {
            let detail = "the simulator panicked".to_owned();
            Some(Violation { oracle: Oracle::Robustness, detail, at_us: 0 })
        }
    }
}

thread_local! {
    /// Whether panics of this thread are expected.
    static QUIET: Cell<bool> = const { Cell::new(false) };
}

fn silence_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let loud = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            if !QUIET.get() {
                loud(info);
            }
        }));
    });
}
