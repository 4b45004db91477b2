//! Counts HTTP/2 frames that cost the server and not the client, and says when a connection has sent too many.
//!
//! The HTTP/2 library bounds what such frames make it remember, and ends a connection for some floods (resets of requests that
//! were not taken up yet, CONTINUATION, empty DATA). It answers PING and SETTINGS for as long as they come (CVE-2019-9512,
//! -9515), follows any number of priorities (-9513) and sends a byte for each byte of window (-9511). This looks at the
//! nine bytes before each frame (RFC 9113 §4.1), and copies nothing.

use tokio::time::Instant;

/// So many frames of a sort at once, and then so many a second. A player sends a handful a minute, a proxy that speaks for
/// thousands some tens a second; a hundred a second cost nothing that could be measured.
const BURST: u32 = 1000;
const PER_SECOND: u32 = 100;
/// Steps of the window smaller than this are counted. Clients open it by a good part of what they have read.
const SMALL_STEP: u32 = 1024;
/// A setting takes 6 bytes; a frame with more than ten counts as several.
const SETTINGS: u32 = 60;

/// RFC 9113 §3.4.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const HEAD: usize = 9;

/// Reads along with one connection.
#[derive(Debug)]
pub struct Meter {
    at: At,
    buckets: [Bucket; Flood::ALL.len()],
}

/// What came too often; the label in metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flood {
    Ping,
    Settings,
    Reset,
    Window,
    /// Priorities, CONTINUATION, frames of unknown types.
    Control,
}

impl Flood {
    const ALL: [Self; 5] = [Self::Ping, Self::Settings, Self::Reset, Self::Window, Self::Control];

    pub fn label(self) -> &'static str {
        match self {
            Self::Ping => "ping_flood",
            Self::Settings => "settings_flood",
            Self::Reset => "reset_flood",
            Self::Window => "window_flood",
            Self::Control => "control_flood",
        }
    }
}

/// Where in the stream of bytes the next one lies.
#[derive(Debug)]
enum At {
    /// So many bytes of the preface were right so far.
    Preface(usize),
    /// In a frame's head, of which so many bytes are here.
    Head([u8; HEAD], usize),
    /// In the step of a WINDOW_UPDATE, of which so many bytes are here.
    Step([u8; 4], usize),
    /// In a payload of which so many bytes are left.
    Payload(usize),
    /// It is HTTP/1.
    Elsewhere,
}

#[derive(Clone, Copy, Debug)]
struct Bucket {
    left: u32,
    since: Instant,
}

impl Meter {
    pub fn new(now: Instant) -> Self {
        Self { at: At::Preface(0), buckets: [Bucket { left: BURST, since: now }; Flood::ALL.len()] }
    }

    /// Looks at the bytes that came next. Err: there was too much of it, and the connection should end.
    pub fn read(&mut self, mut bytes: &[u8], now: impl Fn() -> Instant) -> Result<(), Flood> {
        while let Some((&first, rest)) = bytes.split_first() {
            match &mut self.at {
                At::Elsewhere => return Ok(()),
                At::Preface(n) => {
                    if PREFACE.get(*n) != Some(&first) {
                        self.at = At::Elsewhere;
                    } else if *n + 1 == PREFACE.len() {
                        self.at = At::Head([0; HEAD], 0);
                    } else {
                        *n += 1;
                    }
                    bytes = rest;
                }
                At::Head(head, n) => {
                    if let Some(slot) = head.get_mut(*n) {
                        *slot = first;
                    }
                    *n += 1;
                    bytes = rest;
                    if *n == HEAD {
                        let head = *head;
                        self.begin(head, &now)?;
                    }
                }
                At::Step(step, n) => {
                    if let Some(slot) = step.get_mut(*n) {
                        *slot = first;
                    }
                    *n += 1;
                    bytes = rest;
                    if *n == step.len() {
                        let step = u32::from_be_bytes(*step);
                        self.at = At::Head([0; HEAD], 0);
                        if step < SMALL_STEP {
                            self.charge(Flood::Window, 1, now())?;
                        }
                    }
                }
                At::Payload(left) => {
                    let skipped = bytes.len().min(*left);
                    *left -= skipped;
                    if *left == 0 {
                        self.at = At::Head([0; HEAD], 0);
                    }
                    bytes = bytes.get(skipped..).unwrap_or_default();
                }
            }
        }
        Ok(())
    }

    fn begin(&mut self, head: [u8; HEAD], now: &impl Fn() -> Instant) -> Result<(), Flood> {
        let [a, b, c, kind, ..] = head;
        let length = u32::from_be_bytes([0, a, b, c]);
        self.at = match (kind, length) {
            // WINDOW_UPDATE; of another length it is an error, which the library finds.
            (0x8, 4) => At::Step([0; 4], 0),
            (_, 0) => At::Head([0; HEAD], 0),
            // 24 bits fit.
            (_, length) => At::Payload(length as usize),
        };
        match kind {
            // DATA and HEADERS are what it is about; WINDOW_UPDATE is judged by its step.
            0x0 | 0x1 | 0x8 => Ok(()),
            0x3 => self.charge(Flood::Reset, 1, now()),
            0x4 => self.charge(Flood::Settings, 1 + length / SETTINGS, now()),
            0x6 => self.charge(Flood::Ping, 1, now()),
            _ => self.charge(Flood::Control, 1, now()),
        }
    }

