//! Each rule is broken once; arbitrary input breaks nothing.
#![allow(clippy::unwrap_used)]

use proptest::prelude::*;

use super::*;

const HEAD: &str = "#EXTM3U\n#EXT-X-VERSION:6\n#EXT-X-TARGETDURATION:2\n\
    #EXT-X-SERVER-CONTROL:CAN-BLOCK-RELOAD=YES,PART-HOLD-BACK=0.60000,HOLD-BACK=6.0,CAN-SKIP-UNTIL=12.0\n\
    #EXT-X-PART-INF:PART-TARGET=0.20000\n";

/// A playlist of segments of 1.6 s: `first` is listed first, `parts` parts of the segment `open` exist.
fn live(first: u64, open: u64, parts: usize) -> String {
    let mut text = format!("{HEAD}#EXT-X-MEDIA-SEQUENCE:{first}\n#EXT-X-DISCONTINUITY-SEQUENCE:3\n");
    text += "#EXT-X-MAP:URI=\"init.mp4\"\n";
    for msn in first..=open {
        let count = if msn == open { parts } else { 8 };
        if count > 0 {
            let millis = msn * 1600;
            text += &format!("#EXT-X-PROGRAM-DATE-TIME:2026-11-20T10:00:{:02}.{:03}Z\n", millis / 1000, millis % 1000);
        }
        for part in (0..count).take(if msn + 3 < open { 0 } else { 8 }) {
            let independent = if part == 0 { ",INDEPENDENT=YES" } else { "" };
            text += &format!("#EXT-X-PART:DURATION=0.2,URI=\"{msn}.{part}.m4s\"{independent}\n");
        }
        if msn < open {
            text += &format!("#EXTINF:1.6,\n{msn}.m4s\n");
        }
    }
    text + &format!(
        "#EXT-X-PRELOAD-HINT:TYPE=PART,URI=\"{open}.{parts}.m4s\"\n#EXT-X-RENDITION-REPORT:URI=\"b\",LAST-MSN=1,LAST-PART=2\n"
    )
}

/// A playlist by itself, and against an earlier one.
fn check_text(previous: Option<&str>, text: &str) -> Findings {
    let mut findings = Findings::default();
    let Some(now) = Playlist::read(text, &mut findings) else { return findings };
    let before = previous.and_then(|text| Playlist::read(text, &mut Findings::default()));
    check_one(&now, before.as_ref().map(Playlist::edge), &mut findings);
    if let Some(before) = &before {
        check_update(before, &now, &mut findings);
    }
    findings
}

fn faults(findings: &Findings) -> Vec<Rule> {
    findings.faults().map(|(rule, _)| rule).collect()
}

#[test]
fn a_good_playlist_and_its_reloads_break_nothing() {
    let states = [live(3, 10, 1), live(3, 10, 8), live(3, 11, 0), live(4, 11, 1), live(5, 13, 3)];
    let mut previous: Option<&str> = None;
    for text in &states {
        let findings = check_text(previous, text);
        assert_eq!(findings.faults().chain(findings.warnings()).collect::<Vec<_>>(), [], "{text}");
        assert!(findings.iter().count() > 15);
        previous = Some(text);
    }
}

