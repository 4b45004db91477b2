//! The configuration: built-in defaults, TOML file, `--set` overrides; all faults at once with their key paths.
//!
//! `configs/fishladder.toml` documents every key; a test proves that it says what the defaults here say.

pub mod calibration;
pub mod read;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use engine::RungRequest;
use engine::backend::{Codec as RungCodec, Policy as LadderPolicy, Tune};
use media::ChannelName;
use placement::DeviceKind;
use placement::device::{
    Codec, DecodeRates, EncodeRates, EncoderKind, Evidence, Evidences, MAX_ENGINES, PixelRate, SourceCodec,
};
use serde::Deserialize;
use serde_json::{Map, Value};

pub use calibration::CalibrationFile;
pub use read::Fault;
use read::{Section, bit_rate, duration, flag, integer, parsed, text};

use crate::supervisor::{ChannelRequest, LadderChoice, SourceRequest};

/// The ladder that always exists: the publisher's own video and no transcoding of it.
pub const PASSTHROUGH: &str = "passthrough";

/// Longest SDP taken from anyone, as file, API body or WHIP offer.
pub const MAX_SDP: usize = 64 * 1024;

#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    pub http: Http,
    pub whip: Whip,
    pub rtp: Rtp,
    pub rtsp: Rtsp,
    pub hls: Hls,
    pub ladder: LadderDefaults,
    /// By name; `passthrough` is built in and needs no table.
    pub ladders: BTreeMap<String, Ladder>,
    pub channels: BTreeMap<ChannelName, ChannelRequest>,
    pub auth: Auth,
    pub viewers: Viewers,
    pub engine: Engine,
    pub devices: Devices,
    pub log: Log,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Http {
    pub listen: SocketAddr,
    pub tls: Option<Tls>,
    /// All connections together; one more is closed at once.
    pub max_connections: usize,
    /// Connections of one address (an IPv6 /64); loopback is exempt, since a reverse proxy there speaks for many.
    pub max_connections_per_address: usize,
    pub header_timeout: Duration,
    pub body_timeout: Duration,
    pub idle_timeout: Duration,
    pub write_timeout: Duration,
}
#[derive(Clone, Debug, PartialEq)]
pub struct Tls {
    pub certificate: PathBuf,
    pub key: PathBuf,
}
#[derive(Clone, Debug, PartialEq)]
pub struct Whip {
    pub udp_listen: SocketAddr,
    pub external_addresses: Vec<IpAddr>,
    pub create_channels: bool,
    pub max_sessions: usize,
    pub idle_timeout: Duration,
    pub takeover_after: Duration,
}
#[derive(Clone, Debug, PartialEq)]
pub struct Rtp {
    pub idle_timeout: Duration,
}
#[derive(Clone, Debug, PartialEq)]
pub struct Rtsp {
    pub idle_timeout: Duration,
}
#[derive(Clone, Debug, PartialEq)]
pub struct Hls {
    pub part_target: Duration,
    pub segment_target: Duration,
    pub window: Duration,
}
#[derive(Clone, Debug, PartialEq)]
pub struct LadderDefaults {
    pub default: String,
}

