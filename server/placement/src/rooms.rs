//! What is left on each device: limits, reservations, and whether a need fits.
use crate::cost::Need;
use crate::device::{Device, Fleet, Host, MAX_ENGINES, Share, WHOLE};
use crate::engines::{self, Engines};

/// How much of a device may be promised.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Headroom {
    /// Per cent of each engine.
    pub engines: u8,
    /// Per cent of the memory.
    pub vram: u8,
    /// MiB of memory that a worker process takes before its first session.
    pub context: u32,
}

impl Default for Headroom {
    fn default() -> Self {
        Self { engines: 90, vram: 80, context: 400 }
    }
}

/// What a device ran out of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Dimension {
    Decode,
    Encode,
    /// The engines have room enough together, but no engine has it for one of the rungs.
    EngineFragments,
    Vram,
    /// The host's cap on consumer cards' sessions.
    Sessions,
}

impl Dimension {
    pub const ALL: [Self; 5] = [Self::Decode, Self::Encode, Self::EngineFragments, Self::Vram, Self::Sessions];

    pub fn name(self) -> &'static str {
        match self {
            Self::Decode => "decode",
            Self::Encode => "encode",
            Self::EngineFragments => "engine fragments",
            Self::Vram => "vram",
            Self::Sessions => "sessions",
        }
    }
}

/// Where a ladder sits.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Seat {
    pub device: usize,
    pub need: Need,
    pub decoder: u8,
    pub encoders: Engines,
}

/// One device's limits and what is promised of it.
#[derive(Clone, Debug)]
pub(crate) struct Room {
    pub kind: usize,
    pub host: usize,
    pub consumer: bool,
    /// For each engine, measured surplus taken off.
    pub encode_limit: Share,
    pub decode_limit: Share,
    pub vram_limit: u32,
    encode: [Share; MAX_ENGINES],
    decode: [Share; MAX_ENGINES],
    encode_engines: usize,
    decode_engines: usize,
    pub vram: u32,
    pub sessions: u32,
    /// Ladders seated here.
    pub ladders: u32,
}

impl Room {
    pub fn encode(&self) -> &[Share] {
        self.encode.get(..self.encode_engines).unwrap_or(&[])
    }

    pub fn decode(&self) -> &[Share] {
        self.decode.get(..self.decode_engines).unwrap_or(&[])
    }

    /// Room left on all encoder engines together.
    pub fn encode_free(&self) -> Share {
        self.encode().iter().map(|l| self.encode_limit.saturating_sub(*l)).sum()
    }

    /// The fullest of engines and memory, in millionths of its limit.
    pub fn fullness(&self) -> u64 {
        let part = |used: u64, limit: u64| (used * u64::from(WHOLE)).checked_div(limit).unwrap_or_default();
        let sum = |loads: &[Share]| loads.iter().copied().map(u64::from).sum::<u64>();
        let engines = |loads: &[Share], limit: Share| part(sum(loads), u64::from(limit) * loads.len() as u64);
        engines(self.encode(), self.encode_limit)
            .max(engines(self.decode(), self.decode_limit))
            .max(part(u64::from(self.vram), u64::from(self.vram_limit)))
    }
}

/// All devices' rooms.
#[derive(Clone, Debug)]
pub(crate) struct Rooms {
    pub rooms: Vec<Room>,
    hosts: Vec<HostRoom>,
    pub totals: Totals,
}

/// Sums over the devices with at least one ladder.
#[derive(Clone, Debug, Default)]
pub(crate) struct Totals {
    /// How many, by kind.
    pub in_use: Vec<usize>,
    /// Shares of encoder engines: promised, and the limits' sum.
    pub encode: (u64, u64),
    pub decode: (u64, u64),
    /// MiB.
    pub vram: (u64, u64),
}

impl Totals {
    pub fn devices(&self) -> usize {
        self.in_use.iter().sum()
    }

    fn add(&mut self, room: &Room) {
        self.change(room, u64::saturating_add);
        if let Some(n) = self.in_use.get_mut(room.kind) {
            *n += 1;
        }
    }

    fn remove(&mut self, room: &Room) {
        self.change(room, u64::saturating_sub);
        if let Some(n) = self.in_use.get_mut(room.kind) {
            *n = n.saturating_sub(1);
        }
    }

    fn change(&mut self, room: &Room, op: fn(u64, u64) -> u64) {
        let sum = |loads: &[Share]| loads.iter().copied().map(u64::from).sum::<u64>();
        let limit = |loads: &[Share], limit: Share| loads.len() as u64 * u64::from(limit);
        let encode = (sum(room.encode()), limit(room.encode(), room.encode_limit));
        let decode = (sum(room.decode()), limit(room.decode(), room.decode_limit));
        let vram = (u64::from(room.vram), u64::from(room.vram_limit));
        for (total, part) in [(&mut self.encode, encode), (&mut self.decode, decode), (&mut self.vram, vram)] {
            *total = (op(total.0, part.0), op(total.1, part.1));
        }
    }
}

#[derive(Clone, Copy, Debug)]
struct HostRoom {
    cap: Option<u32>,
    sessions: u32,
}

