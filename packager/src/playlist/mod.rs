//! Playlists: text as a pure function of an immutable snapshot (draft-pantos-hls-rfc8216bis).

mod media_playlist;
mod multivariant;

pub use media_playlist::Report;
pub(crate) use media_playlist::media_playlist;
pub use multivariant::{Variant, multivariant};
