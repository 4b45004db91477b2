//! The keys that are in force, and their exchange for newer ones while the server runs.
//!
//! The files are the truth: what they hold is in force, and what they hold no more is not. Files that do not fit together, as in
//! the middle of an exchange, leave the keys as they are.

use std::sync::{Arc, PoisonError, RwLock};

use tokio::sync::watch;

use super::Keys;
use crate::config::Viewers;
use crate::metrics::Metrics;
use crate::watched::{Watched, follow};

/// The one place that requests take the keys from.
pub struct Keyring {
    inner: RwLock<Inner>,
}

struct Inner {
    viewers: Viewers,
    keys: Arc<Keys>,
}

impl Keyring {
    /// None where no key is configured: then every path may be watched.
    pub fn of(viewers: &Viewers) -> Option<Self> {
        let inner = Inner { viewers: viewers.clone(), keys: Arc::new(Keys::of(viewers)?) };
        Some(Self { inner: RwLock::new(inner) })
    }

    pub fn keys(&self) -> Arc<Keys> {
        self.inner.read().unwrap_or_else(PoisonError::into_inner).keys.clone()
    }

    /// Follows changes of the files, and SIGHUP where `on_hangup`, until `closing` turns true.
    pub async fn follow(self: Arc<Self>, on_hangup: bool, metrics: Arc<Metrics>, closing: watch::Receiver<bool>) {
        let watcher = Watcher::new(self, metrics);
        follow(watcher, Watcher::look, "the viewers' keys", on_hangup, closing).await;
    }
}

/// Decides when to read the files again. Apart from `Keyring::follow` for the tests' sake.
struct Watcher {
    ring: Arc<Keyring>,
    metrics: Arc<Metrics>,
    files: Watched,
    /// What was read last was not fit, for this reason.
    complaint: Option<String>,
}

impl Watcher {
    fn new(ring: Arc<Keyring>, metrics: Arc<Metrics>) -> Self {
        let files = Watched::new(ring.inner.read().unwrap_or_else(PoisonError::into_inner).viewers.files());
        Self { ring, metrics, files, complaint: None }
    }

