//! Tests of the configuration.
#![allow(clippy::unwrap_used)]

use serde_json::json;

use super::*;

const MANUAL: &str = include_str!("../../../configs/fishladder.toml");

fn parse(toml: &str) -> Result<Config, Vec<Fault>> {
    Config::parse(toml, &[], |_| None)
}

fn paths(result: Result<Config, Vec<Fault>>) -> Vec<String> {
    result.unwrap_err().into_iter().map(|f| f.path).collect()
}

#[test]
fn nothing_given_means_the_defaults() {
    assert_eq!(parse(""), Ok(Config::default()));
}

#[test]
fn the_manual_says_what_the_defaults_are() {
    assert_eq!(parse(MANUAL), Ok(Config::default()));
    // Keys without a default stand in it as comments; with their comment signs removed they must be valid too.
    let mut all = String::new();
    for line in MANUAL.lines() {
        all.push_str(line.strip_prefix("#= ").unwrap_or(line));
        all.push('\n');
    }
    // The files of keys that the manual names are not here.
    let keys = tempfile::tempdir().unwrap();
    for (name, key) in [("viewer.key", "k"), ("viewer.previous.key", "p")] {
        std::fs::write(keys.path().join(name), key.repeat(64)).unwrap();
        let here = keys.path().join(name).display().to_string();
        all = all.replace(&format!("\"/etc/fishladder/{name}\""), &format!("{here:?}"));
    }
    let calibration = keys.path().join("calibration.toml");
    std::fs::write(&calibration, "").unwrap();
    all = all.replace("\"/etc/fishladder/calibration.toml\"", &format!("{:?}", calibration.display().to_string()));
    let faults = Config::parse(&all, &[], |v| v.starts_with("FISH").then(|| "0123456789abcdef".to_owned()));
    let config = faults.unwrap();
    assert!(config.http.tls.is_some() && config.auth.admin_token.is_some() && config.channels.len() == 3);
    // ... and together they name every key there is: each known key is written somewhere in the manual.
    for key in [
        "listen",
        "max_connections",
        "max_connections_per_address",
        "header_timeout",
        "body_timeout",
        "idle_timeout",
        "write_timeout",
        "certificate",
        "key",
        "udp_listen",
        "external_addresses",
        "create_channels",
        "max_sessions",
        "takeover_after",
        "part_target",
        "segment_target",
        "window",
        "default",
        "passthrough",
        "source_bitrate",
        "audio_bitrate",
        "rungs",
        "publish_token_file",
        "admin_token_file",
        "key_file",
        "previous_key_file",
        "stall_timeout",
        "calibration",
        "fails_after",
        "throttles_after",
        "throttles_for",
        "throttles_to",
        "level",
        "json",
        "source",
        "ladder",
    ] {
        let found = all.lines().any(|l| l.starts_with(&format!("{key} =")) || l.starts_with(&format!("{key}.")));
        assert!(found, "{key} is not in the manual");
    }
}

#[test]
fn all_faults_come_together_with_their_paths() {
    let faults = paths(parse(
        r#"
        colour = 1
        [http]
        listen = "nowhere"
        max_conections = 5
        [hls]
        part_target = 200
        segment_target = "1m"
        [ladders.passthrough]
        [ladders.odd]
        rungs = [{ height = 361, bitrate = "1k", speed = 1 }]
        [channels."a b"]
        source.whip = {}
        [channels.cam]
        source.rtsp.url = "http://x/"
        ladder = "none"
        [channels.two]
        source = { whip = {}, rtp = { sdp = "v=0" } }
        "#,
    ));
    for path in [
        "colour",
        "http.listen",
        "http.max_conections",
        "hls.part_target",
        "hls.segment_target",
        "ladders.passthrough",
        "ladders.odd.rungs[0].height",
        "ladders.odd.rungs[0].bitrate",
        "ladders.odd.rungs[0].speed",
        "channels.a b",
        "channels.cam.source.rtsp.url",
        "channels.cam.ladder",
        "channels.two.source",
    ] {
        assert!(faults.iter().any(|f| f == path), "{path} missing in {faults:?}");
    }
    assert_eq!(faults.len(), 13, "{faults:?}");
}

#[test]
fn a_simulated_device_throttles_for_the_time_it_is_told() {
    let c =
        parse("[devices.simulated.a]\nthrottles_after = \"10s\"\nthrottles_for = \"5s\"\nthrottles_to = 30").unwrap();
    let throttles = c.devices.simulated["a"].throttles;
    let at = |seconds| throttles.at(Duration::from_secs(seconds));
    assert_eq!([9, 10, 14, 15].map(at), [None, Some(30), Some(30), None]);
    let for_good = Throttles { lasts: None, ..throttles };
    assert_eq!(for_good.at(Duration::from_secs(99_999)), Some(30));
    assert_eq!(Throttles::default().at(Duration::from_secs(99_999)), None);
    assert_eq!(paths(parse("devices.simulated.a.throttles_to = 100")), ["devices.simulated.a.throttles_to"]);
}

