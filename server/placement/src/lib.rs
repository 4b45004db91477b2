//! Placement: which device carries which ladder. Pure: no clock, no threads, no I/O, no dependencies.
//!
//! [`cost`] turns a ladder into a demand, [`device`] and [`catalogue`] say what devices can do, [`placer`] decides one session
//! at a time and gives each decision its reason, [`check`] judges the result knowing none of the placer's shortcuts, and
//! [`sim`] runs whole days of sessions through a placer beside simpler ones and a lower bound.
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
pub use placer::{Load, Migration, Placement, Placer, Policy, Request, Settings};
pub use reason::{At, Refusal, SessionId};
pub use rooms::{Dimension, Headroom};
