//! The real nvcodec plug-in on GPUs that a stub driver pretends: probing, naming, property setting, sharing of contexts,
//! and failures. The pictures mean nothing here; that is for tests/gpu.rs on a GPU.
//!
//! What the worker's elements are given arrives at the stub as NVENC's own structures: the assertions are on those.
#![allow(clippy::unwrap_used)]

mod support;

use std::collections::BTreeMap;

use engine::backend::{Codec, Policy};
use engine::probe::{self, Device, Finding};
use engine::{DeviceHost, Engine, EngineEvent, HostOptions, LadderSpec, Seat};
use media::{AccessUnit, MediaDuration, MediaTime, TrackConfig};
use support::stubs::{contexts, forget_log, log, on, under, under_each, under_without, uuid};
use support::*;

const START: MediaTime = MediaTime(123_456_789_012);

fn gstreamer() -> (u32, u32) {
    gstreamer::init().unwrap();
    let (major, minor, ..) = gstreamer::version();
    (major, minor)
}

/// The encoder family that the back end uses.
fn h264_encoder() -> &'static str {
    if gstreamer() < (1, 25) { "nvcudah264enc" } else { "nvh264enc" }
}

fn pts(units: &[AccessUnit]) -> Vec<MediaTime> {
    units.iter().map(|u| u.pts).collect()
}

fn keys(units: &[AccessUnit]) -> Vec<MediaTime> {
    units.iter().filter(|u| u.key).map(|u| u.pts).collect()
}

fn ladder(rungs: &[(u32, u32)]) -> LadderSpec {
    spec(rungs.iter().map(|(w, h)| rung(&format!("v{h}"), *w, *h, None)).collect(), None)
}

fn run<T>(test: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap().block_on(test)
}

/// The reason of a worker's first end.
async fn first_failure(policy: Policy, ladder: LadderSpec) -> String {
    let source = h264(640, 360, 30, 60, 30, START);
    let mut engine = Engine::start_on(ladder, options(), Some(on(0, policy))).unwrap();
    for input in interleave(&source, &[]) {
        engine.push(input);
    }
    loop {
        match engine.events.recv().await.unwrap() {
            // The rungs that have an encoder may be ahead of the one that gets none.
            EngineEvent::Unit { .. } => {}
            EngineEvent::WorkerRestarted { reason, .. } | EngineEvent::Failed { reason } => return reason,
        }
    }
}

/// GPUs by their UUIDs.
fn devices(findings: &[Finding]) -> BTreeMap<String, Device> {
    findings.iter().filter_map(|f| f.device.clone()).map(|d| (d.id.clone().unwrap(), d)).collect()
}

fn codes(findings: &[Finding]) -> Vec<(&'static str, &str)> {
    findings
        .iter()
        .filter(|f| f.code != "element" && f.code != "gstreamer")
        .map(|f| (f.code, f.subject.as_str()))
        .collect()
}

#[test]
fn every_gpu_has_its_own_elements_whatever_they_are_called() {
    under("every_gpu_has_its_own_elements_whatever_they_are_called", "no-nvenc,full,full:sessions=0,full", &[], || {
        if !gstreamer_or_skip() {
            return;
        }
        let encoder = h264_encoder();
        let findings = probe::diagnose();
        let found = devices(&findings);
        assert_eq!(found.keys().cloned().collect::<Vec<_>>(), (0..4).map(uuid).collect::<Vec<_>>());
        for (number, decoder, encoder) in [
            (0, "nvh264dec", None),
            // The first GPU that has one gives its encoder the plain name.
            (1, "nvh264device1dec", Some(encoder.to_owned())),
            (2, "nvh264device2dec", None),
            // It is the second encoder and the fourth GPU.
            (3, "nvh264device3dec", Some(encoder.replace("enc", "device1enc"))),
        ] {
            let device = &found[&uuid(number)];
            assert_eq!(device.elements.ordinal as usize, number);
            assert_eq!(device.elements.decoders[&Codec::H264], decoder);
            assert_eq!(device.elements.encoders.get(&Codec::H264).map(|e| e.factory.clone()), encoder);
            assert_eq!(device.elements.scaler.as_deref(), Some("cudaconvertscale"));
            assert_eq!(device.pci.as_deref(), Some(format!("0000:0{}:00.0", number + 1).as_str()));
            assert_eq!((device.driver.as_deref(), device.memory_total), (Some("580.95.05"), Some(24 << 10)));
        }
        let limits = &found[&uuid(1)].elements.encoders[&Codec::H264];
        assert_eq!((limits.smallest, limits.largest), (Some((160, 64)), Some((4096, 4096))));
        assert_eq!(found[&uuid(2)].encoder_sessions, Some(64));
        let codes = codes(&findings);
        assert!(codes.contains(&("no-nvenc", "CUDA device 0")), "{codes:?}");
        assert!(codes.contains(&("encoders-missing", "CUDA device 2")), "{codes:?}");
        assert_eq!(codes.len(), 4 + 2, "{codes:?}");
        // AV1 is encoded from 1.26 on.
        assert_eq!(found[&uuid(1)].elements.encoders.contains_key(&Codec::Av1), gstreamer() >= (1, 25));
    });
}