/// A ladder as the operator writes it: resolved against each source (never upscaled, aspect ratio kept).
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ladder {
    /// The publisher's own video as the top rendition when its codec fits.
    pub passthrough: bool,
    /// What the publisher's encoder is set to, bits a second; declared to players. None: what is measured is.
    #[serde(default)]
    pub source_bitrate: Option<u32>,
    pub rungs: Vec<Rung>,
    /// AAC bit rate, bits a second.
    pub audio_bitrate: u32,
    /// What happens where no device takes the rungs.
    #[serde(default)]
    pub policy: LadderPolicy,
}
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rung {
    /// Height in pixels; the width follows the source's aspect ratio.
    pub height: u32,
    /// Bits a second.
    pub bitrate: u32,
    /// Upper bound in frames a second; the source's rate where absent or lower.
    pub max_frame_rate: Option<u32>,
    #[serde(default)]
    pub codec: RungCodec,
    pub preset: String,
    #[serde(default)]
    pub tune: Tune,
}
#[cfg(test)]
impl Rung {
    /// H.264 as most ladders have it.
    pub fn usual(height: u32, bitrate: u32) -> Self {
        let (codec, tune) = (RungCodec::default(), Tune::default());
        Self { height, bitrate, max_frame_rate: None, codec, preset: "veryfast".into(), tune }
    }
}
#[derive(Clone, Debug, PartialEq)]
pub struct Auth {
    pub publish_token: Option<Secret>,
    pub admin_token: Option<Secret>,
}
/// Keys of signed paths (`sign.rs`); without a key everyone may watch.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Viewers {
    pub key: Option<Secret>,
    pub previous_key: Option<Secret>,
    /// Where they were read. Files only: the environment would be handed on to the worker processes.
    key_file: Option<PathBuf>,
    previous_key_file: Option<PathBuf>,
}
/// A secret: never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(pub String);
impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret(…)")
    }
}
#[derive(Clone, Debug, PartialEq)]
pub struct Engine {
    pub stall_timeout: Duration,
}
/// What ladders run on besides the CPU.
#[derive(Clone, Debug, PartialEq)]
pub struct Devices {
    pub gpus: Gpus,
    pub policy: placement::Policy,
    /// What `density` measured, in place of the catalogue's figures.
    pub calibration: Option<CalibrationFile>,
    /// By name.
    pub simulated: BTreeMap<String, SimulatedDevice>,
}
/// Whether this host's GPUs are used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gpus {
    /// Where there are signs of any.
    Auto,
    On,
    Off,
}
/// A device that has the capacity that it is given and encodes on the CPU.
#[derive(Clone, Debug, PartialEq)]
pub struct SimulatedDevice {
    pub encode_engines: u8,
    /// Megapixels a second of one engine.
    pub encode: u64,
    pub decode_engines: u8,
    pub decode: u64,
    pub vram_mib: u32,
    /// Encoding sessions at a time, as drivers cap those of consumer cards.
    pub sessions: Option<u32>,
    pub fails_after: Option<Duration>,
    pub throttles: Throttles,
}
/// When a simulated device says that it throttles, and how much. Its encoders are as fast as before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Throttles {
    /// Since its first session.
    pub after: Option<Duration>,
    /// None: for good.
    pub lasts: Option<Duration>,
    /// Per cent of its speed.
    pub to: u16,
}
#[derive(Clone, Debug, PartialEq)]
pub struct Log {
    pub level: String,
    pub json: bool,
}

impl Viewers {
    /// Err: the key of the configuration and what is wrong with its value.
    pub fn read(key_file: Option<&Path>, previous_key_file: Option<&Path>) -> Result<Self, (&'static str, String)> {
        let owned = |file: Option<&Path>| file.map(Path::to_owned);
        let Some(file) = key_file else {
            return match previous_key_file {
                Some(_) => Err(("key_file", "is missing: without it nothing is signed or asked for".to_owned())),
                None => Ok(Self::default()),
            };
        };
        let no_file = |file: &Path, e| format!("cannot read {}: {e}", file.display());
        let key = viewer_key(file).map_err(|e| ("key_file", no_file(file, e)))?.map_err(|why| ("key_file", why))?;
        let previous = match previous_key_file.map(|file| (file, viewer_key(file))) {
            // It comes with the first exchange.
            None => None,
            Some((_, Err(e))) if e.kind() == std::io::ErrorKind::NotFound => None,
            Some((file, Err(e))) => return Err(("previous_key_file", no_file(file, e))),
            Some((_, Ok(key))) => Some(key.map_err(|why| ("previous_key_file", why))?),
        };
        if previous.as_ref() == Some(&key) {
            return Err(("previous_key_file", "holds the same key as key_file".to_owned()));
        }
        Ok(Self {
            key: Some(key),
            previous_key: previous,
            key_file: owned(key_file),
            previous_key_file: owned(previous_key_file),
        })
    }

    /// What the files hold now. Err: a sentence for the operator.
    pub fn read_again(&self) -> Result<Self, String> {
        let read = Self::read(self.key_file.as_deref(), self.previous_key_file.as_deref());
        read.map_err(|(key, why)| format!("viewers.{key}: {why}"))
    }

    pub fn files(&self) -> Vec<PathBuf> {
        self.key_file.iter().chain(&self.previous_key_file).cloned().collect()
    }

    /// Keys of no file, which nobody exchanges.
    #[cfg(test)]
    pub fn of(key: Secret, previous_key: Option<Secret>) -> Self {
        Self { key: Some(key), previous_key, ..Self::default() }
    }
}

/// Err: there is no such file; Ok(Err): what is wrong with its content.
fn viewer_key(file: &Path) -> std::io::Result<Result<Secret, String>> {
    let text = std::fs::read_to_string(file)?;
    // Not shorter than the hash (RFC 2104 §3): who has one token can try keys at home.
    if (32..=512).contains(&text.trim().len()) && text.trim().bytes().all(|b| b.is_ascii_graphic()) {
        return Ok(Ok(Secret(text.trim().to_owned())));
    }
    let why = "the key must be 32 to 512 visible ASCII characters; for example the output of `openssl rand -hex 32`";
    Ok(Err(why.to_owned()))
}