    fn look(&mut self, at_once: bool) {
        if !self.files.is_due(at_once, self.complaint.is_some()) {
            return;
        }
        let present = self.ring.inner.read().unwrap_or_else(PoisonError::into_inner).viewers.clone();
        let read = present.read_again().and_then(|viewers| {
            let keys = Keys::of(&viewers).ok_or_else(|| "viewers.key_file: is missing".to_owned())?;
            Ok(Inner { viewers, keys: Arc::new(keys) })
        });
        match read {
            Ok(inner) if inner.viewers == present => {
                self.complaint = None;
                if at_once {
                    tracing::info!("SIGHUP: the viewers' keys are those in force already");
                }
            }
            Ok(inner) => {
                self.complaint = None;
                let keeps = inner.viewers.previous_key.is_some() && inner.viewers.previous_key == present.key;
                *self.ring.inner.write().unwrap_or_else(PoisonError::into_inner) = inner;
                self.metrics.viewer_keys_read("exchanged");
                match keeps {
                    true => tracing::info!("the viewers' keys were exchanged; what the old one signed stays good"),
                    false => tracing::warn!(
                        "the viewers' keys were exchanged; what another key signed is refused from now on"
                    ),
                }
            }
            Err(why) => {
                if at_once || self.complaint.as_ref() != Some(&why) {
                    self.metrics.viewer_keys_read("refused");
                    tracing::error!("the viewers' new keys are not used, the old ones stay: {why}");
                }
                self.complaint = Some(why);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::path::Path;
    use std::time::{Duration, SystemTime};

    use super::*;
    use crate::sign::Unfit;

    const ONE: &str = "11111111111111111111111111111111";
    const TWO: &str = "22222222222222222222222222222222";

    struct Rig {
        dir: tempfile::TempDir,
        watcher: Watcher,
    }

    impl Rig {
        fn new() -> Self {
            let dir = tempfile::tempdir().unwrap();
            std::fs::write(dir.path().join("key"), ONE).unwrap();
            let viewers = Viewers::read(Some(&dir.path().join("key")), Some(&dir.path().join("previous"))).unwrap();
            let ring = Arc::new(Keyring::of(&viewers).unwrap());
            Self { watcher: Watcher::new(ring, Arc::new(Metrics::default())), dir }
        }

        fn write(&self, file: &str, text: &str) {
            std::fs::write(self.dir.path().join(file), text).unwrap();
        }

        fn rename(&self, from: &str, to: &str) {
            let at = |file: &str| self.dir.path().join(file);
            std::fs::rename(at(from), at(to)).unwrap();
        }

        fn look(&mut self, rounds: usize) {
            (0..rounds).for_each(|_| self.watcher.look(false));
        }

        fn signed(&self) -> String {
            self.watcher.ring.keys().sign(&"show".parse().unwrap(), SystemTime::now() + Duration::from_secs(60))
        }

        fn check(&self, token: &str) -> Result<(), Unfit> {
            self.watcher.ring.keys().check(Some(token), &"show".parse().unwrap(), SystemTime::now())
        }

        fn counts(&self, outcome: &str) -> u64 {
            let text = self.watcher.metrics.render(&[], None);
            let line = format!("fishladder_viewer_key_reads_total{{outcome=\"{outcome}\"}} ");
            text.lines().find_map(|l| l.strip_prefix(&line)).map_or(0, |n| n.parse().unwrap())
        }
    }

    #[test]
    fn a_key_moves_to_the_previous_ones_place_and_what_it_signed_stays_good() {
        let mut rig = Rig::new();
        let old = rig.signed();
        rig.look(3);
        assert_eq!((rig.counts("exchanged"), rig.counts("refused")), (0, 0), "a previous key need not be there");
        // As the manual says, with a look between each two steps.
        rig.rename("key", "previous");
        rig.look(1);
        assert!(rig.watcher.complaint.is_none(), "not complained of while it changes");
        rig.write("key", TWO);
        rig.look(2);
        let new = rig.signed();
        assert_ne!(old[..12], new[..12], "another key signs");
        assert_eq!((rig.check(&old), rig.check(&new)), (Ok(()), Ok(())));
        assert_eq!((rig.counts("exchanged"), rig.counts("refused")), (1, 0));
        // The old key is dropped when what it signed has expired, or after a leak.
        std::fs::remove_file(rig.dir.path().join("previous")).unwrap();
        rig.look(2);
        assert_eq!((rig.check(&old), rig.check(&new)), (Err(Unfit::Wrong), Ok(())));
    }

    #[test]
    fn keys_that_do_not_fit_leave_the_old_ones_in_force_and_are_told_of_once() {
        let mut rig = Rig::new();
        let old = rig.signed();
        let mut refused = 0;
        type Fault = fn(&Rig);
        let faults: [(Fault, &str); 4] = [
            (|rig| rig.write("key", "short"), "32 to 512 visible"),
            (|rig| std::fs::remove_file(rig.dir.path().join("key")).unwrap(), "cannot read"),
            (
                |rig| {
                    rig.write("key", ONE);
                    rig.write("previous", ONE)
                },
                "the same key",
            ),
            (|rig| rig.write("previous", "not\u{7}visible-0123456789abcdef0123456789abcdef"), "32 to 512 visible"),
        ];
        for (fault, why) in faults {
            fault(&rig);
            rig.look(4);
            refused += 1;
            assert!(rig.watcher.complaint.as_ref().is_some_and(|c| c.contains(why)), "{:?}", rig.watcher.complaint);
            assert_eq!((rig.check(&old), rig.counts("refused")), (Ok(()), refused), "{why}");
        }
        // SIGHUP reads at once.
        rig.write("previous", ONE);
        rig.write("key", TWO);
        rig.watcher.look(true);
        assert!(rig.watcher.complaint.is_none() && rig.check(&old).is_ok());
        assert_eq!(rig.counts("exchanged"), 1);
    }

    #[test]
    fn a_configuration_without_keys_has_none_to_exchange() {
        assert!(Keyring::of(&Viewers::default()).is_none());
        assert_eq!(Viewers::read(None, Some(Path::new("/nowhere"))).unwrap_err().0, "key_file");
    }
}