#[test]
fn each_rule_of_one_playlist_is_seen() {
    let good = live(3, 10, 3);
    for (find, put, expected) in [
        ("#EXTM3U\n", "#EXTM3V\n", Rule::A1),
        ("EXTINF:1.6", "EXTINF:1.6\u{7}", Rule::A1),
        ("#EXTINF:1.6,\n9.m4s", "9.m4s", Rule::A1),
        ("DURATION=0.2,URI=\"10.1.m4s\"", "DURATION=x,URI=\"10.1.m4s\"", Rule::A1),
        ("MEDIA-SEQUENCE:3", "MEDIA-SEQUENCE:18446744073709551615", Rule::A1),
        ("VERSION:6", "VERSION:5", Rule::A2),
        ("EXT-X-VERSION:6", "EXT-X-VERSION:6\n#EXT-X-VERSION:6", Rule::A2),
        ("TARGETDURATION:2", "TARGETDURATION:1", Rule::A3),
        ("#EXT-X-TARGETDURATION:2\n", "", Rule::A3),
        ("#EXT-X-DISCONTINUITY-SEQUENCE:3\n", "#EXT-X-DISCONTINUITY\n", Rule::A13),
        ("10:00:08.000Z", "10:00:10.000Z", Rule::A16),
        ("#EXT-X-MAP:URI=\"init.mp4\"\n", "", Rule::A17),
        ("\"10.0.m4s\",INDEPENDENT=YES\n", "\"10.0.m4s\"\n#EXT-X-DISCONTINUITY\n", Rule::A18),
        ("\"10.0.m4s\",INDEPENDENT=YES\n", "\"10.0.m4s\"\n#EXT-X-INDEPENDENT-SEGMENTS\n", Rule::A19),
        ("#EXT-X-PART-INF", "#EXT-X-SERVER-CONTROL:CAN-BLOCK-RELOAD=YES,PART-HOLD-BACK=1\n#EXT-X-PART-INF", Rule::A20),
        ("PART-HOLD-BACK=0.60000,", "", Rule::A21),
        ("PART-HOLD-BACK=0.60000,", "PART-HOLD-BACK=0.3,", Rule::A21),
        ("HOLD-BACK=6.0", "HOLD-BACK=5.9", Rule::A21),
        ("UNTIL=12.0", "UNTIL=11.9", Rule::A22),
        ("DURATION=0.2,URI=\"10.1.m4s\"", "DURATION=0.201,URI=\"10.1.m4s\"", Rule::A23),
        ("DURATION=0.2,URI=\"10.1.m4s\"", "DURATION=0.16,URI=\"10.1.m4s\"", Rule::A24),
        ("EXTINF:1.6,\n9.m4s", "EXTINF:1.5,\n9.m4s", Rule::A26),
        ("#EXT-X-PRELOAD-HINT", "#EXT-X-ENDLIST\n#EXT-X-PRELOAD-HINT", Rule::A29),
        (",LAST-MSN=1", "", Rule::A33),
    ] {
        let text = good.replacen(find, put, 1);
        assert_ne!(text, good, "{find}");
        let found = faults(&check_text(None, &text));
        assert!(found.contains(&expected), "{put}: {found:?}\n{text}");
        assert!(found.len() <= 3, "{put}: {found:?}");
    }
    for (find, put, expected) in [
        ("CAN-BLOCK-RELOAD=YES,", "", Rule::A20),
        (",LAST-PART=2", "", Rule::A33),
        ("PART-HOLD-BACK=0.60000,", "PART-HOLD-BACK=0.5,", Rule::A21),
        ("#EXTINF:1.6,\n4.m4s", "#EXT-X-PART:DURATION=0.2,URI=\"x\"\n#EXTINF:0.2,\n4.m4s", Rule::A28),
        ("#EXT-X-PRELOAD-HINT", "#EXT-X-PRELOAD-HINT:TYPE=PART,URI=\"x\"\n#EXT-X-PRELOAD-HINT", Rule::A29),
    ] {
        let text = good.replacen(find, put, 1);
        let findings = check_text(None, &text);
        assert!(findings.warnings().any(|(rule, _)| rule == expected), "{put}\n{text}");
    }
}

