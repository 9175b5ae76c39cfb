//! Guests that boot by UEFI, and hosts without the firmware for them.

use std::fs;
use std::path::Path;

use nix::sys::signal::Signal;

use super::keep_state::{COUNT, KEEP, failures};
use super::resume::{Resumed, count};
use crate::support::host::Host;
use crate::support::site::Site;
use crate::support::{guest, isolated, require, require_programs, run, skip};

/// Where distributions describe firmware.
const DESCRIPTORS: &str = "/usr/share/qemu/firmware";

/// Whether there is UEFI firmware, or a note that the test is skipped.
fn has_firmware() -> bool {
    let any = fs::read_dir(DESCRIPTORS).is_ok_and(|mut entries| entries.next().is_some());
    require(any, "UEFI firmware (ovmf)")
}

/// Whether a variable store has this boot entry.
fn has_entry(store: &[u8], name: &str) -> bool {
    let name: Vec<u8> = name.encode_utf16().flat_map(u16::to_le_bytes).collect();
    store.windows(name.len()).any(|window| window == name)
}

/// Has a guest of the machine fail, and resumes it.
#[track_caller]
fn goes_on_where_it_stood(host: &Host, machine: &str, words: &[&str]) {
    host.task("fails", machine, COUNT);
    let ran = host.run(&[KEEP, words].concat());
    let [failure] = &failures(host)[..] else {
        panic!("{}", ran.err);
    };
    let stood = count(&fs::read_to_string(failure.join("console.txt")).unwrap());
    let _turn = guest::turn();
    let resumed = Resumed::start(host, failure, words);
    resumed.await_console(&format!("guest: count {}", stood + 1));
    let console = resumed.console();
    assert!(!console.contains("guest: mode"), "it booted: {console}");
    resumed.end(Signal::SIGTERM);
}

#[test]
fn a_disk_that_only_uefi_boots_keeps_the_boot_entries_of_its_bootstrap() {
    isolated(|| {
        let Some(host) = Host::new() else { return };
        if !has_firmware() {
            return;
        }
        let image = match guest::image_for_uefi() {
            Ok(image) => image,
            Err(why) => return skip(&why),
        };
        let revision = host.revision("linux-gcc", 0);
        guest::install_image(&image, &revision, "");
        fs::write(revision.join("efi-vars.fd"), "").unwrap();
        run("ip link set br1 address 02:00:00:00:00:01");
        let task = |name: &str, words: &[&str], how: &str| {
            host.task(name, "linux-gcc", "target: x86_64-linux-gnu\n");
            let ran = host.run(words);
            assert_eq!(ran.code, Some(0), "{}", ran.err);
            assert!(ran.err.contains(how), "{}", ran.err);
            let result = host.result(name).unwrap();
            assert!(result.contains("status: success"), "{result}");
            assert!(result.contains(", entries Boot00AA-"), "{result}");
            assert!(!result.contains("Boot00BB"), "{result}");
        };
        task("one", &["--once"], ", boot ");
        // The template has the variables, too.
        let warm = &["--once", "--warm"];
        let ran = host.run(warm);
        assert!(ran.err.contains("info: made template of "), "{}", ran.err);
        task("two", warm, ", restore ");
        task("three", warm, ", restore ");
        // By hand it boots, cold.
        let script = fs::read_to_string(host.path("run/default-1/start-machine.sh")).unwrap();
        assert!(script.contains("[ -s efi-vars.fd ] || "), "{script}");
        assert!(script.contains("/linux-gcc-default\n"), "{script}");
        assert!(
            !script.contains("warm.ram") && !script.contains("-incoming"),
            "{script}"
        );
        let copy = host.machine("linux-gcc").join("linux-gcc-default");
        let store = fs::read(copy.join("efi-vars.fd")).unwrap();
        assert!(
            has_entry(&store, "Boot00AA"),
            "the entry of the bootstrap is gone"
        );
        assert!(
            !has_entry(&store, "Boot00BB"),
            "the entry of a build was kept"
        );
        assert_eq!(fs::read(revision.join("efi-vars.fd")).unwrap(), b"");
        goes_on_where_it_stood(&host, "linux-gcc", &[]);
    });
}

#[test]
fn an_aarch64_guest_is_emulated_and_builds() {
    isolated(|| {
        const QEMU: &str = "qemu-system-aarch64";
        let Some(host) = Host::new() else { return };
        if !require_programs(&[QEMU]) || !has_firmware() {
            return;
        }
        let image = match guest::image_for_aarch64() {
            Ok(image) => image,
            Err(why) => return skip(&why),
        };
        let name = "aarch64-linux-gcc";
        guest::install_image(&image, &host.revision(name, 0), "");
        host.task("one", name, "target: aarch64-linux-gnu\n");
        // An agent whose QEMU is for other guests leaves the machine alone.
        let ran = host.run(&["--once"]);
        assert_eq!(ran.code, Some(0), "{}", ran.err);
        assert!(host.result("one").is_none());
        assert!(!host.machine(name).join(format!("{name}-default")).exists());

        let check = |accel| host.run(&["--check", "--qemu", QEMU, "--accel", accel]).out;
        let kvm = check("kvm");
        let why = "kvm: this host is x86_64, and guests of qemu-system-aarch64 are aarch64";
        assert!(kvm.contains(why) && kvm.contains("--accel tcg"), "{kvm}");
        let tcg = check("tcg");
        assert!(tcg.contains("tcg: a guest ran"), "{tcg}");

        let words = ["--qemu", QEMU, "--accel", "auto", "--ram", "524288"];
        let ran = host.run(&[&["--once"], &words[..]].concat());
        assert_eq!(ran.code, Some(0), "{}", ran.err);
        let why = "this host is x86_64, and guests of qemu-system-aarch64 are aarch64";
        assert!(ran.err.contains(why), "{}", ran.err);
        let result = host.result("one").unwrap();
        assert!(result.contains("status: success"), "{result}");
        // The machine has no variable store; the copy got one.
        assert!(result.contains(", entries Boot00AA-"), "{result}");
        goes_on_where_it_stood(&host, name, &words);
    });
}

#[test]
fn a_host_without_firmware_for_a_machine_says_what_to_install() {
    isolated(|| {
        let Some(site) = Site::new() else { return };
        if !has_firmware() {
            return;
        }
        let store = site.machine().join("linux-1.0/efi-vars.fd");
        fs::write(&store, [0; 3]).unwrap();
        let cause = format!(
            "unable to use machine linux: {} has 3 bytes",
            store.display()
        );
        let remedy = format!("truncate -s 0 {}", store.display());
        site.cannot_bootstrap(None, &cause, &remedy);

        assert!(Path::new(DESCRIPTORS).exists());
        run(&format!("mount -t tmpfs none {DESCRIPTORS}"));
        let cause = "unable to use machine linux: no UEFI firmware for x86_64 is described";
        site.cannot_bootstrap(None, cause, "apt-get install --no-install-recommends ovmf");

        // A machine that boots by BIOS needs none.
        fs::remove_file(&store).unwrap();
        let ran = site.run(None, &[]);
        assert_eq!(ran.code, Some(0), "{}", ran.err);
        assert!(site.machine().join("linux-default").exists());
    });
}
