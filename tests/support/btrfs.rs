//! A btrfs file system of one's own, on a loop file.
//!
//! ```text
//! Volume { mount point ── mount ── loop device (autoclear) ── image (unlinked) }
//! ```
//!
//! The image has no name any more once it is mounted, and the loop device
//! clears itself when the mount goes; so nothing is left however a test ends.

use std::fs::{self, File};
use std::os::fd::AsRawFd as _;
use std::path::{Path, PathBuf};

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
        let file = File::create(&image).unwrap();
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

// `BTRFS_IOC_SUBVOL_CREATE` with its `struct btrfs_ioctl_vol_args` (linux/btrfs.h).
nix::ioctl_write_ptr!(subvol_create, 0x94, 14, [u8; 4096]);

/// Makes an empty subvolume, as an operator does with `btrfs subvolume create`.
#[allow(unsafe_code)]
pub fn subvolume(path: &Path) -> PathBuf {
    let parent = File::open(path.parent().unwrap()).unwrap();
    let name = path.file_name().unwrap().as_encoded_bytes();
    // An unused descriptor, then the name.
    let mut arguments = [0; 4096];
    arguments[8..8 + name.len()].copy_from_slice(name);
    // SAFETY: the kernel reads the live arguments and keeps no pointer.
    unsafe { subvol_create(parent.as_raw_fd(), &raw const arguments) }.unwrap();
    path.to_owned()
}

impl Drop for Volume {
    fn drop(&mut self) {
        let flags = nix::mount::MntFlags::MNT_DETACH;
        let _ = nix::mount::umount2(self.path(), flags);
    }
}
