//! The oracles: what must hold in every run, and what each of them does not look at.

use std::fmt;

/// A rule that a run can break.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Oracle {
    /// O1: under one (lane, number) there is one content, made by the lane's owner.
    /// Does not look at lanes of a replica that was rolled back unnoticed: those may fork, and are then frozen.
    Uniqueness,
    /// O2: when a change set is applied, everything that its author had applied is applied.
    /// Does not look at what one call of the core applies together, only at the order within it.
    CausalDelivery,
    /// O3: equal frontiers mean equal digests, and once all is calm everything is equal.
    /// Does not look inside documents beyond the keys that writers put there.
    Convergence,
    /// O4: an element or a value is absent only when something that saw it took it away.
    /// Judged by the reference model; does not look at sets whose elements no write of the run touches.
    Absence,
    /// O5: what is acknowledged is as durable as was asked for, and stays.
    /// Does not count a peer's word while somebody tampers with frames: lies about durability are believed.
    Acknowledgement,
    /// O6: a counter is the sum of the visible additions, each counted once.
    Counters,
    /// O7: every value that nothing visible has replaced is shown, and none that something has.
    /// Does not look at what a policy shows, which is a view.
    Siblings,
    /// Every value is shown, was replaced or taken away while it was alone by somebody who had seen it, or is in the journal:
    /// each of several siblings, what removals have beaten, and edits of removed documents. Judged by the order in which a
    /// replica applies. Of a replica that took over a state, looks only at its own writes and at what is in all other journals;
    /// does not look at what removals have beaten in runs with copies, nor at runs in which something was held or rows decayed.
    Journal,
    /// O8: a client that presents its token sees what it saw and wrote before, or is told that it cannot.
    Sessions,
    /// O9: what is kept beside the data stays in proportion: lanes to incarnations, nothing staged at rest.
    /// Does not look at bytes of memory, nor at staged entries whose author was restored to before it made them.
    Bounds,
    /// O10: once the network works, replicas come to hold the same in bounded time, and then fall silent.
    /// While some replicas are still apart, does not look at lanes whose entries wait for what those have; nor at
    /// spaces in which part of a run, whose author was lost with what the rest waits for, cannot be proved to others.
    Liveness,
    /// O11: what is applied of a lane is a prefix of it, and the core says the same of it as its log.
    Prefix,
    /// O12: readers see a change set whole or not at all.
    /// Judged on the objects that the change set touches.
    Atomicity,
    /// O13: each change set that becomes visible is announced once, in order, with its author and objects.
    /// Does not look at change sets that became visible by a restart.
    Events,
    /// O14: nothing of a space reaches a replica that is no member.
    Isolation,
    /// O15: what an honest replica sends, honest replicas accept.
    Acceptance,
    /// O16: nothing panics, and one input leads to bounded work.
    Robustness,
    /// O17: a replica that lost durable data says so.
    LossReport,
    /// O18: the same plan gives the same run.
    Determinism,
    /// An element of a remove-wins set, or a disable-wins flag, is there only when whoever put it there had seen every
    /// removal. Does not look at what a restored replica was refused to do.
    Strict,
    /// A map shows what its keys lead to, and no key that leads to nothing; what was seen of a key that is removed
    /// goes, all else stays. Does not look at maps nested deeper than two.
    Maps,
    /// Under one operation id a replica makes one change set, whoever repeats it: also what came from elsewhere is
    /// not made again. Does not look at runs with jumping clocks, by which ids are forgotten, nor at what two replicas
    /// did that had not heard of each other.
    Operations,
    /// A read that asks for what others had when it began shows that.
    /// Does not look at runs with copies, loss or lies.
    Freshness,
    /// A bounded counter is what was added less what was taken, and never below zero.
    Bounded,
    /// What everybody has seen removed leaves nothing behind. Does not look at spaces in which somebody's lane was
    /// left, forked or lost: there the cut stands still.
    Forgetting,
    /// In calm, replicas receive what they need hardly more than once, and exactly once where there is one way only.
    /// Does not look at runs with few bytes, nor with two processes of one key.
    Copies,
    /// What replicas say of lag: no less than others lack, no more than others have, and nothing when all is calm; and
    /// catching up takes no time then. Outside of calm it does not look at runs with copies, loss or lies, nor ever where two
    /// processes have one key.
    Lag,
    /// A writer is held up only when too few others follow, and not for ever.
    Throttle,
    /// An entry is let go of only by who knows that the owners of all lanes have applied it, and the state is the same as if it
    /// were kept.
    Retention,
    /// Audits find every row of the state that changes by itself, name its object, and make it again where the log is whole; and
    /// find nothing else: what has applied the same operations is the same. Where nothing is to be found it does not look at
    /// runs with lies.
    Audit,
    /// Nothing leaves a replica before it is durable there, and frames decode to what they encode
    /// (invariants 3, 4, 11 of the protocol). Looks at observed runs only.
    Wire,
    /// A stamp of a later change set of a lane is greater, also after a restart (invariant 5).
    Clock,
}

impl Oracle {
    /// Its short name: that of the failure catalogue where it has one.
    pub fn name(self) -> &'static str {
        match self {
            Self::Uniqueness => "O1 uniqueness",
            Self::CausalDelivery => "O2 causal delivery",
            Self::Convergence => "O3 convergence",
            Self::Absence => "O4 absence",
            Self::Acknowledgement => "O5 acknowledgement",
            Self::Counters => "O6 counters",
            Self::Siblings => "O7 siblings",
            Self::Journal => "journal",
            Self::Sessions => "O8 sessions",
            Self::Bounds => "O9 bounds",
            Self::Liveness => "O10 liveness",
            Self::Prefix => "O11 prefix",
            Self::Atomicity => "O12 atomicity",
            Self::Events => "O13 events",
            Self::Isolation => "O14 isolation",
            Self::Acceptance => "O15 acceptance",
            Self::Robustness => "O16 robustness",
            Self::LossReport => "O17 loss report",
            Self::Strict => "removals win",
            Self::Maps => "maps",
            Self::Operations => "operations",
            Self::Freshness => "freshness",
            Self::Bounded => "bounded counters",
            Self::Forgetting => "forgetting",
            Self::Copies => "copies",
            Self::Lag => "lag",
            Self::Throttle => "throttle",
            Self::Retention => "retention",
            Self::Audit => "audit",
            Self::Determinism => "O18 determinism",
            Self::Wire => "wire",
            Self::Clock => "clock",
        }
    }
}

impl fmt::Display for Oracle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A rule was broken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Which.
    pub oracle: Oracle,
    /// How.
    pub detail: String,
    /// When, microseconds from the start of the world.
    pub at_us: u64,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at {} µs: {}", self.oracle, self.at_us, self.detail)
    }
}
