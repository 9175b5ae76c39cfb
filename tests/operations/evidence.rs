//! The evidence of failed guests, with a QEMU that a script plays: it does not start, does
//! not answer, or lies.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;
use std::process::Output;
use std::time::{Duration, Instant};

use bbot_agent::json::Value;

use super::super::support::host::names;
use super::super::support::{Process, eventually, isolated, run};
use super::qemu::Stage;
use super::said;

/// A QEMU whose guest never asks. `inspected` is its reaction to each question about the
/// guest: `$line` has the command, `$vm` is QEMU's own directory, and `answer` answers
/// with a value.
pub(super) fn silent(inspected: &str) -> String {
    format!(
        r#"for word; do case $word in
             socket,id=monitor,fd=*) mon=${{word##*=}} ;;
             socket,id=console,fd=*) con=${{word##*=}} ;;
             unix:*) vm=${{word#unix:}} vm=${{vm%/*}} ;;
           esac; done
           answer () {{ echo "{{\"return\":$1,\"id\":$id}}" >&$mon; }}
           refuse () {{ echo "{{\"error\":{{\"desc\":\"$1\"}},\"id\":$id}}" >&$mon; }}
           echo '{{"QMP":{{"version":{{"qemu":{{"micro":0,"minor":0,"major":9}}}}}}}}' >&$mon
           while read -r line <&$mon; do
             id=${{line##*:}} id=${{id%\}}}}
             case $line in
               *quit*) exit 0 ;;
               *screendump*|*query-block*|*human-monitor-command*) {inspected} ;;
               *) answer {{}} ;;
             esac
           done"#
    )
}

/// One turn in which a guest fails. Returns the evidence, the oldest first.
fn fail(stage: &Stage, options: &[&str]) -> (Output, Vec<PathBuf>) {
    stage.host.drop_task("one");
    let mut command = stage.agent();
    command
        .args(["--hold=0", "--build-startup=1"])
        .args(options);
    let output = command.output().unwrap();
    (output, failures(stage))
}

fn failures(stage: &Stage) -> Vec<PathBuf> {
    let directory = stage.host.path("state/default-1/failed");
    let found = names(&directory);
    found.iter().map(|name| directory.join(name)).collect()
}

fn summary(failure: &std::path::Path) -> Value {
    Value::parse(&fs::read_to_string(failure.join("failure.json")).unwrap()).unwrap()
}

#[test]
fn a_qemu_that_does_not_start_leaves_evidence() {
    isolated(|| {
        let Some(stage) = Stage::new(11, "echo 'qemu: no such disk' >&2; exit 1") else {
            return;
        };
        let (output, found) = fail(&stage, &[]);
        let [failure] = &found[..] else {
            panic!("{found:?}: {}", said(&output));
        };
        let told = format!("evidence in {}\n", failure.display());
        assert!(said(&output).contains(&told), "{}", said(&output));
        let files = [
            "agent.txt",
            "failure.json",
            "start-machine.sh",
            "task.manifest",
        ];
        assert_eq!(names(failure), files);
        let summary = summary(failure);
        let reason = summary.get("reason").unwrap().as_str().unwrap();
        assert!(reason.ends_with("qemu: no such disk"), "{reason}");
        assert_eq!(summary.get("host_fault"), Some(&Value::Bool(true)));
    });
}

#[test]
fn a_qemu_that_lies_about_its_guest_cannot_harm() {
    isolated(|| {
        // The screen is a link to a file of the host, the disks have no answer, and the
        // registers try to steer a terminal.
        let script = silent(
            r#"case $line in
                 *screendump*) ln -sf /etc/hostname $vm/screen.png; answer {} ;;
                 *human*) answer '"RAX=0\u001b[2J\u0007\r\nRBX=1"' ;;
               esac; printf '\033]0;owned\007boot\r\n' >&$con"#,
        );
        let Some(stage) = Stage::new(12, &script) else {
            return;
        };
        let begun = Instant::now();
        let (output, found) = fail(&stage, &[]);
        assert!(begun.elapsed() < Duration::from_secs(30));
        let [failure] = &found[..] else {
            panic!("{found:?}: {}", said(&output));
        };
        let read = |name: &str| fs::read_to_string(failure.join(name)).unwrap();
        assert_eq!(read("registers.txt"), "RAX=0?\nRBX=1");
        assert_eq!(read("console.txt"), "boot\nboot\nboot\n");
        assert!(!failure.join("screen.png").exists());
        assert_eq!(
            summary(failure).get("missing").unwrap().to_string(),
            "[\"screendump: Symbolic link loop\",\"query-block: not answered\"]"
        );
    });
}

#[test]
fn a_qemu_without_png_is_asked_for_another_format() {
    isolated(|| {
        let script = silent(
            r#"case $line in
                 *screen.png*) refuse 'Parameter format is unexpected' ;;
                 *screen.ppm*) printf 'P6\n1 1\n255\nabc' >$vm/screen.ppm; answer {} ;;
                 *) answer '"x"' ;;
               esac"#,
        );
        let Some(stage) = Stage::new(13, &script) else {
            return;
        };
        let (output, found) = fail(&stage, &[]);
        assert_eq!(found.len(), 1, "{}", said(&output));
        let screen = fs::read(found[0].join("screen.ppm")).unwrap();
        assert_eq!(screen, b"P6\n1 1\n255\nabc");
        let missing = summary(&found[0]).get("missing").unwrap().to_string();
        assert_eq!(missing, "[]");
    });
}

