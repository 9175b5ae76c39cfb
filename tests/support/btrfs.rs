//! A btrfs file system of one's own, on a loop file.
//!
//! ```text
//! Volume { mount point ── mount ── loop device (autoclear) ── image (unlinked) }
//! ```
//!
//! The image has no name any more once it is mounted, and the loop device
//! clears itself when the mount goes; so nothing is left however a test ends.

use std::fs;
use std::path::Path;

use super::{TempDir, require, require_programs, require_root, run};

/// A mounted btrfs file system.
#[derive(Debug)]
pub struct Volume {
    dir: TempDir,
}

impl Volume {
    /// Makes one of `mib` MiB (at least 110), or skips the test. To be called
    /// inside [`super::isolated`].
    #[must_use]
    pub fn new(mib: u64) -> Option<Volume> {
        Volume::with_options(mib, "")
    }

    /// The same with more mount options, beginning with a comma.
    #[must_use]
    pub fn with_options(mib: u64, options: &str) -> Option<Volume> {
        let known = fs::read_to_string("/proc/filesystems").unwrap_or_default();
        let ready = require_root()
            && require(known.contains("\tbtrfs\n"), "btrfs in the kernel")
            && require(Path::new("/dev/loop-control").exists(), "loop devices")
            && require_programs(&["mkfs.btrfs", "mount"]);
        if !ready {
            return None;
        }
        let dir = TempDir::new();
        let image = dir.path().with_extension("img");
        let file = fs::File::create(&image).unwrap();
        file.set_len(mib * 1024 * 1024).unwrap();
        run(&format!("mkfs.btrfs -q -m single {}", image.display()));
        run(&format!(
            "mount -t btrfs -o loop{options} {} {}",
            image.display(),
            dir.path().display()
        ));
        fs::remove_file(&image).unwrap();
        Some(Volume { dir })
    }

    /// Where it is mounted.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.dir.path()
    }
}

impl Drop for Volume {
    fn drop(&mut self) {
        let flags = nix::mount::MntFlags::MNT_DETACH;
        let _ = nix::mount::umount2(self.path(), flags);
    }
}
