//! Simpler placers to compare with; each looks at every device and knows the same bounds.
use std::collections::HashMap;

use super::workload::Class;
use crate::cost::Need;
use crate::device::Fleet;
use crate::reason::SessionId;
use crate::rooms::{Headroom, Rooms, Seat};

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
    seats: HashMap<SessionId, Seat>,
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
        Self { how, rooms, needs, order, seats: HashMap::new() }
    }

    pub fn place(&mut self, session: SessionId, class: usize) -> bool {
        let Some(needs) = self.needs.get(class) else { return false };
        let fits = |device: usize| {
            let room = self.rooms.rooms.get(device)?;
            let need = needs.get(room.kind)?.as_ref()?;
            self.rooms.fit(device, need).ok().map(|seat| (room, seat))
        };
        let mut candidates = self.order.iter().filter_map(|d| fits(*d));
        let seat = match self.how {
            Simple::FirstFit | Simple::DeviceOrder => candidates.next(),
            Simple::BestFit => candidates.min_by_key(|(r, s)| {
                // Devices in use before idle ones, and of those the largest, which come first.
                if r.ladders == 0 { u32::MAX } else { r.encode_free().saturating_sub(s.need.encode_total) }
            }),
            Simple::LeastLoaded => candidates.min_by_key(|(r, _)| r.fullness()),
        };
        let Some((_, seat)) = seat else { return false };
        self.rooms.take(&seat);
        self.seats.insert(session, seat);
        true
    }

    pub fn release(&mut self, session: SessionId) {
        if let Some(seat) = self.seats.remove(&session) {
            self.rooms.give_back(&seat);
        }
    }
}