#[test]
fn gpus_that_are_hidden_are_not_taken_for_others() {
    let hidden = [("CUDA_VISIBLE_DEVICES", "1")];
    under("gpus_that_are_hidden_are_not_taken_for_others", "no-nvenc,full", &hidden, || {
        if !gstreamer_or_skip() {
            return;
        }
        let findings = probe::diagnose();
        let found = devices(&findings);
        assert_eq!(found.len(), 1);
        // CUDA calls it 0, NVML 1.
        let device = &found[&uuid(1)];
        assert_eq!((device.elements.ordinal, device.name.as_deref()), (0, Some("NVIDIA L4")));
        assert_eq!(device.elements.decoders[&Codec::H264], "nvh264dec");
        assert!(codes(&findings).iter().any(|(code, _)| *code == "gpus-hidden"));
    });
}

#[test]
fn a_ladder_is_decoded_scaled_and_encoded_on_one_gpu_with_the_settings_that_were_meant() {
    let name = "a_ladder_is_decoded_scaled_and_encoded_on_one_gpu_with_the_settings_that_were_meant";
    under(name, "no-nvenc,full", &[], || {
        if !gstreamer_or_skip() {
            return;
        }
        run(async {
            let source = h264(640, 360, 30, 90, 30, START);
            forget_log();
            let sizes = [(512, 288), (320, 180), (160, 90)];
            let got = run_through_on(Some(on(1, Policy::GpuOnly)), ladder(&sizes), interleave(&source, &[])).await;
            assert!(got.restarts.is_empty() && got.failed.is_none(), "{:?} {:?}", got.restarts, got.failed);
            let log = log();
            for (width, height) in sizes {
                let id = format!("v{height}");
                assert_eq!(got.pts(&id), pts(&source), "{id}");
                assert_eq!(got.keys(&id), keys(&source), "{id}");
                let units = &got.units[&id];
                let TrackConfig::H264(config) = &*units[0].config else { panic!("not H.264") };
                assert_eq!((config.width, config.height), (width, height));
                // The fastest, for one picture at a time: P1 tuned for ultra-low latency. GStreamer 1.22 takes its own word for
                // it and then asks NVENC for the default preset whatever was set (gst_nv_encoder_preset_to_guid falls through).
                // kbit are 1024 bits to nvcodec: the nearest to 400,000. One second of it may be buffered.
                let preset = if gstreamer() < (1, 24) { "b2dfb705 tune=0" } else { "fc0a8d3e tune=3" };
                let wanted = format!(
                    "encoder 1 opened {width}x{height} preset={preset} rc=2 bits=400384 vbv=400384 gop=4294967295 interval=1 \
                     lookahead=0 reorder=0 strict=1 aud=0 repeat=1"
                );
                assert_eq!(log.iter().filter(|line| **line == wanted).count(), 1, "{wanted}\n{log:#?}");
                let decoded = decode(units, "video/x-h264,stream-format=byte-stream,alignment=au", "avdec_h264");
                assert_eq!(decoded.len(), 90);
                assert!(decoded.iter().all(|(_, bytes)| bytes.len() as u32 == width * height * 3 / 2));
            }
            // One decoder feeds all, and all share one context: the plug-in made another when it was loaded, and dropped it.
            assert_eq!(log.iter().filter(|line| line.starts_with("decoder 1 ")).count(), 1, "{log:#?}");
            assert_eq!(contexts(&log, 1), (1, 2), "{log:#?}");
            assert_eq!(contexts(&log, 0), (0, 0), "the worker sees no other GPU");
        });
    });
}

