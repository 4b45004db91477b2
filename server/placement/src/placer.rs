//! The online placer: one session at a time, each on one device, without a look into the future.
//!
//! Policy `consolidate` keeps the devices in a fixed order, kinds that hold most of such ladders first, and fills from its
//! front; an idle device is opened only when no device in use takes the ladder. So the end of the order gets nothing when
//! demand falls, and drains. Sessions that will stay are kept together, since one of them alone keeps a device in use.
//! Policy `spread` takes the device that stays emptiest. docs/adr/0005-placement.md tells why.
mod relief;
mod trouble;

use std::collections::HashMap;
use std::sync::Arc;

use crate::cost::{Demand, Misfit, Need};
use crate::device::{Device, DeviceId, Fleet, FleetFault, Share};
use crate::index::{Index, Side};
use crate::reason::{At, Cause, Event, History, MoveReason, Refusal, SessionId, Why};
use crate::rooms::{Dimension, Headroom, Room, Rooms, Seat, Totals, engine_limit, vram_limit};

pub use self::relief::RegainFault;
pub use self::trouble::{Lost, ShedFault};

/// Devices of one kind that are looked at before the next kind gets its turn. Nearly always the first one fits; the rest
/// is for engines in fragments, of which thousands of devices in use have many: with 32 idle devices were opened too soon.
/// When all kinds have had their turn, every device is looked at.
const PROBES: usize = 256;
/// Fitting devices among which the tightest is taken. Taking the tightest of all changes the figures by less than 0.01 of
/// the bound, either way (docs/adr/0005-placement.md).
const CHOICE: usize = 4;
/// Devices that one call of `defragment` tries to empty in vain before it gives up.
const FRUITLESS: usize = 8;
/// Sessions that one call of `defragment` looks at for each migration it may start.
const TRIES: usize = 8;
/// Most sessions that the placer knows at a time, whatever the fleet.
const MAX_SESSIONS: usize = 10_000_000;

/// What to do with the choice between devices that fit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Policy {
    /// As few devices in use as possible.
    #[default]
    Consolidate,
    /// As much room on each device as possible.
    Spread,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    pub policy: Policy,
    pub headroom: Headroom,
    /// Events that the history keeps.
    pub history: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Self { policy: Policy::default(), headroom: Headroom::default(), history: 256 }
    }
}

/// A ladder that wants a device.
#[derive(Clone, Debug)]
pub struct Request {
    pub session: SessionId,
    pub demand: Arc<Demand>,
    /// Whether the processor may encode where a device has no encoder.
    pub software: bool,
    pub stay: Stay,
}

/// How long a session is expected to stay. A wrong guess costs devices, nothing else.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Stay {
    /// For hours at most: somebody publishes.
    #[default]
    Short,
    /// Until it is taken down: a camera that is pulled, a channel round the clock.
    Long,
}

/// Where a session is now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Placement {
    pub session: SessionId,
    pub device: DeviceId,
    pub why: Why,
}

/// A session that is to move, make before break: both devices bear it until [`Placer::finish`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Migration {
    pub session: SessionId,
    pub from: DeviceId,
    pub to: DeviceId,
    pub why: MoveReason,
}

/// How a migration ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Finish {
    Moved,
    /// It failed; the session stays where it was.
    Stayed,
}

/// What draining a device comes to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Drained {
    pub migrations: Vec<Migration>,
    /// Sessions that no other device takes; they stay until they end, or until the caller ends them.
    pub stranded: Vec<Refusal>,
}

/// A device's load as measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Load {
    /// Busy time of its encoder and decoder engines, in millionths, averaged over the engines of each sort.
    pub encode: Share,
    pub decode: Share,
    /// MiB in use, all programs together.
    pub vram: u32,
    /// Encoding sessions, all programs together.
    pub sessions: u32,
    /// Per cent of its calibrated speed that the device runs at; below 100 while it throttles.
    pub speed: u16,
    /// Sessions placed up to this moment are in the figures; later ones count by their reservation on top.
    pub as_of: At,
}

