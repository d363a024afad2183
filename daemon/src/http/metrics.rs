//! Figures for Prometheus, in its text format.

mod figures;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use comity::{AuditStatus, Lag, METER_BOUNDS_US, Meters, ReplicaId, Status};

use super::App;
use super::problem::Problem;
use super::request::blocking;
use crate::auth::{Access, Scope};
use crate::serve::readiness::lacks;
use figures::Figures;

/// Conflicts that are counted in one space.
const CONFLICTS_COUNTED_MAX: usize = 1_000;
/// Combinations of method, route and status that are counted apart. Routes are few, and so are statuses.
const SERIES_MAX: usize = 2_048;

/// What the API was asked.
#[derive(Default)]
pub(crate) struct Served(Mutex<Series>);

#[derive(Default)]
struct Series {
    requests: BTreeMap<(String, String, u16), u64>,
    took: [u64; METER_BOUNDS_US.len() + 1],
    took_us: u64,
}

impl Served {
    /// Counts a request.
    pub(crate) fn note(&self, method: &str, route: &str, status: u16, took: Duration) {
        let us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        let mut series = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        series.took[METER_BOUNDS_US.partition_point(|bound| *bound < us)] += 1;
        series.took_us = series.took_us.saturating_add(us);
        let key = (method.to_owned(), route.to_owned(), status);
        if series.requests.contains_key(&key) || series.requests.len() < SERIES_MAX {
            *series.requests.entry(key).or_default() += 1;
        }
    }
}

