//! Devices as data: what a kind of GPU can decode and encode, and which devices a fleet has.
use std::collections::BTreeSet;

/// Most engines of one sort on one device (Hopper has seven decoders).
pub const MAX_ENGINES: usize = 8;
/// Most kinds in one fleet; a decision looks at each of them once.
pub const MAX_KINDS: usize = 64;
/// Most devices in one fleet.
pub const MAX_DEVICES: usize = 100_000;
/// One engine's whole time, in the unit of [`Share`]. Integers, so that what is added can be taken away again exactly.
pub const WHOLE: u32 = 1_000_000;

/// Millionths of one engine's time.
pub type Share = u32;

/// Luma pixels a second.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PixelRate(pub u64);

impl PixelRate {
    pub const fn megapixels(mp: u64) -> Self {
        Self(mp * 1_000_000)
    }

    /// The share of an engine of speed `of` that this rate takes, rounded up; None where the engine can't do it at all.
    pub fn share(self, of: PixelRate) -> Option<u64> {
        if of.0 == 0 {
            return None;
        }
        u64::try_from((u128::from(self.0) * u128::from(WHOLE)).div_ceil(u128::from(of.0))).ok()
    }
}

/// What an encoder makes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Codec {
    H264,
    H265,
    Av1,
}

impl Codec {
    pub const ALL: [Self; 3] = [Self::H264, Self::H265, Self::Av1];

    pub fn name(self) -> &'static str {
        match self {
            Self::H264 => "h264",
            Self::H265 => "h265",
            Self::Av1 => "av1",
        }
    }
}

/// What a decoder takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SourceCodec {
    H264,
    H265,
    H265TenBit,
    Vp9,
    Av1,
}

impl SourceCodec {
    pub const ALL: [Self; 5] = [Self::H264, Self::H265, Self::H265TenBit, Self::Vp9, Self::Av1];

    pub fn name(self) -> &'static str {
        match self {
            Self::H264 => "h264",
            Self::H265 => "h265",
            Self::H265TenBit => "h265-10",
            Self::Vp9 => "vp9",
            Self::Av1 => "av1",
        }
    }
}

/// NVENC's preset: p1 is the fastest, p7 the slowest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Preset(u8);

impl Preset {
    pub const COUNT: usize = 7;

    /// From 1 to 7.
    pub fn new(p: u8) -> Option<Self> {
        (1..=7).contains(&p).then_some(Self(p))
    }

    pub fn number(self) -> u8 {
        self.0
    }
}

/// One encoder engine's speed for each codec and preset at this kind's clock; zero: it can't.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct EncodeRates(pub [[PixelRate; Preset::COUNT]; 3]);

impl EncodeRates {
    pub fn of(&self, codec: Codec, preset: Preset) -> PixelRate {
        let row = self.0.get(codec as usize).copied().unwrap_or_default();
        row.get(usize::from(preset.0) - 1).copied().unwrap_or_default()
    }

    /// The same speed for the given codecs at all presets: simulated devices, and encoders that know no presets.
    pub fn flat(codecs: &[Codec], rate: PixelRate) -> Self {
        Self(Codec::ALL.map(|c| if codecs.contains(&c) { [rate; Preset::COUNT] } else { Default::default() }))
    }
}

/// One decoder engine's speed for each codec, in the order of [`SourceCodec::ALL`]; zero: it can't.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct DecodeRates(pub [PixelRate; 5]);

impl DecodeRates {
    pub fn of(&self, codec: SourceCodec) -> PixelRate {
        self.0.get(codec as usize).copied().unwrap_or_default()
    }

    pub fn flat(codecs: &[SourceCodec], rate: PixelRate) -> Self {
        Self(SourceCodec::ALL.map(|c| if codecs.contains(&c) { rate } else { PixelRate(0) }))
    }
}

/// What does a device's encoding.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum EncoderKind {
    /// Nothing: it decodes and scales only (A100, H100, H200).
    None,
    /// The device's own engines.
    Hardware,
    /// The host's processor, with a share of it set aside for this device; taken only by ladders that allow it.
    Software,
}

/// Where a figure comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Evidence {
    /// The vendor's documentation.
    Documented,
    /// A public repository or discussion that quotes the vendor or a measurement.
    Reported,
    /// General knowledge, not verified.
    Remembered,
    /// Computed or assumed.
    Estimated,
    /// Given by the operator.
    Declared,
}

impl Evidence {
    /// The mark in tables.
    pub fn mark(self) -> char {
        match self {
            Self::Documented => 'D',
            Self::Reported => 'R',
            Self::Remembered => 'M',
            Self::Estimated => 'E',
            Self::Declared => 'O',
        }
    }
}

/// The evidence for a kind's figures.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Evidences {
    pub engines: Evidence,
    pub speed: Evidence,
    pub vram: Evidence,
}

