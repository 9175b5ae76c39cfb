//! btrfs snapshots: scratch copies of machines, and the one that is kept.
//!
//! A [`Snapshot`] is deleted unless it is kept. The process may be killed at any
//! instant, so that a later sweep has to recognise the snapshot: its name tells the
//! toolchain ([`is_scratch`]), and a lock, which the kernel frees, tells whether its
//! owner lives. The lock is flock(2) on the root of the subvolume. It cannot be taken
//! in the same step in which the snapshot is made. The maker therefore holds a shared
//! lock on the directory meanwhile, and a sweep of it an exclusive one (`sweep`).
//!
//! A kept snapshot is complete: data and manifest are on disk, and the read-only flag
//! is set, before the final name appears. If it replaces a copy, the two swap names,
//! so that one of them has the name at any instant.

mod kept;
mod subvolume;

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::fd::AsFd as _;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use nix::libc;

use crate::diag;
use crate::error::{Context as _, Error, Result};
use crate::sys::btrfs::{self, Rename};
use crate::sys::file::open_directory;
use crate::sys::flock::{self, How, Locked};
use crate::trace;
use subvolume::{explain, split};

pub use crate::sys::btrfs::FreeSpace;
pub use kept::{evidence_of, exclusive_bytes, is_kept, target_of};
pub use subvolume::{
    await_cleaner, cleaner_backlog, conversion, delete, is_subvolume, require_btrfs, set_read_only,
    space, sync,
};

/// How long a sweep of the directory is waited for: it deletes a few snapshots,
/// which takes a busy disk some seconds.
const SWEEP_TIMEOUT: Duration = Duration::from_secs(30);
/// The pauses before it is looked again, each twice as long as the one before.
const FIRST_PAUSE: Duration = Duration::from_millis(2);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// A scratch snapshot that is deleted when this goes, unless it is kept.
#[derive(Debug)]
#[must_use = "the snapshot is deleted when this is dropped"]
pub struct Snapshot {
    path: PathBuf,
    /// The subvolume's root, locked; `None` once kept or deleted. Opened before
    /// anything is written, so that a write error that the kernel meets later
    /// is reported when we sync.
    root: Option<Locked>,
}

impl Snapshot {
    /// Makes the writable snapshot `to` of the subvolume `source`, which may be a symbolic
    /// link. The error is `EWOULDBLOCK` while another agent sweeps the directory.
    pub fn create(source: &Path, to: &Path) -> Result<Snapshot> {
        let what = || {
            format!(
                "unable to snapshot {} to {}",
                source.display(),
                to.display()
            )
        };
        trace!(
            3,
            "create",
            "btrfs subvolume snapshot {} {}",
            source.display(),
            to.display()
        );
        let (parent, name) = split(to).context(what)?;
        // No sweep begins while the snapshot exists and has no lock.
        let parent = lock(parent, How::TryShared).context(what)?;
        let origin = open_directory(source).map_err(|error| explain(error, source, &what()))?;
        btrfs::snapshot_create(parent.as_fd(), origin.as_fd(), &name)
            .map_err(|error| explain(error, source, &what()))?;
        let mut snapshot = Snapshot {
            path: to.to_owned(),
            root: None,
        };
        match open_directory(to).and_then(|root| lock(root, How::TryExclusive)) {
            Ok(root) => {
                snapshot.root = Some(root);
                Ok(snapshot)
            }
            Err(error) => {
                // No descriptor left, most likely; deleting takes none more
                // than `parent`, which we have.
                let _ = btrfs::subvolume_delete(parent.as_fd(), &name);
                Err(error).context(what)
            }
        }
    }

    /// Makes a snapshot of `source` next to `target`, under a scratch name that
    /// is derived from it and not taken.
    pub fn scratch(source: &Path, target: &Path) -> Result<Snapshot> {
        loop {
            let to = scratch_path(target);
            match Snapshot::create(source, &to) {
                // Left by a predecessor with our process id.
                Err(error) if error.errno() == Some(libc::EEXIST) => {}
                result => return result,
            }
        }
    }

