//! What a sweep takes and what it leaves, on a real file system.

use std::collections::BTreeSet;
use std::ffi::CString;
use std::fs::{self, File};
use std::os::fd::AsFd as _;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use bbot_agent::lock::{Attempt, Lock};
use bbot_agent::snapshot::{self, Snapshot};
use bbot_agent::sweep::{self, SweepSettings};
use bbot_agent::sys::btrfs;
use nix::mount::{MsFlags, mount, umount};

use crate::support::btrfs::{Volume, subvolume};
use crate::support::{Process, TempDir, eventually, example, isolated};

fn name(path: &Path) -> CString {
    CString::new(path.file_name().unwrap().to_str().unwrap()).unwrap()
}

struct Host {
    volume: Volume,
    /// `<machines>/v/a-b`, a machine with dashes.
    machine: PathBuf,
    revision: PathBuf,
    dir: TempDir,
}

impl Host {
    fn new() -> Option<Host> {
        let volume = Volume::new(256)?;
        let machine = volume.path().join("v/a-b");
        fs::create_dir_all(&machine).unwrap();
        let revision = subvolume(&machine.join("a-b-1.0"));
        let dir = TempDir::new();
        Some(Host {
            volume,
            machine,
            revision,
            dir,
        })
    }

    fn config(&self, toolchain: &str) -> SweepSettings {
        let owner = format!("{toolchain}-1");
        SweepSettings {
            machines: self.volume.path().to_owned(),
            tftp: self.dir.path().join("tftp"),
            run_dir: self.dir.path().join("run").join(&owner),
            failed: self.dir.path().join("state/failed"),
            toolchain: toolchain.to_owned(),
            owner,
            instance: 1,
            warm: Vec::new(),
        }
    }

    fn lock(config: &SweepSettings) -> Lock {
        match Lock::take(&config.run_dir).unwrap() {
            Attempt::Ours(lock) => lock,
            Attempt::Busy(_) => panic!("the lock is free"),
        }
    }

    /// A snapshot with nobody who holds its lock, as a killed agent leaves it.
    fn leak(&self, toolchain: &str) -> PathBuf {
        let path = snapshot::scratch_path(&self.machine.join(format!("a-b-{toolchain}")));
        let parent = File::open(&self.machine).unwrap();
        let source = File::open(&self.revision).unwrap();
        btrfs::snapshot_create(parent.as_fd(), source.as_fd(), &name(&path)).unwrap();
        path
    }
}

fn on_host(test: impl FnOnce(&Host) + Send) {
    isolated(|| {
        if let Some(host) = Host::new() {
            test(&host);
        }
    });
}

/// Every path below `dir`.
fn tree(dir: &Path) -> BTreeSet<PathBuf> {
    let mut found = BTreeSet::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() && !path.is_symlink() {
            found.extend(tree(&path));
        }
        found.insert(path);
    }
    found
}

fn lines(config: &SweepSettings, lock: Option<&Lock>) -> Vec<String> {
    let litter = sweep::find(config, lock);
    litter.iter().map(ToString::to_string).collect()
}

#[test]
fn templates_without_a_copy_or_a_use_are_litter() {
    on_host(|host| {
        let config = host.config("gcc");
        let lock = Host::lock(&config);
        let template = |name: &str| subvolume(&host.machine.join(name));
        template("a-b-gcc");
        let own = template("a-b-gcc-@warm.1");
        template("a-b-gcc-@warm.2");
        template("a-b-other-@warm.1");
        let found = [format!("{}: template that is not used", own.display())];
        assert_eq!(lines(&config, Some(&lock)), found);
        // An agent of this instance may run with --warm.
        assert!(lines(&config, None).is_empty());
        let warm = SweepSettings {
            warm: vec!["a-*".to_owned()],
            ..config.clone()
        };
        assert!(lines(&warm, Some(&lock)).is_empty());
        fs::remove_dir(host.machine.join("a-b-gcc")).unwrap();
        assert_eq!(lines(&warm, None).len(), 2);
        sweep::sweep(&warm, None);
        assert!(!own.exists());
        assert!(host.machine.join("a-b-other-@warm.1").exists());
    });
}

