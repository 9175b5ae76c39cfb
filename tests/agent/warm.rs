//! Warm starts: the same result as a cold one, and a cold one whatever is wrong.

use std::fs::{self, File};
use std::io::Read as _;
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;
use std::time::SystemTime;

use nix::sys::signal::Signal;

use super::turns::signal;
use crate::support::host::{Host, Ran, names};
use crate::support::{eventually, guest, isolated, run, skip};

const WARM: &[&str] = &["--once", "--warm"];

/// A host with the machine `m`, and a template of it.
struct Prepared {
    host: Host,
    template: PathBuf,
}

impl Prepared {
    /// `settings` steer the machine.
    fn new(settings: &str) -> Option<Prepared> {
        let host = Host::new()?;
        // Its own address would change with its ports.
        run("ip link set br1 address 02:00:00:00:00:01");
        host.add_bootstrapped("m", settings);
        let template = host.machine("m/m-default-@warm.1");
        let prepared = Prepared { host, template };
        prepared.make();
        let (template, backup) = (prepared.template.display(), prepared.backup());
        run(&format!(
            "btrfs -q subvolume snapshot -r {template} {backup}"
        ));
        Some(prepared)
    }

    fn backup(&self) -> String {
        self.host.machine("m/.backup").display().to_string()
    }

    /// Puts the template back, without a boot.
    fn put_back(&self) {
        let (template, backup) = (self.template.display(), self.backup());
        run(&format!(
            "btrfs -q subvolume snapshot -r {backup} {template}"
        ));
    }

    /// An idle turn, which makes the template.
    #[track_caller]
    fn make(&self) {
        self.end_pause();
        let ran = self.host.run(WARM);
        assert_eq!(ran.code, Some(0), "{}", ran.err);
        assert!(ran.err.contains("info: made template of "), "{}", ran.err);
        assert!(self.template.join("warm.state").exists());
    }

    /// Ends the pause after the last attempt to make a template.
    fn end_pause(&self) {
        let _ = fs::remove_file(self.host.path("state/default-1/templates"));
    }

    /// A turn with the task `name`, which succeeds.
    #[track_caller]
    fn task(&self, name: &str, words: &[&str]) -> Ran {
        self.host.task(name, "m", "target-config: mode=clock\n");
        let ran = self.host.run(words);
        assert_eq!(ran.code, Some(0), "{}", ran.err);
        let result = self.host.result(name).expect(&ran.err);
        assert!(result.contains("\nstatus: success\n"), "{result}");
        ran
    }

    /// A task that starts warm.
    #[track_caller]
    fn warm(&self, name: &str) -> String {
        let ran = self.task(name, WARM);
        assert!(ran.err.contains(", restore "), "{}", ran.err);
        assert!(!ran.err.contains("starts cold"), "{}", ran.err);
        self.host.result(name).unwrap()
    }

    /// A task that starts cold, for this reason, which costs the template.
    #[track_caller]
    fn cold(&self, name: &str, why: &str, words: &[&str]) {
        let ran = self.task(name, words);
        let said = format!("m-default starts cold: {why}");
        assert!(ran.err.contains(&said), "{}", ran.err);
        assert_eq!(ran.err.matches("starts cold").count(), 1, "{}", ran.err);
        assert!(ran.err.contains(", boot "), "{}", ran.err);
        assert!(!self.template.exists());
    }

    /// Changes a file of the template, as no agent does.
    fn damage(&self, name: &str, change: impl FnOnce(&File)) {
        let template = self.template.display();
        run(&format!("btrfs property set -ts {template} ro false"));
        let path = self.template.join(name);
        let file = File::options().read(true).write(true).open(path).unwrap();
        change(&file);
        run(&format!("btrfs property set -ts {template} ro true"));
    }
}

