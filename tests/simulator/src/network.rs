//! The network: connections with streams that keep their own order, delays, cuts, and ends that learn of a
//! loss at different times.

use std::collections::BTreeMap;

use comity_engine::{Class, CloseReason, Input, SessionId, StoreError};

use crate::builds::Builds;
use crate::oracle::{Oracle, Violation};
use crate::plan::{FaultClass, Tampering};
use crate::random::{Domain, mix};
use crate::world::{Happening, World};

/// A connection that hears nothing for this long is given up.
const IDLE_US: u64 = 30_000_000;
/// The first pause before a lost connection is dialled again, and the longest.
const BACKOFF_US: (u64, u64) = (50_000, 5_000_000);
/// Frames kept for replaying.
const RECORDED_MAX: usize = 64;

/// A pair of replicas of which the first dials the second.
#[derive(Debug)]
pub(crate) struct Link {
    pub(crate) ends: [usize; 2],
    pub(crate) session: Option<u64>,
    dialling: bool,
    /// One end said that the other is no member any more: it is not dialled again before there is a reason to.
    parted: bool,
    failures: u32,
    dials: u64,
    /// Whether it is not there any more: it was made to let somebody in.
    pub(crate) gone: bool,
    /// Until when frames from either end wait.
    pub(crate) stalled_until: [u64; 2],
    /// What either end does to its frames, and until when.
    pub(crate) tampering: [Option<(Tampering, u64)>; 2],
}

impl Link {
    pub(crate) fn new(ends: [usize; 2]) -> Self {
        let (stalled_until, tampering) = ([0; 2], [None; 2]);
        Self {
            ends,
            session: None,
            dialling: false,
            parted: false,
            failures: 0,
            dials: 0,
            gone: false,
            stalled_until,
            tampering,
        }
    }
}

/// One connection.
#[derive(Debug)]
pub(crate) struct Connection {
    pub(crate) link: usize,
    pub(crate) ends: [usize; 2],
    boots: [u32; 2],
    open: [bool; 2],
    /// When the last frame of each stream from each end arrives.
    last: [BTreeMap<Class, u64>; 2],
    sent: [u64; 2],
    /// Whether nothing that an end sends arrives any more: the connection will be given up.
    broken: [bool; 2],
    /// Whether what an end sends was tampered with.
    tampered: [bool; 2],
}

impl World {
    fn is_cut(&self, from: usize, to: usize) -> bool {
        self.cuts.get(&(from, to)).is_some_and(|until| *until > self.now)
    }

    /// Whether nothing is on its way and every connection that can be is there.
    pub(crate) fn is_resting(&self) -> bool {
        let waits = |link: &Link| {
            let [a, b] = link.ends;
            let runs = |node: &crate::node::Node| node.is_up() && node.paused_until <= self.now;
            let up = runs(&self.nodes[a]) && runs(&self.nodes[b]);
            let is_wanted = link.session.is_none() && !link.parted && !link.gone;
            is_wanted && up && !self.is_cut(a, b) && !self.is_cut(b, a)
        };
        // Who compares states all the time is never silent.
        let is_auditing = self.plan.auditing.is_some() && !self.audits_over;
        (self.under_way == 0 || is_auditing) && !self.links.iter().any(waits)
    }

    /// What keeps the world from resting.
    pub(crate) fn unrest_left(&self) -> String {
        let missing: Vec<_> = self
            .links
            .iter()
            .filter(|link| link.session.is_none())
            .map(|link| (link.ends, link.dialling))
            .collect();
        format!("{} under way, links without a connection: {missing:?}", self.under_way)
    }

    pub(crate) fn add_link(&mut self, a: usize, b: usize) -> usize {
        let present = self.links.iter().position(|link| link.ends == [a, b] || link.ends == [b, a]);
        if let Some(link) = present.filter(|link| self.links[*link].gone) {
            self.links[link].gone = false;
            self.plan_dial(link);
        }
        present.unwrap_or_else(|| {
            self.links.push(Link::new([a, b]));
            self.plan_dial(self.links.len() - 1);
            self.links.len() - 1
        })
    }

    /// Takes links away that only let somebody in, when the network is to have its own shape.
    pub(crate) fn bare(&mut self) {
        if !self.plan.is_bare() {
            return;
        }
        for link in self.plan.links.len()..self.links.len() {
            self.links[link].gone = true;
            if let Some(session) = self.links[link].session {
                self.at(self.now, Happening::Closed { session, end: 0 });
                self.at(self.now, Happening::Closed { session, end: 1 });
            }
        }
    }