#[test]
fn a_changed_history_is_seen() {
    let before = live(3, 10, 3);
    let after = live(4, 10, 4);
    for (find, put, expected) in [
        ("TARGETDURATION:2", "TARGETDURATION:3", Rule::A3),
        ("MEDIA-SEQUENCE:4", "MEDIA-SEQUENCE:2", Rule::A5),
        ("\n9.m4s", "\n9x.m4s", Rule::A6),
        ("EXTINF:1.6,\n8.m4s", "EXTINF:1.601,\n8.m4s", Rule::A6),
        ("\"10.0.m4s\"", "\"10.x.m4s\"", Rule::A6),
        ("10:00:08.000Z", "10:00:08.001Z", Rule::A6),
        ("init.mp4", "init-2.mp4", Rule::A6),
        ("#EXT-X-MAP", "#EXT-X-PLAYLIST-TYPE:EVENT\n#EXT-X-MAP", Rule::A7),
        ("SEQUENCE:3", "SEQUENCE:4", Rule::A13),
        ("SEQUENCE:3", "SEQUENCE:2", Rule::A13),
        ("CAN-SKIP-UNTIL=12.0", "CAN-SKIP-UNTIL=13.0", Rule::A20),
        ("PART-TARGET=0.20000", "PART-TARGET=0.20001", Rule::A25),
    ] {
        let text = after.replacen(find, put, 1);
        assert_ne!(text, after, "{find}");
        let found = faults(&check_text(Some(&before), &text));
        assert!(found.contains(&expected), "{put}: {found:?}\n{text}");
    }
    assert_eq!(faults(&check_text(Some(&before), &live(3, 10, 2))), [Rule::A6], "the end went back");
    assert_eq!(faults(&check_text(Some(&live(3, 10, 3)), &live(9, 10, 4))), [Rule::A8], "the window shrank");
}

#[test]
fn a_delta_update_is_held_against_what_is_known() {
    let check = |before: &str, text: &str| {
        let mut findings = Findings::default();
        let before = Playlist::read(before, &mut findings).unwrap();
        check_delta(&before, &Playlist::read(text, &mut findings).unwrap(), &mut findings);
        faults(&findings)
    };
    let delta = |first: u64, skipped: u64, open| {
        live(first + skipped, open, 1).replace(
            &format!("MEDIA-SEQUENCE:{}", first + skipped),
            &format!("MEDIA-SEQUENCE:{first}\n#EXT-X-SKIP:SKIPPED-SEGMENTS={skipped}"),
        )
    };
    assert_eq!(check(&live(3, 15, 1), &delta(3, 4, 16)), []);
    assert_eq!(check(&live(3, 15, 1), &delta(3, 8, 16)), [Rule::A34], "too little is left");
    assert_eq!(check(&live(3, 6, 1), &delta(3, 5, 17)), [Rule::A34], "what was never listed");
    assert_eq!(check(&live(3, 15, 1), &delta(3, 0, 16)), [Rule::A34], "nothing");
}

#[test]
fn renditions_are_held_against_each_other() {
    let check = |a: &str, b: &str| {
        let mut findings = Findings::default();
        let (a, b) = (Playlist::read(a, &mut findings).unwrap(), Playlist::read(b, &mut findings).unwrap());
        check_across(("a", &a), ("b", &b), &mut findings);
        faults(&findings)
    };
    let good = live(3, 10, 1);
    assert_eq!(check(&good, &live(4, 10, 4)), []);
    assert_eq!(check(&good, &good.replace("SEQUENCE:3\n#EXT-X-MAP", "SEQUENCE:4\n#EXT-X-MAP")), [Rule::A14]);
    let broken = good.replace(
        "#EXT-X-PROGRAM-DATE-TIME:2026-11-20T10:00:08",
        "#EXT-X-DISCONTINUITY\n#EXT-X-PROGRAM-DATE-TIME:2026-11-20T10:00:08",
    );
    assert_eq!(check(&good, &broken), [Rule::A14]);
    assert_eq!(check(&good, &good.replace("TARGETDURATION:2", "TARGETDURATION:3")), [Rule::A58]);
    assert_eq!(check(&good, &good.replace("UNTIL=12", "UNTIL=13")), [Rule::A20]);
}