/// One device as the status page shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceView {
    pub device: DeviceId,
    pub kind: u16,
    pub host: u32,
    pub draining: bool,
    /// Lost or in quarantine; then also draining.
    pub lost: bool,
    /// Encoding sessions of other programs, as last measured.
    pub foreign_sessions: u32,
    /// Promised share of each encoder engine, and the most that may be.
    pub encode: Vec<Share>,
    pub encode_limit: Share,
    pub decode: Vec<Share>,
    pub decode_limit: Share,
    /// MiB promised to sessions, and the most that may be.
    pub vram: u32,
    pub vram_limit: u32,
    /// Encoding sessions promised here.
    pub encoding_sessions: u32,
    /// Encoding sessions that its host still takes; None: no cap.
    pub host_sessions_left: Option<u32>,
    /// Ladders, in the order of their coming.
    pub sessions: Vec<SessionId>,
}

/// Where one session's work is promised; what the checker judges.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SeatView {
    pub session: SessionId,
    pub device: DeviceId,
    pub demand: Arc<Demand>,
    pub software: bool,
    /// Decoder engine.
    pub decoder: u8,
    /// Encoder engine and its share, one for each rung.
    pub encoders: Vec<(u8, Share)>,
    /// The seat that a migrating session still holds on the device it leaves.
    pub leaving: bool,
}

#[derive(Clone, Debug)]
struct Session {
    demand: Arc<Demand>,
    software: bool,
    stay: Stay,
    /// Since when it has its present seat.
    since: At,
    seat: Seat,
    /// The old seat, while it migrates, and why it does.
    leaving: Option<Seat>,
    moves: Option<MoveReason>,
}

#[derive(Clone, Debug, Default)]
struct DeviceState {
    draining: bool,
    /// Drained because it is lost.
    lost: bool,
    sessions: Vec<SessionId>,
    /// Of which are here to stay.
    long: u32,
    /// Of which are moving away.
    leaving: usize,
    /// Encoding sessions of other programs.
    foreign: u32,
}

/// The owner of all reservations on a fleet.
#[derive(Clone, Debug)]
pub struct Placer {
    fleet: Fleet,
    settings: Settings,
    rooms: Rooms,
    index: Index,
    devices: Vec<DeviceState>,
    sessions: HashMap<SessionId, Session>,
    kinds: Vec<KindState>,
    history: History,
}

#[derive(Clone, Copy, Debug, Default)]
struct KindState {
    /// Best calibration among its devices, per cent.
    best: u16,
    /// Devices that take sessions.
    takers: usize,
    /// Encoding sessions that the caps of its hosts allow one device, in thousandths; u64::MAX without a cap.
    sessions: u64,
}

/// What a demand takes of each kind, preferred kinds first.
struct Needs {
    order: Vec<(usize, Need)>,
    nearest: Option<Misfit>,
}

impl Placer {
    pub fn new(fleet: Fleet, settings: Settings) -> Result<Self, Vec<FleetFault>> {
        let faults = fleet.faults();
        if !faults.is_empty() {
            return Err(faults);
        }
        let rooms = Rooms::new(&fleet, settings.headroom);
        let index = Index::new(&rooms, fleet.kinds.len(), fleet.hosts.len());
        let kinds = kind_states(&fleet);
        Ok(Self {
            devices: vec![DeviceState::default(); fleet.devices.len()],
            history: History::new(settings.history),
            sessions: HashMap::new(),
            fleet,
            settings,
            rooms,
            index,
            kinds,
        })
    }

    /// Finds a device for the session and reserves what its ladder takes.
    pub fn place(&mut self, now: At, request: &Request) -> Result<Placement, Refusal> {
        let refuse = |cause, lacking| Refusal { session: request.session, cause, lacking };
        let found = if self.sessions.contains_key(&request.session) || self.sessions.len() >= MAX_SESSIONS {
            Err(refuse(Cause::Duplicate, [0; 5]))
        } else {
            let needs = self.needs(&request.demand, request.software);
            self.find(&needs, request.stay, None).map_err(|(cause, lacking)| refuse(cause, lacking))
        };
        match found {
            Err(refusal) => {
                self.history.push(now, Event::Refused(refusal));
                Err(refusal)
            }
            Ok((seat, why)) => {
                self.seat(request.session, request.stay, &seat);
                let demand = Arc::clone(&request.demand);
                let session = Session {
                    demand,
                    software: request.software,
                    stay: request.stay,
                    since: now,
                    seat,
                    leaving: None,
                    moves: None,
                };
                self.sessions.insert(request.session, session);
                let device = device_id(seat.device);
                self.history.push(now, Event::Placed { session: request.session, device, why });
                Ok(Placement { session: request.session, device, why })
            }
        }
    }

