//! Why: the reasons of placements, refusals and migrations, and the bounded history that keeps them.
use std::collections::VecDeque;

use crate::cost::Misfit;
use crate::device::DeviceId;
use crate::rooms::Dimension;

/// Milliseconds since a moment that the caller chose once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct At(pub u64);

/// A session's number, chosen by the caller and unique among those placed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionId(pub u64);

/// Why a session sits where it sits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Why {
    /// A device in use takes it: the tightest of the first few that fit.
    InUse,
    /// No device in use takes the ladder, so an idle one was opened.
    Opened,
    /// The device with the most room (policy `spread`).
    MostRoom,
}

impl Why {
    /// For logs and the status page.
    pub fn name(self) -> &'static str {
        match self {
            Self::InUse => "tightest of the first in use that fit",
            Self::Opened => "no device in use fits",
            Self::MostRoom => "most room",
        }
    }
}

/// Why a session is not placed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// A session of that number is placed already.
    Duplicate,
    /// The fleet has no devices, or all of them are draining.
    NoDevice,
    /// No kind of device in the fleet can ever take this ladder; the misfit of the kind that comes nearest.
    Never(Misfit),
    /// Devices could take it, but are full: what most of them lack.
    Full(Dimension),
}

/// A request that is not carried out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refusal {
    pub session: SessionId,
    pub cause: Cause,
    /// How many devices lack what, in the order of [`Dimension::ALL`]; a device counts once.
    pub lacking: [u32; 5],
}

impl Refusal {
    /// Whether the same request may succeed once others have ended.
    pub fn may_pass(&self) -> bool {
        matches!(self.cause, Cause::Full(_) | Cause::NoDevice)
    }
}

impl Cause {
    /// One word for logs, metrics and answers.
    pub fn name(self) -> &'static str {
        match self {
            Self::Duplicate => "duplicate session",
            Self::NoDevice => "no device",
            Self::Never(Misfit::Decoder(_)) => "no decoder for the source",
            Self::Never(Misfit::Encoder(_)) => "no encoder for the codec",
            Self::Never(Misfit::SoftwareOnly) => "only software encoders",
            Self::Never(Misfit::SourceAboveEngine) => "source above one engine",
            Self::Never(Misfit::RungAboveEngine) => "rung above one engine",
            Self::Never(Misfit::AboveDevice) => "ladder above one device",
            Self::Full(Dimension::Decode) => "decode full",
            Self::Full(Dimension::Encode) => "encode full",
            Self::Full(Dimension::EngineFragments) => "engines fragmented",
            Self::Full(Dimension::Vram) => "vram full",
            Self::Full(Dimension::Sessions) => "session cap reached",
        }
    }
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "session {}: {}", self.session.0, self.cause.name())?;
        for (dimension, n) in Dimension::ALL.iter().zip(self.lacking).filter(|(_, n)| *n > 0) {
            write!(f, "; {n} devices lack {}", dimension.name())?;
        }
        Ok(())
    }
}

impl std::error::Error for Refusal {}

/// Why a session moves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum MoveReason {
    /// Its device is being drained.
    Drain,
    /// Its device can be emptied.
    Defragment,
    /// The caller asked for it.
    Requested,
    /// Its device is gone or in quarantine.
    Lost,
    /// Its device throttles, and has promised more than is left.
    Throttled,
    /// Its device does not keep up with what it has promised, or others use it.
    Overload,
    /// Without it its device takes a ladder that was refused.
    MakeRoom,
}

impl MoveReason {
    /// One word for logs, metrics and the status page.
    pub fn name(self) -> &'static str {
        match self {
            Self::Drain => "drain",
            Self::Defragment => "defragment",
            Self::Requested => "requested",
            Self::Lost => "lost",
            Self::Throttled => "throttled",
            Self::Overload => "overload",
            Self::MakeRoom => "make room",
        }
    }
}

/// One thing that was decided.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    Placed {
        session: SessionId,
        device: DeviceId,
        why: Why,
    },
    Refused(Refusal),
    Moving {
        session: SessionId,
        from: DeviceId,
        to: DeviceId,
        why: MoveReason,
    },
    /// No more sessions come here.
    Draining(DeviceId),
    /// Gone or in quarantine: its sessions have left at once.
    Lost(DeviceId),
    Restored(DeviceId),
    /// Its ladder has become shorter where it is.
    Shed {
        session: SessionId,
        device: DeviceId,
    },
    /// Its ladder has got rungs back where it is.
    Regained {
        session: SessionId,
        device: DeviceId,
    },
    /// Measured load leaves less than what is promised.
    OverBudget(DeviceId, Dimension),
}

impl std::fmt::Display for Event {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Placed { session, device, why } => {
                write!(f, "session {} placed on device {}: {}", session.0, device.0, why.name())
            }
            Self::Refused(refusal) => write!(f, "{refusal}"),
            Self::Moving { session, from, to, why } => {
                write!(f, "session {} moves from device {} to {}: {}", session.0, from.0, to.0, why.name())
            }
            Self::Draining(device) => write!(f, "device {} is drained", device.0),
            Self::Lost(device) => write!(f, "device {} is lost", device.0),
            Self::Restored(device) => write!(f, "device {} takes sessions again", device.0),
            Self::Shed { session, device } => write!(f, "session {} on device {} sheds rungs", session.0, device.0),
            Self::Regained { session, device } => {
                write!(f, "session {} on device {} regains rungs", session.0, device.0)
            }
            Self::OverBudget(device, dimension) => {
                write!(f, "device {} has promised more {} than it has", device.0, dimension.name())
            }
        }
    }
}

/// The latest events, oldest first.
#[derive(Clone, Debug)]
pub struct History {
    events: VecDeque<(At, Event)>,
    keep: usize,
    /// Events that have left.
    pub forgotten: u64,
}

impl History {
    /// Keeps the last `keep` events: enough for a status page, whatever happens.
    pub fn new(keep: usize) -> Self {
        Self { events: VecDeque::new(), keep, forgotten: 0 }
    }

    pub fn push(&mut self, at: At, event: Event) {
        self.events.push_back((at, event));
        while self.events.len() > self.keep {
            self.events.pop_front();
            self.forgotten += 1;
        }
    }

    pub fn iter(&self) -> impl DoubleEndedIterator<Item = &(At, Event)> {
        self.events.iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn history_keeps_the_latest_and_counts_the_rest() {
        let mut history = History::new(3);
        for n in 0..10 {
            history.push(At(n.into()), Event::Draining(DeviceId(n)));
        }
        let kept: Vec<_> = history.iter().map(|(at, _)| at.0).collect();
        assert_eq!((kept, history.forgotten), (vec![7, 8, 9], 7));
    }
}
