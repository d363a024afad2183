//! How connections and endpoints end, and what the other side is told.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::support::*;
use crate::*;

#[tokio::test]
async fn the_close_code_and_reason_reach_the_other_side() {
    let (a, b) = (endpoint(1), endpoint(2));
    let codes = [
        CloseCode::NORMAL,
        CloseCode::DUPLICATE,
        CloseCode::ENGINE_FIRST,
        CloseCode(0x1ff),
        CloseCode(u32::MAX),
    ];
    for code in codes {
        let (at_a, at_b) = pair(&a, &b, 2).await;
        assert_eq!(at_b.handle().close_reason(), None);
        at_a.close(code, "because");
        at_a.close(CloseCode::SLOW_PEER, "too late");
        let reason = "because".to_owned();
        assert_eq!(soon(at_b.closed()).await, CloseReason::Peer { code, reason: reason.clone() });
        assert_eq!(soon(at_a.closed()).await, CloseReason::Local { code, reason });
    }
}

#[tokio::test]
async fn a_long_reason_is_cut() {
    let (a, b) = (endpoint(1), endpoint(2));
    let (at_a, at_b) = pair(&a, &b, 2).await;
    at_a.close(CloseCode::NORMAL, &"long ".repeat(1000));
    let CloseReason::Peer { reason, .. } = soon(at_b.closed()).await else { panic!("closed by the peer") };
    assert_eq!(reason.len(), 256);
}

#[tokio::test]
async fn finishing_delivers_everything_that_was_queued() {
    let (a, b) = (endpoint(1), endpoint(2));
    let (at_a, at_b) = pair(&a, &b, 2).await;
    let (mut a_sender, mut a_receiver) = at_a.split();
    let (mut b_sender, mut b_receiver) = at_b.split();
    for class in Class::ALL {
        for _ in 0..30 {
            a_sender.try_send(class, Bytes::from(vec![1; 100_000])).expect("below the queue's limit");
        }
    }
    let received = async {
        let mut frames = 0;
        while b_receiver.recv().await.is_ok() {
            frames += 1;
        }
        (frames, b_receiver.recv().await)
    };
    let (finished, received) = soon(async { tokio::join!(a_sender.finish(), received) }).await;
    assert_eq!((finished, received), (Ok(()), (90, Err(RecvError::Finished))));
    b_sender.try_send(Class::Control, bytes("the other way is open")).expect("open");
    assert!(soon(a_receiver.recv()).await.is_ok());
}

#[tokio::test]
async fn finishing_on_a_closed_connection_says_so() {
    let (a, b) = (endpoint(1), endpoint(2));
    let (at_a, at_b) = pair(&a, &b, 2).await;
    let (sender, _receiver) = at_a.split();
    at_b.close(CloseCode(0x123), "no");
    assert_eq!(soon(sender.finish()).await, Err(SendError::Closed));
}

#[tokio::test]
async fn a_connection_ends_when_both_halves_are_dropped_and_not_before() {
    let (a, b) = (endpoint(1), endpoint(2));
    let (at_a, at_b) = pair(&a, &b, 2).await;
    let handle = at_a.handle();
    let (mut sender, receiver) = at_a.split();
    let (_b_sender, mut b_receiver) = at_b.split();
    drop(receiver);
    sender.try_send(Class::Live, bytes("one half is enough")).expect("open");
    assert!(soon(b_receiver.recv()).await.is_ok());
    drop(sender);
    let end = soon(async {
        loop {
            if let Err(end) = b_receiver.recv().await {
                break end;
            }
        }
    })
    .await;
    assert!(matches!(end, RecvError::Closed(CloseReason::Peer { code: CloseCode::NORMAL, .. })), "{end:?}");
    assert!(matches!(soon(handle.closed()).await, CloseReason::Local { code: CloseCode::NORMAL, .. }));
}

#[tokio::test]
async fn frames_received_before_a_close_are_still_handed_out() {
    let (a, b) = (endpoint(1), endpoint(2));
    let (at_a, at_b) = pair(&a, &b, 2).await;
    let handle = at_b.handle();
    let (mut sender, _a_receiver) = at_a.split();
    let (_b_sender, mut receiver) = at_b.split();
    for _ in 0..10 {
        sender.try_send(Class::Live, bytes("kept")).expect("room");
    }
    until(|| handle.stats().live.frames_received == 10).await;
    handle.close(CloseCode::NORMAL, "");
    for _ in 0..10 {
        assert_eq!(soon(receiver.recv()).await, Ok((Class::Live, bytes("kept"))));
    }
    assert!(matches!(soon(receiver.recv()).await, Err(RecvError::Closed(_))));
}