/// All figures. O(spaces), off the threads that answer others.
pub(crate) async fn metrics(State(app): State<Arc<App>>, access: Access) -> Result<Response, Problem> {
    access.require_everywhere(Scope::Read)?;
    let status = app.replica.status().await?;
    let traffic = app.replica.traffic().await?;
    let meters = app.replica.meters();
    let text = blocking(move || {
        let mut figures = Figures::default();
        of_daemon(&mut figures, &app, &status);
        of_replication(&mut figures, &status);
        for (peer, stats) in &traffic {
            let labels = [("peer", peer.to_string())];
            let sent = "Bytes of UDP payload sent over the connection";
            figures.one("comity_peer_bytes_sent", "gauge", sent, &labels, stats.udp_bytes_sent);
            let received = "Bytes of UDP payload received over the connection";
            figures.one("comity_peer_bytes_received", "gauge", received, &labels, stats.udp_bytes_received);
            figures.one(
                "comity_peer_packets_lost",
                "gauge",
                "Packets declared lost",
                &labels,
                stats.packets_lost,
            );
        }
        of_state(&mut figures, &app, &status)?;
        of_work(&mut figures, &meters);
        of_http(&mut figures, &app);
        of_process(&mut figures, &app);
        Ok(figures.finish())
    })
    .await?;
    Ok(([(CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text).into_response())
}

fn of_daemon(figures: &mut Figures, app: &App, status: &Status) {
    let region = app.config.region.clone().unwrap_or_default();
    let version = env!("CARGO_PKG_VERSION").to_owned();
    let labels = [("version", version), ("replica", app.replica.id().to_string()), ("region", region)];
    figures.one("comity_info", "gauge", "What runs here", &labels, 1);
    let ready = u64::from(app.readiness.judge(app, status).is_ok());
    figures.one("comity_ready", "gauge", "Whether the daemon has caught up", &[], ready);
    figures.one("comity_uptime_seconds", "gauge", "Since the start", &[], app.started.elapsed().as_secs());
    let damaged = u64::from(app.replica.damage().is_some());
    figures.one("comity_damaged", "gauge", "Whether stored data was lost before the start", &[], damaged);
}

fn of_replication(figures: &mut Figures, status: &Status) {
    figures.one("comity_spaces", "gauge", "Spaces held here", &[], status.spaces.len() as u64);
    let peers = status.sessions.len() as u64;
    figures.one("comity_peers_connected", "gauge", "Connected replicas", &[], peers);
    let about = "Change sets of connected peers that are not applied here";
    figures.one("comity_lag_changes", "gauge", about, &[], lacks(status));
    let mut behind: BTreeMap<ReplicaId, Lag> =
        status.sessions.iter().map(|session| (session.peer, Lag::default())).collect();
    for status in status.spaces.iter().flat_map(|space| &space.peers) {
        let sum = behind.entry(status.peer).or_default();
        sum.entries += status.behind.entries;
        sum.bytes += status.behind.bytes;
        sum.age_ms = sum.age_ms.max(status.behind.age_ms);
    }
    for (peer, lacks) in behind {
        let about = "Change sets here that a connected peer has not reported durable";
        let peer = [("peer", peer.to_string())];
        figures.one("comity_peer_lag_changes", "gauge", about, &peer, lacks.entries);
        let about = "Bytes of these in stored form, partly estimated";
        figures.one("comity_peer_lag_bytes", "gauge", about, &peer, lacks.bytes);
        let about = "How old the oldest of these is, milliseconds";
        figures.one("comity_peer_lag_milliseconds", "gauge", about, &peer, lacks.age_ms.unwrap_or(0));
    }
    let lanes = || status.spaces.iter().flat_map(|space| &space.lanes);
    let staged = lanes().map(|lane| lane.staged).sum();
    figures.one("comity_staged_entries", "gauge", "Entries received that wait for others", &[], staged);
    let frozen = lanes().filter(|lane| lane.frozen.is_some()).count() as u64;
    figures.one("comity_lanes_frozen", "gauge", "Lanes that are not followed any further", &[], frozen);
    let stalled = status.spaces.iter().map(|space| space.stalled_by.len() as u64).sum();
    let about = "Members that keep a space from forgetting what was removed, over all spaces";
    figures.one("comity_stalled_members", "gauge", about, &[], stalled);
    of_audits(figures, status);
    let quarantined = status.spaces.iter().map(|space| space.quarantined).sum();
    figures.one(
        "comity_quarantined_changes",
        "gauge",
        "Changes of documents that are not shown",
        &[],
        quarantined,
    );
    let held = status.spaces.iter().map(|space| space.held).sum();
    let about = "Change sets with operations that this build does not know";
    figures.one("comity_held_change_sets", "gauge", about, &[], held);
    let refused = status.refused.len() as u64;
    let about = "Peers with which no protocol version is shared";
    figures.one("comity_peers_refused", "gauge", about, &[], refused);
}

fn of_audits(figures: &mut Figures, status: &Status) {
    type Count = fn(&AuditStatus) -> u64;
    let counts: [(&str, &str, Count); 6] = [
        ("comity_audit_passes_total", "Audits of spaces that were completed", |audit| audit.passes),
        ("comity_audit_compared_total", "Objects that audits compared with a peer's", |audit| audit.compared),
        ("comity_audit_damaged_total", "Objects whose rows contradicted themselves", |audit| audit.damaged),
        ("comity_audit_diverged_total", "Objects that differed from a peer's and should not", |audit| {
            audit.diverged
        }),
        ("comity_audit_repaired_total", "Objects that were wrong here and were made again", |audit| {
            audit.repaired
        }),
        (
            "comity_audit_unresolved_total",
            "Objects that may be wrong here and could not be made again",
            |audit| audit.unresolved,
        ),
    ];
    for (name, about, count) in counts {
        let all = status.spaces.iter().map(|space| count(&space.audit)).sum();
        figures.one(name, "counter", about, &[], all);
    }
}

fn of_state(figures: &mut Figures, app: &App, status: &Status) -> Result<(), Problem> {
    let (mut conflicts, mut entries, mut bytes, mut pruned) = (0, 0, 0, 0);
    for space in &status.spaces {
        let Some(space) = app.replica.space_now(space.space)? else { continue };
        let view = space.view()?;
        conflicts += view.conflicts(None, CONFLICTS_COUNTED_MAX)?.len() as u64;
        let totals = view.journal_totals()?;
        (entries, bytes, pruned) = (entries + totals.entries, bytes + totals.bytes, pruned + totals.pruned);
    }
    let about = "Conflicts that wait for a decision; at most 1000 of each space are counted";
    figures.one("comity_conflicts", "gauge", about, &[], conflicts);
    figures.one("comity_journal_entries", "gauge", "Entries of all journals", &[], entries);
    figures.one("comity_journal_bytes", "gauge", "Bytes of all journals", &[], bytes);
    figures.one(
        "comity_journal_pruned_total",
        "counter",
        "Journal entries forgotten by their limits",
        &[],
        pruned,
    );
    Ok(())
}

fn of_work(figures: &mut Figures, meters: &Meters) {
    for (name, about, histogram) in [
        ("comity_sync_seconds", "Syncs of the log, which acknowledgements wait for", &meters.syncs),
        ("comity_apply_seconds", "Frames of peers: decoding, checking and applying them", &meters.frames),
        ("comity_job_seconds", "Transactions and questions of clients, on the core's thread", &meters.jobs),
    ] {
        figures.histogram(name, about, (&histogram.counts, histogram.sum_us));
    }
    let waiting = meters.waiting as u64;
    figures.one("comity_queue_waiting", "gauge", "What waits for the core", &[], waiting);
    let about = "What may wait for the core before others wait for room";
    figures.one("comity_queue_capacity", "gauge", about, &[], meters.waiting_max as u64);
}

fn of_http(figures: &mut Figures, app: &App) {
    let series = app.served.0.lock().unwrap_or_else(PoisonError::into_inner);
    for ((method, route, status), count) in &series.requests {
        let labels = [("method", method.clone()), ("route", route.clone()), ("status", status.to_string())];
        figures.one("comity_http_requests_total", "counter", "Requests answered", &labels, *count);
    }
    figures.histogram("comity_http_seconds", "Until the head of an answer", (&series.took, series.took_us));
    let streams = app.config.http.streams_max - app.streams.available_permits();
    figures.one("comity_http_streams", "gauge", "Change feeds that are open", &[], streams as u64);
}

/// What `/proc` says of this process, where there is one, and the disk.
fn of_process(figures: &mut Figures, app: &App) {
    const PAGE_BYTES: u64 = 4_096;
    let pages = std::fs::read_to_string("/proc/self/statm").ok();
    let pages = pages.and_then(|text| text.split(' ').nth(1)?.parse::<u64>().ok());
    if let Some(pages) = pages {
        let about = "Resident memory, bytes";
        figures.one("process_resident_memory_bytes", "gauge", about, &[], pages * PAGE_BYTES);
    }
    if let Ok(open) = std::fs::read_dir("/proc/self/fd") {
        figures.one("process_open_fds", "gauge", "Open file descriptors", &[], open.count() as u64);
    }
    if let Ok(free) = fs4::available_space(&app.config.data_dir) {
        figures.one("comity_disk_free_bytes", "gauge", "Free space where the data directory is", &[], free);
    }
}
