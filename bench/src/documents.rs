//! Automerge documents: editing and following them, against plain Automerge doing the same in the same run; and what
//! documents take that nobody touches.
//!
//! The edits are those of one person writing a paper (`automerge-paper.json.gz` in the folder that `COMITY_TRACES`
//! names, `../shared/data` otherwise), character by character.

use std::collections::VecDeque;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use comity::automerge::transaction::CommitOptions;
use comity::automerge::{Automerge, ObjId};
use comity::{Kind, Listing, ObjType, OpenOptions, ROOT, ReadDoc, Replica, Space, Transactable, TxError};

use crate::options::Options;
use crate::{Failure, Verdict, machine, table};

/// Transactions that may wait for their acknowledgement at once.
const IN_FLIGHT_MAX: usize = 256;

/// What Comity must reach of plain Automerge's rate, batched.
const BATCHED_PART: f64 = 0.7;

type Edit = (usize, isize, String);

struct Trace {
    edits: Vec<Edit>,
    end: String,
}

pub(crate) fn run(options: &Options) -> Result<Verdict, Failure> {
    let mut verdict = Verdict::default();
    let (limit, batch): (usize, usize) = (options.value("edits", usize::MAX)?, options.value("batch", 100)?);
    let (repeats, idle): (usize, usize) = (options.value("repeats", 3)?, options.value("idle", 100_000)?);
    let open: String = options.value("open", String::new())?;
    if !open.is_empty() {
        tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(open_idle(&open))?;
        return Ok(verdict);
    }
    let Some(trace) = read(limit)? else {
        println!("NOT RUN: automerge-paper.json.gz is not in the folder that COMITY_TRACES names");
        return Ok(verdict);
    };
    let trace = Arc::new(trace);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let mut rows = Vec::new();
    for per_change in [1, batch] {
        let mut rates: Vec<(f64, f64)> = Vec::new();
        for _ in 0..repeats.max(1) {
            let plain = plain(&trace, per_change)?;
            let ours = runtime.block_on(ours(&trace, per_change))?;
            rates.push((trace.edits.len() as f64 / plain, trace.edits.len() as f64 / ours));
        }
        let median = |mut of: Vec<f64>| {
            of.sort_by(f64::total_cmp);
            of[of.len() / 2]
        };
        let part = median(rates.iter().map(|(plain, ours)| ours / plain).collect());
        let (plain, ours) = (rates.iter().map(|rate| rate.0), rates.iter().map(|rate| rate.1));
        rows.push(vec![
            per_change.to_string(),
            format!("{:.0}", median(plain.collect())),
            format!("{:.0}", median(ours.collect())),
            format!("{part:.2}"),
        ]);
        if per_change > 1 && part < BATCHED_PART {
            verdict
                .broken
                .push(format!("batched edits reach {part:.2} of plain Automerge, not {BATCHED_PART}"));
        }
    }
    println!("{} edits of a text; Comity's are durable, plain Automerge's only in memory", trace.edits.len());
    table::print(&["edits in a change", "plain Automerge, edits/s", "Comity, edits/s", "part"], &rows);
    runtime.block_on(following(&trace, &mut verdict))?;
    runtime.block_on(idle_documents(idle))?;
    Ok(verdict)
}

fn read(limit: usize) -> Result<Option<Trace>, Failure> {
    let folder =
        std::env::var_os("COMITY_TRACES").map_or_else(|| PathBuf::from("../shared/data"), PathBuf::from);
    let file = folder.join("automerge-paper.json.gz");
    let Ok(opened) = File::open(&file) else { return Ok(None) };
    let json: serde_json::Value =
        serde_json::from_reader(std::io::BufReader::new(flate2::read::GzDecoder::new(opened)))?;
    let malformed = || format!("{} is not an editing history", file.display());
    let mut edits = Vec::new();
    for transaction in json["txns"].as_array().ok_or_else(malformed)? {
        for patch in transaction["patches"].as_array().ok_or_else(malformed)? {
            let at = patch[0].as_u64().ok_or_else(malformed)? as usize;
            let deleted = patch[1].as_i64().ok_or_else(malformed)? as isize;
            edits.push((at, deleted, patch[2].as_str().ok_or_else(malformed)?.to_owned()));
        }
    }
    let mut end = json["endContent"].as_str().ok_or_else(malformed)?.to_owned();
    if limit < edits.len() {
        edits.truncate(limit);
        end.clear();
    }
    Ok(Some(Trace { edits, end }))
}

