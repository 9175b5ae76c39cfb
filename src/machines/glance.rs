//! A glance at a machine: whether its bootstrapped copy can be used as it is.
//!
//! That is the usual case, and there may be a thousand machines; so it is found
//! out by the fewest calls, over the shortest paths, in memory that has served
//! before. It says nothing of why not: who wants to know looks closer.

use std::fs::File;
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};

use super::tree::{self, Place};
use super::verdict::{self, Verdict};
use super::{Config, Machine};
use crate::manifest::{BootstrappedMachine, MachineKind, MachineManifest};
use crate::sys::file::open_directory;

/// What it takes for one machine after the other.
#[derive(Debug, Default)]
pub(super) struct Glance {
    /// The volume that was looked at last, open: names in it are found sooner
    /// from there than from the root.
    volume: PathBuf,
    open: Option<File>,
    text: Vec<u8>,
}

impl Glance {
    /// The machine at `place`, if nothing has to be done about it.
    pub(super) fn unchanged(&mut self, place: &Place, config: &Config) -> Option<Machine> {
        let volume = place.dir.parent()?;
        if self.volume != volume {
            volume.clone_into(&mut self.volume);
            self.open = open_directory(volume).ok();
        }
        // Through the link: which revision it leads to makes no difference.
        let machine = MachineManifest::parse(self.read(place, tree::PROTOCOL)?, "").ok()?;
        if machine.kind() != MachineKind::Kvm {
            return None;
        }
        let text = self.read(place, &config.toolchain)?;
        let stored = BootstrappedMachine::parse(text, "").ok()?;
        let verdict = verdict::judge(
            machine.id(),
            &config.toolchain_id,
            &config.versions,
            verdict::Stored {
                machine_id: stored.machine.id(),
                toolchain_id: stored.toolchain.id(),
                bootstrap: &stored.bootstrap,
            },
        );
        (verdict == Verdict::Reuse).then(|| Machine {
            manifest: stored,
            dir: place.bootstrapped(&config.toolchain),
        })
    }

    /// The manifest in `<name>-<tail>`.
    fn read(&mut self, place: &Place, tail: &str) -> Option<&[u8]> {
        let name = &place.name;
        let path = format!("{name}/{name}-{tail}/manifest");
        let volume = self.open.as_ref()?.as_fd();
        tree::read(volume, Path::new(&path), &mut self.text).ok()?;
        Some(&self.text)
    }
}
