//! The sending end of a session's event queue, with the overload rule: never wait, drop to the next key frame, say so.

use std::sync::Arc;

use media::{ClockMap, EndReason, GapReason, IngestEvent, TrackKind};
use tokio::sync::mpsc;

use crate::IngestStats;

/// Sends events without waiting. What a full queue cannot take is either dropped and counted (units) or remembered
/// and sent in front of the next unit that fits (everything else).
pub struct EventSink {
    queue: mpsc::Sender<IngestEvent>,
    stats: Arc<IngestStats>,
    /// Per kind: units were dropped, the next one that may pass needs a `Gap` in front.
    dropping: [Option<GapReason>; 2],
    discontinuity: bool,
    clock: Option<ClockMap>,
}

impl EventSink {
    pub fn new(queue: mpsc::Sender<IngestEvent>, stats: Arc<IngestStats>) -> Self {
        Self { queue, stats, dropping: [None; 2], discontinuity: false, clock: None }
    }

    /// The session has dropped its receiver: the ingest should stop.
    pub fn is_closed(&self) -> bool {
        self.queue.is_closed()
    }

    /// The queue itself, to wait for its end beside the sink's use.
    pub fn queue(&self) -> mpsc::Sender<IngestEvent> {
        self.queue.clone()
    }

    /// Resolves when the session has dropped its receiver: the ingest should stop.
    pub async fn closed(&self) {
        self.queue.closed().await;
    }

    /// Sends or drops `event` by the overload rule; the last one goes through `end`. `true` where a key frame should be asked for.
    pub fn send(&mut self, event: IngestEvent) -> bool {
        match event {
            IngestEvent::Unit(unit) => {
                let kind = unit.kind();
                let slot = kind as usize;
                let waits = kind == TrackKind::Video && self.dropping[slot].is_some() && !unit.key;
                if waits || !self.flush(Some(kind)) || self.queue.try_send(IngestEvent::Unit(unit)).is_err() {
                    IngestStats::add(&self.stats.overload_dropped, 1);
                    let first = self.dropping[slot].is_none();
                    self.dropping[slot].get_or_insert(GapReason::Overload);
                    return first && kind == TrackKind::Video;
                }
            }
            IngestEvent::Gap { track, reason } => {
                // A gap that does not fit needs no key frame by itself: the core resumes with one anyway.
                if !self.flush(Some(track)) || self.queue.try_send(IngestEvent::Gap { track, reason }).is_err() {
                    self.dropping[track as usize].get_or_insert(reason);
                }
            }
            IngestEvent::Discontinuity => {
                self.discontinuity = true;
                self.flush(None);
            }
            IngestEvent::Clock(map) => {
                self.clock = Some(map);
                self.flush(None);
            }
            IngestEvent::Ended(_) => {
                let _ = self.queue.try_send(event);
            }
        }
        false
    }

    /// Sends the last event; waits for room, since nothing comes after it. Returns at once if nobody listens.
    pub async fn end(self, reason: EndReason) {
        let _ = self.queue.send(IngestEvent::Ended(reason)).await;
    }

    /// Sends what an earlier full queue left over, with room to spare for one more event.
    fn flush(&mut self, kind: Option<TrackKind>) -> bool {
        if self.discontinuity {
            if self.queue.try_send(IngestEvent::Discontinuity).is_err() {
                return false;
            }
            self.discontinuity = false;
        }
        if let Some(map) = self.clock {
            if self.queue.try_send(IngestEvent::Clock(map)).is_err() {
                return false;
            }
            self.clock = None;
        }
        if let Some(track) = kind
            && let Some(reason) = self.dropping[track as usize]
        {
            // Without room for the unit behind it the gap would repeat.
            if self.queue.capacity() < 2 || self.queue.try_send(IngestEvent::Gap { track, reason }).is_err() {
                return false;
            }
            self.dropping[track as usize] = None;
        }
        true
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::sync::atomic::Ordering;

    use bytes::Bytes;
    use media::{AccessUnit, H264Config, MediaTime, OpusConfig, TrackConfig};

    use super::*;

    fn unit(video: bool, at: i64, key: bool) -> IngestEvent {
        let config = if video {
            TrackConfig::H264(H264Config {
                sps: Bytes::new(),
                pps: vec![],
                width: 2,
                height: 2,
                sar: (1, 1),
                reorder_depth: 0,
                frame_rate: None,
            })
        } else {
            TrackConfig::Opus(OpusConfig { channels: 2, pre_skip: 0 })
        };
        let t = MediaTime(at);
        IngestEvent::Unit(AccessUnit {
            pts: t,
            dts: t,
            duration: None,
            key,
            config: config.shared(),
            data: Bytes::new(),
        })
    }

    fn drain(rx: &mut mpsc::Receiver<IngestEvent>) -> Vec<String> {
        let mut out = vec![];
        while let Ok(e) = rx.try_recv() {
            out.push(match e {
                IngestEvent::Unit(u) => format!("{:?} {}", u.kind(), u.pts.0),
                IngestEvent::Gap { track, reason } => format!("{track:?} {reason:?}"),
                IngestEvent::Discontinuity => "disc".into(),
                IngestEvent::Clock(_) => "clock".into(),
                IngestEvent::Ended(r) => format!("{r:?}"),
            });
        }
        out
    }

    #[test]
    fn a_full_queue_drops_to_the_next_key_frame_and_says_so() {
        let (tx, mut rx) = mpsc::channel(2);
        let stats = Arc::new(IngestStats::default());
        let mut sink = EventSink::new(tx, stats.clone());
        assert!(!sink.send(unit(true, 0, true)));
        assert!(!sink.send(unit(true, 1, false)));
        assert!(sink.send(unit(true, 2, false)), "the first drop asks for a key frame");
        assert!(!sink.send(unit(true, 3, false)));
        sink.send(IngestEvent::Discontinuity);
        assert_eq!(drain(&mut rx), ["Video 0", "Video 1"]);
        sink.send(unit(true, 4, false));
        sink.send(unit(false, 4, true));
        assert_eq!(drain(&mut rx), ["disc", "Audio 4"]);
        sink.send(unit(true, 5, true));
        assert_eq!(drain(&mut rx), ["Video Overload", "Video 5"]);
        assert_eq!(stats.overload_dropped.load(Ordering::Relaxed), 3);
    }

    #[test]
    fn a_gap_that_did_not_fit_is_told_before_the_next_unit() {
        let (tx, mut rx) = mpsc::channel(2);
        let mut sink = EventSink::new(tx, Arc::new(IngestStats::default()));
        sink.send(unit(false, 0, true));
        sink.send(unit(false, 1, true));
        sink.send(IngestEvent::Gap { track: TrackKind::Audio, reason: GapReason::Loss });
        drain(&mut rx);
        sink.send(unit(false, 2, true));
        assert_eq!(drain(&mut rx), ["Audio Loss", "Audio 2"]);
    }
}