/// Changes a bit, and not the time of the file.
fn flip(file: &File, at: u64) {
    let time = file.metadata().unwrap().modified().unwrap();
    let mut octet = [0];
    file.read_exact_at(&mut octet, at).unwrap();
    file.write_all_at(&[octet[0] ^ 4], at).unwrap();
    file.set_modified(time).unwrap();
}

/// The value behind a word of a result.
fn value<'a>(result: &'a str, word: &str) -> &'a str {
    let (_, rest) = result.split_once(word).unwrap();
    rest.split([',', ' ', '\n']).next().unwrap()
}

fn now() -> u64 {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    now.unwrap().as_secs()
}

#[test]
fn a_warm_task_has_the_result_of_a_cold_one() {
    isolated(|| {
        let Some(prepared) = Prepared::new("") else {
            return;
        };
        let host = &prepared.host;
        host.task("cold", "m", "");
        let ran = host.run(&["--once"]);
        assert!(ran.err.contains(", boot "), "{}", ran.err);
        // An agent without the option has no use for the template.
        assert!(ran.err.contains("template that is not used"), "{}", ran.err);
        prepared.make();
        host.task("warm", "m", "");
        let ran = host.run(WARM);
        assert!(ran.err.contains(", restore "), "{}", ran.err);
        assert_eq!(host.result("warm"), host.result("cold"));
        // The template outlives the task, an idle turn has nothing to say, and nothing
        // else is left.
        let ran = host.run(WARM);
        assert_eq!((ran.code, &*ran.err), (Some(0), ""));
        assert_eq!(
            host.subvolumes("m"),
            [".backup", "m-1", "m-1.0", "m-default", "m-default-@warm.1"]
        );
        assert_eq!(run("nft list ruleset"), "");
    });
}

#[test]
fn make_finds_no_source_of_the_future_in_a_warm_guest() {
    isolated(|| {
        // By its clock the template is an hour old. The worker sets it, an agent does, or,
        // for comparison, neither.
        for (settings, is_set) in [("", true), ("agent=yes\n", true), ("agent=no\n", false)] {
            let Some(prepared) = Prepared::new(&format!("clock=3600\n{settings}")) else {
                return;
            };
            let host = &prepared.host;
            let config = format!("target-config: mode=make source={}\n", now());
            host.task("task", "m", &config);
            let ran = host.run(WARM);
            assert!(ran.err.contains(", restore "), "{}", ran.err);
            let result = host.result("task").unwrap();
            let found: u64 = value(&result, "now ").parse().unwrap();
            assert_eq!(found.abs_diff(now()) <= 30, is_set, "{settings}: {found}");
            let (first, second) = result.split_once("\nsecond\n").unwrap();
            assert!(first.contains("\ncp source built"), "{result}");
            assert_eq!(second.contains("'built' is up to date"), is_set, "{result}");
            assert_eq!(result.contains(" in the future"), !is_set, "{result}");
            run("ip link delete br1");
        }
    });
}

#[test]
fn two_guests_of_one_template_have_different_random_numbers() {
    isolated(|| {
        let Some(host) = Host::new() else { return };
        let image = match guest::image_with_large_kernel() {
            Ok(image) => image,
            Err(why) => return skip(&why),
        };
        run("ip link set br1 address 02:00:00:00:00:01");
        let disk = host.revision("m", 0).join("disk.img");
        fs::copy(image, disk).unwrap();
        let template = host.machine("m/m-default-@warm.1");
        let prepared = Prepared { host, template };
        prepared.make();
        let random = ["one", "two"].map(|name| {
            let result = prepared.warm(name);
            value(&result, "random ").to_owned()
        });
        assert_eq!(random[0].len(), 64, "{random:?}");
        assert_ne!(random[0], random[1]);
    });
}