#[test]
fn a_gpu_without_nvenc_decodes_and_scales_for_the_cpu_where_it_may() {
    under("a_gpu_without_nvenc_decodes_and_scales_for_the_cpu_where_it_may", "no-nvenc", &[], || {
        if !gstreamer_or_skip() {
            return;
        }
        run(async {
            let source = h264(640, 360, 30, 60, 30, START);
            forget_log();
            let sizes = [(512, 288), (160, 90)];
            let got = run_through_on(Some(on(0, Policy::Cpu)), ladder(&sizes), interleave(&source, &[])).await;
            let log = log();
            assert!(got.restarts.is_empty() && got.failed.is_none(), "{:?} {:?}", got.restarts, got.failed);
            for (width, height) in sizes {
                let id = format!("v{height}");
                assert_eq!((got.pts(&id), got.keys(&id)), (pts(&source), keys(&source)), "{id}");
                let caps = "video/x-h264,stream-format=byte-stream,alignment=au";
                let decoded = decode(&got.units[&id], caps, "avdec_h264");
                assert!(decoded.len() == 60 && decoded.iter().all(|(_, b)| b.len() as u32 == width * height * 3 / 2));
            }
            assert_eq!(log.iter().filter(|line| *line == "decoder 0 created 640x360").count(), 1, "{log:#?}");
            assert_eq!(contexts(&log, 0), (1, 2), "{log:#?}");
            let reason = first_failure(Policy::GpuOnly, ladder(&sizes)).await;
            assert!(reason.contains("gpu-only: the GPU has no H.264 encoder"), "{reason}");
        });
    });
}

#[test]
fn a_source_that_changes_size_keeps_its_encoders_and_their_sessions() {
    under("a_source_that_changes_size_keeps_its_encoders_and_their_sessions", "full", &[], || {
        if !gstreamer_or_skip() {
            return;
        }
        run(async {
            let mut source = h264(640, 360, 30, 40, 20, START);
            for (width, height) in [(480, 640), (1280, 720)] {
                let resume = source.last().unwrap().pts + MediaDuration::from_ticks(3000, 90_000);
                source.extend(h264(width, height, 30, 40, 20, resume));
            }
            let got =
                run_through_on(Some(on(0, Policy::GpuOnly)), ladder(&[(320, 180)]), interleave(&source, &[])).await;
            assert!(got.restarts.is_empty() && got.failed.is_none(), "{:?} {:?}", got.restarts, got.failed);
            assert_eq!((got.pts("v180"), got.keys("v180")), (pts(&source), keys(&source)));
            let units = &got.units["v180"];
            assert!(units.iter().all(|u| u.config == units[0].config), "the rendition keeps its configuration");
            let log = log();
            assert_eq!(log.iter().filter(|line| line.contains("encoder 0 opened")).count(), 1, "{log:#?}");
        });
    });
}

#[test]
fn a_bit_rate_is_changed_without_a_new_session_or_key_picture() {
    under("a_bit_rate_is_changed_without_a_new_session_or_key_picture", "full", &[], || {
        if !gstreamer_or_skip() {
            return;
        }
        run(async {
            // Says 30 pictures a second and sends 15: each may have twice the bits.
            let mut source = h264(640, 360, 30, 120, 60, START);
            for unit in &mut source {
                unit.pts = unit.pts + MediaDuration(unit.pts.0 - START.0);
                unit.dts = unit.pts;
            }
            let got =
                run_through_on(Some(on(0, Policy::GpuOnly)), ladder(&[(320, 180)]), interleave(&source, &[])).await;
            assert!(got.restarts.is_empty() && got.failed.is_none(), "{:?} {:?}", got.restarts, got.failed);
            assert_eq!((got.pts("v180"), got.keys("v180")), (pts(&source), keys(&source)));
            let log = log();
            let bits = |verb: &str| -> Vec<u32> {
                let of =
                    |line: &String| line.split_once("bits=").unwrap().1.split(' ').next().unwrap().parse().unwrap();
                log.iter().filter(|line| line.starts_with(&format!("encoder 0 {verb}"))).map(of).collect()
            };
            assert_eq!(bits("opened"), [400_384], "{log:#?}");
            assert!(bits("changed").last().is_some_and(|b| (760_000..840_000).contains(b)), "{log:#?}");
        });
    });
}

