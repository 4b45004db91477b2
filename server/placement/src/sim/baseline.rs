//! Simpler placers to compare with; each looks at every device and knows the same bounds.
use std::collections::HashMap;

use super::workload::Class;
use crate::cost::Need;
use crate::device::{Fleet, Share};
use crate::reason::SessionId;
use crate::rooms::{Headroom, Room, Rooms, Seat};

/// How a simple placer chooses among the devices that fit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Simple {
    /// The first, large devices before small ones.
    FirstFit,
    /// The one with the least encoder room left, in engines of its kind.
    BestFit,
    /// The one with the smallest part of its engines and memory in use.
    LeastLoaded,
    /// The first, as the fleet happens to list them.
    DeviceOrder,
}

#[derive(Clone, Debug)]
pub(super) struct Baseline {
    how: Simple,
    pub rooms: Rooms,
    /// Needs by class and kind.
    needs: Vec<Vec<Option<Need>>>,
    order: Vec<usize>,
    /// What the scans compare, by device: kind, encoder room, fullness, whether in use.
    brief: Vec<Brief>,
    seats: HashMap<SessionId, Seat>,
}

#[derive(Clone, Copy, Debug)]
struct Brief {
    kind: usize,
    free: Share,
    fullness: u64,
    idle: bool,
}

impl Brief {
    fn of(room: &Room) -> Self {
        Self { kind: room.kind, free: room.encode_free(), fullness: room.fullness(), idle: room.ladders == 0 }
    }
}

impl Baseline {
    pub fn new(how: Simple, fleet: &Fleet, headroom: Headroom, classes: &[Class]) -> Self {
        let of_class = |c: &Class| fleet.kinds.iter().map(|k| Need::of(&c.demand, k, c.software).ok()).collect();
        let needs: Vec<Vec<Option<Need>>> = classes.iter().map(of_class).collect();
        let rooms = Rooms::new(fleet, headroom);
        let mut order: Vec<usize> = (0..rooms.rooms.len()).collect();
        if how == Simple::DeviceOrder {
            // Hosts come as they were bought, not sorted: kinds take turns.
            let mut turn = vec![0usize; fleet.kinds.len()];
            let mut key = vec![0usize; order.len()];
            for (device, room) in rooms.rooms.iter().enumerate() {
                if let (Some(turn), Some(key)) = (turn.get_mut(room.kind), key.get_mut(device)) {
                    *key = *turn;
                    *turn += 1;
                }
            }
            order.sort_by_key(|d| (key.get(*d).copied(), *d));
        } else {
            // Large by what an empty device holds of the mean ladder.
            let size = |device: usize| {
                let Some(room) = rooms.rooms.get(device) else { return 0.0 };
                let holds = needs.iter().zip(classes).map(|(needs, class)| {
                    let need = needs.get(room.kind).copied().flatten();
                    let sessions = f64::from(rooms.sessions_free(room));
                    need.map_or(0.0, |n| {
                        class.weight
                            * (f64::from(room.encode_free()) / f64::from(n.encode_total.max(1)))
                                .min(sessions / f64::from(n.sessions.max(1)))
                    })
                });
                holds.sum::<f64>()
            };
            let sizes: Vec<f64> = order.iter().map(|d| size(*d)).collect();
            let size = |d: &usize| sizes.get(*d).copied().unwrap_or_default();
            order.sort_by(|a, b| size(b).total_cmp(&size(a)));
        }
        let brief = rooms.rooms.iter().map(Brief::of).collect();
        Self { how, rooms, needs, order, brief, seats: HashMap::new() }
    }

    pub fn place(&mut self, session: SessionId, class: usize) -> bool {
        let Some(needs) = self.needs.get(class) else { return false };
        let mut best: Option<(u64, Seat)> = None;
        for device in &self.order {
            let Some(brief) = self.brief.get(*device) else { continue };
            let Some(need) = needs.get(brief.kind).and_then(Option::as_ref) else { continue };
            let Some(left) = brief.free.checked_sub(need.encode_total) else { continue };
            let key = match self.how {
                Simple::FirstFit | Simple::DeviceOrder => 0,
                // Devices in use before idle ones, and of those the largest, which come first.
                Simple::BestFit => {
                    if brief.idle {
                        u64::MAX
                    } else {
                        u64::from(left)
                    }
                }
                Simple::LeastLoaded => brief.fullness,
            };
            if best.as_ref().is_some_and(|(least, _)| key >= *least) {
                continue;
            }
            if let Ok(seat) = self.rooms.fit(*device, need) {
                best = Some((key, seat));
                if key == 0 {
                    break;
                }
            }
        }
        let Some((_, seat)) = best else { return false };
        self.rooms.take(&seat);
        self.note(seat.device);
        self.seats.insert(session, seat);
        true
    }

    pub fn release(&mut self, session: SessionId) {
        if let Some(seat) = self.seats.remove(&session) {
            self.rooms.give_back(&seat);
            self.note(seat.device);
        }
    }

    fn note(&mut self, device: usize) {
        if let (Some(brief), Some(room)) = (self.brief.get_mut(device), self.rooms.rooms.get(device)) {
            *brief = Brief::of(room);
        }
    }
}
