//! The test guest: its image, and how to steer it. See tests/guest/README.

use std::fs::{self, OpenOptions};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Condvar, Mutex, OnceLock};

use super::run;

/// The bridge's address, as the guest expects it, and the bits of its network.
pub const BRIDGE: ([u8; 4], u8) = ([10, 195, 0, 1], 16);

/// The program that runs it.
pub const QEMU: &str = "qemu-system-x86_64";

/// The image, built when needed; or why there is none.
pub fn image() -> Result<&'static Path, &'static str> {
    static IMAGE: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    let built = IMAGE.get_or_init(|| {
        Command::new(QEMU)
            .arg("--version")
            .stdout(Stdio::null())
            .status()
            .map_err(|error| format!("{QEMU}: {error}"))?;
        build(&[])
    });
    match built {
        Ok(path) => Ok(path),
        Err(why) => Err(why),
    }
}

/// Runs the script with these arguments, in the root of the tree.
fn build(arguments: &[&str]) -> Result<PathBuf, String> {
    let root = env!("CARGO_MANIFEST_DIR");
    let mut command = Command::new(Path::new(root).join("tests/guest/build"));
    let output = command.current_dir(root).args(arguments).output();
    let output = output.map_err(|error| error.to_string())?;
    match output.status.success() {
        true => Ok(String::from_utf8_lossy(&output.stdout).trim().into()),
        false => Err(String::from_utf8_lossy(&output.stderr).trim().to_owned()),
    }
}

/// The image with Debian's largest kernel, or why there is none. It notices when it is
/// restored from a template, and has the drivers of a SATA disk, an e1000e and a TPM.
pub fn image_with_large_kernel() -> Result<PathBuf, String> {
    build(&["target/guest-vmgenid", "amd64"])
}

/// The image that only UEFI boots, or why there is none. The guest needs 192 MB.
pub fn image_for_uefi() -> Result<PathBuf, String> {
    build(&["target/guest", "cloud-amd64", "uefi"])
}

/// The image of an aarch64 guest, which UEFI boots, or why there is none.
pub fn image_for_aarch64() -> Result<PathBuf, String> {
    build(&["target/guest-arm64", "cloud-arm64", "uefi"])
}

/// Puts the image into `directory` as `disk.img`, with these settings.
pub fn install(directory: &Path, settings: &str) {
    install_image(image().unwrap(), directory, settings);
}

/// The same with another image.
pub fn install_image(image: &Path, directory: &Path, settings: &str) {
    let disk = directory.join("disk.img");
    // Sparse; a reflink where the file system can.
    let copied = Command::new("cp")
        .args(["--sparse=always", "--reflink=auto"])
        .args([image, &disk])
        .status()
        .unwrap();
    assert!(copied.success());
    steer(&disk, settings);
}

/// Writes the settings into an image.
pub fn steer(disk: &Path, settings: &str) {
    let mut area = settings.as_bytes().to_vec();
    assert!(area.len() <= 4096);
    area.resize(4096, 0);
    let file = OpenOptions::new().write(true).open(disk).unwrap();
    file.write_all_at(&area, 65536).unwrap();
}

/// Puts the worker into a toolchain directory.
pub fn offer_worker(directory: &Path) {
    fs::create_dir_all(directory).unwrap();
    let worker = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/guest/worker");
    fs::copy(worker, directory.join("worker")).unwrap();
}

/// Two guests at once, and not one for every test that is ready: emulated ones
/// take a processor each.
pub struct Turn(usize);

static RUNNING: (Mutex<usize>, Condvar) = (Mutex::new(0), Condvar::new());

/// Waits until a guest may be started.
pub fn turn() -> Turn {
    turns(1)
}

/// Waits until so many guests may be started, at most two. Two tests that took one turn
/// after the other would wait for each other.
pub fn turns(count: usize) -> Turn {
    const MOST: usize = 2;
    let running = RUNNING.0.lock().unwrap();
    let mut running = RUNNING
        .1
        .wait_while(running, |r| *r + count > MOST)
        .unwrap();
    *running += count;
    Turn(count)
}

impl Drop for Turn {
    fn drop(&mut self) {
        *RUNNING.0.lock().unwrap() -= self.0;
        RUNNING.1.notify_all();
    }
}

/// Makes the bridge `name` with the address that guests expect, up.
pub fn bridge(name: &str) {
    let ([a, b, c, d], bits) = BRIDGE;
    run(&format!("ip link add {name} type bridge"));
    run(&format!("ip addr add {a}.{b}.{c}.{d}/{bits} dev {name}"));
    run(&format!("ip link set {name} up"));
}