#[test]
fn multivariant_rules_are_seen() {
    let good = "#EXTM3U\n#EXT-X-VERSION:6\n\
        #EXT-X-MEDIA:TYPE=AUDIO,GROUP-ID=\"aac\",NAME=\"AAC\",LANGUAGE=\"und\",DEFAULT=YES,CHANNELS=\"2\",URI=\"aac/index.m3u8\"\n\
        #EXT-X-STREAM-INF:BANDWIDTH=900,AVERAGE-BANDWIDTH=800,CODECS=\"avc1.42C01F,mp4a.40.2\",RESOLUTION=640x360,FRAME-RATE=30.000,AUDIO=\"aac\"\n\
        v/index.m3u8\n";
    let check = |text: &str| {
        let mut findings = Findings::default();
        let read = Multivariant::read(text, &mut findings);
        assert!(read.variants.len() <= 2);
        faults(&findings)
    };
    assert!(Multivariant::is_one(good) && !Multivariant::is_one(&live(3, 10, 1)));
    assert_eq!(check(good), []);
    for (find, put, expected) in [
        ("BANDWIDTH=900,", "", Rule::A56),
        ("BANDWIDTH=900,", "BANDWIDTH=700,", Rule::A56),
        ("CODECS=\"avc1.42C01F,mp4a.40.2\",", "", Rule::A57),
        ("RESOLUTION=640x360,", "", Rule::A57),
        ("FRAME-RATE=30.000,", "", Rule::A57),
        (",AUDIO=\"aac\"", ",AUDIO=\"opus\"", Rule::A59),
        ("NAME=\"AAC\",", "", Rule::A59),
        ("#EXT-X-STREAM", "#EXT-X-MEDIA:TYPE=AUDIO,GROUP-ID=\"aac\",NAME=\"AAC\",URI=\"b\"\n#EXT-X-STREAM", Rule::A59),
        ("v/index.m3u8\n", "", Rule::A1),
    ] {
        let text = good.replacen(find, put, 1);
        assert_ne!(text, good, "{find}");
        assert!(check(&text).contains(&expected), "{put}");
    }
}

proptest! {
    #[test]
    fn no_text_panics(
        lines in proptest::collection::vec("(#EXT(-X-(PART|MAP|SKIP|PART-INF|BYTERANGE|PRELOAD-HINT|SERVER-CONTROL|TARGETDURATION|MEDIA-SEQUENCE|DISCONTINUITY-SEQUENCE|RENDITION-REPORT|PROGRAM-DATE-TIME|STREAM-INF|MEDIA)|INF):)?((URI|DURATION|BYTERANGE|LAST-MSN|SKIPPED-SEGMENTS|PART-TARGET|CAN-SKIP-UNTIL)=\"?[0-9.@]{0,22}\"?,?){0,3}[0-9T:.Z-]{0,24}\\PC{0,5}", 0..30),
        split in 0usize..30,
    ) {
        let text = format!("#EXTM3U\n#EXT-X-TARGETDURATION:{split}\n{}", lines.join("\n"));
        let other = format!("#EXTM3U\n#EXT-X-TARGETDURATION:2\n{}", lines.iter().skip(split).cloned().collect::<Vec<_>>().join("\n"));
        let mut findings = check_text(Some(&other), &text);
        findings.absorb(check_text(None, &lines.join("\n")), "raw");
        let _ = Multivariant::read(&text, &mut findings);
        let (a, b) = (Playlist::read(&text, &mut findings), Playlist::read(&other, &mut findings));
        if let (Some(a), Some(b)) = (a, b) {
            check_across(("a", &a), ("b", &b), &mut findings);
            check_delta(&a, &b, &mut findings);
        }
    }

    #[test]
    fn edited_playlists_do_not_panic(at in 0usize..2000, with in "\\PC{0,12}", cut in 0usize..40) {
        let good = live(3, 10, 3);
        let characters: Vec<char> = good.chars().collect();
        let at = at.min(characters.len());
        let text: String = characters[..at].iter().copied().chain(with.chars()).chain(characters[at..].iter().copied().skip(cut)).collect();
        let _ = check_text(Some(&good), &text);
        let _ = check_text(Some(&text), &good);
    }
}