impl Rooms {
    /// The fleet must be without faults.
    pub fn new(fleet: &Fleet, headroom: Headroom) -> Self {
        let room = |device: &Device| {
            let kind = fleet.kinds.get(usize::from(device.kind))?;
            let limit = engine_limit(headroom, u32::from(device.calibration));
            Some(Room {
                kind: usize::from(device.kind),
                host: usize::try_from(device.host).ok()?,
                consumer: kind.consumer,
                encode_limit: limit,
                decode_limit: limit,
                vram_limit: vram_limit(headroom, kind.vram),
                encode: [0; MAX_ENGINES],
                decode: [0; MAX_ENGINES],
                encode_engines: usize::from(kind.encode_engines),
                decode_engines: usize::from(kind.decode_engines),
                vram: 0,
                sessions: 0,
                ladders: 0,
            })
        };
        let host = |h: &Host| HostRoom { cap: h.consumer_sessions, sessions: 0 };
        Self {
            rooms: fleet.devices.iter().filter_map(room).collect(),
            hosts: fleet.hosts.iter().map(host).collect(),
            totals: Totals { in_use: vec![0; fleet.kinds.len()], ..Totals::default() },
        }
    }

    /// Sessions that the host of this device still takes; u32::MAX where it has no cap.
    pub fn sessions_free(&self, room: &Room) -> u32 {
        match self.hosts.get(room.host) {
            Some(HostRoom { cap: Some(cap), sessions }) if room.consumer => cap.saturating_sub(*sessions),
            _ => u32::MAX,
        }
    }

    /// Counts sessions that others opened on the host's consumer cards (or, negative, closed).
    pub fn foreign_sessions(&mut self, host: usize, change: i64) {
        if let Some(host) = self.hosts.get_mut(host) {
            let sessions = (i64::from(host.sessions) + change).clamp(0, i64::from(u32::MAX));
            host.sessions = u32::try_from(sessions).unwrap_or(u32::MAX);
        }
    }

    /// A seat on the device, or what it lacks.
    pub fn fit(&self, device: usize, need: &Need) -> Result<Seat, Dimension> {
        let room = self.rooms.get(device).ok_or(Dimension::Encode)?;
        if room.encode_free() < need.encode_total {
            return Err(Dimension::Encode);
        }
        if u32::from(need.sessions) > self.sessions_free(room) {
            return Err(Dimension::Sessions);
        }
        if room.vram_limit.saturating_sub(room.vram) < need.vram {
            return Err(Dimension::Vram);
        }
        let decoder = engines::assign(room.decode(), room.decode_limit, &[need.decode]).ok_or(Dimension::Decode)?;
        let encoders =
            engines::assign(room.encode(), room.encode_limit, need.rungs()).ok_or(Dimension::EngineFragments)?;
        Ok(Seat { device, need: *need, decoder: decoder.first().copied().unwrap_or_default(), encoders })
    }

    pub fn take(&mut self, seat: &Seat) {
        self.change(seat, u32::saturating_add);
    }

    pub fn give_back(&mut self, seat: &Seat) {
        self.change(seat, u32::saturating_sub);
    }

    fn change(&mut self, seat: &Seat, op: fn(u32, u32) -> u32) {
        let sessions = u32::from(seat.need.sessions);
        let Some(host) = self.alter(seat.device, |room| {
            for (share, engine) in seat.need.rungs().iter().zip(seat.encoders) {
                if let Some(load) = room.encode.get_mut(usize::from(engine)) {
                    *load = op(*load, *share);
                }
            }
            if let Some(load) = room.decode.get_mut(usize::from(seat.decoder)) {
                *load = op(*load, seat.need.decode);
            }
            room.vram = op(room.vram, seat.need.vram);
            room.sessions = op(room.sessions, sessions);
            room.ladders = op(room.ladders, 1);
            room.consumer.then_some(room.host)
        }) else {
            return;
        };
        if let Some(host) = host.and_then(|h| self.hosts.get_mut(h)) {
            host.sessions = op(host.sessions, sessions);
        }
    }

    /// Changes a room and keeps the totals in step. None: no such device.
    pub fn alter<T>(&mut self, device: usize, change: impl FnOnce(&mut Room) -> T) -> Option<T> {
        let room = self.rooms.get_mut(device)?;
        if room.ladders > 0 {
            self.totals.remove(room);
        }
        let result = change(room);
        if room.ladders > 0 {
            self.totals.add(room);
        }
        Some(result)
    }
}

/// What one engine may bear at `percent` of its kind's speed.
pub(crate) fn engine_limit(headroom: Headroom, percent: u32) -> Share {
    WHOLE / 100 * u32::from(headroom.engines.min(100)) / 100 * percent.min(1000)
}

/// MiB that sessions may take of `total`.
pub(crate) fn vram_limit(headroom: Headroom, total: u32) -> u32 {
    let part = u64::from(total) * u64::from(headroom.vram.min(100)) / 100;
    u32::try_from(part).unwrap_or(u32::MAX).saturating_sub(headroom.context)
}
