//! Devices by kind and room, so that a decision looks at a few of thousands.
//!
//! The devices of a kind stand in a fixed order, devices in use and idle ones alike, under a tree of maxima: "the first
//! device from here on with so much room" costs one walk down.
use crate::device::Share;
use crate::rooms::{Room, Rooms};

/// The devices of one kind in their fixed order.
#[derive(Clone, Debug, Default)]
pub(crate) struct Shelf {
    devices: Vec<usize>,
    /// For each side a tree of the largest room, leaves from `width` on; room plus one, zero for devices on other sides.
    trees: [Vec<Share>; 4],
    width: usize,
    /// Devices on all sides.
    pub filed: usize,
}

/// Which devices of a shelf.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    /// In use by sessions that won't stay.
    Short,
    /// In use, also by sessions that will stay.
    Long,
    Idle,
    /// In use only by sessions that are moving away.
    Leaving,
}

impl Side {
    const ALL: [Self; 4] = [Self::Short, Self::Long, Self::Idle, Self::Leaving];
}

impl Shelf {
    fn new(devices: Vec<usize>) -> Self {
        let width = devices.len().next_power_of_two();
        Self { devices, trees: std::array::from_fn(|_| vec![0; 2 * width]), width, filed: 0 }
    }

    /// Devices with this much room, in the fixed order.
    pub fn with_room(&self, side: Side, room: Share) -> impl Iterator<Item = usize> {
        let mut from = 0;
        std::iter::from_fn(move || {
            let leaf = first(self.tree(side), self.width, from, room.saturating_add(1))?;
            from = leaf + 1;
            self.devices.get(leaf).copied()
        })
    }

    /// The largest room on a side.
    pub fn most_room(&self, side: Side) -> Share {
        self.tree(side).get(1).copied().unwrap_or_default().saturating_sub(1)
    }

    /// Devices in use, the last in the order first; without those that are being left.
    pub fn open_backwards(&self) -> impl Iterator<Item = usize> {
        let leaves = |side| self.tree(side).get(self.width..).unwrap_or_default().iter();
        let rooms = leaves(Side::Short).zip(leaves(Side::Long)).zip(&self.devices);
        rooms.rev().filter(|((short, long), _)| **short > 0 || **long > 0).map(|(_, device)| *device)
    }

    fn tree(&self, side: Side) -> &[Share] {
        self.trees.get(side as usize).map_or(&[], Vec::as_slice)
    }

    /// Puts a device on a side with room for `room`; None takes it off the shelf.
    fn file(&mut self, leaf: usize, place: Option<(Side, Share)>) {
        let mut was = false;
        for side in Side::ALL {
            let value = match place {
                Some((s, room)) if s == side => room.saturating_add(1),
                _ => 0,
            };
            was |= self.set(side, leaf, value) > 0;
        }
        self.filed = self.filed + usize::from(place.is_some()) - usize::from(was);
    }

    /// Returns what stood there.
    fn set(&mut self, side: Side, leaf: usize, value: Share) -> Share {
        let mut node = self.width + leaf;
        let Some(tree) = self.trees.get_mut(side as usize) else { return 0 };
        let Some(slot) = tree.get_mut(node) else { return 0 };
        let before = std::mem::replace(slot, value);
        while node > 1 && before != value {
            node /= 2;
            let children = tree.get(2 * node..2 * node + 2).and_then(|c| c.iter().max().copied());
            match (tree.get_mut(node), children) {
                (Some(slot), Some(max)) if *slot != max => *slot = max,
                _ => break,
            }
        }
        before
    }
}

/// The first leaf at or after `from` with at least `least`.
fn first(tree: &[Share], width: usize, from: usize, least: Share) -> Option<usize> {
    if from >= width {
        return None;
    }
    let value = |node: usize| tree.get(node).copied().unwrap_or_default();
    let mut node = width + from;
    // Up until a subtree to the right has one, then down to its first.
    while value(node) < least {
        while node % 2 == 1 {
            node /= 2;
            if node <= 1 {
                return None;
            }
        }
        node += 1;
    }
    while node < width {
        node *= 2;
        if value(node) < least {
            node += 1;
        }
    }
    Some(node - width)
}

