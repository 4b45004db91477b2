//! The fleet as operators see it: `GET /api/v1/devices`, the status page and the metrics.

use media::WallTime;
use placement::device::{Share, WHOLE};
use serde::Serialize;

use super::Fleet;
use super::control::Counts;
use super::load::Measured;

#[derive(Clone, Debug, Serialize)]
pub struct DevicesStatus {
    /// `consolidate` or `spread`.
    pub policy: &'static str,
    pub devices: Vec<DeviceStatus>,
    /// The latest first.
    pub decisions: Vec<DecisionStatus>,
}

#[derive(Clone, Debug, Serialize)]
pub struct DeviceStatus {
    pub id: String,
    pub name: String,
    pub kind: String,
    /// `ready`, `draining` or `quarantined`.
    pub state: &'static str,
    /// Why it is in quarantine.
    pub reason: Option<String>,
    pub worker_pid: Option<u32>,
    pub worker_restarts: u32,
    /// Promised share of each encoder engine, 0 to 1, and the most that may be.
    pub encode: Vec<f64>,
    pub encode_limit: f64,
    pub decode: Vec<f64>,
    pub decode_limit: f64,
    pub vram_mib: u32,
    pub vram_limit_mib: u32,
    pub encoding_sessions: u32,
    /// None: no cap.
    pub encoding_sessions_left: Option<u32>,
    /// None: nothing is measured, or not of late.
    pub measured: Option<Measured>,
    pub ladders: Vec<LadderStatus>,
    /// For the metrics, which have it in their own form.
    #[serde(skip)]
    pub counts: Counts,
}

#[derive(Clone, Debug, Serialize)]
pub struct LadderStatus {
    pub channel: String,
    pub rungs: Vec<String>,
    /// Those of them that are not encoded for now, because the device had promised more than it had.
    pub suspended: Vec<String>,
    /// How far its encoding lags: the 95th percentile of the last seconds.
    pub encode_lag_ms: Option<u64>,
    /// Shares of all engines of a sort together, in engines.
    pub encode: f64,
    pub decode: f64,
    pub vram_mib: u32,
    pub moving: bool,
}

#[derive(Clone, Debug, Serialize)]
pub struct DecisionStatus {
    /// RFC 3339, UTC.
    pub at: String,
    pub level: &'static str,
    pub text: String,
}

impl Fleet {
    pub fn status(&self) -> DevicesStatus {
        let state = self.state();
        let seats = state.placer.seats();
        let views = state.placer.snapshot();
        let known = self.inner.devices.iter().zip(&views).zip(&state.troubles).zip(&state.readings).zip(&state.counts);
        let devices = known.map(|((((device, view), trouble), reading), counts)| {
            let ladders = seats.iter().filter(|seat| seat.device == view.device).filter_map(|seat| {
                let session = state.sessions.get(&seat.session.0)?;
                let lag = session.mover.as_ref().and_then(engine::Mover::lag);
                let (codec, rate) = session.demand.decode;
                let kind = state.placer.fleet().kinds.get(usize::from(view.kind))?;
                let decode = rate.share(kind.decode.of(codec)).and_then(|share| Share::try_from(share).ok());
                Some(LadderStatus {
                    channel: session.channel.to_string(),
                    rungs: session.video.iter().map(|r| r.id.to_string()).collect(),
                    suspended: session.suspended.iter().map(ToString::to_string).collect(),
                    encode_lag_ms: lag.and_then(|lag| u64::try_from(lag.as_millis()).ok()),
                    encode: seat.encoders.iter().map(|(_, share)| part(*share)).sum(),
                    decode: part(decode.unwrap_or(0)),
                    vram_mib: session.demand.vram,
                    moving: seat.leaving || state.placer.is_moving(seat.session),
                })
            });
            DeviceStatus {
                id: device.id.clone(),
                name: device.id.clone(),
                kind: device.kind.clone(),
                state: match (view.lost, view.draining) {
                    (true, _) => "quarantined",
                    (false, true) => "draining",
                    (false, false) => "ready",
                },
                reason: trouble.reason.clone(),
                worker_pid: device.host.pid(),
                worker_restarts: trouble.restarts,
                encode: view.encode.iter().copied().map(part).collect(),
                encode_limit: part(view.encode_limit),
                decode: view.decode.iter().copied().map(part).collect(),
                decode_limit: part(view.decode_limit),
                vram_mib: view.vram,
                vram_limit_mib: view.vram_limit,
                encoding_sessions: view.encoding_sessions,
                encoding_sessions_left: view.host_sessions_left,
                measured: reading.fresh().cloned(),
                ladders: ladders.collect(),
                counts: counts.clone(),
            }
        });
        let decisions = state.decisions.iter().map(|d| DecisionStatus {
            at: WallTime::from_system(d.at).to_string(),
            level: d.level,
            text: d.text.clone(),
        });
        DevicesStatus {
            policy: match state.placer.settings().policy {
                placement::Policy::Consolidate => "consolidate",
                placement::Policy::Spread => "spread",
            },
            devices: devices.collect(),
            decisions: decisions.collect(),
        }
    }
}

fn part(share: Share) -> f64 {
    f64::from(share) / f64::from(WHOLE)
}

#[cfg(test)]
impl DevicesStatus {
    /// One device with a ladder that has lost a rung.
    pub fn example(measured: Option<Measured>) -> Self {
        let ladder = LadderStatus {
            channel: "cam".to_owned(),
            rungs: vec!["v720".to_owned(), "v360".to_owned()],
            suspended: vec!["v720".to_owned()],
            encode_lag_ms: None,
            encode: 0.1,
            decode: 0.1,
            vram_mib: 100,
            moving: false,
        };
        let counts = Counts { moves: [("throttled", 2)].into(), shed: [("throttled", 1)].into(), regained: 0 };
        let device = DeviceStatus {
            id: "gpu0".to_owned(),
            name: "gpu0".to_owned(),
            kind: "l4".to_owned(),
            state: "ready",
            reason: None,
            worker_pid: None,
            worker_restarts: 0,
            encode: vec![0.1],
            encode_limit: 0.9,
            decode: vec![],
            decode_limit: 0.9,
            vram_mib: 100,
            vram_limit_mib: 1000,
            encoding_sessions: 1,
            encoding_sessions_left: None,
            measured,
            ladders: vec![ladder],
            counts,
        };
        Self { policy: "consolidate", devices: vec![device], decisions: vec![] }
    }
}
