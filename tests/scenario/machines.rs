//! The machines of a scenario: a tree on disk as the agent reads it, and bootstraps that
//! follow the script.

use std::cell::RefCell;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

use bbot_agent::bootstrap::{BootstrapOrder, Bootstrapped};
use bbot_agent::error::{Error, Result};
use bbot_agent::machines::Bootstrapper;
use bbot_agent::manifest::BootstrappedMachine;
use bbot_agent::manifest::reuse::Age;

use super::{Record, Script};

/// The course of a bootstrap.
#[derive(Clone, Copy, Debug)]
pub struct BootstrapCourse {
    /// Seconds until it ends.
    pub seconds: u64,
    /// Why it fails, if it does.
    pub fails: Option<&'static str>,
    /// Seconds for which a failed guest is held.
    pub hold: u64,
    /// The machine whose copy another agent makes meanwhile.
    pub meanwhile: Option<&'static str>,
}

/// Makes the tree of the script's machines.
pub fn make(root: &Path, script: &Script) {
    fs::create_dir_all(root.join("v")).unwrap();
    for name in &script.auxiliary {
        let dir = root.join("v").join(name);
        let revision = dir.join(format!("{name}-1.0"));
        if dir.exists() {
            continue;
        }
        fs::create_dir_all(&revision).unwrap();
        symlink(format!("{name}-1.0"), dir.join(format!("{name}-1"))).unwrap();
        let text = manifest(name).replace("type:", "role: auxiliary\nram-minimum: 262144\ntype:");
        fs::write(revision.join("manifest"), text).unwrap();
        fs::write(revision.join("disk.img"), "disk").unwrap();
    }
    let new = script.new_machines.iter().map(|name| (name, false));
    for (name, has_copy) in script.machines.iter().map(|name| (name, true)).chain(new) {
        let dir = root.join("v").join(name);
        let revision = dir.join(format!("{name}-1.0"));
        if dir.exists() {
            continue;
        }
        fs::create_dir_all(&revision).unwrap();
        symlink(format!("{name}-1.0"), dir.join(format!("{name}-1"))).unwrap();
        fs::write(revision.join("manifest"), manifest(name)).unwrap();
        fs::write(revision.join("disk.img"), "disk").unwrap();
        if has_copy {
            make_copy(&dir.join(format!("{name}-default")), name);
        }
    }
}

fn manifest(name: &str) -> String {
    format!(": 1\nid: {name}-1.0\nname: {name}\nsummary: {name}\ntype: kvm\n")
}

/// `old9` was bootstrapped with version 0.9.0.
fn copy_manifest(name: &str) -> String {
    let machine = manifest(name);
    let minor = name.strip_prefix("old").unwrap_or("17");
    format!(
        ": 1\n:\n{}mac: 52:54:00:00:00:01\n:\nid: bogus\n:\nbbot-version: 0.{minor}.0\n",
        &machine[4..]
    )
}

/// Makes a copy, and returns its manifest.
fn make_copy(copy: &Path, name: &str) -> String {
    let text = copy_manifest(name);
    fs::create_dir(copy).unwrap();
    fs::write(copy.join("manifest"), &text).unwrap();
    fs::write(copy.join("disk.img"), "disk").unwrap();
    text
}

/// Bootstraps that follow the script.
pub struct ScriptedBootstraps<'a> {
    pub record: Rc<RefCell<Record>>,
    pub course: &'a mut dyn FnMut(&str, u64) -> BootstrapCourse,
}

impl Bootstrapper for ScriptedBootstraps<'_> {
    fn uptime(&self) -> Duration {
        Duration::from_secs(self.record.borrow().now)
    }

    fn bootstrap(
        &mut self,
        order: &BootstrapOrder<'_>,
        _: &[(String, String)],
    ) -> Result<Bootstrapped> {
        let start = self.record.borrow().now;
        let course = (self.course)(order.name, start);
        let known = order.known_failures;
        let is_known = |reason: &str| known.iter().any(|known| known == reason);
        let held = course.fails.is_some_and(|reason| !is_known(reason));
        let seconds = course.seconds + if held { course.hold } else { 0 };
        let mut record = self.record.borrow_mut();
        record.now += seconds;
        record
            .bootstraps
            .push((start, order.name.to_owned(), seconds, held));
        if let Some(reason) = course.fails {
            return Ok(Bootstrapped::Failed {
                error: Error::new(reason),
                reason: reason.to_owned(),
            });
        }
        if let Some(name) = course.meanwhile {
            let volume = order.revision.ancestors().nth(2).unwrap();
            make_copy(&volume.join(name).join(format!("{name}-default")), name);
        }
        let text = make_copy(order.target, order.name);
        let manifest = BootstrappedMachine::parse(text.as_bytes(), "").unwrap();
        Ok(Bootstrapped::Done(Box::new(manifest), Age::Same))
    }
}
