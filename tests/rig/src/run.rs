//! One run: set up, load and faults, heal, converge, audit, restart, audit again, report.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use comity_history::{History, Operation};

use crate::audit::{Holdings, audit, converge};
use crate::draws::Draws;
use crate::error::RigError;
use crate::fleet::Fleet;
use crate::founding::{Map, found};
use crate::lab::Lab;
use crate::ledger::{Fate, Oracle, Violation, check_registers};
use crate::plan::{Abilities, Plan};
use crate::process::lock;
use crate::session::{Counts, Session};
use crate::shaper::{Order, Tally, Weather};
use crate::torment::{Injected, Torment};

/// Sessions for each node.
const SESSIONS_PER_NODE: usize = 3;

/// What the oracles are to be deceived with, to see that they notice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Canary {
    /// A data directory is put back to an earlier state after more was acknowledged.
    RollBack,
    /// A session's last read lacks a value that is there.
    ForgetWrite,
    /// An acknowledged element is not listed.
    LoseElement,
    /// A counter shows one more than it counts.
    CountTwice,
}

impl Canary {
    /// By name.
    pub const ALL: [(&'static str, Self); 4] = [
        ("roll-back", Self::RollBack),
        ("forget-write", Self::ForgetWrite),
        ("lose-element", Self::LoseElement),
        ("count-twice", Self::CountTwice),
    ];

    /// Who has to notice.
    pub fn noticed_by(self) -> Oracle {
        match self {
            Self::RollBack => Oracle::Recovered,
            Self::ForgetWrite => Oracle::Causality,
            Self::LoseElement => Oracle::Elements,
            Self::CountTwice => Oracle::Counters,
        }
    }
}

/// What to run.
#[derive(Clone, Debug)]
pub struct RunOptions {
    /// Of everything that is drawn.
    pub seed: u64,
    /// How long faults are injected.
    pub time: Duration,
    /// Nodes.
    pub nodes: usize,
    /// What begins the names of namespaces.
    pub tag: String,
    /// Where data and logs go.
    pub directory: PathBuf,
    /// What can be injected here.
    pub abilities: Abilities,
    /// What to deceive the oracles with.
    pub canary: Option<Canary>,
}

/// What a run did.
pub struct Report {
    map: Map,
    counts: Counts,
    injected: Injected,
    tally: Tally,
    kills: u64,
    starts: u64,
    fates: BTreeMap<&'static str, u64>,
    convergence: [Duration; 2],
    checked: Option<comity_history::Summary>,
    elapsed: Duration,
    /// What was found wrong.
    pub violations: Vec<Violation>,
}

/// Runs.
///
/// # Errors
/// [`RigError`] when the rig itself fails; what replicas did wrong is in the report.
pub fn run(options: &RunOptions) -> Result<Report, RigError> {
    let started = Instant::now();
    let lab = Lab::set_up(&options.tag, &options.directory, options.nodes, options.abilities)?;
    let fleet = Arc::new(Fleet::new(lab, options.seed)?);
    let map = Map::draw(options.seed);
    found(&fleet, map)?;
    let (stop, sessions) = open_sessions(&fleet, options);
    let mut torment = Torment::new(&fleet, options.seed);
    let tormented = torment
        .run(&mut Plan::new(options.seed, options.nodes, options.abilities), Instant::now() + options.time);
    if options.canary == Some(Canary::RollBack) {
        torment.roll_back()?;
    }
    drop(stop);
    let mut sessions: Vec<Session> = sessions
        .into_iter()
        .map(|thread| thread.join().expect("a session that panics has said why"))
        .collect();
    let injected = torment.injected;
    tormented?;
    let tally = heal(&fleet)?;
    let mut convergence = [converge(&fleet)?, Duration::ZERO];
    let mut draws = Draws::new(options.seed, 4);
    sessions.iter_mut().for_each(|session| session.read_all(draws.index(options.nodes)));
    let before = audit(&fleet, |found| spoil(options.canary, found))?;
    fleet.numbers().for_each(|node| fleet.kill(node));
    fleet.numbers().try_for_each(|node| fleet.start(node))?;
    convergence[1] = converge(&fleet)?;
    let after = audit(&fleet, |found| spoil(options.canary, found))?;
    if before != after {
        let detail = "what nodes hold differs after they were all restarted".to_owned();
        fleet.findings.add(Violation::new(Oracle::Recovered, detail));
    }
    let checked = check_history(&fleet, options.canary, &mut sessions, &after);
    check_logs(&fleet);
    let mut counts = Counts::default();
    sessions.iter().for_each(|session| counts.merge(&session.counts));
    Ok(Report {
        map,
        counts,
        injected,
        tally,
        kills: fleet.kills(),
        starts: fleet.starts(),
        fates: fates(&fleet),
        convergence,
        checked,
        elapsed: started.elapsed(),
        violations: fleet.findings.all(),
    })
}

type Running = Vec<std::thread::JoinHandle<Session>>;

/// Starts sessions, which work until what is returned first is dropped.
fn open_sessions(fleet: &Arc<Fleet>, options: &RunOptions) -> (Vec<mpsc::Sender<()>>, Running) {
    let (mut stops, mut threads) = (Vec::new(), Vec::new());
    for number in 0..options.nodes * SESSIONS_PER_NODE {
        let (stop, stopped) = mpsc::channel();
        let mut session = Session::new(Arc::clone(fleet), number as u64, options.seed);
        stops.push(stop);
        threads.push(std::thread::spawn(move || {
            session.run(&stopped);
            session
        }));
    }
    (stops, threads)
}

/// Ends every fault: good weather, no partition, every node up.
fn heal(fleet: &Fleet) -> Result<Tally, RigError> {
    fleet.shape(Order::Weather(Weather::default()))?;
    fleet.shape(Order::Heal)?;
    for node in fleet.numbers() {
        if fleet.up(node).is_none_or(|process| process.has_failed()) {
            fleet.kill(node);
            fleet.start(node)?;
        }
    }
    fleet.shape(Order::Count)
}

fn spoil(canary: Option<Canary>, found: &mut Holdings) {
    match canary {
        Some(Canary::LoseElement) => drop(found.elements.pop_last()),
        Some(Canary::CountTwice) => found.sums.own[0] += 1_000,
        Some(Canary::RollBack | Canary::ForgetWrite) | None => {}
    }
}

fn check_history(
    fleet: &Fleet,
    canary: Option<Canary>,
    sessions: &mut [Session],
    ends: &Holdings,
) -> Option<comity_history::Summary> {
    let taken = sessions.iter_mut().map(|session| std::mem::take(&mut session.operations));
    let mut history = History { sessions: taken.collect() };
    fleet.findings.add_all(check_registers(&history, &ends.registers));
    if canary == Some(Canary::ForgetWrite) {
        forget(&mut history);
    }
    match comity_history::check(&history) {
        Ok(summary) => Some(summary),
        Err(anomaly) => {
            fleet.findings.add(Violation::new(Oracle::Causality, anomaly.to_string()));
            let path = fleet.lab.directory.join("history.txt");
            // The anomaly stands without it.
            let _ = std::fs::write(&path, format!("{history:#?}"));
            None
        }
    }
}

/// Takes a value from the last read that saw any.
fn forget(history: &mut History) {
    for operation in history.sessions.iter_mut().flat_map(|session| session.iter_mut().rev()) {
        if let Operation::Read { values, .. } = operation
            && values.pop().is_some()
        {
            return;
        }
    }
}

fn check_logs(fleet: &Fleet) {
    for node in fleet.numbers() {
        let log = std::fs::read_to_string(fleet.lab.log(node)).unwrap_or_default();
        for line in log.lines().filter(|line| line.contains("panicked at")) {
            fleet.findings.add(Violation::new(Oracle::Alive, format!("node {node}: {line}")));
        }
    }
}

fn fates(fleet: &Fleet) -> BTreeMap<&'static str, u64> {
    let ledger = lock(&fleet.ledger);
    let named = [
        ("acknowledged", Fate::Acknowledged),
        ("unknown", Fate::Unknown),
        ("refused", Fate::Refused),
        ("unanswered", Fate::Tried),
    ];
    named.into_iter().map(|(name, fate)| (name, ledger.count(None, fate))).collect()
}