    /// Whether [`Placer::place`] would find a device.
    pub fn fits(&self, request: &Request) -> bool {
        !self.sessions.contains_key(&request.session)
            && self.sessions.len() < MAX_SESSIONS
            && self.find(&self.needs(&request.demand, request.software), request.stay, None).is_ok()
    }

    /// Takes back all that a session holds; tells where it was. None: no such session.
    pub fn release(&mut self, session: SessionId) -> Option<DeviceId> {
        let record = self.sessions.remove(&session)?;
        if let Some(old) = &record.leaving {
            self.leave(old.device, false);
            self.unseat(session, record.stay, old);
        }
        self.unseat(session, record.stay, &record.seat);
        Some(device_id(record.seat.device))
    }

    /// Closes a device to new sessions and finds other devices for those it has, the largest first.
    pub fn drain(&mut self, now: At, device: DeviceId) -> Drained {
        let at = place_of(device);
        let Some(state) = self.devices.get_mut(at) else { return Drained::default() };
        if !state.draining {
            state.draining = true;
            self.history.push(now, Event::Draining(device));
            self.count_open(at, false);
        }
        self.refresh(at);
        let mut drained = Drained::default();
        for session in self.largest_first(at) {
            match self.migrate(now, session, MoveReason::Drain) {
                Ok(Some(migration)) => drained.migrations.push(migration),
                Ok(None) => {}
                Err(refusal) => drained.stranded.push(refusal),
            }
        }
        drained
    }

    /// Opens a drained or lost device again.
    pub fn restore(&mut self, now: At, device: DeviceId) {
        let at = place_of(device);
        if let Some(state) = self.devices.get_mut(at).filter(|s| s.draining) {
            (state.draining, state.lost) = (false, false);
            self.history.push(now, Event::Restored(device));
            self.count_open(at, true);
            self.refresh(at);
        }
    }

    /// Finds another device for one session. None: there is no such session, or it is moving already.
    pub fn migrate(&mut self, now: At, session: SessionId, why: MoveReason) -> Result<Option<Migration>, Refusal> {
        let Some(record) = self.sessions.get(&session).filter(|r| r.leaving.is_none()) else { return Ok(None) };
        let from = record.seat.device;
        let needs = self.needs(&record.demand, record.software);
        match self.find(&needs, record.stay, Some(from)) {
            Ok((seat, _)) => Ok(self.start_move(now, session, seat, why)),
            Err((cause, lacking)) => {
                let refusal = Refusal { session, cause, lacking };
                self.history.push(now, Event::Refused(refusal));
                Err(refusal)
            }
        }
    }

    /// Ends a migration: the seat on the device that the session isn't on becomes free.
    pub fn finish(&mut self, session: SessionId, how: Finish) {
        let Some(record) = self.sessions.get_mut(&session) else { return };
        let Some(old) = record.leaving.take() else { return };
        let vacated = match how {
            Finish::Moved => old,
            Finish::Stayed => std::mem::replace(&mut record.seat, old),
        };
        let stay = record.stay;
        self.leave(old.device, false);
        self.unseat(session, stay, &vacated);
    }

    /// Starts at most `budget` migrations that leave fewer devices in use, now or later: empties the devices that are cheapest
    /// to empty, then moves sessions from the emptiest devices to fuller ones. Only devices in use take sessions over. Takes
    /// milliseconds on thousands of devices, so it belongs on a timer, not on the way of a publisher.
    pub fn defragment(&mut self, now: At, budget: usize) -> Vec<Migration> {
        let mut migrations = Vec::new();
        let mut fruitless = Vec::new();
        while fruitless.len() < FRUITLESS {
            let Some(device) = self.cheapest_to_empty(budget.saturating_sub(migrations.len()), &fruitless) else {
                break;
            };
            match self.empty(now, device) {
                Some(moved) => migrations.extend(moved),
                None => fruitless.push(device),
            }
        }
        self.pack(now, budget, &mut migrations);
        migrations
    }