    /// The same, but waits for a sweep of the directory to end. `wait` is called for
    /// each pause and returns whether to go on; `None`: it said no.
    pub fn scratch_in_turn(
        source: &Path,
        target: &Path,
        wait: &mut dyn FnMut(Duration) -> bool,
    ) -> Result<Option<Snapshot>> {
        let (mut pause, mut waited) = (FIRST_PAUSE, Duration::ZERO);
        loop {
            match Snapshot::scratch(source, target) {
                Err(error) if error.errno() == Some(libc::EWOULDBLOCK) => {
                    if waited >= SWEEP_TIMEOUT {
                        return Err(busy(source, target, error));
                    }
                }
                made => return made.map(Some),
            }
            if !wait(pause) {
                return Ok(None);
            }
            waited += pause;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Gives the snapshot the name `target`, in the same directory, in place of the
    /// subvolume of that name if there is one. Its contents are on disk before that,
    /// it is read-only, and its name is on disk on return.
    ///
    /// All writers must have stopped: a descriptor that is open for writing stays
    /// writable.
    ///
    /// # Errors
    ///
    /// Those of the file system, `ENOSPC` among them; the snapshot is then
    /// deleted, and what was under `target` is as it was. Also when `target` is
    /// something else than a subvolume.
    pub fn keep(mut self, target: &Path) -> Result<()> {
        let path = self.path.clone();
        let what = || {
            format!(
                "unable to rename {} to {}",
                path.display(),
                target.display()
            )
        };
        let Some(root) = &self.root else {
            return Ok(()); // Not reachable: `keep` and `close` consume us.
        };
        let (parent, to) = split(target).context(what)?;
        let (_, from) = split(&path).context(what)?;

        self.seal(root)?;
        trace!(3, "keep", "mv -T {} {}", path.display(), target.display());
        let replaced = loop {
            match btrfs::rename(parent.as_fd(), &from, &to, Rename::NoReplace) {
                Ok(()) => break false,
                Err(error) if error.raw_os_error() == Some(libc::EEXIST) => {}
                Err(error) => return Err(explain(error, &path, &what())),
            }
            if !is_subvolume(target)? {
                return Err(Error::new(format!(
                    "{}: {} is there and not a subvolume",
                    what(),
                    target.display()
                ))
                .hint("move it away"));
            }
            match btrfs::rename(parent.as_fd(), &from, &to, Rename::Exchange) {
                Ok(()) => break true,
                // The old copy has been deleted since.
                Err(error) if error.raw_os_error() == Some(libc::ENOENT) => {}
                Err(error) => return Err(explain(error, &path, &what())),
            }
        };
        // From here on the subvolume of that name is kept.
        self.root = None;
        if replaced {
            // The scratch name is now that of the old copy. If it cannot be deleted, the
            // next sweep removes it.
            diag::report(delete(&path));
        }
        // The rename of a subvolume makes this commit the transaction.
        parent.sync_all().context(what)
    }

    /// Puts what the snapshot contains on disk, and makes it read-only.
    fn seal(&self, root: &Locked) -> Result<()> {
        let path = &self.path;
        nix::unistd::syncfs(root.as_fd()).map_err(|errno| {
            let what = format!("unable to sync {}", path.display());
            explain(errno.into(), path, &what)
        })?;
        trace!(
            3,
            "seal",
            "btrfs property set -ts {} ro true",
            path.display()
        );
        btrfs::set_read_only(root.as_fd(), true).map_err(|error| {
            let what = format!("unable to make {} read-only", path.display());
            explain(error, path, &what)
        })
    }

    /// Deletes the snapshot.
    pub fn close(mut self) -> Result<()> {
        self.release()
    }

    fn release(&mut self) -> Result<()> {
        match self.root.take() {
            // The lock is held until the name is gone.
            Some(_lock) => delete(&self.path),
            None => Ok(()),
        }
    }
}

impl Drop for Snapshot {
    fn drop(&mut self) {
        if let Err(error) = self.release() {
            diag::warning(error).emit();
        }
    }
}

/// The error for a directory that stays locked.
fn busy(source: &Path, target: &Path, error: Error) -> Error {
    let dir = target.parent().unwrap_or(target);
    let Some(pid) = flock::holder(dir) else {
        return error;
    };
    Error::new(format!(
        "unable to snapshot {}: process {pid} has {} locked for more than {} seconds",
        source.display(),
        dir.display(),
        SWEEP_TIMEOUT.as_secs()
    ))
    .hint(format!(
        "an agent that cleans up there needs a moment; if this one is stopped (state T in \
         ps -p {pid}): kill -CONT {pid}"
    ))
}

/// The separator between a target's name and the rest of a scratch name. Toolchain
/// names cannot contain it, so that a scratch snapshot of one toolchain is never taken
/// for the copy of another one.
const MARK: &str = "-@";

/// A scratch path for `target` that this process has not used before:
/// `<target>-@<pid>.<n>`.
pub fn scratch_path(target: &Path) -> PathBuf {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let n = NEXT.fetch_add(1, Ordering::Relaxed);
    let mut path = target.as_os_str().to_owned();
    path.push(format!("{MARK}{}.{n}", std::process::id()));
    path.into()
}

/// Whether `name` is a scratch name for the target named `target`.
pub fn is_scratch(name: &OsStr, target: &OsStr) -> bool {
    let number = |text: &[u8]| !text.is_empty() && text.iter().all(u8::is_ascii_digit);
    name.as_bytes()
        .strip_prefix(target.as_bytes())
        .and_then(|rest| rest.strip_prefix(MARK.as_bytes()))
        .and_then(|rest| {
            let dot = rest.iter().position(|b| *b == b'.')?;
            Some((&rest[..dot], &rest[dot + 1..]))
        })
        .is_some_and(|(pid, n)| number(pid) && number(n))
}

fn lock(file: File, how: How) -> io::Result<Locked> {
    Locked::take(file, how).map_err(|(_, error)| error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scratch_name_is_of_one_toolchain_only() {
        let scratch = scratch_path(Path::new("/m/v/linux-gcc/linux-gcc-a"));
        let name = scratch.file_name().unwrap();
        assert!(is_scratch(name, OsStr::new("linux-gcc-a")));
        assert!(!is_scratch(name, OsStr::new("linux-gcc")));
        assert!(!is_scratch(name, OsStr::new("linux-gcc-a-b")));
        for other in [
            "linux-gcc-a",
            "linux-gcc-a-b",
            "linux-gcc-a-12-0",
            "linux-gcc-a-@",
            "linux-gcc-a-@12",
            "linux-gcc-a-@12.",
            "linux-gcc-a-@12.x",
            "linux-gcc-a-@.1",
            "linux-gcc-a-b-@1.2",
            "linux-gcc-1.0",
        ] {
            assert!(
                !is_scratch(OsStr::new(other), OsStr::new("linux-gcc-a")),
                "{other}"
            );
        }
    }
}