impl std::fmt::Display for Report {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Counts { writes, reads, additions, sums, unknown, nobody, refused, indeterminate } = &self.counts;
        let done = self.counts.done();
        writeln!(f, "map           {:?}, {:.0?} in all", self.map, self.elapsed)?;
        writeln!(
            f,
            "operations    {done} answered: {writes} writes, {reads} reads, {additions} additions, {sums} sums; \
             {unknown} unknown, {nobody} found their node down"
        )?;
        writeln!(f, "refusals      {refused:?}; indeterminate {indeterminate:?}")?;
        writeln!(f, "additions     {:?}", self.fates)?;
        writeln!(
            f,
            "processes     {} kills (SIGKILL), {} while recovering, {} starts",
            self.kills, self.injected.kills_recovering, self.starts
        )?;
        writeln!(f, "faults        {:?}", self.injected)?;
        writeln!(f, "datagrams     {}", self.tally)?;
        writeln!(
            f,
            "converged     {:.1?} after healing, {:.1?} after restarting all",
            self.convergence[0], self.convergence[1]
        )?;
        writeln!(f, "history       {:?}", self.checked)?;
        for oracle in Oracle::ALL {
            let count = self.violations.iter().filter(|violation| violation.oracle == oracle).count();
            let verdict = if count == 0 { "ok".to_owned() } else { format!("VIOLATED {count} times") };
            writeln!(f, "oracle        {:<55} {verdict}", oracle.promise())?;
        }
        Ok(())
    }
}