    /// Dials a link after a pause, unless that is planned already.
    pub(crate) fn plan_dial(&mut self, link: usize) {
        let target = &mut self.links[link];
        if target.session.is_some() || target.dialling || target.parted || target.gone {
            return;
        }
        target.dialling = true;
        target.dials += 1;
        let pause = (BACKOFF_US.0 << target.failures.min(10)).min(BACKOFF_US.1);
        target.failures += 1;
        let mut dice = self.dice(Domain::Dial, link as u64, self.links[link].dials);
        self.at(self.now + pause / 2 + dice.below(pause), Happening::Dial { link });
    }

    pub(crate) fn dial(&mut self, link: usize) {
        let ends = self.links[link].ends;
        self.links[link].dialling = false;
        let target = &self.links[link];
        let is_wanted = target.session.is_none() && !target.parted && !target.gone;
        if !is_wanted || !ends.iter().all(|node| self.nodes[*node].is_up()) {
            // Replicas that are down dial and are dialled when they start.
            return;
        }
        let cuts =
            [(ends[0], ends[1]), (ends[1], ends[0])].map(|way| self.cuts.get(&way).copied().unwrap_or(0));
        let ready = ends.iter().map(|node| self.nodes[*node].paused_until).chain(cuts).max().unwrap_or(0);
        if ready > self.now {
            // Trying in between would come to nothing.
            self.links[link].dialling = true;
            let pause = self.dice(Domain::Dial, link as u64, ready).below(BACKOFF_US.1);
            return self.at(ready + pause, Happening::Dial { link });
        }
        self.sessions += 1;
        let (session, boots) = (self.sessions, ends.map(|node| self.nodes[node].boot));
        self.links[link].session = Some(session);
        let connection = Connection {
            link,
            ends,
            boots,
            open: [false; 2],
            last: Default::default(),
            sent: [0; 2],
            broken: [false; 2],
            tampered: [false; 2],
        };
        self.connections.insert(session, connection);
        let latency = self.plan.latency_us.0;
        self.at(self.now + 2 * latency, Happening::Opened { session, end: 0 });
        // The first frame of the dialler comes after this.
        self.at(self.now + 3 * latency - 1, Happening::Opened { session, end: 1 });
    }

    pub(crate) fn opened(&mut self, session: u64, end: usize) -> Result<(), Violation> {
        let Some(connection) = self.connections.get_mut(&session) else { return Ok(()) };
        let (node, other) = (connection.ends[end], connection.ends[1 - end]);
        if self.nodes[node].boot != connection.boots[end] || !self.nodes[node].is_up() {
            self.lose(session, end, 0);
            return Ok(());
        }
        connection.open[end] = true;
        self.tell(|| format!("{node} is connected with {other} in {session}"));
        let Some(connection) = self.connections.get_mut(&session) else { return Ok(()) };
        let (link, is_whole) = (connection.link, connection.open[1 - end]);
        if is_whole {
            self.links[link].failures = 0;
        }
        let peer = self.nodes[other].replica;
        self.input(node, Input::SessionOpened { session: SessionId(session), peer })
    }

    /// A core sends a frame.
    pub(crate) fn send(
        &mut self,
        node: usize,
        session: u64,
        class: Class,
        frame: Vec<u8>,
    ) -> Result<(), Violation> {
        self.tally.frames += 1;
        self.tally.bytes += frame.len() as u64;
        self.trace = mix(self.trace ^ self.now, &frame);
        let Some(connection) = self.connections.get_mut(&session) else { return Ok(()) };
        let Some(end) = connection.ends.iter().position(|end| *end == node) else { return Ok(()) };
        let (to, link) = (connection.ends[1 - end], connection.link);
        connection.sent[end] += 1;
        if self.log.is_some() {
            let message = comity_engine::wire::Message::decode(&frame);
            self.tell(|| format!("{node} → {to} in {session}: {message:?}"));
        }
        let Some(connection) = self.connections.get_mut(&session) else { return Ok(()) };
        let index = connection.sent[end];
        let is_tampered = connection.tampered.contains(&true);
        if let Some(mut observer) = self.observer.take_if(|_| !is_tampered) {
            let result = observer.sent((session, end), (node, to), &frame, self);
            self.observer = Some(observer);
            result?;
        }
        match self.links[link].tampering[end].filter(|(_, until)| *until > self.now) {
            None => self.carry(session, end, class, index, frame),
            Some((how, _)) => self.tamper((session, end), class, index, (frame, how)),
        }
        Ok(())
    }