impl Ladder {
    /// The built-in ladder of that name: nothing encoded but audio that players could not play.
    pub fn passthrough() -> Self {
        Self {
            passthrough: true,
            source_bitrate: None,
            rungs: Vec::new(),
            audio_bitrate: 128_000,
            policy: LadderPolicy::default(),
        }
    }
}

impl Throttles {
    /// Per cent of its speed, so long after its first session; None: it does not throttle.
    pub fn at(&self, running: Duration) -> Option<u16> {
        let since = running.checked_sub(self.after?)?;
        self.lasts.is_none_or(|lasts| since < lasts).then_some(self.to)
    }
}

impl Default for Throttles {
    fn default() -> Self {
        Self { after: None, lasts: None, to: 50 }
    }
}

impl Rung {
    /// As the engine resolves it against a source.
    pub fn request(&self) -> RungRequest {
        RungRequest {
            height: self.height,
            bitrate: self.bitrate,
            max_frame_rate: self.max_frame_rate,
            codec: self.codec,
            preset: self.preset.clone(),
            tune: self.tune,
        }
    }
}

impl SimulatedDevice {
    /// As the placer sees it.
    pub fn kind(&self, name: &str) -> DeviceKind {
        let declared = Evidence::Declared;
        DeviceKind {
            name: name.to_owned(),
            encoder: EncoderKind::Hardware,
            encode_engines: self.encode_engines,
            encode: EncodeRates::flat(&Codec::ALL, PixelRate::megapixels(self.encode)),
            decode_engines: self.decode_engines,
            decode: DecodeRates::flat(&[SourceCodec::H264], PixelRate::megapixels(self.decode)),
            vram: self.vram_mib,
            consumer: self.sessions.is_some(),
            evidence: Evidences { engines: declared, speed: declared, vram: declared },
        }
    }
}

impl Default for Config {
    fn default() -> Self {
        let rung = |height, bitrate| Rung {
            height,
            bitrate,
            max_frame_rate: Some(30),
            codec: RungCodec::default(),
            preset: "veryfast".to_owned(),
            tune: Tune::default(),
        };
        let ladder = |rungs| Ladder { rungs, ..Ladder::passthrough() };
        Self {
            http: Http {
                listen: SocketAddr::from(([127, 0, 0, 1], 8080)),
                tls: None,
                max_connections: 20_000,
                max_connections_per_address: 256,
                header_timeout: Duration::from_secs(10),
                body_timeout: Duration::from_secs(20),
                idle_timeout: Duration::from_secs(60),
                write_timeout: Duration::from_secs(30),
            },
            whip: Whip {
                udp_listen: SocketAddr::from(([127, 0, 0, 1], 8189)),
                external_addresses: Vec::new(),
                create_channels: true,
                max_sessions: 64,
                idle_timeout: Duration::from_secs(10),
                takeover_after: Duration::from_secs(3),
            },
            rtp: Rtp { idle_timeout: Duration::from_secs(10) },
            rtsp: Rtsp { idle_timeout: Duration::from_secs(10) },
            hls: Hls {
                part_target: Duration::from_millis(200),
                segment_target: Duration::from_secs(2),
                window: Duration::from_secs(24),
            },
            ladder: LadderDefaults { default: "standard".to_owned() },
            ladders: BTreeMap::from([
                // Cheap enough for two cores beside a browser.
                ("standard".to_owned(), ladder(vec![rung(480, 1_200_000), rung(360, 700_000)])),
                (
                    "full".to_owned(),
                    ladder(vec![rung(1080, 4_500_000), rung(720, 2_500_000), rung(480, 1_200_000), rung(360, 700_000)]),
                ),
            ]),
            channels: BTreeMap::new(),
            auth: Auth { publish_token: None, admin_token: None },
            viewers: Viewers::default(),
            engine: Engine { stall_timeout: Duration::from_secs(1) },
            devices: Devices {
                gpus: Gpus::Auto,
                policy: placement::Policy::Consolidate,
                calibration: None,
                simulated: BTreeMap::new(),
            },
            log: Log { level: "info".to_owned(), json: false },
        }
    }
}

impl Config {
    /// Defaults, then the file, then the overrides (`key.path=value`), then tokens out of the process's environment.
    pub fn load(file: Option<&Path>, overrides: &[String]) -> Result<Self, Vec<Fault>> {
        let text = match file {
            None => String::new(),
            Some(path) => std::fs::read_to_string(path)
                .map_err(|e| vec![Fault::new("", format!("cannot read {}: {e}", path.display()))])?,
        };
        Self::parse(&text, overrides, |name| std::env::var(name).ok())
    }

