//! The litter of a killed agent, and its removal.
//!
//! What can die with a descriptor or its parent does: taps, `nft` rules, QEMU,
//! uploads under way. The rest has an owner that is known by a lock, which the
//! kernel frees; neither a name nor an age makes litter of anything:
//!
//! | what | whose, by | dead, by |
//! |---|---|---|
//! | scratch snapshots, of any instance | their name, which has our toolchain | the lock on the subvolume |
//! | a QEMU in one of them | working directory and `-name` | the same, and its parent |
//! | rules, sockets, files of the run directory | being in it | its `agent.lock`, which we hold |
//! | evidence that is incomplete | being in the state directory | the same |
//! | templates of guests | their name | no copy, or `--warm` does not cover them |
//! | states of failed guests | their name | no evidence, and no lock on the subvolume |
//! | TFTP directories | their name, `<toolchain>-<instance>` | the same, and the lock on the directory |
//!
//! Looking ([`find`]) changes nothing, so that `--gc --dry-run` can print what
//! would go, and an idle turn writes nothing. Removing what is gone already is
//! success: two agents may sweep at once.

mod guests;
mod scratch;

use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::diag;
use crate::error::{Context as _, Result};
use crate::evidence;
use crate::guest::Directory;
use crate::lock::Lock;
use crate::machine::AUXILIARY_PREFIX;
use crate::snapshot;
use crate::sys::tree::remove_tree;
use crate::warm;
use scratch::Found;

/// Where we leave things.
#[derive(Clone, Debug)]
pub struct SweepSettings {
    /// `<machines>`.
    pub machines: PathBuf,
    /// `<tftp>`.
    pub tftp: PathBuf,
    /// Our own run directory, `<run-dir>/<owner>`.
    pub run_dir: PathBuf,
    /// The evidence of failed guests, in our own state directory.
    pub failed: PathBuf,
    /// The name of our toolchain.
    pub toolchain: String,
    /// `<toolchain>-<instance>`.
    pub owner: String,
    /// The number of the agent among those for the toolchain.
    pub instance: u16,
    /// Patterns of the machines that start warm.
    pub warm: Vec<String>,
}

/// Something to remove.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Litter {
    what: What,
    path: PathBuf,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum What {
    Guest(u32),
    File,
    RunDirectory,
    Evidence,
    Tree,
    Scratch,
    Template,
    State,
}

impl Litter {
    fn new(what: What, path: impl Into<PathBuf>) -> Litter {
        Litter {
            what,
            path: path.into(),
        }
    }

    /// Why it is litter.
    pub fn reason(&self) -> &'static str {
        match self.what {
            What::Guest(_) => "qemu of a dead agent",
            What::File | What::RunDirectory => "run file of a dead agent",
            What::Evidence => "incomplete evidence of a dead agent",
            What::Tree => "tftp directory of a dead agent",
            What::Scratch => "scratch snapshot of a dead agent",
            What::Template => "template that is not used",
            What::State => "state of a failed guest whose evidence is gone",
        }
    }

    /// Removes it. What is gone, or in use again, is left alone.
    pub fn remove(&self) -> Result<()> {
        match self.what {
            What::Guest(pid) => guests::kill(pid, &self.path),
            What::File => gone(fs::remove_file(&self.path), &self.path),
            What::RunDirectory | What::Evidence => gone(remove_tree(&self.path), &self.path),
            What::Tree => Directory::remove_left(&self.path),
            What::Scratch => scratch::remove(&self.path, |_| true),
            // Its evidence may have been stored since.
            What::State => {
                scratch::remove(&self.path, |path| snapshot::evidence_of(path).is_none())
            }
            What::Template => snapshot::delete(&self.path),
        }
    }
}

/// As `--gc --dry-run` prints it: path, then reason.
impl fmt::Display for Litter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.path.display(), self.reason())?;
        match self.what {
            What::Guest(pid) => write!(f, ", pid {pid}"),
            _ => Ok(()),
        }
    }
}