    /// Takes a measurement. What it shows beyond the reservations of the sessions in it counts as in use by others until the
    /// next one; less than reserved frees nothing, because a quiet moment is no capacity. Returns what the device has now
    /// promised beyond its limits; the caller may migrate or shed.
    pub fn report(&mut self, now: At, device: DeviceId, load: &Load) -> Vec<Dimension> {
        let at = place_of(device);
        let (Some(state), Some(unit)) = (self.devices.get_mut(at), self.fleet.devices.get(at)) else {
            return Vec::new();
        };
        let Some(kind) = self.fleet.kinds.get(usize::from(unit.kind)) else { return Vec::new() };
        let (mut encode, mut decode, mut vram, mut sessions) = (0u64, 0u64, 0u32, 0u32);
        for id in &state.sessions {
            let Some(record) = self.sessions.get(id) else { continue };
            for seat in [Some(&record.seat), record.leaving.as_ref()].into_iter().flatten() {
                // A migrating session's old seat is measured as long as it is held.
                if seat.device == at && (record.since <= load.as_of || record.seat.device != at) {
                    encode += u64::from(seat.need.encode_total);
                    decode += u64::from(seat.need.decode);
                    vram += seat.need.vram;
                    sessions += u32::from(seat.need.sessions);
                }
            }
        }
        let foreign = load.sessions.saturating_sub(sessions);
        let change = i64::from(foreign) - i64::from(std::mem::replace(&mut state.foreign, foreign));
        let percent = u32::from(unit.calibration) * u32::from(load.speed.min(100)) / 100;
        let engine = engine_limit(self.settings.headroom, percent);
        // Shares are of the table's speed, busy time is of the present speed.
        let surplus = |busy: Share, reserved: u64, engines: usize| {
            let engines = engines as u64;
            let measured = u64::from(busy) * u64::from(percent) / 100 * engines;
            let each = measured.saturating_sub(reserved).div_ceil(engines.max(1));
            Share::try_from(each).unwrap_or(Share::MAX)
        };
        let others = load.vram.saturating_sub(vram.saturating_add(self.settings.headroom.context));
        let vram_limit = vram_limit(self.settings.headroom, kind.vram).saturating_sub(others);
        let mut beyond = Vec::new();
        let consumer_host = self.rooms.alter(at, |room| {
            room.encode_limit = engine.saturating_sub(surplus(load.encode, encode, room.encode().len()));
            room.decode_limit = engine.saturating_sub(surplus(load.decode, decode, room.decode().len()));
            room.vram_limit = vram_limit;
            let over = |loads: &[Share], limit: Share| loads.iter().any(|l| *l > limit);
            if over(room.decode(), room.decode_limit) {
                beyond.push(Dimension::Decode);
            }
            if over(room.encode(), room.encode_limit) {
                beyond.push(Dimension::Encode);
            }
            if room.vram > room.vram_limit {
                beyond.push(Dimension::Vram);
            }
            room.consumer.then_some(room.host)
        });
        if let Some(host) = consumer_host.flatten() {
            self.rooms.foreign_sessions(host, change);
        }
        self.refresh(at);
        for dimension in &beyond {
            self.history.push(now, Event::OverBudget(device, *dimension));
        }
        beyond
    }

    /// Devices with at least one ladder.
    pub fn in_use(&self) -> usize {
        self.rooms.totals.devices()
    }

    pub(crate) fn totals(&self) -> &Totals {
        &self.rooms.totals
    }

    /// Sessions placed.
    pub fn live(&self) -> usize {
        self.sessions.len()
    }

    /// Where a session is placed; while it migrates, the device that it goes to.
    pub fn device_of(&self, session: SessionId) -> Option<DeviceId> {
        Some(device_id(self.sessions.get(&session)?.seat.device))
    }

    /// Whether a session moves and [`Placer::finish`] is awaited.
    pub fn is_moving(&self, session: SessionId) -> bool {
        self.sessions.get(&session).is_some_and(|r| r.leaving.is_some())
    }

    /// The same for one reason.
    pub fn is_moving_for(&self, session: SessionId, why: MoveReason) -> bool {
        self.sessions.get(&session).is_some_and(|r| r.leaving.is_some() && r.moves == Some(why))
    }

