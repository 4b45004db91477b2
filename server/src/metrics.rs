//! Everything that is counted, as Prometheus reads it. No label holds anything from outside but channel names.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::{encode_eof, encode_registry};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use crate::channel::{ChannelState, ChannelStatus};
use crate::fleet::DevicesStatus;

#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    requests: Family<Request, Counter>,
    /// The counters of `requests` that viewers keep busy, found without a lock: by `HOT_CLASSES` and `HOT_STATUS`.
    hot_requests: [OnceLock<Counter>; HOT_CLASSES.len() * HOT_STATUS.len()],
    held: Gauge,
    sent: Counter,
    connections: Gauge,
    refused: Family<Reason, Counter>,
    timeouts: Family<Reason, Counter>,
    abuse: Family<Reason, Counter>,
    accept_errors: Counter,
    panics: Counter,
    playlist_faults: Family<BrokenRule, Counter>,
    /// Unix seconds; 0, and then not shown, where there is no TLS.
    certificate_end: AtomicU64,
    certificate_reads: Family<Outcome, Counter>,
    viewer_keys_reads: Family<Outcome, Counter>,
}

const HOT_CLASSES: [&str; 4] = ["playlist", "part", "segment", "multivariant"];
const HOT_STATUS: [u16; 3] = [200, 206, 304];

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct BrokenRule {
    rule: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Request {
    class: &'static str,
    status: u16,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Reason {
    reason: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Outcome {
    outcome: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ChannelLabel {
    channel: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RenditionLabel {
    channel: String,
    rendition: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct StateLabel {
    channel: String,
    state: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct DeviceLabel {
    device: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct DeviceState {
    device: String,
    state: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct EngineLabel {
    device: String,
    sort: &'static str,
    engine: u32,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct SortLabel {
    device: String,
    sort: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct DeviceReason {
    device: String,
    reason: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Build {
    version: &'static str,
}

/// A gauge that counts as long as this lives.
#[derive(Debug)]
pub struct Held(Gauge);

impl Drop for Held {
    fn drop(&mut self) {
        self.0.dec();
    }
}

impl Default for Metrics {
    fn default() -> Self {
        let mut registry = Registry::with_prefix("fishladder");
        let requests = Family::default();
        let (held, connections) = (Gauge::default(), Gauge::default());
        let (sent, accept_errors, panics) = (Counter::default(), Counter::default(), Counter::default());
        let (refused, timeouts, abuse) = (Family::default(), Family::default(), Family::default());
        let build = Family::<Build, Gauge>::default();
        build.get_or_create(&Build { version: env!("CARGO_PKG_VERSION") }).set(1);
        registry.register("build", "The running version", build);
        registry.register("http_requests", "Answered requests by class of resource and status", requests.clone());
        registry.register("http_held_requests", "Requests that wait for a playlist or part", held.clone());
        registry.register("http_sent_bytes", "Bytes of response bodies handed to connections", sent.clone());
        registry.register("http_connections", "Open connections", connections.clone());
        registry.register("http_refused_connections", "Connections closed because of a cap", refused.clone());
        registry.register("http_timeouts", "Connections and requests ended by a deadline", timeouts.clone());
        registry.register("http_abuse", "HTTP/2 connections and requests ended for flooding", abuse.clone());
        registry.register(
            "http_accept_errors",
            "Failed accepts, for example no free descriptor",
            accept_errors.clone(),
        );
        registry.register("http_panics", "Connections ended by a defect of ours", panics.clone());
        let playlist_faults = Family::default();
        registry.register(
            "playlist_faults",
            "Served playlists that break a rule of docs/conformance.md: a defect of ours",
            playlist_faults.clone(),
        );
        let certificate_reads = Family::default();
        registry.register(
            "tls_certificate_reads",
            "Changed certificates by what became of them",
            certificate_reads.clone(),
        );
        let viewer_keys_reads = Family::default();
        registry.register(
            "viewer_key_reads",
            "Changed keys of signed paths by what became of them",
            viewer_keys_reads.clone(),
        );
        Self {
            registry,
            requests,
            hot_requests: Default::default(),
            held,
            sent,
            connections,
            refused,
            timeouts,
            abuse,
            accept_errors,
            panics,
            certificate_end: AtomicU64::new(0),
            certificate_reads,
            viewer_keys_reads,
            playlist_faults,
        }
    }
}

impl Metrics {
    pub fn request(&self, class: &'static str, status: u16) {
        let counter = || self.requests.get_or_create(&Request { class, status }).clone();
        let hot = HOT_CLASSES.iter().position(|c| *c == class).zip(HOT_STATUS.iter().position(|s| *s == status));
        let slot = hot.and_then(|(class, status)| self.hot_requests.get(class * HOT_STATUS.len() + status));
        match slot {
            Some(slot) => slot.get_or_init(counter).inc(),
            None => counter().inc(),
        };
    }
    /// Counts a held request until the value is dropped.
    pub fn hold(&self) -> Held {
        self.held.inc();
        Held(self.held.clone())
    }
    pub fn sent(&self, bytes: u64) {
        self.sent.inc_by(bytes);
    }
    pub fn connection(&self) -> Held {
        self.connections.inc();
        Held(self.connections.clone())
    }
    pub fn connections(&self) -> i64 {
        self.connections.get()
    }
    pub fn refused(&self, reason: &'static str) {
        self.refused.get_or_create(&Reason { reason }).inc();
    }
    pub fn timeout(&self, reason: &'static str) {
        self.timeouts.get_or_create(&Reason { reason }).inc();
    }
    pub fn abuse(&self, reason: &'static str) {
        self.abuse.get_or_create(&Reason { reason }).inc();
    }
    pub fn accept_error(&self) -> u64 {
        self.accept_errors.inc()
    }
    pub fn panic(&self) {
        self.panics.inc();
    }
    /// `rule`: one of `packager::validate::Rule`'s names, so that there is a bound.
    pub fn playlist_fault(&self, rule: String) {
        self.playlist_faults.get_or_create(&BrokenRule { rule }).inc();
    }

    /// `end`: Unix seconds.
    pub fn certificate(&self, end: u64) {
        self.certificate_end.store(end, Ordering::Relaxed);
    }
    pub fn viewer_keys_read(&self, outcome: &'static str) {
        self.viewer_keys_reads.get_or_create(&Outcome { outcome }).inc();
    }
    pub fn certificate_read(&self, outcome: &'static str) {
        self.certificate_reads.get_or_create(&Outcome { outcome }).inc();
    }

    /// The exposition: own counters, then what the channels' status says now.
    pub fn render(&self, channels: &[ChannelStatus], devices: Option<&DevicesStatus>) -> String {
        let mut out = String::with_capacity(4096 + channels.len() * 2048);
        // Writing into a String cannot fail.
        let _ = encode_registry(&mut out, &self.registry);
        let end = self.certificate_end.load(Ordering::Relaxed);
        if end > 0 {
            let _ = encode_registry(&mut out, &of_certificate(end));
        }
        let _ = encode_registry(&mut out, &of_channels(channels));
        if let Some(devices) = devices {
            let _ = encode_registry(&mut out, &of_devices(devices));
        }
        let _ = encode_eof(&mut out);
        out
    }
}

fn of_certificate(end: u64) -> Registry {
    let mut registry = Registry::with_prefix("fishladder_tls");
    let gauge = Gauge::<u64, AtomicU64>::default();
    gauge.set(end);
    registry.register("certificate_expiry_timestamp_seconds", "When the served certificate ends, Unix time", gauge);
    registry
}

/// The channels' figures are kept where they arise; a scrape copies them.
fn of_channels(channels: &[ChannelStatus]) -> Registry {
    let mut registry = Registry::with_prefix("fishladder_channel");
    let states = Family::<StateLabel, Gauge>::default();
    let viewers = Family::<ChannelLabel, Gauge>::default();
    let counters: [(&str, &str, Family<ChannelLabel, Counter>); 7] = [
        ("sessions", "Publishers' stays", Family::default()),
        ("worker_restarts", "Restarts of the encoding worker", Family::default()),
        ("packets", "Packets of the present session", Family::default()),
        ("packets_lost", "Packets that never came, present session", Family::default()),
        ("packets_repaired", "Packets repaired, present session", Family::default()),
        ("units_refused", "NAL units refused by the bitstream gate, present session", Family::default()),
        ("engine_dropped", "Input units dropped because the worker was behind, present session", Family::default()),
    ];
    let bitrate = Family::<RenditionLabel, Gauge<u64, AtomicU64>>::default();
    let msn = Family::<RenditionLabel, Gauge<u64, AtomicU64>>::default();
    let retained = Family::<RenditionLabel, Gauge<u64, AtomicU64>>::default();
    let lag = Family::<ChannelLabel, Gauge<f64, AtomicU64>>::default();
    let suspended = Family::<RenditionLabel, Gauge>::default();
    for c in channels {
        let label = ChannelLabel { channel: c.name.to_string() };
        for (state, name) in [
            (ChannelState::Waiting, "waiting"),
            (ChannelState::Starting, "starting"),
            (ChannelState::Live, "live"),
            (ChannelState::Interrupted, "interrupted"),
        ] {
            let label = StateLabel { channel: c.name.to_string(), state: name };
            states.get_or_create(&label).set(i64::from(c.state == state));
        }
        viewers.get_or_create(&label).set(i64::try_from(c.viewers).unwrap_or(i64::MAX));
        let source = |f: fn(&crate::channel::SourceStatus) -> u64| c.source.as_ref().map_or(0, f);
        let values = [
            c.sessions,
            u64::from(c.worker_restarts),
            source(|s| s.packets),
            source(|s| s.lost),
            source(|s| s.repaired),
            source(|s| s.refused),
            source(|s| s.engine_dropped),
        ];
        for ((_, _, family), value) in counters.iter().zip(values) {
            family.get_or_create(&label).inc_by(value);
        }
        // Absent where nothing is encoded: 0 would be read as very fast.
        if let Some(ms) = c.encode_lag_ms {
            lag.get_or_create(&label).set(Duration::from_millis(ms).as_secs_f64());
        }
        for r in &c.renditions {
            let label = RenditionLabel { channel: c.name.to_string(), rendition: r.id.to_string() };
            bitrate.get_or_create(&label).set(r.track.bitrate);
            msn.get_or_create(&label).set(r.msn);
            retained.get_or_create(&label).set(r.retained_bytes);
            suspended.get_or_create(&label).set(i64::from(r.suspended));
        }
    }
    registry.register("state", "1 for the state that the channel is in", states);
    registry.register("viewers", "Distinct viewers lately", viewers);
    for (name, help, family) in counters {
        registry.register(name, help, family);
    }
    registry.register(
        "encode_lag_seconds",
        "From the engine's input to its output, slowest rung, 95th percentile of 5 s",
        lag,
    );
    registry.register("rendition_suspended", "1 for a rung that is not encoded at present", suspended);
    registry.register("rendition_bitrate", "Bits a second over the last seconds", bitrate);
    registry.register("rendition_msn", "Media sequence number of the newest segment", msn);
    registry.register("rendition_retained_bytes", "Media kept for viewers", retained);
    registry
}

fn of_devices(devices: &DevicesStatus) -> Registry {
    let mut registry = Registry::with_prefix("fishladder_device");
    let states = Family::<DeviceState, Gauge>::default();
    let promised = Family::<EngineLabel, Gauge<f64, AtomicU64>>::default();
    let (ladders, sessions, vram) = (
        Family::<DeviceLabel, Gauge>::default(),
        Family::<DeviceLabel, Gauge>::default(),
        Family::<DeviceLabel, Gauge>::default(),
    );
    let restarts = Family::<DeviceLabel, Counter>::default();
    for d in &devices.devices {
        let label = DeviceLabel { device: d.id.clone() };
        for state in ["ready", "draining", "quarantined"] {
            let label = DeviceState { device: d.id.clone(), state };
            states.get_or_create(&label).set(i64::from(d.state == state));
        }
        for (sort, engines) in [("encode", &d.encode), ("decode", &d.decode)] {
            for (engine, share) in (0u32..).zip(engines) {
                promised.get_or_create(&EngineLabel { device: d.id.clone(), sort, engine }).set(*share);
            }
        }
        ladders.get_or_create(&label).set(i64::try_from(d.ladders.len()).unwrap_or(i64::MAX));
        sessions.get_or_create(&label).set(d.encoding_sessions.into());
        vram.get_or_create(&label).set(i64::from(d.vram_mib) << 20);
        restarts.get_or_create(&label).inc_by(d.worker_restarts.into());
    }
    registry.register("state", "1 for the state that the device is in", states);
    registry.register("engine_promised", "Part of an engine's time that sessions have reserved, 0 to 1", promised);
    registry.register("ladders", "Ladders on the device, moving ones on both", ladders);
    registry.register("encoding_sessions", "Encoding sessions reserved", sessions);
    registry.register("vram_promised_bytes", "Memory that sessions have reserved", vram);
    registry.register("worker_restarts", "Ends of the device's worker that were not asked for", restarts);
    of_decisions(devices, &mut registry);
    of_measurements(devices, &mut registry);
    registry
}

/// What was done with the devices' ladders.
fn of_decisions(devices: &DevicesStatus, registry: &mut Registry) {
    let moves = Family::<DeviceReason, Counter>::default();
    let shed = Family::<DeviceReason, Counter>::default();
    let (regained, suspended) = (Family::<DeviceLabel, Counter>::default(), Family::<DeviceLabel, Gauge>::default());
    for d in &devices.devices {
        let label = DeviceLabel { device: d.id.clone() };
        for (family, counts) in [(&moves, &d.counts.moves), (&shed, &d.counts.shed)] {
            for (reason, count) in counts {
                let label = DeviceReason { device: d.id.clone(), reason: (*reason).to_owned() };
                family.get_or_create(&label).inc_by(*count);
            }
        }
        regained.get_or_create(&label).inc_by(d.counts.regained);
        let rungs: usize = d.ladders.iter().map(|l| l.suspended.len()).sum();
        suspended.get_or_create(&label).set(i64::try_from(rungs).unwrap_or(i64::MAX));
    }
    registry.register("moves", "Sessions that began to move away from the device, by reason", moves);
    registry.register("rungs_shed", "Rungs taken off running sessions, by reason", shed);
    registry.register("rungs_regained", "Rungs that are encoded again", regained);
    registry.register("rungs_suspended", "Rungs that are not encoded for now", suspended);
}

/// Absent for what is not measured.
fn of_measurements(devices: &DevicesStatus, registry: &mut Registry) {
    let busy = Family::<SortLabel, Gauge<f64, AtomicU64>>::default();
    let (speed, cpu) = (
        Family::<DeviceLabel, Gauge<f64, AtomicU64>>::default(),
        Family::<DeviceLabel, Gauge<f64, AtomicU64>>::default(),
    );
    let plain: [(&str, &str, Family<DeviceLabel, Gauge>); 4] = [
        ("measured_vram_bytes", "Memory in use, all programs together", Family::default()),
        ("measured_vram_total_bytes", "Memory that there is", Family::default()),
        ("measured_temperature_celsius", "Temperature", Family::default()),
        ("measured_encoding_sessions", "Encoding sessions, all programs together", Family::default()),
    ];
    let throttled = Family::<DeviceReason, Gauge>::default();
    for d in &devices.devices {
        let Some(m) = &d.measured else { continue };
        let label = DeviceLabel { device: d.id.clone() };
        for (sort, share) in [("encode", m.encode), ("decode", m.decode)] {
            if let Some(share) = share {
                busy.get_or_create(&SortLabel { device: d.id.clone(), sort }).set(share);
            }
        }
        speed.get_or_create(&label).set(m.speed);
        if let Some(cores) = m.cpu {
            cpu.get_or_create(&label).set(cores);
        }
        let bytes = |mib: Option<u64>| mib.map(|m| m << 20);
        let values = [
            bytes(m.vram_mib),
            bytes(m.vram_total_mib),
            m.temperature_c.map(Into::into),
            m.encoding_sessions.map(Into::into),
        ];
        for ((_, _, family), value) in plain.iter().zip(values) {
            if let Some(value) = value {
                family.get_or_create(&label).set(i64::try_from(value).unwrap_or(i64::MAX));
            }
        }
        for reason in &m.throttle {
            throttled.get_or_create(&DeviceReason { device: d.id.clone(), reason: reason.clone() }).set(1);
        }
    }
    registry.register("measured_busy", "Part of the engines' time in use, all programs together, 0 to 1", busy);
    registry.register("measured_speed", "Of the nominal clock while the device throttles, else 1", speed);
    registry.register("measured_cpu_cores", "Cores that a simulated device's worker takes", cpu);
    registry.register("measured_throttled", "1 for each reason for which the device throttles", throttled);
    for (name, help, family) in plain {
        registry.register(name, help, family);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_exposition_holds_what_happened() {
        let m = Metrics::default();
        m.request("playlist", 200);
        m.request("playlist", 200);
        m.sent(5);
        m.timeout("header");
        let first = m.hold();
        let second = m.hold();
        drop(first);
        let text = m.render(&[crate::http::tests::status("demo")], None);
        for line in [
            "fishladder_http_requests_total{class=\"playlist\",status=\"200\"} 2",
            "fishladder_http_sent_bytes_total 5",
            "fishladder_http_held_requests 1",
            "fishladder_http_timeouts_total{reason=\"header\"} 1",
            "fishladder_channel_viewers{channel=\"demo\"} 3",
            "fishladder_channel_state{channel=\"demo\",state=\"live\"} 1",
            "fishladder_channel_state{channel=\"demo\",state=\"waiting\"} 0",
            "fishladder_channel_packets_total{channel=\"demo\"} 1000",
            "fishladder_channel_worker_restarts_total{channel=\"demo\"} 2",
            "fishladder_channel_encode_lag_seconds{channel=\"demo\"} 0.083",
        ] {
            assert!(text.lines().any(|l| l == line), "{line} is not in\n{text}");
        }
        assert!(text.ends_with("# EOF\n"));
        drop(second);
    }

    #[test]
    fn what_is_measured_of_a_device_is_shown_and_what_is_not_is_absent() {
        let measured = crate::fleet::Measured {
            encode: Some(0.5),
            vram_mib: Some(2),
            temperature_c: Some(88),
            throttle: vec!["thermal".to_owned()],
            speed: 0.75,
            ..Default::default()
        };
        let devices = DevicesStatus::example(Some(measured));
        let text = Metrics::default().render(&[], Some(&devices));
        for line in [
            "fishladder_device_measured_busy{device=\"gpu0\",sort=\"encode\"} 0.5",
            "fishladder_device_measured_speed{device=\"gpu0\"} 0.75",
            "fishladder_device_measured_vram_bytes{device=\"gpu0\"} 2097152",
            "fishladder_device_measured_temperature_celsius{device=\"gpu0\"} 88",
            "fishladder_device_measured_throttled{device=\"gpu0\",reason=\"thermal\"} 1",
            "fishladder_device_moves_total{device=\"gpu0\",reason=\"throttled\"} 2",
            "fishladder_device_rungs_shed_total{device=\"gpu0\",reason=\"throttled\"} 1",
            "fishladder_device_rungs_suspended{device=\"gpu0\"} 1",
        ] {
            assert!(text.lines().any(|l| l == line), "{line} is not in\n{text}");
        }
        assert!(!text.contains("sort=\"decode\"} 0\n") && !text.contains("measured_encoding_sessions{"), "{text}");
        let text = Metrics::default().render(&[], Some(&DevicesStatus::example(None)));
        assert!(!text.contains("measured_speed{"), "{text}");
    }
}
