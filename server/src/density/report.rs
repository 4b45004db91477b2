//! What was measured, as a table and as JSON. Pure.

use std::fmt::Write;

use serde::Serialize;

use super::ramp::{LEAST_RATE, MOST_LAG_MS, Step};

#[derive(Debug, Default, Serialize)]
pub struct Report {
    /// `cpu`, or the GPU's UUID or render node.
    pub device: String,
    /// What it is called, and what it leaves to the CPU.
    pub device_name: String,
    pub processor: String,
    pub cores: usize,
    pub ladder: String,
    pub renditions: Vec<Rendition>,
    pub source: Source,
    /// How long each step was measured.
    pub seconds: u32,
    pub steps: Vec<Step>,
    /// The most sessions that held in real time.
    pub sessions: usize,
    /// One session more did not hold; otherwise the ramp ended before the limit was found.
    pub limit_found: bool,
    pub interrupted: bool,
    /// Megapixels a second that the most sessions needed.
    pub encode_mps: f64,
    pub decode_mps: f64,
    pub cost_per_session_hour: Option<f64>,
}

#[derive(Debug, Default, Serialize)]
pub struct Source {
    pub width: u32,
    pub height: u32,
    pub frame_rate: u32,
    pub picture: String,
}

#[derive(Debug, Serialize)]
pub struct Rendition {
    pub id: String,
    pub width: u32,
    pub height: u32,
    pub frame_rate: u32,
    pub codec: &'static str,
    pub bitrate: u32,
    pub preset: String,
}

impl Report {
    /// Draws the conclusions from the steps.
    pub fn conclude(&mut self, sessions: usize, limit_found: bool, cost_per_hour: Option<f64>) {
        (self.sessions, self.limit_found) = (sessions, limit_found);
        let mps = |width: u32, height: u32, rate: u32| f64::from(width) * f64::from(height) * f64::from(rate) / 1e6;
        let encode: f64 = self.renditions.iter().map(|r| mps(r.width, r.height, r.frame_rate)).sum();
        self.encode_mps = encode * sessions as f64;
        self.decode_mps = mps(self.source.width, self.source.height, self.source.frame_rate) * sessions as f64;
        self.cost_per_session_hour = cost_per_hour.filter(|_| sessions > 0).map(|cost| cost / sessions as f64);
    }

    pub fn text(&self) -> String {
        let mut t = String::new();
        // Writing to a String can't fail.
        let mut line = |text: std::fmt::Arguments<'_>| {
            let _ = writeln!(t, "{text}");
        };
        line(format_args!("device      {}", self.device_name));
        line(format_args!("machine     {} cores, {}", self.cores, self.processor));
        let s = &self.source;
        line(format_args!("source      {}x{} at {} FPS, H.264, {}", s.width, s.height, s.frame_rate, s.picture));
        for (n, r) in self.renditions.iter().enumerate() {
            let head = if n == 0 { format!("ladder      {}:", self.ladder) } else { " ".repeat(12) };
            let Rendition { id, width, height, frame_rate, preset, .. } = r;
            line(format_args!(
                "{head} {id} {width}x{height} at {frame_rate} FPS, {} kbit/s, {preset}",
                r.bitrate / 1000
            ));
        }
        line(format_args!(""));
        line(format_args!(
            "{:>8} {:>8} {:>8} {:>8} {:>8} {:>8} {:>6} {:>7} {:>6} {:>6}",
            "sessions", "avg FPS", "min FPS", "lag p50", "lag p95", "dropped", "CPU", "others", "enc %", "dec %"
        ));
        for step in &self.steps {
            let percent = |p: Option<f64>| p.map_or("-".to_owned(), |p| format!("{p:.0}"));
            let verdict = if step.held() { String::new() } else { format!("  too many: {}", step.reasons.join(", ")) };
            line(format_args!(
                "{:>8} {:>8.2} {:>8.2} {:>5} ms {:>5} ms {:>8} {:>6.2} {:>7.2} {:>6} {:>6}{verdict}",
                step.sessions,
                step.fps_average,
                step.fps_min,
                step.lag_p50_ms,
                step.lag_p95_ms,
                step.dropped,
                step.cpu,
                step.cpu_others,
                percent(step.encoder_percent),
                percent(step.decoder_percent)
            ));
        }
        line(format_args!(""));
        let least = match (self.interrupted, self.limit_found) {
            (_, true) => "",
            (true, false) => "at least, the ramp was interrupted: ",
            (false, false) => "at least, the ramp ended at --max: ",
        };
        line(format_args!("maximum     {least}{} in real time for {} s", counted(self.sessions), self.seconds));
        line(format_args!("            encoded {:.1} MP/s, decoded {:.1} MP/s", self.encode_mps, self.decode_mps));
        if let Some(cost) = self.cost_per_session_hour {
            line(format_args!("cost        {cost:.4} per session-hour"));
        }
        line(format_args!(
            "A step holds when every session keeps {:.0} % of the frame rate, has its pictures encoded within {MOST_LAG_MS} ms (p95) and drops none.",
            LEAST_RATE * 100.0
        ));
        line(format_args!("CPU and others are cores in use: by the sessions, and by the machine's other processes."));
        if self.encoder_use_is_unknown() {
            line(format_args!("Engine use (enc, dec) is unknown: no NVIDIA driver tells it for this device."));
        }
        let busiest = self.steps.iter().map(|s| s.cpu_others).fold(0.0, f64::max);
        if busiest > self.cores as f64 / 10.0 {
            line(format_args!("Other processes took up to {busiest:.2} cores: an idle machine holds more."));
        }
        t
    }

    fn encoder_use_is_unknown(&self) -> bool {
        self.steps.iter().all(|s| s.encoder_percent.is_none())
    }

    /// The NVIDIA device plugin's configuration that lets as many pods share the GPU as it holds sessions.
    pub fn time_slicing(&self) -> String {
        format!(
            "# Configuration of NVIDIA's Kubernetes device plugin: one session of {} in each pod.\n\
             # Time slicing bounds nobody: a pod that encodes more takes it from the others.\n\
             version: v1\n\
             sharing:\n\
             \x20 timeSlicing:\n\
             \x20   resources:\n\
             \x20     - name: nvidia.com/gpu\n\
             \x20       replicas: {}\n",
            self.ladder, self.sessions
        )
    }
}

