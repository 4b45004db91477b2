//! Reads playlists and media back as a client does and says which rules they break. docs/conformance.md has the rules' names.
//!
//! Knows nothing of how the packager writes: text and bytes in, findings out, of any server's HLS. Linear in its input, with no
//! panic whatever that is. Times are microseconds.

mod boxes;
mod dates;
mod media_playlist;
mod multivariant;
mod read;
#[cfg(test)]
mod tests;

use std::fmt;

pub use boxes::{Fragment, Init, Run, Track, TrackKind};
pub use media_playlist::{check_across, check_delta, check_one, check_update};
pub use multivariant::{AudioGroup, Multivariant, VariantLine};
pub use read::{Control, Hint, Map, Part, Playlist, RenditionReport, Segment};

/// A rule of docs/conformance.md.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(usize)]
pub enum Rule {
    A1,
    A2,
    A3,
    A4,
    A5,
    A6,
    A7,
    A8,
    A9,
    A10,
    A11,
    A13,
    A14,
    A15,
    A16,
    A17,
    A18,
    A19,
    A20,
    A21,
    A22,
    A23,
    A24,
    A25,
    A26,
    A27,
    A28,
    A29,
    A30,
    A31,
    A33,
    A34,
    A35,
    A36,
    A37,
    A38,
    A39,
    A41,
    A49,
    A50,
    A52,
    A54,
    A55,
    A56,
    A57,
    A58,
    A59,
    B1,
    B2,
    B3,
    B4,
    B14,
    B21,
}

impl Rule {
    pub const ALL: [Self; 53] = {
        use Rule::*;
        [
            A1, A2, A3, A4, A5, A6, A7, A8, A9, A10, A11, A13, A14, A15, A16, A17, A18, A19, A20, A21, A22, A23, A24,
            A25, A26, A27, A28, A29, A30, A31, A33, A34, A35, A36, A37, A38, A39, A41, A49, A50, A52, A54, A55, A56,
            A57, A58, A59, B1, B2, B3, B4, B14, B21,
        ]
    };

    /// What it says, in a sentence, and where that stands: "bis" is draft-pantos-hls-rfc8216bis, "AAS" Apple's HLS authoring
    /// specification.
    pub fn says(self) -> (&'static str, &'static str) {
        match self {
            Self::A1 => ("a playlist is UTF-8, begins with #EXTM3U, can be read, and has its media type", "bis 4.1"),
            Self::A2 => ("EXT-X-VERSION is there once at most and as high as needed", "bis 8"),
            Self::A3 => ("TARGETDURATION never changes, and no segment's rounded duration is above it", "bis 4.4.3.1"),
            Self::A4 => ("listed durations are those of the media, within a frame", "AAS 8.1"),
            Self::A5 => ("EXT-X-MEDIA-SEQUENCE never goes back", "bis 6.2.2"),
            Self::A6 => ("a reload only adds at the end and removes at the beginning", "bis 6.2.1"),
            Self::A7 => ("a playlist that slides has no EXT-X-PLAYLIST-TYPE", "bis 6.2.2"),
            Self::A8 => ("three target durations stay listed, and six segments", "bis 6.2.2, AAS 8.11"),
            Self::A9 => ("what has left the list can still be fetched for a while", "bis 6.2.2"),
            Self::A10 => ("new media is listed in time", "bis 6.2.1"),
            Self::A11 => ("what is listed is there", "bis 6.2.1"),
            Self::A13 => ("EXT-X-DISCONTINUITY-SEQUENCE counts the discontinuities that left the list", "bis 6.2.2"),
            Self::A14 => ("discontinuities lie at the same time in all renditions, with equal numbers", "bis 6.2.4"),
            Self::A15 => ("a live playlist has EXT-X-PROGRAM-DATE-TIME", "AAS 8.4, bis B.1"),
            Self::A16 => ("dates go on as durations say", "bis 6.2.1"),
            Self::A17 => ("EXT-X-MAP precedes fMP4, and its bytes never change", "bis 4.4.4.5"),
            Self::A18 => ("a segment's own tags stand before its first part", "bis 4.4.4.9"),
            Self::A19 => ("segments declared to be independent begin with an independent part", "bis 4.4.2.1"),
            Self::A20 => ("one EXT-X-SERVER-CONTROL, the same everywhere, with blocking reload", "bis 4.4.3.8, 6.2.4"),
            Self::A21 => ("hold-backs are long enough", "bis 4.4.3.8, AAS 14.3"),
            Self::A22 => ("CAN-SKIP-UNTIL is at least six target durations", "bis 4.4.3.8"),
            Self::A23 => ("no part is longer than PART-TARGET", "bis 4.4.4.9"),
            Self::A24 => ("a part lasts at least 85 % of PART-TARGET", "bis 4.4.4.9"),
            Self::A25 => ("PART-TARGET never changes", "bis 4.4.3.7"),
            Self::A26 => ("a segment is what its parts are", "bis 3.2"),
            Self::A27 => ("INDEPENDENT=YES on parts that begin with a key frame", "bis 4.4.4.9"),
            Self::A28 => ("no part is listed that lies over three target durations back", "bis 6.2.2"),
            Self::A29 => ("one hint of each type, for what comes next, and none behind the end", "bis 4.4.5.3"),
            Self::A30 => ("a part is sent at the speed of the line, not as it is made", "bis 6.2.6"),
            Self::A31 => ("what is unknown is 404 at once", "bis 6.2.6"),
            Self::A33 => {
                ("EXT-X-RENDITION-REPORT is there for all other renditions and up to date", "bis 4.4.5.4, B.1")
            }
            Self::A34 => ("a delta update leaves out what lies before CAN-SKIP-UNTIL and nothing else", "bis 6.2.5.1"),
            Self::A35 => ("a blocking reload is answered with what it asks for", "bis 6.2.5.2"),
            Self::A36 => ("a part beyond a finished segment's last is the next one's first", "bis 6.2.5.2"),
            Self::A37 => ("_HLS_part without _HLS_msn is 400", "bis 6.2.5.2"),
            Self::A38 => ("a reload for what is long there is answered at once", "bis 6.2.5.2"),
            Self::A39 => ("a reload for what is too far ahead is 400 at once", "bis 6.2.5.2"),
            Self::A41 => ("a request without directives is answered at once", "bis 6.2.5.2"),
            Self::A49 => ("playlists are compressed for who asks for that, media is not", "AAS 10.1"),
            Self::A50 => ("caches may keep media, and playlists for a while", "bis 6.2.1, B.1"),
            Self::A52 => ("Low-Latency HLS comes over HTTP/2, else Apple's players do without", "bis B.1"),
            Self::A54 => ("every page may read the answers, and ranges are served", "Fetch 3.2, RFC 9110 14"),
            Self::A55 => ("media has its media type", "AAS 10.4"),
            Self::A56 => ("BANDWIDTH and AVERAGE-BANDWIDTH are there and not exceeded", "bis 4.4.6.2, AAS 1.28"),
            Self::A57 => ("CODECS, RESOLUTION and FRAME-RATE are there and true", "bis 4.4.6.2, AAS 9"),
            Self::A58 => ("all renditions have the same target duration", "bis 6.2.4"),
            Self::A59 => ("audio groups are named, whole and found", "bis 4.4.6.1"),
            Self::B1 => ("an init segment is ftyp and moov with one track and no samples", "ISO 23000-19 7"),
            Self::B2 => ("a fragment is moof and mdat, with optional boxes before", "ISO 23000-19 7.3"),
            Self::B3 => ("a fragment's tables agree with its media", "ISO 14496-12 8.8"),
            Self::B4 => ("decode times add up", "AAS 7.3"),
            Self::B14 => ("the codecs parameter is the init segment's", "RFC 6381"),
            Self::B21 => ("every sample lasts a tick at least", "ISO 14496-12 8.8"),
        }
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// How often a rule was looked at and broken.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    pub checked: u64,
    /// Violations of a MUST.
    pub faults: u64,
    /// Violations of a SHOULD.
    pub warnings: u64,
    pub first_fault: Option<String>,
    pub first_warning: Option<String>,
}

/// What was looked at and what was wrong with it; of each rule the first example is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Findings {
    tallies: [Tally; Rule::ALL.len()],
}

