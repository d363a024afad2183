//! Replays a recorded editing history of two authors, one in each region, over real QUIC.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use comity::{
    ObjType, ROOT, ReadDoc, Replica, ReplicaId, Space, Transactable, TxError, Watch, WatchError, automerge,
};
use serde_json::Value as Json;

use crate::distance::Distance;
use crate::{Failure, PATIENCE, claim, ms};

/// How long everything takes from one region to the other.
const ONE_WAY: Duration = Duration::from_millis(10);

/// How long one author may have to wait for the other, who has thousands of transactions to make first.
const PATIENCE_FOR_OTHER: Duration = PATIENCE.saturating_mul(10);

/// Transactions of one author that may wait for their acknowledgement at once.
const IN_FLIGHT_MAX: usize = 256;

/// One recorded transaction.
struct Recorded {
    agent: usize,
    /// The transactions it was made after, by index.
    parents: Vec<usize>,
    /// Position, characters deleted, text inserted; in order.
    patches: Vec<(usize, usize, String)>,
}

struct Trace {
    transactions: Vec<Recorded>,
    end: String,
}

/// What the replay knows of the versions: which change each transaction became, and when.
#[derive(Default)]
struct Versions {
    changes: BTreeMap<usize, [u8; 32]>,
    made: BTreeMap<usize, Instant>,
}

type Shared = Arc<Mutex<Versions>>;

fn versions(shared: &Shared) -> std::sync::MutexGuard<'_, Versions> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Replays the file and checks the final text on both sides.
pub(crate) async fn replay(file: &Path) -> Result<(), Failure> {
    let trace = Arc::new(read(file)?);
    let count = trace.transactions.len();
    println!(
        "{count} recorded transactions of two authors, eu and us, each in a region of their own, {} apart",
        ms(ONE_WAY)
    );
    let directory = tempfile::tempdir()?;
    let eu = Replica::open(directory.path().join("eu")).await?;
    eu.listen("127.0.0.1:0".parse()?).await?;
    let eu_space = eu.create_space("trace").await?;
    let us = Replica::open(directory.path().join("us")).await?;
    let mut ticket = eu_space.invite().await?;
    let distance =
        Distance::to(*ticket.addresses.first().ok_or("the ticket names no address")?, ONE_WAY).await?;
    ticket.addresses = vec![distance.near()];
    let us_space = us.connect(&ticket).await?;
    let (eu_watch, us_watch) = (eu_space.watch().collection("trace")?, us_space.watch().collection("trace")?);
    let created =
        eu_space.document("trace", "text").edit(|doc| Ok(doc.put_object(ROOT, "text", ObjType::Text)?));
    us_space.at_within(&created.await?.token(), PATIENCE).await?;

    let shared = Shared::default();
    let started = Instant::now();
    let players = [(0, eu_space.clone(), us.id(), eu_watch), (1, us_space.clone(), eu.id(), us_watch)];
    let mut playing = Vec::new();
    for (agent, space, other, watch) in players {
        let arrivals = Arrivals { watch, other, arrived: 0, lags: Vec::new() };
        playing.push(tokio::spawn(play(agent, space, Arc::clone(&trace), Arc::clone(&shared), arrivals)));
    }
    let mut lags = Vec::new();
    for player in playing {
        lags.extend(player.await??);
    }
    for (here, there) in [(&eu_space, &us_space), (&us_space, &eu_space)] {
        there.at_within(&here.token().await?, PATIENCE).await?;
    }
    let elapsed = started.elapsed();
    report(count, elapsed, lags);
    check(&eu_space, &us_space, &trace.end).await?;
    eu.shutdown().await;
    us.shutdown().await;
    drop(distance);
    Ok(())
}

fn report(count: usize, elapsed: Duration, mut lags: Vec<Duration>) {
    let rate = count as f64 / elapsed.as_secs_f64();
    println!(
        "{count} change sets made, made durable and exchanged in {:.1} s: {rate:.0} a second",
        elapsed.as_secs_f64()
    );
    lags.sort_unstable();
    let at = |share: f64| lags.get((lags.len() as f64 * share) as usize).copied().unwrap_or_default();
    println!(
        "lag from the edit in one region to its durable visibility in the other: median {}, 99th percentile {}",
        ms(at(0.5)),
        ms(at(0.99)),
    );
}

async fn check(eu: &Space, us: &Space, end: &str) -> Result<(), Failure> {
    for space in [eu, us] {
        let document = space.document("trace", "text").read()?;
        let text = text(document.automerge())?;
        claim(document.automerge().text(&text)? == end, "the final text is the recorded one")?;
    }
    let (eu, us) = (eu.status().await?, us.status().await?);
    claim(eu.digest == us.digest, "both regions have the same state")?;
    println!(
        "final text of {} characters as recorded, in both regions; state digest {}",
        end.chars().count(),
        eu.digest
    );
    Ok(())
}

/// What has arrived from the other author.
struct Arrivals {
    watch: Watch,
    other: ReplicaId,
    /// Transactions of the other author that are visible here.
    arrived: usize,
    lags: Vec<Duration>,
}

impl Arrivals {
    async fn next_in_time(&mut self, of_other: &[usize], shared: &Shared) -> Result<(), Failure> {
        let next = tokio::time::timeout(PATIENCE_FOR_OTHER, self.next(of_other, shared)).await;
        next.unwrap_or_else(|_| {
            let (arrived, other) = (self.arrived, self.other);
            Err(format!("nothing more of {other} in {PATIENCE_FOR_OTHER:?} after {arrived} transactions")
                .into())
        })
    }

