//! The core's report on itself.

use comity_crdts::LaneId;

use crate::bootstrap::BootstrapPhase;
use crate::engine::Engine;
use crate::space::Space;
use crate::status::{BootstrapStatus, LaneStatus, SpaceStatus, Status};

impl Engine {
    /// Reports on every space, lane and peer. O(spaces × lanes × peers).
    pub fn status(&self) -> Status {
        let spaces = self.spaces.values().map(|space| self.space_status(space)).collect();
        let sessions = self.sessions.values().filter(|s| s.greeted).map(|session| session.peer).collect();
        Status { spaces, sessions }
    }

    fn space_status(&self, space: &Space) -> SpaceStatus {
        let open = self.sessions.values().filter(|session| session.is_open(&space.id));
        let peers = open.filter_map(|session| {
            let part = session.spaces.get(&space.id)?;
            Some((session.peer, space.durable.distance_from(&part.peer_have)))
        });
        SpaceStatus {
            space: space.id,
            name: space.row.name.clone(),
            frontier: space.frontier.clone(),
            durable: space.durable.clone(),
            log_bytes: space.progress.log_bytes,
            digest: space.progress.digest,
            members: space.members.iter().map(|(replica, role)| (*replica, *role)).collect(),
            lanes: space.lanes.keys().map(|lane| self.lane_status(space, lane)).collect(),
            peers: peers.collect(),
            cut: space.cut.clone(),
            stalled_by: space.stalled_by(),
            bootstrap: self.bootstrap_status(space),
            quarantined: space.quarantined,
            confirmed: space.own_lane().is_some_and(|own| space.is_confirmed(&own, &self.replica)),
        }
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
        let waits_for =
            lane.staged.front().and_then(|staged| space.frontier.first_missing(&staged.entry.admitted));
        let parent = space.parents.get(lane_id).and_then(|parent| self.sessions.get(&parent.session));
        LaneStatus {
            lane: *lane_id,
            owner: lane.row.owner.replica,
            is_own: space.own_lane() == Some(*lane_id),
            applied: lane.row.tip.lsn,
            provable: if lane.row.owner.replica == self.replica { lane.row.tip.lsn } else { lane.row.head },
            known: known.max(lane.row.tip.lsn),
            staged: lane.staged.len() as u64,
            waits_for,
            parent: parent.map(|session| session.peer),
            floor: lane.floor.lsn,
            frozen: lane.row.frozen.clone(),
        }
    }
}
