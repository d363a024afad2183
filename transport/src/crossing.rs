//! Which of two connections between the same pair of replicas survives.

use std::time::Duration;

use crate::identity::PeerKey;

/// Two connections dialed by opposite sides within this time crossed on the wire: neither side knew of the
/// other's dial. Above any sane round trip, below any sane reconnection.
pub const CROSSING_WINDOW: Duration = Duration::from_secs(1);

/// The verdict of [`survivor`]: the other connection is closed with
/// [`CloseCode::DUPLICATE`](crate::CloseCode::DUPLICATE).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keep {
    /// The connection that was there already.
    Existing,
    /// The connection that has just been established.
    Incoming,
}

/// Which of two established connections between `local` and `remote` is kept; both sides reach the same
/// verdict, whichever connection each of them saw first.
///
/// Dials that crossed within [`CROSSING_WINDOW`]: the connection dialed by the lower key. Otherwise the newer
/// one, since its dialer would not have dialed had it still held the older.
///
/// The sides measure `existing_age` on their own. Should they disagree because the age lies within a round
/// trip of the window, both connections end as duplicates and the next dial settles it.
pub fn survivor(
    local: &PeerKey,
    remote: &PeerKey,
    existing_dialed_by_local: bool,
    existing_age: Duration,
    incoming_dialed_by_local: bool,
) -> Keep {
    let crossed = existing_dialed_by_local != incoming_dialed_by_local && existing_age < CROSSING_WINDOW;
    let local_is_lower = local < remote;
    if crossed && existing_dialed_by_local == local_is_lower { Keep::Existing } else { Keep::Incoming }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOWER: PeerKey = PeerKey([1; 32]);
    const HIGHER: PeerKey = PeerKey([2; 32]);
    const YOUNG: Duration = Duration::from_millis(20);

    /// The dialer of the connection that `local` keeps.
    fn kept_dialer(
        local: PeerKey,
        remote: PeerKey,
        existing: PeerKey,
        age: Duration,
        incoming: PeerKey,
    ) -> PeerKey {
        match survivor(&local, &remote, existing == local, age, incoming == local) {
            Keep::Existing => existing,
            Keep::Incoming => incoming,
        }
    }

    #[test]
    fn crossing_dials_leave_the_one_of_the_lower_key_on_both_sides_in_either_order() {
        for (local, remote) in [(LOWER, HIGHER), (HIGHER, LOWER)] {
            for (existing, incoming) in [(LOWER, HIGHER), (HIGHER, LOWER)] {
                assert_eq!(kept_dialer(local, remote, existing, YOUNG, incoming), LOWER);
            }
        }
    }

    #[test]
    fn a_later_dial_by_the_other_side_replaces_the_old_connection_on_both_sides() {
        for (existing, incoming) in [(LOWER, HIGHER), (HIGHER, LOWER)] {
            for (local, remote) in [(LOWER, HIGHER), (HIGHER, LOWER)] {
                assert_eq!(kept_dialer(local, remote, existing, CROSSING_WINDOW, incoming), incoming);
            }
        }
    }

    #[test]
    fn a_second_dial_by_the_same_side_replaces_its_first_at_any_age() {
        for (local, remote) in [(LOWER, HIGHER), (HIGHER, LOWER)] {
            for dialed_by_local in [true, false] {
                for age in [Duration::ZERO, YOUNG, CROSSING_WINDOW, CROSSING_WINDOW * 100] {
                    let kept = survivor(&local, &remote, dialed_by_local, age, dialed_by_local);
                    assert_eq!(kept, Keep::Incoming);
                }
            }
        }
    }
}
