//! The little of STUN (RFC 8489) that the shared port must read: whose a datagram is, and whether its sender knows
//! the session's password.

use std::net::SocketAddr;

use rtc::crypto::RTCCryptoProvider;
use rtc::stun::integrity::MessageIntegrity;
use rtc::stun::message::Message;

/// What a datagram on a WebRTC port is, by its first byte (RFC 7983 §7).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    Stun,
    Dtls,
    Media,
    Other,
}

pub fn classify(datagram: &[u8]) -> Protocol {
    match datagram.first() {
        Some(0..=3) if datagram.get(4..8) == Some(&MAGIC_COOKIE) => Protocol::Stun,
        Some(20..=63) => Protocol::Dtls,
        Some(128..=191) => Protocol::Media,
        _ => Protocol::Other,
    }
}

/// RFC 8489 §5.
const MAGIC_COOKIE: [u8; 4] = 0x2112_a442_u32.to_be_bytes();
/// RFC 8489 §18.2.
pub const BINDING_REQUEST: u16 = 0x0001;
/// RFC 8489 §14.3.
const USERNAME: u16 = 0x0006;
/// A request that we act on carries a handful of attributes; more is noise.
const MAX_ATTRIBUTES: usize = 24;

pub fn message_type(datagram: &[u8]) -> Option<u16> {
    Some(u16::from_be_bytes(datagram.get(..2)?.try_into().ok()?))
}

/// The receiver's half of a Binding request's USERNAME, `receiver:sender` (RFC 8445 §7.2.2).
pub fn receiver_ufrag(datagram: &[u8]) -> Option<&str> {
    let length = usize::from(u16::from_be_bytes(datagram.get(2..4)?.try_into().ok()?));
    let attributes = datagram.get(20..20 + length)?;
    let mut at = 0;
    for _ in 0..MAX_ATTRIBUTES {
        let head: [u8; 4] = attributes.get(at..at + 4)?.try_into().ok()?;
        let kind = u16::from_be_bytes([head[0], head[1]]);
        let size = usize::from(u16::from_be_bytes([head[2], head[3]]));
        let value = attributes.get(at + 4..at + 4 + size)?;
        if kind == USERNAME {
            let name = std::str::from_utf8(value).ok()?;
            return name.split_once(':').map(|(receiver, _)| receiver);
        }
        // §14: values are padded to four bytes.
        at += 4 + size.div_ceil(4) * 4;
    }
    None
}

/// The request carries MESSAGE-INTEGRITY made with `password` (RFC 8489 §9.1).
///
/// Checked here, before the ICE agent sees the request: the agent switches roles on a conflict before it has looked
/// at the integrity.
pub fn knows_password(datagram: &[u8], password: &str, crypto: &dyn RTCCryptoProvider) -> bool {
    let mut message = Message { raw: datagram.to_vec(), ..Message::default() };
    message.decode().is_ok() && MessageIntegrity::check(&mut message, password.as_bytes(), crypto.crypto()).is_ok()
}

/// An address that a candidate may name: one that a publisher can have.
pub fn plausible(address: SocketAddr) -> bool {
    let ip = address.ip();
    let broadcast = matches!(ip, std::net::IpAddr::V4(v4) if v4.is_broadcast());
    address.port() != 0 && !ip.is_unspecified() && !ip.is_multicast() && !broadcast
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn request(attributes: &[u8]) -> Vec<u8> {
        let mut m = vec![0, 1];
        m.extend_from_slice(&(attributes.len() as u16).to_be_bytes());
        m.extend_from_slice(&MAGIC_COOKIE);
        m.extend_from_slice(&[7; 12]);
        m.extend_from_slice(attributes);
        m
    }

    #[test]
    fn the_receivers_half_of_the_username_is_found_behind_padded_attributes() {
        let m = request(b"\x80\x22\x00\x03abc\0\x00\x06\x00\x09evtj:h6vY\0\0\0");
        assert_eq!(classify(&m), Protocol::Stun);
        assert_eq!(message_type(&m), Some(BINDING_REQUEST));
        assert_eq!(receiver_ufrag(&m), Some("evtj"));
        assert_eq!(receiver_ufrag(&request(b"\x00\x06\x00\x04evtj")), None);
        assert_eq!(receiver_ufrag(&m[..m.len() - 1]), None);
    }

    #[test]
    fn datagrams_are_told_apart_by_their_first_byte() {
        assert_eq!(classify(&[22, 0xfe, 0xfd]), Protocol::Dtls);
        assert_eq!(classify(&[0x80, 96]), Protocol::Media);
        assert_eq!(classify(&[0, 1, 0, 0]), Protocol::Other);
        assert_eq!(classify(&[]), Protocol::Other);
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            classify(&bytes);
            receiver_ufrag(&bytes);
            receiver_ufrag(&request(&bytes));
        }
    }
}