#[test]
fn a_damaged_template_is_not_used() {
    isolated(|| {
        let Some(prepared) = Prepared::new("") else {
            return;
        };
        prepared.damage("warm.state", |file| flip(file, 5000));
        prepared.cold("state", "its files have changed", WARM);
        prepared.put_back();
        prepared.damage("warm.ram", |file| flip(file, 16));
        prepared.cold("ram", "its files have changed", WARM);
        prepared.put_back();
        prepared.damage("warm.ram", |file| file.set_len(1 << 20).unwrap());
        prepared.cold("length", "its files have changed", WARM);
        prepared.put_back();
        prepared.damage("warm.manifest", |file| file.set_len(40).unwrap());
        prepared.cold("manifest", "its template cannot be read: ", WARM);
        prepared.put_back();
        prepared.warm("mended");
    });
}

#[test]
fn the_user_of_an_interactive_build_ends_a_warm_guest() {
    isolated(|| {
        let Some(prepared) = Prepared::new("") else {
            return;
        };
        let task = "target-config: mode=reboot\ninteractive: error\n";
        prepared.host.task("user", "m", task);
        let words = [WARM, &["--interactive", "both"]].concat();
        let ran = prepared.host.run(&words);
        assert!(ran.err.contains(", restore "), "{}", ran.err);
        assert!(!ran.err.contains("starts cold"), "{}", ran.err);
        let result = prepared.host.result("user").expect(&ran.err);
        assert!(result.contains("\nstatus: abort\n"), "{result}");
        assert!(result.contains("the user ended the build"), "{result}");
        assert!(prepared.template.exists());
    });
}

#[test]
fn a_template_for_another_way_to_run_the_guest_is_not_used() {
    isolated(|| {
        let Some(prepared) = Prepared::new("") else {
            return;
        };
        let words = &["--once", "--warm", "--cpu", "2"];
        let why = "its template is for another command: QEMU's option -smp was ";
        prepared.cold("cpu", why, words);
        prepared.put_back();

        let words = &["--once", "--warm", "--warm-age", "1"];
        std::thread::sleep(std::time::Duration::from_secs(2));
        prepared.cold("age", "its template is too old", words);
        prepared.put_back();
        // The clock of the host was set back.
        prepared.damage("warm.manifest", |file| {
            let made = format!("made: {}", now() + 3600);
            let mut text = String::new();
            (&*file).read_to_string(&mut text).unwrap();
            let at = text.find("made: ").unwrap().try_into().unwrap();
            file.write_all_at(made.as_bytes(), at).unwrap();
        });
        prepared.cold("clock", "its template is too old", WARM);
        prepared.put_back();

        run("ip link set br1 address 02:00:00:00:00:02");
        let why = "the bridge's hardware address was 02:00:00:00:00:01, and is \
                   02:00:00:00:00:02";
        prepared.cold("bridge", why, WARM);
        prepared.put_back();

        // The package was upgraded.
        let qemu = prepared.host.path("qemu");
        let program = crate::support::program("qemu-system-x86_64").unwrap();
        let script = format!(
            "#!/bin/sh\ncase \"$*\" in *' -incoming '*) [ ! -e $0.old ] || {{ echo no >&2; exit 1; }} ;; esac\n\
             exec {} \"$@\"\n",
            program.display()
        );
        fs::write(&qemu, script).unwrap();
        run(&format!("chmod 755 {}", qemu.display()));
        let words = &["--once", "--warm", "--qemu", qemu.to_str().unwrap()];
        prepared.cold("qemu", "its template is for another qemu", words);

        // It does not load what it has saved. The next template comes after a pause, which
        // is that of all agents with --once.
        let ran = prepared.host.run(words);
        assert_eq!((ran.code, &*ran.err), (Some(0), ""));
        prepared.end_pause();
        let ran = prepared.host.run(words);
        assert!(ran.err.contains("info: made template of "), "{}", ran.err);
        fs::write(qemu.with_extension("old"), "").unwrap();
        let why = "unable to start machine ";
        prepared.cold("load", why, words);
    });
}