/// `1 session`, `2 sessions`.
pub fn counted(n: usize) -> String {
    if n == 1 { "1 session".to_owned() } else { format!("{n} sessions") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report() -> Report {
        let step = |sessions, lag, reasons: &[&str]| Step {
            sessions,
            fps_average: 24.99,
            fps_min: 24.98,
            lag_p50_ms: 31,
            lag_p95_ms: lag,
            cpu: 1.25,
            cpu_others: 0.05,
            reasons: reasons.iter().map(|r| (*r).to_owned()).collect(),
            ..Step::default()
        };
        let rung = |id: &str, width, height| Rendition {
            id: id.into(),
            width,
            height,
            frame_rate: 25,
            bitrate: 5_000_000,
            codec: "h264",
            preset: "p1".into(),
        };
        Report {
            device: "cpu".into(),
            device_name: "CPU".into(),
            processor: "Test".into(),
            cores: 2,
            ladder: "two".into(),
            renditions: vec![rung("v1080", 1920, 1080), rung("v720", 1280, 720)],
            source: Source { width: 1920, height: 1080, frame_rate: 25, picture: "generated motion".into() },
            seconds: 10,
            steps: vec![step(1, 60, &[]), step(2, 480, &[]), step(4, 2000, &["lag 2000 ms", "3 dropped"])],
            ..Report::default()
        }
    }

    #[test]
    fn the_table_has_a_line_for_each_step_and_says_why_one_was_too_many() {
        let mut r = report();
        r.conclude(2, true, Some(0.5));
        let text = r.text();
        assert!(
            text.contains("       2    24.99    24.98    31 ms   480 ms        0   1.25    0.05      -      -\n"),
            "{text}"
        );
        assert!(text.contains("      -  too many: lag 2000 ms, 3 dropped\n"), "{text}");
        assert!(text.contains("maximum     2 sessions in real time for 10 s\n"), "{text}");
        assert!(text.contains("encoded 149.8 MP/s, decoded 103.7 MP/s"), "{text}");
        assert!(text.contains("cost        0.2500 per session-hour"), "{text}");
        assert!(text.contains("Engine use (enc, dec) is unknown"), "{text}");
        assert!(!text.contains("Other processes"), "{text}");
        assert!(r.time_slicing().ends_with("        replicas: 2\n"));
    }

    #[test]
    fn a_limit_that_was_not_found_is_said_and_nothing_costs_what_did_not_run() {
        let mut r = report();
        r.conclude(4, false, Some(1.0));
        assert!(r.text().contains("at least, the ramp ended at --max: 4 sessions"));
        r.interrupted = true;
        assert!(r.text().contains("at least, the ramp was interrupted: 4 sessions"));
        r.conclude(0, true, Some(1.0));
        assert_eq!(r.cost_per_session_hour, None);
        assert!(r.text().contains("maximum     0 sessions"));
        if let Some(step) = r.steps.first_mut() {
            (step.cpu_others, step.encoder_percent) = (0.5, Some(71.4));
        }
        assert!(r.text().contains("Other processes took up to 0.50 cores") && r.text().contains("     71      -\n"));
    }
}