    /// The same with everything given. Token files named in it are read.
    pub fn parse(
        toml: &str,
        overrides: &[String],
        environment: impl Fn(&str) -> Option<String>,
    ) -> Result<Self, Vec<Fault>> {
        let mut faults = Vec::new();
        let root = match document(toml) {
            Ok(root) => root,
            Err(fault) => {
                faults.push(fault);
                Value::Object(Map::new())
            }
        };
        let root = overrides.iter().fold(root, |mut root, item| {
            if let Err(fault) = set(&mut root, item) {
                faults.push(fault);
            }
            root
        });
        let config = read(root, &environment, &mut faults);
        if faults.is_empty() { Ok(config) } else { Err(faults) }
    }

    /// True where only this machine can reach the pages and the API.
    pub fn http_is_local(&self) -> bool {
        self.http.listen.ip().to_canonical().is_loopback()
    }
}

/// The life of a viewer's token, as the API and the command line take it: `1h`, `90m`.
pub fn token_life(value: &Value) -> Result<Duration, String> {
    duration(crate::sign::LIFE.0, crate::sign::LIFE.1)(value)
}

/// Reads the body of `POST /api/v1/channels/{name}/sign`.
pub fn sign_request(value: Value, faults: &mut Vec<Fault>) -> Option<Duration> {
    let mut table = Section::new("", value, faults);
    let life = table.required("expires", token_life);
    table.finish();
    if faults.is_empty() { life } else { None }
}

/// Reads the body of `PUT /api/v1/channels/{name}` or a `[channels.NAME]` table, whose path is `at`.
pub fn channel_request(
    value: Value,
    at: &str,
    ladders: &BTreeMap<String, Ladder>,
    faults: &mut Vec<Fault>,
) -> Option<ChannelRequest> {
    let before = faults.len();
    let mut table = Section::new(at, value, faults);
    let source = match table.take("source") {
        None => {
            table.fault("source", "is missing; give one of rtp, rtsp, whip");
            None
        }
        Some(value) => {
            let path = table.path("source");
            source(value, &path, table.faults())
        }
    };
    let ladder = match table.take("ladder") {
        None | Some(Value::Null) => None,
        Some(Value::String(name)) => {
            if name != PASSTHROUGH && !ladders.contains_key(&name) {
                table.fault("ladder", unknown_ladder(ladders));
            }
            Some(LadderChoice::Named(name))
        }
        Some(inline @ Value::Object(_)) => {
            let path = table.path("ladder");
            Some(LadderChoice::Inline(self::ladder(inline, &path, table.faults())))
        }
        Some(_) => {
            table.fault("ladder", "must be a ladder's name or a table {passthrough, rungs, audio_bitrate}");
            None
        }
    };
    table.finish();
    if faults.len() > before {
        return None;
    }
    Some(ChannelRequest { source: source?, ladder })
}

/// A TOML text as a JSON value.
pub fn document(toml: &str) -> Result<Value, Fault> {
    let table = toml::from_str::<toml::Table>(toml).map_err(|e| {
        let line = e.span().and_then(|s| toml.get(..s.start)).map_or(1, |before| before.matches('\n').count() + 1);
        Fault::new("", format!("line {line}: {}", e.message().replace('\n', " ")))
    })?;
    serde_json::to_value(table).map_err(|e| Fault::new("", e.to_string()))
}

/// Puts `key.path=value` into the tree. A value that is no TOML is taken as a text, so that quotes are not needed.
fn set(root: &mut Value, item: &str) -> Result<(), Fault> {
    let usage = "--set takes key.path=value, for example --set hls.part_target=200ms";
    let (path, value) = item.split_once('=').ok_or_else(|| Fault::new(item, usage))?;
    let value = match toml::from_str::<toml::Table>(&format!("v = {value}")).map(|mut t| t.remove("v")) {
        Ok(Some(v)) => serde_json::to_value(v).map_err(|e| Fault::new(path, e.to_string()))?,
        _ => Value::String(value.to_owned()),
    };
    if path.split('.').any(str::is_empty) {
        return Err(Fault::new(path, usage));
    }
    let mut keys = path.split('.').peekable();
    let mut at = root;
    while let Some(key) = keys.next() {
        let Value::Object(table) = at else {
            return Err(Fault::new(path, format!("--set: `{key}` lies below something that is no table")));
        };
        if keys.peek().is_none() {
            table.insert(key.to_owned(), value);
            return Ok(());
        }
        at = table.entry(key).or_insert_with(|| Value::Object(Map::new()));
    }
    Err(Fault::new(path, usage))
}

