//! The shaper as a process: datagrams in at one gate, out at another, as [`Shaper`] says. It translates
//! addresses and ports as a cone NAT does, so a node may dial from any port and is answered there.
//!
//! It prints `ready`, and after each line it reads one line of its own: what was done to datagrams so far.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::UdpSocket;
use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::error::RigError;
use crate::lines::{read_lines, say};
use crate::shaper::{Order, Shaper};
use crate::streets::{PORT, Streets};

/// Largest datagram.
const DATAGRAM_BYTES_MAX: usize = 65_536;
/// Datagrams that came in and wait for the shaper; beyond it the sockets' own buffers fill up.
const ARRIVALS_MAX: usize = 1_024;
/// Datagrams on their way, at most: 16 nodes' worth of a second. More are dropped, as a router would.
const UNDER_WAY_MAX: usize = 65_536;
/// Gates other than those that nodes listen behind; beyond it the oldest is closed.
const EPHEMERAL_MAX: usize = 512;

/// The socket at which `viewer` sees the `port` of `seen`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Gate {
    viewer: usize,
    seen: usize,
    port: u16,
}

struct Arrival {
    at: Gate,
    from_port: u16,
    bytes: Vec<u8>,
}

enum Event {
    Arrival(Arrival),
    Line(String),
    End,
}

struct Parcel {
    gate: Gate,
    to: SocketAddr,
    bytes: Vec<u8>,
}

struct Relay {
    streets: Streets,
    shaper: Shaper,
    started: Instant,
    gates: BTreeMap<Gate, (Arc<UdpSocket>, tokio::task::JoinHandle<()>)>,
    /// In the order in which they were opened.
    ephemeral: std::collections::VecDeque<Gate>,
    under_way: BTreeMap<u64, Parcel>,
    due: BinaryHeap<Reverse<(Duration, u64)>>,
    next_parcel: u64,
    arrivals: mpsc::Sender<Event>,
}

/// Runs the shaper until standard input ends.
///
/// # Errors
/// [`RigError`] when a gate cannot be opened or a line is not understood.
pub fn shape(streets: Streets, nodes: usize, seed: u64) -> Result<(), RigError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.map_err(RigError::io("a runtime"))?.block_on(run(streets, nodes, seed))
}

async fn run(streets: Streets, nodes: usize, seed: u64) -> Result<(), RigError> {
    let (arrivals, mut events) = mpsc::channel(ARRIVALS_MAX);
    let mut relay = Relay {
        streets,
        shaper: Shaper::new(seed),
        started: Instant::now(),
        gates: BTreeMap::new(),
        ephemeral: std::collections::VecDeque::new(),
        under_way: BTreeMap::new(),
        due: BinaryHeap::new(),
        next_parcel: 0,
        arrivals: arrivals.clone(),
    };
    for viewer in 0..nodes {
        for seen in (0..nodes).filter(|seen| *seen != viewer) {
            relay.open(Gate { viewer, seen, port: PORT })?;
        }
    }
    let ended = arrivals.clone();
    read_lines(
        move |line| arrivals.blocking_send(Event::Line(line)).is_ok(),
        move || {
            // The relay that is gone already has ended for the same reason.
            let _ = ended.blocking_send(Event::End);
        },
    );
    say("ready");
    loop {
        let due = relay.due.peek().map(|Reverse((due, _))| relay.started + *due);
        tokio::select! {
            biased;
            () = sleep_until(due) => relay.on_due(),
            event = events.recv() => match event {
                Some(Event::Arrival(arrival)) => relay.on_arrival(arrival)?,
                Some(Event::Line(line)) => relay.on_line(&line)?,
                Some(Event::End) | None => return Ok(()),
            },
        }
    }
}

impl Relay {
    fn open(&mut self, gate: Gate) -> Result<(), RigError> {
        // Any port will do for a node that dials from one that it does not listen on: nobody dials that.
        let port = if gate.port == PORT { PORT } else { 0 };
        let addr = SocketAddr::new(self.streets.gate(gate.viewer, gate.seen).into(), port);
        let socket = std::net::UdpSocket::bind(addr)
            .and_then(|socket| socket.set_nonblocking(true).map(|()| socket))
            .and_then(UdpSocket::from_std)
            .map_err(RigError::io(format!("gate {addr}")))?;
        let socket = Arc::new(socket);
        let task = tokio::spawn(receive(gate, Arc::clone(&socket), self.arrivals.clone()));
        self.gates.insert(gate, (socket, task));
        Ok(())
    }

    fn on_arrival(&mut self, arrival: Arrival) -> Result<(), RigError> {
        let Arrival { at, from_port, bytes } = arrival;
        let gate = Gate { viewer: at.seen, seen: at.viewer, port: from_port };
        if !self.gates.contains_key(&gate) {
            if self.ephemeral.len() >= EPHEMERAL_MAX
                && let Some((_, task)) =
                    self.ephemeral.pop_front().and_then(|oldest| self.gates.remove(&oldest))
            {
                task.abort();
            }
            self.open(gate)?;
            self.ephemeral.push_back(gate);
        }
        let to = SocketAddr::new(self.streets.node(at.seen).into(), at.port);
        for due in self.shaper.handle(self.started.elapsed(), at.viewer, at.seen) {
            if self.under_way.len() < UNDER_WAY_MAX {
                self.due.push(Reverse((due, self.next_parcel)));
                self.under_way.insert(self.next_parcel, Parcel { gate, to, bytes: bytes.clone() });
                self.next_parcel += 1;
            }
        }
        Ok(())
    }

    fn on_due(&mut self) {
        let now = self.started.elapsed();
        while let Some(Reverse((due, number))) = self.due.peek().copied() {
            if due > now {
                return;
            }
            self.due.pop();
            let Some(Parcel { gate, to, bytes }) = self.under_way.remove(&number) else { continue };
            if let Some((socket, _)) = self.gates.get(&gate) {
                // A datagram that does not fit, or whose receiver is dead, is lost as on any network.
                let _ = socket.try_send_to(&bytes, to);
            }
        }
    }

    fn on_line(&mut self, line: &str) -> Result<(), RigError> {
        self.shaper.apply(line.parse::<Order>()?);
        let tally = self.shaper.tally();
        say(&format!(
            "{} {} {} {} {}",
            tally.forwarded, tally.lost, tally.cut, tally.duplicated, tally.reordered
        ));
        Ok(())
    }
}

async fn receive(gate: Gate, socket: Arc<UdpSocket>, arrivals: mpsc::Sender<Event>) {
    let mut buffer = vec![0; DATAGRAM_BYTES_MAX];
    loop {
        // An error tells of an earlier datagram that nobody took.
        let Ok((bytes, from)) = socket.recv_from(&mut buffer).await else { continue };
        let arrival = Arrival { at: gate, from_port: from.port(), bytes: buffer[..bytes].to_vec() };
        if arrivals.send(Event::Arrival(arrival)).await.is_err() {
            return;
        }
    }
}

async fn sleep_until(due: Option<Instant>) {
    match due {
        Some(due) => tokio::time::sleep_until(due).await,
        None => std::future::pending().await,
    }
}