#[test]
fn a_worker_that_loses_its_gpu_is_replaced_and_no_picture_is_missing() {
    let name = "a_worker_that_loses_its_gpu_is_replaced_and_no_picture_is_missing";
    // Two rungs: in the middle of the third GOP.
    under(name, "full", &[("FISHLADDER_STUB_LOSE", "150")], || {
        if !gstreamer_or_skip() {
            return;
        }
        run(async {
            let source = h264(640, 360, 30, 120, 30, START);
            let sizes = [(320, 180), (160, 90)];
            let got = run_through_on(Some(on(0, Policy::GpuOnly)), ladder(&sizes), interleave(&source, &[])).await;
            assert!(got.failed.is_none(), "{:?}", got.failed);
            assert_eq!(got.restarts.len(), 1, "{:?}", got.restarts);
            assert!(got.restarts[0].starts_with("the pipeline failed: "), "{:?}", got.restarts);
            for id in ["v180", "v90"] {
                assert_eq!(got.pts(id), pts(&source), "{id}");
            }
            assert_eq!(log().iter().filter(|line| *line == "lost 0").count(), 1);
        });
    });
}

#[test]
fn all_sessions_of_a_device_share_one_context() {
    under("all_sessions_of_a_device_share_one_context", "full", &[], || {
        if !gstreamer_or_skip() {
            return;
        }
        run(async {
            let source = h264(640, 360, 30, 60, 30, START);
            forget_log();
            let device = Some(on(0, Policy::GpuOnly));
            let (host, _ended) = DeviceHost::new(HostOptions {
                program: options().program,
                name: "stub".into(),
                device: device.clone(),
                fails_after: None,
            });
            let mut engines: Vec<Engine> = (0..3)
                .map(|_| {
                    let seat = Seat { device: device.clone(), host: Some(host.clone()) };
                    Engine::start_at(ladder(&[(320, 180), (160, 90)]), options(), seat).unwrap()
                })
                .collect();
            // All are under way before the first one ends.
            for engine in &mut engines {
                for input in interleave(&source, &[]) {
                    engine.push(input);
                }
                let event = engine.events.recv().await;
                assert!(matches!(event, Some(EngineEvent::Unit { .. })), "{event:?}");
            }
            let log = log();
            assert_eq!(log.iter().filter(|line| line.starts_with("decoder 0 created")).count(), 3, "{log:#?}");
            assert_eq!(contexts(&log, 0), (1, 2), "{log:#?}");
        });
    });
}

#[test]
fn a_gpu_at_its_session_limit_fails_and_nothing_falls_back_in_silence() {
    let name = "a_gpu_at_its_session_limit_fails_and_nothing_falls_back_in_silence";
    under(name, "full:sessions=1", &[], || {
        if !gstreamer_or_skip() {
            return;
        }
        run(async {
            // Whatever the policy: the encoder was there when the ladder was laid out.
            for policy in [Policy::GpuOnly, Policy::Cpu] {
                let reason = first_failure(policy, ladder(&[(512, 288), (320, 180)])).await;
                assert!(reason.contains("Failed to open session"), "{reason}");
            }
            assert!(log().iter().any(|line| line == "session 0 refused"), "{:#?}", log());
        });
    });
}

#[test]
fn a_gpu_whose_sessions_were_all_taken_before_has_no_encoder_and_that_is_said() {
    let name = "a_gpu_whose_sessions_were_all_taken_before_has_no_encoder_and_that_is_said";
    under(name, "full:sessions=0", &[], || {
        if !gstreamer_or_skip() {
            return;
        }
        let reason = run(first_failure(Policy::GpuOnly, ladder(&[(320, 180)])));
        assert!(reason.contains("gpu-only: the GPU has no H.264 encoder"), "{reason}");
    });
}