fn read(root: Value, environment: &dyn Fn(&str) -> Option<String>, faults: &mut Vec<Fault>) -> Config {
    let d = Config::default();
    let (zero, hour) = (Duration::from_millis(1), Duration::from_secs(3600));
    let mut root = Section::new("", root, faults);

    let mut s = root.section("http");
    let mut http = Http {
        listen: s.get("listen", d.http.listen, parsed("an address with a port, for example \"127.0.0.1:8080\"")),
        tls: None,
        max_connections: s.get("max_connections", d.http.max_connections, count(1, 1_000_000)),
        max_connections_per_address: s.get(
            "max_connections_per_address",
            d.http.max_connections_per_address,
            count(1, 1_000_000),
        ),
        header_timeout: s.get("header_timeout", d.http.header_timeout, duration(zero, hour)),
        body_timeout: s.get("body_timeout", d.http.body_timeout, duration(zero, hour)),
        idle_timeout: s.get("idle_timeout", d.http.idle_timeout, duration(zero, hour)),
        write_timeout: s.get("write_timeout", d.http.write_timeout, duration(zero, hour)),
    };
    let mut t = s.section("tls");
    http.tls = match (t.optional("certificate", path), t.optional("key", path)) {
        (Some(certificate), Some(key)) => Some(Tls { certificate, key }),
        (None, None) => None,
        (Some(_), None) => {
            t.fault("key", "is missing: a certificate needs its private key");
            None
        }
        (None, Some(_)) => {
            t.fault("certificate", "is missing: a private key needs its certificate");
            None
        }
    };
    t.finish();
    s.finish();

    let mut s = root.section("whip");
    let whip = Whip {
        udp_listen: s.get(
            "udp_listen",
            d.whip.udp_listen,
            parsed("an address with a port, for example \"127.0.0.1:8189\""),
        ),
        external_addresses: s.get("external_addresses", d.whip.external_addresses, addresses),
        create_channels: s.get("create_channels", d.whip.create_channels, flag),
        max_sessions: s.get("max_sessions", d.whip.max_sessions, count(1, 10_000)),
        idle_timeout: s.get("idle_timeout", d.whip.idle_timeout, duration(Duration::from_secs(1), hour)),
        takeover_after: s.get("takeover_after", d.whip.takeover_after, duration(zero, hour)),
    };
    s.finish();

    let mut s = root.section("rtp");
    let rtp = Rtp { idle_timeout: s.get("idle_timeout", d.rtp.idle_timeout, duration(Duration::from_secs(1), hour)) };
    s.finish();
    let mut s = root.section("rtsp");
    let rtsp =
        Rtsp { idle_timeout: s.get("idle_timeout", d.rtsp.idle_timeout, duration(Duration::from_secs(1), hour)) };
    s.finish();

    let mut s = root.section("hls");
    let hls = Hls {
        // Below 50 ms the requests cost more than the latency gained; above 2 s it is not low latency any more.
        part_target: s.get(
            "part_target",
            d.hls.part_target,
            duration(Duration::from_millis(50), Duration::from_secs(2)),
        ),
        segment_target: s.get(
            "segment_target",
            d.hls.segment_target,
            duration(Duration::from_millis(500), Duration::from_secs(10)),
        ),
        window: s.get("window", d.hls.window, duration(Duration::from_secs(3), hour)),
    };
    if hls.segment_target < hls.part_target * 4 {
        s.fault("segment_target", format!("must hold at least four parts, that is {:?}", hls.part_target * 4));
    }
    if hls.window < hls.segment_target * 6 {
        let least = hls.segment_target * 6;
        s.fault("window", format!("must hold at least six segments, that is {least:?}: players need them to start"));
    }
    s.finish();

    let mut ladders = d.ladders;
    for (name, value) in root.entries("ladders") {
        let at = format!("ladders.{}", name.escape_debug());
        if name == PASSTHROUGH {
            root.faults().push(Fault::new(at, "`passthrough` is built in and cannot be redefined"));
            continue;
        }
        if name.parse::<media::RenditionId>().is_err() {
            root.faults().push(Fault::new(at, media::InvalidName.to_string()));
            continue;
        }
        ladders.insert(name, ladder(value, &at, root.faults()));
    }

    let mut s = root.section("ladder");
    let default = s.get("default", d.ladder.default, text);
    if default != PASSTHROUGH && !ladders.contains_key(&default) {
        s.fault("default", unknown_ladder(&ladders));
    }
    s.finish();

    let mut channels = BTreeMap::new();
    for (name, value) in root.entries("channels") {
        let at = format!("channels.{}", name.escape_debug());
        let request = channel_request(value, &at, &ladders, root.faults());
        match (name.parse::<ChannelName>(), request) {
            (Ok(name), Some(request)) => {
                channels.insert(name, request);
            }
            (Err(e), _) => root.faults().push(Fault::new(at, e.to_string())),
            (Ok(_), None) => {}
        }
    }

    let mut s = root.section("auth");
    let auth = Auth {
        publish_token: token(&mut s, "publish_token_file", "FISHLADDER_PUBLISH_TOKEN", environment),
        admin_token: token(&mut s, "admin_token_file", "FISHLADDER_ADMIN_TOKEN", environment),
    };
    // A token file that cannot be read has its own fault; a second one here would only hide it.
    let token_faults = s.faults().iter().any(|f| f.path.starts_with("auth."));
    s.finish();

    let mut s = root.section("viewers");
    let (key, previous) = (s.optional("key_file", path), s.optional("previous_key_file", path));
    let viewers = Viewers::read(key.as_deref(), previous.as_deref()).unwrap_or_else(|(key, why)| {
        s.fault(key, why);
        Viewers::default()
    });
    s.finish();

    let mut s = root.section("engine");
    let engine = Engine {
        stall_timeout: s.get(
            "stall_timeout",
            d.engine.stall_timeout,
            duration(Duration::from_millis(250), Duration::from_secs(60)),
        ),
    };
    s.finish();

    let mut s = root.section("devices");
    let policy = s.get("policy", d.devices.policy, |v| match text(v)?.as_str() {
        "consolidate" => Ok(placement::Policy::Consolidate),
        "spread" => Ok(placement::Policy::Spread),
        _ => Err("must be \"consolidate\" or \"spread\"".to_owned()),
    });
    let gpus = s.get("gpus", d.devices.gpus, |v| match text(v)?.as_str() {
        "auto" => Ok(Gpus::Auto),
        "on" => Ok(Gpus::On),
        "off" => Ok(Gpus::Off),
        _ => Err("must be \"auto\", \"on\" or \"off\"".to_owned()),
    });
    let calibration = s.optional("calibration", path);
    let calibration = calibration.map(|file| CalibrationFile::load(&file, "devices.calibration", s.faults()));
    let mut simulated = BTreeMap::new();
    for (name, value) in s.entries("simulated") {
        let path = format!("devices.simulated.{}", name.escape_debug());
        if !is_device_name(&name) {
            s.faults().push(Fault::new(&path, "a device's name has 1 to 64 of A-Z, a-z, 0-9, _ and -"));
        }
        simulated.insert(name, self::simulated(value, &path, s.faults()));
    }
    if simulated.len() > placement::device::MAX_KINDS {
        s.fault("simulated", format!("must not be more than {}", placement::device::MAX_KINDS));
    }
    s.finish();
    let devices = Devices { gpus, policy, calibration, simulated };

    let mut s = root.section("log");
    let log = Log { level: s.get("level", d.log.level, log_level), json: s.get("json", d.log.json, flag) };
    s.finish();

    let config = Config {
        http,
        whip,
        rtp,
        rtsp,
        hls,
        ladder: LadderDefaults { default },
        ladders,
        channels,
        auth,
        viewers,
        engine,
        devices,
        log,
    };
    if !token_faults {
        refuse_exposure(&config, root.faults());
    }
    root.finish();
    config
}

