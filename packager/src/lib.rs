//! Access units in; parts, segments and playlists out. No clock, socket, thread or runtime in here.
//!
//! Read `rendition.rs` first: push a cut or an access unit, then publish the snapshot.

mod bandwidth;
mod fmp4;
mod playlist;
mod rendition;
mod segmenter;
mod timing;
pub mod validate;
mod window;

pub use bandwidth::Bandwidth;
pub use playlist::{Report, Variant, multivariant};
pub use rendition::Rendition;
pub use segmenter::{Cut, Segmenter};
pub use timing::{ChannelTiming, HlsSettings, PartRule};
pub use window::{Directives, Lookup, Position, Reload, Snapshot};
