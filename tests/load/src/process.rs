//! What a process costs, from Linux's /proc, and this one's limit of open files.

use std::time::Duration;

use nix::sys::resource::{Resource, UsageWho, getrlimit, getrusage, setrlimit};

/// Ticks of a second in /proc: USER_HZ, part of Linux's interface and the same on every machine that we build for.
const TICKS: u64 = 100;

/// CPU time that this process has used, in user and kernel.
pub fn own_cpu() -> Duration {
    let Ok(usage) = getrusage(UsageWho::RUSAGE_SELF) else { return Duration::ZERO };
    let time = |t: nix::sys::time::TimeVal| {
        let micros = i128::from(t.tv_sec()) * 1_000_000 + i128::from(t.tv_usec());
        Duration::from_micros(u64::try_from(micros).unwrap_or(0))
    };
    time(usage.user_time()) + time(usage.system_time())
}

/// CPU time that a process has used. Err: a sentence.
pub fn cpu(pid: u32) -> Result<Duration, String> {
    let path = format!("/proc/{pid}/stat");
    let text = std::fs::read_to_string(&path).map_err(|e| format!("{path}: {e}"))?;
    let ticks = ticks(&text).ok_or_else(|| format!("{path} cannot be read"))?;
    Ok(Duration::from_millis(ticks.saturating_mul(1000 / TICKS)))
}

/// Resident memory of a process in KiB. Err: a sentence.
pub fn rss(pid: u32) -> Result<u64, String> {
    let path = format!("/proc/{pid}/status");
    let text = std::fs::read_to_string(&path).map_err(|e| format!("{path}: {e}"))?;
    let line = text.lines().find_map(|l| l.strip_prefix("VmRSS:"));
    let number = line.and_then(|l| l.split_whitespace().next()?.parse().ok());
    number.ok_or_else(|| format!("{path} cannot be read"))
}

/// Raises the limit of open files as far as it goes. Err: a sentence, when `needed` are still too many.
pub fn allow_files(needed: u64) -> Result<(), String> {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).map_err(|e| format!("RLIMIT_NOFILE: {e}"))?;
    if soft < hard {
        setrlimit(Resource::RLIMIT_NOFILE, hard, hard).map_err(|e| format!("RLIMIT_NOFILE: {e}"))?;
    }
    if needed <= hard {
        return Ok(());
    }
    Err(format!("{needed} open files are needed and {hard} are allowed: ulimit -Hn {needed}, or fewer of everything"))
}

/// utime and stime of /proc/PID/stat (proc(5)). The name before the last parenthesis may contain anything.
fn ticks(stat: &str) -> Option<u64> {
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(11);
    let (user, system) = (fields.next()?.parse::<u64>().ok()?, fields.next()?.parse::<u64>().ok()?);
    user.checked_add(system)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_cost_of_this_process_is_read() {
        let own = std::process::id();
        assert!(rss(own).unwrap() > 500);
        // The kernel counts the same time in ticks there.
        assert!(cpu(own).unwrap() <= own_cpu() + Duration::from_millis(50));
        assert!(rss(0).is_err() && cpu(0).is_err());
        assert_eq!(ticks("7 (a) b) S 1 2 3 4 5 6 7 8 9 10 40 2 0"), Some(42));
        assert_eq!(ticks("7 (a) S 1"), None);
        assert!(allow_files(1).is_ok() && allow_files(u64::MAX).is_err());
    }
}
