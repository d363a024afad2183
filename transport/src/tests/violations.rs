//! Peers that pass the handshake and then break the rules of the streams.

use quinn::{ConnectionError, SendDatagramError, SendStream};
use tokio::io::AsyncWriteExt;

use super::support::*;
use crate::*;

/// What a peer does with its connection.
async fn write(raw: &quinn::Connection, bytes: &[u8]) -> SendStream {
    let mut stream = raw.open_uni().await.expect("streams are left");
    stream.write_all(bytes).await.expect("open");
    stream
}

async fn finish(raw: &quinn::Connection, bytes: &[u8]) {
    write(raw, bytes).await.shutdown().await.expect("open");
}

/// The code a raw peer is closed with, which must be what the endpoint's caller learns too.
async fn closed_with(raw: &quinn::Connection, accepted: Connection) -> CloseCode {
    let (_sender, mut receiver) = accepted.split();
    let local = loop {
        match soon(receiver.recv()).await {
            Ok(_) => {}
            Err(RecvError::Closed(CloseReason::Local { code, .. })) => break code,
            Err(other) => panic!("{other:?}"),
        }
    };
    match soon(raw.closed()).await {
        ConnectionError::ApplicationClosed(close) => {
            assert_eq!(close.error_code.into_inner(), u64::from(local.0))
        }
        other => panic!("{other:?}"),
    }
    local
}

#[tokio::test]
async fn bytes_that_are_not_frames_close_the_connection_with_the_right_code() {
    let listener = endpoint(2);
    let raw = raw_endpoint();
    let cases: [(&str, &[u8], CloseCode); 9] = [
        ("one byte over the limit", &[2, 0x81, 0x80, 0x10], CloseCode::FRAME_TOO_LARGE),
        ("four gigabytes", &[2, 0xff, 0xff, 0xff, 0xff, 0x0f], CloseCode::FRAME_TOO_LARGE),
        ("an HTTP request", b"GET / HTTP/1.1\r\n\r\n", CloseCode::UNEXPECTED_STREAM),
        ("class zero", &[0, 1, 1], CloseCode::UNEXPECTED_STREAM),
        ("no class", &[], CloseCode::UNEXPECTED_STREAM),
        ("an empty frame", &[1, 0], CloseCode::MALFORMED_FRAME),
        ("an overlong length", &[1, 0x81, 0x00], CloseCode::MALFORMED_FRAME),
        ("an end inside a length", &[3, 0x81], CloseCode::MALFORMED_FRAME),
        ("an end inside a body", &[3, 5, 1, 2], CloseCode::MALFORMED_FRAME),
    ];
    for (what, bytes, code) in cases {
        let (raw, accepted) = raw_peer(&raw, &listener, 2).await;
        finish(&raw, bytes).await;
        assert_eq!(closed_with(&raw, accepted).await, code, "{what}");
    }
}

#[tokio::test]
async fn frames_before_a_violation_are_delivered() {
    let listener = endpoint(2);
    let raw = raw_endpoint();
    let (raw, accepted) = raw_peer(&raw, &listener, 2).await;
    let _stream = write(&raw, &[2, 2, b'o', b'k', 0]).await;
    let (_sender, mut receiver) = accepted.split();
    assert_eq!(soon(receiver.recv()).await, Ok((Class::Live, bytes("ok"))));
    assert!(matches!(soon(receiver.recv()).await, Err(RecvError::Closed(CloseReason::Local { .. }))));
}

#[tokio::test]
async fn surplus_streams_close_the_connection() {
    let listener = endpoint(2);
    let raw = raw_endpoint();
    let cases: [(&str, &[&[u8]]); 3] = [
        ("a class twice", &[&[2, 1, 7], &[2, 1, 7]]),
        ("four streams", &[&[1, 1, 7], &[2, 1, 7], &[3, 1, 7], &[3, 1, 7]]),
        ("an unknown class beside a known one", &[&[1, 1, 7], &[4, 1, 7]]),
    ];
    for (what, streams) in cases {
        let (raw, accepted) = raw_peer(&raw, &listener, 2).await;
        let mut open = Vec::new();
        for bytes in streams {
            open.push(write(&raw, bytes).await);
        }
        assert_eq!(closed_with(&raw, accepted).await, CloseCode::UNEXPECTED_STREAM, "{what}");
    }
}

#[tokio::test]
async fn a_finished_class_cannot_be_opened_again() {
    let listener = endpoint(2);
    let raw = raw_endpoint();
    let (raw, accepted) = raw_peer(&raw, &listener, 2).await;
    finish(&raw, &[2, 1, 7]).await;
    let _stream = write(&raw, &[2, 1, 7]).await;
    assert_eq!(closed_with(&raw, accepted).await, CloseCode::UNEXPECTED_STREAM);
}

#[tokio::test]
async fn a_reset_stream_closes_the_connection() {
    let listener = endpoint(2);
    let raw = raw_endpoint();
    let (raw, accepted) = raw_peer(&raw, &listener, 2).await;
    let mut stream = write(&raw, &[2, 1, 7, 5]).await;
    let (sender, mut receiver) = accepted.split();
    soon(receiver.recv()).await.expect("the whole frame");
    stream.reset(7u32.into()).expect("open");
    let error = soon(receiver.recv()).await.expect_err("closed");
    let RecvError::Closed(CloseReason::Local { code, .. }) = error else { panic!("{error:?}") };
    assert_eq!(code, CloseCode::MALFORMED_FRAME);
    drop(sender);
}

#[tokio::test]
async fn bidirectional_streams_and_datagrams_are_not_on_offer() {
    let listener = endpoint(2);
    let raw = raw_endpoint();
    let (raw, _accepted) = raw_peer(&raw, &listener, 2).await;
    tokio::select! {
        biased;
        opened = raw.open_bi() => panic!("{opened:?}"),
        () = std::future::ready(()) => {}
    }
    assert!(matches!(raw.send_datagram(bytes("x")), Err(SendDatagramError::UnsupportedByPeer)));
}

#[tokio::test]
async fn a_violation_closes_no_other_connection() {
    let (honest, listener) = (endpoint(1), endpoint(2));
    let (at_honest, at_listener) = pair(&honest, &listener, 2).await;
    let raw = raw_endpoint();
    let (raw, accepted) = raw_peer(&raw, &listener, 2).await;
    finish(&raw, &[9]).await;
    closed_with(&raw, accepted).await;
    let (mut sender, _receiver) = at_honest.split();
    let (_sender, mut receiver) = at_listener.split();
    sender.try_send(Class::Live, bytes("unharmed")).expect("room");
    assert_eq!(soon(receiver.recv()).await, Ok((Class::Live, bytes("unharmed"))));
}