    fn charge(&mut self, flood: Flood, frames: u32, now: Instant) -> Result<(), Flood> {
        let Some(bucket) = self.buckets.get_mut(flood as usize) else { return Ok(()) };
        let seconds = u32::try_from(now.saturating_duration_since(bucket.since).as_secs()).unwrap_or(u32::MAX);
        if seconds > 0 {
            bucket.left = bucket.left.saturating_add(seconds.saturating_mul(PER_SECOND)).min(BURST);
            bucket.since = now;
        }
        match bucket.left.checked_sub(frames) {
            Some(left) => {
                bucket.left = left;
                Ok(())
            }
            None => Err(flood),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    fn frame(kind: u8, payload: &[u8]) -> Vec<u8> {
        let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
        let mut bytes = vec![length[1], length[2], length[3], kind, 0, 0, 0, 0, 0];
        bytes.extend_from_slice(payload);
        bytes
    }

    fn feed(frames: &[u8], now: Instant) -> Result<(), Flood> {
        let mut meter = Meter::new(now);
        meter.read(PREFACE, || now).unwrap();
        meter.read(frames, || now)
    }

    #[test]
    fn each_sort_has_its_own_bound() {
        let now = Instant::now();
        for (frame, flood) in [
            (frame(0x6, &[0; 8]), Some(Flood::Ping)),
            (frame(0x4, &[]), Some(Flood::Settings)),
            (frame(0x3, &[0; 4]), Some(Flood::Reset)),
            (frame(0x8, &[0, 0, 0, 1]), Some(Flood::Window)),
            (frame(0x2, &[0; 5]), Some(Flood::Control)),
            (frame(0x9, &[]), Some(Flood::Control)),
            (frame(0x10, b"0u=1"), Some(Flood::Control)),
            (frame(0xfa, &[7; 99]), Some(Flood::Control)),
            // A download at full speed, an upload and many requests.
            (frame(0x8, &[0, 0, 0x40, 0]), None),
            (frame(0x0, &[6; 100]), None),
            (frame(0x1, &[0x82]), None),
        ] {
            assert_eq!(feed(&frame.repeat(BURST as usize), now), Ok(()), "{frame:?}");
            assert_eq!(feed(&frame.repeat(BURST as usize + 1), now).err(), flood, "{frame:?}");
        }
        // A few frames with thousands of settings are as many.
        assert_eq!(feed(&frame(0x4, &[0; 16_380]).repeat(3), now), Ok(()));
        assert_eq!(feed(&frame(0x4, &[0; 16_380]).repeat(4), now), Err(Flood::Settings));
    }

    #[test]
    fn a_steady_few_are_let_pass_for_ever() {
        let mut now = Instant::now();
        let mut meter = Meter::new(now);
        meter.read(PREFACE, || now).unwrap();
        let second = frame(0x6, &[0; 8]).repeat(PER_SECOND as usize);
        for _ in 0..1000 {
            now += Duration::from_secs(1);
            meter.read(&second, || now).unwrap();
        }
        let twice = second.repeat(2);
        let ended = (0..1000).any(|_| {
            now += Duration::from_secs(1);
            meter.read(&twice, || now).is_err()
        });
        assert!(ended);
    }

    proptest! {
        #[test]
        fn pieces_of_any_size_say_the_same(
            kinds in prop::collection::vec((0u8..12, 0usize..40), 0..60),
            cuts in prop::collection::vec(1usize..50, 1..40),
        ) {
            let mut bytes = PREFACE.to_vec();
            let pings = kinds.iter().filter(|(k, _)| *k == 6).count();
            for (kind, length) in &kinds {
                bytes.extend(frame(*kind, &vec![6; *length]));
            }
            let now = Instant::now();
            let mut meter = Meter::new(now);
            let mut left = &bytes[..];
            for cut in cuts.iter().cycle() {
                let (piece, rest) = left.split_at((*cut).min(left.len()));
                prop_assert_eq!(meter.read(piece, || now), Ok(()));
                left = rest;
                if left.is_empty() { break }
            }
            prop_assert_eq!(meter.buckets[Flood::Ping as usize].left as usize, BURST as usize - pings);
        }

        #[test]
        fn what_is_not_http2_is_let_alone(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let now = Instant::now();
            let mut meter = Meter::new(now);
            let _ = meter.read(&bytes, || now);
            let request = b"POST / HTTP/1.1\r\n\r\n".repeat(100);
            prop_assert_eq!(Meter::new(now).read(&request, || now), Ok(()));
        }
    }
}
