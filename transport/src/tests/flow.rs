//! Slow readers, full queues and which class goes first.

use std::sync::Arc;

use bytes::Bytes;
use quinn::RecvStream;

use super::support::*;
use crate::tls::Credentials;
use crate::*;

const KIB: usize = 1024;

/// Queues frames until this side's queue is full and more than `window_bytes` have left it, which a peer that
/// does not read cannot have taken. Returns the bytes queued, never more than `bytes_max`.
async fn fill(
    sender: &mut FrameSender,
    handle: &ConnectionHandle,
    class: Class,
    frame: &Bytes,
    [window_bytes, bytes_max]: [usize; 2],
) -> usize {
    let mut taken = 0;
    soon(async {
        loop {
            match sender.try_send(class, frame.clone()) {
                Ok(()) => taken += frame.len(),
                Err(SendError::Full) if handle.stats().class(class).bytes_sent > window_bytes as u64 => break,
                Err(SendError::Full) => tokio::task::yield_now().await,
                Err(other) => panic!("{other:?}"),
            }
            assert!(taken <= bytes_max, "{taken} bytes taken for a peer that does not read");
        }
    })
    .await;
    taken
}

fn small_windows() -> TransportConfig {
    TransportConfig {
        frame_bytes_max: 64 * KIB,
        stream_window_bytes: 256 * KIB,
        connection_window_bytes: 1024 * KIB,
        send_window_bytes: 1024 * KIB,
        queue_bytes: 256 * KIB,
        inbound_bytes: 128 * KIB,
        ..TransportConfig::default()
    }
}

#[tokio::test]
async fn a_peer_that_does_not_read_fills_the_queue_and_loses_nothing() {
    let (a, b) = (
        endpoint_with(1, Arc::new(Everyone), small_windows()),
        endpoint_with(2, Arc::new(Everyone), small_windows()),
    );
    let (at_a, at_b) = pair(&a, &b, 2).await;
    let handle = at_a.handle();
    let (mut sender, _a_receiver) = at_a.split();
    let (_b_sender, mut receiver) = at_b.split();
    let frame = Bytes::from(vec![7; 10 * KIB]);
    // Queue, a batch being written, the stream's window, a chunk in the reader's hands, the inbound queue.
    let bytes_max = (256 + 64 + 10 + 256 + 64 + 128) * KIB;
    let mut taken = 0;
    // Whatever room the peer's buffers make meanwhile, the bound holds.
    for _ in 0..1000 {
        taken += fill(&mut sender, &handle, Class::CatchUp, &frame, [256 * KIB, bytes_max - taken]).await;
        tokio::task::yield_now().await;
    }
    for _ in 0..taken / frame.len() {
        assert_eq!(soon(receiver.recv()).await, Ok((Class::CatchUp, frame.clone())));
    }
    sender.try_send(Class::CatchUp, bytes("after")).expect("room again");
    assert_eq!(soon(receiver.recv()).await, Ok((Class::CatchUp, bytes("after"))));
}

#[tokio::test]
async fn one_byte_frames_to_a_peer_that_does_not_read_are_bounded_too() {
    let (a, b) = (
        endpoint_with(1, Arc::new(Everyone), small_windows()),
        endpoint_with(2, Arc::new(Everyone), small_windows()),
    );
    let (at_a, _at_b) = pair(&a, &b, 2).await;
    let handle = at_a.handle();
    let (mut sender, _receiver) = at_a.split();
    // The window and the reader's chunk hold two bytes for each frame, the queues over a hundred.
    fill(&mut sender, &handle, Class::Live, &bytes("x"), [256 * KIB / 2, (256 + 64) * KIB / 2 + 8 * KIB])
        .await;
}

/// The stream of a class, as a raw peer sees it.
async fn raw_stream(raw: &quinn::Connection, class: Class, others: &mut Vec<RecvStream>) -> RecvStream {
    loop {
        let mut stream = soon(raw.accept_uni()).await.expect("open");
        let mut tag = [0];
        soon(stream.read_exact(&mut tag)).await.expect("a tag");
        if Class::of_tag(tag[0]) == Some(class) {
            return stream;
        }
        others.push(stream);
    }
}