    pub fn fleet(&self) -> &Fleet {
        &self.fleet
    }

    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    pub fn history(&self) -> &History {
        &self.history
    }

    /// All devices, in the fleet's order.
    pub fn snapshot(&self) -> Vec<DeviceView> {
        (0..self.devices.len()).filter_map(|at| self.view(device_id(at))).collect()
    }

    /// None: there is no such device.
    pub fn view(&self, device: DeviceId) -> Option<DeviceView> {
        let at = place_of(device);
        let (unit, room, state) = (self.fleet.devices.get(at)?, self.rooms.rooms.get(at)?, self.devices.get(at)?);
        let left = self.rooms.sessions_free(room);
        Some(DeviceView {
            device,
            kind: unit.kind,
            host: unit.host,
            draining: state.draining,
            lost: state.lost,
            foreign_sessions: state.foreign,
            encode: room.encode().to_vec(),
            encode_limit: room.encode_limit,
            decode: room.decode().to_vec(),
            decode_limit: room.decode_limit,
            vram: room.vram,
            vram_limit: room.vram_limit,
            encoding_sessions: room.sessions,
            host_sessions_left: (left != u32::MAX).then_some(left),
            sessions: state.sessions.clone(),
        })
    }

    /// All seats, by session; a migrating session has two.
    pub fn seats(&self) -> Vec<SeatView> {
        let mut seats: Vec<_> = self
            .sessions
            .iter()
            .flat_map(|(id, s)| {
                let view = |seat: &Seat, leaving| SeatView {
                    session: *id,
                    device: device_id(seat.device),
                    demand: Arc::clone(&s.demand),
                    software: s.software,
                    decoder: seat.decoder,
                    encoders: seat.encoders.iter().copied().zip(seat.need.rungs().iter().copied()).collect(),
                    leaving,
                };
                [Some(view(&s.seat, false)), s.leaving.as_ref().map(|old| view(old, true))]
            })
            .flatten()
            .collect();
        seats.sort_unstable_by_key(|s| (s.session, s.leaving));
        seats
    }

    fn needs(&self, demand: &Demand, software: bool) -> Needs {
        let mut ranked = Vec::with_capacity(self.fleet.kinds.len());
        let mut nearest = None;
        for (n, (kind, state)) in self.fleet.kinds.iter().zip(&self.kinds).enumerate() {
            if state.takers == 0 {
                continue;
            }
            let limit = u64::from(engine_limit(self.settings.headroom, u32::from(state.best)));
            let fitting = Need::of(demand, kind, software).and_then(|need| {
                let vram = u64::from(vram_limit(self.settings.headroom, kind.vram));
                let engines = (u64::from(kind.encode_engines), u64::from(kind.decode_engines));
                let sessions = state.sessions / u64::from(need.sessions.max(1));
                Ok((holds(&need, limit, engines, vram)?.min(sessions), n, need))
            });
            match fitting {
                Ok(fitting) => ranked.push(fitting),
                Err(misfit) => nearest = nearest.max(Some(misfit)),
            }
        }
        ranked.sort_by_key(|(holds, n, _)| (std::cmp::Reverse(*holds), *n));
        Needs { order: ranked.into_iter().map(|(_, n, need)| (n, need)).collect(), nearest }
    }

    /// A seat by the policy; `from` is the device that the session is on and must leave.
    fn find(&self, needs: &Needs, stay: Stay, from: Option<usize>) -> Result<(Seat, Why), (Cause, [u32; 5])> {
        let found = match self.settings.policy {
            Policy::Consolidate => self.first(needs, stay, from, true),
            Policy::Spread => self.most_room(needs, from),
        };
        found.map_or_else(|| self.anywhere(needs, from), Ok)
    }

    fn first(&self, needs: &Needs, stay: Stay, from: Option<usize>, idle: bool) -> Option<(Seat, Why)> {
        // Sessions that stay keep a device in use whatever leaves it, so they share devices with their like first.
        let sides = match stay {
            Stay::Short => [Side::Short, Side::Long, Side::Idle],
            Stay::Long => [Side::Long, Side::Short, Side::Idle],
        };
        for side in sides.into_iter().filter(|s| idle || *s != Side::Idle) {
            for (kind, need) in &needs.order {
                let shelf = self.index.shelves.get(*kind)?;
                let near = shelf.with_room(side, need.encode_total).take(PROBES).filter(|d| Some(*d) != from);
                if let Some(seat) = self.tightest(near, need) {
                    return Some((seat, if side == Side::Idle { Why::Opened } else { Why::InUse }));
                }
            }
        }
        None
    }

