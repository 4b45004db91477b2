//! CPU time of this program with its workers, and of the whole machine, from /proc (proc(5)).

use std::collections::HashMap;
use std::path::Path;

/// Ticks of USER_HZ, which is 100 on every architecture that we run on.
const TICKS: f64 = 100.0;

/// CPU seconds since some time ago; only differences mean anything.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct CpuTimes {
    /// This process, its descendants that live, and those that it has waited for.
    pub ours: f64,
    pub machine: f64,
}

impl CpuTimes {
    /// Zero where /proc cannot be read.
    pub fn now() -> Self {
        Self::of(Path::new("/proc"), std::process::id())
    }

    fn of(proc: &Path, root: u32) -> Self {
        let processes = processes(proc);
        let own = processes.get(&root).map_or(0, |p| p.own + p.waited_for);
        let ours = own + descendants(&processes, root).iter().map(|p| p.own).sum::<u64>();
        let total = std::fs::read_to_string(proc.join("stat")).ok().and_then(|text| busy(&text)).unwrap_or_default();
        Self { ours: ours as f64 / TICKS, machine: total as f64 / TICKS }
    }

    /// Cores in use since `before`, over `seconds`: by us, and by all others.
    pub fn cores_since(self, before: Self, seconds: f64) -> (f64, f64) {
        let ours = (self.ours - before.ours).max(0.0);
        let others = (self.machine - before.machine - ours).max(0.0);
        (ours / seconds, others / seconds)
    }
}

/// CPU seconds that one process has taken so far. None: it is gone.
pub fn cpu_of(pid: u32) -> Option<f64> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    process(&text).map(|p| p.own as f64 / TICKS)
}

/// Live processes below this one.
pub fn children() -> usize {
    descendants(&processes(Path::new("/proc")), std::process::id()).len()
}

/// The processor as /proc/cpuinfo names it.
pub fn processor() -> String {
    let text = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let name = text.lines().find_map(|l| l.strip_prefix("model name")?.split_once(':'));
    name.map_or_else(|| std::env::consts::ARCH.to_owned(), |(_, name)| name.trim().to_owned())
}

pub fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Process {
    parent: u32,
    zombie: bool,
    /// Ticks.
    own: u64,
    waited_for: u64,
}

fn processes(proc: &Path) -> HashMap<u32, Process> {
    let Ok(entries) = std::fs::read_dir(proc) else { return HashMap::new() };
    let read = |entry: std::fs::DirEntry| {
        let pid: u32 = entry.file_name().to_str()?.parse().ok()?;
        let text = std::fs::read_to_string(entry.path().join("stat")).ok()?;
        Some((pid, process(&text)?))
    };
    entries.flatten().filter_map(read).collect()
}

/// /proc/PID/stat. The name before the last parenthesis may contain anything.
fn process(stat: &str) -> Option<Process> {
    let mut fields = stat.rsplit_once(')')?.1.split_ascii_whitespace();
    let zombie = fields.next()? == "Z";
    let parent = fields.next()?.parse().ok()?;
    // Fields 5 to 13 stand between the parent and utime, stime, cutime, cstime.
    let mut ticks = fields.skip(9).map(|f| f.parse::<u64>().ok());
    let mut two = || Some(ticks.next()?? + ticks.next()??);
    Some(Process { parent, zombie, own: two()?, waited_for: two()? })
}

fn descendants(processes: &HashMap<u32, Process>, root: u32) -> Vec<Process> {
    let mut found = Vec::new();
    let mut parents = vec![root];
    while let Some(parent) = parents.pop() {
        for (pid, process) in processes.iter().filter(|(_, p)| p.parent == parent && !p.zombie) {
            // A process can't be its own ancestor, but /proc is not read in one moment.
            if found.len() < processes.len() {
                found.push(*process);
                parents.push(*pid);
            }
        }
    }
    found
}

/// Ticks of the first line of /proc/stat that were not idle: user, nice, system, irq, softirq; steal is another machine's.
fn busy(stat: &str) -> Option<u64> {
    let fields: Vec<u64> =
        stat.lines().next()?.strip_prefix("cpu ")?.split_ascii_whitespace().filter_map(|f| f.parse().ok()).collect();
    Some([0, 1, 2, 5, 6].iter().filter_map(|n| fields.get(*n)).sum())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn stat(pid: u32, name: &str, state: &str, parent: u32, times: [u64; 4]) -> String {
        let [user, system, children_user, children_system] = times;
        format!(
            "{pid} ({name}) {state} {parent} 1 1 0 -1 4194560 900 0 0 0 {user} {system} {children_user} {children_system} 20 0 1"
        )
    }

    #[test]
    fn the_tree_is_summed_and_strangers_are_not() {
        let proc = tempfile::tempdir().unwrap();
        for (pid, name, state, parent, times) in [
            (10, "fishladder", "S", 1, [100, 50, 30, 20]),
            (11, "fish) R 9 (worker", "R", 10, [200, 0, 7, 7]),
            (12, "below", "S", 11, [0, 100, 0, 0]),
            (13, "gone", "Z", 10, [900, 0, 0, 0]),
            (20, "stranger", "R", 1, [5000, 0, 0, 0]),
        ] {
            std::fs::create_dir(proc.path().join(pid.to_string())).unwrap();
            std::fs::write(proc.path().join(format!("{pid}/stat")), stat(pid, name, state, parent, times)).unwrap();
        }
        std::fs::write(proc.path().join("stat"), "cpu  4000 1000 1000 90000 50 10 20 70 0 0\ncpu0 1 2 3\n").unwrap();
        let times = CpuTimes::of(proc.path(), 10);
        assert_eq!(times, CpuTimes { ours: 5.0, machine: 60.3 });
        let later = CpuTimes { ours: 15.0, machine: 80.3 };
        assert_eq!(later.cores_since(times, 10.0), (1.0, 1.0));
        assert_eq!(times.cores_since(later, 10.0), (0.0, 0.0));
    }

    #[test]
    fn lines_that_are_cut_short_are_nobody() {
        let whole = stat(1, "a", "S", 0, [1, 2, 3, 4]);
        assert_eq!(process(&whole), Some(Process { parent: 0, zombie: false, own: 3, waited_for: 7 }));
        assert_eq!(process("1 (a) S 0 1 1"), None);
        assert_eq!(process(""), None);
        assert_eq!(busy("intr 5"), None);
    }

    #[test]
    fn this_process_has_used_time() {
        assert!(cpu_of(std::process::id()).is_some() && cpu_of(u32::MAX).is_none());
        assert!(CpuTimes::now().machine > 0.0 && cores() > 0 && !processor().is_empty());
    }
}
