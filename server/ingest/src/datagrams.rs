//! Datagrams off a socket: as many in one system call as wait there (recvmmsg(2)), runs of equal ones in one piece where the
//! kernel has joined them (UDP_GRO, udp(7)).

use std::cell::RefCell;
use std::io::{self, IoSliceMut};
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd};

use nix::sys::socket::{
    ControlMessageOwned, MsgFlags, MultiHeaders, SockaddrStorage, recvmmsg, setsockopt, sockopt::UdpGroSegment,
};
use tokio::io::Interest;
use tokio::net::UdpSocket;

/// Messages asked for in one system call: a picture of a 10 Mbit/s stream. Joined runs count as one.
const BATCH: usize = 32;
/// The longest message: a datagram, or a run that the kernel has joined.
const LONGEST: usize = 65_536;

thread_local! {
    /// Where the kernel writes to, for all sockets that a thread reads: 2 MiB, of which ordinary datagrams touch a page in 64 KiB.
    static ROOM: RefCell<Vec<u8>> = RefCell::new(vec![0; BATCH * LONGEST]);
}

/// Lets the kernel join what comes in a run from one sender: then a picture is one message. Network cards' drivers do so,
/// loopback does not. Without the option (Linux before 5.0) each datagram is a message.
pub fn join_runs(socket: &impl AsFd) {
    if let Err(error) = setsockopt(socket, UdpGroSegment, &true) {
        tracing::debug!(%error, "the kernel does not join datagrams");
    }
}

/// Hands on what waits, in order, until nothing does or `enough` datagrams have come. The bytes are the callee's to copy.
pub fn receive(socket: &UdpSocket, enough: usize, mut each: impl FnMut(SocketAddr, &[u8])) {
    let mut come = 0;
    while come < enough {
        let mut each = |from, data: &[u8]| {
            come += 1;
            each(from, data);
        };
        match socket.try_io(Interest::READABLE, || ROOM.with_borrow_mut(|room| batch(socket, room, &mut each))) {
            Ok(BATCH) => {}
            Ok(_) => {
                // Fewer than asked for: it is empty. Told so, tokio waits for the next one without another system call to
                // find out; what came since then has made an event of its own (epoll's edge), which outlives this.
                let _ = socket.try_io(Interest::READABLE, || Err::<(), _>(io::ErrorKind::WouldBlock.into()));
                return;
            }
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => return,
            // Such as an ICMP answer to something; UDP goes on.
            Err(_) => come += 1,
        }
    }
}

/// One system call; the number of messages.
fn batch(socket: &UdpSocket, room: &mut [u8], each: &mut impl FnMut(SocketAddr, &[u8])) -> io::Result<usize> {
    // The kernel leaves in the headers how much of them it has used, so they are made anew: 6 KB.
    let mut headers = MultiHeaders::<SockaddrStorage>::preallocate(BATCH, Some(nix::cmsg_space!(i32)));
    let mut slices: Vec<[IoSliceMut; 1]> = room.chunks_mut(LONGEST).map(|chunk| [IoSliceMut::new(chunk)]).collect();
    let messages = recvmmsg(socket.as_raw_fd(), &mut headers, slices.iter_mut(), MsgFlags::MSG_DONTWAIT, None)?;
    let mut count = 0;
    for message in messages {
        count += 1;
        let Some(from) = message.address.as_ref().and_then(address) else { continue };
        let joined = message.cmsgs().into_iter().flatten().find_map(|control| match control {
            ControlMessageOwned::UdpGroSegments(size) => usize::try_from(size).ok().filter(|size| *size > 0),
            _ => None,
        });
        match message.iovs().next() {
            Some(data) => data.chunks(joined.unwrap_or(data.len())).for_each(|datagram| each(from, datagram)),
            // An empty datagram is one too.
            None => each(from, &[]),
        }
    }
    Ok(count)
}

fn address(of: &SockaddrStorage) -> Option<SocketAddr> {
    let v4 = of.as_sockaddr_in().map(|a| SocketAddr::from(*a));
    v4.or_else(|| of.as_sockaddr_in6().map(|a| SocketAddr::from(*a)))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::io::IoSlice;

    use nix::sys::socket::{ControlMessage, sendmsg};

    use super::*;

    async fn pair() -> (std::net::UdpSocket, UdpSocket) {
        let receiver = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let sender = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        sender.connect(receiver.local_addr().unwrap()).unwrap();
        (sender, receiver)
    }

    fn all(socket: &UdpSocket, most: usize) -> Vec<Vec<u8>> {
        let mut all = Vec::new();
        receive(socket, most, |_, data| all.push(data.to_vec()));
        all
    }

    #[tokio::test]
    async fn everything_that_waits_comes_in_order_and_what_comes_later_wakes_again() {
        let (sender, receiver) = pair().await;
        let sent: Vec<Vec<u8>> = (0..100_u8).map(|n| vec![n; usize::from(n) * 10]).collect();
        for round in 0..3 {
            for datagram in &sent {
                sender.send(datagram).unwrap();
            }
            receiver.readable().await.unwrap();
            let mut from = None;
            let mut got = Vec::new();
            receive(&receiver, 1000, |peer, data| {
                from = Some(peer);
                got.push(data.to_vec());
            });
            assert!(got == sent, "round {round}: {} datagrams", got.len());
            assert_eq!(from, Some(sender.local_addr().unwrap()));
        }
    }

    #[tokio::test]
    async fn no_more_than_asked_for_comes_at_once_and_the_rest_stays() {
        let (sender, receiver) = pair().await;
        for n in 0..100 {
            sender.send(&[n]).unwrap();
        }
        receiver.readable().await.unwrap();
        assert_eq!(all(&receiver, 64).len(), 64);
        receiver.readable().await.unwrap();
        assert_eq!(all(&receiver, 64).concat(), (64..100).collect::<Vec<u8>>());
        assert!(all(&receiver, 64).is_empty());
    }

    /// Loopback hands a run that was sent as one on as one, as a card's driver does with what it joins.
    #[tokio::test]
    async fn runs_that_the_kernel_joined_are_taken_apart() {
        let (sender, receiver) = pair().await;
        join_runs(&receiver);
        let run: Vec<u8> = (0..5_000_u32).map(|n| n as u8).collect();
        let sizes = [ControlMessage::UdpGsoSegments(&1_200)];
        sendmsg::<()>(sender.as_raw_fd(), &[IoSlice::new(&run)], &sizes, MsgFlags::empty(), None).unwrap();
        sender.send(b"alone").unwrap();
        sender.send(b"").unwrap();
        receiver.readable().await.unwrap();
        let mut messages = Vec::new();
        let count =
            ROOM.with_borrow_mut(|room| batch(&receiver, room, &mut |_, data: &[u8]| messages.push(data.to_vec())));
        assert_eq!(count.unwrap(), 3, "the run is one message");
        assert_eq!(messages.iter().map(Vec::len).collect::<Vec<_>>(), [1200, 1200, 1200, 1200, 200, 5, 0]);
        assert_eq!(messages.concat()[..5000], run[..]);
    }
}
