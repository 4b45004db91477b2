//! The numbers that playlists promise and may never change afterwards.

use media::MediaDuration;

/// What the configuration says about playlists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HlsSettings {
    /// What parts aim for (`hls.part_target`).
    pub part_aim: MediaDuration,
    /// What segments aim for (`hls.segment_target`).
    pub segment_target: MediaDuration,
    /// How much media a playlist lists (`hls.window`).
    pub window: MediaDuration,
}

/// How one rendition cuts parts. Fixed when the rendition is created.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PartRule {
    /// What a part aims for: a whole number of frames where the frame duration is known.
    pub aim: MediaDuration,
    /// PART-TARGET: no part is longer, and all but the exempt ones last at least 85 % of it (draft-pantos-hls-rfc8216bis,
    /// section 4.4.4.9).
    pub target: MediaDuration,
}

/// The numbers that all playlists of a channel share and that never change in the channel's life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChannelTiming {
    pub settings: HlsSettings,
    /// TARGETDURATION in seconds.
    pub target_duration: u32,
    /// HOLD-BACK, PART-HOLD-BACK, CAN-SKIP-UNTIL.
    pub hold_back: MediaDuration,
    pub part_hold_back: MediaDuration,
    pub can_skip_until: MediaDuration,
}

impl PartRule {
    /// Video whose frames last `frame` (None: unknown or varying). The target lies a little above the aim, so that the noise
    /// of a capture clock does not push a part over it: 3 % on a steady grid, 5 % on an unknown one.
    pub fn video(part_aim: MediaDuration, frame: Option<MediaDuration>) -> Self {
        match frame.filter(|f| f.is_positive()) {
            Some(frame) => {
                let aim = whole_frames(part_aim, frame);
                Self { aim, target: round_up(percent(aim, 103), 1_000) }
            }
            None => Self { aim: part_aim, target: round_up(percent(part_aim, 105), 1_000) },
        }
    }

    /// Audio whose frames last exactly `frame`: every part but a segment's last has the same number of them.
    pub fn audio(part_aim: MediaDuration, frame: MediaDuration) -> Self {
        let aim = whole_frames(part_aim, frame);
        Self { aim, target: round_up(aim, 10) }
    }

    /// For a rendition that the channel did not have when its PART-HOLD-BACK was set: never more than a third of it (A21).
    pub fn within(self, timing: &ChannelTiming) -> Self {
        let most = MediaDuration(timing.part_hold_back.0 / 3);
        if self.target <= most {
            return self;
        }
        Self { aim: self.aim.min(MediaDuration(most.0 / 105 * 100)), target: most }
    }
}

impl ChannelTiming {
    /// PART-HOLD-BACK is three times the longest of the part targets (bis 4.4.3.8), HOLD-BACK three and CAN-SKIP-UNTIL six
    /// times TARGETDURATION.
    pub fn new(settings: HlsSettings, part_targets: &[MediaDuration]) -> Self {
        let target_duration =
            u32::try_from((settings.segment_target.micros() + 999_999) / 1_000_000).unwrap_or(1).max(1);
        let longest = part_targets.iter().copied().max().unwrap_or(settings.part_aim);
        let seconds = |n: u32| MediaDuration::from_millis(i64::from(n) * 1000);
        Self {
            settings,
            target_duration,
            hold_back: seconds(3 * target_duration),
            part_hold_back: MediaDuration(longest.0.saturating_mul(3)),
            can_skip_until: seconds(6 * target_duration),
        }
    }

    pub(crate) fn target(&self) -> MediaDuration {
        MediaDuration::from_millis(i64::from(self.target_duration) * 1000)
    }

    /// The longest segment that still rounds to TARGETDURATION, with a margin for the rounding of audio to frames.
    pub fn longest_segment(&self) -> MediaDuration {
        self.target() + MediaDuration::from_millis(450)
    }
}

/// The number of whole frames nearest to `aim`, at least one.
fn whole_frames(aim: MediaDuration, frame: MediaDuration) -> MediaDuration {
    let frame = frame.0.max(1);
    MediaDuration(((aim.0 + frame / 2) / frame).max(1) * frame)
}

fn percent(d: MediaDuration, percent: i64) -> MediaDuration {
    MediaDuration(d.0 / 100 * percent + d.0 % 100 * percent / 100)
}

/// Up to the next multiple of `step` microseconds.
fn round_up(d: MediaDuration, step: i64) -> MediaDuration {
    let step = MediaDuration::from_micros(step).0;
    MediaDuration((d.0 + step - 1) / step * step)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(n: i64) -> MediaDuration {
        MediaDuration::from_millis(n)
    }

    /// A24: at every usual frame rate an ordinary part lies between 85 % and 100 % of the target.
    #[test]
    fn a24_usual_frame_rates_fit_between_85_percent_and_the_target() {
        for (frames, seconds) in
            [(24, 1), (25, 1), (30, 1), (50, 1), (60, 1), (15, 1), (30_000, 1001), (24_000, 1001), (60_000, 1001)]
        {
            for aim in [100, 200, 333, 500, 1000] {
                let frame = MediaDuration::from_ticks(seconds, frames);
                let rule = PartRule::video(ms(aim), Some(frame));
                assert_eq!(rule.aim.0 % frame.0, 0);
                assert!(
                    rule.aim <= rule.target && rule.aim.0 * 100 >= rule.target.0 * 85,
                    "{frames}/{seconds} {aim} {rule:?}"
                );
            }
        }
    }

    /// B18: AAC at 48 kHz makes parts of 9 frames (192 ms) at 200 ms, of 5 (106.67 ms) at 100 ms.
    #[test]
    fn b18_audio_parts_are_whole_frames() {
        let frame = MediaDuration::from_ticks(1024, 48_000);
        assert_eq!(PartRule::audio(ms(200), frame).target, ms(192));
        let rule = PartRule::audio(ms(100), frame);
        assert_eq!(rule.aim, MediaDuration::from_ticks(5 * 1024, 48_000));
        assert_eq!(rule.target, MediaDuration::from_micros(106_670));
    }

    /// A21: a rendition that comes later keeps the channel's promise.
    #[test]
    fn a21_a_late_rendition_has_no_longer_parts_than_the_hold_back_allows() {
        let settings = HlsSettings { part_aim: ms(200), segment_target: ms(2000), window: ms(24_000) };
        let timing = ChannelTiming::new(settings, &[ms(200)]);
        let late = PartRule::video(ms(200), None).within(&timing);
        assert_eq!(late.target, ms(200));
        assert!(late.aim < late.target && late.aim.0 * 100 > late.target.0 * 85);
        let fits = PartRule::audio(ms(200), MediaDuration::from_ticks(1024, 48_000));
        assert_eq!(fits.within(&timing), fits);
    }

    /// A21, A22: hold-backs follow the longest part target and TARGETDURATION.
    #[test]
    fn a21_a22_hold_backs() {
        let settings = HlsSettings { part_aim: ms(200), segment_target: ms(2000), window: ms(24_000) };
        let timing = ChannelTiming::new(settings, &[ms(192), ms(206)]);
        assert_eq!(timing.target_duration, 2);
        assert_eq!(timing.part_hold_back, ms(618));
        assert_eq!(timing.hold_back, ms(6000));
        assert_eq!(timing.can_skip_until, ms(12_000));
    }
}
