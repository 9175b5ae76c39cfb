//! A host with next to nothing: a root file system that holds the program, QEMU,
//! its libraries and firmware, and no network but the bridge.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use nix::mount::{MntFlags, MsFlags, mount, umount2};

use crate::support::host::{AGENT, Host, TURN, finish};
use crate::support::{guest, isolated, program, require_programs, run};

/// Where Debian keeps QEMU's firmware.
const FIRMWARE: &[&str] = &[
    "/usr/share/qemu",
    "/usr/share/seabios",
    "/usr/lib/ipxe/qemu",
];

/// Where it keeps parts of QEMU that are loaded when needed.
const MODULES: &str = "/usr/lib/x86_64-linux-gnu/qemu";

/// What of `/dev` the agent and QEMU open.
const DEVICES: &[&str] = &["null", "zero", "random", "urandom", "net/tun"];

fn copy(from: &Path, root: &Path) {
    let to = root.join(from.strip_prefix("/").unwrap());
    fs::create_dir_all(to.parent().unwrap()).unwrap();
    // What a link points to.
    fs::copy(from, &to).unwrap();
    let mode = fs::metadata(from).unwrap().permissions().mode();
    fs::set_permissions(&to, fs::Permissions::from_mode(mode)).unwrap();
}

fn copy_all(dir: &Path, root: &Path) {
    for entry in fs::read_dir(dir).into_iter().flatten() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            copy_all(&path, root);
        } else if path.exists() {
            copy(&path, root);
        }
    }
}

/// Mounts, taken away again before the directory is removed that they are in.
struct Mounts(Vec<PathBuf>);

impl Mounts {
    fn bind(&mut self, from: &Path, to: &Path) {
        if from.is_dir() {
            fs::create_dir_all(to).unwrap();
        } else {
            fs::create_dir_all(to.parent().unwrap()).unwrap();
            fs::write(to, "").unwrap();
        }
        let none = None::<&str>;
        mount(Some(from), to, none, MsFlags::MS_BIND, none).unwrap();
        self.0.push(to.to_owned());
    }

    fn proc(&mut self, to: PathBuf) {
        fs::create_dir(&to).unwrap();
        let proc = Some("proc");
        mount(proc, &to, proc, MsFlags::empty(), None::<&str>).unwrap();
        self.0.push(to);
    }
}

impl Drop for Mounts {
    fn drop(&mut self) {
        for to in self.0.drain(..).rev() {
            let _ = umount2(&to, MntFlags::MNT_DETACH);
        }
    }
}

/// The libraries of a program, the loader included, as ldd(1) finds them.
fn libraries(program: &Path) -> Vec<PathBuf> {
    run(&format!("ldd {}", program.display()))
        .split_whitespace()
        .filter(|word| word.starts_with('/'))
        .map(PathBuf::from)
        .filter(|path| path.exists())
        .collect()
}

#[test]
fn a_whole_turn_on_a_root_with_nothing_but_qemu() {
    isolated(|| {
        if !require_programs(&["chroot", "ldd", guest::QEMU]) {
            return;
        }
        let Some(host) = Host::new() else { return };
        host.add("linux", "");
        host.task("one", "linux", "");

        let root = host.path("root");
        fs::create_dir_all(root.join("bin")).unwrap();
        fs::copy(AGENT, root.join("bin/bbot-agent")).unwrap();
        let qemu = program(guest::QEMU).unwrap();
        copy(&qemu, &root);
        for library in libraries(&qemu) {
            copy(&library, &root);
        }
        // Debian's QEMU loads its translator when it is asked for.
        for entry in fs::read_dir(MODULES).into_iter().flatten() {
            let path = entry.unwrap().path();
            if path
                .file_name()
                .unwrap()
                .as_encoded_bytes()
                .starts_with(b"accel-")
            {
                copy(&path, &root);
            }
        }
        for dir in FIRMWARE {
            copy_all(Path::new(dir), &root);
        }
        let mut mounts = Mounts(Vec::new());
        for device in DEVICES {
            let device = Path::new("/dev").join(device);
            mounts.bind(&device, &root.join(device.strip_prefix("/").unwrap()));
        }
        mounts.proc(root.join("proc"));
        // The places of a build host, which the agent finds by default.
        let machine = host.machine("linux");
        let machines = machine.ancestors().nth(2).unwrap();
        mounts.bind(machines, &root.join("build/machines"));
        mounts.bind(&host.path("tftp"), &root.join("build/tftp"));
        mounts.bind(&host.path("controller"), &root.join("controller"));

        let _turn = guest::turn();
        let mut command = Command::new(program("chroot").unwrap());
        command
            .arg(&root)
            .args(["/bin/bbot-agent", "--once", "--accel=tcg", "--ram=262144"])
            .args([
                "--hold=0",
                "--min-free=1M",
                "--agent-name=airgap",
                "/controller",
            ])
            .env_clear()
            .stdin(Stdio::null());
        let ran = finish(command, TURN);
        assert_eq!(ran.code, Some(0), "{}", ran.err);
        let result = host.result("one").expect(&ran.err);
        assert!(result.contains("status: success\n"), "{result}");

        // The agent wants no shell, no tool, no file of configuration.
        let mut found: Vec<String> = fs::read_dir(&root)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        found.sort();
        assert!(!found.contains(&"etc".to_owned()), "{found:?}");
        let programs: Vec<String> = ["bin", "usr/bin"]
            .iter()
            .flat_map(|dir| fs::read_dir(root.join(dir)).into_iter().flatten())
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        assert_eq!(programs, ["bbot-agent", guest::QEMU]);
    });
}
