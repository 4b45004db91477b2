//! Signed paths: who may watch a channel, and until when, said by the path itself (docs/adr/0008-signed-paths.md).
//!
//! A viewer's path is `/live/~TOKEN/NAME/…`. TOKEN is base64url without padding (RFC 4648 §5) of 45 bytes, all numbers
//! big-endian; 45 is a multiple of three, so that each token has exactly one spelling of 60 characters.
//!
//! | bytes | what |
//! |---|---|
//! | 0 | the format: 1 |
//! | 1 to 4 | which key: the first bytes of HMAC-SHA256(key, "fishladder viewer key") |
//! | 5 to 12 | when it expires, in seconds of unix time |
//! | 13 to 44 | HMAC-SHA256(key, bytes 0 to 12 and the channel's name) |

mod keyring;

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, Mac};
use media::ChannelName;
use sha2::Sha256;

use crate::config::{Secret, Viewers};

pub use keyring::Keyring;

/// Shortest and longest life of a token. Whoever leaks a key must be able to outwait what was signed with it.
pub const LIFE: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30 * 24 * 3600));

const FORMAT: u8 = 1;
/// Format, key id and expiry.
const HEAD: usize = 13;
const BYTES: usize = HEAD + 32;
const CHARACTERS: usize = BYTES / 3 * 4;

/// The key that signs, and the one before it, whose tokens stay good until they expire.
pub struct Keys {
    current: Key,
    previous: Option<Key>,
}

/// Why a path lets nobody watch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unfit {
    /// The path carries no token.
    Missing,
    /// Not a token, signed with a key that is not known here, or not for this channel.
    Wrong,
    Expired,
}

struct Key {
    id: [u8; 4],
    /// Ready to take a message: a clone saves hashing the key each time.
    mac: Hmac<Sha256>,
}

impl Keys {
    /// None where no key is configured: then every path may be watched.
    pub fn of(viewers: &Viewers) -> Option<Self> {
        let current = Key::new(viewers.key.as_ref()?)?;
        Some(Self { current, previous: viewers.previous_key.as_ref().and_then(Key::new) })
    }

    /// A token for everything of this channel, good before `expiry` (rounded up to whole seconds).
    pub fn sign(&self, channel: &ChannelName, expiry: SystemTime) -> String {
        let [a, b, c, d] = self.current.id;
        let [e, f, g, h, i, j, k, l] = seconds(expiry).to_be_bytes();
        let head: [u8; HEAD] = [FORMAT, a, b, c, d, e, f, g, h, i, j, k, l];
        let mut bytes = Vec::with_capacity(BYTES);
        bytes.extend_from_slice(&head);
        bytes.extend_from_slice(&self.current.over(&head, channel).finalize().into_bytes());
        URL_SAFE_NO_PAD.encode(bytes)
    }

    /// Whether this token, as it stands in the path, lets somebody watch the channel at `now`.
    pub fn check(&self, token: Option<&str>, channel: &ChannelName, now: SystemTime) -> Result<(), Unfit> {
        let token = token.ok_or(Unfit::Missing)?;
        // Before decoding: the length of a path is the client's choice.
        if token.len() != CHARACTERS {
            return Err(Unfit::Wrong);
        }
        let bytes = URL_SAFE_NO_PAD.decode(token).map_err(|_| Unfit::Wrong)?;
        let (head, mac) = bytes.split_first_chunk::<HEAD>().ok_or(Unfit::Wrong)?;
        let [FORMAT, a, b, c, d, expiry @ ..] = *head else { return Err(Unfit::Wrong) };
        let id = [a, b, c, d];
        // Two keys may have the same id by chance: both are tried. `verify_slice` compares in constant time.
        let keys = std::iter::once(&self.current).chain(&self.previous);
        let mut fitting = keys.filter(|key| key.id == id);
        if !fitting.any(|key| key.over(head, channel).verify_slice(mac).is_ok()) {
            return Err(Unfit::Wrong);
        }
        // Looked at last: only who holds a real token learns that it has expired.
        let now = now.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        if now < u64::from_be_bytes(expiry) { Ok(()) } else { Err(Unfit::Expired) }
    }
}

impl Key {
    fn new(secret: &Secret) -> Option<Self> {
        // HMAC takes keys of any length (RFC 2104 §3); the type of the constructor does not know.
        let mac = Hmac::<Sha256>::new_from_slice(secret.0.as_bytes()).ok()?;
        let digest: [u8; 32] = mac.clone().chain_update(b"fishladder viewer key").finalize().into_bytes().into();
        let [a, b, c, d, ..] = digest;
        Some(Self { id: [a, b, c, d], mac })
    }