/// Finds litter, in the order in which to remove it: first what may still write
/// to the rest.
///
/// `lock` is the lock of our own run directory. Without it (another agent has
/// it) only what has locks of its own is looked at.
pub fn find(config: &SweepSettings, lock: Option<&Lock>) -> Vec<Litter> {
    let Found {
        scratch,
        templates,
        states,
    } = scratch::find(&config.machines, &config.toolchain);
    let mut litter = guests::find(&config.machines, &config.toolchain, &scratch);
    if lock.is_some() {
        litter.extend(run_files(&config.run_dir));
        let partials = evidence::partials(&config.failed).into_iter();
        litter.extend(partials.map(|path| Litter::new(What::Evidence, path)));
        litter.extend(["bootstrap", "build"].into_iter().filter_map(|purpose| {
            let tree = config.tftp.join(purpose).join(&config.owner);
            Directory::is_left(&tree).then(|| Litter::new(What::Tree, tree))
        }));
    }
    litter.extend(
        scratch
            .into_iter()
            .map(|path| Litter::new(What::Scratch, path)),
    );
    let states = states.into_iter();
    litter.extend(states.map(|path| Litter::new(What::State, path)));
    let is_unused = |path: &PathBuf| is_unused(path, config, lock.is_some());
    litter.extend(
        templates
            .into_iter()
            .filter(is_unused)
            .map(|path| Litter::new(What::Template, path)),
    );
    litter
}

/// Whether a template has no copy, or is that of a machine that this agent no longer
/// starts warm.
fn is_unused(path: &Path, config: &SweepSettings, is_alone: bool) -> bool {
    let Some((copy, instance)) = warm::copy_of(path) else {
        return false;
    };
    let machine = path.parent().and_then(Path::file_name);
    let machine = machine.unwrap_or_default().to_string_lossy();
    let is_own = is_alone && instance == config.instance;
    !copy.exists() || is_own && !warm::covers(&config.warm, &machine)
}

/// Finds litter and removes it, saying so.
pub fn sweep(config: &SweepSettings, lock: Option<&Lock>) {
    for litter in find(config, lock) {
        match litter.remove() {
            Ok(()) => diag::info(format_args!("removed {litter}")).emit(),
            Err(error) => diag::failure(&error).emit(),
        }
    }
}

/// Files of the run directory that exist only while a guest runs. The lock, the status
/// and the last guest's console stay.
fn run_files(dir: &Path) -> Vec<Litter> {
    let Ok(entries) = fs::read_dir(dir) else {
        return Vec::new(); // There was none before us.
    };
    let mut litter: Vec<Litter> = entries
        .filter_map(|entry| {
            let entry = entry.ok()?;
            let name = entry.file_name();
            let what = run_file(name.to_str()?)?;
            Some(Litter::new(what, entry.path()))
        })
        .collect();
    litter.sort_by(|a, b| a.path.cmp(&b.path));
    litter
}

fn run_file(name: &str) -> Option<What> {
    if matches!(name, "qmp" | "control" | "claim") || name.starts_with(".status.json.") {
        Some(What::File)
    } else if name == "vm" || name.starts_with(AUXILIARY_PREFIX) {
        Some(What::RunDirectory)
    } else {
        None
    }
}

fn gone(result: io::Result<()>, path: &Path) -> Result<()> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result.context(|| format!("unable to remove {}", path.display())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_a_guest_run_makes_is_litter_of_the_run_directory() {
        assert_eq!(run_file("qmp"), Some(What::File));
        assert_eq!(run_file("control"), Some(What::File));
        assert_eq!(run_file("vm"), Some(What::RunDirectory));
        assert_eq!(run_file("auxiliary-3"), Some(What::RunDirectory));
        assert_eq!(run_file(".status.json.partial"), Some(What::File));
        for kept in ["agent.lock", "status.json", "console.log", "notes", ".x"] {
            assert_eq!(run_file(kept), None, "{kept}");
        }
    }

    #[test]
    fn a_line_names_path_and_reason() {
        let litter = Litter::new(What::Guest(7), "/m/v/a/a-gcc-@1.0");
        assert_eq!(
            litter.to_string(),
            "/m/v/a/a-gcc-@1.0: qemu of a dead agent, pid 7"
        );
    }
}
