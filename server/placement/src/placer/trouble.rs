//! When things break: devices that are gone without warning, and ladders that must become shorter where they are.
use std::sync::Arc;

use super::{Finish, Migration, Placer, device_id, place_of};
use crate::cost::{Demand, Misfit, Need};
use crate::device::DeviceId;
use crate::reason::{At, Cause, Event, MoveReason, Refusal, SessionId};
use crate::rooms::Seat;

/// What the loss of a device comes to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Lost {
    /// Sessions that have a new seat already: nothing is left to move from, so these need no [`Placer::finish`].
    pub moved: Vec<Migration>,
    /// Sessions that no other device takes; the placer has forgotten them.
    pub ended: Vec<Refusal>,
}

/// Why a ladder isn't shortened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ShedFault {
    /// There is no such session.
    Unknown,
    /// The new demand doesn't consist of the old one's rungs, or takes more decoding or memory.
    NotShorter,
    /// The kind of its device can't take the new demand at all.
    Never(Misfit),
}

impl std::fmt::Display for ShedFault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Unknown => "no such session",
            Self::NotShorter => "the new ladder is not the old one without some rungs",
            Self::Never(misfit) => Cause::Never(*misfit).name(),
        })
    }
}

impl std::error::Error for ShedFault {}

impl Placer {
    /// Takes a device out that is gone or not to be trusted (lost, crashed, in quarantine) and seats its sessions elsewhere, the
    /// largest first. No session comes there until [`Placer::restore`]. Migrations to it fail, migrations from it are done.
    pub fn lose(&mut self, now: At, device: DeviceId) -> Lost {
        let at = place_of(device);
        let Some(state) = self.devices.get_mut(at).filter(|s| !s.lost) else { return Lost::default() };
        state.lost = true;
        let was_open = !std::mem::replace(&mut state.draining, true);
        let here = state.sessions.clone();
        self.history.push(now, Event::Lost(device));
        if was_open {
            self.count_open(at, false);
        }
        self.refresh(at);
        for session in here {
            let Some(record) = self.sessions.get(&session) else { continue };
            match &record.leaving {
                Some(old) if old.device == at => self.finish(session, Finish::Moved),
                Some(_) => self.finish(session, Finish::Stayed),
                None => {}
            }
        }
        let mut lost = Lost::default();
        for session in self.largest_first(at) {
            let Some(record) = self.sessions.get(&session) else { continue };
            let (stay, old) = (record.stay, record.seat);
            let needs = self.needs(&record.demand, record.software);
            let found = self.find(&needs, stay, Some(at));
            self.unseat(session, stay, &old);
            match found {
                Ok((seat, _)) => {
                    self.seat(session, stay, &seat);
                    if let Some(record) = self.sessions.get_mut(&session) {
                        (record.seat, record.since) = (seat, now);
                    }
                    let (to, why) = (device_id(seat.device), MoveReason::Lost);
                    self.history.push(now, Event::Moving { session, from: device, to, why });
                    lost.moved.push(Migration { session, from: device, to, why });
                }
                Err((cause, lacking)) => {
                    self.sessions.remove(&session);
                    let refusal = Refusal { session, cause, lacking };
                    self.history.push(now, Event::Refused(refusal));
                    lost.ended.push(refusal);
                }
            }
        }
        lost
    }

    /// Gives back what a session no longer needs once rungs are shed; `shorter` is the demand of the ladder that is left. The rungs
    /// that stay keep their engines, so this also works on a device that is over its limits. Which rung is worth least is the
    /// caller's to say.
    pub fn shed(&mut self, now: At, session: SessionId, shorter: &Arc<Demand>) -> Result<(), ShedFault> {
        let record = self.sessions.get(&session).ok_or(ShedFault::Unknown)?;
        let software = record.software;
        let shortened = |seat: &Seat| {
            let kind = self.fleet.devices.get(seat.device).and_then(|d| self.fleet.kinds.get(usize::from(d.kind)));
            let need = Need::of(shorter, kind.ok_or(ShedFault::Unknown)?, software).map_err(ShedFault::Never)?;
            without_some_rungs(seat, need).ok_or(ShedFault::NotShorter)
        };
        let seat = shortened(&record.seat)?;
        let leaving = record.leaving.as_ref().map(shortened).transpose()?;
        let device = device_id(seat.device);
        let old = (record.seat, record.leaving);
        for (old, new) in [(Some(old.0), Some(seat)), (old.1, leaving)] {
            if let (Some(old), Some(new)) = (old, new) {
                self.rooms.give_back(&old);
                self.rooms.take(&new);
                self.refresh(new.device);
            }
        }
        if let Some(record) = self.sessions.get_mut(&session) {
            (record.seat, record.leaving, record.demand) = (seat, leaving, Arc::clone(shorter));
        }
        self.history.push(now, Event::Shed { session, device });
        Ok(())
    }
}

/// The same seat for fewer rungs, each on the engine where it was.
fn without_some_rungs(seat: &Seat, need: Need) -> Option<Seat> {
    let old = &seat.need;
    if need.decode > old.decode || need.vram > old.vram || need.sessions >= old.sessions {
        return None;
    }
    let mut held = old.rungs().iter().zip(seat.encoders);
    let mut encoders = seat.encoders;
    // Both are sorted, largest first, so what is skipped is what is shed.
    for (slot, share) in encoders.iter_mut().zip(need.rungs()) {
        *slot = held.find(|(old, _)| *old == share)?.1;
    }
    Some(Seat { need, encoders, ..*seat })
}
