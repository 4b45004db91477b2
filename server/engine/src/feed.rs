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
/// Audio at a switch that only the new worker lets out: an encoder that ends fills its last frames with silence. Three
/// frames of AAC at 44.1 kHz.
const AUDIO_OVERLAP: MediaDuration = MediaDuration(7 * media::FLICKS_PER_SECOND / 100);

/// Replays of the same window before its contents are suspected of killing workers.
const MAX_FRUITLESS: u32 = 2;

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
    /// Workers in a row that let nothing out although they were fed.
    fruitless: u32,
}

#[derive(Clone, Copy, Debug, Default)]
struct Out {
    last: Option<MediaTime>,
    need_key: bool,
    /// Suspended from this presentation time on.
    suspended: Option<MediaTime>,
    /// Suspended, or resumed and nothing let out since: `last` is old, and nothing is held up or kept for it.
    apart: bool,
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
            video_out: vec![Out { need_key: true, ..Out::default() }; video_rungs],
            audio_out: audio.then(Out::default),
            progress: false,
            fruitless: 0,
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
        let behind_its_end = out.suspended.is_some_and(|from| pts >= from);
        if behind_its_end || (out.need_key && !key) || out.last.is_some_and(|last| pts <= last) {
            return false;
        }
        *out = Out { last: Some(pts), suspended: out.suspended, apart: out.suspended.is_some(), ..Out::default() };
        self.progress = true;
        true
    }

    /// Exactly the marked video rungs are suspended from the presentation time `from` on: nothing of that is let out of them, and
    /// nothing waits for them. One that is no longer marked begins with a key unit.
    pub(crate) fn suspend(&mut self, rungs: &[bool], from: MediaTime) {
        for (out, suspended) in self.video_out.iter_mut().zip(rungs) {
            if *suspended == out.suspended.is_some() {
                continue;
            }
            out.need_key |= !suspended;
            out.suspended = suspended.then_some(from);
            out.apart |= suspended;
        }
    }

    /// The tracks of suspended rungs and where they end, as the worker is told.
    pub(crate) fn suspended(&self) -> Vec<(u8, MediaTime)> {
        (0u8..).zip(&self.video_out).filter_map(|(track, out)| Some((track, out.suspended?))).collect()
    }

    /// The present worker is being fed what piled up before it was there.
    pub(crate) fn is_catching_up(&self) -> bool {
        self.catching_up
    }

    /// The worker is gone: the next one gets the window again. After two in a row that let nothing out, what they were
    /// fed may be what killed them: then the next one starts at the next key unit instead.
    pub(crate) fn restart(&mut self) -> Resume {
        self.fruitless = if self.progress || self.cursor == 0 { 0 } else { self.fruitless + 1 };
        if self.fruitless >= MAX_FRUITLESS {
            self.fruitless = 0;
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

    /// Whether the next unit to send is one that a new worker can begin with.
    pub(crate) fn may_switch(&self) -> bool {
        self.window.get(self.cursor).is_some_and(|next| self.video_out.is_empty() || (is_video(next) && next.unit.key))
    }

    /// The old worker has let out all that it was sent: the next one gets what was not, and some audio to settle with.
    pub(crate) fn switch(&mut self) {
        self.drop_video(0, self.cursor);
        self.cursor = 0;
        self.catching_up = true;
        self.progress = false;
        self.fruitless = 0;
        for out in &mut self.video_out {
            out.need_key = true;
        }
    }

    /// Audio from here on, of which the old worker lacks what follows to encode it as the next one will.
    pub(crate) fn audio_end(&self) -> Option<MediaTime> {
        let last = self.window.iter().take(self.cursor).rfind(|i| !is_video(i))?;
        Some(last.unit.pts - AUDIO_OVERLAP)
    }

    pub(crate) fn resume(&self) -> Resume {
        // A rung that stands apart begins where the others go on: its own last unit would have all of them encoded again.
        let running = self.delivered_by_all();
        let delivered = self.video_out.iter().map(|o| if o.apart { running } else { o.last }).collect();
        Resume { audio_origin: self.audio_origin, delivered }
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
        let everywhere = self.delivered_by_all();
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

    /// How far all rungs are that do not stand apart.
    fn delivered_by_all(&self) -> Option<MediaTime> {
        self.video_out.iter().filter(|o| !o.apart).map(|o| o.last).min().flatten()
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::sync::Arc;

    use bytes::Bytes;
    use media::{AccessUnit, H264Config, OpusConfig, TrackConfig};
    use proptest::prelude::*;

    use super::*;

    fn at(ms: i64) -> MediaTime {
        MediaTime::from_millis(ms)
    }

    fn unit(config: TrackConfig, ms: i64, key: bool, size: usize) -> EngineInput {
        let data = Bytes::from(vec![0; size]);
        let unit = AccessUnit { pts: at(ms), dts: at(ms), duration: None, key, config: Arc::new(config), data };
        EngineInput { unit, force_key: key }
    }

    fn video(ms: i64, key: bool) -> EngineInput {
        let config = H264Config {
            sps: Bytes::new(),
            pps: vec![],
            width: 16,
            height: 16,
            sar: (1, 1),
            reorder_depth: 0,
            frame_rate: None,
        };
        unit(TrackConfig::H264(config), ms, key, 100)
    }

    fn audio(ms: i64) -> EngineInput {
        unit(TrackConfig::Opus(OpusConfig { channels: 1, pre_skip: 0 }), ms, true, 10)
    }

    /// A worker as the feed sees one: decodes from a key unit on, holds pictures a while, encodes for two rungs that are
    /// not in step.
    struct Worker {
        resume: Resume,
        decoded: Vec<(MediaTime, bool)>,
        out: [usize; 2],
    }

    impl Worker {
        fn new(resume: Resume) -> Self {
            Self { resume, decoded: Vec::new(), out: [0; 2] }
        }

        fn take(&mut self, input: &EngineInput) {
            assert!(input.unit.key || !self.decoded.is_empty(), "fed from the middle of a GOP");
            let skip = self.resume.delivered.iter().copied().min().flatten();
            if skip.is_some_and(|until| input.unit.pts <= until) {
                // Decoded, not encoded; remembered as the first of the GOP.
                self.decoded.push((MediaTime(i64::MIN), false));
                return;
            }
            let first = self.decoded.iter().all(|(t, _)| t.0 == i64::MIN);
            let resumed = self
                .resume
                .delivered
                .iter()
                .flatten()
                .any(|last| input.unit.pts > *last && self.decoded.last().is_none_or(|(before, _)| before <= last));
            self.decoded.push((input.unit.pts, first || resumed || input.force_key));
        }

        fn give(&mut self, rung: usize, feed: &mut Feed, got: &mut Vec<MediaTime>) {
            if let Some((pts, key)) = self.decoded.get(self.out[rung]).copied() {
                self.out[rung] += 1;
                if pts.0 != i64::MIN && feed.let_out(rung as u8, pts, key) {
                    got.push(pts);
                }
            }
        }
    }

    proptest! {
        #[test]
        fn whenever_workers_die_every_picture_comes_out_once_and_in_order(
            gop in 1i64..40,
            steps in proptest::collection::vec(0u8..20, 100..800),
        ) {
            let mut feed = Feed::new(2, false);
            let mut worker = Worker::new(feed.resume());
            let (mut pushed, mut got) = (0i64, [Vec::new(), Vec::new()]);
            let mut given_up = false;
            for step in steps {
                match step {
                    0..6 => {
                        feed.push(video(pushed * 33, pushed % gop == 0));
                        pushed += 1;
                    }
                    6..12 => {
                        if let Some(input) = feed.next() { worker.take(&input) }
                    }
                    12..15 => worker.give(0, &mut feed, &mut got[0]),
                    15..18 => worker.give(1, &mut feed, &mut got[1]),
                    18 => {}
                    _ => {
                        worker = Worker::new(feed.restart());
                        // Then pictures are given up on purpose.
                        given_up |= feed.await_key && pushed > 0;
                    }
                }
            }
            while let Some(input) = feed.next() { worker.take(&input) }
            for (rung, got) in got.iter_mut().enumerate() {
                for _ in 0..worker.decoded.len() {
                    worker.give(rung, &mut feed, got);
                }
            }
            let wanted: Vec<MediaTime> = (0..pushed).map(|n| at(n * 33)).collect();
            for got in &got {
                prop_assert!(got.is_sorted_by(|a, b| a < b));
                if feed.dropped() == 0 && !given_up {
                    prop_assert_eq!(got, &wanted);
                }
            }
        }
    }

    /// Feeds everything to a worker that delivers at once.
    fn run(feed: &mut Feed) -> usize {
        let mut n = 0;
        while let Some(input) = feed.next() {
            n += 1;
            if is_video(&input) {
                feed.let_out(0, input.unit.pts, input.unit.key);
            } else {
                feed.let_out(1, input.unit.pts, true);
            }
        }
        n
    }

    #[test]
    fn only_the_current_gop_is_kept() {
        let mut feed = Feed::new(1, true);
        for n in 0..300 {
            feed.push(video(n * 33, n % 30 == 0));
            feed.push(audio(n * 33 + 1));
            run(&mut feed);
        }
        feed.restart();
        let first = feed.window.iter().find(|i| is_video(i)).unwrap();
        assert!(first.unit.key && first.unit.pts >= at(240 * 33), "{:?}", first.unit.pts);
        assert!(feed.window.len() < 150, "{}", feed.window.len());
    }

    #[test]
    fn a_suspended_rung_holds_nothing_up_and_begins_again_with_a_key_unit() {
        let mut feed = Feed::new(2, false);
        let mut n = 0;
        // Both rungs give each picture at once; what was let out of them.
        let mut run = |feed: &mut Feed, pictures: i64| {
            let mut out = [0, 0];
            for _ in 0..pictures {
                feed.push(video(n * 33, n % 30 == 0));
                while let Some(input) = feed.next() {
                    for (rung, out) in (0u8..).zip(&mut out) {
                        *out += usize::from(feed.let_out(rung, input.unit.pts, input.unit.key));
                    }
                }
                n += 1;
            }
            out
        };
        assert_eq!(run(&mut feed, 35), [35, 35]);
        feed.suspend(&[false, true], at(40 * 33));
        feed.suspend(&[false, true], at(45 * 33));
        assert_eq!(feed.suspended(), [(1, at(40 * 33))]);
        // To picture 305: ten more GOPs, of which one is kept.
        assert_eq!(run(&mut feed, 270), [270, 5], "what lies before its end comes");
        assert!(feed.window.len() <= 35, "{}", feed.window.len());
        let last = Some(at(304 * 33));
        assert_eq!(feed.restart().delivered, [last, last], "nothing before is encoded again");
        feed.suspend(&[false, false], at(305 * 33));
        assert_eq!(feed.resume().delivered, [last, last], "nor when it comes back");
        // The new worker decodes the GOP again and encodes nothing of it.
        while feed.next().is_some() {}
        assert_eq!(run(&mut feed, 25), [0, 0], "both need a key unit behind a restart");
        assert_eq!(run(&mut feed, 60), [60, 60]);
        assert!(feed.window.len() <= 60, "{}", feed.window.len());
    }

    #[test]
    fn a_worker_that_is_behind_loses_up_to_the_next_key_unit() {
        let mut feed = Feed::new(1, true);
        feed.push(video(0, true));
        run(&mut feed);
        for n in 1..100 {
            feed.push(video(n * 33, n % 90 == 0));
            feed.push(audio(n * 33 + 1));
        }
        // 62 pictures in 2 s; from there to the key unit 90 is lost.
        assert!(feed.dropped() >= 62, "{}", feed.dropped());
        let rest: Vec<_> = std::iter::from_fn(|| feed.next()).collect();
        let pictures: Vec<_> = rest.iter().filter(|i| is_video(i)).map(|i| (i.unit.pts, i.unit.key)).collect();
        assert_eq!(pictures[0], (at(90 * 33), true));
        assert_eq!(pictures.len(), 10);
        assert_eq!(rest.iter().filter(|i| !is_video(i)).count(), 99, "sound goes on");
    }

    #[test]
    fn without_a_worker_the_window_is_the_bound() {
        let mut feed = Feed::new(1, false);
        for n in 0..2_000 {
            feed.push(unit_of(n * 33, n == 0, 100_000));
            assert!(feed.bytes <= MAX_WINDOW_BYTES && feed.window.len() <= 330);
        }
        assert!(feed.dropped() > 1_000);
        assert!(!feed.push(video(100_000, false)), "resumes only at a key unit");
        assert!(feed.push(video(100_033, true)));
    }

    fn unit_of(ms: i64, key: bool, size: usize) -> EngineInput {
        let mut input = video(ms, key);
        input.unit.data = Bytes::from(vec![0; size]);
        input
    }

    #[test]
    fn what_kills_worker_after_worker_is_not_fed_for_ever() {
        let mut feed = Feed::new(1, false);
        feed.push(video(0, true));
        run(&mut feed);
        feed.push(video(33, false));
        feed.next();
        for _ in 0..2 {
            feed.restart();
            assert!(feed.next().is_some());
        }
        feed.restart();
        assert!(feed.next().is_none());
        feed.push(video(66, false));
        assert!(feed.next().is_none(), "not before a key unit");
        feed.push(video(99, true));
        assert!(feed.next().is_some());
    }

    #[test]
    fn decoding_times_that_do_not_rise_are_dropped() {
        let mut feed = Feed::new(1, true);
        assert!(feed.push(video(0, true)));
        assert!(feed.push(video(33, false)));
        let before = feed.window.len();
        feed.push(video(33, false));
        feed.push(video(10, true));
        assert_eq!((feed.window.len(), feed.dropped()), (before, 2));
    }
}
