//! Replicas that meet: reading one's writes elsewhere, waiting for others, relays, crossing dials, going
//! offline, tickets.
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod regions;

use std::time::{Duration, Instant};

use comity::{
    CommandError, Durability, InviteError, JournalReason, OpenOptions, Policy, RegisterView, RequestError,
    Role, Ticket, TicketError, Token, Value,
};

use regions::stranger::Stranger;
use regions::{PATIENCE, Region, converge, eventually, loopback, pair, patient_open, until, within};

#[tokio::test(flavor = "multi_thread")]
async fn a_token_shows_a_write_at_the_other_replica() {
    let (here, there) = pair().await;
    let mut seen = here.applied().await;
    for round in 1..=50 {
        let (writer, reader) = if round % 2 == 0 { (&here, &there) } else { (&there, &here) };
        let token = writer.add_one().await.unwrap().token();
        let view = reader.space.at(&token).await.unwrap();
        assert_eq!(view.counter("test", "counter").unwrap(), round);
        let shown = view.token().unwrap();
        assert!(
            shown.frontier.covers(&token.frontier),
            "a view's token names everything that the view shows"
        );
        let elsewhere = writer.space.at(&shown).await.unwrap();
        assert!(elsewhere.counter("test", "counter").unwrap() >= round);
        seen.merge(&Token::from_bytes(&token.to_bytes()).unwrap());
        assert!(seen.frontier.covers(&token.frontier));
    }
    assert_eq!(here.applied().await, seen);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_that_lacks_something_says_how_much() {
    let (here, there) = pair().await;
    there.replica.go_offline().await.unwrap();
    for _ in 0..7 {
        here.add_one().await.unwrap();
    }
    let token = here.space.token().await.unwrap();
    let stale = there.space.at_within(&token, Duration::from_millis(20)).await.map(|_| ()).unwrap_err();
    assert_eq!(stale, RequestError::Command(CommandError::Stale { missing: 7 }));
    assert_eq!(stale.to_string(), "this replica lacks 7 change sets that the token names");
    let elsewhere = Token { space: comity::SpaceId([1; 16]), ..token.clone() };
    let unknown = there.space.at(&elsewhere).await.map(|_| ()).unwrap_err();
    assert_eq!(
        unknown,
        RequestError::Command(CommandError::OtherSpace { token: elsewhere.space, space: there.space.id() })
    );
    // A token can be waited for before anything connects.
    let (space, waiting) = (there.space.clone(), token.clone());
    let waiting = tokio::spawn(async move { space.at_within(&waiting, PATIENCE).await.map(|_| ()) });
    there.replica.go_online();
    within("the token", waiting).await.unwrap().unwrap();
    assert_eq!(there.count(), 7);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_can_wait_until_another_replica_has_it() {
    let (here, there) = pair().await;
    for round in 1..=20 {
        let write = here.space.counter("test", "counter").add(1);
        let receipt = write.durability(Durability::Remote(1)).within(PATIENCE).await.unwrap();
        assert_eq!((receipt.reached(), receipt.remote()), (true, 1));
        assert_eq!(there.count(), round, "what the other has reported it shows");
    }
    let write = here.space.counter("test", "counter").add(1).durability(Durability::Remote(2));
    let receipt = write.within(Duration::from_millis(200)).await.unwrap();
    assert!(!receipt.reached(), "there is only one other replica");

    there.replica.go_offline().await.unwrap();
    let started = Instant::now();
    let write = here.space.counter("test", "counter").add(1).durability(Durability::Remote(1));
    let receipt = write.within(Duration::from_millis(150)).await.unwrap();
    assert!(started.elapsed() >= Duration::from_millis(150));
    assert_eq!((receipt.reached(), receipt.remote()), (false, 0));
    assert_eq!(here.count(), 22, "it is durable here all the same");
    there.replica.go_online();
    let view = there.space.at_within(&receipt.token(), PATIENCE).await.unwrap();
    assert_eq!(view.counter("test", "counter").unwrap(), 22, "and spreads later");
}

#[tokio::test(flavor = "multi_thread")]
async fn concurrent_values_are_siblings_until_somebody_resolves_them_and_then_in_the_journal() {
    let (here, there) = pair().await;
    there.replica.go_offline().await.unwrap();
    here.space.register("post", "title").write("one").await.unwrap();
    there.space.register("post", "title").write("two").await.unwrap();
    there.replica.go_online();
    converge(&[&here, &there]).await;
    let read = here.space.register("post", "title").read().unwrap();
    let RegisterView::Siblings(shown) = read.under(&Policy::Siblings) else { panic!("no conflict is shown") };
    assert_eq!(shown.len(), 2);
    assert_eq!(read.latest(), there.space.register("post", "title").read().unwrap().latest());
    assert!(here.space.journal(10).unwrap().is_empty());

    // A value that was not seen when the decision was made stays.
    let seen: Vec<_> = read.siblings().iter().map(|(dot, _)| *dot).take(1).collect();
    let kept = read.siblings()[1].1.clone();
    let receipt = here.space.register("post", "title").resolve("both", &seen).await.unwrap();
    let view = there.space.at_within(&receipt.token(), PATIENCE).await.unwrap();
    let mut left: Vec<Value> =
        view.register("post", "title").unwrap().siblings().into_iter().map(|(_, value)| value).collect();
    left.sort();
    let mut expected = vec![Value::from("both"), kept];
    expected.sort();
    assert_eq!(left, expected);

    let resolved = read.siblings()[0].1.clone();
    let receipt = there.space.register("post", "title").write("the end").await.unwrap();
    here.space.at_within(&receipt.token(), PATIENCE).await.unwrap();
    // What the resolution replaced, and then what the last write replaced together.
    expected.push(resolved);
    expected.sort();
    for region in [&here, &there] {
        let journal = region.space.journal(10).unwrap();
        let mut values: Vec<Value> = journal.iter().map(|entry| entry.value.clone()).collect();
        values.sort();
        assert_eq!(values, expected, "whatever was removed beside another value is kept");
        assert!(journal.iter().all(|entry| entry.reason == JournalReason::SiblingReplaced));
        assert!(journal.iter().all(|entry| entry.location.object.key() == "title"));
        assert_eq!(region.space.register("post", "title").read().unwrap().siblings().len(), 1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn going_offline_ends_every_connection_and_going_online_makes_up_for_it() {
    let (here, there) = pair().await;
    here.replica.connect(&there.ticket()).await.unwrap();
    for round in 1..=10 {
        let (one, other) = if round % 2 == 0 { (&here, &there) } else { (&there, &here) };
        one.replica.go_offline().await.unwrap();
        one.add_one().await.unwrap();
        other.add_one().await.unwrap();
        // The other side dials all the while, and is turned away.
        assert!(one.replica.connected().is_empty());
        assert!(one.status().await.peers.is_empty());
        one.replica.go_online();
        one.wait_connected(other).await;
        converge(&[&here, &there]).await;
        assert_eq!(here.count(), round * 2);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_connects_to_a_replica_that_went_offline_however_hard_it_tries() {
    let (here, there) = pair().await;
    let invitation = here.space.invite().await.unwrap();
    let dialers: Vec<_> = (1..=8)
        .map(|secret| {
            let (stranger, ticket) = (Stranger::new([secret; 32]), invitation.clone());
            // Let in while the invitation is open, and back as soon as it is closed upon.
            tokio::spawn(async move {
                loop {
                    if let Ok(connection) = stranger.dial_ticket(&ticket).await {
                        connection.closed().await;
                    }
                }
            })
        })
        .collect();
    for _ in 0..300 {
        here.replica.go_offline().await.unwrap();
        for _ in 0..5 {
            // Whatever was on its way to the core when it went offline is dealt with before an answer.
            let status = here.replica.status().await.unwrap();
            assert!(status.sessions.is_empty() && here.replica.connected().is_empty());
        }
        here.replica.go_online();
        eventually("somebody is connected", async || !here.replica.connected().is_empty()).await;
    }
    dialers.iter().for_each(tokio::task::JoinHandle::abort);
    here.wait_connected(&there).await;
    here.add_one().await.unwrap();
    converge(&[&here, &there]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn dials_that_cross_leave_one_connection() {
    let (here, there) = pair().await;
    here.replica.connect(&there.ticket()).await.unwrap();
    for round in 1..=10 {
        here.replica.go_offline().await.unwrap();
        there.replica.go_offline().await.unwrap();
        here.replica.go_online();
        there.replica.go_online();
        here.wait_connected(&there).await;
        there.wait_connected(&here).await;
        let write = here.space.counter("test", "counter").add(1);
        let receipt = write.durability(Durability::Remote(1)).within(PATIENCE).await.unwrap();
        assert!(receipt.reached());
        converge(&[&here, &there]).await;
        eventually("each side has the same one session", async || {
            let (ours, theirs) =
                (here.replica.traffic().await.unwrap(), there.replica.traffic().await.unwrap());
            let sent = |stats: &comity::ConnectionStats| stats.control.frames_sent;
            let received = |stats: &comity::ConnectionStats| stats.control.frames_received;
            ours.len() == 1
                && theirs.len() == 1
                && (sent(&ours[0].1), received(&ours[0].1)) == (received(&theirs[0].1), sent(&theirs[0].1))
        })
        .await;
        let sessions = here.replica.status().await.unwrap().sessions;
        assert_eq!(sessions.iter().map(|session| session.peer).collect::<Vec<_>>(), [there.id()]);
        let sessions = there.replica.status().await.unwrap().sessions;
        assert_eq!(sessions.iter().map(|session| session.peer).collect::<Vec<_>>(), [here.id()]);
        assert_eq!(there.count(), round);
    }
}

/// Three regions in a row; the ends never meet.
async fn row() -> [Region; 3] {
    let first = Region::founder().await;
    let middle = Region::joining_as(&first, Role::Admin).await;
    let last = Region::joining(&middle).await;
    converge(&[&first, &middle, &last]).await;
    [first, middle, last]
}

fn never_met(ends: [&Region; 2]) {
    for (one, other) in [(ends[0], ends[1]), (ends[1], ends[0])] {
        assert!(!one.replica.connected().contains(&other.id()));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_relay_passes_everything_on_in_causal_order() {
    let [first, middle, last] = row().await;
    let mut watch = middle.space.watch();
    let watched = middle.space.clone();
    // At every moment the middle may have seen the question without the answer, and never the reverse.
    let watching = tokio::spawn(async move {
        loop {
            within("the next notice", watch.next()).await.unwrap();
            let view = watched.view().unwrap();
            let (answers, questions) =
                (view.counter("chat", "answers").unwrap(), view.counter("chat", "questions").unwrap());
            assert!((answers..=answers + 1).contains(&questions), "{answers} answers, {questions} questions");
            if answers == 30 {
                return;
            }
        }
    });
    for _ in 0..30 {
        let question = first.space.counter("chat", "questions").add(1).await.unwrap();
        last.space.at_within(&question.token(), PATIENCE).await.unwrap();
        let answer = last.space.counter("chat", "answers").add(1).await.unwrap();
        first.space.at_within(&answer.token(), PATIENCE).await.unwrap();
    }
    within("the last answer", watching).await.unwrap();
    converge(&[&first, &middle, &last]).await;
    never_met([&first, &last]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_relay_that_restarts_passes_on_what_it_missed() {
    let [first, mut middle, last] = row().await;
    for round in 1..=5 {
        middle.replica.clone().shutdown().await;
        for region in [&first, &last] {
            for _ in 0..10 {
                region.add_one().await.unwrap();
            }
        }
        middle = middle.reopen().await;
        middle.add_one().await.unwrap();
        // It listens on another port than before.
        last.replica.connect(&middle.ticket()).await.unwrap();
        converge(&[&first, &middle, &last]).await;
        for region in [&first, &middle, &last] {
            assert_eq!(region.count(), round * 21);
        }
        never_met([&first, &last]);
    }
    assert_eq!(first.status().await.lanes.len(), 3, "every replica kept its lane");
}

#[tokio::test(flavor = "multi_thread")]
async fn three_replicas_that_all_know_each_other_converge_under_load() {
    let [first, middle, last] = row().await;
    first.replica.connect(&last.ticket()).await.unwrap();
    last.replica.connect(&first.ticket()).await.unwrap();
    let mut writers = Vec::new();
    for region in [&first, &middle, &last] {
        let space = region.space.clone();
        writers.push(tokio::spawn(async move {
            for _ in 0..300 {
                space.counter("test", "counter").add(1).await.unwrap();
            }
        }));
    }
    for writer in writers {
        within("the writer", writer).await.unwrap();
    }
    converge(&[&first, &middle, &last]).await;
    for region in [&first, &middle, &last] {
        assert_eq!(region.count(), 900);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn only_admins_that_listen_invite_and_a_ticket_survives_print() {
    let (founder, joiner) = pair().await;
    let refused = joiner.space.invite().await.unwrap_err();
    let not_admin = CommandError::NotAdmin(joiner.space.id());
    assert_eq!(refused, InviteError::Request(RequestError::Command(not_admin)));
    let ticket = founder.space.invite().await.unwrap();
    assert_eq!(ticket.to_string().parse(), Ok(ticket.clone()));
    assert_eq!(ticket.addresses, founder.ticket().addresses);
    founder.replica.advertise("[::1]:4433".parse().unwrap());
    assert_eq!(founder.ticket().addresses, ["[::1]:4433".parse().unwrap()]);

    let directory = tempfile::tempdir().unwrap();
    let silent = patient_open(directory.path(), OpenOptions::default()).await;
    let space = silent.create_space("silent").await.unwrap();
    assert_eq!(space.invite().await.unwrap_err(), InviteError::NoAddress);
    assert!(silent.listen(founder_address(&ticket)).await.is_err(), "the port is taken");
    silent.listen(loopback(0)).await.unwrap();
    assert!(space.invite().await.is_ok());
    silent.shutdown().await;
}

fn founder_address(ticket: &Ticket) -> std::net::SocketAddr {
    ticket.addresses[0]
}

#[tokio::test]
async fn what_is_no_ticket_is_refused_with_the_reason() {
    assert_eq!("nonsense".parse::<Ticket>(), Err(TicketError::Prefix));
    assert_eq!("comity1".parse::<Ticket>(), Err(TicketError::Damaged));
    assert_eq!("comity1!!!".parse::<Ticket>(), Err(TicketError::Damaged));
    let long = format!("comity1{}", "a".repeat(2_000));
    assert_eq!(long.parse::<Ticket>(), Err(TicketError::TooLong { chars: 2_007, chars_max: 1_024 }));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_has_no_session_with_itself() {
    let (founder, joiner) = pair().await;
    let own = founder.space.invite().await.unwrap();
    let space = founder.replica.connect(&own).await.unwrap();
    assert_eq!(space.id(), founder.space.id());
    let within = Duration::from_millis(300);
    let alone = founder.replica.wait_connected(founder.id(), within).await;
    assert_eq!(alone, Err(comity::ConnectedError::TimedOut(within)));
    assert_eq!(founder.replica.connected().into_iter().collect::<Vec<_>>(), [joiner.id()]);
    founder.add_one().await.unwrap();
    converge(&[&founder, &joiner]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_joiner_writes_before_it_has_ever_reached_the_inviter() {
    let founder = Region::founder().await;
    let ticket = founder.space.invite().await.unwrap();
    let directory = tempfile::tempdir().unwrap();
    let early = patient_open(directory.path(), OpenOptions::default()).await;
    early.go_offline().await.unwrap();
    let space = early.connect(&ticket).await.unwrap();
    for _ in 0..10 {
        space.counter("test", "counter").add(1).await.unwrap();
    }
    founder.add_one().await.unwrap();
    early.go_online();
    until(&founder.space, async |_| founder.count() == 11).await;
    until(&space, async |space| space.counter("test", "counter").value().unwrap() == 11).await;
    early.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn shutting_down_ends_although_nobody_answers_a_dial() {
    let (founder, joiner) = pair().await;
    joiner.replica.connect(&founder.ticket()).await.unwrap();
    let silent = std::net::UdpSocket::bind(loopback(0)).unwrap();
    let mut nowhere = founder.ticket();
    nowhere.addresses = vec![silent.local_addr().unwrap()];
    nowhere.replica = comity::ReplicaId([7; 32]);
    joiner.replica.connect(&nowhere).await.unwrap();
    founder.replica.clone().shutdown().await;
    eventually("the joiner notices", async || joiner.replica.connected().is_empty()).await;
    tokio::time::timeout(PATIENCE, joiner.replica.clone().shutdown()).await.unwrap();
}
