//! The core's report on itself.

use std::collections::BTreeSet;

use comity_crdts::{Frontier, LaneId, ReplicaId};

use crate::bootstrap::BootstrapPhase;
use crate::engine::Engine;
use crate::io::SessionId;
use crate::lag::Lag;
use crate::ranges::Ranged;
use crate::session::Session;
use crate::space::{Space, Staged};
use crate::status::{
    Blocked, BootstrapStatus, LaneLag, LaneStatus, PeerStatus, SessionStatus, SpaceStatus, Status,
};

impl Engine {
    /// Reports on every space, lane and peer as of the last input. O(spaces × lanes × peers), without reading any log.
    pub fn status(&self) -> Status {
        let spaces = self.spaces.values().map(|space| self.space_status(space)).collect();
        let session = |session: &Session| SessionStatus {
            peer: session.peer,
            received_bytes: session.received_bytes,
            needed_bytes: session.needed_bytes,
            version: session.version(),
            stopped_lanes: session.stopped_lanes(),
        };
        let sessions = self.sessions.values().filter(|session| session.greeted).map(session).collect();
        Status { spaces, sessions, refused: self.version_refusals() }
    }

    fn space_status(&self, space: &Space) -> SpaceStatus {
        let missing = self.missing(space);
        SpaceStatus {
            space: space.id,
            name: space.row.name.clone(),
            frontier: space.frontier.clone(),
            durable: space.durable.clone(),
            log_bytes: space.progress.log_bytes,
            digest: space.progress.digest,
            members: space.members.iter().map(|(replica, role)| (*replica, *role)).collect(),
            standing: space.standing(&self.replica),
            lanes: space.lanes.keys().map(|lane| self.lane_status(space, lane)).collect(),
            peers: self.peer_statuses(space),
            missing,
            catch_up_ms: space.lag.arrived.time_for_ms(self.latest.monotonic, missing.entries),
            cut: space.cut.clone(),
            stalled_by: space.stalled_by(),
            bootstrap: self.bootstrap_status(space),
            quarantined: space.quarantined,
            held: space.held,
            audit: self.audits.status(&space.id),
            confirmed: space.own_lane().is_some_and(|own| space.is_confirmed(&own, &self.replica)),
        }
    }

    /// What nobody here has yet of what connected peers have. O(lanes × peers).
    fn missing(&self, space: &Space) -> Lag {
        let mut most = Frontier::new();
        let said = self.open_peers(space).into_keys().filter_map(|peer| space.peer_durable.get(&peer));
        said.for_each(|has| most.merge(has));
        let mut missing = Lag::default();
        for (lane, has) in most.ahead_of(&space.durable) {
            missing.add(space.ahead(&lane, has, self.latest));
        }
        missing
    }

    fn peer_statuses(&self, space: &Space) -> Vec<PeerStatus> {
        let peers = self.present_peers(space).into_iter();
        peers.filter_map(|(peer, session)| self.peer_status(space, (peer, session))).collect()
    }

    fn peer_status(&self, space: &Space, (peer, session): (ReplicaId, SessionId)) -> Option<PeerStatus> {
        let session = self.sessions.get(&session)?;
        let acked = session.spaces.get(&space.id).map(|part| &part.acked);
        let has = self.held_by(space, &peer)?;
        let lacking = space.durable.ahead_of(has).chain(has.ahead_of(&space.durable)).map(|(lane, _)| lane);
        let lanes = lacking.collect::<BTreeSet<_>>().into_iter().map(|lane| {
            let (here, there) = (space.durable.at(&lane), has.at(&lane));
            let behind = space.behind(&lane, (there, here), self.latest);
            LaneLag { lane, behind, ahead: space.ahead(&lane, there, self.latest) }
        });
        let lanes: Vec<LaneLag> = lanes.filter(|lag| !lag.behind.is_none() || !lag.ahead.is_none()).collect();
        let (mut behind, mut ahead) = (Lag::default(), Lag::default());
        lanes.iter().for_each(|lane| {
            behind.add(lane.behind);
            ahead.add(lane.ahead);
        });
        let (moment, fresh) = (self.latest.monotonic, space.fresh_at(&peer));
        Some(PeerStatus {
            peer,
            behind,
            ahead,
            // Where the space is quiet nothing is missing.
            catch_up_ms: acked.map_or(Some(0), |acked| acked.time_for_ms(moment, behind.entries)),
            lanes,
            round_trip_ms: session.round_trip.estimate().map(|known| known.as_millis() as u64),
            fresh_ms: fresh.map(|at| moment.saturating_sub(at).as_millis() as u64),
        })
    }

    fn bootstrap_status(&self, space: &Space) -> Option<BootstrapStatus> {
        if let Some(installing) = &space.installing {
            return Some(BootstrapStatus {
                phase: BootstrapPhase::Installing,
                source: None,
                rows: installing.rows,
                rows_total: installing.offer.rows,
                bytes: installing.offer.bytes,
                bytes_total: installing.offer.bytes,
                passes: 0,
                fault: None,
            });
        }
        let bootstrap = space.bootstrap.as_ref()?;
        let [(rows, rows_total), (bytes, bytes_total)] = bootstrap.progress();
        let source = bootstrap.source().and_then(|session| self.sessions.get(&session));
        let (phase, source) = (bootstrap.phase(), source.map(|session| session.peer));
        let (passes, fault) = (bootstrap.passes, bootstrap.fault.clone());
        Some(BootstrapStatus { phase, source, rows, rows_total, bytes, bytes_total, passes, fault })
    }

    fn lane_status(&self, space: &Space, lane_id: &LaneId) -> LaneStatus {
        let lane = &space.lanes[lane_id];
        let parts = self.sessions.values().filter_map(|session| session.spaces.get(&space.id));
        let known = parts.map(|part| part.peer_have.at(lane_id)).max().unwrap_or(0);
        LaneStatus {
            lane: *lane_id,
            owner: lane.row.owner.replica,
            owner_role: space.members.get(&lane.row.owner.replica).copied(),
            is_own: space.own_lane() == Some(*lane_id),
            applied: lane.row.tip.lsn,
            known: known.max(lane.row.tip.lsn),
            staged: lane.staged.len() as u64,
            staged_bytes: lane.staged_bytes as u64,
            blocked: lane.staged.front().and_then(|first| self.blocked(space, first)),
            parent: self.parent_of(space, lane_id),
            floor: lane.floor.lsn,
            frozen: lane.row.frozen.clone(),
        }
    }

    fn parent_of(&self, space: &Space, lane: &LaneId) -> Option<ReplicaId> {
        let parent = space.parents.get(lane).map(|parent| parent.session);
        let source = parent.or_else(|| space.ranges.get(lane).and_then(Ranged::source))?;
        self.sessions.get(&source).map(|session| session.peer)
    }

    /// What an entry waits for, if it is an entry. O(lanes + peers).
    fn blocked(&self, space: &Space, first: &Staged) -> Option<Blocked> {
        let (lane, lsn) = space.frontier.first_missing(&first.entry.admitted)?;
        let has = |peer: &ReplicaId| space.peer_durable.get(peer).is_some_and(|has| has.at(&lane) >= lsn);
        let held_by = self.open_peers(space).into_keys().filter(has).collect();
        let since_ms = self.latest.monotonic.saturating_sub(first.received).as_millis() as u64;
        Some(Blocked { lane, lsn, since_ms, held_by, asked: self.parent_of(space, &lane) })
    }
}
