//! Laws of the member list.

use std::collections::BTreeMap;

use comity_crdts::{Frontier, OriginId, ReplicaId};
use proptest::prelude::*;

use super::roster::{Roster, View};
use super::{Place, Said};
use crate::op::Role;
use crate::sorted::Sorted;

/// A statement as it stands in somebody's lane.
#[derive(Clone, Debug)]
struct Entry {
    author: usize,
    lsn: u64,
    context: Frontier,
    about: usize,
    role: Option<Role>,
}

fn replica(number: usize) -> ReplicaId {
    ReplicaId([number as u8; 32])
}

fn lane(number: usize) -> OriginId {
    OriginId([0x80 + number as u8; 16])
}

fn founded() -> Roster {
    Roster::founded_by(&replica(0))
}

impl Entry {
    fn apply(&self, roster: &mut Roster) -> bool {
        let place = Place { lane: lane(self.author), lsn: self.lsn, index: 0 };
        let (author, about) = (replica(self.author), replica(self.about));
        let said = Said { author: &author, context: &self.context, place, replica: &about, role: self.role };
        roster.take(&said)
    }
}

/// Replicas that write statements and hear of each other's.
#[derive(Default)]
struct Crowd {
    entries: Vec<Entry>,
    /// Per replica what it has applied.
    seen: BTreeMap<usize, Frontier>,
    rosters: BTreeMap<usize, Roster>,
}

impl Crowd {
    fn roster(&mut self, number: usize) -> &mut Roster {
        self.rosters.entry(number).or_insert_with(founded)
    }

    /// Somebody says something about somebody. Returns whether it counts.
    fn say(&mut self, author: usize, about: usize, role: Option<Role>) -> bool {
        let seen = self.seen.entry(author).or_default();
        let context: Frontier = seen.iter().filter(|(of, _)| *of != lane(author)).collect();
        let lsn = seen.at(&lane(author)) + 1;
        seen.advance(lane(author), lsn);
        let entry = Entry { author, lsn, context, about, role };
        let counts = entry.apply(self.roster(author));
        self.entries.push(entry);
        counts
    }

    /// Somebody hears all that somebody else has seen.
    fn hear(&mut self, listener: usize, speaker: usize) {
        let all = self.seen.get(&speaker).cloned().unwrap_or_default();
        let known = self.seen.entry(listener).or_default().clone();
        // Entries are numbered in an order that respects causality.
        for entry in self.entries.clone() {
            let of = lane(entry.author);
            if entry.lsn <= all.at(&of) && entry.lsn > known.at(&of) {
                entry.apply(self.roster(listener));
                self.seen.entry(listener).or_default().advance(of, entry.lsn);
            }
        }
    }

    /// Everybody's statements, applied in an order that respects causality and is otherwise drawn from `picks`.
    fn in_some_order(&self, mut picks: impl Iterator<Item = usize>) -> Roster {
        let mut roster = founded();
        let (mut seen, mut left) = (Frontier::new(), self.entries.clone());
        while !left.is_empty() {
            let is_next =
                |entry: &Entry| seen.covers(&entry.context) && seen.at(&lane(entry.author)) + 1 == entry.lsn;
            let ready: Vec<usize> = (0..left.len()).filter(|index| is_next(&left[*index])).collect();
            let entry = left.remove(ready[picks.next().unwrap_or(0) % ready.len()]);
            entry.apply(&mut roster);
            seen.advance(lane(entry.author), entry.lsn);
        }
        roster
    }

    fn all(&self) -> Roster {
        self.in_some_order(std::iter::empty())
    }

    fn roles(&self) -> Sorted<ReplicaId, Role> {
        self.all().roles(View::Everything)
    }
}

const ADMIN: Option<Role> = Some(Role::Admin);
const WRITER: Option<Role> = Some(Role::Writer);

/// Founder 0 and admins 1 and 2, who know of each other.
fn three_admins() -> Crowd {
    let mut crowd = Crowd::default();
    assert!(crowd.say(0, 1, ADMIN) && crowd.say(0, 2, ADMIN));
    crowd.hear(1, 0);
    crowd.hear(2, 0);
    crowd
}

#[test]
fn two_admins_who_remove_each_other_are_both_removed_and_a_third_goes_on() {
    let mut crowd = three_admins();
    assert!(crowd.say(1, 2, None) && crowd.say(2, 1, None));
    assert_eq!(crowd.roles(), Sorted::from_iter([(replica(0), Role::Admin)]));
}