#[tokio::test]
async fn live_frames_flow_while_catch_up_is_stuck_on_the_wire() {
    let listener = endpoint_with(2, Arc::new(Everyone), small_windows());
    let raw = raw_endpoint();
    let mut config = raw_config(&Credentials::new(&identity(9)), 2);
    config.transport_config(Arc::new(small_windows().quic()));
    let (raw, accepted) = raw_peer_with(&raw, &listener, config).await;
    let handle = accepted.handle();
    let (mut sender, _receiver) = accepted.split();
    let mut unread = Vec::new();
    let mut live = raw_stream(&raw, Class::Live, &mut unread).await;
    fill(&mut sender, &handle, Class::CatchUp, &Bytes::from(vec![7; 10 * KIB]), [256 * KIB, 1024 * KIB])
        .await;
    for n in 0..200u8 {
        sender.try_send(Class::Live, Bytes::from(vec![n])).expect("live is not stuck");
        let mut frame = [0; 2];
        soon(live.read_exact(&mut frame)).await.expect("open");
        assert_eq!(frame, [1, n]);
    }
    assert_eq!(sender.try_send(Class::CatchUp, Bytes::from(vec![7; 10 * KIB])), Err(SendError::Full));
}

#[tokio::test]
async fn a_live_frame_is_received_before_a_backlog_of_catch_up() {
    let (a, b) = (
        endpoint_with(1, Arc::new(Everyone), small_windows()),
        endpoint_with(2, Arc::new(Everyone), small_windows()),
    );
    let (at_a, at_b) = pair(&a, &b, 2).await;
    let (handle, received) = (at_a.handle(), at_b.handle());
    let (mut sender, _a_receiver) = at_a.split();
    let (_b_sender, mut receiver) = at_b.split();
    fill(&mut sender, &handle, Class::CatchUp, &Bytes::from(vec![7; 10 * KIB]), [256 * KIB, 1024 * KIB])
        .await;
    sender.try_send(Class::Live, bytes("live")).expect("live is not stuck");
    sender.try_send(Class::Control, bytes("control")).expect("control is not stuck");
    until(|| received.stats().live.frames_received + received.stats().control.frames_received == 2).await;
    assert_eq!(soon(receiver.recv()).await, Ok((Class::Control, bytes("control"))));
    assert_eq!(soon(receiver.recv()).await, Ok((Class::Live, bytes("live"))));
    assert!(matches!(soon(receiver.recv()).await, Ok((Class::CatchUp, _))));
}

#[tokio::test]
async fn a_live_frame_queued_last_overtakes_a_backlog_that_is_being_read() {
    let (a, b) = (endpoint(1), endpoint(2));
    let (at_a, at_b) = pair(&a, &b, 2).await;
    let (mut sender, _a_receiver) = at_a.split();
    let (_b_sender, mut receiver) = at_b.split();
    let mut queued = 0;
    while sender.try_send(Class::CatchUp, Bytes::from(vec![7; 100 * KIB])).is_ok() {
        queued += 1;
    }
    sender.try_send(Class::Live, bytes("live")).expect("live has a queue of its own");
    let mut overtaken = queued;
    while let (Class::CatchUp, _) = soon(receiver.recv()).await.expect("open") {
        overtaken -= 1;
    }
    assert!(overtaken > queued / 2, "{overtaken} of {queued} catch-up frames were overtaken");
}

#[tokio::test]
async fn who_has_enough_of_a_catch_up_still_receives_what_is_urgent() {
    let (a, b) = (endpoint(1), endpoint(2));
    let (at_a, at_b) = pair(&a, &b, 2).await;
    let received = at_b.handle();
    let (mut sender, _a_receiver) = at_a.split();
    let (_b_sender, mut receiver) = at_b.split();
    sender.try_send(Class::CatchUp, bytes("much")).expect("open");
    until(|| received.stats().catch_up.frames_received == 1).await;
    sender.try_send(Class::Live, bytes("live")).expect("open");
    assert_eq!(soon(receiver.recv_urgent()).await, Ok((Class::Live, bytes("live"))));
    sender.try_send(Class::Control, bytes("control")).expect("open");
    assert_eq!(soon(receiver.recv_urgent()).await, Ok((Class::Control, bytes("control"))));
    assert_eq!(soon(receiver.recv()).await, Ok((Class::CatchUp, bytes("much"))));
}

#[tokio::test]
async fn small_frames_share_packets() {
    let (a, b) = (endpoint(1), endpoint(2));
    let (at_a, at_b) = pair(&a, &b, 2).await;
    let sent = at_a.handle();
    let (mut sender, _a_receiver) = at_a.split();
    let (_b_sender, mut receiver) = at_b.split();
    let before = sent.stats().udp_bytes_sent;
    for _ in 0..10_000 {
        sender.try_send(Class::Live, bytes("eight by")).expect("below the queue's limit");
    }
    for _ in 0..10_000 {
        soon(receiver.recv()).await.expect("open");
    }
    let on_the_wire = sent.stats().udp_bytes_sent - before;
    assert!(on_the_wire < 150_000, "{on_the_wire} bytes for 90,000 of frames");
}