#[test]
fn what_a_gpu_can_do_is_asked_at_every_start_and_not_remembered() {
    let name = "what_a_gpu_can_do_is_asked_at_every_start_and_not_remembered";
    // No GPU at all, as where an image is built; then all sessions taken, so that there is no encoder; then free ones; then
    // nothing that compiles the scaler.
    under_each(name, &["", "full:sessions=0", "full", "full -libnvrtc.so"], |host| {
        if !gstreamer_or_skip() {
            return;
        }
        let findings = probe::diagnose();
        assert!(
            !codes(&findings).iter().any(|(code, _)| *code == "elements-missing"),
            "{host}: {:?}",
            codes(&findings)
        );
        let found = devices(&findings);
        assert_eq!(found.len(), usize::from(!host.is_empty()), "{host}");
        let Some(device) = found.get(&uuid(0)) else { return };
        assert_eq!(device.elements.encoders.contains_key(&Codec::H264), !host.contains("sessions=0"), "{host}");
        assert_eq!(device.elements.scaler.is_some(), !host.contains("nvrtc"), "{host}");
        run(async {
            let reason = match host {
                "full" => {
                    let source = h264(640, 360, 30, 30, 30, START);
                    let device = Some(on(0, Policy::GpuOnly));
                    let got = run_through_on(device, ladder(&[(320, 180)]), interleave(&source, &[])).await;
                    assert_eq!((got.pts("v180"), got.restarts), (pts(&source), vec![]));
                    return;
                }
                "full:sessions=0" => "gpu-only: the GPU has no H.264 encoder",
                _ => "gpu-only: nothing scales pictures in the GPU's memory",
            };
            let got = first_failure(Policy::GpuOnly, ladder(&[(320, 180)])).await;
            assert!(got.contains(reason), "{host}: {got}");
        });
    });
}

#[test]
fn a_driver_without_the_old_presets_is_found_by_doctor_and_fails_only_where_they_are_needed() {
    let name = "a_driver_without_the_old_presets_is_found_by_doctor_and_fails_only_where_they_are_needed";
    under(name, "full", &[("FISHLADDER_STUB_DRIVER", "595.45.04")], || {
        if !gstreamer_or_skip() {
            return;
        }
        let old = gstreamer() < (1, 24);
        let findings = probe::diagnose();
        assert_eq!(codes(&findings).contains(&("old-presets", "CUDA device 0")), old, "{:?}", codes(&findings));
        run(async {
            if old {
                let reason = first_failure(Policy::GpuOnly, ladder(&[(320, 180)])).await;
                assert!(reason.contains("Failed to set format"), "{reason}");
            } else {
                let source = h264(640, 360, 30, 30, 30, START);
                let got =
                    run_through_on(Some(on(0, Policy::GpuOnly)), ladder(&[(320, 180)]), interleave(&source, &[])).await;
                assert_eq!((got.pts("v180"), got.restarts), (pts(&source), vec![]));
            }
        });
    });
}

#[test]
fn a_missing_compiler_leaves_no_scaler_and_is_named() {
    let name = "a_missing_compiler_leaves_no_scaler_and_is_named";
    under_without(name, "full", &["libnvrtc.so"], &[], || {
        if !gstreamer_or_skip() {
            return;
        }
        let findings = probe::diagnose();
        assert_eq!(devices(&findings)[&uuid(0)].elements.scaler, None);
        assert!(codes(&findings).contains(&("nvrtc-missing", "CUDA device 0")), "{:?}", codes(&findings));
        let reason = run(first_failure(Policy::GpuOnly, ladder(&[(320, 180)])));
        assert!(reason.contains("gpu-only: nothing scales pictures in the GPU's memory"), "{reason}");
    });
}

#[test]
fn a_driver_without_its_encoding_library_is_named() {
    let name = "a_driver_without_its_encoding_library_is_named";
    under_without(
        name,
        "full",
        &["libnvidia-encode.so.1"],
        &[("NVIDIA_DRIVER_CAPABILITIES", "compute,utility")],
        || {
            if !gstreamer_or_skip() {
                return;
            }
            let findings = probe::diagnose();
            assert!(devices(&findings)[&uuid(0)].elements.encoders.is_empty());
            let named = findings.iter().find(|f| f.code == "container-capabilities").unwrap();
            assert!(
                named.detail.contains("libnvidia-encode.so.1 missing") && named.detail.contains("lacks video"),
                "{named:?}"
            );
        },
    );
}