/// What the file system's index of subvolumes does not tell has to be read.
#[test]
fn they_are_found_wherever_the_machine_directory_is() {
    on_host(|host| {
        let other = Volume::new(256).unwrap();
        let volume = host.volume.path().join("v");
        let leak = |dir: &Path, name: &str| {
            let source = subvolume(&dir.join(format!("{name}-1.0")));
            let path = snapshot::scratch_path(&dir.join(format!("{name}-gcc")));
            let parent = File::open(dir).unwrap();
            let origin = File::open(&source).unwrap();
            btrfs::snapshot_create(parent.as_fd(), origin.as_fd(), &self::name(&path)).unwrap();
            let scratch = path.file_name().unwrap();
            volume.join(name).join(scratch)
        };
        subvolume(&volume.join("nested"));
        let elsewhere = other.path().join("elsewhere");
        fs::create_dir(&elsewhere).unwrap();
        symlink(&elsewhere, volume.join("link")).unwrap();
        let mut expected = vec![
            leak(&volume.join("nested"), "nested"),
            leak(&elsewhere, "link"),
            host.leak("gcc"),
        ];
        let found = || -> Vec<PathBuf> {
            let litter = sweep::find(&host.config("gcc"), None);
            litter
                .iter()
                .map(|litter| PathBuf::from(litter.to_string().split(": ").next().unwrap()))
                .collect()
        };
        expected.sort();
        assert_eq!(found(), expected);

        let point = volume.join("mounted");
        fs::create_dir(&point).unwrap();
        let mounted = other.path().join("mounted");
        fs::create_dir(&mounted).unwrap();
        mount(
            Some(&mounted),
            &point,
            None::<&str>,
            MsFlags::MS_BIND,
            None::<&str>,
        )
        .unwrap();
        expected.push(leak(&point, "mounted"));
        expected.sort();
        assert_eq!(found(), expected);
        umount(&point).unwrap();
    });
}

#[test]
fn scratch_snapshots_of_the_dead_go_and_nothing_else_does() {
    on_host(|host| {
        // Two toolchains one of which begins like the other, a living owner,
        // and what an operator may have put there.
        let living = Snapshot::scratch(&host.revision, &host.machine.join("a-b-gcc")).unwrap();
        Snapshot::scratch(&host.revision, &host.machine.join("a-b-gcc"))
            .unwrap()
            .keep(&host.machine.join("a-b-gcc"))
            .unwrap();
        subvolume(&host.machine.join("a-b-gcc-x"));
        subvolume(&host.machine.join("a-b-gcc-backup"));
        subvolume(&host.machine.join("a-b-gcc-12-0"));
        fs::create_dir(host.machine.join("a-b-gcc-@1.0")).unwrap();
        let other = host.leak("gcc-x");
        let before = tree(host.volume.path());
        let leaked = [host.leak("gcc"), host.leak("gcc")];
        fs::write(leaked[0].join("disk.img"), "x").unwrap();
        snapshot::set_read_only(&leaked[1], true).unwrap();

        let config = host.config("gcc");
        let lock = Host::lock(&config);
        let expected = leaked
            .each_ref()
            .map(|path| format!("{}: scratch snapshot of a dead agent", path.display()));
        let everything = tree(host.volume.path());
        assert_eq!(lines(&config, Some(&lock)), expected);
        assert_eq!(
            tree(host.volume.path()),
            everything,
            "looking is not removing"
        );
        sweep::sweep(&config, Some(&lock));
        assert_eq!(tree(host.volume.path()), before);
        assert_eq!(lines(&config, Some(&lock)), [""; 0]);

        assert!(other.exists());
        sweep::sweep(&host.config("gcc-x"), None);
        assert!(!other.exists());
        assert!(host.machine.join("a-b-gcc-x").exists());
        living.close().unwrap();
    });
}