#[test]
fn a_near_miss_is_named() {
    let faults = parse("[hls]\npart_taget = \"200ms\"").unwrap_err();
    assert_eq!(faults[0].to_string(), "hls.part_taget: unknown key; did you mean `part_target`?");
}

#[test]
fn bad_toml_names_the_line() {
    let faults = parse("[http]\nlisten = \n").unwrap_err();
    assert!(faults[0].problem.starts_with("line 2: "), "{faults:?}");
}

#[test]
fn bounds_relate_to_each_other() {
    assert_eq!(paths(parse("hls.part_target = \"1s\"\nhls.window = \"60s\"")), ["hls.segment_target"]);
    assert_eq!(paths(parse("hls.segment_target = \"6s\"")), ["hls.window"]);
    assert!(parse("hls.part_target = \"500ms\"\nhls.window = \"12s\"").is_ok());
}

#[test]
fn overrides_win_and_need_no_quotes() {
    let set: Vec<String> = [
        "http.listen=127.0.0.1:0",
        "hls.part_target=330ms",
        "whip.create_channels=false",
        "log.level=\"debug\"",
        "channels.cam.source.rtsp.url=rtsp://user:pw@camera/1?a=b",
        "ladder.default=passthrough",
    ]
    .map(str::to_owned)
    .to_vec();
    let c = Config::parse("[hls]\npart_target = \"100ms\"", &set, |_| None).unwrap();
    assert_eq!(c.hls.part_target, Duration::from_millis(330));
    assert_eq!(c.http.listen.port(), 0);
    assert!(!c.whip.create_channels);
    assert_eq!(c.log.level, "debug");
    assert_eq!(c.ladder.default, PASSTHROUGH);
    let cam = c.channels.get(&"cam".parse::<ChannelName>().unwrap()).unwrap();
    assert_eq!(cam.source, SourceRequest::Rtsp { url: "rtsp://user:pw@camera/1?a=b".to_owned() });
    for bad in ["x", "=1", "a..b=1", "http.listen.port=1", "http.nothing=1"] {
        let result = Config::parse("[http]\nlisten = \"127.0.0.1:1\"", &[bad.to_owned()], |_| None);
        assert_eq!(result.unwrap_err().len(), 1, "{bad}");
    }
}

#[test]
fn no_exposure_without_tokens() {
    let token = |name: &str| name.contains("TOKEN").then(|| "0123456789abcdef".to_owned());
    let open = "[http]\nlisten = \"0.0.0.0:8080\"";
    let faults = parse(open).unwrap_err();
    assert_eq!(faults.len(), 2);
    assert!(faults[0].problem.contains("FISHLADDER_PUBLISH_TOKEN"), "{faults:?}");
    assert!(faults[1].problem.contains("auth.admin_token_file"), "{faults:?}");
    assert!(Config::parse(open, &[], token).is_ok());
    assert_eq!(paths(parse("http.listen = \"[::]:8080\"")), ["http.listen", "http.listen"]);
    assert!(parse("http.listen = \"[::1]:8080\"").is_ok());
    assert!(parse("http.listen = \"127.9.9.9:8080\"").is_ok());
    assert_eq!(paths(parse("whip.udp_listen = \"192.0.2.1:8189\"")), ["whip.udp_listen"]);
}

#[test]
fn keys_of_signed_paths_come_from_files_and_stay_secret() {
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        let path = dir.path().join(name);
        std::fs::write(&path, text).unwrap();
        format!("{:?}", path.display().to_string())
    };
    let (new, old) = (file("new", &format!("{}\n", "n".repeat(64))), file("old", &"o".repeat(32)));
    let c = parse(&format!("viewers.key_file = {new}\nviewers.previous_key_file = {old}")).unwrap();
    assert_eq!(c.viewers.key, Some(Secret("n".repeat(64))));
    assert_eq!(c.viewers.previous_key, Some(Secret("o".repeat(32))));
    assert!(!format!("{c:?}").contains("nnnn"));
    assert_eq!(paths(parse(&format!("viewers.previous_key_file = {old}"))), ["viewers.key_file"]);
    let twice = format!("viewers.key_file = {new}\nviewers.previous_key_file = {new}");
    assert_eq!(paths(parse(&twice)), ["viewers.previous_key_file"]);
    for bad in ["", "short", &"x".repeat(513), &"ä".repeat(32), &format!("{} {}", "a".repeat(20), "b".repeat(20))] {
        let bad = file("bad", bad);
        let faults = parse(&format!("viewers.key_file = {bad}\nviewers.previous_key_file = {old}")).unwrap_err();
        assert_eq!(faults.len(), 1, "{faults:?}");
        assert_eq!(faults[0].path, "viewers.key_file");
        assert!(!faults[0].problem.contains("aaaa"), "a key is shown");
    }
    assert_eq!(paths(parse("viewers.key_file = \"/nonexistent\"")), ["viewers.key_file"]);
}