/// Nothing listens off loopback without the tokens that protect it.
fn refuse_exposure(config: &Config, faults: &mut Vec<Fault>) {
    let remedy = |what: &str, variable: &str| {
        format!(
            "a {what} token is needed: put it into a file and name that in auth.{what}_token_file, or set {variable}"
        )
    };
    let (publish, admin) = (remedy("publish", "FISHLADDER_PUBLISH_TOKEN"), remedy("admin", "FISHLADDER_ADMIN_TOKEN"));
    if !config.http_is_local() {
        let at = config.http.listen;
        if config.auth.publish_token.is_none() {
            faults.push(Fault::new("http.listen", format!("{at} can be reached from other machines, so {publish}")));
        }
        if config.auth.admin_token.is_none() {
            faults.push(Fault::new("http.listen", format!("{at} can be reached from other machines, so {admin}")));
        }
    } else if !config.whip.udp_listen.ip().to_canonical().is_loopback() && config.auth.publish_token.is_none() {
        let at = config.whip.udp_listen;
        faults.push(Fault::new("whip.udp_listen", format!("{at} can be reached from other machines, so {publish}")));
    }
}

fn token(
    s: &mut Section<'_>,
    key: &'static str,
    variable: &str,
    environment: &dyn Fn(&str) -> Option<String>,
) -> Option<Secret> {
    let file = s.optional(key, path);
    let found = match (environment(variable).filter(|t| !t.is_empty()), file) {
        // The environment wins, as a --set does over the file.
        (Some(token), _) => token,
        (None, Some(file)) => match std::fs::read_to_string(&file) {
            Ok(text) => text,
            Err(e) => {
                s.fault(key, format!("cannot read {}: {e}", file.display()));
                return None;
            }
        },
        (None, None) => return None,
    };
    let found = found.trim();
    // RFC 6750 §2.1, b64token: what a Bearer credential can carry at all.
    let allowed = |b: u8| b.is_ascii_alphanumeric() || b"-._~+/=".contains(&b);
    if !(16..=512).contains(&found.len()) || !found.bytes().all(allowed) {
        s.fault(
            key,
            "the token must be 16 to 512 letters, digits or -._~+/= ; for example the output of `openssl rand -hex 16`",
        );
        return None;
    }
    Some(Secret(found.to_owned()))
}