/// A kind of device: all its devices can do the same, calibration and derating apart.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct DeviceKind {
    pub name: String,
    pub encoder: EncoderKind,
    /// At most [`MAX_ENGINES`].
    pub encode_engines: u8,
    pub encode: EncodeRates,
    /// At most [`MAX_ENGINES`].
    pub decode_engines: u8,
    pub decode: DecodeRates,
    /// MiB.
    pub vram: u32,
    /// Its encoding sessions count against the host's cap (GeForce).
    pub consumer: bool,
    pub evidence: Evidences,
}

impl DeviceKind {
    /// The same device with encoding on the processor: `engines` groups of cores that each encode at `rate`.
    pub fn with_software_encoder(mut self, engines: u8, rate: PixelRate) -> Self {
        self.name.push_str("+cpu");
        self.encoder = EncoderKind::Software;
        self.encode_engines = engines;
        self.encode = EncodeRates::flat(&[Codec::H264], rate);
        self.consumer = false;
        self
    }
}

/// A device's number within its fleet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DeviceId(pub u32);

/// One device of a fleet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Device {
    /// Index into [`Fleet::kinds`].
    pub kind: u16,
    /// Index into [`Fleet::hosts`].
    pub host: u32,
    /// Speed of its engines as calibrated here, per cent of its kind's table; 100 without calibration.
    pub calibration: u16,
}

/// A machine with devices.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Host {
    /// Encoding sessions of all its consumer cards together, as the driver enforces it; None: no cap.
    pub consumer_sessions: Option<u32>,
}

/// All devices that a placer may use.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Fleet {
    pub kinds: Vec<DeviceKind>,
    pub hosts: Vec<Host>,
    /// A device's number is its place here.
    pub devices: Vec<Device>,
}

/// Why a fleet can't be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FleetFault {
    TooManyKinds(usize),
    TooManyDevices(usize),
    /// The kind's name; engines of one sort.
    TooManyEngines(String, u8),
    /// The device names a kind that isn't there.
    NoSuchKind(DeviceId),
    NoSuchHost(DeviceId),
    /// Calibration must lie between 1 and 1000 %.
    Calibration(DeviceId, u16),
    /// Two kinds under one name.
    TwoKinds(String),
}

impl std::fmt::Display for FleetFault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::TooManyKinds(n) => write!(f, "{n} kinds of devices; at most {MAX_KINDS}"),
            Self::TooManyDevices(n) => write!(f, "{n} devices; at most {MAX_DEVICES}"),
            Self::TooManyEngines(kind, n) => write!(f, "{kind}: {n} engines of one sort; at most {MAX_ENGINES}"),
            Self::NoSuchKind(d) => write!(f, "device {} is of a kind that isn't listed", d.0),
            Self::NoSuchHost(d) => write!(f, "device {} is in a host that isn't listed", d.0),
            Self::Calibration(d, c) => write!(f, "device {}: calibration {c} %; must be from 1 to 1000", d.0),
            Self::TwoKinds(name) => write!(f, "two kinds are called {name}"),
        }
    }
}

impl std::error::Error for FleetFault {}

impl Fleet {
    /// All that is wrong with it; empty where a placer can use it.
    pub fn faults(&self) -> Vec<FleetFault> {
        let mut faults = Vec::new();
        if self.kinds.len() > MAX_KINDS {
            faults.push(FleetFault::TooManyKinds(self.kinds.len()));
        }
        if self.devices.len() > MAX_DEVICES {
            faults.push(FleetFault::TooManyDevices(self.devices.len()));
        }
        let mut names = BTreeSet::new();
        for kind in &self.kinds {
            for n in [kind.encode_engines, kind.decode_engines] {
                if usize::from(n) > MAX_ENGINES {
                    faults.push(FleetFault::TooManyEngines(kind.name.clone(), n));
                }
            }
            if !names.insert(&kind.name) {
                faults.push(FleetFault::TwoKinds(kind.name.clone()));
            }
        }
        for (n, device) in (0u32..).zip(&self.devices) {
            if usize::from(device.kind) >= self.kinds.len() {
                faults.push(FleetFault::NoSuchKind(DeviceId(n)));
            }
            if usize::try_from(device.host).map_or(true, |h| h >= self.hosts.len()) {
                faults.push(FleetFault::NoSuchHost(DeviceId(n)));
            }
            if !(1..=1000).contains(&device.calibration) {
                faults.push(FleetFault::Calibration(DeviceId(n), device.calibration));
            }
        }
        faults
    }

    /// Adds `count` devices of a kind, `per_host` to each new host whose consumer cards share `cap` sessions.
    pub fn add(&mut self, kind: DeviceKind, count: u32, per_host: u32, cap: Option<u32>) {
        let known = self.kinds.iter().position(|k| *k == kind).unwrap_or(self.kinds.len());
        if known == self.kinds.len() {
            self.kinds.push(kind);
        }
        let kind = u16::try_from(known).unwrap_or(u16::MAX);
        for n in 0..count {
            if n % per_host.max(1) == 0 {
                self.hosts.push(Host { consumer_sessions: cap });
            }
            let host = u32::try_from(self.hosts.len().saturating_sub(1)).unwrap_or(u32::MAX);
            self.devices.push(Device { kind, host, calibration: 100 });
        }
    }
}