/// Seconds that plain Automerge takes.
fn plain(trace: &Trace, per_change: usize) -> Result<f64, Failure> {
    let mut automerge = Automerge::new();
    let mut transaction = automerge.transaction();
    let text = transaction.put_object(ROOT, "text", ObjType::Text)?;
    transaction.commit();
    let started = Instant::now();
    for edits in trace.edits.chunks(per_change) {
        let mut transaction = automerge.transaction();
        for (at, deleted, inserted) in edits {
            transaction.splice_text(&text, *at, *deleted, inserted)?;
        }
        transaction.commit_with(CommitOptions::default().with_time(1_700_000_000));
    }
    let took = started.elapsed().as_secs_f64();
    check(trace, &automerge.text(&text)?)?;
    Ok(took)
}

fn check(trace: &Trace, text: &str) -> Result<(), Failure> {
    if trace.end.is_empty() || text == trace.end {
        Ok(())
    } else {
        Err("the text is not the recorded one".into())
    }
}

async fn offline(directory: &Path) -> Result<(Replica, Space), Failure> {
    let mut options = OpenOptions::default();
    options.stay_offline = true;
    let replica = Replica::open_with(directory, options).await?;
    let space = replica.create_space("bench").await?;
    Ok((replica, space))
}

async fn make_text(space: &Space) -> Result<(), Failure> {
    space
        .document("d", "paper")
        .edit(|doc| Ok(doc.put_object(ROOT, "text", ObjType::Text).map(drop)?))
        .await?;
    Ok(())
}

fn text_of(document: &impl ReadDoc) -> Result<ObjId, TxError> {
    let found = document.get(ROOT, "text")?;
    found.map(|(_, text)| text).ok_or_else(|| TxError::refuse("the document has no text"))
}

/// Types `edits`, so many in a change and one change in a transaction.
async fn type_edits(
    space: &Space,
    trace: &Arc<Trace>,
    edits: std::ops::Range<usize>,
    per_change: usize,
) -> Result<(), Failure> {
    let mut waiting = VecDeque::new();
    for from in edits.clone().step_by(per_change) {
        let until = edits.end.min(from + per_change);
        let trace = Arc::clone(trace);
        let write = space.document("d", "paper").edit(move |doc| {
            let text = text_of(doc)?;
            for (at, deleted, inserted) in &trace.edits[from..until] {
                doc.splice_text(&text, *at, *deleted, inserted)?;
            }
            Ok(())
        });
        waiting.push_back(write.submit().await?);
        if waiting.len() >= IN_FLIGHT_MAX
            && let Some(oldest) = waiting.pop_front()
        {
            oldest.receipt().await?;
        }
    }
    for write in waiting {
        write.receipt().await?;
    }
    Ok(())
}

/// Seconds that a replica takes, until all of it is durable.
async fn ours(trace: &Arc<Trace>, per_change: usize) -> Result<f64, Failure> {
    let directory = tempfile::tempdir()?;
    let (replica, space) = offline(directory.path()).await?;
    make_text(&space).await?;
    let started = Instant::now();
    type_edits(&space, trace, 0..trace.edits.len(), per_change).await?;
    let took = started.elapsed().as_secs_f64();
    let document = space.document("d", "paper").read()?;
    check(trace, &document.automerge().text(&text_of(document.automerge())?)?)?;
    replica.shutdown().await;
    Ok(took)
}