fn source(value: Value, at: &str, faults: &mut Vec<Fault>) -> Option<SourceRequest> {
    let mut table = Section::new(at, value, faults);
    let given: Vec<&'static str> = ["rtp", "rtsp", "whip"].into_iter().filter(|k| table.has(k)).collect();
    let result = match given.as_slice() {
        ["rtp"] => {
            let mut s = table.section("rtp");
            let sdp = s.required("sdp", |v| {
                let sdp = text(v)?;
                match sdp.len() {
                    0 => Err("must not be empty".to_owned()),
                    n if n > MAX_SDP => Err(format!("must not be longer than {MAX_SDP} bytes")),
                    _ => Ok(sdp),
                }
            });
            s.finish();
            sdp.map(|sdp| SourceRequest::Rtp { sdp })
        }
        ["rtsp"] => {
            let mut s = table.section("rtsp");
            let url = s.required("url", |v| {
                let given = text(v)?;
                let url = url::Url::parse(&given).map_err(|e| format!("is no URL: {e}"))?;
                if !matches!(url.scheme(), "rtsp" | "rtsps") || !url.has_host() {
                    return Err("must begin with rtsp:// or rtsps:// and name a host".to_owned());
                }
                Ok(given)
            });
            s.finish();
            url.map(|url| SourceRequest::Rtsp { url })
        }
        ["whip"] => {
            table.section("whip").finish();
            Some(SourceRequest::Whip {})
        }
        other => {
            let problem =
                if other.is_empty() { "give one of rtp, rtsp, whip" } else { "give only one of rtp, rtsp, whip" };
            for key in ["rtp", "rtsp", "whip"] {
                table.take(key);
            }
            table.faults().push(Fault::new(at, problem));
            None
        }
    };
    table.finish();
    result
}

/// x264's speed presets, fastest first, whose slower ones than `medium` cannot keep up live, and NVENC's; every encoder
/// takes both.
const PRESETS: &[&str] =
    &["ultrafast", "superfast", "veryfast", "faster", "fast", "medium", "p1", "p2", "p3", "p4", "p5", "p6", "p7"];

/// More rungs than this is a mistake, and each one costs an encoder.
const MAX_RUNGS: usize = 8;

/// It stands in paths, as channels' names do.
fn is_device_name(name: &str) -> bool {
    name.parse::<ChannelName>().is_ok()
}

fn simulated(value: Value, at: &str, faults: &mut Vec<Fault>) -> SimulatedDevice {
    let mut table = Section::new(at, value, faults);
    let engines = |v: &Value| integer(1, MAX_ENGINES as u64)(v).map(|n| u8::try_from(n).unwrap_or(1));
    let speed = integer(1, 100_000);
    let time = duration(Duration::from_millis(1), Duration::from_secs(86_400));
    let device = SimulatedDevice {
        encode_engines: table.get("encode_engines", 1, engines),
        encode: table.get("encode", 500, &speed),
        decode_engines: table.get("decode_engines", 1, engines),
        decode: table.get("decode", 1000, &speed),
        vram_mib: table.get("vram_mib", 16_384, |v| integer(1, 1 << 24)(v).map(|n| u32::try_from(n).unwrap_or(0))),
        sessions: table.optional("sessions", |v| integer(1, 10_000)(v).map(|n| u32::try_from(n).unwrap_or(0))),
        fails_after: table.optional("fails_after", &time),
        throttles: Throttles {
            after: table.optional("throttles_after", &time),
            lasts: table.optional("throttles_for", &time),
            to: table.get("throttles_to", Throttles::default().to, |v| {
                integer(10, 99)(v).map(|n| u16::try_from(n).unwrap_or(99))
            }),
        },
    };
    table.finish();
    device
}

