//! Frames between two honest peers.

use std::sync::Arc;

use bytes::Bytes;

use super::support::*;
use crate::*;

#[tokio::test]
async fn frames_of_every_class_go_both_ways() {
    let (a, b) = (endpoint(1), endpoint(2));
    let (at_a, at_b) = pair(&a, &b, 2).await;
    assert_eq!((at_a.peer(), at_b.peer()), (identity(2).public(), identity(1).public()));
    assert!(at_a.dialed() && !at_b.dialed());
    assert_eq!(at_a.remote_addr(), b.local_addr());
    let (mut a_sender, mut a_receiver) = at_a.split();
    let (mut b_sender, mut b_receiver) = at_b.split();
    for class in Class::ALL {
        a_sender.try_send(class, bytes("ping")).expect("room");
        assert_eq!(soon(b_receiver.recv()).await, Ok((class, bytes("ping"))));
        b_sender.try_send(class, bytes("pong")).expect("room");
        assert_eq!(soon(a_receiver.recv()).await, Ok((class, bytes("pong"))));
    }
}

#[tokio::test]
async fn frames_of_a_class_arrive_in_order_and_whole() {
    let (a, b) = (endpoint(1), endpoint(2));
    let (at_a, at_b) = pair(&a, &b, 2).await;
    let (mut sender, _a_receiver) = at_a.split();
    let (_b_sender, mut receiver) = at_b.split();
    let frame = |n: usize| Bytes::from(vec![n as u8; 1 + n * n % 70_000]);
    for n in 0..100 {
        sender.try_send(Class::Live, frame(n)).expect("below the queue's limit");
    }
    for n in 0..100 {
        let (class, got) = soon(receiver.recv()).await.expect("open");
        assert_eq!((class, got), (Class::Live, frame(n)));
    }
}

#[tokio::test]
async fn receiving_is_cancel_safe() {
    let (a, b) = (endpoint(1), endpoint(2));
    let (at_a, at_b) = pair(&a, &b, 2).await;
    let (mut sender, _a_receiver) = at_a.split();
    let (_b_sender, mut receiver) = at_b.split();
    let mut received = 0u32;
    let mut cancelled = 0;
    let mut sent = 0u32;
    while received < 500 {
        if sent < 500 {
            sender.try_send(Class::Live, Bytes::copy_from_slice(&sent.to_be_bytes())).expect("room");
            sent += 1;
        }
        tokio::select! {
            biased;
            frame = receiver.recv() => {
                assert_eq!(frame, Ok((Class::Live, Bytes::copy_from_slice(&received.to_be_bytes()))));
                received += 1;
            }
            () = tokio::task::yield_now() => cancelled += 1,
        }
    }
    assert!(cancelled > 0);
}

#[tokio::test]
async fn both_sides_count_the_same_frames_and_bytes() {
    let (a, b) = (endpoint(1), endpoint(2));
    let (at_a, at_b) = pair(&a, &b, 2).await;
    let (a_handle, b_handle) = (at_a.handle(), at_b.handle());
    let (mut sender, _a_receiver) = at_a.split();
    let (_b_sender, mut receiver) = at_b.split();
    for class in Class::ALL {
        sender.try_send(class, bytes("three")).expect("room");
        sender.try_send(class, bytes("fifteen")).expect("room");
    }
    for _ in 0..6 {
        soon(receiver.recv()).await.expect("open");
    }
    for class in Class::ALL {
        let expected = ClassStats { frames_sent: 2, bytes_sent: 12, ..ClassStats::default() };
        assert_eq!(*a_handle.stats().class(class), expected);
        let expected = ClassStats { frames_received: 2, bytes_received: 12, ..ClassStats::default() };
        assert_eq!(*b_handle.stats().class(class), expected);
    }
    assert!(a_handle.stats().udp_bytes_sent > 36);
    assert!(b_handle.stats().udp_bytes_received > 36);
}

#[tokio::test]
async fn frames_that_cannot_be_sent_are_refused_with_a_type() {
    let (a, b) = (endpoint(1), endpoint(2));
    let (at_a, at_b) = pair(&a, &b, 2).await;
    let handle = at_a.handle();
    let (mut sender, _a_receiver) = at_a.split();
    let (_b_sender, mut receiver) = at_b.split();
    let limit = TransportConfig::default().frame_bytes_max;
    assert_eq!(sender.try_send(Class::Live, Bytes::new()), Err(SendError::Empty));
    assert_eq!(sender.try_send(Class::Live, Bytes::from(vec![0; limit + 1])), Err(SendError::TooLarge));
    sender.try_send(Class::Live, Bytes::from(vec![0; limit])).expect("at the limit");
    assert_eq!(soon(receiver.recv()).await.map(|(_, frame)| frame.len()), Ok(limit));
    handle.close(CloseCode::NORMAL, "");
    soon(async {
        while sender.try_send(Class::Live, bytes("late")) != Err(SendError::Closed) {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

#[tokio::test]
async fn bbr_can_be_chosen() {
    let config = TransportConfig { congestion: Congestion::Bbr, ..TransportConfig::default() };
    let (a, b) = (endpoint_with(1, Arc::new(Everyone), config), endpoint(2));
    let (at_a, at_b) = pair(&a, &b, 2).await;
    let (mut sender, _a_receiver) = at_a.split();
    let (_b_sender, mut receiver) = at_b.split();
    for _ in 0..20 {
        sender.try_send(Class::CatchUp, Bytes::from(vec![0; 100_000])).expect("room");
    }
    for _ in 0..20 {
        soon(receiver.recv()).await.expect("open");
    }
}

#[tokio::test]
async fn every_future_can_be_spawned() {
    fn spawnable<T: Send>(_: &T) {}
    let (a, b) = (endpoint(1), endpoint(2));
    let (at_a, _at_b) = pair(&a, &b, 2).await;
    spawnable(&a.accept());
    spawnable(&a.connect(b.local_addr(), identity(2).public()));
    spawnable(&a.connect_unconfirmed(b.local_addr(), identity(2).public()));
    spawnable(&a.wait_idle());
    spawnable(&at_a.closed());
    let (sender, mut receiver) = at_a.split();
    spawnable(&receiver.recv());
    spawnable(&sender.finish());
}
