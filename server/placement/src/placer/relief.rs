//! Moving little so that much fits: room for a ladder that was refused, and relief for a device that is over its limits.
use std::sync::Arc;

use super::{Migration, Needs, Placer, Stay, device_id, place_of};
use crate::cost::{Demand, MAX_RUNGS, Misfit, Need};
use crate::device::{DeviceId, Share};
use crate::engines;
use crate::reason::{At, Cause, Event, MoveReason, SessionId};
use crate::rooms::{Dimension, Room, Seat};

/// Devices of one kind that are looked at for room.
const ROOM_DEVICES: usize = 64;
/// Sets of sessions that are looked at for one request, on all devices together.
const ROOM_TRIES: usize = 1024;
/// Sessions of a device that are tried elsewhere for its relief.
const RELIEF_TRIES: usize = 16;

/// Why a ladder doesn't get rungs back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RegainFault {
    /// There is no such session.
    Unknown,
    /// It is on its way to another device.
    Moving,
    /// The new demand isn't the old one with more rungs.
    NotLonger,
    /// The kind of its device can't take the new demand at all.
    Never(Misfit),
    /// Its device has no room for them.
    Full(Dimension),
}

impl std::fmt::Display for RegainFault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Unknown => "no such session",
            Self::Moving => "the session moves",
            Self::NotLonger => "the new ladder is not the old one with more rungs",
            Self::Never(misfit) => Cause::Never(*misfit).name(),
            Self::Full(dimension) => Cause::Full(*dimension).name(),
        })
    }
}

impl std::error::Error for RegainFault {}

impl Placer {
    /// For a ladder that was refused because devices are full: starts at most `most` migrations, all away from one device, after
    /// which that device takes it. As few as possible; none where there is no way that a bounded search finds. Nothing is
    /// reserved for the ladder: who asks first once the sessions have moved gets the room.
    pub fn make_room(&mut self, now: At, demand: &Demand, software: bool, most: usize) -> Vec<Migration> {
        let needs = self.needs(demand, software);
        let mut tries = ROOM_TRIES;
        for count in 1..=most {
            for (kind, need) in &needs.order {
                let Some(shelf) = self.index.shelves.get(*kind) else { continue };
                let devices: Vec<usize> = shelf.open_backwards().take(ROOM_DEVICES).collect();
                for device in devices {
                    let mut movable = self.largest_first(device);
                    // The smallest that will do: moving costs its target what it carries.
                    movable.reverse();
                    let mut chosen = Vec::with_capacity(count);
                    if let Some(seats) = self.vacating(device, need, &movable, count, &mut chosen, &mut tries) {
                        let started = seats.into_iter();
                        return started
                            .filter_map(|(id, s)| self.start_move(now, id, s, MoveReason::MakeRoom))
                            .collect();
                    }
                }
            }
        }
        Vec::new()
    }

    /// Starts to move one session away from a device that has promised more than it has: the smallest that is enough, else the
    /// largest, of those that another device takes. None: nobody takes any of them.
    pub fn relieve(&mut self, now: At, device: DeviceId, why: MoveReason) -> Option<Migration> {
        let at = place_of(device);
        let room = self.rooms.rooms.get(at)?;
        let excess: Share = room.encode().iter().map(|load| load.saturating_sub(room.encode_limit)).sum();
        let mut sessions: Vec<(bool, Share, SessionId)> = self
            .largest_first(at)
            .into_iter()
            .filter_map(|id| {
                let total = self.sessions.get(&id)?.seat.need.encode_total;
                // Enough: ascending. Not enough: descending.
                Some((total < excess, if total < excess { Share::MAX - total } else { total }, id))
            })
            .collect();
        sessions.sort_unstable();
        sessions.into_iter().take(RELIEF_TRIES).find_map(|(.., id)| {
            let record = self.sessions.get(&id)?;
            let needs = self.needs(&record.demand, record.software);
            let (seat, _) = self.find(&needs, record.stay, Some(at)).ok()?;
            self.start_move(now, id, seat, why)
        })
    }

    /// Gives a session rungs again that were shed, where it is; `longer` is the demand of the ladder with them. The rungs that it
    /// has keep their engines.
    pub fn regain(&mut self, now: At, session: SessionId, longer: &Arc<Demand>) -> Result<(), RegainFault> {
        let record = self.sessions.get(&session).ok_or(RegainFault::Unknown)?;
        if record.leaving.is_some() {
            return Err(RegainFault::Moving);
        }
        let old = record.seat;
        let kind = self.fleet.devices.get(old.device).and_then(|d| self.fleet.kinds.get(usize::from(d.kind)));
        let need = Need::of(longer, kind.ok_or(RegainFault::Unknown)?, record.software).map_err(RegainFault::Never)?;
        let room = self.rooms.rooms.get(old.device).ok_or(RegainFault::Unknown)?;
        let more = u32::from(need.sessions.saturating_sub(old.need.sessions));
        if need.decode != old.need.decode || need.vram < old.need.vram || more == 0 {
            return Err(RegainFault::NotLonger);
        }
        if more > self.rooms.sessions_free(room) {
            return Err(RegainFault::Full(Dimension::Sessions));
        }
        if room.vram.saturating_sub(old.need.vram).saturating_add(need.vram) > room.vram_limit {
            return Err(RegainFault::Full(Dimension::Vram));
        }
        let seat = Seat { need, encoders: with_more_rungs(&old, &need, room)?, ..old };
        self.rooms.give_back(&old);
        self.rooms.take(&seat);
        self.refresh(seat.device);
        if let Some(record) = self.sessions.get_mut(&session) {
            (record.seat, record.demand) = (seat, Arc::clone(longer));
        }
        self.history.push(now, Event::Regained { session, device: device_id(seat.device) });
        Ok(())
    }

