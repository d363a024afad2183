//! A UDP socket with the kernel's batches.

use std::io::{self, IoSliceMut};
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::time::Duration;

use quinn_udp::{RecvMeta, Transmit, UdpSockRef, UdpSocketState};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

/// Bytes that the kernel keeps for a socket, in each direction.
const KERNEL_BYTES: usize = 4 << 20;

/// What one call receives at most.
const BATCHES: usize = 8;

/// The longest batch.
const BATCH_BYTES_MAX: usize = 65_536;

#[derive(Debug)]
pub(crate) struct Socket {
    socket: UdpSocket,
    state: UdpSocketState,
}

/// Where batches are received.
pub(crate) struct Buffers(Vec<Vec<u8>>);

impl Buffers {
    pub(crate) fn new() -> Self {
        Self((0..BATCHES).map(|_| vec![0; BATCH_BYTES_MAX]).collect())
    }
}

impl Socket {
    pub(crate) fn bind() -> io::Result<Self> {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
        let state = UdpSocketState::new(UdpSockRef::from(&socket))?;
        state.set_recv_buffer_size(UdpSockRef::from(&socket), KERNEL_BYTES)?;
        state.set_send_buffer_size(UdpSockRef::from(&socket), KERNEL_BYTES)?;
        Ok(Self { socket, state })
    }

    pub(crate) fn local_addr(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    /// Waits until something arrived, or for so long.
    pub(crate) fn wait(&self, at_most: Duration) {
        let timeout = Timespec::try_from(at_most).unwrap_or(Timespec { tv_sec: 0, tv_nsec: 0 });
        // What went wrong shows in receiving.
        let _ = poll(&mut [PollFd::new(&self.socket, PollFlags::IN)], Some(&timeout));
    }

    /// Hands over what has arrived: from whom, the bytes, and the length of each datagram in them. Whether there was
    /// anything.
    pub(crate) fn receive(
        &self,
        buffers: &mut Buffers,
        mut take: impl FnMut(SocketAddr, &[u8], usize),
    ) -> bool {
        let mut metas = [RecvMeta::default(); BATCHES];
        let received = {
            let mut slices: Vec<_> = buffers.0.iter_mut().map(|buffer| IoSliceMut::new(buffer)).collect();
            self.state.recv(UdpSockRef::from(&self.socket), &mut slices, &mut metas)
        };
        // An error tells that there is nothing, or of an earlier datagram that nobody took.
        let Ok(count) = received else { return false };
        for (meta, buffer) in metas.iter().zip(&buffers.0).take(count) {
            take(meta.addr, &buffer[..meta.len], meta.stride);
        }
        count > 0
    }

    /// Sends datagrams of `stride` bytes. `false` when the kernel has no room for them now.
    pub(crate) fn send(&self, to: SocketAddr, bytes: &[u8], stride: usize) -> bool {
        let datagrams_max = self.state.max_gso_segments().max(1);
        for part in bytes.chunks(stride * datagrams_max) {
            let segment_size = (part.len() > stride).then_some(stride);
            let transmit =
                Transmit { destination: to, ecn: None, contents: part, segment_size, src_ip: None };
            match self.state.try_send(UdpSockRef::from(&self.socket), &transmit) {
                // What was sent before is sent again with the rest: the receiver drops it as known.
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return false,
                // A datagram that nobody takes is lost, as on any network.
                Ok(()) | Err(_) => {}
            }
        }
        true
    }
}
