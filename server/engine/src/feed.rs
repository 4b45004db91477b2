//! What a session's worker is to get, and what came back: the window that is replayed to a new worker, the queue with
//! its overflow rule, and the gate that lets each unit out once. Pure: bytes are not looked at, time is media time.

use std::collections::VecDeque;

use media::{MediaDuration, MediaTime, TrackKind};

use crate::parent::EngineInput;

/// Unsent video: beyond this the worker does not keep up, and waiting longer only adds latency.
const MAX_BACKLOG: MediaDuration = MediaDuration(2 * media::FLICKS_PER_SECOND);
/// The replay window: a GOP longer than this cannot be replayed and resumes at its end. Also what is held while no
/// worker runs.
const MAX_WINDOW: MediaDuration = MediaDuration(10 * media::FLICKS_PER_SECOND);
const MAX_WINDOW_BYTES: usize = 32 << 20;
/// Audio kept from before what was delivered: a new decoder and encoder need some frames to settle.
const AUDIO_WARM_UP: MediaDuration = MediaDuration(3 * media::FLICKS_PER_SECOND / 10);

pub(crate) struct Feed {
    /// All that a new worker would be fed, oldest first; `..cursor` has been sent to the present one.
    window: VecDeque<EngineInput>,
    cursor: usize,
    bytes: usize,
    /// Video is dropped until its next key unit.
    await_key: bool,
    /// The present worker is being fed what piled up while there was none: the backlog's bound is the window's.
    catching_up: bool,
    dropped: u64,
    last_dts: [Option<MediaTime>; 2],
    audio_origin: Option<MediaTime>,
    /// Per track of the way out: what was last let out, and whether a key unit must come first.
    video_out: Vec<Out>,
    audio_out: Option<Out>,
    /// Something was let out since the present worker was started.
    progress: bool,
}

#[derive(Clone, Copy, Debug, Default)]
struct Out {
    last: Option<MediaTime>,
    need_key: bool,
}

/// Where a new worker begins.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Resume {
    pub(crate) audio_origin: Option<MediaTime>,
    pub(crate) delivered: Vec<Option<MediaTime>>,
}

impl Feed {
    pub(crate) fn new(video_rungs: usize, audio: bool) -> Self {
        Self {
            window: VecDeque::new(),
            cursor: 0,
            bytes: 0,
            await_key: video_rungs > 0,
            catching_up: true,
            dropped: 0,
            last_dts: [None; 2],
            audio_origin: None,
            video_out: vec![Out { last: None, need_key: true }; video_rungs],
            audio_out: audio.then(Out::default),
            progress: false,
        }
    }

    /// Takes a unit in; true if there is now something to send.
    pub(crate) fn push(&mut self, input: EngineInput) -> bool {
        let kind = input.unit.kind();
        let slot = match kind {
            TrackKind::Video if self.video_out.is_empty() => return false,
            TrackKind::Audio if self.audio_out.is_none() => return false,
            TrackKind::Video => 0,
            TrackKind::Audio => 1,
        };
        // The contract says that decoding times rise; a unit that breaks it would confuse every element after.
        let rises = self.last_dts.get(slot).copied().flatten().is_none_or(|last| input.unit.dts > last);
        if !rises || (kind == TrackKind::Video && self.await_key && !input.unit.key) {
            self.dropped += 1;
            return false;
        }
        if let Some(last) = self.last_dts.get_mut(slot) {
            *last = Some(input.unit.dts);
        }
        match kind {
            TrackKind::Video => self.await_key = false,
            TrackKind::Audio => {
                self.audio_origin.get_or_insert(input.unit.pts);
            }
        }
        let key = kind == TrackKind::Video && input.unit.key;
        self.bytes += input.unit.data.len();
        self.window.push_back(input);
        if key || self.video_out.is_empty() {
            self.trim();
        }
        if !self.catching_up {
            self.bound_backlog();
        }
        self.bound_window();
        self.cursor < self.window.len()
    }

    /// The next unit for the present worker.
    pub(crate) fn next(&mut self) -> Option<EngineInput> {
        let input = self.window.get(self.cursor)?.clone();
        self.cursor += 1;
        if self.cursor == self.window.len() {
            self.catching_up = false;
        }
        Some(input)
    }

    /// A unit came out of the present worker as track `track`; true if it goes on to the session.
    pub(crate) fn let_out(&mut self, track: u8, pts: MediaTime, key: bool) -> bool {
        let index = usize::from(track);
        let rungs = self.video_out.len();
        let out = match self.video_out.get_mut(index) {
            Some(out) => out,
            None => match &mut self.audio_out {
                Some(out) if index == rungs => out,
                _ => return false,
            },
        };
        if (out.need_key && !key) || out.last.is_some_and(|last| pts <= last) {
            return false;
        }
        *out = Out { last: Some(pts), need_key: false };
        self.progress = true;
        true
    }