    /// Seats elsewhere for `count` of the `movable` sessions, without which the device takes the need. Leaves everything as it is.
    fn vacating(
        &mut self,
        device: usize,
        need: &Need,
        movable: &[SessionId],
        count: usize,
        chosen: &mut Vec<SessionId>,
        tries: &mut usize,
    ) -> Option<Vec<(SessionId, Seat)>> {
        if chosen.len() == count {
            *tries = tries.checked_sub(1)?;
            if !self.fits_without(device, need, chosen, &[]) {
                return None;
            }
            let anywhere =
                |placer: &Self, needs: &Needs, stay: Stay| Some(placer.find(needs, stay, Some(device)).ok()?.0);
            let seats = self.seats_elsewhere(chosen, anywhere)?;
            // What they take there may be what is lacking here, as encoding sessions of one host are.
            return self.fits_without(device, need, chosen, &seats).then_some(seats);
        }
        for (n, session) in movable.iter().enumerate() {
            if *tries == 0 {
                return None;
            }
            chosen.push(*session);
            let rest = movable.get(n + 1..).unwrap_or_default();
            if let Some(seats) = self.vacating(device, need, rest, count, chosen, tries) {
                return Some(seats);
            }
            chosen.pop();
        }
        None
    }

    /// Whether the device takes the need once these sessions have moved to those seats.
    fn fits_without(&mut self, device: usize, need: &Need, gone: &[SessionId], new: &[(SessionId, Seat)]) -> bool {
        let old: Vec<Seat> = gone.iter().filter_map(|id| Some(self.sessions.get(id)?.seat)).collect();
        new.iter().for_each(|(_, seat)| self.rooms.take(seat));
        old.iter().for_each(|seat| self.rooms.give_back(seat));
        let fits = self.rooms.fit(device, need).is_ok();
        old.iter().for_each(|seat| self.rooms.take(seat));
        new.iter().for_each(|(_, seat)| self.rooms.give_back(seat));
        fits
    }

    /// A seat for each of the sessions as `find` chooses, so that all of them can be taken together; all or none. Leaves
    /// everything as it is.
    pub(super) fn seats_elsewhere(
        &mut self,
        sessions: &[SessionId],
        find: impl Fn(&Self, &Needs, Stay) -> Option<Seat>,
    ) -> Option<Vec<(SessionId, Seat)>> {
        let mut seats: Vec<(SessionId, Stay, Seat)> = Vec::with_capacity(sessions.len());
        let mut all = true;
        for session in sessions {
            let found = self.sessions.get(session).and_then(|record| {
                let needs = self.needs(&record.demand, record.software);
                Some((record.stay, find(self, &needs, record.stay)?))
            });
            let Some((stay, seat)) = found else {
                all = false;
                break;
            };
            self.seat(*session, stay, &seat);
            seats.push((*session, stay, seat));
        }
        for (session, stay, seat) in &seats {
            self.unseat(*session, *stay, seat);
        }
        all.then(|| seats.into_iter().map(|(session, _, seat)| (session, seat)).collect())
    }
}

/// The engines of the longer ladder: those of the old rungs as they are, and room for the others.
fn with_more_rungs(old: &Seat, need: &Need, room: &Room) -> Result<engines::Engines, RegainFault> {
    let mut held = old.need.rungs().iter().zip(old.encoders).peekable();
    let mut kept = [None; MAX_RUNGS];
    let mut new = Vec::with_capacity(MAX_RUNGS);
    // Both are sorted, largest first, so what the old one hasn't is what comes back.
    for (place, share) in kept.iter_mut().zip(need.rungs()) {
        *place = held.next_if(|(old, _)| *old == share).map(|(_, engine)| engine);
        if place.is_none() {
            new.push(*share);
        }
    }
    if held.next().is_some() {
        return Err(RegainFault::NotLonger);
    }
    let lacking = if room.encode_free() < new.iter().sum() { Dimension::Encode } else { Dimension::EngineFragments };
    let found = engines::assign(room.encode(), room.encode_limit, &new).ok_or(RegainFault::Full(lacking))?;
    let mut found = found.into_iter();
    let mut encoders = [0; MAX_RUNGS];
    for (engine, kept) in encoders.iter_mut().zip(kept).take(need.rungs().len()) {
        *engine = kept.or_else(|| found.next()).unwrap_or_default();
    }
    Ok(encoders)
}
