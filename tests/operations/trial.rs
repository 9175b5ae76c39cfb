//! Trial runs: `--dump-*` and `--fake-*`.

use std::fs;
use std::time::Duration;

use super::super::support::{Process, isolated, run, within};
use super::{Host, TASK, said};

const OPTIONS: [&str; 4] = [
    "--fake-bootstrap",
    "--fake-build",
    "--fake-machine",
    "--fake-request",
];

#[test]
fn a_task_that_is_only_printed_stays_in_its_directory() {
    isolated(|| {
        let Some(host) = Host::new() else { return };
        host.drop_task("t");
        let spool = host.spool();
        for dump in ["--dump-task", "--dump-result"] {
            // A task that was begun three times and never ended is rejected.
            for _ in 0..4 {
                let output = host.run(&[dump, "--fake-build", "--once", &spool]);
                assert!(output.status.success(), "{dump}: {}", said(&output));
                assert!(!output.stdout.is_empty(), "{dump}: {}", said(&output));
                assert!(!said(&output).contains("begun before"), "{}", said(&output));
                assert!(host.path("spool/tasks/t.manifest").exists(), "{dump}");
            }
        }
    });
}

#[test]
fn a_result_far_over_the_limit_is_cut() {
    isolated(|| {
        let Some(host) = Host::new() else { return };
        fs::write(
            host.path("header"),
            ": 1\nid: fake-1\nname: linux\nsummary: Linux\n",
        )
        .unwrap();
        let result = host.drop_task("t");
        let header = format!("--fake-machine={}", host.path("header").display());
        let child = host.agent(&[&header, "--once", &host.spool()]).spawn();
        let mut child = Process(child.unwrap());
        let offered = host.path("tftp/build/default-1/get/manifest");
        within(Duration::from_secs(10), "the task", || offered.exists());
        let (line, count) = ("a line of a log\n", 100 << 16);
        let head = ": 1\nname: libfoo\nversion: 1.2.3\nstatus: success\n\
                    update-status: success\nupdate-log: \\\nthe first line\n";
        let text = format!("{head}{}the last line\n\\\n", line.repeat(count));
        assert!(text.len() > 100 << 20);
        let upload = host.path("tftp/build/default-1/put/manifest");
        fs::write(host.path("upload"), text).unwrap();
        fs::rename(host.path("upload"), upload).unwrap();
        assert_eq!(child.0.wait().unwrap().code(), Some(0));
        let text = fs::read_to_string(result).unwrap();
        let size = text.len();
        assert!((13 << 20..(14 << 20) + 1024).contains(&size), "{size}");
        assert!(text.contains("status: success") && text.contains("the first line"));
        assert!(text.contains("the last line"));
        let (_, note) = text.split_once("[bbot-agent: ").unwrap();
        let (bytes, _) = note.split_once(" bytes").unwrap();
        let sum = bytes.parse::<usize>().unwrap() + size;
        assert!(sum.abs_diff(line.len() * count) < 4096, "{sum}");
    });
}

/// Every combination of the options, with a QEMU that starts no guest.
#[test]
fn every_combination_of_the_options_ends_as_documented() {
    isolated(|| {
        let Some(host) = Host::new() else { return };
        host.qemu("exit 1");
        fs::write(
            host.path("header"),
            ": 1\nid: fake-1\nname: linux\nsummary: Linux\n",
        )
        .unwrap();
        fs::write(host.path("task"), TASK).unwrap();
        for chosen in 0..1 << OPTIONS.len() {
            for dump in ["", "--dump-machines", "--dump-task", "--dump-result"] {
                combination(&host, chosen, dump);
            }
        }
    });
}

fn combination(host: &Host, chosen: usize, dump: &str) {
    let is_chosen = |option: &str| {
        let index = OPTIONS.iter().position(|&known| known == option).unwrap();
        chosen & 1 << index != 0
    };
    let [bootstrap, build, machine, request] = OPTIONS.map(is_chosen);
    let value = |name: &str| host.path(name).display().to_string();
    let mut words = vec![format!("--qemu={}", value("qemu"))];
    for option in OPTIONS.into_iter().filter(|&option| is_chosen(option)) {
        words.push(match option {
            "--fake-machine" => format!("{option}={}", value("header")),
            "--fake-request" => format!("{option}={}", value("task")),
            _ => option.to_owned(),
        });
    }
    words.extend((!dump.is_empty()).then(|| dump.to_owned()));
    if !request {
        words.extend(["--once".to_owned(), host.spool()]);
    }
    let result = host.drop_task("t");
    let _ = fs::remove_file(&result);
    let copy = host.volume.path().join("default/linux/linux-default");
    if bootstrap && !machine {
        run(&format!("btrfs -q subvolume delete {}", copy.display()));
    }

    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let mut command = host.agent(&words);
    let file = |name| fs::File::create(host.path(name)).unwrap();
    command.stdout(file("stdout")).stderr(file("stderr"));
    let mut child = Process(command.spawn().unwrap());
    let what = format!("the end of {words:?}");
    if machine && !build && !matches!(dump, "--dump-machines" | "--dump-task") {
        // The test plays the guest.
        let offered = host.path("tftp/build/default-1/get/manifest");
        within(Duration::from_secs(10), &what, || offered.exists());
        fs::write(
            host.path("tftp/build/default-1/put/manifest"),
            ": 1\nname: libfoo\nversion: 1.2.3\nstatus: success\n",
        )
        .unwrap();
    }
    let mut end = None;
    within(Duration::from_secs(10), &what, || {
        end = child.0.try_wait().unwrap();
        end.is_some()
    });
    let [printed_text, messages] =
        ["stdout", "stderr"].map(|name| fs::read_to_string(host.path(name)).unwrap());

    // A guest is needed unless an option takes its place.
    let status = match (build, machine) {
        (true, _) => Some("abort"),
        (false, true) => Some("success"),
        (false, false) => None,
    };
    let printed = match dump {
        "--dump-machines" => Some("name: linux\n".to_owned()),
        "--dump-task" => Some("name: libfoo\n".to_owned()),
        "--dump-result" => status.map(|status| format!("status: {status}\n")),
        _ => None,
    };
    match &printed {
        Some(line) => assert!(
            printed_text.contains(line),
            "{what}: {printed_text}{messages}"
        ),
        None => assert_eq!(printed_text, "", "{what}"),
    }
    let succeeds = printed.is_some() || dump.is_empty() && status.is_some();
    assert_eq!(end.unwrap().success(), succeeds, "{what}: {messages}");
    let delivered = fs::read_to_string(&result).unwrap_or_default();
    match status {
        Some(status) if dump.is_empty() && !request => {
            assert!(delivered.contains(&format!("status: {status}")), "{what}");
        }
        _ => assert_eq!(delivered, "", "{what}"),
    }
}
