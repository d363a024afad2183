//! The threads of a path: one towards the far end, and one back for each port that sent something.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crate::Shared;
use crate::direction::{Direction, Fates, Parcel};
use crate::socket::{Buffers, Socket};

/// How long nothing is looked at: whether the path is over shows that late.
const LOOK_AFTER: Duration = Duration::from_millis(50);

/// How long the kernel is given for room to send.
const ROOM_AFTER: Duration = Duration::from_micros(200);

/// Ports that can send over one path; what others send is lost.
const ROUTES_MAX: usize = 64;

/// Starts the relay; its near end, and the thread that ends when the path is over.
pub(crate) fn start(
    far: SocketAddr,
    shared: Arc<Shared>,
    seed: u64,
) -> io::Result<(SocketAddr, JoinHandle<()>)> {
    let near = Arc::new(Socket::bind()?);
    let addr = near.local_addr()?;
    let relay = thread::Builder::new().name("path-out".to_owned());
    Ok((addr, relay.spawn(move || outward(&near, far, &shared, seed))?))
}

/// From the near end to the far one.
fn outward(near: &Arc<Socket>, far: SocketAddr, shared: &Arc<Shared>, seed: u64) {
    let mut known: BTreeMap<SocketAddr, usize> = BTreeMap::new();
    let mut routes: Vec<Arc<Socket>> = Vec::new();
    let mut back = Vec::new();
    carry(
        near,
        shared,
        Direction::new(seed),
        |from, routes: &mut Vec<Arc<Socket>>| {
            if let Some(route) = known.get(&from) {
                return Some(*route);
            }
            if routes.len() == ROUTES_MAX {
                return None;
            }
            let beyond = Arc::new(Socket::bind().ok()?);
            let (near, shared, socket) = (Arc::clone(near), Arc::clone(shared), Arc::clone(&beyond));
            let seed = seed ^ (routes.len() as u64 + 1).wrapping_mul(0xD134_2543_DE82_EF95);
            let thread = thread::Builder::new().name("path-back".to_owned());
            back.push(thread.spawn(move || homeward(&socket, &near, from, &shared, seed)).ok()?);
            known.insert(from, routes.len());
            routes.push(beyond);
            Some(routes.len() - 1)
        },
        &mut routes,
        |routes, parcel| routes[parcel.route].send(far, &parcel.bytes, parcel.stride),
    );
    for thread in back {
        // A thread that panicked has said so.
        let _ = thread.join();
    }
}

/// From the far end back to who sent something.
fn homeward(beyond: &Socket, near: &Arc<Socket>, home: SocketAddr, shared: &Shared, seed: u64) {
    carry(
        beyond,
        shared,
        Direction::new(seed),
        |_, _| Some(0),
        &mut (),
        |(), parcel| near.send(home, &parcel.bytes, parcel.stride),
    );
}

/// Carries what `from` receives until the path is over. `route` names where it goes, `deliver` sends it there, or says that
/// there is no room.
fn carry<State>(
    from: &Socket,
    shared: &Shared,
    mut direction: Direction,
    mut route: impl FnMut(SocketAddr, &mut State) -> Option<usize>,
    state: &mut State,
    mut deliver: impl FnMut(&State, &Parcel) -> bool,
) {
    let (started, mut buffers) = (Instant::now(), Buffers::new());
    let mut is_stuck = false;
    while !shared.is_over.load(Ordering::Relaxed) {
        let due = direction.next_due().map(|due| due.saturating_sub(started.elapsed()));
        let wait = due.unwrap_or(LOOK_AFTER).min(LOOK_AFTER);
        from.wait(if is_stuck { ROOM_AFTER } else { wait });
        let conditions = shared.conditions();
        from.receive(&mut buffers, |sender, bytes, stride| {
            let Some(route) = route(sender, state) else { return };
            let fates = direction.admit(started.elapsed(), &conditions, (route, bytes, stride));
            note(shared, fates);
        });
        is_stuck = false;
        while let Some(parcel) = direction.take_due(started.elapsed()) {
            let (datagrams, bytes) = (parcel.datagrams(), parcel.bytes.len() as u64);
            // Before, so that whoever receives it finds it counted.
            shared.datagrams.fetch_add(datagrams, Ordering::Relaxed);
            shared.bytes.fetch_add(bytes, Ordering::Relaxed);
            if !deliver(state, &parcel) {
                shared.datagrams.fetch_sub(datagrams, Ordering::Relaxed);
                shared.bytes.fetch_sub(bytes, Ordering::Relaxed);
                direction.put_back(parcel);
                is_stuck = true;
                break;
            }
        }
    }
}

fn note(shared: &Shared, fates: Fates) {
    shared.lost.fetch_add(fates.lost, Ordering::Relaxed);
    shared.overflowed.fetch_add(fates.overflowed, Ordering::Relaxed);
    shared.cut.fetch_add(fates.cut, Ordering::Relaxed);
}