    fn carry(&mut self, session: u64, end: usize, class: Class, index: u64, frame: Vec<u8>) {
        let mut dice = self.dice(Domain::Latency, session, 2 * index + end as u64);
        let Some(connection) = self.connections.get_mut(&session) else { return };
        let (from, to) = (connection.ends[end], connection.ends[1 - end]);
        let (base, jitter) = self.plan.latency_us;
        let mut at = self.now + base + dice.below(jitter + 1);
        if let Some(until) = self.cuts.get(&(from, to)).filter(|until| **until > self.now) {
            // It is sent again until it gets through, or the connection is given up.
            connection.broken[end] |= *until > self.now + IDLE_US;
            at = at.max(until + base);
        }
        if connection.broken[end] {
            return;
        }
        at = at.max(self.links[connection.link].stalled_until[end]);
        let last = connection.last[end].entry(class).or_insert(0);
        at = at.max(*last + 1);
        *last = at;
        self.at(at, Happening::Frame { session, end: 1 - end, frame });
    }

    /// A peer that does wrong sends a frame.
    fn tamper(
        &mut self,
        (session, end): (u64, usize),
        class: Class,
        index: u64,
        (mut frame, how): (Vec<u8>, Tampering),
    ) {
        let mut dice = self.dice(Domain::Tamper, session, 2 * index + end as u64);
        if let Some(connection) = self.connections.get_mut(&session) {
            connection.tampered[end] = true;
        }
        if self.recorded.len() < RECORDED_MAX {
            self.recorded.push((class, frame.clone()));
        }
        if !dice.percent(25) {
            return self.carry(session, end, class, index, frame);
        }
        match how {
            Tampering::Drop => return,
            Tampering::Repeat => self.carry(session, end, class, index, frame.clone()),
            Tampering::Replay => {
                let (class, earlier) = self.recorded[dice.index(self.recorded.len())].clone();
                self.carry(session, end, class, index, earlier);
            }
            Tampering::Flip => {
                let (byte, bit) = (dice.index(frame.len()), dice.below(8));
                if let Some(byte) = frame.get_mut(byte) {
                    *byte ^= 1 << bit;
                }
            }
            Tampering::Truncate => frame.truncate(dice.index(frame.len())),
        }
        self.carry(session, end, class, index, frame);
    }

    pub(crate) fn arrive(&mut self, session: u64, end: usize, frame: Vec<u8>) -> Result<(), Violation> {
        let Some(connection) = self.connections.get(&session).filter(|c| c.open[end]) else { return Ok(()) };
        let node = connection.ends[end];
        self.tell(|| {
            let message = comity_engine::wire::Message::decode(&frame);
            format!("{node} receives in {session}: {message:?}")
        });
        self.input(node, Input::FrameReceived { session: SessionId(session), frame })
    }

    /// One end is gone; the other learns of it after `after_us`.
    pub(crate) fn lose(&mut self, session: u64, end: usize, after_us: u64) {
        let Some(connection) = self.connections.get_mut(&session) else { return };
        connection.open[end] = false;
        let link = connection.link;
        if self.links[link].session == Some(session) {
            self.links[link].session = None;
            self.plan_dial(link);
        }
        self.at(self.now + after_us, Happening::Closed { session, end: 1 - end });
    }

    pub(crate) fn closed(&mut self, session: u64, end: usize) -> Result<(), Violation> {
        let Some(connection) = self.connections.get_mut(&session) else { return Ok(()) };
        let (node, was_open, is_last) =
            (connection.ends[end], connection.open[end], !connection.open[1 - end]);
        connection.open[end] = false;
        let link = connection.link;
        if is_last {
            self.connections.remove(&session);
        }
        if self.links[link].session == Some(session) {
            self.links[link].session = None;
            self.plan_dial(link);
        }
        if was_open {
            return self.input(node, Input::SessionClosed { session: SessionId(session) });
        }
        Ok(())
    }