/// All shelves, kept in step with the rooms.
#[derive(Clone, Debug)]
pub(crate) struct Index {
    pub shelves: Vec<Shelf>,
    /// For each device its leaf.
    leaves: Vec<usize>,
    /// Consumer cards of each host: the session cap touches them all at once.
    consumers: Vec<Vec<usize>>,
}

impl Index {
    pub fn new(rooms: &Rooms, kinds: usize, hosts: usize) -> Self {
        let mut by_kind = vec![Vec::new(); kinds];
        let mut consumers = vec![Vec::new(); hosts];
        let mut leaves = Vec::with_capacity(rooms.rooms.len());
        for (device, room) in rooms.rooms.iter().enumerate() {
            if let Some(list) = consumers.get_mut(room.host).filter(|_| room.consumer) {
                list.push(device);
            }
            let list: Option<&mut Vec<usize>> = by_kind.get_mut(room.kind);
            leaves.push(list.as_ref().map_or(0, |l| l.len()));
            if let Some(list) = list {
                list.push(device);
            }
        }
        let shelves = by_kind.into_iter().map(Shelf::new).collect();
        let mut index = Self { shelves, leaves, consumers };
        for (device, room) in rooms.rooms.iter().enumerate() {
            index.file(rooms, device, room, Some(Side::Idle));
        }
        index
    }

    /// Files a device anew after its room has changed; `side` tells where devices belong, None for those that are closed.
    pub fn refresh(&mut self, rooms: &Rooms, device: usize, side: impl Fn(usize) -> Option<Side>) {
        let Some(room) = rooms.rooms.get(device) else { return };
        self.file(rooms, device, room, side(device));
        if room.consumer {
            let others = self.consumers.get_mut(room.host).map(std::mem::take).unwrap_or_default();
            for other in others.iter().filter(|d| **d != device) {
                if let Some(room) = rooms.rooms.get(*other) {
                    self.file(rooms, *other, room, side(*other));
                }
            }
            if let Some(list) = self.consumers.get_mut(room.host) {
                *list = others;
            }
        }
    }

    fn file(&mut self, rooms: &Rooms, device: usize, room: &Room, side: Option<Side>) {
        let (Some(leaf), Some(shelf)) = (self.leaves.get(device), self.shelves.get_mut(room.kind)) else { return };
        // Without a session left in its host a card has no room for anyone.
        let free = if rooms.sessions_free(room) == 0 { 0 } else { room.encode_free() };
        shelf.file(*leaf, side.map(|side| (side, free)));
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn finds_every_device_with_room_in_order(
            rooms in prop::collection::vec(0u32..20, 1..40),
            changes in prop::collection::vec((0usize..40, 0u32..20, 0usize..5), 0..40),
            least in 0u32..20,
        ) {
            let mut shelf = Shelf::new((0..rooms.len()).collect());
            let mut now: Vec<_> = rooms.iter().map(|r| Some((Side::Idle, *r))).collect();
            for (leaf, place) in now.iter().enumerate() {
                shelf.file(leaf, *place);
            }
            for (leaf, room, side) in changes {
                if let Some(slot) = now.get_mut(leaf) {
                    *slot = Side::ALL.get(side).map(|s| (*s, room));
                    shelf.file(leaf, *slot);
                }
            }
            for side in Side::ALL {
                let most = now.iter().flatten().filter(|(s, _)| *s == side).map(|(_, room)| *room).max();
                prop_assert_eq!(shelf.most_room(side), most.unwrap_or(0));
                let wanted: Vec<_> =
                    (0..now.len()).filter(|n| now[*n].is_some_and(|(s, room)| s == side && room >= least)).collect();
                prop_assert_eq!(shelf.with_room(side, least).collect::<Vec<_>>(), wanted);
            }
            prop_assert_eq!(shelf.filed, now.iter().flatten().count());
            let backwards = (0..now.len()).rev().filter(|n| now[*n].is_some_and(|(s, _)| matches!(s, Side::Short | Side::Long)));
            prop_assert_eq!(shelf.open_backwards().collect::<Vec<_>>(), backwards.collect::<Vec<_>>());
        }
    }
}
