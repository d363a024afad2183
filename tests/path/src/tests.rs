use std::net::UdpSocket;

use super::*;
use crate::direction::Direction;

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// When each of `count` datagrams of 1,000 bytes that come every `every` arrives.
fn arrivals(conditions: Conditions, seed: u64, (count, every): (u32, Duration)) -> Vec<Duration> {
    let (mut direction, mut arrived) = (Direction::new(seed), Vec::new());
    for number in 0..count {
        direction.admit(every * number, &conditions, (0, &[0; 1_000], 1_000));
    }
    while let Some(due) = direction.next_due() {
        let parcel = direction.take_due(due).unwrap();
        arrived.extend((0..parcel.datagrams()).map(|_| due));
    }
    arrived
}

#[test]
fn every_datagram_takes_the_delay() {
    let arrived = arrivals(Conditions::after(ms(50)), 1, (3, ms(10)));
    assert_eq!(arrived, [ms(50), ms(60), ms(70)]);
}

#[test]
fn a_seed_loses_the_same_datagrams_and_about_as_many_as_was_asked_for() {
    let lossy = Conditions::after(ms(50)).losing(10_000);
    let of = |seed| arrivals(lossy, seed, (50_000, ms(1)));
    assert_eq!(of(7), of(7));
    assert_ne!(of(7), of(8));
    let lost = 50_000 - of(7).len();
    assert!((400..=600).contains(&lost), "{lost}");
}

#[test]
fn no_more_than_the_rate_passes_and_what_finds_no_room_is_lost() {
    let conditions = Conditions { queue_bytes: 10_000, ..Conditions::after(ms(1)).at_rate(Some(100_000)) };
    // Ten times as many as pass, for a second.
    let arrived = arrivals(conditions, 1, (1_000, ms(1)));
    assert!((100..=115).contains(&arrived.len()), "{}", arrived.len());
    assert!(arrived.is_sorted());
}

#[test]
fn a_burst_keeps_the_bounds_of_its_datagrams() {
    let lossy = Conditions::after(ms(1)).losing(300_000);
    let mut direction = Direction::new(3);
    let burst: Vec<u8> = (0..20_u8).flat_map(|number| vec![number; 100]).chain([99; 30]).collect();
    let fates = direction.admit(ms(0), &lossy, (0, &burst, 100));
    let parcel = direction.take_due(ms(1)).unwrap();
    assert_eq!(parcel.datagrams() + fates.lost, 21);
    assert!(fates.lost > 0);
    assert!(parcel.bytes.chunks(100).all(|datagram| datagram.iter().all(|byte| *byte == datagram[0])));
}

#[test]
fn nothing_passes_a_path_that_is_cut() {
    let cut = Conditions { is_cut: true, ..Conditions::after(ms(1)) };
    let mut direction = Direction::new(3);
    assert_eq!(direction.admit(ms(0), &cut, (0, &[0; 300], 100)).cut, 3);
    assert_eq!(direction.next_due(), None);
}

#[test]
fn datagrams_arrive_after_the_delay_and_answers_come_back() {
    let far = UdpSocket::bind("127.0.0.1:0").unwrap();
    let near = UdpSocket::bind("127.0.0.1:0").unwrap();
    let path = Path::to(far.local_addr().unwrap(), Conditions::after(ms(20)), 1).unwrap();
    let started = std::time::Instant::now();
    let mut buffer = [0; 100];
    near.send_to(b"there", path.near()).unwrap();
    let (bytes, from) = far.recv_from(&mut buffer).unwrap();
    assert_eq!(&buffer[..bytes], b"there");
    far.send_to(b"and back", from).unwrap();
    let (bytes, _) = near.recv_from(&mut buffer).unwrap();
    assert_eq!(&buffer[..bytes], b"and back");
    assert!(started.elapsed() >= ms(40));
    assert_eq!(path.carried(), Carried { datagrams: 2, bytes: 13, ..Carried::default() });
}
