//! CMAF bytes (ISO 14496-12, 14496-15, 23000-19): init segments and fragments.

mod fragment;
mod init;

pub(crate) use fragment::{Sample, fragment};
pub(crate) use init::init_segment;