#[test]
fn evidence_that_is_incomplete_goes_with_the_lock_only() {
    on_host(|host| {
        let config = host.config("gcc");
        let [partial, whole] = ["20260101T000000Z-a.partial", "20260101T000000Z-a"]
            .map(|name| config.failed.join(name));
        for directory in [&partial, &whole] {
            fs::create_dir_all(directory).unwrap();
            fs::write(directory.join("console.txt"), "").unwrap();
        }
        assert_eq!(lines(&config, None), [""; 0]);
        let lock = Host::lock(&config);
        assert_eq!(
            lines(&config, Some(&lock)),
            [format!(
                "{}: incomplete evidence of a dead agent",
                partial.display()
            )]
        );
        sweep::sweep(&config, Some(&lock));
        assert!(!partial.exists() && whole.join("console.txt").exists());
    });
}

#[test]
fn litter_that_is_gone_already_is_no_error() {
    on_host(|host| {
        let path = host.leak("gcc");
        let config = host.config("gcc");
        let litter = sweep::find(&config, None);
        assert_eq!(litter.len(), 1);
        snapshot::delete(&path).unwrap();
        litter[0].remove().unwrap();
    });
}

#[test]
fn a_machine_directory_in_which_a_snapshot_is_being_made_is_left_alone() {
    on_host(|host| {
        use nix::fcntl::{Flock, FlockArg};
        let path = host.leak("gcc");
        let config = host.config("gcc");
        let maker = File::open(&host.machine).unwrap();
        let making = Flock::lock(maker, FlockArg::LockShared).unwrap();
        assert_eq!(lines(&config, None), [""; 0]);
        drop(making);
        assert_eq!(lines(&config, None).len(), 1);
        assert!(path.exists());
    });
}

#[test]
fn run_files_and_tftp_directories_go_with_the_lock_of_their_agent() {
    on_host(|host| {
        let config = host.config("gcc");
        let other = host.config("gcc-x");
        for config in [&config, &other] {
            for tree in ["bootstrap", "build"] {
                let put = config.tftp.join(tree).join(&config.owner).join("put");
                fs::create_dir_all(&put).unwrap();
                fs::write(put.join(".tftp-1.part"), "half").unwrap();
            }
            fs::create_dir_all(config.run_dir.join("vm")).unwrap();
            for file in [
                "vm/vnc",
                "qmp",
                "console.log",
                "status.json",
                ".status.json.partial",
            ] {
                fs::write(config.run_dir.join(file), "").unwrap();
            }
        }
        fs::create_dir_all(config.tftp.join("toolchains/gcc")).unwrap();

        // While an agent lives, its things are its own.
        assert_eq!(lines(&config, None), [""; 0]);
        let lock = Host::lock(&config);
        sweep::sweep(&config, Some(&lock));
        let kept = |path: &Path| -> Vec<String> {
            tree(path)
                .iter()
                .map(|found| found.strip_prefix(path).unwrap().display().to_string())
                .collect()
        };
        assert_eq!(
            kept(&config.run_dir),
            ["agent.lock", "console.log", "status.json"]
        );
        assert_eq!(kept(&other.run_dir).len(), 6);
        assert!(!config.tftp.join("build/gcc-1").exists());
        assert!(!config.tftp.join("bootstrap/gcc-1").exists());
        assert!(config.tftp.join("build/gcc-x-1/put/.tftp-1.part").exists());
        assert!(config.tftp.join("toolchains/gcc").exists());
    });
}