    /// A core ends a connection.
    pub(crate) fn closed_by(
        &mut self,
        node: usize,
        session: u64,
        reason: CloseReason,
    ) -> Result<(), Violation> {
        let Some(connection) = self.connections.get(&session) else { return Ok(()) };
        let Some(end) = connection.ends.iter().position(|end| *end == node) else { return Ok(()) };
        self.tell(|| format!("{node} closes {session}: {reason:?}"));
        if let Some(StoreError::Corrupt { detail }) =
            self.nodes[node].engine.as_ref().and_then(|it| it.failure())
        {
            // No disk here damages what was written without saying so when it is opened.
            return Err(self.violation(Oracle::Robustness, format!("replica {node} cannot read: {detail}")));
        }
        let is_fault = reason == CloseReason::Storage || connection.tampered.contains(&true);
        let (peer, link) = (connection.ends[1 - end], connection.link);
        let is_parting = reason == CloseReason::NotMember && self.plan.has(FaultClass::Members);
        // It is dialled again when an end starts again, as another build perhaps.
        let [ours, theirs] = [node, peer].map(|node| self.nodes[node].build.versions);
        let are_strangers = self.plan.builds.as_ref().is_some_and(Builds::have_strangers);
        let is_refusal = reason == CloseReason::Version && are_strangers;
        let is_over = is_parting || (is_refusal && ours.common(theirs).is_none());
        self.links[link].parted |= is_over && self.links[link].session == Some(session);
        self.lose(session, end, self.plan.latency_us.0);
        if is_fault || is_parting || is_refusal {
            return Ok(());
        }
        let detail = format!("replica {node} closed its connection to {peer}: {}", reason.sentence());
        Err(self.violation(Oracle::Acceptance, detail))
    }

    /// Links that were given up, because an end was no member, are dialled again.
    pub(crate) fn try_links_again(&mut self, are_meant: impl Fn(&[usize; 2]) -> bool) {
        for link in 0..self.links.len() {
            if are_meant(&self.links[link].ends) {
                self.links[link].parted = false;
                self.plan_dial(link);
            }
        }
    }

    /// Loses whatever is on its way over a link.
    pub(crate) fn reset(&mut self, link: usize) {
        let Some(session) = self.links[link].session else { return };
        let mut dice = self.dice(Domain::Dial, session, u64::MAX);
        // Each end learns of it in its own time, one of them perhaps only after a new connection was made.
        let first = dice.index(2);
        let late = if dice.percent(20) { IDLE_US } else { dice.below(2 * self.plan.latency_us.0 + 1) };
        self.at(self.now, Happening::Closed { session, end: first });
        self.at(self.now + late, Happening::Closed { session, end: 1 - first });
    }

    /// A process is gone: each of its peers learns of it, soon or late.
    pub(crate) fn disconnect(&mut self, node: usize, noticed: bool) {
        let of_node = |connection: &Connection| connection.ends.iter().position(|end| *end == node);
        let ends: Vec<(u64, usize)> =
            self.connections.iter().filter_map(|(session, c)| Some((*session, of_node(c)?))).collect();
        for (session, end) in ends {
            self.lose(session, end, if noticed { self.plan.latency_us.0 } else { IDLE_US });
        }
    }

    /// A process answers nobody for long: its connections end, and it learns of that when it goes on.
    pub(crate) fn give_up(&mut self, node: usize) {
        let sessions: Vec<u64> = self
            .connections
            .iter()
            .filter(|(_, c)| c.ends.contains(&node))
            .map(|(session, _)| *session)
            .collect();
        for session in sessions {
            self.at(self.now + IDLE_US, Happening::Closed { session, end: 0 });
            self.at(self.now + IDLE_US, Happening::Closed { session, end: 1 });
        }
    }

    /// Nothing gets from one replica to another until a time.
    pub(crate) fn cut(&mut self, from: usize, to: usize, until: u64) {
        let known = self.cuts.entry((from, to)).or_insert(0);
        *known = (*known).max(until);
        if until > self.now + IDLE_US {
            let touches = |c: &Connection| c.ends == [from, to] || c.ends == [to, from];
            let sessions: Vec<u64> =
                self.connections.iter().filter(|(_, c)| touches(c)).map(|(session, _)| *session).collect();
            for session in sessions {
                // Who hears nothing gives up first, and then the other hears nothing.
                let deaf = usize::from(self.connections[&session].ends[1] == to);
                self.at(self.now + IDLE_US, Happening::Closed { session, end: deaf });
                self.at(self.now + 2 * IDLE_US, Happening::Closed { session, end: 1 - deaf });
            }
        }
    }

    /// The network works from here on; connections with a peer that did wrong start anew.
    pub(crate) fn heal_network(&mut self) {
        self.cuts.clear();
        for link in &mut self.links {
            (link.stalled_until, link.tampering) = ([0; 2], [None; 2]);
            (link.failures, link.dialling, link.parted) = (0, false, false);
        }
        let tampered: Vec<u64> =
            self.connections.iter().filter(|(_, c)| c.tampered.contains(&true)).map(|(s, _)| *s).collect();
        for session in tampered {
            self.at(self.now, Happening::Closed { session, end: 0 });
            self.at(self.now, Happening::Closed { session, end: 1 });
        }
        for link in 0..self.links.len() {
            self.plan_dial(link);
        }
    }
}
