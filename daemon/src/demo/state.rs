//! What the page shows: every region as it is, every link, and what went over them, as one JSON document.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use comity::{LaneStatus, SpaceStatus, View, Watch, text};
use serde_json::{Value as Json, json};
use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;

use super::arrivals::Arrivals;
use super::world::{Between, CURSORS, LIKES, NAME, NOTE, Region, STOCK, TAGS, TEXT, World};
use crate::http::inbox::conflict_json;
use crate::http::problem::Problem;
use crate::http::read::{Wanted, object};
use crate::http::value::integer;
use crate::names;

/// How often the page is told how things are while something is under way.
const LOOK_AGAIN: Duration = Duration::from_millis(200);

/// No more often than this is the page told, however much is written.
const REST: Duration = Duration::from_millis(30);

/// Conflicts that are shown of each region.
const CONFLICTS_MAX: usize = 20;

/// Journal entries that are shown of each region.
const JOURNAL_MAX: usize = 20;

/// The newest state, and what keeps it so.
pub(super) struct Shown {
    pub(super) current: watch::Receiver<Arc<str>>,
    tasks: JoinSet<()>,
}

impl Shown {
    /// Starts to follow the regions.
    pub(super) fn follow(world: &Arc<World>, changed: &Arc<Notify>) -> Self {
        let arrivals = Arc::new(Arrivals::default());
        let (sender, current) = watch::channel(Arc::from("{}"));
        let mut tasks = JoinSet::new();
        for (at, region) in world.regions.iter().enumerate() {
            let watch = region.space.watch();
            tasks.spawn(listen(Arc::clone(world), watch, at, Arc::clone(&arrivals), Arc::clone(changed)));
        }
        tasks.spawn(keep_current(Arc::clone(world), arrivals, Arc::clone(changed), sender));
        Self { current, tasks }
    }

    /// Stops following.
    pub(super) async fn abort_all(mut self) {
        self.tasks.shutdown().await;
    }
}

async fn listen(
    world: Arc<World>,
    mut watch: Watch,
    at: usize,
    arrivals: Arc<Arrivals>,
    changed: Arc<Notify>,
) {
    loop {
        match watch.next().await {
            Ok(event) => {
                if let Some(author) = world.region_of(&event.author) {
                    arrivals.note(&event, author, at);
                }
            }
            // It goes on after that; all else ends it.
            Err(comity::WatchError::Lagged { .. }) => {}
            Err(error) => {
                tracing::debug!(%error, at, "a region is not followed any more");
                return;
            }
        }
        changed.notify_one();
    }
}

async fn keep_current(
    world: Arc<World>,
    arrivals: Arc<Arrivals>,
    changed: Arc<Notify>,
    sender: watch::Sender<Arc<str>>,
) {
    let mut behind = Behind::default();
    loop {
        match state(&world, &arrivals, &mut behind).await {
            Ok(state) => {
                let state: Arc<str> = Arc::from(state.to_string());
                sender.send_if_modified(|shown| {
                    let differs = **shown != *state;
                    *shown = state;
                    differs
                });
            }
            Err(problem) => tracing::debug!(detail = problem.detail, "the page is not told how things are"),
        }
        tokio::time::sleep(REST).await;
        // What peers say of each other changes without a change set.
        let _ = tokio::time::timeout(LOOK_AGAIN, changed.notified()).await;
    }
}

/// Since when each region lacks something of each other one.
#[derive(Default)]
struct Behind(BTreeMap<(usize, usize), Instant>);

impl Behind {
    /// For how long `to` has lacked something of `from`, ms.
    fn ms(&mut self, from: usize, to: usize, lacks: u64) -> u64 {
        if lacks == 0 {
            self.0.remove(&(from, to));
            return 0;
        }
        let since = self.0.entry((from, to)).or_insert_with(Instant::now);
        // In steps that a person can read.
        since.elapsed().as_millis() as u64 / 100 * 100
    }
}

async fn state(world: &Arc<World>, arrivals: &Arrivals, behind: &mut Behind) -> Result<Json, Problem> {
    let mut views = Vec::with_capacity(world.regions.len());
    let mut reports = Vec::with_capacity(world.regions.len());
    for region in &world.regions {
        views.push(region.space.view()?);
        reports.push(region.space.status().await?);
    }
    let (reading, reports) = (Arc::clone(world), Arc::new(reports));
    let read = Arc::clone(&reports);
    let regions = crate::http::request::blocking(move || {
        let regions = reading.regions.iter().zip(views.iter().zip(read.iter()));
        regions.map(|(region, (view, report))| show(&reading, region, view, report)).collect()
    });
    let regions: Vec<Json> = regions.await?;
    let links: Vec<Json> =
        world.links.iter().map(|between| link(world, between, &reports, arrivals, behind)).collect();
    let names: Vec<&str> = world.regions.iter().map(|region| region.name).collect();
    Ok(json!({
        "space": world.regions[0].space.id().to_string(),
        "regions": regions,
        "links": links,
        "writes": arrivals.shown(&names),
    }))
}