    /// Of the first few devices that fit, the one with the least encoder room left.
    fn tightest(&self, near: impl Iterator<Item = usize>, need: &Need) -> Option<Seat> {
        let seats = near.filter_map(|d| self.rooms.fit(d, need).ok()).take(CHOICE);
        seats.min_by_key(|s| self.rooms.rooms.get(s.device).map(Room::encode_free))
    }

    fn most_room(&self, needs: &Needs, from: Option<usize>) -> Option<(Seat, Why)> {
        let mut best: Option<(u64, Seat)> = None;
        for (kind, need) in &needs.order {
            let shelf = self.index.shelves.get(*kind)?;
            let near = [Side::Idle, Side::Short, Side::Long].into_iter().flat_map(|side| {
                let emptiest = shelf.most_room(side).max(need.encode_total);
                let next = shelf.with_room(side, need.encode_total).take(PROBES);
                shelf.with_room(side, emptiest).take(PROBES).chain(next)
            });
            let seat = near.filter(|d| Some(*d) != from).find_map(|d| self.rooms.fit(d, need).ok());
            let Some((seat, room)) = seat.and_then(|s| Some((s, self.rooms.rooms.get(s.device)?))) else { continue };
            let after = fullness_after(room, need);
            if best.as_ref().is_none_or(|(least, _)| after < *least) {
                best = Some((after, seat));
            }
        }
        best.map(|(_, seat)| (seat, Why::MostRoom))
    }

    /// Looks at every device that is filed with enough room; counts what the others lack.
    fn anywhere(&self, needs: &Needs, from: Option<usize>) -> Result<(Seat, Why), (Cause, [u32; 5])> {
        if needs.order.is_empty() {
            return Err((needs.nearest.map_or(Cause::NoDevice, Cause::Never), [0; 5]));
        }
        let mut lacking = [0u32; 5];
        for (kind, need) in &needs.order {
            let Some(shelf) = self.index.shelves.get(*kind) else { continue };
            let mut looked_at = 0;
            let sides = [
                (Side::Short, Why::InUse),
                (Side::Long, Why::InUse),
                (Side::Idle, Why::Opened),
                (Side::Leaving, Why::InUse),
            ];
            for (device, why) in
                sides.iter().flat_map(|(s, why)| shelf.with_room(*s, need.encode_total).map(|d| (d, *why)))
            {
                looked_at += 1;
                match self.rooms.fit(device, need) {
                    _ if Some(device) == from => {}
                    Ok(seat) => return Ok((seat, why)),
                    Err(dimension) => add(&mut lacking, dimension, 1),
                }
            }
            let without = shelf.filed.saturating_sub(looked_at);
            add(&mut lacking, Dimension::Encode, u32::try_from(without).unwrap_or(u32::MAX));
        }
        let most = Dimension::ALL.iter().zip(lacking).max_by_key(|(d, n)| (*n, std::cmp::Reverse(**d)));
        Err((most.map_or(Cause::NoDevice, |(dimension, _)| Cause::Full(*dimension)), lacking))
    }

    fn seat(&mut self, session: SessionId, stay: Stay, seat: &Seat) {
        self.rooms.take(seat);
        if let Some(state) = self.devices.get_mut(seat.device) {
            state.long += u32::from(stay == Stay::Long);
            state.sessions.push(session);
        }
        self.refresh(seat.device);
    }

    fn unseat(&mut self, session: SessionId, stay: Stay, seat: &Seat) {
        self.rooms.give_back(seat);
        if let Some(state) = self.devices.get_mut(seat.device) {
            state.long = state.long.saturating_sub(u32::from(stay == Stay::Long));
            state.sessions.retain(|s| *s != session);
        }
        self.refresh(seat.device);
    }

    /// A session of this device has begun or ended to move away.
    fn leave(&mut self, device: usize, begins: bool) {
        if let Some(state) = self.devices.get_mut(device) {
            state.leaving = if begins { state.leaving + 1 } else { state.leaving.saturating_sub(1) };
        }
        self.refresh(device);
    }