/// One author types in a large document; another replica follows.
async fn following(trace: &Arc<Trace>, verdict: &mut Verdict) -> Result<(), Failure> {
    let directory = tempfile::tempdir()?;
    let author = Replica::open(directory.path().join("author")).await?;
    author.listen("127.0.0.1:0".parse()?).await?;
    let space = author.create_space("bench").await?;
    make_text(&space).await?;
    let burst = 4_000.min(trace.edits.len() / 4);
    let slow = 100.min(burst);
    let before = trace.edits.len() - burst - slow;
    type_edits(&space, trace, 0..before, 1).await?;
    let follower = Replica::open(directory.path().join("follower")).await?;
    let followed = follower.connect(&space.invite().await?).await?;
    followed.at_within(&space.token().await?, Duration::from_secs(600)).await?;
    let mut feed = followed.document("d", "paper").follow()?;
    let started = Instant::now();
    let mut shown = feed.next().await?.document.change_count();
    println!("{} changes: the follower's first view of the document took {:.2?}", shown, started.elapsed());
    at_rest().await;
    let mut lags = Vec::new();
    let cpu = machine::cpu_seconds();
    let started = Instant::now();
    for index in before..before + slow {
        tokio::time::sleep_until((started + Duration::from_millis(100) * (index - before) as u32).into())
            .await;
        let typed = Instant::now();
        type_edits(&space, trace, index..index + 1, 1).await?;
        while shown < index + 2 {
            shown = feed.next().await?.document.change_count();
        }
        lags.push(typed.elapsed());
    }
    let part = (machine::cpu_seconds() - cpu) / started.elapsed().as_secs_f64();
    lags.sort_unstable();
    let (median, worst) = (lags[lags.len() / 2], lags[lags.len() - 1]);
    println!(
        "10 keystrokes a second: visible to the follower after {median:.1?} (median; worst {worst:.1?}); both replicas \
         and the feed take {:.1} % of a core",
        part * 100.0
    );
    if part > 0.05 {
        verdict.broken.push(format!("author and follower take {:.1} % of a core, not 5 %", part * 100.0));
    }
    if median > Duration::from_millis(100) {
        verdict.broken.push(format!("an edit is visible to a follower after {median:?}, not 100 ms"));
    }
    let started = Instant::now();
    let typing = type_edits(&space, trace, before + slow..trace.edits.len(), 1);
    let showing = async {
        let mut steps = 0;
        while shown < trace.edits.len() + 1 {
            shown = feed.next().await?.document.change_count();
            steps += 1;
        }
        Ok::<_, Failure>(steps)
    };
    let (typed, steps) = tokio::join!(typing, showing);
    typed?;
    let took = started.elapsed();
    println!(
        "a burst of {burst} changes, each a durable change set: visible to the follower after {took:.2?}, in {} updates",
        steps?
    );
    if took > Duration::from_secs(1) {
        verdict.broken.push(format!("a burst of {burst} changes is visible after {took:?}, not a second"));
    }
    author.shutdown().await;
    follower.shutdown().await;
    Ok(())
}

/// Waits until this process does next to nothing: what was typed is settled then.
async fn at_rest() {
    loop {
        let before = machine::cpu_seconds();
        tokio::time::sleep(Duration::from_secs(1)).await;
        if machine::cpu_seconds() - before < 0.05 {
            return;
        }
    }
}

/// Documents that were made and are not touched.
async fn idle_documents(count: usize) -> Result<(), Failure> {
    let directory = tempfile::tempdir()?;
    let (replica, space) = offline(directory.path()).await?;
    for from in (0..count).step_by(500) {
        let until = count.min(from + 500);
        let write = space.transact(move |tx| {
            for index in from..until {
                tx.document("idle", &index.to_string()).edit(|doc| Ok(doc.put(ROOT, "title", "a note")?))?;
            }
            Ok(())
        });
        write.await?;
    }
    replica.shutdown().await;
    // A process of its own, whose memory nothing else has used.
    let mut opener = std::process::Command::new(std::env::current_exe()?);
    opener.args(["documents", "--open"]).arg(directory.path());
    if opener.status()?.success() { Ok(()) } else { Err("the idle documents were not opened".into()) }
}

/// Opens a replica with idle documents, and tells what that takes.
async fn open_idle(directory: &str) -> Result<(), Failure> {
    let before = machine::resident_bytes();
    let started = Instant::now();
    let (replica, space) = {
        let mut options = OpenOptions::default();
        options.stay_offline = true;
        let replica = Replica::open_with(directory, options).await?;
        let (id, _) = replica.spaces().await?.into_iter().next().ok_or("the space is gone")?;
        let space = replica.space(id).await?;
        (replica, space)
    };
    let took = started.elapsed();
    let view = space.view()?;
    let mut after: Option<String> = None;
    let mut count = 0;
    loop {
        let (collection, prefix, limit) = ("idle", "", 1_000);
        let listing = Listing { kind: Kind::Document, collection, prefix, after: after.as_deref(), limit };
        let keys = view.list(listing)?;
        count += keys.len();
        let Some(last) = keys.into_iter().last() else { break };
        after = Some(last);
    }
    let bytes = machine::resident_bytes().saturating_sub(before);
    println!(
        "{count} idle documents: opened in {took:.2?}; {:.1} MiB more resident once they are listed, {:.0} bytes each",
        bytes as f64 / (1 << 20) as f64,
        bytes as f64 / count.max(1) as f64
    );
    replica.shutdown().await;
    Ok(())
}
