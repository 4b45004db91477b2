//! Decoding, scaling and encoding in worker processes. The only crate that names GStreamer.
//!
//! The parent's side is [`Engine`]; the child's side is [`worker::run`], started as `fishladder worker`. One session's
//! way through it: `parent` (feeds, supervises, replays) -> `protocol` (bytes on a socket) -> `worker` (the child's main
//! loop) -> `graph` (decode once, encode N times) -> `protocol` -> `parent` (each unit once, in order).

pub mod avc;
pub mod backend;
pub mod demo;
mod feed;
pub mod gauge;
mod graph;
mod host;
mod lag;
pub mod motion;
mod parent;
pub mod probe;
pub mod protocol;
mod resolve;
mod restart;
mod spec;
mod timeline;
pub mod worker;

pub use host::{DeviceHost, HostEnded, HostOptions};
pub use parent::{Engine, EngineEvent, EngineInput, EngineOptions, MoveFault, Mover, Seat};
pub use resolve::{RungRequest, resolve};
pub use spec::{AudioRung, LadderSpec, OnDevice, VideoRung};