#[test]
fn evidence_that_a_kill_interrupts_is_removed_at_the_next_start() {
    isolated(|| {
        // No question is answered, so that the evidence is under way for 2 s.
        let Some(stage) = Stage::new(17, &silent("")) else {
            return;
        };
        stage.host.drop_task("one");
        let mut command = stage.agent();
        command.args(["--hold=0", "--build-startup=1"]);
        let mut agent = Process(command.spawn().unwrap());
        let is_partial = |path: &PathBuf| path.extension().is_some_and(|e| e == "partial");
        eventually("evidence is under way", || {
            failures(&stage).iter().any(is_partial)
        });
        agent.kill();
        let left = failures(&stage);
        assert_eq!(left.len(), 1);

        let gc = stage.host.run(&["--gc", "--dry-run"]);
        let text = format!(
            "{}: incomplete evidence of a dead agent\n",
            left[0].display()
        );
        let listed = String::from_utf8_lossy(&gc.stdout).into_owned();
        assert!(listed.contains(&text), "{listed}");
        let (output, found) = fail(&stage, &[]);
        assert_eq!(found.len(), 1, "{}", said(&output));
        assert!(!is_partial(&found[0]), "{found:?}");
    });
}

#[test]
fn a_bootstrap_that_fails_leaves_evidence() {
    isolated(|| {
        let Some(stage) = Stage::new(18, &silent("answer {}")) else {
            return;
        };
        stage.remove_copy();
        let (output, found) = fail(&stage, &["--bootstrap-startup=1", "--bootstrap-retries=0"]);
        assert_eq!(found.len(), 1, "{}", said(&output));
        let summary = summary(&found[0]);
        let word = |name| summary.get(name).and_then(Value::as_str);
        assert_eq!(word("purpose"), Some("bootstrap"));
        assert_eq!(word("what"), Some("bootstrap startup timeout"));
        assert_eq!(word("task"), None);
        assert!(!found[0].join("task.manifest").exists());
    });
}

#[test]
fn every_attempt_has_evidence_and_the_oldest_goes_first() {
    isolated(|| {
        let Some(stage) = Stage::new(14, &silent("answer {}")) else {
            return;
        };
        let (output, found) = fail(&stage, &["--build-retries=2", "--keep-failures=2"]);
        assert_eq!(found.len(), 2, "{}", said(&output));
        let told = said(&output);
        let told: Vec<&str> = told
            .lines()
            .filter_map(|line| line.strip_prefix("info: evidence in "))
            .collect();
        // The second attempt failed as the first, and such a warning is not repeated.
        assert_eq!(told.len(), 2, "{told:?}");
        assert!(!found.contains(&told[0].into()), "{told:?}");
        assert_eq!(found[1].to_str(), Some(told[1]));
        let (output, found) = fail(&stage, &["--keep-failures=0"]);
        assert_eq!(found.len(), 2);
        assert!(!said(&output).contains("evidence"), "{}", said(&output));
    });
}

#[test]
fn a_full_disk_costs_the_evidence_only_and_is_reported_once() {
    isolated(|| {
        let Some(stage) = Stage::new(15, &silent("answer {}")) else {
            return;
        };
        let failed = stage.host.path("state/default-1/failed");
        fs::create_dir_all(&failed).unwrap();
        run(&format!(
            "mount -t tmpfs -o size=16k none {}",
            failed.display()
        ));
        let (output, found) = fail(&stage, &["--build-retries=2"]);
        assert!(found.is_empty(), "{found:?}");
        let text = said(&output);
        assert_eq!(
            text.matches("evidence of a failed guest is lost").count(),
            1,
            "{text}"
        );
        assert!(text.contains("No space left on device"), "{text}");
        // The task is given back all the same.
        assert!(stage.host.path("spool/tasks/one.manifest").exists());
        run(&format!("umount {}", failed.display()));
    });
}

/// Requires that one record of a failing turn has the place of the evidence as a field.
fn has_a_field(test: u32, script: &str) {
    isolated(|| {
        let Some(stage) = Stage::new(test, script) else {
            return;
        };
        run("mount -t tmpfs none /run");
        fs::create_dir_all("/run/systemd/journal").unwrap();
        let journal = UnixDatagram::bind("/run/systemd/journal/socket").unwrap();
        journal.set_nonblocking(true).unwrap();
        stage.host.drop_task("one");
        let log = fs::File::create(stage.host.path("log")).unwrap();
        let metadata = log.metadata().unwrap();
        let stream = format!("{}:{}", metadata.dev(), metadata.ino());
        let mut command = stage.agent();
        command
            .args(["--hold=0", "--build-startup=1"])
            .env("JOURNAL_STREAM", stream)
            .stderr(log);
        command.status().unwrap();
        let mut records = Vec::new();
        let mut buffer = vec![0; 1 << 16];
        while let Ok(length) = journal.recv(&mut buffer) {
            records.push(String::from_utf8_lossy(&buffer[..length]).into_owned());
        }
        let found = failures(&stage);
        let path = found[0].to_str().unwrap();
        let of_failure: Vec<_> = records
            .iter()
            .filter(|record| record.contains("BBOT_EVIDENCE\n"))
            .collect();
        let [record] = &of_failure[..] else {
            panic!("{records:#?}");
        };
        assert!(record.contains("PRIORITY=3\n"), "{record}");
        assert!(record.matches(path).count() == 2, "{record}");
    });
}

#[test]
fn the_journal_has_the_place_of_the_evidence() {
    has_a_field(16, &silent("answer {}"));
}

#[test]
fn the_journal_has_the_place_of_the_evidence_of_a_start() {
    has_a_field(19, "exit 1");
}