    /// Takes in one more change of the text.
    async fn next(&mut self, of_other: &[usize], shared: &Shared) -> Result<(), Failure> {
        let change = match self.watch.next().await {
            // It goes on where it is.
            Err(WatchError::Lagged { .. }) => return Ok(()),
            change => change?,
        };
        if change.author != self.other {
            return Ok(());
        }
        // The change set that made the text comes before the author's first transaction.
        if let Some(index) = of_other.get(self.arrived)
            && let Some(made) = versions(shared).made.get(index)
        {
            self.lags.push(made.elapsed());
            self.arrived += 1;
        }
        Ok(())
    }
}

/// Makes one author's transactions in its region, each on exactly the version it was recorded on.
async fn play(
    agent: usize,
    space: Space,
    trace: Arc<Trace>,
    shared: Shared,
    mut arrivals: Arrivals,
) -> Result<Vec<Duration>, Failure> {
    let by = |agent: usize| -> Vec<usize> {
        let all = trace.transactions.iter().enumerate();
        all.filter(|(_, recorded)| recorded.agent == agent).map(|(index, _)| index).collect()
    };
    let (own, others) = (by(agent), by(1 - agent));
    let place: BTreeMap<usize, usize> =
        others.iter().enumerate().map(|(place, index)| (*index, place)).collect();
    let mut pending = std::collections::VecDeque::new();
    for index in own {
        let parents = &trace.transactions[index].parents;
        let needed =
            parents.iter().filter_map(|parent| place.get(parent)).map(|place| place + 1).max().unwrap_or(0);
        while arrivals.arrived < needed {
            arrivals.next_in_time(&others, &shared).await?;
        }
        let (trace, shared) = (Arc::clone(&trace), Arc::clone(&shared));
        let write = space.transact(move |tx| make(tx, index, &trace.transactions[index], &shared));
        pending.push_back(write.submit().await?);
        if pending.len() >= IN_FLIGHT_MAX
            && let Some(oldest) = pending.pop_front()
        {
            oldest.receipt().await?;
        }
    }
    for write in pending {
        write.receipt().await?;
    }
    while arrivals.arrived < others.len() {
        arrivals.next_in_time(&others, &shared).await?;
    }
    Ok(arrivals.lags)
}

/// Makes one recorded transaction on the version its parents name.
fn make(
    tx: &mut comity::Transaction<'_, '_>,
    index: usize,
    recorded: &Recorded,
    shared: &Shared,
) -> Result<(), TxError> {
    let mut parents = Vec::new();
    for parent in &recorded.parents {
        let change = versions(shared).changes.get(parent).copied();
        parents.push(change.ok_or_else(|| TxError::refuse("a parent was not made yet"))?);
    }
    parents.sort_unstable();
    let mut document = tx.document("trace", "text");
    let before = document.read()?.heads();
    let edit = |doc: &mut automerge::transaction::Transaction<'_>| -> Result<(), TxError> {
        let text = text(doc)?;
        for (position, deleted, inserted) in &recorded.patches {
            doc.splice_text(&text, *position, *deleted as isize, inserted)?;
        }
        Ok(())
    };
    if parents.is_empty() || parents == before {
        document.edit(edit)?
    } else {
        document.edit_at(&parents, edit)?
    }
    let made: Vec<[u8; 32]> =
        document.read()?.heads().into_iter().filter(|head| !before.contains(head)).collect();
    let [change] = made.as_slice() else { return Err(TxError::refuse("an edit makes one change")) };
    let mut versions = versions(shared);
    versions.changes.insert(index, *change);
    versions.made.insert(index, Instant::now());
    Ok(())
}

fn text(document: &impl ReadDoc) -> Result<automerge::ObjId, TxError> {
    let found = document.get(ROOT, "text")?;
    found.map(|(_, text)| text).ok_or_else(|| TxError::refuse("the document has no text"))
}

fn read(file: &Path) -> Result<Trace, Failure> {
    let opened = File::open(file).map_err(|error| format!("cannot open {}: {error}", file.display()))?;
    let json: Json = serde_json::from_reader(std::io::BufReader::new(flate2::read::GzDecoder::new(opened)))?;
    let malformed = || format!("{} is not an editing history of two authors", file.display());
    let transactions = json["txns"].as_array().ok_or_else(malformed)?;
    let transactions =
        transactions.iter().map(|t| recorded(t).ok_or_else(malformed)).collect::<Result<_, _>>()?;
    let end = json["endContent"].as_str().ok_or_else(malformed)?.to_owned();
    claim(json["numAgents"].as_u64() == Some(2), "the history has two authors")?;
    Ok(Trace { transactions, end })
}

fn recorded(json: &Json) -> Option<Recorded> {
    let number = |json: &Json| json.as_u64().map(|number| number as usize);
    let patch = |json: &Json| Some((number(&json[0])?, number(&json[1])?, json[2].as_str()?.to_owned()));
    Some(Recorded {
        agent: number(&json["agent"]).filter(|agent| *agent < 2)?,
        parents: json["parents"].as_array()?.iter().map(number).collect::<Option<_>>()?,
        patches: json["patches"].as_array()?.iter().map(patch).collect::<Option<_>>()?,
    })
}