fn link(
    world: &World,
    between: &Between,
    reports: &[SpaceStatus],
    arrivals: &Arrivals,
    behind: &mut Behind,
) -> Json {
    let (one, other) = between.ends;
    let connected = world.regions[one].daemon.replica().connected().contains(&world.regions[other].id());
    let mut way = |from: usize, to: usize| {
        let lacks = reports[from].durable.distance_from(&reports[to].durable);
        let measured = arrivals.measured(from, to);
        let name = world.regions[from].name;
        json!({"from": name, "to": world.regions[to].name, "lacks": lacks, "behind_ms": behind.ms(from, to, lacks), "took_ms": measured})
    };
    json!({
        "ends": [world.regions[one].name, world.regions[other].name],
        "condition": between.link.condition(),
        "round_trip_ms": between.link.delay().as_millis() as u64 * 2,
        "connected": connected,
        "ways": [way(one, other), way(other, one)],
    })
}

/// One region, as a view of it shows it. The digest is null where more than the view shows is applied already.
fn show(world: &World, region: &Region, view: &View, report: &SpaceStatus) -> Result<Json, Problem> {
    let shown = view.token()?.frontier;
    let digest = (shown == report.frontier).then(|| report.digest.to_string());
    let wanted = Wanted::default();
    let applied: u64 = shown.iter().map(|(_, lsn)| lsn).sum();
    let name = match object(view, comity::Kind::Register, NAME, &wanted) {
        Err(problem) if problem.trouble.status().as_u16() == 404 => Json::Null,
        read => read?,
    };
    let conflicts: Vec<Json> = view.conflicts(None, CONFLICTS_MAX)?.iter().map(conflict_json).collect();
    let journal: Vec<Json> = view.journal(JOURNAL_MAX)?.iter().map(crate::http::inbox::entry_json).collect();
    let http = region.daemon.http().first().map(|address| format!("http://{address}/"));
    Ok(json!({
        "name": region.name,
        "place": region.place,
        "replica": region.id().to_string(),
        "dashboard": http,
        "digest": digest,
        "applied": applied,
        "note": note(world, view)?,
        "likes": integer(view.counter(LIKES.0, LIKES.1)?),
        "tags": object(view, comity::Kind::Set, TAGS, &wanted)?["elements"],
        "profile": name,
        "stock": stock(world, view, &report.lanes)?,
        "conflicts": conflicts,
        "journal": journal,
    }))
}

/// The text, the version it is, and where each region typed last.
fn note(world: &World, view: &View) -> Result<Json, Problem> {
    let document = view.document(NOTE.0, NOTE.1)?;
    let written = text::read(document.automerge(), TEXT)?.unwrap_or_default();
    let heads: Vec<String> = document.heads().iter().map(|head| names::hex(head)).collect();
    let mut cursors = Vec::new();
    for region in &world.regions {
        let cursor = view.register(CURSORS, region.name)?.latest();
        let Some(comity::Value::List(parts)) = &cursor else { continue };
        let [comity::Value::Bytes(cursor), comity::Value::I64(after)] = parts.as_slice() else { continue };
        // One that is of an edit that is not here cannot be: it came in the same change set.
        let position = text::position(document.automerge(), cursor)?;
        cursors.push(json!({"region": region.name, "position": position as i64 + after}));
    }
    Ok(json!({"text": written, "heads": heads, "cursors": cursors}))
}

/// What is left, and how much of it each region may sell without asking anybody.
fn stock(world: &World, view: &View, lanes: &[LaneStatus]) -> Result<Json, Problem> {
    let counter = view.bounded_counter(STOCK.0, STOCK.1)?;
    let mut rights: BTreeMap<&str, i128> = world.regions.iter().map(|region| (region.name, 0)).collect();
    for (origin, held) in counter.holders() {
        let owner =
            lanes.iter().find(|lane| lane.lane == origin).and_then(|lane| world.region_of(&lane.owner));
        if let Some(owner) = owner {
            *rights.entry(world.regions[owner].name).or_default() += held;
        }
    }
    let rights: BTreeMap<&str, Json> = rights.into_iter().map(|(name, held)| (name, integer(held))).collect();
    Ok(json!({"value": integer(counter.value()), "rights": rights}))
}
