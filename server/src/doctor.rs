//! `fishladder doctor`: prints what this host has and lacks; the exit code tells whether anything that is there is broken.

use std::process::ExitCode;

use engine::probe::{Finding, Level, diagnose};

pub fn run(json: bool) -> ExitCode {
    let findings = diagnose();
    if json {
        match serde_json::to_string_pretty(&findings) {
            Ok(text) => println!("{text}"),
            Err(e) => {
                eprintln!("error: {e}");
                return ExitCode::FAILURE;
            }
        }
    } else {
        print!("{}", text(&findings));
    }
    if findings.iter().all(|f| f.ok) { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn text(findings: &[Finding]) -> String {
    let mut out = String::new();
    for f in findings {
        let mark = match f.level {
            Level::Ok => "ok   ",
            Level::Note => "note ",
            Level::Fault => "FAULT",
        };
        out += &format!("{mark} {}: {}\n", f.subject, f.detail);
        if let Some(remedy) = &f.remedy {
            out += &format!("      {remedy}\n");
        }
    }
    let faults = findings.iter().filter(|f| !f.ok).count();
    out += &match faults {
        0 => "healthy\n".to_owned(),
        1 => "1 fault\n".to_owned(),
        n => format!("{n} faults\n"),
    };
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn finding(level: Level, remedy: Option<&str>) -> Finding {
        Finding {
            ok: level != Level::Fault,
            level,
            code: "code",
            subject: "GPU".into(),
            detail: "detail".into(),
            remedy: remedy.map(str::to_owned),
            device: None,
        }
    }

    #[test]
    fn each_finding_has_its_mark_and_its_command() {
        let shown =
            text(&[finding(Level::Ok, None), finding(Level::Note, None), finding(Level::Fault, Some("mend it"))]);
        assert_eq!(shown, "ok    GPU: detail\nnote  GPU: detail\nFAULT GPU: detail\n      mend it\n1 fault\n");
        assert!(text(&[]).ends_with("healthy\n"));
    }
}