fn ladder(value: Value, at: &str, faults: &mut Vec<Fault>) -> Ladder {
    let mut table = Section::new(at, value, faults);
    let passthrough = table.get("passthrough", true, flag);
    let source_bitrate = table.optional("source_bitrate", bit_rate(16_000, 200_000_000));
    let audio_bitrate = table.get("audio_bitrate", 128_000, bit_rate(16_000, 512_000));
    let rungs = match table.take("rungs") {
        None => Vec::new(),
        Some(Value::Array(list)) => {
            if list.len() > MAX_RUNGS {
                table.fault("rungs", format!("must not be more than {MAX_RUNGS}"));
            }
            let path = table.path("rungs");
            list.into_iter()
                .take(MAX_RUNGS)
                .enumerate()
                .map(|(i, v)| rung(v, &format!("{path}[{i}]"), table.faults()))
                .collect()
        }
        Some(_) => {
            table.fault("rungs", "must be a list of {height, bitrate, max_frame_rate, codec, preset, tune}");
            Vec::new()
        }
    };
    if rungs.is_empty() && !passthrough {
        table.fault("rungs", "a ladder without passthrough needs at least one rung");
    }
    let mut names: Vec<_> = rungs.iter().map(|r| (r.height, r.codec)).collect();
    names.sort_unstable();
    // A rendition is named by its height and codec.
    if names.windows(2).any(|w| matches!(w, [a, b] if a == b)) {
        table.fault("rungs", "two rungs have the same height and codec");
    }
    let policy = table.get("policy", LadderPolicy::default(), word("\"gpu-only\", \"shorten\" or \"cpu\""));
    table.finish();
    Ladder { passthrough, source_bitrate, rungs, audio_bitrate, policy }
}

fn rung(value: Value, at: &str, faults: &mut Vec<Fault>) -> Rung {
    let mut s = Section::new(at, value, faults);
    let rung = Rung {
        height: s.required("height", small(64, 4320)).unwrap_or(360),
        bitrate: s.required("bitrate", bit_rate(50_000, 100_000_000)).unwrap_or(700_000),
        max_frame_rate: s.optional("max_frame_rate", small(1, 240)),
        codec: s.get("codec", RungCodec::default(), word("\"h264\", \"h265\" or \"av1\"")),
        preset: s.get("preset", "veryfast".to_owned(), |v| {
            let preset = text(v)?;
            if PRESETS.contains(&preset.as_str()) {
                Ok(preset)
            } else {
                Err(format!("must be one of {}", PRESETS.join(", ")))
            }
        }),
        tune: s.get("tune", Tune::default(), word("\"ultra-low-latency\", \"low-latency\" or \"high-quality\"")),
    };
    if rung.height % 2 == 1 {
        s.fault("height", "must be even");
    }
    s.finish();
    rung
}

/// One of the words that `T` reads; `known` lists them for the fault.
fn word<T: serde::de::DeserializeOwned>(known: &'static str) -> impl Fn(&Value) -> Result<T, String> {
    move |v| serde_json::from_value(v.clone()).map_err(|_| format!("must be {known}"))
}

fn count(least: u64, most: u64) -> impl Fn(&Value) -> Result<usize, String> {
    let check = integer(least, most);
    move |v| check(v).and_then(|n| usize::try_from(n).map_err(|e| e.to_string()))
}

fn small(least: u64, most: u64) -> impl Fn(&Value) -> Result<u32, String> {
    let check = integer(least, most);
    move |v| check(v).and_then(|n| u32::try_from(n).map_err(|e| e.to_string()))
}

fn path(v: &Value) -> Result<PathBuf, String> {
    match text(v)? {
        t if t.is_empty() => Err("must name a file".to_owned()),
        t => Ok(PathBuf::from(t)),
    }
}

fn addresses(v: &Value) -> Result<Vec<IpAddr>, String> {
    let problem = "must be a list of addresses, for example [\"203.0.113.7\"]";
    let list = v.as_array().ok_or(problem)?;
    if list.len() > 16 {
        return Err("must not be more than 16 addresses".to_owned());
    }
    list.iter().map(|a| a.as_str().and_then(|a| a.parse().ok()).ok_or_else(|| problem.to_owned())).collect()
}

fn log_level(v: &Value) -> Result<String, String> {
    let level = text(v)?;
    if matches!(level.as_str(), "error" | "warn" | "info" | "debug" | "trace" | "off") {
        return Ok(level);
    }
    match tracing_subscriber::EnvFilter::try_new(&level) {
        Ok(_) if level.contains('=') => Ok(level),
        _ => {
            Err("must be error, warn, info, debug, trace, off, or a filter such as \"info,fishladder=debug\""
                .to_owned())
        }
    }
}

fn unknown_ladder(ladders: &BTreeMap<String, Ladder>) -> String {
    let names: Vec<&str> = ladders.keys().map(String::as_str).collect();
    format!("no such ladder; there are {} and {PASSTHROUGH}", names.join(", "))
}