#[tokio::test]
async fn closing_an_endpoint_tells_every_peer_and_ends_accepting_and_dialing() {
    let (a, b, c) = (endpoint(1), endpoint(2), endpoint(3));
    let (_at_a, at_b) = pair(&a, &b, 2).await;
    let (at_c, at_a_from_c) = pair(&c, &a, 1).await;
    let (closed, accepted) = soon(async {
        tokio::join!(
            async {
                a.close(CloseCode::SHUTTING_DOWN, "maintenance");
                a.wait_idle().await;
            },
            a.accept()
        )
    })
    .await;
    let () = closed;
    assert!(accepted.is_none());
    let reason = "maintenance".to_owned();
    let told = CloseReason::Peer { code: CloseCode::SHUTTING_DOWN, reason: reason.clone() };
    assert_eq!(soon(at_b.closed()).await, told);
    assert_eq!(soon(at_c.closed()).await, told);
    let here = CloseReason::Local { code: CloseCode::SHUTTING_DOWN, reason };
    assert_eq!(soon(at_a_from_c.closed()).await, here);
    let dialed = soon(a.connect(b.local_addr(), identity(2).public())).await;
    assert_eq!(dialed.err(), Some(ConnectError::LocalClosed));
}

#[tokio::test]
async fn closing_an_endpoint_ends_a_dial_under_way() {
    let dialer = endpoint(1);
    let silent = std::net::UdpSocket::bind(LOOPBACK).expect("loopback is there");
    let dial = dialer.connect(silent.local_addr().expect("bound"), identity(2).public());
    let close = async { dialer.close(CloseCode::SHUTTING_DOWN, "") };
    let (dialed, ()) = soon(async { tokio::join!(biased; dial, close) }).await;
    assert_eq!(dialed.err(), Some(ConnectError::LocalClosed));
}

#[tokio::test]
async fn dropping_an_endpoint_closes_its_connections() {
    let (a, b) = (endpoint(1), endpoint(2));
    let (_at_a, at_b) = pair(&a, &b, 2).await;
    drop(a);
    let reason = soon(at_b.closed()).await;
    assert!(matches!(reason, CloseReason::Peer { code: CloseCode::SHUTTING_DOWN, .. }), "{reason:?}");
}

#[tokio::test]
async fn a_peer_that_vanishes_times_out() {
    let config = TransportConfig {
        idle_timeout: Duration::from_millis(500),
        keep_alive: Duration::from_millis(100),
        ..TransportConfig::default()
    };
    let listener = endpoint_with(2, Arc::new(Everyone), config);
    let addr = listener.local_addr();
    let elsewhere = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .expect("a runtime");
    let dialed = elsewhere.spawn(async move {
        let dialer = endpoint(1);
        let connection = dialer.connect(addr, identity(2).public()).await.expect("trusted");
        (dialer, connection)
    });
    let accepted = soon(listener.accept()).await.expect("open").expect("trusted");
    let vanishing = soon(dialed).await.expect("no panic");
    // A runtime that is gone sends nothing any more, not even a close.
    elsewhere.shutdown_background();
    let reason = soon(accepted.closed()).await;
    assert_eq!(reason, CloseReason::TimedOut);
    drop(vanishing);
}

#[tokio::test]
async fn the_port_of_a_closed_endpoint_is_free_although_a_dial_is_unanswered() {
    let silent = tokio::net::UdpSocket::bind("127.0.0.1:0").await.expect("loopback has ports");
    let nobody = silent.local_addr().expect("it is bound");
    let (a, b) = (endpoint(1), endpoint(2));
    let (_at_a, _at_b) = pair(&a, &b, 2).await;
    let address = a.local_addr();
    let mut first = [0; 2_048];
    tokio::select! {
        _ = a.connect(nobody, identity(3).public()) => panic!("nobody answers"),
        dialed = soon(silent.recv_from(&mut first)) => drop(dialed.expect("the dial is under way")),
    }
    a.close(CloseCode::SHUTTING_DOWN, "");
    a.release_port().await;
    std::net::UdpSocket::bind(address).expect("the port is free");
}
