//! Placement: which device carries which ladder. Pure: no clock, no threads, no I/O, no dependencies.
//!
//! [`cost`] turns a ladder into a demand, [`device`] and [`catalogue`] say what devices can do, [`placer`] decides one session
//! at a time and gives each decision its reason, [`check`] judges the result knowing none of the placer's shortcuts, and
//! [`sim`] runs whole days of sessions through a placer beside simpler ones and a lower bound.
//!
//! The owner of a [`Placer`] asks before it starts a ladder, tells when one has ended, and carries out the migrations that
//! it gets:
//!
//! | what happens | call | what to do with the answer |
//! |---|---|---|
//! | somebody publishes | [`Placer::place`] | start there, or refuse (503 where [`Refusal::may_pass`]), or ask again with a shorter ladder |
//! | a session ends | [`Placer::release`] | |
//! | an operator drains a device | [`Placer::drain`], later [`Placer::restore`] | move each session make before break, then [`Placer::finish`] |
//! | a device fails | [`Placer::lose`], later [`Placer::restore`] | start `moved` on their new devices, end `ended` |
//! | a ladder is refused because all is full | [`Placer::make_room`] | as for a drain; the next attempt fits |
//! | load is measured | [`Placer::report`] | where something is beyond its limit: [`Placer::relieve`], or [`Placer::shed`] the rung worth least |
//! | there is room again | [`Placer::regain`] | encode the rung again |
//! | every minute | [`Placer::defragment`] | as for a drain |
//! | the status page asks | [`Placer::snapshot`], [`Placer::history`] | |
//!
//! ```
//! use std::sync::Arc;
//!
//! use placement::device::{Codec, Preset, SourceCodec};
//! use placement::placer::{Finish, Stay};
//! use placement::{At, Fleet, Ladder, Picture, Placer, Request, Rung, SessionId, Settings, catalogue};
//!
//! let mut fleet = Fleet::default();
//! fleet.add(catalogue::find("l4").unwrap(), 2, 2, None);
//! let mut placer = Placer::new(fleet, Settings::default()).unwrap();
//!
//! let picture = |width, height| Picture { width, height, frame_rate: (30, 1) };
//! let rung = |width, height| Rung { codec: Codec::H264, preset: Preset::new(4).unwrap(), picture: picture(width, height) };
//! let ladder = Ladder {
//!     source: (SourceCodec::H264, picture(1920, 1080)),
//!     rungs: vec![rung(1280, 720), rung(640, 360)],
//! };
//! let demand = Arc::new(ladder.demand().unwrap());
//! let request = Request { session: SessionId(1), demand, software: false, stay: Stay::Short };
//! let placed = placer.place(At(0), &request).unwrap();
//!
//! // Drain its device: the session moves to the other one, make before break.
//! let drained = placer.drain(At(1000), placed.device);
//! assert_eq!(drained.migrations[0].from, placed.device);
//! placer.finish(SessionId(1), Finish::Moved);
//! assert_ne!(placer.device_of(SessionId(1)), Some(placed.device));
//! for (at, event) in placer.history().iter() {
//!     println!("{} ms: {event}", at.0);
//! }
//! ```
pub mod catalogue;
pub mod check;
pub mod cost;
pub mod device;
mod engines;
mod index;
pub mod placer;
pub mod reason;
mod rooms;
pub mod sim;

pub use cost::{Demand, Ladder, Picture, Rung};
pub use device::{Device, DeviceId, DeviceKind, Fleet, Host};
pub use placer::{Load, Lost, Migration, Placement, Placer, Policy, RegainFault, Request, Settings, ShedFault};
pub use reason::{At, Refusal, SessionId};
pub use rooms::{Dimension, Headroom};