#[test]
fn tokens_come_from_files_or_the_environment_and_stay_secret() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("token");
    std::fs::write(&file, "file-token-0123456789\n").unwrap();
    let toml = format!("auth.publish_token_file = {:?}", file.display().to_string());
    let c = parse(&toml).unwrap();
    assert_eq!(c.auth.publish_token, Some(Secret("file-token-0123456789".to_owned())));
    assert!(!format!("{c:?}").contains("file-token"));
    let env = |v: &str| (v == "FISHLADDER_PUBLISH_TOKEN").then(|| "environment-0123456".to_owned());
    let c = Config::parse(&toml, &[], env).unwrap();
    assert_eq!(c.auth.publish_token, Some(Secret("environment-0123456".to_owned())));

    std::fs::write(&file, "short").unwrap();
    assert_eq!(paths(parse(&toml)), ["auth.publish_token_file"]);
    assert_eq!(
        paths(parse("http.listen = \"0.0.0.0:1\"\nauth.admin_token_file = \"/nonexistent\"")),
        ["auth.admin_token_file"]
    );
}

#[test]
fn tls_needs_both_files() {
    assert_eq!(paths(parse("[http.tls]\ncertificate = \"c.pem\"")), ["http.tls.key"]);
    assert_eq!(paths(parse("[http.tls]\nkey = \"k.pem\"")), ["http.tls.certificate"]);
}

#[test]
fn a_request_from_the_api_obeys_the_same_rules() {
    let ladders = Config::default().ladders;
    let mut faults = Vec::new();
    let ok = channel_request(
        json!({"source": {"whip": {}}, "ladder": {"passthrough": false, "rungs": [{"height": 240, "bitrate": 300000}], "audio_bitrate": 64000}}),
        "",
        &ladders,
        &mut faults,
    );
    let Some(LadderChoice::Inline(ladder)) = ok.unwrap().ladder else { panic!("inline") };
    assert_eq!((ladder.rungs[0].height, ladder.audio_bitrate), (240, 64_000));
    for (body, path) in [
        (json!([]), ""),
        (json!({}), "source"),
        (json!({"source": {}}), "source"),
        (json!({"source": {"rtp": {}}}), "source.rtp.sdp"),
        (json!({"source": {"rtp": {"sdp": "v=0", "x": 1}}}), "source.rtp.x"),
        (json!({"source": {"rtsp": {"url": "rtsp://"}}}), "source.rtsp.url"),
        (json!({"source": {"whip": {}}, "ladder": 5}), "ladder"),
        (json!({"source": {"whip": {}}, "ladder": "nope"}), "ladder"),
        (json!({"source": {"whip": {}}, "extra": "nope"}), "extra"),
        (json!({"source": {"rtp": {"sdp": "x".repeat(MAX_SDP + 1)}}}), "source.rtp.sdp"),
    ] {
        let mut faults = Vec::new();
        assert_eq!(channel_request(body.clone(), "", &ladders, &mut faults), None, "{body}");
        assert!(faults.iter().any(|f| f.path == path), "{body}: {faults:?}");
    }
}

proptest::proptest! {
    /// A damaged file gives a configuration or faults, never a panic, and never a fault without a sentence.
    #[test]
    fn damaged_files_are_faults(at in 0usize..MANUAL.len(), cut in 0usize..40, put in "[\\PC\n]{0,12}") {
        let mut text = MANUAL.replace("#= ", "").into_bytes();
        let at = at.min(text.len());
        let end = (at + cut).min(text.len());
        text.splice(at..end, put.bytes());
        if let Err(faults) = parse(&String::from_utf8_lossy(&text)) {
            proptest::prop_assert!(!faults.is_empty() && faults.iter().all(|f| !f.problem.is_empty()));
            proptest::prop_assert!(faults.iter().all(|f| !f.to_string().contains('\n')), "{:?}", faults);
        }
    }

    #[test]
    fn any_override_is_a_fault_or_taken(item in "(http|hls|channels|ladders|[a-z.]{0,9})?[.]?\\PC{0,20}=\\PC{0,30}") {
        let _ = Config::parse("", &[item], |_| None);
    }
}

#[test]
fn presets_are_x264s_words_or_nvencs_steps_and_every_encoder_knows_them() {
    let ladder = |preset: &str| {
        format!("[ladders.one]\nrungs = [{{ height = 360, bitrate = \"700k\", preset = \"{preset}\" }}]")
    };
    for preset in PRESETS {
        assert_eq!(parse(&ladder(preset)).unwrap().ladders["one"].rungs[0].preset, *preset);
        assert!(engine::backend::Preset::parse(preset).is_some(), "{preset}");
    }
    assert!((1..=7).all(|step| PRESETS.contains(&format!("p{step}").as_str())));
    for preset in ["p0", "p8", "veryslow", ""] {
        assert_eq!(paths(parse(&ladder(preset))), ["ladders.one.rungs[0].preset"], "{preset}");
    }
}