    /// The worker is gone: the next one gets the window again. If this one let nothing out although it was fed, what it
    /// was fed may be what kills workers: then the next one starts at the next key unit instead.
    pub(crate) fn restart(&mut self) -> Resume {
        if !self.progress && self.cursor > 0 && self.video_out.iter().any(|o| o.last.is_some()) {
            self.drop_video(0, self.window.len());
            self.await_key = !self.video_out.is_empty();
        }
        self.progress = false;
        self.cursor = 0;
        self.catching_up = true;
        // Replay can only begin at a key unit.
        let first_key = self.window.iter().position(|i| is_video(i) && i.unit.key);
        let lost = self.window.iter().take(first_key.unwrap_or(self.window.len())).filter(|i| is_video(i)).count();
        if lost > 0 {
            self.drop_video(0, first_key.unwrap_or(self.window.len()));
            if first_key.is_none() {
                self.await_key = true;
            }
        }
        for out in &mut self.video_out {
            out.need_key = true;
        }
        self.resume()
    }

    pub(crate) fn resume(&self) -> Resume {
        Resume { audio_origin: self.audio_origin, delivered: self.video_out.iter().map(|o| o.last).collect() }
    }

    pub(crate) fn dropped(&self) -> u64 {
        self.dropped
    }

    pub(crate) fn drained(&self) -> bool {
        self.cursor == self.window.len()
    }

    /// Forgets what a replay no longer needs: all video before the last key unit that every rung has passed, and audio
    /// that is well behind what was delivered.
    fn trim(&mut self) {
        let everywhere = self.video_out.iter().map(|o| o.last).min().flatten();
        let start = self
            .window
            .iter()
            .take(self.cursor)
            .rposition(|i| is_video(i) && i.unit.key && everywhere.is_some_and(|t| i.unit.pts <= t))
            .unwrap_or(if self.video_out.is_empty() { self.cursor } else { 0 });
        let audio_from = self.audio_out.and_then(|o| o.last).map(|t| t - AUDIO_WARM_UP);
        let mut at = 0;
        self.retain(|input| {
            at += 1;
            at > start || (!is_video(input) && audio_from.is_none_or(|from| input.unit.pts >= from))
        });
    }

    /// Too much unsent: drop to the last unsent key unit, or to the next one that comes.
    fn bound_backlog(&mut self) {
        let mut unsent = self.window.iter().skip(self.cursor).filter(|i| is_video(i)).map(|i| i.unit.dts);
        let (Some(first), Some(last)) = (unsent.next(), unsent.next_back()) else { return };
        if last - first <= MAX_BACKLOG {
            return;
        }
        let key = self.window.iter().skip(self.cursor + 1).rposition(|i| is_video(i) && i.unit.key);
        let end = key.map_or(self.window.len(), |k| self.cursor + 1 + k);
        self.await_key = key.is_none();
        self.drop_video(self.cursor, end);
    }

    fn bound_window(&mut self) {
        if self.within_bounds() {
            return;
        }
        // What was sent is only kept for a replay: give that up first, it is not lost.
        let mut at = 0;
        let (cursor, audio_from) = (self.cursor, self.audio_out.and_then(|o| o.last).map(|t| t - AUDIO_WARM_UP));
        self.retain(|input| {
            at += 1;
            at > cursor || (!is_video(input) && audio_from.is_some_and(|from| input.unit.pts >= from))
        });
        if self.within_bounds() {
            return;
        }
        let lost = self.window.len();
        self.dropped += lost as u64;
        self.retain(|_| false);
        self.await_key = !self.video_out.is_empty();
    }

    fn within_bounds(&self) -> bool {
        let span = match (self.window.front(), self.window.back()) {
            (Some(first), Some(last)) => last.unit.dts - first.unit.dts,
            _ => MediaDuration::ZERO,
        };
        self.bytes <= MAX_WINDOW_BYTES && span <= MAX_WINDOW
    }

    /// Drops the video units of a range of the window and counts those that no worker has got.
    fn drop_video(&mut self, from: usize, to: usize) {
        let (mut at, mut lost, cursor) = (0, 0, self.cursor);
        self.retain(|input| {
            let index = at;
            at += 1;
            let goes = (from..to).contains(&index) && is_video(input);
            lost += u64::from(goes && index >= cursor);
            !goes
        });
        self.dropped += lost;
    }

    fn retain(&mut self, mut keep: impl FnMut(&EngineInput) -> bool) {
        let (mut index, mut gone_before_cursor, mut gone_bytes, cursor) = (0, 0, 0, self.cursor);
        self.window.retain(|input| {
            let stays = keep(input);
            if !stays {
                gone_bytes += input.unit.data.len();
                gone_before_cursor += usize::from(index < cursor);
            }
            index += 1;
            stays
        });
        self.bytes -= gone_bytes;
        self.cursor -= gone_before_cursor;
    }
}

fn is_video(input: &EngineInput) -> bool {
    input.unit.kind() == TrackKind::Video
}