impl Default for Findings {
    fn default() -> Self {
        Self { tallies: std::array::from_fn(|_| Tally::default()) }
    }
}

impl Findings {
    /// Something that a specification demands.
    pub fn must(&mut self, rule: Rule, kept: bool, say: impl FnOnce() -> String) {
        if let Some(tally) = self.tallies.get_mut(rule as usize) {
            tally.checked += 1;
            if !kept {
                tally.faults += 1;
                tally.first_fault.get_or_insert_with(say);
            }
        }
    }

    /// Something that a specification recommends.
    pub fn should(&mut self, rule: Rule, kept: bool, say: impl FnOnce() -> String) {
        if let Some(tally) = self.tallies.get_mut(rule as usize) {
            tally.checked += 1;
            if !kept {
                tally.warnings += 1;
                tally.first_warning.get_or_insert_with(say);
            }
        }
    }

    /// Adds what was found at another place, of which the examples then speak.
    pub fn absorb(&mut self, other: Self, place: &str) {
        for (tally, more) in self.tallies.iter_mut().zip(other.tallies) {
            tally.checked += more.checked;
            tally.faults += more.faults;
            tally.warnings += more.warnings;
            let placed = |text: String| format!("{place}: {text}");
            tally.first_fault = tally.first_fault.take().or(more.first_fault.map(placed));
            tally.first_warning = tally.first_warning.take().or(more.first_warning.map(placed));
        }
    }

    /// Every rule that was looked at.
    pub fn iter(&self) -> impl Iterator<Item = (Rule, &Tally)> {
        Rule::ALL.into_iter().zip(&self.tallies).filter(|(_, t)| t.checked > 0)
    }

    /// The rules of which a MUST was broken, each with its first example.
    pub fn faults(&self) -> impl Iterator<Item = (Rule, &str)> {
        self.iter().filter_map(|(rule, t)| Some((rule, t.first_fault.as_deref()?)))
    }

    /// As [`Self::faults`], for every SHOULD.
    pub fn warnings(&self) -> impl Iterator<Item = (Rule, &str)> {
        self.iter().filter_map(|(rule, t)| Some((rule, t.first_warning.as_deref()?)))
    }
}