#[test]
fn an_orphaned_qemu_is_killed_and_a_shell_in_the_same_place_is_not() {
    on_host(|host| {
        let living = Snapshot::scratch(&host.revision, &host.machine.join("a-b-gcc")).unwrap();
        let dead = host.leak("gcc");
        let start = |dir: &Path, name: Option<&Path>| {
            let mut command = Command::new("/bin/sh");
            command.args(["-c", "read line; :", "sh"]);
            if let Some(name) = name {
                command.arg(format!("guest={}", name.display()));
            }
            Process(
                command
                    .current_dir(dir)
                    .stdin(Stdio::piped())
                    .spawn()
                    .unwrap(),
            )
        };
        let mut orphan = start(&dead, Some(&dead));
        let mut shell = start(&dead, None);
        let mut guest = start(living.path(), Some(living.path()));
        let config = host.config("gcc");
        let found = lines(&config, None);
        let pid = orphan.0.id();
        assert_eq!(found.len(), 2, "{found:?}");
        assert!(found[0].ends_with(&format!(": qemu of a dead agent, pid {pid}")));

        sweep::sweep(&config, None);
        eventually("the orphan is dead", || {
            orphan.0.try_wait().unwrap().is_some()
        });
        assert!(!dead.exists());
        assert!(shell.0.try_wait().unwrap().is_none());
        assert!(guest.0.try_wait().unwrap().is_none());

        // Also when its snapshot is gone, as after a sweep that was killed.
        let dead = host.leak("gcc");
        let mut orphan = start(&dead, Some(&dead));
        snapshot::delete(&dead).unwrap();
        sweep::sweep(&config, None);
        eventually("the orphan is dead", || {
            orphan.0.try_wait().unwrap().is_some()
        });
        assert!(guest.0.try_wait().unwrap().is_none());
    });
}

#[test]
fn the_program_prints_what_it_would_remove_and_then_removes_it() {
    on_host(|host| {
        let config = host.config("gcc");
        let path = host.leak("gcc");
        let tree = config.tftp.join("build/gcc-1");
        fs::create_dir_all(&tree).unwrap();
        let gc = |more: &[&str]| {
            let dir = |name: &str| host.dir.path().join(name);
            let output = Command::new(env!("CARGO_BIN_EXE_bbot-agent"))
                .args(["--gc", "--toolchain-name", "gcc", "--machines"])
                .arg(host.volume.path())
                .arg("--tftp")
                .arg(dir("tftp"))
                .arg("--run-dir")
                .arg(dir("run"))
                .args(more)
                .output()
                .unwrap();
            assert!(output.status.success(), "{output:?}");
            String::from_utf8(output.stdout).unwrap()
        };
        let expected = format!(
            "{}: tftp directory of a dead agent\n{}: scratch snapshot of a dead agent\n",
            tree.display(),
            path.display()
        );
        assert_eq!(gc(&["--dry-run"]), expected);
        assert!(path.exists() && tree.exists());

        // An agent that runs keeps what is its own.
        let lock = Host::lock(&config);
        assert_eq!(gc(&["--dry-run"]).lines().count(), 1);
        drop(lock);

        assert_eq!(gc(&[]).lines().count(), 2);
        assert!(!path.exists() && !tree.exists());
        assert_eq!(gc(&[]), "");
    });
}

#[test]
fn a_killed_agents_snapshot_is_litter_and_a_living_ones_is_not() {
    on_host(|host| {
        let mut agent = Process(
            Command::new(example("owner"))
                .arg("scratch")
                .arg(&host.revision)
                .spawn()
                .unwrap(),
        );
        let ready = || {
            tree(host.volume.path())
                .into_iter()
                .find(|path| path.ends_with("ready"))
        };
        eventually("the agent is ready", || {
            ready().is_some_and(|path| !fs::read_to_string(path).unwrap().is_empty())
        });
        let child: i32 = fs::read_to_string(ready().unwrap())
            .unwrap()
            .parse()
            .unwrap();
        let config = host.config("gcc");
        assert_eq!(lines(&config, None), [""; 0]);
        agent.kill();
        assert_eq!(lines(&config, None).len(), 1);
        sweep::sweep(&config, None);
        assert_eq!(ready(), None);
        let child = nix::unistd::Pid::from_raw(child);
        nix::sys::signal::kill(child, nix::sys::signal::Signal::SIGKILL).unwrap();
    });
}
