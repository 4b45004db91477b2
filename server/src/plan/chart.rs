//! The chart of `fishladder plan`: one HTML file with inline SVG, no scripts, readable in light and dark.
use std::fmt::Write;

use super::{KindUse, Simulated};

const WIDTH: f64 = 900.0;
const HEIGHT: f64 = 280.0;
/// Room for the labels of the axes.
const LEFT: f64 = 56.0;
const BOTTOM: f64 = 28.0;
const TOP: f64 = 12.0;

const STYLE: &str = "
:root{color-scheme:light dark;--ink:#1c2430;--dim:#5b6675;--rule:#d5dae1;--paper:#ffffff;--a:#0b63c5;--b:#a85b00;--c:#2c7a4b}
@media(prefers-color-scheme:dark){:root{--ink:#e6eaf0;--dim:#9aa5b4;--rule:#39424f;--paper:#14181e;--a:#6cb2ff;--b:#f0a54a;--c:#6fd39a}}
body{font:15px/1.5 system-ui,sans-serif;color:var(--ink);background:var(--paper);max-width:960px;margin:2rem auto;padding:0 1rem}
svg{width:100%;height:auto}svg text{font:12px system-ui,sans-serif;fill:var(--dim)}
table{border-collapse:collapse;width:100%}th,td{text-align:right;padding:.3rem .6rem;border-bottom:1px solid var(--rule)}
th:first-child,td:first-child{text-align:left}.key{display:inline-block;width:1.6em;height:0;border-top:3px solid;margin:0 .4em .25em 1em;vertical-align:middle}
";

pub fn page(s: &Simulated) -> String {
    let o = &s.outcome;
    let mut h = String::new();
    let mut put = |text: std::fmt::Arguments<'_>| {
        let _ = h.write_fmt(text);
    };
    put(format_args!(
        "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><meta name=\"viewport\" content=\"width=device-width\">"
    ));
    let heading = match o.refused() {
        0 => format!("{} GPUs needed", o.peak),
        n => format!("{} GPUs in use do not hold the workload: {n} sessions refused", o.peak),
    };
    put(format_args!("<title>Fishladder plan</title><style>{STYLE}</style><h1>{heading}</h1>"));
    put(format_args!(
        "<p>{} sessions in {:.0} hours, at most {} at once; {:.1} GPUs in use on average, {:.3} of the lower bound; {} refused, {} migrations.</p>",
        s.sessions,
        o.hours,
        o.most_live,
        o.in_use,
        o.ratio(),
        o.refused(),
        o.migrations
    ));
    if let (Some(in_use), Some(at_peak)) = (s.cost_in_use, s.cost_at_peak) {
        put(format_args!(
            "<p>A session-hour costs {in_use:.4} when GPUs are paid while in use, {at_peak:.4} when the peak is paid throughout.</p>"
        ));
    }
    let points = |value: &dyn Fn(&placement::sim::Sample) -> f64| -> Vec<(f64, f64)> {
        o.curve.iter().map(|s| (s.hour, value(s))).collect()
    };
    put(format_args!(
        "<h2>GPUs<span class=\"key\" style=\"color:var(--a)\"></span>in use<span class=\"key\" style=\"color:var(--b)\"></span>lower bound</h2>"
    ));
    let gpus = [("a", points(&|s| s.in_use as f64)), ("b", points(&|s| s.bound))];
    put(format_args!("{}", lines("GPUs in use and the lower bound over time", &gpus, o.hours)));
    put(format_args!("<h2>Sessions<span class=\"key\" style=\"color:var(--c)\"></span>live</h2>"));
    put(format_args!("{}", lines("Live sessions over time", &[("c", points(&|s| s.live as f64))], o.hours)));
    put(format_args!(
        "<h2>Utilisation of the GPUs in use</h2>{}",
        bars(&[("encode", o.encode), ("decode", o.decode), ("VRAM", o.vram)])
    ));
    put(format_args!("<h2>Devices</h2>{}", table(&s.kinds)));
    if !o.refusals.is_empty() {
        put(format_args!("<h2>Refusals</h2><table><tr><th>reason<th>sessions"));
        for (cause, n) in &o.refusals {
            put(format_args!("<tr><td>{}<td>{n}", escape(cause)));
        }
        put(format_args!("</table>"));
    }
    put(format_args!("</html>\n"));
    h
}

/// A line for each series of (hour, value); the first name is its colour.
fn lines(title: &str, series: &[(&str, Vec<(f64, f64)>)], hours: f64) -> String {
    let most = series.iter().flat_map(|(_, points)| points).map(|(_, v)| *v).fold(1.0, f64::max);
    let step = nice_step(most);
    let top = (most / step).ceil() * step;
    let x = |hour: f64| LEFT + (WIDTH - LEFT) * hour / hours.max(f64::MIN_POSITIVE);
    let y = |value: f64| TOP + (HEIGHT - TOP - BOTTOM) * (1.0 - value / top);
    let mut svg = format!("<svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-label=\"{}\">", escape(title));
    let mut put = |text: std::fmt::Arguments<'_>| {
        let _ = svg.write_fmt(text);
    };
    for n in 0..=(top / step).round() as u32 {
        let (value, at) = (f64::from(n) * step, y(f64::from(n) * step));
        put(format_args!("<path d=\"M{LEFT} {at:.1}H{WIDTH}\" stroke=\"var(--rule)\"/>"));
        put(format_args!("<text x=\"{:.0}\" y=\"{:.1}\" text-anchor=\"end\">{value}</text>", LEFT - 6.0, at + 4.0));
    }
    let hour_step = [1.0, 2.0, 6.0, 12.0, 24.0, 168.0, 720.0].into_iter().find(|s| hours / s <= 12.0).unwrap_or(1440.0);
    for n in 0..=(hours / hour_step) as u32 {
        let hour = f64::from(n) * hour_step;
        let anchor = if hour >= hours { "end" } else { "middle" };
        put(format_args!(
            "<text x=\"{:.1}\" y=\"{:.0}\" text-anchor=\"{anchor}\">{hour} h</text>",
            x(hour),
            HEIGHT - 8.0
        ));
    }
    for (colour, points) in series {
        let mut path = String::new();
        for (n, (hour, value)) in points.iter().enumerate() {
            let _ = write!(path, "{}{:.1} {:.1}", if n == 0 { 'M' } else { 'L' }, x(*hour), y(*value));
        }
        put(format_args!("<path d=\"{path}\" fill=\"none\" stroke=\"var(--{colour})\" stroke-width=\"2\"/>"));
    }
    put(format_args!("</svg>"));
    svg
}

/// Horizontal bars of parts from 0 to 1.
fn bars(parts: &[(&str, f64)]) -> String {
    let mut svg = format!("<svg viewBox=\"0 0 {WIDTH} {}\" role=\"img\" aria-label=\"Utilisation\">", parts.len() * 30);
    for (n, (name, part)) in parts.iter().enumerate() {
        let y = n * 30;
        let full = WIDTH - 180.0;
        let _ = write!(
            svg,
            "<text x=\"0\" y=\"{}\">{name}</text><rect x=\"80\" y=\"{}\" width=\"{full}\" height=\"16\" fill=\"var(--rule)\"/>\
             <rect x=\"80\" y=\"{}\" width=\"{:.1}\" height=\"16\" fill=\"var(--a)\"/><text x=\"{}\" y=\"{}\">{:.1} %</text>",
            y + 18,
            y + 6,
            y + 6,
            full * part.clamp(0.0, 1.0),
            full + 92.0,
            y + 18,
            part * 100.0
        );
    }
    svg.push_str("</svg>");
    svg
}

fn table(kinds: &[KindUse]) -> String {
    let mut t = "<table><tr><th>device<th>evidence<th>have<th>average<th>peak<th>price an hour".to_owned();
    for k in kinds {
        let name = escape(&k.name);
        let _ = write!(
            t,
            "<tr><td>{name}<td>{}<td>{}<td>{:.1}<td>{}<td>{:.2}",
            k.evidence, k.have, k.average, k.peak, k.price
        );
    }
    t.push_str("</table><p>Evidence of engines, speed and memory: D documented, R reported, M remembered, E estimated, O the operator's.</p>");
    t
}

/// 1, 2 or 5 times a power of ten, so that at most about six lines stand in the chart.
fn nice_step(most: f64) -> f64 {
    let raw = most / 5.0;
    let power = 10f64.powf(raw.log10().floor()).max(1.0);
    [1.0, 2.0, 5.0, 10.0].into_iter().map(|m| m * power).find(|s| *s >= raw).unwrap_or(power)
}

/// Names come from the operator's files.
fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}
