//! Telling when a lag passes a limit and when it is back. Looked at together, a tenth of a second after something moved,
//! so that it costs nothing per entry.

use std::collections::BTreeMap;
use std::time::Duration;

use comity_crdts::{ReplicaId, SpaceId};

use super::{Lag, LagChange, LagEvent, LagLimits, LagSide};
use crate::engine::{Engine, Timer};
use crate::io::{Notice, Now, Output, SessionId};
use crate::limits::LAG_LOOK_AFTER;
use crate::space::Space;

impl Engine {
    /// The peers with which a space is open at present, each with one of its sessions.
    pub(crate) fn open_peers(&self, space: &Space) -> BTreeMap<ReplicaId, SessionId> {
        let peer = |session: &SessionId| self.sessions.get(session).map(|open| (open.peer, *session));
        space.sessions.iter().filter_map(peer).collect()
    }

    /// What a peer lacks of what is durable here, in all lanes together. O(lanes).
    pub(crate) fn lag_there(&self, space: &Space, peer: &ReplicaId) -> Lag {
        let mut lag = Lag::default();
        let Some(has) = space.peer_durable.get(peer) else { return lag };
        for (lane, until) in space.durable.ahead_of(has) {
            lag.add(space.behind(&lane, (has.at(&lane), until), self.latest));
        }
        lag
    }

    /// What this replica lacks of what a peer has, in all lanes together. O(lanes).
    pub(crate) fn lag_here(&self, space: &Space, peer: &ReplicaId) -> Lag {
        let mut lag = Lag::default();
        let Some(has) = space.peer_durable.get(peer) else { return lag };
        for (lane, lsn) in has.ahead_of(&space.durable) {
            lag.add(space.ahead(&lane, lsn, self.latest));
        }
        lag
    }

    /// Something moved: limits are looked at soon, if there are any. O(log timers).
    pub(crate) fn plan_lag_look(&mut self, id: SpaceId) {
        if self.lag_limits != LagLimits::NONE {
            self.plan_lag_look_at(id, self.latest.monotonic + LAG_LOOK_AFTER);
        }
    }

    fn plan_lag_look_at(&mut self, id: SpaceId, due: Duration) {
        let Some(space) = self.spaces.get_mut(&id) else { return };
        if space.lag.due.is_none_or(|planned| due < planned) {
            if let Some(planned) = space.lag.due.replace(due) {
                self.timers.remove(&(planned, Timer::Lag(id)));
            }
            self.timers.insert((due, Timer::Lag(id)));
        }
    }

    /// Looks at the limits. O(lanes × peers).
    pub(crate) fn look_at_lag(&mut self, now: &Now, id: SpaceId) {
        let limits = self.lag_limits;
        let Some(space) = self.spaces.get(&id) else { return };
        let peers = self.open_peers(space);
        let mut events = Vec::new();
        let mut tell = |(peer, side), change, lag| {
            events.push(LagEvent { space: id, peer, side, change, lag });
        };
        let gone = space.lag.exceeded.iter().filter(|(peer, _)| !peers.contains_key(peer));
        gone.for_each(|whose| tell(*whose, LagChange::Disconnected, Lag::default()));
        let mut next: Option<Duration> = None;
        for peer in peers.keys() {
            let lags =
                [(LagSide::Here, self.lag_here(space, peer)), (LagSide::There, self.lag_there(space, peer))];
            for (side, lag) in lags {
                let is_exceeded = space.lag.exceeded.contains(&(*peer, side));
                if !is_exceeded && limits.is_exceeded_by(&lag) {
                    tell((*peer, side), LagChange::Exceeded, lag);
                } else if is_exceeded && !limits.half().is_exceeded_by(&lag) {
                    tell((*peer, side), LagChange::Recovered, lag);
                } else if let (false, Some(age_ms)) = (is_exceeded, lag.age_ms) {
                    // Time alone can exceed this one.
                    let left = limits.age.saturating_sub(Duration::from_millis(age_ms));
                    let due = now.monotonic.saturating_add(left.max(LAG_LOOK_AFTER));
                    next = Some(next.map_or(due, |next| next.min(due)));
                }
            }
        }
        let Some(space) = self.spaces.get_mut(&id) else { return };
        space.lag.due = None;
        for event in events {
            let whose = (event.peer, event.side);
            match event.change {
                LagChange::Exceeded => space.lag.exceeded.insert(whose),
                LagChange::Recovered | LagChange::Disconnected => space.lag.exceeded.remove(&whose),
            };
            self.outputs.push_back(Output::Notify(Notice::Lag(event)));
        }
        if let Some(next) = next.filter(|_| limits.age < Duration::MAX) {
            self.plan_lag_look_at(id, next);
        }
    }
}