#[test]
fn a_machine_that_cannot_be_saved_is_tried_once_and_stays_cold() {
    isolated(|| {
        let Some(host) = Host::new() else { return };
        host.add_bootstrapped("m", "");
        let manifest = host.machine("m/m-default/manifest");
        // QEMU does not save this device.
        let text = fs::read_to_string(&manifest).unwrap();
        let options = "options: -netdev tap,id=net0,ifname=?,script=no \
                       -device virtio-net-pci,netdev=net0,mac=?,romfile= \
                       -drive if=none,id=disk0,file=disk.img,format=raw \
                       -device virtio-blk-pci,drive=disk0 -device nvme,serial=1";
        fs::write(
            &manifest,
            text.replacen("mac: ", &format!("{options}\nmac: "), 1),
        )
        .unwrap();
        let ran = host.run(WARM);
        assert!(ran.err.contains(" cannot start warm: "), "{}", ran.err);
        // It is not tried again, and the reason not said again.
        let ran = host.run(WARM);
        assert_eq!((ran.code, &*ran.err), (Some(0), ""));
    });
}

#[test]
fn a_guest_that_does_not_ask_for_its_task_is_booted_again_after_a_pause() {
    isolated(|| {
        let Some(host) = Host::new() else { return };
        run("ip link set br1 address 02:00:00:00:00:01");
        host.add_bootstrapped("m", "mode=silent\n");
        let words = &["--once", "--warm", "--build-startup", "4"];
        let template = host.machine("m/m-default-@warm.1");
        let failures = || names(&host.path("state/default-1/failed"));
        let ran = host.run(words);
        let why = "m-default: 4 seconds passed before it made a first request";
        assert!(ran.err.contains(why), "{}", ran.err);
        assert_eq!(failures().len(), 1);
        let ran = host.run(words);
        assert_eq!((ran.code, &*ran.err), (Some(0), ""));

        let end_pause = || {
            let file = host.path("state/default-1/templates");
            let text = fs::read_to_string(&file).unwrap();
            let (start, rest) = text.split_once("\"until\":").unwrap();
            let end = rest.trim_start_matches(|c: char| c.is_ascii_digit());
            let uptime = fs::read_to_string("/proc/uptime").unwrap();
            let (now, _) = uptime.split_once('.').unwrap();
            fs::write(file, format!("{start}\"until\":{now}{end}")).unwrap();
        };
        end_pause();
        let ran = host.run(words);
        // The reason was given.
        assert_eq!((ran.code, &*ran.err), (Some(0), ""));
        assert_eq!(failures().len(), 1);
        assert!(!template.exists());

        guest::steer(&host.machine("m/m-default/disk.img"), "");
        end_pause();
        let ran = host.run(words);
        assert!(ran.err.contains("info: made template of "), "{}", ran.err);
    });
}

#[test]
fn a_template_that_cannot_be_made_is_tried_after_pauses() {
    isolated(|| {
        let Some(host) = Host::new() else { return };
        host.add_bootstrapped("m", "");
        fs::write(host.machine("m/m-default/warm.ram"), "").unwrap();
        let mut command = host.agent(&["--warm", "--poll-interval", "1", "--verbose", "3"]);
        command.arg(host.path("controller"));
        let agent = host.start(command, "log");
        let count = |text: &str| {
            let log = fs::read_to_string(host.path("log")).unwrap();
            log.matches(text).count()
        };
        let attempts = || count("btrfs subvolume snapshot ");
        let rests = || count("it is not made for another ");
        eventually("turns without an attempt", || rests() == 2);
        assert_eq!(attempts(), 1);
        // The operator ends the pause.
        signal(&agent, Signal::SIGUSR2);
        eventually("another attempt", || attempts() == 2);
        eventually("a turn without an attempt", || rests() == 3);
        let template = host.machine("m/m-default-@warm.1");
        let why = format!("{}/warm.ram: File exists", template.display());
        assert_eq!(count(&format!("unable to open {why}")), 1);
        assert_eq!(host.subvolumes("m"), ["m-1", "m-1.0", "m-default"]);
    });
}