#[test]
fn of_admins_who_leave_nobody_the_one_nearest_to_the_founder_stays_and_can_let_others_in() {
    let mut crowd = Crowd::default();
    assert!(crowd.say(0, 1, ADMIN));
    crowd.hear(1, 0);
    assert!(crowd.say(0, 1, None) && crowd.say(1, 0, None));
    assert_eq!(crowd.roles(), Sorted::from_iter([(replica(0), Role::Admin)]));
    crowd.hear(0, 1);
    crowd.hear(1, 0);
    assert!(!crowd.say(1, 3, WRITER), "who was removed lets nobody in");
    assert!(crowd.say(0, 0, ADMIN) && crowd.say(0, 3, ADMIN), "the last admin first says so of itself");
    let expected = Sorted::from_iter([(replica(0), Role::Admin), (replica(3), Role::Admin)]);
    assert_eq!(crowd.roles(), expected);
}

#[test]
fn a_removal_wins_over_a_grant_at_the_same_time_and_a_grant_that_saw_it_over_the_removal() {
    let mut crowd = three_admins();
    crowd.say(0, 3, WRITER);
    crowd.hear(1, 0);
    crowd.hear(2, 0);
    assert!(crowd.say(1, 3, None) && crowd.say(2, 3, ADMIN));
    assert_eq!(crowd.roles().get(&replica(3)), None);
    crowd.hear(0, 1);
    assert!(crowd.say(0, 3, WRITER));
    assert_eq!(
        crowd.roles().get(&replica(3)),
        Some(&Role::Writer),
        "the grant of 2 was concurrent and is greater"
    );
}

#[test]
fn of_two_roles_given_at_the_same_time_the_lesser_holds() {
    let mut crowd = three_admins();
    assert!(crowd.say(1, 3, ADMIN) && crowd.say(2, 3, Some(Role::Follower)));
    assert_eq!(crowd.roles().get(&replica(3)), Some(&Role::Follower));
}

#[test]
fn what_an_admin_said_before_it_heard_of_its_removal_counts_and_nothing_after() {
    let mut crowd = three_admins();
    crowd.say(0, 1, None);
    assert!(crowd.say(1, 3, WRITER), "made at the same time");
    crowd.hear(1, 0);
    assert!(!crowd.say(1, 4, WRITER));
    assert!(crowd.roles().contains_key(&replica(3)) && !crowd.roles().contains_key(&replica(4)));
}

#[test]
fn members_remove_themselves_and_nobody_else_and_give_no_roles() {
    let mut crowd = three_admins();
    crowd.say(0, 3, WRITER);
    crowd.say(0, 4, Some(Role::Follower));
    for member in [3, 4] {
        crowd.hear(member, 0);
        assert!(!crowd.say(member, 1, None) && !crowd.say(member, member, ADMIN));
        assert!(crowd.say(member, member, None));
        assert!(!crowd.say(member, member, None), "it is none any more");
        assert!(!crowd.roles().contains_key(&replica(member)));
    }
    assert!(!crowd.say(5, 5, None) && !crowd.say(5, 6, WRITER), "strangers say nothing");
}

#[test]
fn rows_round_trip_and_a_founder_is_the_last_admin() {
    let mut crowd = three_admins();
    crowd.say(1, 2, None);
    let roster = crowd.all();
    assert!(!roster.is_last_admin(&replica(0)) && founded().is_last_admin(&replica(0)));
    assert_eq!(roster.replicas().count(), roster.len());
    for id in roster.replicas() {
        let row = roster.row(id).unwrap();
        assert_eq!(Roster::row_again(&row), Ok(row));
    }
}

/// What happens in a crowd: somebody says something, or hears somebody.
#[derive(Clone, Copy, Debug)]
enum Step {
    Say(usize, usize, Option<Role>),
    Hear(usize, usize),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let role = prop_oneof![
        2 => Just(None),
        1 => Just(Some(Role::Follower)),
        1 => Just(Some(Role::Writer)),
        3 => Just(Some(Role::Admin)),
    ];
    let step = prop_oneof![
        (0..5_usize, 0..5_usize, role).prop_map(|(author, about, role)| Step::Say(author, about, role)),
        (0..5_usize, 0..5_usize).prop_map(|(listener, speaker)| Step::Hear(listener, speaker)),
    ];
    prop::collection::vec(step, 1..40)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]
    #[test]
    fn whoever_has_applied_the_same_statements_has_the_same_list(
        steps in steps(),
        orders in prop::collection::vec(prop::collection::vec(any::<usize>(), 40), 4),
    ) {
        let mut crowd = Crowd::default();
        for step in steps {
            match step {
                Step::Say(author, about, role) => {
                    crowd.say(author, about, role);
                }
                Step::Hear(listener, speaker) if listener != speaker => crowd.hear(listener, speaker),
                Step::Hear(..) => {}
            }
        }
        let expected = crowd.all();
        let roles = expected.roles(View::Everything);
        prop_assert!(roles.values().any(|role| *role == Role::Admin), "there is always an admin");
        for order in orders {
            prop_assert_eq!(&crowd.in_some_order(order.into_iter()), &expected);
        }
        for number in 0..5 {
            for speaker in 0..5 {
                if speaker != number {
                    crowd.hear(number, speaker);
                }
            }
            prop_assert_eq!(&*crowd.roster(number), &expected);
        }
    }
}