    fn over(&self, head: &[u8; HEAD], channel: &ChannelName) -> Hmac<Sha256> {
        self.mac.clone().chain_update(head).chain_update(channel.as_str())
    }
}

/// The playlist to give to a viewer.
pub fn playlist_path(token: &str, channel: &ChannelName) -> String {
    format!("/live/~{token}/{channel}/index.m3u8")
}

/// Whole seconds of unix time, rounded up.
pub fn seconds(time: SystemTime) -> u64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    since.as_secs() + u64::from(since.subsec_nanos() > 0)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::*;

    const OLD: &str = "0123456789abcdef0123456789abcdef";
    const NEW: &str = "fedcba9876543210fedcba9876543210";

    fn keys(current: &str, previous: Option<&str>) -> Keys {
        let secret = |text: &str| Secret(text.to_owned());
        Keys::of(&Viewers::of(secret(current), previous.map(secret))).unwrap()
    }

    fn at(seconds: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(seconds)
    }

    fn name(text: &str) -> ChannelName {
        text.parse().unwrap()
    }

    #[test]
    fn a_token_is_what_the_documentation_says() {
        // Made with Python: hmac.new(key, b"\x01" + id + expiry + b"show", "sha256").
        let expected = "ASxfklgAAAAAaz0rAEsy1-4drHxKhNZpJM-lyY1Z4Ypviw8dWQbXQQHrxTMx";
        assert_eq!(keys(OLD, None).sign(&name("show"), at(1_799_170_816)), expected);
    }

    #[test]
    fn good_until_it_expires_and_for_its_channel_only() {
        let keys = keys(OLD, None);
        let token = keys.sign(&name("show"), at(1000));
        assert_eq!(keys.check(Some(&token), &name("show"), at(999)), Ok(()));
        assert_eq!(keys.check(Some(&token), &name("show"), at(1000)), Err(Unfit::Expired));
        for other in ["sho", "shows", "SHOW", "other"] {
            assert_eq!(keys.check(Some(&token), &name(other), at(999)), Err(Unfit::Wrong), "{other}");
        }
        assert_eq!(keys.check(None, &name("show"), at(999)), Err(Unfit::Missing));
        // A part of a second longer rather than shorter.
        let token = keys.sign(&name("show"), at(1000) + Duration::from_millis(1));
        assert_eq!(keys.check(Some(&token), &name("show"), at(1000)), Ok(()));
    }

    #[test]
    fn the_key_before_is_good_until_it_is_dropped() {
        let show = name("show");
        let token = keys(OLD, None).sign(&show, at(1000));
        assert_eq!(keys(NEW, Some(OLD)).check(Some(&token), &show, at(1)), Ok(()));
        assert_eq!(keys(NEW, None).check(Some(&token), &show, at(1)), Err(Unfit::Wrong));
        let renewed = keys(NEW, Some(OLD)).sign(&show, at(1000));
        assert_eq!(keys(NEW, None).check(Some(&renewed), &show, at(1)), Ok(()));
        assert_eq!(keys(OLD, None).check(Some(&renewed), &show, at(1)), Err(Unfit::Wrong));
    }

    #[test]
    fn every_other_spelling_is_refused() {
        let (keys, show) = (keys(OLD, None), name("show"));
        let token = keys.sign(&show, at(1000));
        for n in 0..token.len() {
            for other in ["A", "B", "_", "-", "=", "+", "/", "%", "~"] {
                let mut forged = token.clone();
                forged.replace_range(n..=n, other);
                if forged != token {
                    assert_eq!(keys.check(Some(&forged), &show, at(1)), Err(Unfit::Wrong), "{forged}");
                }
            }
        }
        for odd in [String::new(), format!("{token}="), format!("{token}A"), token[..59].to_owned(), "A".repeat(9999)] {
            assert_eq!(keys.check(Some(&odd), &show, at(1)), Err(Unfit::Wrong), "{odd}");
        }
    }

    proptest! {
        #[test]
        fn nothing_made_up_is_let_in(text in "\\PC{0,80}", base64 in "ASxfkl[A-Za-z0-9_-]{54}") {
            let keys = keys(OLD, None);
            prop_assert_eq!(keys.check(Some(&text), &name("show"), at(1)), Err(Unfit::Wrong));
            prop_assert_eq!(keys.check(Some(&base64), &name("show"), at(1)), Err(Unfit::Wrong));
        }
    }
}