    fn refresh(&mut self, device: usize) {
        let devices = &self.devices;
        self.index.refresh(&self.rooms, device, |d| match devices.get(d) {
            Some(state) if state.draining => None,
            Some(state) if state.sessions.is_empty() => Some(Side::Idle),
            Some(state) if state.leaving == state.sessions.len() => Some(Side::Leaving),
            Some(state) if state.long > 0 => Some(Side::Long),
            _ => Some(Side::Short),
        });
    }

    /// Keeps count of the devices of a kind that take sessions.
    fn count_open(&mut self, device: usize, opens: bool) {
        let kind = self.fleet.devices.get(device).map(|d| usize::from(d.kind));
        if let Some(state) = kind.and_then(|k| self.kinds.get_mut(k)) {
            state.takers = if opens { state.takers + 1 } else { state.takers.saturating_sub(1) };
        }
    }

    fn start_move(&mut self, now: At, session: SessionId, seat: Seat, why: MoveReason) -> Option<Migration> {
        let record = self.sessions.get_mut(&session)?;
        let old = std::mem::replace(&mut record.seat, seat);
        (record.leaving, record.moves) = (Some(old), Some(why));
        let stay = record.stay;
        record.since = now;
        let (from, to) = (device_id(old.device), device_id(seat.device));
        self.leave(old.device, true);
        self.seat(session, stay, &seat);
        self.history.push(now, Event::Moving { session, from, to, why });
        Some(Migration { session, from, to, why })
    }

    /// Sessions of a device that aren't moving, those with the most encoding first.
    fn largest_first(&self, device: usize) -> Vec<SessionId> {
        let all = self.devices.get(device).map(|s| s.sessions.as_slice()).unwrap_or_default();
        let mut sessions: Vec<_> = all
            .iter()
            .filter_map(|id| Some((self.sessions.get(id)?, *id)))
            .filter(|(r, _)| r.leaving.is_none() && r.seat.device == device)
            .map(|(r, id)| (std::cmp::Reverse(r.seat.need.encode_total), id))
            .collect();
        sessions.sort_unstable();
        sessions.into_iter().map(|(_, id)| id).collect()
    }

    /// The device in use with the fewest sessions, at most `budget`, among the emptiest of each kind.
    fn cheapest_to_empty(&self, budget: usize, without: &[usize]) -> Option<usize> {
        self.index
            .shelves
            .iter()
            .flat_map(|s| s.open_backwards().filter(|d| !without.contains(d)).take(FRUITLESS))
            .filter_map(|d| Some((self.devices.get(d)?.sessions.len(), d)))
            .filter(|(n, _)| *n <= budget)
            .min()
            .map(|(_, d)| d)
    }

    /// Moves sessions from the emptiest devices to fuller ones, whatever their kinds: the emptiest then need fewer migrations
    /// to be emptied, and gaps on small devices are filled while large ones keep room for what only they take. Looks at all
    /// devices in use, once a call.
    fn pack(&mut self, now: At, budget: usize, migrations: &mut Vec<Migration>) {
        let mut tries = budget.saturating_sub(migrations.len()).saturating_mul(TRIES);
        let fullness = |d: usize| self.rooms.rooms.get(d).map_or(0, Room::fullness);
        let open = self.index.shelves.iter().flat_map(|shelf| shelf.open_backwards());
        let mut sources: Vec<(u64, usize)> = open.map(|d| (fullness(d), d)).collect();
        sources.sort_unstable();
        for (_, device) in sources {
            for session in self.largest_first(device) {
                if tries == 0 || migrations.len() >= budget {
                    return;
                }
                tries -= 1;
                let Some(record) = self.sessions.get(&session) else { continue };
                let needs = self.needs(&record.demand, record.software);
                if let Some(seat) = self.fuller(&needs, device) {
                    migrations.extend(self.start_move(now, session, seat, MoveReason::Defragment));
                }
            }
        }
    }

