//! A glance at a machine: whether its bootstrapped copy can be used as it is.
//!
//! That is the usual case, and there may be a thousand machines; so it is found
//! out by the fewest calls, over the shortest paths, in memory that has served
//! before. It says nothing of why not: who wants to know looks closer.
//!
//! Both manifests are read in every turn. When they are, byte for byte, those of
//! the turn before, so is what follows from them.

use std::cmp::Ordering;
use std::fs::File;
use std::iter::Peekable;
use std::os::fd::AsFd as _;
use std::path::Path;
use std::rc::Rc;
use std::vec;

use super::tree::{self, MachineDir, Text};
use super::verdict::{self, Verdict};
use super::{Machine, MachinesSettings};
use crate::manifest::{BootstrappedMachine, MachineKind, MachineManifest};
use crate::sys::file::open_directory;

/// Buffers that are reused for every machine and kept between turns.
#[derive(Debug, Default)]
pub(super) struct Glance {
    /// The machines of this turn that can be used, in order.
    seen: Vec<Seen>,
    /// Those of the turn before that were not come to yet.
    before: Option<Peekable<vec::IntoIter<Seen>>>,
    reader: Reader,
    current: Text,
    stored: Text,
}

/// A machine, and the texts that say so: the manifest of its current revision,
/// then that of its bootstrapped copy.
#[derive(Debug)]
struct Seen {
    place: MachineDir,
    texts: Box<[u8]>,
    split: usize,
    machine: Rc<Machine>,
}

impl Glance {
    /// Begins a turn.
    pub(super) fn begin(&mut self) {
        let before = std::mem::take(&mut self.seen);
        self.seen.reserve_exact(before.len());
        self.before = Some(before.into_iter().peekable());
    }

    /// Ends a turn: no volume is kept busy between two.
    pub(super) fn end(&mut self) {
        self.reader.volume = None;
        self.before = None;
    }

    /// The machine at `place`, if nothing has to be done about it. To be asked in
    /// the order of the places.
    pub(super) fn unchanged(
        &mut self,
        place: &MachineDir,
        config: &MachinesSettings,
    ) -> Option<Rc<Machine>> {
        // Through the link: which revision it leads to makes no difference.
        let (reader, toolchain) = (&mut self.reader, &config.toolchain);
        reader.read(place, tree::PROTOCOL, &mut self.current)?;
        reader.read(place, toolchain, &mut self.stored)?;
        let seen = match self.remembered(place) {
            Some(seen) => seen,
            None => Seen {
                place: place.clone(),
                texts: [&self.current[..], &self.stored].concat().into(),
                split: self.current.len(),
                machine: Rc::new(self.judge(place, config)?),
            },
        };
        let machine = Rc::clone(&seen.machine);
        self.seen.push(seen);
        Some(machine)
    }

    /// The machine of the turn before, if `place` is unchanged.
    fn remembered(&mut self, place: &MachineDir) -> Option<Seen> {
        let before = self.before.as_mut()?;
        while let Some(next) = before.peek() {
            match next.place.order(place) {
                Ordering::Less => drop(before.next()),
                Ordering::Greater => return None,
                Ordering::Equal => {
                    let seen = before.next()?;
                    let (current, stored) = seen.texts.split_at(seen.split);
                    let same = *current == *self.current && *stored == *self.stored;
                    return same.then_some(seen);
                }
            }
        }
        None
    }

    /// Reads the machine from its manifests.
    fn judge(&self, place: &MachineDir, config: &MachinesSettings) -> Option<Machine> {
        let (id, kind) = MachineManifest::identify(&self.current, "").ok()?;
        if kind != MachineKind::Kvm {
            return None;
        }
        let stored = BootstrappedMachine::parse(&self.stored, "").ok()?;
        let verdict = verdict::judge(
            &id,
            &config.toolchain_id,
            &config.versions,
            verdict::Stored {
                machine_id: stored.machine.id(),
                toolchain_id: stored.toolchain.id(),
                bootstrap: &stored.bootstrap,
            },
        );
        let dir = || place.bootstrapped(&config.toolchain);
        (verdict == Verdict::Reuse).then(|| Machine::new(stored, dir()))
    }
}

/// Reads manifests of one machine after the other.
#[derive(Debug, Default)]
struct Reader {
    /// The volume of the last one, open: names in it are found sooner from there
    /// than from the root.
    volume: Option<(Rc<Path>, File)>,
    path: String,
}

impl Reader {
    /// The manifest in `<name>-<tail>`, in place of what is in `text`.
    fn read(&mut self, place: &MachineDir, tail: &str, text: &mut Text) -> Option<()> {
        let volume = match &mut self.volume {
            Some((volume, open)) if *volume == place.volume => open,
            last => {
                let open = open_directory(&place.volume).ok()?;
                &mut last.insert((Rc::clone(&place.volume), open)).1
            }
        };
        self.path.clear();
        for part in [&place.name, "/", &place.name, "-", tail, "/manifest"] {
            self.path.push_str(part);
        }
        text.read(volume.as_fd(), Path::new(&self.path)).ok()
    }
}