    /// A seat on a device in use that is fuller than this one: the one that it leaves fullest.
    fn fuller(&self, needs: &Needs, device: usize) -> Option<Seat> {
        let from = self.rooms.rooms.get(device)?.fullness();
        let mut best: Option<(u64, Seat)> = None;
        for (kind, need) in &needs.order {
            let shelf = self.index.shelves.get(*kind)?;
            for side in [Side::Long, Side::Short] {
                for d in shelf.with_room(side, need.encode_total).take(PROBES).filter(|d| *d != device) {
                    let Some(room) = self.rooms.rooms.get(d) else { continue };
                    let after = fullness_after(room, need);
                    if room.fullness() <= from || best.as_ref().is_some_and(|(most, _)| after <= *most) {
                        continue;
                    }
                    if let Ok(seat) = self.rooms.fit(d, need) {
                        best = Some((after, seat));
                    }
                }
            }
        }
        best.map(|(_, seat)| seat)
    }

    /// Starts to move all sessions of a device to others in use; all or none.
    fn empty(&mut self, now: At, device: usize) -> Option<Vec<Migration>> {
        let sessions = self.largest_first(device);
        let all = self.devices.get(device).map_or(0, |s| s.sessions.len());
        if sessions.len() < all {
            return None;
        }
        let in_use = |placer: &Self, needs: &Needs, stay: Stay| Some(placer.first(needs, stay, Some(device), false)?.0);
        let seats = self.seats_elsewhere(&sessions, in_use)?.into_iter();
        Some(seats.filter_map(|(id, seat)| self.start_move(now, id, seat, MoveReason::Defragment)).collect())
    }
}

fn kind_states(fleet: &Fleet) -> Vec<KindState> {
    let mut cards = vec![0u64; fleet.hosts.len()];
    let consumer = |d: &Device| fleet.kinds.get(usize::from(d.kind)).is_some_and(|k| k.consumer);
    let host = |d: &Device| usize::try_from(d.host).unwrap_or(usize::MAX);
    for device in fleet.devices.iter().filter(|d| consumer(d)) {
        if let Some(n) = cards.get_mut(host(device)) {
            *n += 1;
        }
    }
    let mut kinds = vec![KindState::default(); fleet.kinds.len()];
    for device in &fleet.devices {
        let Some(state) = kinds.get_mut(usize::from(device.kind)) else { continue };
        let cap = fleet.hosts.get(host(device)).and_then(|h| h.consumer_sessions).filter(|_| consumer(device));
        let cards = cards.get(host(device)).copied().unwrap_or(1).max(1);
        state.best = device.calibration.max(state.best);
        state.takers += 1;
        state.sessions = state.sessions.max(cap.map_or(u64::MAX, |cap| u64::from(cap) * 1000 / cards));
    }
    kinds
}

/// How many thousandths of such a ladder an empty device holds, or why not one.
fn holds(need: &Need, limit: u64, engines: (u64, u64), vram: u64) -> Result<u64, Misfit> {
    if u64::from(need.decode) > limit {
        return Err(Misfit::SourceAboveEngine);
    }
    if need.rungs().first().is_some_and(|largest| u64::from(*largest) > limit) {
        return Err(Misfit::RungAboveEngine);
    }
    let part = |have: u64, want: u64| have.saturating_mul(1000).checked_div(want).unwrap_or(u64::MAX);
    let encode = part(limit * engines.0, need.encode_total.into());
    let decode = part(limit * engines.1, need.decode.into());
    let holds = encode.min(decode).min(part(vram, need.vram.into()));
    if holds < 1000 { Err(Misfit::AboveDevice) } else { Ok(holds) }
}

fn fullness_after(room: &Room, need: &Need) -> u64 {
    // The exact engine doesn't matter for the comparison of devices: the totals do.
    let part = |used: u64, limit: u64| (used * 1_000_000).checked_div(limit).unwrap_or_default();
    let engines = room.encode().len() as u64 * u64::from(room.encode_limit);
    let used = engines.saturating_sub(room.encode_free().into()) + u64::from(need.encode_total);
    room.fullness().max(part(used, engines))
}

fn add(lacking: &mut [u32; 5], dimension: Dimension, n: u32) {
    if let Some(count) = lacking.get_mut(dimension as usize) {
        *count = count.saturating_add(n);
    }
}

fn place_of(device: DeviceId) -> usize {
    usize::try_from(device.0).unwrap_or(usize::MAX)
}

fn device_id(place: usize) -> DeviceId {
    DeviceId(u32::try_from(place).unwrap_or(u32::MAX))
}
